//! Anthropic messages, translated from and to OpenAI chat completions.
//!
//! What has a counterpart is translated; what has none and would change the
//! answer is refused with the field's name, never dropped in silence. Three
//! fields of Anthropic's own are understood in the request: `thinking`, `top_k`
//! and `cache_control` on parts, messages and tools. Thinking comes back as
//! `reasoning_content` (text) and `thinking_blocks` (Anthropic's blocks, signature
//! included); sent back in an assistant message, `thinking_blocks` reach Anthropic
//! unchanged, which multi-turn tool use with thinking needs.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use base::Usage;
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, Request};
use http_body_util::Full;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::egress::EgressError;
use crate::error::ApiError;
use crate::failure::Failure;
use crate::meter::{Meter, usage_json};
use crate::plan::Provider;
use crate::providers::Piece;
use crate::sse::Event;

/// Anthropic wants a limit; this one is sent when the caller gives none.
const DEFAULT_MAX_TOKENS: u64 = 4096;

/// Fields that may be left out without changing what the model answers.
const HARMLESS: [&str; 13] = [
    "model",
    "messages",
    "stream",
    "stream_options",
    "metadata",
    "store",
    "seed",
    "service_tier",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "meguri",
    "user",
];

/// A request to a path of the API.
pub(crate) fn request(
    provider: &Provider,
    path: &str,
    body: Option<Bytes>,
) -> Result<Request<Full<Bytes>>, EgressError> {
    let base = provider
        .base_url
        .as_str()
        .trim_end_matches('/')
        .trim_end_matches("/v1");
    let bad = || EgressError::BadTarget(provider.name.clone());
    let builder = if body.is_some() {
        Request::post(format!("{base}/v1/{path}"))
    } else {
        Request::get(format!("{base}/v1/{path}"))
    };
    let mut request = builder
        .body(Full::new(body.unwrap_or_default()))
        .map_err(|_| bad())?;
    let headers = request.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(
        ACCEPT,
        HeaderValue::from_static("application/json, text/event-stream"),
    );
    headers.insert(
        HeaderName::from_static("anthropic-version"),
        HeaderValue::from_static("2023-06-01"),
    );
    if let Some(credential) = &provider.credential {
        let mut value = HeaderValue::from_str(credential.expose()).map_err(|_| bad())?;
        value.set_sensitive(true);
        headers.insert(HeaderName::from_static("x-api-key"), value);
    }
    Ok(request)
}

/// Translates a chat completion request. `messages` has the prompt's messages
/// and the caller's.
///
/// # Errors
/// Names the field that has no counterpart or is wrong.
pub(crate) fn translate_request(
    model: &str,
    fields: &Map<String, Value>,
    messages: &[Value],
    stream: bool,
) -> Result<Value, ApiError> {
    let mut out = Map::new();
    out.insert("model".to_owned(), model.into());
    out.insert("max_tokens".to_owned(), max_tokens(fields)?.into());
    let (system, messages) = translate_messages(messages)?;
    if !system.is_empty() {
        out.insert("system".to_owned(), system.into());
    }
    out.insert("messages".to_owned(), messages.into());
    for (name, value) in fields {
        if !value.is_null() {
            translate_field(name, value, &mut out)?;
        }
    }
    translate_tool_choice(fields, &mut out)?;
    if stream {
        out.insert("stream".to_owned(), true.into());
    }
    Ok(Value::Object(out))
}

fn max_tokens(fields: &Map<String, Value>) -> Result<u64, ApiError> {
    for name in ["max_completion_tokens", "max_tokens"] {
        if let Some(value) = fields.get(name).filter(|value| !value.is_null()) {
            let number = value.as_u64().filter(|number| *number > 0);
            return number.ok_or_else(|| {
                ApiError::invalid(name, format!("{name:?} must be a whole number above 0"))
            });
        }
    }
    Ok(DEFAULT_MAX_TOKENS)
}

fn translate_field(
    name: &str,
    value: &Value,
    out: &mut Map<String, Value>,
) -> Result<(), ApiError> {
    let wrong = |expected: &str| ApiError::invalid(name, format!("{name:?} must be {expected}"));
    let none = |hint: &str| {
        ApiError::invalid(
            name,
            format!("the Anthropic protocol has no {name:?}{hint}"),
        )
    };
    let off = |value: &Value| value == &json!(false) || value.as_f64() == Some(0.0);
    match name {
        "max_tokens" | "max_completion_tokens" | "tool_choice" | "parallel_tool_calls" => {}
        // OpenAI's scale ends at 2, Anthropic's at 1; the hottest stays the hottest.
        "temperature" => {
            let number = value
                .as_f64()
                .filter(|t| (0.0..=2.0).contains(t))
                .ok_or_else(|| wrong("a number from 0 to 2"))?;
            let clamped = if number > 1.0 {
                json!(1.0)
            } else {
                value.clone()
            };
            out.insert(name.to_owned(), clamped);
        }
        "top_p" | "top_k" | "thinking" => {
            out.insert(name.to_owned(), value.clone());
        }
        "stop" => {
            let list = if value.is_string() {
                json!([value])
            } else {
                value.clone()
            };
            out.insert("stop_sequences".to_owned(), list);
        }
        "tools" => {
            let tools = value.as_array().ok_or_else(|| wrong("a list of tools"))?;
            let tools: Result<Vec<Value>, ApiError> =
                tools.iter().enumerate().map(translate_tool).collect();
            out.insert("tools".to_owned(), tools?.into());
        }
        "user" => {
            out.insert("metadata".to_owned(), json!({ "user_id": value }));
        }
        "n" if value.as_u64() == Some(1) => {}
        "n" => return Err(none("; send the request several times instead")),
        "response_format" if value["type"] == "text" => {}
        "response_format" => {
            return Err(none(
                "; describe the format in the system message, or use a tool with tool_choice",
            ));
        }
        "logprobs" | "top_logprobs" | "frequency_penalty" | "presence_penalty" if off(value) => {}
        "logit_bias" if value.as_object().is_some_and(Map::is_empty) => {}
        "reasoning_effort" => return Err(none("; send \"thinking\" with a budget instead")),
        _ if HARMLESS.contains(&name) => {}
        _ => return Err(none("")),
    }
    Ok(())
}

fn translate_tool((index, tool): (usize, &Value)) -> Result<Value, ApiError> {
    let function = &tool["function"];
    let Some(name) = function["name"]
        .as_str()
        .filter(|_| tool["type"] == "function")
    else {
        return Err(ApiError::invalid(
            format!("tools[{index}]"),
            "only tools of type \"function\" with a name can be used",
        ));
    };
    let mut out = Map::new();
    out.insert("name".to_owned(), name.into());
    if let Some(description) = function["description"].as_str() {
        out.insert("description".to_owned(), description.into());
    }
    let empty = || json!({ "type": "object", "properties": {} });
    let schema = function
        .get("parameters")
        .filter(|schema| !schema.is_null())
        .cloned()
        .unwrap_or_else(empty);
    out.insert("input_schema".to_owned(), schema);
    copy_cache_control(tool, &mut out);
    Ok(Value::Object(out))
}

fn translate_tool_choice(
    fields: &Map<String, Value>,
    out: &mut Map<String, Value>,
) -> Result<(), ApiError> {
    let choice = fields.get("tool_choice").unwrap_or(&Value::Null);
    let wrong = || {
        ApiError::invalid(
            "tool_choice",
            "\"tool_choice\" must be none, auto, required or a named function",
        )
    };
    let mut translated = match choice {
        Value::Null => None,
        Value::String(word) => Some(match word.as_str() {
            "auto" => json!({ "type": "auto" }),
            "none" => json!({ "type": "none" }),
            "required" => json!({ "type": "any" }),
            _ => return Err(wrong()),
        }),
        other => {
            let name = other["function"]["name"].as_str().ok_or_else(wrong)?;
            Some(json!({ "type": "tool", "name": name }))
        }
    };
    if !out.contains_key("tools") {
        return Ok(());
    }
    let one_at_a_time = fields.get("parallel_tool_calls") == Some(&Value::Bool(false));
    if one_at_a_time {
        let choice = translated.get_or_insert_with(|| json!({ "type": "auto" }));
        if choice["type"] != "none" {
            choice["disable_parallel_tool_use"] = true.into();
        }
    }
    if let Some(choice) = translated {
        out.insert("tool_choice".to_owned(), choice);
    }
    Ok(())
}

/// System blocks, and messages in which user and assistant alternate.
fn translate_messages(messages: &[Value]) -> Result<(Vec<Value>, Vec<Value>), ApiError> {
    let mut system = Vec::new();
    let mut out: Vec<(&str, Vec<Value>)> = Vec::new();
    for (index, message) in messages.iter().enumerate() {
        let place = format!("messages[{index}]");
        let (role, blocks) = match message["role"].as_str() {
            Some("system" | "developer") => {
                system.extend(content_blocks(message, &place)?);
                continue;
            }
            Some("user") => ("user", content_blocks(message, &place)?),
            Some("assistant") => ("assistant", assistant_blocks(message, &place)?),
            // Results of tools go back as the user's words.
            Some("tool") => ("user", vec![tool_result(message, &place)?]),
            _ => {
                let roles = "the role must be system, developer, user, assistant or tool";
                return Err(ApiError::invalid(format!("{place}.role"), roles));
            }
        };
        match out.last_mut() {
            Some((last, joined)) if *last == role => joined.extend(blocks),
            _ => out.push((role, blocks)),
        }
    }
    let messages = out.into_iter().filter(|(_, blocks)| !blocks.is_empty());
    let messages = messages.map(|(role, blocks)| json!({ "role": role, "content": blocks }));
    Ok((system, messages.collect()))
}

fn content_blocks(message: &Value, place: &str) -> Result<Vec<Value>, ApiError> {
    let mut blocks = match &message["content"] {
        Value::Null => Vec::new(),
        // Empty text blocks are an error there.
        Value::String(text) if text.is_empty() => Vec::new(),
        Value::String(text) => vec![json!({ "type": "text", "text": text })],
        Value::Array(parts) => {
            let blocks = parts
                .iter()
                .enumerate()
                .map(|(at, part)| content_part(part, &format!("{place}.content[{at}]")));
            blocks
                .filter_map(Result::transpose)
                .collect::<Result<_, _>>()?
        }
        _ => {
            return Err(ApiError::invalid(
                format!("{place}.content"),
                "the content must be text or a list of parts",
            ));
        }
    };
    if let Some(Value::Object(last)) = blocks.last_mut() {
        copy_cache_control(message, last);
    }
    Ok(blocks)
}

fn content_part(part: &Value, place: &str) -> Result<Option<Value>, ApiError> {
    let mut block = match part["type"].as_str() {
        Some("text") | Some("refusal") => {
            let text = part["text"]
                .as_str()
                .or(part["refusal"].as_str())
                .unwrap_or_default();
            if text.is_empty() {
                return Ok(None);
            }
            json!({ "type": "text", "text": text })
        }
        Some("image_url") => {
            let url = part["image_url"]["url"]
                .as_str()
                .or(part["image_url"].as_str())
                .unwrap_or_default();
            json!({ "type": "image", "source": media_source(url, place)? })
        }
        Some("file") => {
            let data = part["file"]["file_data"].as_str().unwrap_or_default();
            json!({ "type": "document", "source": media_source(data, place)? })
        }
        other => {
            let kind = other.unwrap_or("(none)");
            return Err(ApiError::invalid(
                place,
                format!("parts of type {kind:?} have no counterpart in the Anthropic protocol"),
            ));
        }
    };
    if let Value::Object(block) = &mut block {
        copy_cache_control(part, block);
    }
    Ok(Some(block))
}

fn media_source(url: &str, place: &str) -> Result<Value, ApiError> {
    if url.starts_with("https://") || url.starts_with("http://") {
        return Ok(json!({ "type": "url", "url": url }));
    }
    let data = url
        .strip_prefix("data:")
        .and_then(|rest| rest.split_once(";base64,"));
    match data {
        Some((kind, data)) if !kind.is_empty() => {
            let kind = kind.split(';').next().unwrap_or(kind);
            Ok(json!({ "type": "base64", "media_type": kind, "data": data }))
        }
        _ => Err(ApiError::invalid(
            place,
            "the address must be http(s), or data: with a media type and base64",
        )),
    }
}

fn assistant_blocks(message: &Value, place: &str) -> Result<Vec<Value>, ApiError> {
    let thinking = message["thinking_blocks"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let mut blocks = thinking;
    blocks.extend(content_blocks(message, place)?);
    for (at, call) in message["tool_calls"]
        .as_array()
        .into_iter()
        .flatten()
        .enumerate()
    {
        let place = format!("{place}.tool_calls[{at}]");
        let function = &call["function"];
        let arguments = function["arguments"].as_str().unwrap_or_default();
        let input: Value = if arguments.trim().is_empty() {
            json!({})
        } else {
            serde_json::from_str(arguments)
                .ok()
                .filter(Value::is_object)
                .ok_or_else(|| {
                    ApiError::invalid(
                        format!("{place}.function.arguments"),
                        "the arguments must be a JSON object in a string",
                    )
                })?
        };
        let (Some(id), Some(name)) = (call["id"].as_str(), function["name"].as_str()) else {
            return Err(ApiError::invalid(
                place,
                "a tool call needs an id and a function with a name",
            ));
        };
        blocks.push(json!({ "type": "tool_use", "id": id, "name": name, "input": input }));
    }
    Ok(blocks)
}

fn tool_result(message: &Value, place: &str) -> Result<Value, ApiError> {
    let Some(id) = message["tool_call_id"].as_str() else {
        return Err(ApiError::invalid(
            format!("{place}.tool_call_id"),
            "a tool message must name the call that it answers",
        ));
    };
    let mut block = Map::new();
    block.insert("type".to_owned(), "tool_result".into());
    block.insert("tool_use_id".to_owned(), id.into());
    let content = match &message["content"] {
        Value::String(text) => text.clone().into(),
        _ => Value::from(content_blocks(message, place)?),
    };
    block.insert("content".to_owned(), content);
    copy_cache_control(message, &mut block);
    Ok(Value::Object(block))
}

fn copy_cache_control(from: &Value, to: &mut Map<String, Value>) {
    if let Some(control) = from.get("cache_control") {
        to.insert("cache_control".to_owned(), control.clone());
    }
}

/// Anthropic's token counts. Its `input_tokens` are those that no cache had to
/// do with; ours are all.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(default)]
struct WireUsage {
    input_tokens: Option<u64>,
    output_tokens: Option<u64>,
    cache_creation_input_tokens: Option<u64>,
    cache_read_input_tokens: Option<u64>,
}

impl WireUsage {
    fn read(value: &Value) -> Self {
        Self::deserialize(value).unwrap_or_default()
    }

    /// Later counts replace earlier ones: they are totals.
    fn update(&mut self, later: Self) {
        self.input_tokens = later.input_tokens.or(self.input_tokens);
        self.output_tokens = later.output_tokens.or(self.output_tokens);
        self.cache_creation_input_tokens = later
            .cache_creation_input_tokens
            .or(self.cache_creation_input_tokens);
        self.cache_read_input_tokens = later
            .cache_read_input_tokens
            .or(self.cache_read_input_tokens);
    }

    fn usage(self) -> Usage {
        let (read, write) = (
            self.cache_read_input_tokens.unwrap_or(0),
            self.cache_creation_input_tokens.unwrap_or(0),
        );
        Usage {
            input: self
                .input_tokens
                .unwrap_or(0)
                .saturating_add(read)
                .saturating_add(write),
            output: self.output_tokens.unwrap_or(0),
            cache_read: read,
            cache_write: write,
            reasoning: 0,
            estimated: false,
        }
    }
}

fn finish_reason(stop_reason: &str) -> &'static str {
    match stop_reason {
        "max_tokens" | "model_context_window_exceeded" => "length",
        "tool_use" => "tool_calls",
        "refusal" => "content_filter",
        _ => "stop",
    }
}

/// Translates a whole answer.
///
/// # Errors
/// The answer is not a message.
pub(crate) fn translate_answer(
    provider: &Provider,
    body: &[u8],
    created_s: i64,
    meter: &mut Meter,
) -> Result<Value, Failure> {
    let garbage = |what: &str| Failure::garbage(&provider.name, what);
    let answer: Value = serde_json::from_slice(body)
        .map_err(|error| garbage(&format!("sent an answer that cannot be read: {error}")))?;
    let blocks = answer["content"]
        .as_array()
        .ok_or_else(|| garbage("sent an answer without content"))?;
    let mut tools = 0;
    for block in blocks {
        match block["type"].as_str() {
            Some("text") => {
                meter.text(0, block["text"].as_str().unwrap_or_default());
            }
            Some("thinking" | "redacted_thinking") => {
                meter.reasoning(0, block["thinking"].as_str().unwrap_or_default());
                meter.thinking_block(0, block.clone());
            }
            Some("tool_use") => {
                meter.tool(0, tools, block["id"].as_str(), block["name"].as_str());
                meter.tool_arguments(0, tools, &block["input"].to_string());
                tools += 1;
            }
            _ => {}
        }
    }
    meter.finish(
        0,
        finish_reason(answer["stop_reason"].as_str().unwrap_or("end_turn")),
    );
    meter.generated_chunks = 1;
    let usage = WireUsage::read(&answer["usage"]).usage();
    meter.usage = Some(usage);
    meter.response_id = answer["id"].as_str().map(str::to_owned);
    meter.response_model = answer["model"].as_str().map(str::to_owned);
    Ok(json!({
        "id": answer["id"],
        "object": "chat.completion",
        "created": created_s,
        "model": answer["model"],
        "choices": meter.completion_choices(),
        "usage": usage_json(&usage),
    }))
}

/// Reads a stream of message events and writes chat completion chunks.
pub(crate) struct Stream {
    provider: Arc<Provider>,
    created_s: i64,
    /// The caller asked for the usage chunk.
    show_usage: bool,
    id: Value,
    model: Value,
    usage: WireUsage,
    blocks: BTreeMap<u64, Block>,
    tools: usize,
    stopped: bool,
}

enum Block {
    Text,
    Tool {
        index: usize,
        empty: bool,
    },
    /// Thinking is sent as text while it comes, and as a whole block when it is signed.
    Thinking(Value),
    Other,
}

impl Stream {
    pub(crate) fn new(provider: Arc<Provider>, created_s: i64, show_usage: bool) -> Self {
        Self {
            provider,
            created_s,
            show_usage,
            id: Value::Null,
            model: Value::Null,
            usage: WireUsage::default(),
            blocks: BTreeMap::new(),
            tools: 0,
            stopped: false,
        }
    }

    pub(crate) fn event(
        &mut self,
        event: &Event,
        meter: &mut Meter,
        out: &mut VecDeque<Piece>,
    ) -> Result<(), Failure> {
        let Some(data) = &event.data else {
            return Ok(());
        };
        let data: Value = serde_json::from_slice(data).map_err(|error| {
            Failure::garbage(
                &self.provider.name,
                &format!("sent something that is not an event: {error}"),
            )
        })?;
        match data["type"].as_str() {
            Some("message_start") => self.message_start(&data["message"], meter, out),
            Some("content_block_start") => self.block_start(&data, meter, out),
            Some("content_block_delta") => self.block_delta(&data, meter, out),
            Some("content_block_stop") => self.block_stop(&data, meter, out),
            Some("message_delta") => self.message_delta(&data, meter, out),
            Some("message_stop") => return self.message_stop(out),
            Some("error") => return Err(self.error(&data)),
            Some(_) => {}
            None => {
                return Err(Failure::garbage(
                    &self.provider.name,
                    "sent an event without a type",
                ));
            }
        }
        Ok(())
    }

    fn message_start(&mut self, message: &Value, meter: &mut Meter, out: &mut VecDeque<Piece>) {
        self.id = message["id"].clone();
        self.model = message["model"].clone();
        meter.response_id = message["id"].as_str().map(str::to_owned);
        meter.response_model = message["model"].as_str().map(str::to_owned);
        self.count(&message["usage"], meter);
        out.push_back(self.chunk(&json!({ "role": "assistant", "content": "" }), None, false));
    }

    fn block_start(&mut self, data: &Value, meter: &mut Meter, out: &mut VecDeque<Piece>) {
        let content = &data["content_block"];
        let block = match content["type"].as_str() {
            Some("text") => {
                self.text(content["text"].as_str().unwrap_or_default(), meter, out);
                Block::Text
            }
            Some("tool_use") => {
                let index = self.tools;
                self.tools += 1;
                meter.tool(0, index, content["id"].as_str(), content["name"].as_str());
                let function = json!({ "name": content["name"], "arguments": "" });
                let call = json!({ "index": index, "id": content["id"], "type": "function", "function": function });
                out.push_back(self.chunk(&json!({ "tool_calls": [call] }), None, true));
                Block::Tool { index, empty: true }
            }
            Some("thinking" | "redacted_thinking") => Block::Thinking(content.clone()),
            _ => Block::Other,
        };
        self.blocks
            .insert(data["index"].as_u64().unwrap_or(0), block);
    }

    fn block_delta(&mut self, data: &Value, meter: &mut Meter, out: &mut VecDeque<Piece>) {
        let delta = &data["delta"];
        let text = |key: &str| delta[key].as_str().unwrap_or_default();
        match delta["type"].as_str() {
            Some("text_delta") => self.text(text("text"), meter, out),
            Some("input_json_delta") => self.tool_arguments(data, text("partial_json"), meter, out),
            Some("thinking_delta") => {
                let more = text("thinking");
                self.extend_thinking(data, "thinking", more);
                if meter.reasoning(0, more) {
                    out.push_back(self.chunk(&json!({ "reasoning_content": more }), None, true));
                }
            }
            Some("signature_delta") => self.extend_thinking(data, "signature", text("signature")),
            _ => {}
        }
    }

    fn text(&self, text: &str, meter: &mut Meter, out: &mut VecDeque<Piece>) {
        if meter.text(0, text) {
            out.push_back(self.chunk(&json!({ "content": text }), None, true));
        }
    }

    fn tool_arguments(
        &mut self,
        data: &Value,
        more: &str,
        meter: &mut Meter,
        out: &mut VecDeque<Piece>,
    ) {
        let Some(Block::Tool { index, empty }) =
            self.blocks.get_mut(&data["index"].as_u64().unwrap_or(0))
        else {
            return;
        };
        if more.is_empty() {
            return;
        }
        *empty = false;
        let index = *index;
        meter.tool_arguments(0, index, more);
        let call = json!({ "index": index, "function": { "arguments": more } });
        out.push_back(self.chunk(&json!({ "tool_calls": [call] }), None, true));
    }

    fn extend_thinking(&mut self, data: &Value, key: &str, more: &str) {
        if let Some(Block::Thinking(block)) =
            self.blocks.get_mut(&data["index"].as_u64().unwrap_or(0))
        {
            let whole = block[key].as_str().unwrap_or_default().to_owned() + more;
            block[key] = whole.into();
        }
    }

    fn block_stop(&mut self, data: &Value, meter: &mut Meter, out: &mut VecDeque<Piece>) {
        match self.blocks.remove(&data["index"].as_u64().unwrap_or(0)) {
            Some(Block::Thinking(block)) => {
                meter.thinking_block(0, block.clone());
                out.push_back(self.chunk(&json!({ "thinking_blocks": [block] }), None, true));
            }
            // A call without arguments sends no delta; OpenAI clients parse the text as JSON.
            Some(Block::Tool { index, empty: true }) => {
                meter.tool_arguments(0, index, "{}");
                let call = json!({ "index": index, "function": { "arguments": "{}" } });
                out.push_back(self.chunk(&json!({ "tool_calls": [call] }), None, true));
            }
            _ => {}
        }
    }

    fn message_delta(&mut self, data: &Value, meter: &mut Meter, out: &mut VecDeque<Piece>) {
        self.count(&data["usage"], meter);
        if let Some(reason) = data["delta"]["stop_reason"].as_str() {
            self.stopped = true;
            let reason = finish_reason(reason);
            meter.finish(0, reason);
            out.push_back(self.chunk(&json!({}), Some(reason), true));
        }
    }

    fn message_stop(&self, out: &mut VecDeque<Piece>) -> Result<(), Failure> {
        if !self.stopped {
            return Err(Failure::garbage(
                &self.provider.name,
                "ended its message without a reason",
            ));
        }
        let mut bytes = Vec::new();
        if self.show_usage {
            let mut chunk = self.envelope(json!([]));
            chunk["usage"] = usage_json(&self.usage.usage());
            bytes.extend_from_slice(format!("data: {chunk}\n\n").as_bytes());
        }
        bytes.extend_from_slice(b"data: [DONE]\n\n");
        out.push_back(Piece {
            bytes: bytes.into(),
            real: false,
            last: true,
        });
        Ok(())
    }

    fn error(&self, data: &Value) -> Failure {
        let status = match data["error"]["type"].as_str() {
            Some("invalid_request_error") => 400,
            Some("authentication_error" | "permission_error" | "billing_error") => 401,
            Some("not_found_error") => 404,
            Some("request_too_large") => 413,
            Some("rate_limit_error") => 429,
            Some("timeout_error") => 504,
            Some("overloaded_error") => 529,
            _ => 500,
        };
        Failure::said(&self.provider, status, &data.to_string())
    }

    fn count(&mut self, usage: &Value, meter: &mut Meter) {
        if usage.is_object() {
            self.usage.update(WireUsage::read(usage));
            meter.usage = Some(self.usage.usage());
        }
    }

    fn chunk(&self, delta: &Value, finish_reason: Option<&str>, real: bool) -> Piece {
        let choice =
            json!({ "index": 0, "delta": delta, "logprobs": null, "finish_reason": finish_reason });
        let chunk = self.envelope(json!([choice]));
        Piece {
            bytes: format!("data: {chunk}\n\n").into(),
            real,
            last: false,
        }
    }

    fn envelope(&self, choices: Value) -> Value {
        let mut chunk = json!({
            "id": self.id,
            "object": "chat.completion.chunk",
            "created": self.created_s,
            "model": self.model,
            "choices": choices,
        });
        if self.show_usage {
            chunk["usage"] = Value::Null;
        }
        chunk
    }
}
