//! Local models: where they come from, where they lie, and how they are called.
//!
//! A model is pulled from a hub, a Python package or a path (`reference`),
//! verified, copied into the data directory under the digest of its content
//! (`files`), looked at by the engine, and written down under a name. It is then
//! called as `local/NAME` ([`LocalEngine`]). Models belong to the installation:
//! every project sees the same ones. Loading and running is the engine's work;
//! connections go through the gateway's egress client.

mod api;
mod choose;
mod error;
mod files;
mod hub;
mod jobs;
mod local;
mod pages;
mod path;
mod pip;
mod progress;
mod pull;
mod reference;
mod store;
mod terminal;
mod tool_calls;
mod wheel;

use base::{Digest, JobId};
use db::{Actor, Db};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use error::{PullError, PullFault};
pub use files::{ModelFile, ModelsFolder};
pub use hub::Hub;
pub use jobs::{PullState, Pulls, register_jobs};
pub use local::LocalEngine;
pub(crate) use pip::download_known;
pub use progress::{Progress, Stage};
pub use pull::{Puller, pull_now};
pub(crate) use reference::is_relative_path;
pub use reference::{BadRef, FORMS, HubRef, ModelRef, check_name, name_from};
pub use terminal::Bar;
pub use tool_calls::{Piece, split_tool_calls};

use crate::app::App;
use crate::error::{AppError, Result};
use crate::http::Route;

/// Pages and API.
pub fn routes() -> Vec<Route> {
    let mut routes = pages::routes();
    routes.extend(api::routes());
    routes
}

/// An installed model.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Model {
    /// It is called as `local/` and this.
    pub name: String,
    /// The reference that it was pulled from.
    pub source: String,
    /// Where it lies, relative to the data directory.
    #[serde(skip)]
    pub path: String,
    /// The digest of its files' names and contents.
    #[schemars(with = "String")]
    pub digest: Digest,
    /// What it is for.
    pub task: Task,
    /// Bytes of all its files.
    pub size_bytes: u64,
    /// What its files say about it.
    pub facts: Facts,
    /// When it was installed, microseconds since the epoch.
    pub installed_at: i64,
}

/// What a model is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Task {
    /// Chat completions.
    Chat,
    /// Embeddings.
    Embedding,
}

impl Task {
    /// The word in the API and the database.
    pub fn name(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Embedding => "embedding",
        }
    }
}

/// What a model's files say about it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Facts {
    /// The family, such as `llama` or `bert`.
    pub architecture: String,
    /// The name in the file, if it has one.
    pub title: Option<String>,
    /// How many weights it has.
    pub parameters: u64,
    /// The longest input in tokens.
    pub context_length: u64,
    /// The width of its vectors.
    pub embedding_length: u64,
    /// How many entries its vocabulary has.
    pub vocabulary_size: u64,
    /// The storage type of most weights, such as `Q4_1`.
    pub quantisation: String,
    /// Whether it brings its own chat template.
    pub has_chat_template: bool,
    /// The commit on the hub.
    pub revision: Option<String>,
    /// Its files.
    pub files: Vec<ModelFile>,
}

/// A model that is about to be written down.
struct NewModel {
    name: String,
    source: String,
    path: String,
    digest: Digest,
    task: Task,
    facts: Facts,
}

impl NewModel {
    fn size_bytes(&self) -> u64 {
        self.facts.files.iter().map(|file| file.size_bytes).sum()
    }
}

/// Every installed model, by name.
///
/// # Errors
/// The database cannot be read.
pub async fn list_models(db: &Db) -> Result<Vec<Model>> {
    Ok(store::list(db).await?)
}

/// The names of every installed model.
///
/// # Errors
/// The database cannot be read.
pub async fn list_installed(db: &Db) -> Result<Vec<String>> {
    Ok(list_models(db)
        .await?
        .into_iter()
        .map(|model| model.name)
        .collect())
}

/// What `up` does before it serves: fetches a chat model and an embedding model
/// if there is none of that kind, with a progress bar. The server starts without
/// them as well; what failed is said.
pub async fn ensure_defaults(app: &App) {
    let bar = Bar::default();
    let tell = |label: &str, progress: Progress| bar.show(label, &progress);
    let done = Box::pin(pull::ensure_defaults(app, &tell)).await;
    bar.clear();
    match done {
        Ok(problems) => {
            for problem in problems {
                tracing::warn!("{problem}");
            }
        }
        Err(error) => tracing::warn!("the default models were not looked for: {error}"),
    }
}

/// Removes a model and, when no other name stands for them, its files. Calls
/// that run keep what they have opened.
///
/// # Errors
/// 404 when there is none of this name; the files cannot be removed.
pub async fn remove_model(db: &Db, folder: &ModelsFolder, actor: Actor, name: &str) -> Result<()> {
    let digest = store::remove(db, actor, name).await?;
    let digest =
        digest.ok_or_else(|| AppError::not_found(format!("there is no local model {name:?}")))?;
    Ok(pull::remove_unused(db, folder, digest).await?)
}

/// Starts a pull as a job of this server; returns the job.
///
/// # Errors
/// The reference is wrong, or a path: only the command line may name those,
/// since whoever runs it can read the files anyway.
pub async fn pull_model(
    app: &App,
    actor: Actor,
    source: &str,
    name: Option<&str>,
) -> Result<JobId> {
    let source: ModelRef = source
        .parse()
        .map_err(|error: BadRef| bad_ref(error.to_string()))?;
    if let ModelRef::Path(_) = source {
        return Err(bad_ref(
            "a path can be pulled only on the server's command line: meguri model pull PATH",
        )
        .hint(format!(
            "here, write {}",
            FORMS.trim_end_matches(", or (on the command line) a path")
        )));
    }
    if let Some(name) = name {
        check_name(name).map_err(|error| AppError::invalid(error.to_string()).at("name"))?;
    }
    jobs::enqueue(app, actor, &source, name).await
}

fn bad_ref(message: impl Into<String>) -> AppError {
    AppError::invalid(message)
        .code("bad_model_reference")
        .at("ref")
}
