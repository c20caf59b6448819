//! What makes two trees and two states the same for a plan.

use std::collections::BTreeMap;

use anyhow::Context as _;
use base::Digest;
use db::promotion::Rules;
use serde_json::{Value, json};

use super::super::environments::Environments;
use super::super::state::State;
use super::super::{Key, Tree};
use super::Options;
use super::drift::write_key;

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
    let environments = tree.environments.as_ref().map(environments_of);
    let whole = json!({"names": names, "environments": environments});
    Digest::of_json(&whole).context("making the tree's digest")
}

/// The identity of everything of the project that a plan depends on. Labels that move by
/// themselves are not in it: where they are changes no step.
pub(super) fn state_digest(
    state: &State,
    tree: &Tree,
    options: Options,
    following: &BTreeMap<String, String>,
) -> anyhow::Result<Digest> {
    let is_involved = |key: &Key| options.allow_delete || tree.names.contains_key(key);
    let names: BTreeMap<String, Value> = state
        .names
        .iter()
        .filter(|(key, _)| is_involved(key))
        .map(|(key, name)| {
            let newest = name.latest.map(|(number, digest)| json!([number, digest]));
            let pointers: BTreeMap<&str, Value> = name
                .pointers
                .iter()
                .map(|(label, pointer)| match following.get(label.as_str()) {
                    Some(from) => (label.as_str(), json!({ "follows": from })),
                    None => (label.as_str(), json!(pointer)),
                })
                .collect();
            let held = json!({
                "newest": newest, "tags": name.tags, "deleted": name.is_deleted, "pointers": pointers,
                "quarantined": state.quarantined.get(key),
            });
            (write_key(key), held)
        })
        .collect();
    let whole = json!({"names": names, "environments": environments_of(&state.environments)});
    Digest::of_json(&whole).context("making the state's digest")
}

fn environments_of(environments: &Environments) -> Value {
    let protections: BTreeMap<&String, &Rules> = environments.protections.iter().collect();
    json!({"order": environments.order, "protections": protections})
}
