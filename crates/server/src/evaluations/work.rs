//! The worker of one evaluation: which calls come next, how many at once, what they
//! may cost, and what is written down.
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
use super::call::{Bill, Caller, Halted, Lanes, lane_of, principal, stable_id, tags};
use super::judging::{About, Judged, Look, judge};
use super::local::References;
use super::pin::Ready;
use super::store::{self, AnswerRow, Cell, Evaluation, Gain, Outcome, ScoreRow};
use super::{Desk, RUNS, gate};
use crate::app::App;
use crate::datasets::{Example, Reading};
use crate::error::{AppError, Result};
use crate::evaluators::{EvaluatorDocument, metric::Measure};
use crate::runs::{End, Hold, Looks, State, Trouble};

/// How many examples beyond those that are worked on are kept ready.
const AHEAD: usize = 8;
/// Until a call has shown what one costs, and as a margin afterwards.
const HOLD_MARGIN: f64 = 1.5;

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

/// Something to do.
#[derive(Debug, Clone)]
enum Task {
    Answer(Cell),
    Score { cell: Cell, evaluator: usize },
}

impl Task {
    fn cell(&self) -> Cell {
        match self {
            Self::Answer(cell) | Self::Score { cell, .. } => *cell,
        }
    }
}

/// What came back of a task.
enum Done {
    Answer {
        row: AnswerRow,
        bill: Bill,
        cache: Option<(String, Value)>,
        measured: Vec<ScoreRow>,
    },
    Score {
        row: ScoreRow,
        bill: Bill,
        cache: Option<(String, Value)>,
    },
    Halted(Task),
}

struct Finished {
    payer: Payer,
    held: i64,
    done: Result<Done>,
}

/// Whose calls cost alike: a candidate, or an evaluator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Payer {
    Candidate(usize),
    Evaluator(usize),
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

/// What tasks share.
struct Shared {
    caller: Caller,
    evaluation: Evaluation,
    askers: Vec<Asker>,
    /// By evaluator; none for those that ask somebody.
    measures: Vec<Option<Measure>>,
    names: Vec<String>,
}

struct Worker {
    app: App,
    hold: Hold,
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    source: Examples,
    open: HashMap<i64, Open>,
    queue: VecDeque<Task>,
    tasks: JoinSet<Finished>,
    /// Nano-dollars that may be spent in all.
    budget: Option<i64>,
    spent: i64,
    held: i64,
    dearest: HashMap<Payer, i64>,
    gain: Gain,
    counted_to: Instant,
}

/// The examples that are left, in order.
struct Examples {
    reading: Reading,
    buffer: VecDeque<(i64, Example)>,
    next_place: i64,
    split: Option<String>,
    /// The places that a random sample takes; none where all are taken.
    sampled: Option<HashSet<i64>>,
    left: u64,
    done: bool,
}

impl Examples {
    async fn next(&mut self) -> Result<Option<(i64, Example)>> {
        loop {
            if self.left == 0 || self.done {
                return Ok(None);
            }
            if let Some(found) = self.buffer.pop_front() {
                self.left -= 1;
                return Ok(Some(found));
            }
            let Some(examples) = self.reading.next().await? else {
                self.done = true;
                return Ok(None);
            };
            for example in examples {
                let place = self.next_place;
                self.next_place += 1;
                let wanted = self
                    .split
                    .as_ref()
                    .is_none_or(|split| example.split.as_ref() == Some(split))
                    && self
                        .sampled
                        .as_ref()
                        .is_none_or(|places| places.contains(&place));
                if wanted {
                    self.buffer.push_back((place, example));
                }
            }
        }
    }
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
        let source = Examples {
            reading: app.datasets.reading_document(scope, &dataset)?,
            buffer: VecDeque::new(),
            next_place: 0,
            split: evaluation.document.split.clone(),
            sampled: super::sampled_places(Desk::of(app), &evaluation).await?,
            left: evaluation.document.limit.unwrap_or(u64::MAX),
            done: false,
        };
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
        let budget = evaluation.document.budget_usd.map(nano);
        let spent = evaluation.spent.0;
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
            source,
            open: HashMap::new(),
            queue: VecDeque::new(),
            tasks: JoinSet::new(),
            budget,
            spent,
            held: 0,
            dearest: HashMap::new(),
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
                    (None, State::Running)
                        if self.queue.is_empty() && self.source.done_with(&self.open) =>
                    {
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

    /// Begins as many tasks as may run. Says why it holds the evaluation, if it does.
    async fn begin_tasks(&mut self) -> Result<Option<String>> {
        let most = self.shared.evaluation.document.concurrency as usize;
        while self.tasks.len() < most {
            while self.queue.len() < most + AHEAD {
                match self.source.next().await? {
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
            let held = match self.to_hold(payer) {
                Room::Yes(held) => held,
                Room::WhenOthersEnded => return Ok(None),
                Room::No => {
                    let (spent, budget) = (self.spent, self.budget.unwrap_or_default());
                    let reason = format!(
                        "the budget is used up: {} of {} are spent and the next call would not fit",
                        base::NanoUsd(spent),
                        base::NanoUsd(budget)
                    );
                    return Ok(Some(reason));
                }
            };
            if self.budget.is_some() && self.gain_or_known_unpriced() {
                let reason = "the price of a model is not known, so the budget cannot be kept; add its price and resume";
                return Ok(Some(reason.to_owned()));
            }
            self.queue.remove(at);
            self.held += held;
            self.begin(task, payer, held);
        }
        Ok(None)
    }

    fn gain_or_known_unpriced(&self) -> bool {
        self.gain.unpriced > 0 || self.dearest.values().any(|cost| *cost < 0)
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

    /// How much of the budget a task may turn out to need. The first one of its kind
    /// holds all that is left, because nobody knows; it then runs alone.
    fn to_hold(&self, payer: Payer) -> Room {
        let Some(budget) = self.budget else {
            return Room::Yes(0);
        };
        let left = budget.saturating_sub(self.spent).saturating_sub(self.held);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_precision_loss,
            reason = "an estimate"
        )]
        let wanted = match self.dearest.get(&payer) {
            Some(dearest) => (*dearest as f64 * HOLD_MARGIN) as i64,
            None if self.held == 0 && left > 0 => return Room::Yes(left),
            None if self.held > 0 => return Room::WhenOthersEnded,
            None => return Room::No,
        };
        match (wanted <= left, self.held > 0) {
            (true, _) => Room::Yes(wanted),
            (false, true) => Room::WhenOthersEnded,
            (false, false) => Room::No,
        }
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
        self.held -= held;
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
        self.spent = self.spent.saturating_add(bill.spent);
        self.gain.spent = self.gain.spent.saturating_add(bill.spent);
        self.gain.unpriced += bill.unpriced;
        let dearest = self.dearest.entry(payer).or_insert(0);
        *dearest = match bill.unpriced {
            0 => (*dearest).max(bill.spent),
            // Marks that this payer's price is not known.
            _ => -1,
        };
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

impl Examples {
    fn done_with(&self, open: &HashMap<i64, Open>) -> bool {
        (self.done || self.left == 0) && open.values().all(|open| open.pending == 0)
    }
}

enum Room {
    Yes(i64),
    WhenOthersEnded,
    No,
}

fn at_us_of(evaluation: &Evaluation) -> i64 {
    evaluation.created_at
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "budgets are at most a million dollars"
)]
fn nano(usd: f64) -> i64 {
    (usd * 1e9) as i64
}

/// Answers one example with one candidate, and measures the answer.
async fn answer(
    shared: &Shared,
    cell: Cell,
    example: &Example,
    value: &Arc<Value>,
) -> Result<Done> {
    let (Some(asker), Some(name)) = (
        shared.askers.get(cell.candidate),
        shared.names.get(cell.candidate),
    ) else {
        return Err(AppError::internal(anyhow::anyhow!(
            "there is no candidate {}",
            cell.candidate
        )));
    };
    let mut row = AnswerRow {
        cell,
        example: example.id.clone(),
        answer: Ok(String::new()),
        trace: String::new(),
        input_tokens: 0,
        output_tokens: 0,
        cost: Some(0),
        latency_us: 0,
        cached: false,
        attempts: 0,
    };
    let inputs = match asker.inputs(value) {
        Ok(inputs) => inputs,
        Err(problem) => {
            row.answer = Err(problem);
            return Ok(Done::Answer {
                row,
                bill: Bill::default(),
                cache: None,
                measured: Vec::new(),
            });
        }
    };
    let key = answer_key(shared, cell, &inputs.messages, &inputs.variables)?;
    if let Some(key) = &key
        && let Some(kept) = store::cached(&shared.caller.app.db, shared.caller.project, key).await?
        && restore_answer(&mut row, &kept)
    {
        let measured = measure(shared, cell, value, &row);
        return Ok(Done::Answer {
            row,
            bill: Bill::default(),
            cache: None,
            measured,
        });
    }
    let request = asker.request(&shared.caller.evaluation, cell, &example.id, &inputs);
    let called = match shared.caller.call(&request).await? {
        Ok(called) => called,
        Err(Halted) => return Ok(Done::Halted(Task::Answer(cell))),
    };
    tracing::debug!(evaluation.id = %shared.caller.evaluation, candidate = name, place = cell.place, "an example was answered");
    row.trace = called.trace.to_string();
    row.input_tokens = called.bill.input_tokens;
    row.output_tokens = called.bill.output_tokens;
    row.cost = called.bill.cost();
    row.latency_us = called.latency_us;
    row.attempts = called.attempts;
    row.answer = called.answer.map(|said| said.text);
    let measured = measure(shared, cell, value, &row);
    let cache = key
        .filter(|_| row.answer.is_ok())
        .map(|key| (key, keep_answer(&row)));
    Ok(Done::Answer {
        row,
        bill: called.bill,
        cache,
        measured,
    })
}

/// What an answer is kept under; none where it must be new.
fn answer_key(
    shared: &Shared,
    cell: Cell,
    messages: &[Value],
    variables: &serde_json::Map<String, Value>,
) -> Result<Option<String>> {
    let suite = &shared.evaluation.document;
    let pinned = shared.evaluation.pinned.candidates.get(cell.candidate);
    let Some(pinned) = pinned.filter(|_| suite.cache && suite.repeats == 1) else {
        return Ok(None);
    };
    let identity =
        json!({"candidate": pinned.digest, "messages": messages, "variables": variables});
    let digest = Digest::of_json(&identity).map_err(db::CatalogError::from)?;
    Ok(Some(format!("answer/{}", digest.hex())))
}

fn keep_answer(row: &AnswerRow) -> Value {
    json!({
        "text": row.answer.as_deref().unwrap_or_default(), "trace": row.trace, "input_tokens": row.input_tokens,
        "output_tokens": row.output_tokens, "cost": row.cost, "latency_us": row.latency_us,
    })
}

fn restore_answer(row: &mut AnswerRow, kept: &Value) -> bool {
    let (Some(text), Some(trace)) = (kept["text"].as_str(), kept["trace"].as_str()) else {
        return false;
    };
    row.answer = Ok(text.to_owned());
    row.trace = trace.to_owned();
    row.input_tokens = kept["input_tokens"].as_i64().unwrap_or(0);
    row.output_tokens = kept["output_tokens"].as_i64().unwrap_or(0);
    row.cost = kept["cost"].as_i64();
    row.latency_us = kept["latency_us"].as_i64().unwrap_or(0);
    row.cached = true;
    true
}

/// Every metric's score of an answer.
fn measure(shared: &Shared, cell: Cell, value: &Value, row: &AnswerRow) -> Vec<ScoreRow> {
    let Ok(text) = &row.answer else {
        return Vec::new();
    };
    let measures = shared.measures.iter().enumerate();
    measures
        .filter_map(|(evaluator, measure)| {
            Some(measured_row(
                cell,
                evaluator,
                measure.as_ref()?,
                value,
                text,
            ))
        })
        .collect()
}

fn measured_row(
    cell: Cell,
    evaluator: usize,
    measure: &Measure,
    value: &Value,
    text: &str,
) -> ScoreRow {
    let measured = measure.measure(value, text);
    let (outcome, reason) = match measured.value {
        Ok(value) => (Outcome::Scored(value), String::new()),
        Err(why) => (Outcome::Unscored, why),
    };
    ScoreRow {
        cell,
        evaluator,
        outcome,
        reason,
        label: None,
        detail: measured.detail,
        trace: None,
        cost: 0,
        cached: false,
    }
}

fn score_row(cell: Cell, evaluator: usize, judged: Judged, cached: bool) -> ScoreRow {
    ScoreRow {
        cell,
        evaluator,
        outcome: judged.outcome,
        reason: judged.reason,
        label: judged.label,
        detail: judged.detail,
        trace: judged.trace.map(|trace| trace.to_string()),
        cost: judged.bill.spent,
        cached,
    }
}

/// What an evaluator is asked about.
struct Subject<'a> {
    example: &'a Example,
    value: &'a Value,
    digest: Digest,
    own: Option<Arc<str>>,
    other: Option<Arc<str>>,
}

/// What a score depends on beside the evaluator's document: a local name may mean another model
/// tomorrow, and some evaluators look at the whole data.
fn add_local_identity(shared: &Shared, evaluator: &EvaluatorDocument, identity: &mut Value) {
    let engine = &shared.caller.app.engine;
    let models = evaluator.models().into_iter();
    let digests = models.filter_map(|model| engine.digest(model.strip_prefix("local/")?));
    let digests: Vec<Digest> = digests.collect();
    if !digests.is_empty() {
        identity["models"] = json!(digests);
    }
    if evaluator.uses_dataset() {
        let (evaluation, dataset) = (&shared.evaluation, &shared.evaluation.pinned.dataset);
        identity["dataset"] = json!([dataset.digest, evaluation.document.split]);
    }
}

/// Asks one evaluator about one cell.
async fn score(
    shared: &Shared,
    cell: Cell,
    evaluator: usize,
    subject: Subject<'_>,
) -> Result<Done> {
    let pinned = shared.evaluation.pinned.evaluators.get(evaluator);
    let (Some(pinned), Some(name)) = (pinned, shared.names.get(cell.candidate)) else {
        return Err(AppError::internal(anyhow::anyhow!(
            "there is no evaluator {evaluator}"
        )));
    };
    let own = subject.own.as_deref().unwrap_or_default();
    let other = subject
        .other
        .as_deref()
        .filter(|_| pinned.document.is_pairwise());
    let suite = &shared.evaluation.document;
    let key = match suite.cache && suite.repeats == 1 {
        true => {
            let mut identity = json!({"evaluator": pinned.digest, "example": subject.digest, "answer": own, "other": other});
            add_local_identity(shared, &pinned.document, &mut identity);
            let digest = Digest::of_json(&identity).map_err(db::CatalogError::from)?;
            Some(format!("score/{}", digest.hex()))
        }
        false => None,
    };
    if let Some(key) = &key
        && let Some(kept) = store::cached(&shared.caller.app.db, shared.caller.project, key).await?
        && let Some(value) = kept["value"].as_f64()
    {
        let judged = Judged {
            outcome: Outcome::Scored(value),
            label: kept["label"].as_str().map(str::to_owned),
            reason: kept["reason"].as_str().unwrap_or_default().to_owned(),
            detail: kept["detail"].clone(),
            trace: kept["trace"].as_str().and_then(|trace| trace.parse().ok()),
            bill: Bill {
                spent: kept["cost"].as_i64().unwrap_or(0),
                ..Bill::default()
            },
        };
        let row = score_row(cell, evaluator, judged, true);
        return Ok(Done::Score {
            row,
            bill: Bill::default(),
            cache: None,
        });
    }
    let mut tags = tags(&shared.caller.evaluation, name, &subject.example.id);
    tags.insert("evaluator".to_owned(), pinned.name.clone());
    let about = About {
        cell,
        evaluator,
        tags,
    };
    let look = Look {
        value: subject.value,
        expected: subject.example.expected.as_ref(),
        context: &subject.example.context,
        answer: own,
        other,
    };
    let judged = match judge(&shared.caller, &about, &pinned.document, &look).await? {
        Ok(judged) => judged,
        Err(Halted) => return Ok(Done::Halted(Task::Score { cell, evaluator })),
    };
    let bill = judged.bill;
    let row = score_row(cell, evaluator, judged, false);
    let cache = key.zip(row.outcome.value()).map(|(key, value)| {
        let kept = json!({
            "value": value, "label": row.label, "reason": row.reason, "detail": row.detail, "trace": row.trace,
            "cost": row.cost,
        });
        (key, kept)
    });
    Ok(Done::Score { row, bill, cache })
}
