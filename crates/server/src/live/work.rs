//! The worker: follows stored traces, draws, claims, and has them scored, a few at once.
//!
//! One loop owns everything that changes; tasks only score and write their own row. What is
//! passed and what is claimed is written in one transaction, so that a kill at any moment
//! leaves each trace either ahead of the position or claimed. Where a limit is full, traces
//! are left out and counted; where it is only not known yet what one costs, the position
//! waits for the first to end.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use base::{Digest, ProjectId, TraceId};
use db::{Actor, Scope};
use telemetry::{Field, Filter, FollowQuery, Followed, Literal, Op, StoredSpan};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

use super::document::LiveDocument;
use super::scoring::{self, Begun, Shared};
use super::store::{self, Claim, Lease, Passed, Usage};
use super::{Found, Instrument, LiveState};
use crate::app::App;
use crate::error::Result;
use crate::evaluations::{ENVIRONMENT, Lanes, Plain};
use crate::evaluators::EvaluatorDocument;

/// How often the loop looks while traces come.
const LOOK: Duration = Duration::from_millis(500);
/// How often it looks while none come: documents may have changed.
const IDLE: Duration = Duration::from_secs(2);
/// How long a worker may be silent before another takes over.
const LEASE_US: i64 = 5_000_000;
const RENEW: Duration = Duration::from_millis(1500);
/// Traces of one live evaluation that are scored at once, and of all.
const AT_ONCE: usize = 4;
const ALL_AT_ONCE: usize = 16;
/// Traces that one look passes.
const PAGE: usize = 500;
/// When work that failed is tried again.
const AGAIN: Duration = Duration::from_secs(5);
const SWEEP: Duration = Duration::from_secs(3600);
/// Until a trace has shown what one costs, and as a margin afterwards.
const MARGIN: f64 = 1.5;

type Key = (ProjectId, String);

/// Follows the traces of this server's directory until the server stops.
pub async fn run(app: App, mut stop: watch::Receiver<bool>) {
    let mut worker = Worker::new(app, stop.clone());
    let mut ticks = tokio::time::interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = stop.changed() => break,
            _ = ticks.tick() => {}
            Some(done) = worker.tasks.join_next(), if !worker.tasks.is_empty() => worker.take_in(done),
        }
        if let Err(error) = Box::pin(worker.look()).await {
            tracing::warn!(error.message = %error, "live evaluations could not be worked on; it will be tried again");
        }
    }
    worker.end().await;
}

/// How a task ended.
struct Done {
    key: Key,
    id: (TraceId, Digest),
    /// Whether the lease still holds.
    outcome: Result<bool>,
}

struct Worker {
    app: App,
    stop: watch::Receiver<bool>,
    holder: String,
    lease: Option<Lease>,
    renewed: Instant,
    tasks: JoinSet<Done>,
    /// What is being scored, by live evaluation.
    busy: HashMap<Key, HashSet<(TraceId, Digest)>>,
    /// When claims that nobody works on are looked for.
    look_for_left: Option<Instant>,
    /// What telemetry had written at the last look.
    written: u64,
    looked: Option<Instant>,
    /// Whether something is waiting that no new trace would announce.
    again: bool,
    swept: Option<Instant>,
    lanes: Lanes,
    plain: Plain,
}

impl Worker {
    fn new(app: App, stop: watch::Receiver<bool>) -> Self {
        let holder = format!("{}-{}", std::process::id(), app.ids.make::<base::JobId>());
        Self {
            app,
            stop,
            holder,
            lease: None,
            renewed: Instant::now(),
            tasks: JoinSet::new(),
            busy: HashMap::new(),
            look_for_left: None,
            written: 0,
            looked: None,
            again: false,
            swept: None,
            lanes: Lanes::default(),
            plain: Plain::default(),
        }
    }

    fn running(&self) -> usize {
        self.busy.values().map(HashSet::len).sum()
    }

    fn take_in(&mut self, done: std::result::Result<Done, tokio::task::JoinError>) {
        self.again = true;
        let done = match done {
            Ok(done) => done,
            Err(error) => {
                tracing::error!(error.message = %error, "scoring a trace panicked");
                // Nobody knows which one it was: whatever is open is looked for again.
                self.busy.clear();
                self.look_for_left = Some(Instant::now() + AGAIN);
                return;
            }
        };
        if let Some(busy) = self.busy.get_mut(&done.key) {
            busy.remove(&done.id);
        }
        match done.outcome {
            Ok(true) => {}
            Ok(false) => self.lose(),
            Err(error) => {
                tracing::warn!(
                    live_evaluation.name = %done.key.1, trace.id = %done.id.0, error.message = %error,
                    "a trace could not be scored; it will be tried again"
                );
                self.look_for_left = Some(Instant::now() + AGAIN);
            }
        }
    }

    /// Somebody else follows these traces now.
    fn lose(&mut self) {
        self.lease = None;
        self.look_for_left = None;
    }

    async fn look(&mut self) -> Result<()> {
        let written = self.app.telemetry.counters().written;
        let rested = self.looked.is_none_or(|looked| looked.elapsed() >= IDLE);
        if written == self.written && !self.again && !rested {
            return Ok(());
        }
        self.written = written;
        self.again = false;
        self.looked = Some(Instant::now());
        let lives = self.lives().await?;
        let store = self.app.telemetry.identity().to_owned();
        let followed = store::followed(&self.app.db, &store).await?;
        let works = lives.iter().any(|live| live.state() == LiveState::Running);
        if !works && followed.is_empty() && self.running() == 0 && self.lease.is_none() {
            return Ok(());
        }
        if !self.hold(&store, works).await? {
            return Ok(());
        }
        self.take_up_left(&lives).await?;
        for (project, name) in followed {
            let live = lives
                .iter()
                .find(|live| live.project == project && live.name.as_str() == name);
            // An evaluator that cannot work for now leaves the position where it is.
            let kept = live
                .is_some_and(|live| matches!(live.state(), LiveState::Running | LiveState::Stuck));
            if !kept && !self.forget(project, &name).await? {
                return Ok(());
            }
        }
        for live in &lives {
            if let (LiveState::Running, Ok(instrument)) = (live.state(), &live.instrument)
                && !self.advance(live, instrument).await?
            {
                return Ok(());
            }
        }
        self.sweep().await
    }

    async fn lives(&self) -> Result<Vec<Found>> {
        let mut lives = Vec::new();
        for project in crate::projects::list(&self.app.db).await? {
            let scope = Scope {
                project: project.id,
                actor: Actor::System,
            };
            lives.extend(super::all(&self.app, scope).await?);
        }
        Ok(lives)
    }

    /// Whether this worker follows the traces: takes the lease, or renews it in time.
    async fn hold(&mut self, store: &str, works: bool) -> Result<bool> {
        if self.lease.is_some() && self.renewed.elapsed() < RENEW {
            return Ok(true);
        }
        if !works && self.running() == 0 && self.look_for_left.is_none() {
            // Nothing to do: the lease may end.
            if let Some(lease) = self.lease.take() {
                store::let_go(&self.app.db, &lease).await?;
            }
            // What is followed without reason is forgotten under a lease of its own.
            if store::followed(&self.app.db, store).await?.is_empty() {
                return Ok(false);
            }
        }
        let before = self.lease.as_ref().map(|lease| lease.fence);
        self.lease = store::lease(&self.app.db, store, &self.holder, LEASE_US).await?;
        self.renewed = Instant::now();
        let Some(lease) = &self.lease else {
            return Ok(false);
        };
        if before != Some(lease.fence) {
            self.look_for_left = Some(Instant::now());
        }
        Ok(true)
    }

    /// Finishes what a worker before claimed.
    async fn take_up_left(&mut self, lives: &[Found]) -> Result<()> {
        let (Some(lease), Some(at)) = (self.lease.clone(), self.look_for_left) else {
            return Ok(());
        };
        if Instant::now() < at {
            return Ok(());
        }
        self.look_for_left = None;
        for left in store::left(&self.app.db, &lease.store).await? {
            let id = (left.claim.trace, left.claim.evaluator);
            if self.busy.values().any(|busy| busy.contains(&id)) {
                continue;
            }
            if self.running() >= ALL_AT_ONCE {
                self.look_for_left = Some(Instant::now() + LOOK);
                return Ok(());
            }
            let live = lives
                .iter()
                .find(|live| live.project == left.project && live.name.as_str() == left.live);
            let instrument = self.instrument_of(&left, live).await?;
            let begun = match left.asked {
                true => Begun::Asked,
                false => Begun::Waiting,
            };
            self.begin((left.project, left.live), instrument, left.claim, begun);
        }
        Ok(())
    }

    /// The evaluator that a claim was made for, whatever its name means by now.
    async fn instrument_of(
        &self,
        left: &store::Left,
        live: Option<&Found>,
    ) -> Result<Option<Instrument>> {
        if let Some(Ok(now)) = live.map(|live| &live.instrument)
            && now.digest == left.claim.evaluator
        {
            return Ok(Some(now.clone()));
        }
        let digest = left.claim.evaluator;
        let mut found = self.app.catalog.documents(left.project, &[digest]).await?;
        let document = found
            .remove(&digest)
            .and_then(|content| EvaluatorDocument::parse(&content).ok());
        let named = live.and_then(|live| live.document.evaluator());
        Ok(document.map(|document| Instrument {
            name: named.map_or_else(|| left.live.clone(), |(name, _)| name.to_string()),
            version: 0,
            digest,
            document,
        }))
    }

    async fn forget(&mut self, project: ProjectId, name: &str) -> Result<bool> {
        let Some(lease) = self.lease.clone() else {
            return Ok(false);
        };
        let held = store::forget(&self.app.db, &lease, LEASE_US, (project, name)).await?;
        if !held {
            self.lose();
        }
        Ok(held)
    }

    /// Passes the next traces of one live evaluation. False when the lease is lost.
    async fn advance(&mut self, live: &Found, instrument: &Instrument) -> Result<bool> {
        let Some(lease) = self.lease.clone() else {
            return Ok(false);
        };
        let (db, of) = (&self.app.db, (live.project, live.name.as_str()));
        let key: Key = (live.project, live.name.to_string());
        let busy = self.busy.get(&key).map_or(0, HashSet::len);
        let room = AT_ONCE
            .saturating_sub(busy)
            .min(ALL_AT_ONCE.saturating_sub(self.running()));
        if room == 0 {
            return Ok(true);
        }
        let position = match store::position(db, of.0, of.1, &lease.store).await? {
            Some(position) => position,
            None => {
                let since = live.since_us();
                let project = live.project;
                let begin = crate::traces::read(&self.app.telemetry, move |reader| {
                    reader.position_at(project, since)
                })
                .await?;
                let mut secret = [0; 32];
                self.app.random.fill(&mut secret);
                let held = store::begin_at(db, &lease, LEASE_US, of, begin, &secret).await?;
                if !held {
                    self.lose();
                    return Ok(false);
                }
                match store::position(db, of.0, of.1, &lease.store).await? {
                    Some(position) => position,
                    None => return Ok(true),
                }
            }
        };
        let query = FollowQuery {
            project: live.project,
            after: position.position,
            filter: of_traffic(&live.document),
            scope: telemetry::Scope::Roots,
            limit: PAGE,
        };
        let found =
            crate::traces::read(&self.app.telemetry, move |reader| reader.follow(&query)).await?;
        if found.position == position.position {
            return Ok(true);
        }
        let limits = Limits {
            document: &live.document,
            usage: store::usage(db, of.0, of.1, live.since_us()).await?,
            pays: !instrument.document.models().is_empty(),
            busy,
            room,
        };
        let now = db.now_us();
        let (to, passed, drawn) = limits.pass(&found, &position.key);
        let claim = |stored: &&StoredSpan| Claim {
            trace: stored.span.trace_id,
            span: stored.span.span_id,
            evaluator: instrument.digest,
            score: live.document.score.clone(),
            taken_at: now,
        };
        let claims: Vec<Claim> = drawn.iter().map(claim).collect();
        self.again |= found.more && to == found.position;
        let claimed = store::advance(db, &lease, LEASE_US, of, to, passed, claims).await?;
        self.renewed = Instant::now();
        let Some(claimed) = claimed else {
            self.lose();
            return Ok(false);
        };
        for claim in claimed {
            self.begin(key.clone(), Some(instrument.clone()), claim, Begun::Now);
        }
        Ok(true)
    }

    /// Scores one trace in a task of its own.
    fn begin(&mut self, key: Key, instrument: Option<Instrument>, claim: Claim, begun: Begun) {
        let Some(lease) = self.lease.clone() else {
            return;
        };
        let id = (claim.trace, claim.evaluator);
        self.busy.entry(key.clone()).or_default().insert(id);
        let shared = Shared {
            app: self.app.clone(),
            project: key.0,
            live: key.1.clone(),
            lanes: self.lanes.clone(),
            plain: Arc::clone(&self.plain),
            stop: self.stop.clone(),
        };
        self.tasks.spawn(async move {
            let outcome = Box::pin(score(&shared, &lease, instrument, &claim, begun)).await;
            Done { key, id, outcome }
        });
    }

    async fn sweep(&mut self) -> Result<()> {
        let days = i64::from(self.app.config.file.telemetry.retention_days);
        if days == 0 || self.swept.is_some_and(|swept| swept.elapsed() < SWEEP) {
            return Ok(());
        }
        self.swept = Some(Instant::now());
        let before = self.app.db.now_us() - days * super::DAY_US;
        for project in crate::projects::list(&self.app.db).await? {
            store::drop_before(&self.app.db, project.id, before).await?;
        }
        Ok(())
    }

    /// Lets what is under way end, and gives the lease back.
    async fn end(mut self) {
        while self.tasks.join_next().await.is_some() {}
        if let Some(lease) = &self.lease {
            // Otherwise it runs out by itself.
            let _ = store::let_go(&self.app.db, lease).await;
        }
    }
}

async fn score(
    shared: &Shared,
    lease: &Lease,
    instrument: Option<Instrument>,
    claim: &Claim,
    begun: Begun,
) -> Result<bool> {
    let ending = match &instrument {
        Some(instrument) => scoring::score(shared, instrument, claim, begun).await?,
        None => Some(scoring::unscored("the evaluator cannot be read any more")),
    };
    let (db, project) = (&shared.app.db, shared.project);
    store::end(db, lease, LEASE_US, project, claim, ending.as_ref()).await
}

/// The traces of real calls: evaluators' own calls, and those of evaluations, are none.
fn of_traffic(document: &LiveDocument) -> Filter {
    let filter = document.filter();
    filter
        .and(
            Field::Environment,
            Op::NotEqual,
            Literal::Text(ENVIRONMENT.to_owned()),
        )
        .unwrap_or(filter)
}

/// What one look may take.
struct Limits<'a> {
    document: &'a LiveDocument,
    usage: Usage,
    /// Whether the evaluator calls models.
    pays: bool,
    /// Traces that are being scored.
    busy: usize,
    /// How many more may be.
    room: usize,
}

/// Whether a drawn trace is taken.
#[derive(Debug, PartialEq, Eq)]
enum Take {
    Yes,
    OverRate,
    OverBudget,
    /// Not before others have ended.
    Later,
}

impl Limits<'_> {
    /// Goes through traces in their order: to which position, what was passed, what is taken.
    fn pass<'f>(&self, found: &'f Followed, key: &[u8; 32]) -> (u64, Passed, Vec<&'f StoredSpan>) {
        let (mut passed, mut taken) = (Passed::default(), Vec::new());
        let mut position = None;
        for stored in &found.spans {
            let own = stored.span.tags.contains_key(super::TAG);
            let drawn = is_drawn(key, stored.span.trace_id, self.document.sample);
            if !own && drawn {
                match self.take(taken.len()) {
                    Take::Yes => taken.push(stored),
                    Take::OverRate => passed.over_rate += 1,
                    Take::OverBudget => passed.over_budget += 1,
                    Take::Later => {
                        // It is the first one of the next look.
                        return (position.unwrap_or(stored.seq - 1), passed, taken);
                    }
                }
                passed.drawn += 1;
            }
            passed.seen += i64::from(!own);
            position = Some(stored.seq);
        }
        (found.position, passed, taken)
    }

    fn take(&self, taken: usize) -> Take {
        let count = i64::try_from(taken).unwrap_or(i64::MAX);
        if self.usage.in_hour.saturating_add(count) >= i64::from(self.document.max_per_hour) {
            return Take::OverRate;
        }
        if taken >= self.room {
            return Take::Later;
        }
        match self.document.budget_usd_per_day {
            Some(budget) if self.pays => self.within(nano(budget), self.busy + taken),
            _ => Take::Yes,
        }
    }

    /// Whether one more fits into the budget, beside `open` whose cost is not known yet.
    fn within(&self, budget: i64, open: usize) -> Take {
        let usage = &self.usage;
        if usage.unpriced > 0 || usage.spent >= budget {
            return Take::OverBudget;
        }
        // Nobody knows yet what one costs: the first runs alone.
        if usage.dearest == 0 {
            return if open == 0 { Take::Yes } else { Take::Later };
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_precision_loss,
            reason = "an estimate"
        )]
        let each = (usage.dearest as f64 * MARGIN) as i64;
        let open = i64::try_from(open).unwrap_or(i64::MAX);
        let needed = each.saturating_mul(open.saturating_add(1));
        match (usage.spent.saturating_add(needed) <= budget, open > 0) {
            (true, _) => Take::Yes,
            (false, true) => Take::Later,
            (false, false) => Take::OverBudget,
        }
    }
}

/// Whether a trace belongs to the sample: the same each time, and nobody can tell before.
fn is_drawn(key: &[u8; 32], trace: TraceId, sample: f64) -> bool {
    let hash = Digest::of(&[key.as_slice(), trace.0.as_slice()].concat()).0;
    let mut first = [0; 8];
    first.copy_from_slice(&hash[..8]);
    #[expect(
        clippy::cast_precision_loss,
        reason = "53 bits are what a double holds exactly"
    )]
    let share = (u64::from_be_bytes(first) >> 11) as f64 / (1_u64 << 53) as f64;
    share < sample
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "budgets are at most a million dollars"
)]
fn nano(usd: f64) -> i64 {
    (usd * 1e9) as i64
}
