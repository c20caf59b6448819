//! What MLflow's clients attach to prompts and versions and our catalog has no
//! word for: tags with values, descriptions. Number 0 is the prompt as a whole.

use std::collections::BTreeMap;

use db::sqlx::{Row as _, query};
use db::{Db, DbError, Scope, WriteTx};

/// What is attached: number → key → value.
pub(super) type Attached = BTreeMap<i64, BTreeMap<String, String>>;

/// Everything attached to one prompt.
pub(super) async fn attached(db: &Db, scope: Scope, name: &str) -> Result<Attached, DbError> {
    let rows =
        query("SELECT number, key, value FROM registry_tags WHERE project = $1 AND name = $2")
            .bind(scope.project.to_string())
            .bind(name)
            .fetch_all(db.read())
            .await?;
    let mut found = Attached::new();
    for row in rows {
        found
            .entry(row.try_get(0)?)
            .or_default()
            .insert(row.try_get(1)?, row.try_get(2)?);
    }
    Ok(found)
}

/// What is attached to every prompt as a whole: name → key → value.
pub(super) async fn of_names(
    db: &Db,
    scope: Scope,
) -> Result<BTreeMap<String, BTreeMap<String, String>>, DbError> {
    let rows =
        query("SELECT name, key, value FROM registry_tags WHERE project = $1 AND number = 0")
            .bind(scope.project.to_string())
            .fetch_all(db.read())
            .await?;
    let mut found: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for row in rows {
        found
            .entry(row.try_get(0)?)
            .or_default()
            .insert(row.try_get(1)?, row.try_get(2)?);
    }
    Ok(found)
}

/// Attaches a value, or replaces it.
pub(super) async fn attach(
    tx: &mut WriteTx,
    scope: Scope,
    name: &str,
    number: i64,
    key: &str,
    value: &str,
) -> Result<(), DbError> {
    let at = tx.db().now_us();
    query(
        "INSERT INTO registry_tags (project, name, number, key, value, updated_at) VALUES ($1, $2, $3, $4, $5, $6)
         ON CONFLICT (project, name, number, key) DO UPDATE SET value = excluded.value, updated_at = excluded.updated_at",
    )
    .bind(scope.project.to_string())
    .bind(name)
    .bind(number)
    .bind(key)
    .bind(value)
    .bind(at)
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Takes a value away; not being there is fine.
pub(super) async fn detach(
    tx: &mut WriteTx,
    scope: Scope,
    name: &str,
    number: i64,
    key: &str,
) -> Result<(), DbError> {
    query(
        "DELETE FROM registry_tags WHERE project = $1 AND name = $2 AND number = $3 AND key = $4",
    )
    .bind(scope.project.to_string())
    .bind(name)
    .bind(number)
    .bind(key)
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Takes everything away from a prompt and its versions.
pub(super) async fn detach_all(tx: &mut WriteTx, scope: Scope, name: &str) -> Result<(), DbError> {
    query("DELETE FROM registry_tags WHERE project = $1 AND name = $2")
        .bind(scope.project.to_string())
        .bind(name)
        .execute(tx.conn())
        .await?;
    Ok(())
}
