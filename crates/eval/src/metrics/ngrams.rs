//! Counting n-grams fast. Words become numbers, an n-gram becomes one integer of 128 bits, and
//! sorting a short list of integers beats every hash map of strings.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// A multiplicative hash for keys that come from a text in memory. Nobody can gain by collisions
/// but the one who wrote the text, and a slow row is bounded by its length.
#[derive(Default)]
pub(super) struct QuickHasher(u64);

impl Hasher for QuickHasher {
    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 29)
    }
    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        let mut chunks = bytes.chunks_exact(8);
        for chunk in &mut chunks {
            let mut word = [0; 8];
            word.copy_from_slice(chunk);
            self.add(u64::from_le_bytes(word));
        }
        let mut word = [0; 8];
        word[..chunks.remainder().len()].copy_from_slice(chunks.remainder());
        self.add(u64::from_le_bytes(word) ^ (bytes.len() as u64) << 56);
    }
    // What ends a `str`: its length is in the hash already.
    #[inline]
    fn write_u8(&mut self, byte: u8) {
        self.0 ^= u64::from(byte);
    }
}

impl QuickHasher {
    fn add(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

pub(super) type QuickMap<K, V> = HashMap<K, V, BuildHasherDefault<QuickHasher>>;

/// Numbers for words, from 1; the same word has the same number.
#[derive(Default)]
pub(super) struct Words<'a> {
    numbers: QuickMap<&'a str, u32>,
}

impl<'a> Words<'a> {
    pub(super) fn number(&mut self, word: &'a str) -> u32 {
        let next = self.numbers.len() as u32 + 1;
        *self.numbers.entry(word).or_insert(next)
    }

    pub(super) fn numbers(&mut self, words: impl Iterator<Item = &'a str>) -> Vec<u32> {
        words.map(|word| self.number(word)).collect()
    }
}

/// The n-grams of one order, sorted. `bits` is the width of one element; an element is never 0, so
/// n-grams of different orders differ too.
pub(super) fn sorted_ngrams(elements: &[u32], order: usize, bits: u32) -> Vec<u128> {
    let mut ngrams: Vec<u128> = elements
        .windows(order)
        .map(|window| {
            window
                .iter()
                .fold(0, |key, one| key << bits | u128::from(*one))
        })
        .collect();
    ngrams.sort_unstable();
    ngrams
}

/// The n-grams of every order up to a highest one, from a single sort: where entries are sorted by
/// their longest n-gram, their beginnings are sorted too.
pub(super) struct AllOrders {
    /// One entry per position, its first element in the highest bits; 0 beyond the end.
    sorted: Vec<u128>,
    highest: usize,
    bits: u32,
}

impl AllOrders {
    /// `highest` elements of `bits` each fit into 128 bits; an element is never 0.
    pub(super) fn new(elements: &[u32], highest: usize, bits: u32) -> Self {
        let entry = |start: usize| {
            (start..start + highest).fold(0, |key: u128, at| {
                key << bits | u128::from(elements.get(at).copied().unwrap_or(0))
            })
        };
        let mut sorted: Vec<u128> = (0..elements.len()).map(entry).collect();
        sorted.sort_unstable();
        Self {
            sorted,
            highest,
            bits,
        }
    }

    /// How many n-grams of this order there are, from 1.
    pub(super) fn count(&self, order: usize) -> u64 {
        (self.sorted.len() + 1).saturating_sub(order) as u64
    }

    fn of_order(&self, order: usize) -> impl Iterator<Item = u128> {
        let beyond = self.bits * (self.highest - order) as u32;
        let last = (1_u128 << self.bits) - 1;
        self.sorted
            .iter()
            .map(move |entry| entry >> beyond)
            .filter(move |ngram| ngram & last != 0)
    }

    /// How many n-grams of this order two texts share, each as often as it occurs in both.
    pub(super) fn overlap(&self, other: &Self, order: usize) -> u64 {
        let (mut ours, mut theirs) = (self.of_order(order), other.of_order(order));
        let (mut one, mut two) = (ours.next(), theirs.next());
        let mut shared = 0;
        while let (Some(a), Some(b)) = (one, two) {
            shared += u64::from(a == b);
            if a <= b {
                one = ours.next();
            }
            if b <= a {
                two = theirs.next();
            }
        }
        shared
    }
}

/// Each n-gram with how often it occurs.
pub(super) fn runs(sorted: &[u128]) -> impl Iterator<Item = (u128, u64)> + '_ {
    sorted
        .chunk_by(|a, b| a == b)
        .map(|run| (run[0], run.len() as u64))
}

/// How many n-grams two sorted lists share, each as often as it occurs in both.
pub(super) fn overlap(a: &[u128], b: &[u128]) -> u64 {
    let (mut i, mut j, mut shared) = (0, 0, 0);
    while i < a.len() && j < b.len() {
        match a[i].cmp(&b[j]) {
            std::cmp::Ordering::Less => i += 1,
            std::cmp::Ordering::Greater => j += 1,
            std::cmp::Ordering::Equal => {
                shared += 1;
                i += 1;
                j += 1;
            }
        }
    }
    shared
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counting() {
        let mut words = Words::default();
        let a = words.numbers("a b a b c".split(' '));
        let b = words.numbers("b a b a".split(' '));
        let bigrams = |numbers: &[u32]| sorted_ngrams(numbers, 2, 32);
        assert_eq!(overlap(&bigrams(&a), &bigrams(&b)), 2);
        assert_eq!(
            runs(&bigrams(&a)).map(|(_, n)| n).collect::<Vec<_>>(),
            [2, 1, 1]
        );
        assert!(sorted_ngrams(&a, 6, 21).is_empty());
    }

    #[test]
    fn one_sort_for_all_orders() {
        let numbers = |text: &str| text.chars().map(u32::from).collect::<Vec<_>>();
        let texts = [
            "",
            "a",
            "abab",
            "aabbaabb",
            "bababa",
            "すもももももももものうち",
        ];
        for (one, two) in texts.iter().flat_map(|one| texts.map(|two| (one, two))) {
            let (one, two) = (numbers(one), numbers(two));
            let all = (AllOrders::new(&one, 6, 21), AllOrders::new(&two, 6, 21));
            for order in 1..=6 {
                let each = (
                    sorted_ngrams(&one, order, 21),
                    sorted_ngrams(&two, order, 21),
                );
                assert_eq!(all.0.count(order), each.0.len() as u64);
                assert_eq!(all.0.overlap(&all.1, order), overlap(&each.0, &each.1));
            }
        }
    }
}
