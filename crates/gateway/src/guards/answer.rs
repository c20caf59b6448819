//! An answer that is there as a whole.
//!
//! Every text that a client could read goes through the policies. Where one is changed, what
//! would still tell it (log probabilities, fields that we do not know) is taken out.

use guard::{Form, Point};
use serde_json::{Map, Value, json};

use super::{Place, Refusal, Watch, lock};
use crate::record::Record;

/// What becomes of a choice.
enum Guarded {
    /// It goes on as it is.
    Same,
    /// It was changed.
    Changed,
    /// The model is to answer again, and is told this.
    Again(String),
}

impl Watch {
    /// Scans a chat completion in OpenAI's shape; true says that it was changed. Where a rule
    /// wants another answer, the model is asked once more, in a call of its own.
    pub(crate) async fn answer(&mut self, answer: &mut Value, record: &Record) -> bool {
        let mut changed = false;
        let choices = answer["choices"].as_array_mut();
        for (index, choice) in choices.into_iter().flatten().enumerate() {
            let mut guarded = self.choice(index, choice, true).await;
            if let Guarded::Again(instruction) = &guarded {
                match self
                    .host
                    .rewrite(record, &choice["message"], instruction)
                    .await
                {
                    Ok(message) => choice["message"] = message,
                    Err(why) => self.rewrite_failed(index, &why),
                }
                changed = true;
                guarded = self.choice(index, choice, false).await;
            }
            changed |= !matches!(guarded, Guarded::Same);
        }
        changed
    }

    /// Puts the values back that placeholders stand for. Who records the answer does so before.
    pub(crate) fn restore(&self, answer: &mut Value) -> bool {
        let vault = lock(&self.vault);
        let choices = answer["choices"].as_array_mut();
        let mut restored = false;
        for choice in choices.into_iter().flatten() {
            let Some(message) = choice.get_mut("message").and_then(Value::as_object_mut) else {
                continue;
            };
            let mut texts = Vec::new();
            collect("", message, &mut texts);
            for (_, point, text) in texts.into_iter().filter(|_| !vault.is_empty()) {
                let whole = vault.restore(text, form_of(point));
                restored |= whole != *text;
                *text = whole;
            }
        }
        restored
    }

    /// A second answer could not be had: the first one is closed where the rule found something.
    fn rewrite_failed(&mut self, index: usize, why: &str) {
        tracing::warn!(
            choice = index,
            error.message = why,
            "a guard asked for another answer and got none"
        );
    }

    async fn choice(&mut self, index: usize, choice: &mut Value, may_rewrite: bool) -> Guarded {
        let Some(message) = choice.get_mut("message").and_then(Value::as_object_mut) else {
            return Guarded::Same;
        };
        let mut texts: Vec<(String, Point, &mut String)> = Vec::new();
        collect(&format!("choices[{index}].message"), message, &mut texts);
        let mut changed = false;
        let mut refusal: Option<Refusal> = None;
        for (field, point, text) in texts {
            if refusal.is_some() {
                text.clear();
                continue;
            }
            let place = Place {
                point,
                field: &field,
            };
            let scanned = self.scan(place, text).await;
            if let Some(instruction) = scanned.rewrite.filter(|_| may_rewrite) {
                return Guarded::Again(instruction);
            }
            changed |= scanned.text != *text || scanned.ended.is_some();
            *text = scanned.text;
            refusal = scanned.ended;
        }
        if !changed {
            return Guarded::Same;
        }
        message.retain(|name, _| SHOWN.contains(&name.as_str()));
        if let Some(refusal) = refusal {
            close(message, &refusal);
            choice["finish_reason"] = "content_filter".into();
        }
        choice["logprobs"] = Value::Null;
        Guarded::Changed
    }
}

/// How values are put back at a point.
pub(super) fn form_of(point: Point) -> Form {
    match point {
        Point::ToolArguments => Form::Json,
        _ => Form::Plain,
    }
}

/// The fields of a message whose every text is scanned.
const SHOWN: [&str; 7] = [
    "role",
    "content",
    "refusal",
    "reasoning_content",
    "reasoning",
    "tool_calls",
    "function_call",
];

fn collect<'m>(
    path: &str,
    message: &'m mut Map<String, Value>,
    texts: &mut Vec<(String, Point, &'m mut String)>,
) {
    for (name, value) in message.iter_mut() {
        let field = format!("{path}.{name}");
        match (name.as_str(), value) {
            ("content" | "refusal" | "reasoning_content" | "reasoning", Value::String(text)) => {
                texts.push((field, Point::Output, text));
            }
            ("function_call", call) => arguments(&field, call, texts),
            ("tool_calls", Value::Array(calls)) => {
                for (at, call) in calls.iter_mut().enumerate() {
                    if let Some(function) = call.get_mut("function") {
                        arguments(&format!("{field}[{at}].function"), function, texts);
                    }
                }
            }
            _ => {}
        }
    }
}

fn arguments<'m>(
    path: &str,
    function: &'m mut Value,
    texts: &mut Vec<(String, Point, &'m mut String)>,
) {
    if let Some(Value::String(text)) = function.get_mut("arguments") {
        texts.push((format!("{path}.arguments"), Point::ToolArguments, text));
    }
}

/// A tool call whose arguments were cut off must not run: it goes as a whole.
fn close(message: &mut Map<String, Value>, refusal: &Refusal) {
    message.remove("tool_calls");
    message.remove("function_call");
    message.insert("refusal".to_owned(), json!(refusal.sentence()));
}
