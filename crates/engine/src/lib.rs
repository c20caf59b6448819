//! Local models on candle: loading, tokenising, decoding, embeddings.
//!
//! Owns everything between a file on disk and tokens or vectors: the GGUF and
//! safetensors readers, the tokenizers, the chat template, one decoder for the
//! Llama and Qwen families, the integer kernels, the scheduler thread that
//! serves several requests at once, and the BERT encoder. It knows no HTTP, no
//! SQL and no catalog; model files are found and verified by the caller.
//!
//! Start at [`ChatModel`], [`Embedder`] and [`inspect`].

mod attention;
mod chat;
mod config;
mod decoder;
mod embedder;
mod error;
mod facts;
mod generation;
mod gguf;
mod kv;
mod linear;
mod marks;
mod pool;
mod request;
mod sampling;
mod scheduler;
mod template;
mod text_stream;
mod tokenizer;
mod weights;

pub use chat::{ChatModel, LoadOptions, ModelLoad, Precision};
pub use embedder::{Embedder, Embeddings, HiddenStates, TokenVectors};
pub use error::{EmbedError, GenerateError, LoadError, LoadErrorKind};
pub use facts::{ModelFacts, ModelKind, inspect};
pub use generation::{
    Completion, Done, Event, FinishReason, Generation, LogProb, Timings, Token, TokenLogProbs,
    TokenUsage,
};
pub use request::{ChatPrompt, GenerateRequest, Prompt, Sampling};
