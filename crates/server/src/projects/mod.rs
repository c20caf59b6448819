//! Projects and their environments: the tenants that own everything else.
//!
//! The first start makes the project `default` with `dev`, `staging` and `prod`;
//! a move to `prod` needs an approval until somebody changes that.

use base::ProjectId;
use db::sqlx::{Row as _, query};
use db::{Actor, Db, DbError, Scope, audit};

use crate::error::{AppError, Result};

/// A tenant.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Project {
    /// Its id.
    pub id: ProjectId,
    /// Its name, as addresses have it.
    pub name: String,
}

/// The name of a project, which the identity of a key does not carry; empty when it is gone.
///
/// # Errors
/// The database cannot be read.
pub async fn name_of(db: &Db, id: ProjectId) -> Result<String, DbError> {
    let found = list(db).await?.into_iter().find(|known| known.id == id);
    Ok(found.map(|known| known.name).unwrap_or_default())
}

/// Creates the default project if there is no project yet.
///
/// # Errors
/// The database cannot be written.
pub async fn ensure_default(db: &Db) -> Result<(), DbError> {
    if !list(db).await?.is_empty() {
        return Ok(());
    }
    let id: ProjectId = db.ids().make();
    let now = db.now_us();
    let mut tx = db.begin_write().await?;
    // Two processes may start at once on a fresh directory: the name decides who was first.
    let made = query("INSERT INTO projects (id, name, created_at) VALUES ($1, 'default', $2) ON CONFLICT DO NOTHING")
        .bind(id.to_string())
        .bind(now)
        .execute(tx.conn())
        .await?;
    if made.rows_affected() == 0 {
        return Ok(());
    }
    for (position, name) in ["dev", "staging", "prod"].into_iter().enumerate() {
        query("INSERT INTO environments (project, name, position, created_at) VALUES ($1, $2, $3, $4)")
            .bind(id.to_string())
            .bind(name)
            .bind(i64::try_from(position).unwrap_or(0))
            .bind(now)
            .execute(tx.conn())
            .await?;
    }
    let scope = Scope {
        project: id,
        actor: Actor::System,
    };
    let line = audit::Line::new(scope, "project.create", "default");
    line.write(&mut tx).await?;
    db::promotion::protect_prod(&mut tx, id).await?;
    tx.bump_plan().await?;
    tx.commit().await
}

/// Every project, by name.
///
/// # Errors
/// The database cannot be read.
pub async fn list(db: &Db) -> Result<Vec<Project>, DbError> {
    let rows = query("SELECT id, name FROM projects ORDER BY name")
        .fetch_all(db.read())
        .await?;
    rows.iter().map(project).collect()
}

/// The projects that this person is a member of, by name.
///
/// # Errors
/// The database cannot be read.
pub async fn of_user(db: &Db, user: base::UserId) -> Result<Vec<Project>, DbError> {
    let rows = query(
        "SELECT p.id, p.name FROM projects p JOIN members m ON m.project = p.id WHERE m.user_id = $1 ORDER BY p.name",
    )
    .bind(user.to_string())
    .fetch_all(db.read())
    .await?;
    rows.iter().map(project).collect()
}

/// The project with this name.
///
/// # Errors
/// There is none, or the database cannot be read.
pub async fn by_name(db: &Db, name: &str) -> Result<Project> {
    let row = query("SELECT id, name FROM projects WHERE name = $1")
        .bind(name)
        .fetch_optional(db.read())
        .await;
    match row.map_err(DbError::from)? {
        Some(row) => Ok(project(&row)?),
        None => Err(AppError::not_found(format!("there is no project {name:?}"))),
    }
}

/// The names of a project's environments, in their order.
///
/// # Errors
/// The database cannot be read.
pub async fn environments(db: &Db, project: ProjectId) -> Result<Vec<String>, DbError> {
    let rows = query("SELECT name FROM environments WHERE project = $1 ORDER BY position")
        .bind(project.to_string())
        .fetch_all(db.read())
        .await?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

fn project(row: &db::sqlx::any::AnyRow) -> Result<Project, DbError> {
    Ok(Project {
        id: db::rows::parsed(row, "id")?,
        name: row.try_get("name")?,
    })
}
