//! Trains a linear classifier: L2-regularised logistic regression by dual coordinate descent
//! (Yu, Huang and Lin, 2011). The same texts give the same bytes, on any machine and in any
//! build: the order of the examples comes from a fixed seed, and nothing depends on a clock, a
//! thread or the platform's mathematics.
//!
//! A long positive text is a problem: most of its windows are harmless. So training runs in
//! rounds; from the second on, only the windows of it that the round before thought worst count.

use std::collections::BTreeMap;

use super::features::{Features, Recipe, extract, normalise};
use super::figures::threshold_at;
use super::file::{self, BadModel, Card, CardSource, Task};
use super::linear::{Linear, LinearHeader, encode, is_japanese};
use super::math::{Rng, exp, ln, sigmoid};
use super::windows::{MAX_CHARS, windows};

/// A labelled text.
#[derive(Debug, Clone, PartialEq)]
pub struct Labelled {
    /// The text.
    pub text: String,
    /// Whether it is what the classifier looks for.
    pub positive: bool,
    /// Where it is from; sources are weighted so that none dominates.
    pub source: String,
    /// The licence of the source, for the card.
    pub licence: String,
}

/// How to train.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainOptions {
    /// What the model looks for.
    pub task: Task,
    /// A name for people.
    pub name: String,
    /// The features.
    pub recipe: Recipe,
    /// How far the weights may follow the examples; the inverse of the strength of L2.
    pub cost: f64,
    /// How unequal sources stay: an example counts (texts of its source and label)^-this.
    pub balance: f64,
    /// The weight of all negatives beside all positives.
    pub negative_weight: f64,
    /// Passes over the examples, at most.
    pub passes: usize,
    /// Rounds of choosing the windows of long positives; 1 takes all of them.
    pub rounds: usize,
    /// How many windows of a long positive count.
    pub windows_kept: usize,
    /// For which share of the short texts another harmless sentence is put before or after a
    /// copy: in a long text an attack is never alone in its window.
    pub company: f64,
    /// See [`LinearHeader::many_windows`].
    pub many_windows: f64,
    /// Where the order of the examples comes from.
    pub seed: u64,
}

impl TrainOptions {
    /// The settings that the shipped models are made with.
    pub fn new(task: Task, name: &str) -> Self {
        // Abuse is in words more than in what stands around them; pairs that are far apart, and
        // sentences put beside short texts, taught the builds of sentences instead.
        // Its words are rare, so its weights may follow them further.
        let (pair_reach, company, cost) = match task {
            Task::Injection => (3, 0.3, 20.0),
            Task::Toxicity => (1, 0.0, 90.0),
        };
        Self {
            task,
            name: name.to_owned(),
            recipe: Recipe {
                version: Recipe::VERSION,
                hash_bits: 19,
                char_min: 1,
                char_max: 5,
                pair_reach,
            },
            cost,
            balance: 0.7,
            negative_weight: 1.0,
            passes: 30,
            rounds: 2,
            windows_kept: 4,
            company,
            many_windows: 0.0,
            seed: 20_260_101,
        }
    }
}

/// A model that has no threshold yet.
#[derive(Debug, Clone)]
pub struct Trained {
    header: LinearHeader,
    weights: Vec<u8>,
}

impl Trained {
    /// The model with a threshold that at most `share` of the benign texts reach, in Japanese and
    /// in other languages alike, as a file.
    /// `benign` must be apart from what it was trained on and from what it is measured on.
    ///
    /// # Errors
    /// The header has no JSON form.
    pub fn with_threshold(mut self, benign: &[String], share: f64) -> Result<Vec<u8>, BadModel> {
        let model = Linear::read(&self.to_bytes()?)?;
        let logits = |japanese: bool| -> Vec<f32> {
            let of = benign.iter().filter(|text| is_japanese(text) == japanese);
            of.map(|text| model.logit(text).0 as f32).collect()
        };
        let (japanese, other) = (logits(true), logits(false));
        let at = |logits: &[f32]| f64::from(threshold_at(logits, share));
        self.header.japanese = match (japanese.is_empty(), other.is_empty()) {
            (false, false) => ((at(&other) - at(&japanese)) * 1e6).round() / 1e6,
            _ => 0.0,
        };
        let model = Linear::read(&self.to_bytes()?)?;
        let scores: Vec<f32> = benign.iter().map(|text| model.score(text)).collect();
        self.header.threshold = threshold_at(&scores, share);
        self.header.card.tuned_on_benign = benign.len();
        self.header.card.threshold_rule =
            format!("at most {share} of {} benign texts reach it", benign.len());
        self.to_bytes()
    }

    fn to_bytes(&self) -> Result<Vec<u8>, BadModel> {
        file::write(&self.header, &self.weights)
    }
}

struct Example {
    features: Features,
    positive: bool,
    weight: f64,
    /// Index of the text, for choosing windows.
    text: usize,
}

/// Trains a model on labelled texts.
pub fn train(texts: &[Labelled], options: &TrainOptions) -> Trained {
    let mut more = texts.to_vec();
    more.extend(in_company(texts, options));
    let all = examples(&more, options);
    let idf = inverse_frequencies(&all, options.recipe.places());
    let mut chosen: Vec<usize> = (0..all.len()).collect();
    let mut weights = Weights::default();
    for round in 0..options.rounds.max(1) {
        if round > 0 {
            chosen = worst_windows(&all, &weights, &idf, options.windows_kept);
        }
        weights = fit(&all, &chosen, &idf, options);
    }
    quantise(&weights, &idf, texts, options)
}

/// Copies of short texts with a harmless sentence of the same language beside them.
fn in_company(texts: &[Labelled], options: &TrainOptions) -> Vec<Labelled> {
    const SHORT_CHARS: usize = MAX_CHARS / 2;
    let mut rng = Rng(options.seed ^ 0x5eed);
    let is_short = |text: &&Labelled| text.text.chars().count() < SHORT_CHARS;
    let short: Vec<&Labelled> = texts.iter().filter(is_short).collect();
    let harmless = |japanese: bool| -> Vec<&Labelled> {
        let of = short.iter().filter(|text| !text.positive);
        of.filter(|text| is_japanese(&text.text) == japanese)
            .copied()
            .collect()
    };
    let others = [harmless(false), harmless(true)];
    let mut out = Vec::new();
    for text in short {
        let others = &others[usize::from(is_japanese(&text.text))];
        if rng.unit() >= options.company || others.is_empty() {
            continue;
        }
        let other = &others[(rng.next() % others.len() as u64) as usize].text;
        let joined = if rng.next().is_multiple_of(2) {
            format!("{other} {}", text.text)
        } else {
            format!("{} {other}", text.text)
        };
        out.push(Labelled {
            text: joined,
            ..text.clone()
        });
    }
    out
}

fn examples(texts: &[Labelled], options: &TrainOptions) -> Vec<Example> {
    let mut groups: BTreeMap<(&str, bool), f64> = BTreeMap::new();
    for text in texts {
        *groups.entry((&text.source, text.positive)).or_default() += 1.0;
    }
    let mut out = Vec::new();
    for (index, text) in texts.iter().enumerate() {
        let count = groups[&(text.source.as_str(), text.positive)];
        // x^-b without the platform's pow.
        let weight = exp(-options.balance * ln(count));
        let found = windows(&text.text);
        // A long harmless text has many windows: together they count like a few texts.
        let share = if text.positive {
            1.0
        } else {
            1.0 / (found.len().max(1) as f64).sqrt()
        };
        for window in found {
            out.push(Example {
                features: extract(&options.recipe, &normalise(&text.text[window])),
                positive: text.positive,
                weight: weight * share,
                text: index,
            });
        }
    }
    level(&mut out, options.negative_weight);
    out
}

/// Scales the weights so that the positives together and the negatives together count as asked,
/// and an example counts 1 on average.
fn level(examples: &mut [Example], negative_weight: f64) {
    let sum = |positive: bool| -> f64 {
        let of_label = examples
            .iter()
            .filter(|example| example.positive == positive);
        of_label.map(|example| example.weight).sum()
    };
    let (positive, negative) = (sum(true), sum(false));
    let half = examples.len() as f64 / (1.0 + negative_weight);
    for example in examples {
        example.weight *= if example.positive {
            half / positive
        } else {
            half * negative_weight / negative
        };
    }
}

fn inverse_frequencies(examples: &[Example], places: usize) -> Vec<f32> {
    let mut seen = vec![0u32; places];
    for example in examples {
        for at in &example.features.at {
            seen[*at as usize] += 1;
        }
    }
    let total = examples.len() as f64;
    // What occurs once says nothing about other texts.
    let weigh = |count: u32| match count {
        0 | 1 => 0.0,
        count => (1.0 + ln((total + 1.0) / (f64::from(count) + 1.0))) as f32,
    };
    seen.into_iter().map(weigh).collect()
}

/// All negatives, and of each positive text the windows that score highest.
fn worst_windows(all: &[Example], weights: &Weights, idf: &[f32], kept: usize) -> Vec<usize> {
    let mut chosen = Vec::new();
    for group in group_by_text(all) {
        let mut group: Vec<(f64, usize)> = group
            .map(|at| (weights.logit(&all[at].features, idf), at))
            .collect();
        if all[group[0].1].positive {
            group.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
            group.truncate(kept);
        }
        chosen.extend(group.into_iter().map(|(_, at)| at));
    }
    chosen.sort_unstable();
    chosen
}

fn group_by_text(all: &[Example]) -> impl Iterator<Item = std::ops::Range<usize>> {
    let mut start = 0;
    all.chunk_by(|a, b| a.text == b.text).map(move |group| {
        let range = start..start + group.len();
        start = range.end;
        range
    })
}

#[derive(Default)]
struct Weights {
    of: Vec<f64>,
    bias: f64,
}

impl Weights {
    fn logit(&self, features: &Features, idf: &[f32]) -> f64 {
        let (chars, words) = features.scales();
        let sum = |part: &[u32]| -> f64 {
            part.iter()
                .map(|at| self.of[*at as usize] * f64::from(idf[*at as usize]))
                .sum()
        };
        self.bias
            + chars * sum(&features.at[..features.chars])
            + words * sum(&features.at[features.chars..])
    }

    fn add(&mut self, features: &Features, idf: &[f32], amount: f64) {
        let (chars, words) = features.scales();
        for (index, at) in features.at.iter().enumerate() {
            let scale = if index < features.chars { chars } else { words };
            self.of[*at as usize] += amount * scale * f64::from(idf[*at as usize]);
        }
        self.bias += amount;
    }
}

fn squared_length(features: &Features, idf: &[f32]) -> f64 {
    let (chars, words) = features.scales();
    let sum = |part: &[u32]| -> f64 {
        part.iter()
            .map(|at| f64::from(idf[*at as usize]) * f64::from(idf[*at as usize]))
            .sum()
    };
    1.0 + chars * chars * sum(&features.at[..features.chars])
        + words * words * sum(&features.at[features.chars..])
}

/// The two dual variables of an example add up to its cost.
#[derive(Clone, Copy)]
pub(super) struct Dual {
    pub(super) this: f64,
    pub(super) other: f64,
}

fn fit(all: &[Example], chosen: &[usize], idf: &[f32], options: &TrainOptions) -> Weights {
    let mut weights = Weights {
        of: vec![0.0; options.recipe.places()],
        bias: 0.0,
    };
    // Features are long here (a few idf each), so the cost is scaled to unit length.
    let mean: f64 = chosen
        .iter()
        .map(|at| squared_length(&all[*at].features, idf))
        .sum::<f64>()
        / chosen.len().max(1) as f64;
    let mut duals: BTreeMap<usize, (Dual, f64, f64)> = BTreeMap::new();
    for at in chosen {
        let cost = options.cost * all[*at].weight / mean;
        let this = (0.001 * cost).min(1e-8);
        duals.insert(
            *at,
            (
                Dual {
                    this,
                    other: cost - this,
                },
                cost,
                squared_length(&all[*at].features, idf),
            ),
        );
        weights.add(&all[*at].features, idf, sign(&all[*at]) * this);
    }
    let mut order = chosen.to_vec();
    let mut rng = Rng(options.seed);
    for _ in 0..options.passes {
        rng.shuffle(&mut order);
        let mut moved = 0.0f64;
        for at in &order {
            let example = &all[*at];
            let Some((dual, cost, length)) = duals.get_mut(at) else {
                continue;
            };
            let margin = sign(example) * weights.logit(&example.features, idf);
            let step = solve(dual, *cost, *length, margin);
            if step != 0.0 {
                weights.add(&example.features, idf, sign(example) * step);
                moved = moved.max(step.abs() / *cost);
            }
        }
        if moved < 1e-3 {
            break;
        }
    }
    weights
}

fn sign(example: &Example) -> f64 {
    if example.positive { 1.0 } else { -1.0 }
}

/// One coordinate by Newton's method; returns how much the example's first variable grew.
pub(super) fn solve(dual: &mut Dual, cost: f64, length: f64, margin: f64) -> f64 {
    let flipped = 0.5 * length * (dual.other - dual.this) + margin < 0.0;
    let (old, direction) = if flipped {
        (dual.other, -1.0)
    } else {
        (dual.this, 1.0)
    };
    let mut z = if cost - old < 0.5 * cost {
        0.1 * old
    } else {
        old
    };
    let gradient = |z: f64| length * (z - old) + direction * margin + ln(z / (cost - z));
    let mut slope = gradient(z);
    for _ in 0..100 {
        if slope.abs() < 1e-6 {
            break;
        }
        let curvature = length + cost / (cost - z) / z;
        let next = z - slope / curvature;
        z = if next <= 0.0 {
            z * 0.1
        } else {
            next.min(cost * (1.0 - 1e-12))
        };
        slope = gradient(z);
    }
    let (new, rest) = (z, cost - z);
    *dual = if flipped {
        Dual {
            this: rest,
            other: new,
        }
    } else {
        Dual {
            this: new,
            other: rest,
        }
    };
    direction * (new - old)
}

fn quantise(weights: &Weights, idf: &[f32], texts: &[Labelled], options: &TrainOptions) -> Trained {
    let baked: Vec<f64> = weights
        .of
        .iter()
        .zip(idf)
        .map(|(weight, idf)| weight * f64::from(*idf))
        .collect();
    let largest = baked
        .iter()
        .fold(0.0f64, |largest, weight| largest.max(weight.abs()));
    // A rounded header number reads back exactly, whatever prints it.
    let largest = round_up(largest.max(1e-9));
    Trained {
        weights: baked
            .iter()
            .map(|weight| encode(*weight, largest))
            .collect(),
        header: LinearHeader {
            kind: "linear".to_owned(),
            task: options.task,
            name: options.name.clone(),
            recipe: options.recipe.clone(),
            bias: (weights.bias * 1e6).round() / 1e6,
            largest,
            many_windows: options.many_windows,
            japanese: 0.0,
            threshold: sigmoid(0.0) as f32,
            card: card(texts, options),
        },
    }
}

pub(super) fn round_up(x: f64) -> f64 {
    (x * 1e6).ceil() / 1e6
}

fn card(texts: &[Labelled], options: &TrainOptions) -> Card {
    let mut sources: BTreeMap<&str, CardSource> = BTreeMap::new();
    for text in texts {
        let source = sources.entry(&text.source).or_insert_with(|| CardSource {
            name: text.source.clone(),
            licence: text.licence.clone(),
            positive: 0,
            negative: 0,
        });
        if text.positive {
            source.positive += 1;
        } else {
            source.negative += 1;
        }
    }
    Card {
        trained_on: sources.into_values().collect(),
        training: format!(
            "logistic regression, dual coordinate descent: cost {}, balance {}, negative weight {}, \
             at most {} passes, {} rounds keeping {} windows, company {}, seed {}",
            options.cost,
            options.balance,
            options.negative_weight,
            options.passes,
            options.rounds,
            options.windows_kept,
            options.company,
            options.seed
        ),
        ..Card::default()
    }
}
