//! Guards: policies that say what must not pass, and everything around them but the calls.
//!
//! | file | owns |
//! |---|---|
//! | `check.rs` | one text under one policy: findings, edits, the decision, times |
//! | `asker.rs` | questions to models about a text that is of no call |
//! | `classifiers.rs` | the classifiers that come with the program |
//! | `library/` | starting points for new policies |
//! | `measure.rs`, `curve.rs` | labelled texts under a policy: figures, and the curve of a threshold |
//! | `traffic.rs` | what a policy would have done to calls of the past, and what policies did |
//! | `words.rs` | word lists, documents that rules name |
//! | `recorded.rs`, `marks.rs` | what policies found, as records keep it, and where in the recorded text it stands |
//! | `finds.rs`, `finds_page.rs` | the list of finds, for numbers to lead to and for reviewers |
//! | `verdict.rs`, `labelled.rs` | what reviewers say of finds, and the labelled texts that come of it |
//! | `train.rs` | classifiers that learn from reviewed texts |
//! | `figures.rs`, `in_trace.rs` | guards on the overview and on the page of a trace |
//! | `moderations.rs` | OpenAI's `/v1/moderations`, answered from policies |
//! | `api.rs` | JSON routes |
//! | `list_page.rs`, `editor.rs`, `editor_view.rs`, `form.rs` | the list of policies, the editor with its bench, and the form that makes a rule |
//! | `words_page.rs` | the list and the editor of word lists |
//! | `offers.rs` | policies as the editor of an app offers them |
//! | `kept.rs` | versions and labels beside an editor |
//!
//! What a policy is and how it finds things is the crate `guard`; that calls are stopped or
//! edited is the gateway's. A policy is a document of the catalog: what holds in an environment
//! is what its label of that name points to. The surprising thing: a policy in force that this
//! release cannot run stays in the plan, with the reason, and refuses the calls that it watches.
//! It is never skipped.

mod api;
pub mod asker;
pub mod check;
mod classifiers;
mod curve;
mod editor;
mod editor_view;
mod figures;
pub mod finds;
mod finds_page;
mod form;
mod in_trace;
mod kept;
pub mod labelled;
mod list_page;
pub mod marks;
pub mod measure;
mod moderations;
mod offers;
pub mod recorded;
pub mod traffic;
pub mod train;
pub mod verdict;
pub mod words;
mod words_page;

use std::collections::{BTreeMap, HashMap};
use std::io::Read as _;
use std::sync::{Arc, LazyLock};

use base::{Digest, ProjectId};
use db::catalog::{CatalogError, Name, Selector};
use db::{BlobStore, Catalog, Kind, Problem, Scope};
use gateway::{Experiment, GuardPolicies, GuardPolicy, Target};
use guard::classify::Task;
use guard::{AppliesTo, Compiled, List, Policy, Resources, Scorer};
use serde_json::{Value, json};

use crate::app::App;
use crate::auth::Identity;
use crate::error::{AppError, Result};
use crate::http::Route;
use crate::plan::Kept;
use crate::starts::Library;

pub(crate) use figures::{Counts, Figures, figures};
pub(crate) use in_trace::{InTrace, in_trace};
pub(crate) use offers::offers;

/// The catalog's word for policies.
pub const KIND: &str = "guard";

/// The largest file of a classifier that is read.
const CLASSIFIER_BYTES: u64 = 8 << 20;

/// Starting points for new policies.
pub static LIBRARY: Library = Library::new(
    include_str!("library/en.toml"),
    include_str!("library/ja.toml"),
);

/// Pages and API.
pub fn routes() -> Vec<Route> {
    [
        api::routes(),
        moderations::routes(),
        list_page::routes(),
        editor::routes(),
        words_page::routes(),
        finds_page::routes(),
        train::routes(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Policies, as the catalog knows them.
pub fn kind() -> Kind {
    Kind {
        normal: |content| match Policy::read(content) {
            Ok(policy) => normal_form(&policy),
            Err(_) => content.clone(),
        },
        references: |content| match Policy::read(content) {
            Ok(policy) => words::references(&policy).into_iter().flatten().collect(),
            Err(_) => Vec::new(),
        },
        blobs: |content| match Policy::read(content) {
            Ok(policy) => {
                let named = classifiers::named(&policy);
                let digests = named.iter().filter_map(|(name, _)| name.parse().ok());
                digests.collect()
            }
            Err(_) => Vec::new(),
        },
        check_blob: Some(check_classifier),
        ..Kind::new(
            KIND,
            || json!(schemars::schema_for!(Policy)),
            |content| check_document(content).map(drop),
        )
    }
}

/// Whether a blob is the classifier that rules take it for.
fn check_classifier(
    content: &Value,
    digest: &Digest,
    bytes: &[u8],
) -> std::result::Result<(), Problem> {
    let Ok(policy) = Policy::read(content) else {
        return Ok(());
    };
    let wanted = digest.to_string();
    for (name, task) in classifiers::named(&policy) {
        if name == wanted {
            let read = classifiers::read(bytes, task).map(drop);
            read.map_err(|why| Problem::new("/rules", format!("the classifier {name}: {why}")))?;
        }
    }
    Ok(())
}

/// The one way to write a policy. Thresholds are read as 32 bits; written with their shortest
/// digits, so that 0.3 stays 0.3.
fn normal_form(policy: &Policy) -> Value {
    let mut document = json!(policy);
    let rules = document["rules"].as_array_mut().into_iter().flatten();
    for rule in rules {
        if let Some(threshold) = rule.pointer_mut("/check/threshold")
            && let Some(exact) = threshold.as_f64()
        {
            #[expect(clippy::cast_possible_truncation, reason = "it was 32 bits wide")]
            let short = (exact as f32).to_string();
            *threshold = json!(short.parse::<f64>().unwrap_or(exact));
        }
    }
    document
}

/// What policies refer to by name, the same everywhere in this process.
pub fn resources() -> &'static Resources {
    static SHARED: LazyLock<Resources> = LazyLock::new(|| Resources {
        scorers: classifiers::shipped(),
        ..Resources::default()
    });
    &SHARED
}

/// A policy that was checked, and is ready to run.
#[derive(Debug, Clone)]
pub struct Ready {
    /// What it says.
    pub policy: Policy,
    /// The same, prepared.
    pub compiled: Arc<Compiled>,
    /// What its rules name.
    pub resources: Arc<Resources>,
}

/// Whether a document is a policy, wherever it is kept: classifiers and lists that it names are
/// not looked for.
fn check_document(content: &Value) -> std::result::Result<(), Vec<Problem>> {
    prepare(content, BTreeMap::new(), |name, _| {
        match name.parse::<Digest>() {
            Ok(_) => Ok(classifiers::absent(name)),
            Err(_) => Err("a classifier is named by the digest of its file, sha256:…".to_owned()),
        }
    })
    .map(drop)
}

/// Reads and prepares a policy where no word lists can be had, and no classifiers of a project's:
/// rules that name a list follow their `on_failure`.
///
/// # Errors
/// Everything that is wrong with it, each with its place.
pub fn compile(content: &Value) -> std::result::Result<Ready, Vec<Problem>> {
    compile_with(content, BTreeMap::new(), None)
}

/// Reads and prepares a policy with the word lists that its names mean now, and the classifiers.
///
/// # Errors
/// Everything that is wrong with it, each with its place.
pub async fn compile_in(catalog: &Catalog, scope: Scope, content: &Value) -> Result<Ready> {
    let ready = try_compile_in(catalog, scope, content).await?;
    Ok(ready.map_err(CatalogError::Invalid)?)
}

/// The same, for callers that show what is wrong beside what was typed.
async fn try_compile_in(
    catalog: &Catalog,
    scope: Scope,
    content: &Value,
) -> Result<std::result::Result<Ready, Vec<Problem>>> {
    let lists = words::named_now(catalog, scope.project, content).await?;
    let blobs = catalog.blobs(scope.project);
    Ok(compile_with(content, lists, blobs.as_ref()))
}

/// Whether a policy names what only a project has: word lists, and classifiers that learned.
pub fn needs_a_project(content: &Value) -> bool {
    Policy::read(content).is_ok_and(|policy| {
        policy.named_lists().next().is_some() || !classifiers::named(&policy).is_empty()
    })
}

fn compile_with(
    content: &Value,
    lists: BTreeMap<String, List>,
    blobs: Option<&BlobStore>,
) -> std::result::Result<Ready, Vec<Problem>> {
    prepare(content, lists, |name, task| {
        classifiers::read(&classifier_bytes(blobs, name)?, task)
    })
}

/// The file of a classifier of a project's.
fn classifier_bytes(blobs: Option<&BlobStore>, name: &str) -> std::result::Result<Vec<u8>, String> {
    let blobs = blobs.ok_or("there is no project whose classifier it could be")?;
    let digest: Digest = name
        .parse()
        .map_err(|_| "a classifier is named by the digest of its file, sha256:…".to_owned())?;
    let file = blobs
        .open_blob(&digest)
        .map_err(|error| error.to_string())?;
    let mut bytes = Vec::new();
    file.take(CLASSIFIER_BYTES)
        .read_to_end(&mut bytes)
        .map_err(|error| error.to_string())?;
    Ok(bytes)
}

fn prepare(
    content: &Value,
    lists: BTreeMap<String, List>,
    classifier: impl Fn(&str, Task) -> std::result::Result<Scorer, String>,
) -> std::result::Result<Ready, Vec<Problem>> {
    let problems = |problems: Vec<guard::Problem>| -> Vec<Problem> {
        problems
            .into_iter()
            .map(|problem| Problem::new(pointer(&problem.path), problem.message))
            .collect()
    };
    let policy = Policy::read(content).map_err(problems)?;
    let named: Vec<_> = words::references(&policy);
    let wrong: Vec<Problem> = named
        .into_iter()
        .filter_map(std::result::Result::err)
        .collect();
    if !wrong.is_empty() {
        return Err(wrong);
    }
    let lost = policy.named_lists().map(|(_, name)| name.to_owned());
    let mut resources = Resources {
        lost: lost.filter(|name| !lists.contains_key(name)).collect(),
        lists,
        ..resources().clone()
    };
    for (name, task) in classifiers::named(&policy) {
        let scorer = classifier(name, task).map_err(|why| {
            vec![Problem::new(
                "/rules",
                format!("the classifier {name}: {why}"),
            )]
        })?;
        resources.scorers.insert(name.to_owned(), scorer);
    }
    let compiled = Compiled::new(&policy, &resources).map_err(problems)?;
    Ok(Ready {
        policy,
        compiled: Arc::new(compiled),
        resources: Arc::new(resources),
    })
}

/// `rules[2].check.pattern` as the catalog writes places: `/rules/2/check/pattern`.
fn pointer(path: &str) -> String {
    let parts = path.split(['.', '[']).filter(|part| !part.is_empty());
    parts
        .map(|part| format!("/{}", part.trim_end_matches(']')))
        .collect()
}

/// A policy of the catalog.
#[derive(Debug, Clone)]
pub struct Found {
    /// Its name; empty for one that was sent along and is kept nowhere.
    pub name: String,
    /// The version's number; 0 for one that is kept nowhere.
    pub number: i64,
    /// The content's identity; none for one that is kept nowhere.
    pub digest: Option<Digest>,
    /// Ready to run.
    pub ready: Ready,
}

impl Found {
    /// A policy that was sent along.
    ///
    /// # Errors
    /// 400: what is wrong with it.
    pub async fn inline(catalog: &Catalog, scope: Scope, content: &Value) -> Result<Self> {
        compile_in(catalog, scope, content)
            .await
            .map(Self::nameless)
    }

    /// A policy that is kept nowhere.
    pub fn nameless(ready: Ready) -> Self {
        Self {
            name: String::new(),
            number: 0,
            digest: None,
            ready,
        }
    }
}

/// A name that a caller typed.
///
/// # Errors
/// What is wrong with it.
pub fn parse_name(text: &str) -> Result<Name> {
    text.parse().map_err(|problem: Problem| {
        AppError::invalid(problem.message)
            .code("bad_name")
            .at("policy")
    })
}

/// A version of a policy, ready to run.
///
/// # Errors
/// 404 when there is none; 409 when it cannot run under this release.
pub async fn find(
    catalog: &Catalog,
    scope: Scope,
    name: &Name,
    version: &Selector,
) -> Result<Found> {
    let found = catalog.version(scope, KIND, name, version).await?;
    let found = found.ok_or_else(|| {
        AppError::not_found(format!(
            "there is no policy {name} with the version {version}"
        ))
        .code("policy_not_found")
    })?;
    let ready = try_compile_in(catalog, scope, &found.content)
        .await?
        .map_err(|problems| cannot_run(name, &problems))?;
    Ok(Found {
        name: name.to_string(),
        number: found.version.number,
        digest: Some(found.version.digest),
        ready,
    })
}

/// The version that holds where the caller's calls run; the latest where no label points to one.
///
/// # Errors
/// As [`find`].
async fn in_force(app: &App, identity: &Identity, name: &Name) -> Result<Found> {
    let scope = identity.scope();
    let pointers = app.catalog.pointers(scope, KIND, name).await?;
    let of = |label: &str| pointers.iter().find(|pointer| pointer.label == label);
    let holds = of(&identity.principal.environment).or_else(|| of(crate::prompts::PRODUCTION));
    let version = holds.map_or(Selector::Latest, |pointer| Selector::Number(pointer.number));
    find(&app.catalog, scope, name, &version).await
}

fn cannot_run(name: &Name, problems: &[Problem]) -> AppError {
    let why = in_words(problems);
    AppError::conflict(format!("the policy {name} cannot run: {why}")).code("policy_cannot_run")
}

fn in_words(problems: &[Problem]) -> String {
    let words: Vec<String> = problems.iter().map(Problem::to_string).collect();
    words.join("; ")
}

/// A version in the form of plans, without the name and number that it is kept under: one content
/// may have several.
#[derive(Debug)]
pub struct Known {
    applies_to: AppliesTo,
    compiled: std::result::Result<Arc<Compiled>, String>,
    /// Set where it names word lists, which may be others tomorrow.
    naming: Option<words::Naming>,
}

/// Every policy of a project, with the versions that labels point to or experiments choose
/// between.
///
/// # Errors
/// The database cannot be read.
pub async fn for_plan(
    app: &App,
    project: ProjectId,
    kept: &mut Kept<Known>,
    experiments: &HashMap<Target, Arc<Experiment>>,
) -> anyhow::Result<BTreeMap<String, Arc<GuardPolicies>>> {
    let pointers = app.catalog.pointer_index(project, KIND).await?;
    let tested = experiments
        .iter()
        .filter_map(|(target, experiment)| match target {
            Target::Guard { name, .. } => Some((name.parse::<Name>().ok()?, experiment)),
            Target::Prompt { .. } | Target::App { .. } => None,
        });
    let tested: Vec<(Name, &Arc<Experiment>)> = tested.collect();
    let arms = tested.iter().flat_map(|(_, experiment)| &experiment.arms);
    let digests = pointers.iter().map(|pointer| pointer.digest);
    let digests = digests.chain(arms.map(|arm| arm.digest));
    let blobs = app.catalog.blobs(project);
    let known = kept
        .load(app, project, digests, |_, content| {
            Some(know(content, blobs.as_ref()))
        })
        .await?;
    let known = words::with_lists(app, project, known).await?;
    let mut policies: BTreeMap<String, GuardPolicies> = BTreeMap::new();
    for pointer in pointers {
        let known = known.get(&pointer.digest).map(AsRef::as_ref);
        let policy = policy(&pointer.name, pointer.number, pointer.digest, known);
        let of = policies.entry(policy.name.clone()).or_default();
        of.labels.insert(pointer.label, Arc::new(policy));
    }
    for (name, experiment) in tested {
        let Some(of) = policies.get_mut(name.as_str()) else {
            continue;
        };
        for arm in &experiment.arms {
            let known = known.get(&arm.digest).map(AsRef::as_ref);
            let policy = policy(&name, arm.number, arm.digest, known);
            of.versions.insert(arm.number, Arc::new(policy));
        }
    }
    let shared = policies
        .into_iter()
        .map(|(name, policies)| (name, Arc::new(policies)));
    Ok(shared.collect())
}

/// A version under its name, as plans and releases hold it; one whose document is gone refuses
/// the calls that it watches.
pub(crate) fn policy(
    name: &Name,
    number: i64,
    digest: Digest,
    known: Option<&Known>,
) -> GuardPolicy {
    let (applies_to, compiled) = match known {
        Some(known) => (known.applies_to.clone(), known.compiled.clone()),
        None => (everything(), Err("its document is missing".to_owned())),
    };
    GuardPolicy {
        name: name.as_str().to_owned(),
        number,
        digest,
        applies_to,
        compiled,
    }
}

pub(crate) fn know(content: &Value, blobs: Option<&BlobStore>) -> Known {
    know_with(content, BTreeMap::new(), blobs)
}

/// The same with the word lists that its names mean now.
///
/// # Errors
/// The database cannot be read.
pub(crate) async fn know_now(
    catalog: &Catalog,
    project: ProjectId,
    content: &Value,
) -> anyhow::Result<Known> {
    let lists = words::named_now(catalog, project, content).await?;
    let blobs = catalog.blobs(project);
    Ok(know_with(content, lists, blobs.as_ref()))
}

fn know_with(content: &Value, lists: BTreeMap<String, List>, blobs: Option<&BlobStore>) -> Known {
    match compile_with(content, lists, blobs) {
        Ok(ready) => Known {
            naming: words::Naming::new(&ready.policy, content, blobs),
            applies_to: ready.policy.applies_to,
            compiled: Ok(ready.compiled),
        },
        Err(problems) => Known {
            applies_to: watched_by(content),
            compiled: Err(in_words(&problems)),
            naming: None,
        },
    }
}

/// Which calls a policy that cannot run was to watch. Where even that cannot be read it
/// watches everything: a guard that nobody understands must not be one that nobody has.
fn watched_by(content: &Value) -> AppliesTo {
    match content.get("applies_to") {
        None => AppliesTo::default(),
        Some(written) => serde_json::from_value(written.clone()).unwrap_or_else(|_| everything()),
    }
}

fn everything() -> AppliesTo {
    AppliesTo {
        everything: true,
        ..AppliesTo::default()
    }
}
