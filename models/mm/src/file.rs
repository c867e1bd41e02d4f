//! `address_space`: the page cache of a file and the VMAs that map it.
//!
//! Rules: host-mm-paths A.3, A.7 (2.6.27 columns). The page cache is a radix tree under `tree_lock`
//! (here an ordered map; look-ups are charged as a walk); a cached page holds one reference for
//! the tree. `i_mmap` and `truncate_count` are protected by i_mmap_lock. Every page has PG_locked,
//! a sleeping bit lock, here a lock made with the page. Deviation: contents are always at hand, so
//! a page that is not cached is made at once; no reference counts I/O. Files account dirty pages, as disk
//! file systems do: a shared page is mapped read-only until it is written (`vma_wants_writenotify`).

use std::collections::{BTreeMap, BTreeSet};

use sim::LockId;
use x86::{Pfn, Pgoff};

use crate::VmaId;
use crate::i_mmap::PrioTree;

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

/// A mark on a cached page, include/linux/fs.h 2.6.27.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tag {
    /// `PAGECACHE_TAG_DIRTY`.
    Dirty,
    /// `PAGECACHE_TAG_WRITEBACK`.
    Writeback,
}

/// A file's pages and mappings.
#[derive(Clone, Debug)]
pub struct AddressSpace {
    /// Name, for reports.
    pub name: String,
    /// i_size, in pages.
    pub size: u64,
    /// The page cache.
    pub pages: BTreeMap<Pgoff, CachedPage>,
    /// The tree's tags: pages of the cache that have each.
    pub(crate) tags: [BTreeSet<Pgoff>; 2],
    /// VMAs by file pages.
    pub i_mmap: PrioTree<VmaId>,
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

impl AddressSpace {
    /// `radix_tree_tag_set`; the page is cached, tree_lock is held.
    pub(crate) fn tag_set(&mut self, index: Pgoff, tag: Tag) {
        debug_assert!(self.pages.contains_key(&index), "only what is cached has tags");
        self.tags[tag as usize].insert(index);
    }

    /// `radix_tree_tag_clear`; tree_lock is held.
    pub(crate) fn tag_clear(&mut self, index: Pgoff, tag: Tag) {
        self.tags[tag as usize].remove(&index);
    }

    /// `radix_tree_delete`: out of the cache, tags and all; tree_lock is held.
    pub(crate) fn delete(&mut self, index: Pgoff) {
        self.pages.remove(&index);
        for tag in &mut self.tags {
            tag.remove(&index);
        }
    }

    /// Whether a page has a tag (`radix_tree_tag_get`).
    #[must_use]
    pub fn tagged(&self, index: Pgoff, tag: Tag) -> bool {
        self.tags[tag as usize].contains(&index)
    }

    /// Whether any page has a tag (`mapping_tagged`).
    #[must_use]
    pub fn any_tagged(&self, tag: Tag) -> bool {
        !self.tags[tag as usize].is_empty()
    }

    /// `radix_tree_gang_lookup_tag`: up to `max` pages with a tag, from an index on.
    pub(crate) fn gang_lookup_tag(&self, from: Pgoff, max: usize, tag: Tag) -> Vec<(Pgoff, CachedPage)> {
        let tagged = self.tags[tag as usize].range(from..).take(max);
        tagged.map(|index| (*index, self.pages[index])).collect()
    }
}
