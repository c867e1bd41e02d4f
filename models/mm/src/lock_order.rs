//! The lock order of the host mm, as data.
//!
//! Follows the comments at the head of mm/rmap.c and mm/filemap.c of 2.6.27 and a reading of the call
//! sites (host-mm-paths E, notifier-variants 2.1). A rank grows inwards: whoever waits for a lock may
//! hold only locks of lower ranks, or one of the same class where the table says in which order. The
//! engine holds every nesting against it the first time it happens ([`sim::ViolationKind::LockRank`]).
//!
//! Section E does not place `mmu_notifier_mm->lock`. It gets a rank here from its call sites in
//! mm/mmu_notifier.c (registration takes it inside all rmap locks, nothing is waited for inside it):
//! behind anon_vma->lock, before the pte locks.
//!
//! [`SECONDARY`] is the rank of a lock that a secondary MMU takes in a callback under a pte lock; those
//! locks are declared by their drivers, with [`SECONDARY_INNER`] and [`SECONDARY_LEAF`] for what they
//! take inside. Locks of drivers that sleep have no rank: where they may be taken is the notifier
//! design's to say, and the context tracker finds out whether that was true.
//!
//! Rows of locks that no path takes yet are here so that the path that comes to take one finds its
//! rank: private_lock, inode_lock, sb_lock.

use sim::LockKind::{Mutex, RwSem, Spin};
use sim::Nesting::{AscendingOrInside, ByCaller, Forbidden};
use sim::{ClassDef, Irqs, LockKind, Nesting, Rank};

use crate::profile::{KernelProfile, PageCacheLookup, RmapLocks};

/// A lock of a driver that callbacks take, perhaps under a pte lock.
pub const SECONDARY: Rank = Rank::new(55);
/// A lock of a driver taken inside one of [`SECONDARY`].
pub const SECONDARY_INNER: Rank = Rank::new(56);
/// A lock of a driver taken inside both.
pub const SECONDARY_LEAF: Rank = Rank::new(57);

/// Declaration of a lock class with its origin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LockRow {
    /// Name of the era.
    pub name: &'static str,
    /// Place in the order; none for locks whose place the reference does not give.
    pub rank: Option<Rank>,
    /// Behaviour.
    pub kind: LockKind,
    /// Nesting within the class.
    pub nesting: Nesting,
    /// In which order locks of the class nest; empty if they do not.
    pub same_class: &'static str,
    /// Interrupts while it is held.
    pub irqs: Irqs,
    /// Where the rank, or without one the lock, is taken from.
    pub source: &'static str,
}

impl LockRow {
    /// A lock that does not nest with its like.
    #[must_use]
    pub const fn single(
        name: &'static str,
        rank: Option<Rank>,
        kind: LockKind,
        source: &'static str,
    ) -> Self {
        LockRow {
            name,
            rank,
            kind,
            nesting: Forbidden,
            same_class: "",
            irqs: Irqs::Either,
            source,
        }
    }

    /// The class as the engine wants it.
    #[must_use]
    pub const fn class(&self) -> ClassDef {
        ClassDef {
            name: self.name,
            kind: self.kind,
            nesting: self.nesting,
            rank: self.rank,
            irqs: self.irqs,
        }
    }
}

/// A lock class of the host mm.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum HostLock {
    /// `inode->i_mutex` of hugetlbfs, whose mmap takes it under mmap_sem (a class of its own in lockdep, too).
    HugetlbfsIMutex,
    /// `inode->i_mutex`.
    IMutex,
    /// `inode->i_alloc_sem`.
    IAllocSem,
    /// `mm->mmap_sem`.
    MmapSem,
    /// `mm_all_locks_mutex`.
    MmAllLocks,
    /// `hugetlb_instantiation_mutex`.
    HugetlbInstantiation,
    /// PG_locked.
    PageLocked,
    /// `mapping->i_mmap_lock`.
    IMmap,
    /// `anon_vma->lock`.
    AnonVma,
    /// `mm->mmu_notifier_mm->lock`.
    Notifier,
    /// `mm->page_table_lock`.
    PageTable,
    /// The lock of one page table.
    Pte,
    /// `swap_lock`.
    Swap,
    /// `zone->lru_lock`.
    Lru,
    /// `mmlist_lock`.
    Mmlist,
    /// `mapping->private_lock`.
    Private,
    /// `inode_lock`.
    Inode,
    /// `mapping->tree_lock`.
    Tree,
    /// `sb_lock`.
    Sb,
    /// The lock of a slot of TLB flush requests.
    TlbState,
}

const LOCKS: usize = HostLock::TlbState as usize + 1;

const ORDER: &str = "host-mm-paths E";

const fn row(name: &'static str, rank: u8, kind: LockKind) -> LockRow {
    LockRow::single(name, Some(Rank::new(rank)), kind, ORDER)
}

const fn nested(name: &'static str, rank: u8, kind: LockKind, same_class: &'static str) -> LockRow {
    LockRow {
        nesting: ByCaller,
        same_class,
        ..row(name, rank, kind)
    }
}

/// A lock that interrupt handlers take, too.
const fn irqs_off(name: &'static str, rank: u8, kind: LockKind) -> LockRow {
    LockRow {
        irqs: Irqs::Off,
        ..row(name, rank, kind)
    }
}

const MM_ALL_LOCKS: &str = "mm_all_locks_mutex";

/// A lock of a file or of a family of VMAs, of which only registration takes several: `mm_take_all_locks`,
/// which excludes itself, or `mm_lock`, which sorts them.
const fn rmap(name: &'static str, rank: u8, kind: LockKind) -> LockRow {
    LockRow {
        nesting: AscendingOrInside(MM_ALL_LOCKS),
        same_class: "in mm_take_all_locks, which excludes itself, or by address in mm_lock",
        ..row(name, rank, kind)
    }
}

/// The table of 2.6.27, in the order of [`HostLock`]; locks without a place in the order first.
const LINUX_2_6_27: [LockRow; LOCKS] = [
    // Its mmap takes it inside mmap_sem, its truncation outside i_alloc_sem: no place of this order fits.
    LockRow::single(
        "i_mutex (hugetlbfs)",
        None,
        Mutex,
        "fs/hugetlbfs/inode.c 2.6.27 (hugetlbfs_file_mmap); inferred",
    ),
    row("i_mutex", 10, Mutex),
    row("i_alloc_sem", 15, RwSem),
    nested("mmap_sem", 20, RwSem, "fork: the parent's, then the child's"),
    row(MM_ALL_LOCKS, 25, Mutex),
    row("hugetlb_instantiation_mutex", 27, Mutex),
    nested("PG_locked", 30, Mutex, "in the order of the caller"),
    rmap("i_mmap_lock", 40, Spin),
    rmap("anon_vma->lock", 45, Spin),
    LockRow {
        source: "inferred from mm/mmu_notifier.c 2.6.27 (host-mm-paths B.19)",
        ..row("mmu_notifier_mm->lock", 47, Spin)
    },
    nested(
        "page_table_lock",
        50,
        Spin,
        "hugetlb fork: the child's, then the parent's; as ptl, where pte locks are not split",
    ),
    nested(
        "ptl",
        50,
        Spin,
        "copy_pte_range: the child's, then the parent's; move_ptes: the old, then the new",
    ),
    row("swap_lock", 60, Spin),
    irqs_off("zone->lru_lock", 60, Spin),
    row("mmlist_lock", 62, Spin),
    row("private_lock", 62, Spin),
    row("inode_lock", 62, Spin),
    irqs_off("tree_lock", 65, Spin),
    row("sb_lock", 65, Spin),
    row("tlbstate_lock", 90, Spin),
];

/// What differs with sleeping rmap locks (notifier-variants V9). `mm_lock` sorts the locks of the mm by
/// address instead of excluding other takers.
const SLEEPING_RMAP: [(HostLock, LockRow); 2] = [
    (HostLock::IMmap, rmap("i_mmap_sem", 40, RwSem)),
    (HostLock::AnonVma, rmap("anon_vma->sem", 45, RwSem)),
];

/// The row of a lock in a kernel.
#[must_use]
pub fn row_of(lock: HostLock, profile: &KernelProfile) -> LockRow {
    let other = SLEEPING_RMAP
        .iter()
        .find(|(of, _)| profile.rmap_locks == RmapLocks::RwSem && *of == lock);
    let row = other.map_or(LINUX_2_6_27[lock as usize], |(_, row)| *row);
    // Up to 2.6.26 the page cache is looked up under it (host-mm-paths A.3).
    match (lock, profile.page_cache_lookup) {
        (HostLock::Tree, PageCacheLookup::UnderTreeLock) => LockRow {
            kind: LockKind::RwLock,
            ..row
        },
        _ => row,
    }
}

/// All rows of a kernel, outermost first.
#[must_use]
pub fn rows(profile: &KernelProfile) -> Vec<LockRow> {
    ALL.iter().map(|lock| row_of(*lock, profile)).collect()
}

/// All locks, outermost first.
pub const ALL: [HostLock; LOCKS] = [
    HostLock::HugetlbfsIMutex,
    HostLock::IMutex,
    HostLock::IAllocSem,
    HostLock::MmapSem,
    HostLock::MmAllLocks,
    HostLock::HugetlbInstantiation,
    HostLock::PageLocked,
    HostLock::IMmap,
    HostLock::AnonVma,
    HostLock::Notifier,
    HostLock::PageTable,
    HostLock::Pte,
    HostLock::Swap,
    HostLock::Lru,
    HostLock::Mmlist,
    HostLock::Private,
    HostLock::Inode,
    HostLock::Tree,
    HostLock::Sb,
    HostLock::TlbState,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_that_of_the_reference() {
        // host-mm-paths E, column 2.6.27.
        let expected = [
            (10, "i_mutex", Mutex),
            (15, "i_alloc_sem", RwSem),
            (20, "mmap_sem", RwSem),
            (25, "mm_all_locks_mutex", Mutex),
            (27, "hugetlb_instantiation_mutex", Mutex),
            (30, "PG_locked", Mutex),
            (40, "i_mmap_lock", Spin),
            (45, "anon_vma->lock", Spin),
            (50, "page_table_lock", Spin),
            (50, "ptl", Spin),
            (60, "swap_lock", Spin),
            (60, "zone->lru_lock", Spin),
            (62, "mmlist_lock", Spin),
            (62, "private_lock", Spin),
            (62, "inode_lock", Spin),
            (65, "tree_lock", Spin),
            (65, "sb_lock", Spin),
            (90, "tlbstate_lock", Spin),
        ];
        let found: Vec<_> = rows(&KernelProfile::LINUX_2_6_27)
            .iter()
            .filter(|row| row.source == ORDER)
            .map(|row| (row.rank.expect("ranked").get(), row.name, row.kind))
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn the_locks_of_interrupt_handlers_are_those_of_the_reference() {
        for profile in KernelProfile::ALL {
            let rows = rows(&profile);
            let off: Vec<_> = rows
                .iter()
                .filter(|r| r.irqs == Irqs::Off)
                .map(|r| r.name)
                .collect();
            assert_eq!(off, ["zone->lru_lock", "tree_lock"]);
        }
    }

    #[test]
    fn only_the_rmap_locks_sleep_in_the_sleepable_kernel() {
        let spinning = rows(&KernelProfile::LINUX_2_6_27);
        let sleeping = rows(&KernelProfile::LINUX_2_6_27_SLEEPABLE);
        let differ: Vec<_> = spinning.iter().zip(&sleeping).filter(|(a, b)| a != b).collect();
        let names: Vec<_> = differ.iter().map(|(a, b)| (a.name, b.name, b.kind)).collect();
        assert_eq!(
            names,
            [
                ("i_mmap_lock", "i_mmap_sem", RwSem),
                ("anon_vma->lock", "anon_vma->sem", RwSem)
            ]
        );
        assert!(differ.iter().all(|(a, b)| a.rank == b.rank));
    }

    #[test]
    fn rows_lie_where_their_lock_says_and_ranks_never_fall() {
        for (n, lock) in ALL.into_iter().enumerate() {
            assert_eq!(lock as usize, n);
        }
        for profile in KernelProfile::ALL {
            assert!(rows(&profile).is_sorted_by_key(|row| row.rank));
            for row in rows(&profile) {
                assert_eq!(
                    row.same_class.is_empty(),
                    row.nesting == Forbidden,
                    "{}",
                    row.name
                );
            }
        }
        assert!(row_of(HostLock::Pte, &KernelProfile::LINUX_2_6_27).rank < Some(SECONDARY));
        assert!(Some(SECONDARY_LEAF) < row_of(HostLock::Swap, &KernelProfile::LINUX_2_6_27).rank);
    }
}
