//! A call of an app from its request to its answer.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use base::Usage;
use bytes::Bytes;
use http::{Response, StatusCode};
use serde_json::{Map, Value, json};
use tokio::sync::Semaphore;

use super::answer::{Envelope, LastStep, Speaking, Spoken, name_release};
use super::ask::{Asked, ask};
use super::choose::{Found, choose};
use super::compile::{Compiled, Work};
use super::document::OutputKind;
use super::guarded::{form_of, guards_of, take_in};
use super::run::{AT_A_TIME, Run, Said, Tally};
use super::speech::{Heard, Speaker, Speech};
use crate::body::GatewayBody;
use crate::call::{Caller, Read, begin, read_request, refuse, respond};
use crate::context::CallContext;
use crate::error::ApiError;
use crate::experiment::ArmUsed;
use crate::failure::Failure;
use crate::plan::{Plan, Principal, Release};
use crate::record::{AppUsed, CallStatus, RecordKind};
use crate::relay::Relay;
use crate::settle::{About, Part, Settler};
use crate::{Inner, request::Request};

/// The longest that an app may take to the beginning of its answer.
const LONGEST: Duration = Duration::from_secs(900);

/// Serves a call that means an app. The settler is the app's own record.
pub(crate) async fn serve(
    caller: Caller<'_>,
    found: Found,
    mut context: CallContext,
    request: Request,
    mut settler: Settler,
) -> Response<GatewayBody> {
    let trace_id = context.trace_id;
    settler.record_mut().kind = RecordKind::App;
    let asked = ask(&request, &mut context, &mut settler);
    let chosen = asked.and_then(|asked| Ok((asked, choose(caller, &found, &context)?)));
    let (asked, chosen) = match chosen {
        Ok(chosen) => chosen,
        Err(error) => return refuse(trace_id, &mut settler, error.into()),
    };
    for (release, arm) in chosen.shadows {
        let copy = Copy {
            plan: caller.plan.clone(),
            principal: caller.principal.clone(),
            context: context.clone(),
            body: request.body(),
            release,
            arm,
            parent: settler.span(),
        };
        let gateway = caller.gateway.clone();
        caller
            .gateway
            .shadows
            .start(async move { copy.run(&gateway).await });
    }
    settler.record_mut().arm = chosen.arm;
    let call = AppCall {
        caller,
        release: &chosen.release,
        number: Some(chosen.release.number),
        dry: false,
    };
    call.serve(asked, context, settler).await
}

/// Runs a release that is not in the plan: a draft that is tried out.
pub(crate) async fn serve_draft(
    caller: Caller<'_>,
    mut context: CallContext,
    release: &Arc<Release>,
    body: Bytes,
) -> Response<GatewayBody> {
    let trace_id = context.trace_id;
    let about = About {
        kind: RecordKind::App,
        principal: caller.principal,
        context: &context,
        part: Part::default(),
        request_bytes: body.len(),
    };
    let mut settler = match begin(caller.gateway, caller.plan, &about).await {
        Ok(settler) => settler,
        Err(error) => return error.into_response(Some(trace_id)),
    };
    let asked = read_request(caller.plan, body, &mut settler)
        .and_then(|Read { request, .. }| Ok(ask(&request, &mut context, &mut settler)?));
    match asked {
        Ok(asked) => {
            let call = AppCall {
                caller,
                release,
                number: None,
                dry: false,
            };
            call.serve(asked, context, settler).await
        }
        Err(failure) => refuse(trace_id, &mut settler, failure),
    }
}

/// A copy of a call for a release whose answer nobody sees.
struct Copy {
    plan: Arc<Plan>,
    principal: Principal,
    context: CallContext,
    body: Bytes,
    release: Arc<Release>,
    arm: ArmUsed,
    /// The served call, in whose trace the copy stands.
    parent: base::SpanId,
}

impl Copy {
    async fn run(mut self, gateway: &Arc<Inner>) {
        let about = About {
            kind: RecordKind::App,
            principal: &self.principal,
            context: &self.context,
            part: Part {
                parent: Some(self.parent),
                arm: Some(self.arm),
                ..Part::default()
            },
            request_bytes: self.body.len(),
        };
        let Ok(mut settler) = begin(gateway, &self.plan, &about).await else {
            return;
        };
        let asked = read_request(&self.plan, self.body, &mut settler)
            .and_then(|Read { request, .. }| Ok(ask(&request, &mut self.context, &mut settler)?));
        match asked {
            Ok(asked) => {
                let call = AppCall {
                    caller: Caller {
                        gateway,
                        plan: &self.plan,
                        principal: &self.principal,
                    },
                    release: &self.release,
                    number: Some(self.release.number),
                    dry: true,
                };
                let asked = Asked {
                    stream: false,
                    ..asked
                };
                call.serve(asked, self.context, settler).await;
            }
            Err(failure) => settler.fail(&failure),
        }
    }
}

/// A release that serves a call.
struct AppCall<'a> {
    caller: Caller<'a>,
    release: &'a Arc<Release>,
    /// None for a draft.
    number: Option<i64>,
    dry: bool,
}

/// What came out of a run.
enum Outcome {
    Computed(Said, Usage),
    Streaming(Box<Relay>, Usage),
    /// An agent that has begun to speak, and its first words.
    Speaking(Box<Speech>, String),
}

impl AppCall<'_> {
    async fn serve(
        &self,
        mut asked: Asked,
        context: CallContext,
        mut settler: Settler,
    ) -> Response<GatewayBody> {
        let mut context = of_steps(&context);
        let trace_id = context.trace_id;
        let used = AppUsed {
            name: self.release.name.clone(),
            release: self.number,
            digest: self.release.digest,
            step: None,
        };
        settler.record_mut().app = Some(used.clone());
        let run = Box::pin(self.run(&mut asked, &mut context, used, &mut settler));
        let outcome = match tokio::time::timeout(LONGEST, run).await {
            Ok(outcome) => outcome,
            Err(_) => Err(ApiError::new(
                StatusCode::GATEWAY_TIMEOUT,
                "app_timeout",
                format!(
                    "the app did not begin its answer in {} s",
                    LONGEST.as_secs()
                ),
            )
            .into()),
        };
        let envelope = Envelope {
            id: format!("chatcmpl-{}", settler.span()),
            model: self.release.name.clone(),
            created_s: settler.started_s(),
        };
        let mut response = match outcome {
            Ok(Outcome::Computed(said, usage)) => {
                settler.output = vec![said.message()];
                settler.meter.finish(0, &said.finish);
                let said = self.restored(said, &context);
                answer(trace_id, &asked, &envelope, &said, &usage, settler)
            }
            Ok(Outcome::Streaming(relay, before)) => {
                let body = LastStep {
                    relay: *relay,
                    settler,
                    envelope,
                    before,
                };
                let body = GatewayBody::new(body);
                respond(trace_id, StatusCode::OK, "text/event-stream", body)
            }
            Ok(Outcome::Speaking(speech, first)) => {
                let speech = Speaking {
                    speech: *speech,
                    guards: context.guards.clone(),
                    wants_usage: asked.wants_usage,
                };
                let body = Spoken::new(speech, first, settler, envelope);
                let body = GatewayBody::new(body);
                respond(trace_id, StatusCode::OK, "text/event-stream", body)
            }
            Err(failure) => refuse(trace_id, &mut settler, failure),
        };
        name_release(&mut response, self.release, self.number);
        response
    }

    /// What the caller gets: with values where the record has placeholders.
    fn restored(&self, said: Said, context: &CallContext) -> Said {
        let compiled = self.release.app.compiled();
        let kind = compiled.map_or(OutputKind::Text, |compiled| compiled.output.kind);
        let text = context.guards.restored(&said.text, form_of(kind));
        Said { text, ..said }
    }

    async fn run(
        &self,
        asked: &mut Asked,
        context: &mut CallContext,
        used: AppUsed,
        settler: &mut Settler,
    ) -> Result<Outcome, Failure> {
        let root = settler.span();
        let compiled = self.release.app.compiled().map_err(|problems| {
            let first = problems.first().map(ToString::to_string);
            let message = format!(
                "the app {:?} cannot run: {}",
                self.release.name,
                first.unwrap_or_default()
            );
            ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "app_broken", message)
        })?;
        // Drafts and calls that another experiment has split belong to no experiment of policies.
        let may_split = self.number.is_some() && settler.record_mut().arm.is_none();
        context.guards = guards_of(self.release, may_split)?;
        let taken = take_in(self.caller, context, compiled, asked, settler);
        let inputs = Box::pin(taken).await?;
        let run = Run {
            caller: self.caller,
            context: context.clone(),
            release: self.release,
            compiled,
            inputs,
            messages: &asked.messages,
            used,
            dry: self.dry,
            places: Semaphore::new(AT_A_TIME),
            tally: Arc::new(Mutex::new(Tally::default())),
        };
        let last = asked.stream.then(|| streamed_step(compiled)).flatten();
        let mut results = run.steps(root, last).await?;
        if let Some(at) = last {
            let step = &compiled.group.steps[at];
            let outcome = match &step.work {
                Work::Prompt(work) => {
                    let opened = run.stream_last(step, work, &results, root, asked.wants_usage);
                    let relay = opened.await?.map(Box::new);
                    relay.map(|relay| Outcome::Streaming(relay, run.tally().usage))
                }
                Work::Agent(work) => match run.agent_variables(step, &work.model, &results)? {
                    Some(variables) => Some(self.speak(&run, at, variables, root).await?),
                    None => None,
                },
                _ => None,
            };
            if let Some(outcome) = outcome {
                return Ok(outcome);
            }
            let skipped = json!({"text": "", "json": null, "skipped": true, "error": null});
            results.steps.insert(step.id.clone(), Arc::new(skipped));
        }
        let said = run.guard_answer(run.output(&results)?, root).await?;
        Ok(Outcome::Computed(said, run.tally().usage))
    }

    /// Starts the agent that is the last step, up to its first words: until then a
    /// failure is a whole response.
    async fn speak(
        &self,
        run: &Run<'_>,
        at: usize,
        variables: Map<String, Value>,
        root: base::SpanId,
    ) -> Result<Outcome, Failure> {
        let mut speech = Speech::new(Speaker {
            gateway: self.caller.gateway.clone(),
            plan: self.caller.plan.clone(),
            principal: self.caller.principal.clone(),
            context: run.context.clone(),
            release: self.release.clone(),
            inputs: run.inputs.clone(),
            messages: run.messages.to_vec(),
            used: run.used.clone(),
            dry: run.dry,
            tally: run.tally.clone(),
            at,
            variables,
            root,
        });
        match speech.next().await {
            Some(Heard::Text(first)) => Ok(Outcome::Speaking(Box::new(speech), first)),
            Some(Heard::End(said)) => Ok(Outcome::Computed(said?, run.tally().usage)),
            None => Ok(Outcome::Computed(Said::default(), run.tally().usage)),
        }
    }
}

/// What the records of steps carry: the app's own record has the rest.
fn of_steps(context: &CallContext) -> CallContext {
    CallContext {
        step: None,
        prompt: None,
        variables: serde_json::Map::new(),
        metadata: serde_json::Map::new(),
        ..context.clone()
    }
}

/// The step whose stream can be the app's: a prompt or an agent whose text is the
/// answer and which nothing waits for.
fn streamed_step(compiled: &Compiled) -> Option<usize> {
    let at = compiled.output.step?;
    let steps = &compiled.group.steps;
    let speaks = matches!(steps.get(at)?.work, Work::Prompt(_) | Work::Agent(_));
    let is_last = !steps.iter().any(|step| step.needs.contains(&at));
    (speaks && is_last).then_some(at)
}

/// An answer that is all there, in the shape that was asked for.
fn answer(
    trace_id: base::TraceId,
    asked: &Asked,
    envelope: &Envelope,
    said: &Said,
    usage: &Usage,
    mut settler: Settler,
) -> Response<GatewayBody> {
    let (kind, body) = if asked.stream {
        let usage = asked.wants_usage.then_some(usage);
        let events = envelope.events(said, usage);
        ("text/event-stream", events)
    } else {
        let whole = envelope.completion(said, usage);
        ("application/json", Bytes::from(whole.to_string()))
    };
    settler.delivered(body.len(), true);
    settler.settle(CallStatus::Ok, None);
    respond(trace_id, StatusCode::OK, kind, GatewayBody::full(body))
}
