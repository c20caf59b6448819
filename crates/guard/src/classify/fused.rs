//! The embedding tier's decision: a network that reads the vector of a passage and what the linear
//! classifier made of its words. The caller brings the vector.
//!
//! Vectors of another model would be taken for nonsense that looks like an answer, so the file
//! holds one vector that the right model gives, and whoever asks shows theirs first. The model
//! that the shipped weights belong to knows English: Japanese is left to the linear classifier.

use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

use super::file::{BadModel, Task};
use super::linear::{Linear, is_japanese};
use super::math::{ln, sigmoid};
use super::mlp::Mlp;

/// What the network's file says beside its weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fusion {
    /// The digest of the linear classifier whose logit is the last input.
    pub linear: String,
    /// What the embedding model is asked, to see which one it is.
    pub probe: String,
    /// What the right one answers, of length one.
    pub answer: Vec<f32>,
}

/// A text that the embedding model is known by.
pub const PROBE: &str = "The quick brown fox jumps over the lazy dog.";
/// Two vectors that are as alike as this are of one model; builds differ in the last digits.
const SAME: f64 = 0.995;

/// The linear classifier and the network behind it, ready to score.
#[derive(Debug)]
pub struct Fused {
    linear: Linear,
    network: Mlp,
    fusion: Fusion,
}

impl Fused {
    /// Puts a network and its linear classifier together.
    ///
    /// # Errors
    /// The network does not read a linear classifier's logit, or that of another one.
    pub fn new(linear: Linear, network: Mlp) -> Result<Self, BadModel> {
        let fusion = network.header().fusion.clone();
        let fusion = fusion.ok_or_else(|| BadModel("it reads embeddings alone".into()))?;
        let digest = linear.digest().to_string();
        if fusion.linear != digest {
            let wanted = &fusion.linear;
            return Err(BadModel(format!("it belongs to {wanted}, not to {digest}")));
        }
        Ok(Self {
            linear,
            network,
            fusion,
        })
    }

    /// The one that is built in, for the tasks that have one.
    pub fn shipped(task: Task) -> Option<&'static Self> {
        static TOXICITY: OnceLock<Fused> = OnceLock::new();
        if task != Task::Toxicity {
            return None;
        }
        let bytes: &[u8] = include_bytes!("../../models/toxicity-embedding.bin");
        let read = || Self::new(Linear::shipped(task).clone(), Mlp::read(bytes)?);
        Some(TOXICITY.get_or_init(|| match read() {
            Ok(fused) => fused,
            Err(error) => unreachable!("the built-in {} network: {error}", task.name()),
        }))
    }

    /// The embedding model whose vectors it reads, by name.
    pub fn embedder(&self) -> &str {
        &self.network.header().embedder
    }

    /// Whether a model that gives this vector for [`PROBE`] is the one whose vectors it reads.
    pub fn knows(&self, answer: &[f32]) -> bool {
        let pairs = answer.iter().zip(&self.fusion.answer);
        let alike: f64 = pairs.map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
        answer.len() == self.fusion.answer.len() && alike >= SAME
    }

    /// The score of a passage with its vector (of length one), 0 to 1, from 0.5 on a finding;
    /// nothing for a vector of another length.
    pub fn score(&self, passage: &str, vector: &[f32]) -> Option<f32> {
        let (logit, _) = self.linear.logit(passage);
        if is_japanese(passage) {
            return Some(from_threshold(logit, self.linear.threshold()));
        }
        let logit = self.network.logit(&with_logit(vector, logit))?;
        Some(from_threshold(logit, self.network.header().threshold))
    }
}

/// The score of a logit, moved so that the threshold is at 0.5.
fn from_threshold(logit: f64, threshold: f32) -> f32 {
    let threshold = f64::from(threshold).clamp(1e-6, 1.0 - 1e-6);
    sigmoid(logit - ln(threshold / (1.0 - threshold))) as f32
}

/// A vector with the linear classifier's logit behind it, within what the other numbers are.
pub fn with_logit(vector: &[f32], logit: f64) -> Vec<f32> {
    let last = (logit / 8.0).clamp(-1.0, 1.0) as f32;
    vector.iter().copied().chain([last]).collect()
}
