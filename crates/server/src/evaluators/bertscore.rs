//! BERTScore: how well the tokens of an answer and of what was expected find each
//! other, by the vectors that an encoder of this server gives them.
//!
//! [`eval::bertscore`] has the rules; this is the evaluator around them. The package's
//! models are others, so the number is called after the model here and is not its
//! `compat:` number.

use eval::bertscore::BertScore;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::document::Problems;
use super::embedding::{check_local, check_output};

/// Which of the three is the score.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BertValue {
    /// The harmonic mean.
    #[default]
    F1,
    /// How well the answer's tokens are found in what was expected.
    Precision,
    /// How well the expected tokens are found in the answer.
    Recall,
}

/// The numbers of unrelated texts: 0 after rescaling.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Baseline {
    /// Of the precision.
    pub precision: f64,
    /// Of the recall.
    pub recall: f64,
    /// Of F1.
    pub f1: f64,
}

/// BERTScore by an encoder of this server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BertScoreEvaluator {
    /// What the people who read the result should know.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// The embedding model: `local/all-minilm-l6-v2`.
    pub model: String,
    /// The layer whose vectors are compared, 0 for the input's; the last when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer: Option<u32>,
    /// Weighs tokens by how few of the dataset's expected answers have them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub idf: bool,
    /// Stretches the numbers, so that those of unrelated texts are 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rescale: Option<Baseline>,
    /// Which of the three is the score.
    #[serde(default)]
    pub value: BertValue,
    /// Which part of the answer is compared: a JSON Pointer into an answer that is JSON, or an
    /// expression over `answer` and `example`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
}

impl BertScoreEvaluator {
    /// A pair's numbers, stretched where the document says so.
    pub fn rescale(&self, found: BertScore) -> BertScore {
        match self.rescale {
            Some(base) => found.rescaled(BertScore {
                precision: base.precision,
                recall: base.recall,
                f1: base.f1,
            }),
            None => found,
        }
    }

    /// The one that is the score.
    pub fn value(&self, found: BertScore) -> f64 {
        match self.value {
            BertValue::F1 => found.f1,
            BertValue::Precision => found.precision,
            BertValue::Recall => found.recall,
        }
    }

    /// The model's name without its provider.
    pub fn model_name(&self) -> &str {
        self.model.strip_prefix("local/").unwrap_or(&self.model)
    }

    /// Everything that its numbers depend on: `bertscore/minilm-L6|idf:no|…`.
    pub fn signature(&self) -> String {
        let layer = self
            .layer
            .map_or("last".to_owned(), |layer| format!("L{layer}"));
        let idf = if self.idf { "dataset" } else { "no" };
        let rescale = match &self.rescale {
            Some(Baseline {
                precision,
                recall,
                f1,
            }) => format!("{precision}/{recall}/{f1}"),
            None => "no".to_owned(),
        };
        let value = json!(self.value);
        let value = value.as_str().unwrap_or_default();
        let output = self.output.as_ref();
        let output = output.map_or_else(String::new, |rule| format!("|output:{}", json!(rule)));
        let name = self.model_name();
        format!(
            "bertscore/{name}-{layer}|idf:{idf}|rescale:{rescale}|value:{value}|refs:best{output}"
        )
    }
}

pub(super) fn check(bertscore: &BertScoreEvaluator, problems: &mut Problems) {
    check_local(&bertscore.model, problems);
    check_output(bertscore.output.as_deref(), problems);
    if bertscore.layer.is_some_and(|layer| layer > 200) {
        problems.add("/layer", "no model has so many layers");
    }
    if let Some(base) = &bertscore.rescale {
        for (name, value) in [
            ("precision", base.precision),
            ("recall", base.recall),
            ("f1", base.f1),
        ] {
            if !(-1.0..1.0).contains(&value) {
                let message = "the number of unrelated texts is at least -1 and below 1";
                problems.add(format!("/rescale/{name}"), message);
            }
        }
    }
}
