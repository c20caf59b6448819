//! From the gateway's record of a call to telemetry's span.
//!
//! The place in the write queue is taken before the call starts, so that a full
//! queue refuses work instead of losing records; settling never waits. Whether
//! the write succeeded is known to telemetry's writer, which logs and counts
//! failures: a call cannot be taken back when its record was not stored.

use base::TraceId;
use gateway::{Busy, CallStatus, Permit, PromptUsed, Record, RecordKind, Recorder};
use serde_json::{Map, Value, json};
use telemetry::{Kind, PromptRef, Span, Status, Telemetry};

use super::watch::Calls;

/// What a refused caller reads in `Retry-After`. The queue drains in
/// milliseconds once the disk answers, so longer waits help nobody.
const RETRY_AFTER_S: u32 = 1;

pub(super) struct TelemetryRecorder {
    pub(super) telemetry: Telemetry,
    pub(super) calls: Calls,
}

impl Recorder for TelemetryRecorder {
    fn admit(&self) -> Result<Permit, Busy> {
        let slot = self.telemetry.reserve().map_err(|full| {
            tracing::debug!(error.message = %full, "a call was refused because its record would have no place");
            Busy { retry_after_s: RETRY_AFTER_S }
        })?;
        let calls = self.calls.clone();
        Ok(Permit::new(move |record| {
            let (trace, wanted) = (record.trace_id, calls.wanted(&record));
            // Telemetry's own writer logs and counts a failed commit; see the module's comment.
            let ack = slot.write(span_of(record).into());
            if let Some(settled) = wanted {
                calls.heard(trace, settled, ack);
            }
        }))
    }
}

/// The span that this call becomes.
pub(super) fn span_of(mut record: Record) -> Span {
    let kind = match record.kind {
        RecordKind::Chat => Kind::Llm,
        RecordKind::Embedding => Kind::Embed,
        RecordKind::App | RecordKind::Chain => Kind::Chain,
        RecordKind::Tool => Kind::Tool,
        RecordKind::Agent => Kind::Agent,
        RecordKind::Retrieval => Kind::Retrieval,
        RecordKind::Guard => Kind::Guard,
    };
    let mut span = Span::new(
        record.project,
        record.trace_id,
        record.span_id,
        kind,
        record.started_at,
    );
    span.attrs = attributes(&record);
    span.name = name(&record);
    span.parent = record.parent;
    span.release_digest = record.app.as_ref().map(|app| app.digest.to_string());
    span.end_us = record.ended_at.max(record.started_at);
    span.status = match record.status {
        CallStatus::Ok => Status::Ok,
        CallStatus::Error => Status::Error,
        CallStatus::Cancelled => Status::Cancelled,
    };
    if let Some(error) = record.error {
        span.error_type = Some(error.kind);
        span.error_message = Some(error.message);
    }
    span.environment = record.environment;
    span.provider = record.provider;
    // A tool or a chain is no model, and must not stand among them in figures.
    let of_model = matches!(
        record.kind,
        RecordKind::Chat | RecordKind::Embedding | RecordKind::App
    );
    span.request_model = of_model.then_some(record.request_model);
    span.response_model = record.response_model;
    span.prompt = record.prompt.map(prompt_ref);
    span.session_id = record.session;
    span.session_step = record.step;
    span.user_ref = record.user;
    span.key_id = record.key_id.map(|key| key.to_string());
    span.tags = record.tags;
    span.metadata = object_or_null(record.metadata);
    span.usage = record.usage.unwrap_or_default();
    span.cost = record.cost;
    span.price_version = record.price_version;
    // A whole answer has no first token that anybody waited for.
    span.ttft_us = record
        .first_token_at
        .filter(|_| record.streamed)
        .map(|at| (at - record.started_at).max(0));
    span.finish_reasons = record.finish_reasons;
    span.streamed = record.streamed;
    span.plan_revision = Some(record.plan_revision);
    // Tool definitions repeat with every turn of a conversation: as bodies they are stored once.
    span.tools = take_list(&mut record.parameters, "tools");
    span.parameters = object_or_null(record.parameters);
    span.input = record.input;
    span.output = record.output;
    span
}

/// A step is known by its id, an app, a tool and a guard by their names, a plain call by its model.
fn name(record: &Record) -> String {
    let what = match &record.app {
        Some(_) if matches!(record.kind, RecordKind::Tool | RecordKind::Guard) => {
            &record.request_model
        }
        Some(app) => app.step.as_deref().unwrap_or(&app.name),
        None => &record.request_model,
    };
    format!("{} {what}", record.kind.as_str())
}

fn prompt_ref(used: PromptUsed) -> PromptRef {
    PromptRef {
        name: used.name,
        version: Some(used.version),
        digest: Some(used.digest.to_string()),
    }
}

fn object_or_null(map: Map<String, Value>) -> Value {
    if map.is_empty() {
        Value::Null
    } else {
        Value::Object(map)
    }
}

fn take_list(map: &mut Map<String, Value>, name: &str) -> Vec<Value> {
    match map.remove(name) {
        Some(Value::Array(list)) => list,
        Some(other) => {
            map.insert(name.to_owned(), other);
            Vec::new()
        }
        None => Vec::new(),
    }
}

/// What has no column of its own.
fn attributes(record: &Record) -> Value {
    let all = json!({
        "protocol": record.protocol,
        "response_id": record.response_id,
        "provider_request_id": record.provider_request_id,
        // Not the span's own parent: the caller's span is not among ours, and a span whose parent is
        // missing would be no root, so no list would show the call.
        "caller_span_id": record.parent_span_id.map(|span| span.to_string()),
        "prompt_label": record.prompt.as_ref().and_then(|prompt| prompt.label.as_deref()),
        "app": record.app.as_ref().map(|app| json!({
            "name": app.name, "release": app.release, "step": app.step,
        })),
        "experiment": record.arm.as_ref().map(|arm| json!({
            "name": arm.experiment, "version": arm.version, "arm": arm.arm,
            "propensity": arm.propensity, "shadow": arm.shadow,
        })),
        "guard": record.guard.as_ref().map(|guard| json!({
            "policy": guard.policy, "version": guard.version, "digest": guard.digest.to_string(),
            "decision": guard.decision, "rules": guard.rules, "took_us": guard.took_us,
        })),
        "caller": record.caller.map(|user| user.to_string()),
        "http_status": record.http_status,
        "request_bytes": record.request_bytes,
        "response_bytes": record.response_bytes,
        "attempts": record.attempts,
        "generated_chunks": record.generated_chunks,
        "delivered_chunks": record.delivered_chunks,
    });
    match all {
        Value::Object(map) => Value::Object(
            map.into_iter()
                .filter(|(_, value)| !value.is_null())
                .collect(),
        ),
        other => other,
    }
}

/// Whether this id was made by us a short while ago: its record may be on its way to the disk.
pub(super) fn is_recent(trace_id: TraceId, now_us: i64) -> bool {
    const RECENT_US: i64 = 3600 * 1_000_000;
    trace_id
        .started_us()
        .is_some_and(|started| (now_us - started).abs() < RECENT_US)
}
