//! Slots of the swap device under their locks.
//!
//! Follows mm/swapfile.c of 2.6.27 (host-mm-paths A.5, B.12, E). Every look at a slot's count takes
//! `swap_lock`, a spinlock that may be taken under a pte lock (rank 60). Whoever takes a page out of the swap
//! cache holds PG_locked, and the tree_lock of `swapper_space` for that moment (rank 65); the cache's use
//! of the slot and its reference to the page are given up right afterwards. A page under writeback is never
//! taken out this way, and by `remove_exclusive_swap_page` only one that nobody but the caller and the cache
//! refers to, which is checked again under both locks.
//!
//! `mmlist`: an address space that gets its first swap entry is put on a list under `mmlist_lock` (rank 62),
//! for swapoff to look through, and taken off when it ends.
//!
//! Deviations: one device, without priorities; swapoff is not modelled, nor are counts that overflow
//! (SWAP_MAP_MAX).

use sim::{Cx, Guard};
use x86::Pfn;

use crate::account::BOOKKEEPING;
use crate::frame::{Frames, PageFlags};
use crate::kernel::{Kernel, State};
use crate::mm::{MmId, OnMmlist};
use crate::profile::work;
use crate::swap::{SlotFate, Swap};
use crate::swapops::SwapSlot;

/// References to a page that nobody uses but the caller and the cache it is in.
pub(crate) const CALLER_AND_CACHE: u32 = 2;

/// Whether a page left the swap cache.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum LeftCache {
    /// It did.
    Yes,
    /// Somebody else may need it there, or it was not in it.
    No,
}

/// Whether a page has one user only.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Shared {
    /// Other entries map it or name its slot.
    Yes,
    /// It may be written in place.
    No,
}

impl Kernel {
    /// Says how many pages the swap device has; none until then (`swapon`).
    pub fn set_swap(&self, pages: u32) {
        self.st().swap = Swap::of_pages(pages);
    }

    /// Takes `swap_lock`.
    async fn lock_swap<'a>(&self, cx: &'a Cx) -> Guard<'a> {
        match cx.lock_now(self.locks.swap_lock) {
            Some(guard) => guard,
            None => cx.lock(self.locks.swap_lock).await,
        }
    }

    /// `get_swap_page`: a slot with one use, if there is one.
    pub(crate) async fn get_swap_page(&self, cx: &Cx) -> Option<SwapSlot> {
        let _lock = self.lock_swap(cx).await;
        self.touch_lines(cx, work::SCAN_SWAP_MAP);
        let mut st = self.st();
        let slot = st.swap.take_slot();
        let used = st.swap.in_use();
        st.metrics.swap_slots_max = st.metrics.swap_slots_max.max(used);
        slot
    }

    /// `swap_duplicate`: one entry more names the slot, unless it is free by now.
    pub(crate) async fn swap_duplicate(&self, cx: &Cx, slot: SwapSlot) -> Option<SwapSlot> {
        let _lock = self.lock_swap(cx).await;
        self.touch_lines(cx, work::SWAP_MAP);
        let mut st = self.st();
        if st.swap.count(slot) == 0 {
            return None;
        }
        st.swap.duplicate(slot);
        Some(slot)
    }

    /// `swap_free`: one use less.
    pub(crate) async fn swap_free(&self, cx: &Cx, slot: SwapSlot) -> SlotFate {
        let _lock = self.lock_swap(cx).await;
        self.touch_lines(cx, work::SWAP_MAP);
        self.st().swap.release(slot)
    }

    /// `free_swap_and_cache`: an entry is gone; the page, too, if it is in the cache for nobody else.
    pub(crate) async fn free_swap_and_cache(&self, cx: &Cx, slot: SwapSlot) {
        let mut unlockable = None;
        let locked = {
            let _lock = self.lock_swap(cx).await;
            self.touch_lines(cx, work::SWAP_MAP);
            let cached = {
                let only_cached = {
                    let mut st = self.st();
                    let _ = st.swap.release(slot);
                    st.swap.count(slot) == 1
                };
                if only_cached {
                    self.lookup_swap_cache(cx, slot).await
                } else {
                    None
                }
            };
            match cached {
                None => None,
                Some(pfn) => match self.trylock_page(cx, pfn).await {
                    Some(lock) => Some((pfn, lock)),
                    None => {
                        unlockable = Some(pfn);
                        None
                    }
                },
            }
        };
        if let Some(pfn) = unlockable {
            self.put_page(cx, pfn).await;
        }
        let Some((pfn, lock)) = locked else { return };
        let (flags, count) = {
            let frames = self.frames.borrow();
            (frames.get(pfn).flags, frames.get(pfn).count)
        };
        let droppable = flags.has(PageFlags::SWAPCACHE) && !flags.has(PageFlags::WRITEBACK);
        if droppable && (count == CALLER_AND_CACHE || self.st().swap.is_full()) {
            self.delete_from_swap_cache(cx, pfn).await;
        }
        drop(lock);
        self.put_page(cx, pfn).await;
    }

    /// `delete_from_swap_cache`, and the page is dirty: nothing else has its contents. It is locked.
    async fn delete_from_swap_cache(&self, cx: &Cx, pfn: Pfn) {
        let slot = {
            let _irqs = cx.irq_disable();
            let _tree = cx.lock(self.locks.swapper_tree_lock).await;
            cx.charge(BOOKKEEPING, self.machine.costs.cacheline_touch * work::SWAP_CACHE);
            uncache(&mut self.st(), &mut self.frames(), pfn)
        };
        let _ = self.swap_free(cx, slot).await;
        self.frames().get_mut(pfn).flags.set(PageFlags::DIRTY);
        self.put_page(cx, pfn).await;
    }

    /// `remove_exclusive_swap_page`: takes the page out of the cache if nobody but the caller refers to it
    /// and no entry names its slot. It is locked.
    pub(crate) async fn remove_exclusive_swap_page(&self, cx: &Cx, pfn: Pfn) -> LeftCache {
        if !self.only_in_swap_cache(pfn) {
            return LeftCache::No;
        }
        let slot = {
            let _lock = self.lock_swap(cx).await;
            self.touch_lines(cx, work::SWAP_MAP);
            let only_cached = {
                let st = self.st();
                let slot = st.swap.slot_of(pfn).expect("a page in the cache has a slot");
                st.swap.count(slot) == 1
            };
            if !only_cached {
                return LeftCache::No;
            }
            let _irqs = cx.irq_disable();
            let _tree = cx.lock(self.locks.swapper_tree_lock).await;
            if !self.only_in_swap_cache(pfn) {
                return LeftCache::No;
            }
            cx.charge(BOOKKEEPING, self.machine.costs.cacheline_touch * work::SWAP_CACHE);
            let slot = uncache(&mut self.st(), &mut self.frames(), pfn);
            self.frames().get_mut(pfn).flags.set(PageFlags::DIRTY);
            slot
        };
        let _ = self.swap_free(cx, slot).await;
        self.put_page(cx, pfn).await;
        LeftCache::Yes
    }

    /// Whether a page is in the swap cache, not on its way to the device, and used by nobody but the
    /// caller.
    fn only_in_swap_cache(&self, pfn: Pfn) -> bool {
        let frames = self.frames.borrow();
        let frame = frames.get(pfn);
        let settled = frame.flags.has(PageFlags::SWAPCACHE) && !frame.flags.has(PageFlags::WRITEBACK);
        settled && frame.count == CALLER_AND_CACHE
    }

    /// `can_share_swap_page`: whether other entries map the page or name its slot. It is locked.
    pub(crate) async fn can_share_swap_page(&self, cx: &Cx, pfn: Pfn) -> Shared {
        let (mapped, in_cache) = {
            let frames = self.frames.borrow();
            let frame = frames.get(pfn);
            (frame.mapcount, frame.flags.has(PageFlags::SWAPCACHE))
        };
        let named = if mapped <= 1 && in_cache {
            let _lock = self.lock_swap(cx).await;
            self.touch_lines(cx, work::SWAP_MAP);
            let st = self.st();
            let slot = st.swap.slot_of(pfn).expect("a page in the cache has a slot");
            // Without the use of the cache itself.
            st.swap.count(slot) - 1
        } else {
            0
        };
        if mapped + named == 1 {
            Shared::No
        } else {
            Shared::Yes
        }
    }

    /// Puts an address space that gets a swap entry on the list of those that have some.
    pub(crate) async fn join_mmlist(&self, cx: &Cx, mm: MmId) {
        if self.st().mm(mm).on_mmlist == OnMmlist::No {
            let _lock = cx.lock(self.locks.mmlist_lock).await;
            self.touch_lines(cx, work::MMLIST);
            self.st().mm_mut(mm).on_mmlist = OnMmlist::Yes;
        }
    }

    /// Takes an address space that ends off that list (`mmput`).
    pub(crate) async fn leave_mmlist(&self, cx: &Cx, mm: MmId) {
        if self.st().mm(mm).on_mmlist == OnMmlist::Yes {
            let _lock = cx.lock(self.locks.mmlist_lock).await;
            self.touch_lines(cx, work::MMLIST);
            self.st().mm_mut(mm).on_mmlist = OnMmlist::No;
        }
    }
}

/// `__delete_from_swap_cache`: under tree_lock. The cache's use of the slot and its reference to the page
/// are left to the caller.
pub(crate) fn uncache(st: &mut State, frames: &mut Frames, pfn: Pfn) -> SwapSlot {
    frames.get_mut(pfn).flags.clear(PageFlags::SWAPCACHE);
    st.swap.uncache(pfn).expect("a page in the cache has a slot")
}
