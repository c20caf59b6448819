//! Small helpers that every feature's `store.rs` needs to read rows.

use std::str::FromStr;

use db::DbError;
use db::sqlx::any::AnyRow;
use db::sqlx::{self, Row as _};

/// An id or another value that is kept as text.
///
/// # Errors
/// The column is missing, or holds something that we never wrote.
pub fn id<T>(row: &AnyRow, column: &str) -> Result<T, DbError>
where
    T: FromStr,
    T::Err: std::error::Error + Send + Sync + 'static,
{
    let text: String = row.try_get(column)?;
    parse(column, &text)
}

/// As [`id`], for a column that may be NULL.
///
/// # Errors
/// As [`id`].
pub fn optional_id<T>(row: &AnyRow, column: &str) -> Result<Option<T>, DbError>
where
    T: FromStr,
    T::Err: std::error::Error + Send + Sync + 'static,
{
    let text: Option<String> = row.try_get(column)?;
    text.map(|text| parse(column, &text)).transpose()
}

fn parse<T>(column: &str, text: &str) -> Result<T, DbError>
where
    T: FromStr,
    T::Err: std::error::Error + Send + Sync + 'static,
{
    text.parse().map_err(|source: T::Err| {
        sqlx::Error::ColumnDecode {
            index: column.to_owned(),
            source: Box::new(source),
        }
        .into()
    })
}

impl From<DbError> for crate::error::AppError {
    fn from(error: DbError) -> Self {
        use crate::error::AppError;
        match error.fault {
            db::Fault::Busy | db::Fault::Unavailable | db::Fault::DiskFull => {
                AppError::unavailable(format!("{error}; nothing was changed")).because(error)
            }
            db::Fault::Duplicate => AppError::conflict("this exists already").because(error),
            db::Fault::Reference | db::Fault::Internal => AppError::internal(error),
        }
    }
}

impl From<sqlx::Error> for crate::error::AppError {
    fn from(error: sqlx::Error) -> Self {
        DbError::from(error).into()
    }
}
