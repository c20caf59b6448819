//! The fields that filters, groups and measures can name.

use std::fmt;
use std::str::FromStr;

use super::lexer;

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
    /// App that served the call.
    App = "app": Text,
    /// Experiment that the call was part of.
    Experiment = "experiment": Text,
    /// Its arm that served the call.
    Arm = "arm": Text,
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
        let (prefix, name) = match self {
            Self::Tag(name) => ("tag", name),
            Self::Metadata(name) => ("metadata", name),
            Self::Score(name) => ("score", name),
            named => return f.write_str(named.word().unwrap_or_default()),
        };
        if !name.is_empty() && !name.ends_with('.') && name.chars().all(lexer::is_bare) {
            write!(f, "{prefix}.{name}")
        } else {
            write!(f, "{prefix}.{}", lexer::quote(name))
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

    /// Reads a field as it is written in a filter: `model`, `tag.team`, `tag."my team"`.
    fn from_str(text: &str) -> Result<Self, UnknownField> {
        let raw = match text.split_once(".\"") {
            Some((prefix, rest)) => match lexer::unquote(&format!("\"{rest}")) {
                Some(name) => format!("{prefix}.{name}"),
                None => text.to_owned(),
            },
            None => text.to_owned(),
        };
        Self::from_raw(&raw)
    }
}

impl Field {
    /// The field of a name whose quotes are already gone.
    pub(super) fn from_raw(name: &str) -> Result<Self, UnknownField> {
        let of = |make: fn(String) -> Self, rest: &str| {
            Some(make(rest.to_owned())).filter(|_| !rest.is_empty())
        };
        let found = match name.split_once('.') {
            Some(("tag", rest)) => of(Self::Tag, rest),
            Some(("metadata", rest)) => of(Self::Metadata, rest),
            Some(("score", rest)) => of(Self::Score, rest),
            _ => Self::NAMED
                .iter()
                .find(|field| field.word() == Some(name))
                .cloned(),
        };
        found.ok_or_else(|| UnknownField {
            name: name.chars().take(64).collect(),
            suggestion: suggest(name),
        })
    }
}

/// The known name that is nearest to a wrong one. Words that people bring from
/// other tools come first; spelling mistakes after.
fn suggest(name: &str) -> Option<String> {
    let lower = name.to_lowercase();
    let habit = match lower.as_str() {
        "latency" | "duration" | "duration_ms" => "latency_ms",
        "ttft" | "time_to_first_token" => "ttft_ms",
        "cost" | "price" => "cost_usd",
        "tokens" => "total_tokens",
        "prompt_tokens" => "input_tokens",
        "completion_tokens" => "output_tokens",
        "env" => "environment",
        "session_id" => "session",
        "user_id" | "user_ref" => "user",
        "trace_id" => "trace",
        "request_model" => "model",
        "thumbs" | "feedback" => "score.thumbs",
        "level" => "status",
        _ => "",
    };
    if !habit.is_empty() {
        return Some(habit.to_owned());
    }
    if let Some((prefix, rest)) = lower.split_once('.') {
        let prefixes = ["tag", "metadata", "score"].into_iter();
        let near = prefixes.min_by_key(|known| strsim::levenshtein(known, prefix))?;
        return (strsim::levenshtein(near, prefix) <= 3 && !rest.is_empty())
            .then(|| format!("{near}.{rest}"));
    }
    let near = Field::NAMED
        .iter()
        .filter_map(Field::word)
        .min_by_key(|known| strsim::levenshtein(known, &lower))?;
    (strsim::levenshtein(near, &lower) <= 1 + lower.chars().count() / 3).then(|| near.to_owned())
}

/// The value nearest to a wrong word of a fixed set.
pub(super) fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    known
        .iter()
        .copied()
        .min_by_key(|known| strsim::levenshtein(known, &word.to_lowercase()))
}
