//! `GET /api/v1/improvements/{id}/events`: progress as server-sent events.
//!
//! An event says how far the search is, never what happened in between, so a slow client
//! misses nothing that matters.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{Path, State as Extracted};
use axum::http::request::Parts;
use axum::response::Response;
use serde_json::Value;
use tokio::sync::watch;

use super::{Desk, api};
use crate::app::App;
use crate::auth::{Identity, Permission};
use crate::error::Result;
use crate::sse::{self, Follow, Interruption, Reader};

/// Events are no closer than this: nobody reads faster.
const LEAST_GAP: Duration = Duration::from_millis(250);

pub(super) async fn events(
    Extracted(app): Extracted<App>,
    identity: Identity,
    Path(id): Path<String>,
    head: Parts,
) -> Result<Response> {
    // Whoever asks for another project's improvement hears 404, not silence.
    super::find(Desk::of(&app), identity.scope(), &id).await?;
    Ok(sse::follow(Follower {
        news: app.improvements.subscribe(),
        reader: Reader::new(app, identity, head, Permission::ReadEvaluations),
        id,
        last: Value::Null,
        ended: false,
    }))
}

struct Follower {
    reader: Reader,
    id: String,
    news: watch::Receiver<u64>,
    last: Value,
    ended: bool,
}

impl Follow for Follower {
    async fn next(&mut self) -> Option<Bytes> {
        while !self.ended {
            let mut checked = false;
            if !self.last.is_null() {
                checked = match self.wait().await {
                    Ok(checked) => checked,
                    Err(reason) => return Some(self.end(reason)),
                };
            }
            let (desk, scope) = (Desk::of(&self.reader.app), self.reader.identity.scope());
            let Ok(improvement) = super::find(desk, scope, &self.id).await else {
                return Some(self.end("the improvement is gone"));
            };
            let Ok(now) = api::progress(desk, &improvement).await else {
                return Some(self.end("the improvement cannot be read"));
            };
            if now != self.last {
                let bytes = sse::frame("progress", &now);
                self.last = now;
                if improvement.state.is_final() {
                    let end = self.end(improvement.state.name());
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

impl Follower {
    /// Waits for news, also of other servers, which only a look at the database tells. True when
    /// the wait was cut off for that; `Err` says why nothing more is told.
    async fn wait(&mut self) -> std::result::Result<bool, &'static str> {
        let interruption = tokio::select! {
            changed = self.news.changed() => changed.err().map(|_| Interruption::Stopping),
            interruption = self.reader.interrupted() => Some(interruption),
        };
        match interruption {
            None => Ok(false),
            Some(Interruption::Stopping) => Err("the server stops"),
            Some(Interruption::CheckDue) if self.reader.is_still_allowed().await => Ok(true),
            Some(Interruption::CheckDue) => Err("you may not follow this improvement any more"),
        }
    }

    fn end(&mut self, reason: &str) -> Bytes {
        self.ended = true;
        sse::end(reason)
    }
}
