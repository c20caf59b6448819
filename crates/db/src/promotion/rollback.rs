//! Going back: at once, without approvals or gates, also on protected labels.
//!
//! A pointer's history reads like an editor's undo: a move adds a version on top,
//! a rollback takes off what is above the version it goes to. So going back twice
//! goes back two versions, not there and back again.

use std::collections::HashSet;

use base::Digest;

use super::proposals::close;
use super::store::{self, Past, Range, Standing};
use super::{
    Promotion, PromotionError, ProposalState, RollbackRequest, RolledBack, guard, quarantine,
};
use crate::catalog::{Authority, MoveAction, MoveOutcome, MoveRequest, Pointer, clean_text};
use crate::{Scope, WriteTx};

impl Promotion {
    /// Points a label back to a version that it pointed to before, in effect on the next
    /// request, and quarantines the content that it leaves if that is wanted.
    ///
    /// # Errors
    /// The label does not exist, has nothing before, or never pointed to the wanted version.
    pub async fn roll_back(
        &self,
        scope: Scope,
        request: RollbackRequest<'_>,
    ) -> Result<RolledBack, PromotionError> {
        self.catalog.kinds().get(request.kind)?;
        let reason = clean_text("reason", request.reason)?;
        let mut tx = self.db.begin_write().await?;
        tx.serialise().await?;
        let RollbackRequest {
            kind, name, label, ..
        } = request;
        let standing = store::pointer(tx.conn(), scope.project, kind, name, label.as_str()).await?;
        let current = standing.as_ref().and_then(Standing::live).cloned();
        let revision = current.as_ref().map_or(0, |pointer| pointer.revision);
        if request
            .expected
            .is_some_and(|expected| expected != revision)
        {
            return Ok(RolledBack::Conflict(current));
        }
        let Some(current) = current else {
            let message = format!("{kind} {name} has no label {label}, so it cannot go back");
            return Err(PromotionError::NothingBefore(message));
        };
        let to = self.earlier(&mut tx, scope, &request, &current).await?;
        cancel_proposals(&mut tx, scope, &current).await?;
        let quarantine = if request.quarantine {
            let bad = (current.number, current.digest);
            Some(quarantine::quarantine(&mut tx, scope, (kind, name), bad, &reason).await?)
        } else {
            None
        };
        let back = MoveRequest {
            kind,
            name,
            label,
            to,
            expected: None,
            reason: &reason,
        };
        let authority = Authority::new(MoveAction::Rollback, None);
        let moving = self
            .catalog
            .move_authorised(&mut tx, scope, back, authority);
        let pointer = match moving.await? {
            MoveOutcome::Moved(pointer) | MoveOutcome::Unchanged(pointer) => pointer,
            MoveOutcome::Conflict(current) => return Ok(RolledBack::Conflict(current)),
        };
        tx.commit().await?;
        Ok(RolledBack::Done {
            pointer,
            left: current.number,
            quarantine,
        })
    }

    /// The version to go back to.
    async fn earlier(
        &self,
        tx: &mut WriteTx,
        scope: Scope,
        request: &RollbackRequest<'_>,
        current: &Pointer,
    ) -> Result<i64, PromotionError> {
        let RollbackRequest {
            kind, name, label, ..
        } = *request;
        let history = store::history(tx.conn(), scope.project, current).await?;
        if let Some(wanted) = request.to {
            let past = history.iter().find(|past| past.number == wanted);
            let Some(past) = past.filter(|_| wanted != current.number) else {
                let message =
                    format!("{label} of {kind} {name} did not point to version {wanted} before");
                return Err(PromotionError::NothingBefore(message));
            };
            guard::refuse_quarantined(tx, scope, kind, name, &past.digest).await?;
            return Ok(wanted);
        }
        let rows = store::active_quarantines(tx.conn(), scope.project).await?;
        let bad: HashSet<Digest> = rows
            .into_iter()
            .filter(|row| row.kind == kind && row.name == *name)
            .map(|row| row.digest)
            .collect();
        before_current(&history, &bad, current.digest).ok_or_else(|| {
            let message =
                format!("{label} of {kind} {name} has no earlier version that is not quarantined");
            PromotionError::NothingBefore(message)
        })
    }
}

/// The version below the current one, were each move a layer on top and each rollback a take-off.
fn before_current(history: &[Past], bad: &HashSet<Digest>, current: Digest) -> Option<i64> {
    let mut layers: Vec<(i64, Digest)> = Vec::new();
    for past in history {
        match past.action.as_str() {
            // Nothing ran then; where it goes on, the earlier layers still lie below.
            "remove" => continue,
            "rollback" => {
                let known = layers
                    .iter()
                    .rposition(|(number, _)| *number == past.number);
                match known {
                    Some(position) => layers.truncate(position + 1),
                    None => layers.push((past.number, past.digest)),
                }
            }
            _ => layers.push((past.number, past.digest)),
        }
    }
    let good = |(_, digest): &&(i64, Digest)| *digest != current && !bad.contains(digest);
    layers.iter().rev().find(good).map(|(number, _)| *number)
}

/// What people were asked about a label is no more once it was rolled back.
async fn cancel_proposals(
    tx: &mut WriteTx,
    scope: Scope,
    current: &Pointer,
) -> Result<(), PromotionError> {
    let range = Range::one(&current.name);
    let waiting = store::waiting(tx.conn(), scope.project, &current.kind, &range).await?;
    for mut proposal in waiting {
        if proposal.label == current.label {
            let why = "the label was rolled back";
            close(tx, scope, &mut proposal, ProposalState::Cancelled, why).await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(text: &str) -> Vec<Past> {
        let past = |word: &str| {
            let action = match &word[..1] {
                "<" => "rollback",
                "-" => "remove",
                _ => "move",
            };
            let number = word.trim_start_matches(['<', '-']).parse().unwrap();
            Past {
                number,
                digest: digest(number),
                action: action.to_owned(),
            }
        };
        text.split(' ').map(past).collect()
    }

    fn digest(number: i64) -> Digest {
        Digest::of(&number.to_le_bytes())
    }

    #[test]
    fn going_back_is_undo() {
        let check = |text: &str, bad: &[i64], expected: Option<i64>| {
            let history = history(text);
            let current = history.last().unwrap().digest;
            let bad = bad.iter().map(|number| digest(*number)).collect();
            assert_eq!(before_current(&history, &bad, current), expected, "{text}");
        };
        check("1", &[], None);
        check("1 2", &[], Some(1));
        check("1 2 3 <2", &[], Some(1));
        check("1 2 3 <2", &[1], None);
        check("1 2 3 4", &[3], Some(2));
        check("1 2 1", &[], Some(2));
        check("1 2 3 <1 4", &[], Some(1));
        check("1 2 -2 3", &[], Some(2));
    }
}
