//! The open database: reading, writing, and the plan's revision.
//!
//! Writing is one transaction at a time on SQLite (`BEGIN IMMEDIATE` on the
//! only writing connection). On PostgreSQL transactions run side by side under
//! READ COMMITTED, so a check followed by a write must be one guarded statement
//! or a constraint, or stand behind [`WriteTx::serialise`].

use std::fmt;
use std::sync::Arc;

use base::{Clock, Ids};
use sqlx::{Any, AnyConnection, AnyPool, Row, Transaction};
use tokio::sync::Notify;

use crate::error::DbError;
use crate::migrate::lock_postgres;
use crate::open::{self, DatabaseUrl, Dialect, OpenError};

/// "meguri" and a number: the advisory lock that [`WriteTx::serialise`] takes.
const SERIALISE_LOCK: i64 = 0x6d65_6775_7269_0002;

/// The open metadata database. Clones share it.
#[derive(Clone)]
pub struct Db {
    shared: Arc<Shared>,
}

struct Shared {
    dialect: Dialect,
    read: AnyPool,
    write: AnyPool,
    ids: Ids,
    clock: Arc<dyn Clock>,
    jobs_added: Notify,
}

impl fmt::Debug for Db {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Db({:?})", self.shared.dialect)
    }
}

impl Db {
    /// Opens the database and applies missing migrations.
    ///
    /// # Errors
    /// [`OpenError`], in words for the person who starts the program.
    pub async fn open(
        url: &DatabaseUrl,
        ids: Ids,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, OpenError> {
        let pools = open::open(url, clock.now_us()).await?;
        let shared = Shared {
            dialect: url.dialect(),
            read: pools.read,
            write: pools.write,
            ids,
            clock,
            jobs_added: Notify::new(),
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// What single statements that only read run on: `query(..).fetch_all(db.read())`.
    pub fn read(&self) -> &AnyPool {
        &self.shared.read
    }

    /// Starts a transaction that may write. It rolls back unless it is committed.
    ///
    /// # Errors
    /// [`Fault::Busy`](crate::Fault::Busy) after about 20 seconds without a turn.
    pub async fn begin_write(&self) -> Result<WriteTx, DbError> {
        let tx = match self.shared.dialect {
            Dialect::Sqlite => self.begin_immediate().await?,
            Dialect::Postgres => self.shared.write.begin().await?,
        };
        Ok(WriteTx {
            tx,
            db: self.clone(),
            adds_jobs: false,
        })
    }

    /// IMMEDIATE, because a transaction that reads first and then finds that another process
    /// (the command line) has written fails at once, whatever the busy time-out.
    async fn begin_immediate(&self) -> sqlx::Result<Transaction<'static, Any>> {
        let write = &self.shared.write;
        match write.begin_with("BEGIN IMMEDIATE").await {
            // SQLite rolls back by itself when the disk is full or fails. The driver (sqlx 0.9) then
            // fails to roll back and counts a transaction that is not there for ever after: without
            // a new connection, one full disk would end all writing.
            Err(sqlx::Error::InvalidSavePointStatement) => {
                write.acquire().await?.close().await?;
                write.begin_with("BEGIN IMMEDIATE").await
            }
            begun => begun,
        }
    }

    /// How often what gateways execute has changed. Cheap: one row by its key.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn plan_revision(&self) -> Result<i64, DbError> {
        let row = sqlx::query("SELECT revision FROM plan_revision WHERE id = 1")
            .fetch_one(self.read())
            .await?;
        Ok(row.try_get(0)?)
    }

    /// Counts a change of the plan; call it in the transaction that makes the change.
    /// Returns the new revision.
    ///
    /// # Errors
    /// The statement failed; the transaction cannot be used further.
    pub async fn bump_plan(&self, tx: &mut WriteTx) -> Result<i64, DbError> {
        tx.bump_plan().await
    }

    /// The injected clock.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.shared.clock
    }

    /// Now, in microseconds since the epoch.
    pub fn now_us(&self) -> i64 {
        self.shared.clock.now_us()
    }

    /// The injected id maker.
    pub fn ids(&self) -> &Ids {
        &self.shared.ids
    }

    /// Closes every connection. SQLite then folds its write-ahead log into the file.
    pub async fn close(&self) {
        self.shared.read.close().await;
        self.shared.write.close().await;
    }

    pub(crate) fn jobs_added(&self) -> &Notify {
        &self.shared.jobs_added
    }
}

/// A transaction that may write. Dropping it rolls back. It dereferences to the
/// connection: `query(..).execute(tx.conn())`.
pub struct WriteTx {
    tx: Transaction<'static, Any>,
    db: Db,
    adds_jobs: bool,
}

impl fmt::Debug for WriteTx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WriteTx")
    }
}

impl WriteTx {
    /// The connection to run statements on; reads see what the transaction wrote.
    pub fn conn(&mut self) -> &mut AnyConnection {
        &mut self.tx
    }

    /// The database that this is a transaction of.
    pub fn db(&self) -> &Db {
        &self.db
    }

    /// Waits until no other transaction is past this point, and makes others wait here
    /// until this one ends. SQLite has one writer anyway.
    ///
    /// Call it before the first row is written: two transactions that wait for
    /// each other's rows are ended by PostgreSQL with [`Fault::Busy`](crate::Fault::Busy).
    ///
    /// # Errors
    /// The statement failed; the transaction cannot be used further.
    pub async fn serialise(&mut self) -> Result<(), DbError> {
        if self.db.shared.dialect == Dialect::Postgres {
            lock_postgres(&mut self.tx, SERIALISE_LOCK).await?;
        }
        Ok(())
    }

    /// See [`Db::bump_plan`].
    ///
    /// # Errors
    /// The statement failed; the transaction cannot be used further.
    pub async fn bump_plan(&mut self) -> Result<i64, DbError> {
        // Everybody takes this lock before the one row, in whatever order they do the rest, so the
        // row itself can never be half of a deadlock.
        self.serialise().await?;
        let row = sqlx::query(
            "UPDATE plan_revision SET revision = revision + 1 WHERE id = 1 RETURNING revision",
        )
        .fetch_one(self.conn())
        .await?;
        Ok(row.try_get(0)?)
    }

    /// Makes the transaction's writes durable and visible.
    ///
    /// # Errors
    /// Nothing was written, except where the connection broke during the commit itself.
    pub async fn commit(self) -> Result<(), DbError> {
        self.tx.commit().await?;
        if self.adds_jobs {
            self.db.shared.jobs_added.notify_waiters();
        }
        Ok(())
    }

    /// Gives the transaction up; the same as dropping it, but waits for it.
    ///
    /// # Errors
    /// The connection broke, which rolls back as well.
    pub async fn rollback(self) -> Result<(), DbError> {
        Ok(self.tx.rollback().await?)
    }

    /// Workers are woken when this commits.
    pub(crate) fn mark_adds_jobs(&mut self) {
        self.adds_jobs = true;
    }
}
