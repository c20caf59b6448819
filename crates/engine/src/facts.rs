//! What a model file says about itself, without loading its weights.

use std::path::Path;

use crate::config::DecoderConfig;
use crate::embedder::BertConfig;
use crate::error::LoadError;
use crate::tokenizer::template_of_directory;
use crate::weights::{Weights, read_json};

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
    if path.is_dir() {
        inspect_directory(path)
    } else {
        inspect_gguf(path)
    }
}

fn inspect_gguf(path: &Path) -> Result<ModelFacts, LoadError> {
    let (weights, gguf) = Weights::open_gguf(path)?;
    let config = DecoderConfig::from_gguf(&gguf, path)?;
    let has_chat_template = gguf.text("tokenizer.chat_template").is_some();
    let name = gguf.text("general.name").map(str::to_owned);
    Ok(chat_facts(config, &weights, name, has_chat_template))
}

fn inspect_directory(path: &Path) -> Result<ModelFacts, LoadError> {
    let file = path.join("config.json");
    let json = read_json(&file)?;
    let weights = Weights::open_safetensors(path)?;
    let name = json["_name_or_path"]
        .as_str()
        .filter(|name| !name.is_empty())
        .map(str::to_owned);
    if json["model_type"] == "bert" {
        let config = BertConfig::from_directory(path)?;
        return Ok(ModelFacts {
            kind: ModelKind::Embedding,
            architecture: "bert".to_owned(),
            name,
            parameters: weights.parameters(),
            context_length: config.max_tokens,
            embedding_length: config.hidden,
            vocabulary_size: config.vocabulary,
            quantisation: weights.main_dtype().to_owned(),
            size_bytes: weights.size_bytes(),
            has_chat_template: false,
        });
    }
    let config = DecoderConfig::from_json(&json, &file)?;
    let has_chat_template = template_of_directory(path)?.is_some();
    Ok(chat_facts(config, &weights, name, has_chat_template))
}

fn chat_facts(
    config: DecoderConfig,
    weights: &Weights,
    name: Option<String>,
    has_chat_template: bool,
) -> ModelFacts {
    ModelFacts {
        kind: ModelKind::Chat,
        architecture: config.architecture,
        name,
        parameters: weights.parameters(),
        context_length: config.context_length,
        embedding_length: config.hidden,
        vocabulary_size: config.vocabulary,
        quantisation: weights.main_dtype().to_owned(),
        size_bytes: weights.size_bytes(),
        has_chat_template,
    }
}
