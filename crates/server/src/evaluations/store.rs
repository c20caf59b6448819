//! Evaluations, their answers and scores in the database.
//!
//! Whose an evaluation is, and what state it is in, [`crate::runs`] knows; what a worker
//! writes here, it writes in a transaction of its [`Hold`].

use base::{NanoUsd, ProjectId};
use db::rows::{flag, json, optional_json, parsed};
use db::sqlx::any::AnyRow;
use db::sqlx::{Row as _, query};
use db::{Db, DbError, WriteTx};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::document::SuiteDocument;
use super::pin::Pinned;
use crate::error::{AppError, Result};
use crate::runs::{Hold, State};

/// How far an evaluation is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Counters {
    /// Examples.
    pub examples: i64,
    /// Answers that there will be.
    pub answers_total: i64,
    /// Answers that were given.
    pub answers_ok: i64,
    /// Answers that could not be had.
    pub answers_failed: i64,
    /// Answers among them that an earlier evaluation had paid for.
    pub answers_cached: i64,
    /// Scores that there will be.
    pub scores_total: i64,
    /// Scores that were given.
    pub scores_ok: i64,
    /// Scores that there cannot be, because there is no answer.
    pub scores_error: i64,
    /// Scores that an evaluator could not give.
    pub scores_unscored: i64,
}

/// One run of a suite.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluation {
    /// Names it.
    pub id: String,
    /// Whose.
    pub project: ProjectId,
    /// The suite's name; empty for one that was written out.
    pub suite: String,
    /// The suite's version.
    pub suite_version: Option<i64>,
    /// What is evaluated.
    pub document: SuiteDocument,
    /// What the suite's references stand for.
    pub pinned: Pinned,
    /// Where it is.
    pub state: State,
    /// Why.
    pub reason: String,
    /// Who started it.
    pub started_by: String,
    /// When it was asked for.
    pub created_at: i64,
    /// When a worker first took it.
    pub started_at: Option<i64>,
    /// When it ended.
    pub ended_at: Option<i64>,
    /// How long workers have worked on it.
    pub worked_us: i64,
    /// How far it is.
    pub counters: Counters,
    /// What its calls have cost.
    pub spent: NanoUsd,
    /// Calls whose price nobody knows.
    pub unpriced: i64,
    /// The gates, once it is done.
    pub gates: Option<Value>,
}

/// An answer of a candidate to an example.
#[derive(Debug, Clone, PartialEq)]
pub struct AnswerRow {
    /// Which.
    pub cell: Cell,
    /// The example's id.
    pub example: String,
    /// The answer; `Err` when there is none.
    pub answer: std::result::Result<String, CallProblem>,
    /// The trace of the call.
    pub trace: String,
    /// Prompt tokens.
    pub input_tokens: i64,
    /// Completion tokens.
    pub output_tokens: i64,
    /// What the call cost; none when nobody knows.
    pub cost: Option<i64>,
    /// How long it took.
    pub latency_us: i64,
    /// Whether an earlier evaluation paid for it.
    pub cached: bool,
    /// How often it was tried.
    pub attempts: i64,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallProblem {
    /// A short word.
    pub kind: String,
    /// For people.
    pub message: String,
}

/// One place of the matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cell {
    /// The number of the example in the dataset's order.
    pub place: i64,
    /// The number of the candidate.
    pub candidate: usize,
    /// Which repetition, from 0.
    pub repetition: i64,
}

/// What an evaluator said of a cell.
#[derive(Debug, Clone, PartialEq)]
pub struct ScoreRow {
    /// The cell.
    pub cell: Cell,
    /// The number of the evaluator.
    pub evaluator: usize,
    /// What it said.
    pub outcome: Outcome,
    /// The judge's reason, or why there is no score.
    pub reason: String,
    /// A word that goes with the number.
    pub label: Option<String>,
    /// Raw replies, distributions, parts of the metric.
    pub detail: Value,
    /// The judge's first call.
    pub trace: Option<String>,
    /// What the judge's calls cost.
    pub cost: i64,
    /// Whether an earlier evaluation paid for it.
    pub cached: bool,
}

/// What an evaluator said of an answer, and where the answer is.
#[derive(Debug, Clone, PartialEq)]
pub struct JudgedAnswer {
    /// The cell.
    pub cell: Cell,
    /// The number.
    pub value: f64,
    /// A word that goes with it.
    pub label: Option<String>,
    /// The trace of the answer.
    pub trace: String,
}

/// The three outcomes of scoring.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Outcome {
    /// A finite number.
    Scored(f64),
    /// There is no answer to score.
    Error,
    /// The evaluator failed.
    Unscored,
}

impl Outcome {
    /// The word of the API and the database.
    pub fn name(self) -> &'static str {
        match self {
            Self::Scored(_) => "scored",
            Self::Error => "error",
            Self::Unscored => "unscored",
        }
    }

    /// The number, where there is one.
    pub fn value(self) -> Option<f64> {
        match self {
            Self::Scored(value) => Some(value),
            Self::Error | Self::Unscored => None,
        }
    }
}

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT id, project, suite, suite_version, document, pinned, state, reason, started_by, created_at, \
             started_at, ended_at, worked_us, examples, answers_total, answers_ok, answers_failed, answers_cached, \
             scores_total, scores_ok, scores_error, scores_unscored, spent, unpriced, gates FROM evaluations ",
            $rest
        )
    };
}

pub(super) async fn insert(tx: &mut WriteTx, new: &Evaluation) -> Result<()> {
    let pinned = serde_json::to_string(&new.pinned).map_err(anyhow::Error::from)?;
    query(
        "INSERT INTO evaluations (id, project, suite, suite_version, document, pinned, state, reason, fence, \
         started_by, created_at, worked_us, examples, answers_total, answers_ok, answers_failed, answers_cached, \
         scores_total, scores_ok, scores_error, scores_unscored, spent, unpriced) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, '', 0, $8, $9, 0, $10, $11, 0, 0, 0, $12, 0, 0, 0, 0, 0)",
    )
    .bind(&new.id)
    .bind(new.project.to_string())
    .bind(&new.suite)
    .bind(new.suite_version)
    .bind(new.document.to_value().to_string())
    .bind(pinned)
    .bind(new.state.name())
    .bind(&new.started_by)
    .bind(new.created_at)
    .bind(new.counters.examples)
    .bind(new.counters.answers_total)
    .bind(new.counters.scores_total)
    .execute(tx.conn())
    .await
    .map_err(DbError::from)?;
    Ok(())
}

/// One evaluation of a project.
pub(super) async fn find(db: &Db, project: ProjectId, id: &str) -> Result<Option<Evaluation>> {
    let row = query(select!("WHERE project = $1 AND id = $2"))
        .bind(project.to_string())
        .bind(id)
        .fetch_optional(db.read())
        .await
        .map_err(DbError::from)?;
    row.as_ref().map(read).transpose()
}

/// As [`find`], inside of a transaction.
pub(super) async fn find_in(
    tx: &mut WriteTx,
    project: ProjectId,
    id: &str,
) -> Result<Option<Evaluation>> {
    let row = query(select!("WHERE project = $1 AND id = $2"))
        .bind(project.to_string())
        .bind(id)
        .fetch_optional(tx.conn())
        .await
        .map_err(DbError::from)?;
    row.as_ref().map(read).transpose()
}

/// The newest evaluations before this one, of one suite or of all.
pub(super) async fn list(
    db: &Db,
    project: ProjectId,
    suite: Option<&str>,
    before: Option<(i64, String)>,
    limit: i64,
) -> Result<Vec<Evaluation>> {
    let (at, before_id) = before.unwrap_or((i64::MAX, "z".to_owned()));
    let rows = query(select!(
        "WHERE project = $1 AND ($2 = 0 OR suite = $3) AND (created_at, id) < ($4, $5) \
         ORDER BY created_at DESC, id DESC LIMIT $6"
    ))
    .bind(project.to_string())
    .bind(i64::from(suite.is_some()))
    .bind(suite.unwrap_or_default())
    .bind(at)
    .bind(before_id)
    .bind(limit)
    .fetch_all(db.read())
    .await
    .map_err(DbError::from)?;
    rows.iter().map(read).collect()
}

/// What one write adds.
#[derive(Debug, Clone, Default)]
pub(super) struct Gain {
    pub answers: Vec<AnswerRow>,
    pub scores: Vec<ScoreRow>,
    /// Entries for the cache.
    pub cache: Vec<(String, Value)>,
    pub spent: i64,
    pub unpriced: i64,
    pub worked_us: i64,
}

impl Gain {
    pub(super) fn is_empty(&self) -> bool {
        self.answers.is_empty() && self.scores.is_empty()
    }
}

/// Writes what was gained, all or nothing. `None` when the evaluation is somebody
/// else's now; otherwise the state that it is in.
pub(super) async fn write(db: &Db, hold: &Hold, gain: &Gain) -> Result<Option<State>> {
    let count =
        |wanted: fn(&AnswerRow) -> bool| of(gain.answers.iter().filter(|a| wanted(a)).count());
    let outcomes = |name: &str| {
        of(gain
            .scores
            .iter()
            .filter(|s| s.outcome.name() == name)
            .count())
    };
    let Some((mut tx, state)) = hold.write(db).await? else {
        return Ok(None);
    };
    query(
        "UPDATE evaluations SET answers_ok = answers_ok + $1, answers_failed = answers_failed + $2, \
             answers_cached = answers_cached + $3, scores_ok = scores_ok + $4, scores_error = scores_error + $5, \
             scores_unscored = scores_unscored + $6, spent = spent + $7, unpriced = unpriced + $8, \
             worked_us = worked_us + $9 \
         WHERE project = $10 AND id = $11",
    )
    .bind(count(|row| row.answer.is_ok()))
    .bind(count(|row| row.answer.is_err()))
    .bind(count(|row| row.cached))
    .bind(outcomes("scored"))
    .bind(outcomes("error"))
    .bind(outcomes("unscored"))
    .bind(gain.spent)
    .bind(gain.unpriced)
    .bind(gain.worked_us)
    .bind(hold.project.to_string())
    .bind(&hold.id)
    .execute(tx.conn())
    .await
    .map_err(DbError::from)?;
    for answer in &gain.answers {
        insert_answer(&mut tx, hold, answer).await?;
    }
    for score in &gain.scores {
        insert_score(&mut tx, hold, score).await?;
    }
    for (key, content) in &gain.cache {
        insert_cache(&mut tx, hold.project, key, content).await?;
    }
    tx.commit().await?;
    Ok(Some(state))
}

fn of(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

async fn insert_answer(tx: &mut WriteTx, hold: &Hold, row: &AnswerRow) -> Result<(), DbError> {
    let now = tx.db().now_us();
    let problem = row.answer.as_ref().err();
    query(
        "INSERT INTO evaluation_answers (evaluation, project, place, candidate, repetition, example, state, text, error, \
             message, trace, input_tokens, output_tokens, cost, latency_us, cached, attempts, at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18) \
         ON CONFLICT (evaluation, place, candidate, repetition) DO NOTHING",
    )
    .bind(&hold.id)
    .bind(hold.project.to_string())
    .bind(row.cell.place)
    .bind(of(row.cell.candidate))
    .bind(row.cell.repetition)
    .bind(&row.example)
    .bind(if problem.is_none() { "ok" } else { "error" })
    // PostgreSQL holds no NUL.
    .bind(row.answer.as_deref().unwrap_or_default().replace('\0', "\u{fffd}"))
    .bind(problem.map(|problem| problem.kind.as_str()))
    .bind(problem.map(|problem| problem.message.replace('\0', "\u{fffd}")))
    .bind(&row.trace)
    .bind(row.input_tokens)
    .bind(row.output_tokens)
    .bind(row.cost)
    .bind(row.latency_us)
    .bind(i64::from(row.cached))
    .bind(row.attempts)
    .bind(now)
    .execute(tx.conn())
    .await?;
    Ok(())
}

async fn insert_score(tx: &mut WriteTx, hold: &Hold, row: &ScoreRow) -> Result<(), DbError> {
    let now = tx.db().now_us();
    query(
        "INSERT INTO evaluation_scores (evaluation, project, place, candidate, repetition, evaluator, state, value, label, \
             reason, detail, trace, cost, cached, at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15) \
         ON CONFLICT (evaluation, place, candidate, repetition, evaluator) DO NOTHING",
    )
    .bind(&hold.id)
    .bind(hold.project.to_string())
    .bind(row.cell.place)
    .bind(of(row.cell.candidate))
    .bind(row.cell.repetition)
    .bind(of(row.evaluator))
    .bind(row.outcome.name())
    .bind(db::Real(row.outcome.value()))
    .bind(row.label.as_deref())
    .bind(row.reason.replace('\0', "\u{fffd}"))
    // JSON writes NUL as an escape, which is text like any other.
    .bind(row.detail.to_string())
    .bind(row.trace.as_deref())
    .bind(row.cost)
    .bind(i64::from(row.cached))
    .bind(now)
    .execute(tx.conn())
    .await?;
    Ok(())
}

async fn insert_cache(
    tx: &mut WriteTx,
    project: ProjectId,
    key: &str,
    content: &Value,
) -> Result<(), DbError> {
    let now = tx.db().now_us();
    query(
        "INSERT INTO evaluation_cache (project, key, content, at) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (project, key) DO NOTHING",
    )
    .bind(project.to_string())
    .bind(key)
    .bind(content.to_string())
    .bind(now)
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Forgets what was kept before this moment; how much that was.
pub(super) async fn drop_cached_before(db: &Db, before: i64) -> Result<u64> {
    /// Rows of one transaction: others want to write too.
    const AT_ONCE: i64 = 1000;
    let mut dropped = 0;
    loop {
        let mut tx = db.begin_write().await?;
        let rows = query(
            "DELETE FROM evaluation_cache WHERE (project, key) IN \
             (SELECT project, key FROM evaluation_cache WHERE at < $1 LIMIT $2)",
        )
        .bind(before)
        .bind(AT_ONCE)
        .execute(tx.conn())
        .await
        .map_err(DbError::from)?
        .rows_affected();
        tx.commit().await?;
        dropped += rows;
        if rows < AT_ONCE as u64 {
            return Ok(dropped);
        }
    }
}

/// What an earlier evaluation kept under this key.
pub(super) async fn cached(db: &Db, project: ProjectId, key: &str) -> Result<Option<Value>> {
    let row = query("SELECT content FROM evaluation_cache WHERE project = $1 AND key = $2")
        .bind(project.to_string())
        .bind(key)
        .fetch_optional(db.read())
        .await
        .map_err(DbError::from)?;
    let Some(row) = row else { return Ok(None) };
    let text: String = row.try_get(0).map_err(DbError::from)?;
    Ok(serde_json::from_str(&text).ok())
}

/// Ends an evaluation with how its gates stand. False when it is somebody else's, or held or
/// stopped meanwhile.
pub(super) async fn conclude(db: &Db, hold: &Hold, gates: &Value) -> Result<bool> {
    let mut tx = db.begin_write().await?;
    if !hold
        .let_go_in(&mut tx, State::Running, State::Done, "")
        .await?
    {
        return Ok(false);
    }
    query("UPDATE evaluations SET gates = $1 WHERE project = $2 AND id = $3")
        .bind(gates.to_string())
        .bind(hold.project.to_string())
        .bind(&hold.id)
        .execute(tx.conn())
        .await
        .map_err(DbError::from)?;
    tx.commit().await?;
    Ok(true)
}

/// Answers, by place; of these places only, where a range is given.
pub(super) async fn answers(
    db: &Db,
    project: ProjectId,
    id: &str,
    places: Option<(i64, i64)>,
) -> Result<Vec<AnswerRow>> {
    let (from, to) = places.unwrap_or((i64::MIN, i64::MAX));
    let rows = query(
        "SELECT place, candidate, repetition, example, state, text, error, message, trace, input_tokens, output_tokens, \
             cost, latency_us, cached, attempts \
         FROM evaluation_answers WHERE evaluation = $1 AND project = $2 AND place >= $3 AND place <= $4 \
         ORDER BY place, candidate, repetition",
    )
    .bind(id)
    .bind(project.to_string())
    .bind(from)
    .bind(to)
    .fetch_all(db.read())
    .await
    .map_err(DbError::from)?;
    rows.iter().map(|row| Ok(read_answer(row)?)).collect()
}

/// An answer without its texts, for figures.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct AnswerFigure {
    pub cell: Cell,
    pub is_ok: bool,
    pub input_tokens: i64,
    pub output_tokens: i64,
    pub cost: Option<i64>,
    pub latency_us: i64,
    pub error: Option<String>,
}

/// Every answer without its texts.
pub(super) async fn answer_figures(
    db: &Db,
    project: ProjectId,
    id: &str,
) -> Result<Vec<AnswerFigure>> {
    let rows = query(
        "SELECT place, candidate, repetition, state, input_tokens, output_tokens, cost, latency_us, error \
         FROM evaluation_answers WHERE evaluation = $1 AND project = $2 ORDER BY place, candidate, repetition",
    )
    .bind(id)
    .bind(project.to_string())
    .fetch_all(db.read())
    .await
    .map_err(DbError::from)?;
    let figure = |row: &AnyRow| -> std::result::Result<AnswerFigure, DbError> {
        let state: String = row.try_get(3)?;
        Ok(AnswerFigure {
            cell: read_cell(row)?,
            is_ok: state == "ok",
            input_tokens: row.try_get(4)?,
            output_tokens: row.try_get(5)?,
            cost: row.try_get(6)?,
            latency_us: row.try_get(7)?,
            error: row.try_get(8)?,
        })
    };
    rows.iter().map(|row| Ok(figure(row)?)).collect()
}

fn read_cell(row: &AnyRow) -> std::result::Result<Cell, DbError> {
    let candidate: i64 = row.try_get(1)?;
    Ok(Cell {
        place: row.try_get(0)?,
        candidate: usize::try_from(candidate).unwrap_or(0),
        repetition: row.try_get(2)?,
    })
}

fn read_answer(row: &AnyRow) -> std::result::Result<AnswerRow, DbError> {
    let state: String = row.try_get(4)?;
    let error: Option<String> = row.try_get(6)?;
    let message: Option<String> = row.try_get(7)?;
    Ok(AnswerRow {
        cell: read_cell(row)?,
        example: row.try_get(3)?,
        answer: match state.as_str() {
            "ok" => Ok(row.try_get(5)?),
            _ => Err(CallProblem {
                kind: error.unwrap_or_default(),
                message: message.unwrap_or_default(),
            }),
        },
        trace: row.try_get(8)?,
        input_tokens: row.try_get(9)?,
        output_tokens: row.try_get(10)?,
        cost: row.try_get(11)?,
        latency_us: row.try_get(12)?,
        cached: flag(row, 13)?,
        attempts: row.try_get(14)?,
    })
}

/// Scores, by place; of these places only, where a range is given.
pub(super) async fn scores(
    db: &Db,
    project: ProjectId,
    id: &str,
    places: Option<(i64, i64)>,
) -> Result<Vec<ScoreRow>> {
    let (from, to) = places.unwrap_or((i64::MIN, i64::MAX));
    let rows = query(
        "SELECT place, candidate, repetition, evaluator, state, value, label, reason, detail, trace, cost, cached \
         FROM evaluation_scores WHERE evaluation = $1 AND project = $2 AND place >= $3 AND place <= $4 \
         ORDER BY place, candidate, repetition, evaluator",
    )
    .bind(id)
    .bind(project.to_string())
    .bind(from)
    .bind(to)
    .fetch_all(db.read())
    .await
    .map_err(DbError::from)?;
    rows.iter().map(|row| Ok(read_score(row)?)).collect()
}

fn read_score(row: &AnyRow) -> std::result::Result<ScoreRow, DbError> {
    let evaluator: i64 = row.try_get(3)?;
    let state: String = row.try_get(4)?;
    let value: Option<f64> = row.try_get(5)?;
    Ok(ScoreRow {
        cell: read_cell(row)?,
        evaluator: usize::try_from(evaluator).unwrap_or(0),
        outcome: match (state.as_str(), value.filter(|value| value.is_finite())) {
            ("scored", Some(value)) => Outcome::Scored(value),
            ("error", _) => Outcome::Error,
            _ => Outcome::Unscored,
        },
        label: row.try_get(6)?,
        reason: row.try_get(7)?,
        detail: json(row, 8)?,
        trace: row.try_get(9)?,
        cost: row.try_get(10)?,
        cached: flag(row, 11)?,
    })
}

fn read(row: &AnyRow) -> Result<Evaluation> {
    read_row(row).map_err(AppError::from)
}

fn read_row(row: &AnyRow) -> std::result::Result<Evaluation, DbError> {
    let state: String = row.try_get("state")?;
    let spent: i64 = row.try_get("spent")?;
    Ok(Evaluation {
        id: row.try_get("id")?,
        project: parsed(row, "project")?,
        suite: row.try_get("suite")?,
        suite_version: row.try_get("suite_version")?,
        document: json(row, "document")?,
        pinned: json(row, "pinned")?,
        state: State::of(&state),
        reason: row.try_get("reason")?,
        started_by: row.try_get("started_by")?,
        created_at: row.try_get("created_at")?,
        started_at: row.try_get("started_at")?,
        ended_at: row.try_get("ended_at")?,
        worked_us: row.try_get("worked_us")?,
        counters: Counters {
            examples: row.try_get("examples")?,
            answers_total: row.try_get("answers_total")?,
            answers_ok: row.try_get("answers_ok")?,
            answers_failed: row.try_get("answers_failed")?,
            answers_cached: row.try_get("answers_cached")?,
            scores_total: row.try_get("scores_total")?,
            scores_ok: row.try_get("scores_ok")?,
            scores_error: row.try_get("scores_error")?,
            scores_unscored: row.try_get("scores_unscored")?,
        },
        spent: NanoUsd(spent),
        unpriced: row.try_get("unpriced")?,
        gates: optional_json(row, "gates")?,
    })
}

/// A score without its texts, for figures.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ScoreFigure {
    pub cell: Cell,
    pub evaluator: usize,
    pub outcome: Outcome,
}

/// Every score without its texts.
pub(super) async fn score_figures(
    db: &Db,
    project: ProjectId,
    id: &str,
) -> Result<Vec<ScoreFigure>> {
    let rows = query(
        "SELECT place, candidate, repetition, evaluator, state, value FROM evaluation_scores \
         WHERE evaluation = $1 AND project = $2 ORDER BY place, candidate, repetition, evaluator",
    )
    .bind(id)
    .bind(project.to_string())
    .fetch_all(db.read())
    .await
    .map_err(DbError::from)?;
    let figure = |row: &AnyRow| -> std::result::Result<ScoreFigure, DbError> {
        let evaluator: i64 = row.try_get(3)?;
        let state: String = row.try_get(4)?;
        let value: Option<f64> = row.try_get(5)?;
        Ok(ScoreFigure {
            cell: read_cell(row)?,
            evaluator: usize::try_from(evaluator).unwrap_or(0),
            outcome: match (state.as_str(), value.filter(|value| value.is_finite())) {
                ("scored", Some(value)) => Outcome::Scored(value),
                ("error", _) => Outcome::Error,
                _ => Outcome::Unscored,
            },
        })
    };
    rows.iter().map(|row| Ok(figure(row)?)).collect()
}

/// What one evaluator said of every answer that it scored, with the trace of the answer.
pub(super) async fn judged(
    db: &Db,
    project: ProjectId,
    id: &str,
    evaluator: usize,
) -> Result<Vec<JudgedAnswer>> {
    let rows = query(
        "SELECT s.place, s.candidate, s.repetition, s.value, s.label, a.trace \
         FROM evaluation_scores s JOIN evaluation_answers a ON a.evaluation = s.evaluation AND a.place = s.place \
             AND a.candidate = s.candidate AND a.repetition = s.repetition \
         WHERE s.evaluation = $1 AND s.project = $2 AND s.evaluator = $3 AND s.state = 'scored' \
         ORDER BY s.place, s.candidate, s.repetition",
    )
    .bind(id)
    .bind(project.to_string())
    .bind(of(evaluator))
    .fetch_all(db.read())
    .await
    .map_err(DbError::from)?;
    let answer = |row: &AnyRow| -> std::result::Result<JudgedAnswer, DbError> {
        Ok(JudgedAnswer {
            cell: read_cell(row)?,
            value: row.try_get(3)?,
            label: row.try_get(4)?,
            trace: row.try_get(5)?,
        })
    };
    rows.iter().map(|row| Ok(answer(row)?)).collect()
}

/// The details of one evaluator's scores.
pub(super) async fn details(
    db: &Db,
    project: ProjectId,
    id: &str,
    evaluator: usize,
) -> Result<Vec<(Cell, Value)>> {
    let rows = query(
        "SELECT place, candidate, repetition, detail FROM evaluation_scores \
         WHERE evaluation = $1 AND project = $2 AND evaluator = $3 AND state = 'scored' \
         ORDER BY place, candidate, repetition",
    )
    .bind(id)
    .bind(project.to_string())
    .bind(of(evaluator))
    .fetch_all(db.read())
    .await
    .map_err(DbError::from)?;
    let detail = |row: &AnyRow| -> std::result::Result<(Cell, Value), DbError> {
        Ok((read_cell(row)?, json(row, 3)?))
    };
    rows.iter().map(|row| Ok(detail(row)?)).collect()
}

/// Writes a changed document: a raised budget.
pub(super) async fn set_document(
    tx: &mut WriteTx,
    project: ProjectId,
    id: &str,
    document: &SuiteDocument,
) -> Result<(), DbError> {
    query("UPDATE evaluations SET document = $1 WHERE project = $2 AND id = $3")
        .bind(document.to_value().to_string())
        .bind(project.to_string())
        .bind(id)
        .execute(tx.conn())
        .await?;
    Ok(())
}
