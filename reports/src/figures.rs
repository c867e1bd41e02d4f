//! How numbers are written, the same in every rendering.

/// Digits in groups of three, separated by commas.
pub(crate) fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

/// A mean: whole numbers without a fraction, others with one decimal (two below 10).
pub(crate) fn mean(value: f64) -> String {
    if value.fract() == 0.0 || value >= 1000.0 {
        grouped(value.round() as u64)
    } else if value < 10.0 {
        format!("{value:.2}")
    } else {
        format!("{value:.1}")
    }
}

/// Cycles as microseconds.
pub(crate) fn micros(cycles: f64, cycle_ps: u64) -> f64 {
    cycles * cycle_ps as f64 / 1e6
}

/// Microseconds with about four significant digits.
pub(crate) fn us(micros: f64) -> String {
    if micros == 0.0 {
        "0".to_owned()
    } else if micros >= 1000.0 {
        grouped(micros.round() as u64)
    } else if micros >= 100.0 {
        format!("{micros:.1}")
    } else if micros >= 1.0 {
        format!("{micros:.2}")
    } else {
        format!("{micros:.3}")
    }
}

/// Cycles as microseconds, written out.
pub(crate) fn cycles_us(cycles: u64, cycle_ps: u64) -> String {
    us(micros(cycles as f64, cycle_ps))
}

/// A duration with the unit that suits it.
pub(crate) fn duration(cycles: f64, cycle_ps: u64) -> String {
    let us = micros(cycles, cycle_ps);
    if us >= 1e6 {
        format!("{:.3} s", us / 1e6)
    } else if us >= 1e3 {
        format!("{:.3} ms", us / 1e3)
    } else {
        format!("{us:.2} us")
    }
}

/// A share in percent with one decimal.
pub(crate) fn percent(part: u64, whole: u64) -> String {
    if whole == 0 {
        "0.0%".to_owned()
    } else {
        format!("{:.1}%", part as f64 * 100.0 / whole as f64)
    }
}

/// Change of a ratio in signed percent: `1.25` is `+25.0%`.
pub(crate) fn change(ratio: f64) -> String {
    let percent = (ratio - 1.0) * 100.0;
    if percent.abs() < 0.05 {
        "0.0%".to_owned()
    } else if percent >= 1000.0 {
        format!("x{}", mean((ratio * 10.0).round() / 10.0))
    } else {
        format!("{percent:+.1}%")
    }
}

/// End of an interval of ratios, in signed percent without the sign of percent.
pub(crate) fn change_end(ratio: f64) -> String {
    let percent = (ratio - 1.0) * 100.0;
    if percent.abs() >= 10.0 {
        format!("{percent:+.0}")
    } else if percent.abs() >= 1.0 {
        format!("{percent:+.1}")
    } else {
        format!("{percent:+.2}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_grouped() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_000), "1,000");
        assert_eq!(grouped(u64::MAX), "18,446,744,073,709,551,615");
    }

    #[test]
    fn times_keep_their_precision() {
        assert_eq!(cycles_us(1000, 435), "0.435");
        assert_eq!(cycles_us(100_000, 435), "43.50");
        assert_eq!(cycles_us(10_000_000, 435), "4,350");
        assert_eq!(duration(10_000_000.0, 435), "4.350 ms");
    }

    #[test]
    fn changes_are_signed() {
        assert_eq!(change(1.25), "+25.0%");
        assert_eq!(change(0.5), "-50.0%");
        assert_eq!(change(1.0001), "0.0%");
        assert_eq!(change(24.0), "x24");
    }
}
