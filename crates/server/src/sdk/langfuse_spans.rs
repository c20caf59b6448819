//! What Langfuse's clients trace: spans by OTLP, and in them the items of their experiments.
//!
//! A span becomes a span of ours, found among the traces as every other. It never replaces
//! one that the gateway recorded: those are what happened here, these are what a client
//! says. A span that names itself as the answer of an experiment's item is that item, too.

use std::collections::{BTreeMap, HashMap, HashSet};

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use base::{NanoUsd, SpanId, TraceId, Usage};
use db::Scope;
use serde_json::{Map, Value, json};
use telemetry::{Batch, Kind, PromptRef, Span, Status};

use super::otlp::{self, Export, OtlpSpan};
use crate::app::App;
use crate::auth::{Identity, Permission};
use crate::datasets::runs::{self, RunFacts, RunItem};
use crate::error::{AppError, Result};
use crate::extract::Raw;
use crate::http::{Access, Route};
use crate::openapi::Doc;

/// Marks spans that came this way.
const ORIGIN: &str = "otlp";
/// Bytes of one text of an item; what is longer is in its trace.
const ITEM_BYTES: usize = 256 << 10;
const TEXT_BYTES: usize = 1000;

pub(super) fn routes() -> Vec<Route> {
    let write = Access::Needs(Permission::WriteScores);
    vec![
        Route::post("/api/public/otel/v1/traces", write, export)
            .body_limit(16 << 20)
            .doc(Doc::new(
                "langfuse",
                "Spans by OTLP, as protobuf or JSON; stored when this answers",
            )),
    ]
}

async fn export(
    State(app): State<App>,
    identity: Identity,
    headers: HeaderMap,
    Raw(body): Raw,
) -> Result<Response> {
    let text = |name: header::HeaderName| {
        let value = headers.get(name).and_then(|value| value.to_str().ok());
        value.unwrap_or_default().to_owned()
    };
    let is_json = text(header::CONTENT_TYPE).contains("json");
    let encoding = text(header::CONTENT_ENCODING);
    let read = tokio::task::spawn_blocking(move || {
        let body = otlp::decompress(&encoding, &body)?;
        match is_json {
            true => otlp::read_json(&body),
            false => otlp::read_protobuf(&body),
        }
    });
    let read = read.await.map_err(AppError::internal)?;
    let export = read.map_err(|why| AppError::invalid(why).code("invalid_export"))?;
    let (rejected, why) = store(&app, &identity, export).await?;
    let (content_type, answer) = if is_json {
        let partial =
            json!({"partialSuccess": {"rejectedSpans": rejected.to_string(), "errorMessage": why}});
        let answer = if rejected == 0 { json!({}) } else { partial };
        ("application/json", answer.to_string().into_bytes())
    } else {
        (
            "application/x-protobuf",
            otlp::answer_protobuf(rejected, why),
        )
    };
    let content_type = HeaderValue::from_static(content_type);
    Ok(([(header::CONTENT_TYPE, content_type)], Body::from(answer)).into_response())
}

/// Stores the spans and the items among them; how many could not be, and why.
async fn store(app: &App, identity: &Identity, export: Export) -> Result<(u64, &'static str)> {
    let scope = identity.scope();
    let mut rejected = export.rejected;
    let mut why = if rejected > 0 {
        "spans need ids and times"
    } else {
        ""
    };
    let taken = recorded_here(app, scope, &export.spans).await?;
    let mut spans = export.spans;
    let before = spans.len();
    spans.retain(|span| !taken.contains(&(span.trace, span.span)));
    if spans.len() < before {
        rejected += (before - spans.len()) as u64;
        why = "spans that this server recorded are not replaced";
    }
    if spans.is_empty() {
        return Ok((rejected, why));
    }
    let items: Vec<(RunFacts, RunItem)> = spans.iter().filter_map(item_of).collect();
    let author = identity.principal.key_id.map(|key| key.to_string());
    let rows = spans
        .into_iter()
        .map(|span| span_of(scope, author.as_deref(), span));
    let batch = Batch {
        spans: rows.collect(),
        scores: Vec::new(),
    };
    crate::scores::append(app, batch).await?;
    if !items.is_empty() {
        let mut tx = app.db.begin_write().await?;
        for (facts, item) in &items {
            runs::record_item(&mut tx, scope, facts, item).await?;
        }
        tx.commit().await?;
    }
    Ok((rejected, why))
}

/// The spans among these that the gateway recorded.
async fn recorded_here(
    app: &App,
    scope: Scope,
    spans: &[OtlpSpan],
) -> Result<HashSet<(TraceId, SpanId)>> {
    let traces: HashSet<TraceId> = spans.iter().map(|span| span.trace).collect();
    let project = scope.project;
    crate::traces::read(&app.telemetry, move |reader| {
        let mut found = HashSet::new();
        for trace in traces {
            let Some(known) = reader.trace(project, trace)? else {
                continue;
            };
            for stored in known.spans {
                if stored.span.attrs.get("origin").and_then(Value::as_str) != Some(ORIGIN) {
                    found.insert((trace, stored.span.span_id));
                }
            }
        }
        Ok(found)
    })
    .await
}

fn clean(text: &str) -> String {
    base::text::cut_bytes(&text.replace('\0', "\u{fffd}"), TEXT_BYTES).to_owned()
}

/// A value that fits into a row: what is too long is told in its place.
fn fitted(value: Option<Value>) -> Value {
    let value = value.unwrap_or_default();
    let length = value.to_string().len();
    match &value {
        _ if length <= ITEM_BYTES => value,
        Value::String(text) => Value::String(base::text::cut_bytes(text, ITEM_BYTES).to_owned()),
        _ => json!(format!("{length} bytes of JSON; see the trace")),
    }
}

/// The item that a span is the answer of.
fn item_of(span: &OtlpSpan) -> Option<(RunFacts, RunItem)> {
    let root = span.text("langfuse.experiment.item.root_observation_id")?;
    if root != span.span.to_string() {
        return None;
    }
    let run = clean(span.text("langfuse.experiment.id")?);
    let facts = RunFacts {
        name: clean(span.text("langfuse.experiment.name").unwrap_or(&run)),
        dataset: span.text("langfuse.experiment.dataset.id").map(clean),
        description: span.text("langfuse.experiment.description").map(clean),
        metadata: fitted(span.json("langfuse.experiment.metadata")),
        id: run.clone(),
    };
    let item = RunItem {
        run,
        item: clean(span.text("langfuse.experiment.item.id")?),
        trace: span.trace.to_string(),
        span: span.span.to_string(),
        started_at: span.start_us,
        ended_at: span.end_us,
        failed: failed(span),
        environment: environment(span),
        item_version: span.text("langfuse.experiment.item.version").map(clean),
        input: fitted(span.json("langfuse.observation.input")),
        output: fitted(span.json("langfuse.observation.output")),
        expected: fitted(span.json("langfuse.experiment.item.expected_output")),
        metadata: fitted(Some(metadata(span)).filter(|metadata| !metadata.is_null())),
        item_metadata: fitted(span.json("langfuse.experiment.item.metadata")),
    };
    Some((facts, item))
}

fn failed(span: &OtlpSpan) -> bool {
    span.failed || span.text("langfuse.observation.level") == Some("ERROR")
}

fn environment(span: &OtlpSpan) -> String {
    let keys = [
        "langfuse.environment",
        "deployment.environment.name",
        "deployment.environment",
    ];
    let found = keys.iter().find_map(|key| span.text(key));
    clean(found.unwrap_or("default"))
}

/// `langfuse.observation.metadata`, whole or one attribute per key.
fn metadata(span: &OtlpSpan) -> Value {
    const KEY: &str = "langfuse.observation.metadata";
    let mut map = Map::new();
    for (key, value) in &span.attributes {
        let Some(rest) = key.strip_prefix(KEY) else {
            continue;
        };
        match rest.strip_prefix('.') {
            Some(name) => {
                map.insert(name.to_owned(), span.json(key).unwrap_or(value.clone()));
            }
            None => match span.json(key) {
                Some(Value::Object(whole)) => map.extend(whole),
                Some(other) => {
                    map.insert("value".to_owned(), other);
                }
                None => {}
            },
        }
    }
    if map.is_empty() {
        Value::Null
    } else {
        Value::Object(map)
    }
}

/// A span of ours.
fn span_of(scope: Scope, key: Option<&str>, span: OtlpSpan) -> Span {
    let kind = match span.text("langfuse.observation.type") {
        Some("generation") => Kind::Llm,
        Some("embedding") => Kind::Embed,
        Some("tool") => Kind::Tool,
        Some("retriever") => Kind::Retrieval,
        Some("agent") => Kind::Agent,
        Some("chain") => Kind::Chain,
        Some("guardrail") => Kind::Guard,
        _ => Kind::Other,
    };
    let text = |key: &str| span.text(key).map(clean).filter(|text| !text.is_empty());
    let mut row = Span::new(scope.project, span.trace, span.span, kind, span.start_us);
    row.parent = span.parent;
    row.end_us = span.end_us;
    row.name = clean(&span.name);
    row.environment = environment(&span);
    row.key_id = key.map(str::to_owned);
    row.session_id = text("session.id").or_else(|| text("langfuse.session.id"));
    row.user_ref = text("user.id").or_else(|| text("langfuse.user.id"));
    row.request_model = text("langfuse.observation.model.name");
    row.response_model.clone_from(&row.request_model);
    row.parameters = span
        .json("langfuse.observation.model.parameters")
        .filter(Value::is_object)
        .unwrap_or_default();
    row.prompt = text("langfuse.observation.prompt.name").map(|name| PromptRef {
        name,
        version: span
            .attributes
            .get("langfuse.observation.prompt.version")
            .and_then(Value::as_i64),
        digest: None,
    });
    row.usage = usage(
        &span
            .json("langfuse.observation.usage_details")
            .unwrap_or_default(),
    );
    row.cost = cost(
        &span
            .json("langfuse.observation.cost_details")
            .unwrap_or_default(),
    );
    row.metadata = metadata(&span);
    row.tags = tags(&span);
    row.input = messages(span.json("langfuse.observation.input"), "user");
    row.output = messages(span.json("langfuse.observation.output"), "assistant");
    if failed(&span) {
        row.status = Status::Error;
        row.error_type = Some("client_error".to_owned());
        row.error_message = text("langfuse.observation.status_message")
            .or_else(|| Some(clean(&span.status_message)).filter(|text| !text.is_empty()));
    }
    row.attrs = json!({"origin": ORIGIN, "langfuse": others(&span)});
    row
}

/// What has no column of its own.
fn others(span: &OtlpSpan) -> Value {
    const SHOWN_ELSEWHERE: [&str; 4] = [
        "langfuse.observation.input",
        "langfuse.observation.output",
        "langfuse.observation.metadata",
        "langfuse.experiment.item.expected_output",
    ];
    let rest = span
        .attributes
        .iter()
        .filter(|(key, _)| !SHOWN_ELSEWHERE.iter().any(|shown| key.starts_with(*shown)));
    let rest = rest.map(|(key, value)| (key.clone(), value.clone()));
    Value::Object(rest.collect())
}

fn tags(span: &OtlpSpan) -> BTreeMap<String, String> {
    let mut tags = BTreeMap::new();
    if let Some(Value::Array(list)) = span.json("langfuse.trace.tags") {
        let words = list.iter().filter_map(Value::as_str);
        tags.extend(words.map(|word| (clean(word), "true".to_owned())));
    }
    for (tag, key) in [
        ("run", "langfuse.experiment.name"),
        ("dataset", "langfuse.experiment.dataset.id"),
        ("trace_name", "langfuse.trace.name"),
        ("release", "langfuse.release"),
    ] {
        if let Some(value) = span.text(key) {
            tags.insert(tag.to_owned(), clean(value));
        }
    }
    tags
}

/// Messages as they are, and everything else as the one message that it stands for.
fn messages(value: Option<Value>, role: &str) -> Vec<Value> {
    let is_message = |value: &Value| value.get("role").is_some_and(Value::is_string);
    match value {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(list)) if !list.is_empty() && list.iter().all(is_message) => list,
        Some(message) if is_message(&message) => vec![message],
        Some(Value::String(text)) => vec![json!({"role": role, "content": text})],
        Some(other) => vec![json!({"role": role, "content": other.to_string()})],
    }
}

fn usage(details: &Value) -> Usage {
    let count = |names: &[&str]| {
        let found = names.iter().find_map(|name| details[*name].as_u64());
        found.unwrap_or(0)
    };
    Usage {
        input: count(&["input", "prompt_tokens", "input_tokens"]),
        output: count(&["output", "completion_tokens", "output_tokens"]),
        cache_read: count(&["cache_read_input_tokens", "input_cached_tokens"]),
        reasoning: count(&["output_reasoning_tokens", "reasoning_tokens"]),
        ..Usage::default()
    }
}

fn cost(details: &Value) -> Option<NanoUsd> {
    let parts: HashMap<String, f64> = serde_json::from_value(details.clone()).ok()?;
    let total = match parts.get("total") {
        Some(total) => *total,
        None if parts.is_empty() => return None,
        None => parts.values().sum(),
    };
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the range is checked just before"
    )]
    (0.0..1e6)
        .contains(&total)
        .then_some(NanoUsd((total * 1e9) as i64))
}
