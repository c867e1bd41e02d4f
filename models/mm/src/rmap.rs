//! Reverse maps: `page_referenced`, `try_to_unmap`, `page_mkclean`.
//!
//! Follows mm/rmap.c of 2.6.27 (host-mm-paths B.12, B.13, G.18, G.19). From a page to the entries that
//! map it: an anonymous page names its anon_vma, whose list holds the VMAs of the whole family, related by
//! fork, each of which is looked at, also where the page is not; a page of a file names the file, whose
//! i_mmap is asked for the VMAs at the page's index. Locks: PG_locked (page_referenced of an anonymous
//! page may do without), then the anon_vma's lock inside an RCU reader, or i_mmap_lock, then one pte lock
//! at a time. Both walks stop as soon as as many entries were seen as map the page, and have cost what they
//! came by (vma_walk.rs). A locked shared mapping of a file settles page_referenced before any entry is
//! looked at; any other locked one counts only if the page is there.
//!
//! Where these locks sleep (host-mm-paths E), page_referenced only tries them and gives up a page whose lock
//! it does not get as contended: reclaim does not queue behind whoever holds one (point 7, B.12). What then
//! becomes of the page is 6.12's: of the inactive list it is kept there, and from the active list it goes to
//! the inactive one, to be asked again. (Were it taken for used, two that reclaim from one family would keep
//! all its pages active between them.) Whoever sleeps for an anon_vma's lock is in no RCU reader, and asks
//! again whether the page is mapped (point 3); where it spins that is asked before, and not again.
//!
//! An entry is first looked at without its lock, and only a present one is worth it; page_mkclean
//! always takes it. Each entry that is changed is cleared, flushed on all CPUs of its address space and
//! told to the secondary MMUs before the next one: m mappers are m flushes, and up to 2m with young ones.
//! The mapping's reference is given up under the pte lock, or, where a design tells its subscribers after
//! that lock, when they have been told.
//!
//! Deviations: the swap token (a task that thrashes keeps its pages for a while) is not modelled.
//! Whether a secondary MMU used the page is not asked by try_to_unmap under a design that asks after
//! the pte lock, for the entry must not change in between (inferred; the text of those patches was not
//! available).

use sim::{Cx, Guard, LockId, ReaderGuard};
use x86::{Entry, Level, Pfn, PgoffRange, TableId, Va};

use crate::FileId;
use crate::account::PAGE_TABLE;
use crate::frame::{Owner, PageFlags};
use crate::kernel::Kernel;
use crate::mm::{AnonVmaId, MmId};
use crate::notifier::{Path, Point, Young};
use crate::profile::{MkcleanCheck, RmapLocks, work};
use crate::swapops::{MigrationAccess, NonPresent};
use crate::vma::{Sharing, VmaId};
use crate::vma_walk::VmaWalk;

/// Why a page is unmapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum UnmapFor {
    /// Reclaim: locked and young mappings keep it.
    Reclaim,
    /// Migration: nothing keeps it, and each entry says where it went.
    Migration,
}

/// What try_to_unmap achieved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub(crate) enum Unmapped {
    /// SWAP_SUCCESS: no entry maps the page any more.
    All,
    /// SWAP_AGAIN: some entry could not be reached this time.
    NotAll,
    /// SWAP_FAIL: a locked or a young mapping wants to keep it.
    Wanted,
}

/// Whether the caller of page_referenced holds PG_locked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum PageLocked {
    /// It does.
    Yes,
    /// It does not (`shrink_active_list`).
    No,
}

/// What page_referenced learnt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub(crate) enum Age {
    /// So many mappings used the page since it was last asked, plus one if PG_referenced was set.
    Referenced(u32),
    /// Somebody has the lock that it takes to know, and it is not slept for.
    Contended,
}

/// How `page_check_address` treats an entry that looks absent.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Check {
    /// It is not worth its lock.
    Quick,
    /// It is looked at under its lock all the same (`sync`).
    Sync,
}

/// An entry that maps the page, its lock held.
pub(crate) struct Mapping<'a> {
    pub(crate) mm: MmId,
    pub(crate) va: Va,
    pub(crate) table: TableId,
    pub(crate) index: usize,
    pub(crate) entry: Entry,
    pub(crate) ptl: Guard<'a>,
}

impl Kernel {
    /// `page_referenced`. What it finds young is not young any more.
    pub(crate) async fn page_referenced(&self, cx: &Cx, pfn: Pfn, locked: PageLocked) -> Age {
        let _span = cx.span("page_referenced");
        let (marked, owner, mapped) = {
            let mut frames = self.frames();
            let frame = frames.get_mut(pfn);
            let marked = frame.flags.test_and_clear(PageFlags::REFERENCED);
            (u32::from(marked), frame.owner(), frame.mapcount)
        };
        if mapped == 0 {
            return Age::Referenced(marked);
        }
        let by_mappings = match (owner, locked) {
            (Owner::None, _) => Age::Referenced(0),
            (Owner::Anon(anon), _) => self.page_referenced_anon(cx, pfn, anon).await,
            (Owner::File(file), PageLocked::Yes) => self.page_referenced_file(cx, pfn, file).await,
            (Owner::File(file), PageLocked::No) => match self.trylock_page(cx, pfn).await {
                // Whoever has it locked is using it.
                None => Age::Referenced(1),
                Some(_lock) => {
                    let still = self.frames.borrow().get(pfn).owner() == owner;
                    if still {
                        self.page_referenced_file(cx, pfn, file).await
                    } else {
                        Age::Referenced(0)
                    }
                }
            },
        };
        match by_mappings {
            Age::Referenced(mappings) => Age::Referenced(marked + mappings),
            Age::Contended => Age::Contended,
        }
    }

    async fn page_referenced_anon(&self, cx: &Cx, pfn: Pfn, anon: AnonVmaId) -> Age {
        let _rcu = self.rmap_reader(cx);
        if !self.is_mapped_in(pfn, anon) {
            return Age::Referenced(0);
        }
        let lock = self.st().anon_vma(anon).lock;
        let Some(_lock) = self.lock_to_ask(cx, lock).await else {
            return Age::Contended;
        };
        if self.profile.rmap_locks == RmapLocks::RwSem && !self.is_mapped_in(pfn, anon) {
            return Age::Referenced(0);
        }
        let mut walk = self.anon_mappers(anon);
        let (mut left, mut referenced) = (self.frames.borrow().get(pfn).mapcount, 0);
        while let Some(vma) = self.next_mapper(cx, &mut walk) {
            referenced += self.page_referenced_one(cx, pfn, vma, &mut left).await;
            if left == 0 {
                break;
            }
        }
        Age::Referenced(referenced)
    }

    async fn page_referenced_file(&self, cx: &Cx, pfn: Pfn, file: FileId) -> Age {
        let lock = self.st().file(file).i_mmap_lock;
        let Some(_lock) = self.lock_to_ask(cx, lock).await else {
            return Age::Contended;
        };
        let mut walk = self.file_mappers(pfn, file);
        let (mut left, mut referenced) = (self.frames.borrow().get(pfn).mapcount, 0);
        while let Some(vma) = self.next_mapper(cx, &mut walk) {
            let locked_shared = {
                let st = self.st();
                let v = st.vma(vma);
                v.flags.is_locked() && v.sharing == Sharing::Shared
            };
            if locked_shared {
                referenced += 1;
                break;
            }
            referenced += self.page_referenced_one(cx, pfn, vma, &mut left).await;
            if left == 0 {
                break;
            }
        }
        Age::Referenced(referenced)
    }

    /// A lock of the reverse maps, for page_referenced; one that sleeps is only tried.
    async fn lock_to_ask<'a>(&self, cx: &'a Cx, lock: LockId) -> Option<Guard<'a>> {
        match self.profile.rmap_locks {
            RmapLocks::Spin => Some(cx.lock(lock).await),
            RmapLocks::RwSem => cx.try_lock(lock).await,
        }
    }

    /// `page_referenced_one`: whether this mapping used the page. `left` mappings are still to be found.
    async fn page_referenced_one(&self, cx: &Cx, pfn: Pfn, vma: VmaId, left: &mut u32) -> u32 {
        let Some(mapping) = self.page_check_address(cx, pfn, vma, Check::Quick).await else {
            return 0;
        };
        let (mm, va) = (mapping.mm, mapping.va);
        if self.st().vma(vma).flags.is_locked() {
            // Reason enough to keep the page: the others are not asked.
            *left = 0;
            return 1;
        }
        let primary = self.ptep_clear_flush_young(cx, &mapping).await;
        let under_ptl = self.notify_young(cx, mm, Point::AfterFlush, va).await;
        drop(mapping);
        let after_ptl = self.notify_young(cx, mm, Point::AfterPtl, va).await;
        *left = left.saturating_sub(1);
        u32::from([primary, under_ptl, after_ptl].contains(&Young::Yes))
    }

    /// `try_to_unmap`; the page is locked.
    pub(crate) async fn try_to_unmap(&self, cx: &Cx, pfn: Pfn, purpose: UnmapFor) -> Unmapped {
        let _span = cx.span("try_to_unmap");
        let owner = self.frames.borrow().get(pfn).owner();
        let result = match owner {
            Owner::None => Unmapped::NotAll,
            Owner::Anon(anon) => match self.page_lock_anon_vma(cx, pfn, anon).await {
                None => Unmapped::NotAll,
                Some((_rcu, _lock)) => {
                    let walk = self.anon_mappers(anon);
                    self.try_to_unmap_in(cx, pfn, walk, purpose).await
                }
            },
            Owner::File(file) => {
                let lock = self.st().file(file).i_mmap_lock;
                let held = cx.lock(lock).await;
                let walk = self.file_mappers(pfn, file);
                let linear = self.try_to_unmap_in(cx, pfn, walk, purpose).await;
                let mapped = self.frames.borrow().get(pfn).mapcount > 0;
                if linear == Unmapped::NotAll && mapped {
                    self.try_to_unmap_nonlinear(cx, pfn, file, purpose, held).await
                } else {
                    linear
                }
            }
        };
        if self.frames.borrow().get(pfn).mapcount == 0 {
            Unmapped::All
        } else {
            result
        }
    }

    async fn try_to_unmap_in(&self, cx: &Cx, pfn: Pfn, walk: VmaWalk, purpose: UnmapFor) -> Unmapped {
        let mut walk = walk;
        while let Some(vma) = self.next_mapper(cx, &mut walk) {
            let one = self.try_to_unmap_one(cx, pfn, vma, purpose).await;
            if one == Unmapped::Wanted || self.frames.borrow().get(pfn).mapcount == 0 {
                return one;
            }
        }
        Unmapped::NotAll
    }

    /// `try_to_unmap_one`.
    async fn try_to_unmap_one(&self, cx: &Cx, pfn: Pfn, vma: VmaId, purpose: UnmapFor) -> Unmapped {
        let Some((mm, at)) = self.address_in(pfn, vma) else {
            return Unmapped::NotAll;
        };
        let unmapped = self.unmap_one(cx, pfn, vma, purpose);
        self.in_page_bracket(cx, mm, Path::Unmap, at, unmapped).await
    }

    async fn unmap_one(&self, cx: &Cx, pfn: Pfn, vma: VmaId, purpose: UnmapFor) -> Unmapped {
        let Some(mapping) = self.page_check_address(cx, pfn, vma, Check::Quick).await else {
            return Unmapped::NotAll;
        };
        let (mm, va) = (mapping.mm, mapping.va);
        if purpose == UnmapFor::Reclaim {
            if self.st().vma(vma).flags.is_locked() {
                return Unmapped::Wanted;
            }
            let primary = self.ptep_clear_flush_young(cx, &mapping).await;
            let secondary = self.notify_young(cx, mm, Point::AfterFlush, va).await;
            if primary == Young::Yes || secondary == Young::Yes {
                return Unmapped::Wanted;
            }
        }
        let entry = self.ptep_clear_flush(cx, &mapping).await;
        self.notify_page(cx, mm, (Path::Unmap, Point::AfterFlush), va, Some(pfn))
            .await;
        if entry.dirty() {
            self.set_page_dirty(cx, pfn).await;
        }
        self.name_slot(cx, mm, pfn).await;
        self.leave_in_place(cx, &mapping, entry, pfn, purpose);
        self.st().metrics.rmap_unmapped += 1;
        // The mapping's reference: the page stays until everybody was told.
        if self.table.at(Path::Unmap, Point::AfterPtl).is_none() {
            self.put_page(cx, pfn).await;
            drop(mapping);
        } else {
            drop(mapping);
            self.notify_page(cx, mm, (Path::Unmap, Point::AfterPtl), va, Some(pfn))
                .await;
            self.put_page(cx, pfn).await;
        }
        Unmapped::NotAll
    }

    /// The entry of an anonymous page will name its slot: one use more of that, and the address space
    /// is one with swap entries.
    async fn name_slot(&self, cx: &Cx, mm: MmId, pfn: Pfn) {
        let slot = self.st().swap.slot_of(pfn);
        if let Some(slot) = slot {
            let named = self.swap_duplicate(cx, slot).await;
            debug_assert_eq!(named, Some(slot), "the cache keeps the slot in use");
            self.join_mmlist(cx, mm).await;
        }
    }

    /// What takes the entry's place, rss and `page_remove_rmap`.
    fn leave_in_place(&self, cx: &Cx, mapping: &Mapping<'_>, entry: Entry, pfn: Pfn, purpose: UnmapFor) {
        let mut st = self.st();
        let mut frames = self.frames();
        let frame = frames.get_mut(pfn);
        let access = if entry.writable() {
            MigrationAccess::Write
        } else {
            MigrationAccess::Read
        };
        let slot = st.swap.slot_of(pfn);
        // A page in the swap cache is found there by whoever faults, also when it has moved.
        let left = match (slot, purpose) {
            (Some(slot), _) => NonPresent::Swap(slot).entry(),
            (None, UnmapFor::Migration) => NonPresent::Migration(pfn, access).entry(),
            (None, UnmapFor::Reclaim) => Entry::NONE,
        };
        self.set_pte(cx, &mut st, mapping.table, mapping.index, left);
        // An entry that migrates is still counted: it will map the page's successor.
        if slot.is_some() || purpose == UnmapFor::Reclaim {
            let mm = st.mm_mut(mapping.mm);
            if frame.is_anon() {
                mm.anon_rss -= 1;
            } else {
                mm.file_rss -= 1;
            }
        }
        frame.mapcount -= 1;
        if !frame.is_anon() {
            self.check_dirty_kept(pfn, frame);
        }
    }

    /// `page_mkclean`: writes to the page fault from now on. Returns how many entries were changed. The
    /// page is locked.
    pub(crate) async fn page_mkclean(&self, cx: &Cx, pfn: Pfn) -> u32 {
        let _span = cx.span("page_mkclean");
        let (owner, mapped) = {
            let frames = self.frames.borrow();
            let frame = frames.get(pfn);
            (frame.owner(), frame.mapcount > 0)
        };
        let Owner::File(file) = owner else { return 0 };
        if !mapped {
            return 0;
        }
        let lock = self.st().file(file).i_mmap_lock;
        let _lock = cx.lock(lock).await;
        let mut cleaned = 0;
        let mut walk = self.file_mappers(pfn, file);
        while let Some(vma) = self.next_mapper(cx, &mut walk) {
            if self.st().vma(vma).sharing == Sharing::Shared {
                cleaned += self.page_mkclean_one(cx, pfn, vma).await;
            }
        }
        cleaned
    }

    /// `page_mkclean_one`.
    async fn page_mkclean_one(&self, cx: &Cx, pfn: Pfn, vma: VmaId) -> u32 {
        let Some((mm, at)) = self.address_in(pfn, vma) else {
            return 0;
        };
        let cleaned = self.clean_one(cx, pfn, vma);
        self.in_page_bracket(cx, mm, Path::Mkclean, at, cleaned).await
    }

    async fn clean_one(&self, cx: &Cx, pfn: Pfn, vma: VmaId) -> u32 {
        let check = match self.profile.mkclean_check {
            MkcleanCheck::Quick => Check::Quick,
            MkcleanCheck::Sync => Check::Sync,
        };
        let Some(mapping) = self.page_check_address(cx, pfn, vma, check).await else {
            return 0;
        };
        if !mapping.entry.dirty() && !mapping.entry.writable() {
            return 0;
        }
        let (mm, va) = (mapping.mm, mapping.va);
        let entry = self.ptep_clear_flush(cx, &mapping).await;
        self.notify_page(cx, mm, (Path::Mkclean, Point::AfterFlush), va, Some(pfn))
            .await;
        let clean = entry.without_write().without_dirty();
        self.set_pte(cx, &mut self.st(), mapping.table, mapping.index, clean);
        self.st().metrics.rmap_cleaned += 1;
        drop(mapping);
        self.notify_page(cx, mm, (Path::Mkclean, Point::AfterPtl), va, Some(pfn))
            .await;
        1
    }

    /// `page_lock_anon_vma`: the family's lock, unless no entry maps the page. In the sleepable kernel the
    /// lock may be slept for, so no RCU reader is held around it, and the page may be unmapped meanwhile
    /// (host-mm-paths E, point 3).
    async fn page_lock_anon_vma<'a>(
        &self,
        cx: &'a Cx,
        pfn: Pfn,
        anon: AnonVmaId,
    ) -> Option<(Option<ReaderGuard<'a>>, Guard<'a>)> {
        let rcu = self.rmap_reader(cx);
        if !self.is_mapped_in(pfn, anon) {
            return None;
        }
        let lock: LockId = self.st().anon_vma(anon).lock;
        let held = cx.lock(lock).await;
        let still = self.profile.rmap_locks == RmapLocks::Spin || self.is_mapped_in(pfn, anon);
        still.then_some((rcu, held))
    }

    /// What keeps an anon_vma whose lock is spun for.
    fn rmap_reader<'a>(&self, cx: &'a Cx) -> Option<ReaderGuard<'a>> {
        (self.profile.rmap_locks == RmapLocks::Spin).then(|| cx.read_lock(self.rcu))
    }

    /// Whether a page is anonymous memory of a family, and some entry maps it.
    fn is_mapped_in(&self, pfn: Pfn, anon: AnonVmaId) -> bool {
        let frames = self.frames.borrow();
        let frame = frames.get(pfn);
        frame.owner() == Owner::Anon(anon) && frame.mapcount > 0
    }

    /// `vma_address`: where a VMA would map a page.
    fn address_in(&self, pfn: Pfn, vma: VmaId) -> Option<(MmId, Va)> {
        let st = self.st();
        let index = self.frames.borrow().get(pfn).index();
        let page = PgoffRange::new(index, index).expect("one page");
        let at = st.vma(vma).addresses_of(&page)?.start();
        Some((st.mm_of(vma), at))
    }

    /// `page_check_address`: the entry of a VMA that maps the page, with its lock.
    async fn page_check_address<'a>(
        &self,
        cx: &'a Cx,
        pfn: Pfn,
        vma: VmaId,
        check: Check,
    ) -> Option<Mapping<'a>> {
        let (mm, va, table, index, ptl) = {
            let st = self.st();
            let v = st.vma(vma);
            let index = self.frames.borrow().get(pfn).index();
            let va = v
                .addresses_of(&PgoffRange::new(index, index).expect("one page"))?
                .start();
            let mm = st.mm_of(vma);
            let table = st.tables.leaf_table(st.mm(mm).pgd, va.vpn())?;
            let at = Level::Pte.index(va);
            if check == Check::Quick && !st.tables.get(table, at).maps_page() {
                return None;
            }
            (mm, va, table, at, st.ptl(table))
        };
        let guard = match cx.lock_now(ptl) {
            Some(guard) => guard,
            None => cx.lock(ptl).await,
        };
        cx.charge(PAGE_TABLE, self.machine.costs.pte_access);
        let entry = self.st().tables.get(table, index);
        (entry.maps_page() && entry.pfn() == pfn).then_some(Mapping {
            mm,
            va,
            table,
            index,
            entry,
            ptl: guard,
        })
    }

    /// `ptep_clear_flush_young`: flushes only what was young.
    pub(crate) async fn ptep_clear_flush_young(&self, cx: &Cx, mapping: &Mapping<'_>) -> Young {
        let entry = self.st().tables.get(mapping.table, mapping.index);
        if !entry.accessed() {
            return Young::No;
        }
        cx.charge(PAGE_TABLE, self.machine.costs.pte_access);
        let old = entry.without_accessed();
        self.set_pte(cx, &mut self.st(), mapping.table, mapping.index, old);
        self.st().metrics.rmap_young += 1;
        self.flush_tlb_page(cx, mapping.mm, mapping.va).await;
        Young::Yes
    }

    /// `ptep_clear_flush`: what the entry said, with what the walkers noted until now.
    pub(crate) async fn ptep_clear_flush(&self, cx: &Cx, mapping: &Mapping<'_>) -> Entry {
        let entry = {
            let mut st = self.st();
            let entry = st.tables.get(mapping.table, mapping.index);
            self.set_pte(cx, &mut st, mapping.table, mapping.index, Entry::NONE);
            entry
        };
        cx.charge(PAGE_TABLE, self.machine.costs.pte_access);
        self.touch_lines(cx, work::RMAP);
        self.flush_tlb_page(cx, mapping.mm, mapping.va).await;
        entry
    }
}
