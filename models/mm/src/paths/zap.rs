//! `unmap_vmas`, `zap_page_range`, `zap_pte_range`: removing page-table entries.
//!
//! Follows mm/memory.c of 2.6.27 (host-mm-paths B.1, B.9). Work is measured in bytes: a present entry counts a
//! page, one that stands for something else, too, a none entry 1, an absent upper entry 1. When a block (8
//! pages with CONFIG_PREEMPT, else 1024) is used up the gather is finished (flush, free) and a new one begins;
//! that is the only place where the path lets others run. A full gather is flushed and freed inside the pte
//! lock. The notifier bracket spans the whole range, gaps included, and closes *before* the caller finishes
//! the last gather: at its end the entries are clear, but the last batch of pages is neither flushed nor
//! freed.
//!
//! An entry is cleared first; then a design with `invalidate_page` here (V1) tells its subscribers, the page
//! of a file gets the entry's dirty and accessed bits, its reverse mapping is forgotten, and it is queued.
//!
//! Locks: the caller holds mmap_sem (munmap, madvise), i_mmap_lock (truncate), or nothing (exit).
//! Inside: one pte lock at a time, never across page tables.
//!
//! A mapping of huge pages is unmapped in one go, whatever its length (hugetlb.rs).
//!
//! Entries without a page and nonlinear mappings: zap_nonpresent.rs. An entry that names a slot of the swap
//! device goes, too, and with it, if nobody else needs it, the page in the swap cache; it needs no flush.
//!
//! Deviations: no special entries; entries of driver mappings have
//! no page and only need the flush.

use sim::{Action, Cx, LockId};
use x86::{Entry, PAGE_SIZE, Pfn, TableId, Va, VaRange, Vpn, VpnRange};

use crate::account::PAGE_TABLE;
use crate::frame::{Owner, PageFlags};
use crate::gather::{FlushPoint, Gather, Room};
use crate::hugetlb::HPAGE_PAGES;
use crate::kernel::{Kernel, State};
use crate::mm::MmId;
use crate::notifier::{Bracket, Path, Point};
use crate::paths::NonlinearZap;
use crate::paths::zap_nonpresent::CountedIn;
use crate::profile::{ZAP_NONE_BYTES, work};
use crate::swapops::{NonPresent, SwapSlot};
use crate::vma::{Backing, VmaId};
use crate::{FileId, KernelPreemption};

/// `struct zap_details`.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ZapDetails {
    /// Only pages of this file: private copies stay (`check_mapping`).
    pub(crate) check_mapping: Option<FileId>,
    /// Pages of a nonlinear mapping are compared one by one.
    pub(crate) nonlinear: Option<NonlinearZap>,
    /// Truncating: the lock that is held throughout and given up at block ends when asked for.
    pub(crate) i_mmap_lock: Option<LockId>,
}

/// Where a zap stopped.
pub(crate) struct Zapped<'a> {
    /// The gather still open; none if the zap was broken off.
    pub(crate) gather: Option<Gather<'a>>,
    /// First address not zapped.
    pub(crate) reached: Va,
}

/// Whether a zap goes on after a block.
#[derive(Clone, Copy, PartialEq, Eq)]
enum BlockEnd {
    GoOn,
    /// It ends: the caller's lock is to be given up.
    Break,
}

/// Why the inner loop of zap_pte_range comes up for air.
enum Pause {
    /// End of the table or of the block.
    Done,
    /// The gather has this page and wants something done.
    Queued(Pfn, Room),
    /// An entry was cleared that somebody must be told of, or whose page becomes dirty, before its mapping
    /// is forgotten.
    Cleared(Va, Entry),
    /// An entry that named this slot was cleared.
    Swap(SwapSlot),
    /// Somebody else comes first.
    Sync,
}

/// What zap_pte_range works on.
struct PteRange {
    mm: MmId,
    backing: Backing,
    table: TableId,
    /// The next page, and the first one that is not meant.
    at: Vpn,
    end: Vpn,
    details: ZapDetails,
    told: Told,
    anon: u64,
    file: u64,
}

/// Whether the design has a callback for every entry that is cleared.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Told {
    Nothing,
    EachPage,
}

impl Kernel {
    /// `zap_page_range`: one VMA, with a gather, bracket and final flush of its own. Returns the
    /// address reached.
    pub(crate) async fn zap_page_range(
        &self,
        cx: &Cx,
        vma: VmaId,
        range: VaRange,
        details: ZapDetails,
    ) -> Va {
        let _span = cx.span("zap_page_range");
        let mm = self.st().mm_of(vma);
        self.lru_add_drain(cx).await;
        let mut bracket = Bracket::of(mm, Path::ZapRange, range);
        self.open_at(cx, &mut bracket, Point::OpenOutside).await;
        let gather = Gather::new(self, cx, mm);
        self.open_at(cx, &mut bracket, Point::Open).await;
        let zapped = self
            .unmap_vmas(cx, gather, mm, &[(vma, range)], range, details)
            .await;
        self.close_at(cx, &bracket, Point::Close).await;
        if let Some(gather) = zapped.gather {
            gather.finish(FlushPoint::Final).await;
        }
        self.close_at(cx, &bracket, Point::CloseOutside).await;
        zapped.reached
    }

    /// `unmap_vmas`: parts of VMAs of one address space, ascending; `whole` is what the bracket
    /// tells.
    pub(crate) async fn unmap_vmas<'a>(
        &'a self,
        cx: &'a Cx,
        gather: Gather<'a>,
        mm: MmId,
        parts: &[(VmaId, VaRange)],
        whole: VaRange,
        details: ZapDetails,
    ) -> Zapped<'a> {
        let _span = cx.span("unmap_vmas");
        let bracket = self.notify_open(cx, mm, Path::Zap, whole).await;
        let zapped = self.unmap_parts(cx, gather, mm, parts, whole, details).await;
        self.notify_close(cx, bracket).await;
        zapped
    }

    async fn unmap_parts<'a>(
        &'a self,
        cx: &'a Cx,
        gather: Gather<'a>,
        mm: MmId,
        parts: &[(VmaId, VaRange)],
        whole: VaRange,
        details: ZapDetails,
    ) -> Zapped<'a> {
        let mut gather = gather;
        let mut left = self.profile.zap_block_bytes();
        for &(vma, part) in parts {
            let mut at = part.start();
            while at < part.end() {
                at = if self.st().is_huge(vma) {
                    // A huge page counts a page against the block, after the fact.
                    left -= (part.pages() / HPAGE_PAGES * PAGE_SIZE) as i64;
                    self.unmap_hugepage_range(cx, vma, part, None).await;
                    part.end()
                } else {
                    self.unmap_page_range(cx, &mut gather, vma, at, part.end(), &mut left, details)
                        .await
                };
                if left > 0 {
                    break;
                }
                if self.end_block(cx, gather, details).await == BlockEnd::Break {
                    return Zapped {
                        gather: None,
                        reached: at,
                    };
                }
                gather = Gather::new(self, cx, mm);
                left = self.profile.zap_block_bytes();
            }
        }
        Zapped {
            gather: Some(gather),
            reached: whole.end(),
        }
    }

    /// A block is used up: its gather is finished, and others may run.
    async fn end_block(&self, cx: &Cx, gather: Gather<'_>, details: ZapDetails) -> BlockEnd {
        self.st().metrics.zap_blocks += 1;
        gather.finish(FlushPoint::BlockEnd).await;
        if let Some(lock) = details.i_mmap_lock
            && self.must_break_lock(cx, lock).await
        {
            return BlockEnd::Break;
        }
        // Without a lock-break the sleepable kernel reschedules with the rwsem held.
        if cx.need_resched() && self.may_resched(details) {
            cx.cond_resched().await;
        }
        BlockEnd::GoOn
    }

    fn may_resched(&self, details: ZapDetails) -> bool {
        details.i_mmap_lock.is_none() || self.profile.truncate_break == crate::profile::TruncateBreak::Never
    }

    /// `need_resched() || spin_needbreak(i_mmap_lock)`.
    pub(crate) async fn must_break_lock(&self, cx: &Cx, i_mmap_lock: LockId) -> bool {
        if self.profile.truncate_break == crate::profile::TruncateBreak::Never {
            return false;
        }
        cx.need_resched() || self.spin_needbreak(cx, i_mmap_lock).await
    }

    /// `spin_needbreak`: contention is only looked at with CONFIG_PREEMPT (include/linux/sched.h 2.6.27).
    pub(crate) async fn spin_needbreak(&self, cx: &Cx, lock: LockId) -> bool {
        if self.profile.preemption != KernelPreemption::Full {
            return false;
        }
        // Whoever came for it earlier must be seen waiting.
        cx.step(lock.object(), Action::Read).await;
        cx.is_contended(lock)
    }

    #[expect(clippy::too_many_arguments, reason = "the kernel function's own parameters")]
    /// `unmap_page_range`: until the end or until the block is used up. Returns the address reached.
    async fn unmap_page_range(
        &self,
        cx: &Cx,
        gather: &mut Gather<'_>,
        vma: VmaId,
        start: Va,
        end: Va,
        left: &mut i64,
        details: ZapDetails,
    ) -> Va {
        let mut at = start.vpn();
        while at < end.vpn() && *left > 0 {
            let (mm, scan) = {
                let st = self.st();
                let mm = st.mm_of(vma);
                (
                    mm,
                    st.tables
                        .scan_leaf_tables(st.mm(mm).pgd, at, end.vpn(), (*left).max(0) as u64),
                )
            };
            *left -= scan.skipped as i64 * ZAP_NONE_BYTES;
            cx.charge(PAGE_TABLE, self.machine.costs.cacheline_touch * scan.skipped);
            let Some((table, pages)) = scan.found else {
                at = scan.reached;
                continue;
            };
            let range = self.pte_range(vma, mm, (table, pages), details);
            at = self.zap_pte_range(cx, gather, range, left).await;
        }
        at.va()
    }

    fn pte_range(
        &self,
        vma: VmaId,
        mm: MmId,
        (table, pages): (TableId, VpnRange),
        details: ZapDetails,
    ) -> PteRange {
        let bound = self.table.at(Path::Zap, Point::AfterClear).is_some();
        PteRange {
            mm,
            backing: self.st().vma(vma).backing,
            table,
            at: pages.start(),
            end: pages.end(),
            details,
            told: if bound { Told::EachPage } else { Told::Nothing },
            anon: 0,
            file: 0,
        }
    }

    /// `zap_pte_range`: one hold of one page table's lock. Returns the page reached.
    async fn zap_pte_range(
        &self,
        cx: &Cx,
        gather: &mut Gather<'_>,
        mut range: PteRange,
        left: &mut i64,
    ) -> Vpn {
        let _span = cx.span("zap_pte_range");
        let ptl = {
            let mut st = self.st();
            st.metrics.ptl_holds += 1;
            st.ptl(range.table)
        };
        let _ptl = cx.lock(ptl).await;
        loop {
            match self.zap_ptes(cx, gather, &mut range, left) {
                Pause::Done => break,
                Pause::Sync => cx.step(ptl.object(), Action::Write).await,
                Pause::Swap(slot) => self.free_swap_and_cache(cx, slot).await,
                Pause::Queued(pfn, room) => gather.make_room(pfn, room).await,
                Pause::Cleared(va, entry) => self.zap_cleared(cx, gather, &mut range, va, entry).await,
            }
            // Not each of these has let others in, and the next entry may be theirs.
            if cx.must_sync() {
                cx.step(ptl.object(), Action::Write).await;
            }
        }
        let mut st = self.st();
        let mm = st.mm_mut(range.mm);
        mm.anon_rss -= range.anon;
        mm.file_rss -= range.file;
        range.at
    }

    /// The loop over entries, as far as it goes without letting anybody else in.
    fn zap_ptes(&self, cx: &Cx, gather: &mut Gather<'_>, range: &mut PteRange, left: &mut i64) -> Pause {
        let costs = &self.machine.costs;
        let none_cost = self.none_pte_cost();
        let present_cost = costs.pte_access + costs.cacheline_touch * work::RMAP;
        let first = range.at;
        let ptes = self.locked_ptes(cx, &self.st(), range.table);
        while range.at < range.end && *left > 0 {
            // The caller has synchronised for the first entry.
            if range.at != first && cx.must_sync() {
                return Pause::Sync;
            }
            let mut st = self.st();
            let (va, index) = (range.at.va(), x86::Level::Pte.index_of(range.at));
            range.at = range.at.add(1);
            let entry = st.tables.get(range.table, index);
            if entry.is_none() {
                *left -= ZAP_NONE_BYTES;
                cx.charge(PAGE_TABLE, none_cost);
                continue;
            }
            *left -= x86::PAGE_SIZE as i64;
            if let Some(meaning) = NonPresent::of(entry) {
                cx.charge(PAGE_TABLE, none_cost);
                if range.details.keep_nonpresent() {
                    continue;
                }
                ptes.set(&mut st, index, Entry::NONE);
                match self.forget_nonpresent_now(range, meaning) {
                    Some(slot) => return Pause::Swap(slot),
                    None => continue,
                }
            }
            if self.keeps(&mut st, range, entry) {
                cx.charge(PAGE_TABLE, costs.cacheline_touch);
                continue;
            }
            let left_behind = self.left_behind(&st, range.details.nonlinear, va, entry);
            ptes.set(&mut st, index, left_behind);
            cx.charge(PAGE_TABLE, present_cost);
            gather.cleared_entry();
            if must_tell(&st, range) || self.must_dirty(range, entry) {
                return Pause::Cleared(va, entry);
            }
            if let Some(pfn) = self.forget_mapping(&mut st, range, entry) {
                match gather.remove_page(pfn) {
                    Room::Left => {}
                    room => return Pause::Queued(pfn, room),
                }
            }
        }
        Pause::Done
    }

    /// What is due after an entry was cleared, in this order: the subscribers hear of it (V1; before the page's
    /// mapping is forgotten and before the flush), the page of a file becomes dirty (F15), and only then is the
    /// mapping forgotten.
    async fn zap_cleared(
        &self,
        cx: &Cx,
        gather: &mut Gather<'_>,
        range: &mut PteRange,
        va: Va,
        entry: Entry,
    ) {
        if must_tell(&self.st(), range) {
            let page = (range.backing != Backing::Driver).then(|| entry.pfn());
            self.notify_page(cx, range.mm, (Path::Zap, Point::AfterClear), va, page)
                .await;
        }
        if self.must_dirty(range, entry) {
            self.set_page_dirty(cx, entry.pfn()).await;
        }
        let page = self.forget_mapping(&mut self.st(), range, entry);
        if let Some(pfn) = page {
            let room = gather.remove_page(pfn);
            gather.make_room(pfn, room).await;
        }
    }

    /// Forgets an entry without a page, which was cleared, but for the slot that it may have named.
    fn forget_nonpresent_now(&self, range: &mut PteRange, meaning: NonPresent) -> Option<SwapSlot> {
        match meaning {
            NonPresent::Swap(slot) => return Some(slot),
            NonPresent::File(_) => {}
            NonPresent::Migration(pfn, _) => match self.rss_of_migrating(pfn) {
                CountedIn::Nothing => {}
                CountedIn::Anon => range.anon += 1,
                CountedIn::File => range.file += 1,
            },
        }
        None
    }

    /// Whether the page must be marked dirty before its mapping is forgotten.
    fn must_dirty(&self, range: &PteRange, entry: Entry) -> bool {
        if range.backing == Backing::Driver || !entry.maps_page() || !entry.dirty() {
            return false;
        }
        let frames = self.frames.borrow();
        let frame = frames.get(entry.pfn());
        !frame.is_anon() && !frame.flags.has(PageFlags::DIRTY)
    }

    /// Whether the details spare the page: a private copy, or one of a nonlinear mapping that is not
    /// meant.
    fn keeps(&self, st: &mut State, range: &PteRange, entry: Entry) -> bool {
        let owner = || self.frames.borrow().get(entry.pfn()).owner();
        if range
            .details
            .check_mapping
            .is_some_and(|file| owner() != Owner::File(file))
        {
            return true;
        }
        range
            .details
            .nonlinear
            .is_some_and(|zap| self.outside(st, zap, entry))
    }

    /// rss, dirty and accessed bits, `page_remove_rmap`. Returns the page whose reference is to be
    /// dropped after the flush.
    #[inline]
    fn forget_mapping(&self, st: &mut State, range: &mut PteRange, entry: Entry) -> Option<Pfn> {
        st.metrics.pages_zapped += 1;
        if range.backing == Backing::Driver {
            return None;
        }
        let pfn = entry.pfn();
        let mut frames = self.frames();
        let frame = frames.get_mut(pfn);
        frame.mapcount -= 1;
        if frame.is_anon() {
            range.anon += 1;
        } else {
            range.file += 1;
            if entry.accessed() {
                frame.flags.set(PageFlags::REFERENCED);
            }
            self.check_dirty_kept(pfn, frame);
        }
        Some(pfn)
    }
}

/// Asked for each entry: who registers while the lock is held must hear of the next one.
fn must_tell(st: &State, range: &PteRange) -> bool {
    range.told == Told::EachPage && !st.mm(range.mm).subscribers.is_empty()
}
