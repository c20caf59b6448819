//! Lists, traces and bodies.

use base::{Cursor, ProjectId, SpanId, TraceId};
use rusqlite::{Connection, params_from_iter};
use serde::{Deserialize, Serialize};

use crate::bodies;
use crate::filter::Filter;
use crate::filter::sql::Sql;
use crate::limits;
use crate::query::{
    Bodies, Body, BodyContent, ListQuery, Page, QueryError, Scope, Trace, TraceRow,
};
use crate::reader::{Query, Reader, score_names};
use crate::rows;
use crate::segments::Segment;
use crate::span::StoredSpan;
use crate::text;

/// Sort key of a listed row; what a cursor holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Key {
    start_us: i64,
    span: SpanId,
    trace: TraceId,
}

impl Key {
    fn of(stored: &StoredSpan) -> Self {
        let span = &stored.span;
        Self {
            start_us: span.start_us,
            span: span.span_id,
            trace: span.trace_id,
        }
    }
}

/// Which spans a list or an aggregate is about, apart from the project.
pub(crate) struct Selection<'a> {
    pub(crate) from_us: Option<i64>,
    pub(crate) to_us: Option<i64>,
    pub(crate) filter: &'a Filter,
    pub(crate) text: Option<&'a str>,
    pub(crate) scope: Scope,
}

/// A free-text search, ready for SQL.
pub(crate) enum Words {
    /// No search.
    Any,
    /// Something typed that no text can match, such as "!?".
    Nothing,
    /// The MATCH expression.
    Match(String),
}

pub(crate) fn words(typed: Option<&str>) -> Words {
    match typed.map(str::trim) {
        None | Some("") => Words::Any,
        Some(typed) => text::match_query(typed).map_or(Words::Nothing, Words::Match),
    }
}

impl Selection<'_> {
    /// Appends `WHERE …`.
    pub(crate) fn condition(
        &self,
        sql: &mut Sql,
        connection: &Connection,
        project: i64,
        any_replaced: bool,
        walk: Walk,
    ) -> rusqlite::Result<()> {
        sql.push(" WHERE project = ");
        sql.bind(project);
        if self.scope == Scope::Roots {
            sql.push(" AND parent IS NULL");
        }
        if let Some(from_us) = self.from_us {
            sql.push(" AND start_us >= ");
            sql.bind(from_us);
        }
        if let Some(to_us) = self.to_us {
            sql.push(" AND start_us < ");
            sql.bind(to_us);
        }
        if any_replaced {
            sql.push(" AND NOT is_replaced(trace, span)");
        }
        match words(self.text) {
            Words::Any => {}
            Words::Nothing => sql.push(" AND 0"),
            Words::Match(query) => {
                let probe = walk == Walk::NewestFirst && !is_rare(connection, &query)?;
                self.text_condition(sql, project, query, probe);
            }
        }
        if let Some(expr) = self.filter.expr() {
            sql.push(" AND ");
            sql.condition(expr);
        }
        Ok(())
    }

    /// A root stands for its trace: the words may be in any of its spans. With
    /// `probe`, each row in turn asks the index; without, the index gives all
    /// rows at once.
    fn text_condition(&self, sql: &mut Sql, project: i64, query: String, probe: bool) {
        let (before, after) = match (self.scope, probe) {
            (Scope::Spans, false) => (
                " AND row IN (SELECT rowid FROM span_text WHERE span_text MATCH ",
                ")",
            ),
            (Scope::Spans, true) => (
                " AND EXISTS (SELECT 1 FROM span_text WHERE rowid = spans.row AND span_text MATCH ",
                ")",
            ),
            (Scope::Roots, false) => (
                " AND trace IN (SELECT s.trace FROM span_text t CROSS JOIN spans s ON s.row = t.rowid \
                 WHERE t.span_text MATCH ",
                " AND s.project = ",
            ),
            (Scope::Roots, true) => (
                " AND EXISTS (SELECT 1 FROM spans s CROSS JOIN span_text t ON t.rowid = s.row \
                 WHERE s.trace = spans.trace AND t.span_text MATCH ",
                " AND s.project = ",
            ),
        };
        sql.push(before);
        sql.bind(query);
        sql.push(after);
        if self.scope == Scope::Roots {
            sql.bind(project);
            sql.push(")");
        }
    }
}

/// How a query goes through the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Walk {
    /// In time order, ending early.
    NewestFirst,
    /// Through all of them.
    All,
}

/// Whether so few rows match that starting from them beats walking by time.
fn is_rare(connection: &Connection, query: &str) -> rusqlite::Result<bool> {
    let sql = "SELECT count(*) FROM (SELECT 1 FROM span_text WHERE span_text MATCH ?1 LIMIT 1000)";
    connection
        .prepare_cached(sql)?
        .query_row([query], |row| row.get::<_, i64>(0))
        .map(|found| found < 1000)
}

impl Reader {
    /// A page of spans, newest first. Blocks.
    ///
    /// # Errors
    /// See [`QueryError`]; so for all queries.
    pub fn list(&self, query: &ListQuery) -> Result<Page<TraceRow>, QueryError> {
        let limit = query.limit.clamp(1, limits::PAGE_ROWS);
        let after: Option<Key> = match &query.cursor {
            None => None,
            Some(cursor) => Some(
                cursor
                    .key()
                    .map_err(|error| QueryError::Invalid(error.to_string()))?,
            ),
        };
        let mut run = self.begin(query.project)?;
        run.load_scores(&score_names(&query.filter), query.from_us)?;
        let mut rows = list_rows(&run, query, after, limit + 1)?;
        let more = rows.len() > limit;
        rows.truncate(limit);
        let next = rows
            .last()
            .filter(|_| more)
            .map(|stored| Cursor::new(&Key::of(stored)));
        Ok(Page {
            rows: with_traces(&run, rows)?,
            next,
        })
    }

    /// A trace by id, whenever it was. Blocks.
    ///
    /// # Errors
    /// See [`QueryError`].
    pub fn trace(
        &self,
        project: ProjectId,
        trace_id: TraceId,
    ) -> Result<Option<Trace>, QueryError> {
        let run = self.begin(project)?;
        let sql = format!(
            "SELECT {} FROM spans WHERE project = ?1 AND trace = ?2",
            rows::SPAN_COLUMNS
        );
        let mut spans = Vec::new();
        for segment in run.segments.iter().rev() {
            let replaced = run.replaced_in(segment);
            let found = run.on(segment, |connection, number| {
                let mut statement = connection.prepare_cached(&sql)?;
                let rows = statement.query_map((number, trace_id.0.as_slice()), |row| {
                    rows::read_span(row, project)
                })?;
                rows.collect::<rusqlite::Result<Vec<_>>>()
            })?;
            let current =
                |stored: &StoredSpan| !replaced.contains(&(trace_id, stored.span.span_id));
            spans.extend(found.unwrap_or_default().into_iter().filter(current));
        }
        let scores = run.scores_of(&[trace_id], i64::MIN)?.of(trace_id).to_vec();
        if spans.is_empty() {
            return Ok(None);
        }
        spans.sort_by_key(|stored| {
            (
                stored.span.start_us,
                stored.span.parent.is_some(),
                stored.seq,
            )
        });
        let span_count = spans.len() as u64;
        spans.truncate(limits::TRACE_SPANS);
        Ok(Some(Trace {
            spans,
            span_count,
            scores,
        }))
    }

    /// The bodies of one span: at most `limit_bytes` of JSON each, or all. Blocks.
    ///
    /// # Errors
    /// See [`QueryError`].
    pub fn span_bodies(
        &self,
        project: ProjectId,
        trace_id: TraceId,
        span_id: SpanId,
        limit_bytes: Option<usize>,
    ) -> Result<Option<Bodies>, QueryError> {
        let run = self.begin(project)?;
        let sql = "SELECT input_refs, output_refs, tool_refs, new_from FROM spans \
             WHERE project = ?1 AND trace = ?2 AND span = ?3";
        // The newest segment that knows the span has its current version.
        for segment in run.segments.iter().rev() {
            let found = run.on(segment, |connection, number| {
                let mut statement = connection.prepare_cached(sql)?;
                let mut rows =
                    statement.query((number, trace_id.0.as_slice(), span_id.0.as_slice()))?;
                let Some(row) = rows.next()? else {
                    return Ok(None);
                };
                let list = |index| {
                    read_bodies(
                        connection,
                        number,
                        &row.get::<_, Vec<u8>>(index)?,
                        limit_bytes,
                    )
                };
                let new_from = usize::try_from(row.get::<_, i64>(3)?).unwrap_or(0);
                Ok(Some(Bodies {
                    input: list(0)?,
                    new_from,
                    output: list(1)?,
                    tools: list(2)?,
                }))
            })?;
            if let Some(bodies) = found.flatten() {
                return Ok(Some(bodies));
            }
        }
        Ok(None)
    }
}

fn list_rows(
    run: &Query<'_>,
    query: &ListQuery,
    after: Option<Key>,
    wanted: usize,
) -> Result<Vec<StoredSpan>, QueryError> {
    let selection = Selection {
        from_us: query.from_us,
        to_us: query.to_us,
        filter: &query.filter,
        text: query.text.as_deref(),
        scope: query.scope,
    };
    // The cursor bounds the range from above; its own microsecond may hold more rows.
    let below = after.map(|key| key.start_us.saturating_add(1));
    let to_us = [query.to_us, below].into_iter().flatten().min();
    let mut segments: Vec<&Segment> = run
        .segments
        .iter()
        .filter(|segment| segment.stat.covers(query.from_us, to_us))
        .collect();
    segments.sort_by_key(|segment| std::cmp::Reverse(segment.stat.max_start_us));
    let mut rows: Vec<StoredSpan> = Vec::new();
    for segment in segments {
        // Enough rows, all newer than anything in the segments that follow.
        if rows.len() >= wanted
            && segment.stat.max_start_us < rows.last().map(|last| last.span.start_us)
        {
            break;
        }
        rows.extend(segment_rows(run, segment, &selection, after, wanted)?);
        rows.sort_by_key(|stored| std::cmp::Reverse(Key::of(stored)));
        rows.truncate(wanted);
    }
    Ok(rows)
}

fn segment_rows(
    run: &Query<'_>,
    segment: &Segment,
    selection: &Selection<'_>,
    after: Option<Key>,
    wanted: usize,
) -> Result<Vec<StoredSpan>, QueryError> {
    let any_replaced = !run.replaced_in(segment).is_empty();
    let project_id = run.project;
    let found = run.on(segment, |connection, project| {
        let mut sql = Sql::default();
        sql.push("SELECT ");
        sql.push(rows::SPAN_COLUMNS);
        sql.push(" FROM spans");
        selection.condition(
            &mut sql,
            connection,
            project,
            any_replaced,
            Walk::NewestFirst,
        )?;
        if let Some(key) = after {
            sql.push(" AND (start_us, span, trace) < (");
            sql.bind(key.start_us);
            sql.push(", ");
            sql.bind(key.span.0.to_vec());
            sql.push(", ");
            sql.bind(key.trace.0.to_vec());
            sql.push(")");
        }
        sql.push(" ORDER BY start_us DESC, span DESC, trace DESC LIMIT ");
        sql.bind(i64::try_from(wanted).unwrap_or(i64::MAX));
        let mut statement = connection.prepare_cached(&sql.text)?;
        let rows = statement.query_map(params_from_iter(sql.values), |row| {
            rows::read_span(row, project_id)
        })?;
        rows.collect::<rusqlite::Result<Vec<_>>>()
    })?;
    Ok(found.unwrap_or_default())
}

/// Adds what the list shows of each row's trace.
fn with_traces(run: &Query<'_>, rows: Vec<StoredSpan>) -> Result<Vec<TraceRow>, QueryError> {
    let Some(from_us) = rows.iter().map(|stored| stored.span.start_us).min() else {
        return Ok(Vec::new());
    };
    let traces: Vec<TraceId> = rows.iter().map(|stored| stored.span.trace_id).collect();
    let scores = run.scores_of(&traces, from_us)?;
    let mut counts = vec![(0_u64, 0_u64); rows.len()];
    // Other spans of a trace begin after its root, as far as the list is concerned.
    for segment in run
        .segments
        .iter()
        .filter(|segment| segment.stat.covers(Some(from_us), None))
    {
        let hide = !run.replaced_in(segment).is_empty();
        let found = run.on(segment, |connection, project| {
            let sql = format!(
                "SELECT count(*), coalesce(sum(status = 'error'), 0) FROM spans WHERE project = ?1 AND trace = ?2 {}",
                if hide { "AND NOT is_replaced(trace, span)" } else { "" }
            );
            let mut statement = connection.prepare_cached(&sql)?;
            let one = |trace: &TraceId| {
                statement.query_row((project, trace.0.as_slice()), |row| Ok((row.get::<_, i64>(0)?.unsigned_abs(), row.get::<_, i64>(1)?.unsigned_abs())))
            };
            traces.iter().map(one).collect::<rusqlite::Result<Vec<_>>>()
        })?;
        for (total, more) in counts.iter_mut().zip(found.unwrap_or_default()) {
            *total = (total.0 + more.0, total.1 + more.1);
        }
    }
    let row = |(stored, (span_count, error_count)): (StoredSpan, (u64, u64))| {
        let own = |score: &&crate::Score| {
            stored.span.parent.is_none() || score.span_id == Some(stored.span.span_id)
        };
        let scores = scores
            .of(stored.span.trace_id)
            .iter()
            .filter(own)
            .cloned()
            .collect();
        TraceRow {
            stored,
            scores,
            span_count,
            error_count,
        }
    };
    Ok(rows.into_iter().zip(counts).map(row).collect())
}

fn read_bodies(
    connection: &Connection,
    project: i64,
    refs: &[u8],
    limit_bytes: Option<usize>,
) -> rusqlite::Result<Vec<Body>> {
    let mut statement = connection.prepare_cached(
        "SELECT codec, size, body FROM contents WHERE project = ?1 AND hash = ?2",
    )?;
    let mut out = Vec::new();
    for hash in rows::hashes(refs) {
        let name: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut rows = statement.query((project, hash.as_slice()))?;
        let stored = match rows.next()? {
            None => None,
            Some(row) => Some((
                row.get::<_, i64>(0)?,
                row.get::<_, i64>(1)?,
                row.get::<_, Vec<u8>>(2)?,
            )),
        };
        let Some((codec, size, packed)) = stored else {
            out.push(Body {
                hash: name,
                bytes: 0,
                content: BodyContent::Gone,
            });
            continue;
        };
        let bytes = u64::try_from(size).unwrap_or(0);
        let json = bodies::decode(codec, packed, usize::try_from(size).unwrap_or(0));
        out.push(Body {
            hash: name,
            bytes,
            content: json.map_or(BodyContent::Gone, |json| content(&json, limit_bytes)),
        });
    }
    Ok(out)
}

fn content(json: &[u8], limit_bytes: Option<usize>) -> BodyContent {
    match limit_bytes {
        Some(limit) if json.len() > limit => BodyContent::Cut(
            base::text::cut_bytes(&String::from_utf8_lossy(json), limit).to_owned(),
        ),
        _ => serde_json::from_slice(json).map_or(BodyContent::Gone, BodyContent::Whole),
    }
}
