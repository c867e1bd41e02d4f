//! A set-associative array: the slots of a TLB bank or of a paging-structure cache.
//!
//! Tags are found through a chained hash over all slots, so a look-up costs the same for 4 ways and
//! for 72, and no hit computes a set. Sets matter only when a slot must give way.
//!
//! True LRU is a time stamp a slot. In sets of few ways the oldest is found by comparing them. A
//! fully associative array of many ways also keeps a log of its uses: the oldest slot is the one of
//! the first entry that is still its slot's latest use, so finding it costs one step for each use
//! since, and a use costs one store. Recency of slots that are not full or emptied has no meaning.

use crate::tlb::{IndexFunction, Replacement, Shape};

/// Number of a slot.
pub(crate) type Slot = u16;

const NO_SLOT: Slot = Slot::MAX;
/// Tag of an empty slot. Tags in use are never zero.
pub(crate) const EMPTY: u64 = 0;
// 2^64 / golden ratio: Fibonacci hashing spreads consecutive page numbers.
const HASH_MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;
// Chains for each slot: four keep nine of ten first probes right.
const CHAINS_PER_SLOT: usize = 4;
// Up to here the oldest way is found by comparing all.
const MOST_COMPARED_WAYS: usize = 16;
// Uses a log holds before it is written anew: large against the slots (at most 2^15) it must hold,
// small against the host's first-level cache.
const LOG_USES: usize = 4096;
// Feedback taps of the maximal 16-bit Galois register, x^16 + x^14 + x^13 + x^11 + 1.
const LFSR_TAPS: u16 = 0xb400;
const LFSR_START: u16 = 0xace1;

/// What a fill took away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Displaced<P> {
    /// The slot was empty.
    Nothing,
    /// The slot held the same tag.
    SameTag(P),
    /// The slot held this other tag.
    Other(u64, P),
}

#[derive(Clone)]
enum Recency {
    // A use of slot s at time t: `stamps[s] = t`.
    Stamps,
    // As `Stamps`, and `uses[t % uses.len()] = s`. No slot was used last before `tail`.
    Log { uses: Vec<Slot>, tail: u32 },
    // One word a set: bit n of it is node n of a heap-ordered tree (1 is the root) and says on which
    // side the next victim lies.
    Tree(Vec<u64>),
    Random { register: u16 },
}

/// Slots with tags and what they stand for.
#[derive(Clone)]
pub(crate) struct SetArray<P> {
    heads: Vec<Slot>,
    hash_shift: u32,
    tags: Vec<u64>,
    stamps: Vec<u32>,
    now: u32,
    payload: Vec<P>,
    chain: Vec<Slot>,
    recency: Recency,
    ways: usize,
    sets: u64,
    index: IndexFunction,
    // A permutation of all slots, the first `filled` of them in use, and its inverse: what empties
    // the array pays for the slots in use, not for its size.
    order: Vec<Slot>,
    place: Vec<Slot>,
    filled: usize,
}

impl<P: Copy + Default> SetArray<P> {
    pub(crate) fn new(shape: Shape) -> Self {
        let entries = shape.entries() as usize;
        let ways = shape.ways() as usize;
        let chains = (entries * CHAINS_PER_SLOT).next_power_of_two();
        let sets = u64::from(shape.sets());
        let all = 0..entries as Slot;
        SetArray {
            heads: vec![NO_SLOT; chains],
            hash_shift: u64::BITS - chains.trailing_zeros(),
            tags: vec![EMPTY; entries],
            stamps: vec![0; entries],
            now: 0,
            payload: vec![P::default(); entries],
            chain: vec![NO_SLOT; entries],
            recency: match shape.replacement() {
                Replacement::Lru if sets == 1 && ways > MOST_COMPARED_WAYS => Recency::Log {
                    uses: vec![NO_SLOT; LOG_USES.max(2 * entries.next_power_of_two())],
                    tail: 1,
                },
                Replacement::Lru => Recency::Stamps,
                Replacement::TreePlru => Recency::Tree(vec![0; sets as usize]),
                Replacement::Random => Recency::Random { register: LFSR_START },
            },
            ways,
            sets,
            index: shape.index(),
            order: all.clone().collect(),
            place: all.collect(),
            filled: 0,
        }
    }

    #[inline]
    fn bucket(&self, tag: u64) -> usize {
        (tag.wrapping_mul(HASH_MULTIPLIER) >> self.hash_shift) as usize
    }

    /// The slot holding a tag.
    #[inline]
    pub(crate) fn find(&self, tag: u64) -> Option<Slot> {
        let mut slot = self.heads[self.bucket(tag)];
        while slot != NO_SLOT {
            if self.tags[slot as usize] == tag {
                return Some(slot);
            }
            slot = self.chain[slot as usize];
        }
        None
    }

    /// Makes a slot in use the most recently used of its set.
    #[inline]
    pub(crate) fn touch(&mut self, slot: Slot) {
        match &mut self.recency {
            Recency::Stamps => {
                if self.now == u32::MAX {
                    self.renumber();
                }
                self.now += 1;
                self.stamps[slot as usize] = self.now;
            }
            Recency::Log { uses, tail } => {
                if self.now == u32::MAX || (self.now + 1 - *tail) as usize >= uses.len() {
                    self.renumber();
                    return self.touch(slot);
                }
                self.now += 1;
                let at = self.now as usize & (uses.len() - 1);
                uses[at] = slot;
                self.stamps[slot as usize] = self.now;
            }
            Recency::Tree(_) => self.point_away(slot),
            Recency::Random { .. } => {}
        }
    }

    // Gives the slots in use the stamps 1, 2, 3 ... in their order of use.
    #[cold]
    fn renumber(&mut self) {
        let mut by_use = self.order[..self.filled].to_vec();
        by_use.sort_unstable_by_key(|&slot| self.stamps[slot as usize]);
        for (at, &slot) in by_use.iter().enumerate() {
            self.stamps[slot as usize] = at as u32 + 1;
        }
        self.now = by_use.len() as u32;
        if let Recency::Log { uses, tail } = &mut self.recency {
            *tail = 1;
            uses[1..=by_use.len()].copy_from_slice(&by_use);
        }
    }

    fn point_away(&mut self, slot: Slot) {
        let (set, way) = (slot as usize / self.ways, slot as usize % self.ways);
        let Recency::Tree(trees) = &mut self.recency else {
            return;
        };
        let tree = &mut trees[set];
        let mut node = 1_usize;
        let mut half = self.ways / 2;
        while half > 0 {
            let right = way & half != 0;
            *tree = *tree & !(1 << node) | u64::from(!right) << node;
            node = node * 2 + usize::from(right);
            half /= 2;
        }
    }

    #[inline]
    fn first_way(&self, number: u64) -> usize {
        let set = match self.index {
            IndexFunction::Modulo if self.sets.is_power_of_two() => number & (self.sets - 1),
            IndexFunction::Modulo => number % self.sets,
            IndexFunction::XorFold => (number ^ number >> self.sets.trailing_zeros()) & (self.sets - 1),
        };
        set as usize * self.ways
    }

    // The slot of the set that is empty, lowest first, else the one that gives way.
    fn victim(&mut self, number: u64) -> Slot {
        let base = self.first_way(number);
        if self.filled < self.tags.len() {
            let ways = &self.tags[base..base + self.ways];
            if let Some(way) = ways.iter().position(|&tag| tag == EMPTY) {
                return (base + way) as Slot;
            }
        }
        match &mut self.recency {
            Recency::Stamps => {
                let stamps = &self.stamps[base..base + self.ways];
                let (mut oldest, mut age) = (0, u32::MAX);
                for (way, &stamp) in stamps.iter().enumerate() {
                    if stamp < age {
                        (oldest, age) = (way, stamp);
                    }
                }
                (base + oldest) as Slot
            }
            Recency::Log { uses, tail } => loop {
                let slot = uses[*tail as usize & (uses.len() - 1)];
                if self.stamps[slot as usize] == *tail {
                    break slot;
                }
                *tail += 1;
            },
            Recency::Tree(trees) => {
                let tree = trees[base / self.ways];
                let mut node = 1;
                while node < self.ways {
                    node = node * 2 + (tree >> node & 1) as usize;
                }
                (base + node - self.ways) as Slot
            }
            Recency::Random { register } => {
                let out = *register & 1;
                *register = *register >> 1 ^ (out.wrapping_neg() & LFSR_TAPS);
                (base + *register as usize % self.ways) as Slot
            }
        }
    }

    /// Puts a tag into the slot that holds it, else into an empty one of its set, else into the one
    /// that gives way, and makes it the most recently used. `number` chooses the set.
    #[inline]
    pub(crate) fn fill(&mut self, number: u64, tag: u64, payload: P) -> Displaced<P> {
        if let Some(slot) = self.find(tag) {
            self.touch(slot);
            let old = std::mem::replace(&mut self.payload[slot as usize], payload);
            return Displaced::SameTag(old);
        }
        self.fill_absent(number, tag, payload)
    }

    /// [`SetArray::fill`] for a tag that is known to be absent.
    pub(crate) fn fill_absent(&mut self, number: u64, tag: u64, payload: P) -> Displaced<P> {
        let slot = self.victim(number);
        let at = slot as usize;
        let displaced = match self.tags[at] {
            EMPTY => {
                self.swap_places(self.place[at], self.filled as Slot);
                self.filled += 1;
                Displaced::Nothing
            }
            old => {
                self.unchain(slot, old);
                Displaced::Other(old, self.payload[at])
            }
        };
        self.tags[at] = tag;
        self.payload[at] = payload;
        let bucket = self.bucket(tag);
        self.chain[at] = self.heads[bucket];
        self.heads[bucket] = slot;
        self.touch(slot);
        displaced
    }

    #[inline]
    fn unchain(&mut self, slot: Slot, tag: u64) {
        let after = self.chain[slot as usize];
        let bucket = self.bucket(tag);
        if self.heads[bucket] == slot {
            self.heads[bucket] = after;
            return;
        }
        let mut at = self.heads[bucket];
        while self.chain[at as usize] != slot {
            at = self.chain[at as usize];
        }
        self.chain[at as usize] = after;
    }

    /// Empties a slot in use.
    pub(crate) fn clear(&mut self, slot: Slot) -> P {
        let at = slot as usize;
        self.unchain(slot, self.tags[at]);
        self.tags[at] = EMPTY;
        // A stale entry of the log must not look like this slot's latest use.
        self.stamps[at] = 0;
        self.filled -= 1;
        self.swap_places(self.place[at], self.filled as Slot);
        self.payload[at]
    }

    fn swap_places(&mut self, a: Slot, b: Slot) {
        let (a, b) = (a as usize, b as usize);
        self.order.swap(a, b);
        self.place[self.order[a] as usize] = a as Slot;
        self.place[self.order[b] as usize] = b as Slot;
    }

    /// Empties every slot in use that `doomed` picks; tells each to `gone`. Costs one step a slot in
    /// use.
    pub(crate) fn clear_where(
        &mut self,
        mut doomed: impl FnMut(u64, &P) -> bool,
        mut gone: impl FnMut(u64, P),
    ) -> u64 {
        let before = self.filled;
        // Downwards: `clear` swaps the last slot in use, already looked at, into the gap.
        for at in (0..before).rev() {
            let slot = self.order[at];
            let tag = self.tags[slot as usize];
            if doomed(tag, &self.payload[slot as usize]) {
                let payload = self.clear(slot);
                gone(tag, payload);
            }
        }
        (before - self.filled) as u64
    }

    #[inline]
    pub(crate) fn get(&self, slot: Slot) -> &P {
        &self.payload[slot as usize]
    }

    /// Slots in use, in no particular but a reproducible order.
    pub(crate) fn filled(&self) -> impl Iterator<Item = (u64, &P)> {
        self.order[..self.filled]
            .iter()
            .map(|&slot| (self.tags[slot as usize], &self.payload[slot as usize]))
    }

    /// Number of slots in use.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.filled
    }
}
