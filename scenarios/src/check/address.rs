//! Addresses and releases as texts, shared with the builder of worlds.

use crate::ast::Address;

/// Bytes of a page.
pub const PAGE: u64 = 4096;

/// End of the user half of the address space (`TASK_SIZE` of x86-64 with four levels).
pub const USER_END: u64 = 0x7fff_ffff_f000;

/// Why an address cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// The text is not a number.
    #[error("not a number")]
    Malformed,
    /// The address is no canonical address of 48 bits.
    #[error("not canonical")]
    NonCanonical,
    /// The address belongs to the kernel.
    #[error("not in the user half of the address space")]
    Kernel,
    /// The address is not the start of a page.
    #[error("not page aligned")]
    Unaligned,
}

/// The value of an address of a process: canonical, in the user half, page aligned.
///
/// # Errors
/// Says which of these it is not.
pub fn parse_address(address: &Address) -> Result<u64, AddressError> {
    let value = match address {
        Address::Number(value) => *value,
        Address::Text(text) => parse_text(text).ok_or(AddressError::Malformed)?,
    };
    let high = value >> 47;
    if high != 0 && high != (1 << 17) - 1 {
        Err(AddressError::NonCanonical)
    } else if value > USER_END {
        Err(AddressError::Kernel)
    } else if !value.is_multiple_of(PAGE) {
        Err(AddressError::Unaligned)
    } else {
        Ok(value)
    }
}

fn parse_text(text: &str) -> Option<u64> {
    let hex = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
    let digits = hex.unwrap_or(text);
    // `from_str_radix` would take a sign.
    if !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    u64::from_str_radix(digits, if hex.is_some() { 16 } else { 10 }).ok()
}

/// A release of Linux, ordered by age.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Release {
    /// `2` in `2.6.27`, `6` in `6.18`.
    pub major: u16,
    /// `6` in `2.6.27`, `18` in `6.18`.
    pub minor: u16,
    /// `27` in `2.6.27`, 0 from 3.0 on.
    pub patch: u16,
}

/// Reads `2.6.N` or, from 3.0 on, `N.M`.
#[must_use]
pub fn parse_release(text: &str) -> Option<Release> {
    let digits = |part: &str| {
        let plain = !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        if plain { part.parse::<u16>().ok() } else { None }
    };
    let parts: Vec<u16> = text.split('.').map(digits).collect::<Option<_>>()?;
    match parts[..] {
        [2, 6, patch] if patch <= 39 => Some(Release {
            major: 2,
            minor: 6,
            patch,
        }),
        [major, minor] if major >= 3 => Some(Release {
            major,
            minor,
            patch: 0,
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let text = |text: &str| parse_address(&Address::Text(text.to_owned()));
        assert_eq!(text("0x7f0000000000"), Ok(0x7f00_0000_0000));
        assert_eq!(text("8192"), Ok(8192));
        assert_eq!(text("0x1001"), Err(AddressError::Unaligned));
        assert_eq!(text("0x800000000000"), Err(AddressError::NonCanonical));
        assert_eq!(text("0xffff800000000000"), Err(AddressError::Kernel));
        for bad in ["", "0x", "+1", "heap", "0x+1"] {
            assert_eq!(text(bad), Err(AddressError::Malformed), "{bad}");
        }
    }

    #[test]
    fn releases() {
        assert_eq!(
            parse_release("2.6.27"),
            Some(Release {
                major: 2,
                minor: 6,
                patch: 27
            })
        );
        assert!(parse_release("2.6.32") < parse_release("6.18"));
        for bad in [
            "", "2.6", "2.6.40", "3.65536", "70000.1", "2.4.20", "6", "6.18.1", "v6.1", "6.+1", "latest",
        ] {
            assert_eq!(parse_release(bad), None, "{bad}");
        }
    }
}
