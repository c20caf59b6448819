//! Properties of the filter language: text and tree are the same thing, SQL and
//! memory give the same answer.

use std::sync::Arc;

use base::{ScoreId, SpanId, SystemClock, TraceId};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::scores::ScoreTable;
use crate::{
    Batch, Kind, ListQuery, Options, PromptRef, Scope, Score, Source, Span, Status, Telemetry,
};

/// Words that spans and filters both use, so that conditions sometimes hold.
fn word() -> BoxedStrategy<String> {
    prop_oneof![
        Just("gpt-4o".to_owned()),
        Just("GPT-4o mini".to_owned()),
        Just("東京タワー".to_owned()),
        Just("ＡＢＣ".to_owned()),
        Just("it's \"x\" \\ %_\n".to_owned()),
        Just(String::new()),
        Just("5".to_owned()),
        Just("true".to_owned()),
        ".{0,3}",
    ]
    .boxed()
}

fn number() -> impl Strategy<Value = f64> {
    prop_oneof![
        Just(0.0),
        Just(1.0),
        Just(-1.0),
        Just(0.5),
        Just(2.5),
        (-5_i32..5).prop_map(f64::from),
        -1e9_f64..1e9
    ]
}

fn field() -> BoxedStrategy<Field> {
    let named = prop::sample::select(Field::NAMED);
    let name = || {
        prop_oneof![
            Just("a".to_owned()),
            Just("team x".to_owned()),
            Just("a.b".to_owned()),
            Just("名前".to_owned())
        ]
    };
    prop_oneof![
        4 => named,
        1 => name().prop_map(Field::Tag),
        2 => name().prop_map(Field::Metadata),
        2 => name().prop_map(Field::Score),
    ]
    .boxed()
}

fn literal(field: &Field) -> BoxedStrategy<Literal> {
    let known = |words: Vec<&'static str>| {
        prop::sample::select(words)
            .prop_map(|word| Literal::Text(word.to_owned()))
            .boxed()
    };
    match (field, field.field_type()) {
        (Field::Kind, _) => known(Kind::ALL.iter().map(|kind| kind.as_str()).collect()),
        (Field::Status, _) => known(Status::ALL.iter().map(|status| status.as_str()).collect()),
        (_, FieldType::Text | FieldType::Word) => word().prop_map(Literal::Text).boxed(),
        (_, FieldType::Number) => number().prop_map(Literal::Number).boxed(),
        (_, FieldType::Bool) => any::<bool>().prop_map(Literal::Bool).boxed(),
        (_, FieldType::Any) => prop_oneof![
            word().prop_map(Literal::Text),
            number().prop_map(Literal::Number),
            any::<bool>().prop_map(Literal::Bool)
        ]
        .boxed(),
    }
}

fn leaf() -> impl Strategy<Value = Expr> {
    field().prop_flat_map(|field| {
        let (a, b, c) = (field.clone(), field.clone(), field.clone());
        let compare = literal(&field).prop_flat_map(move |literal| {
            let mut ops = vec![Op::Equal, Op::NotEqual];
            if matches!(literal, Literal::Number(_)) {
                ops.extend([Op::Less, Op::AtMost, Op::Greater, Op::AtLeast]);
            } else if matches!(literal, Literal::Text(_)) && a.field_type() != FieldType::Word {
                ops.extend([Op::Contains, Op::StartsWith]);
            }
            let field = a.clone();
            prop::sample::select(ops)
                .prop_map(move |op| Expr::Compare(field.clone(), op, literal.clone()))
        });
        let list = prop::collection::vec(literal(&field), 1..4)
            .prop_map(move |list| Expr::In(b.clone(), list));
        prop_oneof![4 => compare, 1 => list, 1 => Just(Expr::Exists(c))]
    })
}

fn flat(parts: Vec<Expr>, and: bool) -> Expr {
    let mut out = Vec::new();
    for part in parts {
        match part {
            Expr::And(inner) if and => out.extend(inner),
            Expr::Or(inner) if !and => out.extend(inner),
            other => out.push(other),
        }
    }
    if and { Expr::And(out) } else { Expr::Or(out) }
}

// Strategies are boxed: unboxed, a dozen spans of them overflow a test thread's stack.
fn expr() -> BoxedStrategy<Expr> {
    leaf()
        .boxed()
        .prop_recursive(4, 16, 3, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 2..4).prop_map(|parts| flat(parts, true)),
                prop::collection::vec(inner.clone(), 2..4).prop_map(|parts| flat(parts, false)),
                inner.prop_map(|part| Expr::Not(Box::new(part))),
            ]
        })
        .boxed()
}

fn metadata() -> BoxedStrategy<Value> {
    let scalar = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        number().prop_map(Value::from),
        (-5_i64..5).prop_map(Value::from),
        word().prop_map(Value::from),
        Just(json!([1, 2])),
    ]
    .boxed();
    (scalar.clone(), scalar.clone(), scalar)
        .prop_map(|(a, b, c)| json!({"a": {"b": a, "": 1}, "名前": b, "team x": c}))
        .boxed()
}

fn span(n: u64) -> BoxedStrategy<Span> {
    let project = "00000000-0000-7000-8000-000000000001".parse().unwrap();
    let text = || prop::option::of(word());
    let base = (text(), text(), text(), text(), word(), word(), metadata()).boxed();
    let numbers = (
        0_i64..5000,
        prop::option::of(0_i64..5000),
        prop::option::of(-10_i64..10_000_000_000),
        0_u64..6,
        0_u64..6,
    )
        .boxed();
    let rest = (
        prop::sample::select(Kind::ALL),
        prop::sample::select(Status::ALL),
        prop::collection::btree_map(
            prop_oneof![Just("a".to_owned()), Just("team x".to_owned())],
            word(),
            0..2,
        ),
        prop::option::of((word(), prop::option::of(-2_i64..3))),
        any::<bool>(),
        any::<bool>(),
        prop::collection::vec(word(), 0..2),
    )
        .boxed();
    (base, numbers, rest)
        .prop_map(move |(base, numbers, rest)| {
            let mut trace = [3; 16];
            trace[8..].copy_from_slice(&(n / 2).to_be_bytes());
            let mut span = Span::new(
                project,
                TraceId(trace),
                SpanId(n.to_be_bytes()),
                rest.0,
                1_000_000,
            );
            (
                span.provider,
                span.request_model,
                span.session_id,
                span.error_type,
            ) = (base.0, base.1, base.2, base.3);
            (span.name, span.environment, span.metadata) = (base.4, base.5, base.6);
            span.attrs = json!({
                "app": {"name": span.metadata["a"]["b"]},
                "experiment": {"name": span.metadata["名前"], "arm": span.metadata["team x"]},
            });
            span.end_us += numbers.0;
            (span.ttft_us, span.cost) = (numbers.1, numbers.2.map(base::NanoUsd));
            (span.usage.input, span.usage.output) = (numbers.3, numbers.4);
            (span.status, span.tags) = (rest.1, rest.2);
            span.prompt = rest.3.map(|(name, version)| PromptRef {
                name,
                version,
                digest: None,
            });
            span.streamed = rest.4;
            span.parent = (n % 2 == 1 && rest.5).then_some(SpanId([9; 8]));
            span.finish_reasons = rest.6;
            span
        })
        .boxed()
}

fn score(n: u64) -> BoxedStrategy<Score> {
    let name = prop_oneof![Just("a".to_owned()), Just("名前".to_owned())];
    (
        0_u64..6,
        prop::option::of(0_u64..12),
        name,
        prop::option::of(number()),
        prop::option::of(word()),
        0_i64..3,
    )
        .prop_map(move |(trace, span, name, value, label, at_us)| {
            let mut bytes = [3; 16];
            bytes[8..].copy_from_slice(&trace.to_be_bytes());
            let score_id: ScoreId = format!("00000000-0000-7000-8000-{n:012x}").parse().unwrap();
            let project = "00000000-0000-7000-8000-000000000001".parse().unwrap();
            let span_id = span.map(|span| SpanId(span.to_be_bytes()));
            let trace_id = TraceId(bytes);
            let source = Source::Human;
            Score {
                score_id,
                project,
                trace_id,
                span_id,
                name,
                value,
                label,
                comment: None,
                source,
                author: None,
                at_us,
                supersedes: None,
            }
        })
        .boxed()
}

proptest! {
    #[test]
    fn a_filter_prints_as_text_that_parses_to_the_same_filter(expr in expr()) {
        let filter = Filter { expr: Some(expr) };
        let text = filter.to_string();
        prop_assert_eq!(Filter::parse(&text).map_err(|error| error.excerpt), Ok(filter), "{}", text);
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in "[a-z.=<>!()\"'「」＝　,0-9\\\\ ]{0,40}|.{0,40}") {
        match Filter::parse(&text) {
            Ok(filter) => prop_assert_eq!(Filter::parse(&filter.to_string()).unwrap(), filter),
            Err(error) => {
                prop_assert!(text.get(error.span.clone()).is_some());
                prop_assert!(error.column >= 1);
            }
        }
    }
}

proptest! {
    // Each case opens a directory and asks thirty questions.
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases / 32))]

    #[test]
    fn sql_and_memory_give_the_same_answer(
        spans in (0..12_u64).map(span).collect::<Vec<_>>(),
        scores in (0..8_u64).map(score).collect::<Vec<_>>(),
        filters in prop::collection::vec(expr(), 30),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let telemetry = Telemetry::open(dir.path(), Options::default(), Arc::new(SystemClock)).unwrap();
        telemetry.append(Batch { spans: spans.clone(), scores: scores.clone() }).unwrap().wait().unwrap();
        let table = ScoreTable::new(scores);
        // What was stored, not what was sent: NUL is replaced on the way in.
        let project = spans[0].project;
        let all = ListQuery { scope: Scope::Spans, limit: 1000, ..ListQuery::new(project) };
        let stored: Vec<Span> = telemetry.list(&all).unwrap().rows.into_iter().map(|row| row.stored.span).collect();
        prop_assert_eq!(stored.len(), spans.len());
        for expr in filters {
            let filter = Filter { expr: Some(expr) };
            let expected: Vec<SpanId> = stored
                .iter()
                .filter(|span| filter.matches(&Subject { span, scores: table.of(span.trace_id) }))
                .map(|span| span.span_id)
                .collect();
            let query = ListQuery { filter: filter.clone(), ..all.clone() };
            let found: Vec<SpanId> = telemetry.list(&query).unwrap().rows.into_iter().map(|row| row.stored.span.span_id).collect();
            prop_assert_eq!(found, expected, "{}", filter);
        }
    }
}
