//! The one writer thread: bounded queue, group commit, acknowledgement.

use std::pin::Pin;
use std::task::{Context, Poll};

use crate::span::Batch;

/// Why a write was not taken. Nothing was stored; say 503 and try later.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// The bounded queue is full.
    #[error("the telemetry queue is full ({rows} rows, {bytes} bytes waiting)")]
    Queue {
        /// Rows queued or reserved.
        rows: usize,
        /// Bytes queued.
        bytes: usize,
    },
    /// The storage does not take writes now.
    #[error("telemetry is not ready: {reason}")]
    NotReady {
        /// Why.
        reason: String,
    },
    /// The writer has been shut down.
    #[error("telemetry is shut down")]
    Closed,
}

/// Why a queued write was not stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// The commit failed (disk full, read-only, fsync error …).
    #[error("write telemetry: {reason}")]
    Storage {
        /// What SQLite said.
        reason: String,
    },
    /// The writer stopped before it got to it.
    #[error("telemetry is shut down")]
    Closed,
}

/// Whether writes can be acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// Yes.
    Ready,
    /// No; the writer tries again every second.
    NotReady {
        /// Why.
        reason: String,
        /// Since when, microseconds since the epoch.
        since_us: i64,
    },
}

/// Totals since start, in rows (spans and scores).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Taken into the queue.
    pub accepted: u64,
    /// Committed.
    pub written: u64,
    /// Taken, but not stored (their acks said so).
    pub failed: u64,
    /// Writes and reservations refused.
    pub refused: u64,
    /// Rows waiting now.
    pub queued_rows: usize,
    /// Bytes waiting now.
    pub queued_bytes: usize,
    /// Places reserved now.
    pub reserved: usize,
    /// Groups committed.
    pub commits: u64,
}

/// A reserved place in the write queue; given back on drop.
#[derive(Debug)]
pub struct Slot {}

impl Slot {
    /// Queues the batch. It is never refused; the ack says when it is durable.
    pub fn write(self, batch: Batch) -> Ack {
        let _ = batch;
        unimplemented!()
    }
}

/// Resolves when the write is durable (committed and synced) or has failed.
/// Dropping it does not cancel the write.
#[derive(Debug)]
#[must_use = "only the ack says that the write is durable"]
pub struct Ack {}

impl Ack {
    /// Blocks until the write is durable. Not for async code: await the ack there.
    ///
    /// # Errors
    /// The write was not stored.
    pub fn wait(self) -> Result<(), WriteError> {
        unimplemented!()
    }
}

impl Future for Ack {
    type Output = Result<(), WriteError>;

    fn poll(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<Self::Output> {
        unimplemented!()
    }
}
