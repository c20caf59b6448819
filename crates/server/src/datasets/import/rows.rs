//! Rows out of files: what each format's file is made of, as columns with values.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};

use encoding_rs::Encoding;
use serde_json::{Map, Value};

use super::csv::Records;
use super::promptfoo;
use super::text::Utf8;
use super::{Format, MAX_ROW_BYTES, RowError};

/// A row of a file.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row {
    /// The line that it begins in, or its number where a file has no lines.
    pub(super) line: u64,
    /// Column → value.
    pub(super) columns: Map<String, Value>,
}

/// A whole file of this kind is read at once.
const MAX_WHOLE_BYTES: u64 = 64 << 20;

/// Calls `row` with every row until it says stop (`false`).
pub(super) fn read(
    file: Box<dyn Read + '_>,
    format: Format,
    encoding: Option<&'static Encoding>,
    mut row: impl FnMut(Result<Row, RowError>) -> bool,
) -> Result<(), RowError> {
    let text = Utf8::new(file, encoding).map_err(|error| RowError::io(1, &error))?;
    let text = BufReader::with_capacity(64 << 10, text);
    match format {
        Format::Csv => records(text, b',', &mut row),
        Format::Tsv => records(text, b'\t', &mut row),
        Format::Jsonl => lines(text, &mut row),
        Format::Json => whole(text, &mut row),
        Format::PromptfooCsv => {
            records(text, b',', &mut |found| row(found.and_then(promptfoo::row)))
        }
        Format::Promptfoo => promptfoo::tests(&whole_text(text)?, &mut row),
    }
}

fn records(
    text: impl BufRead,
    delimiter: u8,
    row: &mut dyn FnMut(Result<Row, RowError>) -> bool,
) -> Result<(), RowError> {
    let mut records = Records::new(text, delimiter);
    let Some(header) = records.next()? else {
        return Err(RowError::new(1, "the file is empty"));
    };
    let columns: Vec<String> = header
        .cells
        .iter()
        .map(|name| name.trim().to_owned())
        .collect();
    if let Some(index) =
        (1..columns.len()).find(|index| columns[..*index].contains(&columns[*index]))
    {
        return Err(RowError::new(
            header.line,
            format!("two columns are called {:?}", columns[index]),
        ));
    }
    while let Some(record) = records.next()? {
        let (found, wanted) = (record.cells.len(), columns.len());
        let outcome = if found == wanted {
            let cells = record.cells.into_iter().map(cell);
            Ok(Row {
                line: record.line,
                columns: columns.iter().cloned().zip(cells).collect(),
            })
        } else {
            Err(RowError::new(
                record.line,
                format!("this row has {found} cells; the header has {wanted}"),
            ))
        };
        if !row(outcome) {
            break;
        }
    }
    Ok(())
}

fn lines(
    mut text: impl BufRead,
    row: &mut dyn FnMut(Result<Row, RowError>) -> bool,
) -> Result<(), RowError> {
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        let mut limited = text.by_ref().take(MAX_ROW_BYTES as u64 + 1);
        let read = limited
            .read_until(b'\n', &mut line)
            .map_err(|error| RowError::io(number, &error))?;
        if read == 0 {
            break;
        }
        if line.len() > MAX_ROW_BYTES {
            return Err(RowError::too_large(number));
        }
        let content = line.trim_ascii();
        if !content.is_empty() && !row(object(content, number)) {
            break;
        }
    }
    Ok(())
}

fn object(line: &[u8], number: u64) -> Result<Row, RowError> {
    match serde_json::from_slice(line) {
        Ok(Value::Object(columns)) => Ok(Row {
            line: number,
            columns,
        }),
        Ok(_) => Err(RowError::new(number, "a line is a JSON object, {…}")),
        Err(error) => Err(RowError::new(
            number,
            format!("column {}: {error}", error.column()),
        )),
    }
}

fn whole_text(text: impl BufRead) -> Result<String, RowError> {
    let mut content = String::new();
    let mut limited = text.take(MAX_WHOLE_BYTES + 1);
    limited
        .read_to_string(&mut content)
        .map_err(|error| RowError::io(1, &error))?;
    if content.len() as u64 > MAX_WHOLE_BYTES {
        let why = "a file of this format has at most 64 MiB; JSON Lines may be larger";
        return Err(RowError::new(1, why));
    }
    Ok(content)
}

/// A list of objects, or an object that holds one list of objects.
fn whole(
    text: impl BufRead,
    row: &mut dyn FnMut(Result<Row, RowError>) -> bool,
) -> Result<(), RowError> {
    let content: Value = serde_json::from_str(&whole_text(text)?)
        .map_err(|error| RowError::new(error.line() as u64, error.to_string()))?;
    let items = match content {
        Value::Array(items) => items,
        Value::Object(map) => {
            let mut lists = map.into_iter().filter_map(|(_, value)| match value {
                Value::Array(items) if items.iter().all(Value::is_object) => Some(items),
                _ => None,
            });
            match (lists.next(), lists.next()) {
                (Some(items), None) => items,
                _ => {
                    return Err(RowError::new(
                        1,
                        "this is neither a list of objects nor an object with one",
                    ));
                }
            }
        }
        _ => return Err(RowError::new(1, "this is no list of objects")),
    };
    for (item, number) in items.into_iter().zip(1..) {
        let outcome = match item {
            Value::Object(columns) => Ok(Row {
                line: number,
                columns,
            }),
            _ => Err(RowError::new(number, "this item is no object")),
        };
        if !row(outcome) {
            break;
        }
    }
    Ok(())
}

/// Opens a file; `.gz` is unpacked.
pub(super) fn open(path: &std::path::Path, name: &str) -> std::io::Result<Box<dyn Read>> {
    let file = File::open(path)?;
    if name.to_ascii_lowercase().ends_with(".gz") {
        return Ok(Box::new(flate2::read::MultiGzDecoder::new(BufReader::new(
            file,
        ))));
    }
    Ok(Box::new(file))
}

/// Whether a JSON file is a configuration with tests in it.
pub(super) fn holds_tests(file: impl Read) -> bool {
    let mut content = Vec::new();
    let read = file.take(MAX_WHOLE_BYTES).read_to_end(&mut content);
    if read.is_err() {
        return false;
    }
    match serde_json::from_slice(&content) {
        Ok(Value::Object(map)) => map.contains_key("tests"),
        Ok(Value::Array(items)) => items.first().is_some_and(|item| item.get("vars").is_some()),
        _ => false,
    }
}

/// A cell's text; a cell with nothing in it holds nothing.
fn cell(text: String) -> Value {
    if text.is_empty() {
        Value::Null
    } else {
        Value::String(text)
    }
}
