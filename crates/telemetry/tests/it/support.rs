//! Builders and a clock that tests move by hand.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use base::{Clock, ProjectId, ScoreId, SpanId, TraceId};
use serde_json::json;
use telemetry::{Batch, Kind, Options, Score, Source, Span, Telemetry};

/// 2026-01-05 00:00 UTC.
pub(crate) const DAY_ONE: i64 = 1_767_571_200_000_000;
pub(crate) const DAY: i64 = 86_400_000_000;

#[derive(Clone)]
pub(crate) struct HandClock(pub(crate) Arc<AtomicI64>);

impl Clock for HandClock {
    fn now_us(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }
}

impl HandClock {
    pub(crate) fn at(us: i64) -> Self {
        Self(Arc::new(AtomicI64::new(us)))
    }

    pub(crate) fn set(&self, us: i64) {
        self.0.store(us, Ordering::SeqCst);
    }
}

pub(crate) fn project(n: u8) -> ProjectId {
    format!("00000000-0000-7000-8000-0000000000{n:02x}")
        .parse()
        .unwrap()
}

pub(crate) fn trace(n: u64) -> TraceId {
    let mut bytes = [7; 16];
    bytes[8..].copy_from_slice(&n.to_be_bytes());
    TraceId(bytes)
}

pub(crate) fn span_id(n: u64) -> SpanId {
    SpanId(n.to_be_bytes())
}

pub(crate) fn score_id(n: u64) -> ScoreId {
    format!("00000000-0000-7000-8000-{n:012x}").parse().unwrap()
}

/// A root model call of project 1 that starts n milliseconds into day one and takes n milliseconds.
pub(crate) fn call(n: u64) -> Span {
    let ms = i64::try_from(n).unwrap() * 1000;
    let mut span = Span::new(project(1), trace(n), span_id(n), Kind::Llm, DAY_ONE + ms);
    span.end_us = span.start_us + ms;
    span.name = "chat".to_owned();
    span.environment = "dev".to_owned();
    span.request_model = Some(if n.is_multiple_of(2) { "even" } else { "odd" }.to_owned());
    span.usage.input = n;
    span.input = vec![json!({"role": "user", "content": format!("question number {n}")})];
    span.output = vec![json!({"role": "assistant", "content": format!("answer number {n}")})];
    span
}

pub(crate) fn score(n: u64, of: u64, value: f64) -> Score {
    static LATER: AtomicU64 = AtomicU64::new(0);
    Score {
        score_id: score_id(n),
        project: project(1),
        trace_id: trace(of),
        span_id: None,
        name: "thumbs".to_owned(),
        value: Some(value),
        label: None,
        comment: None,
        source: Source::Human,
        author: None,
        at_us: DAY_ONE + DAY / 2 + i64::try_from(LATER.fetch_add(1, Ordering::SeqCst)).unwrap(),
        supersedes: None,
    }
}

pub(crate) fn open(dir: &Path, clock: &HandClock) -> Telemetry {
    open_with(dir, clock, Options::default())
}

pub(crate) fn open_with(dir: &Path, clock: &HandClock, options: Options) -> Telemetry {
    Telemetry::open(dir, options, Arc::new(clock.clone())).unwrap()
}

pub(crate) fn write(telemetry: &Telemetry, batch: impl Into<Batch>) {
    telemetry.append(batch).unwrap().wait().unwrap();
}

/// Polls until the condition holds; fails after twenty seconds.
#[track_caller]
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "still waiting: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
