//! The editor's form, as a browser without scripts sends it, and as islands hand
//! a draft from page to page (one field, `document`).

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

/// What a form of the editor says.
#[derive(Debug, Default)]
pub(crate) struct DraftForm {
    /// The prompt's name, as typed.
    pub(crate) name: String,
    /// What the version changes.
    pub(crate) message: String,
    /// The version that the draft began with.
    pub(crate) base: Option<i64>,
    /// The button that was pressed.
    pub(crate) action: String,
    /// The document, complete or not.
    pub(crate) document: Value,
    /// Texts of the fields that hold JSON, as typed.
    pub(crate) json: BTreeMap<&'static str, String>,
    /// Which of those do not read as JSON, and why.
    pub(crate) errors: BTreeMap<&'static str, String>,
}

/// Fields of a document that the form shows as JSON.
pub(crate) const JSON_FIELDS: [&str; 7] = [
    "inputs",
    "examples",
    "partials",
    "parameters",
    "response_format",
    "tools",
    "config",
];
/// A form without scripts adds messages one by one; more than these are no mistake of a person.
const MOST_MESSAGES: usize = 100;

impl DraftForm {
    /// Reads a form. Browsers send CRLF; a document's identity must not depend on where it was typed.
    pub(crate) fn read(fields: &BTreeMap<String, String>) -> Self {
        let text = |name: &str| {
            fields
                .get(name)
                .map_or(String::new(), |text| text.replace("\r\n", "\n"))
        };
        let mut form = Self {
            name: text("name").trim().to_owned(),
            message: text("message").trim().to_owned(),
            base: fields.get("base").and_then(|base| base.parse().ok()),
            action: text("action"),
            ..Self::default()
        };
        match fields.get("document") {
            Some(document) => {
                let read = serde_json::from_str(document);
                form.document = read.unwrap_or_else(|error| {
                    form.errors.insert("form", error.to_string());
                    json!({"messages": []})
                });
                form.json = json_texts(&form.document);
            }
            None => form.read_fields(&text),
        }
        form
    }

    fn read_fields(&mut self, text: &dyn Fn(&str) -> String) {
        let mut document = Map::new();
        let mut put = |name: &str, value: String| {
            if !value.is_empty() {
                document.insert(name.to_owned(), Value::from(value));
            }
        };
        put("description", text("description"));
        put("model", text("model").trim().to_owned());
        let is_text = text("type") == "text";
        if is_text {
            put("type", "text".to_owned());
            put("template", text("template"));
        }
        if text("dialect") == "simple" {
            put("dialect", "simple".to_owned());
        }
        if !is_text {
            document.insert("messages".to_owned(), messages(text).into());
        }
        for name in JSON_FIELDS {
            let written = text(name);
            match serde_json::from_str::<Value>(&written) {
                _ if written.trim().is_empty() => {}
                Ok(value) => {
                    document.insert(name.to_owned(), value);
                }
                Err(error) => {
                    self.errors.insert(name, error.to_string());
                }
            }
            self.json.insert(name, written);
        }
        self.document = Value::Object(document);
    }

    /// Does what a button of the list of messages says; false when it is none of them.
    pub(crate) fn change_messages(&mut self) -> bool {
        let (verb, at) = self
            .action
            .split_once(':')
            .unwrap_or((self.action.as_str(), ""));
        let at = at.parse::<usize>().ok();
        let Some(Value::Array(messages)) = self.document.get_mut("messages") else {
            return matches!(verb, "add" | "place" | "up" | "down" | "remove");
        };
        match (verb, at) {
            ("add", _) if messages.len() < MOST_MESSAGES => {
                let role = if messages.is_empty() {
                    "system"
                } else {
                    "user"
                };
                messages.push(json!({"role": role, "content": ""}));
            }
            ("place", _) if messages.len() < MOST_MESSAGES => {
                messages.push(json!({"placeholder": "messages"}));
            }
            ("up", Some(at)) if at > 0 && at < messages.len() => messages.swap(at, at - 1),
            ("down", Some(at)) if at + 1 < messages.len() => messages.swap(at, at + 1),
            ("remove", Some(at)) if at < messages.len() => {
                messages.remove(at);
            }
            ("add" | "place" | "up" | "down" | "remove", _) => {}
            _ => return false,
        }
        true
    }
}

fn messages(text: &dyn Fn(&str) -> String) -> Vec<Value> {
    let mut found = Vec::new();
    for index in 0..MOST_MESSAGES {
        let (role, content) = (
            text(&format!("role.{index}")),
            text(&format!("content.{index}")),
        );
        match role.as_str() {
            "" => break,
            "placeholder" => found.push(json!({"placeholder": content.trim()})),
            _ => found.push(json!({"role": role, "content": content})),
        }
    }
    found
}

/// The texts of a document's JSON fields, for a form.
pub(crate) fn json_texts(document: &Value) -> BTreeMap<&'static str, String> {
    let text = |name: &&'static str| {
        let value = document.get(*name).filter(|value| !value.is_null());
        let text = value.map(|value| serde_json::to_string_pretty(value).unwrap_or_default());
        (*name, text.unwrap_or_default())
    };
    JSON_FIELDS.iter().map(text).collect()
}
