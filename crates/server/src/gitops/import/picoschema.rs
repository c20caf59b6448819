//! Picoschema, the short form of dotprompt's schemas, as JSON Schema.

use serde_json::{Map, Value, json};

const SCALARS: &[&str] = &["string", "boolean", "null", "number", "integer", "any"];

/// A schema of a file's front matter: JSON Schema stays as it is.
///
/// # Errors
/// What has no counterpart, with the path of fields that leads to it.
pub(super) fn to_json_schema(schema: &Value) -> Result<Value, String> {
    let is_json_schema = schema.get("properties").is_some_and(Value::is_object)
        || schema
            .get("type")
            .and_then(Value::as_str)
            .is_some_and(|word| word == "object" || word == "array" || SCALARS.contains(&word));
    if is_json_schema {
        return Ok(schema.clone());
    }
    convert(schema, "")
}

fn convert(schema: &Value, at: &str) -> Result<Value, String> {
    match schema {
        Value::String(text) => scalar(text, at),
        Value::Object(map) => object(map, at),
        Value::Null => Ok(json!({})),
        _ => Err(format!("{at:?}: a schema is a type or a list of fields")),
    }
}

/// `string, what it is for`.
fn scalar(text: &str, at: &str) -> Result<Value, String> {
    let (word, description) = match text.split_once(',') {
        Some((word, description)) => (word.trim(), description.trim()),
        None => (text.trim(), ""),
    };
    if !SCALARS.contains(&word) {
        return Err(format!(
            "{at:?}: {word:?} is no type; named schemas have no counterpart"
        ));
    }
    let mut schema = Map::new();
    if word != "any" {
        schema.insert("type".to_owned(), json!(word));
    }
    if !description.is_empty() {
        schema.insert("description".to_owned(), json!(description));
    }
    Ok(Value::Object(schema))
}

fn object(map: &Map<String, Value>, at: &str) -> Result<Value, String> {
    let mut properties = Map::new();
    let mut required = Vec::new();
    let mut others = Value::Bool(false);
    for (key, value) in map {
        if key.starts_with("(*)") {
            others = convert(value, &format!("{at}/(*)"))?;
            continue;
        }
        let (head, kind) = match key.split_once('(') {
            Some((head, kind)) => (head.trim(), Some(kind.trim_end_matches(')').trim())),
            None => (key.trim(), None),
        };
        let (name, optional) = match head.strip_suffix('?') {
            Some(name) => (name, true),
            None => (head, false),
        };
        let at = format!("{at}/{name}");
        let mut schema = match kind {
            Some(kind) => compound(kind, value, &at)?,
            None => convert(value, &at)?,
        };
        if optional {
            make_nullable(&mut schema);
        } else {
            required.push(json!(name));
        }
        properties.insert(name.to_owned(), schema);
    }
    let mut schema = json!({
        "type": "object",
        "properties": properties,
        "additionalProperties": others,
    });
    if !required.is_empty() {
        schema["required"] = Value::Array(required);
    }
    Ok(schema)
}

/// `tags(array, what they say): string`.
fn compound(kind: &str, value: &Value, at: &str) -> Result<Value, String> {
    let (word, description) = match kind.split_once(',') {
        Some((word, description)) => (word.trim(), description.trim()),
        None => (kind, ""),
    };
    let mut schema = match (word, value) {
        ("array", value) => json!({"type": "array", "items": convert(value, at)?}),
        ("object", value) => convert(value, at)?,
        ("enum", Value::Array(values)) => json!({"enum": values}),
        _ => return Err(format!("{at:?}: ({word}) is none of array, object, enum")),
    };
    if !description.is_empty() {
        schema["description"] = json!(description);
    }
    Ok(schema)
}

/// What may be left out may be null as well.
fn make_nullable(schema: &mut Value) {
    let Some(map) = schema.as_object_mut() else {
        return;
    };
    if let Some(Value::String(word)) = map.get("type").cloned() {
        map.insert("type".to_owned(), json!([word, "null"]));
    }
    if let Some(Value::Array(values)) = map.get_mut("enum") {
        values.push(Value::Null);
    }
}
