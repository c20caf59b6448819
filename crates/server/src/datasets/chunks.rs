//! Chunks: how examples lie in the blob store, and how they are read and written
//! without holding a dataset in memory.
//!
//! A chunk is a blob of canonical JSON lines, one example each, at most 256 examples or
//! 4 MiB (a single larger example has a chunk to itself). Chunks never change, so
//! what is known of one, here the ids in it, stays true for ever.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use base::{Digest, ProjectId};
use db::{BlobStore, Problem};
use serde::Deserialize;

use super::document::{CHUNK_EXAMPLES, Chunk, MAX_EXAMPLES};
use super::example::{Example, count_splits};
use crate::error::{AppError, Result};

const CHUNK_BYTES: usize = 4 << 20;
/// Ids that are remembered over all chunks: 8 bytes each.
const REMEMBERED_IDS: usize = 2_000_000;

/// The examples of one project's datasets.
#[derive(Debug, Clone)]
pub(super) struct Chunks {
    store: BlobStore,
    project: ProjectId,
    known: Arc<KnownIds>,
}

/// Which ids are in which chunk, as hashes.
#[derive(Debug, Default)]
pub(super) struct KnownIds(Mutex<Remembered>);

#[derive(Debug, Default)]
struct Remembered {
    chunks: HashMap<(ProjectId, Digest), Arc<[u64]>>,
    ids: usize,
}

/// A stable hash of an id; two ids with the same one cost a look into the chunk.
pub(super) fn id_hash(id: &str) -> u64 {
    let mut first = [0; 8];
    first.copy_from_slice(&Digest::of(id.as_bytes()).0[..8]);
    u64::from_le_bytes(first)
}

fn damaged(digest: &Digest, error: impl std::fmt::Display) -> AppError {
    AppError::internal(anyhow::anyhow!(
        "the chunk {digest} of a dataset cannot be read: {error}"
    ))
}

impl Chunks {
    pub(super) fn new(store: &BlobStore, project: ProjectId, known: &Arc<KnownIds>) -> Self {
        Self {
            store: store.clone(),
            project,
            known: Arc::clone(known),
        }
    }

    async fn bytes(&self, digest: Digest) -> Result<Vec<u8>> {
        let store = self.store.clone();
        let read = tokio::task::spawn_blocking(move || store.read(&digest)).await;
        let read = read.map_err(AppError::internal)?;
        read.map_err(|error| damaged(&digest, error))
    }

    /// The examples of a chunk, in their order.
    pub(super) async fn read(&self, chunk: &Chunk) -> Result<Vec<Example>> {
        let bytes = self.bytes(chunk.digest).await?;
        let examples: Vec<Example> = lines(&bytes)
            .map(|line| serde_json::from_slice(line).map_err(|error| damaged(&chunk.digest, error)))
            .collect::<Result<_>>()?;
        if examples.len() as u64 != chunk.count {
            return Err(damaged(
                &chunk.digest,
                "it has another number of examples than its dataset says",
            ));
        }
        self.known.remember(self.project, chunk.digest, || {
            examples
                .iter()
                .map(|example| id_hash(&example.id))
                .collect()
        });
        Ok(examples)
    }

    /// The hashes of the ids in a chunk.
    pub(super) async fn ids(&self, chunk: &Chunk) -> Result<Arc<[u64]>> {
        #[derive(Deserialize)]
        struct OnlyId<'a> {
            #[serde(borrow)]
            id: std::borrow::Cow<'a, str>,
        }
        if let Some(known) = self.known.get(self.project, &chunk.digest) {
            return Ok(known);
        }
        let bytes = self.bytes(chunk.digest).await?;
        let ids: Arc<[u64]> = lines(&bytes)
            .map(|line| {
                serde_json::from_slice(line)
                    .map(|only: OnlyId<'_>| id_hash(&only.id))
                    .map_err(|error| damaged(&chunk.digest, error))
            })
            .collect::<Result<_>>()?;
        self.known
            .remember(self.project, chunk.digest, || Arc::clone(&ids));
        Ok(ids)
    }

    /// Starts writing the chunks of a version.
    pub(super) fn writer(&self) -> ChunkWriter {
        ChunkWriter {
            chunks: self.clone(),
            done: Vec::new(),
            count: 0,
            lines: Vec::new(),
            open: Vec::new(),
        }
    }
}

fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
}

impl KnownIds {
    fn lock(&self) -> std::sync::MutexGuard<'_, Remembered> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, project: ProjectId, digest: &Digest) -> Option<Arc<[u64]>> {
        self.lock().chunks.get(&(project, *digest)).cloned()
    }

    fn remember(&self, project: ProjectId, digest: Digest, ids: impl FnOnce() -> Arc<[u64]>) {
        let mut remembered = self.lock();
        if remembered.chunks.contains_key(&(project, digest)) {
            return;
        }
        let ids = ids();
        if remembered.ids + ids.len() > REMEMBERED_IDS {
            *remembered = Remembered::default();
        }
        remembered.ids += ids.len();
        remembered.chunks.insert((project, digest), ids);
    }
}

/// Writes examples in order, sharing the chunks that did not change. Blobs that were
/// written before something failed stay, unreferenced.
pub(super) struct ChunkWriter {
    chunks: Chunks,
    done: Vec<Chunk>,
    count: u64,
    /// The lines of the chunk that is being filled, and what they hold.
    lines: Vec<u8>,
    open: Vec<(u64, Option<String>)>,
}

impl ChunkWriter {
    /// A chunk of the version before, as it is.
    pub(super) async fn keep(&mut self, chunk: &Chunk) -> Result<()> {
        self.flush().await?;
        self.count += chunk.count;
        self.done.push(chunk.clone());
        Ok(())
    }

    /// One example.
    pub(super) async fn push(&mut self, example: &Example) -> Result<(), PushError> {
        let line = example.check()?;
        if self.count >= MAX_EXAMPLES {
            return Err(
                Problem::new("", format!("a dataset has at most {MAX_EXAMPLES} examples")).into(),
            );
        }
        if self.open.len() >= CHUNK_EXAMPLES
            || (!self.open.is_empty() && self.lines.len() + line.len() > CHUNK_BYTES)
        {
            self.flush().await?;
        }
        self.count += 1;
        self.lines.extend_from_slice(&line);
        self.lines.push(b'\n');
        self.open
            .push((id_hash(&example.id), example.split.clone()));
        Ok(())
    }

    async fn flush(&mut self) -> Result<()> {
        if self.open.is_empty() {
            return Ok(());
        }
        let bytes = std::mem::take(&mut self.lines);
        let open = std::mem::take(&mut self.open);
        let store = self.chunks.store.clone();
        let written = tokio::task::spawn_blocking(move || store.put_bytes(&bytes)).await;
        let blob = written
            .map_err(AppError::internal)?
            .map_err(|error| match error {
                db::BlobError::DiskFull(_) => {
                    AppError::unavailable(format!("{error}; nothing was changed"))
                }
                other => AppError::internal(other),
            })?;
        let ids = || open.iter().map(|(id, _)| *id).collect();
        self.chunks
            .known
            .remember(self.chunks.project, blob.digest, ids);
        self.done.push(Chunk {
            digest: blob.digest,
            count: open.len() as u64,
            splits: count_splits(open.iter().map(|(_, split)| split.as_deref())),
        });
        Ok(())
    }

    /// The chunks that were kept and written, in order.
    pub(super) async fn finish(mut self) -> Result<Vec<Chunk>> {
        self.flush().await?;
        Ok(self.done)
    }
}

/// Why an example was not written.
pub(super) enum PushError {
    /// It is wrong in itself.
    Example(Problem),
    /// The disk or the program failed.
    Failed(AppError),
}

impl From<Problem> for PushError {
    fn from(problem: Problem) -> Self {
        Self::Example(problem)
    }
}

impl From<AppError> for PushError {
    fn from(error: AppError) -> Self {
        Self::Failed(error)
    }
}

impl PushError {
    /// The refusal, with the place of the example before the place inside of it.
    pub(super) fn at(self, place: &str) -> AppError {
        match self {
            Self::Failed(error) => error,
            Self::Example(problem) => wrong_example(place, &problem),
        }
    }
}

/// The refusal of an example; `place` says which one.
pub(super) fn wrong_example(place: &str, problem: &Problem) -> AppError {
    AppError::invalid(format!("{place}: {problem}"))
        .code("invalid_example")
        .at(format!("{place}{}", problem.path))
}
