//! The worker of one improvement: from step to step, and what is written down.
//!
//! A step is: choose a parent, score it on a few training examples, let the reflecting model
//! write a new text, score that on the same examples, and only if it is better on all of the
//! selection. Each answer is written when it comes and each step when it begins and ends, under
//! the worker's fence; the next worker finds the same decisions in the same place.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use base::Digest;
use db::Scope;
use gateway::{PromptDocument, Protocol};
use serde::Deserialize as _;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::answer::{self, Line, Rig, Row, Scale};
use super::reflect::{self, Proposal, Shown};
use super::search::{Known, MOST_MERGES, Member, Scores, is_more, sums};
use super::store::{self, Gain, Heads, Improvement, Phase, ResultRow, Step, StepKind, StepState};
use super::{RUNS, merge, verdict};
use crate::app::App;
use crate::error::{AppError, Result};
use crate::evaluations::calling::{Ended, Meter, PinnedVersion, Request, cluster_of, lane_of};
use crate::evaluations::{Halted, Lanes, Plain};
use crate::runs::{End, Hold, Looks, State, Trouble};

/// Answers that must all fail before the improvement waits for somebody.
const OUTAGE: usize = 5;
/// How much of a reply that could not be used is kept.
const REPLY_BYTES: usize = 4000;
/// How much of a thought a version's message repeats.
const MESSAGE_CHARS: usize = 400;
/// What one comparison of merged texts is tried on, from each side.
const MERGE_ROWS: usize = 4;

/// Works on an improvement to its end, or until it is held.
pub(super) async fn run(app: App, hold: Hold) -> std::result::Result<End, Trouble> {
    let mut is_takeover = hold.is_takeover();
    loop {
        let found = store::find(&app.db, hold.project, &hold.id).await?;
        let Some(improvement) = found else {
            return Ok(End::Finished);
        };
        let worker = Worker::new(&app, improvement, hold.clone(), is_takeover).await;
        if let Some(end) = worker.map_err(Trouble::of_pinned)?.run().await? {
            return Ok(end);
        }
        // What this worker has begun and not written is in telemetry.
        is_takeover = true;
    }
}

/// The texts that were accepted.
pub(super) fn members(steps: &[Step]) -> Vec<Member> {
    let accepted = steps
        .iter()
        .filter(|step| step.state == StepState::Accepted);
    accepted
        .map(|step| Member {
            number: step.number,
            parent: step.parent,
            other: step.other,
        })
        .collect()
}

/// Why the search does not go on.
enum Halt {
    Error(AppError),
    /// It is somebody else's now.
    Lost,
    /// Somebody changed its state.
    Changed(State),
    ServerStops,
    /// It must wait for somebody.
    Hold(String),
    /// The limits of this phase are reached.
    Limit(Ended),
}

impl From<AppError> for Halt {
    fn from(error: AppError) -> Self {
        Self::Error(error)
    }
}

type Flow<T> = std::result::Result<T, Halt>;

struct Worker {
    app: App,
    hold: Hold,
    improvement: Arc<Improvement>,
    line: Line,
    stop: watch::Sender<bool>,
    looks: Looks,
    rows: HashMap<i64, Arc<Row>>,
    scales: Arc<Vec<Scale>>,
    perfect: Option<f64>,
    steps: Vec<Step>,
    heads: Heads,
    rigs: HashMap<i64, Arc<Rig>>,
    gain: Gain,
    counted_to: Instant,
    /// The reflecting model does not take structured output.
    plain: bool,
}

impl Worker {
    async fn new(
        app: &App,
        improvement: Improvement,
        hold: Hold,
        is_takeover: bool,
    ) -> Result<Self> {
        let (project, id) = (improvement.project, improvement.id.as_str());
        let calls = store::calls(&app.db, project, id).await?;
        let document = &improvement.document;
        let most_calls = i64::try_from(document.budget_calls).ok();
        let meter = Meter::new(most_calls, document.budget_usd.map(nano), calls.into_iter());
        let (stop, stopped) = watch::channel(false);
        let scales = answer::scales(app, &improvement).await?;
        Ok(Self {
            rows: rows(app, &improvement).await?,
            steps: store::steps(&app.db, project, id).await?,
            heads: store::heads(&app.db, project, id).await?,
            perfect: answer::perfect(&scales),
            scales: Arc::new(scales),
            line: Line {
                lanes: Lanes::default(),
                plain: Plain::default(),
                meter,
                is_takeover,
                stop: stopped,
            },
            app: app.clone(),
            improvement: Arc::new(improvement),
            hold,
            stop,
            looks: Looks::new(app),
            rigs: HashMap::new(),
            gain: Gain::default(),
            counted_to: Instant::now(),
            plain: false,
        })
    }

    /// `None` when it was held and let go on while this worker ended its calls: a new one
    /// begins, with what it may spend now.
    async fn run(mut self) -> Result<Option<End>> {
        let halt = self.go().await.err();
        let (seen, to, reason) = match halt {
            None => (State::Running, State::Done, String::new()),
            Some(Halt::Error(error)) => return Err(error),
            Some(Halt::Lost) => return Ok(Some(End::Finished)),
            Some(Halt::ServerStops) => {
                // What it costs is counted even if nothing came of it.
                self.write().await?;
                return Ok(Some(End::ServerStops));
            }
            Some(Halt::Changed(state)) => (state, state, String::new()),
            Some(Halt::Hold(reason)) => (State::Running, State::Paused, reason),
            Some(Halt::Limit(ended)) => (State::Running, State::Paused, limit_reason(ended)),
        };
        if self.write().await?.is_none() {
            return Ok(Some(End::Finished));
        }
        let gone = self.hold.let_go(&self.app.db, seen, to, &reason).await?;
        (RUNS.changed)(&self.app);
        Ok(gone.then_some(End::Finished))
    }

    async fn go(&mut self) -> Flow<()> {
        let held_out = self.improvement.pinned.rows.held_out.clone();
        let selection = self.improvement.pinned.rows.selection.clone();
        // Somebody may have held it before this worker began.
        self.flush().await?;
        if self.improvement.phase != Phase::Final {
            self.reserve(held_out.len());
            self.score(0, &selection).await?;
            self.enter(Phase::Search).await?;
            let ended_by = match self.search().await {
                Ok(why) => why,
                Err(Halt::Limit(Ended::Calls | Ended::Money)) => {
                    self.cut_short().await?;
                    "budget"
                }
                Err(halt) => return Err(halt),
            };
            self.gain.ended_by = Some(ended_by);
            self.enter(Phase::Final).await?;
        }
        // What was kept back is for this.
        self.line.meter.reserve(0, 0);
        let best = self.known(&members(&self.steps)).best();
        let found = match best {
            0 => verdict::nothing_better(&self.improvement),
            best => {
                self.score(0, &held_out).await?;
                self.score(best, &held_out).await?;
                self.compare(best, &held_out).await?
            }
        };
        self.gain.verdict = Some(found);
        self.flush().await
    }

    /// Keeps enough back to compare two texts in the end.
    fn reserve(&mut self, held_out: usize) {
        let rows = i64::try_from(2 * held_out).unwrap_or(i64::MAX);
        let calls = rows.saturating_mul(self.improvement.pinned.calls_per_row);
        let nano = rows.saturating_mul(self.row_cost());
        self.line.meter.reserve(calls, nano);
    }

    /// What an answer and its scores cost at most, so far.
    fn row_cost(&self) -> i64 {
        let of = |payer: &str| self.line.meter.dearest(payer).unwrap_or(0);
        let judges = self.improvement.pinned.calls_per_row - 1;
        of("answer").saturating_add(of("judge").saturating_mul(judges))
    }

    async fn enter(&mut self, phase: Phase) -> Flow<()> {
        self.gain.phase = Some(phase);
        self.flush().await
    }

    fn known<'a>(&'a self, members: &'a [Member]) -> Known<'a> {
        Known {
            seed: self.improvement.document.seed,
            members,
            scores: &self.heads.scores,
            selection: &self.improvement.pinned.rows.selection,
            train: &self.improvement.pinned.rows.train,
        }
    }

    /// Makes steps until there is a reason to end. Says which.
    async fn search(&mut self) -> Flow<&'static str> {
        loop {
            let held_out = self.improvement.pinned.rows.held_out.len();
            self.reserve(held_out);
            if let Some(last) = self.steps.last()
                && last.state == StepState::Trying
            {
                let step = last.clone();
                self.try_out(step).await?;
                continue;
            }
            let members = members(&self.steps);
            let known = self.known(&members);
            if known.is_perfect(known.best(), self.perfect) {
                return Ok("perfect");
            }
            if self.is_out_of_patience() {
                return Ok("patience");
            }
            if !self.has_room() {
                return Ok("budget");
            }
            let number = i64::try_from(self.steps.len()).unwrap_or(i64::MAX);
            let pair = match self.merge_is_due() {
                true => known.mergeable(&self.merged(), number),
                false => None,
            };
            let parent = known.parent(number);
            let size = self.improvement.document.minibatch as usize;
            let places = known.minibatch(parent, number, size, self.perfect);
            match pair {
                Some(pair) => self.begin_merge(number, pair).await?,
                None => self.begin_reflect(number, parent, places).await?,
            }
        }
    }

    /// Tries in a row that brought nothing.
    fn is_out_of_patience(&self) -> bool {
        let document = &self.improvement.document;
        let since = self
            .steps
            .iter()
            .rev()
            .take_while(|step| step.state != StepState::Accepted);
        let (mut misses, mut perfect) = (0, 0);
        for step in since {
            match step.state {
                StepState::Perfect if !step.places.is_empty() => perfect += 1,
                _ if step.kind == StepKind::Merge => {}
                _ => misses += 1,
            }
        }
        // A round through all training examples without anything to reflect on is enough, too.
        let round = self.improvement.pinned.rows.train.len() / document.minibatch.max(1) as usize;
        misses >= document.patience || perfect > round
    }

    /// Whether the budget has room for a whole step.
    fn has_room(&self) -> bool {
        let rows = &self.improvement.pinned.rows;
        let most = 2 * self.improvement.document.minibatch as usize + rows.selection.len();
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        let calls = most.saturating_mul(self.improvement.pinned.calls_per_row) + 1;
        let meter = &self.line.meter;
        let money = most
            .saturating_mul(self.row_cost())
            .saturating_add(meter.dearest("reflect").unwrap_or(0));
        meter.calls_left().is_none_or(|left| left >= calls)
            && meter.money_left().is_none_or(|left| left >= money)
    }

    /// A merge is tried after a text was accepted, a few times in all.
    fn merge_is_due(&self) -> bool {
        let merges = self
            .steps
            .iter()
            .filter(|step| step.kind == StepKind::Merge);
        self.improvement.document.merge
            && merges.count() < MOST_MERGES
            && self.steps.last().is_some_and(|last| {
                last.kind == StepKind::Reflect && last.state == StepState::Accepted
            })
    }

    fn merged(&self) -> HashSet<(i64, i64)> {
        let merges = self
            .steps
            .iter()
            .filter(|step| step.kind == StepKind::Merge);
        merges
            .filter_map(|step| Some((step.parent?, step.other?)))
            .collect()
    }

    /// A step that the budget ended in the middle of.
    async fn cut_short(&mut self) -> Flow<()> {
        let Some(last) = self.steps.last_mut() else {
            return Ok(());
        };
        if last.state != StepState::Trying {
            return Ok(());
        }
        last.state = StepState::NotBetter;
        self.gain.step = Some(last.clone());
        self.flush().await
    }

    fn document_of(&self, number: i64) -> Flow<PromptDocument> {
        let step = self.steps.iter().find(|step| step.number == number);
        let content = step.and_then(|step| step.content.as_ref());
        let document = content.and_then(|content| PromptDocument::deserialize(content).ok());
        document.ok_or_else(|| {
            Halt::Error(AppError::internal(anyhow::anyhow!(
                "step {number} has no prompt"
            )))
        })
    }

    fn new_step(&self, number: i64, kind: StepKind, parent: i64) -> Step {
        Step {
            number,
            kind,
            state: StepState::Trying,
            parent: Some(parent),
            other: None,
            content: None,
            digest: None,
            version: None,
            reason: String::new(),
            places: Vec::new(),
            before: None,
            after: None,
            trace: None,
            reply: None,
            at: self.app.clock.now_us(),
        }
    }

    async fn push(&mut self, step: Step) -> Flow<()> {
        self.gain.step = Some(step.clone());
        self.steps.push(step);
        self.flush().await
    }

    /// Puts the changes of two texts together.
    async fn begin_merge(
        &mut self,
        number: i64,
        (one, other, common): (i64, i64, i64),
    ) -> Flow<()> {
        let mut step = self.new_step(number, StepKind::Merge, one);
        step.other = Some(other);
        let base = self.document_of(common)?;
        let merged = merge_documents(&base, &self.document_of(one)?, &self.document_of(other)?);
        match merged {
            Err(why) => {
                step.state = StepState::Refused;
                step.reason = why;
            }
            Ok(document) => {
                step.reason = format!("the changes of {one} and {other} since {common}");
                self.propose(&mut step, &document)?;
                let members = members(&self.steps);
                step.places = self.known(&members).merge_places(one, other, MERGE_ROWS);
            }
        }
        self.push(step).await
    }

    /// Lets the reflecting model write a new text.
    async fn begin_reflect(&mut self, number: i64, parent: i64, places: Vec<i64>) -> Flow<()> {
        let mut step = self.new_step(number, StepKind::Reflect, parent);
        step.places = places;
        if step.places.is_empty() {
            step.state = StepState::Perfect;
            return self.push(step).await;
        }
        let places = step.places.clone();
        self.score(parent, &places).await?;
        let own = self.heads.scores.get(&parent);
        let known: Vec<f64> = places
            .iter()
            .filter_map(|place| own?.get(place).copied())
            .collect();
        if known.is_empty() {
            step.state = StepState::NotBetter;
            step.reason = "the parent has no score on any of these examples".to_owned();
            return self.push(step).await;
        }
        let all_perfect = known.len() == places.len()
            && self
                .perfect
                .is_some_and(|most| known.iter().all(|score| !is_more(*score, most)));
        if all_perfect {
            step.state = StepState::Perfect;
            return self.push(step).await;
        }
        let document = self.document_of(parent)?;
        let shown = self.shown(parent, &places).await?;
        match self.reflect(&mut step, &document, &shown).await? {
            Ok(proposal) => {
                step.reason.clone_from(&proposal.thought);
                self.propose(&mut step, &proposal.document)?;
            }
            Err((why, reply)) => {
                step.state = StepState::Refused;
                step.reason = why;
                step.reply = Some(base::text::cut_bytes(&reply, REPLY_BYTES).to_owned());
            }
        }
        self.push(step).await
    }

    /// Writes a proposal into its step, unless it was there before.
    fn propose(&self, step: &mut Step, document: &PromptDocument) -> Flow<()> {
        let content = document.to_value();
        let digest = Digest::of_json(&content)
            .map_err(|error| AppError::from(db::CatalogError::from(error)))?;
        let known = self.steps.iter().find(|one| one.digest == Some(digest));
        step.content = Some(content);
        match known {
            Some(one) if Some(one.number) == step.parent || Some(one.number) == step.other => {
                step.state = StepState::Same;
            }
            Some(one) => {
                step.state = StepState::Known;
                step.reason = format!("this is the text of {}; {}", one.number, step.reason);
            }
            None => step.digest = Some(digest),
        }
        Ok(())
    }

    /// What the reflecting model is shown, the worst first.
    async fn shown(&self, parent: i64, places: &[i64]) -> Flow<Vec<Shown>> {
        let improvement = &self.improvement;
        let results =
            store::results(&self.app.db, improvement.project, &improvement.id, parent).await?;
        let mut shown: Vec<Shown> = Vec::new();
        for result in results
            .iter()
            .filter(|result| places.contains(&result.place))
        {
            let Some(row) = self.rows.get(&result.place) else {
                continue;
            };
            let evaluators = improvement.pinned.suite.evaluators.iter();
            let scores = evaluators.zip(&result.scores).map(|(evaluator, said)| {
                let mut grader = json!({"grader": evaluator.name, "outcome": said["outcome"], "score": said["value"]});
                if let Some((low, high)) = evaluator.document.range() {
                    grader["from"] = json!(low);
                    grader["to"] = json!(high);
                }
                if evaluator.document.better() == crate::evaluators::Direction::Lower {
                    grader["better"] = json!("lower");
                }
                for field in ["label", "reason"] {
                    if said[field].as_str().is_some_and(|text| !text.is_empty()) {
                        grader[field] = said[field].clone();
                    }
                }
                grader
            });
            shown.push(Shown {
                example: row.value.clone(),
                answer: result.answer.clone(),
                objective: result.objective,
                scores: scores.collect(),
            });
        }
        let worst = |shown: &Shown| shown.objective.unwrap_or(f64::NEG_INFINITY);
        shown.sort_by(|a, b| worst(a).total_cmp(&worst(b)));
        Ok(shown)
    }

    /// Asks the reflecting model, once more where its reply cannot be used. `Err` holds why, and
    /// what it said.
    async fn reflect(
        &mut self,
        step: &mut Step,
        parent: &PromptDocument,
        shown: &[Shown],
    ) -> Flow<std::result::Result<Proposal, (String, String)>> {
        let mut messages = reflect::messages(parent, &self.improvement.document.guidance, shown);
        let mut refused = (String::new(), String::new());
        for round in 0..2 {
            let said = self.ask_reflector(step, round, &messages).await?;
            match reflect::read(parent, &said) {
                Ok(proposal) => return Ok(Ok(proposal)),
                Err(why) => {
                    let raw = base::text::cut_bytes(&said, REPLY_BYTES);
                    messages.push(json!({"role": "assistant", "content": raw}));
                    messages.push(reflect::reminder(&why));
                    refused = (why, said);
                }
            }
        }
        Ok(Err(refused))
    }

    async fn ask_reflector(
        &mut self,
        step: &mut Step,
        round: u32,
        messages: &[Value],
    ) -> Flow<String> {
        let rig = self.rig(0).await?;
        let improvement = Arc::clone(&self.improvement);
        let model = &improvement.document.reflector;
        let lane = lane_of(model);
        loop {
            let structured = !self.plain && self.speaks_openai(&rig, &lane);
            let mut key = format!("reflect/{}/{}/{round}", step.number, improvement.failures);
            if self.plain {
                key.push_str("/plain");
            }
            let parameters = &improvement.document.reflector_parameters;
            let request = Request {
                key,
                lane: lane.clone(),
                body: reflect::body(model, messages, parameters, structured),
                prompt: None,
                variables: serde_json::Map::new(),
                tags: answer::tags(&improvement, step.number, ""),
            };
            let called = self.while_looking(rig.caller.call(&request)).await?;
            let called = match called? {
                Ok(called) => called,
                Err(Halted) => return Err(self.why_halted().await?),
            };
            step.trace.get_or_insert(called.trace.to_string());
            match called.answer {
                Ok(said) => return Ok(said.text),
                // Most servers that do not know a field refuse the whole call.
                Err(_) if structured => self.plain = true,
                Err(problem) => {
                    store::count_failure(&self.app.db, &self.hold).await?;
                    let reason = format!(
                        "the reflecting model could not be asked: {}: {}",
                        problem.kind, problem.message
                    );
                    return Err(Halt::Hold(reason));
                }
            }
        }
    }

    fn speaks_openai(&self, rig: &Rig, lane: &str) -> bool {
        let plan = rig.caller.plan();
        let project = plan.projects.get(&self.improvement.project);
        let provider = project.and_then(|project| project.providers.get(lane));
        provider.is_some_and(|provider| provider.protocol == Protocol::OpenAi)
    }

    /// Waits for one call, and stops further attempts of it when somebody holds the improvement.
    async fn while_looking<T>(&mut self, work: impl Future<Output = T>) -> Flow<T> {
        let mut work = Box::pin(work);
        loop {
            tokio::select! {
                done = &mut work => return Ok(done),
                () = self.looks.next() => {
                    if self.looks.server_stops() {
                        let _ = self.stop.send(true);
                    }
                    match store::write(&self.app.db, &self.hold, &Gain::default()).await? {
                        Some(State::Running) => {}
                        _ => { let _ = self.stop.send(true); }
                    }
                }
            }
        }
    }

    /// Scores a step's text on what it was written from, and on the selection if it is better.
    async fn try_out(&mut self, mut step: Step) -> Flow<()> {
        let (number, places) = (step.number, step.places.clone());
        self.score(number, &places).await?;
        let empty = Scores::new();
        let of = |number: Option<i64>| {
            let scores = number.and_then(|number| self.heads.scores.get(&number));
            scores.unwrap_or(&empty)
        };
        let own = of(Some(number));
        let by_parent = sums(of(step.parent), own, &places);
        let better = match (step.kind, by_parent) {
            (_, None) => None,
            (StepKind::Merge, Some((one, after))) => {
                let other = sums(of(step.other), own, &places).map_or(one, |(other, _)| other);
                let before = one.max(other);
                Some((before, after, !is_more(after, before)))
            }
            (_, Some((before, after))) => Some((before, after, is_more(before, after))),
        };
        let is_better = better.is_some_and(|(_, _, is_better)| is_better);
        step.before = better.map(|(before, _, _)| before);
        step.after = better.map(|(_, after, _)| after);
        if is_better {
            let selection = self.improvement.pinned.rows.selection.clone();
            self.score(number, &selection).await?;
            step.version = self.save_version(&step).await?;
            step.state = StepState::Accepted;
        } else {
            step.state = StepState::NotBetter;
        }
        if let Some(last) = self.steps.last_mut() {
            *last = step.clone();
        }
        self.gain.step = Some(step);
        self.flush().await
    }

    /// Saves an accepted text as a version of the prompt. No label moves. A name that somebody
    /// deleted meanwhile stays deleted.
    async fn save_version(&self, step: &Step) -> Flow<Option<i64>> {
        let improvement = &self.improvement;
        let actor = improvement.started_by.parse().unwrap_or(db::Actor::System);
        let scope = Scope {
            project: improvement.project,
            actor,
        };
        let name: db::Name = improvement.prompt.parse().map_err(|problem: db::Problem| {
            Halt::Error(AppError::internal(anyhow::anyhow!("{}", problem.message)))
        })?;
        let listed = self
            .app
            .catalog
            .name(scope, crate::prompts::KIND, &name)
            .await;
        let listed = listed.map_err(AppError::from)?;
        if listed.is_none_or(|listed| listed.deleted_at.is_some()) {
            return Ok(None);
        }
        let document = self.document_of(step.number)?;
        let from = |number: Option<i64>| {
            let parent = self.steps.iter().find(|one| Some(one.number) == number);
            parent
                .and_then(|one| one.version)
                .map(|version| format!("version {version}"))
        };
        let parents: Vec<String> = [step.parent, step.other]
            .into_iter()
            .filter_map(from)
            .collect();
        let thought: String = step.reason.chars().take(MESSAGE_CHARS).collect();
        let message = format!(
            "improvement {}, step {}, from {}: {thought}",
            improvement.id,
            step.number,
            parents.join(" and ")
        );
        let saved =
            crate::prompts::save_version(&self.app, scope, &name, &document, &message).await;
        match saved {
            Ok(saved) => Ok(Some(saved.version.number)),
            // It was checked before; a reference that is gone now does not end the search.
            Err(error) if error.status.is_client_error() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    async fn rig(&mut self, number: i64) -> Flow<Arc<Rig>> {
        if let Some(rig) = self.rigs.get(&number) {
            return Ok(Arc::clone(rig));
        }
        let step = self.steps.iter().find(|step| step.number == number);
        let (content, digest) = step
            .and_then(|step| Some((step.content.clone()?, step.digest?)))
            .ok_or_else(|| {
                Halt::Error(AppError::internal(anyhow::anyhow!(
                    "step {number} has no prompt"
                )))
            })?;
        let version = match number {
            0 => self.improvement.pinned.prompt.clone(),
            number => PinnedVersion {
                name: format!("draft: {}, step {number}", self.improvement.prompt),
                number: 0,
                digest,
            },
        };
        let rig = Rig::new(
            &self.app,
            &self.improvement,
            &self.line,
            number,
            &content,
            version,
        );
        let rig = Arc::new(rig.await?);
        self.rigs.insert(number, Arc::clone(&rig));
        Ok(rig)
    }

    /// Scores a text on these examples, as far as it was not.
    async fn score(&mut self, number: i64, places: &[i64]) -> Flow<()> {
        let mut waiting: VecDeque<i64> = places
            .iter()
            .copied()
            .filter(|place| !self.heads.done.contains(&(number, *place)))
            .collect();
        if waiting.is_empty() {
            return Ok(());
        }
        let rig = self.rig(number).await?;
        let most = self.improvement.document.concurrency as usize;
        let asked = waiting.len();
        let (mut came, mut failed, mut why) = (0, 0, String::new());
        let mut halt: Option<Halt> = None;
        let mut tasks: JoinSet<Result<std::result::Result<ResultRow, Halted>>> = JoinSet::new();
        loop {
            if self.looks.server_stops() && halt.is_none() {
                halt = Some(Halt::ServerStops);
            }
            if halt.is_some() {
                let _ = self.stop.send(true);
            }
            while halt.is_none() && tasks.len() < most {
                let Some(place) = waiting.pop_front() else {
                    break;
                };
                self.begin(&mut tasks, &rig, place);
            }
            if tasks.is_empty() {
                break;
            }
            tokio::select! {
                Some(joined) = tasks.join_next() => {
                    let mut next = Some(joined);
                    // What is ready at the same moment is written together.
                    while let Some(joined) = next {
                        match joined.map_err(AppError::internal)?? {
                            Ok(row) => {
                                came += 1;
                                if let Err(problem) = &row.answer {
                                    failed += 1;
                                    why.clone_from(problem);
                                }
                                self.take_in(row);
                            }
                            Err(Halted) if halt.is_none() => halt = Some(self.why_halted().await?),
                            Err(Halted) => {}
                        }
                        next = tasks.try_join_next();
                    }
                    self.check(&mut halt).await?;
                }
                () = self.looks.next() => self.check(&mut halt).await?,
            }
        }
        self.check(&mut halt).await?;
        if let Some(halt) = halt {
            return Err(halt);
        }
        let is_member = self
            .steps
            .iter()
            .any(|step| step.number == number && step.state == StepState::Accepted);
        if is_member && failed == came && came >= asked.min(OUTAGE) {
            return Err(Halt::Hold(format!("no answer could be had: {why}")));
        }
        Ok(())
    }

    fn begin(
        &self,
        tasks: &mut JoinSet<Result<std::result::Result<ResultRow, Halted>>>,
        rig: &Arc<Rig>,
        place: i64,
    ) {
        let Some(row) = self.rows.get(&place).map(Arc::clone) else {
            return;
        };
        let failures = self
            .heads
            .failures
            .get(&(rig.number, place))
            .copied()
            .unwrap_or(0);
        let (rig, improvement) = (Arc::clone(rig), Arc::clone(&self.improvement));
        let scales = Arc::clone(&self.scales);
        tasks.spawn(async move {
            Box::pin(answer::answer(
                &improvement,
                &scales,
                &rig,
                &row,
                place,
                failures,
            ))
            .await
        });
    }

    fn take_in(&mut self, row: ResultRow) {
        self.heads.done.insert((row.number, row.place));
        if let Some(objective) = row.objective {
            let scores = self.heads.scores.entry(row.number).or_default();
            scores.insert(row.place, objective);
        }
        self.gain.results.push(row);
    }

    /// Writes what there is and hears whether the work goes on.
    async fn check(&mut self, halt: &mut Option<Halt>) -> Flow<()> {
        match self.write().await? {
            None => Err(Halt::Lost),
            Some(State::Running) => Ok(()),
            Some(other) => {
                halt.get_or_insert(Halt::Changed(other));
                Ok(())
            }
        }
    }

    /// Writes what there is, where nothing else is under way.
    async fn flush(&mut self) -> Flow<()> {
        let mut halt = None;
        self.check(&mut halt).await?;
        match halt {
            Some(halt) => Err(halt),
            None if self.looks.server_stops() => Err(Halt::ServerStops),
            None => Ok(()),
        }
    }

    /// Why a call did not begin.
    async fn why_halted(&mut self) -> Flow<Halt> {
        if let Some(ended) = self.line.meter.ended() {
            return Ok(Halt::Limit(ended));
        }
        if self.looks.server_stops() {
            return Ok(Halt::ServerStops);
        }
        let mut halt = None;
        self.check(&mut halt).await?;
        Ok(halt.unwrap_or(Halt::ServerStops))
    }

    /// Everything that was gained, to the database. `None` when the improvement is somebody
    /// else's now.
    async fn write(&mut self) -> Result<Option<State>> {
        let now = Instant::now();
        let worked = now.duration_since(self.counted_to);
        self.gain.worked_us = i64::try_from(worked.as_micros()).unwrap_or(0);
        self.gain.calls = self.line.meter.take_unwritten();
        let state = store::write(&self.app.db, &self.hold, &self.gain).await?;
        self.counted_to = now;
        if !self.gain.is_empty() {
            (RUNS.changed)(&self.app);
        }
        self.gain = Gain::default();
        Ok(state)
    }

    async fn compare(&self, best: i64, held_out: &[i64]) -> Flow<verdict::Verdict> {
        let improvement = &self.improvement;
        let (project, id) = (improvement.project, improvement.id.as_str());
        let mut own = Vec::new();
        for number in [0, best] {
            let mut rows = store::results(&self.app.db, project, id, number).await?;
            rows.retain(|row| held_out.contains(&row.place));
            own.push(rows);
        }
        let mut clusters = HashMap::new();
        if let Some(field) = &improvement.document.cluster_by {
            for place in held_out {
                let row = self.rows.get(place);
                let value = row.and_then(|row| row.example.metadata.get(field));
                // An example without the field stands alone.
                let cluster = value.map_or_else(|| cluster_of(&json!(place)), cluster_of);
                clusters.insert(*place, cluster);
            }
        }
        let step = self.steps.iter().find(|step| step.number == best);
        let named = (best, step.and_then(|step| step.version));
        let improvement = Arc::clone(improvement);
        let has_range = self.perfect.is_some();
        let compared = tokio::task::spawn_blocking(move || {
            let (start, best) = (
                own.first().cloned().unwrap_or_default(),
                own.pop().unwrap_or_default(),
            );
            verdict::compare(&improvement, named, &start, &best, has_range, &clusters)
        });
        Ok(compared.await.map_err(AppError::internal)?)
    }
}

fn limit_reason(ended: Ended) -> String {
    match ended {
        Ended::Calls => "the budget of calls is used up; raise it and resume".to_owned(),
        Ended::Money => "the budget is used up: the next call might not fit; raise it and resume".to_owned(),
        Ended::Price => "the price of a model is not known, so the budget cannot be kept; add its price and resume".to_owned(),
    }
}

fn merge_documents(
    base: &PromptDocument,
    one: &PromptDocument,
    other: &PromptDocument,
) -> std::result::Result<PromptDocument, String> {
    let (parts, ours, theirs) = (
        reflect::parts(base),
        reflect::parts(one),
        reflect::parts(other),
    );
    let mut texts = std::collections::BTreeMap::new();
    for (index, ((base, one), other)) in parts.iter().zip(&ours).zip(&theirs).enumerate() {
        let merged = merge::merge(&base.text, &one.text, &other.text);
        let merged = merged.ok_or("both change the same lines in different ways")?;
        texts.insert(index, merged);
    }
    let document = reflect::with_parts(base, &texts);
    reflect::check(base, &document)?;
    Ok(document)
}

/// The examples of an improvement, by place.
async fn rows(app: &App, improvement: &Improvement) -> Result<HashMap<i64, Arc<Row>>> {
    let scope = Scope {
        project: improvement.project,
        actor: db::Actor::System,
    };
    let pinned = &improvement.pinned;
    let dataset =
        crate::evaluations::dataset_document(app, improvement.project, &pinned.suite).await?;
    let wanted = pinned.rows.all();
    let mut found = HashMap::new();
    let mut place = 0;
    let mut reading = app.datasets.reading_document(scope, &dataset)?;
    while let Some(examples) = reading.next().await? {
        for example in examples {
            if wanted.contains(&place) {
                let value = serde_json::to_value(&example).unwrap_or_default();
                found.insert(place, Arc::new(Row { example, value }));
            }
            place += 1;
        }
    }
    Ok(found)
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "budgets are at most a million dollars"
)]
fn nano(usd: f64) -> i64 {
    (usd * 1e9) as i64
}
