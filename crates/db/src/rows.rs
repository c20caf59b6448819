//! Reading rows: what the SQL of every `store.rs` needs. A value that cannot be read is
//! reported with its column, never skipped: each was written by this program.

use std::fmt::Display;

use serde::de::DeserializeOwned;
use sqlx::any::AnyRow;
use sqlx::{ColumnIndex, Row as _};

use crate::DbError;
use crate::catalog::Pointer;

/// A column whose text this program wrote in a form that it can read, such as an id.
///
/// # Errors
/// The column is missing, or holds something that we never wrote.
pub fn parsed<T>(row: &AnyRow, column: impl ColumnIndex<AnyRow> + Display) -> sqlx::Result<T>
where
    T: std::str::FromStr,
    T::Err: std::error::Error + Send + Sync + 'static,
{
    let text: String = row.try_get(&column)?;
    text.parse()
        .map_err(|source: T::Err| decode(&column, source))
}

/// As [`parsed`], for a column that may be NULL.
///
/// # Errors
/// As [`parsed`].
pub fn optional_parsed<T>(
    row: &AnyRow,
    column: impl ColumnIndex<AnyRow> + Display,
) -> sqlx::Result<Option<T>>
where
    T: std::str::FromStr,
    T::Err: std::error::Error + Send + Sync + 'static,
{
    let text: Option<String> = row.try_get(&column)?;
    text.map(|text| {
        text.parse()
            .map_err(|source: T::Err| decode(&column, source))
    })
    .transpose()
}

/// A column of JSON.
///
/// # Errors
/// The column is missing, or holds something that we never wrote.
pub fn json<T: DeserializeOwned>(
    row: &AnyRow,
    column: impl ColumnIndex<AnyRow> + Display,
) -> sqlx::Result<T> {
    let text: String = row.try_get(&column)?;
    serde_json::from_str(&text).map_err(|source| decode(&column, source))
}

/// As [`json`], for a column that may be NULL.
///
/// # Errors
/// As [`json`].
pub fn optional_json<T: DeserializeOwned>(
    row: &AnyRow,
    column: impl ColumnIndex<AnyRow> + Display,
) -> sqlx::Result<Option<T>> {
    let text: Option<String> = row.try_get(&column)?;
    text.map(|text| serde_json::from_str(&text).map_err(|source| decode(&column, source)))
        .transpose()
}

/// A column that is 0 or 1: neither database's booleans can be read by both.
///
/// # Errors
/// The column is missing, or holds no number.
pub fn flag(row: &AnyRow, column: impl ColumnIndex<AnyRow>) -> sqlx::Result<bool> {
    Ok(row.try_get::<i64, _>(column)? != 0)
}

fn decode(
    column: &dyn Display,
    source: impl std::error::Error + Send + Sync + 'static,
) -> sqlx::Error {
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
