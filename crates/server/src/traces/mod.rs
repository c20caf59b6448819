//! Traces: what every call did, said, cost and took; found, counted, shown.
//!
//! | file | owns |
//! |---|---|
//! | `recorder.rs` | from a gateway record to a span on the disk |
//! | `ask.rs`, `time.rs` | from the words of clients to telemetry's queries |
//! | `json.rs`, `api.rs`, `tail.rs`, `figures.rs` | the JSON API, live tail and aggregates |
//! | `summary.rs` | small figures for other features' pages |
//! | `pages.rs`, `view.rs`, `message.rs`, `links.rs` | the pages |
//!
//! The spans themselves, the filter language and the queries are telemetry's.
//! Nothing here changes a span: late facts are scores (`scores/`).

mod api;
mod ask;
mod figures;
mod json;
mod links;
mod message;
mod pages;
mod recorder;
mod summary;
mod tail;
pub mod time;
mod view;
mod watch;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use base::{Clock, ProjectId, TraceId};
use telemetry::{Health, Options, Telemetry, Trace};

use crate::app::App;
use crate::config::Config;
use crate::error::{AppError, Result};
use crate::http::Route;

pub use api::trace_json;
pub use ask::{Ask, AskText, filter_error, read};
pub use json::{ListOf, ScoreJson, ScoreValue, SpanJson, TraceRowJson};
pub use links::ListLink;
pub(crate) use links::encode;
pub use pages::bucket_s;
pub use summary::{calls_by_provider, count_by_app, count_by_prompt, prompt_stats, replay};
pub use view::{Chart, RangeView, Series, bucket_times, bucketed, range_view};
pub use watch::{Calls, SettledCall, Watched};

/// Where a data directory keeps its telemetry.
pub fn directory(config: &Config) -> PathBuf {
    config.data_dir.join("telemetry")
}

/// Opens the telemetry of the data directory for writing.
///
/// # Errors
/// Another server writes to it, or it cannot be used; the message says what to do.
pub fn open_telemetry(config: &Config, clock: Arc<dyn Clock>) -> anyhow::Result<Telemetry> {
    let options = Options {
        group_window: Duration::from_millis(config.file.telemetry.window_ms),
        queue_rows: config.file.telemetry.queue,
        ..Options::default()
    };
    let directory = directory(config);
    Telemetry::open(&directory, options, clock)
        .with_context(|| format!("opening telemetry in {}", directory.display()))
}

/// Takes the gateway's records to telemetry.
pub fn recorder(telemetry: Telemetry, calls: Calls) -> impl gateway::Recorder {
    recorder::TelemetryRecorder { telemetry, calls }
}

/// Whether records can be stored now.
pub fn can_write(telemetry: &Telemetry) -> bool {
    telemetry.health() == Health::Ready
}

/// Drops what is older than the configuration keeps. Returns how many segments went.
///
/// # Errors
/// A file could not be removed.
pub async fn drop_expired(app: &App) -> anyhow::Result<usize> {
    let days = i64::from(app.config.file.telemetry.retention_days);
    if days == 0 {
        return Ok(0);
    }
    let before_us = app.clock.now_us() - days * 86_400_000_000;
    let telemetry = app.telemetry.clone();
    let dropped = tokio::task::spawn_blocking(move || telemetry.drop_older_than(before_us)).await?;
    dropped.context("dropping traces that are past their retention")
}

/// The API and the pages.
pub fn routes() -> Vec<Route> {
    let mut routes = api::routes();
    routes.extend(pages::routes());
    routes
}

/// A trace of this project.
///
/// # Errors
/// 404 when there is none, whoever else may have one with this id.
pub async fn find_trace(app: &App, project: ProjectId, trace_id: TraceId) -> Result<Trace> {
    let found = read(&app.telemetry, move |reader| {
        reader.trace(project, trace_id)
    })
    .await?;
    found.ok_or_else(no_such_trace)
}

/// As [`find_trace`], but waits a moment for a call that has only just ended:
/// a client holds the trace id before the record is on the disk, and its next
/// request may be the score.
///
/// # Errors
/// As there.
pub async fn await_trace(app: &App, project: ProjectId, trace_id: TraceId) -> Result<Trace> {
    const STEP: Duration = Duration::from_millis(50);
    const STEPS: u32 = 20;
    let mut left = if recorder::is_recent(trace_id, app.clock.now_us()) {
        STEPS
    } else {
        0
    };
    loop {
        let found = read(&app.telemetry, move |reader| {
            reader.trace(project, trace_id)
        })
        .await?;
        match found {
            Some(trace) => return Ok(trace),
            None if left == 0 => return Err(no_such_trace()),
            None => left -= 1,
        }
        tokio::time::sleep(STEP).await;
    }
}

/// Reads a trace id; what is none is not found, like an id that nobody has.
///
/// # Errors
/// 404.
pub fn trace_id(text: &str) -> Result<TraceId> {
    text.parse().map_err(|_| no_such_trace())
}

pub(crate) fn no_such_trace() -> AppError {
    AppError::not_found("there is no trace with this id").code("trace_not_found")
}
