//! What somebody else changed since the last apply: the state that it left behind
//! against the state of now, where the tree does not want what is there.

use std::collections::{BTreeMap, BTreeSet};

use base::text::preview;
use db::Kinds;
use db::promotion::Rules;

use super::super::environments::protection_of;
use super::super::state::State;
use super::super::store::{Applied, AppliedName};
use super::super::{Key, Tree};
use super::{Drift, Plan};

/// How much of a protection is shown.
const SHOWN_CHARS: usize = 200;

/// How drift and the steps that would undo it call what protects a label.
pub(super) fn protection_object(label: &str) -> String {
    format!("protection of {label}")
}

/// Everything that drifted, but for labels that move by themselves.
pub(super) fn find(
    tree: &Tree,
    state: &State,
    kinds: &Kinds,
    following: &BTreeMap<String, String>,
) -> Vec<Drift> {
    let Some(applied) = &state.applied else {
        return Vec::new();
    };
    let mut finding = Finding {
        tree,
        following,
        found: Vec::new(),
    };
    let now = names_of(state, kinds);
    let keys: BTreeSet<&String> = applied.names.keys().chain(now.keys()).collect();
    for text in keys {
        let (before, after) = (applied.names.get(text), now.get(text));
        if let Some(key) = read_key(text).filter(|_| before != after) {
            finding.name(&key, before, after);
        }
    }
    if let Some(before) = &applied.protections {
        finding.protections(before, &state.environments.protections);
    }
    finding.found
}

struct Finding<'a> {
    tree: &'a Tree,
    following: &'a BTreeMap<String, String>,
    found: Vec<Drift>,
}

impl Finding<'_> {
    fn name(&mut self, key: &Key, before: Option<&AppliedName>, after: Option<&AppliedName>) {
        let entry = self.tree.names.get(key);
        let text = |value: Option<&AppliedName>| value.map(|value| value.latest.clone());
        let wanted = entry.map(|entry| entry.main.digest.to_string());
        let (old, new) = (text(before), text(after));
        if old != new && new != wanted {
            self.push(key.to_string(), old, new);
        }
        let empty = AppliedName::default();
        let (before, after) = (before.unwrap_or(&empty), after.unwrap_or(&empty));
        let labels: BTreeSet<&String> = before
            .pointers
            .keys()
            .chain(after.pointers.keys())
            .filter(|label| !self.following.contains_key(*label))
            .collect();
        for label in labels {
            let (old, new) = (before.pointers.get(label), after.pointers.get(label));
            let wanted = entry.and_then(|entry| {
                let pointers = entry.pointers.iter();
                let mut found = pointers.filter(|(known, _)| known.as_str() == label);
                found.next().map(|(_, digest)| digest.to_string())
            });
            if old != new && new.cloned() != wanted {
                self.push(format!("{key}@{label}"), old.cloned(), new.cloned());
            }
        }
        let wanted: &[String] = entry.map_or(&[], |entry| &entry.tags);
        if before.tags != after.tags && after.tags != wanted {
            let words = |tags: &[String]| Some(tags.join(", "));
            self.push(
                format!("{key} tags"),
                words(&before.tags),
                words(&after.tags),
            );
        }
    }

    /// Whoever made a label safer in a hurry must not lose that to the next pipeline.
    fn protections(&mut self, before: &BTreeMap<String, Rules>, after: &BTreeMap<String, Rules>) {
        let Some(wanted) = &self.tree.environments else {
            return;
        };
        let labels: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
        for label in labels {
            let (old, new) = (before.get(label), after.get(label));
            if old == new || new == wanted.protections.get(label) {
                continue;
            }
            let words = |rules: Option<&Rules>| {
                rules.map(|rules| preview(&protection_of(rules).to_string(), SHOWN_CHARS))
            };
            self.push(protection_object(label), words(old), words(new));
        }
    }

    fn push(&mut self, object: String, before: Option<String>, after: Option<String>) {
        self.found.push(Drift {
            object,
            before,
            after,
        });
    }
}

/// What an apply leaves behind, to be compared with later.
pub(in super::super) fn applied_of(
    state: &State,
    kinds: &Kinds,
    plan: &Plan,
    actor: String,
    at: i64,
) -> Applied {
    Applied {
        tree: plan.tree.clone(),
        actor,
        at,
        names: names_of(state, kinds),
        protections: Some(state.environments.protections.clone()),
    }
}

fn names_of(state: &State, kinds: &Kinds) -> BTreeMap<String, AppliedName> {
    let living = state
        .names
        .iter()
        .filter(|(key, name)| !name.is_deleted && kinds.get(&key.kind).is_ok());
    living
        .map(|(key, name)| {
            let pointers = name.pointers.iter();
            let kept = AppliedName {
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

pub(super) fn write_key(key: &Key) -> String {
    format!("{}:{}", key.kind, key.name)
}

fn read_key(text: &str) -> Option<Key> {
    let (kind, name) = text.split_once(':')?;
    Some(Key {
        kind: kind.to_owned(),
        name: name.parse().ok()?,
    })
}
