//! The models' folder: partial downloads, half-made models, and whole ones
//! under the digest of their content.
//!
//! ```text
//! models/downloads/KEY.part   what has come of a file so far, kept for resuming
//! models/tmp/ID/              a model that is being put together; removed on failure
//! models/HEX/                 a whole model, never changed; HEX = digest of its file list
//! ```
//! A folder appears under its digest by one rename, after its files are on
//! disk, so whatever is there is whole. Everything here blocks the thread.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use base::{Digest, DocumentId, Ids};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::error::PullError;

/// One file of an installed model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ModelFile {
    /// Its path in the model's folder.
    pub path: String,
    /// Its length.
    pub size_bytes: u64,
    /// The SHA-256 of its content.
    #[schemars(with = "String")]
    pub sha256: Digest,
}

/// The folder `models` of a data directory.
#[derive(Debug, Clone)]
pub struct ModelsFolder {
    data_dir: PathBuf,
}

impl ModelsFolder {
    /// The folder of this data directory; nothing is created yet.
    pub fn of(data_dir: &Path) -> Self {
        Self {
            data_dir: data_dir.to_owned(),
        }
    }

    fn root(&self) -> PathBuf {
        self.data_dir.join("models")
    }

    /// A path as the database keeps it, relative to the data directory so that the directory can be moved.
    pub fn absolute(&self, kept: &str) -> PathBuf {
        self.data_dir.join(kept)
    }

    /// The file in which a download is collected.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn part(&self, key: &Digest) -> Result<PathBuf, PullError> {
        let folder = self.root().join("downloads");
        make_folder(&folder)?;
        Ok(folder.join(format!("{}.part", key.hex())))
    }

    /// An empty folder to put a model together in.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn stage(&self, ids: &Ids) -> Result<Staging, PullError> {
        let path = self
            .root()
            .join("tmp")
            .join(ids.make::<DocumentId>().to_string());
        make_folder(&path)?;
        Ok(Staging { path })
    }

    /// Makes a staged model visible; returns its digest and the path to keep.
    /// A model that is here already stays as it is.
    ///
    /// # Errors
    /// The disk failed; nothing is visible then.
    pub fn install(
        &self,
        staging: Staging,
        files: &[ModelFile],
    ) -> Result<(Digest, String), PullError> {
        let digest = digest_of(files);
        let target = self.root().join(digest.hex());
        let kept = format!("models/{}", digest.hex());
        if is_whole(&target, files) {
            return Ok((digest, kept));
        }
        sync_tree(&staging.path)?;
        if target.exists() {
            // Damaged by hand or by the disk: out of the way first, a rename cannot replace a full folder.
            let aside = self
                .root()
                .join("tmp")
                .join(format!("damaged-{}", digest.hex()));
            let _ = fs::remove_dir_all(&aside);
            fs::rename(&target, &aside).map_err(|e| PullError::io("move away", &target, &e))?;
            let _ = fs::remove_dir_all(&aside);
        }
        fs::rename(&staging.path, &target)
            .map_err(|e| PullError::io("move a model to", &target, &e))?;
        sync_folder(&self.root())?;
        Ok((digest, kept))
    }

    /// Removes an installed model's folder; it is fine if it is gone already.
    ///
    /// # Errors
    /// The disk failed.
    pub fn remove(&self, digest: &Digest) -> Result<(), PullError> {
        let path = self.root().join(digest.hex());
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(PullError::io("remove", &path, &error))
            }
            _ => Ok(()),
        }
    }

    /// Removes what interrupted pulls left behind and nobody came back for.
    pub fn sweep(&self) {
        for (folder, days) in [("tmp", 1), ("downloads", 14)] {
            let Ok(entries) = fs::read_dir(self.root().join(folder)) else {
                continue;
            };
            for entry in entries.flatten() {
                // Against the file system's own clock, which stamps the files.
                let age = entry
                    .metadata()
                    .and_then(|meta| meta.modified())
                    .ok()
                    .and_then(|at| at.elapsed().ok());
                if age.is_some_and(|age| age > Duration::from_secs(days * 24 * 3600)) {
                    let path = entry.path();
                    let _ = if path.is_dir() {
                        fs::remove_dir_all(path)
                    } else {
                        fs::remove_file(path)
                    };
                }
            }
        }
    }
}

/// A folder that is being filled. Dropping it removes it.
#[derive(Debug)]
pub struct Staging {
    path: PathBuf,
}

impl Staging {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where a file of the model goes; its folder is made.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn place(&self, path: &str) -> Result<PathBuf, PullError> {
        let target = self.path.join(path);
        if let Some(folder) = target.parent() {
            make_folder(folder)?;
        }
        Ok(target)
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // Gone already when it was installed; what cannot be removed is swept later.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// The identity of a model: the digest of its files' names and digests.
pub(super) fn digest_of(files: &[ModelFile]) -> Digest {
    let mut list: Vec<_> = files
        .iter()
        .map(|file| (file.path.as_str(), file.sha256.to_string()))
        .collect();
    list.sort_unstable();
    // Strings only, so a canonical form always exists.
    Digest::of_json(&serde_json::json!(list)).unwrap_or_else(|_| Digest::of(b""))
}

fn is_whole(folder: &Path, files: &[ModelFile]) -> bool {
    files.iter().all(|file| {
        fs::metadata(folder.join(&file.path)).is_ok_and(|meta| meta.len() == file.size_bytes)
    })
}

fn make_folder(path: &Path) -> Result<(), PullError> {
    fs::create_dir_all(path).map_err(|error| PullError::io("make the folder", path, &error))
}

/// Files first, then the folders that name them.
fn sync_tree(folder: &Path) -> Result<(), PullError> {
    let failed = |error: io::Error| PullError::io("sync", folder, &error);
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.is_dir() {
            sync_tree(&path)?;
        } else {
            sync_folder(&path)?;
        }
    }
    sync_folder(folder)
}

fn sync_folder(path: &Path) -> Result<(), PullError> {
    File::open(path)
        .and_then(|file| file.sync_all())
        .map_err(|error| PullError::io("sync", path, &error))
}

/// Copies what a reader gives, at most `limit` bytes, and hashes it. `step` is told of every piece.
///
/// # Errors
/// The reader or the disk failed, or there is more than the limit.
pub(super) fn copy_hashed(
    reader: &mut impl Read,
    target: &Path,
    limit: u64,
    step: &mut dyn FnMut(u64),
) -> io::Result<(u64, Digest)> {
    let mut file = File::create_new(target)?;
    let mut hash = Sha256::new();
    let mut size = 0_u64;
    let mut chunk = vec![0; 256 << 10];
    loop {
        let count = match reader.read(&mut chunk) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        size += count as u64;
        if size > limit {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the content is longer than announced",
            ));
        }
        hash.update(&chunk[..count]);
        file.write_all(&chunk[..count])?;
        step(count as u64);
    }
    Ok((size, Digest(hash.finalize().into())))
}
