"""Cases for crates/stats: `stats.py SEED COUNT` prints a JSON list of
{"of": function, "in": {...}, "out": [numbers], "within": tolerance}; null is "no value".

The results come from scipy, statsmodels, scikit-learn and krippendorff where they have
the method, and otherwise from the definition, written with matrices and sums that the
Rust code does not use. A tolerance is relative to the larger of 1 and the result.
"""
import json, sys, warnings
from math import comb, sqrt

import krippendorff
import numpy as np
from scipy import stats
from sklearn.metrics import cohen_kappa_score, confusion_matrix
from statsmodels.regression.linear_model import OLS
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower
from statsmodels.stats.proportion import proportion_confint
from statsmodels.stats.weightstats import ttost_paired

warnings.simplefilter("ignore")
SEED, COUNT = int(sys.argv[1]), int(sys.argv[2])
rng = np.random.default_rng(SEED)
cases = []


def case(of, given, out, within=1e-8):
    out = [None if x is None or np.isnan(x) else float(x) for x in out]
    cases.append({"of": of, "in": given, "out": out, "within": within})


def values(low=2, high=40):
    n = int(rng.integers(low, high))
    kind = rng.integers(4)
    drawn = [rng.normal(rng.normal(), 1 + rng.random(), n), rng.exponential(1, n), rng.random(n),
             rng.integers(0, 5, n).astype(float)][kind]
    if np.ptp(drawn) == 0:
        drawn[0] += 1
    return [float(np.round(x, 6)) for x in drawn]


def alpha():
    return float(rng.choice([0.01, 0.05, 0.1, 0.2]))


def rates():
    n, a = int(rng.integers(1, 400)), alpha()
    s = int(rng.integers(0, n + 1))
    given = {"successes": s, "n": n, "alpha": a}
    case("wilson", given, proportion_confint(s, n, a, "wilson"))
    case("clopper_pearson", given, proportion_confint(s, n, a, "beta"))
    low, high = stats.beta.ppf([a / 2, 1 - a / 2], s + 0.5, n - s + 0.5)
    case("jeffreys", given, [0 if s == 0 else low, 1 if s == n else high])


def paired_counts():
    size = int(rng.choice([3, 30, 400]))
    a, b, c, d = (int(x) for x in rng.integers(0, size, 4))
    case("mcnemar_exact", {"b": b, "c": c}, [mcnemar([[a, b], [c, d]], exact=True).pvalue])
    least, n = min(b, c), b + c
    mid = 2 * stats.binom.cdf(least, n, 0.5) - stats.binom.pmf(least, n, 0.5)
    if b == c:
        mid = 1 - 0.5 * stats.binom.pmf(least, n, 0.5)
    case("mcnemar_mid_p", {"b": b, "c": c}, [mid])
    if abs(b - c) >= 1:
        found = mcnemar([[a, b], [c, d]], exact=False, correction=True)
        case("mcnemar_chi_square", {"b": b, "c": c}, [found.pvalue])
    n, level = a + b + c + d, alpha()
    if n == 0:
        return
    p1, p2 = (a + b) / n, (a + c) / n
    l1, u1 = proportion_confint(a + b, n, level, "wilson")
    l2, u2 = proportion_confint(a + c, n, level, "wilson")
    margins = (a + b) * (c + d) * (a + c) * (b + d)
    cross = a * d - b * c
    cross = max(cross - n / 2, 0) if cross > 0 else cross
    phi = cross / sqrt(margins) if margins else 0
    gap = p2 - p1
    low = gap - sqrt((p2 - l2) ** 2 - 2 * phi * (p2 - l2) * (u1 - p1) + (u1 - p1) ** 2)
    high = gap + sqrt((u2 - p2) ** 2 - 2 * phi * (u2 - p2) * (p1 - l1) + (p1 - l1) ** 2)
    case("paired_rates_interval", {"counts": [a, b, c, d], "alpha": level}, [max(low, -1), min(high, 1)])


def means():
    x, level = values(), alpha()
    found = stats.ttest_1samp(x, 0.0)
    low, high = found.confidence_interval(1 - level)
    case("mean", {"values": x, "alpha": level}, [np.mean(x), stats.sem(x), low, high, found.pvalue])
    margin = float(rng.random() * 2)
    case("equivalence", {"values": x, "margin": margin},
         [ttost_paired(np.array(x), np.zeros(len(x)), -margin, margin)[0]])


def by_definition(x, keys):
    """CR2 and Satterthwaite's degrees of freedom, with the whole matrices."""
    n = len(x)
    X, hat = np.ones((n, 1)), np.full((n, n), 1 / n)
    residual = (np.eye(n) - hat) @ x
    variance, columns = 0.0, []
    for key in np.unique(keys):
        at = np.flatnonzero(keys == key)
        own = np.eye(len(at)) - hat[np.ix_(at, at)]
        size, vectors = np.linalg.eigh(own)
        adjust = vectors @ np.diag(size ** -0.5) @ vectors.T
        variance += (X[at].T @ adjust @ residual[at]).item() ** 2 / n ** 2
        columns.append((np.eye(n) - hat)[:, at] @ adjust @ X[at].ravel() / n)
    G = np.column_stack(columns)
    degrees = []
    for rho in (0.0, 1.0):
        working = np.where(keys[:, None] == keys[None, :], rho, 0.0) + (1 - rho) * np.eye(n)
        M = G.T @ working @ G
        degrees.append(np.trace(M) ** 2 / np.trace(M @ M))
    return sqrt(variance), min(degrees)


def clusters():
    x = values(6, 40)
    keys = rng.integers(0, max(2, len(x) // 3), len(x))
    if 1 < len(np.unique(keys)) < len(x):
        error, degrees = by_definition(np.array(x), keys)
        level = alpha()
        half = stats.t.ppf(1 - level / 2, degrees) * error
        case("clustered_mean", {"values": x, "clusters": [int(k) for k in keys], "alpha": level},
             [np.mean(x), error, degrees, np.mean(x) - half, np.mean(x) + half], 1e-7)
    groups, size = int(rng.integers(3, 9)), int(rng.integers(2, 6))
    x = [float(v) for v in np.round(rng.normal(0, 1, groups * size), 6)]
    keys = np.repeat(np.arange(groups), size)
    fit = OLS(x, np.ones(len(x))).fit(cov_type="cluster", cov_kwds={"groups": keys}, use_t=True)
    low, high = fit.conf_int(0.05)[0]
    case("clustered_mean", {"values": x, "clusters": [int(k) for k in keys], "alpha": 0.05},
         [fit.params[0], fit.bse[0], groups - 1, low, high])


def many():
    p = [float(x) for x in np.round(rng.random(int(rng.integers(1, 12))) ** 3, 6)]
    case("holm", {"p": p}, multipletests(p, method="holm")[1])


def power():
    effect, n, level = float(np.round(rng.random() * 1.2, 4)), int(rng.integers(2, 300)), alpha()
    theirs = TTestPower().power(effect, n, level)
    if not np.isnan(theirs):  # scipy's noncentral t gives up near 1
        case("paired_mean_power", {"effect": effect, "n": n, "alpha": level}, [theirs], 1e-5)
    effect, wanted = max(effect, 0.05), float(rng.choice([0.8, 0.9]))
    needed = TTestPower().solve_power(effect, power=wanted, alpha=level)
    if 3 < needed and 0.01 < needed % 1 < 0.99:
        case("paired_mean_pairs", {"effect": effect, "alpha": level, "power": wanted}, [np.ceil(needed)])
    x = values(5, 60)
    shift = TTestPower().solve_power(None, nobs=len(x), power=wanted, alpha=level)
    case("detectable_paired_mean", {"values": x, "alpha": level, "power": wanted}, [shift * np.std(x, ddof=1)], 2e-4)


def resampling():
    x = values(2, 11)
    exact = stats.permutation_test((np.array(x),), np.mean, permutation_type="samples", n_resamples=np.inf)
    case("permutation", {"values": x}, [exact.pvalue])
    draws = np.sort(np.round(rng.normal(rng.normal(), 1, 299), 6))
    n, level, seen = int(rng.integers(3, 200)), alpha(), float(np.round(rng.normal(), 6))
    tail = stats.norm.cdf(-sqrt(n / (n - 1)) * stats.t.ppf(1 - level / 2, n - 1))
    plain = np.quantile(draws, [level / 2, 1 - level / 2])
    wide = np.quantile(draws, [tail, 1 - tail])
    two_sided = (np.sum(np.abs(draws - draws.mean()) >= abs(seen)) + 1) / (len(draws) + 1)
    size = np.abs(draws)
    like_sacrebleu = (np.sum(size - size.mean() > abs(seen)) + 1) / (len(draws) + 1)
    given = {"draws": [float(d) for d in draws], "estimate": seen, "units": n, "alpha": level}
    if len([c for c in cases if c["of"] == "draws"]) < 4:
        case("draws", given, [*plain, *wide, two_sided, like_sacrebleu])
    x = values(20, 40)
    if len([c for c in cases if c["of"] == "bootstrap_mean"]) < 4:
        found = stats.bootstrap((x,), np.mean, n_resamples=20_000, method="percentile", rng=rng).confidence_interval
        # Two random answers to one question: as close as a hundredth and a bit of the data's spread.
        case("bootstrap_mean", {"values": x}, [found.low, found.high], 0.03 * max(1, np.std(x)))


def agreement():
    labels, n = int(rng.integers(2, 6)), int(rng.integers(2, 60))
    first = rng.integers(0, labels, n)
    second = np.where(rng.random(n) < rng.random(), first, rng.integers(0, labels, n))
    given = {"labels": labels, "first": first.tolist(), "second": second.tolist()}
    case("confusion", given, confusion_matrix(first, second, labels=range(labels)).ravel())
    case("percent", given, [np.mean(first == second)])
    if len(np.unique([first, second])) > 1:
        for weights in (None, "linear", "quadratic"):
            kappa = cohen_kappa_score(first, second, weights=weights, labels=range(labels))
            case("kappa", {**given, "weights": weights}, [kappa])
    raters, items = int(rng.integers(2, 6)), int(rng.integers(2, 30))
    truth = rng.integers(1, labels + 1, items)
    table = np.where(rng.random((raters, items)) < 0.6, truth, rng.integers(1, labels + 1, (raters, items))).astype(float)
    table[rng.random((raters, items)) < 0.25] = np.nan
    rated = table[:, np.sum(~np.isnan(table), 0) >= 2]
    if len(np.unique(rated[~np.isnan(rated)])) < 2:
        return
    ratings = [[None if np.isnan(v) else float(v) for v in column] for column in table.T]
    for level in ("nominal", "ordinal", "interval"):
        case("krippendorff", {"ratings": ratings, "level": level},
             [krippendorff.alpha(reliability_data=table, level_of_measurement=level)])


def judges():
    n, more = int(rng.integers(3, 40)), int(rng.integers(3, 80))
    human = rng.normal(0, 1, n)
    judge, alone = human * 0.7 + rng.normal(0.4, 0.6, n), rng.normal(0.4, 1, more)
    if rng.random() < 0.5:
        human, judge, alone = (human > 0) * 1.0, (judge > 0) * 1.0, (alone > 0) * 1.0
    human, judge, alone = (np.round(v, 6) for v in (human, judge, alone))
    everything = np.concatenate([judge, alone])
    if np.ptp(everything) == 0:
        return
    best = np.cov(human, judge)[0, 1] / ((1 + n / more) * np.var(everything, ddof=1))
    level = alpha()
    for trust, scale in (("whole", 1.0), ("tuned", float(np.clip(best, 0, 1)))):
        a, b = scale * alone, human - scale * judge
        variance = [np.var(a, ddof=1) / more, np.var(b, ddof=1) / n]
        error = sqrt(sum(variance))
        if error == 0:
            continue
        degrees = error ** 4 / (variance[0] ** 2 / (more - 1) + variance[1] ** 2 / (n - 1))
        half = stats.t.ppf(1 - level / 2, degrees) * error
        middle = a.mean() + b.mean()
        given = {"human": human.tolist(), "judge": judge.tolist(), "alone": alone.tolist(), "trust": trust, "alpha": level}
        case("prediction_powered", given, [middle, error, middle - half, middle + half, scale])
        # The same without a formula for the degrees of freedom: Welch's test of −b against a.
        welch = stats.ttest_ind(a, -b, equal_var=False).confidence_interval(1 - level)
        case("prediction_powered", given, [middle, error, welch.low, welch.high, scale])
    yes, no = int(rng.integers(5, 60)), int(rng.integers(5, 60))
    found_yes, found_no = int(rng.integers(yes * 3 // 5, yes + 1)), int(rng.integers(no * 3 // 5, no + 1))
    judged = int(rng.integers(10, 800))
    judged_yes = int(rng.integers(0, judged + 1))
    sens, spec = found_yes / yes, found_no / no
    if sens + spec <= 1.05:
        return
    z = stats.norm.ppf(1 - level / 2)
    p_ = (judged_yes + z * z / 2) / (judged + z * z)
    se_, sp_ = (found_yes + 1) / (yes + 2), (found_no + 1) / (no + 2)
    rate_ = min(max((p_ + sp_ - 1) / (se_ + sp_ - 1), 0), 1)
    shift = 2 * z * z * (rate_ * se_ * (1 - se_) / (yes + 2) - (1 - rate_) * sp_ * (1 - sp_) / (no + 2))
    half = z / (se_ + sp_ - 1) * sqrt(p_ * (1 - p_) / (judged + z * z) + rate_ ** 2 * se_ * (1 - se_) / (yes + 2)
                                      + (1 - rate_) ** 2 * sp_ * (1 - sp_) / (no + 2))
    rate = (judged_yes / judged + spec - 1) / (sens + spec - 1)
    clip = lambda v: min(max(v, 0), 1)
    case("rogan_gladen", {"judged_yes": judged_yes, "judged": judged, "checked": [yes, found_yes, no, found_no], "alpha": level},
         [clip(rate), clip(rate_ + shift - half), clip(rate_ + shift + half), sens, spec])


def repeats():
    n = int(rng.integers(1, 60))
    c, k = int(rng.integers(0, n + 1)), int(rng.integers(1, n + 1))
    case("pass", {"n": n, "c": c, "k": k}, [1 - comb(n - c, k) / comb(n, k), comb(c, k) / comb(n, k)], 1e-12)


for _ in range(COUNT):
    for one in (rates, paired_counts, means, clusters, many, power, resampling, agreement, judges, repeats):
        one()
print("[\n" + ",\n".join(json.dumps(c) for c in cases) + "\n]")
