//! Small figures and replays that other features' pages show: how often a
//! prompt or provider was called, how one version does, what a call sent.

use std::collections::BTreeMap;

use base::{SpanId, TraceId};
use db::Scope;
use serde::Serialize;
use serde_json::{Map, Value, json};
use telemetry::{AggregateQuery, AggregateRow, BodyContent, Field, Filter, Measure};

use super::read;
use crate::app::App;
use crate::error::{AppError, Result};

fn field(name: &str) -> Result<Field> {
    name.parse()
        .map_err(|error| AppError::internal(anyhow::anyhow!("the field {name}: {error}")))
}

fn filter(text: &str) -> Result<Filter> {
    text.parse().map_err(super::filter_error)
}

async fn aggregate(app: &App, query: AggregateQuery) -> Result<Vec<AggregateRow>> {
    Ok(read(&app.telemetry, move |reader| reader.aggregate(&query))
        .await?
        .rows)
}

fn whole(value: Option<&Option<f64>>) -> i64 {
    value.copied().flatten().unwrap_or(0.0).round() as i64
}

/// Calls since then, by prompt name.
///
/// # Errors
/// Telemetry cannot be read in time.
pub async fn count_by_prompt(
    app: &App,
    scope: Scope,
    from_us: i64,
) -> Result<BTreeMap<String, i64>> {
    count_by(app, scope, "prompt", from_us).await
}

/// Calls since then, by app name; each step of an app counts.
///
/// # Errors
/// Telemetry cannot be read in time.
pub async fn count_by_app(app: &App, scope: Scope, from_us: i64) -> Result<BTreeMap<String, i64>> {
    count_by(app, scope, "app", from_us).await
}

async fn count_by(
    app: &App,
    scope: Scope,
    by: &str,
    from_us: i64,
) -> Result<BTreeMap<String, i64>> {
    let query = AggregateQuery {
        from_us: Some(from_us),
        filter: filter(&format!("{by} exists"))?,
        by: vec![field(by)?],
        ..AggregateQuery::new(scope.project)
    };
    let rows = aggregate(app, query).await?;
    Ok(rows
        .into_iter()
        .filter_map(|row| Some((row.group.first()?.clone()?, whole(row.values.first()))))
        .collect())
}

/// Calls and errors since then, by provider name.
///
/// # Errors
/// Telemetry cannot be read in time.
pub async fn calls_by_provider(
    app: &App,
    scope: Scope,
    from_us: i64,
) -> Result<BTreeMap<String, (i64, i64)>> {
    let query = AggregateQuery {
        from_us: Some(from_us),
        measures: vec![Measure::Count, Measure::Errors],
        by: vec![field("provider")?],
        ..AggregateQuery::new(scope.project)
    };
    let rows = aggregate(app, query).await?;
    let row = |row: AggregateRow| {
        Some((
            row.group.first()?.clone()?,
            (whole(row.values.first()), whole(row.values.get(1))),
        ))
    };
    Ok(rows.into_iter().filter_map(row).collect())
}

/// How one version of a prompt does.
#[derive(Debug, Serialize)]
pub struct PromptStats {
    calls: i64,
    errors: i64,
    up: i64,
    down: i64,
    p95_us: Option<i64>,
    cost_nanousd: Option<i64>,
}

/// Figures of one version of a prompt since then.
///
/// # Errors
/// Telemetry cannot be read in time.
pub async fn prompt_stats(
    app: &App,
    scope: Scope,
    name: &str,
    version: i64,
    from_us: i64,
) -> Result<PromptStats> {
    let this = format!("prompt = {} and prompt_version = {version}", json!(name));
    let of = |extra: &str, measures: Vec<Measure>| -> Result<AggregateQuery> {
        Ok(AggregateQuery {
            from_us: Some(from_us),
            filter: filter(&format!("{this}{extra}"))?,
            measures,
            ..AggregateQuery::new(scope.project)
        })
    };
    let measures = vec![
        Measure::Count,
        Measure::Errors,
        Measure::Quantile(field("latency_ms")?, 0.95),
        Measure::Sum(field("cost_usd")?),
    ];
    let all = aggregate(app, of("", measures)?).await?;
    let up = aggregate(app, of(" and score.thumbs > 0", vec![Measure::Count])?).await?;
    let down = aggregate(app, of(" and score.thumbs < 0", vec![Measure::Count])?).await?;
    let value = |rows: &[AggregateRow], index: usize| {
        rows.first()
            .and_then(|row| row.values.get(index).copied().flatten())
    };
    let count =
        |rows: &[AggregateRow], index: usize| value(rows, index).unwrap_or(0.0).round() as i64;
    Ok(PromptStats {
        calls: count(&all, 0),
        errors: count(&all, 1),
        up: count(&up, 0),
        down: count(&down, 0),
        p95_us: value(&all, 2).map(|ms| (ms * 1e3).round() as i64),
        cost_nanousd: value(&all, 3).map(|usd| (usd * 1e9).round() as i64),
    })
}

/// What a call sent, to send it again.
#[derive(Debug)]
pub struct Replay {
    /// The model as it was asked for.
    pub model: String,
    /// The messages, the prompt's included.
    pub messages: Vec<Value>,
    /// Temperature and the like.
    pub parameters: Map<String, Value>,
}

/// The messages, model and parameters of a call: of the given span, else of the
/// trace's first call of a model.
///
/// # Errors
/// Telemetry cannot be read in time.
pub async fn replay(
    app: &App,
    scope: Scope,
    trace: TraceId,
    span: Option<&str>,
) -> Result<Option<Replay>> {
    let project = scope.project;
    let wanted = span.and_then(|span| span.parse::<SpanId>().ok());
    let Some(found) = read(&app.telemetry, move |reader| reader.trace(project, trace)).await?
    else {
        return Ok(None);
    };
    let call = found.spans.into_iter().find(|stored| match wanted {
        Some(wanted) => stored.span.span_id == wanted,
        None => stored.span.request_model.is_some(),
    });
    let Some(call) = call else { return Ok(None) };
    let span_id = call.span.span_id;
    let bodies = read(&app.telemetry, move |reader| {
        reader.span_bodies(project, trace, span_id, None)
    })
    .await?;
    let whole = |content: BodyContent| match content {
        BodyContent::Whole(value) => Some(value),
        BodyContent::Cut(_) | BodyContent::Gone => None,
    };
    let input = bodies.map(|bodies| bodies.input).unwrap_or_default();
    Ok(Some(Replay {
        model: call.span.request_model.unwrap_or_default(),
        messages: input
            .into_iter()
            .filter_map(|body| whole(body.content))
            .collect(),
        parameters: call
            .span
            .parameters
            .as_object()
            .cloned()
            .unwrap_or_default(),
    }))
}
