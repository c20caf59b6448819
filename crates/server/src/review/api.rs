//! Review over JSON. A name holds slashes, so it is one percent-encoded segment.
//!
//! `/api/v1/review/inbox…` and an item's `mine`, `label` and `skip` are for raters, who may
//! see nothing else; everything beside them is for those who run queues.

use axum::Json as Answer;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use base::Cursor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::store::Progress;
use super::{
    Desk, ExportFormat, FillRequest, Filled, Given, GoldMade, GoldRequest, Guest, GuestMade, Inbox,
    InboxRow, ItemDetail, ItemPage, ItemShown, ItemState, Labelled, MyLabel, NewGuest, QueueRow,
    QueueShown, Rater, Values,
};
use crate::app::App;
use crate::auth::{Identity, Permission};
use crate::error::{AppError, Result};
use crate::extract::{Json, Query};
use crate::http::{Access, Route};
use crate::openapi::Doc;

/// A label with corrected texts and many marked places.
const LABEL_BYTES: usize = 2 << 20;

fn doc(summary: &'static str) -> Doc {
    Doc::new("review", summary)
}

pub(super) fn routes() -> Vec<Route> {
    let rate = Access::Needs(Permission::Label);
    let read = Access::Needs(Permission::ReadReviews);
    let manage = Access::Needs(Permission::ManageReviews);
    vec![
        Route::get("/api/v1/review/inbox", rate, inbox)
            .doc(doc("The queues that the caller may label in, and how far they are").answer::<Inboxes>()),
        Route::get("/api/v1/review/inbox/{name}", rate, inbox_queue)
            .doc(doc("A queue as its raters see it").answer::<Inbox>()),
        Route::post("/api/v1/review/inbox/{name}/next", rate, next)
            .doc(doc("Be given an item: the one that the caller holds, or the next one").body::<NextBody>().answer::<ItemAnswer>()),
        Route::post("/api/v1/review/inbox/{name}/undo", rate, undo)
            .doc(doc("Take back one's last label or skip and hold the item again").answer::<ItemAnswer>()),
        Route::post("/api/v1/review/inbox/{name}/release", rate, release)
            .doc(doc("Give back every item that one holds: one leaves").answer::<Released>()),
        Route::get("/api/v1/review/inbox/{name}/mine", rate, my_labels)
            .doc(doc("What one labelled and skipped, newest first").query::<PageQuery>().answer::<MyLabels>()),
        Route::get("/api/v1/review/items/{id}/mine", rate, my_item)
            .doc(doc("An item that one holds or has labelled, with one's answers").answer::<ItemAnswer>()),
        Route::post("/api/v1/review/items/{id}/label", rate, label)
            .body_limit(LABEL_BYTES)
            .doc(doc("Label an item that one holds, or correct one's label of it; durable when this answers").body::<Given>().answer::<Labelled>()),
        Route::post("/api/v1/review/items/{id}/skip", rate, skip)
            .doc(doc("Give an item back unjudged, for good").body::<SkipBody>().answer::<Progress>()),
        Route::get("/api/v1/review/queues", read, queues)
            .doc(doc("Review queues by name, with how many items are in each state").answer::<Queues>()),
        Route::get("/api/v1/review/queues/{name}", read, queue)
            .doc(doc("A queue with its raters and how far they agree").answer::<QueueShown>()),
        Route::get("/api/v1/review/queues/{name}/items", read, items)
            .doc(doc("Items with everything that was said of them, in the order in which they are given out").query::<ItemsQuery>().answer::<ItemPage>()),
        Route::get("/api/v1/review/queues/{name}/export", read, export)
            .doc(doc("Every item and label as CSV or JSON Lines").query::<ExportQuery>()),
        Route::get("/api/v1/review/items/{id}", read, item)
            .doc(doc("An item with everything that was said of it").answer::<ItemDetail>()),
        Route::post("/api/v1/review/queues/{name}/fill", manage, fill)
            .doc(doc("Add items from traces, a dataset or an evaluation").body::<FillRequest>().answer::<Filled>().status(201)),
        Route::post("/api/v1/review/queues/{name}/gold", manage, gold)
            .doc(doc("Make settled items examples of a dataset").body::<GoldRequest>().answer::<GoldMade>().status(201)),
        Route::get("/api/v1/review/queues/{name}/guests", read, guests)
            .doc(doc("Who was given a link to the queue").answer::<Guests>()),
        Route::post("/api/v1/review/queues/{name}/guests", manage, make_guest)
            .doc(doc("Make a link by which one person without an account labels in this queue; shown once").body::<NewGuest>().answer::<GuestMade>().status(201)),
        Route::delete("/api/v1/review/guests/{id}", manage, revoke_guest)
            .doc(doc("Revoke a guest's link; their labels stay").status(204)),
        Route::post("/api/v1/review/items/{id}/adjudicate", manage, adjudicate)
            .body_limit(LABEL_BYTES)
            .doc(doc("Settle an item: these answers count").body::<SettleBody>().answer::<StateAnswer>()),
        Route::post("/api/v1/review/items/{id}/close", manage, close)
            .doc(doc("Take an item out; its labels stay").body::<ReasonBody>().answer::<StateAnswer>()),
        Route::post("/api/v1/review/items/{id}/reopen", manage, reopen)
            .doc(doc("Put a closed item back").body::<ReasonBody>().answer::<StateAnswer>()),
    ]
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ReviewInboxes")]
struct Inboxes {
    /// By name.
    items: Vec<InboxRow>,
}

async fn inbox(State(app): State<App>, identity: Identity) -> Result<Answer<Inboxes>> {
    let rater = Rater::of(&identity)?;
    let items = super::inbox(Desk::of(&app), &rater).await?;
    Ok(Answer(Inboxes { items }))
}

async fn inbox_queue(
    State(app): State<App>,
    identity: Identity,
    Path(name): Path<String>,
) -> Result<Answer<Inbox>> {
    let rater = Rater::of(&identity)?;
    Ok(Answer(
        super::inbox_queue(Desk::of(&app), &rater, &name).await?,
    ))
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "ReviewNext")]
struct NextBody {
    /// Items that one has before one already: the one after them is wanted.
    besides: Vec<String>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ReviewItemAnswer")]
struct ItemAnswer {
    /// The item; null when there is none left for the caller.
    item: Option<ItemShown>,
}

async fn next(
    State(app): State<App>,
    identity: Identity,
    Path(name): Path<String>,
    Json(body): Json<NextBody>,
) -> Result<Answer<ItemAnswer>> {
    let rater = Rater::of(&identity)?;
    let item = super::next_item(Desk::of(&app), &rater, &name, &body.besides).await?;
    Ok(Answer(ItemAnswer { item }))
}

async fn undo(
    State(app): State<App>,
    identity: Identity,
    Path(name): Path<String>,
) -> Result<Answer<ItemAnswer>> {
    let rater = Rater::of(&identity)?;
    let item = Some(super::undo(&app, &rater, &name).await?);
    Ok(Answer(ItemAnswer { item }))
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ReviewReleased")]
struct Released {
    /// How many items were given back.
    released: u64,
}

async fn release(
    State(app): State<App>,
    identity: Identity,
    Path(name): Path<String>,
) -> Result<Answer<Released>> {
    let rater = Rater::of(&identity)?;
    let released = super::release(Desk::of(&app), &rater, &name).await?;
    Ok(Answer(Released { released }))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct PageQuery {
    /// Where the page before ended.
    cursor: Option<String>,
    /// How many rows, at most 200.
    limit: Option<u32>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "MyReviewLabels")]
struct MyLabels {
    /// The newest first.
    items: Vec<MyLabel>,
    /// What to ask the next page with.
    next_cursor: Option<String>,
}

async fn my_labels(
    State(app): State<App>,
    identity: Identity,
    Path(name): Path<String>,
    Query(query): Query<PageQuery>,
) -> Result<Answer<MyLabels>> {
    let rater = Rater::of(&identity)?;
    let before: Option<(i64, String)> = query
        .cursor
        .map(|cursor| Cursor::from_client(cursor).key())
        .transpose()
        .map_err(db::CatalogError::from)?;
    let limit = i64::from(query.limit.unwrap_or(50).clamp(1, 200));
    let (items, next) = super::my_labels(Desk::of(&app), &rater, &name, before, limit).await?;
    Ok(Answer(MyLabels {
        items,
        next_cursor: next.map(|next| Cursor::new(&next).as_str().to_owned()),
    }))
}

async fn my_item(
    State(app): State<App>,
    identity: Identity,
    Path(id): Path<String>,
) -> Result<Answer<ItemAnswer>> {
    let rater = Rater::of(&identity)?;
    let item = Some(super::my_item(Desk::of(&app), &rater, &id).await?);
    Ok(Answer(ItemAnswer { item }))
}

async fn label(
    State(app): State<App>,
    identity: Identity,
    Path(id): Path<String>,
    Json(given): Json<Given>,
) -> Result<Answer<Labelled>> {
    let rater = Rater::of(&identity)?;
    Ok(Answer(super::label(&app, &rater, &id, &given).await?))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "ReviewSkip")]
struct SkipBody {
    /// The fence that came with the item.
    fence: i64,
    /// Why.
    #[serde(default)]
    reason: String,
}

async fn skip(
    State(app): State<App>,
    identity: Identity,
    Path(id): Path<String>,
    Json(body): Json<SkipBody>,
) -> Result<Answer<Progress>> {
    let rater = Rater::of(&identity)?;
    let progress = super::skip(Desk::of(&app), &rater, &id, body.fence, &body.reason).await?;
    Ok(Answer(progress))
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ReviewQueues")]
struct Queues {
    /// By name.
    items: Vec<QueueRow>,
}

async fn queues(State(app): State<App>, identity: Identity) -> Result<Answer<Queues>> {
    let items = super::queues(Desk::of(&app), identity.scope()).await?;
    Ok(Answer(Queues { items }))
}

async fn queue(
    State(app): State<App>,
    identity: Identity,
    Path(name): Path<String>,
) -> Result<Answer<QueueShown>> {
    Ok(Answer(
        super::queue(Desk::of(&app), identity.scope(), &name).await?,
    ))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ItemsQuery {
    /// Only those in this state: `open`, `done`, `adjudicate` or `closed`.
    state: Option<String>,
    /// Where the page before ended.
    cursor: Option<String>,
    /// How many items, at most 200.
    limit: Option<usize>,
}

async fn items(
    State(app): State<App>,
    identity: Identity,
    Path(name): Path<String>,
    Query(query): Query<ItemsQuery>,
) -> Result<Answer<ItemPage>> {
    let state = match query.state.as_deref() {
        None => None,
        Some(word) => Some(ItemState::parse(word).ok_or_else(|| {
            let message = format!(
                "{word:?} is not a state; the states are open, done, adjudicate and closed"
            );
            AppError::invalid(message).at("state")
        })?),
    };
    let page = super::items(
        Desk::of(&app),
        identity.scope(),
        &name,
        state,
        query.cursor,
        query.limit.unwrap_or(50),
    )
    .await?;
    Ok(Answer(page))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ExportQuery {
    /// `jsonl` (an object per item; the default) or `csv` (a row per label).
    format: Option<String>,
}

async fn export(
    State(app): State<App>,
    identity: Identity,
    Path(name): Path<String>,
    Query(query): Query<ExportQuery>,
) -> Result<Response> {
    let format = ExportFormat::parse(query.format.as_deref().unwrap_or("jsonl"))?;
    let text = super::export(Desk::of(&app), identity.scope(), &name, format).await?;
    let disposition = format!("attachment; filename=\"labels.{}\"", format.suffix());
    let headers = [
        (header::CONTENT_TYPE, format.media_type().to_owned()),
        (header::CONTENT_DISPOSITION, disposition),
    ];
    Ok((headers, text).into_response())
}

async fn item(
    State(app): State<App>,
    identity: Identity,
    Path(id): Path<String>,
) -> Result<Answer<ItemDetail>> {
    Ok(Answer(
        super::item(Desk::of(&app), identity.scope(), &id).await?,
    ))
}

async fn fill(
    State(app): State<App>,
    identity: Identity,
    Path(name): Path<String>,
    Json(request): Json<FillRequest>,
) -> Result<(StatusCode, Answer<Filled>)> {
    may_read(&identity, &request)?;
    let filled = super::fill(&app, identity.scope(), &name, &request).await?;
    Ok((StatusCode::CREATED, Answer(filled)))
}

/// Nobody shows to others what they may not see.
pub(super) fn may_read(identity: &Identity, request: &FillRequest) -> Result<()> {
    identity.require(match request.source {
        super::FillSource::Traces(_) | super::FillSource::Picked(_) => Permission::ReadTraces,
        super::FillSource::Dataset(_) => Permission::ReadDatasets,
        super::FillSource::Evaluation(_) => Permission::ReadEvaluations,
    })
}

async fn gold(
    State(app): State<App>,
    identity: Identity,
    Path(name): Path<String>,
    Json(request): Json<GoldRequest>,
) -> Result<(StatusCode, Answer<GoldMade>)> {
    identity.require(Permission::WriteDatasets)?;
    let made = super::gold(&app, identity.scope(), &name, &request).await?;
    Ok((StatusCode::CREATED, Answer(made)))
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ReviewGuests")]
struct Guests {
    /// The newest first.
    items: Vec<Guest>,
}

async fn guests(
    State(app): State<App>,
    identity: Identity,
    Path(name): Path<String>,
) -> Result<Answer<Guests>> {
    let items = super::guests(Desk::of(&app), identity.scope(), &name).await?;
    Ok(Answer(Guests { items }))
}

async fn make_guest(
    State(app): State<App>,
    identity: Identity,
    Path(name): Path<String>,
    Json(new): Json<NewGuest>,
) -> Result<(StatusCode, Answer<GuestMade>)> {
    let made = super::make_guest(&app, identity.scope(), &name, &new).await?;
    Ok((StatusCode::CREATED, Answer(made)))
}

async fn revoke_guest(
    State(app): State<App>,
    identity: Identity,
    Path(id): Path<String>,
) -> Result<StatusCode> {
    super::revoke_guest(&app, identity.scope(), &id).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "ReviewSettle")]
struct SettleBody {
    /// The answers that count, by question. Of a pair `a` is the first one.
    values: Values,
    /// Why.
    #[serde(default)]
    comment: String,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ReviewStateAnswer")]
struct StateAnswer {
    /// Where the item is now.
    state: ItemState,
}

async fn adjudicate(
    State(app): State<App>,
    identity: Identity,
    Path(id): Path<String>,
    Json(body): Json<SettleBody>,
) -> Result<Answer<StateAnswer>> {
    let scope = identity.scope();
    let state = super::adjudicate(&app, scope, &id, &body.values, &body.comment).await?;
    Ok(Answer(StateAnswer { state }))
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "ReviewReason")]
struct ReasonBody {
    /// Why.
    reason: String,
}

async fn close(
    State(app): State<App>,
    identity: Identity,
    Path(id): Path<String>,
    Json(body): Json<ReasonBody>,
) -> Result<Answer<StateAnswer>> {
    let state = super::close(Desk::of(&app), identity.scope(), &id, &body.reason).await?;
    Ok(Answer(StateAnswer { state }))
}

async fn reopen(
    State(app): State<App>,
    identity: Identity,
    Path(id): Path<String>,
    Json(body): Json<ReasonBody>,
) -> Result<Answer<StateAnswer>> {
    let state = super::reopen(&app, identity.scope(), &id, &body.reason).await?;
    Ok(Answer(StateAnswer { state }))
}
