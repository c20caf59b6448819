//! An answer that streams and may have to be made again: it is read to its end, goes through the
//! guards as a whole answer does, and is said then.
//!
//! A rule that asks for a rewrite lets nothing out before the end, so this costs the time to the
//! first word and changes nothing else. Comments say that the call lives, while the model speaks
//! and while it is asked again.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Sleep, sleep_until};

use super::Watch;
use super::saying::{Hearing, Saying, data_of};
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
    saying: Saying,
}

enum State {
    Hearing(Box<Heard>),
    Checking {
        work: Pin<Box<dyn Future<Output = Checked> + Send>>,
        /// While somebody else is asked, nothing else wakes us.
        alive: Pin<Box<Sleep>>,
    },
    /// Everything that is still to be said is ready.
    Over,
}

struct Heard {
    hearing: Hearing,
    watch: Watch,
    /// The call, as a second one would repeat it.
    asked: Record,
}

impl Heard {
    fn provider(&self) -> &str {
        self.asked.provider.as_deref().unwrap_or_default()
    }
}

/// An answer that passed: as it is recorded, and as it is sent.
struct Checked {
    shown: Value,
    sent: Value,
}

impl Entire {
    pub(crate) fn new(
        source: Source,
        held: VecDeque<Piece>,
        watch: Watch,
        asked: Record,
        sign_of_life: Duration,
    ) -> Self {
        let hearing = Hearing::new(source, held);
        Self {
            state: State::Hearing(Box::new(Heard {
                hearing,
                watch,
                asked,
            })),
            saying: Saying::new(sign_of_life),
        }
    }

    pub(crate) fn poll_piece(
        &mut self,
        cx: &mut Context<'_>,
        meter: &mut Meter,
    ) -> Poll<Option<Result<Piece, Failure>>> {
        loop {
            if let Some(piece) = self.saying.next() {
                return Poll::Ready(Some(Ok(piece)));
            }
            match &mut self.state {
                State::Over => return Poll::Ready(None),
                State::Hearing(heard) => match heard.hearing.poll(cx, meter) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Some(Err(failure))) => return Poll::Ready(Some(Err(failure))),
                    Poll::Ready(Some(Ok(piece))) => self.heard(&piece, meter)?,
                    // A source ends with a piece that says so, or with a failure. Should one not,
                    // what it said was not checked, and its end is no good one.
                    Poll::Ready(None) => {
                        let failure = Failure::died(heard.provider(), "ended its answer unsaid");
                        self.state = State::Over;
                        return Poll::Ready(Some(Err(failure)));
                    }
                },
                State::Checking { work, alive } => {
                    if let Poll::Ready(checked) = work.as_mut().poll(cx) {
                        meter.show_completion(&checked.shown);
                        self.state = State::Over;
                        self.say(&checked.sent);
                    } else if alive.as_mut().poll(cx).is_pending() {
                        return Poll::Pending;
                    } else {
                        self.saying.show_life();
                        alive.as_mut().reset(self.saying.next_sign());
                    }
                }
            }
        }
    }

    fn heard(&mut self, piece: &Piece, meter: &Meter) -> Result<(), Failure> {
        for data in data_of(&piece.bytes) {
            if let Ok(mut chunk) = serde_json::from_slice::<Value>(&data) {
                self.saying.heed(&mut chunk);
            }
        }
        if piece.last {
            return self.check(meter);
        }
        self.saying.show_life();
        Ok(())
    }

    /// The model has said everything.
    fn check(&mut self, meter: &Meter) -> Result<(), Failure> {
        let State::Hearing(heard) = std::mem::replace(&mut self.state, State::Over) else {
            return Ok(());
        };
        if meter.is_cut() {
            let what = "sent a larger answer than guards can read";
            return Err(Failure::garbage(heard.provider(), what));
        }
        let Heard {
            mut watch, asked, ..
        } = *heard;
        let mut sent = json!({"choices": meter.made_choices()});
        let work = Box::pin(async move {
            watch.answer(&mut sent, &asked).await;
            let shown = sent.clone();
            watch.restore(&mut sent);
            Checked { shown, sent }
        });
        let alive = Box::pin(sleep_until(self.saying.next_sign()));
        self.state = State::Checking { work, alive };
        Ok(())
    }

    /// A whole answer, as a stream says it.
    fn say(&mut self, answer: &Value) {
        for choice in answer["choices"].as_array().into_iter().flatten() {
            let index = &choice["index"];
            for delta in deltas(&choice["message"]) {
                let chunk = self.saying.chunk_of(index, delta, &Value::Null);
                self.saying.say(&chunk, true);
            }
            let finish = &choice["finish_reason"];
            let chunk = self.saying.chunk_of(index, json!({}), finish);
            self.saying.say(&chunk, true);
        }
        self.saying.say_end();
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
