//! The difference between a tree and a project, as steps.

use std::collections::{BTreeMap, BTreeSet};

use base::Digest;
use db::catalog::{Label, NameSnapshot, Selector, diff};
use db::promotion::Rules;
use db::{Kinds, Reference};
use serde_json::json;

use super::super::environments::{Environments, protection_of};
use super::super::state::State;
use super::super::{ENVIRONMENTS_FILE, Entry, Finding, Key, Tree, did_you_mean};
use super::drift::{self, protection_object};
use super::identity::{state_digest, tree_digest};
use super::order::{Made, order};
use super::{Action, FieldChange, Left, Needs, Options, Plan, SHORT_DIGEST_CHARS, Step};

/// Why something stays that the tree does not have.
const NOT_IN_TREE: &str = "it is not in the tree; --allow-delete deletes it";

/// A step whose changes must be looked up.
pub(super) struct Update {
    pub(super) step: usize,
    pub(super) key: Key,
    pub(super) before: Digest,
}

/// The plan, but for the fields that differ between contents: for those, which to read.
pub(super) fn compare(
    tree: &Tree,
    state: &State,
    kinds: &Kinds,
    options: Options,
) -> anyhow::Result<(Plan, Vec<Update>)> {
    let mut planning = Planning {
        tree,
        state,
        kinds,
        options,
        following: following(tree, &state.environments),
        drifted: BTreeSet::new(),
        plan: Plan::default(),
        updates: Vec::new(),
    };
    planning.run()?;
    Ok((planning.plan, planning.updates))
}

/// The environments that take content over by themselves both before and after the tree is
/// applied, and from where. Their labels are not the tree's to move.
fn following(tree: &Tree, present: &Environments) -> BTreeMap<String, String> {
    let mut following = present.following();
    if let Some(wanted) = &tree.environments {
        let after = present.with(wanted).following();
        following.retain(|label, _| after.contains_key(label));
    }
    following
}

struct Planning<'a> {
    tree: &'a Tree,
    state: &'a State,
    kinds: &'a Kinds,
    options: Options,
    /// Labels that move by themselves, and the label that each takes content over from.
    following: BTreeMap<String, String>,
    /// The objects of [`super::Drift`].
    drifted: BTreeSet<String>,
    plan: Plan,
    updates: Vec<Update>,
}

impl<'a> Planning<'a> {
    fn run(&mut self) -> anyhow::Result<()> {
        self.plan.drift = drift::find(self.tree, self.state, self.kinds, &self.following);
        let objects = self.plan.drift.iter().map(|drift| drift.object.clone());
        self.drifted = objects.collect();
        match order(self.tree, &self.state.environments.order) {
            Ok(order) => {
                for made in order {
                    self.make(&made);
                }
            }
            Err(finding) => self.plan.findings.push(finding),
        }
        self.check_references();
        self.tag();
        self.follow();
        self.environments();
        self.remove_and_delete();
        self.refuse_overwriting();
        self.plan.tree = tree_digest(self.tree)?.to_string();
        self.plan.state =
            state_digest(self.state, self.tree, self.options, &self.following)?.to_string();
        Ok(())
    }

    fn of(&self, key: &Key) -> Option<&'a NameSnapshot> {
        self.state.names.get(key)
    }

    fn living(&self, key: &Key) -> Option<&'a NameSnapshot> {
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
        // It is where the environment before it took it; the tree decides only where it begins.
        if current.is_some() && self.following.contains_key(label.as_str()) {
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
        let rules = self.state.environments.protections.get(label.as_str());
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
            let near = did_you_mean(key.name.as_str(), names);
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
                let rules = self.state.environments.protections.get(label.as_str());
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
                self.leave(key.to_string(), NOT_IN_TREE.to_owned());
            } else {
                let drifted = format!("{key}");
                self.push(step(Action::Delete, key), &drifted);
            }
        }
    }

    /// Whether something protects the label once this plan's rules are in force: labels and names
    /// go last, or the plan after this one would delete what this one had to leave.
    fn is_guarded(&self, label: &Label) -> bool {
        let present = &self.state.environments;
        let mut rules = present.protections.get(label.as_str());
        if let Some(wanted) = &self.tree.environments {
            let is_gone = self.options.allow_delete && !present.has(label.as_str());
            if wanted.has(label.as_str()) || is_gone {
                rules = None;
            }
            rules = wanted.protections.get(label.as_str()).or(rules);
        }
        rules.is_some_and(Rules::guards_moves)
    }

    fn leave(&mut self, object: String, why: String) {
        self.plan.not_deleted.push(Left { object, why });
    }

    fn remove_labels(&mut self, key: &Key, name: &NameSnapshot, entry: &Entry) {
        for (label, pointer) in &name.pointers {
            let follows = self.following.contains_key(label.as_str());
            if follows || entry.pointers.contains_key(label) {
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
                self.leave(object, NOT_IN_TREE.to_owned());
            }
        }
    }

    /// What will be said of labels that move by themselves.
    fn follow(&mut self) {
        for (key, entry) in &self.tree.names {
            let name = self.living(key);
            // Where content arrives by this plan, label by label along the environments.
            let mut coming: BTreeMap<&str, String> = BTreeMap::new();
            let moves = self.plan.steps.iter().filter(|step| {
                step.action == Action::Move
                    && step.kind == key.kind
                    && step.name == key.name.as_str()
            });
            for step in moves {
                if let (Some(label), Some(after)) = (&step.label, &step.after) {
                    coming.insert(label, after.clone());
                }
            }
            let mut notes = Vec::new();
            for label in &self.state.environments.order {
                let Some(from) = self.following.get(label) else {
                    continue;
                };
                let current = name.and_then(|name| {
                    let mut pointers = name.pointers.iter();
                    pointers.find_map(|(known, pointer)| {
                        (known.as_str() == label).then(|| pointer.digest.to_string())
                    })
                });
                let wanted = entry.pointers.iter().find_map(|(known, digest)| {
                    (known.as_str() == label).then(|| digest.to_string())
                });
                if coming.contains_key(label.as_str()) {
                    continue;
                }
                let arrives = coming.get(from.as_str()).cloned();
                if let Some(arrives) = &arrives {
                    coming.insert(label, arrives.clone());
                }
                let Some(why) = follows_in_words(from, current, wanted, arrives) else {
                    continue;
                };
                notes.push(Left {
                    object: format!("{key}@{label}"),
                    why,
                });
            }
            self.plan.follows.append(&mut notes);
        }
    }

    fn environments(&mut self) {
        let Some(wanted) = &self.tree.environments else {
            return;
        };
        let present = &self.state.environments;
        for name in &wanted.order {
            let changes = rule_changes(present, wanted, name);
            if present.has(name) && changes.is_empty() {
                continue;
            }
            let step = Step {
                changes,
                ..environment_step(Action::Environment, name)
            };
            self.push(step, &protection_object(name));
        }
        let mut added = present.clone();
        let new = wanted.order.iter().filter(|name| !present.has(name));
        added.order.extend(new.cloned());
        let after = present.with(wanted);
        if added.order != after.order {
            let step = Step {
                changes: vec![FieldChange {
                    path: "/order".to_owned(),
                    before: Some(json!(added.order)),
                    after: Some(json!(after.order)),
                }],
                ..environment_step(Action::Order, "environments")
            };
            self.plan.steps.push(step);
        }
        for name in present.order.iter().filter(|name| !wanted.has(name)) {
            let object = format!("environment {name}");
            self.leave(
                object,
                "it is not in the tree; keys may belong to it".to_owned(),
            );
        }
        self.protected_labels(wanted);
    }

    /// What protects labels that are no environments.
    fn protected_labels(&mut self, wanted: &Environments) {
        let present = &self.state.environments;
        for (label, _) in wanted.labels() {
            let changes = rule_changes(present, wanted, label);
            if changes.is_empty() {
                continue;
            }
            let step = Step {
                changes,
                ..environment_step(Action::Protect, label)
            };
            self.push(step, &protection_object(label));
        }
        let gone = present
            .labels()
            .filter(|(label, _)| !wanted.has(label) && !wanted.protections.contains_key(*label));
        for (label, _) in gone {
            if self.options.allow_delete {
                let step = Step {
                    changes: rule_changes(present, wanted, label),
                    ..environment_step(Action::Unprotect, label)
                };
                self.push(step, &protection_object(label));
            } else {
                let object = protection_object(label);
                self.leave(object, NOT_IN_TREE.to_owned());
            }
        }
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

/// A step of `environments.toml`.
fn environment_step(action: Action, name: &str) -> Step {
    Step {
        file: Some(ENVIRONMENTS_FILE.to_owned()),
        ..step_named(action, "", name)
    }
}

/// What changes of what protects a label.
fn rule_changes(before: &Environments, after: &Environments, label: &str) -> Vec<FieldChange> {
    let rules = |environments: &Environments| protection_of(&environments.rules(label));
    let changes = diff(&rules(before), &rules(after));
    changes.into_iter().map(Into::into).collect()
}

/// Why a label that follows is not or will not be where the tree says; `None` where it is.
fn follows_in_words(
    from: &str,
    current: Option<String>,
    wanted: Option<String>,
    arrives: Option<String>,
) -> Option<String> {
    let short = |digest: &str| -> String { digest.chars().take(SHORT_DIGEST_CHARS).collect() };
    if let Some(arrives) = arrives.filter(|arrives| current.as_ref() != Some(arrives)) {
        let arrives = short(&arrives);
        return Some(format!(
            "it takes over {arrives} from {from} by itself, once its gates pass"
        ));
    }
    let current = current?;
    if wanted.as_ref() == Some(&current) {
        return None;
    }
    let at = short(&current);
    Some(match wanted {
        Some(wanted) => format!(
            "it follows {from} by itself and is at {at}; {} of the tree counts only where the \
             label does not exist yet",
            short(&wanted)
        ),
        None => format!("it follows {from} by itself and is at {at}; the tree does not have it"),
    })
}
