//! What a rater sees of an item, fixed when the item came in: a rater needs no right to
//! read traces or datasets, and an item reads the same for everybody who judges it.
//!
//! Places in texts count characters (Unicode scalar values) of [`Snapshot::text`].

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::document::Target;
use crate::datasets::{Example, Mark};

/// The largest snapshot, in bytes of JSON.
pub(super) const MOST_BYTES: usize = 512 << 10;

/// What every rater sees of an item.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "ReviewSnapshot")]
pub struct Snapshot {
    /// What was asked.
    pub input: Value,
    /// What was answered; none where there is nothing to judge yet, and for a pair.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<Value>,
    /// Two answers to choose from; empty unless the item is a pair.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub answers: Vec<Value>,
    /// Texts that an answer may rest on.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub context: Vec<String>,
    /// What should have been answered, as far as that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected: Option<Value>,
}

impl Snapshot {
    /// The words of the question or the answer, as spans count them.
    pub fn text(&self, target: Target) -> String {
        match target {
            Target::Input => words(&self.input),
            Target::Output => self.output.as_ref().map(words).unwrap_or_default(),
        }
    }

    /// The same pair in the other order.
    pub(super) fn swapped(mut self) -> Self {
        self.answers.reverse();
        self
    }
}

/// The words of a value: of a text itself, of messages what they say, of anything else its JSON.
pub fn words(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(messages)
            if !messages.is_empty() && messages.iter().all(|one| said(one).is_some()) =>
        {
            let only = messages.len() == 1;
            let line = |message: &Value| {
                let text = said(message).unwrap_or_default();
                match message.get("role").and_then(Value::as_str) {
                    Some(role) if !only => format!("{role}: {text}"),
                    _ => text,
                }
            };
            messages.iter().map(line).collect::<Vec<_>>().join("\n\n")
        }
        other => match said(other) {
            Some(text) => text,
            None => serde_json::to_string_pretty(other).unwrap_or_default(),
        },
    }
}

/// The text of a message; `None` for what is no message, and for one that says more than text.
fn said(message: &Value) -> Option<String> {
    let object = message.as_object()?;
    object.get("role")?.as_str()?;
    if object
        .get("tool_calls")
        .is_some_and(|calls| !calls.is_null())
    {
        return None;
    }
    match object.get("content")? {
        Value::String(text) => Some(text.clone()),
        Value::Array(parts) => parts
            .iter()
            .map(|part| part.get("text")?.as_str().map(str::to_owned))
            .collect::<Option<Vec<_>>>()
            .map(|parts| parts.join("\n")),
        _ => None,
    }
}

/// An item as it comes in.
#[derive(Debug, Clone)]
pub(super) struct Taken {
    pub(super) snapshot: Snapshot,
    /// What raters of a blind queue do not see, and where it comes from.
    pub(super) facts: Value,
}

/// An item out of an example and what was answered to it.
pub(super) fn of_example(example: Example, mask: bool) -> Taken {
    let facts = json!({
        "example": example.id, "metadata": example.metadata, "source": example.source,
        "verdict": example.verdict, "split": example.split,
    });
    let example = if mask { masked(example) } else { example };
    let snapshot = Snapshot {
        input: example.input,
        output: example.source.answer,
        answers: Vec::new(),
        context: example.context,
        expected: example.expected,
    };
    Taken { snapshot, facts }
}

/// What is not blind, as raters get it.
pub(super) fn facts_for_raters(facts: &Value, mask: bool) -> Map<String, Value> {
    let mut shown = Map::new();
    for field in ["metadata", "candidates", "verdict"] {
        if let Some(value) = facts.get(field).filter(|value| !value.is_null()) {
            let mut value = value.clone();
            if mask {
                mask_value(&mut value);
            }
            shown.insert(field.to_owned(), value);
        }
    }
    shown
}

/// The example without the places that are marked and those that look like personal data.
fn masked(example: Example) -> Example {
    let marks = example.marks.clone();
    let Ok(mut value) = serde_json::to_value(&example) else {
        return example;
    };
    if let Some(map) = value.as_object_mut() {
        map.remove("marks");
    }
    apply_marks(&mut value, marks);
    for field in ["input", "expected", "context", "metadata"] {
        if let Some(part) = value.get_mut(field) {
            mask_value(part);
        }
    }
    if let Some(answer) = value.pointer_mut("/source/answer") {
        mask_value(answer);
    }
    serde_json::from_value(value).unwrap_or_default()
}

fn apply_marks(value: &mut Value, mut marks: Vec<Mark>) {
    // From the end, so that places before stay where they are.
    marks.sort_by_key(|mark| std::cmp::Reverse(mark.start));
    for mark in marks {
        if let Some(Value::String(text)) = value.pointer_mut(&mark.path) {
            let chars: Vec<char> = text.chars().collect();
            if mark.start < mark.end && mark.end <= chars.len() {
                let before: String = chars[..mark.start].iter().collect();
                let after: String = chars[mark.end..].iter().collect();
                *text = format!("{before}[{}]{after}", mark.kind);
            }
        }
    }
}

/// Replaces what looks like personal data in every text of a value.
pub(super) fn mask_value(value: &mut Value) {
    match value {
        Value::String(text) => *text = mask_text(text),
        Value::Array(items) => items.iter_mut().for_each(mask_value),
        Value::Object(map) => map.values_mut().for_each(mask_value),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Replaces mail addresses, telephone numbers, card numbers and My Numbers by what they are.
/// Rough on purpose: what it takes for one too many costs a rater little.
fn mask_text(text: &str) -> String {
    let text = mask_numbers(text);
    mask_mail(&text)
}

fn mask_mail(text: &str) -> String {
    let is_local = |c: char| c.is_ascii_alphanumeric() || "._%+-".contains(c);
    let is_domain = |c: char| c.is_ascii_alphanumeric() || ".-".contains(c);
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('@') {
        let (before, after) = (&rest[..at], &rest[at + 1..]);
        let local = before.len()
            - before
                .chars()
                .rev()
                .take_while(|c| is_local(*c))
                .map(char::len_utf8)
                .sum::<usize>();
        let domain: String = after.chars().take_while(|c| is_domain(*c)).collect();
        let domain = domain.trim_end_matches(['.', '-']);
        if local < at && domain.contains('.') {
            out.push_str(&before[..local]);
            out.push_str("[email]");
            rest = &after[domain.len()..];
        } else {
            out.push_str(&rest[..=at]);
            rest = after;
        }
    }
    out + rest
}

fn mask_numbers(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let joined = at > 0 && chars[at - 1].is_ascii_alphanumeric();
        let end = if joined { at } else { number_end(&chars, at) };
        let digits: Vec<u32> = chars[at..end].iter().filter_map(|c| digit(*c)).collect();
        match sort_of_number(&digits, chars[at]) {
            Some(sort) => {
                out.push_str(sort);
                at = end;
            }
            None => {
                out.extend(&chars[at..end.max(at + 1)]);
                at = end.max(at + 1);
            }
        }
    }
    out
}

/// Where the number that begins here ends: digits, single separators between them.
fn number_end(chars: &[char], start: usize) -> usize {
    let mut end = start;
    let mut at = start;
    let mut gap = 0;
    while let Some(&c) = chars.get(at) {
        if digit(c).is_some() {
            end = at + 1;
            gap = 0;
        } else if matches!(c, '-' | ' ' | '(' | ')' | '+' | '−' | 'ー' | '－') && gap < 2 {
            // A number may begin with `+` or a bracket, and nothing else but a digit.
            if at == start && !matches!(c, '+' | '(') {
                return start;
            }
            gap += 1;
        } else {
            break;
        }
        at += 1;
    }
    // `123abc` is a word.
    match chars.get(end) {
        Some(c) if c.is_ascii_alphanumeric() => start,
        _ => end,
    }
}

fn digit(c: char) -> Option<u32> {
    match c {
        '０'..='９' => Some(c as u32 - '０' as u32),
        other => other.to_digit(10),
    }
}

fn sort_of_number(digits: &[u32], first: char) -> Option<&'static str> {
    let is_dialled = first == '+' || first == '(' || digits.first() == Some(&0);
    match digits.len() {
        9..=15 if is_dialled => Some("[phone]"),
        12 => Some("[number]"),
        13..=19 if luhn(digits) => Some("[card]"),
        _ => None,
    }
}

fn luhn(digits: &[u32]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(place, digit)| match place % 2 {
            0 => *digit,
            _ if *digit > 4 => digit * 2 - 9,
            _ => digit * 2,
        })
        .sum();
    sum.is_multiple_of(10)
}
