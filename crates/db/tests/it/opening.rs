use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use db::{DatabaseUrl, Db, Fault, NewVersion, OpenError, PageRequest, sqlx};
use sqlx::Row;
use testkit::clock::FixedClock;
use tokio::task::JoinSet;

use crate::support::{Fixture, ids, on_both, open_with_real_time, prompt};

on_both!(
    programs_that_start_together_migrate_once,
    a_newer_database_is_refused_untouched,
    a_migration_with_another_text_is_refused,
    a_transaction_is_whole_or_nothing,
    writers_that_read_first_do_not_lose_updates,
    failures_say_what_the_caller_can_do,
    an_absent_number_does_not_spoil_the_next,
);

async fn open(url: &DatabaseUrl) -> Result<Db, OpenError> {
    let clock = FixedClock::new();
    tokio::time::timeout(
        Duration::from_secs(60),
        Db::open(url, ids(&clock), Arc::new(clock)),
    )
    .await
    .unwrap()
}

/// The texts of the migrations, in order.
fn migrations() -> Vec<String> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/migrations");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().path())
        .collect();
    files.sort();
    let read = |file| std::fs::read_to_string(file).unwrap();
    files.into_iter().map(read).collect()
}

/// Every table, each after those that it refers to.
fn tables(migrations: &[String]) -> Vec<String> {
    let mut tables = vec!["migrations".to_owned()];
    for line in migrations.iter().flat_map(|text| text.lines()) {
        if let Some(rest) = line.strip_prefix("CREATE TABLE ") {
            tables.push(rest.split([' ', '(']).next().unwrap().to_owned());
        }
    }
    tables
}

async fn an_absent_number_does_not_spoil_the_next(f: Fixture) {
    let mut tx = f.db.begin_write().await.unwrap();
    sqlx::raw_sql("CREATE TABLE measured (place BIGINT, value DOUBLE PRECISION)")
        .execute(tx.conn())
        .await
        .unwrap();
    let values = [None, Some(0.1), None, Some(f64::MAX)];
    for (place, value) in (0_i64..).zip(values) {
        sqlx::query("INSERT INTO measured (place, value) VALUES ($1, $2)")
            .bind(place)
            .bind(db::Real(value))
            .execute(tx.conn())
            .await
            .unwrap();
    }
    let rows = sqlx::query("SELECT value FROM measured ORDER BY place")
        .fetch_all(tx.conn())
        .await
        .unwrap();
    let read: Vec<Option<f64>> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(read, values);
}

async fn programs_that_start_together_migrate_once(f: Fixture) {
    // From nothing again, on the database that the fixture has filled.
    let migrations = migrations();
    let mut tx = f.db.begin_write().await.unwrap();
    for table in tables(&migrations).iter().rev() {
        sqlx::raw_sql(sqlx::AssertSqlSafe(format!("DROP TABLE {table}")))
            .execute(tx.conn())
            .await
            .unwrap();
    }
    tx.commit().await.unwrap();
    f.db.close().await;

    let mut programs = JoinSet::new();
    for _ in 0..4 {
        let url = f.url.clone();
        programs.spawn(async move { open(&url).await.unwrap() });
    }
    for db in programs.join_all().await {
        let row = sqlx::query("SELECT COUNT(*) FROM migrations")
            .fetch_one(db.read())
            .await
            .unwrap();
        assert_eq!(row.get::<i64, _>(0), migrations.len() as i64);
        assert_eq!(db.plan_revision().await.unwrap(), 1);
    }
}

async fn a_newer_database_is_refused_untouched(f: Fixture) {
    write(
        &f.db,
        "INSERT INTO migrations (number, name, digest, applied_at) VALUES (9999, 'future', 'x', 0)",
    )
    .await;
    let refused = open(&f.url).await.unwrap_err();
    assert!(
        matches!(refused, OpenError::Newer { found: 9999, .. }),
        "{refused}"
    );
    assert!(
        refused
            .to_string()
            .contains("newer version of this program"),
        "{refused}"
    );
}

async fn a_migration_with_another_text_is_refused(f: Fixture) {
    write(
        &f.db,
        "UPDATE migrations SET digest = 'sha256:other' WHERE number = 1",
    )
    .await;
    let refused = open(&f.url).await.unwrap_err();
    assert!(
        matches!(refused, OpenError::Changed { number: 1, .. }),
        "{refused}"
    );
}

async fn write(db: &Db, statement: &'static str) {
    let mut tx = db.begin_write().await.unwrap();
    sqlx::query(statement).execute(tx.conn()).await.unwrap();
    tx.commit().await.unwrap();
}

async fn setting(db: &Db, name: &str) -> Option<String> {
    let query = sqlx::query("SELECT value FROM settings WHERE name = $1").bind(name.to_owned());
    query
        .fetch_optional(db.read())
        .await
        .unwrap()
        .map(|row| row.get(0))
}

async fn a_transaction_is_whole_or_nothing(f: Fixture) {
    let insert =
        "INSERT INTO settings (name, value, updated_by, updated_at) VALUES ('a', '1', 'x', 0)";
    let mut tx = f.db.begin_write().await.unwrap();
    sqlx::query(insert).execute(tx.conn()).await.unwrap();
    tx.rollback().await.unwrap();
    assert_eq!(setting(&f.db, "a").await, None);
    write(&f.db, insert).await;
    assert_eq!(setting(&f.db, "a").await.as_deref(), Some("1"));
}

/// Read, add one, write: the classic lost update, from two handles at once.
async fn writers_that_read_first_do_not_lose_updates(f: Fixture) {
    write(
        &f.db,
        "INSERT INTO settings (name, value, updated_by, updated_at) VALUES ('n', '', '', 0)",
    )
    .await;
    let second = f.second().await;
    let mut writers = JoinSet::new();
    for writer in 0..8 {
        let db = if writer % 2 == 0 {
            f.db.clone()
        } else {
            second.clone()
        };
        writers.spawn(async move {
            for _ in 0..10 {
                add_one(&db).await;
            }
        });
    }
    writers.join_all().await;
    let row = sqlx::query("SELECT updated_at FROM settings WHERE name = 'n'")
        .fetch_one(f.db.read())
        .await
        .unwrap();
    assert_eq!(row.get::<i64, _>(0), 80);
}

async fn add_one(db: &Db) {
    let mut tx = db.begin_write().await.unwrap();
    tx.serialise().await.unwrap();
    let row = sqlx::query("SELECT updated_at FROM settings WHERE name = 'n'")
        .fetch_one(tx.conn())
        .await
        .unwrap();
    let next = row.get::<i64, _>(0) + 1;
    let update = sqlx::query("UPDATE settings SET updated_at = $1 WHERE name = 'n'").bind(next);
    update.execute(tx.conn()).await.unwrap();
    tx.commit().await.unwrap();
}

async fn failures_say_what_the_caller_can_do(f: Fixture) {
    let fault = async |statement: &'static str| {
        let mut tx = f.db.begin_write().await.unwrap();
        let failed = sqlx::query(statement).execute(tx.conn()).await.unwrap_err();
        db::DbError::from(failed).fault
    };
    let twice = "INSERT INTO projects (id, name, created_at) VALUES ('x', 'default', 0)";
    assert_eq!(fault(twice).await, Fault::Duplicate);
    let orphan = "INSERT INTO environments (project, name, position, created_at) VALUES ('nobody', 'dev', 0, 0)";
    assert_eq!(fault(orphan).await, Fault::Reference);
    assert_eq!(fault("SELECT nonsense FROM nowhere").await, Fault::Internal);
}

#[tokio::test]
async fn sqlite_is_durable_private_and_read_only_for_readers() {
    let f = Fixture::sqlite().await;
    let pragma = async |name: &'static str| -> String {
        let mut tx = f.db.begin_write().await.unwrap();
        let row = sqlx::query(name).fetch_one(tx.conn()).await.unwrap();
        row.try_get::<String, _>(0)
            .unwrap_or_else(|_| row.get::<i64, _>(0).to_string())
    };
    assert_eq!(pragma("PRAGMA journal_mode").await, "wal");
    assert_eq!(pragma("PRAGMA synchronous").await, "2", "FULL");
    assert_eq!(pragma("PRAGMA foreign_keys").await, "1");
    let refused = sqlx::query("DELETE FROM settings")
        .execute(f.db.read())
        .await
        .unwrap_err();
    assert!(refused.to_string().contains("readonly"), "{refused}");

    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(f.url.sqlite_path().unwrap())
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn a_full_disk_is_named_and_loses_nothing() {
    let f = Fixture::sqlite().await;
    let fill = async |value: String| {
        let mut tx = f.db.begin_write().await?;
        sqlx::query(
            "INSERT INTO settings (name, value, updated_by, updated_at) VALUES ($1, $1, 'x', 0)",
        )
        .bind(value)
        .execute(tx.conn())
        .await?;
        tx.commit().await
    };
    fill("before".to_owned()).await.unwrap();
    let mut tx = f.db.begin_write().await.unwrap();
    let pages = sqlx::query("PRAGMA page_count")
        .fetch_one(tx.conn())
        .await
        .unwrap()
        .get::<i64, _>(0);
    assert!(pages < 200, "{pages}");
    sqlx::query("PRAGMA max_page_count = 200")
        .execute(tx.conn())
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let refused = fill("x".repeat(2_000_000)).await.unwrap_err();
    assert_eq!(refused.fault, Fault::DiskFull);
    assert_eq!(refused.to_string(), "the metadata database's disk is full");
    assert_eq!(setting(&f.db, "before").await.as_deref(), Some("before"));
    fill("after".to_owned()).await.unwrap();
}

#[tokio::test]
async fn a_postgres_connection_that_breaks_is_replaced() {
    let f = Fixture::postgres().await;
    let mut tx = f.db.begin_write().await.unwrap();
    // The row may still arrive before the connection ends; what comes next cannot succeed.
    let _ =
        sqlx::query("SELECT CASE WHEN pg_terminate_backend(pg_backend_pid()) THEN 1 ELSE 0 END")
            .fetch_one(tx.conn())
            .await;
    let killed = sqlx::query("DELETE FROM settings")
        .execute(tx.conn())
        .await
        .unwrap_err();
    assert_eq!(db::DbError::from(killed).fault, Fault::Unavailable);
    drop(tx);
    write(
        &f.db,
        "INSERT INTO settings (name, value, updated_by, updated_at) VALUES ('a', '1', 'x', 0)",
    )
    .await;
    assert_eq!(setting(&f.db, "a").await.as_deref(), Some("1"));
}

#[tokio::test]
async fn files_that_cannot_be_opened_say_why() {
    let folder = tempfile::tempdir().unwrap();
    let check = async |url: DatabaseUrl, says: &str| {
        let refused = open(&url).await.unwrap_err().to_string();
        assert!(refused.contains(says), "{refused}");
    };
    let garbage = folder.path().join("garbage.db");
    std::fs::write(
        &garbage,
        "this is no database, but it is long enough to have a header".repeat(20),
    )
    .unwrap();
    check(
        DatabaseUrl::sqlite(&garbage),
        "not a SQLite database or is damaged",
    )
    .await;
    check(DatabaseUrl::sqlite(folder.path()), "Is a directory").await;
    check(
        DatabaseUrl::sqlite(folder.path().join("no/such/folder.db")),
        "check that the folder exists",
    )
    .await;
    // Even root cannot write there.
    check(
        DatabaseUrl::sqlite("/proc/meta.db"),
        "cannot open the database file /proc/meta.db",
    )
    .await;
}

#[tokio::test]
async fn a_damaged_page_is_refused() {
    let f = Fixture::sqlite().await;
    f.db.close().await;
    let path = f.url.sqlite_path().unwrap();
    let mut bytes = std::fs::read(path).unwrap();
    bytes[100..4096].fill(0xff);
    std::fs::write(path, bytes).unwrap();
    let refused = open(&f.url).await.unwrap_err();
    assert!(matches!(refused, OpenError::Damaged { .. }), "{refused}");
}

#[tokio::test]
async fn opening_does_not_wait_for_a_writer() {
    let f = Fixture::sqlite().await;
    let held = f.db.begin_write().await.unwrap();
    assert_eq!(f.second().await.plan_revision().await.unwrap(), 1);
    drop(held);
}

#[tokio::test]
async fn slow_a_file_locked_by_another_program_is_an_error_and_not_a_hang() {
    use sqlx::Connection;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("meta.db");
    sqlx::any::install_default_drivers();
    let url = format!("sqlite://{}?mode=rwc", path.display());
    let mut other = sqlx::AnyConnection::connect(&url).await.unwrap();
    sqlx::raw_sql("BEGIN EXCLUSIVE; CREATE TABLE t (x TEXT)")
        .execute(&mut other)
        .await
        .unwrap();
    let refused = open(&DatabaseUrl::sqlite(&path)).await.unwrap_err();
    assert!(matches!(refused, OpenError::Locked { .. }), "{refused}");
    sqlx::raw_sql("ROLLBACK").execute(&mut other).await.unwrap();
    open(&DatabaseUrl::sqlite(&path)).await.unwrap();
}

#[tokio::test]
async fn a_postgres_that_is_not_there_is_named_without_its_password() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let url: DatabaseUrl = format!("postgres://me:hunter2@127.0.0.1:{port}/x")
        .parse()
        .unwrap();
    let refused = open(&url).await.unwrap_err();
    let text = refused.to_string();
    assert!(
        text.starts_with(&format!(
            "cannot connect to postgres://127.0.0.1:{port}/x: "
        )),
        "{text}"
    );
    assert!(!format!("{text}{refused:?}{url:?}").contains("hunter2"));
}

#[test]
fn urls_are_parsed_or_refused_without_showing_a_password() {
    let check = |text: &str| {
        text.parse::<DatabaseUrl>()
            .map(|url| url.to_string())
            .map_err(|error| error.to_string())
    };
    assert_eq!(check("sqlite:data/meta.db").unwrap(), "sqlite:data/meta.db");
    assert_eq!(
        check("sqlite:///var/meta.db").unwrap(),
        "sqlite:/var/meta.db"
    );
    assert_eq!(
        check("postgresql://u:p@db.example/meguri").unwrap(),
        "postgres://db.example:5432/meguri"
    );
    for bad in [
        "",
        "meta.db",
        "mysql://u:hunter2@h/d",
        "sqlite:",
        "sqlite::memory:",
        "postgres://u:hunter2@:x/",
    ] {
        let refused = check(bad).unwrap_err();
        assert!(
            refused.contains("is not a database URL") && !refused.contains("hunter2"),
            "{refused}"
        );
    }
}

/// The child saves versions and prints each number once it is acknowledged; the
/// parent kills it at some point and finds all of them.
#[test]
fn acknowledged_versions_survive_sigkill() {
    const CHILD: &str = "DB_TEST_SAVE_UNTIL_KILLED";
    let runtime = tokio::runtime::Runtime::new().unwrap();
    if let Some(path) = std::env::var_os(CHILD) {
        runtime.block_on(save_until_killed(&DatabaseUrl::sqlite(path)));
        return;
    }
    let f = runtime.block_on(Fixture::sqlite());
    let path = f.url.sqlite_path().unwrap().to_owned();
    for round in 0..3_u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "opening::acknowledged_versions_survive_sigkill",
                "--nocapture",
            ])
            .env(CHILD, &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let acknowledged = read_then_kill(&mut child, 20 + round * 7);
        let at = "a".parse().unwrap();
        let page = PageRequest {
            cursor: None,
            limit: 1,
        };
        let db = runtime.block_on(open(&f.url)).unwrap();
        let catalog = db::Catalog::new(db, f.catalog.kinds().clone());
        let newest = runtime
            .block_on(catalog.list_versions(f.scope, "prompt", &at, &page))
            .unwrap();
        assert!(
            newest.items[0].number >= acknowledged,
            "{acknowledged} was acknowledged"
        );
    }
}

fn read_then_kill(child: &mut std::process::Child, lines: u64) -> i64 {
    use std::io::BufRead;
    let mut last = 0;
    let mut seen = 0;
    for line in std::io::BufReader::new(child.stdout.take().unwrap()).lines() {
        let Some(number) = line
            .unwrap()
            .strip_prefix("saved ")
            .map(|n| n.parse().unwrap())
        else {
            continue;
        };
        last = number;
        seen += 1;
        if seen == lines {
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    assert!(seen >= lines, "the child ended by itself");
    last
}

async fn save_until_killed(url: &DatabaseUrl) {
    let db = open_with_real_time(url).await;
    let row = sqlx::query("SELECT id FROM projects WHERE name = 'default'")
        .fetch_one(db.read())
        .await
        .unwrap();
    let scope = db::Scope {
        project: row.get::<String, _>(0).parse().unwrap(),
        actor: db::Actor::System,
    };
    let note = db::Kind::new("prompt", || true.into(), |_| Ok(()));
    let catalog = db::Catalog::new(db, db::Kinds::new([note]));
    let at = "a".parse().unwrap();
    for n in 0.. {
        let content = prompt(&format!("{}/{n}", std::process::id()));
        let new = NewVersion {
            kind: "prompt",
            name: &at,
            content: &content,
            message: "",
        };
        let saved = catalog.save_version(scope, new).await.unwrap();
        println!("saved {}", saved.version.number);
    }
}
