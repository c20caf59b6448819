//! The life of one call: admit, resolve, attempt, hold, commit, relay, settle.
//!
//! ```text
//! connecting ──► holding ──► committed ──► settled
//!   retry          retry       error event,     exactly once, by the Guard,
//!                              never [DONE]     also when the future is dropped
//! ```
//! Until the first real token nothing has been sent, so a failure can still be
//! tried again or become a proper HTTP error. From then on the client sees a real
//! end or a real error. Five waits have a limit: connect (in the egress client),
//! headers, first token, idle, total. Dropping the response's body drops the
//! upstream connection at once: no task and no channel stand in between.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use base::{Clock, NanoUsd, Usage};
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body::{Body, Frame};
use serde_json::{Map, Value};
use tokio::time::{Instant, Sleep, sleep_until, timeout_at};

use crate::body::{GatewayBody, TRACE_ID_HEADER, trace_header};
use crate::context::CallContext;
use crate::egress::{Allow, read_capped};
use crate::error::ApiError;
use crate::failure::{Again, Failure, Wait};
use crate::local::LocalKind;
use crate::meter::{Meter, estimate_tokens};
use crate::plan::{Plan, Principal, Protocol, Provider, Timeouts};
use crate::prompt;
use crate::providers::local::{self, LocalSource};
use crate::providers::{Dialect, HttpSource, Piece, anthropic, openai};
use crate::record::{Busy, CallError, CallKind, CallStatus, Permit, Record, RecordKind};
use crate::request::{Changes, Request};
use crate::{Inner, models};

/// What is kept back before the first real token; reaching either commits.
const HELD_PIECES: usize = 64;
const HELD_BYTES: usize = 256 << 10;
/// The most of an error response that is read.
const ERROR_BODY_BYTES: usize = 64 << 10;

/// Reserves the place of this call's record, waiting a moment when the queue is
/// full: a client that is slowed down a little is better off than one that is
/// refused, and calls then arrive no faster than their records become durable.
async fn place_for_record(gateway: &Inner, longest: Duration) -> Result<Permit, Busy> {
    const STEP: Duration = Duration::from_millis(5);
    let until = Instant::now() + longest;
    loop {
        match gateway.recorder.admit() {
            Err(_) if Instant::now() < until => tokio::time::sleep(STEP).await,
            answer => return answer,
        }
    }
}

/// Runs one call to the point where its response begins.
pub(crate) async fn run(
    gateway: &Inner,
    kind: CallKind,
    plan: &Arc<Plan>,
    principal: &Principal,
    context: CallContext,
    body: Bytes,
) -> Response<GatewayBody> {
    let trace_id = context.trace_id;
    let permit = match place_for_record(gateway, plan.limits.admission_wait).await {
        Ok(permit) => permit,
        Err(busy) => {
            let message = "the record of this call could not be kept now; try again shortly";
            let mut error = ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", message);
            error.retry_after_s = Some(busy.retry_after_s);
            return error.into_response(Some(trace_id));
        }
    };
    let mut guard = Guard::new(gateway, permit, kind, plan, principal, &context, body.len());
    let call = Call {
        gateway,
        kind,
        plan,
        principal,
    };
    match Box::pin(call.answer(context, body, &mut guard)).await {
        Ok(Answer::Whole { body, status }) => {
            guard.delivered(body.len(), true);
            guard.settle(CallStatus::Ok, None);
            respond(
                trace_id,
                status,
                "application/json",
                GatewayBody::full(body),
            )
        }
        Ok(Answer::Stream {
            source,
            held,
            limits,
            deadline,
        }) => {
            let relay = Relay {
                source: Some(source),
                held,
                guard,
                limits,
                total: Box::pin(sleep_until(deadline)),
                idle: None,
            };
            respond(
                trace_id,
                StatusCode::OK,
                "text/event-stream",
                GatewayBody::new(relay),
            )
        }
        Err(failure) => {
            guard.fail(&failure);
            failure.error.into_response(Some(trace_id))
        }
    }
}

fn respond(
    trace_id: base::TraceId,
    status: StatusCode,
    content_type: &'static str,
    body: GatewayBody,
) -> Response<GatewayBody> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(TRACE_ID_HEADER, trace_header(trace_id));
    response
}

enum Answer {
    Whole {
        body: Bytes,
        status: StatusCode,
    },
    Stream {
        source: Source,
        held: VecDeque<Piece>,
        limits: Timeouts,
        deadline: Instant,
    },
}

enum Target {
    Local(String),
    Remote(Arc<Provider>, String),
}

/// The upstream side of a stream.
enum Source {
    Http(Box<HttpSource>),
    Local(Box<LocalSource>),
}

impl Source {
    fn poll_piece(
        &mut self,
        cx: &mut Context<'_>,
        meter: &mut Meter,
    ) -> Poll<Option<Result<Piece, Failure>>> {
        let polled = match self {
            Self::Http(source) => source.poll_piece(cx, meter),
            Self::Local(source) => source.poll_piece(cx, meter),
        };
        if let Poll::Ready(Some(Ok(piece))) = &polled {
            meter.generated_chunks += u64::from(piece.real);
        }
        polled
    }

    async fn next_piece(&mut self, meter: &mut Meter) -> Option<Result<Piece, Failure>> {
        std::future::poll_fn(|cx| self.poll_piece(cx, meter)).await
    }
}

/// What stays the same from the beginning to the end of a call.
struct Call<'a> {
    gateway: &'a Inner,
    kind: CallKind,
    plan: &'a Arc<Plan>,
    principal: &'a Principal,
}

/// A request that was read and understood. Its messages and parameters live in
/// the record, so that nothing is kept twice.
struct Prepared {
    request: Request,
    /// Rendered from the catalog, to stand around the caller's messages.
    prompt: prompt::Rendered,
    /// Parameters that the prompt has and the caller did not send.
    added: Map<String, Value>,
    stream: bool,
    wants_usage: bool,
}

impl Call<'_> {
    async fn answer(
        &self,
        context: CallContext,
        body: Bytes,
        guard: &mut Guard,
    ) -> Result<Answer, Failure> {
        let request = Request::read(body, &self.plan.limits)?;
        let model: Option<String> = request.field("model", "a text")?;
        guard.record_mut().request_model = model.clone().unwrap_or_default();
        let prepared = self.prepare(request, model.as_deref(), context, guard)?;
        let model = prompt::model_of_call(model, &prepared.prompt)?;
        let asked = &mut guard.record_mut().request_model;
        if asked.is_empty() {
            asked.clone_from(&model);
        }
        match self.resolve(&model)? {
            Target::Local(name) => {
                guard.set_target("local", "local", &name);
                guard.record_mut().attempts = 1;
                match self.kind {
                    CallKind::Chat => self.local_chat(&model, &name, &prepared, guard).await,
                    CallKind::Embedding => self.local_embed(&model, &name, guard).await,
                }
            }
            Target::Remote(provider, name) => {
                guard.set_target(provider.protocol.as_str(), &provider.name, &name);
                self.remote(&provider, &name, &prepared, guard).await
            }
        }
    }

    fn prepare(
        &self,
        request: Request,
        model: Option<&str>,
        mut context: CallContext,
        guard: &mut Guard,
    ) -> Result<Prepared, ApiError> {
        context.merge(request.extension()?);
        context.merge_prompt(request.prompt_fields()?, model)?;
        if model.is_none_or(str::is_empty) && context.prompt.is_none() {
            return Err(ApiError::invalid("model", "\"model\" is missing"));
        }
        let fields = request.parameters(&["model", "messages", "input"]);
        if context.user.is_none() {
            context.user = fields
                .get("user")
                .and_then(Value::as_str)
                .map(str::to_owned);
        }
        if let Some(Value::Object(metadata)) = fields.get("metadata") {
            for (name, value) in metadata {
                context
                    .metadata
                    .entry(name.clone())
                    .or_insert_with(|| value.clone());
            }
        }
        guard.set_context(&context);
        guard.record_mut().parameters = fields;
        let mut prepared = Prepared {
            request,
            prompt: prompt::Rendered::default(),
            added: Map::new(),
            stream: false,
            wants_usage: false,
        };
        match self.kind {
            CallKind::Chat => self.prepare_chat(&mut prepared, &context, guard)?,
            CallKind::Embedding => {
                let input: Option<Value> = prepared.request.field("input", "a text or a list")?;
                let input =
                    input.ok_or_else(|| ApiError::invalid("input", "\"input\" is missing"))?;
                guard.record_mut().input = match input {
                    Value::Array(list) => list,
                    one => vec![one],
                };
            }
        }
        Ok(prepared)
    }

    fn prepare_chat(
        &self,
        prepared: &mut Prepared,
        context: &CallContext,
        guard: &mut Guard,
    ) -> Result<(), ApiError> {
        let request = &prepared.request;
        prepared.stream = request.field("stream", "true or false")?.unwrap_or(false);
        guard.record_mut().streamed = prepared.stream;
        let messages: Option<Vec<Value>> = request.field("messages", "a list of messages")?;
        // A prompt can be the whole conversation.
        let messages = messages.or_else(|| context.prompt.as_ref().map(|_| Vec::new()));
        let mut messages =
            messages.ok_or_else(|| ApiError::invalid("messages", "\"messages\" is missing"))?;
        if let Some(wanted) = &context.prompt {
            let project = self.plan.projects.get(&self.principal.project);
            let empty = crate::plan::ProjectPlan::default();
            let project = project.map_or(&empty, |project| project.as_ref());
            let (found, rendered) = prompt::render(
                project,
                wanted,
                &self.principal.environment,
                context,
                &messages,
                self.plan.limits.prompt_bytes,
            )?;
            messages = rendered.around(&messages);
            let record = guard.record_mut();
            record.prompt = Some(found.used);
            record.arm = record.arm.take().or(found.arm);
            prepared.added = prompt::added_parameters(&record.parameters, &rendered);
            record.parameters.extend(prepared.added.clone());
            prepared.prompt = rendered;
        }
        if messages.is_empty() {
            return Err(ApiError::invalid(
                "messages",
                "\"messages\" must hold at least one message",
            ));
        }
        let record = guard.record_mut();
        record.input = messages;
        let options = record.parameters.get("stream_options");
        prepared.wants_usage = options.is_some_and(|options| options["include_usage"] == true);
        Ok(())
    }

    /// Finds the model, or says which one was probably meant.
    fn resolve(&self, model: &str) -> Result<Target, ApiError> {
        let project = self.plan.projects.get(&self.principal.project);
        match model.split_once('/') {
            Some(("local", name)) => {
                let kind = match self.kind {
                    CallKind::Chat => LocalKind::Chat,
                    CallKind::Embedding => LocalKind::Embedding,
                };
                match self
                    .gateway
                    .local
                    .list()
                    .iter()
                    .find(|known| known.name == name)
                {
                    Some(known) if known.kind == kind => Ok(Target::Local(name.to_owned())),
                    Some(_) => Err(ApiError::invalid(
                        "model",
                        format!("{model:?} is not a model for this kind of call"),
                    )),
                    None => Err(self.unknown(model)),
                }
            }
            Some((provider, name)) if !name.is_empty() => {
                let provider = project.and_then(|project| project.providers.get(provider));
                let provider = provider.ok_or_else(|| self.unknown(model))?;
                Ok(Target::Remote(provider.clone(), name.to_owned()))
            }
            _ => Err(self.unknown(model)),
        }
    }

    fn unknown(&self, model: &str) -> ApiError {
        let known = models(self.gateway, self.plan, self.principal);
        let ids = known.iter().map(|entry| entry.id.as_str());
        let hint = match crate::nearest(model, ids) {
            Some(near) => format!("did you mean {near:?}?"),
            None => "write local/NAME or PROVIDER/MODEL; GET /v1/models lists them".to_owned(),
        };
        let message = format!("the model {model:?} does not exist here; {hint}");
        let mut error = ApiError::new(StatusCode::NOT_FOUND, "model_not_found", message);
        error.param = Some("model".to_owned());
        error
    }

    // Local models.

    async fn local_chat(
        &self,
        shown: &str,
        name: &str,
        prepared: &Prepared,
        guard: &mut Guard,
    ) -> Result<Answer, Failure> {
        let checked = {
            let record = guard.record_mut();
            local::check_chat(name, &record.parameters, &record.input, &self.plan.limits)?
        };
        let answer = local::Answer {
            id: format!("chatcmpl-{}", guard.record_mut().span_id),
            model: shown.to_owned(),
            created_s: guard.started_s(),
            show_usage: prepared.wants_usage && prepared.stream,
        };
        guard.meter.response_id = Some(answer.id.clone());
        guard.meter.response_model = Some(name.to_owned());
        let limits = Timeouts::default();
        let deadline = Instant::now() + limits.total;
        let source = LocalSource::start(self.gateway.local.as_ref(), &checked, answer.clone());
        let source = Source::Local(Box::new(source));
        if prepared.stream {
            return hold(source, limits, deadline, "local", guard).await;
        }
        let finished = timeout_at(deadline, run_out(source, guard)).await;
        finished.map_err(|_| Failure::timeout("local", Wait::Total))??;
        guard.meter.generated_chunks = 1;
        Ok(whole(local::completion(&answer, &guard.meter).to_string()))
    }

    async fn local_embed(
        &self,
        shown: &str,
        name: &str,
        guard: &mut Guard,
    ) -> Result<Answer, Failure> {
        let request = {
            let record = guard.record_mut();
            local::check_embed(name, &record.parameters, &record.input, &self.plan.limits)?
        };
        let deadline = Instant::now() + Timeouts::default().total;
        let result = timeout_at(deadline, self.gateway.local.embed(request.embed.clone())).await;
        let result = result.map_err(|_| Failure::timeout("local", Wait::Total))??;
        guard.meter.response_model = Some(name.to_owned());
        guard.meter.usage = Some(Usage {
            input: result.input_tokens,
            ..Usage::default()
        });
        guard.meter.generated_chunks = 1;
        Ok(whole(
            local::embeddings(&request, shown, &result).to_string(),
        ))
    }

    // Providers.

    async fn remote(
        &self,
        provider: &Arc<Provider>,
        model: &str,
        prepared: &Prepared,
        guard: &mut Guard,
    ) -> Result<Answer, Failure> {
        let upstream = self.upstream(provider, model, prepared, guard.record_mut())?;
        let deadline = Instant::now() + provider.timeouts.total;
        let mut backoff = provider.retry.backoff;
        loop {
            guard.record_mut().attempts += 1;
            let attempt = Box::pin(self.attempt(provider, prepared, &upstream, deadline, guard));
            let failure = match timeout_at(deadline, attempt).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(failure)) => failure,
                Err(_) => Failure::timeout(&provider.name, Wait::Total),
            };
            let wait = match failure.retry {
                Again::No => return Err(failure),
                Again::Yes => backoff,
                Again::After(wait_ms) => Duration::from_millis(wait_ms.into()),
            };
            let used_up = guard.record_mut().attempts >= provider.retry.attempts.max(1);
            let too_long = wait > provider.retry.longest_wait || Instant::now() + wait >= deadline;
            if used_up || too_long {
                return Err(failure);
            }
            tracing::debug!(
                provider = provider.name,
                code = failure.error.code,
                "trying the provider again"
            );
            guard.meter = Meter::default();
            guard.record_mut().first_token_at = None;
            tokio::time::sleep(wait).await;
            backoff = backoff.saturating_mul(2);
        }
    }

    /// The request as the provider gets it; the same bytes for every attempt.
    fn upstream(
        &self,
        provider: &Provider,
        model: &str,
        prepared: &Prepared,
        record: &Record,
    ) -> Result<Bytes, ApiError> {
        match provider.protocol {
            Protocol::OpenAi => {
                let ask_usage =
                    prepared.stream && !prepared.wants_usage && provider.quirks.stream_usage;
                Ok(prepared.request.forward(&Changes {
                    model,
                    before: &prepared.prompt.before,
                    after: &prepared.prompt.after,
                    added: Some(&prepared.added),
                    ask_usage,
                }))
            }
            Protocol::Anthropic if self.kind == CallKind::Embedding => {
                let message = format!(
                    "the provider {:?} speaks the Anthropic protocol, which has no embeddings",
                    provider.name
                );
                Err(ApiError::invalid("model", message))
            }
            Protocol::Anthropic => {
                let body = anthropic::translate_request(
                    model,
                    &record.parameters,
                    &record.input,
                    prepared.stream,
                )?;
                Ok(body.to_string().into())
            }
        }
    }

    async fn attempt(
        &self,
        provider: &Arc<Provider>,
        prepared: &Prepared,
        upstream: &Bytes,
        deadline: Instant,
        guard: &mut Guard,
    ) -> Result<Answer, Failure> {
        let name = provider.name.as_str();
        let request = match (provider.protocol, self.kind) {
            (Protocol::OpenAi, CallKind::Chat) => {
                openai::request(provider, "chat/completions", upstream.clone())
            }
            (Protocol::OpenAi, CallKind::Embedding) => {
                openai::request(provider, "embeddings", upstream.clone())
            }
            (Protocol::Anthropic, _) => {
                anthropic::request(provider, "messages", Some(upstream.clone()))
            }
        };
        let request = request.map_err(|error| Failure::egress(name, &error))?;
        let allow = if provider.allow_private {
            Allow::Private
        } else {
            Allow::Public
        };
        let response = self
            .gateway
            .egress
            .send(request, allow, provider.timeouts.headers)
            .await;
        let (head, mut body) = response
            .map_err(|error| Failure::egress(name, &error))?
            .into_parts();
        guard.record_mut().provider_request_id = request_id(&head.headers);
        if !head.status.is_success() {
            let words = read_capped(&mut body, ERROR_BODY_BYTES, provider.timeouts.idle)
                .await
                .unwrap_or_default();
            return Err(Failure::status(
                provider,
                head.status,
                &head.headers,
                &words,
            ));
        }
        if !prepared.stream {
            let bytes = read_capped(
                &mut body,
                self.plan.limits.response_bytes,
                provider.timeouts.idle,
            )
            .await;
            let bytes = bytes.map_err(|error| Failure::egress(name, &error))?;
            return self.whole_answer(provider, bytes, guard);
        }
        if is_json(&head.headers) {
            let words = read_capped(&mut body, ERROR_BODY_BYTES, provider.timeouts.idle)
                .await
                .unwrap_or_default();
            return Err(not_a_stream(provider, &words));
        }
        let dialect = match provider.protocol {
            Protocol::OpenAi => {
                Dialect::OpenAi(openai::Stream::new(provider.clone(), !prepared.wants_usage))
            }
            Protocol::Anthropic => Dialect::Anthropic(Box::new(anthropic::Stream::new(
                provider.clone(),
                guard.started_s(),
                prepared.wants_usage,
            ))),
        };
        let source = HttpSource::new(
            provider.clone(),
            body,
            dialect,
            self.plan.limits.event_bytes,
        );
        hold(
            Source::Http(Box::new(source)),
            provider.timeouts,
            deadline,
            name,
            guard,
        )
        .await
    }

    fn whole_answer(
        &self,
        provider: &Provider,
        bytes: Bytes,
        guard: &mut Guard,
    ) -> Result<Answer, Failure> {
        guard.first_token();
        match (provider.protocol, self.kind) {
            (Protocol::OpenAi, CallKind::Chat) => {
                openai::completion(provider, &bytes, &mut guard.meter)?
            }
            (Protocol::OpenAi, CallKind::Embedding) => {
                openai::embeddings(provider, &bytes, &mut guard.meter)?
            }
            (Protocol::Anthropic, _) => {
                let created_s = guard.started_s();
                let answer =
                    anthropic::translate_answer(provider, &bytes, created_s, &mut guard.meter)?;
                return Ok(whole(answer.to_string()));
            }
        }
        Ok(Answer::Whole {
            body: bytes,
            status: StatusCode::OK,
        })
    }
}

fn whole(body: String) -> Answer {
    Answer::Whole {
        body: body.into(),
        status: StatusCode::OK,
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    kind.trim_start()
        .to_ascii_lowercase()
        .starts_with("application/json")
}

/// Some servers answer a stream request with status 200 and an error as JSON.
fn not_a_stream(provider: &Provider, words: &[u8]) -> Failure {
    let parsed: Option<Value> = serde_json::from_slice(words).ok();
    match parsed {
        Some(value) if value.get("error").is_some_and(|error| !error.is_null()) => {
            Failure::said(provider, 500, &value.to_string())
        }
        _ => Failure::garbage(
            &provider.name,
            "was asked for a stream and sent something else",
        ),
    }
}

fn request_id(headers: &HeaderMap) -> Option<String> {
    let value = headers
        .get("x-request-id")
        .or_else(|| headers.get("request-id"))?;
    Some(base::text::cut_bytes(value.to_str().ok()?, 200).to_owned())
}

/// Waits for the first real token, keeping what comes before it.
async fn hold(
    mut source: Source,
    limits: Timeouts,
    deadline: Instant,
    name: &str,
    guard: &mut Guard,
) -> Result<Answer, Failure> {
    let first = Instant::now() + limits.first_token;
    let mut held = VecDeque::new();
    let mut held_bytes = 0;
    loop {
        let piece = timeout_at(first.min(deadline), source.next_piece(&mut guard.meter)).await;
        let wait = if deadline < first {
            Wait::Total
        } else {
            Wait::FirstToken
        };
        let Some(piece) = piece.map_err(|_| Failure::timeout(name, wait))? else {
            break;
        };
        let piece = piece?;
        let commit = piece.real || piece.last;
        if piece.real {
            guard.first_token();
        }
        held_bytes += piece.bytes.len();
        held.push_back(piece);
        if commit || held.len() >= HELD_PIECES || held_bytes >= HELD_BYTES {
            break;
        }
    }
    Ok(Answer::Stream {
        source,
        held,
        limits,
        deadline,
    })
}

/// Runs a source to its end for an answer that is not streamed.
async fn run_out(mut source: Source, guard: &mut Guard) -> Result<(), Failure> {
    while let Some(piece) = source.next_piece(&mut guard.meter).await {
        if piece?.real {
            guard.first_token();
        }
    }
    Ok(())
}

/// The committed stream: gives out pieces, watches the clock, settles at the end.
struct Relay {
    /// Gone once the stream is over in any way.
    source: Option<Source>,
    held: VecDeque<Piece>,
    guard: Guard,
    limits: Timeouts,
    total: Pin<Box<Sleep>>,
    /// Runs only while the provider is waited for: a client that reads slowly is
    /// not the provider's fault.
    idle: Option<Idle>,
}

struct Idle {
    sleep: Pin<Box<Sleep>>,
    running: bool,
}

impl Relay {
    fn deliver(&mut self, piece: Piece) -> Frame<Bytes> {
        if piece.real {
            self.guard.first_token();
        }
        self.guard.delivered(piece.bytes.len(), piece.real);
        if piece.last {
            // The client may hang up at `[DONE]`; the call has ended well by then.
            self.guard.settle(CallStatus::Ok, None);
        }
        Frame::data(piece.bytes)
    }

    /// The one way a committed stream ends badly: an error event and no `[DONE]`.
    fn break_off(&mut self, failure: &Failure) -> Frame<Bytes> {
        self.source = None;
        let event = failure.error.stream_event();
        self.guard.delivered(event.len(), false);
        self.guard.fail(failure);
        Frame::data(event)
    }

    fn provider(&self) -> &str {
        self.guard
            .record
            .as_ref()
            .and_then(|record| record.provider.as_deref())
            .unwrap_or_default()
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
        let settled = this.guard.is_settled();
        // Also while pieces come without a pause, when nothing ever waits for the timer.
        if !settled && Instant::now() >= this.total.deadline() {
            let failure = Failure::timeout(this.provider(), Wait::Total);
            return Poll::Ready(Some(Ok(this.break_off(&failure))));
        }
        match source.poll_piece(cx, &mut this.guard.meter) {
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

/// Owns the record and settles it exactly once; a drop without a settlement is a
/// client that went away, a stopped process, or a panic.
pub(crate) struct Guard {
    permit: Option<Permit>,
    record: Option<Box<Record>>,
    meter: Meter,
    clock: Arc<dyn Clock>,
    plan: Arc<Plan>,
    model: String,
}

impl Guard {
    fn new(
        gateway: &Inner,
        permit: Permit,
        kind: CallKind,
        plan: &Arc<Plan>,
        principal: &Principal,
        context: &CallContext,
        request_bytes: usize,
    ) -> Self {
        let now = gateway.clock.now_us();
        let record = Record {
            trace_id: context.trace_id,
            span_id: gateway.ids.make(),
            parent_span_id: context.parent_span_id,
            parent: None,
            project: principal.project,
            environment: principal.environment.clone(),
            key_id: principal.key_id,
            caller: principal.user_id,
            kind: kind.into(),
            protocol: None,
            provider: None,
            request_model: String::new(),
            response_model: None,
            response_id: None,
            provider_request_id: None,
            prompt: None,
            app: None,
            arm: None,
            session: context.session.clone(),
            step: context.step,
            user: context.user.clone(),
            tags: context.tags.clone(),
            metadata: context.metadata.clone(),
            parameters: Map::new(),
            input: Vec::new(),
            output: Vec::new(),
            finish_reasons: Vec::new(),
            usage: None,
            cost: None,
            price_version: None,
            status: CallStatus::Cancelled,
            error: None,
            http_status: 499,
            streamed: false,
            started_at: now,
            first_token_at: None,
            ended_at: now,
            request_bytes: u64::try_from(request_bytes).unwrap_or(u64::MAX),
            response_bytes: 0,
            plan_revision: plan.revision.clone(),
            attempts: 0,
            generated_chunks: 0,
            delivered_chunks: 0,
        };
        Self {
            permit: Some(permit),
            record: Some(Box::new(record)),
            meter: Meter::default(),
            clock: gateway.clock.clone(),
            plan: plan.clone(),
            model: String::new(),
        }
    }

    /// The record that is being filled.
    #[expect(
        clippy::expect_used,
        reason = "a settled guard is not written to: a bug of ours, never input"
    )]
    fn record_mut(&mut self) -> &mut Record {
        self.record.as_mut().expect("the call is not settled yet")
    }

    fn is_settled(&self) -> bool {
        self.permit.is_none()
    }

    fn started_s(&self) -> i64 {
        self.record
            .as_ref()
            .map_or(0, |record| record.started_at / 1_000_000)
    }

    fn set_target(&mut self, protocol: &'static str, provider: &str, model: &str) {
        model.clone_into(&mut self.model);
        let record = self.record_mut();
        record.protocol = Some(protocol);
        record.provider = Some(provider.to_owned());
    }

    fn set_context(&mut self, context: &CallContext) {
        let record = self.record_mut();
        record.session.clone_from(&context.session);
        record.step = context.step;
        record.user.clone_from(&context.user);
        record.tags.clone_from(&context.tags);
        record.metadata.clone_from(&context.metadata);
    }

    fn first_token(&mut self) {
        let now = self.clock.now_us();
        if let Some(record) = &mut self.record {
            record.first_token_at.get_or_insert(now);
        }
    }

    fn delivered(&mut self, bytes: usize, real: bool) {
        if let Some(record) = &mut self.record {
            record.response_bytes += u64::try_from(bytes).unwrap_or(u64::MAX);
            record.delivered_chunks += u64::from(real);
        }
    }

    fn fail(&mut self, failure: &Failure) {
        let error = CallError {
            kind: failure.error.code.clone(),
            message: match &failure.detail {
                Some(detail) => detail.to_string(),
                None => failure.error.message.clone(),
            },
        };
        self.settle_with(
            CallStatus::Error,
            Some(error),
            failure.error.status.as_u16(),
        );
    }

    fn settle(&mut self, status: CallStatus, error: Option<CallError>) {
        self.settle_with(status, error, 200);
    }

    fn settle_with(&mut self, status: CallStatus, error: Option<CallError>, http_status: u16) {
        let (Some(permit), Some(mut record)) = (self.permit.take(), self.record.take()) else {
            return;
        };
        record.status = status;
        record.error = error;
        record.http_status = http_status;
        record.ended_at = self.clock.now_us();
        record.output = match record.kind {
            RecordKind::Embedding => Vec::new(),
            _ => self.meter.messages(),
        };
        record.finish_reasons = self.meter.finish_reasons();
        record.response_model = self.meter.response_model.take();
        record.response_id = self.meter.response_id.take();
        record.generated_chunks = self.meter.generated_chunks;
        record.usage = self.usage(&record);
        (record.cost, record.price_version) = self.price(&record);
        permit.settle(*record);
    }

    /// The provider's counts; where it sent none, or not the last ones, ours.
    fn usage(&self, record: &Record) -> Option<Usage> {
        let whole = record.status == CallStatus::Ok || self.meter.has_finished();
        match self.meter.usage {
            Some(usage) if whole => Some(usage),
            Some(usage) => {
                let output = usage.output.max(self.meter.estimated_output());
                Some(Usage {
                    output,
                    estimated: true,
                    ..usage
                })
            }
            // A cancelled call was sent, so its input was probably read and will be charged.
            None if self.meter.has_output()
                || (record.status == CallStatus::Cancelled && record.attempts > 0) =>
            {
                let input = record
                    .input
                    .iter()
                    .map(|message| estimate_tokens(&message.to_string()))
                    .sum();
                Some(Usage {
                    input,
                    output: self.meter.estimated_output(),
                    estimated: true,
                    ..Usage::default()
                })
            }
            None => None,
        }
    }

    fn price(&self, record: &Record) -> (Option<NanoUsd>, Option<String>) {
        let project = self.plan.projects.get(&record.project);
        let (Some(project), Some(usage), Some(provider)) =
            (project, &record.usage, &record.provider)
        else {
            return (None, None);
        };
        match project.prices.find(provider, &self.model) {
            Some(row) => (Some(row.cost(usage)), Some(project.prices.version.clone())),
            None => (None, None),
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let error = CallError {
                kind: "panic".to_owned(),
                message: "the call stopped by a bug".to_owned(),
            };
            self.settle_with(CallStatus::Error, Some(error), 500);
        } else {
            self.settle_with(CallStatus::Cancelled, None, 499);
        }
    }
}
