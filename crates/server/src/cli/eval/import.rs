//! `meguri eval import FILE`: another tool's test file becomes a dataset and a suite.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, ValueEnum};

use super::super::remote::{Remote, ServerArgs};
use super::super::{Place, message, print_json, print_line};
use crate::app::App;
use crate::evaluations::{Compare, ImportRequest, Imported, SuiteFormat, import_suite};
use crate::keys::operator_scope;

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    Promptfoo,
    OpenaiEvals,
}

#[derive(Clone, Copy, ValueEnum)]
enum By {
    Match,
    Includes,
    Exact,
}

#[derive(Args)]
pub(in crate::cli) struct Import {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    server: ServerArgs,
    /// The project; with --url the key says which.
    #[arg(long, default_value = "default")]
    project: String,
    /// What the dataset and the suite are called; the file's name unless said.
    #[arg(long)]
    name: Option<String>,
    /// What the file is; looked at unless said.
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// The model of every candidate, instead of the file's.
    #[arg(long)]
    model: Option<String>,
    /// The prompt of every candidate, prompt:NAME@SELECTOR, instead of the file's.
    #[arg(long)]
    prompt: Option<String>,
    /// The model that judges what the file leaves to a model.
    #[arg(long)]
    judge: Option<String>,
    /// How answers are held against the ideal ones of OpenAI's files.
    #[arg(long, value_enum, default_value = "match")]
    compare: By,
    /// Print what was imported as JSON.
    #[arg(long)]
    json: bool,
    /// The file.
    file: PathBuf,
}

impl Import {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let request = self.request()?;
        let imported: Imported = match Remote::open(&self.server)? {
            Some(server) => server.post("api/v1/evaluations/import", &request).await?,
            None => self.in_process(&request).await?,
        };
        for note in &imported.notes {
            message(&note.to_string());
        }
        if self.json {
            return print_json(&imported);
        }
        print_line(&format!(
            "dataset {} version {}: {} examples",
            imported.dataset, imported.dataset_version, imported.examples
        ))?;
        match (&imported.suite, imported.suite_version) {
            (Some(suite), Some(version)) => print_line(&format!(
                "suite {suite} version {version}: {} by {}",
                imported.candidates.join(", "),
                imported.evaluators.join(", ")
            )),
            _ => print_line("no suite: see above what is missing"),
        }
    }

    fn request(&self) -> anyhow::Result<ImportRequest> {
        let text = std::fs::read_to_string(&self.file)
            .with_context(|| format!("reading {}", self.file.display()))?;
        let stem = self.file.file_stem().and_then(|stem| stem.to_str());
        let name = self.name.clone().or_else(|| stem.map(str::to_owned));
        Ok(ImportRequest {
            name: name.context("give it a name with --name")?,
            text,
            format: self.format.map(|format| match format {
                Format::Promptfoo => SuiteFormat::Promptfoo,
                Format::OpenaiEvals => SuiteFormat::OpenaiEvals,
            }),
            model: self.model.clone(),
            prompt: self.prompt.clone(),
            judge: self.judge.clone(),
            compare: match self.compare {
                By::Match => Compare::Match,
                By::Includes => Compare::Includes,
                By::Exact => Compare::Exact,
            },
        })
    }

    async fn in_process(&self, request: &ImportRequest) -> anyhow::Result<Imported> {
        let app = App::open(self.place.load(None)?).await.context(
            "opening the data directory; where a server runs on it, name that server with --url",
        )?;
        let scope = operator_scope(&app.db, &self.project).await?;
        let done = import_suite(&app, scope, request).await;
        app.close().await;
        Ok(done?)
    }
}
