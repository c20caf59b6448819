//! Token counts of one call.

use serde::{Deserialize, Serialize};

/// Tokens that a call read and wrote, split the way providers price them.
///
/// `input` includes `cache_read` and `cache_write`; `output` includes
/// `reasoning`. Adapters normalise to this (Anthropic reports input without the
/// cached part, OpenAI with it).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Usage {
    /// All prompt tokens.
    pub input: u64,
    /// All completion tokens.
    pub output: u64,
    /// Prompt tokens served from the provider's cache.
    pub cache_read: u64,
    /// Prompt tokens written to the provider's cache.
    pub cache_write: u64,
    /// Completion tokens spent on hidden reasoning.
    pub reasoning: u64,
    /// True when the provider sent no counts and these are our estimate.
    pub estimated: bool,
}
