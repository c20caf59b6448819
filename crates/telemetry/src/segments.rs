//! The segment files of a directory: names, order, life cycle, recovery.
//!
//! Created → active → closed (still in WAL mode) → sealed (one self-contained
//! file) → removed by retention. Numbers only grow and tell the order; the
//! times inside decide what a query has to open, because late rows always go
//! to the active segment. Sealing needs the file to itself, so it is tried
//! again until no reader holds it.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rusqlite::{Connection, OptionalExtension as _};

use crate::options::OpenError;
use crate::schema::{self, SegmentError};

/// What is known of a segment without opening it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) number: u32,
    pub(crate) path: PathBuf,
    pub(crate) sealed: bool,
    pub(crate) stat: Stat,
}

/// The one row of a segment's `stat` table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Stat {
    pub(crate) opened_us: i64,
    pub(crate) spans: i64,
    pub(crate) scores: i64,
    pub(crate) replaced: i64,
    pub(crate) min_start_us: Option<i64>,
    pub(crate) max_start_us: Option<i64>,
    pub(crate) max_score_us: Option<i64>,
}

impl Stat {
    pub(crate) fn read(connection: &Connection) -> rusqlite::Result<Option<Self>> {
        let sql = "SELECT opened_us, spans, scores, replaced, min_start_us, max_start_us, max_score_us FROM stat";
        let found = connection.prepare(sql)?.query_row([], |row| {
            Ok(Self {
                opened_us: row.get(0)?,
                spans: row.get(1)?,
                scores: row.get(2)?,
                replaced: row.get(3)?,
                min_start_us: row.get(4)?,
                max_start_us: row.get(5)?,
                max_score_us: row.get(6)?,
            })
        });
        found.optional()
    }

    pub(crate) fn write(&self, connection: &Connection) -> rusqlite::Result<()> {
        let sql = "UPDATE stat SET spans = ?1, scores = ?2, replaced = ?3, min_start_us = ?4, max_start_us = ?5, \
             max_score_us = ?6, opened_us = ?7";
        let values = (
            self.spans,
            self.scores,
            self.replaced,
            self.min_start_us,
            self.max_start_us,
            self.max_score_us,
            self.opened_us,
        );
        connection.prepare_cached(sql)?.execute(values).map(drop)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.spans == 0 && self.scores == 0 && self.replaced == 0
    }

    pub(crate) fn saw_span(&mut self, start_us: i64) {
        self.min_start_us = Some(
            self.min_start_us
                .map_or(start_us, |known| known.min(start_us)),
        );
        self.max_start_us = Some(
            self.max_start_us
                .map_or(start_us, |known| known.max(start_us)),
        );
    }

    /// Whether a span that starts in `from..to` may be in the segment.
    pub(crate) fn covers(&self, from_us: Option<i64>, to_us: Option<i64>) -> bool {
        let (Some(min), Some(max)) = (self.min_start_us, self.max_start_us) else {
            return false;
        };
        from_us.is_none_or(|from| max >= from) && to_us.is_none_or(|to| min < to)
    }

    pub(crate) fn newest_us(&self) -> i64 {
        self.opened_us
            .max(self.max_start_us.unwrap_or(i64::MIN))
            .max(self.max_score_us.unwrap_or(i64::MIN))
    }
}

/// The segments that the writer of this process knows, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Catalog {
    segments: Mutex<Vec<Segment>>,
}

impl Catalog {
    pub(crate) fn all(&self) -> Vec<Segment> {
        self.segments
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Adds a segment or replaces what is known of it.
    pub(crate) fn put(&self, segment: Segment) {
        let mut segments = self.segments.lock().unwrap_or_else(PoisonError::into_inner);
        match segments
            .iter_mut()
            .find(|known| known.number == segment.number)
        {
            Some(known) => *known = segment,
            None => segments.push(segment),
        }
    }

    pub(crate) fn remove(&self, number: u32) {
        self.segments
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|known| known.number != number);
    }
}

pub(crate) fn segment_path(dir: &Path, number: u32) -> PathBuf {
    dir.join(format!("segment-{number:06}.db"))
}

/// Segment files by number. Anything else in the directory is not ours.
pub(crate) fn list_files(dir: &Path) -> std::io::Result<Vec<(u32, PathBuf)>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        let number = name
            .strip_prefix("segment-")
            .and_then(|rest| rest.strip_suffix(".db"));
        if let Some(number) = number.and_then(|digits| digits.parse().ok()) {
            files.push((number, path));
        }
    }
    files.sort();
    Ok(files)
}

/// Makes a created or removed file name durable.
pub(crate) fn sync_dir(dir: &Path) -> std::io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Creates a segment file and opens it for writing.
pub(crate) fn create(
    dir: &Path,
    number: u32,
    now_us: i64,
    quota: u32,
) -> Result<(Connection, Segment), OpenError> {
    let path = segment_path(dir, number);
    let connection = open_active(&path, now_us, quota)?;
    sync_dir(dir).map_err(|error| io_error(dir, &error))?;
    let stat = Stat {
        opened_us: now_us,
        ..Stat::default()
    };
    Ok((
        connection,
        Segment {
            number,
            path,
            sealed: false,
            stat,
        },
    ))
}

/// Opens the newest segment of an earlier run (possibly empty) for writing.
pub(crate) fn open_active(path: &Path, now_us: i64, quota: u32) -> Result<Connection, OpenError> {
    schema::open_writable(path, now_us, quota).map_err(|error| open_error(path, error))
}

/// Whether the file is in rollback-journal mode with nothing left beside it:
/// bytes 18 and 19 of the header say so.
pub(crate) fn is_sealed(path: &Path) -> bool {
    let mut header = [0; 20];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut header));
    read.is_ok() && header[18] == 1 && header[19] == 1 && !has_wal(path)
}

/// Whether a write-ahead log lies beside the file.
pub(crate) fn has_wal(path: &Path) -> bool {
    with_suffix(path, "-wal").exists()
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Moves the WAL into the file and leaves WAL mode. False when somebody else
/// still reads the file: try again later.
pub(crate) fn seal(path: &Path) -> Result<bool, SegmentError> {
    let connection = schema::open_repairing(path)?;
    connection.busy_timeout(std::time::Duration::from_millis(50))?;
    connection.execute_batch("PRAGMA synchronous = FULL")?;
    let busy = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| {
        row.get::<_, i64>(0)
    })?;
    if busy != 0 {
        return Ok(false);
    }
    match connection.query_row("PRAGMA journal_mode = DELETE", [], |row| {
        row.get::<_, String>(0)
    }) {
        Ok(mode) => Ok(mode == "delete"),
        Err(error) if is_busy(&error) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn is_busy(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{DatabaseBusy, DatabaseLocked};
    matches!(
        error.sqlite_error_code(),
        Some(DatabaseBusy | DatabaseLocked)
    )
}

/// Removes a segment's file and whatever lies beside it.
pub(crate) fn remove(path: &Path) -> std::io::Result<()> {
    std::fs::remove_file(path)?;
    for suffix in ["-wal", "-shm"] {
        match std::fs::remove_file(with_suffix(path, suffix)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    path.parent().map_or(Ok(()), sync_dir)
}

/// Says in the caller's words why a segment cannot be opened.
pub(crate) fn open_error(path: &Path, error: SegmentError) -> OpenError {
    use rusqlite::ErrorCode::{CannotOpen, DiskFull, PermissionDenied, ReadOnly};
    let file = path.display().to_string();
    match error {
        SegmentError::Newer { found } => OpenError::NewerVersion {
            file,
            found,
            supported: schema::VERSION,
        },
        SegmentError::Sqlite(error) => {
            let message = error.to_string();
            match error.sqlite_error_code() {
                Some(DiskFull) => OpenError::DiskFull {
                    path: file,
                    message,
                },
                Some(ReadOnly | CannotOpen | PermissionDenied) => OpenError::NotWritable {
                    path: file,
                    message,
                },
                _ => OpenError::Damaged { file, message },
            }
        }
    }
}

/// Says in the caller's words why a file operation failed.
pub(crate) fn io_error(path: &Path, error: &std::io::Error) -> OpenError {
    let (path, message) = (path.display().to_string(), error.to_string());
    match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
            OpenError::DiskFull { path, message }
        }
        _ => OpenError::NotWritable { path, message },
    }
}
