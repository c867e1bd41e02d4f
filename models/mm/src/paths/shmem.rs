//! `shmem_notify_change`, `shmem_truncate_range`: what tmpfs adds to truncation and to holes.
//!
//! Follows mm/shmem.c of 2.6.27 (host-mm-paths B.11 knows it as the file system's callback). When the generic
//! passes are over, `shmem_truncate_range` gives back swap entries, and then looks whether a page may have
//! come into the cache meanwhile: if any is cached, and SHMEM_PAGEIN is set, the range leaves the cache once
//! more, and for a hole all mappings are unmapped once more, with private copies. Every page that enters
//! the cache sets the flag. ftruncate clears it before its passes (unless to nothing, where the number of
//! cached pages tells), so there it means what it says; nobody clears it for a hole, so a hole is mostly
//! punched three times. Neither happens behind the last page that ever was (`next_index`).
//!
//! The caller holds i_mutex and W(i_alloc_sem).
//!
//! Deviations: no page of a file is swapped out, so there are no swap entries to give back;
//! `info->lock`, held for a few instructions around the flag, is not taken.

use sim::Cx;
use x86::{Pgoff, PgoffRange};

use crate::FileId;
use crate::file::{AddressSpace, FileKind, PageIn};
use crate::kernel::Kernel;
use crate::paths::truncate::EvenCows;

/// What is cut out of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Cut {
    /// Everything from somewhere on (ftruncate).
    End,
    /// Something in the middle (`punch_hole`).
    Hole,
}

impl AddressSpace {
    /// The part of `shmem_getpage` for a page that enters the cache.
    pub(crate) fn shmem_page_added(&mut self, index: Pgoff) {
        self.shmem.pagein = PageIn::Yes;
        self.shmem.next_index = self.shmem.next_index.max(index.get() + 1);
    }
}

impl Kernel {
    /// `shmem_notify_change`: a file is about to become so many pages long.
    pub(super) fn shmem_notify_change(&self, file: FileId, pages: u64) {
        let mut st = self.st();
        let f = st.file_mut(file);
        if pages < f.size && pages > 0 {
            f.shmem.pagein = PageIn::No;
        }
    }

    /// `shmem_truncate_range`; other file systems have nothing of the kind.
    pub(super) async fn shmem_truncate_range(&self, cx: &Cx, file: FileId, pages: PgoffRange, cut: Cut) {
        let again = {
            let mut st = self.st();
            let f = st.file_mut(file);
            let first = pages.first().get();
            if f.kind == FileKind::Disk || first >= f.shmem.next_index {
                return;
            }
            if cut == Cut::End {
                f.shmem.next_index = first;
            }
            !f.pages.is_empty() && f.shmem.pagein == PageIn::Yes
        };
        if !again {
            return;
        }
        let _span = cx.span("shmem_truncate_range");
        self.truncate_inode_pages_range(cx, file, pages).await;
        if cut == Cut::Hole {
            self.unmap_mapping_range(cx, file, pages, EvenCows::Yes).await;
        }
    }
}
