//! Giving out items, and what raters do with them.
//!
//! Each of these is one transaction behind the database's one lock, so that two raters
//! never get one place and a label is either there with its place, or not at all.

use base::Digest;
use db::catalog::CatalogError;
use db::{Problem, Scope, WriteTx};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::document::{QueueDocument, Target};
use super::snapshot::{Snapshot, facts_for_raters};
use super::store::{self, At, Item, ItemState, LabelRow, Progress, Slot};
use super::values::{self, Values};
use super::{Desk, Queue, Rater, find_queue, no_such_item};
use crate::app::App;
use crate::error::{AppError, Result};

/// Items that a rater may hold in a queue: the one they look at, and the next.
const MOST_HELD: usize = 5;
/// Bytes of a remark.
const COMMENT_BYTES: usize = 16 << 10;

/// An item before a rater.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(rename = "ReviewItemShown")]
pub struct ItemShown {
    /// Names it.
    pub id: String,
    /// Its queue.
    pub queue: String,
    /// The identity of the queue's document.
    pub digest: String,
    /// To be sent with the label.
    pub fence: i64,
    /// Until when it is kept, microseconds since the epoch.
    pub until: i64,
    /// What it is.
    pub snapshot: Snapshot,
    /// The texts in which places are marked, by characters.
    pub texts: Texts,
    /// What is known beyond that; none where the queue is blind.
    pub facts: Option<Map<String, Value>>,
    /// The questions that can be answered for it.
    pub asks: Vec<String>,
    /// Its number among this rater's items, from 1.
    pub place: i64,
    /// How many items there are for this rater, those that are labelled included.
    pub of: i64,
    /// How many they have labelled.
    pub mine_before: i64,
    /// What they answered already, where they come back to it.
    pub mine: Option<Values>,
    /// What they remarked.
    pub comment: String,
}

/// The texts of an item.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "ReviewTexts")]
pub struct Texts {
    /// What was asked.
    pub input: String,
    /// What was answered.
    pub output: String,
}

/// A label as a rater gives it.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "ReviewLabelGiven")]
pub struct Given {
    /// The fence that came with the item.
    pub fence: i64,
    /// The answers, by question.
    pub values: Values,
    /// A remark.
    #[serde(default)]
    pub comment: String,
}

/// What became of a label.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(rename = "ReviewLabelled")]
pub struct Labelled {
    /// Names the label.
    pub label: String,
    /// The item.
    pub item: String,
    /// Its queue.
    pub queue: String,
    /// To be sent with a correction of this label.
    pub fence: i64,
    /// Where the item is now.
    pub state: ItemState,
    /// How far the rater is.
    pub progress: Progress,
}

/// One of a rater's own labels.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(rename = "MyReviewLabel")]
pub struct MyLabel {
    /// The item.
    pub item: String,
    /// `label` or `skip`.
    pub kind: String,
    /// When, microseconds since the epoch.
    pub at: i64,
}

impl Queue {
    fn at(&self, scope: Scope) -> At<'_> {
        At {
            project: scope.project,
            queue: &self.name,
        }
    }
}

/// Whether this rater sees the pair in the other order. Each rater has an order of their
/// own for each item, the same every time.
fn is_swapped(item: &str, rater: &str) -> bool {
    Digest::of(format!("{item} {rater}").as_bytes()).0[0] & 1 == 1
}

fn shown(
    queue: &Queue,
    item: &Item,
    slot: &Slot,
    rater: &str,
    progress: Progress,
    mine: Option<&LabelRow>,
) -> ItemShown {
    let document = &queue.document;
    let swapped = is_swapped(&item.id, rater);
    let mut snapshot = item.snapshot.clone();
    if swapped {
        snapshot = snapshot.swapped();
    }
    if document.asks_expected() {
        snapshot.expected = None;
    }
    let mut facts = facts_for_raters(&item.facts, document.mask);
    if swapped && let Some(Value::Array(candidates)) = facts.get_mut("candidates") {
        candidates.reverse();
    }
    let own = |values: Values| match swapped {
        true => values::swapped(document, values),
        false => values,
    };
    let asks = document
        .questions
        .iter()
        .filter(|question| question.applies_to(&snapshot));
    ItemShown {
        id: item.id.clone(),
        queue: queue.name.clone(),
        digest: queue.digest.to_string(),
        fence: slot.fence,
        until: slot.until.unwrap_or(0),
        texts: Texts {
            input: snapshot.text(Target::Input),
            output: snapshot.text(Target::Output),
        },
        asks: asks.map(|question| question.name.clone()).collect(),
        facts: (!document.blind).then_some(facts),
        place: progress.labelled + 1,
        of: progress.labelled + progress.left,
        mine_before: progress.labelled,
        mine: mine
            .filter(|mine| mine.kind == "label")
            .map(|mine| own(mine.values.clone())),
        comment: mine.map(|mine| mine.comment.clone()).unwrap_or_default(),
        snapshot,
    }
}

/// Gives a rater the item that they hold, or the next one, and keeps it for them. Items in
/// `besides` are those that they have before them already: the one after is wanted.
///
/// # Errors
/// There is no such queue, or they hold too many items.
pub async fn next_item(
    desk: Desk<'_>,
    rater: &Rater,
    queue: &str,
    besides: &[String],
) -> Result<Option<ItemShown>> {
    let queue = rater.queue(desk, queue).await?;
    let (at, id) = (queue.at(rater.scope), rater.id());
    let mut tx = desk.db.begin_write().await?;
    tx.serialise().await?;
    let held = store::held_by(&mut tx, at, &id).await?;
    let count = held.len();
    let known = held.into_iter().find(|slot| !besides.contains(&slot.item));
    let slot = match known {
        Some(slot) => keep(&mut tx, &queue, rater, &slot, slot.fence).await?,
        None if count >= MOST_HELD => {
            let message = format!("you hold {count} items of this queue; label or release one");
            return Err(AppError::conflict(message).code("too_many_held"));
        }
        None => match store::free_slot(&mut tx, at, &id).await? {
            Some(slot) => keep(&mut tx, &queue, rater, &slot, slot.fence + 1).await?,
            None => return Ok(None),
        },
    };
    let item = store::find_item(&mut tx, rater.scope.project, &slot.item).await?;
    let item = item.ok_or_else(no_such_item)?;
    tx.commit().await?;
    let progress = store::progress(desk.db, at, &id).await?;
    Ok(Some(shown(&queue, &item, &slot, &id, progress, None)))
}

/// Keeps a place for a rater from now on.
async fn keep(
    tx: &mut WriteTx,
    queue: &Queue,
    rater: &Rater,
    seen: &Slot,
    fence: i64,
) -> Result<Slot> {
    let now = tx.db().now_us();
    let is_new = fence != seen.fence;
    let slot = Slot {
        state: "held".to_owned(),
        rater: Some(rater.id()),
        fence,
        held_at: if is_new { Some(now) } else { seen.held_at },
        until: Some(now + i64::from(queue.document.reserve_s) * 1_000_000),
        ..seen.clone()
    };
    if !store::change_slot(tx, rater.scope.project, seen, &slot).await? {
        // Nobody else can have been here: the transaction stands behind the lock.
        return Err(AppError::conflict("the item was taken meanwhile").code("item_taken"));
    }
    Ok(slot)
}

/// An item with its places and labels, in a transaction behind the lock.
struct Opened {
    tx: WriteTx,
    queue: Queue,
    item: Item,
    slots: Vec<Slot>,
    labels: Vec<LabelRow>,
}

async fn open(desk: Desk<'_>, scope: Scope, id: &str) -> Result<Opened> {
    let found = store::read_item(desk.db, scope.project, id).await?;
    let found = found.ok_or_else(no_such_item)?;
    let queue = find_queue(desk, scope, &found.queue).await?;
    let mut tx = desk.db.begin_write().await?;
    tx.serialise().await?;
    let item = store::find_item(&mut tx, scope.project, id).await?;
    let item = item.ok_or_else(no_such_item)?;
    Ok(Opened {
        slots: store::slots(&mut tx, scope.project, id).await?,
        labels: store::labels_of(&mut tx, scope.project, id).await?,
        tx,
        queue,
        item,
    })
}

/// As [`open`], for a rater who may see only one queue.
async fn open_for(desk: Desk<'_>, rater: &Rater, id: &str) -> Result<Opened> {
    let found = store::read_item(desk.db, rater.scope.project, id).await?;
    match found {
        Some(item) if rater.may_see(&item.queue) => open(desk, rater.scope, id).await,
        _ => Err(no_such_item()),
    }
}

impl Opened {
    fn mine(&self, rater: &str) -> Option<&LabelRow> {
        self.labels
            .iter()
            .rev()
            .find(|label| label.current && label.rater == rater && label.kind != "adjudication")
    }

    /// The place that this rater holds or has filled.
    fn slot_of(&self, rater: &str) -> Option<&Slot> {
        self.slots
            .iter()
            .find(|slot| slot.rater.as_deref() == Some(rater))
    }

    /// A moment after everything that this rater said of the item, also when the clock was set back.
    fn moment(&self, rater: &str) -> i64 {
        let own = self.labels.iter().filter(|label| label.rater == rater);
        let last = own
            .map(|label| label.at.max(label.ended_at.unwrap_or(0)))
            .max();
        self.tx.db().now_us().max(last.unwrap_or(0) + 1)
    }

    /// The refusal of a label that comes too late: what became of the item.
    fn over(&self) -> AppError {
        let now = self.tx.db().now_us();
        let until = self.slots.iter().filter(|slot| slot.is_held(now));
        let until = until.filter_map(|slot| slot.until).min();
        let (code, state) = if self.item.state == ItemState::Closed {
            ("item_closed", "it is closed".to_owned())
        } else if self.slots.iter().any(|slot| slot.is_free(now)) {
            ("item_free", "nobody holds it".to_owned())
        } else if let Some(until) = until {
            let until = crate::traces::time::format_rfc3339(until);
            (
                "item_taken",
                format!("somebody else holds it until {until}"),
            )
        } else {
            ("item_done", "it has all its labels".to_owned())
        };
        AppError::conflict(format!("you do not hold this item any more: {state}"))
            .code(code)
            .hint(if code == "item_free" {
                "ask for the next item: it may be given to you again"
            } else {
                "go on with the next item"
            })
            .at("fence")
    }

    /// Sets the item's state from its places and labels.
    async fn settle(&mut self, project: base::ProjectId) -> Result<ItemState> {
        self.slots = store::slots(&mut self.tx, project, &self.item.id).await?;
        self.labels = store::labels_of(&mut self.tx, project, &self.item.id).await?;
        let full = self.slots.iter().all(|slot| slot.state == "done");
        let state = match full {
            false => ItemState::Open,
            true if self.queue.document.adjudicate
                && differ(&self.queue.document, &self.labels) =>
            {
                ItemState::Adjudicate
            }
            true => ItemState::Done,
        };
        if state != self.item.state {
            store::set_state(&mut self.tx, project, &self.item.id, state).await?;
            self.item.state = state;
        }
        Ok(state)
    }
}

/// Whether raters differ on a question on which they can.
pub(super) fn differ(document: &QueueDocument, labels: &[LabelRow]) -> bool {
    let current = || {
        labels
            .iter()
            .filter(|label| label.current && label.kind == "label")
    };
    document
        .questions
        .iter()
        .filter(|question| question.kind.is_compared())
        .any(|question| {
            let given: Vec<&Value> = current()
                .filter_map(|label| label.values.get(&question.name))
                .collect();
            given.iter().enumerate().any(|(index, one)| {
                given[index + 1..]
                    .iter()
                    .any(|other| !values::is_same(question, one, other))
            })
        })
}

/// Wrong answers: the first of them says where.
fn wrong(problems: Vec<Problem>) -> AppError {
    let at = problems.first().map(|problem| problem.path.clone());
    AppError::invalid(CatalogError::Invalid(problems).to_string())
        .code("invalid_label")
        .at(at.unwrap_or_default())
}

fn check_comment(comment: &str) -> Result<String> {
    if comment.len() > COMMENT_BYTES || comment.contains('\0') {
        return Err(AppError::invalid("a remark has at most 16 KiB and no NUL").at("comment"));
    }
    Ok(comment.trim().to_owned())
}

/// Takes a label for an item that the rater holds, or corrects the one that they gave. It is
/// durable when this answers; its scores are with their traces, or will be.
///
/// # Errors
/// 400 with the place of what is wrong; 409 that names the item's state when the rater does
/// not hold it any more.
pub async fn label(app: &App, rater: &Rater, item: &str, given: &Given) -> Result<Labelled> {
    let desk = Desk::of(app);
    let (project, id) = (rater.scope.project, rater.id());
    let mut opened = open_for(desk, rater, item).await?;
    let slot = match opened.slot_of(&id) {
        Some(slot) if slot.fence == given.fence && opened.item.state != ItemState::Closed => {
            slot.clone()
        }
        _ => return Err(opened.over()),
    };
    let comment = check_comment(&given.comment)?;
    let swapped = is_swapped(&opened.item.id, &id);
    let document = &opened.queue.document;
    let checked = values::check(document, &opened.item.snapshot, &given.values).map_err(wrong)?;
    let checked = match swapped {
        true => values::swapped(document, checked),
        false => checked,
    };
    let before = opened.mine(&id).cloned();
    let same = before.as_ref().filter(|before| {
        slot.state == "done" && before.values == checked && before.comment == comment
    });
    let label = match same {
        // The same again: the answer to the first may have been lost on its way.
        Some(before) => before.id.clone(),
        None => {
            let at = opened.moment(&id);
            if let Some(before) = &before {
                store::end_label(&mut opened.tx, project, &before.id, at, true).await?;
            }
            let new = LabelRow {
                id: store::new_id(desk.db),
                item: opened.item.id.clone(),
                digest: opened.queue.digest.to_string(),
                kind: "label".to_owned(),
                rater: id.clone(),
                values: checked,
                comment,
                took_us: (at - slot.held_at.unwrap_or(at)).max(0),
                at,
                current: true,
                ended_at: None,
                replaces: before.map(|before| before.id),
            };
            store::insert_label(&mut opened.tx, opened.queue.at(rater.scope), &new, false).await?;
            let done = Slot {
                state: "done".to_owned(),
                until: None,
                ..slot.clone()
            };
            store::change_slot(&mut opened.tx, project, &slot, &done).await?;
            opened.settle(project).await?;
            new.id
        }
    };
    let (state, queue, item) = (opened.item.state, opened.queue.name, opened.item.id);
    opened.tx.commit().await?;
    super::scores::send(app, project, &label).await;
    Ok(Labelled {
        label,
        item,
        fence: slot.fence,
        state,
        progress: super::progress(desk, rater, &queue).await?,
        queue,
    })
}

/// Gives an item back unjudged; this rater is not given it again. Why is kept.
///
/// # Errors
/// 409 that names the item's state when the rater does not hold it any more.
pub async fn skip(
    desk: Desk<'_>,
    rater: &Rater,
    item: &str,
    fence: i64,
    reason: &str,
) -> Result<Progress> {
    let (project, id) = (rater.scope.project, rater.id());
    let reason = check_comment(reason)?;
    let mut opened = open_for(desk, rater, item).await?;
    let slot = match opened.slot_of(&id) {
        Some(slot) if slot.fence == fence && slot.state == "held" => slot.clone(),
        _ => return Err(opened.over()),
    };
    let at = opened.moment(&id);
    let new = LabelRow {
        id: store::new_id(desk.db),
        item: opened.item.id.clone(),
        digest: opened.queue.digest.to_string(),
        kind: "skip".to_owned(),
        rater: id,
        values: Values::new(),
        comment: reason,
        took_us: (at - slot.held_at.unwrap_or(at)).max(0),
        at,
        current: true,
        ended_at: None,
        replaces: None,
    };
    store::insert_label(&mut opened.tx, opened.queue.at(rater.scope), &new, true).await?;
    store::change_slot(&mut opened.tx, project, &slot, &freed(&slot)).await?;
    let queue = opened.queue.name;
    opened.tx.commit().await?;
    super::progress(desk, rater, &queue).await
}

fn freed(slot: &Slot) -> Slot {
    Slot {
        state: "free".to_owned(),
        rater: None,
        fence: slot.fence + 1,
        held_at: None,
        until: None,
        ..slot.clone()
    }
}

/// Takes back what the rater did last in a queue, a label or a skip, and gives them the item
/// again with what they had answered.
///
/// # Errors
/// There is nothing to take back, or the item was settled or taken meanwhile.
pub async fn undo(app: &App, rater: &Rater, queue: &str) -> Result<ItemShown> {
    let desk = Desk::of(app);
    let (project, id) = (rater.scope.project, rater.id());
    let queue = rater.queue(desk, queue).await?;
    let at = queue.at(rater.scope);
    let mut tx = desk.db.begin_write().await?;
    let last = store::last_act(&mut tx, at, &id).await?;
    tx.rollback().await?;
    let nothing = || AppError::conflict("there is nothing to take back").code("nothing_to_undo");
    let last = last.ok_or_else(nothing)?;
    let mut opened = open_for(desk, rater, &last.item).await?;
    // It may have been taken back between the look and the lock.
    let last = opened.mine(&id).filter(|mine| mine.id == last.id).cloned();
    let last = last.ok_or_else(nothing)?;
    let seen = match last.kind.as_str() {
        "label" => opened.slot_of(&id).filter(|slot| slot.state == "done"),
        _ => {
            let now = desk.db.now_us();
            opened.slots.iter().find(|slot| slot.is_free(now))
        }
    };
    let seen = match seen {
        Some(seen) if opened.item.state != ItemState::Closed => seen.clone(),
        _ => return Err(opened.over()),
    };
    let moment = opened.moment(&id);
    store::end_label(
        &mut opened.tx,
        project,
        &last.id,
        moment,
        last.kind != "label",
    )
    .await?;
    let slot = keep(&mut opened.tx, &queue, rater, &seen, seen.fence + 1).await?;
    opened.settle(project).await?;
    let item = opened.item;
    opened.tx.commit().await?;
    if last.kind == "label" {
        super::scores::send(app, project, &last.id).await;
    }
    let progress = store::progress(desk.db, at, &id).await?;
    Ok(shown(&queue, &item, &slot, &id, progress, Some(&last)))
}

/// An item that the rater holds or has labelled, with what they answered.
///
/// # Errors
/// They have nothing to do with such an item.
pub async fn my_item(desk: Desk<'_>, rater: &Rater, item: &str) -> Result<ItemShown> {
    let id = rater.id();
    let opened = open_for(desk, rater, item).await?;
    let slot = opened.slot_of(&id).cloned().ok_or_else(no_such_item)?;
    let mine = opened.mine(&id).cloned();
    let (queue, item) = (opened.queue, opened.item);
    opened.tx.rollback().await?;
    let progress = store::progress(desk.db, queue.at(rater.scope), &id).await?;
    Ok(shown(&queue, &item, &slot, &id, progress, mine.as_ref()))
}

/// What a rater labelled and skipped in a queue, the newest first, behind this place.
///
/// # Errors
/// There is no such queue.
pub async fn my_labels(
    desk: Desk<'_>,
    rater: &Rater,
    queue: &str,
    before: Option<(i64, String)>,
    limit: i64,
) -> Result<(Vec<MyLabel>, Option<(i64, String)>)> {
    let queue = rater.queue(desk, queue).await?;
    let before = before.unwrap_or((i64::MAX, String::new()));
    let mut rows = store::labels_by(
        desk.db,
        queue.at(rater.scope),
        &rater.id(),
        before,
        limit + 1,
    )
    .await?;
    let most = usize::try_from(limit).unwrap_or(usize::MAX);
    let more = rows.len() > most;
    rows.truncate(most);
    let next = rows
        .last()
        .filter(|_| more)
        .map(|row| (row.at, row.id.clone()));
    let mine = rows.into_iter().map(|row| MyLabel {
        item: row.item,
        kind: row.kind,
        at: row.at,
    });
    Ok((mine.collect(), next))
}

/// Gives back what a rater holds in a queue: they leave. How many items that were.
///
/// # Errors
/// There is no such queue.
pub async fn release(desk: Desk<'_>, rater: &Rater, queue: &str) -> Result<u64> {
    let queue = rater.queue(desk, queue).await?;
    let mut tx = desk.db.begin_write().await?;
    tx.serialise().await?;
    let project = rater.scope.project;
    let released = store::release_all(&mut tx, project, Some(&queue.name), &rater.id()).await?;
    tx.commit().await?;
    Ok(released)
}

/// Settles an item: these answers are the ones that count, whatever its raters said. It is
/// closed by that; settling it again replaces the answers.
///
/// # Errors
/// 400 with the place of what is wrong; 409 while raters are still to judge it.
pub async fn adjudicate(
    app: &App,
    scope: Scope,
    item: &str,
    given: &Values,
    comment: &str,
) -> Result<ItemState> {
    let desk = Desk::of(app);
    let (project, id) = (scope.project, scope.actor.to_string());
    let comment = check_comment(comment)?;
    let mut opened = open(desk, scope, item).await?;
    if opened.item.state == ItemState::Open {
        let refusal = AppError::conflict("raters have not judged this item yet");
        return Err(refusal.code("item_open").hint("wait for them, or close it"));
    }
    let checked =
        values::check(&opened.queue.document, &opened.item.snapshot, given).map_err(wrong)?;
    let before = opened
        .labels
        .iter()
        .rev()
        .find(|label| label.current && label.kind == "adjudication")
        .cloned();
    let at = opened.moment(&id);
    // Somebody else's scores stay where they are, so theirs are taken back.
    let mut ended = None;
    if let Some(before) = &before {
        let is_mine = before.rater == id;
        store::end_label(&mut opened.tx, project, &before.id, at, is_mine).await?;
        ended = (!is_mine).then(|| before.id.clone());
    }
    let new = LabelRow {
        id: store::new_id(desk.db),
        item: opened.item.id.clone(),
        digest: opened.queue.digest.to_string(),
        kind: "adjudication".to_owned(),
        rater: id.clone(),
        values: checked,
        comment,
        took_us: 0,
        at,
        current: true,
        ended_at: None,
        replaces: before
            .filter(|before| before.rater == id)
            .map(|before| before.id),
    };
    store::insert_label(&mut opened.tx, opened.queue.at(scope), &new, false).await?;
    store::set_state(&mut opened.tx, project, &opened.item.id, ItemState::Closed).await?;
    let detail = json!({"queue": opened.queue.name, "label": new.id});
    let line = db::audit::Line::new(scope, "review_item.adjudicate", &opened.item.id);
    line.detail(detail).write(&mut opened.tx).await?;
    opened.tx.commit().await?;
    if let Some(ended) = ended {
        super::scores::send(app, project, &ended).await;
    }
    super::scores::send(app, project, &new.id).await;
    Ok(ItemState::Closed)
}

/// Takes an item out: nobody is given it any more. Its labels stay.
///
/// # Errors
/// There is no such item, or it is closed already.
pub async fn close(desk: Desk<'_>, scope: Scope, item: &str, reason: &str) -> Result<ItemState> {
    let mut opened = open(desk, scope, item).await?;
    if opened.item.state == ItemState::Closed {
        return Err(AppError::conflict("the item is closed already").code("item_closed"));
    }
    let project = scope.project;
    for slot in opened.slots.clone() {
        if slot.state == "held" {
            store::change_slot(&mut opened.tx, project, &slot, &freed(&slot)).await?;
        }
    }
    store::set_state(&mut opened.tx, project, &opened.item.id, ItemState::Closed).await?;
    let reason = check_comment(reason)?;
    let line = db::audit::Line::new(scope, "review_item.close", &opened.item.id);
    let detail = json!({"queue": opened.queue.name});
    line.detail(detail)
        .reason(&reason)
        .write(&mut opened.tx)
        .await?;
    opened.tx.commit().await?;
    Ok(ItemState::Closed)
}

/// Puts a closed item back to where its labels say that it is.
///
/// # Errors
/// There is no such item, or it is not closed.
pub async fn reopen(app: &App, scope: Scope, item: &str, reason: &str) -> Result<ItemState> {
    let desk = Desk::of(app);
    let reason = check_comment(reason)?;
    let mut opened = open(desk, scope, item).await?;
    if opened.item.state != ItemState::Closed {
        return Err(AppError::conflict("the item is not closed").code("item_open"));
    }
    let settled = opened.labels.iter().rev();
    let settled = settled
        .clone()
        .find(|label| label.current && label.kind == "adjudication")
        .cloned();
    if let Some(settled) = &settled {
        let at = opened.moment(&settled.rater);
        store::end_label(&mut opened.tx, scope.project, &settled.id, at, false).await?;
    }
    let state = opened.settle(scope.project).await?;
    let line = db::audit::Line::new(scope, "review_item.reopen", &opened.item.id);
    let detail = json!({"queue": opened.queue.name});
    line.detail(detail)
        .reason(&reason)
        .write(&mut opened.tx)
        .await?;
    opened.tx.commit().await?;
    if let Some(settled) = settled {
        super::scores::send(app, scope.project, &settled.id).await;
    }
    Ok(state)
}
