//! The audit log over the API: reading, exporting and verifying it.
//!
//! A project has its own chain; what concerns the whole installation (accounts,
//! sign-ins, models) is in another, which every administrator, product owner and
//! auditor may read.

mod api;
mod pages;

use db::audit::{Broken, Head, Verified};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use crate::app::App;
use crate::error::Result;
use crate::http::Route;

/// The page and the API.
pub fn routes() -> Vec<Route> {
    let mut routes = pages::routes();
    routes.extend(api::routes());
    routes
}

/// One line of the log.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Entry {
    /// The line's place in its chain: 1, 2, 3 …
    pub seq: i64,
    /// The line's id.
    pub id: String,
    /// The project; none for what concerns the whole installation.
    pub project: Option<String>,
    /// Who: `user:ID`, `key:ID`, `operator` or `system`.
    pub actor: String,
    /// What was done: `prompt.move`.
    pub action: String,
    /// To what: a name or id.
    pub object: String,
    /// What is worth knowing beyond that.
    pub detail: Value,
    /// Why, in the actor's words.
    pub reason: String,
    /// The request that did it; empty for the command line and background work.
    pub request_id: String,
    /// The content before.
    pub before: Option<String>,
    /// The content since.
    pub after: Option<String>,
    /// When, microseconds since the epoch.
    pub at: i64,
    /// The hash of the line before.
    pub prev: String,
    /// SHA-256 over the canonical JSON (RFC 8785) of every other field.
    pub hash: String,
}

impl From<db::audit::Entry> for Entry {
    fn from(entry: db::audit::Entry) -> Self {
        Self {
            seq: entry.seq,
            id: entry.id,
            project: entry.project.map(|project| project.to_string()),
            actor: entry.actor,
            action: entry.action,
            object: entry.object,
            detail: entry.detail,
            reason: entry.reason,
            request_id: entry.request_id,
            before: entry.before,
            after: entry.after,
            at: entry.at,
            prev: entry.prev,
            hash: entry.hash,
        }
    }
}

/// What verifying a chain found.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Verification {
    /// Whether nothing was found.
    pub ok: bool,
    /// How many lines were good.
    pub rows: i64,
    /// The end of the chain, `SEQ:HASH`: keep it where the database's administrator cannot write.
    pub head: Option<String>,
    /// The first place that is wrong.
    pub broken_at: Option<i64>,
    /// What is wrong there.
    pub why: Option<String>,
}

impl From<std::result::Result<Verified, Broken>> for Verification {
    fn from(found: std::result::Result<Verified, Broken>) -> Self {
        match found {
            Ok(verified) => Self {
                ok: true,
                rows: verified.rows,
                head: Some(verified.head.to_string()),
                broken_at: None,
                why: None,
            },
            Err(broken) => Self {
                ok: false,
                rows: (broken.seq - 1).max(0),
                head: None,
                broken_at: Some(broken.seq),
                why: Some(broken.why),
            },
        }
    }
}

/// Walks a chain; `None` is the installation's.
///
/// # Errors
/// The database cannot be read.
pub async fn verify(
    app: &App,
    project: Option<base::ProjectId>,
    known: Option<&Head>,
) -> Result<Verification> {
    Ok(db::audit::verify(&app.db, project, known).await?.into())
}
