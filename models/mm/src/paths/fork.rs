//! `dup_mmap`, `copy_page_range`: the address space of a forked child.
//!
//! Follows kernel/fork.c and mm/memory.c of 2.6.27 (host-mm-paths B.6). mmap_sem of the parent, then
//! of the child, both for write. A child VMA joins the parent's anon_vma at the tail and, beside its
//! parent's node, i_mmap. Pages are copied only where a VMA has an anon_vma: linear file mappings refault.
//! Writable private entries become read-only in both; the parent's TLBs are flushed once, after all
//! VMAs and after every bracket was closed, so until then other CPUs may still write through stale
//! entries. The child inherits no VM_LOCKED.
//!
//! Nonlinear VMAs are copied, too, with their file-offset entries: what belongs where cannot be told
//! otherwise. They are shared, so there is no bracket and nothing is write-protected.
//!
//! Locks of copy_pte_range: the child's pte lock, then the parent's, nested; every 32 units of
//! progress (8 an entry copied, 1 a none entry) it looks for a reason to let go of both: somebody wants
//! the CPU or, with CONFIG_PREEMPT, one of the locks.
//!
//! Mappings of huge pages are always copied, without a bracket (hugetlb.rs).
//!
//! Deviations: there is always memory for the child's VMAs and tables, and nothing to be charged, so `dup_mmap`
//! cannot fail half-way; no DONTCOPY or special mappings; driver mappings are not inherited (the only
//! ones, XPMEM's, are DONTCOPY).

use std::rc::Rc;

use sim::{Action, Cx};
use x86::{Entry, EntryFlags, Level, TableId, VaRange, Vpn};

use crate::account::{ENTRY, PAGE_TABLE};
use crate::frame::Owner;
use crate::hugetlb::Reserve;
use crate::i_mmap::{IntervalIndex as _, Sibling};
use crate::kernel::Kernel;
use crate::mm::MmId;
use crate::notifier::Path;
use crate::profile::{FORK_PROGRESS_ENTRY, FORK_PROGRESS_LIMIT, work};
use crate::swapops::{MigrationAccess, NonPresent, SwapSlot};
use crate::vma::{Backing, Locked, VmFlags, Vma, VmaId};

/// One page table's worth of copy_page_range.
struct CopyPtes {
    parent: MmId,
    child: MmId,
    src: TableId,
    dst: TableId,
    write_protect: WriteProtect,
    at: Vpn,
    end: Vpn,
    anon: u64,
    file: u64,
    /// Units since it last looked for a reason to let go; others who come first interrupt the count, but do
    /// not begin a new one.
    progress: u32,
}

impl CopyPtes {
    /// One more page for an rss counter of the child.
    fn count(&mut self, owner: Owner) {
        match owner {
            Owner::Anon(_) => self.anon += 1,
            Owner::File(_) | Owner::None => self.file += 1,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum WriteProtect {
    No,
    Cow,
}

enum Pause {
    Done,
    Progress,
    Sync,
    /// An entry that names a slot: what the child's names, and where it goes.
    Swap(SwapSlot, usize),
}

impl Kernel {
    /// fork(2), the part that concerns memory. Returns the child's address space.
    pub async fn sys_fork(&self, cx: &Cx, parent: MmId, name: Rc<str>) -> MmId {
        let _span = cx.span("sys_fork");
        cx.charge(ENTRY, self.machine.costs.syscall_entry_exit);
        let child = self.new_mm(name);
        self.dup_mmap(cx, parent, child).await;
        child
    }

    async fn dup_mmap(&self, cx: &Cx, parent: MmId, child: MmId) {
        let _span = cx.span("dup_mmap");
        let _old = cx.lock(self.mmap_sem(parent)).await;
        let new = cx.lock(self.mmap_sem(child)).await;
        {
            let mut st = self.st();
            let (base, brk) = (st.mm(parent).mmap_base, st.mm(parent).brk);
            let mm = st.mm_mut(child);
            (mm.mmap_base, mm.brk) = (base, brk);
        }
        let vmas: Vec<VmaId> = self.st().mm(parent).vmas.iter().collect();
        for vma in vmas {
            if self.st().vma(vma).backing == Backing::Driver {
                continue;
            }
            self.dup_vma(cx, child, vma).await;
            self.copy_page_range(cx, parent, child, vma).await;
        }
        drop(new);
        self.flush_tlb_mm(cx, parent).await;
        self.check_forked(cx, parent);
    }

    async fn dup_vma(&self, cx: &Cx, child: MmId, vma: VmaId) -> VmaId {
        self.touch_lines(cx, work::LINK_VMA);
        let copy = {
            let mut st = self.st();
            let parents = st.vma(vma).clone();
            let copy = Vma {
                flags: VmFlags {
                    locked: Locked::No,
                    ..parents.flags
                },
                // Promised huge pages stay the parent's (`reset_vma_resv_huge_pages`).
                reserve: Reserve::None,
                ..parents
            };
            st.add_vma(child, copy)
        };
        let (anon, file) = {
            let st = self.st();
            let v = st.vma(vma);
            (
                v.anon_vma.map(|a| (a, st.anon_vma(a).lock)),
                v.file().map(|f| (f, st.file(f).i_mmap_lock)),
            )
        };
        if let Some((anon, lock)) = anon {
            let _anon = cx.lock(lock).await;
            self.st().anon_vma_mut(anon).vmas.push(copy);
        }
        if let Some((file, lock)) = file {
            let _i_mmap = cx.lock(lock).await;
            let mut st = self.st();
            // Under the lock: a truncate may have changed it since the VMA was copied.
            st.vma_mut(copy).truncate_count = st.vma(vma).truncate_count;
            if st.vma(vma).is_nonlinear() {
                st.file_mut(file).insert_nonlinear_behind(vma, copy);
            } else {
                let pages = st.vma(vma).pgoffs();
                let (first, last) = (pages.first().get(), pages.last().get());
                let parent = Sibling { id: vma, first, last };
                st.file_mut(file).i_mmap.insert_beside(parent, first, last, copy);
            }
        }
        let mut st = self.st();
        let range = st.vma(copy).range;
        st.mm_mut(child).vmas.insert(range, copy);
        copy
    }

    /// `copy_page_range`.
    async fn copy_page_range(&self, cx: &Cx, parent: MmId, child: MmId, vma: VmaId) {
        let (range, cow, copied) = {
            let st = self.st();
            let v = st.vma(vma);
            (v.range, v.is_cow(), v.anon_vma.is_some() || v.is_nonlinear())
        };
        if self.st().is_huge(vma) {
            return self.copy_hugetlb_page_range(cx, parent, child, vma).await;
        }
        if !copied {
            return;
        }
        let _span = cx.span("copy_page_range");
        let bracket = if cow {
            Some(self.notify_open(cx, parent, Path::Fork, range).await)
        } else {
            None
        };
        let write_protect = if cow { WriteProtect::Cow } else { WriteProtect::No };
        self.copy_tables(cx, parent, child, range, write_protect).await;
        if let Some(bracket) = bracket {
            self.notify_close(cx, bracket).await;
        }
    }

    async fn copy_tables(
        &self,
        cx: &Cx,
        parent: MmId,
        child: MmId,
        range: VaRange,
        write_protect: WriteProtect,
    ) {
        let mut at = range.start().vpn();
        loop {
            let next = {
                let st = self.st();
                st.tables
                    .next_leaf_table(st.mm(parent).pgd, at, range.end().vpn())
            };
            let Some((src, pages, _)) = next else { return };
            let dst = self.pte_alloc(cx, child, pages.start().va()).await;
            let job = CopyPtes {
                parent,
                child,
                src,
                dst,
                write_protect,
                at: pages.start(),
                end: pages.end(),
                anon: 0,
                file: 0,
                progress: 0,
            };
            self.copy_pte_range(cx, job).await;
            at = pages.end();
        }
    }

    /// `copy_pte_range`.
    async fn copy_pte_range(&self, cx: &Cx, mut job: CopyPtes) {
        let _span = cx.span("copy_pte_range");
        let (dst_ptl, src_ptl) = {
            let st = self.st();
            (st.ptl(job.dst), st.ptl(job.src))
        };
        while job.at < job.end {
            let begin = job.at.va();
            let dst = cx.lock(dst_ptl).await;
            let src = cx.lock(src_ptl).await;
            let mut done = false;
            while !done {
                match self.copy_ptes(cx, &mut job) {
                    Pause::Done => done = true,
                    Pause::Sync => cx.step(src_ptl.object(), Action::Write).await,
                    Pause::Swap(slot, index) => self.copy_swap_entry(cx, &job, slot, index).await,
                    Pause::Progress => {
                        done = cx.need_resched()
                            || self.spin_needbreak(cx, src_ptl).await
                            || self.spin_needbreak(cx, dst_ptl).await;
                    }
                }
            }
            if job.write_protect == WriteProtect::Cow
                && let Some(block) = VaRange::new(begin, job.at.va())
            {
                self.notify_block(cx, job.parent, Path::Fork, block).await;
            }
            drop(src);
            // Booked before the child's lock goes: a truncate may zap these entries right after.
            self.add_mm_rss(&mut job);
            drop(dst);
            cx.cond_resched().await;
        }
    }

    fn add_mm_rss(&self, job: &mut CopyPtes) {
        let mut st = self.st();
        let mm = st.mm_mut(job.child);
        mm.anon_rss += std::mem::take(&mut job.anon);
        mm.file_rss += std::mem::take(&mut job.file);
    }

    /// The part of `copy_one_pte` for an entry that names a slot: one use more, and the child's address
    /// space is one with swap entries.
    async fn copy_swap_entry(&self, cx: &Cx, job: &CopyPtes, slot: SwapSlot, index: usize) {
        let named = self.swap_duplicate(cx, slot).await;
        debug_assert_eq!(named, Some(slot), "the parent's entry keeps the slot in use");
        self.join_mmlist(cx, job.child).await;
        self.set_pte(cx, &mut self.st(), job.dst, index, NonPresent::Swap(slot).entry());
    }

    /// `copy_one_pte` in a loop, until the table ends, it is time to look up, or somebody else comes
    /// first.
    fn copy_ptes(&self, cx: &Cx, job: &mut CopyPtes) -> Pause {
        let costs = &self.machine.costs;
        let copied_cost = costs.pte_access * 2 + costs.cacheline_touch * work::RMAP;
        let none_cost = self.none_pte_cost();
        let mut st = self.st();
        let mut frames = self.frames();
        let (src, dst) = (
            self.locked_ptes(cx, &st, job.src),
            self.locked_ptes(cx, &st, job.dst),
        );
        let first = job.at;
        while job.at < job.end {
            // The caller has synchronised for the first entry.
            if job.at != first && cx.must_sync() {
                return Pause::Sync;
            }
            if job.progress >= FORK_PROGRESS_LIMIT {
                job.progress = 0;
                return Pause::Progress;
            }
            let index = Level::Pte.index_of(job.at);
            job.at = job.at.add(1);
            let entry = st.tables.get(job.src, index);
            if entry.is_none() {
                job.progress += 1;
                cx.charge(PAGE_TABLE, none_cost);
                continue;
            }
            job.progress += FORK_PROGRESS_ENTRY;
            let inherited = match NonPresent::of(entry) {
                Some(NonPresent::Swap(slot)) => {
                    cx.charge(PAGE_TABLE, costs.pte_access * 2);
                    return Pause::Swap(slot, index);
                }
                Some(meaning) => {
                    cx.charge(PAGE_TABLE, costs.pte_access * 2);
                    if let NonPresent::Migration(pfn, _) = meaning {
                        // It will map a page, in the child, too.
                        job.count(frames.get(pfn).owner());
                    }
                    inherit_nonpresent(meaning, job.write_protect)
                }
                None => {
                    cx.charge(PAGE_TABLE, copied_cost);
                    st.metrics.pages_forked += 1;
                    let frame = frames.get_mut(entry.pfn());
                    frame.count += 1;
                    frame.mapcount += 1;
                    job.count(frame.owner());
                    inherit_present(entry, job.write_protect)
                }
            };
            if inherited.parent != entry {
                src.set(&mut st, index, inherited.parent);
            }
            dst.set(&mut st, index, inherited.child);
        }
        Pause::Done
    }
}

/// What both entries say after a fork.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Inherited {
    child: Entry,
    parent: Entry,
}

/// The part of `copy_one_pte` for an entry with a page: what is copied on write may be written by neither side,
/// what is shared is clean in the child; the child has not used it.
fn inherit_present(entry: Entry, write_protect: WriteProtect) -> Inherited {
    let (parent, child) = match write_protect {
        WriteProtect::Cow => (entry.without_write(), entry.without_write()),
        WriteProtect::No => (entry, entry.without_dirty()),
    };
    Inherited {
        child: child.without(EntryFlags::ACCESSED),
        parent,
    }
}

/// The part of `copy_one_pte` for an entry without a page. What migrates is copied on write like what is
/// there: neither side may store to it when it has moved.
fn inherit_nonpresent(meaning: NonPresent, write_protect: WriteProtect) -> Inherited {
    let meaning = match (meaning, write_protect) {
        (NonPresent::Migration(pfn, _), WriteProtect::Cow) => {
            NonPresent::Migration(pfn, MigrationAccess::Read)
        }
        (NonPresent::File(_) | NonPresent::Swap(_) | NonPresent::Migration(..), _) => meaning,
    };
    Inherited {
        child: meaning.entry(),
        parent: meaning.entry(),
    }
}

#[cfg(test)]
mod tests {
    use x86::Pfn;

    use super::*;

    /// move_pages holds mmap_sem of whoever could fork, so no program gets here; others that migrate may not.
    #[test]
    fn what_migrates_can_be_stored_to_by_neither_side_where_pages_are_copied_on_write() {
        let migrating = |access| NonPresent::Migration(Pfn::new(7), access);
        let (read, write) = (
            migrating(MigrationAccess::Read).entry(),
            migrating(MigrationAccess::Write),
        );
        let both = |entry| Inherited {
            child: entry,
            parent: entry,
        };
        assert_eq!(inherit_nonpresent(write, WriteProtect::Cow), both(read));
        assert_eq!(inherit_nonpresent(write, WriteProtect::No), both(write.entry()));
    }
}
