//! The linear classifier: hashed n-grams times weights of one byte each. A long text is scored
//! window by window and the worst window speaks for it.

use std::ops::Range;
use std::sync::OnceLock;

use base::Digest;
use serde::{Deserialize, Serialize};

use super::features::{Features, Recipe, extract, normalise};
use super::file::{self, BadModel, Card, Task};
use super::math::{ln, sigmoid};
use super::windows::windows;

/// Everything of a linear model's file but the weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinearHeader {
    /// Always `linear`.
    pub kind: String,
    /// What it looks for.
    pub task: Task,
    /// A name for people, such as `injection-1`.
    pub name: String,
    /// The features that the weights belong to.
    pub recipe: Recipe,
    /// The weight of a text without any feature.
    pub bias: f64,
    /// The weight that the byte 127 stands for; the others grow with the square.
    pub largest: f64,
    /// How much a long text must be worse than a short one: taken from the worst window's logit,
    /// times the logarithm of the number of windows.
    pub many_windows: f64,
    /// Added to the logit of a window in Japanese. Each language has its own features, and those
    /// of the language with fewer training texts have smaller weights; this makes one threshold
    /// mean the same in both.
    pub japanese: f64,
    /// A score from here on is a finding.
    pub threshold: f32,
    /// What it was made of.
    pub card: Card,
}

/// A linear classifier, ready to score.
#[derive(Debug, Clone)]
pub struct Linear {
    header: LinearHeader,
    /// What each byte stands for.
    values: Vec<f32>,
    weights: Vec<u8>,
    digest: Digest,
}

/// What a text scored, and where.
#[derive(Debug, Clone, PartialEq)]
pub struct Scored {
    /// 0 to 1.
    pub score: f32,
    /// Bytes of the window that scored highest.
    pub window: Range<usize>,
}

impl Linear {
    /// Reads a model's file.
    ///
    /// # Errors
    /// The bytes are not such a file, or one for features that this build does not compute.
    pub fn read(bytes: &[u8]) -> Result<Self, BadModel> {
        let (header, weights, digest) = file::read::<LinearHeader>(bytes)?;
        if header.kind != "linear" {
            return Err(BadModel(format!(
                "it is of kind {}, not linear",
                header.kind
            )));
        }
        let recipe = &header.recipe;
        if recipe.version != Recipe::VERSION
            || !(4..=24).contains(&recipe.hash_bits)
            || recipe.char_max > 8
            || recipe.pair_reach > 16
        {
            return Err(BadModel(
                "it needs features that this build does not compute".into(),
            ));
        }
        if weights.len() != recipe.places() {
            return Err(BadModel(format!(
                "it has {} weights where its recipe has {} places",
                weights.len(),
                recipe.places()
            )));
        }
        Ok(Self {
            values: (0..=255).map(|byte| decode(byte, header.largest)).collect(),
            weights: weights.to_vec(),
            digest,
            header,
        })
    }

    /// The model that is built in.
    pub fn shipped(task: Task) -> &'static Self {
        static MODELS: [OnceLock<Linear>; 2] = [OnceLock::new(), OnceLock::new()];
        let (slot, bytes): (_, &[u8]) = match task {
            Task::Injection => (&MODELS[0], include_bytes!("../../models/injection.bin")),
            Task::Toxicity => (&MODELS[1], include_bytes!("../../models/toxicity.bin")),
        };
        slot.get_or_init(|| match Self::read(bytes) {
            Ok(model) => model,
            Err(error) => unreachable!("the built-in {} model: {error}", task.name()),
        })
    }

    /// What the file says of itself.
    pub fn header(&self) -> &LinearHeader {
        &self.header
    }

    /// The identity of the file.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The score from which on a text is a finding.
    pub fn threshold(&self) -> f32 {
        self.header.threshold
    }

    /// 0 (surely not) to 1 (surely).
    pub fn score(&self, text: &str) -> f32 {
        self.scored(text).score
    }

    /// The score and the window that it is of.
    pub fn scored(&self, text: &str) -> Scored {
        let (logit, window) = self.logit(text);
        Scored {
            score: sigmoid(logit) as f32,
            window,
        }
    }

    /// The logit of a window whose features are there already.
    pub(super) fn logit_of(&self, normal: &str, features: &Features) -> f64 {
        if normal.chars().nth(1).is_none() {
            // One character alone says nothing, whatever its few features weigh.
            return -100.0;
        }
        let offset = if is_japanese(normal) {
            self.header.japanese
        } else {
            0.0
        };
        let (chars, words) = features.scales();
        let Features { at, chars: split } = features;
        self.header.bias
            + offset
            + chars * self.sum(&at[..*split])
            + words * self.sum(&at[*split..])
    }

    /// What a place of the features weighs.
    pub(super) fn weight(&self, place: usize) -> f64 {
        let byte = self.weights.get(place).copied().unwrap_or_default();
        f64::from(self.values[usize::from(byte)])
    }

    pub(super) fn logit(&self, text: &str) -> (f64, Range<usize>) {
        let windows = windows(text);
        let correction = self.header.many_windows * ln(windows.len().max(1) as f64);
        let mut best = (f64::NEG_INFINITY, 0..0);
        for window in windows {
            let logit = self.window_logit(&text[window.clone()]);
            if logit > best.0 {
                best = (logit, window);
            }
        }
        if best.0.is_finite() {
            (best.0 - correction, best.1)
        } else {
            (-100.0, 0..0)
        }
    }

    fn window_logit(&self, text: &str) -> f64 {
        let normal = normalise(text);
        self.logit_of(&normal, &extract(&self.header.recipe, &normal))
    }

    fn sum(&self, features: &[u32]) -> f64 {
        let weight = |at: &u32| f64::from(self.values[usize::from(self.weights[*at as usize])]);
        features.iter().map(weight).sum()
    }
}

/// One byte for a weight. Most weights are small and a few are large, so the steps grow with
/// the square: a linear scale would round most of the model away.
pub(super) fn encode(weight: f64, largest: f64) -> u8 {
    let share = (weight.abs() / largest).min(1.0).sqrt();
    let magnitude = (share * 127.0).round() as i8;
    (if weight < 0.0 { -magnitude } else { magnitude }) as u8
}

fn decode(byte: u8, largest: f64) -> f32 {
    let signed = f64::from(byte as i8) / 127.0;
    (signed * signed.abs() * largest) as f32
}

/// Whether at least a fifth of the letters of a text are kana or kanji.
pub(super) fn is_japanese(text: &str) -> bool {
    let letters = text.chars().filter(|c| c.is_alphanumeric());
    let (all, wide) = letters.fold((0usize, 0usize), |(all, wide), c| {
        let is_wide = matches!(c, '\u{3041}'..='\u{30ff}' | '\u{3400}'..='\u{9fff}');
        (all + 1, wide + usize::from(is_wide))
    });
    wide > 0 && wide * 5 >= all
}
