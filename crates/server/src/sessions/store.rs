//! Sessions in the database. A row is found by its hash or belongs to one
//! person; sessions have no project.

use base::{SessionId, UserId};
use db::audit::Line;
use db::rows::{flag, parsed};
use db::sqlx::{Row as _, query};
use db::{Actor, Db};
use serde_json::json;

use crate::auth::Person;
use crate::error::Result;

/// A session and the person it belongs to.
pub(super) struct Found {
    pub(super) person: Person,
    pub(super) expires_at: i64,
    pub(super) last_seen_at: i64,
    pub(super) disabled: bool,
    pub(super) revoked: bool,
}

/// An account, for checking a password.
pub(super) struct Account {
    pub(super) id: UserId,
    pub(super) password_hash: Option<String>,
    pub(super) disabled: bool,
}

pub(super) async fn find(db: &Db, hash: &str) -> Result<Option<Found>> {
    let row = query(
        "SELECT s.id AS session_id, s.expires_at, s.last_seen_at, \
           CASE WHEN s.revoked_at IS NULL THEN 0 ELSE 1 END AS revoked, u.id, u.name, u.email, u.disabled \
         FROM sessions s JOIN users u ON u.id = s.user_id WHERE s.id_hash = $1",
    )
    .bind(hash)
    .fetch_optional(db.read())
    .await?;
    let Some(row) = row else { return Ok(None) };
    let person = Person {
        id: parsed(&row, "id")?,
        name: row.try_get("name")?,
        email: row.try_get("email")?,
        session: parsed(&row, "session_id")?,
    };
    Ok(Some(Found {
        person,
        expires_at: row.try_get("expires_at")?,
        last_seen_at: row.try_get("last_seen_at")?,
        disabled: flag(&row, "disabled")?,
        revoked: flag(&row, "revoked")?,
    }))
}

pub(super) async fn account(db: &Db, email: &str) -> Result<Option<Account>> {
    let row = query("SELECT id, password_hash, disabled FROM users WHERE email = $1")
        .bind(email.to_lowercase())
        .fetch_optional(db.read())
        .await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(Account {
        id: parsed(&row, "id")?,
        password_hash: row.try_get("password_hash")?,
        disabled: flag(&row, "disabled")?,
    }))
}

pub(super) async fn insert(
    db: &Db,
    hash: &str,
    session: SessionId,
    user: UserId,
    now: i64,
    expires_at: i64,
    user_agent: &str,
) -> Result<()> {
    let mut tx = db.begin_write().await?;
    query(
        "INSERT INTO sessions (id_hash, id, user_id, created_at, last_seen_at, expires_at, user_agent) \
         VALUES ($1, $2, $3, $4, $4, $5, $6)",
    )
    .bind(hash)
    .bind(session.to_string())
    .bind(user.to_string())
    .bind(now)
    .bind(expires_at)
    .bind(user_agent)
    .execute(tx.conn())
    .await?;
    let object = session.to_string();
    Line::of_installation(Actor::User(user), "session.begin", &object)
        .write(&mut tx)
        .await?;
    tx.commit().await?;
    Ok(())
}

pub(super) async fn touch(db: &Db, hash: &str, now: i64) -> Result<()> {
    let mut tx = db.begin_write().await?;
    query("UPDATE sessions SET last_seen_at = $2 WHERE id_hash = $1 AND last_seen_at < $2")
        .bind(hash)
        .bind(now)
        .execute(tx.conn())
        .await?;
    tx.commit().await?;
    Ok(())
}

/// Ends one session; nothing to end is no error.
pub(super) async fn revoke(db: &Db, hash: &str, now: i64) -> Result<()> {
    let mut tx = db.begin_write().await?;
    let row = query(
        "UPDATE sessions SET revoked_at = $2 WHERE id_hash = $1 AND revoked_at IS NULL RETURNING id, user_id",
    )
    .bind(hash)
    .bind(now)
    .fetch_optional(tx.conn())
    .await?;
    if let Some(row) = row {
        let user = parsed(&row, "user_id")?;
        let session: String = row.try_get("id")?;
        Line::of_installation(Actor::User(user), "session.end", &session)
            .write(&mut tx)
            .await?;
    }
    tx.commit().await?;
    Ok(())
}

/// Ends every session of a person.
pub(super) async fn revoke_user(db: &Db, actor: Actor, user: UserId, now: i64) -> Result<()> {
    let mut tx = db.begin_write().await?;
    let ended =
        query("UPDATE sessions SET revoked_at = $2 WHERE user_id = $1 AND revoked_at IS NULL")
            .bind(user.to_string())
            .bind(now)
            .execute(tx.conn())
            .await?;
    if ended.rows_affected() > 0 {
        let object = user.to_string();
        Line::of_installation(actor, "session.end_all", &object)
            .detail(json!({"ended": ended.rows_affected()}))
            .write(&mut tx)
            .await?;
    }
    tx.commit().await?;
    Ok(())
}

pub(super) async fn delete_expired(db: &Db, now: i64) -> Result<()> {
    let mut tx = db.begin_write().await?;
    query("DELETE FROM sessions WHERE expires_at < $1")
        .bind(now)
        .execute(tx.conn())
        .await?;
    query("DELETE FROM setup_links WHERE expires_at < $1")
        .bind(now)
        .execute(tx.conn())
        .await?;
    tx.commit().await?;
    Ok(())
}
