//! From logits to the next token.
//!
//! Penalties, temperature, `top_k`, `top_p`, `min_p`, then one draw. The draws of
//! a seeded request depend on nothing but its own logits: not on what else runs.

use std::cmp::Ordering;
use std::collections::HashMap;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::attention::exp;
use crate::request::Sampling;

/// Chooses tokens for one sequence.
#[derive(Debug)]
pub(crate) struct Sampler {
    sampling: Sampling,
    random: StdRng,
    /// Uses in prompt and answer, and in the answer alone.
    uses: HashMap<u32, Uses>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Uses {
    anywhere: u32,
    in_answer: u32,
}

/// A candidate and its probability, not normalised.
type Candidate = (u32, f32);

impl Sampler {
    /// `seed` is used where the request brings none.
    pub(crate) fn new(sampling: Sampling, prompt: &[u32], seed: u64) -> Self {
        let random = StdRng::seed_from_u64(sampling.seed.unwrap_or(seed));
        let mut uses: HashMap<u32, Uses> = HashMap::new();
        if penalises(&sampling) {
            for token in prompt {
                uses.entry(*token).or_default().anywhere += 1;
            }
        }
        Self {
            sampling,
            random,
            uses,
        }
    }

    /// Chooses the next token and remembers it for the penalties.
    pub(crate) fn choose(&mut self, logits: &mut [f32]) -> u32 {
        self.penalise(logits);
        let token = if self.sampling.temperature == 0.0 {
            likeliest(logits)
        } else {
            self.draw(logits)
        };
        if penalises(&self.sampling) {
            let uses = self.uses.entry(token).or_default();
            uses.anywhere += 1;
            uses.in_answer += 1;
        }
        token
    }

    fn penalise(&self, logits: &mut [f32]) {
        let s = &self.sampling;
        for (token, uses) in &self.uses {
            let Some(logit) = logits.get_mut(*token as usize) else {
                continue;
            };
            let repeated = if *logit > 0.0 {
                *logit / s.repetition_penalty
            } else {
                *logit * s.repetition_penalty
            };
            *logit = repeated - s.frequency_penalty * uses.in_answer as f32;
            if uses.in_answer > 0 {
                *logit -= s.presence_penalty;
            }
        }
    }

    fn draw(&mut self, logits: &[f32]) -> u32 {
        let mut candidates = self.candidates(logits);
        let least = candidates.first().map_or(0.0, |c| c.1) * self.sampling.min_p;
        candidates.retain(|candidate| candidate.1 >= least);
        let total: f64 = candidates.iter().map(|c| f64::from(c.1)).sum();
        let mut left = self.random.random::<f64>() * total;
        for (token, share) in &candidates {
            left -= f64::from(*share);
            if left < 0.0 {
                return *token;
            }
        }
        // Rounding can leave a hair over; logits that are not numbers leave nothing at all.
        candidates.last().map_or_else(|| likeliest(logits), |c| c.0)
    }

    /// What `top_k` and `top_p` leave, likeliest first.
    fn candidates(&self, logits: &[f32]) -> Vec<Candidate> {
        let top = logits.iter().fold(f32::NEG_INFINITY, |a, b| a.max(*b));
        let inverse = 1.0 / self.sampling.temperature;
        let mut all: Vec<Candidate> = logits
            .iter()
            .enumerate()
            .map(|(i, l)| (i as u32, exp((l - top) * inverse)))
            .collect();
        if self.sampling.top_k > 0 {
            keep_largest(&mut all, self.sampling.top_k);
        }
        let total: f64 = all.iter().map(|c| f64::from(c.1)).sum();
        let wanted = total * f64::from(self.sampling.top_p);
        // Most of the vocabulary has next to no share: look at a few first.
        let mut count = 256;
        loop {
            let whole = count >= all.len();
            let mut few = all.clone();
            keep_largest(&mut few, count);
            let mut sum = 0.0;
            for (index, candidate) in few.iter().enumerate() {
                sum += f64::from(candidate.1);
                if sum >= wanted && self.sampling.top_p < 1.0 {
                    few.truncate(index + 1);
                    return few;
                }
            }
            if whole {
                return few;
            }
            count = if self.sampling.top_p < 1.0 {
                count * 8
            } else {
                all.len()
            };
        }
    }
}

fn penalises(sampling: &Sampling) -> bool {
    sampling.repetition_penalty != 1.0
        || sampling.frequency_penalty != 0.0
        || sampling.presence_penalty != 0.0
}

/// Keeps the `count` largest, in falling order; equal ones in token order, so that a seed
/// gives the same draw everywhere.
fn keep_largest(candidates: &mut Vec<Candidate>, count: usize) {
    let order = |a: &Candidate, b: &Candidate| {
        b.1.partial_cmp(&a.1)
            .unwrap_or(Ordering::Equal)
            .then(a.0.cmp(&b.0))
    };
    if count < candidates.len() {
        candidates.select_nth_unstable_by(count - 1, order);
        candidates.truncate(count);
    }
    candidates.sort_unstable_by(order);
}

/// The token with the largest logit, the first of equals.
pub(crate) fn likeliest(logits: &[f32]) -> u32 {
    let mut best = (0, f32::NEG_INFINITY);
    for (index, logit) in logits.iter().enumerate() {
        if *logit > best.1 {
            best = (index as u32, *logit);
        }
    }
    best.0
}

/// ln of the sum of e^logit, which turns logits into log-probabilities.
pub(crate) fn log_sum(logits: &[f32]) -> f32 {
    let top = logits.iter().fold(f32::NEG_INFINITY, |a, b| a.max(*b));
    let sum: f64 = logits.iter().map(|l| f64::from(exp(l - top))).sum();
    top + sum.ln() as f32
}

/// The `count` largest logits with their tokens, in falling order.
pub(crate) fn largest(logits: &[f32], count: usize) -> Vec<(u32, f32)> {
    let mut all: Vec<Candidate> = logits
        .iter()
        .enumerate()
        .map(|(i, l)| (i as u32, *l))
        .collect();
    if count == 0 {
        return Vec::new();
    }
    keep_largest(&mut all, count);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draws(sampling: Sampling, logits: &[f32], count: usize) -> Vec<u32> {
        let mut sampler = Sampler::new(sampling, &[], 0);
        (0..count)
            .map(|_| sampler.choose(&mut logits.to_vec()))
            .collect()
    }

    fn seeded(seed: u64) -> Sampling {
        Sampling {
            seed: Some(seed),
            ..Sampling::default()
        }
    }

    #[test]
    fn a_seed_repeats_and_another_differs() {
        let logits: Vec<f32> = (0..500).map(|i| (i as f32 * 0.7).sin()).collect();
        assert_eq!(draws(seeded(1), &logits, 50), draws(seeded(1), &logits, 50));
        assert_ne!(draws(seeded(1), &logits, 50), draws(seeded(2), &logits, 50));
    }

    #[test]
    fn draws_follow_the_probabilities() {
        // ln 6, ln 3, ln 1: shares 0.6, 0.3, 0.1.
        let logits = [6f32.ln(), 3f32.ln(), 0.0];
        let drawn = draws(seeded(7), &logits, 20_000);
        for (token, share) in [(0, 0.6), (1, 0.3), (2, 0.1)] {
            let seen = drawn.iter().filter(|d| **d == token).count() as f64 / 20_000.0;
            // Five standard deviations of a share of 20,000 draws are below 0.018.
            assert!((seen - share).abs() < 0.018, "token {token}: {seen}");
        }
    }

    #[test]
    fn the_filters_leave_only_what_they_should() {
        let logits = [6f32.ln(), 3f32.ln(), 0.0, -20.0];
        let seen = |sampling: Sampling| {
            let mut tokens = draws(sampling, &logits, 3_000);
            tokens.sort_unstable();
            tokens.dedup();
            tokens
        };
        assert_eq!(
            seen(Sampling {
                top_k: 2,
                ..seeded(3)
            }),
            [0, 1]
        );
        assert_eq!(
            seen(Sampling {
                top_p: 0.59,
                ..seeded(3)
            }),
            [0]
        );
        assert_eq!(
            seen(Sampling {
                top_p: 0.7,
                ..seeded(3)
            }),
            [0, 1]
        );
        assert_eq!(
            seen(Sampling {
                min_p: 0.4,
                ..seeded(3)
            }),
            [0, 1]
        );
        assert_eq!(
            seen(Sampling {
                temperature: 0.01,
                ..seeded(3)
            }),
            [0]
        );
        assert_eq!(
            seen(Sampling {
                temperature: 0.0,
                ..seeded(3)
            }),
            [0]
        );
        assert_eq!(seen(seeded(3)), [0, 1, 2]);
    }

    #[test]
    fn penalties_push_used_tokens_down() {
        let logits = [2.0, 1.9, -1.0];
        let greedy = |sampling: Sampling, prompt: &[u32]| {
            let mut sampler = Sampler::new(
                Sampling {
                    temperature: 0.0,
                    ..sampling
                },
                prompt,
                0,
            );
            (0..3)
                .map(|_| sampler.choose(&mut logits.to_vec()))
                .collect::<Vec<_>>()
        };
        let base = Sampling::default();
        assert_eq!(greedy(base.clone(), &[0]), [0, 0, 0]);
        // The prompt counts for repetition only.
        assert_eq!(
            greedy(
                Sampling {
                    repetition_penalty: 1.2,
                    ..base.clone()
                },
                &[0]
            ),
            [1, 0, 0]
        );
        assert_eq!(
            greedy(
                Sampling {
                    presence_penalty: 0.5,
                    ..base.clone()
                },
                &[0]
            ),
            [0, 1, 0]
        );
        assert_eq!(
            greedy(
                Sampling {
                    frequency_penalty: 2.0,
                    ..base
                },
                &[0]
            ),
            [0, 1, 0]
        );
    }

    #[test]
    fn log_probabilities_sum_to_one() {
        let logits: Vec<f32> = (0..300).map(|i| (i as f32 * 1.3).cos() * 4.0).collect();
        let sum: f32 = logits.iter().map(|l| (l - log_sum(&logits)).exp()).sum();
        assert!((sum - 1.0).abs() < 1e-4, "{sum}");
        assert_eq!(largest(&[1.0, 3.0, 2.0], 2), [(1, 3.0), (2, 2.0)]);
    }
}
