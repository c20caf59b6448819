//! The audit log: who did what to which object, written in the transaction that
//! does it, so that neither exists without the other.
//!
//! The lines of a project are one hash chain, those of the whole installation
//! another: each line holds the hash of the one before, so that a changed,
//! removed, inserted or moved line is found by [`verify`]. A chain cannot show
//! that somebody with the database replaced all of it, or cut its end and its
//! head: for that, people keep a [`Head`] elsewhere.

mod chain;
mod read;

use base::{Digest, MoveId, ProjectId};
use serde_json::Value;

use crate::{Actor, Db, DbError, Scope, WriteTx};

pub(crate) use chain::seal_rows_from_before;
pub use chain::{Broken, Head, Verified, head, verify};
pub use read::{Filter, actors, after, list};

tokio::task_local! {
    static REQUEST: String;
}

/// Runs work whose audit lines carry this request id. Tasks that it spawns do not.
pub async fn with_request<T>(id: String, work: impl Future<Output = T>) -> T {
    REQUEST.scope(id, work).await
}

/// One line of the audit log.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Entry {
    /// The line's place in its chain: 1, 2, 3 …
    pub seq: i64,
    /// Sorts by time.
    pub id: String,
    /// The project, or `None` for what concerns the whole installation.
    pub project: Option<ProjectId>,
    /// Who, as [`Actor`] prints.
    pub actor: String,
    /// What was done, `<noun>.<verb>`: `prompt.save`, `key.revoke`.
    pub action: String,
    /// To what: a name or id.
    pub object: String,
    /// What is worth knowing beyond that; never a secret.
    pub detail: Value,
    /// Why, in the actor's words; empty where nobody asked.
    pub reason: String,
    /// The request that did it; empty for the command line and background work.
    pub request_id: String,
    /// The content before, where the object has content.
    pub before: Option<String>,
    /// The content since.
    pub after: Option<String>,
    /// When.
    pub at: i64,
    /// The hash of the line before, as [`Entry::hash`]; empty for the first.
    pub prev: String,
    /// SHA-256 over the canonical JSON (RFC 8785) of every other field, 64 hex digits.
    pub hash: String,
}

/// A line to write: `Line::new(scope, "prompt.move", name).reason(..).write(&mut tx)`.
#[derive(Debug, Clone)]
#[must_use = "a line that is not written says nothing"]
pub struct Line<'a> {
    project: Option<ProjectId>,
    actor: Actor,
    action: &'a str,
    object: &'a str,
    detail: Value,
    reason: &'a str,
    before: Option<Digest>,
    after: Option<Digest>,
}

impl<'a> Line<'a> {
    /// What somebody did in a project.
    pub fn new(scope: Scope, action: &'a str, object: &'a str) -> Self {
        Self {
            project: Some(scope.project),
            ..Self::of_installation(scope.actor, action, object)
        }
    }

    /// What somebody did to the installation: models, people, setup.
    pub fn of_installation(actor: Actor, action: &'a str, object: &'a str) -> Self {
        Self {
            project: None,
            actor,
            action,
            object,
            detail: Value::Object(serde_json::Map::new()),
            reason: "",
            before: None,
            after: None,
        }
    }

    /// What is worth knowing beyond the object; never a secret.
    pub fn detail(mut self, detail: Value) -> Self {
        self.detail = detail;
        self
    }

    /// Why, in the actor's words.
    pub fn reason(mut self, reason: &'a str) -> Self {
        self.reason = reason;
        self
    }

    /// The content before and since.
    pub fn digests(mut self, before: Option<Digest>, after: Option<Digest>) -> Self {
        (self.before, self.after) = (before, after);
        self
    }

    /// Writes the line in this transaction, at the end of its chain. From here on
    /// other transactions that write lines wait for this one to end.
    ///
    /// # Errors
    /// The statement failed; the transaction cannot be used further.
    pub async fn write(self, tx: &mut WriteTx) -> Result<(), DbError> {
        tx.serialise().await?;
        let id: MoveId = tx.db().ids().make();
        let row = chain::Row {
            id: id.to_string(),
            chain: chain::name(self.project),
            actor: clean(&self.actor.to_string()),
            action: clean(self.action),
            object: clean(self.object),
            detail: chain::detail_text(self.detail),
            reason: clean(self.reason),
            request_id: REQUEST.try_with(Clone::clone).unwrap_or_default(),
            before: self.before.map(|digest| digest.to_string()),
            after: self.after.map(|digest| digest.to_string()),
            at: tx.db().now_us(),
        };
        chain::append(tx.conn(), &row).await
    }
}

/// PostgreSQL refuses NUL in text.
fn clean(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

/// Writes a line in this transaction; [`Line`] says more.
///
/// # Errors
/// The statement failed; the transaction cannot be used further.
pub async fn write(
    tx: &mut WriteTx,
    project: Option<ProjectId>,
    actor: Actor,
    action: &str,
    object: &str,
    detail: &Value,
) -> Result<(), DbError> {
    let line = Line {
        project,
        ..Line::of_installation(actor, action, object)
    };
    line.detail(detail.clone()).write(tx).await
}

/// The chains that there are: the installation's first, then each project with lines.
///
/// # Errors
/// The database cannot be read.
pub async fn chains(db: &Db) -> Result<Vec<Option<ProjectId>>, DbError> {
    read::chains(db).await
}
