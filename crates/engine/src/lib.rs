//! Local models on candle: loading, tokenising, decoding, embeddings.
//!
//! Owns everything between a file on disk and tokens or vectors: the GGUF and
//! safetensors readers, the tokenizers, the chat template, one decoder for the
//! Llama and Qwen families, the integer kernels, the scheduler thread that
//! serves several requests at once, and the BERT encoder. It knows no HTTP, no
//! SQL and no catalog; model files are found and verified by the caller.
//!
//! Start at [`ChatModel`], [`Embedder`] and [`inspect`].

mod chat;
mod embedder;
mod error;
mod facts;
mod generation;
mod request;
mod scheduler;

pub use chat::{ChatModel, LoadOptions, ModelLoad, Precision};
pub use embedder::{Embedder, Embeddings};
pub use error::{EmbedError, GenerateError, LoadError, LoadErrorKind};
pub use facts::{ModelFacts, ModelKind, inspect};
pub use generation::{
    Completion, Done, Event, FinishReason, Generation, LogProb, Timings, Token, TokenLogProbs,
    TokenUsage,
};
pub use request::{ChatPrompt, GenerateRequest, Prompt, Sampling};
