//! An answer that streams and may have to be made again: it is read to its end, goes through the
//! guards as a whole answer does, and is said then.
//!
//! A rule that asks for a rewrite lets nothing out before the end, so this costs the time to the
//! first word and changes nothing else. Comments say that the call lives, while the model speaks
//! and while it is asked again.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use serde_json::{Map, Value, json};
use tokio::time::{Instant, Sleep, sleep_until};

use super::Watch;
use super::stream::{ENVELOPE, SIGN_OF_LIFE, checking, data_of, done};
use crate::failure::Failure;
use crate::meter::Meter;
use crate::providers::Piece;
use crate::record::Record;
use crate::relay::Source;

/// Characters of one chunk: the whole text is there.
const CHUNK_CHARS: usize = 400;

/// A source that is heard to its end before it is handed on.
pub(crate) struct Entire {
    state: State,
    /// What every chunk says beside its choices.
    envelope: Map<String, Value>,
    usage: Option<Value>,
    ready: VecDeque<Piece>,
    spoke_at: Instant,
}

enum State {
    Hearing(Box<Hearing>),
    Checking {
        work: Pin<Box<dyn Future<Output = Checked> + Send>>,
        /// While somebody else is asked, nothing else wakes us.
        alive: Pin<Box<Sleep>>,
    },
    /// Everything that is still to be said is ready.
    Over,
}

struct Hearing {
    inner: Source,
    held: VecDeque<Piece>,
    watch: Watch,
    /// The call, as a second one would repeat it.
    asked: Record,
}

/// An answer that passed: as it is recorded, and as it is sent.
struct Checked {
    shown: Value,
    sent: Value,
}

impl Entire {
    pub(crate) fn new(inner: Source, held: VecDeque<Piece>, watch: Watch, asked: Record) -> Self {
        Self {
            state: State::Hearing(Box::new(Hearing {
                inner,
                held,
                watch,
                asked,
            })),
            envelope: Map::new(),
            usage: None,
            ready: VecDeque::new(),
            spoke_at: Instant::now(),
        }
    }

    pub(crate) fn poll_piece(
        &mut self,
        cx: &mut Context<'_>,
        meter: &mut Meter,
    ) -> Poll<Option<Result<Piece, Failure>>> {
        loop {
            if let Some(piece) = self.ready.pop_front() {
                self.spoke_at = Instant::now();
                return Poll::Ready(Some(Ok(piece)));
            }
            match &mut self.state {
                State::Over => return Poll::Ready(None),
                State::Hearing(hearing) => {
                    let polled = match hearing.held.pop_front() {
                        Some(piece) => Poll::Ready(Some(Ok(piece))),
                        None => hearing.inner.poll_unmetered(cx, meter),
                    };
                    match polled {
                        Poll::Pending => return Poll::Pending,
                        Poll::Ready(Some(Err(failure))) => return Poll::Ready(Some(Err(failure))),
                        Poll::Ready(Some(Ok(piece))) => self.heard(&piece, meter)?,
                        // A source ends with a piece that says so, or with a failure.
                        Poll::Ready(None) => self.state = State::Over,
                    }
                }
                State::Checking { work, alive } => {
                    if let Poll::Ready(checked) = work.as_mut().poll(cx) {
                        meter.show_completion(&checked.shown);
                        self.state = State::Over;
                        self.say(&checked.sent);
                        continue;
                    }
                    if alive.as_mut().poll(cx).is_pending() {
                        return Poll::Pending;
                    }
                    alive.as_mut().reset(Instant::now() + SIGN_OF_LIFE);
                    self.ready.push_back(checking());
                }
            }
        }
    }

    fn heard(&mut self, piece: &Piece, meter: &Meter) -> Result<(), Failure> {
        for data in data_of(&piece.bytes) {
            let Ok(mut chunk) = serde_json::from_slice::<Value>(&data) else {
                continue;
            };
            for name in ENVELOPE {
                if let Some(value) = chunk.get_mut(name) {
                    self.envelope.insert((*name).to_owned(), value.take());
                }
            }
            if let Some(usage) = chunk.get_mut("usage").filter(|usage| !usage.is_null()) {
                self.usage = Some(usage.take());
            }
        }
        if piece.last {
            return self.check(meter);
        }
        if self.spoke_at.elapsed() >= SIGN_OF_LIFE {
            self.ready.push_back(checking());
        }
        Ok(())
    }

    /// The model has said everything.
    fn check(&mut self, meter: &Meter) -> Result<(), Failure> {
        let State::Hearing(hearing) = std::mem::replace(&mut self.state, State::Over) else {
            return Ok(());
        };
        let Hearing {
            mut watch, asked, ..
        } = *hearing;
        if meter.is_cut() {
            let name = asked.provider.clone().unwrap_or_default();
            let what = "sent a larger answer than guards can read";
            return Err(Failure::garbage(&name, what));
        }
        let mut sent = json!({"choices": meter.made_choices()});
        let work = Box::pin(async move {
            watch.answer(&mut sent, &asked).await;
            let shown = sent.clone();
            watch.restore(&mut sent);
            Checked { shown, sent }
        });
        let alive = Box::pin(sleep_until(self.spoke_at + SIGN_OF_LIFE));
        self.state = State::Checking { work, alive };
        Ok(())
    }

    /// A whole answer, as a stream says it.
    fn say(&mut self, answer: &Value) {
        for choice in answer["choices"].as_array().into_iter().flatten() {
            let index = &choice["index"];
            for delta in deltas(&choice["message"]) {
                self.chunk(index, delta, &Value::Null);
            }
            self.chunk(index, json!({}), &choice["finish_reason"]);
        }
        if let Some(usage) = self.usage.take() {
            let mut chunk = self.envelope.clone();
            chunk.insert("choices".to_owned(), json!([]));
            chunk.insert("usage".to_owned(), usage);
            self.event(&Value::Object(chunk), false);
        }
        self.ready.push_back(done());
    }

    fn chunk(&mut self, index: &Value, delta: Value, finish: &Value) {
        let mut chunk = self.envelope.clone();
        let choices = json!([{"index": index, "delta": delta, "finish_reason": finish}]);
        chunk.insert("choices".to_owned(), choices);
        self.event(&Value::Object(chunk), true);
    }

    fn event(&mut self, chunk: &Value, real: bool) {
        self.ready.push_back(Piece {
            bytes: Bytes::from(format!("data: {chunk}\n\n")),
            real,
            last: false,
        });
    }
}

/// What the chunks of a message say, one after the other.
fn deltas(message: &Value) -> Vec<Value> {
    let mut deltas = vec![json!({"role": "assistant"})];
    for name in ["reasoning_content", "reasoning", "content", "refusal"] {
        let text = message[name].as_str().unwrap_or_default();
        let chars: Vec<char> = text.chars().collect();
        let pieces = chars.chunks(CHUNK_CHARS);
        deltas.extend(pieces.map(|piece| json!({name: piece.iter().collect::<String>()})));
    }
    let calls = message["tool_calls"].as_array().into_iter().flatten();
    deltas.extend(calls.enumerate().map(|(at, call)| {
        let mut call = call.clone();
        call["index"] = at.into();
        json!({"tool_calls": [call]})
    }));
    if message["function_call"].is_object() {
        deltas.push(json!({"function_call": message["function_call"]}));
    }
    deltas
}
