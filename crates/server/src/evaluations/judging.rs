//! Scoring one answer: metrics in place, judges through the gateway, programs over HTTP,
//! modules in a sandbox.
//!
//! Whatever goes wrong with an evaluator is `unscored`, never a number: a broken
//! grader says nothing about what it grades. Raw replies are kept either way.

use std::collections::BTreeMap;
use std::num::NonZero;
use std::sync::{LazyLock, PoisonError};
use std::time::Duration;

use base::TraceId;
use gateway::Protocol;
use gateway::egress::{Allow, read_capped, uri_of};
use http_body_util::Full;
use serde_json::{Map, Value, json};
use tokio::sync::Semaphore;

use super::call::{Bill, Called, Caller, Halted, Request, Said, lane_of};
use super::inquiry::{ask_rag, compare};
use super::local::{read_along, score_tokens};
use super::store::{Cell, Outcome};
use crate::error::Result;
use crate::evaluators::judge::{self, Expected, Material, Reply, Verdict, Winner};
use crate::evaluators::wasm::{self, WasmEvaluator};
use crate::evaluators::{EvaluatorDocument, HttpEvaluator, JudgeEvaluator, JudgeMode};

/// How much of a judge's raw reply is kept.
pub(super) const RAW_BYTES: usize = 16 << 10;
/// How much of a judge's reason is kept.
pub(super) const REASON_BYTES: usize = 2000;
/// The most that a program may answer.
const HTTP_BYTES: usize = 256 << 10;

/// What an evaluator said.
#[derive(Debug, Clone)]
pub(crate) struct Judged {
    pub outcome: Outcome,
    pub label: Option<String>,
    pub reason: String,
    pub detail: Value,
    pub trace: Option<TraceId>,
    pub bill: Bill,
}

impl Judged {
    pub(crate) fn unscored(reason: impl Into<String>, detail: Value) -> Self {
        Self {
            outcome: Outcome::Unscored,
            label: None,
            reason: reason.into(),
            detail,
            trace: None,
            bill: Bill::default(),
        }
    }
}

/// Which cell is judged, by what, as tags and traces' ids name it.
pub(crate) struct About {
    pub cell: Cell,
    pub evaluator: usize,
    pub tags: BTreeMap<String, String>,
}

/// What an evaluator is shown.
pub(crate) struct Look<'a> {
    /// The example, or what a trace offers in its place: `input`, `expected`, `context`, `metadata`.
    pub value: &'a Value,
    pub expected: Option<&'a Value>,
    pub context: &'a [String],
    pub answer: &'a str,
    /// The other answer of a pair.
    pub other: Option<&'a str>,
}

/// Asks an evaluator that is more than arithmetic in place.
pub(crate) async fn judge(
    caller: &Caller,
    about: &About,
    document: &EvaluatorDocument,
    look: &Look<'_>,
) -> Result<std::result::Result<Judged, Halted>> {
    match document {
        EvaluatorDocument::Judge(judge) => {
            let material = Material {
                input: &look.value["input"],
                expected: look.expected,
                context: look.context,
                answer: look.answer,
                other: look.other,
            };
            ask_judge(caller, about, judge, &material).await
        }
        EvaluatorDocument::Http(http) => {
            Ok(Ok(ask_program(caller, http, look.value, look.answer).await))
        }
        EvaluatorDocument::Wasm(wasm) => Ok(Ok(run_module(caller, wasm, look).await)),
        EvaluatorDocument::Rag(rag) => ask_rag(caller, about, rag, look).await,
        EvaluatorDocument::Embedding(embedding) => compare(caller, about, embedding, look).await,
        EvaluatorDocument::BertScore(one) => Ok(Ok(score_tokens(caller, one, look).await?)),
        EvaluatorDocument::Perplexity(one) => Ok(Ok(read_along(caller, one, look).await)),
        EvaluatorDocument::Metric(_) => {
            Ok(Ok(Judged::unscored("a metric asks nobody", Value::Null)))
        }
    }
}

/// What the replies so far said.
#[derive(Default)]
struct Votes {
    /// By juror: its grades, expectations where there are any.
    grades: Vec<Vec<f64>>,
    labels: BTreeMap<String, usize>,
    /// Each comparison's value, and whether both orders agree.
    pairs: Vec<(f64, bool)>,
    replies: Vec<Value>,
    reason: String,
    why_not: String,
    paid: Paid,
}

/// Asks every juror, as often as the judge says.
async fn ask_judge(
    caller: &Caller,
    about: &About,
    judge: &JudgeEvaluator,
    material: &Material<'_>,
) -> Result<std::result::Result<Judged, Halted>> {
    let mut votes = Votes::default();
    for (juror, model) in judge.jurors().enumerate() {
        votes.grades.push(Vec::new());
        for sample in 0..judge.samples {
            let key = |order: &str| {
                let Cell {
                    place,
                    candidate,
                    repetition,
                } = about.cell;
                let evaluator = about.evaluator;
                format!(
                    "judge/{evaluator}/{juror}/{sample}/{order}/{candidate}/{place}/{repetition}"
                )
            };
            let asked = Asked {
                caller,
                judge,
                model,
                tags: &about.tags,
            };
            let done = match judge.mode {
                JudgeMode::Pairwise => asked.both_orders(&key, material, &mut votes).await?,
                _ => asked
                    .one(&key("0"), material, &mut votes)
                    .await?
                    .map(|reply| {
                        if let Some((reply, expected)) = reply {
                            votes.count(juror, reply, expected);
                        }
                    }),
            };
            if done.is_err() {
                return Ok(Err(Halted));
            }
        }
    }
    Ok(Ok(votes.conclude(judge)))
}

struct Asked<'a> {
    caller: &'a Caller,
    judge: &'a JudgeEvaluator,
    model: &'a str,
    tags: &'a BTreeMap<String, String>,
}

type Understood = Option<(Reply, Option<Expected>)>;

impl Asked<'_> {
    /// A pair in both orders. One order that says nothing leaves the pair out.
    async fn both_orders(
        &self,
        key: &impl Fn(&str) -> String,
        material: &Material<'_>,
        votes: &mut Votes,
    ) -> Result<std::result::Result<(), Halted>> {
        let other = material.other.unwrap_or_default();
        let swapped = Material {
            answer: other,
            other: Some(material.answer),
            ..*material
        };
        let mut winners = Vec::new();
        for (order, material) in [("ab", material), ("ba", &swapped)] {
            match self.one(&key(order), material, votes).await? {
                Err(halted) => return Ok(Err(halted)),
                Ok(Some((
                    Reply {
                        verdict: Verdict::Winner(winner),
                        reason,
                        ..
                    },
                    _,
                ))) => {
                    votes.reason_if_none(&reason);
                    winners.push(winner);
                }
                Ok(_) => {}
            }
        }
        if let [first, second] = winners[..] {
            let first: Winner = first;
            votes.pairs.push(judge::both_orders(first, second));
        }
        Ok(Ok(()))
    }

    /// One verdict: asked, mended, asked again, given up.
    async fn one(
        &self,
        key: &str,
        material: &Material<'_>,
        votes: &mut Votes,
    ) -> Result<std::result::Result<Understood, Halted>> {
        let mut messages = judge::messages(self.judge, material);
        for round in 0..2 {
            let called = match self
                .call(&format!("{key}/{round}"), &messages, votes)
                .await?
            {
                Ok(called) => called,
                Err(halted) => return Ok(Err(halted)),
            };
            let said = match called {
                Ok(said) => said,
                Err(why) => {
                    votes
                        .replies
                        .push(json!({"model": self.model, "error": why}));
                    votes.why_not = format!("the judge could not be asked: {why}");
                    return Ok(Ok(None));
                }
            };
            let raw = base::text::cut_bytes(&said.text, RAW_BYTES);
            match judge::read(self.judge, &said.text) {
                Ok(reply) => {
                    let expected = judge::expectation(self.judge, &said.text, &said.logprobs);
                    votes.replies.push(json!({
                        "model": self.model, "reply": raw, "mended": reply.mended,
                        "grades": expected.as_ref().map(|expected| &expected.grades),
                    }));
                    return Ok(Ok(Some((reply, expected))));
                }
                Err(why) => {
                    votes
                        .replies
                        .push(json!({"model": self.model, "reply": raw, "problem": why}));
                    messages.push(json!({"role": "assistant", "content": raw}));
                    messages.push(judge::reminder(&why));
                    votes.why_not = format!("the judge's reply could not be read: {why}");
                }
            }
        }
        Ok(Ok(None))
    }

    async fn call(
        &self,
        key: &str,
        messages: &[Value],
        votes: &mut Votes,
    ) -> Result<std::result::Result<std::result::Result<Said, String>, Halted>> {
        let voice = Voice {
            caller: self.caller,
            model: self.model,
            tags: self.tags,
        };
        let grades = self.judge.mode == JudgeMode::Score;
        let body = |fields: Fields| {
            let logprobs = fields.logprobs && grades;
            judge::body(
                self.judge,
                self.model,
                messages,
                fields.structured,
                logprobs,
            )
        };
        voice.say(key, &body, &mut votes.paid).await
    }
}

/// Fields of a call that not every model takes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fields {
    /// A JSON Schema of the reply.
    pub structured: bool,
    /// Probabilities of tokens.
    pub logprobs: bool,
}

/// What calls came to, and the trace of the first.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Paid {
    pub bill: Bill,
    pub trace: Option<TraceId>,
}

impl Paid {
    pub(super) fn add(&mut self, called: &Called) {
        self.bill.add(called.bill);
        self.trace.get_or_insert(called.trace);
    }
}

/// A model that is asked on behalf of an evaluator.
#[derive(Clone, Copy)]
pub(super) struct Voice<'a> {
    pub caller: &'a Caller,
    pub model: &'a str,
    pub tags: &'a BTreeMap<String, String>,
}

impl Voice<'_> {
    /// One reply. A model that refuses the fields is asked without them, from then on.
    pub(super) async fn say(
        &self,
        key: &str,
        body: &(dyn Fn(Fields) -> Map<String, Value> + Send + Sync),
        paid: &mut Paid,
    ) -> Result<std::result::Result<std::result::Result<Said, String>, Halted>> {
        let plain = |caller: &Caller| {
            let plain = caller.plain.lock().unwrap_or_else(PoisonError::into_inner);
            plain.contains(self.model)
        };
        let mut is_plain = plain(self.caller);
        loop {
            let fields = Fields {
                structured: !is_plain && self.speaks_openai(),
                logprobs: !is_plain && (self.speaks_openai() || self.model.starts_with("local/")),
            };
            let request = Request {
                key: match is_plain {
                    true => format!("{key}/plain"),
                    false => key.to_owned(),
                },
                lane: lane_of(self.model),
                body: body(fields),
                prompt: None,
                variables: Map::new(),
                tags: self.tags.clone(),
            };
            let called = match self.caller.call(&request).await? {
                Ok(called) => called,
                Err(halted) => return Ok(Err(halted)),
            };
            paid.add(&called);
            match called.answer {
                Ok(said) => return Ok(Ok(Ok(said))),
                // Most servers that do not know a field refuse the whole call.
                Err(_) if !is_plain && (fields.structured || fields.logprobs) => {
                    is_plain = true;
                    let caller = self.caller;
                    let mut known = caller.plain.lock().unwrap_or_else(PoisonError::into_inner);
                    known.insert(self.model.to_owned());
                }
                Err(problem) => return Ok(Ok(Err(problem.message))),
            }
        }
    }

    fn speaks_openai(&self) -> bool {
        let plan = self.caller.plan();
        let project = plan.projects.get(&self.caller.project);
        let provider = project.and_then(|project| project.providers.get(&lane_of(self.model)));
        provider.is_some_and(|provider| provider.protocol == Protocol::OpenAi)
    }
}

impl Votes {
    fn count(&mut self, juror: usize, reply: Reply, expected: Option<Expected>) {
        self.reason_if_none(&reply.reason);
        match reply.verdict {
            Verdict::Grade(grade) => {
                #[expect(clippy::cast_precision_loss, reason = "grades are 0 to 100")]
                let value = expected.map_or(grade as f64, |expected| expected.mean);
                if let Some(grades) = self.grades.get_mut(juror) {
                    grades.push(value);
                }
            }
            Verdict::Label(label) => *self.labels.entry(label).or_default() += 1,
            Verdict::Winner(_) => {}
        }
    }

    fn reason_if_none(&mut self, reason: &str) {
        if self.reason.is_empty() {
            self.reason = base::text::cut_bytes(reason, REASON_BYTES).to_owned();
        }
    }

    fn conclude(mut self, judge: &JudgeEvaluator) -> Judged {
        let replies = std::mem::take(&mut self.replies);
        let mut detail = json!({"replies": replies});
        let found = match judge.mode {
            JudgeMode::Score => self.mean_grade(judge, &mut detail),
            JudgeMode::Classify => self.most_votes(judge, &mut detail),
            JudgeMode::Pairwise => self.pair(judge, &mut detail),
        };
        let (outcome, label, reason) = match found {
            Ok((value, label)) if value.is_finite() => (Outcome::Scored(value), label, self.reason),
            Ok(_) => (
                Outcome::Unscored,
                None,
                "the score is no finite number".to_owned(),
            ),
            Err(why) => (Outcome::Unscored, None, why),
        };
        Judged {
            outcome,
            label,
            reason,
            detail,
            trace: self.paid.trace,
            bill: self.paid.bill,
        }
    }

    /// The mean over jurors of each one's mean; most of them must have said something.
    fn mean_grade(
        &self,
        judge: &JudgeEvaluator,
        detail: &mut Value,
    ) -> std::result::Result<(f64, Option<String>), String> {
        let answered = self.grades.iter().filter(|grades| !grades.is_empty());
        let means: Vec<f64> = answered.map(|grades| mean(grades)).collect();
        if means.len() * 2 <= judge.jurors().count() {
            return Err(self.why_not());
        }
        detail["jurors"] = json!(means);
        Ok((mean(&means), None))
    }

    fn most_votes(
        &self,
        judge: &JudgeEvaluator,
        detail: &mut Value,
    ) -> std::result::Result<(f64, Option<String>), String> {
        detail["votes"] = json!(self.labels);
        let most = self
            .labels
            .values()
            .max()
            .copied()
            .ok_or_else(|| self.why_not())?;
        let mut first = self.labels.iter().filter(|(_, votes)| **votes == most);
        match (first.next(), first.next()) {
            (Some((label, _)), None) => {
                let value = judge.labels.get(label).copied();
                let value = value.ok_or_else(|| self.why_not())?;
                Ok((value, Some(label.clone())))
            }
            _ => Err("the jury is split evenly".to_owned()),
        }
    }

    fn pair(
        &self,
        judge: &JudgeEvaluator,
        detail: &mut Value,
    ) -> std::result::Result<(f64, Option<String>), String> {
        let asked = judge.jurors().count() * judge.samples as usize;
        if self.pairs.len() * 2 <= asked {
            return Err(self.why_not());
        }
        let values: Vec<f64> = self.pairs.iter().map(|(value, _)| *value).collect();
        let consistent = self
            .pairs
            .iter()
            .filter(|(_, consistent)| *consistent)
            .count();
        detail["consistent"] = json!(consistent);
        detail["compared"] = json!(self.pairs.len());
        let value = mean(&values);
        let label = match value {
            value if value > 0.5 => "win",
            value if value < 0.5 => "loss",
            _ => "tie",
        };
        Ok((value, Some(label.to_owned())))
    }

    fn why_not(&self) -> String {
        match self.why_not.as_str() {
            "" => "the judge gave no verdict".to_owned(),
            why => why.to_owned(),
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a handful of numbers")]
fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// Modules that run at once, beside each other and everything else: each may have up to
/// 256 MiB of memory, and a core, and at least one core is left to those who call.
static MODULES: LazyLock<Semaphore> = LazyLock::new(|| {
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    Semaphore::new(cores.saturating_sub(1).clamp(1, 4))
});

/// Runs a module of the team's own, away from the threads that serve.
async fn run_module(caller: &Caller, wasm: &WasmEvaluator, look: &Look<'_>) -> Judged {
    let (Some(digest), Some(blobs)) = (wasm.digest(), caller.app.catalog.blobs(caller.project))
    else {
        return Judged::unscored("the evaluator names no module", Value::Null);
    };
    let input = wasm::input(wasm, look.value, look.answer);
    let wasm = wasm.clone();
    let Ok(permit) = MODULES.acquire().await else {
        return Judged::unscored("the server ends", Value::Null);
    };
    let running = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        let module = wasm::module_of(digest, || {
            blobs
                .read(&digest)
                .map_err(|error| format!("the module cannot be read: {error}"))
        })?;
        wasm::run(&module, &wasm, &input)
    });
    match running.await {
        Ok(Ok(reply)) => {
            let mut judged = read_reply(&reply.value);
            judged.detail["fuel"] = json!(reply.fuel);
            judged
        }
        Ok(Err(why)) => Judged::unscored(why, Value::Null),
        Err(_) => Judged::unscored("the module could not be run", Value::Null),
    }
}

/// Asks a program of the team's own.
async fn ask_program(
    caller: &Caller,
    http: &HttpEvaluator,
    example: &Value,
    answer: &str,
) -> Judged {
    let mut why = String::new();
    for attempt in 0..caller.attempts {
        match ask_once(caller, http, example, answer).await {
            Ok(judged) => return judged,
            Err((message, again)) => {
                why = message;
                if !again || attempt + 1 == caller.attempts {
                    break;
                }
                let mut stop = caller.stop.clone();
                let wait = tokio::time::sleep(Duration::from_millis(500 << attempt.min(6)));
                tokio::select! { () = wait => {} _ = stop.wait_for(|stop| *stop) => break }
            }
        }
    }
    Judged::unscored(why, Value::Null)
}

async fn ask_once(
    caller: &Caller,
    http: &HttpEvaluator,
    example: &Value,
    answer: &str,
) -> std::result::Result<Judged, (String, bool)> {
    let never = |message: String| (message, false);
    let url = base::net::parse_base_url(&http.url).map_err(|error| never(error.to_string()))?;
    let body = json!({
        "input": example["input"], "expected": example["expected"], "context": example["context"],
        "metadata": example["metadata"], "answer": answer,
    });
    let uri = uri_of(&url).map_err(|error| never(error.to_string()))?;
    let mut request =
        http::Request::post(uri).header(http::header::CONTENT_TYPE, "application/json");
    if let Some(reference) = &http.credential {
        let secret = caller.app.secrets.resolve("evaluator", reference);
        let secret =
            secret.map_err(|error| never(format!("its credential cannot be read: {error:#}")))?;
        let value = format!("Bearer {}", secret.expose());
        let mut value = http::HeaderValue::from_str(&value)
            .map_err(|_| never("its credential cannot be sent".to_owned()))?;
        value.set_sensitive(true);
        request = request.header(http::header::AUTHORIZATION, value);
    }
    let request = request
        .body(Full::new(bytes::Bytes::from(body.to_string())))
        .map_err(|error| never(error.to_string()))?;
    let timeout = Duration::from_millis(http.timeout_ms);
    let allow = match caller.app.config.file.egress.allow_private_tools {
        true => Allow::Private,
        false => Allow::Public,
    };
    let again =
        |error: gateway::EgressError| (format!("the evaluator was not reached: {error}"), true);
    let sent = caller.app.egress.send(request, allow, timeout).await;
    let (head, mut body) = sent.map_err(again)?.into_parts();
    let bytes = read_capped(&mut body, HTTP_BYTES, timeout)
        .await
        .map_err(again)?;
    if !head.status.is_success() {
        let status = head.status.as_u16();
        return Err((
            format!("the evaluator answered with status {status}"),
            status >= 500 || status == 429,
        ));
    }
    let reply: Value = serde_json::from_slice(&bytes)
        .map_err(|_| never("the evaluator's reply is not JSON".to_owned()))?;
    Ok(read_reply(&reply))
}

fn read_reply(reply: &Value) -> Judged {
    let text = |name: &str| {
        reply[name]
            .as_str()
            .map(|text| base::text::cut_bytes(text, REASON_BYTES).to_owned())
    };
    let detail = json!({"reply": base::text::cut_bytes(&reply.to_string(), RAW_BYTES)});
    if let Some(why) = text("unscored") {
        return Judged::unscored(why, detail);
    }
    match reply["score"].as_f64().filter(|score| score.is_finite()) {
        Some(score) => Judged {
            outcome: Outcome::Scored(score),
            label: text("label"),
            reason: text("reason").unwrap_or_default(),
            detail,
            trace: None,
            bill: Bill::default(),
        },
        None => Judged::unscored(
            "the evaluator's reply has no number under \"score\"",
            detail,
        ),
    }
}
