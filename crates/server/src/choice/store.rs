//! Choices in the database.
//!
//! Whose a choice is, and what state it is in, [`crate::runs`] knows; what a worker writes
//! here, it writes in a transaction of its [`Hold`].

use base::ProjectId;
use db::rows::{json, parsed};
use db::sqlx::any::AnyRow;
use db::sqlx::{Row as _, query};
use db::{Db, DbError, WriteTx};
use serde::{Deserialize, Serialize};

use super::document::{ChoiceTask, Excluded, Round};
use crate::error::{AppError, Result};
use crate::runs::{Hold, State};

/// How far a choice is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Models that were left out by their properties.
    pub excluded: Vec<Excluded>,
    /// How many examples there are in all.
    pub examples: u64,
    /// The content of the dataset.
    pub dataset: String,
    /// The rounds, the last one perhaps under way.
    pub rounds: Vec<Round>,
    /// What counts 0 in latency (milliseconds) and cost (nano-dollars) while rounds are
    /// judged; found in the first and kept, so that all rounds weigh alike.
    pub scales: Option<(f64, f64)>,
}

/// One choice.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    /// Names it.
    pub id: String,
    /// Whose.
    pub project: ProjectId,
    /// What its result is called.
    pub name: String,
    /// What was asked.
    pub task: ChoiceTask,
    /// How far it is.
    pub progress: Progress,
    /// Where it is.
    pub state: State,
    /// Why.
    pub reason: String,
    /// What it may spend, in nano-dollars.
    pub budget: Option<i64>,
    /// The version of the result.
    pub version: Option<i64>,
    /// Who started it.
    pub started_by: String,
    /// When it was asked for.
    pub created_at: i64,
    /// When it ended.
    pub ended_at: Option<i64>,
}

impl Choice {
    /// The evaluation of the round that is under way.
    pub fn current(&self) -> Option<&Round> {
        self.progress.rounds.last().filter(|round| !round.done)
    }
}

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT id, project, name, task, progress, state, reason, budget, version, started_by, created_at, \
             ended_at FROM choices ",
            $rest
        )
    };
}

pub(super) async fn insert(tx: &mut WriteTx, new: &Choice) -> Result<()> {
    query(
        "INSERT INTO choices (id, project, name, task, progress, state, reason, holder, fence, budget, started_by, created_at) \
         VALUES ($1, $2, $3, $4, $5, $6, '', NULL, 0, $7, $8, $9)",
    )
    .bind(&new.id)
    .bind(new.project.to_string())
    .bind(&new.name)
    .bind(new.task.to_value().to_string())
    .bind(text_of(&new.progress)?)
    .bind(new.state.name())
    .bind(new.budget)
    .bind(&new.started_by)
    .bind(new.created_at)
    .execute(tx.conn())
    .await
    .map_err(DbError::from)?;
    Ok(())
}

fn text_of(progress: &Progress) -> Result<String> {
    Ok(serde_json::to_string(progress).map_err(anyhow::Error::from)?)
}

pub(super) async fn find(db: &Db, project: ProjectId, id: &str) -> Result<Option<Choice>> {
    let row = query(select!("WHERE project = $1 AND id = $2"))
        .bind(project.to_string())
        .bind(id)
        .fetch_optional(db.read())
        .await
        .map_err(DbError::from)?;
    row.as_ref().map(read).transpose()
}

pub(super) async fn find_in(
    tx: &mut WriteTx,
    project: ProjectId,
    id: &str,
) -> Result<Option<Choice>> {
    let row = query(select!("WHERE project = $1 AND id = $2"))
        .bind(project.to_string())
        .bind(id)
        .fetch_optional(tx.conn())
        .await
        .map_err(DbError::from)?;
    row.as_ref().map(read).transpose()
}

/// The newest choices before this one.
pub(super) async fn list(
    db: &Db,
    project: ProjectId,
    before: Option<(i64, String)>,
    limit: i64,
) -> Result<Vec<Choice>> {
    let (at, before_id) = before.unwrap_or((i64::MAX, "z".to_owned()));
    let rows = query(select!(
        "WHERE project = $1 AND (created_at, id) < ($2, $3) ORDER BY created_at DESC, id DESC LIMIT $4"
    ))
    .bind(project.to_string())
    .bind(at)
    .bind(before_id)
    .bind(limit)
    .fetch_all(db.read())
    .await
    .map_err(DbError::from)?;
    rows.iter().map(read).collect()
}

/// Sets what it may spend, in nano-dollars.
pub(super) async fn set_budget(
    tx: &mut WriteTx,
    project: ProjectId,
    id: &str,
    budget: i64,
) -> Result<()> {
    query("UPDATE choices SET budget = $1 WHERE project = $2 AND id = $3")
        .bind(budget)
        .bind(project.to_string())
        .bind(id)
        .execute(tx.conn())
        .await
        .map_err(DbError::from)?;
    Ok(())
}

/// Writes how far it is. False when the choice is somebody else's now, or not running.
pub(super) async fn write_progress(db: &Db, hold: &Hold, progress: &Progress) -> Result<bool> {
    let Some((mut tx, State::Running)) = hold.write(db).await? else {
        return Ok(false);
    };
    query("UPDATE choices SET progress = $1 WHERE project = $2 AND id = $3")
        .bind(text_of(progress)?)
        .bind(hold.project.to_string())
        .bind(&hold.id)
        .execute(tx.conn())
        .await
        .map_err(DbError::from)?;
    tx.commit().await?;
    Ok(true)
}

/// Ends the work of this holder. False when the choice is somebody else's now, or in
/// another state meanwhile.
pub(super) async fn let_go(
    tx: &mut WriteTx,
    hold: &Hold,
    to: State,
    reason: &str,
    progress: &Progress,
    version: Option<i64>,
) -> Result<bool> {
    if !hold.let_go_in(tx, State::Running, to, reason).await? {
        return Ok(false);
    }
    query("UPDATE choices SET progress = $1, version = COALESCE($2, version) WHERE project = $3 AND id = $4")
        .bind(text_of(progress)?)
        .bind(version)
        .bind(hold.project.to_string())
        .bind(&hold.id)
        .execute(tx.conn())
        .await
        .map_err(DbError::from)?;
    Ok(true)
}

fn read(row: &AnyRow) -> Result<Choice> {
    read_row(row).map_err(AppError::from)
}

fn read_row(row: &AnyRow) -> std::result::Result<Choice, DbError> {
    let state: String = row.try_get("state")?;
    Ok(Choice {
        id: row.try_get("id")?,
        project: parsed(row, "project")?,
        name: row.try_get("name")?,
        task: json(row, "task")?,
        progress: json(row, "progress")?,
        state: State::of(&state),
        reason: row.try_get("reason")?,
        budget: row.try_get("budget")?,
        version: row.try_get("version")?,
        started_by: row.try_get("started_by")?,
        created_at: row.try_get("created_at")?,
        ended_at: row.try_get("ended_at")?,
    })
}
