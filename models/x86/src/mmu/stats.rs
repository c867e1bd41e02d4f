//! What an MMU counted of its walks.

use crate::cache::Served;
use crate::tlb::ByAccess;
use crate::walker::{Access, DirtyAssist};

/// Page-table references of one walk, by who served them: a few bits each of one word, since a walk
/// carries it through many hands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WalkReferences(u64);

// Enough for the 35 references of a walk in two dimensions (reference row R33).
const COUNT_BITS: u32 = 8;
const COUNT_MASK: u64 = (1 << COUNT_BITS) - 1;

impl WalkReferences {
    /// One reference more.
    #[inline]
    pub fn count(&mut self, served: Served) {
        self.0 += 1 << (served as u32 * COUNT_BITS);
    }

    /// References served there.
    #[inline]
    #[must_use]
    pub const fn by(&self, served: Served) -> u64 {
        self.0 >> (served as u32 * COUNT_BITS) & COUNT_MASK
    }

    /// All references.
    #[must_use]
    pub fn total(&self) -> u64 {
        Served::ALL.into_iter().map(|served| self.by(served)).sum()
    }

    /// Sum over all references of a price each.
    #[inline]
    #[must_use]
    pub fn priced(&self, price: &[u64; Served::ALL.len()]) -> u64 {
        let priced = Served::ALL.into_iter().zip(price);
        priced.map(|(served, price)| self.by(served) * price).sum()
    }
}

/// Page-table references of many walks, by who served them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct References([u64; Served::ALL.len()]);

impl References {
    /// References served there.
    #[must_use]
    pub const fn by(&self, served: Served) -> u64 {
        self.0[served as usize]
    }

    /// All references.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Sum over all references of a price each.
    #[must_use]
    pub fn priced(&self, price: &[u64; Served::ALL.len()]) -> u64 {
        self.0.iter().zip(price).map(|(count, price)| count * price).sum()
    }

    /// The references of one walk more.
    #[inline]
    pub fn add(&mut self, walk: WalkReferences) {
        for (served, sum) in Served::ALL.into_iter().zip(&mut self.0) {
            *sum += walk.by(served);
        }
    }
}

/// Counts of walks since the MMU was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WalkStats {
    /// Walks that ended at a leaf, by the access that needed them.
    pub walks: ByAccess,
    /// Walks that ended in a fault.
    pub faults: ByAccess,
    /// Stores that found D clear and had it set (reference row R17).
    pub dirty_assists: u64,
    /// References of data walks, faulting ones included.
    pub data: References,
    /// References of walks for fetches, faulting ones included.
    pub fetch: References,
}

impl WalkStats {
    // `assist` is `None` for a walk that ended in a fault.
    #[inline]
    pub(super) fn book(&mut self, access: Access, references: WalkReferences, assist: Option<DirtyAssist>) {
        match access {
            Access::Fetch => self.fetch.add(references),
            Access::Read | Access::Write => self.data.add(references),
        }
        match assist {
            Some(assist) => {
                self.walks.count(access);
                self.dirty_assists += u64::from(assist == DirtyAssist::Taken);
            }
            None => self.faults.count(access),
        }
    }
}
