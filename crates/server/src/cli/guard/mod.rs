//! `meguri guard check|bench|train`: a policy on a text and on labelled texts, and classifiers
//! that learn.
//!
//! With `--url` a running server answers: its models are asked, its word lists are the project's.
//! Without it this process does, on the data directory, and asks no model: rules that need one
//! are named. A policy in a file needs a data directory only where it names what a project has.

mod print;
mod train;

use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use guard::Point;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use self::print::{Format, Said};
use super::Place;
use super::remote::{Remote, ServerArgs};
use crate::app::{open_catalog, open_database};
use crate::catalog::parse_selector;
use crate::error::AppError;
use crate::guards::asker::unasked;
use crate::guards::check::{self, Beside, Checked, Piece, Subject, point_of};
use crate::guards::measure::{Bench, Measured, What};
use crate::guards::{self, Found, Ready};
use crate::keys::operator_scope;

#[derive(Subcommand)]
pub(super) enum Guard {
    /// Check a text: what is found, and the text as it may go on.
    Check(CheckArgs),
    /// Measure a policy with labelled texts: figures per source, and durations.
    Bench(BenchArgs),
    /// Teach a classifier from labelled texts, such as reviewed finds; rules name it by its digest.
    Train(train::Train),
}

#[derive(Args)]
struct Which {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    server: ServerArgs,
    /// The project; with --url the key says which.
    #[arg(long, default_value = "default")]
    project: String,
    /// The policy's name in the catalog.
    #[arg(required_unless_present = "file", conflicts_with = "file")]
    policy: Option<String>,
    /// The policy's version: a number, `latest`, a label or a digest.
    #[arg(long, default_value = "latest")]
    version: String,
    /// A file with a policy, as JSON, instead of a name. Word lists and classifiers that it names
    /// are the project's.
    #[arg(long)]
    file: Option<PathBuf>,
    /// Where the text stands: input, output, retrieved, tool_arguments or tool_result.
    #[arg(long, default_value = "input", value_parser = parse_point)]
    point: Point,
    /// How to print the result.
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
    /// Print JSON: the same as --format json.
    #[arg(long, conflicts_with = "format")]
    json: bool,
}

#[derive(Args)]
pub(super) struct CheckArgs {
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

impl Guard {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Check(args) => run_check(args).await,
            Self::Bench(args) => run_bench(args).await,
            Self::Train(args) => train::run(args).await,
        }
    }
}

fn parse_point(word: &str) -> Result<Point, String> {
    point_of(word).ok_or_else(|| {
        "no point; input, output, retrieved, tool_arguments or tool_result".to_owned()
    })
}

/// The policy of a file.
fn read_policy(path: &Path) -> anyhow::Result<Value> {
    let reading = || format!("reading the policy in {}", path.display());
    let text = std::fs::read_to_string(path).with_context(reading)?;
    serde_json::from_str(&text).with_context(reading)
}

impl Which {
    fn format(&self) -> Format {
        match self.json {
            true => Format::Json,
            false => self.format,
        }
    }

    /// The policy, ready to run in this process.
    async fn find(&self) -> anyhow::Result<Found> {
        let content = match &self.file {
            Some(path) => Some(read_policy(path)?),
            None => None,
        };
        if let Some(content) = &content
            && !guards::needs_a_project(content)
        {
            return Ok(Found::nameless(compile_alone(content)?));
        }
        let config = self.place.load(None)?;
        let db = open_database(&config).await?;
        let scope = operator_scope(&db, &self.project).await?;
        let catalog = open_catalog(&config, &db)?;
        let found = match content {
            Some(content) => Found::inline(&catalog, scope, &content).await,
            None => {
                let name = guards::parse_name(self.policy.as_deref().unwrap_or_default())?;
                let version = parse_selector(&self.version)?;
                guards::find(&catalog, scope, &name, &version).await
            }
        };
        db.close().await;
        Ok(found?)
    }

    /// Asks a server: the policy and the point, with what else the question has.
    async fn ask<T: DeserializeOwned>(
        &self,
        server: &Remote,
        path: &str,
        rest: Value,
    ) -> anyhow::Result<T> {
        let mut body = Map::from_iter([("point".to_owned(), json!(self.point))]);
        match &self.file {
            Some(path) => body.insert("policy".to_owned(), read_policy(path)?),
            None => {
                body.insert("version".to_owned(), json!(self.version));
                body.insert("policy".to_owned(), json!(self.policy))
            }
        };
        if let Value::Object(rest) = rest {
            body.extend(rest.into_iter().filter(|(_, value)| !value.is_null()));
        }
        server.post(path, &body).await
    }
}

fn compile_alone(content: &Value) -> anyhow::Result<Ready> {
    let ready = guards::compile(content).map_err(db::CatalogError::Invalid);
    Ok(ready.map_err(AppError::from)?)
}

async fn run_check(args: CheckArgs) -> anyhow::Result<()> {
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
    let which = &args.which;
    let said: Said<Checked> = match Remote::open(&which.server)? {
        Some(server) => {
            let rest = json!({"text": text, "context": beside});
            let what = which.ask(&server, "api/v1/guard/check", rest).await?;
            Said::by_server(what)
        }
        None => {
            let found = which.find().await?;
            let subject = Subject::Text(Piece::new(which.point, text));
            Said {
                what: check::check(&found, subject, &beside, None).await?,
                unasked: unasked(&found.ready),
            }
        }
    };
    said.print(which.format(), print::checked_table)
}

async fn run_bench(args: BenchArgs) -> anyhow::Result<()> {
    let which = &args.which;
    let said: Said<Measured> = match Remote::open(&which.server)? {
        Some(server) => {
            let lines: Result<Vec<String>, _> =
                args.sets.iter().map(|path| read_set(path)).collect();
            let rest = json!({"rule": args.rule, "jsonl": lines?.join("\n")});
            let what = which.ask(&server, "api/v1/guard/measure", rest).await?;
            Said::by_server(what)
        }
        None => bench_here(which, args.rule, &args.sets).await?,
    };
    said.print(which.format(), print::measured_table)
}

fn reading_set(path: &Path) -> String {
    format!("reading the labelled texts in {}", path.display())
}

fn read_set(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| reading_set(path))
}

async fn bench_here(
    which: &Which,
    rule: Option<String>,
    sets: &[PathBuf],
) -> anyhow::Result<Said<Measured>> {
    let found = which.find().await?;
    let mut items = Vec::new();
    for path in sets {
        let texts = guard::bench::read_items(&read_set(path)?);
        items.extend(texts.with_context(|| reading_set(path))?);
    }
    anyhow::ensure!(
        !items.is_empty(),
        "there are no labelled texts in these files"
    );
    let what = What {
        point: which.point,
        rule,
    };
    let bench = Bench::new(&found.ready, what)?;
    let measuring = tokio::task::spawn_blocking(move || {
        let seen = items.iter().map(|item| bench.one(item)).collect();
        bench.measured(seen)
    });
    Ok(Said {
        what: measuring.await.context("measuring the policy")?,
        unasked: unasked(&found.ready),
    })
}
