//! `meguri guard check|bench`: a policy on a text, and on labelled texts, without a server. The
//! policy is one of the catalog in the data directory, or a file; with a file no data directory
//! is needed.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use db::CatalogError;
use guard::Point;
use guard::classify::Task;
use serde_json::Value;

use super::{Place, message, print_json, print_line, print_table};
use crate::app::{open_catalog, open_database};
use crate::catalog::parse_selector;
use crate::datasets::Datasets;
use crate::error::AppError;
use crate::guards::check::{self, Beside, Checked, Piece, Subject, point_of};
use crate::guards::measure::{self, Bench, Curve, CurvePoint, Measured, What};
use crate::guards::train::{self, Asked};
use crate::guards::{self, Found};
use crate::keys::operator_scope;

#[derive(Subcommand)]
pub(super) enum Guard {
    /// Check a text: what is found, and the text as it may go on.
    Check(Check),
    /// Measure a policy with labelled texts: figures per source, and durations on this machine.
    Bench(BenchArgs),
    /// Teach a classifier from labelled texts, such as reviewed finds; rules name it by its digest.
    Train(TrainArgs),
}

#[derive(Args)]
struct Which {
    #[command(flatten)]
    place: Place,
    /// The project.
    #[arg(long, default_value = "default")]
    project: String,
    /// The policy's name in the catalog.
    #[arg(required_unless_present = "file", conflicts_with = "file")]
    policy: Option<String>,
    /// The policy's version: a number, `latest`, a label or a digest.
    #[arg(long, default_value = "latest")]
    version: String,
    /// A file with a policy, as JSON, instead of a name.
    #[arg(long)]
    file: Option<PathBuf>,
    /// Where the text stands: input, output, retrieved, tool_arguments or tool_result.
    #[arg(long, default_value = "input")]
    point: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub(super) struct Check {
    #[command(flatten)]
    which: Which,
    /// The text; what stdin says when nothing is given.
    #[arg(long)]
    text: Option<String>,
    /// The system prompt, for rules about leaks of it.
    #[arg(long)]
    system: Option<String>,
}

#[derive(Args)]
pub(super) struct BenchArgs {
    #[command(flatten)]
    which: Which,
    /// Labelled texts, one JSON object a line: {"text", "label", "source", "language"}.
    #[arg(long = "set", required = true)]
    sets: Vec<PathBuf>,
    /// Only this rule, with what each threshold would give.
    #[arg(long)]
    rule: Option<String>,
}

#[derive(Args)]
pub(super) struct TrainArgs {
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

async fn run_train(args: TrainArgs) -> anyhow::Result<()> {
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

impl Guard {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Check(args) => run_check(args).await,
            Self::Bench(args) => run_bench(args).await,
            Self::Train(args) => run_train(args).await,
        }
    }
}

impl Which {
    async fn find(&self) -> anyhow::Result<Found> {
        if let Some(path) = &self.file {
            return of_file(path);
        }
        let config = self.place.load(None)?;
        let db = open_database(&config).await?;
        let scope = operator_scope(&db, &self.project).await?;
        let catalog = open_catalog(&config, &db)?;
        let name = guards::parse_name(self.policy.as_deref().unwrap_or_default())?;
        let version = parse_selector(&self.version)?;
        let found = guards::find(&catalog, scope, &name, &version).await;
        db.close().await;
        Ok(found?)
    }

    fn point(&self) -> Result<Point, AppError> {
        point_of(&self.point).ok_or_else(|| {
            let why = format!("{:?} is no point of a call", self.point);
            AppError::invalid(why).hint("input, output, retrieved, tool_arguments or tool_result")
        })
    }
}

fn of_file(path: &Path) -> anyhow::Result<Found> {
    let reading = || format!("reading the policy in {}", path.display());
    let text = std::fs::read_to_string(path).with_context(reading)?;
    let content: Value = serde_json::from_str(&text).with_context(reading)?;
    let ready = guards::compile(&content)
        .map_err(|problems| AppError::from(CatalogError::Invalid(problems)));
    Ok(Found {
        name: String::new(),
        number: 0,
        digest: None,
        ready: ready?,
    })
}

async fn run_check(args: Check) -> anyhow::Result<()> {
    let (found, point) = (args.which.find().await?, args.which.point()?);
    let text = match args.text {
        Some(text) => text,
        None => {
            let mut text = String::new();
            let mut stdin = std::io::stdin();
            stdin
                .read_to_string(&mut text)
                .context("reading the text from stdin")?;
            text
        }
    };
    let beside = Beside {
        system: args.system,
        ..Beside::default()
    };
    let subject = Subject::Text(Piece::new(point, text));
    let checked = check::check(&found, subject, &beside, None).await?;
    if args.which.json {
        return print_json(&checked);
    }
    print_checked(&checked)
}

fn print_checked(checked: &Checked) -> anyhow::Result<()> {
    let rows = checked.findings.iter().map(|finding| {
        vec![
            finding.rule.clone(),
            finding.detector.clone(),
            finding.tier.clone(),
            format!("{:.2}", finding.score),
            format!("{}–{}", finding.start_char, finding.end_char),
            finding.outcome.clone(),
            finding.reason.clone(),
        ]
    });
    let header = [
        "RULE",
        "FOUND",
        "TIER",
        "SCORE",
        "CHARACTERS",
        "DONE",
        "WHY",
    ];
    print_table(&header, rows.collect())?;
    let timing = checked.timing_us;
    message(&format!(
        "{}: rules {} µs, linear {} µs",
        checked.decision.name(),
        timing.rules,
        timing.linear
    ));
    print_line(checked.text.as_deref().unwrap_or_default())
}

async fn run_bench(args: BenchArgs) -> anyhow::Result<()> {
    let (found, point) = (args.which.find().await?, args.which.point()?);
    let mut items = Vec::new();
    for path in &args.sets {
        let reading = || format!("reading the labelled texts in {}", path.display());
        let text = std::fs::read_to_string(path).with_context(reading)?;
        items.extend(guard::bench::read_items(&text).with_context(reading)?);
    }
    anyhow::ensure!(
        !items.is_empty(),
        "there are no labelled texts in these files"
    );
    let what = What {
        point,
        rule: args.rule,
    };
    let bench = Bench::new(&found.ready, what)?;
    let measuring = tokio::task::spawn_blocking(move || {
        let outcomes: Vec<_> = items.iter().map(|item| bench.one(item)).collect();
        bench.measured(&outcomes)
    });
    let measured = measuring.await.context("measuring the policy")?;
    if args.which.json {
        return print_json(&measured);
    }
    print_measured(&measured)
}

fn print_measured(measured: &Measured) -> anyhow::Result<()> {
    for line in measured.report.markdown().lines() {
        print_line(line)?;
    }
    message("* against the benign texts of all sources: this one has too few of its own");
    match &measured.curve {
        Some(curve) => print_curve(curve),
        None => Ok(()),
    }
}

fn print_curve(curve: &Curve) -> anyhow::Result<()> {
    let percent = |share: Option<f64>| match share {
        Some(share) => format!("{:.1} %", share * 100.0),
        None => "–".to_owned(),
    };
    let row = |note: &str, point: &CurvePoint| {
        vec![
            format!("{:.2}", point.threshold),
            percent(point.recall),
            percent(point.precision),
            percent(point.false_positive_rate),
            note.to_owned(),
        ]
    };
    let suggested = curve
        .suggested
        .iter()
        .map(|point| row("1 % false positives", point));
    let rows = std::iter::once(row("in force", &curve.current)).chain(suggested);
    let every_tenth = curve
        .points
        .iter()
        .skip(4)
        .step_by(5)
        .map(|point| row("", point));
    let header = ["THRESHOLD", "RECALL", "PRECISION", "FALSE POSITIVES", ""];
    print_table(&header, rows.chain(every_tenth).collect())
}
