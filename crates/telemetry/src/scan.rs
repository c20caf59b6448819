//! A few fields of every span of a selection, streamed one row at a time.
//!
//! For figures that need each observation and not a group's total: nothing is
//! kept here, so memory is the caller's business. Rows come oldest start first
//! within a segment, and segments oldest first; only a span that was written
//! late, into a newer segment, comes out of order.

use base::{ProjectId, SpanId, TraceId};
use rusqlite::params_from_iter;
use rusqlite::types::ValueRef;

use crate::filter::sql::{Sql, Want};
use crate::filter::{Field, FieldType, Filter};
use crate::list::{Selection, Walk};
use crate::query::{QueryError, Scope};
use crate::reader::{Reader, score_names};
use crate::segments::Segment;

/// Asks for a few fields of every span.
#[derive(Debug, Clone)]
pub struct ScanQuery {
    /// Whose.
    pub project: ProjectId,
    /// Earliest start, inclusive.
    pub from_us: Option<i64>,
    /// Latest start, exclusive.
    pub to_us: Option<i64>,
    /// Which.
    pub filter: Filter,
    /// Roots or every span.
    pub scope: Scope,
    /// What to read of each.
    pub fields: Vec<Field>,
    /// Whether a span shows the latest score of its whole trace (feedback is given to an
    /// answer, whichever step wrote it) or only what was given to this very span.
    pub scores_of_trace: bool,
}

/// One span.
#[derive(Debug)]
pub struct Scanned<'a> {
    /// When it began.
    pub start_us: i64,
    /// Its trace.
    pub trace: TraceId,
    /// Its id.
    pub span: SpanId,
    /// The fields, in the order of the query; `None` where it has none.
    pub values: &'a [Option<ScannedValue>],
}

/// The value of a field.
#[derive(Debug, Clone, PartialEq)]
pub enum ScannedValue {
    /// Of a number field, or a score's number.
    Number(f64),
    /// Of any other.
    Text(String),
}

impl ScannedValue {
    /// The number, if it is one.
    pub fn number(&self) -> Option<f64> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Text(_) => None,
        }
    }

    /// The text, if it is one.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Number(_) => None,
        }
    }
}

impl Reader {
    /// Hands every matching span to `each`. Blocks, within the time limit of queries.
    ///
    /// # Errors
    /// See [`QueryError`].
    pub fn scan(
        &self,
        query: &ScanQuery,
        mut each: impl FnMut(&Scanned<'_>),
    ) -> Result<(), QueryError> {
        let mut run = self.begin(query.project)?;
        run.load_scores(&names_of_scores(query), query.from_us)?;
        let selection = Selection {
            from_us: query.from_us,
            to_us: query.to_us,
            filter: &query.filter,
            text: None,
            scope: query.scope,
        };
        let covers = |segment: &&Segment| segment.stat.covers(query.from_us, query.to_us);
        let mut values = Vec::with_capacity(query.fields.len());
        for segment in run.segments.iter().filter(covers) {
            let hide = !run.replaced_in(segment).is_empty();
            run.on(segment, |connection, project| {
                let mut sql = select(query);
                selection.condition(&mut sql, connection, project, hide, Walk::All)?;
                sql.push(" ORDER BY start_us");
                let mut statement = connection.prepare_cached(&sql.text)?;
                let mut rows = statement.query(params_from_iter(sql.values))?;
                while let Some(row) = rows.next()? {
                    values.clear();
                    for index in 0..query.fields.len() {
                        values.push(read_value(row.get_ref(index + 3)?));
                    }
                    each(&Scanned {
                        start_us: row.get(0)?,
                        trace: TraceId(row.get(1)?),
                        span: SpanId(row.get(2)?),
                        values: &values,
                    });
                }
                Ok(())
            })?;
        }
        Ok(())
    }
}

fn select(query: &ScanQuery) -> Sql {
    let mut sql = Sql {
        scores_of_trace: Some(query.scores_of_trace),
        ..Sql::default()
    };
    sql.push("SELECT start_us, trace, span");
    for field in &query.fields {
        sql.push(", ");
        let number =
            matches!(field.field_type(), FieldType::Number) || matches!(field, Field::Score(_));
        sql.field(field, if number { Want::Number } else { Want::Shown });
    }
    sql.push(" FROM spans");
    sql
}

fn names_of_scores(query: &ScanQuery) -> Vec<String> {
    let mut names = score_names(&query.filter);
    names.extend(query.fields.iter().filter_map(|field| match field {
        Field::Score(name) => Some(name.clone()),
        _ => None,
    }));
    names.sort();
    names.dedup();
    names
}

#[expect(
    clippy::cast_precision_loss,
    reason = "numbers of a span are far below 2^53"
)]
fn read_value(value: ValueRef<'_>) -> Option<ScannedValue> {
    match value {
        ValueRef::Null | ValueRef::Blob(_) => None,
        ValueRef::Integer(number) => Some(ScannedValue::Number(number as f64)),
        ValueRef::Real(number) => Some(ScannedValue::Number(number)),
        ValueRef::Text(text) => Some(ScannedValue::Text(
            String::from_utf8_lossy(text).into_owned(),
        )),
    }
}
