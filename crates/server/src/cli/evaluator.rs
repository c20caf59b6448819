//! `meguri evaluator push|try`: evaluators that are modules of WebAssembly.
//!
//! `push` works on the data directory or on a running server. `try` needs neither: it runs a
//! module on one example exactly as an evaluation would.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use base::Digest;
use clap::{Args, Subcommand, ValueEnum};
use db::{Name, NewVersion};
use serde_json::{Map, Value, json};

use super::remote::{Remote, ServerArgs};
use super::{Place, message, print_json};
use crate::app::{open_catalog, open_database};
use crate::error::AppError;
use crate::evaluators::wasm::{self, MODULE_BYTES, WasmEvaluator};
use crate::evaluators::{self, Direction, EvaluatorDocument, Kept};
use crate::keys::operator_scope;

const DEFAULT_PROJECT: &str = "default";

#[derive(Subcommand)]
#[expect(
    clippy::large_enum_variant,
    reason = "one of them is made, once, by each command"
)]
pub(super) enum Evaluator {
    /// Keep a WebAssembly module and save a version of an evaluator that runs it.
    Push(Push),
    /// Run a WebAssembly module on one example, here, and print its reply.
    Try(Try),
}

/// How a module is run.
#[derive(Args)]
struct Limits {
    /// How much it may compute; an instruction takes about one.
    #[arg(long)]
    fuel: Option<u64>,
    /// How much memory it may have, in MiB.
    #[arg(long)]
    memory_mib: Option<u32>,
    /// What it is told each time: a JSON object.
    #[arg(long, value_name = "JSON")]
    parameters: Option<String>,
}

/// Which direction is good.
#[derive(Clone, Copy, ValueEnum)]
enum Better {
    Higher,
    Lower,
}

#[derive(Args)]
pub(super) struct Push {
    #[command(flatten)]
    place: Place,
    /// The project; `default` unless said. With --url the key decides.
    #[arg(long, conflicts_with = "url")]
    project: Option<String>,
    #[command(flatten)]
    server: ServerArgs,
    /// The module, a .wasm file.
    file: PathBuf,
    /// The evaluator to save a version of.
    #[arg(long)]
    name: Name,
    /// What people should know of it.
    #[arg(long, default_value = "")]
    description: String,
    #[command(flatten)]
    limits: Limits,
    /// Which direction is good.
    #[arg(long, value_enum, default_value = "higher")]
    better: Better,
    /// Why, for the history.
    #[arg(long, default_value = "")]
    message: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub(super) struct Try {
    /// The module, a .wasm file.
    file: PathBuf,
    /// The example: a file of JSON with `input`, `expected`, `context`, `metadata` and `answer`; - is stdin.
    #[arg(long, value_name = "FILE")]
    example: Option<PathBuf>,
    /// The answer, in place of the example's.
    #[arg(long)]
    answer: Option<String>,
    #[command(flatten)]
    limits: Limits,
}

impl Evaluator {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Push(push) => push.run().await,
            Self::Try(try_it) => try_it.run(),
        }
    }
}

impl Push {
    async fn run(self) -> anyhow::Result<()> {
        let bytes = read_module(&self.file)?;
        let mut wasm = self.limits.on(Digest::of(&bytes))?;
        wasm.description.clone_from(&self.description);
        wasm.better = match self.better {
            Better::Higher => Direction::Higher,
            Better::Lower => Direction::Lower,
        };
        let content = EvaluatorDocument::Wasm(wasm).to_value();
        let (kept, version) = match Remote::open(&self.server)? {
            Some(server) => self.push_to(&server, bytes, &content).await?,
            None => self.push_here(bytes, &content).await?,
        };
        if self.json {
            return print_json(&json!({
                "digest": kept.digest, "bytes": kept.bytes, "already_existed": kept.already_existed,
                "name": self.name, "version": version,
            }));
        }
        message(&format!("kept {} as {}", self.file.display(), kept.digest));
        message(&format!(
            "saved the evaluator {}, version {version}",
            self.name
        ));
        Ok(())
    }

    async fn push_here(&self, bytes: Vec<u8>, content: &Value) -> anyhow::Result<(Kept, i64)> {
        let config = self.place.load(None)?;
        let db = open_database(&config).await?;
        let catalog = open_catalog(&config, &db)?;
        let project = self.project.as_deref().unwrap_or(DEFAULT_PROJECT);
        let scope = operator_scope(&db, project).await?;
        let kept = evaluators::keep(&db, &catalog, scope, bytes).await?;
        let new = NewVersion {
            kind: evaluators::KIND,
            name: &self.name,
            content,
            message: &self.message,
        };
        let saved = catalog.save_version(scope, new).await;
        let saved = saved.map_err(AppError::from)?;
        db.close().await;
        Ok((kept, saved.version.number))
    }

    async fn push_to(
        &self,
        server: &Remote,
        bytes: Vec<u8>,
        content: &Value,
    ) -> anyhow::Result<(Kept, i64)> {
        let kept = server.keep_module(bytes).await?;
        let name: String =
            url::form_urlencoded::byte_serialize(self.name.as_str().as_bytes()).collect();
        let path = format!("api/v1/catalog/{}/{name}/versions", evaluators::KIND);
        let body = json!({"content": content, "message": self.message});
        let saved: Value = server.post(&path, &body).await?;
        let number = saved["version"].as_i64();
        Ok((kept, number.context("the server names no version")?))
    }
}

impl Limits {
    /// The evaluator of a module, as its document is checked when it is saved.
    fn on(&self, module: Digest) -> anyhow::Result<WasmEvaluator> {
        let mut wasm = WasmEvaluator::new(module.to_string());
        wasm.fuel = self.fuel.unwrap_or(wasm.fuel);
        wasm.memory_mib = self.memory_mib.unwrap_or(wasm.memory_mib);
        if let Some(text) = &self.parameters {
            wasm.parameters =
                serde_json::from_str(text).context("--parameters is no JSON object")?;
        }
        let document = EvaluatorDocument::Wasm(wasm.clone());
        if let Err(problems) = EvaluatorDocument::parse(&document.to_value()) {
            let lines: Vec<String> = problems.into_iter().map(|one| one.to_string()).collect();
            bail!("{}", lines.join("\n"));
        }
        Ok(wasm)
    }
}

impl Try {
    fn run(self) -> anyhow::Result<()> {
        let bytes = read_module(&self.file)?;
        let wasm = self.limits.on(Digest::of(&bytes))?;
        let mut example = match &self.example {
            Some(path) => read_example(path)?,
            None => Map::new(),
        };
        if let Some(answer) = &self.answer {
            example.insert("answer".to_owned(), json!(answer));
        }
        let answer = example.remove("answer").unwrap_or_else(|| json!(""));
        let answer = answer.as_str().context("the example's answer is no text")?;
        let input = wasm::input(&wasm, &Value::Object(example), answer);
        let shown = self.file.display();
        let module = wasm::compile(&bytes).map_err(|why| anyhow::anyhow!("{shown}: {why}"))?;
        let reply = wasm::run(&module, &wasm, &input);
        let reply = reply.map_err(|why| anyhow::anyhow!("{shown}: unscored: {why}"))?;
        message(&format!("{} of {} fuel used", reply.fuel, wasm.fuel));
        print_json(&reply.value)
    }
}

fn read_module(path: &Path) -> anyhow::Result<Vec<u8>> {
    let shown = path.display();
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).with_context(|| format!("reading {shown}"))?;
    file.take(MODULE_BYTES as u64 + 1)
        .read_to_end(&mut bytes)
        .with_context(|| format!("reading {shown}"))?;
    if bytes.len() > MODULE_BYTES {
        bail!(
            "{shown} is larger than {} MiB, which is the most for a module",
            MODULE_BYTES >> 20
        );
    }
    Ok(bytes)
}

fn read_example(path: &Path) -> anyhow::Result<Map<String, Value>> {
    let reading = || format!("reading the example from {}", path.display());
    let text = match path.as_os_str() == "-" {
        true => std::io::read_to_string(std::io::stdin()).with_context(reading)?,
        false => std::fs::read_to_string(path).with_context(reading)?,
    };
    serde_json::from_str(&text).with_context(reading)
}
