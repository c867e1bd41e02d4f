//! `madvise(MADV_DONTNEED)`.
//!
//! Follows mm/madvise.c of 2.6.27 (host-mm-paths B.9): mmap_sem for read; each VMA is zapped with a
//! gather, a bracket and a flush of its own; page tables stay. Driver mappings are passed
//! over (the kernel ends with -EINVAL at a VM_PFNMAP mapping); at a mapping of huge pages the call ends, as
//! with -EINVAL.

use sim::Cx;
use x86::VaRange;

use crate::account::ENTRY;
use crate::kernel::Kernel;
use crate::mm::MmId;
use crate::paths::{NonlinearZap, ZapDetails};
use crate::profile::work;
use crate::vma::Backing;

impl Kernel {
    /// madvise(2) with MADV_DONTNEED.
    pub async fn madvise_dontneed(&self, cx: &Cx, mm: MmId, range: VaRange) {
        let _span = cx.span("sys_madvise");
        cx.charge(ENTRY, self.machine.costs.syscall_entry_exit);
        let _sem = cx.lock_shared(self.mmap_sem(mm)).await;
        self.touch_lines(cx, work::FIND_VMA);
        let parts: Vec<_> = {
            let st = self.st();
            let clip = |v| (v, st.vma(v).range.intersect(&range));
            let vmas = st.mm(mm).vmas.overlapping(range);
            let parts = vmas.take_while(|v| !st.is_huge(*v)).map(clip);
            parts
                .filter(|(v, _)| st.vma(*v).backing != Backing::Driver)
                .collect()
        };
        for (vma, part) in parts {
            let part = part.expect("an overlapping VMA intersects");
            // What a nonlinear mapping maps where is kept in file-offset entries.
            let details = ZapDetails {
                nonlinear: self
                    .st()
                    .vma(vma)
                    .is_nonlinear()
                    .then(|| NonlinearZap::everything(vma)),
                ..ZapDetails::default()
            };
            self.zap_page_range(cx, vma, part, details).await;
        }
    }
}
