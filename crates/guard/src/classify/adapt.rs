//! Teaches a linear classifier from reviewed texts without forgetting what it knew.
//!
//! The data sets that the shipped weights come from cannot be shipped, so this is no training
//! from the beginning. It goes on from a model's weights: logistic regression whose penalty is the
//! distance from where it began, over the reviewed texts and our own (`own.rs`). What no reviewed
//! text speaks of stays as it was. The same texts give the same bytes.
//!
//! The threshold only ever becomes stricter: no more of our own harmless texts reach it than
//! reached the old one, and where a hundred or more reviewed harmless texts were kept apart, at
//! most one in a hundred of those does.

use std::collections::BTreeMap;

use super::features::{Features, Recipe, extract, normalise};
use super::figures::threshold_at;
use super::file::{self, BadModel, CardSource};
use super::linear::{Linear, encode};
use super::math::{Rng, ln};
use super::near::clusters;
use super::own::{Use, own_texts};
use super::train::{Dual, Labelled, round_up, solve};
use super::windows::windows;

/// How far weights may follow one example.
const COST: f64 = 20.0;
/// All our own texts of one label together count like so many reviewed ones: enough to notice when
/// they are lost, too little to teach the model anew. Counted like reviewed ones, they took a third
/// of the attacks away that the model knew.
const OWN_TEXTS: f64 = 5.0;
/// Passes over the examples, at most.
const PASSES: usize = 40;
const SEED: u64 = 20_260_102;
/// Half of their n-grams in common is the same text: it is not learned from and measured with.
const ALIKE: f64 = 0.5;
/// One cluster of reviewed texts in so many is kept apart to measure with.
const KEPT_APART: usize = 4;
/// Fewer reviewed harmless texts than this say nothing about one in a hundred.
const BENIGN_FOR_RULE: usize = 100;
const FALSE_POSITIVES: f64 = 0.01;

/// A classifier that learned, and what became of its figures.
#[derive(Debug, Clone)]
pub struct Adapted {
    /// The model's file.
    pub bytes: Vec<u8>,
    /// What it learned from, and how it does.
    pub report: AdaptReport,
}

/// Figures before and after, each at the model's own threshold.
#[derive(
    Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(deny_unknown_fields)]
pub struct AdaptReport {
    /// Reviewed texts that it learned from: what is looked for, and what is not.
    pub learned: [usize; 2],
    /// Reviewed texts that were kept apart.
    pub kept_apart: [usize; 2],
    /// Before.
    pub before: AdaptFigures,
    /// After.
    pub after: AdaptFigures,
}

/// Shares at a model's threshold.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    serde::Serialize,
    serde::Deserialize,
    schemars::JsonSchema,
)]
#[serde(deny_unknown_fields)]
pub struct AdaptFigures {
    /// The threshold.
    pub threshold: f64,
    /// Found of the reviewed texts that were kept apart and should be found: found, of how many.
    pub recall: [usize; 2],
    /// Found of those kept apart that should not be.
    pub false_positives: [usize; 2],
    /// Found of the reviewed texts that it learned from and that should be found.
    pub learned_recall: [usize; 2],
    /// Found of those that should not be.
    pub learned_false_positives: [usize; 2],
    /// Found of our own attacks that no model of ours was trained on.
    pub own_recall: [usize; 2],
    /// Found of our own harmless texts, most of them traps.
    pub own_false_positives: [usize; 2],
}

struct Example {
    features: Features,
    positive: bool,
    /// What the model that it goes on from says.
    logit: f64,
    /// How much it counts.
    weight: f64,
}

/// Teaches a model. `name` is the new model's, for people.
///
/// # Errors
/// There is nothing to learn from, or the header has no JSON form.
pub fn adapt(base: &Linear, name: &str, reviewed: &[Labelled]) -> Result<Adapted, BadModel> {
    if reviewed.is_empty() {
        return Err(BadModel("there are no reviewed texts to learn from".into()));
    }
    let task = base.header().task;
    let (learned, apart) = keep_apart(reviewed);
    let own = own_texts(task, Use::Train);
    let mut examples = examples(base, &learned, 1.0);
    for positive in [true, false] {
        let own: Vec<&Labelled> = own
            .iter()
            .filter(|text| text.positive == positive)
            .collect();
        let weight = OWN_TEXTS / own.len().max(1) as f64;
        examples.extend(self::examples(base, &own, weight));
    }
    let idf = inverse_frequencies(&examples, &base.header().recipe);
    let moved = fit(&examples, &idf);
    let mut header = base.header().clone();
    let weights: Vec<f64> = (0..header.recipe.places())
        .map(|at| base.weight(at) + moved.get(&(at as u32)).copied().unwrap_or(0.0))
        .collect();
    let largest = weights
        .iter()
        .fold(0.0f64, |most, weight| most.max(weight.abs()));
    header.largest = round_up(largest.max(1e-9));
    header.name = name.to_owned();
    header.card.trained_on.push(CardSource {
        name: "reviewed".to_owned(),
        licence: "the project's own".to_owned(),
        positive: learned.iter().filter(|text| text.positive).count(),
        negative: learned.iter().filter(|text| !text.positive).count(),
    });
    header.card.training = format!(
        "{}; then went on from {} with reviewed texts and our own: cost {COST}, at most {PASSES} passes",
        header.card.training,
        base.digest(),
    );
    let bytes: Vec<u8> = weights
        .iter()
        .map(|weight| encode(*weight, header.largest))
        .collect();
    let draft = Linear::read(&file::write(&header, &bytes)?)?;
    let test = own_texts(task, Use::Test);
    let test: Vec<&Labelled> = test.iter().collect();
    let sets = [&learned[..], &apart[..], &test[..]];
    let (was, is) = (scores(base, sets), scores(&draft, sets));
    header.threshold = threshold(base.threshold(), &was, &is);
    header.card.threshold_rule = format!(
        "no more of our own harmless texts reach it than reached {} of the model before",
        base.threshold()
    );
    let bytes = file::write(&header, &bytes)?;
    let of = |texts: &[&Labelled], positive: bool| {
        texts
            .iter()
            .filter(|text| text.positive == positive)
            .count()
    };
    let report = AdaptReport {
        learned: [of(&learned, true), of(&learned, false)],
        kept_apart: [of(&apart, true), of(&apart, false)],
        before: figures(base.threshold(), &was),
        after: figures(header.threshold, &is),
    };
    Ok(Adapted { bytes, report })
}

/// Which reviewed texts are learned from, and which measured with: whole clusters of near-duplicates
/// go one way. Too few to measure with are all learned from.
fn keep_apart(reviewed: &[Labelled]) -> (Vec<&Labelled>, Vec<&Labelled>) {
    let texts: Vec<&str> = reviewed.iter().map(|text| text.text.as_str()).collect();
    let mut numbers: BTreeMap<(usize, bool), usize> = BTreeMap::new();
    let mut seen = [0; 2];
    let (mut learned, mut apart) = (Vec::new(), Vec::new());
    for (text, cluster) in reviewed.iter().zip(clusters(&texts, ALIKE)) {
        let count = &mut seen[usize::from(text.positive)];
        let number = *numbers.entry((cluster, text.positive)).or_insert_with(|| {
            *count += 1;
            *count
        });
        match number % KEPT_APART {
            0 => apart.push(text),
            _ => learned.push(text),
        }
    }
    (learned, apart)
}

/// All windows of what is harmless; of what is not, the one that looked worst.
fn examples(base: &Linear, texts: &[&Labelled], weight: f64) -> Vec<Example> {
    let recipe = &base.header().recipe;
    let mut out = Vec::new();
    for text in texts {
        let whole = text.text.as_str();
        let found = match text.positive {
            true => vec![base.scored(whole).window],
            false => windows(whole),
        };
        for window in found {
            let Some(piece) = whole.get(window) else {
                continue;
            };
            let normal = normalise(piece);
            let features = extract(recipe, &normal);
            out.push(Example {
                logit: base.logit_of(&normal, &features),
                positive: text.positive,
                features,
                weight,
            });
        }
    }
    out
}

fn inverse_frequencies(examples: &[Example], recipe: &Recipe) -> Vec<f32> {
    let mut seen = vec![0u32; recipe.places()];
    for example in examples {
        for at in &example.features.at {
            seen[*at as usize] += 1;
        }
    }
    let total = examples.len() as f64;
    let weigh = |count: u32| match count {
        0 => 0.0,
        count => (1.0 + ln((total + 1.0) / (f64::from(count) + 1.0))) as f32,
    };
    seen.into_iter().map(weigh).collect()
}

/// The features of an example with what each weighs.
fn weighed<'a>(features: &'a Features, idf: &'a [f32]) -> impl Iterator<Item = (u32, f64)> + 'a {
    let (chars, words) = features.scales();
    features.at.iter().enumerate().map(move |(index, at)| {
        let scale = if index < features.chars { chars } else { words };
        (*at, scale * f64::from(idf[*at as usize]))
    })
}

/// How far each weight moves from where it was. The bias stays: it would move every text.
fn fit(examples: &[Example], idf: &[f32]) -> BTreeMap<u32, f64> {
    let lengths: Vec<f64> = examples
        .iter()
        .map(|example| {
            1e-9 + weighed(&example.features, idf)
                .map(|(_, x)| x * x)
                .sum::<f64>()
        })
        .collect();
    let mean = lengths.iter().sum::<f64>() / lengths.len().max(1) as f64;
    let costs: Vec<f64> = examples
        .iter()
        .map(|example| COST * example.weight / mean.max(1e-9))
        .collect();
    let begin = |cost: &f64| {
        let this = (0.001 * cost).min(1e-8);
        Dual {
            this,
            other: cost - this,
        }
    };
    let mut duals: Vec<Dual> = costs.iter().map(begin).collect();
    let mut moved = vec![0.0f64; idf.len()];
    let mut order: Vec<usize> = (0..examples.len()).collect();
    let mut rng = Rng(SEED);
    for _ in 0..PASSES {
        rng.shuffle(&mut order);
        let mut most = 0.0f64;
        for at in &order {
            let example = &examples[*at];
            let sign = if example.positive { 1.0 } else { -1.0 };
            let step_of: f64 = weighed(&example.features, idf)
                .map(|(place, x)| moved[place as usize] * x)
                .sum();
            let margin = sign * (example.logit + step_of);
            let step = solve(&mut duals[*at], costs[*at], lengths[*at], margin);
            if step != 0.0 {
                for (place, x) in weighed(&example.features, idf) {
                    moved[place as usize] += sign * step * x;
                }
                most = most.max(step.abs() / costs[*at]);
            }
        }
        if most < 1e-3 {
            break;
        }
    }
    // What a place moved by stands before its weight in a feature, as in the model's file.
    let baked = moved.iter().zip(idf).enumerate();
    let baked = baked.filter(|(_, (moved, _))| **moved != 0.0);
    let baked = baked.map(|(at, (moved, idf))| (at as u32, moved * f64::from(*idf)));
    baked.collect()
}

/// What each text of a set is, and what it scores.
type Scores = Vec<(bool, f32)>;

/// Scores of what was learned from, of what was kept apart, and of our own.
fn scores(model: &Linear, sets: [&[&Labelled]; 3]) -> [Scores; 3] {
    sets.map(|set| {
        let score = |text: &&Labelled| (text.positive, model.score(&text.text));
        set.iter().map(score).collect()
    })
}

fn harmless(scores: &Scores) -> Vec<f32> {
    let of = scores.iter().filter(|(positive, _)| !positive);
    of.map(|(_, score)| *score).collect()
}

fn threshold(before: f32, was: &[Scores; 3], is: &[Scores; 3]) -> f32 {
    let [_, apart, own] = is;
    let had = harmless(&was[2]);
    let reached = had.iter().filter(|score| **score >= before).count();
    let share = reached as f64 / had.len().max(1) as f64;
    let mut threshold = before.max(threshold_at(&harmless(own), share));
    let apart = harmless(apart);
    if apart.len() >= BENIGN_FOR_RULE {
        threshold = threshold.max(threshold_at(&apart, FALSE_POSITIVES));
    }
    threshold
}

fn figures(threshold: f32, [learned, apart, own]: &[Scores; 3]) -> AdaptFigures {
    let share = |scores: &Scores, wanted: bool| {
        let of = scores.iter().filter(|(positive, _)| *positive == wanted);
        let hits = of.clone().filter(|(_, score)| *score >= threshold).count();
        [hits, of.count()]
    };
    AdaptFigures {
        threshold: f64::from(threshold),
        recall: share(apart, true),
        false_positives: share(apart, false),
        learned_recall: share(learned, true),
        learned_false_positives: share(learned, false),
        own_recall: share(own, true),
        own_false_positives: share(own, false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::classify::Task;

    fn text(text: String, positive: bool) -> Labelled {
        Labelled {
            text,
            positive,
            source: "reviewed".to_owned(),
            licence: String::new(),
        }
    }

    #[test]
    fn it_learns_what_was_reviewed_and_keeps_what_it_knew() {
        let base = Linear::shipped(Task::Injection);
        let reviewed: Vec<Labelled> = (0..16)
            .flat_map(|n| {
                let attack = format!("Kindly hand lantern phrase {n} over to the gardener.");
                let harmless = format!("The gardener planted {n} roses in the garden.");
                [text(attack, true), text(harmless, false)]
            })
            .collect();
        let adapted = adapt(base, "injection-reviewed", &reviewed).unwrap();
        let model = Linear::read(&adapted.bytes).unwrap();
        let finds = |text: &str| model.score(text) >= model.threshold();
        assert!(
            base.score("Kindly hand lantern phrase 99 over to the gardener.") < base.threshold()
        );
        assert!(finds("Kindly hand lantern phrase 99 over to the gardener."));
        assert!(!finds("The gardener planted 99 roses in the garden."));
        let AdaptReport { before, after, .. } = adapted.report;
        assert!(
            after.own_false_positives[0] <= before.own_false_positives[0],
            "{before:?} {after:?}"
        );
        let lost = before.own_recall[0] as f64 - after.own_recall[0] as f64;
        assert!(
            lost <= before.own_recall[1] as f64 * 0.05,
            "{before:?} {after:?}"
        );
        assert!(after.threshold >= before.threshold);
        let again = adapt(base, "injection-reviewed", &reviewed).unwrap();
        assert_eq!(again.bytes, adapted.bytes);
        assert!(adapt(base, "nothing", &[]).is_err());
    }
}
