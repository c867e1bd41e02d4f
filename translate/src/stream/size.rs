//! Sizes as people write them.

use std::fmt;
use std::str::FromStr;

use x86::PAGE_SIZE;

/// Units of 1024, largest first; `p` is a page.
const UNITS: [(char, u64); 5] = [
    ('t', 1 << 40),
    ('g', 1 << 30),
    ('m', 1 << 20),
    ('k', 1 << 10),
    ('p', PAGE_SIZE),
];

/// A number of bytes, written `4096`, `64m` or `512p`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub u64);

impl Bytes {
    /// Whether this is one page of 4 KiB or several.
    #[must_use]
    pub const fn is_whole_pages(self) -> bool {
        self.0 > 0 && self.0.is_multiple_of(PAGE_SIZE)
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fits = |(_, unit): &&(char, u64)| self.0 > 0 && self.0.is_multiple_of(*unit);
        match UNITS.iter().find(fits) {
            Some((letter, unit)) => write!(f, "{}{letter}", self.0 / unit),
            None => write!(f, "{}", self.0),
        }
    }
}

/// What is no size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoSize;

impl FromStr for Bytes {
    type Err = NoSize;

    fn from_str(text: &str) -> Result<Self, NoSize> {
        let text = text.to_ascii_lowercase();
        let unit = |(letter, unit): &(char, u64)| Some((text.strip_suffix(*letter)?, *unit));
        let (digits, unit) = UNITS.iter().find_map(unit).unwrap_or((&text, 1));
        let number: u64 = digits.parse().map_err(|_| NoSize)?;
        number.checked_mul(unit).map(Bytes).ok_or(NoSize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_read_as_it_is_written() {
        for (text, bytes) in [
            ("0", 0),
            ("8", 8),
            ("4k", 4096),
            ("3g", 3 << 30),
            ("16t", 16 << 40),
        ] {
            assert_eq!(text.parse(), Ok(Bytes(bytes)));
            assert_eq!(Bytes(bytes).to_string(), text);
        }
        assert_eq!("2P".parse(), Ok(Bytes(8192)));
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in ["", "m", "-1", "1.5g", "4kb", "99999999999t", "\u{e9}"] {
            assert_eq!(text.parse::<Bytes>(), Err(NoSize), "{text}");
        }
    }
}
