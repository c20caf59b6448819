//! What the last apply left behind, kept as one setting per project: what
//! differs from it was changed by somebody else.

use std::collections::BTreeMap;

use base::ProjectId;
use db::promotion::Rules;
use db::sqlx::{AnyConnection, query};
use db::{DbError, Scope, WriteTx};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// The state that an apply left behind, as far as trees know it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Applied {
    /// The tree that was applied.
    pub(super) tree: String,
    pub(super) actor: String,
    pub(super) at: i64,
    /// By `KIND:NAME`.
    pub(super) names: BTreeMap<String, AppliedName>,
    /// What protected which label; missing in what earlier releases wrote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) protections: Option<BTreeMap<String, Rules>>,
}

/// One name of it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct AppliedName {
    pub(super) latest: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) tags: Vec<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) pointers: BTreeMap<String, String>,
}

fn setting(project: ProjectId) -> String {
    format!("gitops.applied.{project}")
}

/// What the last apply left behind; `None` where there was none.
pub(super) async fn read_applied(
    connection: &mut AnyConnection,
    project: ProjectId,
) -> Result<Option<Applied>, DbError> {
    let row = query("SELECT value FROM settings WHERE name = $1")
        .bind(setting(project))
        .fetch_optional(connection)
        .await?;
    let Some(row) = row else {
        return Ok(None);
    };
    Ok(Some(db::rows::json(&row, "value")?))
}

/// Remembers what an apply left behind.
pub(super) async fn write_applied(
    tx: &mut WriteTx,
    scope: Scope,
    applied: &Applied,
) -> Result<(), DbError> {
    let now = tx.db().now_us();
    query(
        "INSERT INTO settings (name, value, updated_by, updated_at) VALUES ($1, $2, $3, $4)
         ON CONFLICT (name) DO UPDATE SET value = excluded.value,
            updated_by = excluded.updated_by, updated_at = excluded.updated_at",
    )
    .bind(setting(scope.project))
    .bind(json!(applied).to_string())
    .bind(scope.actor.to_string())
    .bind(now)
    .execute(tx.conn())
    .await?;
    Ok(())
}
