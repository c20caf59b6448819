//! What the database's errors are to a caller.

use db::{DbError, sqlx};

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
