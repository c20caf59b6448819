//! Reading rows: what the SQL of every part of this crate needs. A value that
//! cannot be read is reported with its column, never skipped.

use serde::de::DeserializeOwned;
use sqlx::Row as _;
use sqlx::any::AnyRow;

use crate::DbError;
use crate::catalog::Pointer;

/// A column whose text this program wrote in a form that it can read.
pub(crate) fn parsed<T>(row: &AnyRow, column: usize) -> sqlx::Result<T>
where
    T: std::str::FromStr,
    T::Err: std::error::Error + Send + Sync + 'static,
{
    let text: String = row.try_get(column)?;
    text.parse()
        .map_err(|source: T::Err| decode(column, source))
}

/// A column of JSON.
pub(crate) fn json<T: DeserializeOwned>(row: &AnyRow, column: usize) -> sqlx::Result<T> {
    let text: String = row.try_get(column)?;
    serde_json::from_str(&text).map_err(|source| decode(column, source))
}

fn decode(column: usize, source: impl std::error::Error + Send + Sync + 'static) -> sqlx::Error {
    sqlx::Error::ColumnDecode {
        index: column.to_string(),
        source: Box::new(source),
    }
}

/// A pointer, of a row that begins with `p.id, p.kind, p.name, p.label, v.number, v.id,
/// v.digest, p.revision, p.moved_by, p.moved_at`.
pub(crate) fn pointer_of_row(row: &AnyRow) -> Result<Pointer, DbError> {
    Ok(Pointer {
        id: parsed(row, 0)?,
        kind: row.try_get(1)?,
        name: parsed(row, 2)?,
        label: row.try_get(3)?,
        number: row.try_get(4)?,
        version_id: parsed(row, 5)?,
        digest: parsed(row, 6)?,
        revision: row.try_get(7)?,
        moved_by: row.try_get(8)?,
        moved_at: row.try_get(9)?,
    })
}
