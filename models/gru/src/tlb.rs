//! The TLB of one chiplet.
//!
//! Tagged by the 24-bit GRU identifier, which [`x86::Asid`] does not hold, hence a TLB of its own.
//! Software filled, hardware looked up; a slot holds a copy of the translation and the generation its
//! frame had.
//!
//! A slot is *live* while its identifier can still be used. Forgetting an identifier makes its slots
//! dead at once: they keep their place until they are displaced or the chiplet is purged, but nobody
//! can reach them. Every fill makes one live slot, and every live slot is reported to `dropped` exactly
//! once when it ends, so that the oracle's count of usable translations balances. Purging costs the
//! smaller of the range and the live slots.
//!
//! Geometry is an assumption, see [`crate::costs::TLB_SETS`]; so is true LRU within a set.

use x86::{Pfn, TlbEntry, Vpn};

use crate::asid::GruAsid;
use crate::costs::{TLB_SETS, TLB_WAYS};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Tag {
    asid: GruAsid,
    vpn: Vpn,
}

#[derive(Clone, Copy, Default, Debug)]
struct Slot {
    tag: Option<Tag>,
    entry: TlbEntry,
    used: u64,
    /// Place in the list of live slots.
    place: Option<u32>,
}

/// One chiplet's TLB.
#[derive(Debug)]
pub(crate) struct GruTlb {
    slots: Vec<Slot>,
    live: Vec<u32>,
    now: u64,
}

impl GruTlb {
    pub(crate) fn new() -> Self {
        GruTlb {
            slots: vec![Slot::default(); TLB_SETS * TLB_WAYS],
            live: Vec::new(),
            now: 0,
        }
    }

    fn set(vpn: Vpn) -> std::ops::Range<usize> {
        let first = (vpn.get() as usize % TLB_SETS) * TLB_WAYS;
        first..first + TLB_WAYS
    }

    fn find(&self, tag: Tag) -> Option<usize> {
        Self::set(tag.vpn).find(|&at| self.slots[at].tag == Some(tag))
    }

    /// The translation of a page, which becomes the most recently used of its set.
    pub(crate) fn lookup(&mut self, asid: GruAsid, vpn: Vpn) -> Option<TlbEntry> {
        let at = self.find(Tag { asid, vpn })?;
        self.now += 1;
        self.slots[at].used = self.now;
        Some(self.slots[at].entry)
    }

    /// Puts a translation in place of the one of the same page, else into a free slot, else over the
    /// least recently used of the set.
    pub(crate) fn fill(&mut self, asid: GruAsid, vpn: Vpn, entry: TlbEntry, dropped: &mut impl FnMut(Pfn)) {
        let tag = Tag { asid, vpn };
        let at = self.find(tag).unwrap_or_else(|| self.victim(vpn));
        self.clear(at, dropped);
        self.now += 1;
        self.slots[at] = Slot {
            tag: Some(tag),
            entry,
            used: self.now,
            place: Some(self.live.len() as u32),
        };
        self.live.push(at as u32);
    }

    fn victim(&self, vpn: Vpn) -> usize {
        let age = |at: &usize| (self.slots[*at].tag.is_some(), self.slots[*at].used);
        Self::set(vpn).min_by_key(age).expect("a set has ways")
    }

    /// Empties a slot; reports its frame if it was live.
    fn clear(&mut self, at: usize, dropped: &mut impl FnMut(Pfn)) {
        if self.bury(at) {
            dropped(self.slots[at].entry.pfn);
        }
        self.slots[at].tag = None;
    }

    /// Takes a slot off the live list; tells whether it was on it.
    fn bury(&mut self, at: usize) -> bool {
        let Some(place) = self.slots[at].place.take() else {
            return false;
        };
        self.live.swap_remove(place as usize);
        if let Some(&moved) = self.live.get(place as usize) {
            self.slots[moved as usize].place = Some(place);
        }
        true
    }

    /// Empties the slots of `pages` pages from `first`. Returns how many there were.
    pub(crate) fn purge_range(
        &mut self,
        asid: GruAsid,
        first: Vpn,
        pages: u64,
        dropped: &mut impl FnMut(Pfn),
    ) -> u64 {
        if pages <= self.live.len() as u64 {
            let found: Vec<usize> = (0..pages)
                .filter_map(|n| {
                    self.find(Tag {
                        asid,
                        vpn: first.add(n),
                    })
                })
                .collect();
            for &at in &found {
                self.clear(at, dropped);
            }
            return found.len() as u64;
        }
        let inside = first..first.add(pages);
        self.purge_live(
            |tag| tag.asid == asid && inside.start <= tag.vpn && tag.vpn < inside.end,
            dropped,
        )
    }

    /// Empties all slots of an identifier. Returns how many there were.
    pub(crate) fn purge_asid(&mut self, asid: GruAsid, dropped: &mut impl FnMut(Pfn)) -> u64 {
        self.purge_live(|tag| tag.asid == asid, dropped)
    }

    fn purge_live(&mut self, doomed: impl Fn(Tag) -> bool, dropped: &mut impl FnMut(Pfn)) -> u64 {
        let before = self.live.len();
        // Downwards: `bury` swaps the last live slot, already looked at, into the gap.
        for place in (0..before).rev() {
            let at = self.live[place] as usize;
            if self.slots[at].tag.is_some_and(&doomed) {
                self.clear(at, dropped);
            }
        }
        (before - self.live.len()) as u64
    }

    /// The identifiers in use are given up without the hardware being told: live slots become dead.
    /// Returns how many there were.
    pub(crate) fn forget(&mut self, dropped: &mut impl FnMut(Pfn)) -> u64 {
        let lost = std::mem::take(&mut self.live);
        for &at in &lost {
            let slot = &mut self.slots[at as usize];
            slot.place = None;
            dropped(slot.entry.pfn);
        }
        lost.len() as u64
    }

    /// Empties every slot, dead ones included. Returns how many were live.
    pub(crate) fn purge_all(&mut self, dropped: &mut impl FnMut(Pfn)) -> u64 {
        let live = self.forget(dropped);
        self.slots.fill(Slot::default());
        live
    }

    /// Whether a live slot translates to the frame.
    pub(crate) fn reaches(&self, pfn: Pfn) -> bool {
        self.live
            .iter()
            .any(|&at| self.slots[at as usize].entry.pfn == pfn)
    }

    /// Live slots.
    pub(crate) fn live(&self) -> usize {
        self.live.len()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::asid::{AsidSpace, Assigned};

    const WAYS: u64 = TLB_WAYS as u64;

    fn asids() -> [GruAsid; 2] {
        let mut space = AsidSpace::new();
        [(); 2].map(|()| match space.assign() {
            Assigned::Next(a) | Assigned::Wrapped(a) => a,
        })
    }

    fn entry(pfn: u32) -> TlbEntry {
        TlbEntry::new(Pfn::new(pfn), x86::Rights::USER_READ, x86::Generation::FIRST)
    }

    #[test]
    fn a_full_set_displaces_its_least_recently_used_slot() {
        let [asid, _] = asids();
        let mut tlb = GruTlb::new();
        let page = |n: u64| Vpn::new(n * TLB_SETS as u64);
        let mut gone = Vec::new();
        for n in 0..WAYS {
            tlb.fill(asid, page(n), entry(n as u32), &mut |p| gone.push(p));
        }
        assert!(tlb.lookup(asid, page(0)).is_some());
        tlb.fill(asid, page(WAYS), entry(100), &mut |p| gone.push(p));
        assert_eq!(gone, [Pfn::new(1)]);
        assert!(tlb.lookup(asid, page(1)).is_none() && tlb.lookup(asid, page(0)).is_some());
    }

    #[test]
    fn dead_slots_are_displaced_without_a_word() {
        let [asid, _] = asids();
        let mut tlb = GruTlb::new();
        let mut gone = 0;
        tlb.fill(asid, Vpn::new(5), entry(1), &mut |_| gone += 1);
        assert_eq!(tlb.forget(&mut |_| gone += 1), 1);
        assert_eq!(gone, 1);
        assert!(!tlb.reaches(Pfn::new(1)));
        for n in 1..=WAYS {
            tlb.fill(asid, Vpn::new(5 + n * TLB_SETS as u64), entry(2), &mut |_| {
                gone += 1
            });
        }
        assert_eq!((gone, tlb.live()), (1, TLB_WAYS));
    }

    #[derive(Clone, Debug)]
    enum Op {
        Fill(usize, u64),
        Purge(usize, u64, u64),
        PurgeAsid(usize),
        Forget,
        PurgeAll,
    }

    fn op() -> impl Strategy<Value = Op> {
        // Few sets, so that they fill up.
        let page = || (0u64..3, 0u64..8).prop_map(|(set, way)| way * TLB_SETS as u64 + set);
        prop_oneof![
            8 => (0usize..2, page()).prop_map(|(a, p)| Op::Fill(a, p)),
            3 => (0usize..2, page(), 1u64..3000).prop_map(|(a, p, n)| Op::Purge(a, p, n)),
            1 => (0usize..2).prop_map(Op::PurgeAsid),
            1 => Just(Op::Forget),
            1 => Just(Op::PurgeAll),
        ]
    }

    proptest! {
        #[test]
        fn every_fill_is_reported_dropped_once(ops in prop::collection::vec(op(), 1..200)) {
            let mut space = AsidSpace::new();
            let mut fresh = || [(); 2].map(|()| match space.assign() {
                Assigned::Next(a) | Assigned::Wrapped(a) => a,
            });
            let mut asids = fresh();
            let mut tlb = GruTlb::new();
            let mut usable: BTreeMap<Pfn, u32> = BTreeMap::new();
            for (n, op) in ops.into_iter().enumerate() {
                let mut dropped = |p: Pfn| *usable.get_mut(&p).expect("was filled") -= 1;
                match op {
                    Op::Fill(a, p) => {
                        tlb.fill(asids[a], Vpn::new(p), entry(n as u32), &mut dropped);
                        usable.insert(Pfn::new(n as u32), 1);
                        prop_assert!(tlb.lookup(asids[a], Vpn::new(p)).is_some());
                    }
                    Op::Purge(a, p, pages) => {
                        tlb.purge_range(asids[a], Vpn::new(p), pages, &mut dropped);
                        prop_assert!(tlb.lookup(asids[a], Vpn::new(p)).is_none());
                    }
                    Op::PurgeAsid(a) => { tlb.purge_asid(asids[a], &mut dropped); }
                    Op::Forget => {
                        tlb.forget(&mut dropped);
                        asids = fresh();
                    }
                    Op::PurgeAll => { tlb.purge_all(&mut dropped); }
                }
                prop_assert_eq!(usable.values().sum::<u32>() as usize, tlb.live());
                prop_assert!(usable.iter().all(|(p, n)| (*n == 1) == tlb.reaches(*p)));
            }
        }
    }
}
