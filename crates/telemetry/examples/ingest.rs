//! Durable spans per second on this disk: `cargo run --release -p telemetry --example ingest [SPANS] [THREADS]`.
//!
//! Each thread writes model calls of about 1 KiB and waits for every
//! acknowledgement, as a gateway under that many connections would.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use base::{Ids, ProjectId, SystemClock, SystemRandom};
use serde_json::json;
use telemetry::{AggregateQuery, Kind, ListQuery, Options, Span, Telemetry};

#[expect(
    clippy::print_stdout,
    reason = "the figures are what this program is for"
)]
fn main() {
    let mut arguments = std::env::args()
        .skip(1)
        .map(|text| text.parse::<u64>().unwrap_or(0));
    let (spans, threads) = (
        arguments.next().unwrap_or(20_000),
        arguments.next().unwrap_or(64).max(1),
    );
    let dir = std::env::temp_dir().join(format!("telemetry-ingest-{}", std::process::id()));
    let telemetry = match Telemetry::open(&dir, Options::default(), Arc::new(SystemClock)) {
        Ok(telemetry) => telemetry,
        Err(error) => return println!("{error}"),
    };
    let ids = Ids::new(Arc::new(SystemClock), Arc::new(SystemRandom));
    let project: ProjectId = ids.make();
    let next = AtomicU64::new(0);
    let started = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while next.fetch_add(1, Ordering::Relaxed) < spans {
                    let written = telemetry
                        .append(call(&ids, project))
                        .map(telemetry::Ack::wait);
                    assert!(matches!(written, Ok(Ok(()))), "{written:?}");
                }
            });
        }
    });
    let seconds = started.elapsed().as_secs_f64();
    let counters = telemetry.counters();
    println!(
        "{spans} spans, {threads} writers: {:.0} durable spans/s in {} commits",
        spans as f64 / seconds,
        counters.commits
    );
    let timed = |what: &str, run: &dyn Fn() -> bool| {
        let started = Instant::now();
        let good = run();
        println!(
            "{what}: {:.1} ms{}",
            started.elapsed().as_secs_f64() * 1e3,
            if good { "" } else { " (failed)" }
        );
    };
    timed("newest 50 roots", &|| {
        telemetry.list(&ListQuery::new(project)).is_ok()
    });
    let word = ListQuery {
        text: Some("東京".to_owned()),
        ..ListQuery::new(project)
    };
    timed("newest 50 with a word", &|| telemetry.list(&word).is_ok());
    let measures = ["count", "p95(latency_ms)"]
        .iter()
        .filter_map(|text| text.parse().ok())
        .collect();
    let by = vec![telemetry::Field::Model];
    let by_model = AggregateQuery {
        measures,
        by,
        every_us: Some(60_000_000),
        ..AggregateQuery::new(project)
    };
    timed(
        "p95 by minute and model, from rollups if above 20,000",
        &|| telemetry.aggregate(&by_model).is_ok(),
    );
    let scan = AggregateQuery {
        every_us: Some(1_000_000),
        ..by_model
    };
    timed("the same by second, from rows", &|| {
        telemetry.aggregate(&scan).is_ok()
    });
    telemetry.shutdown();
    let bytes = std::fs::metadata(dir.join("segment-000001.db")).map_or(0, |file| file.len());
    println!("{} bytes per span", bytes / spans.max(1));
    // A directory under the system's temporary folder; leaving it would be untidy, not wrong.
    let _ = std::fs::remove_dir_all(&dir);
}

fn call(ids: &Ids, project: ProjectId) -> Span {
    let (trace, id): (base::TraceId, base::SpanId) = (ids.make(), ids.make());
    let start_us = trace.started_us().unwrap_or_default();
    let mut span = Span::new(project, trace, id, Kind::Llm, start_us);
    span.end_us = start_us + i64::from(id.0[7]) * 1000;
    span.environment = "prod".to_owned();
    span.request_model = Some(format!("model-{}", id.0[6] % 4));
    span.usage.input = 300;
    span.input = vec![
        json!({"role": "system", "content": "You are a careful assistant of a travel agency. ".repeat(8)}),
        json!({"role": "user", "content": format!("東京の天気と {trace} の予約について教えてください。")}),
    ];
    span.output = vec![
        json!({"role": "assistant", "content": format!("Booking {id}: {}", "it will be sunny. ".repeat(20))}),
    ];
    span
}
