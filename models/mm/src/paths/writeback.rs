//! `do_fsync`, `sys_msync`, `write_cache_pages`: dirty pages of a file go to its disk.
//!
//! Follows fs/sync.c, mm/msync.c, mm/filemap.c and mm/page-writeback.c of 2.6.27 (host-mm-paths A.5, A.7, B.5,
//! B.13). Pages are found by the dirty tag of the page cache, in pagevecs of 14, each with a reference. Each
//! page is locked, looked at again (a truncate may have been faster), waited for if it is on its way
//! already, and cleaned: `page_mkclean` takes the write right and the dirty bit away from every shared
//! mapping, one flush and one callback each, so that the next store faults and dirties the page again.
//! Whoever stores before that is written; whoever stores later is not lost, because he faults: his fault waits for
//! PG_locked before it sets PG_dirty. Then PG_writeback is set, PG_locked released, the request
//! submitted. In the end all pages that have the writeback tag are waited for.
//!
//! Locks of cleaning: PG_locked, then i_mmap_lock, then one pte lock at a time; tree_lock for the tags,
//! with interrupts off, inside a pte lock when a dirty entry is taken away (F15). msync holds
//! mmap_sem for read to find the file and drops it before it writes the whole file.
//!
//! Deviations: files have no buffers (no PG_private, no reference for it), so the file system's own
//! part of fsync only takes i_mutex, and `page_mkwrite` allocates no blocks; nothing limits dirty pages
//! (`balance_dirty_pages`), and no pdflush writes any back by itself, so pages are written when a program
//! or reclaim asks; writing never fails. Files of tmpfs have no disk, and nothing to write
//! (`mapping_cap_writeback_dirty`).

use sim::Cx;
use x86::{Pfn, Pgoff, VaRange};

use crate::FileId;
use crate::account::ENTRY;
use crate::disk::Device;
use crate::file::CachedPage;
use crate::frame::{Owner, PageFlags};
use crate::kernel::Kernel;
use crate::mm::MmId;
use crate::profile::{PAGEVEC_SIZE, work};
use crate::radix_tree::Tag;
use crate::vma::{Sharing, VmaId};

/// Whether a page was found to be dirty, and is clean now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "who cleaned a page must write it"]
pub(crate) enum WasDirty {
    /// It was: it is the caller's to write.
    Yes,
    /// It was not.
    No,
}

impl Kernel {
    /// fsync(2).
    pub async fn sys_fsync(&self, cx: &Cx, file: FileId) {
        let _span = cx.span("sys_fsync");
        cx.charge(ENTRY, self.machine.costs.syscall_entry_exit);
        self.do_fsync(cx, file).await;
    }

    /// msync(2) with MS_SYNC: each file that is mapped shared in the range is written, whole.
    pub async fn sys_msync(&self, cx: &Cx, mm: MmId, range: VaRange) {
        let _span = cx.span("sys_msync");
        cx.charge(ENTRY, self.machine.costs.syscall_entry_exit);
        let mut at = range.start();
        while let Some(rest) = VaRange::new(at, range.end()) {
            let file = {
                let _sem = cx.lock_shared(self.mmap_sem(mm)).await;
                self.touch_lines(cx, work::FIND_VMA);
                let st = self.st();
                let shared_file = |v: VmaId| {
                    let v = st.vma(v);
                    (v.sharing == Sharing::Shared).then_some((v.file()?, v.range.end()))
                };
                st.mm(mm).vmas.overlapping(rest).find_map(shared_file)
            };
            let Some((file, end)) = file else { return };
            self.do_fsync(cx, file).await;
            at = end;
        }
    }

    /// `do_fsync`.
    async fn do_fsync(&self, cx: &Cx, file: FileId) {
        let _span = cx.span("do_fsync");
        self.filemap_fdatawrite(cx, file).await;
        let i_mutex = self.st().file(file).i_mutex;
        drop(cx.lock(i_mutex).await);
        self.filemap_fdatawait(cx, file).await;
    }

    /// `filemap_fdatawrite`, `write_cache_pages` with WB_SYNC_ALL.
    async fn filemap_fdatawrite(&self, cx: &Cx, file: FileId) {
        let _span = cx.span("write_cache_pages");
        if !self.st().file(file).kind.accounts_dirty_pages() {
            return;
        }
        // `nr_to_write`: whoever dirties pages all the time cannot keep us for ever.
        let mut left = 2 * self.st().file(file).pages.len();
        let mut at = Pgoff::new(0);
        while left > 0 {
            let batch = self.pagevec_lookup_tag(cx, file, at, Tag::Dirty).await;
            let Some((last, _)) = batch.last() else { return };
            at = Pgoff::new(last.get() + 1);
            for (index, page) in &batch {
                if left > 0 && self.write_cache_page(cx, file, *index, *page).await == WasDirty::Yes {
                    left -= 1;
                }
            }
            let pages: Vec<Pfn> = batch.iter().map(|(_, page)| page.pfn).collect();
            self.pagevec_release(cx, &pages).await;
            cx.cond_resched().await;
        }
    }

    /// One page of `write_cache_pages` and `writepage`; the caller holds a reference.
    async fn write_cache_page(&self, cx: &Cx, file: FileId, index: Pgoff, page: CachedPage) -> WasDirty {
        let locked = self.lock_page(cx, page.pfn).await;
        let still = self.st().file(file).pages.get(index.get()) == Some(page);
        if !still {
            return WasDirty::No;
        }
        self.wait_on_page_writeback(cx, page.pfn).await;
        if self.clear_page_dirty_for_io(cx, page.pfn).await == WasDirty::No {
            return WasDirty::No;
        }
        self.start_writeback(cx, page.pfn, Device::Files, locked).await;
        WasDirty::Yes
    }

    /// `filemap_fdatawait`, `wait_on_page_writeback_range`.
    async fn filemap_fdatawait(&self, cx: &Cx, file: FileId) {
        let _span = cx.span("wait_on_page_writeback_range");
        let mut at = Pgoff::new(0);
        loop {
            let batch = self.pagevec_lookup_tag(cx, file, at, Tag::Writeback).await;
            let Some((last, _)) = batch.last() else { return };
            at = Pgoff::new(last.get() + 1);
            let pages: Vec<Pfn> = batch.iter().map(|(_, page)| page.pfn).collect();
            for pfn in &pages {
                self.wait_on_page_writeback(cx, *pfn).await;
            }
            self.pagevec_release(cx, &pages).await;
            cx.cond_resched().await;
        }
    }

    /// `pagevec_lookup_tag`: up to 14 pages that have a tag, each with a reference for us.
    async fn pagevec_lookup_tag(
        &self,
        cx: &Cx,
        file: FileId,
        from: Pgoff,
        tag: Tag,
    ) -> Vec<(Pgoff, CachedPage)> {
        let _tree = self.page_cache_read(cx, file).await;
        let st = self.st();
        let batch = st.file(file).pages.gang_lookup_tag(from.get(), PAGEVEC_SIZE, tag);
        self.touch_lines(cx, batch.nodes * work::PAGE_CACHE_NODE);
        let mut frames = self.frames();
        for (_, page) in &batch.found {
            frames.get_page(page.pfn);
        }
        batch.found.into_iter().map(|(i, p)| (Pgoff::new(i), p)).collect()
    }

    /// `clear_page_dirty_for_io`: stores to the page fault from now on, or find it dirty. The page is
    /// locked.
    pub(crate) async fn clear_page_dirty_for_io(&self, cx: &Cx, pfn: Pfn) -> WasDirty {
        let owner = {
            let mut frames = self.frames();
            let frame = frames.get_mut(pfn);
            frame.flags.clear(PageFlags::RECLAIM);
            frame.owner()
        };
        if let Owner::File(file) = owner
            && self.accounts_dirty_pages(file)
            && self.page_mkclean(cx, pfn).await > 0
        {
            self.set_page_dirty(cx, pfn).await;
        }
        let mut frames = self.frames();
        let flags = &mut frames.get_mut(pfn).flags;
        flags.clear(PageFlags::STORED);
        if flags.test_and_clear(PageFlags::DIRTY) {
            WasDirty::Yes
        } else {
            WasDirty::No
        }
    }

    /// `set_page_dirty`. Allowed in atomic context.
    pub(crate) async fn set_page_dirty(&self, cx: &Cx, pfn: Pfn) {
        let (was, tagged) = {
            let mut frames = self.frames();
            let frame = frames.get_mut(pfn);
            let was = frame.flags.has(PageFlags::DIRTY);
            frame.flags.set(PageFlags::DIRTY);
            let tagged = match frame.owner() {
                Owner::File(file) => self.accounts_dirty_pages(file),
                Owner::Anon(_) | Owner::None => frame.flags.has(PageFlags::SWAPCACHE),
            };
            (was, tagged)
        };
        if was || !tagged {
            return;
        }
        let Some(tree_lock) = self.page_tree_lock(pfn) else {
            return;
        };
        let _irqs = cx.irq_disable();
        let _tree = cx.lock(tree_lock).await;
        // A truncate may have been faster.
        let (owner, index) = {
            let frames = self.frames.borrow();
            let frame = frames.get(pfn);
            (frame.owner(), frame.index())
        };
        let nodes = match owner {
            Owner::File(file) => {
                let mut st = self.st();
                st.metrics.pages_dirtied += 1;
                st.file_mut(file).pages.tag_set(index.get(), Tag::Dirty).nodes
            }
            Owner::Anon(_) | Owner::None => 1,
        };
        self.touch_lines(cx, nodes * work::PAGE_CACHE_NODE);
    }

    pub(super) fn accounts_dirty_pages(&self, file: FileId) -> bool {
        self.state.borrow().file(file).kind.accounts_dirty_pages()
    }
}
