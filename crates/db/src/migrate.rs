//! Brings a database to this program's version.
//!
//! All missing migrations run in one transaction under the write lock, so two
//! programs that start together apply each once, and a failed one leaves the
//! database as it was (DDL is transactional on both databases). sqlx's own
//! migrator is not used: it takes no lock on SQLite and commits one by one.

use base::Digest;
use sqlx::{AnyConnection, Connection, Row};

use crate::open::{DatabaseUrl, Dialect, OpenError, explain};

pub(crate) struct Migration {
    pub(crate) number: i64,
    pub(crate) name: &'static str,
    pub(crate) text: &'static str,
}

pub(crate) const MIGRATIONS: &[Migration] = &[
    Migration {
        number: 1,
        name: "core",
        text: include_str!("../migrations/0001_core.sql"),
    },
    Migration {
        number: 2,
        name: "catalog",
        text: include_str!("../migrations/0002_catalog.sql"),
    },
    Migration {
        number: 3,
        name: "promotion",
        text: include_str!("../migrations/0003_promotion.sql"),
    },
    Migration {
        number: 4,
        name: "experiments",
        text: include_str!("../migrations/0004_experiments.sql"),
    },
    Migration {
        number: 5,
        name: "registry_tags",
        text: include_str!("../migrations/0005_registry_tags.sql"),
    },
    Migration {
        number: 6,
        name: "evaluation",
        text: include_str!("../migrations/0006_evaluation.sql"),
    },
    Migration {
        number: 7,
        name: "review",
        text: include_str!("../migrations/0007_review.sql"),
    },
    Migration {
        number: 8,
        name: "improve",
        text: include_str!("../migrations/0008_improve.sql"),
    },
    Migration {
        number: 9,
        name: "live",
        text: include_str!("../migrations/0009_live.sql"),
    },
    Migration {
        number: 10,
        name: "dataset_runs",
        text: include_str!("../migrations/0010_dataset_runs.sql"),
    },
    Migration {
        number: 11,
        name: "choice",
        text: include_str!("../migrations/0011_choice.sql"),
    },
];

/// Which migrations were applied: the one table that no migration makes.
const TABLE: &str = "CREATE TABLE IF NOT EXISTS migrations (
    number BIGINT PRIMARY KEY, name TEXT NOT NULL, digest TEXT NOT NULL, applied_at BIGINT NOT NULL)";

/// The key of PostgreSQL's advisory lock for migrating: "meguri" and a number.
const MIGRATE_LOCK: i64 = 0x6d65_6775_7269_0001;

/// Applies what is missing. A database that is up to date is only read, so that
/// opening it does not wait for whoever is writing.
pub(crate) async fn run(
    connection: &mut AnyConnection,
    url: &DatabaseUrl,
    now_us: i64,
) -> Result<(), OpenError> {
    // An error means that there is no such table yet; anything worse comes again below.
    let applied = read_applied(connection).await.unwrap_or_default();
    check_applied(&applied, url)?;
    if applied.len() == MIGRATIONS.len() {
        return Ok(());
    }
    apply_missing(connection, url, now_us).await
}

async fn apply_missing(
    connection: &mut AnyConnection,
    url: &DatabaseUrl,
    now_us: i64,
) -> Result<(), OpenError> {
    let broken = |error: sqlx::Error| explain(url, &error);
    let begin = match url.dialect() {
        Dialect::Sqlite => "BEGIN IMMEDIATE",
        Dialect::Postgres => "BEGIN",
    };
    let mut tx = connection.begin_with(begin).await.map_err(broken)?;
    if url.dialect() == Dialect::Postgres {
        lock_postgres(&mut tx, MIGRATE_LOCK).await.map_err(broken)?;
    }
    sqlx::raw_sql(TABLE)
        .execute(&mut *tx)
        .await
        .map_err(broken)?;
    let applied = read_applied(&mut tx).await.map_err(broken)?;
    check_applied(&applied, url)?;
    for migration in MIGRATIONS
        .iter()
        .filter(|migration| !applied.iter().any(|(n, _)| *n == migration.number))
    {
        apply(&mut tx, migration, now_us)
            .await
            .map_err(|error| OpenError::Migration {
                place: url.to_string(),
                number: migration.number,
                name: migration.name,
                reason: error.to_string(),
            })?;
        tracing::info!(
            migration.number,
            migration.name,
            "applied migration {}",
            migration.name
        );
    }
    crate::audit::seal_rows_from_before(&mut tx)
        .await
        .map_err(broken)?;
    tx.commit().await.map_err(broken)
}

/// Waits for a lock that PostgreSQL releases when the transaction ends.
pub(crate) async fn lock_postgres(connection: &mut AnyConnection, key: i64) -> sqlx::Result<()> {
    // In the FROM clause, because the function's own result has the type void, which `Any` cannot decode.
    sqlx::query("SELECT 1 FROM pg_advisory_xact_lock($1)")
        .bind(key)
        .execute(connection)
        .await?;
    Ok(())
}

async fn read_applied(connection: &mut AnyConnection) -> sqlx::Result<Vec<(i64, String)>> {
    let rows = sqlx::query("SELECT number, digest FROM migrations ORDER BY number")
        .fetch_all(connection)
        .await?;
    rows.iter()
        .map(|row| Ok((row.try_get(0)?, row.try_get(1)?)))
        .collect()
}

fn check_applied(applied: &[(i64, String)], url: &DatabaseUrl) -> Result<(), OpenError> {
    let known = MIGRATIONS.last().map_or(0, |migration| migration.number);
    if let Some((found, _)) = applied.iter().rev().find(|(number, _)| *number > known) {
        return Err(OpenError::Newer {
            place: url.to_string(),
            found: *found,
            known,
        });
    }
    for (number, digest) in applied {
        let same = MIGRATIONS
            .iter()
            .any(|migration| migration.number == *number && digest_of(migration) == *digest);
        if !same {
            return Err(OpenError::Changed {
                place: url.to_string(),
                number: *number,
            });
        }
    }
    Ok(())
}

async fn apply(
    connection: &mut AnyConnection,
    migration: &Migration,
    now_us: i64,
) -> sqlx::Result<()> {
    sqlx::raw_sql(migration.text)
        .execute(&mut *connection)
        .await?;
    sqlx::query(
        "INSERT INTO migrations (number, name, digest, applied_at) VALUES ($1, $2, $3, $4)",
    )
    .bind(migration.number)
    .bind(migration.name)
    .bind(digest_of(migration))
    .bind(now_us)
    .execute(connection)
    .await?;
    Ok(())
}

fn digest_of(migration: &Migration) -> String {
    Digest::of(migration.text.as_bytes()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_the_folder_is_listed_in_order() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/migrations");
        let mut files: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        files.sort();
        let listed: Vec<String> = MIGRATIONS
            .iter()
            .map(|m| format!("{:04}_{}.sql", m.number, m.name))
            .collect();
        assert_eq!(files, listed);
    }
}
