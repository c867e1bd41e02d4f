//! One memory reference of a program in one word, as traces and streams deliver it to an MMU.

use std::fmt;

use crate::addr::Va;
use crate::walker::Access;

/// Bits of a linear address that say something: 57 with five levels of paging. The bits above repeat
/// bit 56 (Intel SDM vol. 1, 3.3.7.1).
pub const LINEAR_ADDRESS_BITS: u32 = 57;

const ADDRESS_MASK: u64 = (1 << LINEAR_ADDRESS_BITS) - 1;
const KIND_MASK: u64 = 3 << LINEAR_ADDRESS_BITS;

/// Kind and address of an access: bits 0 to 56 hold the address, bits 57 and 58 the kind.
///
/// One access translates one page. What crosses into the next page is two references.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Reference(u64);

impl Reference {
    /// The reference, if the address is canonical with 57 bits.
    #[inline]
    #[must_use]
    pub const fn new(access: Access, va: Va) -> Option<Self> {
        let reference = Reference::truncating(access, va);
        if reference.va().get() == va.get() {
            Some(reference)
        } else {
            None
        }
    }

    /// The reference to the low 57 bits of an address, the bits above being copies of bit 56.
    #[inline]
    #[must_use]
    pub const fn truncating(access: Access, va: Va) -> Self {
        Reference(va.get() & ADDRESS_MASK | (access as u64) << LINEAR_ADDRESS_BITS)
    }

    /// What the access does.
    #[inline]
    #[must_use]
    pub const fn access(self) -> Access {
        match (self.0 & KIND_MASK) >> LINEAR_ADDRESS_BITS {
            0 => Access::Read,
            1 => Access::Write,
            _ => Access::Fetch,
        }
    }

    /// The address.
    #[inline]
    #[must_use]
    pub const fn va(self) -> Va {
        const UNUSED_BITS: u32 = u64::BITS - LINEAR_ADDRESS_BITS;
        Va::new(((self.0 << UNUSED_BITS) as i64 >> UNUSED_BITS) as u64)
    }

    /// The word: equal words are equal references.
    #[inline]
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }
}

impl fmt::Debug for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {}", self.access(), self.va())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_keeps_kind_and_address_of_either_half() {
        for access in [Access::Read, Access::Write, Access::Fetch] {
            for raw in [
                0,
                0x7f12_3456_789a,
                0x00ff_ffff_ffff_ffff,
                0xff00_0000_0000_0000,
                u64::MAX,
            ] {
                let reference = Reference::new(access, Va::new(raw)).unwrap();
                assert_eq!((reference.access(), reference.va().get()), (access, raw));
            }
        }
        assert!(Reference::new(Access::Read, Va::new(1 << 57)).is_none());
        assert!(Reference::new(Access::Read, Va::new(0x0100_0000_0000_0000)).is_none());
    }
}
