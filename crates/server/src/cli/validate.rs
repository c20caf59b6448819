//! `meguri validate DIR`: everything that is wrong with a tree, without a database.

use std::path::{Path, PathBuf};

use clap::Args;

use super::{message, print_json, print_line};
use crate::app::kinds;
use crate::gitops::{self, Checked, Files, Finding, Severity};

#[derive(Args)]
pub(super) struct Validate {
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
    pub(super) fn run(self) -> anyhow::Result<()> {
        let (_, checked) = read_tree(&self.dir)?;
        let bad = checked
            .findings
            .iter()
            .filter(|finding| self.strict || finding.severity == Severity::Error)
            .count();
        if self.json {
            let names = checked.tree.names.len();
            print_json(&serde_json::json!({
                "ok": bad == 0, "documents": names, "findings": checked.findings,
            }))?;
        } else {
            print_findings(&checked.findings)?;
        }
        if bad > 0 {
            anyhow::bail!("{bad} problems in {}", self.dir.display());
        }
        let names = checked.tree.names.len();
        message(&format!("{names} documents are good"));
        Ok(())
    }
}

/// A folder's files, and what they say.
pub(super) fn read_tree(dir: &Path) -> anyhow::Result<(Files, Checked)> {
    let (files, mut findings) = gitops::read_directory(dir)?;
    let mut checked = gitops::parse(&files, &kinds());
    findings.append(&mut checked.findings);
    checked.findings = findings;
    Ok((files, checked))
}

pub(super) fn print_findings(findings: &[Finding]) -> anyhow::Result<()> {
    findings
        .iter()
        .try_for_each(|finding| print_line(&finding.to_string()))
}
