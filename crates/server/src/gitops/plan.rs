//! What applying a tree would do: the difference between the tree and the project,
//! in the order in which it can be carried out.
//!
//! A plan is a pure function of a tree and a state, so that the one that is shown
//! and the one that is carried out cannot differ: applying makes it again inside
//! the transaction and compares.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use anyhow::Context as _;
use base::{Digest, ProjectId};
use db::catalog::{Catalog, Change, Label, Selector, diff};
use db::promotion::Rules;
use db::sqlx::AnyConnection;
use db::{Db, Kinds, Reference, Scope};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::store::{self, NameState, Snapshot, SnapshotName, State};
use super::{Entry, Files, Finding, Key, Tree, TreeDocument};

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
        }
    }
}

/// One step of a plan.
#[derive(Debug, Clone, PartialEq, Serialize, schemars::JsonSchema)]
pub struct Step {
    /// What it does.
    pub action: Action,
    /// The kind; empty for environments.
    pub kind: String,
    /// The name, or the environment.
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
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<FieldChange>,
    /// What the move waits for; without it, it is carried out at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub needs: Option<Needs>,
    /// Whether it undoes what was changed in the project since the last apply.
    #[serde(skip_serializing_if = "is_false")]
    pub overwrites_drift: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
fn is_false(flag: &bool) -> bool {
    !flag
}

/// One field that differs.
#[derive(Debug, Clone, PartialEq, Serialize, schemars::JsonSchema)]
pub struct FieldChange {
    /// A JSON Pointer into the document.
    pub path: String,
    /// What was there; missing where it is new.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<Value>,
    /// What will be there; missing where it goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<Value>,
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Left {
    /// What: `prompt a/b`, `prompt a/b@production`.
    pub object: String,
    /// Why it stays.
    pub why: String,
}

/// Something that was changed in the project since the last apply, not by a tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
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
#[derive(Debug, Clone, Default, Serialize, schemars::JsonSchema)]
pub struct Plan {
    /// In the order of carrying out.
    pub steps: Vec<Step>,
    /// What the project has and the tree has not, and stays.
    pub not_deleted: Vec<Left>,
    /// Moves that were asked for before and wait.
    pub waiting: Vec<Left>,
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

/// A plan in a file: the tree, and the state that it was made for.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedPlan {
    /// What the file is.
    pub format: String,
    /// The project's name.
    pub project: String,
    /// What the plan may do.
    pub options: Options,
    /// What makes it the same plan.
    pub plan: String,
    /// For readers: the steps in words.
    pub summary: Vec<String>,
    /// The tree.
    pub files: Files,
}

/// The first field of a plan's file.
pub const PLAN_FORMAT: &str = "meguri-plan-1";

impl SavedPlan {
    /// The file of a plan.
    ///
    /// # Errors
    /// Our own mistake only: the plan has no canonical form.
    pub fn new(plan: &Plan, options: Options, project: &str, files: Files) -> anyhow::Result<Self> {
        Ok(Self {
            format: PLAN_FORMAT.to_owned(),
            project: project.to_owned(),
            options,
            plan: plan.identity()?.to_string(),
            summary: plan.steps.iter().map(Step::in_words).collect(),
            files,
        })
    }
}

impl Step {
    /// `move prompt support/answer@production sha256:… → sha256:…`.
    pub fn in_words(&self) -> String {
        let short = |digest: &Option<String>| {
            digest.as_ref().map_or_else(
                || "nothing".to_owned(),
                |digest| digest.chars().take("sha256:".len() + 12).collect(),
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
    let mut connection = db.read().acquire().await.context("reading the project")?;
    let (plan, _) = plan_on(
        &mut connection,
        scope.project,
        catalog.kinds(),
        tree,
        options,
    )
    .await?;
    Ok(plan)
}

/// [`plan`] as this connection sees the project, with the state that it compared.
pub(super) async fn plan_on(
    connection: &mut AnyConnection,
    project: ProjectId,
    kinds: &Kinds,
    tree: &Tree,
    options: Options,
) -> anyhow::Result<(Plan, State)> {
    let state = store::read_state(connection, project).await?;
    let mut planning = Planning {
        tree,
        state: &state,
        kinds,
        options,
        drifted: BTreeSet::new(),
        plan: Plan::default(),
        updates: Vec::new(),
    };
    planning.run()?;
    let mut plan = planning.plan;
    let updates = planning.updates;
    // The documents of today are read only where they will be compared.
    for update in updates {
        let before = store::read_document(connection, project, &update.before).await?;
        let after = tree.names.get(&update.key).map(|entry| &entry.main.content);
        if let (Some(before), Some(after)) = (before, after) {
            plan.steps[update.step].changes =
                diff(&before, after).into_iter().map(Into::into).collect();
        }
    }
    Ok((plan, state))
}

/// A step whose changes must be looked up.
struct Update {
    step: usize,
    key: Key,
    before: Digest,
}

struct Planning<'a> {
    tree: &'a Tree,
    state: &'a State,
    kinds: &'a Kinds,
    options: Options,
    /// The objects of [`Drift`].
    drifted: BTreeSet<String>,
    plan: Plan,
    updates: Vec<Update>,
}

/// A node of the order in which things are made.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Made {
    Document(Key, Digest),
    Pointer(Key, Label),
}

impl<'a> Planning<'a> {
    fn run(&mut self) -> anyhow::Result<()> {
        self.find_drift();
        match order(self.tree) {
            Ok(order) => {
                for made in order {
                    self.make(&made);
                }
            }
            Err(finding) => self.plan.findings.push(finding),
        }
        self.check_references();
        self.tag();
        self.remove_and_delete();
        self.environments();
        self.refuse_overwriting();
        self.plan.tree = tree_digest(self.tree)?.to_string();
        self.plan.state = self.state_digest()?.to_string();
        Ok(())
    }

    fn of(&self, key: &Key) -> Option<&'a NameState> {
        self.state.names.get(key)
    }

    fn living(&self, key: &Key) -> Option<&'a NameState> {
        self.of(key).filter(|name| !name.is_deleted)
    }

    fn push(&mut self, mut step: Step, drift_object: &str) {
        step.overwrites_drift = self.drifted.contains(drift_object);
        self.plan.steps.push(step);
    }

    fn make(&mut self, made: &Made) {
        match made {
            Made::Document(key, digest) => self.make_document(key, digest),
            Made::Pointer(key, label) => self.make_pointer(key, label),
        }
    }

    fn make_document(&mut self, key: &Key, digest: &Digest) {
        let Some(entry) = self.tree.names.get(key) else {
            return;
        };
        let Some(document) = entry
            .documents()
            .find(|document| document.digest == *digest)
        else {
            return;
        };
        let is_main = *digest == entry.main.digest;
        let name = self.living(key);
        if name.is_some_and(|name| name.versions.contains_key(digest)) {
            let newest = name.and_then(|name| name.latest).filter(|_| is_main);
            if let Some((number, _)) = newest.filter(|(_, newest)| newest != digest) {
                let message = format!(
                    "version {number} of {key} is newer than this document and stays the newest; \
                     name this one by a label"
                );
                self.plan
                    .findings
                    .push(Finding::warning(&document.file, message));
            }
            return;
        }
        let before = name.and_then(|name| name.latest).map(|(_, newest)| newest);
        if let Some(before) = before.filter(|_| is_main) {
            self.updates.push(Update {
                step: self.plan.steps.len(),
                key: key.clone(),
                before,
            });
        }
        let action = if name.is_none() {
            Action::Create
        } else {
            Action::Update
        };
        let step = Step {
            before: before.map(|digest| digest.to_string()),
            after: Some(digest.to_string()),
            file: Some(document.file.clone()),
            ..step(action, key)
        };
        // What was saved in the project meanwhile stays there as a version: nothing is lost.
        self.push(step, "");
    }

    fn make_pointer(&mut self, key: &Key, label: &Label) {
        let Some(entry) = self.tree.names.get(key) else {
            return;
        };
        let Some(digest) = entry.pointers.get(label) else {
            return;
        };
        let name = self.living(key);
        let current = name.and_then(|name| name.pointers.get(label)).cloned();
        if current
            .as_ref()
            .is_some_and(|current| current.digest == *digest)
        {
            return;
        }
        let in_tree = entry.documents().any(|known| known.digest == *digest);
        let exists = self
            .of(key)
            .is_some_and(|name| name.versions.contains_key(digest));
        if !in_tree && !exists {
            let message = format!("{key} has no version {digest}, in the tree or in the project");
            self.plan
                .findings
                .push(Finding::error(&entry.main.file, message));
            return;
        }
        let quarantined = self.state.quarantined.get(key);
        if quarantined.is_some_and(|digests| digests.contains(digest)) {
            let message = format!("{digest} is quarantined, so {label} cannot point to it");
            let hint = "lift the quarantine, or point the label to another version";
            let finding = Finding::error(&entry.main.file, message);
            self.plan.findings.push(finding.hint(Some(hint.to_owned())));
            return;
        }
        let object = format!("{key}@{label}");
        let waiting = self.state.waiting.get(&(key.clone(), label.clone()));
        let revision = current.as_ref().map_or(0, |current| current.revision);
        let asked = waiting.into_iter().flatten().find(|waiting| {
            waiting.digest == *digest && (current.is_none() || waiting.pointer_revision == revision)
        });
        if let Some(asked) = asked {
            let why = format!("proposal {} waits", asked.id);
            self.plan.waiting.push(Left { object, why });
            return;
        }
        let rules = self.state.protections.get(label.as_str());
        let step = Step {
            label: Some(label.to_string()),
            before: current.map(|current| current.digest.to_string()),
            after: Some(digest.to_string()),
            file: Some(entry.main.file.clone()),
            needs: rules.and_then(Needs::of),
            ..step(Action::Move, key)
        };
        self.push(step, &object);
    }

    /// What a document of the tree refers to must be there when it is saved.
    fn check_references(&mut self) {
        let mut findings = Vec::new();
        for (key, entry) in &self.tree.names {
            for document in entry.documents() {
                let known = self.living(key);
                if known.is_some_and(|name| name.versions.contains_key(&document.digest)) {
                    continue;
                }
                for reference in &document.references {
                    if let Err(message) = self.resolve(reference) {
                        let message = format!("{}: {message}", reference.path);
                        findings.push(Finding::error(&document.file, message));
                    }
                }
            }
        }
        self.plan.findings.append(&mut findings);
    }

    fn resolve(&self, reference: &Reference) -> Result<(), String> {
        let key = Key {
            kind: reference.kind.clone(),
            name: reference.name.clone(),
        };
        let entry = self.tree.names.get(&key);
        let name = self.living(&key);
        if entry.is_none() && name.is_none() {
            let names = self.tree.names.keys().chain(self.state.names.keys());
            let names: BTreeSet<&str> = names
                .filter(|known| known.kind == key.kind)
                .map(|known| known.name.as_str())
                .collect();
            let near = super::did_you_mean(key.name.as_str(), names);
            let near = near.map(|near| format!("; {near}")).unwrap_or_default();
            return Err(format!("there is no {key}{near}"));
        }
        let missing = match &reference.selector {
            Selector::Latest => false,
            Selector::Number(number) => {
                let numbers = name.map(|name| name.versions.values());
                let exists = numbers.into_iter().flatten().any(|known| known == number);
                // A name that is new gets numbers in the order of its documents.
                let new = entry.filter(|_| self.of(&key).is_none());
                let made = new.map_or(0, |entry| entry.documents().count());
                !exists && !i64::try_from(made).is_ok_and(|made| (1..=made).contains(number))
            }
            Selector::Digest(digest) => {
                let in_tree = entry
                    .is_some_and(|entry| entry.documents().any(|known| known.digest == *digest));
                !in_tree && !name.is_some_and(|name| name.versions.contains_key(digest))
            }
            Selector::Label(label) => {
                if name.is_some_and(|name| name.pointers.contains_key(label)) {
                    return Ok(());
                }
                let in_tree = entry.is_some_and(|entry| entry.pointers.contains_key(label));
                let rules = self.state.protections.get(label.as_str());
                if in_tree && rules.is_some_and(Rules::guards_moves) {
                    return Err(format!(
                        "{key}@{label} does not exist before its first move is approved; \
                         apply {key} first, and this when it is approved"
                    ));
                }
                !in_tree
            }
        };
        if missing {
            Err(format!("there is no {key}@{}", reference.selector))
        } else {
            Ok(())
        }
    }

    fn tag(&mut self) {
        for (key, entry) in &self.tree.names {
            let before: &[String] = self.living(key).map_or(&[], |name| &name.tags);
            if before == entry.tags {
                continue;
            }
            let step = Step {
                file: Some(entry.main.file.clone()),
                changes: vec![FieldChange {
                    path: "/tags".to_owned(),
                    before: Some(json!(before)),
                    after: Some(json!(entry.tags)),
                }],
                ..step(Action::Tag, key)
            };
            self.push(step, &format!("{key} tags"));
        }
    }

    fn remove_and_delete(&mut self) {
        let mut deletes = Vec::new();
        let state = self.state;
        for (key, name) in &state.names {
            if name.is_deleted || self.kinds.get(&key.kind).is_err() {
                continue;
            }
            match self.tree.names.get(key) {
                Some(entry) => self.remove_labels(key, name, entry),
                None => deletes.push(key),
            }
        }
        for key in deletes {
            let labels = state
                .names
                .get(key)
                .into_iter()
                .flat_map(|name| name.pointers.keys());
            let guarded = labels
                .into_iter()
                .find(|label| self.is_guarded(label))
                .cloned();
            if let Some(label) = guarded {
                self.leave(key.to_string(), format!("its label {label} is protected"));
            } else if !self.options.allow_delete {
                self.leave(key.to_string(), "it is not in the tree".to_owned());
            } else {
                let drifted = format!("{key}");
                self.push(step(Action::Delete, key), &drifted);
            }
        }
    }

    fn is_guarded(&self, label: &Label) -> bool {
        let rules = self.state.protections.get(label.as_str());
        rules.is_some_and(Rules::guards_moves)
    }

    fn leave(&mut self, object: String, why: String) {
        self.plan.not_deleted.push(Left { object, why });
    }

    fn remove_labels(&mut self, key: &Key, name: &NameState, entry: &Entry) {
        for (label, pointer) in &name.pointers {
            if entry.pointers.contains_key(label) {
                continue;
            }
            let object = format!("{key}@{label}");
            if self.is_guarded(label) {
                self.leave(object, "the label is protected".to_owned());
            } else if self.options.allow_delete {
                let step = Step {
                    label: Some(label.to_string()),
                    before: Some(pointer.digest.to_string()),
                    ..step(Action::Remove, key)
                };
                self.push(step, &object);
            } else {
                self.leave(object, "it is not in the tree".to_owned());
            }
        }
    }

    fn environments(&mut self) {
        let Some(wanted) = &self.tree.environments else {
            return;
        };
        let present = &self.state.environments;
        for environment in wanted {
            let before = present.iter().find(|known| known.name == environment.name);
            let rules = |environment: Option<&super::Environment>| {
                environment
                    .and_then(|environment| environment.protection.clone())
                    .unwrap_or_else(|| json!({}))
            };
            let changes = diff(&rules(before), &rules(Some(environment)));
            if before.is_some() && changes.is_empty() {
                continue;
            }
            let step = Step {
                name: environment.name.clone(),
                file: Some(super::ENVIRONMENTS_FILE.to_owned()),
                changes: changes.into_iter().map(Into::into).collect(),
                ..step_named(Action::Environment, "", "")
            };
            self.plan.steps.push(step);
        }
        let is_wanted = |name: &&str| wanted.iter().any(|environment| environment.name == **name);
        let names = |list: &[super::Environment]| -> Vec<String> {
            list.iter()
                .map(|environment| environment.name.clone())
                .collect()
        };
        let kept: Vec<&str> = present
            .iter()
            .map(|environment| environment.name.as_str())
            .filter(is_wanted)
            .collect();
        let ordered: Vec<&str> = wanted
            .iter()
            .map(|environment| environment.name.as_str())
            .filter(|name| kept.contains(name))
            .collect();
        if kept != ordered {
            let step = Step {
                file: Some(super::ENVIRONMENTS_FILE.to_owned()),
                changes: vec![FieldChange {
                    path: "/order".to_owned(),
                    before: Some(json!(names(present))),
                    after: Some(json!(names(wanted))),
                }],
                ..step_named(Action::Environment, "", "order")
            };
            self.plan.steps.push(step);
        }
        for environment in present {
            if wanted.iter().all(|known| known.name != environment.name) {
                let object = format!("environment {}", environment.name);
                self.leave(
                    object,
                    "it is not in the tree; keys may belong to it".to_owned(),
                );
            }
        }
    }

    /// What the last apply left behind and what is there, where the tree does not want what is there.
    fn find_drift(&mut self) {
        let Some(applied) = &self.state.applied else {
            return;
        };
        let now = snapshot_names(self.state, self.kinds);
        let keys: BTreeSet<&String> = applied.names.keys().chain(now.keys()).collect();
        for text in keys {
            let Some(key) = read_key(text) else {
                continue;
            };
            let (before, after) = (applied.names.get(text), now.get(text));
            if before == after {
                continue;
            }
            self.drift_of(&key, before, after);
        }
        self.drifted = self
            .plan
            .drift
            .iter()
            .map(|drift| drift.object.clone())
            .collect();
    }

    fn drift_of(&mut self, key: &Key, before: Option<&SnapshotName>, after: Option<&SnapshotName>) {
        let entry = self.tree.names.get(key);
        let text = |value: Option<&SnapshotName>| value.map(|value| value.latest.clone());
        let wanted = entry.map(|entry| entry.main.digest.to_string());
        let (old, new) = (text(before), text(after));
        if old != new && new != wanted {
            self.push_drift(key.to_string(), old, new);
        }
        let empty = SnapshotName::default();
        let (before, after) = (before.unwrap_or(&empty), after.unwrap_or(&empty));
        let labels: BTreeSet<&String> = before
            .pointers
            .keys()
            .chain(after.pointers.keys())
            .collect();
        for label in labels {
            let (old, new) = (before.pointers.get(label), after.pointers.get(label));
            let wanted = entry.and_then(|entry| {
                let label: Label = label.parse().ok()?;
                entry.pointers.get(&label).map(ToString::to_string)
            });
            if old != new && new.cloned() != wanted {
                self.push_drift(format!("{key}@{label}"), old.cloned(), new.cloned());
            }
        }
        let wanted: &[String] = entry.map_or(&[], |entry| &entry.tags);
        if before.tags != after.tags && after.tags != wanted {
            let words = |tags: &[String]| Some(tags.join(", "));
            self.push_drift(
                format!("{key} tags"),
                words(&before.tags),
                words(&after.tags),
            );
        }
    }

    fn push_drift(&mut self, object: String, before: Option<String>, after: Option<String>) {
        self.plan.drift.push(Drift {
            object,
            before,
            after,
        });
    }

    fn refuse_overwriting(&mut self) {
        if self.options.overwrite_drift {
            return;
        }
        let steps = self.plan.steps.iter().filter(|step| step.overwrites_drift);
        let findings: Vec<Finding> = steps
            .map(|step| {
                let file = step.file.clone().unwrap_or_default();
                let message = format!(
                    "{} would undo what was changed in the project since the last apply",
                    step.in_words()
                );
                let hint = "export it into the tree, or allow it with --overwrite-drift";
                Finding::error(file, message).hint(Some(hint.to_owned()))
            })
            .collect();
        self.plan.findings.extend(findings);
    }

    /// Everything of the project that the plan depends on.
    fn state_digest(&self) -> anyhow::Result<Digest> {
        let involved: BTreeMap<String, Value> = self
            .state
            .names
            .iter()
            .filter(|(key, _)| self.options.allow_delete || self.tree.names.contains_key(*key))
            .map(|(key, name)| {
                let newest = name.latest.map(|(number, digest)| json!([number, digest]));
                let pointers: BTreeMap<&str, Value> = name
                    .pointers
                    .iter()
                    .map(|(label, pointer)| (label.as_str(), json!(pointer)))
                    .collect();
                let state = json!({
                    "newest": newest, "tags": name.tags, "deleted": name.is_deleted, "pointers": pointers,
                    "quarantined": self.state.quarantined.get(key),
                });
                (write_key(key), state)
            })
            .collect();
        let protections: BTreeMap<&String, Value> = self
            .state
            .protections
            .iter()
            .map(|(label, rules)| (label, json!(rules)))
            .collect();
        let whole = json!({
            "names": involved, "environments": self.state.environments, "protections": protections,
        });
        Digest::of_json(&whole).context("making the state's digest")
    }
}

fn step(action: Action, key: &Key) -> Step {
    step_named(action, &key.kind, key.name.as_str())
}

fn step_named(action: Action, kind: &str, name: &str) -> Step {
    Step {
        action,
        kind: kind.to_owned(),
        name: name.to_owned(),
        label: None,
        before: None,
        after: None,
        file: None,
        changes: Vec::new(),
        needs: None,
        overwrites_drift: false,
    }
}

fn write_key(key: &Key) -> String {
    format!("{}:{}", key.kind, key.name)
}

fn read_key(text: &str) -> Option<Key> {
    let (kind, name) = text.split_once(':')?;
    Some(Key {
        kind: kind.to_owned(),
        name: name.parse().ok()?,
    })
}

/// What an apply left behind, to be compared with later.
pub(super) fn snapshot_names(state: &State, kinds: &Kinds) -> BTreeMap<String, SnapshotName> {
    let living = state
        .names
        .iter()
        .filter(|(key, name)| !name.is_deleted && kinds.get(&key.kind).is_ok());
    living
        .map(|(key, name)| {
            let pointers = name.pointers.iter();
            let kept = SnapshotName {
                latest: name
                    .latest
                    .map(|(_, digest)| digest.to_string())
                    .unwrap_or_default(),
                tags: name.tags.clone(),
                pointers: pointers
                    .map(|(label, pointer)| (label.to_string(), pointer.digest.to_string()))
                    .collect(),
            };
            (write_key(key), kept)
        })
        .collect()
}

/// The identity of what a tree says, however it is written.
pub(super) fn tree_digest(tree: &Tree) -> anyhow::Result<Digest> {
    let names: BTreeMap<String, Value> = tree
        .names
        .iter()
        .map(|(key, entry)| {
            let others: Vec<&Digest> = entry.pinned.iter().map(|other| &other.digest).collect();
            let pointers: BTreeMap<&str, &Digest> = entry
                .pointers
                .iter()
                .map(|(label, digest)| (label.as_str(), digest))
                .collect();
            let value = json!({
                "main": entry.main.digest, "others": others, "tags": entry.tags, "pointers": pointers,
            });
            (write_key(key), value)
        })
        .collect();
    let whole = json!({"names": names, "environments": tree.environments});
    Digest::of_json(&whole).context("making the tree's digest")
}

/// Snapshot of a state after an apply.
pub(super) fn snapshot_of(
    state: &State,
    kinds: &Kinds,
    plan: &Plan,
    actor: String,
    at: i64,
) -> Snapshot {
    Snapshot {
        tree: plan.tree.clone(),
        actor,
        at,
        names: snapshot_names(state, kinds),
    }
}

/// Documents and labels in the order in which they can be made: what is referred
/// to comes first, and of a name's documents the main one last, so that it is the newest.
pub(super) fn order(tree: &Tree) -> Result<Vec<Made>, Finding> {
    let mut graph: BTreeMap<Made, Vec<Made>> = BTreeMap::new();
    for (key, entry) in &tree.names {
        let mut before: Option<Made> = None;
        for document in entry.documents() {
            let mut needs: Vec<Made> = document
                .references
                .iter()
                .filter_map(|reference| needed(tree, reference))
                .collect();
            needs.extend(before.take());
            let made = Made::Document(key.clone(), document.digest);
            before = Some(made.clone());
            graph.insert(made, needs);
        }
        for (label, digest) in &entry.pointers {
            let mut needs = vec![Made::Document(key.clone(), *digest)];
            // A name that was deleted comes back by saving its main document.
            if entry.documents().all(|known| known.digest != *digest) {
                needs = vec![Made::Document(key.clone(), entry.main.digest)];
            }
            graph.insert(Made::Pointer(key.clone(), label.clone()), needs);
        }
    }
    sorted(tree, &graph)
}

/// What of the tree a reference needs; `None` where the project must have it already.
fn needed(tree: &Tree, reference: &Reference) -> Option<Made> {
    let key = Key {
        kind: reference.kind.clone(),
        name: reference.name.clone(),
    };
    let entry = tree.names.get(&key)?;
    match &reference.selector {
        Selector::Latest | Selector::Number(_) => Some(Made::Document(key, entry.main.digest)),
        Selector::Label(label) => entry
            .pointers
            .contains_key(label)
            .then(|| Made::Pointer(key, label.clone())),
        Selector::Digest(digest) => entry
            .documents()
            .any(|known| known.digest == *digest)
            .then_some(Made::Document(key, *digest)),
    }
}

fn sorted(tree: &Tree, graph: &BTreeMap<Made, Vec<Made>>) -> Result<Vec<Made>, Finding> {
    #[derive(Clone, Copy, PartialEq)]
    enum Mark {
        Open,
        Done,
    }
    let mut marks: HashMap<&Made, Mark> = HashMap::new();
    let mut order = Vec::with_capacity(graph.len());
    for start in graph.keys() {
        // Depth first without recursion: a chain may be as long as the tree.
        let mut stack: Vec<(&Made, usize)> = vec![(start, 0)];
        while let Some((made, next)) = stack.pop() {
            if next == 0 {
                match marks.get(made) {
                    Some(Mark::Done) => continue,
                    Some(Mark::Open) => return Err(circle(tree, made)),
                    None => {
                        marks.insert(made, Mark::Open);
                    }
                }
            }
            let needs = graph.get(made).map_or(&[][..], Vec::as_slice);
            match needs.get(next) {
                Some(need) => {
                    stack.push((made, next + 1));
                    // The map's own key lives as long as the marks.
                    if let Some((need, _)) = graph.get_key_value(need) {
                        stack.push((need, 0));
                    }
                }
                None => {
                    marks.insert(made, Mark::Done);
                    order.push(made.clone());
                }
            }
        }
    }
    Ok(order)
}

fn circle(tree: &Tree, made: &Made) -> Finding {
    let (key, digest) = match made {
        Made::Document(key, digest) => (key, Some(digest)),
        Made::Pointer(key, _) => (key, None),
    };
    let file = tree.names.get(key).map(|entry| {
        let found = entry
            .documents()
            .find(|document: &&TreeDocument| Some(&document.digest) == digest);
        found.unwrap_or(&entry.main).file.clone()
    });
    Finding::error(
        file.unwrap_or_default(),
        format!("{key} refers to itself through other documents"),
    )
}
