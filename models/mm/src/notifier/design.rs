//! Notifier designs as data (notifier-variants section 4).
//!
//! A design is a table from (path, point) to callback, plus how the list is protected while it is
//! walked, how registration synchronises with what is in flight, and whether callbacks may sleep.
//! The paths are the same code under every design.

use super::Callback;

/// A path that announces points.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum Path {
    /// unmap_vmas and zap_pte_range: munmap, madvise, truncate, exit.
    Zap,
    /// unmap_region of munmap, with its gather.
    Munmap,
    /// zap_page_range of madvise and truncate, with its gather.
    ZapRange,
    /// A VMA of huge pages that is unmapped.
    Hugetlb,
    /// Copy on write.
    Cow,
    /// copy_page_range on the parent, for COW mappings.
    Fork,
    /// mprotect.
    Mprotect,
    /// move_ptes of mremap, old range.
    Mremap,
    /// remap_file_pages.
    Remap,
    /// exit_mmap as a whole.
    Exit,
    /// page_referenced, and the test for young entries of try_to_unmap.
    Age,
    /// try_to_unmap: reclaim and migration.
    Unmap,
    /// try_to_unmap_cluster: a stretch of a nonlinear mapping.
    Cluster,
    /// page_mkclean: writeback begins.
    Mkclean,
}

/// A labelled point of a path (notifier-variants 2.3).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum Point {
    /// Before the gather is opened, with preemption on; on the paths that have one.
    OpenOutside,
    /// Before the first pte of the range is touched.
    Open,
    /// A pte was cleared, under the pte lock, before the primary flush.
    AfterClear,
    /// A pte was cleared and flushed, under the pte lock, before the new pte is set.
    AfterFlush,
    /// The pte lock was dropped, the page is still held.
    AfterPtl,
    /// A block of ptes of one page table was changed, under the pte lock.
    PteBlock,
    /// After the last pte of the range (the last batch may still be unfreed).
    Close,
    /// After the gather is finished: every page of the range is freed.
    CloseOutside,
    /// exit_mmap begins; nothing was unmapped yet.
    TeardownBegin,
    /// exit_mmap has freed everything.
    TeardownEnd,
}

const PATHS: usize = Path::Mkclean as usize + 1;
const POINTS: usize = Point::TeardownEnd as usize + 1;

/// One entry of a design's table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Binding {
    /// Path.
    pub path: Path,
    /// Point on it.
    pub point: Point,
    /// What is called there.
    pub callback: Callback,
}

/// What protects the list of subscribers while it is walked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Traversal {
    /// Nothing.
    Bare,
    /// Classic RCU: no callback may sleep.
    Rcu,
    /// SRCU: callbacks may sleep as far as the caller's locks allow.
    Srcu,
}

/// How registration synchronises with what is in flight.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Registration {
    /// The list's spinlock only; brackets in flight are not excluded.
    ListLock,
    /// `mm_take_all_locks`: every i_mmap_lock, then every anon_vma->lock of the mm, in VMA order,
    /// under one global mutex.
    TakeAllLocks,
    /// `mm_take_all_locks` of 2.6.27-rc1: VMA by VMA, its anon_vma->lock first.
    TakeAllInterleaved,
    /// `mm_lock`: the same locks, collected, sorted by address, each taken once.
    MmLock,
    /// `mm_lock` of v12: the next lock is searched among all VMAs each time.
    MmLockSearch,
    /// `mm_lock` of v15 and v16: sorted, but anon_vma->locks before i_mmap_locks.
    MmLockAnonFirst,
}

/// Whether callbacks may sleep.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sleepable {
    /// No.
    No,
    /// Yes, with the profile the design was made for.
    Yes,
}

/// What a secondary MMU needs of a design.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Needs {
    /// Its callbacks sleep.
    pub sleeps: Sleepable,
    /// Whether it can hold a page reference for each translation instead of being notified.
    pub pins: PinAbility,
}

/// Whether a secondary MMU has a place to keep page references.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PinAbility {
    /// It has.
    CanPin,
    /// It has none (the GRU has no table, only a TLB).
    CannotPin,
}

/// Whether a design carries a secondary MMU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Carries {
    /// In full.
    Yes,
    /// Not by notification; with pins it is memory safe, but sees no invalidation.
    OnlyPinned(&'static str),
    /// Not at all.
    No(&'static str),
}

/// A knob that differs from the named design.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Knob {
    /// Registration.
    Registration(Registration),
    /// Traversal.
    Traversal(Traversal),
}

/// A notifier design.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Design {
    /// Identifier in scenarios.
    pub id: &'static str,
    /// Short form of the identifier.
    pub short: &'static str,
    /// Who and when.
    pub title: &'static str,
    /// What it does, one sentence.
    pub summary: &'static str,
    /// Kernel profile it was made for.
    pub profile: &'static str,
    /// The table.
    pub bindings: &'static [Binding],
    /// List protection.
    pub traversal: Traversal,
    /// Registration.
    pub registration: Registration,
    /// May callbacks sleep?
    pub sleepable: Sleepable,
    /// Knobs that were overridden.
    pub overrides: Vec<Knob>,
}

const fn bind(path: Path, point: Point, callback: Callback) -> Binding {
    Binding {
        path,
        point,
        callback,
    }
}

const V1_BINDINGS: &[Binding] = &[
    bind(Path::Zap, Point::AfterClear, Callback::InvalidatePage),
    bind(Path::Cow, Point::AfterFlush, Callback::InvalidatePage),
    bind(Path::Fork, Point::PteBlock, Callback::InvalidatePages),
    bind(Path::Mprotect, Point::PteBlock, Callback::InvalidatePages),
    bind(Path::Mremap, Point::AfterFlush, Callback::InvalidatePage),
    bind(Path::Remap, Point::AfterFlush, Callback::InvalidatePage),
    bind(Path::Exit, Point::TeardownEnd, Callback::Release),
    bind(Path::Age, Point::AfterFlush, Callback::ClearFlushYoung),
    bind(Path::Unmap, Point::AfterFlush, Callback::InvalidatePage),
    bind(Path::Cluster, Point::AfterFlush, Callback::InvalidatePage),
    bind(Path::Mkclean, Point::AfterFlush, Callback::InvalidatePage),
];

const V4_BINDINGS: &[Binding] = &[
    bind(Path::Munmap, Point::Open, Callback::InvalidateRangeStart),
    bind(Path::Munmap, Point::CloseOutside, Callback::InvalidateRangeEnd),
    bind(Path::ZapRange, Point::Open, Callback::InvalidateRangeStart),
    bind(Path::ZapRange, Point::Close, Callback::InvalidateRangeEnd),
    bind(Path::Cow, Point::AfterFlush, Callback::InvalidatePage),
    bind(Path::Fork, Point::Open, Callback::InvalidateRangeStart),
    bind(Path::Fork, Point::Close, Callback::InvalidateRangeEnd),
    bind(Path::Mprotect, Point::Open, Callback::InvalidateRangeStart),
    bind(Path::Mprotect, Point::Close, Callback::InvalidateRangeEnd),
    bind(Path::Mremap, Point::Open, Callback::InvalidateRangeStart),
    bind(Path::Mremap, Point::Close, Callback::InvalidateRangeEnd),
    bind(Path::Remap, Point::Open, Callback::InvalidateRangeStart),
    bind(Path::Remap, Point::Close, Callback::InvalidateRangeEnd),
    bind(Path::Exit, Point::TeardownEnd, Callback::Release),
    bind(Path::Age, Point::AfterFlush, Callback::ClearFlushYoung),
    bind(Path::Unmap, Point::AfterFlush, Callback::InvalidatePage),
    bind(Path::Cluster, Point::AfterFlush, Callback::InvalidatePage),
    bind(Path::Mkclean, Point::AfterFlush, Callback::InvalidatePage),
];

const V5_BINDINGS: &[Binding] = &[
    bind(Path::Munmap, Point::OpenOutside, Callback::InvalidateRangeStart),
    bind(Path::Munmap, Point::CloseOutside, Callback::InvalidateRangeEnd),
    bind(Path::ZapRange, Point::OpenOutside, Callback::InvalidateRangeStart),
    bind(Path::ZapRange, Point::CloseOutside, Callback::InvalidateRangeEnd),
    bind(Path::Hugetlb, Point::Open, Callback::InvalidateRangeStart),
    bind(Path::Hugetlb, Point::Close, Callback::InvalidateRangeEnd),
    bind(Path::Cow, Point::Open, Callback::InvalidateRangeStart),
    bind(Path::Cow, Point::Close, Callback::InvalidateRangeEnd),
    bind(Path::Fork, Point::Open, Callback::InvalidateRangeStart),
    bind(Path::Fork, Point::Close, Callback::InvalidateRangeEnd),
    bind(Path::Mprotect, Point::Open, Callback::InvalidateRangeStart),
    bind(Path::Mprotect, Point::Close, Callback::InvalidateRangeEnd),
    bind(Path::Mremap, Point::Open, Callback::InvalidateRangeStart),
    bind(Path::Mremap, Point::Close, Callback::InvalidateRangeEnd),
    bind(Path::Remap, Point::Open, Callback::InvalidateRangeStart),
    bind(Path::Remap, Point::Close, Callback::InvalidateRangeEnd),
    bind(Path::Exit, Point::TeardownBegin, Callback::Release),
    bind(Path::Age, Point::AfterPtl, Callback::ClearFlushYoung),
    bind(Path::Unmap, Point::Open, Callback::InvalidateRangeStart),
    bind(Path::Unmap, Point::Close, Callback::InvalidateRangeEnd),
    bind(Path::Cluster, Point::Open, Callback::InvalidateRangeStart),
    bind(Path::Cluster, Point::Close, Callback::InvalidateRangeEnd),
    bind(Path::Mkclean, Point::Open, Callback::InvalidateRangeStart),
    bind(Path::Mkclean, Point::Close, Callback::InvalidateRangeEnd),
];

const V8_BINDINGS: &[Binding] = &[
    bind(Path::Zap, Point::Open, Callback::InvalidateRangeStart),
    bind(Path::Zap, Point::Close, Callback::InvalidateRangeEnd),
    bind(Path::Hugetlb, Point::Open, Callback::InvalidateRangeStart),
    bind(Path::Hugetlb, Point::Close, Callback::InvalidateRangeEnd),
    bind(Path::Cow, Point::AfterFlush, Callback::InvalidatePage),
    bind(Path::Fork, Point::Open, Callback::InvalidateRangeStart),
    bind(Path::Fork, Point::Close, Callback::InvalidateRangeEnd),
    bind(Path::Mprotect, Point::Open, Callback::InvalidateRangeStart),
    bind(Path::Mprotect, Point::Close, Callback::InvalidateRangeEnd),
    bind(Path::Mremap, Point::Open, Callback::InvalidateRangeStart),
    bind(Path::Mremap, Point::Close, Callback::InvalidateRangeEnd),
    bind(Path::Remap, Point::Open, Callback::InvalidateRangeStart),
    bind(Path::Remap, Point::Close, Callback::InvalidateRangeEnd),
    bind(Path::Exit, Point::TeardownBegin, Callback::Release),
    bind(Path::Age, Point::AfterFlush, Callback::ClearFlushYoung),
    bind(Path::Unmap, Point::AfterFlush, Callback::InvalidatePage),
    bind(Path::Cluster, Point::AfterFlush, Callback::InvalidatePage),
    bind(Path::Mkclean, Point::AfterFlush, Callback::InvalidatePage),
];

const V9_BINDINGS: &[Binding] = &[
    bind(Path::Zap, Point::Open, Callback::InvalidateRangeStart),
    bind(Path::Zap, Point::Close, Callback::InvalidateRangeEnd),
    bind(Path::Hugetlb, Point::Open, Callback::InvalidateRangeStart),
    bind(Path::Hugetlb, Point::Close, Callback::InvalidateRangeEnd),
    bind(Path::Cow, Point::AfterPtl, Callback::InvalidatePage),
    bind(Path::Fork, Point::Open, Callback::InvalidateRangeStart),
    bind(Path::Fork, Point::Close, Callback::InvalidateRangeEnd),
    bind(Path::Mprotect, Point::Open, Callback::InvalidateRangeStart),
    bind(Path::Mprotect, Point::Close, Callback::InvalidateRangeEnd),
    bind(Path::Mremap, Point::Open, Callback::InvalidateRangeStart),
    bind(Path::Mremap, Point::Close, Callback::InvalidateRangeEnd),
    bind(Path::Remap, Point::Open, Callback::InvalidateRangeStart),
    bind(Path::Remap, Point::Close, Callback::InvalidateRangeEnd),
    bind(Path::Exit, Point::TeardownBegin, Callback::Release),
    bind(Path::Age, Point::AfterPtl, Callback::ClearFlushYoung),
    bind(Path::Unmap, Point::AfterPtl, Callback::InvalidatePage),
    bind(Path::Cluster, Point::Open, Callback::InvalidateRangeStart),
    bind(Path::Cluster, Point::Close, Callback::InvalidateRangeEnd),
    bind(Path::Mkclean, Point::AfterPtl, Callback::InvalidatePage),
];

impl Design {
    /// No notifiers: KVM and XPMEM pin (notifier-variants V0).
    pub const V0: Design = Design {
        id: "v0-pins",
        short: "v0",
        title: "no notifiers, page pins (KVM up to 2.6.26)",
        summary: "nobody is told anything; every secondary translation holds a page reference",
        profile: "linux-2.6.27",
        bindings: &[],
        traversal: Traversal::Rcu,
        registration: Registration::ListLock,
        sleepable: Sleepable::No,
        overrides: Vec::new(),
    };

    /// Andrea Arcangeli's original notifiers, v6 of 2008-02-20 (notifier-variants V1 v6).
    pub const V1: Design = Design {
        id: "v1-original-v6",
        short: "v1",
        title: "Arcangeli's original notifiers, v6, February 2008",
        summary: "invalidate_page for each pte under the pte lock; no brackets",
        profile: "linux-2.6.27",
        bindings: V1_BINDINGS,
        traversal: Traversal::Rcu,
        registration: Registration::ListLock,
        sleepable: Sleepable::No,
        overrides: Vec::new(),
    };

    /// Arcangeli's new notifiers, v7 of 2008-02-27 (notifier-variants V4 v7). munmap's bracket lasts until
    /// its pages are freed, truncate's and madvise's ends before the last of them are; exit has none, and
    /// release comes after everything is gone (10.26d). Whether it told of huge pages is not known, so it does
    /// not. v7's fork could fail after the begin and forget the end (10.9); fork cannot fail here.
    pub const V4: Design = Design {
        id: "v4-begin-end-v7",
        short: "v4",
        title: "Arcangeli's new notifiers with range begin and end, v7, February 2008",
        summary: "begin/end around ranges, invalidate_page under the pte lock; the list under RCU, registration excludes nothing in flight, exit tells nobody in time",
        profile: "linux-2.6.25",
        bindings: V4_BINDINGS,
        traversal: Traversal::Rcu,
        registration: Registration::ListLock,
        sleepable: Sleepable::No,
        overrides: Vec::new(),
    };

    /// Lameter's External Memory Management, V3 of 2008-04-04 (notifier-variants V5). Its callbacks may
    /// sleep where no lock of the caller forbids it; on kernels with spinning rmap locks that is not so
    /// for truncate and reclaim.
    pub const V5: Design = Design {
        id: "v5-emm-v3",
        short: "v5",
        title: "Lameter's EMM notifiers, V3, April 2008",
        summary: "a start/end pair around everything, also around single pages, outside pte locks and gathers; no reader protects the list; registration under all rmap locks",
        profile: "linux-2.6.25",
        bindings: V5_BINDINGS,
        traversal: Traversal::Bare,
        registration: Registration::MmLock,
        sleepable: Sleepable::No,
        overrides: Vec::new(),
    };

    /// Arcangeli's mm_lock series, v14 of 2008-04-26 (notifier-variants V6). v12 differs in how the locks
    /// are found (`mm-lock-search`), v15 and v16 in their order (`mm-lock-anon-first`).
    pub const V6: Design = Design {
        id: "v6-mm-lock-v14",
        short: "v6",
        title: "Arcangeli's mm_lock series, v14, April 2008",
        summary: "callbacks as merged, the list under SRCU, registration under all rmap locks in address order",
        profile: "linux-2.6.25",
        bindings: V8_BINDINGS,
        traversal: Traversal::Srcu,
        registration: Registration::MmLock,
        sleepable: Sleepable::No,
        overrides: Vec::new(),
    };

    /// The merged version, 2.6.27-rc1 with the lock order fixed (notifier-variants V8).
    pub const V8: Design = Design {
        id: "v8-merged",
        short: "v8",
        title: "merged mmu notifiers, Linux 2.6.27",
        summary: "range_start/end around every range, invalidate_page under the pte lock for single pages",
        profile: "linux-2.6.27",
        bindings: V8_BINDINGS,
        traversal: Traversal::Rcu,
        registration: Registration::TakeAllLocks,
        sleepable: Sleepable::No,
        overrides: Vec::new(),
    };

    /// The sleepable series that followed it (notifier-variants V9).
    pub const V9: Design = Design {
        id: "v9-sleepable",
        short: "v9",
        title: "sleepable mmu notifiers, patches 02-11 of v15/v16, May 2008",
        summary: "as merged, but rmap locks are rwsems, the list is under SRCU, and invalidate_page runs after the pte lock: callbacks may sleep",
        profile: "linux-2.6.27-sleepable",
        bindings: V9_BINDINGS,
        traversal: Traversal::Srcu,
        registration: Registration::MmLock,
        sleepable: Sleepable::Yes,
        overrides: Vec::new(),
    };

    /// All designs.
    pub const ALL: [Design; 7] = [
        Design::V0,
        Design::V1,
        Design::V4,
        Design::V5,
        Design::V6,
        Design::V8,
        Design::V9,
    ];

    /// The design of a long or short name.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Design> {
        Design::ALL.into_iter().find(|d| d.id == name || d.short == name)
    }

    /// What a point of a path calls.
    #[inline]
    #[must_use]
    pub fn at(&self, path: Path, point: Point) -> Option<Callback> {
        self.bindings
            .iter()
            .find(|b| b.path == path && b.point == point)
            .map(|b| b.callback)
    }

    /// Whether it tells subscribers anything at all.
    #[must_use]
    pub fn notifies(&self) -> bool {
        !self.bindings.is_empty()
    }

    /// Changes a knob, remembering that.
    #[must_use]
    pub fn with(mut self, knob: Knob) -> Design {
        match knob {
            Knob::Registration(r) => self.registration = r,
            Knob::Traversal(t) => self.traversal = t,
        }
        self.overrides.push(knob);
        self
    }

    /// Whether it carries a secondary MMU with these needs, and if not, why.
    #[must_use]
    pub fn carries(&self, needs: Needs) -> Carries {
        let reason = if !self.notifies() {
            "the design notifies nobody"
        } else if needs.sleeps == Sleepable::Yes
            && (self.sleepable == Sleepable::No || self.traversal == Traversal::Rcu)
        {
            "its callbacks sleep, which this design's callers cannot allow"
        } else {
            return Carries::Yes;
        };
        match needs.pins {
            PinAbility::CanPin => Carries::OnlyPinned(reason),
            PinAbility::CannotPin => Carries::No(reason),
        }
    }
}

/// A dense form of a design's table for the paths' inner loops.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Table([[Option<Callback>; POINTS]; PATHS]);

impl Table {
    pub(crate) fn of(design: &Design) -> Table {
        let mut table = [[None; POINTS]; PATHS];
        for b in design.bindings {
            table[b.path as usize][b.point as usize] = Some(b.callback);
        }
        Table(table)
    }

    #[inline]
    pub(crate) fn at(&self, path: Path, point: Point) -> Option<Callback> {
        self.0[path as usize][point as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KVM: Needs = Needs {
        sleeps: Sleepable::No,
        pins: PinAbility::CanPin,
    };
    const GRU: Needs = Needs {
        sleeps: Sleepable::No,
        pins: PinAbility::CannotPin,
    };
    const XPMEM: Needs = Needs {
        sleeps: Sleepable::Yes,
        pins: PinAbility::CanPin,
    };

    #[test]
    fn capabilities_are_those_of_the_reference_table() {
        // notifier-variants 5.2: columns GRU and XPMEM; KVM without pins.
        let row = |d: &Design| {
            [KVM, GRU, XPMEM].map(|n| match d.carries(n) {
                Carries::Yes => "yes",
                Carries::OnlyPinned(_) => "pinned",
                Carries::No(_) => "no",
            })
        };
        assert_eq!(row(&Design::V0), ["pinned", "no", "pinned"]);
        assert_eq!(row(&Design::V1), ["yes", "yes", "pinned"]);
        assert_eq!(row(&Design::V4), ["yes", "yes", "pinned"]);
        assert_eq!(row(&Design::V5), ["yes", "yes", "pinned"]);
        assert_eq!(row(&Design::V6), ["yes", "yes", "pinned"]);
        assert_eq!(row(&Design::V8), ["yes", "yes", "pinned"]);
        assert_eq!(row(&Design::V9), ["yes", "yes", "yes"]);
    }

    #[test]
    fn the_dense_table_says_what_the_bindings_say() {
        for design in Design::ALL {
            let table = Table::of(&design);
            let bound = design
                .bindings
                .iter()
                .filter(|b| table.at(b.path, b.point) == Some(b.callback))
                .count();
            assert_eq!(bound, design.bindings.len(), "{}", design.id);
            assert_eq!(table.0.iter().flatten().flatten().count(), bound, "{}", design.id);
        }
    }

    #[test]
    fn names_are_unique_and_found() {
        for d in Design::ALL {
            assert_eq!(Design::by_name(d.id).as_ref(), Some(&d));
            assert_eq!(Design::by_name(d.short).as_ref(), Some(&d));
        }
        assert_eq!(Design::by_name("v99"), None);
    }
}
