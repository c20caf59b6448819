//! A chat model in memory: the door to loading, prompts and generations.

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use base::{Clock, Random, SystemClock, SystemRandom};
use tokio::sync::mpsc;

use crate::config::DecoderConfig;
use crate::decoder::Decoder;
use crate::error::{GenerateError, LoadError, LoadErrorKind};
use crate::generation::Generation;
use crate::kv::PAGE;
use crate::marks;
use crate::pool::Pool;
use crate::request::{ChatPrompt, GenerateRequest, Prompt, Sampling};
use crate::sampling::Sampler;
use crate::scheduler::{Pending, Scheduler, Wakeup};
use crate::template::ChatTemplate;
use crate::tokenizer::{Tokenizer, template_of_directory};
use crate::weights::{Weights, read_json};

/// Most alternatives that a request may ask for per token.
const MAX_LOGPROBS: usize = 20;

/// How to load and run a chat model.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// How weights are held in memory.
    pub precision: Precision,
    /// Threads that compute; `None` uses the machine's cores.
    pub threads: Option<usize>,
    /// Upper bound on the context, below the model's own.
    pub max_context: Option<usize>,
    /// Sequences that run at once.
    pub max_sequences: usize,
    /// Requests that may wait; more get [`GenerateError::Busy`].
    pub max_waiting: usize,
    /// Memory for keys and values of all running sequences, in bytes.
    pub kv_cache_bytes: u64,
    /// Events that a reader may leave unread before its sequence pauses.
    pub event_buffer: usize,
    /// A paused sequence is given up after this time.
    pub reader_timeout: Duration,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            precision: Precision::Quantised,
            threads: None,
            max_context: None,
            max_sequences: 16,
            max_waiting: 64,
            kv_cache_bytes: 2 << 30,
            event_buffer: 64,
            reader_timeout: Duration::from_secs(60),
        }
    }
}

/// How weights are held in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// Integer blocks of 32: 4-bit files stay at 4 bits, everything else becomes 8-bit.
    Quantised,
    /// 32-bit floats, whatever the file holds: exact and slow.
    Full,
}

/// How busy a model is right now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ModelLoad {
    /// Requests waiting, those included that gave their memory back for a while.
    pub waiting: usize,
    /// Sequences running.
    pub running: usize,
    /// Bytes of key/value memory that running sequences hold.
    pub kv_cache_bytes: u64,
}

/// A loaded chat model. Cloning shares it; the last clone unloads it, which ends running
/// generations with [`GenerateError::Stopped`].
#[derive(Debug, Clone)]
pub struct ChatModel {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    tokenizer: Arc<Tokenizer>,
    /// The template, or why there is none.
    template: Result<ChatTemplate, String>,
    wakeup: Arc<Wakeup>,
    context_length: usize,
    vocabulary: usize,
    event_buffer: usize,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.wakeup.stop();
        if let Some(thread) = self.thread.take() {
            // The thread catches panics of steps; if it died all the same, it has ended.
            let _ = thread.join();
        }
    }
}

/// A model's parts as read from disk.
struct Parts {
    weights: Weights,
    config: DecoderConfig,
    tokenizer: Tokenizer,
    template: Option<String>,
    is_gguf: bool,
}

impl Parts {
    fn open(path: &Path) -> Result<Self, LoadError> {
        if path.is_dir() {
            let config = path.join("config.json");
            return Ok(Self {
                config: DecoderConfig::from_json(&read_json(&config)?, &config)?,
                weights: Weights::open_safetensors(path)?,
                tokenizer: Tokenizer::from_directory(path)?,
                template: template_of_directory(path)?,
                is_gguf: false,
            });
        }
        let (weights, gguf) = Weights::open_gguf(path)?;
        Ok(Self {
            config: DecoderConfig::from_gguf(&gguf, path)?,
            weights,
            tokenizer: Tokenizer::from_gguf(&gguf, path)?,
            template: gguf.text("tokenizer.chat_template").map(str::to_owned),
            is_gguf: true,
        })
    }
}

impl ChatModel {
    /// Loads a GGUF file, or a directory with `config.json`, `tokenizer.json` and safetensors.
    /// Takes a second or more: call it off the async runtime.
    pub fn load(path: &Path, options: LoadOptions) -> Result<Self, LoadError> {
        let Parts {
            weights,
            config,
            tokenizer,
            template,
            is_gguf,
        } = Parts::open(path)?;
        if tokenizer.size() > config.vocabulary {
            return Err(LoadError::broken(
                path,
                format!(
                    "the tokenizer has {} tokens, the model only {}",
                    tokenizer.size(),
                    config.vocabulary
                ),
            ));
        }
        let context_length = usable_context(&config, &options, path)?;
        let vocabulary = config.vocabulary;
        let template = match template {
            Some(source) => ChatTemplate::new(&source, &tokenizer.bos_text, &tokenizer.eos_text),
            None => Err("the model has no chat template".to_owned()),
        };
        let decoder = Decoder::load(&weights, config, options.precision, is_gguf, path)?;
        let tokenizer = Arc::new(tokenizer);
        let wakeup = Arc::new(Wakeup::new(options.max_waiting));
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
        let scheduler = Scheduler {
            decoder,
            tokenizer: Arc::clone(&tokenizer),
            wakeup: Arc::clone(&wakeup),
            pool: Pool::new(options.threads.unwrap_or(cores).clamp(1, 64)),
            max_sequences: options.max_sequences.max(1),
            kv_cache_bytes: options.kv_cache_bytes,
            reader_timeout: options.reader_timeout,
        };
        let thread = std::thread::Builder::new()
            .name("engine-scheduler".to_owned())
            .spawn(move || scheduler.run())
            .map_err(|error| LoadError::io(path, &error))?;
        let inner = Inner {
            tokenizer,
            template,
            wakeup,
            context_length,
            vocabulary,
            event_buffer: options.event_buffer.max(1),
            thread: Some(thread),
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// The longest prompt and answer together, in tokens.
    pub fn context_length(&self) -> usize {
        self.inner.context_length
    }

    /// Whether conversations can be given, not only text and tokens.
    pub fn has_chat_template(&self) -> bool {
        self.inner.template.is_ok()
    }

    /// Queues a generation. Renders and tokenises the prompt on the calling thread (milliseconds
    /// for a long one) and returns before the first token.
    pub fn generate(&self, request: GenerateRequest) -> Result<Generation, GenerateError> {
        let submitted = Instant::now();
        request
            .sampling
            .check()
            .map_err(GenerateError::InvalidRequest)?;
        if request.logprobs.is_some_and(|top| top > MAX_LOGPROBS) {
            return Err(GenerateError::InvalidRequest(format!(
                "logprobs must be at most {MAX_LOGPROBS}"
            )));
        }
        let prompt = self.prompt_tokens(&request.prompt)?;
        let prompt_tokens = prompt.len();
        let max_tokens = self.room(prompt_tokens, request.max_tokens)?;
        // One place more than the reader may leave unread is kept for a failure.
        let (events, receiver) = mpsc::channel(self.inner.event_buffer + 1);
        let mut seed = [0; 8];
        SystemRandom.fill(&mut seed);
        let pending = Pending {
            sampler: Sampler::new(request.sampling, &prompt, u64::from_le_bytes(seed)),
            prompt,
            stop: request.stop,
            max_tokens,
            logprobs: request.logprobs,
            follows: None,
            events,
            submitted,
        };
        self.inner.wakeup.submit(pending)?;
        Ok(Generation::new(
            receiver,
            Arc::clone(&self.inner.wakeup),
            prompt_tokens,
        ))
    }

    /// Reads a text and reports for each of its tokens how probable it was, as if the model had
    /// chosen them: after this prompt, or else after what the model expects before a text. Where that
    /// is nothing, the first token of the text is not reported. Nothing in the text is
    /// special, and no text comes with the events.
    pub fn read_along(
        &self,
        after: Option<&Prompt>,
        text: &str,
    ) -> Result<Generation, GenerateError> {
        let submitted = Instant::now();
        let mut tokens = match after {
            Some(prompt) => self.prompt_tokens(prompt)?,
            // What the model expects before a text; often nothing.
            None => self
                .inner
                .tokenizer
                .encode_prompt("")
                .map_err(GenerateError::Internal)?,
        };
        let first = tokens.len().max(1);
        let text = self.inner.tokenizer.encode_text(text);
        tokens.extend(text.map_err(GenerateError::Internal)?);
        let length = tokens.len().saturating_sub(first);
        if length == 0 {
            return Err(GenerateError::InvalidRequest(
                "the text has no token that could be foretold".to_owned(),
            ));
        }
        if tokens.len() > self.inner.context_length {
            return Err(GenerateError::ContextOverflow {
                prompt_tokens: first,
                max_tokens: length,
                context_length: self.inner.context_length,
            });
        }
        let (events, receiver) = mpsc::channel(self.inner.event_buffer + 1);
        let pending = Pending {
            sampler: Sampler::new(Sampling::greedy(), &[], 0),
            prompt: tokens,
            stop: Vec::new(),
            max_tokens: length,
            logprobs: None,
            follows: Some(first),
            events,
            submitted,
        };
        self.inner.wakeup.submit(pending)?;
        let wakeup = Arc::clone(&self.inner.wakeup);
        Ok(Generation::new(receiver, wakeup, first))
    }

    /// The prompt text that the model would read for this conversation.
    pub fn render_chat(&self, chat: &ChatPrompt) -> Result<String, GenerateError> {
        let template = self
            .inner
            .template
            .as_ref()
            .map_err(|e| GenerateError::Template(e.clone()))?;
        template
            .render(chat, SystemClock.now_us())
            .map_err(GenerateError::Template)
    }

    /// Token ids of a text; special tokens written in it are recognised, nothing is added.
    pub fn tokenize(&self, text: &str) -> Result<Vec<u32>, GenerateError> {
        self.inner
            .tokenizer
            .encode(text)
            .map_err(GenerateError::Internal)
    }

    /// How busy the model is.
    pub fn load_now(&self) -> ModelLoad {
        let (waiting, running, kv_cache_bytes) = self.inner.wakeup.counts();
        ModelLoad {
            waiting,
            running,
            kv_cache_bytes,
        }
    }

    fn prompt_tokens(&self, prompt: &Prompt) -> Result<Vec<u32>, GenerateError> {
        let tokens = match prompt {
            Prompt::Tokens(tokens) => tokens.clone(),
            Prompt::Text(text) => self
                .inner
                .tokenizer
                .encode_prompt(text)
                .map_err(GenerateError::Internal)?,
            Prompt::Chat(chat) => self.chat_tokens(chat)?,
        };
        if tokens.is_empty() {
            return Err(GenerateError::InvalidRequest(
                "the prompt is empty".to_owned(),
            ));
        }
        if let Some(token) = tokens
            .iter()
            .find(|token| **token as usize >= self.inner.vocabulary)
        {
            return Err(GenerateError::InvalidRequest(format!(
                "token {token} is outside the vocabulary of {}",
                self.inner.vocabulary
            )));
        }
        Ok(tokens)
    }

    /// Tokens of a conversation. Only the template writes special tokens; the same text in a
    /// message is text.
    fn chat_tokens(&self, chat: &ChatPrompt) -> Result<Vec<u32>, GenerateError> {
        let tokenizer = &self.inner.tokenizer;
        let marked =
            marks::mark(chat, tokenizer.special_texts()).map_err(GenerateError::InvalidRequest)?;
        let tokens = match marked {
            None => tokenizer.encode(&self.render_chat(chat)?),
            Some((chat, mark)) => tokenizer.encode_marked(&self.render_chat(&chat)?, mark),
        };
        tokens.map_err(GenerateError::Internal)
    }

    /// How many tokens the answer may have.
    fn room(&self, prompt_tokens: usize, wanted: Option<usize>) -> Result<usize, GenerateError> {
        if wanted == Some(0) {
            return Err(GenerateError::InvalidRequest(
                "max_tokens must be at least 1".to_owned(),
            ));
        }
        let context_length = self.inner.context_length;
        let left = context_length.saturating_sub(prompt_tokens);
        if left == 0 || wanted.is_some_and(|wanted| wanted > left) {
            let max_tokens = wanted.unwrap_or(1);
            return Err(GenerateError::ContextOverflow {
                prompt_tokens,
                max_tokens,
                context_length,
            });
        }
        Ok(wanted.unwrap_or(left))
    }
}

/// The context that the model, the options and the memory for keys and values allow.
fn usable_context(
    config: &DecoderConfig,
    options: &LoadOptions,
    path: &Path,
) -> Result<usize, LoadError> {
    let context = config
        .context_length
        .min(options.max_context.unwrap_or(usize::MAX))
        .min(config.kv_room(options.kv_cache_bytes));
    if context < 2 {
        let message = format!(
            "{} bytes for keys and values hold no context: {PAGE} tokens, the least, take {}",
            options.kv_cache_bytes,
            config.kv_bytes_per_token() * PAGE as u64
        );
        return Err(LoadError::new(path, LoadErrorKind::TooLarge, message));
    }
    Ok(context)
}
