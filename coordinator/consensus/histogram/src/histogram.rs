//! Counts of values in buckets that grow by powers of two, four to each power. Takes no memory before its first value.

use std::marker::PhantomData;

use crate::PercentileStats;

/// Buckets of one power of two.
const PARTS: u64 = 4;
/// `log2(PARTS)`.
const PART_BITS: u32 = 2;
/// Buckets for all of `u64`.
const BUCKETS: usize = ((64 - PART_BITS + 1) as usize) * PARTS as usize;

/// A histogram. The type parameter stands for data that openraft does not attach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Histogram<T = ()> {
    counts: Vec<u64>,
    kept: PhantomData<T>,
}

impl<T> Default for Histogram<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Histogram<T> {
    /// An empty one.
    #[must_use]
    pub const fn new() -> Self {
        Self { counts: Vec::new(), kept: PhantomData }
    }

    /// Counts a value.
    pub fn record(&mut self, value: u64) {
        self.record_n(value, 1);
    }

    /// Counts a value so many times.
    pub fn record_n(&mut self, value: u64, times: u64) {
        if self.counts.is_empty() {
            self.counts = vec![0; BUCKETS];
        }
        if let Some(count) = self.counts.get_mut(bucket(value)) {
            *count = count.saturating_add(times);
        }
    }

    /// Values counted.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.counts.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// The usual percentiles; all 0 while empty.
    #[must_use]
    pub fn percentile_stats(&self) -> PercentileStats {
        let at = |permille| self.percentile(permille);
        PercentileStats {
            samples: self.total(),
            p0_1: at(1),
            p1: at(10),
            p5: at(50),
            p10: at(100),
            p50: at(500),
            p90: at(900),
            p99: at(990),
            p99_9: at(999),
        }
    }

    /// Lower bound of the bucket below whose end so many thousandths of the values are.
    fn percentile(&self, permille: u128) -> u64 {
        let total = u128::from(self.total());
        let wanted = (total * permille).div_ceil(1_000).max(1);
        let mut below = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            below += u128::from(*count);
            if below >= wanted {
                return lower(bucket);
            }
        }
        0
    }
}

/// Small values have a bucket each; above, the highest bits say which.
fn bucket(value: u64) -> usize {
    if value < PARTS {
        return value as usize;
    }
    let power = 63 - value.leading_zeros() - PART_BITS;
    let part = (value >> power) - PARTS;
    (u64::from(power + 1) * PARTS + part) as usize
}

/// The smallest value of a bucket.
const fn lower(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < PARTS {
        return bucket;
    }
    (PARTS + bucket % PARTS) << (bucket / PARTS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_falls_into_a_bucket_that_begins_at_most_a_quarter_below_it() {
        for value in (0..4_096).chain([u64::MAX - 1, u64::MAX, 1 << 40]) {
            let low = lower(bucket(value));
            assert!(bucket(value) < BUCKETS && low <= value && value - low <= value / 4, "{value}: {low}");
            assert!(bucket(value) == bucket(low));
        }
    }

    #[test]
    fn percentiles_are_those_of_what_was_recorded() {
        let mut histogram = Histogram::<()>::new();
        assert_eq!(histogram.percentile_stats(), PercentileStats::default());
        (1..=1_000).for_each(|value| histogram.record(value));
        let stats = histogram.percentile_stats();
        assert_eq!((stats.samples, stats.p50, stats.p99_9), (1_000, lower(bucket(500)), lower(bucket(999))));
        assert!(stats.p1 <= 10 && stats.p10 <= 100 && stats.p90 <= 900);
    }
}
