//! Exports: CSV that spreadsheets open safely, JSON Lines with everything, and
//! OpenAI's fine-tuning file. The first two come back by an import as they were.

use serde_json::{Map, Value, json};

use db::Problem;

use super::example::Example;

/// What kind of file it is.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum ExportFormat {
    /// One row an example; texts as they are, everything else as JSON.
    Csv,
    /// One example a line, with all that is known of it.
    Jsonl,
    /// `{"messages": […]}` a line: what is asked and the expected answer; examples without one are left out.
    OpenaiChat,
}

const COLUMNS: [&str; 10] = [
    "id", "split", "verdict", "input", "expected", "context", "metadata", "source", "marks", "json",
];

impl ExportFormat {
    /// The ending of the file's name.
    pub fn ending(self) -> &'static str {
        match self {
            Self::Csv => "csv",
            Self::Jsonl => "jsonl",
            Self::OpenaiChat => "chat.jsonl",
        }
    }

    /// The media type.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Csv => "text/csv; charset=utf-8",
            Self::Jsonl | Self::OpenaiChat => "application/jsonl",
        }
    }

    /// What stands before the first example.
    pub fn header(self, with_mark: bool) -> String {
        match self {
            Self::Csv => {
                let mark = if with_mark { "\u{feff}" } else { "" };
                format!("{mark}{}\r\n", COLUMNS.join(","))
            }
            Self::Jsonl | Self::OpenaiChat => String::new(),
        }
    }

    /// An example as a line or row; empty where the format cannot hold it.
    pub fn line(self, example: &Example) -> String {
        match self {
            Self::Csv => csv_row(example),
            Self::Jsonl => serde_json::to_string(example)
                .map(|line| line + "\n")
                .unwrap_or_default(),
            Self::OpenaiChat => chat_line(example),
        }
    }
}

fn csv_row(example: &Example) -> String {
    let mut as_json = Vec::new();
    let mut value = |name, value: Option<&Value>| match value {
        None => String::new(),
        // A text that is empty would read as absent.
        Some(Value::String(text)) if !text.is_empty() => text.clone(),
        Some(other) => {
            as_json.push(name);
            other.to_string()
        }
    };
    let input = value("input", Some(&example.input));
    let expected = value("expected", example.expected.as_ref());
    let list = |is_empty: bool, value: Value| {
        if is_empty {
            String::new()
        } else {
            value.to_string()
        }
    };
    let cells = [
        example.id.clone(),
        example.split.clone().unwrap_or_default(),
        example
            .verdict
            .map(|verdict| verdict.name().to_owned())
            .unwrap_or_default(),
        input,
        expected,
        list(example.context.is_empty(), json!(example.context)),
        list(example.metadata.is_empty(), json!(example.metadata)),
        list(example.source.is_empty(), json!(example.source)),
        list(example.marks.is_empty(), json!(example.marks)),
        as_json.join(" "),
    ];
    let cells: Vec<String> = cells.iter().map(|cell| csv_cell(cell)).collect();
    cells.join(",") + "\r\n"
}

/// Whether a spreadsheet would take it for a formula, quotes before it aside.
fn is_formula(text: &str) -> bool {
    text.trim_start_matches('\'')
        .starts_with(['=', '+', '-', '@', '\t', '\r'])
}

/// A cell of CSV that a spreadsheet takes for text, whatever it begins with.
pub(crate) fn csv_cell(text: &str) -> String {
    let safe = if is_formula(text) {
        format!("'{text}")
    } else {
        text.to_owned()
    };
    let needs_quotes =
        safe.contains([',', '"', '\n', '\r']) || safe.starts_with(' ') || safe.ends_with(' ');
    if needs_quotes {
        format!("\"{}\"", safe.replace('"', "\"\""))
    } else {
        safe
    }
}

/// Whether these are the columns of our own CSV.
pub(super) fn is_own_csv<'a>(columns: impl Iterator<Item = &'a str>) -> bool {
    columns.eq(COLUMNS)
}

/// Takes back what [`csv_row`] did to a row: quotes before formulas, JSON in cells.
pub(super) fn undo_csv(row: &mut Map<String, Value>) -> Result<(), Problem> {
    let as_json = row
        .get("json")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned();
    let as_json: Vec<&str> = as_json.split(' ').collect();
    for (column, value) in row.iter_mut() {
        let Value::String(text) = value else { continue };
        if text.starts_with('\'') && is_formula(text) {
            text.remove(0);
        }
        let is_json = as_json.contains(&column.as_str())
            || matches!(column.as_str(), "context" | "metadata" | "source" | "marks");
        if is_json && !text.is_empty() {
            *value = serde_json::from_str(text).map_err(|error| {
                Problem::new(column.clone(), format!("this is no JSON: {error}"))
            })?;
        }
    }
    Ok(())
}

fn chat_line(example: &Example) -> String {
    let Some(expected) = &example.expected else {
        return String::new();
    };
    let mut messages = match &example.input {
        Value::Array(items)
            if items.iter().all(|item| item.get("role").is_some()) && !items.is_empty() =>
        {
            items.clone()
        }
        Value::Object(map) if map.get("messages").is_some_and(Value::is_array) => {
            map["messages"].as_array().cloned().unwrap_or_default()
        }
        other => vec![json!({"role": "user", "content": plain(other)})],
    };
    messages.push(match expected {
        Value::Object(map) if map.contains_key("role") => expected.clone(),
        other => json!({"role": "assistant", "content": plain(other)}),
    });
    json!({"messages": messages}).to_string() + "\n"
}

/// A value as somebody would say it: the one text of an object, else JSON.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Object(map) if map.len() == 1 => match map.values().next() {
            Some(Value::String(text)) => text.clone(),
            _ => value.to_string(),
        },
        other => other.to_string(),
    }
}
