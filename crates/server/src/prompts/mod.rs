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
use db::catalog::{CatalogError, Label, Name};
use db::{Kind, MoveOutcome, MoveRequest, NewVersion, Problem, SavedVersion, Scope};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
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

/// The document of a prompt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PromptContent {
    /// The messages that stand before the caller's, in order; at least one.
    pub messages: Vec<PromptMessage>,
}

/// One message of a prompt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PromptMessage {
    /// `system`, `user` or `assistant`.
    pub role: MessageRole,
    /// A minijinja template over the variables that a caller sends.
    pub content: String,
}

/// Who a message is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum MessageRole {
    /// Instructions.
    System,
    /// The person.
    User,
    /// The model.
    Assistant,
}

impl MessageRole {
    fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
        }
    }
}

impl PromptContent {
    /// A prompt that is one system message.
    pub fn of_system(text: &str) -> Self {
        Self {
            messages: vec![PromptMessage {
                role: MessageRole::System,
                content: text.to_owned(),
            }],
        }
    }

    /// The text of the system messages, as the playground edits it.
    pub fn system(&self) -> String {
        let system = self
            .messages
            .iter()
            .filter(|message| message.role == MessageRole::System);
        system
            .map(|message| message.content.as_str())
            .collect::<Vec<_>>()
            .join("\n\n")
    }

    /// The document as the catalog keeps it.
    pub fn to_document(&self) -> Value {
        json!(self)
    }
}

/// Prompts, as the catalog knows them.
pub fn kind() -> Kind {
    Kind::new(
        KIND,
        || json!(schemars::schema_for!(PromptContent)),
        validate,
    )
}

fn validate(content: &Value) -> std::result::Result<(), Vec<Problem>> {
    let prompt = PromptContent::deserialize(content)
        .map_err(|error| vec![Problem::new("", error.to_string())])?;
    let mut problems = Vec::new();
    if prompt.messages.is_empty() {
        problems.push(Problem::new(
            "/messages",
            "a prompt has at least one message",
        ));
    }
    if prompt.messages.len() > 100 {
        problems.push(Problem::new(
            "/messages",
            "a prompt has at most 100 messages",
        ));
    }
    for (index, message) in prompt.messages.iter().enumerate() {
        let path = format!("/messages/{index}/content");
        if message.content.trim().is_empty() {
            problems.push(Problem::new(path, "a message has a text"));
        } else if message.content.contains('\0') {
            problems.push(Problem::new(path, "the text has a NUL character"));
        } else if let Err(error) = gateway::check_template(&message.content) {
            problems.push(Problem::new(path, error));
        }
    }
    if problems.is_empty() {
        Ok(())
    } else {
        Err(problems)
    }
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
    content: &PromptContent,
    message: &str,
) -> Result<SavedVersion> {
    let document = content.to_document();
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
        let Ok(content) = PromptContent::deserialize(&document.content) else {
            continue;
        };
        let messages = content
            .messages
            .into_iter()
            .map(|message| gateway::PromptMessage {
                role: message.role.name().to_owned(),
                template: message.content,
            })
            .collect();
        let version = gateway::PromptVersion {
            digest: document.version.digest,
            messages,
        };
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
