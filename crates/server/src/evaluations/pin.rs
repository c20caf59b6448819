//! From a suite to what it means now: every reference as a digest, once, when an
//! evaluation starts. What happens to names, labels and datasets later changes
//! nothing about it.
//!
//! An evaluation's calls run on a plan of their own: providers and prices are those
//! of the present plan, prompts and apps are the pinned ones, and there are no
//! experiments, which would hand a candidate's calls to somebody else.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use base::{Digest, ProjectId};
use db::catalog::Reference;
use db::{Problem, Scope};
use gateway::{
    Limits, LocalModels, Plan, ProjectPlan, Prompt, PromptDocument, PromptRef, PromptVersion,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::document::{Candidate, EvaluatorUse, PromptUse, SuiteDocument};
use super::local::References;
use super::warning::Warning;
use crate::app::App;
use crate::error::{AppError, Result};
use crate::evaluators::{self, EvaluatorDocument, judge};

/// The environment that an evaluation's calls are recorded under, so that figures of
/// real environments stay those of real users.
pub const ENVIRONMENT: &str = "evaluation";

/// A version of a document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinnedVersion {
    /// Its name.
    pub name: String,
    /// Its number under that name; 0 for one that was written out.
    pub number: i64,
    /// Its content.
    pub digest: Digest,
}

/// A prompt that a candidate's prompt draws in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinnedPart {
    /// The reference as it was written: `prompt:NAME@SELECTOR`.
    pub reference: String,
    /// What it stood for.
    pub version: PinnedVersion,
}

/// A candidate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinnedCandidate {
    /// Everything that its answers depend on, beside the example.
    pub digest: Digest,
    /// Its prompt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<PinnedVersion>,
    /// What its prompt draws in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<PinnedPart>,
    /// The release of its app.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<PinnedVersion>,
    /// The models that may answer, as far as they are known.
    pub models: Vec<String>,
}

/// An evaluator.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PinnedEvaluator {
    /// Its name in results.
    pub name: String,
    /// Its version in the catalog; none for one that was written out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<i64>,
    /// Its content.
    pub digest: Digest,
    /// What its numbers are signed with.
    pub signature: String,
    /// What it says.
    pub document: EvaluatorDocument,
}

/// What a suite's references stood for when an evaluation began.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pinned {
    /// The data.
    pub dataset: PinnedVersion,
    /// The candidates, in the suite's order.
    pub candidates: Vec<PinnedCandidate>,
    /// The evaluators, in the suite's order.
    pub evaluators: Vec<PinnedEvaluator>,
    /// What to know before believing the result.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Warning>,
}

fn wrong(at: impl Into<String>, message: impl Into<String>) -> AppError {
    db::CatalogError::Invalid(vec![Problem::new(at, message)]).into()
}

/// Follows every reference of a suite.
///
/// # Errors
/// Something is missing, or a judge is of the family that it judges; with its place.
pub(crate) async fn pin(app: &App, scope: Scope, suite: &SuiteDocument) -> Result<Pinned> {
    let dataset = find(app, scope, "/dataset", &suite.dataset).await?.0;
    let mut candidates = Vec::new();
    for (index, candidate) in suite.candidates.iter().enumerate() {
        candidates.push(pin_candidate(app, scope, index, candidate).await?);
    }
    let mut evaluators = Vec::new();
    for (index, used) in suite.evaluators.iter().enumerate() {
        evaluators.push(pin_evaluator(app, scope, index, used).await?);
    }
    let mut warnings = Vec::new();
    for evaluator in &evaluators {
        if let Some(data) = evaluator.document.data().filter(|data| !app.data.has(data)) {
            warnings.push(Warning::NoData {
                evaluator: evaluator.name.clone(),
                data: data.to_owned(),
            });
        }
    }
    check_families(suite, &candidates, &evaluators, &mut warnings)?;
    check_models(app, scope.project, suite, &candidates, &evaluators)?;
    Ok(Pinned {
        dataset,
        candidates,
        evaluators,
        warnings,
    })
}

async fn find(app: &App, scope: Scope, at: &str, text: &str) -> Result<(PinnedVersion, Value)> {
    let reference = Reference::parse_at(at, text).map_err(db::CatalogError::from)?;
    let (kind, name) = (reference.kind.as_str(), &reference.name);
    let found = app
        .catalog
        .version(scope, kind, name, &reference.selector)
        .await?;
    let found = found.ok_or_else(|| {
        AppError::invalid(format!("there is no {text}"))
            .code("unresolved_reference")
            .at(at)
    })?;
    let pinned = PinnedVersion {
        name: name.to_string(),
        number: found.version.number,
        digest: found.version.digest,
    };
    Ok((pinned, found.content))
}

async fn pin_candidate(
    app: &App,
    scope: Scope,
    index: usize,
    candidate: &Candidate,
) -> Result<PinnedCandidate> {
    let at = |field: &str| format!("/candidates/{index}/{field}");
    let mut pinned = PinnedCandidate {
        digest: Digest::of(b""),
        prompt: None,
        parts: Vec::new(),
        release: None,
        models: candidate.model.iter().cloned().collect(),
    };
    if let Some(text) = candidate.release_reference() {
        let (version, _) = find(app, scope, &at("app"), &text).await?;
        let release = load_release(app, scope.project, &version).await?;
        let document = &release.app.document;
        pinned.models = document.models.values().flatten().cloned().collect();
        pinned.release = Some(version);
    }
    let content = match &candidate.prompt {
        None => None,
        Some(PromptUse::Reference(text)) => {
            let (version, content) = find(app, scope, &at("prompt"), text).await?;
            pinned.prompt = Some(version);
            Some(content)
        }
        Some(PromptUse::Inline(content)) => {
            let content = Value::Object(content.clone());
            let digest = Digest::of_json(&content).map_err(db::CatalogError::from)?;
            pinned.prompt = Some(PinnedVersion {
                name: format!("draft: {}", candidate.name),
                number: 0,
                digest,
            });
            Some(content)
        }
    };
    if let Some(content) = content {
        let resolution = app
            .catalog
            .resolve_document(scope, crate::prompts::KIND, &content)
            .await?;
        let part = |part: db::Resolved| PinnedPart {
            reference: part.text,
            version: PinnedVersion {
                name: part.name.to_string(),
                number: part.number,
                digest: part.digest,
            },
        };
        pinned.parts = resolution.references.into_iter().map(part).collect();
        let document = PromptDocument::deserialize(&content).map_err(anyhow::Error::from)?;
        if candidate.model.is_none() {
            pinned.models = document.model.into_iter().collect();
            if pinned.models.is_empty() {
                let message = "neither the prompt nor the candidate names a model";
                return Err(wrong(at("model"), message));
            }
        }
    }
    let identity = json!({
        "prompt": pinned.prompt.as_ref().map(|prompt| prompt.digest),
        "parts": pinned.parts, "release": pinned.release.as_ref().map(|release| release.digest),
        "model": candidate.model, "parameters": candidate.parameters, "variables": candidate.variables,
    });
    pinned.digest = Digest::of_json(&identity).map_err(db::CatalogError::from)?;
    Ok(pinned)
}

async fn load_release(
    app: &App,
    project: ProjectId,
    version: &PinnedVersion,
) -> Result<gateway::Release> {
    let release =
        crate::apps::load_release(app, project, &version.name, version.number, version.digest)
            .await?;
    release.ok_or_else(|| {
        AppError::invalid(format!(
            "the release {} of the app {} cannot be run",
            version.number, version.name
        ))
        .code("unresolved_reference")
    })
}

async fn pin_evaluator(
    app: &App,
    scope: Scope,
    index: usize,
    used: &EvaluatorUse,
) -> Result<PinnedEvaluator> {
    let at = format!("/evaluators/{index}");
    let reference = match used {
        EvaluatorUse::Reference(text) => Some((at.clone(), text.as_str())),
        EvaluatorUse::Inline(inline) => {
            let text = inline.evaluator.as_str();
            text.map(|text| (format!("{at}/evaluator"), text))
        }
    };
    let (version, digest, content) = match (reference, used) {
        (Some((at, text)), _) => {
            let (version, content) = find(app, scope, &at, text).await?;
            (Some(version.number), version.digest, content)
        }
        (None, EvaluatorUse::Inline(inline)) => {
            let content = app.catalog.normal(evaluators::KIND, &inline.evaluator)?;
            app.catalog
                .refuse_wrong_blobs(scope.project, evaluators::KIND, &content)
                .await?;
            let digest = Digest::of_json(&content).map_err(db::CatalogError::from)?;
            (None, digest, content)
        }
        (None, EvaluatorUse::Reference(_)) => return Err(wrong(at, "this is no evaluator")),
    };
    let document = EvaluatorDocument::parse(&content).map_err(db::CatalogError::Invalid)?;
    Ok(PinnedEvaluator {
        name: used.name().to_owned(),
        version,
        digest,
        signature: document.signature(),
        document,
    })
}

/// A judge of the family that it judges.
struct Family {
    /// The evaluator's index.
    evaluator: usize,
    /// Whether the evaluator's document allows it.
    is_known: bool,
    /// What to tell.
    warning: Warning,
}

fn families_of(
    suite: &SuiteDocument,
    candidates: &[PinnedCandidate],
    evaluators: &[PinnedEvaluator],
) -> Vec<Family> {
    let mut found = Vec::new();
    for (index, evaluator) in evaluators.iter().enumerate() {
        let (judges, is_known) = evaluator.document.judges();
        for juror in judges {
            let family = judge::family(juror);
            for (candidate, named) in candidates.iter().zip(&suite.candidates) {
                let own = candidate
                    .models
                    .iter()
                    .find(|model| judge::family(model) == family);
                found.extend(own.map(|model| Family {
                    evaluator: index,
                    is_known,
                    warning: Warning::SameFamily {
                        judge: juror.to_owned(),
                        candidate: named.name.clone(),
                        model: model.clone(),
                    },
                }));
            }
        }
    }
    found
}

/// Judges prefer answers of their own family: refused, unless the judge's document says
/// that this is known; then the result says it.
fn check_families(
    suite: &SuiteDocument,
    candidates: &[PinnedCandidate],
    evaluators: &[PinnedEvaluator],
    warnings: &mut Vec<Warning>,
) -> Result<()> {
    for family in families_of(suite, candidates, evaluators) {
        if family.is_known {
            warnings.push(family.warning);
            continue;
        }
        return Err(AppError::invalid(family.warning.english())
            .code("same_family")
            .at(format!("/evaluators/{}", family.evaluator))
            .hint("take a judge of another family, or set allow_same_family in its document"));
    }
    Ok(())
}

/// A model whose provider nobody knows would fail on every example; said before it starts.
fn check_models(
    app: &App,
    project: ProjectId,
    suite: &SuiteDocument,
    candidates: &[PinnedCandidate],
    evaluators: &[PinnedEvaluator],
) -> Result<()> {
    let plan = app.gateway.plan();
    let Some(known) = plan.projects.get(&project) else {
        return Ok(());
    };
    let local = LocalModels::list(app.engine.as_ref());
    let check = |model: &str, at: String| -> Result<()> {
        let (provider, name) = model.split_once('/').unwrap_or((model, ""));
        let is_there = match provider {
            "local" => local.iter().any(|known| known.name == name),
            other => known.providers.contains_key(other),
        };
        if is_there {
            return Ok(());
        }
        let what = match provider {
            "local" => format!("there is no local model {name:?}"),
            other => format!("there is no provider {other:?}"),
        };
        Err(AppError::invalid(what).code("unknown_model").at(at))
    };
    for (index, pinned) in candidates.iter().enumerate() {
        let of_app = suite.candidates.get(index).is_some_and(|c| c.app.is_some());
        for model in pinned.models.iter().filter(|_| !of_app) {
            check(model, format!("/candidates/{index}/model"))?;
        }
    }
    for (index, pinned) in evaluators.iter().enumerate() {
        for model in pinned.document.models() {
            check(model, format!("/evaluators/{index}/model"))?;
        }
    }
    Ok(())
}

/// The documents of an evaluation, read once, ready to be called.
#[derive(Default)]
pub(crate) struct Ready {
    /// The prompt of each candidate, where it has one.
    pub documents: Vec<Option<PromptDocument>>,
    prompts: BTreeMap<String, Arc<Prompt>>,
    apps: BTreeMap<String, Arc<gateway::App>>,
    /// What was expected in all of the data; nothing until it is set.
    pub references: References,
}

impl Ready {
    /// Reads what was pinned. Deleted names do not matter: contents stay.
    ///
    /// # Errors
    /// A document cannot be read any more.
    pub(crate) async fn load(
        app: &App,
        project: ProjectId,
        suite: &SuiteDocument,
        pinned: &Pinned,
    ) -> Result<Self> {
        let mut wanted: BTreeSet<Digest> = BTreeSet::new();
        for candidate in &pinned.candidates {
            let prompt = candidate.prompt.iter().filter(|prompt| prompt.number > 0);
            wanted.extend(prompt.map(|prompt| prompt.digest));
            wanted.extend(candidate.parts.iter().map(|part| part.version.digest));
        }
        let wanted: Vec<Digest> = wanted.into_iter().collect();
        let contents = app.catalog.documents(project, &wanted).await?;
        let mut prompts: BTreeMap<String, Prompt> = BTreeMap::new();
        let mut apps: BTreeMap<String, gateway::App> = BTreeMap::new();
        let mut documents = Vec::new();
        for (pinned, candidate) in pinned.candidates.iter().zip(&suite.candidates) {
            let inline = match &candidate.prompt {
                Some(PromptUse::Inline(content)) => Some(Value::Object(content.clone())),
                _ => None,
            };
            let mut document = None;
            if let Some(version) = &pinned.prompt {
                let content = inline.as_ref().or_else(|| contents.get(&version.digest));
                document = Some(add_prompt(&mut prompts, version, content)?);
            }
            documents.push(document);
            for part in &pinned.parts {
                add_prompt(
                    &mut prompts,
                    &part.version,
                    contents.get(&part.version.digest),
                )?;
                let wanted = PromptRef::from_reference(&part.reference);
                if let Some(label) = wanted.and_then(|wanted| wanted.label) {
                    let prompt = prompts.entry(part.version.name.clone()).or_default();
                    prompt.labels.insert(label, part.version.number);
                }
            }
            if let Some(version) = &pinned.release {
                let release = Arc::new(load_release(app, project, version).await?);
                // One app may be there in several releases; each is an app of its own here.
                let entry = apps.entry(app_name(version)).or_default();
                entry.releases.insert(version.number, Arc::clone(&release));
                entry.environments.insert(ENVIRONMENT.to_owned(), release);
            }
        }
        Ok(Self {
            documents,
            prompts: shared(prompts),
            apps: shared(apps),
            references: References::default(),
        })
    }

    /// The plan that the evaluation's calls run on.
    pub(super) fn plan(&self, present: &Plan, project: ProjectId) -> Plan {
        let (providers, prices) = match present.projects.get(&project) {
            Some(known) => (known.providers.clone(), Arc::clone(&known.prices)),
            None => Default::default(),
        };
        let own = ProjectPlan {
            providers,
            prompts: self.prompts.clone(),
            apps: self.apps.clone(),
            // What is measured is the candidate, with the guards that its release names: those that
            // the project has around all calls may be others tomorrow.
            guards: BTreeMap::new(),
            experiments: HashMap::new(),
            prices,
        };
        Plan {
            revision: present.revision.clone(),
            keys: HashMap::new(),
            projects: HashMap::from([(project, Arc::new(own))]),
            limits: Limits { ..present.limits },
        }
    }
}

/// What an evaluation calls an app's release by.
pub(super) fn app_name(version: &PinnedVersion) -> String {
    format!("{}#{}", version.name, version.number)
}

fn shared<T>(map: BTreeMap<String, T>) -> BTreeMap<String, Arc<T>> {
    map.into_iter()
        .map(|(name, value)| (name, Arc::new(value)))
        .collect()
}

fn add_prompt(
    prompts: &mut BTreeMap<String, Prompt>,
    version: &PinnedVersion,
    content: Option<&Value>,
) -> Result<PromptDocument> {
    let document = content.and_then(|content| PromptDocument::deserialize(content).ok());
    let document = document.ok_or_else(|| {
        AppError::invalid(format!(
            "the prompt {} ({}) cannot be read any more",
            version.name,
            version.digest.short()
        ))
    })?;
    let prompt = prompts.entry(version.name.clone()).or_default();
    let ready = Arc::new(PromptVersion::new(version.digest, document.clone()));
    prompt.versions.entry(version.number).or_insert(ready);
    Ok(document)
}
