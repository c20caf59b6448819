//! Spans, scores and messages as the API shows them.
//!
//! A span's fields carry the names that filters use, so that what a client sees
//! is what it can filter by. Money appears twice: exact in nano-dollars, and as
//! a number of dollars for reading.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Number, Value, json};
use telemetry::{Bodies, Body, BodyContent, Score, StoredSpan, Trace, TraceRow};

/// A page of a list.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ListOf<T> {
    /// The rows.
    pub items: Vec<T>,
    /// Send it as `cursor` to get the next page; null at the end.
    pub next_cursor: Option<String>,
}

/// One operation: a call to a model, a tool, a search. Absent values are null.
#[derive(Debug, Serialize, JsonSchema)]
pub struct SpanJson {
    /// The trace that it belongs to.
    pub trace_id: String,
    /// Its own id.
    pub span_id: String,
    /// The operation that caused it.
    pub parent_span_id: Option<String>,
    /// Short name.
    pub name: String,
    /// `llm`, `embed`, `tool`, `retrieval`, `agent`, `chain`, `guard` or `other`.
    pub kind: &'static str,
    /// `ok`, `error` or `cancelled`.
    pub status: &'static str,
    /// Microseconds since the epoch.
    pub started_at: i64,
    /// Microseconds since the epoch.
    pub ended_at: i64,
    /// Duration in milliseconds.
    pub latency_ms: f64,
    /// Milliseconds to the first token.
    pub ttft_ms: Option<f64>,
    /// Environment of the key or release.
    pub environment: String,
    /// Connection that served the call.
    pub provider: Option<String>,
    /// Model that was asked for.
    pub model: Option<String>,
    /// Model that answered.
    pub response_model: Option<String>,
    /// Name of the catalog prompt.
    pub prompt: Option<String>,
    /// Its version.
    pub prompt_version: Option<i64>,
    /// Digest of that version.
    pub prompt_digest: Option<String>,
    /// Conversation.
    pub session: Option<String>,
    /// Position in the conversation.
    pub session_step: Option<i64>,
    /// End user, as the application names them.
    pub user: Option<String>,
    /// Id of the API key.
    pub key: Option<String>,
    /// Tags.
    pub tags: BTreeMap<String, String>,
    /// What the caller attached.
    pub metadata: Value,
    /// Prompt tokens.
    pub input_tokens: u64,
    /// Completion tokens.
    pub output_tokens: u64,
    /// Both.
    pub total_tokens: u64,
    /// Prompt tokens from the provider's cache.
    pub cache_read_tokens: u64,
    /// Prompt tokens written to the provider's cache.
    pub cache_write_tokens: u64,
    /// Hidden reasoning tokens.
    pub reasoning_tokens: u64,
    /// Whether the counts are our estimate.
    pub tokens_estimated: bool,
    /// Cost in dollars; null when no price is known, which is not free.
    pub cost_usd: Option<f64>,
    /// The exact cost in billionths of a dollar.
    pub cost_nanousd: Option<i64>,
    /// Price table that gave the cost.
    pub price_version: Option<String>,
    /// Error class.
    pub error_type: Option<String>,
    /// Error text.
    pub error: Option<String>,
    /// Why generation stopped, one per choice.
    pub finish_reasons: Vec<String>,
    /// Whether the answer was streamed.
    pub streamed: bool,
    /// Plan that served the call.
    pub plan_revision: Option<String>,
    /// Release that served the call.
    pub release: Option<String>,
    /// The first 200 characters that were sent.
    pub input_preview: String,
    /// The first 200 characters of the answer.
    pub output_preview: String,
    /// Names of fields that were cut when the span was stored.
    pub truncated: Vec<String>,
}

impl SpanJson {
    /// The API's view of a stored span.
    pub fn of(stored: &StoredSpan) -> Self {
        let span = &stored.span;
        let usage = span.usage;
        let prompt = span.prompt.as_ref();
        Self {
            trace_id: span.trace_id.to_string(),
            span_id: span.span_id.to_string(),
            parent_span_id: span.parent.map(|id| id.to_string()),
            name: span.name.clone(),
            kind: span.kind.as_str(),
            status: span.status.as_str(),
            started_at: span.start_us,
            ended_at: span.end_us,
            latency_ms: span.latency_us() as f64 / 1e3,
            ttft_ms: span.ttft_us.map(|us| us as f64 / 1e3),
            environment: span.environment.clone(),
            provider: span.provider.clone(),
            model: span.request_model.clone(),
            response_model: span.response_model.clone(),
            prompt: prompt.map(|prompt| prompt.name.clone()),
            prompt_version: prompt.and_then(|prompt| prompt.version),
            prompt_digest: prompt.and_then(|prompt| prompt.digest.clone()),
            session: span.session_id.clone(),
            session_step: span.session_step,
            user: span.user_ref.clone(),
            key: span.key_id.clone(),
            tags: span.tags.clone(),
            metadata: span.metadata.clone(),
            input_tokens: usage.input,
            output_tokens: usage.output,
            total_tokens: usage.input.saturating_add(usage.output),
            cache_read_tokens: usage.cache_read,
            cache_write_tokens: usage.cache_write,
            reasoning_tokens: usage.reasoning,
            tokens_estimated: usage.estimated,
            cost_usd: span.cost.map(|cost| cost.0 as f64 / 1e9),
            cost_nanousd: span.cost.map(|cost| cost.0),
            price_version: span.price_version.clone(),
            error_type: span.error_type.clone(),
            error: span.error_message.clone(),
            finish_reasons: span.finish_reasons.clone(),
            streamed: span.streamed,
            plan_revision: span.plan_revision.clone(),
            release: span.release_digest.clone(),
            input_preview: stored.input_preview.clone(),
            output_preview: stored.output_preview.clone(),
            truncated: span.truncated.clone(),
        }
    }
}

/// A row of the trace list: its root span and what is known about the trace.
#[derive(Debug, Serialize, JsonSchema)]
pub struct TraceRowJson {
    /// The root span.
    #[serde(flatten)]
    pub span: SpanJson,
    /// Current scores.
    pub scores: Vec<ScoreJson>,
    /// Spans in the trace.
    pub span_count: u64,
    /// Of them, with an error.
    pub error_count: u64,
}

impl TraceRowJson {
    /// The API's view of a row.
    pub fn of(row: &TraceRow) -> Self {
        Self {
            span: SpanJson::of(&row.stored),
            scores: row.scores.iter().map(ScoreJson::of).collect(),
            span_count: row.span_count,
            error_count: row.error_count,
        }
    }
}

/// A score's value: a number, a flag or a word.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum ScoreValue {
    /// `0.8`, `-1`
    Number(#[serde(serialize_with = "whole_or_fraction")] f64),
    /// `true`
    Bool(bool),
    /// `"helpful"`
    Label(String),
}

/// A number as JSON; a whole one without a fraction, so that a thumb reads as `-1`.
pub(super) fn number(value: f64) -> Option<Number> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if value.fract() == 0.0 && value.abs() < EXACT {
        Some(Number::from(value as i64))
    } else {
        Number::from_f64(value)
    }
}

fn whole_or_fraction<S: serde::Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    number(*value).serialize(serializer)
}

/// One judgement.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ScoreJson {
    /// Its id.
    pub id: String,
    /// Judged trace.
    pub trace_id: String,
    /// Judged span; null judges the whole trace.
    pub span_id: Option<String>,
    /// What is judged.
    pub name: String,
    /// The judgement.
    pub value: Option<ScoreValue>,
    /// Reason or remark.
    pub comment: Option<String>,
    /// `human`, `judge` or `api`.
    pub source: &'static str,
    /// Who: `user:ID`, `key:ID`.
    pub author: Option<String>,
    /// Microseconds since the epoch.
    pub created_at: i64,
}

impl ScoreJson {
    /// The API's view of a score.
    pub fn of(score: &Score) -> Self {
        Self {
            id: score.score_id.to_string(),
            trace_id: score.trace_id.to_string(),
            span_id: score.span_id.map(|id| id.to_string()),
            name: score.name.clone(),
            value: score_value(score),
            comment: score.comment.clone(),
            source: score.source.as_str(),
            author: score.author.clone(),
            created_at: score.at_us,
        }
    }
}

/// A flag is stored as number and word together, so that `score.x > 0` and
/// `score.x = "true"` both find it.
pub(super) fn score_value(score: &Score) -> Option<ScoreValue> {
    match (score.value, score.label.as_deref()) {
        (Some(_), Some(word @ ("true" | "false"))) => Some(ScoreValue::Bool(word == "true")),
        (Some(number), _) => Some(ScoreValue::Number(number)),
        (None, Some(label)) => Some(ScoreValue::Label(label.to_owned())),
        (None, None) => None,
    }
}

/// A span with its messages.
#[derive(Debug, Serialize, JsonSchema)]
pub struct SpanWithBodies {
    /// The span.
    #[serde(flatten)]
    pub span: SpanJson,
    /// Model parameters.
    pub parameters: Value,
    /// Further attributes.
    pub attributes: Value,
    /// Messages and tools; null when the answer had no room left for them.
    #[serde(flatten)]
    pub bodies: BodiesJson,
}

/// What a span read and wrote.
#[derive(Debug, Default, Serialize, JsonSchema)]
pub struct BodiesJson {
    /// Messages that it read.
    pub input: Vec<Value>,
    /// Index of the first input message that was new in the conversation.
    pub input_new_from: usize,
    /// Messages that it wrote.
    pub output: Vec<Value>,
    /// Tools that it offered.
    pub tools: Vec<Value>,
    /// Messages that are cut or left out here. A cut one reads
    /// `{"meguri_cut": {"bytes": N, "text": "…"}}`, a removed one `{"meguri_gone": true}`.
    pub bodies_cut: usize,
    /// Where everything is, uncut.
    pub bodies_href: String,
}

impl BodiesJson {
    /// The API's view of bodies.
    pub fn of(bodies: &Bodies, href: String) -> Self {
        let all = || {
            bodies
                .input
                .iter()
                .chain(&bodies.output)
                .chain(&bodies.tools)
        };
        let values = |list: &[Body]| list.iter().map(body_value).collect();
        Self {
            input: values(&bodies.input),
            input_new_from: bodies.new_from,
            output: values(&bodies.output),
            tools: values(&bodies.tools),
            bodies_cut: all()
                .filter(|body| matches!(body.content, BodyContent::Cut(_)))
                .count(),
            bodies_href: href,
        }
    }

    /// Nothing but the address, for spans that an answer has no room for.
    pub fn left_out(stored: &StoredSpan, href: String) -> Self {
        let counts = stored.body_counts;
        Self {
            bodies_cut: counts.input + counts.output + counts.tools,
            bodies_href: href,
            ..Self::default()
        }
    }
}

fn body_value(body: &Body) -> Value {
    match &body.content {
        BodyContent::Whole(value) => value.clone(),
        BodyContent::Cut(text) => json!({"meguri_cut": {"bytes": body.bytes, "text": text}}),
        BodyContent::Gone => json!({"meguri_gone": true}),
    }
}

/// All that is known about one request.
#[derive(Debug, Serialize, JsonSchema)]
pub struct TraceJson {
    /// Its id.
    pub trace_id: String,
    /// Name of its first root span.
    pub name: String,
    /// Its worst root status.
    pub status: &'static str,
    /// Microseconds since the epoch.
    pub started_at: i64,
    /// From the first start to the last end, in milliseconds.
    pub latency_ms: f64,
    /// Sum over its spans.
    pub input_tokens: u64,
    /// Sum over its spans.
    pub output_tokens: u64,
    /// Sum over its spans, in dollars; null when no span has a known cost.
    pub cost_usd: Option<f64>,
    /// The exact sum in billionths of a dollar.
    pub cost_nanousd: Option<i64>,
    /// Spans that exist.
    pub span_count: u64,
    /// Spans that exist but are not in `spans`.
    pub spans_left_out: u64,
    /// Its spans, by start.
    pub spans: Vec<SpanWithBodies>,
    /// Current scores, oldest first.
    pub scores: Vec<ScoreJson>,
}

/// Figures over all spans of a trace.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Totals {
    /// First start.
    pub start_us: i64,
    /// Last end.
    pub end_us: i64,
    /// Prompt tokens.
    pub input_tokens: u64,
    /// Completion tokens.
    pub output_tokens: u64,
    /// Cost, when any span has one.
    pub cost_nanousd: Option<i64>,
    /// The worst status of a root.
    pub status: telemetry::Status,
}

impl Totals {
    /// Sums a trace up.
    pub(super) fn of(trace: &Trace) -> Self {
        let spans = || trace.spans.iter().map(|stored| &stored.span);
        let costs = || spans().filter_map(|span| span.cost);
        let roots = || spans().filter(|span| span.parent.is_none());
        let status = [telemetry::Status::Error, telemetry::Status::Cancelled]
            .into_iter()
            .find(|bad| roots().any(|span| span.status == *bad))
            .unwrap_or(telemetry::Status::Ok);
        Self {
            start_us: spans().map(|span| span.start_us).min().unwrap_or_default(),
            end_us: spans().map(|span| span.end_us).max().unwrap_or_default(),
            // Counts come from providers, who may send anything.
            input_tokens: spans().fold(0, |sum: u64, span| sum.saturating_add(span.usage.input)),
            output_tokens: spans().fold(0, |sum: u64, span| sum.saturating_add(span.usage.output)),
            cost_nanousd: costs().next().map(|_| costs().sum::<base::NanoUsd>().0),
            status,
        }
    }
}
