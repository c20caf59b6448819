//! Judges beside people: what a judge's scores say once some of them were checked.
//!
//! A judge is cheap and biased, people are dear and few. Prediction-powered inference
//! takes the judge's mean over everything and corrects it by the mean error on the rows
//! that people labelled; the interval knows of both uncertainties. For yes and no there is
//! also the older correction by the judge's known error rates.

use serde::Serialize;

use crate::interval::mcnemar_exact;
use crate::invalid::{Invalid, all_finite, valid_alpha};
use crate::mean::{MeanEstimate, of_summary};
use crate::sequential::Interval;
use crate::special::{float, normal_quantile, t_quantile};
use crate::summary::Summary;

/// A row that a person and the judge both scored.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Labelled {
    /// The person's score.
    pub human: f64,
    /// The judge's score.
    pub judge: f64,
}

/// How far the judge is trusted.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Trust {
    /// λ = 1: the judge's mean, corrected.
    Whole,
    /// λ from the data, between 0 and 1: never much worse than without a judge, even if the
    /// judge is useless (Angelopoulos, Duchi, Zrnic, "PPI++", arXiv 2311.01453).
    Tuned,
}

/// A headline number that rests on a judge and on people.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct PredictionPowered {
    /// The corrected mean; `None` without labelled rows, or without any of the judge's alone.
    pub estimate: Option<f64>,
    /// Its standard error.
    pub standard_error: f64,
    /// Its interval.
    pub interval: Interval,
    /// How far the judge was trusted.
    pub lambda: f64,
    /// What the labelled rows alone say.
    pub human_only: MeanEstimate,
    /// The interval of that.
    pub human_interval: Interval,
    /// The judge's mean over the rows that nobody labelled: biased.
    pub judge_only: MeanEstimate,
    /// The mean of person less judge: the bias.
    pub bias: MeanEstimate,
}

/// Prediction-powered inference of a mean (Angelopoulos and others, Science 2023):
/// `θ = λ·mean(judge)_N + mean(human − λ·judge)_n` with variance
/// `λ²·Var(judge)/N + Var(human − λ·judge)/n`, and Student's t with Welch's degrees of freedom.
/// `judge_alone` are the judge's scores of the N rows without a person's; the n labelled rows
/// must have been drawn at random. Tuned: `λ = Cov(human, judge)/((1 + n/N)·Var(judge))`.
pub fn prediction_powered_mean(
    labelled: &[Labelled],
    judge_alone: &[f64],
    trust: Trust,
    alpha: f64,
) -> Result<PredictionPowered, Invalid> {
    valid_alpha(alpha)?;
    all_finite("people's scores", labelled.iter().map(|row| row.human))?;
    all_finite(
        "the judge's scores of labelled rows",
        labelled.iter().map(|row| row.judge),
    )?;
    all_finite("the judge's scores", judge_alone.iter().copied())?;
    let alone: Summary = judge_alone.iter().copied().collect();
    let lambda = match trust {
        Trust::Whole => 1.0,
        Trust::Tuned => tuned(labelled, &alone),
    };
    let corrected: Summary = labelled
        .iter()
        .map(|row| row.human - lambda * row.judge)
        .collect();
    let human_only = of_summary(&labelled.iter().map(|row| row.human).collect());
    let bias = of_summary(&labelled.iter().map(|row| row.human - row.judge).collect());
    let parts = [
        lambda * lambda * alone.variance() / alone.count().max(1.0),
        corrected.variance() / corrected.count().max(1.0),
    ];
    let estimate = lambda * alone.mean + corrected.mean;
    let standard_error = (parts[0] + parts[1]).sqrt();
    let interval = if alone.n < 2 || corrected.n < 2 {
        Interval::ALL
    } else if standard_error == 0.0 {
        Interval::around(estimate, 0.0)
    } else {
        let degrees = welch(parts, [alone.count() - 1.0, corrected.count() - 1.0]);
        Interval::around(
            estimate,
            t_quantile(1.0 - alpha / 2.0, degrees) * standard_error,
        )
    };
    Ok(PredictionPowered {
        estimate: (alone.n > 0 && corrected.n > 0).then_some(estimate),
        standard_error,
        interval,
        lambda,
        human_only,
        human_interval: human_only.interval(alpha),
        judge_only: of_summary(&alone),
        bias,
    })
}

/// The λ with the least variance, from the covariance on the labelled rows and the spread of
/// all of the judge's scores.
fn tuned(labelled: &[Labelled], alone: &Summary) -> f64 {
    let human: Summary = labelled.iter().map(|row| row.human).collect();
    let judge: Summary = labelled.iter().map(|row| row.judge).collect();
    let mut all = judge;
    all.merge(alone);
    if human.n < 2 || alone.n < 1 || all.variance() == 0.0 {
        return 0.0;
    }
    let product = |row: &Labelled| (row.human - human.mean) * (row.judge - judge.mean);
    let covariance = labelled.iter().map(product).sum::<f64>() / (human.count() - 1.0);
    let share = 1.0 + human.count() / alone.count();
    (covariance / (share * all.variance())).clamp(0.0, 1.0)
}

/// The degrees of freedom of a sum of two estimated variances (Welch 1947).
fn welch(parts: [f64; 2], degrees: [f64; 2]) -> f64 {
    let whole = (parts[0] + parts[1]).powi(2);
    whole / (parts[0] * parts[0] / degrees[0] + parts[1] * parts[1] / degrees[1])
}

/// How a judge of yes and no did on the rows that people labelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checked {
    /// Rows that people called yes.
    pub yes: u64,
    /// How many of these the judge called yes too.
    pub found_yes: u64,
    /// Rows that people called no.
    pub no: u64,
    /// How many of these the judge called no too.
    pub found_no: u64,
}

/// A rate, corrected for the judge's errors.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct CorrectedRate {
    /// The corrected rate, between 0 and 1.
    pub rate: f64,
    /// Its interval.
    pub interval: Interval,
    /// The share of true yes that the judge finds.
    pub sensitivity: f64,
    /// The share of true no that the judge finds.
    pub specificity: f64,
}

/// Rogan and Gladen's correction (1978), `(p + spec − 1)/(sens + spec − 1)`, of a judge's rate
/// p of `judged_yes` in `judged` rows, with the interval of Lang and Reiczigel (2014), which
/// knows that sensitivity and specificity are estimates too. `None` if there are no rows, no
/// labelled yes or no labelled no, or if the judge is no better than a coin (sens + spec ≤ 1).
pub fn rogan_gladen(
    judged_yes: u64,
    judged: u64,
    checked: &Checked,
    alpha: f64,
) -> Result<Option<CorrectedRate>, Invalid> {
    valid_alpha(alpha)?;
    for (what, part, whole) in [
        ("judged yes", judged_yes, judged),
        ("found yes", checked.found_yes, checked.yes),
        ("found no", checked.found_no, checked.no),
    ] {
        if part > whole {
            return Err(Invalid::OutOfRange {
                what,
                value: float(part),
                allowed: "at most the rows it is counted in",
            });
        }
    }
    if judged == 0 || checked.yes == 0 || checked.no == 0 {
        return Ok(None);
    }
    let sensitivity = float(checked.found_yes) / float(checked.yes);
    let specificity = float(checked.found_no) / float(checked.no);
    let gain = sensitivity + specificity - 1.0;
    if gain <= 0.0 {
        return Ok(None);
    }
    let rate = (float(judged_yes) / float(judged) + specificity - 1.0) / gain;
    Ok(Some(CorrectedRate {
        rate: rate.clamp(0.0, 1.0),
        interval: lang_reiczigel(judged_yes, judged, checked, alpha),
        sensitivity,
        specificity,
    }))
}

/// Each of the three rates is drawn to the middle first, then the error is propagated; the
/// interval is moved by `2z²(θ·v_sens − (1−θ)·v_spec)`.
fn lang_reiczigel(judged_yes: u64, judged: u64, checked: &Checked, alpha: f64) -> Interval {
    let z = normal_quantile(1.0 - alpha / 2.0);
    let (square, n) = (z * z, float(judged));
    let p = (float(judged_yes) + square / 2.0) / (n + square);
    let drawn = |part: u64, whole: u64| {
        let (rate, n) = (
            (float(part) + 1.0) / (float(whole) + 2.0),
            float(whole) + 2.0,
        );
        (rate, rate * (1.0 - rate) / n)
    };
    let (sensitivity, sensitivity_variance) = drawn(checked.found_yes, checked.yes);
    let (specificity, specificity_variance) = drawn(checked.found_no, checked.no);
    let gain = sensitivity + specificity - 1.0;
    if gain <= 0.0 {
        return Interval {
            low: 0.0,
            high: 1.0,
        };
    }
    let rate = ((p + specificity - 1.0) / gain).clamp(0.0, 1.0);
    let (yes, no) = (
        rate * sensitivity_variance,
        (1.0 - rate) * specificity_variance,
    );
    let centre = rate + 2.0 * square * (yes - no);
    let variance = p * (1.0 - p) / (n + square) + rate * yes + (1.0 - rate) * no;
    let half_width = z * variance.sqrt() / gain;
    Interval {
        low: (centre - half_width).clamp(0.0, 1.0),
        high: (centre + half_width).clamp(0.0, 1.0),
    }
}

/// Whom a judge preferred in a pair. The names are those of the candidates, not of the places.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Preference {
    /// The first candidate.
    First,
    /// The second candidate.
    Second,
    /// Neither.
    Tie,
}

/// A judge asked twice about each pair, with the places exchanged.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct SwapConsistency {
    /// How many pairs.
    pub pairs: u64,
    /// Pairs with the same answer both times.
    pub consistent: u64,
    /// Their share; `None` without pairs.
    pub rate: Option<f64>,
    /// Wilson's interval of that.
    pub interval: Interval,
    /// Pairs where the candidate in the first place was preferred both times.
    pub first_place: u64,
    /// Pairs where the candidate in the second place was preferred both times.
    pub second_place: u64,
    /// The exact p-value of "neither place is preferred".
    pub place_p_value: f64,
    /// Consistent wins of the first candidate. Everything that is not consistent is a tie.
    pub first_wins: u64,
    /// Consistent wins of the second candidate.
    pub second_wins: u64,
    /// All other pairs.
    pub ties: u64,
}

/// Counts answers: for each pair, the one given with the first candidate in the first place,
/// then the one given with the places exchanged.
pub fn swap_consistency(answers: &[(Preference, Preference)], alpha: f64) -> SwapConsistency {
    use Preference::{First, Second};
    let count = |wanted: &dyn Fn(&(Preference, Preference)) -> bool| {
        answers.iter().filter(|answer| wanted(answer)).count() as u64
    };
    let pairs = answers.len() as u64;
    let consistent = count(&|(straight, swapped)| straight == swapped);
    let first_place = count(&|answer| *answer == (First, Second));
    let second_place = count(&|answer| *answer == (Second, First));
    let first_wins = count(&|answer| *answer == (First, First));
    let second_wins = count(&|answer| *answer == (Second, Second));
    SwapConsistency {
        pairs,
        consistent,
        rate: (pairs > 0).then(|| float(consistent) / float(pairs)),
        interval: crate::interval::wilson(consistent, pairs, alpha),
        first_place,
        second_place,
        place_p_value: mcnemar_exact(first_place, second_place),
        first_wins,
        second_wins,
        ties: pairs - first_wins - second_wins,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(human: &[f64], judge: &[f64]) -> Vec<Labelled> {
        let pair = |(human, judge): (&f64, &f64)| Labelled {
            human: *human,
            judge: *judge,
        };
        human.iter().zip(judge).map(pair).collect()
    }

    #[test]
    fn prediction_powered_by_hand() {
        // Judge alone 2, 4, 6: mean 4, variance 4. Person less judge −1, 0, 1, −2: mean −0.5, variance 5/3.
        let labelled = rows(&[1.0, 3.0, 6.0, 2.0], &[2.0, 3.0, 5.0, 4.0]);
        let found =
            prediction_powered_mean(&labelled, &[2.0, 4.0, 6.0], Trust::Whole, 0.05).unwrap();
        assert_eq!(found.estimate, Some(3.5));
        let variance: f64 = 4.0 / 3.0 + 5.0 / 12.0;
        assert!((found.standard_error - variance.sqrt()).abs() < 1e-12);
        assert!(found.interval.holds(3.5) && found.lambda == 1.0);
        assert_eq!((found.human_only.mean, found.bias.mean), (3.0, -0.5));
        // A judge that always says the same teaches nothing.
        let tuned = prediction_powered_mean(
            &rows(&[1.0, 2.0], &[5.0, 5.0]),
            &[5.0; 9],
            Trust::Tuned,
            0.05,
        )
        .unwrap();
        assert_eq!((tuned.lambda, tuned.estimate), (0.0, Some(1.5)));
        assert_eq!(tuned.standard_error, tuned.human_only.standard_error);
    }

    #[test]
    fn little_data() {
        let none = prediction_powered_mean(&[], &[], Trust::Tuned, 0.05).unwrap();
        assert_eq!((none.estimate, none.interval), (None, Interval::ALL));
        let one = rows(&[1.0], &[0.0]);
        let one = prediction_powered_mean(&one, &[0.0, 1.0], Trust::Whole, 0.05).unwrap();
        assert_eq!((one.estimate, one.interval), (Some(1.5), Interval::ALL));
        let bad = prediction_powered_mean(&[], &[f64::NAN], Trust::Whole, 0.05);
        assert!(bad.is_err());
        assert!(prediction_powered_mean(&[], &[], Trust::Whole, 2.0).is_err());
    }

    #[test]
    fn rogan_gladen_by_hand() {
        let checked = Checked {
            yes: 50,
            found_yes: 45,
            no: 50,
            found_no: 40,
        };
        // (0.4 + 0.8 − 1)/(0.9 + 0.8 − 1) = 0.2/0.7.
        let found = rogan_gladen(400, 1_000, &checked, 0.05).unwrap().unwrap();
        assert!((found.rate - 0.2 / 0.7).abs() < 1e-12);
        assert!(found.interval.holds(found.rate));
        // Fewer yes than false alarms alone would give.
        assert_eq!(
            rogan_gladen(10, 1_000, &checked, 0.05)
                .unwrap()
                .unwrap()
                .rate,
            0.0
        );
        let coin = Checked {
            found_yes: 10,
            found_no: 40,
            ..checked
        };
        assert_eq!(rogan_gladen(1, 2, &coin, 0.05), Ok(None));
        assert_eq!(rogan_gladen(0, 0, &checked, 0.05), Ok(None));
        let one_class = Checked {
            no: 0,
            found_no: 0,
            ..checked
        };
        assert_eq!(rogan_gladen(1, 2, &one_class, 0.05), Ok(None));
        assert!(rogan_gladen(3, 2, &checked, 0.05).is_err());
    }

    #[test]
    fn swaps() {
        use Preference::{First, Second, Tie};
        let answers = [
            (First, First),
            (First, Second),
            (First, Second),
            (Second, Second),
            (Tie, Tie),
            (Second, First),
            (Tie, First),
            (First, First),
        ];
        let found = swap_consistency(&answers, 0.05);
        assert_eq!((found.consistent, found.rate), (4, Some(0.5)));
        assert_eq!((found.first_place, found.second_place), (2, 1));
        assert_eq!((found.first_wins, found.second_wins, found.ties), (2, 1, 5));
        assert!((found.place_p_value - 1.0).abs() < 1e-12);
        assert_eq!(swap_consistency(&[], 0.05).rate, None);
    }
}
