//! Spans of virtual addresses and what is known about them.

use std::collections::BTreeMap;

use crate::ast::{Address, Prot, Region};

/// Size of a page in bytes.
pub(super) const PAGE: u64 = 4096;
/// End of the user half of the address space.
const TOP: u64 = 1 << 47;

/// A non-empty, page aligned range of user addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Span {
    /// First byte.
    pub(super) start: u64,
    /// Byte after the last.
    pub(super) end: u64,
}

impl Span {
    /// The pages that `length` bytes at `start` lie in, if there are any in user space.
    pub(super) fn bytes(start: u64, length: u64) -> Option<Span> {
        let end = start.checked_add(length)?.checked_next_multiple_of(PAGE)?;
        Span::between(start / PAGE * PAGE, end)
    }

    /// From `start` to `end`, if that is not empty and in user space.
    pub(super) fn between(start: u64, end: u64) -> Option<Span> {
        (start < end && end <= TOP && start.is_multiple_of(PAGE) && end.is_multiple_of(PAGE))
            .then_some(Span { start, end })
    }

    pub(super) fn pages(self) -> u64 {
        (self.end - self.start) / PAGE
    }

    pub(super) fn overlaps(self, other: Span) -> bool {
        self.start < other.end && other.start < self.end
    }

    pub(super) fn intersect(self, other: Span) -> Option<Span> {
        Span::between(self.start.max(other.start), self.end.min(other.end))
    }

    pub(super) fn region(self) -> Region {
        Region {
            at: Some(address(self.start)),
            pages: Some(self.pages()),
            ..Region::default()
        }
    }
}

/// An address as scenarios write it.
pub(super) fn address(at: u64) -> Address {
    Address::Text(format!("{at:#x}"))
}

/// A map from disjoint spans to values that survive splitting.
#[derive(Debug, Clone)]
pub(super) struct SpanMap<T>(BTreeMap<u64, (u64, T)>);

impl<T> Default for SpanMap<T> {
    fn default() -> Self {
        SpanMap(BTreeMap::new())
    }
}

impl<T: Clone> SpanMap<T> {
    /// The parts of entries inside `on`, in order.
    pub(super) fn over(&self, on: Span) -> Vec<(Span, T)> {
        let before = self.0.range(..on.start).next_back();
        let inside = self.0.range(on.start..on.end);
        let parts = before.into_iter().chain(inside);
        parts
            .filter_map(|(&start, (end, value))| {
                Some((Span { start, end: *end }.intersect(on)?, value.clone()))
            })
            .collect()
    }

    /// The parts of `on` that no entry covers.
    pub(super) fn gaps(&self, on: Span) -> Vec<Span> {
        let (mut gaps, mut at) = (Vec::new(), on.start);
        for (part, _) in self.over(on) {
            gaps.extend(Span::between(at, part.start));
            at = part.end;
        }
        gaps.extend(Span::between(at, on.end));
        gaps
    }

    /// Removes `on`, splitting entries at its ends.
    pub(super) fn remove(&mut self, on: Span) {
        let before = self
            .0
            .range(..on.start)
            .next_back()
            .map(|(&start, entry)| (start, entry.clone()));
        if let Some((start, (end, value))) = before
            && end > on.start
        {
            self.0.insert(start, (on.start, value.clone()));
            if end > on.end {
                self.0.insert(on.end, (end, value));
            }
        }
        let inside: Vec<u64> = self.0.range(on.start..on.end).map(|(&start, _)| start).collect();
        for start in inside {
            if let Some((end, value)) = self.0.remove(&start)
                && end > on.end
            {
                self.0.insert(on.end, (end, value));
            }
        }
    }

    /// Sets `on`, replacing what was there.
    pub(super) fn set(&mut self, on: Span, value: T) {
        self.remove(on);
        self.0.insert(on.start, (on.end, value));
    }

    /// All entries in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Span, &T)> {
        self.0
            .iter()
            .map(|(&start, (end, value))| (Span { start, end: *end }, value))
    }
}

/// What backs an area.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Backing {
    /// Anonymous private memory.
    Anon,
    /// The program's own image, mapped by the kernel; taken for anonymous private memory.
    Image,
    /// The heap.
    Heap,
    /// A file, mapped privately.
    Private(usize),
    /// A file, mapped shared.
    Shared(usize),
    /// Shared anonymous memory (a file without a name).
    Shmem(usize),
}

/// Whether the pages of an area are worth touching.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Touched {
    /// Touched when made, or not to be touched at all.
    Settled,
    /// Inaccessible until now: to be touched once it becomes writable.
    Later,
}

/// A mapped area.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Area {
    pub(super) backing: Backing,
    pub(super) prot: Prot,
    pub(super) touched: Touched,
    /// File page of address 0, so that it survives splitting.
    pub(super) base: i64,
}

impl Area {
    /// File page behind an address.
    pub(super) fn offset(&self, at: u64) -> u64 {
        u64::try_from(self.base + i64::try_from(at / PAGE).unwrap_or(0)).unwrap_or(0)
    }

    /// The file behind it.
    pub(super) fn file(&self) -> Option<usize> {
        match self.backing {
            Backing::Anon | Backing::Image | Backing::Heap => None,
            Backing::Private(file) | Backing::Shared(file) | Backing::Shmem(file) => Some(file),
        }
    }
}

/// Whether a protection allows stores.
pub(super) fn writable(prot: Prot) -> bool {
    matches!(prot, Prot::ReadWrite | Prot::ReadWriteExec)
}

/// Protection as strace prints it.
pub(super) fn prot(text: &str) -> Prot {
    let has = |flag| super::args::has(text, flag);
    match (has("PROT_READ"), has("PROT_WRITE"), has("PROT_EXEC")) {
        (_, true, true) => Prot::ReadWriteExec,
        (_, true, false) => Prot::ReadWrite,
        (_, false, true) => Prot::ReadExec,
        (true, false, false) => Prot::Read,
        (false, false, false) => Prot::None,
    }
}
