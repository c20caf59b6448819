//! Where guards look at an app beside its calls of models: what comes in, what its tools are sent
//! and answer, what it says, and steps that are there to check.
//!
//! Inside a run texts hold placeholders where values were taken out; values come back in what
//! tools are sent and in the app's answer. What a caller sends is read once, before any step.

use std::sync::Arc;

use base::SpanId;
use guard::{Form, Point, Source};
use http::StatusCode;
use serde_json::{Map, Value, json};

use super::ask::{Asked, assemble, inputs};
use super::compile::{Compiled, GuardWork};
use super::document::{OnBlock, OutputKind};
use super::expr::as_text;
use super::run::{Run, Said};
use crate::call::Caller;
use crate::context::CallContext;
use crate::error::ApiError;
use crate::failure::Failure;
use crate::guards::{AppGuards, Here, Refusal, refused, told_in};
use crate::plan::{GuardPolicy, Release};
use crate::record::AppUsed;
use crate::settle::Settler;

/// What the guards of one run of this release share.
pub(crate) fn guards_of(release: &Release, may_split: bool) -> Result<AppGuards, Failure> {
    let names = &release.app.document.guards;
    let policies = names.iter().map(|text| policy(release, text).cloned());
    Ok(AppGuards::new(
        policies.collect::<Result<_, _>>()?,
        may_split,
    ))
}

fn policy<'r>(release: &'r Release, text: &str) -> Result<&'r Arc<GuardPolicy>, Failure> {
    release.guards.get(text).ok_or_else(|| {
        let message = format!("the release has no {text:?}");
        ApiError::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "guard_not_found",
            message,
        )
        .into()
    })
}

/// The inputs as the steps see them: checked by the app's schema, then by its guards.
///
/// # Errors
/// An input is missing, wrong, or refused by a rule; a policy cannot run.
pub(crate) async fn take_in(
    caller: Caller<'_>,
    context: &CallContext,
    compiled: &Compiled,
    asked: &mut Asked,
    settler: &mut Settler,
) -> Result<Value, Failure> {
    let whole = inputs(&compiled.inputs, asked)?;
    let here = Here {
        caller,
        context,
        span: settler.span(),
        app: settler.record_mut().app.clone(),
        may_split: true,
    };
    let (watch, arm) = Box::pin(here.watch_whole_app()).await?;
    let record = settler.record_mut();
    record.arm = record.arm.take().or(arm);
    let Some(mut watch) = watch else {
        tell_inputs(context, asked);
        return Ok(whole);
    };
    let is_edited = Box::pin(watch.input(&mut asked.messages)).await?;
    let before = asked.variables.clone();
    for (name, value) in &mut asked.variables {
        let field = format!("inputs.{name}");
        if let Some(refusal) = Box::pin(watch.value(Point::Input, &field, value)).await {
            return Err(refused(&refusal, &field));
        }
    }
    tell_inputs(context, asked);
    let are_changed = before != asked.variables;
    if !is_edited && !are_changed {
        return Ok(whole);
    }
    let record = settler.record_mut();
    record.input.clone_from(&asked.messages);
    if are_changed {
        hide_inputs(&mut record.metadata, &asked.variables);
        if let Some(Value::Object(metadata)) = record.parameters.get_mut("metadata") {
            hide_inputs(metadata, &asked.variables);
        }
    }
    Ok(assemble(&compiled.inputs, asked))
}

/// What came in, as it may go on, is what an answer may stand on.
fn tell_inputs(context: &CallContext, asked: &Asked) {
    context.guards.tell_all(told_in(&asked.messages));
    for (name, value) in &asked.variables {
        context
            .guards
            .tell(Source::Input, &format!("inputs.{name}"), value);
    }
}

/// What was taken out of the inputs stands nowhere in the record.
fn hide_inputs(metadata: &mut Map<String, Value>, inputs: &Map<String, Value>) {
    if let Some(kept) = metadata.get_mut("inputs") {
        *kept = Value::Object(inputs.clone());
    }
}

fn withheld(refusal: &Refusal, what: &str) -> Failure {
    let mut failure = refused(refusal, "");
    failure.error.message = format!("{what} was withheld by {}", refusal.by());
    failure.error.param = None;
    failure
}

/// What a tool is called with, what it answered, and who may look at that.
pub(crate) struct ToolCall<'t> {
    pub name: &'t str,
    pub step: &'t str,
    /// The tool's own record.
    pub span: SpanId,
}

impl Run<'_> {
    fn here(&self, span: SpanId, step: Option<&str>) -> Here<'_> {
        Here {
            caller: self.caller,
            context: &self.context,
            span,
            app: Some(AppUsed {
                step: step.map(str::to_owned),
                ..self.used.clone()
            }),
            may_split: true,
        }
    }

    /// The arguments that expressions made, as they may go to the tool. Those that a model made
    /// were looked at in what it said.
    pub(crate) async fn guard_arguments(
        &self,
        call: &ToolCall<'_>,
        arguments: &mut Map<String, Value>,
    ) -> Result<(), Failure> {
        let here = self.here(call.span, Some(call.step));
        let Some(mut watch) = Box::pin(here.watch_app()).await? else {
            return Ok(());
        };
        let field = format!("tools.{}.arguments", call.name);
        let mut value = Value::Object(std::mem::take(arguments));
        let refusal = Box::pin(watch.value(Point::ToolArguments, &field, &mut value)).await;
        if let Some(refusal) = refusal {
            return Err(withheld(&refusal, "the tool's call"));
        }
        if let Value::Object(map) = value {
            *arguments = map;
        }
        Ok(())
    }

    /// What a tool answered, as it may go on; also what it said of an error.
    pub(crate) async fn guard_result(
        &self,
        call: &ToolCall<'_>,
        answer: Result<Value, Failure>,
    ) -> Result<Value, Failure> {
        let field = format!("tools.{}.result", call.name);
        let answer = self.let_in(call, &field, answer).await?;
        let guards = &self.context.guards;
        guards.tell(Source::ToolResult, &field, &answer);
        Ok(answer)
    }

    async fn let_in(
        &self,
        call: &ToolCall<'_>,
        field: &str,
        answer: Result<Value, Failure>,
    ) -> Result<Value, Failure> {
        let here = self.here(call.span, Some(call.step));
        let Some(mut watch) = Box::pin(here.watch_app()).await? else {
            return answer;
        };
        let (mut value, failure) = match answer {
            Ok(value) => (value, None),
            Err(failure) => (failure.error.message.clone().into(), Some(failure)),
        };
        let refusal = Box::pin(watch.value(Point::ToolResult, field, &mut value)).await;
        if let Some(refusal) = refusal {
            return Err(withheld(&refusal, "the tool's answer"));
        }
        match failure {
            None => Ok(value),
            Some(mut failure) => {
                failure.error.message = as_text(&value);
                Err(failure)
            }
        }
    }

    /// Runs a step that checks; its result as expressions see it.
    pub(crate) async fn guard_step(
        &self,
        id: &str,
        work: &GuardWork,
        mut value: Value,
        parent: SpanId,
    ) -> Result<Value, Failure> {
        let policy = policy(self.release, &work.guard)?;
        let here = self.here(parent, Some(id));
        let mut watch = Box::pin(here.watch_by(policy)).await?;
        if !watch.looks_at(work.point) {
            let point = json!(work.point);
            let message = format!(
                "the guard {:?} has no rule at the point {point}, so nothing would be checked",
                policy.name
            );
            let status = StatusCode::INTERNAL_SERVER_ERROR;
            return Err(ApiError::new(status, "guard_without_rule", message).into());
        }
        let refusal = Box::pin(watch.value(work.point, "on", &mut value)).await;
        if let Some(refusal) = &refusal
            && work.on_block == OnBlock::Stop
        {
            return Err(withheld(refusal, "what the step checks"));
        }
        let source = match work.point {
            Point::Retrieved => Some(Source::Retrieved),
            Point::ToolResult => Some(Source::ToolResult),
            _ => None,
        };
        if let Some(source) = source {
            let guards = &self.context.guards;
            guards.tell(source, &format!("steps.{id}"), &value);
        }
        let verdict = watch.verdict(refusal.as_ref());
        let text = as_text(&value);
        let json = if value.is_string() {
            Value::Null
        } else {
            value
        };
        Ok(json!({
            "text": text, "json": json, "skipped": false, "error": null,
            "decision": verdict.decision, "rule": verdict.rule, "findings": verdict.findings,
        }))
    }

    /// What the app says, as its guards let it through. What a model said is read once, there; an
    /// answer that was put together is read here.
    pub(crate) async fn guard_answer(&self, said: Said, root: SpanId) -> Result<Said, Failure> {
        let here = self.here(root, None);
        let Some(mut watch) = Box::pin(here.watch_app()).await? else {
            return Ok(said);
        };
        let is_json = self.compiled.output.kind == OutputKind::Json;
        let mut value = match is_json {
            true => serde_json::from_str(&said.text).unwrap_or_default(),
            false => Value::String(said.text),
        };
        let refusal = Box::pin(watch.value(Point::Output, "answer", &mut value)).await;
        let text = match (value, &refusal) {
            (Value::String(text), _) if !is_json => text,
            // A part of a document that is no document any more says nothing.
            (_, Some(_)) => String::new(),
            (value, None) => value.to_string(),
        };
        let finish = match &refusal {
            Some(_) => "content_filter".to_owned(),
            None => said.finish,
        };
        Ok(Said {
            text,
            finish,
            refusal: refusal.map(|refusal| refusal.sentence()).or(said.refusal),
        })
    }
}

/// How an app's answer is written.
pub(crate) fn form_of(kind: OutputKind) -> Form {
    match kind {
        OutputKind::Text => Form::Plain,
        OutputKind::Json => Form::Json,
    }
}
