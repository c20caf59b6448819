//! Live evaluations in the database: who holds them, how far they are, what was claimed.
//!
//! One worker follows each data directory's traces, under a lease and a fence; every write
//! renews the lease under the fence first, so that a worker that was thought dead changes
//! nothing any more. A claim is a row that exists once per trace and evaluator.

use base::{Digest, ProjectId, SpanId, TraceId};
use db::rows::parsed;
use db::sqlx::any::AnyRow;
use db::sqlx::{Row as _, query};
use db::{Db, Scope, WriteTx};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::sessions::hex;

pub(super) const HOUR_US: i64 = 3_600_000_000;

/// Who held a live evaluation, or let it go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Whether it is held now.
    pub paused: bool,
    /// Why.
    pub reason: String,
    /// Who said so.
    pub by: String,
    /// When.
    pub at: i64,
    /// The version that counts although it is not the newest; 0 for none.
    pub version: i64,
    /// The newest version then.
    pub newest: i64,
}

/// An older version that counts from now on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Choice {
    pub version: i64,
    pub newest: i64,
}

pub(super) async fn held(db: &Db, project: ProjectId, name: &str) -> Result<Option<Held>> {
    let row = query(
        "SELECT paused, reason, version, newest, changed_by, changed_at FROM live_evaluations \
         WHERE project = $1 AND name = $2",
    )
    .bind(project.to_string())
    .bind(name)
    .fetch_optional(db.read())
    .await?;
    let read = |row: AnyRow| -> Result<Held> {
        Ok(Held {
            paused: row.try_get::<i64, _>("paused")? != 0,
            reason: row.try_get("reason")?,
            by: row.try_get("changed_by")?,
            at: row.try_get("changed_at")?,
            version: row.try_get("version")?,
            newest: row.try_get("newest")?,
        })
    };
    row.map(read).transpose()
}

pub(super) async fn set_paused(
    tx: &mut WriteTx,
    scope: Scope,
    name: &str,
    paused: bool,
    reason: &str,
) -> Result<()> {
    let now = tx.db().now_us();
    query(
        "INSERT INTO live_evaluations (project, name, paused, reason, version, newest, changed_by, changed_at) \
         VALUES ($1, $2, $3, $4, 0, 0, $5, $6) ON CONFLICT (project, name) DO UPDATE SET \
         paused = excluded.paused, reason = excluded.reason, changed_by = excluded.changed_by, \
         changed_at = excluded.changed_at",
    )
    .bind(scope.project.to_string())
    .bind(name)
    .bind(i64::from(paused))
    .bind(reason)
    .bind(scope.actor.to_string())
    .bind(now)
    .execute(tx.conn())
    .await?;
    Ok(())
}

pub(super) async fn choose(
    tx: &mut WriteTx,
    scope: Scope,
    name: &str,
    choice: Choice,
) -> Result<()> {
    let now = tx.db().now_us();
    query(
        "INSERT INTO live_evaluations (project, name, paused, reason, version, newest, changed_by, changed_at) \
         VALUES ($1, $2, 0, '', $3, $4, $5, $6) ON CONFLICT (project, name) DO UPDATE SET \
         version = excluded.version, newest = excluded.newest, changed_by = excluded.changed_by, \
         changed_at = excluded.changed_at",
    )
    .bind(scope.project.to_string())
    .bind(name)
    .bind(choice.version)
    .bind(choice.newest)
    .bind(scope.actor.to_string())
    .bind(now)
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// The right to follow the traces of one data directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lease {
    pub store: String,
    pub fence: i64,
}

/// Takes the lease, or keeps it; `None` while somebody else has it.
pub(super) async fn lease(
    db: &Db,
    store: &str,
    holder: &str,
    ttl_us: i64,
) -> Result<Option<Lease>> {
    let now = db.now_us();
    let mut tx = db.begin_write().await?;
    query(
        "INSERT INTO live_workers (store, holder, lease_until, fence) VALUES ($1, '', 0, 0) \
         ON CONFLICT (store) DO NOTHING",
    )
    .bind(store)
    .execute(tx.conn())
    .await?;
    let row = query(
        "UPDATE live_workers SET fence = fence + CASE WHEN holder = $1 THEN 0 ELSE 1 END, holder = $2, \
         lease_until = $3 WHERE store = $4 AND (holder = $5 OR lease_until < $6) RETURNING fence",
    )
    .bind(holder)
    .bind(holder)
    .bind(now + ttl_us)
    .bind(store)
    .bind(holder)
    .bind(now)
    .fetch_optional(tx.conn())
    .await?;
    let fence: Option<i64> = row.map(|row| row.try_get(0)).transpose()?;
    tx.commit().await?;
    Ok(fence.map(|fence| Lease {
        store: store.to_owned(),
        fence,
    }))
}

/// Lets the next worker begin at once.
pub(super) async fn let_go(db: &Db, lease: &Lease) -> Result<()> {
    let mut tx = db.begin_write().await?;
    query("UPDATE live_workers SET lease_until = 0 WHERE store = $1 AND fence = $2")
        .bind(&lease.store)
        .bind(lease.fence)
        .execute(tx.conn())
        .await?;
    tx.commit().await?;
    Ok(())
}

/// A write under a lease; `None` when the lease is somebody else's now.
async fn begin(db: &Db, lease: &Lease, ttl_us: i64) -> Result<Option<WriteTx>> {
    let mut tx = db.begin_write().await?;
    let done = query("UPDATE live_workers SET lease_until = $1 WHERE store = $2 AND fence = $3")
        .bind(db.now_us() + ttl_us)
        .bind(&lease.store)
        .bind(lease.fence)
        .execute(tx.conn())
        .await?;
    if done.rows_affected() == 1 {
        Ok(Some(tx))
    } else {
        tx.rollback().await?;
        Ok(None)
    }
}

/// How far a live evaluation is in one data directory's traces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Position {
    pub position: u64,
    pub key: [u8; 32],
}

pub(super) async fn position(
    db: &Db,
    project: ProjectId,
    name: &str,
    store: &str,
) -> Result<Option<Position>> {
    let row = query(
        "SELECT position, sample_key FROM live_positions WHERE project = $1 AND name = $2 AND store = $3",
    )
    .bind(project.to_string())
    .bind(name)
    .bind(store)
    .fetch_optional(db.read())
    .await?;
    let Some(row) = row else { return Ok(None) };
    let key: String = row.try_get("sample_key")?;
    // Whatever the key is, it is the same each time: what was drawn stays drawn.
    let key = Digest::of(key.as_bytes()).0;
    Ok(Some(Position {
        position: row.try_get::<i64, _>("position")?.cast_unsigned(),
        key,
    }))
}

/// Begins to follow. False when the lease is lost.
pub(super) async fn begin_at(
    db: &Db,
    lease: &Lease,
    ttl_us: i64,
    of: (ProjectId, &str),
    position: u64,
    secret: &[u8; 32],
) -> Result<bool> {
    let Some(mut tx) = begin(db, lease, ttl_us).await? else {
        return Ok(false);
    };
    query(
        "INSERT INTO live_positions (project, name, store, position, sample_key) VALUES ($1, $2, $3, $4, $5) \
         ON CONFLICT (project, name, store) DO NOTHING",
    )
    .bind(of.0.to_string())
    .bind(of.1)
    .bind(&lease.store)
    .bind(position.cast_signed())
    .bind(hex(secret))
    .execute(tx.conn())
    .await?;
    tx.commit().await?;
    Ok(true)
}

/// Forgets how far a live evaluation was: it is held, off or gone.
pub(super) async fn forget(
    db: &Db,
    lease: &Lease,
    ttl_us: i64,
    of: (ProjectId, &str),
) -> Result<bool> {
    let Some(mut tx) = begin(db, lease, ttl_us).await? else {
        return Ok(false);
    };
    query("DELETE FROM live_positions WHERE project = $1 AND name = $2 AND store = $3")
        .bind(of.0.to_string())
        .bind(of.1)
        .bind(&lease.store)
        .execute(tx.conn())
        .await?;
    tx.commit().await?;
    Ok(true)
}

/// [`forget`] for every data directory, in the transaction that holds it: traces that come
/// before a worker hears of it are not taken either.
pub(super) async fn forget_all(tx: &mut WriteTx, scope: Scope, name: &str) -> Result<()> {
    query("DELETE FROM live_positions WHERE project = $1 AND name = $2")
        .bind(scope.project.to_string())
        .bind(name)
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// The live evaluations that are followed in this data directory.
pub(super) async fn followed(db: &Db, store: &str) -> Result<Vec<(ProjectId, String)>> {
    let rows = query("SELECT project, name FROM live_positions WHERE store = $1")
        .bind(store)
        .fetch_all(db.read())
        .await?;
    let read = |row: &AnyRow| Ok((parsed(row, "project")?, row.try_get("name")?));
    rows.iter().map(read).collect()
}

/// A trace that is to be judged by an evaluator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Claim {
    pub trace: TraceId,
    pub span: SpanId,
    /// The evaluator's content.
    pub evaluator: Digest,
    /// The score's name.
    pub score: String,
    pub taken_at: i64,
}

/// What passing some traces came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Passed {
    pub seen: i64,
    pub drawn: i64,
    pub over_rate: i64,
    pub over_budget: i64,
}

/// Moves the position and claims traces in one transaction. Gives the claims that are
/// new; `None` when the lease is lost.
pub(super) async fn advance(
    db: &Db,
    lease: &Lease,
    ttl_us: i64,
    of: (ProjectId, &str),
    position: u64,
    passed: Passed,
    claims: Vec<Claim>,
) -> Result<Option<Vec<Claim>>> {
    let Some(mut tx) = begin(db, lease, ttl_us).await? else {
        return Ok(None);
    };
    let now = db.now_us();
    // No row when somebody held it meanwhile: then nothing is claimed.
    let moved = query(
        "UPDATE live_positions SET position = $1 WHERE project = $2 AND name = $3 AND store = $4",
    )
    .bind(position.cast_signed())
    .bind(of.0.to_string())
    .bind(of.1)
    .bind(&lease.store)
    .execute(tx.conn())
    .await?;
    if moved.rows_affected() == 0 {
        tx.rollback().await?;
        return Ok(Some(Vec::new()));
    }
    let mut new = Vec::new();
    let mut known = 0;
    for claim in claims {
        let done = query(
            "INSERT INTO live_scores (project, trace, evaluator, live, store, span, score, state, reason, cost, \
             unpriced, taken_at, at) VALUES ($1, $2, $3, $4, $5, $6, $7, 'asked', '', 0, 0, $8, $9) \
             ON CONFLICT (project, trace, evaluator) DO NOTHING",
        )
        .bind(of.0.to_string())
        .bind(claim.trace.to_string())
        .bind(claim.evaluator.to_string())
        .bind(of.1)
        .bind(&lease.store)
        .bind(claim.span.to_string())
        .bind(&claim.score)
        .bind(claim.taken_at)
        .bind(now)
        .execute(tx.conn())
        .await?;
        match done.rows_affected() {
            1 => new.push(claim),
            _ => known += 1,
        }
    }
    if passed.seen > 0 {
        query(
            "INSERT INTO live_counts (project, live, hour, seen, drawn, over_rate, over_budget, known) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (project, live, hour) DO UPDATE SET \
             seen = live_counts.seen + excluded.seen, drawn = live_counts.drawn + excluded.drawn, \
             over_rate = live_counts.over_rate + excluded.over_rate, \
             over_budget = live_counts.over_budget + excluded.over_budget, \
             known = live_counts.known + excluded.known",
        )
        .bind(of.0.to_string())
        .bind(of.1)
        .bind(now - now.rem_euclid(HOUR_US))
        .bind(passed.seen)
        .bind(passed.drawn)
        .bind(passed.over_rate)
        .bind(passed.over_budget)
        .bind(known)
        .execute(tx.conn())
        .await?;
    }
    tx.commit().await?;
    Ok(Some(new))
}

/// A claim that no worker of this process works on.
#[derive(Debug, Clone)]
pub(super) struct Left {
    pub project: ProjectId,
    pub live: String,
    pub claim: Claim,
    /// Whether a call may have been under way when its worker ended.
    pub asked: bool,
}

/// The claims that a worker before left open.
pub(super) async fn left(db: &Db, store: &str) -> Result<Vec<Left>> {
    let rows = query(
        "SELECT project, live, trace, span, evaluator, score, state, taken_at FROM live_scores \
         WHERE store = $1 AND state IN ('asked', 'waiting') ORDER BY taken_at, trace",
    )
    .bind(store)
    .fetch_all(db.read())
    .await?;
    let read = |row: &AnyRow| -> Result<Left> {
        let state: String = row.try_get("state")?;
        Ok(Left {
            project: parsed(row, "project")?,
            live: row.try_get("live")?,
            claim: Claim {
                trace: parsed(row, "trace")?,
                span: parsed(row, "span")?,
                evaluator: parsed(row, "evaluator")?,
                score: row.try_get("score")?,
                taken_at: row.try_get("taken_at")?,
            },
            asked: state == "asked",
        })
    };
    rows.iter().map(read).collect()
}

/// How a trace was judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ScoreState {
    /// It is being judged.
    Pending,
    /// It has a score.
    Scored,
    /// There is no answer to judge.
    Error,
    /// The evaluator gave no score.
    Unscored,
}

impl ScoreState {
    /// The word of the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Scored => "scored",
            Self::Error => "error",
            Self::Unscored => "unscored",
        }
    }

    /// The state that a word names.
    pub fn of(word: &str) -> Option<Self> {
        match word {
            "pending" => Some(Self::Pending),
            "scored" => Some(Self::Scored),
            "error" => Some(Self::Error),
            "unscored" => Some(Self::Unscored),
            _ => None,
        }
    }

    fn of_row(word: &str) -> Self {
        Self::of(word).unwrap_or(Self::Pending)
    }
}

/// How a claim ended.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Ending {
    pub state: ScoreState,
    pub value: Option<f64>,
    pub label: Option<String>,
    pub reason: String,
    pub judge: Option<TraceId>,
    pub cost: i64,
    pub unpriced: i64,
}

/// Writes down how a claim ended; with `None` that no call is under way for it.
/// False when the lease is lost.
pub(super) async fn end(
    db: &Db,
    lease: &Lease,
    ttl_us: i64,
    project: ProjectId,
    claim: &Claim,
    ending: Option<&Ending>,
) -> Result<bool> {
    let Some(mut tx) = begin(db, lease, ttl_us).await? else {
        return Ok(false);
    };
    let state = ending.map_or("waiting", |ending| ending.state.name());
    query(
        "UPDATE live_scores SET state = $1, value = $2, label = $3, reason = $4, judge = $5, cost = $6, \
         unpriced = $7, at = $8 WHERE project = $9 AND trace = $10 AND evaluator = $11 \
         AND state IN ('asked', 'waiting')",
    )
    .bind(state)
    .bind(db::Real(ending.and_then(|ending| ending.value)))
    .bind(ending.and_then(|ending| ending.label.clone()))
    .bind(ending.map(|ending| ending.reason.clone()).unwrap_or_default())
    .bind(ending.and_then(|ending| ending.judge).map(|trace| trace.to_string()))
    .bind(ending.map_or(0, |ending| ending.cost))
    .bind(ending.map_or(0, |ending| ending.unpriced))
    .bind(db.now_us())
    .bind(project.to_string())
    .bind(claim.trace.to_string())
    .bind(claim.evaluator.to_string())
    .execute(tx.conn())
    .await?;
    tx.commit().await?;
    Ok(true)
}

/// What a live evaluation has used of its limits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Usage {
    /// Traces of the last sixty minutes.
    pub in_hour: i64,
    /// Nano-dollars of the last 24 hours.
    pub spent: i64,
    /// The dearest trace of them.
    pub dearest: i64,
    /// Calls among them whose price nobody knows.
    pub unpriced: i64,
}

/// `since_us`: what was unpriced before somebody let it go on again is forgiven.
pub(super) async fn usage(db: &Db, project: ProjectId, name: &str, since_us: i64) -> Result<Usage> {
    let now = db.now_us();
    let row = query(
        "SELECT CAST(COALESCE(SUM(CASE WHEN taken_at > $1 THEN 1 ELSE 0 END), 0) AS BIGINT) AS in_hour, \
         CAST(COALESCE(SUM(cost), 0) AS BIGINT) AS spent, CAST(COALESCE(MAX(cost), 0) AS BIGINT) AS dearest, \
         CAST(COALESCE(SUM(CASE WHEN taken_at > $2 THEN unpriced ELSE 0 END), 0) AS BIGINT) AS unpriced \
         FROM live_scores WHERE project = $3 AND live = $4 AND taken_at > $5",
    )
    .bind(now - HOUR_US)
    .bind(since_us)
    .bind(project.to_string())
    .bind(name)
    .bind(now - super::DAY_US)
    .fetch_one(db.read())
    .await?;
    Ok(Usage {
        in_hour: row.try_get("in_hour")?,
        spent: row.try_get("spent")?,
        dearest: row.try_get("dearest")?,
        unpriced: row.try_get("unpriced")?,
    })
}

/// What became of the traces of a range.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, JsonSchema)]
pub struct Figures {
    /// Traces that the filter let through.
    pub seen: i64,
    /// Of them, drawn by the sample.
    pub drawn: i64,
    /// Traces with a score.
    pub scored: i64,
    /// Traces without an answer to judge.
    pub errors: i64,
    /// Traces that the evaluator gave no score.
    pub unscored: i64,
    /// Traces that are being judged.
    pub pending: i64,
    /// Left out because the hour was full.
    pub over_rate: i64,
    /// Left out because the budget was used up, or a price is not known.
    pub over_budget: i64,
    /// Left out because the same evaluator had judged them already.
    pub known: i64,
    /// The mean of the scores.
    pub mean: Option<f64>,
    /// What the evaluator's calls have cost, in US dollars.
    pub spent_usd: f64,
    /// Calls among them whose price nobody knows.
    pub unpriced_calls: i64,
}

impl Figures {
    /// The share of the judged traces that have a score; none when none was judged.
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
    pub fn coverage(&self) -> Option<f64> {
        let judged = self.scored + self.unscored;
        (judged > 0).then(|| self.scored as f64 / judged as f64)
    }
}

/// An hour of a live evaluation.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct HourRow {
    /// When it begins, microseconds since the epoch.
    pub at: i64,
    /// What became of its traces.
    #[serde(flatten)]
    pub figures: Figures,
}

/// Figures of a range, whole hours.
pub(super) async fn figures(
    db: &Db,
    project: ProjectId,
    name: &str,
    (from_us, to_us): (i64, i64),
) -> Result<Figures> {
    let mut hours = hours(db, project, name, from_us).await?;
    hours.retain(|hour| hour.at < to_us);
    let mut all = Figures::default();
    let mut sum = 0.0;
    for HourRow { figures: hour, .. } in &hours {
        all.seen += hour.seen;
        all.drawn += hour.drawn;
        all.scored += hour.scored;
        all.errors += hour.errors;
        all.unscored += hour.unscored;
        all.pending += hour.pending;
        all.over_rate += hour.over_rate;
        all.over_budget += hour.over_budget;
        all.known += hour.known;
        all.spent_usd += hour.spent_usd;
        all.unpriced_calls += hour.unpriced_calls;
        #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
        let weight = hour.scored as f64;
        sum += hour.mean.unwrap_or(0.0) * weight;
    }
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
    let scored = all.scored as f64;
    all.mean = (all.scored > 0).then(|| sum / scored);
    Ok(all)
}

/// Figures by the hour, oldest first; hours without traces are left out.
pub(super) async fn hours(
    db: &Db,
    project: ProjectId,
    name: &str,
    from_us: i64,
) -> Result<Vec<HourRow>> {
    let from = from_us - from_us.rem_euclid(HOUR_US);
    let mut found: std::collections::BTreeMap<i64, Figures> = std::collections::BTreeMap::new();
    let counts = query(
        "SELECT hour, seen, drawn, over_rate, over_budget, known FROM live_counts \
         WHERE project = $1 AND live = $2 AND hour >= $3",
    )
    .bind(project.to_string())
    .bind(name)
    .bind(from)
    .fetch_all(db.read())
    .await?;
    for row in &counts {
        let hour = found.entry(row.try_get("hour")?).or_default();
        hour.seen = row.try_get("seen")?;
        hour.drawn = row.try_get("drawn")?;
        hour.over_rate = row.try_get("over_rate")?;
        hour.over_budget = row.try_get("over_budget")?;
        hour.known = row.try_get("known")?;
    }
    let scores = query(
        "SELECT taken_at / 3600000000 AS hour, state, COUNT(*) AS n, \
         CAST(COALESCE(SUM(value), 0) AS DOUBLE PRECISION) AS total, \
         CAST(COALESCE(SUM(cost), 0) AS BIGINT) AS cost, CAST(COALESCE(SUM(unpriced), 0) AS BIGINT) AS unpriced \
         FROM live_scores WHERE project = $1 AND live = $2 AND taken_at >= $3 \
         GROUP BY taken_at / 3600000000, state",
    )
    .bind(project.to_string())
    .bind(name)
    .bind(from)
    .fetch_all(db.read())
    .await?;
    for row in &scores {
        let hour: i64 = row.try_get("hour")?;
        let hour = found.entry(hour * HOUR_US).or_default();
        let (state, count): (String, i64) = (row.try_get("state")?, row.try_get("n")?);
        let (total, cost): (f64, i64) = (row.try_get("total")?, row.try_get("cost")?);
        #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
        match ScoreState::of_row(&state) {
            ScoreState::Scored => {
                hour.scored = count;
                hour.mean = (count > 0).then(|| total / count as f64);
            }
            ScoreState::Error => hour.errors = count,
            ScoreState::Unscored => hour.unscored = count,
            ScoreState::Pending => hour.pending += count,
        }
        #[expect(
            clippy::cast_precision_loss,
            reason = "nano-dollars are far below 2^53"
        )]
        let spent_usd = cost as f64 / 1e9;
        hour.spent_usd += spent_usd;
        hour.unpriced_calls += row.try_get::<i64, _>("unpriced")?;
    }
    let row = |(at, figures)| HourRow { at, figures };
    Ok(found.into_iter().map(row).collect())
}

/// A trace that was judged, or is being judged.
#[derive(Debug, Clone, PartialEq)]
pub struct Scored {
    /// The trace.
    pub trace: String,
    /// How it was judged.
    pub state: ScoreState,
    /// The score.
    pub value: Option<f64>,
    /// The word that the score stands for.
    pub label: Option<String>,
    /// The evaluator's reason, or why there is no score.
    pub reason: String,
    /// The evaluator's first call.
    pub judge: Option<String>,
    /// The evaluator's content.
    pub evaluator: Digest,
    /// Nano-dollars.
    pub cost: i64,
    /// When it was taken.
    pub taken_at: i64,
}

/// The newest traces of a live evaluation, of one state or of all.
pub(super) async fn scored(
    db: &Db,
    project: ProjectId,
    name: &str,
    state: Option<ScoreState>,
    before: Option<(i64, String)>,
    limit: i64,
) -> Result<Vec<Scored>> {
    let (at, trace) = before.unwrap_or((i64::MAX, String::new()));
    let word = state.map_or("", ScoreState::name);
    let rows = query(
        "SELECT trace, state, value, label, reason, judge, evaluator, cost, taken_at FROM live_scores \
         WHERE project = $1 AND live = $2 AND (taken_at < $3 OR (taken_at = $4 AND trace < $5)) \
         AND ($6 = '' OR state = $7 OR ($8 = 'pending' AND state IN ('asked', 'waiting'))) \
         ORDER BY taken_at DESC, trace DESC LIMIT $9",
    )
    .bind(project.to_string())
    .bind(name)
    .bind(at)
    .bind(at)
    .bind(trace)
    .bind(word)
    .bind(word)
    .bind(word)
    .bind(limit)
    .fetch_all(db.read())
    .await?;
    let read = |row: &AnyRow| -> Result<Scored> {
        let state: String = row.try_get("state")?;
        Ok(Scored {
            trace: row.try_get("trace")?,
            state: ScoreState::of_row(&state),
            value: row.try_get("value")?,
            label: row.try_get("label")?,
            reason: row.try_get("reason")?,
            judge: row.try_get("judge")?,
            evaluator: parsed(row, "evaluator")?,
            cost: row.try_get("cost")?,
            taken_at: row.try_get("taken_at")?,
        })
    };
    rows.iter().map(read).collect()
}

/// Drops what is older than the traces are.
pub(super) async fn drop_before(db: &Db, project: ProjectId, before_us: i64) -> Result<()> {
    let mut tx = db.begin_write().await?;
    query("DELETE FROM live_scores WHERE project = $1 AND taken_at < $2")
        .bind(project.to_string())
        .bind(before_us)
        .execute(tx.conn())
        .await?;
    query("DELETE FROM live_counts WHERE project = $1 AND hour < $2")
        .bind(project.to_string())
        .bind(before_us)
        .execute(tx.conn())
        .await?;
    tx.commit().await?;
    Ok(())
}
