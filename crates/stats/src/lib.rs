//! Statistics for deciding between versions: sequential tests that may be looked
//! at any time, intervals, sample sizes, bandits. Pure functions over numbers; no
//! IO, no clock, and randomness only as an argument.
//!
//! | file | owns |
//! |---|---|
//! | `summary.rs` | count, mean and variance of a stream of observations |
//! | `sequential.rs` | always-valid intervals and p-values for means, differences and rates |
//! | `verdict.rs` | better, worse, no difference shown, not enough data |
//! | `guard.rs` | whether a guard metric has crossed its limit |
//! | `size.rs` | how many observations a question needs |
//! | `interval.rs` | fixed-sample methods: Wilson interval, exact McNemar test |
//! | `bandit.rs` | Thompson sampling |
//! | `special.rs` | the few special functions that the others need |
//!
//! **The unit is the observation.** Calls of one user are not independent, so
//! whoever calls this crate first averages the calls of each user (or session)
//! and hands in one number per unit. Nothing here can repair an analysis that
//! counted a talkative user a hundred times.

mod bandit;
mod guard;
mod interval;
mod sequential;
mod size;
mod special;
mod summary;
mod verdict;

pub use bandit::{FLOOR, thompson_weights};
pub use guard::{Guard, GuardState, Side, check_guard};
pub use interval::{mcnemar_exact, wilson};
pub use sequential::{
    Difference, Interval, MIN_PER_ARM, Running, difference, mean_interval, paired, rate_interval,
    rates_e_value, share_e_value,
};
pub use size::{
    detectable_difference, non_inferiority_pairs, paired_binary, rule_of_three, two_means,
    two_rates,
};
pub use summary::Summary;
pub use verdict::{Better, Verdict, decide};
