//! What `compare` says of data of every kind, bad data included.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use stats::{
    Better, Caution, Comparison, Invalid, Method, NonInferiority, Pair, Plan, Reason, Verdict,
    compare, compare_corpus,
};

fn pairs(rows: usize, row: impl Fn(usize) -> (f64, f64)) -> Vec<Pair> {
    (0..rows)
        .map(row)
        .map(|(first, second)| Pair::new(first, second))
        .collect()
}

fn of(pairs: &[Pair]) -> Comparison {
    compare(pairs, &Plan::default()).unwrap()
}

/// Some numbers between 0 and 1 without a pattern that matters.
fn wave(row: usize, step: usize) -> f64 {
    ((row * step) % 17) as f64 / 17.0
}

#[test]
fn too_little() {
    for rows in [0, 1, 2, 9] {
        let found = of(&pairs(rows, |row| (0.0, wave(row, 5))));
        assert_eq!(
            (found.verdict, found.method),
            (Verdict::NotEnoughData, Method::None)
        );
        assert_eq!(
            (found.rows, found.p_value, found.detectable),
            (rows, 1.0, None)
        );
        assert_eq!(found.non_inferiority(0.5), NonInferiority::NotShown);
        assert!(
            found
                .to_string()
                .starts_with("not_enough_data: too few rows"),
            "{found}"
        );
    }
    // Enough rows, too few conversations.
    let mut rows = pairs(100, |row| (0.5, wave(row, 5)));
    for (at, pair) in rows.iter_mut().enumerate() {
        pair.cluster = Some(at as u64 % 4);
    }
    let found = of(&rows);
    assert_eq!((found.verdict, found.units), (Verdict::NotEnoughData, 4));
}

#[test]
fn nonsense_is_refused() {
    let one = |first, second| compare(&[Pair::new(first, second)], &Plan::default());
    assert_eq!(
        one(f64::NAN, 0.0).unwrap_err().to_string(),
        "scores of the first system: number 0 (counted from 0) is not finite"
    );
    assert!(matches!(
        one(0.0, f64::INFINITY),
        Err(Invalid::NotFinite { at: 0, .. })
    ));
    assert!(one(f64::MAX, f64::MIN).is_err());
    let refused = |change: fn(&mut Plan)| {
        let mut plan = Plan::default();
        change(&mut plan);
        compare(&[], &plan).unwrap_err().to_string()
    };
    assert_eq!(
        refused(|plan| plan.alpha = 0.0),
        "alpha is 0; it must be above 0 and at most 0.5"
    );
    refused(|plan| plan.alpha = f64::NAN);
    refused(|plan| plan.power = 1.0);
    refused(|plan| plan.margin = -0.1);
    refused(|plan| plan.margin = f64::INFINITY);
    refused(|plan| plan.range = Some((1.0, 0.0)));
    refused(|plan| plan.range = Some((0.0, f64::NAN)));
    refused(|plan| plan.resampling.resamples = 3);
    let plan = Plan {
        range: Some((0.0, 1.0)),
        ..Plan::default()
    };
    assert!(compare(&[Pair::new(0.5, 1.5)], &plan).is_err());
}

#[test]
fn the_data_chooses_the_method() {
    let yes_no = pairs(100, |row| (f64::from(u8::from(row % 2 == 0)), 1.0));
    let found = of(&yes_no);
    assert_eq!(
        (found.method, found.reason),
        (Method::McNemar, Reason::EveryScoreIsZeroOrOne)
    );
    assert_eq!(
        (found.verdict, found.wins, found.losses),
        (Verdict::Better, 50, 0)
    );
    assert_eq!(
        (found.first, found.second, found.difference),
        (0.5, 1.0, 0.5)
    );

    let bounded = pairs(100, |row| (wave(row, 5), wave(row, 7)));
    let found = of(&bounded);
    assert_eq!(
        (found.method, found.reason),
        (Method::PairedBootstrap, Reason::ScoresAreBounded)
    );
    assert_eq!(found.verdict, Verdict::NoDifferenceShown);
    assert_eq!(found, of(&bounded), "a seed decides everything");

    assert_eq!(of(&bounded[..20]).reason, Reason::FewRows);
    assert_eq!(of(&bounded[..20]).cautions, [Caution::SmallSample]);

    let latency = pairs(200, |row| {
        (500.0 + wave(row, 5), 450.0 + 90.0 * wave(row, 7))
    });
    let found = of(&latency);
    assert_eq!(
        (found.method, found.reason),
        (Method::PairedT, Reason::ScoresAreUnbounded)
    );
    assert_eq!(found.verdict, Verdict::Worse);
    let plan = Plan {
        better: Better::Lower,
        ..Plan::default()
    };
    let found = compare(&latency, &plan).unwrap();
    assert_eq!(
        (found.verdict, found.losses < found.wins),
        (Verdict::Better, true)
    );

    let mut together = bounded.clone();
    for (at, pair) in together.iter_mut().enumerate() {
        pair.cluster = (at < 60).then_some(at as u64 / 3);
    }
    let found = of(&together);
    assert_eq!(
        (found.method, found.reason),
        (Method::ClusterRobust, Reason::RowsShareClusters)
    );
    assert_eq!(found.units, 20 + 40);

    // Every row its own cluster is no cluster at all.
    let mut alone = bounded.clone();
    for (at, pair) in alone.iter_mut().enumerate() {
        pair.cluster = Some(at as u64);
    }
    assert_eq!(of(&alone).method, Method::PairedBootstrap);

    let many = pairs(10_001, |row| (wave(row, 5), wave(row, 7)));
    assert_eq!(of(&many).reason, Reason::ManyRows);
}

#[test]
fn no_spread() {
    // Nobody ever differs.
    let same = of(&pairs(50, |_| (0.7, 0.7)));
    assert_eq!(
        (same.verdict, same.method),
        (Verdict::NoDifferenceShown, Method::NoSpread)
    );
    assert_eq!((same.p_value, same.ties), (1.0, 50));
    // Fifty rows alike leave 1 − 0.025^(1/50) = 7.1 % of all rows open.
    assert!(
        (same.interval.high - 0.0711).abs() < 1e-3 && same.interval.low < -0.07,
        "{same}"
    );
    assert_eq!(same.cautions, [Caution::SmallSample, Caution::OneValueOnly]);
    let plan = Plan {
        margin: 0.1,
        ..Plan::default()
    };
    assert_eq!(
        compare(&pairs(50, |row| (wave(row, 5), wave(row, 5))), &plan)
            .unwrap()
            .verdict,
        Verdict::Equivalent
    );
    // All the same yes: McNemar has an interval of its own.
    let yes = of(&pairs(50, |_| (1.0, 1.0)));
    assert_eq!(
        (yes.verdict, yes.method),
        (Verdict::NoDifferenceShown, Method::McNemar)
    );
    assert!(yes.interval.low < -0.05 && yes.interval.high > 0.05);
    assert_eq!(yes.cautions, [Caution::OneValueOnly]);
    // Always better by the same: shown, and not with certainty.
    let better = of(&pairs(50, |_| (0.25, 0.5)));
    assert_eq!(better.verdict, Verdict::Better);
    assert!(
        better.interval.low < 0.2 && better.interval.high > 0.29,
        "{better}"
    );
    // Without a range there is nothing to say about other rows than these.
    let unbounded = of(&pairs(50, |row| (row as f64, row as f64)));
    assert_eq!(
        (unbounded.interval.low, unbounded.interval.high),
        (0.0, 0.0)
    );
    assert_eq!(unbounded.verdict, Verdict::NoDifferenceShown);
}

#[test]
fn equivalent_and_gates() {
    let close = pairs(400, |row| {
        (wave(row, 5), wave(row, 5) + 0.02 * (wave(row, 7) - 0.3))
    });
    let plan = Plan {
        margin: 0.02,
        range: Some((-1.0, 2.0)),
        ..Plan::default()
    };
    let found = compare(&close, &plan).unwrap();
    // It is shown to be there, and shown to be too small.
    assert!(found.p_value < 0.05 && !found.interval.holds(0.0));
    assert_eq!(found.verdict, Verdict::Equivalent);
    assert_eq!(found.non_inferiority(0.02), NonInferiority::Shown);
    let everything_matters = Plan {
        margin: 0.0,
        ..plan
    };
    assert_eq!(
        compare(&close, &everything_matters).unwrap().verdict,
        Verdict::Better
    );

    let worse = pairs(300, |row| (1.0, f64::from(u8::from(row % 5 != 0))));
    let found = of(&worse);
    assert_eq!(found.verdict, Verdict::Worse);
    assert_eq!(found.non_inferiority(0.1), NonInferiority::Refuted);
    assert_eq!(found.non_inferiority(0.2), NonInferiority::NotShown);
    assert_eq!(found.non_inferiority(0.3), NonInferiority::Shown);
    assert_eq!(found.non_inferiority(f64::NAN), NonInferiority::NotShown);
}

#[test]
fn figures_of_the_whole() {
    let (first, second): (Vec<f64>, Vec<f64>) = (0..60)
        .map(|row| (wave(row, 5), 0.3 + wave(row, 7)))
        .unzip();
    let mean = |rows: &[usize], scores: &[f64]| {
        rows.iter().map(|row| scores[*row]).sum::<f64>() / rows.len() as f64
    };
    let plan = Plan::default();
    let found = compare_corpus(60, None, &plan, |rows| {
        Some([mean(rows, &first), mean(rows, &second)])
    })
    .unwrap();
    assert_eq!(
        (found.verdict, found.method),
        (Verdict::Better, Method::CorpusBootstrap)
    );
    assert!((found.difference - 0.3).abs() < 0.02 && found.detectable.unwrap() < 0.3);
    let never = compare_corpus(60, None, &plan, |_| None).unwrap();
    assert_eq!(never.verdict, Verdict::NotEnoughData);
    let none = compare_corpus(0, None, &plan, |_| Some([f64::NAN, 0.0])).unwrap();
    assert_eq!(none.verdict, Verdict::NotEnoughData);
    let few = [0_u64, 1].repeat(30);
    let few = compare_corpus(60, Some(&few), &plan, |_| Some([0.1, 0.2])).unwrap();
    assert_eq!(few.verdict, Verdict::NotEnoughData);
}

#[test]
fn many_together() {
    let slice = |gain: f64| {
        of(&pairs(120, |row| {
            (5.0 + wave(row, 5), 5.0 + gain + wave(row, 7))
        }))
    };
    let weak = slice(0.09);
    assert_eq!(weak.verdict, Verdict::Better, "{weak}");
    let mut all = vec![weak.clone(), slice(0.0), slice(0.9), slice(0.01)];
    all.extend(std::iter::repeat_n(slice(0.0), 20));
    all.push(of(&[]));
    stats::correct_for_many(&mut all);
    assert_eq!(all[0].verdict, Verdict::NoDifferenceShown);
    assert_eq!(all[0].p_value, weak.p_value);
    assert_eq!(all[2].verdict, Verdict::Better);
    assert_eq!(all.last().unwrap().adjusted_p_value, None);
}

#[test]
fn printed() {
    let found = of(&pairs(200, |row| {
        (
            f64::from(u8::from(row % 3 == 0)),
            f64::from(u8::from(row % 3 == 0 || row % 5 == 0)),
        )
    }));
    let text = found.to_string();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "better: the second system does better");
    assert!(
        lines[1].starts_with("difference 0.13 (95 % interval 0.0"),
        "{text}"
    );
    assert!(lines[1].ends_with(", 0.335 -> 0.465"), "{text}");
    assert_eq!(lines[2], "200 rows: 26 won, 0 lost, 174 tied");
    assert!(
        lines[3].starts_with("smallest difference found 80 times in 100: 0.0"),
        "{text}"
    );
    assert_eq!(
        lines[4],
        "method: exact McNemar test, Newcombe interval, because every score is 0 or 1"
    );
    assert_eq!(lines.len(), 5, "{text}");
    let json = serde_json::to_value(&found).unwrap();
    assert_eq!(
        (&json["verdict"], &json["method"]),
        (&"better".into(), &"mcnemar".into())
    );
}
