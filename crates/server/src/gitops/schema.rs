//! The JSON Schemas of the files, for editors, and finding keys that a schema
//! does not know, for people.

use std::borrow::Cow;

use db::Kind;
use serde_json::{Map, Value, json};

use super::{ENVIRONMENTS_FILE, Files, Layout, SCHEMA_FOLDER, nearest, toml::step};

/// How deep references of a schema are followed.
const MAX_DEPTH: usize = 64;

/// The schema of a kind's TOML file: tags, labels and the document.
pub fn file_schema(kind: &Kind) -> Value {
    let mut document = (kind.schema)();
    // Definitions are found from the root of the file's schema.
    let definitions = document
        .as_object_mut()
        .and_then(|schema| schema.shift_remove("$defs"))
        .unwrap_or_else(|| json!({}));
    if let Some(schema) = document.as_object_mut() {
        schema.shift_remove("$schema");
        // What the text file holds is not in the TOML file.
        if kind.text.is_some() {
            schema.shift_remove("required");
        }
    }
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": format!("A {} of Meguri as a file", kind.name),
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "tags": {"description": "What lists can be narrowed by.", "type": "array", "items": {"type": "string"}, "uniqueItems": true},
            "pointers": {
                "description": "Where labels point: \"this\" is the document of this file, anything else a digest.",
                "type": "object",
                "additionalProperties": {"type": "string", "pattern": "^(this|sha256:[0-9a-f]{64})$"},
            },
            "document": document,
        },
        "$defs": definitions,
    })
}

/// The schemas as files of a tree, so that editors need no server.
pub fn schema_files(layout: &Layout) -> Files {
    let pretty = |schema: &Value| format!("{schema:#}\n");
    let mut files: Files = layout
        .iter()
        .map(|(_, kind)| (path_of(kind.name), pretty(&file_schema(kind))))
        .collect();
    let environments = ENVIRONMENTS_FILE.trim_end_matches(".toml");
    files.insert(
        path_of(environments),
        pretty(&super::environments::schema()),
    );
    files
}

/// The schema that `meguri schema` prints for this word; `None` for an unknown one.
pub fn schema_of(layout: &Layout, word: &str) -> Option<Value> {
    if word == "environments" {
        return Some(super::environments::schema());
    }
    let (_, kind) = layout.iter().find(|(_, kind)| kind.name == word)?;
    Some(file_schema(kind))
}

fn path_of(name: &str) -> String {
    format!("{SCHEMA_FOLDER}/{name}.json")
}

/// The first line of a file: where its schema is, seen from the file.
pub(super) fn schema_line(file: &str, name: &str) -> String {
    let up = "../".repeat(file.matches('/').count());
    let up = if up.is_empty() { "./" } else { &up };
    format!("#:schema {up}{}\n", path_of(name))
}

/// The first line, if it names a schema.
pub(super) fn schema_line_of(text: &str) -> Option<&str> {
    let line = text.split('\n').next()?;
    line.starts_with("#:schema ").then_some(line)
}

/// A key that the schema does not know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct UnknownKey {
    /// The JSON Pointer of its value.
    pub(super) pointer: String,
    pub(super) key: String,
    pub(super) suggestion: Option<String>,
}

/// Every key of a document that its schema does not know.
pub(super) fn unknown_keys(schema: &Value, document: &Value) -> Vec<UnknownKey> {
    let mut found = Vec::new();
    walk(schema, schema, document, "", 0, &mut found);
    found
}

fn walk(
    root: &Value,
    schema: &Value,
    value: &Value,
    pointer: &str,
    depth: usize,
    found: &mut Vec<UnknownKey>,
) {
    let resolved = resolve(root, schema);
    let Some(schema) = resolved.as_deref().and_then(Value::as_object) else {
        return;
    };
    if depth > MAX_DEPTH {
        return;
    }
    for part in list(schema, "allOf") {
        walk(root, part, value, pointer, depth + 1, found);
    }
    for word in ["anyOf", "oneOf"] {
        found.extend(walk_best(root, list(schema, word), value, pointer, depth));
    }
    match value {
        Value::Object(map) => walk_object(root, schema, map, pointer, depth, found),
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                let of_item = list(schema, "prefixItems")
                    .get(index)
                    .or_else(|| schema.get("items"));
                if let Some(of_item) = of_item {
                    walk(
                        root,
                        of_item,
                        item,
                        &format!("{pointer}/{index}"),
                        depth + 1,
                        found,
                    );
                }
            }
        }
        _ => {}
    }
}

/// Of several possible schemas the one that knows most of the value is what was meant.
fn walk_best(
    root: &Value,
    schemas: &[Value],
    value: &Value,
    pointer: &str,
    depth: usize,
) -> Vec<UnknownKey> {
    let tried = schemas.iter().filter_map(|schema| {
        if !may_be(&*resolve(root, schema)?, value) {
            return None;
        }
        let mut found = Vec::new();
        walk(root, schema, value, pointer, depth + 1, &mut found);
        Some(found)
    });
    tried.min_by_key(Vec::len).unwrap_or_default()
}

/// Whether the value has the schema's type and its constant keys.
fn may_be(schema: &Value, value: &Value) -> bool {
    let word = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let is_type = match schema.get("type") {
        Some(Value::String(wanted)) => wanted == word,
        Some(Value::Array(wanted)) => wanted.iter().any(|wanted| wanted == word),
        _ => true,
    };
    let constants = schema.get("properties").and_then(Value::as_object);
    let same_constants = constants.into_iter().flatten().all(|(key, property)| {
        match (property.get("const"), value.get(key)) {
            (Some(wanted), Some(given)) => wanted == given,
            _ => true,
        }
    });
    is_type && same_constants
}

fn walk_object(
    root: &Value,
    schema: &Map<String, Value>,
    map: &Map<String, Value>,
    pointer: &str,
    depth: usize,
    found: &mut Vec<UnknownKey>,
) {
    let empty = Map::new();
    let known = schema
        .get("properties")
        .and_then(Value::as_object)
        .unwrap_or(&empty);
    for (key, value) in map {
        let pointer = format!("{pointer}/{}", step(key));
        match (known.get(key), schema.get("additionalProperties")) {
            (Some(property), _) => walk(root, property, value, &pointer, depth + 1, found),
            (None, Some(Value::Bool(false))) => found.push(UnknownKey {
                pointer,
                key: key.clone(),
                suggestion: nearest(key, known.keys().map(String::as_str)).map(str::to_owned),
            }),
            (None, Some(others)) => walk(root, others, value, &pointer, depth + 1, found),
            (None, None) => {}
        }
    }
}

fn list<'a>(schema: &'a Map<String, Value>, key: &str) -> &'a [Value] {
    schema
        .get(key)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

/// The schema that a `$ref` means, within one document, with what stands beside the `$ref`:
/// the tag of an enum's variant is written so.
fn resolve<'a>(root: &'a Value, schema: &'a Value) -> Option<Cow<'a, Value>> {
    let mut schema = schema;
    let mut beside: Vec<&Map<String, Value>> = Vec::new();
    for _ in 0..MAX_DEPTH {
        let Some(reference) = schema.get("$ref").and_then(Value::as_str) else {
            return Some(with_properties(schema, &beside));
        };
        beside.extend(schema.get("properties").and_then(Value::as_object));
        schema = root.pointer(reference.strip_prefix('#')?)?;
    }
    None
}

fn with_properties<'a>(schema: &'a Value, beside: &[&Map<String, Value>]) -> Cow<'a, Value> {
    if beside.is_empty() || !schema.is_object() {
        return Cow::Borrowed(schema);
    }
    let mut whole = schema.clone();
    for (key, property) in beside.iter().copied().flatten() {
        whole["properties"][key] = property.clone();
    }
    Cow::Owned(whole)
}
