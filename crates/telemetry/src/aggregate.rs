//! Numbers over time and by fields, and facets.
//!
//! Each segment streams the few columns that a query needs; grouping happens
//! here, so that segments merge without SQL across files and quantiles come
//! from the values themselves while they are few, and from log histograms
//! beyond. Large segments answer from their minute rollups where the query
//! names nothing that those do not know.

use std::collections::HashMap;

use rusqlite::params_from_iter;
use rusqlite::types::ValueRef;

use base::{SpanId, TraceId};

use crate::filter::sql::{Sql, Want, is_numeric};
use crate::filter::{Field, FieldType, Filter, Subject, value_of};
use crate::histogram::{Histogram, rank};
use crate::limits;
use crate::list::{Selection, Walk, Words, words};
use crate::query::{
    Aggregate, AggregateQuery, AggregateRow, Facet, FacetQuery, Measure, QueryError, Scope,
};
use crate::reader::{Query, Reader, score_names};
use crate::rollup::{self, MINUTE_US, Totals};
use crate::segments::Segment;
use crate::span::{Kind, Span};

/// Values kept before a sample becomes a histogram.
const EXACT_VALUES: usize = 512;

type Group = Vec<Option<String>>;

/// Values of one field in one cell.
#[derive(Debug, Clone, Default)]
struct Numbers {
    count: i64,
    sum: f64,
    min: Option<f64>,
    max: Option<f64>,
    sample: Sample,
}

#[derive(Debug, Clone)]
enum Sample {
    Unwanted,
    Exact(Vec<f64>),
    Buckets(Histogram),
}

impl Default for Sample {
    fn default() -> Self {
        Self::Exact(Vec::new())
    }
}

impl Sample {
    fn add(&mut self, value: f64) {
        match self {
            Self::Unwanted => {}
            Self::Exact(values) if values.len() < EXACT_VALUES => values.push(value),
            Self::Exact(_) => {
                self.buckets().add(value, 1);
            }
            Self::Buckets(histogram) => histogram.add(value, 1),
        }
    }

    fn buckets(&mut self) -> &mut Histogram {
        if let Self::Exact(values) = self {
            let mut histogram = Histogram::default();
            values.iter().for_each(|value| histogram.add(*value, 1));
            *self = Self::Buckets(histogram);
        }
        match self {
            Self::Buckets(histogram) => histogram,
            _ => unreachable!("an unwanted sample is never asked for its buckets"),
        }
    }

    fn merge(&mut self, other: &Self) {
        match other {
            Self::Unwanted => {}
            Self::Exact(values) => values.iter().for_each(|value| self.add(*value)),
            Self::Buckets(histogram) if !matches!(self, Self::Unwanted) => {
                self.buckets().merge(histogram)
            }
            Self::Buckets(_) => {}
        }
    }

    fn quantile(&self, q: f64) -> Option<f64> {
        match self {
            Self::Unwanted => None,
            Self::Buckets(histogram) => histogram.quantile(q),
            Self::Exact(values) => {
                let mut sorted = values.clone();
                sorted.sort_by(f64::total_cmp);
                sorted.get(rank(q, sorted.len()) - 1).copied()
            }
        }
    }
}

impl Numbers {
    fn add(&mut self, value: f64) {
        self.count += 1;
        self.sum += value;
        self.min = Some(self.min.map_or(value, |known| known.min(value)));
        self.max = Some(self.max.map_or(value, |known| known.max(value)));
        self.sample.add(value);
    }

    fn merge(&mut self, other: &Self) {
        self.count += other.count;
        self.sum += other.sum;
        self.min = self.min.into_iter().chain(other.min).reduce(f64::min);
        self.max = self.max.into_iter().chain(other.max).reduce(f64::max);
        self.sample.merge(&other.sample);
    }
}

/// One group in one time bucket.
#[derive(Debug, Clone, Default)]
struct Cell {
    spans: i64,
    errors: i64,
    numbers: Vec<Numbers>,
}

impl Cell {
    fn new(plan: &Plan) -> Self {
        let numbers = plan.fields.iter().map(|(_, sampled)| Numbers {
            sample: if *sampled {
                Sample::default()
            } else {
                Sample::Unwanted
            },
            ..Numbers::default()
        });
        Self {
            spans: 0,
            errors: 0,
            numbers: numbers.collect(),
        }
    }

    fn merge(&mut self, other: &Self) {
        self.spans += other.spans;
        self.errors += other.errors;
        self.numbers
            .iter_mut()
            .zip(&other.numbers)
            .for_each(|(mine, more)| mine.merge(more));
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "counts of spans are far below 2^53"
    )]
    fn value(&self, plan: &Plan, measure: &Measure) -> Option<f64> {
        let numbers = |field: &Field| {
            let at = plan.fields.iter().position(|(known, _)| known == field)?;
            self.numbers.get(at).filter(|numbers| numbers.count > 0)
        };
        match measure {
            Measure::Count => Some(self.spans as f64),
            Measure::Errors => Some(self.errors as f64),
            Measure::Sum(field) => numbers(field).map(|numbers| numbers.sum),
            Measure::Avg(field) => numbers(field).map(|numbers| numbers.sum / numbers.count as f64),
            Measure::Min(field) => numbers(field)?.min,
            Measure::Max(field) => numbers(field)?.max,
            Measure::Quantile(field, q) => numbers(field)?.sample.quantile(*q),
        }
    }
}

/// Which number fields a query needs, and of which it needs quantiles.
struct Plan {
    fields: Vec<(Field, bool)>,
}

impl Measure {
    /// The field it is about.
    pub fn field(&self) -> Option<&Field> {
        match self {
            Self::Count | Self::Errors => None,
            Self::Sum(field)
            | Self::Avg(field)
            | Self::Min(field)
            | Self::Max(field)
            | Self::Quantile(field, _) => Some(field),
        }
    }
}

impl Plan {
    fn new(measures: &[Measure]) -> Result<Self, QueryError> {
        let mut fields: Vec<(Field, bool)> = Vec::new();
        for measure in measures {
            let Some(field) = measure.field() else {
                continue;
            };
            if !is_numeric(field) {
                return Err(QueryError::Invalid(format!(
                    "{field} is not a number, so {measure} does not exist"
                )));
            }
            let sampled = match measure {
                Measure::Quantile(_, q) if !(*q > 0.0 && *q < 1.0) => {
                    return Err(QueryError::Invalid(
                        "a quantile lies between 0 and 1".to_owned(),
                    ));
                }
                Measure::Quantile(..) => true,
                _ => false,
            };
            match fields.iter_mut().find(|(known, _)| known == field) {
                Some((_, known)) => *known |= sampled,
                None => fields.push((field.clone(), sampled)),
            }
        }
        Ok(Self { fields })
    }
}

type Cells = HashMap<(Group, Option<i64>), Cell>;

impl Reader {
    /// Numbers over time and by fields. Blocks.
    ///
    /// # Errors
    /// See [`QueryError`].
    pub fn aggregate(&self, query: &AggregateQuery) -> Result<Aggregate, QueryError> {
        let plan = Plan::new(&query.measures)?;
        if query.measures.is_empty() {
            return Err(QueryError::Invalid(
                "name at least one measure, for example count".to_owned(),
            ));
        }
        if query.every_us.is_some_and(|every| every <= 0) {
            return Err(QueryError::Invalid(
                "the width of a time bucket must be positive".to_owned(),
            ));
        }
        if query
            .order
            .is_some_and(|order| order.measure >= query.measures.len())
        {
            return Err(QueryError::Invalid(
                "the order names a measure that the query does not have".to_owned(),
            ));
        }
        let mut run = self.begin(query.project)?;
        run.load_scores(
            &all_score_names(&query.filter, &query.by, &plan),
            query.from_us,
        )?;
        let rollups = rollups_can_answer(query, &plan);
        let mut cells = Cells::new();
        let mut approximate = false;
        for segment in run
            .segments
            .iter()
            .filter(|segment| segment.stat.covers(query.from_us, query.to_us))
        {
            if rollups && segment.stat.spans.unsigned_abs() > run.rollup_rows() {
                approximate |= plan.fields.iter().any(|(_, sampled)| *sampled);
                add_rollups(&run, segment, query, &plan, &mut cells)?;
            } else if rollups && segment.stat.replaced > 0 {
                // Its rollups take away what larger segments counted before.
                add_rollups(&run, segment, query, &plan, &mut cells)?;
                approximate |= plan.fields.iter().any(|(_, sampled)| *sampled);
            } else {
                add_rows(&run, segment, query, &plan, rollups, &mut cells)?;
            }
        }
        cells.retain(|_, cell| cell.spans > 0);
        approximate |= cells
            .values()
            .flat_map(|cell| &cell.numbers)
            .any(|n| matches!(n.sample, Sample::Buckets(_)));
        let (rows, groups_left_out) = order_rows(query, &plan, cells);
        Ok(Aggregate {
            rows,
            groups_left_out,
            exact: !approximate,
        })
    }

    /// How often each value of some fields occurs. Blocks.
    ///
    /// # Errors
    /// See [`QueryError`].
    pub fn facets(&self, query: &FacetQuery) -> Result<Vec<Facet>, QueryError> {
        let mut run = self.begin(query.project)?;
        let plan = Plan { fields: Vec::new() };
        run.load_scores(
            &all_score_names(&query.filter, &query.fields, &plan),
            query.from_us,
        )?;
        let selection = Selection {
            from_us: query.from_us,
            to_us: query.to_us,
            filter: &query.filter,
            text: query.text.as_deref(),
            scope: query.scope,
        };
        let mut counts: Vec<HashMap<String, u64>> = vec![HashMap::new(); query.fields.len()];
        for segment in run
            .segments
            .iter()
            .filter(|segment| segment.stat.covers(query.from_us, query.to_us))
        {
            let hide = !run.replaced_in(segment).is_empty();
            run.on(segment, |connection, project| {
                let mut sql = select_shown(&query.fields, None);
                selection.condition(&mut sql, connection, project, hide, Walk::All)?;
                let mut statement = connection.prepare_cached(&sql.text)?;
                let mut rows = statement.query(params_from_iter(sql.values))?;
                while let Some(row) = rows.next()? {
                    for (index, (field, known)) in query.fields.iter().zip(&mut counts).enumerate()
                    {
                        let Some(value) = shown(field, row.get_ref(index + 3)?) else {
                            continue;
                        };
                        if known.len() < limits::GROUPS || known.contains_key(&value) {
                            *known.entry(value).or_default() += 1;
                        }
                    }
                }
                Ok(())
            })?;
        }
        let facet = |(field, counts): (&Field, HashMap<String, u64>)| {
            let distinct = counts.len();
            let mut values: Vec<(String, u64)> = counts.into_iter().collect();
            values.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
            values.truncate(query.top.max(1));
            Facet {
                field: field.clone(),
                values,
                distinct,
            }
        };
        Ok(query.fields.iter().zip(counts).map(facet).collect())
    }
}

fn all_score_names(filter: &Filter, by: &[Field], plan: &Plan) -> Vec<String> {
    let mut names = score_names(filter);
    let fields = by.iter().chain(plan.fields.iter().map(|(field, _)| field));
    names.extend(fields.filter_map(|field| {
        if let Field::Score(name) = field {
            Some(name.clone())
        } else {
            None
        }
    }));
    names.sort();
    names.dedup();
    names
}

/// `SELECT start_us, status, …by…, …numbers… FROM spans`; the third column is
/// always there so that the rest begins at index 3.
fn select_shown(by: &[Field], plan: Option<&Plan>) -> Sql {
    let mut sql = Sql::default();
    sql.push("SELECT start_us, status = 'error', 0");
    for field in by {
        sql.push(", ");
        sql.field(field, Want::Shown);
    }
    for (field, _) in plan.iter().flat_map(|plan| &plan.fields) {
        sql.push(", ");
        sql.field(field, Want::Number);
    }
    sql.push(" FROM spans");
    sql
}

/// A value as a group's name; the same text as `FieldValue::shown`.
fn shown(field: &Field, value: ValueRef<'_>) -> Option<String> {
    match value {
        ValueRef::Null | ValueRef::Blob(_) => None,
        ValueRef::Integer(flag) if field.field_type() == FieldType::Bool => {
            Some((flag != 0).to_string())
        }
        ValueRef::Integer(number) => Some(number.to_string()),
        ValueRef::Real(number) => Some(number.to_string()),
        ValueRef::Text(text) => Some(String::from_utf8_lossy(text).into_owned()),
    }
}

fn bucket_of(query: &AggregateQuery, start_us: i64) -> Option<i64> {
    let every = query.every_us?;
    Some((start_us - query.offset_us).div_euclid(every) * every + query.offset_us)
}

fn cell<'a>(cells: &'a mut Cells, plan: &Plan, key: (Group, Option<i64>)) -> Option<&'a mut Cell> {
    if cells.len() >= limits::GROUPS && !cells.contains_key(&key) {
        return None;
    }
    Some(cells.entry(key).or_insert_with(|| Cell::new(plan)))
}

fn too_many_groups() -> QueryError {
    QueryError::Invalid(format!(
        "this gives more than {} groups; use fewer fields, wider time buckets or a narrower filter",
        limits::GROUPS
    ))
}

fn add_rows(
    run: &Query<'_>,
    segment: &Segment,
    query: &AggregateQuery,
    plan: &Plan,
    with_rollups: bool,
    cells: &mut Cells,
) -> Result<(), QueryError> {
    let selection = Selection {
        from_us: query.from_us,
        to_us: query.to_us,
        filter: &query.filter,
        text: query.text.as_deref(),
        scope: query.scope,
    };
    // Where the replacing segment answers from its rollups, those subtract the hidden rows.
    let hide = !with_rollups && !run.replaced_in(segment).is_empty();
    let fits = run.on(segment, |connection, project| {
        let mut sql = select_shown(&query.by, Some(plan));
        selection.condition(&mut sql, connection, project, hide, Walk::All)?;
        let mut statement = connection.prepare_cached(&sql.text)?;
        let mut rows = statement.query(params_from_iter(sql.values))?;
        while let Some(row) = rows.next()? {
            let group = |(index, field): (usize, &Field)| Ok(shown(field, row.get_ref(index + 3)?));
            let group = query
                .by
                .iter()
                .enumerate()
                .map(group)
                .collect::<rusqlite::Result<Group>>()?;
            let Some(cell) = cell(cells, plan, (group, bucket_of(query, row.get(0)?))) else {
                return Ok(false);
            };
            cell.spans += 1;
            cell.errors += row.get::<_, i64>(1)?;
            for (index, numbers) in cell.numbers.iter_mut().enumerate() {
                if let Some(value) = row.get::<_, Option<f64>>(index + 3 + query.by.len())? {
                    numbers.add(value);
                }
            }
        }
        Ok(true)
    })?;
    if fits == Some(false) {
        Err(too_many_groups())
    } else {
        Ok(())
    }
}

/// Whether minute rollups know everything that the query names.
fn rollups_can_answer(query: &AggregateQuery, plan: &Plan) -> bool {
    let whole = |us: Option<i64>| us.is_none_or(|us| us.rem_euclid(MINUTE_US) == 0);
    let filtered = query.filter.fields();
    matches!(words(query.text.as_deref()), Words::Any)
        && whole(query.from_us)
        && whole(query.to_us)
        && whole(query.every_us)
        && whole(Some(query.offset_us))
        && query.by.iter().chain(&filtered).all(rollup::is_dimension)
        && plan
            .fields
            .iter()
            .all(|(field, _)| rollup::METRICS.contains(field))
        && !query
            .measures
            .iter()
            .any(|measure| matches!(measure, Measure::Min(_) | Measure::Max(_)))
}

fn add_rollups(
    run: &Query<'_>,
    segment: &Segment,
    query: &AggregateQuery,
    plan: &Plan,
    cells: &mut Cells,
) -> Result<(), QueryError> {
    let sql = "SELECT minute, dimensions, data FROM rollup_minute WHERE project = ?1 AND minute >= ?2 AND minute < ?3";
    let from = query
        .from_us
        .map_or(i64::MIN, |us| us.div_euclid(MINUTE_US));
    let to = query.to_us.map_or(i64::MAX, |us| us.div_euclid(MINUTE_US));
    let mut span = Span::new(
        query.project,
        TraceId([0; 16]),
        SpanId([0; 8]),
        Kind::Other,
        0,
    );
    let fits = run.on(segment, |connection, project| {
        let mut statement = connection.prepare_cached(sql)?;
        let mut rows = statement.query((project, from, to))?;
        while let Some(row) = rows.next()? {
            let Some(is_root) = rollup::read_dimensions(row.get_ref(1)?.as_str()?, &mut span)
            else {
                continue;
            };
            let subject = Subject {
                span: &span,
                scores: &[],
            };
            if (query.scope == Scope::Roots && !is_root) || !query.filter.matches(&subject) {
                continue;
            }
            let Some(totals) = Totals::read(row.get_ref(2)?.as_blob()?) else {
                continue;
            };
            let group = query
                .by
                .iter()
                .map(|field| value_of(field, &subject).map(|value| value.shown()))
                .collect();
            let bucket = bucket_of(query, row.get::<_, i64>(0)?.saturating_mul(MINUTE_US));
            let Some(cell) = cell(cells, plan, (group, bucket)) else {
                return Ok(false);
            };
            add_totals(cell, plan, &totals, span.status == crate::Status::Error);
        }
        Ok(true)
    })?;
    if fits == Some(false) {
        Err(too_many_groups())
    } else {
        Ok(())
    }
}

fn add_totals(cell: &mut Cell, plan: &Plan, totals: &Totals, is_error: bool) {
    cell.spans += totals.spans;
    cell.errors += if is_error { totals.spans } else { 0 };
    for ((field, _), numbers) in plan.fields.iter().zip(&mut cell.numbers) {
        let Some(at) = rollup::METRICS.iter().position(|metric| metric == field) else {
            continue;
        };
        let metric = &totals.metrics[at];
        numbers.count += metric.count;
        numbers.sum += rollup::scaled(metric.sum, rollup::SCALE[at]);
        numbers
            .sample
            .merge(&Sample::Buckets(metric.histogram.clone()));
    }
}

/// A group with the value it is ordered by and its time buckets.
type Ranked = (Option<f64>, Group, Buckets);

/// Cells by the start of their time bucket.
type Buckets = Vec<(Option<i64>, Cell)>;

fn order_rows(query: &AggregateQuery, plan: &Plan, cells: Cells) -> (Vec<AggregateRow>, usize) {
    let order = query.order.unwrap_or(crate::Order {
        measure: 0,
        descending: true,
    });
    let by_measure = &query.measures[order.measure];
    let mut groups: HashMap<Group, (Cell, Buckets)> = HashMap::new();
    for ((group, bucket), cell) in cells {
        let entry = groups
            .entry(group)
            .or_insert_with(|| (Cell::new(plan), Vec::new()));
        entry.0.merge(&cell);
        entry.1.push((bucket, cell));
    }
    let mut groups: Vec<Ranked> = groups
        .into_iter()
        .map(|(group, (total, cells))| (total.value(plan, by_measure), group, cells))
        .collect();
    groups.sort_by(|a, b| {
        // Groups without the measure come last in either direction.
        let key =
            |value: Option<f64>| value.map(|value| if order.descending { -value } else { value });
        match (key(a.0), key(b.0)) {
            (Some(x), Some(y)) => x.total_cmp(&y),
            (x, y) => y.is_some().cmp(&x.is_some()),
        }
        .then_with(|| a.1.cmp(&b.1))
    });
    let kept = query.top.unwrap_or(usize::MAX).min(groups.len());
    let left_out = groups.len() - kept;
    groups.truncate(kept);
    let mut rows = Vec::new();
    for (_, group, mut cells) in groups {
        cells.sort_by_key(|(bucket, _)| *bucket);
        rows.extend(cells.into_iter().map(|(bucket_us, cell)| {
            AggregateRow {
                bucket_us,
                group: group.clone(),
                values: query
                    .measures
                    .iter()
                    .map(|measure| cell.value(plan, measure))
                    .collect(),
            }
        }));
    }
    (rows, left_out)
}
