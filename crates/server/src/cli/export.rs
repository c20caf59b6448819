//! `meguri export DIR`: the project as a tree of files.

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::Args;

use super::plan::counted;
use super::remote::ServerArgs;
use super::target::Target;
use super::{Place, message, print_json, print_line};
use crate::app::kinds;
use crate::gitops::{self, Writing};

#[derive(Args)]
pub(super) struct Export {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    server: ServerArgs,
    /// The project; `default` where nothing is said.
    #[arg(long, conflicts_with = "url")]
    project: Option<String>,
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
        let target = Target::open(&self.place, self.project.as_deref(), &self.server).await?;
        let exported = target.export().await?;
        let kinds = kinds();
        if self.server.is_given() {
            // What another machine sent decides where files are written here.
            gitops::check_paths(&exported.files, &kinds)?;
        }
        let how = Writing {
            remove_stale: self.remove_stale,
            overwrite: self.overwrite,
        };
        let folders = gitops::kind_folders(&kinds);
        let mut written = gitops::write_directory(&self.dir, &exported.files, &folders, how)?;
        let blobs = target.fetch_blobs(&exported.blobs, &self.dir).await?;
        target.close().await;
        written.unchanged += exported.blobs.len() - blobs.len();
        written.written.extend(blobs);
        let wanted: BTreeSet<&String> = exported.blobs.iter().map(|blob| &blob.digest).collect();
        let (present, _) = gitops::find_blobs(&self.dir)?;
        for (digest, path) in present {
            if !wanted.contains(&digest.to_string()) {
                if self.remove_stale {
                    std::fs::remove_file(&path)?;
                }
                written.stale.push(gitops::path_of(&digest));
            }
        }
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
        let changed = counted(changed, "file", "files");
        message(&format!("{changed} written, {same} as before"));
        Ok(())
    }
}
