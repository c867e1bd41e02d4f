//! One array of a TLB: tags, payloads, a list of filled slots, and true LRU.
//!
//! Two organisations share the arrays. Set-associative banks compare the ways of a set and keep a
//! time stamp a slot. Fully associative banks of many ways (AMD's 48 to 72) would compare and age
//! too much that way, so they find a tag through a small chained hash and keep recency as a list.

use super::{Tag, TlbEntry, TlbLevel};
use crate::addr::Pfn;

pub(super) type Slot = u32;

const NO_SLOT: Slot = Slot::MAX;
// Up to here comparing all ways of a set is cheaper than hashing.
const MOST_SCANNED_WAYS: usize = 16;
// 2^64 / golden ratio: Fibonacci hashing spreads consecutive page numbers.
const HASH_MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

#[derive(Clone)]
pub(super) struct Bank {
    tags: Vec<Tag>,
    payload: Vec<TlbEntry>,
    // A permutation of all slots: the first `filled` hold translations.
    slots: Vec<Slot>,
    // Inverse of `slots`.
    place: Vec<u32>,
    filled: usize,
    ways: usize,
    sets: Sets,
    order: Order,
}

#[derive(Clone, Copy)]
enum Sets {
    PowerOfTwo { mask: u64 },
    Any { count: u64 },
}

#[derive(Clone)]
enum Order {
    Stamps { stamps: Vec<u64>, now: u64 },
    List(RecencyList),
}

/// What [`Bank::fill`] displaced.
pub(super) enum Displaced {
    Nothing,
    SameTag(Pfn),
    OtherTag(Pfn),
}

impl Bank {
    pub(super) fn new(level: TlbLevel) -> Self {
        let entries = level.entries() as usize;
        let ways = level.ways() as usize;
        let sets = level.sets() as u64;
        let order = if sets == 1 && ways > MOST_SCANNED_WAYS {
            Order::List(RecencyList::new(entries))
        } else {
            Order::Stamps {
                stamps: vec![0; entries],
                now: 0,
            }
        };
        let all = 0..entries as u32;
        Bank {
            tags: vec![Tag::EMPTY; entries],
            payload: vec![TlbEntry::default(); entries],
            slots: all.clone().collect(),
            place: all.collect(),
            filled: 0,
            ways,
            sets: if sets.is_power_of_two() {
                Sets::PowerOfTwo { mask: sets - 1 }
            } else {
                Sets::Any { count: sets }
            },
            order,
        }
    }

    #[inline]
    fn first_way(&self, tag: Tag) -> usize {
        let set = match self.sets {
            Sets::PowerOfTwo { mask } => tag.page() & mask,
            Sets::Any { count } => tag.page() % count,
        };
        set as usize * self.ways
    }

    /// The slot holding a tag.
    #[inline]
    pub(super) fn find(&self, tag: Tag) -> Option<Slot> {
        match &self.order {
            Order::Stamps { .. } => {
                let base = self.first_way(tag);
                let way = self.tags[base..base + self.ways].iter().position(|&t| t == tag)?;
                Some((base + way) as Slot)
            }
            Order::List(list) => list.find(tag, &self.tags),
        }
    }

    /// Makes a slot the most recently used of its set.
    #[inline]
    pub(super) fn touch(&mut self, slot: Slot) {
        match &mut self.order {
            Order::Stamps { stamps, now } => {
                *now += 1;
                stamps[slot as usize] = *now;
            }
            Order::List(list) => list.touch(slot),
        }
    }

    #[inline]
    pub(super) fn entry(&self, slot: Slot) -> TlbEntry {
        self.payload[slot as usize]
    }

    #[inline]
    pub(super) fn entry_mut(&mut self, slot: Slot) -> &mut TlbEntry {
        &mut self.payload[slot as usize]
    }

    #[inline]
    pub(super) fn tag(&self, slot: Slot) -> Tag {
        self.tags[slot as usize]
    }

    /// Puts a translation into the slot that holds the tag, else a free one, else the least recently
    /// used of the set, and makes it the most recently used.
    #[inline]
    pub(super) fn fill(&mut self, tag: Tag, entry: TlbEntry) -> (Slot, Displaced) {
        let slot = match &self.order {
            Order::Stamps { .. } => self.target(tag),
            Order::List(list) => list.find(tag, &self.tags).unwrap_or_else(|| self.victim(tag)),
        };
        let old = self.tag(slot);
        let displaced = if old == Tag::EMPTY {
            self.occupy(slot, tag, entry);
            return (slot, Displaced::Nothing);
        } else if old == tag {
            Displaced::SameTag(self.entry(slot).pfn)
        } else {
            Displaced::OtherTag(self.entry(slot).pfn)
        };
        if let Order::List(list) = &mut self.order
            && old != tag
        {
            list.remove(slot, old);
            list.insert(slot, tag);
        }
        self.tags[slot as usize] = tag;
        self.payload[slot as usize] = entry;
        self.touch(slot);
        (slot, displaced)
    }

    /// In one pass over a set: the slot that holds the tag, else the first free one, else the least
    /// recently used.
    #[inline]
    fn target(&self, tag: Tag) -> Slot {
        let Order::Stamps { stamps, .. } = &self.order else { return self.victim(tag) };
        let base = self.first_way(tag);
        let tags = &self.tags[base..base + self.ways];
        let stamps = &stamps[base..base + self.ways];
        // Age 0 stands for an empty slot: a filled one was stamped with 1 or more.
        let (mut best, mut age) = (0, u64::MAX);
        for (way, (&held, &stamp)) in tags.iter().zip(stamps).enumerate() {
            if held == tag {
                return (base + way) as Slot;
            }
            let stamp = if held == Tag::EMPTY { 0 } else { stamp };
            if stamp < age {
                (best, age) = (way, stamp);
            }
        }
        (base + best) as Slot
    }

    fn victim(&self, tag: Tag) -> Slot {
        match &self.order {
            Order::List(list) => match self.slots.get(self.filled) {
                Some(&free) => free,
                None => list.oldest,
            },
            Order::Stamps { stamps, .. } => {
                let base = self.first_way(tag);
                let set = base..base + self.ways;
                let mut best = base;
                for slot in set {
                    if self.tags[slot] == Tag::EMPTY {
                        return slot as Slot;
                    }
                    if stamps[slot] < stamps[best] {
                        best = slot;
                    }
                }
                best as Slot
            }
        }
    }

    fn occupy(&mut self, slot: Slot, tag: Tag, entry: TlbEntry) {
        self.tags[slot as usize] = tag;
        self.payload[slot as usize] = entry;
        self.swap_places(self.place[slot as usize] as usize, self.filled);
        self.filled += 1;
        if let Order::List(list) = &mut self.order {
            list.insert(slot, tag);
        }
        self.touch(slot);
    }

    /// Empties a filled slot.
    pub(super) fn clear(&mut self, slot: Slot) {
        if let Order::List(list) = &mut self.order {
            list.remove(slot, self.tags[slot as usize]);
        }
        self.tags[slot as usize] = Tag::EMPTY;
        self.filled -= 1;
        self.swap_places(self.place[slot as usize] as usize, self.filled);
    }

    fn swap_places(&mut self, a: usize, b: usize) {
        self.slots.swap(a, b);
        self.place[self.slots[a] as usize] = a as u32;
        self.place[self.slots[b] as usize] = b as u32;
    }

    /// Empties every filled slot whose tag `doomed` picks; tells `dropped` each frame. Costs one step
    /// a filled slot.
    pub(super) fn clear_where(&mut self, doomed: impl Fn(Tag) -> bool, dropped: &mut impl FnMut(Pfn)) -> u64 {
        let before = self.filled;
        // Downwards: `clear` swaps the last filled slot, already looked at, into the gap.
        for at in (0..before).rev() {
            let slot = self.slots[at];
            if doomed(self.tag(slot)) {
                dropped(self.entry(slot).pfn);
                self.clear(slot);
            }
        }
        (before - self.filled) as u64
    }

    /// Filled slots in no particular, but reproducible, order.
    pub(super) fn filled(&self) -> impl Iterator<Item = (Tag, TlbEntry)> {
        self.slots[..self.filled]
            .iter()
            .map(|&slot| (self.tag(slot), self.entry(slot)))
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.filled
    }
}

/// Doubly linked list of filled slots by recency, and a chained hash from tag to slot.
#[derive(Clone)]
struct RecencyList {
    newer: Vec<Slot>,
    older: Vec<Slot>,
    newest: Slot,
    oldest: Slot,
    heads: Vec<Slot>,
    chain: Vec<Slot>,
    shift: u32,
}

impl RecencyList {
    fn new(entries: usize) -> Self {
        // Twice as many chains as slots keeps them about half a slot long.
        let chains = (entries * 2).next_power_of_two();
        RecencyList {
            newer: vec![NO_SLOT; entries],
            older: vec![NO_SLOT; entries],
            newest: NO_SLOT,
            oldest: NO_SLOT,
            heads: vec![NO_SLOT; chains],
            chain: vec![NO_SLOT; entries],
            shift: u64::BITS - chains.trailing_zeros(),
        }
    }

    #[inline]
    fn bucket(&self, tag: Tag) -> usize {
        (tag.bits().wrapping_mul(HASH_MULTIPLIER) >> self.shift) as usize
    }

    #[inline]
    fn find(&self, tag: Tag, tags: &[Tag]) -> Option<Slot> {
        let mut slot = self.heads[self.bucket(tag)];
        while slot != NO_SLOT {
            if tags[slot as usize] == tag {
                return Some(slot);
            }
            slot = self.chain[slot as usize];
        }
        None
    }

    #[inline]
    fn touch(&mut self, slot: Slot) {
        if self.newest != slot {
            self.unlink(slot);
            self.link_newest(slot);
        }
    }

    fn insert(&mut self, slot: Slot, tag: Tag) {
        let bucket = self.bucket(tag);
        self.chain[slot as usize] = self.heads[bucket];
        self.heads[bucket] = slot;
        self.link_newest(slot);
    }

    fn remove(&mut self, slot: Slot, tag: Tag) {
        let after = self.chain[slot as usize];
        let bucket = self.bucket(tag);
        if self.heads[bucket] == slot {
            self.heads[bucket] = after;
        } else {
            let mut at = self.heads[bucket];
            while self.chain[at as usize] != slot {
                at = self.chain[at as usize];
            }
            self.chain[at as usize] = after;
        }
        self.unlink(slot);
    }

    #[inline]
    fn link_newest(&mut self, slot: Slot) {
        self.newer[slot as usize] = NO_SLOT;
        self.older[slot as usize] = self.newest;
        match self.newest {
            NO_SLOT => self.oldest = slot,
            newest => self.newer[newest as usize] = slot,
        }
        self.newest = slot;
    }

    #[inline]
    fn unlink(&mut self, slot: Slot) {
        let (newer, older) = (self.newer[slot as usize], self.older[slot as usize]);
        match newer {
            NO_SLOT => self.newest = older,
            newer => self.older[newer as usize] = older,
        }
        match older {
            NO_SLOT => self.oldest = newer,
            older => self.newer[older as usize] = newer,
        }
    }
}
