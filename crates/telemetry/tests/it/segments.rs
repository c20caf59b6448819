//! Rolling, sealing, recovery, replacement across segments, retention.

use std::path::Path;

use telemetry::{AggregateQuery, Batch, Filter, ListQuery, Measure, Options, Telemetry};

use crate::support::*;

fn is_sealed(path: &Path) -> bool {
    let header = std::fs::read(path).unwrap();
    header[18] == 1 && !path.with_extension("db-wal").exists()
}

fn count(telemetry: &telemetry::Reader) -> f64 {
    let rows = telemetry
        .aggregate(&AggregateQuery::new(project(1)))
        .unwrap()
        .rows;
    rows.first().and_then(|row| row.values[0]).unwrap_or(0.0)
}

#[test]
fn a_new_day_rolls_and_the_old_file_is_sealed() {
    let dir = tempfile::tempdir().unwrap();
    let clock = HandClock::at(DAY_ONE);
    let telemetry = open(dir.path(), &clock);
    write(&telemetry, call(1));
    clock.set(DAY_ONE + DAY);
    let mut today = call(2);
    today.start_us += DAY;
    write(
        &telemetry,
        Batch {
            spans: vec![today],
            scores: vec![score(1, 1, -1.0)],
        },
    );
    eventually("sealed", || {
        is_sealed(&dir.path().join("segment-000001.db"))
    });
    // A late score is found with a span in the older segment, by filter and in the list.
    let filter = Filter::parse("score.thumbs < 0").unwrap();
    let page = telemetry
        .list(&ListQuery {
            filter,
            ..ListQuery::new(project(1))
        })
        .unwrap();
    assert_eq!(page.rows.len(), 1);
    assert_eq!(
        (page.rows[0].stored.span.trace_id, page.rows[0].scores.len()),
        (trace(1), 1)
    );
    assert_eq!(count(&telemetry), 2.0);
    assert!(telemetry.trace(project(1), trace(1)).unwrap().is_some());
}

#[test]
fn a_span_resent_after_the_roll_replaces_the_old_one_everywhere() {
    for rollup_rows in [u64::MAX, 0] {
        let dir = tempfile::tempdir().unwrap();
        let clock = HandClock::at(DAY_ONE);
        let telemetry = open_with(
            dir.path(),
            &clock,
            Options {
                rollup_rows,
                ..Options::default()
            },
        );
        write(
            &telemetry,
            Batch {
                spans: (1..=10).map(call).collect(),
                scores: vec![],
            },
        );
        clock.set(DAY_ONE + DAY);
        let mut resent = call(4);
        resent.name = "resent".to_owned();
        resent.request_model = Some("other".to_owned());
        write(&telemetry, resent);
        clock.set(DAY_ONE + 2 * DAY);
        let mut again = call(4);
        again.name = "again".to_owned();
        write(&telemetry, again);
        let trace = telemetry.trace(project(1), trace(4)).unwrap().unwrap();
        assert_eq!(
            (trace.spans.len(), trace.spans[0].span.name.as_str()),
            (1, "again")
        );
        assert_eq!(
            telemetry
                .list(&ListQuery::new(project(1)))
                .unwrap()
                .rows
                .len(),
            10
        );
        let query = AggregateQuery {
            by: vec![telemetry::Field::Model],
            measures: vec![Measure::Count, "sum(input_tokens)".parse().unwrap()],
            ..AggregateQuery::new(project(1))
        };
        let rows = telemetry.aggregate(&query).unwrap().rows;
        let flat: Vec<_> = rows
            .iter()
            .map(|row| (row.group[0].as_deref().unwrap(), row.values.clone()))
            .collect();
        assert_eq!(
            flat,
            [
                ("even", vec![Some(5.0), Some(30.0)]),
                ("odd", vec![Some(5.0), Some(25.0)])
            ],
            "{rollup_rows}"
        );
        drop(telemetry);
        // The command line sees the same from the files alone.
        let reader = Telemetry::open_reader(dir.path()).unwrap();
        assert_eq!(count(&reader), 10.0);
    }
}

#[test]
fn a_large_segment_rolls_before_its_day_is_over() {
    let dir = tempfile::tempdir().unwrap();
    let telemetry = open_with(
        dir.path(),
        &HandClock::at(DAY_ONE),
        Options {
            segment_bytes: 300_000,
            ..Options::default()
        },
    );
    for n in 0..20 {
        write(
            &telemetry,
            Batch {
                spans: (n * 100 + 1..=n * 100 + 100).map(call).collect(),
                scores: vec![],
            },
        );
    }
    assert!(dir.path().join("segment-000003.db").exists());
    assert_eq!(count(&telemetry), 2000.0);
    let newest: Vec<_> = telemetry.list(&ListQuery::new(project(1))).unwrap().rows;
    assert_eq!(newest[0].stored.span.trace_id, trace(2000));
}

#[test]
fn whatever_a_crash_leaves_is_repaired() {
    let clock = HandClock::at(DAY_ONE);
    // Each case: what lies in the directory when the process comes back.
    type Case = (&'static str, fn(&Path));
    let cases: &[Case] = &[
        ("nothing special", |_| {}),
        ("an empty newest file", |dir| {
            std::fs::write(dir.join("segment-000002.db"), "").unwrap()
        }),
        ("an empty older file", |dir| {
            std::fs::rename(dir.join("segment-000001.db"), dir.join("segment-000005.db")).unwrap();
            std::fs::write(dir.join("segment-000004.db"), "").unwrap();
        }),
        ("half a key", |dir| {
            std::fs::write(dir.join("content.key.tmp"), "x").unwrap()
        }),
        ("an unsealed older segment", |dir| {
            // As after a kill between creating the next segment and sealing this one.
            let connection = rusqlite::Connection::open(dir.join("segment-000001.db")).unwrap();
            connection
                .query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))
                .unwrap();
            drop(connection);
            std::fs::copy(dir.join("segment-000001.db"), dir.join("segment-000002.db")).unwrap();
            let next = rusqlite::Connection::open(dir.join("segment-000002.db")).unwrap();
            next.execute_batch("DELETE FROM spans; UPDATE stat SET spans = 0, min_start_us = NULL, max_start_us = NULL").unwrap();
        }),
        ("foreign files", |dir| {
            std::fs::write(dir.join("segment-notes.txt"), "x").unwrap()
        }),
    ];
    for (name, damage) in cases {
        let dir = tempfile::tempdir().unwrap();
        let telemetry = open(dir.path(), &clock);
        write(&telemetry, call(1));
        drop(telemetry);
        damage(dir.path());
        for round in 2..4 {
            let telemetry = open(dir.path(), &clock);
            assert!(
                telemetry.trace(project(1), trace(1)).unwrap().is_some(),
                "{name}"
            );
            write(&telemetry, call(round));
            assert_eq!(count(&telemetry), round as f64, "{name}");
        }
    }
}

#[test]
fn retention_removes_whole_old_segments() {
    let dir = tempfile::tempdir().unwrap();
    let clock = HandClock::at(DAY_ONE);
    let telemetry = open(dir.path(), &clock);
    for day in 0..3 {
        clock.set(DAY_ONE + day * DAY);
        let mut span = call(u64::try_from(day).unwrap() + 1);
        span.start_us = clock.0.load(std::sync::atomic::Ordering::SeqCst);
        write(&telemetry, span);
    }
    eventually("two sealed", || {
        (1..=2).all(|n| is_sealed(&dir.path().join(format!("segment-00000{n}.db"))))
    });
    eventually("one removed", || {
        telemetry.drop_older_than(DAY_ONE + DAY).unwrap() == 1
    });
    assert_eq!(count(&telemetry), 2.0);
    assert!(!dir.path().join("segment-000001.db").exists());
}

#[test]
fn a_reader_beside_the_writer_sees_acknowledged_rows_and_delays_sealing_only() {
    let dir = tempfile::tempdir().unwrap();
    let clock = HandClock::at(DAY_ONE);
    let telemetry = open(dir.path(), &clock);
    write(&telemetry, call(1));
    let reader = Telemetry::open_reader(dir.path()).unwrap();
    assert_eq!(count(&reader), 1.0);
    let first = dir.path().join("segment-000001.db");
    let foreign = rusqlite::Connection::open(&first).unwrap();
    let held: i64 = foreign
        .query_row("SELECT count(*) FROM spans", [], |row| row.get(0))
        .unwrap();
    assert_eq!(held, 1);
    clock.set(DAY_ONE + DAY);
    write(&telemetry, call(2));
    write(&telemetry, call(3));
    assert!(!is_sealed(&first));
    assert_eq!(count(&reader), 3.0);
    drop(foreign);
    eventually("sealed once nobody holds it", || is_sealed(&first));
    assert_eq!(count(&reader), 3.0);
}
