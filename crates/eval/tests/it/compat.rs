//! `compat:` metrics beside the programs that they promise to equal: frozen answers always, fresh
//! random questions where Python and the packages are.
//!
//! `vectors.json` is written by the oracle: delete it, run `frozen` with the oracle installed, and
//! look at the difference before you commit it.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use eval::metrics::{
    Answers, Average, Bleu, Chrf, Confusion, DEFAULT_SEED, Edits, LabelMeasure, Labels, Measure,
    Rouge, Smoothing, Variant, ZeroDivision, string_distance,
};
use eval::text::{porter, split};
use eval::{Item, Metric, Outcome, Tokeniser};
use serde_json::{Value, json};

use crate::cases::questions;
use crate::support::{oracle, resources};

/// Sums of many terms in another order differ in the last bits.
const TOLERANCE: f64 = 1e-9;

#[test]
fn frozen() {
    let questions: Vec<Value> = vectors()
        .into_iter()
        .filter(|case| !needs_data(&case["ask"]))
        .collect();
    assert!(questions.len() > 40);
    for case in &questions {
        check(&case["ask"], &case["answer"]);
    }
}

#[test]
fn frozen_with_dictionary_and_lexicon() {
    let questions: Vec<Value> = vectors()
        .into_iter()
        .filter(|case| needs_data(&case["ask"]))
        .collect();
    assert!(questions.len() > 5);
    for case in &questions {
        check(&case["ask"], &case["answer"]);
    }
}

#[test]
fn differential() {
    let Some(python) = oracle() else {
        eprintln!(
            "no Python oracle here (scripts/eval-oracle makes one); only frozen answers were compared"
        );
        return;
    };
    let mut asked = Vec::new();
    for seed in [1, 20_261_121, 987_654_321] {
        asked.extend(questions(seed, 40));
    }
    for (ask, answer) in asked.iter().zip(answers(&python, &asked)) {
        check(ask, &answer);
    }
}

fn needs_data(ask: &Value) -> bool {
    ask["tokeniser"] == "ja-mecab" || matches!(ask["ask"].as_str(), Some("vader" | "wakati"))
}

fn vectors() -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/vectors.json");
    if !path.exists() {
        let python = oracle().expect("vectors.json is missing and so is the oracle");
        let asked = questions(7, 8);
        let mut text = String::from("[\n");
        let answers = answers(&python, &asked);
        for (index, (ask, answer)) in asked.iter().zip(answers).enumerate() {
            let comma = if index + 1 < asked.len() { "," } else { "" };
            text.push_str(&format!(
                "{}{comma}\n",
                json!({"ask": ask, "answer": answer})
            ));
        }
        text.push_str("]\n");
        std::fs::write(&path, text).expect("write the vectors");
    }
    let text = std::fs::read_to_string(&path).expect("read the vectors");
    serde_json::from_str(&text).expect("vectors are JSON")
}

/// Asks the oracle everything in one go.
pub(crate) fn answers(python: &PathBuf, asked: &[Value]) -> Vec<Value> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oracle/oracle.py");
    let mut child = Command::new(python)
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("start the oracle");
    let mut input = child.stdin.take().expect("its input");
    let lines: Vec<String> = asked.iter().map(|ask| format!("{ask}\n")).collect();
    // Written from its own thread: the oracle answers while it reads, and pipes are short.
    let writer = std::thread::spawn(move || {
        for line in lines {
            input.write_all(line.as_bytes())?;
        }
        Ok::<(), std::io::Error>(())
    });
    let output = child.wait_with_output().expect("the oracle ends");
    writer
        .join()
        .expect("the writer ends")
        .expect("the oracle reads everything");
    assert!(output.status.success(), "the oracle failed");
    let text = String::from_utf8(output.stdout).expect("answers are text");
    let answers: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("an answer is JSON"))
        .collect();
    assert_eq!(answers.len(), asked.len());
    answers
}

fn check(ask: &Value, answer: &Value) {
    match ask["ask"].as_str().unwrap() {
        "bleu" => check_bleu(ask, answer),
        "chrf" => check_chrf(ask, answer),
        "rouge" => check_rouge(ask, answer),
        "labels" => check_labels(ask, answer),
        "distance" => check_distance(ask, answer),
        "vader" => check_vader(ask, answer),
        "paired" => check_paired(ask, answer),
        "porter" => check_porter(ask, answer),
        "tokenise" => check_tokens(ask, answer),
        other => panic!("what is {other}?"),
    }
}

#[track_caller]
fn near(ours: f64, theirs: &Value, about: &dyn std::fmt::Debug) {
    let theirs = theirs.as_f64().unwrap();
    assert!(
        (ours - theirs).abs() <= TOLERANCE,
        "{ours} but {theirs}: {about:?}"
    );
}

fn rows(ask: &Value) -> Vec<(String, Vec<String>)> {
    serde_json::from_value(ask["rows"].clone()).unwrap()
}

fn sum(rows: &[Vec<u64>]) -> Vec<u64> {
    let mut sum = rows[0].clone();
    for row in &rows[1..] {
        for (sum, count) in sum.iter_mut().zip(row) {
            *sum += count;
        }
    }
    sum
}

fn tokeniser(name: &str) -> Tokeniser {
    match name {
        "ja-mecab" => Tokeniser::JaMecab(resources().japanese.clone()),
        name => Tokeniser::parse(name).unwrap(),
    }
}

fn check_bleu(ask: &Value, answer: &Value) {
    let value = || ask["smooth_value"].as_f64().unwrap();
    let bleu = Bleu {
        tokeniser: tokeniser(ask["tokeniser"].as_str().unwrap()),
        lowercase: ask["lowercase"].as_bool().unwrap(),
        smoothing: match ask["smooth"].as_str().unwrap() {
            "exp" => Smoothing::Exp,
            "floor" => Smoothing::Floor(value()),
            "add-k" => Smoothing::AddK(value()),
            _ => Smoothing::None,
        },
        effective_order: ask["effective_order"].as_bool().unwrap(),
        max_order: ask["max_order"].as_u64().unwrap() as usize,
    };
    let rows = rows(ask);
    let statistics: Vec<Vec<u64>> = rows
        .iter()
        .map(|(output, references)| bleu.statistics(output, references).unwrap())
        .collect();
    near(bleu.score(&sum(&statistics)).score, &answer["corpus"], ask);
    let sentence = Bleu {
        effective_order: true,
        ..bleu.clone()
    };
    for (at, counts) in statistics.iter().enumerate() {
        near(sentence.score(counts).score, &answer["rows"][at], &rows[at]);
    }
    if bleu.max_order == 4 {
        assert_eq!(
            bleu.signature(Some(rows[0].1.len())),
            answer["signature"].as_str().unwrap()
        );
    }
    through_the_door(
        json!({
            "id": "compat:bleu", "tokeniser": ask["tokeniser"], "lowercase": ask["lowercase"],
            "smooth": ask["smooth"], "smooth_value": ask["smooth_value"],
            "max_order": ask["max_order"],
        }),
        ask,
        &answer["rows"],
    );
}

fn check_chrf(ask: &Value, answer: &Value) {
    let count = |name: &str| ask[name].as_u64().unwrap();
    let flag = |name: &str| ask[name].as_bool().unwrap();
    let chrf = Chrf {
        character_order: count("char_order") as usize,
        word_order: count("word_order") as usize,
        beta: count("beta") as u32,
        lowercase: flag("lowercase"),
        whitespace: flag("whitespace"),
        epsilon_smoothing: flag("eps_smoothing"),
    };
    let rows = rows(ask);
    let statistics: Vec<Vec<u64>> = rows
        .iter()
        .map(|(output, references)| chrf.statistics(output, references))
        .collect();
    near(chrf.score(&sum(&statistics)), &answer["corpus"], ask);
    for (at, counts) in statistics.iter().enumerate() {
        near(chrf.score(counts), &answer["rows"][at], &rows[at]);
    }
    if chrf.beta == 2 {
        assert_eq!(
            chrf.signature(Some(rows[0].1.len())),
            answer["signature"].as_str().unwrap()
        );
    }
}

fn check_rouge(ask: &Value, answer: &Value) {
    let stem = ask["stem"].as_bool().unwrap();
    let variants = [
        Variant::N(1),
        Variant::N(2),
        Variant::N(3),
        Variant::L,
        Variant::Lsum,
    ];
    for (at, (output, references)) in rows(ask).iter().enumerate() {
        for (kind, variant) in variants.into_iter().enumerate() {
            let rouge = Rouge {
                variant,
                tokeniser: Tokeniser::Ascii { stem },
            };
            let score = rouge.score(output, references).unwrap();
            for (ours, part) in [score.precision, score.recall, score.f]
                .into_iter()
                .zip(0..)
            {
                near(
                    ours,
                    &answer["rows"][at][kind][part],
                    &(variant, output, references),
                );
            }
        }
    }
    let f: Vec<Value> = answer["rows"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row[3][2].clone())
        .collect();
    through_the_door(
        json!({"id": "compat:rouge", "variant": "L", "stem": stem}),
        ask,
        &json!(f),
    );
}

/// The product's way gives the same number, or none; never another.
fn through_the_door(definition: Value, ask: &Value, expected: &Value) {
    let metric = Metric::parse(&definition).unwrap();
    let metric = if needs_data(ask) {
        metric.with(resources())
    } else {
        metric
    };
    for (at, (output, references)) in rows(ask).iter().enumerate() {
        if let Outcome::Scored { value, .. } = metric.score(&Item::new(output, references)) {
            near(value, &expected[at], &definition);
        }
    }
}

fn check_labels(ask: &Value, answer: &Value) {
    let texts =
        |name: &str| -> Option<Vec<String>> { serde_json::from_value(ask[name].clone()).unwrap() };
    let (expected, given) = (texts("expected").unwrap(), texts("given").unwrap());
    let pairs = expected
        .iter()
        .map(String::as_str)
        .zip(given.iter().map(String::as_str));
    let mut labels = Labels {
        measure: LabelMeasure::Accuracy,
        average: match ask["average"].as_str().unwrap() {
            "macro" => Average::Macro,
            "micro" => Average::Micro,
            "weighted" => Average::Weighted,
            _ => Average::Binary,
        },
        beta: ask["beta"].as_f64().unwrap(),
        zero_division: match ask["zero_division"].as_str().unwrap() {
            "0" => ZeroDivision::Zero,
            "1" => ZeroDivision::One,
            _ => ZeroDivision::Leave,
        },
        answers: Answers::Strict,
        list: texts("labels"),
        positive: ask["positive"].as_str().map(str::to_owned),
    };
    let confusion = Confusion::count(pairs, labels.list.as_deref());
    let measures = [
        ("accuracy", LabelMeasure::Accuracy),
        ("precision", LabelMeasure::Precision),
        ("recall", LabelMeasure::Recall),
        ("f", LabelMeasure::FBeta),
    ];
    for (name, measure) in measures {
        labels.measure = measure;
        match (labels.value(&confusion), &answer[name]) {
            (None, Value::Null) => {}
            (Some(ours), theirs) if !theirs.is_null() => near(ours, theirs, &(name, ask)),
            (ours, theirs) => panic!("{name}: {ours:?} but {theirs}: {ask}"),
        }
    }
}

fn check_distance(ask: &Value, answer: &Value) {
    let pairs: Vec<(String, String)> = serde_json::from_value(ask["pairs"].clone()).unwrap();
    let measures = [
        Measure::Distance,
        Measure::Similarity,
        Measure::NormalisedDistance,
        Measure::NormalisedSimilarity,
    ];
    for (at, (a, b)) in pairs.iter().enumerate() {
        for (kind, edits) in [Edits::Levenshtein, Edits::Indel].into_iter().enumerate() {
            for (place, measure) in measures.into_iter().enumerate() {
                let ours = string_distance(edits, measure, a, b);
                near(
                    ours,
                    &answer["rows"][at][kind][place],
                    &(edits, measure, a, b),
                );
            }
        }
    }
}

fn check_paired(ask: &Value, answer: &Value) {
    let metric = Metric::parse(&json!({"id": "compat:bleu"})).unwrap();
    let rows = rows(ask);
    let other: Vec<String> = serde_json::from_value(ask["other"].clone()).unwrap();
    let statistics = |output: &str, references: &[String]| {
        metric.statistics(&Item::new(output, references)).unwrap()
    };
    let baseline: Vec<_> = rows
        .iter()
        .map(|(output, refs)| statistics(output, refs))
        .collect();
    let system: Vec<_> = rows
        .iter()
        .zip(&other)
        .map(|((_, refs), output)| statistics(output, refs))
        .collect();
    let found = metric
        .paired_bootstrap(&baseline, &system, 200, DEFAULT_SEED)
        .unwrap();
    near(found.baseline, &answer["baseline"], ask);
    near(found.system, &answer["system"], ask);
    let roughly = |ours: f64, name: &str| {
        let theirs = answer[name].as_f64().unwrap();
        assert!((ours - theirs).abs() < 1e-3, "{name}: {ours} but {theirs}");
    };
    roughly(found.mean, "mean");
    roughly(found.half_width, "half_width");
    roughly(found.p, "p");
}

fn check_vader(ask: &Value, answer: &Value) {
    let vader = resources().vader.as_ref().unwrap();
    for (at, text) in ask["texts"].as_array().unwrap().iter().enumerate() {
        let ours = vader.polarity(text.as_str().unwrap());
        let ours = [ours.compound, ours.positive, ours.neutral, ours.negative];
        for (place, ours) in ours.into_iter().enumerate() {
            near(ours, &answer["rows"][at][place], text);
        }
    }
}

fn check_porter(ask: &Value, answer: &Value) {
    for (at, word) in ask["words"].as_array().unwrap().iter().enumerate() {
        let word = word.as_str().unwrap();
        assert_eq!(porter(word), answer["rows"][at].as_str().unwrap(), "{word}");
    }
}

fn check_tokens(ask: &Value, answer: &Value) {
    let tokeniser = tokeniser(ask["tokeniser"].as_str().unwrap());
    for (at, text) in ask["texts"].as_array().unwrap().iter().enumerate() {
        let text = text.as_str().unwrap();
        let line = tokeniser.line(text).unwrap();
        let ours: Vec<&str> = split(&line).collect();
        assert_eq!(
            json!(ours),
            answer["rows"][at],
            "{} {text:?}",
            tokeniser.name()
        );
    }
}
