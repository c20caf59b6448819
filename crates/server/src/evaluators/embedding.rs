//! The cosine between the embeddings of an answer and of what was expected. The
//! model decides what the number means: 0.8 of one model is not 0.8 of another.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::document::Problems;
use super::output::OutputRule;

/// How like the expected answer an answer is, by an embedding model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EmbeddingEvaluator {
    /// What the people who read the result should know.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// The embedding model: `local/all-minilm-l6-v2`.
    pub model: String,
    /// Which part of the answer is compared: a JSON Pointer into an answer that is JSON, or an
    /// expression over `answer` and `example`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
}

impl EmbeddingEvaluator {
    /// Everything that its numbers depend on.
    pub fn signature(&self) -> String {
        let output = self.output.as_ref();
        let output = output.map_or_else(String::new, |rule| format!("|output:{}", json!(rule)));
        format!("embedding:cosine|refs:best|model:{}{output}", self.model)
    }
}

pub(super) fn check(embedding: &EmbeddingEvaluator, problems: &mut Problems) {
    check_model(&embedding.model, problems);
    check_output(embedding.output.as_deref(), problems);
}

pub(super) fn check_model(model: &str, problems: &mut Problems) {
    if model.trim().is_empty() || !model.contains('/') {
        problems.add("/model", "a model is written PROVIDER/MODEL");
    }
}

/// A model of this machine: what is asked of it no other server answers.
pub(super) fn check_local(model: &str, problems: &mut Problems) {
    if model.strip_prefix("local/").is_none_or(str::is_empty) {
        problems.add(
            "/model",
            "this is measured by a model of this server: local/NAME",
        );
    }
}

pub(super) fn check_output(rule: Option<&str>, problems: &mut Problems) {
    if let Some(Err(message)) = rule.map(OutputRule::parse) {
        problems.add("/output", message);
    }
}
