//! Choices in the database.
//!
//! Whoever works on a choice holds a fence and shows it with every write, as with
//! evaluations. People's changes go by the state alone.

use base::{MoveId, ProjectId};
use db::sqlx::any::AnyRow;
use db::sqlx::{Row as _, query};
use db::{Db, DbError, WriteTx};
use serde::{Deserialize, Serialize};

use super::document::{ChoiceTask, Excluded, Round};
use crate::error::{AppError, Result};
use crate::evaluations::State;
use crate::store::id;

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
    /// The job that works on it.
    pub holder: Option<String>,
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
            "SELECT id, project, name, task, progress, state, reason, holder, budget, version, started_by, created_at, \
             ended_at FROM choices ",
            $rest
        )
    };
}

pub(super) fn new_id(db: &Db) -> String {
    // Sorts by time, like every id.
    db.ids().make::<MoveId>().to_string()
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

/// A change of state from one of these. False when it was in none of them any more.
pub(super) async fn set_state(
    tx: &mut WriteTx,
    project: ProjectId,
    id: &str,
    from: &[State],
    to: State,
    reason: &str,
) -> Result<bool> {
    let now = tx.db().now_us();
    for from in from {
        let changed = query(
            "UPDATE choices SET state = $1, reason = $2, ended_at = CASE WHEN $3 = 1 THEN $4 ELSE ended_at END \
             WHERE project = $5 AND id = $6 AND state = $7",
        )
        .bind(to.name())
        .bind(reason)
        .bind(i64::from(to.is_final()))
        .bind(now)
        .bind(project.to_string())
        .bind(id)
        .bind(from.name())
        .execute(tx.conn())
        .await
        .map_err(DbError::from)?
        .rows_affected();
        if changed > 0 {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Hands a choice to a job, and sets its budget.
pub(super) async fn set_holder(
    tx: &mut WriteTx,
    project: ProjectId,
    id: &str,
    job: &str,
    budget: Option<i64>,
) -> Result<()> {
    query("UPDATE choices SET holder = $1, budget = $2 WHERE project = $3 AND id = $4")
        .bind(job)
        .bind(budget)
        .bind(project.to_string())
        .bind(id)
        .execute(tx.conn())
        .await
        .map_err(DbError::from)?;
    Ok(())
}

/// Who holds a choice, as every write shows it.
#[derive(Debug, Clone)]
pub(super) struct Hold {
    pub project: ProjectId,
    pub id: String,
    pub fence: i64,
}

/// Takes a choice for a job that still has its lease. `None` when there is nothing to do
/// for this job: the choice is held or over, or another job's.
pub(super) async fn take(
    db: &Db,
    project: ProjectId,
    id: &str,
    lease: &db::jobs::Lease,
) -> Result<Option<Hold>> {
    let job = lease.job.id.to_string();
    let mut tx = db.begin_write().await?;
    let held = query("SELECT id FROM jobs WHERE id = $1 AND fence = $2 AND state = 'leased'")
        .bind(&job)
        .bind(lease.fence)
        .fetch_optional(tx.conn())
        .await
        .map_err(DbError::from)?;
    if held.is_none() {
        return Ok(None);
    }
    let row = query(
        "UPDATE choices SET fence = fence + 1, state = 'running' \
         WHERE project = $1 AND id = $2 AND holder = $3 AND state IN ('queued', 'running') RETURNING fence",
    )
    .bind(project.to_string())
    .bind(id)
    .bind(&job)
    .fetch_optional(tx.conn())
    .await
    .map_err(DbError::from)?;
    let Some(row) = row else {
        return Ok(None);
    };
    let fence: i64 = row.try_get(0).map_err(DbError::from)?;
    tx.commit().await?;
    Ok(Some(Hold {
        project,
        id: id.to_owned(),
        fence,
    }))
}

/// Whether the choice is still this holder's, and running.
pub(super) async fn is_held(db: &Db, hold: &Hold) -> Result<bool> {
    let row = query("SELECT id FROM choices WHERE project = $1 AND id = $2 AND fence = $3 AND state = 'running'")
        .bind(hold.project.to_string())
        .bind(&hold.id)
        .bind(hold.fence)
        .fetch_optional(db.read())
        .await
        .map_err(DbError::from)?;
    Ok(row.is_some())
}

/// Writes how far it is. False when the choice is somebody else's now, or not running.
pub(super) async fn write_progress(db: &Db, hold: &Hold, progress: &Progress) -> Result<bool> {
    let text = text_of(progress)?;
    let mut tx = db.begin_write().await?;
    let changed = query(
        "UPDATE choices SET progress = $1 WHERE project = $2 AND id = $3 AND fence = $4 AND state = 'running'",
    )
    .bind(text)
    .bind(hold.project.to_string())
    .bind(&hold.id)
    .bind(hold.fence)
    .execute(tx.conn())
    .await
    .map_err(DbError::from)?
    .rows_affected();
    tx.commit().await?;
    Ok(changed == 1)
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
    let now = tx.db().now_us();
    let changed = query(
        "UPDATE choices SET holder = NULL, state = $1, reason = $2, progress = $3, version = COALESCE($4, version), \
             ended_at = CASE WHEN $5 = 1 THEN $6 ELSE ended_at END \
         WHERE project = $7 AND id = $8 AND fence = $9 AND state = 'running'",
    )
    .bind(to.name())
    .bind(reason)
    .bind(text_of(progress)?)
    .bind(version)
    .bind(i64::from(to.is_final()))
    .bind(now)
    .bind(hold.project.to_string())
    .bind(&hold.id)
    .bind(hold.fence)
    .execute(tx.conn())
    .await
    .map_err(DbError::from)?
    .rows_affected();
    Ok(changed == 1)
}

fn read(row: &AnyRow) -> Result<Choice> {
    read_row(row).map_err(AppError::from)
}

fn read_row(row: &AnyRow) -> std::result::Result<Choice, DbError> {
    let decode = |column: &str, error: serde_json::Error| {
        DbError::from(db::sqlx::Error::ColumnDecode {
            index: column.to_owned(),
            source: Box::new(error),
        })
    };
    let task: String = row.try_get("task")?;
    let progress: String = row.try_get("progress")?;
    let state: String = row.try_get("state")?;
    Ok(Choice {
        id: row.try_get("id")?,
        project: id(row, "project")?,
        name: row.try_get("name")?,
        task: serde_json::from_str(&task).map_err(|error| decode("task", error))?,
        progress: serde_json::from_str(&progress).map_err(|error| decode("progress", error))?,
        state: State::of(&state),
        reason: row.try_get("reason")?,
        holder: row.try_get("holder")?,
        budget: row.try_get("budget")?,
        version: row.try_get("version")?,
        started_by: row.try_get("started_by")?,
        created_at: row.try_get("created_at")?,
        ended_at: row.try_get("ended_at")?,
    })
}
