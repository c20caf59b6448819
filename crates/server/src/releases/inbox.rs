//! The inbox: what waits for approval, and what became of the rest.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use base::Cursor;
use db::promotion::{Proposal, ProposalFilter, ProposalState, Verdict};
use db::{PageRequest, Scope};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{changes, gate_rows, name_href, numbered};
use crate::app::App;
use crate::auth::{Identity, Permission};
use crate::error::Result;
use crate::extract::{Form, Query};
use crate::http::{Access, Route};
use crate::ui::{PageContext, redirect};

const SHOWN: u32 = 30;

pub(super) fn routes() -> Vec<Route> {
    vec![
        Route::get(
            "/{project}/approvals",
            Access::Needs(Permission::ReadCatalog),
            show,
        ),
        Route::post(
            "/{project}/approvals/decide",
            Access::Needs(Permission::Approve),
            decide,
        ),
        Route::post(
            "/{project}/approvals/withdraw",
            Access::Needs(Permission::Propose),
            withdraw,
        ),
    ]
}

#[derive(Deserialize)]
struct InboxQuery {
    tab: Option<String>,
    cursor: Option<String>,
}

async fn show(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Query(query): Query<InboxQuery>,
) -> Result<Response> {
    let scope = identity.scope();
    let is_ended = query.tab.as_deref() == Some("ended");
    let filter = ProposalFilter {
        waiting: Some(!is_ended),
        ..ProposalFilter::default()
    };
    let request = PageRequest {
        cursor: query.cursor.clone().map(Cursor::from_client),
        limit: SHOWN,
    };
    let found = app.promotion.proposals(scope, &filter, &request).await?;
    let mut items = Vec::new();
    for proposal in &found.items {
        items.push(item(&app, &page, &identity, proposal).await?);
    }
    let here = format!("{}/approvals", page.root());
    let ended = format!("{here}?tab=ended");
    let next_href = found.next.map(|cursor| {
        let cursor = crate::apps::encode(cursor.as_str());
        let tab = if is_ended { "ended" } else { "waiting" };
        format!("{here}?tab={tab}&cursor={cursor}")
    });
    let first = if is_ended { &ended } else { &here };
    let view = json!({
        "tab": if is_ended { "ended" } else { "waiting" }, "tabs": {"waiting": here, "ended": ended}, "items": items,
        "pager": {"prev_href": query.cursor.as_ref().map(|_| first), "next_href": next_href},
    });
    page.render("releases/approvals.html", view).await
}

async fn item(
    app: &App,
    page: &PageContext,
    identity: &Identity,
    proposal: &Proposal,
) -> Result<Value> {
    let scope = identity.scope();
    let (kind, name) = (proposal.kind.as_str(), &proposal.name);
    let (mut differs, mut diff_href) = (Vec::new(), None);
    if let Some(from) = proposal.from {
        let pair = (from, proposal.number);
        differs = changes(app, page, scope, kind, name, pair).await?;
        diff_href =
            crate::apps::change_href(page, kind, name.as_str(), Some(from), Some(proposal.number));
    }
    let gates = gates(app, scope, proposal).await?;
    let actors = proposal.approvals.iter().map(|one| one.actor.as_str());
    let actors = actors
        .chain([proposal.author.as_str()])
        .chain(proposal.closed_by.as_deref());
    let people = crate::members::actor_names(&app.db, scope.project, actors).await?;
    let approvals = proposal.approvals.iter().map(|one| {
        json!({"by": people[&one.actor], "verdict": one.verdict, "role": one.role, "reason": one.reason, "at": one.at})
    });
    let why_not = why_not(identity, proposal);
    Ok(json!({
        "id": proposal.id, "kind": kind, "name": name.as_str(), "href": name_href(page, kind, name.as_str()),
        "label": proposal.label, "number": proposal.number, "from": proposal.from, "state": proposal.state.name(),
        "by": people[&proposal.author], "reason": proposal.reason, "created_at": proposal.created_at,
        "expires_at": proposal.expires_at, "approved": proposal.approved_by(), "needed": proposal.rules.approvals,
        "roles": proposal.rules.approver_roles, "gates": gates, "changes": differs, "diff_href": diff_href,
        "approvals": approvals.collect::<Vec<_>>(),
        "closed_by": proposal.closed_by.as_ref().map(|actor| &people[actor]), "closed_at": proposal.closed_at,
        "close_reason": proposal.close_reason, "held_up": proposal.state == ProposalState::Approved,
        "may": why_not.is_none(), "why_not": why_not.filter(|why| *why != "ended"),
        "is_mine": proposal.author == scope.actor.to_string(),
    }))
}

/// The gates of a proposal that waits; of one that ended they would be those of today.
async fn gates(app: &App, scope: Scope, proposal: &Proposal) -> Result<Vec<Value>> {
    if !proposal.state.is_waiting() {
        return Ok(Vec::new());
    }
    let report = app.promotion.proposal_gates(scope, proposal).await?;
    gate_rows(app, scope, &report).await
}

/// Why this reader cannot decide, in the page's words; the decision itself asks again.
fn why_not(identity: &Identity, proposal: &Proposal) -> Option<&'static str> {
    let me = identity.actor.to_string();
    if proposal.state != ProposalState::Open {
        return Some("ended");
    }
    if proposal.excluded.contains(&me) || proposal.author == me {
        return Some("own");
    }
    if !identity.role.allows(Permission::Approve) {
        return Some("permission");
    }
    if !proposal.rules.counts_role(identity.role.name()) {
        return Some("role");
    }
    let has_spoken = proposal.approvals.iter().any(|one| one.actor == me);
    has_spoken.then_some("done")
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DecideForm {
    id: String,
    verdict: Verdict,
    #[serde(default)]
    reason: String,
}

async fn decide(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Form(form): Form<DecideForm>,
) -> Result<Response> {
    let decided = app
        .promotion
        .decide(
            identity.scope(),
            identity.role.name(),
            &form.id,
            form.verdict,
            form.reason.trim(),
        )
        .await?;
    app.refresh_plan().await?;
    let to = redirect(format!("{}/approvals", page.root()));
    let text = match (&decided.moved, form.verdict) {
        (Some(pointer), _) => {
            let number = numbered(&decided.proposal.kind, pointer.number);
            let args = [("label", pointer.label.as_str()), ("n", number.as_str())];
            page.t_with("approvals-moved-flash", &args)
        }
        (None, Verdict::Approve) => page.t("approvals-approved-flash"),
        (None, Verdict::Reject) => page.t("approvals-rejected-flash"),
    };
    Ok(to.ok(text).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WithdrawForm {
    id: String,
    #[serde(default)]
    reason: String,
}

async fn withdraw(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Form(form): Form<WithdrawForm>,
) -> Result<Response> {
    app.promotion
        .withdraw(identity.scope(), &form.id, form.reason.trim())
        .await?;
    Ok(redirect(format!("{}/approvals", page.root()))
        .ok(page.t("approvals-withdrawn-flash"))
        .into_response())
}
