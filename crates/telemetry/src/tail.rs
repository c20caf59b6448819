//! Live tail: what is committed, as it is committed.

use std::sync::Arc;

use crate::span::{Score, StoredSpan};

/// What a follower sees.
#[derive(Debug, Clone, PartialEq)]
pub enum TailEvent {
    /// A span that matches the filter was committed.
    Span(Arc<StoredSpan>),
    /// A score was committed, on whatever span.
    Score(Arc<Score>),
    /// The follower was too slow and missed this many events.
    Lagged(u64),
}

/// A follower of one project.
#[derive(Debug)]
pub struct Tail {}

impl Tail {
    /// The next event; `None` after shutdown. Safe to cancel.
    pub async fn next(&mut self) -> Option<TailEvent> {
        unimplemented!()
    }
}
