//! Document kinds: what the server registers, and how a check answers.

use std::fmt;
use std::pin::Pin;

use base::{Digest, ProjectId};
use serde::Serialize;
use serde_json::Value;
use sqlx::AnyConnection;

use super::references::Reference;
use super::{CatalogError, Name};

/// Something wrong with what a person gave us, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// A JSON Pointer into the content (`/messages/0/role`), a field's name, or
    /// empty for the whole.
    pub path: String,
    /// What is wrong, in words for that person.
    pub message: String,
}

impl Problem {
    /// A problem at this place.
    pub fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            message: message.into(),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            f.write_str(&self.message)
        } else {
            write!(f, "{}: {}", self.path, self.message)
        }
    }
}

impl std::error::Error for Problem {}

/// How a document is kept as files: one TOML file, and one text file beside it for
/// what people edit as text.
#[derive(Clone, Copy)]
pub struct TextFile {
    /// The end of the text file's name: `prompt.md`.
    pub suffix: &'static str,
    /// Takes the text out of a document; `None` leaves the document in the TOML file.
    pub split: fn(&mut Value) -> Option<String>,
    /// Puts it back.
    pub join: fn(&mut Value, &str) -> Result<(), Problem>,
}

/// What is about to be saved, for [`Kind::admit`].
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    /// The project that it is saved in.
    pub project: ProjectId,
    /// The name that it shall have.
    pub name: &'a Name,
    /// The document in its normal form.
    pub content: &'a Value,
}

/// What [`Kind::admit`] answers.
pub type Admission<'a> = Pin<Box<dyn Future<Output = Result<(), CatalogError>> + Send + 'a>>;

/// Looks at the bytes of one blob of a document; the problem has its place in the document.
pub type CheckBlob = fn(&Value, &Digest, &[u8]) -> Result<(), Problem>;

/// One kind of document. `Kind { name, ..Kind::new(..) }` fills what a kind does not need.
#[derive(Clone, Copy)]
pub struct Kind {
    /// `prompt`, `app`, `guard` …: the word of the product for it.
    pub name: &'static str,
    /// Its JSON Schema, for editors and the API.
    pub schema: fn() -> Value,
    /// Everything that is wrong with a document, not only the first thing.
    pub validate: fn(&Value) -> Result<(), Vec<Problem>>,
    /// The one way to write a document that `validate` accepts. Identity is of this, so that a
    /// default that is spelled out and one that is left away are the same version.
    pub normal: fn(&Value) -> Value,
    /// What a document refers to. Called with documents in their normal form.
    pub references: fn(&Value) -> Vec<Reference>,
    /// The blobs that a document cannot do without. Called as `references` is.
    pub blobs: fn(&Value) -> Vec<Digest>,
    /// Whether a blob is what the document takes it for, asked when a version is saved; it is
    /// given the document in its normal form. `None` for kinds whose blobs nobody else writes.
    pub check_blob: Option<CheckBlob>,
    /// What only the database can tell: whether the name is free to have, whether the document
    /// is true. Asked in the transaction that saves a new version, whoever saves it, once all
    /// that the document refers to is known to be there.
    pub admit: for<'a> fn(&'a mut AnyConnection, Candidate<'a>) -> Admission<'a>,
    /// For a kind that nobody writes: how one comes to be, as an imperative for whoever
    /// tried ("cut it from its app"). It is saved by [`Catalog::save_made`] alone.
    ///
    /// [`Catalog::save_made`]: super::Catalog::save_made
    pub made_by: Option<&'static str>,
    /// The part of a document that is a text file in a tree of files.
    pub text: Option<TextFile>,
    /// The text in which documents that are nearly the same are recognised; empty where
    /// that means nothing for the kind. All texts of the document, unless the kind knows better.
    pub text_of: fn(&Value) -> String,
}

impl Kind {
    /// A kind that refers to nothing, may have any name and is one file.
    pub const fn new(
        name: &'static str,
        schema: fn() -> Value,
        validate: fn(&Value) -> Result<(), Vec<Problem>>,
    ) -> Self {
        Self {
            name,
            schema,
            validate,
            normal: Value::clone,
            references: |_| Vec::new(),
            blobs: |_| Vec::new(),
            check_blob: None,
            admit: |_, _| Box::pin(std::future::ready(Ok(()))),
            made_by: None,
            text: None,
            text_of: all_text,
        }
    }
}

fn all_text(document: &Value) -> String {
    fn collect(value: &Value, out: &mut String) {
        match value {
            Value::String(text) => {
                out.push_str(text);
                out.push('\n');
            }
            Value::Array(items) => items.iter().for_each(|item| collect(item, out)),
            Value::Object(fields) => fields.values().for_each(|field| collect(field, out)),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
    let mut out = String::new();
    collect(document, &mut out);
    out
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Kind({})", self.name)
    }
}

/// The kinds that this program knows.
#[derive(Debug, Clone, Default)]
pub struct Kinds(Vec<Kind>);

impl Kinds {
    /// These kinds; of two with one name the first counts.
    pub fn new(kinds: impl IntoIterator<Item = Kind>) -> Self {
        Self(kinds.into_iter().collect())
    }

    /// The kind of this name.
    ///
    /// # Errors
    /// Nobody registered it.
    pub fn get(&self, name: &str) -> Result<&Kind, CatalogError> {
        let kind = self.0.iter().find(|kind| kind.name == name);
        kind.ok_or_else(|| CatalogError::UnknownKind(name.chars().take(64).collect()))
    }

    /// All of them, in the order of registration.
    pub fn iter(&self) -> impl Iterator<Item = &Kind> {
        self.0.iter()
    }
}
