//! Why a statement failed, sorted by what the caller can do about it.

use std::fmt;

use sqlx::error::DatabaseError;

/// What kind of failure it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Another writer held the lock for too long, or the two blocked each
    /// other. Trying the whole transaction again is right.
    Busy,
    /// The row exists already.
    Duplicate,
    /// A row that this one refers to does not exist, or is still referred to.
    Reference,
    /// No space left on the database's disk.
    DiskFull,
    /// The database cannot be reached, read or written.
    Unavailable,
    /// A wrong statement or type: our own mistake.
    Internal,
}

/// A failed statement, with what was being done.
#[derive(Debug)]
pub struct DbError {
    /// What the caller can do about it.
    pub fault: Fault,
    source: sqlx::Error,
}

impl DbError {
    /// Whether doing the whole transaction again may succeed.
    pub fn is_busy(&self) -> bool {
        self.fault == Fault::Busy
    }
}

impl fmt::Display for DbError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.fault {
            Fault::Busy => "the metadata database is busy",
            Fault::Duplicate => "the metadata database has this row already",
            Fault::Reference => "a row of the metadata database refers to one that does not exist",
            Fault::DiskFull => "the metadata database's disk is full",
            Fault::Unavailable => "the metadata database is unavailable",
            Fault::Internal => "a statement on the metadata database failed",
        })
    }
}

impl std::error::Error for DbError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

impl From<sqlx::Error> for DbError {
    fn from(source: sqlx::Error) -> Self {
        Self {
            fault: fault_of(&source),
            source,
        }
    }
}

pub(crate) fn fault_of(error: &sqlx::Error) -> Fault {
    match error {
        sqlx::Error::PoolTimedOut => Fault::Busy,
        sqlx::Error::PoolClosed
        | sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::WorkerCrashed => Fault::Unavailable,
        sqlx::Error::Database(inner) => fault_of_database(inner.as_ref()),
        _ => Fault::Internal,
    }
}

fn fault_of_database(error: &dyn DatabaseError) -> Fault {
    if error.is_unique_violation() {
        return Fault::Duplicate;
    }
    if error.is_foreign_key_violation() {
        return Fault::Reference;
    }
    let code = error.code().unwrap_or_default();
    match code.parse::<i64>() {
        // SQLite's codes are numbers below 10,000 with the primary code in the low byte;
        // PostgreSQL's have five characters.
        Ok(number) if code.len() < 5 => fault_of_sqlite(number & 0xff),
        _ => fault_of_postgres(&code),
    }
}

fn fault_of_sqlite(primary_code: i64) -> Fault {
    match primary_code {
        5 | 6 => Fault::Busy,
        13 => Fault::DiskFull,
        8 | 10 | 11 | 14 | 26 => Fault::Unavailable,
        _ => Fault::Internal,
    }
}

fn fault_of_postgres(code: &str) -> Fault {
    match code {
        "40001" | "40P01" | "55P03" => Fault::Busy,
        "53100" => Fault::DiskFull,
        "25006" => Fault::Unavailable,
        _ if code.starts_with("08")
            || code.starts_with("3D")
            || code.starts_with("53")
            || code.starts_with("57") =>
        {
            Fault::Unavailable
        }
        _ => Fault::Internal,
    }
}
