//! Carrying out a plan: one transaction, in which the plan is made again first.
//! Nothing is half applied, and nothing is done that was not shown.
//!
//! Protected labels are not moved but asked for: such a step ends as a proposal.

use std::collections::BTreeMap;

use anyhow::{Context as _, anyhow};
use base::Digest;
use db::audit::Line;
use db::catalog::{Catalog, CatalogError, DeleteRequest, Label, RemoveOutcome, RemoveRequest};
use db::promotion::{Delivery, PromotionError, Requested, Rules};
use db::{Db, MoveRequest, NewVersion, Promotion, Scope, WriteTx};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::plan::{Action, Options, Plan, Step, applied_of, plan_on};
use super::state::{State, read_state};
use super::store;
use super::{Finding, Key, Severity, Tree};
use crate::error::{AppError, Result};

/// What to apply.
#[derive(Debug, Clone, Copy)]
pub struct ApplyRequest<'a> {
    /// The tree.
    pub tree: &'a Tree,
    /// What may be done beyond adding and moving.
    pub options: Options,
    /// The plan that somebody saw, as [`Plan::identity`]; `None` applies whatever the plan is now.
    pub expected: Option<Digest>,
    /// Why, for the versions and moves.
    pub message: &'a str,
    /// Whether this is the tree of the project, so that later changes of the project are
    /// drift from it. Not so for an import.
    pub is_source: bool,
}

/// What applying did.
#[derive(Debug, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Applied {
    /// The plan that was carried out.
    pub plan: Plan,
    /// The moves that wait for approvals or gates.
    pub proposals: Vec<Proposed>,
}

/// A move that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Proposed {
    /// The proposal.
    pub id: String,
    /// What is to move: `prompt support/answer@prod`.
    pub object: String,
}

/// Applies a tree.
///
/// # Errors
/// The tree cannot be applied, the project is no longer as the expected plan saw
/// it, or the database failed. Nothing was written then.
pub async fn apply(
    db: &Db,
    catalog: &Catalog,
    scope: Scope,
    request: ApplyRequest<'_>,
) -> Result<Applied> {
    let mut tx = db.begin_write().await?;
    tx.serialise().await?;
    let promotion = Promotion::new(db.clone(), catalog.clone());
    let (plan, state) = plan_on(
        tx.conn(),
        catalog,
        &promotion,
        scope.project,
        request.tree,
        request.options,
    )
    .await?;
    check_expected(&plan, request.expected)?;
    if !plan.is_possible() {
        return Err(impossible(&plan.findings));
    }
    let mut applying = Applying {
        promotion: &promotion,
        catalog,
        scope,
        request,
        state: &state,
        numbers: BTreeMap::new(),
        proposals: Vec::new(),
    };
    applying.run(&mut tx, &plan).await?;
    let proposals = applying.proposals;
    if request.is_source {
        let after = read_state(tx.conn(), catalog, &promotion, scope.project).await?;
        let actor = scope.actor.to_string();
        let applied = applied_of(&after, catalog.kinds(), &plan, actor, db.now_us());
        store::write_applied(&mut tx, scope, &applied).await?;
    }
    if !plan.is_empty() {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for step in &plan.steps {
            *counts.entry(step.action.name()).or_default() += 1;
        }
        let line = Line::new(scope, "gitops.apply", &plan.tree);
        let detail = json!({"steps": counts, "proposals": proposals.len()});
        line.detail(detail)
            .reason(request.message)
            .write(&mut tx)
            .await?;
    }
    tx.commit().await?;
    Ok(Applied { plan, proposals })
}

/// Refuses a plan that is not the one that somebody saw.
pub(super) fn check_expected(plan: &Plan, expected: Option<Digest>) -> Result<()> {
    let Some(expected) = expected else {
        return Ok(());
    };
    if plan.identity()? == expected {
        return Ok(());
    }
    let steps: Vec<String> = plan.steps.iter().take(20).map(Step::in_words).collect();
    let now = match steps.as_slice() {
        [] => "now there would be nothing to do".to_owned(),
        steps => format!("now it would: {}", steps.join("; ")),
    };
    let message = format!("the project is no longer as this plan saw it; {now}");
    Err(AppError::conflict(message)
        .code("state_moved")
        .hint("make a new plan"))
}

/// The refusal that lists what is wrong.
pub(super) fn impossible(findings: &[Finding]) -> AppError {
    let errors: Vec<String> = findings
        .iter()
        .filter(|finding| finding.severity == Severity::Error)
        .map(ToString::to_string)
        .collect();
    AppError::invalid(format!(
        "the tree cannot be applied:\n{}",
        errors.join("\n")
    ))
    .code("tree_refused")
}

struct Applying<'a> {
    promotion: &'a Promotion,
    catalog: &'a Catalog,
    scope: Scope,
    request: ApplyRequest<'a>,
    state: &'a State,
    /// The numbers of versions that were saved here.
    numbers: BTreeMap<(Key, Digest), i64>,
    proposals: Vec<Proposed>,
}

impl Applying<'_> {
    async fn run(&mut self, tx: &mut WriteTx, plan: &Plan) -> Result<()> {
        self.stop_delivery(tx).await?;
        let mut deletes = Vec::new();
        // In the plan's order: what protects labels changes after their moves and before removals.
        for step in &plan.steps {
            match step.action {
                Action::Create | Action::Update => self.save(tx, step).await?,
                Action::Move => self.move_label(tx, step).await?,
                Action::Tag => self.tag(tx, step).await?,
                Action::Remove => self.remove(tx, step).await?,
                Action::Delete => deletes.push(step),
                Action::Environment => self.environment(tx, step).await?,
                Action::Order => self.order_environments(tx, step).await?,
                Action::Protect | Action::Unprotect => self.protect(tx, step).await?,
            }
        }
        self.delete(tx, deletes).await
    }

    async fn save(&mut self, tx: &mut WriteTx, step: &Step) -> Result<()> {
        let key = key_of(step)?;
        let digest = digest_of(step)?;
        let entry = self.request.tree.names.get(&key);
        let document = entry
            .and_then(|entry| entry.documents().find(|known| known.digest == digest))
            .with_context(|| format!("{key} is not in the tree"))?;
        let new = NewVersion {
            kind: &key.kind,
            name: &key.name,
            content: &document.content,
            message: self.request.message,
        };
        let saved = self
            .catalog
            // What is made and not written comes from an export; its kind checks that it is true.
            .save_made_in(tx, self.scope, new)
            .await
            .map_err(|error| in_step(step, error))?;
        self.numbers.insert((key, digest), saved.version.number);
        Ok(())
    }

    async fn move_label(&mut self, tx: &mut WriteTx, step: &Step) -> Result<()> {
        let key = key_of(step)?;
        let digest = digest_of(step)?;
        let label = label_of(step)?;
        let known = self
            .state
            .names
            .get(&key)
            .and_then(|name| name.versions.get(&digest));
        let saved = self.numbers.get(&(key.clone(), digest));
        let number = saved
            .or(known)
            .with_context(|| format!("{key} has no version {digest}"))?;
        let request = MoveRequest {
            kind: &key.kind,
            name: &key.name,
            label: &label,
            to: *number,
            expected: None,
            reason: self.request.message,
        };
        let requested = self
            .promotion
            .request_move_in(tx, self.scope, request)
            .await;
        match requested.map_err(|error| refused(step, error))? {
            Requested::Moved(_) | Requested::Unchanged(_) => {}
            Requested::Proposed(proposal) => self.proposals.push(Proposed {
                id: proposal.id.clone(),
                object: format!("{key}@{label}"),
            }),
            Requested::Conflict(_) => {
                let message = format!("{}: somebody else moved it first", step.in_words());
                return Err(AppError::conflict(message).code("state_moved"));
            }
        }
        Ok(())
    }

    async fn tag(&self, tx: &mut WriteTx, step: &Step) -> Result<()> {
        let key = key_of(step)?;
        let Some(entry) = self.request.tree.names.get(&key) else {
            return Ok(());
        };
        self.catalog
            .set_tags_in(tx, self.scope, &key.kind, &key.name, &entry.tags)
            .await
            .map_err(|error| in_step(step, error))?;
        Ok(())
    }

    async fn remove(&self, tx: &mut WriteTx, step: &Step) -> Result<()> {
        let key = key_of(step)?;
        let label = label_of(step)?;
        let request = RemoveRequest {
            kind: &key.kind,
            name: &key.name,
            label: &label,
            expected: None,
            reason: self.request.message,
            force: false,
        };
        let removed = self
            .catalog
            .remove_pointer_in(tx, self.scope, request)
            .await;
        match removed.map_err(|error| in_step(step, error))? {
            RemoveOutcome::Removed(_) => Ok(()),
            RemoveOutcome::Conflict(_) => {
                let message = format!("{}: somebody else moved it first", step.in_words());
                Err(AppError::conflict(message).code("state_moved"))
            }
        }
    }

    /// What others refer to goes after them, so the order is found by trying.
    async fn delete(&self, tx: &mut WriteTx, steps: Vec<&Step>) -> Result<()> {
        let mut left = steps;
        while !left.is_empty() {
            let mut refused = Vec::new();
            let mut why = None;
            let before = left.len();
            for step in left {
                let key = key_of(step)?;
                let request = DeleteRequest {
                    kind: &key.kind,
                    name: &key.name,
                    reason: self.request.message,
                    force: false,
                };
                match self.catalog.delete_name_in(tx, self.scope, request).await {
                    Ok(_) => {}
                    Err(error @ CatalogError::Referenced { .. }) => {
                        why = Some(in_step(step, error));
                        refused.push(step);
                    }
                    Err(error) => return Err(in_step(step, error)),
                }
            }
            if let Some(why) = why.filter(|_| refused.len() == before) {
                return Err(why);
            }
            left = refused;
        }
        Ok(())
    }

    /// Where the tree says that an environment no longer takes content over by itself, that must
    /// hold before the first label moves: else the move of the label before it would go on there,
    /// which no step shows. This asks for more than the rules of before, never for less.
    async fn stop_delivery(&self, tx: &mut WriteTx) -> Result<()> {
        let Some(wanted) = &self.request.tree.environments else {
            return Ok(());
        };
        let present = &self.state.environments;
        for name in present
            .following()
            .keys()
            .filter(|name| wanted.has(name) && wanted.rules(name).delivery == Delivery::Manual)
        {
            let label: Label = name
                .parse()
                .map_err(|problem: db::Problem| anyhow!("{problem}"))?;
            let rules = Rules {
                delivery: Delivery::Manual,
                ..present.rules(name)
            };
            let stopped = self
                .promotion
                .protect_in(tx, self.scope, &label, rules, None);
            let failed = |error: PromotionError| anyhow!("stopping delivery to {name}: {error}");
            stopped.await.map_err(failed)?;
        }
        Ok(())
    }

    async fn environment(&self, tx: &mut WriteTx, step: &Step) -> Result<()> {
        if !self.state.environments.has(&step.name) {
            let label = environment_of(step)?;
            let added = self.promotion.add_environment_in(tx, self.scope, &label);
            added.await.map_err(|error| refused(step, error))?;
        }
        if step.changes.is_empty() {
            return Ok(());
        }
        self.protect(tx, step).await
    }

    /// What the tree says of the label; nothing protects one that it does not have.
    async fn protect(&self, tx: &mut WriteTx, step: &Step) -> Result<()> {
        let label = environment_of(step)?;
        let wanted = self.request.tree.environments.as_ref();
        let rules = wanted.map(|wanted| wanted.rules(&step.name));
        let set =
            self.promotion
                .protect_in(tx, self.scope, &label, rules.unwrap_or_default(), None);
        set.await.map_err(|error| refused(step, error))?;
        Ok(())
    }

    async fn order_environments(&self, tx: &mut WriteTx, step: &Step) -> Result<()> {
        let Some(wanted) = &self.request.tree.environments else {
            return Ok(());
        };
        let order = self.state.environments.with(wanted).order;
        let ordered = self.promotion.order_environments_in(tx, self.scope, &order);
        ordered.await.map_err(|error| refused(step, error))?;
        Ok(())
    }
}

fn environment_of(step: &Step) -> Result<Label> {
    step.name
        .parse()
        .map_err(|problem: db::Problem| in_step(step, problem.into()))
}

fn key_of(step: &Step) -> Result<Key> {
    let name = step
        .name
        .parse()
        .map_err(|problem: db::Problem| anyhow!("{problem}"))?;
    Ok(Key {
        kind: step.kind.clone(),
        name,
    })
}

fn digest_of(step: &Step) -> Result<Digest> {
    let text = step.after.as_deref().unwrap_or_default();
    Ok(text
        .parse()
        .with_context(|| format!("{text:?} is no digest"))?)
}

fn label_of(step: &Step) -> Result<Label> {
    let text = step.label.as_deref().unwrap_or_default();
    text.parse()
        .map_err(|problem: db::Problem| anyhow!("{problem}").into())
}

/// A refusal of the catalog, with the step that it belongs to.
fn in_step(step: &Step, error: CatalogError) -> AppError {
    let mut error = AppError::from(error);
    error.message = match &step.file {
        Some(file) => format!("{file}: {}: {}", step.in_words(), error.message),
        None => format!("{}: {}", step.in_words(), error.message),
    };
    error
}

fn refused(step: &Step, error: PromotionError) -> AppError {
    match error {
        PromotionError::Catalog(error) => in_step(step, error),
        other => {
            let message = format!("{}: {other}", step.in_words());
            AppError::conflict(message).code("refused")
        }
    }
}
