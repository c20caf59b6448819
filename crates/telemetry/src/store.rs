//! The writing side of a directory: the active segment, rolling, sealing,
//! recovery, and one transaction per group. Used by the writer thread only.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use base::{Clock, ProjectId};
use rusqlite::Connection;
use serde_json::Value;

use crate::bodies::{self, MasterKey, ProjectKey};
use crate::clean;
use crate::options::{OpenError, Options};
use crate::reader::Pool;
use crate::rollup::Changes;
use crate::rows::{self, Refs};
use crate::schema::{self, SegmentError};
use crate::segments::{self, Catalog, Segment, Stat};
use crate::span::{Batch, BodyCounts, Score, Span, StoredSpan};
use crate::tail::Committed;
use crate::text;
use crate::writer::Health;

/// The active segment and what is cached about it. Given up as a whole when a
/// transaction fails, because then the caches may be wrong.
struct Active {
    connection: Connection,
    segment: Segment,
    projects: HashMap<ProjectId, (i64, ProjectKey)>,
    next_seq: u64,
}

/// The writing side of a directory.
pub(crate) struct Store {
    dir: PathBuf,
    options: Options,
    clock: Arc<dyn Clock>,
    catalog: Arc<Catalog>,
    pool: Arc<Pool>,
    key: MasterKey,
    active: Option<Active>,
    health: Health,
    next_number: u32,
    /// Closed segments that are still in WAL mode.
    unsealed: Vec<Segment>,
}

impl Store {
    /// Repairs what a crash left and opens the active segment.
    pub(crate) fn open(
        dir: &Path,
        options: Options,
        clock: Arc<dyn Clock>,
        catalog: Arc<Catalog>,
        pool: Arc<Pool>,
    ) -> Result<Self, OpenError> {
        let key = MasterKey::load(dir).map_err(|error| segments::io_error(dir, &error))?;
        let mut files =
            segments::list_files(dir).map_err(|error| segments::io_error(dir, &error))?;
        let newest = files.pop();
        let mut store = Self {
            dir: dir.to_owned(),
            options,
            clock,
            catalog,
            pool,
            key,
            active: None,
            health: Health::Ready,
            next_number: newest.as_ref().map_or(1, |(number, _)| number + 1),
            unsealed: Vec::new(),
        };
        for (number, path) in files {
            store.adopt(number, path)?;
        }
        store.open_newest(newest)?;
        Ok(store)
    }

    pub(crate) fn identity(&self) -> String {
        self.key.identity()
    }

    /// Takes up a segment that is not the newest: seals it if a crash came first.
    fn adopt(&mut self, number: u32, path: PathBuf) -> Result<(), OpenError> {
        let stat = match read_stat(&path)? {
            Some(stat) => stat,
            None => {
                // A file whose creation never finished holds nothing.
                return segments::remove(&path).map_err(|error| segments::io_error(&path, &error));
            }
        };
        let mut segment = Segment {
            number,
            path,
            sealed: false,
            stat,
        };
        segment.sealed = segments::is_sealed(&segment.path);
        if !segment.sealed {
            segment.sealed = segments::seal(&segment.path)
                .map_err(|error| segments::open_error(&segment.path, error))?;
        }
        if !segment.sealed {
            self.unsealed.push(segment.clone());
        }
        self.catalog.put(segment);
        Ok(())
    }

    fn open_newest(&mut self, newest: Option<(u32, PathBuf)>) -> Result<(), OpenError> {
        let Some((number, path)) = newest else {
            return self.create();
        };
        let stat = read_stat(&path)?;
        let reusable = match stat {
            None => true,
            Some(stat) => {
                !segments::is_sealed(&path)
                    && (stat.is_empty() || !self.is_old(&stat) && !self.is_large(&path))
            }
        };
        if !reusable {
            self.adopt(number, path)?;
            return self.create();
        }
        let connection = segments::open_active(&path, self.clock.now_us(), self.quota())?;
        let stat =
            Stat::read(&connection).map_err(|error| segments::open_error(&path, error.into()))?;
        let segment = Segment {
            number,
            path,
            sealed: false,
            stat: stat.unwrap_or_default(),
        };
        self.activate(connection, segment)
    }

    fn create(&mut self) -> Result<(), OpenError> {
        let (connection, segment) = segments::create(
            &self.dir,
            self.next_number,
            self.clock.now_us(),
            self.quota(),
        )?;
        self.activate(connection, segment)?;
        self.next_number += 1;
        Ok(())
    }

    fn activate(&mut self, connection: Connection, segment: Segment) -> Result<(), OpenError> {
        let last: Option<i64> = connection
            .query_row("SELECT max(seq) FROM spans", [], |row| row.get(0))
            .map_err(|error| segments::open_error(&segment.path, error.into()))?;
        // The segment's number leads, so that a later segment's rows always win.
        let next_seq = last.map_or(u64::from(segment.number) << 40, |seq| {
            seq.cast_unsigned() + 1
        });
        self.catalog.put(segment.clone());
        self.active = Some(Active {
            connection,
            segment,
            projects: HashMap::new(),
            next_seq,
        });
        Ok(())
    }

    fn quota(&self) -> u32 {
        self.options
            .page_quota
            .as_ref()
            .map_or(0, |quota| quota.load(Ordering::Relaxed))
    }

    fn is_old(&self, stat: &Stat) -> bool {
        let width = self.options.segment_us.max(1);
        self.clock.now_us().div_euclid(width) > stat.opened_us.div_euclid(width)
    }

    fn is_large(&self, path: &Path) -> bool {
        std::fs::metadata(path).is_ok_and(|file| file.len() >= self.options.segment_bytes)
    }

    pub(crate) fn health(&self) -> Health {
        self.health.clone()
    }

    /// Rolls a segment whose day is over, seals closed ones, and tries to
    /// become ready again. Called about once a second.
    pub(crate) fn maintain(&mut self) {
        if self.active.is_none() {
            self.recover();
        } else {
            self.roll_if_due();
        }
        self.seal_closed();
    }

    fn recover(&mut self) {
        match self.create() {
            Ok(()) => {
                tracing::info!("telemetry writes again");
                self.health = Health::Ready;
            }
            Err(error) => self.not_ready(error.to_string()),
        }
    }

    fn not_ready(&mut self, reason: String) {
        let since_us = match &self.health {
            Health::NotReady { since_us, .. } => *since_us,
            Health::Ready => {
                tracing::error!(reason, "telemetry cannot write");
                self.clock.now_us()
            }
        };
        self.health = Health::NotReady { reason, since_us };
    }

    fn roll_if_due(&mut self) {
        let now_us = self.clock.now_us();
        let Some(active) = &mut self.active else {
            return;
        };
        if active.segment.stat.is_empty() {
            // Nothing in it yet, so its day is today. Stored with the first row.
            active.segment.stat.opened_us = now_us;
            return;
        }
        // The file on disk lags behind the WAL, so the connection knows the size better.
        let pages = |name: &str| {
            active
                .connection
                .query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, i64>(0))
                .unwrap_or(0)
        };
        let bytes = pages("page_count")
            .saturating_mul(pages("page_size"))
            .unsigned_abs();
        let stat = active.segment.stat;
        if self.is_old(&stat) || bytes >= self.options.segment_bytes {
            self.roll();
        }
    }

    fn roll(&mut self) {
        self.retire_active();
        self.recover();
    }

    /// Closes the active segment; it is sealed later.
    fn retire_active(&mut self) {
        if let Some(active) = self.active.take() {
            // Closing may fail after an I/O error; the next open replays the WAL.
            let _ = active.connection.close();
            self.unsealed.push(active.segment);
        }
    }

    fn seal_closed(&mut self) {
        for mut segment in std::mem::take(&mut self.unsealed) {
            self.pool.retire(segment.number);
            match segments::seal(&segment.path) {
                Ok(true) => {
                    segment.sealed = true;
                    self.pool.admit(segment.number);
                    self.catalog.put(segment);
                }
                Ok(false) => self.unsealed.push(segment),
                Err(error) => {
                    tracing::warn!(segment = segment.number, ?error, "seal a telemetry segment");
                    self.unsealed.push(segment);
                }
            }
        }
    }

    /// Closes the active segment's connection, which empties its WAL.
    pub(crate) fn close(&mut self) {
        if let Some(active) = self.active.take() {
            // Nothing is lost when this fails: the WAL is replayed at the next start.
            let _ = active.connection.close();
        }
    }

    /// Writes a group in one transaction; gives what followers may see.
    ///
    /// # Errors
    /// Says why nothing of the group was stored.
    pub(crate) fn write(&mut self, batches: Vec<Batch>) -> Result<Vec<Committed>, String> {
        self.roll_if_due();
        let quota = self.quota();
        let Some(mut active) = self.active.take() else {
            let Health::NotReady { reason, .. } = &self.health else {
                return Err("no active segment".to_owned());
            };
            return Err(reason.clone());
        };
        let limited = self.options.page_quota.is_some();
        let written = if limited {
            schema::set_quota(&active.connection, quota)
        } else {
            Ok(())
        }
        .and_then(|()| self.write_group(&mut active, batches));
        match written {
            Ok(events) => {
                self.catalog.put(active.segment.clone());
                self.active = Some(active);
                Ok(events)
            }
            Err(error) => {
                let reason = error.to_string();
                tracing::error!(segment = active.segment.number, reason, "write telemetry");
                // After a failed COMMIT the handle's state is unknown: never retry on it. The
                // catalog keeps what was committed before.
                self.active = Some(active);
                self.retire_active();
                self.recover();
                Err(reason)
            }
        }
    }

    fn write_group(
        &self,
        active: &mut Active,
        batches: Vec<Batch>,
    ) -> rusqlite::Result<Vec<Committed>> {
        let before = active.segment.stat;
        let now_us = self.clock.now_us();
        let mut changes = Changes::default();
        let mut events = Vec::new();
        active.connection.execute_batch("BEGIN IMMEDIATE")?;
        let result = batches
            .into_iter()
            .try_for_each(|batch| {
                self.write_batch(active, batch, now_us, &mut changes, &mut events)
            })
            .and_then(|()| changes.apply(&active.connection))
            .and_then(|()| active.segment.stat.write(&active.connection))
            .and_then(|()| active.connection.execute_batch("COMMIT"));
        match result {
            Ok(()) => Ok(events),
            Err(error) => {
                active.segment.stat = before;
                // Best effort: the handle is dropped next, which rolls back as well.
                let _ = active.connection.execute_batch("ROLLBACK");
                Err(error)
            }
        }
    }

    fn write_batch(
        &self,
        active: &mut Active,
        mut batch: Batch,
        now_us: i64,
        changes: &mut Changes,
        events: &mut Vec<Committed>,
    ) -> rusqlite::Result<()> {
        batch.scores.iter_mut().for_each(clean::clean_score);
        for score in &batch.scores {
            let (project, _) = self.project(active, score.project)?;
            if rows::insert_score(&active.connection, project, score)? {
                let stat = &mut active.segment.stat;
                stat.scores += 1;
                stat.max_score_us = Some(
                    stat.max_score_us
                        .map_or(score.at_us, |known| known.max(score.at_us)),
                );
            }
        }
        for span in batch.spans {
            let about =
                |score: &&Score| score.trace_id == span.trace_id && score.project == span.project;
            let scores: Arc<[Score]> = batch.scores.iter().filter(about).cloned().collect();
            let stored = self.write_span(active, span, now_us, changes)?;
            events.push(Committed::Span(Arc::new(stored), scores));
        }
        events.extend(
            batch
                .scores
                .into_iter()
                .map(|score| Committed::Score(Arc::new(score))),
        );
        Ok(())
    }

    fn write_span(
        &self,
        active: &mut Active,
        mut span: Span,
        now_us: i64,
        changes: &mut Changes,
    ) -> rusqlite::Result<StoredSpan> {
        clean::clean_span(&mut span);
        let (project, key) = self.project(active, span.project)?;
        self.remove_older(active, project, &span, changes)?;
        let (input, output, tools) = (
            std::mem::take(&mut span.input),
            std::mem::take(&mut span.output),
            std::mem::take(&mut span.tools),
        );
        let new_from = span
            .new_from
            .map_or_else(|| bodies::first_new(&input), usize::from)
            .min(input.len());
        span.new_from = u16::try_from(new_from).ok().or(Some(u16::MAX));
        let connection = &active.connection;
        let mut cut = false;
        let mut store = |list: &[Value]| store_bodies(connection, project, &key, list, &mut cut);
        let refs = Refs {
            input: store(&input)?,
            output: store(&output)?,
            tools: store(&tools)?,
        };
        if cut {
            span.truncated.push("bodies".to_owned());
        }
        let stored = StoredSpan {
            seq: active.next_seq,
            input_preview: text::input_preview(&input),
            output_preview: text::output_preview(&output),
            body_counts: BodyCounts {
                input: input.len(),
                output: output.len(),
                tools: tools.len(),
            },
            span,
        };
        active.next_seq += 1;
        let row = rows::insert_span(connection, project, &stored, &refs, now_us)?;
        index_text(connection, row, &input[new_from..], &output)?;
        changes.add(project, &stored.span, 1);
        active.segment.stat.spans += 1;
        active.segment.stat.saw_span(stored.span.start_us);
        Ok(stored)
    }

    /// Takes away an earlier version of the span, here or in an older segment.
    fn remove_older(
        &self,
        active: &mut Active,
        project: i64,
        span: &Span,
        changes: &mut Changes,
    ) -> rusqlite::Result<()> {
        let known = rows::find_span(
            &active.connection,
            project,
            span.project,
            span.trace_id,
            span.span_id,
        )?;
        if let Some((row, old)) = known {
            active
                .connection
                .prepare_cached("DELETE FROM spans WHERE row = ?1")?
                .execute([row])?;
            active
                .connection
                .prepare_cached("DELETE FROM span_text WHERE rowid = ?1")?
                .execute([row])?;
            changes.add(project, &old.span, -1);
            active.segment.stat.spans -= 1;
            return Ok(());
        }
        // A span that began after the segment was opened cannot be in an older one.
        if span.start_us >= active.segment.stat.opened_us {
            return Ok(());
        }
        if let Some(old) = self.find_older(active.segment.number, span) {
            let sql = "INSERT INTO replaces (project, trace, span) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING";
            let id = (
                project,
                span.trace_id.0.as_slice(),
                span.span_id.0.as_slice(),
            );
            active.connection.prepare_cached(sql)?.execute(id)?;
            changes.add(project, &old.span, -1);
            active.segment.stat.replaced += 1;
            active.segment.stat.saw_span(old.span.start_us);
        }
        Ok(())
    }

    fn find_older(&self, below: u32, span: &Span) -> Option<StoredSpan> {
        let around = (Some(span.start_us), Some(span.start_us.saturating_add(1)));
        let mut older = self.catalog.all();
        older.retain(|segment| segment.number < below && segment.stat.covers(around.0, around.1));
        older.iter().rev().find_map(|segment| {
            // A segment that cannot be read now cannot be shown either; the new row stands alone.
            self.pool
                .with(segment, |connection| {
                    let Some(project) = rows::project_number(connection, span.project)? else {
                        return Ok(None);
                    };
                    rows::find_span(
                        connection,
                        project,
                        span.project,
                        span.trace_id,
                        span.span_id,
                    )
                })
                .ok()
                .flatten()
                .map(|(_, stored)| stored)
        })
    }

    fn project(
        &self,
        active: &mut Active,
        project: ProjectId,
    ) -> rusqlite::Result<(i64, ProjectKey)> {
        if let Some((number, key)) = active.projects.get(&project) {
            return Ok((*number, key.clone()));
        }
        let sql = "INSERT INTO projects (project) VALUES (?1) ON CONFLICT DO NOTHING";
        active
            .connection
            .prepare_cached(sql)?
            .execute([project.to_string()])?;
        let number = rows::project_number(&active.connection, project)?
            .ok_or(rusqlite::Error::QueryReturnedNoRows)?;
        let key = self.key.project(project);
        active.projects.insert(project, (number, key.clone()));
        Ok((number, key))
    }
}

fn read_stat(path: &Path) -> Result<Option<Stat>, OpenError> {
    let read = || -> Result<Option<Stat>, SegmentError> {
        if std::fs::metadata(path).is_ok_and(|file| file.len() == 0) && !segments::has_wal(path) {
            return Ok(None);
        }
        let connection = schema::open_repairing(path)?;
        if schema::version(&connection)? == 0 {
            Ok(None)
        } else {
            Ok(Stat::read(&connection)?)
        }
    };
    read().map_err(|error| segments::open_error(path, error))
}

/// Stores the bodies that this segment does not hold yet; gives all addresses.
fn store_bodies(
    connection: &Connection,
    project: i64,
    key: &ProjectKey,
    list: &[Value],
    cut: &mut bool,
) -> rusqlite::Result<Vec<u8>> {
    let mut known =
        connection.prepare_cached("SELECT 1 FROM contents WHERE project = ?1 AND hash = ?2")?;
    let mut insert = connection.prepare_cached(
        "INSERT INTO contents (project, hash, codec, size, body) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?;
    let mut refs = Vec::with_capacity(16 * list.len());
    for value in list {
        let (prepared, was_cut) = bodies::prepare(key, value);
        *cut |= was_cut;
        if !known.exists((project, prepared.hash.as_slice()))? {
            let (codec, body) = bodies::encode(&prepared.json);
            let size = i64::try_from(prepared.json.len()).unwrap_or(i64::MAX);
            insert.execute((project, prepared.hash.as_slice(), codec, size, body))?;
        }
        refs.extend_from_slice(&prepared.hash);
    }
    Ok(refs)
}

fn index_text(
    connection: &Connection,
    row: i64,
    input: &[Value],
    output: &[Value],
) -> rusqlite::Result<()> {
    let mut text = String::new();
    output
        .iter()
        .chain(input)
        .for_each(|message| text::collect_text(message, &mut text));
    let words = text::index_words(&text);
    if words.trim().is_empty() {
        return Ok(());
    }
    connection
        .prepare_cached("INSERT INTO span_text (rowid, body) VALUES (?1, ?2)")?
        .execute((row, words))
        .map(drop)
}
