//! `meguri validate DIR`: everything that is wrong with a tree, without a database, or
//! as a running server reads it.

use std::path::{Path, PathBuf};

use clap::Args;

use super::plan::counted;
use super::remote::{Remote, ServerArgs};
use super::{message, print_json, print_line};
use crate::app::kinds;
use crate::gitops::{self, BlobFiles, Files, Finding, SentTree, Severity, has_errors};

#[derive(Args)]
pub(super) struct Validate {
    #[command(flatten)]
    server: ServerArgs,
    /// Warnings count as errors.
    #[arg(long)]
    strict: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// The folder.
    dir: PathBuf,
}

impl Validate {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let folder = Folder::read(&self.dir)?;
        let validated = match Remote::open(&self.server)? {
            Some(server) => server.validate(&folder.sent()).await?,
            None => gitops::validate_files(&kinds(), folder.sent()).await?,
        };
        let mut findings = folder.findings;
        findings.extend(gitops::check_blobs(&folder.blobs));
        findings.extend(validated.findings);
        let bad = findings
            .iter()
            .filter(|finding| self.strict || finding.severity == Severity::Error)
            .count();
        let unformatted = unformatted(&folder.files);
        let names = validated.documents;
        if self.json {
            print_json(&serde_json::json!({
                "ok": bad == 0, "documents": names, "findings": findings, "unformatted": unformatted,
            }))?;
        } else {
            print_findings(&findings)?;
        }
        if bad > 0 {
            let problems = counted(bad, "problem", "problems");
            anyhow::bail!("{problems} in {}", self.dir.display());
        }
        if !unformatted.is_empty() {
            message(&format!(
                "not in the normal form: {}; meguri fmt {} rewrites that",
                counted(unformatted.len(), "file", "files"),
                self.dir.display()
            ));
        }
        message(&format!(
            "good: {}",
            counted(names, "document", "documents")
        ));
        Ok(())
    }
}

/// The files that `meguri fmt` would rewrite; none where the tree has errors.
fn unformatted(files: &Files) -> Vec<String> {
    let kinds = kinds();
    let checked = gitops::parse(files, &kinds);
    if has_errors(&checked.findings) {
        return Vec::new();
    }
    let formatted = gitops::format(files, &checked.tree, &kinds);
    formatted.paths().cloned().collect()
}

/// What a folder holds of a tree.
pub(super) struct Folder {
    pub(super) files: Files,
    pub(super) blobs: BlobFiles,
    /// What cannot be part of a tree, whatever it says.
    pub(super) findings: Vec<Finding>,
}

impl Folder {
    pub(super) fn read(dir: &Path) -> anyhow::Result<Self> {
        let (files, mut findings) = gitops::read_directory(dir)?;
        let (blobs, of_blobs) = gitops::find_blobs(dir)?;
        findings.extend(of_blobs);
        Ok(Self {
            files,
            blobs,
            findings,
        })
    }

    /// What is sent of it.
    pub(super) fn sent(&self) -> SentTree {
        SentTree {
            files: self.files.clone(),
            blobs: self.blobs.keys().map(ToString::to_string).collect(),
            ..SentTree::default()
        }
    }
}

pub(super) fn print_findings(findings: &[Finding]) -> anyhow::Result<()> {
    findings
        .iter()
        .try_for_each(|finding| print_line(&finding.to_string()))
}
