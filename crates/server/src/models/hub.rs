//! Downloads models from a hub that speaks Hugging Face's read API.
//!
//! The commit is fixed first, then everything is read at that commit. Each file
//! is checked against the digest that the hub's file list gives: SHA-256 for
//! large files, git's own blob digest (SHA-1) for small ones. What has come of a
//! file stays in `models/downloads` and is continued by the next attempt.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use base::{Digest, Secret};
use bytes::Bytes;
use gateway::egress::{next_chunk, read_capped};
use gateway::{Allow, Egress, EgressError};
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use hyper::body::Incoming;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;
use url::Url;

use super::choose::{Offered, choose};
use super::error::{PullError, PullFault};
use super::files::{ModelFile, ModelsFolder, Staging};
use super::progress::{Meter, Stage};
use super::pull::{Content, Naming};
use super::reference;
use super::reference::HubRef;

/// The public hub.
const DEFAULT_HUB: &str = "https://huggingface.co";
const LARGEST_LIST: usize = 8 << 20;
const MOST_PAGES: usize = 20;
/// Attempts in a row that bring nothing before a download is given up.
const FRUITLESS_ATTEMPTS: u32 = 5;

/// How to reach a hub.
#[derive(Debug, Clone)]
pub struct Hub {
    /// Its address.
    pub url: Url,
    /// Private addresses only where the operator's configuration names the hub.
    pub allow: Allow,
    /// For private and gated repositories.
    pub token: Option<Secret<String>>,
    /// Connecting, and the answer to a question about a repository.
    pub answer_timeout: Duration,
    /// The same for a file, which may come from a slower place.
    pub file_timeout: Duration,
    /// Between two pieces of a file.
    pub idle_timeout: Duration,
    /// Before a broken download is continued; grows with each fruitless attempt.
    pub retry_pause: Duration,
}

impl Hub {
    /// The public hub, or the one that the operator's configuration names.
    ///
    /// # Errors
    /// The configured address is none.
    pub fn new(configured: Option<&str>, token: Option<String>) -> Result<Self, PullError> {
        let (text, allow) = match configured {
            Some(text) => (text, Allow::Private),
            None => (DEFAULT_HUB, Allow::Public),
        };
        let bad = |error| {
            PullError::new(
                PullFault::Invalid,
                format!("egress.hub_url = {text:?}: {error}"),
            )
        };
        Ok(Self {
            url: base::net::parse_base_url(text).map_err(bad)?,
            allow,
            token: token.map(Secret::new),
            answer_timeout: Duration::from_secs(30),
            file_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(60),
            retry_pause: Duration::from_millis(200),
        })
    }

    fn address(&self, segments: &[&str]) -> Url {
        let mut url = self.url.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(segments);
        }
        url
    }

    fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(
            header::ACCEPT_ENCODING,
            HeaderValue::from_static("identity"),
        );
        if let Some(token) = &self.token
            && let Ok(mut value) = HeaderValue::from_str(&format!("Bearer {}", token.expose()))
        {
            value.set_sensitive(true);
            headers.insert(header::AUTHORIZATION, value);
        }
        headers
    }
}

/// A file of a repository.
#[derive(Debug, Clone)]
struct Remote {
    path: String,
    size_bytes: u64,
    expected: Expected,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Expected {
    Sha256(Digest),
    /// SHA-1 over `blob LENGTH\0` and the content.
    GitBlob(String),
}

#[derive(Deserialize)]
struct Revision {
    sha: String,
}

#[derive(Deserialize)]
struct TreeEntry {
    #[serde(rename = "type")]
    kind: String,
    path: String,
    #[serde(default)]
    size: u64,
    #[serde(default)]
    oid: String,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    oid: String,
    size: u64,
}

/// One download from a hub.
pub(super) struct Download<'a> {
    pub(super) egress: &'a Egress,
    pub(super) hub: &'a Hub,
    pub(super) folder: &'a ModelsFolder,
    pub(super) wanted: &'a HubRef,
}

impl Download<'_> {
    /// Fetches the model's files into the staging folder.
    pub(super) async fn run(
        &self,
        staging: &Staging,
        naming: &Naming,
        meter: &mut Meter<'_>,
    ) -> Result<Content, PullError> {
        meter.stage(Stage::Listing, "");
        let commit = self.commit().await?;
        let remote = self.list(&commit).await?;
        let offered: Vec<Offered> = remote
            .iter()
            .map(|file| Offered {
                path: file.path.clone(),
                size_bytes: file.size_bytes,
            })
            .collect();
        let choice =
            choose(&offered, self.wanted.file.as_deref()).map_err(|error| self.explain(error))?;
        let name = naming.settle(choice.label(self.repository().1))?;
        meter.total(Some(
            choice
                .files
                .iter()
                .map(|index| remote[*index].size_bytes)
                .sum(),
        ));
        let mut files = Vec::new();
        for index in &choice.files {
            let file = &remote[*index];
            let kept = choice.kept_path(&file.path);
            let sha256 = self
                .fetch(&commit, file, &staging.place(kept)?, meter)
                .await?;
            files.push(ModelFile {
                path: kept.to_owned(),
                size_bytes: file.size_bytes,
                sha256,
            });
        }
        Ok(Content {
            name,
            gguf: choice.gguf,
            files,
            revision: Some(commit),
        })
    }

    /// Names the repository in an error about its content.
    fn explain(&self, error: PullError) -> PullError {
        PullError::new(
            error.fault,
            format!("hf:{}: {}", self.wanted.repository, error.message),
        )
    }

    async fn commit(&self) -> Result<String, PullError> {
        let (org, name) = self.repository();
        let url = self.hub.address(&[
            "api",
            "models",
            org,
            name,
            "revision",
            &self.wanted.revision,
        ]);
        let (body, _) = self.read_list(&url).await?;
        let revision: Revision = self.parse(&body)?;
        let hex = revision.sha.len() >= 40 && revision.sha.bytes().all(|b| b.is_ascii_hexdigit());
        if !hex {
            return Err(self.not_a_hub("the commit that it names is none"));
        }
        Ok(revision.sha)
    }

    fn repository(&self) -> (&str, &str) {
        self.wanted
            .repository
            .split_once('/')
            .unwrap_or((&self.wanted.repository, ""))
    }

    async fn list(&self, commit: &str) -> Result<Vec<Remote>, PullError> {
        let (org, name) = self.repository();
        let mut url = self
            .hub
            .address(&["api", "models", org, name, "tree", commit]);
        url.set_query(Some("recursive=true&expand=false"));
        let mut files = Vec::new();
        for _ in 0..MOST_PAGES {
            let (body, next) = self.read_list(&url).await?;
            let entries: Vec<TreeEntry> = self.parse(&body)?;
            for entry in entries.into_iter().filter(|entry| entry.kind == "file") {
                files.extend(self.remote(entry)?);
            }
            match next.and_then(|next| self.hub.url.join(&next).ok()) {
                Some(next) if next.origin() == self.hub.url.origin() => url = next,
                Some(_) => return Err(self.not_a_hub("its file list continues on another host")),
                None => return Ok(files),
            }
        }
        Err(self.not_a_hub("its file list has no end"))
    }

    /// `None` for files with unusual names, which are not part of any model.
    fn remote(&self, entry: TreeEntry) -> Result<Option<Remote>, PullError> {
        if !reference::is_relative_path(&entry.path) {
            return Ok(None);
        }
        let (size_bytes, expected) = match entry.lfs {
            Some(lfs) => {
                let hex = lfs.oid.strip_prefix("sha256:").unwrap_or(&lfs.oid);
                let digest = format!("sha256:{}", hex.to_ascii_lowercase()).parse();
                let digest = digest
                    .map_err(|_| self.not_a_hub("the digest of a large file is no SHA-256"))?;
                (lfs.size, Expected::Sha256(digest))
            }
            None => (
                entry.size,
                Expected::GitBlob(entry.oid.to_ascii_lowercase()),
            ),
        };
        Ok(Some(Remote {
            path: entry.path,
            size_bytes,
            expected,
        }))
    }

    fn parse<T: serde::de::DeserializeOwned>(&self, body: &[u8]) -> Result<T, PullError> {
        serde_json::from_slice(body)
            .map_err(|_| self.not_a_hub("its answer is not the expected JSON"))
    }

    fn not_a_hub(&self, why: &str) -> PullError {
        let host = self.hub.url.host_str().unwrap_or_default();
        PullError::new(
            PullFault::Damaged,
            format!("{host} does not answer like a Hugging Face hub: {why}"),
        )
    }

    /// The body, and the address of the next page.
    async fn read_list(&self, url: &Url) -> Result<(Bytes, Option<String>), PullError> {
        let sent = self
            .egress
            .get(
                url,
                self.hub.headers(),
                self.hub.allow,
                self.hub.answer_timeout,
            )
            .await;
        let response = sent.map_err(|error| self.unreachable(&error))?;
        if response.status() != StatusCode::OK {
            return Err(self.refused(&response, None));
        }
        let next = response
            .headers()
            .get(header::LINK)
            .and_then(|link| next_page(link.to_str().ok()?));
        let mut body = response.into_body();
        let body = read_capped(&mut body, LARGEST_LIST, self.hub.idle_timeout).await;
        Ok((body.map_err(|error| self.unreachable(&error))?, next))
    }

    fn unreachable(&self, error: &EgressError) -> PullError {
        let fault = match error {
            EgressError::Refused { .. } | EgressError::Redirect(_) | EgressError::BadTarget(_) => {
                PullFault::Refused
            }
            EgressError::TooLarge(_) => PullFault::Damaged,
            _ => PullFault::Unreachable,
        };
        PullError::new(fault, format!("hf:{}: {error}", self.wanted.repository))
    }

    fn refused(&self, response: &Response<Incoming>, file: Option<&str>) -> PullError {
        let code = response
            .headers()
            .get("x-error-code")
            .and_then(|code| code.to_str().ok())
            .unwrap_or_default();
        let what = match file {
            Some(file) => format!("hf:{}: the file {file}", self.wanted.repository),
            None => format!("hf:{}", self.wanted.repository),
        };
        let status = response.status();
        let (fault, why) = match (status.as_u16(), code) {
            (_, "GatedRepo") | (403, _) => (
                PullFault::NotFound,
                "needs an accepted licence: accept it on the hub and set HF_TOKEN for this server"
                    .to_owned(),
            ),
            (_, "RevisionNotFound") => (
                PullFault::NotFound,
                format!("has no revision {:?}", self.wanted.revision),
            ),
            (_, "EntryNotFound") => (PullFault::NotFound, "does not exist".to_owned()),
            (401 | 404, _) => (
                PullFault::NotFound,
                "does not exist, or is private (set HF_TOKEN for this server)".to_owned(),
            ),
            (429 | 500..=599, _) => (
                PullFault::Unreachable,
                format!("the hub answers {status} at the moment"),
            ),
            _ => (
                PullFault::Damaged,
                format!("the hub answers {status}, which was not expected"),
            ),
        };
        PullError::new(fault, format!("{what} {why}"))
    }

    /// Fetches one file; it is whole, right and on disk when this returns.
    async fn fetch(
        &self,
        commit: &str,
        file: &Remote,
        target: &Path,
        meter: &mut Meter<'_>,
    ) -> Result<Digest, PullError> {
        let key = format!(
            "{}\n{}\n{commit}\n{}",
            self.hub.url, self.wanted.repository, file.path
        );
        let part = self.folder.part(&Digest::of(key.as_bytes()))?;
        meter.stage(Stage::Verifying, &file.path);
        let mut partial = Partial::open(part, file.size_bytes).await?;
        meter.found(partial.length);
        meter.stage(Stage::Downloading, &file.path);
        let mut resumed = partial.length > 0;
        loop {
            partial = self.fill(commit, file, partial, meter).await?;
            let checked = partial.check(file).await?;
            match checked {
                Checked::Right(partial, digest) => {
                    partial.publish(target).await?;
                    return Ok(digest);
                }
                // What an earlier attempt left may be what is wrong; once more from nothing.
                Checked::Wrong(restarted, _) if resumed => {
                    resumed = false;
                    meter.take_back(file.size_bytes);
                    partial = restarted;
                }
                Checked::Wrong(restarted, found) => {
                    restarted.discard().await;
                    let message = format!(
                        "hf:{}: {} is not what the hub announces: its digest is {found}; nothing was kept",
                        self.wanted.repository, file.path
                    );
                    return Err(PullError::new(PullFault::Damaged, message));
                }
            }
        }
    }

    /// Requests what is missing until nothing is, however often the connection breaks.
    async fn fill(
        &self,
        commit: &str,
        file: &Remote,
        mut partial: Partial,
        meter: &mut Meter<'_>,
    ) -> Result<Partial, PullError> {
        let mut fruitless = 0;
        while partial.length < file.size_bytes {
            let before = partial.length;
            let (after, outcome) = self.attempt(commit, file, partial, meter).await?;
            partial = after;
            let Err(error) = outcome else { continue };
            if !error.is_temporary() {
                return Err(error);
            }
            fruitless = if partial.length > before {
                0
            } else {
                fruitless + 1
            };
            if fruitless >= FRUITLESS_ATTEMPTS {
                return Err(error);
            }
            tracing::debug!(file = %file.path, bytes = partial.length, "a download broke off and will be continued");
            tokio::time::sleep(
                self.hub.retry_pause * 2_u32.saturating_pow(fruitless.saturating_sub(1)),
            )
            .await;
        }
        Ok(partial)
    }

    /// One request. The partial file comes back whatever happened, unless the disk failed.
    async fn attempt(
        &self,
        commit: &str,
        file: &Remote,
        mut partial: Partial,
        meter: &mut Meter<'_>,
    ) -> Result<(Partial, Result<(), PullError>), PullError> {
        let response = match self.request(commit, file, partial.length).await {
            Ok(response) => response,
            Err(error) => return Ok((partial, Err(error))),
        };
        match response.status() {
            StatusCode::PARTIAL_CONTENT if range_start(&response) == Some(partial.length) => {}
            StatusCode::OK | StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE
                if partial.length > 0 =>
            {
                meter.take_back(partial.length);
                partial = partial.restart().await?;
                if response.status() != StatusCode::OK {
                    let error = PullError::new(
                        PullFault::Unreachable,
                        "the hub cannot continue the download",
                    );
                    return Ok((partial, Err(error)));
                }
            }
            StatusCode::OK => {}
            _ => {
                let refused = self.refused(&response, Some(&file.path));
                return Ok((partial, Err(refused)));
            }
        }
        self.receive(response.into_body(), file, partial, meter)
            .await
    }

    async fn request(
        &self,
        commit: &str,
        file: &Remote,
        from: u64,
    ) -> Result<Response<Incoming>, PullError> {
        let (org, name) = self.repository();
        let mut segments = vec![org, name, "resolve", commit];
        segments.extend(file.path.split('/'));
        let mut headers = self.hub.headers();
        if from > 0
            && let Ok(range) = HeaderValue::from_str(&format!("bytes={from}-"))
        {
            headers.insert(header::RANGE, range);
        }
        let address = self.hub.address(&segments);
        let sent = self
            .egress
            .get(&address, headers, self.hub.allow, self.hub.file_timeout);
        sent.await.map_err(|error| self.unreachable(&error))
    }

    /// The network on this side, hashing and the disk on a blocking thread, a few pieces between them.
    async fn receive(
        &self,
        mut body: Incoming,
        file: &Remote,
        partial: Partial,
        meter: &mut Meter<'_>,
    ) -> Result<(Partial, Result<(), PullError>), PullError> {
        let mut room = file.size_bytes - partial.length;
        let (pieces, received) = mpsc::channel(16);
        let writing = tokio::task::spawn_blocking(move || partial.write_all(received));
        let outcome = loop {
            match next_chunk(&mut body, self.hub.idle_timeout).await {
                Ok(Some(piece)) if piece.len() as u64 > room => {
                    let message = format!(
                        "hf:{}: {} is longer than announced",
                        self.wanted.repository, file.path
                    );
                    break Err(PullError::new(PullFault::Damaged, message));
                }
                Ok(Some(piece)) => {
                    let length = piece.len() as u64;
                    room -= length;
                    if pieces.send(piece).await.is_err() {
                        // The disk said no; the writer has the reason.
                        break Ok(());
                    }
                    meter.add(length);
                }
                Ok(None) if room == 0 => break Ok(()),
                ended => {
                    let why = ended
                        .err()
                        .map(|error| format!(" ({error})"))
                        .unwrap_or_default();
                    let message = format!(
                        "hf:{}: the download broke off {room} bytes before the end of {}{why}",
                        self.wanted.repository, file.path
                    );
                    break Err(PullError::new(PullFault::Unreachable, message));
                }
            }
        };
        drop(pieces);
        let partial = writing.await??;
        if let Err(error) = &outcome
            && error.fault == PullFault::Damaged
        {
            partial.discard().await;
            return Err(error.clone());
        }
        Ok((partial, outcome))
    }
}

fn range_start(response: &Response<Incoming>) -> Option<u64> {
    let text = response
        .headers()
        .get(header::CONTENT_RANGE)?
        .to_str()
        .ok()?;
    text.strip_prefix("bytes ")?
        .split('-')
        .next()?
        .trim()
        .parse()
        .ok()
}

/// The target of `<URL>; rel="next"`.
fn next_page(link: &str) -> Option<String> {
    let next = link.split(',').find(|part| part.contains("rel=\"next\""))?;
    let (_, rest) = next.split_once('<')?;
    rest.split_once('>').map(|(url, _)| url.to_owned())
}

/// What has come of a file, open, locked and hashed so far.
struct Partial {
    path: PathBuf,
    file: File,
    hash: Sha256,
    length: u64,
}

enum Checked {
    Right(Partial, Digest),
    /// Emptied, with what the content's digest was.
    Wrong(Partial, String),
}

impl Partial {
    /// Opens it and reads what is there already. The lock keeps a second pull of
    /// the same file away, in this process and others.
    async fn open(path: PathBuf, expected_bytes: u64) -> Result<Self, PullError> {
        tokio::task::spawn_blocking(move || {
            let failed = |error: &io::Error| PullError::io("open", &path, error);
            let opened = OpenOptions::new()
                .create(true)
                .truncate(false)
                .read(true)
                .write(true)
                .open(&path);
            let mut file = opened.map_err(|error| failed(&error))?;
            match file.try_lock() {
                Ok(()) => {}
                Err(std::fs::TryLockError::WouldBlock) => {
                    return Err(PullError::new(
                        PullFault::Conflict,
                        "another pull of this model is running",
                    ));
                }
                Err(std::fs::TryLockError::Error(error)) => return Err(failed(&error)),
            }
            let mut length = file.metadata().map_err(|error| failed(&error))?.len();
            if length > expected_bytes {
                file.set_len(0).map_err(|error| failed(&error))?;
                length = 0;
            }
            let mut hash = Sha256::new();
            let mut chunk = vec![0; 256 << 10];
            let mut left = length;
            while left > 0 {
                let most = chunk.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                let count = file
                    .read(&mut chunk[..most])
                    .map_err(|error| failed(&error))?;
                if count == 0 {
                    break;
                }
                hash.update(&chunk[..count]);
                left -= count as u64;
            }
            Ok(Self {
                file,
                hash,
                length: length - left,
                path: path.clone(),
            })
        })
        .await?
    }

    fn write_all(mut self, mut pieces: mpsc::Receiver<Bytes>) -> Result<Self, PullError> {
        while let Some(piece) = pieces.blocking_recv() {
            if let Err(error) = self.file.write_all(&piece) {
                // A full disk is not helped by keeping half a model on it.
                let _ = std::fs::remove_file(&self.path);
                return Err(PullError::io("write", &self.path, &error));
            }
            self.hash.update(&piece);
            self.length += piece.len() as u64;
        }
        Ok(self)
    }

    async fn restart(mut self) -> Result<Self, PullError> {
        tokio::task::spawn_blocking(move || {
            let emptied = self
                .file
                .set_len(0)
                .and_then(|()| self.file.seek(SeekFrom::Start(0)));
            emptied.map_err(|error| PullError::io("empty", &self.path, &error))?;
            (self.hash, self.length) = (Sha256::new(), 0);
            Ok(self)
        })
        .await?
    }

    async fn check(self, file: &Remote) -> Result<Checked, PullError> {
        let sha256 = Digest(self.hash.clone().finalize().into());
        let found = match &file.expected {
            Expected::Sha256(wanted) if *wanted == sha256 => {
                return Ok(Checked::Right(self, sha256));
            }
            Expected::Sha256(_) => sha256.to_string(),
            Expected::GitBlob(wanted) => {
                let (partial, found) = self.git_blob().await?;
                if found == *wanted {
                    return Ok(Checked::Right(partial, sha256));
                }
                return Ok(Checked::Wrong(partial.restart().await?, found));
            }
        };
        Ok(Checked::Wrong(self.restart().await?, found))
    }

    async fn git_blob(mut self) -> Result<(Self, String), PullError> {
        tokio::task::spawn_blocking(move || {
            let mut hash = ring::digest::Context::new(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY);
            hash.update(format!("blob {}\0", self.length).as_bytes());
            let failed = |path: &Path, error: &io::Error| PullError::io("read", path, error);
            self.file
                .seek(SeekFrom::Start(0))
                .map_err(|error| failed(&self.path, &error))?;
            let mut chunk = vec![0; 256 << 10];
            loop {
                match self
                    .file
                    .read(&mut chunk)
                    .map_err(|error| failed(&self.path, &error))?
                {
                    0 => break,
                    count => hash.update(&chunk[..count]),
                }
            }
            let hex = hash
                .finish()
                .as_ref()
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect();
            Ok((self, hex))
        })
        .await?
    }

    async fn publish(self, target: &Path) -> Result<(), PullError> {
        let target = target.to_owned();
        tokio::task::spawn_blocking(move || {
            self.file
                .sync_all()
                .map_err(|error| PullError::io("sync", &self.path, &error))?;
            std::fs::rename(&self.path, &target)
                .map_err(|error| PullError::io("move a file to", &target, &error))
        })
        .await?
    }

    async fn discard(self) {
        let removed = tokio::task::spawn_blocking(move || std::fs::remove_file(&self.path)).await;
        if let Ok(Err(error)) = removed {
            tracing::warn!(%error, "a damaged download could not be removed");
        }
    }
}
