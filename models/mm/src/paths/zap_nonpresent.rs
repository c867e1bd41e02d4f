//! What `zap_pte_range` does with entries that map no page, and with pages of nonlinear mappings.
//!
//! Follows mm/memory.c of 2.6.27 (host-mm-paths B.1). Details of a zap are only looked at if they ask
//! for pages of one file or for a nonlinear mapping; without, all entries of the range go. With them,
//! entries without a page stay: a private copy that was swapped out is not the file's, and what a
//! file-offset entry names is not mapped. A page of a nonlinear mapping goes only if its index in the
//! file lies in the range to unmap, wherever it is mapped; if that is not its linear place, a
//! file-offset entry remembers it.
//!
//! Locks: the pte lock of the table, held by the caller throughout.

use sim::Cx;
use x86::{Entry, Pfn, Pgoff, PgoffRange, Va};

use crate::kernel::{Kernel, State};
use crate::paths::ZapDetails;
use crate::swapops::NonPresent;
use crate::vma::VmaId;

/// The fields of `struct zap_details` for a nonlinear mapping.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NonlinearZap {
    /// `nonlinear_vma`.
    vma: VmaId,
    /// `first_index` to `last_index`: pages of the file that are to be unmapped.
    pages: PgoffRange,
}

impl NonlinearZap {
    /// Pages `pages` of the file, wherever in the mapping they are.
    pub(crate) fn new(vma: VmaId, pages: PgoffRange) -> Self {
        NonlinearZap { vma, pages }
    }

    /// Whatever is mapped, as MADV_DONTNEED wants it.
    pub(crate) fn everything(vma: VmaId) -> Self {
        NonlinearZap::new(vma, PgoffRange::to_eof(Pgoff::new(0)))
    }
}

impl ZapDetails {
    /// Whether entries without a page stay.
    pub(super) fn keep_nonpresent(&self) -> bool {
        self.check_mapping.is_some() || self.nonlinear.is_some()
    }
}

/// The rss counter that an entry is in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub(super) enum CountedIn {
    Nothing,
    Anon,
    File,
}

impl Kernel {
    /// Forgets what an entry without a page stood for; the entry itself was cleared. Says in which rss
    /// counter it was.
    pub(super) async fn forget_nonpresent(&self, cx: &Cx, meaning: NonPresent) -> CountedIn {
        match meaning {
            // Only a place in the file: nobody counts it.
            NonPresent::File(_) => CountedIn::Nothing,
            NonPresent::Migration(pfn, _) => self.rss_of_migrating(pfn),
            NonPresent::Swap(slot) => {
                self.free_swap_and_cache(cx, slot).await;
                CountedIn::Nothing
            }
        }
    }

    /// The rss counter that a migration entry is in, as the page it names was.
    pub(super) fn rss_of_migrating(&self, pfn: Pfn) -> CountedIn {
        if self.frames.borrow().get(pfn).is_anon() {
            CountedIn::Anon
        } else {
            CountedIn::File
        }
    }

    /// Whether the page of a nonlinear mapping lies outside of what is to be unmapped.
    pub(super) fn outside(&self, st: &mut State, zap: NonlinearZap, entry: Entry) -> bool {
        st.metrics.zap_compared += 1;
        !zap.pages.contains(self.frames.borrow().get(entry.pfn()).index())
    }

    /// What an entry says when its page is gone.
    pub(super) fn left_behind(&self, st: &State, zap: Option<NonlinearZap>, va: Va, entry: Entry) -> Entry {
        let Some(zap) = zap else { return Entry::NONE };
        let index = self.frames.borrow().get(entry.pfn()).index();
        if index == st.vma(zap.vma).pgoff_of(va) {
            Entry::NONE
        } else {
            NonPresent::File(index).entry()
        }
    }
}
