//! Durable segments of spans, bodies and scores; one filter language; live tail.
//!
//! | file | owns |
//! |---|---|
//! | `span.rs` | what is stored: spans, scores, batches |
//! | `limits.rs` | sizes beyond which things are cut |
//! | `filter/` | the filter language: fields, parser, SQL, in-memory answer |
//! | `query.rs` | questions and answers of readers |
//!
//! Nothing here is async except waiting: writes are acknowledged through
//! [`Ack`], a future, and [`Tail`] is awaited. Queries block; call them from a
//! thread that may.

use std::path::Path;
use std::sync::Arc;

use base::{Clock, ProjectId, SpanId, TraceId};

pub mod filter;
pub mod limits;
mod options;
mod query;
mod span;
mod tail;
mod writer;

pub use filter::{Field, FieldType, Filter, FilterError, Literal, Op};
pub use options::{OpenError, Options};
pub use query::{
    Aggregate, AggregateQuery, AggregateRow, Bodies, Body, BodyContent, Facet, FacetQuery, ListQuery, Measure, Order,
    Page, QueryError, Scope, Trace, TraceRow,
};
pub use span::{Batch, BodyCounts, Kind, PromptRef, Score, Source, Span, Status, StoredSpan};
pub use tail::{Tail, TailEvent};
pub use writer::{Ack, Counters, Full, Health, Slot, WriteError};

/// The telemetry of one data directory: one writer, any number of readers.
/// Cheap to clone.
#[derive(Debug, Clone)]
pub struct Telemetry {}

/// Read-only use of a data directory, also while a server writes to it.
#[derive(Debug)]
pub struct Reader {}

impl Telemetry {
    /// Opens the directory for writing, repairs what a crash left behind and
    /// starts the writer thread.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(dir: &Path, options: Options, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        let _ = (dir, options, clock);
        unimplemented!()
    }

    /// Opens the directory for reading only.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open_reader(dir: &Path) -> Result<Reader, OpenError> {
        let _ = dir;
        unimplemented!()
    }

    /// Takes a place in the write queue before the work begins, so that a call
    /// is refused at its start and never served unrecorded.
    ///
    /// # Errors
    /// The queue is full, or telemetry is not ready. Counted in [`Counters`].
    pub fn reserve(&self) -> Result<Slot, Full> {
        unimplemented!()
    }

    /// Writes without a reservation.
    ///
    /// # Errors
    /// As [`Telemetry::reserve`].
    pub fn append(&self, batch: Batch) -> Result<Ack, Full> {
        let _ = batch;
        unimplemented!()
    }

    /// Whether writes can be acknowledged now.
    pub fn health(&self) -> Health {
        unimplemented!()
    }

    /// Totals since start.
    pub fn counters(&self) -> Counters {
        unimplemented!()
    }

    /// Follows what is committed from now on.
    pub fn subscribe(&self, project: ProjectId, filter: Filter) -> Tail {
        let _ = (project, filter);
        unimplemented!()
    }

    /// Refuses new writes, writes what is queued, seals nothing, stops the
    /// writer thread. Blocks until done.
    pub fn shutdown(&self) {
        unimplemented!()
    }

    /// Removes sealed segments whose newest span and score are older than this.
    /// Returns how many went.
    ///
    /// # Errors
    /// A file could not be removed.
    pub fn drop_older_than(&self, before_us: i64) -> Result<usize, QueryError> {
        let _ = before_us;
        unimplemented!()
    }

    /// The reading side.
    pub fn reader(&self) -> &Reader {
        unimplemented!()
    }
}

impl std::ops::Deref for Telemetry {
    type Target = Reader;

    fn deref(&self) -> &Reader {
        self.reader()
    }
}

impl Reader {
    /// A page of spans, newest first. Blocks.
    ///
    /// # Errors
    /// See [`QueryError`]; so for all queries.
    pub fn list(&self, query: &ListQuery) -> Result<Page<TraceRow>, QueryError> {
        let _ = query;
        unimplemented!()
    }

    /// A trace by id, whenever it was. Blocks.
    ///
    /// # Errors
    /// See [`QueryError`].
    pub fn trace(&self, project: ProjectId, trace_id: TraceId) -> Result<Option<Trace>, QueryError> {
        let _ = (project, trace_id);
        unimplemented!()
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
        let _ = (project, trace_id, span_id, limit_bytes);
        unimplemented!()
    }

    /// Numbers over time and by fields. Blocks.
    ///
    /// # Errors
    /// See [`QueryError`].
    pub fn aggregate(&self, query: &AggregateQuery) -> Result<Aggregate, QueryError> {
        let _ = query;
        unimplemented!()
    }

    /// How often each value of some fields occurs. Blocks.
    ///
    /// # Errors
    /// See [`QueryError`].
    pub fn facets(&self, query: &FacetQuery) -> Result<Vec<Facet>, QueryError> {
        let _ = query;
        unimplemented!()
    }
}
