//! The SQL of names.

use base::ProjectId;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};

use super::super::names::NameRow;
use super::{MANY, Rows, Version, parsed, places, version, with_list};
use crate::DbError;
use crate::catalog::Name;

fn name_of(row: &AnyRow) -> Result<NameRow, DbError> {
    let tags: String = row.try_get(1)?;
    Ok(NameRow {
        name: parsed(row, 0)?,
        tags: serde_json::from_str(&tags).unwrap_or_default(),
        latest: row.try_get(2)?,
        deleted_at: row.try_get(3)?,
    })
}

pub(in super::super) async fn name_row(
    connection: &mut AnyConnection,
    project: ProjectId,
    kind: &str,
    name: &Name,
) -> Result<Option<NameRow>, DbError> {
    let row = sqlx::query(
        "SELECT name, tags, latest, deleted_at FROM names
         WHERE project = $1 AND kind = $2 AND name = $3",
    )
    .bind(project.to_string())
    .bind(kind)
    .bind(name.as_str())
    .fetch_optional(connection)
    .await?;
    row.as_ref().map(name_of).transpose()
}

/// Which names of a kind, in order.
pub(in super::super) struct NamesAfter<'a> {
    pub(in super::super) prefix: &'a str,
    /// Without a slash behind the prefix.
    pub(in super::super) direct: bool,
    pub(in super::super) include_deleted: bool,
    pub(in super::super) after: &'a str,
    pub(in super::super) limit: i64,
}

/// The databases may sort names differently; the pages of one are whole because
/// `>` and `ORDER BY` agree. The prefix is not a LIKE: that ignores case on SQLite.
pub(in super::super) async fn names_after(
    connection: &mut AnyConnection,
    project: ProjectId,
    kind: &str,
    query: NamesAfter<'_>,
) -> Rows<NameRow> {
    let rows = sqlx::query(
        "SELECT name, tags, latest, deleted_at FROM names
         WHERE project = $1 AND kind = $2 AND name > $3 AND substr(name, 1, length($4)) = $4
           AND ($5 = 1 OR deleted_at IS NULL)
           AND ($6 = 0 OR substr(name, length($4) + 1) NOT LIKE '%/%')
         ORDER BY name LIMIT $7",
    )
    .bind(project.to_string())
    .bind(kind)
    .bind(query.after)
    .bind(query.prefix)
    .bind(i64::from(query.include_deleted))
    .bind(i64::from(query.direct))
    .bind(query.limit)
    .fetch_all(connection)
    .await?;
    rows.iter().map(name_of).collect()
}

/// Every name of a kind that is not deleted.
pub(in super::super) async fn all_names(
    connection: &mut AnyConnection,
    project: ProjectId,
    kind: &str,
) -> Rows<String> {
    let rows = sqlx::query(
        "SELECT name FROM names WHERE project = $1 AND kind = $2 AND deleted_at IS NULL ORDER BY name",
    )
    .bind(project.to_string())
    .bind(kind)
    .fetch_all(connection)
    .await?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

/// Notes the newest version of a name, and whether the name is deleted.
pub(in super::super) async fn put_name(
    connection: &mut AnyConnection,
    project: ProjectId,
    kind: &str,
    name: &Name,
    latest: i64,
    deleted_at: Option<i64>,
) -> Result<(), DbError> {
    sqlx::query(
        "INSERT INTO names (project, kind, name, latest, deleted_at) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (project, kind, name) DO UPDATE SET
            latest = excluded.latest, deleted_at = excluded.deleted_at",
    )
    .bind(project.to_string())
    .bind(kind)
    .bind(name.as_str())
    .bind(latest)
    .bind(deleted_at)
    .execute(connection)
    .await?;
    Ok(())
}

pub(in super::super) async fn put_tags(
    connection: &mut AnyConnection,
    project: ProjectId,
    kind: &str,
    name: &Name,
    tags: &[String],
) -> Result<(), DbError> {
    sqlx::query("UPDATE names SET tags = $1 WHERE project = $2 AND kind = $3 AND name = $4")
        .bind(serde_json::json!(tags).to_string())
        .bind(project.to_string())
        .bind(kind)
        .bind(name.as_str())
        .execute(connection)
        .await?;
    Ok(())
}

/// The newest version of each of these names, deleted or not.
pub(in super::super) async fn latest_of(
    connection: &mut AnyConnection,
    project: ProjectId,
    kind: &str,
    names: &[&Name],
) -> Rows<Version> {
    let mut found = Vec::with_capacity(names.len());
    for names in names.chunks(MANY) {
        let text = format!(
            "SELECT v.id, v.kind, v.name, v.number, v.digest, v.message, v.author, v.created_at
             FROM names n JOIN versions v
                ON v.project = n.project AND v.kind = n.kind AND v.name = n.name AND v.number = n.latest
             WHERE n.project = $1 AND n.kind = $2 AND n.name IN ({})",
            places(3, names.len())
        );
        for row in listed(connection, project, kind, text, names).await? {
            found.push(version(&row)?);
        }
    }
    Ok(found)
}

/// Name, label and version number of every pointer of these names, by label.
pub(in super::super) async fn labels_of(
    connection: &mut AnyConnection,
    project: ProjectId,
    kind: &str,
    names: &[&Name],
) -> Rows<(String, String, i64)> {
    let mut found = Vec::new();
    for names in names.chunks(MANY) {
        let text = format!(
            "SELECT p.name, p.label, v.number FROM pointers p JOIN versions v ON v.id = p.version_id
             WHERE p.project = $1 AND p.kind = $2 AND p.removed = 0 AND p.name IN ({})
             ORDER BY p.name, p.label",
            places(3, names.len())
        );
        for row in listed(connection, project, kind, text, names).await? {
            found.push((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?));
        }
    }
    Ok(found)
}

async fn listed(
    connection: &mut AnyConnection,
    project: ProjectId,
    kind: &str,
    text: String,
    names: &[&Name],
) -> Result<Vec<AnyRow>, DbError> {
    let mut query = with_list(text).bind(project.to_string()).bind(kind);
    for name in names {
        query = query.bind(name.as_str());
    }
    Ok(query.fetch_all(connection).await?)
}
