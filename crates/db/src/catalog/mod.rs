//! The catalog: immutable documents, versions of them under a name, and
//! pointers that move between versions and remember every move.
//!
//! Written once, for every kind of document. A kind is data that the server
//! registers ([`Kinds`]): a JSON Schema and a check. The catalog never looks
//! into a document beyond that.
//!
//! A save or a move is one transaction that also counts the plan's revision and
//! writes the audit line. Saving content that the name already has gives back
//! the version that holds it, however old: identity is the content's digest.

mod blobs;
mod diff;
mod index;
mod kinds;
mod name;
mod names;
mod pointers;
mod references;
mod similar;
mod snapshot;
mod store;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use base::{CanonicalError, Cursor, CursorError, Digest, ProjectId, VersionId};
use serde::Serialize;
use serde_json::{Value, json};
use sqlx::AnyConnection;

use crate::{BlobStore, Db, DbError, Scope, WriteTx, audit};

pub use diff::{Change, diff};
pub use index::{IndexRow, PointerIndexRow};
pub use kinds::{Admission, Candidate, CheckBlob, Kind, Kinds, Problem, TextFile};
pub use name::{Label, Name};
pub use names::{
    DeleteRequest, Deleted, Folder, FolderListing, Listed, NameFilter, clean_tags, is_folder_on,
};
pub use pointers::{
    Authority, Move, MoveAction, MoveOutcome, MoveRequest, Pointer, RemoveOutcome, RemoveRequest,
};
pub use references::{
    DEFAULT_LABEL, Dependent, Reference, Resolution, Resolved, nearest, references_on,
};
pub use similar::{Similar, Sketch};
pub use snapshot::{NameSnapshot, PointerSnapshot, Snapshot};

/// The largest document, in bytes of canonical JSON. Large things are blobs that documents refer to.
pub const MAX_DOCUMENT_BYTES: usize = 4 * 1024 * 1024;
/// The longest message or reason, in characters.
pub const MAX_MESSAGE_CHARS: usize = 2000;

/// Why the catalog refused.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// The content, name, label or message is wrong; each problem says where.
    #[error("{}", join(.0))]
    Invalid(Vec<Problem>),
    /// Something else goes by this name.
    #[error("{kind} cannot be called {:?}: {why}", .name.as_str())]
    NameTaken {
        /// The document kind.
        kind: String,
        /// The name.
        name: Name,
        /// What the name means already.
        why: String,
    },
    /// Nobody writes documents of this kind.
    #[error("a {kind} is not written by hand")]
    Made {
        /// The document kind.
        kind: String,
        /// How one comes to be, as an imperative.
        instead: &'static str,
    },
    /// No feature registered this kind.
    #[error("there is no document kind {0:?}")]
    UnknownKind(String),
    /// A pointer cannot be moved to a version that does not exist.
    #[error("{kind} {name} has no version {number}")]
    NoVersion {
        /// The document kind.
        kind: String,
        /// The name.
        name: String,
        /// The wanted version.
        number: i64,
    },
    /// There is no such name, and never was.
    #[error("there is no {kind} {name}")]
    NoName {
        /// The document kind.
        kind: String,
        /// The name.
        name: Name,
    },
    /// The name was deleted; saving a version brings it back.
    #[error("{kind} {name} was deleted; saving a version brings it back")]
    Deleted {
        /// The document kind.
        kind: String,
        /// The name.
        name: Name,
    },
    /// There is no such pointer, or none any more.
    #[error("{kind} {name} has no label {label}")]
    NoPointer {
        /// The document kind.
        kind: String,
        /// The name.
        name: Name,
        /// The label.
        label: String,
    },
    /// The label moves only by what protects it.
    #[error("the label {label} is protected: {what}")]
    Protected {
        /// The label.
        label: String,
        /// What it takes to move it, in words.
        what: String,
    },
    /// The content was taken out of service.
    #[error("the content {} is quarantined: {reason}", .digest.short())]
    Quarantined {
        /// The content's identity.
        digest: Digest,
        /// Why it was taken out of service.
        reason: String,
    },
    /// Documents would refer to themselves through each other.
    #[error("documents must not refer to themselves: {chain}")]
    Cycle {
        /// Where in the document the chain begins: a JSON Pointer.
        at: String,
        /// The circle: `prompt:a@production → prompt:b@staging → prompt:a@production`.
        chain: String,
    },
    /// Documents in use refer to what should go.
    #[error("{what} is still referred to by {}", list(.by))]
    Referenced {
        /// The name, with its label if only that should go.
        what: String,
        /// Who refers to it.
        by: Vec<Dependent>,
    },
    /// The page cursor is not ours.
    #[error(transparent)]
    Cursor(#[from] CursorError),
    /// The database failed.
    #[error(transparent)]
    Db(#[from] DbError),
}

fn join(problems: &[Problem]) -> String {
    problems
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("; ")
}

fn list(dependents: &[Dependent]) -> String {
    const SHOWN: usize = 5;
    let mut shown: Vec<_> = dependents.iter().map(ToString::to_string).collect();
    shown.dedup();
    let more = shown.len().saturating_sub(SHOWN);
    shown.truncate(SHOWN);
    match more {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

impl From<sqlx::Error> for CatalogError {
    fn from(error: sqlx::Error) -> Self {
        Self::Db(error.into())
    }
}

impl From<Problem> for CatalogError {
    fn from(problem: Problem) -> Self {
        Self::Invalid(vec![problem])
    }
}

impl From<CanonicalError> for CatalogError {
    fn from(error: CanonicalError) -> Self {
        Problem::new("", error.to_string()).into()
    }
}

/// Content to save under a name.
#[derive(Debug, Clone, Copy)]
pub struct NewVersion<'a> {
    /// A registered kind.
    pub kind: &'a str,
    /// Where it lives: `support/answer`.
    pub name: &'a Name,
    /// The document.
    pub content: &'a Value,
    /// Why, in the author's words; may be empty.
    pub message: &'a str,
}

/// A document under a name, without its content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Version {
    /// The version's id.
    pub id: VersionId,
    /// The document kind.
    pub kind: String,
    /// The name.
    pub name: Name,
    /// 1, 2, 3 … under the name.
    pub number: i64,
    /// The content's identity.
    pub digest: Digest,
    /// Why it was saved.
    pub message: String,
    /// Who saved it, as [`Actor`](crate::Actor) prints.
    pub author: String,
    /// When.
    pub created_at: i64,
}

/// A version with its content.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Document {
    /// Which version.
    pub version: Version,
    /// The document itself, keys in canonical order.
    pub content: Value,
}

/// What saving did.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SavedVersion {
    /// The version that holds the content now.
    pub version: Version,
    /// True when the name had this content before and nothing was written.
    pub already_existed: bool,
    /// Other names of the same kind that hold identical content, at most five.
    pub same_content: Vec<(Name, i64)>,
    /// Other names of the same kind that hold nearly the same text, the most similar first.
    pub similar: Vec<Similar>,
    /// True when the name had been deleted and is back.
    pub revived: bool,
}

/// Which version of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selector {
    /// The highest number.
    Latest,
    /// This number.
    Number(i64),
    /// What the pointer with this label points to.
    Label(Label),
    /// The version with this content.
    Digest(Digest),
}

impl FromStr for Selector {
    type Err = Problem;

    /// `latest`, a number, `sha256:…` or a label.
    fn from_str(text: &str) -> Result<Self, Problem> {
        if text == "latest" {
            return Ok(Self::Latest);
        }
        if let Ok(digest) = text.parse() {
            return Ok(Self::Digest(digest));
        }
        if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
            let number = text
                .parse()
                .map_err(|_| Problem::new("version", format!("there is no version {text}")))?;
            return Ok(Self::Number(number));
        }
        text.parse().map(Self::Label)
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Latest => f.write_str("latest"),
            Self::Number(number) => write!(f, "{number}"),
            Self::Label(label) => write!(f, "{label}"),
            Self::Digest(digest) => write!(f, "{digest}"),
        }
    }
}

/// Which page of a list.
#[derive(Debug, Clone, Default)]
pub struct PageRequest {
    /// Where the page before ended; `None` for the first.
    pub cursor: Option<Cursor>,
    /// How many; 0 means 50, and more than 200 means 200.
    pub limit: u32,
}

impl PageRequest {
    pub(crate) fn limit(&self) -> i64 {
        match self.limit {
            0 => 50,
            limit => i64::from(limit.min(200)),
        }
    }
}

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// The rows.
    pub items: Vec<T>,
    /// What to ask the next page with; `None` on the last.
    pub next: Option<Cursor>,
}

impl<T> Page<T> {
    /// Makes a page of rows that were read with a limit of one more than asked for.
    pub fn cut(mut rows: Vec<T>, limit: i64, cursor_of: impl Fn(&T) -> Cursor) -> Self {
        let limit = usize::try_from(limit).unwrap_or(0);
        let more = rows.len() > limit;
        rows.truncate(limit);
        let next = if more {
            rows.last().map(cursor_of)
        } else {
            None
        };
        Self { items: rows, next }
    }
}

/// The catalog of one database. Clones share it.
#[derive(Debug, Clone)]
pub struct Catalog {
    db: Db,
    kinds: Arc<Kinds>,
    blobs: Option<BlobStore>,
}

impl Catalog {
    /// The catalog with these kinds. Without a blob store it refuses documents that need blobs.
    pub fn new(db: Db, kinds: Kinds) -> Self {
        Self {
            db,
            kinds: Arc::new(kinds),
            blobs: None,
        }
    }

    /// The same catalog with the store that holds its documents' blobs.
    pub fn with_blobs(self, blobs: BlobStore) -> Self {
        Self {
            blobs: Some(blobs),
            ..self
        }
    }

    /// The registered kinds.
    pub fn kinds(&self) -> &Kinds {
        &self.kinds
    }

    /// Saves content under a name: a new version, or the one that holds it already.
    ///
    /// # Errors
    /// [`CatalogError::Invalid`] lists what is wrong with the content.
    pub async fn save_version(
        &self,
        scope: Scope,
        new: NewVersion<'_>,
    ) -> Result<SavedVersion, CatalogError> {
        self.refuse_made(new.kind)?;
        self.save_made(scope, new).await
    }

    /// [`Catalog::save_version`] in the caller's transaction.
    ///
    /// # Errors
    /// As there; after a database error the transaction cannot be used further.
    pub async fn save_version_in(
        &self,
        tx: &mut WriteTx,
        scope: Scope,
        new: NewVersion<'_>,
    ) -> Result<SavedVersion, CatalogError> {
        self.refuse_made(new.kind)?;
        self.save_made_in(tx, scope, new).await
    }

    /// [`Catalog::save_version`] for the operation that makes documents of a kind which
    /// nobody writes ([`Kind::made_by`]), and for putting back what was exported.
    ///
    /// # Errors
    /// As there.
    pub async fn save_made(
        &self,
        scope: Scope,
        new: NewVersion<'_>,
    ) -> Result<SavedVersion, CatalogError> {
        let prepared = self.prepare(scope, new).await?;
        let mut tx = self.db.begin_write().await?;
        let saved = self.save_prepared(&mut tx, scope, new, &prepared).await?;
        tx.commit().await?;
        Ok(saved)
    }

    /// [`Catalog::save_made`] in the caller's transaction.
    ///
    /// # Errors
    /// As there; after a database error the transaction cannot be used further.
    pub async fn save_made_in(
        &self,
        tx: &mut WriteTx,
        scope: Scope,
        new: NewVersion<'_>,
    ) -> Result<SavedVersion, CatalogError> {
        let prepared = self.prepare(scope, new).await?;
        self.save_prepared(tx, scope, new, &prepared).await
    }

    fn refuse_made(&self, kind: &str) -> Result<(), CatalogError> {
        match self.kinds.get(kind)?.made_by {
            None => Ok(()),
            Some(instead) => Err(CatalogError::Made {
                kind: kind.to_owned(),
                instead,
            }),
        }
    }

    /// Checks content without saving it, and gives its digest.
    ///
    /// # Errors
    /// [`CatalogError::Invalid`] lists what is wrong with the content.
    pub fn check(&self, kind: &str, content: &Value) -> Result<Digest, CatalogError> {
        Ok(Digest::of_json(&self.normal(kind, content)?)?)
    }

    /// The form in which content of this kind is kept.
    ///
    /// # Errors
    /// [`CatalogError::Invalid`] lists what is wrong with the content.
    pub fn normal(&self, kind: &str, content: &Value) -> Result<Value, CatalogError> {
        let kind = self.kinds.get(kind)?;
        (kind.validate)(content).map_err(CatalogError::Invalid)?;
        Ok((kind.normal)(content))
    }

    async fn prepare(&self, scope: Scope, new: NewVersion<'_>) -> Result<Prepared, CatalogError> {
        let normal = self.normal(new.kind, new.content)?;
        self.refuse_wrong_blobs(scope.project, new.kind, &normal)
            .await?;
        let bytes = base::canonical_json(&normal)?;
        if bytes.len() > MAX_DOCUMENT_BYTES {
            return Err(Problem::new(
                "",
                format!("the document has {} bytes; the limit is 4 MiB", bytes.len()),
            )
            .into());
        }
        let digest = Digest::of(&bytes);
        let content =
            String::from_utf8(bytes).map_err(|_| Problem::new("", "the document is not UTF-8"))?;
        let kind = self.kinds.get(new.kind)?;
        Ok(Prepared {
            digest,
            content,
            message: clean_text("message", new.message)?,
            references: (kind.references)(&normal),
            sketch: Sketch::of(&(kind.text_of)(&normal)),
            normal,
        })
    }

    async fn save_prepared(
        &self,
        tx: &mut WriteTx,
        scope: Scope,
        new: NewVersion<'_>,
        prepared: &Prepared,
    ) -> Result<SavedVersion, CatalogError> {
        // Numbers must have no gap and no twin, and PostgreSQL would let two writers read the same highest one.
        tx.serialise().await?;
        let project = scope.project;
        let NewVersion { kind, name, .. } = new;
        let entry = store::name_row(tx.conn(), project, kind, name).await?;
        let revived = entry.is_some_and(|entry| entry.deleted_at.is_some());
        let existing = store::by_digest(tx.conn(), project, kind, name, &prepared.digest).await?;
        let already_existed = existing.is_some();
        if !already_existed || revived {
            self.check_references(tx, scope, kind, name, &prepared.references)
                .await?;
            let candidate = Candidate {
                project,
                name,
                content: &prepared.normal,
            };
            (self.kinds.get(kind)?.admit)(tx.conn(), candidate).await?;
        }
        let version = match existing {
            Some(version) => version,
            None => self.insert_version(tx, scope, new, prepared).await?,
        };
        if revived {
            self.revive(tx, scope, &version).await?;
        }
        let same_content =
            store::other_names(tx.conn(), project, kind, name, &prepared.digest).await?;
        let mut similar = match &prepared.sketch {
            Some(sketch) => {
                similar::find_similar(tx.conn(), project, kind, sketch, name.as_str()).await?
            }
            None => Vec::new(),
        };
        similar.retain(|other| same_content.iter().all(|(same, _)| *same != other.name));
        Ok(SavedVersion {
            version,
            already_existed,
            same_content,
            similar,
            revived,
        })
    }

    async fn insert_version(
        &self,
        tx: &mut WriteTx,
        scope: Scope,
        new: NewVersion<'_>,
        prepared: &Prepared,
    ) -> Result<Version, CatalogError> {
        let project = scope.project;
        let NewVersion { kind, name, .. } = new;
        let created_at = self.db.now_us();
        let digest = &prepared.digest;
        store::insert_document(tx.conn(), project, digest, &prepared.content, created_at).await?;
        for reference in &prepared.references {
            store::insert_reference(tx.conn(), project, kind, digest, reference).await?;
        }
        if let Some(sketch) = &prepared.sketch {
            similar::keep_sketch(tx.conn(), project, kind, digest, sketch).await?;
        }
        let before = store::highest_version(tx.conn(), project, kind, name).await?;
        let version = Version {
            id: self.db.ids().make(),
            kind: kind.to_owned(),
            name: name.clone(),
            number: before.as_ref().map_or(0, |before| before.number) + 1,
            digest: prepared.digest,
            message: prepared.message.clone(),
            author: scope.actor.to_string(),
            created_at,
        };
        store::insert_version(tx.conn(), project, &version).await?;
        store::put_name(tx.conn(), project, kind, name, version.number, None).await?;
        let changed = Changed {
            before: before.map(|before| before.digest),
            after: Some(version.digest),
            reason: &version.message,
        };
        let detail = json!({ "number": version.number, "digest": version.digest });
        audit_catalog(tx, scope, kind, "save", name, changed, &detail).await?;
        tx.bump_plan().await?;
        Ok(version)
    }

    /// A deleted name is there again, with the version that was saved or found.
    async fn revive(
        &self,
        tx: &mut WriteTx,
        scope: Scope,
        version: &Version,
    ) -> Result<(), CatalogError> {
        let (kind, name) = (version.kind.as_str(), &version.name);
        let highest = store::highest_version(tx.conn(), scope.project, kind, name).await?;
        let latest = highest.map_or(version.number, |highest| highest.number);
        store::put_name(tx.conn(), scope.project, kind, name, latest, None).await?;
        let changed = Changed {
            after: Some(version.digest),
            ..Changed::default()
        };
        let detail = json!({ "number": version.number });
        audit_catalog(tx, scope, kind, "revive", name, changed, &detail).await?;
        tx.bump_plan().await?;
        Ok(())
    }

    /// One version with its content; `None` when there is none in this project.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn version(
        &self,
        scope: Scope,
        kind: &str,
        name: &Name,
        selector: &Selector,
    ) -> Result<Option<Document>, CatalogError> {
        let mut connection = self.db.read().acquire().await?;
        Ok(find_document(&mut connection, scope.project, kind, name, selector).await?)
    }

    /// [`Catalog::version`] as the transaction sees it.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn version_in(
        &self,
        tx: &mut WriteTx,
        scope: Scope,
        kind: &str,
        name: &Name,
        selector: &Selector,
    ) -> Result<Option<Document>, CatalogError> {
        Ok(find_document(tx.conn(), scope.project, kind, name, selector).await?)
    }

    /// The versions of a name, newest first.
    ///
    /// # Errors
    /// The database cannot be read, or the cursor was not made here.
    pub async fn list_versions(
        &self,
        scope: Scope,
        kind: &str,
        name: &Name,
        page: &PageRequest,
    ) -> Result<Page<Version>, CatalogError> {
        let below = page
            .cursor
            .as_ref()
            .map(Cursor::key)
            .transpose()?
            .unwrap_or(i64::MAX);
        let mut connection = self.db.read().acquire().await?;
        let rows = store::versions_below(
            &mut connection,
            scope.project,
            kind,
            name,
            below,
            page.limit(),
        )
        .await?;
        Ok(Page::cut(rows, page.limit(), |version| {
            Cursor::new(&version.number)
        }))
    }

    /// Everything of a kind that a pointer points to, with its content: what a
    /// plan is made from.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn pointed_documents(
        &self,
        project: ProjectId,
        kind: &str,
    ) -> Result<Vec<(Pointer, Value)>, CatalogError> {
        let mut connection = self.db.read().acquire().await?;
        Ok(store::pointed_documents(&mut connection, project, kind).await?)
    }

    /// Every version of every name of a kind, with its content: callers may name
    /// any of them by its number.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn all_documents(
        &self,
        project: ProjectId,
        kind: &str,
    ) -> Result<Vec<Document>, CatalogError> {
        let mut connection = self.db.read().acquire().await?;
        Ok(store::all_documents(&mut connection, project, kind).await?)
    }
}

struct Prepared {
    digest: Digest,
    normal: Value,
    content: String,
    message: String,
    references: Vec<Reference>,
    sketch: Option<Sketch>,
}

/// What an audit line says of a change beyond its detail.
#[derive(Debug, Clone, Copy, Default)]
struct Changed<'a> {
    before: Option<Digest>,
    after: Option<Digest>,
    reason: &'a str,
}

/// Free text that people typed: bounded, and without the NUL that PostgreSQL refuses.
pub(crate) fn clean_text(path: &str, text: &str) -> Result<String, CatalogError> {
    if text.chars().count() > MAX_MESSAGE_CHARS {
        return Err(
            Problem::new(path, format!("longer than {MAX_MESSAGE_CHARS} characters")).into(),
        );
    }
    Ok(text.replace('\0', "\u{fffd}"))
}

async fn audit_catalog(
    tx: &mut WriteTx,
    scope: Scope,
    kind: &str,
    verb: &str,
    name: &Name,
    changed: Changed<'_>,
    detail: &Value,
) -> Result<(), DbError> {
    let action = format!("{kind}.{verb}");
    audit::Line::new(scope, &action, name.as_str())
        .detail(detail.clone())
        .reason(changed.reason)
        .digests(changed.before, changed.after)
        .write(tx)
        .await
}

async fn find_document(
    connection: &mut AnyConnection,
    project: ProjectId,
    kind: &str,
    name: &Name,
    selector: &Selector,
) -> Result<Option<Document>, DbError> {
    let found = find_version(connection, project, kind, name, selector).await?;
    let Some(version) = found else {
        return Ok(None);
    };
    let content = store::content(connection, project, &version.digest).await?;
    Ok(Some(Document { version, content }))
}

async fn find_version(
    connection: &mut AnyConnection,
    project: ProjectId,
    kind: &str,
    name: &Name,
    selector: &Selector,
) -> Result<Option<Version>, DbError> {
    match selector {
        Selector::Latest => store::latest(connection, project, kind, name).await,
        Selector::Number(number) => {
            store::by_number(connection, project, kind, name, *number).await
        }
        Selector::Label(label) => store::by_label(connection, project, kind, name, label).await,
        Selector::Digest(digest) => store::by_digest(connection, project, kind, name, digest).await,
    }
}
