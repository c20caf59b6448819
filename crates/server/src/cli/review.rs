//! `meguri review list|show|fill|export`: review queues on the data directory, with or without
//! a running server; with `--url`, filling is done by that server.

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use db::{Catalog, Db, Scope};
use serde_json::{Value, json};

use super::remote::{Remote, ServerArgs};
use super::{Place, message, print_json, print_line, print_table};
use crate::app::{App, open_catalog, open_database};
use crate::keys::operator_scope;
use crate::review::{self, Desk, ExportFormat, FillRequest};

#[derive(Subcommand)]
pub(super) enum Review {
    /// List review queues and how far they are.
    List(List),
    /// Show a queue: its questions, raters and how far they agree.
    Show(Show),
    /// Add items to a queue, from traces, a dataset or an evaluation.
    Fill(Box<Fill>),
    /// Write every item and label to stdout or a file.
    Export(Export),
}

#[derive(Args)]
struct Where {
    #[command(flatten)]
    place: Place,
    /// The project; with --url the key says which.
    #[arg(long, default_value = "default")]
    project: String,
}

#[derive(Args)]
pub(super) struct List {
    #[command(flatten)]
    at: Where,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub(super) struct Show {
    #[command(flatten)]
    at: Where,
    /// The queue.
    queue: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub(super) struct Fill {
    #[command(flatten)]
    at: Where,
    #[command(flatten)]
    server: ServerArgs,
    /// The queue.
    queue: String,
    /// Traces that this filter finds; all traces when no source is named.
    #[arg(long, conflicts_with_all = ["dataset", "evaluation"])]
    filter: Option<String>,
    /// The earliest start of traces: RFC 3339, microseconds, or how long ago (-7d).
    #[arg(long, allow_hyphen_values = true, value_name = "TIME", conflicts_with_all = ["dataset", "evaluation"])]
    from: Option<String>,
    /// Examples of this dataset.
    #[arg(long, conflicts_with = "evaluation")]
    dataset: Option<String>,
    /// Only examples of this split.
    #[arg(long, requires = "dataset")]
    split: Option<String>,
    /// Answers of this evaluation.
    #[arg(long)]
    evaluation: Option<String>,
    /// The candidate whose answers are judged.
    #[arg(long, requires = "evaluation")]
    candidate: Option<String>,
    /// The candidate that it is set beside: raters choose between the two.
    #[arg(long, requires = "evaluation")]
    against: Option<String>,
    /// all, random, worst, uncertain, disagreement or bad_feedback.
    #[arg(long, default_value = "all")]
    pick: String,
    /// The score or evaluator that the pick goes by.
    #[arg(long)]
    score: Option<String>,
    /// The value near which a score is uncertain.
    #[arg(long, allow_hyphen_values = true)]
    threshold: Option<f64>,
    /// How many are picked.
    #[arg(long, default_value_t = 100)]
    limit: usize,
    /// How many are drawn at random beside those that are picked.
    #[arg(long, default_value_t = 0)]
    random: usize,
    /// For drawing: the same seed draws the same.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub(super) struct Export {
    #[command(flatten)]
    at: Where,
    /// The queue.
    queue: String,
    /// jsonl (an object per item) or csv (a row per label).
    #[arg(long, default_value = "jsonl")]
    format: String,
    /// Where to write; `-` is stdout.
    #[arg(long, default_value = "-")]
    out: PathBuf,
}

impl Review {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        match self {
            Self::List(args) => list(args).await,
            Self::Show(args) => show(args).await,
            Self::Fill(args) => fill(*args).await,
            Self::Export(args) => export(args).await,
        }
    }
}

struct Opened {
    db: Db,
    catalog: Catalog,
    scope: Scope,
}

impl Where {
    async fn open(&self) -> anyhow::Result<Opened> {
        let config = self.place.load(None)?;
        let db = open_database(&config).await?;
        Ok(Opened {
            catalog: open_catalog(&config, &db)?,
            scope: operator_scope(&db, &self.project).await?,
            db,
        })
    }
}

impl Opened {
    fn desk(&self) -> Desk<'_> {
        Desk {
            db: &self.db,
            catalog: &self.catalog,
        }
    }
}

async fn list(args: List) -> anyhow::Result<()> {
    let opened = args.at.open().await?;
    let rows = review::queues(opened.desk(), opened.scope).await?;
    opened.db.close().await;
    if args.json {
        return print_json(&json!({"items": rows}));
    }
    let row = |row: &review::QueueRow| {
        let counts = row.counts;
        let numbers = [
            counts.items,
            counts.open,
            counts.adjudicate,
            counts.done,
            counts.closed,
        ];
        let mut cells = vec![row.name.clone()];
        cells.extend(numbers.map(|number| number.to_string()));
        cells.push(row.description.clone());
        cells
    };
    print_table(
        &[
            "NAME",
            "ITEMS",
            "OPEN",
            "ADJUDICATE",
            "DONE",
            "CLOSED",
            "DESCRIPTION",
        ],
        rows.iter().map(row).collect(),
    )
}

async fn show(args: Show) -> anyhow::Result<()> {
    let opened = args.at.open().await?;
    let shown = review::queue(opened.desk(), opened.scope, &args.queue).await?;
    opened.db.close().await;
    if args.json {
        return print_json(&shown);
    }
    let counts = shown.counts;
    print_line(&format!(
        "{} version {}: {} items, {} open ({} reserved), {} to adjudicate, {} done, {} closed",
        shown.name,
        shown.version,
        counts.items,
        counts.open,
        counts.reserved,
        counts.adjudicate,
        counts.done,
        counts.closed
    ))?;
    let figure = |value: Option<f64>| value.map(|value| format!("{value:.2}")).unwrap_or_default();
    let raters = shown.per_rater.iter().map(|rater| {
        vec![
            rater.who.clone(),
            rater.labelled.to_string(),
            rater.skipped.to_string(),
            figure(rater.median_s),
            figure(rater.same),
            figure(rater.kappa),
        ]
    });
    print_table(
        &["RATER", "LABELLED", "SKIPPED", "MEDIAN S", "SAME", "KAPPA"],
        raters.collect(),
    )?;
    let questions = shown.agreement.iter().map(|one| {
        vec![
            one.question.clone(),
            one.kind.name().to_owned(),
            one.n.to_string(),
            figure(one.same),
            figure(one.kappa),
            figure(one.weighted_kappa),
            figure(one.alpha),
        ]
    });
    print_table(
        &[
            "QUESTION", "TYPE", "N", "SAME", "KAPPA", "WEIGHTED", "ALPHA",
        ],
        questions.collect(),
    )
}

impl Fill {
    fn request(&self) -> anyhow::Result<FillRequest> {
        let source = match (&self.dataset, &self.evaluation) {
            (Some(name), _) => json!({"dataset": {"name": name, "split": self.split}}),
            (_, Some(id)) => json!({"evaluation": {
                "id": id, "candidate": self.candidate, "against": self.against,
            }}),
            _ => json!({"traces": {"filter": self.filter, "from": self.from}}),
        };
        let request = json!({
            "source": source, "pick": self.pick, "score": self.score, "threshold": self.threshold,
            "limit": self.limit, "random": self.random, "seed": self.seed,
        });
        serde_json::from_value(request).context("reading what shall come in")
    }
}

async fn fill(args: Fill) -> anyhow::Result<()> {
    let request = args.request()?;
    let filled: Value = match Remote::open(&args.server)? {
        Some(server) => {
            let queue = crate::traces::encode(&args.queue);
            let path = format!("api/v1/review/queues/{queue}/fill");
            server.post(&path, &request).await?
        }
        None => {
            let app = App::open(args.at.place.load(None)?).await.context(
                "opening the data directory; where a server runs on it, name that server with --url",
            )?;
            let scope = operator_scope(&app.db, &args.at.project).await?;
            let filled = review::fill(&app, scope, &args.queue, &request).await;
            app.close().await;
            serde_json::to_value(filled?)?
        }
    };
    if args.json {
        return print_json(&filled);
    }
    message(&format!(
        "{} items came in, {} of them drawn at random from {}; {} were there already, {} were left out",
        filled["added"], filled["drawn"], filled["population"], filled["known"], filled["left_out"]
    ));
    Ok(())
}

async fn export(args: Export) -> anyhow::Result<()> {
    let format = ExportFormat::parse(&args.format)?;
    let opened = args.at.open().await?;
    let text = review::export(opened.desk(), opened.scope, &args.queue, format).await?;
    opened.db.close().await;
    if args.out.as_os_str() == "-" {
        return Ok(std::io::stdout().lock().write_all(text.as_bytes())?);
    }
    std::fs::write(&args.out, text).with_context(|| format!("writing {}", args.out.display()))
}
