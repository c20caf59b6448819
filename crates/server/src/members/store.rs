//! Members and invitations in the database.

use base::{MemberId, ProjectId, UserId};
use db::rows::parsed;
use db::sqlx::any::AnyRow;
use db::sqlx::{Row as _, query};
use db::{Db, DbError, Scope, WriteTx};

use super::{Invite, Member, Offer};
use crate::auth::Role;
use crate::error::Result;
use crate::projects::Project;

fn role(row: &AnyRow) -> Result<Role> {
    let text: String = row.try_get("role")?;
    text.parse()
        .map_err(|problem: String| crate::error::AppError::internal(anyhow::anyhow!(problem)))
}

pub(super) async fn role_in(
    db: &Db,
    user: UserId,
    name: Option<&str>,
) -> Result<Option<(Project, Role)>> {
    let row = query(
        "SELECT p.id, p.name, m.role FROM members m JOIN projects p ON p.id = m.project \
         WHERE m.user_id = $1 AND ($2 = '' OR p.name = $2) ORDER BY p.name LIMIT 1",
    )
    .bind(user.to_string())
    .bind(name.unwrap_or_default())
    .fetch_optional(db.read())
    .await?;
    let Some(row) = row else { return Ok(None) };
    let project = Project {
        id: parsed(&row, "id")?,
        name: row.try_get("name")?,
    };
    Ok(Some((project, role(&row)?)))
}

/// Adds a member in this transaction; somebody who is one already keeps their role.
pub(crate) async fn insert(
    tx: &mut WriteTx,
    project: ProjectId,
    user: UserId,
    role: Role,
    now: i64,
) -> Result<(), DbError> {
    let member: MemberId = tx.db().ids().make();
    query("INSERT INTO members (id, project, user_id, role, created_at) VALUES ($1, $2, $3, $4, $5) ON CONFLICT (project, user_id) DO NOTHING")
        .bind(member.to_string())
        .bind(project.to_string())
        .bind(user.to_string())
        .bind(role.name())
        .bind(now)
        .execute(tx.conn())
        .await?;
    Ok(())
}

pub(super) async fn list(db: &Db, scope: Scope) -> Result<Vec<Member>> {
    let rows = query(
        "SELECT u.id, u.name, u.email, m.role, m.created_at, \
           (SELECT MAX(s.last_seen_at) FROM sessions s WHERE s.user_id = u.id) AS last_seen_at \
         FROM members m JOIN users u ON u.id = m.user_id WHERE m.project = $1 ORDER BY u.name, u.email",
    )
    .bind(scope.project.to_string())
    .fetch_all(db.read())
    .await?;
    rows.iter()
        .map(|row| {
            Ok(Member {
                user_id: row.try_get("id")?,
                name: row.try_get("name")?,
                email: row.try_get("email")?,
                role: role(row)?,
                created_at: row.try_get("created_at")?,
                last_seen_at: row.try_get("last_seen_at")?,
            })
        })
        .collect()
}

pub(super) async fn invites(db: &Db, scope: Scope, now: i64) -> Result<Vec<Invite>> {
    let rows = query(
        "SELECT token_hash, email, role, created_at, expires_at, created_by FROM setup_links \
         WHERE purpose = 'invite' AND project = $1 AND used_at IS NULL AND expires_at > $2 ORDER BY created_at",
    )
    .bind(scope.project.to_string())
    .bind(now)
    .fetch_all(db.read())
    .await?;
    rows.iter()
        .map(|row| {
            Ok(Invite {
                id: row.try_get("token_hash")?,
                email: row.try_get("email")?,
                role: role(row)?,
                created_at: row.try_get("created_at")?,
                expires_at: row.try_get("expires_at")?,
                created_by: row.try_get("created_by")?,
            })
        })
        .collect()
}

pub(super) async fn insert_invite(
    tx: &mut WriteTx,
    scope: Scope,
    invite: &Invite,
) -> Result<(), DbError> {
    query(
        "INSERT INTO setup_links (token_hash, purpose, project, role, email, created_by, created_at, expires_at) \
         VALUES ($1, 'invite', $2, $3, $4, $5, $6, $7)",
    )
    .bind(&invite.id)
    .bind(scope.project.to_string())
    .bind(invite.role.name())
    .bind(&invite.email)
    .bind(&invite.created_by)
    .bind(invite.created_at)
    .bind(invite.expires_at)
    .execute(tx.conn())
    .await?;
    Ok(())
}

pub(super) async fn delete_invite(
    tx: &mut WriteTx,
    scope: Scope,
    hash: &str,
) -> Result<bool, DbError> {
    let deleted = query("DELETE FROM setup_links WHERE token_hash = $1 AND project = $2 AND purpose = 'invite' AND used_at IS NULL")
        .bind(hash)
        .bind(scope.project.to_string())
        .execute(tx.conn())
        .await?;
    Ok(deleted.rows_affected() == 1)
}

pub(super) async fn offer(db: &Db, hash: &str, now: i64) -> Result<Option<Offer>> {
    let row = query(
        "SELECT l.project, p.name, l.email, l.role, l.created_by FROM setup_links l JOIN projects p ON p.id = l.project \
         WHERE l.token_hash = $1 AND l.purpose = 'invite' AND l.used_at IS NULL AND l.expires_at > $2",
    )
    .bind(hash)
    .bind(now)
    .fetch_optional(db.read())
    .await?;
    let Some(row) = row else { return Ok(None) };
    let project = parsed(&row, "project")?;
    Ok(Some(Offer {
        project,
        project_name: row.try_get("name")?,
        email: row.try_get("email")?,
        role: role(&row)?,
        invited_by: super::actor_name(db, project, &row.try_get::<String, _>("created_by")?)
            .await?,
    }))
}

/// A person's name. People belong to no project.
pub(super) async fn person_name(db: &Db, user: UserId) -> Result<Option<String>, DbError> {
    let row = query("SELECT name FROM users WHERE id = $1")
        .bind(user.to_string())
        .fetch_optional(db.read())
        .await?;
    Ok(row.map(|row| row.try_get("name")).transpose()?)
}

pub(super) async fn use_invite(tx: &mut WriteTx, hash: &str, now: i64) -> Result<bool, DbError> {
    let used = query("UPDATE setup_links SET used_at = $2 WHERE token_hash = $1 AND purpose = 'invite' AND used_at IS NULL AND expires_at > $2")
        .bind(hash)
        .bind(now)
        .execute(tx.conn())
        .await?;
    Ok(used.rows_affected() == 1)
}

pub(super) async fn set_role(
    tx: &mut WriteTx,
    scope: Scope,
    user: UserId,
    role: Role,
) -> Result<bool, DbError> {
    let set = query("UPDATE members SET role = $3 WHERE project = $1 AND user_id = $2")
        .bind(scope.project.to_string())
        .bind(user.to_string())
        .bind(role.name())
        .execute(tx.conn())
        .await?;
    Ok(set.rows_affected() == 1)
}

pub(super) async fn remove(tx: &mut WriteTx, scope: Scope, user: UserId) -> Result<bool, DbError> {
    let removed = query("DELETE FROM members WHERE project = $1 AND user_id = $2")
        .bind(scope.project.to_string())
        .bind(user.to_string())
        .execute(tx.conn())
        .await?;
    Ok(removed.rows_affected() == 1)
}

pub(super) async fn count_admins(tx: &mut WriteTx, project: ProjectId) -> Result<i64, DbError> {
    let row = query("SELECT COUNT(*) AS n FROM members WHERE project = $1 AND role = 'admin'")
        .bind(project.to_string())
        .fetch_one(tx.conn())
        .await?;
    Ok(row.try_get("n")?)
}
