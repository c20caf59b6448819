//! The examples that an evaluation takes, read a chunk at a time.

use std::collections::{HashSet, VecDeque};

use super::SuiteDocument;
use crate::datasets::{Example, Reading};
use crate::error::Result;

/// The examples that are left, in order.
pub(super) struct Examples {
    reading: Reading,
    buffer: VecDeque<(i64, Example)>,
    next_place: i64,
    split: Option<String>,
    /// The places that a random sample takes; none where all are taken.
    sampled: Option<HashSet<i64>>,
    left: u64,
    done: bool,
}

impl Examples {
    pub(super) fn new(
        reading: Reading,
        suite: &SuiteDocument,
        sampled: Option<HashSet<i64>>,
    ) -> Self {
        Self {
            reading,
            buffer: VecDeque::new(),
            next_place: 0,
            split: suite.split.clone(),
            sampled,
            left: suite.limit.unwrap_or(u64::MAX),
            done: false,
        }
    }

    /// The next one, with its number in the dataset.
    pub(super) async fn next(&mut self) -> Result<Option<(i64, Example)>> {
        loop {
            if self.left == 0 || self.done {
                return Ok(None);
            }
            if let Some(found) = self.buffer.pop_front() {
                self.left -= 1;
                return Ok(Some(found));
            }
            let Some(examples) = self.reading.next().await? else {
                self.done = true;
                return Ok(None);
            };
            for example in examples {
                let place = self.next_place;
                self.next_place += 1;
                let wanted = self
                    .split
                    .as_ref()
                    .is_none_or(|split| example.split.as_ref() == Some(split))
                    && self
                        .sampled
                        .as_ref()
                        .is_none_or(|places| places.contains(&place));
                if wanted {
                    self.buffer.push_back((place, example));
                }
            }
        }
    }

    /// Whether all were given out.
    pub(super) fn is_empty(&self) -> bool {
        self.done || self.left == 0
    }
}
