//! The invariants of the host mm as a table: what is asserted, when, and under which kind of violation.
//!
//! Numbers and statements are those of host-mm-paths F1 to F27. What is marked [`Asserted::Never`] is there
//! because asserting it would be wrong, or because it belongs to another kernel. The checks themselves lie
//! in `watch.rs` (at the step that could break them), in `page.rs` (at free), in `check.rs` (at the end of
//! a completed run, where the books are counted again) and in the engine.

use sim::ViolationKind;

use crate::check::CONSERVATION;
use crate::notifier::UNBALANCED_BRACKET;
use crate::page::{FREE_WHILE_MAPPED, FREE_WHILE_WALKED, STALE_USE};

/// F3: a leaf entry was changed without its page table's lock.
pub const PTE_WITHOUT_LOCK: &str = "pte-without-lock";
/// F4: an upper-level entry was set or cleared without what protects it.
pub const UPPER_ENTRY_WITHOUT_LOCK: &str = "upper-entry-without-lock";
/// F6: a page went back while entries map it or a cache has it.
pub const FREED_IN_USE: &str = "freed-in-use";
/// F8: a secondary translation was made inside an open bracket.
pub const MAPPED_IN_BRACKET: &str = "mapped-in-bracket";
/// F9: somebody was told of a page too early.
pub const PAGE_NOTICE_TOO_EARLY: &str = "page-notice-too-early";
/// F10: the end of a range was announced while entries of it were as they had been.
pub const RANGE_OVER_TOO_EARLY: &str = "range-over-too-early";
/// F11: an address space was torn down before its subscribers had released it.
pub const UNMAPPED_BEFORE_RELEASE: &str = "unmapped-before-release";
/// F12: page tables of a VMA went while the reverse maps still led to it.
pub const TABLES_FREED_WHILE_LINKED: &str = "tables-freed-while-linked";
/// F14: a page left the page cache while it was mapped or not locked.
pub const UNCACHED_WHILE_MAPPED: &str = "uncached-while-mapped";
/// F15: what was written to a file page was forgotten.
pub const DIRTY_BIT_LOST: &str = "dirty-bit-lost";
/// F16: a page beyond the end of its file stayed mapped.
pub const MAPPED_BEYOND_EOF: &str = "mapped-beyond-eof";
/// F18: a CPU got a translation of an address space whose mask it is not in.
pub const FILLED_OUTSIDE_MASK: &str = "filled-outside-mask";
/// F20: after fork a TLB still allowed the parent to write.
pub const WRITABLE_AFTER_FORK: &str = "writable-after-fork";
/// F21: a shared anonymous page could be written.
pub const WRITABLE_SHARED_PAGE: &str = "writable-shared-page";
/// F26: an entry changed its page while the old one could still be used.
pub const REPLACED_WITHOUT_FLUSH: &str = "replaced-without-flush";
/// F27: the top-level table of a loaded address space is gone.
pub const ROOT_FREED_WHILE_LOADED: &str = "root-freed-while-loaded";

/// Whether and how an invariant is asserted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Asserted {
    /// It is.
    Always {
        /// Kinds of violations that say it did not hold.
        kinds: &'static [&'static str],
        /// When it is looked at.
        when: &'static str,
        /// What is exempt; empty if nothing is.
        except: &'static str,
    },
    /// It is not, and why.
    Never(&'static str),
}

/// One of the invariants host-mm-paths F1 to F27.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Invariant {
    /// Number in the reference.
    pub id: &'static str,
    /// Name: that of its kind of violation, where it has one to itself.
    pub name: &'static str,
    /// What must hold.
    pub statement: &'static str,
    /// Whether it is asserted.
    pub asserted: Asserted,
}

impl Invariant {
    /// Kinds of violations that say it did not hold; none if it is not asserted.
    #[must_use]
    pub const fn kinds(&self) -> &'static [&'static str] {
        match self.asserted {
            Asserted::Always { kinds, .. } => kinds,
            Asserted::Never(_) => &[],
        }
    }

    /// The invariants that a kind of violation belongs to.
    pub fn of_kind(kind: &str) -> impl Iterator<Item = &'static Invariant> + '_ {
        INVARIANTS.iter().filter(move |i| i.kinds().contains(&kind))
    }
}

const fn row(
    id: &'static str,
    name: &'static str,
    statement: &'static str,
    kinds: &'static [&'static str],
    when: &'static str,
    except: &'static str,
) -> Invariant {
    Invariant {
        id,
        name,
        statement,
        asserted: Asserted::Always { kinds, when, except },
    }
}

const fn never(
    id: &'static str,
    name: &'static str,
    statement: &'static str,
    reason: &'static str,
) -> Invariant {
    Invariant {
        id,
        name,
        statement,
        asserted: Asserted::Never(reason),
    }
}

const AT_END: &str = "at the end of a run that completed";
const BOOKS: &[&str] = &[CONSERVATION];

/// All of them, by number.
pub const INVARIANTS: [Invariant; 27] = [
    row(
        "F1",
        FREE_WHILE_MAPPED,
        "a page returned to the allocator is reachable through no CPU's TLB and no secondary translation without a reference",
        &[FREE_WHILE_MAPPED, STALE_USE],
        "at free, and at every use of a translation",
        "CPU TLBs while one CPU is online: pages are freed before the local flush (tlb_fast_mode)",
    ),
    row(
        "F2",
        FREE_WHILE_WALKED,
        "a page table is freed only after a flush of its address space",
        &[FREE_WHILE_WALKED],
        "at free of a table",
        "one CPU online",
    ),
    row(
        "F3",
        PTE_WITHOUT_LOCK,
        "software changes a leaf entry only under its page table's lock",
        &[PTE_WITHOUT_LOCK],
        "at every store to a leaf entry",
        "accessed and dirty bits, which the walker sets; tables freed after their VMAs were hidden",
    ),
    row(
        "F4",
        UPPER_ENTRY_WITHOUT_LOCK,
        "upper entries are set under page_table_lock, and cleared with mmap_sem for write or without users, after the VMAs left the reverse maps",
        &[UPPER_ENTRY_WITHOUT_LOCK, TABLES_FREED_WHILE_LINKED],
        "at pte_alloc and free_pgtables",
        "",
    ),
    row(
        "F5",
        "mapcount-is-entries",
        "a page's map count is the number of present leaf entries that map it",
        BOOKS,
        AT_END,
        "driver mappings; huge pages, which 2.6.27 does not count",
    ),
    row(
        "F6",
        "count-is-references",
        "a page's count is its map count, its place in the page or swap cache, its places in pagevecs and its pins; of a huge page, its entries and its place in the cache; one that is freed has no entry and is in no cache",
        &[FREED_IN_USE, CONSERVATION],
        "at free, and at the end of a run that completed",
        "driver mappings",
    ),
    row(
        "F7",
        UNBALANCED_BRACKET,
        "every invalidate_range_start has one invalidate_range_end of the same subscriber and range",
        &[UNBALANCED_BRACKET, CONSERVATION],
        "at every end, and at the end of a run that completed",
        "a subscriber that unregistered or was released in between",
    ),
    row(
        "F8",
        MAPPED_IN_BRACKET,
        "between start and end no secondary translation is made in the range",
        &[MAPPED_IN_BRACKET],
        "when a secondary MMU reports a translation",
        "a subscriber that registered in between and never heard the start",
    ),
    row(
        "F9",
        PAGE_NOTICE_TOO_EARLY,
        "whoever is told of one page finds the entry cleared, CPU TLBs flushed, the pte lock held and the page still referenced",
        &[PAGE_NOTICE_TOO_EARLY],
        "before invalidate_page",
        "V1's zap tells before the flush; V9's copy tells after the lock, when the new entry is there",
    ),
    row(
        "F10",
        RANGE_OVER_TOO_EARLY,
        "at invalidate_range_end all entries of the range are cleared or changed",
        &[RANGE_OVER_TOO_EARLY],
        "before invalidate_range_end",
        "with mmap_sem not held for write, as in madvise and truncate: others may have faulted pages in again; remap_file_pages, brackets around single pages and clusters, rights of huge pages; that pages are flushed and freed is not asserted, the last batch is not",
    ),
    row(
        "F11",
        UNMAPPED_BEFORE_RELEASE,
        "release of every subscriber completes before exit_mmap clears the first entry",
        &[UNMAPPED_BEFORE_RELEASE],
        "in exit_mmap, before unmap_vmas",
        "designs that release at the end (V1) or notify nobody (V0)",
    ),
    row(
        "F12",
        TABLES_FREED_WHILE_LINKED,
        "a VMA leaves i_mmap and its anon_vma before its page tables are freed",
        &[TABLES_FREED_WHILE_LINKED],
        "in free_pgtables",
        "",
    ),
    row(
        "F13",
        "i-mmap-is-linked-vmas",
        "i_mmap holds exactly the linked linear VMAs of the file, its nonlinear list the others",
        BOOKS,
        AT_END,
        "",
    ),
    row(
        "F14",
        UNCACHED_WHILE_MAPPED,
        "a page leaves the page cache locked and unmapped",
        &[UNCACHED_WHILE_MAPPED],
        "at removal from the page cache",
        "",
    ),
    row(
        "F15",
        DIRTY_BIT_LOST,
        "that a file page was written is known to the page before its last mapping goes",
        &[DIRTY_BIT_LOST],
        "when an entry of a file page goes",
        "anonymous pages: nobody would write them back",
    ),
    row(
        "F16",
        MAPPED_BEYOND_EOF,
        "after vmtruncate no VMA of the file maps a page beyond its end, private copies included",
        &[MAPPED_BEYOND_EOF],
        "at the end of the second pass",
        "",
    ),
    never(
        "F17",
        "flushed-after-unmap-mapping",
        "when unmap_mapping_range returns no stale translation of the range exists",
        "false: a VMA that a concurrent munmap has unlinked may still wait for its final flush, its pages held by the gather",
    ),
    row(
        "F18",
        FILLED_OUTSIDE_MASK,
        "a CPU that may hold translations of an address space is in its cpu_vm_mask",
        &[FILLED_OUTSIDE_MASK, CONSERVATION],
        "at every fill of a CPU's TLB, and at the end of a run that completed",
        "",
    ),
    never(
        "F19",
        "tlb-generations-grow",
        "a CPU's tlb_gen never passes the address space's, and both only grow",
        "6.12 only: 2.6.27 keeps no generations",
    ),
    row(
        "F20",
        WRITABLE_AFTER_FORK,
        "after fork's final flush no TLB lets the parent write to a page that both have now",
        &[WRITABLE_AFTER_FORK],
        "at the end of dup_mmap",
        "",
    ),
    row(
        "F21",
        WRITABLE_SHARED_PAGE,
        "a writable entry of a private mapping leads to an anonymous page that nobody else maps",
        &[WRITABLE_SHARED_PAGE, CONSERVATION],
        "at every fill for a store (shared anonymous pages), and at the end of a run that completed (page cache, too)",
        "driver mappings",
    ),
    row(
        "F22",
        "no-sleep-in-atomic",
        "nobody sleeps with a spinlock, an open per-CPU gather, inside RCU or with interrupts off",
        &[ViolationKind::SleepInAtomic.id()],
        "at everything that may sleep",
        "",
    ),
    row(
        "F23",
        "rss-is-entries",
        "the rss counters are the numbers of entries of anonymous and of file pages",
        BOOKS,
        AT_END,
        "driver mappings",
    ),
    row(
        "F24",
        "vmas-are-disjoint",
        "VMAs are sorted and disjoint, and the tree knows each by its range",
        BOOKS,
        AT_END,
        "",
    ),
    row(
        "F25",
        "flush-waits-interruptible",
        "flushes are waited for with interrupts on and preemption off",
        &[
            ViolationKind::WaitWithIrqsOff.id(),
            ViolationKind::IpiWhilePreemptible.id(),
        ],
        "at every interrupt that is waited for",
        "",
    ),
    row(
        "F26",
        REPLACED_WITHOUT_FLUSH,
        "an entry goes from one page to another only through a flushed entry that maps none",
        &[REPLACED_WITHOUT_FLUSH],
        "at every store to a leaf entry, and after the flush of a copy on write",
        "",
    ),
    row(
        "F27",
        ROOT_FREED_WHILE_LOADED,
        "an address space that a CPU has loaded, lazily too, keeps its top-level table",
        &[ROOT_FREED_WHILE_LOADED, CONSERVATION],
        "at every switch to it, and at the end of a run that completed",
        "",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_every_invariant_of_the_reference_once() {
        for (n, invariant) in INVARIANTS.iter().enumerate() {
            assert_eq!(invariant.id, format!("F{}", n + 1));
        }
        let mut names: Vec<_> = INVARIANTS.iter().map(|i| i.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), INVARIANTS.len());
        let kebab = |text: &str| text.chars().all(|c| c.is_ascii_lowercase() || c == '-');
        assert!(INVARIANTS.iter().all(|i| kebab(i.name)));
    }

    #[test]
    fn only_what_must_not_be_asserted_is_not() {
        let skipped: Vec<_> = INVARIANTS
            .iter()
            .filter(|i| i.kinds().is_empty())
            .map(|i| i.id)
            .collect();
        assert_eq!(skipped, ["F17", "F19"]);
    }

    #[test]
    fn a_name_that_is_a_kind_is_the_invariants_own() {
        for invariant in &INVARIANTS {
            for owner in Invariant::of_kind(invariant.name) {
                let shared = owner.kinds()[0] != invariant.name;
                assert!(
                    owner.id == invariant.id || shared,
                    "{} {}",
                    owner.id,
                    invariant.id
                );
            }
        }
        assert_eq!(Invariant::of_kind(CONSERVATION).count(), 9);
    }
}
