//! Providers in the database.

use base::ProjectId;
use db::rows::{flag, json};
use db::sqlx::any::AnyRow;
use db::sqlx::{AnyConnection, Row as _, query};
use db::{Db, DbError, Scope, WriteTx};

use super::{Options, Provider, Wire};
use crate::error::{AppError, Result};

/// A provider as it is kept.
pub(super) struct Row {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) protocol: String,
    pub(super) base_url: String,
    pub(super) credential_ref: Option<String>,
    pub(super) allow_private: bool,
    pub(super) options: Options,
}

impl Row {
    pub(super) fn wire(&self) -> Result<Wire> {
        match self.protocol.as_str() {
            "openai" => Ok(Wire::OpenAi),
            "anthropic" => Ok(Wire::Anthropic),
            other => Err(AppError::internal(anyhow::anyhow!(
                "provider {} has the protocol {other:?}",
                self.name
            ))),
        }
    }

    /// What people may see of it.
    pub(super) fn public(self) -> Result<Provider> {
        let protocol = self.wire()?;
        let (credential, credential_ref) = match self
            .credential_ref
            .as_deref()
            .and_then(|r| r.split_once(':'))
        {
            Some(("env", name)) => ("env", name.to_owned()),
            Some(("file", path)) => ("file", path.to_owned()),
            Some(_) => ("stored", String::new()),
            None => ("none", String::new()),
        };
        let state = if self.options.state.is_empty() {
            "unknown".to_owned()
        } else {
            self.options.state
        };
        Ok(Provider {
            id: self.id,
            name: self.name,
            protocol,
            base_url: self.base_url,
            credential,
            credential_ref,
            allow_private: self.allow_private,
            models: self.options.models,
            state,
            state_text: self.options.state_text,
            checked_at: self.options.checked_at,
        })
    }
}

fn read(row: &AnyRow) -> Result<Row> {
    Ok(Row {
        id: row.try_get("id")?,
        name: row.try_get("name")?,
        protocol: row.try_get("protocol")?,
        base_url: row.try_get("base_url")?,
        credential_ref: row.try_get("credential_ref")?,
        allow_private: flag(row, "allow_private")?,
        options: json(row, "options")?,
    })
}

pub(super) async fn is_name(
    connection: &mut AnyConnection,
    project: ProjectId,
    name: &str,
) -> std::result::Result<bool, DbError> {
    let row = query("SELECT id FROM providers WHERE project = $1 AND name = $2")
        .bind(project.to_string())
        .bind(name)
        .fetch_optional(connection)
        .await?;
    Ok(row.is_some())
}

pub(super) async fn list(db: &Db, project: ProjectId) -> Result<Vec<Row>> {
    let rows = query(
        "SELECT id, name, protocol, base_url, credential_ref, allow_private, options FROM providers \
         WHERE project = $1 ORDER BY name",
    )
    .bind(project.to_string())
    .fetch_all(db.read())
    .await?;
    rows.iter().map(read).collect()
}

/// One provider by its id or name: one function, so that neither can skip a check.
pub(super) async fn find(db: &Db, project: ProjectId, id_or_name: &str) -> Result<Option<Row>> {
    let row = query(
        "SELECT id, name, protocol, base_url, credential_ref, allow_private, options FROM providers \
         WHERE project = $1 AND (id = $2 OR name = $2)",
    )
    .bind(project.to_string())
    .bind(id_or_name)
    .fetch_optional(db.read())
    .await?;
    row.as_ref().map(read).transpose()
}

pub(super) async fn insert(tx: &mut WriteTx, scope: Scope, row: &Row) -> Result<bool> {
    let now = tx.db().now_us();
    let inserted = query(
        "INSERT INTO providers (id, project, name, protocol, base_url, credential_ref, allow_private, options, created_at, updated_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9) ON CONFLICT (project, name) DO NOTHING",
    )
    .bind(&row.id)
    .bind(scope.project.to_string())
    .bind(&row.name)
    .bind(&row.protocol)
    .bind(&row.base_url)
    .bind(row.credential_ref.clone())
    .bind(i64::from(row.allow_private))
    .bind(options(row)?)
    .bind(now)
    .execute(tx.conn())
    .await?;
    Ok(inserted.rows_affected() == 1)
}

pub(super) async fn update(tx: &mut WriteTx, scope: Scope, row: &Row) -> Result<bool> {
    let now = tx.db().now_us();
    let updated = query(
        "UPDATE providers SET name = $3, protocol = $4, base_url = $5, credential_ref = $6, allow_private = $7, \
           options = $8, updated_at = $9 \
         WHERE project = $1 AND id = $2 \
           AND NOT EXISTS (SELECT 1 FROM providers o WHERE o.project = $1 AND o.name = $3 AND o.id <> $2)",
    )
    .bind(scope.project.to_string())
    .bind(&row.id)
    .bind(&row.name)
    .bind(&row.protocol)
    .bind(&row.base_url)
    .bind(row.credential_ref.clone())
    .bind(i64::from(row.allow_private))
    .bind(options(row)?)
    .bind(now)
    .execute(tx.conn())
    .await?;
    Ok(updated.rows_affected() == 1)
}

pub(super) async fn set_options(tx: &mut WriteTx, scope: Scope, row: &Row) -> Result<()> {
    query("UPDATE providers SET options = $3 WHERE project = $1 AND id = $2")
        .bind(scope.project.to_string())
        .bind(&row.id)
        .bind(options(row)?)
        .execute(tx.conn())
        .await?;
    Ok(())
}

fn options(row: &Row) -> Result<String> {
    Ok(serde_json::to_string(&row.options).map_err(anyhow::Error::from)?)
}

pub(super) async fn delete(
    tx: &mut WriteTx,
    scope: Scope,
    id_or_name: &str,
) -> Result<bool, DbError> {
    let deleted = query("DELETE FROM providers WHERE project = $1 AND (id = $2 OR name = $2)")
        .bind(scope.project.to_string())
        .bind(id_or_name)
        .execute(tx.conn())
        .await?;
    Ok(deleted.rows_affected() == 1)
}
