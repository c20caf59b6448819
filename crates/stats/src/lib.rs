//! Statistics for deciding between versions: sequential tests that may be looked
//! at any time, intervals, sample sizes, bandits. Pure functions over numbers; no
//! IO, no clock, and randomness only as an argument.
//!
//! | file | owns |
//! |---|---|
//! | **live data, looked at any time** | |
//! | `summary.rs` | count, mean and variance of a stream of observations |
//! | `sequential.rs` | always-valid intervals and p-values for means, differences and rates |
//! | `guard.rs` | whether a guard metric has crossed its limit |
//! | `bandit.rs` | Thompson sampling |
//! | **a finished sample, such as a data set** | |
//! | `compare.rs` | two systems over the same rows: the method that fits, and the verdict |
//! | `mean.rs` | one mean with its error, rows in clusters included |
//! | `interval.rs` | one rate, or two on the same rows: Wilson, Clopper-Pearson, Jeffreys, McNemar |
//! | `resample.rs` | bootstrap and permutation |
//! | `multiple.rs` | many tests at once |
//! | `outcome.rs` | a mean beside its coverage; pairing two systems' outcomes |
//! | `agreement.rs` | κ, weighted κ, Krippendorff's α |
//! | `judge.rs` | judges checked by people: corrected means and rates, exchanged places |
//! | `choice.rs` | probability of being the best, dropping candidates, the Pareto front |
//! | `repeats.rs` | pass@k and pass^k |
//! | **both** | |
//! | `verdict.rs` | better, worse, equivalent, no difference shown, not enough data |
//! | `size.rs` | how many observations a question needs, what so many can show |
//! | `special.rs`, `random.rs`, `invalid.rs` | special functions, the seeded generator, refusals |
//!
//! **The unit is the observation.** Calls of one user are not independent, so
//! whoever calls this crate first averages the calls of each user (or session)
//! and hands in one number per unit. Nothing here can repair an analysis that
//! counted a talkative user a hundred times.

mod agreement;
mod bandit;
mod choice;
mod compare;
mod guard;
mod interval;
mod invalid;
mod judge;
mod mean;
mod multiple;
mod outcome;
mod random;
mod repeats;
mod resample;
mod sequential;
mod size;
mod special;
mod summary;
mod verdict;

pub use agreement::{Alpha, Confusion, LabelAgreement, Level, Weights, krippendorff};
pub use bandit::{FLOOR, thompson_weights};
pub use choice::{
    Alternative, ChoiceRule, Fate, Halving, Limits, Priorities, Property, Scales, Scoreboard,
    Standing, Weighed, halve, probability_of_best, probability_of_best_choice, rank_alternatives,
};
pub use compare::{
    Caution, Comparison, Method, NonInferiority, Pair, Plan, Reason, compare, compare_corpus,
    correct_for_many,
};
pub use guard::{Guard, GuardState, Side, check_guard};
pub use interval::{
    PairedCounts, clopper_pearson, jeffreys, mcnemar_chi_square, mcnemar_exact, mcnemar_mid_p,
    paired_rates_interval, wilson,
};
pub use invalid::Invalid;
pub use judge::{
    Checked, CorrectedRate, Labelled, PredictionPowered, Preference, SwapConsistency, Trust,
    prediction_powered_mean, rogan_gladen, swap_consistency,
};
pub use mean::{MeanEstimate, estimate_clustered_mean, estimate_mean};
pub use multiple::holm;
pub use outcome::{Coverage, CoveredMean, Outcome, PairedRows, covered_mean, pair_outcomes};
pub use repeats::{pass_all_k, pass_at_k};
pub use resample::{
    Bootstrap, LEAST_RESAMPLES, MOST_RESAMPLES, Resampling, bootstrap, bootstrap_interval,
    bootstrap_mean, permutation_p_value, randomisation_p_value,
};
pub use sequential::{
    Difference, Interval, MIN_PER_ARM, Running, difference, mean_interval, paired, rate_interval,
    rates_e_value, share_e_value,
};
pub use size::{
    detectable_difference, detectable_paired_binary, detectable_paired_mean, non_inferiority_pairs,
    paired_binary, paired_binary_power, paired_mean_pairs, paired_mean_power, rule_of_three,
    two_means, two_rates,
};
pub use summary::Summary;
pub use verdict::{Better, Verdict, decide};
