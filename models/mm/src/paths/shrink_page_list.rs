//! `shrink_page_list`, `pageout`, `__remove_mapping`: freeing one page of the inactive list.
//!
//! Follows mm/vmscan.c of 2.6.27 (host-mm-paths B.12, F14). Each page was isolated, so one reference is the
//! caller's. In this order, with a look for whoever wants the CPU before each page:
//!
//! 1. PG_locked is tried; who holds it keeps the page. One on its way to a device is kept.
//! 2. `page_referenced`: used since it was last asked, and mapped (or in the swap cache, or of a file that is
//!    mapped by somebody): back to the active list. If it cannot be told now (a lock that sleeps is held), the page
//!    is kept.
//! 3. An anonymous page without a slot of the swap device gets one and enters the swap cache; without a free slot
//!    it is active again.
//! 4. `try_to_unmap`: a young or locked mapping makes it active, one that cannot be reached keeps it.
//! 5. A dirty page that was used is kept; else its write begins, unless somebody else refers to it, and it is
//!    kept: when the write is done it goes to the end of the list, and is freed by the next scan.
//! 6. Under tree_lock, with interrupts off: if exactly two references are left, the caller's and the cache's,
//!    and it is clean, it leaves the cache; nobody can find it any more.
//!
//! Pages that are free return to the allocator in pagevecs of 14, without a lock.
//!
//! A pinned page loses its entries in step 4 like any other, and then stays in its cache: in step 5 if it is
//! dirty, in step 6 if not. It is counted (`pages.reclaim.pinned`), and scanned again with the rest of
//! its list, for ever (notifier-variants 10.18).
//!
//! A page of a file that leaves its cache must be read from the disk when it is next needed; pages of tmpfs are
//! clean only as long as they are zeros.
//!
//! Deviations: dirty pages of tmpfs become active, as `shmem_writepage` does without a free slot, for they are
//! never moved to the swap device; buffers are not modelled; only one page is freed for a caller
//! that may not enter file systems, which nobody here is. A write never fails.

use sim::{Cx, Guard};
use x86::Pfn;

use super::vmscan::ScanControl;
use super::writeback::WasDirty;
use crate::account::BOOKKEEPING;
use crate::disk::Device;
use crate::file::FileKind;
use crate::frame::{Owner, PageFlags};
use crate::kernel::Kernel;
use crate::page::FreeOrder;
use crate::profile::{PAGEVEC_SIZE, work};
use crate::rmap::{Age, PageLocked, UnmapFor, Unmapped};
use crate::swap_state::GotSlot;
use crate::swapfile::{CALLER_AND_CACHE, uncache};

/// What becomes of a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    /// It is out of every cache, unlocked, and has no reference.
    Free,
    /// It stays where it was.
    Keep,
    /// It is active from now on.
    Activate,
}

/// `pageout_t`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Pageout {
    /// Somebody else refers to it.
    Keep,
    /// It cannot be written.
    Activate,
    /// Its write has begun, or was not needed.
    Success,
}

/// Whether a page was used (`referenced`).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Referenced {
    No,
    Yes,
}

impl Kernel {
    /// `shrink_page_list`: returns the pages that were not freed, in order.
    pub(super) async fn shrink_page_list(&self, cx: &Cx, pages: Vec<Pfn>, sc: &mut ScanControl) -> Vec<Pfn> {
        let _span = cx.span("shrink_page_list");
        let mut kept = Vec::new();
        let mut freed = Vec::with_capacity(PAGEVEC_SIZE);
        for pfn in pages {
            cx.cond_resched().await;
            match self.shrink_page(cx, pfn, sc).await {
                Fate::Free => {
                    freed.push(pfn);
                    if freed.len() == PAGEVEC_SIZE {
                        self.pagevec_free(cx, &mut freed);
                    }
                    continue;
                }
                Fate::Activate => {
                    self.frames().get_mut(pfn).flags.set(PageFlags::ACTIVE);
                    self.st().metrics.lru_activated += 1;
                }
                Fate::Keep => {}
            }
            kept.push(pfn);
        }
        self.pagevec_free(cx, &mut freed);
        kept
    }

    /// `__pagevec_free`.
    fn pagevec_free(&self, cx: &Cx, pages: &mut Vec<Pfn>) {
        self.st().metrics.reclaim_freed += pages.len() as u64;
        for pfn in pages.drain(..) {
            self.free_page(cx, pfn, FreeOrder::Flushed);
        }
    }

    async fn shrink_page(&self, cx: &Cx, pfn: Pfn, sc: &mut ScanControl) -> Fate {
        let Some(locked) = self.trylock_page(cx, pfn).await else {
            return Fate::Keep;
        };
        self.st().metrics.reclaim_scanned += 1;
        let (flags, mapped) = {
            let frames = self.frames.borrow();
            (frames.get(pfn).flags, frames.get(pfn).mapcount > 0)
        };
        sc.scanned += 1 + u64::from(mapped || flags.has(PageFlags::SWAPCACHE));
        if flags.has(PageFlags::WRITEBACK) {
            return Fate::Keep;
        }
        let referenced = match self.page_referenced(cx, pfn, PageLocked::Yes).await {
            Age::Referenced(0) => Referenced::No,
            Age::Referenced(_) => Referenced::Yes,
            Age::Contended => {
                sc.contended += 1;
                return Fate::Keep;
            }
        };
        if referenced == Referenced::Yes && self.page_mapping_inuse(pfn) {
            return Fate::Activate;
        }
        let homeless = {
            let frames = self.frames.borrow();
            frames.get(pfn).is_anon() && !frames.get(pfn).flags.has(PageFlags::SWAPCACHE)
        };
        if homeless && self.add_to_swap(cx, pfn).await == GotSlot::No {
            return Fate::Activate;
        }
        let mapped = self.frames.borrow().get(pfn).mapcount > 0;
        if mapped {
            match self.try_to_unmap(cx, pfn, UnmapFor::Reclaim).await {
                Unmapped::Wanted => return Fate::Activate,
                Unmapped::NotAll => return Fate::Keep,
                Unmapped::All => {}
            }
        }
        self.free_unmapped(cx, pfn, referenced, locked).await
    }

    /// The steps for a page that no entry maps. It is locked.
    async fn free_unmapped(&self, cx: &Cx, pfn: Pfn, referenced: Referenced, locked: Guard<'_>) -> Fate {
        let dirty = |k: &Kernel| k.frames.borrow().get(pfn).flags.has(PageFlags::DIRTY);
        let mut locked = locked;
        if dirty(self) {
            if referenced == Referenced::Yes {
                return Fate::Keep;
            }
            match self.pageout(cx, pfn, locked).await {
                Pageout::Keep => return Fate::Keep,
                Pageout::Activate => return Fate::Activate,
                Pageout::Success => {}
            }
            let busy = |k: &Kernel| dirty(k) || k.page_writeback(pfn);
            if busy(self) {
                return Fate::Keep;
            }
            match self.trylock_page(cx, pfn).await {
                Some(again) => locked = again,
                None => return Fate::Keep,
            }
            if busy(self) {
                return Fate::Keep;
            }
        }
        let fate = self.remove_mapping(cx, pfn).await;
        drop(locked);
        fate
    }

    /// `page_mapping_inuse`.
    fn page_mapping_inuse(&self, pfn: Pfn) -> bool {
        let frames = self.frames.borrow();
        let frame = frames.get(pfn);
        if frame.mapcount > 0 || frame.flags.has(PageFlags::SWAPCACHE) {
            return true;
        }
        match frame.owner() {
            Owner::File(file) => {
                let st = self.st();
                let file = st.file(file);
                file.is_mapped()
            }
            Owner::Anon(_) | Owner::None => false,
        }
    }

    /// `pageout`. The page is dirty and unmapped; it comes locked and goes unlocked.
    async fn pageout(&self, cx: &Cx, pfn: Pfn, locked: Guard<'_>) -> Pageout {
        let _span = cx.span("pageout");
        let (count, flags, owner) = {
            let frames = self.frames.borrow();
            let frame = frames.get(pfn);
            (frame.count, frame.flags, frame.owner())
        };
        if count != CALLER_AND_CACHE {
            self.st().metrics.reclaim_pinned += 1;
            return Pageout::Keep;
        }
        let in_cache = flags.has(PageFlags::SWAPCACHE) || flags.has(PageFlags::CACHED);
        if !in_cache {
            return Pageout::Keep;
        }
        if let Owner::File(file) = owner
            && self.st().file(file).kind != FileKind::Disk
        {
            return Pageout::Activate;
        }
        if self.clear_page_dirty_for_io(cx, pfn).await == WasDirty::No {
            return Pageout::Success;
        }
        self.frames().get_mut(pfn).flags.set(PageFlags::RECLAIM);
        match owner {
            Owner::File(_) => self.start_writeback(cx, pfn, Device::Files, locked).await,
            Owner::Anon(_) | Owner::None => self.swap_writepage(cx, pfn, locked).await,
        }
        if !self.page_writeback(pfn) {
            self.frames().get_mut(pfn).flags.clear(PageFlags::RECLAIM);
        }
        Pageout::Success
    }

    /// `__remove_mapping` and the end of the page: it is locked, clean and unmapped.
    async fn remove_mapping(&self, cx: &Cx, pfn: Pfn) -> Fate {
        let Some(tree_lock) = self.page_tree_lock(pfn) else {
            return Fate::Keep;
        };
        let slot = {
            let _irqs = cx.irq_disable();
            let _tree = cx.lock(tree_lock).await;
            if !self.freeze_refs(pfn) {
                return Fate::Keep;
            }
            let mut st = self.st();
            let mut frames = self.frames();
            let (flags, owner, index) = {
                let frame = frames.get(pfn);
                (frame.flags, frame.owner(), frame.index())
            };
            if flags.has(PageFlags::SWAPCACHE) {
                cx.charge(BOOKKEEPING, self.machine.costs.cacheline_touch * work::SWAP_CACHE);
                Some(uncache(&mut st, &mut frames, pfn))
            } else {
                let Owner::File(file) = owner else {
                    unreachable!("only pages of files and of the swap device have a tree")
                };
                let page = st.file(file).pages.get(index.get());
                self.check_uncached(cx, &page.expect("it has the cache's reference"), frames.get(pfn));
                let nodes = st.file_mut(file).reclaimed(index);
                self.touch_lines(cx, nodes * work::PAGE_CACHE_NODE);
                let frame = frames.get_mut(pfn);
                frame.set_owner(Owner::None);
                frame.flags.clear(PageFlags::CACHED);
                None
            }
        };
        if let Some(slot) = slot {
            let _ = self.swap_free(cx, slot).await;
        }
        Fate::Free
    }

    /// `page_freeze_refs`: takes the caller's and the cache's reference at once if they are the only ones,
    /// and the page is clean. tree_lock is held.
    fn freeze_refs(&self, pfn: Pfn) -> bool {
        let mut frames = self.frames();
        let frame = frames.get_mut(pfn);
        if frame.count != CALLER_AND_CACHE {
            drop(frames);
            self.st().metrics.reclaim_pinned += 1;
            return false;
        }
        if frame.flags.has(PageFlags::DIRTY) {
            return false;
        }
        frame.count = 0;
        true
    }
}
