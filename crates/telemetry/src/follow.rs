//! Spans in the order in which they were written, from a position that outlives restarts.
//!
//! A position is the number of a written span: numbers only rise, over all segments and
//! restarts, and a group of spans becomes visible at once. Whoever keeps the position after
//! the spans that it has dealt with misses none and sees none twice. A span that is written
//! again comes again, with a higher number; its earlier version is not shown any more.
//!
//! The live tail is the other way to hear of spans: at once, but only while one listens.

use base::ProjectId;
use rusqlite::{Connection, params_from_iter};

use crate::filter::Filter;
use crate::filter::sql::Sql;
use crate::list::{Selection, Walk};
use crate::query::{QueryError, Scope};
use crate::reader::{Query, Reader, score_names};
use crate::rows;
use crate::segments::Segment;
use crate::span::StoredSpan;

/// Rows that one call looks at, matching or not: it stays short however long nobody asked.
const MOST_LOOKED_AT: i64 = 20_000;

/// Asks for spans after a position.
#[derive(Debug, Clone)]
pub struct FollowQuery {
    /// Whose.
    pub project: ProjectId,
    /// What was dealt with: the position of an answer before, or of [`Reader::end`].
    pub after: u64,
    /// Which.
    pub filter: Filter,
    /// Roots or every span.
    pub scope: Scope,
    /// The most spans of one answer.
    pub limit: usize,
}

/// Spans after a position.
#[derive(Debug, Clone, PartialEq)]
pub struct Followed {
    /// The matching spans, as they were written; each one's `seq` is its position.
    pub spans: Vec<StoredSpan>,
    /// Where to go on when all of them are dealt with.
    pub position: u64,
    /// Whether more was there already.
    pub more: bool,
}

/// What one segment gave.
struct Part {
    spans: Vec<StoredSpan>,
    position: u64,
    more: bool,
}

impl Reader {
    /// The position of whatever was written last. Blocks.
    ///
    /// # Errors
    /// See [`QueryError`].
    pub fn end(&self, project: ProjectId) -> Result<u64, QueryError> {
        let run = self.begin(project)?;
        for segment in run.segments.iter().rev() {
            let newest = run.on_any(segment, newest)?;
            if let Some((_, seq)) = newest.flatten() {
                return Ok(seq);
            }
        }
        Ok(0)
    }

    /// The position of whatever was written before a moment, by the clock of the writer. Blocks.
    ///
    /// # Errors
    /// See [`QueryError`].
    pub fn position_at(&self, project: ProjectId, time_us: i64) -> Result<u64, QueryError> {
        let run = self.begin(project)?;
        let mut position = 0;
        for segment in run.segments.iter().rev() {
            let found = run.on_any(segment, |connection| before(connection, time_us))?;
            match found.flatten() {
                None => {}
                Some(Before::Here(seq)) => return Ok(seq),
                // All of it is later: what is before it is in an older segment.
                Some(Before::Nothing(first)) => position = first.saturating_sub(1),
            }
        }
        Ok(position)
    }

    /// The next spans after a position. Blocks.
    ///
    /// # Errors
    /// See [`QueryError`].
    pub fn follow(&self, query: &FollowQuery) -> Result<Followed, QueryError> {
        let mut run = self.begin(query.project)?;
        run.load_scores(&score_names(&query.filter), None)?;
        let mut found = Followed {
            spans: Vec::new(),
            position: query.after,
            more: false,
        };
        let mut looked_at = MOST_LOOKED_AT;
        // The number of the segment leads each of its positions.
        let first = u32::try_from(query.after >> 40).unwrap_or(u32::MAX);
        let segments: Vec<Segment> = run.segments.to_vec();
        for segment in segments.iter().filter(|one| one.number >= first) {
            let limit = query.limit.saturating_sub(found.spans.len());
            if limit == 0 || looked_at <= 0 {
                found.more = true;
                break;
            }
            let part = part(&run, segment, query, limit, &mut looked_at)?;
            let Some(part) = part else { continue };
            found.spans.extend(part.spans);
            found.position = found.position.max(part.position);
            if part.more {
                found.more = true;
                break;
            }
        }
        Ok(found)
    }
}

fn newest(connection: &Connection) -> rusqlite::Result<Option<(i64, u64)>> {
    let mut statement =
        connection.prepare_cached("SELECT row, seq FROM spans ORDER BY row DESC LIMIT 1")?;
    let mut rows = statement.query([])?;
    let Some(row) = rows.next()? else {
        return Ok(None);
    };
    Ok(Some((row.get(0)?, row.get::<_, i64>(1)?.cast_unsigned())))
}

/// What a segment holds of the time before a moment.
enum Before {
    /// Spans; this is the last one's position.
    Here(u64),
    /// Nothing; this is the position of its first span.
    Nothing(u64),
}

fn before(connection: &Connection, time_us: i64) -> rusqlite::Result<Option<Before>> {
    let view = connection.unchecked_transaction()?;
    let Some((last, _)) = newest(&view)? else {
        return Ok(None);
    };
    let mut statement = view
        .prepare_cached("SELECT row, ingest_us FROM spans WHERE row >= ?1 ORDER BY row LIMIT 1")?;
    let (mut low, mut high) = (0_i64, last + 1);
    while low < high {
        let middle = low + (high - low) / 2;
        let (row, ingest_us) = statement.query_row([middle], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))
        })?;
        if ingest_us >= time_us {
            high = middle;
        } else {
            low = row + 1;
        }
    }
    let earlier = position_of(&view, low - 1)?;
    let first = view.query_row("SELECT min(seq) FROM spans", [], |row| row.get::<_, i64>(0))?;
    Ok(Some(earlier.map_or(
        Before::Nothing(first.cast_unsigned()),
        Before::Here,
    )))
}

/// The first row after a position. Rows and positions rise together, so it is looked for by
/// halves: there is no index on positions, and the writer should not pay for one.
fn first_row(connection: &Connection, after: u64, last: i64) -> rusqlite::Result<i64> {
    let mut statement = connection
        .prepare_cached("SELECT row, seq FROM spans WHERE row >= ?1 ORDER BY row LIMIT 1")?;
    let (mut low, mut high) = (0_i64, last + 1);
    while low < high {
        let middle = low + (high - low) / 2;
        let (row, seq) = statement.query_row([middle], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?.cast_unsigned()))
        })?;
        if seq > after {
            high = middle;
        } else {
            low = row + 1;
        }
    }
    Ok(low)
}

fn part(
    run: &Query<'_>,
    segment: &Segment,
    query: &FollowQuery,
    limit: usize,
    looked_at: &mut i64,
) -> Result<Option<Part>, QueryError> {
    let any_replaced = !run.replaced_in(segment).is_empty();
    let selection = Selection {
        from_us: None,
        to_us: None,
        filter: &query.filter,
        text: None,
        scope: query.scope,
    };
    run.on_any(segment, |connection| {
        // One view of the file: what the writer adds meanwhile is for the next call.
        let view = connection.unchecked_transaction()?;
        let Some((last, end)) = newest(&view)? else {
            return Ok(None);
        };
        if end <= query.after {
            return Ok(None);
        }
        let from = first_row(&view, query.after, last)?;
        let to = last.min(from.saturating_add(*looked_at - 1));
        *looked_at -= to - from + 1;
        let mut part = Part {
            spans: Vec::new(),
            position: position_of(&view, to)?.unwrap_or(end),
            more: to < last,
        };
        let Some(project) = rows::project_number(&view, query.project)? else {
            return Ok(Some(part));
        };
        let mut sql = Sql::default();
        sql.push("SELECT ");
        sql.push(rows::SPAN_COLUMNS);
        sql.push(" FROM spans NOT INDEXED");
        selection.condition(&mut sql, &view, project, any_replaced, Walk::All)?;
        sql.push(" AND row >= ");
        sql.bind(from);
        sql.push(" AND row <= ");
        sql.bind(to);
        sql.push(" ORDER BY row LIMIT ");
        sql.bind(i64::try_from(limit).unwrap_or(i64::MAX));
        {
            let mut statement = view.prepare_cached(&sql.text)?;
            let found = statement.query_map(params_from_iter(sql.values), |row| {
                rows::read_span(row, query.project)
            })?;
            part.spans = found.collect::<rusqlite::Result<Vec<_>>>()?;
        }
        if let Some(newest) = part.spans.last()
            && part.spans.len() >= limit
            && newest.seq < part.position
        {
            part.position = newest.seq;
            part.more = true;
        }
        Ok(Some(part))
    })
    .map(Option::flatten)
}

/// The position of the last row up to this one.
fn position_of(connection: &Connection, row: i64) -> rusqlite::Result<Option<u64>> {
    let mut statement = connection
        .prepare_cached("SELECT seq FROM spans WHERE row <= ?1 ORDER BY row DESC LIMIT 1")?;
    let mut rows = statement.query([row])?;
    let Some(row) = rows.next()? else {
        return Ok(None);
    };
    Ok(Some(row.get::<_, i64>(0)?.cast_unsigned()))
}
