//! Credentials at rest.
//!
//! A provider's credential is a reference: `env:NAME` or `file:PATH`, read when
//! the plan is built, or `enc:KEYID:BASE64`, encrypted with AES-256-GCM under a
//! master key that lives beside the database in `master.key` (mode 600). The
//! database alone, in a back-up say, opens nothing.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use base::{Digest, Random, Secret};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

/// Encrypts and resolves credentials.
pub struct Secrets {
    key: LessSafeKey,
    key_id: String,
}

impl Secrets {
    /// Reads the master key of a data directory, or makes it.
    ///
    /// # Errors
    /// The file cannot be read or written, or is not a key.
    pub fn open(data_dir: &Path, random: &dyn Random) -> anyhow::Result<Self> {
        let path = data_dir.join("master.key");
        let bytes = match std::fs::read(&path) {
            Ok(text) => decode_key(&text)
                .with_context(|| format!("{} is not a master key", path.display()))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                create_key(&path, random)?
            }
            Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
        };
        let key = UnboundKey::new(&AES_256_GCM, &bytes)
            .map_err(|_| anyhow::anyhow!("the master key has a wrong size"))?;
        Ok(Self {
            key: LessSafeKey::new(key),
            key_id: Digest::of(&bytes).hex()[..8].to_owned(),
        })
    }

    /// Encrypts a credential; `name` binds it to its place, so that a row
    /// copied elsewhere does not open.
    ///
    /// # Errors
    /// Never in practice; the cipher's own.
    pub fn seal(
        &self,
        random: &dyn Random,
        name: &str,
        secret: &Secret<String>,
    ) -> anyhow::Result<String> {
        let mut nonce = [0; NONCE_LEN];
        random.fill(&mut nonce);
        let mut sealed = secret.expose().clone().into_bytes();
        self.key
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(name.as_bytes()),
                &mut sealed,
            )
            .map_err(|_| anyhow::anyhow!("encrypting a credential failed"))?;
        let mut whole = nonce.to_vec();
        whole.extend(sealed);
        Ok(format!("enc:{}:{}", self.key_id, STANDARD.encode(whole)))
    }

    /// The credential that a reference stands for.
    ///
    /// # Errors
    /// The variable or file is missing, or the text was encrypted under another key.
    pub fn resolve(&self, name: &str, reference: &str) -> anyhow::Result<Secret<String>> {
        match reference.split_once(':') {
            Some(("env", variable)) => {
                let value = crate::config::environment(variable);
                value
                    .map(Secret::new)
                    .with_context(|| format!("the environment variable {variable} is not set"))
            }
            Some(("file", path)) => {
                let text = std::fs::read_to_string(PathBuf::from(path))
                    .with_context(|| format!("reading {path}"))?;
                Ok(Secret::new(text.trim().to_owned()))
            }
            Some(("enc", rest)) => self.unseal(name, rest),
            _ => bail!("a credential is env:NAME, file:PATH or encrypted"),
        }
    }

    fn unseal(&self, name: &str, rest: &str) -> anyhow::Result<Secret<String>> {
        let (key_id, text) = rest
            .split_once(':')
            .context("an encrypted credential is damaged")?;
        if key_id != self.key_id {
            bail!(
                "this credential was encrypted under the master key {key_id}, but {} is in use",
                self.key_id
            );
        }
        let mut bytes = STANDARD
            .decode(text)
            .context("an encrypted credential is damaged")?;
        if bytes.len() < NONCE_LEN {
            bail!("an encrypted credential is damaged");
        }
        let mut sealed = bytes.split_off(NONCE_LEN);
        let nonce = Nonce::try_assume_unique_for_key(&bytes)
            .map_err(|_| anyhow::anyhow!("a damaged nonce"))?;
        let open = self
            .key
            .open_in_place(nonce, Aad::from(name.as_bytes()), &mut sealed);
        let plain = open.map_err(|_| anyhow::anyhow!("an encrypted credential does not open"))?;
        Ok(Secret::new(
            String::from_utf8(plain.to_vec()).context("an encrypted credential is not text")?,
        ))
    }
}

fn decode_key(text: &[u8]) -> anyhow::Result<Vec<u8>> {
    let bytes = STANDARD.decode(text.trim_ascii())?;
    if bytes.len() == 32 {
        Ok(bytes)
    } else {
        bail!("it has {} bytes instead of 32", bytes.len())
    }
}

fn create_key(path: &Path, random: &dyn Random) -> anyhow::Result<Vec<u8>> {
    use std::io::Write as _;
    let mut bytes = vec![0; 32];
    random.fill(&mut bytes);
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let writing = || format!("writing {}", path.display());
    let mut file = options.open(path).with_context(writing)?;
    file.write_all(STANDARD.encode(&bytes).as_bytes())
        .with_context(writing)?;
    file.sync_all().with_context(writing)?;
    Ok(bytes)
}
