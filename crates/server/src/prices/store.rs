//! Prices in the database.

use base::{Price, ProjectId, VersionId};
use db::sqlx::{Row as _, query};
use db::{Db, DbError, Scope, WriteTx};
use gateway::PriceRow;

/// A project's own rows, the newest version of each.
pub(super) async fn latest(db: &Db, project: ProjectId) -> Result<Vec<PriceRow>, DbError> {
    let rows = query(
        "SELECT p.provider, p.model, p.input, p.output, p.cache_read, p.cache_write FROM prices p \
         WHERE p.project = $1 AND p.version = (SELECT MAX(q.version) FROM prices q \
           WHERE q.project = p.project AND q.provider = p.provider AND q.model = p.model)",
    )
    .bind(project.to_string())
    .fetch_all(db.read())
    .await?;
    rows.iter()
        .map(|row| {
            Ok(PriceRow {
                provider: row.try_get("provider")?,
                model: row.try_get("model")?,
                input: Price(row.try_get("input")?),
                output: Price(row.try_get("output")?),
                cache_read: Some(Price(row.try_get("cache_read")?)),
                cache_write: Some(Price(row.try_get("cache_write")?)),
            })
        })
        .collect()
}

/// Adds the next version of a row.
pub(super) async fn insert(tx: &mut WriteTx, scope: Scope, row: &PriceRow) -> Result<(), DbError> {
    tx.serialise().await?;
    let id: VersionId = tx.db().ids().make();
    let now = tx.db().now_us();
    query(
        "INSERT INTO prices (id, project, provider, model, input, output, cache_read, cache_write, version, valid_from, created_by, created_at) \
         SELECT $1, $2, $3, $4, $5, $6, $7, $8, COALESCE(MAX(version), 0) + 1, $9, $10, $9 FROM prices \
         WHERE project = $2 AND provider = $3 AND model = $4",
    )
    .bind(id.to_string())
    .bind(scope.project.to_string())
    .bind(&row.provider)
    .bind(&row.model)
    .bind(row.input.0)
    .bind(row.output.0)
    .bind(row.cache_read.unwrap_or(row.input).0)
    .bind(row.cache_write.unwrap_or(row.input).0)
    .bind(now)
    .bind(scope.actor.to_string())
    .execute(tx.conn())
    .await?;
    Ok(())
}
