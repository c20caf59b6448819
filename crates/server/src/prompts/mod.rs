//! Prompts: the first kind of the catalog.
//!
//! A prompt is a list of messages whose texts are templates; the gateway puts
//! them before a caller's own messages. Versions, labels, history and
//! de-duplication are the catalog's; this feature adds the kind, the pages on
//! which prompts are found, written and compared, drafts that run without being
//! saved, and candidates written by a model.

mod api;
mod diff;
mod differences;
mod drafts;
mod editor;
mod form;
mod generate;
mod library;
mod list;
mod pages;

use std::collections::BTreeMap;
use std::sync::Arc;

use base::{Digest, ProjectId};
use db::catalog::{CatalogError, Label, Name, Reference};
use db::{Kind, MoveRequest, NewVersion, Problem, SavedVersion, Scope};
use gateway::{PromptDocument, PromptVersion};
use serde::Deserialize as _;
use serde_json::{Value, json};

use crate::app::App;
pub use crate::catalog::{parse_label, parse_name};
use crate::error::Result;
use crate::http::Route;
use crate::plan::Kept;
pub(crate) use form::DraftForm;
pub(crate) use pages::as_text;

/// The catalog's word for prompts.
pub const KIND: &str = "prompt";
/// The label that callers get when they name none.
pub const PRODUCTION: &str = "production";

/// Pages and API.
pub fn routes() -> Vec<Route> {
    [
        list::routes(),
        pages::routes(),
        differences::routes(),
        editor::routes(),
        api::routes(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Prompts, as the catalog knows them.
pub fn kind() -> Kind {
    Kind {
        normal: |content| match PromptDocument::parse(content) {
            Ok(document) => document.to_value(),
            Err(_) => content.clone(),
        },
        references,
        text: Some(crate::gitops::PROMPT_TEXT),
        text_of,
        ..Kind::new(
            KIND,
            || json!(schemars::schema_for!(PromptDocument)),
            validate,
        )
    }
}

fn validate(content: &Value) -> std::result::Result<(), Vec<Problem>> {
    let document = PromptDocument::parse(content).map_err(|problems| {
        let problems = problems.into_iter();
        problems
            .map(|problem| Problem::new(problem.path, problem.message))
            .collect::<Vec<_>>()
    })?;
    let mentions = document.references().into_iter();
    let problems: Vec<Problem> = mentions
        .filter_map(|mention| parse_reference(&mention.path, &mention.reference).err())
        .collect();
    if problems.is_empty() {
        Ok(())
    } else {
        Err(problems)
    }
}

/// What near-duplicates are recognised by: the prompt as it reads with its own
/// samples; its templates where it does not render by itself.
fn text_of(content: &Value) -> String {
    let Ok(document) = PromptDocument::deserialize(content) else {
        return String::new();
    };
    let inputs = document.sample_inputs();
    let with = gateway::RenderWith {
        variables: &inputs,
        messages: &[],
        partials: &|_| None,
        max_bytes: 1 << 20,
    };
    let Ok(rendered) = gateway::render_preview(&document, &with) else {
        return as_text(&document);
    };
    let messages = rendered.around(&[]);
    let texts = messages
        .iter()
        .filter_map(|message| message["content"].as_str());
    texts.collect::<Vec<_>>().join("\n")
}

/// A document that a caller sent.
///
/// # Errors
/// Everything that is wrong with it.
pub fn parse_document(content: &Value) -> Result<PromptDocument> {
    PromptDocument::parse(content).map_err(|problems| {
        let problems = problems.into_iter();
        let problems = problems.map(|problem| Problem::new(problem.path, problem.message));
        CatalogError::Invalid(problems.collect()).into()
    })
}

/// What changed between two prompts' texts, as the template `diff_unified` takes it.
pub(crate) fn text_difference(old: &PromptDocument, new: &PromptDocument) -> Value {
    // One message beside several: both under their roles, or everything would seem to have changed.
    let (before, after) = match (pages::only_text(old), pages::only_text(new)) {
        (Some(before), Some(after)) => (before.to_owned(), after.to_owned()),
        _ => (pages::conversation(old), pages::conversation(new)),
    };
    let found = diff::compare(&before, &after);
    json!({"added": found.added, "removed": found.removed, "unified": found.unified})
}

/// The prompts that a prompt uses.
fn references(content: &Value) -> Vec<Reference> {
    let Ok(document) = PromptDocument::parse(content) else {
        return Vec::new();
    };
    let mentions = document.references().into_iter();
    mentions
        .filter_map(|mention| parse_reference(&mention.path, &mention.reference).ok())
        .collect()
}

/// Reads `prompt:NAME@SELECTOR`; the kind may be left out, since it can be no other.
fn parse_reference(path: &str, text: &str) -> std::result::Result<Reference, Problem> {
    let name = text.split('@').next().unwrap_or_default();
    if name.contains(':') {
        let reference = Reference::parse_at(path, text)?;
        if reference.kind == KIND {
            return Ok(reference);
        }
        let why = format!("a prompt can use prompts only, not {}", reference.kind);
        return Err(Problem::new(path, why));
    }
    Reference::parse_at(path, &format!("{KIND}:{text}"))
}

/// Saves a version; the same content again gives the version that holds it.
///
/// # Errors
/// The content or name is wrong.
pub async fn save_version(
    app: &App,
    scope: Scope,
    name: &Name,
    content: &PromptDocument,
    message: &str,
) -> Result<SavedVersion> {
    let document = content.to_value();
    let new = NewVersion {
        kind: KIND,
        name,
        content: &document,
        message,
    };
    let saved = app.catalog.save_version(scope, new).await?;
    app.refresh_plan().await?;
    Ok(saved)
}

/// What became of a move that somebody asked for.
pub(crate) enum Asked {
    /// The label points there, in effect on the next request.
    Moved,
    /// The label is protected: the move waits for approval.
    Proposed,
}

/// Moves a label, or proposes the move where the label is protected.
///
/// # Errors
/// There is no such version, it is quarantined, or somebody else moved the label first.
pub(crate) async fn request_move(
    app: &App,
    scope: Scope,
    request: MoveRequest<'_>,
) -> Result<Asked> {
    match crate::promotion::request_move(app, scope, request).await? {
        (_, Some(_)) => Ok(Asked::Proposed),
        (_, None) => Ok(Asked::Moved),
    }
}

/// The moves of a prompt's labels that wait for approval.
async fn waiting_moves(app: &App, scope: Scope, name: &Name) -> Result<Vec<Value>> {
    let filter = db::promotion::ProposalFilter {
        waiting: Some(true),
        kind: Some(KIND.to_owned()),
        name: Some(name.clone()),
        ..db::promotion::ProposalFilter::default()
    };
    let page = db::PageRequest {
        cursor: None,
        limit: 20,
    };
    let waiting = app.promotion.proposals(scope, &filter, &page).await?.items;
    let row = |proposal: db::promotion::Proposal| json!({"label": proposal.label, "version": proposal.number});
    Ok(waiting.into_iter().map(row).collect())
}

/// Labels that forms offer: the usual ones, then the project's environments.
async fn labels_of_project(app: &App, scope: Scope) -> Result<Vec<String>> {
    let environments = crate::projects::environments(&app.db, scope.project).await?;
    Ok(pages::with_usual_labels(environments))
}

/// Points a label to a version, in effect on the next request.
///
/// # Errors
/// There is no such version, or somebody else moved the label first.
pub async fn move_label(
    app: &App,
    scope: Scope,
    name: &Name,
    label: &Label,
    to: i64,
    expected: Option<i64>,
    reason: &str,
) -> Result<db::Pointer> {
    let request = MoveRequest {
        kind: KIND,
        name,
        label,
        to,
        expected,
        reason,
    };
    crate::catalog::move_pointer(app, scope, request).await
}

/// Every prompt of a project with every version that can be called.
///
/// # Errors
/// The database cannot be read.
pub async fn for_plan(
    app: &App,
    project: ProjectId,
    kept: &mut Kept<PromptVersion>,
) -> anyhow::Result<BTreeMap<String, Arc<gateway::Prompt>>> {
    let index = app.catalog.version_index(project, KIND).await?;
    let digests = index.iter().map(|row| row.digest);
    let compiled = kept.load(app, project, digests, compile).await?;
    let mut prompts: BTreeMap<String, gateway::Prompt> = BTreeMap::new();
    for row in index {
        if let Some(version) = compiled.get(&row.digest) {
            let prompt = prompts.entry(row.name.as_str().to_owned()).or_default();
            prompt.versions.insert(row.number, Arc::clone(version));
        }
    }
    for pointer in app.catalog.pointer_index(project, KIND).await? {
        if let Some(prompt) = prompts.get_mut(pointer.name.as_str()) {
            prompt.labels.insert(pointer.label, pointer.number);
        }
    }
    let shared = prompts
        .into_iter()
        .map(|(name, prompt)| (name, Arc::new(prompt)));
    Ok(shared.collect())
}

/// A document that an older release saved and this one cannot read is left out of the plan.
fn compile(digest: Digest, content: &Value) -> Option<PromptVersion> {
    let document = PromptDocument::deserialize(content).ok()?;
    Some(PromptVersion::new(digest, document))
}
