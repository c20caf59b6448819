//! Which examples are the same or nearly the same, and where that spoils an evaluation:
//! twins in two splits, and examples that a prompt shows to the model as worked ones.
//!
//! The same means: the same input, byte for byte of its canonical form. Nearly the same
//! is estimated from minimum hashes over the words of the input, as the catalog does for
//! documents. Nothing is removed; people decide.

use std::collections::{BTreeMap, HashMap, HashSet};

use db::Scope;
use db::catalog::{Name, Sketch};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use super::example::{Example, collect_text};
use super::{Datasets, Found};
use crate::error::{AppError, Result};

/// The least share in common that counts as nearly the same.
pub(super) const NEARLY: f64 = 0.8;
/// Examples that are compared at once: half a kilobyte is kept of each.
const MAX_COMPARED: u64 = 100_000;
/// Examples in one band that are compared with each other: texts of one template all meet there.
const MAX_MET: usize = 64;
/// Pairs and groups that a report lists.
const LISTED: usize = 100;

/// What was found.
#[derive(Debug, Clone, Default, Serialize, JsonSchema)]
pub struct Report {
    /// How many examples were looked at.
    pub examples: u64,
    /// How many examples have the same input as an earlier one.
    pub copies: usize,
    /// Examples with the same input, the first groups.
    pub same: Vec<Vec<Twin>>,
    /// How many pairs are nearly the same.
    pub nearly: usize,
    /// Those pairs, the most alike first.
    pub alike: Vec<Pair>,
    /// How many pairs, the same or nearly, stand in two splits.
    pub leaks: usize,
    /// Those pairs, the most alike first.
    pub leaking: Vec<Pair>,
    /// How many examples a prompt of the catalog shows to the model.
    pub shown: usize,
    /// Those examples.
    pub shown_by: Vec<Shown>,
}

/// An example in a report.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Twin {
    /// Its id.
    pub id: String,
    /// Its split.
    pub split: Option<String>,
    /// The beginning of its input.
    pub input: String,
}

/// Two examples that are alike.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Pair {
    /// The earlier one.
    pub a: Twin,
    /// The later one.
    pub b: Twin,
    /// The estimated share that is the same; 1 for the same input.
    pub similarity: f64,
}

/// An example that a prompt shows to the model.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Shown {
    /// The example.
    pub example: Twin,
    /// The prompt.
    pub prompt: String,
    /// Its version.
    pub version: i64,
    /// Which of its worked examples, from 0.
    pub index: usize,
    /// The beginning of that one's inputs.
    pub text: String,
    /// The estimated share that is the same.
    pub similarity: f64,
}

/// What is kept of an example while they are compared.
struct Kept {
    twin: Twin,
    input: String,
    sketch: Option<Sketch>,
}

impl Kept {
    fn of(example: &Example) -> Self {
        let text = example.input_text();
        Self {
            twin: Twin {
                id: example.id.clone(),
                split: example.split.clone(),
                input: beginning(&text),
            },
            input: example
                .input_digest()
                .map(|digest| digest.hex())
                .unwrap_or_default(),
            sketch: Sketch::of(&text),
        }
    }
}

fn beginning(text: &str) -> String {
    base::text::preview(&text.split_whitespace().collect::<Vec<_>>().join(" "), 120)
}

async fn keep(datasets: &Datasets, scope: Scope, found: &Found) -> Result<Vec<Kept>> {
    if found.document.count > MAX_COMPARED {
        let message = format!("examples are compared in datasets of up to {MAX_COMPARED}");
        return Err(AppError::invalid(message).code("too_many_examples"));
    }
    let mut kept = Vec::new();
    let mut reading = datasets.reading(scope, found)?;
    while let Some(examples) = reading.next().await? {
        // Hashing thousands of texts is work for a thread of its own.
        let some =
            tokio::task::spawn_blocking(move || examples.iter().map(Kept::of).collect::<Vec<_>>());
        kept.extend(some.await.map_err(AppError::internal)?);
    }
    Ok(kept)
}

/// Pairs that are the same or nearly the same: indices, the earlier one first.
fn pairs(kept: &[Kept]) -> Vec<(usize, usize, f64)> {
    let mut bands: HashMap<u64, Vec<usize>> = HashMap::new();
    let mut found = Vec::new();
    for (index, own) in kept.iter().enumerate() {
        let Some(sketch) = &own.sketch else { continue };
        let mut met: HashSet<usize> = HashSet::new();
        for band in sketch.bands() {
            let others = bands.entry(band).or_default();
            met.extend(others.iter().copied());
            if others.len() < MAX_MET {
                others.push(index);
            }
        }
        for other in met {
            let earlier = &kept[other];
            let similarity = match &earlier.sketch {
                _ if earlier.input == own.input => 1.0,
                Some(earlier) => sketch.share(earlier),
                None => continue,
            };
            if similarity >= NEARLY {
                found.push((other, index, similarity));
            }
        }
    }
    found.sort_by(|a, b| b.2.total_cmp(&a.2).then(a.0.cmp(&b.0)).then(a.1.cmp(&b.1)));
    found
}

/// Pairs among these examples that are the same or nearly the same: their indices, the most alike
/// first.
pub(crate) fn alike_pairs(examples: &[Example]) -> Vec<(usize, usize, f64)> {
    let kept: Vec<Kept> = examples.iter().map(Kept::of).collect();
    pairs(&kept)
}

/// For each example that has one alike: the name of its group, which is the same in every version
/// that holds the group's first input.
pub(super) async fn groups(
    datasets: &Datasets,
    scope: Scope,
    found: &Found,
) -> Result<HashMap<String, String>> {
    let kept = keep(datasets, scope, found).await?;
    let grouped = move || {
        let mut parent: Vec<usize> = (0..kept.len()).collect();
        for (a, b, _) in pairs(&kept) {
            let (a, b) = (root(&mut parent, a), root(&mut parent, b));
            let (first, second) = if kept[a].input <= kept[b].input {
                (a, b)
            } else {
                (b, a)
            };
            parent[second] = first;
        }
        let roots: Vec<usize> = (0..kept.len())
            .map(|index| root(&mut parent, index))
            .collect();
        let named = roots
            .iter()
            .enumerate()
            .filter(|(index, group)| index != *group);
        named
            .map(|(index, group)| (kept[index].twin.id.clone(), kept[*group].input.clone()))
            .collect()
    };
    tokio::task::spawn_blocking(grouped)
        .await
        .map_err(AppError::internal)
}

fn root(parent: &mut [usize], mut index: usize) -> usize {
    while parent[index] != index {
        parent[index] = parent[parent[index]];
        index = parent[index];
    }
    index
}

impl Datasets {
    /// Looks for duplicates, leaks between splits and leaks into the prompts of the catalog.
    ///
    /// # Errors
    /// There are too many examples to compare.
    pub async fn find_alike(&self, scope: Scope, found: &Found) -> Result<Report> {
        let kept = keep(self, scope, found).await?;
        let shown = self.shown_examples(scope).await?;
        let work = move || {
            let mut report = Report {
                examples: kept.len() as u64,
                ..Report::default()
            };
            same(&kept, &mut report);
            alike(&kept, &mut report);
            shown_by(&kept, &shown, &mut report);
            report
        };
        tokio::task::spawn_blocking(work)
            .await
            .map_err(AppError::internal)
    }

    /// The worked examples of the prompts that are in use or newest.
    async fn shown_examples(&self, scope: Scope) -> Result<Vec<Worked>> {
        let kind = crate::prompts::KIND;
        let mut latest: BTreeMap<Name, (i64, base::Digest)> = BTreeMap::new();
        for row in self.catalog.version_index(scope.project, kind).await? {
            let entry = latest.entry(row.name).or_insert((row.number, row.digest));
            if row.number > entry.0 {
                *entry = (row.number, row.digest);
            }
        }
        let mut versions: HashSet<(Name, i64, base::Digest)> = latest
            .into_iter()
            .map(|(name, (number, digest))| (name, number, digest))
            .collect();
        let pointers = self.catalog.pointer_index(scope.project, kind).await?;
        versions.extend(
            pointers
                .into_iter()
                .map(|pointer| (pointer.name, pointer.number, pointer.digest)),
        );
        let mut versions: Vec<_> = versions.into_iter().collect();
        versions.sort();
        let mut worked = Vec::new();
        for some in versions.chunks(200) {
            let digests: Vec<base::Digest> = some.iter().map(|(_, _, digest)| *digest).collect();
            let documents = self.catalog.documents(scope.project, &digests).await?;
            for (name, version, digest) in some {
                let items = documents
                    .get(digest)
                    .and_then(|document| document.pointer("/examples/items"));
                let items = items.and_then(Value::as_array).into_iter().flatten();
                worked.extend(items.enumerate().filter_map(|(index, item)| {
                    let mut text = String::new();
                    collect_text(item.get("inputs")?, &mut text);
                    let sketch = Sketch::of(&text)?;
                    Some(Worked {
                        prompt: name.as_str().to_owned(),
                        version: *version,
                        index,
                        text: beginning(&text),
                        sketch,
                    })
                }));
            }
        }
        Ok(worked)
    }
}

/// A worked example of a prompt.
struct Worked {
    prompt: String,
    version: i64,
    index: usize,
    text: String,
    sketch: Sketch,
}

fn same(kept: &[Kept], report: &mut Report) {
    let mut by_input: HashMap<&str, Vec<usize>> = HashMap::new();
    for (index, own) in kept.iter().enumerate() {
        by_input.entry(&own.input).or_default().push(index);
    }
    let mut groups: Vec<Vec<usize>> = by_input
        .into_values()
        .filter(|group| group.len() > 1)
        .collect();
    groups.sort();
    report.copies = groups.iter().map(|group| group.len() - 1).sum();
    let twin = |index: &usize| kept[*index].twin.clone();
    let listed = groups.iter().take(LISTED);
    report.same = listed
        .map(|group| group.iter().take(10).map(twin).collect())
        .collect();
}

fn alike(kept: &[Kept], report: &mut Report) {
    for (a, b, similarity) in pairs(kept) {
        let is_same = kept[a].input == kept[b].input;
        let pair = || Pair {
            a: kept[a].twin.clone(),
            b: kept[b].twin.clone(),
            similarity,
        };
        if !is_same {
            report.nearly += 1;
            if report.alike.len() < LISTED {
                report.alike.push(pair());
            }
        }
        let (one, other) = (&kept[a].twin.split, &kept[b].twin.split);
        if one.is_some() && other.is_some() && one != other {
            report.leaks += 1;
            if report.leaking.len() < LISTED {
                report.leaking.push(pair());
            }
        }
    }
}

fn shown_by(kept: &[Kept], worked: &[Worked], report: &mut Report) {
    let mut bands: HashMap<u64, Vec<usize>> = HashMap::new();
    for (index, worked) in worked.iter().enumerate() {
        for band in worked.sketch.bands() {
            bands.entry(band).or_default().push(index);
        }
    }
    let mut found = Vec::new();
    for own in kept {
        let Some(sketch) = &own.sketch else { continue };
        let met: HashSet<usize> = sketch
            .bands()
            .filter_map(|band| bands.get(&band))
            .flatten()
            .copied()
            .collect();
        let shares = met
            .into_iter()
            .map(|index| (index, sketch.share(&worked[index].sketch)));
        let alike: Vec<(usize, f64)> = shares.filter(|(_, share)| *share >= NEARLY).collect();
        report.shown += usize::from(!alike.is_empty());
        found.extend(alike.into_iter().map(|(index, similarity)| {
            let Worked {
                prompt,
                version,
                index,
                text,
                ..
            } = &worked[index];
            Shown {
                example: own.twin.clone(),
                prompt: prompt.clone(),
                version: *version,
                index: *index,
                text: text.clone(),
                similarity,
            }
        }));
    }
    found.sort_by(|a, b| {
        let place = |shown: &Shown| {
            (
                shown.prompt.clone(),
                shown.version,
                shown.index,
                shown.example.id.clone(),
            )
        };
        b.similarity
            .total_cmp(&a.similarity)
            .then_with(|| place(a).cmp(&place(b)))
    });
    found.truncate(LISTED);
    report.shown_by = found;
}
