//! Faults in mappings of huge pages: `hugetlb_fault`, `hugetlb_no_page`, `hugetlb_cow`, and
//! `follow_hugetlb_page` for get_user_pages.
//!
//! Follows mm/hugetlb.c of 2.6.27 (host-mm-paths B.17). All of them are served one after the other, in the whole
//! system: `hugetlb_instantiation_mutex` is held from the first look at the entry to the end, clearing or
//! copying 2 MiB included, inside mmap_sem (read). Inside it PG_locked, which keeps truncation away, then
//! page_table_lock; i_size is looked at again under both.
//!
//! A private page is mapped read-only and handed to `hugetlb_cow` at once if the fault is a write, which finds
//! that nobody else has it and makes it writable, with a flush of one page: so the first write to a private huge
//! page flushes, which that to an ordinary page does not. `hugetlb_cow` drops page_table_lock to copy; then
//! clears and flushes the one entry under it and puts the new page there. It tells **no subscriber**, in any
//! design: a secondary MMU keeps its translation to the old page. With a reference it reads what nobody writes
//! any more; without one it can reach a page that was freed, and the oracle says so.
//!
//! The owner of a private mapping for whom no page is left takes the old page away from everybody else:
//! `unmap_ref_private` walks i_mmap **without its lock and takes i_mmap_lock of each mapping it unmaps while
//! page_table_lock is held**, the wrong way round (mended in 2009 by b76c8cfbff9 and 4eb2b1dcd59). The lock
//! checker objects, as it should. It also looks at the wrong place unless the mapping begins at the start of
//! its file (`vm_pgoff >> PAGE_SHIFT`); then the page stays shared, and the kernel stops at a BUG_ON.
//!
//! Deviations: the reference's one flush of `hugetlb_cow` is that of the generic code. include/asm-x86/hugetlb.h
//! leaves `huge_ptep_clear_flush` empty in these releases, so on x86 not even that happened, and other CPUs of
//! the process read the old page until something else flushed. For a write to a read-only entry 2.6.27 looks
//! the cached page up, sleeping for its lock, under page_table_lock; here it is looked up before, as later
//! kernels do, since an atomic context that sleeps would end every run. A private page's PG_locked is left out:
//! nobody else can find the page. Entries are looked up again after each wait, where the kernel keeps the
//! pointer. Contents are always at hand.

use sim::{Cx, Guard};
use x86::{Access, Entry, PAGE_SHIFT, Pfn, Pgoff, Rights, Va, VaRange};

use crate::FileId;
use crate::access::Refused;
use crate::account::{PAGE_ALLOC, PAGE_COPY, PAGE_TABLE};
use crate::file::CachedPage;
use crate::frame::{OutOfMemory, PageFlags};
use crate::hugetlb::{HPAGE, HPAGE_PAGES, Promised, Reserve};
use crate::kernel::Kernel;
use crate::mm::MmId;
use crate::paths::Gup;
use crate::paths::gup::Reference;
use crate::paths::hugetlb::vm_page_prot;
use crate::profile::work;
use crate::vma::{Sharing, VmaId};

/// A BUG_ON of the kernel: it stops there.
pub const KERNEL_BUG: &str = "kernel-bug";

/// Where a fault happened.
#[derive(Clone, Copy)]
struct HugeFault {
    mm: MmId,
    vma: VmaId,
    file: FileId,
    /// First byte of the huge page.
    va: Va,
    /// Of the huge page in the page cache.
    index: Pgoff,
    access: Access,
    sharing: Sharing,
}

/// Whether a page was found to copy to.
enum Copy {
    To(Pfn),
    /// The old page is ours alone.
    NotNeeded,
    Refused(Refused),
}

impl Kernel {
    /// `hugetlb_fault`; mmap_sem is held for read and the right was checked.
    pub(super) async fn hugetlb_fault(
        &self,
        cx: &Cx,
        mm: MmId,
        (vma, file): (VmaId, FileId),
        va: Va,
        access: Access,
    ) -> Result<(), Refused> {
        let _span = cx.span("hugetlb_fault");
        let va = HPAGE.floor(va.vpn()).va();
        let fault = {
            let st = self.st();
            HugeFault {
                mm,
                vma,
                file,
                va,
                index: Pgoff::new(st.huge_index(vma, va)),
                access,
                sharing: st.vma(vma).sharing,
            }
        };
        self.huge_pte_alloc(cx, mm, vma, va).await;
        let _instantiation = cx.lock(self.locks.hugetlb).await;
        let entry = self.huge_ptep_get(cx, &fault);
        if entry.is_none() {
            return self.hugetlb_no_page(cx, &fault).await;
        }
        let breaks_cow = access.is_write() && !entry.writable();
        let cached = if breaks_cow {
            self.find_lock_huge_page(cx, file, fault.index).await
        } else {
            None
        };
        let ptl = self.lock_page_table(cx, &fault).await;
        let done = if breaks_cow && self.huge_ptep_get(cx, &fault) == entry {
            let pagecache = cached.as_ref().map(|(page, _)| page.pfn);
            self.hugetlb_cow(cx, &fault, entry, pagecache, ptl).await.1
        } else {
            // Somebody was faster: the entry is not even written.
            self.st().metrics.faults_spurious += 1;
            drop(ptl);
            Ok(())
        };
        if let Some((page, locked)) = cached {
            drop(locked);
            self.put_page(cx, page.pfn).await;
        }
        done
    }

    async fn lock_page_table<'a>(&self, cx: &'a Cx, fault: &HugeFault) -> Guard<'a> {
        let lock = self.st().mm(fault.mm).page_table_lock;
        cx.lock(lock).await
    }

    /// The entry; none if its table was unshared meanwhile.
    fn huge_ptep_get(&self, cx: &Cx, fault: &HugeFault) -> Entry {
        cx.charge(PAGE_TABLE, self.machine.costs.pte_access);
        let st = self.st();
        st.huge_pte_offset(fault.mm, fault.va)
            .map_or(Entry::NONE, |(table, index)| st.tables.get(table, index))
    }

    /// `set_huge_pte_at`, if the table is still there. True if it was.
    fn set_huge_pte(&self, cx: &Cx, fault: &HugeFault, entry: Entry) -> bool {
        cx.charge(PAGE_TABLE, self.machine.costs.pte_access);
        let mut st = self.st();
        let place = st.huge_pte_offset(fault.mm, fault.va);
        if let Some((table, index)) = place {
            st.tables.set(table, index, entry);
        }
        place.is_some()
    }

    /// `make_huge_pte`.
    fn make_huge_pte(&self, fault: &HugeFault, pfn: Pfn, rights: Rights) -> Entry {
        let writable = self.st().vma(fault.vma).prot.can_write() && rights.writable();
        let entry = Entry::leaf_of(HPAGE, pfn, rights).with_accessed();
        if writable { entry.with_dirty() } else { entry }
    }

    /// `hugetlb_no_page`; the mutex is held.
    async fn hugetlb_no_page(&self, cx: &Cx, fault: &HugeFault) -> Result<(), Refused> {
        let _span = cx.span("hugetlb_no_page");
        if self.st().vma(fault.vma).reserve == Reserve::Unmapped {
            return Err(Refused::TakenBack);
        }
        let (pfn, locked) = match self.find_lock_huge_page(cx, fault.file, fault.index).await {
            Some((page, locked)) => (page.pfn, Some(locked)),
            None => self.new_huge_page(cx, fault).await?,
        };
        let ptl = self.lock_page_table(cx, fault).await;
        let inside = self.is_inside(fault);
        let ready = inside && self.huge_ptep_get(cx, fault).is_none();
        let rights = vm_page_prot(self.st().vma(fault.vma));
        let entry = self.make_huge_pte(fault, pfn, rights);
        if !ready || !self.set_huge_pte(cx, fault, entry) {
            drop(ptl);
            drop(locked);
            self.put_page(cx, pfn).await;
            return if inside { Ok(()) } else { Err(Refused::BeyondEof) };
        }
        self.st().metrics.faults_huge += 1;
        let done = if fault.access.is_write() && fault.sharing == Sharing::Private {
            let (ptl, done) = self.hugetlb_cow(cx, fault, entry, Some(pfn), ptl).await;
            drop(ptl);
            done
        } else {
            drop(ptl);
            Ok(())
        };
        drop(locked);
        done
    }

    fn is_inside(&self, fault: &HugeFault) -> bool {
        fault.index.get() < self.st().file(fault.file).size / HPAGE_PAGES
    }

    /// A page that is not in the cache: cleared, and put there if the mapping is shared. It comes with a
    /// reference for the entry, and locked if others can find it.
    async fn new_huge_page<'a>(
        &self,
        cx: &'a Cx,
        fault: &HugeFault,
    ) -> Result<(Pfn, Option<Guard<'a>>), Refused> {
        if !self.is_inside(fault) {
            return Err(Refused::BeyondEof);
        }
        let pfn = self.alloc_huge_page(cx, fault, Promised::Page);
        let pfn = pfn.map_err(|_| Refused::OutOfMemory)?;
        for _ in 0..HPAGE_PAGES {
            cx.cond_resched().await;
            cx.charge(PAGE_COPY, self.machine.costs.clear_page);
        }
        let locked = match fault.sharing {
            Sharing::Private => None,
            Sharing::Shared => Some(self.add_huge_to_page_cache(cx, fault, pfn).await),
        };
        Ok((pfn, locked))
    }

    /// `alloc_huge_page`.
    fn alloc_huge_page(&self, cx: &Cx, fault: &HugeFault, wish: Promised) -> Result<Pfn, OutOfMemory> {
        cx.charge(PAGE_ALLOC, self.machine.costs.page_alloc);
        self.take_huge_page(fault.vma, fault.va, wish)
    }

    /// `add_to_page_cache` of a page that is locked first. Nobody can have been faster: the mutex is held.
    async fn add_huge_to_page_cache<'a>(&self, cx: &'a Cx, fault: &HugeFault, pfn: Pfn) -> Guard<'a> {
        let lock = self.page_lock(pfn);
        let locked = cx.lock(lock).await;
        let tree_lock = self.st().file(fault.file).tree_lock;
        let _irqs = cx.irq_disable();
        let _tree = cx.lock(tree_lock).await;
        let mut st = self.st();
        let page = CachedPage { pfn, lock };
        let inserted = st.file_mut(fault.file).pages.insert(fault.index.get(), page);
        debug_assert!(inserted.found.is_ok(), "the mutex keeps others out");
        self.touch_lines(cx, inserted.nodes * work::PAGE_CACHE_NODE);
        let mut frames = self.frames();
        let frame = frames.get_mut(pfn);
        frame.count += 1;
        frame.flags.set(PageFlags::CACHED);
        locked
    }

    /// `find_lock_page`: with a reference, if the page is still in the cache once it is locked.
    async fn find_lock_huge_page<'a>(
        &self,
        cx: &'a Cx,
        file: FileId,
        index: Pgoff,
    ) -> Option<(CachedPage, Guard<'a>)> {
        loop {
            let page = {
                let _tree = self.page_cache_read(cx, file).await;
                let cached = self.st().file(file).pages.lookup(index.get());
                self.touch_lines(cx, cached.nodes * work::PAGE_CACHE_NODE);
                self.frames().get_page(cached.found?.pfn);
                cached.found?
            };
            let locked = cx.lock(page.lock).await;
            if self.st().file(file).pages.get(index.get()) == Some(page) {
                return Some((page, locked));
            }
            drop(locked);
            self.put_page(cx, page.pfn).await;
        }
    }

    /// `hugetlb_cow`; page_table_lock is held, and given back as it was found.
    async fn hugetlb_cow<'a>(
        &self,
        cx: &'a Cx,
        fault: &HugeFault,
        entry: Entry,
        pagecache: Option<Pfn>,
        ptl: Guard<'a>,
    ) -> (Guard<'a>, Result<(), Refused>) {
        let _span = cx.span("hugetlb_cow");
        let old = entry.frame(HPAGE);
        let new = match self.cow_target(cx, fault, old, pagecache).await {
            Copy::To(new) => new,
            Copy::Refused(refused) => return (ptl, Err(refused)),
            Copy::NotNeeded => {
                // set_huge_ptep_writable
                let writable = entry.with_write().with_accessed().with_dirty();
                self.set_huge_pte(cx, fault, writable);
                self.flush_tlb_page(cx, fault.mm, fault.va).await;
                self.st().metrics.faults_reuse += 1;
                return (ptl, Ok(()));
            }
        };
        drop(ptl);
        for _ in 0..HPAGE_PAGES {
            cx.cond_resched().await;
            cx.charge(PAGE_COPY, self.machine.costs.copy_page);
        }
        let ptl = self.lock_page_table(cx, fault).await;
        if self.huge_ptep_get(cx, fault) == entry {
            self.set_huge_pte(cx, fault, Entry::NONE);
            self.flush_tlb_page(cx, fault.mm, fault.va).await;
            let rights = self.st().vma(fault.vma).rights();
            let copy = self.make_huge_pte(fault, new, rights);
            self.set_huge_pte(cx, fault, copy);
            self.st().metrics.faults_huge_cow += 1;
            self.put_page(cx, old).await;
        } else {
            self.put_page(cx, new).await;
        }
        self.put_page(cx, old).await;
        (ptl, Ok(()))
    }

    /// The page to copy to, and then a reference to the old one.
    async fn cow_target(&self, cx: &Cx, fault: &HugeFault, old: Pfn, pagecache: Option<Pfn>) -> Copy {
        let alone = || self.frames.borrow().get(old).count == 1;
        if alone() {
            return Copy::NotNeeded;
        }
        // What was promised to the owner is for pages it never had.
        let owner = matches!(self.st().vma(fault.vma).reserve, Reserve::Owner(_));
        let outside_reserve = owner && pagecache != Some(old);
        let wish = if outside_reserve {
            Promised::Nothing
        } else {
            Promised::Page
        };
        self.frames().get_page(old);
        if let Ok(new) = self.alloc_huge_page(cx, fault, wish) {
            return Copy::To(new);
        }
        self.put_page(cx, old).await;
        if !outside_reserve {
            return Copy::Refused(Refused::OutOfMemory);
        }
        self.unmap_ref_private(cx, fault, old).await;
        if !alone() {
            let text =
                format!("{old} is still in use after unmap_ref_private: BUG_ON(page_count(old_page) != 1)");
            let about = Some(("pfn", u64::from(old.get())));
            cx.engine().violate(KERNEL_BUG, text, about);
            return Copy::Refused(Refused::OutOfMemory);
        }
        Copy::NotNeeded
    }

    /// `unmap_ref_private`: takes a page away from all mappings that were not promised any; page_table_lock
    /// of the owner is held.
    async fn unmap_ref_private(&self, cx: &Cx, fault: &HugeFault, page: Pfn) {
        let _span = cx.span("unmap_ref_private");
        let pgoff = {
            let st = self.st();
            let v = st.vma(fault.vma);
            let inside = fault.va.vpn().get() - v.range.start().vpn().get();
            // The kernel's mistake: vm_pgoff counts pages already.
            Pgoff::new(inside + (v.pgoff.get() >> PAGE_SHIFT))
        };
        let range = VaRange::from_pages(fault.va, HPAGE_PAGES).expect("a huge page is not empty");
        for vma in self.huge_mappers(cx, fault.file, pgoff) {
            let owner = matches!(self.st().vma(vma).reserve, Reserve::Owner(_));
            if vma == fault.vma || owner {
                continue;
            }
            self.st().metrics.huge_taken_back += 1;
            self.unmap_hugepage_range(cx, vma, range, Some(page)).await;
        }
    }

    /// `follow_hugetlb_page` of a part of a mapping, page of 4 KiB by page; mmap_sem is held. page_table_lock is
    /// held throughout, but for faults; each huge page is looked up once. Neither the entry nor the page is
    /// marked.
    pub(super) async fn follow_hugetlb_page(
        &self,
        cx: &Cx,
        mm: MmId,
        (vma, part): (VmaId, VaRange),
        (access, reference): (Access, Reference),
        found: &mut impl FnMut(Gup),
    ) -> Result<(), Refused> {
        let _span = cx.span("follow_hugetlb_page");
        let lock = self.st().mm(mm).page_table_lock;
        let mut held = cx.lock(lock).await;
        let mut rest = Some(part);
        while let Some(todo) = rest {
            cx.charge(PAGE_TABLE, self.machine.costs.pte_access);
            let Some(leaf) = self.follow_huge_pte(mm, todo.start(), access) else {
                drop(held);
                self.handle_mm_fault(cx, mm, vma, todo.start(), access).await?;
                held = cx.lock(lock).await;
                continue;
            };
            let inside = todo.start().vpn().get() % HPAGE_PAGES;
            let pages = todo.pages().min(HPAGE_PAGES - inside);
            for page in pages_of_huge(leaf, inside, pages) {
                if reference == Reference::Taken {
                    self.frames().get_page(page.pfn);
                }
                found(page);
            }
            rest = VaRange::new(todo.start().add_pages(pages), part.end());
        }
        drop(held);
        Ok(())
    }

    fn follow_huge_pte(&self, mm: MmId, va: Va, access: Access) -> Option<Entry> {
        let st = self.st();
        let (table, index) = st.huge_pte_offset(mm, va)?;
        let entry = st.tables.get(table, index);
        let usable = entry.present() && (!access.is_write() || entry.writable());
        usable.then_some(entry)
    }
}

/// Pages of 4 KiB of the huge page that a leaf maps.
pub(super) fn pages_of_huge(leaf: Entry, first: u64, pages: u64) -> impl Iterator<Item = Gup> {
    let access = if leaf.writable() {
        Access::Write
    } else {
        Access::Read
    };
    let head = leaf.frame(HPAGE).get();
    (first..first + pages).map(move |inside| Gup {
        pfn: Pfn::new(head + inside as u32),
        access,
    })
}
