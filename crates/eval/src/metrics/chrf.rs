//! chrF and chrF++ as sacreBLEU 2.6.0 computes them: an F score over n-grams of characters, and for
//! chrF++ of words, from counts that add up over rows. Needs no tokeniser, so it is the safest of
//! the overlap metrics for Japanese.

use super::ngrams::{AllOrders, Words};
use crate::text::{is_space, split};

/// Highest order of character n-grams: six characters of 21 bits fit into one key.
pub const MAX_CHARACTER_ORDER: usize = 6;
/// Highest order of word n-grams.
pub const MAX_WORD_ORDER: usize = 4;

/// chrF with its settings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Chrf {
    /// Orders of character n-grams.
    pub character_order: usize,
    /// Orders of word n-grams; 2 makes it chrF++.
    pub word_order: usize,
    /// How much more recall counts than precision.
    pub beta: u32,
    /// Lower case before counting.
    pub lowercase: bool,
    /// Count white space as characters.
    pub whitespace: bool,
    /// Average F over the orders, with tiny numbers for empty ones, instead of F of the averages.
    pub epsilon_smoothing: bool,
}

impl Default for Chrf {
    fn default() -> Chrf {
        Chrf {
            character_order: MAX_CHARACTER_ORDER,
            word_order: 0,
            beta: 2,
            lowercase: false,
            whitespace: false,
            epsilon_smoothing: false,
        }
    }
}

/// The n-grams of a text.
struct Grams {
    characters: AllOrders,
    words: AllOrders,
}

impl Chrf {
    /// As sacreBLEU prints it.
    pub fn signature(&self, references: Option<usize>) -> String {
        let references = references.map_or_else(|| "var".to_owned(), |count| count.to_string());
        format!("nrefs:{references}|{}", self.settings())
    }

    /// The signature without the number of references.
    pub(super) fn settings(&self) -> String {
        let beta = match self.beta {
            2 => String::new(),
            beta => format!("beta:{beta}|"),
        };
        format!(
            "case:{}|eff:{}|nc:{}|nw:{}|space:{}|{beta}version:2.6.0",
            if self.lowercase { "lc" } else { "mixed" },
            if self.epsilon_smoothing { "no" } else { "yes" },
            self.character_order,
            self.word_order,
            if self.whitespace { "yes" } else { "no" },
        )
    }

    /// Counts of one row, against the reference that gives the best score: for each order the
    /// n-grams of the answer, of the reference, and in both.
    pub fn statistics(&self, output: &str, references: &[String]) -> Vec<u64> {
        let prepared = |text: &str| {
            if self.lowercase {
                text.to_lowercase()
            } else {
                text.to_owned()
            }
        };
        let output = prepared(output);
        let references: Vec<String> = references.iter().map(|text| prepared(text)).collect();
        let mut words = Words::default();
        let of_output = self.grams(&output, &mut words);
        let mut best: Option<(f64, Vec<u64>)> = None;
        for reference in &references {
            let statistics = self.compare(&of_output, &self.grams(reference, &mut words));
            let score = self.score(&statistics);
            if best.as_ref().is_none_or(|(most, _)| score > *most) {
                best = Some((score, statistics));
            }
        }
        best.map_or_else(|| vec![0; self.orders() * 3], |(_, statistics)| statistics)
    }

    fn orders(&self) -> usize {
        self.character_order + self.word_order
    }

    fn grams<'a>(&self, text: &'a str, words: &mut Words<'a>) -> Grams {
        let characters: Vec<u32> = text
            .chars()
            .filter(|c| self.whitespace || !is_space(*c))
            .map(|c| u32::from(c) + 1)
            .collect();
        let numbers = match self.word_order {
            0 => Vec::new(),
            _ => words.numbers(split(text).flat_map(cut_punctuation)),
        };
        Grams {
            characters: AllOrders::new(&characters, self.character_order, 21),
            words: AllOrders::new(&numbers, self.word_order, 32),
        }
    }

    /// For each order, characters first: the n-grams of the answer, of the reference, and in both.
    fn compare(&self, output: &Grams, reference: &Grams) -> Vec<u64> {
        let counts = |output: &AllOrders, reference: &AllOrders, order: usize| {
            let of_reference = reference.count(order);
            // An order that the reference is too short for does not count against the answer.
            let of_output = match of_reference {
                0 => 0,
                _ => output.count(order),
            };
            [of_output, of_reference, output.overlap(reference, order)]
        };
        let characters = (1..=self.character_order)
            .flat_map(|order| counts(&output.characters, &reference.characters, order));
        let words =
            (1..=self.word_order).flat_map(|order| counts(&output.words, &reference.words, order));
        characters.chain(words).collect()
    }

    /// The score of counts, 0 to 100.
    pub fn score(&self, statistics: &[u64]) -> f64 {
        const TINY: f64 = 1e-16;
        let factor = f64::from(self.beta).powi(2);
        let (mut summed, mut precision, mut recall) = (0.0, 0.0, 0.0);
        let mut counted = 0.0;
        for order in statistics.chunks_exact(3) {
            let (of_output, of_reference, shared) = (order[0], order[1], order[2]);
            let share = |total: u64| {
                if total > 0 {
                    shared as f64 / total as f64
                } else {
                    TINY
                }
            };
            let (p, r) = (share(of_output), share(of_reference));
            let below = factor * p + r;
            summed += if below > 0.0 {
                (1.0 + factor) * p * r / below
            } else {
                TINY
            };
            if of_output > 0 && of_reference > 0 {
                precision += p;
                recall += r;
                counted += 1.0;
            }
        }
        if self.epsilon_smoothing {
            return 100.0 * summed / self.orders() as f64;
        }
        if counted == 0.0 || precision + recall == 0.0 {
            return 0.0;
        }
        precision /= counted;
        recall /= counted;
        100.0 * ((1.0 + factor) * precision * recall / (factor * precision + recall))
    }
}

/// One punctuation mark cut off: the last if there is one, else the first. Never both, as in
/// chrF++'s own program.
fn cut_punctuation(word: &str) -> impl Iterator<Item = &str> {
    let is_mark = |c: Option<char>| c.is_some_and(|c| c.is_ascii_punctuation());
    let (first, last) = (word.chars().next(), word.chars().next_back());
    let parts = if word.chars().nth(1).is_none() {
        (word, None)
    } else if is_mark(last) {
        let (start, mark) = word.split_at(word.len() - 1);
        (start, Some(mark))
    } else if is_mark(first) {
        let (mark, end) = word.split_at(1);
        (mark, Some(end))
    } else {
        (word, None)
    };
    std::iter::once(parts.0).chain(parts.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn punctuation_leaves_one_side() {
        let cut = |word| cut_punctuation(word).collect::<Vec<_>>();
        assert_eq!(cut("(hi)"), ["(hi", ")"]);
        assert_eq!(cut("(hi"), ["(", "hi"]);
        assert_eq!(cut("!"), ["!"]);
        assert_eq!(cut("猫。"), ["猫。"]);
    }

    #[test]
    fn scores() {
        let chrf = Chrf::default();
        let same = ["日本語の文".to_owned()];
        assert!((chrf.score(&chrf.statistics("日本語の文", &same)) - 100.0).abs() < 1e-9);
        assert_eq!(chrf.score(&chrf.statistics("", &same)), 0.0);
        assert_eq!(chrf.score(&chrf.statistics("x", &[])), 0.0);
        assert_eq!(
            chrf.signature(Some(1)),
            "nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|version:2.6.0"
        );
    }
}
