//! The two kinds of fact that telemetry stores: a [`Span`] (one timed
//! operation, one wide row) and a [`Score`] (one judgement on it).
//!
//! Both are append-only. Writing a span again under the same (project, trace,
//! span) replaces what readers see; a score never touches the span that it
//! judges. Message bodies travel with the span here, but are stored once per
//! segment beside it.

use std::collections::BTreeMap;

use base::{NanoUsd, ProjectId, ScoreId, SpanId, TraceId, Usage};
use serde::{Deserialize, Serialize};
use serde_json::Value;

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$vdoc])* #[serde(rename = $word)] $variant),+
        }

        impl $name {
            /// Every value, in the order in which people see them.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The word used in the API, in filters and in the rows.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }

            /// The value that this word names.
            pub fn from_word(word: &str) -> Option<Self> {
                match word { $($word => Some(Self::$variant),)+ _ => None }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

words!(
    /// What a span did.
    Kind {
        /// Called a language model.
        Llm = "llm",
        /// Called an embedding model.
        Embed = "embed",
        /// Ran a tool.
        Tool = "tool",
        /// Looked something up.
        Retrieval = "retrieval",
        /// One turn of an agent.
        Agent = "agent",
        /// A sequence of other spans.
        Chain = "chain",
        /// Checked an input or an output.
        Guard = "guard",
        /// Anything else.
        Other = "other",
    }
);

words!(
    /// How a span ended.
    Status {
        /// As intended.
        Ok = "ok",
        /// With an error; see `error_type` and `error_message`.
        Error = "error",
        /// The caller went away or asked to stop.
        Cancelled = "cancelled",
    }
);

words!(
    /// Who or what gave a score.
    Source {
        /// A person.
        Human = "human",
        /// A model or a program that judges.
        Judge = "judge",
        /// A client of the API, on whose behalf we do not know.
        Api = "api",
    }
);

/// The catalog prompt that a call used.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PromptRef {
    /// Name, for example `support/answer`.
    pub name: String,
    /// Version number under that name, when known.
    pub version: Option<i64>,
    /// Digest of the prompt document, when known.
    pub digest: Option<String>,
}

/// One timed operation: the row, and the bodies it read and wrote.
///
/// Build it with [`Span::new`] and set what is known. Texts may be of any size
/// and hold any character: the writer replaces NUL and cuts what is over the
/// limits of [`crate::limits`], and names the cut fields in `truncated`.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    /// Owner of the row.
    pub project: ProjectId,
    /// The request that this belongs to.
    pub trace_id: TraceId,
    /// This operation.
    pub span_id: SpanId,
    /// The operation that caused it; `None` for the root of the trace.
    pub parent: Option<SpanId>,
    /// Start, microseconds since the epoch.
    pub start_us: i64,
    /// End, microseconds since the epoch.
    pub end_us: i64,
    /// Short name for people.
    pub name: String,
    /// What it did.
    pub kind: Kind,
    /// How it ended.
    pub status: Status,
    /// Where the release runs: `dev`, `staging`, `prod` …
    pub environment: String,
    /// Connection that served the call.
    pub provider: Option<String>,
    /// Model that the client asked for.
    pub request_model: Option<String>,
    /// Model that answered.
    pub response_model: Option<String>,
    /// Catalog prompt in use.
    pub prompt: Option<PromptRef>,
    /// Conversation.
    pub session_id: Option<String>,
    /// Position in the conversation, from 1.
    pub session_step: Option<i64>,
    /// Pseudonymous end user.
    pub user_ref: Option<String>,
    /// API key (its id, never the secret).
    pub key_id: Option<String>,
    /// Labels from headers or body.
    pub tags: BTreeMap<String, String>,
    /// Caller's JSON; [`Value::Null`] when there is none.
    pub metadata: Value,
    /// Token counts.
    pub usage: Usage,
    /// Cost; `None` when no price is known (which is not free).
    pub cost: Option<NanoUsd>,
    /// Price table that gave the cost.
    pub price_version: Option<String>,
    /// Time from start to the first token, microseconds.
    pub ttft_us: Option<i64>,
    /// Short machine-readable error class.
    pub error_type: Option<String>,
    /// The error for people.
    pub error_message: Option<String>,
    /// Why generation stopped, one per choice.
    pub finish_reasons: Vec<String>,
    /// Whether the answer was streamed to the client.
    pub streamed: bool,
    /// Revision of the plan that served the call.
    pub plan_revision: Option<String>,
    /// Digest of the release that served the call.
    pub release_digest: Option<String>,
    /// Model parameters (temperature …); `Null` when there are none.
    pub parameters: Value,
    /// Any other attributes; `Null` when there are none.
    pub attrs: Value,
    /// Messages that the operation read, as the protocol's JSON.
    pub input: Vec<Value>,
    /// Messages that it produced.
    pub output: Vec<Value>,
    /// Tool definitions offered to the model.
    pub tools: Vec<Value>,
    /// Index of the first input message that is new in this conversation.
    /// `None` lets the writer decide: what follows the last assistant message.
    pub new_from: Option<u16>,
    /// Names of fields that were cut on writing. Set by the writer.
    pub truncated: Vec<String>,
}

impl Span {
    /// A span that began and ended at `start_us`, with everything else empty.
    pub fn new(
        project: ProjectId,
        trace_id: TraceId,
        span_id: SpanId,
        kind: Kind,
        start_us: i64,
    ) -> Self {
        Self {
            project,
            trace_id,
            span_id,
            parent: None,
            start_us,
            end_us: start_us,
            name: String::new(),
            kind,
            status: Status::Ok,
            environment: String::new(),
            provider: None,
            request_model: None,
            response_model: None,
            prompt: None,
            session_id: None,
            session_step: None,
            user_ref: None,
            key_id: None,
            tags: BTreeMap::new(),
            metadata: Value::Null,
            usage: Usage::default(),
            cost: None,
            price_version: None,
            ttft_us: None,
            error_type: None,
            error_message: None,
            finish_reasons: Vec::new(),
            streamed: false,
            plan_revision: None,
            release_digest: None,
            parameters: Value::Null,
            attrs: Value::Null,
            input: Vec::new(),
            output: Vec::new(),
            tools: Vec::new(),
            new_from: None,
            truncated: Vec::new(),
        }
    }

    /// Duration in microseconds.
    pub fn latency_us(&self) -> i64 {
        self.end_us.saturating_sub(self.start_us)
    }
}

/// One judgement on a trace or a span. Appended, never changed: a second score
/// of the same (target, name, source, author) with a later time wins.
#[derive(Debug, Clone, PartialEq)]
pub struct Score {
    /// Identity: writing the same id again changes nothing.
    pub score_id: ScoreId,
    /// Owner of the row.
    pub project: ProjectId,
    /// Judged trace.
    pub trace_id: TraceId,
    /// Judged span; `None` judges the whole trace.
    pub span_id: Option<SpanId>,
    /// What is judged, for example `thumbs`.
    pub name: String,
    /// The number, when there is one.
    pub value: Option<f64>,
    /// The word, when there is one.
    pub label: Option<String>,
    /// Reason or remark.
    pub comment: Option<String>,
    /// Who or what judged.
    pub source: Source,
    /// Which person, evaluator or key.
    pub author: Option<String>,
    /// When, microseconds since the epoch.
    pub at_us: i64,
    /// A score that this one withdraws, whoever gave it.
    pub supersedes: Option<ScoreId>,
}

/// What one write makes durable together: all of it or nothing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Batch {
    /// Spans, in any order.
    pub spans: Vec<Span>,
    /// Scores; their spans may be elsewhere or not exist yet.
    pub scores: Vec<Score>,
}

impl From<Span> for Batch {
    fn from(span: Span) -> Self {
        Self {
            spans: vec![span],
            scores: Vec::new(),
        }
    }
}

impl From<Score> for Batch {
    fn from(score: Score) -> Self {
        Self {
            spans: Vec::new(),
            scores: vec![score],
        }
    }
}

/// A span as readers get it: the row and its previews. The bodies
/// (`span.input`, `output`, `tools`) are empty; fetch them by
/// [`crate::Telemetry::span_bodies`].
#[derive(Debug, Clone, PartialEq)]
pub struct StoredSpan {
    /// The row.
    pub span: Span,
    /// Order of writing; the highest wins.
    pub seq: u64,
    /// The first 200 characters that the user sent.
    pub input_preview: String,
    /// The first 200 characters of the answer.
    pub output_preview: String,
    /// How many input messages, output messages and tools there are.
    pub body_counts: BodyCounts,
}

/// How many bodies a span refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BodyCounts {
    /// Input messages.
    pub input: usize,
    /// Output messages.
    pub output: usize,
    /// Tool definitions.
    pub tools: usize,
}
