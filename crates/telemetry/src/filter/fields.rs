//! The fields that filters, groups and measures can name.

use std::fmt;
use std::str::FromStr;

/// Type of a field's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldType {
    /// Text: `=`, `!=`, `in`, `contains`, `starts_with`, `exists`.
    Text,
    /// A fixed set of words: `=`, `!=`, `in`, `exists`.
    Word,
    /// Number: `=`, `!=`, `<`, `<=`, `>`, `>=`, `in`, `exists`.
    Number,
    /// `true` or `false`: `=`, `!=`, `exists`.
    Bool,
    /// Whatever was stored (metadata, scores): the literal decides.
    Any,
}

macro_rules! fields {
    ($($(#[$doc:meta])* $variant:ident = $word:literal: $type:ident),+ $(,)?) => {
        /// A field of a span.
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Field {
            $($(#[$doc])* $variant,)+
            /// `tag.NAME`: a tag.
            Tag(String),
            /// `metadata.PATH`: a value in the metadata; dots go into objects.
            Metadata(String),
            /// `score.NAME`: the latest current score of that name.
            Score(String),
        }

        impl Field {
            /// Every field with a fixed name.
            pub const NAMED: &'static [Self] = &[$(Self::$variant),+];

            fn word(&self) -> Option<&'static str> {
                match self { $(Self::$variant => Some($word),)+ _ => None }
            }

            /// Type of its values.
            pub fn field_type(&self) -> FieldType {
                match self {
                    $(Self::$variant => FieldType::$type,)+
                    Self::Tag(_) => FieldType::Text,
                    Self::Metadata(_) | Self::Score(_) => FieldType::Any,
                }
            }
        }
    };
}

fields! {
    /// Span name.
    Name = "name": Text,
    /// What it did.
    Kind = "kind": Word,
    /// How it ended.
    Status = "status": Word,
    /// Environment.
    Environment = "environment": Text,
    /// Provider.
    Provider = "provider": Text,
    /// Model asked for.
    Model = "model": Text,
    /// Model that answered.
    ResponseModel = "response_model": Text,
    /// Prompt name.
    Prompt = "prompt": Text,
    /// Prompt version.
    PromptVersion = "prompt_version": Number,
    /// Session.
    Session = "session": Text,
    /// Step in the session.
    SessionStep = "session_step": Number,
    /// Pseudonymous user.
    User = "user": Text,
    /// API key id.
    Key = "key": Text,
    /// Trace id in hex.
    Trace = "trace": Text,
    /// Span id in hex.
    Span = "span": Text,
    /// Error class.
    ErrorType = "error_type": Text,
    /// Error text.
    Error = "error": Text,
    /// First finish reason.
    FinishReason = "finish_reason": Text,
    /// Release digest.
    Release = "release": Text,
    /// Whether it was streamed.
    Streamed = "streamed": Bool,
    /// Duration.
    LatencyMs = "latency_ms": Number,
    /// Time to first token.
    TtftMs = "ttft_ms": Number,
    /// Cost.
    CostUsd = "cost_usd": Number,
    /// Prompt tokens.
    InputTokens = "input_tokens": Number,
    /// Completion tokens.
    OutputTokens = "output_tokens": Number,
    /// Prompt and completion tokens.
    TotalTokens = "total_tokens": Number,
    /// Prompt tokens from the provider's cache.
    CacheReadTokens = "cache_read_tokens": Number,
    /// Prompt tokens written to the provider's cache.
    CacheWriteTokens = "cache_write_tokens": Number,
    /// Hidden reasoning tokens.
    ReasoningTokens = "reasoning_tokens": Number,
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(name) => write!(f, "tag.{name}"),
            Self::Metadata(name) => write!(f, "metadata.{name}"),
            Self::Score(name) => write!(f, "score.{name}"),
            named => f.write_str(named.word().unwrap_or_default()),
        }
    }
}

/// No field has this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no field {name:?}")]
pub struct UnknownField {
    /// What was asked for.
    pub name: String,
    /// The nearest field name, when one is near.
    pub suggestion: Option<String>,
}

impl FromStr for Field {
    type Err = UnknownField;

    fn from_str(name: &str) -> Result<Self, UnknownField> {
        let _ = name;
        unimplemented!()
    }
}
