//! Between our prompt documents and the forms of Langfuse and MLflow.
//!
//! Both write `{{name}}` and replace it in one pass, which is our dialect
//! `simple`. A template with `{%` is jinja for MLflow and for us. What a form has
//! no word for (examples, partials, inputs) is not sent, and stays in the
//! document.

use serde_json::{Map, Value, json};

use crate::error::{AppError, Result};

/// The text or the messages of a prompt.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Body {
    /// One template.
    Text(String),
    /// Messages, and placeholders for messages.
    Chat(Vec<Part>),
}

/// One entry of a chat prompt.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Part {
    /// A message: role and template.
    Message(String, String),
    /// A place for a list of messages.
    Placeholder(String),
}

impl Body {
    /// `text` or `chat`, as both registries call it.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "text",
            Self::Chat(_) => "chat",
        }
    }

    /// The body of a document of ours.
    pub(super) fn of_document(document: &Value) -> Self {
        if document["type"] == "text" {
            return Self::Text(text_of(&document["template"]));
        }
        let parts = document["messages"].as_array().into_iter().flatten();
        Self::Chat(parts.map(part_of).collect())
    }

    /// Reads `prompt` of Langfuse or the template of MLflow: a text, or a list.
    pub(super) fn read(value: &Value, at: &str) -> Result<Self> {
        match value {
            Value::String(text) => Ok(Self::Text(text.clone())),
            Value::Array(list) => {
                let part = |(index, value)| read_part(value, &format!("{at}[{index}]"));
                list.iter()
                    .enumerate()
                    .map(part)
                    .collect::<Result<_>>()
                    .map(Self::Chat)
            }
            _ => {
                Err(AppError::invalid(format!("{at} must be a text or a list of messages")).at(at))
            }
        }
    }

    /// Our document with this body; `extra` are its other fields.
    pub(super) fn to_document(&self, extra: Map<String, Value>) -> Value {
        let mut document = Map::new();
        if !self.has_tags() {
            document.insert("dialect".to_owned(), json!("simple"));
        }
        match self {
            Self::Text(text) => {
                document.insert("type".to_owned(), json!("text"));
                document.insert("template".to_owned(), json!(text));
            }
            Self::Chat(parts) => {
                document.insert(
                    "messages".to_owned(),
                    parts.iter().map(Part::to_ours).collect(),
                );
            }
        }
        document.extend(extra);
        Value::Object(document)
    }

    fn has_tags(&self) -> bool {
        let tagged = |text: &str| text.contains("{%");
        match self {
            Self::Text(text) => tagged(text),
            Self::Chat(parts) => parts
                .iter()
                .any(|part| matches!(part, Part::Message(_, text) if tagged(text))),
        }
    }

    /// As Langfuse sends it.
    pub(super) fn to_langfuse(&self) -> Value {
        match self {
            Self::Text(text) => json!(text),
            Self::Chat(parts) => parts.iter().map(Part::to_langfuse).collect(),
        }
    }

    /// As MLflow keeps it in a tag: the text, or the messages as JSON text.
    pub(super) fn to_mlflow(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Chat(parts) => Value::from_iter(parts.iter().map(Part::to_ours)).to_string(),
        }
    }
}

impl Part {
    fn to_ours(&self) -> Value {
        match self {
            Self::Message(role, content) => json!({"role": role, "content": content}),
            Self::Placeholder(name) => json!({"placeholder": name}),
        }
    }

    fn to_langfuse(&self) -> Value {
        match self {
            Self::Message(role, content) => {
                json!({"type": "chatmessage", "role": role, "content": content})
            }
            Self::Placeholder(name) => json!({"type": "placeholder", "name": name}),
        }
    }
}

fn text_of(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn part_of(value: &Value) -> Part {
    match value["placeholder"].as_str() {
        Some(name) => Part::Placeholder(name.to_owned()),
        None => Part::Message(text_of(&value["role"]), text_of(&value["content"])),
    }
}

fn read_part(value: &Value, at: &str) -> Result<Part> {
    let wrong = |what: &str| AppError::invalid(format!("{at} {what}")).at(at);
    if let Some(name) = value["placeholder"].as_str() {
        return Ok(Part::Placeholder(name.to_owned()));
    }
    if value["type"] == "placeholder" {
        let name = value["name"].as_str();
        return name
            .map(|name| Part::Placeholder(name.to_owned()))
            .ok_or_else(|| wrong("is a placeholder without a name"));
    }
    let role = value["role"].as_str().ok_or_else(|| wrong("has no role"))?;
    let content = value["content"]
        .as_str()
        .ok_or_else(|| wrong("has no text as its content"))?;
    Ok(Part::Message(role.to_owned(), content.to_owned()))
}
