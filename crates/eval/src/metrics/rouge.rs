//! ROUGE as rouge-score 0.1.2 computes it. With the tokeniser `ascii` the numbers are the same to
//! the last bit; with others the formula is the same and the name is not.

use super::ngrams::{QuickMap, Words, overlap, sorted_ngrams};
use crate::text::{NoDictionary, Tokeniser, split};

/// Which units must be found again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// N-grams of this order, 1 to 4.
    N(usize),
    /// The longest common subsequence of the whole texts.
    L,
    /// The union of longest common subsequences, line by line.
    Lsum,
}

/// ROUGE with its settings.
#[derive(Clone, Debug)]
pub struct Rouge {
    /// N, L or Lsum.
    pub variant: Variant,
    /// How texts become words.
    pub tokeniser: Tokeniser,
}

/// Precision, recall and their harmonic mean, 0 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RougeScore {
    /// Share of the answer that the reference has.
    pub precision: f64,
    /// Share of the reference that the answer has.
    pub recall: f64,
    /// Harmonic mean.
    pub f: f64,
}

impl RougeScore {
    fn new(shared: u64, output: usize, reference: usize) -> RougeScore {
        let precision = shared as f64 / output.max(1) as f64;
        let recall = shared as f64 / reference.max(1) as f64;
        let f = if precision + recall > 0.0 {
            2.0 * precision * recall / (precision + recall)
        } else {
            0.0
        };
        RougeScore {
            precision,
            recall,
            f,
        }
    }
}

impl Rouge {
    /// `rouge1`, `rougeL`, …
    pub fn name(&self) -> String {
        match self.variant {
            Variant::N(order) => format!("rouge{order}"),
            Variant::L => "rougeL".to_owned(),
            Variant::Lsum => "rougeLsum".to_owned(),
        }
    }

    /// The best score over the references by F; the first of equals. No reference scores 0.
    pub fn score(&self, output: &str, references: &[String]) -> Result<RougeScore, NoDictionary> {
        let mut best: Option<RougeScore> = None;
        for reference in references {
            let score = self.score_one(output, reference)?;
            if best.is_none_or(|best| score.f > best.f) {
                best = Some(score);
            }
        }
        Ok(best.unwrap_or_default())
    }

    fn score_one(&self, output: &str, reference: &str) -> Result<RougeScore, NoDictionary> {
        if self.variant == Variant::Lsum {
            let (output, reference) = (self.lines(output)?, self.lines(reference)?);
            let mut words = Words::default();
            let output: Vec<Vec<u32>> = output
                .iter()
                .map(|line| words.numbers(split(line)))
                .collect();
            let reference: Vec<Vec<u32>> = reference
                .iter()
                .map(|line| words.numbers(split(line)))
                .collect();
            return Ok(summary_level(&output, &reference));
        }
        let (output, reference) = (
            self.tokeniser.line(output)?,
            self.tokeniser.line(reference)?,
        );
        let mut words = Words::default();
        let output = words.numbers(split(&output));
        let reference = words.numbers(split(&reference));
        Ok(match self.variant {
            Variant::N(order) => {
                let (output, reference) = (
                    sorted_ngrams(&output, order, 32),
                    sorted_ngrams(&reference, order, 32),
                );
                RougeScore::new(overlap(&output, &reference), output.len(), reference.len())
            }
            _ => {
                let length = Lcs::new(&output).length(&reference);
                RougeScore::new(length, output.len(), reference.len())
            }
        })
    }

    fn lines(&self, text: &str) -> Result<Vec<String>, NoDictionary> {
        text.split('\n')
            .filter(|line| !line.is_empty())
            .map(|line| Ok(self.tokeniser.line(line)?.into_owned()))
            .collect()
    }
}

/// For each line of the reference, the words that some longest common subsequence with some line of
/// the answer has. A word is never counted more often than it occurs on either side.
fn summary_level(output: &[Vec<u32>], reference: &[Vec<u32>]) -> RougeScore {
    let output_length: usize = output.iter().map(Vec::len).sum();
    let reference_length: usize = reference.iter().map(Vec::len).sum();
    if output_length == 0 || reference_length == 0 {
        return RougeScore::default();
    }
    let mut left_in_output = count(output);
    let mut left_in_reference = count(reference);
    let prepared: Vec<Lcs> = output.iter().map(|line| Lcs::new(line)).collect();
    let mut hits = 0;
    for line in reference {
        let mut in_union = vec![false; line.len()];
        for other in &prepared {
            other.mark(line, &mut in_union);
        }
        for (word, _) in line.iter().zip(in_union).filter(|(_, marked)| *marked) {
            let (a, b) = (
                left_in_output.get_mut(word),
                left_in_reference.get_mut(word),
            );
            if let (Some(a @ 1..), Some(b @ 1..)) = (a, b) {
                hits += 1;
                *a -= 1;
                *b -= 1;
            }
        }
    }
    RougeScore::new(hits, output_length, reference_length)
}

fn count(lines: &[Vec<u32>]) -> QuickMap<u32, u32> {
    let mut counts = QuickMap::default();
    for word in lines.iter().flatten() {
        *counts.entry(*word).or_insert(0) += 1;
    }
    counts
}

/// Longest common subsequences with one fixed sequence, 64 columns of the table at a time.
///
/// A row of the table never falls and rises by at most 1 per column, so a row is kept as bits: a
/// bit is *clear* where the row rises (Hyyrö 2004). That is 64 times faster than the plain table,
/// and long texts fit into memory.
struct Lcs {
    columns: usize,
    /// For each word of the fixed sequence, in which columns it stands.
    places: QuickMap<u32, Vec<u64>>,
}

impl Lcs {
    fn new(fixed: &[u32]) -> Lcs {
        let blocks = fixed.len().div_ceil(64);
        let mut places: QuickMap<u32, Vec<u64>> = QuickMap::default();
        for (column, word) in fixed.iter().enumerate() {
            places.entry(*word).or_insert_with(|| vec![0; blocks])[column / 64] |=
                1 << (column % 64);
        }
        Lcs {
            columns: fixed.len(),
            places,
        }
    }

    fn blocks(&self) -> usize {
        self.columns.div_ceil(64)
    }

    /// Turns a row of the table into the next.
    fn step(&self, row: &mut [u64], word: u32) {
        let Some(places) = self.places.get(&word) else {
            return;
        };
        let mut carry = false;
        for (block, places) in row.iter_mut().zip(places) {
            let matched = *block & places;
            let (sum, over) = block.overflowing_add(matched);
            let (sum, again) = sum.overflowing_add(u64::from(carry));
            carry = over || again;
            *block = sum | (*block & !places);
        }
    }

    /// The value of a row at a column: how often it has risen before.
    fn value(&self, row: &[u64], column: usize) -> usize {
        let whole = column / 64;
        let mut rises: u32 = row[..whole].iter().map(|block| block.count_zeros()).sum();
        if !column.is_multiple_of(64) {
            rises += (!row[whole] & ((1 << (column % 64)) - 1)).count_ones();
        }
        rises as usize
    }

    fn length(&self, other: &[u32]) -> u64 {
        let mut row = vec![u64::MAX; self.blocks()];
        for word in other {
            self.step(&mut row, *word);
        }
        self.value(&row, self.columns) as u64
    }

    /// Marks the places of `other` that one longest common subsequence has: the one that
    /// rouge-score walks back to, which goes up in the table unless the left is strictly larger.
    fn mark(&self, other: &[u32], marked: &mut [bool]) {
        let mut rows = Vec::with_capacity(other.len() + 1);
        let mut row = vec![u64::MAX; self.blocks()];
        rows.push(row.clone());
        for word in other {
            self.step(&mut row, *word);
            rows.push(row.clone());
        }
        let stands_at = |word: u32, column: usize| {
            self.places
                .get(&word)
                .is_some_and(|places| places[column / 64] >> (column % 64) & 1 == 1)
        };
        let rises = |row: &[u64], column: usize| row[column / 64] >> (column % 64) & 1 == 0;
        let (mut i, mut j) = (other.len(), self.columns);
        let mut above = if i > 0 {
            self.value(&rows[i - 1], j)
        } else {
            0
        };
        let mut here = self.value(&rows[i], j);
        while i > 0 && j > 0 {
            if stands_at(other[i - 1], j - 1) {
                marked[i - 1] = true;
                i -= 1;
                j -= 1;
                here = self.value(&rows[i], j);
                above = if i > 0 {
                    self.value(&rows[i - 1], j)
                } else {
                    0
                };
                continue;
            }
            let left = here - usize::from(rises(&rows[i], j - 1));
            if left > above {
                above -= usize::from(rises(&rows[i - 1], j - 1));
                here = left;
                j -= 1;
            } else {
                here = above;
                i -= 1;
                above = if i > 0 {
                    self.value(&rows[i - 1], j)
                } else {
                    0
                };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rouge(variant: Variant, stem: bool) -> Rouge {
        Rouge {
            variant,
            tokeniser: Tokeniser::Ascii { stem },
        }
    }

    #[test]
    fn by_hand() {
        let reference = ["the cat was found under the bed".to_owned()];
        let score = rouge(Variant::N(1), false).score("the cat was under the bed", &reference);
        let score = score.unwrap();
        assert_eq!((score.precision, score.recall), (1.0, 6.0 / 7.0));
        let longest = rouge(Variant::L, false)
            .score("bed the under cat", &reference)
            .unwrap();
        assert_eq!(longest.recall, 2.0 / 7.0);
        let none = rouge(Variant::N(2), false).score("", &reference).unwrap();
        assert_eq!(none, RougeScore::default());
    }

    /// The table of the textbook and rouge-score's way back through it.
    fn plain(fixed: &[u32], other: &[u32]) -> (u64, Vec<bool>) {
        let mut table = vec![vec![0_u64; fixed.len() + 1]; other.len() + 1];
        for i in 1..=other.len() {
            for j in 1..=fixed.len() {
                table[i][j] = if other[i - 1] == fixed[j - 1] {
                    table[i - 1][j - 1] + 1
                } else {
                    table[i - 1][j].max(table[i][j - 1])
                };
            }
        }
        let mut marked = vec![false; other.len()];
        let (mut i, mut j) = (other.len(), fixed.len());
        while i > 0 && j > 0 {
            if other[i - 1] == fixed[j - 1] {
                marked[i - 1] = true;
                i -= 1;
                j -= 1;
            } else if table[i][j - 1] > table[i - 1][j] {
                j -= 1;
            } else {
                i -= 1;
            }
        }
        (table[other.len()][fixed.len()], marked)
    }

    proptest::proptest! {
        #[test]
        fn bits_equal_the_table(
            fixed in proptest::collection::vec(1_u32..6, 0..150),
            other in proptest::collection::vec(1_u32..6, 0..80),
        ) {
            let (length, marked) = plain(&fixed, &other);
            let lcs = Lcs::new(&fixed);
            proptest::prop_assert_eq!(lcs.length(&other), length);
            let mut ours = vec![false; other.len()];
            lcs.mark(&other, &mut ours);
            proptest::prop_assert_eq!(ours, marked);
        }
    }
}
