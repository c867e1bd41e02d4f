//! `mlock`, `munlock`, `mlockall`, `munlockall`.
//!
//! Follows mm/mlock.c of 2.6.27 (host-mm-paths B.4): mmap_sem for write from start to end; the part of each
//! VMA joins a neighbour that is locked already, or is split off, and gets VM_LOCKED; then every page of it is
//! made present by get_user_pages, still with mmap_sem held for write, so all faults and system calls of the
//! process wait. Where the mapping may be written its pages are faulted in for writing: private ones are
//! copied, shared ones become dirty. A driver's mapping (VM_IO) only gets the flag. A VMA that is locked
//! already is passed over, present or not. At a hole, or at a page that cannot be made present, the call ends
//! with what lies before it locked; the VMA of such a page keeps its flag.
//!
//! Unlocking is the same with the flag cleared, and touches no page: PG_mlocked and the unevictable
//! list came with 2.6.28. In 2.6.27 reclaim asks every VMA that maps a page for VM_LOCKED, and
//! MADV_DONTNEED refuses locked mappings. A forked child inherits no lock, an address space replaced by
//! exec neither. Nothing is flushed and nobody is notified, but for what the faults do.
//!
//! Deviations: RLIMIT_MEMLOCK is infinite (-EPERM, -EAGAIN and the -ENOMEM of the limit do not occur);
//! ranges are whole pages.

use sim::Cx;
use x86::{Va, VaRange};

use crate::account::ENTRY;
use crate::kernel::Kernel;
use crate::mm::MmId;
use crate::paths::MapError;
use crate::paths::vma_parts::Parts;
use crate::profile::work;
use crate::vma::{Backing, Locked, VmFlags, VmaId};

/// Which mappings mlockall(2) locks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LockAll {
    /// Those there are (MCL_CURRENT).
    Current,
    /// Those to come (MCL_FUTURE).
    Future,
    /// All (MCL_CURRENT | MCL_FUTURE).
    Both,
}

impl Kernel {
    /// mlock(2).
    ///
    /// # Errors
    /// [`MapError::Hole`] where nothing is mapped, [`MapError::NotPresent`] where a page cannot be made
    /// present, [`MapError::TooManyMappings`] if a split would be one too many; what lies before stays
    /// locked.
    pub async fn sys_mlock(&self, cx: &Cx, mm: MmId, range: VaRange) -> Result<(), MapError> {
        let _span = cx.span("sys_mlock");
        self.do_mlock(cx, mm, range, Locked::Yes).await
    }

    /// munlock(2).
    ///
    /// # Errors
    /// As [`Kernel::sys_mlock`], but for pages.
    pub async fn sys_munlock(&self, cx: &Cx, mm: MmId, range: VaRange) -> Result<(), MapError> {
        let _span = cx.span("sys_munlock");
        self.do_mlock(cx, mm, range, Locked::No).await
    }

    /// mlockall(2). Errors of single mappings are ignored, as the system call does.
    pub async fn sys_mlockall(&self, cx: &Cx, mm: MmId, which: LockAll) {
        let _span = cx.span("sys_mlockall");
        let future = match which {
            LockAll::Current => Locked::No,
            LockAll::Future | LockAll::Both => Locked::Yes,
        };
        let current = (which != LockAll::Future).then_some(Locked::Yes);
        self.do_mlockall(cx, mm, future, current).await;
    }

    /// munlockall(2).
    pub async fn sys_munlockall(&self, cx: &Cx, mm: MmId) {
        let _span = cx.span("sys_munlockall");
        self.do_mlockall(cx, mm, Locked::No, Some(Locked::No)).await;
    }

    /// `do_mlock`.
    async fn do_mlock(&self, cx: &Cx, mm: MmId, range: VaRange, to: Locked) -> Result<(), MapError> {
        cx.charge(ENTRY, self.machine.costs.syscall_entry_exit);
        let _sem = cx.lock(self.mmap_sem(mm)).await;
        self.touch_lines(cx, work::FIND_VMA);
        let mut next = Some(Parts::first(&self.st(), mm, range)?);
        while let Some(parts) = next {
            let (vma, done) = self.mlock_fixup(cx, mm, &parts, to).await;
            done?;
            next = parts.next(&self.st(), mm, vma)?;
        }
        Ok(())
    }

    /// `do_mlockall`; nothing is done to the mappings there are if `current` is none.
    async fn do_mlockall(&self, cx: &Cx, mm: MmId, future: Locked, current: Option<Locked>) {
        cx.charge(ENTRY, self.machine.costs.syscall_entry_exit);
        let _sem = cx.lock(self.mmap_sem(mm)).await;
        self.st().mm_mut(mm).def_locked = future;
        let Some(to) = current else { return };
        let mut at = Va::new(0);
        loop {
            let parts = {
                let st = self.st();
                let Some(vma) = st.mm(mm).vmas.find_or_next(at) else {
                    return;
                };
                let whole = st.vma(vma).range;
                Parts::first(&st, mm, whole).expect("a VMA has no hole")
            };
            let (vma, _ignored) = self.mlock_fixup(cx, mm, &parts, to).await;
            at = self.st().vma(vma).range.end();
        }
    }

    /// `mlock_fixup` for a part of one VMA. Returns the VMA that has the part now, and how it went.
    async fn mlock_fixup(&self, cx: &Cx, mm: MmId, at: &Parts, to: Locked) -> (VmaId, Result<(), MapError>) {
        let (prot, flags) = {
            let st = self.st();
            (st.vma(at.vma).prot, st.vma(at.vma).flags)
        };
        if flags.locked == to {
            return (at.vma, Ok(()));
        }
        let _span = cx.span("mlock_fixup");
        let flags = VmFlags { locked: to, ..flags };
        let fitted = self.merge_or_split(cx, mm, at.prev, at.vma, at.part, (prot, flags));
        let vma = match fitted.await {
            Ok(vma) => vma,
            Err(why) => return (at.vma, Err(why)),
        };
        {
            let mut st = self.st();
            st.vma_mut(vma).flags = flags;
            let locked = &mut st.mm_mut(mm).locked_vm;
            match to {
                Locked::Yes => *locked += at.part.pages(),
                Locked::No => *locked -= at.part.pages(),
            }
        }
        let vm_io = self.st().vma(vma).backing == Backing::Driver;
        let done = match to {
            Locked::Yes if vm_io => Ok(()),
            Locked::Yes => self.make_pages_present(cx, mm, at.part).await,
            Locked::No => Ok(()),
        };
        (vma, done.map_err(MapError::NotPresent))
    }
}
