//! Where the database is, and opening it: pools, SQLite's settings, and errors
//! that a person at a terminal can act on.
//!
//! SQLite gets a pool of one connection for writing and a pool for reading
//! whose connections refuse writes; PostgreSQL gets one pool for both.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use sqlx::any::{AnyConnectOptions, AnyPoolOptions};
use sqlx::{AnyConnection, AnyPool, Connection};
use url::Url;

use crate::migrate;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(20);
const SQLITE_READERS: u32 = 8;
const POSTGRES_CONNECTIONS: u32 = 16;

/// Which database, and where. Parsed from `sqlite:PATH`, `postgres://…` or
/// `postgresql://…`. Printing it leaves the password out.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseUrl(Place);

#[derive(Clone, PartialEq, Eq)]
enum Place {
    Sqlite(PathBuf),
    Postgres(Url),
}

/// The two databases. Only this crate asks which one it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    Sqlite,
    Postgres,
}

/// Why a database could not be opened. Every message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Not a database URL.
    #[error("{0:?} is not a database URL: write sqlite:PATH or postgres://USER@HOST/DATABASE")]
    BadUrl(String),
    /// The file cannot be created or written.
    #[error("cannot open the database file {}: {reason}; check that the folder exists and is writable", path.display())]
    Unwritable {
        /// The SQLite file.
        path: PathBuf,
        /// What the operating system or SQLite said.
        reason: String,
    },
    /// The file is something else, or damaged.
    #[error("{} is not a SQLite database or is damaged ({reason}); restore it from a back-up, or move it away to start empty", path.display())]
    Damaged {
        /// The SQLite file.
        path: PathBuf,
        /// What SQLite said.
        reason: String,
    },
    /// A newer release of the program has migrated this database.
    #[error(
        "{place} was written by a newer version of this program (it has migration {found}, this program knows up to {known}); install that version or newer"
    )]
    Newer {
        /// The database, without its password.
        place: String,
        /// The newest migration in the database.
        found: i64,
        /// The newest migration of this program.
        known: i64,
    },
    /// A migration that was applied has another text now.
    #[error(
        "migration {number} of {place} was applied with another text than this program has; this program is not a release, or the database is not ours"
    )]
    Changed {
        /// The database, without its password.
        place: String,
        /// The migration's number.
        number: i64,
    },
    /// PostgreSQL does not answer or refuses us.
    #[error("cannot connect to {place}: {reason}")]
    Unreachable {
        /// The database, without its password.
        place: String,
        /// What went wrong.
        reason: String,
    },
    /// Another process holds the database's lock.
    #[error("{place} is locked by another process; stop it and try again")]
    Locked {
        /// The database, without its password.
        place: String,
    },
    /// A migration failed; it was rolled back.
    #[error("migration {number} ({name}) of {place} failed and was rolled back: {reason}")]
    Migration {
        /// The database, without its password.
        place: String,
        /// The migration's number.
        number: i64,
        /// Its name.
        name: &'static str,
        /// What the database said.
        reason: String,
    },
}

impl DatabaseUrl {
    /// A SQLite database in this file.
    pub fn sqlite(path: impl Into<PathBuf>) -> Self {
        Self(Place::Sqlite(path.into()))
    }

    /// The file, when it is SQLite.
    pub fn sqlite_path(&self) -> Option<&Path> {
        match &self.0 {
            Place::Sqlite(path) => Some(path),
            Place::Postgres(_) => None,
        }
    }

    pub(crate) fn dialect(&self) -> Dialect {
        match &self.0 {
            Place::Sqlite(_) => Dialect::Sqlite,
            Place::Postgres(_) => Dialect::Postgres,
        }
    }

    fn options(&self) -> Result<AnyConnectOptions, OpenError> {
        let database_url = match &self.0 {
            Place::Sqlite(path) => sqlite_url(path)?,
            Place::Postgres(url) => url.clone(),
        };
        let bad = |_| OpenError::BadUrl(self.to_string());
        let options: AnyConnectOptions = database_url.as_str().parse().map_err(bad)?;
        // Statements carry no values, but a log line for each of them is noise even at debug level.
        Ok(sqlx::ConnectOptions::disable_statement_logging(options))
    }
}

impl FromStr for DatabaseUrl {
    type Err = OpenError;

    fn from_str(text: &str) -> Result<Self, OpenError> {
        // A wrong URL may hold a password: show the scheme only.
        let bad = || {
            OpenError::BadUrl(
                text.split(':')
                    .next()
                    .unwrap_or_default()
                    .chars()
                    .take(32)
                    .collect(),
            )
        };
        if let Some(rest) = text.strip_prefix("sqlite:") {
            let path = rest.strip_prefix("//").unwrap_or(rest);
            let unusable = path.is_empty() || path == ":memory:" || path.contains('?');
            return if unusable {
                Err(bad())
            } else {
                Ok(Self::sqlite(path))
            };
        }
        if !text.starts_with("postgres://") && !text.starts_with("postgresql://") {
            return Err(bad());
        }
        Url::parse(text)
            .map(|url| Self(Place::Postgres(url)))
            .map_err(|_| bad())
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Place::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
            Place::Postgres(url) => {
                let host = url.host_str().unwrap_or("localhost");
                write!(
                    f,
                    "postgres://{host}:{}{}",
                    url.port().unwrap_or(5432),
                    url.path()
                )
            }
        }
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn sqlite_url(path: &Path) -> Result<Url, OpenError> {
    let unwritable = |reason: String| OpenError::Unwritable {
        path: path.to_owned(),
        reason,
    };
    let absolute = std::path::absolute(path).map_err(|error| unwritable(error.to_string()))?;
    let file_url =
        Url::from_file_path(&absolute).map_err(|()| unwritable("not a usable path".to_owned()))?;
    // The pragmas cannot be in the URL: the driver refuses keys that it does not know.
    Url::parse(&format!("sqlite://{}?mode=rw", file_url.path()))
        .map_err(|error| unwritable(error.to_string()))
}

/// Creates the file before SQLite does, so that only its owner can read the
/// password hashes in it, and so that a failure has the system's own words.
fn create_private_file(path: &Path) -> Result<(), OpenError> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match options.open(path) {
        Ok(_) => Ok(()),
        Err(error) => Err(OpenError::Unwritable {
            path: path.to_owned(),
            reason: error.to_string(),
        }),
    }
}

pub(crate) struct Pools {
    pub(crate) read: AnyPool,
    pub(crate) write: AnyPool,
}

/// Opens the database, brings it to this program's version, and makes the pools.
pub(crate) async fn open(url: &DatabaseUrl, now_us: i64) -> Result<Pools, OpenError> {
    sqlx::any::install_default_drivers();
    if let Some(path) = url.sqlite_path() {
        create_private_file(path)?;
    }
    let options = url.options()?;
    // A pool would retry a refused connection until its time-out and then only say "timed out".
    let connecting = tokio::time::timeout(CONNECT_TIMEOUT, AnyConnection::connect_with(&options));
    let mut connection = match connecting.await {
        Ok(connected) => connected.map_err(|error| explain(url, &error))?,
        Err(_) => return Err(unreachable(url, "no answer within 15 seconds")),
    };
    prepare(&mut connection, url.dialect(), false)
        .await
        .map_err(|error| explain(url, &error))?;
    migrate::run(&mut connection, url, now_us).await?;
    connection
        .close()
        .await
        .map_err(|error| explain(url, &error))?;
    make_pools(url, options).await
}

async fn make_pools(url: &DatabaseUrl, options: AnyConnectOptions) -> Result<Pools, OpenError> {
    let dialect = url.dialect();
    let pool = |connections, read_only| {
        let options = options.clone();
        async move {
            pool_options(connections, dialect, read_only)
                .connect_with(options)
                .await
                .map_err(|error| explain(url, &error))
        }
    };
    match dialect {
        Dialect::Sqlite => Ok(Pools {
            write: pool(1, false).await?,
            read: pool(SQLITE_READERS, true).await?,
        }),
        Dialect::Postgres => {
            let both = pool(POSTGRES_CONNECTIONS, false).await?;
            Ok(Pools {
                read: both.clone(),
                write: both,
            })
        }
    }
}

fn pool_options(connections: u32, dialect: Dialect, read_only: bool) -> AnyPoolOptions {
    AnyPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .after_connect(move |connection, _| Box::pin(prepare(connection, dialect, read_only)))
}

async fn prepare(
    connection: &mut AnyConnection,
    dialect: Dialect,
    read_only: bool,
) -> sqlx::Result<()> {
    let script = match (dialect, read_only) {
        (Dialect::Postgres, _) => return Ok(()),
        // FULL: a commit that was acknowledged survives a power cut. NORMAL would not promise that in WAL mode.
        (Dialect::Sqlite, false) => {
            "PRAGMA busy_timeout = 5000; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON"
        }
        // A statement that writes through the read pool would wait for the writer in places where nobody expects it.
        (Dialect::Sqlite, true) => "PRAGMA busy_timeout = 5000; PRAGMA query_only = ON",
    };
    sqlx::raw_sql(script).execute(connection).await?;
    Ok(())
}

pub(crate) fn explain(url: &DatabaseUrl, error: &sqlx::Error) -> OpenError {
    let reason = match error {
        sqlx::Error::Database(inner) => inner.message().to_owned(),
        other => other.to_string(),
    };
    let Some(path) = url.sqlite_path() else {
        return unreachable(url, &reason);
    };
    let code = error
        .as_database_error()
        .and_then(|inner| inner.code()?.parse::<i64>().ok());
    match code.map(|code| code & 0xff) {
        Some(5 | 6) => OpenError::Locked {
            place: url.to_string(),
        },
        Some(11 | 26) => OpenError::Damaged {
            path: path.to_owned(),
            reason,
        },
        _ => OpenError::Unwritable {
            path: path.to_owned(),
            reason,
        },
    }
}

fn unreachable(url: &DatabaseUrl, reason: &str) -> OpenError {
    OpenError::Unreachable {
        place: url.to_string(),
        reason: reason.to_owned(),
    }
}
