//! Documents as TOML: written so that the same value is always the same bytes,
//! read so that every value knows its line and column.
//!
//! TOML has no null, no integers beyond 64 bits and no way to tell them. What it
//! cannot say is `{ "$json" = "null" }`: a table with that one key holds JSON as
//! text. A document that really has such a table gets it the same way, so nothing
//! is lost.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::ops::Range;

use serde_json::{Map, Number, Value};
use toml_edit::{Item, TableLike};

/// The key of a value that TOML cannot say.
const JSON_KEY: &str = "$json";
/// Arrays and inline tables up to this many characters stay on one line.
const LINE_CHARS: usize = 100;

/// A text with what was read from it.
#[derive(Debug, Clone)]
pub(super) struct Read {
    pub(super) value: Value,
    /// By JSON Pointer: where the value stands.
    values: HashMap<String, Range<usize>>,
    /// By JSON Pointer: where the key of the value stands.
    keys: HashMap<String, Range<usize>>,
}

/// A mistake in the text, and the byte that it is at.
#[derive(Debug, Clone)]
pub(super) struct Mistake {
    pub(super) at: usize,
    pub(super) message: String,
}

impl Read {
    /// The first byte of the value of this pointer, or of the nearest value around it.
    pub(super) fn at(&self, pointer: &str) -> usize {
        self.nearest(&self.values, pointer)
    }

    /// The first byte of the key.
    pub(super) fn key_at(&self, pointer: &str) -> usize {
        match self.keys.get(pointer) {
            Some(range) => range.start,
            None => self.at(pointer),
        }
    }

    /// Everything that a comment can belong to, by the byte that it begins at.
    pub(super) fn places(&self) -> BTreeMap<usize, &str> {
        let mut places: BTreeMap<usize, &str> = BTreeMap::new();
        for (pointer, range) in self.values.iter().chain(&self.keys) {
            // Of a list of tables and its first table the table.
            let place = places.entry(range.start).or_insert(pointer);
            if pointer.len() > place.len() {
                *place = pointer;
            }
        }
        places
    }

    /// Whether the text has this very value.
    pub(super) fn has(&self, pointer: &str) -> bool {
        self.values.contains_key(pointer) || self.keys.contains_key(pointer)
    }

    fn nearest(&self, spans: &HashMap<String, Range<usize>>, pointer: &str) -> usize {
        let mut pointer = pointer;
        loop {
            if let Some(range) = spans.get(pointer).or_else(|| self.keys.get(pointer)) {
                return range.start;
            }
            match pointer.rfind('/') {
                Some(cut) => pointer = &pointer[..cut],
                None => return 0,
            }
        }
    }
}

/// Line and column of a byte, both from 1; columns count characters.
pub(super) fn line_and_column(text: &str, at: usize) -> (usize, usize) {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    let before = &text[..at];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (
        before.matches('\n').count() + 1,
        before[line_start..].chars().count() + 1,
    )
}

/// `/` and `~` in a key, as JSON Pointers write them.
pub(super) fn step(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

/// Reads TOML.
pub(super) fn read(text: &str) -> Result<Read, Mistake> {
    let document = toml_edit::Document::parse(text).map_err(|error| Mistake {
        at: error.span().map_or(0, |span| span.start),
        message: error.message().trim().replace('\n', ", "),
    })?;
    let mut read = Read {
        value: Value::Null,
        values: HashMap::new(),
        keys: HashMap::new(),
    };
    read.value = read_table(document.as_table(), "", &mut read)?;
    Ok(read)
}

fn read_item(item: &Item, pointer: &str, read: &mut Read) -> Result<Value, Mistake> {
    if let Some(span) = item.span() {
        read.values.insert(pointer.to_owned(), span);
    }
    match item {
        Item::None => Ok(Value::Null),
        Item::Value(value) => read_value(value, pointer, read),
        Item::Table(table) => read_table(table, pointer, read),
        Item::ArrayOfTables(tables) => {
            let mut items = Vec::with_capacity(tables.len());
            for (index, table) in tables.iter().enumerate() {
                let pointer = format!("{pointer}/{index}");
                if let Some(span) = table.span() {
                    read.values.insert(pointer.clone(), span);
                }
                items.push(read_table(table, &pointer, read)?);
            }
            Ok(Value::Array(items))
        }
    }
}

fn read_value(value: &toml_edit::Value, pointer: &str, read: &mut Read) -> Result<Value, Mistake> {
    let at = value.span().map_or(0, |span| span.start);
    if let Some(span) = value.span() {
        read.values.insert(pointer.to_owned(), span);
    }
    Ok(match value {
        toml_edit::Value::String(text) => Value::from(text.value().as_str()),
        toml_edit::Value::Integer(number) => Value::from(*number.value()),
        toml_edit::Value::Boolean(flag) => Value::from(*flag.value()),
        toml_edit::Value::Float(number) => match Number::from_f64(*number.value()) {
            Some(number) => Value::Number(number),
            None => return Err(mistake(at, "inf and nan are no numbers of a document")),
        },
        toml_edit::Value::Datetime(_) => {
            return Err(mistake(at, "a document has no dates; write it in quotes"));
        }
        toml_edit::Value::Array(array) => {
            let mut items = Vec::with_capacity(array.len());
            for (index, item) in array.iter().enumerate() {
                items.push(read_value(item, &format!("{pointer}/{index}"), read)?);
            }
            Value::Array(items)
        }
        toml_edit::Value::InlineTable(table) => return read_inline(table, pointer, at, read),
    })
}

fn mistake(at: usize, message: impl Into<String>) -> Mistake {
    Mistake {
        at,
        message: message.into(),
    }
}

fn read_inline(
    table: &toml_edit::InlineTable,
    pointer: &str,
    at: usize,
    read: &mut Read,
) -> Result<Value, Mistake> {
    match as_json(table) {
        Some(json) => serde_json::from_str(&json)
            .map_err(|error| mistake(at, format!("the text of {JSON_KEY} is no JSON: {error}"))),
        None => read_table(table, pointer, read),
    }
}

/// The text of a table that is JSON.
fn as_json(table: &dyn TableLike) -> Option<String> {
    if table.len() != 1 {
        return None;
    }
    Some(table.get(JSON_KEY)?.as_str()?.to_owned())
}

fn read_table(table: &dyn TableLike, pointer: &str, read: &mut Read) -> Result<Value, Mistake> {
    if let Some(json) = as_json(table) {
        return serde_json::from_str(&json).map_err(|error| {
            mistake(
                read.at(pointer),
                format!("the text of {JSON_KEY} is no JSON: {error}"),
            )
        });
    }
    let mut map = Map::new();
    for (key, item) in table.iter() {
        let pointer = format!("{pointer}/{}", step(key));
        if let Some(span) = table.key(key).and_then(toml_edit::Key::span) {
            read.keys.insert(pointer.clone(), span);
        }
        map.insert(key.to_owned(), read_item(item, &pointer, read)?);
    }
    Ok(Value::Object(map))
}

/// Writes a table's keys, sorted, below `[path]`; the header is written by the caller for the root.
pub(super) fn write_table(map: &Map<String, Value>, path: &[&str], out: &mut String) {
    let mut keys: Vec<&String> = map.keys().collect();
    keys.sort();
    let (tables, values): (Vec<&String>, Vec<&String>) =
        keys.into_iter().partition(|key| is_section(&map[*key]));
    for key in values {
        let _ = write!(out, "{} = ", write_key(key));
        write_value(&map[key], key.chars().count() + 3, 0, out);
        out.push('\n');
    }
    for key in tables {
        let mut path = path.to_vec();
        path.push(key);
        write_section(&map[key], &path, out);
    }
}

/// What gets a header of its own: a table, or a list of tables that does not fit on a line.
fn is_section(value: &Value) -> bool {
    match value {
        Value::Object(map) => !is_escaped(map) && !fits(value),
        Value::Array(items) => {
            !items.is_empty()
                && !fits(value)
                && items
                    .iter()
                    .all(|item| item.as_object().is_some_and(|map| !is_escaped(map)))
        }
        _ => false,
    }
}

fn fits(value: &Value) -> bool {
    let mut line = String::new();
    write_inline(value, &mut line);
    line.chars().count() <= LINE_CHARS / 2 && !has_newline(value)
}

fn has_newline(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\n'),
        Value::Array(items) => items.iter().any(has_newline),
        Value::Object(map) => map.values().any(has_newline),
        _ => false,
    }
}

pub(super) fn write_section(value: &Value, path: &[&str], out: &mut String) {
    let header = path
        .iter()
        .map(|key| write_key(key))
        .collect::<Vec<_>>()
        .join(".");
    match value {
        Value::Array(items) => {
            for item in items {
                let _ = write!(out, "\n[[{header}]]\n");
                if let Value::Object(map) = item {
                    write_table(map, path, out);
                }
            }
        }
        Value::Object(map) => {
            let _ = write!(out, "\n[{header}]\n");
            write_table(map, path, out);
        }
        _ => {}
    }
}

/// A table that would read as an escaped value, so that it must be escaped itself.
pub(super) fn is_escaped(map: &Map<String, Value>) -> bool {
    map.len() == 1 && map.get(JSON_KEY).is_some_and(Value::is_string)
}

/// A value after `key = `; long arrays get a line per item.
fn write_value(value: &Value, column: usize, depth: usize, out: &mut String) {
    if let Value::String(text) = value
        && text.contains('\n')
    {
        return write_multi_line(text, out);
    }
    let mut line = String::new();
    write_inline(value, &mut line);
    let items = match value {
        Value::Array(items) if column + line.chars().count() > LINE_CHARS => items,
        _ => return out.push_str(&line),
    };
    out.push_str("[\n");
    for item in items {
        out.push_str(&"    ".repeat(depth + 1));
        write_value(item, 4 * (depth + 1), depth + 1, out);
        out.push_str(",\n");
    }
    out.push_str(&"    ".repeat(depth));
    out.push(']');
}

fn write_inline(value: &Value, out: &mut String) {
    match value {
        Value::Null => write_json(value, out),
        Value::Bool(flag) => {
            let _ = write!(out, "{flag}");
        }
        Value::Number(number) => write_number(number, value, out),
        Value::String(text) => write_string(text, out),
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                out.push_str(if index > 0 { ", " } else { "" });
                write_inline(item, out);
            }
            out.push(']');
        }
        Value::Object(map) if is_escaped(map) => write_json(value, out),
        Value::Object(map) if map.is_empty() => out.push_str("{}"),
        Value::Object(map) => {
            let mut keys: Vec<&String> = map.keys().collect();
            keys.sort();
            out.push_str("{ ");
            for (index, key) in keys.into_iter().enumerate() {
                out.push_str(if index > 0 { ", " } else { "" });
                let _ = write!(out, "{} = ", write_key(key));
                write_inline(&map[key], out);
            }
            out.push_str(" }");
        }
    }
}

fn write_json(value: &Value, out: &mut String) {
    let _ = write!(out, "{{ \"{JSON_KEY}\" = ");
    write_string(&value.to_string(), out);
    out.push_str(" }");
}

fn write_number(number: &Number, value: &Value, out: &mut String) {
    if let Some(integer) = number.as_i64() {
        let _ = write!(out, "{integer}");
    } else if let (Some(float), false) = (number.as_f64(), number.is_u64()) {
        // With a point or an exponent, or it would read as an integer.
        let _ = write!(out, "{float:?}");
    } else {
        write_json(value, out);
    }
}

fn write_key(key: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if !key.is_empty() && key.chars().all(bare) {
        return key.to_owned();
    }
    let mut quoted = String::new();
    write_string(key, &mut quoted);
    quoted
}

pub(super) fn write_string(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            c => write_char(c, out),
        }
    }
    out.push('"');
}

fn write_multi_line(text: &str, out: &mut String) {
    out.push_str("\"\"\"\n");
    let mut quotes = 0;
    for (at, c) in text.char_indices() {
        // Two quotes in a row are text, also at the end; a third would end the string.
        quotes = if c == '"' { quotes + 1 } else { 0 };
        match c {
            '"' if quotes == 3 => {
                out.push_str("\\\"");
                quotes = 0;
            }
            '"' => out.push('"'),
            '\n' => out.push('\n'),
            // What looks like a merge conflict in a file must be one.
            '<' | '>' if super::text::begins_conflict_line(text, at) => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => write_char(c, out),
        }
    }
    out.push_str("\"\"\"");
}

/// Everything but quotes and newlines. What is invisible or turns the direction of
/// text is written as an escape, so that a review sees it.
fn write_char(c: char, out: &mut String) {
    match c {
        '\\' => out.push_str("\\\\"),
        '\t' => out.push_str("\\t"),
        '\r' => out.push_str("\\r"),
        c if c.is_control() || base::text::is_deceptive(c) => {
            let code = u32::from(c);
            let _ = if code > 0xffff {
                write!(out, "\\U{code:08x}")
            } else {
                write!(out, "\\u{code:04x}")
            };
        }
        c => out.push(c),
    }
}
