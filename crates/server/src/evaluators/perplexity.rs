//! Perplexity: how unexpected a text is to a model of this server, which reads it
//! token by token and says how probable it held each one.
//!
//! exp of minus the mean log-probability of the text's tokens. It depends on the
//! model and on how that cuts text into tokens, so only numbers of one model can be
//! compared; `bits_per_byte` of the detail does not depend on the tokens.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::document::Problems;
use super::embedding::{check_local, check_output};

/// What the model has read before the text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Given {
    /// Nothing but the token that its vocabulary puts before texts, if it does; else the first
    /// token of the text is not counted.
    #[default]
    Nothing,
    /// The example's input, as a conversation that the text answers.
    Input,
}

/// How unexpected the answer is to a chat model of this server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PerplexityEvaluator {
    /// What the people who read the result should know.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// The chat model: `local/smollm2-135m-instruct`.
    pub model: String,
    /// What the model has read before the answer.
    #[serde(default)]
    pub given: Given,
    /// Which part of the answer is read: a JSON Pointer into an answer that is JSON, or an
    /// expression over `answer` and `example`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
}

impl PerplexityEvaluator {
    /// The model's name without its provider.
    pub fn model_name(&self) -> &str {
        self.model.strip_prefix("local/").unwrap_or(&self.model)
    }

    /// Everything that its numbers depend on.
    pub fn signature(&self) -> String {
        let given = json!(self.given);
        let given = given.as_str().unwrap_or_default();
        let output = self.output.as_ref();
        let output = output.map_or_else(String::new, |rule| format!("|output:{}", json!(rule)));
        format!("perplexity|given:{given}|model:{}{output}", self.model)
    }
}

pub(super) fn check(perplexity: &PerplexityEvaluator, problems: &mut Problems) {
    check_local(&perplexity.model, problems);
    check_output(perplexity.output.as_deref(), problems);
}

/// exp(−mean); nothing for a text without tokens, or one whose perplexity is no finite number.
#[expect(clippy::cast_precision_loss, reason = "a text's tokens")]
pub fn perplexity(logprobs: &[f64]) -> Option<f64> {
    let mean = logprobs.iter().sum::<f64>() / logprobs.len() as f64;
    let value = (-mean).exp();
    (!logprobs.is_empty() && value.is_finite()).then_some(value)
}

/// −Σ log₂ p ÷ bytes.
#[expect(clippy::cast_precision_loss, reason = "a text's bytes")]
pub fn bits_per_byte(logprobs: &[f64], bytes: usize) -> Option<f64> {
    let bits = -logprobs.iter().sum::<f64>() / std::f64::consts::LN_2;
    (bytes > 0 && bits.is_finite()).then(|| bits / bytes as f64)
}
