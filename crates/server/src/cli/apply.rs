//! `meguri apply DIR|FILE`: a tree, or the plan that somebody looked at before.

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::Args;

use super::plan::{What, print_plan};
use super::validate::{print_findings, read_tree};
use super::{Place, message, print_json, print_line};
use crate::app::{kinds, open_catalog, open_database};
use crate::gitops::{
    self, Applied, ApplyRequest, Options, PLAN_FORMAT, SavedPlan, Tree, has_errors,
};
use crate::keys;

#[derive(Args)]
pub(super) struct Apply {
    #[command(flatten)]
    place: Place,
    /// The project; that of the plan, where a plan is applied.
    #[arg(long)]
    project: Option<String>,
    #[command(flatten)]
    what: What,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
    /// Why, for the history of versions and labels.
    #[arg(long, default_value = "applied from files")]
    message: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// The folder, or a file that `meguri plan --out` wrote.
    source: PathBuf,
}

/// What is to be applied.
struct Source {
    tree: Tree,
    options: Options,
    project: String,
    /// The plan that was looked at before.
    expected: Option<base::Digest>,
}

impl Apply {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let source = if self.source.is_file() {
            self.saved_plan()?
        } else {
            self.folder()?
        };
        let config = self.place.load(None)?;
        let db = open_database(&config).await?;
        let scope = keys::operator_scope(&db, &source.project).await?;
        let catalog = open_catalog(&config, &db)?;
        let mut expected = source.expected;
        if expected.is_none() {
            let plan = gitops::plan(&db, &catalog, scope, &source.tree, source.options).await?;
            if !self.json {
                print_plan(&plan)?;
            }
            if plan.is_possible() && !plan.is_empty() && !self.yes {
                confirm()?;
            }
            expected = Some(plan.identity()?);
        }
        let request = ApplyRequest {
            tree: &source.tree,
            options: source.options,
            expected,
            message: &self.message,
            is_source: true,
        };
        let applied = gitops::apply(&db, &catalog, scope, request).await;
        db.close().await;
        print_applied(&applied?, self.json)
    }

    fn saved_plan(&self) -> anyhow::Result<Source> {
        let failed = || format!("reading {}", self.source.display());
        let text = std::fs::read_to_string(&self.source).with_context(failed)?;
        let saved: SavedPlan = serde_json::from_str(&text).with_context(failed)?;
        if saved.format != PLAN_FORMAT {
            bail!("{} is no plan of this version", self.source.display());
        }
        let other = self
            .project
            .as_ref()
            .filter(|named| **named != saved.project);
        if let Some(other) = other {
            bail!(
                "the plan is for the project {}, not for {other}",
                saved.project
            );
        }
        let checked = gitops::parse(&saved.files, &kinds());
        let tree = refuse_errors(checked)?;
        Ok(Source {
            tree,
            options: saved.options,
            project: saved.project,
            expected: Some(saved.plan.parse()?),
        })
    }

    fn folder(&self) -> anyhow::Result<Source> {
        let (_, checked) = read_tree(&self.source)?;
        Ok(Source {
            tree: refuse_errors(checked)?,
            options: self.what.into(),
            project: self.project.clone().unwrap_or_else(|| "default".to_owned()),
            expected: None,
        })
    }
}

fn refuse_errors(checked: gitops::Checked) -> anyhow::Result<Tree> {
    if has_errors(&checked.findings) {
        print_findings(&checked.findings)?;
        bail!("the tree cannot be applied");
    }
    Ok(checked.tree)
}

/// Asks on the terminal; without one somebody must have said `--yes`.
pub(super) fn confirm() -> anyhow::Result<()> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        bail!("nobody is there to ask; say --yes to apply this");
    }
    let mut stderr = std::io::stderr();
    write!(stderr, "apply this? [y/N] ")?;
    stderr.flush()?;
    let mut answer = String::new();
    stdin.lock().read_line(&mut answer)?;
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => bail!("nothing was applied"),
    }
}

pub(super) fn print_applied(applied: &Applied, json: bool) -> anyhow::Result<()> {
    if json {
        return print_json(applied);
    }
    for proposed in &applied.proposals {
        let (id, object) = (&proposed.id, &proposed.object);
        print_line(&format!("proposed {object}: {id} waits for approval"))?;
    }
    let done = applied.plan.steps.len() - applied.proposals.len();
    message(&format!("applied {done} steps"));
    Ok(())
}
