//! The search's decisions: whose child comes next, on which examples, what is better, what
//! is worth merging. Pure functions of what was found so far and the seed, so that whoever
//! takes a search over decides the same.
//!
//! A score that is not known (the answer failed, or an evaluator did) never counts for or
//! against anybody: two texts are compared on the examples that both have a score on.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::begin::{draw, order};

/// Differences below this are the rounding of sums.
const EPSILON: f64 = 1e-9;
/// Merges that are tried in one search.
pub(super) const MOST_MERGES: usize = 5;

/// Scores of one text, by place.
pub(super) type Scores = HashMap<i64, f64>;

/// A text that was accepted.
#[derive(Debug, Clone)]
pub(super) struct Member {
    pub number: i64,
    pub parent: Option<i64>,
    pub other: Option<i64>,
}

/// Everything that is known.
pub(super) struct Known<'a> {
    pub seed: u64,
    pub members: &'a [Member],
    pub scores: &'a HashMap<i64, Scores>,
    pub selection: &'a [i64],
    pub train: &'a [i64],
}

impl Known<'_> {
    fn score(&self, number: i64, place: i64) -> Option<f64> {
        self.scores.get(&number)?.get(&place).copied()
    }

    /// By member: the selection examples on which nobody is better.
    pub(super) fn wins(&self) -> BTreeMap<i64, Vec<i64>> {
        let mut wins: BTreeMap<i64, Vec<i64>> = self
            .members
            .iter()
            .map(|member| (member.number, Vec::new()))
            .collect();
        for place in self.selection {
            let known = || {
                let members = self.members.iter();
                members
                    .filter_map(|member| Some((member.number, self.score(member.number, *place)?)))
            };
            let Some(best) = known().map(|(_, score)| score).reduce(f64::max) else {
                continue;
            };
            for (number, _) in known().filter(|(_, score)| *score >= best - EPSILON) {
                wins.entry(number).or_default().push(*place);
            }
        }
        wins
    }

    /// The members that nobody dominates, each with the examples that it wins: a member whose
    /// every win is also somebody else's is left out, the weakest first.
    pub(super) fn frontier(&self) -> BTreeMap<i64, Vec<i64>> {
        let mut left = self.wins();
        left.retain(|_, places| !places.is_empty());
        let mut weakest: Vec<i64> = left.keys().copied().collect();
        weakest.sort_by(|a, b| self.gain(*a).total_cmp(&self.gain(*b)).then(b.cmp(a)));
        for number in weakest {
            let Some(own) = left.get(&number) else {
                continue;
            };
            let covered = own.iter().all(|place| {
                let mut others = left.iter();
                others.any(|(other, places)| *other != number && places.contains(place))
            });
            if covered {
                left.remove(&number);
            }
        }
        left
    }

    /// The parent of the next text: drawn from the frontier, the more examples it wins the
    /// likelier.
    pub(super) fn parent(&self, step: i64) -> i64 {
        let frontier = self.frontier();
        let tickets: Vec<i64> = frontier
            .iter()
            .flat_map(|(number, places)| places.iter().map(|_| *number))
            .collect();
        let at = draw(self.seed, &format!("parent/{step}"), tickets.len());
        tickets.get(at).copied().unwrap_or(0)
    }

    /// The training examples for a parent's next child: those that it is not known to be
    /// perfect at, drawn anew for every step.
    pub(super) fn minibatch(
        &self,
        parent: i64,
        step: i64,
        size: usize,
        perfect: Option<f64>,
    ) -> Vec<i64> {
        let is_perfect = |place: i64| {
            perfect.is_some_and(|most| {
                self.score(parent, place)
                    .is_some_and(|score| score >= most - EPSILON)
            })
        };
        let mut places: Vec<i64> = self
            .train
            .iter()
            .copied()
            .filter(|place| !is_perfect(*place))
            .collect();
        places.sort_by_key(|place| order(self.seed, &format!("minibatch/{step}/{place}")));
        places.truncate(size);
        places.sort_unstable();
        places
    }

    /// How much better a text is than the one that the search began with, summed over the
    /// selection examples that both have a score on.
    pub(super) fn gain(&self, number: i64) -> f64 {
        let places = self.selection.iter();
        let gains =
            places.filter_map(|place| Some(self.score(number, *place)? - self.score(0, *place)?));
        gains.sum()
    }

    /// The best text so far; the earliest of equal ones.
    pub(super) fn best(&self) -> i64 {
        let mut best = (0, 0.0);
        for member in self.members {
            let gain = self.gain(member.number);
            if gain > best.1 + EPSILON {
                best = (member.number, gain);
            }
        }
        best.0
    }

    /// Whether a text is perfect at every selection example.
    pub(super) fn is_perfect(&self, number: i64, perfect: Option<f64>) -> bool {
        perfect.is_some_and(|most| {
            let mut places = self.selection.iter();
            places.all(|place| {
                self.score(number, *place)
                    .is_some_and(|score| score >= most - EPSILON)
            })
        })
    }

    /// Two texts of the frontier that are good at different examples, with the one that both
    /// come from; none of the pairs that were tried.
    pub(super) fn mergeable(
        &self,
        tried: &HashSet<(i64, i64)>,
        step: i64,
    ) -> Option<(i64, i64, i64)> {
        let frontier: Vec<i64> = self.frontier().into_keys().collect();
        let mut pairs: Vec<(i64, i64, i64)> = Vec::new();
        for (index, one) in frontier.iter().enumerate() {
            for other in frontier.iter().skip(index + 1) {
                if tried.contains(&(*one, *other)) || !self.differ(*one, *other) {
                    continue;
                }
                let (of_one, of_other) = (self.ancestors(*one), self.ancestors(*other));
                if of_one.contains(other) || of_other.contains(one) {
                    continue;
                }
                let common = of_one
                    .iter()
                    .copied()
                    .filter(|a| of_other.contains(a))
                    .max();
                if let Some(common) = common {
                    pairs.push((*one, *other, common));
                }
            }
        }
        let at = draw(self.seed, &format!("merge/{step}"), pairs.len());
        pairs.get(at).copied()
    }

    /// Whether each of two texts is better than the other somewhere.
    fn differ(&self, one: i64, other: i64) -> bool {
        let better = |a: i64, b: i64| {
            self.selection.iter().any(|place| {
                match (self.score(a, *place), self.score(b, *place)) {
                    (Some(a), Some(b)) => a > b + EPSILON,
                    _ => false,
                }
            })
        };
        better(one, other) && better(other, one)
    }

    fn ancestors(&self, number: i64) -> HashSet<i64> {
        let mut found = HashSet::new();
        let mut open = vec![number];
        while let Some(next) = open.pop() {
            let member = self.members.iter().find(|member| member.number == next);
            let parents = member
                .into_iter()
                .flat_map(|member| [member.parent, member.other]);
            for parent in parents.flatten() {
                if found.insert(parent) {
                    open.push(parent);
                }
            }
        }
        found
    }

    /// The selection examples that a merge is tried on first: where its parents differ, from
    /// both sides.
    pub(super) fn merge_places(&self, one: i64, other: i64, size: usize) -> Vec<i64> {
        let lead = |place: i64| Some(self.score(one, place)? - self.score(other, place)?);
        let (mut ahead, mut behind) = (Vec::new(), Vec::new());
        for place in self.selection {
            match lead(*place) {
                Some(lead) if lead > EPSILON => ahead.push(*place),
                Some(lead) if lead < -EPSILON => behind.push(*place),
                _ => {}
            }
        }
        let mut places: Vec<i64> = ahead
            .into_iter()
            .take(size)
            .chain(behind.into_iter().take(size))
            .collect();
        places.sort_unstable();
        places
    }
}

/// The sums of two texts over the examples that both have a score on; none without one.
pub(super) fn sums(before: &Scores, after: &Scores, places: &[i64]) -> Option<(f64, f64)> {
    let pairs = places
        .iter()
        .filter_map(|place| Some((*before.get(place)?, *after.get(place)?)));
    pairs.reduce(|sum, pair| (sum.0 + pair.0, sum.1 + pair.1))
}

/// Whether the second sum is really larger.
pub(super) fn is_more(before: f64, after: f64) -> bool {
    after > before + EPSILON
}
