//! The promises of the sequential methods, simulated: somebody looks after
//! every unit and stops at the first alarm.
//!
//! Each simulation has 1,000 runs with fixed seeds, so a failure is a change of
//! the code and never bad luck. A method that errs with probability exactly 5 %
//! would show more than 5 % + 2.33·√(0.05·0.95/1000) = 6.6 % in one of a hundred
//! simulations; that is the tolerance.

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use stats::{Summary, difference, rate_interval, rates_e_value};

const RUNS: u64 = 1_000;
const ALPHA: f64 = 0.05;
/// 5 % and the binomial tolerance of 1,000 runs.
const MOST_ALARMS: u64 = 66;

fn exponential(random: &mut StdRng) -> f64 {
    -(1.0 - random.random::<f64>()).ln()
}

fn coin(random: &mut StdRng, rate: f64) -> f64 {
    if random.random::<f64>() < rate {
        1.0
    } else {
        0.0
    }
}

/// What one run showed.
#[derive(Default)]
struct Seen {
    /// Some interval left zero out.
    alarm: bool,
    /// Some interval left the truth out.
    missed: bool,
}

/// Units arrive one by one in a random arm with this share for the second; somebody looks after each.
fn peek(
    random: &mut StdRng,
    units: u32,
    share: f64,
    truth: f64,
    mut observe: impl FnMut(&mut StdRng, bool) -> f64,
) -> Seen {
    let (mut first, mut second, mut seen) =
        (Summary::default(), Summary::default(), Seen::default());
    for _ in 0..units {
        let treated = random.random::<f64>() < share;
        let value = observe(random, treated);
        if treated { &mut second } else { &mut first }.add(value);
        let look = difference(&first, &second, 1_000, ALPHA);
        seen.alarm |= look.p_value <= ALPHA;
        seen.missed |= !look.interval.holds(truth);
    }
    seen
}

fn simulate(seed: u64, mut run: impl FnMut(&mut StdRng) -> Seen) -> (u64, u64) {
    let (mut alarms, mut missed) = (0, 0);
    for number in 0..RUNS {
        let seen = run(&mut StdRng::seed_from_u64(seed * RUNS + number));
        alarms += u64::from(seen.alarm);
        missed += u64::from(seen.missed);
    }
    (alarms, missed)
}

#[test]
fn slow_means_of_two_equal_arms_raise_few_alarms() {
    // Skewed, as cost is.
    let (alarms, missed) = simulate(1, |random| {
        peek(random, 3_000, 0.5, 0.0, |random, _| exponential(random))
    });
    assert!(
        alarms <= MOST_ALARMS && missed <= MOST_ALARMS,
        "{alarms} {missed}"
    );
}

#[test]
fn slow_rates_of_two_equal_arms_raise_few_alarms() {
    let (alarms, missed) = simulate(2, |random| {
        peek(random, 3_000, 0.5, 0.0, |random, _| coin(random, 0.1))
    });
    assert!(
        alarms <= MOST_ALARMS && missed <= MOST_ALARMS,
        "{alarms} {missed}"
    );
}

#[test]
fn slow_uneven_shares_raise_few_alarms() {
    let (alarms, missed) = simulate(3, |random| {
        peek(random, 4_000, 0.2, 0.0, |random, _| coin(random, 0.7))
    });
    assert!(
        alarms <= MOST_ALARMS && missed <= MOST_ALARMS,
        "{alarms} {missed}"
    );
}

#[test]
fn slow_a_real_difference_is_found_and_its_size_covered() {
    // 50 % against 60 %: a fixed-size test with 80 % power needs 390 per arm.
    let (alarms, missed) = simulate(4, |random| {
        peek(random, 2_500, 0.5, 0.1, |random, treated| {
            coin(random, if treated { 0.6 } else { 0.5 })
        })
    });
    assert!(alarms >= 950, "found in {alarms} runs");
    assert!(
        missed <= MOST_ALARMS,
        "the truth was left out in {missed} runs"
    );
}

/// Users come back: the observation of a user is the mean of the calls so far, and changes
/// while the experiment runs. Calls of one user are alike.
#[test]
fn slow_users_with_many_calls_count_once() {
    let (alarms, _) = simulate(5, |random| {
        let users = 600;
        let taste: Vec<f64> = (0..users).map(|_| random.random::<f64>()).collect();
        let arm: Vec<bool> = (0..users).map(|_| random.random::<f64>() < 0.5).collect();
        let mut known = vec![(0.0, 0.0); users];
        // Per arm: units, sum and sum of squares of the users' means.
        let mut sums = [(0_u64, 0.0, 0.0); 2];
        let mut seen = Seen::default();
        for _ in 0..4_000 {
            let user = random.random_range(0..users);
            let (calls, sum) = known[user];
            let side = &mut sums[usize::from(arm[user])];
            if calls > 0.0 {
                let mean: f64 = sum / calls;
                (side.1, side.2) = (side.1 - mean, side.2 - mean * mean);
            } else {
                side.0 += 1;
            }
            known[user] = (calls + 1.0, sum + coin(random, taste[user]));
            let mean = known[user].1 / known[user].0;
            (side.1, side.2) = (side.1 + mean, side.2 + mean * mean);
            let look = difference(&summary(sums[0]), &summary(sums[1]), 300, ALPHA);
            seen.alarm |= look.p_value <= ALPHA;
        }
        seen
    });
    assert!(alarms <= MOST_ALARMS, "{alarms}");
}

fn summary((n, sum, squares): (u64, f64, f64)) -> Summary {
    let mean = if n == 0 { 0.0 } else { sum / n as f64 };
    Summary {
        n,
        mean,
        squares: (squares - sum * mean).max(0.0),
    }
}

/// The exact test, from the first unit on: successes and units of both arms.
fn peek_exactly(random: &mut StdRng, units: u32, share: f64, rates: [f64; 2]) -> Seen {
    let (mut counts, mut seen) = ([(0_u64, 0_u64); 2], Seen::default());
    for number in 0..units {
        let arm = usize::from(random.random::<f64>() < share);
        counts[arm].0 += u64::from(random.random::<f64>() < rates[arm]);
        counts[arm].1 += 1;
        // Every other unit only, because the special functions are slow without optimisation.
        if number % 2 == 0 {
            seen.alarm |= rates_e_value(counts[0], counts[1], share) >= -ALPHA.ln();
        }
    }
    seen
}

#[test]
fn slow_exact_rates_raise_few_alarms_and_find_differences() {
    let (alarms, _) = simulate(6, |random| peek_exactly(random, 1_500, 0.5, [0.02, 0.02]));
    assert!(alarms <= MOST_ALARMS, "{alarms}");
    let (alarms, _) = simulate(7, |random| peek_exactly(random, 1_500, 0.1, [0.6, 0.6]));
    assert!(alarms <= MOST_ALARMS, "{alarms}");
    let (found, _) = simulate(8, |random| peek_exactly(random, 3_000, 0.5, [0.5, 0.6]));
    assert!(found >= 900, "found in {found} runs");
}

#[test]
fn slow_intervals_of_one_rate_hold_it_at_all_times() {
    for (seed, rate) in [(9, 0.03), (10, 0.5)] {
        let (_, missed) = simulate(seed, |random| {
            let (mut sum, mut seen) = (0.0, Seen::default());
            for n in 1..=400_u64 {
                sum += coin(random, rate);
                if n < 20 || n % 10 == 0 {
                    seen.missed |= !rate_interval(sum, n, ALPHA).holds(rate);
                }
            }
            seen
        });
        assert!(missed <= MOST_ALARMS, "{missed}");
    }
}
