//! Items, places, labels, guests and fills in the database.
//!
//! Whoever changes an item or a place stands behind [`WriteTx::serialise`] first, so that
//! what was read in the transaction still holds when it is written.

use base::{MemberId, MoveId, ProjectId};
use db::rows::{flag, json, parsed};
use db::sqlx::any::AnyRow;
use db::sqlx::{Row as _, query};
use db::{Db, DbError, WriteTx};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::guests::Guest;
use super::snapshot::Snapshot;
use super::values::Values;
use crate::error::Result;

/// Where an item is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "ReviewItemState")]
pub enum ItemState {
    /// It waits for raters.
    Open,
    /// All of them have judged it, and they agree as far as that can be said.
    Done,
    /// All of them have judged it, and they differ.
    Adjudicate,
    /// Somebody settled it, or took it out.
    Closed,
}

impl ItemState {
    /// Every state, in the order in which people see them.
    pub const ALL: &'static [Self] = &[Self::Open, Self::Adjudicate, Self::Done, Self::Closed];

    /// The word of the API and the database.
    pub fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Done => "done",
            Self::Adjudicate => "adjudicate",
            Self::Closed => "closed",
        }
    }

    /// The state that this word names.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|state| state.name() == text)
    }
}

fn text(value: &impl Serialize) -> Result<String> {
    Ok(serde_json::to_string(value).map_err(anyhow::Error::from)?)
}

pub(super) fn new_id(db: &Db) -> String {
    // Sorts by time, like every id.
    db.ids().make::<MoveId>().to_string()
}

/// An item as it comes in.
#[derive(Debug, Clone)]
pub(super) struct NewItem {
    pub(super) kind: &'static str,
    pub(super) subject: String,
    pub(super) snapshot: Snapshot,
    pub(super) facts: Value,
    pub(super) wanted: i64,
    pub(super) priority: i64,
    /// How likely it was to be drawn, where it was drawn.
    pub(super) chance: Option<f64>,
}

/// An item.
#[derive(Debug, Clone)]
pub(super) struct Item {
    pub(super) id: String,
    pub(super) queue: String,
    pub(super) kind: String,
    pub(super) snapshot: Snapshot,
    pub(super) facts: Value,
    pub(super) state: ItemState,
    pub(super) wanted: i64,
    pub(super) drawn: bool,
    pub(super) chance: Option<f64>,
    pub(super) created_at: i64,
    pub(super) closed_at: Option<i64>,
    pub(super) order: (i64, i64),
}

macro_rules! items {
    ($rest:literal) => {
        concat!(
            "SELECT id, queue, priority, seq, kind, snapshot, facts, state, wanted, drawn, chance, created_at, closed_at \
             FROM review_items ",
            $rest
        )
    };
}

fn item(row: &AnyRow) -> Result<Item> {
    let state: String = row.try_get("state")?;
    Ok(Item {
        id: row.try_get("id")?,
        queue: row.try_get("queue")?,
        kind: row.try_get("kind")?,
        snapshot: json(row, "snapshot")?,
        facts: json(row, "facts")?,
        state: ItemState::parse(&state).unwrap_or(ItemState::Closed),
        wanted: row.try_get("wanted")?,
        drawn: flag(row, "drawn")?,
        chance: row.try_get("chance")?,
        created_at: row.try_get("created_at")?,
        closed_at: row.try_get("closed_at")?,
        order: (row.try_get("priority")?, row.try_get("seq")?),
    })
}

/// Whose a statement is about.
#[derive(Debug, Clone, Copy)]
pub(super) struct At<'a> {
    pub(super) project: ProjectId,
    pub(super) queue: &'a str,
}

/// The number after the last item's.
pub(super) async fn next_seq(tx: &mut WriteTx, at: At<'_>) -> Result<i64> {
    let row = query(
        "SELECT CAST(COALESCE(MAX(seq), 0) AS BIGINT) FROM review_items WHERE project = $1 AND queue = $2",
    )
    .bind(at.project.to_string())
    .bind(at.queue)
    .fetch_one(tx.conn())
    .await
    .map_err(DbError::from)?;
    Ok(row.try_get::<i64, _>(0)? + 1)
}

/// Adds an item with its places; false when the queue has its subject already. One that is
/// drawn at random now counts as drawn, however it came in.
pub(super) async fn insert_item(
    tx: &mut WriteTx,
    at: At<'_>,
    seq: i64,
    new: &NewItem,
) -> Result<bool> {
    let (now, id) = (tx.db().now_us(), new_id(tx.db()));
    let inserted = query(
        "INSERT INTO review_items (id, project, queue, priority, seq, kind, subject, snapshot, facts, state, wanted, \
         drawn, chance, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 'open', $10, $11, $12, $13) \
         ON CONFLICT (project, queue, subject) DO NOTHING",
    )
    .bind(&id)
    .bind(at.project.to_string())
    .bind(at.queue)
    .bind(new.priority)
    .bind(seq)
    .bind(new.kind)
    .bind(&new.subject)
    .bind(text(&new.snapshot)?)
    .bind(text(&new.facts)?)
    .bind(new.wanted)
    .bind(i64::from(new.chance.is_some()))
    .bind(db::Real(new.chance))
    .bind(now)
    .execute(tx.conn())
    .await
    .map_err(DbError::from)?;
    if inserted.rows_affected() == 0 {
        if let Some(chance) = new.chance {
            query(
                "UPDATE review_items SET drawn = 1, chance = $4 WHERE project = $1 AND queue = $2 AND subject = $3 \
                 AND drawn = 0",
            )
            .bind(at.project.to_string())
            .bind(at.queue)
            .bind(&new.subject)
            .bind(chance)
            .execute(tx.conn())
            .await
            .map_err(DbError::from)?;
        }
        return Ok(false);
    }
    for slot in 0..new.wanted {
        query(
            "INSERT INTO review_slots (item, project, queue, slot, state, fence) VALUES ($1, $2, $3, $4, 'free', 0)",
        )
        .bind(&id)
        .bind(at.project.to_string())
        .bind(at.queue)
        .bind(slot)
        .execute(tx.conn())
        .await
        .map_err(DbError::from)?;
    }
    Ok(true)
}

/// The subjects that a queue has already, of those.
pub(super) async fn subjects(db: &Db, at: At<'_>) -> Result<std::collections::HashSet<String>> {
    let rows = query("SELECT subject FROM review_items WHERE project = $1 AND queue = $2")
        .bind(at.project.to_string())
        .bind(at.queue)
        .fetch_all(db.read())
        .await
        .map_err(DbError::from)?;
    Ok(rows
        .iter()
        .map(|row| row.try_get("subject"))
        .collect::<std::result::Result<_, _>>()?)
}

pub(super) async fn find_item(
    tx: &mut WriteTx,
    project: ProjectId,
    id: &str,
) -> Result<Option<Item>> {
    let row = query(items!("WHERE project = $1 AND id = $2"))
        .bind(project.to_string())
        .bind(id)
        .fetch_optional(tx.conn())
        .await
        .map_err(DbError::from)?;
    row.as_ref().map(item).transpose()
}

pub(super) async fn read_item(db: &Db, project: ProjectId, id: &str) -> Result<Option<Item>> {
    let row = query(items!("WHERE project = $1 AND id = $2"))
        .bind(project.to_string())
        .bind(id)
        .fetch_optional(db.read())
        .await
        .map_err(DbError::from)?;
    row.as_ref().map(item).transpose()
}

/// Items in the order in which they are given out, behind this place.
pub(super) async fn list_items(
    db: &Db,
    at: At<'_>,
    state: Option<ItemState>,
    behind: Option<(i64, i64)>,
    limit: i64,
) -> Result<Vec<Item>> {
    let (priority, seq) = behind.unwrap_or((i64::MAX, 0));
    let rows = query(items!(
        "WHERE project = $1 AND queue = $2 AND ($3 = '' OR state = $3) AND (priority < $4 OR (priority = $4 AND seq > $5)) \
         ORDER BY priority DESC, seq LIMIT $6"
    ))
    .bind(at.project.to_string())
    .bind(at.queue)
    .bind(state.map(ItemState::name).unwrap_or_default())
    .bind(priority)
    .bind(seq)
    .bind(limit)
    .fetch_all(db.read())
    .await
    .map_err(DbError::from)?;
    rows.iter().map(item).collect()
}

pub(super) async fn set_state(
    tx: &mut WriteTx,
    project: ProjectId,
    id: &str,
    state: ItemState,
) -> Result<()> {
    let closed_at = (state == ItemState::Closed).then(|| tx.db().now_us());
    query("UPDATE review_items SET state = $3, closed_at = $4 WHERE project = $1 AND id = $2")
        .bind(project.to_string())
        .bind(id)
        .bind(state.name())
        .bind(closed_at)
        .execute(tx.conn())
        .await
        .map_err(DbError::from)?;
    Ok(())
}

/// A place for a rater.
#[derive(Debug, Clone)]
pub(super) struct Slot {
    pub(super) item: String,
    pub(super) slot: i64,
    pub(super) state: String,
    pub(super) rater: Option<String>,
    pub(super) fence: i64,
    pub(super) held_at: Option<i64>,
    pub(super) until: Option<i64>,
}

impl Slot {
    /// Whether somebody has it now: nobody else may take it.
    pub(super) fn is_held(&self, now: i64) -> bool {
        self.state == "held" && self.until.is_some_and(|until| until > now)
    }

    /// Whether anybody may take it.
    pub(super) fn is_free(&self, now: i64) -> bool {
        self.state == "free" || (self.state == "held" && !self.is_held(now))
    }
}

fn slot(row: &AnyRow) -> Result<Slot> {
    Ok(Slot {
        item: row.try_get("item")?,
        slot: row.try_get("slot")?,
        state: row.try_get("state")?,
        rater: row.try_get("rater")?,
        fence: row.try_get("fence")?,
        held_at: row.try_get("held_at")?,
        until: row.try_get("until")?,
    })
}

/// The places of an item.
pub(super) async fn slots(tx: &mut WriteTx, project: ProjectId, item: &str) -> Result<Vec<Slot>> {
    let rows = query(
        "SELECT item, slot, state, rater, fence, held_at, until FROM review_slots WHERE project = $1 AND item = $2 \
         ORDER BY slot",
    )
    .bind(project.to_string())
    .bind(item)
    .fetch_all(tx.conn())
    .await
    .map_err(DbError::from)?;
    rows.iter().map(slot).collect()
}

/// What a rater holds in a queue and may still use, the first given first. A place that
/// nobody took over since is still theirs, however late it is.
pub(super) async fn held_by(tx: &mut WriteTx, at: At<'_>, rater: &str) -> Result<Vec<Slot>> {
    let rows = query(
        "SELECT s.item, s.slot, s.state, s.rater, s.fence, s.held_at, s.until FROM review_slots s \
         JOIN review_items i ON i.id = s.item AND i.project = s.project \
         WHERE s.project = $1 AND s.queue = $2 AND s.rater = $3 AND s.state = 'held' AND i.state = 'open' \
         ORDER BY s.held_at, i.priority DESC, i.seq",
    )
    .bind(at.project.to_string())
    .bind(at.queue)
    .bind(rater)
    .fetch_all(tx.conn())
    .await
    .map_err(DbError::from)?;
    rows.iter().map(slot).collect()
}

/// The place that a rater is given next: of the first item that has one free and that they
/// have not judged, skipped or been given. The item is looked for in the order of an index,
/// so that a long queue costs no more than a short one.
pub(super) async fn free_slot(tx: &mut WriteTx, at: At<'_>, rater: &str) -> Result<Option<Slot>> {
    let now = tx.db().now_us();
    let found = query(
        "SELECT i.id FROM review_items i WHERE i.project = $1 AND i.queue = $2 AND i.state = 'open' \
         AND EXISTS (SELECT 1 FROM review_slots s WHERE s.item = i.id AND (s.state = 'free' \
         OR (s.state = 'held' AND s.until <= $4))) \
         AND NOT EXISTS (SELECT 1 FROM review_slots m WHERE m.item = i.id AND m.rater = $3) \
         AND NOT EXISTS (SELECT 1 FROM review_labels l WHERE l.item = i.id AND l.rater = $3 AND l.kind = 'skip' \
         AND l.current = 1) \
         ORDER BY i.priority DESC, i.seq LIMIT 1",
    )
    .bind(at.project.to_string())
    .bind(at.queue)
    .bind(rater)
    .bind(now)
    .fetch_optional(tx.conn())
    .await
    .map_err(DbError::from)?;
    let Some(row) = found else { return Ok(None) };
    let item: String = row.try_get("id")?;
    let free = slots(tx, at.project, &item).await?;
    let free = free.into_iter().filter(|slot| slot.is_free(now));
    // What nobody ever held comes before what somebody let lapse.
    Ok(free.min_by_key(|slot| (slot.state != "free", slot.slot)))
}

/// Changes a place if nobody took it since it was seen.
pub(super) async fn change_slot(
    tx: &mut WriteTx,
    project: ProjectId,
    seen: &Slot,
    to: &Slot,
) -> Result<bool> {
    let changed = query(
        "UPDATE review_slots SET state = $5, rater = $6, fence = $7, held_at = $8, until = $9 \
         WHERE project = $1 AND item = $2 AND slot = $3 AND fence = $4",
    )
    .bind(project.to_string())
    .bind(&seen.item)
    .bind(seen.slot)
    .bind(seen.fence)
    .bind(&to.state)
    .bind(&to.rater)
    .bind(to.fence)
    .bind(to.held_at)
    .bind(to.until)
    .execute(tx.conn())
    .await
    .map_err(DbError::from)?;
    Ok(changed.rows_affected() == 1)
}

/// Gives back what a rater holds: everywhere, or in one queue.
pub(super) async fn release_all(
    tx: &mut WriteTx,
    project: ProjectId,
    queue: Option<&str>,
    rater: &str,
) -> Result<u64> {
    let released = query(
        "UPDATE review_slots SET state = 'free', rater = NULL, fence = fence + 1, held_at = NULL, until = NULL \
         WHERE project = $1 AND ($2 = '' OR queue = $2) AND rater = $3 AND state = 'held'",
    )
    .bind(project.to_string())
    .bind(queue.unwrap_or_default())
    .bind(rater)
    .execute(tx.conn())
    .await
    .map_err(DbError::from)?;
    Ok(released.rows_affected())
}

/// What somebody said of an item.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[schemars(rename = "ReviewLabel")]
pub struct LabelRow {
    /// Names it.
    pub id: String,
    /// The item.
    pub item: String,
    /// The queue's document that was answered.
    pub digest: String,
    /// `label`, `skip` or `adjudication`.
    pub kind: String,
    /// Who: `user:ID`, `key:ID` or `guest:ID`.
    pub rater: String,
    /// The answers, by question. Of a pair `a` is the first one.
    pub values: Values,
    /// A remark.
    pub comment: String,
    /// Microseconds from being given the item to this.
    pub took_us: i64,
    /// When, microseconds since the epoch.
    pub at: i64,
    /// Whether it counts: it was neither taken back nor replaced.
    pub current: bool,
    /// When it was taken back or replaced.
    pub ended_at: Option<i64>,
    /// The label that this one replaced.
    pub replaces: Option<String>,
}

macro_rules! labels {
    ($rest:literal) => {
        concat!(
            "SELECT l.id, l.item, l.digest, l.kind, l.rater, l.answers, l.comment, l.took_us, l.at, l.current, \
             l.ended_at, l.replaces FROM review_labels l ",
            $rest
        )
    };
}

fn label(row: &AnyRow) -> Result<LabelRow> {
    Ok(LabelRow {
        id: row.try_get("id")?,
        item: row.try_get("item")?,
        digest: row.try_get("digest")?,
        kind: row.try_get("kind")?,
        rater: row.try_get("rater")?,
        values: json(row, "answers")?,
        comment: row.try_get("comment")?,
        took_us: row.try_get("took_us")?,
        at: row.try_get("at")?,
        current: flag(row, "current")?,
        ended_at: row.try_get("ended_at")?,
        replaces: row.try_get("replaces")?,
    })
}

pub(super) async fn insert_label(
    tx: &mut WriteTx,
    at: At<'_>,
    new: &LabelRow,
    sent: bool,
) -> Result<()> {
    query(
        "INSERT INTO review_labels (id, item, project, queue, digest, kind, rater, answers, comment, took_us, at, \
         current, replaces, sent) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, 1, $12, $13)",
    )
    .bind(&new.id)
    .bind(&new.item)
    .bind(at.project.to_string())
    .bind(at.queue)
    .bind(&new.digest)
    .bind(&new.kind)
    .bind(&new.rater)
    .bind(text(&new.values)?)
    .bind(&new.comment)
    .bind(new.took_us)
    .bind(new.at)
    .bind(&new.replaces)
    .bind(i64::from(sent))
    .execute(tx.conn())
    .await
    .map_err(DbError::from)?;
    Ok(())
}

/// Ends a label; its scores are to be taken back unless another one replaces it.
pub(super) async fn end_label(
    tx: &mut WriteTx,
    project: ProjectId,
    id: &str,
    at: i64,
    sent: bool,
) -> Result<()> {
    query(
        "UPDATE review_labels SET current = 0, ended_at = $3, sent = $4 WHERE project = $1 AND id = $2 AND current = 1",
    )
    .bind(project.to_string())
    .bind(id)
    .bind(at)
    .bind(i64::from(sent))
    .execute(tx.conn())
    .await
    .map_err(DbError::from)?;
    Ok(())
}

/// Everything that was said of an item, the oldest first.
pub(super) async fn labels_of(
    tx: &mut WriteTx,
    project: ProjectId,
    item: &str,
) -> Result<Vec<LabelRow>> {
    let rows = query(labels!(
        "WHERE l.project = $1 AND l.item = $2 ORDER BY l.at, l.id"
    ))
    .bind(project.to_string())
    .bind(item)
    .fetch_all(tx.conn())
    .await
    .map_err(DbError::from)?;
    rows.iter().map(label).collect()
}

/// As [`labels_of`], outside of a transaction.
pub(super) async fn read_labels_of(
    db: &Db,
    project: ProjectId,
    item: &str,
) -> Result<Vec<LabelRow>> {
    let rows = query(labels!(
        "WHERE l.project = $1 AND l.item = $2 ORDER BY l.at, l.id"
    ))
    .bind(project.to_string())
    .bind(item)
    .fetch_all(db.read())
    .await
    .map_err(DbError::from)?;
    rows.iter().map(label).collect()
}

/// What counts in a queue, by item, the oldest first.
pub(super) async fn current_labels(db: &Db, at: At<'_>) -> Result<Vec<LabelRow>> {
    let rows = query(labels!(
        "JOIN review_items i ON i.id = l.item AND i.project = l.project \
         WHERE l.project = $1 AND l.queue = $2 AND l.current = 1 ORDER BY i.priority DESC, i.seq, l.at, l.id"
    ))
    .bind(at.project.to_string())
    .bind(at.queue)
    .fetch_all(db.read())
    .await
    .map_err(DbError::from)?;
    rows.iter().map(label).collect()
}

/// What a rater said last in a queue and did not take back.
pub(super) async fn last_act(
    tx: &mut WriteTx,
    at: At<'_>,
    rater: &str,
) -> Result<Option<LabelRow>> {
    let row = query(labels!(
        "WHERE l.project = $1 AND l.queue = $2 AND l.rater = $3 AND l.current = 1 AND l.kind <> 'adjudication' \
         ORDER BY l.at DESC, l.id DESC LIMIT 1"
    ))
    .bind(at.project.to_string())
    .bind(at.queue)
    .bind(rater)
    .fetch_optional(tx.conn())
    .await
    .map_err(DbError::from)?;
    row.as_ref().map(label).transpose()
}

/// What a rater said in a queue, the newest first, before this moment.
pub(super) async fn labels_by(
    db: &Db,
    at: At<'_>,
    rater: &str,
    before: (i64, String),
    limit: i64,
) -> Result<Vec<LabelRow>> {
    let rows = query(labels!(
        "WHERE l.project = $1 AND l.queue = $2 AND l.rater = $3 AND l.current = 1 AND l.kind <> 'adjudication' \
         AND (l.at < $4 OR (l.at = $4 AND l.id < $5)) ORDER BY l.at DESC, l.id DESC LIMIT $6"
    ))
    .bind(at.project.to_string())
    .bind(at.queue)
    .bind(rater)
    .bind(before.0)
    .bind(before.1)
    .bind(limit)
    .fetch_all(db.read())
    .await
    .map_err(DbError::from)?;
    rows.iter().map(label).collect()
}

/// Labels whose scores are not with the traces yet, of every project: the sender is the system's.
pub(super) async fn unsent(db: &Db, limit: i64) -> Result<Vec<(ProjectId, String)>> {
    let rows = query("SELECT project, id FROM review_labels WHERE sent = 0 ORDER BY at LIMIT $1")
        .bind(limit)
        .fetch_all(db.read())
        .await
        .map_err(DbError::from)?;
    let read = |row: &AnyRow| Ok((parsed(row, "project")?, row.try_get("id")?));
    rows.iter().map(read).collect()
}

/// A label and its queue.
pub(super) async fn read_label(
    db: &Db,
    project: ProjectId,
    id: &str,
) -> Result<Option<(String, LabelRow)>> {
    let row = query(
        "SELECT id, item, digest, kind, rater, answers, comment, took_us, at, current, ended_at, replaces, queue \
         FROM review_labels WHERE project = $1 AND id = $2",
    )
    .bind(project.to_string())
    .bind(id)
    .fetch_optional(db.read())
    .await
    .map_err(DbError::from)?;
    row.as_ref()
        .map(|row| Ok((row.try_get("queue")?, label(row)?)))
        .transpose()
}

/// The scores of a label are with the traces, as they were at that moment of it.
pub(super) async fn set_sent(db: &Db, project: ProjectId, seen: &LabelRow) -> Result<()> {
    let mut tx = db.begin_write().await?;
    query("UPDATE review_labels SET sent = 1 WHERE project = $1 AND id = $2 AND current = $3")
        .bind(project.to_string())
        .bind(&seen.id)
        .bind(i64::from(seen.current))
        .execute(tx.conn())
        .await
        .map_err(DbError::from)?;
    Ok(tx.commit().await?)
}

/// How many items a queue has in each state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "ReviewCounts")]
pub struct Counts {
    /// All items.
    pub items: i64,
    /// Those that wait for raters.
    pub open: i64,
    /// Of these, those that somebody has before them now.
    pub reserved: i64,
    /// Those that are judged.
    pub done: i64,
    /// Those on which raters differ.
    pub adjudicate: i64,
    /// Those that are settled or taken out.
    pub closed: i64,
    /// Those that were drawn at random.
    pub drawn: i64,
}

pub(super) async fn counts(db: &Db, at: At<'_>) -> Result<Counts> {
    let rows = query(
        "SELECT state, COUNT(*) AS n, CAST(SUM(drawn) AS BIGINT) AS drawn FROM review_items \
         WHERE project = $1 AND queue = $2 GROUP BY state",
    )
    .bind(at.project.to_string())
    .bind(at.queue)
    .fetch_all(db.read())
    .await
    .map_err(DbError::from)?;
    let mut counts = Counts::default();
    for row in &rows {
        let (state, n): (String, i64) = (row.try_get("state")?, row.try_get("n")?);
        counts.items += n;
        counts.drawn += row.try_get::<i64, _>("drawn")?;
        match ItemState::parse(&state) {
            Some(ItemState::Open) => counts.open = n,
            Some(ItemState::Done) => counts.done = n,
            Some(ItemState::Adjudicate) => counts.adjudicate = n,
            Some(ItemState::Closed) | None => counts.closed += n,
        }
    }
    let row = query(
        "SELECT COUNT(DISTINCT s.item) FROM review_slots s JOIN review_items i ON i.id = s.item \
         WHERE s.project = $1 AND s.queue = $2 AND s.state = 'held' AND s.until > $3 AND i.state = 'open'",
    )
    .bind(at.project.to_string())
    .bind(at.queue)
    .bind(db.now_us())
    .fetch_one(db.read())
    .await
    .map_err(DbError::from)?;
    counts.reserved = row.try_get(0)?;
    Ok(counts)
}

/// How far a rater is in a queue.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "ReviewProgress")]
pub struct Progress {
    /// Items that they have labelled.
    pub labelled: i64,
    /// Items that they have skipped.
    pub skipped: i64,
    /// Items that they have before them.
    pub held: i64,
    /// Items that there are for them still, those that they hold among them.
    pub left: i64,
}

pub(super) async fn progress(db: &Db, at: At<'_>, rater: &str) -> Result<Progress> {
    let rows = query(
        "SELECT kind, COUNT(*) AS n FROM review_labels WHERE project = $1 AND queue = $2 AND rater = $3 AND current = 1 \
         GROUP BY kind",
    )
    .bind(at.project.to_string())
    .bind(at.queue)
    .bind(rater)
    .fetch_all(db.read())
    .await
    .map_err(DbError::from)?;
    let mut progress = Progress::default();
    for row in &rows {
        let n = row.try_get("n")?;
        match row.try_get::<String, _>("kind")?.as_str() {
            "label" => progress.labelled = n,
            "skip" => progress.skipped = n,
            _ => {}
        }
    }
    let row = query(
        "SELECT COUNT(*) FROM review_slots s JOIN review_items i ON i.id = s.item WHERE s.project = $1 \
         AND s.queue = $2 AND s.rater = $3 AND s.state = 'held' AND i.state = 'open'",
    )
    .bind(at.project.to_string())
    .bind(at.queue)
    .bind(rater)
    .fetch_one(db.read())
    .await
    .map_err(DbError::from)?;
    progress.held = row.try_get(0)?;
    let row = query(
        "SELECT COUNT(*) FROM review_items i WHERE i.project = $1 AND i.queue = $2 AND i.state = 'open' \
         AND EXISTS (SELECT 1 FROM review_slots s WHERE s.item = i.id AND (s.state = 'free' \
         OR (s.state = 'held' AND s.until <= $4))) \
         AND NOT EXISTS (SELECT 1 FROM review_slots m WHERE m.item = i.id AND m.rater = $3) \
         AND NOT EXISTS (SELECT 1 FROM review_labels l WHERE l.item = i.id AND l.rater = $3 AND l.kind = 'skip' \
         AND l.current = 1)",
    )
    .bind(at.project.to_string())
    .bind(at.queue)
    .bind(rater)
    .bind(db.now_us())
    .fetch_one(db.read())
    .await
    .map_err(DbError::from)?;
    progress.left = row.try_get::<i64, _>(0)? + progress.held;
    Ok(progress)
}

/// How a queue was filled once.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[schemars(rename = "ReviewFill")]
pub struct FillRow {
    /// What was asked for.
    pub request: Value,
    /// How many there were to choose from.
    pub population: i64,
    /// How many came in.
    pub added: i64,
    /// How many of these were drawn at random.
    pub drawn: i64,
    /// Who filled it.
    pub by: String,
    /// When, microseconds since the epoch.
    pub at: i64,
}

pub(super) async fn insert_fill(tx: &mut WriteTx, at: At<'_>, fill: &FillRow) -> Result<()> {
    query(
        "INSERT INTO review_fills (id, project, queue, request, population, added, drawn, filled_by, at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
    )
    .bind(new_id(tx.db()))
    .bind(at.project.to_string())
    .bind(at.queue)
    .bind(text(&fill.request)?)
    .bind(fill.population)
    .bind(fill.added)
    .bind(fill.drawn)
    .bind(&fill.by)
    .bind(fill.at)
    .execute(tx.conn())
    .await
    .map_err(DbError::from)?;
    Ok(())
}

/// The last fills of a queue, the newest first.
pub(super) async fn fills(db: &Db, at: At<'_>) -> Result<Vec<FillRow>> {
    let rows = query(
        "SELECT request, population, added, drawn, filled_by, at FROM review_fills WHERE project = $1 AND queue = $2 \
         ORDER BY at DESC, id DESC LIMIT 100",
    )
    .bind(at.project.to_string())
    .bind(at.queue)
    .fetch_all(db.read())
    .await
    .map_err(DbError::from)?;
    let read = |row: &AnyRow| {
        Ok(FillRow {
            request: json(row, "request")?,
            population: row.try_get("population")?,
            added: row.try_get("added")?,
            drawn: row.try_get("drawn")?,
            by: row.try_get("filled_by")?,
            at: row.try_get("at")?,
        })
    };
    rows.iter().map(read).collect()
}

macro_rules! guests {
    ($rest:literal) => {
        concat!(
            "SELECT id, project, queue, name, created_by, created_at, expires_at, revoked_at FROM review_guests ",
            $rest
        )
    };
}

fn guest(row: &AnyRow) -> Result<Guest> {
    Ok(Guest {
        id: parsed::<MemberId>(row, "id")?.to_string(),
        project: parsed(row, "project")?,
        queue: row.try_get("queue")?,
        name: row.try_get("name")?,
        created_by: row.try_get("created_by")?,
        created_at: row.try_get("created_at")?,
        expires_at: row.try_get("expires_at")?,
        revoked_at: row.try_get("revoked_at")?,
    })
}

pub(super) async fn insert_guest(tx: &mut WriteTx, new: &Guest, token_hash: &str) -> Result<()> {
    query(
        "INSERT INTO review_guests (id, project, queue, name, token_hash, created_by, created_at, expires_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(&new.id)
    .bind(new.project.to_string())
    .bind(&new.queue)
    .bind(&new.name)
    .bind(token_hash)
    .bind(&new.created_by)
    .bind(new.created_at)
    .bind(new.expires_at)
    .execute(tx.conn())
    .await
    .map_err(DbError::from)?;
    Ok(())
}

/// Whoever a token was made for, whatever became of it since. The token is the only key that
/// a guest has, so this asks without a project.
pub(super) async fn guest_by_token(db: &Db, token_hash: &str) -> Result<Option<Guest>> {
    let row = query(guests!("WHERE token_hash = $1"))
        .bind(token_hash)
        .fetch_optional(db.read())
        .await
        .map_err(DbError::from)?;
    row.as_ref().map(guest).transpose()
}

pub(super) async fn find_guest(db: &Db, project: ProjectId, id: &str) -> Result<Option<Guest>> {
    let row = query(guests!("WHERE project = $1 AND id = $2"))
        .bind(project.to_string())
        .bind(id)
        .fetch_optional(db.read())
        .await
        .map_err(DbError::from)?;
    row.as_ref().map(guest).transpose()
}

pub(super) async fn list_guests(db: &Db, at: At<'_>) -> Result<Vec<Guest>> {
    let rows = query(guests!(
        "WHERE project = $1 AND queue = $2 ORDER BY created_at DESC, id DESC LIMIT 1000"
    ))
    .bind(at.project.to_string())
    .bind(at.queue)
    .fetch_all(db.read())
    .await
    .map_err(DbError::from)?;
    rows.iter().map(guest).collect()
}

pub(super) async fn revoke_guest(tx: &mut WriteTx, project: ProjectId, id: &str) -> Result<()> {
    let now = tx.db().now_us();
    query(
        "UPDATE review_guests SET revoked_at = COALESCE(revoked_at, $3) WHERE project = $1 AND id = $2",
    )
    .bind(project.to_string())
    .bind(id)
    .bind(now)
    .execute(tx.conn())
    .await
    .map_err(DbError::from)?;
    Ok(())
}
