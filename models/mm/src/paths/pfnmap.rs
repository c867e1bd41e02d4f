//! Mappings whose entries a driver sets: `vm_insert_pfn`, `zap_page_range` from a driver, and
//! accesses that fault into the driver.
//!
//! Follows mm/memory.c of 2.6.27 for VM_PFNMAP mappings ([`Backing::Driver`]): an entry points at a frame that
//! has no `struct page` for this kernel ([`PTE_SPECIAL`] says so to whoever walks without the VMA), so there
//! is neither a reference nor a reverse map nor an rss count behind it, and taking it away only needs the
//! flush. The frame may belong to another kernel of the world: it is the driver that must not let it go while
//! an entry or a TLB still leads to it. `zap_page_range` is exported to drivers by the sleepable series
//! (notifier-variants V9, patch "export zap_page_range").
//!
//! Deviation: a fault in such a mapping is served by the driver's own model, which calls
//! [`Kernel::access_mapped`] again afterwards, instead of through `vm_ops->fault`.

use sim::{Action, Cx, Object};
use x86::{Access, Entry, EntryFlags, Level, Pfn, Rights, Va, VaRange};

use crate::access::{Cached, Refused, Tried};
use crate::account::PAGE_TABLE;
use crate::kernel::Kernel;
use crate::mm::MmId;
use crate::paths::ZapDetails;
use crate::vma::{Backing, VmaId};

/// `_PAGE_SPECIAL`, include/asm-x86/pgtable.h 2.6.27: no `struct page` belongs to the entry.
pub(crate) const PTE_SPECIAL: EntryFlags = EntryFlags::AVAILABLE;

/// How often the instruction behind an access was begun.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Attempt {
    /// For the first time: the TLB is looked at and counted.
    First,
    /// Again after its fault was served: it walks, but is not another access.
    Restarted,
}

/// What TLB and page tables say to an access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Mapped {
    /// The access was made.
    Done,
    /// There is no entry, or it lacks the right: a page fault.
    Fault,
}

/// What [`Kernel::insert_pfn`] found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Inserted {
    /// No entry: it is there now.
    New,
    /// The same entry, set by somebody who was faster.
    AlreadyThere,
}

impl Kernel {
    /// The part of a load or store of the running task that the hardware does by itself. The caller
    /// serves the fault and tries again.
    pub async fn access_mapped(&self, cx: &Cx, mm: MmId, va: Va, access: Access, attempt: Attempt) -> Mapped {
        if cx.must_sync() {
            cx.step(Object::Cpu(cx.cpu().index() as u16), Action::Read).await;
            if attempt == Attempt::First {
                cx.cond_resched().await;
            }
        }
        let cached = match attempt {
            Attempt::First => self.try_tlb(cx, va.vpn(), access),
            Attempt::Restarted => Cached::Absent,
        };
        if cached == Cached::Allows {
            return Mapped::Done;
        }
        match self.try_walk(cx, mm, va.vpn(), access, cached) {
            Tried::Hit => {
                cx.charge(crate::account::USER, self.machine.costs.cacheline_touch);
                Mapped::Done
            }
            Tried::Fault => Mapped::Fault,
        }
    }

    /// `vm_insert_pfn`: one entry of a driver mapping, with at most the rights of the mapping and of
    /// `most`. The caller holds mmap_sem for read and keeps the frame alive.
    ///
    /// # Errors
    /// When the address is not in a driver mapping.
    pub async fn insert_pfn(
        &self,
        cx: &Cx,
        mm: MmId,
        va: Va,
        pfn: Pfn,
        most: Access,
    ) -> Result<Inserted, Refused> {
        let _span = cx.span("vm_insert_pfn");
        let vma = self.find_vma(cx, mm, va).ok_or(Refused::NoMapping)?;
        let (rights, table) = {
            let st = self.st();
            let v = st.vma(vma);
            if v.backing != Backing::Driver {
                return Err(Refused::NoMapping);
            }
            (v.rights(), st.tables.leaf_table(st.mm(mm).pgd, va.vpn()))
        };
        let rights = if most.is_write() {
            rights
        } else {
            rights.without(Rights::WRITE)
        };
        let table = match table {
            Some(table) => table,
            None => self.pte_alloc(cx, mm, va).await,
        };
        let ptl = self.st().ptl(table);
        let _ptl = cx.lock(ptl).await;
        cx.charge(PAGE_TABLE, self.machine.costs.pte_access);
        let mut st = self.st();
        let index = Level::Pte.index(va);
        let entry = st.tables.get(table, index);
        if entry.present() {
            debug_assert_eq!(
                entry.pfn(),
                pfn,
                "a driver mapping changes its frame without a zap"
            );
            return Ok(Inserted::AlreadyThere);
        }
        let special = Entry::leaf(pfn, rights).with(PTE_SPECIAL);
        self.set_pte(cx, &mut st, table, index, special);
        Ok(Inserted::New)
    }

    /// `zap_page_range` as drivers call it: takes the entries of driver mappings in a range away,
    /// flushes, and tells the subscribers of this address space. The caller holds mmap_sem.
    pub async fn zap_driver_range(&self, cx: &Cx, mm: MmId, range: VaRange) {
        let parts: Vec<(VmaId, VaRange)> = {
            let st = self.st();
            let overlapping = st.mm(mm).vmas.overlapping(range);
            overlapping
                .filter(|v| st.vma(*v).backing == Backing::Driver)
                .filter_map(|v| Some((v, st.vma(v).range.intersect(&range)?)))
                .collect()
        };
        for (vma, part) in parts {
            self.zap_page_range(cx, vma, part, ZapDetails::default()).await;
        }
    }
}
