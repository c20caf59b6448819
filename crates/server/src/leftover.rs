//! What a request had still to send when its answer was made.
//!
//! A refusal often needs only the head: a wrong key, a wrong role, a length
//! above the limit. Many clients send head and body in two writes and keep the
//! connection. hyper ends a connection whose request was not read to its end,
//! without having said so in the answer, so such a client would send its next
//! call into a closed connection and see no answer to it. Here the rest of a
//! small body is read and thrown away, and an answer before a large one says
//! that the connection ends (RFC 9112, §9.3 and §9.6).

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Version, header, request::Parts};
use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

/// The most that is read for nothing, in bytes.
const MOST: u64 = 1 << 20;

/// The longest time that the answer waits for the rest.
const LONGEST: Duration = Duration::from_secs(2);

/// A request's body, which comes back when its reader lets go of it early.
struct Lent {
    body: Option<Incoming>,
    owner: Arc<Mutex<Option<Incoming>>>,
}

/// Where the body comes back to.
pub(crate) struct Leftover {
    owner: Arc<Mutex<Option<Incoming>>>,
    /// Whoever asked whether to send a body at all is told "no" by a refusal; reading would say "yes".
    is_asking: bool,
}

/// Gives a request's body to its reader.
pub(crate) fn lend(head: &Parts, body: Incoming) -> (Body, Option<Leftover>) {
    // HTTP/2 resets the one stream and keeps the connection.
    let is_kept = head.version == Version::HTTP_11 && !says(&head.headers, "close");
    if !is_kept || body.is_end_stream() {
        return (Body::new(body), None);
    }
    let owner = Arc::new(Mutex::new(None));
    let lent = Lent {
        body: Some(body),
        owner: Arc::clone(&owner),
    };
    let is_asking = head.headers.contains_key(header::EXPECT);
    (Body::new(lent), Some(Leftover { owner, is_asking }))
}

impl Leftover {
    /// Reads the rest, or says in the answer that the connection ends.
    pub(crate) async fn settle(self, answer: &mut HeaderMap) {
        let rest = self
            .owner
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some(rest) = rest else {
            return;
        };
        let is_read = !self.is_asking
            && matches!(tokio::time::timeout(LONGEST, discard(rest)).await, Ok(true));
        if !is_read {
            answer.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
    }
}

/// Reads a body to its end; false when it is too long or broke.
async fn discard(mut body: Incoming) -> bool {
    let mut read = 0;
    loop {
        if read + body.size_hint().lower() > MOST {
            return false;
        }
        match body.frame().await {
            None => return true,
            Some(Err(_)) => return false,
            Some(Ok(frame)) => read += frame.data_ref().map_or(0, |data| data.len() as u64),
        }
    }
}

fn says(headers: &HeaderMap, word: &str) -> bool {
    headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|option| option.trim().eq_ignore_ascii_case(word))
}

impl http_body::Body for Lent {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut self.body {
            Some(body) => Pin::new(body).poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body
            .as_ref()
            .map_or_else(|| SizeHint::with_exact(0), Incoming::size_hint)
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(body) = self.body.take().filter(|body| !body.is_end_stream()) {
            *self.owner.lock().unwrap_or_else(PoisonError::into_inner) = Some(body);
        }
    }
}
