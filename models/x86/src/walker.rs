//! The hardware page walker.
//!
//! Every walk starts at the root and reads one entry a level: four references for a 4 KiB leaf
//! (reference row R30). Paging-structure caches are not modelled yet, so no walk is shorter; the
//! cost formula compensates by charging every reference as a cache hit, see [`walk_cost`].
//!
//! Upper-level entries are written by software with R/W, U/S and A set, as Linux does, so only the
//! leaf decides about rights and only the leaf's A and D bits are ever written here.

use sim::Cycles;

use crate::addr::Vpn;
use crate::entry::Entry;
use crate::machine::Costs;
use crate::tables::{Level, PageTables, TableId};

/// Table levels of the host's page tables.
pub const HOST_LEVELS: u32 = 4;

/// What an access does to memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Access {
    /// A load.
    Read,
    /// A store.
    Write,
    /// An instruction fetch.
    Fetch,
}

impl Access {
    /// Whether the access needs a writable translation.
    #[inline]
    #[must_use]
    pub const fn is_write(self) -> bool {
        matches!(self, Access::Write)
    }
}

/// How a walk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum WalkOutcome {
    /// A translation.
    Leaf {
        /// The page table holding the leaf.
        table: TableId,
        /// Index of the leaf in the table.
        index: usize,
        /// The leaf after the walker set A, and D for a store.
        entry: Entry,
    },
    /// An entry on the way is not present.
    NotPresent {
        /// Level of the entry.
        level: Level,
        /// The entry: empty, or a software value at the lowest level.
        entry: Entry,
    },
    /// A store found a read-only leaf. A and D are left alone.
    Protection {
        /// The page table holding the leaf.
        table: TableId,
        /// Index of the leaf in the table.
        index: usize,
        /// The leaf.
        entry: Entry,
    },
}

/// A finished walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Walk {
    /// Table entries read.
    pub references: u32,
    /// How it ended.
    pub outcome: WalkOutcome,
}

/// Walks the tables for one access, setting A, and D for a store, in the leaf.
#[inline]
#[must_use]
pub fn walk(tables: &mut PageTables, root: TableId, vpn: Vpn, access: Access) -> Walk {
    let table = match tables.descend(root, vpn) {
        Ok(table) => table,
        Err(level) => {
            let references = HOST_LEVELS - level.depth_below();
            return Walk {
                references,
                outcome: WalkOutcome::NotPresent {
                    level,
                    entry: Entry::NONE,
                },
            };
        }
    };
    let references = HOST_LEVELS;
    let index = Level::Pte.index_of(vpn);
    let entry = tables.get(table, index);
    let outcome = if !entry.present() {
        WalkOutcome::NotPresent {
            level: Level::Pte,
            entry,
        }
    } else if access.is_write() && !entry.writable() {
        WalkOutcome::Protection { table, index, entry }
    } else {
        let used = match access {
            Access::Read | Access::Fetch => entry.with_accessed(),
            Access::Write => entry.with_accessed().with_dirty(),
        };
        if used != entry {
            tables.set(table, index, used);
        }
        WalkOutcome::Leaf {
            table,
            index,
            entry: used,
        }
    };
    Walk { references, outcome }
}

/// Cycles of a walk of so many references: `walk_base + references * walk_reference`.
///
/// The suggested formula of the hardware reference (section 3) with every reference cached: presets
/// set `walk_reference` to the latency of the first-level cache. For four references this gives 18
/// cycles on the 2008 machines and 26 on the modern one, between the measured hot walk with a
/// paging-structure-cache hit (9, 15) and the typical one (24, 45).
#[inline]
#[must_use]
pub fn walk_cost(costs: &Costs, references: u32) -> Cycles {
    costs.walk_base + costs.walk_reference * u64::from(references)
}

/// References of a two-dimensional walk, `(guest + 1) * (host + 1) - 1`: 24 for 4 by 4
/// (reference rows R32 to R34). `guest` and `host` are levels down to the leaf.
#[inline]
#[must_use]
pub const fn nested_references(guest: u32, host: u32) -> u32 {
    (guest + 1) * (host + 1) - 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::Pfn;
    use crate::entry::Rights;

    const VPN: Vpn = Vpn::new(0x7_1234_5678);

    fn mapped(rights: Rights) -> (PageTables, TableId) {
        let mut tables = PageTables::new();
        let root = tables.alloc();
        let pt = tables.populate(root, VPN, |_, _| {});
        tables.set(pt, Level::Pte.index_of(VPN), Entry::leaf(Pfn::new(9), rights));
        (tables, root)
    }

    #[test]
    fn leaf_takes_four_references_and_sets_accessed_and_dirty() {
        let (mut tables, root) = mapped(Rights::USER_WRITE);
        let read = walk(&mut tables, root, VPN, Access::Read);
        assert_eq!(read.references, HOST_LEVELS);
        let WalkOutcome::Leaf { table, index, entry } = read.outcome else {
            panic!("{read:?}")
        };
        assert!(entry.accessed() && !entry.dirty());
        assert_eq!(tables.get(table, index), entry);
        let write = walk(&mut tables, root, VPN, Access::Write);
        let WalkOutcome::Leaf { entry, .. } = write.outcome else {
            panic!("{write:?}")
        };
        assert!(entry.accessed() && entry.dirty());
        assert_eq!(tables.get(table, index), entry);
    }

    #[test]
    fn absent_levels_shorten_the_walk() {
        let (mut tables, root) = mapped(Rights::USER);
        for (vpn, level, references) in [
            (Vpn::new(0), Level::Pgd, 1),
            (Vpn::new(VPN.get() ^ 1 << 18), Level::Pud, 2),
            (Vpn::new(VPN.get() ^ 1 << 9), Level::Pmd, 3),
            (Vpn::new(VPN.get() ^ 1), Level::Pte, 4),
        ] {
            let walk = walk(&mut tables, root, vpn, Access::Read);
            assert_eq!(walk.references, references);
            assert_eq!(
                walk.outcome,
                WalkOutcome::NotPresent {
                    level,
                    entry: Entry::NONE
                }
            );
        }
    }

    #[test]
    fn store_through_read_only_leaf_faults_and_leaves_it_alone() {
        let (mut tables, root) = mapped(Rights::USER);
        let walk = walk(&mut tables, root, VPN, Access::Write);
        let WalkOutcome::Protection { table, index, entry } = walk.outcome else {
            panic!("{walk:?}")
        };
        assert_eq!(tables.get(table, index), entry);
        assert!(!entry.accessed() && !entry.dirty());
    }

    #[test]
    fn nested_walks_take_the_architectural_number_of_references() {
        assert_eq!(nested_references(4, 4), 24);
        assert_eq!(nested_references(5, 5), 35);
        assert_eq!(nested_references(4, 3), 19);
    }
}
