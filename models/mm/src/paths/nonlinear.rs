//! `unmap_mapping_range_list`: unmapping pages of a file from its nonlinear mappings.
//!
//! Follows mm/memory.c of 2.6.27 (host-mm-paths B.10). Where a page of the file is in a nonlinear
//! mapping cannot be told, so every one of them is searched from end to end, whatever part of the
//! file is to be unmapped, with a gather, a bracket and a flush of its own that span all of it.
//!
//! Locks: i_mmap_lock, held by the caller, who has walked the tree of linear mappings before; it is held
//! over the whole list, and given up where the tree's is: at block ends and after a mapping, when
//! somebody wants the CPU (or, with CONFIG_PREEMPT, the lock). The list is then walked again from its
//! head; the tree is not. Mappings that are done are told by `vm_truncate_count`, as there.

use sim::{Cx, Guard};
use x86::PgoffRange;

use crate::FileId;
use crate::kernel::Kernel;
use crate::paths::truncate::Step;
use crate::paths::{NonlinearZap, ZapDetails};
use crate::profile::work;

impl Kernel {
    /// `unmap_mapping_range_list`. i_mmap_lock is held, and given up between walks.
    pub(super) async fn unmap_mapping_range_list<'a>(
        &self,
        cx: &'a Cx,
        mut held: Guard<'a>,
        file: FileId,
        pages: PgoffRange,
        details: ZapDetails,
    ) -> Guard<'a> {
        'restart: loop {
            // The list cannot change before the lock is given up, and then the walk begins again.
            let list = self.st().file(file).i_mmap_nonlinear.clone();
            for vma in list {
                self.touch_lines(cx, work::I_MMAP_NODE);
                let whole = {
                    let mut st = self.st();
                    st.metrics.i_mmap_nonlinear += 1;
                    st.vma(vma).range
                };
                let details = ZapDetails {
                    nonlinear: Some(NonlinearZap::new(vma, pages)),
                    ..details
                };
                if let Step::Restart = self.unmap_mapping_vma(cx, file, vma, whole, details).await {
                    held = self.break_lock(cx, held).await;
                    continue 'restart;
                }
            }
            return held;
        }
    }
}
