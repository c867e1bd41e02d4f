//! `mprotect`.
//!
//! Follows mm/mprotect.c of 2.6.27 (host-mm-paths B.7): mmap_sem for write; each VMA is split and its
//! rights are set; between notifier start and end all present entries are changed, one hold of a
//! pte lock a page table without a break, then the whole address space is flushed, even if nothing
//! was present or rights only grew. VMAs whose rights stay are left alone.
//!
//! Deviations: neighbours that become alike are not merged again (that only changes `map_count`); a hole in
//! the range is passed over (the kernel returns -ENOMEM there, having changed what lies before it).

use sim::Cx;
use x86::{Entry, Level, Rights, TableId, VaRange, VpnRange};

use crate::account::{ENTRY, PAGE_TABLE};
use crate::kernel::Kernel;
use crate::mm::MmId;
use crate::notifier::Path;
use crate::profile::work;
use crate::swapops::{MigrationAccess, NonPresent};
use crate::vma::{Prot, Sharing, VmaId};

impl Kernel {
    /// mprotect(2).
    pub async fn sys_mprotect(&self, cx: &Cx, mm: MmId, range: VaRange, prot: Prot) {
        let _span = cx.span("sys_mprotect");
        cx.charge(ENTRY, self.machine.costs.syscall_entry_exit);
        let _sem = cx.lock(self.mmap_sem(mm)).await;
        self.touch_lines(cx, work::FIND_VMA);
        let vmas: Vec<VmaId> = self.st().mm(mm).vmas.overlapping(range).collect();
        for vma in vmas {
            let (same, part) = {
                let st = self.st();
                let v = st.vma(vma);
                (
                    v.prot == prot,
                    v.range.intersect(&range).expect("an overlapping VMA intersects"),
                )
            };
            if !same {
                self.mprotect_fixup(cx, mm, part, prot).await;
            }
        }
    }

    /// `mprotect_fixup` for a part of one VMA.
    async fn mprotect_fixup(&self, cx: &Cx, mm: MmId, part: VaRange, prot: Prot) {
        let _span = cx.span("mprotect_fixup");
        self.split_at(cx, mm, part.start()).await;
        self.split_at(cx, mm, part.end()).await;
        let vma = self
            .find_vma(cx, mm, part.start())
            .expect("the part was just split off");
        self.st().vma_mut(vma).prot = prot;
        let bracket = self.notify_open(cx, mm, Path::Mprotect, part).await;
        self.change_protection(cx, mm, vma, part).await;
        self.flush_tlb_mm(cx, mm).await;
        self.notify_close(cx, bracket).await;
    }

    /// `change_protection`.
    async fn change_protection(&self, cx: &Cx, mm: MmId, vma: VmaId, part: VaRange) {
        let mut at = part.start().vpn();
        loop {
            let next = {
                let st = self.st();
                st.tables.next_leaf_table(st.mm(mm).pgd, at, part.end().vpn())
            };
            let Some((table, pages, _)) = next else {
                return;
            };
            let ptl = self.st().ptl(table);
            let _ptl = cx.lock(ptl).await;
            self.change_pte_range(cx, vma, table, pages);
            if let Some(block) = VaRange::new(pages.start().va(), pages.end().va()) {
                self.notify_block(cx, mm, Path::Mprotect, block).await;
            }
            at = pages.end();
        }
    }

    /// `change_pte_range`: the write right is taken away at once but only given back by a fault,
    /// unless the page is a shared one that is dirty already, or nobody accounts dirty pages.
    fn change_pte_range(&self, cx: &Cx, vma: VmaId, table: TableId, pages: VpnRange) {
        let mut st = self.st();
        let (rights, prot, shared, clean_too) = {
            let v = st.vma(vma);
            let clean_too = !st.vma_wants_writenotify(v);
            (v.rights(), v.prot, v.sharing == Sharing::Shared, clean_too)
        };
        for vpn in pages.iter() {
            let index = Level::Pte.index_of(vpn);
            let entry = st.tables.get(table, index);
            if !entry.maps_page() {
                // `make_migration_entry_read`: whether it may be stored to again, a fault will find out.
                if let Some(NonPresent::Migration(pfn, MigrationAccess::Write)) = NonPresent::of(entry) {
                    let read = NonPresent::Migration(pfn, MigrationAccess::Read);
                    st.tables.set(table, index, read.entry());
                    cx.charge(PAGE_TABLE, self.machine.costs.pte_access);
                }
                continue;
            }
            cx.charge(PAGE_TABLE, self.machine.costs.pte_access);
            // A private mapping's vm_page_prot has no write right: the next write faults and asks
            // whether to copy.
            let write = shared && prot.can_write() && (clean_too || entry.dirty());
            let rights = if write {
                rights
            } else {
                rights.without(Rights::WRITE)
            };
            let mut changed = Entry::leaf(entry.pfn(), rights);
            if entry.accessed() {
                changed = changed.with_accessed();
            }
            if entry.dirty() {
                changed = changed.with_dirty();
            }
            if !prot.can_read() {
                changed = changed.with_no_access();
            }
            st.tables.set(table, index, changed);
        }
    }
}
