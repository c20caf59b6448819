//! The blob store: files named by the SHA-256 of their content, under
//! `sha256/ab/abcdef…`, each project's in a folder of its own: who learns a digest
//! of another project learns nothing by it, and what a project leaves is one folder.
//!
//! A blob is whole or absent: it is written under a temporary name, synced,
//! renamed, and the folder synced. Everything here blocks the thread; from
//! async code use [`BlobStore::put`] or a blocking thread.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use base::{Digest, Ids, JobId, ProjectId};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt};

const CHUNK_BYTES: usize = 256 * 1024;

/// A stored blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Blob {
    /// Its name.
    pub digest: Digest,
    /// Its length.
    pub size_bytes: u64,
    /// True when the store had it already and nothing was kept.
    pub already_existed: bool,
}

/// Why a blob could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// More bytes came than are allowed; nothing was kept.
    #[error("larger than the limit of {max_bytes} bytes")]
    TooLarge {
        /// The store's limit.
        max_bytes: u64,
    },
    /// The bytes are not the ones that were asked for; nothing was kept.
    #[error("the content has the digest {found}, not {wanted}")]
    WrongDigest {
        /// What the bytes hash to.
        found: Digest,
        /// What was asked for.
        wanted: Digest,
    },
    /// There is no such blob.
    #[error("there is no blob {0}")]
    Missing(Digest),
    /// The disk is full.
    #[error("no space left in the blob folder {}", .0.display())]
    DiskFull(PathBuf),
    /// The disk failed otherwise.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// What was attempted.
        doing: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

fn io_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BlobError {
    let path = path.to_owned();
    move |source| match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => BlobError::DiskFull(path),
        _ => BlobError::Io {
            doing,
            path,
            source,
        },
    }
}

/// A folder of blobs. Several processes may share it.
#[derive(Debug, Clone)]
pub struct BlobStore {
    /// What is being written, and below it what is kept.
    root: PathBuf,
    /// Where `sha256` is.
    folder: PathBuf,
    ids: Ids,
    max_bytes: u64,
}

impl BlobStore {
    /// Opens the store in this folder, making it if needed. No blob may be larger than `max_bytes`.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn open(folder: impl Into<PathBuf>, ids: Ids, max_bytes: u64) -> Result<Self, BlobError> {
        let root: PathBuf = folder.into();
        for sub in ["tmp", "sha256"] {
            let path = root.join(sub);
            fs::create_dir_all(&path).map_err(io_error("make the folder", &path))?;
        }
        Ok(Self {
            folder: root.clone(),
            root,
            ids,
            max_bytes,
        })
    }

    /// The blobs of one project, apart from those of all others.
    pub fn of_project(&self, project: ProjectId) -> Self {
        Self {
            folder: self.root.join("projects").join(project.to_string()),
            ..self.clone()
        }
    }

    /// Where the blob is, or would be.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        self.folder.join("sha256").join(&hex[..2]).join(hex)
    }

    /// Whether the blob is here.
    pub fn has(&self, digest: &Digest) -> bool {
        self.path(digest).is_file()
    }

    /// Starts writing a blob.
    ///
    /// # Errors
    /// The temporary file cannot be made.
    pub fn writer(&self) -> Result<BlobWriter, BlobError> {
        let id: JobId = self.ids.make();
        let path = self.root.join("tmp").join(id.to_string());
        let file = File::create_new(&path).map_err(io_error("create", &path))?;
        Ok(BlobWriter {
            store: self.clone(),
            temporary: Temporary(path),
            file,
            hash: Sha256::new(),
            size_bytes: 0,
        })
    }

    /// Writes a blob from memory.
    ///
    /// # Errors
    /// See [`BlobError`]; nothing half-written stays.
    pub fn put_bytes(&self, bytes: &[u8]) -> Result<Blob, BlobError> {
        let mut writer = self.writer()?;
        writer.write(bytes)?;
        writer.finish()
    }

    /// Writes a blob from a stream. `expected` makes it an error if the bytes hash to something else.
    ///
    /// # Errors
    /// See [`BlobError`]; nothing half-written stays, also when this future is dropped.
    pub async fn put(
        &self,
        mut reader: impl AsyncRead + Unpin,
        expected: Option<Digest>,
    ) -> Result<Blob, BlobError> {
        let mut writer = self.writer()?;
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            let read = reader.read(&mut chunk).await;
            match read.map_err(io_error("read the stream for", &writer.temporary.0))? {
                0 => break,
                // Into the page cache: short. The sync below is what takes long.
                count => writer.write(&chunk[..count])?,
            }
        }
        let finishing = tokio::task::spawn_blocking(move || writer.finish_as(expected));
        finishing.await.unwrap_or_else(|join| {
            Err(BlobError::Io {
                doing: "finish a blob in",
                path: self.folder.clone(),
                source: io::Error::other(join),
            })
        })
    }

    /// Opens a blob for reading, unverified: for files that this program wrote and serves.
    ///
    /// # Errors
    /// [`BlobError::Missing`], or the disk failed.
    pub fn open_blob(&self, digest: &Digest) -> Result<File, BlobError> {
        let path = self.path(digest);
        match File::open(&path) {
            Ok(file) => Ok(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(BlobError::Missing(*digest))
            }
            Err(error) => Err(io_error("open", &path)(error)),
        }
    }

    /// Reads a whole blob and checks that it is what its name says.
    ///
    /// # Errors
    /// [`BlobError::WrongDigest`] when the file was changed or damaged.
    pub fn read(&self, digest: &Digest) -> Result<Vec<u8>, BlobError> {
        let mut bytes = Vec::new();
        let path = self.path(digest);
        self.open_blob(digest)?
            .read_to_end(&mut bytes)
            .map_err(io_error("read", &path))?;
        let found = Digest::of(&bytes);
        if found == *digest {
            Ok(bytes)
        } else {
            Err(BlobError::WrongDigest {
                found,
                wanted: *digest,
            })
        }
    }

    /// Checks a blob of any size without holding it in memory.
    ///
    /// # Errors
    /// [`BlobError::WrongDigest`] when the file was changed or damaged.
    pub fn verify(&self, digest: &Digest) -> Result<(), BlobError> {
        let path = self.path(digest);
        let mut file = self.open_blob(digest)?;
        let mut hash = Sha256::new();
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            match file.read(&mut chunk).map_err(io_error("read", &path))? {
                0 => break,
                count => hash.update(&chunk[..count]),
            }
        }
        let found = Digest(hash.finalize().into());
        if found == *digest {
            Ok(())
        } else {
            Err(BlobError::WrongDigest {
                found,
                wanted: *digest,
            })
        }
    }

    /// Removes a blob; it is fine if it is gone already.
    ///
    /// # Errors
    /// The disk failed.
    pub fn remove(&self, digest: &Digest) -> Result<(), BlobError> {
        let path = self.path(digest);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(io_error("remove", &path)(error))
            }
            _ => Ok(()),
        }
    }

    /// Removes what writers that died left behind: temporary files that nobody
    /// wrote to for `older_than`, which must be longer than any pause of an
    /// upload. Returns how many.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn sweep(&self, older_than: Duration) -> Result<usize, BlobError> {
        let folder = self.root.join("tmp");
        let mut removed = 0;
        for entry in fs::read_dir(&folder).map_err(io_error("list", &folder))? {
            let Ok(entry) = entry else { continue };
            // Against the file system's own clock, which stamps the files.
            let age = entry
                .metadata()
                .and_then(|meta| meta.modified())
                .ok()
                .and_then(|at| at.elapsed().ok());
            if age.is_some_and(|age| age >= older_than) && fs::remove_file(entry.path()).is_ok() {
                removed += 1;
            }
        }
        Ok(removed)
    }
}

/// A blob that is being written. Dropping it keeps nothing.
#[derive(Debug)]
pub struct BlobWriter {
    store: BlobStore,
    temporary: Temporary,
    file: File,
    hash: Sha256,
    size_bytes: u64,
}

/// Removes the temporary file unless it was renamed away.
#[derive(Debug)]
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        // Nothing can be done about a failure here; the sweep comes back for it.
        let _ = fs::remove_file(&self.0);
    }
}

impl BlobWriter {
    /// Appends bytes.
    ///
    /// # Errors
    /// Over the limit, or the disk failed.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), BlobError> {
        self.size_bytes += bytes.len() as u64;
        if self.size_bytes > self.store.max_bytes {
            return Err(BlobError::TooLarge {
                max_bytes: self.store.max_bytes,
            });
        }
        self.hash.update(bytes);
        self.file
            .write_all(bytes)
            .map_err(io_error("write", &self.temporary.0))
    }

    /// Makes the blob durable and visible under its digest.
    ///
    /// # Errors
    /// See [`BlobError`]; nothing half-written stays.
    pub fn finish(self) -> Result<Blob, BlobError> {
        self.finish_as(None)
    }

    /// [`BlobWriter::finish`], but only if the bytes have this digest.
    ///
    /// # Errors
    /// [`BlobError::WrongDigest`]; nothing stays.
    pub fn finish_as(self, expected: Option<Digest>) -> Result<Blob, BlobError> {
        let digest = Digest(self.hash.finalize().into());
        if let Some(wanted) = expected.filter(|wanted| *wanted != digest) {
            return Err(BlobError::WrongDigest {
                found: digest,
                wanted,
            });
        }
        let path = self.store.path(&digest);
        let size_bytes = self.size_bytes;
        // A file of another length is damage (a disk fault, a hand): write it again.
        let already_existed = fs::metadata(&path).is_ok_and(|meta| meta.len() == size_bytes);
        if !already_existed {
            self.file
                .sync_all()
                .map_err(io_error("sync", &self.temporary.0))?;
            publish(&self.temporary.0, &path, &self.store.root)?;
        } else if let Some(folder) = path.parent() {
            // Whoever renamed it may not have come to this yet.
            sync_folder(folder)?;
        }
        Ok(Blob {
            digest,
            size_bytes,
            already_existed,
        })
    }
}

fn publish(temporary: &Path, path: &Path, root: &Path) -> Result<(), BlobError> {
    let Some(folder) = path.parent() else {
        return Ok(());
    };
    if !folder.is_dir() {
        fs::create_dir_all(folder).map_err(io_error("make the folder", folder))?;
        // Each of these may hold a name that is new.
        let above = folder.ancestors().skip(1);
        above
            .take_while(|folder| folder.starts_with(root))
            .try_for_each(sync_folder)?;
    }
    fs::rename(temporary, path).map_err(io_error("rename a blob to", path))?;
    sync_folder(folder)
}

/// Without this the new name can be missing after a power cut, though the content is on disk.
fn sync_folder(folder: &Path) -> Result<(), BlobError> {
    File::open(folder)
        .and_then(|file| file.sync_all())
        .map_err(io_error("sync the folder", folder))
}
