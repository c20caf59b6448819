//! Many tests at once: over slices of a data set, or candidates beside one baseline.

/// Holm's step-down adjustment (1979): the k-th smallest of m p-values is multiplied by
/// m − k + 1 and never falls below the one before. Comparing the result with α keeps the
/// chance of any false alarm among all m below α, however the tests depend on each other.
/// A p-value that is not a number counts as 1.
pub fn holm(p_values: &[f64]) -> Vec<f64> {
    let clean = |p: f64| if p.is_nan() { 1.0 } else { p.clamp(0.0, 1.0) };
    let mut order: Vec<usize> = (0..p_values.len()).collect();
    order.sort_by(|a, b| clean(p_values[*a]).total_cmp(&clean(p_values[*b])));
    let mut adjusted = vec![1.0; p_values.len()];
    let (mut remaining, mut most) = (crate::special::length(p_values.len()), 0.0_f64);
    for at in order {
        most = most.max((remaining * clean(p_values[at])).min(1.0));
        adjusted[at] = most;
        remaining -= 1.0;
    }
    adjusted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        assert_eq!(holm(&[0.01, 0.04, 0.03]), [0.03, 0.06, 0.06]);
        assert_eq!(holm(&[0.5, 0.9]), [1.0, 1.0]);
        assert_eq!(holm(&[f64::NAN, 0.02]), [1.0, 0.04]);
        assert!(holm(&[]).is_empty());
    }
}
