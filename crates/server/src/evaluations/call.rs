//! One call of an evaluation, or of another job that asks candidates: made through the
//! gateway like any other, tried again where that can help, and never paid for twice.
//!
//! The id of a call's trace follows from the evaluation, the call and the attempt.
//! A worker that takes an evaluation over therefore looks each call up before it
//! makes it: what the worker before had done is in telemetry, even where its answer
//! did not reach the database any more. Whoever is told to wait (429) makes the
//! others of the same provider wait too.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base::{Digest, ProjectId, TraceId};
use bytes::Bytes;
use gateway::{CallContext, Plan, Principal, PromptRef};
use serde_json::{Map, Value, json};
use telemetry::{BodyContent, Status};
use tokio::sync::watch;
use tokio::time::Instant;

use super::meter::Meter;
use super::pin::{ENVIRONMENT, Ready};
use super::store::CallProblem;
use crate::app::App;
use crate::error::Result;
use crate::evaluators::text_of;

/// The longest that one call waits for a provider to take calls again, in all.
const LONGEST_WAIT: Duration = Duration::from_secs(900);
/// The most that a provider's own "retry after" holds its calls up at once.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
const FIRST_BACKOFF: Duration = Duration::from_millis(500);
const LONGEST_BACKOFF: Duration = Duration::from_secs(60);
/// How much of an answer is kept.
const ANSWER_BYTES: usize = 1 << 20;

/// What calls of one evaluation share.
pub(crate) struct Caller {
    pub app: App,
    pub project: ProjectId,
    pub principal: Arc<Principal>,
    pub evaluation: String,
    /// When the evaluation was made: the time part of its traces' ids.
    pub created_at: i64,
    pub ready: Ready,
    pub plan: Mutex<Option<Arc<Plan>>>,
    /// Whether another worker may have made some of the calls.
    pub is_takeover: bool,
    /// Whether nothing may be called that was not called before.
    pub only_recorded: bool,
    /// How often a call is tried.
    pub attempts: u32,
    pub lanes: Lanes,
    /// Models that did not take structured output or probabilities.
    pub plain: Plain,
    /// What counts each attempt and may refuse it, where a job has such limits.
    pub meter: Option<Arc<Meter>>,
    /// Turns true when no more calls should begin.
    pub stop: watch::Receiver<bool>,
}

/// Models that did not take structured output or probabilities. Clones share them.
pub(crate) type Plain = Arc<Mutex<HashSet<String>>>;

/// What to call.
pub(crate) struct Request {
    /// Names the call within the evaluation.
    pub key: String,
    /// Whose calls wait for each other when one is told to.
    pub lane: String,
    pub body: Map<String, Value>,
    pub prompt: Option<PromptRef>,
    pub variables: Map<String, Value>,
    pub tags: BTreeMap<String, String>,
}

/// How a call went.
#[derive(Debug, Clone)]
pub(crate) struct Called {
    pub answer: std::result::Result<Said, CallProblem>,
    pub trace: TraceId,
    pub attempts: i64,
    /// What all attempts cost together.
    pub bill: Bill,
    pub latency_us: i64,
}

/// What a model said.
#[derive(Debug, Clone, Default)]
pub(crate) struct Said {
    pub text: String,
    /// Of the choice, as the provider gave them.
    pub logprobs: Value,
    /// Of a call that embeds: one per text.
    pub vectors: Vec<Vec<f64>>,
}

/// What a call asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    Chat,
    Embedding,
}

/// What calls came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Bill {
    pub spent: i64,
    /// Calls whose price nobody knows; local models are free.
    pub unpriced: i64,
    pub input_tokens: i64,
    pub output_tokens: i64,
}

impl Bill {
    pub(crate) fn add(&mut self, other: Self) {
        self.spent = self.spent.saturating_add(other.spent);
        self.unpriced += other.unpriced;
        self.input_tokens += other.input_tokens;
        self.output_tokens += other.output_tokens;
    }

    /// What is known to have been spent; none when a price is missing.
    pub(crate) fn cost(&self) -> Option<i64> {
        (self.unpriced == 0).then_some(self.spent)
    }

    fn call(provider: Option<&str>, usage: base::Usage, cost: Option<base::NanoUsd>) -> Self {
        let used = usage.input > 0 || usage.output > 0;
        let free = provider == Some("local") || !used;
        Self {
            spent: cost.map_or(0, |cost| cost.0),
            unpriced: i64::from(cost.is_none() && !free),
            input_tokens: i64::try_from(usage.input).unwrap_or(i64::MAX),
            output_tokens: i64::try_from(usage.output).unwrap_or(i64::MAX),
        }
    }
}

/// No more calls should begin: this one did not.
#[derive(Debug)]
pub(crate) struct Halted;

/// How one attempt ended.
struct Attempt {
    answer: std::result::Result<Said, Refused>,
    bill: Bill,
    latency_us: i64,
}

impl Attempt {
    /// Whether a provider took it, whatever came of it.
    fn counts(&self) -> bool {
        let told_to_wait = matches!(
            &self.answer,
            Err(Refused {
                again: Again::WhenTold(_),
                ..
            })
        );
        !told_to_wait
    }
}

impl Request {
    /// Whose calls cost alike: the first word of the key.
    fn payer(&self) -> &str {
        self.key.split('/').next().unwrap_or_default()
    }
}

struct Refused {
    problem: CallProblem,
    again: Again,
}

/// Whether another attempt can help.
enum Again {
    /// After a while, and it counts as an attempt.
    Later,
    /// When the provider takes calls again; counts as nothing.
    WhenTold(Option<Duration>),
    /// The call was cut off by our own end; counts as nothing.
    AtOnce,
    Never,
}

impl Caller {
    /// Makes a call, or finds that it was made.
    pub(crate) async fn call(
        &self,
        request: &Request,
    ) -> Result<std::result::Result<Called, Halted>> {
        self.make(request, Wish::Chat).await
    }

    /// Makes a call that embeds. Telemetry does not keep vectors, so this is the one kind of call
    /// that is paid for again after a kill.
    pub(super) async fn embed(
        &self,
        request: &Request,
    ) -> Result<std::result::Result<Called, Halted>> {
        self.make(request, Wish::Embedding).await
    }

    async fn make(
        &self,
        request: &Request,
        wish: Wish,
    ) -> Result<std::result::Result<Called, Halted>> {
        let mut bill = Bill::default();
        let (mut number, mut tries) = (0, 0);
        let begin = Instant::now();
        loop {
            number += 1;
            let trace = self.trace_id(&request.key, number);
            let attempt = match self.recorded(trace, wish).await? {
                Some(attempt) => {
                    if let Some(meter) = &self.meter {
                        meter.found(trace, request.payer(), attempt.bill, attempt.counts());
                    }
                    attempt
                }
                None if self.only_recorded => return Ok(Err(Halted)),
                None => match self.metered(request, trace, wish).await? {
                    Ok(attempt) => attempt,
                    Err(Halted) => return Ok(Err(Halted)),
                },
            };
            bill.add(attempt.bill);
            let finished = |answer| Called {
                answer,
                trace,
                attempts: number,
                bill,
                latency_us: attempt.latency_us,
            };
            let refused = match attempt.answer {
                Ok(said) => return Ok(Ok(finished(Ok(said)))),
                Err(refused) => refused,
            };
            match refused.again {
                Again::Never => return Ok(Ok(finished(Err(refused.problem)))),
                Again::AtOnce => {}
                Again::WhenTold(_) if begin.elapsed() > LONGEST_WAIT => {
                    return Ok(Ok(finished(Err(refused.problem))));
                }
                Again::WhenTold(pause) => self.lanes.block(&request.lane, pause),
                Again::Later => {
                    tries += 1;
                    if tries >= self.attempts {
                        return Ok(Ok(finished(Err(refused.problem))));
                    }
                    if self.pause(backoff(tries)).await.is_err() {
                        return Ok(Err(Halted));
                    }
                }
            }
        }
    }

    /// An attempt, once the provider takes calls and the meter lets it begin.
    async fn metered(
        &self,
        request: &Request,
        trace: TraceId,
        wish: Wish,
    ) -> Result<std::result::Result<Attempt, Halted>> {
        if self.wait_for(&request.lane).await.is_err() {
            return Ok(Err(Halted));
        }
        let Some(meter) = &self.meter else {
            return Ok(Ok(self.attempt(request, trace, wish).await?));
        };
        let Some(admitted) = meter.admit(request.payer(), &self.stop).await else {
            return Ok(Err(Halted));
        };
        let attempt = self.attempt(request, trace, wish).await?;
        admitted.settle(trace, attempt.bill, attempt.counts());
        Ok(Ok(attempt))
    }

    fn trace_id(&self, key: &str, number: i64) -> TraceId {
        let text = format!("{}/{key}/{number}", self.evaluation);
        TraceId(stable_id(self.created_at, &text))
    }

    /// What telemetry knows of a call that a worker before may have made.
    async fn recorded(&self, trace: TraceId, wish: Wish) -> Result<Option<Attempt>> {
        if !self.is_takeover {
            return Ok(None);
        }
        let project = self.project;
        let found = crate::traces::read(&self.app.telemetry, move |reader| {
            let Some(found) = reader.trace(project, trace)? else {
                return Ok(None);
            };
            // The outermost span is settled last: without it the call did not end.
            let Some(root) = found
                .spans
                .iter()
                .find(|stored| stored.span.parent.is_none())
            else {
                return Ok(None);
            };
            let bodies = reader.span_bodies(project, trace, root.span.span_id, None)?;
            Ok(Some((found.spans.clone(), root.span.clone(), bodies)))
        })
        .await?;
        let Some((spans, root, bodies)) = found else {
            return Ok(None);
        };
        let mut bill = Bill::default();
        for stored in &spans {
            let span = &stored.span;
            if matches!(span.kind, telemetry::Kind::Llm | telemetry::Kind::Embed) {
                bill.add(Bill::call(span.provider.as_deref(), span.usage, span.cost));
            }
        }
        let problem = || CallProblem {
            kind: root
                .error_type
                .clone()
                .unwrap_or_else(|| "error".to_owned()),
            message: root.error_message.clone().unwrap_or_default(),
        };
        let output = bodies.and_then(|bodies| bodies.output.into_iter().next());
        let message = output.map(|body| body.content);
        let answer = match (root.status, message) {
            (Status::Ok, Some(BodyContent::Whole(message))) if wish == Wish::Chat => Ok(Said {
                text: message_text(&message),
                ..Said::default()
            }),
            // The body is gone: only asking again gives the answer.
            (Status::Ok, _) | (Status::Cancelled, _) => Err(Refused {
                problem: problem(),
                again: Again::AtOnce,
            }),
            (Status::Error, _) => {
                let status = root.attrs["http_status"].as_u64().unwrap_or(500);
                let again = match again(u16::try_from(status).unwrap_or(500), None) {
                    // Whatever the wait was, it is over.
                    Again::WhenTold(_) => Again::AtOnce,
                    other => other,
                };
                let problem = problem();
                Err(Refused { problem, again })
            }
        };
        Ok(Some(Attempt {
            answer,
            bill,
            latency_us: root.latency_us(),
        }))
    }

    async fn attempt(&self, request: &Request, trace: TraceId, wish: Wish) -> Result<Attempt> {
        let mut context = CallContext::new(trace);
        context.prompt.clone_from(&request.prompt);
        context.variables.clone_from(&request.variables);
        context.tags.clone_from(&request.tags);
        let body = Bytes::from(Value::Object(request.body.clone()).to_string());
        let plan = self.plan();
        let watched = self.app.calls.watch(trace);
        let (gateway, principal) = (&self.app.gateway, &self.principal);
        let response = match wish {
            Wish::Chat => Box::pin(gateway.chat_completions(&plan, principal, context, body)).await,
            Wish::Embedding => Box::pin(gateway.embeddings(&plan, principal, context, body)).await,
        };
        let status = response.status();
        let pause = response
            .headers()
            .get(http::header::RETRY_AFTER)
            .and_then(|value| value.to_str().ok()?.parse().ok())
            .map(Duration::from_secs);
        let body = response.into_body().collect_bytes().await;
        // What is not on the disk could be paid for again after a crash, so this waits for it.
        let settled = watched.settled().await?;
        let mut bill = Bill::default();
        for call in settled.iter().filter(|call| call.of_model) {
            let usage = call.usage.unwrap_or_default();
            bill.add(Bill::call(call.provider.as_deref(), usage, call.cost));
        }
        let latency_us = settled.iter().map(|call| call.latency_us).max();
        let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
        let answer = if status.is_success() {
            let choice = &answer["choices"][0];
            self.lanes.opened(&request.lane);
            Ok(Said {
                text: message_text(&choice["message"]),
                logprobs: choice["logprobs"].clone(),
                vectors: match wish {
                    Wish::Chat => Vec::new(),
                    Wish::Embedding => vectors_of(&answer),
                },
            })
        } else {
            let word = |field: &str| answer["error"][field].as_str().map(str::to_owned);
            let kind = settled.last().and_then(|call| call.error.clone());
            Err(Refused {
                problem: CallProblem {
                    kind: kind
                        .or_else(|| word("code"))
                        .unwrap_or_else(|| status.as_u16().to_string()),
                    message: word("message").unwrap_or_else(|| format!("status {status}")),
                },
                again: again(status.as_u16(), pause),
            })
        };
        Ok(Attempt {
            answer,
            bill,
            latency_us: latency_us.unwrap_or(0),
        })
    }

    /// The evaluation's plan on the providers and prices of this moment.
    pub(crate) fn plan(&self) -> Arc<Plan> {
        let present = self.app.gateway.plan();
        let mut kept = self.plan.lock().unwrap_or_else(PoisonError::into_inner);
        match &*kept {
            Some(plan) if plan.revision == present.revision => Arc::clone(plan),
            _ => {
                let plan = Arc::new(self.ready.plan(&present, self.project));
                *kept = Some(Arc::clone(&plan));
                plan
            }
        }
    }

    async fn wait_for(&self, lane: &str) -> std::result::Result<(), Halted> {
        while let Some(until) = self.lanes.blocked_until(lane) {
            self.pause(until.saturating_duration_since(Instant::now()))
                .await?;
        }
        if *self.stop.borrow() {
            Err(Halted)
        } else {
            Ok(())
        }
    }

    async fn pause(&self, time: Duration) -> std::result::Result<(), Halted> {
        let mut stop = self.stop.clone();
        tokio::select! {
            () = tokio::time::sleep(time) => Ok(()),
            _ = stop.wait_for(|stop| *stop) => Err(Halted),
        }
    }
}

fn again(status: u16, pause: Option<Duration>) -> Again {
    match status {
        429 => Again::WhenTold(pause),
        // Our own queue of records is full.
        503 if pause.is_some() => Again::WhenTold(pause),
        499 => Again::AtOnce,
        408 | 425 | 500..=599 => Again::Later,
        _ => Again::Never,
    }
}

fn backoff(tries: u32) -> Duration {
    FIRST_BACKOFF
        .saturating_mul(1 << tries.min(16).saturating_sub(1))
        .min(LONGEST_BACKOFF)
}

/// The vectors of an answer, in the order of the texts.
fn vectors_of(answer: &Value) -> Vec<Vec<f64>> {
    let mut items: Vec<&Value> = answer["data"].as_array().into_iter().flatten().collect();
    items.sort_by_key(|item| item["index"].as_u64());
    let vector = |item: &Value| {
        let numbers = item["embedding"].as_array().into_iter().flatten();
        numbers.filter_map(Value::as_f64).collect()
    };
    items.into_iter().map(vector).collect()
}

/// The text of a message; of one that only calls tools, those calls.
pub(crate) fn message_text(message: &Value) -> String {
    let text = match &message["content"] {
        Value::Array(parts) => {
            let texts = parts.iter().filter_map(|part| part["text"].as_str());
            texts.collect::<Vec<_>>().join("\n")
        }
        content => text_of(content),
    };
    let calls = &message["tool_calls"];
    let text = match text.is_empty() && calls.as_array().is_some_and(|calls| !calls.is_empty()) {
        true => calls.to_string(),
        false => text,
    };
    base::text::cut_bytes(&text, ANSWER_BYTES).to_owned()
}

/// Sixteen bytes that follow from a text, in the form of a UUIDv7 of this time.
pub(crate) fn stable_id(at_us: i64, text: &str) -> [u8; 16] {
    let digest = Digest::of(text.as_bytes()).0;
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    let millis = u64::try_from(at_us / 1000).unwrap_or(0).to_be_bytes();
    bytes[..6].copy_from_slice(&millis[2..]);
    bytes[6] = 0x70 | (bytes[6] & 0x0f);
    bytes[8] = 0x80 | (bytes[8] & 0x3f);
    bytes
}

/// Providers that take no calls for a while. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Lanes(Arc<Mutex<HashMap<String, Blocked>>>);

#[derive(Debug)]
struct Blocked {
    until: Instant,
    times: u32,
}

impl Lanes {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Blocked>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn block(&self, lane: &str, pause: Option<Duration>) {
        let now = Instant::now();
        let mut lanes = self.lock();
        let blocked = lanes.entry(lane.to_owned()).or_insert(Blocked {
            until: now,
            times: 0,
        });
        // Calls that were under way together are refused together: that is one refusal.
        if blocked.until <= now {
            blocked.times += 1;
        }
        let pause = pause.unwrap_or_else(|| backoff(blocked.times));
        blocked.until = blocked.until.max(now + pause.min(LONGEST_PAUSE));
    }

    fn opened(&self, lane: &str) {
        let mut lanes = self.lock();
        if lanes
            .get(lane)
            .is_some_and(|blocked| blocked.until <= Instant::now())
        {
            lanes.remove(lane);
        }
    }

    /// Until when this lane takes no calls; none when it takes them.
    pub(crate) fn blocked_until(&self, lane: &str) -> Option<Instant> {
        let lanes = self.lock();
        let until = lanes.get(lane)?.until;
        (until > Instant::now()).then_some(until)
    }
}

/// Tags of every call of an evaluation.
pub(crate) fn tags(evaluation: &str, candidate: &str, example: &str) -> BTreeMap<String, String> {
    [
        ("evaluation", evaluation),
        ("candidate", candidate),
        ("example", example),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into()
}

/// Who calls are made for: whoever started the job.
pub(crate) fn principal(started_by: &str, project: ProjectId) -> Principal {
    let actor: Option<db::Actor> = started_by.parse().ok();
    let (mut key_id, mut user_id) = (None, None);
    match actor {
        Some(db::Actor::Key(key)) => key_id = Some(key),
        Some(db::Actor::User(user)) => user_id = Some(user),
        _ => {}
    }
    Principal {
        key_id,
        user_id,
        project,
        environment: ENVIRONMENT.to_owned(),
        role: "evaluation".to_owned(),
        expires_at: None,
    }
}

/// Whose calls wait for each other.
pub(crate) fn lane_of(model: &str) -> String {
    model
        .split_once('/')
        .map_or(model, |(provider, _)| provider)
        .to_owned()
}

/// The body of a call with these messages.
pub(crate) fn chat_body(
    model: Option<&str>,
    messages: &[Value],
    parameters: &Map<String, Value>,
) -> Map<String, Value> {
    let mut body = parameters.clone();
    if let Some(model) = model {
        body.insert("model".to_owned(), json!(model));
    }
    body.insert("messages".to_owned(), json!(messages));
    body
}
