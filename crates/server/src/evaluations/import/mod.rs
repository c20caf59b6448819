//! Test files of other tools as a dataset and a suite that evaluates it.
//!
//! | file | owns |
//! |---|---|
//! | `promptfoo.rs` | promptfoo's configurations: prompts, providers, tests with assertions |
//! | `openai.rs` | rows of OpenAI's evaluation files |
//!
//! Whatever has no counterpart here is named with its place: an import never pretends that
//! a test is still tested. Nothing is called; the suite is saved and can be looked at first.

mod openai;
mod promptfoo;

use db::Scope;
use db::catalog::Name;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{KIND, SuiteDocument};
use crate::app::App;
use crate::datasets::{Edits, Example};
use crate::error::{AppError, Result};

/// Bytes of a file.
pub(super) const MOST_BYTES: usize = 16 << 20;
/// Examples of a file.
const MOST_EXAMPLES: usize = 100_000;
/// Notes that are kept; what is wrong is wrong in every test as a rule.
const MOST_NOTES: usize = 200;
/// Characters of a candidate's name.
const NAME_CHARS: usize = 60;

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SuiteFormat {
    /// A configuration of promptfoo, or a list of its tests: YAML or JSON.
    Promptfoo,
    /// Rows of OpenAI's evaluation files: JSONL with `input` and `ideal`, or `item`.
    OpenaiEvals,
}

/// How an answer is held against the ideal ones of an OpenAI evaluation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Compare {
    /// The answer begins with an ideal one.
    #[default]
    Match,
    /// An ideal one is somewhere in it.
    Includes,
    /// It is an ideal one.
    Exact,
}

/// A file to import.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ImportRequest {
    /// What the dataset and the suite are called.
    pub name: String,
    /// The file's content.
    pub text: String,
    /// What it is; looked at when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<SuiteFormat>,
    /// The model of every candidate, instead of the file's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The prompt of every candidate, `prompt:NAME@SELECTOR`, instead of the file's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    /// The model that judges what the file leaves to a model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub judge: Option<String>,
    /// How answers are held against ideal ones.
    #[serde(default)]
    pub compare: Compare,
}

/// What of a file has no counterpart, or another one than may be thought.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "ImportNote")]
pub struct Note {
    /// Where in the file: `tests[2].assert[0]`, `line 7`.
    pub at: String,
    /// What.
    pub message: String,
}

impl std::fmt::Display for Note {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.at, self.message)
    }
}

/// What came of a file.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "ImportedSuite")]
pub struct Imported {
    /// The dataset.
    pub dataset: String,
    /// Its version with these examples.
    pub dataset_version: i64,
    /// How many examples the file holds.
    pub examples: u64,
    /// The suite; none where the file says nothing that can be called or measured.
    pub suite: Option<String>,
    /// Its version.
    pub suite_version: Option<i64>,
    /// The names of its candidates.
    pub candidates: Vec<String>,
    /// The names of its evaluators.
    pub evaluators: Vec<String>,
    /// What to know.
    pub notes: Vec<Note>,
}

/// A file in our words.
#[derive(Debug, Default)]
struct Converted {
    description: String,
    examples: Vec<Example>,
    candidates: Vec<Value>,
    /// Name and document.
    evaluators: Vec<(String, Value)>,
    notes: Notes,
}

#[derive(Debug, Default)]
struct Notes(Vec<Note>);

impl Notes {
    fn add(&mut self, at: impl Into<String>, message: impl Into<String>) {
        let note = Note {
            at: at.into(),
            message: message.into(),
        };
        if self.0.len() < MOST_NOTES && !self.0.contains(&note) {
            self.0.push(note);
        }
    }
}

impl Converted {
    fn evaluator(&mut self, name: &str, document: Value) {
        if !self.evaluators.iter().any(|(known, _)| known == name) {
            self.evaluators.push((name.to_owned(), document));
        }
    }

    /// Adds a candidate under a name that no other has.
    fn candidate(&mut self, name: &str, mut candidate: Map<String, Value>) {
        let clean: String = name
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
            .chars()
            .filter(|c| !base::text::is_deceptive(*c))
            .take(NAME_CHARS - 4)
            .collect();
        let clean = if clean.is_empty() {
            "candidate".to_owned()
        } else {
            clean
        };
        let is_taken = |name: &str| self.candidates.iter().any(|known| known["name"] == name);
        let mut named = clean.clone();
        for number in 2..100 {
            if !is_taken(&named) {
                break;
            }
            named = format!("{clean} {number}");
        }
        candidate.insert("name".to_owned(), json!(named));
        self.candidates.push(Value::Object(candidate));
    }

    fn suite(&self, name: &Name) -> Option<Value> {
        if self.candidates.is_empty() || self.evaluators.is_empty() {
            return None;
        }
        let evaluators = self
            .evaluators
            .iter()
            .map(|(name, document)| json!({"name": name, "evaluator": document}));
        let mut suite = json!({
            "dataset": format!("dataset:{name}@latest"), "candidates": self.candidates,
            "evaluators": evaluators.collect::<Vec<_>>(),
        });
        if !self.description.is_empty() {
            suite["description"] = json!(self.description);
        }
        Some(suite)
    }
}

/// Where an example keeps what its answer is checked for.
const CHECKS: &str = "checks";

/// One thing that an answer is checked for. There are no patterns in it: expressions have none.
#[derive(Debug, Clone, PartialEq)]
struct Check {
    /// The assertion that it comes from.
    r#type: String,
    how: How,
    /// Any of these will do.
    texts: Vec<String>,
    negated: bool,
}

/// How an answer is held against texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    Equals,
    Starts,
    Contains,
    /// Latin letters of either case are the same.
    ContainsAnyCase,
    /// It is JSON, whatever the texts.
    Json,
}

impl Check {
    fn to_value(&self) -> Value {
        let how = match self.how {
            How::Equals => "equals",
            How::Starts => "starts",
            How::Contains => "contains",
            How::ContainsAnyCase => "icontains",
            How::Json => "json",
        };
        let texts: Vec<String> = match self.how {
            How::ContainsAnyCase => self
                .texts
                .iter()
                .map(|text| text.to_ascii_lowercase())
                .collect(),
            _ => self.texts.clone(),
        };
        json!({"type": self.r#type, "how": how, "texts": texts, "negated": self.negated})
    }
}

/// The evaluator that holds an answer against its example's checks.
fn checks_evaluator(description: &str) -> Value {
    json!({
        "type": "metric", "description": description,
        "metric": {"id": "regex", "pattern": "^true$"},
        "output": "example.metadata.checks.all(c, c.negated != (c.how == \"json\" ? answer.json != null : c.texts.exists(t, \
                   c.how == \"equals\" ? answer.text == t : (c.how == \"starts\" ? answer.text.startsWith(t) : \
                   (c.how == \"contains\" ? answer.text.contains(t) : answer.text.lowerAscii().contains(t))))))",
    })
}

fn looks_like(text: &str) -> SuiteFormat {
    let first = text.lines().map(str::trim).find(|line| !line.is_empty());
    let row: Option<Value> = first.and_then(|line| serde_json::from_str(line).ok());
    let is_row = row.is_some_and(|row| {
        let has = |key: &str| row.get(key).is_some();
        has("item") || (has("input") && !has("tests"))
    });
    if is_row {
        SuiteFormat::OpenaiEvals
    } else {
        SuiteFormat::Promptfoo
    }
}

fn convert(request: &ImportRequest) -> Result<Converted> {
    if request.text.len() > MOST_BYTES {
        let message = format!("a file has at most {} MiB", MOST_BYTES >> 20);
        return Err(AppError::invalid(message).at("text"));
    }
    let format = request.format.unwrap_or_else(|| looks_like(&request.text));
    let converted = match format {
        SuiteFormat::Promptfoo => promptfoo::convert(request)?,
        SuiteFormat::OpenaiEvals => openai::convert(request)?,
    };
    if converted.examples.is_empty() {
        let message = match converted.notes.0.first() {
            Some(note) => format!("there is no test in this file that can be read: {note}"),
            None => "there is no test in this file".to_owned(),
        };
        return Err(AppError::invalid(message).code("no_tests").at("text"));
    }
    Ok(converted)
}

fn unreadable(at: impl Into<String>, message: impl Into<String>) -> AppError {
    let (at, message) = (at.into(), message.into());
    AppError::invalid(format!("{at}: {message}"))
        .code("unreadable_file")
        .at(at)
}

/// Saves the dataset and the suite that a file stands for.
///
/// # Errors
/// The file cannot be read, or holds no test; nothing is saved then.
pub async fn import_suite(app: &App, scope: Scope, request: &ImportRequest) -> Result<Imported> {
    let name = crate::datasets::parse_name(&request.name)?;
    let mut converted = convert(request)?;
    let suite = converted.suite(&name);
    if let Some(suite) = &suite {
        // Before anything is saved: half an import would be worse than none.
        SuiteDocument::parse(suite).map_err(db::CatalogError::Invalid)?;
    }
    let examples = std::mem::take(&mut converted.examples);
    let count = examples.len() as u64;
    let edits = Edits {
        put: examples,
        message: "imported".to_owned(),
        ..Edits::default()
    };
    let saved = match app.datasets.find_latest(scope, &name).await? {
        None => app.datasets.create(scope, &name, edits).await?,
        Some(_) => app.datasets.edit(scope, &name, edits).await?,
    };
    let suite_version = match &suite {
        None => None,
        Some(content) => {
            let new = db::NewVersion {
                kind: KIND,
                name: &name,
                content,
                message: "imported",
            };
            Some(app.catalog.save_version(scope, new).await?.version.number)
        }
    };
    app.refresh_plan().await?;
    let named = |value: &Value| value["name"].as_str().unwrap_or_default().to_owned();
    Ok(Imported {
        dataset: name.to_string(),
        dataset_version: saved.version,
        examples: count,
        suite: suite_version.map(|_| name.to_string()),
        suite_version,
        candidates: converted.candidates.iter().map(named).collect(),
        evaluators: converted
            .evaluators
            .into_iter()
            .map(|(name, _)| name)
            .collect(),
        notes: converted.notes.0,
    })
}
