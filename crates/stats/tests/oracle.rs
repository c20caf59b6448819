//! Every formula beside scipy, statsmodels, scikit-learn and krippendorff.
//!
//! `oracle.json` holds frozen cases, so this runs without Python; `oracle/run` makes fresh
//! random ones and names their folder in `MEGURI_ORACLE`. What a case means is written in
//! `oracle/stats.py`.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use serde_json::Value;
use stats::{
    Bootstrap, Checked, Confusion, Labelled, Level, PairedCounts, Resampling, Trust, Weights,
};

fn number(given: &Value, name: &str) -> f64 {
    given[name]
        .as_f64()
        .unwrap_or_else(|| panic!("{name} in {given}"))
}

fn count(given: &Value, name: &str) -> u64 {
    given[name]
        .as_u64()
        .unwrap_or_else(|| panic!("{name} in {given}"))
}

fn list(given: &Value, name: &str) -> Vec<f64> {
    let items = given[name]
        .as_array()
        .unwrap_or_else(|| panic!("{name} in {given}"));
    items.iter().map(|item| item.as_f64().unwrap()).collect()
}

fn counts(given: &Value, name: &str) -> Vec<u64> {
    let items = given[name]
        .as_array()
        .unwrap_or_else(|| panic!("{name} in {given}"));
    items.iter().map(|item| item.as_u64().unwrap()).collect()
}

fn ends(interval: stats::Interval) -> Vec<f64> {
    vec![interval.low, interval.high]
}

fn confusion(given: &Value) -> Confusion {
    let places = |name| {
        let numbers = counts(given, name).into_iter();
        numbers.map(|label| usize::try_from(label).unwrap())
    };
    let pairs: Vec<_> = places("first").zip(places("second")).collect();
    Confusion::count(usize::try_from(count(given, "labels")).unwrap(), &pairs).unwrap()
}

/// What we say to a case; NaN stands for no value.
fn ours(of: &str, given: &Value) -> Vec<f64> {
    match of {
        "wilson" | "clopper_pearson" | "jeffreys" => rate(of, given),
        "mcnemar_exact" => vec![stats::mcnemar_exact(count(given, "b"), count(given, "c"))],
        "mcnemar_mid_p" => vec![stats::mcnemar_mid_p(count(given, "b"), count(given, "c"))],
        "mcnemar_chi_square" => {
            vec![stats::mcnemar_chi_square(
                count(given, "b"),
                count(given, "c"),
            )]
        }
        "paired_rates_interval" => paired_rates(given),
        "mean" | "clustered_mean" | "equivalence" => mean(of, given),
        "holm" => stats::holm(&list(given, "p")),
        "paired_mean_power" | "paired_mean_pairs" | "detectable_paired_mean" => power(of, given),
        "permutation" | "draws" | "bootstrap_mean" => resampled(of, given),
        "confusion" | "percent" | "kappa" | "krippendorff" => agreement(of, given),
        "prediction_powered" => prediction_powered(given),
        "rogan_gladen" => rogan_gladen(given),
        "pass" => {
            let [n, c, k] = ["n", "c", "k"].map(|name| count(given, name));
            vec![
                stats::pass_at_k(n, c, k).unwrap(),
                stats::pass_all_k(n, c, k).unwrap(),
            ]
        }
        other => panic!("no such function: {other}"),
    }
}

fn rate(of: &str, given: &Value) -> Vec<f64> {
    let (s, n, alpha) = (
        count(given, "successes"),
        count(given, "n"),
        number(given, "alpha"),
    );
    ends(match of {
        "wilson" => stats::wilson(s, n, alpha),
        "clopper_pearson" => stats::clopper_pearson(s, n, alpha),
        _ => stats::jeffreys(s, n, alpha),
    })
}

fn paired_rates(given: &Value) -> Vec<f64> {
    let [both, only_first, only_second, neither] = counts(given, "counts").try_into().unwrap();
    let counts = PairedCounts {
        both,
        only_first,
        only_second,
        neither,
    };
    ends(stats::paired_rates_interval(
        &counts,
        number(given, "alpha"),
    ))
}

fn mean(of: &str, given: &Value) -> Vec<f64> {
    let values = list(given, "values");
    if of == "clustered_mean" {
        let found = stats::estimate_clustered_mean(&values, &counts(given, "clusters")).unwrap();
        let interval = found.interval(number(given, "alpha"));
        let all = [
            found.mean,
            found.standard_error,
            found.degrees,
            interval.low,
            interval.high,
        ];
        return all.to_vec();
    }
    let found = stats::estimate_mean(&values).unwrap();
    if of == "equivalence" {
        return vec![found.equivalence_p_value(number(given, "margin"))];
    }
    let interval = found.interval(number(given, "alpha"));
    vec![
        found.mean,
        found.standard_error,
        interval.low,
        interval.high,
        found.p_value(0.0),
    ]
}

fn power(of: &str, given: &Value) -> Vec<f64> {
    let alpha = number(given, "alpha");
    let found = match of {
        "paired_mean_power" => {
            stats::paired_mean_power(number(given, "effect"), count(given, "n"), alpha).unwrap()
        }
        "paired_mean_pairs" => {
            let (effect, power) = (number(given, "effect"), number(given, "power"));
            stats::paired_mean_pairs(effect, alpha, power)
                .unwrap()
                .unwrap() as f64
        }
        _ => {
            let mean = stats::estimate_mean(&list(given, "values")).unwrap();
            stats::detectable_paired_mean(&mean, alpha, number(given, "power"))
        }
    };
    vec![found]
}

fn resampled(of: &str, given: &Value) -> Vec<f64> {
    let how = Resampling {
        resamples: 10_000,
        seed: 1,
    };
    match of {
        "permutation" => {
            vec![stats::permutation_p_value(&list(given, "values"), None, how).unwrap()]
        }
        "bootstrap_mean" => {
            let found = stats::bootstrap_mean(&list(given, "values"), None, how).unwrap();
            ends(found.percentile(0.05))
        }
        _ => {
            let found = Bootstrap {
                estimate: number(given, "estimate"),
                draws: list(given, "draws"),
                units: usize::try_from(count(given, "units")).unwrap(),
                undefined: 0,
            };
            let alpha = number(given, "alpha");
            let mut all = ends(found.percentile(alpha));
            all.extend(ends(found.expanded(alpha)));
            all.extend([found.p_value(), found.sacrebleu_p_value()]);
            all
        }
    }
}

fn agreement(of: &str, given: &Value) -> Vec<f64> {
    let value = match of {
        "confusion" => {
            let cells = confusion(given).counts.into_iter().flatten();
            return cells.map(|cell| cell as f64).collect();
        }
        "percent" => confusion(given).percent_agreement(),
        "kappa" => confusion(given).kappa(match given["weights"].as_str() {
            Some("linear") => Weights::Linear,
            Some(_) => Weights::Quadratic,
            None => Weights::None,
        }),
        _ => {
            let ratings: Vec<Vec<Option<f64>>> =
                serde_json::from_value(given["ratings"].clone()).unwrap();
            let level = match given["level"].as_str().unwrap() {
                "nominal" => Level::Nominal,
                "ordinal" => Level::Ordinal,
                _ => Level::Interval,
            };
            stats::krippendorff(&ratings, level).unwrap().value
        }
    };
    vec![value.unwrap_or(f64::NAN)]
}

fn prediction_powered(given: &Value) -> Vec<f64> {
    let pairs = list(given, "human").into_iter().zip(list(given, "judge"));
    let labelled: Vec<Labelled> = pairs
        .map(|(human, judge)| Labelled { human, judge })
        .collect();
    let trust = match given["trust"].as_str().unwrap() {
        "whole" => Trust::Whole,
        _ => Trust::Tuned,
    };
    let (alone, alpha) = (list(given, "alone"), number(given, "alpha"));
    let found = stats::prediction_powered_mean(&labelled, &alone, trust, alpha).unwrap();
    let mut all = vec![found.estimate.unwrap(), found.standard_error];
    all.extend(ends(found.interval));
    all.push(found.lambda);
    all
}

fn rogan_gladen(given: &Value) -> Vec<f64> {
    let [yes, found_yes, no, found_no] = counts(given, "checked").try_into().unwrap();
    let checked = Checked {
        yes,
        found_yes,
        no,
        found_no,
    };
    let (judged_yes, judged) = (count(given, "judged_yes"), count(given, "judged"));
    let found = stats::rogan_gladen(judged_yes, judged, &checked, number(given, "alpha"));
    let found = found.unwrap().unwrap();
    let (low, high) = (found.interval.low, found.interval.high);
    vec![found.rate, low, high, found.sensitivity, found.specificity]
}

fn close(ours: f64, theirs: Option<f64>, within: f64) -> bool {
    match theirs {
        Some(theirs) => (ours - theirs).abs() <= within * theirs.abs().max(1.0),
        None => ours.is_nan(),
    }
}

/// Checks all cases of a file and returns how many there were of each function.
fn check(text: &str) -> std::collections::BTreeMap<String, u32> {
    let cases: Vec<Value> = serde_json::from_str(text).unwrap();
    let (mut seen, mut wrong) = (std::collections::BTreeMap::new(), Vec::new());
    for case in &cases {
        let of = case["of"].as_str().unwrap();
        *seen.entry(of.to_owned()).or_default() += 1;
        let found = ours(of, &case["in"]);
        let theirs: Vec<Option<f64>> = serde_json::from_value(case["out"].clone()).unwrap();
        let within = case["within"].as_f64().unwrap();
        let mut both = found.iter().zip(&theirs);
        if found.len() != theirs.len() || !both.all(|(a, b)| close(*a, *b, within)) {
            wrong.push(format!(
                "{of} of {}: {found:?} is not {theirs:?}",
                case["in"]
            ));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    seen
}

#[test]
fn frozen_cases() {
    let seen = check(include_str!("oracle.json"));
    assert!(
        seen.len() >= 22 && seen.values().all(|cases| *cases >= 3),
        "{seen:?}"
    );
}

#[test]
fn fresh_cases() {
    // Only `oracle/run` makes them.
    if let Some(folder) = std::env::var_os("MEGURI_ORACLE") {
        let path = std::path::Path::new(&folder).join("stats.json");
        let seen = check(&std::fs::read_to_string(path).unwrap());
        assert!(seen.len() >= 22, "{seen:?}");
    }
}
