//! Importing files of others: CSV, TSV, JSON, JSON Lines, test files of promptfoo,
//! evaluations and fine-tuning files of OpenAI, and folders of such files, packed or
//! one by one, whose names say the split.
//!
//! | file | owns |
//! |---|---|
//! | `text.rs` | encodings |
//! | `csv.rs`, `rows.rs`, `promptfoo.rs` | rows out of files |
//! | `archive.rs` | files out of ZIP and tar archives |
//! | `map.rs` | from columns to the fields of an example |
//!
//! All or nothing: rows are read one after the other and written into chunks, and only
//! when the last one was good a version is saved. What is wrong says its file and line.

mod archive;
mod csv;
mod map;
mod promptfoo;
mod rows;
mod text;

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};

use db::Scope;
use db::catalog::Name;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::chunks::id_hash;
use super::document::{CHUNK_EXAMPLES, Checks};
use super::edit::Touched;
use super::example::{Example, MAX_EXAMPLE_BYTES, check_split};
use super::{Datasets, Saved};
use crate::error::{AppError, Result};
use map::Mapper;
use rows::Row;

/// The largest row of a file: an example may be 1 MiB, and quotes and escapes cost some.
const MAX_ROW_BYTES: usize = 2 * MAX_EXAMPLE_BYTES;
/// Rows that a preview shows, and that columns are recognised by.
const PREVIEW_ROWS: usize = 20;
/// Problems that are collected before an import gives up.
const MAX_PROBLEMS: usize = 20;

/// What kind of file it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "ImportFormat")]
pub enum Format {
    /// Comma-separated values with a header.
    Csv,
    /// Tab-separated values with a header.
    Tsv,
    /// One JSON object a line: own exports, OpenAI's evaluations and fine-tuning files, Hugging Face's data files.
    Jsonl,
    /// A list of JSON objects.
    Json,
    /// Tests of promptfoo, YAML or JSON.
    Promptfoo,
    /// Tests of promptfoo, CSV.
    PromptfooCsv,
}

/// What to do with the examples that the dataset has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "ImportMode")]
pub enum Mode {
    /// They stay; the file's come behind them.
    #[default]
    Append,
    /// The file's take their place.
    Replace,
}

/// How files are read.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ImportOptions {
    /// What kind of files they are; by their names and beginnings unless told.
    pub format: Option<Format>,
    /// Their encoding, such as `shift_jis`; by the byte order mark, else UTF-8, unless told.
    pub encoding: Option<String>,
    /// Column → field: `id`, `input`, `input.KEY`, `expected`, `expected.KEY`, `context`,
    /// `metadata`, `metadata.KEY`, `split`, `verdict`, `chat` (messages of which the last is
    /// the expected answer) or `ignore`. Columns that are not named are recognised by their names.
    pub mapping: BTreeMap<String, String>,
    /// The split of rows that name none; by the file's name unless told.
    pub split: Option<String>,
    /// What to do with the examples that are there.
    pub mode: Mode,
    /// Why, for the history.
    pub message: String,
}

/// A file on the disk and what it is called.
#[derive(Debug, Clone)]
pub struct ImportFile {
    /// Its name where it comes from.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
}

/// What is wrong with a row.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct RowProblem {
    /// The file.
    pub file: String,
    /// The line, or the number of the row where a file has no lines.
    pub line: u64,
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for RowProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, line {}: {}", self.file, self.line, self.message)
    }
}

/// The beginning of an import, before anything is saved.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(rename = "ImportPreview")]
pub struct Preview {
    /// The files that will be read, those of archives included.
    pub files: Vec<PreviewFile>,
    /// The columns of the first rows, with the field that each becomes.
    pub columns: Vec<PreviewColumn>,
    /// The first rows as examples.
    pub examples: Vec<Example>,
    /// What is wrong with the first rows.
    pub problems: Vec<RowProblem>,
}

/// A file of an import.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct PreviewFile {
    /// Its name, inside of its archive where it comes out of one.
    pub name: String,
    /// What it is taken for.
    pub format: Format,
    /// The split that its rows get unless they name one.
    pub split: Option<String>,
}

/// A column of an import.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct PreviewColumn {
    /// Its name in the file.
    pub column: String,
    /// The field that it becomes.
    pub field: String,
}

/// A row that cannot be read.
#[derive(Debug, Clone)]
struct RowError {
    line: u64,
    message: String,
}

impl RowError {
    fn new(line: u64, message: impl Into<String>) -> Self {
        Self {
            line,
            message: message.into(),
        }
    }

    fn too_large(line: u64) -> Self {
        let mib = MAX_ROW_BYTES >> 20;
        Self::new(
            line,
            format!("this row is larger than {mib} MiB; an example has at most 1 MiB"),
        )
    }

    /// A failure to read; those of text know their line better.
    fn io(line: u64, error: &std::io::Error) -> Self {
        let text = error.to_string();
        let told = text
            .strip_prefix("line ")
            .and_then(|rest| rest.split_once(": "));
        match told.and_then(|(line, message)| Some((line.parse().ok()?, message))) {
            Some((line, message)) => Self::new(line, message),
            None => Self::new(line, format!("the file cannot be read: {text}")),
        }
    }

    fn of(self, file: &str) -> RowProblem {
        RowProblem {
            file: file.to_owned(),
            line: self.line,
            message: self.message,
        }
    }
}

/// A file whose format and split are known.
struct Source {
    file: ImportFile,
    format: Format,
    split: Option<String>,
}

/// Everything that reading rows needs; lives on the thread that reads.
struct Plan {
    sources: Vec<Source>,
    encoding: Option<&'static encoding_rs::Encoding>,
    mapper: Mapper,
    /// Unpacked archives; removed at the end.
    _scratch: Vec<archive::Scratch>,
}

impl Plan {
    fn new(
        files: Vec<ImportFile>,
        options: &ImportOptions,
        scratch: &Path,
    ) -> Result<Self, AppError> {
        let encoding = text::encoding(options.encoding.as_deref())
            .map_err(|why| AppError::invalid(why).at("encoding"))?;
        if let Some(split) = options.split.as_deref().filter(|split| !split.is_empty()) {
            check_split(split).map_err(|why| AppError::invalid(why).at("split"))?;
        }
        let mut mapper = Mapper::new(&options.mapping)?;
        let (mut sources, mut unpacked) = (Vec::new(), Vec::new());
        for file in files {
            let members = if archive::is_archive(&file.name) {
                let (members, folder) = archive::unpack(&file, scratch)?;
                unpacked.push(folder);
                members
            } else {
                vec![file]
            };
            for file in members {
                if let Some(source) = Source::of(file, options, encoding)? {
                    sources.push(source);
                }
            }
        }
        if sources.is_empty() {
            let refusal = AppError::invalid("there is no file with rows in this import");
            return Err(refusal
                .hint("CSV, TSV, JSON, JSONL and YAML files are read")
                .at("uploads"));
        }
        let mut plan = Self {
            sources,
            encoding,
            mapper: mapper.clone(),
            _scratch: unpacked,
        };
        let mut left = PREVIEW_ROWS;
        plan.each(|_, row| {
            if let Ok(row) = row {
                mapper.learn(&row.columns);
            }
            left -= 1;
            left > 0
        });
        plan.mapper = mapper;
        Ok(plan)
    }

    /// All rows of all files, in order, until `row` says stop.
    fn each(&self, mut row: impl FnMut(&Source, Result<Row, RowError>) -> bool) {
        for source in &self.sources {
            let mut goes_on = true;
            let opened = rows::open(&source.file.path, &source.file.name);
            let read = match opened {
                Err(error) => Err(RowError::io(1, &error)),
                Ok(file) => rows::read(file, source.format, self.encoding, |found| {
                    goes_on = row(source, found);
                    goes_on
                }),
            };
            if let Err(error) = read {
                goes_on = row(source, Err(error));
            }
            if !goes_on {
                return;
            }
        }
    }

    /// A row as an example.
    fn example(&self, source: &Source, row: Row) -> Result<Example, RowError> {
        let line = row.line;
        let mut example = self
            .mapper
            .example(row.columns)
            .map_err(|problem| RowError::new(line, problem.to_string()))?;
        if example.split.is_none() {
            example.split.clone_from(&source.split);
        }
        if example.source.is_empty() {
            example.source.import = Some(source.file.name.clone());
            example.source.line = Some(line);
        }
        Ok(example)
    }
}

impl Source {
    /// `None` for files that say about data and are none.
    fn of(
        file: ImportFile,
        options: &ImportOptions,
        encoding: Option<&'static encoding_rs::Encoding>,
    ) -> Result<Option<Self>> {
        let lower = file.name.to_lowercase();
        let bare = lower.strip_suffix(".gz").unwrap_or(&lower);
        let ending = bare.rsplit_once('.').map_or("", |(_, ending)| ending);
        let by_name = match ending {
            "csv" => Some(Format::Csv),
            "tsv" => Some(Format::Tsv),
            "jsonl" | "ndjson" => Some(Format::Jsonl),
            "json" => Some(Format::Json),
            "yaml" | "yml" => Some(Format::Promptfoo),
            _ => None,
        };
        let format = match (options.format, by_name) {
            (Some(format), _) => format,
            (None, Some(format)) => refine(&file, format, encoding),
            (None, None) if matches!(ending, "parquet" | "arrow" | "feather") => {
                let message = format!("{} is a {ending} file, which is not read here", file.name);
                return Err(AppError::invalid(message)
                    .hint("save it as JSONL or CSV")
                    .at("uploads"));
            }
            (None, None) => return Ok(None),
        };
        let named = options.split.clone().filter(|split| !split.is_empty());
        let split = named.or_else(|| split_of(&file.name).map(str::to_owned));
        Ok(Some(Self {
            file,
            format,
            split,
        }))
    }
}

/// Tests of promptfoo have the endings of other files and say what they are at their beginning.
fn refine(
    file: &ImportFile,
    format: Format,
    encoding: Option<&'static encoding_rs::Encoding>,
) -> Format {
    let mut found = format;
    let Ok(content) = rows::open(&file.path, &file.name) else {
        return format;
    };
    match format {
        Format::Csv => {
            let _ = rows::read(content, Format::Csv, encoding, |row| {
                if row.is_ok_and(|row| {
                    row.columns
                        .keys()
                        .any(|column| column.starts_with("__expected"))
                }) {
                    found = Format::PromptfooCsv;
                }
                false
            });
        }
        Format::Json => {
            let is_tests = rows::holds_tests(content);
            if is_tests {
                found = Format::Promptfoo;
            }
        }
        _ => {}
    }
    found
}

/// The split that a file's name tells: `train.jsonl`, `data/test-00000-of-00002.csv`.
fn split_of(name: &str) -> Option<&'static str> {
    let file = name.rsplit(['/', '\\']).next()?.to_lowercase();
    let word: String = file.chars().take_while(char::is_ascii_alphabetic).collect();
    match word.as_str() {
        "train" | "training" => Some("train"),
        "test" | "testing" => Some("test"),
        "validation" | "valid" | "val" | "dev" => Some("validation"),
        _ => None,
    }
}

/// Reads the first rows.
///
/// # Errors
/// The options are wrong, or the files hold no rows at all.
pub(super) async fn preview(
    files: Vec<ImportFile>,
    options: ImportOptions,
    scratch: PathBuf,
) -> Result<Preview> {
    let work = move || {
        let plan = Plan::new(files, &options, &scratch)?;
        let (mut examples, mut problems) = (Vec::new(), Vec::new());
        let mut left = PREVIEW_ROWS;
        plan.each(|source, row| {
            match row.and_then(|row| plan.example(source, row)) {
                Ok(mut example) => {
                    let checked = Example {
                        id: "preview".to_owned(),
                        ..example.clone()
                    }
                    .check();
                    if let Err(problem) = checked {
                        let line = example.source.line.unwrap_or(0);
                        problems
                            .push(RowError::new(line, problem.to_string()).of(&source.file.name));
                    }
                    example.source.answer = None;
                    examples.push(example);
                }
                Err(error) => problems.push(error.of(&source.file.name)),
            }
            left -= 1;
            left > 0
        });
        let file = |source: &Source| PreviewFile {
            name: source.file.name.clone(),
            format: source.format,
            split: source.split.clone(),
        };
        Ok(Preview {
            files: plan.sources.iter().map(file).collect(),
            columns: plan.mapper.columns(),
            examples,
            problems,
        })
    };
    tokio::task::spawn_blocking(work)
        .await
        .map_err(AppError::internal)?
}

enum Step {
    Example(Box<Example>, String, u64),
    Problem(RowProblem),
    Failed(AppError),
}

fn produce(
    files: Vec<ImportFile>,
    options: &ImportOptions,
    scratch: &Path,
    steps: &mpsc::Sender<Step>,
) {
    let plan = match Plan::new(files, options, scratch) {
        Ok(plan) => plan,
        Err(error) => {
            let _ = steps.blocking_send(Step::Failed(error));
            return;
        }
    };
    plan.each(|source, row| {
        let line = row.as_ref().map_or(0, |row| row.line);
        let step = match row.and_then(|row| plan.example(source, row)) {
            Ok(example) => Step::Example(Box::new(example), source.file.name.clone(), line),
            Err(error) => Step::Problem(error.of(&source.file.name)),
        };
        // Nobody takes it any more: the import failed, or its caller went away.
        steps.blocking_send(step).is_ok()
    });
}

impl Datasets {
    /// Imports files into a dataset, which is made if there is none.
    ///
    /// # Errors
    /// A row is wrong (the refusal says which, and nothing is saved), or somebody else saved first.
    pub async fn import(
        &self,
        scope: Scope,
        name: &Name,
        files: Vec<ImportFile>,
        options: ImportOptions,
        scratch: PathBuf,
    ) -> Result<Saved> {
        let base = self.find_latest(scope, name).await?;
        let document = base
            .as_ref()
            .map(|base| base.document.clone())
            .unwrap_or_default();
        let checks = Checks::build(&document).map_err(db::CatalogError::Invalid)?;
        let chunks = self.chunks(scope)?;
        let mut writer = chunks.writer();
        let (mut ids, mut touched) = (HashSet::new(), Touched::default());
        if options.mode == Mode::Append {
            for (index, chunk) in document.chunks.iter().enumerate() {
                ids.extend(chunks.ids(chunk).await?.iter().copied());
                let is_open =
                    index + 1 == document.chunks.len() && (chunk.count as usize) < CHUNK_EXAMPLES;
                if !is_open {
                    writer.keep(chunk).await?;
                    continue;
                }
                for example in chunks.read(chunk).await? {
                    writer
                        .push(&example)
                        .await
                        .map_err(|error| error.at(&example.id))?;
                }
            }
        } else {
            touched.removed = document.count;
        }
        let message = options.message.clone();
        let (sender, mut steps) = mpsc::channel(256);
        let reading =
            tokio::task::spawn_blocking(move || produce(files, &options, &scratch, &sender));
        let mut problems: Vec<RowProblem> = Vec::new();
        while let Some(step) = steps.recv().await {
            let (mut example, file, line) = match step {
                Step::Failed(error) => return Err(error),
                Step::Problem(problem) => {
                    problems.push(problem);
                    if problems.len() >= MAX_PROBLEMS {
                        break;
                    }
                    continue;
                }
                Step::Example(example, file, line) => (example, file, line),
            };
            self.complete(scope, &mut example);
            let checked = match ids.insert(id_hash(&example.id)) {
                true => checks.check(&example),
                false => Err(db::Problem::new(
                    "/id",
                    format!("the id {:?} is taken", example.id),
                )),
            };
            let written = match checked {
                Err(problem) => Err(problem),
                Ok(()) if problems.is_empty() => match writer.push(&example).await {
                    Ok(()) => Ok(()),
                    Err(super::chunks::PushError::Example(problem)) => Err(problem),
                    Err(super::chunks::PushError::Failed(error)) => return Err(error),
                },
                // Nothing will be saved; the rest is only looked through for more mistakes.
                Ok(()) => example.check().map(drop),
            };
            match written {
                Ok(()) => touched.added += 1,
                Err(problem) => problems.push(RowProblem {
                    file,
                    line,
                    message: problem.to_string(),
                }),
            }
            if problems.len() >= MAX_PROBLEMS {
                break;
            }
        }
        drop(steps);
        reading.await.map_err(AppError::internal)?;
        if let Some(first) = problems.first() {
            return Err(refusal(first, &problems));
        }
        let document = document.with_chunks(writer.finish().await?);
        let saved = self
            .save_version(scope, name, document.clone(), &message, base.as_ref())
            .await?;
        Ok(Saved::of(name, &document, &saved, touched, Vec::new()))
    }
}

fn refusal(first: &RowProblem, problems: &[RowProblem]) -> AppError {
    const SHOWN: usize = 5;
    let mut text: Vec<String> = problems
        .iter()
        .take(SHOWN)
        .map(ToString::to_string)
        .collect();
    if problems.len() > SHOWN {
        let mark = if problems.len() >= MAX_PROBLEMS {
            "at least "
        } else {
            ""
        };
        text.push(format!("{mark}{} more", problems.len() - SHOWN));
    }
    AppError::invalid(format!("nothing was imported: {}", text.join("; ")))
        .code("invalid_rows")
        .at(format!("{}:{}", first.file, first.line))
}
