//! The one writer thread: bounded queue, group commit, acknowledgement.
//!
//! Callers put batches into a queue that is bounded in rows and bytes; one
//! thread takes what has gathered, writes it in ONE transaction and answers
//! every waiter after COMMIT has returned. When storage fails, the waiters of
//! that group are told so, the handle is given up, and writing goes on in a
//! fresh segment; while that fails too, telemetry is not ready and refuses.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::sync::{broadcast, oneshot};

use crate::clean;
use crate::options::Options;
use crate::span::Batch;
use crate::store::Store;
use crate::tail::Committed;

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
pub struct Slot {
    queue: Arc<Queue>,
}

impl Slot {
    /// Queues the batch. It is never refused; the ack says when it is durable.
    pub fn write(self, batch: Batch) -> Ack {
        let (item, ack) = Item::new(batch);
        self.queue.push(&mut self.queue.lock(), item);
        ack
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.queue.lock().counters.reserved -= 1;
    }
}

/// Resolves when the write is durable (committed and synced) or has failed.
/// Dropping it does not cancel the write.
#[derive(Debug)]
#[must_use = "only the ack says that the write is durable"]
pub struct Ack {
    receiver: oneshot::Receiver<Result<(), WriteError>>,
}

impl Ack {
    /// Blocks until the write is durable. Not for async code: await the ack there.
    ///
    /// # Errors
    /// The write was not stored.
    pub fn wait(self) -> Result<(), WriteError> {
        self.receiver
            .blocking_recv()
            .unwrap_or(Err(WriteError::Closed))
    }
}

impl Future for Ack {
    type Output = Result<(), WriteError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        // A writer that is gone without an answer has not written.
        Pin::new(&mut self.receiver)
            .poll(context)
            .map(|answer| answer.unwrap_or(Err(WriteError::Closed)))
    }
}

#[derive(Debug)]
struct Item {
    batch: Batch,
    ack: oneshot::Sender<Result<(), WriteError>>,
    rows: usize,
    bytes: usize,
}

impl Item {
    fn new(batch: Batch) -> (Self, Ack) {
        let (sender, receiver) = oneshot::channel();
        let rows = batch.spans.len() + batch.scores.len();
        let bytes = batch.spans.iter().map(clean::weight).sum::<usize>() + batch.scores.len() * 256;
        (
            Self {
                batch,
                ack: sender,
                rows,
                bytes,
            },
            Ack { receiver },
        )
    }
}

#[derive(Debug)]
struct State {
    items: VecDeque<Item>,
    counters: Counters,
    health: Health,
    closed: bool,
}

/// What callers and the writer thread share.
#[derive(Debug)]
pub(crate) struct Queue {
    state: Mutex<State>,
    arrived: Condvar,
    options: Options,
}

impl Queue {
    pub(crate) fn new(options: Options) -> Self {
        let (items, counters) = (VecDeque::new(), Counters::default());
        let state = State {
            items,
            counters,
            health: Health::Ready,
            closed: false,
        };
        Self {
            state: Mutex::new(state),
            arrived: Condvar::new(),
            options,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is counters and a list; a panic elsewhere leaves them usable.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn reserve(self: &Arc<Self>) -> Result<Slot, Full> {
        let mut state = self.lock();
        self.admit(&mut state, 1)?;
        state.counters.reserved += 1;
        Ok(Slot {
            queue: Arc::clone(self),
        })
    }

    pub(crate) fn append(&self, batch: Batch) -> Result<Ack, Full> {
        let (item, ack) = Item::new(batch);
        let mut state = self.lock();
        self.admit(&mut state, item.rows)?;
        self.push(&mut state, item);
        Ok(ack)
    }

    fn admit(&self, state: &mut State, rows: usize) -> Result<(), Full> {
        let counters = state.counters;
        let waiting = counters.queued_rows + counters.reserved;
        // A batch larger than the whole queue is taken when nothing else waits; else it never could be.
        let full = counters.queued_bytes >= self.options.queue_bytes
            || (waiting > 0 && waiting + rows > self.options.queue_rows);
        let refused = match &state.health {
            _ if state.closed => Some(Full::Closed),
            Health::NotReady { reason, .. } => Some(Full::NotReady {
                reason: reason.clone(),
            }),
            Health::Ready if full => Some(Full::Queue {
                rows: waiting,
                bytes: counters.queued_bytes,
            }),
            Health::Ready => None,
        };
        match refused {
            None => Ok(()),
            Some(reason) => {
                state.counters.refused += 1;
                Err(reason)
            }
        }
    }

    fn push(&self, state: &mut State, item: Item) {
        if state.closed {
            // The receiver may be gone already; nobody is left to tell then.
            let _ = item.ack.send(Err(WriteError::Closed));
            return;
        }
        state.counters.accepted += item.rows as u64;
        state.counters.queued_rows += item.rows;
        state.counters.queued_bytes += item.bytes;
        state.items.push_back(item);
        self.arrived.notify_one();
    }

    pub(crate) fn health(&self) -> Health {
        self.lock().health.clone()
    }

    pub(crate) fn counters(&self) -> Counters {
        self.lock().counters
    }

    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.arrived.notify_all();
    }

    /// The next group, after it had its time to gather. `Some(empty)` after a
    /// second without work, `None` when closed and drained.
    fn next_group(&self) -> Option<Vec<Item>> {
        const IDLE: Duration = Duration::from_secs(1);
        let nothing = |state: &mut State| state.items.is_empty() && !state.closed;
        let waited = self.arrived.wait_timeout_while(self.lock(), IDLE, nothing);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if state.items.is_empty() {
            return (!state.closed).then(Vec::new);
        }
        if !self.options.group_window.is_zero() {
            let small = |state: &mut State| !self.is_group(state) && !state.closed;
            let waited = self
                .arrived
                .wait_timeout_while(state, self.options.group_window, small);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        let (mut group, mut rows, mut bytes) = (Vec::new(), 0, 0);
        while rows < self.options.group_rows && bytes < self.options.group_bytes {
            let Some(item) = state.items.pop_front() else {
                break;
            };
            rows += item.rows;
            bytes += item.bytes;
            group.push(item);
        }
        state.counters.queued_rows -= rows;
        state.counters.queued_bytes -= bytes;
        Some(group)
    }

    fn is_group(&self, state: &State) -> bool {
        let counters = state.counters;
        counters.queued_rows >= self.options.group_rows
            || counters.queued_bytes >= self.options.group_bytes
    }
}

/// Answers everybody when the thread ends, also by a panic: nobody may wait for
/// a writer that is gone.
struct Ending<'a>(&'a Queue);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.closed = true;
        // Dropping an item answers its ack with `Closed`.
        state.items.clear();
        (state.counters.queued_rows, state.counters.queued_bytes) = (0, 0);
    }
}

/// Runs the writer until the queue is closed and drained.
pub(crate) fn run(queue: &Queue, mut store: Store, tail: &broadcast::Sender<Committed>) {
    let _ending = Ending(queue);
    let mut checked = Instant::now();
    while let Some(group) = queue.next_group() {
        if group.is_empty() || checked.elapsed() > Duration::from_secs(1) {
            store.maintain();
            queue.lock().health = store.health();
            checked = Instant::now();
        }
        if !group.is_empty() {
            commit(queue, &mut store, tail, group);
        }
    }
    store.close();
}

fn commit(queue: &Queue, store: &mut Store, tail: &broadcast::Sender<Committed>, group: Vec<Item>) {
    let rows: usize = group.iter().map(|item| item.rows).sum();
    let (batches, acks): (Vec<_>, Vec<_>) =
        group.into_iter().map(|item| (item.batch, item.ack)).unzip();
    let result = store.write(batches);
    {
        let mut state = queue.lock();
        state.health = store.health();
        match &result {
            Ok(_) => {
                state.counters.written += rows as u64;
                state.counters.commits += 1;
            }
            Err(_) => state.counters.failed += rows as u64,
        }
    }
    let answer = result
        .as_ref()
        .map(|_| ())
        .map_err(|reason| WriteError::Storage {
            reason: reason.clone(),
        });
    // Followers first: who saw the acknowledgement can rely on the event being there.
    if tail.receiver_count() > 0 {
        for event in result.unwrap_or_default() {
            // Sending fails only when the last follower has just left.
            let _ = tail.send(event);
        }
    }
    for ack in acks {
        // A caller that no longer waits is fine: the row is durable all the same.
        let _ = ack.send(answer.clone());
    }
}
