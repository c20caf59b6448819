//! Every setting, with its default and its meaning.
//!
//! A setting comes from the flags, else from the environment (`MEGURI_…`),
//! else from the TOML file, else from the default here. Nothing else in the
//! workspace reads the environment. An unknown key in the file is an error
//! that names the nearest known one: a misspelt limit must not silently be no
//! limit.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde::Deserialize;

/// The settings of one server.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where everything is kept: databases, segments, blobs, models.
    pub data_dir: PathBuf,
    /// The metadata database; `None` is the SQLite file in the data directory.
    pub database_url: Option<String>,
    /// The rest, as the file spells it.
    pub file: FileConfig,
}

/// What the TOML file may hold. `meguri.toml` in the data directory is read
/// when no other file is named.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FileConfig {
    /// Address to listen on.
    pub listen: SocketAddr,
    /// The address that people and clients use, when a proxy stands before the
    /// server: `https://meguri.example.com`. Decides cookie security and links.
    pub public_url: Option<String>,
    /// Further `Host` names to answer to.
    pub allowed_hosts: Vec<String>,
    /// The metadata database URL, when it is not SQLite in the data directory.
    pub database_url: Option<String>,
    /// Outgoing connections.
    pub egress: Egress,
    /// Traces.
    pub telemetry: Telemetry,
    /// Local models.
    pub engine: Engine,
    /// Limits on requests.
    pub limits: Limits,
    /// Logs.
    pub log: Log,
}

/// Outgoing connections.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Egress {
    /// Whether people in the UI and API may add providers on loopback and
    /// private addresses. The command line always may.
    pub allow_private: bool,
    /// Whether tools of apps may call loopback and private addresses.
    pub allow_private_tools: bool,
    /// Where `hf:` models come from; default is Hugging Face.
    pub hub_url: Option<String>,
}

/// Traces.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Telemetry {
    /// How long a finished call may wait for others before the disk is synced, in milliseconds (0–5).
    pub window_ms: u64,
    /// Calls that may wait to be written before new ones are refused.
    pub queue: usize,
    /// Days after which traces are dropped; 0 keeps them for ever.
    pub retention_days: u32,
}

/// Local models.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Engine {
    /// Threads for local models; 0 uses every core.
    pub threads: usize,
}

/// Limits on requests.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Largest body of an inference call, in bytes.
    pub inference_body_bytes: usize,
    /// Connections at a time.
    pub connections: usize,
}

/// Logs.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// `error`, `warn`, `info`, `debug` or a `tracing` filter.
    pub level: String,
    /// `text` or `json`.
    pub format: LogFormat,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Default for FileConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 7800)),
            public_url: None,
            allowed_hosts: Vec::new(),
            database_url: None,
            egress: Egress::default(),
            telemetry: Telemetry::default(),
            engine: Engine::default(),
            limits: Limits::default(),
            log: Log::default(),
        }
    }
}

impl Default for Telemetry {
    fn default() -> Self {
        Self {
            window_ms: 2,
            queue: 10_000,
            retention_days: 0,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            inference_body_bytes: 32 << 20,
            connections: 4096,
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self {
            level: "info".to_owned(),
            format: LogFormat::Text,
        }
    }
}

/// What the command line and the environment say; clap merges those two.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// `--config`
    pub config: Option<PathBuf>,
    /// `--listen`
    pub listen: Option<SocketAddr>,
    /// `--database-url`
    pub database_url: Option<String>,
}

impl Config {
    /// Reads the file, lays flags and environment over it and checks the result.
    ///
    /// # Errors
    /// A file that cannot be read, is not TOML, has an unknown key or an
    /// impossible value; the message names the file, line and key.
    pub fn load(data_dir: &Path, overrides: &Overrides) -> anyhow::Result<Self> {
        let usual = data_dir.join("meguri.toml");
        let path = overrides
            .config
            .clone()
            .or_else(|| usual.exists().then_some(usual));
        let mut file = match path {
            Some(path) => read_file(&path)?,
            None => FileConfig::default(),
        };
        if let Some(listen) = overrides.listen {
            file.listen = listen;
        }
        if let Some(url) = &file.public_url {
            base::net::parse_base_url(url).with_context(|| format!("public_url = {url:?}"))?;
        }
        if file.telemetry.window_ms > 5 {
            bail!(
                "telemetry.window_ms = {} is out of range: 0 to 5",
                file.telemetry.window_ms
            );
        }
        let database_url = overrides
            .database_url
            .clone()
            .or_else(|| file.database_url.clone());
        Ok(Self {
            data_dir: data_dir.to_owned(),
            database_url,
            file,
        })
    }

    /// Whether people reach this server over TLS, so that cookies can be `Secure`.
    pub fn is_https(&self) -> bool {
        self.file
            .public_url
            .as_deref()
            .is_some_and(|url| url.starts_with("https://"))
    }

    /// The address to show in links and snippets, without a trailing slash.
    pub fn public_url(&self) -> String {
        match &self.file.public_url {
            Some(url) => url.trim_end_matches('/').to_owned(),
            None if self.file.listen.ip().is_unspecified() => {
                format!("http://127.0.0.1:{}", self.file.listen.port())
            }
            None => format!("http://{}", self.file.listen),
        }
    }
}

fn read_file(path: &Path) -> anyhow::Result<FileConfig> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    parse(&text).with_context(|| format!("in {}", path.display()))
}

fn parse(text: &str) -> anyhow::Result<FileConfig> {
    toml::from_str(text).map_err(|error| {
        let message = error.to_string();
        match suggestion(&message) {
            Some(nearest) => anyhow::anyhow!("{message}did you mean `{nearest}`?"),
            None => anyhow::anyhow!(message),
        }
    })
}

/// The expected key nearest to the unknown one, both read from serde's message
/// ("unknown field `lisen`, expected one of `listen`, …").
fn suggestion(message: &str) -> Option<String> {
    let (_, rest) = message.split_once("unknown field `")?;
    let (unknown, expected) = rest.split_once('`')?;
    expected
        .split('`')
        .skip(1)
        .step_by(2)
        .map(|known| (strsim::damerau_levenshtein(unknown, known), known))
        .filter(|(distance, _)| *distance <= 3)
        .min()
        .map(|(_, known)| known.to_owned())
}

/// The refusals, for the integration tests (this library has no unit tests of its own).
#[doc(hidden)]
pub fn parse_for_test(text: &str) -> Result<(), String> {
    parse(text)
        .map(|_| ())
        .map_err(|error| format!("{error:#}"))
}

/// A variable that a credential reference names. The one reader of the
/// environment besides the command line's own flags.
pub fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
