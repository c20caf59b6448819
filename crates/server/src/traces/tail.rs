//! `GET /api/v1/traces/tail`: server-sent events as spans and scores are stored.
//!
//! The stream is pulled by the client: one that is too slow makes telemetry
//! drop events for it, which it is told (`lagged`). The caller's role is looked
//! up again every few seconds, so a key that is revoked or a person who is
//! signed out hears no more.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::request::Parts;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use telemetry::{Filter, Scope, Tail, TailEvent};
use tokio::sync::watch;
use tokio::time::Interval;

use super::ask::AskText;
use super::json::{ScoreJson, SpanJson};
use crate::app::App;
use crate::auth::{Identity, Permission, identify};
use crate::error::Result;
use crate::extract::Query;

/// How often the role is looked up; a comment goes out with it, so that a client
/// that is gone is noticed.
const CHECK_EVERY: Duration = Duration::from_secs(3);

/// What the tail takes.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct TailParams {
    /// A filter; scores come whatever it says.
    filter: Option<String>,
    /// `roots` (the default) or `spans`.
    scope: Option<String>,
}

pub(super) async fn tail(
    State(app): State<App>,
    identity: Identity,
    Query(params): Query<TailParams>,
    head: Parts,
) -> Result<Response> {
    let text = AskText {
        filter: params.filter,
        scope: params.scope,
        ..AskText::default()
    };
    let ask = text.parse(app.clock.now_us())?;
    let follower = Follower::new(app, identity, head, ask.filter, ask.scope);
    let events = futures_util::stream::unfold(follower, |mut follower| async move {
        let bytes = follower.next().await?;
        Some((Ok::<_, std::convert::Infallible>(bytes), follower))
    });
    let mut response = Body::from_stream(events).into_response();
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
    scope: Scope,
    tail: Tail,
    checks: Interval,
    stopping: watch::Receiver<bool>,
    stage: Stage,
}

/// Where the stream is.
#[derive(PartialEq)]
enum Stage {
    Opening,
    Open,
    Ended,
}

impl Follower {
    fn new(app: App, identity: Identity, head: Parts, filter: Filter, scope: Scope) -> Self {
        let tail = app.telemetry.subscribe(identity.project.id, filter);
        let mut checks =
            tokio::time::interval_at(tokio::time::Instant::now() + CHECK_EVERY, CHECK_EVERY);
        checks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let stopping = app.stopping.subscribe();
        Self {
            app,
            identity,
            head,
            scope,
            tail,
            checks,
            stopping,
            stage: Stage::Opening,
        }
    }

    /// The next piece of the stream; `None` ends it.
    async fn next(&mut self) -> Option<Bytes> {
        match self.stage {
            Stage::Ended => return None,
            Stage::Opening => {
                // The client learns at once that it is following, before anything happens.
                self.stage = Stage::Open;
                return Some(Bytes::from_static(b"retry: 2000\n: following\n\n"));
            }
            Stage::Open => {}
        }
        loop {
            tokio::select! {
                event = self.tail.next() => match event {
                    Some(event) => if let Some(bytes) = self.frame(&event) { return Some(bytes) },
                    None => return Some(self.end("the server stops")),
                },
                // Otherwise an open page would hold the server's end for the whole drain time.
                _ = self.stopping.changed() => return Some(self.end("the server stops")),
                _ = self.checks.tick() => return Some(match self.still_allowed().await {
                    true => Bytes::from_static(b": ok\n\n"),
                    false => self.end("you may not follow these traces any more"),
                }),
            }
        }
    }

    fn frame(&self, event: &TailEvent) -> Option<Bytes> {
        match event {
            TailEvent::Span(stored)
                if self.scope == Scope::Roots && stored.span.parent.is_some() =>
            {
                None
            }
            TailEvent::Span(stored) => Some(frame("trace", &SpanJson::of(stored))),
            TailEvent::Score(score) => Some(frame("score", &ScoreJson::of(score))),
            TailEvent::Lagged(missed) => {
                Some(frame("lagged", &serde_json::json!({"missed": missed})))
            }
        }
    }

    /// Whether the same credential still opens the same project.
    async fn still_allowed(&self) -> bool {
        match identify(&self.app, &mut self.head.clone()).await {
            Ok(now) => {
                now.project.id == self.identity.project.id
                    && now.role.allows(Permission::ReadTraces)
            }
            Err(_) => false,
        }
    }

    fn end(&mut self, reason: &str) -> Bytes {
        self.stage = Stage::Ended;
        frame("end", &serde_json::json!({"reason": reason}))
    }
}

fn frame(event: &str, data: &impl Serialize) -> Bytes {
    let json = serde_json::to_string(data).unwrap_or_default();
    Bytes::from(format!("event: {event}\ndata: {json}\n\n"))
}
