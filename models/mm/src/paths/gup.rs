//! `get_user_pages`, `make_pages_present`: pages and references to them, for secondary MMUs and mlock.
//!
//! Follows mm/memory.c of 2.6.27, slow form (host-mm-paths B.16): the caller holds mmap_sem, for read
//! or (mlock) for write. Each mapping is looked up once and must have the right that is asked for.
//! Before each page others may run (`cond_resched`). `follow_page` takes the reference under the pte
//! lock if the entry is present (and writable for a write), marks the *page* dirty (for a write whose
//! entry and page are both clean: tree_lock inside the pte lock) and accessed (the second time it becomes
//! active: lru_lock inside the pte lock), and leaves the entry alone; else the fault handler
//! runs, others may run, and it is tried again. After a fault that did the work of copy on write
//! (VM_FAULT_WRITE) the entry need not be writable any more: it may have been write-protected again
//! meanwhile.
//!
//! Private anonymous memory that nobody has touched is not allocated for a read: the answer is the
//! zero page (FOLL_ANON), which is never mapped, so nobody is told when the memory is written later.
//! Locked mappings are exempt. A reference protects the frame, not the mapping.
//!
//! A page in the middle that cannot be had ends the call with the pages before it; only if there are
//! none the caller hears why.
//!
//! In a mapping of huge pages the reference is to the huge page, and the frame is one of its 512: secondary
//! MMUs map 4 KiB of it at a time, also KVM, whose 2.6.27 could have mapped 2 MiB.
//!
//! Deviation: `empty_zero_page` is part of the kernel's image; here it takes a frame of the zone when
//! it is first asked for.

use sim::Cx;
use x86::{Access, Entry, Level, Pfn, Va, VaRange};

use crate::access::Refused;
use crate::account::PAGE_TABLE;
use crate::frame::{PageFlags, Watermark};
use crate::hugetlb::{HPAGE, HPAGE_PAGES};
use crate::kernel::Kernel;
use crate::mm::MmId;
use crate::paths::fault::Served;
use crate::paths::stack::Grown;
use crate::vma::{Allowed, Backing, Sharing, Vma, VmaId};

/// A page got by [`Kernel::get_user_page`], with one reference that the caller owns.
#[must_use = "the reference must be kept or put"]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gup {
    /// The frame.
    pub pfn: Pfn,
    /// Whether the entry allowed writing.
    pub access: Access,
}

/// What happens to a page that is found (FOLL_GET).
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Reference {
    /// The caller gets a reference.
    Taken,
    /// The caller only wants the page to be present.
    NotTaken,
}

/// What a read of memory that nobody has touched gives (FOLL_ANON).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Untouched {
    /// A fault.
    Faults,
    /// The zero page.
    ReadsZero,
}

/// `foll_flags`.
#[derive(Clone, Copy)]
struct Follow {
    access: Access,
    reference: Reference,
    untouched: Untouched,
}

impl Kernel {
    /// `get_user_pages` of one page; the caller holds mmap_sem.
    ///
    /// # Errors
    /// When the address cannot be accessed that way.
    pub async fn get_user_page(&self, cx: &Cx, mm: MmId, va: Va, access: Access) -> Result<Gup, Refused> {
        let pages = self.get_user_pages(cx, mm, VaRange::page_of(va), access).await?;
        Ok(pages[0])
    }

    /// `get_user_pages`; the caller holds mmap_sem. The pages come with a reference each, in order;
    /// there may be fewer than asked for, but at least one.
    ///
    /// # Errors
    /// When the first page cannot be accessed that way.
    pub async fn get_user_pages(
        &self,
        cx: &Cx,
        mm: MmId,
        range: VaRange,
        access: Access,
    ) -> Result<Vec<Gup>, Refused> {
        let mut pages = Vec::new();
        let found = |page| pages.push(page);
        let all = self
            .walk_user_pages(cx, mm, range, access, Reference::Taken, found)
            .await;
        match all {
            Err(why) if pages.is_empty() => Err(why),
            _ => Ok(pages),
        }
    }

    /// `make_pages_present` of a range inside one mapping: for writing if that may be written. The
    /// caller holds mmap_sem, mostly for write, and goes on holding it.
    ///
    /// # Errors
    /// When a page cannot be made present; those before it are.
    pub(crate) async fn make_pages_present(&self, cx: &Cx, mm: MmId, range: VaRange) -> Result<(), Refused> {
        let _span = cx.span("make_pages_present");
        let vma = self.find_vma(cx, mm, range.start()).ok_or(Refused::NoMapping)?;
        let access = if self.st().vma(vma).prot.can_write() {
            Access::Write
        } else {
            Access::Read
        };
        self.walk_user_pages(cx, mm, range, access, Reference::NotTaken, |_| {})
            .await
    }

    async fn walk_user_pages(
        &self,
        cx: &Cx,
        mm: MmId,
        range: VaRange,
        access: Access,
        reference: Reference,
        mut found: impl FnMut(Gup),
    ) -> Result<(), Refused> {
        let _span = cx.span("get_user_pages");
        let mut rest = Some(range);
        while let Some(todo) = rest {
            let vma = self
                .find_extend_vma(cx, mm, todo.start(), Grown::Present)
                .await
                .ok_or(Refused::NoMapping)?;
            let (part, follow) = {
                let st = self.st();
                let v = st.vma(vma);
                let part = v.range.intersect(&todo).expect("it contains the first page");
                let follow = Follow {
                    access,
                    reference,
                    untouched: untouched(v, access),
                };
                if !may_get(v, access) {
                    return Err(Refused::NoMapping);
                }
                (part, follow)
            };
            if self.st().is_huge(vma) {
                self.follow_hugetlb_page(cx, mm, (vma, part), (access, reference), &mut found)
                    .await?;
                rest = VaRange::new(part.end(), range.end());
                continue;
            }
            for vpn in part.vpns() {
                cx.cond_resched().await;
                found(self.get_page_of(cx, mm, vma, vpn.va(), follow).await?);
            }
            rest = VaRange::new(part.end(), range.end());
        }
        Ok(())
    }

    /// One page: looked up, and faulted in until it is found.
    async fn get_page_of(
        &self,
        cx: &Cx,
        mm: MmId,
        vma: VmaId,
        va: Va,
        mut follow: Follow,
    ) -> Result<Gup, Refused> {
        loop {
            if let Some(page) = self.follow_page(cx, mm, va, follow).await? {
                return Ok(page);
            }
            let served = self.handle_mm_fault(cx, mm, vma, va, follow.access).await?;
            if served == Served::MayWrite {
                follow.access = Access::Read;
            }
            cx.cond_resched().await;
        }
    }

    /// `follow_page`.
    async fn follow_page(&self, cx: &Cx, mm: MmId, va: Va, follow: Follow) -> Result<Option<Gup>, Refused> {
        let table = {
            let st = self.st();
            st.tables
                .leaf_table(st.mm(mm).pgd, va.vpn())
                .map(|table| (table, st.ptl(table)))
        };
        let Some((table, ptl)) = table else {
            return self.no_page(follow);
        };
        let guard = cx.lock(ptl).await;
        cx.charge(PAGE_TABLE, self.machine.costs.pte_access);
        let entry = self.st().tables.get(table, Level::Pte.index(va));
        if !entry.present() {
            drop(guard);
            if entry.is_none() {
                return self.no_page(follow);
            }
            return Ok(None);
        }
        if follow.access.is_write() && !entry.writable() {
            return Ok(None);
        }
        Ok(Some(self.found_page(cx, entry, follow).await))
    }

    /// A present entry with the right that is asked for; its pte lock is held.
    async fn found_page(&self, cx: &Cx, entry: Entry, follow: Follow) -> Gup {
        let pfn = entry.pfn();
        if follow.reference == Reference::Taken {
            self.frames().get_page(pfn);
        }
        let dirty = self.frames.borrow().get(pfn).flags.has(PageFlags::DIRTY);
        if follow.access.is_write() && !entry.dirty() && !dirty {
            self.set_page_dirty(cx, pfn).await;
        }
        self.mark_page_accessed(cx, pfn).await;
        let access = if entry.writable() {
            Access::Write
        } else {
            Access::Read
        };
        Gup { pfn, access }
    }

    /// Nothing was ever mapped here.
    fn no_page(&self, follow: Follow) -> Result<Option<Gup>, Refused> {
        if follow.untouched == Untouched::Faults {
            return Ok(None);
        }
        let pfn = self.zero_page()?;
        if follow.reference == Reference::Taken {
            self.frames().get_page(pfn);
        }
        Ok(Some(Gup {
            pfn,
            access: Access::Read,
        }))
    }

    /// `ZERO_PAGE(0)`; the kernel keeps a reference.
    fn zero_page(&self) -> Result<Pfn, Refused> {
        let mut st = self.st();
        if let Some(pfn) = st.zero_page {
            return Ok(pfn);
        }
        let pfn = self
            .frames()
            .alloc(self.zone, Watermark::Nothing)
            .map_err(|_| Refused::OutOfMemory)?;
        st.zero_page = Some(pfn);
        Ok(pfn)
    }

    /// A lockless look at a leaf entry, as the GRU's miss handler does. Nothing keeps the answer true.
    #[must_use]
    pub fn peek_pte(&self, mm: MmId, va: Va) -> Entry {
        let st = self.st();
        let pgd = st.mm(mm).pgd;
        match st.tables.find_leaf(pgd, va.vpn()) {
            Some((table, Level::Pmd, index)) => part_of_huge(st.tables.get(table, index), va),
            _ => st.tables.leaf(pgd, va.vpn()),
        }
    }
}

/// What a leaf of a huge page says of one page of it.
fn part_of_huge(leaf: Entry, va: Va) -> Entry {
    let inside = va.vpn().get() % HPAGE_PAGES;
    let head = leaf.frame(HPAGE);
    let mut part = Entry::leaf(Pfn::new(head.get() + inside as u32), leaf.rights());
    if leaf.accessed() {
        part = part.with_accessed();
    }
    if leaf.dirty() {
        part = part.with_dirty();
    }
    part
}

/// VM_READ or VM_WRITE, and neither VM_IO nor VM_PFNMAP.
fn may_get(vma: &Vma, access: Access) -> bool {
    let right = if access.is_write() {
        vma.prot.writable
    } else {
        vma.prot.readable
    };
    right == Allowed::Yes && vma.backing != Backing::Driver
}

/// `use_zero_page`: not where VM_LOCKED or VM_SHARED is set, nor where there is a fault routine.
fn untouched(vma: &Vma, access: Access) -> Untouched {
    let anonymous = vma.backing == Backing::Anonymous && vma.sharing == Sharing::Private;
    if anonymous && !vma.flags.is_locked() && !access.is_write() {
        Untouched::ReadsZero
    } else {
        Untouched::Faults
    }
}
