//! `vma_link`, `vma_adjust`, `split_vma`: changing one VMA and its place in the reverse maps.
//!
//! Follows mm/mmap.c of 2.6.27 (host-mm-paths B.4). The caller holds mmap_sem for write. Each change takes
//! i_mmap_lock if there is a file, then anon_vma->lock if the VMA, or a neighbour that gives it pages, has an
//! anon_vma, and gives them back in reverse; takes the VMA out of the i_mmap tree (nonlinear ones stay on
//! their list), changes it, and puts it back. A new VMA copies the file's truncate count, the new half of a
//! split one that of the VMA. Who takes pages over from a neighbour (the *importer*) with another truncate
//! count is looked at again by a truncate in progress (count 0), and joins the neighbour's anon_vma if it has
//! none, so that reverse maps go on finding the pages.
//!
//! Deviation: list, red-black tree and prio tree are changed at one instant; in the kernel readers of
//! each are locked out, so nobody can see the difference.

use sim::{Cx, Guard, LockId};
use x86::{Pgoff, Va, VaRange};

use crate::hugetlb::is_huge_aligned;
use crate::kernel::Kernel;
use crate::mm::MmId;
use crate::paths::MapError;
use crate::profile::{MAX_MAP_COUNT, work};
use crate::vma::{Vma, VmaId};

/// Which half of a split VMA becomes the new one (`new_below`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum NewHalf {
    /// The lower: the VMA keeps the upper.
    Below,
    /// The upper: the VMA keeps the lower.
    Above,
}

/// What becomes of the VMA behind the one that is adjusted.
#[derive(Clone, Copy)]
enum Behind {
    /// It is not concerned.
    Stays,
    /// It is swallowed (`remove_next`).
    Removed(VmaId),
    /// The border between the two moves (`adjust_next`), and one of them is the importer.
    Border { next: VmaId, importer: VmaId },
}

impl Behind {
    /// The neighbour, and which of the two takes pages over.
    fn concerned(self, vma: VmaId) -> Option<(VmaId, VmaId)> {
        match self {
            Behind::Stays => None,
            Behind::Removed(next) => Some((next, vma)),
            Behind::Border { next, importer } => Some((next, importer)),
        }
    }
}

/// The locks of a VMA's reverse maps. They go in the order of the fields, the reverse of that in which they
/// are taken.
#[must_use = "the reverse maps may be changed as long as it is kept"]
struct RmapGuards<'a> {
    _anon_vma: Option<Guard<'a>>,
    _i_mmap: Option<Guard<'a>>,
}

impl Kernel {
    /// `vma_link`.
    pub(crate) async fn vma_link(&self, cx: &Cx, mm: MmId, vma: Vma) -> VmaId {
        let _span = cx.span("vma_link");
        self.touch_lines(cx, work::LINK_VMA);
        let id = self.st().add_vma(mm, vma);
        let _locks = self.lock_rmap(cx, id).await;
        let file = self.st().vma(id).file();
        if let Some(file) = file {
            let count = self.st().file(file).truncate_count;
            self.st().vma_mut(id).truncate_count = count;
        }
        self.hook_in(mm, id);
        if let Some(file) = file {
            self.i_mmap_insert(file, id);
        }
        id
    }

    /// `__vma_link` without the file: into the address space and at the tail of the anon_vma's list.
    fn hook_in(&self, mm: MmId, vma: VmaId) {
        let mut st = self.st();
        let (range, anon) = (st.vma(vma).range, st.vma(vma).anon_vma);
        st.mm_mut(mm).vmas.insert(range, vma);
        if let Some(anon) = anon {
            st.anon_vma_mut(anon).vmas.push(vma);
        }
    }

    /// i_mmap_lock, then anon_vma->lock, of a VMA.
    async fn lock_rmap<'a>(&self, cx: &'a Cx, vma: VmaId) -> RmapGuards<'a> {
        let (file, anon) = {
            let st = self.st();
            let anon = st.vma(vma).anon_vma.map(|a| st.anon_vma(a).lock);
            (self.i_mmap_lock_of(vma, &st), anon)
        };
        let i_mmap = lock_if_any(cx, file).await;
        let anon_vma = lock_if_any(cx, anon).await;
        RmapGuards {
            _anon_vma: anon_vma,
            _i_mmap: i_mmap,
        }
    }

    fn i_mmap_lock_of(&self, vma: VmaId, st: &crate::kernel::State) -> Option<LockId> {
        st.vma(vma).file().map(|f| st.file(f).i_mmap_lock)
    }

    /// `split_vma` at an address inside the VMA. Returns the new half.
    ///
    /// # Errors
    /// Inside a huge page; when the address space has as many mappings as it may have.
    pub(crate) async fn split_vma(
        &self,
        cx: &Cx,
        mm: MmId,
        vma: VmaId,
        at: Va,
        new_half: NewHalf,
    ) -> Result<VmaId, MapError> {
        if self.st().is_huge(vma) && !is_huge_aligned(at) {
            return Err(MapError::CutsHugePage);
        }
        if self.st().mm(mm).vmas.len() >= MAX_MAP_COUNT {
            return Err(MapError::TooManyMappings);
        }
        let _span = cx.span("split_vma");
        self.touch_lines(cx, work::LINK_VMA);
        let _locks = self.lock_rmap(cx, vma).await;
        let (file, new, kept, kept_pgoff) = {
            let mut st = self.st();
            let v = st.vma(vma).clone();
            let half = |from, to| VaRange::new(from, to).expect("the split is inside");
            let (low, high) = (half(v.range.start(), at), half(at, v.range.end()));
            let middle = v.pgoff_of(at);
            let (new, new_pgoff, kept, kept_pgoff) = match new_half {
                NewHalf::Below => (low, v.pgoff, high, middle),
                NewHalf::Above => (high, middle, low, v.pgoff),
            };
            let file = v.file();
            let new = st.add_vma(
                mm,
                Vma {
                    range: new,
                    pgoff: new_pgoff,
                    ..v
                },
            );
            (file, new, kept, kept_pgoff)
        };
        if let Some(file) = file {
            self.i_mmap_insert(file, new);
        }
        self.place(mm, vma, kept, kept_pgoff, Behind::Stays);
        self.hook_in(mm, new);
        Ok(new)
    }

    /// `vma_adjust` without a VMA to insert: new borders for a VMA. What it grows over goes, or gives
    /// pages up; what it draws back from its neighbour grows over.
    pub(crate) async fn vma_adjust(&self, cx: &Cx, mm: MmId, vma: VmaId, range: VaRange, pgoff: Pgoff) {
        loop {
            let (behind, end) = self.behind(mm, vma, range.end());
            let now = VaRange::new(range.start(), end).expect("a VMA keeps a page");
            self.adjust(cx, mm, vma, now, pgoff, behind).await;
            // A second neighbour is swallowed in a round of its own, locks included (case 6).
            if end >= range.end() {
                return;
            }
        }
    }

    /// What a new end means for the VMA behind, and the end that this round brings.
    fn behind(&self, mm: MmId, vma: VmaId, end: Va) -> (Behind, Va) {
        let st = self.st();
        let old = st.vma(vma).range.end();
        let Some(next) = st.mm(mm).vmas.at_or_after(old) else {
            return (Behind::Stays, end);
        };
        let neighbour = st.vma(next).range;
        if end >= neighbour.end() {
            return (Behind::Removed(next), neighbour.end());
        }
        let importer = if end > neighbour.start() {
            vma
        } else if end < old {
            next
        } else {
            return (Behind::Stays, end);
        };
        (Behind::Border { next, importer }, end)
    }

    /// One round of `vma_adjust`.
    async fn adjust(&self, cx: &Cx, mm: MmId, vma: VmaId, range: VaRange, pgoff: Pgoff, behind: Behind) {
        let _span = cx.span("vma_adjust");
        let concerned = behind.concerned(vma);
        let (file, anon) = {
            let st = self.st();
            let imported = concerned.and_then(|(next, _)| st.vma(next).anon_vma);
            (self.i_mmap_lock_of(vma, &st), st.vma(vma).anon_vma.or(imported))
        };
        let i_mmap = lock_if_any(cx, file).await;
        if let (Some(_), Some((next, importer))) = (file, concerned) {
            let mut st = self.st();
            if st.vma(vma).truncate_count != st.vma(next).truncate_count {
                st.vma_mut(importer).truncate_count = 0;
            }
        }
        let anon_lock = anon.map(|a| self.st().anon_vma(a).lock);
        let _locks = RmapGuards {
            _anon_vma: lock_if_any(cx, anon_lock).await,
            _i_mmap: i_mmap,
        };
        if let (Some(anon), Some((_, importer))) = (anon, concerned) {
            let mut st = self.st();
            if st.vma(importer).anon_vma.is_none() {
                st.vma_mut(importer).anon_vma = Some(anon);
                st.anon_vma_mut(anon).vmas.push(importer);
            }
        }
        self.place(mm, vma, range, pgoff, behind);
    }

    /// New borders in the address space and in i_mmap; the locks are held.
    fn place(&self, mm: MmId, vma: VmaId, range: VaRange, pgoff: Pgoff, behind: Behind) {
        // A nonlinear VMA keeps its place on the list, whatever its borders.
        let file = {
            let st = self.st();
            let v = st.vma(vma);
            v.file().filter(|_| !v.is_nonlinear())
        };
        let moved = match behind {
            Behind::Border { next, .. } => Some(next),
            Behind::Stays | Behind::Removed(_) => None,
        };
        for linked in moved.into_iter().chain([vma]) {
            if let Some(file) = file {
                self.i_mmap_remove(file, linked);
            }
            let start = self.st().vma(linked).range.start();
            self.st().mm_mut(mm).vmas.remove(start);
        }
        if let Behind::Removed(next) = behind {
            self.swallow(mm, next);
        }
        let mut st = self.st();
        if let Some(next) = moved {
            let v = st.vma_mut(next);
            let pages = |from: Va, to: Va| to.vpn().get().wrapping_sub(from.vpn().get());
            let shift = pages(v.range.start(), range.end());
            v.pgoff = Pgoff::new(v.pgoff.get().wrapping_add(shift));
            v.range = VaRange::new(range.end(), v.range.end()).expect("the neighbour keeps a page");
            let range = v.range;
            st.mm_mut(mm).vmas.insert(range, next);
        }
        let v = st.vma_mut(vma);
        (v.range, v.pgoff) = (range, pgoff);
        st.mm_mut(mm).vmas.insert(range, vma);
        drop(st);
        for changed in moved.into_iter().chain([vma]) {
            if let Some(file) = file {
                self.i_mmap_insert(file, changed);
            }
        }
    }

    /// `__vma_unlink`, `__remove_shared_vm_struct`, `__anon_vma_merge` of a VMA that another one grows
    /// over; the list of its anon_vma keeps the other one.
    fn swallow(&self, mm: MmId, next: VmaId) {
        let file = self.st().vma(next).file();
        if let Some(file) = file {
            self.i_mmap_remove(file, next);
        }
        let mut st = self.st();
        let (start, anon) = (st.vma(next).range.start(), st.vma(next).anon_vma);
        st.mm_mut(mm).vmas.remove(start);
        if let Some(anon) = anon {
            st.anon_vma_mut(anon).vmas.retain(|v| *v != next);
        }
    }
}

async fn lock_if_any(cx: &Cx, lock: Option<LockId>) -> Option<Guard<'_>> {
    match lock {
        Some(lock) => Some(cx.lock(lock).await),
        None => None,
    }
}
