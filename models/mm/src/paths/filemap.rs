//! `filemap_fault`: a page of a file, from the page cache or from its disk.
//!
//! Follows mm/filemap.c of 2.6.27 (host-mm-paths A.7, B.5). Look-ups take no lock since 2.6.27 and a
//! reference at once (`page_cache_get_speculative`); before, tree_lock for read. Insertion takes tree_lock
//! for write with interrupts off. The page is returned locked: i_size is compared under that lock, which
//! truncation takes, too, after it has lowered i_size. A page that had to be read is let go of and looked up
//! again (`retry_find`): while the disk worked the file may have become shorter.
//!
//! Deviations: PG_locked is held until the reader goes on, where the kernel drops it when the disk is done;
//! only what reclaim has dropped is read from a disk, one page at a time (no read-around); a file's other
//! pages come into being with their contents.

use sim::{Cx, Guard, IrqGuard, LockId};
use x86::{Pfn, Pgoff};

use crate::FileId;
use crate::access::Refused;
use crate::account::PAGE_COPY;
use crate::disk::Device;
use crate::file::CachedPage;
use crate::frame::{LruList, Owner, PageFlags};
use crate::kernel::Kernel;
use crate::profile::{PageCacheLookup, work};
use crate::radix_tree::Occupied;

/// Since when a locked page has its contents.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Uptodate {
    /// Before anybody asked.
    Already,
    /// It was read just now, and whoever asked has slept.
    ReadNow,
}

impl Kernel {
    /// `filemap_fault`: the page, locked and with a reference of the caller's. i_size is checked with
    /// the page locked, which is what keeps truncate and faults apart.
    pub(super) async fn filemap_fault<'a>(
        &self,
        cx: &'a Cx,
        file: FileId,
        index: Pgoff,
    ) -> Result<(CachedPage, Guard<'a>), Refused> {
        loop {
            if index.get() >= self.st().file(file).size {
                return Err(Refused::BeyondEof);
            }
            let page = self.find_or_create_page(cx, file, index).await?;
            let locked = cx.lock(page.lock).await;
            let (cached, inside) = {
                let st = self.st();
                let f = st.file(file);
                (f.pages.get(index.get()) == Some(page), index.get() < f.size)
            };
            match (cached, inside) {
                (true, true) => {
                    if self.bring_uptodate(cx, page.pfn).await == Uptodate::ReadNow {
                        drop(locked);
                        self.put_page(cx, page.pfn).await;
                        continue;
                    }
                    self.mark_page_accessed(cx, page.pfn).await;
                    return Ok((page, locked));
                }
                (true, false) => {
                    drop(locked);
                    self.put_page(cx, page.pfn).await;
                    return Err(Refused::BeyondEof);
                }
                // Truncated while we waited for its lock.
                (false, _) => {
                    drop(locked);
                    self.put_page(cx, page.pfn).await;
                }
            }
        }
    }

    /// What a look-up in the page cache holds: tree_lock for read with interrupts off, up to 2.6.26.
    pub(crate) async fn page_cache_read<'a>(
        &self,
        cx: &'a Cx,
        file: FileId,
    ) -> Option<(Guard<'a>, IrqGuard<'a>)> {
        let tree_lock = self.st().file(file).tree_lock;
        self.tree_read(cx, tree_lock).await
    }

    /// The same for a tree of which only the lock matters: a file's, or that of the swap cache.
    pub(crate) async fn tree_read<'a>(
        &self,
        cx: &'a Cx,
        tree_lock: LockId,
    ) -> Option<(Guard<'a>, IrqGuard<'a>)> {
        if self.profile.page_cache_lookup == PageCacheLookup::Lockless {
            return None;
        }
        let irqs = cx.irq_disable();
        Some((cx.lock_shared(tree_lock).await, irqs))
    }

    /// `readpage` of a page that reclaim had dropped; it is locked.
    async fn bring_uptodate(&self, cx: &Cx, pfn: Pfn) -> Uptodate {
        let stale = self.frames.borrow().get(pfn).flags.has(PageFlags::NOT_UPTODATE);
        if !stale {
            return Uptodate::Already;
        }
        self.st().metrics.faults_major += 1;
        self.read_page(cx, pfn, Device::Files).await;
        self.frames().get_mut(pfn).flags.clear(PageFlags::NOT_UPTODATE);
        Uptodate::ReadNow
    }

    /// `find_or_create_page`, with a reference for the caller taken before anything else can happen:
    /// look-ups are lockless since 2.6.27 (`page_cache_get_speculative`), insertion takes tree_lock
    /// with interrupts off. Whoever finds that somebody else inserted first looks up again.
    async fn find_or_create_page(&self, cx: &Cx, file: FileId, index: Pgoff) -> Result<CachedPage, Refused> {
        loop {
            {
                let _tree = self.page_cache_read(cx, file).await;
                let cached = self.st().file(file).pages.lookup(index.get());
                self.touch_lines(cx, cached.nodes * work::PAGE_CACHE_NODE);
                if let Some(page) = cached.found {
                    self.frames().get_page(page.pfn);
                    return Ok(page);
                }
            }
            let pfn = self.alloc_page_or_reclaim(cx).await;
            let pfn = pfn.map_err(|_| Refused::OutOfMemory)?;
            if !self.st().file(file).on_disk.contains(&index) {
                cx.charge(PAGE_COPY, self.machine.costs.clear_page);
            }
            let page = CachedPage {
                pfn,
                lock: self.page_lock(pfn),
            };
            if self.add_to_page_cache(cx, file, index, page).await.is_ok() {
                self.lru_cache_add(cx, pfn, LruList::Inactive).await;
                return Ok(page);
            }
            self.put_page(cx, pfn).await;
        }
    }

    /// `add_to_page_cache`: one reference for the cache, beside the caller's.
    async fn add_to_page_cache(
        &self,
        cx: &Cx,
        file: FileId,
        index: Pgoff,
        page: CachedPage,
    ) -> Result<(), Occupied<CachedPage>> {
        let tree_lock = self.st().file(file).tree_lock;
        let _irqs = cx.irq_disable();
        let _tree = cx.lock(tree_lock).await;
        let inserted = self.st().file_mut(file).pages.insert(index.get(), page);
        self.touch_lines(cx, inserted.nodes * work::PAGE_CACHE_NODE);
        inserted.found?;
        let on_disk = {
            let mut st = self.st();
            st.file_mut(file).shmem_page_added(index);
            st.file(file).on_disk.contains(&index)
        };
        let mut frames = self.frames();
        let frame = frames.get_mut(page.pfn);
        if on_disk {
            frame.flags.set(PageFlags::NOT_UPTODATE);
        }
        frame.count += 1;
        frame.set_owner(Owner::File(file));
        frame.set_index(index);
        frame.flags.set(PageFlags::CACHED);
        Ok(())
    }
}
