//! `meguri plan DIR`: what applying a tree would do.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;

use super::remote::ServerArgs;
use super::target::Target;
use super::validate::{Folder, print_findings};
use super::{Place, message, print_json, print_line};
use crate::gitops::{Action, Options, Plan, Planned, SavedPlan, SentTree, Step, has_errors};

#[derive(Args)]
pub(super) struct PlanCommand {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    server: ServerArgs,
    /// The project; `default` where nothing is said.
    #[arg(long, conflicts_with = "url")]
    project: Option<String>,
    #[command(flatten)]
    what: What,
    /// Write the plan into a file for `meguri apply`, which refuses it once the project has changed.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// The folder.
    dir: PathBuf,
}

/// What a plan may do beyond adding and moving.
#[derive(Args, Clone, Copy)]
pub(super) struct What {
    /// Delete names and remove labels that the tree does not have.
    #[arg(long)]
    allow_delete: bool,
    /// Undo what was changed in the project since the last apply.
    #[arg(long)]
    overwrite_drift: bool,
}

impl From<What> for Options {
    fn from(what: What) -> Self {
        Self {
            allow_delete: what.allow_delete,
            overwrite_drift: what.overwrite_drift,
        }
    }
}

impl PlanCommand {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let folder = Folder::read(&self.dir)?;
        if has_errors(&folder.findings) {
            let plan = Plan {
                findings: folder.findings,
                ..Plan::default()
            };
            return self.show(&plan);
        }
        let options: Options = self.what.into();
        let sent = SentTree {
            allow_delete: options.allow_delete,
            overwrite_drift: options.overwrite_drift,
            ..folder.sent()
        };
        let target = Target::open(&self.place, self.project.as_deref(), &self.server).await?;
        let planned = target.plan(sent).await;
        target.close().await;
        let mut planned = planned?;
        self.save(&planned, &folder)?;
        planned.plan.findings.splice(0..0, folder.findings);
        self.show(&planned.plan)
    }

    /// Writes the plan's file, if one is wanted and the plan can be applied.
    fn save(&self, planned: &Planned, folder: &Folder) -> anyhow::Result<()> {
        let (Some(out), Some(digest)) = (&self.out, &planned.digest) else {
            return Ok(());
        };
        if !planned.plan.is_possible() {
            return Ok(());
        }
        let failed = || format!("writing {}", out.display());
        // Blobs stay where they are: a plan is read by people, and goes through mails.
        let blobs_from = match folder.blobs.is_empty() {
            true => None,
            false => Some(self.dir.canonicalize().with_context(failed)?),
        };
        let saved = SavedPlan {
            blobs_from: blobs_from.map(|folder| folder.display().to_string()),
            ..SavedPlan::new(
                &planned.plan,
                digest,
                self.what.into(),
                &planned.project,
                folder.files.clone(),
            )
        };
        let text = serde_json::to_string_pretty(&saved)?;
        std::fs::write(out, text + "\n").with_context(failed)
    }

    fn show(&self, plan: &Plan) -> anyhow::Result<()> {
        if self.json {
            print_json(plan)?;
        } else {
            print_plan(plan)?;
        }
        if plan.is_possible() {
            Ok(())
        } else {
            anyhow::bail!("the tree cannot be applied")
        }
    }
}

/// A plan for people.
pub(super) fn print_plan(plan: &Plan) -> anyhow::Result<()> {
    print_findings(&plan.findings)?;
    for step in &plan.steps {
        print_step(step)?;
    }
    let lists = [
        ("not deleted:", &plan.not_deleted),
        ("waiting:", &plan.waiting),
        ("moving by itself:", &plan.follows),
    ];
    for (title, list) in lists {
        if !list.is_empty() {
            print_line(title)?;
        }
        for left in list {
            print_line(&format!("    {}: {}", left.object, left.why))?;
        }
    }
    if !plan.drift.is_empty() {
        print_line("changed in the project since the last apply:")?;
    }
    for drift in &plan.drift {
        let text = |digest: &Option<String>| digest.clone().unwrap_or_else(|| "nothing".to_owned());
        let (before, after) = (text(&drift.before), text(&drift.after));
        print_line(&format!("    {}: {before} → {after}", drift.object))?;
    }
    if plan.is_possible() {
        message(&summary(plan));
    }
    Ok(())
}

fn print_step(step: &Step) -> anyhow::Result<()> {
    let sign = match step.action {
        Action::Create => '+',
        Action::Update | Action::Tag | Action::Environment | Action::Order | Action::Protect => '~',
        Action::Move => '>',
        Action::Remove | Action::Delete | Action::Unprotect => '-',
    };
    let mut line = format!("  {sign} {}", step.in_words());
    if let Some(needs) = &step.needs {
        line.push_str(&format!(" [{}]", needs.in_words()));
    }
    if step.overwrites_drift {
        line.push_str(" [undoes a change of the project]");
    }
    print_line(&line)?;
    for change in &step.changes {
        let text = |value: &Option<serde_json::Value>| match value {
            None => "nothing".to_owned(),
            Some(value) => base::text::preview(&value.to_string(), 70),
        };
        let (before, after) = (text(&change.before), text(&change.after));
        let path = if change.path.is_empty() {
            "/"
        } else {
            &change.path
        };
        print_line(&format!("        {path}: {before} → {after}"))?;
    }
    Ok(())
}

fn summary(plan: &Plan) -> String {
    let count = |actions: &[Action]| {
        let steps = plan.steps.iter();
        steps.filter(|step| actions.contains(&step.action)).count()
    };
    if plan.is_empty() {
        return "nothing to do: the project is as the tree says".to_owned();
    }
    let parts = [
        (count(&[Action::Create]), "to create", "to create"),
        (count(&[Action::Update]), "to update", "to update"),
        (count(&[Action::Move]), "label to move", "labels to move"),
        (count(&[Action::Tag]), "to tag", "to tag"),
        (
            count(&[Action::Remove, Action::Delete]),
            "to remove",
            "to remove",
        ),
        (
            count(&[Action::Environment, Action::Order]),
            "change of environments",
            "changes of environments",
        ),
        (
            count(&[Action::Protect, Action::Unprotect]),
            "change of what protects labels",
            "changes of what protects labels",
        ),
    ];
    let parts: Vec<String> = parts
        .iter()
        .filter(|(count, ..)| *count > 0)
        .map(|(count, one, many)| counted(*count, one, many))
        .collect();
    parts.join(", ")
}

/// `1 step`, `3 steps`.
pub(super) fn counted(count: usize, one: &str, many: &str) -> String {
    match count {
        1 => format!("1 {one}"),
        count => format!("{count} {many}"),
    }
}
