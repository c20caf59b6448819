//! Intervals and p-values that stay valid however often somebody looks.
//!
//! **Means** (any score, cost, log latency): Robbins' normal mixture, known from
//! A/B testing as the mSPRT (Johari, Koomen, Pekelis, Walsh, "Always valid
//! inference", arXiv 1512.04922). With the estimate θ̂ of a difference and its
//! estimated variance v,
//!
//! ```text
//! Λ = √(v/(v+τ²)) · exp(τ²θ̂² / (2v(v+τ²)))          p = min over looks of 1/Λ
//! half-width = √( v(v+τ²)/τ² · (2 ln(1/α) + ln((v+τ²)/v)) )
//! ```
//!
//! which for v = V/n are the usual formulas for n pairs. By Ville's inequality
//! P(Λ ever reaches 1/α) ≤ α. The variance is estimated, so this holds
//! asymptotically (Waudby-Smith, Arbour, Sinha, Kennedy, Ramdas, "Time-uniform
//! central limit theory", arXiv 2103.06476): nothing is said before
//! [`MIN_PER_ARM`] observations per arm. τ² = c·V/n* makes the interval
//! narrowest near the planned sample n* (same paper, §2.3:
//! c = −2 ln α + ln(−2 ln α) + 1); the plan must be made before the data is seen.
//!
//! **Rates** and anything in [0, 1]: exact, from the first observation on.
//! - One rate ([`rate_interval`]): all m that the Beta-Binomial mixture
//!   `B(a+s, b+f)/B(a, b) / (m^s (1−m)^f)` does not reject. For a value y between
//!   0 and 1 the factor `(q/m)^y ((1−q)/(1−m))^(1−y)` is convex in y, so its mean
//!   is at most 1 as for a coin: fractional observations are covered too.
//! - Equality of two rates ([`rates_e_value`]): units are assigned at random with
//!   known shares, so under "no difference" the arm of a success is a coin with
//!   exactly that share, and so is the arm of a failure. The product of the two
//!   Beta-Binomial e-values is a martingale whatever the rate is, even if it drifts.

use serde::Serialize;

use crate::special::ln_beta;
use crate::summary::Summary;

/// Below this many units in either arm nothing is concluded about means: the
/// estimated variance is not good enough.
pub const MIN_PER_ARM: u64 = 100;

/// How strongly the mixtures for rates are drawn to their centre, in observations.
/// Small enough that surprises count at once, large enough that three unlucky calls do not.
const RATE_PRIOR: f64 = 2.0;
/// The same for shares of arms: an effect that people care about moves them by a few per cent.
const SHARE_PRIOR: f64 = 200.0;

/// A range that holds the truth with the promised probability: at all times where it
/// comes from this file, in one look at a finished sample elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Interval {
    /// Its lower end.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
}

impl Interval {
    /// Nothing is known.
    pub const ALL: Self = Self {
        low: f64::NEG_INFINITY,
        high: f64::INFINITY,
    };

    /// Whether a value lies in it.
    pub fn holds(&self, value: f64) -> bool {
        self.low <= value && value <= self.high
    }

    pub(crate) fn around(centre: f64, half_width: f64) -> Self {
        Self {
            low: centre - half_width,
            high: centre + half_width,
        }
    }
}

/// What two arms show about the difference of their means at one look.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Difference {
    /// The second arm's mean less the first's.
    pub estimate: f64,
    /// The always-valid interval.
    pub interval: Interval,
    /// 1/Λ at this look; see [`Running`] for the smallest so far.
    pub p_value: f64,
    /// Whether both arms have [`MIN_PER_ARM`] units.
    pub enough: bool,
}

/// Compares the means of two independent arms. `planned` is the number of units per
/// arm around which the interval is narrowest; it is fixed before the data is seen.
pub fn difference(first: &Summary, second: &Summary, planned: u64, alpha: f64) -> Difference {
    let estimate = second.mean - first.mean;
    let enough = first.n.min(second.n) >= MIN_PER_ARM;
    if !enough {
        return Difference {
            estimate,
            interval: Interval::ALL,
            p_value: 1.0,
            enough,
        };
    }
    let (a, b) = (first.variance(), second.variance());
    let v = a / first.count() + b / second.count();
    let tau = mixture_variance(a + b, planned, alpha);
    Difference {
        estimate,
        interval: Interval::around(estimate, half_width(v, tau, alpha)),
        p_value: p_value(estimate, v, tau),
        enough,
    }
}

/// Compares by paired differences (second less first of the same question): what shadows
/// and evaluations over one data set give. Fewer are needed than of independent arms.
pub fn paired(differences: &Summary, planned: u64, alpha: f64) -> Difference {
    let enough = differences.n >= MIN_PER_ARM;
    if !enough {
        return Difference {
            estimate: differences.mean,
            interval: Interval::ALL,
            p_value: 1.0,
            enough,
        };
    }
    let variance = differences.variance();
    let v = variance / differences.count();
    let tau = mixture_variance(variance, planned, alpha);
    Difference {
        estimate: differences.mean,
        interval: Interval::around(differences.mean, half_width(v, tau, alpha)),
        p_value: p_value(differences.mean, v, tau),
        enough,
    }
}

/// The always-valid interval of one mean: of a metric, or of paired differences.
/// Nothing is said below `least` observations.
pub fn mean_interval(sample: &Summary, planned: u64, least: u64, alpha: f64) -> Interval {
    if sample.n < least.max(2) {
        return Interval::ALL;
    }
    let variance = sample.variance();
    let tau = mixture_variance(variance, planned, alpha);
    Interval::around(
        sample.mean,
        half_width(variance / sample.count(), tau, alpha),
    )
}

/// τ² for a variance V per observation (or pair) and a planned number of them.
fn mixture_variance(variance: f64, planned: u64, alpha: f64) -> f64 {
    let log = -2.0 * alpha.ln();
    #[expect(clippy::cast_precision_loss, reason = "samples are far below 2^53")]
    let planned = planned.max(1) as f64;
    (log + log.ln() + 1.0) * variance / planned
}

fn half_width(v: f64, tau: f64, alpha: f64) -> f64 {
    if v <= 0.0 || tau <= 0.0 {
        // Every observation is the same; the sample shows no spread at all.
        return 0.0;
    }
    (v * (v + tau) / tau * (-2.0 * alpha.ln() + ((v + tau) / v).ln())).sqrt()
}

fn p_value(estimate: f64, v: f64, tau: f64) -> f64 {
    if v <= 0.0 || tau <= 0.0 {
        return if estimate == 0.0 { 1.0 } else { 0.0 };
    }
    let log = 0.5 * (v / (v + tau)).ln() + tau * estimate * estimate / (2.0 * v * (v + tau));
    (-log).exp().min(1.0)
}

/// The always-valid interval of one rate or of any mean between 0 and 1, exact from
/// the first observation on. `sum` of `n` observations, each between 0 and 1.
pub fn rate_interval(sum: f64, n: u64, alpha: f64) -> Interval {
    #[expect(clippy::cast_precision_loss, reason = "samples are far below 2^53")]
    let n = n as f64;
    let (s, f) = (sum.clamp(0.0, n), (n - sum).clamp(0.0, n));
    if n == 0.0 {
        return Interval {
            low: 0.0,
            high: 1.0,
        };
    }
    let prior = RATE_PRIOR / 2.0;
    let evidence = ln_beta(prior + s, prior + f) - ln_beta(prior, prior);
    let rejects = |m: f64| evidence - term(s, m) - term(f, 1.0 - m) >= -alpha.ln();
    let centre = s / n;
    Interval {
        low: edge(0.0, centre, &rejects),
        high: edge(1.0, centre, &rejects),
    }
}

/// `k·ln(m)`, with 0·ln 0 = 0.
fn term(k: f64, m: f64) -> f64 {
    if k == 0.0 { 0.0 } else { k * m.ln() }
}

/// Where between `outside` and `inside` rejection begins; the evidence against m grows
/// with its distance from the observed rate, so bisection finds it.
fn edge(outside: f64, inside: f64, rejects: &impl Fn(f64) -> bool) -> f64 {
    if !rejects(outside) {
        return outside;
    }
    let (mut out, mut into) = (outside, inside);
    for _ in 0..60 {
        let middle = 0.5 * (out + into);
        if rejects(middle) {
            out = middle;
        } else {
            into = middle;
        }
    }
    // The outer end: an interval that is a little too wide is still valid.
    out
}

/// Successes and units of one arm.
type Counts = (u64, u64);

/// The logarithm of an exact e-value against "both arms have the same rate".
/// `share` is the probability with which a unit got into the second arm; it must
/// have been the same for all of them. 1/e is an always-valid p-value.
pub fn rates_e_value(first: Counts, second: Counts, share: f64) -> f64 {
    let failures = |(successes, n): Counts| n.saturating_sub(successes);
    share_e_value(first.0, second.0, share)
        + share_e_value(failures(first), failures(second), share)
}

/// The logarithm of an exact e-value against "units got into the second arm with
/// this share": large when assignment is broken (a sample ratio mismatch).
pub fn share_e_value(first: u64, second: u64, share: f64) -> f64 {
    if !(share > 0.0 && share < 1.0) {
        return 0.0;
    }
    #[expect(clippy::cast_precision_loss, reason = "samples are far below 2^53")]
    let (a, b) = (first as f64, second as f64);
    let (pa, pb) = (SHARE_PRIOR * (1.0 - share), SHARE_PRIOR * share);
    ln_beta(pb + b, pa + a) - ln_beta(pb, pa) - b * share.ln() - a * (1.0 - share).ln()
}

/// The smallest p-value and the intersection of the intervals of all looks so far.
/// Both keep their guarantee, because it is about all looks together.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Running {
    /// The smallest p-value.
    pub p_value: f64,
    /// What every interval so far has in common.
    pub interval: Interval,
}

impl Default for Running {
    fn default() -> Self {
        Self {
            p_value: 1.0,
            interval: Interval::ALL,
        }
    }
}

impl Running {
    /// Takes in the next look.
    pub fn look(&mut self, interval: Interval, p_value: f64) {
        self.p_value = self.p_value.min(p_value);
        let both = Interval {
            low: self.interval.low.max(interval.low),
            high: self.interval.high.min(interval.high),
        };
        // Two looks that exclude each other mean that the effect itself changed over time (or the
        // rare error happened): the newest look is then the honest thing to show.
        self.interval = if both.low <= both.high {
            both
        } else {
            interval
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(n: u64, mean: f64, variance: f64) -> Summary {
        #[expect(clippy::cast_precision_loss, reason = "small")]
        let squares = variance * (n as f64 - 1.0);
        Summary { n, mean, squares }
    }

    #[test]
    fn difference_is_the_formula_of_pairs() {
        // V = 2, n = 1000, planned 1000, α = 0.05: τ² = (5.9915 + 1.7903 + 1)·2/1000 = 0.0175637.
        // v = 0.002, v+τ² = 0.0195637; half-width = √(0.002·0.0195637/0.0175637·(5.9915+ln 9.78184))
        //   = √(0.00222774·8.272) = 0.135749.
        let found = difference(&of(1000, 1.0, 1.0), &of(1000, 1.2, 1.0), 1000, 0.05);
        assert!((found.estimate - 0.2).abs() < 1e-12);
        assert!(
            (found.interval.low - (0.2 - 0.135_749)).abs() < 1e-4,
            "{found:?}"
        );
        // ln Λ = ½ ln(0.002/0.0195637) + 0.0175637·0.04/(2·0.002·0.0195637) = −1.14023 + 8.97770.
        assert!((found.p_value.ln() + 7.837_5).abs() < 1e-3, "{found:?}");
        // The interval excludes 0 exactly when p < α.
        for mean in [1.05, 1.1, 1.13, 1.14, 1.2] {
            let look = difference(&of(1000, 1.0, 1.0), &of(1000, mean, 1.0), 1000, 0.05);
            assert_eq!(look.p_value < 0.05, !look.interval.holds(0.0), "{mean}");
        }
    }

    #[test]
    fn too_little_says_nothing() {
        let found = difference(&of(99, 0.0, 1.0), &of(5000, 9.0, 1.0), 1000, 0.05);
        assert!(!found.enough && found.p_value == 1.0 && found.interval.holds(1e300));
        assert_eq!(mean_interval(&of(1, 3.0, 0.0), 100, 0, 0.05), Interval::ALL);
        assert_eq!(
            rate_interval(0.0, 0, 0.05),
            Interval {
                low: 0.0,
                high: 1.0
            }
        );
        assert_eq!(share_e_value(5, 5, 0.0), 0.0);
    }

    #[test]
    fn rates_by_hand() {
        // Four failures of four with a uniform prior: B(5,1)/B(1,1) = 1/5; low solves m⁴ = 0.05/5 → 0.31623.
        let four = rate_interval(4.0, 4, 0.05);
        assert!((four.low - 0.01_f64.powf(0.25)).abs() < 1e-9 && four.high == 1.0);
        // None of thirty: high solves (1−m)³⁰ = 0.05/31 → 0.19287.
        let none = rate_interval(0.0, 30, 0.05);
        assert!(
            none.low == 0.0
                && (none.high - (1.0 - (0.05_f64 / 31.0).powf(1.0 / 30.0))).abs() < 1e-9
        );
        // Symmetric, and balanced shares speak for equality.
        assert!(rates_e_value((50, 100), (50, 100), 0.5) < 0.0);
        let (up, down) = (
            rates_e_value((500, 1000), (600, 1000), 0.5),
            rates_e_value((600, 1000), (500, 1000), 0.5),
        );
        assert!((up - down).abs() < 1e-9 && up > 20.0_f64.ln(), "{up}");
        assert!(share_e_value(9_000, 1_000, 0.5) > 100.0);
    }

    #[test]
    fn running_keeps_the_best() {
        let mut running = Running::default();
        running.look(
            Interval {
                low: -1.0,
                high: 3.0,
            },
            0.5,
        );
        running.look(
            Interval {
                low: -2.0,
                high: 2.0,
            },
            0.9,
        );
        assert_eq!(
            running.interval,
            Interval {
                low: -1.0,
                high: 2.0
            }
        );
        assert_eq!(running.p_value, 0.5);
        running.look(
            Interval {
                low: 5.0,
                high: 6.0,
            },
            0.04,
        );
        assert_eq!(running.interval.low, 5.0);
    }
}
