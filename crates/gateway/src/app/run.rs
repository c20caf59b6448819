//! Runs an app: its steps, each as soon as what it needs is there.
//!
//! Everything happens inside the future of the call: no tasks, so a client that
//! goes away takes every step with it, and each step's settler settles its record.
//! Steps of one group run at the same time; a semaphore bounds how many calls of
//! models and tools one run makes at a time, however its chains are nested.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use base::{NanoUsd, SpanId, Usage};
use bytes::Bytes;
use futures_util::stream::FuturesUnordered;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use http::StatusCode;
use serde_json::{Map, Value, json};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::answer::sum;
use super::compile::{Compiled, CompiledStep, Group, ModelWork, Source, Work};
use super::expr::{Expression, Scope, Steps, as_text};
use super::tool::Arguments;
use crate::call::{Caller, Collected, begin};
use crate::context::{CallContext, PromptRef};
use crate::embedded;
use crate::error::ApiError;
use crate::failure::{Again, Failure};
use crate::plan::Release;
use crate::prompt::{Chosen, PromptItem, RenderWith};
use crate::record::{AppUsed, CallStatus, PromptUsed, RecordKind};
use crate::relay::Relay;
use crate::settle::{About, Part, Settler};

/// Calls of models and tools that one run makes at a time.
pub(crate) const AT_A_TIME: usize = 8;
/// Items of a `for_each`.
const MOST_ITEMS: usize = 100;

/// One run of an app.
pub(crate) struct Run<'a> {
    pub caller: Caller<'a>,
    /// What every record of the run carries: session, user, tags.
    pub context: CallContext,
    pub release: &'a Release,
    pub compiled: &'a Compiled,
    pub inputs: Value,
    /// The conversation.
    pub messages: &'a [Value],
    /// The app as a whole.
    pub used: AppUsed,
    /// Tools give their dry answers.
    pub dry: bool,
    pub places: Semaphore,
    pub tally: Arc<Mutex<Tally>>,
}

/// What the models of a run used.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Tally {
    pub usage: Usage,
    pub cost: NanoUsd,
}

/// A rendered prompt, with the models to ask.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub messages: Vec<Value>,
    pub parameters: Map<String, Value>,
    pub models: Vec<String>,
    /// The route that these are.
    pub route: Option<Arc<str>>,
    pub used: Option<PromptUsed>,
    /// What the records of its calls have to say of the rendering.
    pub note: Option<Value>,
}

/// What a model or an agent said.
#[derive(Debug, Default)]
pub(crate) struct Said {
    pub text: String,
    pub finish: String,
    /// Which rule of a guard withheld the rest.
    pub refusal: Option<String>,
}

impl Said {
    /// As a message of a conversation.
    pub(crate) fn message(&self) -> Value {
        let mut message = json!({"role": "assistant", "content": self.text});
        if let Some(refusal) = &self.refusal {
            message["refusal"] = refusal.as_str().into();
        }
        message
    }
}

/// The result of a step, and why its model stopped.
struct Outcome {
    value: Value,
    finish: Option<String>,
}

/// What a group left behind.
#[derive(Default)]
pub(crate) struct Results {
    pub steps: Steps,
    /// Why the model of each step stopped.
    pub finish: std::collections::HashMap<String, String>,
}

/// What a group runs in.
#[derive(Clone)]
struct Frame {
    outer: Steps,
    item: Option<(Arc<Value>, usize)>,
    span: SpanId,
}

type Job<'r> = Pin<Box<dyn Future<Output = Result<(usize, Outcome), Failure>> + Send + 'r>>;

impl<'a> Run<'a> {
    /// Runs all steps but this one.
    pub(crate) async fn steps(&self, root: SpanId, but: Option<usize>) -> Result<Results, Failure> {
        let frame = Frame {
            outer: Steps::new(),
            item: None,
            span: root,
        };
        self.group(&self.compiled.group, frame, but).await
    }

    async fn group(
        &self,
        group: &Group,
        frame: Frame,
        but: Option<usize>,
    ) -> Result<Results, Failure> {
        let mut results = Results {
            steps: frame.outer.clone(),
            ..Results::default()
        };
        let mut waits: Vec<usize> = group.steps.iter().map(|step| step.needs.len()).collect();
        if let Some(but) = but {
            waits[but] = usize::MAX;
        }
        let mut running: FuturesUnordered<Job<'_>> = FuturesUnordered::new();
        let mut ready: Vec<usize> = (0..waits.len()).filter(|at| waits[*at] == 0).collect();
        loop {
            for at in std::mem::take(&mut ready) {
                let step = &group.steps[at];
                let job = self.start(at, step, &results.steps, &frame);
                running.push(job.map_err(|failure| named(failure, &step.id))?);
            }
            let Some(finished) = running.next().await else {
                return Ok(results);
            };
            let (done, outcome) = finished?;
            let id = &group.steps[done].id;
            results.steps.insert(id.clone(), Arc::new(outcome.value));
            if let Some(finish) = outcome.finish {
                results.finish.insert(id.clone(), finish);
            }
            for (at, step) in group.steps.iter().enumerate() {
                if step.needs.contains(&done) && waits[at] != usize::MAX {
                    waits[at] -= 1;
                    if waits[at] == 0 {
                        ready.push(at);
                    }
                }
            }
        }
    }

    /// Evaluates what a step needs, and makes the work that is left.
    fn start<'r>(
        &'r self,
        at: usize,
        step: &'r CompiledStep,
        steps: &Steps,
        frame: &Frame,
    ) -> Result<Job<'r>, Failure> {
        let scope = self.scope(steps, frame);
        if !self.is_wanted(step, &scope)? {
            let mut skipped = skipped();
            if matches!(step.work, Work::Guard(_)) {
                skipped.value["decision"] = "skipped".into();
                skipped.value["rule"] = Value::Null;
                skipped.value["findings"] = json!([]);
            }
            return Ok(Box::pin(async move { Ok((at, skipped)) }));
        }
        let span = frame.span;
        let id = step.id.as_str();
        let work: Pin<Box<dyn Future<Output = Result<Outcome, Failure>> + Send + 'r>> =
            match &step.work {
                Work::Prompt(model) => {
                    let variables = values(&model.variables, &scope)?;
                    Box::pin(self.prompt_step(id, model, variables, span))
                }
                Work::Agent(work) => {
                    let variables = values(&work.model.variables, &scope)?;
                    Box::pin(async move {
                        let said = self.run_agent(id, work, variables, span, None).await?;
                        Ok(outcome(said, Value::Null))
                    })
                }
                Work::Tool { tool, arguments } => {
                    let arguments = values(arguments, &scope)?;
                    Box::pin(async move {
                        let _place = self.place().await?;
                        let call = self.call_tool(tool, Arguments::Made(arguments), span, id);
                        let answer = call.await?;
                        Ok(Outcome {
                            value: result(&as_text(&answer), answer),
                            finish: None,
                        })
                    })
                }
                Work::Chain { for_each, group } => {
                    let items = match for_each {
                        Some(for_each) => Some(items(for_each, &scope)?),
                        None => None,
                    };
                    let frame = Frame {
                        outer: steps.clone(),
                        item: frame.item.clone(),
                        span,
                    };
                    Box::pin(self.chain(id, group, items, frame))
                }
                Work::Guard(work) => {
                    let on = match &work.on {
                        Some(on) => on.run(&scope).map_err(|message| failed("on", &message))?,
                        None => Value::Null,
                    };
                    Box::pin(async move {
                        let value = self.guard_step(id, work, on, span).await?;
                        Ok(Outcome {
                            value,
                            finish: None,
                        })
                    })
                }
                Work::Missing(kind) => {
                    let message = format!("steps of the type {kind:?} are not available yet");
                    return Err(ApiError::new(
                        StatusCode::NOT_IMPLEMENTED,
                        "step_not_available",
                        message,
                    )
                    .into());
                }
            };
        Ok(Box::pin(async move {
            let outcome = work.await.map_err(|failure| named(failure, id))?;
            Ok((at, outcome))
        }))
    }

    fn scope<'s>(&'s self, steps: &'s Steps, frame: &'s Frame) -> Scope<'s> {
        Scope {
            inputs: &self.inputs,
            steps,
            item: frame.item.as_ref().map(|(item, at)| (&**item, *at)),
            named: &[],
        }
    }

    fn is_wanted(&self, step: &CompiledStep, scope: &Scope<'_>) -> Result<bool, Failure> {
        let Some(when) = &step.when else {
            return Ok(true);
        };
        match when
            .run(scope)
            .map_err(|message| failed("when", &message))?
        {
            Value::Bool(wanted) => Ok(wanted),
            _ => Err(failed("when", "the result is neither true nor false")),
        }
    }

    async fn prompt_step(
        &self,
        id: &str,
        work: &ModelWork,
        variables: Map<String, Value>,
        span: SpanId,
    ) -> Result<Outcome, Failure> {
        let prepared = self.render(id, work, &variables, span).await?;
        let answer = self.ask_models(id, &prepared, span).await?;
        let text = text_of(&answer.message);
        let json = if wants_json(&prepared.parameters) {
            parse_answer(&text)?
        } else {
            Value::Null
        };
        let finish = answer.finish_reason.unwrap_or_else(|| "stop".to_owned());
        let said = Said {
            text,
            finish,
            refusal: None,
        };
        Ok(outcome(said, json))
    }

    async fn chain(
        &self,
        id: &str,
        group: &Group,
        items: Option<Vec<Value>>,
        frame: Frame,
    ) -> Result<Outcome, Failure> {
        let mut settler = self.begin(RecordKind::Chain, frame.span, id).await?;
        let record = settler.record_mut();
        record.request_model = id.to_owned();
        record
            .input
            .clone_from(items.as_ref().unwrap_or(&Vec::new()));
        let span = settler.span();
        let done = match items {
            None => self.chain_once(group, Frame { span, ..frame }).await,
            Some(items) => self.chain_each(group, items, Frame { span, ..frame }).await,
        };
        match done {
            Ok(outcome) => {
                settler.output = vec![outcome.value.clone()];
                settler.settle(CallStatus::Ok, None);
                Ok(outcome)
            }
            Err(failure) => {
                settler.fail(&failure);
                Err(failure)
            }
        }
    }

    async fn chain_once(&self, group: &Group, frame: Frame) -> Result<Outcome, Failure> {
        let results = Box::pin(self.group(group, frame, None)).await?;
        let Some(last) = group.steps.last() else {
            return Ok(skipped());
        };
        let value = results.steps.get(&last.id);
        Ok(Outcome {
            value: value.map_or_else(|| skipped().value, |value| (**value).clone()),
            finish: results.finish.get(&last.id).cloned(),
        })
    }

    /// Once for each item, some at a time, results in the order of the items.
    async fn chain_each(
        &self,
        group: &Group,
        items: Vec<Value>,
        frame: Frame,
    ) -> Result<Outcome, Failure> {
        let each = stream::iter(items.into_iter().enumerate()).map(|(index, item)| {
            let frame = Frame {
                item: Some((Arc::new(item), index)),
                ..frame.clone()
            };
            self.chain_once(group, frame)
        });
        let done: Vec<Outcome> = each.buffered(AT_A_TIME).try_collect().await?;
        let texts: Vec<&str> = done
            .iter()
            .filter_map(|outcome| outcome.value["text"].as_str())
            .collect();
        let text = texts.join("\n");
        let list = done.iter().map(|outcome| match &outcome.value["json"] {
            Value::Null => outcome.value["text"].clone(),
            json => json.clone(),
        });
        Ok(Outcome {
            value: result(&text, list.collect()),
            finish: None,
        })
    }

    /// A place among the calls that run at a time.
    pub(crate) async fn place(&self) -> Result<SemaphorePermit<'_>, Failure> {
        let place = self.places.acquire().await;
        place.map_err(|_| {
            ApiError::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "stopping",
                "the call is over",
            )
            .into()
        })
    }

    /// Begins a record under a span, for a step.
    pub(crate) async fn begin(
        &self,
        kind: RecordKind,
        parent: SpanId,
        step: &str,
    ) -> Result<Settler, Failure> {
        let about = About {
            kind,
            principal: self.caller.principal,
            context: &self.context,
            part: self.part(parent, step, None),
            request_bytes: 0,
        };
        Ok(begin(self.caller.gateway, self.caller.plan, &about).await?)
    }

    fn part(&self, parent: SpanId, step: &str, prompt: Option<PromptUsed>) -> Part {
        Part {
            parent: Some(parent),
            app: Some(AppUsed {
                step: Some(step.to_owned()),
                ..self.used.clone()
            }),
            prompt,
            ..Part::default()
        }
    }

    /// Renders a prompt and puts the conversation where it belongs: into its place,
    /// or, where the prompt asks nothing itself, behind it.
    pub(crate) async fn render(
        &self,
        step: &str,
        work: &ModelWork,
        variables: &Map<String, Value>,
        parent: SpanId,
    ) -> Result<Prepared, Failure> {
        let (version, used) = match &work.prompt {
            Source::Inline(version) => (version, None),
            Source::Reference(text) => {
                let pinned = self.release.prompts.get(text).ok_or_else(|| {
                    let message = format!("the release has no {text:?}");
                    Failure::from(ApiError::new(
                        StatusCode::INTERNAL_SERVER_ERROR,
                        "prompt_not_found",
                        message,
                    ))
                })?;
                let wanted = PromptRef::from_reference(text).unwrap_or_default();
                let used = PromptUsed {
                    name: wanted.name,
                    version: pinned.number,
                    digest: pinned.version.digest,
                    label: wanted.label,
                };
                (&pinned.version, Some(used))
            }
        };
        let find = |text: &str| {
            let pinned = self.release.prompts.get(text)?;
            Some(pinned.version.clone())
        };
        let with = || RenderWith {
            variables,
            messages: self.messages,
            partials: &find,
            max_bytes: self.caller.plan.limits.prompt_bytes,
        };
        let (mut chosen, mut note) = (Chosen::new(), None);
        let wanted = version.to_choose(&with());
        if !wanted.is_empty() {
            let part = self.part(parent, step, used.clone());
            let choice = self.caller.choose_examples(wanted, &self.context, part);
            (chosen, note) = choice.await;
        }
        let rendered = version.render_chosen(&with(), &chosen);
        let rendered = rendered.map_err(|problems| {
            let words: Vec<String> = problems.iter().map(ToString::to_string).collect();
            let message = format!("its prompt cannot be rendered: {}", words.join("; "));
            Failure::from(ApiError::new(
                StatusCode::BAD_REQUEST,
                "prompt_not_rendered",
                message,
            ))
        })?;
        let has_place = version.document.messages.iter().any(|item| {
            matches!(item, PromptItem::Placeholder(place) if place.placeholder == "messages")
        });
        let alone = rendered.around(&[]);
        let asks = alone.iter().any(|message| message["role"] == "user");
        let messages = if has_place || !asks {
            rendered.around(self.messages)
        } else {
            alone
        };
        let mut parameters = rendered.parameters;
        parameters.extend(work.parameters.clone());
        let mut models = work.models.clone();
        if models.is_empty() {
            models.extend(rendered.model);
        }
        if models.is_empty() {
            let message = "neither the step nor its prompt names a model";
            return Err(ApiError::new(StatusCode::BAD_REQUEST, "no_model", message).into());
        }
        Ok(Prepared {
            messages,
            parameters,
            models,
            route: work.route.clone(),
            used,
            note,
        })
    }

    /// What a call of this and its record carry.
    fn context_of(&self, prepared: &Prepared) -> CallContext {
        let mut context = self.context.clone();
        context.guards = context.guards.by_route(prepared.route.clone());
        embedded::note(&mut context.metadata, prepared.note.clone());
        context
    }

    /// Asks the models one after the other until one answers.
    pub(crate) async fn ask_models(
        &self,
        step: &str,
        prepared: &Prepared,
        parent: SpanId,
    ) -> Result<Collected, Failure> {
        let _place = self.place().await?;
        let context = self.context_of(prepared);
        let mut models = prepared.models.iter().peekable();
        loop {
            let model = models.next().map(String::as_str).unwrap_or_default();
            let part = self.part(parent, step, prepared.used.clone());
            let body = body(model, prepared, None);
            match self.caller.collect(&context, part, body).await {
                Ok(answer) => {
                    self.count(answer.settled.usage, answer.settled.cost);
                    return Ok(answer);
                }
                Err(failure) if models.peek().is_some() && may_fall_back(&failure) => {
                    tracing::debug!(
                        step,
                        model,
                        code = failure.error.code,
                        "trying the next model"
                    );
                }
                Err(failure) => return Err(failure),
            }
        }
    }

    /// Like [`Run::ask_models`] for the last step, whose answer is the caller's: a
    /// model that has begun to answer is the one.
    pub(crate) async fn stream_last(
        &self,
        step: &CompiledStep,
        work: &ModelWork,
        results: &Results,
        root: SpanId,
        wants_usage: bool,
    ) -> Result<Option<Relay>, Failure> {
        let opened = self.open_last(step, work, results, root, wants_usage);
        opened.await.map_err(|failure| named(failure, &step.id))
    }

    async fn open_last(
        &self,
        step: &CompiledStep,
        work: &ModelWork,
        results: &Results,
        root: SpanId,
        wants_usage: bool,
    ) -> Result<Option<Relay>, Failure> {
        let frame = Frame {
            outer: Steps::new(),
            item: None,
            span: root,
        };
        let scope = self.scope(&results.steps, &frame);
        if !self.is_wanted(step, &scope)? {
            return Ok(None);
        }
        let variables = values(&work.variables, &scope)?;
        let prepared = self.render(&step.id, work, &variables, root).await?;
        let opened = self.stream_models(&step.id, &prepared, root, wants_usage);
        opened.await.map(Some)
    }

    /// Asks the models one after the other until one has begun to answer.
    pub(crate) async fn stream_models(
        &self,
        step: &str,
        prepared: &Prepared,
        parent: SpanId,
        wants_usage: bool,
    ) -> Result<Relay, Failure> {
        let context = self.context_of(prepared);
        let mut models = prepared.models.iter().peekable();
        loop {
            let model = models.next().map(String::as_str).unwrap_or_default();
            let part = self.part(parent, step, prepared.used.clone());
            let body = body(model, prepared, Some(wants_usage));
            match self.caller.stream(&context, part, body).await {
                Err(failure) if models.peek().is_some() && may_fall_back(&failure) => {}
                opened => return opened,
            }
        }
    }

    /// The variables of the last step, where that is an agent; none where it is skipped.
    pub(crate) fn agent_variables(
        &self,
        step: &CompiledStep,
        work: &ModelWork,
        results: &Results,
    ) -> Result<Option<Map<String, Value>>, Failure> {
        let frame = Frame {
            outer: Steps::new(),
            item: None,
            span: SpanId([0; 8]),
        };
        let scope = self.scope(&results.steps, &frame);
        let variables = match self.is_wanted(step, &scope) {
            Ok(true) => values(&work.variables, &scope).map(Some),
            Ok(false) => Ok(None),
            Err(failure) => Err(failure),
        };
        variables.map_err(|failure| named(failure, &step.id))
    }

    pub(crate) fn count(&self, usage: Option<Usage>, cost: Option<NanoUsd>) {
        let mut tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        tally.usage = sum(&tally.usage, &usage.unwrap_or_default());
        tally.cost = tally.cost + cost.unwrap_or_default();
    }

    /// What the models have used so far.
    pub(crate) fn tally(&self) -> Tally {
        *self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the app says once its steps are done: the text, and why it ended.
    pub(crate) fn output(&self, results: &Results) -> Result<Said, Failure> {
        let output = &self.compiled.output;
        let step = output.step.and_then(|at| self.compiled.group.steps.get(at));
        let finish = step.and_then(|step| results.finish.get(&step.id));
        let finish = finish.map_or("stop", String::as_str).to_owned();
        let value = match (&output.value, step) {
            (Some(value), _) => {
                let frame = Frame {
                    outer: Steps::new(),
                    item: None,
                    span: SpanId([0; 8]),
                };
                let scope = self.scope(&results.steps, &frame);
                value
                    .run(&scope)
                    .map_err(|message| failed("output", &message))?
            }
            (None, Some(step)) => {
                let result = results.steps.get(&step.id);
                let field = match output.kind {
                    super::OutputKind::Text => "text",
                    super::OutputKind::Json => "json",
                };
                result.map_or(Value::Null, |result| result[field].clone())
            }
            (None, None) => Value::Null,
        };
        let text = match output.kind {
            super::OutputKind::Text => as_text(&value),
            super::OutputKind::Json => value.to_string(),
        };
        Ok(Said {
            text,
            finish,
            refusal: None,
        })
    }
}

fn body(model: &str, prepared: &Prepared, stream: Option<bool>) -> Bytes {
    let mut body = Map::new();
    body.insert("model".to_owned(), model.into());
    body.insert("messages".to_owned(), prepared.messages.clone().into());
    body.extend(prepared.parameters.clone());
    if let Some(wants_usage) = stream {
        body.insert("stream".to_owned(), true.into());
        if wants_usage {
            let options = json!({ "include_usage": true });
            body.insert("stream_options".to_owned(), options);
        }
    }
    Value::Object(body).to_string().into()
}

/// Whether another model may do what this one did not: it was not the request.
fn may_fall_back(failure: &Failure) -> bool {
    let status = failure.error.status;
    failure.retry != Again::No
        || status.is_server_error()
        || status == StatusCode::TOO_MANY_REQUESTS
        || failure.error.code == "model_not_found"
}

fn values(
    expressions: &[(String, Expression)],
    scope: &Scope<'_>,
) -> Result<Map<String, Value>, Failure> {
    let mut map = Map::new();
    for (name, expression) in expressions {
        let value = expression.run(scope);
        map.insert(
            name.clone(),
            value.map_err(|message| failed(name, &message))?,
        );
    }
    Ok(map)
}

fn items(for_each: &Expression, scope: &Scope<'_>) -> Result<Vec<Value>, Failure> {
    let value = for_each
        .run(scope)
        .map_err(|message| failed("for_each", &message))?;
    match value {
        Value::Array(items) if items.len() <= MOST_ITEMS => Ok(items),
        Value::Array(items) => Err(failed(
            "for_each",
            &format!(
                "the list has {} items; at most {MOST_ITEMS} are allowed",
                items.len()
            ),
        )),
        _ => Err(failed("for_each", "the result is not a list")),
    }
}

fn failed(what: &str, message: &str) -> Failure {
    let message = format!("the expression of {what:?}: {message}");
    ApiError::new(
        StatusCode::INTERNAL_SERVER_ERROR,
        "expression_failed",
        message,
    )
    .into()
}

/// The failure of a step, with the step's id: the innermost one, where chains are nested.
pub(crate) fn named(mut failure: Failure, id: &str) -> Failure {
    const PARAM: &str = "steps.";
    let named = failure.error.param.as_deref();
    if !named.is_some_and(|param| param.starts_with(PARAM)) {
        failure.error.message = format!("step {id:?}: {}", failure.error.message);
        failure.error.param = Some(format!("{PARAM}{id}"));
    }
    failure
}

/// The result of a step as expressions see it.
fn result(text: &str, json: Value) -> Value {
    json!({ "text": text, "json": json, "skipped": false, "error": null })
}

fn skipped() -> Outcome {
    Outcome {
        value: json!({ "text": "", "json": null, "skipped": true, "error": null }),
        finish: None,
    }
}

fn outcome(said: Said, json: Value) -> Outcome {
    Outcome {
        value: result(&said.text, json),
        finish: Some(said.finish),
    }
}

fn text_of(message: &Value) -> String {
    message["content"].as_str().unwrap_or_default().to_owned()
}

fn wants_json(parameters: &Map<String, Value>) -> bool {
    let format = parameters.get("response_format");
    format.is_some_and(|format| {
        matches!(format["type"].as_str(), Some("json_object" | "json_schema"))
    })
}

/// Models like to put their JSON into a fence.
fn parse_answer(text: &str) -> Result<Value, Failure> {
    let inner = text.trim();
    let inner = inner
        .strip_prefix("```json")
        .or_else(|| inner.strip_prefix("```"))
        .and_then(|rest| rest.strip_suffix("```"))
        .unwrap_or(inner);
    serde_json::from_str(inner).map_err(|error| {
        let message = format!("the model's answer is not the JSON that it was asked for: {error}");
        ApiError::new(StatusCode::BAD_GATEWAY, "step_output_not_json", message).into()
    })
}
