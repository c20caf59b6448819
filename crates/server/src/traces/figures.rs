//! `POST /api/v1/query`: counts, sums and percentiles by time and by field.

use std::collections::BTreeMap;

use axum::Json as JsonAnswer;
use axum::extract::State;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Number;
use telemetry::{Aggregate, AggregateRow, Field, Measure};

use super::api::field;
use super::ask::{AskText, read};
use super::json::number;
use crate::app::App;
use crate::auth::Identity;
use crate::error::{AppError, Result};
use crate::extract::Json;

/// A time in a JSON body.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum TimeText {
    /// Microseconds since the epoch.
    Micros(i64),
    /// RFC 3339 or relative: `-1h`.
    Text(String),
}

impl TimeText {
    fn into_text(self) -> String {
        match self {
            Self::Micros(us) => us.to_string(),
            Self::Text(text) => text,
        }
    }
}

/// What to compute, over which spans.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct QueryRequest {
    /// Earliest start, inclusive.
    from: Option<TimeText>,
    /// Latest start, exclusive.
    to: Option<TimeText>,
    /// A filter.
    filter: Option<String>,
    /// Words that must all occur in the messages.
    q: Option<String>,
    /// `roots` (the default) or `spans`.
    scope: Option<String>,
    /// `count`, `errors`, `sum(F)`, `avg(F)`, `min(F)`, `max(F)`, `p95(F)`; a bare
    /// `p95` is of `latency_ms`. `count` unless told.
    #[serde(default)]
    measures: Vec<String>,
    /// One row per combination of these fields' values.
    #[serde(default)]
    by: Vec<String>,
    /// One row per time bucket of so many seconds.
    every_s: Option<u32>,
    /// Keep so many groups, those with the greatest first measure.
    limit: Option<usize>,
}

/// The figures.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct QueryAnswer {
    /// One row per group and time bucket. A bucket without spans has no row.
    rows: Vec<FigureRow>,
    /// Groups that `limit` left out.
    groups_left_out: usize,
    /// Whether every percentile is exact; else it may be off by 1.1 %.
    exact: bool,
}

/// One row.
#[derive(Debug, Serialize, JsonSchema)]
struct FigureRow {
    /// Start of the time bucket in microseconds, when there are buckets.
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<i64>,
    /// Values of the fields in `by`; null where a span has none.
    group: BTreeMap<String, Option<String>>,
    /// The measures, named as they were asked for; null where no span has the field.
    values: BTreeMap<String, Option<Number>>,
}

pub(super) async fn query(
    State(app): State<App>,
    identity: Identity,
    Json(request): Json<QueryRequest>,
) -> Result<JsonAnswer<QueryAnswer>> {
    let text = AskText {
        from: request.from.map(TimeText::into_text),
        to: request.to.map(TimeText::into_text),
        filter: request.filter,
        q: request.q,
        scope: request.scope,
    };
    let ask = text.parse(app.clock.now_us())?;
    let names = if request.measures.is_empty() {
        vec!["count".to_owned()]
    } else {
        request.measures
    };
    if names.len() > 20 || request.by.len() > 5 {
        return Err(AppError::invalid(
            "at most 20 measures and 5 fields to group by",
        ));
    }
    let mut query = ask.aggregate(identity.project.id);
    query.measures = names
        .iter()
        .map(|name| measure(name))
        .collect::<Result<_>>()?;
    query.by = request
        .by
        .iter()
        .map(|name| field(name, "by"))
        .collect::<Result<_>>()?;
    query.every_us = every_us(request.every_s)?;
    query.top = request.limit.map(|limit| limit.clamp(1, 10_000));
    let total = query.by.is_empty() && query.every_us.is_none();
    let nothing = query
        .measures
        .iter()
        .map(|measure| matches!(measure, Measure::Count | Measure::Errors).then_some(0.0))
        .collect();
    let mut aggregate = read(&app.telemetry, move |reader| reader.aggregate(&query)).await?;
    if total && aggregate.rows.is_empty() {
        // Asked for one number, answer with one: how many of none is zero.
        aggregate.rows.push(AggregateRow {
            bucket_us: None,
            group: Vec::new(),
            values: nothing,
        });
    }
    Ok(JsonAnswer(answer(&aggregate, &names, &request.by)))
}

fn every_us(every_s: Option<u32>) -> Result<Option<i64>> {
    match every_s {
        Some(0) => Err(AppError::invalid("every_s must be at least 1").at("every_s")),
        other => Ok(other.map(|seconds| i64::from(seconds) * 1_000_000)),
    }
}

/// Reads `count`, `sum(cost_usd)`, `p95(latency_ms)` …
fn measure(text: &str) -> Result<Measure> {
    let text = text.trim();
    let (verb, argument) = match text.split_once('(') {
        Some((verb, rest)) => (verb.trim(), rest.strip_suffix(')').map(str::trim)),
        None => (text, None),
    };
    let quantile = verb
        .strip_prefix('p')
        .and_then(|number| number.parse::<f64>().ok());
    match (verb, argument, quantile) {
        ("count", None, _) => Ok(Measure::Count),
        ("errors", None, _) => Ok(Measure::Errors),
        ("sum", Some(of), _) => Ok(Measure::Sum(field(of, "measures")?)),
        ("avg", Some(of), _) => Ok(Measure::Avg(field(of, "measures")?)),
        ("min", Some(of), _) => Ok(Measure::Min(field(of, "measures")?)),
        ("max", Some(of), _) => Ok(Measure::Max(field(of, "measures")?)),
        (_, of, Some(percent)) if percent > 0.0 && percent < 100.0 && !(of.is_none() && text.contains('(')) => {
            let of = of.map_or(Ok(Field::LatencyMs), |of| field(of, "measures"))?;
            Ok(Measure::Quantile(of, percent / 100.0))
        }
        _ => Err(AppError::invalid(format!("{text:?} is not a measure"))
            .code("unknown_measure")
            .hint("the measures are count, errors, sum(F), avg(F), min(F), max(F), p50(F), p95(F), p99(F)")
            .at("measures")),
    }
}

fn answer(aggregate: &Aggregate, measures: &[String], by: &[String]) -> QueryAnswer {
    let row = |row: &AggregateRow| FigureRow {
        at: row.bucket_us,
        group: by.iter().cloned().zip(row.group.iter().cloned()).collect(),
        values: measures
            .iter()
            .cloned()
            .zip(row.values.iter().map(|value| value.and_then(number)))
            .collect(),
    };
    QueryAnswer {
        rows: aggregate.rows.iter().map(row).collect(),
        groups_left_out: aggregate.groups_left_out,
        exact: aggregate.exact,
    }
}
