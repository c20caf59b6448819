//! Whether a guard metric has crossed its limit.
//!
//! A one-sided sequential bound: the limit counts as crossed when the whole
//! always-valid interval lies beyond it, so that looking every few seconds does
//! not raise the number of false alarms. Bounded metrics (rates) are exact and may
//! stop after a handful of failures; unbounded ones wait for [`LEAST`] units.

use serde::Serialize;

use crate::sequential::{Interval, mean_interval, rate_interval};
use crate::summary::Summary;

/// Units before the mean of an unbounded metric is judged.
const LEAST: u64 = 50;
/// Where the bound of an unbounded metric is tightest, in units.
const PLANNED: u64 = 200;

/// Which side of the limit is forbidden.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// The metric must not exceed the limit.
    Above,
    /// The metric must not fall below the limit.
    Below,
}

/// One limit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Guard {
    /// The limit, on the scale of the observations.
    pub limit: f64,
    /// What is forbidden.
    pub forbidden: Side,
    /// Whether every observation lies between 0 and 1.
    pub bounded: bool,
    /// The chance of ever stopping by mistake.
    pub alpha: f64,
}

/// What a guard says at one look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum GuardState {
    /// Nothing has been observed.
    NoData,
    /// The limit may or may not be crossed.
    Watching,
    /// The whole interval is on the allowed side.
    Held,
    /// The whole interval is on the forbidden side.
    Crossed,
}

/// The state of a guard and the interval that shows it.
pub fn check_guard(sample: &Summary, guard: &Guard) -> (GuardState, Interval) {
    // Two-sided intervals at twice the level: each end alone then errs with alpha.
    let alpha = (2.0 * guard.alpha).min(0.5);
    let interval = if guard.bounded {
        rate_interval(sample.sum(), sample.n, alpha)
    } else {
        mean_interval(sample, PLANNED, LEAST, alpha)
    };
    let (above, below) = (interval.low > guard.limit, interval.high < guard.limit);
    let state = match (guard.forbidden, above, below) {
        _ if sample.n == 0 => GuardState::NoData,
        (Side::Above, true, _) | (Side::Below, _, true) => GuardState::Crossed,
        (Side::Above, _, true) | (Side::Below, true, _) => GuardState::Held,
        _ => GuardState::Watching,
    };
    (state, interval)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(successes: u64, n: u64, limit: f64) -> GuardState {
        let failures = n - successes;
        let ones = std::iter::repeat_n(1.0, usize::try_from(successes).unwrap());
        let zeros = std::iter::repeat_n(0.0, usize::try_from(failures).unwrap());
        let guard = Guard {
            limit,
            forbidden: Side::Above,
            bounded: true,
            alpha: 0.05,
        };
        check_guard(&ones.chain(zeros).collect(), &guard).0
    }

    #[test]
    fn rates_stop_early_and_not_by_mistake() {
        assert_eq!(rate(0, 0, 0.1), GuardState::NoData);
        assert_eq!(rate(1, 1, 0.1), GuardState::Watching);
        assert_eq!(rate(4, 4, 0.1), GuardState::Crossed);
        assert_eq!(rate(3, 30, 0.1), GuardState::Watching);
        assert_eq!(rate(0, 300, 0.1), GuardState::Held);
    }

    #[test]
    fn means_wait() {
        let guard = Guard {
            limit: 5.0,
            forbidden: Side::Below,
            bounded: false,
            alpha: 0.05,
        };
        let wave = |n: u32| {
            (0..n)
                .map(|at| 4.0 + f64::from(at % 3) * 0.1)
                .collect::<Summary>()
        };
        assert_eq!(check_guard(&wave(40), &guard).0, GuardState::Watching);
        assert_eq!(check_guard(&wave(60), &guard).0, GuardState::Crossed);
    }
}
