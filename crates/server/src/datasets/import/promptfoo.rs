//! Test files of promptfoo: `tests` with `vars` and `assert`, as YAML, JSON or CSV.
//!
//! `vars` become the input. An assertion that names one right answer becomes the
//! expected output; all of them are kept as they are under `metadata.assert`, so that
//! nothing is lost that an evaluator could be made of.

use serde_json::{Map, Value, json};

use super::RowError;
use super::rows::Row;

/// Assertions whose value is the right answer, the most telling first.
const ANSWERS: [&str; 5] = ["equals", "is-equal", "icontains", "contains", "similar"];

/// The tests of a configuration or of a file with nothing but tests.
pub(super) fn tests(
    text: &str,
    row: &mut dyn FnMut(Result<Row, RowError>) -> bool,
) -> Result<(), RowError> {
    let content: Value = serde_yaml_ng::from_str(text).map_err(|error| {
        let line = error.location().map_or(1, |at| at.line() as u64);
        RowError::new(line, error.to_string())
    })?;
    let (tests, defaults) = match content {
        Value::Array(tests) => (tests, Map::new()),
        Value::Object(mut map) => {
            let defaults = match map.remove("defaultTest") {
                Some(Value::Object(defaults)) => defaults,
                _ => Map::new(),
            };
            match map.remove("tests") {
                Some(Value::Array(tests)) => (tests, defaults),
                Some(Value::String(path)) => {
                    return Err(RowError::new(
                        1,
                        format!("the tests are in another file: give {path}"),
                    ));
                }
                _ => return Err(RowError::new(1, "there is no list of tests in this file")),
            }
        }
        _ => return Err(RowError::new(1, "there is no list of tests in this file")),
    };
    for (item, number) in tests.into_iter().zip(1..) {
        if !row(test(item, &defaults)
            .map_err(|why| RowError::new(number, format!("test {number}: {why}")))
            .map(|columns| Row {
                line: number,
                columns,
            }))
        {
            break;
        }
    }
    Ok(())
}

fn test(item: Value, defaults: &Map<String, Value>) -> Result<Map<String, Value>, String> {
    let mut fields = match item {
        Value::Object(fields) => fields,
        Value::String(path) => return Err(format!("it is in another file: give {path}")),
        _ => return Err("it is no object".to_owned()),
    };
    let mut vars = match defaults.get("vars") {
        Some(Value::Object(vars)) => vars.clone(),
        _ => Map::new(),
    };
    match fields.remove("vars") {
        Some(Value::Object(own)) => vars.extend(own),
        Some(Value::String(path)) => return Err(format!("its vars are in another file, {path}")),
        _ => {}
    }
    if vars.is_empty() {
        return Err("it has no vars".to_owned());
    }
    if let Some((key, path)) = vars
        .iter()
        .find_map(|(key, value)| Some((key, value.as_str()?.strip_prefix("file://")?)))
    {
        return Err(format!(
            "the variable {key} is in another file, {path}, which is not read"
        ));
    }
    let mut asserts = list(defaults.get("assert"));
    asserts.extend(list(fields.get("assert")));
    let mut metadata = match fields.remove("metadata") {
        Some(Value::Object(metadata)) => metadata,
        _ => Map::new(),
    };
    if let Some(description) = fields.remove("description") {
        metadata.insert("description".to_owned(), description);
    }
    let expected = expected(&asserts);
    if !asserts.is_empty() {
        metadata.insert("assert".to_owned(), Value::Array(asserts));
    }
    Ok(columns(vars, expected, metadata))
}

fn list(value: Option<&Value>) -> Vec<Value> {
    value.and_then(Value::as_array).cloned().unwrap_or_default()
}

fn columns(
    vars: Map<String, Value>,
    expected: Option<Value>,
    metadata: Map<String, Value>,
) -> Map<String, Value> {
    let mut columns = Map::new();
    columns.insert("input".to_owned(), Value::Object(vars));
    if let Some(expected) = expected {
        columns.insert("expected".to_owned(), expected);
    }
    if !metadata.is_empty() {
        columns.insert("metadata".to_owned(), Value::Object(metadata));
    }
    columns
}

fn expected(asserts: &[Value]) -> Option<Value> {
    ANSWERS.iter().find_map(|kind| {
        let found = asserts.iter().find(|assert| assert["type"] == **kind)?;
        Some(found["value"].clone()).filter(|value| !value.is_null())
    })
}

/// A row of a CSV of tests: `__expected…` are assertions, `__description` and
/// `__metadata:KEY` are what they say, every other column is a variable.
pub(super) fn row(row: Row) -> Result<Row, RowError> {
    let (mut vars, mut metadata, mut asserts) = (Map::new(), Map::new(), Vec::new());
    for (column, value) in row.columns {
        let text = value.as_str().unwrap_or_default();
        if column.starts_with("__expected") {
            if !text.is_empty() {
                asserts.push(assertion(text));
            }
        } else if column == "__description" {
            metadata.insert("description".to_owned(), value);
        } else if let Some(key) = column.strip_prefix("__metadata:") {
            metadata.insert(key.trim_end_matches("[]").to_owned(), value);
        } else if column.starts_with("__") {
            metadata.insert(column.trim_start_matches('_').to_owned(), value);
        } else {
            vars.insert(column, Value::String(text.to_owned()));
        }
    }
    if vars.is_empty() {
        return Err(RowError::new(
            row.line,
            "there is no column with a variable",
        ));
    }
    let expected = expected(&asserts);
    if !asserts.is_empty() {
        metadata.insert("assert".to_owned(), Value::Array(asserts));
    }
    Ok(Row {
        line: row.line,
        columns: columns(vars, expected, metadata),
    })
}

/// `contains: Paris` is an assertion of that type; a text without one must be met exactly.
fn assertion(text: &str) -> Value {
    let kind = text
        .split_once(':')
        .map(|(kind, value)| (kind.trim(), value.trim()));
    match kind {
        Some((kind, value))
            if !kind.is_empty()
                && kind
                    .chars()
                    .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-') =>
        {
            json!({"type": kind, "value": value})
        }
        _ => json!({"type": "equals", "value": text}),
    }
}
