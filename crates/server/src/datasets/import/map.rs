//! From the columns of a file to the fields of an example.

use std::collections::BTreeMap;
use std::str::FromStr;

use db::Problem;
use serde_json::{Map, Value};

use super::PreviewColumn;
use crate::datasets::example::Example;
use crate::datasets::export;
use crate::error::AppError;

/// What a column becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Field {
    Id,
    Input(Option<String>),
    Expected(Option<String>),
    Context,
    Metadata(Option<String>),
    Split,
    Verdict,
    Source,
    Marks,
    /// Messages of which the last one, if the assistant says it, is expected.
    Chat,
    Ignore,
}

impl FromStr for Field {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (field, key) = match text.split_once('.') {
            Some((field, key)) if !key.is_empty() => (field, Some(key.to_owned())),
            _ => (text, None),
        };
        Ok(match (field, key) {
            ("input", key) => Self::Input(key),
            ("expected", key) => Self::Expected(key),
            ("metadata", key) => Self::Metadata(key),
            ("id", None) => Self::Id,
            ("context", None) => Self::Context,
            ("split", None) => Self::Split,
            ("verdict", None) => Self::Verdict,
            ("source", None) => Self::Source,
            ("marks", None) => Self::Marks,
            ("chat", None) => Self::Chat,
            ("ignore", None) => Self::Ignore,
            _ => {
                return Err(format!(
                    "{text:?} is no field; the fields are id, input, input.KEY, expected, expected.KEY, context, \
                     metadata, metadata.KEY, split, verdict, chat and ignore"
                ));
            }
        })
    }
}

impl std::fmt::Display for Field {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (name, key) = match self {
            Self::Id => ("id", &None),
            Self::Input(key) => ("input", key),
            Self::Expected(key) => ("expected", key),
            Self::Context => ("context", &None),
            Self::Metadata(key) => ("metadata", key),
            Self::Split => ("split", &None),
            Self::Verdict => ("verdict", &None),
            Self::Source => ("source", &None),
            Self::Marks => ("marks", &None),
            Self::Chat => ("chat", &None),
            Self::Ignore => ("ignore", &None),
        };
        match key {
            None => f.write_str(name),
            Some(key) => write!(f, "{name}.{key}"),
        }
    }
}

/// Names that columns have, the most telling first.
const INPUTS: &[&str] = &[
    "input",
    "inputs",
    "question",
    "prompt",
    "query",
    "user_input",
    "instruction",
    "text",
    "sentence",
    "入力",
    "質問",
];
const EXPECTED: &[&str] = &[
    "expected",
    "expected_output",
    "expectedoutput",
    "ideal",
    "ground_truth",
    "reference",
    "reference_answer",
    "answer",
    "output",
    "completion",
    "response",
    "target",
    "label",
    "期待",
    "正解",
    "回答",
    "ラベル",
];
const CONTEXTS: &[&str] = &[
    "context",
    "contexts",
    "passages",
    "documents",
    "retrieved_contexts",
    "文脈",
];

/// Turns rows into examples.
#[derive(Debug, Clone)]
pub(super) struct Mapper {
    given: BTreeMap<String, Field>,
    /// In the order of the file.
    columns: Vec<(String, Field)>,
    is_own: bool,
}

impl Mapper {
    pub(super) fn new(mapping: &BTreeMap<String, String>) -> Result<Self, AppError> {
        let mut given = BTreeMap::new();
        for (column, field) in mapping {
            let field = field
                .parse()
                .map_err(|why: String| AppError::invalid(why).at(format!("mapping.{column}")))?;
            given.insert(column.clone(), field);
        }
        Ok(Self {
            given,
            columns: Vec::new(),
            is_own: false,
        })
    }

    /// Looks at the columns of one of the first rows.
    pub(super) fn learn(&mut self, row: &Map<String, Value>) {
        let row = unwrapped(row);
        if self.columns.is_empty() {
            self.is_own = export::is_own_csv(row.keys().map(String::as_str));
        }
        let mut names: Vec<String> = self.columns.iter().map(|(name, _)| name.clone()).collect();
        names.extend(
            row.keys()
                .filter(|name| !names.contains(name))
                .cloned()
                .collect::<Vec<_>>(),
        );
        if names.len() != self.columns.len() {
            self.columns = self.recognise(names);
        }
    }

    fn recognise(&self, names: Vec<String>) -> Vec<(String, Field)> {
        let lower: Vec<String> = names
            .iter()
            .map(|name| name.trim().to_lowercase())
            .collect();
        let is_free = |index: usize| !self.given.contains_key(&names[index]);
        let first = |known: &[&str]| {
            known.iter().find_map(|known| {
                (0..names.len()).find(|index| lower[*index] == *known && is_free(*index))
            })
        };
        let is_given = |field: fn(&Field) -> bool| self.given.values().any(field);
        let mut input = (!is_given(|field| matches!(field, Field::Input(_) | Field::Chat)))
            .then(|| first(INPUTS))
            .flatten();
        let expected = (!is_given(|field| matches!(field, Field::Expected(_))))
            .then(|| first(EXPECTED))
            .flatten();
        let context = first(CONTEXTS);
        let chat = (input.is_none()
            && !is_given(|field| matches!(field, Field::Input(_) | Field::Chat)))
        .then(|| first(&["messages", "conversation"]))
        .flatten();
        // An instruction beside an input is half of what is asked.
        let instruction = input
            .filter(|index| lower[*index] == "input")
            .and_then(|_| first(&["instruction"]));
        let is_asked = input.is_some()
            || chat.is_some()
            || is_given(|field| matches!(field, Field::Input(_) | Field::Chat));
        if !is_asked {
            let other = |index: &usize| {
                let known = [
                    "id", "split", "verdict", "metadata", "source", "marks", "json",
                ];
                is_free(*index)
                    && Some(*index) != expected
                    && Some(*index) != context
                    && !known.contains(&lower[*index].as_str())
            };
            input = (0..names.len()).find(other);
        }
        let field = |index: usize, name: &String| {
            if let Some(field) = self.given.get(name) {
                return field.clone();
            }
            let (index, lower) = (Some(index), lower[index].as_str());
            match lower {
                _ if index == instruction => Field::Input(Some("instruction".to_owned())),
                _ if index == input && instruction.is_some() => {
                    Field::Input(Some("input".to_owned()))
                }
                _ if index == input => Field::Input(None),
                _ if index == expected => Field::Expected(None),
                _ if index == context => Field::Context,
                _ if index == chat => Field::Chat,
                "id" => Field::Id,
                "split" => Field::Split,
                "verdict" => Field::Verdict,
                "metadata" => Field::Metadata(None),
                "source" => Field::Source,
                "marks" => Field::Marks,
                "json" if self.is_own => Field::Ignore,
                _ => Field::Metadata(Some(name.clone())),
            }
        };
        names
            .iter()
            .enumerate()
            .map(|(index, name)| (name.clone(), field(index, name)))
            .collect()
    }

    /// The columns with their fields, for people to look at.
    pub(super) fn columns(&self) -> Vec<PreviewColumn> {
        let column = |(column, field): &(String, Field)| PreviewColumn {
            column: column.clone(),
            field: field.to_string(),
        };
        self.columns.iter().map(column).collect()
    }

    fn field(&self, name: &str) -> Field {
        let known = self.columns.iter().find(|(column, _)| column == name);
        match known {
            Some((_, field)) => field.clone(),
            // A column that the first rows did not have.
            None => self.given.get(name).cloned().unwrap_or_else(|| match name {
                "id" => Field::Id,
                "split" => Field::Split,
                "verdict" => Field::Verdict,
                "expected" => Field::Expected(None),
                "context" => Field::Context,
                "metadata" => Field::Metadata(None),
                "source" => Field::Source,
                "marks" => Field::Marks,
                other => Field::Metadata(Some(other.to_owned())),
            }),
        }
    }

    /// A row as an example.
    pub(super) fn example(&self, row: Map<String, Value>) -> Result<Example, Problem> {
        let mut row = unwrapped(&row).clone();
        if self.is_own {
            export::undo_csv(&mut row)?;
        }
        let mut fields = Map::new();
        for (column, value) in row {
            if !value.is_null() {
                let field = self.field(&column);
                place(&mut fields, field, value).map_err(|why| Problem::new(column, why))?;
            }
        }
        if !fields.contains_key("input") {
            return Err(Problem::new("", "there is no input in this row"));
        }
        serde_json::from_value(Value::Object(fields))
            .map_err(|error| Problem::new("", error.to_string()))
    }
}

/// OpenAI's newer evaluation files wrap each row in `item`.
fn unwrapped(row: &Map<String, Value>) -> &Map<String, Value> {
    let is_wrapped = row.keys().all(|key| key == "item" || key == "sample");
    match row.get("item") {
        Some(Value::Object(item)) if is_wrapped => item,
        _ => row,
    }
}

fn place(fields: &mut Map<String, Value>, field: Field, value: Value) -> Result<(), String> {
    match field {
        Field::Ignore => {}
        Field::Id => {
            let id = match value {
                Value::String(id) => id,
                Value::Number(number) => number.to_string(),
                _ => return Err("an id is a text or a number".to_owned()),
            };
            fields.insert("id".to_owned(), Value::String(id));
        }
        Field::Input(key) => put(fields, "input", key, value)?,
        Field::Expected(key) => put(fields, "expected", key, value)?,
        Field::Metadata(Some(key)) => put(fields, "metadata", Some(key), value)?,
        Field::Metadata(None) => match parsed(value) {
            Value::Object(map) => {
                for (key, value) in map {
                    put(fields, "metadata", Some(key), value)?;
                }
            }
            _ => return Err("metadata is a JSON object".to_owned()),
        },
        Field::Context => {
            let texts = match parsed(value) {
                Value::Array(items) => items.into_iter().map(as_text).collect(),
                one => vec![as_text(one)],
            };
            let list = fields
                .entry("context")
                .or_insert_with(|| Value::Array(Vec::new()));
            if let Value::Array(list) = list {
                list.extend(texts.into_iter().map(Value::String));
            }
        }
        Field::Split => {
            fields.insert("split".to_owned(), Value::String(as_text(value)));
        }
        Field::Verdict => {
            let verdict = as_text(value).to_lowercase();
            if !matches!(verdict.as_str(), "good" | "bad") {
                return Err(format!("a verdict is good or bad, not {verdict:?}"));
            }
            fields.insert("verdict".to_owned(), Value::String(verdict));
        }
        Field::Source => {
            fields.insert("source".to_owned(), parsed(value));
        }
        Field::Marks => {
            fields.insert("marks".to_owned(), parsed(value));
        }
        Field::Chat => chat(fields, parsed(value))?,
    }
    Ok(())
}

fn put(
    fields: &mut Map<String, Value>,
    field: &str,
    key: Option<String>,
    value: Value,
) -> Result<(), String> {
    let Some(key) = key else {
        fields.insert(field.to_owned(), value);
        return Ok(());
    };
    let object = fields
        .entry(field)
        .or_insert_with(|| Value::Object(Map::new()));
    match object {
        Value::Object(object) => {
            object.insert(key, value);
            Ok(())
        }
        _ => Err(format!(
            "two columns are {field}, one as a whole and one as a part"
        )),
    }
}

fn chat(fields: &mut Map<String, Value>, value: Value) -> Result<(), String> {
    let Value::Array(mut messages) = value else {
        return Err("messages are a list".to_owned());
    };
    let is_answer = messages
        .last()
        .is_some_and(|last| last["role"] == "assistant" || last["from"] == "gpt");
    if is_answer && let Some(last) = messages.pop() {
        let answer = match (last.get("content"), last.get("value")) {
            (Some(Value::String(text)), _) if last.get("tool_calls").is_none() => {
                Value::String(text.clone())
            }
            (None, Some(text)) => text.clone(),
            _ => last,
        };
        fields.insert("expected".to_owned(), answer);
    }
    if messages.is_empty() {
        return Err("there is no message before the answer".to_owned());
    }
    fields.insert("input".to_owned(), Value::Array(messages));
    Ok(())
}

/// JSON in a text cell, where it is a list or an object; anything else as it is.
fn parsed(value: Value) -> Value {
    let Value::String(text) = &value else {
        return value;
    };
    if !text.trim_start().starts_with(['[', '{']) {
        return value;
    }
    serde_json::from_str(text).unwrap_or(value)
}

fn as_text(value: Value) -> String {
    match value {
        Value::String(text) => text,
        other => other.to_string(),
    }
}
