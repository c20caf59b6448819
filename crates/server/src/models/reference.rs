//! Where a model comes from, as people write it, and the name it gets.
//!
//! Three forms: `hf:ORG/REPO[@REVISION][:FILE]`, `pip:PACKAGE==VERSION`, or a
//! path. Everything is checked here, so that no part of a reference can become
//! an option of pip, a parent directory or another host further on.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Where a model comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelRef {
    /// A repository of the hub.
    Hub(HubRef),
    /// A Python package that carries model files.
    Pip {
        /// The package's name.
        package: String,
        /// Its exact version.
        version: String,
    },
    /// A GGUF file or a model directory on this machine.
    Path(PathBuf),
}

/// A repository of the hub, or one file in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubRef {
    /// `ORG/REPO`.
    pub repository: String,
    /// A branch, tag or commit.
    pub revision: String,
    /// One file instead of the whole model.
    pub file: Option<String>,
}

/// The reference cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadRef(String);

impl BadRef {
    fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

/// What can be written, for help texts and errors.
pub const FORMS: &str =
    "hf:ORG/REPO[@REVISION][:FILE], pip:PACKAGE==VERSION, or (on the command line) a path";

impl FromStr for ModelRef {
    type Err = BadRef;

    fn from_str(text: &str) -> Result<Self, BadRef> {
        let text = text.trim();
        if text.is_empty() {
            return Err(BadRef::new(format!("name a model: {FORMS}")));
        }
        if text.len() > 500 || text.chars().any(char::is_control) {
            return Err(BadRef::new(
                "a model reference has at most 500 characters, none of them control characters",
            ));
        }
        if let Some(rest) = text.strip_prefix("hf:") {
            return parse_hub(rest).map(Self::Hub);
        }
        if let Some(rest) = text.strip_prefix("pip:") {
            return parse_pip(rest);
        }
        match text.split_once(':') {
            Some((scheme, _)) if is_word(scheme, "") && scheme.len() > 1 => Err(BadRef::new(
                format!("{scheme:?} is no source of models; write {FORMS}"),
            )),
            _ => Ok(Self::Path(PathBuf::from(text))),
        }
    }
}

fn parse_hub(text: &str) -> Result<HubRef, BadRef> {
    let bad = || BadRef::new(format!("{text:?} is not ORG/REPO[@REVISION][:FILE]"));
    let (place, file) = match text.split_once(':') {
        Some((place, file)) => (place, Some(file)),
        None => (text, None),
    };
    let (repository, revision) = match place.split_once('@') {
        Some((repository, revision)) => (repository, revision),
        None => (place, "main"),
    };
    let mut parts = repository.split('/');
    let (Some(org), Some(name), None) = (parts.next(), parts.next(), parts.next()) else {
        return Err(bad());
    };
    if !is_word(org, "._-") || !is_word(name, "._-") || !is_relative_path(revision) {
        return Err(bad());
    }
    if file.is_some_and(|file| !is_relative_path(file)) {
        return Err(bad());
    }
    Ok(HubRef {
        repository: repository.to_owned(),
        revision: revision.to_owned(),
        file: file.map(str::to_owned),
    })
}

fn parse_pip(text: &str) -> Result<ModelRef, BadRef> {
    let bad = || {
        BadRef::new(format!(
            "{text:?} is not PACKAGE==VERSION; the exact version is required"
        ))
    };
    let (package, version) = text.split_once("==").ok_or_else(bad)?;
    if !is_word(package, "._-") || !is_word(version, ".!+_-") {
        return Err(bad());
    }
    Ok(ModelRef::Pip {
        package: package.to_owned(),
        version: version.to_owned(),
    })
}

/// Begins with a letter or digit, so it can be no option and no dot segment.
fn is_word(text: &str, extra: &str) -> bool {
    let first_ok = text.starts_with(|c: char| c.is_ascii_alphanumeric());
    first_ok
        && text.len() <= 100
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || extra.contains(c))
}

/// `a/b/c` of plain segments: no root, no drive, no `.` or `..`, no backslash.
pub(crate) fn is_relative_path(path: &str) -> bool {
    let segment = |segment: &str| {
        !matches!(segment, "" | "." | "..")
            && !segment.starts_with('-')
            && !segment.contains(['\\', ':', '?', '#', '%'])
            && !segment.chars().any(char::is_control)
    };
    path.len() <= 300 && path.split('/').all(segment)
}

impl fmt::Display for ModelRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hub(hub) => {
                write!(f, "hf:{}", hub.repository)?;
                if hub.revision != "main" {
                    write!(f, "@{}", hub.revision)?;
                }
                hub.file
                    .as_ref()
                    .map_or(Ok(()), |file| write!(f, ":{file}"))
            }
            Self::Pip { package, version } => write!(f, "pip:{package}=={version}"),
            Self::Path(path) => write!(f, "{}", path.display()),
        }
    }
}

/// The name under which a model is called, made from its file's or folder's
/// name: lower case, without `.gguf`, the quantisation and the organisation, so
/// that the same model has the same name from every source.
pub fn name_from(label: &str) -> String {
    let last = label.rsplit('/').next().unwrap_or(label);
    // sentence-transformers__all-MiniLM-L6-v2 is how a slash is written in a folder's name.
    let last = last
        .rsplit("__")
        .next()
        .unwrap_or(last)
        .to_ascii_lowercase();
    let mut name: String = last
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') {
                c
            } else {
                '-'
            }
        })
        .collect();
    for suffix in [".gguf", "-gguf"] {
        if let Some(short) = name.strip_suffix(suffix) {
            name.truncate(short.len());
        }
    }
    if let Some((short, tail)) = name.rsplit_once(['.', '-'])
        && is_quantisation(tail)
    {
        name.truncate(short.len());
    }
    let name = name.trim_matches(|c: char| !c.is_ascii_alphanumeric());
    name.chars().take(100).collect()
}

/// `q4_1`, `q4_k_m`, `iq2_xs`, `f16`, `bf16`, `f32`.
fn is_quantisation(text: &str) -> bool {
    let digits_after = |prefix: &str| {
        text.strip_prefix(prefix)
            .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()) && rest.len() <= 6)
    };
    matches!(text, "f16" | "bf16" | "f32" | "fp16" | "fp32")
        || digits_after("q")
        || digits_after("iq")
}

/// Checks a name that a person chose.
///
/// # Errors
/// Empty, too long, or with other characters than `a-z 0-9 . _ -`.
pub fn check_name(name: &str) -> Result<(), BadRef> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    if name.starts_with(plain)
        && name.len() <= 100
        && name
            .chars()
            .all(|c| plain(c) || matches!(c, '.' | '_' | '-'))
    {
        return Ok(());
    }
    Err(BadRef::new(format!(
        "{name:?} is no name for a model: a lower-case letter or digit, then also . _ -, at most 100 characters"
    )))
}
