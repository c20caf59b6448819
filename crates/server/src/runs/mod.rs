//! Durable runs: work of minutes or days on one row, which outlives the server and which
//! people hold, stop and let go on.
//!
//! | file | owns |
//! |---|---|
//! | `mod.rs` | where a run may be, what people do with it, who hears of it |
//! | `store.rs` | its row: state, holder and fence |
//! | `work.rs` | its worker: taking it, looking up, how its turn ends |
//! | `events.rs` | its progress as server-sent events |
//!
//! A feature says in [`Runs`] which table holds its runs, and owns everything else in the row.
//! The job says *who* works and the row says *whether*: the job's lease is lost with its worker,
//! while a run that is held has no job at all. Each worker that takes a run has a higher fence
//! than the one before, and [`Hold::write`] gives no transaction without it. Clocks decide when
//! a lease may be taken, never whose result counts.
//!
//! Live evaluations are not runs: one worker follows all traces of a data directory for as long
//! as the server lives; nothing is queued, and nothing ends.

mod events;
mod store;
mod work;

use std::sync::Arc;

use base::MoveId;
use db::jobs::NewJob;
use db::{Db, Scope, WriteTx};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::app::App;
use crate::error::{AppError, Result};

pub(crate) use events::{Seen, follow};
pub(crate) use store::Hold;
pub(crate) use work::{End, Looks, Trouble, explain};

/// A worker's losses before its job is given up: each kill of the server is one.
const MOST_LOSSES: i64 = 1000;
/// How much of a reason is kept.
const REASON_CHARS: usize = 2000;

/// Where a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Waits for a worker.
    Queued,
    /// Calls are made.
    Running,
    /// Somebody, or its budget, holds it; it can go on.
    Paused,
    /// Ended before its end.
    Stopped,
    /// Everything is answered and scored as far as it can be.
    Done,
    /// It cannot go on; the reason says why.
    Failed,
}

impl State {
    /// The word of the API and the database.
    pub fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
            Self::Done => "done",
            Self::Failed => "failed",
        }
    }

    /// The state that a word of the database means.
    pub(crate) fn of(text: &str) -> Self {
        match text {
            "queued" => Self::Queued,
            "running" => Self::Running,
            "paused" => Self::Paused,
            "stopped" => Self::Stopped,
            "done" => Self::Done,
            _ => Self::Failed,
        }
    }

    /// Whether it will not change any more.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Stopped | Self::Done | Self::Failed)
    }

    /// Whether calls may be made.
    pub fn is_active(self) -> bool {
        matches!(self, Self::Queued | Self::Running)
    }
}

/// The runs of one feature.
///
/// The table has the columns `project`, `id`, `state`, `reason`, `holder`, `fence` and
/// `ended_at`; a new row is `queued`, without a holder, at fence 0.
pub(crate) struct Runs {
    /// The table of the rows, and the first word of its workers' names.
    pub table: &'static str,
    /// What one is called: in messages, in the audit log, by the queue.
    pub noun: &'static str,
    /// What somebody hears who asks for one that is not there.
    pub not_found: fn() -> AppError,
    /// Whether the table has `started_at`: when a worker first took it.
    pub keeps_start: bool,
    /// How many run at once in this process.
    pub at_once: usize,
    /// Tells whoever waits in this process that one has changed.
    pub changed: fn(&App),
}

/// How the audit log shows what was done with a run.
pub(crate) struct Logged<'a> {
    /// What it was done to.
    pub object: &'a str,
    /// The rest.
    pub detail: Value,
}

impl<'a> Logged<'a> {
    /// A run that goes by its id, and nothing more to say.
    pub(crate) fn of(id: &'a str) -> Self {
        Self {
            object: id,
            detail: json!({}),
        }
    }
}

/// Who goes on with a run that was held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Successor {
    /// The worker that still ends its calls, where there is one: it sees by itself that it may
    /// begin new ones. Otherwise a new one.
    SameWorker,
    /// A new worker, which reads the row again.
    NewWorker,
}

impl Runs {
    /// The id of a new run. Sorts by time, like every id.
    pub(crate) fn new_id(&self, db: &Db) -> String {
        db.ids().make::<MoveId>().to_string()
    }

    /// Commits a transaction that has written a new run, with a worker's job for it.
    pub(crate) async fn start(
        &self,
        app: &App,
        mut tx: WriteTx,
        scope: Scope,
        id: &str,
        logged: Logged<'_>,
    ) -> Result<()> {
        self.enqueue(&mut tx, scope, id).await?;
        self.log(&mut tx, scope, "start", "", logged).await?;
        tx.commit().await?;
        (self.changed)(app);
        Ok(())
    }

    /// Holds a run: calls that are under way end and count, no more begin.
    pub(crate) async fn pause(
        &self,
        app: &App,
        scope: Scope,
        id: &str,
        reason: &str,
        logged: Logged<'_>,
    ) -> Result<()> {
        let change = Change {
            action: "pause",
            from: &[State::Queued, State::Running],
            to: State::Paused,
        };
        self.change(app, scope, id, &change, reason, logged).await
    }

    /// Ends a run before its end; what it has written stays.
    pub(crate) async fn stop(
        &self,
        app: &App,
        scope: Scope,
        id: &str,
        reason: &str,
        logged: Logged<'_>,
    ) -> Result<()> {
        let change = Change {
            action: "stop",
            from: &[State::Queued, State::Running, State::Paused],
            to: State::Stopped,
        };
        self.change(app, scope, id, &change, reason, logged).await
    }

    async fn change(
        &self,
        app: &App,
        scope: Scope,
        id: &str,
        change: &Change,
        reason: &str,
        logged: Logged<'_>,
    ) -> Result<()> {
        let reason: String = reason.trim().chars().take(REASON_CHARS).collect();
        let mut tx = app.db.begin_write().await?;
        tx.serialise().await?;
        let moved = self.set_state(&mut tx, scope.project, id, change, &reason);
        if !moved.await? {
            let found = self.standing(&mut tx, scope.project, id).await?;
            let state = found.ok_or_else(self.not_found)?.state;
            return Err(self.wrong_state(&format!("{} already", state.name())));
        }
        let action = change.action;
        self.log(&mut tx, scope, action, &reason, logged).await?;
        tx.commit().await?;
        (self.changed)(app);
        Ok(())
    }

    /// Begins to let a held run go on: nobody else changes it until the transaction ends, so
    /// that the feature can raise its limits first.
    pub(crate) async fn begin_resume(&self, app: &App, scope: Scope, id: &str) -> Result<WriteTx> {
        let mut tx = app.db.begin_write().await?;
        tx.serialise().await?;
        let found = self.standing(&mut tx, scope.project, id).await?;
        let state = found.ok_or_else(self.not_found)?.state;
        if state != State::Paused {
            return Err(self.wrong_state(&format!("{}; only a paused one can go on", state.name())));
        }
        Ok(tx)
    }

    /// Lets a run go on that [`Runs::begin_resume`] found held, and commits.
    pub(crate) async fn resume(
        &self,
        app: &App,
        mut tx: WriteTx,
        scope: Scope,
        id: &str,
        successor: Successor,
        logged: Logged<'_>,
    ) -> Result<()> {
        let goes_on = match successor {
            Successor::SameWorker => self.has_worker(&mut tx, scope.project, id).await?,
            Successor::NewWorker => false,
        };
        let change = Change {
            action: "resume",
            from: &[State::Paused],
            to: if goes_on {
                State::Running
            } else {
                State::Queued
            },
        };
        self.set_state(&mut tx, scope.project, id, &change, "")
            .await?;
        if !goes_on {
            self.enqueue(&mut tx, scope, id).await?;
        }
        self.log(&mut tx, scope, "resume", "", logged).await?;
        tx.commit().await?;
        (self.changed)(app);
        Ok(())
    }

    async fn enqueue(&self, tx: &mut WriteTx, scope: Scope, id: &str) -> Result<()> {
        let job = NewJob {
            project: Some(scope.project),
            max_attempts: MOST_LOSSES,
            ..NewJob::new(self.noun, json!({self.noun: id}))
        };
        let job = db::jobs::enqueue(tx, job).await?;
        self.set_holder(tx, scope.project, id, job).await
    }

    async fn log(
        &self,
        tx: &mut WriteTx,
        scope: Scope,
        action: &str,
        reason: &str,
        logged: Logged<'_>,
    ) -> Result<()> {
        let action = format!("{}.{action}", self.noun);
        let line = db::audit::Line::new(scope, &action, logged.object);
        Ok(line.detail(logged.detail).reason(reason).write(tx).await?)
    }

    fn wrong_state(&self, is: &str) -> AppError {
        AppError::conflict(format!("the {} is {is}", self.noun)).code("wrong_state")
    }
}

/// A person's change of state.
struct Change {
    action: &'static str,
    from: &'static [State],
    to: State,
}

/// Who waits for news of a feature's runs in this process. Clones share it.
#[derive(Debug, Clone)]
pub struct News(Arc<watch::Sender<u64>>);

impl Default for News {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(0)))
    }
}

impl News {
    /// Tells those who wait that one of the runs has changed; they look at theirs.
    pub(crate) fn changed(&self) {
        self.0.send_modify(|count| *count += 1);
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.0.subscribe()
    }
}
