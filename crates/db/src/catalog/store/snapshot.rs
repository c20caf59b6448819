//! A whole project without content, one statement per table.

use std::collections::BTreeMap;

use base::{Digest, ProjectId};
use serde_json::Value;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};

use super::super::Name;
use super::super::snapshot::{NameSnapshot, PointerSnapshot, Snapshot};
use super::{json, parsed};
use crate::DbError;

fn key(row: &AnyRow) -> sqlx::Result<(String, Name)> {
    Ok((row.try_get(0)?, parsed(row, 1)?))
}

pub(in super::super) async fn snapshot(
    connection: &mut AnyConnection,
    project: ProjectId,
) -> Result<Snapshot, DbError> {
    let mut names: BTreeMap<(String, Name), NameSnapshot> = BTreeMap::new();
    let rows = sqlx::query("SELECT kind, name, tags, deleted_at FROM names WHERE project = $1")
        .bind(project.to_string())
        .fetch_all(&mut *connection)
        .await?;
    for row in &rows {
        let name = names.entry(key(row)?).or_default();
        let tags: serde_json::Value = json(row, 2)?;
        let texts = tags.as_array().into_iter().flatten();
        name.tags = texts
            .filter_map(|tag| tag.as_str().map(str::to_owned))
            .collect();
        name.is_deleted = row.try_get::<Option<i64>, _>(3)?.is_some();
    }
    let rows = sqlx::query("SELECT kind, name, number, digest FROM versions WHERE project = $1")
        .bind(project.to_string())
        .fetch_all(&mut *connection)
        .await?;
    for row in &rows {
        let name = names.entry(key(row)?).or_default();
        let (number, digest): (i64, Digest) = (row.try_get(2)?, parsed(row, 3)?);
        name.versions.insert(digest, number);
        if name.latest.is_none_or(|(latest, _)| latest < number) {
            name.latest = Some((number, digest));
        }
    }
    let rows = sqlx::query(
        "SELECT p.kind, p.name, p.label, v.number, v.digest, p.revision
         FROM pointers p JOIN versions v ON v.id = p.version_id
         WHERE p.project = $1 AND v.project = $1 AND p.removed = 0",
    )
    .bind(project.to_string())
    .fetch_all(&mut *connection)
    .await?;
    for row in &rows {
        let name = names.entry(key(row)?).or_default();
        let pointer = PointerSnapshot {
            number: row.try_get(3)?,
            digest: parsed(row, 4)?,
            revision: row.try_get(5)?,
        };
        name.pointers.insert(parsed(row, 2)?, pointer);
    }
    Ok(names)
}

/// Every document of the project, of whichever kind and name.
pub(in super::super) async fn every_document(
    connection: &mut AnyConnection,
    project: ProjectId,
) -> Result<BTreeMap<Digest, Value>, DbError> {
    let rows = sqlx::query("SELECT digest, content FROM documents WHERE project = $1")
        .bind(project.to_string())
        .fetch_all(connection)
        .await?;
    rows.iter()
        .map(|row| Ok((parsed(row, 0)?, json(row, 1)?)))
        .collect()
}
