//! The worker of one evaluation: which tasks come next, how many at once, and what is
//! written down.
//!
//! One loop owns everything that changes; tasks only make their calls and hand the
//! result back. Examples are read a chunk at a time and worked on in their order,
//! all candidates of an example close together, so that an evaluation that is
//! stopped early can still compare. Results that arrive together are written in one
//! transaction, under the worker's fence.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex};

use base::{Digest, Id as _, ScoreId};
use db::Scope;
use serde_json::{Value, json};
use telemetry::{Batch, Score, Source};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::ask::Asker;
use super::call::{Bill, Caller, Lanes, lane_of, principal, stable_id};
use super::examples::Examples;
use super::judging::Judged;
use super::local::References;
use super::pin::Ready;
use super::purse::{Payer, Purse, Room};
use super::store::{self, Cell, Evaluation, Gain, Outcome, ScoreRow};
use super::task::{Done, Shared, Subject, Task, answer, measured_row, score, score_row};
use super::{Desk, RUNS, gate};
use crate::app::App;
use crate::datasets::Example;
use crate::error::{AppError, Result};
use crate::evaluators::{EvaluatorDocument, metric::Measure};
use crate::runs::{End, Hold, Looks, State, Trouble};

/// How many examples beyond those that are worked on are kept ready.
const AHEAD: usize = 8;

/// Works on an evaluation to its end, or until it is held.
pub(super) async fn run(app: App, hold: Hold) -> std::result::Result<End, Trouble> {
    let found = store::find(&app.db, hold.project, &hold.id).await?;
    let Some(evaluation) = found else {
        return Ok(End::Finished);
    };
    let (stop, stopped) = watch::channel(false);
    let worker = Worker::new(&app, evaluation, hold, stop, stopped).await;
    Ok(worker.map_err(Trouble::of_pinned)?.run().await?)
}

struct Finished {
    payer: Payer,
    held: i64,
    done: Result<Done>,
}

/// An example that is worked on.
struct Open {
    example: Arc<Example>,
    value: Arc<Value>,
    digest: Digest,
    answers: HashMap<(usize, i64), Option<Arc<str>>>,
    traces: HashMap<(usize, i64), (String, bool)>,
    scored: HashSet<(usize, i64, usize)>,
    /// Scores that were put into the queue.
    asked: HashSet<(usize, i64, usize)>,
    /// Tasks that are waiting or under way.
    pending: usize,
}

struct Worker {
    app: App,
    hold: Hold,
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    examples: Examples,
    open: HashMap<i64, Open>,
    queue: VecDeque<Task>,
    tasks: JoinSet<Finished>,
    purse: Purse,
    gain: Gain,
    counted_to: Instant,
}

impl Worker {
    async fn new(
        app: &App,
        evaluation: Evaluation,
        hold: Hold,
        stop: watch::Sender<bool>,
        stopped: watch::Receiver<bool>,
    ) -> Result<Self> {
        let project = evaluation.project;
        let scope = Scope {
            project,
            actor: evaluation.started_by.parse().unwrap_or(db::Actor::System),
        };
        let mut ready = Ready::load(app, project, &evaluation.document, &evaluation.pinned).await?;
        let askers = Asker::all(&evaluation.document, &evaluation.pinned, &ready.documents)
            .map_err(|problem| db::CatalogError::Invalid(vec![problem]))?;
        let documents = evaluation.pinned.evaluators.iter();
        let resources = super::resources_for(app, documents.map(|one| &one.document)).await;
        let mut measures = Vec::new();
        for evaluator in &evaluation.pinned.evaluators {
            measures.push(match &evaluator.document {
                EvaluatorDocument::Metric(metric) => Some(
                    Measure::new(metric, &resources)
                        .map_err(|problem| db::CatalogError::Invalid(vec![problem]))?,
                ),
                _ => None,
            });
        }
        let dataset = super::dataset_document(app, project, &evaluation.pinned).await?;
        ready.references = References::of(
            app.datasets.reading_document(scope, &dataset)?,
            evaluation.document.split.clone(),
        );
        let examples = Examples::new(
            app.datasets.reading_document(scope, &dataset)?,
            &evaluation.document,
            super::sampled_places(Desk::of(app), &evaluation).await?,
        );
        let caller = Caller {
            app: app.clone(),
            project,
            principal: Arc::new(principal(&evaluation.started_by, project)),
            evaluation: evaluation.id.clone(),
            created_at: evaluation.created_at,
            ready,
            plan: Mutex::default(),
            is_takeover: hold.is_takeover(),
            attempts: evaluation.document.attempts,
            lanes: Lanes::default(),
            plain: Arc::default(),
            only_recorded: false,
            meter: None,
            stop: stopped,
        };
        let names = evaluation
            .document
            .candidates
            .iter()
            .map(|c| c.name.clone())
            .collect();
        let purse = Purse::new(evaluation.document.budget_usd, evaluation.spent);
        Ok(Self {
            app: app.clone(),
            hold,
            shared: Arc::new(Shared {
                caller,
                askers,
                measures,
                names,
                evaluation,
            }),
            stop,
            examples,
            open: HashMap::new(),
            queue: VecDeque::new(),
            tasks: JoinSet::new(),
            purse,
            gain: Gain::default(),
            counted_to: Instant::now(),
        })
    }

    async fn run(mut self) -> Result<End> {
        let mut state = State::Running;
        // Why the worker holds the evaluation itself, and what state that leads to.
        let mut held_for: Option<String> = None;
        let mut looks = Looks::new(&self.app);
        loop {
            let stops = looks.server_stops();
            let may_begin = state == State::Running && held_for.is_none() && !stops;
            let _ = self.stop.send(!may_begin);
            if may_begin {
                held_for = self.begin_tasks().await?;
            }
            if self.tasks.is_empty() {
                if stops {
                    self.write().await?;
                    return Ok(End::ServerStops);
                }
                let ended = match (&held_for, state) {
                    (Some(reason), State::Running) => {
                        let reason = reason.clone();
                        self.let_go(State::Running, State::Paused, &reason).await?
                    }
                    (None, State::Running) if self.queue.is_empty() && self.has_no_more() => {
                        self.finish().await?
                    }
                    (_, State::Running) => false,
                    (_, other) => self.let_go(other, other, "").await?,
                };
                if ended {
                    return Ok(End::Finished);
                }
            }
            tokio::select! {
                Some(joined) = self.tasks.join_next(), if !self.tasks.is_empty() => {
                    self.take_in(joined)?;
                    // What is ready at the same moment is written together.
                    while let Some(joined) = self.tasks.try_join_next() {
                        self.take_in(joined)?;
                    }
                    match self.write().await? {
                        Some(now) => state = now,
                        None => return Ok(End::Finished),
                    }
                }
                () = looks.next() => match self.write().await? {
                    Some(now) => state = now,
                    None => return Ok(End::Finished),
                },
            }
        }
    }

    /// Whether every example was given out and is finished.
    fn has_no_more(&self) -> bool {
        self.examples.is_empty() && self.open.values().all(|open| open.pending == 0)
    }

    /// Begins as many tasks as may run. Says why it holds the evaluation, if it does.
    async fn begin_tasks(&mut self) -> Result<Option<String>> {
        let most = self.shared.evaluation.document.concurrency as usize;
        while self.tasks.len() < most {
            while self.queue.len() < most + AHEAD {
                match self.examples.next().await? {
                    Some((place, example)) => self.open_example(place, example).await?,
                    None => break,
                }
            }
            let lanes = &self.shared.caller.lanes;
            let ready = self
                .queue
                .iter()
                .position(|task| lanes.blocked_until(&self.lane_of(task)).is_none());
            let Some(at) = ready else { return Ok(None) };
            let Some(task) = self.queue.get(at).cloned() else {
                return Ok(None);
            };
            let payer = match &task {
                Task::Answer(cell) => Payer::Candidate(cell.candidate),
                Task::Score { evaluator, .. } => Payer::Evaluator(*evaluator),
            };
            let held = match self.purse.hold(payer) {
                Room::Yes(held) => held,
                Room::WhenOthersEnded => return Ok(None),
                Room::No(reason) => return Ok(Some(reason)),
            };
            self.queue.remove(at);
            self.begin(task, payer, held);
        }
        Ok(None)
    }

    fn lane_of(&self, task: &Task) -> String {
        let shared = &self.shared;
        match task {
            Task::Answer(cell) => shared
                .askers
                .get(cell.candidate)
                .map(|asker| asker.lane().to_owned()),
            Task::Score { evaluator, .. } => {
                let evaluator = shared.evaluation.pinned.evaluators.get(*evaluator);
                evaluator.and_then(|evaluator| {
                    evaluator
                        .document
                        .models()
                        .first()
                        .map(|model| lane_of(model))
                })
            }
        }
        .unwrap_or_default()
    }

    /// Reads what is known of an example and puts what is missing into the queue.
    async fn open_example(&mut self, place: i64, example: Example) -> Result<()> {
        let value = serde_json::to_value(&example).unwrap_or_default();
        let judged = json!({
            "input": value["input"], "expected": value["expected"], "context": value["context"],
            "metadata": value["metadata"],
        });
        let digest = Digest::of_json(&judged).map_err(db::CatalogError::from)?;
        let mut open = Open {
            example: Arc::new(example),
            value: Arc::new(value),
            digest,
            answers: HashMap::new(),
            traces: HashMap::new(),
            scored: HashSet::new(),
            asked: HashSet::new(),
            pending: 0,
        };
        if self.hold.is_takeover() {
            let (project, id) = (self.hold.project, self.hold.id.clone());
            let here = Some((place, place));
            for row in store::answers(&self.app.db, project, &id, here).await? {
                let key = (row.cell.candidate, row.cell.repetition);
                open.traces.insert(key, (row.trace, row.cached));
                open.answers.insert(key, row.answer.ok().map(Arc::from));
            }
            for row in store::scores(&self.app.db, project, &id, here).await? {
                let Cell {
                    candidate,
                    repetition,
                    ..
                } = row.cell;
                open.scored.insert((candidate, repetition, row.evaluator));
            }
        }
        let repeats = i64::from(self.shared.evaluation.document.repeats);
        let candidates = self.shared.evaluation.document.candidates.len();
        let known: Vec<(usize, i64)> = open.answers.keys().copied().collect();
        self.open.insert(place, open);
        for repetition in 0..repeats {
            for candidate in 0..candidates {
                let cell = Cell {
                    place,
                    candidate,
                    repetition,
                };
                if !known.contains(&(candidate, repetition)) {
                    self.push_back(Task::Answer(cell));
                }
            }
        }
        // What was answered before, and not scored any more.
        for (candidate, repetition) in known {
            self.answered(
                Cell {
                    place,
                    candidate,
                    repetition,
                },
                true,
            );
        }
        self.close_example(place);
        Ok(())
    }

    fn push_back(&mut self, task: Task) {
        if let Some(open) = self.open.get_mut(&task.cell().place) {
            open.pending += 1;
            self.queue.push_back(task);
        }
    }

    /// Scores come before further answers: an example is finished before the next one.
    fn push_front(&mut self, task: Task) {
        let Some(open) = self.open.get_mut(&task.cell().place) else {
            return;
        };
        if let Task::Score { cell, evaluator } = &task
            && !open
                .asked
                .insert((cell.candidate, cell.repetition, *evaluator))
        {
            return;
        }
        open.pending += 1;
        self.queue.push_front(task);
    }

    /// Puts the scores that an answer makes possible into the queue, or writes down
    /// those that it makes impossible. `with_metrics` where they were not measured yet.
    fn answered(&mut self, cell: Cell, with_metrics: bool) {
        let shared = Arc::clone(&self.shared);
        let baseline = shared.evaluation.document.baseline();
        let Some(open) = self.open.get(&cell.place) else {
            return;
        };
        let answer = open
            .answers
            .get(&(cell.candidate, cell.repetition))
            .cloned()
            .flatten();
        let mut tasks = Vec::new();
        let mut rows = Vec::new();
        for (evaluator, pinned) in shared.evaluation.pinned.evaluators.iter().enumerate() {
            let cells: Vec<Cell> = match pinned.document.is_pairwise() {
                false => vec![cell],
                // The baseline's answer is one half of every other candidate's pair.
                true if cell.candidate == baseline => {
                    let others = (0..shared.names.len()).filter(|other| *other != baseline);
                    others
                        .filter(|other| open.answers.contains_key(&(*other, cell.repetition)))
                        .map(|candidate| Cell { candidate, ..cell })
                        .collect()
                }
                true if open.answers.contains_key(&(baseline, cell.repetition)) => vec![cell],
                true => Vec::new(),
            };
            for cell in cells {
                if open
                    .scored
                    .contains(&(cell.candidate, cell.repetition, evaluator))
                {
                    continue;
                }
                let has = |candidate| {
                    open.answers
                        .get(&(candidate, cell.repetition))
                        .is_some_and(Option::is_some)
                };
                let complete =
                    has(cell.candidate) && (!pinned.document.is_pairwise() || has(baseline));
                match shared.measures.get(evaluator).and_then(Option::as_ref) {
                    _ if !complete => rows.push(score_row(
                        cell,
                        evaluator,
                        Judged {
                            outcome: Outcome::Error,
                            ..Judged::unscored("there is no answer to score", Value::Null)
                        },
                        false,
                    )),
                    Some(measure) if with_metrics => {
                        let text = answer.as_deref().unwrap_or_default();
                        rows.push(measured_row(cell, evaluator, measure, &open.value, text));
                    }
                    Some(_) => {}
                    None => tasks.push(Task::Score { cell, evaluator }),
                }
            }
        }
        for row in rows {
            self.add_score(row);
        }
        tasks
            .into_iter()
            .rev()
            .for_each(|task| self.push_front(task));
    }

    fn add_score(&mut self, row: ScoreRow) {
        if let Some(open) = self.open.get_mut(&row.cell.place) {
            let new = open
                .scored
                .insert((row.cell.candidate, row.cell.repetition, row.evaluator));
            if new {
                self.gain.scores.push(row);
            }
        }
    }

    fn close_example(&mut self, place: i64) {
        // Its traces are needed until its scores are written.
        let over = self.open.get(&place).is_some_and(|open| open.pending == 0);
        let unwritten = self.gain.scores.iter().any(|row| row.cell.place == place);
        if over && !unwritten {
            self.open.remove(&place);
        }
    }

    fn begin(&mut self, task: Task, payer: Payer, held: i64) {
        let Some(open) = self.open.get(&task.cell().place) else {
            return;
        };
        let shared = Arc::clone(&self.shared);
        let (example, value, digest) = (
            Arc::clone(&open.example),
            Arc::clone(&open.value),
            open.digest,
        );
        let baseline = shared.evaluation.document.baseline();
        let cell = task.cell();
        let text = |candidate| {
            open.answers
                .get(&(candidate, cell.repetition))
                .cloned()
                .flatten()
        };
        let (own, other) = (text(cell.candidate), text(baseline));
        self.tasks.spawn(async move {
            let done = match task {
                Task::Answer(cell) => Box::pin(answer(&shared, cell, &example, &value)).await,
                Task::Score { cell, evaluator } => {
                    let subject = Subject {
                        example: &example,
                        value: &value,
                        digest,
                        own,
                        other,
                    };
                    Box::pin(score(&shared, cell, evaluator, subject)).await
                }
            };
            Finished { payer, held, done }
        });
    }

    fn take_in(
        &mut self,
        joined: std::result::Result<Finished, tokio::task::JoinError>,
    ) -> Result<()> {
        let Finished { payer, held, done } = joined.map_err(AppError::internal)?;
        self.purse.release(held);
        match done? {
            Done::Answer {
                row,
                bill,
                cache,
                measured,
            } => {
                self.pay(payer, bill, row.cached);
                let (place, key) = (row.cell.place, (row.cell.candidate, row.cell.repetition));
                if let Some(open) = self.open.get_mut(&place) {
                    open.pending -= 1;
                    open.traces.insert(key, (row.trace.clone(), row.cached));
                    let text = row
                        .answer
                        .as_ref()
                        .ok()
                        .map(|text| Arc::from(text.as_str()));
                    open.answers.insert(key, text);
                }
                let cell = row.cell;
                self.gain.cache.extend(cache);
                self.gain.answers.push(row);
                measured.into_iter().for_each(|row| self.add_score(row));
                self.answered(cell, false);
            }
            Done::Score { row, bill, cache } => {
                self.pay(payer, bill, row.cached);
                if let Some(open) = self.open.get_mut(&row.cell.place) {
                    open.pending -= 1;
                }
                self.gain.cache.extend(cache);
                self.add_score(row);
            }
            Done::Halted(task) => self.queue.push_front(task),
        }
        Ok(())
    }

    fn pay(&mut self, payer: Payer, bill: Bill, cached: bool) {
        if cached {
            return;
        }
        self.purse.pay(payer, bill);
        self.gain.spent = self.gain.spent.saturating_add(bill.spent);
        self.gain.unpriced += bill.unpriced;
    }

    /// Scores to telemetry, then everything to the database. `None` when the evaluation is
    /// somebody else's now.
    async fn write(&mut self) -> Result<Option<State>> {
        let now = Instant::now();
        let worked = now.duration_since(self.counted_to);
        self.gain.worked_us = i64::try_from(worked.as_micros()).unwrap_or(0);
        self.append_scores().await?;
        let state = store::write(&self.app.db, &self.hold, &self.gain).await?;
        self.counted_to = now;
        if !self.gain.is_empty() {
            (RUNS.changed)(&self.app);
        }
        let places: HashSet<i64> = self.gain.scores.iter().map(|row| row.cell.place).collect();
        let answered: HashSet<i64> = self.gain.answers.iter().map(|row| row.cell.place).collect();
        self.gain = Gain::default();
        for place in places.union(&answered) {
            self.close_example(*place);
        }
        Ok(state)
    }

    /// Scores stand on the traces of the answers too, where traces, overview and experiments
    /// show them. Their ids follow from what they judge, so writing them twice changes nothing.
    async fn append_scores(&self) -> Result<()> {
        let shared = &self.shared;
        let mut batch = Batch::default();
        for row in &self.gain.scores {
            let (Some(value), Some(open)) = (row.outcome.value(), self.open.get(&row.cell.place))
            else {
                continue;
            };
            let key = (row.cell.candidate, row.cell.repetition);
            let Some((trace, false)) = open.traces.get(&key) else {
                continue;
            };
            let (Ok(trace_id), Some(evaluator)) = (
                trace.parse(),
                shared.evaluation.pinned.evaluators.get(row.evaluator),
            ) else {
                continue;
            };
            let Cell {
                place,
                candidate,
                repetition,
            } = row.cell;
            let name = format!(
                "{}/score/{}/{candidate}/{place}/{repetition}",
                self.hold.id, row.evaluator
            );
            let at_us = self.app.clock.now_us();
            batch.scores.push(Score {
                score_id: ScoreId::from_uuid_bytes(stable_id(at_us_of(&shared.evaluation), &name)),
                project: self.hold.project,
                trace_id,
                span_id: None,
                name: evaluator.name.clone(),
                value: Some(value),
                label: row.label.clone(),
                comment: Some(row.reason.clone()).filter(|reason| !reason.is_empty()),
                source: Source::Judge,
                author: Some(format!("evaluator:{}", evaluator.digest.short())),
                at_us,
                supersedes: None,
            });
        }
        if batch.scores.is_empty() {
            return Ok(());
        }
        let not_stored =
            |cause: String| AppError::unavailable(format!("scores were not stored: {cause}"));
        let ack = self
            .app
            .telemetry
            .append(batch)
            .map_err(|full| not_stored(full.to_string()))?;
        ack.await.map_err(|error| not_stored(error.to_string()))
    }

    /// Lets the evaluation go. False when its state has changed again meanwhile.
    async fn let_go(&mut self, seen: State, to: State, reason: &str) -> Result<bool> {
        self.write().await?;
        let gone = self.hold.let_go(&self.app.db, seen, to, reason).await?;
        (RUNS.changed)(&self.app);
        // Either it was resumed, which the next look finds out, or it is somebody else's.
        Ok(gone)
    }

    async fn finish(&mut self) -> Result<bool> {
        if self.write().await?.is_none() {
            return Ok(true);
        }
        let gates = gate::conclude(Desk::of(&self.app), &self.hold.id, self.hold.project).await?;
        let gone = store::conclude(&self.app.db, &self.hold, &gates).await?;
        (RUNS.changed)(&self.app);
        Ok(gone)
    }
}

fn at_us_of(evaluation: &Evaluation) -> i64 {
    evaluation.created_at
}
