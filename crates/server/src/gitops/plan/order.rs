//! What comes before what: a document after everything that it refers to, a label
//! after its document, and the labels of environments in the environments' order.

use std::collections::{BTreeMap, HashMap};

use base::Digest;
use db::Reference;
use db::catalog::{Label, Selector};

use super::super::{Finding, Key, Tree, TreeDocument};

/// A node of the order in which things are made.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Made {
    Document(Key, Digest),
    Pointer(Key, Label),
}

/// Documents and labels in the order in which they can be made: what is referred
/// to comes first, and of a name's documents the main one last, so that it is the newest.
///
/// As far as that leaves a choice, a label of an environment is moved after the label of the
/// environment before: content that moves on by itself then comes first, and what the tree
/// says of the later one last.
pub(super) fn order(tree: &Tree, environments: &[String]) -> Result<Vec<Made>, Finding> {
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
    sorted(tree, &graph, environments)
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

fn sorted(
    tree: &Tree,
    graph: &BTreeMap<Made, Vec<Made>>,
    environments: &[String],
) -> Result<Vec<Made>, Finding> {
    #[derive(Clone, Copy, PartialEq)]
    enum Mark {
        Open,
        Done,
    }
    let mut marks: HashMap<&Made, Mark> = HashMap::new();
    let mut order = Vec::with_capacity(graph.len());
    let mut starts: Vec<&Made> = graph.keys().collect();
    // Stable: what is equal stays in the order of its names.
    starts.sort_by_key(|made| match made {
        Made::Document(..) => 0,
        Made::Pointer(_, label) => {
            let position = environments
                .iter()
                .position(|known| known == label.as_str());
            1 + position.unwrap_or(environments.len())
        }
    });
    for start in starts {
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
