//! Reading the audit log: newest first in pages, or forward as an export does.

use base::{Cursor, ProjectId};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};

use super::{Entry, chain};
use crate::catalog::{CatalogError, Page, PageRequest};
use crate::{Db, DbError};

/// Which lines. Empty texts match everything; a text that ends in `*` matches beginnings.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Who: `user:…`, `key:…`, `operator`, `system`.
    pub actor: String,
    /// What was done: `prompt.move`, `prompt.*`.
    pub action: String,
    /// To what: a name or id.
    pub object: String,
    /// Not before this time.
    pub from: Option<i64>,
    /// Before this time.
    pub to: Option<i64>,
}

/// The lines of a project (`None`: of the installation), newest first.
///
/// # Errors
/// The database cannot be read, or the cursor was not made here.
pub async fn list(
    db: &Db,
    project: Option<ProjectId>,
    filter: &Filter,
    page: &PageRequest,
) -> Result<Page<Entry>, CatalogError> {
    let below: i64 = page
        .cursor
        .as_ref()
        .map(Cursor::key)
        .transpose()?
        .unwrap_or(i64::MAX);
    let sql =
        "SELECT seq, id, project, actor, action, object, detail, reason, request_id, before_digest,
                      after_digest, at, prev_hash, hash
               FROM audit
               WHERE chain = $1 AND seq < $2 AND at >= $3 AND at < $4
                 AND ($5 = '' OR actor = $5) AND ($6 = '' OR substr(actor, 1, length($6)) = $6)
                 AND ($7 = '' OR action = $7) AND ($8 = '' OR substr(action, 1, length($8)) = $8)
                 AND ($9 = '' OR object = $9) AND ($10 = '' OR substr(object, 1, length($10)) = $10)
               ORDER BY seq DESC LIMIT $11";
    let rows = bind_filter(sqlx::query(sql), project, below, filter)
        .bind(page.limit() + 1)
        .fetch_all(db.read())
        .await?;
    let entries = rows.iter().map(entry).collect::<Result<Vec<_>, _>>()?;
    Ok(Page::cut(entries, page.limit(), |entry| {
        Cursor::new(&entry.seq)
    }))
}

/// The next lines after this place, oldest first, at most 1000: an export asks
/// again with the last line's place until nothing comes.
///
/// # Errors
/// The database cannot be read.
pub async fn after(
    db: &Db,
    project: Option<ProjectId>,
    filter: &Filter,
    seq: i64,
) -> Result<Vec<Entry>, DbError> {
    let sql =
        "SELECT seq, id, project, actor, action, object, detail, reason, request_id, before_digest,
                      after_digest, at, prev_hash, hash
               FROM audit
               WHERE chain = $1 AND seq > $2 AND at >= $3 AND at < $4
                 AND ($5 = '' OR actor = $5) AND ($6 = '' OR substr(actor, 1, length($6)) = $6)
                 AND ($7 = '' OR action = $7) AND ($8 = '' OR substr(action, 1, length($8)) = $8)
                 AND ($9 = '' OR object = $9) AND ($10 = '' OR substr(object, 1, length($10)) = $10)
               ORDER BY seq LIMIT $11";
    let rows = bind_filter(sqlx::query(sql), project, seq, filter)
        .bind(1000_i64)
        .fetch_all(db.read())
        .await?;
    rows.iter().map(entry).collect()
}

/// Everybody who has a line in a chain, for people to choose from.
///
/// # Errors
/// The database cannot be read.
pub async fn actors(db: &Db, project: Option<ProjectId>) -> Result<Vec<String>, DbError> {
    let rows = sqlx::query("SELECT DISTINCT actor FROM audit WHERE chain = $1 ORDER BY actor")
        .bind(chain::name(project))
        .fetch_all(db.read())
        .await?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

type Query<'q> = sqlx::query::Query<'q, sqlx::Any, <sqlx::Any as sqlx::Database>::Arguments>;

fn bind_filter<'q>(
    query: Query<'q>,
    project: Option<ProjectId>,
    seq: i64,
    filter: &Filter,
) -> Query<'q> {
    let mut query = query
        .bind(chain::name(project))
        .bind(seq)
        .bind(filter.from.unwrap_or(i64::MIN))
        .bind(filter.to.unwrap_or(i64::MAX));
    for text in [&filter.actor, &filter.action, &filter.object] {
        let (exact, beginning) = match text.strip_suffix('*') {
            Some(beginning) => ("", beginning),
            None => (text.as_str(), ""),
        };
        query = query.bind(exact.to_owned()).bind(beginning.to_owned());
    }
    query
}

/// The next lines of a chain whatever they are, for verifying.
pub(super) async fn forward(
    connection: &mut AnyConnection,
    chain: &str,
    seq: i64,
    limit: i64,
) -> Result<Vec<Entry>, DbError> {
    let rows = sqlx::query(
        "SELECT seq, id, project, actor, action, object, detail, reason, request_id, before_digest,
                after_digest, at, prev_hash, hash
         FROM audit WHERE chain = $1 AND seq > $2 ORDER BY seq LIMIT $3",
    )
    .bind(chain)
    .bind(seq)
    .bind(limit)
    .fetch_all(connection)
    .await?;
    rows.iter().map(entry).collect()
}

fn entry(row: &AnyRow) -> Result<Entry, DbError> {
    let project: Option<String> = row.try_get(2)?;
    let detail: String = row.try_get(6)?;
    Ok(Entry {
        seq: row.try_get(0)?,
        id: row.try_get(1)?,
        project: project.and_then(|project| project.parse().ok()),
        actor: row.try_get(3)?,
        action: row.try_get(4)?,
        object: row.try_get(5)?,
        detail: serde_json::from_str(&detail).unwrap_or_default(),
        reason: row.try_get(7)?,
        request_id: row.try_get(8)?,
        before: row.try_get(9)?,
        after: row.try_get(10)?,
        at: row.try_get(11)?,
        prev: row.try_get(12)?,
        hash: row.try_get(13)?,
    })
}

pub(super) async fn chains(db: &Db) -> Result<Vec<Option<ProjectId>>, DbError> {
    let rows = sqlx::query("SELECT chain FROM audit_heads ORDER BY chain")
        .fetch_all(db.read())
        .await?;
    let mut chains = vec![None];
    for row in &rows {
        let chain: String = row.try_get(0)?;
        chains.extend(chain.parse().ok().map(Some));
    }
    Ok(chains)
}
