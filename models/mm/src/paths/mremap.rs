//! `mremap`: growing, shrinking and moving a mapping.
//!
//! Follows mm/mremap.c of 2.6.27 (host-mm-paths B.8). A move goes in chunks of at most 64 pages that
//! end at page-table borders of both ranges; each chunk is a notifier bracket over the *old* range,
//! holds i_mmap_lock (files only, against truncate) and both pte locks, and flushes every page it
//! moves with a broadcast of its own. The old range is unmapped afterwards.
//!
//! Order of decisions, as in `do_mremap`: a fixed target is unmapped first; what the new length leaves
//! over is unmapped next, whatever lies there; only then the old range must be inside one mapping. A
//! mapping that ends where the old range ends grows in place if the gap behind it suffices: its border
//! moves (`vma_adjust`), and it is not merged with a neighbour it comes to touch. Anything else moves,
//! if it may (MREMAP_MAYMOVE). At the target the mapping joins its neighbours if it fits
//! (`copy_vma`); memory that was never touched takes the index of its new place, to fit more often.
//! What fails late leaves done what came before. Of a locked mapping the pages beyond the old length
//! are made present before the call returns.
//!
//! Deviations: memory that is moved back to where it came from may join a neighbour that was never touched and
//! has no anon_vma; 2.6.27 leaves it without (`vma_adjust` only cares for pages that come from the mapping
//! behind), so that reverse maps lose the pages and their anon_vma may be freed under them; here the neighbour
//! joins it. Page tables take no frame here, so a move cannot break off half-way and be rolled back; a
//! driver's mapping does not move (the drivers modelled know theirs by address); a length that would run over
//! the largest file page is refused; old length zero is refused by the scenario checker.

use sim::{Action, Cx};
use x86::{Entry, Level, PT_SPAN_PAGES, Pgoff, PgoffRange, Va, VaRange};

use crate::account::{ENTRY, PAGE_TABLE};
use crate::kernel::Kernel;
use crate::mm::{AnonVmaId, MmId};
use crate::notifier::{Path, Point};
use crate::paths::MapError;
use crate::paths::mmap::user_range;
use crate::profile::{MAX_MAP_COUNT, MREMAP_CHUNK_PAGES};
use crate::vma::{Backing, Vma, VmaId};

/// Mappings that must be possible before a move begins: its munmap may split one into three.
const MOVE_MARGIN: usize = 3;

/// Where mremap may leave a mapping.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Destination {
    /// Where it is (no flag).
    InPlace,
    /// Where it is, or elsewhere if it does not fit (MREMAP_MAYMOVE).
    Anywhere,
    /// There, and nowhere else (MREMAP_MAYMOVE | MREMAP_FIXED).
    Fixed(Va),
}

impl From<Option<Va>> for Destination {
    fn from(to: Option<Va>) -> Destination {
        to.map_or(Destination::Anywhere, Destination::Fixed)
    }
}

impl Kernel {
    /// mremap(2). Returns where the mapping lies now.
    ///
    /// # Errors
    /// As the system call: see [`MapError`]. A fixed target that overlaps the old range is a bad range.
    pub async fn sys_mremap(
        &self,
        cx: &Cx,
        mm: MmId,
        old: VaRange,
        new_pages: u64,
        to: impl Into<Destination>,
    ) -> Result<VaRange, MapError> {
        let _span = cx.span("sys_mremap");
        cx.charge(ENTRY, self.machine.costs.syscall_entry_exit);
        let _sem = cx.lock(self.mmap_sem(mm)).await;
        self.do_mremap(cx, mm, old, new_pages, to.into()).await
    }

    /// `do_mremap`; the caller holds mmap_sem for write.
    async fn do_mremap(
        &self,
        cx: &Cx,
        mm: MmId,
        old: VaRange,
        new_pages: u64,
        to: Destination,
    ) -> Result<VaRange, MapError> {
        let _span = cx.span("do_mremap");
        let target = match to {
            Destination::Fixed(at) => {
                let new = user_range(at, new_pages)?;
                if new.overlaps(&old) {
                    return Err(MapError::BadRange);
                }
                self.do_munmap(cx, mm, new).await?;
                Some(new)
            }
            Destination::InPlace | Destination::Anywhere => None,
        };
        let mut old = old;
        if let Some(kept) = VaRange::from_pages(old.start(), new_pages.min(old.pages())) {
            if let Some(tail) = VaRange::new(kept.end(), old.end()) {
                self.do_munmap(cx, mm, tail).await?;
            }
            if new_pages <= old.pages() && target.is_none() {
                return Ok(kept);
            }
            old = kept;
        }
        let vma = self.vma_to_resize(cx, mm, old, new_pages)?;
        if target.is_none()
            && let Some(grown) = self.room_behind(mm, vma, old, new_pages)
        {
            self.grow_in_place(cx, mm, vma, grown).await;
            return VaRange::new(old.start(), grown.end()).ok_or(MapError::BadRange);
        }
        let new = match (target, to) {
            (Some(new), _) => new,
            (None, Destination::InPlace) => return Err(MapError::NoSpace),
            (None, _) => user_range(self.get_unmapped_area(mm, new_pages)?, new_pages)?,
        };
        self.move_vma(cx, mm, vma, old, new).await
    }

    /// The mapping that is to grow or move, and whether it may. (2.6.27 has this inside `do_mremap`; the
    /// name is that of the function it became.)
    fn vma_to_resize(&self, cx: &Cx, mm: MmId, old: VaRange, new_pages: u64) -> Result<VmaId, MapError> {
        let vma = self
            .find_vma(cx, mm, old.start())
            .ok_or(MapError::NotOneMapping)?;
        let st = self.st();
        let v = st.vma(vma);
        if st.is_huge(vma) {
            return Err(MapError::Unsuitable);
        }
        if !v.range.contains_range(&old) || v.backing == Backing::Driver {
            return Err(MapError::NotOneMapping);
        }
        let pgoff = v.pgoff_of(old.start());
        PgoffRange::from_pages(pgoff, new_pages).ok_or(MapError::BadRange)?;
        Ok(vma)
    }

    /// The pages by which a mapping can grow where it is, if it ends with `old`.
    fn room_behind(&self, mm: MmId, vma: VmaId, old: VaRange, new_pages: u64) -> Option<VaRange> {
        let grown = VaRange::new(old.end(), user_range(old.start(), new_pages).ok()?.end())?;
        let st = self.st();
        let ends_here = st.vma(vma).range.end() == old.end();
        let free = st.mm(mm).vmas.overlapping(grown).next().is_none();
        (ends_here && free).then_some(grown)
    }

    async fn grow_in_place(&self, cx: &Cx, mm: MmId, vma: VmaId, grown: VaRange) {
        let (range, pgoff, locked) = {
            let st = self.st();
            let v = st.vma(vma);
            let range = VaRange::new(v.range.start(), grown.end()).expect("it grows");
            (range, v.pgoff, v.flags.is_locked())
        };
        self.vma_adjust(cx, mm, vma, range, pgoff).await;
        if locked {
            self.st().mm_mut(mm).locked_vm += grown.pages();
            let _ignored = self.make_pages_present(cx, mm, grown).await;
        }
    }

    /// `move_vma`; nothing lies at the target.
    async fn move_vma(
        &self,
        cx: &Cx,
        mm: MmId,
        vma: VmaId,
        old: VaRange,
        new: VaRange,
    ) -> Result<VaRange, MapError> {
        let _span = cx.span("move_vma");
        if self.st().mm(mm).vmas.len() >= MAX_MAP_COUNT - MOVE_MARGIN {
            return Err(MapError::TooManyMappings);
        }
        let locked = self.st().vma(vma).flags.is_locked();
        let (vma, copy) = self.copy_vma(cx, mm, vma, old.start(), new).await;
        self.move_page_tables(cx, mm, (vma, copy), old.start(), new.start(), old.pages())
            .await;
        // The kernel lets a failure pass here, too; the margin above rules it out.
        let _unmapped = self.do_munmap(cx, mm, old).await;
        if locked {
            self.st().mm_mut(mm).locked_vm += new.pages();
            if let Some(more) = VaRange::new(new.start().add_pages(old.pages()), new.end()) {
                let _ignored = self.make_pages_present(cx, mm, more).await;
            }
        }
        Ok(new)
    }

    /// `copy_vma`: the mapping's continuation at the target, merged with what lies there if it fits.
    /// Returns the old mapping, which may have become part of the new one, and the new one.
    async fn copy_vma(&self, cx: &Cx, mm: MmId, vma: VmaId, from: Va, new: VaRange) -> (VmaId, VmaId) {
        let (wanted, start, prev) = {
            let st = self.st();
            let v = st.vma(vma);
            let untouched = v.backing == Backing::Anonymous && v.anon_vma.is_none();
            let pgoff = if untouched {
                Pgoff::new(new.start().vpn().get())
            } else {
                v.pgoff_of(from)
            };
            let wanted = Vma {
                range: new,
                pgoff,
                ..v.clone()
            };
            (wanted, v.range.start(), st.mm(mm).vmas.before(new.start()))
        };
        let Some(merged) = self.vma_merge(cx, mm, prev, &wanted).await else {
            return (vma, self.vma_link(cx, mm, wanted).await);
        };
        self.join_family(cx, merged, wanted.anon_vma).await;
        if self.st().vma(merged).range.contains(start) {
            return (merged, merged);
        }
        (vma, merged)
    }

    /// Gives a mapping that took moved pages over their anon_vma, if it has none.
    async fn join_family(&self, cx: &Cx, vma: VmaId, anon: Option<AnonVmaId>) {
        let Some(anon) = anon.filter(|_| self.st().vma(vma).anon_vma.is_none()) else {
            return;
        };
        let lock = self.st().anon_vma(anon).lock;
        let _anon = cx.lock(lock).await;
        let mut st = self.st();
        st.vma_mut(vma).anon_vma = Some(anon);
        st.anon_vma_mut(anon).vmas.push(vma);
    }

    /// `move_page_tables`.
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
            cx.step(src_ptl.object(), Action::Write).await;
            let entry = self.st().tables.get(src, Level::Pte.index(va));
            if entry.is_none() {
                cx.charge(PAGE_TABLE, self.none_pte_cost());
                continue;
            }
            cx.charge(PAGE_TABLE, self.machine.costs.pte_access * 2);
            self.set_pte(cx, &mut self.st(), src, Level::Pte.index(va), Entry::NONE);
            self.flush_tlb_page(cx, mm, va).await;
            let page = entry.maps_page().then(|| entry.pfn());
            self.notify_page(cx, mm, (Path::Mremap, Point::AfterFlush), va, page)
                .await;
            self.set_pte(cx, &mut self.st(), dst, Level::Pte.index(target), entry);
        }
        drop(new);
    }
}
