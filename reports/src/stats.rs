//! Statistics of paired runs: same seeds on both sides, so that only the ratio varies.
//!
//! Sums run in the order of the seeds and every result is rounded to four decimals, which hides
//! the last-bit differences that `ln` and `exp` may have between hosts.

/// Two-sided 95 % quantiles of Student's t for 1 to 30 degrees of freedom.
const STUDENT_T: [f64; 30] = [
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
];
/// Quantile beyond the table: its last entry, so that intervals are never too narrow.
const STUDENT_T_BEYOND: f64 = 2.042;

/// A ratio with its 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Ratio {
    /// Lower end.
    pub(crate) low: f64,
    /// Best estimate; absent when the baseline is 0.
    pub(crate) ratio: Option<f64>,
    /// Upper end.
    pub(crate) high: f64,
    /// Whether the two sides can be told apart.
    pub(crate) distinguishable: bool,
}

/// Ratio of `values` to `base`, paired by position.
///
/// The estimate is the geometric mean of the paired ratios, the interval that of the mean
/// log-ratio. Where a zero forbids logarithms it is the ratio of the means, with the interval of
/// the mean paired difference.
pub(crate) fn paired_ratio(base: &[u64], values: &[u64]) -> Ratio {
    let base_mean = mean(base);
    if base.is_empty() || values.len() != base.len() {
        return Ratio {
            low: 0.0,
            ratio: None,
            high: 0.0,
            distinguishable: false,
        };
    }
    if base_mean == 0.0 {
        return from_zero(values);
    }
    if base == values {
        return Ratio {
            low: 1.0,
            ratio: Some(1.0),
            high: 1.0,
            distinguishable: false,
        };
    }
    let pairs = base.iter().zip(values);
    let (low, ratio, high) = if base.iter().chain(values).all(|&v| v > 0) {
        let logs: Vec<f64> = pairs.map(|(&b, &v)| (v as f64 / b as f64).ln()).collect();
        let (centre, half) = interval(&logs);
        let single = values[0] as f64 / base[0] as f64;
        let centre_ratio = if logs.len() == 1 { single } else { centre.exp() };
        if half == 0.0 {
            (centre_ratio, centre_ratio, centre_ratio)
        } else {
            ((centre - half).exp(), centre_ratio, (centre + half).exp())
        }
    } else {
        let differences: Vec<f64> = pairs.map(|(&b, &v)| (v as f64 - b as f64) / base_mean).collect();
        let (centre, half) = interval(&differences);
        (
            (1.0 + centre - half).max(0.0),
            (1.0 + centre).max(0.0),
            1.0 + centre + half,
        )
    };
    let (low, ratio, high) = (round4(low), round4(ratio), round4(high));
    Ratio {
        low,
        ratio: Some(ratio),
        high,
        distinguishable: low > 1.0 || high < 1.0,
    }
}

/// There is no ratio to zero; what remains is whether the values differ from it.
fn from_zero(values: &[u64]) -> Ratio {
    let values: Vec<f64> = values.iter().map(|&v| v as f64).collect();
    let (centre, half) = interval(&values);
    Ratio {
        low: 0.0,
        ratio: None,
        high: 0.0,
        distinguishable: centre - half > 0.0,
    }
}

/// Arithmetic mean, rounded to four decimals; 0 when empty.
pub(crate) fn mean(values: &[u64]) -> f64 {
    if values.is_empty() {
        return 0.0;
    }
    let sum: u128 = values.iter().map(|&v| u128::from(v)).sum();
    round4(sum as f64 / values.len() as f64)
}

/// Rounded to four decimals.
pub(crate) fn round4(value: f64) -> f64 {
    (value * 10_000.0).round() / 10_000.0
}

/// Mean and half width of its 95 % interval (0 for a single value).
fn interval(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let centre = values.iter().sum::<f64>() / n;
    if values.len() < 2 {
        return (centre, 0.0);
    }
    let squares: f64 = values.iter().map(|v| (v - centre) * (v - centre)).sum();
    let error = (squares / (n - 1.0) / n).sqrt();
    let t = STUDENT_T
        .get(values.len() - 2)
        .copied()
        .unwrap_or(STUDENT_T_BEYOND);
    (centre, t * error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn single_seed_is_the_plain_ratio() {
        let r = paired_ratio(&[300], &[100]);
        assert_eq!((r.low, r.ratio, r.high), (0.3333, Some(0.3333), 0.3333));
        assert!(r.distinguishable);
        assert!(!paired_ratio(&[7], &[7]).distinguishable);
    }

    #[test]
    fn interval_of_log_ratios_follows_student() {
        // ln ratios: ln 2, ln 2, ln 4 -> mean 0.9242, s 0.4002, t(2) 4.303, half 0.9942
        let r = paired_ratio(&[10, 10, 10], &[20, 20, 40]);
        assert_eq!(r.ratio, Some(2.5198));
        assert!(
            (r.low - 0.9324).abs() < 0.002 && (r.high - 6.810).abs() < 0.02,
            "{r:?}"
        );
        assert!(!r.distinguishable);
        assert!(paired_ratio(&[10, 20, 30], &[20, 41, 60]).distinguishable);
    }

    #[test]
    fn zeros_do_not_make_infinities() {
        let r = paired_ratio(&[0, 0], &[5, 5]);
        assert_eq!((r.ratio, r.distinguishable), (None, true));
        assert!(!paired_ratio(&[0, 0], &[0, 0]).distinguishable);
        let r = paired_ratio(&[0, 10], &[0, 0]);
        assert_eq!(r.ratio, Some(0.0));
        assert!(r.low.is_finite() && r.high.is_finite() && !r.distinguishable);
        let r = paired_ratio(&[10], &[0]);
        assert_eq!(
            (r.low, r.ratio, r.high, r.distinguishable),
            (0.0, Some(0.0), 0.0, true)
        );
    }

    #[test]
    fn missing_values_are_not_compared() {
        assert_eq!(paired_ratio(&[1, 2], &[]).ratio, None);
        assert_eq!(paired_ratio(&[], &[]).ratio, None);
    }
}
