//! Prompts from other products' files: dotprompt, Langfuse, MLflow, promptfoo.
//!
//! Each format becomes prompt documents of ours; from there on it is a tree like
//! any other, planned and applied (or written as files) by the same code. What has
//! no counterpart is said with its file and line, never dropped in silence. Files
//! are read inside the folder that was named and nowhere else.

mod dotprompt;
mod handlebars;
mod langfuse;
mod mlflow;
mod picoschema;
mod promptfoo;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use db::catalog::{Label, Name};
use db::{Kind, Kinds};
use serde_json::Value;

use super::parse::kept;
use super::{Entry, Finding, Key, Tree, TreeDocument, in_words};

/// The word of the catalog for what is imported.
const KIND: &str = "prompt";
/// The largest file that is read.
const MAX_FILE_BYTES: u64 = 16 << 20;
const MAX_FILES: usize = 20_000;
const MAX_DEPTH: usize = 32;

/// Whose files they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `.prompt` files: YAML front matter and Handlebars.
    Dotprompt,
    /// JSON as Langfuse's API gives it.
    Langfuse,
    /// JSON of MLflow's prompt registry.
    Mlflow,
    /// The prompts of a promptfoo configuration.
    Promptfoo,
}

impl std::str::FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "dotprompt" => Ok(Self::Dotprompt),
            "langfuse" => Ok(Self::Langfuse),
            "mlflow" => Ok(Self::Mlflow),
            "promptfoo" => Ok(Self::Promptfoo),
            _ => Err(format!(
                "{text:?} is no format; the formats are dotprompt, langfuse, mlflow, promptfoo"
            )),
        }
    }
}

/// What was read.
#[derive(Debug, Default)]
pub struct Imported {
    /// The prompts, as a tree without environments.
    pub tree: Tree,
    /// What is wrong, and what to know.
    pub findings: Vec<Finding>,
}

/// One version of a prompt of somebody else.
#[derive(Debug, Clone)]
struct Foreign {
    /// As it is called there.
    name: String,
    /// Versions of a name are saved in this order.
    order: i64,
    labels: Vec<String>,
    tags: Vec<String>,
    content: Value,
    file: String,
}

/// Reads prompts of another product.
///
/// # Errors
/// The path cannot be read. What is wrong in the files are findings.
pub fn import(
    format: Format,
    path: &Path,
    name_prefix: Option<&str>,
    kinds: &Kinds,
) -> anyhow::Result<Imported> {
    let mut importing = Importing {
        root: Root::open(path)?,
        prefix: name_prefix.unwrap_or_default().to_owned(),
        foreign: Vec::new(),
        findings: Vec::new(),
    };
    match format {
        Format::Dotprompt => dotprompt::read(&mut importing)?,
        Format::Langfuse => langfuse::read(&mut importing)?,
        Format::Mlflow => mlflow::read(&mut importing)?,
        Format::Promptfoo => promptfoo::read(&mut importing)?,
    }
    if importing.foreign.is_empty() && importing.findings.is_empty() {
        bail!("{} has no prompts of this format", path.display());
    }
    let kind = kinds.get(KIND)?;
    let tree = importing.tree(kind);
    Ok(Imported {
        tree,
        findings: importing.findings,
    })
}

struct Importing {
    root: Root,
    prefix: String,
    foreign: Vec<Foreign>,
    findings: Vec<Finding>,
}

impl Importing {
    fn refuse(&mut self, file: &str, message: impl Into<String>) {
        self.findings.push(Finding::error(file, message));
    }

    fn warn(&mut self, file: &str, message: impl Into<String>) {
        self.findings.push(Finding::warning(file, message));
    }

    /// What a foreign prompt is called here.
    fn name(&self, foreign: &str) -> Result<Name, String> {
        our_name(&self.prefix, foreign)
    }

    fn tree(&mut self, kind: &Kind) -> Tree {
        let mut foreign = std::mem::take(&mut self.foreign);
        foreign.sort_by(|a, b| (&a.name, a.order).cmp(&(&b.name, b.order)));
        let mut tree = Tree::default();
        let mut called: BTreeMap<Key, String> = BTreeMap::new();
        for version in foreign {
            let name = match self.name(&version.name) {
                Ok(name) => name,
                Err(why) => {
                    self.refuse(&version.file, format!("{:?}: {why}", version.name));
                    continue;
                }
            };
            let key = Key {
                kind: KIND.to_owned(),
                name,
            };
            let before = called
                .entry(key.clone())
                .or_insert_with(|| version.name.clone());
            if *before != version.name {
                let message = format!("{:?} and {before:?} would both be {key}", version.name);
                self.refuse(&version.file, message);
                continue;
            }
            let Some(document) = self.document(kind, &version) else {
                continue;
            };
            self.add(&mut tree, key, document, &version);
        }
        for (key, foreign) in called {
            let ours = key.name.as_str();
            if ours.strip_prefix(&self.prefix).unwrap_or(ours) != foreign {
                self.warn("", format!("{foreign:?} is called {key} here"));
            }
        }
        tree
    }

    fn document(&mut self, kind: &Kind, version: &Foreign) -> Option<TreeDocument> {
        if let Err(problems) = (kind.validate)(&version.content) {
            for problem in &problems {
                let message = format!("{:?}: {}", version.name, in_words(problem));
                self.findings.push(Finding::error(&version.file, message));
            }
            return None;
        }
        match kept(kind, &version.content) {
            Ok((content, digest)) => Some(TreeDocument {
                references: (kind.references)(&content),
                blobs: (kind.blobs)(&content),
                content,
                digest,
                file: version.file.clone(),
            }),
            Err(why) => {
                self.refuse(&version.file, why);
                None
            }
        }
    }

    /// Later versions come later; the last is the main document.
    fn add(&mut self, tree: &mut Tree, key: Key, document: TreeDocument, version: &Foreign) {
        let digest = document.digest;
        let file = document.file.clone();
        match tree.names.get_mut(&key) {
            None => {
                let entry = Entry {
                    main: document,
                    pinned: Vec::new(),
                    tags: Vec::new(),
                    pointers: BTreeMap::new(),
                };
                tree.names.insert(key.clone(), entry);
            }
            Some(entry) => {
                let known = entry.documents().any(|known| known.digest == digest);
                if !known {
                    let before = std::mem::replace(&mut entry.main, document);
                    entry.pinned.push(before);
                }
            }
        }
        let Some(entry) = tree.names.get_mut(&key) else {
            return;
        };
        for tag in &version.tags {
            match db::catalog::clean_tags(std::slice::from_ref(tag)) {
                Ok(tags) => entry.tags.extend(tags),
                Err(error) => {
                    let message = format!("tag {tag:?}: {error}");
                    self.findings.push(Finding::warning(&file, message));
                }
            }
        }
        entry.tags.sort();
        entry.tags.dedup();
        for label in &version.labels {
            // Ours always means the newest; theirs does too.
            if label == "latest" {
                continue;
            }
            match label.parse::<Label>() {
                Ok(label) => {
                    entry.pointers.insert(label, digest);
                }
                Err(problem) => {
                    let message = format!("label {label:?}: {}", problem.message);
                    self.findings.push(Finding::warning(&file, message));
                }
            }
        }
    }
}

/// A name of ours for a foreign one: what may not be in names becomes `-`.
fn our_name(prefix: &str, foreign: &str) -> Result<Name, String> {
    let text = format!("{prefix}{foreign}");
    if let Ok(name) = text.parse::<Name>() {
        return Ok(name);
    }
    let parts: Vec<String> = text
        .split('/')
        .map(|part| {
            let written: String = part
                .chars()
                .map(|c| {
                    let good = c.is_alphanumeric() || matches!(c, '-' | '_' | '.');
                    if good { c } else { '-' }
                })
                .collect();
            let mut short = String::with_capacity(written.len());
            for c in written.trim_matches('-').chars() {
                if !(c == '-' && short.ends_with('-')) {
                    short.push(c);
                }
            }
            short
        })
        .filter(|part| !part.is_empty())
        .collect();
    parts
        .join("/")
        .parse::<Name>()
        .map_err(|problem| problem.message)
}

/// The one folder that may be read, or the one file.
struct Root {
    folder: PathBuf,
    /// The file that was named, relative to the folder.
    file: Option<String>,
}

impl Root {
    fn open(path: &Path) -> anyhow::Result<Self> {
        let full = path
            .canonicalize()
            .with_context(|| format!("reading {}", path.display()))?;
        if full.is_dir() {
            return Ok(Self {
                folder: full,
                file: None,
            });
        }
        let name = full
            .file_name()
            .map(|name| name.to_string_lossy().into_owned());
        let folder = full.parent().map(Path::to_owned);
        match (folder, name) {
            (Some(folder), Some(name)) => Ok(Self {
                folder,
                file: Some(name),
            }),
            _ => bail!("{} is neither a file nor a folder", path.display()),
        }
    }

    /// The file that was named, or every file with one of these endings.
    fn files(&self, endings: &[&str]) -> anyhow::Result<Vec<String>> {
        if let Some(file) = &self.file {
            return Ok(vec![file.clone()]);
        }
        let mut files = Vec::new();
        list(&self.folder, "", endings, 0, &mut files)?;
        files.sort();
        Ok(files)
    }

    /// The text of a file below the folder, whatever a configuration calls it.
    fn read(&self, path: &str) -> Result<String, String> {
        let leaves = path
            .split(['/', '\\'])
            .any(|part| part == ".." || part.contains(':'));
        if leaves || Path::new(path).is_absolute() || path.contains('\0') {
            return Err(format!("{path:?} leads out of the folder"));
        }
        let full = self.folder.join(path);
        let real = full
            .canonicalize()
            .map_err(|error| format!("cannot read {path}: {error}"))?;
        if !real.starts_with(&self.folder) {
            return Err(format!("{path:?} leads out of the folder"));
        }
        let meta = fs::metadata(&real).map_err(|error| format!("cannot read {path}: {error}"))?;
        if !meta.is_file() {
            return Err(format!("{path} is not a file"));
        }
        if meta.len() > MAX_FILE_BYTES {
            return Err(format!("{path} is larger than 16 MiB"));
        }
        let bytes = fs::read(&real).map_err(|error| format!("cannot read {path}: {error}"))?;
        let text = String::from_utf8(bytes).map_err(|_| format!("{path} is not UTF-8"))?;
        Ok(text.replace("\r\n", "\n"))
    }
}

fn list(
    folder: &Path,
    prefix: &str,
    endings: &[&str],
    depth: usize,
    files: &mut Vec<String>,
) -> anyhow::Result<()> {
    let failed = || format!("reading {}", folder.display());
    for entry in fs::read_dir(folder).with_context(failed)? {
        let entry = entry.with_context(failed)?;
        let Some(name) = entry.file_name().to_str().map(str::to_owned) else {
            continue;
        };
        let kind = entry.file_type().with_context(failed)?;
        if name.starts_with('.') {
            continue;
        }
        let path = format!("{prefix}{name}");
        if kind.is_dir() && depth < MAX_DEPTH {
            list(
                &entry.path(),
                &format!("{path}/"),
                endings,
                depth + 1,
                files,
            )?;
        } else if kind.is_file() && endings.iter().any(|end| name.ends_with(end)) {
            if files.len() >= MAX_FILES {
                bail!("{} has more than {MAX_FILES} files", folder.display());
            }
            files.push(path);
        }
    }
    Ok(())
}

/// JSON, with the line of a mistake.
fn read_json(importing: &mut Importing, file: &str) -> Option<Value> {
    let text = match importing.root.read(file) {
        Ok(text) => text,
        Err(why) => {
            importing.refuse(file, why);
            return None;
        }
    };
    match serde_json::from_str(&text) {
        Ok(value) => Some(value),
        Err(error) => {
            let place = (error.line(), error.column());
            let finding = Finding::error(file, format!("it is not JSON: {error}"));
            importing.findings.push(finding.at(place));
            None
        }
    }
}

/// YAML or JSON, with the line of a mistake. `first_line` is that of the text in its file.
fn parse_yaml(
    importing: &mut Importing,
    file: &str,
    text: &str,
    first_line: usize,
) -> Option<Value> {
    match serde_yaml_ng::from_str::<Value>(text) {
        Ok(value) => Some(value),
        Err(error) => {
            let finding = Finding::error(file, format!("its YAML was not understood: {error}"));
            let place = error
                .location()
                .map(|place| (place.line() + first_line - 1, place.column()));
            importing.findings.push(match place {
                Some(place) => finding.at(place),
                None => finding,
            });
            None
        }
    }
}

/// A role of ours for a foreign one.
fn our_role(role: &str) -> Option<&'static str> {
    match role {
        "system" | "developer" => Some("system"),
        "user" | "human" => Some("user"),
        "assistant" | "model" | "ai" => Some("assistant"),
        _ => None,
    }
}

/// Messages of a chat as most formats have them: `role` and a text.
fn our_messages(messages: &[Value]) -> Result<Vec<Value>, String> {
    messages
        .iter()
        .enumerate()
        .map(|(index, message)| {
            let name = message.get("name").and_then(Value::as_str);
            if message.get("type").and_then(Value::as_str) == Some("placeholder")
                && let Some(name) = name
            {
                return Ok(serde_json::json!({"placeholder": handlebars::local_name(name)}));
            }
            let role = message.get("role").and_then(Value::as_str).unwrap_or("");
            let role = our_role(role).ok_or_else(|| {
                format!(
                    "message {}: the role {role:?} has no counterpart",
                    index + 1
                )
            })?;
            let content = message
                .get("content")
                .and_then(Value::as_str)
                .ok_or_else(|| format!("message {}: its content is no text", index + 1))?;
            Ok(serde_json::json!({"role": role, "content": content}))
        })
        .collect()
}

/// A list of texts, or nothing.
fn texts(value: Option<&Value>) -> Vec<String> {
    value
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|item| item.as_str().map(str::to_owned))
        .collect()
}
