//! Taking pages when memory runs short.
//!
//! Follows `__alloc_pages_internal`, `init_per_zone_pages_min` and `setup_per_zone_pages_min` of
//! mm/page_alloc.c, 2.6.27, for one page of user memory (GFP_HIGHUSER_MOVABLE). While more frames are free than
//! `pages_low`, taking one is all there is to it ([`Kernel::alloc_page`], which never sleeps). Below that
//! kswapd is woken, and frames down to `pages_min` are taken. Below that the task frees pages itself
//! (direct reclaim), which may sleep: so only paths that hold no spinlock may ask for this
//! ([`Kernel::alloc_page_or_reclaim`]). It is done again as long as it frees anything, with a nap in
//! between; when it does not, nothing is left but the reserve.
//!
//! Where rmap locks sleep, reclaim only tries them to ask for the age of a page, and two that reclaim from one
//! family can keep each other from it. A direct reclaim that freed nothing but was so contended is done again, up
//! to 16 times in a row, as 6.12, which has these try-locks, retries (`should_reclaim_retry`; inferred for a
//! kernel of 2008).
//!
//! Deviations: there is one zone of one node, so no lower zone is kept back and none can take its place. The
//! pages above the hot end of the per-CPU lists are the zone's. Where the kernel would kill a task
//! (`out_of_memory`), the access that wanted the page is refused. A device's queue never counts as
//! congested, so naps last their whole time.

use sim::{Cx, Cycles};
use x86::{PAGE_SHIFT, Pfn};

use crate::account::PAGE_ALLOC;
use crate::frame::{OutOfMemory, Watermark, Watermarks};
use crate::kernel::Kernel;
use crate::paths::Progress;

/// Bounds of `min_free_kbytes`, `init_per_zone_pages_min` 2.6.27.
const MIN_FREE_KBYTES: (u64, u64) = (128, 65536);
/// `min_free_kbytes` is the square root of this many times the memory, in kilobytes; same place.
const MIN_FREE_FACTOR: u64 = 16;
/// `MAX_RECLAIM_RETRIES`: direct reclaims in a row without a page freed, mm/page_alloc.c 6.12.
const MAX_RECLAIM_RETRIES: u32 = 16;
/// Nanoseconds of `congestion_wait(WRITE, HZ/50)` between two attempts, `__alloc_pages_internal` 2.6.27.
const RETRY_NAP_NS: u64 = 20_000_000;
/// Nanoseconds of `congestion_wait(WRITE, HZ/10)` of reclaim, mm/vmscan.c 2.6.27.
pub(crate) const RECLAIM_NAP_NS: u64 = 100_000_000;

impl Watermarks {
    /// Those of a zone that is all the memory of its kernel (`init_per_zone_pages_min`): `pages_min` is
    /// min_free_kbytes, `pages_low` a quarter and `pages_high` a half more.
    #[must_use]
    pub fn of_memory(pages: u64) -> Watermarks {
        let kbytes = PAGE_SHIFT - 10;
        let lowmem = pages << kbytes;
        let (least, most) = MIN_FREE_KBYTES;
        let min = (lowmem * MIN_FREE_FACTOR).isqrt().clamp(least, most) >> kbytes;
        Watermarks {
            min,
            low: min + (min >> 2),
            high: min + (min >> 1),
        }
    }
}

impl Kernel {
    /// Says how much memory the kernel has, in pages; that of the machine until then.
    pub fn set_memory(&self, pages: u64) {
        self.frames()
            .resize(self.zone, pages, Watermarks::of_memory(pages));
    }

    /// `alloc_page` as long as memory is plentiful: a frame with one reference, without sleeping.
    ///
    /// # Errors
    /// When no more than `pages_low` frames are free.
    #[inline]
    pub fn alloc_page(&self, cx: &Cx) -> Result<Pfn, OutOfMemory> {
        cx.charge(PAGE_ALLOC, self.machine.costs.page_alloc);
        self.frames().alloc(self.zone, Watermark::Low)
    }

    /// `alloc_page`: a frame with one reference. May sleep.
    ///
    /// # Errors
    /// When memory is used up and nothing can be reclaimed.
    pub async fn alloc_page_or_reclaim(&self, cx: &Cx) -> Result<Pfn, OutOfMemory> {
        match self.alloc_page(cx) {
            Ok(pfn) => Ok(pfn),
            Err(OutOfMemory) => self.alloc_pages_slowpath(cx).await,
        }
    }

    /// `__alloc_pages_internal` after the first attempt failed.
    pub(crate) async fn alloc_pages_slowpath(&self, cx: &Cx) -> Result<Pfn, OutOfMemory> {
        let _span = cx.span("__alloc_pages_internal");
        self.wakeup_kswapd(cx);
        if let Ok(pfn) = self.get_page_from_freelist(cx, Watermark::Min) {
            return Ok(pfn);
        }
        let mut retries = MAX_RECLAIM_RETRIES;
        loop {
            cx.cond_resched().await;
            let progress = self.try_to_free_pages(cx).await;
            cx.cond_resched().await;
            retries = match progress {
                Progress::Freed => MAX_RECLAIM_RETRIES,
                Progress::Contended => retries - 1,
                Progress::None => 0,
            };
            // Without progress, only if somebody else has freed plenty.
            let mark = if retries > 0 {
                Watermark::Min
            } else {
                Watermark::High
            };
            match self.get_page_from_freelist(cx, mark) {
                Ok(pfn) => return Ok(pfn),
                Err(OutOfMemory) if retries == 0 => {
                    self.st().metrics.out_of_memory += 1;
                    return Err(OutOfMemory);
                }
                Err(OutOfMemory) => self.congestion_wait(cx, RETRY_NAP_NS).await,
            }
        }
    }

    fn get_page_from_freelist(&self, cx: &Cx, mark: Watermark) -> Result<Pfn, OutOfMemory> {
        cx.charge(PAGE_ALLOC, self.machine.costs.page_alloc);
        self.frames().alloc(self.zone, mark)
    }

    /// `congestion_wait`: a nap, for writeback to get on.
    pub(crate) async fn congestion_wait(&self, cx: &Cx, ns: u64) {
        let _span = cx.span("congestion_wait");
        let nap: Cycles = self.machine.ns(ns);
        cx.sleep(nap).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn watermarks_are_those_of_the_boot_messages() {
        // The table in the comment of init_per_zone_pages_min: memory in MB, min_free_kbytes.
        for (mb, kbytes) in [
            (16, 512),
            (32, 724),
            (64, 1024),
            (128, 1448),
            (256, 2048),
            (512, 2896),
            (1024, 4096),
        ] {
            let marks = Watermarks::of_memory(mb << (20 - PAGE_SHIFT));
            assert_eq!(marks.min, kbytes / 4, "{mb} MB");
            assert_eq!(marks.low, marks.min + marks.min / 4);
            assert_eq!(marks.high, marks.min + marks.min / 2);
        }
        assert_eq!(Watermarks::of_memory(10).min, 32, "128 KB at least");
        assert_eq!(Watermarks::of_memory(1 << 40).min, 16384, "64 MB at most");
    }
}
