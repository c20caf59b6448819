//! What an app says, in the OpenAI shape: whole, as a stream of its own, as the
//! stream of its last step with the app's name on every chunk, or as an agent speaks.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use base::Usage;
use bytes::Bytes;
use guard::{Form, Restore};
use http::{HeaderName, HeaderValue, Response};
use http_body::{Body, Frame};
use serde_json::{Value, json};

use super::run::Said;
use super::speech::{Heard, Speech};
use crate::body::GatewayBody;
use crate::failure::Failure;
use crate::guards::AppGuards;
use crate::meter::usage_json;
use crate::plan::Release;
use crate::record::CallStatus;
use crate::relay::Relay;
use crate::settle::Settler;

/// Which release answered.
const RELEASE_HEADER: HeaderName = HeaderName::from_static("x-meguri-release");
/// And its identity.
const DIGEST_HEADER: HeaderName = HeaderName::from_static("x-meguri-release-digest");

/// Characters of one chunk of an answer that was there before its stream began.
const CHUNK_CHARS: usize = 400;

/// The good end of a stream.
const DONE: &[u8] = b"data: [DONE]\n\n";

/// What stands on every answer of one call.
#[derive(Debug, Clone)]
pub(crate) struct Envelope {
    pub id: String,
    pub model: String,
    pub created_s: i64,
}

impl Envelope {
    /// A whole answer.
    pub(crate) fn completion(&self, said: &Said, usage: &Usage) -> Value {
        json!({
            "id": self.id,
            "object": "chat.completion",
            "created": self.created_s,
            "model": self.model,
            "choices": [{
                "index": 0,
                "message": { "role": "assistant", "content": said.text, "refusal": said.refusal },
                "logprobs": null,
                "finish_reason": said.finish,
            }],
            "usage": usage_json(usage),
        })
    }

    /// A whole answer as the events of a stream.
    pub(crate) fn events(&self, said: &Said, usage: Option<&Usage>) -> Bytes {
        let mut out = Vec::new();
        let mut add = |value: Value| out.extend(event(&value));
        add(self.chunk(json!({ "role": "assistant", "content": "" }), None));
        let chars: Vec<char> = said.text.chars().collect();
        for piece in chars.chunks(CHUNK_CHARS) {
            let piece: String = piece.iter().collect();
            add(self.chunk(json!({ "content": piece }), None));
        }
        let end = match &said.refusal {
            Some(refusal) => json!({ "refusal": refusal }),
            None => json!({}),
        };
        add(self.chunk(end, Some(&said.finish)));
        if let Some(usage) = usage {
            add(self.usage(usage));
        }
        out.extend_from_slice(DONE);
        out.into()
    }

    fn usage(&self, usage: &Usage) -> Value {
        let mut chunk = self.chunk(json!({}), None);
        chunk["choices"] = json!([]);
        chunk["usage"] = usage_json(usage);
        chunk
    }

    fn chunk(&self, delta: Value, finish: Option<&str>) -> Value {
        json!({
            "id": self.id,
            "object": "chat.completion.chunk",
            "created": self.created_s,
            "model": self.model,
            "choices": [{ "index": 0, "delta": delta, "finish_reason": finish }],
        })
    }
}

/// Says which release answered.
pub(crate) fn name_release(
    response: &mut Response<GatewayBody>,
    release: &Release,
    number: Option<i64>,
) {
    let number = number.map_or("draft".to_owned(), |number| number.to_string());
    let name = format!("{}@{number}", release.name);
    // Names may be in any script, which a header carries as bytes.
    if let Ok(value) = HeaderValue::from_bytes(name.as_bytes()) {
        response.headers_mut().insert(RELEASE_HEADER, value);
    }
    if let Ok(value) = HeaderValue::from_str(&release.digest.to_string()) {
        response.headers_mut().insert(DIGEST_HEADER, value);
    }
}

/// The last step's stream as the app's own. Owns both records: the step's, inside
/// the relay, and the app's, which ends as the step ends.
pub(crate) struct LastStep {
    pub relay: Relay,
    pub settler: Settler,
    pub envelope: Envelope,
    /// What the steps before used.
    pub before: Usage,
}

impl LastStep {
    /// An event of the step as one of the app.
    fn rewrite(&self, event: Bytes) -> Bytes {
        let data = event.strip_prefix(b"data:").map(<[u8]>::trim_ascii);
        let chunk = data.and_then(|data| serde_json::from_slice::<Value>(data).ok());
        let Some(mut chunk) = chunk.filter(|chunk| chunk["choices"].is_array()) else {
            return event;
        };
        chunk["id"] = self.envelope.id.clone().into();
        chunk["model"] = self.envelope.model.clone().into();
        let own = crate::meter::read_usage(&chunk["usage"]);
        if let Some(own) = own {
            chunk["usage"] = usage_json(&sum(&self.before, &own));
        }
        Bytes::from(format!("data: {chunk}\n\n"))
    }

    /// The app's record ends when the step's has ended.
    fn settle(&mut self) {
        if self.settler.is_settled() {
            return;
        }
        let Some(settled) = self.relay.settler().settled() else {
            return;
        };
        let (status, error) = (settled.status, settled.error.clone());
        self.settler.output.clone_from(&settled.output);
        if let Some(finish) = self.relay.settler().meter.finish_reasons().first() {
            self.settler.meter.finish(0, finish);
        }
        self.settler.settle_with(
            status.unwrap_or(CallStatus::Error),
            error,
            settled.http_status,
        );
    }
}

impl Body for LastStep {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let polled = Pin::new(&mut self.relay).poll_frame(cx);
        let answer = match polled {
            Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                Ok(event) => {
                    let event = self.rewrite(event);
                    self.settler.first_token();
                    self.settler.delivered(event.len(), true);
                    Poll::Ready(Some(Ok(Frame::data(event))))
                }
                Err(frame) => Poll::Ready(Some(Ok(frame))),
            },
            other => other,
        };
        self.settle();
        answer
    }
}

/// An agent as it is heard, as the app's own stream. The app's record ends as the
/// agent ends, and keeps what was said also where nobody listens to the end.
pub(crate) struct Spoken {
    speaking: Speaking,
    settler: Settler,
    envelope: Envelope,
    /// Events that are ready.
    ready: VecDeque<Bytes>,
    /// With placeholders, as it is recorded.
    said: String,
    /// Puts values back into what is sent.
    restore: Restore,
}

/// An agent that speaks, and what its call is to get.
pub(crate) struct Speaking {
    pub speech: Speech,
    pub guards: AppGuards,
    pub wants_usage: bool,
}

impl Spoken {
    pub(crate) fn new(
        speaking: Speaking,
        first: String,
        settler: Settler,
        envelope: Envelope,
    ) -> Self {
        let role = envelope.chunk(json!({ "role": "assistant", "content": "" }), None);
        let mut spoken = Self {
            speaking,
            settler,
            envelope,
            ready: VecDeque::from([event(&role)]),
            said: String::new(),
            restore: Restore::new(Form::Plain),
        };
        spoken.text(&first);
        spoken
    }

    fn text(&mut self, text: &str) {
        self.settler.first_token();
        self.said.push_str(text);
        let guards = &self.speaking.guards;
        let text = guards.restored_piece(&mut self.restore, text);
        self.send(&text);
    }

    fn send(&mut self, text: &str) {
        if !text.is_empty() {
            let chunk = self.envelope.chunk(json!({ "content": text }), None);
            self.ready.push_back(event(&chunk));
        }
    }

    /// The end, good or bad; a bad one is never a clean `[DONE]`.
    fn end(&mut self, said: Result<Said, Failure>) {
        let rest = self.restore.finish();
        self.send(&rest);
        let events = match said {
            Ok(said) => {
                let mut events = Vec::new();
                events.extend(event(&self.envelope.chunk(json!({}), Some(&said.finish))));
                if self.speaking.wants_usage {
                    let usage = self.speaking.speech.tally().usage;
                    events.extend(event(&self.envelope.usage(&usage)));
                }
                events.extend_from_slice(DONE);
                self.settler.meter.finish(0, &said.finish);
                self.settle(CallStatus::Ok, events.len(), None);
                events.into()
            }
            Err(failure) => {
                let event = failure.error.stream_event();
                self.settle(CallStatus::Error, event.len(), Some(&failure));
                event
            }
        };
        self.ready.push_back(events);
    }

    fn settle(&mut self, status: CallStatus, bytes: usize, failure: Option<&Failure>) {
        if self.settler.is_settled() {
            return;
        }
        let said = std::mem::take(&mut self.said);
        self.settler.output = vec![json!({ "role": "assistant", "content": said })];
        self.settler.delivered(bytes, false);
        match failure {
            Some(failure) => self.settler.fail(failure),
            None if status == CallStatus::Ok => self.settler.settle(status, None),
            None => self.settler.settle_with(status, None, 499),
        }
    }
}

impl Body for Spoken {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = &mut *self;
        // A piece may be nothing yet: it waits for the rest of a placeholder.
        while this.ready.is_empty() {
            match this.speaking.speech.poll_heard(cx) {
                Poll::Ready(Some(Heard::Text(text))) => this.text(&text),
                Poll::Ready(Some(Heard::End(said))) => this.end(said),
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => return Poll::Pending,
            }
        }
        let event = this.ready.pop_front();
        if let Some(event) = &event {
            this.settler.delivered(event.len(), true);
        }
        Poll::Ready(event.map(|event| Ok(Frame::data(event))))
    }
}

impl Drop for Spoken {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.settle(CallStatus::Cancelled, 0, None);
        }
    }
}

fn event(chunk: &Value) -> Bytes {
    Bytes::from(format!("data: {chunk}\n\n"))
}

pub(crate) fn sum(one: &Usage, other: &Usage) -> Usage {
    Usage {
        input: one.input.saturating_add(other.input),
        output: one.output.saturating_add(other.output),
        cache_read: one.cache_read.saturating_add(other.cache_read),
        cache_write: one.cache_write.saturating_add(other.cache_write),
        reasoning: one.reasoning.saturating_add(other.reasoning),
        estimated: one.estimated || other.estimated,
    }
}
