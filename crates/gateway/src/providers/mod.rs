//! The wire formats: one file per protocol, each turning a request into the
//! provider's, and its answer into OpenAI's.
//!
//! A protocol is a variant of [`Dialect`], not a trait object: there are two, and
//! the life cycle in `call.rs` is the same for both.

pub(crate) mod anthropic;
pub(crate) mod local;
pub(crate) mod openai;

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::Body as _;
use hyper::body::Incoming;
use tokio::time::Sleep;

use crate::egress::{self, EgressError};
use crate::failure::Failure;
use crate::meter::Meter;
use crate::plan::Provider;
use crate::sse::{Event, Splitter};
use std::sync::Arc;

/// Bytes for the client.
#[derive(Debug)]
pub(crate) struct Piece {
    pub bytes: Bytes,
    /// It carries something that the model made.
    pub real: bool,
    /// It ends the stream well.
    pub last: bool,
}

/// How one protocol's stream is read.
pub(crate) enum Dialect {
    OpenAi(openai::Stream),
    Anthropic(Box<anthropic::Stream>),
}

impl Dialect {
    fn event(
        &mut self,
        event: Event,
        meter: &mut Meter,
        out: &mut VecDeque<Piece>,
    ) -> Result<(), Failure> {
        match self {
            Self::OpenAi(stream) => stream.event(event, meter, out),
            Self::Anthropic(stream) => stream.event(&event, meter, out),
        }
    }

    /// Whether the connection may end here without saying so.
    fn may_end(&self, meter: &Meter) -> bool {
        match self {
            Self::OpenAi(stream) => stream.may_end(meter),
            Self::Anthropic(_) => false,
        }
    }
}

/// A provider's stream as pieces for the client. Dropping it drops the upstream
/// connection, which is how a call is cancelled.
pub(crate) struct HttpSource {
    provider: Arc<Provider>,
    body: Incoming,
    splitter: Splitter,
    dialect: Dialect,
    ready: VecDeque<Piece>,
    ended: bool,
    tail: Option<Pin<Box<Sleep>>>,
}

/// After the last event the connection's own end is waited for this long, so
/// that the connection can be used again; then it is closed.
const TAIL: Duration = Duration::from_millis(100);

impl HttpSource {
    pub(crate) fn new(
        provider: Arc<Provider>,
        body: Incoming,
        dialect: Dialect,
        event_bytes: usize,
    ) -> Self {
        let splitter = Splitter::new(event_bytes);
        Self {
            provider,
            body,
            splitter,
            dialect,
            ready: VecDeque::new(),
            ended: false,
            tail: None,
        }
    }

    pub(crate) fn poll_piece(
        &mut self,
        cx: &mut Context<'_>,
        meter: &mut Meter,
    ) -> Poll<Option<Result<Piece, Failure>>> {
        loop {
            if let Some(piece) = self.ready.pop_front() {
                self.ended |= piece.last;
                return Poll::Ready(Some(Ok(piece)));
            }
            if self.ended {
                return self.poll_tail(cx);
            }
            if let Err(failure) = self.drain_events(meter) {
                return Poll::Ready(Some(Err(failure)));
            }
            if !self.ready.is_empty() {
                continue;
            }
            match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Ok(frame))) => {
                    if let Some(data) = frame.data_ref() {
                        self.splitter.push(data);
                    }
                }
                Poll::Ready(Some(Err(error))) => {
                    let failure = Failure::egress(&self.provider.name, &egress::broken(&error));
                    return Poll::Ready(Some(Err(failure)));
                }
                Poll::Ready(None) => return Poll::Ready(self.end(meter)),
            }
        }
    }

    fn drain_events(&mut self, meter: &mut Meter) -> Result<(), Failure> {
        // One event at a time, so that what came before a bad one is still delivered.
        while self.ready.is_empty() {
            let event = self.splitter.next_event();
            let event = event.map_err(|error| {
                Failure::garbage(&self.provider.name, &format!("sent garbage: {error}"))
            })?;
            let Some(event) = event else { return Ok(()) };
            self.dialect.event(event, meter, &mut self.ready)?;
        }
        Ok(())
    }

    fn end(&mut self, meter: &Meter) -> Option<Result<Piece, Failure>> {
        let name = &self.provider.name;
        if self.splitter.finish() {
            return Some(Err(Failure::died(
                name,
                "stopped in the middle of an event",
            )));
        }
        if !self.dialect.may_end(meter) {
            return Some(Err(Failure::died(
                name,
                "ended its stream before the answer was complete",
            )));
        }
        self.ended = true;
        Some(Ok(Piece {
            bytes: Bytes::new(),
            real: false,
            last: true,
        }))
    }

    fn poll_tail(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Piece, Failure>>> {
        let tail = self
            .tail
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(TAIL)));
        loop {
            match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(_) => return Poll::Ready(None),
                Poll::Pending => return tail.as_mut().poll(cx).map(|()| None),
            }
        }
    }
}

/// Whether an egress error can be shown as it is.
pub(crate) fn unreachable_words(error: &EgressError) -> String {
    match error {
        EgressError::Refused { .. } => "its address may not be called from here".to_owned(),
        EgressError::BadTarget(_) => "its address is not a URL that can be called".to_owned(),
        EgressError::ConnectTimeout(_)
        | EgressError::HeaderTimeout(_)
        | EgressError::IdleTimeout => "it did not answer in time".to_owned(),
        _ => "it cannot be reached".to_owned(),
    }
}
