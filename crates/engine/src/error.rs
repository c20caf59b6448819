//! What can go wrong, as small enums for callers that branch.
//!
//! A file is foreign input: whatever it holds ends in a [`LoadError`] that
//! names the file and the place in it, never in a panic.

use std::path::{Path, PathBuf};

/// A model could not be opened. The message says what was wrong and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("load model {}: {message}", path.display())]
pub struct LoadError {
    /// The file or directory that was being read.
    pub path: PathBuf,
    /// What a caller branches on.
    pub kind: LoadErrorKind,
    /// What was wrong, with the key, tensor or byte offset concerned.
    pub message: String,
}

/// Why a model could not be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoadErrorKind {
    /// There is no such file, or a file that must be there is missing.
    NotFound,
    /// The operating system refused to read it.
    Unreadable,
    /// Truncated, damaged or contradicting itself.
    Broken,
    /// A sound file of something that this engine does not run.
    Unsupported,
    /// It claims sizes beyond what this engine or the given limits accept.
    TooLarge,
}

impl LoadError {
    pub(crate) fn new(path: &Path, kind: LoadErrorKind, message: impl Into<String>) -> Self {
        Self {
            path: path.to_owned(),
            kind,
            message: message.into(),
        }
    }

    pub(crate) fn broken(path: &Path, message: impl Into<String>) -> Self {
        Self::new(path, LoadErrorKind::Broken, message)
    }

    pub(crate) fn unsupported(path: &Path, message: impl Into<String>) -> Self {
        Self::new(path, LoadErrorKind::Unsupported, message)
    }

    /// Wraps what the operating system said about this path.
    pub(crate) fn io(path: &Path, error: &std::io::Error) -> Self {
        let kind = match error.kind() {
            std::io::ErrorKind::NotFound => LoadErrorKind::NotFound,
            _ => LoadErrorKind::Unreadable,
        };
        Self::new(path, kind, error.to_string())
    }
}

/// A generation could not start or could not be finished.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GenerateError {
    /// The waiting queue is full; try again later.
    #[error("the model is busy: {waiting} requests are waiting already")]
    Busy {
        /// Requests in the queue.
        waiting: usize,
    },
    /// Prompt and answer do not fit the model's context or the memory given to it.
    #[error(
        "the prompt has {prompt_tokens} tokens and up to {max_tokens} were asked for, but the model's context holds {context_length}"
    )]
    ContextOverflow {
        /// Tokens of the prompt.
        prompt_tokens: usize,
        /// Tokens asked for (at least one when the caller named no number).
        max_tokens: usize,
        /// What fits.
        context_length: usize,
    },
    /// A parameter is out of its range, or the prompt is empty.
    #[error("{0}")]
    InvalidRequest(String),
    /// The model's chat template refused or failed on these messages.
    #[error("render the chat template: {0}")]
    Template(String),
    /// Nobody read the answer for longer than the limit.
    #[error("nobody read the answer for {seconds} s")]
    ReaderStalled {
        /// The limit in seconds.
        seconds: u64,
    },
    /// The model is being unloaded.
    #[error("the model is being unloaded")]
    Stopped,
    /// A fault of ours.
    #[error("internal engine error: {0}")]
    Internal(String),
}

/// Texts could not be embedded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EmbedError {
    /// More texts or longer texts than the embedder takes in one call.
    #[error("{0}")]
    InvalidRequest(String),
    /// A fault of ours.
    #[error("internal engine error: {0}")]
    Internal(String),
}
