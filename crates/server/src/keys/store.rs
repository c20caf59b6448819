//! API keys in the database.

use std::collections::HashMap;
use std::sync::Arc;

use base::{KeyId, ProjectId};
use db::rows::parsed;
use db::sqlx::any::AnyRow;
use db::sqlx::{Row as _, query};
use db::{Db, DbError, Scope, WriteTx};
use gateway::Principal;

use super::Key;
use crate::error::{AppError, Result};
use crate::sessions::hex;

pub(super) async fn insert(
    tx: &mut WriteTx,
    scope: Scope,
    key: &Key,
    hash: &[u8; 32],
) -> Result<(), DbError> {
    query(
        "INSERT INTO api_keys (id, project, environment, name, prefix, secret_hash, role, created_by, created_at, expires_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
    )
    .bind(&key.id)
    .bind(scope.project.to_string())
    .bind(&key.environment)
    .bind(&key.name)
    .bind(&key.prefix)
    .bind(hex(hash))
    .bind(key.role.name())
    .bind(&key.created_by)
    .bind(key.created_at)
    .bind(key.expires_at)
    .execute(tx.conn())
    .await?;
    Ok(())
}

pub(super) async fn list(db: &Db, scope: Scope) -> Result<Vec<Key>> {
    let rows = query(
        "SELECT id, name, prefix, environment, role, created_by, created_at, last_used_at, expires_at, revoked_at \
         FROM api_keys WHERE project = $1 ORDER BY created_at DESC, id DESC LIMIT 1000",
    )
    .bind(scope.project.to_string())
    .fetch_all(db.read())
    .await?;
    rows.iter().map(key).collect()
}

fn key(row: &AnyRow) -> Result<Key> {
    let role: String = row.try_get("role")?;
    Ok(Key {
        id: row.try_get("id")?,
        name: row.try_get("name")?,
        prefix: row.try_get("prefix")?,
        environment: row.try_get("environment")?,
        role: role
            .parse()
            .map_err(|problem: String| AppError::internal(anyhow::anyhow!(problem)))?,
        created_by: row.try_get("created_by")?,
        created_at: row.try_get("created_at")?,
        last_used_at: row.try_get("last_used_at")?,
        expires_at: row.try_get("expires_at")?,
        revoked_at: row.try_get("revoked_at")?,
    })
}

/// The name of a key, good or revoked.
pub(super) async fn name(
    db: &Db,
    project: ProjectId,
    key: KeyId,
) -> Result<Option<String>, DbError> {
    let row = query("SELECT name FROM api_keys WHERE project = $1 AND id = $2")
        .bind(project.to_string())
        .bind(key.to_string())
        .fetch_optional(db.read())
        .await?;
    Ok(row.map(|row| row.try_get("name")).transpose()?)
}

pub(super) async fn revoke(
    tx: &mut WriteTx,
    scope: Scope,
    id: &str,
    now: i64,
) -> Result<bool, DbError> {
    let revoked = query(
        "UPDATE api_keys SET revoked_at = COALESCE(revoked_at, $3) WHERE project = $1 AND id = $2",
    )
    .bind(scope.project.to_string())
    .bind(id)
    .bind(now)
    .execute(tx.conn())
    .await?;
    Ok(revoked.rows_affected() == 1)
}

/// Reads across projects: the plan holds every tenant's keys.
pub(super) async fn live(db: &Db) -> Result<HashMap<[u8; 32], Arc<Principal>>> {
    let rows = query(
        "SELECT id, project, environment, role, expires_at, secret_hash FROM api_keys WHERE revoked_at IS NULL",
    )
    .fetch_all(db.read())
    .await?;
    let mut keys = HashMap::with_capacity(rows.len());
    for row in &rows {
        let hash: String = row.try_get("secret_hash")?;
        let hash: base::Digest = format!("sha256:{hash}")
            .parse()
            .map_err(anyhow::Error::from)?;
        let principal = Principal {
            key_id: Some(parsed(row, "id")?),
            user_id: None,
            project: parsed(row, "project")?,
            environment: row.try_get("environment")?,
            role: row.try_get("role")?,
            expires_at: row.try_get("expires_at")?,
        };
        keys.insert(hash.0, Arc::new(principal));
    }
    Ok(keys)
}

pub(super) async fn set_last_used(db: &Db, used: &HashMap<KeyId, i64>) -> Result<(), DbError> {
    let mut tx = db.begin_write().await?;
    for (key, at) in used {
        query("UPDATE api_keys SET last_used_at = $2 WHERE id = $1 AND (last_used_at IS NULL OR last_used_at < $2)")
            .bind(key.to_string())
            .bind(*at)
            .execute(tx.conn())
            .await?;
    }
    tx.commit().await
}
