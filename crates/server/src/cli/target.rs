//! Where a command about trees works: on the data directory, or on a running server
//! that it has a key of. Both take the same trees and give the same answers.

use std::path::Path;

use anyhow::Context as _;
use base::Digest;
use db::{Catalog, Db, Scope};

use super::Place;
use super::remote::{Remote, ServerArgs};
use crate::app::{open_catalog, open_database};
use crate::gitops::{self, Applied, BlobFiles, BlobOf, ExportedTree, Planned, SentTree};
use crate::keys;

/// The project of a data directory, where nothing is said.
const DEFAULT_PROJECT: &str = "default";

#[expect(
    clippy::large_enum_variant,
    reason = "one of them is made, once, by each command"
)]
pub(super) enum Target {
    Here(Here),
    Server(Remote),
}

/// A data directory, open.
pub(super) struct Here {
    db: Db,
    catalog: Catalog,
    scope: Scope,
    project: String,
}

impl Target {
    /// Opens the server that was named, or else the data directory.
    pub(super) async fn open(
        place: &Place,
        project: Option<&str>,
        server: &ServerArgs,
    ) -> anyhow::Result<Self> {
        if let Some(remote) = Remote::open(server)? {
            return Ok(Self::Server(remote));
        }
        let project = project.unwrap_or(DEFAULT_PROJECT);
        let config = place.load(None)?;
        let db = open_database(&config).await?;
        let scope = keys::operator_scope(&db, project).await?;
        Ok(Self::Here(Here {
            catalog: open_catalog(&config, &db)?,
            db,
            scope,
            project: project.to_owned(),
        }))
    }

    pub(super) async fn close(self) {
        if let Self::Here(here) = self {
            here.db.close().await;
        }
    }

    pub(super) async fn export(&self) -> anyhow::Result<ExportedTree> {
        match self {
            Self::Here(here) => {
                Ok(gitops::export_files(&here.db, &here.catalog, here.scope).await?)
            }
            Self::Server(server) => server.export().await,
        }
    }

    pub(super) async fn plan(&self, sent: SentTree) -> anyhow::Result<Planned> {
        match self {
            Self::Here(here) => {
                let (db, catalog) = (&here.db, &here.catalog);
                Ok(gitops::plan_files(db, catalog, here.scope, &here.project, sent).await?)
            }
            Self::Server(server) => server.plan(&sent).await,
        }
    }

    /// Sends the blobs that are missing, then applies.
    pub(super) async fn apply(
        &self,
        sent: SentTree,
        missing: &[String],
        blobs: &BlobFiles,
    ) -> anyhow::Result<Applied> {
        for missing in missing {
            let digest: Digest = missing.parse()?;
            let path = blobs
                .get(&digest)
                .with_context(|| format!("there is no {}", gitops::path_of(&digest)))?;
            let bytes = gitops::read_blob_file(&digest, path)?;
            match self {
                Self::Here(here) => {
                    gitops::put_blob(&here.catalog, here.scope.project, digest, bytes).await?;
                }
                Self::Server(server) => server.put_blob(&digest, bytes).await?,
            }
        }
        match self {
            Self::Here(here) => {
                sent.check_project(&here.project)?;
                let (db, catalog) = (&here.db, &here.catalog);
                // Who has the data directory may do everything.
                Ok(gitops::apply_files(db, catalog, here.scope, sent, |_| Ok(())).await?)
            }
            Self::Server(server) => server.apply(&sent).await,
        }
    }

    /// Writes the blobs of an export that the folder does not have; their paths.
    pub(super) async fn fetch_blobs(
        &self,
        blobs: &[BlobOf],
        folder: &Path,
    ) -> anyhow::Result<Vec<String>> {
        let mut written = Vec::new();
        for blob in blobs {
            let digest: Digest = blob.digest.parse()?;
            if gitops::has_blob_file(folder, &digest) {
                continue;
            }
            let bytes = match self {
                Self::Here(here) => {
                    let read = gitops::read_blob(&here.catalog, here.scope.project, blob);
                    read.await?.1
                }
                Self::Server(server) => server.blob(blob).await?,
            };
            written.push(gitops::write_blob_file(folder, &digest, &bytes)?);
        }
        Ok(written)
    }
}
