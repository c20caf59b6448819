//! `GET /api/v1/evaluations/{id}/events`: progress as server-sent events.
//!
//! An event says how far the evaluation is, never what happened in between, so a slow
//! client misses nothing that matters.

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
    // Whoever asks for another project's evaluation hears 404, not silence.
    super::find(Desk::of(&app), identity.scope(), &id).await?;
    Ok(sse::follow(Follower {
        news: app.evaluations.subscribe(),
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
        if self.ended {
            return None;
        }
        loop {
            // The first event says how far it is; the later ones wait for news, also of other
            // servers, which only a look at the database tells.
            let mut checked = false;
            if !self.last.is_null() {
                let interruption = tokio::select! {
                    changed = self.news.changed() => changed.err().map(|_| Interruption::Stopping),
                    interruption = self.reader.interrupted() => Some(interruption),
                };
                match interruption {
                    None => {}
                    Some(Interruption::Stopping) => return Some(self.end("the server stops")),
                    Some(Interruption::CheckDue) => {
                        checked = true;
                        if !self.reader.is_still_allowed().await {
                            return Some(self.end("you may not follow this evaluation any more"));
                        }
                    }
                }
            }
            let (desk, scope) = (Desk::of(&self.reader.app), self.reader.identity.scope());
            let Ok(evaluation) = super::find(desk, scope, &self.id).await else {
                return Some(self.end("the evaluation is gone"));
            };
            let now = api::progress(&evaluation);
            if now != self.last {
                let bytes = sse::frame("progress", &now);
                self.last = now;
                if evaluation.state.is_final() {
                    let end = self.end(evaluation.state.name());
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
    }
}

impl Follower {
    fn end(&mut self, reason: &str) -> Bytes {
        self.ended = true;
        sse::end(reason)
    }
}
