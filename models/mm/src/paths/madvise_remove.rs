//! `madvise(MADV_REMOVE)`: a hole in the file behind a mapping.
//!
//! Follows `sys_madvise` and `madvise_remove` of mm/madvise.c, 2.6.27 (host-mm-paths B.9, B.11).
//! mmap_sem is held for read, mapping by mapping; for each it is dropped while `vmtruncate_range`
//! takes i_mutex and i_alloc_sem, which lie outside of it, and then taken again. Meanwhile the address
//! space may change, so the next mapping is looked up by address. Addresses without a mapping are
//! passed over, and told at the end; anything else ends the call, with what lies before it done.
//!
//! Deviation: mappings of drivers are refused as ones without a file (the kernel finds that their
//! file has no `truncate_range`).

use sim::Cx;
use x86::{Pgoff, PgoffRange, VaRange};

use crate::FileId;
use crate::account::ENTRY;
use crate::kernel::Kernel;
use crate::mm::MmId;
use crate::profile::work;
use crate::vma::{Sharing, VmaId};

/// Why pages cannot be removed from the file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RemoveError {
    /// The mapping is locked, nonlinear, of huge pages, or has no file (-EINVAL).
    Invalid,
    /// The mapping is not a shared writable one (-EACCES).
    Access,
    /// The file system cannot punch holes (-ENOSYS).
    Unsupported,
    /// Some of the addresses are not mapped; the others were served (-ENOMEM).
    Unmapped,
}

impl Kernel {
    /// madvise(2) with MADV_REMOVE.
    ///
    /// # Errors
    /// As the system call: see [`RemoveError`].
    pub async fn madvise_remove(&self, cx: &Cx, mm: MmId, range: VaRange) -> Result<(), RemoveError> {
        let _span = cx.span("sys_madvise");
        cx.charge(ENTRY, self.machine.costs.syscall_entry_exit);
        let lock = self.mmap_sem(mm);
        let mut sem = cx.lock_shared(lock).await;
        let mut result = Ok(());
        let mut rest = Some(range);
        while let Some(part) = rest {
            self.touch_lines(cx, work::FIND_VMA);
            let next = {
                let st = self.st();
                let next = st.mm(mm).vmas.overlapping(part).next();
                next.map(|v| (v, st.vma(v).range.intersect(&part).expect("it overlaps")))
            };
            let Some((vma, hit)) = next else {
                return Err(RemoveError::Unmapped);
            };
            if hit.start() != part.start() {
                result = Err(RemoveError::Unmapped);
            }
            let (file, pages) = self.removable(vma, hit)?;
            drop(sem);
            let punched = self.vmtruncate_range(cx, file, pages).await;
            sem = cx.lock_shared(lock).await;
            punched.map_err(|_| RemoveError::Unsupported)?;
            rest = VaRange::new(hit.end(), range.end());
        }
        drop(sem);
        result
    }

    /// What of the file lies behind a part of a mapping, if a hole may be punched there.
    fn removable(&self, vma: VmaId, part: VaRange) -> Result<(FileId, PgoffRange), RemoveError> {
        let st = self.st();
        let v = st.vma(vma);
        let file = v
            .file()
            .filter(|_| !v.flags.is_locked() && !v.is_nonlinear() && !st.is_huge(vma))
            .ok_or(RemoveError::Invalid)?;
        if v.sharing != Sharing::Shared || !v.prot.can_write() {
            return Err(RemoveError::Access);
        }
        let first: Pgoff = v.pgoff_of(part.start());
        let pages = PgoffRange::from_pages(first, part.pages()).expect("a VMA maps what a file can hold");
        Ok((file, pages))
    }
}
