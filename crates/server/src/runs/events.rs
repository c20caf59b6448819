//! The progress of a run as server-sent events.
//!
//! An event says how far the run is, never what happened in between, so a slow client
//! misses nothing that matters.

use std::future::Future;
use std::time::Duration;

use axum::body::Bytes;
use axum::response::Response;
use db::Scope;
use serde_json::Value;
use tokio::sync::watch;

use super::{News, Runs, State};
use crate::app::App;
use crate::error::Result;
use crate::sse::{self, Follow, Interruption, Reader};

/// Events are no closer than this: nobody reads faster.
const LEAST_GAP: Duration = Duration::from_millis(250);

/// A look at a run.
pub(crate) struct Seen {
    pub state: State,
    /// How far it is.
    pub progress: Value,
}

/// Follows a run to its end: `look` finds out how far it is.
pub(crate) fn follow<L, F>(runs: &'static Runs, news: &News, reader: Reader, look: L) -> Response
where
    L: Fn(App, Scope) -> F + Send + 'static,
    F: Future<Output = Result<Seen>> + Send + 'static,
{
    sse::follow(Follower {
        runs,
        news: news.subscribe(),
        reader,
        look,
        last: Value::Null,
        ended: false,
    })
}

struct Follower<L> {
    runs: &'static Runs,
    news: watch::Receiver<u64>,
    reader: Reader,
    look: L,
    last: Value,
    ended: bool,
}

impl<L, F> Follow for Follower<L>
where
    L: Fn(App, Scope) -> F + Send + 'static,
    F: Future<Output = Result<Seen>> + Send + 'static,
{
    async fn next(&mut self) -> Option<Bytes> {
        while !self.ended {
            // The first event says how far it is; the later ones wait for news.
            let mut checked = false;
            if !self.last.is_null() {
                checked = match self.wait().await {
                    Ok(checked) => checked,
                    Err(reason) => return Some(self.end(&reason)),
                };
            }
            let look = (self.look)(self.reader.app.clone(), self.reader.identity.scope());
            let Ok(seen) = look.await else {
                let reason = format!("the {} is gone", self.runs.noun);
                return Some(self.end(&reason));
            };
            if seen.progress != self.last {
                let bytes = sse::frame("progress", &seen.progress);
                self.last = seen.progress;
                if seen.state.is_final() {
                    let end = self.end(seen.state.name());
                    return Some(Bytes::from([bytes, end].concat()));
                }
                // The next one comes no sooner than somebody can read this one.
                tokio::time::sleep(LEAST_GAP).await;
                return Some(bytes);
            }
            if checked {
                return Some(sse::NOTHING_NEW);
            }
        }
        None
    }
}

impl<L> Follower<L> {
    /// Waits for news, also of other servers, which only a look at the database tells. True when
    /// the wait was cut off for that; `Err` says why nothing more is told.
    async fn wait(&mut self) -> std::result::Result<bool, String> {
        let interruption = tokio::select! {
            changed = self.news.changed() => changed.err().map(|_| Interruption::Stopping),
            interruption = self.reader.interrupted() => Some(interruption),
        };
        match interruption {
            None => Ok(false),
            Some(Interruption::Stopping) => Err("the server stops".to_owned()),
            Some(Interruption::CheckDue) if self.reader.is_still_allowed().await => Ok(true),
            Some(Interruption::CheckDue) => Err(format!(
                "you may not follow this {} any more",
                self.runs.noun
            )),
        }
    }

    fn end(&mut self, reason: &str) -> Bytes {
        self.ended = true;
        sse::end(reason)
    }
}
