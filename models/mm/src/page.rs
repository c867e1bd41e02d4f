//! Sharing and giving back pages (taking them: page_alloc.rs), under the eyes of the coherence oracle.
//!
//! Follows `put_page` of mm/swap.c and `free_hot_page` of mm/page_alloc.c, 2.6.27 (host-mm-paths B.16).
//! Whoever drops the last reference takes the page off the LRU (see [`crate::lru`]) and returns it.
//! Deviation: the free lists have no lock of their own, because no path holds one across anything and no
//! rank of host-mm-paths E names it.

use sim::{CpuId, CpuSet, Cx, Mark, Scope};
use x86::{Generation, Pfn, TableId};

use crate::account::{PAGE_ALLOC, PAGE_COPY};
use crate::frame::{LastReference, PageFlags};
use crate::hugetlb::HPAGE_PAGES;
use crate::invariants::FREED_IN_USE;
use crate::kernel::Kernel;

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

static COPY: Mark = Mark {
    name: "copy_page",
    args: ["pfn", "to", ""],
    scope: Scope::Object,
};

/// A page is copied to another frame for good while stores can still reach it.
pub const COPY_WHILE_MAPPED: &str = "copy-while-mapped";
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

impl Kernel {
    /// `put_page`.
    pub async fn put_page(&self, cx: &Cx, pfn: Pfn) {
        self.put(cx, pfn, FreeOrder::Flushed).await;
    }

    #[inline]
    pub(crate) async fn put(&self, cx: &Cx, pfn: Pfn, order: FreeOrder) {
        let last = self.frames().put_testzero(pfn);
        if last == LastReference::Yes {
            self.page_cache_release(cx, pfn).await;
            self.free_page(cx, pfn, order);
        }
    }

    /// `free_hot_page`: a page without references, and on no list, returns to the allocator.
    pub(crate) fn free_page(&self, cx: &Cx, pfn: Pfn, order: FreeOrder) {
        self.return_frame(cx.cpu(), pfn, order);
        cx.charge(PAGE_ALLOC, self.machine.costs.page_free);
    }

    /// [`Kernel::free_page`] for whoever is no task.
    pub(crate) fn return_frame(&self, cpu: CpuId, pfn: Pfn, order: FreeOrder) {
        let mut frames = self.frames();
        let pfn = frames.head(pfn);
        let frame = frames.get(pfn);
        let parts = if frame.flags.has(PageFlags::HUGE) {
            HPAGE_PAGES
        } else {
            1
        };
        if frame.mapcount > 0 || frame.flags.has(PageFlags::CACHED) || frame.flags.has(PageFlags::SWAPCACHE) {
            self.report_in_use(pfn, frame.mapcount);
        }
        debug_assert!(
            !frame.flags.has(PageFlags::WRITEBACK),
            "{pfn} freed on its way to a device"
        );
        let reachable =
            frames.secondary(pfn).usable > 0 || (frame.tlb_slots > 0 && order == FreeOrder::Flushed);
        let generation = frame.generation;
        frames.free(pfn);
        drop(frames);
        if reachable {
            self.report_reachable(pfn, parts);
        }
        let args = [u64::from(pfn.get()), u64::from(generation.get()), 0];
        self.engine.mark(cpu, &FREE, args);
    }

    /// `copy_user_page`, `copy_highpage`.
    pub(crate) fn copy_page(&self, cx: &Cx, from: Pfn, to: Pfn) {
        cx.charge(PAGE_COPY, self.machine.costs.copy_page);
        cx.mark(&COPY, [u64::from(from.get()), u64::from(to.get()), 0]);
    }

    /// A page is about to be copied for good: what is stored to it from now on would be lost.
    pub(crate) fn check_unreachable(&self, pfn: Pfn) {
        let reachable = {
            let frames = self.frames.borrow();
            frames.get(pfn).tlb_slots > 0 || frames.secondary(pfn).usable > 0
        };
        if reachable {
            let who = self.who_reaches(pfn, 1);
            let text = format!("{pfn} moves to another frame while {who} can still reach it");
            let about = Some(("pfn", u64::from(pfn.get())));
            self.engine.violate(COPY_WHILE_MAPPED, text, about);
        }
    }

    /// A freed page of so many frames can still be reached: say by whom.
    fn report_reachable(&self, pfn: Pfn, parts: u64) {
        let who = self.who_reaches(pfn, parts);
        let text = format!("{pfn} returns to the allocator while {who} can still reach it");
        self.engine
            .violate(FREE_WHILE_MAPPED, text, Some(("pfn", u64::from(pfn.get()))));
    }

    /// A page without references is mapped or cached all the same (F6).
    #[cold]
    fn report_in_use(&self, pfn: Pfn, mapcount: u32) {
        let by = if mapcount > 0 {
            format!("{mapcount} entries map it")
        } else {
            "a cache has it".to_owned()
        };
        let text = format!("{pfn} returns to the allocator while {by} (F6)");
        self.engine
            .violate(FREED_IN_USE, text, Some(("pfn", u64::from(pfn.get()))));
    }

    fn who_reaches(&self, pfn: Pfn, parts: u64) -> String {
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
        if who.is_empty() {
            "a secondary MMU".to_owned()
        } else {
            who.join(", ")
        }
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
        let pins = frames.secondary(pfn).pins;
        drop(frames);
        cx.mark(&PIN, [u64::from(pfn.get()), u64::from(pins), 0]);
    }

    /// Turns a plain reference, as returned by `get_user_pages`, into one held by a translation.
    pub fn keep_as_pin(&self, cx: &Cx, pfn: Pfn) {
        let mut frames = self.frames();
        frames.pin(pfn);
        let pins = frames.secondary(pfn).pins;
        drop(frames);
        cx.mark(&PIN, [u64::from(pfn.get()), u64::from(pins), 0]);
    }

    /// Drops a reference of a secondary MMU.
    pub async fn unpin_page(&self, cx: &Cx, pfn: Pfn) {
        let pins = {
            let mut frames = self.frames();
            frames.unpin(pfn);
            frames.secondary(pfn).pins
        };
        cx.mark(&UNPIN, [u64::from(pfn.get()), u64::from(pins), 0]);
        self.put_page(cx, pfn).await;
    }

    /// Present generation of a frame, to be remembered by a translation to it.
    #[must_use]
    pub fn generation(&self, pfn: Pfn) -> Generation {
        self.frames.borrow().get(pfn).generation
    }

    /// A translation to `pfn` without a reference becomes usable by a secondary MMU.
    pub fn secondary_mapped(&self, pfn: Pfn) {
        self.frames().secondary_mut(pfn).usable += 1;
    }

    /// A translation counted by [`Kernel::secondary_mapped`] can no longer be used by anybody: also
    /// no TLB holds it.
    pub fn secondary_unmapped(&self, pfn: Pfn) {
        self.frames().secondary_mut(pfn).usable -= 1;
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
}
