//! Unguessable texts: API keys, session cookies, one-time links.
//!
//! All have 256 random bits, so a plain SHA-256 is a safe way to keep them:
//! there is nothing to guess. Only hashes are stored.

use base::{Random, Secret};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// A fresh token and what is kept of it.
#[derive(Debug)]
pub struct Token {
    /// Shown once.
    pub secret: Secret<String>,
    /// Kept.
    pub hash: [u8; 32],
}

impl Token {
    /// Makes a token that begins with this text.
    pub fn make(random: &dyn Random, prefix: &str) -> Self {
        let mut bytes = [0; 32];
        random.fill(&mut bytes);
        let text = format!("{prefix}{}", URL_SAFE_NO_PAD.encode(bytes));
        Self {
            hash: hash_token(&text),
            secret: Secret::new(text),
        }
    }
}

/// The hash under which a token is kept and looked up.
pub fn hash_token(text: &str) -> [u8; 32] {
    base::Digest::of(text.as_bytes()).0
}
