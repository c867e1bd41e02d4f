//! `madvise(MADV_DONTNEED)`.
//!
//! Follows mm/madvise.c of 2.6.27 (host-mm-paths B.9): mmap_sem for read; each VMA is zapped with a
//! gather, a bracket and a flush of its own; page tables stay. Holes are passed over and reported at
//! the end (-ENOMEM); a mapping that is locked, of huge pages or a driver's ends the call at once (-EINVAL),
//! having zapped what lies before it.

use sim::Cx;
use x86::VaRange;

use crate::account::ENTRY;
use crate::kernel::Kernel;
use crate::mm::MmId;
use crate::paths::{MapError, NonlinearZap, ZapDetails};
use crate::profile::work;
use crate::vma::Backing;

impl Kernel {
    /// madvise(2) with MADV_DONTNEED.
    ///
    /// # Errors
    /// [`MapError::Hole`] if some of the range is not mapped, although all the rest is zapped;
    /// [`MapError::Unsuitable`] at a mapping that is locked, of huge pages or a driver's.
    pub async fn madvise_dontneed(&self, cx: &Cx, mm: MmId, range: VaRange) -> Result<(), MapError> {
        let _span = cx.span("sys_madvise");
        cx.charge(ENTRY, self.machine.costs.syscall_entry_exit);
        let _sem = cx.lock_shared(self.mmap_sem(mm)).await;
        self.touch_lines(cx, work::FIND_VMA);
        let mut result = Ok(());
        let mut rest = Some(range);
        while let Some(todo) = rest {
            let (vma, part, nonlinear) = {
                let st = self.st();
                let vma = st.mm(mm).vmas.find_or_next(todo.start());
                let part = vma.and_then(|v| st.vma(v).range.intersect(&todo));
                let (Some(vma), Some(part)) = (vma, part) else {
                    return Err(MapError::Hole);
                };
                let v = st.vma(vma);
                if part.start() > todo.start() {
                    result = Err(MapError::Hole);
                }
                if v.flags.is_locked() || matches!(v.backing, Backing::Driver | Backing::Huge(_)) {
                    return Err(MapError::Unsuitable);
                }
                (vma, part, v.is_nonlinear())
            };
            // What a nonlinear mapping maps where is kept in file-offset entries.
            let details = ZapDetails {
                nonlinear: nonlinear.then(|| NonlinearZap::everything(vma)),
                ..ZapDetails::default()
            };
            self.zap_page_range(cx, vma, part, details).await;
            rest = VaRange::new(part.end(), range.end());
        }
        result
    }
}
