//! The TLBs of one logical CPU: a first level each for loads, stores and fetches (stores may share
//! that of the loads), each split or unified by page size, and a second level behind them.
//!
//! What is where follows the geometry: a walk fills the first level and, unless the second level takes
//! victims, the second; a hit in the second is copied up, or moved up if it takes victims. A first
//! level without a bank for a page's size keeps a fragment of a smaller size, and what invalidates the
//! page finds its fragments.
//!
//! Entries carry the address space they were made for; entries of global pages belong to all spaces
//! of one virtual processor and are found under its global tag.
//!
//! Accounting: the coherence oracle counts, for each frame, the slots that translate to it. Whoever
//! fills or empties slots is given a [`Slots`] that hears of each, so gains less drops equal the filled
//! slots at any time.

mod entry;
mod geometry;
mod hot;
mod level;
mod stats;

use std::fmt;

use entry::Tag;
pub use entry::{Asid, Context, Generation, TlbEntry};
pub(crate) use entry::{Check, significant};
pub use geometry::{
    IndexFunction, InvalidGeometry, Replacement, SecondLevelBank, SecondLevelFill, Serves, Shape, TlbBank,
    TlbGeometry,
};
pub use hot::{Run, Stop};
pub(crate) use level::Presence;
use level::{Client, Level, Tried};
pub use stats::{ByAccess, TlbStats};

use crate::addr::{Pfn, Vpn};
use crate::frames::Slots;
use crate::set_array::Displaced;
use crate::walker::Access;

/// Result of a lookup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Lookup {
    /// Found in the first level.
    Hit1(TlbEntry),
    /// Found in the second level only; bring it up with [`Tlb::promote`].
    Hit2(TlbEntry),
    /// Not found.
    Miss,
}

/// The TLBs of one logical CPU.
#[derive(Clone)]
pub struct Tlb {
    // For loads, fetches, and stores if they have their own.
    firsts: Vec<Level>,
    // Which of them an access asks.
    first_of: [u8; 3],
    second: Option<Level>,
    fill: SecondLevelFill,
    stats: TlbStats,
}

const LOADS: u8 = 0;
const FETCHES: u8 = 1;
const STORES: u8 = 2;

impl Tlb {
    /// Empty TLBs of this geometry, which [`TlbGeometry::check`] found good.
    #[must_use]
    pub fn new(geometry: &TlbGeometry) -> Self {
        let mut firsts = vec![Level::first(&geometry.load), Level::first(&geometry.fetch)];
        let mut first_of = [LOADS; 3];
        first_of[Access::Fetch as usize] = FETCHES;
        if !geometry.store.is_empty() {
            firsts.push(Level::first(&geometry.store));
            first_of[Access::Write as usize] = STORES;
        }
        Tlb {
            firsts,
            first_of,
            second: (!geometry.l2.is_empty()).then(|| Level::second(&geometry.l2)),
            fill: geometry.l2_fill,
            stats: TlbStats::default(),
        }
    }

    #[inline]
    fn first(&mut self, access: Access) -> &mut Level {
        &mut self.firsts[self.first_of[access as usize] as usize]
    }

    /// Looks a page up for an access, counts the outcome, and makes the slot found the most recently
    /// used. The frame of the page is [`TlbEntry::frame_of`] it.
    #[inline]
    pub fn lookup(&mut self, access: Access, context: Context, vpn: Vpn) -> Lookup {
        let first = self.first(access);
        if let Tried::Hit(slot) = first.hit_again(Client::of(access), context, vpn, |_| true) {
            let entry = *first.entry(slot);
            self.stats.l1_hits.count(access);
            return Lookup::Hit1(entry);
        }
        if let Some(level) = &mut self.second
            && let Some(entry) = level.hit(Client::of(access), context, vpn)
        {
            self.stats.l2_hits.count(access);
            return Lookup::Hit2(entry);
        }
        self.stats.misses.count(access);
        Lookup::Miss
    }

    /// Counts a look-up that hit neither level, of a reference that a run stopped at.
    #[inline]
    pub(crate) fn count_miss(&mut self, access: Access) {
        self.stats.misses.count(access);
    }

    /// Brings a translation in after a walk. A slot that held another translation for the same page
    /// counts as dropped and gained.
    pub fn fill(
        &mut self,
        access: Access,
        context: Context,
        vpn: Vpn,
        entry: TlbEntry,
        slots: &mut impl Slots,
    ) {
        self.fill_with(access, context, vpn, entry, Presence::Unknown, slots);
    }

    #[inline]
    pub(crate) fn fill_with(
        &mut self,
        access: Access,
        context: Context,
        vpn: Vpn,
        entry: TlbEntry,
        presence: Presence,
        slots: &mut impl Slots,
    ) {
        self.stats.fills += 1;
        self.fill_first(access, context, vpn, entry, presence, slots);
        if self.fill == SecondLevelFill::OnWalk {
            let tag = context.tag_of(&entry);
            self.fill_second(Client::of(access), tag, vpn, entry, presence, slots);
        }
    }

    /// Brings a translation that hit only the second level into the first; out of the second, if that takes
    /// victims.
    pub fn promote(
        &mut self,
        access: Access,
        context: Context,
        vpn: Vpn,
        entry: TlbEntry,
        slots: &mut impl Slots,
    ) {
        if self.fill == SecondLevelFill::OnEviction
            && let Some(level) = &mut self.second
            && let Some(slot) = level.find(Client::of(access), context, vpn)
        {
            slots.dropped(level.clear(slot).pfn);
        }
        self.fill_first(access, context, vpn, entry, Presence::Absent, slots);
    }

    #[inline]
    fn fill_first(
        &mut self,
        access: Access,
        context: Context,
        vpn: Vpn,
        entry: TlbEntry,
        presence: Presence,
        slots: &mut impl Slots,
    ) {
        let client = Client::of(access);
        if presence == Presence::Absent
            && self.fill == SecondLevelFill::OnWalk
            && let Some(old) = self.first(access).swap_in(client, context.own, vpn, entry)
        {
            return self.swapped(entry, old, slots);
        }
        let first = self.first(access);
        let filled = first.fill_fragment(client, context, vpn, entry, presence);
        let Some((kept, displaced)) = filled else {
            unreachable!("the geometry's check sees to it that every first level keeps 4 KiB pages");
        };
        slots.gained(kept.pfn);
        self.account(displaced, slots);
        if let Displaced::Other(bits, old) = displaced
            && self.fill == SecondLevelFill::OnEviction
        {
            let tag = Tag::from_bits(bits);
            self.fill_second(client, tag.asid(), tag.vpn(), old, Presence::Unknown, slots);
        }
    }

    // The second level keeps no fragments of its own: what it has no bank for, it does not keep.
    #[inline]
    fn fill_second(
        &mut self,
        client: Client,
        tag: Asid,
        vpn: Vpn,
        entry: TlbEntry,
        presence: Presence,
        slots: &mut impl Slots,
    ) {
        let Some(level) = &mut self.second else {
            return;
        };
        if presence == Presence::Absent
            && let Some(old) = level.swap_in(client, tag, vpn, entry)
        {
            return self.swapped(entry, old, slots);
        }
        // A victim of one first level may be in the second for another: only walks know better.
        if let Some(displaced) = level.fill(client, tag, vpn, entry, Presence::Unknown) {
            slots.gained(entry.pfn);
            self.account(displaced, slots);
        }
    }

    #[inline]
    fn swapped(&mut self, new: TlbEntry, old: TlbEntry, slots: &mut impl Slots) {
        self.stats.evictions += 1;
        slots.gained(new.pfn);
        slots.dropped(old.pfn);
    }

    #[inline]
    fn account(&mut self, displaced: Displaced<TlbEntry>, slots: &mut impl Slots) {
        match displaced {
            Displaced::Nothing => {}
            Displaced::SameTag(old) => slots.dropped(old.pfn),
            Displaced::Other(_, old) => {
                self.stats.evictions += 1;
                slots.dropped(old.pfn);
            }
        }
    }

    /// Empties the slots of one page under one tag, fragments of a larger page that covers it included
    /// (reference rows R1, R2). Returns how many there were.
    pub fn invalidate_page(&mut self, tag: Asid, vpn: Vpn, slots: &mut impl Slots) -> u64 {
        let mut gone = |entry: &TlbEntry| slots.dropped(entry.pfn);
        let levels = self.firsts.iter_mut().chain(&mut self.second);
        let emptied = levels.map(|level| level.clear_page(tag, vpn, &mut gone)).sum();
        self.stats.flushed_entries += emptied;
        emptied
    }

    /// Empties the slots under one tag (reference rows R3, R6). Returns how many there were.
    pub fn flush_asid(&mut self, asid: Asid, slots: &mut impl Slots) -> u64 {
        self.flush_where(|tag, _, _| tag == asid, slots)
    }

    /// Empties all slots (reference rows R4, R8). Returns how many were filled.
    pub fn flush_all(&mut self, slots: &mut impl Slots) -> u64 {
        self.flush_where(|_, _, _| true, slots)
    }

    /// Empties the slots that `doomed` picks by tag, page and entry. Page numbers have 45 bits here.
    /// Returns how many there were.
    pub fn flush_where(
        &mut self,
        doomed: impl Fn(Asid, Vpn, &TlbEntry) -> bool,
        slots: &mut impl Slots,
    ) -> u64 {
        let mut gone = |entry: &TlbEntry| slots.dropped(entry.pfn);
        let doomed = |tag: Tag, entry: &TlbEntry| doomed(tag.asid(), tag.vpn(), entry);
        let levels = self.firsts.iter_mut().chain(&mut self.second);
        let emptied = levels.map(|level| level.clear_where(doomed, &mut gone)).sum();
        self.stats.flushed_entries += emptied;
        emptied
    }

    /// What a lookup would find, without counting it or touching recency.
    #[must_use]
    pub fn probe(&self, access: Access, context: Context, vpn: Vpn) -> Option<TlbEntry> {
        let first = &self.firsts[self.first_of[access as usize] as usize];
        std::iter::once(first)
            .chain(&self.second)
            .find_map(|level| Some(*level.entry(level.find(Client::of(access), context, vpn)?)))
    }

    /// A page that some slot translates to the frame.
    #[must_use]
    pub fn holds_pfn(&self, pfn: Pfn) -> Option<(Asid, Vpn)> {
        let pages = |entry: &TlbEntry| {
            let first = u64::from(entry.pfn.get());
            (first..first + entry.size().base_pages()).contains(&u64::from(pfn.get()))
        };
        self.translations()
            .find(|(_, _, entry)| pages(entry))
            .map(|(asid, vpn, _)| (asid, vpn))
    }

    /// All translations held, one for each filled slot, in a reproducible order. Page numbers have 45
    /// bits here.
    pub fn translations(&self) -> impl Iterator<Item = (Asid, Vpn, TlbEntry)> {
        self.levels()
            .flat_map(Level::filled)
            .map(|(tag, entry)| (tag.asid(), tag.vpn(), *entry))
    }

    /// Filled slots of all levels together.
    #[must_use]
    pub fn filled_slots(&self) -> usize {
        self.levels().map(Level::len).sum()
    }

    /// Whether no slot is filled.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.filled_slots() == 0
    }

    /// Counts since the TLBs were made.
    #[inline]
    #[must_use]
    pub const fn stats(&self) -> &TlbStats {
        &self.stats
    }

    fn levels(&self) -> impl Iterator<Item = &Level> {
        self.firsts.iter().chain(&self.second)
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
