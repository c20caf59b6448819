//! A whole project at one moment: which names there are, their versions and where
//! their labels point, without content.
//!
//! For whoever compares everything with something else, such as a tree of files.
//! Unlike the [index](super::IndexRow) it spans all kinds, knows what was deleted,
//! and can be read inside the transaction that will change what it shows.

use std::collections::BTreeMap;

use base::{Digest, ProjectId};
use serde::Serialize;
use serde_json::Value;
use sqlx::AnyConnection;

use super::{Catalog, Label, Name, store};
use crate::DbError;

/// Every name of a project, by kind and name.
pub type Snapshot = BTreeMap<(String, Name), NameSnapshot>;

/// What a project holds under one name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NameSnapshot {
    /// By content: the version's number.
    pub versions: BTreeMap<Digest, i64>,
    /// The newest version.
    pub latest: Option<(i64, Digest)>,
    /// In their order.
    pub tags: Vec<String>,
    /// Whether it was deleted; its versions are here all the same.
    pub is_deleted: bool,
    /// Where its labels point.
    pub pointers: BTreeMap<Label, PointerSnapshot>,
}

/// Where a label points.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PointerSnapshot {
    /// The version's number.
    pub number: i64,
    /// The content's identity.
    pub digest: Digest,
    /// Counts the moves.
    pub revision: i64,
}

impl Catalog {
    /// Every name of the project as this connection sees it.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn snapshot_in(
        &self,
        connection: &mut AnyConnection,
        project: ProjectId,
    ) -> Result<Snapshot, DbError> {
        store::snapshot(connection, project).await
    }

    /// [`Catalog::documents`] as this connection sees them.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn documents_in(
        &self,
        connection: &mut AnyConnection,
        project: ProjectId,
        digests: &[Digest],
    ) -> Result<std::collections::HashMap<Digest, Value>, DbError> {
        store::documents(connection, project, digests).await
    }

    /// Every document of the project: all content at once, for an export.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn every_document_in(
        &self,
        connection: &mut AnyConnection,
        project: ProjectId,
    ) -> Result<BTreeMap<Digest, Value>, DbError> {
        store::every_document(connection, project).await
    }
}
