//! `find_extend_vma`, `expand_stack`: mappings that grow downwards when the page below is accessed.
//!
//! Follows mm/mmap.c of 2.6.27. The caller holds mmap_sem, a fault only for read: no VMA can be added or
//! removed, and two faults that grow the same stack are kept apart by its anon_vma->lock, for which it
//! gets an anon_vma first. Growing moves the start and the index together, so pages that are mapped
//! already keep theirs. A stack grows until it meets the mapping below or its limit; get_user_pages
//! makes the new pages of a locked stack present, a fault only the one it was about.
//!
//! Deviations: the accesses of this model have no stack pointer, so the check that an access lies at
//! most 64 KiB below it is left out; only anonymous memory grows (the kernel forgets the i_mmap tree of
//! a file mapping that does); a stack whose index would become negative does not grow. The
//! start changes in the ordered map, where 2.6.27 relies on the tree's order staying the same.

use sim::Cx;
use x86::{PAGE_SIZE, Pgoff, Va, VaRange};

use crate::kernel::Kernel;
use crate::mm::MmId;
use crate::profile::work;
use crate::vma::{Backing, Growth, VmaId};

/// `_STK_LIM`, include/linux/resource.h 2.6.27: RLIMIT_STACK of a process that set no other, in pages.
const STACK_LIMIT_PAGES: u64 = 8 * 1024 * 1024 / PAGE_SIZE;

/// What is to happen to the pages that a locked stack grows by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Grown {
    /// They are made present (find_extend_vma).
    Present,
    /// They are left to their faults (do_page_fault).
    Untouched,
}

impl Kernel {
    /// The mapping of an address, or the one above it grown down to it.
    pub(crate) async fn find_extend_vma(&self, cx: &Cx, mm: MmId, va: Va, grown: Grown) -> Option<VmaId> {
        self.touch_lines(cx, work::FIND_VMA);
        let (vma, start) = {
            let mut st = self.st();
            if let Some(vma) = st.mm_mut(mm).vmas.find(va) {
                return Some(vma);
            }
            let above = st.mm(mm).vmas.find_or_next(va)?;
            let v = st.vma(above);
            if v.flags.growth != Growth::Down || v.backing != Backing::Anonymous {
                return None;
            }
            (above, v.range.start())
        };
        self.expand_downwards(cx, mm, vma, va.page_floor()).await?;
        let locked = self.st().vma(vma).flags.is_locked();
        if let (true, Grown::Present, Some(new)) = (locked, grown, VaRange::new(va.page_floor(), start)) {
            // get_user_pages calls itself through here, hence the box.
            let _ignored = Box::pin(self.make_pages_present(cx, mm, new)).await;
        }
        Some(vma)
    }

    /// `expand_downwards`; none if the stack may not grow that far.
    async fn expand_downwards(&self, cx: &Cx, mm: MmId, vma: VmaId, to: Va) -> Option<()> {
        let _span = cx.span("expand_stack");
        let anon = self.anon_vma_prepare(cx, mm, vma).await;
        let lock = self.st().anon_vma(anon).lock;
        let _anon = cx.lock(lock).await;
        let mut st = self.st();
        let v = st.vma(vma).clone();
        if to >= v.range.start() {
            // Somebody else was faster.
            return Some(());
        }
        let range = VaRange::new(to, v.range.end())?;
        if range.pages() > STACK_LIMIT_PAGES {
            return None;
        }
        let by = range.pages() - v.range.pages();
        let pgoff = Pgoff::new(v.pgoff.get().checked_sub(by)?);
        let changed = st.vma_mut(vma);
        (changed.range, changed.pgoff) = (range, pgoff);
        let space = st.mm_mut(mm);
        space.locked_vm += if v.flags.is_locked() { by } else { 0 };
        space.vmas.remove(v.range.start());
        space.vmas.insert(range, vma);
        Some(())
    }
}
