//! Message bodies: content address, size limit, compression.
//!
//! The address is a BLAKE3 keyed per project, so that nobody can test from one
//! project whether another holds a certain text. The key comes from
//! `content.key` in the data directory; losing it costs only de-duplication.

use std::cell::RefCell;
use std::io::{Read as _, Write as _};
use std::path::Path;

use base::{ProjectId, Random as _, SystemRandom};
use serde_json::{Value, json};

use crate::limits;

/// Address of a body within its project.
pub(crate) type Hash = [u8; 16];

/// Codec of a stored body.
pub(crate) const PLAIN: i64 = 0;
pub(crate) const ZSTD: i64 = 1;

/// The directory's master key.
#[derive(Clone)]
pub(crate) struct MasterKey([u8; 32]);

/// A project's key.
#[derive(Clone)]
pub(crate) struct ProjectKey([u8; 32]);

impl MasterKey {
    /// Reads the key file, or makes it. The new file appears complete or not at all.
    pub(crate) fn load(dir: &Path) -> std::io::Result<Self> {
        let path = dir.join("content.key");
        match read_key(&path) {
            Ok(Some(key)) => Ok(Self(key)),
            Ok(None) => Self::create(dir, &path),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Self::create(dir, &path),
            Err(error) => Err(error),
        }
    }

    fn create(dir: &Path, path: &Path) -> std::io::Result<Self> {
        let mut key = [0; 32];
        SystemRandom.fill(&mut key);
        let temporary = dir.join("content.key.tmp");
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&temporary)?;
        file.write_all(&key)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)?;
        crate::segments::sync_dir(dir)?;
        Ok(Self(key))
    }

    /// A name that follows from the key and says nothing about it.
    pub(crate) fn identity(&self) -> String {
        let hash = blake3::keyed_hash(&self.0, b"the identity of this telemetry");
        hash.to_hex()[..32].to_owned()
    }

    pub(crate) fn project(&self, project: ProjectId) -> ProjectKey {
        ProjectKey(*blake3::keyed_hash(&self.0, project.to_string().as_bytes()).as_bytes())
    }
}

fn read_key(path: &Path) -> std::io::Result<Option<[u8; 32]>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?
        .take(64)
        .read_to_end(&mut bytes)?;
    Ok(bytes.try_into().ok())
}

/// A body ready to be stored.
pub(crate) struct Prepared {
    pub(crate) hash: Hash,
    pub(crate) json: Vec<u8>,
}

/// Addresses a body; one that is too large is cut and says so.
pub(crate) fn prepare(key: &ProjectKey, value: &Value) -> (Prepared, bool) {
    let json = serde_json::to_vec(value).unwrap_or_default();
    if json.len() > limits::BODY_BYTES {
        let text = String::from_utf8_lossy(&json);
        let head = base::text::cut_bytes(&text, limits::BODY_BYTES / 2);
        let cut =
            json!({ "role": value["role"], "truncated": { "bytes": json.len() }, "content": head });
        return (prepare(key, &cut).0, true);
    }
    // A number without a canonical form still needs an address; its own text serves.
    let canonical = base::canonical_json(value).unwrap_or_else(|_| json.clone());
    let mut hash = [0; 16];
    hash.copy_from_slice(&blake3::keyed_hash(&key.0, &canonical).as_bytes()[..16]);
    (Prepared { hash, json }, false)
}

thread_local! {
    /// Only the writer thread compresses; making a context costs more than a small body.
    static COMPRESSOR: RefCell<Option<zstd::bulk::Compressor<'static>>> = const { RefCell::new(None) };
}

/// Compresses where that helps.
pub(crate) fn encode(json: &[u8]) -> (i64, Vec<u8>) {
    if json.len() < 256 {
        return (PLAIN, json.to_vec());
    }
    let packed = COMPRESSOR.with_borrow_mut(|known| {
        if known.is_none() {
            *known = zstd::bulk::Compressor::new(3).ok();
        }
        known.as_mut().map(|compressor| compressor.compress(json))
    });
    match packed {
        Some(Ok(packed)) if packed.len() < json.len() => (ZSTD, packed),
        _ => (PLAIN, json.to_vec()),
    }
}

/// The JSON text of a stored body; `None` when it is damaged.
pub(crate) fn decode(codec: i64, bytes: Vec<u8>, size: usize) -> Option<Vec<u8>> {
    if codec == PLAIN {
        return Some(bytes);
    }
    zstd::bulk::decompress(&bytes, size.min(2 * limits::BODY_BYTES)).ok()
}

/// Index of the first input message that is new in the conversation: what
/// follows the last assistant message.
pub(crate) fn first_new(input: &[Value]) -> usize {
    input
        .iter()
        .rposition(|message| message["role"] == "assistant")
        .map_or(0, |at| at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_content_has_one_address_per_project_only() {
        let dir = tempfile::tempdir().unwrap();
        let master = MasterKey::load(dir.path()).unwrap();
        let again = MasterKey::load(dir.path()).unwrap();
        let project = |n: u8| -> ProjectId {
            format!("00000000-0000-7000-8000-0000000000{n:02}")
                .parse()
                .unwrap()
        };
        let address = |master: &MasterKey, n, text: &str| {
            prepare(
                &master.project(project(n)),
                &serde_json::from_str(text).unwrap(),
            )
            .0
            .hash
        };
        let one = address(&master, 1, r#"{"role":"user","content":"x"}"#);
        assert_eq!(one, address(&again, 1, r#"{"content":"x", "role":"user"}"#));
        assert_ne!(one, address(&master, 2, r#"{"role":"user","content":"x"}"#));
    }

    #[test]
    fn bodies_come_back_and_giants_say_that_they_were_cut() {
        let dir = tempfile::tempdir().unwrap();
        let key = MasterKey::load(dir.path())
            .unwrap()
            .project("00000000-0000-7000-8000-000000000001".parse().unwrap());
        let (small, cut) = prepare(&key, &json!("あ".repeat(1000)));
        assert!(!cut);
        let (codec, packed) = encode(&small.json);
        assert_eq!(codec, ZSTD);
        assert_eq!(decode(codec, packed, small.json.len()).unwrap(), small.json);
        let (giant, cut) = prepare(
            &key,
            &json!({"role": "user", "content": "\u{0}\"".repeat(limits::BODY_BYTES)}),
        );
        assert!(cut);
        let stored: Value = serde_json::from_slice(&giant.json).unwrap();
        assert!(stored["truncated"]["bytes"].as_u64().unwrap() > limits::BODY_BYTES as u64);
    }
}
