//! `vma_link`, `split_vma`, `vma_merge`: changing the layout of an address space.
//!
//! Follows mm/mmap.c of 2.6.27 (host-mm-paths B.4). The caller holds mmap_sem for write. Each change
//! takes i_mmap_lock if there is a file, then anon_vma->lock if there is an anon_vma, takes the VMA
//! out of the i_mmap tree, changes it, and puts it back. A new VMA copies the file's truncate count;
//! when VMAs with different counts merge, the survivor is rescanned by a truncate in progress (0).

use sim::{Cx, Guard};
use x86::{Pgoff, Va, VaRange};

use crate::i_mmap::IntervalIndex as _;
use crate::kernel::Kernel;
use crate::mm::MmId;
use crate::profile::work;
use crate::vma::{Linearity, Vma, VmaId};

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
            self.i_mmap_insert(file, id);
        }
        let mut st = self.st();
        if let Some(anon) = st.vma(id).anon_vma {
            st.anon_vma_mut(anon).vmas.push(id);
        }
        let range = st.vma(id).range;
        st.mm_mut(mm).vmas.insert(range, id);
        id
    }

    /// i_mmap_lock, then anon_vma->lock, of a VMA.
    pub(crate) async fn lock_rmap<'a>(&self, cx: &'a Cx, vma: VmaId) -> [Option<Guard<'a>>; 2] {
        let (file, anon) = {
            let st = self.st();
            let v = st.vma(vma);
            (
                v.file().map(|f| st.file(f).i_mmap_lock),
                v.anon_vma.map(|a| st.anon_vma(a).lock),
            )
        };
        let i_mmap = match file {
            Some(lock) => Some(cx.lock(lock).await),
            None => None,
        };
        let anon = match anon {
            Some(lock) => Some(cx.lock(lock).await),
            None => None,
        };
        [i_mmap, anon]
    }

    /// `split_vma` at an address, if a VMA spans it.
    pub(crate) async fn split_at(&self, cx: &Cx, mm: MmId, at: Va) {
        let Some(old) = self.st().mm_mut(mm).vmas.find(at) else {
            return;
        };
        let (low, high) = {
            let st = self.st();
            let v = st.vma(old);
            if v.range.start() == at {
                return;
            }
            (VaRange::new(v.range.start(), at), VaRange::new(at, v.range.end()))
        };
        let (low, high) = (
            low.expect("the split is inside"),
            high.expect("the split is inside"),
        );
        let _span = cx.span("split_vma");
        self.touch_lines(cx, work::LINK_VMA);
        let _locks = self.lock_rmap(cx, old).await;
        let mut st = self.st();
        let mut upper = st.vma(old).clone();
        upper.pgoff = upper.pgoff_of(at);
        upper.range = high;
        let file = upper.file();
        let anon = upper.anon_vma;
        let before = st.vma(old).pgoffs();
        st.vma_mut(old).range = low;
        let after = st.vma(old).pgoffs();
        let new = st.add_vma(mm, upper);
        if let (Some(file), Linearity::Nonlinear) = (file, st.vma(new).linearity) {
            // The lower half keeps its place on the list.
            st.file_mut(file).i_mmap_nonlinear.push(new);
        } else if let Some(file) = file {
            let pages = st.vma(new).pgoffs();
            let tree = &mut st.file_mut(file).i_mmap;
            let removed = tree.remove(before.first().get(), before.last().get(), old);
            debug_assert!(removed.is_ok(), "a linked file VMA is in i_mmap");
            tree.insert(after.first().get(), after.last().get(), old);
            tree.insert(pages.first().get(), pages.last().get(), new);
        }
        if let Some(anon) = anon {
            st.anon_vma_mut(anon).vmas.push(new);
        }
        let tree = &mut st.mm_mut(mm).vmas;
        tree.remove(low.start());
        tree.insert(low, old);
        tree.insert(high, new);
    }

    /// `vma_merge`: lets the VMA that ends where `new` begins grow over it, if they are alike and
    /// follow each other in their file (or in anonymous index). Merges onwards with the VMA behind,
    /// if that fits too. Returns the survivor.
    pub(crate) async fn vma_merge(&self, cx: &Cx, mm: MmId, new: &Vma) -> Option<VmaId> {
        let prev = self.neighbour_before(mm, new)?;
        let next = self.neighbour_after(mm, new, prev);
        let _span = cx.span("vma_merge");
        self.touch_lines(cx, work::UNLINK_VMA);
        let end = next.map_or(new.range.end(), |n| self.st().vma(n).range.end());
        let _locks = self.lock_rmap(cx, prev).await;
        if let Some(next) = next {
            self.absorb(mm, prev, next);
        }
        self.grow_to(mm, prev, end);
        Some(prev)
    }

    fn neighbour_before(&self, mm: MmId, new: &Vma) -> Option<VmaId> {
        let start = new.range.start();
        let mut st = self.st();
        let before = st.mm_mut(mm).vmas.find(Va::new(start.get().checked_sub(1)?))?;
        let v = st.vma(before);
        let follows = v.range.end() == start && v.pgoff_of(start) == new.pgoff;
        (follows && alike(v, new) && (new.anon_vma.is_none() || new.anon_vma == v.anon_vma)).then_some(before)
    }

    fn neighbour_after(&self, mm: MmId, new: &Vma, prev: VmaId) -> Option<VmaId> {
        let end = new.range.end();
        let mut st = self.st();
        let after = st.mm_mut(mm).vmas.find(end)?;
        let (v, p) = (st.vma(after), st.vma(prev));
        let index = Pgoff::new(new.pgoff.get() + new.range.pages());
        let follows = v.range.start() == end && v.pgoff == index;
        (follows && alike(v, new) && (v.anon_vma.is_none() || v.anon_vma == p.anon_vma)).then_some(after)
    }

    /// Removes `next` in favour of `prev`; rmap locks of `prev` are held, and `next` has the same.
    fn absorb(&self, mm: MmId, prev: VmaId, next: VmaId) {
        let v = self.st().vma(next).clone();
        if let Some(file) = v.file() {
            self.i_mmap_remove(file, next);
        }
        let mut st = self.st();
        if let Some(anon) = v.anon_vma {
            st.anon_vma_mut(anon).vmas.retain(|x| *x != next);
        }
        if st.vma(prev).truncate_count != v.truncate_count {
            st.vma_mut(prev).truncate_count = 0;
        }
        st.mm_mut(mm).vmas.remove(v.range.start());
    }

    fn grow_to(&self, mm: MmId, vma: VmaId, end: Va) {
        // A nonlinear VMA keeps its place on the list, whatever its borders.
        let file = {
            let st = self.st();
            let v = st.vma(vma);
            v.file().filter(|_| !v.is_nonlinear())
        };
        if let Some(file) = file {
            self.i_mmap_remove(file, vma);
        }
        {
            let mut st = self.st();
            let range = VaRange::new(st.vma(vma).range.start(), end).expect("a VMA grows");
            st.vma_mut(vma).range = range;
            let tree = &mut st.mm_mut(mm).vmas;
            tree.remove(range.start());
            tree.insert(range, vma);
        }
        if let Some(file) = file {
            self.i_mmap_insert(file, vma);
        }
    }
}

/// `is_mergeable_vma`: same rights, sharing and source, both linear or both not.
fn alike(a: &Vma, b: &Vma) -> bool {
    a.prot == b.prot
        && a.sharing == b.sharing
        && a.linearity == b.linearity
        && a.backing == b.backing
        && a.may_merge()
}
