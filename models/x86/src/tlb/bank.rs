//! One array of a TLB: its slots, a list of those filled, and true LRU.
//!
//! Two organisations share the arrays. Set-associative banks compare the ways of a set and keep a
//! time stamp a slot. Fully associative banks of many ways (AMD's 48 to 72) would compare and age
//! too much that way, so they find a tag through a small chained hash and keep recency as a list.

use super::{Generation, Shape, Tag, TlbEntry};
use crate::addr::Pfn;
use crate::entry::Rights;

pub(super) type Slot = u32;

const NO_SLOT: Slot = Slot::MAX;
// Up to here comparing all ways of a set is cheaper than hashing.
const MOST_SCANNED_WAYS: usize = 16;
// 2^64 / golden ratio: Fibonacci hashing spreads consecutive page numbers.
const HASH_MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

/// One slot.
#[derive(Clone, Copy)]
struct Line {
    tag: Tag,
    // When it was used last; 0 if it is empty. Only of meaning with `Order::Stamps`.
    stamp: u64,
    payload: TlbEntry,
}

const EMPTY_LINE: Line = Line {
    tag: Tag::EMPTY,
    stamp: 0,
    payload: TlbEntry {
        pfn: Pfn::new(0),
        generation: Generation::FIRST,
        rights: Rights::NONE,
        dirty: false,
    },
};

#[derive(Clone)]
pub(super) struct Bank {
    lines: Vec<Line>,
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
    Stamps { now: u64 },
    List(RecencyList),
}

/// What [`Bank::fill`] displaced.
pub(super) enum Displaced {
    Nothing,
    SameTag(Pfn),
    OtherTag(Pfn),
}

impl Bank {
    pub(super) fn new(level: Shape) -> Self {
        let entries = level.entries() as usize;
        let ways = level.ways() as usize;
        let sets = level.sets() as u64;
        let order = if sets == 1 && ways > MOST_SCANNED_WAYS {
            Order::List(RecencyList::new(entries))
        } else {
            Order::Stamps { now: 0 }
        };
        let all = 0..entries as u32;
        Bank {
            lines: vec![EMPTY_LINE; entries],
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
                let way = self.lines[base..base + self.ways]
                    .iter()
                    .position(|line| line.tag == tag)?;
                Some((base + way) as Slot)
            }
            Order::List(list) => list.find(tag, &self.lines),
        }
    }

    /// Finds a tag and makes its slot the most recently used of its set.
    #[inline]
    pub(super) fn hit(&mut self, tag: Tag) -> Option<(Slot, TlbEntry)> {
        let base = self.first_way(tag);
        match &mut self.order {
            Order::Stamps { now } => {
                for (way, line) in self.lines[base..base + self.ways].iter_mut().enumerate() {
                    if line.tag == tag {
                        *now += 1;
                        line.stamp = *now;
                        return Some(((base + way) as Slot, line.payload));
                    }
                }
                None
            }
            Order::List(list) => {
                let slot = list.find(tag, &self.lines)?;
                list.touch(slot);
                Some((slot, self.lines[slot as usize].payload))
            }
        }
    }

    #[inline]
    pub(super) fn entry(&self, slot: Slot) -> TlbEntry {
        self.lines[slot as usize].payload
    }

    #[inline]
    pub(super) fn entry_mut(&mut self, slot: Slot) -> &mut TlbEntry {
        &mut self.lines[slot as usize].payload
    }

    #[inline]
    pub(super) fn tag(&self, slot: Slot) -> Tag {
        self.lines[slot as usize].tag
    }

    /// Puts a translation into the slot that holds the tag, else a free one, else the least recently
    /// used of the set, and makes it the most recently used.
    #[inline]
    pub(super) fn fill(&mut self, tag: Tag, entry: TlbEntry) -> (Slot, Displaced) {
        let slot = self.target(tag);
        let Line {
            tag: old, payload, ..
        } = self.lines[slot as usize];
        let displaced = if old == Tag::EMPTY {
            self.swap_places(self.place[slot as usize] as usize, self.filled);
            self.filled += 1;
            Displaced::Nothing
        } else if old == tag {
            Displaced::SameTag(payload.pfn)
        } else {
            Displaced::OtherTag(payload.pfn)
        };
        let stamp = match &mut self.order {
            Order::Stamps { now } => {
                *now += 1;
                *now
            }
            Order::List(list) => {
                list.refill(slot, old, tag);
                0
            }
        };
        self.lines[slot as usize] = Line {
            tag,
            stamp,
            payload: entry,
        };
        (slot, displaced)
    }

    /// The slot that holds the tag, else a free one, else the least recently used of the set.
    #[inline]
    fn target(&self, tag: Tag) -> Slot {
        if let Order::List(list) = &self.order {
            let free = || self.slots.get(self.filled).copied();
            return list.find(tag, &self.lines).or_else(free).unwrap_or(list.oldest);
        }
        let base = self.first_way(tag);
        let (mut best, mut age) = (0, u64::MAX);
        for (way, line) in self.lines[base..base + self.ways].iter().enumerate() {
            if line.tag == tag {
                return (base + way) as Slot;
            }
            if line.stamp < age {
                (best, age) = (way, line.stamp);
            }
        }
        (base + best) as Slot
    }

    /// Empties a filled slot.
    pub(super) fn clear(&mut self, slot: Slot) {
        if let Order::List(list) = &mut self.order {
            list.remove(slot, self.lines[slot as usize].tag);
        }
        self.lines[slot as usize] = EMPTY_LINE;
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
    fn find(&self, tag: Tag, lines: &[Line]) -> Option<Slot> {
        let mut slot = self.heads[self.bucket(tag)];
        while slot != NO_SLOT {
            if lines[slot as usize].tag == tag {
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

    /// A slot that held `old` (or nothing) holds `tag` from now on and is the most recently used.
    fn refill(&mut self, slot: Slot, old: Tag, tag: Tag) {
        if old == tag {
            self.touch(slot);
            return;
        }
        if old != Tag::EMPTY {
            self.remove(slot, old);
        }
        self.insert(slot, tag);
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
