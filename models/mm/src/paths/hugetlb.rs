//! Mappings of huge pages: `unmap_hugepage_range`, `copy_hugetlb_page_range`,
//! `hugetlb_change_protection`, and the PMD tables that shared mappings have in common.
//!
//! Follows mm/hugetlb.c and arch/x86/mm/hugetlbpage.c of 2.6.27 (host-mm-paths B.17, C.3, G.15). An entry of a
//! huge page lies in a PMD table and is protected by the mm's page_table_lock, not by a lock of its table.
//!
//! `unmap_hugepage_range` takes i_mmap_lock (truncation of a hugetlbfs file comes with it held and calls
//! `__unmap_hugepage_range`); opens a bracket of its own, which lies inside the one of unmap_vmas where that
//! is the caller; clears all entries under one hold of page_table_lock, whatever the length; flushes the
//! whole address space, always, also if nothing was mapped; closes the bracket; and only then drops the
//! pages' references. So at the end of the *inner* bracket everything is flushed and nothing freed, and both
//! happen before the outer bracket ends and before the gather is finished, which has nothing to do.
//!
//! Fork copies entries whether or not there is an anon_vma: private ones become read-only in both, shared ones
//! stay as they are. It takes the child's page_table_lock, then the parent's, for each page anew, and tells
//! **no subscriber** (a secondary MMU goes on writing to the page that it shares with the child now).
//! mprotect is covered by the bracket of `mprotect_fixup`; i_mmap_lock and page_table_lock are held over the
//! whole part, the flush comes after both.
//!
//! A shared mapping that spans a whole PUD entry (1 GiB) looks, under i_mmap_lock, for another address space that
//! maps the same gigabyte of the file with the same `vm_flags` (all of them: a locked mapping, whose child is
//! not locked, shares nothing with it), and uses its PMD table. Unmapping and mprotect
//! drop the sharing, a gigabyte at once, as long as somebody else uses the table. The kernel lets a mapping
//! that is being torn down be found like any other (closed in 2012 by d833352a4338), and so does this.
//!
//! Design V1 has no bracket here and calls `invalidate_page` once for each huge entry, under
//! page_table_lock, with the address of its first page: who maps 4 KiB at a time keeps the other 511.
//!
//! Deviations: the walk over an absent PMD table is charged for each of its entries, but done in one step.
//! Entries of an address range are looked up again after a wait, where the kernel keeps the pointer.

use sim::{Action, Cx};
use x86::{Entry, Level, PAGE_SIZE, Pfn, Pgoff, PgoffRange, Rights, TableId, Va, VaRange};

use crate::FileId;
use crate::account::PAGE_TABLE;
use crate::frame::PageFlags;
use crate::hugetlb::{HPAGE, HPAGE_PAGES, Reserve};
use crate::kernel::{Kernel, State};
use crate::mm::MmId;
use crate::notifier::{Path, Point};
use crate::vma::{Sharing, Vma, VmaId};

/// Pages that a PMD table maps (`PUD_SIZE`).
const PUD_PAGES: u64 = Level::Pmd.span_pages();

/// The part of a PUD entry's span from `at` to `end`.
fn to_next_pud(at: Va, end: Va) -> Va {
    let rest = PUD_PAGES - at.vpn().get() % PUD_PAGES;
    at.add_pages(rest).min(end)
}

impl State {
    /// `huge_pte_offset`: where the entry of an address is, if its PMD table exists.
    pub(super) fn huge_pte_offset(&self, mm: MmId, va: Va) -> Option<(TableId, usize)> {
        let table = self.tables.table_at(self.mm(mm).pgd, va.vpn(), Level::Pmd)?;
        Some((table, Level::Pmd.index(va)))
    }
}

impl Kernel {
    /// `huge_pmd_unshare`: drops a PMD table that somebody else uses, too. True if it did. page_table_lock is
    /// held.
    fn huge_pmd_unshare(&self, cx: &Cx, mm: MmId, va: Va, table: TableId) -> bool {
        let mut st = self.st();
        if !st.hugetlb.drop_share(table) {
            return false;
        }
        let pud = st.tables.table_at(st.mm(mm).pgd, va.vpn(), Level::Pud);
        let place = (
            pud.expect("a PMD table hangs in a PUD table"),
            Level::Pud.index(va),
        );
        self.set_huge_entry(cx, &mut st, mm, place, Entry::NONE);
        st.metrics.pmd_unshares += 1;
        true
    }

    /// `unmap_hugepage_range`; with `ref_page` only entries of that page.
    pub(super) async fn unmap_hugepage_range(
        &self,
        cx: &Cx,
        vma: VmaId,
        range: VaRange,
        ref_page: Option<Pfn>,
    ) {
        let _span = cx.span("unmap_hugepage_range");
        let lock = {
            let st = self.st();
            let file = st.vma(vma).file().expect("huge pages are a file's");
            st.file(file).i_mmap_lock
        };
        let _i_mmap = cx.lock(lock).await;
        self.unmap_hugepage_range_locked(cx, vma, range, ref_page).await;
    }

    /// `__unmap_hugepage_range`; i_mmap_lock is held.
    pub(super) async fn unmap_hugepage_range_locked(
        &self,
        cx: &Cx,
        vma: VmaId,
        range: VaRange,
        ref_page: Option<Pfn>,
    ) {
        let _span = cx.span("__unmap_hugepage_range");
        let mm = self.st().mm_of(vma);
        let bracket = self.notify_open(cx, mm, Path::Hugetlb, range).await;
        let pages = self.clear_huge_ptes(cx, vma, range, ref_page).await;
        self.st().metrics.flush_hugetlb += 1;
        self.flush_tlb_mm(cx, mm).await;
        self.notify_close(cx, bracket).await;
        // Collected at the head of a list.
        for pfn in pages.into_iter().rev() {
            self.put_page(cx, pfn).await;
        }
    }

    /// All entries of the range under one hold of page_table_lock. Returns the pages they mapped.
    async fn clear_huge_ptes(&self, cx: &Cx, vma: VmaId, range: VaRange, ref_page: Option<Pfn>) -> Vec<Pfn> {
        let (mm, lock) = {
            let st = self.st();
            let mm = st.mm_of(vma);
            (mm, st.mm(mm).page_table_lock)
        };
        let mut pages = Vec::new();
        let _ptl = cx.lock(lock).await;
        let mut at = range.start();
        while at < range.end() {
            cx.step(lock.object(), Action::Write).await;
            let va = at;
            let Some((table, index)) = self.present_table(cx, mm, &mut at, range.end()) else {
                continue;
            };
            if self.huge_pmd_unshare(cx, mm, va, table) {
                at = to_next_pud(va, range.end());
                continue;
            }
            if let Some(wanted) = ref_page {
                let mut st = self.st();
                let entry = st.tables.get(table, index);
                if entry.is_none() || entry.frame(HPAGE) != wanted {
                    continue;
                }
                st.vma_mut(vma).reserve = Reserve::Unmapped;
            }
            if let Some(pfn) = self.huge_ptep_get_and_clear(cx, mm, (table, index)) {
                self.notify_page(cx, mm, (Path::Zap, Point::AfterClear), va, Some(pfn))
                    .await;
                pages.push(pfn);
            }
        }
        pages
    }

    /// The table and index of the entry at `at`, which moves on: a huge page, or to the end of what an
    /// absent table would map.
    fn present_table(&self, cx: &Cx, mm: MmId, at: &mut Va, end: Va) -> Option<(TableId, usize)> {
        let found = self.st().huge_pte_offset(mm, *at);
        let next = match found {
            Some(_) => at.add_pages(HPAGE_PAGES),
            None => to_next_pud(*at, end),
        };
        let passed = (next.vpn().get() - at.vpn().get()) / HPAGE_PAGES;
        cx.charge(PAGE_TABLE, self.machine.costs.cacheline_touch * passed);
        *at = next;
        found
    }

    /// `huge_ptep_get_and_clear`; the dirty bit goes to the page.
    fn huge_ptep_get_and_clear(&self, cx: &Cx, mm: MmId, place: (TableId, usize)) -> Option<Pfn> {
        let mut st = self.st();
        let entry = st.tables.get(place.0, place.1);
        if entry.is_none() {
            return None;
        }
        self.set_huge_entry(cx, &mut st, mm, place, Entry::NONE);
        st.metrics.huge_zapped += 1;
        cx.charge(PAGE_TABLE, self.machine.costs.pte_access);
        let pfn = entry.frame(HPAGE);
        if entry.dirty() {
            self.frames().get_mut(pfn).flags.set(PageFlags::DIRTY);
        }
        Some(pfn)
    }

    /// `huge_pte_alloc`: the PMD table of an address, one that is shared if there is one.
    pub(super) async fn huge_pte_alloc(&self, cx: &Cx, mm: MmId, vma: VmaId, va: Va) -> (TableId, usize) {
        if let Some(found) = self.st().huge_pte_offset(mm, va) {
            return found;
        }
        let above = {
            let st = self.st();
            st.tables.table_at(st.mm(mm).pgd, va.vpn(), Level::Pud)
        };
        if above.is_none() {
            self.alloc_tables(cx, mm, va, Level::Pud).await;
        }
        self.huge_pmd_share(cx, mm, vma, va).await;
        let found = self.st().huge_pte_offset(mm, va);
        match found {
            Some(found) => found,
            None => (
                self.alloc_tables(cx, mm, va, Level::Pmd).await,
                Level::Pmd.index(va),
            ),
        }
    }

    /// `huge_pmd_share`.
    async fn huge_pmd_share(&self, cx: &Cx, mm: MmId, vma: VmaId, va: Va) {
        let (lock, ptl) = {
            let st = self.st();
            let v = st.vma(vma);
            if !is_shareable(v, va) {
                return;
            }
            let file = v.file().expect("huge pages are a file's");
            (st.file(file).i_mmap_lock, st.mm(mm).page_table_lock)
        };
        let _span = cx.span("huge_pmd_share");
        let _i_mmap = cx.lock(lock).await;
        let Some(theirs) = self.find_shareable(cx, vma, va) else {
            return;
        };
        // The reference is taken before page_table_lock, and dropped if somebody was faster.
        self.st().hugetlb.share(theirs);
        let _ptl = cx.lock(ptl).await;
        cx.charge(PAGE_TABLE, self.machine.costs.pte_access);
        let mut st = self.st();
        let pud = st.tables.table_at(st.mm(mm).pgd, va.vpn(), Level::Pud);
        let (pud, index) = (pud.expect("made before"), Level::Pud.index(va));
        if st.tables.get(pud, index).is_none() {
            self.set_huge_entry(cx, &mut st, mm, (pud, index), Entry::table(theirs));
            st.metrics.pmd_shares += 1;
        } else {
            st.hugetlb.drop_share(theirs);
        }
    }

    /// The PMD table of another mapping of the same part of the file; i_mmap_lock is held.
    fn find_shareable(&self, cx: &Cx, vma: VmaId, va: Va) -> Option<TableId> {
        let (file, pgoff) = {
            let st = self.st();
            let v = st.vma(vma);
            (v.file()?, v.pgoff_of(va))
        };
        let only = PgoffRange::new(pgoff, pgoff)?;
        let mut walk = self.range_mappers(file, &only);
        std::iter::from_fn(|| self.next_mapper(cx, &mut walk))
            .filter(|other| *other != vma)
            .find_map(|other| {
                let st = self.st();
                let (mine, their) = (st.vma(vma), st.vma(other));
                let there = their.range.start().add_pages(pgoff.get() - their.pgoff.get());
                let alike = Level::Pmd.index(va) == Level::Pmd.index(there)
                    && mine.prot == their.prot
                    && mine.flags == their.flags
                    && is_shareable(their, there);
                if !alike {
                    return None;
                }
                Some(st.huge_pte_offset(st.mm_of(other), there)?.0)
            })
    }

    /// `copy_hugetlb_page_range`.
    pub(super) async fn copy_hugetlb_page_range(&self, cx: &Cx, parent: MmId, child: MmId, vma: VmaId) {
        let _span = cx.span("copy_hugetlb_page_range");
        let (range, src_ptl, dst_ptl) = {
            let st = self.st();
            let lock = |mm| st.mm(mm).page_table_lock;
            (st.vma(vma).range, lock(parent), lock(child))
        };
        let copy = self.st().mm_mut(child).vmas.find(range.start());
        let copy = copy.expect("the child's VMA is linked before its entries are copied");
        let mut at = range.start();
        while at < range.end() {
            let va = at;
            let Some((src, index)) = self.present_table(cx, parent, &mut at, range.end()) else {
                continue;
            };
            let (dst, _) = self.huge_pte_alloc(cx, child, copy, va).await;
            if src == dst {
                continue;
            }
            let _dst = cx.lock(dst_ptl).await;
            let _src = cx.lock(src_ptl).await;
            self.copy_huge_pte(cx, vma, (parent, src), (child, dst), index);
        }
    }

    fn copy_huge_pte(
        &self,
        cx: &Cx,
        vma: VmaId,
        (parent, src): (MmId, TableId),
        (child, dst): (MmId, TableId),
        index: usize,
    ) {
        cx.charge(PAGE_TABLE, self.machine.costs.pte_access * 2);
        let mut st = self.st();
        let mut entry = st.tables.get(src, index);
        if entry.is_none() {
            return;
        }
        if st.vma(vma).is_cow() {
            entry = entry.without_write();
            self.set_huge_entry(cx, &mut st, parent, (src, index), entry);
        }
        self.set_huge_entry(cx, &mut st, child, (dst, index), entry);
        st.metrics.pages_forked += 1;
        self.frames().get_page(entry.frame(HPAGE));
    }

    /// `hugetlb_change_protection`, without the flush that follows.
    pub(super) async fn hugetlb_change_protection(&self, cx: &Cx, mm: MmId, vma: VmaId, part: VaRange) {
        let _span = cx.span("hugetlb_change_protection");
        let (i_mmap_lock, ptl) = {
            let st = self.st();
            let file = st.vma(vma).file().expect("huge pages are a file's");
            (st.file(file).i_mmap_lock, st.mm(mm).page_table_lock)
        };
        let _i_mmap = cx.lock(i_mmap_lock).await;
        let _ptl = cx.lock(ptl).await;
        let mut at = part.start();
        while at < part.end() {
            cx.step(ptl.object(), Action::Write).await;
            let va = at;
            let Some((table, index)) = self.present_table(cx, mm, &mut at, part.end()) else {
                continue;
            };
            if self.huge_pmd_unshare(cx, mm, va, table) {
                at = to_next_pud(va, part.end());
                continue;
            }
            self.huge_pte_modify(cx, vma, table, index);
        }
    }

    /// `pte_modify` to the VMA's rights. A shared entry becomes writable at once: hugetlbfs does not account
    /// dirty pages. A private one never does: the next write asks whether to copy.
    fn huge_pte_modify(&self, cx: &Cx, vma: VmaId, table: TableId, index: usize) {
        let mut st = self.st();
        let entry = st.tables.get(table, index);
        if entry.is_none() {
            return;
        }
        cx.charge(PAGE_TABLE, self.machine.costs.pte_access);
        let v = st.vma(vma);
        let mut changed = Entry::leaf_of(HPAGE, entry.frame(HPAGE), vm_page_prot(v));
        if entry.accessed() {
            changed = changed.with_accessed();
        }
        if entry.dirty() {
            changed = changed.with_dirty();
        }
        if !v.prot.can_read() {
            changed = changed.with_no_access();
        }
        let mm = st.mm_of(vma);
        self.set_huge_entry(cx, &mut st, mm, (table, index), changed);
    }

    /// The file's VMAs that map a page, in the tree's order, and what walking costs.
    pub(super) fn huge_mappers(&self, cx: &Cx, file: FileId, pgoff: Pgoff) -> Vec<VmaId> {
        let only = PgoffRange::new(pgoff, pgoff).expect("one page");
        self.mappers(cx, file, &only)
    }
}

/// `vm_page_prot`: only a shared mapping's has the right to write.
pub(super) fn vm_page_prot(vma: &Vma) -> Rights {
    match vma.sharing {
        Sharing::Shared => vma.rights(),
        Sharing::Private => vma.rights().without(Rights::WRITE),
    }
}

/// `vma_shareable`: a shared mapping of the whole span of the PUD entry.
fn is_shareable(vma: &Vma, va: Va) -> bool {
    let base = Va::new(va.get() - va.get() % (PUD_PAGES * PAGE_SIZE));
    let span = VaRange::from_pages(base, PUD_PAGES);
    vma.sharing == Sharing::Shared && span.is_some_and(|span| vma.range.contains_range(&span))
}
