//! Prompts of MLflow's registry as JSON: a prompt version with its `template`, or
//! a model version with the text in the tag `mlflow.prompt.text`, as its REST API
//! gives it. Jinja where the text has `{%`, otherwise the dialect `simple`.

use serde_json::{Map, Value, json};

use super::{Foreign, Importing, our_messages, read_json};

const TEXT_TAG: &str = "mlflow.prompt.text";
const OWN_TAGS: &[&str] = &["mlflow.", "_mlflow"];

pub(super) fn read(importing: &mut Importing) -> anyhow::Result<()> {
    for file in importing.root.files(&[".json"])? {
        let Some(value) = read_json(importing, &file) else {
            continue;
        };
        for item in items(&value) {
            match convert(item, &file) {
                Ok(foreign) => importing.foreign.push(foreign),
                Err(why) => importing.refuse(&file, why),
            }
        }
    }
    Ok(())
}

fn items(value: &Value) -> Vec<&Value> {
    let lists = ["prompts", "prompt_versions", "model_versions"];
    match value {
        Value::Array(items) => items.iter().collect(),
        Value::Object(map) => {
            let list = lists.iter().find_map(|key| map.get(*key)?.as_array());
            let one = ["prompt", "prompt_version", "model_version"];
            match (list, one.iter().find_map(|key| map.get(*key))) {
                (Some(items), _) => items.iter().collect(),
                (None, Some(item)) if item.is_object() => vec![item],
                _ => vec![value],
            }
        }
        _ => vec![value],
    }
}

fn convert(value: &Value, file: &str) -> Result<Foreign, String> {
    let name = value.get("name").and_then(Value::as_str);
    let name = name.ok_or("a prompt has a name")?;
    let tags = tags(value.get("tags"));
    let kept = value.get("template").filter(|template| !template.is_null());
    let from_tag = || tags.get(TEXT_TAG).cloned();
    let template = kept
        .cloned()
        .or_else(from_tag)
        .ok_or_else(|| format!("{name:?} has neither a template nor the tag {TEXT_TAG}"))?;
    let is_chat = tags.get("_mlflow_prompt_type").and_then(Value::as_str) == Some("chat");
    let template = match template {
        Value::String(text) if is_chat => serde_json::from_str(&text)
            .map_err(|error| format!("{name:?}: its messages are not JSON: {error}"))?,
        other => other,
    };
    let mut document = Map::new();
    let is_jinja = match &template {
        Value::String(text) => {
            document.insert("type".to_owned(), json!("text"));
            document.insert("template".to_owned(), json!(text));
            text.contains("{%")
        }
        Value::Array(messages) => {
            let messages = our_messages(messages).map_err(|why| format!("{name:?}: {why}"))?;
            let mut texts = messages
                .iter()
                .filter_map(|message| message["content"].as_str());
            let is_jinja = texts.any(|text| text.contains("{%"));
            document.insert("messages".to_owned(), Value::Array(messages));
            is_jinja
        }
        _ => return Err(format!("{name:?}: its template is no text and no chat")),
    };
    if !is_jinja {
        document.insert("dialect".to_owned(), json!("simple"));
    }
    settings(value, &tags, &mut document);
    let plain = tags
        .iter()
        .filter(|(key, _)| !OWN_TAGS.iter().any(|own| key.starts_with(own)));
    Ok(Foreign {
        name: name.to_owned(),
        order: number(value.get("version")),
        labels: aliases(value),
        tags: plain.map(|(key, value)| tag(key, value)).collect(),
        content: Value::Object(document),
        file: file.to_owned(),
    })
}

/// The model and the shape of the answer.
fn settings(value: &Value, tags: &Map<String, Value>, document: &mut Map<String, Value>) {
    let parsed = |field: &str, tag: &str| -> Option<Value> {
        let given = value.get(field).filter(|given| !given.is_null()).cloned();
        given.or_else(|| serde_json::from_str(tags.get(tag)?.as_str()?).ok())
    };
    if let Some(format) = parsed("response_format", "_mlflow_prompt_response_format") {
        let has_schema = format.get("properties").is_some();
        let format = if has_schema {
            json!({"type": "json_schema", "json_schema": {"name": "output", "schema": format}})
        } else {
            format
        };
        document.insert("response_format".to_owned(), format);
    }
    if let Some(config) = parsed("model_config", "_mlflow_prompt_model_config") {
        document.insert("config".to_owned(), json!({"model_config": config}));
    }
}

/// As a table, or as the REST API has them: a list of key and value.
fn tags(value: Option<&Value>) -> Map<String, Value> {
    match value {
        Some(Value::Object(map)) => map.clone(),
        Some(Value::Array(items)) => items
            .iter()
            .filter_map(|item| {
                let key = item.get("key")?.as_str()?.to_owned();
                Some((key, item.get("value")?.clone()))
            })
            .collect(),
        _ => Map::new(),
    }
}

fn tag(key: &str, value: &Value) -> String {
    match value.as_str() {
        Some("") | None => key.to_owned(),
        Some(text) => format!("{key}:{text}"),
    }
}

fn number(value: Option<&Value>) -> i64 {
    let text = value
        .and_then(Value::as_str)
        .and_then(|text| text.parse().ok());
    value.and_then(Value::as_i64).or(text).unwrap_or(1)
}

/// `["champion"]`, or `[{"alias": "champion", "version": "3"}]` of the whole prompt.
fn aliases(value: &Value) -> Vec<String> {
    let own = number(value.get("version"));
    let list = value.get("aliases").and_then(Value::as_array);
    list.into_iter()
        .flatten()
        .filter_map(|item| match item {
            Value::String(alias) => Some(alias.clone()),
            other => {
                let is_own = number(other.get("version")) == own;
                let alias = other.get("alias")?.as_str()?;
                is_own.then(|| alias.to_owned())
            }
        })
        .collect()
}
