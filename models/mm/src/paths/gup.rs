//! `get_user_pages`: a page and a reference to it, for secondary MMUs.
//!
//! Follows mm/memory.c of 2.6.27, slow form (host-mm-paths B.16): the caller holds mmap_sem for
//! read; `follow_page` takes the reference under the pte lock if the entry is present (and writable
//! for a write), else the fault handler runs and it is tried again. A reference protects the frame,
//! not the mapping. In a mapping of huge pages the reference is to the huge page, and the frame is one of its
//! 512: secondary MMUs map 4 KiB of it at a time, also KVM, whose 2.6.27 could have mapped 2 MiB. Deviations: no `cond_resched` between pages (one page a call), the dirty bit is set in
//! the entry instead of on the page, the write requirement is kept after a copy.

use sim::Cx;
use x86::{Access, Entry, Level, Pfn, Va};

use crate::access::Refused;
use crate::account::PAGE_TABLE;
use crate::hugetlb::{HPAGE, HPAGE_PAGES};
use crate::kernel::Kernel;
use crate::mm::MmId;

/// A page got by [`Kernel::get_user_page`], with one reference that the caller owns.
#[must_use = "the reference must be kept or put"]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gup {
    /// The frame.
    pub pfn: Pfn,
    /// Whether the entry allowed writing.
    pub access: Access,
}

impl Kernel {
    /// `get_user_pages` of one page; the caller holds mmap_sem for read.
    ///
    /// # Errors
    /// When the address cannot be accessed that way.
    pub async fn get_user_page(&self, cx: &Cx, mm: MmId, va: Va, access: Access) -> Result<Gup, Refused> {
        let _span = cx.span("get_user_pages");
        let vma = self.st().mm_mut(mm).vmas.find(va);
        if vma.is_some_and(|vma| self.st().is_huge(vma)) {
            return self.follow_hugetlb_page(cx, mm, va, access).await;
        }
        loop {
            if let Some(found) = self.follow_page(cx, mm, va, access).await {
                return Ok(found);
            }
            self.handle_mm_fault(cx, mm, va, access).await?;
        }
    }

    async fn follow_page(&self, cx: &Cx, mm: MmId, va: Va, access: Access) -> Option<Gup> {
        let (table, ptl) = {
            let st = self.st();
            let table = st.tables.leaf_table(st.mm(mm).pgd, va.vpn())?;
            (table, st.ptl(table))
        };
        let _ptl = cx.lock(ptl).await;
        cx.charge(PAGE_TABLE, self.machine.costs.pte_access);
        let mut st = self.st();
        let index = Level::Pte.index(va);
        let entry = st.tables.get(table, index);
        if !entry.present() || (access.is_write() && !entry.writable()) {
            return None;
        }
        let marked = if access.is_write() {
            entry.with_accessed().with_dirty()
        } else {
            entry.with_accessed()
        };
        self.set_pte(cx, &mut st, table, index, marked);
        self.frames().get_page(entry.pfn());
        let access = if entry.writable() {
            Access::Write
        } else {
            Access::Read
        };
        Some(Gup {
            pfn: entry.pfn(),
            access,
        })
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
