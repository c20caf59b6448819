//! The promises of the methods for finished samples, simulated: intervals at 95 % hold the
//! truth in 93 to 97 of 100 data sets, tests raise a false alarm in no more than 5.
//!
//! Seeds are fixed, so a failure is a change of the code and never bad luck. A method that
//! errs with probability exactly 5 % shows more than 5 % + 2.33·√(0.05·0.95/runs) in one of a
//! hundred simulations; that is the tolerance of the alarms.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use stats::{
    Better, Halving, Labelled, Method, Outcome, Pair, Plan, Resampling, Scoreboard, Trust, Verdict,
};

const ALPHA: f64 = 0.05;

fn normal(random: &mut StdRng) -> f64 {
    let radius = (-2.0 * (1.0 - random.random::<f64>()).ln()).sqrt();
    radius * (std::f64::consts::TAU * random.random::<f64>()).cos()
}

fn exponential(random: &mut StdRng) -> f64 {
    -(1.0 - random.random::<f64>()).ln()
}

fn coin(random: &mut StdRng, rate: f64) -> f64 {
    f64::from(u8::from(random.random::<f64>() < rate))
}

/// The share of runs in which something happened.
fn share(seed: u64, runs: u32, mut happens: impl FnMut(&mut StdRng) -> bool) -> f64 {
    let mut random = StdRng::seed_from_u64(seed);
    let hits = (0..runs).filter(|_| happens(&mut random)).count();
    hits as f64 / f64::from(runs)
}

fn most_alarms(runs: u32) -> f64 {
    ALPHA + 2.33 * (ALPHA * (1.0 - ALPHA) / f64::from(runs)).sqrt()
}

#[track_caller]
fn covers(coverage: f64) {
    assert!((0.93..=0.97).contains(&coverage), "{coverage}");
}

fn plan(resamples: u32) -> Plan {
    Plan {
        resampling: Resampling { resamples, seed: 9 },
        ..Plan::default()
    }
}

fn pairs(rows: usize, mut row: impl FnMut() -> (f64, f64)) -> Vec<Pair> {
    (0..rows)
        .map(|_| row())
        .map(|(first, second)| Pair::new(first, second))
        .collect()
}

/// The mean over rates of how often an interval of one rate holds it.
fn mean_coverage(n: u64, interval: impl Fn(u64, u64, f64) -> stats::Interval) -> (f64, f64) {
    let intervals: Vec<_> = (0..=n).map(|s| interval(s, n, ALPHA)).collect();
    let rates: Vec<f64> = (1..100).map(|at| f64::from(at) / 100.0).collect();
    let covered = |rate: &f64| {
        let (mut chance, mut covered) = ((1.0 - rate).powi(i32::try_from(n).unwrap()), 0.0);
        for (s, interval) in intervals.iter().enumerate() {
            if interval.holds(*rate) {
                covered += chance;
            }
            chance *= rate / (1.0 - rate) * (n as f64 - s as f64) / (s as f64 + 1.0);
        }
        covered
    };
    let all: Vec<f64> = rates.iter().map(covered).collect();
    let least = all.iter().copied().fold(1.0, f64::min);
    (all.iter().sum::<f64>() / all.len() as f64, least)
}

/// Exactly, not by simulation: one rate, over all rates from 1 % to 99 %.
#[test]
fn intervals_of_one_rate() {
    for n in [10, 30, 100] {
        covers(mean_coverage(n, stats::wilson).0);
        covers(mean_coverage(n, stats::jeffreys).0);
        // This one promises never to be below.
        assert!(mean_coverage(n, stats::clopper_pearson).1 >= 0.95);
    }
}

#[test]
fn binary_pairs() {
    // Correlated answers: most rows are easy or hard for both.
    for (seed, rows, gain) in [(1, 30, 0.0), (2, 100, 0.1), (3, 400, 0.02)] {
        let coverage = share(seed, 2_000, |random| {
            let found = compare(random, rows, gain);
            assert_eq!(found.method, Method::McNemar);
            found.interval.holds(gain)
        });
        covers(coverage);
    }
    for (seed, rows) in [(4, 30), (5, 200)] {
        let alarms = share(seed, 2_000, |random| decided(&compare(random, rows, 0.0)));
        assert!(alarms <= most_alarms(2_000), "{alarms}");
    }
    fn compare(random: &mut StdRng, rows: usize, gain: f64) -> stats::Comparison {
        let pairs = pairs(rows, || {
            let ease = random.random::<f64>();
            let rate = if ease < 0.4 { 0.9 - gain } else { 0.3 };
            let extra = if ease < 0.4 { gain / 0.4 } else { 0.0 };
            (coin(random, rate), coin(random, rate + extra))
        });
        stats::compare(&pairs, &plan(1_000)).unwrap()
    }
}

fn decided(found: &stats::Comparison) -> bool {
    matches!(found.verdict, Verdict::Better | Verdict::Worse)
}

#[test]
fn bounded_scores_by_bootstrap() {
    // Judges' scores pile up at the top: skewed, and a third of the rows is the same for both.
    let score =
        |random: &mut StdRng, shift: f64| (1.0 - 0.3 * exponential(random) + shift).clamp(0.0, 1.0);
    for (seed, rows) in [(11, 40), (12, 90)] {
        let mut alarms = 0;
        let coverage = share(seed, 600, |random| {
            let pairs = pairs(rows, || {
                let first = score(random, 0.0);
                let same = random.random::<f64>() < 0.33;
                (first, if same { first } else { score(random, 0.0) })
            });
            let found = stats::compare(&pairs, &plan(300)).unwrap();
            assert_eq!(found.method, Method::PairedBootstrap);
            alarms += u32::from(decided(&found));
            found.interval.holds(0.0)
        });
        covers(coverage);
        assert!(
            f64::from(alarms) / 1_000.0 <= most_alarms(1_000),
            "{alarms}"
        );
    }
}

#[test]
fn skewed_means() {
    // The mean of one skewed sample, the hard case: its interval leans the wrong way.
    for (seed, n) in [(21, 150), (22, 300)] {
        let coverage = share(seed, 1_500, |random| {
            let values: Vec<f64> = (0..n).map(|_| exponential(random)).collect();
            stats::estimate_mean(&values)
                .unwrap()
                .interval(ALPHA)
                .holds(1.0)
        });
        covers(coverage);
    }
    let coverage = share(121, 500, |random| {
        let values: Vec<f64> = (0..150).map(|_| exponential(random)).collect();
        let how = plan(400).resampling;
        let found = stats::bootstrap_mean(&values, None, how).unwrap();
        found.expanded(ALPHA).holds(1.0)
    });
    covers(coverage);
}

#[test]
fn few_rows_without_a_range() {
    // Latency: differences of two skewed numbers. With still fewer rows of such heavy tails
    // Student's t is more cautious than it says.
    for (seed, rows) in [(31, 15), (32, 25)] {
        let mut alarms = 0;
        let coverage = share(seed, 1_500, |random| {
            let pairs = pairs(rows, || {
                let base = 2.0 + 3.0 * exponential(random);
                (base + exponential(random), base + 0.5 + exponential(random))
            });
            let found = stats::compare(&pairs, &plan(500)).unwrap();
            assert_eq!(found.method, Method::PairedT);
            found.interval.holds(0.5)
        });
        covers(coverage);
        share(seed + 50, 1_500, |random| {
            let pairs = pairs(rows, || {
                (exponential(random) * 9.0, exponential(random) * 9.0)
            });
            alarms += u32::from(decided(&stats::compare(&pairs, &plan(500)).unwrap()));
            true
        });
        assert!(
            f64::from(alarms) / 2_000.0 <= most_alarms(2_000),
            "{alarms}"
        );
    }
}

/// Rows of documents of uneven size; the rows of a document are alike.
fn documents(random: &mut StdRng, groups: u64) -> Vec<Pair> {
    let mut pairs = Vec::new();
    for group in 0..groups {
        let own = normal(random);
        for _ in 0..random.random_range(1..=8) {
            let second = own + 0.7 * normal(random);
            let mut pair = Pair::new(3.0, 3.0 + second);
            pair.cluster = Some(group);
            pairs.push(pair);
        }
    }
    pairs
}

#[test]
fn rows_in_clusters() {
    for (seed, groups) in [(41, 8), (42, 20), (43, 60)] {
        let mut alarms = 0;
        let coverage = share(seed, 1_500, |random| {
            let found = stats::compare(&documents(random, groups), &plan(500)).unwrap();
            assert_eq!(found.method, Method::ClusterRobust);
            alarms += u32::from(decided(&found));
            found.interval.holds(0.0)
        });
        covers(coverage);
        assert!(
            f64::from(alarms) / 2_000.0 <= most_alarms(2_000),
            "{alarms}"
        );
    }
    // Why it matters: as if rows were independent, a third of all "findings" are false.
    let alarms = share(44, 500, |random| {
        let mut rows = documents(random, 20);
        rows.iter_mut().for_each(|row| row.cluster = None);
        decided(&stats::compare(&rows, &plan(500)).unwrap())
    });
    assert!(alarms > 0.2, "{alarms}");
}

#[test]
fn figures_of_the_whole_data_set() {
    // F1 of two systems that are the same.
    let f1 = |rows: &[usize], truth: &[bool], said: &[bool]| {
        let count = |wanted: fn(bool, bool) -> bool| {
            rows.iter()
                .filter(|row| wanted(truth[**row], said[**row]))
                .count() as f64
        };
        let both = count(|a, b| a && b);
        let uses = count(|a, _| a) + count(|_, b| b);
        (uses > 0.0).then(|| 2.0 * both / uses)
    };
    let mut alarms = 0;
    let coverage = share(51, 300, |random| {
        let truth: Vec<bool> = (0..80).map(|_| random.random::<f64>() < 0.4).collect();
        let mut system = || -> Vec<bool> {
            let right = |truth: &bool| {
                if random.random::<f64>() < 0.8 {
                    *truth
                } else {
                    !*truth
                }
            };
            truth.iter().map(right).collect()
        };
        let (first, second) = (system(), system());
        let found = stats::compare_corpus(80, None, &plan(200), |rows| {
            Some([f1(rows, &truth, &first)?, f1(rows, &truth, &second)?])
        })
        .unwrap();
        alarms += u32::from(decided(&found));
        found.interval.holds(0.0)
    });
    covers(coverage);
    assert!(f64::from(alarms) / 300.0 <= most_alarms(300), "{alarms}");
}

#[test]
fn p_values_of_resampling() {
    // Skewed differences around 0, more than are enumerated.
    let (mut permuted, mut drawn, mut like_sacrebleu) = (0, 0, 0);
    share(61, 1_000, |random| {
        let gaps: Vec<f64> = (0..40)
            .map(|_| exponential(random) - exponential(random))
            .collect();
        let how = plan(300).resampling;
        let alarm = |p: f64| u32::from(p <= ALPHA);
        permuted += alarm(stats::permutation_p_value(&gaps, None, how).unwrap());
        let found = stats::bootstrap_mean(&gaps, None, how).unwrap();
        drawn += alarm(found.p_value());
        like_sacrebleu += alarm(found.sacrebleu_p_value());
        true
    });
    let most = most_alarms(1_000) * 1_000.0;
    assert!(f64::from(permuted) <= most, "{permuted}");
    // The bootstrap's own test is not exact for few rows; it may be a little over.
    assert!(f64::from(drawn) <= most + 10.0, "{drawn}");
    // As its documentation says: one side only, so twice as many.
    assert!((75..=130).contains(&like_sacrebleu), "{like_sacrebleu}");
}

#[test]
fn equivalence_is_seldom_said_by_mistake() {
    // The true difference is exactly the margin, the hardest case.
    let plan = Plan {
        margin: 0.3,
        ..plan(300)
    };
    let said = share(71, 1_500, |random| {
        let pairs = pairs(60, || (5.0, 5.3 + normal(random)));
        stats::compare(&pairs, &plan).unwrap().verdict == Verdict::Equivalent
    });
    assert!(said <= most_alarms(1_500), "{said}");
    let said = share(72, 500, |random| {
        let pairs = pairs(400, || (5.0, 5.0 + normal(random)));
        stats::compare(&pairs, &plan).unwrap().verdict == Verdict::Equivalent
    });
    assert!(said > 0.95, "{said}");
    // The gate's question errs one-sided.
    let passed = share(73, 1_500, |random| {
        let pairs = pairs(60, || (5.0, 4.7 + normal(random)));
        let found = stats::compare(&pairs, &plan).unwrap();
        found.non_inferiority(0.3) == stats::NonInferiority::Shown
    });
    assert!(passed <= most_alarms(1_500), "{passed}");
}

#[test]
fn slices_together() {
    // Ten slices without any difference: some verdict in at most 5 of 100 data sets.
    let alarms = share(81, 300, |random| {
        let slice = |random: &mut StdRng| {
            let pairs = pairs(40, || (2.0, 2.0 + normal(random)));
            stats::compare(&pairs, &plan(300)).unwrap()
        };
        let mut all: Vec<_> = (0..10).map(|_| slice(random)).collect();
        stats::correct_for_many(&mut all);
        all.iter().any(decided)
    });
    assert!(alarms <= most_alarms(300), "{alarms}");
}

#[test]
fn power_is_what_was_planned() {
    for (seed, n, effect) in [(91, 10, 1.0), (92, 50, 0.4), (93, 120, 0.2)] {
        let planned = stats::paired_mean_power(effect, n, ALPHA).unwrap();
        let found = share(seed, 2_000, |random| {
            let gaps: Vec<f64> = (0..n).map(|_| effect + normal(random)).collect();
            stats::estimate_mean(&gaps).unwrap().p_value(0.0) <= ALPHA
        });
        assert!((found - planned).abs() < 0.027, "{found} is not {planned}");
    }
    // Rates: the exact test has a little less than the formula.
    let (rows, differ, gap) = (300, 0.2, 0.08);
    let planned = stats::paired_binary_power(differ, gap, rows, ALPHA);
    let wins = (differ + gap) / 2.0;
    let found = share(94, 2_000, |random| {
        let (mut ahead, mut behind) = (0, 0);
        for _ in 0..rows {
            let u = random.random::<f64>();
            ahead += u64::from(u < wins);
            behind += u64::from(u >= wins && u < differ);
        }
        stats::mcnemar_exact(ahead, behind) <= ALPHA
    });
    assert!(
        found <= planned + 0.02 && found >= planned - 0.06,
        "{found} is not {planned}"
    );
}

#[test]
fn judges_corrected_by_people() {
    // The judge is too kind by 0.4 and right in its order; people labelled 40 of 500.
    let (mut shorter, mut judge_alone) = (0, 0);
    let coverage = share(101, 1_000, |random| {
        let mut row = || {
            let human = normal(random);
            (human, human + 0.4 + 0.4 * normal(random))
        };
        let labelled: Vec<Labelled> = (0..40)
            .map(|_| row())
            .map(|(human, judge)| Labelled { human, judge })
            .collect();
        let alone: Vec<f64> = (0..460).map(|_| row().1).collect();
        let found = stats::prediction_powered_mean(&labelled, &alone, Trust::Whole, ALPHA).unwrap();
        let width = |interval: stats::Interval| interval.high - interval.low;
        shorter += u32::from(width(found.interval) < width(found.human_interval));
        judge_alone += u32::from(found.judge_only.interval(ALPHA).holds(0.0));
        found.interval.holds(0.0)
    });
    covers(coverage);
    assert!(shorter > 990 && judge_alone == 0, "{shorter} {judge_alone}");
    // Yes and no, few labels; and a judge that knows nothing costs nothing when tuned.
    for (seed, right) in [(102, 0.85), (103, 0.5)] {
        let mut width = [0.0, 0.0];
        let coverage = share(seed, 1_000, |random| {
            let mut row = || {
                let human = coin(random, 0.6);
                (
                    human,
                    if random.random::<f64>() < right {
                        human
                    } else {
                        1.0 - human
                    },
                )
            };
            let labelled: Vec<Labelled> = (0..60)
                .map(|_| row())
                .map(|(human, judge)| Labelled { human, judge })
                .collect();
            let alone: Vec<f64> = (0..600).map(|_| row().1).collect();
            let found =
                stats::prediction_powered_mean(&labelled, &alone, Trust::Tuned, ALPHA).unwrap();
            width[0] += found.interval.high - found.interval.low;
            width[1] += found.human_interval.high - found.human_interval.low;
            found.interval.holds(0.6)
        });
        covers(coverage);
        assert!(width[0] < 1.03 * width[1], "{width:?}");
    }
}

#[test]
fn rates_corrected_for_a_judge() {
    for (seed, rate) in [(111, 0.15), (112, 0.6)] {
        let coverage = share(seed, 2_000, |random| {
            let mut count =
                |n: u32, rate: f64| (0..n).filter(|_| random.random::<f64>() < rate).count() as u64;
            let checked = stats::Checked {
                yes: 60,
                found_yes: count(60, 0.9),
                no: 60,
                found_no: count(60, 0.8),
            };
            let judged_yes = count(500, rate * 0.9 + (1.0 - rate) * 0.2);
            let found = stats::rogan_gladen(judged_yes, 500, &checked, ALPHA).unwrap();
            found.unwrap().interval.holds(rate)
        });
        // This interval is known to be a little cautious.
        assert!((0.93..=0.98).contains(&coverage), "{coverage}");
    }
}

#[test]
fn a_good_candidate_is_seldom_dropped() {
    // Six candidates; 0 and 1 are the best two by little, 5 is far behind.
    let means = [0.62, 0.60, 0.58, 0.58, 0.5, 0.2];
    let how = Halving {
        keep: 2,
        started_with: 6,
        rounds: 3,
        alpha: ALPHA,
        least_rows: 20,
    };
    let mut far_behind = 0;
    let dropped = share(121, 300, |random| {
        let mut rows: Vec<Vec<f64>> = Vec::new();
        let mut lost = false;
        for _ in 0..how.rounds {
            rows.extend((0..40).map(|_| means.iter().map(|mean| coin(random, *mean)).collect()));
            let board = Scoreboard {
                rows: &rows,
                clusters: None,
                better: Better::Higher,
            };
            let fates = stats::halve(&board, &how).unwrap();
            lost |= !fates[0].stays || !fates[1].stays;
            far_behind += u32::from(!fates[5].stays);
        }
        lost
    });
    assert!(dropped <= most_alarms(300), "{dropped}");
    assert!(far_behind > 700, "dropped in {far_behind} of 900 rounds");
}

#[test]
fn the_probability_of_the_best_is_a_probability() {
    // Two candidates alike: whatever the data, neither is favoured on average.
    let mut sum = 0.0;
    let sure = share(131, 300, |random| {
        let rows: Vec<Vec<f64>> = (0..50)
            .map(|_| vec![normal(random), normal(random)])
            .collect();
        let board = Scoreboard {
            rows: &rows,
            clusters: None,
            better: Better::Higher,
        };
        let shares = stats::probability_of_best(&board, plan(200).resampling).unwrap();
        sum += shares[0];
        shares.iter().any(|share| *share > 0.975)
    });
    assert!((sum / 300.0 - 0.5).abs() < 0.05, "{sum}");
    assert!(sure <= most_alarms(300), "{sure}");
}

#[test]
fn means_beside_their_coverage() {
    let coverage = share(141, 2_000, |random| {
        let mut outcome = || match random.random_range(0..10) {
            0 => Outcome::Error,
            1 => Outcome::Unscored,
            _ => Outcome::Scored(coin(random, 0.8)),
        };
        let rows: Vec<Outcome> = (0..60).map(|_| outcome()).collect();
        let found = stats::covered_mean(&rows, None, None, ALPHA).unwrap();
        found.interval.holds(0.8)
    });
    covers(coverage);
}
