//! Server-sent events: their shape on the wire, and following something only for as long as
//! the caller may.
//!
//! A stream of events outlives the checks of the request that opened it. A [`Reader`] makes them
//! again every few seconds, so a key that is revoked or a person who is signed out hears no more,
//! and says when the server stops, which an open page would otherwise hold up for the whole
//! drain time.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::request::Parts;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use futures_util::Stream;
use serde::Serialize;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::{Instant, Interval, MissedTickBehavior};

use crate::app::App;
use crate::auth::{Identity, Permission, identify};

/// How often the caller's role is looked up.
const CHECK_EVERY: Duration = Duration::from_secs(3);
/// What goes out when there is no news, so that a client that is gone is noticed.
pub const NOTHING_NEW: Bytes = Bytes::from_static(b": ok\n\n");

/// One event.
pub fn frame(event: &str, data: &impl Serialize) -> Bytes {
    let json = serde_json::to_string(data).unwrap_or_default();
    Bytes::from(format!("event: {event}\ndata: {json}\n\n"))
}

/// The last event of a stream, with why it ends.
pub fn end(reason: &str) -> Bytes {
    frame("end", &json!({"reason": reason}))
}

/// A response whose body is these events.
pub fn response<E: Into<axum::BoxError> + 'static>(
    events: impl Stream<Item = Result<Bytes, E>> + Send + 'static,
) -> Response {
    let mut response = Response::new(Body::from_stream(events));
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/event-stream"),
    );
    // A proxy that buffers would hold events back.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

/// Something that is followed: asked for one event after the other, until there is none.
pub trait Follow: Send + 'static {
    /// The next piece of the stream; `None` ends it.
    fn next(&mut self) -> impl Future<Output = Option<Bytes>> + Send;
}

/// A response that follows something.
pub fn follow(follower: impl Follow) -> Response {
    response(futures_util::stream::unfold(
        follower,
        |mut follower| async move {
            let bytes = follower.next().await?;
            Some((Ok::<_, Infallible>(bytes), follower))
        },
    ))
}

/// Who reads a stream, and whether they still may.
pub struct Reader {
    /// The product.
    pub app: App,
    /// Who reads, as of the request.
    pub identity: Identity,
    head: Parts,
    permission: Permission,
    stopping: watch::Receiver<bool>,
    checks: Interval,
}

/// Why a reader's wait for news is interrupted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interruption {
    /// The server stops.
    Stopping,
    /// It is time for [`Reader::is_still_allowed`].
    CheckDue,
}

impl Reader {
    /// The caller of a request with this head, for as long as the role gives the permission.
    pub fn new(app: App, identity: Identity, head: Parts, permission: Permission) -> Self {
        let mut checks = tokio::time::interval_at(Instant::now() + CHECK_EVERY, CHECK_EVERY);
        checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            stopping: app.stopping.subscribe(),
            app,
            identity,
            head,
            permission,
            checks,
        }
    }

    /// Waits for the next interruption. Nothing is lost when this is dropped and called again.
    pub async fn interrupted(&mut self) -> Interruption {
        tokio::select! {
            _ = self.stopping.changed() => Interruption::Stopping,
            _ = self.checks.tick() => Interruption::CheckDue,
        }
    }

    /// Whether the same credential still opens the same project with the same right.
    pub async fn is_still_allowed(&self) -> bool {
        match identify(&self.app, &mut self.head.clone()).await {
            Ok(now) => {
                now.project.id == self.identity.project.id && now.role.allows(self.permission)
            }
            Err(_) => false,
        }
    }
}
