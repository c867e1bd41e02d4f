//! What a CPU's TLBs counted.

use std::ops::{Add, AddAssign};

use crate::walker::Access;

/// A count for each kind of access.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ByAccess([u64; 3]);

impl ByAccess {
    /// Counts for loads, stores and fetches.
    #[must_use]
    pub const fn new(reads: u64, writes: u64, fetches: u64) -> Self {
        ByAccess([reads, writes, fetches])
    }

    #[inline]
    pub(crate) fn count(&mut self, access: Access) {
        self.0[access as usize] += 1;
    }

    /// The count of one kind.
    #[inline]
    #[must_use]
    pub const fn of(&self, access: Access) -> u64 {
        self.0[access as usize]
    }

    /// Loads and stores.
    #[must_use]
    pub const fn data(&self) -> u64 {
        self.0[Access::Read as usize] + self.0[Access::Write as usize]
    }

    /// Instruction fetches.
    #[must_use]
    pub const fn fetches(&self) -> u64 {
        self.0[Access::Fetch as usize]
    }

    /// All kinds.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.data() + self.fetches()
    }
}

/// Counts by access in one word, for loops that must not store: 21 bits a kind.
#[derive(Clone, Copy, Default)]
pub(super) struct Packed(u64);

const PACKED_BITS: u32 = 21;

impl Packed {
    /// Counts after which it must be taken.
    pub(super) const MOST: usize = (1 << PACKED_BITS) - 1;

    #[inline]
    pub(super) fn count(&mut self, access: Access) {
        self.0 += 1 << (access as u32 * PACKED_BITS);
    }

    pub(super) fn take(&mut self) -> ByAccess {
        let Packed(all) = std::mem::take(self);
        ByAccess([0, 1, 2].map(|kind| all >> (kind * PACKED_BITS) & Packed::MOST as u64))
    }
}

impl AddAssign for ByAccess {
    fn add_assign(&mut self, other: Self) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine += theirs;
        }
    }
}

impl Add for ByAccess {
    type Output = ByAccess;
    fn add(mut self, other: Self) -> Self {
        self += other;
        self
    }
}

/// Counts since the TLBs were made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TlbStats {
    /// Lookups that hit the first level.
    pub l1_hits: ByAccess,
    /// Lookups that hit only the second level.
    pub l2_hits: ByAccess,
    /// Lookups that hit neither.
    pub misses: ByAccess,
    /// Translations brought in after walks.
    pub fills: u64,
    /// Slots, of either level, taken over by another page.
    pub evictions: u64,
    /// Slots, of either level, emptied by an invalidation.
    pub flushed_entries: u64,
}
