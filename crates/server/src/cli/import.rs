//! `meguri import --from FORMAT PATH`: prompts of other products.

use std::path::PathBuf;

use clap::Args;

use super::apply::{confirm, print_applied};
use super::plan::print_plan;
use super::validate::print_findings;
use super::{Place, message, print_json};
use crate::app::{kinds, open_catalog, open_database};
use crate::gitops::import::{Format, import};
use crate::gitops::{self, ApplyRequest, Options, Writing, has_errors};
use crate::keys;

#[derive(Args)]
pub(super) struct Import {
    #[command(flatten)]
    place: Place,
    /// The project.
    #[arg(long, default_value = "default")]
    project: String,
    /// Whose files they are: dotprompt, langfuse, mlflow or promptfoo.
    #[arg(long)]
    from: Format,
    /// Put before every name: `imported/`.
    #[arg(long)]
    name_prefix: Option<String>,
    /// Write a tree of files into this folder instead of saving.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// A file, or a folder of files.
    path: PathBuf,
}

impl Import {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let kinds = kinds();
        let imported = import(self.from, &self.path, self.name_prefix.as_deref(), &kinds)?;
        if has_errors(&imported.findings) {
            if self.json {
                print_json(&serde_json::json!({"findings": imported.findings}))?;
            } else {
                print_findings(&imported.findings)?;
            }
            anyhow::bail!("nothing was imported");
        }
        for finding in &imported.findings {
            message(&finding.to_string());
        }
        if let Some(out) = &self.out {
            let files = gitops::render(&imported.tree, &kinds);
            let folders = gitops::kind_folders(&kinds);
            let written = gitops::write_directory(out, &files, &folders, Writing::default())?;
            if self.json {
                return print_json(&written);
            }
            message(&format!("{} files written", written.written.len()));
            return Ok(());
        }
        let config = self.place.load(None)?;
        let db = open_database(&config).await?;
        let scope = keys::operator_scope(&db, &self.project).await?;
        let catalog = open_catalog(&config, &db)?;
        // What else the project has is not this tree's business.
        let options = Options {
            overwrite_drift: true,
            ..Options::default()
        };
        let mut plan = gitops::plan(&db, &catalog, scope, &imported.tree, options).await?;
        let expected = plan.identity()?;
        if !self.json {
            plan.not_deleted.clear();
            print_plan(&plan)?;
        }
        if plan.is_possible() && !plan.is_empty() && !self.yes {
            confirm()?;
        }
        let request = ApplyRequest {
            tree: &imported.tree,
            options,
            expected: Some(expected),
            message: "imported",
            is_source: false,
        };
        let applied = gitops::apply(&db, &catalog, scope, request).await;
        db.close().await;
        print_applied(&applied?, self.json)
    }
}
