//! What a project holds, read at one moment: inside the transaction that will
//! change it, or on any connection for a plan that only shows.

use std::collections::BTreeMap;

use base::{Digest, ProjectId};
use db::catalog::{Catalog, Label, NameSnapshot};
use db::sqlx::AnyConnection;
use db::{DbError, Promotion};
use serde::Serialize;

use super::store::{self, Applied};
use super::{Environments, Key};

/// A proposal that waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Waiting {
    pub(super) id: String,
    pub(super) digest: Digest,
    pub(super) pointer_revision: i64,
}

/// What a project holds.
#[derive(Debug, Clone, Default)]
pub(super) struct State {
    pub(super) names: BTreeMap<Key, NameSnapshot>,
    /// The environments, and what protects them and other labels.
    pub(super) environments: Environments,
    pub(super) waiting: BTreeMap<(Key, Label), Vec<Waiting>>,
    pub(super) quarantined: BTreeMap<Key, Vec<Digest>>,
    /// What the last apply left behind.
    pub(super) applied: Option<Applied>,
}

/// Everything that a plan compares.
pub(super) async fn read_state(
    connection: &mut AnyConnection,
    catalog: &Catalog,
    promotion: &Promotion,
    project: ProjectId,
) -> Result<State, DbError> {
    let names = catalog.snapshot_in(connection, project).await?;
    let moves = promotion.snapshot_in(connection, project).await?;
    let mut state = State {
        names: names
            .into_iter()
            .map(|((kind, name), held)| (Key { kind, name }, held))
            .collect(),
        environments: Environments::of(&moves.environments),
        applied: store::read_applied(connection, project).await?,
        ..State::default()
    };
    for proposal in moves.waiting {
        // A label that is none any more cannot be asked for by a tree.
        let Ok(label) = proposal.label.parse::<Label>() else {
            continue;
        };
        let key = Key {
            kind: proposal.kind,
            name: proposal.name,
        };
        let waiting = Waiting {
            id: proposal.id,
            digest: proposal.digest,
            pointer_revision: proposal.pointer_revision,
        };
        state.waiting.entry((key, label)).or_default().push(waiting);
    }
    for quarantine in moves.quarantines {
        let key = Key {
            kind: quarantine.kind,
            name: quarantine.name,
        };
        let digests = state.quarantined.entry(key).or_default();
        digests.push(quarantine.digest);
    }
    Ok(state)
}
