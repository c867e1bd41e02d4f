//! `mm_struct` and `anon_vma`.
//!
//! Follows `struct mm_struct` of include/linux/mm_types.h and `struct anon_vma` of include/linux/rmap.h, 2.6.27
//! (host-mm-paths A.1, A.4). mmap_sem guards the VMAs and everything that says how they lie; page_table_lock
//! what hangs upper tables in, `nr_ptes`, and the anon_vma of a VMA that gets its first; the pte locks the rss
//! counters, each for the pages of its table; `anon_vma->lock` the list of an anon_vma.
//!
//! Deviations: an address space and its top-level table are never given back: `mm_count`, by which lazy CPUs
//! and registered notifiers keep both (F27) until `__mmdrop` of the last one, is not kept, and a run ends with
//! as many structures as it made. So a lazy CPU can always go on with the table that is loaded. List, red-black
//! tree and `mmap_cache` are one index. `map_count` is its length. Of an address_space `i_mmap_writable` is not
//! kept (host-mm-paths A.3): nobody denies writable mappings.

use std::rc::Rc;

use sim::{CpuSet, LockId};
use x86::{TableId, Va};

use crate::notifier::SubscriptionId;
use crate::vma::{Locked, VmaId, VmaTree};

/// An address space. Numbers are not reused within a run.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct MmId(pub(crate) u32);

impl MmId {
    /// Index, for tables kept an address space.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// A family of anonymous VMAs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct AnonVmaId(pub(crate) u32);

/// `struct anon_vma`: one list shared by a VMA, all its forked copies, and neighbours that might be
/// merged with it.
///
/// Its slab is SLAB_DESTROY_BY_RCU (host-mm-paths A.4): an object that was given back may be an
/// anon_vma again at once, and it stays one, lock included, as long as a reader that found it through a
/// page may look at it. Here an object is never anything else, so its number and its lock are handed
/// out again, the last one freed first, and the lock is not given back to the engine: whoever found
/// the number in a page takes a lock that exists and must then ask, as the kernel does, whether the
/// page is still mapped and by which of the VMAs on the list.
#[derive(Clone, Debug)]
pub struct AnonVma {
    /// VMAs, in order of linking.
    pub vmas: Vec<VmaId>,
    /// `anon_vma->lock`.
    pub lock: LockId,
}

/// Whether an address space ever had a subscriber.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Notified {
    /// No.
    Never,
    /// Yes.
    Once,
}

/// Whether swapoff would have to look into an address space (`mm->mmlist`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OnMmlist {
    /// It never had a swap entry.
    No,
    /// It may have some.
    Yes,
}

/// `struct mm_struct`.
#[derive(Clone, Debug)]
pub struct Mm {
    /// Name of the process, for reports.
    pub name: Rc<str>,
    /// VMAs.
    pub vmas: VmaTree,
    /// Top-level table.
    pub pgd: TableId,
    /// Tasks that use it; 0 means `exit_mmap`.
    pub users: u32,
    /// `mmap_sem`.
    pub mmap_sem: LockId,
    /// `page_table_lock`.
    pub page_table_lock: LockId,
    /// CPUs that must hear of TLB flushes.
    pub cpu_vm_mask: CpuSet,
    /// `_file_rss`.
    pub file_rss: u64,
    /// `_anon_rss`.
    pub anon_rss: u64,
    /// Page-table pages.
    pub nr_ptes: u64,
    /// `locked_vm`: pages of mappings with VM_LOCKED, present or not.
    pub locked_vm: u64,
    /// `def_flags`: what mlockall(MCL_FUTURE) gives to new mappings.
    pub def_locked: Locked,
    /// Subscribers of the notifier (`mmu_notifier_mm`), in list order: newest first.
    pub subscribers: Vec<SubscriptionId>,
    /// Whether there ever was a subscriber (`mmu_notifier_mm` is set once and stays).
    pub notified: Notified,
    /// Protects the list of subscribers.
    pub notifier_lock: LockId,
    /// Start and end of the heap, once known.
    pub brk: Option<(Va, Va)>,
    /// Where mmap looks for space, downwards.
    pub mmap_base: Va,
    /// Whether it is on the list of those with swap entries; protected by mmlist_lock.
    pub on_mmlist: OnMmlist,
}
