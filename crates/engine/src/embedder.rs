//! Sentence embeddings by BERT: batches by length, mean pooling, unit length.

use std::path::Path;

use crate::error::{EmbedError, LoadError};

/// An embedding model in memory. Calls block the thread that makes them.
#[derive(Debug)]
pub struct Embedder {
    dimensions: usize,
}

/// Vectors in the order of the texts, with what they cost.
#[derive(Debug, Clone, PartialEq)]
pub struct Embeddings {
    /// One vector of length 1 per text.
    pub vectors: Vec<Vec<f32>>,
    /// Tokens read per text, special tokens included, after truncation.
    pub token_counts: Vec<usize>,
}

impl Embedder {
    /// Loads a directory with `config.json`, `tokenizer.json` and `model.safetensors`.
    pub fn load(path: &Path) -> Result<Self, LoadError> {
        Err(LoadError::unsupported(path, "not read yet"))
    }

    /// The width of the vectors.
    pub fn dimensions(&self) -> usize {
        self.dimensions
    }

    /// Embeds texts. Blocks; call it off the async runtime.
    pub fn embed(&self, texts: &[String]) -> Result<Embeddings, EmbedError> {
        Err(EmbedError::Internal(format!("{} texts", texts.len())))
    }
}
