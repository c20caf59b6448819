//! A filter's answer for one span in memory, and the meaning of every field.
//!
//! `sql.rs` must agree with this file: its functions for metadata and scores
//! call the same code, and its plain columns are held to it by a property test.

use std::borrow::Cow;

use serde_json::Value;

use super::{Expr, Field, Literal, Op};
use crate::span::{Score, Span};
use crate::text::fold;

/// A span with its current scores, oldest first.
pub(crate) struct Subject<'a> {
    pub(crate) span: &'a Span,
    pub(crate) scores: &'a [Score],
}

/// What a field holds.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum FieldValue<'a> {
    Text(Cow<'a, str>),
    Number(f64),
    Bool(bool),
    /// A score with a number and a word.
    Both(f64, &'a str),
    /// Present, but nothing a literal can equal (an object, a bare score).
    Opaque(Cow<'a, str>),
}

pub(super) fn matches(expr: &Expr, subject: &Subject<'_>) -> bool {
    match expr {
        Expr::And(parts) => parts.iter().all(|part| matches(part, subject)),
        Expr::Or(parts) => parts.iter().any(|part| matches(part, subject)),
        Expr::Not(inner) => !matches(inner, subject),
        Expr::Exists(field) => value_of(field, subject).is_some(),
        Expr::In(field, literals) => {
            let value = value_of(field, subject);
            literals
                .iter()
                .any(|literal| equals(value.as_ref(), literal))
        }
        Expr::Compare(field, op, literal) => {
            compare(value_of(field, subject).as_ref(), *op, literal)
        }
    }
}

fn compare(value: Option<&FieldValue<'_>>, op: Op, literal: &Literal) -> bool {
    match op {
        Op::Equal => equals(value, literal),
        Op::NotEqual => !equals(value, literal),
        Op::Contains | Op::StartsWith => match (value.and_then(FieldValue::text), literal) {
            (Some(text), Literal::Text(part)) => holds_text(text, op, part),
            _ => false,
        },
        Op::Less | Op::AtMost | Op::Greater | Op::AtLeast => {
            match (value.and_then(FieldValue::number), literal) {
                (Some(number), Literal::Number(bound)) => match op {
                    Op::Less => number < *bound,
                    Op::AtMost => number <= *bound,
                    Op::Greater => number > *bound,
                    _ => number >= *bound,
                },
                _ => false,
            }
        }
    }
}

pub(crate) fn holds_text(text: &str, op: Op, part: &str) -> bool {
    let (text, part) = (fold(text), fold(part));
    if op == Op::StartsWith {
        text.starts_with(&part)
    } else {
        text.contains(&part)
    }
}

fn equals(value: Option<&FieldValue<'_>>, literal: &Literal) -> bool {
    let Some(value) = value else { return false };
    match literal {
        Literal::Text(text) => value.text() == Some(text),
        Literal::Number(number) => value.number() == Some(*number),
        Literal::Bool(flag) => *value == FieldValue::Bool(*flag),
    }
}

impl FieldValue<'_> {
    pub(crate) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Both(_, label) => Some(label),
            _ => None,
        }
    }

    pub(crate) fn number(&self) -> Option<f64> {
        match self {
            Self::Number(number) | Self::Both(number, _) => Some(*number),
            _ => None,
        }
    }

    /// The value as a group's name.
    pub(crate) fn shown(&self) -> String {
        match self {
            Self::Text(text) | Self::Opaque(text) => text.clone().into_owned(),
            Self::Both(_, label) => (*label).to_owned(),
            Self::Number(number) => number.to_string(),
            Self::Bool(flag) => flag.to_string(),
        }
    }
}

/// What a field holds for a span; `None` when it is missing.
pub(crate) fn value_of<'a>(field: &Field, subject: &Subject<'a>) -> Option<FieldValue<'a>> {
    let span = subject.span;
    let text = |text: &'a Option<String>| {
        text.as_deref()
            .map(|text| FieldValue::Text(Cow::Borrowed(text)))
    };
    let filled =
        |text: &'a str| (!text.is_empty()).then_some(FieldValue::Text(Cow::Borrowed(text)));
    let owned = |text: String| Some(FieldValue::Text(Cow::Owned(text)));
    let word = |word: &'static str| Some(FieldValue::Text(Cow::Borrowed(word)));
    let count = |count: u64| {
        Some(FieldValue::Number(whole(
            i64::try_from(count).unwrap_or(i64::MAX),
        )))
    };
    match field {
        Field::Name => filled(&span.name),
        Field::Kind => word(span.kind.as_str()),
        Field::Status => word(span.status.as_str()),
        Field::Environment => filled(&span.environment),
        Field::Provider => text(&span.provider),
        Field::Model => text(&span.request_model),
        Field::ResponseModel => text(&span.response_model),
        Field::Prompt => span
            .prompt
            .as_ref()
            .map(|prompt| FieldValue::Text(Cow::Borrowed(prompt.name.as_str()))),
        Field::PromptVersion => span
            .prompt
            .as_ref()?
            .version
            .map(|version| FieldValue::Number(whole(version))),
        Field::Session => text(&span.session_id),
        Field::SessionStep => span
            .session_step
            .map(|step| FieldValue::Number(whole(step))),
        Field::User => text(&span.user_ref),
        Field::Key => text(&span.key_id),
        Field::Trace => owned(span.trace_id.to_string()),
        Field::Span => owned(span.span_id.to_string()),
        Field::ErrorType => text(&span.error_type),
        Field::Error => text(&span.error_message),
        Field::FinishReason => span
            .finish_reasons
            .first()
            .map(|reason| FieldValue::Text(Cow::Borrowed(reason.as_str()))),
        Field::Release => text(&span.release_digest),
        Field::App => attribute(&span.attrs, "/app/name"),
        Field::Experiment => attribute(&span.attrs, "/experiment/name"),
        Field::Arm => attribute(&span.attrs, "/experiment/arm"),
        Field::Streamed => Some(FieldValue::Bool(span.streamed)),
        Field::LatencyMs => Some(FieldValue::Number(whole(span.latency_us()) / 1000.0)),
        Field::TtftMs => span
            .ttft_us
            .map(|us| FieldValue::Number(whole(us) / 1000.0)),
        Field::CostUsd => span
            .cost
            .map(|cost| FieldValue::Number(whole(cost.0) / 1e9)),
        Field::InputTokens => count(span.usage.input),
        Field::OutputTokens => count(span.usage.output),
        Field::TotalTokens => count(span.usage.input.saturating_add(span.usage.output)),
        Field::CacheReadTokens => count(span.usage.cache_read),
        Field::CacheWriteTokens => count(span.usage.cache_write),
        Field::ReasoningTokens => count(span.usage.reasoning),
        Field::Tag(name) => span
            .tags
            .get(name)
            .map(|tag| FieldValue::Text(Cow::Borrowed(tag.as_str()))),
        Field::Metadata(path) => json_value(&span.metadata, path).map(|value| match value {
            FieldValue::Text(text) => FieldValue::Text(Cow::Owned(text.into_owned())),
            other => other,
        }),
        Field::Score(name) => {
            let current = subject.scores.iter().rev();
            let applies = |score: &&Score| {
                score.name == *name
                    && (span.parent.is_none() || score.span_id == Some(span.span_id))
            };
            current.into_iter().find(applies).map(score_value)
        }
    }
}

/// A text among a span's attributes; anything but text counts as missing.
fn attribute<'a>(attrs: &'a Value, path: &str) -> Option<FieldValue<'a>> {
    let text = attrs.pointer(path)?.as_str()?;
    Some(FieldValue::Text(Cow::Borrowed(text)))
}

pub(crate) fn score_value(score: &Score) -> FieldValue<'_> {
    match (score.value, &score.label) {
        (Some(number), Some(label)) => FieldValue::Both(number, label),
        (Some(number), None) => FieldValue::Number(number),
        (None, Some(label)) => FieldValue::Text(Cow::Borrowed(label)),
        (None, None) => FieldValue::Opaque(Cow::Borrowed("")),
    }
}

/// What a dotted path finds in a JSON object; JSON null counts as missing.
pub(crate) fn json_value<'a>(json: &'a Value, path: &str) -> Option<FieldValue<'a>> {
    let found = path
        .split('.')
        .try_fold(json, |value, key| value.get(key))?;
    match found {
        Value::Null => None,
        Value::Bool(flag) => Some(FieldValue::Bool(*flag)),
        Value::Number(number) => number.as_f64().map(FieldValue::Number),
        Value::String(text) => Some(FieldValue::Text(Cow::Borrowed(text))),
        other => Some(FieldValue::Opaque(Cow::Owned(other.to_string()))),
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "SQLite's own conversion of an INTEGER operand does the same"
)]
fn whole(number: i64) -> f64 {
    number as f64
}
