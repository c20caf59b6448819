//! `meguri guard train`: a classifier that learns from labelled texts of the data directory.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use guard::classify::Task;

use crate::app::{open_catalog, open_database};
use crate::cli::{Place, message, print_json, print_line, print_table};
use crate::datasets::Datasets;
use crate::error::AppError;
use crate::guards::measure;
use crate::guards::train::{self, Asked};
use crate::keys::operator_scope;

#[derive(Args)]
pub(in crate::cli) struct Train {
    #[command(flatten)]
    place: Place,
    /// The project.
    #[arg(long, default_value = "default")]
    project: String,
    /// What it looks for: injection or toxicity.
    #[arg(long)]
    task: String,
    /// Labelled texts, one JSON object a line: {"text", "label"}.
    #[arg(long = "set", required_unless_present = "dataset")]
    sets: Vec<PathBuf>,
    /// A dataset of labelled texts.
    #[arg(long, conflicts_with = "sets")]
    dataset: Option<String>,
    /// The classifier to go on from, by its digest; the one that comes with the program otherwise.
    #[arg(long)]
    base: Option<String>,
    /// A name for people.
    #[arg(long)]
    name: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(in crate::cli) async fn run(args: Train) -> anyhow::Result<()> {
    let task = [Task::Injection, Task::Toxicity]
        .into_iter()
        .find(|task| task.name() == args.task)
        .ok_or_else(|| {
            AppError::invalid(format!("{:?} is no task", args.task)).hint("injection or toxicity")
        })?;
    let mut lines = String::new();
    for path in &args.sets {
        let reading = || format!("reading the labelled texts in {}", path.display());
        lines.push_str(&std::fs::read_to_string(path).with_context(reading)?);
        lines.push('\n');
    }
    let config = args.place.load(None)?;
    let db = open_database(&config).await?;
    let scope = operator_scope(&db, &args.project).await?;
    let catalog = open_catalog(&config, &db)?;
    let items = match &args.dataset {
        Some(name) => {
            let datasets = Datasets::new(db.clone(), catalog.clone());
            measure::of_dataset(&datasets, scope, name, Some(task.name())).await?
        }
        None => measure::of_lines(&measure::lines_of(&lines, task.name()))?,
    };
    let asked = Asked {
        task,
        name: args.name,
        base: args.base,
    };
    let trained = train::train(&db, &catalog, scope, asked, items).await;
    db.close().await;
    let trained = trained?;
    if args.json {
        return print_json(&trained);
    }
    let report = &trained.report;
    let row = |what: &str, before: [usize; 2], after: [usize; 2]| {
        let of = |[hits, all]: [usize; 2]| format!("{hits} of {all}");
        vec![what.to_owned(), of(before), of(after)]
    };
    let (before, after) = (&report.before, &report.after);
    let rows = vec![
        row("reviewed, kept apart: found", before.recall, after.recall),
        row(
            "reviewed, kept apart: false alarms",
            before.false_positives,
            after.false_positives,
        ),
        row(
            "reviewed, learned from: found",
            before.learned_recall,
            after.learned_recall,
        ),
        row(
            "reviewed, learned from: false alarms",
            before.learned_false_positives,
            after.learned_false_positives,
        ),
        row(
            "our own attacks: found",
            before.own_recall,
            after.own_recall,
        ),
        row(
            "our own harmless texts: false alarms",
            before.own_false_positives,
            after.own_false_positives,
        ),
    ];
    print_table(&["texts", "before", "after"], rows)?;
    message(&format!(
        "threshold {:.4}, was {:.4}",
        after.threshold, before.threshold
    ));
    print_line(&format!(
        "name it in a rule's check: \"classifier\": \"{}\"",
        trained.digest
    ))
}
