//! Messages of a call as pages show them: a role and parts of plain text.
//!
//! Everything in here was written by models, users or tools. It becomes text
//! nodes (the templates escape it and make deceptive characters visible); no
//! part of it is ever HTML, a link or an image.

use std::collections::HashMap;

use serde::Serialize;
use serde_json::Value;
use telemetry::{Body, BodyContent};

use crate::guards::marks::{self, Mark, Segment};

/// Bytes of one part on a page; the rest is behind a link.
const PART_BYTES: usize = 64 << 10;

/// One message.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct MessageView {
    role: String,
    parts: Vec<Part>,
}

/// One piece of a message.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Part {
    kind: &'static str,
    text: String,
    name: Option<String>,
    call_id: Option<String>,
    total_bytes: Option<u64>,
    full_href: Option<String>,
    /// The same text in pieces, where guards found something in it.
    segments: Vec<Segment>,
    /// Where in the message it stands, as finds of guards name it: `content[1].text`.
    #[serde(skip)]
    field: String,
    /// The text as it was, where it is shown in another form.
    #[serde(skip)]
    raw: Option<String>,
}

impl Part {
    fn new(kind: &'static str, text: impl Into<String>) -> Self {
        Self {
            kind,
            text: text.into(),
            name: None,
            call_id: None,
            total_bytes: None,
            full_href: None,
            segments: Vec::new(),
            field: String::new(),
            raw: None,
        }
    }

    fn of_field(self, field: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            ..self
        }
    }
}

/// Puts marks of guards on messages. `place` names the message that has a number, as in
/// `messages[2]`.
pub(super) fn mark(
    messages: &mut [MessageView],
    place: impl Fn(usize) -> String,
    marks: &HashMap<String, Vec<Mark>>,
) {
    for (at, message) in messages.iter_mut().enumerate() {
        for part in &mut message.parts {
            let of_part = marks.get(&format!("{}.{}", place(at), part.field));
            let Some(of_part) = of_part.filter(|marks| !marks.is_empty()) else {
                continue;
            };
            if part.total_bytes.is_some() || part.field.is_empty() {
                continue;
            }
            let text = part.raw.take().unwrap_or_else(|| part.text.clone());
            part.segments = marks::segments(&text, of_part);
            part.text = text;
        }
    }
}

/// The messages of a span. `href` leads to all of them, uncut.
pub(super) fn messages(bodies: &[Body], href: &str) -> Vec<MessageView> {
    let mut views: Vec<MessageView> = bodies.iter().map(|body| message(body, href)).collect();
    for part in views.iter_mut().flat_map(|view| &mut view.parts) {
        if part.text.len() > PART_BYTES {
            part.total_bytes = Some(part.text.len() as u64);
            part.full_href = Some(href.to_owned());
            part.text = base::text::cut_bytes(&part.text, PART_BYTES).to_owned();
        }
    }
    views
}

fn message(body: &Body, href: &str) -> MessageView {
    match &body.content {
        BodyContent::Whole(value) => of_json(value),
        BodyContent::Cut(text) => {
            let mut part = Part::new("json", text);
            part.total_bytes = Some(body.bytes);
            part.full_href = Some(href.to_owned());
            MessageView {
                role: "…".to_owned(),
                parts: vec![part],
            }
        }
        BodyContent::Gone => MessageView {
            role: "∅".to_owned(),
            parts: Vec::new(),
        },
    }
}

/// Reads a message of the OpenAI protocol, which the gateway records for every
/// provider; whatever else it is appears as JSON.
fn of_json(value: &Value) -> MessageView {
    match value {
        Value::String(text) => MessageView {
            role: "input".to_owned(),
            parts: vec![Part::new("text", text)],
        },
        Value::Object(map) if map.contains_key("role") => {
            let role = text_of(map.get("role"));
            let mut parts = Vec::new();
            for key in ["reasoning_content", "reasoning"] {
                parts.extend(
                    map.get(key)
                        .and_then(Value::as_str)
                        .filter(|text| !text.is_empty())
                        .map(|text| Part::new("reasoning", text).of_field(key)),
                );
            }
            content_parts(map.get("content"), role == "tool", &mut parts);
            parts.extend(
                map.get("refusal")
                    .and_then(Value::as_str)
                    .map(|text| Part::new("refusal", text).of_field("refusal")),
            );
            let calls = map.get("tool_calls").and_then(Value::as_array);
            let calls = calls.into_iter().flatten().enumerate();
            parts.extend(calls.map(|(at, call)| tool_call(call, at)));
            if let (true, Some(first)) = (role == "tool", parts.first_mut()) {
                first.call_id = map
                    .get("tool_call_id")
                    .and_then(Value::as_str)
                    .map(str::to_owned);
                first.name = map.get("name").and_then(Value::as_str).map(str::to_owned);
            }
            MessageView { role, parts }
        }
        other => MessageView {
            role: "input".to_owned(),
            parts: vec![Part::new("json", pretty(other))],
        },
    }
}

fn content_parts(content: Option<&Value>, is_tool: bool, parts: &mut Vec<Part>) {
    let kind = if is_tool { "tool_result" } else { "text" };
    match content {
        None | Some(Value::Null) => {}
        Some(Value::String(text)) => parts.push(Part::new(kind, text).of_field("content")),
        Some(Value::Array(list)) => {
            let list = list.iter().enumerate();
            parts.extend(list.map(|(at, part)| {
                content_part(part, kind).of_field(format!("content[{at}].text"))
            }));
        }
        Some(other) => parts.push(Part::new("json", pretty(other))),
    }
}

fn content_part(part: &Value, text_kind: &'static str) -> Part {
    let text = |key: &str| part.get(key).and_then(Value::as_str);
    match (text("type"), text("text"), text("refusal")) {
        (Some("text" | "input_text" | "output_text"), Some(words), _) => {
            Part::new(text_kind, words)
        }
        (Some("refusal"), _, Some(words)) => Part::new("refusal", words),
        (Some("image_url"), ..) => Part::new("image", image(part)),
        _ => Part::new("json", pretty(part)),
    }
}

/// What an image is, never the image: its bytes are not shown, its address is not loaded.
fn image(part: &Value) -> String {
    let url = part
        .pointer("/image_url/url")
        .or_else(|| part.get("image_url"))
        .and_then(Value::as_str)
        .unwrap_or_default();
    match url
        .strip_prefix("data:")
        .and_then(|rest| rest.split_once(','))
    {
        Some((media_type, data)) => format!("{media_type} ({} B)", data.len()),
        None => url.to_owned(),
    }
}

fn tool_call(call: &Value, at: usize) -> Part {
    let raw = call.pointer("/function/arguments");
    let arguments = match raw {
        Some(Value::String(text)) => {
            serde_json::from_str(text).map_or_else(|_| text.clone(), |json: Value| pretty(&json))
        }
        Some(other) => pretty(other),
        None => pretty(call),
    };
    let mut part =
        Part::new("tool_call", arguments).of_field(format!("tool_calls[{at}].function.arguments"));
    part.raw = raw.and_then(Value::as_str).map(str::to_owned);
    part.name = call
        .pointer("/function/name")
        .and_then(Value::as_str)
        .map(str::to_owned);
    part.call_id = call.get("id").and_then(Value::as_str).map(str::to_owned);
    part
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default()
}

fn text_of(value: Option<&Value>) -> String {
    match value {
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => String::new(),
    }
}
