//! The queries behind the overview.

use base::ProjectId;
use telemetry::{
    Aggregate, AggregateRow, Field, Filter, Literal, Measure, Op, QueryError, Reader, TraceRow,
};

use crate::traces::Ask;

/// Rows of each table.
const TOP: usize = 8;

/// What is computed for the whole range and for each bucket; the constants
/// below are positions in this list.
fn measures() -> Vec<Measure> {
    let quantile = |field: Field, q: f64| Measure::Quantile(field, q);
    vec![
        Measure::Count,
        Measure::Errors,
        quantile(Field::LatencyMs, 0.5),
        quantile(Field::LatencyMs, 0.95),
        quantile(Field::LatencyMs, 0.99),
        quantile(Field::TtftMs, 0.5),
        quantile(Field::TtftMs, 0.95),
        Measure::Sum(Field::InputTokens),
        Measure::Sum(Field::OutputTokens),
        Measure::Sum(Field::CostUsd),
    ]
}

pub(super) const COUNT: usize = 0;
pub(super) const ERRORS: usize = 1;
pub(super) const LATENCY_P50: usize = 2;
pub(super) const LATENCY_P95: usize = 3;
pub(super) const LATENCY_P99: usize = 4;
pub(super) const TTFT_P50: usize = 5;
pub(super) const TTFT_P95: usize = 6;
pub(super) const INPUT_TOKENS: usize = 7;
pub(super) const OUTPUT_TOKENS: usize = 8;
pub(super) const COST_USD: usize = 9;

/// Totals of one range.
#[derive(Debug, Default)]
pub(super) struct Totals {
    values: Vec<Option<f64>>,
    pub(super) thumbs_up: f64,
    pub(super) thumbs_down: f64,
}

impl Totals {
    pub(super) fn get(&self, measure: usize) -> Option<f64> {
        self.values.get(measure).copied().flatten()
    }
}

/// A class of errors.
#[derive(Debug)]
pub(super) struct ErrorClass {
    pub(super) code: String,
    pub(super) count: f64,
    pub(super) latest: Option<TraceRow>,
}

/// Use of a prompt version.
#[derive(Debug)]
pub(super) struct PromptUse {
    pub(super) name: String,
    pub(super) version: i64,
    pub(super) calls: f64,
    pub(super) thumbs_up: f64,
    pub(super) thumbs_down: f64,
}

/// Everything that the page shows.
#[derive(Debug, Default)]
pub(super) struct Figures {
    pub(super) any: bool,
    pub(super) now: Totals,
    pub(super) before: Totals,
    pub(super) buckets: Vec<AggregateRow>,
    pub(super) up: Vec<AggregateRow>,
    pub(super) down: Vec<AggregateRow>,
    pub(super) models: Vec<AggregateRow>,
    pub(super) errors: Vec<ErrorClass>,
    pub(super) prompts: Vec<PromptUse>,
}

/// One range of one project.
pub(super) struct Range {
    pub(super) project: ProjectId,
    pub(super) from_us: i64,
    pub(super) to_us: i64,
    pub(super) bucket_us: i64,
}

impl Range {
    fn ask(&self, filter: &Filter) -> Ask {
        Ask {
            from_us: Some(self.from_us),
            to_us: Some(self.to_us),
            filter: filter.clone(),
            ..Ask::default()
        }
    }

    fn before(&self) -> Self {
        let width_us = self.to_us - self.from_us;
        Self {
            from_us: self.from_us - width_us,
            to_us: self.from_us,
            ..*self
        }
    }

    /// Counts and their like, optionally by fields and by bucket.
    fn aggregate(
        &self,
        reader: &Reader,
        filter: &Filter,
        measures: Vec<Measure>,
        by: &[Field],
        bucketed: bool,
    ) -> Result<Aggregate, QueryError> {
        let mut query = self.ask(filter).aggregate(self.project);
        query.measures = measures;
        query.by = by.to_vec();
        query.every_us = bucketed.then_some(self.bucket_us);
        query.top = (!by.is_empty()).then_some(TOP);
        reader.aggregate(&query)
    }
}

/// Traces with this thumb.
pub(super) fn thumbs(op: Op) -> Filter {
    let field = Field::Score(crate::scores::THUMBS.to_owned());
    Filter::default()
        .and(field, op, Literal::Number(0.0))
        .unwrap_or_default()
}

/// Runs all queries. Blocks.
pub(super) fn compute(reader: &Reader, range: &Range) -> Result<Figures, QueryError> {
    let now = totals(reader, range)?;
    let any = now.get(COUNT).is_some_and(|count| count > 0.0)
        || !reader
            .list(&Ask::default().list(range.project, 1, None))?
            .rows
            .is_empty();
    if !any {
        return Ok(Figures::default());
    }
    let all = Filter::default();
    let count = || vec![Measure::Count];
    Ok(Figures {
        any,
        now,
        before: totals(reader, &range.before())?,
        buckets: range.aggregate(reader, &all, measures(), &[], true)?.rows,
        up: range
            .aggregate(reader, &thumbs(Op::Greater), count(), &[], true)?
            .rows,
        down: range
            .aggregate(reader, &thumbs(Op::Less), count(), &[], true)?
            .rows,
        models: models(reader, range)?,
        errors: errors(reader, range)?,
        prompts: prompts(reader, range)?,
    })
}

fn totals(reader: &Reader, range: &Range) -> Result<Totals, QueryError> {
    let one = |filter: &Filter, measures| -> Result<Vec<Option<f64>>, QueryError> {
        let rows = range.aggregate(reader, filter, measures, &[], false)?.rows;
        Ok(rows
            .into_iter()
            .next()
            .map(|row| row.values)
            .unwrap_or_default())
    };
    let count = |filter: &Filter| -> Result<f64, QueryError> {
        Ok(one(filter, vec![Measure::Count])?
            .first()
            .copied()
            .flatten()
            .unwrap_or_default())
    };
    Ok(Totals {
        values: one(&Filter::default(), measures())?,
        thumbs_up: count(&thumbs(Op::Greater))?,
        thumbs_down: count(&thumbs(Op::Less))?,
    })
}

/// By model and provider: calls, errors, p50, p95, tokens, cost.
fn models(reader: &Reader, range: &Range) -> Result<Vec<AggregateRow>, QueryError> {
    let measures = vec![
        Measure::Count,
        Measure::Errors,
        Measure::Quantile(Field::LatencyMs, 0.5),
        Measure::Quantile(Field::LatencyMs, 0.95),
        Measure::Sum(Field::TotalTokens),
        Measure::Sum(Field::CostUsd),
    ];
    Ok(range
        .aggregate(
            reader,
            &Filter::default(),
            measures,
            &[Field::Model, Field::Provider],
            false,
        )?
        .rows)
}

fn errors(reader: &Reader, range: &Range) -> Result<Vec<ErrorClass>, QueryError> {
    let failed = Filter::default()
        .and(Field::Status, Op::Equal, Literal::Text("error".to_owned()))
        .unwrap_or_default();
    let rows = range
        .aggregate(
            reader,
            &failed,
            vec![Measure::Count],
            &[Field::ErrorType],
            false,
        )?
        .rows;
    let class = |row: AggregateRow| {
        let code = row.group.into_iter().next().flatten().unwrap_or_default();
        let of_class = failed
            .and(Field::ErrorType, Op::Equal, Literal::Text(code.clone()))
            .unwrap_or_default();
        let latest = reader
            .list(&range.ask(&of_class).list(range.project, 1, None))?
            .rows
            .pop();
        Ok(ErrorClass {
            code,
            count: row.values.first().copied().flatten().unwrap_or_default(),
            latest,
        })
    };
    rows.into_iter().map(class).collect()
}

fn prompts(reader: &Reader, range: &Range) -> Result<Vec<PromptUse>, QueryError> {
    let by = [Field::Prompt, Field::PromptVersion];
    let used = Filter::parse("prompt exists").unwrap_or_default();
    let counts = |op: Option<Op>| -> Result<Vec<AggregateRow>, QueryError> {
        let filter = match op {
            None => Ok(used.clone()),
            Some(op) => used.and(
                Field::Score(crate::scores::THUMBS.to_owned()),
                op,
                Literal::Number(0.0),
            ),
        };
        Ok(range
            .aggregate(
                reader,
                &filter.unwrap_or_default(),
                vec![Measure::Count],
                &by,
                false,
            )?
            .rows)
    };
    let (all, up, down) = (
        counts(None)?,
        counts(Some(Op::Greater))?,
        counts(Some(Op::Less))?,
    );
    let of = |rows: &[AggregateRow], group: &[Option<String>]| {
        let row = rows.iter().find(|row| row.group == group);
        row.and_then(|row| row.values.first().copied().flatten())
            .unwrap_or_default()
    };
    let use_of = |row: &AggregateRow| PromptUse {
        name: row.group.first().cloned().flatten().unwrap_or_default(),
        version: row
            .group
            .get(1)
            .cloned()
            .flatten()
            .and_then(|version| version.parse().ok())
            .unwrap_or_default(),
        calls: row.values.first().copied().flatten().unwrap_or_default(),
        thumbs_up: of(&up, &row.group),
        thumbs_down: of(&down, &row.group),
    };
    Ok(all.iter().map(use_of).collect())
}
