//! Blobs of documents: content that is too large for a document lies in the blob
//! store, and the document says its digest.
//!
//! A kind says which blobs a document needs. A version is saved only when all of
//! them are there, so that no version of a name is a promise of something lost.

use base::{Digest, ProjectId};
use serde_json::Value;

use super::diff::escape;
use super::{Catalog, CatalogError, Problem};
use crate::BlobStore;

/// How many missing blobs one refusal lists.
const LISTED: usize = 20;

impl Catalog {
    /// The blobs of a project's documents. No project sees another's: a digest that somebody
    /// learned elsewhere gives nothing.
    pub fn blobs(&self, project: ProjectId) -> Option<BlobStore> {
        let store = self.blobs.as_ref()?;
        Some(store.of_project(project))
    }

    /// The blobs that a document of this kind needs and the store does not have, each
    /// once, in the document's order.
    ///
    /// # Errors
    /// The kind is not registered.
    pub async fn missing_blobs(
        &self,
        project: ProjectId,
        kind: &str,
        content: &Value,
    ) -> Result<Vec<Digest>, CatalogError> {
        let kind = self.kinds.get(kind)?;
        let mut seen = std::collections::HashSet::new();
        let mut wanted = (kind.blobs)(&(kind.normal)(content));
        wanted.retain(|digest| seen.insert(*digest));
        let Some(store) = self.blobs(project).filter(|_| !wanted.is_empty()) else {
            return Ok(wanted);
        };
        // Thousands of small questions to the disk.
        let asking = tokio::task::spawn_blocking(move || {
            wanted.retain(|digest| !store.has(digest));
            wanted
        });
        asking.await.map_err(|error| {
            let source = std::io::Error::other(error);
            CatalogError::Db(sqlx::Error::Io(source).into())
        })
    }

    /// Refuses a document in its normal form whose blobs are not all there, or are not what it
    /// takes them for.
    ///
    /// # Errors
    /// [`CatalogError::Invalid`] says which, each with its place.
    pub async fn refuse_wrong_blobs(
        &self,
        project: ProjectId,
        kind: &str,
        normal: &Value,
    ) -> Result<(), CatalogError> {
        let missing = self.missing_blobs(project, kind, normal).await?;
        if missing.is_empty() {
            return self.look_into_blobs(project, kind, normal).await;
        }
        let problem = |digest: &Digest| {
            let path = place_of(normal, &digest.to_string()).unwrap_or_default();
            Problem::new(path, format!("there is no blob {digest}; upload it first"))
        };
        let mut problems: Vec<Problem> = missing.iter().take(LISTED).map(problem).collect();
        if missing.len() > LISTED {
            let more = format!("{} more blobs are missing", missing.len() - LISTED);
            problems.push(Problem::new("", more));
        }
        Err(CatalogError::Invalid(problems))
    }

    async fn look_into_blobs(
        &self,
        project: ProjectId,
        kind: &str,
        normal: &Value,
    ) -> Result<(), CatalogError> {
        let kind = self.kinds.get(kind)?;
        let (Some(check), Some(store)) = (kind.check_blob, self.blobs(project)) else {
            return Ok(());
        };
        let (wanted, normal) = ((kind.blobs)(normal), normal.clone());
        let looking = tokio::task::spawn_blocking(move || {
            let problem = |digest: &Digest| match store.read(digest) {
                Ok(bytes) => check(&normal, digest, &bytes).err(),
                Err(error) => {
                    let path = place_of(&normal, &digest.to_string()).unwrap_or_default();
                    Some(Problem::new(path, error.to_string()))
                }
            };
            wanted.iter().filter_map(problem).collect::<Vec<_>>()
        });
        let problems = looking.await.map_err(|error| {
            let source = std::io::Error::other(error);
            CatalogError::Db(sqlx::Error::Io(source).into())
        })?;
        match problems.is_empty() {
            true => Ok(()),
            false => Err(CatalogError::Invalid(problems)),
        }
    }
}

/// The JSON Pointer of the first text that is exactly this. A kind names its blobs
/// without their places; a digest does not occur in a document by chance.
fn place_of(value: &Value, text: &str) -> Option<String> {
    match value {
        Value::String(own) => (own == text).then(String::new),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .find_map(|(index, item)| place_of(item, text).map(|rest| format!("/{index}{rest}"))),
        Value::Object(fields) => fields.iter().find_map(|(key, item)| {
            let rest = place_of(item, text)?;
            Some(format!("/{}{rest}", escape(key)))
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) => None,
    }
}
