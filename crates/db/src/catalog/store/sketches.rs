//! The SQL of sketches, by which near-duplicates are found.

use base::{Digest, ProjectId};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};

use super::{Rows, parsed, places, with_list};
use crate::DbError;
use crate::catalog::Name;

/// How many rows are compared at most: where thousands are alike, these will do.
const CANDIDATES: i64 = 100;

pub(in super::super) async fn insert_sketch(
    connection: &mut AnyConnection,
    project: ProjectId,
    kind: &str,
    digest: &Digest,
    signature: &str,
    buckets: &[i64],
) -> Result<(), DbError> {
    let id = sketch_id(project, kind, digest);
    let written = sqlx::query(
        "INSERT INTO sketches (project, kind, digest, id, signature) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT DO NOTHING",
    )
    .bind(project.to_string())
    .bind(kind)
    .bind(digest.to_string())
    .bind(id)
    .bind(signature)
    .execute(&mut *connection)
    .await?;
    if written.rows_affected() == 0 {
        return Ok(());
    }
    let mut text = "INSERT INTO sketch_buckets (bucket, sketch) VALUES ".to_owned();
    for index in 0..buckets.len() {
        let comma = if index == 0 { "" } else { ", " };
        text.push_str(&format!("{comma}(${}, $1)", index + 2));
    }
    text.push_str(" ON CONFLICT DO NOTHING");
    let mut query = with_list(text).bind(id);
    for bucket in buckets {
        query = query.bind(bucket);
    }
    query.execute(connection).await?;
    Ok(())
}

/// A short stand-in for project, kind and digest, because every bucket repeats it.
fn sketch_id(project: ProjectId, kind: &str, digest: &Digest) -> i64 {
    let whole = Digest::of(format!("{project}/{kind}/{digest}").as_bytes());
    let mut first = [0; 8];
    first.copy_from_slice(&whole.0[..8]);
    i64::from_be_bytes(first)
}

/// Name, number and signature of versions of other names that share a bucket. The joins are
/// CROSS, by which SQLite keeps their order: it would begin with every version there is.
pub(in super::super) async fn sketched(
    connection: &mut AnyConnection,
    project: ProjectId,
    kind: &str,
    buckets: &[i64],
    own_name: &str,
) -> Rows<(Name, i64, String)> {
    let text = format!(
        "SELECT DISTINCT v.name, v.number, s.signature
         FROM sketch_buckets b CROSS JOIN sketches s CROSS JOIN versions v CROSS JOIN names n
         WHERE b.bucket IN ({}) AND s.id = b.sketch AND s.project = $1 AND s.kind = $2
           AND v.project = s.project AND v.kind = s.kind AND v.digest = s.digest AND v.name <> $3
           AND n.project = v.project AND n.kind = v.kind AND n.name = v.name AND n.deleted_at IS NULL
         LIMIT {CANDIDATES}",
        places(4, buckets.len())
    );
    let mut query = with_list(text)
        .bind(project.to_string())
        .bind(kind)
        .bind(own_name);
    for bucket in buckets {
        query = query.bind(bucket);
    }
    let rows = query.fetch_all(connection).await?;
    let row = |row: &AnyRow| Ok((parsed(row, 0)?, row.try_get(1)?, row.try_get(2)?));
    rows.iter().map(row).collect()
}
