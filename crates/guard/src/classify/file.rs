//! The file of a classifier: `MGRDCLS1`, the length of the header, the header as JSON, the
//! weights. Its identity is the digest of all its bytes. Reading never trusts a length.

use base::Digest;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

const MAGIC: &[u8; 8] = b"MGRDCLS1";
const MAX_HEADER_BYTES: usize = 1 << 20;

/// What a classifier looks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// Prompt injection and jailbreaks, direct and in retrieved text.
    Injection,
    /// Insults, threats, hate and profanity.
    Toxicity,
}

impl Task {
    /// The word in documents and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Injection => "injection",
            Self::Toxicity => "toxicity",
        }
    }
}

/// What a model was made of and how well it did, for people.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Card {
    /// One line for each source that it was trained on: name, licence, texts.
    pub trained_on: Vec<CardSource>,
    /// How the threshold was fixed.
    pub threshold_rule: String,
    /// The benign texts that the threshold was fixed on, apart from training and measurement.
    pub tuned_on_benign: usize,
    /// The settings of the trainer.
    pub training: String,
}

/// One source of training data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CardSource {
    /// The name of the source.
    pub name: String,
    /// Its licence.
    pub licence: String,
    /// Texts that show what is looked for.
    pub positive: usize,
    /// Texts that do not.
    pub negative: usize,
}

/// A file that is no classifier, or not one that this build can read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadModel(pub(super) String);

impl std::fmt::Display for BadModel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "reading the classifier: {}", self.0)
    }
}

impl std::error::Error for BadModel {}

pub(super) fn write(header: &impl Serialize, weights: &[u8]) -> Result<Vec<u8>, BadModel> {
    let header = serde_json::to_vec(header).map_err(|error| BadModel(error.to_string()))?;
    let length = u32::try_from(header.len()).map_err(|error| BadModel(error.to_string()))?;
    let mut out = Vec::with_capacity(12 + header.len() + weights.len());
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&header);
    out.extend_from_slice(weights);
    Ok(out)
}

/// The header, the weights and the digest of the whole.
pub(super) fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<(T, &[u8], Digest), BadModel> {
    let rest = bytes
        .strip_prefix(MAGIC)
        .ok_or_else(|| BadModel("it does not begin with MGRDCLS1".into()))?;
    let (length, rest) = rest
        .split_first_chunk::<4>()
        .ok_or_else(|| BadModel("it ends before its header".into()))?;
    let length = u32::from_le_bytes(*length) as usize;
    if length > MAX_HEADER_BYTES || length > rest.len() {
        return Err(BadModel(format!("a header of {length} bytes is not in it")));
    }
    let (header, weights) = rest.split_at(length);
    let header = serde_json::from_slice(header)
        .map_err(|error| BadModel(format!("its header is not understood: {error}")))?;
    Ok((header, weights, Digest::of(bytes)))
}
