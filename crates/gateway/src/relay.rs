//! A stream that has begun: pieces out, the clock in view, one settlement at the end.
//!
//! From here on the client sees a real end or a real error. A body that is dropped
//! drops the upstream connection with it, and its settler settles the record.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::failure::{Failure, Wait};
use crate::guards::{Entire, Guarded};
use crate::meter::Meter;
use crate::plan::Timeouts;
use crate::providers::local::LocalSource;
use crate::providers::{HttpSource, Piece};
use crate::record::CallStatus;
use crate::settle::{Settled, Settler};

/// The upstream side of a stream.
pub(crate) enum Source {
    Http(Box<HttpSource>),
    Local(Box<LocalSource>),
    Guarded(Box<Guarded>),
    Entire(Box<Entire>),
}

impl Source {
    fn poll_piece(
        &mut self,
        cx: &mut Context<'_>,
        meter: &mut Meter,
    ) -> Poll<Option<Result<Piece, Failure>>> {
        let polled = self.poll_unmetered(cx, meter);
        if let Poll::Ready(Some(Ok(piece))) = &polled {
            meter.generated_chunks += u64::from(piece.real);
        }
        polled
    }

    /// The next piece, not yet counted: what stands around a source counts what it lets through.
    pub(crate) fn poll_unmetered(
        &mut self,
        cx: &mut Context<'_>,
        meter: &mut Meter,
    ) -> Poll<Option<Result<Piece, Failure>>> {
        match self {
            Self::Http(source) => source.poll_piece(cx, meter),
            Self::Local(source) => source.poll_piece(cx, meter),
            Self::Guarded(source) => source.poll_piece(cx, meter),
            Self::Entire(source) => source.poll_piece(cx, meter),
        }
    }

    pub(crate) async fn next_piece(&mut self, meter: &mut Meter) -> Option<Result<Piece, Failure>> {
        std::future::poll_fn(|cx| self.poll_piece(cx, meter)).await
    }
}

/// A stream that may be handed on: its first real token is there.
pub(crate) struct Stream {
    pub source: Source,
    pub held: VecDeque<Piece>,
    pub limits: Timeouts,
    pub deadline: Instant,
}

/// The committed stream: gives out pieces, watches the clock, settles at the end.
pub(crate) struct Relay {
    /// Gone once the stream is over in any way.
    source: Option<Source>,
    held: VecDeque<Piece>,
    settler: Settler,
    limits: Timeouts,
    total: Pin<Box<Sleep>>,
    /// Runs only while the provider is waited for: a client that reads slowly is
    /// not the provider's fault.
    idle: Option<Idle>,
    /// How it ended badly, for a caller in this process.
    failure: Option<Failure>,
}

struct Idle {
    sleep: Pin<Box<Sleep>>,
    running: bool,
}

impl Relay {
    pub(crate) fn new(stream: Stream, settler: Settler) -> Self {
        Self {
            source: Some(stream.source),
            held: stream.held,
            settler,
            limits: stream.limits,
            total: Box::pin(sleep_until(stream.deadline)),
            idle: None,
            failure: None,
        }
    }

    /// Who settles its record; it knows how the stream ended, once it has.
    pub(crate) fn settler(&self) -> &Settler {
        &self.settler
    }

    /// How it ended badly, if it did.
    pub(crate) fn failure(&self) -> Option<&Failure> {
        self.failure.as_ref()
    }

    /// Ends it now: what has not ended by itself was cancelled.
    pub(crate) fn end(&mut self) -> Settled {
        self.source = None;
        self.settler.settle_with(CallStatus::Cancelled, None, 499);
        self.settler.settled().cloned().unwrap_or_default()
    }

    fn deliver(&mut self, piece: Piece) -> Frame<Bytes> {
        if piece.real {
            self.settler.first_token();
        }
        self.settler.delivered(piece.bytes.len(), piece.real);
        if piece.last {
            // The client may hang up at `[DONE]`; the call has ended well by then.
            self.settler.settle(CallStatus::Ok, None);
        }
        Frame::data(piece.bytes)
    }

    /// The one way a committed stream ends badly: an error event and no `[DONE]`.
    fn break_off(&mut self, failure: &Failure) -> Frame<Bytes> {
        self.source = None;
        let event = failure.error.stream_event();
        self.settler.delivered(event.len(), false);
        self.settler.fail(failure);
        self.failure = Some(failure.clone());
        Frame::data(event)
    }

    fn provider(&self) -> &str {
        self.settler.provider()
    }

    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let end = |idle: Duration| Instant::now() + idle;
        let limit = self.limits.idle;
        let idle = self.idle.get_or_insert_with(|| Idle {
            sleep: Box::pin(sleep_until(end(limit))),
            running: true,
        });
        if !idle.running {
            idle.sleep.as_mut().reset(end(limit));
            idle.running = true;
        }
        idle.sleep.as_mut().poll(cx)
    }

    fn stop_idle(&mut self) {
        if let Some(idle) = &mut self.idle {
            idle.running = false;
        }
    }
}

impl Body for Relay {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = &mut *self;
        if let Some(piece) = this.held.pop_front() {
            return Poll::Ready(Some(Ok(this.deliver(piece))));
        }
        let Some(source) = &mut this.source else {
            return Poll::Ready(None);
        };
        let settled = this.settler.is_settled();
        // Also while pieces come without a pause, when nothing ever waits for the timer.
        if !settled && Instant::now() >= this.total.deadline() {
            let failure = Failure::timeout(this.provider(), Wait::Total);
            return Poll::Ready(Some(Ok(this.break_off(&failure))));
        }
        match source.poll_piece(cx, &mut this.settler.meter) {
            Poll::Ready(Some(Ok(piece))) => {
                this.stop_idle();
                Poll::Ready(Some(Ok(this.deliver(piece))))
            }
            Poll::Ready(Some(Err(failure))) if !settled => {
                Poll::Ready(Some(Ok(this.break_off(&failure))))
            }
            Poll::Ready(_) => {
                this.source = None;
                Poll::Ready(None)
            }
            Poll::Pending if settled => Poll::Pending,
            Poll::Pending => {
                let wait = match (this.total.as_mut().poll(cx), this.poll_idle(cx)) {
                    (Poll::Ready(()), _) => Wait::Total,
                    (_, Poll::Ready(())) => Wait::Idle,
                    _ => return Poll::Pending,
                };
                let failure = Failure::timeout(this.provider(), wait);
                Poll::Ready(Some(Ok(this.break_off(&failure))))
            }
        }
    }
}
