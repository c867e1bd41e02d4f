//! `sys_munmap`, `do_munmap`.
//!
//! Follows mm/mmap.c of 2.6.27 (host-mm-paths B.2). mmap_sem is held for write from start to end,
//! flushes and frees included. VMAs are hidden from faults first (detached), but stay on the reverse
//! maps until free_pgtables, so that truncate and reclaim still find them. A mapping that is cut is
//! split first, which fails when the address space has as many mappings as it may have, or inside a huge
//! page; then nothing is unmapped, but a split at the other end stays.

use sim::Cx;
use x86::{Va, VaRange};

use crate::account::ENTRY;
use crate::gather::{FlushPoint, Gather};
use crate::kernel::Kernel;
use crate::mm::MmId;
use crate::notifier::{Bracket, Path, Point};
use crate::paths::vma_adjust::NewHalf;
use crate::paths::{MapError, ZapDetails};
use crate::profile::work;
use crate::vma::VmaId;

impl Kernel {
    /// munmap(2).
    ///
    /// # Errors
    /// [`MapError::TooManyMappings`] if a mapping would have to be split and there are as many as there
    /// may be, [`MapError::CutsHugePage`] if one of huge pages would be split inside a page.
    pub async fn sys_munmap(&self, cx: &Cx, mm: MmId, range: VaRange) -> Result<(), MapError> {
        let _span = cx.span("sys_munmap");
        cx.charge(ENTRY, self.machine.costs.syscall_entry_exit);
        let _sem = cx.lock(self.mmap_sem(mm)).await;
        self.do_munmap(cx, mm, range).await
    }

    /// `do_munmap`; the caller holds mmap_sem for write.
    ///
    /// # Errors
    /// As [`Kernel::sys_munmap`].
    pub(crate) async fn do_munmap(&self, cx: &Cx, mm: MmId, range: VaRange) -> Result<(), MapError> {
        let _span = cx.span("do_munmap");
        self.touch_lines(cx, work::FIND_VMA);
        if self.st().mm(mm).vmas.overlapping(range).next().is_none() {
            return Ok(());
        }
        if let Some(first) = self.spanning(mm, range.start()) {
            self.split_vma(cx, mm, first, range.start(), NewHalf::Above)
                .await?;
        }
        if let Some(last) = self.spanning(mm, range.end()) {
            self.split_vma(cx, mm, last, range.end(), NewHalf::Below).await?;
        }
        let vmas = self.detach_vmas(cx, mm, range);
        self.unmap_region(cx, mm, &vmas, range).await;
        self.remove_vma_list(cx, mm, &vmas);
        Ok(())
    }

    /// The VMA with pages on both sides of an address.
    fn spanning(&self, mm: MmId, at: Va) -> Option<VmaId> {
        let mut st = self.st();
        let vma = st.mm_mut(mm).vmas.find(at)?;
        (st.vma(vma).range.start() < at).then_some(vma)
    }

    /// `remove_vma_list`.
    fn remove_vma_list(&self, cx: &Cx, mm: MmId, vmas: &[VmaId]) {
        self.touch_lines(cx, work::UNLINK_VMA * vmas.len() as u64);
        self.hugetlb_vm_close(vmas);
        let mut st = self.st();
        for vma in vmas {
            let v = st.vma(*vma);
            if v.flags.is_locked() {
                let pages = v.range.pages();
                st.mm_mut(mm).locked_vm -= pages;
            }
        }
    }

    /// `detach_vmas_to_be_unmapped`.
    fn detach_vmas(&self, cx: &Cx, mm: MmId, range: VaRange) -> Vec<VmaId> {
        let mut st = self.st();
        let vmas: Vec<VmaId> = st.mm(mm).vmas.overlapping(range).collect();
        for vma in &vmas {
            let start = st.vma(*vma).range.start();
            st.mm_mut(mm).vmas.remove(start);
            self.touch_lines(cx, work::FIND_VMA);
        }
        vmas
    }

    /// `unmap_region`.
    async fn unmap_region(&self, cx: &Cx, mm: MmId, vmas: &[VmaId], range: VaRange) {
        let _span = cx.span("unmap_region");
        self.lru_add_drain(cx).await;
        let parts: Vec<(VmaId, VaRange)> = vmas.iter().map(|v| (*v, self.st().vma(*v).range)).collect();
        let (floor, ceiling) = {
            let st = self.st();
            (
                st.mm(mm).vmas.end_before(range.start()),
                st.mm(mm).vmas.start_after(range.end()),
            )
        };
        let mut bracket = Bracket::of(mm, Path::Munmap, range);
        self.open_at(cx, &mut bracket, Point::OpenOutside).await;
        let gather = Gather::new(self, cx, mm);
        self.open_at(cx, &mut bracket, Point::Open).await;
        let zapped = self
            .unmap_vmas(cx, gather, mm, &parts, range, ZapDetails::default())
            .await;
        let mut gather = zapped.gather.expect("only truncation is broken off");
        self.free_pgtables(cx, &mut gather, mm, vmas, floor, ceiling)
            .await;
        gather.finish(FlushPoint::Final).await;
        self.close_at(cx, &bracket, Point::CloseOutside).await;
    }
}
