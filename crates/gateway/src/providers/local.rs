//! Models in this process, in OpenAI's exact wire shape.
//!
//! Requests are checked like OpenAI checks them, and stricter: a field that would
//! change the answer and is not supported is refused by name. `n` choices run
//! side by side as `n` generations with neighbouring seeds.

use std::collections::VecDeque;
use std::task::{Context, Poll};

use base::Usage;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use serde_json::{Map, Value, json};

use crate::error::ApiError;
use crate::failure::Failure;
use crate::local::{
    LocalChat, LocalEmbed, LocalEmbeddings, LocalEvent, LocalModels, LocalStream, TokenLogprob,
};
use crate::meter::{Meter, usage_json};
use crate::plan::Limits;
use crate::providers::Piece;

/// Fields that may be there without changing the answer of a local model.
const HARMLESS: [&str; 14] = [
    "model",
    "messages",
    "stream",
    "user",
    "metadata",
    "store",
    "service_tier",
    "safety_identifier",
    "meguri",
    "prompt_cache_key",
    "parallel_tool_calls",
    "stream_options",
    "verbosity",
    "reasoning_effort",
];

/// A checked request.
#[derive(Debug, PartialEq)]
pub(crate) struct Checked {
    pub chat: LocalChat,
    pub choices: u32,
}

/// Checks a chat completion request.
///
/// # Errors
/// Names the field that is wrong or not supported.
pub(crate) fn check_chat(
    model: &str,
    fields: &Map<String, Value>,
    messages: &[Value],
    limits: &Limits,
) -> Result<Checked, ApiError> {
    let mut chat = LocalChat {
        model: model.to_owned(),
        ..LocalChat::default()
    };
    chat.messages = messages
        .iter()
        .enumerate()
        .map(|(at, message)| plain_message(at, message))
        .collect::<Result<_, _>>()?;
    let mut checked = Checked { chat, choices: 1 };
    let mut wants_logprobs = false;
    for (name, value) in fields.iter().filter(|(_, value)| !value.is_null()) {
        let field = Field { name, value };
        match name.as_str() {
            "n" => checked.choices = field.whole(1, u64::from(limits.local_choices))?,
            "logprobs" => wants_logprobs = field.flag()?,
            _ => chat_field(&field, &mut checked.chat)?,
        }
    }
    let chat = &mut checked.chat;
    if chat.top_logprobs.is_some() && !wants_logprobs {
        return Err(ApiError::invalid(
            "top_logprobs",
            "\"top_logprobs\" needs \"logprobs\": true",
        ));
    }
    if wants_logprobs {
        chat.top_logprobs = chat.top_logprobs.or(Some(0));
    }
    if fields
        .get("tool_choice")
        .is_some_and(|choice| choice == "none")
    {
        chat.tools.clear();
    }
    Ok(checked)
}

fn chat_field(field: &Field<'_>, chat: &mut LocalChat) -> Result<(), ApiError> {
    match field.name {
        "temperature" => chat.temperature = Some(field.number(0.0, 2.0)?),
        "top_p" => chat.top_p = Some(field.number(0.0, 1.0)?),
        "min_p" => chat.min_p = Some(field.number(0.0, 1.0)?),
        "top_k" => chat.top_k = Some(field.whole(1, 1 << 20)?),
        "repetition_penalty" => chat.repetition_penalty = Some(field.number(0.01, 10.0)?),
        "frequency_penalty" => chat.frequency_penalty = Some(field.number(-2.0, 2.0)?),
        "presence_penalty" => chat.presence_penalty = Some(field.number(-2.0, 2.0)?),
        "top_logprobs" => chat.top_logprobs = Some(u8::try_from(field.whole(0, 20)?).unwrap_or(20)),
        "max_completion_tokens" => chat.max_tokens = Some(field.whole(1, u64::from(u32::MAX))?),
        // The newer name wins where both are given.
        "max_tokens" => {
            let most = field.whole(1, u64::from(u32::MAX))?;
            chat.max_tokens = chat.max_tokens.or(Some(most));
        }
        "seed" => {
            let seed = field
                .value
                .as_i64()
                .ok_or_else(|| field.wrong("a whole number"))?;
            chat.seed = Some(seed.cast_unsigned());
        }
        "stop" => chat.stop = field.stop_strings()?,
        "tools" => {
            let tools = field
                .value
                .as_array()
                .ok_or_else(|| field.wrong("a list of tools"))?;
            chat.tools.clone_from(tools);
        }
        "tool_choice" if field.value == "auto" || field.value == "none" => {}
        "tool_choice" => {
            return Err(field.unsupported("can only be auto or none with local models"));
        }
        "response_format" if field.value["type"] == "text" => {}
        "response_format" => return Err(field.unsupported("can only be text with local models")),
        "logit_bias" if field.value.as_object().is_some_and(Map::is_empty) => {}
        name if HARMLESS.contains(&name) => {}
        _ => return Err(field.unsupported("is not supported by local models")),
    }
    Ok(())
}

/// Chat templates know text only; parts are joined.
fn plain_message(at: usize, message: &Value) -> Result<Value, ApiError> {
    let Value::Object(fields) = message else {
        return Err(ApiError::invalid(
            format!("messages[{at}]"),
            "a message must be an object",
        ));
    };
    if !fields.get("role").is_some_and(Value::is_string) {
        return Err(ApiError::invalid(
            format!("messages[{at}].role"),
            "a message needs a role",
        ));
    }
    let mut fields = fields.clone();
    let text = match fields.get("content") {
        None | Some(Value::Null | Value::String(_)) => return Ok(Value::Object(fields)),
        Some(Value::Array(parts)) => {
            let texts = parts.iter().enumerate().map(|(part_at, part)| {
                let text = part["text"].as_str().filter(|_| part["type"] == "text");
                text.ok_or_else(|| {
                    let place = format!("messages[{at}].content[{part_at}]");
                    ApiError::invalid(place, "local models read text only")
                })
            });
            texts.collect::<Result<Vec<_>, _>>()?.concat()
        }
        Some(_) => {
            return Err(ApiError::invalid(
                format!("messages[{at}].content"),
                "the content must be text or a list of parts",
            ));
        }
    };
    fields.insert("content".to_owned(), text.into());
    Ok(Value::Object(fields))
}

struct Field<'a> {
    name: &'a str,
    value: &'a Value,
}

impl Field<'_> {
    fn wrong(&self, expected: &str) -> ApiError {
        ApiError::invalid(self.name, format!("{:?} must be {expected}", self.name))
    }

    fn unsupported(&self, what: &str) -> ApiError {
        let mut error = ApiError::invalid(self.name, format!("{:?} {what}", self.name));
        "unsupported_parameter".clone_into(&mut error.code);
        error
    }

    fn number(&self, least: f64, most: f64) -> Result<f64, ApiError> {
        let number = self
            .value
            .as_f64()
            .filter(|number| (least..=most).contains(number));
        number.ok_or_else(|| self.wrong(&format!("a number from {least} to {most}")))
    }

    fn whole(&self, least: u64, most: u64) -> Result<u32, ApiError> {
        let number = self
            .value
            .as_u64()
            .filter(|number| (least..=most).contains(number));
        let number = number.and_then(|number| u32::try_from(number).ok());
        number.ok_or_else(|| self.wrong(&format!("a whole number from {least} to {most}")))
    }

    fn flag(&self) -> Result<bool, ApiError> {
        self.value
            .as_bool()
            .ok_or_else(|| self.wrong("true or false"))
    }

    fn stop_strings(&self) -> Result<Vec<String>, ApiError> {
        let wrong = || self.wrong("a string or a list of up to 4 strings");
        match self.value {
            Value::String(one) => Ok(vec![one.clone()]),
            Value::Array(list) if list.len() <= 4 => list
                .iter()
                .map(|item| item.as_str().map(str::to_owned).ok_or_else(wrong))
                .collect(),
            _ => Err(wrong()),
        }
    }
}

/// What the chunks of one answer have in common.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub id: String,
    pub model: String,
    pub created_s: i64,
    pub show_usage: bool,
}

/// The generations of one call as pieces for the client. Dropping it stops them.
pub(crate) struct LocalSource {
    answer: Answer,
    choices: Vec<Option<LocalStream>>,
    tools: Vec<usize>,
    usage: Usage,
    ready: VecDeque<Piece>,
    /// Which choice to look at first, so that none waits for another.
    turn: usize,
    ended: bool,
}

impl LocalSource {
    pub(crate) fn start(models: &dyn LocalModels, checked: &Checked, answer: Answer) -> Self {
        let count = checked.choices as usize;
        let choices = (0..u64::from(checked.choices)).map(|index| {
            let mut chat = checked.chat.clone();
            chat.seed = chat.seed.map(|seed| seed.wrapping_add(index));
            Some(models.chat(chat))
        });
        let mut source = Self {
            answer,
            choices: choices.collect(),
            tools: vec![0; count],
            usage: Usage::default(),
            ready: VecDeque::new(),
            turn: 0,
            ended: false,
        };
        for index in 0..count {
            let delta = json!({ "role": "assistant", "content": "", "refusal": null });
            source.push(index, &delta, &Value::Null, None, false);
        }
        source
    }

    pub(crate) fn poll_piece(
        &mut self,
        cx: &mut Context<'_>,
        meter: &mut Meter,
    ) -> Poll<Option<Result<Piece, Failure>>> {
        loop {
            if let Some(piece) = self.ready.pop_front() {
                return Poll::Ready(Some(Ok(piece)));
            }
            if self.ended {
                return Poll::Ready(None);
            }
            if self.choices.iter().all(Option::is_none) {
                self.end(meter);
                continue;
            }
            match self.poll_choices(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready((index, Some(Ok(event)))) => self.event(index, event, meter),
                Poll::Ready((_, Some(Err(error)))) => return Poll::Ready(Some(Err(error.into()))),
                Poll::Ready((_, None)) => {
                    let message = "the local model stopped without a reason";
                    let error = ApiError::new(
                        StatusCode::INTERNAL_SERVER_ERROR,
                        "local_model_failed",
                        message,
                    );
                    return Poll::Ready(Some(Err(error.into())));
                }
            }
        }
    }

    fn poll_choices(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<(usize, Option<Result<LocalEvent, crate::local::LocalError>>)> {
        let count = self.choices.len();
        for step in 0..count {
            let index = (self.turn + step) % count;
            if let Some(stream) = &mut self.choices[index]
                && let Poll::Ready(item) = stream.as_mut().poll_next(cx)
            {
                self.turn = index + 1;
                return Poll::Ready((index, item));
            }
        }
        Poll::Pending
    }

    fn event(&mut self, index: usize, event: LocalEvent, meter: &mut Meter) {
        match event {
            LocalEvent::Text { text, logprobs } => {
                meter.text(index, &text);
                let entries: Vec<Value> = logprobs.iter().map(logprob_json).collect();
                let shown = if entries.is_empty() {
                    Value::Null
                } else {
                    json!({ "content": entries, "refusal": null })
                };
                meter.logprobs(index, entries);
                self.push(index, &json!({ "content": text }), &shown, None, true);
            }
            LocalEvent::ToolCall {
                id,
                name,
                arguments,
            } => {
                let at = self.tools[index];
                self.tools[index] += 1;
                meter.tool(index, at, Some(&id), Some(&name));
                meter.tool_arguments(index, at, &arguments);
                let function = json!({ "name": name, "arguments": arguments });
                let call =
                    json!({ "index": at, "id": id, "type": "function", "function": function });
                self.push(
                    index,
                    &json!({ "tool_calls": [call] }),
                    &Value::Null,
                    None,
                    true,
                );
            }
            LocalEvent::Finish { reason, usage } => {
                meter.finish(index, reason.as_str());
                // Every choice reads the same prompt; it is counted once, as OpenAI does.
                self.usage.input = self.usage.input.max(usage.input);
                self.usage.cache_read = self.usage.cache_read.max(usage.cache_read);
                self.usage.output += usage.output;
                self.usage.reasoning += usage.reasoning;
                meter.usage = Some(self.usage);
                self.choices[index] = None;
                self.push(index, &json!({}), &Value::Null, Some(reason.as_str()), true);
            }
        }
    }

    fn push(
        &mut self,
        index: usize,
        delta: &Value,
        logprobs: &Value,
        finish_reason: Option<&str>,
        real: bool,
    ) {
        let choice = json!({ "index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason });
        let chunk = self.envelope(json!([choice]));
        self.ready.push_back(Piece {
            bytes: format!("data: {chunk}\n\n").into(),
            real,
            last: false,
        });
    }

    fn end(&mut self, meter: &mut Meter) {
        let mut bytes = Vec::new();
        if self.answer.show_usage {
            let mut chunk = self.envelope(json!([]));
            chunk["usage"] = usage_json(&self.usage);
            bytes.extend_from_slice(format!("data: {chunk}\n\n").as_bytes());
        }
        bytes.extend_from_slice(b"data: [DONE]\n\n");
        meter.usage = Some(self.usage);
        self.ready.push_back(Piece {
            bytes: bytes.into(),
            real: false,
            last: true,
        });
        self.ended = true;
    }

    fn envelope(&self, choices: Value) -> Value {
        let mut chunk = json!({
            "id": self.answer.id,
            "object": "chat.completion.chunk",
            "created": self.answer.created_s,
            "model": self.answer.model,
            "choices": choices,
        });
        if self.answer.show_usage {
            chunk["usage"] = Value::Null;
        }
        chunk
    }
}

/// The whole answer, once the source has ended.
pub(crate) fn completion(answer: &Answer, meter: &Meter) -> Value {
    json!({
        "id": answer.id,
        "object": "chat.completion",
        "created": answer.created_s,
        "model": answer.model,
        "choices": meter.completion_choices(),
        "usage": usage_json(&meter.usage.unwrap_or_default()),
    })
}

fn logprob_json(token: &TokenLogprob) -> Value {
    let top = token
        .top
        .iter()
        .map(|(text, bytes, logprob)| json!({ "token": text, "bytes": bytes, "logprob": logprob }));
    json!({
        "token": token.token,
        "bytes": token.bytes,
        "logprob": token.logprob,
        "top_logprobs": top.collect::<Vec<_>>(),
    })
}

/// A checked embedding request.
#[derive(Debug)]
pub(crate) struct CheckedEmbed {
    pub embed: LocalEmbed,
    base64: bool,
}

/// Checks an embedding request.
///
/// # Errors
/// Names the field that is wrong or not supported.
pub(crate) fn check_embed(
    model: &str,
    fields: &Map<String, Value>,
    input: &[Value],
    limits: &Limits,
) -> Result<CheckedEmbed, ApiError> {
    let wrong = |message: &str| ApiError::invalid("input", message);
    let texts = input.iter().map(|text| text.as_str().map(str::to_owned));
    let inputs: Option<Vec<String>> = texts.collect();
    let inputs = inputs.ok_or_else(|| {
        wrong("local models embed a text or a list of texts; token numbers are not supported")
    })?;
    if inputs.is_empty()
        || inputs.len() > limits.local_inputs
        || inputs.iter().any(String::is_empty)
    {
        return Err(wrong(&format!(
            "\"input\" must hold 1 to {} texts, none of them empty",
            limits.local_inputs
        )));
    }
    let mut base64 = false;
    for (name, value) in fields.iter().filter(|(_, value)| !value.is_null()) {
        let field = Field { name, value };
        match name.as_str() {
            "encoding_format" if value == "float" => {}
            "encoding_format" if value == "base64" => base64 = true,
            "encoding_format" => return Err(field.wrong("float or base64")),
            "user" | "metadata" => {}
            _ => return Err(field.unsupported("is not supported by local models")),
        }
    }
    Ok(CheckedEmbed {
        embed: LocalEmbed {
            model: model.to_owned(),
            inputs,
        },
        base64,
    })
}

/// The embedding answer.
pub(crate) fn embeddings(
    request: &CheckedEmbed,
    shown_model: &str,
    result: &LocalEmbeddings,
) -> Value {
    let data = result.vectors.iter().enumerate().map(|(index, vector)| {
        let embedding = if request.base64 {
            let bytes: Vec<u8> = vector
                .iter()
                .flat_map(|number| number.to_le_bytes())
                .collect();
            Value::from(STANDARD.encode(bytes))
        } else {
            Value::from(vector.as_slice())
        };
        json!({ "object": "embedding", "index": index, "embedding": embedding })
    });
    json!({
        "object": "list",
        "data": data.collect::<Vec<_>>(),
        "model": shown_model,
        "usage": { "prompt_tokens": result.input_tokens, "total_tokens": result.input_tokens },
    })
}
