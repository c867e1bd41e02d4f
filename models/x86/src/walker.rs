//! The hardware page walker.
//!
//! A walk starts below the lowest upper-level entry that the paging-structure caches keep, else at the
//! root, and reads one entry a level down to a leaf of whatever size: at most four references with four
//! levels, five with five (reference rows R30, R31, R35). Each reference is announced, so that a cache
//! model can say what it costs.
//!
//! The walker sets A in every entry it uses, and D in a leaf it uses for a store. It keeps an
//! upper-level entry only after A is set (R12). A walk that faults leaves the leaf alone; upper-level
//! entries on the way are used all the same.

use std::convert::Infallible;

use sim::Cycles;

use crate::addr::Vpn;
use crate::entry::{Entry, EntryFlags, Rights};
use crate::machine::Costs;
use crate::page_size::PageSize;
use crate::psc::{Psc, Start};
use crate::rules::Rules;
use crate::tables::{Level, PageTables, TableId};
use crate::tlb::Asid;

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
    /// All kinds.
    pub const ALL: [Access; 3] = [Access::Read, Access::Write, Access::Fetch];

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
        /// The table holding the leaf.
        table: TableId,
        /// Index of the leaf in the table.
        index: usize,
        /// The leaf after the walker set A, and D for a store.
        entry: Entry,
        /// Size of the page it maps.
        size: PageSize,
        /// What all levels together allow.
        rights: Rights,
        /// Whether the walker had to set D.
        assist: DirtyAssist,
    },
    /// An entry on the way is not present.
    NotPresent {
        /// Level of the entry.
        level: Level,
        /// The entry: empty, or a software value.
        entry: Entry,
    },
    /// An entry on the way has a reserved bit set.
    Reserved {
        /// Level of the entry.
        level: Level,
        /// The entry.
        entry: Entry,
    },
    /// The levels together do not allow the access. A and D of the leaf are left alone.
    Protection {
        /// The table holding the leaf.
        table: TableId,
        /// Index of the leaf in the table.
        index: usize,
        /// The leaf.
        entry: Entry,
    },
}

/// Whether a walk for a store found D clear and set it (reference row R17).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DirtyAssist {
    /// No.
    None,
    /// Yes: a microcode assist wrote the leaf.
    Taken,
}

/// A finished walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Walk {
    /// Table entries read.
    pub references: u32,
    /// How it ended.
    pub outcome: WalkOutcome,
}

/// Walks the tables for a user's access without paging-structure caches.
#[inline]
#[must_use]
pub fn walk(tables: &mut PageTables, root: TableId, vpn: Vpn, access: Access) -> Walk {
    let start = from_root(tables, root);
    unstopped(walk_from(
        tables,
        start,
        vpn,
        access,
        &Rules::USER,
        |_, _, _| {},
        |_, _| Ok(()),
    ))
}

/// Walks the tables with the paging-structure caches of a CPU. `referenced` hears table and index of
/// each entry read, in order.
#[inline]
#[must_use]
#[expect(
    clippy::too_many_arguments,
    reason = "a walk depends on this much of a processor"
)]
pub fn walk_cached(
    tables: &mut PageTables,
    psc: &mut Psc,
    asid: Asid,
    root: TableId,
    vpn: Vpn,
    access: Access,
    rules: &Rules,
    mut referenced: impl FnMut(TableId, usize),
) -> Walk {
    let on_read = |table, index| {
        referenced(table, index);
        Ok(())
    };
    unstopped(walk_stoppable(
        tables, psc, asid, root, vpn, access, rules, on_read,
    ))
}

/// [`walk_cached`] where reading an entry may fail: then nothing of it is used.
#[inline]
#[expect(
    clippy::too_many_arguments,
    reason = "a walk depends on this much of a processor"
)]
pub(crate) fn walk_stoppable<E>(
    tables: &mut PageTables,
    psc: &mut Psc,
    asid: Asid,
    root: TableId,
    vpn: Vpn,
    access: Access,
    rules: &Rules,
    read: impl FnMut(TableId, usize) -> Result<(), E>,
) -> Result<Walk, E> {
    // Flushes and faults leave nothing behind often enough to look at that first.
    let kept = match psc.filled_slots() {
        0 => None,
        _ => psc.start(asid, vpn),
    };
    let start = kept.unwrap_or_else(|| from_root(tables, root));
    let keep = |level, below, rights| psc.keep(asid, level, vpn, below, rights);
    walk_from(tables, start, vpn, access, rules, keep, read)
}

#[inline]
fn unstopped(walk: Result<Walk, Infallible>) -> Walk {
    match walk {
        Ok(walk) => walk,
        Err(never) => match never {},
    }
}

fn from_root(tables: &PageTables, root: TableId) -> Start {
    Start {
        level: tables.mode().root_level(),
        table: root,
        rights: Rights::ALL,
    }
}

#[inline]
fn walk_from<E>(
    tables: &mut PageTables,
    start: Start,
    vpn: Vpn,
    access: Access,
    rules: &Rules,
    mut keep: impl FnMut(Level, TableId, Rights),
    mut read: impl FnMut(TableId, usize) -> Result<(), E>,
) -> Result<Walk, E> {
    let Start {
        mut level,
        mut table,
        mut rights,
    } = start;
    let mut references = 0;
    let outcome = loop {
        let index = level.index_of(vpn);
        read(table, index)?;
        references += 1;
        let entry = tables.get(table, index);
        if !entry.present() {
            break WalkOutcome::NotPresent { level, entry };
        }
        let size = match (level, level.page_size()) {
            (Level::Pte, _) => Some(PageSize::Size4K),
            (_, size) if entry.is_large_leaf() => match size {
                Some(size) if rules.knows(size) && !entry.has_reserved_bits(size) => Some(size),
                _ => break WalkOutcome::Reserved { level, entry },
            },
            _ => None,
        };
        rights = rights.common(entry.rights());
        if let Some(size) = size {
            break use_leaf(tables, (table, index), entry, size, rights, access, rules);
        }
        if !entry.accessed() {
            tables.set(table, index, entry.with(EntryFlags::ACCESSED));
        }
        let (Some(below), Some(next)) = (level.below(), entry.table_id()) else {
            break WalkOutcome::Reserved { level, entry };
        };
        keep(level, next, rights);
        (level, table) = (below, next);
    };
    Ok(Walk { references, outcome })
}

#[inline]
fn use_leaf(
    tables: &mut PageTables,
    (table, index): (TableId, usize),
    entry: Entry,
    size: PageSize,
    rights: Rights,
    access: Access,
    rules: &Rules,
) -> WalkOutcome {
    if !rules.permit(access, rights) {
        return WalkOutcome::Protection { table, index, entry };
    }
    let (used, assist) = match access {
        Access::Write if !entry.dirty() => (entry.with_accessed().with_dirty(), DirtyAssist::Taken),
        Access::Read | Access::Write | Access::Fetch => (entry.with_accessed(), DirtyAssist::None),
    };
    if used != entry {
        tables.set(table, index, used);
    }
    WalkOutcome::Leaf {
        table,
        index,
        entry: used,
        size,
        rights,
        assist,
    }
}

/// Cycles of a walk of so many references that all hit the first-level cache:
/// `walk_base + references * cache_l1`.
///
/// The suggested formula of the hardware reference (section 3) with every reference cached. For four
/// references this gives 18 cycles on the 2008 machines and 26 on the modern one, between the measured
/// hot walk with a paging-structure-cache hit (9, 15) and the typical one (24, 45).
#[inline]
#[must_use]
pub fn walk_cost(costs: &Costs, references: u32) -> Cycles {
    costs.walk_base + costs.cache_l1 * u64::from(references)
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
        let WalkOutcome::Leaf {
            table, index, entry, ..
        } = read.outcome
        else {
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
            (Vpn::new(0), Level::P4d, 1),
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
