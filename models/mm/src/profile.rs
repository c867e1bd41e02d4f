//! Kernel profiles: what differs between the kernels we imitate, as data.
//!
//! Sources: host-mm-paths A.6, B.1, C.1, E. `linux-2.6.27-sleepable` is the tree of the seed's
//! post-2.6.26 patches (notifier-variants V9): i_mmap_lock and the anon_vma lock are rwsems, the
//! gather is on the stack and preemptible but keeps its 506 entries, so that flush counts stay
//! those of 2.6.27. With sleeping rmap locks the truncate lock-break and its restarts disappear
//! (host-mm-paths E, point 2): the holder sleeps where the spinning kernel had to let go. The text
//! of the May 2008 patches was not available (host-mm-paths H); all users take the rwsems for
//! write, as the later mainline conversion did first (same place, point 6).
//!
//! `linux-2.6.25` is the tree that the designs of early 2008 were written against. Of what we imitate it
//! differs from 2.6.27 in this (host-mm-paths A.3, A.7, H): `tree_lock` is an rwlock, and every look-up, of
//! a page, of a pagevec, by a tag, or in the swap cache, takes it for read with interrupts off; there is no
//! `get_user_pages_fast`; `page_mkclean` passes over entries that look absent (`page_check_address` has no
//! `sync`); mmap promises huge pages to shared mappings only, so `hugetlb_cow` fails where none is left, and
//! there is no `unmap_ref_private` (both came with 2.6.27). It has no notifier of its own; a design brings its
//! call sites along.

use sim::KernelPreemption;
use x86::PAGE_SIZE;

/// How rmap locks (i_mmap_lock, anon_vma->lock) behave.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RmapLocks {
    /// Spinlocks.
    Spin,
    /// rw semaphores.
    RwSem,
}

/// Where the mmu_gather lives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GatherKind {
    /// One a CPU: preemption is off from `tlb_gather_mmu` to `tlb_finish_mmu`.
    PerCpu,
    /// On the caller's stack; preemptible.
    OnStack,
}

/// Whether truncate drops i_mmap_lock when it should reschedule.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TruncateBreak {
    /// At block ends, and the tree walk restarts.
    AtBlockEnds,
    /// Never: the lock may be slept with.
    Never,
}

/// Which lock guards the entries of a page table (CONFIG_SPLIT_PTLOCK_CPUS: split from 4 possible CPUs
/// on, mm/Kconfig 2.6.27).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PteLocks {
    /// One for each page table.
    PerTable,
    /// `page_table_lock`, one for each address space.
    PerMm,
}

/// How a page is looked up in the page cache.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PageCacheLookup {
    /// Under `tree_lock`, an rwlock, taken for read with interrupts off.
    UnderTreeLock,
    /// Without a lock (RCU and `page_cache_get_speculative`); `tree_lock` is a spinlock.
    Lockless,
}

/// To whom mmap promises huge pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HugetlbReserve {
    /// To shared mappings only: a private one gets what is promised to nobody, or nothing.
    SharedOnly,
    /// To private mappings, too, for their whole length and the process that made them.
    PrivateToo,
}

/// Whether `get_user_pages_fast` exists.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GupFast {
    /// It does not: everybody takes mmap_sem.
    Absent,
    /// It does.
    Present,
}

/// What `page_mkclean` does with an entry that looks absent before its lock is taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MkcleanCheck {
    /// It is passed over.
    Quick,
    /// It is looked at again under its lock (`sync`).
    Sync,
}

/// What finds the VMAs of a file (`address_space.i_mmap`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IMmapIndex {
    /// The radix priority search tree, until 3.6 (host-mm-paths D.1).
    PrioTree,
    /// The augmented red-black interval tree, since 3.7 (host-mm-paths D.2). No profile that is shipped has it:
    /// it is there to be compared with.
    IntervalTree,
}

/// A kernel to imitate.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KernelProfile {
    /// Name in scenarios.
    pub name: &'static str,
    /// One line.
    pub title: &'static str,
    /// CONFIG_PREEMPT.
    pub preemption: KernelPreemption,
    /// rmap locks.
    pub rmap_locks: RmapLocks,
    /// Gather.
    pub gather: GatherKind,
    /// Truncate.
    pub truncate_break: TruncateBreak,
    /// pte locks.
    pub pte_locks: PteLocks,
    /// Page cache.
    pub page_cache_lookup: PageCacheLookup,
    /// get_user_pages_fast.
    pub gup_fast: GupFast,
    /// page_mkclean.
    pub mkclean_check: MkcleanCheck,
    /// Promises of huge pages.
    pub hugetlb_reserve: HugetlbReserve,
    /// Index of a file's VMAs.
    pub i_mmap_index: IMmapIndex,
}

/// `FREE_PTE_NR` on SMP: pages a gather holds before it flushes, include/asm-generic/tlb.h 2.6.27.
pub const FREE_PTE_NR: usize = 506;

/// `PAGEVEC_SIZE`: pages handled under one hold of lru_lock, include/linux/pagevec.h 2.6.27.
pub const PAGEVEC_SIZE: usize = 14;

/// Bytes that a none entry counts against the zap block; a present one counts a page.
pub const ZAP_NONE_BYTES: i64 = 1;

/// `progress` of copy_pte_range after which it looks for a reason to drop its locks.
pub const FORK_PROGRESS_LIMIT: u32 = 32;

/// `progress` of copy_pte_range for an entry that is copied; a none entry counts 1.
pub const FORK_PROGRESS_ENTRY: u32 = 8;

/// `sysctl_max_map_count`, include/linux/sched.h 2.6.27.
pub const MAX_MAP_COUNT: usize = 65536;

/// `LATENCY_LIMIT` of mremap: pages moved under one hold of i_mmap_lock, mm/mremap.c 2.6.27.
pub const MREMAP_CHUNK_PAGES: u64 = 64;

/// Passes of migrate_pages over the pages that are left, mm/migrate.c 2.6.27.
pub const MIGRATE_PASSES: u32 = 10;

/// Passes of migrate_pages that leave locked pages and pages under writeback alone (`pass > 2` forces).
pub const MIGRATE_PASSES_TRYING: u32 = 3;

/// Width of the preemption count, notifier-variants 2.1 (2.6.25 include/linux/hardirq.h: 8 bits).
pub const PREEMPT_COUNT_LIMIT: u32 = 255;

impl KernelProfile {
    /// Linux 2.6.27, after the merge of mmu notifiers.
    pub const LINUX_2_6_27: KernelProfile = KernelProfile {
        name: "linux-2.6.27",
        title: "Linux 2.6.27: spinning rmap locks, per-CPU gather of 506 pages",
        preemption: KernelPreemption::Voluntary,
        rmap_locks: RmapLocks::Spin,
        gather: GatherKind::PerCpu,
        truncate_break: TruncateBreak::AtBlockEnds,
        i_mmap_index: IMmapIndex::PrioTree,
        pte_locks: PteLocks::PerTable,
        page_cache_lookup: PageCacheLookup::Lockless,
        gup_fast: GupFast::Present,
        mkclean_check: MkcleanCheck::Sync,
        hugetlb_reserve: HugetlbReserve::PrivateToo,
    };

    /// Linux 2.6.25, the tree before the notifiers.
    pub const LINUX_2_6_25: KernelProfile = KernelProfile {
        name: "linux-2.6.25",
        title: "Linux 2.6.25: page cache under a read lock, no get_user_pages_fast, page_mkclean without sync",
        page_cache_lookup: PageCacheLookup::UnderTreeLock,
        gup_fast: GupFast::Absent,
        mkclean_check: MkcleanCheck::Quick,
        hugetlb_reserve: HugetlbReserve::SharedOnly,
        ..KernelProfile::LINUX_2_6_27
    };

    /// Linux 2.6.27 with the sleepable-notifier series on top.
    pub const LINUX_2_6_27_SLEEPABLE: KernelProfile = KernelProfile {
        name: "linux-2.6.27-sleepable",
        title: "Linux 2.6.27 with rwsems for i_mmap_lock and anon_vma->lock and an on-stack gather",
        rmap_locks: RmapLocks::RwSem,
        gather: GatherKind::OnStack,
        truncate_break: TruncateBreak::Never,
        ..KernelProfile::LINUX_2_6_27
    };

    /// All profiles.
    pub const ALL: [KernelProfile; 3] = [
        KernelProfile::LINUX_2_6_25,
        KernelProfile::LINUX_2_6_27,
        KernelProfile::LINUX_2_6_27_SLEEPABLE,
    ];

    /// The profile of a name.
    #[must_use]
    pub fn by_name(name: &str) -> Option<&'static KernelProfile> {
        const ALL: &[KernelProfile] = &KernelProfile::ALL;
        ALL.iter().find(|p| p.name == name)
    }

    /// `ZAP_BLOCK_SIZE` in bytes: 8 pages with CONFIG_PREEMPT, else 1024 (mm/memory.c 2.6.27).
    #[must_use]
    pub fn zap_block_bytes(&self) -> i64 {
        let pages = match self.preemption {
            KernelPreemption::Full => 8,
            KernelPreemption::Voluntary => 1024,
        };
        pages * PAGE_SIZE as i64
    }
}

/// Software work of the paths in units of hardware primitives: cache lines touched, each charged
/// as [`x86::Costs::cacheline_touch`]. No source gives these; they are inferred from the structures
/// involved and only shift costs, never counts.
pub mod work {
    /// find_vma: rb-tree nodes down to a leaf among some tens of VMAs.
    pub const FIND_VMA: u64 = 4;
    /// Allocating, filling and linking a VMA.
    pub const LINK_VMA: u64 = 24;
    /// Unlinking and freeing a VMA.
    pub const UNLINK_VMA: u64 = 16;
    /// Reverse map and rss of one page: the page's line and the mm's.
    pub const RMAP: u64 = 2;
    /// One node of the page cache's radix tree: the line of its slots.
    pub const PAGE_CACHE_NODE: u64 = 1;
    /// The swap cache's radix tree: levels for a device of some hundred thousand slots.
    pub const SWAP_CACHE: u64 = 3;
    /// One node of the i_mmap tree.
    pub const I_MMAP_NODE: u64 = 1;
    /// Finding and testing one subscriber of the notifier list.
    pub const SUBSCRIBER: u64 = 2;
    /// Making a bio of one page and queueing its request: bio, request, queue, scheduler and scatter list.
    pub const SUBMIT_BIO: u64 = 20;
    /// Completing a request: request, bio, the page's flags and wait queue.
    pub const END_BIO: u64 = 8;
    /// The count of one slot of the swap device (`swap_map`).
    pub const SWAP_MAP: u64 = 1;
    /// Looking for a free slot of the swap device.
    pub const SCAN_SWAP_MAP: u64 = 4;
    /// Linking an address space into the list of those with swap entries.
    pub const MMLIST: u64 = 3;
    /// Adding a page to, or taking it from, an LRU list.
    pub const LRU: u64 = 1;
}
