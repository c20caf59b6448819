//! `meguri export DIR`: the project as a tree of files.

use std::path::PathBuf;

use clap::Args;

use super::{Place, message, print_json, print_line};
use crate::app::{open_catalog, open_database};
use crate::gitops::{self, Writing};
use crate::keys;

#[derive(Args)]
pub(super) struct Export {
    #[command(flatten)]
    place: Place,
    /// The project.
    #[arg(long, default_value = "default")]
    project: String,
    /// Remove exported files of documents that are gone.
    #[arg(long)]
    remove_stale: bool,
    /// Replace files in the way that were not exported.
    #[arg(long)]
    overwrite: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// The folder; it is made if it is missing.
    dir: PathBuf,
}

impl Export {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let config = self.place.load(None)?;
        let db = open_database(&config).await?;
        let scope = keys::operator_scope(&db, &self.project).await?;
        let catalog = open_catalog(&config, &db)?;
        let tree = gitops::export(&db, &catalog, scope).await?;
        db.close().await;
        let files = gitops::render(&tree, catalog.kinds());
        let how = Writing {
            remove_stale: self.remove_stale,
            overwrite: self.overwrite,
        };
        let folders = gitops::kind_folders(catalog.kinds());
        let written = gitops::write_directory(&self.dir, &files, &folders, how)?;
        if self.json {
            return print_json(&written);
        }
        for path in &written.written {
            print_line(&format!("wrote {path}"))?;
        }
        let stale = if self.remove_stale {
            "removed"
        } else {
            "stale"
        };
        for path in &written.stale {
            print_line(&format!("{stale} {path}"))?;
        }
        if !self.remove_stale && !written.stale.is_empty() {
            message("stale files are removed with --remove-stale");
        }
        let (changed, same) = (written.written.len(), written.unchanged);
        message(&format!("{changed} files written, {same} as they were"));
        Ok(())
    }
}
