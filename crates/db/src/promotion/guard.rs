//! What the catalog asks before a move that nobody decided on, and tells after each move.
//!
//! After a move, proposals that were made for the label's former place are over,
//! and where the next environment takes content by itself, it goes on there in
//! the same transaction: from environment to environment, never back.

use std::collections::HashMap;
use std::pin::Pin;

use base::Digest;

use super::gates::Facts;
use super::proposals::{Wanted, advance_for, as_system, close, judge, propose};
use super::store::{self, Range, Standing};
use super::{Delivery, Promotion, PromotionError, ProposalState, Rules};
use crate::catalog::{
    Authority, Catalog, CatalogError, Label, MoveAction, MoveRequest, Name, Pointer,
};
use crate::{Actor, DbError, Scope, WriteTx};

/// Refuses a move of a protected label, and one to quarantined content. The
/// target is `None` where the pointer is to be removed.
///
/// # Errors
/// [`CatalogError::Protected`], [`CatalogError::Quarantined`], or the database failed.
pub(crate) async fn check_move(
    tx: &mut WriteTx,
    scope: Scope,
    request: &MoveRequest<'_>,
    target: Option<&Digest>,
) -> Result<(), CatalogError> {
    let MoveRequest {
        kind, name, label, ..
    } = *request;
    if let Some(digest) = target {
        refuse_quarantined(tx, scope, kind, name, digest).await?;
    }
    let protection = store::protection(tx.conn(), scope.project, label.as_str()).await?;
    match protection.filter(|known| known.rules.guards_moves()) {
        Some(known) => Err(CatalogError::Protected {
            label: label.to_string(),
            what: in_words(&known.rules),
        }),
        None => Ok(()),
    }
}

/// What it takes to move a label.
fn in_words(rules: &Rules) -> String {
    let gates: Vec<&str> = rules
        .gates
        .iter()
        .filter(|gate| gate.required)
        .map(|gate| gate.name.as_str())
        .collect();
    let approvals = match rules.approvals {
        0 => String::new(),
        1 => "an approval by somebody else".to_owned(),
        many => format!("{many} approvals by others"),
    };
    match (approvals.is_empty(), gates.is_empty()) {
        (false, true) => format!("a move needs {approvals}"),
        (true, _) => format!("a move needs to pass {}", gates.join(", ")),
        (false, false) => format!("a move needs {approvals} and to pass {}", gates.join(", ")),
    }
}

pub(super) async fn refuse_quarantined(
    tx: &mut WriteTx,
    scope: Scope,
    kind: &str,
    name: &Name,
    digest: &Digest,
) -> Result<(), CatalogError> {
    let found = store::active_quarantine(tx.conn(), scope.project, kind, name, digest).await?;
    match found {
        Some(quarantine) => Err(CatalogError::Quarantined {
            digest: *digest,
            reason: quarantine.reason,
        }),
        None => Ok(()),
    }
}

/// Called by the catalog at the end of each move, in its transaction. Boxed, because
/// what it sets off may be the next move.
///
/// # Errors
/// The database failed.
pub(crate) fn after_move<'a>(
    catalog: &'a Catalog,
    tx: &'a mut WriteTx,
    scope: Scope,
    pointer: &'a Pointer,
    action: MoveAction,
) -> Pin<Box<dyn Future<Output = Result<(), CatalogError>> + Send + 'a>> {
    Box::pin(async move {
        supersede(tx, as_system(scope), pointer).await?;
        // What was taken back or away does not travel on.
        if action == MoveAction::Move {
            let (kind, name) = (&pointer.kind, &pointer.name);
            deliver_from(catalog, tx, as_system(scope), kind, name, &pointer.label).await?;
        }
        Ok(())
    })
}

/// Ends the proposals that were made for another place of this pointer.
async fn supersede(tx: &mut WriteTx, scope: Scope, pointer: &Pointer) -> Result<(), DbError> {
    let range = Range::one(&pointer.name);
    let waiting = store::waiting(tx.conn(), scope.project, &pointer.kind, &range).await?;
    for mut proposal in waiting {
        if proposal.label == pointer.label && proposal.pointer_revision != pointer.revision {
            let why = "the label moved meanwhile";
            close(tx, scope, &mut proposal, ProposalState::Superseded, why).await?;
        }
    }
    Ok(())
}

/// Moves what is in one environment on to the next, if that takes content by itself.
async fn deliver_from(
    catalog: &Catalog,
    tx: &mut WriteTx,
    scope: Scope,
    kind: &str,
    name: &Name,
    from: &str,
) -> Result<(), CatalogError> {
    let environments = store::environments(tx.conn(), scope.project).await?;
    let Some(position) = environments.iter().position(|known| known == from) else {
        return Ok(());
    };
    let Some(to) = environments.get(position + 1) else {
        return Ok(());
    };
    let protection = store::protection(tx.conn(), scope.project, to).await?;
    let Some(protection) = protection.filter(|known| known.rules.delivery == Delivery::Auto) else {
        return Ok(());
    };
    let before = store::pointer(tx.conn(), scope.project, kind, name, from).await?;
    let here = store::pointer(tx.conn(), scope.project, kind, name, to).await?;
    let Some(pointer) = before
        .as_ref()
        .and_then(|before| to_deliver(before, here.as_ref()))
        .cloned()
    else {
        return Ok(());
    };
    let step = Step {
        rules: &protection.rules,
        pointer: &pointer,
        here: here.as_ref(),
        label: &to.parse()?,
    };
    match deliver(catalog, tx, scope, step).await {
        Ok(()) => Ok(()),
        Err(PromotionError::Catalog(CatalogError::Db(error))) => Err(error.into()),
        // Refused before anything was written: quarantined, or a reference is missing.
        Err(refused) => {
            tracing::debug!(document.kind = kind, document.label = %to, error.message = %refused, "not delivered");
            Ok(())
        }
    }
}

/// What an environment shall take over from the one before: not what it has, not what
/// somebody put there by going back, and nothing against a later decision about this one.
fn to_deliver<'a>(before: &'a Standing, here: Option<&Standing>) -> Option<&'a Pointer> {
    let pointer = before.live()?;
    if before.last_action == MoveAction::Rollback.name() {
        return None;
    }
    let Some(here) = here else {
        return Some(pointer);
    };
    let has_it = here
        .live()
        .is_some_and(|known| known.digest == pointer.digest);
    let decided_later = here.pointer.moved_at > pointer.moved_at;
    (!has_it && !decided_later).then_some(pointer)
}

struct Step<'a> {
    rules: &'a Rules,
    /// The pointer in the environment before.
    pointer: &'a Pointer,
    here: Option<&'a Standing>,
    label: &'a Label,
}

async fn deliver(
    catalog: &Catalog,
    tx: &mut WriteTx,
    scope: Scope,
    step: Step<'_>,
) -> Result<(), PromotionError> {
    let Step { rules, pointer, .. } = step;
    let reason = format!("delivered from {}", pointer.label);
    let request = MoveRequest {
        kind: &pointer.kind,
        name: &pointer.name,
        label: step.label,
        to: pointer.number,
        expected: None,
        reason: &reason,
    };
    let wanted = Wanted::find(tx, scope, request).await?;
    if !judge(tx, scope.project, rules, &wanted).await?.passes {
        return Ok(());
    }
    if rules.approvals == 0 {
        let authority = Authority::new(MoveAction::Move, None);
        catalog
            .move_authorised(tx, scope, request, authority)
            .await?;
        return Ok(());
    }
    let place = (pointer.kind.as_str(), &pointer.name, step.label.as_str());
    let since = pointer.moved_at;
    // What people said about it since it arrived stands: it is not asked again.
    let asked =
        store::was_proposed_since(tx.conn(), scope.project, place, &pointer.digest, since).await?;
    if !asked {
        let cause = Some(pointer.moved_by.as_str());
        propose(tx, scope, rules, &wanted, step.here, cause).await?;
    }
    Ok(())
}

/// Tries every step of one name, after something about its content changed.
pub(super) async fn deliver_name(
    catalog: &Catalog,
    tx: &mut WriteTx,
    scope: Scope,
    kind: &str,
    name: &Name,
) -> Result<(), CatalogError> {
    for environment in store::environments(tx.conn(), scope.project).await? {
        deliver_from(catalog, tx, scope, kind, name, &environment).await?;
    }
    Ok(())
}

impl Promotion {
    /// What time alone brings about: proposals expire, gates pass after a while, content
    /// moves on. Run it every few seconds; without anything to do it only reads.
    /// Returns how many projects changed their plan or their proposals.
    ///
    /// # Errors
    /// The database failed; what was done before stays done.
    pub async fn sweep(&self) -> Result<usize, PromotionError> {
        let busy = {
            let mut connection = self.db.read().acquire().await?;
            store::busy_projects(&mut connection).await?
        };
        let mut changed = 0;
        for project in busy {
            let scope = Scope {
                project,
                actor: Actor::System,
            };
            let work = self.find_work(scope).await?;
            if !work.is_empty() {
                self.do_work(scope, work).await?;
                changed += 1;
            }
        }
        Ok(changed)
    }

    async fn find_work(&self, scope: Scope) -> Result<Work, DbError> {
        let mut connection = self.db.read().acquire().await?;
        let (project, now) = (scope.project, self.db.now_us());
        let waiting = store::waiting(&mut connection, project, "", &Range::default()).await?;
        let proposals = waiting
            .into_iter()
            .filter(|proposal| {
                proposal.state == ProposalState::Approved
                    || proposal.expires_at.is_some_and(|end| end <= now)
            })
            .collect();
        let protections = store::protections(&mut connection, project).await?;
        let environments = store::environments(&mut connection, project).await?;
        let automatic = |label: &str| {
            let known = protections.iter().find(|known| known.label == label)?;
            (known.rules.delivery == Delivery::Auto).then_some(&known.rules)
        };
        if !environments.iter().any(|label| automatic(label).is_some()) {
            return Ok(Work {
                proposals,
                steps: Vec::new(),
            });
        }
        let rows =
            store::environment_pointers(&mut connection, project, "", &Range::default()).await?;
        let by_place: HashMap<(&str, &str, &str), &Standing> = rows
            .iter()
            .map(|row| {
                let pointer = &row.pointer;
                let place = (
                    pointer.kind.as_str(),
                    pointer.name.as_str(),
                    pointer.label.as_str(),
                );
                (place, row)
            })
            .collect();
        let mut steps = Vec::new();
        for before in &rows {
            let position = environments
                .iter()
                .position(|known| *known == before.pointer.label);
            let next = position.and_then(|position| environments.get(position + 1));
            let Some((to, rules)) = next.and_then(|to| Some((to, automatic(to)?))) else {
                continue;
            };
            let pointer = &before.pointer;
            let place = (pointer.kind.as_str(), pointer.name.as_str(), to.as_str());
            let here = by_place.get(&place).copied();
            if let Some(pointer) = to_deliver(before, here) {
                steps.push((pointer.clone(), to.clone(), rules));
            }
        }
        let mut work = Work {
            proposals,
            steps: Vec::new(),
        };
        let mut facts: HashMap<String, Facts> = HashMap::new();
        for (pointer, to, rules) in steps {
            if !facts.contains_key(&pointer.kind) {
                let all = protections.iter().map(|known| &known.rules);
                let range = Range::default();
                let loaded =
                    Facts::load(&mut connection, project, &pointer.kind, &range, all, now).await?;
                facts.insert(pointer.kind.clone(), loaded);
            }
            let Some(facts) = facts.get(&pointer.kind) else {
                continue;
            };
            let report = facts.report(rules, &pointer.name, &pointer.digest, &to);
            if !report.passes || facts.is_quarantined(&pointer.name, &pointer.digest) {
                continue;
            }
            let place = (pointer.kind.as_str(), &pointer.name, to.as_str());
            let since = pointer.moved_at;
            let asked = rules.approvals > 0
                && store::was_proposed_since(
                    &mut connection,
                    project,
                    place,
                    &pointer.digest,
                    since,
                )
                .await?;
            if !asked {
                work.steps.push(pointer);
            }
        }
        Ok(work)
    }

    async fn do_work(&self, scope: Scope, work: Work) -> Result<(), PromotionError> {
        let mut tx = self.db.begin_write().await?;
        tx.serialise().await?;
        advance_for(&self.catalog, &mut tx, scope, work.proposals).await?;
        for pointer in work.steps {
            let (kind, name, label) = (&pointer.kind, &pointer.name, &pointer.label);
            deliver_from(&self.catalog, &mut tx, scope, kind, name, label).await?;
        }
        tx.commit().await?;
        Ok(())
    }
}

/// What the sweep found to do.
struct Work {
    proposals: Vec<super::Proposal>,
    /// Pointers of environments whose content moves on.
    steps: Vec<Pointer>,
}

impl Work {
    fn is_empty(&self) -> bool {
        self.proposals.is_empty() && self.steps.is_empty()
    }
}
