//! Tables of a segment, and how connections to one are opened.
//!
//! The format version is SQLite's `user_version`. A segment is created in one
//! transaction, so a crash leaves an empty file or a complete one.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

/// Format that this version writes, and the newest that it reads.
pub(crate) const VERSION: i64 = 1;

const TABLES: &str = "
CREATE TABLE stat (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    opened_us INTEGER NOT NULL,
    spans INTEGER NOT NULL DEFAULT 0,
    scores INTEGER NOT NULL DEFAULT 0,
    replaced INTEGER NOT NULL DEFAULT 0,
    min_start_us INTEGER, max_start_us INTEGER,
    max_score_us INTEGER
) STRICT;
CREATE TABLE projects (no INTEGER PRIMARY KEY, project TEXT NOT NULL UNIQUE) STRICT;
CREATE TABLE spans (
    row INTEGER PRIMARY KEY,
    project INTEGER NOT NULL, trace BLOB NOT NULL, span BLOB NOT NULL, parent BLOB, seq INTEGER NOT NULL,
    start_us INTEGER NOT NULL, end_us INTEGER NOT NULL, ingest_us INTEGER NOT NULL,
    name TEXT NOT NULL, kind TEXT NOT NULL, status TEXT NOT NULL, environment TEXT NOT NULL,
    provider TEXT, request_model TEXT, response_model TEXT,
    prompt_name TEXT, prompt_version INTEGER, prompt_digest TEXT,
    session_id TEXT, session_step INTEGER, user_ref TEXT, key_id TEXT, tags TEXT, metadata TEXT,
    tokens_in INTEGER NOT NULL, tokens_out INTEGER NOT NULL, tokens_cache_read INTEGER NOT NULL,
    tokens_cache_write INTEGER NOT NULL, tokens_reasoning INTEGER NOT NULL, tokens_estimated INTEGER NOT NULL,
    cost_nanousd INTEGER, price_version TEXT, ttft_us INTEGER,
    error_type TEXT, error_message TEXT, finish_reasons TEXT, streamed INTEGER NOT NULL,
    plan_revision TEXT, release_digest TEXT, parameters TEXT, attrs TEXT,
    input_refs BLOB NOT NULL, output_refs BLOB NOT NULL, tool_refs BLOB NOT NULL, new_from INTEGER NOT NULL,
    input_preview TEXT NOT NULL, output_preview TEXT NOT NULL, truncated TEXT
) STRICT;
CREATE UNIQUE INDEX spans_identity ON spans (project, trace, span);
CREATE INDEX spans_time ON spans (project, start_us, span, parent);
CREATE INDEX spans_session ON spans (project, session_id, start_us) WHERE session_id IS NOT NULL;
CREATE TABLE replaces (
    project INTEGER NOT NULL, trace BLOB NOT NULL, span BLOB NOT NULL,
    PRIMARY KEY (project, trace, span)
) STRICT, WITHOUT ROWID;
CREATE TABLE contents (
    project INTEGER NOT NULL, hash BLOB NOT NULL, codec INTEGER NOT NULL, size INTEGER NOT NULL, body BLOB NOT NULL
) STRICT;
CREATE UNIQUE INDEX contents_hash ON contents (project, hash);
CREATE TABLE scores (
    score_id TEXT PRIMARY KEY, project INTEGER NOT NULL, trace BLOB NOT NULL, span BLOB,
    name TEXT NOT NULL, value REAL, label TEXT, comment TEXT, source TEXT NOT NULL, author TEXT,
    at_us INTEGER NOT NULL, supersedes TEXT
) STRICT;
CREATE INDEX scores_trace ON scores (project, trace);
CREATE INDEX scores_name ON scores (project, name, at_us);
CREATE TABLE rollup_minute (
    project INTEGER NOT NULL, minute INTEGER NOT NULL, dimensions TEXT NOT NULL, data BLOB NOT NULL,
    PRIMARY KEY (project, minute, dimensions)
) STRICT, WITHOUT ROWID;
CREATE VIRTUAL TABLE span_text USING fts5 (body, content='', contentless_delete=1, tokenize='unicode61');
";

/// Why a file could not become an open segment.
#[derive(Debug)]
pub(crate) enum SegmentError {
    Newer { found: i64 },
    Sqlite(rusqlite::Error),
}

impl From<rusqlite::Error> for SegmentError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

/// Opens a segment for writing; creates the tables in a new or empty file.
pub(crate) fn open_writable(
    path: &Path,
    now_us: i64,
    page_quota: u32,
) -> Result<Connection, SegmentError> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(Duration::from_secs(2))?;
    check_version(&connection)?;
    connection.set_prepared_statement_cache_capacity(64);
    connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
    connection.execute_batch(
        "PRAGMA synchronous = FULL; PRAGMA foreign_keys = OFF; PRAGMA cache_size = -8192",
    )?;
    set_quota(&connection, page_quota)?;
    if version(&connection)? == 0 {
        connection.execute_batch(&format!(
            "BEGIN IMMEDIATE; {TABLES} INSERT INTO stat (id, opened_us) VALUES (1, {now_us}); PRAGMA user_version = {VERSION}; COMMIT"
        ))?;
    }
    Ok(connection)
}

/// Stands in for a full disk in tests.
pub(crate) fn set_quota(connection: &Connection, pages: u32) -> rusqlite::Result<()> {
    let pages = if pages == 0 { 0xffff_fffe } else { pages };
    connection.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()))
}

/// Opens an existing segment so that a crashed writer's WAL is replayed.
pub(crate) fn open_repairing(path: &Path) -> Result<Connection, SegmentError> {
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    connection.busy_timeout(Duration::from_secs(2))?;
    check_version(&connection)?;
    Ok(connection)
}

/// Opens a segment for reading; never creates, changes or repairs anything.
pub(crate) fn open_read_only(path: &Path) -> Result<Connection, SegmentError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(Duration::from_secs(2))?;
    connection.set_prepared_statement_cache_capacity(32);
    connection.execute_batch("PRAGMA cache_size = -2048")?;
    check_version(&connection)?;
    Ok(connection)
}

pub(crate) fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("PRAGMA user_version", [], |row| row.get(0))
}

fn check_version(connection: &Connection) -> Result<(), SegmentError> {
    let found = version(connection)?;
    if found > VERSION {
        Err(SegmentError::Newer { found })
    } else {
        Ok(())
    }
}
