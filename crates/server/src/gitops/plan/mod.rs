//! What applying a tree would do: the difference between the tree and the project,
//! in the order in which it can be carried out.
//!
//! A plan is a pure function of a tree and a state, so that the one that is shown
//! and the one that is carried out cannot differ: applying makes it again inside
//! the transaction and compares. This file says what a plan is; `compare.rs` how
//! it comes about, `drift.rs` what somebody else changed, `order.rs` what comes
//! before what.

mod compare;
mod drift;
mod identity;
mod order;
mod saved;

use anyhow::Context as _;
use base::{Digest, ProjectId};
use db::catalog::{Catalog, Change, diff};
use db::promotion::Rules;
use db::sqlx::AnyConnection;
use db::{Db, Promotion, Scope};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::state::{self, State};
use super::{Finding, Tree};

pub(super) use drift::applied_of;
pub use saved::{PLAN_FORMAT, SavedPlan};

/// `sha256:` and the digits that people compare.
const SHORT_DIGEST_CHARS: usize = "sha256:".len() + 12;

/// What a plan may do beyond adding and moving.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// Delete names and remove labels that the tree does not have.
    pub allow_delete: bool,
    /// Undo what was changed in the project since the last apply.
    pub overwrite_drift: bool,
}

/// What one step does.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// A name that the project does not have, or that was deleted there.
    Create,
    /// A new version of a name.
    Update,
    /// A label moves, or is made.
    Move,
    /// The tags change.
    Tag,
    /// A label is removed.
    Remove,
    /// A name is deleted.
    Delete,
    /// An environment is added, or what protects it changes.
    Environment,
    /// The environments get another order.
    Order,
    /// What protects a label that is no environment changes.
    Protect,
    /// Nothing protects such a label any more.
    Unprotect,
}

impl Action {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::Move => "move",
            Self::Tag => "tag",
            Self::Remove => "remove",
            Self::Delete => "delete",
            Self::Environment => "environment",
            Self::Order => "order",
            Self::Protect => "protect",
            Self::Unprotect => "unprotect",
        }
    }
}

/// One step of a plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Step {
    /// What it does.
    pub action: Action,
    /// The kind; empty for environments and what protects labels.
    pub kind: String,
    /// The name, the environment or the protected label.
    pub name: String,
    /// The label that moves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// The content before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// The content after.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// The file that says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The fields that differ, by JSON Pointer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<FieldChange>,
    /// What the move waits for; without it, it is carried out at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub needs: Option<Needs>,
    /// Whether it undoes what was changed in the project since the last apply.
    #[serde(default, skip_serializing_if = "is_false")]
    pub overwrites_drift: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
fn is_false(flag: &bool) -> bool {
    !flag
}

/// One field that differs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct FieldChange {
    /// A JSON Pointer into the document.
    pub path: String,
    /// What was there; missing where it is new.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "some_value"
    )]
    pub before: Option<Value>,
    /// What will be there; missing where it goes.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "some_value"
    )]
    pub after: Option<Value>,
}

/// A null that is there is a value.
fn some_value<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(from).map(Some)
}

impl From<Change> for FieldChange {
    fn from(change: Change) -> Self {
        Self {
            path: change.path,
            before: change.before,
            after: change.after,
        }
    }
}

/// What a move of a protected label waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Needs {
    /// How many people must approve it.
    pub approvals: u32,
    /// In which roles; empty for all that may approve.
    pub roles: Vec<String>,
    /// The gates that must pass.
    pub gates: Vec<String>,
}

impl Needs {
    /// `needs 1 approval, passes eval`.
    pub fn in_words(&self) -> String {
        let mut parts = Vec::new();
        match self.approvals {
            0 => {}
            1 => parts.push("needs 1 approval".to_owned()),
            many => parts.push(format!("needs {many} approvals")),
        }
        if !self.roles.is_empty() {
            parts.push(format!("by {}", self.roles.join(" or ")));
        }
        if !self.gates.is_empty() {
            parts.push(format!("must pass {}", self.gates.join(", ")));
        }
        parts.join(", ")
    }

    fn of(rules: &Rules) -> Option<Self> {
        rules.guards_moves().then(|| Self {
            approvals: rules.approvals,
            roles: rules.approver_roles.clone(),
            gates: rules
                .gates
                .iter()
                .filter(|gate| gate.required)
                .map(|gate| gate.name.clone())
                .collect(),
        })
    }
}

/// Something that differs and that the plan leaves as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Left {
    /// What: `prompt a/b`, `prompt a/b@production`.
    pub object: String,
    /// Why it stays.
    pub why: String,
}

/// Something that was changed in the project since the last apply, not by a tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Drift {
    /// What: `prompt a/b`, `prompt a/b@production`, `prompt a/b tags`.
    pub object: String,
    /// What the last apply left there; missing where it is new.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// What is there now; missing where it is gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

/// What applying a tree would do.
#[derive(Debug, Clone, Default, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Plan {
    /// In the order of carrying out.
    pub steps: Vec<Step>,
    /// What the project has and the tree has not, and stays.
    pub not_deleted: Vec<Left>,
    /// Moves that were asked for before and wait.
    pub waiting: Vec<Left>,
    /// Labels of environments that take content over by themselves, where they are or will
    /// be elsewhere than the tree says.
    pub follows: Vec<Left>,
    /// What was changed in the project since the last apply.
    pub drift: Vec<Drift>,
    /// What keeps the plan from being applied (errors), and what to know (warnings).
    pub findings: Vec<Finding>,
    /// The state that the plan was made from.
    pub state: String,
    /// The tree.
    pub tree: String,
}

impl Plan {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Whether it can be applied.
    pub fn is_possible(&self) -> bool {
        !super::has_errors(&self.findings)
    }

    /// What makes two plans the same: their steps, the state and the tree.
    ///
    /// # Errors
    /// Our own mistake only: the plan has no canonical form.
    pub fn identity(&self) -> anyhow::Result<Digest> {
        let value = json!({"steps": self.steps, "state": self.state, "tree": self.tree});
        Digest::of_json(&value).context("making the plan's digest")
    }
}

impl Step {
    /// `move prompt support/answer@production sha256:… → sha256:…`.
    pub fn in_words(&self) -> String {
        let short = |digest: &Option<String>| {
            digest.as_ref().map_or_else(
                || "nothing".to_owned(),
                |digest| digest.chars().take(SHORT_DIGEST_CHARS).collect(),
            )
        };
        let object = match (&self.kind, &self.label) {
            (kind, _) if kind.is_empty() => self.name.clone(),
            (kind, Some(label)) => format!("{kind} {}@{label}", self.name),
            (kind, None) => format!("{kind} {}", self.name),
        };
        let change = match self.action {
            Action::Move => format!(" {} → {}", short(&self.before), short(&self.after)),
            Action::Remove => format!(" (was {})", short(&self.before)),
            _ => String::new(),
        };
        format!("{} {object}{change}", self.action.name())
    }
}

/// The plan of a tree for a project as it is now.
///
/// # Errors
/// The database cannot be read. What is wrong with the tree is in the plan.
pub async fn plan(
    db: &Db,
    catalog: &Catalog,
    scope: Scope,
    tree: &Tree,
    options: Options,
) -> anyhow::Result<Plan> {
    let promotion = Promotion::new(db.clone(), catalog.clone());
    let mut connection = db.read().acquire().await.context("reading the project")?;
    let (plan, _) = plan_on(
        &mut connection,
        catalog,
        &promotion,
        scope.project,
        tree,
        options,
    )
    .await?;
    Ok(plan)
}

/// [`plan`] as this connection sees the project, with the state that it compared.
pub(super) async fn plan_on(
    connection: &mut AnyConnection,
    catalog: &Catalog,
    promotion: &Promotion,
    project: ProjectId,
    tree: &Tree,
    options: Options,
) -> anyhow::Result<(Plan, State)> {
    let state = state::read_state(connection, catalog, promotion, project).await?;
    let (mut plan, updates) = compare::compare(tree, &state, catalog.kinds(), options)?;
    // The documents of today are read only where they will be compared.
    let wanted: Vec<Digest> = updates.iter().map(|update| update.before).collect();
    let documents = catalog.documents_in(connection, project, &wanted).await?;
    for update in updates {
        let before = documents.get(&update.before);
        let after = tree.names.get(&update.key).map(|entry| &entry.main.content);
        if let (Some(before), Some(after)) = (before, after) {
            plan.steps[update.step].changes =
                diff(before, after).into_iter().map(Into::into).collect();
        }
    }
    Ok((plan, state))
}
