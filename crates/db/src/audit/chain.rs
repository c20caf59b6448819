//! The hash chain: appending to it, and finding what was done to it.

use std::fmt;
use std::str::FromStr;

use base::{Digest, ProjectId};
use serde_json::{Map, Value, json};
use sqlx::{AnyConnection, Row as _};

use super::Entry;
use super::read;
use crate::{Db, DbError};

/// How many lines are read at a time.
const STEP: i64 = 1000;

/// The end of a chain: written `SEQ:HASH`, for people to keep where the
/// database's administrator cannot write.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Head {
    /// The last line's place; 0 for an empty chain.
    pub seq: i64,
    /// Its hash, 64 hex digits; empty for an empty chain.
    pub hash: String,
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.seq, self.hash)
    }
}

impl FromStr for Head {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once(':');
        let head = parts.and_then(|(seq, hash)| {
            let seq = seq.parse().ok().filter(|seq| *seq >= 0)?;
            let length = if seq == 0 { 0 } else { 64 };
            let is_hash = hash.len() == length
                && hash.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
            is_hash.then(|| Self {
                seq,
                hash: hash.to_owned(),
            })
        });
        head.ok_or_else(|| {
            "a head is SEQ:HASH, with 64 hex digits, as `meguri audit verify` prints it".to_owned()
        })
    }
}

/// A chain in which nothing was found.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Verified {
    /// How many lines there are.
    pub rows: i64,
    /// The end of the chain.
    pub head: Head,
}

/// Where a chain is broken, the first place only.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Broken {
    /// The place in the chain.
    pub seq: i64,
    /// What is wrong there.
    pub why: String,
}

impl Broken {
    fn at(seq: i64, why: impl Into<String>) -> Self {
        Self {
            seq,
            why: why.into(),
        }
    }
}

/// A line before it has its place.
pub(super) struct Row {
    pub(super) id: String,
    pub(super) chain: String,
    pub(super) actor: String,
    pub(super) action: String,
    pub(super) object: String,
    /// Canonical JSON.
    pub(super) detail: String,
    pub(super) reason: String,
    pub(super) request_id: String,
    pub(super) before: Option<String>,
    pub(super) after: Option<String>,
    pub(super) at: i64,
}

/// The chain's name: the project's id, or nothing for the installation.
pub(super) fn name(project: Option<ProjectId>) -> String {
    project
        .map(|project| project.to_string())
        .unwrap_or_default()
}

/// Canonical JSON of what a caller gave: numbers that have no canonical form become texts.
pub(super) fn detail_text(detail: Value) -> String {
    let detail = without_nul(detail);
    let bytes = base::canonical_json(&detail)
        .or_else(|_| base::canonical_json(&numbers_as_text(detail)))
        .unwrap_or_else(|_| b"{}".to_vec());
    String::from_utf8_lossy(&bytes).into_owned()
}

fn numbers_as_text(value: Value) -> Value {
    match value {
        Value::Number(number) if base::canonical_json(&json!(number)).is_err() => {
            Value::String(number.to_string())
        }
        Value::Array(items) => items.into_iter().map(numbers_as_text).collect(),
        Value::Object(map) => {
            let fields = map.into_iter();
            Value::Object(fields.map(|(k, v)| (k, numbers_as_text(v))).collect())
        }
        other => other,
    }
}

/// An escaped NUL in JSON text would do no harm in the database, but in nothing that reads the text out.
fn without_nul(value: Value) -> Value {
    match value {
        Value::String(text) if text.contains('\0') => Value::String(text.replace('\0', "\u{fffd}")),
        Value::Array(items) => items.into_iter().map(without_nul).collect(),
        Value::Object(map) => {
            let fields = map.into_iter();
            Value::Object(fields.map(|(k, v)| (k, without_nul(v))).collect())
        }
        other => other,
    }
}

/// The hash of an entry: over everything but the hash.
fn hash_of(entry: &Entry) -> String {
    let mut fields = match serde_json::to_value(entry) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(),
    };
    fields.remove("hash");
    let bytes = base::canonical_json(&Value::Object(fields.clone()))
        .or_else(|_| base::canonical_json(&numbers_as_text(Value::Object(fields))));
    Digest::of(&bytes.unwrap_or_default()).hex()
}

/// Puts a line at the end of its chain. The caller holds the lock that makes writers wait for each other.
pub(super) async fn append(connection: &mut AnyConnection, row: &Row) -> Result<(), DbError> {
    let end = read_head(connection, &row.chain).await?;
    let entry = entry_after(row, &end);
    sqlx::query(
        "INSERT INTO audit (id, project, actor, action, object, detail, at, chain, seq, request_id, reason,
                            before_digest, after_digest, prev_hash, hash)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)",
    )
    .bind(&entry.id)
    .bind((!row.chain.is_empty()).then_some(row.chain.as_str()))
    .bind(&entry.actor)
    .bind(&entry.action)
    .bind(&entry.object)
    .bind(&row.detail)
    .bind(entry.at)
    .bind(&row.chain)
    .bind(entry.seq)
    .bind(&entry.request_id)
    .bind(&entry.reason)
    .bind(entry.before.as_deref())
    .bind(entry.after.as_deref())
    .bind(&entry.prev)
    .bind(&entry.hash)
    .execute(&mut *connection)
    .await?;
    write_head(connection, &row.chain, &entry).await
}

fn entry_after(row: &Row, end: &Head) -> Entry {
    let mut entry = Entry {
        seq: end.seq + 1,
        id: row.id.clone(),
        project: row.chain.parse().ok(),
        actor: row.actor.clone(),
        action: row.action.clone(),
        object: row.object.clone(),
        detail: serde_json::from_str(&row.detail).unwrap_or_default(),
        reason: row.reason.clone(),
        request_id: row.request_id.clone(),
        before: row.before.clone(),
        after: row.after.clone(),
        at: row.at,
        prev: end.hash.clone(),
        hash: String::new(),
    };
    entry.hash = hash_of(&entry);
    entry
}

async fn read_head(connection: &mut AnyConnection, chain: &str) -> Result<Head, DbError> {
    let row = sqlx::query("SELECT seq, hash FROM audit_heads WHERE chain = $1")
        .bind(chain)
        .fetch_optional(connection)
        .await?;
    match row {
        Some(row) => Ok(Head {
            seq: row.try_get(0)?,
            hash: row.try_get(1)?,
        }),
        None => Ok(Head {
            seq: 0,
            hash: String::new(),
        }),
    }
}

async fn write_head(
    connection: &mut AnyConnection,
    chain: &str,
    last: &Entry,
) -> Result<(), DbError> {
    sqlx::query(
        "INSERT INTO audit_heads (chain, seq, hash) VALUES ($1, $2, $3)
         ON CONFLICT (chain) DO UPDATE SET seq = excluded.seq, hash = excluded.hash",
    )
    .bind(chain)
    .bind(last.seq)
    .bind(&last.hash)
    .execute(connection)
    .await?;
    Ok(())
}

/// The end of a chain as the database has it.
///
/// # Errors
/// The database cannot be read.
pub async fn head(db: &Db, project: Option<ProjectId>) -> Result<Head, DbError> {
    let mut connection = db.read().acquire().await?;
    read_head(&mut connection, &name(project)).await
}

/// Walks a chain from its first line to its end. `known` is an end that somebody
/// kept: the chain must still go through it.
///
/// # Errors
/// The database cannot be read.
pub async fn verify(
    db: &Db,
    project: Option<ProjectId>,
    known: Option<&Head>,
) -> Result<Result<Verified, Broken>, DbError> {
    let mut connection = db.read().acquire().await?;
    let chain = name(project);
    // Lines that are written while we walk come after this end.
    let end = read_head(&mut connection, &chain).await?;
    let mut walk = Walk::default();
    while walk.last.seq < end.seq {
        let from = walk.last.seq;
        let entries = read::forward(&mut connection, &chain, from, STEP).await?;
        let entries = entries.into_iter().filter(|entry| entry.seq <= end.seq);
        if let Err(broken) = walk.through(entries, known) {
            return Ok(Err(broken));
        }
        if walk.last.seq == from {
            let why = "this line and everything after it were removed";
            return Ok(Err(Broken::at(from + 1, why)));
        }
    }
    if walk.last != end {
        return Ok(Err(Broken::at(
            end.seq,
            "the end of the chain is another than the database remembers",
        )));
    }
    if let Some(known) = known.filter(|known| known.seq > end.seq) {
        return Ok(Err(Broken::at(
            end.seq + 1,
            format!("the chain was cut: it went on to line {} once", known.seq),
        )));
    }
    if let Some(broken) = foreign_rows(&mut connection, &chain).await? {
        return Ok(Err(broken));
    }
    Ok(Ok(Verified {
        rows: end.seq,
        head: end,
    }))
}

struct Walk {
    last: Head,
}

impl Default for Walk {
    fn default() -> Self {
        Self {
            last: Head {
                seq: 0,
                hash: String::new(),
            },
        }
    }
}

impl Walk {
    fn through(
        &mut self,
        entries: impl Iterator<Item = Entry>,
        known: Option<&Head>,
    ) -> Result<(), Broken> {
        for entry in entries {
            let seq = self.last.seq + 1;
            if entry.seq != seq {
                return Err(Broken::at(seq, "this line was removed"));
            }
            if entry.prev != self.last.hash {
                return Err(Broken::at(
                    seq,
                    "this line does not follow the one before: one of them was changed, inserted or moved",
                ));
            }
            if hash_of(&entry) != entry.hash {
                return Err(Broken::at(seq, "this line was changed"));
            }
            if known.is_some_and(|known| known.seq == seq && known.hash != entry.hash) {
                return Err(Broken::at(
                    seq,
                    "this line is another than when the head was kept: the log was rewritten",
                ));
            }
            self.last = Head {
                seq,
                hash: entry.hash,
            };
        }
        Ok(())
    }
}

/// Lines that claim to be of this chain and stand outside it. One statement, so that
/// lines written at this moment are either all seen with their head or not at all.
async fn foreign_rows(
    connection: &mut AnyConnection,
    chain: &str,
) -> Result<Option<Broken>, DbError> {
    let row = sqlx::query(
        "SELECT id, COALESCE(seq, 0) FROM audit
         WHERE chain = $1 AND (seq IS NULL OR seq < 1 OR COALESCE(project, '') <> $1
            OR seq > COALESCE((SELECT h.seq FROM audit_heads h WHERE h.chain = $1), 0))
         ORDER BY COALESCE(seq, 0), id LIMIT 1",
    )
    .bind(chain)
    .fetch_optional(connection)
    .await?;
    let Some(row) = row else {
        return Ok(None);
    };
    let id: String = row.try_get(0)?;
    let why = format!("the line {id} was inserted outside the chain or moved to another project");
    Ok(Some(Broken::at(row.try_get(1)?, why)))
}

/// Gives the lines that were written before there was a chain their places, in the
/// order of their times. Runs in the transaction of the migration.
pub(crate) async fn seal_rows_from_before(connection: &mut AnyConnection) -> sqlx::Result<()> {
    loop {
        let rows = sqlx::query(
            "SELECT id, chain, actor, action, object, detail, at FROM audit
             WHERE seq IS NULL ORDER BY at, id LIMIT $1",
        )
        .bind(STEP)
        .fetch_all(&mut *connection)
        .await?;
        if rows.is_empty() {
            return Ok(());
        }
        for row in &rows {
            seal(connection, row).await?;
        }
    }
}

async fn seal(connection: &mut AnyConnection, row: &sqlx::any::AnyRow) -> sqlx::Result<()> {
    let detail: String = row.try_get(5)?;
    let row = Row {
        id: row.try_get(0)?,
        chain: row.try_get(1)?,
        actor: row.try_get(2)?,
        action: row.try_get(3)?,
        object: row.try_get(4)?,
        detail: detail_text(serde_json::from_str(&detail).unwrap_or(Value::String(detail))),
        reason: String::new(),
        request_id: String::new(),
        before: None,
        after: None,
        at: row.try_get(6)?,
    };
    let end = read_head(connection, &row.chain).await.map_err(cause)?;
    let entry = entry_after(&row, &end);
    sqlx::query("UPDATE audit SET seq = $2, prev_hash = $3, hash = $4, detail = $5 WHERE id = $1")
        .bind(&row.id)
        .bind(entry.seq)
        .bind(&entry.prev)
        .bind(&entry.hash)
        .bind(&row.detail)
        .execute(&mut *connection)
        .await?;
    write_head(connection, &row.chain, &entry)
        .await
        .map_err(cause)
}

fn cause(error: DbError) -> sqlx::Error {
    sqlx::Error::AnyDriverError(Box::new(error))
}
