//! `shrink_active_list`, `shrink_inactive_list`: batches of pages from the ends of the LRU lists.
//!
//! Follows mm/vmscan.c of 2.6.27 (host-mm-paths B.12). Under `zone->lru_lock`, with interrupts off, a batch is
//! taken off a list, each page with a reference; so no scan meets another's pages, and none of them is
//! freed. Then, without the lock:
//!
//! - of the active list, pages that are mapped stay active if mapped pages are spared, if they are
//!   anonymous and there is no swap device, or if they were used (`page_referenced`, for which PG_locked of
//!   a page of a file is only tried); the others become inactive, unmapped ones without being asked, and one
//!   whose age could not be asked for, too;
//! - of the inactive list, each is tried to be freed (shrink_page_list.rs).
//!
//! What is left goes back under lru_lock; its references gather in a pagevec, and after 14 pages the lock is
//! dropped to give them up (`__pagevec_release`, which drains this CPU's pagevecs first). One pagevec serves
//! a whole call, so a partly filled one is carried over to the next batch, or from the pages that become
//! inactive to those that stay active, and released at the end; and the hold that puts a batch back takes
//! the next one. The pagevecs of this CPU are drained before the first batch is taken; pages in those of other
//! CPUs are not found.

use sim::{Cx, Guard, IrqGuard};
use x86::Pfn;

use super::vmscan::{ReclaimMapped, ScanControl};
use crate::account::BOOKKEEPING;
use crate::frame::{LruList, PageFlags};
use crate::kernel::Kernel;
use crate::profile::{PAGEVEC_SIZE, work};
use crate::rmap::{Age, PageLocked};

/// A batch of isolated pages.
struct Isolated {
    /// The pages, from the end of the list.
    pages: Vec<Pfn>,
    /// How many were looked at.
    scanned: u64,
}

/// lru_lock, held with interrupts off.
struct LruHeld<'a> {
    _lock: Guard<'a>,
    _irqs: IrqGuard<'a>,
}

impl Kernel {
    /// `shrink_active_list`: moves up to `pages` of the active list to the inactive one.
    pub(super) async fn shrink_active_list(&self, cx: &Cx, pages: u64, mapped: ReclaimMapped) {
        let _span = cx.span("shrink_active_list");
        self.lru_add_drain(cx).await;
        let held = self.lock_lru(cx).await;
        let isolated = self.isolate_lru_pages(cx, LruList::Active, pages);
        drop(held);
        let (mut stay, mut go) = (Vec::new(), Vec::new());
        for pfn in isolated.pages {
            cx.cond_resched().await;
            if self.stays_active(cx, pfn, mapped).await {
                stay.push(pfn);
            } else {
                go.push(pfn);
            }
        }
        self.st().metrics.lru_deactivated += go.len() as u64;
        let mut pagevec = Vec::with_capacity(PAGEVEC_SIZE);
        let held = self.lock_lru(cx).await;
        let held = self
            .pages_back(cx, held, &go, LruList::Inactive, &mut pagevec)
            .await;
        let held = self
            .pages_back(cx, held, &stay, LruList::Active, &mut pagevec)
            .await;
        drop(held);
        self.pagevec_release(cx, &pagevec).await;
    }

    async fn stays_active(&self, cx: &Cx, pfn: Pfn, mapped: ReclaimMapped) -> bool {
        let (is_mapped, anon) = {
            let frames = self.frames.borrow();
            (frames.get(pfn).mapcount > 0, frames.get(pfn).is_anon())
        };
        if !is_mapped {
            return false;
        }
        let no_swap = self.st().swap.total() == 0;
        if mapped == ReclaimMapped::No || (no_swap && anon) {
            return true;
        }
        match self.page_referenced(cx, pfn, PageLocked::No).await {
            Age::Referenced(mappings) => mappings > 0,
            Age::Contended => false,
        }
    }

    /// `shrink_inactive_list`: looks at up to `pages` of the inactive list, a batch at a time. Returns how
    /// many were freed.
    pub(super) async fn shrink_inactive_list(&self, cx: &Cx, pages: u64, sc: &mut ScanControl) -> u64 {
        let _span = cx.span("shrink_inactive_list");
        self.lru_add_drain(cx).await;
        let (mut scanned, mut reclaimed) = (0, 0);
        let mut pagevec = Vec::with_capacity(PAGEVEC_SIZE);
        let mut held = self.lock_lru(cx).await;
        loop {
            let batch = self.isolate_lru_pages(cx, LruList::Inactive, sc.batch);
            drop(held);
            scanned += batch.scanned;
            if batch.pages.is_empty() {
                break;
            }
            let taken = batch.pages.len() as u64;
            let kept = self.shrink_page_list(cx, batch.pages, sc).await;
            reclaimed += taken - kept.len() as u64;
            held = self.lock_lru(cx).await;
            for pfn in kept {
                let list = self.list_of(pfn);
                held = self.pages_back(cx, held, &[pfn], list, &mut pagevec).await;
            }
            if scanned >= pages {
                drop(held);
                break;
            }
        }
        self.pagevec_release(cx, &pagevec).await;
        reclaimed
    }

    /// Takes `zone->lru_lock` with interrupts off.
    async fn lock_lru<'a>(&self, cx: &'a Cx) -> LruHeld<'a> {
        let irqs = cx.irq_disable();
        LruHeld {
            _lock: cx.lock(self.locks.lru_lock).await,
            _irqs: irqs,
        }
    }

    /// `isolate_lru_pages`; lru_lock is held.
    fn isolate_lru_pages(&self, cx: &Cx, list: LruList, most: u64) -> Isolated {
        let _span = cx.span("isolate_lru_pages");
        let mut frames = self.frames();
        let scanned = most.min(frames.lru_len(self.zone, list));
        let pages = (0..scanned)
            .filter_map(|_| frames.lru_isolate(self.zone, list))
            .collect();
        frames.add_scanned(self.zone, scanned);
        cx.charge(
            BOOKKEEPING,
            self.machine.costs.cacheline_touch * (scanned * work::LRU),
        );
        Isolated { pages, scanned }
    }

    /// The list that PG_active names.
    fn list_of(&self, pfn: Pfn) -> LruList {
        if self.frames.borrow().get(pfn).flags.has(PageFlags::ACTIVE) {
            LruList::Active
        } else {
            LruList::Inactive
        }
    }

    /// Isolated pages go back to a list. Their references go into a pagevec; a full one is released without
    /// the lock.
    async fn pages_back<'a>(
        &self,
        cx: &'a Cx,
        held: LruHeld<'a>,
        pages: &[Pfn],
        list: LruList,
        pagevec: &mut Vec<Pfn>,
    ) -> LruHeld<'a> {
        let mut held = held;
        for &pfn in pages {
            cx.charge(BOOKKEEPING, self.machine.costs.cacheline_touch * work::LRU);
            self.frames().lru_add(pfn, list);
            pagevec.push(pfn);
            if pagevec.len() == PAGEVEC_SIZE {
                drop(held);
                self.pagevec_release(cx, pagevec).await;
                pagevec.clear();
                held = self.lock_lru(cx).await;
            }
        }
        held
    }
}
