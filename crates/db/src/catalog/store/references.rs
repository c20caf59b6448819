//! The SQL of references.

use base::{Digest, ProjectId};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};

use super::{Rows, parsed};
use crate::DbError;
use crate::catalog::{Dependent, Name, Reference};

pub(in super::super) async fn insert_reference(
    connection: &mut AnyConnection,
    project: ProjectId,
    kind: &str,
    digest: &Digest,
    reference: &Reference,
) -> Result<(), DbError> {
    sqlx::query(
        "INSERT INTO document_references (project, kind, digest, path, to_kind, to_name, selector)
         VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING",
    )
    .bind(project.to_string())
    .bind(kind)
    .bind(digest.to_string())
    .bind(reference.path.as_str())
    .bind(reference.kind.as_str())
    .bind(reference.name.as_str())
    .bind(reference.selector.to_string())
    .execute(connection)
    .await?;
    Ok(())
}

/// What a document refers to, in the order of the places.
pub(in super::super) async fn references(
    connection: &mut AnyConnection,
    project: ProjectId,
    kind: &str,
    digest: &Digest,
) -> Rows<Reference> {
    let rows = sqlx::query(
        "SELECT path, to_kind, to_name, selector FROM document_references
         WHERE project = $1 AND kind = $2 AND digest = $3 ORDER BY path, to_kind, to_name, selector",
    )
    .bind(project.to_string())
    .bind(kind)
    .bind(digest.to_string())
    .fetch_all(connection)
    .await?;
    let reference = |row: &AnyRow| {
        Ok(Reference {
            path: row.try_get(0)?,
            kind: row.try_get(1)?,
            name: parsed(row, 2)?,
            selector: parsed(row, 3)?,
        })
    };
    rows.iter().map(reference).collect()
}

/// The documents in use that refer to a name.
pub(in super::super) async fn dependents(
    connection: &mut AnyConnection,
    project: ProjectId,
    kind: &str,
    name: &Name,
) -> Rows<Dependent> {
    let rows = sqlx::query(
        "SELECT r.kind, v.name, v.number, CASE WHEN v.number = n.latest THEN 1 ELSE 0 END,
            r.path, r.selector, p.label
         FROM document_references r
         JOIN versions v ON v.project = r.project AND v.kind = r.kind AND v.digest = r.digest
         JOIN names n ON n.project = v.project AND n.kind = v.kind AND n.name = v.name
         LEFT JOIN pointers p ON p.version_id = v.id AND p.removed = 0
         WHERE r.project = $1 AND r.to_kind = $2 AND r.to_name = $3 AND n.deleted_at IS NULL
           AND (v.number = n.latest OR p.id IS NOT NULL)
         ORDER BY r.kind, v.name, v.number, r.path, r.selector, p.label",
    )
    .bind(project.to_string())
    .bind(kind)
    .bind(name.as_str())
    .fetch_all(connection)
    .await?;
    let mut found: Vec<Dependent> = Vec::new();
    for row in &rows {
        let label: Option<String> = row.try_get(6)?;
        let selector: String = row.try_get(5)?;
        let dependent = Dependent {
            kind: row.try_get(0)?,
            name: parsed(row, 1)?,
            number: row.try_get(2)?,
            is_latest: row.try_get::<i64, _>(3)? != 0,
            labels: label.iter().cloned().collect(),
            path: row.try_get(4)?,
            reference: format!("{kind}:{name}@{selector}"),
        };
        match found.last_mut() {
            // One row for each label: the same place of the same version again.
            Some(last) if is_same_place(last, &dependent) => last.labels.extend(label),
            _ => found.push(dependent),
        }
    }
    Ok(found)
}

fn is_same_place(a: &Dependent, b: &Dependent) -> bool {
    (&a.kind, &a.name, a.number, &a.path, &a.reference)
        == (&b.kind, &b.name, b.number, &b.path, &b.reference)
}
