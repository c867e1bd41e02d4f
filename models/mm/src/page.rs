//! Taking, sharing and giving back pages, under the eyes of the coherence oracle.
//!
//! Follows `put_page`, `release_pages` and `lru_cache_add` of mm/swap.c, 2.6.27 (host-mm-paths A.6,
//! B.16, G.22). Pages on an LRU list are taken off it under zone->lru_lock with interrupts off, in
//! chunks of a pagevec. Deviations: a single `put_page` to zero charges the LRU removal without taking
//! lru_lock (only the batches of a gather and of truncate hold it), pages in a pagevec hold no reference
//! for it; the free lists have no lock of their own, because no path holds
//! one across anything and no rank of host-mm-paths E names it.

use sim::{CpuSet, Cx, Mark, Scope};
use x86::{Generation, Pfn, TableId};

use crate::account::{BOOKKEEPING, PAGE_ALLOC};
use crate::frame::{OutOfMemory, PageFlags};
use crate::hugetlb::HPAGE_PAGES;
use crate::kernel::Kernel;
use crate::profile::{PAGEVEC_SIZE, work};

static FREE: Mark = Mark {
    name: "free_page",
    args: ["pfn", "generation", ""],
    scope: Scope::Object,
};
static PIN: Mark = Mark {
    name: "pin_page",
    args: ["pfn", "pins", ""],
    scope: Scope::Object,
};
static UNPIN: Mark = Mark {
    name: "unpin_page",
    args: ["pfn", "pins", ""],
    scope: Scope::Object,
};

/// A frame can be reached although it was given back.
pub const FREE_WHILE_MAPPED: &str = "free-while-mapped";
/// A page table can be walked although it was given back.
pub const FREE_WHILE_WALKED: &str = "free-while-walked";
/// A translation of a former life of a frame was used.
pub const STALE_USE: &str = "stale-use";

/// When pages of a gather are freed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum FreeOrder {
    /// After the TLB flush.
    Flushed,
    /// Before it: only one CPU is online, and no user code runs in between (`tlb_fast_mode`).
    FastMode,
}

/// State of a CPU's LRU pagevec after a page was added.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub(crate) enum Pagevec {
    /// More pages fit.
    Room,
    /// It must be drained now.
    Full,
}

impl Kernel {
    /// `alloc_page`: a frame with one reference.
    ///
    /// # Errors
    /// When memory is used up.
    #[inline]
    pub fn alloc_page(&self, cx: &Cx) -> Result<Pfn, OutOfMemory> {
        cx.charge(PAGE_ALLOC, self.machine.costs.page_alloc);
        self.frames().alloc(self.zone)
    }

    /// `put_page`.
    pub fn put_page(&self, cx: &Cx, pfn: Pfn) {
        self.put(cx, pfn, FreeOrder::Flushed);
    }

    #[inline]
    pub(crate) fn put(&self, cx: &Cx, pfn: Pfn, order: FreeOrder) {
        let mut frames = self.frames();
        let pfn = frames.head(pfn);
        let frame = frames.get_mut(pfn);
        debug_assert!(frame.count > 0, "{pfn} put without a reference");
        frame.count -= 1;
        if frame.count > 0 {
            return;
        }
        debug_assert_eq!(frame.mapcount, 0, "{pfn} freed while mapped by a pte");
        let parts = if frame.flags.has(PageFlags::HUGE) {
            HPAGE_PAGES
        } else {
            1
        };
        let reachable = frame.usable > 0 || (frame.tlb_slots > 0 && order == FreeOrder::Flushed);
        let generation = frame.generation;
        frames.free(pfn);
        drop(frames);
        if reachable {
            self.report_reachable(cx, pfn, parts);
        }
        cx.mark(&FREE, [u64::from(pfn.get()), u64::from(generation.get()), 0]);
        cx.charge(PAGE_ALLOC, self.machine.costs.page_free);
    }

    /// A freed page of so many frames can still be reached: say by whom.
    fn report_reachable(&self, cx: &Cx, pfn: Pfn, parts: u64) {
        let frames = || (pfn.get()..pfn.get() + parts as u32).map(Pfn::new);
        let mut who = Vec::new();
        let st = self.st();
        for (n, cpu) in st.cpus.iter().enumerate() {
            if let Some((_, vpn)) = frames().find_map(|part| cpu.tlb.holds_pfn(part)) {
                who.push(format!(
                    "the TLB of cpu{} (va {:#x})",
                    self.cpu(n as u32).index(),
                    vpn.va().get()
                ));
            }
        }
        let subscribers: Vec<_> = st.subscriptions.iter().map(|s| s.handler.clone()).collect();
        drop(st);
        who.extend(
            subscribers
                .iter()
                .filter(|s| frames().any(|part| s.reaches(part)))
                .map(|s| s.name().to_string()),
        );
        let who = if who.is_empty() {
            "a secondary MMU".to_owned()
        } else {
            who.join(", ")
        };
        let text = format!("{pfn} returns to the allocator while {who} can still reach it");
        cx.engine()
            .violate(FREE_WHILE_MAPPED, text, Some(("pfn", u64::from(pfn.get()))));
    }

    /// A page table goes back: no CPU's walks may start at it any more (hardware-costs R15, R23).
    pub(crate) fn check_unwalked(&self, cx: &Cx, table: TableId) {
        let mut leading = CpuSet::EMPTY;
        for (n, cpu) in self.st().cpus.iter().enumerate() {
            if cpu.psc.leads_to(table) {
                leading.insert(self.cpu(n as u32));
            }
        }
        if leading.is_empty() {
            return;
        }
        let who: Vec<_> = leading.iter().map(|cpu| format!("cpu{}", cpu.index())).collect();
        let text = format!(
            "page table {} returns to the allocator while the paging-structure caches of {} lead to it",
            table.get(),
            who.join(", ")
        );
        cx.engine().violate(FREE_WHILE_WALKED, text, None);
    }

    /// A reference of a secondary MMU (`get_page` on behalf of a translation).
    pub fn pin_page(&self, cx: &Cx, pfn: Pfn) {
        let mut frames = self.frames();
        frames.get_page(pfn);
        frames.pin(pfn);
        let pins = frames.get(pfn).pins;
        drop(frames);
        cx.mark(&PIN, [u64::from(pfn.get()), u64::from(pins), 0]);
    }

    /// Turns a plain reference, as returned by `get_user_pages`, into one held by a translation.
    pub fn keep_as_pin(&self, cx: &Cx, pfn: Pfn) {
        let mut frames = self.frames();
        frames.pin(pfn);
        let pins = frames.get(pfn).pins;
        drop(frames);
        cx.mark(&PIN, [u64::from(pfn.get()), u64::from(pins), 0]);
    }

    /// Drops a reference of a secondary MMU.
    pub fn unpin_page(&self, cx: &Cx, pfn: Pfn) {
        let mut frames = self.frames();
        frames.unpin(pfn);
        let pins = frames.get(pfn).pins;
        drop(frames);
        cx.mark(&UNPIN, [u64::from(pfn.get()), u64::from(pins), 0]);
        self.put_page(cx, pfn);
    }

    /// Present generation of a frame, to be remembered by a translation to it.
    #[must_use]
    pub fn generation(&self, pfn: Pfn) -> Generation {
        self.frames.borrow().get(pfn).generation
    }

    /// A translation to `pfn` without a reference becomes usable by a secondary MMU.
    pub fn secondary_mapped(&self, pfn: Pfn) {
        self.frames().get_mut(pfn).usable += 1;
    }

    /// A translation counted by [`Kernel::secondary_mapped`] can no longer be used by anybody: also
    /// no TLB holds it.
    pub fn secondary_unmapped(&self, pfn: Pfn) {
        self.frames().get_mut(pfn).usable -= 1;
    }

    /// A secondary MMU uses a translation it filled when the frame had `generation`.
    pub fn check_use(&self, cx: &Cx, pfn: Pfn, generation: Generation, who: &str) {
        let frames = self.frames.borrow();
        let frame = frames.get(pfn);
        if frame.generation == generation && frame.count > 0 {
            return;
        }
        drop(frames);
        let text = format!("{who} uses a translation to {pfn}, which was freed since it was filled");
        cx.engine()
            .violate(STALE_USE, text, Some(("pfn", u64::from(pfn.get()))));
    }

    /// `lru_cache_add_active`: into this CPU's pagevec, which goes to the list when it is full.
    pub(crate) async fn lru_cache_add(&self, cx: &Cx, pfn: Pfn) {
        if self.lru_pagevec_add(cx, pfn) == Pagevec::Full {
            self.drain_pagevec(cx).await;
        }
    }

    /// `pagevec_add`: says when the pagevec must go to the list.
    #[inline]
    pub(crate) fn lru_pagevec_add(&self, cx: &Cx, pfn: Pfn) -> Pagevec {
        self.frames().get_mut(pfn).flags.set(PageFlags::LRU);
        let cpu = self.local(cx.cpu());
        let mut st = self.st();
        let waiting = &mut st.cpus[cpu].lru_pagevec;
        *waiting += 1;
        if *waiting == PAGEVEC_SIZE {
            Pagevec::Full
        } else {
            Pagevec::Room
        }
    }

    /// `lru_add_drain`: this CPU's pagevec goes to the list, if there is anything in it.
    pub(crate) async fn lru_add_drain(&self, cx: &Cx) {
        let cpu = self.local(cx.cpu());
        let waiting = self.st().cpus[cpu].lru_pagevec;
        if waiting > 0 {
            self.drain_pagevec(cx).await;
        }
    }

    pub(crate) async fn drain_pagevec(&self, cx: &Cx) {
        let _span = cx.span("__pagevec_lru_add_active");
        let cpu = self.local(cx.cpu());
        let pages = std::mem::take(&mut self.st().cpus[cpu].lru_pagevec) as u64;
        let _irqs = cx.irq_disable();
        let _lock = cx.lock(self.locks.lru_lock).await;
        cx.charge(
            BOOKKEEPING,
            self.machine.costs.cacheline_touch * (pages * work::LRU),
        );
    }

    /// `release_pages` for up to a pagevec of pages: off the LRU under lru_lock, then back to the
    /// allocator.
    pub(crate) async fn release_pages(&self, cx: &Cx, pages: &[Pfn]) {
        let off_lru = {
            let frames = self.frames.borrow();
            let last_reference = |pfn: &&Pfn| {
                let frame = frames.get(**pfn);
                frame.count == 1 && frame.flags.has(PageFlags::LRU)
            };
            pages.iter().filter(last_reference).count() as u64
        };
        if off_lru > 0 {
            let _irqs = cx.irq_disable();
            let _lock = cx.lock(self.locks.lru_lock).await;
            cx.charge(
                BOOKKEEPING,
                self.machine.costs.cacheline_touch * (off_lru * work::LRU),
            );
        }
        for &pfn in pages {
            self.put(cx, pfn, FreeOrder::Flushed);
        }
    }
}
