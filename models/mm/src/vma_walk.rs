//! Walks over the VMAs that could map a page or a range, paid for step by step.
//!
//! Follows `vma_prio_tree_foreach` (mm/prio_tree.c) and the loops over an anon_vma's list (mm/rmap.c) of 2.6.27
//! (host-mm-paths B.10, B.12, D.1, G.3). Whoever walks holds the lock of what he walks: i_mmap_lock, or the
//! anon_vma's. A walk that is broken off, because every mapping of the page was found or because the lock
//! is wanted, has stepped on the nodes up to there and on none behind; so a truncate that begins
//! again costs what it has already done, each time.

use sim::Cx;
use x86::{Pfn, PgoffRange};

use crate::FileId;
use crate::i_mmap::{IntervalIndex as _, Visit};
use crate::kernel::Kernel;
use crate::mm::AnonVmaId;
use crate::profile::work;
use crate::vma::VmaId;

/// What is walked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Of {
    /// The list of an anon_vma, for a page.
    Family,
    /// A file's i_mmap, for a page.
    Page,
    /// A file's i_mmap, for a range.
    Range,
}

/// A walk that has begun. Valid under one hold of the lock.
pub(crate) struct VmaWalk {
    of: Of,
    visit: Visit<VmaId>,
    // How many VMAs were met.
    at: usize,
}

impl VmaWalk {
    fn new(of: Of, visit: Visit<VmaId>) -> Self {
        VmaWalk { of, visit, at: 0 }
    }
}

impl Kernel {
    /// The VMAs of a family, in the list's order; where the page is not they are looked at, too.
    pub(crate) fn anon_mappers(&self, anon: AnonVmaId) -> VmaWalk {
        let visit = Visit::of_list(&self.st().anon_vma(anon).vmas);
        VmaWalk::new(Of::Family, visit)
    }

    /// The VMAs of a file at the page's index, in the tree's order.
    pub(crate) fn file_mappers(&self, pfn: Pfn, file: FileId) -> VmaWalk {
        let index = self.frames.borrow().get(pfn).index().get();
        let visit = self.st().file(file).i_mmap.visit(index, index);
        VmaWalk::new(Of::Page, visit)
    }

    /// The VMAs of a file that map some of the pages, in the tree's order.
    pub(crate) fn range_mappers(&self, file: FileId, pages: &PgoffRange) -> VmaWalk {
        let (first, last) = (pages.first().get(), pages.last().get());
        let visit = self.st().file(file).i_mmap.visit(first, last);
        VmaWalk::new(Of::Range, visit)
    }

    /// Goes to the next VMA, over the nodes in between; if there is none, over those that are left.
    pub(crate) fn next_mapper(&self, cx: &Cx, walk: &mut VmaWalk) -> Option<VmaId> {
        let next = walk.visit.met.get(walk.at).copied();
        let (nodes, members) = match next {
            Some(met) => met.steps(),
            None => (std::mem::take(&mut walk.visit.tail), 0),
        };
        let (nodes, members) = (u64::from(nodes), u64::from(members));
        walk.at += usize::from(next.is_some());
        let mut st = self.st();
        if walk.of != Of::Range {
            st.metrics.rmap_vmas += u64::from(next.is_some());
        }
        if walk.of != Of::Family {
            st.metrics.i_mmap_nodes += nodes;
            st.metrics.i_mmap_members += members;
        }
        drop(st);
        self.touch_lines(cx, (nodes + members) * work::I_MMAP_NODE);
        next.map(|met| met.id)
    }

    /// All that is left of a walk.
    pub(crate) fn all_mappers(&self, cx: &Cx, mut walk: VmaWalk) -> Vec<VmaId> {
        std::iter::from_fn(|| self.next_mapper(cx, &mut walk)).collect()
    }
}
