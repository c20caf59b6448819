//! Repeated answers to one question: how likely is it that at least one of k is right,
//! and that all k are.
//!
//! Both are unbiased estimates from n repeats of which c passed. The k-th power of the
//! pass rate is not: a question with 1 of 2 passed has a rate of ½ but says nothing
//! about three in a row.

use crate::invalid::Invalid;
use crate::special::float;

/// pass@k: `1 − C(n−c, k)/C(n, k)` (Chen and others, arXiv 2107.03374).
pub fn pass_at_k(n: u64, passed: u64, k: u64) -> Result<f64, Invalid> {
    check(n, passed, k)?;
    Ok(1.0 - all_of(n, n - passed, k))
}

/// pass^k: `C(c, k)/C(n, k)`.
pub fn pass_all_k(n: u64, passed: u64, k: u64) -> Result<f64, Invalid> {
    check(n, passed, k)?;
    Ok(all_of(n, passed, k))
}

fn check(n: u64, passed: u64, k: u64) -> Result<(), Invalid> {
    let out_of_range = |what, value: u64, allowed| Invalid::OutOfRange {
        what,
        value: float(value),
        allowed,
    };
    if passed > n {
        return Err(out_of_range(
            "passed",
            passed,
            "at most the number of repeats",
        ));
    }
    if k == 0 || k > n {
        return Err(out_of_range("k", k, "from 1 to the number of repeats"));
    }
    Ok(())
}

/// C(c, k)/C(n, k) as a product, because the factorials overflow.
fn all_of(n: u64, c: u64, k: u64) -> f64 {
    if c < k {
        return 0.0;
    }
    (0..k).map(|i| float(c - i) / float(n - i)).product()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        // 3 of 10 passed, k = 2: 1 − C(7,2)/C(10,2) = 1 − 21/45, and C(3,2)/45 = 3/45.
        assert!((pass_at_k(10, 3, 2).unwrap() - 24.0 / 45.0).abs() < 1e-12);
        assert!((pass_all_k(10, 3, 2).unwrap() - 3.0 / 45.0).abs() < 1e-12);
        assert_eq!(pass_at_k(5, 5, 5), Ok(1.0));
        assert_eq!(pass_at_k(5, 0, 1), Ok(0.0));
        assert_eq!(pass_all_k(5, 4, 5), Ok(0.0));
        assert_eq!(pass_at_k(1, 1, 1), Ok(1.0));
        assert!(pass_at_k(0, 0, 1).is_err());
        assert!(pass_at_k(3, 4, 1).is_err());
        assert!(pass_all_k(3, 1, 0).is_err());
        assert!((pass_at_k(10_000, 1, 10_000).unwrap() - 1.0).abs() < 1e-12);
    }

    /// Over all samples of n independent repeats the mean is the true probability.
    #[test]
    fn unbiased() {
        let (n, k, rate) = (6_u64, 3, 0.3_f64);
        let (mut any, mut all, mut choose) = (0.0, 0.0, 1.0);
        for c in 0..=n {
            let chance = choose
                * rate.powi(i32::try_from(c).unwrap())
                * (1.0 - rate).powi(i32::try_from(n - c).unwrap());
            any += chance * pass_at_k(n, c, k).unwrap();
            all += chance * pass_all_k(n, c, k).unwrap();
            choose *= float(n - c) / float(c + 1);
        }
        assert!((any - (1.0 - 0.7_f64.powi(3))).abs() < 1e-12);
        assert!((all - 0.3_f64.powi(3)).abs() < 1e-12);
    }
}
