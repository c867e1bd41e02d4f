//! `mprotect`.
//!
//! Follows mm/mprotect.c of 2.6.27 (host-mm-paths B.7): mmap_sem for write; the part of each VMA joins
//! a neighbour that has the new rights already, or is split off; between notifier start and end all
//! present entries are changed, one hold of a pte lock a page table without a break, then the whole
//! address space is flushed, even if nothing was present or rights only grew. VMAs whose rights stay
//! are left alone. At a hole the call ends with -ENOMEM, having changed what lies before it.
//!
//! Deviation: every file was opened for reading and writing, so no right is refused (-EACCES).

use sim::{Action, Cx};
use x86::{Entry, EntryFlags, Level, Rights, TableId, VaRange, Vpn, VpnRange};

use crate::account::{ENTRY, PAGE_TABLE};
use crate::kernel::{Kernel, State};
use crate::mm::MmId;
use crate::notifier::Path;
use crate::paths::vma_parts::Parts;
use crate::paths::{MapError, PTE_SPECIAL};
use crate::profile::work;
use crate::swapops::{MigrationAccess, NonPresent};
use crate::vma::{Accounted, Backing, Prot, Sharing, VmaId};

impl Kernel {
    /// mprotect(2).
    ///
    /// # Errors
    /// [`MapError::Hole`] at the first address that is not mapped, [`MapError::TooManyMappings`] if a
    /// split would be one too many, [`MapError::CutsHugePage`] if it would be inside a huge page; what lies
    /// before is changed.
    pub async fn sys_mprotect(&self, cx: &Cx, mm: MmId, range: VaRange, prot: Prot) -> Result<(), MapError> {
        let _span = cx.span("sys_mprotect");
        cx.charge(ENTRY, self.machine.costs.syscall_entry_exit);
        let _sem = cx.lock(self.mmap_sem(mm)).await;
        self.touch_lines(cx, work::FIND_VMA);
        let mut next = Some(Parts::first(&self.st(), mm, range)?);
        while let Some(parts) = next {
            let vma = self.mprotect_fixup(cx, mm, &parts, prot).await?;
            next = parts.next(&self.st(), mm, vma)?;
        }
        Ok(())
    }

    /// `mprotect_fixup` for a part of one VMA. Returns the VMA that has the part now.
    async fn mprotect_fixup(&self, cx: &Cx, mm: MmId, at: &Parts, prot: Prot) -> Result<VmaId, MapError> {
        let (same, mut flags, charged) = {
            let st = self.st();
            let v = st.vma(at.vma);
            (v.prot == prot, v.flags, v.is_cow() && !st.is_huge(at.vma))
        };
        if same {
            return Ok(at.vma);
        }
        let _span = cx.span("mprotect_fixup");
        // Private memory that becomes writable is charged from now on.
        if prot.can_write() && charged {
            flags.accounted = Accounted::Yes;
        }
        let vma = self
            .merge_or_split(cx, mm, at.prev, at.vma, at.part, (prot, flags))
            .await?;
        {
            let mut st = self.st();
            let v = st.vma_mut(vma);
            (v.prot, v.flags) = (prot, flags);
        }
        let bracket = self.notify_open(cx, mm, Path::Mprotect, at.part).await;
        if self.st().is_huge(vma) {
            self.hugetlb_change_protection(cx, mm, vma, at.part).await;
        } else {
            self.change_protection(cx, mm, vma, at.part).await;
        }
        self.flush_tlb_mm(cx, mm).await;
        self.notify_close(cx, bracket).await;
        Ok(vma)
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
            at = pages.start();
            loop {
                at = self.change_pte_range(cx, vma, table, pages, at);
                if at == pages.end() {
                    break;
                }
                cx.step(ptl.object(), Action::Write).await;
            }
            if let Some(block) = VaRange::new(pages.start().va(), pages.end().va()) {
                self.notify_block(cx, mm, Path::Mprotect, block).await;
            }
        }
    }

    /// `change_pte_range` from a page on, until somebody else comes first. Returns the first page that is not
    /// changed.
    fn change_pte_range(&self, cx: &Cx, vma: VmaId, table: TableId, pages: VpnRange, from: Vpn) -> Vpn {
        let mut st = self.st();
        let change = Change::to(&st, vma);
        let ptes = self.locked_ptes(cx, &st, table);
        let mut at = from;
        while at < pages.end() {
            // The caller has synchronised for the first entry.
            if at != from && cx.must_sync() {
                return at;
            }
            let index = Level::Pte.index_of(at);
            at = at.add(1);
            let entry = st.tables.get(table, index);
            if entry.maps_page() {
                cx.charge(PAGE_TABLE, self.machine.costs.pte_access);
                ptes.set(&mut st, index, change.of(entry));
                continue;
            }
            cx.charge(PAGE_TABLE, self.none_pte_cost());
            // `make_migration_entry_read`: whether it may be stored to again, a fault will find out.
            if let Some(NonPresent::Migration(pfn, MigrationAccess::Write)) = NonPresent::of(entry) {
                let read = NonPresent::Migration(pfn, MigrationAccess::Read);
                ptes.set(&mut st, index, read.entry());
                cx.charge(PAGE_TABLE, self.machine.costs.pte_access);
            }
        }
        at
    }
}

/// What becomes of the entries of a mapping that map pages.
struct Change {
    rights: Rights,
    may_write: MayWrite,
    prot: Prot,
    backing: Backing,
}

/// Which entries have the write right at once; to others a fault gives it back.
#[derive(Clone, Copy, PartialEq, Eq)]
enum MayWrite {
    /// None: the mapping has not the right, or is private, and the next write asks whether to copy.
    Nobody,
    /// Those that are dirty already: somebody accounts dirty pages.
    Dirty,
    /// All.
    Everybody,
}

impl Change {
    /// To the rights a mapping has now.
    fn to(st: &State, vma: VmaId) -> Change {
        let v = st.vma(vma);
        let may_write = if v.sharing == Sharing::Private || !v.prot.can_write() {
            MayWrite::Nobody
        } else if st.vma_wants_writenotify(v) {
            MayWrite::Dirty
        } else {
            MayWrite::Everybody
        };
        Change {
            rights: v.rights(),
            may_write,
            prot: v.prot,
            backing: v.backing,
        }
    }

    /// `pte_modify`, which keeps what is not a right.
    fn of(&self, entry: Entry) -> Entry {
        let write = match self.may_write {
            MayWrite::Nobody => false,
            MayWrite::Dirty => entry.dirty(),
            MayWrite::Everybody => true,
        };
        let rights = if write {
            self.rights
        } else {
            self.rights.without(Rights::WRITE)
        };
        let mut changed = Entry::leaf(entry.pfn(), rights);
        for kept in [EntryFlags::ACCESSED, EntryFlags::DIRTY] {
            if entry.has(kept) {
                changed = changed.with(kept);
            }
        }
        if self.backing == Backing::Driver {
            changed = changed.with(PTE_SPECIAL);
        }
        if !self.prot.can_read() {
            changed = changed.with_no_access();
        }
        changed
    }
}
