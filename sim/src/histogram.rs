//! Distributions of durations.

use hdrhistogram::Histogram as Hdr;

/// Significant decimal digits kept in a bin: relative error below 1 %.
const PRECISION_DIGITS: u8 = 2;

/// A distribution of integer values: exact count, sum and extremes, bins of 1 % width.
///
/// Durations come in long runs of the same value (an undisturbed path always takes as long), so the
/// last value is only binned when another one comes.
#[derive(Clone, Debug)]
pub struct Histogram {
    bins: Hdr<u64>,
    count: u64,
    total: u64,
    min: u64,
    max: u64,
    last: u64,
    /// Times `last` was recorded and not yet binned.
    repeats: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        let bins = Hdr::new(PRECISION_DIGITS).expect("the precision is a valid constant");
        Histogram {
            bins,
            count: 0,
            total: 0,
            min: u64::MAX,
            max: 0,
            last: 0,
            repeats: 0,
        }
    }
}

impl Histogram {
    /// Adds one value.
    #[inline]
    pub fn record(&mut self, value: u64) {
        self.count += 1;
        self.total += value;
        if value == self.last {
            self.repeats += 1;
        } else {
            self.change_to(value);
        }
    }

    #[cold]
    fn change_to(&mut self, value: u64) {
        self.bin_repeats();
        self.last = value;
        self.repeats = 1;
        self.min = self.min.min(value);
        self.max = self.max.max(value);
    }

    fn bin_repeats(&mut self) {
        if self.repeats > 0 {
            self.bins
                .record_n(self.last, self.repeats)
                .expect("the histogram grows as needed");
            self.min = self.min.min(self.last);
            self.repeats = 0;
        }
    }

    /// Number of values.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Sum of the values.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Smallest value; 0 when empty.
    #[must_use]
    pub fn min(&self) -> u64 {
        match (self.count, self.repeats) {
            (0, _) => 0,
            (_, 0) => self.min,
            _ => self.min.min(self.last),
        }
    }

    /// Largest value; 0 when empty.
    #[must_use]
    pub fn max(&self) -> u64 {
        self.max
    }

    /// Non-empty bins, ascending: (largest value of the bin, values in it).
    #[must_use]
    pub fn bins(&self) -> Vec<(u64, u64)> {
        let mut all = self.clone();
        all.bin_repeats();
        all.bins
            .iter_recorded()
            .map(|v| (v.value_iterated_to(), v.count_since_last_iteration()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_exact_extremes_and_all_values() {
        let mut h = Histogram::default();
        for v in [0, 7, 7, 1_000_003] {
            h.record(v);
        }
        assert_eq!(
            (h.count(), h.total(), h.min(), h.max()),
            (4, 1_000_017, 0, 1_000_003)
        );
        assert_eq!(h.bins().iter().map(|(_, n)| n).sum::<u64>(), 4);
        let (upper, _) = *h.bins().last().expect("not empty");
        assert!((1_000_003..1_010_100).contains(&upper));
    }
}
