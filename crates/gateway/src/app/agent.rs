//! An agent: a model that calls tools until it has an answer, or a limit is reached.
//!
//! The loop is bounded four ways: calls of the model, cost, time, and the same
//! call of a tool again and again. What a tool answers, errors included, is given
//! to the model as it is: it may try something else.

use std::collections::HashMap;
use std::pin::Pin;
use std::time::Duration;

use base::{NanoUsd, SpanId};
use futures_util::StreamExt as _;
use futures_util::stream;
use http::StatusCode;
use http_body::Body as _;
use serde_json::{Map, Value, json};
use tokio::time::{Instant, timeout_at};

use super::compile::AgentWork;
use super::document::AgentLimits;
use super::expr::as_text;
use super::run::{Prepared, Run, Said};
use super::speech::Voice;
use super::tool::Arguments;
use crate::call::Collected;
use crate::error::ApiError;
use crate::failure::Failure;
use crate::record::{CallStatus, RecordKind};
use crate::relay::Relay;
use crate::settle::Settled;

const DEFAULT_STEPS: u32 = 8;
const DEFAULT_SECONDS: u32 = 120;
/// Tool calls of one turn that run at a time.
const PARALLEL_TOOLS: usize = 4;
/// Tool calls of one turn.
const MOST_TOOL_CALLS: usize = 32;
/// The same call of the same tool so often is a circle.
const MOST_REPEATS: usize = 3;

type Pending<'a> = Pin<Box<dyn Future<Output = Value> + Send + 'a>>;

/// Why an agent stopped before it had an answer.
struct Limit(String);

impl Limit {
    fn time(seconds: u32) -> Self {
        Self(format!("it took {seconds} s"))
    }
}

/// How a turn ended.
enum Turn {
    Answered(Box<Collected>),
    Over(Limit),
}

/// When an agent's time is over, and how long it was.
#[derive(Clone, Copy)]
struct Time {
    end: Instant,
    seconds: u32,
}

impl Run<'_> {
    /// Runs an agent to its answer. With a voice it is heard while it works, and
    /// what it said is all that it said.
    pub(crate) async fn run_agent(
        &self,
        step: &str,
        work: &AgentWork,
        variables: Map<String, Value>,
        parent: SpanId,
        voice: Option<&mut Voice>,
    ) -> Result<Said, Failure> {
        let mut settler = self.begin(RecordKind::Agent, parent, step).await?;
        let record = settler.record_mut();
        record.input = vec![Value::Object(variables.clone())];
        record.request_model = step.to_owned();
        record.streamed = voice.is_some();
        let span = settler.span();
        let run = self.turns(step, work, variables, span, voice);
        match Box::pin(run).await {
            Ok(said) => {
                settler.output = vec![json!({"role": "assistant", "content": said.text})];
                settler.settle(CallStatus::Ok, None);
                Ok(said)
            }
            Err(failure) => {
                settler.fail(&failure);
                Err(failure)
            }
        }
    }

    async fn turns(
        &self,
        step: &str,
        work: &AgentWork,
        variables: Map<String, Value>,
        span: SpanId,
        mut voice: Option<&mut Voice>,
    ) -> Result<Said, Failure> {
        let AgentWork { tools, limits, .. } = work;
        let mut prepared = self.render(step, &work.model, &variables, span).await?;
        let definitions = self.tool_definitions(tools);
        if !definitions.is_empty() {
            prepared
                .parameters
                .insert("tools".to_owned(), definitions.into());
        }
        let seconds = limits.seconds.unwrap_or(DEFAULT_SECONDS);
        let time = Time {
            end: Instant::now() + Duration::from_secs(seconds.into()),
            seconds,
        };
        let mut spent = NanoUsd(0);
        let mut seen: HashMap<String, usize> = HashMap::new();
        let mut last_text = String::new();
        let steps = limits.steps.unwrap_or(DEFAULT_STEPS);
        for _ in 0..steps {
            let turn = self.turn(step, &prepared, span, time, voice.as_deref_mut());
            let Collected {
                message,
                finish_reason,
                settled,
            } = match turn.await? {
                Turn::Answered(answer) => *answer,
                Turn::Over(limit) => return stopped(last_text, &limit, voice).await,
            };
            spent = spent + cost(&settled);
            let text = message["content"].as_str().unwrap_or_default().to_owned();
            let calls = message["tool_calls"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            if calls.is_empty() {
                return Ok(Said {
                    text: said(text, voice).await,
                    finish: finish_reason.unwrap_or_else(|| "stop".to_owned()),
                    refusal: None,
                });
            }
            if !text.is_empty() {
                last_text = text;
            }
            if let Some(limit) = over(limits, spent, &calls, &mut seen) {
                return stopped(last_text, &limit, voice).await;
            }
            if let Some(voice) = voice.as_deref_mut() {
                voice.end_turn();
            }
            prepared.messages.push(message);
            let answers = self.call_tools(step, &calls, tools, span);
            let Ok(answers) = timeout_at(time.end, answers).await else {
                return stopped(last_text, &Limit::time(seconds), voice).await;
            };
            prepared.messages.extend(answers);
        }
        let limit = Limit(format!("it called its model {steps} times"));
        stopped(last_text, &limit, voice).await
    }

    /// Asks the model once.
    async fn turn(
        &self,
        step: &str,
        prepared: &Prepared,
        span: SpanId,
        time: Time,
        voice: Option<&mut Voice>,
    ) -> Result<Turn, Failure> {
        let over = Turn::Over(Limit::time(time.seconds));
        let Some(voice) = voice else {
            let answer = timeout_at(time.end, self.ask_models(step, prepared, span)).await;
            return answer.map_or(Ok(over), |answer| {
                answer.map(|answer| Turn::Answered(Box::new(answer)))
            });
        };
        let Ok(place) = timeout_at(time.end, self.place()).await else {
            return Ok(over);
        };
        let _place = place?;
        let opened = self.stream_models(step, prepared, span, false);
        let Ok(relay) = timeout_at(time.end, opened).await else {
            return Ok(over);
        };
        self.hear(relay?, time, voice).await
    }

    /// Hears a turn to its end, and says it as it comes where that is wanted.
    async fn hear(&self, mut relay: Relay, time: Time, voice: &mut Voice) -> Result<Turn, Failure> {
        let provider = relay.settler().provider().to_owned();
        let mut heard = 0;
        let limit = loop {
            let frame = std::future::poll_fn(|cx| Pin::new(&mut relay).poll_frame(cx));
            match timeout_at(time.end, frame).await {
                Ok(Some(_)) => {}
                Ok(None) => break None,
                // Only the connection's own end was still waited for.
                Err(_) if relay.settler().is_settled() => break None,
                Err(_) => break Some(Limit::time(time.seconds)),
            }
            // Read from the meter: it puts pieces together, whatever the protocol cuts.
            let text = relay.settler().meter.first_text();
            if voice.is_live() && text.len() > heard {
                let more = &text[heard..];
                heard = text.len();
                match timeout_at(time.end, voice.say(more)).await {
                    Ok(true) => {}
                    Ok(false) => break Some(Limit("it said too much".to_owned())),
                    Err(_) => break Some(Limit::time(time.seconds)),
                }
            }
        };
        let settled = relay.end();
        self.count(settled.usage, settled.cost);
        if let Some(limit) = limit {
            return Ok(Turn::Over(limit));
        }
        if let Some(failure) = relay.failure() {
            return Err(failure.clone());
        }
        let settler = relay.settler();
        if settled.status != Some(CallStatus::Ok) {
            let what = "ended its stream before the answer was complete";
            return Err(Failure::died(&provider, what));
        }
        if settler.meter.is_cut() {
            let what = "sent a larger answer than is kept";
            return Err(Failure::garbage(&provider, what));
        }
        Ok(Turn::Answered(Box::new(Collected {
            message: settler
                .meter
                .messages()
                .into_iter()
                .next()
                .unwrap_or_default(),
            finish_reason: settler.meter.finish_reasons().into_iter().next(),
            settled,
        })))
    }

    /// The tools as the model is told of them.
    fn tool_definitions(&self, names: &[String]) -> Vec<Value> {
        let known = names.iter().filter_map(|name| {
            let tool = &self.compiled.tools.get(name)?.http;
            let mut parameters = tool.parameters.clone();
            parameters.entry("type").or_insert("object".into());
            parameters.entry("properties").or_insert(json!({}));
            Some(json!({
                "type": "function",
                "function": {
                    "name": name,
                    "description": tool.description,
                    "parameters": parameters,
                },
            }))
        });
        known.collect()
    }

    /// Calls tools as the model asks, some at a time, answers in the order of the calls.
    async fn call_tools(
        &self,
        step: &str,
        calls: &[Value],
        allowed: &[String],
        span: SpanId,
    ) -> Vec<Value> {
        // Boxed one by one: the compiler cannot tell that a closure's futures are `Send` here.
        let answers = calls
            .iter()
            .map(|call| self.tool_message(step, call, allowed, span));
        let answers: Vec<Pending<'_>> = answers.map(|answer| Box::pin(answer) as _).collect();
        let answers = stream::iter(answers).buffered(PARALLEL_TOOLS);
        answers.collect().await
    }

    async fn tool_message(
        &self,
        step: &str,
        call: &Value,
        allowed: &[String],
        span: SpanId,
    ) -> Value {
        let content = match self.asked_tool(step, call, allowed, span).await {
            Ok(answer) => as_text(&answer),
            Err(failure) => json!({ "error": failure.error.message }).to_string(),
        };
        json!({ "role": "tool", "tool_call_id": call["id"], "content": content })
    }

    async fn asked_tool(
        &self,
        step: &str,
        call: &Value,
        allowed: &[String],
        span: SpanId,
    ) -> Result<Value, Failure> {
        let invalid = |message: String| {
            Failure::from(ApiError::new(
                StatusCode::BAD_REQUEST,
                "tool_arguments_invalid",
                message,
            ))
        };
        let name = call["function"]["name"].as_str().unwrap_or_default();
        if !allowed.iter().any(|tool| tool == name) {
            let known = allowed.join(", ");
            return Err(invalid(format!(
                "there is no tool {name:?}; there are: {known}"
            )));
        }
        let text = call["function"]["arguments"].as_str().unwrap_or_default();
        let text = if text.trim().is_empty() { "{}" } else { text };
        let arguments: Map<String, Value> = serde_json::from_str(text)
            .map_err(|error| invalid(format!("the arguments are no JSON object: {error}")))?;
        let _place = self.place().await?;
        self.call_tool(name, Arguments::Said(arguments), span, step)
            .await
    }
}

fn cost(settled: &Settled) -> NanoUsd {
    settled.cost.unwrap_or_default()
}

/// The limit that the next turn would break.
fn over(
    limits: &AgentLimits,
    spent: NanoUsd,
    calls: &[Value],
    seen: &mut HashMap<String, usize>,
) -> Option<Limit> {
    const NANOS: f64 = 1e9;
    if let Some(most) = limits.cost_usd
        && spent.0 as f64 >= most * NANOS
    {
        return Some(Limit(format!("it cost {spent}")));
    }
    if calls.len() > MOST_TOOL_CALLS {
        return Some(Limit(format!("it asked for {} calls at once", calls.len())));
    }
    for call in calls {
        let function = &call["function"];
        let count = seen.entry(function.to_string()).or_default();
        *count += 1;
        if *count > MOST_REPEATS {
            let name = function["name"].as_str().unwrap_or_default();
            return Some(Limit(format!(
                "it called {name:?} the same way again and again"
            )));
        }
    }
    None
}

/// The answer, and with a voice everything that was said up to it.
async fn said(text: String, voice: Option<&mut Voice>) -> String {
    let Some(voice) = voice else {
        return text;
    };
    if !voice.is_live() {
        voice.say(&text).await;
    }
    voice.said().to_owned()
}

/// What it has said so far is an answer that was cut off; nothing is an error.
async fn stopped(
    last_text: String,
    limit: &Limit,
    voice: Option<&mut Voice>,
) -> Result<Said, Failure> {
    let text = said(last_text, voice).await;
    if text.is_empty() {
        let message = format!("the agent was stopped before it had an answer: {}", limit.0);
        let error = ApiError::new(StatusCode::BAD_GATEWAY, "agent_limit", message);
        return Err(error.into());
    }
    tracing::debug!(limit = limit.0, "an agent was stopped");
    Ok(Said {
        text,
        finish: "length".to_owned(),
        refusal: None,
    })
}
