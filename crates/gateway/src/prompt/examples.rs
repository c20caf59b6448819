//! Worked examples, and which of them are most like a call.
//!
//! The likeness of two texts is the cosine of their counts of two- and
//! three-letter sequences: with `a(g)` the times that the sequence `g` occurs in
//! one text and `b(g)` in the other, `Σ a(g)·b(g) / (√Σ a(g)² · √Σ b(g)²)`. Texts
//! are compared in lower case, with one space for any run of spaces and one at
//! each end, and by their first 4,000 characters. Needing no words, it works for
//! Japanese as it does for English. The examples' side is counted once per version
//! and kept by sequence, so that a call only looks at sequences that it has.
//!
//! Likeness by embedding needs a model, which rendering does not wait for:
//! `crate::embedded` has it chosen before.

use serde_json::{Map, Value};

use super::document::{Dialect, Examples, Select, SelectBy};
use super::template::Layer;

/// The part of a text that is compared.
const COMPARED_CHARS: usize = 4_000;

/// The examples of a version, ready to be shown.
pub(super) struct Shown {
    pub(super) items: Vec<Item>,
    /// Also of those that are chosen by embedding, in case that fails.
    index: Option<Index>,
    by_embedding: bool,
}

/// One example.
pub(super) struct Item {
    pub(super) inputs: Layer,
    pub(super) output: String,
}

impl Shown {
    pub(super) fn new(examples: &Examples, dialect: Dialect) -> Self {
        let items = examples.items.iter().map(|item| Item {
            inputs: Layer::new(dialect, item.inputs.clone()),
            output: text_of(&item.output),
        });
        let index = examples
            .select
            .as_ref()
            .map(|select| Index::new(select, examples));
        let by = examples.select.as_ref().map(|select| select.by);
        Self {
            items: items.collect(),
            index,
            by_embedding: by == Some(SelectBy::Embedding),
        }
    }

    /// The text whose embedding chooses, where one does.
    pub(super) fn to_embed(&self, inputs: &Map<String, Value>, question: &str) -> Option<String> {
        let index = self.index.as_ref().filter(|_| self.by_embedding)?;
        Some(compared(&index.text_of_call(inputs, question)))
    }

    /// The texts that it is compared with, one for each example.
    pub(super) fn texts(&self) -> Vec<String> {
        let names = self.index.as_ref().map(|index| index.names.as_slice());
        let text = |item: &Item| compared(&joined(names.unwrap_or_default(), &item.inputs.map));
        self.items.iter().map(text).collect()
    }

    /// The examples for a call, in the order in which they are shown.
    pub(super) fn choose(&self, inputs: &Map<String, Value>, question: &str) -> Vec<usize> {
        match &self.index {
            None => (0..self.items.len()).collect(),
            Some(index) => index.choose(inputs, question),
        }
    }
}

/// A value as a text for a model.
pub(super) fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// Which examples have a sequence, and how much it weighs there.
struct Index {
    k: usize,
    examples: usize,
    /// The inputs that are compared, in this order.
    names: Vec<String>,
    /// Sorted, each with its range of `postings`.
    sequences: Vec<(u64, std::ops::Range<usize>)>,
    postings: Vec<(usize, f64)>,
}

impl Index {
    fn new(select: &Select, examples: &Examples) -> Self {
        let names = match &select.input {
            Some(name) => vec![name.clone()],
            None => {
                let all = examples.items.iter().flat_map(|item| item.inputs.keys());
                let mut names: Vec<String> = all.cloned().collect();
                names.sort_unstable();
                names.dedup();
                names
            }
        };
        let mut entries: Vec<(u64, usize, f64)> = Vec::new();
        for (number, item) in examples.items.iter().enumerate() {
            let counts = counts(&joined(&names, &item.inputs));
            let squares: f64 = counts.iter().map(|(_, count)| count * count).sum();
            let length = squares.sqrt();
            entries.extend(
                counts
                    .into_iter()
                    .map(|(sequence, count)| (sequence, number, count / length)),
            );
        }
        entries.sort_by_key(|(sequence, number, _)| (*sequence, *number));
        let mut sequences: Vec<(u64, std::ops::Range<usize>)> = Vec::new();
        for (at, (sequence, _, _)) in entries.iter().enumerate() {
            match sequences.last_mut() {
                Some((last, range)) if last == sequence => range.end = at + 1,
                _ => sequences.push((*sequence, at..at + 1)),
            }
        }
        let weight = |(_, number, weight)| (number, weight);
        Self {
            k: select.k,
            examples: examples.items.len(),
            names,
            sequences,
            postings: entries.into_iter().map(weight).collect(),
        }
    }

    /// The `k` most alike, the most alike of all last; of equals the earlier wins.
    /// A call without the inputs that are compared is compared by its question.
    fn choose(&self, inputs: &Map<String, Value>, question: &str) -> Vec<usize> {
        let text = self.text_of_call(inputs, question);
        let mut alike = vec![0.0; self.examples];
        // The length of the call's own side is the same for all and changes no order.
        for (sequence, count) in counts(&text) {
            let found = self.sequences.binary_search_by_key(&sequence, |(s, _)| *s);
            if let Ok(place) = found {
                for (number, weight) in &self.postings[self.sequences[place].1.clone()] {
                    alike[*number] += count * weight;
                }
            }
        }
        most_alike(&alike, self.k)
    }

    fn text_of_call(&self, inputs: &Map<String, Value>, question: &str) -> String {
        let text = joined(&self.names, inputs);
        if text.trim().is_empty() {
            return question.to_owned();
        }
        text
    }
}

/// The places of the `k` highest, the highest last; of equals the earlier wins.
pub(crate) fn most_alike(alike: &[f64], k: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..alike.len()).collect();
    order.sort_by(|a, b| alike[*b].total_cmp(&alike[*a]).then(a.cmp(b)));
    order.truncate(k);
    order.reverse();
    order
}

/// A text as an embedding model gets it: not too long, and not empty.
fn compared(text: &str) -> String {
    let text: String = text.trim().chars().take(COMPARED_CHARS).collect();
    if text.is_empty() {
        return "-".to_owned();
    }
    text
}

/// The texts of these inputs, one after the other.
fn joined(names: &[String], inputs: &Map<String, Value>) -> String {
    let texts = names
        .iter()
        .filter_map(|name| inputs.get(name))
        .map(text_of);
    texts.collect::<Vec<_>>().join(" ")
}

/// How often each sequence occurs, in the order of the sequences.
fn counts(text: &str) -> Vec<(u64, f64)> {
    let mut letters = vec![' '];
    for c in text
        .chars()
        .take(COMPARED_CHARS)
        .flat_map(char::to_lowercase)
    {
        let c = if c.is_whitespace() { ' ' } else { c };
        if c != ' ' || letters.last() != Some(&' ') {
            letters.push(c);
        }
    }
    if letters.last() != Some(&' ') {
        letters.push(' ');
    }
    // A character has 21 bits, so three fit beside a bit that tells their number.
    let pack = |window: &[char]| {
        let start = u64::from(window.len() == 3);
        window
            .iter()
            .fold(start, |packed, c| packed << 21 | u64::from(u32::from(*c)))
    };
    let pairs = letters.windows(2).map(pack);
    let mut sequences: Vec<u64> = pairs.chain(letters.windows(3).map(pack)).collect();
    sequences.sort_unstable();
    let mut counted: Vec<(u64, f64)> = Vec::new();
    for sequence in sequences {
        match counted.last_mut() {
            Some((last, count)) if *last == sequence => *count += 1.0,
            _ => counted.push((sequence, 1.0)),
        }
    }
    counted
}
