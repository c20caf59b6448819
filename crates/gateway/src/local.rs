//! The seam to models that run in this process.
//!
//! The server implements [`LocalModels`] over the engine; tests bring a fake.
//! One request is one choice: `n` choices are `n` requests with different seeds,
//! made here, so that an implementation stays simple. Stopping a generation is
//! dropping its stream.

use std::pin::Pin;

use base::Usage;
use futures_core::Stream;
use serde_json::Value;

/// A stream of generation events.
pub type LocalStream = Pin<Box<dyn Stream<Item = Result<LocalEvent, LocalError>> + Send>>;
/// A future of embeddings.
pub type LocalEmbedding = Pin<Box<dyn Future<Output = Result<LocalEmbeddings, LocalError>> + Send>>;

/// The models that run in this process.
pub trait LocalModels: Send + Sync + 'static {
    /// What is installed, loaded or not.
    fn list(&self) -> Vec<LocalModel>;

    /// Starts one generation. Problems come as the stream's first item.
    fn chat(&self, request: LocalChat) -> LocalStream;

    /// Embeds texts.
    fn embed(&self, request: LocalEmbed) -> LocalEmbedding;
}

/// One installed model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalModel {
    /// The name after `local/`.
    pub name: String,
    /// What it can do.
    pub kind: LocalKind,
    /// When it was installed, microseconds since the epoch.
    pub installed_at: i64,
}

/// What a local model can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LocalKind {
    /// Chat completions.
    Chat,
    /// Embeddings.
    Embedding,
}

/// One generation of one choice. `None` means the model's default.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LocalChat {
    /// The name after `local/`.
    pub model: String,
    /// Messages as the caller wrote them, for the model's chat template.
    pub messages: Vec<Value>,
    /// Tool definitions for the chat template; empty when there are none.
    pub tools: Vec<Value>,
    /// 0 to 2.
    pub temperature: Option<f64>,
    /// Above 0, at most 1.
    pub top_p: Option<f64>,
    /// At least 1.
    pub top_k: Option<u32>,
    /// 0 to 1.
    pub min_p: Option<f64>,
    /// Above 0; 1 changes nothing.
    pub repetition_penalty: Option<f64>,
    /// -2 to 2.
    pub frequency_penalty: Option<f64>,
    /// -2 to 2.
    pub presence_penalty: Option<f64>,
    /// Same seed, same settings: same answer.
    pub seed: Option<u64>,
    /// Strings that end the answer and are not part of it.
    pub stop: Vec<String>,
    /// At most this many tokens.
    pub max_tokens: Option<u32>,
    /// Send log probabilities, with this many alternatives per token (0 to 20).
    pub top_logprobs: Option<u8>,
}

/// Something that a generation says. After [`LocalEvent::Finish`] the stream ends.
#[derive(Debug, Clone, PartialEq)]
pub enum LocalEvent {
    /// More text. An event may stand for several tokens (a character split over tokens).
    Text {
        /// The new text.
        text: String,
        /// One entry per token, when they were asked for.
        logprobs: Vec<TokenLogprob>,
    },
    /// A tool call that the implementation parsed from the model's text.
    ToolCall {
        /// An id that is unique in this answer.
        id: String,
        /// The function's name.
        name: String,
        /// Its arguments, JSON text.
        arguments: String,
    },
    /// The end, with what it cost.
    Finish {
        /// Why it ended.
        reason: FinishReason,
        /// Exact counts.
        usage: Usage,
    },
}

/// Why a local generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinishReason {
    /// The model said so, or a stop string came.
    Stop,
    /// `max_tokens` or the context was full.
    Length,
    /// The answer is tool calls.
    ToolCalls,
}

impl FinishReason {
    /// The OpenAI word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::ToolCalls => "tool_calls",
        }
    }
}

/// One token's log probability and its rivals'.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenLogprob {
    /// The token's text, lossy.
    pub token: String,
    /// The token's bytes.
    pub bytes: Vec<u8>,
    /// Its natural-log probability.
    pub logprob: f64,
    /// The most likely tokens at this place: text, bytes, log probability.
    pub top: Vec<(String, Vec<u8>, f64)>,
}

/// Texts to embed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalEmbed {
    /// The name after `local/`.
    pub model: String,
    /// The texts, in order.
    pub inputs: Vec<String>,
}

/// Embeddings of all inputs, in order.
#[derive(Debug, Clone, PartialEq)]
pub struct LocalEmbeddings {
    /// One vector per input.
    pub vectors: Vec<Vec<f32>>,
    /// Tokens of all inputs.
    pub input_tokens: u64,
}

/// Why a local model did not answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LocalError {
    /// No such model is installed.
    #[error("the model {0:?} is not installed")]
    UnknownModel(String),
    /// The request cannot be served as it is; names the parameter.
    #[error("{message}")]
    Invalid {
        /// The request field at fault.
        param: &'static str,
        /// What is wrong with it.
        message: String,
    },
    /// The prompt does not fit into the model's context.
    #[error("{0}")]
    ContextOverflow(String),
    /// Too many requests wait already.
    #[error("the local models have too much to do")]
    Busy,
    /// Anything else: a broken file, out of memory, a bug.
    #[error("{0}")]
    Failed(String),
}
