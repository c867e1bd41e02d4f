//! `mremap`: growing, shrinking and moving a mapping.
//!
//! Follows mm/mremap.c of 2.6.27 (host-mm-paths B.8). A move goes in chunks of at most 64 pages that
//! end at page-table borders of both ranges; each chunk is a notifier bracket over the *old* range,
//! holds i_mmap_lock (files only, against truncate) and both pte locks, and flushes every page it
//! moves with a broadcast of its own. The old range is unmapped afterwards.
//!
//! Deviation: a mapping that grows in place becomes one VMA by merging only when it is anonymous or
//! a file mapping that continues; old length zero is refused by the scenario checker.

use sim::Cx;
use x86::{Entry, Level, PT_SPAN_PAGES, PgoffRange, Va, VaRange};

use crate::account::{ENTRY, PAGE_TABLE};
use crate::hugetlb::is_huge_aligned;
use crate::kernel::Kernel;
use crate::mm::MmId;
use crate::notifier::{Path, Point};
use crate::paths::mmap::user_range;
use crate::paths::{MapError, MapRequest};
use crate::profile::{MAX_MAP_COUNT, MREMAP_CHUNK_PAGES};
use crate::vma::{Backing, Vma, VmaId};

impl Kernel {
    /// mremap(2). Returns where the mapping lies now.
    ///
    /// # Errors
    /// As the system call: see [`MapError`]. A range that is not inside one mapping is a bad range.
    pub async fn sys_mremap(
        &self,
        cx: &Cx,
        mm: MmId,
        old: VaRange,
        new_pages: u64,
        to: Option<Va>,
    ) -> Result<VaRange, MapError> {
        let _span = cx.span("sys_mremap");
        cx.charge(ENTRY, self.machine.costs.syscall_entry_exit);
        let _sem = cx.lock(self.mmap_sem(mm)).await;
        let vma = self.find_vma(cx, mm, old.start()).ok_or(MapError::BadRange)?;
        if !self.st().vma(vma).range.contains_range(&old) {
            return Err(MapError::BadRange);
        }
        let stays = user_range(old.start(), new_pages)?;
        let (pgoff, driver, huge) = {
            let st = self.st();
            (
                st.vma(vma).pgoff_of(old.start()),
                st.vma(vma).backing == Backing::Driver,
                st.is_huge(vma),
            )
        };
        // A driver's mapping neither moves nor grows (-EFAULT), nor does one of huge pages (-EINVAL), which
        // can still lose its end.
        let shrinks = to.is_none() && new_pages <= old.pages() && is_huge_aligned(stays.end());
        if driver || (huge && !shrinks) || PgoffRange::from_pages(pgoff, new_pages).is_none() {
            return Err(MapError::BadRange);
        }
        if to.is_none() {
            if let Some(gone) = VaRange::new(stays.end(), old.end()) {
                self.do_munmap(cx, mm, gone).await;
                return Ok(stays);
            }
            let Some(grown) = VaRange::new(old.end(), stays.end()) else {
                return Ok(old);
            };
            if self.st().mm(mm).vmas.overlapping(grown).next().is_none() {
                self.do_mmap(cx, mm, self.continuation(vma, grown)).await?;
                return Ok(stays);
            }
        }
        self.move_vma(cx, mm, vma, old, new_pages, to).await
    }

    fn continuation(&self, vma: VmaId, range: VaRange) -> MapRequest {
        let st = self.st();
        let v = st.vma(vma);
        MapRequest {
            at: Some(range.start()),
            pages: range.pages(),
            backing: v.backing,
            pgoff: v.pgoff_of(range.start()),
            sharing: v.sharing,
            prot: v.prot,
        }
    }

    /// `move_vma`.
    async fn move_vma(
        &self,
        cx: &Cx,
        mm: MmId,
        vma: VmaId,
        old: VaRange,
        new_pages: u64,
        to: Option<Va>,
    ) -> Result<VaRange, MapError> {
        let _span = cx.span("move_vma");
        let request = self.continuation(vma, old);
        let at = match to {
            Some(at) => at,
            None => self.get_unmapped_area(mm, new_pages)?,
        };
        let new = user_range(at, new_pages)?;
        if new.overlaps(&old) {
            return Err(MapError::BadRange);
        }
        if self.st().mm(mm).vmas.len() >= MAX_MAP_COUNT {
            return Err(MapError::TooManyMappings);
        }
        self.do_munmap(cx, mm, new).await;
        // What does not fit is unmapped before the move, with a bracket of its own.
        let old = match VaRange::new(old.start().add_pages(new_pages.min(old.pages())), old.end()) {
            Some(tail) => {
                self.do_munmap(cx, mm, tail).await;
                VaRange::new(old.start(), tail.start()).expect("the new length is not zero")
            }
            None => old,
        };
        let copy = {
            let st = self.st();
            let v = st.vma(vma);
            Vma {
                range: new,
                pgoff: request.pgoff,
                truncate_count: 0,
                ..v.clone()
            }
        };
        let copy = self.vma_link(cx, mm, copy).await;
        self.move_page_tables(cx, mm, (vma, copy), old.start(), new.start(), old.pages())
            .await;
        self.do_munmap(cx, mm, old).await;
        Ok(new)
    }

    async fn move_page_tables(&self, cx: &Cx, mm: MmId, vmas: (VmaId, VmaId), old: Va, new: Va, pages: u64) {
        let _span = cx.span("move_page_tables");
        let mut done = 0;
        while done < pages {
            cx.cond_resched().await;
            let (from, to) = (old.add_pages(done), new.add_pages(done));
            let to_border = |va: Va| PT_SPAN_PAGES - va.vpn().get() % PT_SPAN_PAGES;
            let chunk = (pages - done)
                .min(to_border(from))
                .min(to_border(to))
                .min(MREMAP_CHUNK_PAGES);
            let populated = {
                let st = self.st();
                st.tables.leaf_table(st.mm(mm).pgd, from.vpn()).is_some()
            };
            if populated {
                let missing = {
                    let st = self.st();
                    st.tables.leaf_table(st.mm(mm).pgd, to.vpn()).is_none()
                };
                if missing {
                    self.pte_alloc(cx, mm, to).await;
                }
                self.move_ptes(cx, mm, vmas, from, to, chunk).await;
            }
            done += chunk;
        }
    }

    /// `move_ptes`.
    async fn move_ptes(&self, cx: &Cx, mm: MmId, vmas: (VmaId, VmaId), from: Va, to: Va, pages: u64) {
        let (old, new) = vmas;
        let _span = cx.span("move_ptes");
        let chunk = VaRange::from_pages(from, pages).expect("a chunk is not empty");
        let bracket = self.notify_open(cx, mm, Path::Mremap, chunk).await;
        let i_mmap_lock = {
            let st = self.st();
            st.vma(old).file().map(|f| st.file(f).i_mmap_lock)
        };
        let i_mmap = match i_mmap_lock {
            Some(lock) => Some(cx.lock(lock).await),
            None => None,
        };
        if i_mmap.is_some() {
            // A truncate in progress must look at what moves into a mapping it has done already.
            let mut st = self.st();
            if st.vma(new).truncate_count != st.vma(old).truncate_count {
                st.vma_mut(new).truncate_count = 0;
            }
        }
        self.move_ptes_locked(cx, mm, from, to, pages).await;
        drop(i_mmap);
        self.notify_close(cx, bracket).await;
    }

    async fn move_ptes_locked(&self, cx: &Cx, mm: MmId, from: Va, to: Va, pages: u64) {
        let (src, dst) = {
            let st = self.st();
            let pgd = st.mm(mm).pgd;
            let table = |va: Va| st.tables.leaf_table(pgd, va.vpn()).expect("both tables exist");
            (table(from), table(to))
        };
        let (src_ptl, dst_ptl) = {
            let st = self.st();
            (st.ptl(src), st.ptl(dst))
        };
        let _old = cx.lock(src_ptl).await;
        let new = if src_ptl == dst_ptl {
            None
        } else {
            Some(cx.lock(dst_ptl).await)
        };
        for page in 0..pages {
            let (va, target) = (from.add_pages(page), to.add_pages(page));
            let entry = self.st().tables.get(src, Level::Pte.index(va));
            if entry.is_none() {
                continue;
            }
            cx.charge(PAGE_TABLE, self.machine.costs.pte_access * 2);
            self.set_pte(cx, &mut self.st(), src, Level::Pte.index(va), Entry::NONE);
            self.flush_tlb_page(cx, mm, va).await;
            if entry.maps_page() {
                self.check_page_notice(cx, mm, Path::Mremap, Point::AfterFlush, va, entry.pfn());
            }
            self.notify_page(cx, mm, Path::Mremap, Point::AfterFlush, va)
                .await;
            self.set_pte(cx, &mut self.st(), dst, Level::Pte.index(target), entry);
        }
        drop(new);
    }
}
