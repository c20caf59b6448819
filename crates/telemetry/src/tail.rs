//! Live tail: what is committed, as it is committed.
//!
//! Every follower shares one bounded channel and filters for itself, so a slow
//! follower costs the writer nothing; what it missed is counted. Events carry
//! no bodies.

use std::sync::Arc;

use base::ProjectId;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use crate::filter::{Filter, Subject};
use crate::span::{Score, StoredSpan};

/// What a follower sees.
#[derive(Debug, Clone, PartialEq)]
pub enum TailEvent {
    /// A span that matches the filter was committed. Scores come later as
    /// events of their own, so a condition on a score matches only scores that
    /// were written together with the span.
    Span(Arc<StoredSpan>),
    /// A score was committed, on whatever span.
    Score(Arc<Score>),
    /// The follower was too slow and missed this many events (of all projects).
    Lagged(u64),
}

/// What the writer announces after a commit.
#[derive(Debug, Clone)]
pub(crate) enum Committed {
    Span(Arc<StoredSpan>, Arc<[Score]>),
    Score(Arc<Score>),
}

/// A follower of one project.
#[derive(Debug)]
pub struct Tail {
    receiver: broadcast::Receiver<Committed>,
    project: ProjectId,
    filter: Filter,
}

impl Tail {
    pub(crate) fn new(
        receiver: broadcast::Receiver<Committed>,
        project: ProjectId,
        filter: Filter,
    ) -> Self {
        Self {
            receiver,
            project,
            filter,
        }
    }

    /// The next event; `None` after shutdown. Safe to cancel.
    pub async fn next(&mut self) -> Option<TailEvent> {
        loop {
            match self.receiver.recv().await {
                Err(RecvError::Closed) => return None,
                Err(RecvError::Lagged(missed)) => return Some(TailEvent::Lagged(missed)),
                Ok(Committed::Score(score)) if score.project == self.project => {
                    return Some(TailEvent::Score(score));
                }
                Ok(Committed::Span(stored, scores)) if stored.span.project == self.project => {
                    if self.filter.matches(&Subject {
                        span: &stored.span,
                        scores: &scores,
                    }) {
                        return Some(TailEvent::Span(stored));
                    }
                }
                Ok(_) => {}
            }
        }
    }
}
