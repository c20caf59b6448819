//! The command line. Data goes to stdout, messages to stderr; every command
//! that reads has `--json`; exit codes: 0 done, 1 failed, 2 wrong usage, 3 not
//! found, 4 a gate failed.
//!
//! Commands work on the data directory, with or without a running server; a
//! running one follows within a quarter of a second. Those about trees of files, suites
//! and guards also work on a server elsewhere, with a key (`remote.rs`).

mod apply;
mod audit;
mod data;
mod dataset;
mod doctor;
mod eval;
mod evaluator;
mod experiment;
mod export;
mod fmt;
mod guard;
mod import;
mod key;
mod model;
mod plan;
mod promotion;
mod provider;
mod release;
mod remote;
mod review;
mod schema;
mod serve;
mod target;
mod traces;
mod validate;

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use serde::Serialize;

use crate::config::{Config, Overrides};
use crate::error::AppError;

#[derive(Parser)]
#[command(
    name = "meguri",
    version,
    about = "Ship, monitor and improve LLM applications: one self-hosted binary."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Fetch the default models, start the server and print a sign-in link.
    Up(serve::Up),
    /// Start the server.
    Serve(serve::Serve),
    /// Create, list and revoke API keys.
    #[command(subcommand)]
    Key(key::Key),
    /// Add, list, test and remove providers.
    #[command(subcommand)]
    Provider(provider::Provider),
    /// Pull, list and remove local models.
    #[command(subcommand)]
    Model(model::Model),
    /// Cut, list and show releases of apps.
    #[command(subcommand)]
    Release(release::Release),
    /// List, show, start and stop experiments.
    #[command(subcommand)]
    Experiment(experiment::Experiment),
    /// List, show, import and export datasets.
    #[command(subcommand)]
    Dataset(dataset::Dataset),
    /// Fetch and list data that some metrics need.
    #[command(subcommand)]
    Data(data::Data),
    /// Run suites: the gate of a pipeline.
    #[command(subcommand)]
    Eval(eval::Eval),
    /// Try guard policies on texts, and measure them.
    #[command(subcommand)]
    Guard(guard::Guard),
    /// List, show, fill and export review queues.
    #[command(subcommand)]
    Review(review::Review),
    /// Push and try evaluators that are WebAssembly modules.
    #[command(subcommand)]
    Evaluator(evaluator::Evaluator),
    /// Read traces.
    #[command(subcommand)]
    Traces(traces::Traces),
    /// List environments and set what protects them.
    #[command(subcommand)]
    Env(promotion::Env),
    /// List, approve and reject proposals to move protected labels.
    #[command(subcommand)]
    Proposals(promotion::Proposals),
    /// Point a label back to the version before, at once.
    Rollback(promotion::Rollback),
    /// Verify, list and export the audit log.
    #[command(subcommand)]
    Audit(audit::Audit),
    /// Write the project's documents as a tree of files.
    Export(export::Export),
    /// Check a tree of files, without a database.
    Validate(validate::Validate),
    /// Rewrite a tree's files in their one normal form.
    Fmt(fmt::Fmt),
    /// Show what applying a tree of files would do.
    Plan(plan::PlanCommand),
    /// Apply a tree of files, or a plan.
    Apply(apply::Apply),
    /// Print the JSON Schemas of the files of a tree.
    Schema(schema::Schema),
    /// Import prompts of dotprompt, Langfuse, MLflow or promptfoo.
    Import(import::Import),
    /// Check a data directory and this machine.
    Doctor(doctor::Doctor),
    /// Print the version.
    Version(Version),
}

#[derive(Args)]
struct Version {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Where a command finds its data.
#[derive(Args, Clone)]
pub(crate) struct Place {
    /// The data directory.
    #[arg(long, env = "MEGURI_DATA_DIR", default_value = "meguri-data")]
    data_dir: PathBuf,
    /// The configuration file; default is meguri.toml in the data directory.
    #[arg(long, env = "MEGURI_CONFIG")]
    config: Option<PathBuf>,
    /// The metadata database: sqlite:PATH or postgres://…; default is SQLite in the data directory.
    #[arg(long, env = "MEGURI_DATABASE_URL")]
    database_url: Option<String>,
}

impl Place {
    pub(crate) fn load(&self, listen: Option<SocketAddr>) -> anyhow::Result<Config> {
        let overrides = Overrides {
            config: self.config.clone(),
            listen,
            database_url: self.database_url.clone(),
        };
        Config::load(&self.data_dir, &overrides)
    }
}

/// Runs the program.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let result = match runtime {
        Ok(runtime) => {
            let result = runtime.block_on(run(cli.command));
            runtime.shutdown_timeout(std::time::Duration::from_secs(2));
            result
        }
        Err(error) => Err(anyhow::Error::new(error).context("starting the runtime")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(
                std::io::stderr(),
                "error: {}",
                base::text::reveal(&explain(&error))
            );
            exit_code(&error)
        }
    }
}

async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Up(up) => up.run().await,
        Command::Serve(serve) => serve.run().await,
        Command::Key(key) => key.run().await,
        Command::Provider(provider) => provider.run().await,
        Command::Model(model) => model.run().await,
        Command::Release(release) => release.run().await,
        Command::Experiment(experiment) => experiment.run().await,
        Command::Dataset(dataset) => dataset.run().await,
        Command::Evaluator(evaluator) => evaluator.run().await,
        Command::Data(data) => data.run().await,
        Command::Eval(eval) => eval.run().await,
        Command::Guard(guard) => guard.run().await,
        Command::Review(review) => review.run().await,
        Command::Traces(traces) => traces.run().await,
        Command::Env(env) => env.run().await,
        Command::Proposals(proposals) => proposals.run().await,
        Command::Rollback(rollback) => rollback.run().await,
        Command::Audit(audit) => audit.run().await,
        Command::Export(export) => export.run().await,
        Command::Validate(validate) => validate.run().await,
        Command::Fmt(fmt) => fmt.run(),
        Command::Plan(plan) => plan.run().await,
        Command::Apply(apply) => apply.run().await,
        Command::Schema(schema) => schema.run(),
        Command::Import(import) => import.run().await,
        Command::Doctor(doctor) => doctor.run().await,
        Command::Version(version) => {
            let value = env!("CARGO_PKG_VERSION");
            if version.json {
                print_json(&serde_json::json!({"version": value}))
            } else {
                print_line(&format!("meguri {value}"))
            }
        }
    }
}

fn explain(error: &anyhow::Error) -> String {
    match error.downcast_ref::<AppError>() {
        Some(AppError {
            source: Some(source),
            message,
            ..
        }) => format!("{message}: {source:#}"),
        Some(known) => known.to_string(),
        None => format!("{error:#}"),
    }
}

fn exit_code(error: &anyhow::Error) -> ExitCode {
    if error.is::<eval::GateFailed>() {
        return ExitCode::from(4);
    }
    match error.downcast_ref::<AppError>() {
        Some(known) if known.status == axum::http::StatusCode::NOT_FOUND => ExitCode::from(3),
        _ => ExitCode::FAILURE,
    }
}

/// Prints a value as JSON on stdout.
pub(crate) fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    serde_json::to_writer_pretty(&mut stdout, value)?;
    Ok(writeln!(stdout)?)
}

/// Prints a line on stdout; what could act on a terminal appears as an escape.
pub(crate) fn print_line(text: &str) -> anyhow::Result<()> {
    Ok(writeln!(std::io::stdout(), "{}", base::text::reveal(text))?)
}

/// Prints a message on stderr.
pub(crate) fn message(text: &str) {
    let _ = writeln!(std::io::stderr(), "{}", base::text::reveal(text));
}

/// A table without frames, for people.
pub(crate) fn print_table(header: &[&str], rows: Vec<Vec<String>>) -> anyhow::Result<()> {
    let mut table = comfy_table::Table::new();
    table
        .load_style(comfy_table::presets::NOTHING)
        .set_header(header.to_vec());
    for row in rows {
        table.add_row(row.iter().map(|cell| base::text::reveal(cell)));
    }
    Ok(writeln!(std::io::stdout(), "{table}")?)
}
