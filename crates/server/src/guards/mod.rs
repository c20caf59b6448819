//! Guards: policies that say what must not pass, and everything around them but the calls.
//!
//! | file | owns |
//! |---|---|
//! | `classifiers.rs` | the classifiers that come with the program |
//! | `library.rs` | starting points for new policies |
//!
//! What a policy is and how it finds things is the crate `guard`; that calls are stopped or
//! edited is the gateway's. A policy is a document of the catalog: what holds in an environment
//! is what its label of that name points to. The surprising thing: a policy in force that this
//! release cannot run stays in the plan, with the reason, and refuses the calls that it watches.
//! It is never skipped.

mod classifiers;
pub mod library;

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use base::ProjectId;
use db::{Kind, Problem};
use gateway::{GuardPolicies, GuardPolicy};
use guard::{AppliesTo, Compiled, Policy, Resources};
use serde_json::{Value, json};

use crate::app::App;
use crate::plan::Kept;

/// The catalog's word for policies.
pub const KIND: &str = "guard";

/// Policies, as the catalog knows them.
pub fn kind() -> Kind {
    Kind {
        normal: |content| match Policy::read(content) {
            Ok(policy) => normal_form(&policy),
            Err(_) => content.clone(),
        },
        ..Kind::new(
            KIND,
            || json!(schemars::schema_for!(Policy)),
            |content| compile(content).map(drop),
        )
    }
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
        lists: BTreeMap::new(),
        scorers: classifiers::shipped(),
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
}

/// Reads and prepares a policy.
///
/// # Errors
/// Everything that is wrong with it, each with its place.
pub fn compile(content: &Value) -> std::result::Result<Ready, Vec<Problem>> {
    let problems = |problems: Vec<guard::Problem>| -> Vec<Problem> {
        problems
            .into_iter()
            .map(|problem| Problem::new(pointer(&problem.path), problem.message))
            .collect()
    };
    let policy = Policy::read(content).map_err(problems)?;
    let compiled = Compiled::new(&policy, resources()).map_err(problems)?;
    Ok(Ready {
        policy,
        compiled: Arc::new(compiled),
    })
}

/// `rules[2].check.pattern` as the catalog writes places: `/rules/2/check/pattern`.
fn pointer(path: &str) -> String {
    let parts = path.split(['.', '[']).filter(|part| !part.is_empty());
    parts
        .map(|part| format!("/{}", part.trim_end_matches(']')))
        .collect()
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
}

/// Every policy of a project, with the versions that labels point to.
///
/// # Errors
/// The database cannot be read.
pub async fn for_plan(
    app: &App,
    project: ProjectId,
    kept: &mut Kept<Known>,
) -> anyhow::Result<BTreeMap<String, Arc<GuardPolicies>>> {
    let pointers = app.catalog.pointer_index(project, KIND).await?;
    let digests = pointers.iter().map(|pointer| pointer.digest);
    let known = kept
        .load(app, project, digests, |_, content| Some(know(content)))
        .await?;
    let mut policies: BTreeMap<String, GuardPolicies> = BTreeMap::new();
    for pointer in pointers {
        let (applies_to, compiled) = match known.get(&pointer.digest) {
            Some(known) => (known.applies_to.clone(), known.compiled.clone()),
            None => (everything(), Err("its document is missing".to_owned())),
        };
        let policy = GuardPolicy {
            name: pointer.name.as_str().to_owned(),
            number: pointer.number,
            digest: pointer.digest,
            applies_to,
            compiled,
        };
        let of = policies.entry(policy.name.clone()).or_default();
        of.labels.insert(pointer.label, Arc::new(policy));
    }
    let shared = policies
        .into_iter()
        .map(|(name, policies)| (name, Arc::new(policies)));
    Ok(shared.collect())
}

fn know(content: &Value) -> Known {
    match compile(content) {
        Ok(ready) => Known {
            applies_to: ready.policy.applies_to,
            compiled: Ok(ready.compiled),
        },
        Err(problems) => Known {
            applies_to: watched_by(content),
            compiled: Err(in_words(&problems)),
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
