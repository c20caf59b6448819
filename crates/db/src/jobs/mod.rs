//! The job queue: a table, leases with fences, retries with back-off.
//!
//! A job is put in by the transaction that wants it done. A worker leases it
//! for a short time and keeps extending the lease; when the worker dies the
//! lease runs out and somebody else takes the job over. Every lease has a higher
//! fence than the one before, and whatever a holder writes must show its fence,
//! so one that was thought dead cannot finish the job a second time. A job may
//! run more than once: what it does must be safe to do twice.

mod worker;

use base::{Cursor, JobId, ProjectId};
use serde_json::Value;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};

use crate::catalog::{Page, PageRequest};
use crate::rows::parsed;
use crate::{CatalogError, Db, DbError, WriteTx};

pub use worker::{JobContext, JobError, Worker, WorkerSettings};

/// How far the clocks of two machines may be apart: a lease is taken over only
/// when it ran out this long ago.
const CLOCK_SKEW_US: i64 = 2_000_000;
const BACKOFF_FIRST_US: i64 = 1_000_000;
const BACKOFF_MOST_US: i64 = 600_000_000;
/// How many due jobs one try at a lease looks at.
const CANDIDATES: i64 = 16;

/// A job to put into the queue.
#[derive(Debug, Clone)]
pub struct NewJob<'a> {
    /// The handler's name.
    pub kind: &'a str,
    /// What to work on; small, ids rather than content.
    pub payload: Value,
    /// The project, or `None` for what concerns the whole installation.
    pub project: Option<ProjectId>,
    /// With the same key a second enqueue finds the first job, whatever became of it.
    pub idempotency_key: Option<&'a str>,
    /// Not before this time; `None` means now.
    pub run_at: Option<i64>,
    /// After this many failed or lost attempts the job is dead.
    pub max_attempts: i64,
}

impl<'a> NewJob<'a> {
    /// A job that runs now and is tried five times.
    pub fn new(kind: &'a str, payload: Value) -> Self {
        Self {
            kind,
            payload,
            project: None,
            idempotency_key: None,
            run_at: None,
            max_attempts: 5,
        }
    }
}

/// Where a job is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobState {
    /// Waits for its time and a worker.
    Ready,
    /// A worker has it.
    Leased,
    /// It succeeded.
    Done,
    /// It failed for good; a person has to look.
    Dead,
    /// Somebody cancelled it.
    Cancelled,
}

impl JobState {
    /// The word in the database and the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Leased => "leased",
            Self::Done => "done",
            Self::Dead => "dead",
            Self::Cancelled => "cancelled",
        }
    }

    fn from_stored(text: &str) -> Self {
        match text {
            "ready" => Self::Ready,
            "leased" => Self::Leased,
            "done" => Self::Done,
            "cancelled" => Self::Cancelled,
            _ => Self::Dead,
        }
    }
}

/// A job as the queue shows it.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// The job's id.
    pub id: JobId,
    /// The handler's name.
    pub kind: String,
    /// The project, if it belongs to one.
    pub project: Option<ProjectId>,
    /// What to work on.
    pub payload: Value,
    /// Where it is in its life.
    pub state: JobState,
    /// How often it was leased.
    pub attempts: i64,
    /// How often it may be.
    pub max_attempts: i64,
    /// Not before this time.
    pub run_at: i64,
    /// Whether somebody wants the running attempt to stop.
    pub cancel_requested: bool,
    /// What the last attempt said.
    pub error: Option<String>,
    /// When it was put in.
    pub created_at: i64,
    /// When it was done, dead or cancelled.
    pub finished_at: Option<i64>,
}

/// The right to work on a job until `until`.
#[derive(Debug, Clone, PartialEq)]
pub struct Lease {
    /// The job as it was leased; `attempts` counts this one.
    pub job: Job,
    /// Higher than that of every lease of this job before.
    pub fence: i64,
    /// When it runs out unless it is extended.
    pub until: i64,
}

/// What an extension of a lease found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseCheck {
    /// Still ours; go on.
    Held,
    /// Still ours, but somebody wants the job to stop.
    CancelRequested,
    /// Somebody else has the job, or it is finished: stop, and write nothing.
    Lost,
}

/// Puts a job into the queue, in the caller's transaction: it exists if and only
/// if that commits. Returns the id of the job with this idempotency key, new or not.
///
/// # Errors
/// The statement failed; the transaction cannot be used further.
pub async fn enqueue(tx: &mut WriteTx, new: NewJob<'_>) -> Result<JobId, DbError> {
    let id: JobId = tx.db().ids().make();
    let now = tx.db().now_us();
    let inserted = sqlx::query(
        "INSERT INTO jobs (id, project, kind, payload, state, idempotency_key, max_attempts, run_at, created_at)
         VALUES ($1, $2, $3, $4, 'ready', $5, $6, $7, $8)
         ON CONFLICT (kind, idempotency_key) DO NOTHING",
    )
    .bind(id.to_string())
    .bind(new.project.map(|project| project.to_string()))
    .bind(new.kind)
    .bind(new.payload.to_string())
    .bind(new.idempotency_key)
    .bind(new.max_attempts.max(1))
    .bind(new.run_at.unwrap_or(now))
    .bind(now)
    .execute(tx.conn())
    .await?;
    if inserted.rows_affected() == 1 {
        tx.mark_adds_jobs();
        return Ok(id);
    }
    let existing = sqlx::query("SELECT id FROM jobs WHERE kind = $1 AND idempotency_key = $2")
        .bind(new.kind)
        .bind(new.idempotency_key)
        .fetch_one(tx.conn())
        .await?;
    Ok(parsed(&existing, 0)?)
}

/// Leases the next due job of this kind, or takes over one whose lease ran out.
///
/// A job whose worker was lost on its last attempt becomes dead here.
///
/// # Errors
/// The database cannot be read or written.
pub async fn lease(
    db: &Db,
    kind: &str,
    owner: &str,
    ttl_us: i64,
) -> Result<Option<Lease>, DbError> {
    let now = db.now_us();
    // Read first and outside a transaction: an idle queue then never takes the write lock.
    let candidates = due(db, kind, now).await?;
    if candidates.is_empty() {
        return Ok(None);
    }
    // Workers that wake together start at different places, or all but one would lose every race.
    let start = spread(owner, now) % candidates.len();
    for (id, fence) in candidates[start..].iter().chain(&candidates[..start]) {
        let claim = Claim {
            id,
            fence: *fence,
            owner,
            now,
            ttl_us,
        };
        if let Some(lease) = try_claim(db, &claim).await? {
            return Ok(Some(lease));
        }
    }
    Ok(None)
}

struct Claim<'a> {
    id: &'a str,
    fence: i64,
    owner: &'a str,
    now: i64,
    ttl_us: i64,
}

async fn due(db: &Db, kind: &str, now: i64) -> Result<Vec<(String, i64)>, DbError> {
    let rows = sqlx::query(
        "SELECT id, fence FROM jobs
         WHERE kind = $1 AND ((state = 'ready' AND run_at <= $2) OR (state = 'leased' AND lease_until < $3))
         ORDER BY run_at, id LIMIT $4",
    )
    .bind(kind)
    .bind(now)
    .bind(now - CLOCK_SKEW_US)
    .bind(CANDIDATES)
    .fetch_all(db.read())
    .await?;
    rows.iter()
        .map(|row| Ok((row.try_get(0)?, row.try_get(1)?)))
        .collect()
}

fn spread(owner: &str, now: i64) -> usize {
    let digest = base::Digest::of(format!("{owner}{now}").as_bytes());
    usize::from(digest.0[0])
}

/// One guarded statement: of several workers that saw the same fence one
/// changes the row, and the others change nothing.
async fn try_claim(db: &Db, claim: &Claim<'_>) -> Result<Option<Lease>, DbError> {
    let until = claim.now + claim.ttl_us;
    let mut tx = db.begin_write().await?;
    let row = sqlx::query(
        "UPDATE jobs SET state = 'leased', fence = fence + 1, attempts = attempts + 1, lease_owner = $1, lease_until = $2
         WHERE id = $3 AND fence = $4
           AND ((state = 'ready' AND run_at <= $5) OR (state = 'leased' AND lease_until < $6))
         RETURNING id, kind, project, payload, state, attempts, max_attempts, run_at, cancel_requested, error,
                   created_at, finished_at, fence",
    )
    .bind(claim.owner)
    .bind(until)
    .bind(claim.id)
    .bind(claim.fence)
    .bind(claim.now)
    .bind(claim.now - CLOCK_SKEW_US)
    .fetch_optional(tx.conn())
    .await?;
    let Some(row) = row else {
        return Ok(None);
    };
    let lease = Lease {
        job: job(&row)?,
        fence: row.try_get(12)?,
        until,
    };
    let ended = end_unrunnable(tx.conn(), &lease, claim.now).await?;
    tx.commit().await?;
    Ok(if ended { None } else { Some(lease) })
}

/// A job that took its workers down with it on every attempt, or that was to be
/// cancelled when its worker died, ends instead of running once more.
async fn end_unrunnable(
    connection: &mut AnyConnection,
    lease: &Lease,
    now: i64,
) -> Result<bool, DbError> {
    let end = if lease.job.cancel_requested {
        End {
            state: JobState::Cancelled,
            error: None,
        }
    } else if lease.job.attempts > lease.job.max_attempts {
        End {
            state: JobState::Dead,
            error: Some("its worker was lost on every attempt"),
        }
    } else {
        return Ok(false);
    };
    finish(connection, lease, &end, now).await
}

struct End<'a> {
    state: JobState,
    error: Option<&'a str>,
}

async fn finish(
    connection: &mut AnyConnection,
    lease: &Lease,
    end: &End<'_>,
    now: i64,
) -> Result<bool, DbError> {
    let changed = sqlx::query(
        "UPDATE jobs SET state = $1, error = $2, finished_at = $3, lease_owner = NULL, lease_until = NULL
         WHERE id = $4 AND fence = $5 AND state = 'leased'",
    )
    .bind(end.state.as_str())
    .bind(end.error)
    .bind(now)
    .bind(lease.job.id.to_string())
    .bind(lease.fence)
    .execute(connection)
    .await?;
    Ok(changed.rows_affected() == 1)
}

/// Keeps a lease for another `ttl_us`, and says whether it is still worth working.
///
/// # Errors
/// The database cannot be written.
pub async fn extend(db: &Db, lease: &mut Lease, ttl_us: i64) -> Result<LeaseCheck, DbError> {
    let until = db.now_us() + ttl_us;
    let mut tx = db.begin_write().await?;
    let row = sqlx::query(
        "UPDATE jobs SET lease_until = $1 WHERE id = $2 AND fence = $3 AND state = 'leased' RETURNING cancel_requested",
    )
    .bind(until)
    .bind(lease.job.id.to_string())
    .bind(lease.fence)
    .fetch_optional(tx.conn())
    .await?;
    tx.commit().await?;
    let Some(row) = row else {
        return Ok(LeaseCheck::Lost);
    };
    lease.until = until;
    let cancel: i64 = row.try_get(0)?;
    Ok(if cancel == 0 {
        LeaseCheck::Held
    } else {
        LeaseCheck::CancelRequested
    })
}

/// Whether a lease is still the one that counts, in a transaction that is to write what only
/// its holder may.
///
/// # Errors
/// The statement failed; the transaction cannot be used further.
pub async fn is_held_in(tx: &mut WriteTx, lease: &Lease) -> Result<bool, DbError> {
    let row = sqlx::query("SELECT id FROM jobs WHERE id = $1 AND fence = $2 AND state = 'leased'")
        .bind(lease.job.id.to_string())
        .bind(lease.fence)
        .fetch_optional(tx.conn())
        .await?;
    Ok(row.is_some())
}

/// Whether a project's job waits or runs, in the caller's transaction.
///
/// # Errors
/// The statement failed; the transaction cannot be used further.
pub async fn is_open_in(tx: &mut WriteTx, project: ProjectId, id: JobId) -> Result<bool, DbError> {
    let row = sqlx::query(
        "SELECT id FROM jobs WHERE id = $1 AND project = $2 AND state IN ('ready', 'leased')",
    )
    .bind(id.to_string())
    .bind(project.to_string())
    .fetch_optional(tx.conn())
    .await?;
    Ok(row.is_some())
}

/// Marks the job done, in the transaction that writes its result. False means
/// that the lease was lost: roll back, somebody else does the job.
///
/// # Errors
/// The statement failed; the transaction cannot be used further.
pub async fn complete_in(tx: &mut WriteTx, lease: &Lease) -> Result<bool, DbError> {
    let now = tx.db().now_us();
    finish(
        tx.conn(),
        lease,
        &End {
            state: JobState::Done,
            error: None,
        },
        now,
    )
    .await
}

/// [`complete_in`] in a transaction of its own.
///
/// # Errors
/// The database cannot be written.
pub async fn complete(db: &Db, lease: &Lease) -> Result<bool, DbError> {
    let mut tx = db.begin_write().await?;
    let held = complete_in(&mut tx, lease).await?;
    tx.commit().await?;
    Ok(held)
}

/// Marks the attempt failed: the job waits and is tried again, or is dead when
/// the attempts are used up or `retry` is false. False means the lease was lost.
///
/// # Errors
/// The database cannot be written.
pub async fn fail(db: &Db, lease: &Lease, message: &str, retry: bool) -> Result<bool, DbError> {
    let now = db.now_us();
    let message = base::text::cut_bytes(message, 4000).replace('\0', "\u{fffd}");
    let mut tx = db.begin_write().await?;
    let held = if retry && lease.job.attempts < lease.job.max_attempts {
        put_back(
            tx.conn(),
            lease,
            now + backoff_us(db, lease),
            Some(&message),
            0,
        )
        .await?
    } else {
        finish(
            tx.conn(),
            lease,
            &End {
                state: JobState::Dead,
                error: Some(&message),
            },
            now,
        )
        .await?
    };
    tx.commit().await?;
    Ok(held)
}

/// Ends the job as cancelled, when the holder has stopped on request.
pub(crate) async fn finish_cancelled(db: &Db, lease: &Lease) -> Result<bool, DbError> {
    let mut tx = db.begin_write().await?;
    let held = finish(
        tx.conn(),
        lease,
        &End {
            state: JobState::Cancelled,
            error: None,
        },
        db.now_us(),
    )
    .await?;
    tx.commit().await?;
    Ok(held)
}

/// Gives a job back untried, when the worker stops: the attempt does not count.
///
/// # Errors
/// The database cannot be written.
pub async fn release(db: &Db, lease: &Lease) -> Result<bool, DbError> {
    let mut tx = db.begin_write().await?;
    let held = put_back(tx.conn(), lease, db.now_us(), lease.job.error.as_deref(), 1).await?;
    tx.mark_adds_jobs();
    tx.commit().await?;
    Ok(held)
}

async fn put_back(
    connection: &mut AnyConnection,
    lease: &Lease,
    run_at: i64,
    error: Option<&str>,
    attempts_back: i64,
) -> Result<bool, DbError> {
    let changed = sqlx::query(
        "UPDATE jobs SET state = 'ready', run_at = $1, error = $2, attempts = attempts - $3,
                         lease_owner = NULL, lease_until = NULL
         WHERE id = $4 AND fence = $5 AND state = 'leased'",
    )
    .bind(run_at)
    .bind(error)
    .bind(attempts_back)
    .bind(lease.job.id.to_string())
    .bind(lease.fence)
    .execute(connection)
    .await?;
    Ok(changed.rows_affected() == 1)
}

/// Doubles with each attempt, and differs by up to a quarter between jobs that failed together.
fn backoff_us(db: &Db, lease: &Lease) -> i64 {
    let doublings = u32::try_from(lease.job.attempts - 1).unwrap_or(0).min(20);
    let wait = BACKOFF_FIRST_US
        .saturating_mul(1 << doublings)
        .min(BACKOFF_MOST_US);
    let spread = i64::try_from(spread(&lease.job.id.to_string(), db.now_us())).unwrap_or(0);
    wait + wait / 4 * spread / 256
}

/// Asks for a job to stop: one that waits is cancelled at once, one that runs
/// when its worker next extends the lease. False when it had ended before.
///
/// # Errors
/// The statement failed; the transaction cannot be used further.
pub async fn cancel(
    tx: &mut WriteTx,
    project: Option<ProjectId>,
    id: JobId,
) -> Result<bool, DbError> {
    let now = tx.db().now_us();
    let changed = sqlx::query(
        "UPDATE jobs SET cancel_requested = 1,
            finished_at = CASE WHEN state = 'ready' THEN $1 ELSE finished_at END,
            state = CASE WHEN state = 'ready' THEN 'cancelled' ELSE state END
         WHERE id = $2 AND project IS NOT DISTINCT FROM $3 AND state IN ('ready', 'leased')",
    )
    .bind(now)
    .bind(id.to_string())
    .bind(project.map(|project| project.to_string()))
    .execute(tx.conn())
    .await?;
    Ok(changed.rows_affected() == 1)
}

/// One job; `None` when this project (or, with `None`, the installation) has no such job.
///
/// # Errors
/// The database cannot be read.
pub async fn get(db: &Db, project: Option<ProjectId>, id: JobId) -> Result<Option<Job>, DbError> {
    let row = sqlx::query(
        "SELECT id, kind, project, payload, state, attempts, max_attempts, run_at, cancel_requested, error,
                created_at, finished_at
         FROM jobs WHERE id = $1 AND project IS NOT DISTINCT FROM $2",
    )
    .bind(id.to_string())
    .bind(project.map(|project| project.to_string()))
    .fetch_optional(db.read())
    .await?;
    row.as_ref().map(job).transpose()
}

/// The jobs of a project (or, with `None`, of the installation), newest first.
///
/// # Errors
/// The database cannot be read, or the cursor was not made here.
pub async fn list(
    db: &Db,
    project: Option<ProjectId>,
    page: &PageRequest,
) -> Result<Page<Job>, CatalogError> {
    let before: (i64, String) = page
        .cursor
        .as_ref()
        .map(Cursor::key)
        .transpose()?
        .unwrap_or((i64::MAX, "z".to_owned()));
    let rows = sqlx::query(
        "SELECT id, kind, project, payload, state, attempts, max_attempts, run_at, cancel_requested, error,
                created_at, finished_at
         FROM jobs WHERE project IS NOT DISTINCT FROM $1 AND (created_at, id) < ($2, $3)
         ORDER BY created_at DESC, id DESC LIMIT $4",
    )
    .bind(project.map(|project| project.to_string()))
    .bind(before.0)
    .bind(before.1)
    .bind(page.limit() + 1)
    .fetch_all(db.read())
    .await?;
    let jobs = rows.iter().map(job).collect::<Result<Vec<_>, DbError>>()?;
    Ok(Page::cut(jobs, page.limit(), |job| {
        Cursor::new(&(job.created_at, job.id))
    }))
}

/// Removes jobs that ended before this time, dead ones excepted. Their
/// idempotency keys are free again. Returns how many.
///
/// # Errors
/// The statement failed; the transaction cannot be used further.
pub async fn prune(tx: &mut WriteTx, ended_before: i64) -> Result<u64, DbError> {
    let removed =
        sqlx::query("DELETE FROM jobs WHERE state IN ('done', 'cancelled') AND finished_at < $1")
            .bind(ended_before)
            .execute(tx.conn())
            .await?;
    Ok(removed.rows_affected())
}

fn job(row: &AnyRow) -> Result<Job, DbError> {
    let project: Option<String> = row.try_get(2)?;
    let payload: String = row.try_get(3)?;
    let state: String = row.try_get(4)?;
    let cancel_requested: i64 = row.try_get(8)?;
    Ok(Job {
        id: parsed(row, 0)?,
        kind: row.try_get(1)?,
        project: project.and_then(|id| id.parse().ok()),
        payload: serde_json::from_str(&payload).unwrap_or_default(),
        state: JobState::from_stored(&state),
        attempts: row.try_get(5)?,
        max_attempts: row.try_get(6)?,
        run_at: row.try_get(7)?,
        cancel_requested: cancel_requested != 0,
        error: row.try_get(9)?,
        created_at: row.try_get(10)?,
        finished_at: row.try_get(11)?,
    })
}
