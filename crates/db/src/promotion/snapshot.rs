//! Everything that stands before moves of a project, at one moment: what protects
//! its labels, which proposals wait, what is quarantined.

use base::ProjectId;
use sqlx::AnyConnection;

use super::environments::arrange;
use super::store::{self, Range};
use super::{Environments, Promotion, Proposal, Quarantine};
use crate::DbError;

/// What a project's moves meet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PromotionSnapshot {
    /// The environments in order and other protected labels.
    pub environments: Environments,
    /// The proposals that wait, oldest first, without what people said to them.
    pub waiting: Vec<Proposal>,
    /// The quarantines in force.
    pub quarantines: Vec<Quarantine>,
}

impl Promotion {
    /// What stands before moves of the project, as this connection sees it.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn snapshot_in(
        &self,
        connection: &mut AnyConnection,
        project: ProjectId,
    ) -> Result<PromotionSnapshot, DbError> {
        let names = store::environments(connection, project).await?;
        let protections = store::protections(connection, project).await?;
        Ok(PromotionSnapshot {
            environments: arrange(names, protections),
            waiting: store::waiting(connection, project, "", &Range::default()).await?,
            quarantines: store::active_quarantines(connection, project).await?,
        })
    }
}
