//! From what a project holds to files. The same state is the same bytes.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context as _;
use base::Digest;
use db::catalog::{Catalog, Name, NameSnapshot, Selector};
use db::{Db, Kind, Kinds, Promotion, Scope};
use serde_json::{Map, Value, json};

use super::schema::{schema_files, schema_line};
use super::state::{State, read_state};
use super::{ENVIRONMENTS_FILE, Entry, Files, Key, Layout, THIS, Tree, TreeDocument};
use super::{paths, toml};

/// The tree of a project.
///
/// # Errors
/// The database cannot be read.
pub async fn export(db: &Db, catalog: &Catalog, scope: Scope) -> anyhow::Result<Tree> {
    let mut connection = db.read().acquire().await.context("reading the project")?;
    let promotion = Promotion::new(db.clone(), catalog.clone());
    let state = read_state(&mut connection, catalog, &promotion, scope.project).await?;
    let documents = catalog
        .every_document_in(&mut connection, scope.project)
        .await?;
    Ok(tree_of(&state, &documents, catalog.kinds()))
}

/// What labels, `latest` and the documents themselves name; no other version.
fn tree_of(state: &State, documents: &BTreeMap<Digest, Value>, kinds: &Kinds) -> Tree {
    let mut wanted: BTreeMap<Key, BTreeSet<Digest>> = BTreeMap::new();
    let mut open: Vec<(Key, Digest)> = Vec::new();
    for (key, name) in living(state, kinds) {
        let digests = name.latest.map(|(_, digest)| digest).into_iter();
        let pointed = name.pointers.values().map(|pointer| pointer.digest);
        open.extend(digests.chain(pointed).map(|digest| (key.clone(), digest)));
    }
    while let Some((key, digest)) = open.pop() {
        if !wanted.entry(key.clone()).or_default().insert(digest) {
            continue;
        }
        let (Ok(kind), Some(content)) = (kinds.get(&key.kind), documents.get(&digest)) else {
            continue;
        };
        open.extend(
            (kind.references)(content)
                .into_iter()
                .filter_map(|reference| {
                    let to = Key {
                        kind: reference.kind,
                        name: reference.name,
                    };
                    let name = state.names.get(&to).filter(|name| !name.is_deleted)?;
                    let digest = match reference.selector {
                        Selector::Digest(digest) => {
                            name.versions.get_key_value(&digest).map(|(d, _)| *d)
                        }
                        Selector::Number(number) => name
                            .versions
                            .iter()
                            .find_map(|(digest, known)| (*known == number).then_some(*digest)),
                        // What these name is in the tree already.
                        Selector::Label(_) | Selector::Latest => None,
                    };
                    Some((to, digest?))
                }),
        );
    }
    let mut tree = Tree {
        names: BTreeMap::new(),
        environments: Some(state.environments.clone()),
    };
    for (key, name) in living(state, kinds) {
        let document = |digest: &Digest| {
            let content = documents.get(digest)?.clone();
            let kind = kinds.get(&key.kind).ok()?;
            Some(TreeDocument {
                blobs: (kind.blobs)(&content),
                content,
                digest: *digest,
                file: String::new(),
                references: Vec::new(),
            })
        };
        let Some((_, latest)) = name.latest else {
            continue;
        };
        let Some(main) = document(&latest) else {
            continue;
        };
        let of_name = wanted.get(key).into_iter().flatten();
        let others = of_name.filter(|digest| **digest != latest);
        let entry = Entry {
            main,
            pinned: others.filter_map(document).collect(),
            tags: name.tags.clone(),
            pointers: name
                .pointers
                .iter()
                .map(|(label, pointer)| (label.clone(), pointer.digest))
                .collect(),
        };
        tree.names.insert(key.clone(), entry);
    }
    tree
}

fn living<'a>(
    state: &'a State,
    kinds: &'a Kinds,
) -> impl Iterator<Item = (&'a Key, &'a NameSnapshot)> {
    let known = |key: &Key| kinds.get(&key.kind).is_ok();
    state
        .names
        .iter()
        .filter(move |(key, name)| !name.is_deleted && known(key))
}

/// The files of a tree.
pub fn render(tree: &Tree, kinds: &Kinds) -> Files {
    let layout = Layout::new(kinds);
    let mut files = schema_files(&layout);
    if let Some(environments) = &tree.environments {
        files.insert(ENVIRONMENTS_FILE.to_owned(), environments.write());
    }
    for (folder, kind) in layout.iter() {
        let of_kind = || tree.names.iter().filter(|(key, _)| key.kind == kind.name);
        let names: Vec<&Name> = of_kind().map(|(key, _)| &key.name).collect();
        let stems = paths::write_names(names, kind);
        for (key, entry) in of_kind() {
            let Some(stem) = stems.get(&key.name) else {
                continue;
            };
            write_entry(&mut files, kind, folder, stem, entry);
        }
    }
    files
}

fn write_entry(files: &mut Files, kind: &Kind, folder: &str, stem: &str, entry: &Entry) {
    for document in entry.documents() {
        let pin = (document.digest != entry.main.digest).then_some(&document.digest);
        let path = |end: &str| paths::join(folder, stem, pin, end);
        let mut content = document.content.clone();
        let text = kind.text.and_then(|text| {
            let split = (text.split)(&mut content)?;
            Some((text.suffix, split))
        });
        let toml = path("toml");
        let mut out = schema_line(&toml, kind.name);
        if pin.is_none() {
            write_head(entry, &mut out);
        }
        write_document(&content, &mut out);
        files.insert(toml, out);
        if let Some((suffix, text)) = text {
            files.insert(path(suffix), text);
        }
    }
}

/// Tags and labels.
fn write_head(entry: &Entry, out: &mut String) {
    if !entry.tags.is_empty() {
        let tags = Map::from_iter([("tags".to_owned(), json!(entry.tags))]);
        toml::write_table(&tags, &[], out);
    }
    if entry.pointers.is_empty() {
        return;
    }
    out.push_str("\n[pointers]\n");
    let pointers = entry.pointers.iter().map(|(label, digest)| {
        let target = if *digest == entry.main.digest {
            THIS.to_owned()
        } else {
            digest.to_string()
        };
        (label.to_string(), Value::from(target))
    });
    toml::write_table(&pointers.collect(), &["pointers"], out);
}

fn write_document(content: &Value, out: &mut String) {
    match content {
        Value::Object(map) if !toml::is_escaped(map) => {
            toml::write_section(content, &["document"], out);
        }
        // A document that is no table; no kind has one yet.
        other => {
            out.push('\n');
            let map = Map::from_iter([("document".to_owned(), other.clone())]);
            toml::write_table(&map, &[], out);
        }
    }
}
