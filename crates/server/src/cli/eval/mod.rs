//! `meguri eval run FILE`: runs a suite, prints what it has shown, and ends with 4 when a
//! gate does not hold. `meguri eval import FILE` makes a suite of another tool's file.
//!
//! With `--url` a running server does the work, as a pipeline for pull requests wants it;
//! without it this process does, on a data directory that no server uses.

mod import;
mod report;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use db::Scope;
use serde_json::{Map, Value, json};
use tokio::task::JoinSet;

use self::report::Format;
use super::remote::{Remote, ServerArgs};
use super::{Place, message};
use crate::app::App;
use crate::evaluations::{self, EvaluationJson, Shown, StartRequest, State};
use crate::keys::operator_scope;

/// How often progress is asked for.
const POLL: Duration = Duration::from_millis(500);
/// How long background work may end.
const END: Duration = Duration::from_secs(20);

#[derive(Subcommand)]
pub(super) enum Eval {
    /// Run a suite and print what it has shown.
    Run(Run),
    /// Make a dataset and a suite of another tool's test file: promptfoo's, or rows of OpenAI's evals.
    Import(import::Import),
}

#[derive(Args)]
pub(super) struct Run {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    server: ServerArgs,
    /// The project; with --url the key says which.
    #[arg(long, default_value = "default")]
    project: String,
    /// A bound that an evaluator's interval must reach, as EVALUATOR=VALUE: of the only
    /// candidate, or of each that is not the baseline.
    #[arg(long = "fail-under", value_name = "EVALUATOR=VALUE")]
    fail_under: Vec<String>,
    /// Compare two versions instead of the suite's candidates: the one to compare with,
    /// as a reference or a file with a prompt's document.
    #[arg(long, requires = "head")]
    base: Option<String>,
    /// The version that is new.
    #[arg(long, requires = "base")]
    head: Option<String>,
    /// How to print the result.
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
    /// The suite: a TOML or JSON file, or the name of a suite of the catalog.
    suite: String,
}

/// A gate did not hold: the exit code is 4.
#[derive(Debug, thiserror::Error)]
#[error("{0} of {1} gates do not hold")]
pub(super) struct GateFailed(usize, usize);

impl Eval {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Run(run) => run.run().await,
            Self::Import(import) => import.run().await,
        }
    }
}

impl Run {
    async fn run(self) -> anyhow::Result<()> {
        let request = self.request()?;
        let shown = match Remote::open(&self.server)? {
            Some(server) => Work::Server(&server).follow(&request).await?,
            None => self.in_process(&request).await?,
        };
        report::print(&shown, self.format)?;
        let evaluation = &shown.evaluation;
        if evaluation.state != State::Done {
            bail!(
                "the evaluation is {}: {}",
                evaluation.state.name(),
                evaluation.reason
            );
        }
        let open = shown.gates.iter().filter(|gate| !gate.holds()).count();
        match open {
            0 => Ok(()),
            _ => Err(GateFailed(open, shown.gates.len()).into()),
        }
    }

    /// What is to be started.
    fn request(&self) -> anyhow::Result<StartRequest> {
        let path = Path::new(&self.suite);
        let changed = !self.fail_under.is_empty() || self.base.is_some();
        if !path.is_file() {
            if changed {
                bail!(
                    "--fail-under, --base and --head need the suite as a file; {} is none",
                    self.suite
                );
            }
            return Ok(StartRequest {
                suite: Some(self.suite.clone()),
                ..StartRequest::default()
            });
        }
        let mut document = read_document(path)?;
        if let (Some(base), Some(head)) = (&self.base, &self.head) {
            compare_versions(&mut document, base, head)?;
        }
        for text in &self.fail_under {
            let (evaluator, bound) = text
                .split_once('=')
                .with_context(|| format!("{text:?} is not EVALUATOR=VALUE"))?;
            let bound: f64 = bound
                .parse()
                .with_context(|| format!("{bound:?} is no number"))?;
            let gates = document.entry("gate").or_insert_with(|| json!([]));
            if let Some(gates) = gates.as_array_mut() {
                gates.push(json!({"evaluator": evaluator, "at_least": bound}));
            }
        }
        Ok(StartRequest {
            document: Some(Value::Object(document)),
            ..StartRequest::default()
        })
    }

    /// Does the work here.
    async fn in_process(&self, request: &StartRequest) -> anyhow::Result<Shown> {
        let app = App::open(self.place.load(None)?).await.context(
            "opening the data directory; where a server runs on it, name that server with --url",
        )?;
        let scope = operator_scope(&app.db, &self.project).await?;
        let mut background = JoinSet::new();
        app.start_background(&mut background);
        let done = Work::Here(&app, scope).follow(request).await;
        let _ = app.stopping.send(true);
        let ended = tokio::time::timeout(END, async {
            while background.join_next().await.is_some() {}
        });
        if ended.await.is_err() {
            background.shutdown().await;
        }
        app.close().await;
        done
    }
}

/// Who does the work.
enum Work<'a> {
    Server(&'a Remote),
    Here(&'a App, Scope),
}

impl Work<'_> {
    /// Starts what is asked for and waits until it goes no further.
    async fn follow(&self, request: &StartRequest) -> anyhow::Result<Shown> {
        let id = self.start(request).await?.id;
        let mut told = 0;
        loop {
            let shown = self.show(&id).await?;
            // A paused one waits for somebody; a pipeline has nobody.
            if shown.evaluation.state.is_final() || shown.evaluation.state == State::Paused {
                return Ok(shown);
            }
            tell(&shown.evaluation, &mut told);
            tokio::time::sleep(POLL).await;
        }
    }

    async fn start(&self, request: &StartRequest) -> anyhow::Result<EvaluationJson> {
        match self {
            Self::Server(server) => server.post("api/v1/evaluations", request).await,
            Self::Here(app, scope) => Ok(evaluations::start_json(app, *scope, request).await?),
        }
    }

    async fn show(&self, id: &str) -> anyhow::Result<Shown> {
        match self {
            Self::Server(server) => server.get(&format!("api/v1/evaluations/{id}")).await,
            Self::Here(app, scope) => Ok(evaluations::show_json(app, *scope, id).await?),
        }
    }
}

/// Says how far it is, at every tenth part.
fn tell(evaluation: &EvaluationJson, told: &mut i64) {
    let counters = &evaluation.counters;
    let answered = counters.answers_ok + counters.answers_failed;
    let scored = counters.scores_ok + counters.scores_error + counters.scores_unscored;
    let total = counters.answers_total + counters.scores_total;
    let tenth = 10 * (answered + scored) / total.max(1);
    if tenth > *told {
        *told = tenth;
        message(&format!(
            "{answered} of {} answers, {scored} of {} scores",
            counters.answers_total, counters.scores_total
        ));
    }
}

fn read_document(path: &Path) -> anyhow::Result<Map<String, Value>> {
    let failed = || format!("reading {}", path.display());
    let text = std::fs::read_to_string(path).with_context(failed)?;
    let is_json = path.extension().is_some_and(|end| end == "json");
    let value: Value = match is_json {
        true => serde_json::from_str(&text).with_context(failed)?,
        false => toml::from_str(&text).with_context(failed)?,
    };
    // A file of a tree has its document in a table of its own.
    let value = match value.get("document") {
        Some(inner) if value.get("dataset").is_none() => inner.clone(),
        _ => value,
    };
    match value {
        Value::Object(document) => Ok(document),
        _ => bail!("{} is no suite", path.display()),
    }
}

/// Puts two versions of a prompt in the place of the suite's candidates; all else is
/// that of the first candidate.
fn compare_versions(
    document: &mut Map<String, Value>,
    base: &str,
    head: &str,
) -> anyhow::Result<()> {
    let first = document
        .get("candidates")
        .and_then(|candidates| candidates.get(0))
        .cloned();
    let first = first
        .and_then(|first| first.as_object().cloned())
        .unwrap_or_default();
    let of = |name: &str, version: &str| -> anyhow::Result<Value> {
        let mut candidate = first.clone();
        candidate.insert("name".to_owned(), json!(name));
        let path = PathBuf::from(version);
        let prompt = match path.is_file() {
            true => Value::Object(read_document(&path)?),
            false => json!(version),
        };
        candidate.insert("prompt".to_owned(), prompt);
        Ok(Value::Object(candidate))
    };
    let candidates = json!([of("base", base)?, of("head", head)?]);
    document.insert("candidates".to_owned(), candidates);
    document.insert("baseline".to_owned(), json!("base"));
    Ok(())
}
