//! Promotion over the API: environments, proposals, evidence, quarantine, rollback.
//!
//! What it means is in `db::promotion`; here it gets routes, and every change is in
//! effect on the next request because the plan is rebuilt before the answer.

mod api;
mod views;

use db::catalog::{Label, Name};
use db::promotion::{
    Decided, Evidence, NewEvidence, PromotionError, Proposal, Quarantine, Requested,
    RollbackRequest, RolledBack, Rules, Verdict,
};
use db::{MoveRequest, Pointer, Scope};

use crate::app::App;
use crate::auth::{Identity, Role};
use crate::catalog::moved_meanwhile;
use crate::error::{AppError, Result};
use crate::http::Route;

pub(crate) use views::{EnvironmentsView, ProposalView};

/// The role that approvals on the command line are given in.
pub const OPERATOR_ROLE: &str = "operator";

/// The API; the pages belong to the board and the inbox.
pub fn routes() -> Vec<Route> {
    api::routes()
}

impl From<PromotionError> for AppError {
    fn from(error: PromotionError) -> Self {
        let message = error.to_string();
        match error {
            PromotionError::Catalog(error) => error.into(),
            PromotionError::NotFound(_) => Self::not_found(message),
            PromotionError::Ended(_) => Self::conflict(message).code("proposal_ended"),
            PromotionError::OwnChange => Self::forbidden(message)
                .code("own_change")
                .hint("ask somebody else who may approve"),
            PromotionError::NotAPerson => Self::forbidden(message).code("not_a_person"),
            PromotionError::WrongRole(_) => Self::forbidden(message).code("wrong_role"),
            PromotionError::NotTheAuthor => Self::forbidden(message)
                .code("not_the_author")
                .hint("who may approve can reject it"),
            PromotionError::NothingBefore(_) => Self::conflict(message).code("nothing_before"),
            PromotionError::Stale(_) => Self::conflict(message).code("changed_meanwhile"),
        }
    }
}

/// Moves a label, or proposes the move where it is protected.
///
/// # Errors
/// There is no such version, it is quarantined, or somebody else moved the label first.
pub async fn request_move(
    app: &App,
    scope: Scope,
    request: MoveRequest<'_>,
) -> Result<(Option<Pointer>, Option<Proposal>)> {
    let requested = app.promotion.request_move(scope, request).await?;
    app.refresh_plan().await?;
    match requested {
        Requested::Moved(pointer) | Requested::Unchanged(pointer) => Ok((Some(pointer), None)),
        Requested::Proposed(proposal) => Ok((None, Some(*proposal))),
        Requested::Conflict(current) => Err(moved_meanwhile(request.label, current.as_ref())),
    }
}

/// Says yes or no to a proposal, in this role.
///
/// # Errors
/// As [`db::Promotion::decide`].
pub async fn decide(
    app: &App,
    scope: Scope,
    role: &str,
    id: &str,
    verdict: Verdict,
    reason: &str,
) -> Result<Decided> {
    let decided = app
        .promotion
        .decide(scope, role, id, verdict, reason)
        .await?;
    app.refresh_plan().await?;
    Ok(decided)
}

/// [`decide`] for somebody who called, in the role that they have here.
///
/// # Errors
/// As there.
pub async fn decide_as(
    app: &App,
    identity: &Identity,
    id: &str,
    verdict: Verdict,
    reason: &str,
) -> Result<Decided> {
    let role = identity.role.name();
    decide(app, identity.scope(), role, id, verdict, reason).await
}

/// Points a label back, in effect on the next request.
///
/// # Errors
/// There is nothing to go back to, or somebody else moved the label first.
pub async fn roll_back(
    app: &App,
    scope: Scope,
    request: RollbackRequest<'_>,
) -> Result<(Pointer, i64, Option<Quarantine>)> {
    let label = request.label;
    let rolled = app.promotion.roll_back(scope, request).await?;
    app.refresh_plan().await?;
    match rolled {
        RolledBack::Done {
            pointer,
            left,
            quarantine,
        } => Ok((pointer, left, quarantine)),
        RolledBack::Conflict(current) => Err(moved_meanwhile(label, current.as_ref())),
    }
}

/// Adds evidence; a move that waited only for it is in effect on the next request.
///
/// # Errors
/// As [`db::Promotion::add_evidence`].
pub async fn add_evidence(
    app: &App,
    scope: Scope,
    new: NewEvidence<'_>,
) -> Result<(Evidence, Vec<Decided>)> {
    let added = app.promotion.add_evidence(scope, new).await?;
    app.refresh_plan().await?;
    Ok(added)
}

/// Sets what protects a label.
///
/// # Errors
/// Something is wrong with the rules, or somebody else changed them first.
pub async fn protect(
    app: &App,
    scope: Scope,
    label: &Label,
    rules: Rules,
    expected: Option<i64>,
) -> Result<db::promotion::Protection> {
    check_roles(&rules)?;
    Ok(app.promotion.protect(scope, label, rules, expected).await?)
}

/// Roles that exist and may approve: others would lock the label for good.
pub(crate) fn check_roles(rules: &Rules) -> Result<()> {
    for (index, role) in rules.approver_roles.iter().enumerate() {
        let may_approve = role == OPERATOR_ROLE
            || role
                .parse::<Role>()
                .is_ok_and(|role| role.allows(crate::auth::Permission::Approve));
        if !may_approve {
            return Err(
                AppError::invalid(format!("the role {role:?} cannot approve"))
                    .code("bad_role")
                    .at(format!("/approver_roles/{index}")),
            );
        }
    }
    Ok(())
}

/// What time alone brings about; see [`db::Promotion::sweep`].
///
/// # Errors
/// The database failed; it is tried again.
pub async fn sweep(app: &App) -> anyhow::Result<()> {
    if app.promotion.sweep().await? > 0 {
        app.refresh_plan().await?;
    }
    Ok(())
}

fn parse_name(text: &str) -> Result<Name> {
    text.parse()
        .map_err(|problem: db::Problem| AppError::invalid(problem.message).at("name"))
}

fn parse_label(text: &str) -> Result<Label> {
    text.parse()
        .map_err(|problem: db::Problem| AppError::invalid(problem.message).at("label"))
}
