//! The row of a run: its state, who holds it, and the fence.
//!
//! People's changes go by the state alone. A worker's go by its fence: each of its writes
//! touches the row under that fence first, so that a worker that was thought dead changes
//! nothing any more. The names of tables come from code, never from a request.

use base::{JobId, ProjectId};
use db::jobs::Lease;
use db::rows::optional_parsed;
use db::sqlx::{self, Row as _, query};
use db::{Db, WriteTx};

use super::{Change, Runs, State};
use crate::error::Result;

/// What people's changes go by.
pub(super) struct Standing {
    pub state: State,
    holder: Option<JobId>,
}

impl Runs {
    pub(super) async fn standing(
        &self,
        tx: &mut WriteTx,
        project: ProjectId,
        id: &str,
    ) -> Result<Option<Standing>> {
        let text = format!(
            "SELECT state, holder FROM {} WHERE project = $1 AND id = $2",
            self.table
        );
        let row = query(trusted(text))
            .bind(project.to_string())
            .bind(id)
            .fetch_optional(tx.conn())
            .await?;
        let Some(row) = row else { return Ok(None) };
        Ok(Some(Standing {
            state: State::of(row.try_get(0)?),
            holder: optional_parsed(&row, "holder")?,
        }))
    }

    /// False when the run was in none of these states any more.
    pub(super) async fn set_state(
        &self,
        tx: &mut WriteTx,
        project: ProjectId,
        id: &str,
        change: &Change,
        reason: &str,
    ) -> Result<bool> {
        let now = tx.db().now_us();
        let from: Vec<String> = change
            .from
            .iter()
            .map(|state| format!("'{}'", state.name()))
            .collect();
        let text = format!(
            "UPDATE {} SET state = $1, reason = $2, ended_at = CASE WHEN $3 = 1 THEN $4 ELSE ended_at END \
             WHERE project = $5 AND id = $6 AND state IN ({})",
            self.table,
            from.join(", ")
        );
        let changed = query(trusted(text))
            .bind(change.to.name())
            .bind(reason)
            .bind(i64::from(change.to.is_final()))
            .bind(now)
            .bind(project.to_string())
            .bind(id)
            .execute(tx.conn())
            .await?;
        Ok(changed.rows_affected() == 1)
    }

    pub(super) async fn set_holder(
        &self,
        tx: &mut WriteTx,
        project: ProjectId,
        id: &str,
        job: JobId,
    ) -> Result<()> {
        let text = format!(
            "UPDATE {} SET holder = $1 WHERE project = $2 AND id = $3",
            self.table
        );
        query(trusted(text))
            .bind(job.to_string())
            .bind(project.to_string())
            .bind(id)
            .execute(tx.conn())
            .await?;
        Ok(())
    }

    /// Whether a worker has the run, or will have it without anybody's doing.
    pub(super) async fn has_worker(
        &self,
        tx: &mut WriteTx,
        project: ProjectId,
        id: &str,
    ) -> Result<bool> {
        let found = self.standing(tx, project, id).await?;
        match found.and_then(|found| found.holder) {
            Some(job) => Ok(db::jobs::is_open_in(tx, project, job).await?),
            None => Ok(false),
        }
    }

    /// Takes a run for a job, if the job still has its lease: a worker that slept through the
    /// end of its lease must not throw out the one that came after it. `None` when there is
    /// nothing to do for this job: the run is held or over, or another job's.
    pub(super) async fn take(
        &'static self,
        db: &Db,
        project: ProjectId,
        id: &str,
        lease: &Lease,
    ) -> Result<Option<Hold>> {
        let mut tx = db.begin_write().await?;
        if !db::jobs::is_held_in(&mut tx, lease).await? {
            return Ok(None);
        }
        let start = match self.keeps_start {
            true => ", started_at = COALESCE(started_at, $4)",
            false => "",
        };
        let text = format!(
            "UPDATE {} SET fence = fence + 1, state = CASE WHEN state = 'queued' THEN 'running' ELSE state END{start} \
             WHERE project = $1 AND id = $2 AND holder = $3 RETURNING fence, state",
            self.table
        );
        let mut update = query(trusted(text))
            .bind(project.to_string())
            .bind(id)
            .bind(lease.job.id.to_string());
        if self.keeps_start {
            update = update.bind(db.now_us());
        }
        let Some(row) = update.fetch_optional(tx.conn()).await? else {
            return Ok(None);
        };
        let hold = Hold {
            runs: self,
            project,
            id: id.to_owned(),
            fence: row.try_get(0)?,
        };
        let is_running = State::of(row.try_get(1)?) == State::Running;
        if !is_running {
            let text = format!(
                "UPDATE {} SET holder = NULL WHERE project = $1 AND id = $2",
                self.table
            );
            query(trusted(text))
                .bind(project.to_string())
                .bind(id)
                .execute(tx.conn())
                .await?;
        }
        tx.commit().await?;
        Ok(is_running.then_some(hold))
    }
}

/// A run in the hands of a worker.
#[derive(Clone)]
pub(crate) struct Hold {
    runs: &'static Runs,
    pub project: ProjectId,
    pub id: String,
    fence: i64,
}

impl Hold {
    /// Whether another worker had it before.
    pub(crate) fn is_takeover(&self) -> bool {
        self.fence > 1
    }

    /// Whether it is still this worker's, and not held or stopped meanwhile.
    pub(crate) async fn is_running(&self, db: &Db) -> Result<bool> {
        let text = format!(
            "SELECT id FROM {} WHERE project = $1 AND id = $2 AND fence = $3 AND state = 'running'",
            self.runs.table
        );
        let row = query(trusted(text))
            .bind(self.project.to_string())
            .bind(&self.id)
            .bind(self.fence)
            .fetch_optional(db.read())
            .await?;
        Ok(row.is_some())
    }

    /// A transaction in which the run is this worker's, with the state that it is in; nobody
    /// changes that until it ends. `None` when the run is somebody else's now.
    pub(crate) async fn write(&self, db: &Db) -> Result<Option<(WriteTx, State)>> {
        let mut tx = db.begin_write().await?;
        let text = format!(
            "UPDATE {} SET fence = fence WHERE project = $1 AND id = $2 AND fence = $3 RETURNING state",
            self.runs.table
        );
        let row = query(trusted(text))
            .bind(self.project.to_string())
            .bind(&self.id)
            .bind(self.fence)
            .fetch_optional(tx.conn())
            .await?;
        let Some(row) = row else { return Ok(None) };
        let state = State::of(row.try_get(0)?);
        Ok(Some((tx, state)))
    }

    /// Lets the run go, in the state that it should be in now; an empty reason leaves the one
    /// that is there. False when it is somebody else's, or in another state than `seen`
    /// meanwhile: then the transaction is of no use.
    pub(crate) async fn let_go_in(
        &self,
        tx: &mut WriteTx,
        seen: State,
        to: State,
        reason: &str,
    ) -> Result<bool> {
        let now = tx.db().now_us();
        let text = format!(
            "UPDATE {} SET holder = NULL, state = $1, reason = CASE WHEN $2 = '' THEN reason ELSE $3 END, \
                 ended_at = CASE WHEN $4 = 1 THEN COALESCE(ended_at, $5) ELSE ended_at END \
             WHERE project = $6 AND id = $7 AND fence = $8 AND state = $9",
            self.runs.table
        );
        let changed = query(trusted(text))
            .bind(to.name())
            .bind(reason)
            .bind(reason)
            .bind(i64::from(to.is_final()))
            .bind(now)
            .bind(self.project.to_string())
            .bind(&self.id)
            .bind(self.fence)
            .bind(seen.name())
            .execute(tx.conn())
            .await?;
        Ok(changed.rows_affected() == 1)
    }

    /// [`Hold::let_go_in`] in a transaction of its own.
    pub(crate) async fn let_go(
        &self,
        db: &Db,
        seen: State,
        to: State,
        reason: &str,
    ) -> Result<bool> {
        let mut tx = db.begin_write().await?;
        let gone = self.let_go_in(&mut tx, seen, to, reason).await?;
        tx.commit().await?;
        Ok(gone)
    }
}

/// A statement with a table's name in it.
#[expect(
    clippy::disallowed_types,
    reason = "what is put into these texts is the name of a table, from code"
)]
fn trusted(text: String) -> sqlx::AssertSqlSafe<String> {
    sqlx::AssertSqlSafe(text)
}
