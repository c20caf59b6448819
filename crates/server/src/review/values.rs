//! What a rater may answer: each value checked against its question, each problem with its place.

use std::collections::{BTreeMap, HashSet};

use db::Problem;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Number, Value};

use super::document::{Question, QuestionKind, QueueDocument};
use super::snapshot::Snapshot;
use crate::evaluators::Problems;

/// Answers by question.
pub type Values = BTreeMap<String, Value>;

const MOST_SPANS: usize = 1000;
/// Bytes of a free text.
const TEXT_BYTES: usize = 32 << 10;
/// Bytes of an answer or a correction.
const ANSWER_BYTES: usize = 256 << 10;

/// A marked place in a text, in characters.
#[derive(
    Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(deny_unknown_fields)]
pub struct Span {
    /// The first character of it.
    pub start: usize,
    /// The first character behind it.
    pub end: usize,
    /// What it is.
    pub label: String,
}

/// Checks what a rater answered and gives it its one spelling.
///
/// # Errors
/// Everything that is wrong with it, as `/values/QUESTION…`.
pub fn check(
    document: &QueueDocument,
    snapshot: &Snapshot,
    values: &Values,
) -> Result<Values, Vec<Problem>> {
    let mut problems = Problems::default();
    let mut checked = Values::new();
    for name in values.keys() {
        if document.question(name).is_none() {
            problems.add(place(name), format!("the queue asks no question {name:?}"));
        }
    }
    for question in &document.questions {
        let at = place(&question.name);
        let given = values.get(&question.name);
        if !question.applies_to(snapshot) {
            if given.is_some_and(|value| !is_empty(value)) {
                problems.add(at, "this question is not about an item like this one");
            }
            continue;
        }
        match given.filter(|value| !is_empty(value)) {
            // Nothing marked and nothing chosen is an answer too.
            None if given.is_some() && takes_nothing(question.kind) => {
                checked.insert(question.name.clone(), Value::Array(Vec::new()));
            }
            None if question.required && !takes_nothing(question.kind) => {
                problems.add(at, "this question needs an answer");
            }
            None if question.required => {
                problems.add(at, "this question needs an answer; an empty list is one");
            }
            None => {}
            Some(value) => {
                if let Some(value) = answer(question, snapshot, value, &at, &mut problems) {
                    checked.insert(question.name.clone(), value);
                }
            }
        }
    }
    if checked.is_empty() && problems.0.is_empty() {
        problems.add(
            "/values",
            "there is no answer at all; an item can be skipped",
        );
    }
    problems.into_result(checked)
}

fn place(name: &str) -> String {
    format!("/values/{}", name.replace('~', "~0").replace('/', "~1"))
}

fn takes_nothing(kind: QuestionKind) -> bool {
    matches!(kind, QuestionKind::Multi | QuestionKind::Spans)
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.trim().is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(_) | Value::Bool(_) | Value::Number(_) => false,
    }
}

fn answer(
    question: &Question,
    snapshot: &Snapshot,
    value: &Value,
    at: &str,
    problems: &mut Problems,
) -> Option<Value> {
    match question.kind {
        QuestionKind::Choice => choice(&question.options, value, at, problems),
        QuestionKind::Multi => multi(&question.options, value, at, problems),
        QuestionKind::Rating => rating(question, value, at, problems),
        QuestionKind::Text => text(value, TEXT_BYTES, at, problems),
        QuestionKind::Spans => spans(question, snapshot, value, at, problems),
        QuestionKind::Pairwise => pairwise(question, value, at, problems),
        QuestionKind::Expected => whole(value, at, problems),
        QuestionKind::Correction => whole(value, at, problems),
    }
}

fn choice(options: &[String], value: &Value, at: &str, problems: &mut Problems) -> Option<Value> {
    match value.as_str() {
        Some(text) if options.iter().any(|option| option == text) => Some(value.clone()),
        _ => {
            problems.add(at, format!("the answer is one of {}", options.join(", ")));
            None
        }
    }
}

fn multi(options: &[String], value: &Value, at: &str, problems: &mut Problems) -> Option<Value> {
    let Some(items) = value.as_array() else {
        problems.add(at, "the answer is a list of options");
        return None;
    };
    let before = problems.0.len();
    let mut chosen = HashSet::new();
    for (index, item) in items.iter().enumerate() {
        let at = format!("{at}/{index}");
        if choice(options, item, &at, problems).is_some() && !chosen.insert(item.as_str()) {
            problems.add(at, "this option is chosen twice");
        }
    }
    let ordered = options
        .iter()
        .filter(|option| chosen.contains(&Some(option.as_str())));
    let ordered = ordered
        .map(|option| Value::String(option.clone()))
        .collect();
    (problems.0.len() == before).then_some(Value::Array(ordered))
}

fn rating(question: &Question, value: &Value, at: &str, problems: &mut Problems) -> Option<Value> {
    let scale = question.scale();
    // A form sends text.
    let given = value
        .as_f64()
        .or_else(|| value.as_str()?.trim().parse().ok());
    let near = |grade: &f64| given.is_some_and(|given| (given - grade).abs() < 1e-9);
    let found = scale.grades().into_iter().find(near);
    if found.is_none() {
        let message = format!(
            "a grade is a number from {} to {} in steps of {}",
            scale.min, scale.max, scale.step
        );
        problems.add(at, message);
    }
    Some(Value::Number(number(found?)?))
}

/// A number, a whole one without a fraction.
pub(super) fn number(value: f64) -> Option<Number> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    #[expect(
        clippy::cast_possible_truncation,
        reason = "checked to be whole and small"
    )]
    if value.fract() == 0.0 && value.abs() < EXACT {
        Some(Number::from(value as i64))
    } else {
        Number::from_f64(value)
    }
}

fn text(value: &Value, most: usize, at: &str, problems: &mut Problems) -> Option<Value> {
    match value.as_str() {
        Some(text) if text.len() > most || text.contains('\0') => {
            let message = format!("a text has at most {} KiB and no NUL", most >> 10);
            problems.add(at, message);
            None
        }
        Some(text) => Some(Value::String(text.to_owned())),
        None => {
            problems.add(at, "the answer is a text");
            None
        }
    }
}

/// An answer as an application would give it: a text or any JSON.
fn whole(value: &Value, at: &str, problems: &mut Problems) -> Option<Value> {
    let written = value.to_string();
    if written.len() > ANSWER_BYTES || written.contains("\\u0000") {
        problems.add(at, "an answer has at most 256 KiB and no NUL");
        return None;
    }
    Some(value.clone())
}

fn spans(
    question: &Question,
    snapshot: &Snapshot,
    value: &Value,
    at: &str,
    problems: &mut Problems,
) -> Option<Value> {
    let Some(items) = value.as_array() else {
        problems.add(at, "the answer is a list of {start, end, label}");
        return None;
    };
    if items.len() > MOST_SPANS {
        problems.add(at, format!("at most {MOST_SPANS} places can be marked"));
        return None;
    }
    let before = problems.0.len();
    let chars = snapshot.text(question.target()).chars().count();
    let mut found: Vec<Span> = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let at = format!("{at}/{index}");
        match Span::deserialize(item) {
            Err(error) => problems.add(at, error.to_string()),
            Ok(span) if span.start >= span.end => {
                problems.add(format!("{at}/end"), "a place ends behind its beginning");
            }
            Ok(span) if span.end > chars => {
                let message = format!("the text has {chars} characters");
                problems.add(format!("{at}/end"), message);
            }
            Ok(span) if !question.options.contains(&span.label) => {
                let message = format!("the label is one of {}", question.options.join(", "));
                problems.add(format!("{at}/label"), message);
            }
            Ok(span) if found.contains(&span) => problems.add(at, "this place is marked twice"),
            Ok(span) => found.push(span),
        }
    }
    found.sort();
    let value = serde_json::to_value(found).ok()?;
    (problems.0.len() == before).then_some(value)
}

fn pairwise(
    question: &Question,
    value: &Value,
    at: &str,
    problems: &mut Problems,
) -> Option<Value> {
    match value.as_str() {
        Some("a" | "b") => Some(value.clone()),
        Some("tie") if question.ties => Some(value.clone()),
        _ => {
            let words = if question.ties {
                "a, b or tie"
            } else {
                "a or b"
            };
            problems.add(at, format!("the answer is {words}"));
            None
        }
    }
}

/// The same answers for the pair in the other order.
pub(super) fn swapped(document: &QueueDocument, mut values: Values) -> Values {
    for question in &document.questions {
        if question.kind == QuestionKind::Pairwise
            && let Some(value) = values.get_mut(&question.name)
        {
            *value = match value.as_str() {
                Some("a") => Value::String("b".to_owned()),
                Some("b") => Value::String("a".to_owned()),
                _ => value.clone(),
            };
        }
    }
    values
}

/// Whether two raters say the same.
pub(super) fn is_same(question: &Question, one: &Value, other: &Value) -> bool {
    match (question.kind, one.as_f64(), other.as_f64()) {
        (QuestionKind::Rating, Some(one), Some(other)) => {
            (one - other).abs() <= question.tolerance.unwrap_or(0.0) + 1e-9
        }
        (QuestionKind::Expected | QuestionKind::Correction, ..) => {
            match (one.as_str(), other.as_str()) {
                (Some(one), Some(other)) => one.trim() == other.trim(),
                _ => one == other,
            }
        }
        _ => one == other,
    }
}
