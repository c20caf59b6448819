//! Durable segments of spans, bodies and scores; one filter language; live tail.
//!
//! | file | owns |
//! |---|---|
//! | `span.rs` | what is stored: spans, scores, batches |
//! | `clean.rs`, `limits.rs` | sizes beyond which things are cut, and the cutting |
//! | `writer.rs` | the bounded queue, group commit, acknowledgements, the writer thread |
//! | `store.rs` | the active segment: one transaction per group, rolling, sealing, recovery |
//! | `segments.rs`, `schema.rs` | segment files and their tables |
//! | `rows.rs`, `bodies.rs`, `scores.rs` | rows to SQL and back; content-addressed bodies; current scores |
//! | `rollup.rs`, `histogram.rs` | minute counters with mergeable log2 histograms |
//! | `text.rs` | words for full-text search (Japanese in overlapping pairs), previews |
//! | `filter/` | the filter language: fields, parser, SQL, in-memory answer |
//! | `query.rs` | questions and answers of readers |
//! | `reader.rs`, `list.rs`, `aggregate.rs` | read-only connections; lists, traces, bodies; numbers |
//! | `scan.rs` | a few fields of every span, streamed, for figures that are made elsewhere |
//! | `judgements.rs` | scores without their spans, for setting judges beside people |
//! | `tail.rs` | live tail |
//! | `follow.rs` | spans in the order of writing, from a position that outlives restarts |
//!
//! Nothing here is async except waiting: writes are acknowledged through
//! [`Ack`], a future, and [`Tail`] is awaited. Queries block; call them from a
//! thread that may. This crate never sees a user, a role or a page.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use base::{Clock, ProjectId};
use tokio::sync::broadcast;

mod aggregate;
mod bodies;
mod clean;
pub mod filter;
mod follow;
mod histogram;
mod judgements;
pub mod limits;
mod list;
mod options;
mod query;
mod reader;
mod rollup;
mod rows;
mod scan;
mod schema;
mod scores;
mod segments;
mod span;
mod store;
mod tail;
mod text;
mod writer;

pub use filter::{Field, FieldType, Filter, FilterError, Literal, Op, UnknownField};
pub use follow::{FollowQuery, Followed};
pub use judgements::ScoreName;
pub use options::{OpenError, Options};
pub use query::{
    Aggregate, AggregateQuery, AggregateRow, Bodies, Body, BodyContent, Facet, FacetQuery,
    ListQuery, Measure, Order, Page, QueryError, Scope, Trace, TraceRow,
};
pub use reader::Reader;
pub use scan::{ScanQuery, Scanned, ScannedValue};
pub use span::{Batch, BodyCounts, Kind, PromptRef, Score, Source, Span, Status, StoredSpan};
pub use tail::{Tail, TailEvent};
pub use writer::{Ack, Counters, Full, Health, Slot, WriteError};

/// The telemetry of one data directory: one writer, any number of readers.
/// Cheap to clone; the last clone to go shuts it down.
#[derive(Debug, Clone)]
pub struct Telemetry {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    queue: Arc<writer::Queue>,
    catalog: Arc<segments::Catalog>,
    pool: Arc<reader::Pool>,
    reader: Reader,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// Cleared at shutdown, which ends every live tail.
    tail: Mutex<Option<broadcast::Sender<tail::Committed>>>,
    identity: String,
    /// Held as long as this process may write.
    _lock: std::fs::File,
}

impl Telemetry {
    /// Opens the directory for writing, repairs what a crash left behind and
    /// starts the writer thread.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(dir: &Path, options: Options, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        create_dir(dir).map_err(|error| segments::io_error(dir, &error))?;
        let lock = lock(dir)?;
        let catalog = Arc::<segments::Catalog>::default();
        let pool = Arc::new(reader::Pool::new(4 * options.readers.max(1)));
        let store = store::Store::open(
            dir,
            options.clone(),
            clock,
            Arc::clone(&catalog),
            Arc::clone(&pool),
        )?;
        let identity = store.identity();
        let reader = Reader::of_writer(Arc::clone(&catalog), Arc::clone(&pool), &options);
        let (sender, _) = broadcast::channel(options.tail_events.max(1));
        let queue = Arc::new(writer::Queue::new(options));
        let (thread_queue, thread_sender) = (Arc::clone(&queue), sender.clone());
        let thread = std::thread::Builder::new()
            .name("telemetry".to_owned())
            .spawn(move || writer::run(&thread_queue, store, &thread_sender))
            .map_err(|error| segments::io_error(dir, &error))?;
        let (thread, tail) = (Mutex::new(Some(thread)), Mutex::new(Some(sender)));
        Ok(Self {
            inner: Arc::new(Inner {
                queue,
                catalog,
                pool,
                reader,
                thread,
                tail,
                identity,
                _lock: lock,
            }),
        })
    }

    /// Opens the directory for reading only.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn open_reader(dir: &Path) -> Result<Reader, OpenError> {
        // What is in the files is looked at by each query, because a server may be adding to it.
        std::fs::read_dir(dir).map_err(|error| segments::io_error(dir, &error))?;
        Ok(Reader::of_directory(dir.to_owned(), &Options::default()))
    }

    /// Takes a place in the write queue before the work begins, so that a call
    /// is refused at its start and never served unrecorded.
    ///
    /// # Errors
    /// The queue is full, or telemetry is not ready. Counted in [`Counters`].
    pub fn reserve(&self) -> Result<Slot, Full> {
        self.inner.queue.reserve()
    }

    /// Writes without a reservation.
    ///
    /// # Errors
    /// As [`Telemetry::reserve`].
    pub fn append(&self, batch: impl Into<Batch>) -> Result<Ack, Full> {
        self.inner.queue.append(batch.into())
    }

    /// Names this directory's data: the same after a restart, and another one for the data of
    /// another directory. Positions of [`Reader::follow`] mean something with it only.
    pub fn identity(&self) -> &str {
        &self.inner.identity
    }

    /// Whether writes can be acknowledged now.
    pub fn health(&self) -> Health {
        self.inner.queue.health()
    }

    /// Totals since start.
    pub fn counters(&self) -> Counters {
        self.inner.queue.counters()
    }

    /// Follows what is committed from now on.
    pub fn subscribe(&self, project: ProjectId, filter: Filter) -> Tail {
        let sender = self
            .inner
            .tail
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let receiver = match sender.as_ref() {
            Some(sender) => sender.subscribe(),
            // After shutdown: a channel without a sender ends at once.
            None => broadcast::channel(1).1,
        };
        Tail::new(receiver, project, filter)
    }

    /// Refuses new writes, writes what is queued, stops the writer thread.
    /// Blocks until done.
    pub fn shutdown(&self) {
        self.inner.shutdown();
    }

    /// Removes sealed segments whose newest span and score are older than this,
    /// rollups included. Returns how many went.
    ///
    /// # Errors
    /// A file could not be removed.
    pub fn drop_older_than(&self, before_us: i64) -> Result<usize, QueryError> {
        let old =
            |segment: &segments::Segment| segment.sealed && segment.stat.newest_us() < before_us;
        let mut removed = 0;
        for segment in self.inner.catalog.all().into_iter().filter(old) {
            // Out of the catalog first: no query starts on it any more. Running ones keep the open file.
            self.inner.catalog.remove(segment.number);
            self.inner.pool.retire(segment.number);
            segments::remove(&segment.path).map_err(|error| QueryError::Storage {
                file: segment.path.display().to_string(),
                message: format!("remove the expired segment: {error}"),
            })?;
            removed += 1;
        }
        Ok(removed)
    }

    /// The reading side. [`Telemetry`] also dereferences to it.
    pub fn reader(&self) -> &Reader {
        &self.inner.reader
    }
}

impl std::ops::Deref for Telemetry {
    type Target = Reader;

    fn deref(&self) -> &Reader {
        self.reader()
    }
}

impl Inner {
    fn shutdown(&self) {
        self.queue.close();
        let thread = self
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the telemetry writer panicked");
        }
        self.tail
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shutdown();
    }
}

/// Makes the directory if need be, for this user's eyes only: it holds prompts.
fn create_dir(dir: &Path) -> std::io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir)
}

fn lock(dir: &Path) -> Result<std::fs::File, OpenError> {
    let path = dir.join("writer.lock");
    let file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path);
    let file = file.map_err(|error| segments::io_error(&path, &error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(OpenError::InUse {
            dir: dir.display().to_string(),
        }),
        Err(std::fs::TryLockError::Error(error)) => Err(segments::io_error(&path, &error)),
    }
}
