//! Proposals: asking for a move, deciding on it, and carrying it out.
//!
//! [`advance`] is the one place that looks at a waiting proposal and takes it as
//! far as it gets: it is called after each approval, each piece of evidence and
//! by the sweep, always behind the write lock.

use std::collections::HashMap;

use base::{Cursor, MoveId, ProjectId};
use serde_json::json;

use super::gates::Facts;
use super::store::{self, Range};
use super::{
    Approval, Decided, GateReport, Promotion, PromotionError, Proposal, ProposalFilter,
    ProposalState, Requested, Rules, Verdict,
};
use crate::audit::Line;
use crate::catalog::{
    Authority, Catalog, CatalogError, MoveAction, MoveOutcome, MoveRequest, Page, PageRequest,
    Pointer, clean_text,
};
use crate::{Actor, DbError, Scope, WriteTx};

impl Promotion {
    /// Moves a label, or proposes the move where the label is protected.
    ///
    /// # Errors
    /// There is no such version, it is quarantined, or the input is wrong.
    pub async fn request_move(
        &self,
        scope: Scope,
        request: MoveRequest<'_>,
    ) -> Result<Requested, PromotionError> {
        let mut tx = self.db.begin_write().await?;
        let requested = self.request_move_in(&mut tx, scope, request).await?;
        tx.commit().await?;
        Ok(requested)
    }

    /// [`Promotion::request_move`] in the caller's transaction.
    ///
    /// # Errors
    /// As there; after a database error the transaction cannot be used further.
    pub async fn request_move_in(
        &self,
        tx: &mut WriteTx,
        scope: Scope,
        request: MoveRequest<'_>,
    ) -> Result<Requested, PromotionError> {
        tx.serialise().await?;
        let MoveRequest {
            kind, name, label, ..
        } = request;
        let protection = store::protection(tx.conn(), scope.project, label.as_str()).await?;
        let rules = protection.map(|known| known.rules).unwrap_or_default();
        if !rules.guards_moves() {
            let outcome = self.catalog.move_pointer_in(tx, scope, request).await?;
            return Ok(requested(outcome));
        }
        self.catalog.kinds().get(kind)?;
        let standing = store::pointer(tx.conn(), scope.project, kind, name, label.as_str()).await?;
        let current = standing.as_ref().and_then(store::Standing::live).cloned();
        let revision = current.as_ref().map_or(0, |pointer| pointer.revision);
        if request
            .expected
            .is_some_and(|expected| expected != revision)
        {
            return Ok(Requested::Conflict(current));
        }
        let wanted = Wanted::find(tx, scope, request).await?;
        if let Some(pointer) = current.filter(|pointer| pointer.digest == wanted.digest) {
            return Ok(Requested::Unchanged(pointer));
        }
        let report = judge(tx, scope.project, &rules, &wanted).await?;
        if rules.approvals == 0 && report.passes {
            let authority = Authority::new(MoveAction::Move, None);
            let moving = self.catalog.move_authorised(tx, scope, request, authority);
            return Ok(requested(moving.await?));
        }
        let proposal = propose(tx, scope, &rules, &wanted, standing.as_ref(), None).await?;
        Ok(Requested::Proposed(Box::new(proposal)))
    }

    /// Says yes or no to a proposal, in this role. The last approval that is needed
    /// carries the move out in the same transaction, unless its gates hold it up.
    ///
    /// # Errors
    /// Nobody decides on their own, keys decide on nothing, and the label's rules may want another role.
    pub async fn decide(
        &self,
        scope: Scope,
        role: &str,
        id: &str,
        verdict: Verdict,
        reason: &str,
    ) -> Result<Decided, PromotionError> {
        if !matches!(scope.actor, Actor::User(_) | Actor::Operator) {
            return Err(PromotionError::NotAPerson);
        }
        let reason = clean_text("reason", reason)?;
        let mut tx = self.db.begin_write().await?;
        tx.serialise().await?;
        let mut proposal = waiting_one(&mut tx, scope.project, id).await?;
        let actor = scope.actor.to_string();
        // What it is bound to may be gone; then that is the answer, and it is written down.
        if let Some(ended) = end_if_over(&mut tx, scope, &mut proposal).await? {
            tx.commit().await?;
            return Err(PromotionError::Ended(ended));
        }
        if verdict == Verdict::Approve && proposal.excluded.contains(&actor) {
            return Err(PromotionError::OwnChange);
        }
        if !proposal.rules.counts_role(role) {
            return Err(PromotionError::WrongRole(proposal.rules.approver_roles));
        }
        let approval = Approval {
            actor,
            verdict,
            role: role.to_owned(),
            reason: reason.clone(),
            at: self.db.now_us(),
        };
        store::put_approval(tx.conn(), &proposal.id, &approval).await?;
        proposal
            .approvals
            .retain(|known| known.actor != approval.actor);
        proposal.approvals.push(approval);
        let decided = if verdict == Verdict::Reject {
            close(
                &mut tx,
                scope,
                &mut proposal,
                ProposalState::Rejected,
                &reason,
            )
            .await?;
            Decided {
                proposal,
                moved: None,
                held_up: None,
            }
        } else {
            let detail =
                json!({ "proposal": proposal.id, "number": proposal.number, "role": role });
            write_line(
                &mut tx,
                scope,
                "proposal.approve",
                &proposal,
                detail,
                &reason,
            )
            .await?;
            advance(&self.catalog, &mut tx, scope, proposal).await?
        };
        tx.commit().await?;
        Ok(decided)
    }

    /// Takes a proposal back; only its author can.
    ///
    /// # Errors
    /// It is somebody else's, or it has ended.
    pub async fn withdraw(
        &self,
        scope: Scope,
        id: &str,
        reason: &str,
    ) -> Result<Proposal, PromotionError> {
        let reason = clean_text("reason", reason)?;
        let mut tx = self.db.begin_write().await?;
        tx.serialise().await?;
        let mut proposal = waiting_one(&mut tx, scope.project, id).await?;
        let actor = scope.actor.to_string();
        let behind = behind(&mut tx, scope.project, &proposal.author).await?;
        if !behind.contains(&actor) {
            return Err(PromotionError::NotTheAuthor);
        }
        close(
            &mut tx,
            scope,
            &mut proposal,
            ProposalState::Withdrawn,
            &reason,
        )
        .await?;
        tx.commit().await?;
        Ok(proposal)
    }

    /// One proposal.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn proposal(
        &self,
        scope: Scope,
        id: &str,
    ) -> Result<Option<Proposal>, PromotionError> {
        let mut connection = self.db.read().acquire().await?;
        let Some(found) = store::proposal(&mut connection, scope.project, id).await? else {
            return Ok(None);
        };
        let mut found = vec![found];
        store::add_approvals(&mut connection, scope.project, &mut found).await?;
        let protections = store::protections(&mut connection, scope.project).await?;
        let rules = protections
            .into_iter()
            .map(|known| (known.label, known.rules));
        show(&mut found, &rules.collect(), self.db.now_us());
        Ok(found.pop())
    }

    /// Proposals, newest first.
    ///
    /// # Errors
    /// The database cannot be read, or the cursor was not made here.
    pub async fn proposals(
        &self,
        scope: Scope,
        filter: &ProposalFilter,
        page: &PageRequest,
    ) -> Result<Page<Proposal>, PromotionError> {
        let before = before(page)?;
        let mut connection = self.db.read().acquire().await?;
        let limit = page.limit();
        let rows =
            store::proposals_before(&mut connection, scope.project, filter, &before, limit).await?;
        let mut page = Page::cut(rows, limit, |row| Cursor::new(&(row.created_at, &row.id)));
        store::add_approvals(&mut connection, scope.project, &mut page.items).await?;
        let protections = store::protections(&mut connection, scope.project).await?;
        let rules = protections
            .into_iter()
            .map(|known| (known.label, known.rules));
        show(&mut page.items, &rules.collect(), self.db.now_us());
        Ok(page)
    }

    /// How many proposals wait for approvals.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn count_waiting(&self, scope: Scope) -> Result<i64, PromotionError> {
        let mut connection = self.db.read().acquire().await?;
        let now = self.db.now_us();
        Ok(store::count_waiting(&mut connection, scope.project, now).await?)
    }

    /// How the gates stand for what a proposal wants to move.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn proposal_gates(
        &self,
        scope: Scope,
        proposal: &Proposal,
    ) -> Result<GateReport, PromotionError> {
        let mut connection = self.db.read().acquire().await?;
        let range = Range::one(&proposal.name);
        let facts = Facts::load(
            &mut connection,
            scope.project,
            &proposal.kind,
            &range,
            std::iter::once(&proposal.rules),
            self.db.now_us(),
        )
        .await?;
        Ok(facts.report(
            &proposal.rules,
            &proposal.name,
            &proposal.digest,
            &proposal.label,
        ))
    }
}

/// Where a page of a list that is sorted by time and id begins.
pub(super) fn before(page: &PageRequest) -> Result<(i64, String), CatalogError> {
    let key = page.cursor.as_ref().map(Cursor::key).transpose()?;
    Ok(key.unwrap_or((i64::MAX, "z".to_owned())))
}

fn requested(outcome: MoveOutcome) -> Requested {
    match outcome {
        MoveOutcome::Moved(pointer) => Requested::Moved(pointer),
        MoveOutcome::Unchanged(pointer) => Requested::Unchanged(pointer),
        MoveOutcome::Conflict(current) => Requested::Conflict(current),
    }
}

/// For reading: today's rules count where they are stricter, and what has expired says so
/// before the sweep has written it down.
pub(super) fn show(proposals: &mut [Proposal], rules: &HashMap<String, Rules>, now_us: i64) {
    for proposal in proposals {
        if !proposal.state.is_waiting() {
            continue;
        }
        if let Some(current) = rules.get(&proposal.label) {
            proposal.rules = proposal.rules.stricter(current);
        }
        if proposal.expires_at.is_some_and(|end| end <= now_us) {
            proposal.state = ProposalState::Expired;
        }
    }
}

/// What somebody wants to move where.
pub(super) struct Wanted<'a> {
    pub(super) request: MoveRequest<'a>,
    pub(super) digest: base::Digest,
    version_author: String,
}

impl<'a> Wanted<'a> {
    /// Finds the version; quarantined content is refused here, before anybody is asked.
    pub(super) async fn find(
        tx: &mut WriteTx,
        scope: Scope,
        request: MoveRequest<'a>,
    ) -> Result<Self, CatalogError> {
        let MoveRequest { kind, name, to, .. } = request;
        let Some(version) = store::version(tx.conn(), scope.project, kind, name, to).await? else {
            return Err(CatalogError::NoVersion {
                kind: kind.to_owned(),
                name: name.to_string(),
                number: to,
            });
        };
        super::guard::refuse_quarantined(tx, scope, kind, name, &version.digest).await?;
        Ok(Self {
            request: MoveRequest {
                to: version.number,
                ..request
            },
            digest: version.digest,
            version_author: version.author,
        })
    }
}

/// How the gates stand for what is wanted.
pub(super) async fn judge(
    tx: &mut WriteTx,
    project: ProjectId,
    rules: &Rules,
    wanted: &Wanted<'_>,
) -> Result<GateReport, DbError> {
    let MoveRequest {
        kind, name, label, ..
    } = wanted.request;
    let now = tx.db().now_us();
    let rules_once = std::iter::once(rules);
    let range = Range::one(name);
    let facts = Facts::load(tx.conn(), project, kind, &range, rules_once, now).await?;
    Ok(facts.report(rules, name, &wanted.digest, label.as_str()))
}

/// Makes a proposal, or gives the one that waits for the same. `cause` is who set
/// off a proposal that the program makes by itself.
pub(super) async fn propose(
    tx: &mut WriteTx,
    scope: Scope,
    rules: &Rules,
    wanted: &Wanted<'_>,
    standing: Option<&store::Standing>,
    cause: Option<&str>,
) -> Result<Proposal, PromotionError> {
    let request = wanted.request;
    let reason = clean_text("reason", request.reason)?;
    let range = Range::one(request.name);
    let waiting = store::waiting(tx.conn(), scope.project, request.kind, &range).await?;
    let same = waiting
        .into_iter()
        .find(|known| known.label == request.label.as_str() && known.digest == wanted.digest);
    if let Some(same) = same {
        let mut proposal = waiting_one(tx, scope.project, &same.id).await?;
        // An expired one that nobody swept yet makes place for the new one.
        if end_if_over(tx, scope, &mut proposal).await?.is_none() {
            return Ok(proposal);
        }
    }
    let now = tx.db().now_us();
    let id: MoveId = tx.db().ids().make();
    let proposal = Proposal {
        id: id.to_string(),
        kind: request.kind.to_owned(),
        name: request.name.clone(),
        label: request.label.to_string(),
        number: request.to,
        digest: wanted.digest,
        from: standing
            .and_then(store::Standing::live)
            .map(|pointer| pointer.number),
        pointer_revision: standing.map_or(0, |standing| standing.pointer.revision),
        rules: rules.clone(),
        author: scope.actor.to_string(),
        excluded: excluded(tx, scope, &wanted.version_author, cause).await?,
        reason,
        state: if rules.approvals == 0 {
            ProposalState::Approved
        } else {
            ProposalState::Open
        },
        created_at: now,
        expires_at: rules
            .expires_after_s
            .map(|seconds| now.saturating_add(seconds.saturating_mul(1_000_000))),
        closed_by: None,
        closed_at: None,
        close_reason: String::new(),
        approvals: Vec::new(),
    };
    store::insert_proposal(tx.conn(), scope.project, &proposal).await?;
    let detail = json!({
        "proposal": proposal.id, "from": proposal.from, "to": proposal.number, "rules": proposal.rules,
    });
    write_line(
        tx,
        scope,
        "proposal.create",
        &proposal,
        detail,
        &proposal.reason,
    )
    .await?;
    Ok(proposal)
}

/// Who cannot approve: who asks and who stands behind that. Where no person asks (a
/// key, the operator, the program), whoever wrote the version is the one who wants it.
async fn excluded(
    tx: &mut WriteTx,
    scope: Scope,
    version_author: &str,
    cause: Option<&str>,
) -> Result<Vec<String>, DbError> {
    let mut excluded = behind(tx, scope.project, &scope.actor.to_string()).await?;
    if !matches!(scope.actor, Actor::User(_)) {
        excluded.extend(behind(tx, scope.project, version_author).await?);
    }
    if let Some(cause) = cause {
        excluded.extend(behind(tx, scope.project, cause).await?);
    }
    excluded.sort_unstable();
    excluded.dedup();
    Ok(excluded)
}

/// An actor, and for a key whoever made it, and whoever made the key that made it.
async fn behind(tx: &mut WriteTx, project: ProjectId, actor: &str) -> Result<Vec<String>, DbError> {
    let mut chain = vec![actor.to_owned()];
    while let Some(key) = chain.last().and_then(|last| last.strip_prefix("key:")) {
        let creator = store::key_creator(tx.conn(), project, key).await?;
        match creator.filter(|creator| !chain.contains(creator)) {
            Some(creator) => chain.push(creator),
            None => break,
        }
    }
    Ok(chain)
}

/// A proposal that can still be decided on, with its approvals and the rules that count for it.
async fn waiting_one(
    tx: &mut WriteTx,
    project: ProjectId,
    id: &str,
) -> Result<Proposal, PromotionError> {
    let found = store::proposal(tx.conn(), project, id).await?;
    let proposal = found.ok_or(PromotionError::NotFound("proposal"))?;
    if !proposal.state.is_waiting() {
        return Err(PromotionError::Ended(proposal.state));
    }
    Ok(with_rules(tx, project, proposal).await?)
}

async fn with_rules(
    tx: &mut WriteTx,
    project: ProjectId,
    proposal: Proposal,
) -> Result<Proposal, DbError> {
    let current = store::protection(tx.conn(), project, &proposal.label).await?;
    let mut one = [proposal];
    store::add_approvals(tx.conn(), project, &mut one).await?;
    let [mut proposal] = one;
    if let Some(current) = current {
        proposal.rules = proposal.rules.stricter(&current.rules);
    }
    Ok(proposal)
}

/// Ends a proposal whose time or whose pointer is over; says with which state.
async fn end_if_over(
    tx: &mut WriteTx,
    scope: Scope,
    proposal: &mut Proposal,
) -> Result<Option<ProposalState>, DbError> {
    let (kind, name) = (proposal.kind.clone(), proposal.name.clone());
    let standing = store::pointer(tx.conn(), scope.project, &kind, &name, &proposal.label).await?;
    let revision = standing.map_or(0, |standing| standing.pointer.revision);
    let quarantine =
        store::active_quarantine(tx.conn(), scope.project, &kind, &name, &proposal.digest).await?;
    let now = tx.db().now_us();
    let (state, why) = if revision != proposal.pointer_revision {
        (ProposalState::Superseded, "the label moved meanwhile")
    } else if proposal.expires_at.is_some_and(|end| end <= now) {
        (ProposalState::Expired, "nobody decided in time")
    } else if quarantine.is_some() {
        (ProposalState::Cancelled, "the content is quarantined")
    } else {
        return Ok(None);
    };
    close(tx, as_system(scope), proposal, state, why).await?;
    Ok(Some(state))
}

pub(super) fn as_system(scope: Scope) -> Scope {
    Scope {
        actor: Actor::System,
        ..scope
    }
}

/// Ends a proposal and writes it down.
pub(super) async fn close(
    tx: &mut WriteTx,
    scope: Scope,
    proposal: &mut Proposal,
    state: ProposalState,
    reason: &str,
) -> Result<(), DbError> {
    proposal.state = state;
    proposal.closed_by = Some(scope.actor.to_string());
    proposal.closed_at = Some(tx.db().now_us());
    proposal.close_reason = reason.to_owned();
    store::update_proposal(tx.conn(), scope.project, proposal).await?;
    let action = match state {
        ProposalState::Applied => "proposal.apply",
        ProposalState::Rejected => "proposal.reject",
        ProposalState::Withdrawn => "proposal.withdraw",
        ProposalState::Expired => "proposal.expire",
        ProposalState::Cancelled => "proposal.cancel",
        ProposalState::Superseded | ProposalState::Open | ProposalState::Approved => {
            "proposal.supersede"
        }
    };
    let detail = json!({ "proposal": proposal.id, "number": proposal.number });
    write_line(tx, scope, action, proposal, detail, reason).await
}

async fn write_line(
    tx: &mut WriteTx,
    scope: Scope,
    action: &str,
    proposal: &Proposal,
    detail: serde_json::Value,
    reason: &str,
) -> Result<(), DbError> {
    let object = proposal.object();
    Line::new(scope, action, &object)
        .detail(detail)
        .reason(reason)
        .digests(None, Some(proposal.digest))
        .write(tx)
        .await
}

/// Takes a waiting proposal as far as it gets: ends it, lets it wait, or carries it out.
pub(super) async fn advance(
    catalog: &Catalog,
    tx: &mut WriteTx,
    scope: Scope,
    mut proposal: Proposal,
) -> Result<Decided, PromotionError> {
    let still = |proposal: Proposal, held_up: Option<String>| Decided {
        proposal,
        moved: None,
        held_up,
    };
    if end_if_over(tx, scope, &mut proposal).await?.is_some() {
        return Ok(still(proposal, None));
    }
    if proposal.approved_by() < proposal.rules.approvals as usize {
        // Rules that became stricter take an approved one back to waiting.
        set_waiting(tx, scope, &mut proposal, ProposalState::Open).await?;
        return Ok(still(proposal, None));
    }
    let now = tx.db().now_us();
    let range = Range::one(&proposal.name);
    let rules = std::iter::once(&proposal.rules);
    let facts = Facts::load(tx.conn(), scope.project, &proposal.kind, &range, rules, now).await?;
    let report = facts.report(
        &proposal.rules,
        &proposal.name,
        &proposal.digest,
        &proposal.label,
    );
    if !report.passes {
        set_waiting(tx, scope, &mut proposal, ProposalState::Approved).await?;
        let open = report
            .gates
            .iter()
            .filter(|gate| gate.required && gate.outcome != super::GateOutcome::Pass);
        let why: Vec<String> = open
            .map(|gate| format!("{}: {}", gate.name, gate.why))
            .collect();
        return Ok(still(proposal, Some(why.join("; "))));
    }
    match apply(catalog, tx, scope, &mut proposal).await {
        Ok(pointer) => Ok(Decided {
            proposal,
            moved: Some(pointer),
            held_up: None,
        }),
        Err(CatalogError::Db(error)) => Err(error.into()),
        // The catalog refused before it wrote anything, as a reference that is missing now.
        Err(refused) => {
            (proposal.closed_by, proposal.closed_at) = (None, None);
            set_waiting(tx, scope, &mut proposal, ProposalState::Approved).await?;
            Ok(still(proposal, Some(refused.to_string())))
        }
    }
}

async fn set_waiting(
    tx: &mut WriteTx,
    scope: Scope,
    proposal: &mut Proposal,
    state: ProposalState,
) -> Result<(), DbError> {
    if proposal.state == state {
        return Ok(());
    }
    proposal.state = state;
    store::update_proposal(tx.conn(), scope.project, proposal).await
}

/// Carries a proposal out. It counts as applied before the pointer moves, because the
/// move supersedes what still waits for that label.
async fn apply(
    catalog: &Catalog,
    tx: &mut WriteTx,
    scope: Scope,
    proposal: &mut Proposal,
) -> Result<Pointer, CatalogError> {
    set_waiting(tx, scope, proposal, ProposalState::Applied).await?;
    let label = proposal.label.parse()?;
    let request = MoveRequest {
        kind: &proposal.kind,
        name: &proposal.name,
        label: &label,
        to: proposal.number,
        expected: None,
        reason: &proposal.reason,
    };
    let authority = Authority::new(MoveAction::Move, Some(&proposal.id));
    let pointer = match catalog
        .move_authorised(tx, scope, request, authority)
        .await?
    {
        MoveOutcome::Moved(pointer) | MoveOutcome::Unchanged(pointer) => pointer,
        MoveOutcome::Conflict(_) => {
            let message = "the label moved in the same moment";
            return Err(crate::catalog::Problem::new("", message).into());
        }
    };
    close(tx, scope, proposal, ProposalState::Applied, "").await?;
    Ok(pointer)
}

/// Looks at every waiting proposal for this content again, after something about it changed.
pub(super) async fn advance_for(
    catalog: &Catalog,
    tx: &mut WriteTx,
    scope: Scope,
    proposals: Vec<Proposal>,
) -> Result<Vec<Decided>, PromotionError> {
    let mut decided = Vec::new();
    for proposal in proposals {
        // One that was carried out may have ended the next.
        match waiting_one(tx, scope.project, &proposal.id).await {
            Ok(proposal) => decided.push(advance(catalog, tx, as_system(scope), proposal).await?),
            Err(PromotionError::Ended(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(decided)
}
