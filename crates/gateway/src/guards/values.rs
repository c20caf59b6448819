//! A value of JSON through the policies: each text in it is a text of its own.
//!
//! Numbers are read too (a card number need not be a text) and become texts where something is
//! done about them. So are the names of fields in what a tool says, because a model reads those.

use std::collections::BTreeMap;

use guard::Point;
use serde_json::{Map, Value};

use super::{Place, Refusal, Watch};
use crate::app::as_text;

impl Watch {
    /// Scans every text of a value, in its order. Where a rule ends one, it is cut there, the rest
    /// is emptied, and the rule is the answer.
    pub(crate) async fn value(
        &mut self,
        point: Point,
        field: &str,
        value: &mut Value,
    ) -> Option<Refusal> {
        if !self.looks_at(point) {
            return None;
        }
        let mut refusal = None;
        if point == Point::ToolResult {
            refusal = self.names(point, field, value).await;
        }
        let mut leaves = Vec::new();
        collect(field.to_owned(), value, &mut leaves);
        for (field, leaf) in leaves {
            if refusal.is_some() {
                *leaf = Value::String(String::new());
                continue;
            }
            let text = as_text(leaf);
            if let Some(mut inner) = inner_of(point, &text) {
                let before = inner.clone();
                refusal = Box::pin(self.value(point, &field, &mut inner)).await;
                if inner != before {
                    *leaf = Value::String(inner.to_string());
                }
                continue;
            }
            let place = Place {
                point,
                field: &field,
            };
            let scanned = self.scan(place, &text).await;
            if leaf.is_string() || scanned.text != text {
                *leaf = Value::String(scanned.text);
            }
            refusal = scanned.ended;
        }
        if refusal.is_none() && !value.is_string() {
            // What a model reads of it.
            self.let_pass(point, &value.to_string());
        }
        refusal
    }

    /// The names of fields; one that is changed is renamed wherever it stands.
    async fn names(&mut self, point: Point, field: &str, value: &mut Value) -> Option<Refusal> {
        let mut names = BTreeMap::new();
        collect_names(value, &mut names);
        let mut changed = false;
        for (name, new) in &mut names {
            let place = Place { point, field };
            let scanned = self.scan(place, name).await;
            if scanned.ended.is_some() {
                return scanned.ended;
            }
            changed |= scanned.text != *name;
            *new = scanned.text;
        }
        if changed {
            rename(value, &names);
        }
        None
    }
}

/// JSON that a tool wrote into a text: letters may hide behind its escapes.
fn inner_of(point: Point, text: &str) -> Option<Value> {
    if point != Point::ToolResult || !text.trim_start().starts_with(['{', '[', '"']) {
        return None;
    }
    serde_json::from_str(text).ok()
}

fn collect<'v>(field: String, value: &'v mut Value, leaves: &mut Vec<(String, &'v mut Value)>) {
    match value {
        Value::String(_) | Value::Number(_) => leaves.push((field, value)),
        Value::Array(items) => {
            for (at, item) in items.iter_mut().enumerate() {
                collect(format!("{field}[{at}]"), item, leaves);
            }
        }
        Value::Object(map) => {
            for (name, item) in map {
                collect(format!("{field}.{name}"), item, leaves);
            }
        }
        Value::Null | Value::Bool(_) => {}
    }
}

fn collect_names(value: &Value, names: &mut BTreeMap<String, String>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| collect_names(item, names)),
        Value::Object(map) => {
            for (name, item) in map {
                names.insert(name.clone(), name.clone());
                collect_names(item, names);
            }
        }
        _ => {}
    }
}

fn rename(value: &mut Value, names: &BTreeMap<String, String>) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| rename(item, names)),
        Value::Object(map) => {
            let renamed = std::mem::take(map).into_iter().map(|(name, mut item)| {
                rename(&mut item, names);
                (names.get(&name).cloned().unwrap_or(name), item)
            });
            *map = renamed.collect::<Map<_, _>>();
        }
        _ => {}
    }
}
