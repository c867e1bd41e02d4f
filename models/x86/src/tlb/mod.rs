//! A CPU's data TLB: a first level and, if the machine has one, a second.
//!
//! Both levels are set-associative with true LRU and hold 4 KiB translations. A fill after a walk
//! goes into both; a hit in the second level alone is copied into the first by [`Tlb::promote`].
//! Neither level includes the other: an eviction from one leaves the other alone. (AMD's K10 second
//! level takes victims of the first instead; contents then differ, capacity does not.)
//!
//! Accounting: the coherence oracle counts, for each frame, the slots that translate to it. So
//! whatever fills slots returns how many it filled with the new frame, and whatever takes a
//! translation out of a slot calls `dropped` with the old frame once a slot. Gains less drops equal
//! the filled slots at any time.

mod bank;
mod geometry;

use std::fmt;

use bank::{Bank, Displaced, Slot};
pub use geometry::{
    IndexFunction, InvalidGeometry, Replacement, SecondLevelBank, SecondLevelFill, Serves, Shape, TlbBank,
    TlbGeometry,
};

use crate::addr::{Pfn, Vpn};
use crate::entry::Rights;

/// Tag distinguishing address spaces in a TLB (PCID, VPID or SVM ASID).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Asid(u16);

impl Asid {
    /// The tag all address spaces share on machines without tags.
    pub const UNTAGGED: Asid = Asid(0);

    /// The tag with this number.
    #[inline]
    #[must_use]
    pub const fn new(number: u16) -> Self {
        Asid(number)
    }

    /// The number.
    #[inline]
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }
}

/// How often a frame had been freed when a translation to it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(u32);

impl Generation {
    /// Never freed.
    pub const FIRST: Generation = Generation(0);

    /// The generation with this number.
    #[inline]
    #[must_use]
    pub const fn new(number: u32) -> Self {
        Generation(number)
    }

    /// The number.
    #[inline]
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The generation after one more free; wraps after 2^32.
    #[inline]
    #[must_use]
    pub const fn next(self) -> Self {
        Generation(self.0.wrapping_add(1))
    }
}

/// What a TLB slot knows of a page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct TlbEntry {
    /// The frame.
    pub pfn: Pfn,
    /// The frame's generation when the slot was filled.
    pub generation: Generation,
    /// What the translation allows.
    pub rights: Rights,
    /// D was set when the slot was filled, so a store needs no walk to set it (reference row R17).
    pub dirty: bool,
}

/// Result of a lookup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Lookup {
    /// Found in the first level.
    Hit1(TlbEntry),
    /// Found in the second level only; copy it up with [`Tlb::promote`].
    Hit2(TlbEntry),
    /// Not found.
    Miss,
}

/// Counts since the TLB was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TlbStats {
    /// Lookups that hit the first level.
    pub l1_hits: u64,
    /// Lookups that hit only the second level.
    pub l2_hits: u64,
    /// Lookups that hit neither.
    pub misses: u64,
    /// Translations brought in by [`Tlb::fill`].
    pub fills: u64,
    /// Slots, of either level, taken over by another page.
    pub evictions: u64,
    /// Slots, of either level, emptied by an invalidation.
    pub flushed_entries: u64,
}

/// ASID and page in one word: `asid << 48 | vpn + 1`. Zero is an empty slot.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Tag(u64);

const TAG_PAGE_BITS: u32 = 48;
const TAG_PAGE_MASK: u64 = (1 << TAG_PAGE_BITS) - 1;

impl Tag {
    const EMPTY: Tag = Tag(0);

    #[inline]
    fn new(asid: Asid, vpn: Vpn) -> Tag {
        debug_assert!(vpn.get() < TAG_PAGE_MASK, "{vpn} does not fit a TLB tag");
        Tag(u64::from(asid.0) << TAG_PAGE_BITS | ((vpn.get() + 1) & TAG_PAGE_MASK))
    }

    #[inline]
    const fn bits(self) -> u64 {
        self.0
    }

    #[inline]
    const fn asid(self) -> Asid {
        Asid((self.0 >> TAG_PAGE_BITS) as u16)
    }

    #[inline]
    const fn page(self) -> u64 {
        (self.0 & TAG_PAGE_MASK).wrapping_sub(1)
    }

    const fn vpn(self) -> Vpn {
        Vpn::new(self.page())
    }
}

// The last page hit or filled in the first level. It is the most recently used of its set, so
// hitting it again needs no LRU update.
#[derive(Clone, Copy)]
struct Memo {
    tag: Tag,
    slot: Slot,
}

impl Memo {
    const NOTHING: Memo = Memo {
        tag: Tag::EMPTY,
        slot: 0,
    };
}

/// The data TLB of one CPU.
#[derive(Clone)]
pub struct Tlb {
    // Invariant: empty, or names a slot of `first` whose tag it repeats.
    memo: Memo,
    stats: TlbStats,
    first: Bank,
    second: Option<Bank>,
}

impl Tlb {
    /// An empty TLB of this shape.
    #[must_use]
    pub fn new(geometry: &TlbGeometry) -> Self {
        Tlb {
            memo: Memo::NOTHING,
            stats: TlbStats::default(),
            first: Bank::new(geometry.load[0].shape),
            second: geometry.l2.first().map(|second| Bank::new(second.bank.shape)),
        }
    }

    /// Looks a page up, counts the outcome, and makes the slot found the most recently used.
    #[inline]
    pub fn lookup(&mut self, asid: Asid, vpn: Vpn) -> Lookup {
        let tag = Tag::new(asid, vpn);
        if self.memo.tag == tag {
            self.stats.l1_hits += 1;
            return Lookup::Hit1(self.first.entry(self.memo.slot));
        }
        if let Some((slot, entry)) = self.first.hit(tag) {
            self.memo = Memo { tag, slot };
            self.stats.l1_hits += 1;
            return Lookup::Hit1(entry);
        }
        self.lookup_second(tag)
    }

    fn lookup_second(&mut self, tag: Tag) -> Lookup {
        if let Some(bank) = &mut self.second
            && let Some((_, entry)) = bank.hit(tag)
        {
            self.stats.l2_hits += 1;
            return Lookup::Hit2(entry);
        }
        self.stats.misses += 1;
        Lookup::Miss
    }

    /// Brings a translation into both levels after a walk. Returns the slots that now hold `entry`
    /// and did not before; a slot that held another translation for the same page counts as dropped
    /// and gained.
    pub fn fill(&mut self, asid: Asid, vpn: Vpn, entry: TlbEntry, dropped: &mut impl FnMut(Pfn)) -> u32 {
        let tag = Tag::new(asid, vpn);
        self.stats.fills += 1;
        self.fill_first(tag, entry, dropped);
        let Some(bank) = &mut self.second else {
            return 1;
        };
        let (_, displaced) = bank.fill(tag, entry);
        self.account(displaced, dropped);
        2
    }

    /// Copies a translation that hit the second level into the first. Returns the slots gained: one.
    pub fn promote(&mut self, asid: Asid, vpn: Vpn, entry: TlbEntry, dropped: &mut impl FnMut(Pfn)) -> u32 {
        self.fill_first(Tag::new(asid, vpn), entry, dropped);
        1
    }

    fn fill_first(&mut self, tag: Tag, entry: TlbEntry, dropped: &mut impl FnMut(Pfn)) {
        let (slot, displaced) = self.first.fill(tag, entry);
        self.memo = Memo { tag, slot };
        self.account(displaced, dropped);
    }

    fn account(&mut self, displaced: Displaced, dropped: &mut impl FnMut(Pfn)) {
        match displaced {
            Displaced::Nothing => {}
            Displaced::SameTag(pfn) => dropped(pfn),
            Displaced::OtherTag(pfn) => {
                self.stats.evictions += 1;
                dropped(pfn);
            }
        }
    }

    /// Rewrites rights, dirty bit and generation in every slot that maps the page to the same frame,
    /// and leaves recency alone. Returns the slots rewritten. A slot mapping the page to another frame
    /// is left as it is: only a flush may take that translation away.
    pub fn update(&mut self, asid: Asid, vpn: Vpn, entry: TlbEntry) -> u32 {
        let tag = Tag::new(asid, vpn);
        let mut rewritten = 0;
        for bank in std::iter::once(&mut self.first).chain(&mut self.second) {
            if let Some(slot) = bank.find(tag)
                && bank.entry(slot).pfn == entry.pfn
            {
                *bank.entry_mut(slot) = entry;
                rewritten += 1;
            }
        }
        rewritten
    }

    /// INVLPG: empties the slots of one page (reference row R1). Returns how many there were.
    pub fn invalidate_page(&mut self, asid: Asid, vpn: Vpn, dropped: &mut impl FnMut(Pfn)) -> u32 {
        let tag = Tag::new(asid, vpn);
        if self.memo.tag == tag {
            self.memo = Memo::NOTHING;
        }
        let mut emptied = 0;
        for bank in std::iter::once(&mut self.first).chain(&mut self.second) {
            if let Some(slot) = bank.find(tag) {
                dropped(bank.entry(slot).pfn);
                bank.clear(slot);
                emptied += 1;
            }
        }
        self.stats.flushed_entries += u64::from(emptied);
        emptied
    }

    /// Empties the slots of one address space (reference rows R3, R6). Returns how many there were.
    pub fn flush_asid(&mut self, asid: Asid, dropped: &mut impl FnMut(Pfn)) -> u64 {
        self.flush_where(|tag| tag.asid() == asid, dropped)
    }

    /// Empties all slots (reference rows R4, R5, R8). Returns how many were filled.
    pub fn flush_all(&mut self, dropped: &mut impl FnMut(Pfn)) -> u64 {
        self.flush_where(|_| true, dropped)
    }

    fn flush_where(&mut self, doomed: impl Fn(Tag) -> bool, dropped: &mut impl FnMut(Pfn)) -> u64 {
        self.memo = Memo::NOTHING;
        let mut emptied = 0;
        for bank in std::iter::once(&mut self.first).chain(&mut self.second) {
            emptied += bank.clear_where(&doomed, dropped);
        }
        self.stats.flushed_entries += emptied;
        emptied
    }

    /// What a lookup would find, without counting it or touching recency.
    #[must_use]
    pub fn probe(&self, asid: Asid, vpn: Vpn) -> Option<TlbEntry> {
        let tag = Tag::new(asid, vpn);
        self.banks()
            .find_map(|bank| bank.find(tag).map(|slot| bank.entry(slot)))
    }

    /// A page that some slot translates to the frame.
    #[must_use]
    pub fn holds_pfn(&self, pfn: Pfn) -> Option<(Asid, Vpn)> {
        self.banks()
            .flat_map(Bank::filled)
            .find(|(_, entry)| entry.pfn == pfn)
            .map(|(tag, _)| (tag.asid(), tag.vpn()))
    }

    /// All translations held, one for each filled slot, in a reproducible order.
    pub fn translations(&self) -> impl Iterator<Item = (Asid, Vpn, TlbEntry)> {
        self.banks()
            .flat_map(Bank::filled)
            .map(|(tag, entry)| (tag.asid(), tag.vpn(), entry))
    }

    /// Filled slots of both levels together.
    #[must_use]
    pub fn filled_slots(&self) -> usize {
        self.banks().map(Bank::len).sum()
    }

    /// Whether no slot is filled.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.filled_slots() == 0
    }

    /// Counts since the TLB was made.
    #[inline]
    #[must_use]
    pub const fn stats(&self) -> &TlbStats {
        &self.stats
    }

    fn banks(&self) -> impl Iterator<Item = &Bank> {
        std::iter::once(&self.first).chain(&self.second)
    }
}

impl fmt::Debug for Tlb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tlb")
            .field("filled_slots", &self.filled_slots())
            .field("stats", &self.stats)
            .finish()
    }
}
