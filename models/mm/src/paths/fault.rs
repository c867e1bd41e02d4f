//! `do_page_fault`, `handle_mm_fault` and what they dispatch to.
//!
//! Follows arch/x86/mm/fault.c and mm/memory.c of 2.6.27 (host-mm-paths B.5). mmap_sem is held for
//! read throughout. The pte is looked at unlocked, the page is prepared, and the pte is looked at
//! again under its lock before it is set: whoever lost the race gives the page back. Read faults on
//! anonymous memory allocate, too (no zero page in 2.6.27). x86 flushes whenever a present pte
//! changes on a write, and also when it finds nothing to change (`ptep_set_access_flags`).
//!
//! Copy on write: get_page(old); drop the pte lock; allocate and copy; retake, recheck; clear and
//! flush the pte; tell the secondary MMUs; only then set the new pte. Under the sleepable design
//! they are told after the lock was dropped, while the old page is still held.
//!
//! An entry of a nonlinear mapping that holds a file offset is served with that page of the file, an
//! empty one with the linear page (host-mm-paths B.15).
//!
//! An entry whose page migrates makes the fault wait until it is there (migrate.rs), with mmap_sem held;
//! then it is tried again.
//!
//! Deviations: an access without memory is refused instead of killing the task.

use sim::{Cx, Guard, LockId};
use x86::{Access, Entry, Level, Pfn, Pgoff, TableId, Va};

use crate::FileId;
use crate::access::Refused;
use crate::account::{BOOKKEEPING, ENTRY, PAGE_COPY, PAGE_TABLE};
use crate::file::CachedPage;
use crate::frame::{LruList, Owner, PageFlags};
use crate::kernel::Kernel;
use crate::lru::Room;
use crate::mm::{AnonVmaId, MmId};
use crate::notifier::{Path, Point};
use crate::paths::stack::Grown;
use crate::profile::work;
use crate::swapfile::Shared;
use crate::swapops::NonPresent;
use crate::vma::{Backing, Sharing, VmaId};

/// Where a fault happened.
#[derive(Clone, Copy)]
pub(super) struct Fault {
    pub(super) mm: MmId,
    pub(super) vma: VmaId,
    pub(super) va: Va,
    pub(super) access: Access,
    pub(super) table: TableId,
    pub(super) index: usize,
    pub(super) ptl: LockId,
}

impl Kernel {
    /// `do_page_fault`.
    pub(crate) async fn do_page_fault(
        &self,
        cx: &Cx,
        mm: MmId,
        va: Va,
        access: Access,
    ) -> Result<(), Refused> {
        let _span = cx.span("do_page_fault");
        cx.charge(ENTRY, self.machine.costs.exception_entry_exit);
        let sem = {
            let mut st = self.st();
            st.metrics.faults_total += 1;
            st.mm(mm).mmap_sem
        };
        let _sem = match cx.lock_shared_now(sem) {
            Some(guard) => guard,
            None => cx.lock_shared(sem).await,
        };
        let served = match self.find_extend_vma(cx, mm, va, Grown::Untouched).await {
            Some(vma) => self.handle_mm_fault(cx, mm, vma, va, access).await,
            None => Err(Refused::NoMapping),
        };
        if served.is_err() {
            self.st().metrics.faults_refused += 1;
        }
        served.map(|_| ())
    }

    /// `handle_mm_fault` with the check of rights before it; mmap_sem is held for read, or for write.
    pub(crate) async fn handle_mm_fault(
        &self,
        cx: &Cx,
        mm: MmId,
        vma: VmaId,
        va: Va,
        access: Access,
    ) -> Result<Served, Refused> {
        if let Backing::Huge(file) = self.check_rights(vma, access)? {
            self.hugetlb_fault(cx, mm, (vma, file), va, access).await?;
            return Ok(Served::Otherwise);
        }
        let table = {
            let st = self.st();
            st.tables.leaf_table(st.mm(mm).pgd, va.vpn())
        };
        let table = match table {
            Some(table) => table,
            None => self.pte_alloc(cx, mm, va).await,
        };
        let index = Level::Pte.index(va);
        let (ptl, entry) = {
            let st = self.st();
            (st.ptl(table), st.tables.get(table, index))
        };
        let fault = Fault {
            mm,
            vma,
            va,
            access,
            table,
            index,
            ptl,
        };
        self.handle_pte_fault(cx, fault, entry).await
    }

    /// VM_READ or VM_WRITE, as the access wants. Drivers' mappings have no pages to fault in.
    fn check_rights(&self, vma: VmaId, access: Access) -> Result<Backing, Refused> {
        let st = self.st();
        let v = st.vma(vma);
        let allowed = if access.is_write() {
            v.prot.can_write()
        } else {
            v.prot.can_read()
        };
        if allowed && v.backing != Backing::Driver {
            Ok(v.backing)
        } else {
            Err(Refused::NoMapping)
        }
    }

    /// `handle_pte_fault`: by what the entry said, unlocked.
    async fn handle_pte_fault(&self, cx: &Cx, fault: Fault, entry: Entry) -> Result<Served, Refused> {
        if entry.present() {
            return self.handle_present_pte(cx, fault, entry).await;
        }
        match NonPresent::of(entry) {
            Some(NonPresent::File(index)) => self.do_nonlinear_fault(cx, fault, index).await?,
            Some(NonPresent::Swap(slot)) => return self.do_swap_page(cx, fault, slot).await,
            Some(NonPresent::Migration(..)) => self.migration_entry_wait(cx, &fault).await,
            None => {
                let backing = self.st().vma(fault.vma).backing;
                match backing {
                    Backing::Anonymous => self.do_anonymous_page(cx, fault).await?,
                    Backing::File(file) => self.do_linear_fault(cx, fault, file).await?,
                    Backing::Huge(_) | Backing::Driver => unreachable!("served or refused before"),
                }
            }
        }
        Ok(Served::Otherwise)
    }

    /// Takes the pte lock and tells whether the entry is still what it was.
    pub(super) async fn relock<'a>(
        &self,
        cx: &'a Cx,
        fault: &Fault,
        expected: Entry,
    ) -> (Guard<'a>, Entry, Still) {
        let guard = match cx.lock_now(fault.ptl) {
            Some(guard) => guard,
            None => cx.lock(fault.ptl).await,
        };
        let (now, still) = self.recheck(cx, fault, expected);
        (guard, now, still)
    }

    /// `pte_same` under the pte lock. The walker may have set A or D meanwhile; then the fault is
    /// retried.
    #[inline]
    fn recheck(&self, cx: &Cx, fault: &Fault, expected: Entry) -> (Entry, Still) {
        cx.charge(PAGE_TABLE, self.machine.costs.pte_access);
        let now = self.st().tables.get(fault.table, fault.index);
        (
            now,
            if now == expected {
                Still::Same
            } else {
                Still::Changed
            },
        )
    }

    /// `anon_vma_prepare`: a neighbour's anon_vma that the VMA could be merged into, locked while it is
    /// joined, or a new one, which needs no lock. page_table_lock decides between threads; the loser
    /// gives a new one back.
    pub(crate) async fn anon_vma_prepare(&self, cx: &Cx, mm: MmId, vma: VmaId) -> AnonVmaId {
        if let Some(anon) = self.st().vma(vma).anon_vma {
            return anon;
        }
        let _span = cx.span("anon_vma_prepare");
        self.touch_lines(cx, work::FIND_VMA);
        let shared = self.find_mergeable_anon_vma(mm, vma);
        let _locked = match shared {
            Some(anon) => {
                let lock = self.st().anon_vma(anon).lock;
                Some(cx.lock(lock).await)
            }
            None => None,
        };
        let anon = match shared {
            Some(anon) => anon,
            None => {
                cx.charge(BOOKKEEPING, self.machine.costs.cacheline_touch * work::LINK_VMA);
                let mut st = self.st();
                self.new_anon_vma(&mut st)
            }
        };
        let lock = self.st().mm(mm).page_table_lock;
        let _lock = cx.lock(lock).await;
        let mut st = self.st();
        if let Some(winner) = st.vma(vma).anon_vma {
            if shared.is_none() {
                st.free_anon_vmas.push(anon);
            }
            return winner;
        }
        st.vma_mut(vma).anon_vma = Some(anon);
        st.anon_vma_mut(anon).vmas.push(vma);
        anon
    }

    /// `do_anonymous_page`.
    async fn do_anonymous_page(&self, cx: &Cx, fault: Fault) -> Result<(), Refused> {
        let _span = cx.span("do_anonymous_page");
        let known = self.st().vma(fault.vma).anon_vma;
        let anon = match known {
            Some(anon) => anon,
            None => self.anon_vma_prepare(cx, fault.mm, fault.vma).await,
        };
        let pfn = match self.alloc_page(cx) {
            Ok(pfn) => pfn,
            Err(_) => {
                let reclaimed = self.alloc_pages_slowpath(cx).await;
                reclaimed.map_err(|_| Refused::OutOfMemory)?
            }
        };
        cx.charge(PAGE_COPY, self.machine.costs.clear_page);
        let _ptl = match cx.lock_now(fault.ptl) {
            Some(guard) => guard,
            None => cx.lock(fault.ptl).await,
        };
        let (_, still) = self.recheck(cx, &fault, Entry::NONE);
        if still == Still::Changed {
            self.put_page(cx, pfn).await;
            return Ok(());
        }
        if self.lru_pagevec_add(cx, pfn, LruList::Active) == Room::None {
            self.drain_pagevec(cx, LruList::Active).await;
        }
        self.install_anon(cx, &fault, anon, pfn);
        let mut st = self.st();
        st.metrics.faults_anon += 1;
        st.mm_mut(fault.mm).anon_rss += 1;
        Ok(())
    }

    /// `page_add_new_anon_rmap` and `set_pte_at` under the pte lock.
    fn install_anon(&self, cx: &Cx, fault: &Fault, anon: AnonVmaId, pfn: Pfn) {
        let mut st = self.st();
        let vma = st.vma(fault.vma);
        let index = vma.pgoff_of(fault.va);
        let rights = vma.rights();
        // `maybe_mkwrite(pte_mkdirty(..))`: dirty, whether or not it may be written.
        let entry = Entry::leaf(pfn, rights).with_accessed().with_dirty();
        self.set_pte(cx, &mut st, fault.table, fault.index, entry);
        drop(st);
        let mut frames = self.frames();
        let frame = frames.get_mut(pfn);
        frame.set_owner(Owner::Anon(anon));
        frame.set_index(index);
        frame.mapcount = 1;
        drop(frames);
        cx.charge(PAGE_TABLE, self.machine.costs.pte_access);
        self.touch_lines(cx, work::RMAP);
    }

    /// `do_linear_fault`: the page's place in the file follows from its address.
    async fn do_linear_fault(&self, cx: &Cx, fault: Fault, file: FileId) -> Result<(), Refused> {
        let index = self.st().vma(fault.vma).pgoff_of(fault.va);
        self.do_fault(cx, fault, file, index, Entry::NONE).await
    }

    /// `do_nonlinear_fault`: the entry says which page of the file belongs there.
    async fn do_nonlinear_fault(&self, cx: &Cx, fault: Fault, index: Pgoff) -> Result<(), Refused> {
        let file = {
            let mut st = self.st();
            st.metrics.faults_nonlinear += 1;
            let v = st.vma(fault.vma);
            debug_assert!(
                v.is_nonlinear(),
                "file-offset entries are those of nonlinear mappings"
            );
            v.file().expect("a nonlinear mapping has a file")
        };
        self.do_fault(cx, fault, file, index, NonPresent::File(index).entry())
            .await
    }

    /// `__do_fault`: a page of a file, in place of the entry that asked for it.
    async fn do_fault(
        &self,
        cx: &Cx,
        fault: Fault,
        file: FileId,
        index: Pgoff,
        asked: Entry,
    ) -> Result<(), Refused> {
        let _span = cx.span("__do_fault");
        let private_write = {
            let st = self.st();
            st.vma(fault.vma).sharing == Sharing::Private && fault.access.is_write()
        };
        let (page, locked) = self.filemap_fault(cx, file, index).await?;
        if private_write {
            debug_assert_eq!(asked, Entry::NONE, "only shared mappings are nonlinear");
            return self.map_copy(cx, fault, page, locked).await;
        }
        let write = fault.access.is_write();
        let locked = if write {
            match self.fault_mkwrite(cx, file, page, locked).await? {
                Some(locked) => locked,
                None => return Ok(()),
            }
        } else {
            locked
        };
        let (ptl, _, still) = self.relock(cx, &fault, asked).await;
        if still == Still::Same {
            self.install_file_page(cx, &fault, page.pfn);
            // Keeps the page until it is marked dirty below.
            self.frames().get_page(page.pfn);
        }
        drop(ptl);
        drop(locked);
        if still == Still::Same && write {
            self.set_page_dirty(cx, page.pfn).await;
        }
        self.put_page(cx, page.pfn).await;
        Ok(())
    }

    /// The part of `__do_fault` for a write to a private mapping: it gets a copy, made while the page is locked.
    async fn map_copy(
        &self,
        cx: &Cx,
        fault: Fault,
        page: CachedPage,
        locked: Guard<'_>,
    ) -> Result<(), Refused> {
        let anon = self.anon_vma_prepare(cx, fault.mm, fault.vma).await;
        let copied = match self.alloc_page_or_reclaim(cx).await {
            Ok(copy) => {
                self.copy_page(cx, page.pfn, copy);
                self.install_copy(cx, &fault, anon, copy).await;
                Ok(())
            }
            Err(_) => Err(Refused::OutOfMemory),
        };
        drop(locked);
        self.put_page(cx, page.pfn).await;
        copied
    }

    async fn install_copy(&self, cx: &Cx, fault: &Fault, anon: AnonVmaId, copy: Pfn) {
        let (_ptl, _, still) = self.relock(cx, fault, Entry::NONE).await;
        if still == Still::Changed {
            self.put_page(cx, copy).await;
            return;
        }
        self.lru_cache_add(cx, copy, LruList::Active).await;
        self.install_anon(cx, fault, anon, copy);
        let mut st = self.st();
        st.metrics.faults_cow += 1;
        st.mm_mut(fault.mm).anon_rss += 1;
    }

    fn install_file_page(&self, cx: &Cx, fault: &Fault, pfn: Pfn) {
        let mut st = self.st();
        let vma = st.vma(fault.vma);
        let mut rights = vma.rights();
        // A private page of the file itself is never writable; a shared one only after a write, if
        // somebody accounts dirty pages.
        let shared = vma.sharing == Sharing::Shared;
        let write = fault.access.is_write() && shared;
        if !shared || (!write && st.vma_wants_writenotify(vma)) {
            rights = rights.without(x86::Rights::WRITE);
        }
        let mut entry = Entry::leaf(pfn, rights).with_accessed();
        if write {
            entry = entry.with_dirty();
        }
        self.set_pte(cx, &mut st, fault.table, fault.index, entry);
        st.metrics.faults_file += 1;
        st.mm_mut(fault.mm).file_rss += 1;
        drop(st);
        let mut frames = self.frames();
        let frame = frames.get_mut(pfn);
        frame.mapcount += 1;
        drop(frames);
        cx.charge(PAGE_TABLE, self.machine.costs.pte_access);
        self.touch_lines(cx, work::RMAP);
    }

    /// The part of `handle_pte_fault` for a present entry.
    async fn handle_present_pte(&self, cx: &Cx, fault: Fault, entry: Entry) -> Result<Served, Refused> {
        let (ptl, now, still) = self.relock(cx, &fault, entry).await;
        if still == Still::Changed {
            return Ok(Served::Otherwise);
        }
        if fault.access.is_write() && !now.writable() {
            return self.do_wp_page(cx, fault, now, ptl).await;
        }
        // `ptep_set_access_flags`: young (and dirty); a read fault does not even write.
        if fault.access.is_write() {
            let updated = now.with_accessed().with_dirty();
            self.set_pte(cx, &mut self.st(), fault.table, fault.index, updated);
            self.flush_tlb_page(cx, fault.mm, fault.va).await;
        }
        self.st().metrics.faults_spurious += 1;
        drop(ptl);
        Ok(Served::Otherwise)
    }

    /// `do_wp_page`: a write to a present read-only entry; the pte lock is held.
    pub(super) async fn do_wp_page(
        &self,
        cx: &Cx,
        fault: Fault,
        entry: Entry,
        ptl: Guard<'_>,
    ) -> Result<Served, Refused> {
        let _span = cx.span("do_wp_page");
        let old = entry.pfn();
        let shared = self.st().vma(fault.vma).sharing == Sharing::Shared;
        if shared {
            return self.wp_page_shared(cx, fault, entry, ptl).await;
        }
        let anon = self.frames.borrow().get(old).is_anon();
        let sole_owner = anon && self.is_sole_owner(cx, old).await;
        if sole_owner {
            let writable = entry.with_write().with_accessed().with_dirty();
            self.set_pte(cx, &mut self.st(), fault.table, fault.index, writable);
            self.flush_tlb_page(cx, fault.mm, fault.va).await;
            self.st().metrics.faults_reuse += 1;
            drop(ptl);
            return Ok(Served::MayWrite);
        }
        self.frames().get_page(old);
        drop(ptl);
        self.wp_page_copy(cx, fault, entry).await
    }

    /// Whether nobody else maps an anonymous page or names its slot. It takes PG_locked to know, and
    /// does not wait for it.
    async fn is_sole_owner(&self, cx: &Cx, pfn: Pfn) -> bool {
        let sole = || {
            let frames = self.frames.borrow();
            let frame = frames.get(pfn);
            (!frame.flags.has(PageFlags::SWAPCACHE)).then_some(frame.mapcount == 1)
        };
        if sole().is_some() {
            if !self.pass_page_lock(cx, pfn).await {
                return false;
            }
            if let Some(sole) = sole() {
                return sole;
            }
        }
        match self.trylock_page(cx, pfn).await {
            Some(_locked) => self.can_share_swap_page(cx, pfn).await == Shared::No,
            None => false,
        }
    }

    /// The copying half of `do_wp_page`; a reference to the old page is held.
    async fn wp_page_copy(&self, cx: &Cx, fault: Fault, entry: Entry) -> Result<Served, Refused> {
        let old = entry.pfn();
        let anon = self.anon_vma_prepare(cx, fault.mm, fault.vma).await;
        let Ok(new) = self.alloc_page_or_reclaim(cx).await else {
            self.put_page(cx, old).await;
            return Err(Refused::OutOfMemory);
        };
        self.copy_page(cx, old, new);
        let replaced = self.replace_page(cx, fault, entry, anon, new);
        self.in_page_bracket(cx, fault.mm, Path::Cow, fault.va, replaced)
            .await
    }

    /// The copy takes the page's place, unless somebody was faster. Puts the references that are over.
    async fn replace_page(
        &self,
        cx: &Cx,
        fault: Fault,
        entry: Entry,
        anon: AnonVmaId,
        new: Pfn,
    ) -> Result<Served, Refused> {
        let old = entry.pfn();
        let (ptl, now, still) = self.relock(cx, &fault, entry).await;
        if still == Still::Changed {
            self.put_page(cx, new).await;
            self.put_page(cx, old).await;
            drop(ptl);
            return Ok(Served::Otherwise);
        }
        // ptep_clear_flush, and whom the design tells here.
        self.set_pte(cx, &mut self.st(), fault.table, fault.index, Entry::NONE);
        self.flush_tlb_page(cx, fault.mm, fault.va).await;
        self.notify_page(cx, fault.mm, (Path::Cow, Point::AfterFlush), fault.va, Some(old))
            .await;
        self.check_flushed(cx, fault.mm, fault.va, old);
        self.install_anon(cx, &fault, anon, new);
        self.lru_cache_add(cx, new, LruList::Active).await;
        self.account_copy(cx, &fault, now.pfn());
        // The design may tell its subscribers without the lock; else it is held until both references are put.
        let ptl = match self.table.at(Path::Cow, Point::AfterPtl) {
            Some(_) => {
                drop(ptl);
                self.notify_page(cx, fault.mm, (Path::Cow, Point::AfterPtl), fault.va, Some(old))
                    .await;
                None
            }
            None => Some(ptl),
        };
        // The entry's reference, then the one taken above.
        self.put_page(cx, old).await;
        self.put_page(cx, old).await;
        drop(ptl);
        Ok(Served::MayWrite)
    }

    fn account_copy(&self, cx: &Cx, fault: &Fault, old: Pfn) {
        let mut frames = self.frames();
        let frame = frames.get_mut(old);
        frame.mapcount -= 1;
        let was_file = !frame.is_anon();
        if was_file {
            self.check_dirty_kept(old, frame);
        }
        drop(frames);
        self.touch_lines(cx, work::RMAP);
        let mut st = self.st();
        st.metrics.faults_cow += 1;
        if was_file {
            let mm = st.mm_mut(fault.mm);
            mm.file_rss -= 1;
            mm.anon_rss += 1;
        }
    }
}

/// How a fault was served.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Served {
    /// `do_wp_page` made the page writable or copied it (VM_FAULT_WRITE): what copy on write has to do is
    /// done, whatever becomes of the entry's write right afterwards.
    MayWrite,
    /// In another way, or by somebody else.
    Otherwise,
}

/// `pte_same`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Still {
    Same,
    Changed,
}
