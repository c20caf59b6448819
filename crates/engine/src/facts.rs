//! What a model file says about itself, without loading its weights.

use std::path::Path;

use crate::error::LoadError;

/// What a model does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelKind {
    /// Generates text: load it with [`crate::ChatModel`].
    Chat,
    /// Turns text into vectors: load it with [`crate::Embedder`].
    Embedding,
}

/// The properties that the model catalog shows. The digest is the caller's to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelFacts {
    /// What it does.
    pub kind: ModelKind,
    /// The family as the file names it, such as `llama`, `qwen2`, `bert`.
    pub architecture: String,
    /// The name in the file, if it has one.
    pub name: Option<String>,
    /// How many weights it has.
    pub parameters: u64,
    /// The longest input in tokens.
    pub context_length: usize,
    /// The width of its vectors.
    pub embedding_length: usize,
    /// How many entries its vocabulary has.
    pub vocabulary_size: usize,
    /// The storage type of most weights, such as `Q4_1`, `F16`, `F32`.
    pub quantisation: String,
    /// Bytes on disk of the weights.
    pub size_bytes: u64,
    /// Whether it brings its own chat template.
    pub has_chat_template: bool,
}

/// Reads what a GGUF file or a model directory says about itself. Only headers are read.
pub fn inspect(path: &Path) -> Result<ModelFacts, LoadError> {
    Err(LoadError::unsupported(path, "not read yet"))
}
