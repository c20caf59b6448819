//! Read-only connections: a small pool, a time limit, and the SQL functions
//! that give filters their meaning inside SQLite.
//!
//! Readers never block the writer (WAL), but a reader that stays keeps the WAL
//! from shrinking and a segment from being sealed: hence the time limit, the
//! limit on their number, and retired segments, whose connections are closed
//! instead of kept.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use base::{ProjectId, SpanId, TraceId};
use rusqlite::Connection;
use rusqlite::functions::{Context, FunctionFlags};
use rusqlite::types::ValueRef;
use serde_json::Value;

use crate::filter::{FieldValue, Filter, Op, json_value};
use crate::query::QueryError;
use crate::schema::{self, SegmentError};
use crate::scores::ScoreTable;
use crate::segments::{self, Catalog, Segment, Stat};
use crate::{filter, rows};

/// Versions of spans that a newer segment replaces.
pub(crate) type Replaced = HashSet<(TraceId, SpanId)>;

/// What the SQL functions of a connection look into; set anew for each query.
#[derive(Debug, Default)]
struct Lookups {
    scores: Arc<ScoreTable>,
    replaced: Arc<Replaced>,
}

#[derive(Debug)]
struct Pooled {
    connection: Connection,
    lookups: Arc<Mutex<Lookups>>,
}

#[derive(Debug, Default)]
struct Idle {
    connections: HashMap<u32, Vec<Pooled>>,
    count: usize,
    retired: HashSet<u32>,
}

/// Idle read-only connections by segment.
#[derive(Debug)]
pub(crate) struct Pool {
    idle: Mutex<Idle>,
    most_idle: usize,
}

impl Pool {
    pub(crate) fn new(most_idle: usize) -> Self {
        Self {
            idle: Mutex::default(),
            most_idle,
        }
    }

    /// Closes the segment's idle connections and keeps no more of them.
    pub(crate) fn retire(&self, number: u32) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retired.insert(number);
        let closed = idle
            .connections
            .remove(&number)
            .map_or(0, |closed| closed.len());
        idle.count -= closed;
    }

    /// Keeps the segment's connections again.
    pub(crate) fn admit(&self, number: u32) {
        self.idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retired
            .remove(&number);
    }

    fn take(&self, segment: &Segment) -> Result<Pooled, SegmentError> {
        {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(pooled) = idle.connections.get_mut(&segment.number).and_then(Vec::pop) {
                idle.count -= 1;
                return Ok(pooled);
            }
        }
        let connection = schema::open_read_only(&segment.path)?;
        let lookups = Arc::<Mutex<Lookups>>::default();
        register_functions(&connection, &lookups)?;
        Ok(Pooled {
            connection,
            lookups,
        })
    }

    fn give_back(&self, number: u32, pooled: Pooled) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.count < self.most_idle && !idle.retired.contains(&number) {
            idle.count += 1;
            idle.connections.entry(number).or_default().push(pooled);
        }
    }

    /// Runs something short on a connection, without limit or lookups.
    pub(crate) fn with<T>(
        &self,
        segment: &Segment,
        run: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, SegmentError> {
        let pooled = self.take(segment)?;
        let result = run(&pooled.connection);
        self.give_back(segment.number, pooled);
        Ok(result?)
    }
}

/// Where a reader learns which segments there are.
#[derive(Debug)]
enum Source {
    /// From the writer in this process.
    Writer(Arc<Catalog>),
    /// From the files, before every query.
    Directory(PathBuf),
}

/// Read-only use of a data directory, also while a server writes to it.
#[derive(Debug)]
pub struct Reader {
    source: Source,
    pool: Arc<Pool>,
    running: Mutex<usize>,
    finished: Condvar,
    readers: usize,
    limit: Duration,
    /// Segments with fewer spans are always scanned, which is exact.
    pub(crate) rollup_rows: u64,
}

impl Reader {
    pub(crate) fn of_writer(
        catalog: Arc<Catalog>,
        pool: Arc<Pool>,
        options: &crate::Options,
    ) -> Self {
        Self::new(Source::Writer(catalog), pool, options)
    }

    pub(crate) fn of_directory(dir: PathBuf, options: &crate::Options) -> Self {
        // Idle connections of another process would keep the server from sealing.
        Self::new(Source::Directory(dir), Arc::new(Pool::new(0)), options)
    }

    fn new(source: Source, pool: Arc<Pool>, options: &crate::Options) -> Self {
        Self {
            source,
            pool,
            running: Mutex::new(0),
            finished: Condvar::new(),
            readers: options.readers.max(1),
            limit: options.query_limit,
            rollup_rows: options.rollup_rows,
        }
    }

    /// Begins a query: waits for a free reader and starts the clock.
    pub(crate) fn begin(&self, project: ProjectId) -> Result<Query<'_>, QueryError> {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let busy = |running: &mut usize| *running >= self.readers;
        let (mut running, waited) = self
            .finished
            .wait_timeout_while(running, self.limit, busy)
            .unwrap_or_else(PoisonError::into_inner);
        if waited.timed_out() && *running >= self.readers {
            return Err(QueryError::Busy {
                readers: self.readers,
            });
        }
        *running += 1;
        drop(running);
        let mut query = Query {
            reader: self,
            project,
            deadline: Instant::now() + self.limit,
            segments: Vec::new(),
            replaced: Vec::new(),
            scores: Arc::default(),
        };
        query.segments = self.segments(&query)?;
        query.load_replaced()?;
        Ok(query)
    }

    fn segments(&self, query: &Query<'_>) -> Result<Vec<Segment>, QueryError> {
        let dir = match &self.source {
            Source::Writer(catalog) => return Ok(catalog.all()),
            Source::Directory(dir) => dir,
        };
        let storage = |message: String| QueryError::Storage {
            file: dir.display().to_string(),
            message,
        };
        let files = segments::list_files(dir).map_err(|error| storage(error.to_string()))?;
        let mut found = Vec::with_capacity(files.len());
        for (number, path) in files {
            let segment = Segment {
                number,
                path,
                sealed: false,
                stat: Stat::default(),
            };
            let stat = query.run(&segment, |connection| {
                // A file that is just being created has no tables yet.
                if schema::version(connection)? == 0 {
                    Ok(None)
                } else {
                    Stat::read(connection)
                }
            })?;
            found.extend(stat.flatten().map(|stat| Segment { stat, ..segment }));
        }
        Ok(found)
    }
}

/// One running query.
pub(crate) struct Query<'a> {
    reader: &'a Reader,
    pub(crate) project: ProjectId,
    deadline: Instant,
    /// Oldest first.
    pub(crate) segments: Vec<Segment>,
    replaced: Vec<(u32, Arc<Replaced>)>,
    scores: Arc<ScoreTable>,
}

impl Drop for Query<'_> {
    fn drop(&mut self) {
        *self
            .reader
            .running
            .lock()
            .unwrap_or_else(PoisonError::into_inner) -= 1;
        self.reader.finished.notify_one();
    }
}

impl Query<'_> {
    /// Runs on a segment if it knows the project; `None` if not.
    pub(crate) fn on<T>(
        &self,
        segment: &Segment,
        run: impl FnOnce(&Connection, i64) -> rusqlite::Result<T>,
    ) -> Result<Option<T>, QueryError> {
        let found = self.run(segment, |connection| {
            match rows::project_number(connection, self.project)? {
                Some(number) => run(connection, number).map(Some),
                None => Ok(None),
            }
        })?;
        Ok(found.flatten())
    }

    /// Runs on a segment, whether it knows the project or not; `None` as [`Query::run`] gives it.
    pub(crate) fn on_any<T>(
        &self,
        segment: &Segment,
        run: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<Option<T>, QueryError> {
        self.run(segment, run)
    }

    /// `None` when retention has just removed the file.
    fn run<T>(
        &self,
        segment: &Segment,
        run: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<Option<T>, QueryError> {
        self.check_time()?;
        let pooled = match self.reader.pool.take(segment) {
            Ok(pooled) => pooled,
            Err(_) if !segment.path.exists() => return Ok(None),
            Err(error) => return Err(self.storage(segment, error)),
        };
        *pooled
            .lookups
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Lookups {
            scores: Arc::clone(&self.scores),
            replaced: self.replaced_in(segment),
        };
        let deadline = self.deadline;
        let result = pooled
            .connection
            .progress_handler(5000, Some(move || Instant::now() > deadline))
            .and_then(|()| run(&pooled.connection));
        match result {
            Ok(value) => {
                let none: Option<fn() -> bool> = None;
                if pooled.connection.progress_handler(0, none).is_ok() {
                    self.reader.pool.give_back(segment.number, pooled);
                }
                Ok(Some(value))
            }
            Err(error) => Err(self.storage(segment, error.into())),
        }
    }

    pub(crate) fn check_time(&self) -> Result<(), QueryError> {
        if Instant::now() > self.deadline {
            Err(self.too_slow())
        } else {
            Ok(())
        }
    }

    fn too_slow(&self) -> QueryError {
        QueryError::TooSlow {
            limit_ms: u64::try_from(self.reader.limit.as_millis()).unwrap_or(u64::MAX),
        }
    }

    fn storage(&self, segment: &Segment, error: SegmentError) -> QueryError {
        let message = match error {
            SegmentError::Newer { found } => {
                format!("its format {found} is newer than this program")
            }
            SegmentError::Sqlite(error) => {
                if error.sqlite_error_code() == Some(rusqlite::ErrorCode::OperationInterrupted) {
                    return self.too_slow();
                }
                error.to_string()
            }
        };
        let file = segment
            .path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        QueryError::Storage { file, message }
    }

    fn load_replaced(&mut self) -> Result<(), QueryError> {
        let with: Vec<Segment> = self
            .segments
            .iter()
            .filter(|segment| segment.stat.replaced > 0)
            .cloned()
            .collect();
        let mut newer = Replaced::new();
        // From the newest down: what a segment replaces is hidden in all older ones.
        for segment in with.iter().rev() {
            let found = self.on(segment, |connection, project| {
                let mut statement = connection
                    .prepare_cached("SELECT trace, span FROM replaces WHERE project = ?1")?;
                let rows = statement.query_map([project], |row| {
                    Ok((TraceId(row.get(0)?), SpanId(row.get(1)?)))
                })?;
                rows.collect::<rusqlite::Result<Vec<_>>>()
            })?;
            newer.extend(found.unwrap_or_default());
            self.replaced
                .push((segment.number, Arc::new(newer.clone())));
        }
        Ok(())
    }

    /// Span versions of this segment that a newer one replaces.
    pub(crate) fn replaced_in(&self, segment: &Segment) -> Arc<Replaced> {
        // Ordered from the newest segment down; the last newer one has the union.
        let newer = self
            .replaced
            .iter()
            .take_while(|(number, _)| *number > segment.number);
        newer
            .last()
            .map(|(_, replaced)| Arc::clone(replaced))
            .unwrap_or_default()
    }

    /// Loads the scores that a filter or measure looks at, so that SQL can.
    pub(crate) fn load_scores(
        &mut self,
        names: &[String],
        from_us: Option<i64>,
    ) -> Result<(), QueryError> {
        if names.is_empty() {
            return Ok(());
        }
        let mut found = Vec::new();
        // A score is given after its span began, so older segments hold none of interest.
        let from_us = from_us.unwrap_or(i64::MIN);
        for segment in self
            .segments
            .iter()
            .filter(|segment| segment.stat.scores > 0 && segment.stat.newest_us() >= from_us)
        {
            for name in names {
                let sql = format!(
                    "SELECT {} FROM scores WHERE project = ?1 AND name = ?2",
                    rows::SCORE_COLUMNS
                );
                let project_id = self.project;
                let rows = self.on(segment, |connection, project| {
                    let mut statement = connection.prepare_cached(&sql)?;
                    let rows = statement
                        .query_map((project, name), |row| rows::read_score(row, project_id))?;
                    rows.collect::<rusqlite::Result<Vec<_>>>()
                })?;
                found.extend(rows.unwrap_or_default());
            }
        }
        self.scores = Arc::new(ScoreTable::new(found));
        Ok(())
    }

    /// What [`Query::load_scores`] loaded.
    pub(crate) fn loaded_scores(&self) -> &ScoreTable {
        &self.scores
    }

    /// Every current score of some traces.
    pub(crate) fn scores_of(
        &self,
        traces: &[TraceId],
        from_us: i64,
    ) -> Result<ScoreTable, QueryError> {
        let sql = format!(
            "SELECT {} FROM scores WHERE project = ?1 AND trace = ?2",
            rows::SCORE_COLUMNS
        );
        let mut found = Vec::new();
        for segment in self
            .segments
            .iter()
            .filter(|segment| segment.stat.scores > 0 && segment.stat.newest_us() >= from_us)
        {
            let project_id = self.project;
            let rows = self.on(segment, |connection, project| {
                let mut statement = connection.prepare_cached(&sql)?;
                let mut all = Vec::new();
                for trace in traces {
                    let rows = statement.query_map((project, trace.0.as_slice()), |row| {
                        rows::read_score(row, project_id)
                    })?;
                    for score in rows {
                        all.push(score?);
                    }
                }
                Ok(all)
            })?;
            found.extend(rows.unwrap_or_default());
        }
        Ok(ScoreTable::new(found))
    }

    pub(crate) fn rollup_rows(&self) -> u64 {
        self.reader.rollup_rows
    }
}

/// Names of the scores that a filter looks at.
pub(crate) fn score_names(filter: &Filter) -> Vec<String> {
    let fields = filter.fields().into_iter();
    fields
        .filter_map(|field| {
            if let filter::Field::Score(name) = field {
                Some(name)
            } else {
                None
            }
        })
        .collect()
}

fn register_functions(
    connection: &Connection,
    lookups: &Arc<Mutex<Lookups>>,
) -> rusqlite::Result<()> {
    let pure = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
    connection.create_scalar_function("text_contains", 2, pure, |context| {
        compare_text(context, Op::Contains)
    })?;
    connection.create_scalar_function("text_starts", 2, pure, |context| {
        compare_text(context, Op::StartsWith)
    })?;
    connection.create_scalar_function("tag_of", 2, pure, |context| {
        let Some(tags) = json(context)? else {
            return Ok(None);
        };
        let name = context.get::<String>(1)?;
        Ok(tags.get(&name).and_then(Value::as_str).map(str::to_owned))
    })?;
    connection.create_scalar_function("meta_text", 2, pure, |context| {
        metadata(context, |value| value.text().map(str::to_owned))
    })?;
    connection.create_scalar_function("meta_number", 2, pure, |context| {
        metadata(context, |value| value.number())
    })?;
    connection.create_scalar_function("meta_shown", 2, pure, |context| {
        metadata(context, |value| Some(value.shown()))
    })?;
    connection.create_scalar_function("meta_bool", 2, pure, |context| metadata(context, flag))?;
    // Scores change between queries, so these must not be folded into constants.
    let varying = FunctionFlags::SQLITE_UTF8;
    let shared = Arc::clone(lookups);
    connection.create_scalar_function("score_text", 4, varying, move |context| {
        score(context, &shared, |value| value.text().map(str::to_owned))
    })?;
    let shared = Arc::clone(lookups);
    connection.create_scalar_function("score_number", 4, varying, move |context| {
        score(context, &shared, |value| value.number())
    })?;
    let shared = Arc::clone(lookups);
    connection.create_scalar_function("score_shown", 4, varying, move |context| {
        score(context, &shared, |value| Some(value.shown()))
    })?;
    let shared = Arc::clone(lookups);
    connection.create_scalar_function("score_bool", 4, varying, move |context| {
        score(context, &shared, flag)
    })?;
    let shared = Arc::clone(lookups);
    connection.create_scalar_function("is_replaced", 2, varying, move |context| {
        let id = (TraceId(context.get(0)?), SpanId(context.get(1)?));
        Ok(shared
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .replaced
            .contains(&id))
    })
}

fn flag(value: &FieldValue<'_>) -> Option<bool> {
    if let FieldValue::Bool(flag) = value {
        Some(*flag)
    } else {
        None
    }
}

fn compare_text(context: &Context<'_>, op: Op) -> rusqlite::Result<bool> {
    let ValueRef::Text(text) = context.get_raw(0) else {
        return Ok(false);
    };
    let part = context.get::<String>(1)?;
    Ok(filter::sql::holds_text(
        &String::from_utf8_lossy(text),
        op,
        &part,
    ))
}

fn json(context: &Context<'_>) -> rusqlite::Result<Option<Value>> {
    let ValueRef::Text(text) = context.get_raw(0) else {
        return Ok(None);
    };
    Ok(serde_json::from_slice(text).ok())
}

fn metadata<T>(
    context: &Context<'_>,
    pick: impl Fn(&FieldValue<'_>) -> Option<T>,
) -> rusqlite::Result<Option<T>> {
    let Some(value) = json(context)? else {
        return Ok(None);
    };
    let path = context.get::<String>(1)?;
    Ok(json_value(&value, &path).and_then(|found| pick(&found)))
}

fn score<T>(
    context: &Context<'_>,
    lookups: &Mutex<Lookups>,
    pick: impl Fn(&FieldValue<'_>) -> Option<T>,
) -> rusqlite::Result<Option<T>> {
    let scores = Arc::clone(
        &lookups
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .scores,
    );
    let name = context.get::<String>(0)?;
    let (trace, span) = (TraceId(context.get(1)?), SpanId(context.get(2)?));
    let found = scores.latest(&name, trace, span, context.get(3)?);
    Ok(found.and_then(|score| pick(&filter::score_value(score))))
}
