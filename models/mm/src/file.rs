//! `address_space`: the page cache of a file and the VMAs that map it.
//!
//! Rules: host-mm-paths A.3, A.7 (2.6.27 columns). The page cache is a [radix tree](crate::radix_tree) under
//! `tree_lock`; look-ups are lockless, and every walk is charged by the nodes it stepped on. A cached page
//! holds one reference for the tree. `i_mmap` and `truncate_count` are protected by i_mmap_lock. Every page
//! has PG_locked, a sleeping bit lock, here a lock made with the page. Deviation: a page that was never cached
//! is a hole, and made at once; only what reclaim has dropped is read from the disk (one page, without the
//! kernel's read-around).
//!
//! What a file is of ([`FileKind`]) decides three things: whether its dirty pages are accounted
//! (`mapping_cap_account_dirty`), so that a shared page is mapped read-only until it is written
//! (`vma_wants_writenotify`) and remap_file_pages is emulated; whether it has a `truncate_range`, so that
//! a hole can be punched into it; and whether its mappings may become nonlinear (VM_CAN_NONLINEAR).
//!
//! A mapping is in exactly one of two indices, both under i_mmap_lock: `i_mmap` if the place of a page
//! in it follows from its place in the file, `i_mmap_nonlinear` if not ([`crate::vma::Linearity`]). The
//! second is a plain list: new members go to its tail, a forked one behind its parent (F13).

use std::collections::BTreeSet;

use sim::LockId;
use x86::{Pfn, Pgoff, PgoffRange};

use crate::VmaId;
use crate::i_mmap::{IMmap, IntervalIndex as _};
use crate::kernel::State;
use crate::radix_tree::RadixTree;
use crate::vma::{Sharing, Vma};

/// A file.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FileId(pub(crate) u32);

/// What a file is of.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Default)]
pub enum FileKind {
    /// A file system on a disk that has a `page_mkwrite`: XFS (`xfs_vm_page_mkwrite` of
    /// fs/xfs/linux-2.6/xfs_file.c 2.6.27, which is `block_page_mkwrite`). ext3 has none there.
    #[default]
    Disk,
    /// tmpfs (mm/shmem.c).
    Tmpfs,
    /// The nameless tmpfs file behind shared anonymous memory. `shmem_zero_setup` of 2.6.27 does not set
    /// VM_CAN_NONLINEAR on the mapping, which `shmem_mmap` does for other files of tmpfs.
    SharedAnonymous,
}

impl FileKind {
    /// `mapping_cap_account_dirty`.
    #[must_use]
    pub fn accounts_dirty_pages(self) -> bool {
        self == FileKind::Disk
    }

    /// Whether the inode has a `truncate_range`.
    #[must_use]
    pub fn has_truncate_range(self) -> bool {
        self != FileKind::Disk
    }

    /// Whether its mappings have VM_CAN_NONLINEAR.
    #[must_use]
    pub fn can_nonlinear(self) -> bool {
        self != FileKind::SharedAnonymous
    }
}

/// A page in the page cache.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct CachedPage {
    /// Its frame.
    pub pfn: Pfn,
    /// PG_locked.
    pub lock: LockId,
}

/// A file's pages and mappings.
#[derive(Clone, Debug)]
pub struct AddressSpace {
    /// Name, for reports.
    pub name: String,
    /// What it is of.
    pub kind: FileKind,
    /// i_size, in pages.
    pub size: u64,
    /// The page cache (`page_tree`), by file page.
    pub pages: RadixTree<CachedPage>,
    /// Pages whose contents are on the disk: they were cached, and reclaim dropped them. All others are
    /// holes, or have never left the cache.
    pub(crate) on_disk: BTreeSet<Pgoff>,
    /// Linear VMAs by file pages.
    pub i_mmap: IMmap<VmaId>,
    /// Nonlinear VMAs.
    pub i_mmap_nonlinear: Vec<VmaId>,
    /// `truncate_count`.
    pub truncate_count: u64,
    /// i_mmap_lock.
    pub i_mmap_lock: LockId,
    /// tree_lock.
    pub tree_lock: LockId,
    /// i_mutex of the inode.
    pub i_mutex: LockId,
    /// i_alloc_sem of the inode.
    pub i_alloc_sem: LockId,
    /// What tmpfs knows of its inode besides.
    pub(crate) shmem: ShmemInode,
}

/// `struct shmem_inode_info`, as far as truncation asks (paths/shmem.rs).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ShmemInode {
    /// SHMEM_PAGEIN.
    pub(crate) pagein: PageIn,
    /// `next_index`: behind the last page that ever was.
    pub(crate) next_index: u64,
}

impl ShmemInode {
    /// Of a file without pages.
    pub(crate) const EMPTY: ShmemInode = ShmemInode {
        pagein: PageIn::No,
        next_index: 0,
    };
}

/// Whether a page came into the cache of a file of tmpfs since its end was last cut off.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum PageIn {
    No,
    Yes,
}

impl AddressSpace {
    /// Takes a VMA off the list of nonlinear ones.
    pub(crate) fn remove_nonlinear(&mut self, vma: VmaId) {
        let at = self.i_mmap_nonlinear.iter().position(|v| *v == vma);
        self.i_mmap_nonlinear
            .remove(at.expect("a nonlinear VMA is on the list while it is linked"));
    }

    /// Puts a forked VMA behind its parent's (`vma_prio_tree_add`).
    pub(crate) fn insert_nonlinear_behind(&mut self, parent: VmaId, child: VmaId) {
        let at = self.i_mmap_nonlinear.iter().position(|v| *v == parent);
        let at = at.expect("the parent's VMA is linked");
        self.i_mmap_nonlinear.insert(at + 1, child);
    }

    /// `__remove_from_page_cache` by reclaim: who needs the page again reads it. tree_lock is held. Pages of
    /// tmpfs have nothing to be read from; clean ones are zeros. Returns the nodes walked.
    pub(crate) fn reclaimed(&mut self, index: Pgoff) -> u64 {
        let removed = self.pages.remove(index.get());
        if self.kind == FileKind::Disk {
            self.on_disk.insert(index);
        }
        removed.nodes
    }

    /// Blocks that a truncate or a hole gives back to the file system.
    pub(crate) fn forget_on_disk(&mut self, pages: &PgoffRange) {
        self.on_disk.retain(|index| !pages.contains(*index));
    }

    /// Whether anybody maps it (`mapping_mapped`).
    #[must_use]
    pub fn is_mapped(&self) -> bool {
        !self.i_mmap.is_empty() || !self.i_mmap_nonlinear.is_empty()
    }
}

impl State {
    /// `vma_wants_writenotify`: whether a page of a shared writable mapping must be mapped read-only until
    /// it is written, so that the file system hears of it.
    #[must_use]
    pub(crate) fn vma_wants_writenotify(&self, vma: &Vma) -> bool {
        let accounts = |file| self.file(file).kind.accounts_dirty_pages();
        vma.sharing == Sharing::Shared && vma.prot.can_write() && vma.file().is_some_and(accounts)
    }
}
