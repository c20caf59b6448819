//! Prompts: the first kind of the catalog.
//!
//! A prompt is a list of messages whose texts are templates; the gateway puts
//! them before a caller's own messages. Versions, labels, history and
//! de-duplication are the catalog's; this feature adds the type, the pages and
//! the JSON routes.

mod api;
mod diff;
mod pages;

use std::collections::BTreeMap;
use std::str::FromStr as _;
use std::sync::Arc;

use base::ProjectId;
use db::catalog::{CatalogError, Label, Name, Reference, Selector};
use db::{Kind, MoveOutcome, MoveRequest, NewVersion, Problem, SavedVersion, Scope};
use gateway::PromptDocument;
use serde::Deserialize as _;
use serde_json::{Value, json};

use crate::app::App;
use crate::error::{AppError, Result};
use crate::http::Route;

/// The catalog's word for prompts.
pub const KIND: &str = "prompt";
/// The label that callers get when they name none.
pub const PRODUCTION: &str = "production";

/// Pages and API.
pub fn routes() -> Vec<Route> {
    let mut routes = pages::routes();
    routes.extend(api::routes());
    routes
}

/// Prompts, as the catalog knows them.
pub fn kind() -> Kind {
    Kind {
        references,
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
        .filter_map(|mention| {
            let problem = parse_reference(&mention.reference).err()?;
            Some(Problem::new(mention.path, problem.message))
        })
        .collect();
    if problems.is_empty() {
        Ok(())
    } else {
        Err(problems)
    }
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

/// The prompts that a prompt uses.
fn references(content: &Value) -> Vec<Reference> {
    let Ok(document) = PromptDocument::parse(content) else {
        return Vec::new();
    };
    let mentions = document.references().into_iter();
    mentions
        .filter_map(|mention| {
            let (name, selector) = parse_reference(&mention.reference).ok()?;
            Some(Reference {
                path: mention.path,
                kind: KIND.to_owned(),
                name,
                selector,
            })
        })
        .collect()
}

/// Reads `prompt:NAME@SELECTOR`.
fn parse_reference(text: &str) -> std::result::Result<(Name, Selector), Problem> {
    let text = text.strip_prefix("prompt:").unwrap_or(text);
    let (name, selector) = text.rsplit_once('@').unwrap_or((text, PRODUCTION));
    Ok((name.parse()?, selector.parse()?))
}

/// A name that a caller typed.
///
/// # Errors
/// What is wrong with it.
pub fn parse_name(text: &str) -> Result<Name> {
    Name::from_str(text).map_err(|problem| {
        AppError::invalid(problem.message)
            .code("bad_prompt_name")
            .at("name")
    })
}

/// A label that a caller typed.
///
/// # Errors
/// What is wrong with it.
pub fn parse_label(text: &str) -> Result<Label> {
    Label::from_str(text).map_err(|problem| {
        AppError::invalid(problem.message)
            .code("bad_label")
            .at("label")
    })
}

impl From<CatalogError> for AppError {
    fn from(error: CatalogError) -> Self {
        match error {
            CatalogError::Invalid(problems) => {
                let at = problems
                    .first()
                    .map(|problem| problem.path.clone())
                    .unwrap_or_default();
                let text = problems
                    .iter()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>()
                    .join("; ");
                Self::invalid(text).code("invalid_document").at(at)
            }
            CatalogError::UnknownKind(_) => Self::invalid(error.to_string()),
            CatalogError::NoVersion { .. } => Self::not_found(error.to_string()),
            CatalogError::Cursor(problem) => Self::invalid(problem.to_string()).at("cursor"),
            CatalogError::Db(error) => error.into(),
        }
    }
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
    match app.catalog.move_pointer(scope, request).await? {
        MoveOutcome::Moved(pointer) | MoveOutcome::Unchanged(pointer) => {
            app.refresh_plan().await?;
            Ok(pointer)
        }
        MoveOutcome::Conflict(current) => {
            let now = match current {
                Some(pointer) => format!(
                    "it points to version {} now (revision {})",
                    pointer.number, pointer.revision
                ),
                None => "it does not exist".to_owned(),
            };
            Err(AppError::conflict(format!(
                "somebody else moved {label} first: {now}",
                label = label.as_str()
            ))
            .code("moved_meanwhile"))
        }
    }
}

/// Every prompt of a project with every version that can be called.
///
/// # Errors
/// The database cannot be read.
pub async fn for_plan(
    app: &App,
    project: ProjectId,
) -> Result<BTreeMap<String, Arc<gateway::Prompt>>> {
    let mut prompts: BTreeMap<String, gateway::Prompt> = BTreeMap::new();
    for document in app.catalog.all_documents(project, KIND).await? {
        let Ok(content) = PromptDocument::deserialize(&document.content) else {
            continue;
        };
        let version = gateway::PromptVersion::new(document.version.digest, content);
        let prompt = prompts
            .entry(document.version.name.as_str().to_owned())
            .or_default();
        prompt
            .versions
            .insert(document.version.number, Arc::new(version));
    }
    for (pointer, _) in app.catalog.pointed_documents(project, KIND).await? {
        if let Some(prompt) = prompts.get_mut(pointer.name.as_str()) {
            prompt.labels.insert(pointer.label, pointer.number);
        }
    }
    Ok(prompts
        .into_iter()
        .map(|(name, prompt)| (name, Arc::new(prompt)))
        .collect())
}
