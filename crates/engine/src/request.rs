//! What a caller asks a chat model for.

/// One generation to run. Several choices (`n`) are several requests, made by
/// the caller with different seeds.
#[derive(Debug, Clone)]
pub struct GenerateRequest {
    /// What the model reads.
    pub prompt: Prompt,
    /// How the next token is chosen.
    pub sampling: Sampling,
    /// Texts that end the answer; they are never part of it.
    pub stop: Vec<String>,
    /// The longest answer in tokens; `None` means whatever the context still holds.
    pub max_tokens: Option<usize>,
    /// `Some(n)` adds the log-probability of each chosen token and of the `n` likeliest ones
    /// (0 to 20).
    pub logprobs: Option<usize>,
}

impl GenerateRequest {
    /// A request with default sampling, no stop texts and no limit but the context.
    pub fn new(prompt: Prompt) -> Self {
        Self {
            prompt,
            sampling: Sampling::default(),
            stop: Vec::new(),
            max_tokens: None,
            logprobs: None,
        }
    }
}

/// The model's input.
#[derive(Debug, Clone)]
pub enum Prompt {
    /// Token ids, taken as they are.
    Tokens(Vec<u32>),
    /// Plain text; the model's own leading token is added where its vocabulary asks for one.
    Text(String),
    /// A conversation, rendered by the model's chat template.
    Chat(ChatPrompt),
}

/// A conversation in the shape of the chat-completions API.
#[derive(Debug, Clone, Default)]
pub struct ChatPrompt {
    /// Objects with `role` and `content` (a string, null, or a list of text parts), and whatever
    /// else the template understands (`tool_calls`, `tool_call_id`, `name`).
    pub messages: Vec<serde_json::Value>,
    /// Tool definitions; empty means none.
    pub tools: Vec<serde_json::Value>,
    /// Ends the rendered text with the opening of an assistant message, which is what a
    /// completion wants.
    pub add_generation_prompt: bool,
}

impl ChatPrompt {
    /// A conversation to be answered, without tools.
    pub fn new(messages: Vec<serde_json::Value>) -> Self {
        Self {
            messages,
            tools: Vec::new(),
            add_generation_prompt: true,
        }
    }
}

/// How the next token is chosen. The steps run in the order of the fields: penalties first,
/// then temperature, `top_k`, `top_p`, `min_p`, then a draw.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampling {
    /// Divides the logits of tokens seen in prompt or answer when positive, multiplies when
    /// negative; 1 changes nothing. In (0, 10].
    pub repetition_penalty: f32,
    /// Subtracted once per earlier use in the answer. In [-2, 2].
    pub frequency_penalty: f32,
    /// Subtracted once if used in the answer at all. In [-2, 2].
    pub presence_penalty: f32,
    /// 0 always takes the likeliest token. In [0, 2].
    pub temperature: f32,
    /// Keeps this many likeliest tokens; 0 keeps all.
    pub top_k: usize,
    /// Keeps the likeliest tokens that together reach this probability. In (0, 1].
    pub top_p: f32,
    /// Drops tokens less likely than this share of the likeliest one. In [0, 1].
    pub min_p: f32,
    /// Makes the draws repeatable; without it the system's randomness seeds them.
    pub seed: Option<u64>,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            repetition_penalty: 1.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            seed: None,
        }
    }
}

impl Sampling {
    /// Always the likeliest token.
    pub fn greedy() -> Self {
        Self {
            temperature: 0.0,
            ..Self::default()
        }
    }

    /// Says which parameter is out of its range.
    pub(crate) fn check(&self) -> Result<(), String> {
        in_range("temperature", self.temperature, 0.0, 2.0)?;
        in_range("top_p", self.top_p, f32::MIN_POSITIVE, 1.0)?;
        in_range("min_p", self.min_p, 0.0, 1.0)?;
        in_range(
            "repetition_penalty",
            self.repetition_penalty,
            f32::MIN_POSITIVE,
            10.0,
        )?;
        in_range("frequency_penalty", self.frequency_penalty, -2.0, 2.0)?;
        in_range("presence_penalty", self.presence_penalty, -2.0, 2.0)
    }
}

fn in_range(name: &str, value: f32, low: f32, high: f32) -> Result<(), String> {
    if (low..=high).contains(&value) {
        return Ok(());
    }
    let low = if low == f32::MIN_POSITIVE {
        "above 0".to_owned()
    } else {
        format!("at least {low}")
    };
    Err(format!(
        "{name} must be {low} and at most {high}, but is {value}"
    ))
}
