//! Counters and histograms per minute and dimension, kept in the transaction
//! that writes the spans, so that Overview never scans rows.
//!
//! A replaced span is subtracted, in the segment that replaces it: a row may
//! hold negative counts, and only the sum over all segments means something.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension as _};

use crate::filter::Field;
use crate::histogram::{Histogram, read_number, write_number};
use crate::span::{Kind, PromptRef, Span, Status};

/// Microseconds of a rollup row.
pub(crate) const MINUTE_US: i64 = 60_000_000;

/// What is counted, in this order.
pub(crate) const METRICS: [Field; 6] = [
    Field::LatencyMs,
    Field::TtftMs,
    Field::InputTokens,
    Field::OutputTokens,
    Field::TotalTokens,
    Field::CostUsd,
];

/// Divides a metric's stored whole number into the field's unit.
pub(crate) const SCALE: [f64; 6] = [1e3, 1e3, 1.0, 1.0, 1.0, 1e9];

/// One metric: number, exact sum, distribution.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Metric {
    pub(crate) count: i64,
    pub(crate) sum: i64,
    pub(crate) histogram: Histogram,
}

/// One row's numbers.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Totals {
    pub(crate) spans: i64,
    pub(crate) metrics: [Metric; 6],
}

impl Totals {
    fn add(&mut self, span: &Span, times: i64) {
        let whole = |count: u64| Some(i64::try_from(count).unwrap_or(i64::MAX));
        let values = [
            Some(span.latency_us()),
            span.ttft_us,
            whole(span.usage.input),
            whole(span.usage.output),
            whole(span.usage.input.saturating_add(span.usage.output)),
            span.cost.map(|cost| cost.0),
        ];
        self.spans += times;
        for ((metric, value), scale) in self.metrics.iter_mut().zip(values).zip(SCALE) {
            let Some(value) = value else { continue };
            metric.count += times;
            metric.sum = metric.sum.saturating_add(value.saturating_mul(times));
            metric.histogram.add(scaled(value, scale), times);
        }
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        self.spans += other.spans;
        for (metric, more) in self.metrics.iter_mut().zip(&other.metrics) {
            metric.count += more.count;
            metric.sum = metric.sum.saturating_add(more.sum);
            metric.histogram.merge(&more.histogram);
        }
    }

    fn write(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(128);
        write_number(self.spans, &mut out);
        for metric in &self.metrics {
            write_number(metric.count, &mut out);
            write_number(metric.sum, &mut out);
            metric.histogram.write(&mut out);
        }
        out
    }

    pub(crate) fn read(mut bytes: &[u8]) -> Option<Self> {
        let mut totals = Self {
            spans: read_number(&mut bytes)?,
            ..Self::default()
        };
        for metric in &mut totals.metrics {
            metric.count = read_number(&mut bytes)?;
            metric.sum = read_number(&mut bytes)?;
            metric.histogram = Histogram::read(&mut bytes)?;
        }
        Some(totals)
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a histogram is approximate by nature"
)]
pub(crate) fn scaled(value: i64, scale: f64) -> f64 {
    value as f64 / scale
}

/// The dimensions of a rollup row. `read_dimensions` is the inverse.
fn dimensions(span: &Span) -> String {
    let prompt = span.prompt.as_ref();
    let parts = (
        span.parent.is_none(),
        span.kind,
        span.status,
        &span.environment,
        &span.provider,
        &span.request_model,
        prompt.map(|prompt| &prompt.name),
        prompt.and_then(|prompt| prompt.version),
    );
    serde_json::to_string(&parts).unwrap_or_default()
}

/// Puts a row's dimensions into an otherwise empty span; says whether it stands for roots.
pub(crate) fn read_dimensions(text: &str, span: &mut Span) -> Option<bool> {
    type Parts = (
        bool,
        Kind,
        Status,
        String,
        Option<String>,
        Option<String>,
        Option<String>,
        Option<i64>,
    );
    let parts: Parts = serde_json::from_str(text).ok()?;
    (span.kind, span.status, span.environment) = (parts.1, parts.2, parts.3);
    (span.provider, span.request_model) = (parts.4, parts.5);
    span.prompt = parts.6.map(|name| PromptRef {
        name,
        version: parts.7,
        digest: None,
    });
    Some(parts.0)
}

/// Fields that a rollup row knows.
pub(crate) fn is_dimension(field: &Field) -> bool {
    matches!(
        field,
        Field::Kind
            | Field::Status
            | Field::Environment
            | Field::Provider
            | Field::Model
            | Field::Prompt
            | Field::PromptVersion
    )
}

/// Changes of one transaction, by row.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    rows: HashMap<(i64, i64, String), Totals>,
}

impl Changes {
    /// Counts a span `times` times (−1 takes it away).
    pub(crate) fn add(&mut self, project: i64, span: &Span, times: i64) {
        let key = (
            project,
            span.start_us.div_euclid(MINUTE_US),
            dimensions(span),
        );
        self.rows.entry(key).or_default().add(span, times);
    }

    /// Merges the changes into the table.
    pub(crate) fn apply(self, connection: &Connection) -> rusqlite::Result<()> {
        let mut read = connection.prepare_cached(
            "SELECT data FROM rollup_minute WHERE project = ?1 AND minute = ?2 AND dimensions = ?3",
        )?;
        let mut write = connection.prepare_cached(
            "INSERT INTO rollup_minute (project, minute, dimensions, data) VALUES (?1, ?2, ?3, ?4) \
             ON CONFLICT DO UPDATE SET data = excluded.data",
        )?;
        for ((project, minute, dimensions), mut totals) in self.rows {
            let known: Option<Vec<u8>> = read
                .query_row((project, minute, &dimensions), |row| row.get(0))
                .optional()?;
            if let Some(known) = known.and_then(|bytes| Totals::read(&bytes)) {
                totals.merge(&known);
            }
            write.execute((project, minute, &dimensions, totals.write()))?;
        }
        Ok(())
    }
}
