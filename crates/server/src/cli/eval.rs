//! `meguri eval run FILE`: runs a suite, prints what it has shown, and ends with 4 when a
//! gate does not hold.
//!
//! With `--url` a running server does the work, as a pipeline for pull requests wants it;
//! without it this process does, on a data directory that no server uses.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use clap::{Args, Subcommand, ValueEnum};
use gateway::egress::{Allow, read_capped, uri_of};
use gateway::{Egress, EgressConfig};
use http_body_util::Full;
use serde_json::{Map, Value, json};
use tokio::task::JoinSet;

use super::{Place, message, print_json, print_line, print_table};
use crate::app::App;
use crate::config::environment;
use crate::evaluations::{self, StartRequest};
use crate::keys::operator_scope;

/// How often progress is asked for.
const POLL: Duration = Duration::from_millis(500);
/// How long one answer of the server may take.
const ANSWER: Duration = Duration::from_secs(60);
const ANSWER_BYTES: usize = 64 << 20;
/// How long background work may end.
const END: Duration = Duration::from_secs(20);

#[derive(Subcommand)]
pub(super) enum Eval {
    /// Run a suite and print what it has shown.
    Run(Run),
}

/// How results are printed.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people.
    Table,
    /// Everything, as the API answers.
    Json,
    /// Each gate as a test case.
    Junit,
    /// For a pull request's comment.
    Markdown,
}

#[derive(Args)]
pub(super) struct Run {
    #[command(flatten)]
    place: Place,
    /// The project; without --url.
    #[arg(long, default_value = "default")]
    project: String,
    /// A running server that does the work; its key is in MEGURI_API_KEY.
    #[arg(long)]
    url: Option<String>,
    /// A bound that an evaluator's interval must reach, as EVALUATOR=VALUE.
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
        }
    }
}

impl Run {
    async fn run(self) -> anyhow::Result<()> {
        let request = self.request()?;
        let shown = match &self.url {
            Some(url) => self.at_server(url, &request).await?,
            None => self.in_process(&request).await?,
        };
        let state = shown["evaluation"]["state"].as_str().unwrap_or_default();
        print(&shown, self.format)?;
        if state != "done" {
            bail!(
                "the evaluation is {state}: {}",
                shown["evaluation"]["reason"].as_str().unwrap_or_default()
            );
        }
        let gates = shown["gates"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        let open = gates
            .iter()
            .filter(|gate| gate["outcome"] != "pass")
            .count();
        if open > 0 {
            return Err(GateFailed(open, gates.len()).into());
        }
        Ok(())
    }

    /// What is to be started.
    fn request(&self) -> anyhow::Result<Value> {
        let path = Path::new(&self.suite);
        let changed = !self.fail_under.is_empty() || self.base.is_some();
        if !path.is_file() {
            if changed {
                bail!(
                    "--fail-under, --base and --head need the suite as a file; {} is none",
                    self.suite
                );
            }
            return Ok(json!({"suite": self.suite}));
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
        Ok(json!({"document": document}))
    }

    /// Lets a running server do the work.
    async fn at_server(&self, url: &str, request: &Value) -> anyhow::Result<Value> {
        let server = Server {
            egress: Egress::new(EgressConfig::default()),
            base: base::net::parse_base_url(url)?,
            key: environment("MEGURI_API_KEY")
                .context("the environment variable MEGURI_API_KEY is not set")?,
        };
        let started = server
            .call("POST", "/api/v1/evaluations", Some(request))
            .await?;
        let id = started["id"]
            .as_str()
            .context("the server's answer has no id")?
            .to_owned();
        let path = format!("/api/v1/evaluations/{id}");
        let mut told = 0;
        loop {
            let shown = server.call("GET", &path, None).await?;
            if is_over(&shown["evaluation"]) {
                return Ok(shown);
            }
            tell(&shown["evaluation"], &mut told);
            tokio::time::sleep(POLL).await;
        }
    }

    /// Does the work here.
    async fn in_process(&self, request: &Value) -> anyhow::Result<Value> {
        let app = App::open(self.place.load(None)?).await.context(
            "opening the data directory (where a server runs on it, name that server with --url)",
        )?;
        let scope = operator_scope(&app.db, &self.project).await?;
        let mut background = JoinSet::new();
        app.start_background(&mut background);
        let done = follow(&app, scope, request).await;
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

async fn follow(app: &App, scope: db::Scope, request: &Value) -> anyhow::Result<Value> {
    let request: StartRequest = serde_json::from_value(request.clone())?;
    let started = serde_json::to_value(evaluations::start_json(app, scope, &request).await?)?;
    let id = started["id"].as_str().unwrap_or_default().to_owned();
    let mut told = 0;
    loop {
        let shown = serde_json::to_value(evaluations::show_json(app, scope, &id).await?)?;
        if is_over(&shown["evaluation"]) {
            return Ok(shown);
        }
        tell(&shown["evaluation"], &mut told);
        tokio::time::sleep(POLL).await;
    }
}

fn is_over(evaluation: &Value) -> bool {
    // A paused one waits for somebody; a pipeline has nobody.
    ["done", "failed", "stopped", "paused"]
        .iter()
        .any(|state| evaluation["state"] == *state)
}

/// Says how far it is, at every tenth part.
fn tell(evaluation: &Value, told: &mut i64) {
    let count = |name: &str| evaluation["counters"][name].as_i64().unwrap_or(0);
    let done = count("answers_ok") + count("answers_failed");
    let tenth = 10 * done / count("answers_total").max(1);
    if tenth > *told {
        *told = tenth;
        message(&format!("{done} of {} answers", count("answers_total")));
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

/// A running server.
struct Server {
    egress: Egress,
    base: url::Url,
    key: String,
}

impl Server {
    async fn call(&self, method: &str, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        let mut url = self.base.clone();
        let prefix = url.path().trim_end_matches('/').to_owned();
        url.set_path(&format!("{prefix}{path}"));
        let text = body.map(ToString::to_string).unwrap_or_default();
        let request = http::Request::builder()
            .method(method)
            .uri(uri_of(&url)?)
            .header(http::header::AUTHORIZATION, format!("Bearer {}", self.key))
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(text)))?;
        // Whoever runs this command chose the server, wherever it is.
        let response = self.egress.send(request, Allow::Private, ANSWER).await?;
        let (head, mut body) = response.into_parts();
        let bytes = read_capped(&mut body, ANSWER_BYTES, ANSWER).await?;
        let answer: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        if head.status.is_success() {
            return Ok(answer);
        }
        let error = &answer["error"];
        let at = error["at"]
            .as_str()
            .map(|at| format!("{at}: "))
            .unwrap_or_default();
        bail!(
            "the server answered {}: {at}{}",
            head.status.as_u16(),
            error["message"].as_str().unwrap_or("without a reason")
        )
    }
}

/// A row of the matrix.
struct Line {
    evaluator: String,
    candidate: String,
    value: String,
    interval: String,
    scored: String,
    verdict: String,
}

fn lines(shown: &Value) -> Vec<Line> {
    let mut lines = Vec::new();
    for evaluator in shown["results"]["evaluators"]
        .as_array()
        .into_iter()
        .flatten()
    {
        for cell in evaluator["cells"].as_array().into_iter().flatten() {
            let number = |value: &Value| value.as_f64().map(|value| format!("{value:.3}"));
            let (low, high) = (number(&cell["low"]), number(&cell["high"]));
            let count = |name: &str| cell[name].as_u64().unwrap_or(0);
            let compared = &cell["comparison"];
            let verdict = compared["verdict"].as_str().map(|verdict| {
                let difference = compared["difference"].as_f64().unwrap_or(0.0);
                let ends = number(&compared["low"]).zip(number(&compared["high"]));
                let ends = ends
                    .map(|(low, high)| format!(" ({low} … {high})"))
                    .unwrap_or_default();
                format!("{}: {difference:+.3}{ends}", verdict.replace('_', " "))
            });
            lines.push(Line {
                evaluator: text(&evaluator["name"]),
                candidate: text(&cell["candidate"]),
                value: number(&cell["value"]).unwrap_or_else(|| "–".to_owned()),
                interval: low
                    .zip(high)
                    .map(|(low, high)| format!("{low} … {high}"))
                    .unwrap_or_default(),
                scored: format!(
                    "{}/{}",
                    count("scored"),
                    count("scored") + count("errors") + count("unscored")
                ),
                verdict: verdict.unwrap_or_default(),
            });
        }
    }
    lines
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

const HEADER: [&str; 6] = [
    "evaluator",
    "candidate",
    "value",
    "95 % interval",
    "scored",
    "beside the baseline",
];

fn print(shown: &Value, format: Format) -> anyhow::Result<()> {
    match format {
        Format::Json => print_json(shown),
        Format::Table => {
            let rows = lines(shown).into_iter();
            let rows = rows.map(|l| {
                vec![
                    l.evaluator,
                    l.candidate,
                    l.value,
                    l.interval,
                    l.scored,
                    l.verdict,
                ]
            });
            print_table(&HEADER, rows.collect())?;
            for gate in shown["gates"].as_array().into_iter().flatten() {
                print_line(&gate_line(gate))?;
            }
            Ok(())
        }
        Format::Markdown => markdown(shown).lines().try_for_each(print_line),
        Format::Junit => junit(shown).lines().try_for_each(print_line),
    }
}

fn gate_line(gate: &Value) -> String {
    format!(
        "{}: {} {} {}: {}",
        text(&gate["outcome"]),
        text(&gate["candidate"]),
        text(&gate["evaluator"]),
        text(&gate["rule"]).replace('_', " "),
        text(&gate["reason"])
    )
}

/// Text inside of a Markdown table.
fn cell(text: &str) -> String {
    let escaped = text
        .replace('\\', "\\\\")
        .replace('|', "\\|")
        .replace('<', "&lt;");
    escaped.replace(['\n', '\r'], " ")
}

fn markdown(shown: &Value) -> String {
    let evaluation = &shown["evaluation"];
    let mut out = format!(
        "### Evaluation{}\n\n{} examples of `{}` version {}, {} answers, {} errors\n\n",
        match evaluation["suite"].as_str() {
            Some("") | None => String::new(),
            Some(suite) => format!(" `{}`", cell(suite)),
        },
        evaluation["counters"]["examples"],
        cell(&text(&evaluation["dataset"]["name"])),
        evaluation["dataset"]["version"],
        evaluation["counters"]["answers_ok"],
        evaluation["counters"]["answers_failed"],
    );
    out.push_str(&format!(
        "| {} |\n|{}\n",
        HEADER.join(" | "),
        "---|".repeat(HEADER.len())
    ));
    for line in lines(shown) {
        let cells = [
            line.evaluator,
            line.candidate,
            line.value,
            line.interval,
            line.scored,
            line.verdict,
        ];
        out.push_str(&format!(
            "| {} |\n",
            cells.map(|text| cell(&text)).join(" | ")
        ));
    }
    let gates = shown["gates"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    if !gates.is_empty() {
        out.push_str("\n**Gates**\n\n");
        for gate in gates {
            let mark = if gate["outcome"] == "pass" { "x" } else { " " };
            out.push_str(&format!("- [{mark}] {}\n", cell(&gate_line(gate))));
        }
    }
    out
}

fn xml(text: &str) -> String {
    let clean: String = text
        .chars()
        .filter(|c| !c.is_control() || *c == '\n')
        .collect();
    clean
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

fn junit(shown: &Value) -> String {
    let gates = shown["gates"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    let open = gates
        .iter()
        .filter(|gate| gate["outcome"] != "pass")
        .count();
    let suite = match shown["evaluation"]["suite"].as_str() {
        Some("") | None => "evaluation",
        Some(suite) => suite,
    };
    let mut out = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n<testsuite name=\"{}\" tests=\"{}\" failures=\"{open}\" errors=\"0\">\n",
        xml(suite),
        gates.len()
    );
    for gate in gates {
        let name = format!(
            "{} {} {}",
            text(&gate["evaluator"]),
            text(&gate["rule"]),
            gate["limit"]
        );
        let head = format!(
            "<testcase classname=\"{}\" name=\"{}\"",
            xml(&text(&gate["candidate"])),
            xml(&name)
        );
        match gate["outcome"].as_str() {
            Some("pass") => out.push_str(&format!("{head}/>\n")),
            outcome => out.push_str(&format!(
                "{head}><failure type=\"{}\" message=\"{}\"/></testcase>\n",
                xml(outcome.unwrap_or_default()),
                xml(&text(&gate["reason"]))
            )),
        }
    }
    out.push_str("</testsuite>\n</testsuites>\n");
    out
}
