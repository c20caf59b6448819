//! Reading examples: a page, one of them, all of them in order, and what differs
//! between two versions.
//!
//! A place in a dataset is the number of an example in the dataset's order. Only the
//! chunks that a question needs are read: a page at a place knows its chunk from
//! the counts, a split skips the chunks that have none of it, and two versions differ
//! only in chunks that they do not share.

use std::collections::VecDeque;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

use base::Digest;
use db::Scope;
use schemars::JsonSchema;
use serde::Serialize;

use super::chunks::Chunks;
use super::document::{Chunk, DatasetDocument};
use super::example::{Example, Verdict};
use super::{Datasets, Found};
use crate::error::{AppError, Result};

/// How long one question may look through chunks before it answers with what it has.
const SEARCH: Duration = Duration::from_secs(2);
/// Examples of a page, at most.
pub(super) const MAX_PAGE: usize = 1000;
/// Examples that may differ between two versions before a comparison gives up.
const MAX_COMPARED: usize = 500_000;

/// Which examples.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ExampleFilter {
    /// Only those of this split.
    pub split: Option<SplitFilter>,
    /// Only those in which this text occurs, whatever its case.
    pub text: Option<String>,
    /// Only those with this verdict.
    pub verdict: Option<Verdict>,
    /// Only those with (or without) an expected output.
    pub labelled: Option<bool>,
}

/// A split, or none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SplitFilter {
    /// This one.
    Named(String),
    /// Examples that are in no split.
    Without,
}

impl SplitFilter {
    /// `~none` is no split; everything else is its name.
    pub fn parse(text: &str) -> Self {
        match text {
            "~none" => Self::Without,
            name => Self::Named(name.to_owned()),
        }
    }

    fn count_in(&self, chunk: &Chunk) -> u64 {
        match self {
            Self::Named(name) => chunk.splits.get(name).copied().unwrap_or(0),
            Self::Without => chunk.count.saturating_sub(chunk.splits.values().sum()),
        }
    }

    pub(super) fn takes(&self, split: Option<&str>) -> bool {
        match self {
            Self::Named(name) => split == Some(name.as_str()),
            Self::Without => split.is_none(),
        }
    }
}

impl ExampleFilter {
    /// Whether it looks into examples, not only at their splits.
    fn looks_inside(&self) -> bool {
        self.text.is_some() || self.verdict.is_some() || self.labelled.is_some()
    }

    /// Whether it takes this example.
    pub fn takes(&self, example: &Example) -> bool {
        self.split
            .as_ref()
            .is_none_or(|split| split.takes(example.split.as_deref()))
            && self
                .verdict
                .is_none_or(|verdict| example.verdict == Some(verdict))
            && self
                .labelled
                .is_none_or(|labelled| example.expected.is_some() == labelled)
            && self
                .text
                .as_ref()
                .is_none_or(|text| example.mentions(&text.to_lowercase()))
    }

    /// How many examples it finds, where that is known without looking.
    pub fn count(&self, found: &Found) -> Option<u64> {
        if self.looks_inside() {
            return None;
        }
        Some(match &self.split {
            None => found.document.count,
            Some(SplitFilter::Named(name)) => found.document.splits.get(name).copied().unwrap_or(0),
            Some(SplitFilter::Without) => found.document.without_split(),
        })
    }
}

/// An example and its place.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(rename = "LocatedExample")]
pub struct Located {
    /// Its number in the dataset's order, from 0.
    pub place: u64,
    /// The example.
    #[serde(flatten)]
    pub example: Example,
}

/// A page of examples.
#[derive(Debug)]
pub struct ExamplePage {
    /// The examples.
    pub items: Vec<Located>,
    /// The place to go on from; a page may be short, or empty, and still have one, when the
    /// search took long.
    pub next: Option<u64>,
}

impl Datasets {
    /// The examples from this place on that the filter takes.
    ///
    /// # Errors
    /// A chunk cannot be read.
    pub async fn page(
        &self,
        scope: Scope,
        found: &Found,
        filter: &ExampleFilter,
        from: u64,
        limit: usize,
    ) -> Result<ExamplePage> {
        let chunks = self.chunks(scope)?;
        let limit = limit.clamp(1, MAX_PAGE);
        let begin = Instant::now();
        let mut page = ExamplePage {
            items: Vec::new(),
            next: None,
        };
        let mut place = 0;
        for chunk in &found.document.chunks {
            let end = place + chunk.count;
            let is_skipped = end <= from
                || filter
                    .split
                    .as_ref()
                    .is_some_and(|split| split.count_in(chunk) == 0);
            if is_skipped {
                place = end;
                continue;
            }
            // What is left of a full page is known without reading, unless only the examples can tell.
            let is_full = page.items.len() == limit && !filter.looks_inside();
            if is_full || begin.elapsed() > SEARCH {
                page.next = Some(place.max(from));
                break;
            }
            for (example, place) in chunks.read(chunk).await?.into_iter().zip(place..) {
                if place >= from && filter.takes(&example) {
                    if page.items.len() == limit {
                        page.next = Some(place);
                        return Ok(page);
                    }
                    page.items.push(Located { place, example });
                }
            }
            place = end;
        }
        Ok(page)
    }

    /// Where the page before the one at this place begins, for examples of a split or all.
    pub fn place_before(
        found: &Found,
        filter: &ExampleFilter,
        from: u64,
        limit: usize,
    ) -> Option<u64> {
        if from == 0 || filter.looks_inside() {
            return None;
        }
        if filter.split.is_none() {
            return Some(from.saturating_sub(limit as u64));
        }
        // The splits of a chunk have no places: go back by whole chunks.
        let split = filter.split.as_ref()?;
        let (mut place, mut before) = (0, Vec::new());
        for chunk in &found.document.chunks {
            if place >= from {
                break;
            }
            before.push((place, split.count_in(chunk)));
            place += chunk.count;
        }
        let mut seen = 0;
        let start = before.into_iter().rev().find(|(_, count)| {
            seen += count;
            seen >= limit as u64
        });
        Some(start.map_or(0, |(place, _)| place))
    }

    /// One example of a version, with its place.
    ///
    /// # Errors
    /// There is none with this id.
    pub async fn example(&self, scope: Scope, found: &Found, id: &str) -> Result<Located> {
        let chunks = self.chunks(scope)?;
        let hash = super::chunks::id_hash(id);
        let mut place = 0;
        for chunk in &found.document.chunks {
            let ids = chunks.ids(chunk).await?;
            if ids.contains(&hash)
                && let Some((example, place)) = chunks
                    .read(chunk)
                    .await?
                    .into_iter()
                    .zip(place..)
                    .find(|(example, _)| example.id == id)
            {
                return Ok(Located { place, example });
            }
            place += chunk.count;
        }
        let message = format!(
            "the dataset {} has no example {id:?} in version {}",
            found.version.name, found.version.number
        );
        Err(AppError::not_found(message).code("no_such_example"))
    }

    /// All examples of a version in their order, a chunk at a time.
    ///
    /// # Errors
    /// The blob store is missing.
    pub fn reading(&self, scope: Scope, found: &Found) -> Result<Reading> {
        self.reading_document(scope, &found.document)
    }

    /// As [`Datasets::reading`], for a document whose name may be deleted.
    ///
    /// # Errors
    /// The blob store is missing.
    pub fn reading_document(&self, scope: Scope, document: &DatasetDocument) -> Result<Reading> {
        Ok(Reading {
            chunks: self.chunks(scope)?,
            left: document.chunks.clone().into(),
        })
    }

    /// What differs between two versions of a dataset, by example.
    ///
    /// # Errors
    /// A chunk cannot be read, or too much differs.
    pub async fn difference(&self, scope: Scope, from: &Found, to: &Found) -> Result<Difference> {
        let chunks = self.chunks(scope)?;
        let shared: HashSet<Digest> = {
            let before: HashSet<Digest> = from
                .document
                .chunks
                .iter()
                .map(|chunk| chunk.digest)
                .collect();
            let after = to.document.chunks.iter().map(|chunk| chunk.digest);
            after.filter(|digest| before.contains(digest)).collect()
        };
        let before = digests(&chunks, from, &shared).await?;
        let after = digests(&chunks, to, &shared).await?;
        let mut difference = Difference::default();
        for (id, digest) in after.order.values() {
            match before.by_id.get(id) {
                None => difference.added.push(id.clone()),
                Some(earlier) if earlier != digest => difference.changed.push(id.clone()),
                Some(_) => {}
            }
        }
        let removed = before
            .order
            .values()
            .filter(|(id, _)| !after.by_id.contains_key(id));
        difference.removed = removed.map(|(id, _)| id.clone()).collect();
        Ok(difference)
    }
}

/// The examples of the chunks that are not shared.
#[derive(Default)]
struct Digests {
    by_id: HashMap<String, Digest>,
    order: BTreeMap<u64, (String, Digest)>,
}

async fn digests(chunks: &Chunks, found: &Found, shared: &HashSet<Digest>) -> Result<Digests> {
    let mut digests = Digests::default();
    let mut place = 0;
    for chunk in &found.document.chunks {
        let start = place;
        place += chunk.count;
        if shared.contains(&chunk.digest) {
            continue;
        }
        for (example, place) in chunks.read(chunk).await?.into_iter().zip(start..) {
            let line = example
                .check()
                .map_err(|problem| AppError::internal(anyhow::anyhow!(problem)))?;
            let digest = Digest::of(&line);
            digests.order.insert(place, (example.id.clone(), digest));
            digests.by_id.insert(example.id, digest);
        }
        if digests.by_id.len() > MAX_COMPARED {
            let message = format!("more than {MAX_COMPARED} examples differ; that is not compared");
            return Err(AppError::invalid(message).code("too_different"));
        }
    }
    Ok(digests)
}

/// What differs between two versions: ids, in the order of the examples.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Difference {
    /// Only in the later one.
    pub added: Vec<String>,
    /// In both, with other content.
    pub changed: Vec<String>,
    /// Only in the earlier one.
    pub removed: Vec<String>,
}

/// Goes through the examples of a version without holding them all.
pub struct Reading {
    chunks: Chunks,
    left: VecDeque<Chunk>,
}

impl Reading {
    /// The next few examples; `None` at the end.
    ///
    /// # Errors
    /// The chunk cannot be read.
    pub async fn next(&mut self) -> Result<Option<Vec<Example>>> {
        match self.left.pop_front() {
            None => Ok(None),
            Some(chunk) => self.chunks.read(&chunk).await.map(Some),
        }
    }
}
