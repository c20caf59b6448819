//! A small generator of our own, so that a seed gives the same numbers for ever:
//! a stored result can be computed again after any upgrade of a library.
//!
//! xoshiro256++ (Blackman and Vigna, "Scrambled linear pseudorandom number
//! generators", 2021), seeded through SplitMix64. Not for secrets.

/// A stream of random numbers that its seed determines.
#[derive(Debug, Clone)]
pub(crate) struct Random([u64; 4]);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        let mut at = seed;
        Self(std::array::from_fn(|_| {
            at = at.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let z = (at ^ (at >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        }))
    }

    pub(crate) fn next(&mut self) -> u64 {
        let [a, b, c, d] = self.0;
        let drawn = a.wrapping_add(d).rotate_left(23).wrapping_add(a);
        let (c, d) = (c ^ a, d ^ b);
        let (a, b) = (a ^ d, b ^ c);
        self.0 = [a, b, c ^ (self.0[1] << 17), d.rotate_left(45)];
        drawn
    }

    /// An index below `n`. The high half of a product favours no index by more than n/2⁶⁴.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the high half of a 128-bit product is below n"
    )]
    pub(crate) fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.next()) * n as u128) >> 64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_values() {
        // The reference implementation of SplitMix64 from seed 0, and of xoshiro256++ from {1, 2, 3, 4}.
        assert_eq!(Random::new(0).0[0], 0xe220_a839_7b1d_cdaf);
        let mut random = Random([1, 2, 3, 4]);
        let drawn: Vec<u64> = (0..4).map(|_| random.next()).collect();
        assert_eq!(
            drawn,
            [
                41_943_041,
                58_720_359,
                3_588_806_011_781_223,
                3_591_011_842_654_386
            ]
        );
    }

    #[test]
    fn indices_are_even() {
        let mut random = Random::new(7);
        let mut counts = [0_u32; 7];
        (0..70_000).for_each(|_| counts[random.below(7)] += 1);
        assert!(
            counts.iter().all(|n| n.abs_diff(10_000) < 400),
            "{counts:?}"
        );
    }
}
