//! A running generation as its reader sees it: events, then the end.
//!
//! Dropping the handle cancels the work before the next token. The channel is
//! bounded; a reader that falls behind pauses its own sequence only.

use std::sync::Arc;

use tokio::sync::mpsc;

use crate::error::GenerateError;
use crate::scheduler::Wakeup;

/// One step of an answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// New text, new tokens, or both.
    Token(Token),
    /// The answer is complete. Nothing follows.
    Done(Done),
    /// The answer broke off. Nothing follows.
    Failed(GenerateError),
}

/// What one or more new tokens add to the answer.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Token {
    /// Text that is safe to show: whole characters, and no start of a stop text. May be empty.
    pub text: String,
    /// The tokens behind it, in order.
    pub token_ids: Vec<u32>,
    /// One entry per token where the request asked for them.
    pub logprobs: Vec<TokenLogProbs>,
}

/// The model's own view of one chosen token, before temperature and penalties.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenLogProbs {
    /// The token that was chosen.
    pub chosen: LogProb,
    /// The likeliest tokens at this place, likeliest first.
    pub top: Vec<LogProb>,
}

/// A token and its natural-log probability.
#[derive(Debug, Clone, PartialEq)]
pub struct LogProb {
    /// Its id.
    pub token_id: u32,
    /// Its bytes, which need not be whole characters.
    pub bytes: Vec<u8>,
    /// ln(probability).
    pub logprob: f32,
}

/// How and with what figures an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Done {
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// Tokens read and written.
    pub usage: TokenUsage,
    /// Where the time went.
    pub timings: Timings,
}

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinishReason {
    /// The model ended its turn, or a stop text appeared.
    Stop,
    /// `max_tokens` was reached or the context is full.
    Length,
}

/// Token counts of one generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TokenUsage {
    /// Tokens of the rendered prompt.
    pub prompt_tokens: usize,
    /// Tokens generated, the end-of-turn token included.
    pub completion_tokens: usize,
}

/// Where the time of one generation went, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Timings {
    /// From the call until the scheduler took the request up.
    pub queue_us: u64,
    /// From then until the first token was chosen.
    pub prefill_us: u64,
    /// From the first token to the last.
    pub decode_us: u64,
}

/// A whole answer, for callers that do not stream.
#[derive(Debug, Clone, PartialEq)]
pub struct Completion {
    /// The text.
    pub text: String,
    /// Its tokens.
    pub token_ids: Vec<u32>,
    /// One entry per token where the request asked for them.
    pub logprobs: Vec<TokenLogProbs>,
    /// How it ended.
    pub done: Done,
}

/// The reading end of a running generation. Dropping it cancels the generation.
#[derive(Debug)]
pub struct Generation {
    events: mpsc::Receiver<Event>,
    wakeup: Arc<Wakeup>,
    prompt_tokens: usize,
}

impl Generation {
    pub(crate) fn new(
        events: mpsc::Receiver<Event>,
        wakeup: Arc<Wakeup>,
        prompt_tokens: usize,
    ) -> Self {
        Self {
            events,
            wakeup,
            prompt_tokens,
        }
    }

    /// How many tokens the rendered prompt has.
    pub fn prompt_tokens(&self) -> usize {
        self.prompt_tokens
    }

    /// The next event, or `None` after [`Event::Done`] or [`Event::Failed`].
    pub async fn next(&mut self) -> Option<Event> {
        let event = self.events.recv().await;
        self.wakeup.reader_moved();
        event
    }

    /// Like [`Self::next`], for threads outside an async runtime.
    pub fn blocking_next(&mut self) -> Option<Event> {
        let event = self.events.blocking_recv();
        self.wakeup.reader_moved();
        event
    }

    /// Reads to the end.
    pub async fn complete(mut self) -> Result<Completion, GenerateError> {
        let mut answer = Answer::default();
        while let Some(event) = self.next().await {
            if let Some(end) = answer.add(event) {
                return end;
            }
        }
        Err(GenerateError::Stopped)
    }

    /// Like [`Self::complete`], for threads outside an async runtime.
    pub fn blocking_complete(mut self) -> Result<Completion, GenerateError> {
        let mut answer = Answer::default();
        while let Some(event) = self.blocking_next() {
            if let Some(end) = answer.add(event) {
                return end;
            }
        }
        Err(GenerateError::Stopped)
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        self.events.close();
        self.wakeup.reader_moved();
    }
}

/// Collects events into a [`Completion`].
#[derive(Default)]
struct Answer(Token);

impl Answer {
    fn add(&mut self, event: Event) -> Option<Result<Completion, GenerateError>> {
        match event {
            Event::Token(token) => {
                self.0.text.push_str(&token.text);
                self.0.token_ids.extend(token.token_ids);
                self.0.logprobs.extend(token.logprobs);
                None
            }
            Event::Done(done) => {
                let Token {
                    text,
                    token_ids,
                    logprobs,
                } = std::mem::take(&mut self.0);
                Some(Ok(Completion {
                    text,
                    token_ids,
                    logprobs,
                    done,
                }))
            }
            Event::Failed(error) => Some(Err(error)),
        }
    }
}
