//! `vmtruncate`, `vmtruncate_range`, `unmap_mapping_range`, `truncate_inode_pages_range`.
//!
//! Follows mm/memory.c and mm/truncate.c of 2.6.27 (host-mm-paths B.10, G.1-G.4, G.10). The caller of
//! vmtruncate holds i_mutex and W(i_alloc_sem), and no mmap_sem: the victims' address spaces are
//! reached through i_mmap, under i_mmap_lock, which is held over *all* VMAs of the file.
//!
//! Pass 1 unmaps, then the pages leave the cache (anything faulted in meanwhile is unmapped again,
//! page by page), then pass 2 unmaps once more to catch private copies made meanwhile; it walks the
//! tree and opens a bracket a VMA even if nothing is mapped.
//!
//! A hole is punched the same way, only into files that have a `truncate_range` (tmpfs) and with the end of
//! the range instead of the end of the file (host-mm-paths B.11); private copies go, too. The lock
//! order is that of ftruncate.
//!
//! After the tree comes the list of nonlinear mappings (nonlinear.rs), under the same hold of the lock.
//!
//! Where the spinning kernel wants to reschedule (or, with CONFIG_PREEMPT, sees contention) at a
//! block end, it ends the bracket, drops i_mmap_lock and later walks the tree again from the
//! beginning. `truncate_count` and `vm_truncate_count` share a word: equal to the file's counter
//! means done, page aligned means resume there.
//!
//! The file system comes last: tmpfs may do it all over (shmem.rs).
//!
//! Deviation: sizes are whole pages, so there is no partial page to zero and `truncate_inode_pages_range`
//! needs its second pass only for pages that were locked or under writeback in the first.

use sim::{Cx, Guard};
use x86::{PAGE_SIZE, Pgoff, PgoffRange, Va, VaRange};

use crate::FileId;
use crate::account::ENTRY;
use crate::file::CachedPage;
use crate::frame::{Owner, PageFlags};
use crate::i_mmap::IntervalIndex as _;
use crate::kernel::Kernel;
use crate::paths::ZapDetails;
use crate::paths::shmem::Cut;
use crate::profile::{PAGEVEC_SIZE, work};
use crate::vma::VmaId;

/// The file system has no `truncate_range`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct NoTruncateRange;

/// Which pages `unmap_mapping_range` removes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum EvenCows {
    /// Private copies, too (truncate).
    Yes,
    /// Only pages of the file.
    No,
}

/// How far one VMA got.
pub(super) enum Step {
    NextVma,
    Restart,
}

impl Kernel {
    /// ftruncate(2): grows the file or throws away its end.
    pub async fn do_truncate(&self, cx: &Cx, file: FileId, pages: u64) {
        let _span = cx.span("do_truncate");
        cx.charge(ENTRY, self.machine.costs.syscall_entry_exit);
        let (i_mutex, i_alloc_sem) = {
            let st = self.st();
            (st.file(file).i_mutex, st.file(file).i_alloc_sem)
        };
        let _inode = cx.lock(i_mutex).await;
        let _alloc = cx.lock(i_alloc_sem).await;
        if self.st().is_hugetlbfs(file) {
            return self.hugetlb_vmtruncate(cx, file, pages).await;
        }
        self.shmem_notify_change(file, pages);
        self.vmtruncate(cx, file, pages).await;
    }

    /// `vmtruncate`.
    async fn vmtruncate(&self, cx: &Cx, file: FileId, pages: u64) {
        let _span = cx.span("vmtruncate");
        let before = {
            let mut st = self.st();
            std::mem::replace(&mut st.file_mut(file).size, pages)
        };
        // Only an expansion is nothing but a new size (`i_size < offset`).
        if pages > before {
            return;
        }
        let gone = PgoffRange::to_eof(Pgoff::new(pages));
        self.unmap_mapping_range(cx, file, gone, EvenCows::Yes).await;
        self.truncate_inode_pages_range(cx, file, gone).await;
        self.unmap_mapping_range(cx, file, gone, EvenCows::Yes).await;
        self.shmem_truncate_range(cx, file, gone, Cut::End).await;
        self.check_truncated(cx, file, pages);
    }

    /// `vmtruncate_range`: a hole. The caller holds nothing.
    pub(super) async fn vmtruncate_range(
        &self,
        cx: &Cx,
        file: FileId,
        pages: PgoffRange,
    ) -> Result<(), NoTruncateRange> {
        let _span = cx.span("vmtruncate_range");
        let (kind, i_mutex, i_alloc_sem) = {
            let st = self.st();
            let f = st.file(file);
            (f.kind, f.i_mutex, f.i_alloc_sem)
        };
        if !kind.has_truncate_range() {
            return Err(NoTruncateRange);
        }
        let _inode = cx.lock(i_mutex).await;
        let _alloc = cx.lock(i_alloc_sem).await;
        self.unmap_mapping_range(cx, file, pages, EvenCows::Yes).await;
        self.truncate_inode_pages_range(cx, file, pages).await;
        self.unmap_mapping_range(cx, file, pages, EvenCows::Yes).await;
        self.shmem_truncate_range(cx, file, pages, Cut::Hole).await;
        Ok(())
    }

    /// `unmap_mapping_range`.
    pub(super) async fn unmap_mapping_range(
        &self,
        cx: &Cx,
        file: FileId,
        pages: PgoffRange,
        even_cows: EvenCows,
    ) {
        let _span = cx.span("unmap_mapping_range");
        let lock = self.st().file(file).i_mmap_lock;
        let details = ZapDetails {
            check_mapping: (even_cows == EvenCows::No).then_some(file),
            nonlinear: None,
            i_mmap_lock: Some(lock),
        };
        let held = cx.lock(lock).await;
        self.next_truncate_count(file);
        let held = self
            .unmap_mapping_range_tree(cx, held, file, &pages, details)
            .await;
        let held = self
            .unmap_mapping_range_list(cx, held, file, pages, details)
            .await;
        drop(held);
    }

    /// `unmap_mapping_range_tree`: linear mappings of some of the pages. i_mmap_lock is held, and given
    /// up between walks.
    async fn unmap_mapping_range_tree<'a>(
        &self,
        cx: &'a Cx,
        mut held: Guard<'a>,
        file: FileId,
        pages: &PgoffRange,
        details: ZapDetails,
    ) -> Guard<'a> {
        'restart: loop {
            let mut walk = self.range_mappers(file, pages);
            while let Some(vma) = self.next_mapper(cx, &mut walk) {
                let part = self.st().vma(vma).addresses_of(pages);
                let part = part.expect("the tree visits mappers only");
                if let Step::Restart = self.unmap_mapping_vma(cx, file, vma, part, details).await {
                    held = self.break_lock(cx, held).await;
                    continue 'restart;
                }
            }
            return held;
        }
    }

    /// `truncate_count++`, skipping values that look like restart addresses; at the wrap all VMAs
    /// are reset first.
    fn next_truncate_count(&self, file: FileId) {
        let mut st = self.st();
        let next = st.file(file).truncate_count.wrapping_add(1);
        let next = if next.is_multiple_of(PAGE_SIZE) {
            next + 1
        } else {
            next
        };
        if next == 1 {
            let mut vmas: Vec<_> = st.file(file).i_mmap.visit(0, u64::MAX).ids().collect();
            vmas.extend(&st.file(file).i_mmap_nonlinear);
            for vma in vmas {
                st.vma_mut(vma).truncate_count = 0;
            }
        }
        st.file_mut(file).truncate_count = next;
    }

    /// VMAs that map some of the pages, in the tree's order; all of them are stepped on.
    pub(super) fn mappers(&self, cx: &Cx, file: FileId, pages: &PgoffRange) -> Vec<VmaId> {
        let walk = self.range_mappers(file, pages);
        self.all_mappers(cx, walk)
    }

    /// `unmap_mapping_range_vma`.
    pub(super) async fn unmap_mapping_vma(
        &self,
        cx: &Cx,
        file: FileId,
        vma: VmaId,
        part: VaRange,
        details: ZapDetails,
    ) -> Step {
        let (done, mut at, end) = {
            let st = self.st();
            let v = st.vma(vma);
            let resumed =
                v.truncate_count.is_multiple_of(PAGE_SIZE) && v.truncate_count >= part.start().get();
            let start = if resumed {
                Va::new(v.truncate_count)
            } else {
                part.start()
            };
            (st.file(file).truncate_count, start, part.end())
        };
        if self.st().vma(vma).truncate_count == done {
            return Step::NextVma;
        }
        while let Some(rest) = VaRange::new(at, end) {
            at = self.zap_page_range(cx, vma, rest, details).await;
            let break_now = match details.i_mmap_lock {
                Some(lock) => self.must_break_lock(cx, lock).await,
                None => false,
            };
            let finished = at >= end;
            self.st().vma_mut(vma).truncate_count = if finished { done } else { at.get() };
            if break_now {
                return Step::Restart;
            }
        }
        self.st().vma_mut(vma).truncate_count = done;
        Step::NextVma
    }

    /// Lets go of i_mmap_lock for a moment.
    pub(super) async fn break_lock<'a>(&self, cx: &'a Cx, held: Guard<'a>) -> Guard<'a> {
        let lock = held.lock();
        self.st().metrics.truncate_restarts += 1;
        drop(held);
        cx.cond_resched().await;
        cx.lock(lock).await
    }

    /// `truncate_inode_pages_range`: pagevecs of 14; the first pass skips locked pages, the second waits
    /// for them and begins again until it finds nothing. A pagevec that reaches beyond the range holds
    /// references to pages behind it, too, until it is released.
    pub(super) async fn truncate_inode_pages_range(&self, cx: &Cx, file: FileId, pages: PgoffRange) {
        let _span = cx.span("truncate_inode_pages");
        self.st().file_mut(file).forget_on_disk(&pages);
        if self.st().file(file).pages.is_empty() {
            return;
        }
        let mut next = Some(pages.first());
        while let Some(from) = next {
            let batch = self.pagevec_lookup(cx, file, from).await;
            let Some((last, _)) = batch.last() else { break };
            next = last.get().checked_add(1).map(Pgoff::new);
            next = next.filter(|next| pages.contains(*next));
            for &(index, page) in batch.iter().filter(|(index, _)| pages.contains(*index)) {
                if let Some(locked) = cx.try_lock(page.lock).await
                    && !self.page_writeback(page.pfn)
                {
                    self.truncate_complete_page(cx, file, index, page, locked).await;
                }
            }
            self.release_batch(cx, &batch).await;
            cx.cond_resched().await;
        }
        let mut from = pages.first();
        loop {
            cx.cond_resched().await;
            let batch = self.pagevec_lookup(cx, file, from).await;
            let Some((first, _)) = batch.first() else {
                if from == pages.first() {
                    return;
                }
                from = pages.first();
                continue;
            };
            if !pages.contains(*first) {
                return self.release_batch(cx, &batch).await;
            }
            for &(index, page) in batch.iter().filter(|(index, _)| pages.contains(*index)) {
                let locked = cx.lock(page.lock).await;
                self.wait_on_page_writeback(cx, page.pfn).await;
                self.truncate_complete_page(cx, file, index, page, locked).await;
                from = index.get().checked_add(1).map_or(pages.first(), Pgoff::new);
            }
            self.release_batch(cx, &batch).await;
        }
    }

    /// `pagevec_release` of what a look-up found.
    async fn release_batch(&self, cx: &Cx, batch: &[(Pgoff, CachedPage)]) {
        let pages: Vec<_> = batch.iter().map(|(_, page)| page.pfn).collect();
        self.pagevec_release(cx, &pages).await;
    }

    /// `pagevec_lookup`: up to 14 pages, each with a reference for us.
    pub(super) async fn pagevec_lookup(
        &self,
        cx: &Cx,
        file: FileId,
        from: Pgoff,
    ) -> Vec<(Pgoff, CachedPage)> {
        let _tree = self.page_cache_read(cx, file).await;
        let mut st = self.st();
        let batch = st.file(file).pages.gang_lookup(from.get(), PAGEVEC_SIZE);
        self.touch_lines(cx, batch.nodes * work::PAGE_CACHE_NODE);
        let mut frames = self.frames();
        for (_, page) in &batch.found {
            frames.get_page(page.pfn);
        }
        st.metrics.truncate_batches += u64::from(!batch.found.is_empty());
        batch.found.into_iter().map(|(i, p)| (Pgoff::new(i), p)).collect()
    }

    /// `truncate_complete_page`: unmap if it was faulted in again, out of the cache, drop the cache's
    /// reference. The page is locked.
    async fn truncate_complete_page(
        &self,
        cx: &Cx,
        file: FileId,
        index: Pgoff,
        page: CachedPage,
        locked: Guard<'_>,
    ) {
        let (cached, mapped) = {
            let st = self.st();
            let frames = self.frames.borrow();
            (
                st.file(file).pages.get(index.get()) == Some(page),
                frames.get(page.pfn).mapcount > 0,
            )
        };
        if !cached {
            return;
        }
        if mapped {
            let only = PgoffRange::new(index, index).expect("one page");
            self.unmap_mapping_range(cx, file, only, EvenCows::No).await;
        }
        let tree_lock = self.st().file(file).tree_lock;
        {
            let _irqs = cx.irq_disable();
            let _tree = cx.lock(tree_lock).await;
            let removed = self.st().file_mut(file).pages.remove(index.get());
            self.touch_lines(cx, removed.nodes * work::PAGE_CACHE_NODE);
            let mut frames = self.frames();
            let frame = frames.get_mut(page.pfn);
            self.check_uncached(cx, &page, frame);
            frame.set_owner(Owner::None);
            frame.flags.clear(PageFlags::CACHED);
            frame.flags.clear(PageFlags::DIRTY);
        }
        self.put_page(cx, page.pfn).await;
        drop(locked);
    }
}
