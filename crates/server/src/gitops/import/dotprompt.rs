//! `.prompt` files: YAML front matter, then Handlebars.
//!
//! `folder/name.prompt` is the name `folder/name`; `name.variant.prompt` is another
//! version of it that the label `variant` points to; `_name.prompt` is a partial.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::handlebars::{self, Part};
use super::{Foreign, Importing, our_role, parse_yaml, picoschema};
use crate::gitops::{Finding, did_you_mean};

const KEYS: &[&str] = &[
    "name",
    "variant",
    "version",
    "description",
    "model",
    "config",
    "input",
    "output",
    "tools",
    "toolDefs",
    "metadata",
];

/// Names of Google's parameters and ours.
const PARAMETERS: &[(&str, &str)] = &[
    ("temperature", "temperature"),
    ("maxOutputTokens", "max_tokens"),
    ("topP", "top_p"),
    ("stopSequences", "stop"),
    ("presencePenalty", "presence_penalty"),
    ("frequencyPenalty", "frequency_penalty"),
    ("seed", "seed"),
    ("max_tokens", "max_tokens"),
    ("top_p", "top_p"),
    ("stop", "stop"),
];

pub(super) fn read(importing: &mut Importing) -> anyhow::Result<()> {
    for file in importing.root.files(&[".prompt"])? {
        match importing.root.read(&file) {
            Ok(text) => read_file(importing, &file, &text),
            Err(why) => importing.refuse(&file, why),
        }
    }
    Ok(())
}

fn read_file(importing: &mut Importing, file: &str, text: &str) {
    let (front, body, body_line) = split(text);
    let front = match front {
        None => Value::Object(Map::new()),
        Some(front) => match parse_yaml(importing, file, front, 2) {
            Some(Value::Null) => Value::Object(Map::new()),
            Some(value) => value,
            None => return,
        },
    };
    let Some(front) = front.as_object() else {
        importing.refuse(file, "its front matter is no table of keys");
        return;
    };
    // Keys with a dot are extensions of one program, which the format wants ignored.
    let unknown = front
        .keys()
        .filter(|key| !KEYS.contains(&key.as_str()) && !key.contains('.') && *key != "ext");
    for key in unknown {
        let finding = Finding::error(file, format!("unknown key {key:?} in the front matter"));
        let finding = finding.hint(did_you_mean(key, KEYS.iter().copied()));
        importing.findings.push(finding);
    }
    let (name, variant) = name_of(file);
    let mut document = Map::new();
    let inputs = settings(importing, file, front, &mut document);
    let known = inputs.as_ref().map(required);
    match handlebars::convert(body, known.as_ref()) {
        Ok(converted) => {
            messages(importing, file, converted.parts, &mut document);
            partials(importing, file, &name, &converted.partials, &mut document);
        }
        Err(refused) => {
            for refused in refused {
                let finding = Finding::error(file, refused.message);
                importing
                    .findings
                    .push(finding.on_line(refused.line + body_line - 1));
            }
            return;
        }
    }
    if let Some(inputs) = inputs {
        document.insert("inputs".to_owned(), inputs);
    }
    importing.foreign.push(Foreign {
        name,
        // The file without a variant comes last, so that it is the newest.
        order: i64::from(variant.is_none()),
        labels: variant.into_iter().collect(),
        tags: Vec::new(),
        content: Value::Object(document),
        file: file.to_owned(),
    });
}

/// Front matter, body, and the line that the body begins on.
fn split(text: &str) -> (Option<&str>, &str, usize) {
    let Some(rest) = text.strip_prefix("---\n") else {
        return (None, text, 1);
    };
    let end = if rest.starts_with("---\n") || rest == "---" {
        Some(0)
    } else {
        rest.find("\n---\n")
            .or_else(|| rest.ends_with("\n---").then(|| rest.len() - 4))
            .map(|at| at + 1)
    };
    match end {
        None => (None, text, 1),
        Some(end) => {
            let front = &rest[..end];
            let body = rest[end..].get(4..).unwrap_or_default();
            (Some(front), body, front.matches('\n').count() + 3)
        }
    }
}

fn name_of(file: &str) -> (String, Option<String>) {
    let stem = file.strip_suffix(".prompt").unwrap_or(file);
    let (folder, last) = match stem.rsplit_once('/') {
        Some((folder, last)) => (format!("{folder}/"), last),
        None => (String::new(), stem),
    };
    let last = last.strip_prefix('_').unwrap_or(last);
    match last.split_once('.') {
        Some((name, variant)) => (format!("{folder}{name}"), Some(variant.to_owned())),
        None => (format!("{folder}{last}"), None),
    }
}

/// Everything of the front matter but the inputs, which are given back.
fn settings(
    importing: &mut Importing,
    file: &str,
    front: &Map<String, Value>,
    document: &mut Map<String, Value>,
) -> Option<Value> {
    for key in ["description", "model"] {
        if let Some(text) = front.get(key).and_then(Value::as_str) {
            document.insert(key.to_owned(), json!(text));
        }
    }
    let mut parameters = Map::new();
    let mut config = Map::new();
    for (key, value) in front
        .get("config")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        match PARAMETERS.iter().find(|(theirs, _)| theirs == key) {
            Some((_, ours)) => parameters.insert((*ours).to_owned(), value.clone()),
            None => config.insert(key.clone(), value.clone()),
        };
    }
    for key in ["tools", "metadata"] {
        if let Some(value) = front.get(key) {
            let message = format!("{key} has no counterpart and is kept in config.{key}");
            importing.warn(file, message);
            config.insert(key.to_owned(), value.clone());
        }
    }
    if !parameters.is_empty() {
        document.insert("parameters".to_owned(), Value::Object(parameters));
    }
    if !config.is_empty() {
        document.insert("config".to_owned(), Value::Object(config));
    }
    output(importing, file, front, document);
    inputs(importing, file, front)
}

fn output(
    importing: &mut Importing,
    file: &str,
    front: &Map<String, Value>,
    document: &mut Map<String, Value>,
) {
    let Some(output) = front.get("output") else {
        return;
    };
    let schema = output.get("schema").filter(|schema| !schema.is_null());
    let is_json = output.get("format").and_then(Value::as_str) == Some("json");
    let format = match schema {
        Some(schema) => match picoschema::to_json_schema(schema) {
            Ok(schema) => {
                json!({"type": "json_schema", "json_schema": {"name": "output", "schema": schema}})
            }
            Err(why) => return importing.refuse(file, format!("output.schema {why}")),
        },
        None if is_json => json!({"type": "json_object"}),
        None => return,
    };
    document.insert("response_format".to_owned(), format);
}

fn inputs(importing: &mut Importing, file: &str, front: &Map<String, Value>) -> Option<Value> {
    let input = front.get("input")?;
    let schema = match input.get("schema").filter(|schema| !schema.is_null()) {
        None => json!({"type": "object"}),
        Some(schema) => match picoschema::to_json_schema(schema) {
            Ok(schema) if schema.get("type") == Some(&json!("object")) => schema,
            Ok(_) => {
                importing.refuse(file, "input.schema is no object, but inputs have names");
                return None;
            }
            Err(why) => {
                importing.refuse(file, format!("input.schema {why}"));
                return None;
            }
        },
    };
    let mut schema = schema;
    for (name, value) in input
        .get("default")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        if schema.get("properties").is_none() {
            schema["properties"] = json!({});
        }
        if !schema["properties"][name].is_object() {
            schema["properties"][name] = json!({});
        }
        schema["properties"][name]["default"] = value.clone();
    }
    Some(schema)
}

/// Inputs that are always there: required, or with a default.
fn required(schema: &Value) -> BTreeSet<String> {
    let mut known: BTreeSet<String> = super::texts(schema.get("required")).into_iter().collect();
    let properties = schema.get("properties").and_then(Value::as_object);
    for (name, property) in properties.into_iter().flatten() {
        if property.get("default").is_some() {
            known.insert(name.clone());
        }
    }
    known
}

fn messages(
    importing: &mut Importing,
    file: &str,
    parts: Vec<Part>,
    document: &mut Map<String, Value>,
) {
    let mut messages = Vec::new();
    for part in parts {
        match part {
            Part::History => messages.push(json!({"placeholder": "history"})),
            Part::Message { role, template } => match our_role(&role) {
                Some(role) => messages.push(json!({"role": role, "content": template})),
                None => importing.refuse(file, format!("the role {role:?} has no counterpart")),
            },
        }
    }
    document.insert("messages".to_owned(), Value::Array(messages));
}

/// A partial is another file of the same folder or of the top.
fn partials(
    importing: &mut Importing,
    file: &str,
    name: &str,
    used: &BTreeMap<String, String>,
    document: &mut Map<String, Value>,
) {
    let mut partials = Map::new();
    let folder = name.rsplit_once('/').map(|(folder, _)| folder);
    for (theirs, local) in used {
        let beside = folder.map(|folder| format!("{folder}/{theirs}"));
        let exists = |candidate: &String| {
            let (folder, last) = candidate
                .rsplit_once('/')
                .map_or(("", candidate.as_str()), |(folder, last)| (folder, last));
            let slash = if folder.is_empty() { "" } else { "/" };
            importing
                .root
                .read(&format!("{folder}{slash}_{last}.prompt"))
                .is_ok()
        };
        let candidates = beside.into_iter().chain([theirs.clone()]);
        match candidates.into_iter().find(exists) {
            None => importing.refuse(file, format!("there is no partial _{theirs}.prompt")),
            Some(found) => match importing.name(&found) {
                Ok(found) => {
                    partials.insert(local.clone(), json!(format!("prompt:{found}@latest")));
                }
                Err(why) => importing.refuse(file, why),
            },
        }
    }
    if !partials.is_empty() {
        document.insert("partials".to_owned(), Value::Object(partials));
    }
}
