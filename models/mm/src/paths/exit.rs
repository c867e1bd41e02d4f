//! `exit_mm`, `mmput`, `exit_mmap`: the end of an address space.
//!
//! Follows kernel/exit.c, kernel/fork.c, fs/exec.c and mm/mmap.c of 2.6.27 (host-mm-paths B.3). The dying
//! task first gives up its address space, with mmap_sem held for read (`exit_mm`, against a core dump), so
//! it waits for a munmap of another thread; then it becomes lazy, so that the local part of a flush is
//! `leave_mm`. The last user tears down: `mmu_notifier_release` before the first entry is cleared,
//! then everything as in munmap, without mmap_sem. On exec the new address space is active before the old
//! one goes, so its flushes find no CPU; it is made active with mmap_sem of the old one held for read
//! (`exec_mmap`). What was locked is no matter any more, nor is `locked_vm`.
//!
//! Deviations: the gather is one like others. With `fullmm` the kernel clears entries with plain stores in
//! place of atomic exchanges (host-mm-paths A.6, B.1); both are priced as one access of an entry. The
//! bracket of the zap is told the user half, which is all a VMA can lie in, where the kernel says
//! [0, -1]. A core dump does not happen, so nobody takes mmap_sem for write at a thread's end.

use std::rc::Rc;

use sim::{Action, Cx, Object};
use x86::addr::LOWER_HALF_END;
use x86::{Va, VaRange};

use crate::account::ENTRY;
use crate::gather::{FlushPoint, Gather};
use crate::kernel::Kernel;
use crate::mm::MmId;
use crate::notifier::Point;
use crate::paths::ZapDetails;
use crate::profile::work;
use crate::vma::VmaId;

/// Class of the objects that steps at the count of users name ([`Object::Other`]): address spaces.
const MM_USERS_OBJECT: u16 = 11;

impl Kernel {
    /// exit(2) of one thread: drops its use of the address space.
    pub async fn exit_mm(&self, cx: &Cx, mm: MmId) {
        let _span = cx.span("exit_mm");
        cx.charge(ENTRY, self.machine.costs.syscall_entry_exit);
        {
            let _sem = cx.lock_shared(self.mmap_sem(mm)).await;
            self.set_task_mm(cx.task(), None);
        }
        self.enter_lazy_tlb(cx);
        self.mmput(cx, mm).await;
    }

    /// execve(2): a fresh address space replaces the old one. Returns the new one.
    pub async fn exec_mmap(&self, cx: &Cx, old: MmId, name: Rc<str>) -> MmId {
        let _span = cx.span("exec_mmap");
        cx.charge(ENTRY, self.machine.costs.syscall_entry_exit);
        let new = self.new_mm(name);
        {
            let _sem = cx.lock_shared(self.mmap_sem(old)).await;
            self.activate_mm(cx, new);
        }
        self.mmput(cx, old).await;
        new
    }

    /// `mmput`: drops a user; the last one tears the address space down.
    pub async fn mmput(&self, cx: &Cx, mm: MmId) {
        // The count is one atomic variable of all who use the address space.
        cx.step(Object::Other(MM_USERS_OBJECT, u64::from(mm.0)), Action::Write)
            .await;
        let users = {
            let mut st = self.st();
            let users = &mut st.mm_mut(mm).users;
            *users -= 1;
            *users
        };
        if users == 0 {
            self.exit_mmap(cx, mm).await;
            self.leave_mmlist(cx, mm).await;
        }
    }

    /// `get_task_mm`: one more user.
    pub fn mmget(&self, mm: MmId) {
        self.st().mm_mut(mm).users += 1;
    }

    async fn exit_mmap(&self, cx: &Cx, mm: MmId) {
        let _span = cx.span("exit_mmap");
        self.notify_release(cx, mm, Point::TeardownBegin).await;
        self.check_released(cx, mm);
        self.lru_add_drain(cx).await;
        let vmas: Vec<VmaId> = self.st().mm(mm).vmas.iter().collect();
        let parts: Vec<(VmaId, VaRange)> = vmas.iter().map(|v| (*v, self.st().vma(*v).range)).collect();
        let whole = VaRange::new(Va::new(0), Va::new(LOWER_HALF_END)).expect("the user half is not empty");
        let gather = Gather::new(self, cx, mm);
        let zapped = self
            .unmap_vmas(cx, gather, mm, &parts, whole, ZapDetails::default())
            .await;
        let mut gather = zapped.gather.expect("only truncation is broken off");
        self.free_pgtables(cx, &mut gather, mm, &vmas, Va::new(0), None)
            .await;
        gather.finish(FlushPoint::Final).await;
        self.notify_release(cx, mm, Point::TeardownEnd).await;
        self.touch_lines(cx, work::UNLINK_VMA * vmas.len() as u64);
        self.hugetlb_vm_close(&vmas);
        let mut st = self.st();
        for vma in vmas {
            let start = st.vma(vma).range.start();
            st.mm_mut(mm).vmas.remove(start);
        }
    }
}
