//! The one response body type, and the headers that every answer carries.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use base::TraceId;
use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt as _, Full};

/// The response header with the trace id.
pub const TRACE_ID_HEADER: HeaderName = HeaderName::from_static("x-meguri-trace-id");

/// An answer's bytes. It never fails: what goes wrong in a stream is said in the
/// stream, in the client's protocol. Dropping it cancels the call.
pub struct GatewayBody(Pin<Box<dyn Body<Data = Bytes, Error = Infallible> + Send>>);

impl GatewayBody {
    /// A body that is all there.
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        Self(Box::pin(Full::new(bytes.into())))
    }

    pub(crate) fn new(body: impl Body<Data = Bytes, Error = Infallible> + Send + 'static) -> Self {
        Self(Box::pin(body))
    }

    /// Reads to the end and keeps nothing.
    pub(crate) async fn drain(mut self) {
        while self.0.frame().await.is_some() {}
    }

    /// Everything, for callers in this process that do not stream.
    pub async fn collect_bytes(self) -> Bytes {
        self.0
            .collect()
            .await
            .map(http_body_util::Collected::to_bytes)
            .unwrap_or_default()
    }
}

impl std::fmt::Debug for GatewayBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("GatewayBody")
    }
}

impl Body for GatewayBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.as_mut().poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

pub(crate) fn trace_header(trace_id: TraceId) -> HeaderValue {
    // 32 hex digits are always a valid header value.
    HeaderValue::from_str(&trace_id.to_string()).unwrap_or(HeaderValue::from_static(""))
}
