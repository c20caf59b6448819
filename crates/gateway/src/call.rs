//! The life of one call: admit, resolve, attempt, hold, commit, relay, settle.
//!
//! ```text
//! connecting ──► holding ──► committed ──► settled
//!   retry          retry       error event,     exactly once, by the Settler,
//!                              never [DONE]     also when the future is dropped
//! ```
//! Until the first real token nothing has been sent, so a failure can still be
//! tried again or become a proper HTTP error. From then on the client sees a real
//! end or a real error. Five waits have a limit: connect (in the egress client),
//! headers, first token, idle, total. Dropping the response's body drops the
//! upstream connection at once: no task and no channel stand in between.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use base::{SpanId, Usage};
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use serde_json::{Map, Value};
use tokio::time::{Instant, timeout_at};

use crate::app;
use crate::body::{GatewayBody, TRACE_ID_HEADER, trace_header};
use crate::context::{CallContext, PromptRef};
use crate::egress::{Allow, read_capped};
use crate::embedded;
use crate::error::ApiError;
use crate::experiment;
use crate::failure::{Again, Failure, Wait};
use crate::guards::{self, Entire, Guarded, Mark, Watch};
use crate::local::LocalKind;
use crate::meter::Meter;
use crate::plan::{Plan, Principal, ProjectPlan, Protocol, Provider, Timeouts};
use crate::prompt;
use crate::providers::local::{self, LocalSource};
use crate::providers::{Dialect, HttpSource, anthropic, openai};
use crate::record::{Busy, CallKind, CallStatus, Permit, Record};
use crate::relay::{Relay, Source, Stream};
use crate::request::{Changes, Request};
use crate::settle::{About, Part, Settled, Settler};
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

/// Reserves the place of a record and begins it.
///
/// # Errors
/// The queue of records is full.
pub(crate) async fn begin(
    gateway: &Inner,
    plan: &Arc<Plan>,
    about: &About<'_>,
) -> Result<Settler, ApiError> {
    let permit = place_for_record(gateway, plan.limits.admission_wait).await;
    let permit = permit.map_err(|busy| {
        let message = "the record of this call could not be kept now; try again shortly";
        let mut error = ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", message);
        error.retry_after_s = Some(busy.retry_after_s);
        error
    })?;
    Ok(Settler::new(gateway, permit, plan, about))
}

/// Runs one call to the point where its response begins. `part` says what it is a
/// part of, where it is a copy of another call.
pub(crate) async fn run(
    caller: Caller<'_>,
    kind: CallKind,
    context: CallContext,
    body: Bytes,
    part: Part,
) -> Response<GatewayBody> {
    let Caller {
        gateway,
        plan,
        principal,
    } = caller;
    let trace_id = context.trace_id;
    let pinned = part.pinned;
    let about = About {
        kind: kind.into(),
        principal,
        context: &context,
        part,
        request_bytes: body.len(),
    };
    let mut settler = match begin(gateway, plan, &about).await {
        Ok(settler) => settler,
        Err(error) => return error.into_response(Some(trace_id)),
    };
    let call = Call {
        gateway,
        kind,
        plan,
        principal,
        pinned,
    };
    let read = match read_request(plan, body, &mut settler) {
        Ok(read) => read,
        Err(failure) => return refuse(trace_id, &mut settler, failure),
    };
    if kind == CallKind::Chat
        && let Some(found) = app::find(caller, &read)
    {
        let serving = app::serve(caller, found, context, read.request, settler);
        return Box::pin(serving).await;
    }
    match Box::pin(call.answer(read, context, &mut settler)).await {
        Ok(Answer::Whole { body, status }) => {
            settler.delivered(body.len(), true);
            settler.settle(CallStatus::Ok, None);
            respond(
                trace_id,
                status,
                "application/json",
                GatewayBody::full(body),
            )
        }
        Ok(Answer::Stream(stream)) => respond(
            trace_id,
            StatusCode::OK,
            "text/event-stream",
            GatewayBody::new(Relay::new(stream, settler)),
        ),
        Err(failure) => refuse(trace_id, &mut settler, failure),
    }
}

/// Settles a call that did not work, and says so.
pub(crate) fn refuse(
    trace_id: base::TraceId,
    settler: &mut Settler,
    failure: Failure,
) -> Response<GatewayBody> {
    settler.fail(&failure);
    failure.error.into_response(Some(trace_id))
}

/// One vector for each text, when they have come.
pub(crate) type Embedding<'c> =
    Pin<Box<dyn Future<Output = Result<Vec<Vec<f32>>, Failure>> + Send + 'c>>;

/// Whose call it is and what serves it.
#[derive(Clone, Copy)]
pub(crate) struct Caller<'a> {
    pub gateway: &'a Arc<Inner>,
    pub plan: &'a Arc<Plan>,
    pub principal: &'a Principal,
}

/// What a model answered, for callers in this process.
#[derive(Debug)]
pub(crate) struct Collected {
    /// The message of the first choice, in the OpenAI shape.
    pub message: Value,
    pub finish_reason: Option<String>,
    pub settled: Settled,
}

impl Caller<'_> {
    /// A chat call of a step: its own record, the whole answer.
    pub(crate) async fn collect(
        &self,
        context: &CallContext,
        part: Part,
        body: Bytes,
    ) -> Result<Collected, Failure> {
        let (mut settler, answer) = self.open(context, part, body).await?;
        match answer {
            Answer::Whole { body, .. } => settler.delivered(body.len(), true),
            // A body of ours never asks for a stream here; if it did, its end would be the same.
            Answer::Stream(stream) => {
                if let Err(failure) = run_out(stream.source, &mut settler).await {
                    settler.fail(&failure);
                    return Err(failure);
                }
            }
        }
        let message = settler.meter.messages().into_iter().next();
        let finish_reason = settler.meter.finish_reasons().into_iter().next();
        settler.settle(CallStatus::Ok, None);
        Ok(Collected {
            message: message.unwrap_or_default(),
            finish_reason,
            settled: settler.settled().cloned().unwrap_or_default(),
        })
    }

    /// A chat call of a step whose answer is the caller's: its own record, as a stream.
    pub(crate) async fn stream(
        &self,
        context: &CallContext,
        part: Part,
        body: Bytes,
    ) -> Result<Relay, Failure> {
        let (mut settler, answer) = self.open(context, part, body).await?;
        match answer {
            Answer::Stream(stream) => Ok(Relay::new(stream, settler)),
            Answer::Whole { .. } => {
                let name = settler.record_mut().provider.clone().unwrap_or_default();
                let failure = Failure::garbage(&name, "was asked for a stream and sent none");
                settler.fail(&failure);
                Err(failure)
            }
        }
    }

    /// Embeds texts: its own record, one vector for each text. Boxed, because it is
    /// called from inside of the calls that it is a part of.
    pub(crate) fn embed<'c>(
        &'c self,
        context: &'c CallContext,
        part: Part,
        model: &str,
        texts: &[String],
    ) -> Embedding<'c> {
        let body = Bytes::from(serde_json::json!({"model": model, "input": texts}).to_string());
        Box::pin(async move {
            let opened = self.open_kind(CallKind::Embedding, context, part, body);
            let (mut settler, answer) = opened.await?;
            let vectors = match &answer {
                Answer::Whole { body, .. } => {
                    settler.delivered(body.len(), true);
                    openai::read_vectors(body)
                }
                Answer::Stream(_) => None,
            };
            match vectors {
                Some(vectors) => {
                    settler.settle(CallStatus::Ok, None);
                    Ok(vectors)
                }
                None => {
                    let failure = Failure::garbage(settler.provider(), "sent no embeddings");
                    settler.fail(&failure);
                    Err(failure)
                }
            }
        })
    }

    async fn open(
        &self,
        context: &CallContext,
        part: Part,
        body: Bytes,
    ) -> Result<(Settler, Answer), Failure> {
        self.open_kind(CallKind::Chat, context, part, body).await
    }

    async fn open_kind(
        &self,
        kind: CallKind,
        context: &CallContext,
        part: Part,
        body: Bytes,
    ) -> Result<(Settler, Answer), Failure> {
        let about = About {
            kind: kind.into(),
            principal: self.principal,
            context,
            part,
            request_bytes: body.len(),
        };
        let mut settler = begin(self.gateway, self.plan, &about).await?;
        let call = Call {
            gateway: self.gateway,
            kind,
            plan: self.plan,
            principal: self.principal,
            pinned: None,
        };
        let read = read_request(self.plan, body, &mut settler);
        let answer = match read {
            Ok(read) => Box::pin(call.answer(read, context.clone(), &mut settler)).await,
            Err(failure) => Err(failure),
        };
        match answer {
            Ok(answer) => Ok((settler, answer)),
            Err(failure) => {
                settler.fail(&failure);
                Err(failure)
            }
        }
    }
}

/// A request, with the model that it names.
pub(crate) struct Read {
    pub request: Request,
    pub model: Option<String>,
}

pub(crate) fn respond(
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
    Whole { body: Bytes, status: StatusCode },
    Stream(Stream),
}

enum Target {
    Local(String),
    Remote(Arc<Provider>, String),
}

/// A copy of a call whose answer nobody sees. Boxed, because it is started from
/// inside of the call that it copies.
fn copy(
    gateway: Arc<Inner>,
    plan: Arc<Plan>,
    principal: Principal,
    context: CallContext,
    body: Bytes,
    part: Part,
) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    Box::pin(async move {
        let caller = Caller {
            gateway: &gateway,
            plan: &plan,
            principal: &principal,
        };
        let response = run(caller, CallKind::Chat, context, body, part).await;
        response.into_body().drain().await;
    })
}

/// Reads a body as far as its model's name.
pub(crate) fn read_request(
    plan: &Plan,
    body: Bytes,
    settler: &mut Settler,
) -> Result<Read, Failure> {
    let request = Request::read(body, &plan.limits)?;
    let model: Option<String> = request.field("model", "a text")?;
    settler.record_mut().request_model = model.clone().unwrap_or_default();
    Ok(Read { request, model })
}

/// Takes over what a request attaches to its call, and gives its other fields out.
pub(crate) fn attach(
    request: &Request,
    model: Option<&str>,
    context: &mut CallContext,
    settler: &mut Settler,
) -> Result<Map<String, Value>, ApiError> {
    context.merge(request.extension()?);
    context.merge_prompt(request.prompt_fields()?, model)?;
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
    settler.set_context(context);
    Ok(fields)
}

/// What stays the same from the beginning to the end of a call.
struct Call<'a> {
    gateway: &'a Arc<Inner>,
    kind: CallKind,
    plan: &'a Arc<Plan>,
    principal: &'a Principal,
    /// The prompt's version, where this is a copy for that version.
    pinned: Option<i64>,
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
    /// A guard changed the conversation; the record's is the one that counts.
    is_edited: bool,
    /// What goes up at the end of the instructions and stands in no record.
    hidden: Option<String>,
}

impl Prepared {
    /// The conversation as it goes up, from that of the record.
    fn outgoing<'m>(&self, input: &'m [Value]) -> Cow<'m, [Value]> {
        match &self.hidden {
            Some(sentence) => guards::with_sentence(input, sentence).into(),
            None => input.into(),
        }
    }
}

impl Call<'_> {
    async fn answer(
        &self,
        read: Read,
        context: CallContext,
        settler: &mut Settler,
    ) -> Result<Answer, Failure> {
        let Read { request, model } = read;
        let (mut prepared, context) = self
            .prepare(request, model.as_deref(), context, settler)
            .await?;
        let model = prompt::model_of_call(model, &prepared.prompt)?;
        let asked = &mut settler.record_mut().request_model;
        if asked.is_empty() {
            asked.clone_from(&model);
        }
        let target = self.resolve(&model)?;
        let watch = Box::pin(guards::watch(self.caller(), &context, settler, &model)).await?;
        let Some(mut watch) = watch else {
            return self.serve(target, &model, &prepared, settler).await;
        };
        let input = &mut settler.record_mut().input;
        if self.kind == CallKind::Embedding {
            prepared.is_edited = Box::pin(watch.texts(input)).await?;
            return self.serve(target, &model, &prepared, settler).await;
        }
        prepared.is_edited = Box::pin(watch.input(input)).await?;
        if let Some(Mark { mark, sentence }) = watch.hide_mark() {
            prepared.hidden = Some(sentence);
            settler.mark = Some(mark);
        }
        let answer = self.serve(target, &model, &prepared, settler).await?;
        Box::pin(self.guard(answer, watch, settler)).await
    }

    /// What guards let through of an answer.
    async fn guard(
        &self,
        answer: Answer,
        mut watch: Watch,
        settler: &mut Settler,
    ) -> Result<Answer, Failure> {
        if !watch.looks_at_answers() {
            return Ok(answer);
        }
        if matches!(answer, Answer::Stream(_)) {
            // Nothing counts as said before it was let through, whoever goes away when.
            settler.meter.show_only();
        }
        let sign_of_life = self.plan.limits.sign_of_life;
        match answer {
            Answer::Stream(stream) if watch.may_rewrite() => {
                let asked = settler.record_mut().clone();
                let source = Entire::new(stream.source, stream.held, watch, asked, sign_of_life);
                Ok(Answer::Stream(Stream {
                    source: Source::Entire(Box::new(source)),
                    held: VecDeque::new(),
                    ..stream
                }))
            }
            Answer::Stream(stream) => {
                let wanted = &settler.record_mut().parameters;
                let wanted = wanted.get("n").and_then(Value::as_u64).unwrap_or(1);
                let wanted = usize::try_from(wanted).unwrap_or(1);
                let source = Guarded::new(stream.source, stream.held, watch, wanted, sign_of_life);
                Ok(Answer::Stream(Stream {
                    source: Source::Guarded(Box::new(source)),
                    held: VecDeque::new(),
                    ..stream
                }))
            }
            Answer::Whole { body, status } => {
                // It was read as JSON before; anything else has no text that a client would show.
                let Ok(mut answer) = serde_json::from_slice::<Value>(&body) else {
                    return Ok(Answer::Whole { body, status });
                };
                let is_changed = watch.answer(&mut answer, settler.record_mut()).await;
                if is_changed {
                    settler.meter.show_completion(&answer);
                }
                if watch.restore(&mut answer) || is_changed {
                    return Ok(whole(answer.to_string()));
                }
                Ok(Answer::Whole { body, status })
            }
        }
    }

    fn caller(&self) -> Caller<'_> {
        Caller {
            gateway: self.gateway,
            plan: self.plan,
            principal: self.principal,
        }
    }

    /// Asks whoever has the model.
    async fn serve(
        &self,
        target: Target,
        model: &str,
        prepared: &Prepared,
        settler: &mut Settler,
    ) -> Result<Answer, Failure> {
        match target {
            Target::Local(name) => {
                settler.set_target("local", "local", &name);
                settler.record_mut().attempts = 1;
                match self.kind {
                    CallKind::Chat => self.local_chat(model, &name, prepared, settler).await,
                    CallKind::Embedding => self.local_embed(model, &name, settler).await,
                }
            }
            Target::Remote(provider, name) => {
                settler.set_target(provider.protocol.as_str(), &provider.name, &name);
                self.remote(&provider, &name, prepared, settler).await
            }
        }
    }

    async fn prepare(
        &self,
        request: Request,
        model: Option<&str>,
        mut context: CallContext,
        settler: &mut Settler,
    ) -> Result<(Prepared, CallContext), ApiError> {
        let fields = attach(&request, model, &mut context, settler)?;
        if model.is_none_or(str::is_empty) && context.prompt.is_none() {
            return Err(ApiError::invalid("model", "\"model\" is missing"));
        }
        settler.record_mut().parameters = fields;
        let mut prepared = Prepared {
            request,
            prompt: prompt::Rendered::default(),
            added: Map::new(),
            stream: false,
            wants_usage: false,
            is_edited: false,
            hidden: None,
        };
        match self.kind {
            CallKind::Chat => self.prepare_chat(&mut prepared, &context, settler).await?,
            CallKind::Embedding => {
                let input: Option<Value> = prepared.request.field("input", "a text or a list")?;
                let input =
                    input.ok_or_else(|| ApiError::invalid("input", "\"input\" is missing"))?;
                settler.record_mut().input = match input {
                    Value::Array(list) => list,
                    one => vec![one],
                };
            }
        }
        Ok((prepared, context))
    }

    async fn prepare_chat(
        &self,
        prepared: &mut Prepared,
        context: &CallContext,
        settler: &mut Settler,
    ) -> Result<(), ApiError> {
        let request = &prepared.request;
        prepared.stream = request.field("stream", "true or false")?.unwrap_or(false);
        settler.record_mut().streamed = prepared.stream;
        let messages: Option<Vec<Value>> = request.field("messages", "a list of messages")?;
        // A prompt can be the whole conversation.
        let messages = messages.or_else(|| context.prompt.as_ref().map(|_| Vec::new()));
        let mut messages =
            messages.ok_or_else(|| ApiError::invalid("messages", "\"messages\" is missing"))?;
        if let Some(wanted) = &context.prompt {
            let pinned;
            let wanted = match self.pinned {
                Some(number) => {
                    pinned = wanted.pinned(number);
                    &pinned
                }
                None => wanted,
            };
            let project = self.plan.projects.get(&self.principal.project);
            let empty = crate::plan::ProjectPlan::default();
            let project = project.map_or(&empty, |project| project.as_ref());
            let environment = &self.principal.environment;
            let found = prompt::find_prompt(project, wanted, environment, context)?;
            let (rendered, note) = self
                .render(project, &found, context, &messages, settler.span())
                .await?;
            messages = rendered.around(&messages);
            if let Some(label) = &found.used.label {
                self.copy_call(project, wanted, label, request, context, settler.span());
            }
            let record = settler.record_mut();
            embedded::note(&mut record.metadata, note);
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
        let record = settler.record_mut();
        record.input = messages;
        let options = record.parameters.get("stream_options");
        prepared.wants_usage = options.is_some_and(|options| options["include_usage"] == true);
        Ok(())
    }

    /// Renders the call's prompt. The second is what its record has to say of that.
    async fn render(
        &self,
        project: &ProjectPlan,
        found: &prompt::FoundPrompt,
        context: &CallContext,
        messages: &[Value],
        span: SpanId,
    ) -> Result<(prompt::Rendered, Option<Value>), ApiError> {
        let (mut chosen, mut note) = (prompt::Chosen::new(), None);
        let partials = |reference: &str| prompt::refer(project, reference);
        let with = || prompt::RenderWith {
            variables: &context.variables,
            messages,
            partials: &partials,
            max_bytes: self.plan.limits.prompt_bytes,
        };
        let wanted = found.version.to_choose(&with());
        if !wanted.is_empty() {
            let caller = self.caller();
            let part = Part {
                parent: Some(span),
                prompt: Some(found.used.clone()),
                ..Part::default()
            };
            (chosen, note) = caller.choose_examples(wanted, context, part).await;
        }
        let rendered = found.version.render_chosen(&with(), &chosen);
        let name = &found.used.name;
        Ok((
            rendered.map_err(|problems| prompt::unusable(name, &problems))?,
            note,
        ))
    }

    /// Starts copies of the call for the versions that stand in the shadow of the
    /// served one.
    fn copy_call(
        &self,
        project: &ProjectPlan,
        wanted: &PromptRef,
        label: &str,
        request: &Request,
        context: &CallContext,
        span: SpanId,
    ) {
        if project.experiments.is_empty() {
            return;
        }
        let target = experiment::Target::Prompt {
            name: wanted.name.clone(),
            label: label.to_owned(),
        };
        let Some(experiment) = project.experiments.get(&target) else {
            return;
        };
        for (arm, used) in experiment.shadows(&context.unit(experiment.unit)) {
            let part = Part {
                parent: Some(span),
                arm: Some(used),
                pinned: Some(arm.number),
                ..Part::default()
            };
            self.gateway.shadows.start(copy(
                self.gateway.clone(),
                self.plan.clone(),
                self.principal.clone(),
                context.clone(),
                request.body(),
                part,
            ));
        }
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
        settler: &mut Settler,
    ) -> Result<Answer, Failure> {
        let checked = {
            let record = settler.record_mut();
            let input = prepared.outgoing(&record.input);
            local::check_chat(name, &record.parameters, &input, &self.plan.limits)?
        };
        let answer = local::Answer {
            id: format!("chatcmpl-{}", settler.record_mut().span_id),
            model: shown.to_owned(),
            created_s: settler.started_s(),
            show_usage: prepared.wants_usage && prepared.stream,
        };
        settler.meter.response_id = Some(answer.id.clone());
        settler.meter.response_model = Some(name.to_owned());
        let limits = Timeouts::default();
        let deadline = Instant::now() + limits.total;
        let source = LocalSource::start(self.gateway.local.as_ref(), &checked, answer.clone());
        let source = Source::Local(Box::new(source));
        if prepared.stream {
            return hold(source, limits, deadline, "local", settler).await;
        }
        let finished = timeout_at(deadline, run_out(source, settler)).await;
        finished.map_err(|_| Failure::timeout("local", Wait::Total))??;
        settler.meter.generated_chunks = 1;
        Ok(whole(
            local::completion(&answer, &settler.meter).to_string(),
        ))
    }

    async fn local_embed(
        &self,
        shown: &str,
        name: &str,
        settler: &mut Settler,
    ) -> Result<Answer, Failure> {
        let request = {
            let record = settler.record_mut();
            local::check_embed(name, &record.parameters, &record.input, &self.plan.limits)?
        };
        let deadline = Instant::now() + Timeouts::default().total;
        let result = timeout_at(deadline, self.gateway.local.embed(request.embed.clone())).await;
        let result = result.map_err(|_| Failure::timeout("local", Wait::Total))??;
        settler.meter.response_model = Some(name.to_owned());
        settler.meter.usage = Some(Usage {
            input: result.input_tokens,
            ..Usage::default()
        });
        settler.meter.generated_chunks = 1;
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
        settler: &mut Settler,
    ) -> Result<Answer, Failure> {
        let upstream = self.upstream(provider, model, prepared, settler.record_mut())?;
        let deadline = Instant::now() + provider.timeouts.total;
        let mut backoff = provider.retry.backoff;
        loop {
            settler.record_mut().attempts += 1;
            let attempt = Box::pin(self.attempt(provider, prepared, &upstream, deadline, settler));
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
            let used_up = settler.record_mut().attempts >= provider.retry.attempts.max(1);
            let too_long = wait > provider.retry.longest_wait || Instant::now() + wait >= deadline;
            if used_up || too_long {
                return Err(failure);
            }
            tracing::debug!(
                provider = provider.name,
                code = failure.error.code,
                "trying the provider again"
            );
            settler.meter = Meter::default();
            settler.record_mut().first_token_at = None;
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
        let input = prepared.outgoing(&record.input);
        let is_other = prepared.is_edited || prepared.hidden.is_some();
        let is_chat = self.kind == CallKind::Chat;
        match provider.protocol {
            Protocol::OpenAi => {
                let ask_usage =
                    prepared.stream && !prepared.wants_usage && provider.quirks.stream_usage;
                Ok(prepared.request.forward(&Changes {
                    model,
                    before: &prepared.prompt.before,
                    after: &prepared.prompt.after,
                    messages: (is_other && is_chat).then_some(&*input),
                    input: (is_other && !is_chat).then_some(&*input),
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
                    &input,
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
        settler: &mut Settler,
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
        settler.record_mut().provider_request_id = request_id(&head.headers);
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
            return self.whole_answer(provider, bytes, settler);
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
                settler.started_s(),
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
            settler,
        )
        .await
    }

    fn whole_answer(
        &self,
        provider: &Provider,
        bytes: Bytes,
        settler: &mut Settler,
    ) -> Result<Answer, Failure> {
        settler.first_token();
        match (provider.protocol, self.kind) {
            (Protocol::OpenAi, CallKind::Chat) => {
                openai::completion(provider, &bytes, &mut settler.meter)?
            }
            (Protocol::OpenAi, CallKind::Embedding) => {
                openai::embeddings(provider, &bytes, &mut settler.meter)?
            }
            (Protocol::Anthropic, _) => {
                let created_s = settler.started_s();
                let answer =
                    anthropic::translate_answer(provider, &bytes, created_s, &mut settler.meter)?;
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
    settler: &mut Settler,
) -> Result<Answer, Failure> {
    let first = Instant::now() + limits.first_token;
    let mut held = VecDeque::new();
    let mut held_bytes = 0;
    loop {
        let piece = timeout_at(first.min(deadline), source.next_piece(&mut settler.meter)).await;
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
            settler.first_token();
        }
        held_bytes += piece.bytes.len();
        held.push_back(piece);
        if commit || held.len() >= HELD_PIECES || held_bytes >= HELD_BYTES {
            break;
        }
    }
    Ok(Answer::Stream(Stream {
        source,
        held,
        limits,
        deadline,
    }))
}

/// Runs a source to its end for an answer that is not streamed.
async fn run_out(mut source: Source, settler: &mut Settler) -> Result<(), Failure> {
    while let Some(piece) = source.next_piece(&mut settler.meter).await {
        if piece?.real {
            settler.first_token();
        }
    }
    Ok(())
}
