//! `meguri plan DIR`: what applying a tree would do.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;

use super::validate::{print_findings, read_tree};
use super::{Place, message, print_json, print_line};
use crate::app::{open_catalog, open_database};
use crate::gitops::{self, Action, Options, Plan, SavedPlan, Step, has_errors};
use crate::keys;

#[derive(Args)]
pub(super) struct PlanCommand {
    #[command(flatten)]
    place: Place,
    /// The project.
    #[arg(long, default_value = "default")]
    project: String,
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
        let (files, checked) = read_tree(&self.dir)?;
        if has_errors(&checked.findings) {
            let plan = Plan {
                findings: checked.findings,
                ..Plan::default()
            };
            return self.show(&plan);
        }
        let config = self.place.load(None)?;
        let db = open_database(&config).await?;
        let scope = keys::operator_scope(&db, &self.project).await?;
        let catalog = open_catalog(&config, &db)?;
        let options = self.what.into();
        let mut plan = gitops::plan(&db, &catalog, scope, &checked.tree, options).await?;
        db.close().await;
        if let Some(out) = self.out.as_ref().filter(|_| plan.is_possible()) {
            let saved = SavedPlan::new(&plan, options, &self.project, files)?;
            let text = serde_json::to_string_pretty(&saved)?;
            std::fs::write(out, text + "\n")
                .with_context(|| format!("writing {}", out.display()))?;
        }
        plan.findings.splice(0..0, checked.findings);
        self.show(&plan)
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
        ("not deleted (--allow-delete):", &plan.not_deleted),
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
    message(&summary(plan));
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
        (count(&[Action::Create]), "to create"),
        (count(&[Action::Update]), "to update"),
        (count(&[Action::Move]), "labels to move"),
        (count(&[Action::Tag]), "to tag"),
        (count(&[Action::Remove, Action::Delete]), "to remove"),
        (
            count(&[Action::Environment, Action::Order]),
            "of environments",
        ),
        (
            count(&[Action::Protect, Action::Unprotect]),
            "protections of labels",
        ),
    ];
    let parts: Vec<String> = parts
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    parts.join(", ")
}
