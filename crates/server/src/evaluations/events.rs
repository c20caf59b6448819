//! `GET /api/v1/evaluations/{id}/events`: progress as server-sent events.
//!
//! An event says how far the evaluation is, never what happened in between, so a slow
//! client misses nothing that matters. The caller's role is looked up again every few
//! seconds, so a key that is revoked or a person who is signed out hears no more.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Path, State as Extracted};
use axum::http::request::Parts;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, Interval, MissedTickBehavior};

use super::{Desk, api};
use crate::app::App;
use crate::auth::{Identity, Permission, identify};
use crate::error::Result;

/// How often the role is looked up, and news of other servers are looked for.
const CHECK_EVERY: Duration = Duration::from_secs(3);
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
    let mut checks = tokio::time::interval(CHECK_EVERY);
    checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let follower = Follower {
        news: app.evaluations.subscribe(),
        stopping: app.stopping.subscribe(),
        app,
        identity,
        head,
        id,
        checks,
        last: Value::Null,
        ended: false,
    };
    let stream = futures_util::stream::unfold(follower, |mut follower| async move {
        let bytes = follower.next().await?;
        Some((Ok::<_, std::convert::Infallible>(bytes), follower))
    });
    let mut response = Body::from_stream(stream).into_response();
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/event-stream"),
    );
    // A proxy that buffers would hold events back.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

struct Follower {
    app: App,
    identity: Identity,
    head: Parts,
    id: String,
    news: watch::Receiver<u64>,
    stopping: watch::Receiver<bool>,
    checks: Interval,
    last: Value,
    ended: bool,
}

impl Follower {
    /// The next piece of the stream; `None` ends it.
    async fn next(&mut self) -> Option<Bytes> {
        if self.ended {
            return None;
        }
        loop {
            let mut checked = false;
            tokio::select! {
                changed = self.news.changed(), if !self.last.is_null() => if changed.is_err() {
                    return Some(self.end("the server stops"));
                },
                _ = self.stopping.changed() => return Some(self.end("the server stops")),
                _ = self.checks.tick() => {
                    checked = true;
                    if !self.still_allowed().await {
                        return Some(self.end("you may not follow this evaluation any more"));
                    }
                }
            }
            let found = super::find(Desk::of(&self.app), self.identity.scope(), &self.id).await;
            let Ok(evaluation) = found else {
                return Some(self.end("the evaluation is gone"));
            };
            let now = api::progress(&evaluation);
            if now != self.last {
                self.last = now.clone();
                if evaluation.state.is_final() {
                    self.ended = true;
                    let end = frame("end", &json!({"reason": evaluation.state.name()}));
                    return Some(Bytes::from([frame("progress", &now), end].concat()));
                }
                // The next one comes no sooner than somebody can read this one.
                let until = Instant::now() + LEAST_GAP;
                let bytes = frame("progress", &now);
                tokio::time::sleep_until(until).await;
                return Some(bytes);
            }
            if checked {
                // So that a client that is gone is noticed.
                return Some(Bytes::from_static(b": ok\n\n"));
            }
        }
    }

    /// Whether the same credential still opens the same project.
    async fn still_allowed(&self) -> bool {
        match identify(&self.app, &mut self.head.clone()).await {
            Ok(now) => {
                now.project.id == self.identity.project.id
                    && now.role.allows(Permission::ReadEvaluations)
            }
            Err(_) => false,
        }
    }

    fn end(&mut self, reason: &str) -> Bytes {
        self.ended = true;
        frame("end", &json!({"reason": reason}))
    }
}

fn frame(event: &str, data: &Value) -> Bytes {
    Bytes::from(format!("event: {event}\ndata: {data}\n\n"))
}
