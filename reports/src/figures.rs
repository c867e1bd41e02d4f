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

/// A share that may be close to nothing or to all, in percent with digits enough to tell.
pub(crate) fn share(part: u64, whole: u64) -> String {
    fraction(if whole == 0 {
        0.0
    } else {
        part as f64 / whole as f64
    })
}

/// The same of a share from 0 to 1.
pub(crate) fn fraction(share: f64) -> String {
    let percent = share * 100.0;
    let far = percent.min(100.0 - percent);
    if far <= 0.0 {
        format!("{percent:.0}%")
    } else if far >= 10.0 {
        format!("{percent:.1}%")
    } else if far >= 1.0 {
        format!("{percent:.2}%")
    } else if far >= 0.001 {
        format!("{percent:.3}%")
    } else if percent < 50.0 {
        "<0.001%".to_owned()
    } else {
        ">99.999%".to_owned()
    }
}

/// A ratio with about three significant digits.
pub(crate) fn ratio(value: f64) -> String {
    if value == 0.0 || value >= 1000.0 {
        grouped(value.round() as u64)
    } else if value >= 10.0 {
        format!("{value:.1}")
    } else if value >= 0.1 {
        format!("{value:.2}")
    } else {
        format!("{value:.4}")
    }
}

/// Bytes with the unit that suits them.
pub(crate) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if value.fract() == 0.0 {
        format!("{value:.0} {}", UNITS[unit])
    } else {
        format!("{value:.1} {}", UNITS[unit])
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
    fn small_shares_keep_their_digits() {
        let shares = [(0, 5), (1, 3), (1, 40), (1, 3000), (1, 1_000_000_000)];
        let shown = shares.map(|(part, whole)| share(part, whole));
        assert_eq!(shown, ["0%", "33.3%", "2.50%", "0.033%", "<0.001%"]);
        let shown = shares.map(|(part, whole)| share(whole - part, whole));
        assert_eq!(shown, ["100%", "66.7%", "97.50%", "99.967%", ">99.999%"]);
        assert_eq!(
            [0.0, 0.0123, 1.5, 45.67, 4567.0].map(ratio),
            ["0", "0.0123", "1.50", "45.7", "4,567"]
        );
    }

    #[test]
    fn bytes_have_binary_units() {
        let sizes = [4096, 1 << 21, 5 << 29, 0];
        assert_eq!(sizes.map(bytes), ["4 KiB", "2 MiB", "2.5 GiB", "0 KiB"]);
    }

    #[test]
    fn changes_are_signed() {
        assert_eq!(change(1.25), "+25.0%");
        assert_eq!(change(0.5), "-50.0%");
        assert_eq!(change(1.0001), "0.0%");
        assert_eq!(change(24.0), "x24");
    }
}
