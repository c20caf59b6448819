//! The installed models as the gateway calls them: loaded on first use, once,
//! off the runtime, and kept.
//!
//! A model is known by its digest: when a name gets other content, calls that
//! run finish on the old one and new calls load the new one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use base::{Digest, Ids, TraceId, Usage};
use db::Db;
use engine::{
    ChatModel, ChatPrompt, EmbedError, Embedder, Event, GenerateError, GenerateRequest, Generation,
    LoadOptions, Prompt, Sampling, TokenVectors,
};
use futures_util::StreamExt as _;
use futures_util::stream;
use gateway::{
    FinishReason, LocalChat, LocalEmbed, LocalEmbedding, LocalEmbeddings, LocalError, LocalEvent,
    LocalKind, LocalModel, LocalModels, LocalStream, TokenLogprob,
};
use tokio::sync::{OnceCell, Semaphore};

use super::jobs::Pulls;
use super::tool_calls::{Piece, ToolCalls};
use super::{Model, ModelsFolder, Task, store};

/// Embedding calls that may wait for their turn.
const EMBEDDINGS_WAITING: usize = 64;

/// What a chat model uses when a request says nothing about sampling: a small
/// model that draws from its whole vocabulary at temperature 1 writes nonsense.
fn usual_sampling() -> Sampling {
    Sampling {
        temperature: 0.7,
        top_k: 40,
        top_p: 0.95,
        ..Sampling::default()
    }
}

/// Models that run in this process.
pub struct LocalEngine {
    db: Db,
    folder: ModelsFolder,
    threads: Option<usize>,
    installed: RwLock<BTreeMap<String, Arc<Installed>>>,
    /// The pulls of this process.
    pub pulls: Pulls,
}

impl std::fmt::Debug for LocalEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalEngine").finish_non_exhaustive()
    }
}

/// A model with its place in memory.
struct Installed {
    name: String,
    digest: Digest,
    task: Task,
    path: PathBuf,
    installed_at: i64,
    loaded: OnceCell<Loaded>,
    phase: Mutex<Phase>,
}

#[derive(Clone)]
enum Loaded {
    Chat(ChatModel),
    Embedding(Arc<Embedding>),
}

struct Embedding {
    embedder: Embedder,
    turn: Semaphore,
    waiting: Semaphore,
}

/// Whether a model is in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// On disk; the first call loads it.
    Ready,
    /// Being loaded.
    Loading,
    /// In memory.
    Loaded,
    /// Its files are not in this data directory, or could not be loaded.
    Broken(String),
}

impl LocalEngine {
    /// No models yet; see [`LocalEngine::refresh`]. `threads` 0 uses every core.
    pub fn new(db: Db, data_dir: &Path, threads: usize) -> Self {
        Self {
            db,
            folder: ModelsFolder::of(data_dir),
            threads: (threads > 0).then_some(threads),
            installed: RwLock::default(),
            pulls: Pulls::default(),
        }
    }

    /// Where the models' files are.
    pub fn folder(&self) -> &ModelsFolder {
        &self.folder
    }

    /// Reads again which models are installed. Those that did not change stay in memory.
    ///
    /// # Errors
    /// The database cannot be read; the old list stays in force.
    pub async fn refresh(&self) -> anyhow::Result<()> {
        let models = store::list(&self.db).await?;
        let mut installed = self
            .installed
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let mut next = BTreeMap::new();
        for model in models {
            let kept = installed
                .remove(&model.name)
                .filter(|kept| kept.digest == model.digest);
            let entry = kept.unwrap_or_else(|| Arc::new(Installed::new(&model, &self.folder)));
            next.insert(model.name, entry);
        }
        *installed = next;
        Ok(())
    }

    /// The embedding models' names.
    pub fn embedding_names(&self) -> Vec<String> {
        let embedding = |model: &LocalModel| model.kind == LocalKind::Embedding;
        self.list()
            .into_iter()
            .filter(embedding)
            .map(|model| model.name)
            .collect()
    }

    /// Whether a model is in memory; `None` when there is none of this name.
    pub fn phase(&self, name: &str) -> Option<Phase> {
        let installed = self.find(name).ok()?;
        Some(installed.phase())
    }

    /// How many tokens a chat model's prompt has with these messages; `None` unless
    /// the model is in memory: nobody waits for a load to have a number.
    pub fn count_tokens(&self, name: &str, messages: &[serde_json::Value]) -> Option<usize> {
        let installed = self.find(name).ok()?;
        let Some(Loaded::Chat(chat)) = installed.loaded.get() else {
            return None;
        };
        let text = chat.render_chat(&ChatPrompt::new(messages.to_vec())).ok()?;
        Some(chat.tokenize(&text).ok()?.len())
    }

    /// What stands behind a name at this moment.
    pub fn digest(&self, name: &str) -> Option<Digest> {
        Some(self.find(name).ok()?.digest)
    }

    /// The tokens of texts as an embedding model reads them.
    ///
    /// # Errors
    /// There is no such model, it is of another kind, or busy.
    pub async fn token_ids(
        &self,
        name: &str,
        texts: Vec<String>,
    ) -> Result<Vec<Vec<u32>>, LocalError> {
        let work = move |embedder: &Embedder| {
            let ids = texts.iter().map(|text| embedder.token_ids(text));
            ids.collect::<Result<_, _>>()
        };
        with_embedder(self.find(name)?, self.threads, work).await
    }

    /// The tokens of texts and their vectors at one depth of an embedding model; the last when
    /// none is named.
    ///
    /// # Errors
    /// As [`LocalEngine::token_ids`], or the model has no such layer.
    pub async fn token_vectors(
        &self,
        name: &str,
        texts: Vec<String>,
        layer: Option<usize>,
    ) -> Result<Vec<TokenVectors>, LocalError> {
        let work = move |embedder: &Embedder| {
            let vectors = texts.iter().map(|text| embedder.token_vectors(text, layer));
            vectors.collect::<Result<_, _>>()
        };
        with_embedder(self.find(name)?, self.threads, work).await
    }

    /// How probable a chat model held each token of a text, as natural logarithms: after a
    /// conversation, or as the beginning of a text where there is none.
    ///
    /// # Errors
    /// There is no such model, it is of another kind, busy, or the text is too long for it.
    pub async fn text_logprobs(
        &self,
        name: &str,
        after: Option<Vec<serde_json::Value>>,
        text: String,
    ) -> Result<Vec<f64>, LocalError> {
        let model = self.find(name)?;
        if model.task != Task::Chat {
            let what = "is an embedding model; it gives no probabilities of texts";
            return Err(wrong_task(&model.name, what));
        }
        let Loaded::Chat(chat) = model.loaded(self.threads).await? else {
            return Err(LocalError::Failed(
                "another kind of model was loaded".to_owned(),
            ));
        };
        let started = tokio::task::spawn_blocking(move || {
            let prompt = after.map(|messages| Prompt::Chat(ChatPrompt::new(messages)));
            chat.read_along(prompt.as_ref(), &text)
        });
        let started = started.await;
        let started = started
            .map_err(|error| LocalError::Failed(format!("reading a text: {error}")))?
            .map_err(from_generate)?;
        let read = started.complete().await.map_err(from_generate)?;
        let chosen = read
            .logprobs
            .iter()
            .map(|token| f64::from(token.chosen.logprob));
        Ok(chosen.collect())
    }

    fn find(&self, name: &str) -> Result<Arc<Installed>, LocalError> {
        let installed = self
            .installed
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        let found = installed
            .get(name)
            .or_else(|| installed.get(&name.to_ascii_lowercase()));
        found
            .cloned()
            .ok_or_else(|| LocalError::UnknownModel(name.to_owned()))
    }
}

impl Installed {
    fn new(model: &Model, folder: &ModelsFolder) -> Self {
        Self {
            name: model.name.clone(),
            digest: model.digest,
            task: model.task,
            path: folder.absolute(&model.path),
            installed_at: model.installed_at,
            loaded: OnceCell::new(),
            phase: Mutex::new(Phase::Ready),
        }
    }

    fn phase(&self) -> Phase {
        let phase = self
            .phase
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        if phase == Phase::Ready && !self.path.exists() {
            return Phase::Broken(
                "its files are not in this data directory; pull it again".to_owned(),
            );
        }
        phase
    }

    fn set_phase(&self, phase: Phase) {
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner) = phase;
    }

    /// The model in memory. Callers at the same time share one load; a load that
    /// failed is tried again by the next call.
    async fn loaded(self: &Arc<Self>, threads: Option<usize>) -> Result<Loaded, LocalError> {
        let load = async || {
            self.set_phase(Phase::Loading);
            // A caller that leaves meanwhile must not leave the word "loading" behind.
            let unless_done = Unfinished(self);
            let this = Arc::clone(self);
            let loaded = tokio::task::spawn_blocking(move || this.load(threads)).await;
            let loaded =
                loaded.unwrap_or_else(|error| Err(format!("loading it ended early: {error}")));
            std::mem::forget(unless_done);
            match loaded {
                Ok(loaded) => {
                    self.set_phase(Phase::Loaded);
                    Ok(loaded)
                }
                Err(message) => {
                    tracing::warn!(model.name = %self.name, path = %self.path.display(), "model {} not loaded: {message}", self.name);
                    self.set_phase(Phase::Broken(message.clone()));
                    Err(LocalError::Failed(format!(
                        "the model {:?} could not be loaded: {message}",
                        self.name
                    )))
                }
            }
        };
        self.loaded.get_or_try_init(load).await.cloned()
    }

    /// Blocks. The message names no path: callers of the API see it.
    fn load(&self, threads: Option<usize>) -> Result<Loaded, String> {
        let loaded = match self.task {
            Task::Chat => {
                let options = LoadOptions {
                    threads,
                    ..LoadOptions::default()
                };
                ChatModel::load(&self.path, options).map(Loaded::Chat)
            }
            Task::Embedding => Embedder::load(&self.path).map(|embedder| {
                let (turn, waiting) = (Semaphore::new(1), Semaphore::new(EMBEDDINGS_WAITING));
                Loaded::Embedding(Arc::new(Embedding {
                    embedder,
                    turn,
                    waiting,
                }))
            }),
        };
        loaded.map_err(|error| error.message)
    }
}

/// Puts the phase back when a load is given up by its caller.
struct Unfinished<'a>(&'a Installed);

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        self.0.set_phase(Phase::Ready);
    }
}

impl LocalModels for LocalEngine {
    fn list(&self) -> Vec<LocalModel> {
        let installed = self
            .installed
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        let model = |installed: &Arc<Installed>| LocalModel {
            name: installed.name.clone(),
            kind: match installed.task {
                Task::Chat => LocalKind::Chat,
                Task::Embedding => LocalKind::Embedding,
            },
            installed_at: installed.installed_at,
        };
        installed.values().map(model).collect()
    }

    fn chat(&self, request: LocalChat) -> LocalStream {
        let (found, threads, ids) = (
            self.find(&request.model),
            self.threads,
            self.db.ids().clone(),
        );
        let started = async move { start(found?, threads, ids, request).await };
        // Dropping the stream drops the generation, which stops before its next token.
        Box::pin(stream::once(started).flat_map(|started| match started {
            Ok(answer) => stream::unfold(Some(answer), Answer::step).left_stream(),
            Err(error) => stream::iter([Err(error)]).right_stream(),
        }))
    }

    fn embed(&self, request: LocalEmbed) -> LocalEmbedding {
        let (found, threads) = (self.find(&request.model), self.threads);
        Box::pin(async move { embed(found?, threads, request.inputs).await })
    }
}

async fn start(
    model: Arc<Installed>,
    threads: Option<usize>,
    ids: Ids,
    request: LocalChat,
) -> Result<Answer, LocalError> {
    if model.task != Task::Chat {
        return Err(wrong_task(&model.name, "gives embeddings; it cannot chat"));
    }
    let Loaded::Chat(chat) = model.loaded(threads).await? else {
        return Err(LocalError::Failed(
            "an embedding model was loaded as a chat model".to_owned(),
        ));
    };
    let splitter = (!request.tools.is_empty()).then(|| ToolCalls::new(&request.tools));
    let request = to_engine(request);
    // The prompt is rendered and tokenised here, which takes milliseconds for a long one.
    let started = tokio::task::spawn_blocking(move || chat.generate(request)).await;
    let generation =
        started.map_err(|error| LocalError::Failed(format!("starting a generation: {error}")))?;
    let generation = generation.map_err(from_generate)?;
    Ok(Answer {
        generation,
        splitter,
        ids,
        called: false,
        logprobs: Vec::new(),
        ready: Vec::new().into_iter(),
        over: false,
    })
}

fn wrong_task(name: &str, what: &str) -> LocalError {
    LocalError::Invalid {
        param: "model",
        message: format!("the model {name:?} {what}"),
    }
}

fn to_engine(request: LocalChat) -> GenerateRequest {
    let silent = request.temperature.is_none()
        && request.top_p.is_none()
        && request.top_k.is_none()
        && request.min_p.is_none();
    let usual = if silent {
        usual_sampling()
    } else {
        Sampling::default()
    };
    #[expect(
        clippy::cast_possible_truncation,
        reason = "sampling parameters are small numbers"
    )]
    let or = |given: Option<f64>, usual: f32| given.map_or(usual, |value| value as f32);
    let sampling = Sampling {
        repetition_penalty: or(request.repetition_penalty, usual.repetition_penalty),
        frequency_penalty: or(request.frequency_penalty, usual.frequency_penalty),
        presence_penalty: or(request.presence_penalty, usual.presence_penalty),
        temperature: or(request.temperature, usual.temperature),
        top_k: request.top_k.map_or(usual.top_k, |k| k as usize),
        top_p: or(request.top_p, usual.top_p),
        min_p: or(request.min_p, usual.min_p),
        seed: request.seed,
    };
    let chat = ChatPrompt {
        messages: request.messages,
        tools: request.tools,
        add_generation_prompt: true,
    };
    GenerateRequest {
        prompt: Prompt::Chat(chat),
        sampling,
        stop: request.stop,
        max_tokens: request.max_tokens.map(|tokens| tokens as usize),
        logprobs: request.top_logprobs.map(usize::from),
    }
}

fn from_generate(error: GenerateError) -> LocalError {
    match error {
        GenerateError::Busy { .. } => LocalError::Busy,
        GenerateError::ContextOverflow { .. } => LocalError::ContextOverflow(error.to_string()),
        GenerateError::InvalidRequest(message) => LocalError::Invalid {
            param: parameter_of(&message),
            message,
        },
        GenerateError::Template(_) => LocalError::Invalid {
            param: "messages",
            message: error.to_string(),
        },
        GenerateError::ReaderStalled { .. }
        | GenerateError::Stopped
        | GenerateError::Internal(_) => LocalError::Failed(error.to_string()),
    }
}

/// The engine's messages begin with the parameter's name.
fn parameter_of(message: &str) -> &'static str {
    const NAMES: [&str; 9] = [
        "temperature",
        "top_p",
        "top_k",
        "min_p",
        "repetition_penalty",
        "frequency_penalty",
        "presence_penalty",
        "stop",
        "max_tokens",
    ];
    NAMES
        .into_iter()
        .find(|name| message.starts_with(name))
        .unwrap_or("messages")
}

/// A running generation, translated step by step.
struct Answer {
    generation: Generation,
    splitter: Option<ToolCalls>,
    ids: Ids,
    called: bool,
    /// Of tokens whose text has not been sent yet.
    logprobs: Vec<TokenLogprob>,
    ready: std::vec::IntoIter<LocalEvent>,
    over: bool,
}

type Step = Option<(Result<LocalEvent, LocalError>, Option<Answer>)>;

impl Answer {
    async fn step(answer: Option<Self>) -> Step {
        let mut answer = answer?;
        loop {
            if let Some(event) = answer.ready.next() {
                return Some((Ok(event), Some(answer)));
            }
            if answer.over {
                return None;
            }
            match answer.generation.next().await {
                Some(Event::Token(token)) => {
                    answer.logprobs.extend(token.logprobs.iter().map(logprob));
                    let pieces = match &mut answer.splitter {
                        Some(splitter) => splitter.push(&token.text),
                        None if token.text.is_empty() => Vec::new(),
                        None => vec![Piece::Text(token.text)],
                    };
                    answer.ready = answer.events(pieces).into_iter();
                }
                Some(Event::Done(done)) => answer.end(&done),
                Some(Event::Failed(error)) => return Some((Err(from_generate(error)), None)),
                None => return Some((Err(from_generate(GenerateError::Stopped)), None)),
            }
        }
    }

    fn end(&mut self, done: &engine::Done) {
        let rest = self
            .splitter
            .take()
            .map(ToolCalls::finish)
            .unwrap_or_default();
        let mut events = self.events(rest);
        if !self.logprobs.is_empty() {
            events.push(LocalEvent::Text {
                text: String::new(),
                logprobs: std::mem::take(&mut self.logprobs),
            });
        }
        let reason = match done.finish_reason {
            engine::FinishReason::Length => FinishReason::Length,
            engine::FinishReason::Stop if self.called => FinishReason::ToolCalls,
            engine::FinishReason::Stop => FinishReason::Stop,
        };
        let usage = Usage {
            input: done.usage.prompt_tokens as u64,
            output: done.usage.completion_tokens as u64,
            ..Usage::default()
        };
        events.push(LocalEvent::Finish { reason, usage });
        self.ready = events.into_iter();
        self.over = true;
    }

    fn events(&mut self, pieces: Vec<Piece>) -> Vec<LocalEvent> {
        let mut events = Vec::with_capacity(pieces.len());
        for piece in pieces {
            events.push(match piece {
                Piece::Text(text) => LocalEvent::Text {
                    text,
                    logprobs: std::mem::take(&mut self.logprobs),
                },
                Piece::Call { name, arguments } => {
                    self.called = true;
                    let id = format!("call_{}", self.ids.make::<TraceId>());
                    LocalEvent::ToolCall {
                        id,
                        name,
                        arguments,
                    }
                }
            });
        }
        events
    }
}

fn logprob(token: &engine::TokenLogProbs) -> TokenLogprob {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    TokenLogprob {
        token: text(&token.chosen.bytes),
        bytes: token.chosen.bytes.clone(),
        logprob: f64::from(token.chosen.logprob),
        top: token
            .top
            .iter()
            .map(|rival| {
                (
                    text(&rival.bytes),
                    rival.bytes.clone(),
                    f64::from(rival.logprob),
                )
            })
            .collect(),
    }
}

/// Work with an embedding model off the runtime, one caller at a time.
async fn with_embedder<T: Send + 'static>(
    model: Arc<Installed>,
    threads: Option<usize>,
    work: impl FnOnce(&Embedder) -> Result<T, EmbedError> + Send + 'static,
) -> Result<T, LocalError> {
    if model.task != Task::Embedding {
        return Err(wrong_task(
            &model.name,
            "is a chat model; it gives no embeddings",
        ));
    }
    let Loaded::Embedding(embedding) = model.loaded(threads).await? else {
        return Err(LocalError::Failed(
            "a chat model was loaded as an embedding model".to_owned(),
        ));
    };
    let _waiting = embedding
        .waiting
        .try_acquire()
        .map_err(|_| LocalError::Busy)?;
    let closed = |_| LocalError::Failed("the embedding model is closed".to_owned());
    let _turn = embedding.turn.acquire().await.map_err(closed)?;
    let working = Arc::clone(&embedding);
    let done = tokio::task::spawn_blocking(move || work(&working.embedder)).await;
    let done = done.map_err(|error| LocalError::Failed(format!("embedding texts: {error}")))?;
    done.map_err(|error| match error {
        EmbedError::InvalidRequest(message) => LocalError::Invalid {
            param: "input",
            message,
        },
        EmbedError::Internal(_) => LocalError::Failed(error.to_string()),
    })
}

async fn embed(
    model: Arc<Installed>,
    threads: Option<usize>,
    inputs: Vec<String>,
) -> Result<LocalEmbeddings, LocalError> {
    let work = move |embedder: &Embedder| embedder.embed(&inputs);
    let done = with_embedder(model, threads, work).await?;
    let input_tokens = done.token_counts.iter().map(|count| *count as u64).sum();
    Ok(LocalEmbeddings {
        vectors: done.vectors,
        input_tokens,
    })
}
