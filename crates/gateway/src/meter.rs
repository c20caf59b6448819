//! Reads along while an answer passes: who answered, what it said, what it cost.
//!
//! All protocols report here in OpenAI's terms. The meter never changes what the
//! client gets, and keeps a bounded amount of it.

use base::Usage;
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// Text kept for the record; an answer beyond it is delivered but not kept.
const KEPT_BYTES: usize = 64 << 20;
/// Choices and tool calls kept: indices come from outside.
const KEPT_PARTS: usize = 256;

/// What is known about an answer so far.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    pub response_id: Option<String>,
    pub response_model: Option<String>,
    pub usage: Option<Usage>,
    pub generated_chunks: u64,
    choices: Vec<Choice>,
    kept_bytes: usize,
    /// The answer went on after what is kept of it.
    cut: bool,
    estimated_tokens: f64,
    /// The answer as guards let it through, where they changed or could change it: what the client
    /// gets, and what is recorded. Counts are still of what the model made.
    shown: Option<Box<Meter>>,
}

#[derive(Debug, Default)]
struct Choice {
    text: String,
    reasoning: String,
    refusal: String,
    tools: Vec<Tool>,
    thinking_blocks: Vec<Value>,
    finish: Option<String>,
    logprobs: Vec<Value>,
}

#[derive(Debug, Default)]
struct Tool {
    id: String,
    name: String,
    arguments: String,
}

/// One chunk of an OpenAI stream, as far as the meter reads it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Chunk {
    pub id: Option<String>,
    pub model: Option<String>,
    #[serde(deserialize_with = "null_as_empty")]
    pub choices: Vec<ChunkChoice>,
    pub usage: Option<OpenAiUsage>,
    pub error: Option<Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ChunkChoice {
    index: usize,
    delta: Option<Delta>,
    finish_reason: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Delta {
    content: Option<String>,
    refusal: Option<String>,
    // Two spellings in the field: DeepSeek and vLLM; OpenRouter and Ollama.
    reasoning_content: Option<String>,
    reasoning: Option<Value>,
    tool_calls: Option<Vec<ToolDelta>>,
}

/// A piece of a tool call.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ToolDelta {
    index: usize,
    id: Option<String>,
    function: Option<FunctionDelta>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct FunctionDelta {
    name: Option<String>,
    arguments: Option<String>,
}

/// OpenAI's token counts, with the details that change the price.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct OpenAiUsage {
    #[serde(deserialize_with = "null_as_empty")]
    prompt_tokens: u64,
    #[serde(deserialize_with = "null_as_empty")]
    completion_tokens: u64,
    prompt_tokens_details: Option<PromptDetails>,
    completion_tokens_details: Option<CompletionDetails>,
    // DeepSeek's own name for cached tokens.
    prompt_cache_hit_tokens: Option<u64>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct PromptDetails {
    cached_tokens: Option<u64>,
    cache_write_tokens: Option<u64>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct CompletionDetails {
    reasoning_tokens: Option<u64>,
}

fn null_as_empty<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

impl From<&OpenAiUsage> for Usage {
    fn from(wire: &OpenAiUsage) -> Self {
        let prompt = wire.prompt_tokens_details.clone().unwrap_or_default();
        let completion = wire.completion_tokens_details.clone().unwrap_or_default();
        Self {
            input: wire.prompt_tokens,
            output: wire.completion_tokens,
            cache_read: prompt
                .cached_tokens
                .or(wire.prompt_cache_hit_tokens)
                .unwrap_or(0),
            cache_write: prompt.cache_write_tokens.unwrap_or(0),
            reasoning: completion.reasoning_tokens.unwrap_or(0),
            estimated: false,
        }
    }
}

/// The counts that an answer or a chunk tells, if it does.
pub(crate) fn read_usage(value: &Value) -> Option<Usage> {
    let usage = Option::<OpenAiUsage>::deserialize(value).ok()??;
    Some((&usage).into())
}

/// The counts in OpenAI's shape.
pub(crate) fn usage_json(usage: &Usage) -> Value {
    json!({
        "prompt_tokens": usage.input,
        "completion_tokens": usage.output,
        "total_tokens": usage.input.saturating_add(usage.output),
        "prompt_tokens_details": { "cached_tokens": usage.cache_read, "cache_write_tokens": usage.cache_write },
        "completion_tokens_details": { "reasoning_tokens": usage.reasoning },
    })
}

impl Meter {
    /// Reads one chunk; true when it carries something that the model made.
    pub(crate) fn chunk(&mut self, chunk: Chunk) -> bool {
        self.response_id = self.response_id.take().or(chunk.id);
        self.response_model = self.response_model.take().or(chunk.model);
        if let Some(usage) = &chunk.usage {
            self.usage = Some(usage.into());
        }
        let mut real = false;
        for choice in chunk.choices {
            real |= self.chunk_choice(choice);
        }
        real
    }

    fn chunk_choice(&mut self, choice: ChunkChoice) -> bool {
        let index = choice.index;
        let delta = choice.delta.unwrap_or_default();
        let mut real = self.text(index, delta.content.as_deref().unwrap_or_default());
        real |= self.refusal(index, delta.refusal.as_deref().unwrap_or_default());
        let reasoning = delta
            .reasoning_content
            .as_deref()
            .or(delta.reasoning.as_ref().and_then(Value::as_str));
        real |= self.reasoning(index, reasoning.unwrap_or_default());
        for tool in delta.tool_calls.unwrap_or_default() {
            let function = tool.function.unwrap_or_default();
            self.tool(
                index,
                tool.index,
                tool.id.as_deref(),
                function.name.as_deref(),
            );
            self.tool_arguments(
                index,
                tool.index,
                function.arguments.as_deref().unwrap_or_default(),
            );
            real = true;
        }
        if let Some(reason) = choice.finish_reason {
            self.finish(index, &reason);
            real = true;
        }
        real
    }

    /// Reads a whole chat completion.
    pub(crate) fn completion(&mut self, answer: &Value) {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        self.response_id = text(&answer["id"]);
        self.response_model = text(&answer["model"]);
        self.whole_usage(answer);
        for (place, choice) in answer["choices"]
            .as_array()
            .into_iter()
            .flatten()
            .enumerate()
        {
            let index = choice["index"]
                .as_u64()
                .and_then(|i| usize::try_from(i).ok())
                .unwrap_or(place);
            let message = &choice["message"];
            self.text(index, message["content"].as_str().unwrap_or_default());
            self.refusal(index, message["refusal"].as_str().unwrap_or_default());
            let reasoning = message["reasoning_content"]
                .as_str()
                .or(message["reasoning"].as_str());
            self.reasoning(index, reasoning.unwrap_or_default());
            for (at, call) in message["tool_calls"]
                .as_array()
                .into_iter()
                .flatten()
                .enumerate()
            {
                self.tool(
                    index,
                    at,
                    call["id"].as_str(),
                    call["function"]["name"].as_str(),
                );
                self.tool_arguments(
                    index,
                    at,
                    call["function"]["arguments"].as_str().unwrap_or_default(),
                );
            }
            for block in message["thinking_blocks"].as_array().into_iter().flatten() {
                self.thinking_block(index, block.clone());
            }
            if let Some(reason) = choice["finish_reason"].as_str() {
                self.finish(index, reason);
            }
        }
        self.generated_chunks = u64::from(!self.choices.is_empty());
    }

    /// Reads the counts of a whole answer, if there are any.
    pub(crate) fn whole_usage(&mut self, answer: &Value) {
        if let Ok(Some(usage)) = Option::<OpenAiUsage>::deserialize(&answer["usage"]) {
            self.usage = Some((&usage).into());
        }
    }

    /// More text of a choice; true when there is any.
    pub(crate) fn text(&mut self, index: usize, text: &str) -> bool {
        self.keep(index, text, |choice| &mut choice.text)
    }

    /// More reasoning of a choice; true when there is any.
    pub(crate) fn reasoning(&mut self, index: usize, text: &str) -> bool {
        self.keep(index, text, |choice| &mut choice.reasoning)
    }

    fn refusal(&mut self, index: usize, text: &str) -> bool {
        self.keep(index, text, |choice| &mut choice.refusal)
    }

    /// A tool call begins, or says more about itself.
    pub(crate) fn tool(&mut self, index: usize, tool: usize, id: Option<&str>, name: Option<&str>) {
        let Some(tool) = self.tool_mut(index, tool) else {
            return;
        };
        if let Some(id) = id {
            id.clone_into(&mut tool.id);
        }
        if let Some(name) = name {
            tool.name.push_str(name);
        }
    }

    /// More of a tool call's arguments.
    pub(crate) fn tool_arguments(&mut self, index: usize, tool: usize, text: &str) {
        self.estimated_tokens += tokens_in(text);
        if self.kept_bytes + text.len() > KEPT_BYTES {
            self.cut = true;
            return;
        }
        self.kept_bytes += text.len();
        if let Some(tool) = self.tool_mut(index, tool) {
            tool.arguments.push_str(text);
        }
    }

    /// A finished block of thinking, with its signature.
    pub(crate) fn thinking_block(&mut self, index: usize, block: Value) {
        if let Some(choice) = self
            .choice(index)
            .filter(|choice| choice.thinking_blocks.len() < KEPT_PARTS)
        {
            choice.thinking_blocks.push(block);
        }
    }

    /// Log probabilities of tokens, in OpenAI's shape.
    pub(crate) fn logprobs(&mut self, index: usize, entries: Vec<Value>) {
        if let Some(choice) = self.choice(index) {
            choice.logprobs.extend(entries);
        }
    }

    /// A choice is complete.
    pub(crate) fn finish(&mut self, index: usize, reason: &str) {
        if let Some(choice) = self.choice(index) {
            choice.finish = Some(reason.to_owned());
        }
    }

    /// Whether at least one choice has come to its end.
    pub(crate) fn has_finished(&self) -> bool {
        self.choices.iter().any(|choice| choice.finish.is_some())
    }

    /// Whether the model made anything.
    pub(crate) fn has_output(&self) -> bool {
        self.generated_chunks > 0 || self.estimated_tokens > 0.0
    }

    fn choice(&mut self, index: usize) -> Option<&mut Choice> {
        if index >= KEPT_PARTS {
            return None;
        }
        if self.choices.len() <= index {
            self.choices.resize_with(index + 1, Choice::default);
        }
        self.choices.get_mut(index)
    }

    fn tool_mut(&mut self, index: usize, tool: usize) -> Option<&mut Tool> {
        let tools = &mut self.choice(index)?.tools;
        if tool >= KEPT_PARTS {
            return None;
        }
        if tools.len() <= tool {
            tools.resize_with(tool + 1, Tool::default);
        }
        tools.get_mut(tool)
    }

    fn keep(
        &mut self,
        index: usize,
        text: &str,
        field: impl Fn(&mut Choice) -> &mut String,
    ) -> bool {
        if text.is_empty() {
            return false;
        }
        self.estimated_tokens += tokens_in(text);
        if self.kept_bytes + text.len() > KEPT_BYTES {
            self.cut = true;
        } else if let Some(choice) = self.choice(index) {
            field(choice).push_str(text);
            self.kept_bytes += text.len();
        }
        true
    }

    /// What the answer's tokens are likely to be, when nobody counted.
    pub(crate) fn estimated_output(&self) -> u64 {
        whole_tokens(self.estimated_tokens)
    }

    /// The text of the first choice so far.
    pub(crate) fn first_text(&self) -> &str {
        self.seen_choices()
            .first()
            .map_or("", |choice| choice.text.as_str())
    }

    /// Whether the answer is longer than what is kept of it.
    pub(crate) fn is_cut(&self) -> bool {
        self.cut
    }

    /// From now on only what guards let through counts as the answer.
    pub(crate) fn show_only(&mut self) {
        self.shown.get_or_insert_default();
    }

    /// A chunk that guards let through.
    pub(crate) fn show(&mut self, chunk: &Value) {
        if let Ok(chunk) = Chunk::deserialize(chunk) {
            self.shown.get_or_insert_default().chunk(chunk);
        }
    }

    /// A whole chat completion that guards let through.
    pub(crate) fn show_completion(&mut self, answer: &Value) {
        self.shown.insert(Box::default()).completion(answer);
    }

    fn seen_choices(&self) -> &[Choice] {
        match &self.shown {
            Some(shown) => &shown.choices,
            None => &self.choices,
        }
    }

    /// One message per choice.
    pub(crate) fn messages(&self) -> Vec<Value> {
        self.seen_choices().iter().map(Choice::message).collect()
    }

    /// One reason per finished choice.
    pub(crate) fn finish_reasons(&self) -> Vec<String> {
        self.seen_choices()
            .iter()
            .filter_map(|choice| choice.finish.clone())
            .collect()
    }

    /// The choices of a whole chat completion, for answers that are put together here.
    pub(crate) fn completion_choices(&self) -> Vec<Value> {
        whole_choices(self.seen_choices())
    }

    /// The same of what the model made, whatever guards let through.
    pub(crate) fn made_choices(&self) -> Vec<Value> {
        whole_choices(&self.choices)
    }
}

fn whole_choices(choices: &[Choice]) -> Vec<Value> {
    let whole = choices.iter().enumerate().map(|(index, choice)| {
        let logprobs = match choice.logprobs.as_slice() {
            [] => Value::Null,
            entries => json!({ "content": entries, "refusal": null }),
        };
        let mut message = choice.message();
        if message.get("refusal").is_none() {
            message["refusal"] = Value::Null;
        }
        json!({
            "index": index,
            "message": message,
            "logprobs": logprobs,
            "finish_reason": choice.finish,
        })
    });
    whole.collect()
}

impl Choice {
    fn message(&self) -> Value {
        let mut message = Map::new();
        message.insert("role".to_owned(), "assistant".into());
        let silent = self.text.is_empty() && !(self.tools.is_empty() && self.refusal.is_empty());
        message.insert(
            "content".to_owned(),
            if silent {
                Value::Null
            } else {
                self.text.clone().into()
            },
        );
        if !self.refusal.is_empty() {
            message.insert("refusal".to_owned(), self.refusal.clone().into());
        }
        if !self.reasoning.is_empty() {
            message.insert(
                "reasoning_content".to_owned(),
                self.reasoning.clone().into(),
            );
        }
        if !self.thinking_blocks.is_empty() {
            message.insert(
                "thinking_blocks".to_owned(),
                self.thinking_blocks.clone().into(),
            );
        }
        if !self.tools.is_empty() {
            message.insert(
                "tool_calls".to_owned(),
                self.tools.iter().map(Tool::json).collect(),
            );
        }
        Value::Object(message)
    }
}

impl Tool {
    fn json(&self) -> Value {
        json!({
            "id": self.id,
            "type": "function",
            "function": { "name": self.name, "arguments": self.arguments },
        })
    }
}

/// A guess without a tokenizer: four bytes of ASCII, or one other character, are
/// about a token. Used only where a provider sent no counts, and marked so.
pub(crate) fn estimate_tokens(text: &str) -> u64 {
    whole_tokens(tokens_in(text))
}

fn tokens_in(text: &str) -> f64 {
    let ascii = text.bytes().filter(u8::is_ascii).count();
    let other = text.chars().count().saturating_sub(ascii);
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    let tokens = ascii as f64 / 4.0 + other as f64;
    tokens
}

fn whole_tokens(tokens: f64) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "never negative, saturates"
    )]
    let whole = tokens.ceil() as u64;
    whole
}
