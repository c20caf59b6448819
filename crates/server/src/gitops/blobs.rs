//! Blobs of a tree: content that is too large for a document, in files `blobs/sha256-HEX`.
//!
//! A blob is its digest, so there is nothing to compare or to move: an apply sends
//! those that the store does not have before the documents that need them. A blob of
//! a project can be read only by naming a document of that project which needs it:
//! who may not read the document may not read the blob.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use base::{Digest, ProjectId};
use db::BlobError;
use db::catalog::Catalog;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::plan::{Action, Plan};
use super::{Finding, Key, Tree, TreeDocument};
use crate::error::{AppError, Result};

/// The folder of a tree's blobs.
pub(super) const BLOB_FOLDER: &str = "blobs";
/// The largest blob of a tree. Blobs travel one by one and are held in memory.
pub const MAX_BLOB_BYTES: usize = 64 << 20;
/// The most blobs of a tree.
const MAX_BLOBS: usize = 100_000;
const PREFIX: &str = "sha256-";

/// A blob, and a document that needs it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BlobOf {
    /// The blob.
    pub digest: String,
    /// The kind of the document.
    pub kind: String,
    /// The digest of the document.
    pub document: String,
}

/// A blob that a document of a tree needs and nobody has.
#[derive(Debug, Clone)]
pub(super) struct Missing {
    pub(super) digest: Digest,
    file: String,
}

impl Missing {
    pub(super) fn finding(&self) -> Finding {
        let message = format!("there is no blob {}", self.digest);
        let hint = format!("it belongs into the tree as {}", path_of(&self.digest));
        Finding::error(&self.file, message).hint(Some(hint))
    }
}

/// The path of a blob in a tree.
pub fn path_of(digest: &Digest) -> String {
    format!("{BLOB_FOLDER}/{PREFIX}{}", digest.hex())
}

fn documents(tree: &Tree) -> impl Iterator<Item = (&Key, &TreeDocument)> {
    tree.names
        .iter()
        .flat_map(|(key, entry)| entry.documents().map(move |document| (key, document)))
}

/// Every blob that a tree needs, once.
pub(super) fn of_tree(tree: &Tree) -> Vec<BlobOf> {
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    for (key, document) in documents(tree) {
        for digest in document.blobs.iter().filter(|digest| seen.insert(**digest)) {
            found.push(BlobOf {
                digest: digest.to_string(),
                kind: key.kind.clone(),
                document: document.digest.to_string(),
            });
        }
    }
    found
}

/// A warning for each blob that is not in the tree.
pub(super) fn not_in_tree(tree: &Tree, known: impl Fn(&Digest) -> bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (_, document) in documents(tree) {
        for digest in document.blobs.iter().filter(|digest| !known(digest)) {
            let message = format!(
                "the blob {} is not in the tree; the server must have it already",
                path_of(digest)
            );
            findings.push(Finding::warning(&document.file, message));
        }
    }
    findings
}

/// The blobs of documents that a plan saves which the store does not have, each once.
pub(super) async fn missing(
    catalog: &Catalog,
    project: ProjectId,
    tree: &Tree,
    plan: &Plan,
) -> Result<Vec<Missing>> {
    let saved: BTreeSet<&str> = plan
        .steps
        .iter()
        .filter(|step| matches!(step.action, Action::Create | Action::Update))
        .filter_map(|step| step.after.as_deref())
        .collect();
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    for (key, document) in documents(tree) {
        let digest = document.digest.to_string();
        if document.blobs.is_empty() || !saved.contains(digest.as_str()) {
            continue;
        }
        let missing = catalog
            .missing_blobs(project, &key.kind, &document.content)
            .await?;
        let new = missing.into_iter().filter(|digest| seen.insert(*digest));
        found.extend(new.map(|digest| Missing {
            digest,
            file: document.file.clone(),
        }));
    }
    Ok(found)
}

/// A blob that this document of the project needs.
///
/// # Errors
/// The project has no such document, or it does not need the blob; the blob is lost or too large.
pub async fn read_blob(
    catalog: &Catalog,
    project: ProjectId,
    blob: &BlobOf,
) -> Result<(Digest, Vec<u8>)> {
    let not_found =
        || AppError::not_found(format!("no such document needs the blob {}", blob.digest));
    let (Ok(digest), Ok(document)) = (
        blob.digest.parse::<Digest>(),
        blob.document.parse::<Digest>(),
    ) else {
        return Err(not_found());
    };
    let kind = catalog.kinds().get(&blob.kind)?;
    let documents = catalog.documents(project, &[document]).await?;
    let content = documents.get(&document).ok_or_else(not_found)?;
    if !(kind.blobs)(content).contains(&digest) {
        return Err(not_found());
    }
    let store = catalog.blobs(project).ok_or_else(not_found)?;
    let read = tokio::task::spawn_blocking(move || {
        let size = fs::metadata(store.path(&digest)).map(|meta| meta.len());
        if size.is_ok_and(|size| size > MAX_BLOB_BYTES as u64) {
            return Err(BlobError::TooLarge {
                max_bytes: MAX_BLOB_BYTES as u64,
            });
        }
        store.read(&digest)
    });
    let bytes = read.await.map_err(AppError::internal)?;
    Ok((digest, bytes.map_err(|error| refused(&digest, error))?))
}

/// Keeps a blob; `true` when it is new.
///
/// # Errors
/// The bytes are not the ones that the digest names, or the disk failed.
pub async fn put_blob(
    catalog: &Catalog,
    project: ProjectId,
    digest: Digest,
    bytes: Vec<u8>,
) -> Result<bool> {
    let store = catalog
        .blobs(project)
        .ok_or_else(|| AppError::unavailable("this catalog keeps no blobs"))?;
    let written = tokio::task::spawn_blocking(move || {
        let mut writer = store.writer()?;
        writer.write(&bytes)?;
        writer.finish_as(Some(digest))
    });
    let blob = written.await.map_err(AppError::internal)?;
    let blob = blob.map_err(|error| refused(&digest, error))?;
    Ok(!blob.already_existed)
}

fn refused(digest: &Digest, error: BlobError) -> AppError {
    match error {
        BlobError::WrongDigest { found, .. } => AppError::invalid(format!(
            "the blob {digest} was changed or damaged: its bytes are {found}"
        ))
        .code("wrong_digest"),
        BlobError::TooLarge { max_bytes } => {
            AppError::too_large(usize::try_from(max_bytes).unwrap_or(usize::MAX))
        }
        BlobError::Missing(_) => AppError::not_found(format!("the blob {digest} is lost")),
        other => AppError::internal(other),
    }
}

// On disk.

/// The blobs of a folder, by digest, unread.
pub type BlobFiles = BTreeMap<Digest, PathBuf>;

/// The blobs beside the files of a folder. What else lies there are findings.
///
/// # Errors
/// The folder of blobs cannot be read.
pub fn find_blobs(folder: &Path) -> anyhow::Result<(BlobFiles, Vec<Finding>)> {
    let (mut blobs, mut findings) = (BlobFiles::new(), Vec::new());
    let place = folder.join(BLOB_FOLDER);
    let failed = || format!("reading {}", place.display());
    if !fs::symlink_metadata(&place).is_ok_and(|meta| meta.is_dir()) {
        return Ok((blobs, findings));
    }
    let mut names: Vec<_> = fs::read_dir(&place)
        .with_context(failed)?
        .collect::<Result<_, _>>()
        .with_context(failed)?;
    names.sort_by_key(fs::DirEntry::file_name);
    if names.len() > MAX_BLOBS {
        bail!("{} has more than {MAX_BLOBS} files", place.display());
    }
    for entry in names {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with('.') {
            continue;
        }
        let path = format!("{BLOB_FOLDER}/{name}");
        let hex = name.strip_prefix(PREFIX);
        let digest = hex.and_then(|hex| format!("sha256:{hex}").parse::<Digest>().ok());
        let is_file = entry.file_type().with_context(failed)?.is_file();
        let size = entry.metadata().with_context(failed)?.len();
        match digest {
            Some(_) if !is_file => findings.push(Finding::error(path, "it is no file")),
            Some(_) if size > MAX_BLOB_BYTES as u64 => {
                findings.push(Finding::error(path, "it is larger than 64 MiB"));
            }
            Some(digest) => {
                blobs.insert(digest, entry.path());
            }
            None => {
                let message = format!("a blob's file is called {PREFIX} and 64 digits");
                findings.push(Finding::error(path, message));
            }
        }
    }
    Ok((blobs, findings))
}

/// A blob's file, which must be what its name says.
///
/// # Errors
/// It cannot be read, or was changed.
pub fn read_blob_file(digest: &Digest, path: &Path) -> anyhow::Result<Vec<u8>> {
    let failed = || format!("reading {}", path.display());
    let mut bytes = Vec::new();
    fs::File::open(path)
        .and_then(|file| file.take(MAX_BLOB_BYTES as u64 + 1).read_to_end(&mut bytes))
        .with_context(failed)?;
    if Digest::of(&bytes) != *digest {
        bail!(
            "{} is not what its name says: it was changed",
            path.display()
        );
    }
    Ok(bytes)
}

/// A finding for each blob that is not what its name says.
pub fn check_blobs(blobs: &BlobFiles) -> Vec<Finding> {
    blobs
        .iter()
        .filter(|(digest, path)| read_blob_file(digest, path).is_err())
        .map(|(digest, _)| {
            let message = "it cannot be read, or is not what its name says";
            Finding::error(path_of(digest), message)
        })
        .collect()
}
