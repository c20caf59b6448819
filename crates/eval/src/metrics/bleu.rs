//! BLEU as sacreBLEU 2.6.0 computes it, from counts that add up over rows.

use serde_json::{Value, json};

use super::ngrams::{AllOrders, Words, runs, sorted_ngrams};
use crate::text::{NoDictionary, Tokeniser, split, trim_end};

/// Highest order of n-grams that is possible: four numbers of 32 bits fit into one key.
pub const MAX_ORDER: usize = 4;

/// What to do when an order has no match.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Smoothing {
    /// Each order without a match halves what the next one gets.
    Exp,
    /// A small number of matches instead of none; 0.1 by default.
    Floor(f64),
    /// So much is added to matches and totals of all orders but the first; 1 by default.
    AddK(f64),
    /// Nothing: the score is 0.
    None,
}

impl Smoothing {
    fn signature(self) -> String {
        match self {
            Smoothing::Exp => "exp".to_owned(),
            Smoothing::Floor(value) => format!("floor[{value:.2}]"),
            Smoothing::AddK(value) => format!("add-k[{value:.2}]"),
            Smoothing::None => "none".to_owned(),
        }
    }
}

/// BLEU with its settings.
#[derive(Clone, Debug)]
pub struct Bleu {
    /// How texts become words.
    pub tokeniser: Tokeniser,
    /// Lower case before counting.
    pub lowercase: bool,
    /// See [`Smoothing`].
    pub smoothing: Smoothing,
    /// Only as many orders as the answer is long; for single sentences.
    pub effective_order: bool,
    /// Orders of n-grams, 1 to [`MAX_ORDER`].
    pub max_order: usize,
}

impl Default for Bleu {
    fn default() -> Bleu {
        Bleu {
            tokeniser: Tokeniser::Sacre13a,
            lowercase: false,
            smoothing: Smoothing::Exp,
            effective_order: false,
            max_order: MAX_ORDER,
        }
    }
}

/// A score and what it is made of.
#[derive(Clone, Debug, PartialEq)]
pub struct BleuScore {
    /// 0 to 100.
    pub score: f64,
    /// Percent per order.
    pub precisions: Vec<f64>,
    /// 1 unless the answer is shorter than the reference.
    pub brevity_penalty: f64,
    /// Words of the answers.
    pub output_length: u64,
    /// Words of the references that were closest in length.
    pub reference_length: u64,
}

impl BleuScore {
    pub(super) fn detail(&self) -> Value {
        json!({
            "precisions": self.precisions,
            "brevity_penalty": self.brevity_penalty,
            "output_length": self.output_length,
            "reference_length": self.reference_length,
        })
    }
}

impl Bleu {
    /// As sacreBLEU prints it; `references` is how many each row has, none when that varies.
    pub fn signature(&self, references: Option<usize>) -> String {
        let references = references.map_or_else(|| "var".to_owned(), |count| count.to_string());
        format!("nrefs:{references}|{}", self.settings())
    }

    /// The signature without the number of references, which is a property of the data.
    pub(super) fn settings(&self) -> String {
        let order = match self.max_order {
            MAX_ORDER => String::new(),
            order => format!("order:{order}|"),
        };
        format!(
            "case:{}|eff:{}|tok:{}|smooth:{}|{order}version:2.6.0",
            if self.lowercase { "lc" } else { "mixed" },
            if self.effective_order { "yes" } else { "no" },
            self.tokeniser.signature(),
            self.smoothing.signature(),
        )
    }

    fn line(&self, text: &str) -> Result<String, NoDictionary> {
        let lower;
        let text = if self.lowercase {
            lower = text.to_lowercase();
            &lower
        } else {
            text
        };
        Ok(self.tokeniser.line(trim_end(text))?.into_owned())
    }

    /// Counts of one row: length of the answer, length of the closest reference, matches per order,
    /// n-grams per order. Rows are combined by adding these up. No references count as one that is
    /// empty.
    pub fn statistics(
        &self,
        output: &str,
        references: &[String],
    ) -> Result<Vec<u64>, NoDictionary> {
        let output_line = self.line(output)?;
        let reference_lines = references
            .iter()
            .map(|reference| self.line(reference))
            .collect::<Result<Vec<_>, _>>()?;
        let mut words = Words::default();
        let output = words.numbers(split(&output_line));
        let references: Vec<Vec<u32>> = reference_lines
            .iter()
            .map(|line| words.numbers(split(line)))
            .collect();
        let mut statistics = vec![
            output.len() as u64,
            closest(output.len(), &references) as u64,
        ];
        let (matches, totals): (Vec<u64>, Vec<u64>) = matches(&output, &references, self.max_order)
            .into_iter()
            .unzip();
        statistics.extend(matches);
        statistics.extend(totals);
        Ok(statistics)
    }

    /// The score of counts, one row's or the sum of many.
    pub fn score(&self, statistics: &[u64]) -> BleuScore {
        let order = self.max_order;
        let number = |at: usize| statistics.get(at).copied().unwrap_or(0);
        let (output_length, reference_length) = (number(0), number(1));
        let matches: Vec<f64> = (0..order).map(|n| number(2 + n) as f64).collect();
        let totals: Vec<f64> = (0..order).map(|n| number(2 + order + n) as f64).collect();
        let brevity_penalty = match (output_length, reference_length) {
            (0, reference) if reference > 0 => 0.0,
            (output, reference) if output < reference => {
                (1.0 - reference as f64 / output as f64).exp()
            }
            _ => 1.0,
        };
        let (precisions, effective) = self.precisions(&matches, &totals);
        let score = if matches.iter().all(|count| *count == 0.0) {
            0.0
        } else {
            let logs: f64 = precisions[..effective].iter().map(|p| safe_log(*p)).sum();
            brevity_penalty * (logs / effective as f64).exp()
        };
        BleuScore {
            score,
            precisions,
            brevity_penalty,
            output_length,
            reference_length,
        }
    }

    /// Percent of n-grams that match, per order, and the number of orders that count.
    fn precisions(&self, matches: &[f64], totals: &[f64]) -> (Vec<f64>, usize) {
        let mut precisions = vec![0.0; self.max_order];
        let mut effective = self.max_order;
        // Nothing matches at all: 0, and smoothing does not change it.
        if matches.iter().all(|count| *count == 0.0) {
            return (precisions, effective);
        }
        let mut halving = 1.0;
        for n in 0..self.max_order {
            let (mut matched, mut total) = (matches[n], totals[n]);
            if let Smoothing::AddK(k) = self.smoothing
                && n > 0
            {
                matched += k;
                total += k;
            }
            if total == 0.0 {
                break;
            }
            if self.effective_order {
                effective = n + 1;
            }
            precisions[n] = if matched != 0.0 {
                100.0 * matched / total
            } else {
                match self.smoothing {
                    Smoothing::Exp => {
                        halving *= 2.0;
                        100.0 / (halving * total)
                    }
                    Smoothing::Floor(floor) => 100.0 * floor / total,
                    Smoothing::AddK(_) | Smoothing::None => 0.0,
                }
            };
        }
        (precisions, effective)
    }
}

/// sacreBLEU's logarithm of 0 is a very negative number, so that its exponential is 0 exactly.
fn safe_log(number: f64) -> f64 {
    if number == 0.0 {
        -9_999_999_999.0
    } else {
        number.ln()
    }
}

/// The reference length nearest to the answer's; the shorter of two that are as near.
fn closest(output: usize, references: &[Vec<u32>]) -> usize {
    references
        .iter()
        .map(Vec::len)
        .min_by_key(|length| (length.abs_diff(output), *length))
        .unwrap_or(0)
}

/// Matches and n-grams of each order. A match counts at most as often as in the reference that has
/// it most often.
fn matches(output: &[u32], references: &[Vec<u32>], highest: usize) -> Vec<(u64, u64)> {
    if let [reference] = references {
        let all = |words: &[u32]| AllOrders::new(words, highest, 32);
        let (output, reference) = (all(output), all(reference));
        return (1..=highest)
            .map(|order| (output.overlap(&reference, order), output.count(order)))
            .collect();
    }
    (1..=highest)
        .map(|order| matches_of_many(output, references, order))
        .collect()
}

fn matches_of_many(output: &[u32], references: &[Vec<u32>], order: usize) -> (u64, u64) {
    let ngrams = sorted_ngrams(output, order, 32);
    let references: Vec<Vec<u128>> = references
        .iter()
        .map(|reference| sorted_ngrams(reference, order, 32))
        .collect();
    let matched = runs(&ngrams)
        .map(|(ngram, count)| {
            let most = references.iter().map(|sorted| occurrences(sorted, ngram));
            count.min(most.max().unwrap_or(0))
        })
        .sum();
    (matched, ngrams.len() as u64)
}

fn occurrences(sorted: &[u128], ngram: u128) -> u64 {
    let from = sorted.partition_point(|one| *one < ngram);
    let to = sorted.partition_point(|one| *one <= ngram);
    (to - from) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn score(bleu: &Bleu, output: &str, references: &[&str]) -> f64 {
        let references: Vec<String> = references.iter().map(|r| (*r).to_owned()).collect();
        bleu.score(&bleu.statistics(output, &references).unwrap())
            .score
    }

    #[test]
    fn by_hand() {
        let bleu = Bleu::default();
        assert!(
            (score(&bleu, "the cat sat on the mat", &["the cat sat on the mat"]) - 100.0).abs()
                < 1e-9
        );
        assert_eq!(score(&bleu, "dog", &["cat"]), 0.0);
        assert_eq!(score(&bleu, "", &["cat"]), 0.0);
        // 3 of 3 words, 1 of 2 pairs, 0 of 1 triples: half a match; there is no order 4.
        let sentence = Bleu {
            effective_order: true,
            ..Bleu::default()
        };
        let expected = 100.0 * (1.0_f64 * 0.5 * 0.5).cbrt() * (1.0_f64 - 5.0 / 3.0).exp();
        assert!((score(&sentence, "a b c", &["a b x y c"]) - expected).abs() < 1e-9);
        let zero = Bleu {
            smoothing: Smoothing::None,
            ..Bleu::default()
        };
        assert_eq!(score(&zero, "a b c d", &["a x c y"]), 0.0);
    }

    #[test]
    fn signatures() {
        assert_eq!(
            Bleu::default().signature(Some(1)),
            "nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:2.6.0"
        );
        let floor = Bleu {
            smoothing: Smoothing::Floor(0.1),
            lowercase: true,
            ..Bleu::default()
        };
        assert_eq!(
            floor.signature(None),
            "nrefs:var|case:lc|eff:no|tok:13a|smooth:floor[0.10]|version:2.6.0"
        );
    }
}
