//! Evidence for gates, and content that nobody may move to.

use base::{Cursor, Digest, MoveId, ProjectId};
use serde_json::json;

use super::proposals::{advance_for, as_system, before, close};
use super::store::{self, Range};
use super::{
    Decided, Evidence, NewEvidence, Promotion, PromotionError, ProposalState, Quarantine, guard,
    rules,
};
use crate::audit::Line;
use crate::catalog::{CatalogError, Name, Page, PageRequest, Problem, clean_text};
use crate::{DbError, Scope, WriteTx};

/// The figures behind a piece of evidence, in bytes of JSON.
const MAX_DETAIL_BYTES: usize = 64 * 1024;
const MAX_LINK_BYTES: usize = 2000;

impl Promotion {
    /// Adds evidence; a move that waited only for it is carried out in the same transaction.
    ///
    /// # Errors
    /// No version of the name has this content, or the input is wrong.
    pub async fn add_evidence(
        &self,
        scope: Scope,
        new: NewEvidence<'_>,
    ) -> Result<(Evidence, Vec<Decided>), PromotionError> {
        self.catalog.kinds().get(new.kind)?;
        check(&new)?;
        let mut tx = self.db.begin_write().await?;
        tx.serialise().await?;
        let version =
            store::version_of_digest(tx.conn(), scope.project, new.kind, new.name, &new.digest)
                .await?;
        if version.is_none() {
            return Err(PromotionError::NotFound("version with this content"));
        }
        let id: MoveId = self.db.ids().make();
        let evidence = Evidence {
            id: id.to_string(),
            kind: new.kind.to_owned(),
            name: new.name.clone(),
            digest: new.digest,
            gate: new.gate.to_owned(),
            outcome: new.outcome,
            detail: new.detail.clone(),
            link: new.link.to_owned(),
            actor: scope.actor.to_string(),
            at: self.db.now_us(),
        };
        store::insert_evidence(tx.conn(), scope.project, &evidence).await?;
        let object = format!("{}:{}", evidence.kind, evidence.name);
        let detail = json!({
            "evidence": evidence.id, "gate": evidence.gate, "outcome": evidence.outcome, "link": evidence.link,
        });
        Line::new(scope, "evidence.add", &object)
            .detail(detail)
            .digests(None, Some(evidence.digest))
            .write(&mut tx)
            .await?;
        let range = Range::one(new.name);
        let mut waiting = store::waiting(tx.conn(), scope.project, new.kind, &range).await?;
        waiting.retain(|proposal| proposal.digest == new.digest);
        let decided = advance_for(&self.catalog, &mut tx, scope, waiting).await?;
        guard::deliver_name(&self.catalog, &mut tx, as_system(scope), new.kind, new.name).await?;
        tx.commit().await?;
        Ok((evidence, decided))
    }

    /// Evidence, newest first; what is `None` matches everything.
    ///
    /// # Errors
    /// The database cannot be read, or the cursor was not made here.
    pub async fn evidence(
        &self,
        scope: Scope,
        kind: Option<&str>,
        name: Option<&Name>,
        digest: Option<&Digest>,
        gate: Option<&str>,
        page: &PageRequest,
    ) -> Result<Page<Evidence>, PromotionError> {
        let query = store::EvidenceQuery {
            kind: kind.unwrap_or_default(),
            name: name.map(Name::as_str).unwrap_or_default(),
            digest: &digest.map(ToString::to_string).unwrap_or_default(),
            gate: gate.unwrap_or_default(),
        };
        let before = before(page)?;
        let mut connection = self.db.read().acquire().await?;
        let limit = page.limit();
        let rows =
            store::evidence_before(&mut connection, scope.project, &query, &before, limit).await?;
        Ok(Page::cut(rows, limit, |row| {
            Cursor::new(&(row.at, &row.id))
        }))
    }

    /// Quarantines, newest first, of one kind or all; `active` leaves out those that were lifted.
    ///
    /// # Errors
    /// The database cannot be read, or the cursor was not made here.
    pub async fn quarantines(
        &self,
        scope: Scope,
        kind: Option<&str>,
        active: bool,
        page: &PageRequest,
    ) -> Result<Page<Quarantine>, PromotionError> {
        let before = before(page)?;
        let mut connection = self.db.read().acquire().await?;
        let (limit, kind) = (page.limit(), kind.unwrap_or_default());
        let rows =
            store::quarantines_before(&mut connection, scope.project, kind, active, &before, limit)
                .await?;
        Ok(Page::cut(rows, limit, |row| {
            Cursor::new(&(row.at, &row.id))
        }))
    }

    /// Everything that is quarantined now, for what is made from the catalog as a whole.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn active_quarantines(
        &self,
        project: ProjectId,
    ) -> Result<Vec<Quarantine>, PromotionError> {
        let mut connection = self.db.read().acquire().await?;
        Ok(store::active_quarantines(&mut connection, project).await?)
    }

    /// Lets labels be moved to this content again.
    ///
    /// # Errors
    /// There is no such quarantine; lifting twice is not an error.
    pub async fn lift_quarantine(
        &self,
        scope: Scope,
        id: &str,
        reason: &str,
    ) -> Result<Quarantine, PromotionError> {
        let reason = clean_text("reason", reason)?;
        let mut tx = self.db.begin_write().await?;
        tx.serialise().await?;
        let found = store::quarantine(tx.conn(), scope.project, id).await?;
        let mut quarantine = found.ok_or(PromotionError::NotFound("quarantine"))?;
        if quarantine.lifted_at.is_some() {
            return Ok(quarantine);
        }
        let (actor, now) = (scope.actor.to_string(), self.db.now_us());
        store::lift_quarantine(tx.conn(), scope.project, id, (&actor, now, &reason)).await?;
        let object = format!("{}:{}", quarantine.kind, quarantine.name);
        Line::new(scope, "quarantine.lift", &object)
            .detail(json!({ "quarantine": quarantine.id, "number": quarantine.number }))
            .reason(&reason)
            .digests(Some(quarantine.digest), None)
            .write(&mut tx)
            .await?;
        tx.bump_plan().await?;
        tx.commit().await?;
        quarantine.lifted_by = Some(actor);
        quarantine.lifted_at = Some(now);
        quarantine.lift_reason = reason;
        Ok(quarantine)
    }
}

fn check(new: &NewEvidence<'_>) -> Result<(), PromotionError> {
    rules::check_gate_name(new.gate).map_err(|message| Problem::new("gate", message))?;
    if !rules::wants_evidence(new.gate) {
        let message = format!("the program itself judges the gate {:?}", new.gate);
        return Err(Problem::new("gate", message).into());
    }
    let detail = base::canonical_json(new.detail).map_err(CatalogError::from)?;
    if detail.len() > MAX_DETAIL_BYTES || String::from_utf8_lossy(&detail).contains("\\u0000") {
        return Err(Problem::new("detail", "at most 64 KiB of JSON without NUL").into());
    }
    let is_address = new.link.starts_with("https://")
        || new.link.starts_with("http://")
        || (new.link.starts_with('/') && !new.link.starts_with("//"));
    let is_plain = new.link.len() <= MAX_LINK_BYTES
        && !new
            .link
            .chars()
            .any(|c| c.is_control() || c.is_whitespace());
    let is_good = is_address && is_plain;
    if !new.link.is_empty() && !is_good {
        let message = "a link is a web address, or a path on this server that begins with /";
        return Err(Problem::new("link", message).into());
    }
    Ok(())
}

/// Quarantines content, unless it is already, and cancels what waits to move to it.
pub(super) async fn quarantine(
    tx: &mut WriteTx,
    scope: Scope,
    (kind, name): (&str, &Name),
    (number, digest): (i64, Digest),
    reason: &str,
) -> Result<Quarantine, DbError> {
    let known = store::active_quarantine(tx.conn(), scope.project, kind, name, &digest).await?;
    if let Some(known) = known {
        return Ok(known);
    }
    let id: MoveId = tx.db().ids().make();
    let quarantine = Quarantine {
        id: id.to_string(),
        kind: kind.to_owned(),
        name: name.clone(),
        number,
        digest,
        reason: reason.to_owned(),
        actor: scope.actor.to_string(),
        at: tx.db().now_us(),
        lifted_by: None,
        lifted_at: None,
        lift_reason: String::new(),
    };
    store::insert_quarantine(tx.conn(), scope.project, &quarantine).await?;
    Line::new(scope, "quarantine.add", &format!("{kind}:{name}"))
        .detail(json!({ "quarantine": quarantine.id, "number": number }))
        .reason(reason)
        .digests(Some(digest), None)
        .write(tx)
        .await?;
    let waiting = store::waiting(tx.conn(), scope.project, kind, &Range::one(name)).await?;
    for mut proposal in waiting {
        if proposal.digest == digest {
            let why = "the content is quarantined";
            close(tx, scope, &mut proposal, ProposalState::Cancelled, why).await?;
        }
    }
    tx.bump_plan().await?;
    Ok(quarantine)
}
