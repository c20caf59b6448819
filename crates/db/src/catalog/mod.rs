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

mod kinds;
mod name;
mod store;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use base::{CanonicalError, Cursor, CursorError, Digest, MoveId, PointerId, ProjectId, VersionId};
use serde::Serialize;
use serde_json::{Value, json};
use sqlx::AnyConnection;

use crate::{Db, DbError, Scope, WriteTx, audit};

pub use kinds::{Kind, Kinds, Problem, Reference, TextFile};
pub use name::{Label, Name};

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
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SavedVersion {
    /// The version that holds the content now.
    pub version: Version,
    /// True when the name had this content before and nothing was written.
    pub already_existed: bool,
    /// Other names of the same kind that hold identical content, at most five.
    pub same_content: Vec<(Name, i64)>,
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

/// A mutable reference to a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Pointer {
    /// The pointer's id.
    pub id: PointerId,
    /// The document kind.
    pub kind: String,
    /// The name that it belongs to.
    pub name: Name,
    /// `production`, `staging` …
    pub label: String,
    /// The version's number.
    pub number: i64,
    /// The version's id.
    pub version_id: VersionId,
    /// The content's identity.
    pub digest: Digest,
    /// Counts the moves, from 1; what compare-and-swap compares.
    pub revision: i64,
    /// Who moved it last, as [`Actor`](crate::Actor) prints.
    pub moved_by: String,
    /// When.
    pub moved_at: i64,
}

/// One move of a pointer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Move {
    /// The move's id.
    pub id: MoveId,
    /// The pointer's label.
    pub label: String,
    /// The pointer's revision after the move.
    pub revision: i64,
    /// The number it pointed to before; `None` for the first move.
    pub from: Option<i64>,
    /// The number it points to since.
    pub to: i64,
    /// Who, as [`Actor`](crate::Actor) prints.
    pub actor: String,
    /// Why.
    pub reason: String,
    /// When.
    pub moved_at: i64,
}

/// A move that somebody asks for.
#[derive(Debug, Clone, Copy)]
pub struct MoveRequest<'a> {
    /// The document kind.
    pub kind: &'a str,
    /// The name.
    pub name: &'a Name,
    /// The pointer; it is made by its first move.
    pub label: &'a Label,
    /// The version's number to point to.
    pub to: i64,
    /// Move only if the pointer still has this revision; 0 means that it must not
    /// exist yet, `None` moves whatever it is.
    pub expected: Option<i64>,
    /// Why, in the actor's words; may be empty.
    pub reason: &'a str,
}

/// What became of a move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MoveOutcome {
    /// It points to the version now.
    Moved(Pointer),
    /// It pointed there already; nothing was written.
    Unchanged(Pointer),
    /// Somebody else moved it first; this is where it is (`None`: it does not exist).
    Conflict(Option<Pointer>),
}

/// A name in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Listed {
    /// Its newest version.
    pub latest: Version,
    /// Its pointers: label and version number, by label.
    pub labels: Vec<(String, i64)>,
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
}

impl Catalog {
    /// The catalog with these kinds.
    pub fn new(db: Db, kinds: Kinds) -> Self {
        Self {
            db,
            kinds: Arc::new(kinds),
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
        let prepared = self.prepare(new)?;
        let mut tx = self.db.begin_write().await?;
        let saved = self.save_prepared(&mut tx, scope, new, &prepared).await?;
        tx.commit().await?;
        Ok(saved)
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
        let prepared = self.prepare(new)?;
        self.save_prepared(tx, scope, new, &prepared).await
    }

    /// Checks content without saving it, and gives its digest.
    ///
    /// # Errors
    /// [`CatalogError::Invalid`] lists what is wrong with the content.
    pub fn check(&self, kind: &str, content: &Value) -> Result<Digest, CatalogError> {
        let kind = self.kinds.get(kind)?;
        (kind.validate)(content).map_err(CatalogError::Invalid)?;
        Ok(Digest::of_json(content)?)
    }

    fn prepare(&self, new: NewVersion<'_>) -> Result<Prepared, CatalogError> {
        let digest = self.check(new.kind, new.content)?;
        let bytes = base::canonical_json(new.content)?;
        if bytes.len() > MAX_DOCUMENT_BYTES {
            return Err(Problem::new(
                "",
                format!("the document has {} bytes; the limit is 4 MiB", bytes.len()),
            )
            .into());
        }
        let content =
            String::from_utf8(bytes).map_err(|_| Problem::new("", "the document is not UTF-8"))?;
        Ok(Prepared {
            digest,
            content,
            message: clean_text("message", new.message)?,
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
        let existing =
            store::by_digest(tx.conn(), project, new.kind, new.name, &prepared.digest).await?;
        let already_existed = existing.is_some();
        let version = match existing {
            Some(version) => version,
            None => self.insert_version(tx, scope, new, prepared).await?,
        };
        let same_content =
            store::other_names(tx.conn(), project, new.kind, new.name, &prepared.digest).await?;
        Ok(SavedVersion {
            version,
            already_existed,
            same_content,
        })
    }

    async fn insert_version(
        &self,
        tx: &mut WriteTx,
        scope: Scope,
        new: NewVersion<'_>,
        prepared: &Prepared,
    ) -> Result<Version, CatalogError> {
        let created_at = self.db.now_us();
        store::insert_document(
            tx.conn(),
            scope.project,
            &prepared.digest,
            &prepared.content,
            created_at,
        )
        .await?;
        let version = Version {
            id: self.db.ids().make(),
            kind: new.kind.to_owned(),
            name: new.name.clone(),
            number: store::highest_number(tx.conn(), scope.project, new.kind, new.name).await? + 1,
            digest: prepared.digest,
            message: prepared.message.clone(),
            author: scope.actor.to_string(),
            created_at,
        };
        store::insert_version(tx.conn(), scope.project, &version).await?;
        let detail = json!({ "number": version.number, "digest": version.digest });
        audit_catalog(tx, scope, new.kind, "save", new.name, &detail).await?;
        tx.bump_plan().await?;
        Ok(version)
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

    /// The names of a kind in order, of one folder (`support` finds `support/answer`) or all.
    ///
    /// # Errors
    /// The database cannot be read, or the cursor was not made here.
    pub async fn list_names(
        &self,
        scope: Scope,
        kind: &str,
        folder: Option<&Name>,
        page: &PageRequest,
    ) -> Result<Page<Listed>, CatalogError> {
        let after: String = page
            .cursor
            .as_ref()
            .map(Cursor::key)
            .transpose()?
            .unwrap_or_default();
        let prefix = folder
            .map(|folder| format!("{folder}/"))
            .unwrap_or_default();
        let mut connection = self.db.read().acquire().await?;
        let latest = store::latest_of_names(
            &mut connection,
            scope.project,
            kind,
            &prefix,
            &after,
            page.limit(),
        )
        .await?;
        let page = Page::cut(latest, page.limit(), |version| {
            Cursor::new(&version.name.as_str())
        });
        let (Some(first), Some(last)) = (page.items.first(), page.items.last()) else {
            return Ok(Page {
                items: Vec::new(),
                next: None,
            });
        };
        let labels = store::labels_between(
            &mut connection,
            scope.project,
            kind,
            &first.name,
            &last.name,
        )
        .await?;
        Ok(Page {
            items: with_labels(page.items, &labels),
            next: page.next,
        })
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

    /// Moves a pointer, or makes it.
    ///
    /// # Errors
    /// [`CatalogError::NoVersion`] when the target does not exist.
    pub async fn move_pointer(
        &self,
        scope: Scope,
        request: MoveRequest<'_>,
    ) -> Result<MoveOutcome, CatalogError> {
        let mut tx = self.db.begin_write().await?;
        let outcome = self.move_pointer_in(&mut tx, scope, request).await?;
        tx.commit().await?;
        Ok(outcome)
    }

    /// [`Catalog::move_pointer`] in the caller's transaction.
    ///
    /// # Errors
    /// As there; after a database error the transaction cannot be used further.
    pub async fn move_pointer_in(
        &self,
        tx: &mut WriteTx,
        scope: Scope,
        request: MoveRequest<'_>,
    ) -> Result<MoveOutcome, CatalogError> {
        let reason = clean_text("reason", request.reason)?;
        tx.serialise().await?;
        let MoveRequest {
            kind,
            name,
            label,
            to,
            expected,
            ..
        } = request;
        let current = store::pointer(tx.conn(), scope.project, kind, name, label).await?;
        let revision = current.as_ref().map_or(0, |pointer| pointer.revision);
        if expected.is_some_and(|expected| expected != revision) {
            return Ok(MoveOutcome::Conflict(current));
        }
        let Some(target) = store::by_number(tx.conn(), scope.project, kind, name, to).await? else {
            return Err(CatalogError::NoVersion {
                kind: kind.to_owned(),
                name: name.to_string(),
                number: to,
            });
        };
        match current {
            Some(pointer) if pointer.version_id == target.id => Ok(MoveOutcome::Unchanged(pointer)),
            current => {
                self.write_move(tx, scope, label, &target, current.as_ref(), &reason)
                    .await
            }
        }
    }

    async fn write_move(
        &self,
        tx: &mut WriteTx,
        scope: Scope,
        label: &Label,
        target: &Version,
        current: Option<&Pointer>,
        reason: &str,
    ) -> Result<MoveOutcome, CatalogError> {
        let pointer = Pointer {
            id: current.map_or_else(|| self.db.ids().make(), |pointer| pointer.id),
            kind: target.kind.clone(),
            name: target.name.clone(),
            label: label.to_string(),
            number: target.number,
            version_id: target.id,
            digest: target.digest,
            revision: current.map_or(0, |pointer| pointer.revision) + 1,
            moved_by: scope.actor.to_string(),
            moved_at: self.db.now_us(),
        };
        store::put_pointer(tx.conn(), scope.project, &pointer).await?;
        let move_id: MoveId = self.db.ids().make();
        store::insert_move(
            tx.conn(),
            move_id,
            &pointer,
            current.map(|pointer| pointer.version_id),
            reason,
        )
        .await?;
        let detail = json!({
            "label": pointer.label, "from": current.map(|pointer| pointer.number), "to": pointer.number, "reason": reason,
        });
        audit_catalog(tx, scope, &pointer.kind, "move", &pointer.name, &detail).await?;
        tx.bump_plan().await?;
        Ok(MoveOutcome::Moved(pointer))
    }

    /// The pointers of a name, by label.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn pointers(
        &self,
        scope: Scope,
        kind: &str,
        name: &Name,
    ) -> Result<Vec<Pointer>, CatalogError> {
        let mut connection = self.db.read().acquire().await?;
        Ok(store::pointers(&mut connection, scope.project, kind, name).await?)
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

    /// The moves of one pointer of a name, or of all of them, newest first.
    ///
    /// # Errors
    /// The database cannot be read, or the cursor was not made here.
    pub async fn moves(
        &self,
        scope: Scope,
        kind: &str,
        name: &Name,
        label: Option<&Label>,
        page: &PageRequest,
    ) -> Result<Page<Move>, CatalogError> {
        let before: (i64, i64, String) = page
            .cursor
            .as_ref()
            .map(Cursor::key)
            .transpose()?
            .unwrap_or((i64::MAX, i64::MAX, "z".to_owned()));
        let label = label.map(ToString::to_string).unwrap_or_default();
        let mut connection = self.db.read().acquire().await?;
        let rows = store::moves_before(
            &mut connection,
            scope.project,
            kind,
            name,
            &label,
            &before,
            page.limit(),
        )
        .await?;
        Ok(Page::cut(rows, page.limit(), |row| {
            Cursor::new(&(row.moved_at, row.revision, row.id))
        }))
    }
}

struct Prepared {
    digest: Digest,
    content: String,
    message: String,
}

/// Free text that people typed: bounded, and without the NUL that PostgreSQL refuses.
fn clean_text(path: &str, text: &str) -> Result<String, CatalogError> {
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
    detail: &Value,
) -> Result<(), DbError> {
    let action = format!("{kind}.{verb}");
    audit::write(
        tx,
        Some(scope.project),
        scope.actor,
        &action,
        name.as_str(),
        detail,
    )
    .await
}

async fn find_document(
    connection: &mut AnyConnection,
    project: ProjectId,
    kind: &str,
    name: &Name,
    selector: &Selector,
) -> Result<Option<Document>, DbError> {
    let version = match selector {
        Selector::Latest => store::latest(connection, project, kind, name).await?,
        Selector::Number(number) => {
            store::by_number(connection, project, kind, name, *number).await?
        }
        Selector::Label(label) => store::by_label(connection, project, kind, name, label).await?,
        Selector::Digest(digest) => {
            store::by_digest(connection, project, kind, name, digest).await?
        }
    };
    let Some(version) = version else {
        return Ok(None);
    };
    let content = store::content(connection, project, &version.digest).await?;
    Ok(Some(Document { version, content }))
}

fn with_labels(versions: Vec<Version>, labels: &[(String, String, i64)]) -> Vec<Listed> {
    let labels_of = |name: &Name| {
        let own = labels.iter().filter(|(of, _, _)| of == name.as_str());
        own.map(|(_, label, number)| (label.clone(), *number))
            .collect()
    };
    versions
        .into_iter()
        .map(|latest| Listed {
            labels: labels_of(&latest.name),
            latest,
        })
        .collect()
}
