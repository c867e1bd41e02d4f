//! Pages that were written because reclaim wants them go to the end of the inactive list, where it takes
//! them next.
//!
//! Follows `rotate_reclaimable_page` and `pagevec_move_tail` of mm/swap.c, 2.6.27. The interrupt that ends the
//! writeback puts the page, with a reference, into a pagevec of its CPU (`lru_rotate_pvecs`); a full one
//! is emptied at once, in the interrupt, under lru_lock, and any other when somebody drains the CPU's
//! pagevecs. Only pages that are on the inactive list by then are moved.
//!
//! Deviation: where the reference of the pagevec was the last one, the interrupt takes the page off its list right
//! after its hold of lru_lock, as part of it; `release_pages` would take the lock again. One acquisition of
//! lru_lock is missing for each full pagevec in which a page died meanwhile. No list can be seen half changed:
//! nothing else happens between the two.

use sim::{CpuId, Cx, Cycles};
use x86::Pfn;

use crate::frame::{LastReference, PageFlags};
use crate::kernel::Kernel;
use crate::page::FreeOrder;
use crate::profile::{PAGEVEC_SIZE, work};

impl Kernel {
    /// `rotate_reclaimable_page`, in an interrupt on `cpu`. Returns what it cost.
    pub(crate) fn rotate_reclaimable_page(&self, cpu: CpuId, pfn: Pfn) -> Cycles {
        let flags = self.frames.borrow().get(pfn).flags;
        let busy = flags.has(PageFlags::DIRTY) || flags.has(PageFlags::ACTIVE) || self.page_is_locked(pfn);
        if busy || !flags.has(PageFlags::LRU) {
            return Cycles::ZERO;
        }
        self.frames().get_page(pfn);
        let waiting = {
            let mut st = self.st();
            let pages = st.cpus[self.local(cpu)].pagevecs.rotate_mut();
            pages.push(pfn);
            pages.len()
        };
        if waiting < PAGEVEC_SIZE {
            return self.machine.costs.cacheline_touch * work::LRU;
        }
        self.move_tail_in_interrupt(cpu, waiting)
    }

    /// `pagevec_move_tail` of a full pagevec.
    fn move_tail_in_interrupt(&self, cpu: CpuId, waiting: usize) -> Cycles {
        let now = self.engine.now();
        let work = self.machine.costs.cacheline_touch * (waiting as u64 * work::LRU);
        let Some(end) = self.engine.hold_in_interrupt(self.locks.lru_lock, cpu, now, work) else {
            return Cycles::ZERO;
        };
        let pages = std::mem::take(self.st().cpus[self.local(cpu)].pagevecs.rotate_mut());
        self.move_to_tail(&pages);
        let mut spent = end - now;
        for pfn in pages {
            spent += self.release_in_interrupt(cpu, pfn);
        }
        spent
    }

    /// Moves pages; lru_lock is held.
    fn move_to_tail(&self, pages: &[Pfn]) {
        let mut frames = self.frames();
        let mut moved = 0;
        for &pfn in pages {
            let flags = frames.get(pfn).flags;
            if flags.has(PageFlags::LRU) && !flags.has(PageFlags::ACTIVE) {
                frames.lru_move_to_tail(pfn);
                moved += 1;
            }
        }
        drop(frames);
        self.st().metrics.lru_rotated += moved;
    }

    /// `release_pages` for one page, in an interrupt, right after lru_lock was held.
    fn release_in_interrupt(&self, cpu: CpuId, pfn: Pfn) -> Cycles {
        {
            let mut frames = self.frames();
            if frames.put_testzero(pfn) == LastReference::No {
                return Cycles::ZERO;
            }
            if frames.get(pfn).flags.has(PageFlags::LRU) {
                let _ = frames.lru_del(pfn);
            }
        }
        self.return_frame(cpu, pfn, FreeOrder::Flushed);
        self.machine.costs.page_free
    }

    /// The part of `drain_cpu_pagevecs` for pages that are to be rotated.
    pub(crate) async fn drain_rotated(&self, cx: &Cx, cpu: usize) {
        let pages = std::mem::take(self.st().cpus[cpu].pagevecs.rotate_mut());
        if pages.is_empty() {
            return;
        }
        {
            let _irqs = cx.irq_disable();
            let _lock = cx.lock(self.locks.lru_lock).await;
            self.touch_lines(cx, pages.len() as u64 * work::LRU);
            self.move_to_tail(&pages);
        }
        for chunk in pages.chunks(PAGEVEC_SIZE) {
            self.release_pages(cx, chunk).await;
        }
    }
}
