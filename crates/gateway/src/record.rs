//! What one call leaves behind, and the promise that it leaves it exactly once.
//!
//! A [`Recorder`] reserves a place for the record *before* the call starts, so
//! that a full telemetry queue refuses work instead of losing it. The reserved
//! place is a [`Permit`]; the gateway keeps it in a guard whose drop settles it,
//! so a cancelled, failed or panicking call is recorded like a finished one.
//! Nothing here writes to disk.

use std::collections::BTreeMap;

use base::{Digest, KeyId, NanoUsd, ProjectId, SpanId, TraceId, Usage, UserId};
use serde_json::{Map, Value};

use crate::experiment::ArmUsed;

/// Takes finished calls. The server implements it over telemetry.
pub trait Recorder: Send + Sync + 'static {
    /// Reserves a place for one record, without waiting.
    ///
    /// # Errors
    /// [`Busy`] when the queue is full; the caller is told to come back later.
    fn admit(&self) -> Result<Permit, Busy>;
}

/// There is no place for another record now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Busy {
    /// What the client reads in `Retry-After`.
    pub retry_after_s: u32,
}

/// A reserved place for one record. Dropping it unsettled gives the place back.
pub struct Permit(Box<dyn FnOnce(Record) + Send>);

impl Permit {
    /// A permit that hands its record to this function, which must not block.
    pub fn new(settle: impl FnOnce(Record) + Send + 'static) -> Self {
        Self(Box::new(settle))
    }

    /// Hands the record on.
    pub fn settle(self, record: Record) {
        (self.0)(record);
    }
}

impl std::fmt::Debug for Permit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Permit")
    }
}

/// What kind of model call it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallKind {
    /// `/v1/chat/completions`.
    Chat,
    /// `/v1/embeddings`.
    Embedding,
}

/// What a record tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordKind {
    /// A call of a chat model.
    Chat,
    /// A call of an embedding model.
    Embedding,
    /// One call of an app: the root of what its steps did.
    App,
    /// A group of steps.
    Chain,
    /// A tool's call.
    Tool,
    /// An agent's loop.
    Agent,
    /// A search in an index.
    Retrieval,
    /// A check.
    Guard,
}

impl From<CallKind> for RecordKind {
    fn from(kind: CallKind) -> Self {
        match kind {
            CallKind::Chat => Self::Chat,
            CallKind::Embedding => Self::Embedding,
        }
    }
}

impl RecordKind {
    /// The name that records and filters use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Embedding => "embedding",
            Self::App => "app",
            Self::Chain => "chain",
            Self::Tool => "tool",
            Self::Agent => "agent",
            Self::Retrieval => "retrieval",
            Self::Guard => "guard",
        }
    }
}

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallStatus {
    /// The client got a whole answer.
    Ok,
    /// The client got an error, before or in the stream.
    Error,
    /// The client went away, or the process stopped, before the end.
    Cancelled,
}

impl CallStatus {
    /// The name that records and filters use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Error => "error",
            Self::Cancelled => "cancelled",
        }
    }
}

/// What a guard policy found and did, in the record of a guard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuardUsed {
    /// The policy's name.
    pub policy: String,
    /// The version's number.
    pub version: i64,
    /// The version's content.
    pub digest: Digest,
    /// The strongest thing that it did: `flagged`, `edited` or `blocked`.
    pub decision: &'static str,
    /// The rules that found something.
    pub rules: Vec<String>,
    /// How long its rules looked, without what models were asked, in microseconds.
    pub took_us: u64,
}

/// Which prompt version stood before the caller's messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PromptUsed {
    /// The prompt's name.
    pub name: String,
    /// Its version.
    pub version: i64,
    /// The digest of that version's document.
    pub digest: Digest,
    /// The label it was found by; none when the caller named a version.
    pub label: Option<String>,
}

/// Which app a call ran, or was a step of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppUsed {
    /// The app's name.
    pub name: String,
    /// The release's number; none for a draft that was tried out.
    pub release: Option<i64>,
    /// The release's digest; of a draft its document's.
    pub digest: Digest,
    /// The step's id; none for the app as a whole.
    pub step: Option<String>,
}

/// What went wrong in a call that did not end well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallError {
    /// A stable code: `model_not_found`, `provider_timeout`, `stream_died` …
    pub kind: String,
    /// What a person reads. Never holds a credential.
    pub message: String,
}

/// Everything that is known about one finished call. All times are microseconds
/// since the Unix epoch.
#[derive(Debug, Clone)]
pub struct Record {
    /// The trace that this call belongs to.
    pub trace_id: TraceId,
    /// The call's own generation span.
    pub span_id: SpanId,
    /// The span that the caller says it runs under.
    pub parent_span_id: Option<SpanId>,
    /// Our own span that this one is part of: the app's, or the step's.
    pub parent: Option<SpanId>,
    /// The tenant.
    pub project: ProjectId,
    /// The environment of the key.
    pub environment: String,
    /// The key that called; none for a signed-in person in the playground.
    pub key_id: Option<KeyId>,
    /// The signed-in person; none for a key.
    pub caller: Option<UserId>,
    /// What it was.
    pub kind: RecordKind,
    /// The protocol spoken upstream: `openai`, `anthropic` or `local`; none when the model was not found.
    pub protocol: Option<&'static str>,
    /// The provider's name in the project, or `local`.
    pub provider: Option<String>,
    /// The model as the caller wrote it.
    pub request_model: String,
    /// The model that the provider says answered.
    pub response_model: Option<String>,
    /// The provider's own id of the answer.
    pub response_id: Option<String>,
    /// The provider's own id of the request, for its support desk.
    pub provider_request_id: Option<String>,
    /// The catalog prompt that was put before the messages.
    pub prompt: Option<PromptUsed>,
    /// The app that ran, or that this was a step of.
    pub app: Option<AppUsed>,
    /// The arm of an experiment that decided which version served this.
    pub arm: Option<ArmUsed>,
    /// What a guard found, if this is the record of one.
    pub guard: Option<GuardUsed>,
    /// The conversation.
    pub session: Option<String>,
    /// The position in the conversation, when the caller says it.
    pub step: Option<i64>,
    /// The application's end user.
    pub user: Option<String>,
    /// Tags: `team=a`; a bare tag has the value `true`.
    pub tags: BTreeMap<String, String>,
    /// Whatever else the caller attached.
    pub metadata: Map<String, Value>,
    /// Request fields other than model, messages, input and extension.
    pub parameters: Map<String, Value>,
    /// The messages that were sent, the rendered prompt included; for embeddings the inputs.
    pub input: Vec<Value>,
    /// One message per choice, with text, reasoning and tool calls; for embeddings empty.
    pub output: Vec<Value>,
    /// One finish reason per choice, in the OpenAI vocabulary.
    pub finish_reasons: Vec<String>,
    /// Token counts; none when nothing was generated and nobody counted.
    pub usage: Option<Usage>,
    /// Cost; none when the price is unknown, which is not the same as free.
    pub cost: Option<NanoUsd>,
    /// The price table's version that the cost was computed with.
    pub price_version: Option<String>,
    /// How it ended.
    pub status: CallStatus,
    /// What went wrong.
    pub error: Option<CallError>,
    /// The HTTP status that the client got or would have got; 499 when it had gone before.
    pub http_status: u16,
    /// Whether the client asked for a stream.
    pub streamed: bool,
    /// When the call began.
    pub started_at: i64,
    /// When the first token arrived.
    pub first_token_at: Option<i64>,
    /// When it was settled.
    pub ended_at: i64,
    /// Bytes of the request body.
    pub request_bytes: u64,
    /// Bytes of answer handed to the client's connection.
    pub response_bytes: u64,
    /// The plan that served the call.
    pub plan_revision: String,
    /// Upstream attempts that were started.
    pub attempts: u32,
    /// Pieces of text that the model made: stream chunks with content or a finish reason, or 1 for a whole answer.
    pub generated_chunks: u64,
    /// Those of them that were handed to the client's connection.
    pub delivered_chunks: u64,
}
