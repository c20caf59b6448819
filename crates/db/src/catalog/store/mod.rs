//! The catalog's SQL: one function per statement, each with the project in its
//! `WHERE`. Reading works on a pooled connection and inside a transaction alike.
//! Pointers that were removed are rows still; only [`pointer_row`] and the history see them.

mod names;
mod references;
mod sketches;
mod snapshot;

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;

use base::{Digest, MoveId, PointerId, ProjectId, VersionId};
use serde_json::Value;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};

use super::index::{IndexRow, PointerIndexRow};
use super::pointers::PointerRow;
use super::{Document, Label, Move, MoveAction, Name, Pointer, Version};
use crate::DbError;
use crate::rows::{json, parsed, pointer_of_row};

pub(super) use names::{
    NamesAfter, all_names, labels_of, latest_of, name_row, names_after, put_name, put_tags,
};
pub(super) use references::{dependents, insert_reference, references};
pub(super) use sketches::{insert_sketch, sketched};
pub(super) use snapshot::{every_document, snapshot};

/// How many values one statement lists; SQLite takes 32,766 parameters in all.
const MANY: usize = 500;

type Rows<T> = Result<Vec<T>, DbError>;

fn version(row: &AnyRow) -> Result<Version, DbError> {
    Ok(Version {
        id: parsed(row, 0)?,
        kind: row.try_get(1)?,
        name: parsed(row, 2)?,
        number: row.try_get(3)?,
        digest: parsed(row, 4)?,
        message: row.try_get(5)?,
        author: row.try_get(6)?,
        created_at: row.try_get(7)?,
    })
}

/// A statement with as many placeholders as there are values: the one SQL text that is put
/// together, of constants, numbers and [`places`].
fn with_list(text: String) -> sqlx::query::Query<'static, sqlx::Any, sqlx::any::AnyArguments> {
    sqlx::query(sqlx::AssertSqlSafe(text))
}

/// `$3, $4, $5` for so many values after the first two parameters.
fn places(first: usize, count: usize) -> String {
    let mut out = String::new();
    for place in first..first + count {
        let comma = if place == first { "" } else { ", " };
        // Writing to a String cannot fail.
        let _ = write!(out, "{comma}${place}");
    }
    out
}

pub(super) async fn insert_document(
    connection: &mut AnyConnection,
    project: ProjectId,
    digest: &Digest,
    content: &str,
    created_at: i64,
) -> Result<(), DbError> {
    sqlx::query(
        "INSERT INTO documents (project, digest, content, created_at) VALUES ($1, $2, $3, $4)
         ON CONFLICT (project, digest) DO NOTHING",
    )
    .bind(project.to_string())
    .bind(digest.to_string())
    .bind(content)
    .bind(created_at)
    .execute(connection)
    .await?;
    Ok(())
}

pub(super) async fn content(
    connection: &mut AnyConnection,
    project: ProjectId,
    digest: &Digest,
) -> Result<Value, DbError> {
    let row = sqlx::query("SELECT content FROM documents WHERE project = $1 AND digest = $2")
        .bind(project.to_string())
        .bind(digest.to_string())
        .fetch_one(connection)
        .await?;
    Ok(json(&row, 0)?)
}

/// The newest version of a name, deleted or not.
pub(super) async fn highest_version(
    connection: &mut AnyConnection,
    project: ProjectId,
    kind: &str,
    name: &Name,
) -> Result<Option<Version>, DbError> {
    let rows = versions_below(connection, project, kind, name, i64::MAX, 0).await?;
    Ok(rows.into_iter().next())
}

pub(super) async fn insert_version(
    connection: &mut AnyConnection,
    project: ProjectId,
    version: &Version,
) -> Result<(), DbError> {
    sqlx::query(
        "INSERT INTO versions (id, project, kind, name, number, digest, message, author, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
    )
    .bind(version.id.to_string())
    .bind(project.to_string())
    .bind(version.kind.as_str())
    .bind(version.name.as_str())
    .bind(version.number)
    .bind(version.digest.to_string())
    .bind(version.message.as_str())
    .bind(version.author.as_str())
    .bind(version.created_at)
    .execute(connection)
    .await?;
    Ok(())
}

/// The newest version of a name that is not deleted.
pub(super) async fn latest(
    connection: &mut AnyConnection,
    project: ProjectId,
    kind: &str,
    name: &Name,
) -> Result<Option<Version>, DbError> {
    let row = sqlx::query(
        "SELECT v.id, v.kind, v.name, v.number, v.digest, v.message, v.author, v.created_at
         FROM names n JOIN versions v
            ON v.project = n.project AND v.kind = n.kind AND v.name = n.name AND v.number = n.latest
         WHERE n.project = $1 AND n.kind = $2 AND n.name = $3 AND n.deleted_at IS NULL",
    )
    .bind(project.to_string())
    .bind(kind)
    .bind(name.as_str())
    .fetch_optional(connection)
    .await?;
    row.as_ref().map(version).transpose()
}

/// One more than `limit`, so that the caller knows whether there is another page.
pub(super) async fn versions_below(
    connection: &mut AnyConnection,
    project: ProjectId,
    kind: &str,
    name: &Name,
    below: i64,
    limit: i64,
) -> Rows<Version> {
    let rows = sqlx::query(
        "SELECT id, kind, name, number, digest, message, author, created_at FROM versions
         WHERE project = $1 AND kind = $2 AND name = $3 AND number < $4
         ORDER BY number DESC LIMIT $5",
    )
    .bind(project.to_string())
    .bind(kind)
    .bind(name.as_str())
    .bind(below)
    .bind(limit + 1)
    .fetch_all(connection)
    .await?;
    rows.iter().map(version).collect()
}

pub(super) async fn by_number(
    connection: &mut AnyConnection,
    project: ProjectId,
    kind: &str,
    name: &Name,
    number: i64,
) -> Result<Option<Version>, DbError> {
    let row = sqlx::query(
        "SELECT id, kind, name, number, digest, message, author, created_at FROM versions
         WHERE project = $1 AND kind = $2 AND name = $3 AND number = $4",
    )
    .bind(project.to_string())
    .bind(kind)
    .bind(name.as_str())
    .bind(number)
    .fetch_optional(connection)
    .await?;
    row.as_ref().map(version).transpose()
}

pub(super) async fn by_digest(
    connection: &mut AnyConnection,
    project: ProjectId,
    kind: &str,
    name: &Name,
    digest: &Digest,
) -> Result<Option<Version>, DbError> {
    let row = sqlx::query(
        "SELECT id, kind, name, number, digest, message, author, created_at FROM versions
         WHERE project = $1 AND kind = $2 AND name = $3 AND digest = $4",
    )
    .bind(project.to_string())
    .bind(kind)
    .bind(name.as_str())
    .bind(digest.to_string())
    .fetch_optional(connection)
    .await?;
    row.as_ref().map(version).transpose()
}

pub(super) async fn by_label(
    connection: &mut AnyConnection,
    project: ProjectId,
    kind: &str,
    name: &Name,
    label: &Label,
) -> Result<Option<Version>, DbError> {
    let row = sqlx::query(
        "SELECT v.id, v.kind, v.name, v.number, v.digest, v.message, v.author, v.created_at
         FROM pointers p JOIN versions v ON v.id = p.version_id
         WHERE p.project = $1 AND p.kind = $2 AND p.name = $3 AND p.label = $4 AND p.removed = 0",
    )
    .bind(project.to_string())
    .bind(kind)
    .bind(name.as_str())
    .bind(label.as_str())
    .fetch_optional(connection)
    .await?;
    row.as_ref().map(version).transpose()
}

pub(super) async fn other_names(
    connection: &mut AnyConnection,
    project: ProjectId,
    kind: &str,
    name: &Name,
    digest: &Digest,
) -> Rows<(Name, i64)> {
    let rows = sqlx::query(
        "SELECT v.name, v.number FROM versions v
         JOIN names n ON n.project = v.project AND n.kind = v.kind AND n.name = v.name
         WHERE v.project = $1 AND v.kind = $2 AND v.digest = $3 AND v.name <> $4 AND n.deleted_at IS NULL
         ORDER BY v.created_at, v.name LIMIT 5",
    )
    .bind(project.to_string())
    .bind(kind)
    .bind(digest.to_string())
    .bind(name.as_str())
    .fetch_all(connection)
    .await?;
    rows.iter()
        .map(|row| Ok((parsed(row, 0)?, row.try_get(1)?)))
        .collect()
}

/// A pointer, whether it was removed or not.
pub(super) async fn pointer_row(
    connection: &mut AnyConnection,
    project: ProjectId,
    kind: &str,
    name: &Name,
    label: &Label,
) -> Result<Option<PointerRow>, DbError> {
    let row = sqlx::query(
        "SELECT p.id, p.kind, p.name, p.label, v.number, v.id, v.digest, p.revision, p.moved_by, p.moved_at, p.removed
         FROM pointers p JOIN versions v ON v.id = p.version_id
         WHERE p.project = $1 AND p.kind = $2 AND p.name = $3 AND p.label = $4",
    )
    .bind(project.to_string())
    .bind(kind)
    .bind(name.as_str())
    .bind(label.as_str())
    .fetch_optional(connection)
    .await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(PointerRow {
        pointer: pointer_of_row(&row)?,
        removed: row.try_get::<i64, _>(10)? != 0,
    }))
}

pub(super) async fn pointers(
    connection: &mut AnyConnection,
    project: ProjectId,
    kind: &str,
    name: &Name,
) -> Rows<Pointer> {
    let rows = sqlx::query(
        "SELECT p.id, p.kind, p.name, p.label, v.number, v.id, v.digest, p.revision, p.moved_by, p.moved_at
         FROM pointers p JOIN versions v ON v.id = p.version_id
         WHERE p.project = $1 AND p.kind = $2 AND p.name = $3 AND p.removed = 0 ORDER BY p.label",
    )
    .bind(project.to_string())
    .bind(kind)
    .bind(name.as_str())
    .fetch_all(connection)
    .await?;
    rows.iter().map(pointer_of_row).collect()
}

pub(super) async fn pointed_documents(
    connection: &mut AnyConnection,
    project: ProjectId,
    kind: &str,
) -> Rows<(Pointer, Value)> {
    let rows = sqlx::query(
        "SELECT p.id, p.kind, p.name, p.label, v.number, v.id, v.digest, p.revision, p.moved_by, p.moved_at, d.content
         FROM pointers p JOIN versions v ON v.id = p.version_id
         JOIN documents d ON d.project = v.project AND d.digest = v.digest
         WHERE p.project = $1 AND p.kind = $2 AND p.removed = 0 ORDER BY p.name, p.label",
    )
    .bind(project.to_string())
    .bind(kind)
    .fetch_all(connection)
    .await?;
    rows.iter()
        .map(|row| Ok((pointer_of_row(row)?, json(row, 10)?)))
        .collect()
}

pub(super) async fn all_documents(
    connection: &mut AnyConnection,
    project: ProjectId,
    kind: &str,
) -> Rows<Document> {
    let rows = sqlx::query(
        "SELECT v.id, v.kind, v.name, v.number, v.digest, v.message, v.author, v.created_at, d.content
         FROM versions v JOIN documents d ON d.project = v.project AND d.digest = v.digest
         JOIN names n ON n.project = v.project AND n.kind = v.kind AND n.name = v.name
         WHERE v.project = $1 AND v.kind = $2 AND n.deleted_at IS NULL ORDER BY v.name, v.number",
    )
    .bind(project.to_string())
    .bind(kind)
    .fetch_all(connection)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(Document {
                version: version(row)?,
                content: json(row, 8)?,
            })
        })
        .collect()
}

pub(super) async fn put_pointer(
    connection: &mut AnyConnection,
    project: ProjectId,
    pointer: &Pointer,
    removed: bool,
) -> Result<(), DbError> {
    sqlx::query(
        "INSERT INTO pointers (id, project, kind, name, label, version_id, revision, moved_by, moved_at, removed)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
         ON CONFLICT (project, kind, name, label) DO UPDATE SET
            version_id = excluded.version_id, revision = excluded.revision,
            moved_by = excluded.moved_by, moved_at = excluded.moved_at, removed = excluded.removed",
    )
    .bind(pointer.id.to_string())
    .bind(project.to_string())
    .bind(pointer.kind.as_str())
    .bind(pointer.name.as_str())
    .bind(pointer.label.as_str())
    .bind(pointer.version_id.to_string())
    .bind(pointer.revision)
    .bind(pointer.moved_by.as_str())
    .bind(pointer.moved_at)
    .bind(i64::from(removed))
    .execute(connection)
    .await?;
    Ok(())
}

/// What a line of the history says beyond the pointer's new state.
pub(super) struct NewMove<'a> {
    pub(super) id: MoveId,
    pub(super) from_version: Option<VersionId>,
    pub(super) reason: &'a str,
    pub(super) action: MoveAction,
    pub(super) proposal: Option<&'a str>,
}

/// The move that led to this state of the pointer. Its (pointer, revision) is
/// unique: were two writers ever to move at once, the second would fail here.
pub(super) async fn insert_move(
    connection: &mut AnyConnection,
    pointer: &Pointer,
    history: &NewMove<'_>,
) -> Result<(), DbError> {
    let pointer_id: PointerId = pointer.id;
    sqlx::query(
        "INSERT INTO moves
            (id, pointer_id, revision, from_version, to_version, actor, reason, moved_at, action, proposal)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
    )
    .bind(history.id.to_string())
    .bind(pointer_id.to_string())
    .bind(pointer.revision)
    .bind(history.from_version.map(|version| version.to_string()))
    .bind(pointer.version_id.to_string())
    .bind(pointer.moved_by.as_str())
    .bind(history.reason)
    .bind(pointer.moved_at)
    .bind(history.action.name())
    .bind(history.proposal)
    .execute(connection)
    .await?;
    Ok(())
}

pub(super) async fn moves_before(
    connection: &mut AnyConnection,
    project: ProjectId,
    kind: &str,
    name: &Name,
    label: &str,
    before: &(i64, i64, String),
    limit: i64,
) -> Rows<Move> {
    let rows = sqlx::query(
        "SELECT m.id, p.label, m.revision, f.number, t.number, m.actor, m.reason, m.moved_at, m.action, m.proposal
         FROM moves m JOIN pointers p ON p.id = m.pointer_id
         JOIN versions t ON t.id = m.to_version LEFT JOIN versions f ON f.id = m.from_version
         WHERE p.project = $1 AND p.kind = $2 AND p.name = $3 AND ($4 = '' OR p.label = $4)
           AND (m.moved_at, m.revision, m.id) < ($5, $6, $7)
         ORDER BY m.moved_at DESC, m.revision DESC, m.id DESC LIMIT $8",
    )
    .bind(project.to_string())
    .bind(kind)
    .bind(name.as_str())
    .bind(label)
    .bind(before.0)
    .bind(before.1)
    .bind(before.2.as_str())
    .bind(limit + 1)
    .fetch_all(connection)
    .await?;
    let moved = |row: &AnyRow| {
        Ok(Move {
            id: parsed(row, 0)?,
            label: row.try_get(1)?,
            revision: row.try_get(2)?,
            from: row.try_get(3)?,
            to: row.try_get(4)?,
            actor: row.try_get(5)?,
            reason: row.try_get(6)?,
            moved_at: row.try_get(7)?,
            action: parsed(row, 8)?,
            proposal: row.try_get(9)?,
        })
    };
    rows.iter().map(moved).collect()
}

pub(super) async fn version_index(
    connection: &mut AnyConnection,
    project: ProjectId,
    kind: &str,
) -> Rows<IndexRow> {
    // Two plain scans and no join: a planner without statistics, as right after an import,
    // joins ten thousand names with their versions row by row, for minutes.
    let deleted = sqlx::query(
        "SELECT name FROM names WHERE project = $1 AND kind = $2 AND deleted_at IS NOT NULL",
    )
    .bind(project.to_string())
    .bind(kind)
    .fetch_all(&mut *connection)
    .await?;
    let deleted: HashSet<Name> = deleted
        .iter()
        .map(|row| parsed(row, 0))
        .collect::<sqlx::Result<_>>()?;
    let rows = sqlx::query(
        "SELECT name, number, digest FROM versions WHERE project = $1 AND kind = $2 ORDER BY name, number",
    )
    .bind(project.to_string())
    .bind(kind)
    .fetch_all(connection)
    .await?;
    let indexed = |row: &AnyRow| {
        Ok(IndexRow {
            name: parsed(row, 0)?,
            number: row.try_get(1)?,
            digest: parsed(row, 2)?,
        })
    };
    let living = |row: &Result<IndexRow, DbError>| {
        !row.as_ref().is_ok_and(|row| deleted.contains(&row.name))
    };
    rows.iter().map(indexed).filter(living).collect()
}

pub(super) async fn pointer_index(
    connection: &mut AnyConnection,
    project: ProjectId,
    kind: &str,
) -> Rows<PointerIndexRow> {
    // As above: two scans, joined here.
    let versions =
        sqlx::query("SELECT id, number, digest FROM versions WHERE project = $1 AND kind = $2")
            .bind(project.to_string())
            .bind(kind)
            .fetch_all(&mut *connection)
            .await?;
    let mut targets: HashMap<String, (i64, Digest)> = HashMap::with_capacity(versions.len());
    for row in &versions {
        targets.insert(row.try_get(0)?, (row.try_get(1)?, parsed(row, 2)?));
    }
    let rows = sqlx::query(
        "SELECT name, label, version_id FROM pointers WHERE project = $1 AND kind = $2 AND removed = 0 ORDER BY name, label",
    )
    .bind(project.to_string())
    .bind(kind)
    .fetch_all(connection)
    .await?;
    let mut found = Vec::with_capacity(rows.len());
    for row in &rows {
        let version: String = row.try_get(2)?;
        let Some(&(number, digest)) = targets.get(&version) else {
            // A version that was saved and pointed to between the two reads: the next plan has it.
            continue;
        };
        found.push(PointerIndexRow {
            name: parsed(row, 0)?,
            label: row.try_get(1)?,
            number,
            digest,
        });
    }
    Ok(found)
}

pub(super) async fn documents(
    connection: &mut AnyConnection,
    project: ProjectId,
    digests: &[Digest],
) -> Result<HashMap<Digest, Value>, DbError> {
    let mut found = HashMap::with_capacity(digests.len());
    for digests in digests.chunks(MANY) {
        let text = format!(
            "SELECT digest, content FROM documents WHERE project = $1 AND digest IN ({})",
            places(2, digests.len())
        );
        let mut query = with_list(text).bind(project.to_string());
        for digest in digests {
            query = query.bind(digest.to_string());
        }
        for row in query.fetch_all(&mut *connection).await? {
            found.insert(parsed(&row, 0)?, json(&row, 1)?);
        }
    }
    Ok(found)
}
