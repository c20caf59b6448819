//! Finds tool calls in what a local model writes.
//!
//! Models are trained to write a call as JSON, either between `<tool_call>` and
//! `</tool_call>` (Qwen, SmolLM, Hermes), after `<|python_tag|>`, or as the whole
//! answer (Llama 3). Text before a call streams on; text that could become a
//! call is held back until it is clear. What looks like a call but is none, or
//! names a tool that was not offered, is text.

use serde::Deserialize;
use serde_json::Value;

/// A piece of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Ordinary text.
    Text(String),
    /// A call of a tool that was offered.
    Call {
        /// The tool's name.
        name: String,
        /// JSON text.
        arguments: String,
    },
}

/// All pieces of an answer that comes in these parts.
pub fn split_tool_calls(tools: &[Value], parts: &[&str]) -> Vec<Piece> {
    let mut splitter = ToolCalls::new(tools);
    let mut pieces: Vec<Piece> = parts.iter().flat_map(|part| splitter.push(part)).collect();
    pieces.extend(splitter.finish());
    pieces
}

const OPEN: &str = "<tool_call>";
const CLOSE: &str = "</tool_call>";
const PYTHON_TAG: &str = "<|python_tag|>";

/// Splits a streamed answer into text and calls.
#[derive(Debug)]
pub(super) struct ToolCalls {
    tools: Vec<String>,
    held: String,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing but white space has come.
    Start,
    /// Ordinary text.
    Text,
    /// Between the marks.
    Inside,
    /// The answer began like JSON; the end decides.
    Whole,
}

impl ToolCalls {
    /// A splitter for these tool definitions.
    pub(super) fn new(tools: &[Value]) -> Self {
        let name = |tool: &Value| {
            tool.pointer("/function/name")
                .or_else(|| tool.get("name"))?
                .as_str()
                .map(str::to_owned)
        };
        Self {
            tools: tools.iter().filter_map(name).collect(),
            held: String::new(),
            state: State::Start,
        }
    }

    /// Takes more text.
    pub(super) fn push(&mut self, text: &str) -> Vec<Piece> {
        self.held.push_str(text);
        let mut pieces = Vec::new();
        while self.step(&mut pieces) {}
        pieces
    }

    /// The answer is over: what is held becomes calls or text.
    pub(super) fn finish(mut self) -> Vec<Piece> {
        let held = std::mem::take(&mut self.held);
        let (body, written) = match self.state {
            State::Inside => (held.clone(), format!("{OPEN}{held}")),
            _ => (held.trim().trim_start_matches(PYTHON_TAG).to_owned(), held),
        };
        let whole = matches!(self.state, State::Inside | State::Whole);
        match if whole { self.parse(&body) } else { None } {
            Some(calls) => calls,
            None if written.is_empty() => Vec::new(),
            None => vec![Piece::Text(written)],
        }
    }

    /// One decision; false when more text is needed.
    fn step(&mut self, pieces: &mut Vec<Piece>) -> bool {
        match self.state {
            State::Start => self.begin(),
            State::Text => self.read_text(pieces),
            State::Inside => self.read_call(pieces),
            State::Whole => false,
        }
    }

    fn begin(&mut self) -> bool {
        let start = self.held.trim_start();
        if start.is_empty() || (start.len() < PYTHON_TAG.len() && PYTHON_TAG.starts_with(start)) {
            return false;
        }
        let json = start.starts_with(['{', '[']) || start.starts_with(PYTHON_TAG);
        self.state = if json { State::Whole } else { State::Text };
        true
    }

    fn read_text(&mut self, pieces: &mut Vec<Piece>) -> bool {
        if let Some(at) = self.held.find(OPEN) {
            let rest = self.held.split_off(at);
            let before = std::mem::replace(&mut self.held, rest[OPEN.len()..].to_owned());
            push_text(pieces, before);
            self.state = State::Inside;
            return true;
        }
        let safe = self.held.len() - overlap(&self.held, OPEN);
        let rest = self.held.split_off(safe);
        push_text(pieces, std::mem::replace(&mut self.held, rest));
        false
    }

    fn read_call(&mut self, pieces: &mut Vec<Piece>) -> bool {
        let Some(at) = self.held.find(CLOSE) else {
            return false;
        };
        let rest = self.held.split_off(at);
        let body = std::mem::replace(&mut self.held, rest[CLOSE.len()..].to_owned());
        match self.parse(&body) {
            Some(calls) => pieces.extend(calls),
            None => push_text(pieces, format!("{OPEN}{body}{CLOSE}")),
        }
        self.state = State::Text;
        true
    }

    /// One call, or a list of them.
    fn parse(&self, body: &str) -> Option<Vec<Piece>> {
        #[derive(Deserialize)]
        struct Call {
            name: String,
            #[serde(alias = "parameters", default)]
            arguments: Value,
        }
        let value: Value = serde_json::from_str(body.trim()).ok()?;
        let calls = match value {
            Value::Array(calls) => calls,
            one => vec![one],
        };
        let call = |value: Value| {
            let call: Call = serde_json::from_value(value).ok()?;
            let arguments = match call.arguments {
                Value::String(text) => text,
                Value::Null => "{}".to_owned(),
                other => other.to_string(),
            };
            self.tools.contains(&call.name).then_some(Piece::Call {
                name: call.name,
                arguments,
            })
        };
        let calls: Option<Vec<Piece>> = calls.into_iter().map(call).collect();
        calls.filter(|calls| !calls.is_empty())
    }
}

fn push_text(pieces: &mut Vec<Piece>, text: String) {
    if !text.is_empty() {
        pieces.push(Piece::Text(text));
    }
}

/// How many bytes at the end of `text` are a beginning of `mark`.
fn overlap(text: &str, mark: &str) -> usize {
    let most = mark.len().min(text.len());
    (1..=most)
        .rev()
        .find(|&length| {
            text.is_char_boundary(text.len() - length)
                && mark.starts_with(&text[text.len() - length..])
        })
        .unwrap_or(0)
}
