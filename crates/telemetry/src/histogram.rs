//! Sparse log2 histogram: 64 buckets per power of two, mergeable for ever.
//!
//! A bucket is the exponent and the upper six mantissa bits of the double, so
//! finding it takes a shift and no logarithm. A bucket's midpoint is within
//! 0.8 % of every value in it. Counts may be negative: a replaced span is
//! subtracted in the segment that replaces it.

use std::collections::BTreeMap;

/// Counts by bucket; 0 is the bucket of zero, negative values mirror positive ones.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Histogram {
    counts: BTreeMap<i32, i64>,
}

fn bucket(value: f64) -> i32 {
    if value == 0.0 {
        return 0;
    }
    let bits = i32::try_from(value.abs().to_bits() >> 46)
        .unwrap_or(i32::MAX)
        .max(1);
    if value < 0.0 { -bits } else { bits }
}

fn midpoint(bucket: i32) -> f64 {
    if bucket == 0 {
        return 0.0;
    }
    let low = u64::from(bucket.unsigned_abs()) << 46;
    let middle = f64::from_bits(low | 1 << 45);
    if bucket < 0 { -middle } else { middle }
}

impl Histogram {
    pub(crate) fn add(&mut self, value: f64, count: i64) {
        if value.is_finite() {
            self.add_bucket(bucket(value), count);
        }
    }

    fn add_bucket(&mut self, bucket: i32, count: i64) {
        let total = self.counts.entry(bucket).or_default();
        *total = total.saturating_add(count);
        if *total == 0 {
            self.counts.remove(&bucket);
        }
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        other
            .counts
            .iter()
            .for_each(|(bucket, count)| self.add_bucket(*bucket, *count));
    }

    pub(crate) fn total(&self) -> i64 {
        self.counts.values().sum()
    }

    /// The value of rank ⌈q·n⌉, to within half a bucket.
    pub(crate) fn quantile(&self, q: f64) -> Option<f64> {
        let total = self.total();
        if total <= 0 {
            return None;
        }
        let wanted = rank(q, usize::try_from(total).ok()?);
        let mut seen = 0_i64;
        for (bucket, count) in &self.counts {
            seen += count;
            if usize::try_from(seen).is_ok_and(|seen| seen >= wanted) {
                return Some(midpoint(*bucket));
            }
        }
        self.counts
            .keys()
            .next_back()
            .map(|bucket| midpoint(*bucket))
    }

    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        write_number(i64::try_from(self.counts.len()).unwrap_or(0), out);
        let mut previous = 0;
        for (bucket, count) in &self.counts {
            write_number(i64::from(*bucket) - previous, out);
            write_number(*count, out);
            previous = i64::from(*bucket);
        }
    }

    pub(crate) fn read(bytes: &mut &[u8]) -> Option<Self> {
        let mut histogram = Self::default();
        let mut bucket = 0_i64;
        for _ in 0..read_number(bytes)? {
            bucket = bucket.checked_add(read_number(bytes)?)?;
            let count = read_number(bytes)?;
            histogram.add_bucket(i32::try_from(bucket).ok()?, count);
        }
        Some(histogram)
    }
}

/// Rank (from 1) of the quantile among n sorted values.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped to 1..=n"
)]
pub(crate) fn rank(q: f64, n: usize) -> usize {
    ((q * n as f64).ceil() as usize).clamp(1, n.max(1))
}

/// A signed number in as few bytes as it needs.
pub(crate) fn write_number(number: i64, out: &mut Vec<u8>) {
    let mut rest = ((number << 1) ^ (number >> 63)).cast_unsigned();
    while rest >= 0x80 {
        out.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

pub(crate) fn read_number(bytes: &mut &[u8]) -> Option<i64> {
    let mut rest = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, tail) = bytes.split_first()?;
        *bytes = tail;
        rest |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some((rest >> 1).cast_signed() ^ -(rest & 1).cast_signed());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn quantiles_are_within_the_promised_error(values in prop::collection::vec(-1e9_f64..1e9, 1..300), q in 0.01_f64..1.0) {
            let mut histogram = Histogram::default();
            values.iter().for_each(|value| histogram.add(*value, 1));
            let mut sorted = values.clone();
            sorted.sort_by(f64::total_cmp);
            let exact = sorted[rank(q, sorted.len()) - 1];
            let found = histogram.quantile(q).unwrap();
            prop_assert!((found - exact).abs() <= exact.abs() * 0.008 + f64::MIN_POSITIVE, "{found} for {exact}");
        }

        #[test]
        fn histograms_come_back_whole(values in prop::collection::vec((any::<f64>(), -5_i64..5), 0..50), number in any::<i64>()) {
            let mut histogram = Histogram::default();
            values.iter().for_each(|(value, count)| histogram.add(*value, *count));
            let mut bytes = Vec::new();
            histogram.write(&mut bytes);
            write_number(number, &mut bytes);
            let mut rest = bytes.as_slice();
            prop_assert_eq!(Histogram::read(&mut rest), Some(histogram));
            prop_assert_eq!(read_number(&mut rest), Some(number));
            prop_assert!(rest.is_empty());
        }
    }
}
