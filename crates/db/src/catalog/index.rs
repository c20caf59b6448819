//! What a plan is rebuilt from: which versions there are and where the labels
//! point, without content, so that only documents that are new need to be read.

use std::collections::HashMap;

use base::{Digest, ProjectId};
use serde_json::Value;

use super::{Catalog, CatalogError, Name, store};

/// A version that can be called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexRow {
    /// The name.
    pub name: Name,
    /// The version's number.
    pub number: i64,
    /// The content's identity.
    pub digest: Digest,
}

/// Where a label points.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PointerIndexRow {
    /// The name.
    pub name: Name,
    /// The label.
    pub label: String,
    /// The version's number.
    pub number: i64,
    /// The content's identity.
    pub digest: Digest,
}

impl Catalog {
    /// Every version of a kind by name and number, those of deleted names left out.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn version_index(
        &self,
        project: ProjectId,
        kind: &str,
    ) -> Result<Vec<IndexRow>, CatalogError> {
        let mut connection = self.db.read().acquire().await?;
        Ok(store::version_index(&mut connection, project, kind).await?)
    }

    /// Every pointer of a kind by name and label.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn pointer_index(
        &self,
        project: ProjectId,
        kind: &str,
    ) -> Result<Vec<PointerIndexRow>, CatalogError> {
        let mut connection = self.db.read().acquire().await?;
        Ok(store::pointer_index(&mut connection, project, kind).await?)
    }

    /// These documents of the project, of whichever kind and name; one that it does
    /// not have is left out.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn documents(
        &self,
        project: ProjectId,
        digests: &[Digest],
    ) -> Result<HashMap<Digest, Value>, CatalogError> {
        let mut connection = self.db.read().acquire().await?;
        Ok(store::documents(&mut connection, project, digests).await?)
    }
}
