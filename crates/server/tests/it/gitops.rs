//! Trees of files: what they say, what applying them does, and that the way there
//! and back changes no byte, for every kind and for kinds that only this test knows.

use std::collections::{BTreeMap, BTreeSet};

use base::Digest;
use db::catalog::{Catalog, Label, Name};
use db::promotion::{Delivery, GateRule, Rules};
use db::{
    Actor, Db, Kind, Kinds, MoveRequest, Problem, Promotion, Reference, Scope, Selector, TextFile,
};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use serde_json::{Value, json};
use server::gitops::{
    self, ApplyRequest, Entry, Environments, Files, Key, Options, Plan, Tree, TreeDocument, parse,
    render,
};

use crate::harness::{Database, Place, encode, on_both_databases};
use crate::user_evaluators::gives_one;

/// Every kind of the product, and four that nobody else knows: one with free content, one
/// with a text file, one that refers to others, one that needs blobs.
fn all_kinds() -> Kinds {
    let known = server::app::kinds();
    let known = known.iter().copied();
    Kinds::new(known.chain([note(), page(), index(), parcel()]))
}

fn any_object(content: &Value) -> Result<(), Vec<Problem>> {
    match content {
        Value::Object(_) => Ok(()),
        _ => Err(vec![Problem::new("", "a note is a table")]),
    }
}

fn note() -> Kind {
    Kind::new("note", || json!({"type": "object"}), any_object)
}

fn page() -> Kind {
    Kind {
        text: Some(TextFile {
            suffix: "txt",
            split: |document| match document.as_object_mut()?.shift_remove("body") {
                Some(Value::String(body)) => Some(body),
                Some(other) => {
                    document["body"] = other;
                    None
                }
                None => None,
            },
            join: |document, text| {
                document["body"] = json!(text);
                Ok(())
            },
        }),
        ..Kind::new("page", || json!({"type": "object"}), any_object)
    }
}

fn index() -> Kind {
    Kind {
        references: |content| {
            let list = content["pages"].as_array().cloned().unwrap_or_default();
            let reference = |(index, text): (usize, &Value)| {
                Reference::parse_at(&format!("/pages/{index}"), text.as_str()?).ok()
            };
            list.iter().enumerate().filter_map(reference).collect()
        },
        ..Kind::new(
            "index",
            || {
                json!({
                    "type": "object",
                    "additionalProperties": false,
                    "properties": {"pages": {"type": "array", "items": {"type": "string"}}, "seed": {"type": "integer"}},
                })
            },
            any_object,
        )
    }
}

fn parcel() -> Kind {
    Kind {
        blobs: |content| {
            let list = content["parts"].as_array().cloned().unwrap_or_default();
            let texts = list.iter().filter_map(Value::as_str);
            texts.filter_map(|text| text.parse().ok()).collect()
        },
        ..Kind::new("parcel", || json!({"type": "object"}), any_object)
    }
}

// Documents of every kind.

/// Lines that a file format could trip over.
const LINES: &[&str] = &[
    "plain text",
    "",
    "--- user ---",
    "\\--- system ---",
    "\\\\--- placeholder x ---",
    "--- not one",
    "<<<<<<< HEAD",
    "=======",
    ">>>>>>> branch",
    "\"\"\"three quotes\"\"\"\"",
    "back\\slash \\n \\u0041",
    "\ttab and trailing space ",
    "carriage return\r",
    "日本語と「引用」",
    "👩‍👩‍👧 e\u{301} \u{200b}hidden \u{202e}turned",
    "[document]",
    "# no comment",
    "{{ question }}",
    "key = 'value'",
];

fn text(seed: u64) -> String {
    let mut lines = Vec::new();
    let mut seed = seed;
    for _ in 0..=(seed % 5) {
        seed = next(seed);
        lines.push(LINES[usize::try_from(seed % LINES.len() as u64).unwrap()]);
    }
    lines.join("\n")
}

fn next(seed: u64) -> u64 {
    let mixed = (seed ^ (seed >> 29)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ (mixed >> 32)).wrapping_add(0x1234_5678_9abc_def1)
}

/// JSON of any shape.
fn any_json(seed: u64, depth: usize) -> Value {
    let seed = next(seed);
    let child = |index: u64| any_json(seed.wrapping_add(index * 7919), depth + 1);
    match seed % if depth > 3 { 7 } else { 10 } {
        0 => Value::Null,
        1 => json!(seed.is_multiple_of(3)),
        2 => json!(i64::try_from(seed % (1 << 50)).unwrap() - (1 << 49)),
        3 => json!((seed % 100_000) as f64 / 64.0),
        4 => json!(1e21 * (seed % 9) as f64 + 1e-7),
        5 => json!(text(seed)),
        6 => json!(""),
        7 => (0..seed % 4).map(child).collect(),
        8 => {
            let inner = [json!("null"), json!(1), child(1)];
            json!({"$json": inner[usize::try_from(seed / 16 % 3).unwrap()]})
        }
        _ => {
            let keys = [
                "a",
                "b.c",
                "",
                "日本",
                "with space",
                "quote\"",
                "new\nline",
                "~/x",
                "type",
            ];
            (0..seed % 5)
                .map(|index| {
                    let at = (seed / 8 + index * 5) % keys.len() as u64;
                    (keys[usize::try_from(at).unwrap()].to_owned(), child(index))
                })
                .collect()
        }
    }
}

/// What documents of a tree may refer to.
#[derive(Debug, Default)]
struct Known {
    /// Reference texts by kind.
    references: BTreeMap<String, Vec<String>>,
}

/// A release of an app of this tree, as cutting gives it, under its app's name.
fn release(tree: &Tree, seed: u64) -> Option<(Name, Value)> {
    let apps: Vec<_> = tree
        .names
        .iter()
        .filter(|(key, _)| key.kind == "app")
        .collect();
    let (key, entry) = apps.get(usize::try_from(seed % apps.len().max(1) as u64).unwrap())?;
    let mut documents = serde_json::Map::new();
    let mut open: Vec<&Reference> = entry.main.references.iter().collect();
    while let Some(reference) = open.pop() {
        let to = Key {
            kind: reference.kind.clone(),
            name: reference.name.clone(),
        };
        let of = &tree.names[&to];
        let digest = match &reference.selector {
            Selector::Label(label) => of.pointers[label],
            _ => of.main.digest,
        };
        let target = of.documents().find(|document| document.digest == digest);
        let pinned =
            json!({"kind": to.kind, "name": to.name, "number": 1 + seed % 3, "digest": digest});
        if documents.insert(reference.to_string(), pinned).is_none() {
            open.extend(&target.unwrap().references);
        }
    }
    let app = json!({"name": key.name, "number": 1, "digest": entry.main.digest});
    Some((
        key.name.clone(),
        json!({"app": app, "documents": documents}),
    ))
}

impl Known {
    fn pick(&self, kind: &str, seed: u64) -> Option<&String> {
        let all = self.references.get(kind)?;
        all.get(usize::try_from(seed % all.len() as u64).unwrap())
    }
}

/// A document of this kind; `None` where there is nothing that it could refer to. A kind
/// without a line here fails the tests: whoever adds one says how its documents look.
fn document(kind: &str, seed: u64, known: &Known) -> Option<Value> {
    Some(match kind {
        "prompt" => prompt(seed, known),
        "experiment" => experiment(seed, known)?,
        "app" => json!({
            "description": format!("app {seed}"),
            "steps": [{
                "id": "one", "type": "prompt", "model": "openai/gpt-5",
                "prompt": known.pick("prompt", seed)?,
            }],
        }),
        "note" => {
            json!({"seed": seed, "value": any_json(seed, 0), "more": any_json(next(seed), 0)})
        }
        // A text file with the marker of a conflict is refused, so a kind that keeps any text
        // in a file must escape it; this one has none.
        "page" if seed.is_multiple_of(3) => {
            json!({"title": text(seed), "body": [any_json(seed, 2)], "seed": seed})
        }
        "page" => {
            json!({"title": text(seed), "body": text(seed).replace("<<<<<<<", "<").replace(">>>>>>>", ">"), "seed": seed})
        }
        "index" => {
            let pages: Vec<&String> = known.pick("page", seed).into_iter().collect();
            json!({"pages": pages, "seed": seed % (1 << 40)})
        }
        "dataset" => {
            json!({"description": format!("{seed}"), "splits": {}, "count": 0, "chunks": []})
        }
        "model_card" => json!({
            "model": format!("m{seed}*"), "open": seed.is_multiple_of(2), "regions": ["eu"],
            "context_tokens": seed % 1000 + 1, "sources": ["https://example.com/card"],
        }),
        "choice" => json!({
            "choice": format!("{seed}"), "dataset": Digest::of(&part(seed)).to_string(),
            "task": {
                "dataset": known.pick("dataset", seed)?, "models": ["openai/one", "openai/two"],
                "evaluators": [{"name": "it", "evaluator": {"type": "metric", "metric": {"id": "exact-match"}}}],
                "weights": {"quality": 60.0, "speed": 20.5, "cost": 20.0}, "finalists": 3, "first_sample": 20,
                "growth": 2, "alpha": 0.05, "concurrency": 8, "attempts": 3,
            },
            "rounds": [],
            "result": {
                "weights": {"quality": 60.0, "speed": 20.5, "cost": 20.0}, "finalists": [], "recommended": null,
                "scales": {"quality_low": 0.0, "quality_high": 1.0, "p95_latency_ms": 12.5, "usd_per_1000": 0.25},
                "is_clear": false, "examples": seed % 100,
            },
        }),
        "evaluator" if seed.is_multiple_of(3) => json!({
            "type": "wasm", "description": format!("{seed}"), "fuel": 1000 + seed % 1000, "memory_mib": 32,
            "module": Digest::of(&gives_one(seed)).to_string(), "parameters": {"most": text(seed), "n": 1.5},
        }),
        "evaluator" => json!({
            "type": "metric", "description": format!("{seed}"),
            "metric": {"id": if seed.is_multiple_of(2) { "exact-match" } else { "compat:chrf" }},
        }),
        "suite" => {
            let exact = json!({"type": "metric", "metric": {"id": "exact-match"}});
            let evaluator = known
                .pick("evaluator", seed)
                .map_or(exact, |name| json!(name));
            json!({
                "description": format!("{seed}"),
                "dataset": known.pick("dataset", seed)?,
                "candidates": [{"name": "one", "model": "openai/gpt-5"}],
                "evaluators": [{"name": "it", "evaluator": evaluator}],
                "concurrency": 4, "attempts": 3, "budget_usd": seed % 7 + 1,
            })
        }
        "review_queue" => json!({
            "description": format!("{seed}"),
            "questions": [{"name": "good", "type": "choice", "options": ["yes", "no"]}],
            "raters": seed % 3 + 2, "reserve_s": 60 + seed % 60,
        }),
        "live_evaluation" => json!({
            "evaluator": known.pick("evaluator", seed)?, "score": format!("s{seed}"),
            "max_per_hour": seed % 9 + 1, "enabled": seed.is_multiple_of(2), "sample": 0.25,
        }),
        "words" => json!({
            "description": format!("{seed}"), "language": "en", "fold": if seed.is_multiple_of(2) { "loose" } else { "exact" },
            "entries": [format!("a{seed}"), "two words", "競合"],
        }),
        "guard" => json!({
            "description": format!("{seed}"),
            "rules": [
                {"name": "injection", "at": ["input"], "check": {"type": "injection", "threshold": 0.3}, "action": {"type": "block"}},
                {"name": "words", "at": ["output"], "check": {"type": "words", "list": [format!("w{seed}")]}, "action": {"type": "flag"}, "shadow": true},
            ],
        }),
        "parcel" => json!({"seed": seed, "parts": [Digest::of(&part(seed)).to_string()]}),
        other => panic!("there is no generator of documents for the kind {other:?}: add one"),
    })
}

fn prompt(seed: u64, known: &Known) -> Value {
    let content = |seed: u64| format!("{seed} {}", text(seed));
    let messages: Vec<Value> = (0..=seed % 3)
        .map(|index| {
            let role =
                ["system", "user", "assistant"][usize::try_from((seed + index) % 3).unwrap()];
            json!({"role": role, "content": content(seed + index)})
        })
        .collect();
    let mut prompt = json!({"messages": messages});
    if server::gitops::schema_of(&gitops::Layout::new(&all_kinds()), "prompt").is_some_and(
        |schema| {
            schema["properties"]["document"]["properties"]
                .get("template")
                .is_some()
        },
    ) {
        if seed.is_multiple_of(4) {
            prompt = json!({"type": "text", "template": content(seed)});
        }
        if seed.is_multiple_of(5) {
            prompt["config"] = any_json(seed, 1);
            prompt["parameters"] = json!({"temperature": 0.5, "max_tokens": 10});
        }
        if let Some(partial) = known
            .pick("prompt", seed)
            .filter(|_| seed.is_multiple_of(7))
        {
            prompt["partials"] = json!({"shared": partial});
        }
    }
    // What says nothing has no second spelling.
    if prompt.get("config").is_some_and(Value::is_null) {
        prompt.as_object_mut().unwrap().shift_remove("config");
    }
    prompt
}

/// Between two labels of a prompt that has two.
fn experiment(seed: u64, known: &Known) -> Option<Value> {
    let mut labels: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for reference in known.references.get("prompt")? {
        let (name, label) = reference.strip_prefix("prompt:")?.split_once('@')?;
        if label != "latest" {
            labels.entry(name).or_default().push(label);
        }
    }
    let (name, labels) = labels.into_iter().find(|(_, labels)| labels.len() > 1)?;
    Some(json!({
        "description": format!("{seed} {}", text(seed)),
        "target": {"kind": "prompt", "name": name, "label": labels[0]},
        "arms": [
            {"name": "control", "label": labels[0], "weight": 50.0},
            {"name": "candidate", "label": labels[1], "weight": 50.0},
        ],
        "metric": {"kind": "score", "name": "thumbs"},
    }))
}

/// What a random tree has under one name.
#[derive(Debug, Clone)]
struct Spec {
    kind: usize,
    name: String,
    seeds: Vec<u64>,
    /// Label → which of the documents.
    labels: BTreeMap<String, usize>,
    tags: BTreeSet<String>,
}

fn names() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        3 => "[a-z]{1,6}",
        2 => "[aA][bB]?",
        1 => "(con|PRN|nul|com1|lpt9|Aux)(\\.[a-z]{1,3})?",
        1 => "\\.?[a-c]{1,2}(\\.toml|\\.prompt\\.md|\\.)?",
        1 => "[日本語ßſςÜüÉéİı]{1,4}",
        1 => "[A-Zあ-ん]{60,90}",
    ];
    proptest::collection::vec(part, 1..3)
        .prop_map(|parts| parts.join("/"))
        .prop_filter("names of ours", |text| text.parse::<Name>().is_ok())
}

fn specs(kinds: usize) -> impl Strategy<Value = Vec<Spec>> {
    let labels = prop_oneof![
        Just("staging"),
        Just("production"),
        Just("本番"),
        Just("Weird.Label_1")
    ];
    let labels = proptest::collection::btree_map(labels.prop_map(str::to_owned), 0usize..3, 0..4);
    let tags = prop_oneof![Just("geo"), Just("a-b"), Just("タグ")].prop_map(str::to_owned);
    let tags = proptest::collection::btree_set(tags, 0..3);
    let seeds = proptest::collection::vec(any::<u64>().prop_map(|seed| seed >> 12), 1..4);
    let spec = (0..kinds, names(), seeds, labels, tags);
    let spec = spec.prop_map(|(kind, name, seeds, labels, tags)| Spec {
        kind,
        name,
        seeds,
        labels,
        tags,
    });
    proptest::collection::vec(spec, 1..10)
}

/// Environments and what protects labels, some of them environments.
fn environments() -> impl Strategy<Value = Environments> {
    let names = ["dev", "staging", "prod", "本番"]
        .map(str::to_owned)
        .to_vec();
    let order = proptest::sample::subsequence(names, 0..=4).prop_shuffle();
    let labels = prop_oneof![
        Just("dev"),
        Just("staging"),
        Just("production"),
        Just("本番"),
        Just("Weird.Label_1")
    ];
    let gates = prop_oneof![
        Just(vec![]),
        Just(vec!["eval"]),
        Just(vec!["resolves", "team/x"])
    ];
    let roles = prop_oneof![Just(vec![]), Just(vec!["admin", "product_owner"])];
    let rules = (0u32..3, gates, roles, any::<bool>(), any::<bool>());
    let rules = rules.prop_map(|(approvals, gates, roles, auto, expires)| Rules {
        approvals,
        approver_roles: roles.into_iter().map(str::to_owned).collect(),
        gates: gates
            .into_iter()
            .map(|name| GateRule {
                name: name.to_owned(),
                required: approvals != 1,
                min_s: 0,
            })
            .collect(),
        delivery: if auto {
            Delivery::Auto
        } else {
            Delivery::Manual
        },
        expires_after_s: expires.then_some(3600),
    });
    let rules = rules.prop_filter("rules", |rules| *rules != Rules::default());
    let protections = proptest::collection::btree_map(labels.prop_map(str::to_owned), rules, 0..4);
    (order, protections).prop_map(|(order, protections)| Environments { order, protections })
}

/// The tree of these specs. Kinds are in an order in which each refers only to those before it.
fn tree_of(kinds: &Kinds, mut specs: Vec<Spec>) -> Tree {
    let order = [
        "note",
        "page",
        "prompt",
        "app",
        "release",
        "experiment",
        "index",
        "parcel",
    ];
    let list: Vec<Kind> = kinds.iter().copied().collect();
    let rank = |spec: &Spec| {
        let name = list[spec.kind].name;
        order
            .iter()
            .position(|known| *known == name)
            .unwrap_or(usize::MAX)
    };
    specs.sort_by_key(rank);
    let mut tree = Tree::default();
    let mut known = Known::default();
    for spec in specs {
        let kind = list[spec.kind];
        let released = (kind.name == "release").then(|| release(&tree, spec.seeds[0]));
        let name: Name = match &released {
            None => spec.name.parse().unwrap(),
            Some(None) => continue,
            Some(Some((name, _))) => name.clone(),
        };
        let key = Key {
            kind: kind.name.to_owned(),
            name: name.clone(),
        };
        if tree.names.contains_key(&key) {
            continue;
        }
        let mut documents: Vec<TreeDocument> = Vec::new();
        for seed in &spec.seeds {
            let content = match &released {
                Some(found) => found.clone().map(|(_, content)| content),
                None => document(kind.name, *seed, &known),
            };
            let Some(content) = content else {
                continue;
            };
            (kind.validate)(&content)
                .unwrap_or_else(|problems| panic!("{content:#}: {problems:?}"));
            let digest = Digest::of_json(&content).unwrap();
            // The catalog keeps documents as their canonical form reads.
            let content = serde_json::from_slice(&base::canonical_json(&content).unwrap()).unwrap();
            if documents.iter().all(|other| other.digest != digest) {
                documents.push(TreeDocument {
                    references: (kind.references)(&content),
                    blobs: (kind.blobs)(&content),
                    content,
                    digest,
                    file: String::new(),
                });
            }
        }
        let Some(main) = documents.pop() else {
            continue;
        };
        let digests: Vec<Digest> = [main.digest]
            .into_iter()
            .chain(documents.iter().map(|other| other.digest))
            .collect();
        let pointers: BTreeMap<Label, Digest> = spec
            .labels
            .iter()
            .map(|(label, at)| (label.parse().unwrap(), digests[at % digests.len()]))
            .collect();
        // Only what something points to is in a tree.
        documents.retain(|other| pointers.values().any(|digest| *digest == other.digest));
        documents.sort_by_key(|other| other.digest);
        let references = known.references.entry(key.kind.clone()).or_default();
        references.push(format!("{}:{name}@latest", key.kind));
        references.extend(
            pointers
                .keys()
                .map(|label| format!("{}:{name}@{label}", key.kind)),
        );
        let entry = Entry {
            main,
            pinned: documents,
            tags: spec.tags.into_iter().collect(),
            pointers,
        };
        tree.names.insert(key, entry);
    }
    tree
}

// The way there and back.

async fn add_project(db: &Db) -> Scope {
    let project: base::ProjectId = db.ids().make();
    let mut tx = db.begin_write().await.unwrap();
    db::sqlx::query("INSERT INTO projects (id, name, created_at) VALUES ($1, $2, 0)")
        .bind(project.to_string())
        .bind(format!("project-{project}"))
        .execute(tx.conn())
        .await
        .unwrap();
    tx.commit().await.unwrap();
    Scope {
        project,
        actor: Actor::Operator,
    }
}

async fn apply(db: &Db, catalog: &Catalog, scope: Scope, tree: &Tree, options: Options) -> Plan {
    let request = ApplyRequest {
        tree,
        options,
        expected: None,
        message: "test",
        is_source: true,
    };
    let applied = gitops::apply(db, catalog, scope, request).await;
    applied.unwrap_or_else(|error| panic!("{error}")).plan
}

fn read(files: &Files, kinds: &Kinds) -> Tree {
    let checked = parse(files, kinds);
    assert!(
        !gitops::has_errors(&checked.findings),
        "{:#?}\n{files:#?}",
        checked.findings
    );
    checked.tree
}

async fn exported(db: &Db, catalog: &Catalog, scope: Scope) -> Files {
    let tree = gitops::export(db, catalog, scope).await.unwrap();
    render(&tree, catalog.kinds())
}

/// A tree applied is there, a second plan is empty, and its export makes the same project
/// elsewhere. Then its environments change.
async fn check_there_and_back(
    db: &Db,
    store: &db::BlobStore,
    kinds: &Kinds,
    specs: Vec<Spec>,
    [environments, others]: [Environments; 2],
) {
    let catalog = Catalog::new(db.clone(), kinds.clone()).with_blobs(store.clone());
    let seeds: Vec<u64> = specs.iter().flat_map(|spec| spec.seeds.clone()).collect();
    let put_parts = |scope: Scope| {
        for seed in &seeds {
            let store = store.of_project(scope.project);
            store.put_bytes(&part(*seed)).unwrap();
            store.put_bytes(&gives_one(*seed)).unwrap();
        }
    };
    let tree = Tree {
        environments: Some(environments.clone()),
        ..tree_of(kinds, specs)
    };
    let files = render(&tree, kinds);
    let folded: BTreeSet<String> = files
        .keys()
        .map(|path| path.to_uppercase().to_lowercase())
        .collect();
    assert_eq!(
        folded.len(),
        files.len(),
        "files that a system without case confuses: {files:#?}"
    );
    let tree = read(&files, kinds);
    let formatted = gitops::format(&files, &tree, kinds);
    assert!(formatted.is_normal(), "{formatted:#?}");
    let first = add_project(db).await;
    put_parts(first);
    apply(db, &catalog, first, &tree, Options::default()).await;
    let delete = Options {
        allow_delete: true,
        ..Options::default()
    };
    let again = gitops::plan(db, &catalog, first, &tree, delete).await;
    let again = again.unwrap();
    assert!(
        again.is_empty()
            && again.not_deleted.is_empty()
            && again.drift.is_empty()
            && again.follows.is_empty(),
        "{again:#?}"
    );
    assert_eq!(exported(db, &catalog, first).await, files);
    let second = add_project(db).await;
    put_parts(second);
    let read_again = read(&exported(db, &catalog, first).await, kinds);
    apply(db, &catalog, second, &read_again, Options::default()).await;
    assert_eq!(exported(db, &catalog, second).await, files);

    // Environments of a tree are added and ordered, and stay; what protects other labels goes
    // only with the flag.
    let changed = Tree {
        environments: Some(others.clone()),
        ..tree
    };
    let kept: Vec<String> = environments
        .labels()
        .filter(|(label, _)| !others.has(label) && !others.protections.contains_key(*label))
        .map(|(label, _)| format!("protection of {label}"))
        .collect();
    apply(db, &catalog, first, &changed, Options::default()).await;
    let again = gitops::plan(db, &catalog, first, &changed, Options::default()).await;
    let again = again.unwrap();
    let left = again.not_deleted.iter().map(|left| left.object.clone());
    let left: Vec<String> = left.filter(|left| left.starts_with("protection")).collect();
    assert!(again.is_empty() && again.drift.is_empty(), "{again:#?}");
    assert_eq!(left, kept);
    apply(db, &catalog, first, &changed, delete).await;
    let again = gitops::plan(db, &catalog, first, &changed, delete).await;
    let again = again.unwrap();
    let is_environment = |object: &str| object.starts_with("environment ");
    assert!(
        again.is_empty()
            && again
                .not_deleted
                .iter()
                .all(|left| is_environment(&left.object)),
        "{again:#?}"
    );
    let now = gitops::export(db, &catalog, first).await.unwrap();
    let now = now.environments.unwrap();
    let of_tree: Vec<&String> = now.order.iter().filter(|name| others.has(name)).collect();
    assert_eq!(of_tree, others.order.iter().collect::<Vec<_>>());
    for label in [
        "dev",
        "staging",
        "prod",
        "production",
        "本番",
        "Weird.Label_1",
    ] {
        let stays = environments.has(label) && !others.has(label);
        let stays = stays && !others.protections.contains_key(label);
        let wanted = if stays { &environments } else { &others };
        assert_eq!(now.rules(label), wanted.rules(label), "{label}");
    }
}

fn run_there_and_back(place: &Place, cases: u32) {
    let kinds = all_kinds();
    place.database(async |db| {
        let store = db::BlobStore::open(place.beside("blobs"), db.ids().clone(), 1 << 20).unwrap();
        let mut runner = proptest::test_runner::TestRunner::new_with_rng(
            ProptestConfig {
                cases,
                failure_persistence: None,
                ..ProptestConfig::default()
            },
            proptest::test_runner::TestRng::deterministic_rng(
                proptest::test_runner::RngAlgorithm::ChaCha,
            ),
        );
        let strategy = (
            specs(kinds.iter().count()),
            [environments(), environments()],
        );
        for _ in 0..cases {
            let (specs, environments) = strategy.new_tree(&mut runner).unwrap().current();
            check_there_and_back(db, &store, &kinds, specs, environments).await;
        }
        // One of each kind at least, whatever chance brought.
        let each = (0..kinds.iter().count()).map(|kind| Spec {
            kind,
            name: "Each/one.v1".to_owned(),
            seeds: vec![7, 35, 12],
            labels: BTreeMap::from([("staging".to_owned(), 1), ("production".to_owned(), 0)]),
            tags: BTreeSet::from(["geo".to_owned()]),
        });
        let tree = tree_of(&kinds, each.clone().collect());
        for kind in kinds.iter() {
            assert!(
                tree.names.keys().any(|key| key.kind == kind.name),
                "no document of {}",
                kind.name
            );
        }
        let nothing = <[Environments; 2]>::default();
        check_there_and_back(db, &store, &kinds, each.collect(), nothing).await;
    });
}

#[test]
fn a_tree_there_and_back_sqlite() {
    run_there_and_back(&Place::on(Database::Sqlite), 60);
}

#[test]
fn a_tree_there_and_back_postgres() {
    run_there_and_back(&Place::on(Database::Postgres), 12);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn messages_come_back_byte_by_byte(contents in proptest::collection::vec((0usize..4, "\\PC{0,8}|(\n|\r|\\\\|--- |---| ---|x|<<<<<<< ){0,12}"), 1..5)) {
        let messages: Vec<Value> = contents.iter().map(|(role, content)| match role {
            3 => json!({"placeholder": "history"}),
            role => {
                let role = ["system", "user", "assistant"][*role];
                json!({"role": role, "content": content})
            }
        }).collect();
        let text = gitops::write_messages(&messages).unwrap();
        prop_assert_eq!(gitops::read_messages(&text).unwrap(), messages);
    }
}

// Environments that take content over by themselves.

const AUTO: &str = "[[environment]]\nname = \"dev\"\n[[environment]]\nname = \"staging\"\n[environment.protection]\ndelivery = \"auto\"\n";
const MANUAL: &str = "[[environment]]\nname = \"dev\"\n[[environment]]\nname = \"staging\"\n";

/// A tree with one note, whose newest content is in dev and whose staging is said as it is.
fn note_tree(kinds: &Kinds, environments: &str, newest: i64, staging: Option<i64>) -> Tree {
    let digest = |number: i64| Digest::of_json(&json!({"n": number})).unwrap();
    let staging = match staging {
        None => String::new(),
        Some(number) if number == newest => "staging = \"this\"\n".to_owned(),
        Some(number) => format!("staging = \"{}\"\n", digest(number)),
    };
    let main = format!("[pointers]\ndev = \"this\"\n{staging}[document]\nn = {newest}\n");
    let files = Files::from([
        ("environments.toml".to_owned(), environments.to_owned()),
        ("notes/a.toml".to_owned(), main),
    ]);
    read(&files, kinds)
}

on_both_databases!(what_moves_by_itself_is_not_the_trees_to_move);

fn what_moves_by_itself_is_not_the_trees_to_move(place: Place) {
    place.database(async |db| {
        let kinds = all_kinds();
        let catalog = Catalog::new(db.clone(), kinds.clone());
        let promotion = Promotion::new(db.clone(), catalog.clone());
        let scope = add_project(db).await;
        let name: Name = "a".parse().unwrap();
        let staging = async || {
            let pointers = catalog.pointers(scope, "note", &name).await.unwrap();
            let found = pointers.iter().find(|pointer| pointer.label == "staging");
            found.map(|pointer| pointer.number)
        };
        let planned = async |tree: &Tree, options: Options| {
            let plan = gitops::plan(db, &catalog, scope, tree, options).await;
            plan.unwrap()
        };
        let words = |plan: &Plan| -> Vec<String> {
            plan.steps.iter().map(gitops::Step::in_words).collect()
        };
        let applied = async |tree: &Tree| {
            apply(db, &catalog, scope, tree, Options::default()).await;
            let delete = Options {
                allow_delete: true,
                ..Options::default()
            };
            let again = planned(tree, delete).await;
            assert!(
                again.is_empty() && again.drift.is_empty() && again.not_deleted.is_empty(),
                "{again:#?}"
            );
            again.follows
        };

        // A tree says where such a label begins.
        let tree = note_tree(&kinds, AUTO, 1, Some(1));
        assert_eq!(applied(&tree).await, []);

        // From then on the environment before it says where it is. The tree still has the version
        // of before there: the plan says what will happen, it happens, and is neither undone nor drift.
        let tree = note_tree(&kinds, AUTO, 2, Some(1));
        let plan = planned(&tree, Options::default()).await;
        assert_eq!(plan.steps.len(), 2, "{:?}", words(&plan));
        assert!(plan.follows[0].why.contains("takes over"), "{plan:#?}");
        let follows = applied(&tree).await;
        assert_eq!(staging().await, Some(2));
        assert_eq!(follows[0].object, "note a@staging");
        assert!(
            follows[0].why.contains("follows dev by itself"),
            "{follows:?}"
        );
        // Nor is it removed where the tree does not have it.
        let follows = applied(&note_tree(&kinds, AUTO, 2, None)).await;
        assert!(follows[0].why.contains("does not have it"), "{follows:?}");
        assert_eq!(staging().await, Some(2));

        // A plan that somebody looked at does not depend on where it went meanwhile.
        let tree = note_tree(&kinds, AUTO, 3, Some(2));
        let seen = planned(&tree, Options::default()).await.identity().unwrap();
        let request = MoveRequest {
            kind: "note",
            name: &name,
            label: &"staging".parse().unwrap(),
            to: 1,
            expected: None,
            reason: "by hand",
        };
        promotion.request_move(scope, request).await.unwrap();
        let request = ApplyRequest {
            tree: &tree,
            options: Options::default(),
            expected: Some(seen),
            message: "test",
            is_source: true,
        };
        gitops::apply(db, &catalog, scope, request).await.unwrap();
        assert_eq!(staging().await, Some(3));

        // From the tree that makes it manual on, the tree decides, in that same apply: the move
        // of dev does not go on to staging.
        let tree = note_tree(&kinds, MANUAL, 4, Some(3));
        let plan = planned(&tree, Options::default()).await;
        assert!(plan.follows.is_empty(), "{plan:#?}");
        assert_eq!(applied(&tree).await, []);
        assert_eq!(staging().await, Some(3));
        let tree = note_tree(&kinds, MANUAL, 4, Some(2));
        assert_eq!(applied(&tree).await, []);
        assert_eq!(staging().await, Some(2));

        // The project made elsewhere is the same, and stays so when time passes: there, too, the
        // tree's word about staging is younger than that about dev.
        let tree = note_tree(&kinds, AUTO, 4, Some(2));
        assert_eq!(applied(&tree).await, []);
        promotion.sweep().await.unwrap();
        assert_eq!(staging().await, Some(2));
        let files = exported(db, &catalog, scope).await;
        let elsewhere = add_project(db).await;
        let tree = read(&files, &kinds);
        apply(db, &catalog, elsewhere, &tree, Options::default()).await;
        promotion.sweep().await.unwrap();
        assert_eq!(exported(db, &catalog, elsewhere).await, files);
    });
}

on_both_databases!(protections_of_labels_are_in_the_tree);

fn protections_of_labels_are_in_the_tree(place: Place) {
    place.meguri(&["key", "list"]).assert_done();
    let dir = place.beside("tree");
    let shown = dir.display().to_string();
    place.meguri(&["export", &shown]).assert_done();
    let path = dir.join("environments.toml");
    let exported = std::fs::read_to_string(&path).unwrap();
    let label = "\n[[label]]\nname = \"production\"\nprotection = { approvals = 2 }\n";
    std::fs::write(&path, exported.clone() + label).unwrap();
    let plan = place.meguri(&["plan", &shown, "--json"]).json();
    assert_eq!(
        (&plan["steps"][0]["action"], &plan["steps"][0]["changes"]),
        (
            &json!("protect"),
            &json!([{"path": "/approvals", "after": 2}])
        ),
        "{plan:#}"
    );
    place.meguri(&["apply", &shown, "--yes"]).assert_done();
    let again = place.meguri(&["export", &shown, "--json"]).json();
    assert_eq!(again["written"], json!([]), "the file was in its form");

    // Somebody asks for more approvals in a hurry: that is drift, and no pipeline undoes it.
    place
        .meguri(&["env", "protect", "production", "--approvals", "3"])
        .assert_done();
    let refused = place.meguri(&["apply", &shown, "--yes"]);
    assert!(
        refused.code == 1 && refused.stdout.contains("protect production would undo"),
        "{refused:?}"
    );
    let over = ["apply", &shown, "--yes", "--overwrite-drift"];
    place.meguri(&over).assert_done();

    // With what it protects it goes in one apply, or the second plan would not be empty.
    std::fs::write(&path, &exported).unwrap();
    let delete = ["apply", &shown, "--yes", "--allow-delete"];
    place.meguri(&delete).assert_done();
    let other = place.beside("other");
    write(&other, "environments.toml", &exported);
    let document = "[pointers]\nproduction = \"this\"\n[document]\n";
    write(&other, "prompts/a.toml", document);
    write(&other, "prompts/a.prompt.md", "--- user ---\nhello\n");
    let other = other.display().to_string();
    place.meguri(&["apply", &other, "--yes"]).assert_done();
    std::fs::write(&path, exported.clone() + label).unwrap();
    place.meguri(&["apply", &shown, "--yes"]).assert_done();
    let kept = place.meguri(&["plan", &shown, "--json", "--allow-delete"]);
    let kept = kept.json();
    assert_eq!(
        (&kept["steps"], &kept["not_deleted"][0]["why"]),
        (&json!([]), &json!("its label production is protected"))
    );
    std::fs::write(&path, &exported).unwrap();
    place
        .meguri(&["apply", &shown, "--yes", "--allow-delete"])
        .assert_done();
    let plan = place
        .meguri(&["plan", &shown, "--json", "--allow-delete"])
        .json();
    assert_eq!(
        (&plan["steps"], &plan["not_deleted"]),
        (&json!([]), &json!([])),
        "the name went with the protection of its label: {plan:#}"
    );

    // It goes with the flag only.
    std::fs::write(&path, exported.clone() + label).unwrap();
    place.meguri(&["apply", &shown, "--yes"]).assert_done();
    std::fs::write(&path, exported).unwrap();
    let plan = place.meguri(&["plan", &shown, "--json"]).json();
    assert_eq!(
        (&plan["steps"], &plan["not_deleted"][0]["object"]),
        (&json!([]), &json!("protection of production"))
    );
    let delete = ["apply", &shown, "--yes", "--allow-delete"];
    place.meguri(&delete).assert_done();
    let plan = place
        .meguri(&["plan", &shown, "--json", "--allow-delete"])
        .json();
    assert_eq!(
        (&plan["steps"], &plan["not_deleted"]),
        (&json!([]), &json!([]))
    );
}

// The command line and the API.

fn write(dir: &std::path::Path, path: &str, text: &str) {
    let full = dir.join(path);
    std::fs::create_dir_all(full.parent().unwrap()).unwrap();
    std::fs::write(full, text).unwrap();
}

fn read_dir(dir: &std::path::Path) -> Files {
    gitops::read_directory(dir).unwrap().0
}

const ANSWER: &str = "tags = [\"support\"]\n\n[pointers]\nstaging = \"this\"\n\n[document]\nmodel = \"openai/gpt-5\"\n";

on_both_databases!(a_project_in_files);

fn a_project_in_files(place: Place) {
    let (tree, again) = (place.beside("tree"), place.beside("again"));
    let shown = |path: &std::path::Path| path.display().to_string();
    let dir = shown(&tree);
    write(&tree, "prompts/サポート/Answer.toml", ANSWER);
    write(
        &tree,
        "prompts/サポート/Answer.prompt.md",
        "--- system ---\nYou answer for {{ team }}.\n",
    );
    write(&tree, "README.md", "not part of the tree");
    place.meguri(&["key", "list"]).assert_done();
    assert_eq!(
        place
            .run(place.command().args(["validate", &dir, "--json"]))
            .json()["ok"],
        true
    );

    // Nobody is there to ask.
    let asked = place.meguri(&["apply", &dir]);
    assert!(
        asked.code == 1 && asked.stderr.contains("--yes"),
        "{asked:?}"
    );
    let plan = place.meguri(&["plan", &dir, "--json"]).json();
    let words: Vec<_> = plan["steps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|step| step["action"].clone())
        .collect();
    assert_eq!(words, ["create", "move", "tag"]);
    place.meguri(&["apply", &dir, "--yes"]).assert_done();
    let empty = place
        .meguri(&["plan", &dir, "--json", "--allow-delete"])
        .json();
    assert_eq!(
        (&empty["steps"], &empty["drift"]),
        (&json!([]), &json!([])),
        "{empty:#}"
    );

    // Exports are the same bytes, and replace nothing that somebody else wrote.
    let refused = place.meguri(&["export", &dir]);
    assert!(
        refused.code == 1 && refused.stderr.contains("was not exported"),
        "{refused:?}"
    );
    place.meguri(&["export", &shown(&again)]).assert_done();
    let first = read_dir(&again);
    let repeated = place.meguri(&["export", &shown(&again), "--json"]).json();
    assert_eq!(repeated["written"], json!([]));
    assert!(
        first["prompts/サポート/Answer.toml"].starts_with("#:schema ../../.schemas/prompt.json\n"),
        "{first:#?}"
    );
    assert!(again.join(".schemas/prompt.json").is_file());
    assert_eq!(
        place.meguri(&["plan", &shown(&again), "--json"]).json()["steps"],
        json!([])
    );

    // An edit is a version with its fields; the label of this file follows.
    write(
        &tree,
        "prompts/サポート/Answer.prompt.md",
        "--- system ---\nYou answer briefly for {{ team }}.\n",
    );
    let plan_file = shown(&place.beside("plan.json"));
    let plan = place
        .meguri(&["plan", &dir, "--json", "--out", &plan_file])
        .json();
    assert_eq!(
        plan["steps"][0]["changes"][0]["path"], "/messages/0/content",
        "{plan:#}"
    );
    assert_eq!(plan["steps"][1]["action"], "move");

    // The project moves on: the plan that was looked at is refused, nothing is half done.
    let other = place.beside("other");
    write(
        &other,
        "prompts/サポート/Answer.toml",
        "[pointers]\nstaging = \"this\"\n[document]\n",
    );
    write(
        &other,
        "prompts/サポート/Answer.prompt.md",
        "--- system ---\nSomebody else.\n",
    );
    place
        .meguri(&["apply", &shown(&other), "--yes"])
        .assert_done();
    let refused = place.meguri(&["apply", &plan_file, "--yes"]);
    assert!(
        refused.code == 1 && refused.stderr.contains("no longer"),
        "{refused:?}"
    );
    place.meguri(&["apply", &dir, "--yes"]).assert_done();

    // What somebody changes in the project is drift, and is not undone without being told to.
    let server = place.start();
    let live = server.with_key(&place.make_key("default", "admin").1);
    let label = format!(
        "/api/v1/prompts/{}/labels/staging",
        encode("サポート/Answer")
    );
    let moved = live.put(&label, &json!({"version": 1}));
    assert_eq!(moved.status, 200, "{moved:?}");
    let plan = place.meguri(&["plan", &dir, "--json"]);
    assert_eq!(plan.code, 1);
    let plan: Value = serde_json::from_str(&plan.stdout).unwrap();
    assert_eq!(plan["drift"][0]["object"], "prompt サポート/Answer@staging");
    place
        .meguri(&["apply", &dir, "--yes", "--overwrite-drift"])
        .assert_done();

    // Deletes need a flag.
    std::fs::remove_dir_all(tree.join("prompts")).unwrap();
    let kept = place.meguri(&["plan", &dir, "--json"]).json();
    assert_eq!(
        (&kept["steps"], &kept["not_deleted"][0]["object"]),
        (&json!([]), &json!("prompt サポート/Answer"))
    );
    place
        .meguri(&["apply", &dir, "--yes", "--allow-delete"])
        .assert_done();
    let stale = place
        .meguri(&["export", &shown(&again), "--remove-stale", "--json"])
        .json();
    assert_eq!(stale["stale"].as_array().unwrap().len(), 2, "{stale:#}");

    // The same over HTTP, with a protected label: a proposal, and an empty plan after it.
    let sent = json!({"files": {
        "prompts/a.toml": "[pointers]\nprod = \"this\"\n[document]\n",
        "prompts/a.prompt.md": "--- user ---\nhello\n",
    }});
    let plan = live.post("/api/v1/gitops/plan", &sent).json();
    assert_eq!(plan["steps"][1]["needs"]["approvals"], 1, "{plan:#}");
    let mut stale = sent.clone();
    stale["expected"] = json!(Digest::of(b"another").to_string());
    assert_eq!(live.post("/api/v1/gitops/apply", &stale).status, 409);
    let applied = live.post("/api/v1/gitops/apply", &sent).json();
    assert_eq!(
        applied["proposals"][0]["object"], "prompt a@prod",
        "{applied:#}"
    );
    let plan = live.post("/api/v1/gitops/plan", &sent).json();
    assert_eq!(
        (&plan["steps"], plan["waiting"].as_array().unwrap().len()),
        (&json!([]), 1),
        "{plan:#}"
    );
    let exported = live.get("/api/v1/gitops/export").json();
    assert_eq!(
        exported["files"]["prompts/a.prompt.md"],
        "--- user ---\nhello\n"
    );
    let mut wrong = sent;
    wrong["files"]["prompts/a.toml"] = json!("[document]\nmodle = \"x\"\n");
    let refused = live.post("/api/v1/gitops/apply", &wrong);
    assert!(
        refused.status == 400 && refused.text().contains("did you mean model?"),
        "{refused:?}"
    );
}

/// What validating these files finds: `file:line:column: severity: message (hint)`.
fn findings(files: &[(&str, &str)]) -> Vec<String> {
    let files: Files = files
        .iter()
        .map(|(path, text)| ((*path).to_owned(), (*text).to_owned()))
        .collect();
    parse(&files, &all_kinds())
        .findings
        .iter()
        .map(ToString::to_string)
        .collect()
}

#[test]
fn everything_wrong_is_found_at_once_with_its_place() {
    let good = ("prompts/good.prompt.md", "--- user ---\nhello\n");
    let found = findings(&[
        (
            "prompts/good.toml",
            "tgas = []\n[pointers]\nprod = \"thsi\"\n",
        ),
        good,
        ("prompts/broken.toml", "[document\n"),
        ("prompts/conflict.toml", "<<<<<<< HEAD\n[document]\n"),
        (
            "prompts/key.toml",
            "[document]\nmesages = []\nmodel = \"openai/x\"\n",
        ),
        ("prompts/orphan.prompt.md", "--- user ---\nx\n"),
        ("prompts/dates.toml", "[document]\nmodel = 2020-01-01\n"),
        ("prompts/text.toml", "[document]\n"),
        ("prompts/text.prompt.md", "no heading\n"),
        ("prompts/wrong.md", "x"),
        ("prompst/a.toml", "[document]\n"),
        (
            "indexes/i.toml",
            "[document]\npages = [\"page:missng@latest\", \"page:missing@stagng\", \"pgae:x@1\"]\n",
        ),
        (
            "pages/missing.toml",
            "[pointers]\nstaging = \"this\"\n[document]\n",
        ),
        ("environment.toml", ""),
        (
            "environments.toml",
            "[[environment]]\nname = \"prod\"\n[environment.protection]\naprovals = 1\n",
        ),
    ]);
    let text = found.join("\n");
    for wanted in [
        "prompts/good.toml:1:1: error: unknown key \"tgas\" (did you mean tags?)",
        "prompts/broken.toml:1:",
        "prompts/conflict.toml:1: error: a merge conflict",
        "prompts/key.toml:2:1: error: unknown key \"mesages\" (did you mean messages?)",
        "prompts/orphan.prompt.md: error: the TOML file beside it is missing",
        "prompts/dates.toml:2:9: error: a document has no dates",
        "prompts/text.prompt.md:1: error: a text stands under no heading",
        "prompts/wrong.md: error: it is not part of the tree",
        "prompst: error: it is no kind of document (did you mean prompts?)",
        "indexes/i.toml:2:10: warning: page missng is not in the tree; the project must have it already (did you mean missing?)",
        "(did you mean staging?)",
        "error: there is no kind \"pgae\" (did you mean page?)",
        "environment.toml: error: the tree has no such file (did you mean environments.toml?)",
        "environments.toml:4:1: error: unknown key \"aprovals\" (did you mean approvals?)",
    ] {
        assert!(text.contains(wanted), "{wanted}\nis not in\n{text}");
    }
    let environments = "[[environment]]\nname = \"prod\"\n\n[[label]]\nname = \"prod\"\nprotection = { approvals = 1 }\n\n[[label]]\nname = \"x\"\nprotection = {}\n\n[[label]]\nname = \"y\"\nprotection = { approvals = 1, approver_roles = [\"nobody\"] }\n\n[[label]]\nname = \"a/b\"\nprotection = { approvals = 1 }\n";
    let text = findings(&[("environments.toml", environments)]).join("\n");
    for wanted in [
        "environments.toml:4:1: error: prod is an environment (what protects it stands in its [[environment]])",
        "environments.toml:8:1: error: nothing protects the label x (",
        "environments.toml:12:1: error: the role \"nobody\" cannot approve",
        "environments.toml:16:1: error: must not contain a slash",
    ] {
        assert!(text.contains(wanted), "{wanted}\nis not in\n{text}");
    }
    let found = findings(&[("prompts/good.toml", "[pointers]\nprod = \"thsi\"\n"), good]);
    assert_eq!(found.len(), 1);
    assert!(
        found[0].ends_with("(did you mean this?)")
            && found[0].starts_with("prompts/good.toml:2:8: error"),
        "{found:?}"
    );
    // Two files of one name, in two spellings, and a pinned file that was edited.
    let found = findings(&[
        ("notes/cafe\u{301}.toml", "[document]\n"),
        ("notes/caf\u{e9}.toml", "[document]\n"),
        ("notes/b.toml", "[document]\n"),
        ("notes/b@0123456789ab.toml", "[document]\nx = 1\n"),
    ]);
    assert!(
        found.len() == 2
            && found.iter().any(|line| line.contains("as well; keep one"))
            && found.iter().any(|line| line.contains("no longer the one")),
        "{found:#?}"
    );
}

#[cfg(unix)]
#[test]
fn mlflow_2026_2614_links_out_of_the_tree_are_refused() {
    let place = Place::on(Database::Sqlite);
    let tree = place.beside("tree");
    write(&tree, "prompts/a.toml", "[document]\n");
    write(&place.beside("secret"), "key.toml", "[document]\n");
    std::os::unix::fs::symlink(place.beside("secret"), tree.join("prompts/out")).unwrap();
    std::fs::write(tree.join("prompts/bad.toml"), b"x = \"\xff\"").unwrap();
    let (files, findings) = gitops::read_directory(&tree).unwrap();
    assert_eq!(files.len(), 1);
    let lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
    assert!(
        lines[0].contains("not UTF-8") && lines[1].starts_with("prompts/out: error: it is a link"),
        "{lines:?}"
    );
    // Nor does an export write through one.
    let refused = place.meguri(&["export", &tree.display().to_string()]);
    assert_eq!(refused.code, 0, "{refused:?}");
    std::fs::remove_dir_all(tree.join(".schemas")).unwrap();
    std::os::unix::fs::symlink(place.beside("secret"), tree.join(".schemas")).unwrap();
    let refused = place.meguri(&["export", &tree.display().to_string()]);
    assert!(
        refused.code == 1 && refused.stderr.contains("is a link"),
        "{refused:?}"
    );
}

// Blobs.

/// The bytes of the blob that a parcel of this seed needs.
fn part(seed: u64) -> Vec<u8> {
    [&[0xff, 0, b'\n'], seed.to_string().as_bytes()].concat()
}

#[test]
fn blobs_travel_with_their_documents() {
    let place = Place::on(Database::Sqlite);
    place.database(async |db| {
        let kinds = all_kinds();
        let store = |name: &str| {
            let folder = place.beside(name);
            db::BlobStore::open(folder, db.ids().clone(), 1 << 20).unwrap()
        };
        let catalog = |name: &str| Catalog::new(db.clone(), kinds.clone()).with_blobs(store(name));
        let (first, second) = (catalog("first"), catalog("second"));
        let parcel = document("parcel", 7, &Known::default()).unwrap();
        let mut sent = gitops::SentTree {
            files: Files::from([(
                "parcels/a.toml".to_owned(),
                format!(
                    "[pointers]\nstaging = \"this\"\n[document]\nseed = 7\nparts = {}\n",
                    parcel["parts"]
                ),
            )]),
            ..gitops::SentTree::default()
        };
        let digest = Digest::of(&part(7));

        // Nobody has it: that is said with its file before anything is applied.
        let scope = add_project(db).await;
        let planned = gitops::plan_files(db, &first, scope, "p", sent.clone()).await;
        let found = planned.unwrap().plan.findings;
        assert!(
            found[0].file == "parcels/a.toml" && found[0].message.contains(&digest.to_string()),
            "{found:?}"
        );
        let refused = gitops::apply_files(db, &first, scope, sent.clone(), |_| Ok(())).await;
        let refused = refused.unwrap_err().to_string();
        assert!(refused.contains("there is no blob"), "{refused}");

        // The sender has it, and sends it first.
        sent.blobs.push(digest.to_string());
        let planned = gitops::plan_files(db, &first, scope, "p", sent.clone()).await;
        let planned = planned.unwrap();
        assert!(planned.plan.is_possible(), "{planned:#?}");
        assert_eq!(planned.missing_blobs, [digest.to_string()]);
        let wrong = gitops::put_blob(&first, scope.project, digest, b"other bytes".to_vec()).await;
        assert_eq!(wrong.unwrap_err().code, "wrong_digest");
        assert!(
            gitops::put_blob(&first, scope.project, digest, part(7))
                .await
                .unwrap()
        );
        let applied = gitops::apply_files(db, &first, scope, sent.clone(), |_| Ok(())).await;
        applied.unwrap();
        let again = gitops::plan_files(db, &first, scope, "p", sent)
            .await
            .unwrap();
        assert!(again.plan.is_empty() && again.missing_blobs.is_empty());

        // Only a document of the project that needs it gives it out.
        let exported = gitops::export_files(db, &first, scope).await.unwrap();
        let [blob] = &exported.blobs[..] else {
            panic!("{:?}", exported.blobs)
        };
        let read = async |scope: Scope, blob: &gitops::BlobOf| {
            let read = gitops::read_blob(&first, scope.project, blob).await;
            read.map(|(_, bytes)| bytes)
                .map_err(|error| error.status.as_u16())
        };
        assert_eq!(read(scope, blob).await, Ok(part(7)));
        let elsewhere = add_project(db).await;
        assert_eq!(read(elsewhere, blob).await, Err(404));
        let other = gitops::BlobOf {
            digest: Digest::of(b"another").to_string(),
            ..blob.clone()
        };
        assert_eq!(read(scope, &other).await, Err(404));

        // An instance with an empty store: the same tree, byte by byte.
        let tree = place.beside("tree");
        let folders = gitops::kind_folders(&kinds);
        let how = gitops::Writing::default();
        gitops::write_directory(&tree, &exported.files, &folders, how).unwrap();
        let path = gitops::write_blob_file(&tree, &digest, &part(7)).unwrap();
        assert_eq!(path, format!("blobs/sha256-{}", digest.hex()));
        let (blobs, findings) = gitops::find_blobs(&tree).unwrap();
        assert_eq!(findings, []);
        let sent = gitops::SentTree {
            files: read_dir(&tree),
            blobs: blobs.keys().map(ToString::to_string).collect(),
            ..gitops::SentTree::default()
        };
        let planned = gitops::plan_files(db, &second, elsewhere, "q", sent.clone()).await;
        for missing in planned.unwrap().missing_blobs {
            let digest: Digest = missing.parse().unwrap();
            let bytes = gitops::read_blob_file(&digest, &blobs[&digest]).unwrap();
            gitops::put_blob(&second, elsewhere.project, digest, bytes)
                .await
                .unwrap();
        }
        let applied = gitops::apply_files(db, &second, elsewhere, sent, |_| Ok(())).await;
        applied.unwrap();
        let again = gitops::export_files(db, &second, elsewhere).await.unwrap();
        assert_eq!(
            (again.files, &again.blobs),
            (exported.files, &exported.blobs)
        );
        assert_eq!(
            second
                .blobs(elsewhere.project)
                .unwrap()
                .read(&digest)
                .unwrap(),
            part(7)
        );

        // A file that was changed, and one that is no blob.
        std::fs::write(tree.join(&path), b"changed").unwrap();
        std::fs::write(tree.join("blobs/readme"), b"x").unwrap();
        let (blobs, findings) = gitops::find_blobs(&tree).unwrap();
        assert_eq!(findings[0].file, "blobs/readme");
        assert_eq!(gitops::check_blobs(&blobs)[0].file, path);
        assert!(gitops::read_blob_file(&digest, &blobs[&digest]).is_err());
    });
}

// The normal form.

#[test]
fn files_are_rewritten_in_their_one_form_and_keep_their_comments() {
    let place = Place::on(Database::Sqlite);
    let tree = place.beside("tree");
    let dir = tree.display().to_string();
    let run = |args: &[&str]| place.run(place.command().args(args));
    let messy = "# who owns this\npointers.prod = 'this' # since May\ntags = [\"b\", # why b\n\"a\"]\n\n[document]\nmodel = \"openai/gpt-5\" # fast\n# a # in a comment\nmessages = [{role = \"user\", content = \"# no comment\"}]\n# the end\n";
    write(&tree, "prompts/a.toml", messy);
    let environments = "[[environment]]\nname = \"prod\"\n[environment.protection]\napprovals = 0\n# zebras\n[[label]]\nname = \"z\"\nprotection.approvals = 1\n# ants\n[[label]]\nname = \"a\"\nprotection = {approvals = 1, delivery = \"manual\"}\n";
    write(&tree, "environments.toml", environments);
    let checked = run(&["fmt", "--check", &dir]);
    assert_eq!(checked.code, 1, "{checked:?}");
    assert!(
        checked.stdout.contains("would write prompts/a.prompt.md"),
        "{checked:?}"
    );
    let validated = run(&["validate", &dir]);
    assert!(
        validated.code == 0 && validated.stderr.contains("meguri fmt"),
        "{validated:?}"
    );
    let before = read_dir(&tree);
    assert_eq!(before["prompts/a.toml"], messy, "nothing was written");

    let written = run(&["fmt", &dir]);
    assert_eq!(written.code, 0, "{written:?}");
    let files = read_dir(&tree);
    assert_eq!(
        files["prompts/a.toml"],
        "#:schema ../.schemas/prompt.json\n# why b\ntags = [\"a\", \"b\"]\n\n# who owns this\n[pointers]\n# since May\nprod = \"this\"\n\n# a # in a comment\n[document]\n# fast\nmodel = \"openai/gpt-5\"\n# the end\n"
    );
    assert_eq!(files["prompts/a.prompt.md"], "--- user ---\n# no comment\n");
    assert_eq!(
        files["environments.toml"],
        "#:schema ./.schemas/environments.json\n\n[[environment]]\nname = \"prod\"\n\n# ants\n[[label]]\nname = \"a\"\nprotection = { approvals = 1 }\n\n# zebras\n[[label]]\nname = \"z\"\nprotection = { approvals = 1 }\n"
    );
    assert_eq!(run(&["fmt", "--check", &dir]).code, 0);
    assert_eq!(run(&["fmt", &dir, "--json"]).json()["files"], json!([]));
    let kinds = server::app::kinds();
    let read_before = parse(&before, &kinds).tree;
    let read_after = parse(&files, &kinds).tree;
    let digests = |tree: &Tree| -> Vec<Digest> {
        tree.names.values().map(|entry| entry.main.digest).collect()
    };
    assert_eq!(digests(&read_before), digests(&read_after));

    // A file under another spelling of its name moves; a tree with errors stays as it is.
    let spelled = tree.join("prompts/~61~b.toml");
    std::fs::write(
        &spelled,
        "[document]\n[[document.messages]]\nrole = \"user\"\ncontent = \"x\"\n",
    )
    .unwrap();
    run(&["fmt", &dir]).assert_done();
    assert!(!spelled.exists() && tree.join("prompts/ab.prompt.md").is_file());
    write(&tree, "prompts/c.toml", "[document]\nmodle = 1\n");
    write(&tree, "prompts/d.toml", "[document]\nmodel='x'\n");
    let refused = run(&["fmt", &dir]);
    assert!(
        refused.code == 1 && refused.stdout.contains("did you mean model?"),
        "{refused:?}"
    );
    assert!(read_dir(&tree)["prompts/d.toml"].contains("'x'"));
}

// A running server.

on_both_databases!(a_tree_against_a_server);

fn a_tree_against_a_server(place: Place) {
    let place = place.with_key("admin");
    let server = place.start();
    let url = format!("{}/", server.origin());
    let key_file = place.beside("key");
    std::fs::write(&key_file, format!("{}\n", place.key)).unwrap();
    let key_file = key_file.display().to_string();
    let there = |args: &[&str]| {
        let ended = place.run(place.command().env("THE_KEY", &place.key).args(args).args([
            "--url",
            &url,
            "--key-env",
            "THE_KEY",
        ]));
        assert!(
            !format!("{ended:?}").contains(&place.key),
            "the key was printed"
        );
        ended
    };
    let tree = place.beside("tree");
    let dir = tree.display().to_string();
    write(&tree, "prompts/サポート/Answer.toml", ANSWER);
    write(
        &tree,
        "prompts/サポート/Answer.prompt.md",
        "--- system ---\nYou answer for {{ team }}.\n",
    );

    // The same answers as on the data directory, word by word.
    let same = |args: &[&str]| {
        let (here, there) = (place.meguri(args), there(args));
        assert_eq!(
            (here.code, &here.stdout, &here.stderr),
            (there.code, &there.stdout, &there.stderr),
            "{args:?}"
        );
        there
    };
    same(&["plan", &dir]);
    same(&["plan", &dir, "--json"]);
    assert_eq!(there(&["validate", &dir, "--json"]).json()["documents"], 1);
    let by_file = ["plan", &dir, "--url", &url, "--key-file", &key_file];
    place.run(place.command().args(by_file)).assert_done();
    there(&["apply", &dir, "--yes", "--message", "from afar"]).assert_done();
    same(&["plan", &dir]);
    let (here, far) = (place.beside("here"), place.beside("far"));
    let (here_dir, far_dir) = (here.display().to_string(), far.display().to_string());
    place.meguri(&["export", &here_dir]).assert_done();
    there(&["export", &far_dir]).assert_done();
    assert_eq!(read_dir(&here), read_dir(&far));
    same(&["export", &far_dir]);
    let versions = place.meguri(&["audit", "list", "--json"]);
    assert!(versions.stdout.contains("from afar") && versions.stdout.contains("key:"));

    // What is wrong has the same place and words.
    write(&tree, "prompts/bad.toml", "[document]\nmodle = 1\n");
    same(&["plan", &dir]);
    let refused = same(&["apply", &dir, "--yes"]);
    assert!(
        refused.code == 1 && refused.stdout.starts_with("prompts/bad.toml:2:1: error"),
        "{refused:?}"
    );
    std::fs::remove_file(tree.join("prompts/bad.toml")).unwrap();

    // A plan is carried out as it was seen, or not.
    let edited = "--- system ---\nYou answer briefly for {{ team }}.\n";
    write(&tree, "prompts/サポート/Answer.prompt.md", edited);
    let plan = place.beside("plan.json").display().to_string();
    there(&["plan", &dir, "--out", &plan]).assert_done();
    place.meguri(&["apply", &far_dir, "--yes"]).assert_done();
    write(
        &far,
        "prompts/サポート/Answer.prompt.md",
        "--- user ---\nx\n",
    );
    place.meguri(&["apply", &far_dir, "--yes"]).assert_done();
    let refused = same(&["apply", &plan, "--yes"]);
    assert!(
        refused.code == 1 && refused.stderr.contains("no longer as this plan saw it"),
        "{refused:?}"
    );
    place.add_project("other");
    let (_, of_other) = place.make_key("other", "admin");
    let refused = place.run(place.command().env("THE_KEY", &of_other).args([
        "apply",
        &plan,
        "--yes",
        "--url",
        &url,
        "--key-env",
        "THE_KEY",
    ]));
    assert!(
        refused.code == 1 && refused.stderr.contains("is for default"),
        "{refused:?}"
    );

    // Roles: a viewer may look; an editor may not change environments, and nothing is applied.
    let environments = tree.join("environments.toml");
    std::fs::write(&environments, "[[environment]]\nname = \"qa\"\n").unwrap();
    let as_role = |role: &str, args: &[&str]| {
        let (_, key) = place.make_key("default", role);
        place.run(place.command().env("THE_KEY", &key).args(args).args([
            "--url",
            &url,
            "--key-env",
            "THE_KEY",
        ]))
    };
    as_role("viewer", &["plan", &dir]).assert_done();
    let apply = ["apply", &dir, "--yes", "--overwrite-drift"];
    let refused = as_role("viewer", &apply);
    assert!(
        refused.code == 1
            && refused
                .stderr
                .contains("the role viewer does not allow catalog_write"),
        "{refused:?}"
    );
    let refused = as_role("editor", &apply);
    assert!(
        refused.code == 1
            && refused.stderr.contains(
                "environments.toml: environment qa: the role editor does not allow environments_write"
            ),
        "{refused:?}"
    );
    let steps = there(&["plan", &dir, "--json", "--overwrite-drift"]).json();
    assert_eq!(steps["steps"].as_array().unwrap().len(), 3, "{steps:#}");

    // Without a key, with a wrong one, over the wire in the clear, at the wrong address.
    let alone = |args: &[&str]| place.run(place.command().env("EMPTY", "").args(args));
    for (args, wanted) in [
        (vec!["plan", &dir, "--url", &url], "MEGURI_API_KEY"),
        (
            vec!["plan", &dir, "--url", &url, "--key-env", "NOT_THERE"],
            "from the variable NOT_THERE",
        ),
        (
            vec!["plan", &dir, "--url", &url, "--key-env", "EMPTY"],
            "is empty",
        ),
        (
            vec![
                "plan",
                &dir,
                "--url",
                "http://192.0.2.1",
                "--key-env",
                "EMPTY",
            ],
            "in the clear",
        ),
        (
            vec!["plan", &dir, "--url", "https://a:b@x", "--key-env", "EMPTY"],
            "without user",
        ),
    ] {
        let refused = alone(&args);
        assert!(
            refused.code == 1 && refused.stderr.contains(wanted),
            "{wanted}: {refused:?}"
        );
    }
    let wrong = place.run(place.command().env("THE_KEY", "mgr_wrong").args([
        "export",
        &far_dir,
        "--url",
        &url,
        "--key-env",
        "THE_KEY",
    ]));
    assert_eq!(wrong.code, 1, "{wrong:?}");

    // Paths of a tree that lead elsewhere, in both directions.
    let sent = json!({"files": {"prompts/../../x.toml": "", "../y.toml": ""}});
    let found = server.post("/api/v1/gitops/validate", &sent).json();
    assert_eq!(found["findings"].as_array().unwrap().len(), 2, "{found:#}");
    let kinds = server::app::kinds();
    for path in [
        "../x.toml",
        "/etc/passwd",
        ".git/hooks/post-checkout",
        "prompts/../../x.toml",
        "prompts/a.sh",
        "prompts/~2e~~2e~/x.toml",
        ".schemas/../x.json",
        "Makefile",
    ] {
        let files = Files::from([(path.to_owned(), String::new())]);
        assert!(gitops::check_paths(&files, &kinds).is_err(), "{path}");
    }
    assert!(gitops::check_paths(&read_dir(&here), &kinds).is_ok());
    let blob = format!("/api/v1/gitops/blobs/{}", Digest::of(b"x"));
    let wrong = server
        .call("PUT", &blob)
        .body("application/octet-stream", b"y");
    assert_eq!(wrong.send().refusal(), (400, "wrong_digest".to_owned()));
    let put = || {
        server
            .call("PUT", &blob)
            .body("application/octet-stream", b"x")
            .send()
    };
    assert_eq!(put().json()["already_existed"], false);
    assert_eq!(put().json()["already_existed"], true);
    let document = Digest::of(b"none");
    let read = server.get(&format!("{blob}?kind=prompt&document={document}"));
    assert_eq!(read.status, 404, "{read:?}");
}

// Imports.

fn imported(format: &str, files: &[(&str, &str)]) -> (BTreeMap<String, Value>, Vec<String>) {
    let dir = tempfile::tempdir().unwrap();
    for (path, text) in files {
        write(dir.path(), path, text);
    }
    let format: gitops::import::Format = format.parse().unwrap();
    let imported =
        gitops::import::import(format, dir.path(), Some("in/"), &server::app::kinds()).unwrap();
    let documents = imported.tree.names.iter().map(|(key, entry)| {
        let labels: BTreeMap<_, _> = entry.pointers.iter().map(|(label, digest)| (label.to_string(), *digest == entry.main.digest)).collect();
        let value = json!({"content": entry.main.content, "labels": labels, "tags": entry.tags, "others": entry.pinned.len()});
        (key.name.to_string(), value)
    });
    (
        documents.collect(),
        imported.findings.iter().map(ToString::to_string).collect(),
    )
}

#[test]
fn dotprompt_files_become_prompts() {
    let file = "---\nmodel: googleai/gemini\nconfig:\n  temperature: 0.3\n  topK: 4\ninput:\n  schema:\n    name: string, who asks\n    tags?(array): string\n    style(enum): [short, long]\noutput:\n  schema:\n    answer: string\n---\n{{role \"system\"}}\nAnswer {{name}} {{! a comment }}kindly.\n{{#each tags}}\n- {{this}} of {{../name}} ({{@index}})\n{{else}}\nnone\n{{/each}}\n{{history}}\n{{role \"user\"}}\n{{#if name}}{{>tone}}{{/if}} 100 {% of {{json style}}\n";
    let (documents, found) = imported(
        "dotprompt",
        &[
            ("team/hello.prompt", file),
            ("team/hello.warm.prompt", "Hi {{name}}"),
            ("team/_tone.prompt", "Be kind."),
        ],
    );
    assert_eq!(found, Vec::<String>::new());
    let hello = &documents["in/team/hello"];
    assert_eq!(hello["labels"], json!({"warm": false}));
    let content = &hello["content"];
    assert_eq!(
        content["messages"],
        json!([
            {"role": "system", "content": "Answer {{ name }} kindly.\n{% for item1 in tags | default([]) %}- {{ item1 }} of {{ name | default(\"\") }} ({{ loop.index0 }})\n{% else %}none\n{% endfor %}"},
            {"placeholder": "history"},
            {"role": "user", "content": "{% if name %}{{ partials.tone }}{% endif %} 100 {{ \"{\" }}% of {{ style | tojson }}"},
        ])
    );
    assert_eq!(
        content["partials"],
        json!({"tone": "prompt:in/team/tone@latest"})
    );
    assert_eq!(content["parameters"], json!({"temperature": 0.3}));
    assert_eq!(content["config"], json!({"topK": 4}));
    assert_eq!(content["inputs"]["required"], json!(["name", "style"]));
    assert_eq!(
        content["inputs"]["properties"]["name"],
        json!({"type": "string", "description": "who asks"})
    );
    assert_eq!(
        content["response_format"]["json_schema"]["schema"]["properties"]["answer"]["type"],
        "string"
    );

    let (_, found) = imported(
        "dotprompt",
        &[(
            "bad.prompt",
            "---\nmodle: x\n---\nfine\n{{media url=photo}}\n{{#loop x}}{{/loop}}",
        )],
    );
    assert_eq!(found.len(), 3, "{found:#?}");
    assert!(
        found[0].contains("did you mean model?")
            && found[1].starts_with("bad.prompt:5: error")
            && found[2].starts_with("bad.prompt:6: error"),
        "{found:#?}"
    );
}

#[test]
fn prompts_of_langfuse_mlflow_and_promptfoo_become_prompts() {
    let versions = json!({"data": [
        {"name": "my tone", "version": 1, "type": "text", "prompt": "Be {{mood}}.", "labels": [], "tags": [], "config": {}},
        {"name": "my tone", "version": 2, "type": "text", "prompt": "Be very {{mood}}.", "labels": ["production", "latest"], "tags": ["a"], "config": {"model": "gpt-5"}},
        {"name": "chat", "version": 1, "type": "chat", "prompt": [
            {"role": "system", "content": "@@@langfusePrompt:name=my tone|version=1@@@ and @@@langfusePrompt:name=my tone|label=production@@@"},
            {"type": "placeholder", "name": "history"}], "labels": ["production"]},
    ]});
    let (documents, found) = imported("langfuse", &[("all.json", &versions.to_string())]);
    assert!(
        found.len() == 1 && found[0].contains("is called prompt in/my-tone"),
        "{found:?}"
    );
    let tone = &documents["in/my-tone"];
    assert_eq!(
        tone["content"],
        json!({"type": "text", "dialect": "simple", "template": "Be very {{mood}}.", "config": {"model": "gpt-5"}})
    );
    assert_eq!(
        (&tone["labels"], &tone["tags"], &tone["others"]),
        (&json!({"production": true}), &json!(["a"]), &json!(1))
    );
    let chat = &documents["in/chat"]["content"];
    assert_eq!(
        chat["messages"],
        json!([
        {"role": "system", "content": "{{ partials.in_my_tone }} and {{ partials.in_my_tone_2 }}"}, {"placeholder": "history"}])
    );
    assert_eq!(
        chat["partials"]["in_my_tone_2"],
        "prompt:in/my-tone@production"
    );
    let (_, found) = imported(
        "langfuse",
        &[("list.json", r#"[{"name": "a", "versions": [1]}]"#)],
    );
    assert!(found[0].contains("without its text"), "{found:?}");

    let prompts = json!([
        {"name": "simple", "version": "2", "template": "Hi {{ name }}", "aliases": ["champion"], "tags": {"team": "x", "mlflow.prompt.is_prompt": "true"}},
        {"name": "jinja", "tags": [{"key": "mlflow.prompt.text", "value": "{% if a %}x{% endif %}"}]},
    ]);
    let (documents, found) = imported("mlflow", &[("prompts.json", &prompts.to_string())]);
    assert_eq!(found, Vec::<String>::new());
    assert_eq!(
        documents["in/simple"],
        json!({"content": {"type": "text", "template": "Hi {{ name }}", "dialect": "simple"}, "labels": {"champion": true}, "tags": ["team:x"], "others": 0})
    );
    assert_eq!(
        documents["in/jinja"]["content"],
        json!({"type": "text", "template": "{% if a %}x{% endif %}"})
    );

    let config = "prompts:\n  - 'Translate {{text}}'\n  - file://prompts/*.txt\n  - {id: file://chat.json, label: talk}\n  - file://../secret.txt\n  - file://run.py\nproviders: [openai:gpt-5]\n";
    let (documents, found) = imported(
        "promptfoo",
        &[
            ("promptfooconfig.yaml", config),
            ("prompts/one.txt", "One {{x}}\n---\nTwo {{x}}\n"),
            (
                "chat.json",
                r#"[{"role": "system", "content": "Be brief."}, {"role": "user", "content": "{{q}}"}]"#,
            ),
        ],
    );
    assert!(
        found.len() == 2
            && found[0].contains("leads out of the folder")
            && found[1].contains("is a program"),
        "{found:?}"
    );
    let names: Vec<&String> = documents.keys().collect();
    assert_eq!(
        names,
        [
            "in/prompt-1",
            "in/prompts/one",
            "in/prompts/one-2",
            "in/talk"
        ]
    );
    assert_eq!(
        documents["in/talk"]["content"]["messages"][1]["content"],
        "{{q}}"
    );
}

#[test]
fn an_import_is_saved_or_written() {
    let place = Place::on(Database::Sqlite);
    place.meguri(&["key", "list"]).assert_done();
    let (from, out) = (place.beside("from"), place.beside("out"));
    write(&from, "hello.prompt", "Hello {{name}}");
    let (from, out) = (from.display().to_string(), out.display().to_string());
    place
        .meguri(&["import", "--from", "dotprompt", &from, "--out", &out])
        .assert_done();
    assert_eq!(
        read_dir(out.as_ref())["prompts/hello.prompt.md"],
        "--- user ---\nHello {{ name }}\n"
    );
    place
        .meguri(&["import", "--from", "dotprompt", &from, "--yes"])
        .assert_done();
    assert_eq!(
        place.meguri(&["plan", &out, "--json"]).json()["steps"],
        json!([])
    );
    let schema = place.run(place.command().args(["schema", "prompt"])).json();
    assert!(schema["properties"]["document"]["properties"]["messages"].is_object());
    assert_eq!(place.run(place.command().args(["schema", "promt"])).code, 3);
}
