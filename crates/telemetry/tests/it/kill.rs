//! SIGKILL at random moments under load loses no acknowledged record.
//!
//! The test runs its own binary again as a child that writes spans and scores
//! and prints a number when the acknowledgement for it has come. The parent
//! kills it, opens the directory and looks for every number that it read.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use base::{Random as _, SystemClock, SystemRandom};
use telemetry::{Batch, BodyContent, Options, Telemetry};

use crate::support::*;

const DIR: &str = "TELEMETRY_KILL_DIR";
const FIRST: &str = "TELEMETRY_KILL_FIRST";

/// Small segments, so that kills also land in rolls and seals.
fn options() -> Options {
    Options {
        segment_bytes: 400_000,
        ..Options::default()
    }
}

#[test]
fn child_writes_until_it_is_killed() {
    let (Ok(dir), Ok(first)) = (std::env::var(DIR), std::env::var(FIRST)) else {
        return;
    };
    let telemetry = Telemetry::open(dir.as_ref(), options(), Arc::new(SystemClock)).unwrap();
    let next = std::sync::atomic::AtomicU64::new(first.parse().unwrap());
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                    let batch = Batch {
                        spans: vec![call(n)],
                        scores: vec![score(n, n, -1.0)],
                    };
                    telemetry.reserve().unwrap().write(batch).wait().unwrap();
                    let mut out = std::io::stdout().lock();
                    writeln!(out, "acked {n}").unwrap();
                    out.flush().unwrap();
                }
            });
        }
    });
}

#[test]
fn slow_sigkill_loses_nothing_that_was_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let mut acked: Vec<u64> = Vec::new();
    for round in 0..8_u64 {
        acked.extend(run_and_kill(dir.path(), 1 + round * 1_000_000));
        let telemetry = Telemetry::open(dir.path(), options(), Arc::new(SystemClock)).unwrap();
        for n in &acked {
            let found = telemetry.trace(project(1), trace(*n)).unwrap();
            let found = found
                .unwrap_or_else(|| panic!("span {n} was acknowledged and is gone (round {round})"));
            assert_eq!((found.spans.len(), found.scores.len()), (1, 1), "{n}");
        }
        for n in acked.iter().rev().take(20) {
            let bodies = telemetry
                .span_bodies(project(1), trace(*n), span_id(*n), None)
                .unwrap()
                .unwrap();
            assert!(
                matches!(bodies.input[0].content, BodyContent::Whole(_)),
                "{n}"
            );
        }
    }
    assert!(
        acked.len() > 100,
        "only {} records were acknowledged in all rounds",
        acked.len()
    );
    assert!(
        dir.path().join("segment-000002.db").exists(),
        "no kill could have hit a roll"
    );
}

/// Lets a child write for a random time, kills it, and gives what it said was acknowledged.
fn run_and_kill(dir: &std::path::Path, first: u64) -> Vec<u64> {
    let mut random = [0];
    SystemRandom.fill(&mut random);
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "kill::child_writes_until_it_is_killed",
            "--nocapture",
        ])
        .env(DIR, dir)
        .env(FIRST, first.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let number = |line: &str| {
        line.strip_prefix("acked ")
            .and_then(|n| n.parse::<u64>().ok())
    };
    let mut acked = Vec::new();
    // Not before the first acknowledgement: a kill at start has a test of its own.
    while acked.is_empty() {
        acked.extend(number(
            &lines
                .next()
                .expect("the child ended before it wrote anything")
                .unwrap(),
        ));
    }
    let killer = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(u64::from(random[0]) * 4));
        // SIGKILL on Unix: no handler runs, nothing is flushed.
        child.kill().unwrap();
        child.wait().unwrap()
    });
    // A line cut short by the kill is no acknowledgement that anybody read.
    acked.extend(lines.map_while(Result::ok).filter_map(|line| number(&line)));
    assert!(!killer.join().unwrap().success());
    acked
}
