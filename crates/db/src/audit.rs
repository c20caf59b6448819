//! The audit log: who did what to which object, written in the transaction that
//! does it, so that neither exists without the other.

use base::{Cursor, MoveId, ProjectId};
use serde_json::Value;
use sqlx::{AnyConnection, Row};

use crate::catalog::{Page, PageRequest};
use crate::{Actor, Db, DbError, WriteTx};

/// One line of the audit log.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
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
    /// When.
    pub at: i64,
}

/// Writes a line in this transaction.
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
    let id: MoveId = tx.db().ids().make();
    let at = tx.db().now_us();
    sqlx::query("INSERT INTO audit (id, project, actor, action, object, detail, at) VALUES ($1, $2, $3, $4, $5, $6, $7)")
        .bind(id.to_string())
        .bind(project.map(|project| project.to_string()))
        .bind(actor.to_string())
        .bind(action)
        .bind(object)
        .bind(detail.to_string())
        .bind(at)
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// A project's lines, newest first.
///
/// # Errors
/// The database cannot be read, or the cursor was not made here.
pub async fn list(
    db: &Db,
    project: ProjectId,
    page: &PageRequest,
) -> Result<Page<Entry>, crate::CatalogError> {
    let (before_at, before_id) = match &page.cursor {
        Some(cursor) => cursor.key::<(i64, String)>()?,
        None => (i64::MAX, "z".to_owned()),
    };
    let mut connection = db.read().acquire().await?;
    let entries = read(
        &mut connection,
        project,
        before_at,
        &before_id,
        page.limit(),
    )
    .await?;
    Ok(Page::cut(entries, page.limit(), |entry| {
        Cursor::new(&(entry.at, &entry.id))
    }))
}

async fn read(
    connection: &mut AnyConnection,
    project: ProjectId,
    before_at: i64,
    before_id: &str,
    limit: i64,
) -> Result<Vec<Entry>, DbError> {
    let rows = sqlx::query(
        "SELECT id, actor, action, object, detail, at FROM audit
         WHERE project = $1 AND (at < $2 OR (at = $2 AND id < $3))
         ORDER BY at DESC, id DESC LIMIT $4",
    )
    .bind(project.to_string())
    .bind(before_at)
    .bind(before_id)
    .bind(limit + 1)
    .fetch_all(connection)
    .await?;
    let entry = |row: &sqlx::any::AnyRow| {
        let detail: String = row.try_get(4)?;
        Ok(Entry {
            id: row.try_get(0)?,
            project: Some(project),
            actor: row.try_get(1)?,
            action: row.try_get(2)?,
            object: row.try_get(3)?,
            detail: serde_json::from_str(&detail).unwrap_or_default(),
            at: row.try_get(5)?,
        })
    };
    rows.iter().map(entry).collect()
}
