//! Which part of an answer is measured.
//!
//! A JSON Pointer for answers that are JSON, or an expression. What cannot be
//! taken from an answer is the answer's fault only where the rule is about its
//! form; so it is told apart: `Missing` is an answer without that part.

use gateway::NamedExpression;
use serde_json::{Value, json};

/// How the measured text is taken from an answer.
#[derive(Debug)]
pub enum OutputRule {
    /// A JSON Pointer into an answer that is JSON.
    Pointer(String),
    /// An expression over `answer` and `example`.
    Expression(NamedExpression),
}

impl OutputRule {
    /// Reads a rule: what begins with `/` is a pointer.
    ///
    /// # Errors
    /// What is wrong with the expression.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.starts_with('/') {
            return Ok(Self::Pointer(text.to_owned()));
        }
        NamedExpression::parse(text, &["answer", "example"]).map(Self::Expression)
    }

    /// The text to measure.
    ///
    /// # Errors
    /// The answer has no such part; in words.
    pub fn apply(&self, answer: &str, example: &Value) -> Result<String, String> {
        let parsed = json_of(answer);
        let found = match self {
            Self::Pointer(pointer) => {
                let json = parsed.ok_or("the answer is not JSON")?;
                let part = json.pointer(pointer).cloned();
                part.ok_or_else(|| format!("the answer has nothing at {pointer}"))?
            }
            Self::Expression(expression) => {
                let answer = json!({"text": answer, "json": parsed});
                expression.run(&[("answer", &answer), ("example", example)])?
            }
        };
        Ok(text_of(&found))
    }
}

/// A value as the text that a metric reads: a text as it is, everything else as JSON.
pub fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// The JSON that an answer is, or that stands in its one fenced block.
pub fn json_of(answer: &str) -> Option<Value> {
    let text = answer.trim();
    if let Ok(value) = serde_json::from_str(text) {
        return Some(value);
    }
    let (_, rest) = text.split_once("```")?;
    let (block, _) = rest.split_once("```")?;
    let block = block.strip_prefix("json").unwrap_or(block);
    serde_json::from_str(block.trim()).ok()
}
