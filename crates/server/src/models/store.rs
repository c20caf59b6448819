//! SQL of the installed models. They belong to the installation, not to a project.

use base::{Digest, DocumentId};
use db::sqlx::any::AnyRow;
use db::sqlx::{Row as _, query};
use db::{Actor, Db, DbError, audit};
use serde_json::json;

use super::{Model, NewModel, Task};

/// Every installed model, by name.
pub(super) async fn list(db: &Db) -> Result<Vec<Model>, DbError> {
    let rows = query("SELECT * FROM models ORDER BY name")
        .fetch_all(db.read())
        .await?;
    rows.iter().map(model).collect()
}

/// The model with this name.
pub(super) async fn by_name(db: &Db, name: &str) -> Result<Option<Model>, DbError> {
    let row = query("SELECT * FROM models WHERE name = $1")
        .bind(name)
        .fetch_optional(db.read())
        .await?;
    row.as_ref().map(model).transpose()
}

/// How many names stand for this content.
pub(super) async fn uses(db: &Db, digest: &Digest) -> Result<i64, DbError> {
    let row = query("SELECT COUNT(*) FROM models WHERE digest = $1")
        .bind(digest.to_string())
        .fetch_one(db.read())
        .await?;
    Ok(row.try_get(0)?)
}

/// Writes a model down, or replaces what the same source gave before. `None`
/// when another source has the name; else the digest that it replaces, if that differs.
pub(super) async fn save(
    db: &Db,
    actor: Actor,
    new: &NewModel,
) -> Result<Option<Option<Digest>>, DbError> {
    let id: DocumentId = db.ids().make();
    let now = db.now_us();
    let mut tx = db.begin_write().await?;
    tx.serialise().await?;
    let before = query("SELECT digest FROM models WHERE name = $1")
        .bind(new.name.as_str())
        .fetch_optional(tx.conn())
        .await?;
    let saved = query(
        "INSERT INTO models (id, name, source, path, digest, kind, state, size_bytes, facts, created_at, updated_at)
         VALUES ($1, $2, $3, $4, $5, $6, 'ready', $7, $8, $9, $9)
         ON CONFLICT (name) DO UPDATE SET
             path = excluded.path, digest = excluded.digest, kind = excluded.kind, state = excluded.state,
             size_bytes = excluded.size_bytes, facts = excluded.facts, updated_at = excluded.updated_at
         WHERE models.source = excluded.source",
    )
    .bind(id.to_string())
    .bind(new.name.as_str())
    .bind(new.source.as_str())
    .bind(new.path.as_str())
    .bind(new.digest.to_string())
    .bind(new.task.name())
    .bind(i64::try_from(new.size_bytes()).unwrap_or(i64::MAX))
    .bind(serde_json::to_string(&new.facts).unwrap_or_default())
    .bind(now)
    .execute(tx.conn())
    .await?;
    if saved.rows_affected() == 0 {
        return Ok(None);
    }
    let detail = json!({"source": new.source, "digest": new.digest.to_string()});
    audit::write(&mut tx, None, actor, "model.pull", &new.name, &detail).await?;
    tx.bump_plan().await?;
    tx.commit().await?;
    let before: Option<String> = before.map(|row| row.try_get(0)).transpose()?;
    let before: Option<Digest> = before.and_then(|text| text.parse().ok());
    Ok(Some(before.filter(|digest| *digest != new.digest)))
}

/// Forgets a model; returns its digest, or `None` when there is none of this name.
pub(super) async fn remove(db: &Db, actor: Actor, name: &str) -> Result<Option<Digest>, DbError> {
    let mut tx = db.begin_write().await?;
    tx.serialise().await?;
    let row = query("DELETE FROM models WHERE name = $1 RETURNING digest")
        .bind(name)
        .fetch_optional(tx.conn())
        .await?;
    let Some(row) = row else { return Ok(None) };
    let digest: Digest = db::rows::parsed(&row, "digest")?;
    audit::write(
        &mut tx,
        None,
        actor,
        "model.remove",
        name,
        &json!({"digest": digest.to_string()}),
    )
    .await?;
    tx.bump_plan().await?;
    tx.commit().await?;
    Ok(Some(digest))
}

fn model(row: &AnyRow) -> Result<Model, DbError> {
    let kind: String = row.try_get("kind")?;
    let facts: String = row.try_get("facts")?;
    let size_bytes: Option<i64> = row.try_get("size_bytes")?;
    Ok(Model {
        name: row.try_get("name")?,
        source: row.try_get("source")?,
        path: row
            .try_get::<Option<String>, _>("path")?
            .unwrap_or_default(),
        digest: db::rows::parsed(row, "digest")?,
        task: if kind == Task::Embedding.name() {
            Task::Embedding
        } else {
            Task::Chat
        },
        size_bytes: size_bytes
            .and_then(|bytes| u64::try_from(bytes).ok())
            .unwrap_or_default(),
        facts: serde_json::from_str(&facts).unwrap_or_default(),
        installed_at: row.try_get("updated_at")?,
    })
}
