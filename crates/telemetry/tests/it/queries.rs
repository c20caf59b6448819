//! Lists, text search, aggregates and facets over several segments.

use std::time::Duration;

use serde_json::json;
use telemetry::{
    AggregateQuery, Batch, FacetQuery, Field, Filter, ListQuery, Measure, Options, Order,
    QueryError, Scope, Telemetry,
};

use crate::support::*;

/// 1..=n, a hundred per segment, in shuffled order of writing.
fn filled(dir: &std::path::Path, n: u64, options: Options) -> Telemetry {
    let clock = HandClock::at(DAY_ONE);
    let telemetry = open_with(dir, &clock, options);
    for part in 0..n.div_ceil(100) {
        clock.set(DAY_ONE + DAY * i64::try_from(part).unwrap());
        let numbers = (0..100).map(|k| 1 + (part * 100 + k) * 37 % n);
        write(
            &telemetry,
            Batch {
                spans: numbers.map(call).collect(),
                scores: vec![],
            },
        );
    }
    telemetry
}

fn numbers(telemetry: &Telemetry, query: &ListQuery) -> Vec<u64> {
    let rows = telemetry.list(query).unwrap().rows;
    rows.iter().map(|row| row.stored.span.usage.input).collect()
}

#[test]
fn pages_follow_each_other_without_gap_or_repeat_over_segments() {
    let dir = tempfile::tempdir().unwrap();
    let telemetry = filled(dir.path(), 300, Options::default());
    let mut query = ListQuery {
        limit: 7,
        filter: Filter::parse("model = even").unwrap(),
        ..ListQuery::new(project(1))
    };
    let mut seen = Vec::new();
    loop {
        let page = telemetry.list(&query).unwrap();
        seen.extend(page.rows.iter().map(|row| row.stored.span.usage.input));
        let Some(next) = page.next else { break };
        query.cursor = Some(next);
    }
    let expected: Vec<u64> = (1..=150).rev().map(|n| n * 2).collect();
    assert_eq!(seen, expected);

    let range = ListQuery {
        from_us: Some(DAY_ONE + 5000),
        to_us: Some(DAY_ONE + 8000),
        ..ListQuery::new(project(1))
    };
    assert_eq!(numbers(&telemetry, &range), [7, 6, 5]);
    query.cursor = Some(base::Cursor::from_client("nonsense"));
    assert!(matches!(
        telemetry.list(&query),
        Err(QueryError::Invalid(_))
    ));
    assert_eq!(
        telemetry.list(&ListQuery::new(project(9))).unwrap().rows,
        []
    );
}

#[test]
fn words_inside_japanese_runs_are_found() {
    let dir = tempfile::tempdir().unwrap();
    let telemetry = open(dir.path(), &HandClock::at(DAY_ONE));
    let texts = [
        "昨日は東京都庁へ行きました",
        "京都の天気は？",
        "ﾃﾞｰﾀを消したい",
        "The QUICK brown-fox; it's 100% naïve",
        "quick answer about foxes",
    ];
    for (n, text) in texts.iter().zip(1..).map(|(text, n)| (n, text)) {
        let mut span = call(n);
        span.input = vec![json!({"role": "user", "content": [{"type": "text", "text": text}]})];
        span.output = vec![];
        write(&telemetry, span);
    }
    let check = |typed: &str, expected: &[u64]| {
        let query = ListQuery {
            text: Some(typed.to_owned()),
            ..ListQuery::new(project(1))
        };
        let mut found = numbers(&telemetry, &query);
        found.sort_unstable();
        assert_eq!(found, expected, "{typed}");
    };
    check("東京", &[1]);
    check("京都", &[1, 2]);
    check("都庁へ", &[1]);
    check("東都", &[]);
    check("気", &[2]);
    check("た", &[1, 3]);
    check("データ", &[3]);
    check("quick", &[4, 5]);
    check("\"quick brown fox\"", &[4]);
    check("brown quick", &[4]);
    check("fox", &[4]);
    check("fox*", &[4, 5]);
    check("NAÏVE 100", &[4]);
    check("「京都」天気", &[2]);
    check("  ", &[1, 2, 3, 4, 5]);
    check("!!!", &[]);
    for hostile in [
        "\"",
        "AND",
        "a OR b",
        "NEAR(a b)",
        "body:x",
        "x' OR 1=1 --",
        "*",
        "^a",
        "{a b}: c",
        "\0",
    ] {
        let query = ListQuery {
            text: Some(hostile.to_owned()),
            ..ListQuery::new(project(1))
        };
        telemetry.list(&query).unwrap();
    }
}

fn measures(texts: &[&str]) -> Vec<Measure> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[test]
fn aggregates_agree_with_arithmetic_over_segments() {
    let dir = tempfile::tempdir().unwrap();
    let telemetry = filled(dir.path(), 300, Options::default());
    let query = AggregateQuery {
        by: vec![Field::Model],
        measures: measures(&[
            "count",
            "sum(input_tokens)",
            "avg(latency_ms)",
            "min(latency_ms)",
            "max(latency_ms)",
            "p50(latency_ms)",
            "p95(latency_ms)",
        ]),
        order: Some(Order {
            measure: 1,
            descending: false,
        }),
        ..AggregateQuery::new(project(1))
    };
    let answer = telemetry.aggregate(&query).unwrap();
    assert!(answer.exact);
    let row = |name: &str, values: [f64; 7]| telemetry::AggregateRow {
        bucket_us: None,
        group: vec![Some(name.to_owned())],
        values: values.into_iter().map(Some).collect(),
    };
    assert_eq!(
        answer.rows,
        [
            row("odd", [150.0, 22500.0, 150.0, 1.0, 299.0, 149.0, 285.0]),
            row("even", [150.0, 22650.0, 151.0, 2.0, 300.0, 150.0, 286.0]),
        ]
    );

    let by_time = AggregateQuery {
        every_us: Some(100_000),
        from_us: Some(DAY_ONE),
        to_us: Some(DAY_ONE + 250_000),
        ..AggregateQuery::new(project(1))
    };
    let rows = telemetry.aggregate(&by_time).unwrap().rows;
    let flat: Vec<_> = rows
        .iter()
        .map(|row| (row.bucket_us.unwrap() - DAY_ONE, row.values[0].unwrap()))
        .collect();
    assert_eq!(flat, [(0, 99.0), (100_000, 100.0), (200_000, 50.0)]);

    let top = AggregateQuery {
        by: vec![Field::Trace],
        top: Some(2),
        ..AggregateQuery::new(project(1))
    };
    let answer = telemetry.aggregate(&top).unwrap();
    assert_eq!((answer.rows.len(), answer.groups_left_out), (2, 298));
    let bad = AggregateQuery {
        measures: measures(&["sum(model)"]),
        ..AggregateQuery::new(project(1))
    };
    assert!(matches!(
        telemetry.aggregate(&bad),
        Err(QueryError::Invalid(_))
    ));
    assert!(
        "p95(latency)"
            .parse::<Measure>()
            .unwrap_err()
            .to_string()
            .contains("did you mean latency_ms")
    );
    assert!("median(x)".parse::<Measure>().is_err());
    for text in [
        "count",
        "errors",
        "p99.9(latency_ms)",
        "avg(score.thumbs)",
        "sum(tag.\"a b\")",
    ] {
        assert_eq!(text.parse::<Measure>().unwrap().to_string(), text);
    }
}

#[test]
fn rollups_answer_like_rows_within_the_promised_error() {
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let rows = filled(
        a.path(),
        1500,
        Options {
            rollup_rows: u64::MAX,
            ..Options::default()
        },
    );
    let rollups = filled(
        b.path(),
        1500,
        Options {
            rollup_rows: 0,
            ..Options::default()
        },
    );
    let query = AggregateQuery {
        by: vec![Field::Model, Field::Status, Field::Environment],
        every_us: Some(60_000_000),
        filter: Filter::parse("kind = llm and environment = dev").unwrap(),
        measures: measures(&[
            "count",
            "errors",
            "sum(input_tokens)",
            "avg(latency_ms)",
            "p50(latency_ms)",
            "p95(latency_ms)",
            "p99(latency_ms)",
        ]),
        ..AggregateQuery::new(project(1))
    };
    let (exact, fast) = (
        rows.aggregate(&query).unwrap(),
        rollups.aggregate(&query).unwrap(),
    );
    assert!(!fast.exact);
    assert_eq!(exact.rows.len(), fast.rows.len());
    for (exact, fast) in exact.rows.iter().zip(&fast.rows) {
        assert_eq!(
            (&exact.group, exact.bucket_us),
            (&fast.group, fast.bucket_us)
        );
        for (index, (exact, fast)) in exact.values.iter().zip(&fast.values).enumerate() {
            let (exact, fast) = (exact.unwrap(), fast.unwrap());
            let bound = if index < 4 { 1e-9 } else { 0.011 };
            assert!(
                (exact - fast).abs() <= exact * bound,
                "measure {index}: {exact} {fast}"
            );
        }
    }
    // A question that rollups cannot answer is answered from the rows.
    let by_tag = AggregateQuery {
        by: vec![Field::Session],
        ..query
    };
    assert_eq!(
        rollups.aggregate(&by_tag).unwrap().rows,
        rows.aggregate(&by_tag).unwrap().rows
    );
}

#[test]
fn scores_can_be_measured_and_grouped() {
    let dir = tempfile::tempdir().unwrap();
    let telemetry = filled(dir.path(), 200, Options::default());
    for n in 1..=30 {
        write(&telemetry, score(n, n, if n % 3 == 0 { -1.0 } else { 1.0 }));
    }
    let query = AggregateQuery {
        by: vec![Field::Score("thumbs".into())],
        measures: measures(&["count", "avg(score.thumbs)"]),
        ..AggregateQuery::new(project(1))
    };
    let rows = telemetry.aggregate(&query).unwrap().rows;
    let flat: Vec<_> = rows
        .iter()
        .map(|row| (row.group[0].clone(), row.values.clone()))
        .collect();
    assert_eq!(
        flat,
        [
            (None, vec![Some(170.0), None]),
            (Some("1".to_owned()), vec![Some(20.0), Some(1.0)]),
            (Some("-1".to_owned()), vec![Some(10.0), Some(-1.0)]),
        ]
    );
    let filter = Filter::parse("score.thumbs < 0 and latency_ms <= 9").unwrap();
    let query = ListQuery {
        filter,
        ..ListQuery::new(project(1))
    };
    assert_eq!(numbers(&telemetry, &query), [9, 6, 3]);
}

#[test]
fn facets_count_values_over_segments() {
    let dir = tempfile::tempdir().unwrap();
    let telemetry = filled(dir.path(), 300, Options::default());
    let mut tagged = call(301);
    tagged.tags.insert("team".into(), "青".into());
    tagged.streamed = true;
    write(&telemetry, tagged);
    let query = FacetQuery {
        project: project(1),
        from_us: None,
        to_us: None,
        filter: Filter::parse("input_tokens > 1").unwrap(),
        text: None,
        scope: Scope::Roots,
        fields: vec![
            Field::Model,
            Field::Tag("team".into()),
            Field::Streamed,
            Field::Trace,
        ],
        top: 2,
    };
    let facets = telemetry.facets(&query).unwrap();
    let value = |name: &str, count| (name.to_owned(), count);
    assert_eq!(facets[0].values, [value("even", 150), value("odd", 150)]);
    assert_eq!(facets[1].values, [value("青", 1)]);
    assert_eq!(facets[2].values, [value("false", 299), value("true", 1)]);
    assert_eq!((facets[3].values.len(), facets[3].distinct), (2, 300));
}

#[test]
fn a_query_ends_at_its_limit_and_readers_are_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let telemetry = filled(
        dir.path(),
        100,
        Options {
            query_limit: Duration::ZERO,
            ..Options::default()
        },
    );
    let error = telemetry.list(&ListQuery::new(project(1))).unwrap_err();
    assert!(
        matches!(error, QueryError::TooSlow { limit_ms: 0 }),
        "{error}"
    );
    // The refused query has given its place back.
    assert!(matches!(
        telemetry.list(&ListQuery::new(project(1))),
        Err(QueryError::TooSlow { .. })
    ));
}

#[test]
fn frequent_and_rare_words_and_ids_find_the_same_by_every_road() {
    let dir = tempfile::tempdir().unwrap();
    let telemetry = open(dir.path(), &HandClock::at(DAY_ONE));
    let mut spans: Vec<telemetry::Span> = (1..=1200).map(call).collect();
    spans[6].session_id = Some("s1".to_owned());
    // The word of a child counts for its root.
    let mut child = call(2000);
    (child.trace_id, child.parent) = (trace(7), Some(span_id(7)));
    child.output = vec![json!({"role": "assistant", "content": "needle"})];
    spans.push(child);
    write(
        &telemetry,
        Batch {
            spans,
            scores: vec![],
        },
    );
    let check = |text: Option<&str>, filter: &str, scope: Scope, expected: &[u64]| {
        let filter = Filter::parse(filter).unwrap();
        let text = text.map(str::to_owned);
        let query = ListQuery {
            text: text.clone(),
            filter: filter.clone(),
            scope,
            limit: 3,
            ..ListQuery::new(project(1))
        };
        assert_eq!(numbers(&telemetry, &query), expected, "{filter} {text:?}");
        telemetry
            .aggregate(&AggregateQuery {
                text,
                filter,
                scope,
                ..AggregateQuery::new(project(1))
            })
            .unwrap()
            .rows[0]
            .values[0]
    };
    assert_eq!(
        check(Some("question"), "", Scope::Roots, &[1200, 1199, 1198]),
        Some(1200.0)
    );
    assert_eq!(
        check(Some("question"), "", Scope::Spans, &[2000, 1200, 1199]),
        Some(1201.0)
    );
    assert_eq!(
        check(Some("number"), "input_tokens < 3", Scope::Roots, &[2, 1]),
        Some(2.0)
    );
    assert_eq!(check(Some("needle"), "", Scope::Roots, &[7]), Some(1.0));
    assert_eq!(check(Some("needle"), "", Scope::Spans, &[2000]), Some(1.0));
    assert_eq!(check(None, "session = s1", Scope::Roots, &[7]), Some(1.0));
    assert_eq!(
        check(
            None,
            &format!("trace = {}", trace(7)),
            Scope::Spans,
            &[2000, 7]
        ),
        Some(2.0)
    );
}

#[test]
fn a_scan_reads_arms_apps_and_the_scores_of_the_trace() {
    let dir = tempfile::tempdir().unwrap();
    let telemetry = open(dir.path(), &HandClock::at(DAY_ONE));
    let mut spans = Vec::new();
    for n in 1..=6_u64 {
        let mut span = call(n);
        let arm = if n % 2 == 0 { "candidate" } else { "control" };
        span.attrs = json!({"app": {"name": "geo"}, "experiment": {"name": "tone", "arm": arm}});
        if n == 5 {
            span.attrs = json!({"app": {"name": 7}, "experiment": "tone"});
        }
        if n == 6 {
            // A step of the first call's trace.
            span.trace_id = trace(1);
            span.parent = Some(span_id(1));
        }
        spans.push(span);
    }
    let scores = vec![score(1, 1, 1.0), score(2, 2, -1.0)];
    write(&telemetry, Batch { spans, scores });
    let mut query = telemetry::ScanQuery {
        project: project(1),
        from_us: Some(DAY_ONE + 2000),
        to_us: None,
        filter: Filter::parse("experiment = tone and app = geo").unwrap(),
        scope: Scope::Spans,
        fields: vec![
            Field::Arm,
            Field::LatencyMs,
            Field::Score("thumbs".to_owned()),
        ],
        scores_of_trace: true,
    };
    let scan = |query: &telemetry::ScanQuery| {
        let mut seen = Vec::new();
        let each = |row: &telemetry::Scanned<'_>| {
            let [arm, latency, thumbs] = row.values else {
                panic!("three fields");
            };
            seen.push((
                arm.as_ref().and_then(|arm| arm.text()).unwrap().to_owned(),
                latency.as_ref().and_then(|ms| ms.number()).unwrap(),
                thumbs.as_ref().and_then(|value| value.number()),
            ));
        };
        telemetry.scan(query, each).unwrap();
        seen
    };
    let expected = [
        ("candidate".to_owned(), 2.0, Some(-1.0)),
        ("control".to_owned(), 3.0, None),
        ("candidate".to_owned(), 4.0, None),
        ("candidate".to_owned(), 6.0, Some(1.0)),
    ];
    assert_eq!(scan(&query), expected);
    query.scores_of_trace = false;
    assert!(scan(&query).iter().all(|row| row.2.is_none()));
    query.project = project(2);
    assert_eq!(scan(&query), []);
}
