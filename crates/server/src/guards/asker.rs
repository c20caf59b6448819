//! What only a model can tell about a text that is of no call: asked through the gateway, each
//! question a call of its own with a record, a deadline and a cost, at the top of one trace.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use base::TraceId;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use gateway::{CallContext, Plan, Principal};
use guard::{
    Answer, Check, Compiled, Context, OnFailure, Policy, Question, QuestionId, Scanned, Stream,
    Tier, WordList,
};
use serde::Serialize;

use super::Ready;
use super::check::{self, Piece, Timing};
use crate::app::App;
use crate::auth::Identity;
use crate::error::Result;

/// Questions about one text that are asked at once.
const AT_ONCE: usize = 4;

type Memo = Arc<Mutex<HashMap<(String, String), Answer>>>;

/// Who asks.
#[derive(Clone)]
pub struct Asker {
    app: App,
    plan: Arc<Plan>,
    principal: Arc<Principal>,
    context: CallContext,
    /// What was answered, by rule and text; a measurement reads each text twice.
    memo: Memo,
}

impl Asker {
    /// Asks as this caller, under this trace.
    pub fn new(app: &App, identity: &Identity, trace: TraceId) -> Self {
        Self {
            plan: app.gateway.plan(),
            app: app.clone(),
            principal: identity.principal.clone(),
            context: CallContext::new(trace),
            memo: Memo::default(),
        }
    }

    /// The trace that its questions are recorded in.
    pub fn trace(&self) -> TraceId {
        self.context.trace_id
    }

    /// The same, knowing no answers.
    pub(super) fn anew(&self) -> Self {
        Self {
            memo: Memo::default(),
            ..self.clone()
        }
    }

    async fn ask(&self, question: Question) -> (QuestionId, Answer) {
        let (id, key) = (
            question.id,
            (question.rule_name.clone(), question.text.clone()),
        );
        let known = self.memo().get(&key).cloned();
        if let Some(known) = known {
            return (id, known);
        }
        let gateway = &self.app.gateway;
        let answer = gateway
            .answer_guard(&self.plan, &self.principal, &self.context, question)
            .await;
        self.memo().insert(key, answer.clone());
        (id, answer)
    }

    fn memo(&self) -> std::sync::MutexGuard<'_, HashMap<(String, String), Answer>> {
        self.memo.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a policy has rules that only a model can answer.
pub(super) fn asks(policy: &Policy) -> bool {
    policy.rules.iter().any(|rule| asks_model(&rule.check))
}

fn asks_model(check: &Check) -> bool {
    let is_model = |tier: &Tier| matches!(tier, Tier::Embedding | Tier::Judge);
    match check {
        Check::Topics { .. } | Check::Grounded { .. } | Check::Judge { .. } => true,
        Check::Injection { tiers, .. } | Check::Toxicity { tiers, .. } => {
            tiers.iter().any(is_model)
        }
        _ => false,
    }
}

/// A rule that cannot look, or not with all its tiers, where no server is asked.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Unasked {
    /// The rule's name.
    pub rule: String,
    /// What is missing.
    pub why: String,
    /// What holds instead: `open` lets texts pass, `closed` takes all of them for found.
    pub on_failure: OnFailure,
}

/// The rules of a policy that nobody can be asked for without a server.
pub fn unasked(ready: &Ready) -> Vec<Unasked> {
    let why = |check: &Check| match check {
        Check::Words {
            list: WordList::Named(name),
            ..
        } if ready.resources.lost.contains(name) => Some(format!("the list {name} is missing")),
        check if asks_model(check) => Some("there is no model to ask here".to_owned()),
        _ => None,
    };
    let rules = ready.policy.rules.iter();
    let found = rules.filter_map(|rule| {
        Some(Unasked {
            rule: rule.name.clone(),
            why: why(&rule.check)?,
            on_failure: rule.on_failure,
        })
    });
    found.collect()
}

/// Scans a text and asks what only a model can tell. Rules run where they may block; answers are
/// awaited without a place among the checks.
pub(super) async fn scan(
    compiled: &Arc<Compiled>,
    piece: &Piece,
    context: &Context,
    asker: &Asker,
) -> Result<(Scanned, Timing)> {
    let (rules, piece, context) = (Arc::clone(compiled), piece.clone(), context.clone());
    let (mut stream, mut steps, mut timing) =
        check::off_thread(move || read(&rules, &piece, context)).await?;
    let begin = Instant::now();
    let mut waiting: Vec<Question> = steps
        .iter_mut()
        .flat_map(|step| step.ask.drain(..))
        .collect();
    waiting.reverse();
    let mut asked = FuturesUnordered::new();
    let mut ended = steps.iter().any(|step| step.ended.is_some());
    while !ended {
        while asked.len() < AT_ONCE
            && let Some(question) = waiting.pop()
        {
            asked.push(asker.ask(question));
        }
        let Some((id, answer)) = asked.next().await else {
            break;
        };
        let mut step = stream.answer(id, answer);
        waiting.append(&mut step.ask);
        ended = step.ended.is_some();
        steps.push(step);
    }
    timing.models = check::micros(begin.elapsed());
    timing.total += timing.models;
    Ok((Scanned::of(steps), timing))
}

fn read(
    compiled: &Arc<Compiled>,
    piece: &Piece,
    context: Context,
) -> (Stream, Vec<guard::Step>, Timing) {
    let ((stream, steps), timing) = check::timed(|| {
        let mut stream = compiled.stream(piece.point, context);
        let mut steps = vec![stream.push(&piece.text)];
        if steps.iter().all(|step| step.ended.is_none()) {
            steps.push(stream.finish());
        }
        (stream, steps)
    });
    (stream, steps, timing)
}
