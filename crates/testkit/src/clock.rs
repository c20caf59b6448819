//! Time and randomness that a test decides.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, Ordering};

use base::{Clock, Ids, Random};

/// A clock that stands still until the test moves it. Clones share the time.
#[derive(Debug, Clone)]
pub struct FixedClock(Arc<AtomicI64>);

impl FixedClock {
    /// 2026-01-02 03:04:05 UTC, in microseconds.
    pub const START_US: i64 = 1_767_323_045_000_000;

    /// A clock at [`FixedClock::START_US`].
    pub fn new() -> Self {
        Self::at(Self::START_US)
    }

    /// A clock at this time.
    pub fn at(now_us: i64) -> Self {
        Self(Arc::new(AtomicI64::new(now_us)))
    }

    /// Jumps to this time, also back.
    pub fn set(&self, now_us: i64) {
        self.0.store(now_us, Ordering::SeqCst);
    }

    /// Moves on by so much, and returns the new time.
    pub fn advance_us(&self, by_us: i64) -> i64 {
        self.0.fetch_add(by_us, Ordering::SeqCst) + by_us
    }
}

impl Default for FixedClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for FixedClock {
    fn now_us(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }
}

/// Bytes that look random and are the same in every run with the same seed.
#[derive(Debug)]
pub struct SeededRandom(Mutex<u64>);

impl SeededRandom {
    /// The sequence of this seed.
    pub fn new(seed: u64) -> Self {
        Self(Mutex::new(seed))
    }
}

impl Random for SeededRandom {
    fn fill(&self, bytes: &mut [u8]) {
        let mut state = self
            .0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&split_mix(&mut state).to_le_bytes()[..chunk.len()]);
        }
    }
}

/// SplitMix64 (Steele, Lea and Flood 2014): one addition and a mix, no bad seeds.
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Ids that are the same in every run, from this clock and seed.
pub fn seeded_ids(clock: &FixedClock, seed: u64) -> Ids {
    Ids::new(Arc::new(clock.clone()), Arc::new(SeededRandom::new(seed)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seed_decides_and_the_first_output_is_the_published_one() {
        let mut bytes = [0; 8];
        SeededRandom::new(1_234_567).fill(&mut bytes);
        // The reference implementation's first output for this seed (prng.di.unimi.it/splitmix64.c).
        assert_eq!(u64::from_le_bytes(bytes), 6_457_827_717_110_365_317);
    }
}
