//! GitOps: a project's documents as a tree of files, and the way back.
//!
//! One TOML file per document, one text file beside it for what people edit as
//! text (`docs/gitops.md`). Everything here works for every registered kind: it
//! asks a kind for its schema, its check, its references and its text, and knows
//! nothing else of it.
//!
//! The tree says what must exist and where labels point, not what was: a version
//! that nothing points to is not in it. The surprising thing: a tree cannot make
//! an old version the newest again. Where the content of a tree's main document
//! is an older version, it stays that version, and only labels can name it.

mod api;
mod apply;
mod blobs;
mod calls;
mod environments;
mod files;
mod format;
pub mod import;
mod parse;
mod paths;
mod plan;
mod render;
mod schema;
mod state;
mod store;
mod text;
mod toml;

use std::collections::BTreeMap;
use std::fmt;

use base::Digest;
use db::catalog::{Label, Name};
use db::{Problem, Reference};
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use api::MAX_SENT_BYTES;
pub use apply::{Applied, ApplyRequest, Proposed, apply};
pub use blobs::{
    BlobFiles, BlobOf, MAX_BLOB_BYTES, check_blobs, find_blobs, path_of, put_blob, read_blob,
    read_blob_file,
};
pub use calls::{
    DEFAULT_MESSAGE, ExportedTree, Planned, SentTree, Validated, apply_files, export_files,
    plan_files, validate_files,
};
pub use environments::Environments;
pub use files::{
    Writing, Written, check_paths, has_blob_file, read_directory, write_blob_file, write_directory,
    write_formatted,
};
pub use format::{Formatted, format};
pub use parse::{Checked, parse};
pub use paths::Layout;
pub use plan::{Action, Options, PLAN_FORMAT, Plan, SavedPlan, Step, plan};
pub use render::{export, render};
pub use schema::{file_schema, schema_files, schema_of};
pub use text::{PROMPT_TEXT, read_messages, write_messages};

use crate::http::Route;

/// The API.
pub fn routes() -> Vec<Route> {
    api::routes()
}

/// The file that holds the environments and what protects them.
pub const ENVIRONMENTS_FILE: &str = "environments.toml";
/// The folder of the JSON Schemas that exported files name.
pub const SCHEMA_FOLDER: &str = ".schemas";
/// The word for "the document of this file" where a label is pointed.
pub const THIS: &str = "this";

/// A tree as text: path with `/` between the parts → content.
pub type Files = BTreeMap<String, String>;

/// A kind and a name: what a document is called.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key {
    /// The kind.
    pub kind: String,
    /// The name.
    pub name: Name,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.name)
    }
}

/// What a tree says.
#[derive(Debug, Clone, Default)]
pub struct Tree {
    /// Every name of it.
    pub names: BTreeMap<Key, Entry>,
    /// Environments and protected labels; `None` where the tree says nothing about them.
    pub environments: Option<Environments>,
}

/// What a tree says about one name.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The document of `NAME.toml`.
    pub main: TreeDocument,
    /// Other documents that labels or documents name, of `NAME@DIGITS.toml`.
    pub pinned: Vec<TreeDocument>,
    /// Sorted.
    pub tags: Vec<String>,
    /// Where labels point.
    pub pointers: BTreeMap<Label, Digest>,
}

impl Entry {
    /// The main document and the others, in the order in which they are saved: the main one last,
    /// so that it is the newest where all of them are new.
    pub fn documents(&self) -> impl Iterator<Item = &TreeDocument> {
        self.pinned.iter().chain([&self.main])
    }
}

/// One document of a tree.
#[derive(Debug, Clone)]
pub struct TreeDocument {
    /// The document.
    pub content: Value,
    /// Its identity.
    pub digest: Digest,
    /// Its TOML file.
    pub file: String,
    /// What it refers to.
    pub references: Vec<Reference>,
    /// The blobs that it needs.
    pub blobs: Vec<Digest>,
}

/// How bad a finding is.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The tree cannot be applied.
    Error,
    /// It can, but may not do what was meant, or not everywhere.
    Warning,
}

/// Something wrong with a tree, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// The file.
    pub file: String,
    /// The line, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// The column in characters, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<usize>,
    /// What is wrong.
    pub message: String,
    /// What was probably meant, or what to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Finding {
    /// An error in a file.
    pub fn error(file: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            file: file.into(),
            line: None,
            column: None,
            message: message.into(),
            hint: None,
        }
    }

    /// The same as a warning.
    pub fn warning(file: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Warning,
            ..Self::error(file, message)
        }
    }

    /// With its line and column.
    pub fn at(mut self, (line, column): (usize, usize)) -> Self {
        self.line = Some(line);
        self.column = Some(column);
        self
    }

    /// With its line.
    pub fn on_line(mut self, line: usize) -> Self {
        self.line = Some(line);
        self
    }

    /// With what to do.
    pub fn hint(mut self, hint: Option<String>) -> Self {
        self.hint = hint;
        self
    }
}

impl fmt::Display for Finding {
    /// `prompts/a.toml:3:7: error: …`, as compilers write, so that editors find the place.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        for number in [self.line, self.column].into_iter().flatten() {
            write!(f, ":{number}")?;
        }
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(f, ": {severity}: {}", self.message)?;
        match &self.hint {
            Some(hint) => write!(f, " ({hint})"),
            None => Ok(()),
        }
    }
}

/// The folders of a tree that hold documents.
pub fn kind_folders(kinds: &db::Kinds) -> std::collections::BTreeSet<String> {
    let layout = Layout::new(kinds);
    layout.iter().map(|(folder, _)| folder.to_owned()).collect()
}

/// Whether any of these keeps the tree from being applied.
pub fn has_errors(findings: &[Finding]) -> bool {
    findings
        .iter()
        .any(|finding| finding.severity == Severity::Error)
}

/// `did you mean …?`, where something known is near.
fn did_you_mean<'a>(unknown: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    nearest(unknown, known).map(|near| format!("did you mean {near}?"))
}

/// The known word that is nearest, if it is near enough to be meant.
fn nearest<'a>(unknown: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let most = (unknown.chars().count() / 3).clamp(1, 3);
    known
        .into_iter()
        .map(|word| (strsim::damerau_levenshtein(unknown, word), word))
        .filter(|(distance, _)| *distance <= most)
        .min()
        .map(|(_, word)| word)
}

/// A problem of a document without its place.
fn in_words(problem: &Problem) -> String {
    match problem.path.as_str() {
        path if path.is_empty() || path.starts_with("line ") => problem.message.clone(),
        path => format!("{path}: {}", problem.message),
    }
}
