//! Promotion over JSON.

use axum::Json as Answer;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use base::{Cursor, Digest};
use db::catalog::Selector;
use db::promotion::{NewEvidence, ProposalFilter, ProposalState, RollbackRequest, Verdict};
use db::{MoveRequest, PageRequest};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::views::{
    BoardRowView, EnvironmentView, EnvironmentsView, EvidenceView, GatesView, OutcomeBody,
    PointerView, ProposalView, ProtectionView, QuarantineView, RulesBody, next_cursor,
};
use super::{parse_label, parse_name};
use crate::app::App;
use crate::auth::{Identity, Permission};
use crate::error::{AppError, Result};
use crate::extract::{Json, Query};
use crate::http::{Access, Route};
use crate::openapi::Doc;

pub(super) fn routes() -> Vec<Route> {
    let mut routes = environment_routes();
    routes.extend(proposal_routes());
    routes.extend(content_routes());
    routes
}

fn environment_routes() -> Vec<Route> {
    let read = Access::Needs(Permission::ReadCatalog);
    let manage = Access::Needs(Permission::ManageEnvironments);
    vec![
        Route::get("/api/v1/environments", read, environments).doc(
            Doc::new("promotion", "The environments in their order, and what protects labels")
                .answer::<EnvironmentsView>(),
        ),
        Route::post("/api/v1/environments", manage, add_environment).doc(
            Doc::new("promotion", "Add an environment after the others")
                .body::<AddEnvironment>()
                .answer::<EnvironmentsView>()
                .status(201),
        ),
        Route::put("/api/v1/environments", manage, order_environments).doc(
            Doc::new("promotion", "Put the environments in another order")
                .body::<OrderEnvironments>()
                .answer::<EnvironmentsView>(),
        ),
        Route::put("/api/v1/protections/{label}", manage, protect).doc(
            Doc::new("promotion", "Set what protects a label, environment or not")
                .body::<Protect>()
                .answer::<ProtectionView>(),
        ),
        Route::get("/api/v1/board", read, board).doc(
            Doc::new("promotion", "One kind's names against the environments: what runs where, what differs, what holds a move up")
                .query::<BoardQuery>()
                .answer::<BoardView>(),
        ),
    ]
}

fn proposal_routes() -> Vec<Route> {
    let read = Access::Needs(Permission::ReadCatalog);
    let propose = Access::Needs(Permission::Propose);
    let approve = Access::Needs(Permission::Approve);
    let tag = "promotion";
    vec![
        Route::get("/api/v1/proposals", read, proposals).doc(
            Doc::new(tag, "Proposals, newest first")
                .query::<ProposalsQuery>()
                .answer::<Proposals>(),
        ),
        Route::post("/api/v1/proposals", propose, create_proposal).doc(
            Doc::new(tag, "Move a label, or propose the move where the label is protected; the same again gives the same proposal")
                .body::<NewProposal>()
                .answer::<Asked>(),
        ),
        Route::get("/api/v1/proposals/{id}", read, proposal)
            .doc(Doc::new(tag, "One proposal, and how its gates stand").answer::<ProposalDetail>()),
        Route::post("/api/v1/proposals/{id}/approve", approve, approve_proposal).doc(
            Doc::new(tag, "Approve; the last approval that is needed moves the label")
                .body::<Reason>()
                .answer::<DecidedView>(),
        ),
        Route::post("/api/v1/proposals/{id}/reject", approve, reject_proposal).doc(
            Doc::new(tag, "Reject, which ends the proposal")
                .body::<Reason>()
                .answer::<DecidedView>(),
        ),
        Route::post("/api/v1/proposals/{id}/withdraw", propose, withdraw_proposal).doc(
            Doc::new(tag, "Take your own proposal back")
                .body::<Reason>()
                .answer::<ProposalView>(),
        ),
        Route::get("/api/v1/gates", read, gates).doc(
            Doc::new(tag, "How a label's gates stand for a version, whether or not anybody proposed it")
                .query::<GatesQuery>()
                .answer::<GatesView>(),
        ),
    ]
}

fn content_routes() -> Vec<Route> {
    let read = Access::Needs(Permission::ReadCatalog);
    let propose = Access::Needs(Permission::Propose);
    let manage = Access::Needs(Permission::ManageEnvironments);
    let tag = "promotion";
    vec![
        Route::get("/api/v1/evidence", read, evidence).doc(
            Doc::new(tag, "Evidence for gates, newest first")
                .query::<EvidenceQuery>()
                .answer::<EvidenceList>(),
        ),
        Route::post("/api/v1/evidence", propose, add_evidence).doc(
            Doc::new(tag, "Give evidence for a gate; a move that waited only for it is carried out")
                .body::<AddEvidence>()
                .answer::<EvidenceAdded>()
                .status(201),
        ),
        Route::get("/api/v1/quarantines", read, quarantines).doc(
            Doc::new(tag, "Content that no label may be moved to, newest first")
                .query::<QuarantinesQuery>()
                .answer::<Quarantines>(),
        ),
        Route::post("/api/v1/quarantines/{id}/lift", manage, lift).doc(
            Doc::new(tag, "Let labels be moved to this content again")
                .body::<Reason>()
                .answer::<QuarantineView>(),
        ),
        Route::post(
            "/api/v1/catalog/{kind}/{name}/pointers/{label}/rollback",
            Access::Needs(Permission::RollBack),
            roll_back,
        )
        .doc(
            Doc::new(tag, "Point a label back to an earlier version at once, also a protected one, and quarantine what it leaves")
                .body::<RollBack>()
                .answer::<RolledBackView>(),
        ),
    ]
}

async fn environments(
    State(app): State<App>,
    identity: Identity,
) -> Result<Answer<EnvironmentsView>> {
    let all = app.promotion.environments(identity.scope()).await?;
    Ok(Answer(all.into()))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct AddEnvironment {
    /// Its name: lower-case letters, digits and `-`.
    name: String,
}

async fn add_environment(
    State(app): State<App>,
    identity: Identity,
    Json(new): Json<AddEnvironment>,
) -> Result<(StatusCode, Answer<EnvironmentsView>)> {
    let name = parse_label(&new.name)?;
    let all = app
        .promotion
        .add_environment(identity.scope(), &name)
        .await?;
    app.refresh_plan().await?;
    Ok((StatusCode::CREATED, Answer(all.into())))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct OrderEnvironments {
    /// Every environment once, in the new order.
    names: Vec<String>,
}

async fn order_environments(
    State(app): State<App>,
    identity: Identity,
    Json(order): Json<OrderEnvironments>,
) -> Result<Answer<EnvironmentsView>> {
    let ordering = app
        .promotion
        .order_environments(identity.scope(), &order.names);
    Ok(Answer(ordering.await?.into()))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Protect {
    /// What is asked of a move from now on.
    rules: RulesBody,
    /// Change only if the protection still has this revision; 0 means that there must be none yet.
    expected_revision: Option<i64>,
}

async fn protect(
    State(app): State<App>,
    identity: Identity,
    Path(label): Path<String>,
    Json(change): Json<Protect>,
) -> Result<Answer<ProtectionView>> {
    let label = parse_label(&label)?;
    let (rules, expected) = (change.rules.into(), change.expected_revision);
    let protection = super::protect(&app, identity.scope(), &label, rules, expected).await?;
    Ok(Answer(protection.into()))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct BoardQuery {
    /// The document kind; releases of apps when left out.
    #[serde(default = "releases")]
    kind: String,
    /// Where the page before ended.
    cursor: Option<String>,
    /// How many names, at most 200.
    limit: Option<u32>,
}

fn releases() -> String {
    crate::apps::RELEASE.to_owned()
}

#[derive(Serialize, JsonSchema)]
struct BoardView {
    /// The environments in their order.
    environments: Vec<EnvironmentView>,
    /// The names, in order.
    items: Vec<BoardRowView>,
    /// What to ask the next page with.
    next_cursor: Option<String>,
}

fn page(cursor: Option<String>, limit: Option<u32>) -> PageRequest {
    PageRequest {
        cursor: cursor.map(Cursor::from_client),
        limit: limit.unwrap_or(0),
    }
}

async fn board(
    State(app): State<App>,
    identity: Identity,
    Query(query): Query<BoardQuery>,
) -> Result<Answer<BoardView>> {
    let page = page(query.cursor, query.limit);
    let board = app
        .promotion
        .board(identity.scope(), &query.kind, &page)
        .await?;
    Ok(Answer(BoardView {
        next_cursor: next_cursor(&board.rows),
        environments: board.environments.into_iter().map(Into::into).collect(),
        items: board.rows.items.into_iter().map(Into::into).collect(),
    }))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ProposalsQuery {
    /// `true`: only those that wait; `false`: only those that ended.
    waiting: Option<bool>,
    /// Only in this state.
    state: Option<String>,
    /// Only of this kind.
    kind: Option<String>,
    /// Only of this name.
    name: Option<String>,
    /// Only for this label.
    label: Option<String>,
    /// Only by this actor.
    author: Option<String>,
    /// Where the page before ended.
    cursor: Option<String>,
    /// How many rows, at most 200.
    limit: Option<u32>,
}

#[derive(Serialize, JsonSchema)]
struct Proposals {
    /// The proposals, newest first.
    items: Vec<ProposalView>,
    /// What to ask the next page with.
    next_cursor: Option<String>,
}

fn parse_state(text: &str) -> Result<ProposalState> {
    text.parse()
        .map_err(|problem: db::Problem| AppError::invalid(problem.message).at("state"))
}

async fn proposals(
    State(app): State<App>,
    identity: Identity,
    Query(query): Query<ProposalsQuery>,
) -> Result<Answer<Proposals>> {
    let filter = ProposalFilter {
        waiting: query.waiting,
        state: query.state.as_deref().map(parse_state).transpose()?,
        kind: query.kind,
        name: query.name.as_deref().map(parse_name).transpose()?,
        label: query.label,
        author: query.author,
    };
    let page = page(query.cursor, query.limit);
    let page = app
        .promotion
        .proposals(identity.scope(), &filter, &page)
        .await?;
    Ok(Answer(Proposals {
        next_cursor: next_cursor(&page),
        items: page.items.into_iter().map(Into::into).collect(),
    }))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct NewProposal {
    /// The document kind.
    kind: String,
    /// The name.
    name: String,
    /// The label to move.
    label: String,
    /// The version to move it to.
    version: i64,
    /// Only if the label still has this revision; 0 means that it must not exist yet.
    expected_revision: Option<i64>,
    /// Why.
    #[serde(default)]
    reason: String,
}

/// Exactly one of the two.
#[derive(Serialize, JsonSchema)]
struct Asked {
    /// Where the label points now, where nothing held the move up.
    moved: Option<PointerView>,
    /// What waits, where the label is protected.
    proposal: Option<ProposalView>,
}

async fn create_proposal(
    State(app): State<App>,
    identity: Identity,
    Json(new): Json<NewProposal>,
) -> Result<Answer<Asked>> {
    let (name, label) = (parse_name(&new.name)?, parse_label(&new.label)?);
    let request = MoveRequest {
        kind: &new.kind,
        name: &name,
        label: &label,
        to: new.version,
        expected: new.expected_revision,
        reason: &new.reason,
    };
    let (moved, proposal) = super::request_move(&app, identity.scope(), request).await?;
    Ok(Answer(Asked {
        moved: moved.map(Into::into),
        proposal: proposal.map(Into::into),
    }))
}

#[derive(Serialize, JsonSchema)]
struct ProposalDetail {
    /// The proposal.
    proposal: ProposalView,
    /// How its gates stand now.
    gates: GatesView,
}

async fn proposal(
    State(app): State<App>,
    identity: Identity,
    Path(id): Path<String>,
) -> Result<Answer<ProposalDetail>> {
    let found = app.promotion.proposal(identity.scope(), &id).await?;
    let found = found.ok_or_else(no_proposal)?;
    let gates = app
        .promotion
        .proposal_gates(identity.scope(), &found)
        .await?;
    Ok(Answer(ProposalDetail {
        proposal: found.into(),
        gates: gates.into(),
    }))
}

fn no_proposal() -> AppError {
    AppError::not_found("there is no such proposal in this project")
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Reason {
    /// Why.
    #[serde(default)]
    reason: String,
}

#[derive(Serialize, JsonSchema)]
struct DecidedView {
    /// The proposal as it is now.
    proposal: ProposalView,
    /// Where the label points, when this decision moved it.
    moved: Option<PointerView>,
    /// What holds an approved proposal up.
    held_up: Option<String>,
}

async fn approve_proposal(
    State(app): State<App>,
    identity: Identity,
    Path(id): Path<String>,
    Json(body): Json<Reason>,
) -> Result<Answer<DecidedView>> {
    decide(&app, &identity, &id, Verdict::Approve, &body.reason).await
}

async fn reject_proposal(
    State(app): State<App>,
    identity: Identity,
    Path(id): Path<String>,
    Json(body): Json<Reason>,
) -> Result<Answer<DecidedView>> {
    decide(&app, &identity, &id, Verdict::Reject, &body.reason).await
}

async fn decide(
    app: &App,
    identity: &Identity,
    id: &str,
    verdict: Verdict,
    reason: &str,
) -> Result<Answer<DecidedView>> {
    let decided = super::decide_as(app, identity, id, verdict, reason).await?;
    Ok(Answer(DecidedView {
        proposal: decided.proposal.into(),
        moved: decided.moved.map(Into::into),
        held_up: decided.held_up,
    }))
}

async fn withdraw_proposal(
    State(app): State<App>,
    identity: Identity,
    Path(id): Path<String>,
    Json(body): Json<Reason>,
) -> Result<Answer<ProposalView>> {
    let withdrawing = app.promotion.withdraw(identity.scope(), &id, &body.reason);
    Ok(Answer(withdrawing.await?.into()))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct GatesQuery {
    /// The document kind.
    kind: String,
    /// The name.
    name: String,
    /// The version: a number, `latest`, a label or a digest.
    version: String,
    /// The label that it would be moved to.
    label: String,
}

async fn gates(
    State(app): State<App>,
    identity: Identity,
    Query(query): Query<GatesQuery>,
) -> Result<Answer<GatesView>> {
    let (name, label) = (parse_name(&query.name)?, parse_label(&query.label)?);
    let selector: Selector = query
        .version
        .parse()
        .map_err(|problem: db::Problem| AppError::invalid(problem.message).at("version"))?;
    let scope = identity.scope();
    let found = app
        .catalog
        .version(scope, &query.kind, &name, &selector)
        .await?;
    let found = found.ok_or_else(|| {
        AppError::not_found(format!("{} {name} has no version {selector}", query.kind))
    })?;
    let digest = found.version.digest;
    let report = app
        .promotion
        .gate_report(scope, &query.kind, &name, &digest, &label);
    Ok(Answer(report.await?.into()))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct EvidenceQuery {
    /// Only of this kind.
    kind: Option<String>,
    /// Only of this name.
    name: Option<String>,
    /// Only of this content.
    digest: Option<String>,
    /// Only for this gate.
    gate: Option<String>,
    /// Where the page before ended.
    cursor: Option<String>,
    /// How many rows, at most 200.
    limit: Option<u32>,
}

#[derive(Serialize, JsonSchema)]
struct EvidenceList {
    /// The evidence, newest first.
    items: Vec<EvidenceView>,
    /// What to ask the next page with.
    next_cursor: Option<String>,
}

fn parse_digest(text: &str) -> Result<Digest> {
    text.parse()
        .map_err(|_| AppError::invalid(format!("{text:?} is not a digest")).at("digest"))
}

async fn evidence(
    State(app): State<App>,
    identity: Identity,
    Query(query): Query<EvidenceQuery>,
) -> Result<Answer<EvidenceList>> {
    let name = query.name.as_deref().map(parse_name).transpose()?;
    let digest = query.digest.as_deref().map(parse_digest).transpose()?;
    let page = page(query.cursor, query.limit);
    let page = app
        .promotion
        .evidence(
            identity.scope(),
            query.kind.as_deref(),
            name.as_ref(),
            digest.as_ref(),
            query.gate.as_deref(),
            &page,
        )
        .await?;
    Ok(Answer(EvidenceList {
        next_cursor: next_cursor(&page),
        items: page.items.into_iter().map(Into::into).collect(),
    }))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct AddEvidence {
    /// The document kind.
    kind: String,
    /// The name.
    name: String,
    /// The content.
    digest: String,
    /// The gate's name.
    gate: String,
    /// What it says.
    outcome: OutcomeBody,
    /// The figures behind it, at most 64 KiB.
    #[serde(default)]
    detail: Value,
    /// Where to read more: a web address or a path on this server.
    #[serde(default)]
    link: String,
}

#[derive(Serialize, JsonSchema)]
struct EvidenceAdded {
    /// The evidence.
    evidence: EvidenceView,
    /// The proposals for this content that waited, as they are now.
    proposals: Vec<ProposalView>,
}

async fn add_evidence(
    State(app): State<App>,
    identity: Identity,
    Json(new): Json<AddEvidence>,
) -> Result<(StatusCode, Answer<EvidenceAdded>)> {
    let name = parse_name(&new.name)?;
    let evidence = NewEvidence {
        kind: &new.kind,
        name: &name,
        digest: parse_digest(&new.digest)?,
        gate: &new.gate,
        outcome: new.outcome.into(),
        detail: &new.detail,
        link: &new.link,
    };
    let (evidence, decided) = super::add_evidence(&app, identity.scope(), evidence).await?;
    let proposals = decided.into_iter().map(|decided| decided.proposal.into());
    Ok((
        StatusCode::CREATED,
        Answer(EvidenceAdded {
            evidence: evidence.into(),
            proposals: proposals.collect(),
        }),
    ))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct QuarantinesQuery {
    /// Only of this kind.
    kind: Option<String>,
    /// `true`: only those in force.
    active: Option<bool>,
    /// Where the page before ended.
    cursor: Option<String>,
    /// How many rows, at most 200.
    limit: Option<u32>,
}

#[derive(Serialize, JsonSchema)]
struct Quarantines {
    /// The quarantines, newest first.
    items: Vec<QuarantineView>,
    /// What to ask the next page with.
    next_cursor: Option<String>,
}

async fn quarantines(
    State(app): State<App>,
    identity: Identity,
    Query(query): Query<QuarantinesQuery>,
) -> Result<Answer<Quarantines>> {
    let page = page(query.cursor, query.limit);
    let active = query.active.unwrap_or(false);
    let page = app
        .promotion
        .quarantines(identity.scope(), query.kind.as_deref(), active, &page)
        .await?;
    Ok(Answer(Quarantines {
        next_cursor: next_cursor(&page),
        items: page.items.into_iter().map(Into::into).collect(),
    }))
}

async fn lift(
    State(app): State<App>,
    identity: Identity,
    Path(id): Path<String>,
    Json(body): Json<Reason>,
) -> Result<Answer<QuarantineView>> {
    let lifted = app
        .promotion
        .lift_quarantine(identity.scope(), &id, &body.reason)
        .await?;
    app.refresh_plan().await?;
    Ok(Answer(lifted.into()))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RollBack {
    /// The version to go back to, which the label pointed to before; without it the one before.
    to: Option<i64>,
    /// Only if the label still has this revision: makes a second click harmless.
    expected_revision: Option<i64>,
    /// Why.
    #[serde(default)]
    reason: String,
    /// Whether the content that it leaves is bad everywhere; `true` when nothing is said.
    #[serde(default = "yes")]
    quarantine: bool,
}

fn yes() -> bool {
    true
}

#[derive(Serialize, JsonSchema)]
struct RolledBackView {
    /// Where the label points now.
    pointer: PointerView,
    /// The version that it left.
    left: i64,
    /// The quarantine of what it left.
    quarantine: Option<QuarantineView>,
}

async fn roll_back(
    State(app): State<App>,
    identity: Identity,
    Path((kind, name, label)): Path<(String, String, String)>,
    Json(body): Json<RollBack>,
) -> Result<Answer<RolledBackView>> {
    let (name, label) = (parse_name(&name)?, parse_label(&label)?);
    let request = RollbackRequest {
        kind: &kind,
        name: &name,
        label: &label,
        to: body.to,
        expected: body.expected_revision,
        reason: &body.reason,
        quarantine: body.quarantine,
    };
    let (pointer, left, quarantine) = super::roll_back(&app, identity.scope(), request).await?;
    Ok(Answer(RolledBackView {
        pointer: pointer.into(),
        left,
        quarantine: quarantine.map(Into::into),
    }))
}
