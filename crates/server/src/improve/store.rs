//! Improvements, their steps, results and calls in the database.
//!
//! Whose an improvement is, and what state it is in, [`crate::runs`] knows; what a worker
//! writes here, it writes in a transaction of its [`Hold`].

use std::collections::{HashMap, HashSet};

use base::{Digest, NanoUsd, ProjectId};
use db::rows::{flag, json, optional_json, optional_parsed, parsed};
use db::sqlx::any::AnyRow;
use db::sqlx::{Row as _, query};
use db::{Db, DbError, WriteTx};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::begin::Pinned;
use super::document::ImproveDocument;
use super::search::Scores;
use super::verdict::Verdict;
use crate::error::Result;
use crate::evaluations::calling::{Bill, Paid};
use crate::runs::{Hold, State};

/// What the search is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The prompt that it begins with is scored.
    Start,
    /// Texts are written and tried.
    Search,
    /// The best text is compared with the start on what was held out.
    Final,
}

impl Phase {
    /// The word of the API and the database.
    pub fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Search => "search",
            Self::Final => "final",
        }
    }

    fn of(text: &str) -> Self {
        match text {
            "start" => Self::Start,
            "search" => Self::Search,
            _ => Self::Final,
        }
    }
}

/// A search for a better text of a prompt.
#[derive(Debug, Clone, PartialEq)]
pub struct Improvement {
    /// Names it.
    pub id: String,
    /// Whose.
    pub project: ProjectId,
    /// The prompt's name.
    pub prompt: String,
    /// What was asked for.
    pub document: ImproveDocument,
    /// What its references stand for.
    pub pinned: Pinned,
    /// Where it is.
    pub state: State,
    /// Why.
    pub reason: String,
    /// What the search is at.
    pub phase: Phase,
    /// Why the search ended: `budget`, `patience`, `perfect`; empty before.
    pub ended_by: String,
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
    /// Calls that were made.
    pub calls: i64,
    /// What they cost.
    pub spent: NanoUsd,
    /// Calls whose price nobody knows.
    pub unpriced: i64,
    /// How often the reflecting model could not be asked.
    pub failures: i64,
    /// The final comparison, once it was made.
    pub verdict: Option<Verdict>,
}

/// How a step came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StepKind {
    /// The prompt that the search began with.
    Start,
    /// A text by the reflecting model.
    Reflect,
    /// The changes of two texts put together.
    Merge,
}

impl StepKind {
    /// The word of the API and the database.
    pub fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Reflect => "reflect",
            Self::Merge => "merge",
        }
    }
}

/// What became of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StepState {
    /// It is being tried.
    Trying,
    /// It is better than its parent on the first examples, and was scored on the selection.
    Accepted,
    /// It is not better.
    NotBetter,
    /// The reply was no proposal that can be tried.
    Refused,
    /// It is the parent itself.
    Same,
    /// It was tried before.
    Known,
    /// The parent was perfect on the examples; there was nothing to reflect on.
    Perfect,
}

impl StepState {
    /// The word of the API and the database.
    pub fn name(self) -> &'static str {
        match self {
            Self::Trying => "trying",
            Self::Accepted => "accepted",
            Self::NotBetter => "not_better",
            Self::Refused => "refused",
            Self::Same => "same",
            Self::Known => "known",
            Self::Perfect => "perfect",
        }
    }

    fn of(text: &str) -> Self {
        match text {
            "trying" => Self::Trying,
            "accepted" => Self::Accepted,
            "not_better" => Self::NotBetter,
            "refused" => Self::Refused,
            "same" => Self::Same,
            "known" => Self::Known,
            _ => Self::Perfect,
        }
    }
}

/// One try.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// 0 is the start.
    pub number: i64,
    /// How it came about.
    pub kind: StepKind,
    /// What became of it.
    pub state: StepState,
    /// The text that it comes from.
    pub parent: Option<i64>,
    /// The second parent of a merge.
    pub other: Option<i64>,
    /// The prompt's document; none where there was nothing to try.
    pub content: Option<Value>,
    /// Its digest.
    pub digest: Option<Digest>,
    /// Its version in the catalog.
    pub version: Option<i64>,
    /// What the reflecting model thought, or why there was nothing to try.
    pub reason: String,
    /// The places of the examples that it was tried on first.
    pub places: Vec<i64>,
    /// The sum of the parent's scores on these.
    pub before: Option<f64>,
    /// The sum of its own.
    pub after: Option<f64>,
    /// The call of the reflecting model.
    pub trace: Option<String>,
    /// What it said, where that was of no use.
    pub reply: Option<String>,
    /// When it began.
    pub at: i64,
}

/// An answer to an example.
#[derive(Debug, Clone, PartialEq)]
pub struct ResultRow {
    /// Whose, by the number of the step.
    pub number: i64,
    /// The number of the example in the dataset's order.
    pub place: i64,
    /// The example's id.
    pub example: String,
    /// The answer, or what went wrong.
    pub answer: std::result::Result<String, String>,
    /// The score; none when there is none.
    pub objective: Option<f64>,
    /// What each evaluator said, in their order: outcome, value, label, reason.
    pub scores: Vec<Value>,
    /// The trace of the answer.
    pub trace: String,
    /// What the answer cost; none when nobody knows.
    pub cost: Option<i64>,
    /// Prompt tokens.
    pub input_tokens: i64,
    /// Completion tokens.
    pub output_tokens: i64,
    /// How long it took.
    pub latency_us: i64,
    /// How often it went wrong before.
    pub failures: i64,
}

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT id, project, prompt, document, pinned, state, reason, phase, ended_by, started_by, created_at, \
             started_at, ended_at, worked_us, calls, spent, unpriced, failures, verdict FROM improvements ",
            $rest
        )
    };
}

fn json_text<T: Serialize>(value: &T) -> Result<String> {
    Ok(serde_json::to_string(value).map_err(anyhow::Error::from)?)
}

/// PostgreSQL holds no NUL.
fn clean(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

pub(super) async fn insert(tx: &mut WriteTx, new: &Improvement, held_out: &str) -> Result<()> {
    query(
        "INSERT INTO improvements (id, project, prompt, document, pinned, held_out, state, reason, phase, ended_by, fence, \
         started_by, created_at, worked_us, calls, spent, unpriced, failures) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, '', $8, '', 0, $9, $10, 0, 0, 0, 0, 0)",
    )
    .bind(&new.id)
    .bind(new.project.to_string())
    .bind(&new.prompt)
    .bind(new.document.to_value().to_string())
    .bind(json_text(&new.pinned)?)
    .bind(held_out)
    .bind(new.state.name())
    .bind(new.phase.name())
    .bind(&new.started_by)
    .bind(new.created_at)
    .execute(tx.conn())
    .await
    .map_err(DbError::from)?;
    let start = Step {
        number: 0,
        kind: StepKind::Start,
        state: StepState::Accepted,
        parent: None,
        other: None,
        content: Some(new.pinned.content.clone()),
        digest: Some(new.pinned.prompt.digest),
        version: Some(new.pinned.prompt.number),
        reason: String::new(),
        places: Vec::new(),
        before: None,
        after: None,
        trace: None,
        reply: None,
        at: new.created_at,
    };
    put_step(tx, new.project, &new.id, &start).await?;
    Ok(())
}

/// One improvement of a project.
pub(super) async fn find(db: &Db, project: ProjectId, id: &str) -> Result<Option<Improvement>> {
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
) -> Result<Option<Improvement>> {
    let row = query(select!("WHERE project = $1 AND id = $2"))
        .bind(project.to_string())
        .bind(id)
        .fetch_optional(tx.conn())
        .await
        .map_err(DbError::from)?;
    row.as_ref().map(read).transpose()
}

/// The newest improvements before this one, of one prompt or of all.
pub(super) async fn list(
    db: &Db,
    project: ProjectId,
    prompt: Option<&str>,
    before: Option<(i64, String)>,
    limit: i64,
) -> Result<Vec<Improvement>> {
    let (at, before_id) = before.unwrap_or((i64::MAX, "z".to_owned()));
    let rows = query(select!(
        "WHERE project = $1 AND ($2 = 0 OR prompt = $3) AND (created_at, id) < ($4, $5) \
         ORDER BY created_at DESC, id DESC LIMIT $6"
    ))
    .bind(project.to_string())
    .bind(i64::from(prompt.is_some()))
    .bind(prompt.unwrap_or_default())
    .bind(at)
    .bind(before_id)
    .bind(limit)
    .fetch_all(db.read())
    .await
    .map_err(DbError::from)?;
    rows.iter().map(read).collect()
}

/// How many improvements were judged on these held-out examples before.
pub(super) async fn with_held_out(db: &Db, project: ProjectId, key: &str) -> Result<i64> {
    let row = query(
        "SELECT CAST(COUNT(*) AS BIGINT) FROM improvements \
         WHERE project = $1 AND held_out = $2 AND verdict IS NOT NULL",
    )
    .bind(project.to_string())
    .bind(key)
    .fetch_one(db.read())
    .await
    .map_err(DbError::from)?;
    Ok(row.try_get(0).map_err(DbError::from)?)
}

/// Writes a changed document: a raised budget.
pub(super) async fn set_document(
    tx: &mut WriteTx,
    project: ProjectId,
    id: &str,
    document: &ImproveDocument,
) -> Result<(), DbError> {
    query("UPDATE improvements SET document = $1 WHERE project = $2 AND id = $3")
        .bind(document.to_value().to_string())
        .bind(project.to_string())
        .bind(id)
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// Lets answers that could not be had be asked for anew, under a name of their own.
pub(super) async fn ask_errors_again(
    tx: &mut WriteTx,
    project: ProjectId,
    id: &str,
) -> Result<(), DbError> {
    query(
        "UPDATE improvement_results SET state = 'again', failures = failures + 1 \
         WHERE project = $1 AND improvement = $2 AND state = 'error'",
    )
    .bind(project.to_string())
    .bind(id)
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// What one write adds.
#[derive(Debug, Clone, Default)]
pub(super) struct Gain {
    pub calls: Vec<Paid>,
    pub results: Vec<ResultRow>,
    /// A step that is new or has changed.
    pub step: Option<Step>,
    pub phase: Option<Phase>,
    pub ended_by: Option<&'static str>,
    pub verdict: Option<Verdict>,
    pub worked_us: i64,
}

impl Gain {
    pub(super) fn is_empty(&self) -> bool {
        self.calls.is_empty()
            && self.results.is_empty()
            && self.step.is_none()
            && self.phase.is_none()
            && self.verdict.is_none()
    }
}

/// Writes what was gained, all or nothing. `None` when the improvement is somebody else's
/// now; otherwise the state that it is in.
pub(super) async fn write(db: &Db, hold: &Hold, gain: &Gain) -> Result<Option<State>> {
    let Some((mut tx, state)) = hold.write(db).await? else {
        return Ok(None);
    };
    query(
        "UPDATE improvements SET worked_us = worked_us + $1, phase = COALESCE($2, phase), ended_by = COALESCE($3, ended_by), \
             verdict = COALESCE($4, verdict) \
         WHERE project = $5 AND id = $6",
    )
    .bind(gain.worked_us)
    .bind(gain.phase.map(Phase::name))
    .bind(gain.ended_by)
    .bind(gain.verdict.as_ref().map(json_text).transpose()?)
    .bind(hold.project.to_string())
    .bind(&hold.id)
    .execute(tx.conn())
    .await
    .map_err(DbError::from)?;
    insert_calls(&mut tx, hold, &gain.calls).await?;
    for result in &gain.results {
        put_result(&mut tx, hold, result).await?;
    }
    if let Some(step) = &gain.step {
        put_step(&mut tx, hold.project, &hold.id, step).await?;
    }
    tx.commit().await?;
    Ok(Some(state))
}

/// Counts each call once, whoever found it.
async fn insert_calls(tx: &mut WriteTx, hold: &Hold, calls: &[Paid]) -> Result<(), DbError> {
    let (mut count, mut spent, mut unpriced) = (0, 0, 0);
    for paid in calls {
        let new = query(
            "INSERT INTO improvement_calls (improvement, project, trace, payer, counts, spent, unpriced, input_tokens, \
             output_tokens) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (improvement, trace) DO NOTHING",
        )
        .bind(&hold.id)
        .bind(hold.project.to_string())
        .bind(paid.trace.to_string())
        .bind(&paid.payer)
        .bind(i64::from(paid.counts))
        .bind(paid.bill.spent)
        .bind(paid.bill.unpriced)
        .bind(paid.bill.input_tokens)
        .bind(paid.bill.output_tokens)
        .execute(tx.conn())
        .await?
        .rows_affected();
        if new == 1 {
            count += i64::from(paid.counts);
            spent += paid.bill.spent;
            unpriced += paid.bill.unpriced;
        }
    }
    if !calls.is_empty() {
        query(
            "UPDATE improvements SET calls = calls + $1, spent = spent + $2, unpriced = unpriced + $3 \
             WHERE project = $4 AND id = $5",
        )
        .bind(count)
        .bind(spent)
        .bind(unpriced)
        .bind(hold.project.to_string())
        .bind(&hold.id)
        .execute(tx.conn())
        .await?;
    }
    Ok(())
}

async fn put_result(tx: &mut WriteTx, hold: &Hold, row: &ResultRow) -> Result<()> {
    let now = tx.db().now_us();
    let (state, text) = match &row.answer {
        Ok(text) => ("ok", text),
        Err(why) => ("error", why),
    };
    query(
        "INSERT INTO improvement_results (improvement, project, number, place, example, state, text, objective, scores, \
             trace, cost, input_tokens, output_tokens, latency_us, failures, at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16) \
         ON CONFLICT (improvement, number, place) DO UPDATE SET state = excluded.state, text = excluded.text, \
             objective = excluded.objective, scores = excluded.scores, trace = excluded.trace, cost = excluded.cost, \
             input_tokens = excluded.input_tokens, output_tokens = excluded.output_tokens, \
             latency_us = excluded.latency_us, failures = excluded.failures, at = excluded.at",
    )
    .bind(&hold.id)
    .bind(hold.project.to_string())
    .bind(row.number)
    .bind(row.place)
    .bind(&row.example)
    .bind(state)
    .bind(clean(text))
    .bind(db::Real(row.objective))
    // JSON writes NUL as an escape, which is text like any other.
    .bind(json_text(&row.scores)?)
    .bind(&row.trace)
    .bind(row.cost)
    .bind(row.input_tokens)
    .bind(row.output_tokens)
    .bind(row.latency_us)
    .bind(row.failures)
    .bind(now)
    .execute(tx.conn())
    .await
    .map_err(DbError::from)?;
    Ok(())
}

async fn put_step(tx: &mut WriteTx, project: ProjectId, id: &str, step: &Step) -> Result<()> {
    query(
        "INSERT INTO improvement_steps (improvement, project, number, kind, state, parent, other, content, digest, version, \
             reason, places, before, after, trace, reply, at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17) \
         ON CONFLICT (improvement, number) DO UPDATE SET state = excluded.state, version = excluded.version, \
             before = excluded.before, after = excluded.after",
    )
    .bind(id)
    .bind(project.to_string())
    .bind(step.number)
    .bind(step.kind.name())
    .bind(step.state.name())
    .bind(step.parent)
    .bind(step.other)
    .bind(step.content.as_ref().map(ToString::to_string))
    .bind(step.digest.map(|digest| digest.to_string()))
    .bind(step.version)
    .bind(clean(&step.reason))
    .bind(json_text(&step.places)?)
    .bind(db::Real(step.before))
    .bind(db::Real(step.after))
    .bind(&step.trace)
    .bind(step.reply.as_deref().map(clean))
    .bind(step.at)
    .execute(tx.conn())
    .await
    .map_err(DbError::from)?;
    Ok(())
}

/// Counts a failure of the reflecting model, so that the next worker asks under another name.
pub(super) async fn count_failure(db: &Db, hold: &Hold) -> Result<()> {
    let Some((mut tx, _)) = hold.write(db).await? else {
        return Ok(());
    };
    query("UPDATE improvements SET failures = failures + 1 WHERE project = $1 AND id = $2")
        .bind(hold.project.to_string())
        .bind(&hold.id)
        .execute(tx.conn())
        .await
        .map_err(DbError::from)?;
    Ok(tx.commit().await?)
}

/// Every step, the start first.
pub(super) async fn steps(db: &Db, project: ProjectId, id: &str) -> Result<Vec<Step>> {
    let rows = query(
        "SELECT number, kind, state, parent, other, content, digest, version, reason, places, before, after, trace, reply, at \
         FROM improvement_steps WHERE project = $1 AND improvement = $2 ORDER BY number",
    )
    .bind(project.to_string())
    .bind(id)
    .fetch_all(db.read())
    .await
    .map_err(DbError::from)?;
    rows.iter().map(|row| Ok(read_step(row)?)).collect()
}

fn read_step(row: &AnyRow) -> std::result::Result<Step, DbError> {
    let kind: String = row.try_get(1)?;
    let state: String = row.try_get(2)?;
    Ok(Step {
        number: row.try_get(0)?,
        kind: match kind.as_str() {
            "start" => StepKind::Start,
            "merge" => StepKind::Merge,
            _ => StepKind::Reflect,
        },
        state: StepState::of(&state),
        parent: row.try_get(3)?,
        other: row.try_get(4)?,
        content: optional_json(row, 5)?,
        digest: optional_parsed(row, 6)?,
        version: row.try_get(7)?,
        reason: row.try_get(8)?,
        places: json(row, 9)?,
        before: row.try_get(10)?,
        after: row.try_get(11)?,
        trace: row.try_get(12)?,
        reply: row.try_get(13)?,
        at: row.try_get(14)?,
    })
}

/// What is known of every answer, without its texts.
pub(super) struct Heads {
    /// Answers that need not be asked for.
    pub done: HashSet<(i64, i64)>,
    /// By answer: how often it went wrong before.
    pub failures: HashMap<(i64, i64), i64>,
    /// By step and place.
    pub scores: HashMap<i64, Scores>,
}

/// What is known of every answer, without its texts.
pub(super) async fn heads(db: &Db, project: ProjectId, id: &str) -> Result<Heads> {
    let rows = query(
        "SELECT number, place, state, objective, failures FROM improvement_results \
         WHERE project = $1 AND improvement = $2",
    )
    .bind(project.to_string())
    .bind(id)
    .fetch_all(db.read())
    .await
    .map_err(DbError::from)?;
    let mut heads = Heads {
        done: HashSet::new(),
        failures: HashMap::new(),
        scores: HashMap::new(),
    };
    for row in &rows {
        let head = || -> std::result::Result<(i64, i64, String, Option<f64>, i64), DbError> {
            Ok((
                row.try_get(0)?,
                row.try_get(1)?,
                row.try_get(2)?,
                row.try_get(3)?,
                row.try_get(4)?,
            ))
        };
        let (number, place, state, objective, failures) = head()?;
        if state != "again" {
            heads.done.insert((number, place));
        }
        heads.failures.insert((number, place), failures);
        if let Some(objective) = objective.filter(|value| value.is_finite()) {
            heads
                .scores
                .entry(number)
                .or_default()
                .insert(place, objective);
        }
    }
    Ok(heads)
}

/// Every score, by step and place.
pub(super) async fn objectives(
    db: &Db,
    project: ProjectId,
    id: &str,
) -> Result<HashMap<i64, Scores>> {
    Ok(heads(db, project, id).await?.scores)
}

/// The answers of one step, by place.
pub(super) async fn results(
    db: &Db,
    project: ProjectId,
    id: &str,
    number: i64,
) -> Result<Vec<ResultRow>> {
    let rows = query(
        "SELECT number, place, example, state, text, objective, scores, trace, cost, input_tokens, output_tokens, latency_us, \
             failures FROM improvement_results WHERE project = $1 AND improvement = $2 AND number = $3 ORDER BY place",
    )
    .bind(project.to_string())
    .bind(id)
    .bind(number)
    .fetch_all(db.read())
    .await
    .map_err(DbError::from)?;
    rows.iter().map(|row| Ok(read_result(row)?)).collect()
}

fn read_result(row: &AnyRow) -> std::result::Result<ResultRow, DbError> {
    let state: String = row.try_get(3)?;
    let text: String = row.try_get(4)?;
    let objective: Option<f64> = row.try_get(5)?;
    Ok(ResultRow {
        number: row.try_get(0)?,
        place: row.try_get(1)?,
        example: row.try_get(2)?,
        answer: if state == "ok" { Ok(text) } else { Err(text) },
        objective: objective.filter(|value| value.is_finite()),
        scores: json(row, 6)?,
        trace: row.try_get(7)?,
        cost: row.try_get(8)?,
        input_tokens: row.try_get(9)?,
        output_tokens: row.try_get(10)?,
        latency_us: row.try_get(11)?,
        failures: row.try_get(12)?,
    })
}

/// Every call that was made.
pub(super) async fn calls(db: &Db, project: ProjectId, id: &str) -> Result<Vec<Paid>> {
    let rows = query(
        "SELECT trace, payer, counts, spent, unpriced, input_tokens, output_tokens FROM improvement_calls \
         WHERE project = $1 AND improvement = $2",
    )
    .bind(project.to_string())
    .bind(id)
    .fetch_all(db.read())
    .await
    .map_err(DbError::from)?;
    let paid = |row: &AnyRow| -> std::result::Result<Paid, DbError> {
        Ok(Paid {
            trace: db::rows::parsed(row, "trace")?,
            payer: row.try_get(1)?,
            counts: flag(row, 2)?,
            bill: Bill {
                spent: row.try_get(3)?,
                unpriced: row.try_get(4)?,
                input_tokens: row.try_get(5)?,
                output_tokens: row.try_get(6)?,
            },
        })
    };
    rows.iter().map(|row| Ok(paid(row)?)).collect()
}

fn read(row: &AnyRow) -> Result<Improvement> {
    Ok(read_row(row)?)
}

fn read_row(row: &AnyRow) -> std::result::Result<Improvement, DbError> {
    let state: String = row.try_get("state")?;
    let phase: String = row.try_get("phase")?;
    let spent: i64 = row.try_get("spent")?;
    Ok(Improvement {
        id: row.try_get("id")?,
        project: parsed(row, "project")?,
        prompt: row.try_get("prompt")?,
        document: json(row, "document")?,
        pinned: json(row, "pinned")?,
        state: State::of(&state),
        reason: row.try_get("reason")?,
        phase: Phase::of(&phase),
        ended_by: row.try_get("ended_by")?,
        started_by: row.try_get("started_by")?,
        created_at: row.try_get("created_at")?,
        started_at: row.try_get("started_at")?,
        ended_at: row.try_get("ended_at")?,
        worked_us: row.try_get("worked_us")?,
        calls: row.try_get("calls")?,
        spent: NanoUsd(spent),
        unpriced: row.try_get("unpriced")?,
        failures: row.try_get("failures")?,
        verdict: optional_json(row, "verdict")?,
    })
}
