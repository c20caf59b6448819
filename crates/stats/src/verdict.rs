//! What may be said about two arms or two systems, in one word.

use serde::Serialize;

use crate::sequential::Interval;

/// Which direction of the metric is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Better {
    /// Scores, rates of success.
    Higher,
    /// Latency, cost, errors.
    Lower,
}

/// What the data shows about the second arm beside the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The whole interval lies on the good side of zero.
    Better,
    /// The whole interval lies on the bad side of zero.
    Worse,
    /// Shown to be too small a difference to matter. Only comparisons over a data set
    /// (`compare.rs`) say so; [`decide`] calls it a final `NoDifferenceShown`.
    Equivalent,
    /// Enough data, and it shows no difference that matters.
    NoDifferenceShown,
    /// Too few units to say anything.
    NotEnoughData,
}

impl Verdict {
    /// The word of the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Better => "better",
            Self::Worse => "worse",
            Self::Equivalent => "equivalent",
            Self::NoDifferenceShown => "no_difference_shown",
            Self::NotEnoughData => "not_enough_data",
        }
    }
}

/// The verdict on a difference (second arm less first), and whether it is final.
///
/// Practical equivalence: `equivalence` is the largest difference that nobody would act
/// on, 0 if every difference matters. If the whole interval lies within
/// [−equivalence, +equivalence], there is no difference that matters, even if it
/// excludes zero; that is final. An interval that holds zero and reaches beyond
/// the margin shows no difference either, but more data may yet: not final.
pub fn decide(
    interval: Interval,
    better: Better,
    equivalence: f64,
    enough: bool,
) -> (Verdict, bool) {
    if !enough {
        return (Verdict::NotEnoughData, false);
    }
    if -equivalence <= interval.low && interval.high <= equivalence {
        // With equivalence 0 this is a sample without any spread around zero: nothing is final then.
        return (Verdict::NoDifferenceShown, equivalence > 0.0);
    }
    let good_when_positive = better == Better::Higher;
    match (interval.low > 0.0, interval.high < 0.0) {
        (true, _) if good_when_positive => (Verdict::Better, true),
        (true, _) => (Verdict::Worse, true),
        (_, true) if good_when_positive => (Verdict::Worse, true),
        (_, true) => (Verdict::Better, true),
        _ => (Verdict::NoDifferenceShown, false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rule() {
        use Verdict::{Better as Good, NoDifferenceShown, NotEnoughData, Worse};
        let cases = [
            (0.1, 0.3, Better::Higher, 0.0, Good, true),
            (0.1, 0.3, Better::Lower, 0.0, Worse, true),
            (-0.3, -0.1, Better::Lower, 0.0, Good, true),
            (-0.3, -0.1, Better::Higher, 0.0, Worse, true),
            (-0.1, 0.3, Better::Higher, 0.0, NoDifferenceShown, false),
            // Different, and too little to matter.
            (0.001, 0.009, Better::Higher, 0.01, NoDifferenceShown, true),
            (-0.01, 0.01, Better::Higher, 0.01, NoDifferenceShown, true),
            (-0.02, 0.01, Better::Higher, 0.01, NoDifferenceShown, false),
            (0.005, 0.02, Better::Higher, 0.01, Good, true),
            (0.0, 0.0, Better::Higher, 0.0, NoDifferenceShown, false),
        ];
        for (low, high, better, equivalence, verdict, is_final) in cases {
            let found = decide(Interval { low, high }, better, equivalence, true);
            assert_eq!(found, (verdict, is_final), "{low} to {high}");
        }
        let wide = decide(Interval::ALL, Better::Higher, 0.0, false);
        assert_eq!(wide, (NotEnoughData, false));
    }
}
