//! What a reader met in a recording.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use x86::Access;

use crate::source::Place;

/// References by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Loads.
    pub reads: u64,
    /// Stores.
    pub writes: u64,
    /// Instruction fetches.
    pub fetches: u64,
}

impl Counts {
    /// All of them.
    #[must_use]
    pub const fn total(self) -> u64 {
        self.reads + self.writes + self.fetches
    }

    #[inline]
    pub(super) fn add(&mut self, access: Access) {
        match access {
            Access::Read => self.reads += 1,
            Access::Write => self.writes += 1,
            Access::Fetch => self.fetches += 1,
        }
    }
}

/// Why a record was not delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// A line that valgrind wrote about itself.
    ToolOutput,
    /// The address is not canonical, not even with 57 bits.
    NotCanonical,
    /// An instruction that is executed again without being fetched, as in a `rep` loop.
    NotFetched,
    /// A prefetch that hardware or a cache of instructions makes, which does not walk the data side.
    Prefetch,
    /// A flush of caches.
    CacheFlush,
    /// An entry of a type this reader does not know.
    UnknownType,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reason::ToolOutput => "valgrind's own messages",
            Reason::NotCanonical => "the address is not canonical with 57 bits",
            Reason::NotFetched => "executed again without a fetch",
            Reason::Prefetch => "a prefetch of instructions or by hardware",
            Reason::CacheFlush => "a cache flush",
            Reason::UnknownType => "entries of unknown type",
        })
    }
}

/// Records that were not delivered for one reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// How many.
    pub count: u64,
    /// Where the first of them is.
    pub first: Place,
}

/// Something about the whole recording that its reader should know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Remark {
    /// The recorder left out what hit in a cache of its own.
    Filtered,
    /// The recorder left out loads and stores.
    InstructionsOnly,
    /// The program ran on another architecture.
    NotX86,
    /// The mark at the end is missing.
    NoEnd,
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Remark::Filtered => "what hit in the recorder's own cache was left out: expect too many misses",
            Remark::InstructionsOnly => "there are no loads and stores in this recording",
            Remark::NotX86 => "recorded on AArch64, whose pages need not have 4 KiB",
            Remark::NoEnd => "the mark at the end is missing: the recording may be cut short",
        })
    }
}

/// What a reader met so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Records read: lines, entries, instructions or, in the compact form, references.
    pub records: u64,
    /// References delivered.
    pub references: Counts,
    /// Accesses that crossed into another page, and became a reference to each.
    pub split: u64,
    /// Threads met.
    pub threads: u32,
    /// Records that were not delivered.
    pub skipped: BTreeMap<Reason, Skipped>,
    /// What else there is to say.
    pub remarks: BTreeSet<Remark>,
}

impl Summary {
    #[cold]
    pub(super) fn skip(&mut self, reason: Reason, place: Place) {
        let new = Skipped {
            count: 0,
            first: place,
        };
        self.skipped.entry(reason).or_insert(new).count += 1;
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts {
            reads,
            writes,
            fetches,
        } = self.references;
        write!(f, "records {}, threads {}, ", self.records, self.threads)?;
        write!(f, "fetches {fetches}, loads {reads}, stores {writes}, ")?;
        write!(f, "accesses across pages {}", self.split)?;
        for (reason, Skipped { count, first }) in &self.skipped {
            write!(f, "\nskipped {count}: {reason} (first at {first})")?;
        }
        self.remarks
            .iter()
            .try_for_each(|remark| write!(f, "\nnote: {remark}"))
    }
}
