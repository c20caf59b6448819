//! `meguri apply DIR|FILE`: a tree, or the plan that somebody looked at before.

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::Args;

use super::plan::{What, counted, print_plan};
use super::remote::ServerArgs;
use super::target::Target;
use super::validate::{Folder, print_findings};
use super::{Place, message, print_json, print_line};
use crate::gitops::{
    self, Applied, BlobFiles, DEFAULT_MESSAGE, Options, PLAN_FORMAT, SavedPlan, SentTree,
    has_errors,
};

#[derive(Args)]
pub(super) struct Apply {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    server: ServerArgs,
    /// The project; that of the plan, where a plan is applied.
    #[arg(long, conflicts_with = "url")]
    project: Option<String>,
    #[command(flatten)]
    what: What,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
    /// Why, for the history of versions and labels.
    #[arg(long, default_value = DEFAULT_MESSAGE)]
    message: String,
    /// Where the tree of a plan is now, if it has blobs and is no longer where it was planned.
    #[arg(long, value_name = "DIR")]
    blobs_from: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// The folder, or a file that `meguri plan --out` wrote.
    source: PathBuf,
}

/// What is to be applied.
struct Source {
    sent: SentTree,
    blobs: BlobFiles,
    /// Of a plan's file; a server says it itself.
    project: Option<String>,
}

impl Apply {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let source = if self.source.is_file() {
            self.saved_plan()?
        } else {
            self.folder()?
        };
        let project = source.project.as_ref().or(self.project.as_ref());
        let target = Target::open(&self.place, project.map(String::as_str), &self.server).await?;
        let applied = self.apply(&target, source).await;
        target.close().await;
        print_applied(&applied?, self.json)
    }

    async fn apply(&self, target: &Target, source: Source) -> anyhow::Result<Applied> {
        let Source {
            mut sent, blobs, ..
        } = source;
        let mut missing = Vec::new();
        let was_looked_at = sent.expected.is_some();
        if !was_looked_at || !blobs.is_empty() {
            let planned = target.plan(sent.clone()).await?;
            missing = planned.missing_blobs;
            if !was_looked_at {
                if !self.json {
                    print_plan(&planned.plan)?;
                    if !planned.plan.is_possible() {
                        bail!("the tree cannot be applied");
                    }
                }
                if planned.plan.is_possible() && !planned.plan.is_empty() && !self.yes {
                    confirm()?;
                }
                sent.expected = planned.digest;
            }
        }
        sent.message = Some(self.message.clone());
        target.apply(sent, &missing, &blobs).await
    }

    fn saved_plan(&self) -> anyhow::Result<Source> {
        let failed = || format!("reading {}", self.source.display());
        let text = std::fs::read_to_string(&self.source).with_context(failed)?;
        let saved: SavedPlan = serde_json::from_str(&text).with_context(|| {
            let shown = self.source.display();
            format!("{shown} is neither a folder nor a plan that meguri plan --out wrote")
        })?;
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
        let blobs_from = self
            .blobs_from
            .clone()
            .or_else(|| saved.blobs_from.as_ref().map(PathBuf::from));
        let (blobs, findings) = match &blobs_from {
            Some(folder) => gitops::find_blobs(folder)?,
            None => Default::default(),
        };
        refuse_errors(&findings)?;
        let Options {
            allow_delete,
            overwrite_drift,
        } = saved.options;
        Ok(Source {
            sent: SentTree {
                files: saved.files,
                blobs: blobs.keys().map(ToString::to_string).collect(),
                allow_delete,
                overwrite_drift,
                project: Some(saved.project.clone()),
                expected: Some(saved.plan),
                message: None,
            },
            blobs,
            project: Some(saved.project),
        })
    }

    fn folder(&self) -> anyhow::Result<Source> {
        let folder = Folder::read(&self.source)?;
        refuse_errors(&folder.findings)?;
        let options: Options = self.what.into();
        Ok(Source {
            sent: SentTree {
                allow_delete: options.allow_delete,
                overwrite_drift: options.overwrite_drift,
                ..folder.sent()
            },
            blobs: folder.blobs,
            project: None,
        })
    }
}

fn refuse_errors(findings: &[gitops::Finding]) -> anyhow::Result<()> {
    if has_errors(findings) {
        print_findings(findings)?;
        bail!("the tree cannot be applied");
    }
    Ok(())
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
    message(&format!("applied {}", counted(done, "step", "steps")));
    Ok(())
}
