//! `get_user_pages_fast`: references to pages without a lock.
//!
//! Follows arch/x86/mm/gup.c of 2.6.27 (host-mm-paths B.16). With interrupts off the page tables are
//! walked as the hardware walks them, without mmap_sem and without pte locks; each entry that is
//! present, open to user mode, writable (for a write) and not special gives its page a reference. The
//! first that is not ends the walk: interrupts go on, and the rest is done by get_user_pages under
//! mmap_sem for read.
//!
//! What holds a table and a page in place between reading the entry and taking the reference: whoever
//! frees either must first have flushed the TLBs of this CPU, and the interrupt that asks for the flush
//! is not taken, nor acknowledged, until interrupts are on again (F2, F26). So a concurrent munmap
//! waits in its flush for this CPU, and the walk needs neither a recheck nor a way back. It only works
//! for the address space that the CPU runs: no other's flush waits for it. The price is latency: all
//! flushes that name this CPU wait for the longest walk.
//!
//! A leaf of 2 MiB is read once and gives references to as many of its pages as are wanted, with one atomic
//! operation (`gup_huge_pmd`). Before 2.6.27 there is no walk: everything is done by get_user_pages.
//!
//! Neither entry nor page is marked dirty or accessed; the caller does that when it is done with the
//! page. The bounds check (`access_ok`) is that of the range's type.

use sim::{Action, Cx, Object};
use x86::{Access, Entry, EntryFlags, Level, VaRange, Vpn};

use crate::access::Refused;
use crate::account::PAGE_TABLE;
use crate::hugetlb::HPAGE_PAGES;
use crate::kernel::Kernel;
use crate::mm::MmId;
use crate::paths::hugetlb_fault::pages_of_huge;
use crate::paths::{Gup, PTE_SPECIAL};
use crate::profile::GupFast;

impl Kernel {
    /// `get_user_pages_fast` for the address space of the running task. The pages come with a reference
    /// each, in order; there may be fewer than asked for, but at least one.
    ///
    /// # Errors
    /// When the first page cannot be accessed that way.
    pub async fn get_user_pages_fast(
        &self,
        cx: &Cx,
        mm: MmId,
        range: VaRange,
        access: Access,
    ) -> Result<Vec<Gup>, Refused> {
        debug_assert_eq!(
            self.task_mm(cx.task()),
            Some(mm),
            "interrupts off protect the CPU's own address space"
        );
        let _span = cx.span("get_user_pages_fast");
        let mut pages = match self.profile.gup_fast {
            GupFast::Present => self.gup_range(cx, mm, range, access).await,
            GupFast::Absent => Vec::new(),
        };
        let at = range.start().add_pages(pages.len() as u64);
        let Some(rest) = VaRange::new(at, range.end()) else {
            return Ok(pages);
        };
        let _sem = cx.lock_shared(self.mmap_sem(mm)).await;
        match self.get_user_pages(cx, mm, rest, access).await {
            Ok(more) => pages.extend(more),
            Err(why) if pages.is_empty() => return Err(why),
            Err(_) => {}
        }
        Ok(pages)
    }

    /// `gup_pud_range` and below: as far as the entries allow it.
    async fn gup_range(&self, cx: &Cx, mm: MmId, range: VaRange, access: Access) -> Vec<Gup> {
        let _span = cx.span("gup_pte_range");
        let mut pages = Vec::new();
        let _irqs = cx.irq_disable();
        let (mut vpn, end) = (range.start().vpn(), range.end().vpn());
        while vpn < end {
            let leaf = {
                let st = self.st();
                let pgd = st.mm(mm).pgd;
                match st.tables.find_leaf(pgd, vpn) {
                    Some((table, Level::Pmd, index)) => Some((table, Level::Pmd, index)),
                    _ => {
                        let table = st.tables.leaf_table(pgd, vpn);
                        table.map(|table| (table, Level::Pte, Level::Pte.index_of(vpn)))
                    }
                }
            };
            let Some((table, level, index)) = leaf else { break };
            // Others may clear the entry, and queue the table, between any two of these reads.
            cx.charge(PAGE_TABLE, self.machine.costs.pte_access);
            cx.step(Object::Other(PTE_OBJECT, vpn.get()), Action::Read).await;
            let entry = self.st().tables.get(table, index);
            if !gives_page(entry, access) {
                break;
            }
            cx.charge(PAGE_TABLE, self.machine.costs.atomic_op);
            cx.step(Object::Other(PTE_OBJECT, vpn.get()), Action::Read).await;
            if level == Level::Pmd {
                let inside = vpn.get() % HPAGE_PAGES;
                let taken = (end.get() - vpn.get()).min(HPAGE_PAGES - inside);
                for page in pages_of_huge(entry, inside, taken) {
                    self.frames().get_page(page.pfn);
                    pages.push(page);
                }
                vpn = Vpn::new(vpn.get() + taken);
                continue;
            }
            self.frames().get_page(entry.pfn());
            pages.push(Gup {
                pfn: entry.pfn(),
                access: if entry.writable() {
                    Access::Write
                } else {
                    Access::Read
                },
            });
            vpn = Vpn::new(vpn.get() + 1);
        }
        pages
    }
}

/// Class of the objects that steps of this walk name ([`Object::Other`]): entries, by page number.
const PTE_OBJECT: u16 = 2;

/// `mask` of gup_pte_range.
fn gives_page(entry: Entry, access: Access) -> bool {
    let open = entry.present() && entry.has(EntryFlags::USER) && !entry.has(PTE_SPECIAL);
    open && (!access.is_write() || entry.writable())
}
