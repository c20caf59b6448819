//! What readers ask and what they get: lists, traces, bodies, aggregates,
//! facets. Only types; `list.rs`, `aggregate.rs` answer them.

use base::{Cursor, ProjectId};
use serde_json::Value;

use crate::filter::{Field, Filter};
use crate::span::{Score, StoredSpan};

/// Why a query has no answer.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// The query is wrong; the text says how. An answer to the client: 400.
    #[error("{0}")]
    Invalid(String),
    /// It ran into the time limit. Narrow the range or the filter.
    #[error("this query took longer than {limit_ms} ms; narrow the time range or the filter")]
    TooSlow {
        /// The limit that was hit.
        limit_ms: u64,
    },
    /// All readers were busy for as long as a query may take.
    #[error("all {readers} readers are busy; try again")]
    Busy {
        /// How many there are.
        readers: usize,
    },
    /// A segment could not be read.
    #[error("read {file}: {message}")]
    Storage {
        /// File name of the segment.
        file: String,
        /// What SQLite said.
        message: String,
    },
}

/// Which spans a query is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Scope {
    /// Root spans only: one per trace.
    #[default]
    Roots,
    /// Every span.
    Spans,
}

/// Asks for a page of spans, newest start first.
#[derive(Debug, Clone)]
pub struct ListQuery {
    /// Whose.
    pub project: ProjectId,
    /// Earliest start, inclusive.
    pub from_us: Option<i64>,
    /// Latest start, exclusive.
    pub to_us: Option<i64>,
    /// Which.
    pub filter: Filter,
    /// Words that must occur in the bodies.
    pub text: Option<String>,
    /// Where the last page ended.
    pub cursor: Option<Cursor>,
    /// Rows wanted, at most 1000.
    pub limit: usize,
    /// Roots or every span.
    pub scope: Scope,
}

impl ListQuery {
    /// The newest 50 roots of a project.
    pub fn new(project: ProjectId) -> Self {
        Self {
            project,
            from_us: None,
            to_us: None,
            filter: Filter::default(),
            text: None,
            cursor: None,
            limit: 50,
            scope: Scope::Roots,
        }
    }
}

/// Some rows, and where to go on.
#[derive(Debug, Clone, PartialEq)]
pub struct Page<T> {
    /// The rows.
    pub rows: Vec<T>,
    /// Cursor of the next page; `None` at the end.
    pub next: Option<Cursor>,
}

/// A row of the trace list: the span and what is known about its trace.
#[derive(Debug, Clone, PartialEq)]
pub struct TraceRow {
    /// The matching span.
    pub stored: StoredSpan,
    /// Current scores of the trace (for a root) or of the span.
    pub scores: Vec<Score>,
    /// Spans in the trace.
    pub span_count: u64,
    /// Of them, with status error.
    pub error_count: u64,
}

/// All that is known about one request.
#[derive(Debug, Clone, PartialEq)]
pub struct Trace {
    /// Spans by start; at most [`crate::limits::TRACE_SPANS`].
    pub spans: Vec<StoredSpan>,
    /// Spans that exist, returned or not.
    pub span_count: u64,
    /// Current scores, oldest first.
    pub scores: Vec<Score>,
}

/// The bodies of one span.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Bodies {
    /// What it read.
    pub input: Vec<Body>,
    /// Index of the first input message that was new in the conversation.
    pub new_from: usize,
    /// What it produced.
    pub output: Vec<Body>,
    /// Tools offered.
    pub tools: Vec<Body>,
}

/// One message or tool definition.
#[derive(Debug, Clone, PartialEq)]
pub struct Body {
    /// Content address within the project, in hex.
    pub hash: String,
    /// Size of its JSON text.
    pub bytes: u64,
    /// The content, as far as asked for.
    pub content: BodyContent,
}

/// A body's content.
#[derive(Debug, Clone, PartialEq)]
pub enum BodyContent {
    /// All of it.
    Whole(Value),
    /// The first part of its JSON text, because of the reader's limit. Ask for
    /// the span's bodies without a limit to get all `bytes`.
    Cut(String),
    /// Nothing: retention or erasure removed it.
    Gone,
}

/// A number per group.
#[derive(Debug, Clone, PartialEq)]
pub enum Measure {
    /// Spans.
    Count,
    /// Spans with status error.
    Errors,
    /// Sum of a number field.
    Sum(Field),
    /// Mean.
    Avg(Field),
    /// Least.
    Min(Field),
    /// Greatest.
    Max(Field),
    /// Quantile, 0 < q < 1.
    Quantile(Field, f64),
}

/// Sort groups by one of the measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order {
    /// Index into the measures.
    pub measure: usize,
    /// Greatest first.
    pub descending: bool,
}

/// Asks for numbers over time and by fields.
#[derive(Debug, Clone)]
pub struct AggregateQuery {
    /// Whose.
    pub project: ProjectId,
    /// Earliest start, inclusive.
    pub from_us: Option<i64>,
    /// Latest start, exclusive.
    pub to_us: Option<i64>,
    /// Which spans.
    pub filter: Filter,
    /// Words that must occur in the bodies.
    pub text: Option<String>,
    /// Roots or every span.
    pub scope: Scope,
    /// What to compute.
    pub measures: Vec<Measure>,
    /// One group per combination of these fields' values.
    pub by: Vec<Field>,
    /// One group per time bucket of this width.
    pub every_us: Option<i64>,
    /// Shifts the buckets, for days that begin elsewhere than in UTC.
    pub offset_us: i64,
    /// Keep this many groups (all their time buckets), the first by `order`.
    pub top: Option<usize>,
    /// Order of the groups; default: the first measure, greatest first. Within
    /// a group, rows are in time order.
    pub order: Option<Order>,
}

impl AggregateQuery {
    /// The number of root spans of a project.
    pub fn new(project: ProjectId) -> Self {
        Self {
            project,
            from_us: None,
            to_us: None,
            filter: Filter::default(),
            text: None,
            scope: Scope::Roots,
            measures: vec![Measure::Count],
            by: Vec::new(),
            every_us: None,
            offset_us: 0,
            top: None,
            order: None,
        }
    }
}

/// The answer to an [`AggregateQuery`].
#[derive(Debug, Clone, PartialEq)]
pub struct Aggregate {
    /// One row per group and time bucket. Buckets without spans have no row.
    pub rows: Vec<AggregateRow>,
    /// Groups that `top` left out.
    pub groups_left_out: usize,
    /// Whether every quantile is exact; else it carries up to 1.1 % error.
    pub exact: bool,
}

/// Numbers of one group in one time bucket.
#[derive(Debug, Clone, PartialEq)]
pub struct AggregateRow {
    /// Start of the bucket, when the query has `every_us`.
    pub bucket_us: Option<i64>,
    /// Values of the `by` fields, in their order; `None` where a span has none.
    pub group: Vec<Option<String>>,
    /// The measures, in their order; `None` where no span has the field.
    pub values: Vec<Option<f64>>,
}

/// Asks how often each value of some fields occurs.
#[derive(Debug, Clone)]
pub struct FacetQuery {
    /// Whose.
    pub project: ProjectId,
    /// Earliest start, inclusive.
    pub from_us: Option<i64>,
    /// Latest start, exclusive.
    pub to_us: Option<i64>,
    /// Which spans.
    pub filter: Filter,
    /// Words that must occur in the bodies.
    pub text: Option<String>,
    /// Roots or every span.
    pub scope: Scope,
    /// The fields.
    pub fields: Vec<Field>,
    /// Values per field, the most frequent first.
    pub top: usize,
}

/// Values of one field.
#[derive(Debug, Clone, PartialEq)]
pub struct Facet {
    /// The field.
    pub field: Field,
    /// Value and number of spans; spans without a value are not counted.
    pub values: Vec<(String, u64)>,
    /// Distinct values, returned or not.
    pub distinct: usize,
}

impl std::fmt::Display for Measure {
    /// As the API writes it: `count`, `avg(latency_ms)`, `p95(score.quality)`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Count => f.write_str("count"),
            Self::Errors => f.write_str("errors"),
            Self::Sum(field) => write!(f, "sum({field})"),
            Self::Avg(field) => write!(f, "avg({field})"),
            Self::Min(field) => write!(f, "min({field})"),
            Self::Max(field) => write!(f, "max({field})"),
            Self::Quantile(field, q) => write!(f, "p{}({field})", (q * 1e6).round() / 1e4),
        }
    }
}

impl std::str::FromStr for Measure {
    type Err = QueryError;

    fn from_str(text: &str) -> Result<Self, QueryError> {
        let known = "measures are count, errors, sum(f), avg(f), min(f), max(f) and quantiles such as p95(f)";
        let unknown = || QueryError::Invalid(format!("there is no measure {text:?}; {known}"));
        match text {
            "count" => return Ok(Self::Count),
            "errors" => return Ok(Self::Errors),
            _ => {}
        }
        let (name, field) = text
            .strip_suffix(')')
            .and_then(|rest| rest.split_once('('))
            .ok_or_else(unknown)?;
        let field: Field = field
            .parse()
            .map_err(|error: crate::filter::UnknownField| {
                let hint = error
                    .suggestion
                    .as_ref()
                    .map(|near| format!("; did you mean {near}?"))
                    .unwrap_or_default();
                QueryError::Invalid(format!("{error}{hint}"))
            })?;
        match name {
            "sum" => Ok(Self::Sum(field)),
            "avg" => Ok(Self::Avg(field)),
            "min" => Ok(Self::Min(field)),
            "max" => Ok(Self::Max(field)),
            _ => {
                let percent = name
                    .strip_prefix('p')
                    .and_then(|digits| digits.parse::<f64>().ok());
                let percent = percent.filter(|percent| *percent > 0.0 && *percent < 100.0);
                percent
                    .map(|percent| Self::Quantile(field, percent / 100.0))
                    .ok_or_else(unknown)
            }
        }
    }
}
