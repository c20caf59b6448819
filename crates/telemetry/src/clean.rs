//! Makes a span or score safe to store: NUL replaced, giants cut, numbers that
//! SQLite or a double could not hold clamped. Every cut is named in
//! `truncated`.

use serde_json::{Value, json};

use crate::limits;
use crate::span::{Score, Span};

/// Times beyond this (the year 4800) are clamped: differences and doubles stay exact.
const FAR_US: i64 = 90_000_000_000_000_000;

struct Cleaner<'a> {
    cut: &'a mut Vec<String>,
}

impl Cleaner<'_> {
    fn text(&mut self, field: &str, text: &mut String, bytes: usize) {
        if text.contains('\0') {
            *text = text.replace('\0', "\u{fffd}");
        }
        if text.len() > bytes {
            *text = format!("{}…", base::text::cut_bytes(text, bytes - '…'.len_utf8()));
            self.note(field);
        }
    }

    fn optional(&mut self, field: &str, text: &mut Option<String>) {
        if let Some(text) = text {
            self.text(field, text, limits::TEXT_BYTES);
        }
    }

    fn json(&mut self, field: &str, value: &mut Value) {
        let bytes = if value.is_null() {
            0
        } else {
            value.to_string().len()
        };
        if bytes > limits::JSON_BYTES {
            *value = json!({ "truncated": { "bytes": bytes } });
            self.note(field);
        }
    }

    fn list<T>(&mut self, field: &str, items: &mut Vec<T>, most: usize) {
        if items.len() > most {
            items.truncate(most);
            self.note(field);
        }
    }

    fn note(&mut self, field: &str) {
        if !self.cut.iter().any(|known| known == field) {
            self.cut.push(field.to_owned());
        }
    }
}

pub(crate) fn clean_span(span: &mut Span) {
    let mut cut = std::mem::take(&mut span.truncated);
    let mut cleaner = Cleaner { cut: &mut cut };
    span.start_us = span.start_us.clamp(-FAR_US, FAR_US);
    span.end_us = span.end_us.clamp(-FAR_US, FAR_US);
    span.ttft_us = span.ttft_us.map(|us| us.clamp(-FAR_US, FAR_US));
    cleaner.text("name", &mut span.name, limits::TEXT_BYTES);
    cleaner.text("environment", &mut span.environment, limits::TEXT_BYTES);
    if let Some(prompt) = &mut span.prompt {
        cleaner.text("prompt", &mut prompt.name, limits::TEXT_BYTES);
        cleaner.optional("prompt", &mut prompt.digest);
    }
    for (field, text) in [
        ("provider", &mut span.provider),
        ("request_model", &mut span.request_model),
        ("response_model", &mut span.response_model),
        ("session_id", &mut span.session_id),
        ("user_ref", &mut span.user_ref),
        ("key_id", &mut span.key_id),
        ("price_version", &mut span.price_version),
        ("error_type", &mut span.error_type),
        ("plan_revision", &mut span.plan_revision),
        ("release_digest", &mut span.release_digest),
    ] {
        cleaner.optional(field, text);
    }
    if let Some(message) = &mut span.error_message {
        cleaner.text("error_message", message, limits::LONG_TEXT_BYTES);
    }
    for (field, value) in [
        ("metadata", &mut span.metadata),
        ("parameters", &mut span.parameters),
        ("attrs", &mut span.attrs),
    ] {
        cleaner.json(field, value);
    }
    cleaner.list("finish_reasons", &mut span.finish_reasons, limits::TAGS);
    span.finish_reasons
        .iter_mut()
        .for_each(|reason| cleaner.text("finish_reasons", reason, limits::TEXT_BYTES));
    clean_tags(span, &mut cleaner);
    for (field, bodies) in [
        ("input", &mut span.input),
        ("output", &mut span.output),
        ("tools", &mut span.tools),
    ] {
        cleaner.list(field, bodies, limits::BODIES);
    }
    span.truncated = cut;
}

fn clean_tags(span: &mut Span, cleaner: &mut Cleaner<'_>) {
    let tags = std::mem::take(&mut span.tags);
    if tags.len() > limits::TAGS {
        cleaner.note("tags");
    }
    for (mut name, mut value) in tags.into_iter().take(limits::TAGS) {
        cleaner.text("tags", &mut name, limits::TEXT_BYTES);
        cleaner.text("tags", &mut value, limits::TEXT_BYTES);
        span.tags.insert(name, value);
    }
}

pub(crate) fn clean_score(score: &mut Score) {
    let mut cut = Vec::new();
    let mut cleaner = Cleaner { cut: &mut cut };
    cleaner.text("name", &mut score.name, limits::TEXT_BYTES);
    cleaner.optional("label", &mut score.label);
    cleaner.optional("author", &mut score.author);
    if let Some(comment) = &mut score.comment {
        cleaner.text("comment", comment, limits::LONG_TEXT_BYTES);
    }
    // SQLite stores NaN as NULL; an infinite score has no meaning either.
    score.value = score.value.filter(|value| value.is_finite());
    score.at_us = score.at_us.clamp(-FAR_US, FAR_US);
}

/// Rough memory and disk weight of a span, for the bounds of the queue.
pub(crate) fn weight(span: &Span) -> usize {
    let bodies = span.input.iter().chain(&span.output).chain(&span.tools);
    let json = bodies
        .chain([&span.metadata, &span.parameters, &span.attrs])
        .map(json_weight)
        .sum::<usize>();
    let tags: usize = span
        .tags
        .iter()
        .map(|(name, value)| name.len() + value.len())
        .sum();
    512 + json + tags + span.error_message.as_ref().map_or(0, String::len)
}

fn json_weight(value: &Value) -> usize {
    match value {
        Value::String(text) => 16 + text.len(),
        Value::Array(items) => 16 + items.iter().map(json_weight).sum::<usize>(),
        Value::Object(map) => {
            16 + map
                .iter()
                .map(|(key, value)| 16 + key.len() + json_weight(value))
                .sum::<usize>()
        }
        _ => 16,
    }
}
