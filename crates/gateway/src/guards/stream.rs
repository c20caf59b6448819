//! An answer that streams: a source like any other, with guards in between.
//!
//! Each choice has lanes (its text, its reasoning, the arguments of each tool call), and each lane
//! a chain of streams, one for each policy that looks there. Text leaves a lane when the whole
//! chain has released it; a choice is over when its lanes are. Log probabilities and fields that
//! we do not know are left out: they would tell what is held back. A rule that ends a text closes
//! its choice with `finish_reason: "content_filter"`, which is how OpenAI says it, and where no
//! other choice is left the upstream call is cancelled.

use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use guard::{Answer, Point, QuestionId, Restore, Step, Vault};
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::answer::form_of;
use super::saying::{Hearing, Saying, data_of};
use super::{Place, Refusal, Watch, lock};
use crate::failure::Failure;
use crate::meter::Meter;
use crate::providers::Piece;
use crate::relay::Source;

/// What a choice says, by kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Lane {
    Text,
    ReasoningContent,
    Reasoning,
    Refusal,
    Tool(usize),
    Function,
}

type LaneKey = (usize, Lane);
/// Which lane and which link of its chain asked, and what a model said.
type Answered = (LaneKey, usize, QuestionId, Answer);

/// One policy's stream in a lane.
struct Link {
    /// Which policy.
    at: usize,
    stream: guard::Stream,
    /// It was told that there is no more, or it ended.
    closed: bool,
}

#[derive(Default)]
struct LaneState {
    links: Vec<Link>,
    /// What may leave and has not.
    out: String,
    /// No more text will come in.
    finished: bool,
    /// No more text will come out.
    done: bool,
    /// Puts values back, where the call has a vault with something in it.
    restore: Option<Restore>,
}

#[derive(Default)]
struct ChoiceState {
    role: Option<Value>,
    /// The beginnings of tool calls, which hold no text of the model's: id, type, name.
    heads: Vec<Value>,
    finish: Option<Value>,
    refusal: Option<Refusal>,
    /// Its last chunk was made.
    over: bool,
}

/// A source whose text passes guards.
pub(crate) struct Guarded {
    hearing: Hearing,
    saying: Saying,
    watch: Watch,
    /// How many choices were asked for.
    wanted: usize,
    lanes: BTreeMap<LaneKey, LaneState>,
    choices: BTreeMap<usize, ChoiceState>,
    asked: FuturesUnordered<Pin<Box<dyn Future<Output = Answered> + Send>>>,
    /// `[DONE]` was read and has not left.
    end: bool,
}

impl Guarded {
    pub(crate) fn new(
        source: Source,
        held: VecDeque<Piece>,
        watch: Watch,
        wanted: usize,
        sign_of_life: Duration,
    ) -> Self {
        Self {
            hearing: Hearing::new(source, held),
            saying: Saying::new(sign_of_life),
            watch,
            wanted: wanted.max(1),
            lanes: BTreeMap::new(),
            choices: BTreeMap::new(),
            asked: FuturesUnordered::new(),
            end: false,
        }
    }

    pub(crate) fn poll_piece(
        &mut self,
        cx: &mut Context<'_>,
        meter: &mut Meter,
    ) -> Poll<Option<Result<Piece, Failure>>> {
        meter.show_only();
        loop {
            if let Some(piece) = self.saying.next() {
                return Poll::Ready(Some(Ok(piece)));
            }
            if let Poll::Ready(Some((key, link, question, answer))) = self.asked.poll_next_unpin(cx)
            {
                self.answered(key, link, question, answer);
                self.flush(meter);
                continue;
            }
            if self.hearing.is_over() {
                return match self.asked.is_empty() {
                    true => Poll::Ready(None),
                    false => Poll::Pending,
                };
            }
            match self.hearing.poll(cx, meter) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Err(failure))) => return Poll::Ready(Some(Err(failure))),
                Poll::Ready(Some(Ok(piece))) => {
                    self.read(&piece.bytes);
                    self.flush(meter);
                    self.saying.show_life();
                }
                Poll::Ready(None) => {
                    self.hearing.stop();
                    self.finish_all();
                    self.flush(meter);
                }
            }
        }
    }

    // What comes in.

    /// The source's pieces are whole events that it has understood before.
    fn read(&mut self, bytes: &[u8]) {
        for data in data_of(bytes) {
            if data.trim_ascii() == b"[DONE]" {
                self.end = true;
                self.finish_all();
            } else if let Ok(chunk) = serde_json::from_slice::<Value>(&data) {
                self.chunk(chunk);
            }
        }
    }

    fn chunk(&mut self, mut chunk: Value) {
        self.saying.heed(&mut chunk);
        let choices = chunk.get_mut("choices").and_then(Value::as_array_mut);
        for choice in choices.into_iter().flatten() {
            let index = usize_of(&choice["index"]);
            let finish = choice["finish_reason"].take();
            let delta = choice["delta"].take();
            if self.choices.entry(index).or_default().over {
                continue;
            }
            self.delta(index, delta);
            if !finish.is_null() {
                self.choices.entry(index).or_default().finish = Some(finish);
                self.finish_choice(index);
            }
        }
    }

    fn delta(&mut self, index: usize, delta: Value) {
        let Value::Object(delta) = delta else { return };
        for (name, value) in delta {
            match (name.as_str(), value) {
                ("role", role) => self.choices.entry(index).or_default().role = Some(role),
                ("content", Value::String(text)) => self.push((index, Lane::Text), &text),
                ("refusal", Value::String(text)) => self.push((index, Lane::Refusal), &text),
                ("reasoning", Value::String(text)) => self.push((index, Lane::Reasoning), &text),
                ("reasoning_content", Value::String(text)) => {
                    self.push((index, Lane::ReasoningContent), &text);
                }
                ("tool_calls", Value::Array(calls)) => {
                    calls.into_iter().for_each(|call| self.tool(index, call));
                }
                ("function_call", Value::Object(mut call)) => {
                    let arguments = call.remove("arguments");
                    if let Some(name) = call.remove("name") {
                        let head = json!({"function_call": {"name": name}});
                        self.choices.entry(index).or_default().heads.push(head);
                    }
                    if let Some(Value::String(text)) = arguments {
                        self.push((index, Lane::Function), &text);
                    }
                }
                _ => {}
            }
        }
    }

    fn tool(&mut self, index: usize, mut call: Value) {
        let at = usize_of(&call["index"]);
        let arguments = match call.get_mut("function").and_then(Value::as_object_mut) {
            Some(function) => function.remove("arguments"),
            None => None,
        };
        let mut head = json!({"index": at});
        for name in ["id", "type"] {
            if call[name].is_string() {
                head[name] = call[name].take();
            }
        }
        if call["function"]["name"].is_string() {
            head["function"] = json!({"name": call["function"]["name"].take()});
        }
        if head.as_object().is_some_and(|head| head.len() > 1) {
            self.choices.entry(index).or_default().heads.push(head);
        }
        if let Some(Value::String(text)) = arguments {
            self.push((index, Lane::Tool(at)), &text);
        }
    }

    // Through the guards.

    fn lane(&mut self, key: LaneKey) -> &mut LaneState {
        let (watch, point) = (&self.watch, point_of(key.1));
        let is_aside = matches!(
            key.1,
            Lane::ReasoningContent | Lane::Reasoning | Lane::Refusal
        );
        self.lanes.entry(key).or_insert_with(|| {
            let watching = watch.noted.iter().enumerate();
            let links = watching
                .filter(|(_, noted)| noted.rules.looks_at(point))
                .map(|(at, noted)| Link {
                    at,
                    stream: noted.rules.stream(point, watch.context_of(is_aside)),
                    closed: false,
                });
            LaneState {
                links: links.collect(),
                ..LaneState::default()
            }
        })
    }

    fn push(&mut self, key: LaneKey, text: &str) {
        if text.is_empty() {
            return;
        }
        let since = Instant::now();
        let lane = self.lane(key);
        let step = match lane.links.first_mut() {
            Some(first) if !first.closed => first.stream.push(text),
            Some(_) => return,
            None => {
                lane.out.push_str(text);
                return;
            }
        };
        let at = lane.links[0].at;
        self.watch.took(at, since);
        self.advance(key, 0, step);
    }

    fn finish_lane(&mut self, key: LaneKey) {
        let lane = self.lane(key);
        if std::mem::replace(&mut lane.finished, true) {
            return;
        }
        match lane.links.first_mut() {
            Some(first) if !first.closed => {
                first.closed = true;
                let step = first.stream.finish();
                self.advance(key, 0, step);
            }
            Some(_) => {}
            None => lane.done = true,
        }
    }

    fn finish_choice(&mut self, index: usize) {
        let keys: Vec<LaneKey> = self
            .lanes
            .range(lanes_of(index))
            .map(|(key, _)| *key)
            .collect();
        keys.into_iter().for_each(|key| self.finish_lane(key));
    }

    fn finish_all(&mut self) {
        let indices: Vec<usize> = self.choices.keys().copied().collect();
        indices
            .into_iter()
            .for_each(|index| self.finish_choice(index));
    }

    fn answered(&mut self, key: LaneKey, link: usize, question: QuestionId, answer: Answer) {
        let Some(lane) = self.lanes.get_mut(&key) else {
            return;
        };
        let Some(asking) = lane.links.get_mut(link) else {
            return;
        };
        let step = asking.stream.answer(question, answer);
        self.advance(key, link, step);
    }

    /// Takes over what a link of a lane's chain said, and hands its text down the chain.
    fn advance(&mut self, key: LaneKey, link: usize, step: Step) {
        let field = field_of(key);
        let place = Place {
            point: point_of(key.1),
            field: &field,
        };
        let mut queue = VecDeque::from([(link, step)]);
        while let Some((link, step)) = queue.pop_front() {
            let Some(lane) = self.lanes.get_mut(&key) else {
                return;
            };
            let at = lane.links[link].at;
            let closing = step.done || step.ended.is_some();
            lane.links[link].closed |= closing;
            if !step.findings.is_empty() {
                self.watch.note(at, place, &step.findings);
            }
            for question in step.ask {
                let asking = self.watch.host.ask(question);
                self.asked.push(Box::pin(async move {
                    let (question, answer) = asking.await;
                    (key, link, question, answer)
                }));
            }
            if let Some(ended) = &step.ended
                && let Some(refusal) = self.watch.ended(at, ended)
            {
                let choice = self.choices.entry(key.0).or_default();
                choice.refusal.get_or_insert(refusal);
            }
            let Some(next) = lane.links.get_mut(link + 1) else {
                lane.out.push_str(&step.release);
                lane.done |= closing;
                continue;
            };
            if next.closed {
                continue;
            }
            if !step.release.is_empty() {
                queue.push_back((link + 1, next.stream.push(&step.release)));
            }
            if closing {
                next.closed = true;
                queue.push_back((link + 1, next.stream.finish()));
            }
        }
    }

    // What goes out.

    fn flush(&mut self, meter: &mut Meter) {
        let indices: Vec<usize> = self.choices.keys().copied().collect();
        for index in indices {
            self.flush_choice(index, meter);
        }
        let refused = |choice: &ChoiceState| choice.over && choice.refusal.is_some();
        let needless = self.choices.len() >= self.wanted && self.choices.values().all(refused);
        if needless && !self.end && !self.hearing.is_over() {
            // Nobody will read the rest.
            self.hearing.stop();
            self.end = true;
        }
        let all_over = self.asked.is_empty() || needless;
        if self.end && all_over {
            self.end = false;
            if needless {
                self.asked.clear();
            }
            self.saying.say_end();
        }
    }

    fn flush_choice(&mut self, index: usize, meter: &mut Meter) {
        let Some(choice) = self.choices.get_mut(&index).filter(|choice| !choice.over) else {
            return;
        };
        // What is recorded has placeholders where the client gets values.
        let (mut sent, mut shown) = (Delta::default(), Delta::default());
        if let Some(role) = choice.role.take() {
            sent.fields.insert("role".to_owned(), role);
        }
        for head in std::mem::take(&mut choice.heads) {
            sent.head(head.clone());
            shown.head(head);
        }
        let is_refused = choice.refusal.is_some();
        let mut all_done = true;
        {
            let vault = lock(&self.watch.vault);
            for ((_, lane), state) in self.lanes.range_mut(lanes_of(index)) {
                all_done &= state.done;
                let text = std::mem::take(&mut state.out);
                sent.put(*lane, state.restored(*lane, &vault, &text));
                shown.put(*lane, text);
            }
        }
        let mut finish = Value::Null;
        // A lane that was ended closes its choice once what it released has gone down the chain.
        let closes = is_refused && self.lanes_are_over(index);
        let choice = self.choices.entry(index).or_default();
        if closes {
            let sentence = choice.refusal.as_ref().map(Refusal::sentence);
            for delta in [&mut sent, &mut shown] {
                delta.fields.insert("refusal".to_owned(), json!(sentence));
            }
            finish = "content_filter".into();
        } else if !is_refused && all_done {
            finish = choice.finish.take().unwrap_or_default();
        }
        choice.over |= !finish.is_null();
        if !shown.is_empty() || !finish.is_null() {
            let shown = shown.into_value();
            meter.show(&self.saying.chunk_of(&json!(index), shown, &finish));
        }
        if !sent.is_empty() || !finish.is_null() {
            let real = sent.is_real() || !finish.is_null();
            let sent = sent.into_value();
            let chunk = self.saying.chunk_of(&json!(index), sent, &finish);
            self.saying.say(&chunk, real);
        }
    }

    /// Whether some lane of this choice came to its end by a rule, the chain after it included.
    fn lanes_are_over(&self, index: usize) -> bool {
        let mut lanes = self
            .lanes
            .range((index, Lane::Text)..=(index, Lane::Function));
        lanes.any(|(_, state)| state.done)
    }
}

fn usize_of(value: &Value) -> usize {
    value
        .as_u64()
        .and_then(|number| usize::try_from(number).ok())
        .unwrap_or(0)
}

fn point_of(lane: Lane) -> Point {
    match lane {
        Lane::Text | Lane::ReasoningContent | Lane::Reasoning | Lane::Refusal => Point::Output,
        Lane::Tool(_) | Lane::Function => Point::ToolArguments,
    }
}

fn field_of((index, lane): LaneKey) -> String {
    let name = match lane {
        Lane::Text => "content".to_owned(),
        Lane::ReasoningContent => "reasoning_content".to_owned(),
        Lane::Reasoning => "reasoning".to_owned(),
        Lane::Refusal => "refusal".to_owned(),
        Lane::Tool(at) => format!("tool_calls[{at}].function.arguments"),
        Lane::Function => "function_call.arguments".to_owned(),
    };
    format!("choices[{index}].message.{name}")
}

fn lanes_of(index: usize) -> std::ops::RangeInclusive<LaneKey> {
    (index, Lane::Text)..=(index, Lane::Function)
}

impl LaneState {
    /// The text with values where placeholders stand; what may become one waits.
    fn restored(&mut self, lane: Lane, vault: &Vault, text: &str) -> String {
        if vault.is_empty() {
            return text.to_owned();
        }
        let restore = self
            .restore
            .get_or_insert_with(|| Restore::new(form_of(point_of(lane))));
        let mut out = restore.push(vault, text);
        if self.done {
            out.push_str(&restore.finish());
        }
        out
    }
}

/// What one chunk says about a choice.
#[derive(Default)]
struct Delta {
    fields: Map<String, Value>,
    calls: Vec<Value>,
}

impl Delta {
    fn head(&mut self, head: Value) {
        match head.get("function_call") {
            Some(call) => {
                self.fields.insert("function_call".to_owned(), call.clone());
            }
            None => self.calls.push(head),
        }
    }

    fn put(&mut self, lane: Lane, text: String) {
        if text.is_empty() {
            return;
        }
        let name = match lane {
            Lane::Text => "content",
            Lane::ReasoningContent => "reasoning_content",
            Lane::Reasoning => "reasoning",
            Lane::Refusal => "refusal",
            Lane::Tool(at) => {
                let mut known = self.calls.iter_mut();
                match known.find(|call| usize_of(&call["index"]) == at) {
                    Some(call) => call["function"]["arguments"] = text.into(),
                    None => {
                        let call = json!({"index": at, "function": {"arguments": text}});
                        self.calls.push(call);
                    }
                }
                return;
            }
            Lane::Function => {
                let call = self.fields.entry("function_call");
                call.or_insert_with(|| json!({}))["arguments"] = text.into();
                return;
            }
        };
        self.fields.insert(name.to_owned(), text.into());
    }

    fn is_empty(&self) -> bool {
        self.fields.is_empty() && self.calls.is_empty()
    }

    /// Whether it carries something that the model made.
    fn is_real(&self) -> bool {
        !self.calls.is_empty() || self.fields.keys().any(|name| name != "role")
    }

    fn into_value(mut self) -> Value {
        if !self.calls.is_empty() {
            self.fields
                .insert("tool_calls".to_owned(), self.calls.into());
        }
        self.fields.into()
    }
}
