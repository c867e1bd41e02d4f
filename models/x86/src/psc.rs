//! Paging-structure caches: upper-level entries that a walk can start from.
//!
//! A bank keeps entries of one level or of several. An entry is kept with the rights of all levels
//! above it together, so a walk that starts from it needs nothing else. Only entries with P and A set
//! are kept (reference row R12). Intel documents that such caches may exist and what invalidates them
//! (SDM vol. 3A 4.10.3), not their sizes; machine files say where theirs come from.

use serde::{Deserialize, Serialize};

use crate::addr::Vpn;
use crate::entry::Rights;
use crate::set_array::SetArray;
use crate::tables::{Level, TableId};
use crate::tlb::{Asid, Shape, significant};

/// One array of upper-level entries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PscBank {
    /// Slots, ways, replacement, index function.
    pub shape: Shape,
    /// Levels whose entries its slots can hold.
    pub holds: Vec<PscLevel>,
    /// Rows of the hardware reference, or other origin.
    pub source: String,
    /// How far to trust it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
}

/// A level of which a paging-structure cache keeps entries, by Intel's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PscLevel {
    /// Entries that point at page tables, 2 MiB each.
    Pde,
    /// Entries that point at page directories, 1 GiB each.
    Pdpte,
    /// Entries that point at page-directory-pointer tables, 512 GiB each.
    Pml4e,
    /// Entries that point at PML4 tables, 256 TiB each; five levels only.
    Pml5e,
}

impl PscLevel {
    const fn level(self) -> Level {
        match self {
            PscLevel::Pde => Level::Pmd,
            PscLevel::Pdpte => Level::Pud,
            PscLevel::Pml4e => Level::P4d,
            PscLevel::Pml5e => Level::Pgd,
        }
    }
}

/// Where a walk can start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Start {
    /// Level of the first entry the walk must read.
    pub(crate) level: Level,
    /// The table it is in.
    pub(crate) table: TableId,
    /// Rights of all levels above.
    pub(crate) rights: Rights,
}

#[derive(Clone, Copy, Default)]
struct Upper {
    below: u32,
    rights: Rights,
}

const ASID_SHIFT: u32 = 48;
const LEVEL_SHIFT: u32 = 45;
// Levels that can be kept, in order: all but the lowest.
const LEVELS: usize = 4;
const KEPT: [Level; LEVELS] = [Level::Pmd, Level::Pud, Level::P4d, Level::Pgd];

/// How entries of a level are kept.
#[derive(Clone, Copy)]
struct Kept {
    bank: u8,
    // Bits of a page number that an entry says nothing of.
    shift: u8,
    // The level below the entry's.
    below: Level,
    // The part of a tag that is the same for all entries of the level.
    mark: u64,
}

impl Kept {
    #[inline(always)]
    fn number_and_tag(self, asid: Asid, vpn: Vpn) -> (u64, u64) {
        let number = significant(vpn).get() >> self.shift;
        (number, u64::from(asid.get()) << ASID_SHIFT | self.mark | number)
    }
}

/// The paging-structure caches of one logical CPU.
#[derive(Clone)]
pub struct Psc {
    slots: SetArray<Upper>,
    kept: [Option<Kept>; LEVELS],
}

impl Psc {
    /// Empty caches of this geometry. A level named by several banks is kept by the first.
    #[must_use]
    pub fn new(banks: &[PscBank]) -> Self {
        let holder = |level: Level| {
            banks
                .iter()
                .position(|bank| bank.holds.iter().any(|l| l.level() == level))
        };
        Psc {
            slots: SetArray::new(banks.iter().map(|bank| bank.shape)),
            kept: KEPT.map(|level| {
                Some(Kept {
                    bank: holder(level)? as u8,
                    shift: level.entry_pages().trailing_zeros() as u8,
                    below: level.below()?,
                    mark: (level as u64) << LEVEL_SHIFT,
                })
            }),
        }
    }

    /// The lowest entry kept for a page, which becomes the most recently used of its set.
    #[inline]
    pub(crate) fn start(&mut self, asid: Asid, vpn: Vpn) -> Option<Start> {
        for kept in self.kept.iter().flatten() {
            let (number, tag) = kept.number_and_tag(asid, vpn);
            if let Some(slot) = self.slots.find(kept.bank as usize, number, tag) {
                self.slots.touch(slot);
                let upper = self.slots.get(slot);
                return Some(Start {
                    level: kept.below,
                    table: TableId::new(upper.below),
                    rights: upper.rights,
                });
            }
        }
        None
    }

    /// Keeps an entry of an upper level that points at `below`.
    #[inline]
    pub(crate) fn keep(&mut self, asid: Asid, level: Level, vpn: Vpn, below: TableId, rights: Rights) {
        let Some(kept) = self.kept[level as usize - 1] else {
            return;
        };
        let upper = Upper {
            below: below.get(),
            rights,
        };
        let (number, tag) = kept.number_and_tag(asid, vpn);
        // A walk keeps only what it did not start from, nor below.
        let bank = kept.bank as usize;
        if self.slots.swap_in(bank, number, tag, upper).is_none() {
            self.slots.fill_absent(bank, number, tag, upper);
        }
    }

    /// Empties the slots used for one page under one tag (reference rows R2, R10).
    pub fn invalidate_page(&mut self, asid: Asid, vpn: Vpn) {
        for kept in self.kept.iter().flatten() {
            let (number, tag) = kept.number_and_tag(asid, vpn);
            if let Some(slot) = self.slots.find(kept.bank as usize, number, tag) {
                self.slots.clear(slot);
            }
        }
    }

    /// Empties the slots under the tags that `doomed` picks (reference rows R1, R3, R6).
    pub fn flush_where(&mut self, doomed: impl Fn(Asid) -> bool) {
        self.slots
            .clear_where(|tag, _| doomed(Asid::new((tag >> ASID_SHIFT) as u16)), |_, _| {});
    }

    /// Empties all slots (reference rows R4, R5, R8).
    pub fn flush_all(&mut self) {
        self.flush_where(|_| true);
    }

    /// Whether a slot leads to the table.
    #[must_use]
    pub fn leads_to(&self, table: TableId) -> bool {
        self.slots.filled().any(|(_, upper)| upper.below == table.get())
    }

    /// Filled slots.
    #[must_use]
    pub fn filled_slots(&self) -> usize {
        self.slots.len()
    }
}
