//! An opened database with two projects, on either engine.

use std::sync::Arc;

use base::{Ids, ProjectId, SystemClock, SystemRandom};
use db::{Actor, Catalog, DatabaseUrl, Db, Kind, Kinds, Problem, Scope, sqlx};
use serde_json::{Value, json};
use testkit::clock::FixedClock;
use testkit::postgres::TestDatabase;

/// Runs each story on both databases, as two tests.
macro_rules! on_both {
    ($($story:ident),* $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
            async fn $story() {
                super::$story(crate::support::Fixture::sqlite().await).await;
            })*
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
            async fn $story() {
                super::$story(crate::support::Fixture::postgres().await).await;
            })*
        }
    };
}
pub(crate) use on_both;

#[expect(dead_code, reason = "held for what happens when they are dropped")]
enum Keep {
    Folder(tempfile::TempDir),
    Database(TestDatabase),
}

pub(crate) struct Fixture {
    /// With the password and all, for a child process.
    pub(crate) url_text: String,
    pub(crate) url: DatabaseUrl,
    pub(crate) clock: FixedClock,
    pub(crate) db: Db,
    pub(crate) catalog: Catalog,
    pub(crate) scope: Scope,
    pub(crate) other: Scope,
    _keep: Keep,
}

impl Fixture {
    pub(crate) async fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("meta data#%20.db");
        Self::with(format!("sqlite:{}", path.display()), Keep::Folder(folder)).await
    }

    pub(crate) async fn postgres() -> Self {
        let database = tokio::task::spawn_blocking(TestDatabase::new)
            .await
            .unwrap();
        Self::with(database.url.clone(), Keep::Database(database)).await
    }

    async fn with(url_text: String, keep: Keep) -> Self {
        let url: DatabaseUrl = url_text.parse().unwrap();
        let clock = FixedClock::new();
        let db = open(&url, &clock).await;
        let scope = Scope {
            project: add_project(&db, "default").await,
            actor: Actor::Operator,
        };
        let other = Scope {
            project: add_project(&db, "other").await,
            actor: Actor::System,
        };
        let catalog = Catalog::new(db.clone(), kinds());
        Self {
            url_text,
            url,
            clock,
            db,
            catalog,
            scope,
            other,
            _keep: keep,
        }
    }

    /// A second handle with its own connections, as another process has.
    pub(crate) async fn second(&self) -> Db {
        open(&self.url, &self.clock).await
    }
}

/// The database as a program has it, with the real time.
pub(crate) async fn open_with_real_time(url: &DatabaseUrl) -> Db {
    let ids = Ids::new(Arc::new(SystemClock), Arc::new(SystemRandom));
    Db::open(url, ids, Arc::new(SystemClock)).await.unwrap()
}

async fn open(url: &DatabaseUrl, clock: &FixedClock) -> Db {
    Db::open(url, ids(clock), Arc::new(clock.clone()))
        .await
        .unwrap()
}

pub(crate) fn ids(clock: &FixedClock) -> Ids {
    Ids::new(Arc::new(clock.clone()), Arc::new(SystemRandom))
}

async fn add_project(db: &Db, name: &str) -> ProjectId {
    let id: ProjectId = db.ids().make();
    let mut tx = db.begin_write().await.unwrap();
    sqlx::query("INSERT INTO projects (id, name, created_at) VALUES ($1, $2, $3)")
        .bind(id.to_string())
        .bind(name)
        .bind(db.now_us())
        .execute(tx.conn())
        .await
        .unwrap();
    tx.commit().await.unwrap();
    id
}

fn kinds() -> Kinds {
    Kinds::new([
        Kind::new("prompt", || json!({ "type": "object" }), check_prompt),
        Kind::new("note", || json!(true), |_| Ok(())),
    ])
}

fn check_prompt(content: &Value) -> Result<(), Vec<Problem>> {
    let mut problems = Vec::new();
    if !content["text"].is_string() {
        problems.push(Problem::new("/text", "must be a text"));
    }
    if content.get("surprise").is_some() {
        problems.push(Problem::new("/surprise", "is not a field of a prompt"));
    }
    if problems.is_empty() {
        Ok(())
    } else {
        Err(problems)
    }
}

pub(crate) fn prompt(text: &str) -> Value {
    json!({ "text": text })
}
