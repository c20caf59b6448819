//! `meguri experiment list|show|start|stop`: experiments on the data directory, with
//! or without a running server.

use anyhow::Context as _;
use clap::{Args, Subcommand};
use db::{Catalog, PageRequest};
use serde_json::json;
use telemetry::Telemetry;

use super::{Place, message, print_json, print_table};
use crate::app::{open_catalog, open_database};
use crate::experiments::{self, Desk, End, Results, Run};
use crate::keys::operator_scope;

#[derive(Subcommand)]
pub(super) enum Experiment {
    /// List experiments with their newest runs.
    List(List),
    /// Show what an experiment's newest run has shown so far.
    Show(Named),
    /// Start splitting calls.
    Start(Start),
    /// End the run; calls follow the pointer again.
    Stop(Change),
}

#[derive(Args)]
pub(super) struct List {
    #[command(flatten)]
    place: Place,
    /// The project.
    #[arg(long, default_value = "default")]
    project: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub(super) struct Named {
    #[command(flatten)]
    place: Place,
    /// The project.
    #[arg(long, default_value = "default")]
    project: String,
    /// The experiment's name.
    name: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub(super) struct Change {
    #[command(flatten)]
    named: Named,
    /// Why.
    #[arg(long, default_value = "")]
    reason: String,
}

#[derive(Args)]
pub(super) struct Start {
    #[command(flatten)]
    change: Change,
    /// The version of the experiment; the newest if absent.
    #[arg(long)]
    version: Option<i64>,
}

impl Experiment {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        match self {
            Self::List(args) => list(args).await,
            Self::Show(args) => show(args).await,
            Self::Start(args) => start(args).await,
            Self::Stop(args) => stop(args).await,
        }
    }
}

/// The database with its catalog, and who acts.
struct Opened {
    db: db::Db,
    catalog: Catalog,
    scope: db::Scope,
    telemetry: std::path::PathBuf,
}

impl Opened {
    async fn open(place: &Place, project: &str) -> anyhow::Result<Self> {
        let config = place.load(None)?;
        let db = open_database(&config).await?;
        let scope = operator_scope(&db, project).await?;
        Ok(Self {
            catalog: open_catalog(&config, &db)?,
            telemetry: crate::traces::directory(&config),
            db,
            scope,
        })
    }

    fn desk(&self) -> Desk<'_> {
        Desk {
            db: &self.db,
            catalog: &self.catalog,
            random: &base::SystemRandom,
        }
    }
}

async fn list(args: List) -> anyhow::Result<()> {
    let opened = Opened::open(&args.place, &args.project).await?;
    let mut runs = experiments::recent_runs(opened.desk(), opened.scope).await?;
    let mut page = PageRequest {
        cursor: None,
        limit: 200,
    };
    let mut rows = Vec::new();
    loop {
        let names = experiments::names(&opened.catalog, opened.scope, &page).await?;
        for (name, version) in names.items {
            let newest = runs.iter().position(|run| run.experiment == name.as_str());
            rows.push((name, version, newest.map(|at| runs.remove(at))));
        }
        match names.next {
            Some(next) => page.cursor = Some(next),
            None => break,
        }
    }
    opened.db.close().await;
    if args.json {
        let items: Vec<_> = rows
            .into_iter()
            .map(|(name, version, run)| json!({"name": name.as_str(), "version": version, "run": run.map(experiments::RunJson::from)}))
            .collect();
        return print_json(&json!({"items": items}));
    }
    let row = |(name, version, run): (db::Name, i64, Option<Run>)| {
        let (state, target) = run.map_or_else(
            || ("never run".to_owned(), String::new()),
            |run| (run.state.name().to_owned(), run.target),
        );
        vec![name.as_str().to_owned(), version.to_string(), state, target]
    };
    print_table(
        &["NAME", "VERSION", "STATE", "TARGET"],
        rows.into_iter().map(row).collect(),
    )
}

async fn show(args: Named) -> anyhow::Result<()> {
    let opened = Opened::open(&args.place, &args.project).await?;
    let name = experiments::parse_name(&args.name)?;
    let (run, document) = experiments::find_run(opened.desk(), opened.scope, &name, None).await?;
    let now_us = opened.db.now_us();
    opened.db.close().await;
    let (of_run, folder) = (run.clone(), opened.telemetry.clone());
    let results = tokio::task::spawn_blocking(move || {
        let reader = Telemetry::open_reader(&folder)
            .with_context(|| format!("opening telemetry in {}", folder.display()))?;
        experiments::read_results(&reader, &of_run, &document, now_us)
    })
    .await??;
    if args.json {
        return print_json(&json!({"run": experiments::RunJson::from(run), "results": results}));
    }
    print_results(&run, &results)
}

fn print_results(run: &Run, results: &Results) -> anyhow::Result<()> {
    message(&format!(
        "{} · {} · {}",
        run.experiment,
        run.target,
        run.state.name()
    ));
    let number =
        |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.4}"));
    let rows = results.arms.iter().flat_map(|arm| {
        arm.figures.iter().map(move |figure| {
            vec![
                arm.name.clone(),
                arm.version.to_string(),
                arm.calls.to_string(),
                figure.metric.clone(),
                figure.units.to_string(),
                number(figure.mean),
                format!("{} … {}", number(figure.low), number(figure.high)),
            ]
        })
    });
    print_table(
        &[
            "ARM", "VERSION", "CALLS", "METRIC", "UNITS", "MEAN", "INTERVAL",
        ],
        rows.collect(),
    )?;
    for found in &results.comparisons {
        super::print_line(&format!(
            "{}: {} ({} {}: {}, interval {} to {}, {} of {} units)",
            found.arm,
            found.verdict.replace('_', " "),
            found.metric,
            found.scale,
            number(found.estimate),
            number(found.low),
            number(found.high),
            found.units,
            found.units_needed,
        ))?;
    }
    for guard in &results.guards {
        super::print_line(&format!(
            "guard {} on {}: {}",
            guard.metric,
            guard.arm,
            guard.state.replace('_', " ")
        ))?;
    }
    Ok(())
}

async fn start(args: Start) -> anyhow::Result<()> {
    let named = args.change.named;
    let opened = Opened::open(&named.place, &named.project).await?;
    let name = experiments::parse_name(&named.name)?;
    let (desk, reason) = (opened.desk(), &args.change.reason);
    let run = experiments::start(desk, opened.scope, &name, args.version, reason).await?;
    opened.db.close().await;
    message(&format!("{} splits {} now", run.experiment, run.target));
    if named.json {
        print_json(&experiments::RunJson::from(run))?;
    }
    Ok(())
}

async fn stop(args: Change) -> anyhow::Result<()> {
    let named = args.named;
    let opened = Opened::open(&named.place, &named.project).await?;
    let name = experiments::parse_name(&named.name)?;
    let run = experiments::current_run(opened.desk(), opened.scope, &name).await?;
    // Without figures: those that a page shows are computed from the spans as long as they are kept.
    let ending = End {
        reason: &args.reason,
        ..End::default()
    };
    let run = experiments::end(opened.desk(), opened.scope, &run, ending).await?;
    opened.db.close().await;
    message(&format!(
        "stopped; {} follows its pointer again",
        run.target
    ));
    if named.json {
        print_json(&experiments::RunJson::from(run))?;
    }
    Ok(())
}
