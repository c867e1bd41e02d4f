//! `shrink_active_list`, `shrink_inactive_list`: batches of pages from the ends of the LRU lists.
//!
//! Follows mm/vmscan.c of 2.6.27 (host-mm-paths B.12). Under `zone->lru_lock`, with interrupts off, a batch is
//! taken off a list, each page with a reference; so no scan meets another's pages, and none of them is
//! freed. Then, without the lock:
//!
//! - of the active list, pages that are mapped stay active if mapped pages are spared, if they are
//!   anonymous and there is no swap device, or if they were used (`page_referenced`, for which PG_locked of
//!   a page of a file is only tried); the others become inactive, unmapped ones without being asked;
//! - of the inactive list, each is tried to be freed (shrink_page_list.rs).
//!
//! What is left goes back under lru_lock, pagevec by pagevec: after 14 pages the lock is dropped and
//! their references are given up. The pagevecs of this CPU are drained before a batch is taken; pages in
//! those of other CPUs are not found.

use sim::Cx;
use x86::Pfn;

use super::vmscan::{ReclaimMapped, ScanControl};
use crate::account::BOOKKEEPING;
use crate::frame::{LruList, PageFlags};
use crate::kernel::Kernel;
use crate::profile::{PAGEVEC_SIZE, work};
use crate::rmap::PageLocked;

/// A batch of isolated pages.
struct Isolated {
    /// The pages, from the end of the list.
    pages: Vec<Pfn>,
    /// How many were looked at.
    scanned: u64,
}

impl Kernel {
    /// `shrink_active_list`: moves up to `pages` of the active list to the inactive one.
    pub(super) async fn shrink_active_list(&self, cx: &Cx, pages: u64, mapped: ReclaimMapped) {
        let _span = cx.span("shrink_active_list");
        self.lru_add_drain(cx).await;
        let isolated = self.isolate_lru_pages(cx, LruList::Active, pages).await;
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
        self.frames_become_inactive(&go);
        self.putback_lru_pages(cx, &go).await;
        self.putback_lru_pages(cx, &stay).await;
    }

    fn frames_become_inactive(&self, pages: &[Pfn]) {
        let mut frames = self.frames();
        for pfn in pages {
            frames.get_mut(*pfn).flags.clear(PageFlags::ACTIVE);
        }
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
        mapped == ReclaimMapped::No
            || (no_swap && anon)
            || self.page_referenced(cx, pfn, PageLocked::No).await > 0
    }

    /// `shrink_inactive_list`: looks at up to `pages` of the inactive list, a batch at a time. Returns how
    /// many were freed.
    pub(super) async fn shrink_inactive_list(&self, cx: &Cx, pages: u64, sc: &mut ScanControl) -> u64 {
        let _span = cx.span("shrink_inactive_list");
        self.lru_add_drain(cx).await;
        let (mut scanned, mut reclaimed) = (0, 0);
        while scanned < pages {
            let batch = self.isolate_lru_pages(cx, LruList::Inactive, sc.batch).await;
            scanned += batch.scanned;
            if batch.pages.is_empty() {
                break;
            }
            let taken = batch.pages.len() as u64;
            let kept = self.shrink_page_list(cx, batch.pages, sc).await;
            reclaimed += taken - kept.len() as u64;
            self.putback_lru_pages(cx, &kept).await;
        }
        reclaimed
    }

    /// `isolate_lru_pages`.
    async fn isolate_lru_pages(&self, cx: &Cx, list: LruList, most: u64) -> Isolated {
        let _span = cx.span("isolate_lru_pages");
        let _irqs = cx.irq_disable();
        let _lock = cx.lock(self.locks.lru_lock).await;
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

    /// Isolated pages go back to the list that PG_active names, and their references are given up.
    pub(super) async fn putback_lru_pages(&self, cx: &Cx, pages: &[Pfn]) {
        for chunk in pages.chunks(PAGEVEC_SIZE) {
            {
                let _irqs = cx.irq_disable();
                let _lock = cx.lock(self.locks.lru_lock).await;
                let work = self.machine.costs.cacheline_touch * (chunk.len() as u64 * work::LRU);
                cx.charge(BOOKKEEPING, work);
                let mut frames = self.frames();
                for &pfn in chunk {
                    let list = if frames.get(pfn).flags.has(PageFlags::ACTIVE) {
                        LruList::Active
                    } else {
                        LruList::Inactive
                    };
                    frames.lru_add(pfn, list);
                }
            }
            self.release_pages(cx, chunk).await;
        }
    }
}
