//! `meguri fmt DIR`: a tree's files in the one normal form.

use std::path::PathBuf;

use clap::Args;

use super::plan::counted;
use super::validate::{Folder, print_findings};
use super::{message, print_json, print_line};
use crate::app::kinds;
use crate::gitops::{self, has_errors};

#[derive(Args)]
pub(super) struct Fmt {
    /// Write nothing; fail where a file is not in the normal form.
    #[arg(long)]
    check: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// The folder.
    dir: PathBuf,
}

impl Fmt {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let folder = Folder::read(&self.dir)?;
        let checked = gitops::parse(&folder.files, &kinds());
        let mut findings = folder.findings;
        findings.extend(checked.findings);
        if has_errors(&findings) {
            if self.json {
                print_json(&serde_json::json!({"ok": false, "findings": findings}))?;
            } else {
                print_findings(&findings)?;
            }
            anyhow::bail!("nothing was changed: the tree has errors");
        }
        let formatted = gitops::format(&folder.files, &checked.tree, &kinds());
        if !self.check {
            gitops::write_formatted(&self.dir, &formatted)?;
        }
        let differ: Vec<&String> = formatted.paths().collect();
        if self.json {
            print_json(&serde_json::json!({"ok": differ.is_empty(), "files": differ}))?;
        } else {
            for path in &differ {
                let word = match (formatted.remove.contains(*path), self.check) {
                    (false, false) => "wrote",
                    (true, false) => "removed",
                    (false, true) => "would write",
                    (true, true) => "would remove",
                };
                print_line(&format!("{word} {path}"))?;
            }
        }
        let count = differ.len();
        if self.check && count > 0 {
            let dir = self.dir.display();
            let files = counted(count, "file", "files");
            anyhow::bail!("not in the normal form: {files}; meguri fmt {dir} rewrites that");
        }
        if !self.json {
            message(&format!("{} changed", counted(count, "file", "files")));
        }
        Ok(())
    }
}
