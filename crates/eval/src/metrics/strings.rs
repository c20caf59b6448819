//! Comparing strings: equal, contained, matched, near. Every comparison is of what
//! [`Comparison::prepare`] makes of both sides, so that case and width can be ignored everywhere in
//! the same way.

use std::borrow::Cow;
use std::collections::HashMap;

use super::ngrams::QuickMap;
use crate::text::{collapse_whitespace, nfkc};

/// What is ignored when two texts are compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// Upper and lower case.
    pub ignore_case: bool,
    /// Full and half width and other compatibility forms (NFKC).
    pub nfkc: bool,
    /// White space at the ends, and how much of it is inside.
    pub collapse_whitespace: bool,
}

impl Comparison {
    /// The text as it is compared.
    pub fn prepare<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let mut text = Cow::Borrowed(text);
        if self.nfkc {
            text = Cow::Owned(nfkc(&text).into_owned());
        }
        if self.ignore_case {
            text = Cow::Owned(text.to_lowercase());
        }
        if self.collapse_whitespace {
            text = Cow::Owned(collapse_whitespace(&text));
        }
        text
    }

    pub(super) fn signature(self) -> String {
        format!(
            "case:{}|nfkc:{}|space:{}",
            if self.ignore_case { "ignored" } else { "mixed" },
            if self.nfkc { "yes" } else { "no" },
            if self.collapse_whitespace {
                "collapsed"
            } else {
                "kept"
            },
        )
    }
}

/// How the difference of two strings is expressed; rapidfuzz's four.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// 1 − distance ÷ largest possible distance.
    NormalisedSimilarity,
    /// Distance ÷ largest possible distance.
    NormalisedDistance,
    /// Number of edits.
    Distance,
    /// Largest possible distance − distance.
    Similarity,
}

/// Which edits there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edits {
    /// Insert, delete, replace: Levenshtein. At most the length of the longer string.
    Levenshtein,
    /// Insert and delete only (rapidfuzz's Indel, of which `fuzz.ratio` is the similarity in
    /// percent). At most both lengths together.
    Indel,
}

/// The measure of two strings over Unicode code points.
pub fn string_distance(edits: Edits, measure: Measure, a: &str, b: &str) -> f64 {
    let a: Vec<char> = a.chars().collect();
    let b: Vec<char> = b.chars().collect();
    let (distance, most) = match edits {
        Edits::Levenshtein => (levenshtein(&a, &b), a.len().max(b.len())),
        Edits::Indel => (
            a.len() + b.len() - 2 * common_subsequence(&a, &b),
            a.len() + b.len(),
        ),
    };
    // Two empty strings are equal.
    let normalised = if most == 0 {
        0.0
    } else {
        distance as f64 / most as f64
    };
    match measure {
        Measure::Distance => distance as f64,
        Measure::Similarity => (most - distance) as f64,
        Measure::NormalisedDistance => normalised,
        Measure::NormalisedSimilarity => 1.0 - normalised,
    }
}

/// For each character of a string, in which of its places it stands, in blocks of 64.
fn places(text: &[char]) -> QuickMap<u64, Vec<u64>> {
    let blocks = text.len().div_ceil(64);
    let mut places: QuickMap<u64, Vec<u64>> = HashMap::default();
    for (at, c) in text.iter().enumerate() {
        places
            .entry(u64::from(*c))
            .or_insert_with(|| vec![0; blocks])[at / 64] |= 1 << (at % 64);
    }
    places
}

/// Myers' bit-parallel algorithm in Hyyrö's form for long strings: time is the product of both
/// lengths over 64, memory is linear.
fn levenshtein(a: &[char], b: &[char]) -> usize {
    if a.is_empty() || b.is_empty() {
        return a.len().max(b.len());
    }
    let places = places(a);
    let blocks = a.len().div_ceil(64);
    let last = 1_u64 << ((a.len() - 1) % 64);
    let none = vec![0; blocks];
    let (mut rises, mut falls) = (vec![u64::MAX; blocks], vec![0_u64; blocks]);
    let mut distance = a.len();
    for c in b {
        let equal = places.get(&u64::from(*c)).unwrap_or(&none);
        let (mut carry_rise, mut carry_fall) = (1_u64, 0_u64);
        for block in 0..blocks {
            let (up, down) = (rises[block], falls[block]);
            let eq = equal[block] | carry_fall;
            let x = (((eq & up).wrapping_add(up)) ^ up) | eq | down;
            let mut rise = down | !(x | up);
            let mut fall = x & up;
            if block + 1 == blocks {
                distance += usize::from(rise & last != 0);
                distance -= usize::from(fall & last != 0);
            }
            let (next_rise, next_fall) = (rise >> 63, fall >> 63);
            rise = rise << 1 | carry_rise;
            fall = fall << 1 | carry_fall;
            let across = equal[block] | down;
            rises[block] = fall | !(across | rise);
            falls[block] = rise & across;
            carry_rise = next_rise;
            carry_fall = next_fall;
        }
    }
    distance
}

fn common_subsequence(a: &[char], b: &[char]) -> usize {
    let places = places(a);
    let mut row = vec![u64::MAX; a.len().div_ceil(64)];
    for c in b {
        let Some(places) = places.get(&u64::from(*c)) else {
            continue;
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
    // Bits above the length stay set: a carry out of the last place ends in the next bit, and a set
    // bit there is set again by the bits above it.
    let whole = a.len() / 64;
    let mut found: u32 = row[..whole].iter().map(|block| block.count_zeros()).sum();
    if !a.len().is_multiple_of(64) {
        found += (!row[whole] & ((1 << (a.len() % 64)) - 1)).count_ones();
    }
    found as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comparisons() {
        let loose = Comparison {
            ignore_case: true,
            nfkc: true,
            collapse_whitespace: true,
        };
        assert_eq!(loose.prepare(" Ａb\u{3000} c\n"), "ab c");
        assert_eq!(Comparison::default().prepare(" A "), " A ");
    }

    #[test]
    fn distances() {
        let distance = |a, b| string_distance(Edits::Levenshtein, Measure::Distance, a, b);
        assert_eq!(distance("kitten", "sitting"), 3.0);
        assert_eq!(distance("東京都", "京都府"), 2.0);
        assert_eq!(distance("", "ab"), 2.0);
        assert_eq!(
            string_distance(Edits::Indel, Measure::Distance, "kitten", "sitting"),
            5.0
        );
        for measure in [Measure::NormalisedSimilarity, Measure::NormalisedDistance] {
            let value = string_distance(Edits::Levenshtein, measure, "", "");
            assert_eq!(
                value,
                f64::from(u8::from(measure == Measure::NormalisedSimilarity))
            );
        }
    }

    fn plain(a: &[char], b: &[char]) -> usize {
        let mut row: Vec<usize> = (0..=b.len()).collect();
        for (i, x) in a.iter().enumerate() {
            let mut diagonal = row[0];
            row[0] = i + 1;
            for (j, y) in b.iter().enumerate() {
                let replaced = diagonal + usize::from(x != y);
                diagonal = row[j + 1];
                row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
            }
        }
        row[b.len()]
    }

    proptest::proptest! {
        #[test]
        fn bits_equal_the_table(a in "[a-d猫]{0,150}", b in "[a-d猫]{0,150}") {
            let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
            proptest::prop_assert_eq!(levenshtein(&a, &b), plain(&a, &b));
            proptest::prop_assert_eq!(common_subsequence(&a, &b), common_subsequence(&b, &a));
        }
    }
}
