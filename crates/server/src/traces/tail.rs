//! `GET /api/v1/traces/tail`: server-sent events as spans and scores are stored.
//!
//! The stream is pulled by the client: one that is too slow makes telemetry
//! drop events for it, which it is told (`lagged`).

use axum::body::Bytes;
use axum::extract::State;
use axum::http::request::Parts;
use axum::response::Response;
use schemars::JsonSchema;
use serde::Deserialize;
use telemetry::{Scope, Tail, TailEvent};

use super::ask::AskText;
use super::json::{ScoreJson, SpanJson};
use crate::app::App;
use crate::auth::{Identity, Permission};
use crate::error::Result;
use crate::extract::Query;
use crate::sse::{self, Follow, Interruption, Reader};

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
    Ok(sse::follow(Follower {
        tail: app.telemetry.subscribe(identity.project.id, ask.filter),
        reader: Reader::new(app, identity, head, Permission::ReadTraces),
        scope: ask.scope,
        stage: Stage::Opening,
    }))
}

struct Follower {
    reader: Reader,
    scope: Scope,
    tail: Tail,
    stage: Stage,
}

/// Where the stream is.
#[derive(PartialEq)]
enum Stage {
    Opening,
    Open,
    Ended,
}

impl Follow for Follower {
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
            let interruption = tokio::select! {
                event = self.tail.next() => match event {
                    Some(event) => match self.frame(&event) {
                        Some(bytes) => return Some(bytes),
                        None => continue,
                    },
                    None => Interruption::Stopping,
                },
                interruption = self.reader.interrupted() => interruption,
            };
            return Some(match interruption {
                Interruption::Stopping => self.end("the server stops"),
                Interruption::CheckDue if self.reader.is_still_allowed().await => sse::NOTHING_NEW,
                Interruption::CheckDue => self.end("you may not follow these traces any more"),
            });
        }
    }
}

impl Follower {
    fn frame(&self, event: &TailEvent) -> Option<Bytes> {
        match event {
            TailEvent::Span(stored)
                if self.scope == Scope::Roots && stored.span.parent.is_some() =>
            {
                None
            }
            TailEvent::Span(stored) => Some(sse::frame("trace", &SpanJson::of(stored))),
            TailEvent::Score(score) => Some(sse::frame("score", &ScoreJson::of(score))),
            TailEvent::Lagged(missed) => {
                Some(sse::frame("lagged", &serde_json::json!({"missed": missed})))
            }
        }
    }

    fn end(&mut self, reason: &str) -> Bytes {
        self.stage = Stage::Ended;
        sse::end(reason)
    }
}
