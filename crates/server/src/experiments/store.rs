//! The runs of experiments in the database.
//!
//! Every change of a run names the revision that it saw, so that two workers, or
//! a worker and a person, cannot both make one.

use base::{Digest, MoveId, ProjectId};
use db::rows::{json, parsed};
use db::sqlx::any::AnyRow;
use db::sqlx::{Row as _, query};
use db::{Db, DbError, Scope, WriteTx};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::Result;
use crate::sessions::hex;

/// One run of an experiment.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// Names it.
    pub id: String,
    /// Whose.
    pub project: ProjectId,
    /// The experiment's name.
    pub experiment: String,
    /// The version of its document.
    pub version: i64,
    /// That version's content.
    pub digest: Digest,
    /// What is split: `prompt:NAME@LABEL` or `app:NAME@ENVIRONMENT`.
    pub target: String,
    /// Where it is.
    pub state: RunState,
    /// Who gets which arm depends on it.
    pub key: [u8; 32],
    /// The arms with their present shares.
    pub arms: Vec<RunArm>,
    /// The step of a canary's ramp.
    pub step: i64,
    /// When that step began.
    pub step_at: i64,
    /// Counts the changes.
    pub revision: i64,
    /// Who started it.
    pub started_by: String,
    /// When.
    pub started_at: i64,
    /// Who ended it; `system` for guards.
    pub ended_by: Option<String>,
    /// When.
    pub ended_at: Option<i64>,
    /// Why it was started or ended.
    pub reason: String,
    /// The arm that was promoted.
    pub winner: Option<String>,
    /// The last figures that were kept.
    pub outcome: Option<Value>,
}

/// Where a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// Calls are split.
    Running,
    /// It ended and the pointer counts again.
    Stopped,
    /// It ended with an arm that was promoted.
    Concluded,
}

impl RunState {
    /// The word of the API and the database.
    pub fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Stopped => "stopped",
            Self::Concluded => "concluded",
        }
    }

    fn of(text: &str) -> Self {
        match text {
            "running" => Self::Running,
            "concluded" => Self::Concluded,
            _ => Self::Stopped,
        }
    }
}

/// An arm of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunArm {
    /// Its name.
    pub name: String,
    /// The version that it stands for.
    pub number: i64,
    /// That version's content.
    pub digest: Digest,
    /// Its present share; of a shadow, the share of calls that it gets copies of.
    pub weight: f64,
    /// Whether the others are compared with it.
    pub control: bool,
}

impl Run {
    /// The arm that the others are compared with.
    pub fn control(&self) -> Option<&RunArm> {
        self.arms.iter().find(|arm| arm.control)
    }
}

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT id, project, experiment, version, digest, target, state, split_key, arms, step, step_at, revision, \
             started_by, started_at, ended_by, ended_at, reason, winner, outcome FROM experiment_runs ",
            $rest
        )
    };
}

pub(super) async fn insert(tx: &mut WriteTx, run: &Run) -> Result<(), DbError> {
    let arms = serde_json::to_string(&run.arms).unwrap_or_default();
    query(
        "INSERT INTO experiment_runs (id, project, experiment, version, digest, target, running_target, state, split_key, \
         arms, step, step_at, revision, started_by, started_at, reason) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)",
    )
    .bind(&run.id)
    .bind(run.project.to_string())
    .bind(&run.experiment)
    .bind(run.version)
    .bind(run.digest.to_string())
    .bind(&run.target)
    .bind(&run.target)
    .bind(run.state.name())
    .bind(hex(&run.key))
    .bind(arms)
    .bind(run.step)
    .bind(run.step_at)
    .bind(run.revision)
    .bind(&run.started_by)
    .bind(run.started_at)
    .bind(&run.reason)
    .execute(tx.conn())
    .await?;
    Ok(())
}

pub(super) fn new_id(db: &Db) -> String {
    // Sorts by time, like every id.
    db.ids().make::<MoveId>().to_string()
}

/// The run that splits this target now.
pub(super) async fn on_target(tx: &mut WriteTx, scope: Scope, target: &str) -> Result<Option<Run>> {
    let row = query(select!("WHERE project = $1 AND running_target = $2"))
        .bind(scope.project.to_string())
        .bind(target)
        .fetch_optional(tx.conn())
        .await?;
    row.as_ref().map(read).transpose()
}

/// The newest runs of an experiment, or of all where none is named.
pub(super) async fn list(
    db: &Db,
    project: ProjectId,
    experiment: Option<&str>,
    limit: i64,
) -> Result<Vec<Run>> {
    // No experiment's name is empty.
    let rows = query(select!(
        "WHERE project = $1 AND ($2 = '' OR experiment = $3) ORDER BY started_at DESC, id DESC LIMIT $4"
    ))
    .bind(project.to_string())
    .bind(experiment.unwrap_or_default())
    .bind(experiment.unwrap_or_default())
    .bind(limit)
    .fetch_all(db.read())
    .await?;
    rows.iter().map(read).collect()
}

/// A project's runs that split calls now.
pub(super) async fn running(db: &Db, project: ProjectId) -> Result<Vec<Run>> {
    let rows = query(select!(
        "WHERE project = $1 AND running_target IS NOT NULL ORDER BY id"
    ))
    .bind(project.to_string())
    .fetch_all(db.read())
    .await?;
    rows.iter().map(read).collect()
}

/// Writes what changed; false when somebody else changed the run first.
pub(super) async fn update(tx: &mut WriteTx, run: &Run) -> Result<bool, DbError> {
    let arms = serde_json::to_string(&run.arms).unwrap_or_default();
    let running_target = (run.state == RunState::Running).then_some(&run.target);
    let done = query(
        "UPDATE experiment_runs SET running_target = $1, state = $2, arms = $3, step = $4, step_at = $5, ended_by = $6, \
         ended_at = $7, reason = $8, winner = $9, outcome = $10, revision = revision + 1 \
         WHERE project = $11 AND id = $12 AND revision = $13 AND running_target IS NOT NULL",
    )
    .bind(running_target)
    .bind(run.state.name())
    .bind(arms)
    .bind(run.step)
    .bind(run.step_at)
    .bind(&run.ended_by)
    .bind(run.ended_at)
    .bind(&run.reason)
    .bind(&run.winner)
    .bind(run.outcome.as_ref().map(ToString::to_string))
    .bind(run.project.to_string())
    .bind(&run.id)
    .bind(run.revision)
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected() == 1)
}

fn read(row: &AnyRow) -> Result<Run> {
    let state: String = row.try_get("state")?;
    let key: String = row.try_get("split_key")?;
    let outcome: Option<String> = row.try_get("outcome")?;
    Ok(Run {
        id: row.try_get("id")?,
        project: parsed(row, "project")?,
        experiment: row.try_get("experiment")?,
        version: row.try_get("version")?,
        digest: parsed(row, "digest")?,
        target: row.try_get("target")?,
        state: RunState::of(&state),
        key: key_bytes(&key)?,
        arms: json(row, "arms")?,
        step: row.try_get("step")?,
        step_at: row.try_get("step_at")?,
        revision: row.try_get("revision")?,
        started_by: row.try_get("started_by")?,
        started_at: row.try_get("started_at")?,
        ended_by: row.try_get("ended_by")?,
        ended_at: row.try_get("ended_at")?,
        reason: row.try_get("reason")?,
        winner: row.try_get("winner")?,
        outcome: outcome.and_then(|text| serde_json::from_str(&text).ok()),
    })
}

fn key_bytes(text: &str) -> Result<[u8; 32]> {
    let digit = |at: usize| char::from(*text.as_bytes().get(at)?).to_digit(16);
    let mut key = [0; 32];
    for (index, byte) in key.iter_mut().enumerate() {
        let pair = digit(2 * index).zip(digit(2 * index + 1));
        let value = pair.and_then(|(high, low)| u8::try_from(16 * high + low).ok());
        *byte = value.ok_or_else(|| anyhow::anyhow!("the key of a run is not 64 hex digits"))?;
    }
    Ok(key)
}
