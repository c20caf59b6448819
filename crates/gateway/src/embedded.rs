//! Texts compared by embeddings: examples of prompts before they are rendered, and of topics and
//! classifiers for guards.
//!
//! The model is called like any other, through the plan, with a record of its own
//! under the call's. The examples' side is computed once per version and model and
//! kept, piece by piece, so that a call that does not wait to its end leaves its
//! part behind. A model that fails does not fail the call: the examples are then
//! chosen by similarity and the call's record says so, under
//! `metadata.meguri.examples`. For a moment after that nobody tries again.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex as StdMutex, PoisonError};
use std::time::Duration;

use base::{Digest, ProjectId};
use http::StatusCode;
use serde_json::{Map, Value, json};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout_at};

use crate::call::Caller;
use crate::context::CallContext;
use crate::error::ApiError;
use crate::failure::Failure;
use crate::local::LocalKind;
use crate::prompt::{Chosen, ToChoose, most_alike};
use crate::settle::Part;

/// What a call waits for its examples.
const LONGEST: Duration = Duration::from_secs(20);
/// How long a model that has failed is left alone.
const REST: Duration = Duration::from_secs(20);
/// Texts of one request.
const AT_A_TIME: usize = 64;
/// Vectors that are kept, in bytes.
const KEPT_BYTES: usize = 64 << 20;
/// Versions whose vectors are kept.
const KEPT: usize = 256;
/// The code of a model that is left alone.
const RESTS: &str = "embedding_model_rests";
/// The field of a record's metadata that says how examples were chosen instead.
const NOTE: &str = "meguri.examples";

/// What vectors belong to: a version, or the texts themselves. A model's name alone may mean
/// another model tomorrow.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    project: ProjectId,
    version: Digest,
    model: String,
    /// Where the model lives, or when it was installed.
    place: String,
}

/// The vectors of examples, of the versions that were used last.
#[derive(Default)]
pub(crate) struct ExampleVectors(StdMutex<Kept>);

#[derive(Default)]
struct Kept {
    entries: HashMap<Key, (Arc<Entry>, u64)>,
    uses: u64,
}

#[derive(Default)]
struct Entry {
    bytes: AtomicUsize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// As many as there are so far, each of length one.
    vectors: Arc<Vec<Vec<f32>>>,
    rests_until: Option<Instant>,
}

impl ExampleVectors {
    /// The entry of this key; the ones that were not used for longest make room.
    fn entry(&self, key: &Key) -> Arc<Entry> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.uses += 1;
        let now = kept.uses;
        if let Some((entry, used)) = kept.entries.get_mut(key) {
            *used = now;
            return entry.clone();
        }
        let size = |kept: &Kept| -> usize {
            let entries = kept.entries.values();
            entries
                .map(|(entry, _)| entry.bytes.load(Ordering::Relaxed))
                .sum()
        };
        while kept.entries.len() >= KEPT || size(&kept) > KEPT_BYTES {
            let oldest = kept.entries.iter().min_by_key(|(_, (_, used))| *used);
            let Some(oldest) = oldest.map(|(key, _)| key.clone()) else {
                break;
            };
            kept.entries.remove(&oldest);
        }
        let entry = Arc::new(Entry::default());
        kept.entries.insert(key.clone(), (entry.clone(), now));
        entry
    }
}

/// Texts that stay and one that does not.
struct Compared<'a> {
    count: usize,
    texts: &'a (dyn Fn() -> Vec<String> + Sync),
    own: &'a str,
}

/// The vectors of a text and of what it is compared with, each of length one.
pub(crate) struct Likeness {
    others: Arc<Vec<Vec<f32>>>,
    /// The text's own.
    pub(crate) own: Vec<f32>,
}

impl Likeness {
    /// The vector of one of the others.
    pub(crate) fn other(&self, at: usize) -> Option<&[f32]> {
        self.others.get(at).map(Vec::as_slice)
    }

    /// How alike the text is to the most alike of some of the others; 0 if to none.
    pub(crate) fn most(&self, of: std::ops::Range<usize>) -> f64 {
        let others = self.others.get(of).unwrap_or_default().iter();
        others
            .map(|other| dot(other, &self.own))
            .fold(0.0, f64::max)
    }
}

impl Caller<'_> {
    /// Chooses examples for a call. The second says what was not chosen as the
    /// documents ask, for the call's record.
    pub(crate) async fn choose_examples(
        &self,
        wanted: Vec<ToChoose>,
        context: &CallContext,
        part: Part,
    ) -> (Chosen, Option<Value>) {
        let context = CallContext {
            step: None,
            prompt: None,
            variables: Map::new(),
            metadata: Map::new(),
            ..context.clone()
        };
        let end = Instant::now() + LONGEST;
        let (mut chosen, mut note) = (Chosen::new(), None);
        for wanted in wanted {
            let digest = wanted.version.digest;
            let choice = self.by_embedding(&wanted, &context, &part, end);
            match Box::pin(choice).await {
                Ok(places) => {
                    chosen.insert(digest, places);
                }
                Err(failure) => {
                    let why = &failure.error.message;
                    let text = format!("chosen by similarity instead of by embedding: {why}");
                    tracing::warn!(
                        code = failure.error.code,
                        "examples are chosen by similarity: their embedding model failed"
                    );
                    note = Some(Value::from(text));
                }
            }
        }
        (chosen, note)
    }

    async fn by_embedding(
        &self,
        wanted: &ToChoose,
        context: &CallContext,
        part: &Part,
        end: Instant,
    ) -> Result<Vec<usize>, Failure> {
        let key = self.key_of(wanted.version.digest, wanted.model.as_deref())?;
        let examples = wanted.version.document.examples.as_ref();
        let count = examples.map_or(0, |examples| examples.items.len());
        let compared = Compared {
            count,
            texts: &|| wanted.version.example_texts(),
            own: &wanted.text,
        };
        let compared = timeout_at(end, self.compare(&key, compared, context, part));
        let compared = compared.await.unwrap_or_else(|_| {
            let failure = too_slow();
            self.rests(&key, &failure);
            Err(failure)
        });
        let (examples, own) = compared?;
        let alike: Vec<f64> = examples.iter().map(|vector| dot(vector, &own)).collect();
        Ok(most_alike(&alike, wanted.k))
    }

    /// How alike a text is to each of some others, -1 to 1, and its vector. The others are
    /// embedded once per model, whoever asks. Without a time limit of its own.
    pub(crate) async fn likeness(
        &self,
        others: &[String],
        own: &str,
        context: &CallContext,
        part: &Part,
    ) -> Result<Likeness, Failure> {
        let key = self.key_of(Digest::of(json!(others).to_string().as_bytes()), None)?;
        let compared = Compared {
            count: others.len(),
            texts: &|| others.to_vec(),
            own,
        };
        let (others, own) = self.compare(&key, compared, context, part).await?;
        Ok(Likeness { others, own })
    }

    /// The vectors of the texts that stay, and that of the one that does not.
    async fn compare(
        &self,
        key: &Key,
        compared: Compared<'_>,
        context: &CallContext,
        part: &Part,
    ) -> Result<(Arc<Vec<Vec<f32>>>, Vec<f32>), Failure> {
        let entry = self.gateway.vectors.entry(key);
        let both = async {
            let examples = self
                .vectors_of(&entry, key, &compared, context, part)
                .await?;
            let own = [compared.own.to_owned()];
            let own = self.embed_all(&key.model, &own, context, part).await?;
            Ok((examples, own.into_iter().next().unwrap_or_default()))
        };
        let (examples, own) = both.await.inspect_err(|failure| self.rests(key, failure))?;
        if examples.iter().any(|vector| vector.len() != own.len()) {
            // Somebody changed what stands behind the name; the next call begins anew.
            *entry.state.lock().await = State::default();
            entry.bytes.store(0, Ordering::Relaxed);
            return Err(garbage(&key.model, "gives vectors of different lengths"));
        }
        Ok((examples, own))
    }

    fn rests(&self, key: &Key, failure: &Failure) {
        // Somebody who holds it is at work, and will find out by themselves.
        if let Ok(mut state) = self.gateway.vectors.entry(key).state.try_lock() {
            rest(&mut state, failure);
        }
    }

    /// The examples' vectors, computed as far as they are not there.
    async fn vectors_of(
        &self,
        entry: &Entry,
        key: &Key,
        wanted: &Compared<'_>,
        context: &CallContext,
        part: &Part,
    ) -> Result<Arc<Vec<Vec<f32>>>, Failure> {
        let mut state = entry.state.lock().await;
        if state
            .rests_until
            .is_some_and(|until| Instant::now() < until)
        {
            let message = format!("the embedding model {:?} failed a moment ago", key.model);
            let status = StatusCode::SERVICE_UNAVAILABLE;
            return Err(ApiError::new(status, RESTS, message).into());
        }
        if state.vectors.len() >= wanted.count {
            return Ok(state.vectors.clone());
        }
        let texts = (wanted.texts)();
        while state.vectors.len() < texts.len() {
            let done = state.vectors.len();
            let next = &texts[done..texts.len().min(done + AT_A_TIME)];
            let more = self.embed_all(&key.model, next, context, part).await?;
            let bytes: usize = more.iter().map(|vector| vector.len() * 4).sum();
            entry.bytes.fetch_add(bytes, Ordering::Relaxed);
            Arc::make_mut(&mut state.vectors).extend(more);
        }
        Ok(state.vectors.clone())
    }

    async fn embed_all(
        &self,
        model: &str,
        texts: &[String],
        context: &CallContext,
        part: &Part,
    ) -> Result<Vec<Vec<f32>>, Failure> {
        let vectors = self.embed(context, part.clone(), model, texts).await?;
        if vectors.len() != texts.len() {
            return Err(garbage(model, "did not answer every text"));
        }
        Ok(vectors.into_iter().map(of_length_one).collect())
    }

    fn key_of(&self, version: Digest, model: Option<&str>) -> Result<Key, Failure> {
        let model = match model {
            Some(model) => model.to_owned(),
            None => self.default_embedder()?,
        };
        let place = match model.split_once('/') {
            Some(("local", name)) => {
                let local = self.gateway.local.list();
                let found = local.iter().find(|known| known.name == name);
                found.map_or_else(String::new, |known| known.installed_at.to_string())
            }
            Some((provider, _)) => {
                let provider = self.project().and_then(|it| it.providers.get(provider));
                provider.map_or_else(String::new, |provider| provider.base_url.to_string())
            }
            None => String::new(),
        };
        Ok(Key {
            project: self.principal.project,
            version,
            model,
            place,
        })
    }

    /// The local embedding model that is used where none is named.
    pub(crate) fn default_embedder(&self) -> Result<String, Failure> {
        let local = self.gateway.local.list().into_iter();
        let names = local.filter(|model| model.kind == LocalKind::Embedding);
        let first = names.map(|model| model.name).min();
        first.map(|name| format!("local/{name}")).ok_or_else(|| {
            let message = "no local embedding model is installed, and none is named";
            ApiError::new(StatusCode::NOT_FOUND, "no_embedding_model", message).into()
        })
    }
}

/// Puts the note where the record of a call keeps it.
pub(crate) fn note(metadata: &mut Map<String, Value>, note: Option<Value>) {
    if let Some(note) = note {
        metadata.insert(NOTE.to_owned(), note);
    }
}

/// A model that is down is left alone for a while; one that refused a text is not.
fn rest(state: &mut State, failure: &Failure) {
    let status = failure.error.status;
    if failure.error.code == RESTS {
        return;
    }
    if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
        state.rests_until = Some(Instant::now() + REST);
    }
}

fn too_slow() -> Failure {
    let message = format!(
        "the embedding model did not answer in {} s",
        LONGEST.as_secs()
    );
    ApiError::new(StatusCode::GATEWAY_TIMEOUT, "embedding_timeout", message).into()
}

fn garbage(model: &str, what: &str) -> Failure {
    let message = format!("the embedding model {model:?} {what}");
    ApiError::new(StatusCode::BAD_GATEWAY, "embedding_garbage", message).into()
}

fn of_length_one(mut vector: Vec<f32>) -> Vec<f32> {
    let length = dot(&vector, &vector).sqrt();
    if length > 0.0 && length.is_finite() {
        for number in &mut vector {
            #[expect(clippy::cast_possible_truncation, reason = "a part of length one")]
            let part = (f64::from(*number) / length) as f32;
            *number = part;
        }
    }
    vector
}

fn dot(one: &[f32], other: &[f32]) -> f64 {
    let products = one.iter().zip(other);
    let sum: f64 = products
        .map(|(one, other)| f64::from(*one) * f64::from(*other))
        .sum();
    if sum.is_finite() { sum } else { f64::MIN }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::Id as _;

    fn key(number: usize) -> Key {
        Key {
            project: ProjectId::from_uuid_bytes([1; 16]),
            version: Digest::of(&number.to_be_bytes()),
            model: "local/x".to_owned(),
            place: String::new(),
        }
    }

    #[test]
    fn what_was_not_used_for_longest_makes_room() {
        let vectors = ExampleVectors::default();
        let first = vectors.entry(&key(0));
        for number in 1..KEPT {
            vectors.entry(&key(number));
        }
        assert!(Arc::ptr_eq(&first, &vectors.entry(&key(0))), "used again");
        vectors.entry(&key(KEPT));
        assert!(Arc::ptr_eq(&first, &vectors.entry(&key(0))));
        assert_eq!(vectors.0.lock().unwrap().entries.len(), KEPT);
        assert!(!vectors.0.lock().unwrap().entries.contains_key(&key(1)));
        // Size counts as number does.
        first.bytes.store(KEPT_BYTES + 1, Ordering::Relaxed);
        vectors.entry(&key(KEPT + 1));
        let kept = vectors.0.lock().unwrap();
        assert_eq!(
            kept.entries.len(),
            1,
            "the large one was used last of the old"
        );
    }
}
