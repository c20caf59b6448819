//! How a data directory is opened, and why it cannot be.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

/// Settings of the writer and of the readers. The default is right for a
/// server.
#[derive(Debug, Clone)]
pub struct Options {
    /// How long a group waits for company before it commits: 0 to 5 ms.
    pub group_window: Duration,
    /// Rows that close a group at once.
    pub group_rows: usize,
    /// Bytes that close a group at once.
    pub group_bytes: usize,
    /// Rows (queued or reserved) beyond which writes are refused.
    pub queue_rows: usize,
    /// Queued bytes beyond which writes are refused.
    pub queue_bytes: usize,
    /// Size at which a segment is closed before its day is over.
    pub segment_bytes: u64,
    /// Width of a segment in time; a day.
    pub segment_us: i64,
    /// Queries that run at the same time.
    pub readers: usize,
    /// Longest time for a query.
    pub query_limit: Duration,
    /// Aggregates over segments with more spans than this come from the minute
    /// rollups where those can answer; below, rows are scanned, which is exact.
    pub rollup_rows: u64,
    /// Events a live tail may be behind before it loses some.
    pub tail_events: usize,
    /// For tests: pages that a segment may have; 0 is no limit. Stands in for a full disk.
    pub page_quota: Option<Arc<AtomicU32>>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            group_window: Duration::from_millis(1),
            group_rows: 500,
            group_bytes: 256 * 1024,
            queue_rows: 20_000,
            queue_bytes: 64 * 1024 * 1024,
            segment_bytes: 1 << 30,
            segment_us: 86_400_000_000,
            readers: 4,
            query_limit: Duration::from_secs(10),
            rollup_rows: 20_000,
            tail_events: 1024,
            page_quota: None,
        }
    }
}

/// Why a data directory cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process (or another handle in this one) writes to it.
    #[error("{dir} is in use by another process; stop that server first")]
    InUse {
        /// The directory.
        dir: String,
    },
    /// It was written by a newer version of the program.
    #[error(
        "{file} has format {found}, newer than the {supported} that this version reads; use the newer program"
    )]
    NewerVersion {
        /// The segment.
        file: String,
        /// Its format.
        found: i64,
        /// The newest known here.
        supported: i64,
    },
    /// The directory or a file in it cannot be written.
    #[error("cannot write to {path}: {message}")]
    NotWritable {
        /// What was to be written.
        path: String,
        /// What the system said.
        message: String,
    },
    /// No space left.
    #[error("no space left for {path}: {message}")]
    DiskFull {
        /// What was to be written.
        path: String,
        /// What the system said.
        message: String,
    },
    /// A segment is damaged or is not a segment.
    #[error("{file} cannot be read: {message}")]
    Damaged {
        /// The segment.
        file: String,
        /// What SQLite said.
        message: String,
    },
}
