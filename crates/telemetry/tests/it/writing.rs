//! The write path: acknowledgement, bounds, idempotence, cleaning, live tail.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use telemetry::{
    AggregateQuery, Batch, BodyContent, Filter, Full, Health, ListQuery, Measure, OpenError,
    Options, Scope, TailEvent, Telemetry, WriteError,
};

use crate::support::*;

#[test]
fn an_acknowledged_call_comes_back_whole() {
    let dir = tempfile::tempdir().unwrap();
    let clock = HandClock::at(DAY_ONE);
    let telemetry = open(dir.path(), &clock);
    let mut sent = call(3);
    sent.parent = Some(span_id(9));
    sent.prompt = Some(telemetry::PromptRef {
        name: "support/答え".into(),
        version: Some(3),
        digest: Some("sha256:x".into()),
    });
    sent.session_id = Some("s".into());
    sent.session_step = Some(2);
    sent.user_ref = Some("u".into());
    sent.key_id = Some("k".into());
    sent.provider = Some("openai".into());
    sent.response_model = Some("odd-1".into());
    sent.tags = [("team".to_owned(), "a".to_owned())].into();
    sent.metadata = json!({"b": 1, "a": {"x": [1, 2]}});
    sent.usage = base::Usage {
        input: 1,
        output: 2,
        cache_read: 3,
        cache_write: 4,
        reasoning: 5,
        estimated: true,
    };
    sent.cost = Some(base::NanoUsd(123_456));
    sent.price_version = Some("p1".into());
    sent.ttft_us = Some(55);
    sent.status = telemetry::Status::Error;
    sent.error_type = Some("timeout".into());
    sent.error_message = Some("too late".into());
    sent.finish_reasons = vec!["stop".into(), "length".into()];
    sent.streamed = true;
    sent.plan_revision = Some("r7".into());
    sent.release_digest = Some("sha256:r".into());
    sent.parameters = json!({"temperature": 0.5});
    sent.attrs = json!({"other": true});
    sent.tools = vec![json!({"type": "function"})];
    write(&telemetry, sent.clone());

    let read = telemetry.trace(project(1), trace(3)).unwrap().unwrap();
    let stored = &read.spans[0];
    assert_eq!(
        (
            stored.body_counts.input,
            stored.body_counts.output,
            stored.body_counts.tools
        ),
        (1, 1, 1)
    );
    assert_eq!(stored.input_preview, "question number 3");
    assert_eq!(stored.output_preview, "answer number 3");
    let bodies = telemetry
        .span_bodies(project(1), trace(3), span_id(3), None)
        .unwrap()
        .unwrap();
    let mut again = stored.span.clone();
    let whole = |list: &[telemetry::Body]| -> Vec<Value> {
        list.iter()
            .map(|body| {
                if let BodyContent::Whole(value) = &body.content {
                    value.clone()
                } else {
                    Value::Null
                }
            })
            .collect()
    };
    (again.input, again.output, again.tools) = (
        whole(&bodies.input),
        whole(&bodies.output),
        whole(&bodies.tools),
    );
    sent.new_from = Some(0);
    assert_eq!(again, sent);
    let cut = telemetry
        .span_bodies(project(1), trace(3), span_id(3), Some(5))
        .unwrap()
        .unwrap();
    assert_eq!(cut.input[0].content, BodyContent::Cut("{\"rol".to_owned()));
    assert!(cut.input[0].bytes > 5);
    assert_eq!(telemetry.trace(project(2), trace(3)).unwrap(), None);
    assert_eq!(
        telemetry
            .span_bodies(project(2), trace(3), span_id(3), None)
            .unwrap(),
        None
    );
}

#[test]
fn writing_a_span_or_score_again_changes_nothing_but_the_newest_version_shows() {
    let dir = tempfile::tempdir().unwrap();
    let telemetry = open(dir.path(), &HandClock::at(DAY_ONE));
    let judged = score(1, 4, -1.0);
    for _ in 0..3 {
        write(
            &telemetry,
            Batch {
                spans: vec![call(4)],
                scores: vec![judged.clone()],
            },
        );
    }
    let mut ended = call(4);
    ended.name = "late end".to_owned();
    ended.input = vec![json!({"role": "user", "content": "rewritten"})];
    write(&telemetry, ended);
    let read = telemetry.trace(project(1), trace(4)).unwrap().unwrap();
    assert_eq!((read.spans.len(), read.scores.len()), (1, 1));
    assert_eq!(read.spans[0].span.name, "late end");
    let found = |text: &str| {
        let query = ListQuery {
            text: Some(text.to_owned()),
            ..ListQuery::new(project(1))
        };
        telemetry.list(&query).unwrap().rows.len()
    };
    assert_eq!((found("rewritten"), found("question")), (1, 0));
    let count = telemetry
        .aggregate(&AggregateQuery::new(project(1)))
        .unwrap();
    assert_eq!(count.rows[0].values, [Some(1.0)]);
}

#[test]
fn later_scores_win_per_author_and_withdrawn_ones_go() {
    let dir = tempfile::tempdir().unwrap();
    let telemetry = open(dir.path(), &HandClock::at(DAY_ONE));
    write(&telemetry, call(5));
    let (first, second) = (score(1, 5, -1.0), score(2, 5, 1.0));
    let mut other = score(3, 5, 0.5);
    other.author = Some("judge".to_owned());
    for one in [first, second.clone(), other.clone()] {
        write(&telemetry, one);
    }
    let scores = |telemetry: &Telemetry| {
        telemetry
            .trace(project(1), trace(5))
            .unwrap()
            .unwrap()
            .scores
    };
    assert_eq!(scores(&telemetry), [second.clone(), other.clone()]);
    let mut withdrawal = score(4, 5, 0.0);
    withdrawal.supersedes = Some(other.score_id);
    withdrawal.author = Some("admin".to_owned());
    write(&telemetry, withdrawal.clone());
    assert_eq!(scores(&telemetry), [second, withdrawal]);
}

#[test]
fn hostile_texts_are_cut_and_say_so() {
    let dir = tempfile::tempdir().unwrap();
    let telemetry = open(dir.path(), &HandClock::at(DAY_ONE));
    let mut span = call(6);
    span.name = "a\0b".to_owned();
    span.error_message = Some("語".repeat(100_000));
    span.metadata = json!({"big": "x".repeat(1_000_000)});
    span.tags = (0..1000)
        .map(|n| (n.to_string(), "v".repeat(5000)))
        .collect();
    span.input = vec![json!({"role": "user", "content": "\0 ".repeat(3_000_000)})];
    span.start_us = i64::MIN;
    span.end_us = i64::MAX;
    span.usage.input = u64::MAX;
    write(&telemetry, span);
    let read = telemetry
        .trace(project(1), trace(6))
        .unwrap()
        .unwrap()
        .spans
        .remove(0);
    assert_eq!(read.span.name, "a\u{fffd}b");
    assert_eq!(
        read.span.truncated,
        ["error_message", "metadata", "tags", "bodies"]
    );
    assert!(read.span.error_message.unwrap().ends_with('…'));
    assert_eq!(read.span.tags.len(), telemetry::limits::TAGS);
    let bodies = telemetry
        .span_bodies(project(1), trace(6), span_id(6), None)
        .unwrap()
        .unwrap();
    let BodyContent::Whole(cut) = &bodies.input[0].content else {
        panic!("{bodies:?}")
    };
    assert!(cut["truncated"]["bytes"].as_u64().unwrap() > 4_000_000);
}

#[test]
fn repeated_messages_are_stored_once() {
    let dir = tempfile::tempdir().unwrap();
    let telemetry = open(dir.path(), &HandClock::at(DAY_ONE));
    let random = |seed: u64| {
        let mut state = seed;
        (0..2000)
            .map(|_| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                char::from(b'!' + u8::try_from(state >> 33 & 63).unwrap())
            })
            .collect::<String>()
    };
    let mut history = Vec::new();
    for turn in 0..30 {
        history.push(json!({"role": "user", "content": random(turn)}));
        let mut span = call(turn + 1);
        span.input = history.clone();
        span.output = vec![json!({"role": "assistant", "content": random(turn + 1000)})];
        history.push(span.output[0].clone());
        write(&telemetry, span);
    }
    let last = telemetry
        .span_bodies(project(1), trace(30), span_id(30), None)
        .unwrap()
        .unwrap();
    assert_eq!((last.input.len(), last.new_from), (59, 58));
    telemetry.shutdown();
    let bytes = std::fs::metadata(dir.path().join("segment-000001.db"))
        .unwrap()
        .len();
    assert!(
        bytes < 800_000,
        "30 turns of 4 kB, stored once, take {bytes} bytes; repeated they are 1.8 MB"
    );
}

#[test]
fn a_full_queue_refuses_and_counts() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        queue_rows: 3,
        ..Options::default()
    };
    let telemetry = open_with(dir.path(), &HandClock::at(DAY_ONE), options);
    let slots: Vec<_> = (0..3).map(|_| telemetry.reserve().unwrap()).collect();
    assert_eq!(
        telemetry.reserve().unwrap_err(),
        Full::Queue { rows: 3, bytes: 0 }
    );
    assert!(matches!(telemetry.append(call(1)), Err(Full::Queue { .. })));
    let acks: Vec<_> = slots
        .into_iter()
        .zip(1..)
        .map(|(slot, n)| slot.write(call(n).into()))
        .collect();
    acks.into_iter().for_each(|ack| ack.wait().unwrap());
    drop(telemetry.reserve().unwrap());
    let counters = telemetry.counters();
    assert_eq!(
        (
            counters.accepted,
            counters.written,
            counters.refused,
            counters.failed
        ),
        (3, 3, 2, 0)
    );
    assert_eq!(
        (
            counters.queued_rows,
            counters.queued_bytes,
            counters.reserved
        ),
        (0, 0, 0)
    );

    let slot = telemetry.reserve().unwrap();
    telemetry.shutdown();
    assert_eq!(telemetry.reserve().unwrap_err(), Full::Closed);
    assert_eq!(slot.write(call(9).into()).wait(), Err(WriteError::Closed));
}

#[test]
fn shutdown_writes_what_is_queued() {
    let dir = tempfile::tempdir().unwrap();
    let clock = HandClock::at(DAY_ONE);
    let options = Options {
        group_window: Duration::from_millis(5),
        ..Options::default()
    };
    let telemetry = open_with(dir.path(), &clock, options);
    let acks: Vec<_> = (1..=1200)
        .map(|n| telemetry.append(call(n)).unwrap())
        .collect();
    telemetry.shutdown();
    acks.into_iter().for_each(|ack| ack.wait().unwrap());
    assert!(
        telemetry.counters().commits < 600,
        "{:?}",
        telemetry.counters()
    );
    drop(telemetry);
    let again = open(dir.path(), &clock);
    assert_eq!(
        again
            .aggregate(&AggregateQuery::new(project(1)))
            .unwrap()
            .rows[0]
            .values,
        [Some(1200.0)]
    );
}

#[test]
fn a_full_disk_refuses_loses_nothing_and_heals() {
    let dir = tempfile::tempdir().unwrap();
    let clock = HandClock::at(DAY_ONE);
    let quota = Arc::new(AtomicU32::new(0));
    let options = Options {
        page_quota: Some(Arc::clone(&quota)),
        ..Options::default()
    };
    let telemetry = open_with(dir.path(), &clock, options);
    write(&telemetry, call(1));
    quota.store(1, Ordering::SeqCst);
    let mut big = call(2);
    big.input = (0..2000)
        .map(|n| json!({"role": "user", "content": format!("{n} {}", "z".repeat(100))}))
        .collect();
    let failed = telemetry.append(big.clone()).unwrap().wait().unwrap_err();
    assert!(
        matches!(&failed, WriteError::Storage { reason } if reason.contains("full")),
        "{failed}"
    );
    assert!(
        matches!(telemetry.health(), Health::NotReady { ref reason, since_us: DAY_ONE } if reason.contains("no space left"))
    );
    assert!(matches!(telemetry.reserve(), Err(Full::NotReady { .. })));
    assert_eq!(telemetry.counters().failed, 1);
    // What was acknowledged stays readable while nothing can be written.
    assert_eq!(
        telemetry
            .list(&ListQuery::new(project(1)))
            .unwrap()
            .rows
            .len(),
        1
    );
    quota.store(0, Ordering::SeqCst);
    eventually("ready again", || telemetry.health() == Health::Ready);
    write(&telemetry, big);
    assert_eq!(
        telemetry
            .list(&ListQuery::new(project(1)))
            .unwrap()
            .rows
            .len(),
        2
    );
    drop(telemetry);
    let again = open(dir.path(), &clock);
    assert_eq!(
        again.list(&ListQuery::new(project(1))).unwrap().rows.len(),
        2
    );
}

#[test]
fn what_cannot_be_opened_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let clock = HandClock::at(DAY_ONE);
    let open = |dir: &std::path::Path, options| {
        Telemetry::open(dir, options, Arc::new(clock.clone())).unwrap_err()
    };

    let file = dir.path().join("file");
    std::fs::write(&file, "x").unwrap();
    assert!(matches!(
        open(&file, Options::default()),
        OpenError::NotWritable { .. }
    ));

    let full = Options {
        page_quota: Some(Arc::new(AtomicU32::new(2))),
        ..Options::default()
    };
    let error = open(&dir.path().join("full"), full);
    assert!(matches!(error, OpenError::DiskFull { .. }), "{error}");

    let held = dir.path().join("held");
    let first = Telemetry::open(&held, Options::default(), Arc::new(clock.clone())).unwrap();
    let error = open(&held, Options::default());
    assert!(matches!(error, OpenError::InUse { .. }), "{error}");
    write(&first, call(1));
    drop(first);

    let segment = held.join("segment-000001.db");
    let connection = rusqlite::Connection::open(&segment).unwrap();
    connection
        .execute_batch("PRAGMA user_version = 99")
        .unwrap();
    drop(connection);
    let error = open(&held, Options::default());
    assert!(
        matches!(error, OpenError::NewerVersion { found: 99, .. }),
        "{error}"
    );
    let reader = Telemetry::open_reader(&held).unwrap();
    let error = reader
        .list(&ListQuery::new(project(1)))
        .unwrap_err()
        .to_string();
    assert!(error.contains("newer than this program"), "{error}");

    std::fs::write(
        &segment,
        "not a database, but long enough to be taken for one ".repeat(100),
    )
    .unwrap();
    let error = open(&held, Options::default());
    assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
    assert!(matches!(
        Telemetry::open_reader(&dir.path().join("nowhere")),
        Err(OpenError::NotWritable { .. })
    ));
}

#[tokio::test]
async fn followers_see_what_is_committed_and_how_much_they_missed() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        tail_events: 4,
        ..Options::default()
    };
    let telemetry = open_with(dir.path(), &HandClock::at(DAY_ONE), options);
    let filter = Filter::parse("model = even").unwrap();
    let mut tail = telemetry.subscribe(project(1), filter);
    let mut foreign = telemetry.subscribe(project(2), Filter::default());
    for n in 1..=2 {
        telemetry.append(call(n)).unwrap().await.unwrap();
    }
    telemetry.append(score(1, 2, 1.0)).unwrap().await.unwrap();
    let Some(TailEvent::Span(seen)) = tail.next().await else {
        panic!("no span")
    };
    assert_eq!(
        (seen.span.trace_id, seen.output_preview.as_str()),
        (trace(2), "answer number 2")
    );
    assert!(
        matches!(tail.next().await, Some(TailEvent::Score(score)) if score.trace_id == trace(2))
    );
    for n in 3..=12 {
        telemetry.append(call(n)).unwrap().await.unwrap();
    }
    assert_eq!(tail.next().await, Some(TailEvent::Lagged(6)));
    assert!(
        matches!(tail.next().await, Some(TailEvent::Span(seen)) if seen.span.trace_id == trace(10))
    );
    telemetry.shutdown();
    assert!(matches!(tail.next().await, Some(TailEvent::Span(_))));
    assert_eq!(tail.next().await, None);
    assert!(matches!(foreign.next().await, Some(TailEvent::Lagged(_))));
    assert_eq!(foreign.next().await, None);
}

#[test]
fn all_spans_of_a_trace_count_but_only_roots_are_listed() {
    let dir = tempfile::tempdir().unwrap();
    let telemetry = open(dir.path(), &HandClock::at(DAY_ONE));
    let root = call(1);
    let mut child = call(2);
    (child.trace_id, child.parent, child.status) =
        (trace(1), Some(span_id(1)), telemetry::Status::Error);
    child.output = vec![json!({"role": "assistant", "content": "deep secret word"})];
    write(
        &telemetry,
        Batch {
            spans: vec![child, root],
            scores: vec![],
        },
    );
    let page = telemetry
        .list(&ListQuery {
            text: Some("secret".into()),
            ..ListQuery::new(project(1))
        })
        .unwrap();
    let row = &page.rows[0];
    assert_eq!(
        (row.stored.span.span_id, row.span_count, row.error_count),
        (span_id(1), 2, 1)
    );
    let spans = telemetry
        .list(&ListQuery {
            scope: Scope::Spans,
            ..ListQuery::new(project(1))
        })
        .unwrap();
    assert_eq!(spans.rows.len(), 2);
    let query = AggregateQuery {
        scope: Scope::Spans,
        measures: vec![Measure::Errors],
        ..AggregateQuery::new(project(1))
    };
    assert_eq!(
        telemetry.aggregate(&query).unwrap().rows[0].values,
        [Some(1.0)]
    );
}
