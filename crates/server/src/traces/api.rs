//! The JSON routes about traces: list, one, messages, facets. Live tail and
//! figures have files of their own.

use axum::Json as JsonAnswer;
use axum::extract::{Path, State};
use base::{Cursor, ProjectId, SpanId, TraceId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use telemetry::{Facet, Field, QueryError, Reader, StoredSpan, Trace};

use super::ask::{AskText, read};
use super::json::{
    BodiesJson, ListOf, ScoreJson, SpanJson, SpanWithBodies, Totals, TraceJson, TraceRowJson,
};
use crate::app::App;
use crate::auth::{Identity, Permission};
use crate::error::{AppError, Result};
use crate::extract::Query;
use crate::http::{Access, Route};
use crate::openapi::Doc;

const READ: Access = Access::Needs(Permission::ReadTraces);

/// Spans of one trace in an answer.
const SPANS: usize = 10_000;
/// Spans of one trace whose messages are in the answer.
const SPANS_WITH_BODIES: usize = 200;
/// Bytes of one message in an answer about a trace.
const BODY_BYTES: usize = 64 << 10;
/// Bytes of all messages in an answer about a trace.
const ALL_BODIES_BYTES: u64 = 8 << 20;

pub(super) fn routes() -> Vec<Route> {
    vec![
        Route::get("/api/v1/traces", READ, list).doc(
            Doc::new("traces", "Traces, newest first").query::<ListParams>().answer::<ListOf<TraceRowJson>>(),
        ),
        Route::get("/api/v1/traces/facets", READ, facets).doc(
            Doc::new("traces", "How often each value of some fields occurs")
                .query::<FacetParams>()
                .answer::<ListOf<FacetJson>>(),
        ),
        Route::get("/api/v1/traces/tail", READ, super::tail::tail).doc(
            Doc::new("traces", "Server-sent events: `trace` and `score` as they are stored, `lagged` when some were missed")
                .query::<super::tail::TailParams>(),
        ),
        Route::get("/api/v1/traces/{id}", READ, show)
            .doc(Doc::new("traces", "One trace: spans, messages, scores").query::<ShowParams>().answer::<TraceJson>()),
        Route::get("/api/v1/traces/{id}/spans/{span}/body", READ, body)
            .doc(Doc::new("traces", "All messages of a span, uncut").answer::<BodiesJson>()),
        Route::post("/api/v1/query", READ, super::figures::query).doc(
            Doc::new("traces", "Counts, sums and percentiles by time and by field")
                .body::<super::figures::QueryRequest>()
                .answer::<super::figures::QueryAnswer>(),
        ),
    ]
}

/// What `GET /api/v1/traces` takes.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct ListParams {
    /// Earliest start, inclusive: microseconds, RFC 3339 or relative (`-1h`).
    from: Option<String>,
    /// Latest start, exclusive.
    to: Option<String>,
    /// A filter, for example `model = "local/small" and latency_ms > 800`.
    filter: Option<String>,
    /// Words that must all occur in the messages.
    q: Option<String>,
    /// `roots` (one row per trace; the default) or `spans`.
    scope: Option<String>,
    /// `-started_at`: newest first, the only order.
    sort: Option<String>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
    /// Rows wanted, 50 unless told, at most 1000.
    limit: Option<usize>,
}

async fn list(
    State(app): State<App>,
    identity: Identity,
    Query(params): Query<ListParams>,
) -> Result<JsonAnswer<ListOf<TraceRowJson>>> {
    if let Some(sort) = params.sort.as_deref().filter(|sort| *sort != "-started_at") {
        return Err(
            AppError::invalid(format!("traces cannot be sorted by {sort:?}"))
                .hint("leave sort out, or write -started_at")
                .at("sort"),
        );
    }
    let text = AskText {
        from: params.from,
        to: params.to,
        filter: params.filter,
        q: params.q,
        scope: params.scope,
    };
    let ask = text.parse(app.clock.now_us())?;
    let limit = params
        .limit
        .unwrap_or(50)
        .clamp(1, telemetry::limits::PAGE_ROWS);
    let query = ask.list(
        identity.project.id,
        limit,
        params.cursor.map(Cursor::from_client),
    );
    let page = read(&app.telemetry, move |reader| reader.list(&query)).await?;
    Ok(JsonAnswer(ListOf {
        items: page.rows.iter().map(TraceRowJson::of).collect(),
        next_cursor: page.next.map(|cursor| cursor.as_str().to_owned()),
    }))
}

/// What `GET /api/v1/traces/{id}` takes.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct ShowParams {
    /// `false` leaves the messages out.
    bodies: Option<bool>,
}

async fn show(
    State(app): State<App>,
    identity: Identity,
    Path(id): Path<String>,
    Query(params): Query<ShowParams>,
) -> Result<JsonAnswer<TraceJson>> {
    let (project, trace_id) = (identity.project.id, super::trace_id(&id)?);
    let with_bodies = params.bodies.unwrap_or(true);
    let trace = super::find_trace(&app, project, trace_id).await?;
    let work = move |reader: &Reader| trace_json(reader, project, &trace, with_bodies);
    Ok(JsonAnswer(read(&app.telemetry, work).await?))
}

/// All of a trace; messages are added span by span until there is no room for more.
///
/// # Errors
/// The messages cannot be read.
pub fn trace_json(
    reader: &Reader,
    project: ProjectId,
    trace: &Trace,
    with_bodies: bool,
) -> Result<TraceJson, QueryError> {
    let mut room = if with_bodies { ALL_BODIES_BYTES } else { 0 };
    let mut spans = Vec::new();
    for (index, stored) in trace.spans.iter().take(SPANS).enumerate() {
        let span = &stored.span;
        let wanted = room > 0 && index < SPANS_WITH_BODIES;
        let found = match wanted {
            true => reader.span_bodies(project, span.trace_id, span.span_id, Some(BODY_BYTES))?,
            false => None,
        };
        let href = body_href(stored);
        let bodies = match found {
            Some(found) => {
                let sizes = found.input.iter().chain(&found.output).chain(&found.tools);
                room =
                    room.saturating_sub(sizes.map(|body| body.bytes.min(BODY_BYTES as u64)).sum());
                BodiesJson::of(&found, href)
            }
            None => BodiesJson::left_out(stored, href),
        };
        spans.push(SpanWithBodies {
            span: SpanJson::of(stored),
            parameters: span.parameters.clone(),
            attributes: span.attrs.clone(),
            bodies,
        });
    }
    Ok(summary(trace, spans))
}

fn summary(trace: &Trace, spans: Vec<SpanWithBodies>) -> TraceJson {
    let totals = Totals::of(trace);
    let root = trace
        .spans
        .iter()
        .find(|stored| stored.span.parent.is_none())
        .or(trace.spans.first());
    TraceJson {
        trace_id: root
            .map(|root| root.span.trace_id.to_string())
            .unwrap_or_default(),
        name: root.map(|root| root.span.name.clone()).unwrap_or_default(),
        status: totals.status.as_str(),
        started_at: totals.start_us,
        latency_ms: (totals.end_us - totals.start_us) as f64 / 1e3,
        input_tokens: totals.input_tokens,
        output_tokens: totals.output_tokens,
        cost_usd: totals.cost_nanousd.map(|nanos| nanos as f64 / 1e9),
        cost_nanousd: totals.cost_nanousd,
        span_count: trace.span_count,
        spans_left_out: trace.span_count.saturating_sub(spans.len() as u64),
        spans,
        scores: trace.scores.iter().map(ScoreJson::of).collect(),
    }
}

/// Where a span's messages are, uncut.
pub(super) fn body_href(stored: &StoredSpan) -> String {
    format!(
        "/api/v1/traces/{}/spans/{}/body",
        stored.span.trace_id, stored.span.span_id
    )
}

async fn body(
    State(app): State<App>,
    identity: Identity,
    Path((trace, span)): Path<(String, String)>,
) -> Result<JsonAnswer<BodiesJson>> {
    let no_such_span = || {
        AppError::not_found("there is no span with this id in this trace").code("span_not_found")
    };
    let trace_id: TraceId = super::trace_id(&trace)?;
    let span_id: SpanId = span.parse().map_err(|_| no_such_span())?;
    let project = identity.project.id;
    let found = read(&app.telemetry, move |reader| {
        reader.span_bodies(project, trace_id, span_id, None)
    })
    .await?;
    let bodies = found.ok_or_else(no_such_span)?;
    Ok(JsonAnswer(BodiesJson::of(
        &bodies,
        format!("/api/v1/traces/{trace_id}/spans/{span_id}/body"),
    )))
}

/// What `GET /api/v1/traces/facets` takes.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct FacetParams {
    /// Earliest start, inclusive: microseconds, RFC 3339 or relative (`-1h`).
    from: Option<String>,
    /// Latest start, exclusive.
    to: Option<String>,
    /// A filter.
    filter: Option<String>,
    /// Words that must all occur in the messages.
    q: Option<String>,
    /// `roots` (the default) or `spans`.
    scope: Option<String>,
    /// Fields, separated by commas: `model,status,tag.team`.
    fields: Option<String>,
    /// Values per field, 20 unless told, at most 200.
    limit: Option<usize>,
}

/// The values of one field.
#[derive(Debug, Serialize, JsonSchema)]
struct FacetJson {
    /// The field.
    field: String,
    /// The most frequent first.
    values: Vec<FacetValue>,
    /// Distinct values, returned or not.
    distinct: usize,
}

/// One value.
#[derive(Debug, Serialize, JsonSchema)]
struct FacetValue {
    /// The value.
    value: String,
    /// Spans that have it.
    count: u64,
}

async fn facets(
    State(app): State<App>,
    identity: Identity,
    Query(params): Query<FacetParams>,
) -> Result<JsonAnswer<ListOf<FacetJson>>> {
    let text = AskText {
        from: params.from,
        to: params.to,
        filter: params.filter,
        q: params.q,
        scope: params.scope,
    };
    let ask = text.parse(app.clock.now_us())?;
    let names = params
        .fields
        .as_deref()
        .unwrap_or("status,model,provider,environment,prompt,error_type");
    let fields: Vec<Field> = names
        .split(',')
        .map(|name| field(name.trim(), "fields"))
        .collect::<Result<_>>()?;
    if fields.len() > 20 {
        return Err(AppError::invalid("at most 20 fields at a time").at("fields"));
    }
    let query = ask.facets(
        identity.project.id,
        fields,
        params.limit.unwrap_or(20).clamp(1, 200),
    );
    let facets = read(&app.telemetry, move |reader| reader.facets(&query)).await?;
    Ok(JsonAnswer(ListOf {
        items: facets.into_iter().map(facet_json).collect(),
        next_cursor: None,
    }))
}

fn facet_json(facet: Facet) -> FacetJson {
    FacetJson {
        field: facet.field.to_string(),
        values: facet
            .values
            .into_iter()
            .map(|(value, count)| FacetValue { value, count })
            .collect(),
        distinct: facet.distinct,
    }
}

/// Reads a field's name.
///
/// # Errors
/// 400 with the nearest name.
pub(super) fn field(name: &str, at: &'static str) -> Result<Field> {
    name.parse()
        .map_err(|error: telemetry::filter::UnknownField| {
            let refusal = AppError::invalid(error.to_string())
                .code("unknown_field")
                .at(at);
            match &error.suggestion {
                Some(near) => refusal.hint(format!("did you mean {near}?")),
                None => refusal,
            }
        })
}
