//! `address_space`: the page cache of a file and the VMAs that map it.
//!
//! Rules: host-mm-paths A.3, A.7 (2.6.27 columns). The page cache is a [radix tree](crate::radix_tree)
//! under `tree_lock`; look-ups are lockless, and every walk is charged by the nodes it stepped on. A cached
//! page holds one reference for the tree. `i_mmap` and `truncate_count` are protected by i_mmap_lock. Every page has PG_locked,
//! a sleeping bit lock, here a lock made with the page. Deviation: contents are always at hand, so
//! a page that is not cached is made at once; no reference counts I/O. Files account dirty pages, as disk
//! file systems do: a shared page is mapped read-only until it is written (`vma_wants_writenotify`).

use sim::LockId;
use x86::Pfn;

use crate::VmaId;
use crate::i_mmap::IMmap;
use crate::radix_tree::RadixTree;

/// A file.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FileId(pub(crate) u32);

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
    /// i_size, in pages.
    pub size: u64,
    /// The page cache (`page_tree`), by file page.
    pub pages: RadixTree<CachedPage>,
    /// VMAs by file pages.
    pub i_mmap: IMmap<VmaId>,
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
}
