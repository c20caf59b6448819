//! Text that goes in circles: the last characters, compared with those one period before.
//!
//! The period is wherever the last few characters were seen before; one step per character.

use super::cluster::is_letter;

/// How far back a period reaches.
const MEMORY: usize = 4_096;
/// How many characters must agree before a period is taken up.
const GRAM: usize = 8;
/// The first bits of a hash choose one.
const BUCKETS: usize = 1 << 13;

pub(super) struct Loops {
    ring: Vec<char>,
    /// Where a gram was last seen, by its hash, counted from one; the newest wins.
    seen: Vec<(u32, u32)>,
    count: usize,
    hash: u64,
    period: usize,
    run: usize,
    letters: usize,
}

impl Loops {
    pub(super) fn new() -> Self {
        Loops {
            ring: vec!['\0'; MEMORY],
            seen: vec![(0, 0); BUCKETS],
            count: 0,
            hash: 0,
            period: 0,
            run: 0,
            letters: 0,
        }
    }

    /// The next character. How many characters repeat those of a period before, if that makes
    /// three rounds or more, and the period.
    pub(super) fn step(&mut self, c: char) -> Option<(usize, usize)> {
        let at = self.count;
        self.count += 1;
        self.ring[at % MEMORY] = c;
        let goes_on = self.period > 0 && self.ring[(at - self.period) % MEMORY] == c;
        let gram = self.gram(at);
        let slot = (gram >> 51) as usize;
        let check = (gram >> 16) as u32;
        if goes_on {
            self.run += 1;
            self.letters += usize::from(is_letter(c));
        } else {
            let (known, place) = self.seen[slot];
            // Texts that are longer than such a number counts begin at one again: distances hold.
            let back = (at as u32).wrapping_add(1).wrapping_sub(place) as usize;
            let again = known == check && back < MEMORY && place as usize >= GRAM;
            self.period = if again { back } else { 0 };
            self.run = if again { GRAM } else { 0 };
            self.letters = self.run;
        }
        self.seen[slot] = (check, (at as u32).wrapping_add(1));
        let circles = self.run >= 2 * self.period && self.letters * 2 >= self.run;
        (self.period > 0 && circles).then_some((self.run, self.period))
    }

    /// A hash of the last few characters, carried on from the one before.
    fn gram(&mut self, at: usize) -> u64 {
        let new = self.ring[at % MEMORY] as u64 + 1;
        let gone = match at.checked_sub(GRAM) {
            Some(before) => self.ring[before % MEMORY] as u64 + 1,
            None => 0,
        };
        self.hash = self
            .hash
            .wrapping_mul(FACTOR)
            .wrapping_add(new)
            .wrapping_sub(gone.wrapping_mul(FACTOR_OUT));
        self.hash.wrapping_mul(0x9E37_79B9_7F4A_7C15)
    }
}

const FACTOR: u64 = 0x0000_0100_0000_01B3;
const FACTOR_OUT: u64 = FACTOR.wrapping_pow(GRAM as u32);

#[cfg(test)]
mod tests {
    use super::*;

    fn longest(text: &str) -> usize {
        let mut loops = Loops::new();
        let found = text.chars().filter_map(|c| loops.step(c));
        found.map(|(run, _)| run).max().unwrap_or(0)
    }

    #[test]
    fn circles_are_found_and_prose_is_not() {
        assert!(longest(&"the same thing ".repeat(40)) > 500);
        assert!(longest(&"申し訳ございません。".repeat(30)) > 250);
        let verse = "It is very very good, and then very very bad, on and on it goes. ";
        assert!(longest(&verse.repeat(6)) > 200);
        assert!(longest("One two three. Four five six, seven eight nine; ten eleven twelve.") < 20);
        assert!(longest(&"-".repeat(300)) < 20);
    }
}
