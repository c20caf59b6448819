//! The thread that owns a loaded model and serves its requests.
//!
//! Continuous batching: each turn of the loop runs one decoder step over the next
//! token of every running sequence and over a part of the prompts that are still
//! being read, so a long prompt delays nobody by more than one part. Requests
//! enter and leave between steps. Nothing here waits for a reader: a sequence
//! whose channel is full sits out until it has room, or is given up after a while.
//!
//! Memory for keys and values is taken in steps as answers grow. When it runs out,
//! the youngest sequence gives its memory back and is read again later, from its
//! own tokens and to the same result. The oldest never gives way and the context
//! is never larger than the memory, so it always gets to its end: no deadlock.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use crate::decoder::{Decoder, Span};
use crate::error::GenerateError;
use crate::generation::{
    Done, Event, FinishReason, LogProb, Timings, Token, TokenLogProbs, TokenUsage,
};
use crate::kv::{KvCache, PAGE};
use crate::pool::Pool;
use crate::sampling::{Sampler, largest, log_sum};
use crate::text_stream::TextStream;
use crate::tokenizer::Tokenizer;

/// Prompt tokens per step while others decode: about a tenth of a second on a small machine.
const PROMPT_PART_SHARED: usize = 64;
/// Prompt tokens per step when nobody waits for a next token.
const PROMPT_PART_ALONE: usize = 256;
/// The least part of one prompt, so that many prompts do not starve each other.
const PROMPT_PART_LEAST: usize = 16;
/// Tokens per step of a text that is read along: each of them costs a row of logits.
const FOLLOWED_PART: usize = 64;
/// How long the thread sleeps at most while every sequence waits for its reader.
const PAUSE: Duration = Duration::from_millis(20);

/// The door between callers and the scheduler thread.
#[derive(Debug)]
pub(crate) struct Wakeup {
    inbox: Mutex<Inbox>,
    changed: Condvar,
    /// Sequences that gave their memory back and wait to go on.
    set_back: AtomicUsize,
    /// True while the thread waits for a reader; saves readers the lock otherwise.
    waits_for_reader: AtomicBool,
    max_waiting: usize,
    running: AtomicUsize,
    kv_bytes: AtomicU64,
}

#[derive(Debug, Default)]
struct Inbox {
    waiting: VecDeque<Pending>,
    stopping: bool,
}

/// A checked request on its way to the scheduler.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) prompt: Vec<u32>,
    pub(crate) sampler: Sampler,
    pub(crate) stop: Vec<String>,
    pub(crate) max_tokens: usize,
    pub(crate) logprobs: Option<usize>,
    /// Nothing is written: from this token on, each token of the prompt is reported as if it had
    /// been chosen.
    pub(crate) follows: Option<usize>,
    pub(crate) events: mpsc::Sender<Event>,
    pub(crate) submitted: Instant,
}

impl Wakeup {
    pub(crate) fn new(max_waiting: usize) -> Self {
        Self {
            inbox: Mutex::default(),
            changed: Condvar::new(),
            waits_for_reader: AtomicBool::new(false),
            max_waiting: max_waiting.max(1),
            running: AtomicUsize::new(0),
            set_back: AtomicUsize::new(0),
            kv_bytes: AtomicU64::new(0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inbox> {
        // A caller that panicked holding the lock left the queue whole: each change is one push.
        self.inbox
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Queues a request.
    pub(crate) fn submit(&self, pending: Pending) -> Result<(), GenerateError> {
        let mut inbox = self.lock();
        if inbox.stopping {
            return Err(GenerateError::Stopped);
        }
        if inbox.waiting.len() >= self.max_waiting {
            inbox.waiting.retain(|waiting| !waiting.events.is_closed());
        }
        if inbox.waiting.len() >= self.max_waiting {
            return Err(GenerateError::Busy {
                waiting: inbox.waiting.len(),
            });
        }
        inbox.waiting.push_back(pending);
        self.changed.notify_one();
        Ok(())
    }

    /// A reader took an event or went away.
    pub(crate) fn reader_moved(&self) {
        if self.waits_for_reader.load(Ordering::Acquire) {
            let _inbox = self.lock();
            self.changed.notify_one();
        }
    }

    /// Ends the thread after its current step.
    pub(crate) fn stop(&self) {
        self.lock().stopping = true;
        self.changed.notify_one();
    }

    /// Waiting, running, promised key/value bytes.
    pub(crate) fn counts(&self) -> (usize, usize, u64) {
        let waiting = self.lock().waiting.len();
        (
            waiting + self.set_back.load(Ordering::Relaxed),
            self.running.load(Ordering::Relaxed),
            self.kv_bytes.load(Ordering::Relaxed),
        )
    }
}

/// What the thread is given.
pub(crate) struct Scheduler {
    pub(crate) decoder: Decoder,
    pub(crate) tokenizer: Arc<Tokenizer>,
    pub(crate) wakeup: Arc<Wakeup>,
    pub(crate) pool: Pool,
    pub(crate) max_sequences: usize,
    pub(crate) kv_cache_bytes: u64,
    pub(crate) reader_timeout: Duration,
}

/// One running request.
struct Sequence {
    /// Prompt and answer so far. Those beyond `cache.tokens()` have not been read by the model.
    tokens: Vec<u32>,
    prompt_tokens: usize,
    cache: KvCache,
    /// Rank by age: lower is older.
    arrival: u64,
    sampler: Sampler,
    text: TextStream,
    max_tokens: usize,
    logprobs: Option<usize>,
    /// The next token to report, of a text that is read along. Kept when memory is given back.
    follows: Option<usize>,
    output: Output,
    submitted: Instant,
    admitted: Instant,
    first_token: Option<Instant>,
    /// The last event is in `output`; no more steps.
    finished: bool,
}

/// The sending end, and what did not fit.
struct Output {
    events: mpsc::Sender<Event>,
    unsent: VecDeque<Event>,
    stalled_since: Option<Instant>,
    closed: bool,
}

impl Output {
    /// Sends what fits. The last place of the channel is kept for a failure.
    fn flush(&mut self) {
        while let Some(event) = self.unsent.pop_front() {
            if self.events.capacity() <= 1 && !self.events.is_closed() {
                self.unsent.push_front(event);
                self.stalled_since.get_or_insert_with(Instant::now);
                return;
            }
            self.send(event);
        }
        self.stalled_since = None;
        self.closed |= self.events.is_closed();
    }

    fn send(&mut self, event: Event) {
        if let Err(TrySendError::Closed(_)) = self.events.try_send(event) {
            self.closed = true;
        }
    }

    fn fail(&mut self, error: GenerateError) {
        self.unsent.clear();
        self.send(Event::Failed(error));
        self.closed = true;
    }
}

/// All requests that the thread has taken up.
#[derive(Default)]
struct Sequences {
    /// Those with memory, oldest first.
    running: Vec<Sequence>,
    /// Those that gave it back, oldest first. Always older than all that wait at the door.
    set_back: Vec<Sequence>,
    arrivals: u64,
}

impl Sequences {
    fn is_empty(&self) -> bool {
        self.running.is_empty() && self.set_back.is_empty()
    }

    fn all(&mut self) -> impl Iterator<Item = &mut Sequence> {
        self.running.iter_mut().chain(&mut self.set_back)
    }

    /// Tokens that memory is taken for.
    fn room(&self) -> usize {
        self.running.iter().map(|s| s.cache.room()).sum()
    }
}

/// Puts a sequence in its place by age.
fn insert(list: &mut Vec<Sequence>, sequence: Sequence) {
    let at = list.partition_point(|other| other.arrival < sequence.arrival);
    list.insert(at, sequence);
}

impl Scheduler {
    /// Serves requests until told to stop.
    pub(crate) fn run(mut self) {
        let mut sequences = Sequences::default();
        while self.admit(&mut sequences) {
            self.tidy(&mut sequences);
            self.make_room(&mut sequences);
            let ran = self.step(&mut sequences.running);
            self.tidy(&mut sequences);
            if !ran && !sequences.running.is_empty() {
                self.wait_for_reader(&mut sequences);
            }
        }
        for sequence in sequences.all() {
            sequence.output.fail(GenerateError::Stopped);
        }
        self.report(&Sequences::default());
        let waiting = std::mem::take(&mut self.wakeup.lock().waiting);
        for pending in waiting {
            // Whoever has gone does not mind.
            let _ = pending
                .events
                .try_send(Event::Failed(GenerateError::Stopped));
        }
    }

    /// Takes up waiting requests that fit; sleeps while there is nothing to do at all. False
    /// when the model is being unloaded.
    fn admit(&self, sequences: &mut Sequences) -> bool {
        self.report(sequences);
        let mut inbox = self.wakeup.lock();
        while sequences.is_empty() && inbox.waiting.is_empty() && !inbox.stopping {
            inbox = self
                .wakeup
                .changed
                .wait(inbox)
                .unwrap_or_else(|poisoned| poisoned.into_inner());
        }
        while sequences.running.len() < self.max_sequences {
            if let Some(next) = sequences.set_back.first() {
                if !self.fits(sequences, next.first_room()) {
                    break;
                }
                let next = sequences.set_back.remove(0);
                self.take_up(sequences, next);
                continue;
            }
            let Some(next) = inbox.waiting.front() else {
                break;
            };
            let room = first_room(next.prompt.len(), next.prompt.len() + next.max_tokens);
            if !self.fits(sequences, room) {
                break;
            }
            if let Some(pending) = inbox.waiting.pop_front()
                && !pending.events.is_closed()
            {
                let sequence = self.begin(pending, sequences.arrivals);
                sequences.arrivals += 1;
                self.take_up(sequences, sequence);
            }
        }
        let go_on = !inbox.stopping;
        drop(inbox);
        self.report(sequences);
        go_on
    }

    /// Whether one more sequence may run. A page of room is left free for each that runs, or
    /// the newcomer would be set back at once; one alone always fits, see `usable_context`.
    fn fits(&self, sequences: &Sequences, room: usize) -> bool {
        let reserve = sequences.running.len() * PAGE;
        sequences.running.is_empty() || sequences.room() + reserve + room <= self.most_room()
    }

    /// Tokens that there is memory for, in whole pages.
    fn most_room(&self) -> usize {
        self.decoder.config.kv_room(self.kv_cache_bytes)
    }

    fn take_up(&self, sequences: &mut Sequences, mut sequence: Sequence) {
        sequence.cache.grow(sequence.first_room());
        insert(&mut sequences.running, sequence);
    }

    /// Takes memory for the next token of every sequence, oldest first; the youngest give way.
    fn make_room(&self, sequences: &mut Sequences) {
        let mut index = 0;
        while let Some(sequence) = sequences.running.get(index) {
            let (room, wanted) = (sequence.cache.room(), sequence.next_room());
            if !sequence.can_run() || sequence.tokens.len() <= room {
                index += 1;
            } else if sequences.room() - room + wanted <= self.most_room() {
                sequences.running[index].cache.grow(wanted);
                index += 1;
            } else if let Some(mut youngest) = sequences.running.pop() {
                youngest.cache.clear();
                insert(&mut sequences.set_back, youngest);
            }
        }
    }

    fn begin(&self, pending: Pending, arrival: u64) -> Sequence {
        Sequence {
            cache: KvCache::new(&self.decoder.config),
            arrival,
            prompt_tokens: pending.follows.unwrap_or(pending.prompt.len()),
            tokens: pending.prompt,
            sampler: pending.sampler,
            text: TextStream::new(pending.stop),
            max_tokens: pending.max_tokens,
            logprobs: pending.logprobs,
            follows: pending.follows,
            output: Output {
                events: pending.events,
                unsent: VecDeque::new(),
                stalled_since: None,
                closed: false,
            },
            submitted: pending.submitted,
            admitted: Instant::now(),
            first_token: None,
            finished: false,
        }
    }

    fn report(&self, sequences: &Sequences) {
        let bytes = sequences.room() as u64 * self.decoder.config.kv_bytes_per_token();
        let wakeup = &self.wakeup;
        wakeup
            .running
            .store(sequences.running.len(), Ordering::Relaxed);
        wakeup
            .set_back
            .store(sequences.set_back.len(), Ordering::Relaxed);
        wakeup.kv_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Sends what waits to be sent; drops sequences whose reader has gone, has stalled, or has
    /// everything.
    fn tidy(&self, sequences: &mut Sequences) {
        for sequence in sequences.all() {
            let output = &mut sequence.output;
            output.flush();
            if output
                .stalled_since
                .is_some_and(|since| since.elapsed() > self.reader_timeout)
            {
                output.fail(GenerateError::ReaderStalled {
                    seconds: self.reader_timeout.as_secs(),
                });
            }
        }
        let is_over = |s: &Sequence| s.output.closed || (s.finished && s.output.unsent.is_empty());
        for list in [&mut sequences.running, &mut sequences.set_back] {
            list.retain(|sequence| !is_over(sequence));
        }
    }

    fn wait_for_reader(&self, sequences: &mut Sequences) {
        self.wakeup.waits_for_reader.store(true, Ordering::Release);
        // A reader that moved before the flag was set has made room by now.
        self.tidy(sequences);
        let inbox = self.wakeup.lock();
        if sequences.running.iter().all(|s| !s.can_run()) && !inbox.stopping {
            drop(self.wakeup.changed.wait_timeout(inbox, PAUSE));
        }
        self.wakeup.waits_for_reader.store(false, Ordering::Release);
    }

    /// One decoder step; false if no sequence could take part.
    fn step(&mut self, sequences: &mut [Sequence]) -> bool {
        let ends = plan(sequences);
        let mut spans = Vec::new();
        for (sequence, end) in sequences.iter_mut().zip(&ends) {
            let from = sequence.cache.tokens();
            if *end > from {
                let logits = sequence.wanted_logits(from, *end);
                spans.push(Span {
                    tokens: &sequence.tokens[from..*end],
                    cache: &mut sequence.cache,
                    logits,
                });
            }
        }
        if spans.is_empty() {
            return false;
        }
        let (decoder, pool) = (&self.decoder, &mut self.pool);
        let result = catch_unwind(AssertUnwindSafe(|| decoder.step(&mut spans, pool)));
        let took_part: Vec<usize> = {
            let wanted: Vec<usize> = spans.iter().map(|span| span.logits).collect();
            drop(spans);
            wanted
        };
        let Ok(mut logits) = result else {
            tracing::error!("a decoder step panicked; its sequences are given up");
            for sequence in sequences.iter_mut() {
                sequence.output.fail(GenerateError::Internal(
                    "the decoder step failed".to_owned(),
                ));
            }
            return true;
        };
        let mut rest = logits.as_mut_slice();
        let stepped = sequences
            .iter_mut()
            .zip(&ends)
            .filter(|(s, end)| s.can_run() && **end > 0);
        for ((sequence, end), wanted) in stepped.zip(took_part) {
            let (rows, others) = rest.split_at_mut(wanted * self.decoder.config.vocabulary);
            rest = others;
            if sequence.follows.is_some() {
                let rows = rows.chunks_exact(self.decoder.config.vocabulary);
                sequence.follow(rows, *end, &self.tokenizer);
            } else if wanted > 0 {
                sequence.accept(rows, &self.tokenizer);
            }
        }
        true
    }
}

/// Up to which token each sequence is read in this step; 0 for those that sit out.
fn plan(sequences: &[Sequence]) -> Vec<usize> {
    let prompts = sequences.iter().filter(|s| s.is_reading()).count();
    let decoding = sequences.iter().any(|s| s.can_run() && !s.is_reading());
    let mut budget = if decoding {
        PROMPT_PART_SHARED
    } else {
        PROMPT_PART_ALONE
    };
    let share = (budget / prompts.max(1)).max(PROMPT_PART_LEAST);
    let mut ends: Vec<usize> = sequences
        .iter()
        .map(|sequence| {
            if !sequence.can_run() {
                return 0;
            }
            if !sequence.is_reading() {
                return sequence.tokens.len();
            }
            let part = sequence.unread().min(share).min(budget);
            let part = match sequence.follows {
                Some(_) => part.min(FOLLOWED_PART),
                None => part,
            };
            budget -= part;
            if part == 0 {
                0
            } else {
                sequence.cache.tokens() + part
            }
        })
        .collect();
    // What short prompts left over goes to the first long one.
    for (sequence, end) in sequences.iter().zip(&mut ends) {
        if sequence.is_reading() && *end > 0 && sequence.follows.is_none() {
            let more = (sequence.tokens.len() - *end).min(budget);
            budget -= more;
            *end += more;
        }
    }
    ends
}

/// Tokens to take memory for when a sequence that has `tokens` and may get to `most` begins.
fn first_room(tokens: usize, most: usize) -> usize {
    (tokens + PAGE).min(most).next_multiple_of(PAGE)
}

impl Sequence {
    fn first_room(&self) -> usize {
        first_room(self.tokens.len(), self.most_tokens())
    }

    /// What to grow to; in proportion, so that a long sequence is seldom moved in memory.
    fn next_room(&self) -> usize {
        let tokens = self.tokens.len();
        let wanted = (tokens + PAGE.max(tokens / 8)).min(self.most_tokens());
        wanted.next_multiple_of(PAGE)
    }

    fn most_tokens(&self) -> usize {
        self.prompt_tokens + self.max_tokens
    }

    /// Tokens that the model has yet to read.
    fn unread(&self) -> usize {
        self.tokens.len() - self.cache.tokens()
    }

    /// Whether it reads its prompt, or reads everything again after it was set back.
    fn is_reading(&self) -> bool {
        self.can_run() && (self.first_token.is_none() || self.unread() > 1)
    }

    /// Whether the next step may include it.
    fn can_run(&self) -> bool {
        !self.finished && !self.output.closed && self.output.unsent.is_empty()
    }

    /// After how many of the tokens `from..end` the logits are wanted, counted from the last.
    fn wanted_logits(&self, from: usize, end: usize) -> usize {
        match self.follows {
            None => usize::from(end == self.tokens.len()),
            // A token's logits foretell the one after it.
            Some(next) => end.saturating_sub(from.max(next.saturating_sub(1))),
        }
    }

    /// Reports the tokens that these rows foretell, the last of which comes after token `end - 1`.
    fn follow<'a>(
        &mut self,
        rows: impl ExactSizeIterator<Item = &'a [f32]>,
        end: usize,
        tokenizer: &Tokenizer,
    ) {
        if rows.len() == 0 {
            // Still before the text that is reported.
            return;
        }
        let first = end - rows.len() + 1;
        let top = self.logprobs.unwrap_or(0);
        let mut event = Token::default();
        for (row, token) in rows.zip(self.tokens.get(first..).unwrap_or_default()) {
            event.token_ids.push(*token);
            let logprobs = token_logprobs(row, *token, top, tokenizer);
            event.logprobs.push(logprobs);
        }
        self.follows = Some(first + event.token_ids.len());
        if end == self.tokens.len() {
            return self.finish(event, FinishReason::Stop);
        }
        if !event.token_ids.is_empty() {
            self.output.unsent.push_back(Event::Token(event));
            self.output.flush();
        }
    }

    /// Chooses the next token from its logits and passes on what that adds to the answer.
    fn accept(&mut self, logits: &mut [f32], tokenizer: &Tokenizer) {
        let raw = self.logprobs.map(|_| logits.to_vec());
        let token = self.sampler.choose(logits);
        self.first_token.get_or_insert_with(Instant::now);
        self.tokens.push(token);
        if tokenizer.ends_turn(token) {
            let text = self.text.finish();
            return self.finish(
                Token {
                    text,
                    ..Token::default()
                },
                FinishReason::Stop,
            );
        }
        let piece = self.text.push(tokenizer.bytes_of(token));
        let logprobs =
            raw.map(|raw| token_logprobs(&raw, token, self.logprobs.unwrap_or(0), tokenizer));
        let mut event = Token {
            text: piece.text,
            token_ids: vec![token],
            logprobs: logprobs.into_iter().collect(),
        };
        if piece.stopped {
            return self.finish(event, FinishReason::Stop);
        }
        if self.completion_tokens() >= self.max_tokens {
            event.text += &self.text.finish();
            return self.finish(event, FinishReason::Length);
        }
        self.output.unsent.push_back(Event::Token(event));
        self.output.flush();
    }

    fn completion_tokens(&self) -> usize {
        self.tokens.len() - self.prompt_tokens
    }

    fn finish(&mut self, last: Token, finish_reason: FinishReason) {
        let micros =
            |from: Instant, to: Instant| to.saturating_duration_since(from).as_micros() as u64;
        let now = Instant::now();
        let first = self.first_token.unwrap_or(now);
        let done = Done {
            finish_reason,
            usage: TokenUsage {
                prompt_tokens: self.prompt_tokens,
                completion_tokens: self.completion_tokens(),
            },
            timings: Timings {
                queue_us: micros(self.submitted, self.admitted),
                prefill_us: micros(self.admitted, first),
                decode_us: micros(first, now),
            },
        };
        if last != Token::default() {
            self.output.unsent.push_back(Event::Token(last));
        }
        self.output.unsent.push_back(Event::Done(done));
        self.finished = true;
        self.cache.clear();
        self.output.flush();
    }
}

/// The chosen token's and the likeliest tokens' log-probabilities, as the model gave them.
fn token_logprobs(logits: &[f32], chosen: u32, top: usize, tokenizer: &Tokenizer) -> TokenLogProbs {
    let total = log_sum(logits);
    let entry = |token_id: u32, logit: f32| LogProb {
        token_id,
        bytes: tokenizer.bytes_of(token_id).to_vec(),
        logprob: logit - total,
    };
    TokenLogProbs {
        chosen: entry(chosen, logits[chosen as usize]),
        top: largest(logits, top)
            .into_iter()
            .map(|(token, logit)| entry(token, logit))
            .collect(),
    }
}
