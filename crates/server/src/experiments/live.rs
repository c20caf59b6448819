//! What happens to a run by itself, and the results that everybody shares.
//!
//! Every few seconds each running experiment is looked at: a lost version or a
//! crossed guard ends it, a ramp goes on when time, calls and guards allow, a
//! bandit's shares follow success, and a final verdict is kept as evidence.
//! Looking costs at most a twentieth of the time: after a scan that took a
//! second, the next one waits twenty.

use std::collections::HashMap;
use std::sync::Arc;

use base::Random;
use db::Scope;
use db::promotion::Outcome;
use serde_json::json;

use super::document::{ExperimentDocument, Mode};
use super::results::{Results, compute, rewards};
use super::store::{self, Run};
use super::{Desk, End, add_evidence, change, end, find, lost_arm, parse_name, system_scope};
use crate::app::App;
use crate::error::Result;

/// Results are at least this old before they are computed again.
const FRESH_US: i64 = 2_000_000;
/// Waiting after a computation, as a multiple of what it took.
const REST: i64 = 20;
/// A bandit's shares change when one of them would change by this much.
const SHARE_STEP: f64 = 0.05;
/// Runs whose results are kept in memory.
const KEPT: usize = 200;

/// Results of runs, shared by pages, API and worker.
#[derive(Default)]
pub struct Cache(tokio::sync::Mutex<HashMap<String, Cached>>);

struct Cached {
    results: Arc<Results>,
    revision: i64,
    good_until_us: i64,
}

/// A run's results, a few seconds old at most. One computation at a time: it bounds what
/// a crowd of readers can cost.
///
/// # Errors
/// The query took too long, or telemetry cannot be read.
pub async fn results(app: &App, run: &Run, document: &ExperimentDocument) -> Result<Arc<Results>> {
    let mut cache = app.experiments.0.lock().await;
    let now_us = app.clock.now_us();
    let known = cache.get(&run.id);
    if let Some(known) =
        known.filter(|known| known.revision == run.revision && now_us < known.good_until_us)
    {
        return Ok(Arc::clone(&known.results));
    }
    let results = Arc::new(computed(app, run, document, now_us).await?);
    let took_us = app.clock.now_us() - now_us;
    if cache.len() >= KEPT {
        cache.clear();
    }
    let cached = Cached {
        results: Arc::clone(&results),
        revision: run.revision,
        good_until_us: now_us + FRESH_US.max(REST * took_us),
    };
    cache.insert(run.id.clone(), cached);
    Ok(results)
}

async fn computed(
    app: &App,
    run: &Run,
    document: &ExperimentDocument,
    now_us: i64,
) -> Result<Results> {
    // What was kept at the end outlives the spans.
    if let (Some(_), Some(outcome)) = (run.ended_at, &run.outcome)
        && let Ok(kept) = serde_json::from_value(outcome.clone())
    {
        return Ok(kept);
    }
    let (of_run, of_document) = (run.clone(), document.clone());
    crate::traces::read(&app.telemetry, move |reader| {
        compute(reader, of_run.project, &of_run, &of_document, now_us)
    })
    .await
}

/// A run's results, computed here and now from a directory of telemetry: for commands.
///
/// # Errors
/// Telemetry cannot be read.
pub fn read_results(
    reader: &telemetry::Reader,
    run: &Run,
    document: &ExperimentDocument,
    now_us: i64,
) -> anyhow::Result<Results> {
    if let (Some(_), Some(outcome)) = (run.ended_at, &run.outcome)
        && let Ok(kept) = serde_json::from_value(outcome.clone())
    {
        return Ok(kept);
    }
    Ok(compute(reader, run.project, run, document, now_us)?)
}

/// Looks at every running experiment once.
///
/// # Errors
/// The database cannot be read. What goes wrong with one run is logged and stops no other.
pub async fn tick(app: &App) -> anyhow::Result<()> {
    for project in crate::projects::list(&app.db).await? {
        for run in store::running(&app.db, project.id).await? {
            match look_at(app, &run).await {
                // At once: whoever reads that a run has ended may rely on it.
                Ok(true) => app.refresh_plan().await?,
                Ok(false) => {}
                Err(error) => tracing::warn!(
                    experiment.name = %run.experiment, run.id = %run.id,
                    error.message = %error, "an experiment could not be looked at; it will be tried again"
                ),
            }
        }
    }
    Ok(())
}

/// Whether the run was changed.
async fn look_at(app: &App, run: &Run) -> Result<bool> {
    let desk = Desk::of(app);
    let scope = system_scope(run.project);
    let found = find(
        desk,
        scope,
        &parse_name(&run.experiment)?,
        Some(run.version),
    )
    .await?;
    let document = found.document;
    if let Some((_, problem)) = lost_arm(desk, run, document.arm_kind()).await? {
        // Its figures are worth keeping, but must not be in the way of ending it.
        let results = results(app, run, &document).await.ok();
        let reason = format!("stopped by itself: {problem}");
        let ending = End {
            reason: &reason,
            results: results.as_deref(),
            ..End::default()
        };
        end(desk, scope, run, ending).await?;
        return Ok(true);
    }
    let results = results(app, run, &document).await?;
    if stop_if_guard_crossed(app, scope, run, &document, &results).await? {
        return Ok(true);
    }
    if keep_verdict(app, scope, run, &document, &results).await? {
        // The run has a new revision; the rest is for the next look.
        return Ok(true);
    }
    match document.mode {
        Mode::Canary => advance_ramp(app, scope, run, &document, &results).await,
        Mode::Bandit => follow_success(app, scope, run, &document, &results).await,
        Mode::Split | Mode::Shadow => Ok(false),
    }
}

async fn stop_if_guard_crossed(
    app: &App,
    scope: Scope,
    run: &Run,
    document: &ExperimentDocument,
    results: &Results,
) -> Result<bool> {
    let Some(crossed) = results.guards.iter().find(|guard| guard.state == "crossed") else {
        return Ok(false);
    };
    let number =
        |value: Option<f64>| value.map_or_else(|| "?".to_owned(), |value| format!("{value:.4}"));
    let reason = format!(
        "stopped by itself: {} of the arm {:?} is {} (interval {} to {}), {} the limit {}",
        crossed.metric,
        crossed.arm,
        number(crossed.mean),
        number(crossed.low),
        number(crossed.high),
        match crossed.direction {
            super::document::Forbidden::Above => "above",
            super::document::Forbidden::Below => "below",
        },
        crossed.limit,
    );
    let ending = End {
        reason: &reason,
        results: Some(results),
        ..End::default()
    };
    end(Desk::of(app), scope, run, ending).await?;
    app.refresh_plan().await?;
    tracing::warn!(experiment.name = %run.experiment, run.id = %run.id, guard.metric = %crossed.metric, "a guard stopped an experiment");
    if let Some(arm) = run.arms.iter().find(|arm| arm.name == crossed.arm) {
        let detail = json!({"run": run.id, "guard": crossed});
        add_evidence(Desk::of(app), run, document, arm, Outcome::Fail, &detail).await?;
    }
    Ok(true)
}

/// A verdict that became final is kept with the run and given as evidence, once per arm.
async fn keep_verdict(
    app: &App,
    scope: Scope,
    run: &Run,
    document: &ExperimentDocument,
    results: &Results,
) -> Result<bool> {
    let kept = |arm: &str| {
        let comparisons = run.outcome.as_ref()?.get("comparisons")?.as_array()?;
        let found = comparisons.iter().find(|found| found["arm"] == arm)?;
        (found["is_final"] == true)
            .then(|| found["verdict"].as_str().unwrap_or_default().to_owned())
    };
    let mut fresh = Vec::new();
    for arm in run.arms.iter().filter(|arm| !arm.control) {
        let comparison = results.comparison(&arm.name).filter(|found| found.is_final);
        if let Some(comparison) = comparison
            && kept(&arm.name).as_deref() != Some(comparison.verdict.as_str())
        {
            fresh.push((arm, comparison));
        }
    }
    if fresh.is_empty() {
        return Ok(false);
    }
    let mut decided = run.clone();
    decided.outcome = serde_json::to_value(results).ok();
    let verdicts: Vec<_> = fresh
        .iter()
        .map(|(arm, comparison)| json!({"arm": arm.name, "verdict": comparison.verdict}))
        .collect();
    let detail = json!({"run": run.id, "verdicts": verdicts});
    change(
        Desk::of(app),
        scope,
        &decided,
        "experiment.decide",
        "",
        detail,
    )
    .await?;
    for (arm, comparison) in fresh {
        let outcome = match comparison.verdict.as_str() {
            "worse" => Outcome::Fail,
            // Shown to be better, or as good.
            _ => Outcome::Pass,
        };
        let mut short = comparison.clone();
        short.series.clear();
        let detail = json!({"run": run.id, "comparison": short});
        add_evidence(Desk::of(app), run, document, arm, outcome, &detail).await?;
    }
    Ok(true)
}

/// Goes to the next step of the ramp when this one has lasted, served its calls, and no
/// guard speaks against it. A guard without data is no pass.
async fn advance_ramp(
    app: &App,
    scope: Scope,
    run: &Run,
    document: &ExperimentDocument,
    results: &Results,
) -> Result<bool> {
    let at = usize::try_from(run.step).unwrap_or(usize::MAX);
    let (Some(step), Some(next)) = (
        document.ramp.get(at),
        document.ramp.get(at.saturating_add(1)),
    ) else {
        return Ok(false);
    };
    let lasted_us = app.clock.now_us() - run.step_at;
    let wanted_us = i64::try_from(step.at_least_s)
        .unwrap_or(i64::MAX)
        .saturating_mul(1_000_000);
    let served = results
        .arms
        .iter()
        .find(|arm| !arm.control)
        .map_or(0, |arm| arm.calls_in_step);
    let known = results.guards.iter().all(|guard| guard.state != "no_data");
    if lasted_us < wanted_us || served < step.at_least_calls || !known {
        return Ok(false);
    }
    let mut advanced = run.clone();
    advanced.step += 1;
    advanced.step_at = app.clock.now_us();
    for (arm, weight) in advanced
        .arms
        .iter_mut()
        .zip(document.canary_weights(next.weight))
    {
        arm.weight = weight;
    }
    let detail = json!({"run": run.id, "step": advanced.step + 1, "weight": next.weight});
    change(
        Desk::of(app),
        scope,
        &advanced,
        "experiment.advance",
        "",
        detail,
    )
    .await?;
    Ok(true)
}

/// Gives a bandit's arms the shares that their success so far earns.
async fn follow_success(
    app: &App,
    scope: Scope,
    run: &Run,
    document: &ExperimentDocument,
    results: &Results,
) -> Result<bool> {
    let mut numbers = Numbers::new(app.random.as_ref());
    let weights = stats::thompson_weights(&rewards(results, &document.metric), || numbers.next());
    let moved = |(arm, weight): (&super::RunArm, &f64)| (arm.weight - weight).abs() >= SHARE_STEP;
    if weights.len() != run.arms.len() || !run.arms.iter().zip(&weights).any(moved) {
        return Ok(false);
    }
    let mut shifted = run.clone();
    for (arm, weight) in shifted.arms.iter_mut().zip(&weights) {
        arm.weight = *weight;
    }
    let detail = json!({"run": run.id, "weights": weights});
    change(
        Desk::of(app),
        scope,
        &shifted,
        "experiment.reweigh",
        "",
        detail,
    )
    .await?;
    Ok(true)
}

/// Numbers in [0, 1) from the system's randomness, which is asked for many at a time.
struct Numbers<'a> {
    random: &'a dyn Random,
    bytes: Vec<u8>,
}

impl<'a> Numbers<'a> {
    fn new(random: &'a dyn Random) -> Self {
        let bytes = Vec::new();
        Self { random, bytes }
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "53 bits are what a double holds exactly"
    )]
    fn next(&mut self) -> f64 {
        if self.bytes.len() < 8 {
            self.bytes.resize(8192, 0);
            self.random.fill(&mut self.bytes);
        }
        let rest = self.bytes.split_off(self.bytes.len() - 8);
        let bits = rest
            .iter()
            .fold(0_u64, |bits, byte| bits << 8 | u64::from(*byte));
        (bits >> 11) as f64 / (1_u64 << 53) as f64
    }
}
