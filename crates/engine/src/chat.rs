//! A chat model in memory: the door to loading, prompts and generations.

use std::path::Path;
use std::time::Duration;

use crate::error::{GenerateError, LoadError};
use crate::generation::Generation;
use crate::request::{ChatPrompt, GenerateRequest};

/// How to load and run a chat model.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// How weights are held in memory.
    pub precision: Precision,
    /// Threads that compute; `None` uses the machine's cores.
    pub threads: Option<usize>,
    /// Upper bound on the context, below the model's own.
    pub max_context: Option<usize>,
    /// Sequences that run at once.
    pub max_sequences: usize,
    /// Requests that may wait; more get [`GenerateError::Busy`].
    pub max_waiting: usize,
    /// Memory for keys and values of all running sequences, in bytes.
    pub kv_cache_bytes: u64,
    /// Events that a reader may leave unread before its sequence pauses.
    pub event_buffer: usize,
    /// A paused sequence is given up after this time.
    pub reader_timeout: Duration,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            precision: Precision::Quantised,
            threads: None,
            max_context: None,
            max_sequences: 16,
            max_waiting: 64,
            kv_cache_bytes: 2 << 30,
            event_buffer: 64,
            reader_timeout: Duration::from_secs(60),
        }
    }
}

/// How weights are held in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// Integer blocks of 32: 4-bit files stay at 4 bits, everything else becomes 8-bit.
    Quantised,
    /// 32-bit floats, whatever the file holds: exact and slow.
    Full,
}

/// How busy a model is right now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ModelLoad {
    /// Requests waiting.
    pub waiting: usize,
    /// Sequences running.
    pub running: usize,
    /// Bytes of key/value memory promised to running sequences.
    pub kv_cache_bytes: u64,
}

/// A loaded chat model. Cloning shares it; the last clone unloads it.
#[derive(Debug, Clone)]
pub struct ChatModel {
    context_length: usize,
}

impl ChatModel {
    /// Loads a GGUF file, or a directory with `config.json`, `tokenizer.json` and safetensors.
    /// Takes a second or more: call it off the async runtime.
    pub fn load(path: &Path, options: LoadOptions) -> Result<Self, LoadError> {
        Err(LoadError::unsupported(
            path,
            format!("not read yet with {options:?}"),
        ))
    }

    /// The longest prompt and answer together, in tokens.
    pub fn context_length(&self) -> usize {
        self.context_length
    }

    /// Queues a generation. Returns at once, before the first token.
    pub fn generate(&self, request: GenerateRequest) -> Result<Generation, GenerateError> {
        Err(GenerateError::Internal(format!("not built: {request:?}")))
    }

    /// The prompt text that the model would read for this conversation.
    pub fn render_chat(&self, chat: &ChatPrompt) -> Result<String, GenerateError> {
        Err(GenerateError::Internal(format!("not built: {chat:?}")))
    }

    /// Token ids of a text; special tokens written in it are recognised.
    pub fn tokenize(&self, text: &str) -> Result<Vec<u32>, GenerateError> {
        Err(GenerateError::Internal(format!("not built: {text}")))
    }

    /// How busy the model is.
    pub fn load_now(&self) -> ModelLoad {
        ModelLoad::default()
    }
}
