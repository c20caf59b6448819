//! Whatever the text: no panic, a finite number within the metric's range, or a reason.

use eval::metrics::{METRICS, ParameterKind};
use eval::{Item, Metric, Outcome, Resources, Statistics, Tokeniser, Transform};
use proptest::prelude::*;
use serde_json::{Value, json};

/// Every metric with its defaults, and what has no default filled in.
fn metrics() -> Vec<Metric> {
    let mut metrics = Vec::new();
    for entry in METRICS {
        let mut definition = json!({"id": entry.id});
        match entry.id {
            "regex" => definition["pattern"] = json!("[a-z]+"),
            "json-schema" => definition["schema"] = json!({"type": "object"}),
            _ => {}
        }
        metrics.push(Metric::parse(&definition).unwrap());
        for parameter in entry.parameters {
            if let ParameterKind::Choice(choices) = parameter.kind {
                for choice in choices
                    .iter()
                    .filter(|choice| !matches!(**choice, "binary" | "inside"))
                {
                    let mut definition = definition.clone();
                    definition[parameter.name] = json!(choice);
                    metrics.push(Metric::parse(&definition).unwrap());
                }
            }
        }
    }
    metrics
}

fn check(metric: &Metric, outcome: &Outcome) {
    let entry = metric.entry();
    match outcome {
        Outcome::Scored { value, .. } => {
            assert!(value.is_finite());
            let slack = 1e-9 * (1.0 + value.abs());
            assert!(
                *value >= entry.low - slack && *value <= entry.high + slack,
                "{} {value}",
                metric.signature()
            );
        }
        Outcome::Unscored { why } => assert!(!why.is_empty()),
    }
}

fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        "[ \\t\\n.,!?a-cA-C0-9'&<>-]{0,40}",
        "[ぁ-んァ-ヶ一-丁。、 ]{0,30}",
        Just(String::new()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_metric_keeps_its_range(
        output in any_text(),
        expected in prop::collection::vec(any_text(), 0..3),
        retrieved in prop::collection::vec("[a-e]", 0..6),
        relevant in prop::collection::vec("[a-e]", 0..4),
        grades in prop::collection::vec(prop_oneof![any::<f64>(), 0.0..5.0], 0..4),
    ) {
        let item = Item { output: &output, expected: &expected, retrieved: &retrieved, relevant: &relevant, grades: &grades };
        for metric in metrics() {
            let outcome = metric.score(&item);
            check(&metric, &outcome);
            check(&metric, &metric.corpus(&[item, item]));
            if let Ok(statistics) = metric.statistics(&item) {
                let text = serde_json::to_string(&statistics).unwrap();
                prop_assert_eq!(serde_json::from_str::<Statistics>(&text).unwrap(), statistics);
            }
        }
    }

    #[test]
    fn every_tokeniser_and_transform_survives(text in any_text()) {
        for name in Tokeniser::NAMES {
            if let Ok(tokens) = Tokeniser::parse(name).unwrap().tokens(&text) {
                prop_assert!(tokens.iter().all(|token| !token.is_empty()));
            }
        }
        for name in ["nfkc", "lower", "whitespace", "punctuation", "stem:porter", "stem:english", "stop-words:en", "cut:3"] {
            let transform: Transform = name.parse().unwrap();
            prop_assert!(transform.apply(&text, &Resources::default()).is_ok());
        }
    }

    #[test]
    fn definitions_never_panic(name in "[a-z_]{1,10}", value in prop_oneof![
        Just(json!(null)), Just(json!(true)), Just(json!(-1)), Just(json!(1e300)), Just(json!("x")), Just(json!(["a", "a"])), Just(json!({})),
    ]) {
        for entry in METRICS {
            let mut definition = json!({"id": entry.id});
            definition[name.as_str()] = value.clone();
            let _ = Metric::parse(&definition);
            for parameter in entry.parameters {
                definition[parameter.name] = value.clone();
            }
            let _ = Metric::parse(&definition);
        }
    }
}

#[test]
fn what_has_no_number_says_why() {
    let parse = |definition: Value| Metric::parse(&definition).unwrap();
    let why = |metric: &Metric, output: &str, expected: &[&str]| {
        let expected: Vec<String> = expected.iter().map(|text| (*text).to_owned()).collect();
        match metric.score(&Item::new(output, &expected)) {
            Outcome::Unscored { why } => why,
            Outcome::Scored { value, .. } => format!("scored {value}"),
        }
    };
    let rouge = parse(json!({"id": "compat:rouge"}));
    assert_eq!(
        why(&rouge, "猫が好き", &["猫が好き"]),
        "the tokeniser ascii finds no words in the expected answer"
    );
    assert_eq!(
        why(&rouge, "猫", &["cat"]),
        "the tokeniser ascii finds no words in the answer"
    );
    assert_eq!(why(&rouge, "", &["cat"]), "scored 0");
    assert_eq!(why(&rouge, "cat", &[""]), "the expected answer is empty");
    assert_eq!(
        why(&rouge, "cat", &[]),
        "the example has no expected answer"
    );
    let bleu = parse(json!({"id": "compat:bleu", "tokeniser": "ja-mecab"}));
    assert_eq!(
        why(&bleu, "猫", &["猫"]),
        "the Japanese dictionary (IPADIC) is not installed; on the server, run: meguri data pull ja-dictionary"
    );
    let mrr = parse(json!({"id": "mrr"}));
    assert_eq!(why(&mrr, "", &[]), "the example names nothing relevant");
    let f = parse(json!({"id": "compat:f", "labels": ["yes", "no"]}));
    assert_eq!(
        why(&f, "yes", &["maybe"]),
        "the expected label is not on the list"
    );
}

#[test]
fn a_tokeniser_that_does_not_fit_warns() {
    let metric = Metric::parse(&json!({"id": "compat:bleu"})).unwrap();
    let expected = ["昨日は図書館で本を読みました。".to_owned()];
    let items = [Item::new("昨日図書館で本を読んだ。", &expected)];
    for outcome in [metric.score(&items[0]), metric.corpus(&items)] {
        let Outcome::Scored {
            warning: Some(warning),
            ..
        } = outcome
        else {
            panic!("no warning: {outcome:?}");
        };
        assert!(warning.contains("ja-mecab"), "{warning}");
    }
}

#[test]
fn signatures_are_lines_that_differ() {
    let signatures: std::collections::BTreeSet<String> =
        metrics().iter().map(|metric| metric.signature()).collect();
    // Defaults and the explicit first choice are the same metric.
    assert!(signatures.len() > METRICS.len());
    assert!(signatures.iter().all(|signature| !signature.contains('\n')));
    let bleu = Metric::parse(&json!({"id": "compat:bleu"})).unwrap();
    assert_eq!(
        bleu.signature(),
        "compat:bleu|case:mixed|eff:no|tok:13a|smooth:exp|version:2.6.0"
    );
    assert_eq!(
        bleu.row_signature(),
        "compat:bleu|case:mixed|eff:yes|tok:13a|smooth:exp|version:2.6.0"
    );
}

#[test]
fn problems_name_their_place() {
    let problem = |definition: Value| Metric::parse(&definition).unwrap_err().to_string();
    assert_eq!(
        problem(json!({"id": "nope"})),
        "/id: no metric is called \"nope\""
    );
    assert_eq!(problem(json!({"id": "mrr", "n": 3})), "/n: mrr takes k");
    assert_eq!(
        problem(json!({"id": "refusal", "n": 3})),
        "/n: refusal takes no parameters"
    );
    assert!(
        problem(json!({"id": "compat:bleu", "tokeniser": "14a"}))
            .starts_with("/tokeniser: must be one of 13a")
    );
    assert!(problem(json!({"id": "regex", "pattern": "("})).starts_with("/pattern: "));
    assert_eq!(
        problem(json!({"id": "compat:f", "labels": ["a", "a"]})),
        "/labels: \"a\" is there twice"
    );
}
