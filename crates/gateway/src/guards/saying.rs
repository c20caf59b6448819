//! Both sides of a stream that guards stand in: the answer as it is heard, and what is said of it.
//!
//! Every chunk that is said is made here, with what the provider's chunks say beside their choices.
//! While text is held, comments say that the call lives, so that nobody on the way gives up.

use std::collections::VecDeque;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use crate::failure::Failure;
use crate::meter::Meter;
use crate::providers::Piece;
use crate::relay::Source;
use crate::sse::Splitter;

/// A chunk is never larger than an event that was let in.
const CHUNK_BYTES: usize = 64 << 20;
/// What every chunk of an answer repeats and no text of the model stands in.
const ENVELOPE: &[&str] = &[
    "id",
    "object",
    "created",
    "model",
    "system_fingerprint",
    "service_tier",
];

/// An answer on its way: pieces that came before it was known that there is one, then the source.
pub(super) struct Hearing {
    held: VecDeque<Piece>,
    /// Gone once it ended or nobody needs it any more.
    source: Option<Source>,
}

impl Hearing {
    pub(super) fn new(source: Source, held: VecDeque<Piece>) -> Self {
        Self {
            held,
            source: Some(source),
        }
    }

    /// The next piece; none once it ended.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        meter: &mut Meter,
    ) -> Poll<Option<Result<Piece, Failure>>> {
        if let Some(piece) = self.held.pop_front() {
            return Poll::Ready(Some(Ok(piece)));
        }
        match &mut self.source {
            Some(source) => source.poll_unmetered(cx, meter),
            None => Poll::Ready(None),
        }
    }

    /// Nothing more will be heard; the provider's call is cancelled.
    pub(super) fn stop(&mut self) {
        self.source = None;
        self.held.clear();
    }

    pub(super) fn is_over(&self) -> bool {
        self.source.is_none() && self.held.is_empty()
    }
}

/// What is said to the client.
pub(super) struct Saying {
    /// What every chunk says beside its choices.
    envelope: Map<String, Value>,
    usage: Option<Value>,
    ready: VecDeque<Piece>,
    spoke_at: Instant,
    /// Something is said at least this often.
    sign_of_life: Duration,
}

impl Saying {
    pub(super) fn new(sign_of_life: Duration) -> Self {
        Self {
            envelope: Map::new(),
            usage: None,
            ready: VecDeque::new(),
            spoke_at: Instant::now(),
            sign_of_life,
        }
    }

    /// What leaves next, if anything is ready.
    pub(super) fn next(&mut self) -> Option<Piece> {
        let piece = self.ready.pop_front()?;
        self.spoke_at = Instant::now();
        Some(piece)
    }

    /// Takes over what a chunk of the answer says beside its choices.
    pub(super) fn heed(&mut self, chunk: &mut Value) {
        for name in ENVELOPE {
            if let Some(value) = chunk.get_mut(name) {
                self.envelope.insert((*name).to_owned(), value.take());
            }
        }
        if let Some(usage) = chunk.get_mut("usage").filter(|usage| !usage.is_null()) {
            self.usage = Some(usage.take());
        }
    }

    /// A chunk of one choice.
    pub(super) fn chunk_of(&self, index: &Value, delta: Value, finish: &Value) -> Value {
        let choices = json!([{"index": index, "delta": delta, "finish_reason": finish}]);
        self.with_choices(choices)
    }

    fn with_choices(&self, choices: Value) -> Value {
        let mut chunk = self.envelope.clone();
        chunk.insert("choices".to_owned(), choices);
        Value::Object(chunk)
    }

    /// Says a chunk; `real` where it carries something that the model made.
    pub(super) fn say(&mut self, chunk: &Value, real: bool) {
        let last = false;
        let bytes = format!("data: {chunk}\n\n").into();
        self.ready.push_back(Piece { bytes, real, last });
    }

    /// The good end, with what was used before it.
    pub(super) fn say_end(&mut self) {
        if let Some(usage) = self.usage.take() {
            let mut chunk = self.with_choices(json!([]));
            chunk["usage"] = usage;
            self.say(&chunk, false);
        }
        self.ready.push_back(Piece {
            bytes: Bytes::from_static(b"data: [DONE]\n\n"),
            real: false,
            last: true,
        });
    }

    /// Text is held for long while the provider speaks: says that the call lives.
    pub(super) fn show_life(&mut self) {
        if self.ready.is_empty() && Instant::now() >= self.next_sign() {
            self.ready.push_back(Piece {
                bytes: Bytes::from_static(b": checking\n\n"),
                real: false,
                last: false,
            });
        }
    }

    /// When something must be said at the latest.
    pub(super) fn next_sign(&self) -> Instant {
        self.spoke_at + self.sign_of_life
    }
}

/// The data of events that were understood before.
pub(super) fn data_of(bytes: &[u8]) -> Vec<Bytes> {
    let mut splitter = Splitter::new(CHUNK_BYTES);
    splitter.push(bytes);
    let mut all = Vec::new();
    while let Ok(Some(event)) = splitter.next_event() {
        all.extend(event.data);
    }
    all
}
