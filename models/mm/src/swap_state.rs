//! The swap cache: how pages get in, and from and to the device.
//!
//! Follows mm/swap_state.c, mm/page_io.c and mm/memory.c (`swapin_readahead`) of 2.6.27 (host-mm-paths A.5, A.6,
//! B.5, B.12). A page enters the cache locked, under the tree_lock of `swapper_space` with interrupts off, and
//! the cache has one reference to it and one use of its slot. Two ways in: reclaim gives an anonymous page a
//! slot (`add_to_swap`), and a fault finds its page only on the device (`read_swap_cache_async`). Who comes
//! second with a page for the same slot takes the other one's.
//!
//! A fault reads not only its own page but the whole aligned cluster of slots around it, as far as they are
//! in use without a gap; what was read lies on the active list, locked until it has arrived. A slot that is
//! alone there is read by itself, after the pagevecs were drained.
//!
//! Deviations: the cache's radix tree has no nodes that could be lacking; pages of the cache have no tags.

use sim::{Cx, Guard};
use x86::Pfn;

use crate::account::BOOKKEEPING;
use crate::disk::Device;
use crate::frame::{LruList, PageFlags};
use crate::kernel::Kernel;
use crate::profile::work;
use crate::swapfile::LeftCache;
use crate::swapops::SwapSlot;

/// `page_cluster` of a machine with at least [`SMALL_MEMORY_PAGES`], and of a smaller one:
/// `swap_setup`, mm/swap.c 2.6.27.
const PAGE_CLUSTER: u32 = 3;
const PAGE_CLUSTER_SMALL: u32 = 2;
/// 16 MB, in pages; same place.
const SMALL_MEMORY_PAGES: u64 = 16 << (20 - x86::PAGE_SHIFT);

/// Whether anonymous memory got a place on the swap device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum GotSlot {
    /// It did.
    Yes,
    /// There is none.
    No,
}

/// Whether a page entered the cache.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cached {
    Yes,
    /// Another page is there (-EEXIST).
    Taken,
}

impl Kernel {
    /// `add_to_swap`: a slot for an anonymous page, which is locked.
    pub(crate) async fn add_to_swap(&self, cx: &Cx, pfn: Pfn) -> GotSlot {
        let _span = cx.span("add_to_swap");
        loop {
            let Some(slot) = self.get_swap_page(cx).await else {
                return GotSlot::No;
            };
            if self.add_to_swap_cache(cx, pfn, slot).await == Cached::Yes {
                self.frames().get_mut(pfn).flags.set(PageFlags::DIRTY);
                return GotSlot::Yes;
            }
            // Readahead was faster: it saw the slot in use.
            let _ = self.swap_free(cx, slot).await;
        }
    }

    /// `add_to_swap_cache`: the page is locked; the slot's use is the cache's from now on.
    async fn add_to_swap_cache(&self, cx: &Cx, pfn: Pfn, slot: SwapSlot) -> Cached {
        let _irqs = cx.irq_disable();
        let _tree = cx.lock(self.locks.swapper_tree_lock).await;
        cx.charge(BOOKKEEPING, self.machine.costs.cacheline_touch * work::SWAP_CACHE);
        let mut st = self.st();
        if st.swap.lookup(slot).is_some() {
            return Cached::Taken;
        }
        st.swap.cache(slot, pfn);
        let mut frames = self.frames();
        frames.get_page(pfn);
        frames.get_mut(pfn).flags.set(PageFlags::SWAPCACHE);
        Cached::Yes
    }

    /// `lookup_swap_cache`, with a reference for the caller.
    pub(crate) async fn lookup_swap_cache(&self, cx: &Cx, slot: SwapSlot) -> Option<Pfn> {
        let _tree = self.tree_read(cx, self.locks.swapper_tree_lock).await;
        self.touch_lines(cx, work::SWAP_CACHE);
        let pfn = self.st().swap.lookup(slot)?;
        self.frames().get_page(pfn);
        Some(pfn)
    }

    /// `swapin_readahead`: the page of a slot, with a reference for the caller, on its way if it is not
    /// there; its neighbours, too. `None` if the slot is free by now or memory is used up.
    pub(crate) async fn swapin_readahead(&self, cx: &Cx, slot: SwapSlot) -> Option<Pfn> {
        let _span = cx.span("swapin_readahead");
        let cluster = {
            let _lock = cx.lock(self.locks.swap_lock).await;
            self.touch_lines(cx, work::SCAN_SWAP_MAP);
            let page_cluster = self.page_cluster();
            self.st().swap.cluster_around(slot, page_cluster)
        };
        for neighbour in cluster {
            let Some(pfn) = self.read_swap_cache_async(cx, neighbour).await else {
                break;
            };
            self.put_page(cx, pfn).await;
        }
        self.lru_add_drain(cx).await;
        self.read_swap_cache_async(cx, slot).await
    }

    fn page_cluster(&self) -> u32 {
        if self.frames.borrow().present_pages(self.zone) < SMALL_MEMORY_PAGES {
            PAGE_CLUSTER_SMALL
        } else {
            PAGE_CLUSTER
        }
    }

    /// `read_swap_cache_async`: the page of a slot, with a reference for the caller; if it is not in the
    /// cache its read begins.
    async fn read_swap_cache_async(&self, cx: &Cx, slot: SwapSlot) -> Option<Pfn> {
        let mut new = None;
        let found = loop {
            if let Some(cached) = self.lookup_swap_cache(cx, slot).await {
                break Some(cached);
            }
            let pfn = match new {
                Some(pfn) => pfn,
                None => match self.alloc_page_or_reclaim(cx).await {
                    Ok(pfn) => *new.insert(pfn),
                    Err(_) => break None,
                },
            };
            // It may have been freed since the caller saw it.
            if self.swap_duplicate(cx, slot).await.is_none() {
                break None;
            }
            let locked = self.lock_page(cx, pfn).await;
            if self.add_to_swap_cache(cx, pfn, slot).await == Cached::Yes {
                self.lru_cache_add(cx, pfn, LruList::Active).await;
                self.start_read(cx, pfn, Device::Swap).await;
                self.st().metrics.swap_in += 1;
                return Some(pfn);
            }
            drop(locked);
            let _ = self.swap_free(cx, slot).await;
        };
        if let Some(pfn) = new {
            self.put_page(cx, pfn).await;
        }
        found
    }

    /// `swap_writepage`: the write has begun when this returns, unless the page needs no slot any more.
    /// The page comes locked, with PG_dirty cleared, and goes unlocked.
    pub(crate) async fn swap_writepage(&self, cx: &Cx, pfn: Pfn, locked: Guard<'_>) {
        let _span = cx.span("swap_writepage");
        if self.remove_exclusive_swap_page(cx, pfn).await == LeftCache::Yes {
            return;
        }
        self.start_writeback(cx, pfn, Device::Swap, locked).await;
        self.st().metrics.swap_out += 1;
    }

    /// `PageSwapCache`.
    #[inline]
    pub(crate) fn is_in_swap_cache(&self, pfn: Pfn) -> bool {
        self.frames.borrow().get(pfn).flags.has(PageFlags::SWAPCACHE)
    }

    /// `free_swap_cache`: a page that loses a mapping leaves the swap cache if it is there for nobody else.
    pub(crate) async fn free_swap_cache(&self, cx: &Cx, pfn: Pfn) {
        if !self.is_in_swap_cache(pfn) {
            return;
        }
        if let Some(_locked) = self.trylock_page(cx, pfn).await {
            let _ = self.remove_exclusive_swap_page(cx, pfn).await;
        }
    }
}
