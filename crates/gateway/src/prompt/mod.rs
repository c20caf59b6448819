//! Prompts by name: what they say, finding the version of a call, rendering it.
//!
//! `document.rs` is what people write, `check.rs` what can be wrong with it,
//! `inputs.rs` its JSON Schema, `template.rs` the two template languages,
//! `examples.rs` the choice of worked examples, `version.rs` the rendering. This
//! file finds the version that a call means, in the plan and through experiments.
//! Nothing here knows of HTTP bodies or of the catalog.

mod check;
mod document;
mod examples;
mod inputs;
mod template;
mod version;

use std::sync::Arc;

use http::StatusCode;
use serde_json::{Map, Value};

use crate::context::{CallContext, PromptRef};
use crate::error::ApiError;
use crate::experiment::{ArmUsed, Target};
use crate::plan::{ProjectPlan, Prompt};
use crate::problem::DocumentProblem;
use crate::record::PromptUsed;

pub use document::{
    Dialect, Example, Examples, MessageRole, Placeholder, PromptDocument, PromptItem,
    PromptMention, PromptMessage, PromptType, Select, SelectBy, Show, Variable,
};
pub(crate) use examples::most_alike;
pub use template::render_template;
pub(crate) use version::{Chosen, ToChoose};

pub use version::{PromptLookup, PromptVersion, RenderWith, Rendered, render_preview};

/// What a call writes as its model to use a prompt's own: `prompt:NAME@LABEL`.
pub(crate) const MODEL_PREFIX: &str = "prompt:";
/// The label that is meant when nothing else says which.
pub(crate) const PRODUCTION: &str = "production";
/// The newest version; never a label that can be moved.
const LATEST: &str = "latest";

/// The version of a prompt that a call means.
#[derive(Debug, Clone)]
pub struct FoundPrompt {
    /// What will be rendered.
    pub version: Arc<PromptVersion>,
    /// What the record says of it.
    pub used: PromptUsed,
    /// The side of an experiment that the call was put on.
    pub arm: Option<ArmUsed>,
}

/// Whether a jinja template can be saved: it parses and uses only what is allowed.
///
/// # Errors
/// What is wrong, for the person who wrote it.
pub fn check_template(template: &str) -> Result<(), String> {
    template::check(Dialect::Jinja, template)
}

/// Finds the version of a prompt for a call: by digest or number as it is, by
/// label through an experiment on that label where one runs. `environment` is the
/// key's; its label is meant when the call names none and the prompt has it.
///
/// # Errors
/// There is no such prompt or no such version; says which was probably meant.
pub fn find_prompt(
    project: &ProjectPlan,
    wanted: &PromptRef,
    environment: &str,
    context: &CallContext,
) -> Result<FoundPrompt, ApiError> {
    let prompt = project
        .prompts
        .get(&wanted.name)
        .ok_or_else(|| missing(project, wanted))?;
    let label = label_of(prompt, wanted, environment);
    let number = number_of(prompt, wanted, label);
    let mut found = number.and_then(|number| Some((number, prompt.versions.get(&number)?, None)));
    if let Some(label) = label
        && !project.experiments.is_empty()
    {
        found = arm(project, prompt, &wanted.name, label, context).or(found);
    }
    let Some((number, version, arm)) = found else {
        return Err(no_version(wanted, label));
    };
    let used = PromptUsed {
        name: wanted.name.clone(),
        version: number,
        digest: version.digest,
        label: label.map(str::to_owned),
    };
    Ok(FoundPrompt {
        version: version.clone(),
        used,
        arm,
    })
}

/// The label that a call goes by; none when it names a version.
fn label_of<'a>(prompt: &Prompt, wanted: &'a PromptRef, environment: &'a str) -> Option<&'a str> {
    if wanted.version.is_some() || wanted.digest.is_some() {
        return None;
    }
    match wanted.label.as_deref() {
        Some(LATEST) => None,
        Some(label) => Some(label),
        None if prompt.labels.contains_key(environment) => Some(environment),
        None => Some(PRODUCTION),
    }
}

fn number_of(prompt: &Prompt, wanted: &PromptRef, label: Option<&str>) -> Option<i64> {
    if let Some(digest) = wanted.digest {
        let mut versions = prompt.versions.iter().rev();
        let found = versions.find(|(_, version)| version.digest == digest);
        return found.map(|(number, _)| *number);
    }
    match (wanted.version, label) {
        (Some(number), _) => Some(number),
        (None, Some(label)) => prompt.labels.get(label).copied(),
        (None, None) => prompt.versions.keys().next_back().copied(),
    }
}

/// The arm of an experiment on this label, if one runs and its version is here.
fn arm<'a>(
    project: &ProjectPlan,
    prompt: &'a Prompt,
    name: &str,
    label: &str,
    context: &CallContext,
) -> Option<(i64, &'a Arc<PromptVersion>, Option<ArmUsed>)> {
    let target = Target::Prompt {
        name: name.to_owned(),
        label: label.to_owned(),
    };
    let experiment = project.experiments.get(&target)?;
    let (arm, used) = experiment.choose(&context.unit(experiment.unit))?;
    let version = prompt.versions.get(&arm.number)?;
    Some((arm.number, version, Some(used)))
}

/// The prompt of a plan that a document's reference stands for.
pub fn refer(project: &ProjectPlan, reference: &str) -> Option<Arc<PromptVersion>> {
    let wanted = PromptRef::from_reference(reference)?;
    let prompt = project.prompts.get(&wanted.name)?;
    // A document means the same whoever calls it, so no environment and no experiment counts.
    let label = label_of(prompt, &wanted, PRODUCTION);
    let number = number_of(prompt, &wanted, label)?;
    prompt.versions.get(&number).cloned()
}

/// The model that a call means: its own, or that of its prompt.
pub(crate) fn model_of_call(
    model: Option<String>,
    rendered: &Rendered,
) -> Result<String, ApiError> {
    let by_prompt = |model: &String| model.is_empty() || model.starts_with(MODEL_PREFIX);
    match (model.filter(|model| !by_prompt(model)), &rendered.model) {
        (Some(model), _) => Ok(model),
        (None, Some(model)) => Ok(model.clone()),
        (None, None) => {
            let message = "\"model\" is missing, and no prompt says one";
            Err(ApiError::invalid("model", message))
        }
    }
}

/// What a prompt says about the call that the caller did not say.
pub(crate) fn added_parameters(
    own: &Map<String, Value>,
    rendered: &Rendered,
) -> Map<String, Value> {
    // Two names for one thing, of which providers refuse the pair.
    const SAME: [&str; 2] = ["max_tokens", "max_completion_tokens"];
    let said = |name: &str| {
        own.contains_key(name)
            || (SAME.contains(&name) && SAME.iter().any(|same| own.contains_key(*same)))
    };
    let parameters = rendered.parameters.iter();
    let added = parameters.filter(|(name, _)| !said(name));
    added
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

/// What a caller reads when a prompt cannot be rendered with its inputs.
pub(crate) fn unusable(name: &str, problems: &[DocumentProblem]) -> ApiError {
    let texts: Vec<String> = problems.iter().map(ToString::to_string).collect();
    let of_inputs = problems
        .iter()
        .find(|problem| problem.path.starts_with("variables."));
    let param = of_inputs.map_or("prompt", |problem| problem.path.as_str());
    ApiError::invalid(param, format!("the prompt {name:?}: {}", texts.join("; ")))
}

fn missing(project: &ProjectPlan, wanted: &PromptRef) -> ApiError {
    let hint = match crate::nearest(&wanted.name, project.prompts.keys().map(String::as_str)) {
        Some(near) => format!("; did you mean {near:?}?"),
        None => String::new(),
    };
    not_found(format!(
        "there is no prompt {:?} in this project{hint}",
        wanted.name
    ))
}

fn no_version(wanted: &PromptRef, label: Option<&str>) -> ApiError {
    let selector = match (wanted.digest, wanted.version, label) {
        (Some(digest), ..) => format!("version with the digest {digest}"),
        (None, Some(number), _) => format!("version {number}"),
        (None, None, Some(label)) => format!("label {label:?}"),
        (None, None, None) => "version".to_owned(),
    };
    not_found(format!("the prompt {:?} has no {selector}", wanted.name))
}

fn not_found(message: String) -> ApiError {
    let mut error = ApiError::new(StatusCode::NOT_FOUND, "prompt_not_found", message);
    error.param = Some("prompt".to_owned());
    error
}
