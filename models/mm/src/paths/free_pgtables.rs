//! `free_pgtables`: unlinking VMAs from the reverse maps and freeing their page tables.
//!
//! Follows mm/memory.c and mm/mmap.c of 2.6.27 (host-mm-paths B.2). VMAs within one PMD span of each other are
//! freed in one call, mappings of huge pages each in one of its own (`hugetlb_free_pgd_range`, which is
//! `free_pgd_range` on x86). A table goes only if no neighbouring VMA uses its span (floor and ceiling); it is
//! queued in the gather like a page, so it is freed after a flush (F2), and a VMA leaves i_mmap and its
//! anon_vma before that (F12). No page-table lock: the VMAs are hidden.
//!
//! Deviation: all tables of a call are cut off from their parents at one instant and then queued, where the
//! kernel cuts off and queues one after the other. Who fills the gather with one of them flushes and frees
//! what is queued with the rest cut off already: nobody can walk to those any more, and nothing that a
//! table held is still mapped, so neither a count nor a lock differs.

use sim::Cx;
use x86::{Level, PT_SPAN_PAGES, TableId, Va, VaRange};

use crate::gather::Gather;
use crate::i_mmap::IntervalIndex as _;
use crate::kernel::Kernel;
use crate::mm::MmId;
use crate::profile::work;
use crate::vma::VmaId;

impl Kernel {
    /// `free_pgtables` for detached VMAs, ascending; `floor` and `ceiling` are the nearest mappings
    /// left and right of them.
    pub(crate) async fn free_pgtables(
        &self,
        cx: &Cx,
        gather: &mut Gather<'_>,
        mm: MmId,
        vmas: &[VmaId],
        floor: Va,
        ceiling: Option<Va>,
    ) {
        let _span = cx.span("free_pgtables");
        let ranges: Vec<VaRange> = vmas.iter().map(|v| self.st().vma(*v).range).collect();
        let mut first = 0;
        while first < vmas.len() {
            let mut last = first;
            self.unlink_vma(cx, vmas[first]).await;
            while last + 1 < vmas.len()
                && !self.st().is_huge(vmas[first])
                && !self.st().is_huge(vmas[last + 1])
                && ranges[last + 1].start() <= ranges[last].end().add_pages(PT_SPAN_PAGES)
            {
                last += 1;
                self.unlink_vma(cx, vmas[last]).await;
            }
            self.check_hidden(cx, mm, &vmas[first..=last]);
            let next = ranges.get(last + 1).map(VaRange::start).or(ceiling);
            let detached = self.detach_tables(mm, ranges[first].start(), ranges[last].end(), floor, next);
            for table in detached {
                cx.charge(crate::account::PAGE_TABLE, self.machine.costs.pte_access);
                gather.remove_table(table).await;
            }
            first = last + 1;
        }
    }

    fn detach_tables(&self, mm: MmId, start: Va, end: Va, floor: Va, ceiling: Option<Va>) -> Vec<TableId> {
        let mut st = self.st();
        let pgd = st.mm(mm).pgd;
        let mut detached = Vec::new();
        let mut ptes = 0;
        st.tables
            .free_pgd_range(pgd, start, end, floor, ceiling, |level, table| {
                ptes += u64::from(level == Level::Pte);
                detached.push(table);
            });
        st.mm_mut(mm).nr_ptes -= ptes;
        detached
    }

    /// `anon_vma_unlink` and `unlink_file_vma`. Who takes the last VMA off an anon_vma's list gives the
    /// anon_vma back, after dropping its lock.
    pub(crate) async fn unlink_vma(&self, cx: &Cx, vma: VmaId) {
        let (anon, file) = {
            let st = self.st();
            (st.vma(vma).anon_vma, st.vma(vma).file())
        };
        if let Some(anon) = anon {
            let _span = cx.span("anon_vma_unlink");
            let lock = self.st().anon_vma(anon).lock;
            let guard = cx.lock(lock).await;
            self.touch_lines(cx, work::RMAP);
            let empty = {
                let mut st = self.st();
                let list = &mut st.anon_vma_mut(anon).vmas;
                list.retain(|v| *v != vma);
                list.is_empty()
            };
            drop(guard);
            if empty {
                self.st().free_anon_vmas.push(anon);
            }
        }
        if let Some(file) = file {
            let _span = cx.span("unlink_file_vma");
            let lock = self.st().file(file).i_mmap_lock;
            let _i_mmap = cx.lock(lock).await;
            self.touch_lines(cx, work::I_MMAP_NODE);
            self.i_mmap_remove(file, vma);
        }
    }

    /// Takes a VMA out of i_mmap, or off the list of nonlinear ones; i_mmap_lock is held
    /// (`__remove_shared_vm_struct`).
    pub(crate) fn i_mmap_remove(&self, file: crate::FileId, vma: VmaId) {
        let mut st = self.st();
        if st.vma(vma).is_nonlinear() {
            return st.file_mut(file).remove_nonlinear(vma);
        }
        let pages = st.vma(vma).pgoffs();
        let removed = st
            .file_mut(file)
            .i_mmap
            .remove(pages.first().get(), pages.last().get(), vma);
        debug_assert!(removed.is_ok(), "{vma:?} is in i_mmap while it is linked");
    }

    /// Puts a VMA into i_mmap, or at the tail of the list of nonlinear ones; i_mmap_lock is held
    /// (`__vma_link_file`).
    pub(crate) fn i_mmap_insert(&self, file: crate::FileId, vma: VmaId) {
        let mut st = self.st();
        if st.vma(vma).is_nonlinear() {
            st.file_mut(file).i_mmap_nonlinear.push(vma);
            return;
        }
        let pages = st.vma(vma).pgoffs();
        st.file_mut(file)
            .i_mmap
            .insert(pages.first().get(), pages.last().get(), vma);
    }
}
