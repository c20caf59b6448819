//! Pointers: moving them, removing them, and what is remembered of it.
//!
//! Every way to move a pointer ends in [`Catalog::move_authorised`]. Who has no
//! [`Authority`] goes through the guard of protected labels and quarantined
//! content first, and only `promotion` can make one.

use base::{Cursor, Digest, MoveId, PointerId, VersionId};
use serde::Serialize;
use serde_json::json;

use super::references::{Graph, MovedLabel};
use super::{
    Catalog, CatalogError, Changed, Label, Name, Page, PageRequest, Problem, Version,
    audit_catalog, clean_text, store,
};
use crate::promotion::guard;
use crate::{Scope, WriteTx};

/// A mutable reference to a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Pointer {
    /// The pointer's id.
    pub id: PointerId,
    /// The document kind.
    pub kind: String,
    /// The name that it belongs to.
    pub name: Name,
    /// `production`, `staging` …
    pub label: String,
    /// The version's number.
    pub number: i64,
    /// The version's id.
    pub version_id: VersionId,
    /// The content's identity.
    pub digest: Digest,
    /// Counts the moves, from 1; what compare-and-swap compares.
    pub revision: i64,
    /// Who moved it last, as [`Actor`](crate::Actor) prints.
    pub moved_by: String,
    /// When.
    pub moved_at: i64,
}

/// One move of a pointer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Move {
    /// The move's id.
    pub id: MoveId,
    /// The pointer's label.
    pub label: String,
    /// The pointer's revision after the move.
    pub revision: i64,
    /// The number it pointed to before; `None` where it did not exist.
    pub from: Option<i64>,
    /// The number it points to since; after a removal, the number it pointed to last.
    pub to: i64,
    /// What was done.
    pub action: MoveAction,
    /// The approved proposal that this carried out.
    pub proposal: Option<String>,
    /// Who, as [`Actor`](crate::Actor) prints.
    pub actor: String,
    /// Why.
    pub reason: String,
    /// When.
    pub moved_at: i64,
}

/// What a line of a pointer's history did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum MoveAction {
    /// It was pointed to a version.
    Move,
    /// It was pointed back to an earlier version, because the one it left is bad.
    Rollback,
    /// It was removed.
    Remove,
}

impl MoveAction {
    /// The word that the database, the API and the audit log use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Move => "move",
            Self::Rollback => "rollback",
            Self::Remove => "remove",
        }
    }
}

impl std::str::FromStr for MoveAction {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        [Self::Move, Self::Rollback, Self::Remove]
            .into_iter()
            .find(|action| action.name() == text)
            .ok_or_else(|| Problem::new("action", format!("{text:?} is not done to pointers")))
    }
}

/// The right to move a protected label, or to quarantined content. Outside of
/// this crate nobody can make one.
#[derive(Debug, Clone, Copy)]
pub struct Authority<'a> {
    action: MoveAction,
    proposal: Option<&'a str>,
}

impl<'a> Authority<'a> {
    /// For a move or a rollback that was decided elsewhere, by this proposal if by one.
    pub(crate) fn new(action: MoveAction, proposal: Option<&'a str>) -> Self {
        Self { action, proposal }
    }
}

/// A move that somebody asks for.
#[derive(Debug, Clone, Copy)]
pub struct MoveRequest<'a> {
    /// The document kind.
    pub kind: &'a str,
    /// The name.
    pub name: &'a Name,
    /// The pointer; it is made by its first move.
    pub label: &'a Label,
    /// The version's number to point to.
    pub to: i64,
    /// Move only if the pointer still has this revision; 0 means that it must not
    /// exist yet, `None` moves whatever it is.
    pub expected: Option<i64>,
    /// Why, in the actor's words; may be empty.
    pub reason: &'a str,
}

/// A removal of a pointer that somebody asks for.
#[derive(Debug, Clone, Copy)]
pub struct RemoveRequest<'a> {
    /// The document kind.
    pub kind: &'a str,
    /// The name.
    pub name: &'a Name,
    /// The pointer.
    pub label: &'a Label,
    /// Remove only if the pointer still has this revision; `None` removes whatever it is.
    pub expected: Option<i64>,
    /// Why, in the actor's words; may be empty.
    pub reason: &'a str,
    /// Remove it although documents in use refer to it.
    pub force: bool,
}

/// What became of a removal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RemoveOutcome {
    /// It is gone; this is where it pointed, with the revision that the removal has.
    Removed(Pointer),
    /// Somebody else moved or removed it first; this is where it is.
    Conflict(Option<Pointer>),
}

/// What became of a move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MoveOutcome {
    /// It points to the version now.
    Moved(Pointer),
    /// It pointed there already; nothing was written.
    Unchanged(Pointer),
    /// Somebody else moved it first; this is where it is (`None`: it does not exist).
    Conflict(Option<Pointer>),
}

impl Catalog {
    /// Moves a pointer, or makes it.
    ///
    /// # Errors
    /// [`CatalogError::NoVersion`] when the target does not exist.
    pub async fn move_pointer(
        &self,
        scope: Scope,
        request: MoveRequest<'_>,
    ) -> Result<MoveOutcome, CatalogError> {
        let mut tx = self.db.begin_write().await?;
        let outcome = self.move_pointer_in(&mut tx, scope, request).await?;
        tx.commit().await?;
        Ok(outcome)
    }

    /// [`Catalog::move_pointer`] in the caller's transaction.
    ///
    /// # Errors
    /// As there; after a database error the transaction cannot be used further.
    pub async fn move_pointer_in(
        &self,
        tx: &mut WriteTx,
        scope: Scope,
        request: MoveRequest<'_>,
    ) -> Result<MoveOutcome, CatalogError> {
        self.move_checked(tx, scope, request, None).await
    }

    /// Moves without asking the guard; what is decided in `promotion` ends here.
    ///
    /// # Errors
    /// As [`Catalog::move_pointer`].
    pub(crate) async fn move_authorised(
        &self,
        tx: &mut WriteTx,
        scope: Scope,
        request: MoveRequest<'_>,
        authority: Authority<'_>,
    ) -> Result<MoveOutcome, CatalogError> {
        self.move_checked(tx, scope, request, Some(authority)).await
    }

    async fn move_checked(
        &self,
        tx: &mut WriteTx,
        scope: Scope,
        request: MoveRequest<'_>,
        authority: Option<Authority<'_>>,
    ) -> Result<MoveOutcome, CatalogError> {
        let reason = clean_text("reason", request.reason)?;
        tx.serialise().await?;
        let MoveRequest {
            kind, name, label, ..
        } = request;
        let row = store::pointer_row(tx.conn(), scope.project, kind, name, label).await?;
        let current = row.as_ref().and_then(|row| row.live());
        if is_stale(request.expected, row.as_ref()) {
            return Ok(MoveOutcome::Conflict(current.cloned()));
        }
        let target = self.target(tx, scope, &request).await?;
        if let Some(pointer) = current.filter(|pointer| pointer.version_id == target.id) {
            return Ok(MoveOutcome::Unchanged(pointer.clone()));
        }
        if authority.is_none() {
            guard::check_move(tx, scope, &request, Some(&target.digest)).await?;
        }
        let authority = authority.unwrap_or(Authority::new(MoveAction::Move, None));
        self.check_closure(tx, scope, label, &target, authority.action)
            .await?;
        let pointer = Pointer {
            number: target.number,
            version_id: target.id,
            digest: target.digest,
            ..self.next_state(scope, label, &target, row.as_ref())
        };
        let from = current.cloned();
        self.write_move(tx, scope, &pointer, from.as_ref(), authority, &reason)
            .await?;
        Ok(MoveOutcome::Moved(pointer))
    }

    async fn target(
        &self,
        tx: &mut WriteTx,
        scope: Scope,
        request: &MoveRequest<'_>,
    ) -> Result<Version, CatalogError> {
        let MoveRequest { kind, name, to, .. } = *request;
        let entry = store::name_row(tx.conn(), scope.project, kind, name).await?;
        if entry.is_some_and(|entry| entry.deleted_at.is_some()) {
            return Err(CatalogError::Deleted {
                kind: kind.to_owned(),
                name: name.clone(),
            });
        }
        let found = store::by_number(tx.conn(), scope.project, kind, name, to).await?;
        found.ok_or_else(|| CatalogError::NoVersion {
            kind: kind.to_owned(),
            name: name.to_string(),
            number: to,
        })
    }

    /// A rollback is not held up by what is missing: it is how a bad move ends.
    async fn check_closure(
        &self,
        tx: &mut WriteTx,
        scope: Scope,
        label: &Label,
        target: &Version,
        action: MoveAction,
    ) -> Result<(), CatalogError> {
        let moved = MovedLabel { label, target };
        let mut graph = Graph::new(tx.conn(), scope.project, self.kinds(), Some(moved));
        let root = graph.add_version(target).await?;
        graph.refuse_cycle(root)?;
        if action == MoveAction::Move {
            graph.refuse_missing()?;
        }
        Ok(())
    }

    /// The pointer as it will be, apart from where it points.
    fn next_state(
        &self,
        scope: Scope,
        label: &Label,
        target: &Version,
        row: Option<&PointerRow>,
    ) -> Pointer {
        Pointer {
            id: row.map_or_else(|| self.db.ids().make(), |row| row.pointer.id),
            kind: target.kind.clone(),
            name: target.name.clone(),
            label: label.to_string(),
            number: target.number,
            version_id: target.id,
            digest: target.digest,
            revision: row.map_or(0, |row| row.pointer.revision) + 1,
            moved_by: scope.actor.to_string(),
            moved_at: self.db.now_us(),
        }
    }

    async fn write_move(
        &self,
        tx: &mut WriteTx,
        scope: Scope,
        pointer: &Pointer,
        from: Option<&Pointer>,
        authority: Authority<'_>,
        reason: &str,
    ) -> Result<(), CatalogError> {
        let removed = authority.action == MoveAction::Remove;
        store::put_pointer(tx.conn(), scope.project, pointer, removed).await?;
        let history = store::NewMove {
            id: self.db.ids().make(),
            from_version: from.map(|pointer| pointer.version_id),
            reason,
            action: authority.action,
            proposal: authority.proposal,
        };
        store::insert_move(tx.conn(), pointer, &history).await?;
        let mut detail = json!({
            "label": pointer.label, "from": from.map(|pointer| pointer.number),
            "to": if removed { None } else { Some(pointer.number) }, "reason": reason,
        });
        if let Some(proposal) = authority.proposal {
            detail["proposal"] = json!(proposal);
        }
        let verb = authority.action.name();
        let changed = Changed {
            before: from.map(|pointer| pointer.digest),
            after: (!removed).then_some(pointer.digest),
            reason,
        };
        audit_catalog(
            tx,
            scope,
            &pointer.kind,
            verb,
            &pointer.name,
            changed,
            &detail,
        )
        .await?;
        tx.bump_plan().await?;
        guard::after_move(self, tx, scope, pointer, authority.action).await
    }

    /// Removes a pointer; its history stays, and moving it again goes on counting.
    ///
    /// # Errors
    /// [`CatalogError::NoPointer`] when there is none, [`CatalogError::Referenced`]
    /// while documents in use refer to it, unless forced.
    pub async fn remove_pointer(
        &self,
        scope: Scope,
        request: RemoveRequest<'_>,
    ) -> Result<RemoveOutcome, CatalogError> {
        let mut tx = self.db.begin_write().await?;
        let outcome = self.remove_pointer_in(&mut tx, scope, request).await?;
        tx.commit().await?;
        Ok(outcome)
    }

    /// [`Catalog::remove_pointer`] in the caller's transaction.
    ///
    /// # Errors
    /// As there; after a database error the transaction cannot be used further.
    pub async fn remove_pointer_in(
        &self,
        tx: &mut WriteTx,
        scope: Scope,
        request: RemoveRequest<'_>,
    ) -> Result<RemoveOutcome, CatalogError> {
        let reason = clean_text("reason", request.reason)?;
        tx.serialise().await?;
        let RemoveRequest {
            kind, name, label, ..
        } = request;
        let row = store::pointer_row(tx.conn(), scope.project, kind, name, label).await?;
        let current = row.as_ref().and_then(|row| row.live()).cloned();
        if is_stale(request.expected, row.as_ref()) {
            return Ok(RemoveOutcome::Conflict(current));
        }
        let Some(current) = current else {
            return Err(CatalogError::NoPointer {
                kind: kind.to_owned(),
                name: name.clone(),
                label: label.to_string(),
            });
        };
        if !request.force {
            self.refuse_referenced(tx, scope, kind, name, Some(label))
                .await?;
        }
        let removed = self.remove_current(tx, scope, &current, &reason).await?;
        Ok(RemoveOutcome::Removed(removed))
    }

    /// Removes a pointer that exists, if the guard allows it.
    pub(super) async fn remove_current(
        &self,
        tx: &mut WriteTx,
        scope: Scope,
        current: &Pointer,
        reason: &str,
    ) -> Result<Pointer, CatalogError> {
        let label: Label = current.label.parse()?;
        let as_move = MoveRequest {
            kind: &current.kind,
            name: &current.name,
            label: &label,
            to: current.number,
            expected: None,
            reason,
        };
        guard::check_move(tx, scope, &as_move, None).await?;
        let removed = Pointer {
            revision: current.revision + 1,
            moved_by: scope.actor.to_string(),
            moved_at: self.db.now_us(),
            ..current.clone()
        };
        let authority = Authority::new(MoveAction::Remove, None);
        self.write_move(tx, scope, &removed, Some(current), authority, reason)
            .await?;
        Ok(removed)
    }

    /// The pointers of a name, by label.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn pointers(
        &self,
        scope: Scope,
        kind: &str,
        name: &Name,
    ) -> Result<Vec<Pointer>, CatalogError> {
        let mut connection = self.db.read().acquire().await?;
        Ok(store::pointers(&mut connection, scope.project, kind, name).await?)
    }

    /// The moves of one pointer of a name, or of all of them, newest first.
    ///
    /// # Errors
    /// The database cannot be read, or the cursor was not made here.
    pub async fn moves(
        &self,
        scope: Scope,
        kind: &str,
        name: &Name,
        label: Option<&Label>,
        page: &PageRequest,
    ) -> Result<Page<Move>, CatalogError> {
        let before: (i64, i64, String) = page
            .cursor
            .as_ref()
            .map(Cursor::key)
            .transpose()?
            .unwrap_or((i64::MAX, i64::MAX, "z".to_owned()));
        let label = label.map(ToString::to_string).unwrap_or_default();
        let mut connection = self.db.read().acquire().await?;
        let rows = store::moves_before(
            &mut connection,
            scope.project,
            kind,
            name,
            &label,
            &before,
            page.limit(),
        )
        .await?;
        Ok(Page::cut(rows, page.limit(), |row| {
            Cursor::new(&(row.moved_at, row.revision, row.id))
        }))
    }

    /// One pointer; `None` when it does not exist.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn pointer(
        &self,
        scope: Scope,
        kind: &str,
        name: &Name,
        label: &Label,
    ) -> Result<Option<Pointer>, CatalogError> {
        let mut connection = self.db.read().acquire().await?;
        let row = store::pointer_row(&mut connection, scope.project, kind, name, label).await?;
        Ok(row.and_then(|row| row.live().cloned()))
    }
}

/// A pointer's row: one that was removed keeps it, so that its revision goes on.
#[derive(Debug)]
pub(super) struct PointerRow {
    pub(super) pointer: Pointer,
    pub(super) removed: bool,
}

impl PointerRow {
    fn live(&self) -> Option<&Pointer> {
        (!self.removed).then_some(&self.pointer)
    }
}

/// Whether the mover knows another state than this. Somebody who sees no pointer
/// says 0, whether there never was one or it was removed.
fn is_stale(expected: Option<i64>, row: Option<&PointerRow>) -> bool {
    let Some(expected) = expected else {
        return false;
    };
    match row {
        None => expected != 0,
        Some(row) if row.removed => expected != 0 && expected != row.pointer.revision,
        Some(row) => expected != row.pointer.revision,
    }
}
