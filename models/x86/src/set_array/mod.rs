//! Set-associative arrays: the banks of a TLB level, or of the paging-structure caches.
//!
//! A set of few ways is searched by comparing all its tags, without a branch between them: hosts guess
//! badly which way it will be. Banks of more ways are searched through a chained hash over their slots.
//!
//! True LRU is a time stamp a slot. In sets of few ways the oldest is found by comparing them. A
//! fully associative bank of many ways also keeps a log of its uses: the oldest slot is the one of
//! the first entry that is still its slot's latest use, so finding it costs one step for each use
//! since, and a use costs one store.

mod ways;

use ways::{oldest_of, point_away, way_of};

use crate::tlb::{IndexFunction, Replacement, Shape};

/// Number of a slot, over all banks.
pub(crate) type Slot = u16;

const NO_SLOT: Slot = Slot::MAX;
/// Tag of an empty slot. Tags in use are never zero.
const EMPTY: u64 = 0;
// 2^64 / golden ratio: Fibonacci hashing spreads consecutive page numbers.
const HASH_MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;
// Chains for each slot: four keep nine of ten first probes right.
const CHAINS_PER_SLOT: usize = 4;
// Up to here all tags of a set are compared; past it following a chain is less work.
const MOST_COMPARED_TAGS: usize = 6;
// Up to here the stamps of a set are compared; past it, if there is but one set, a log is kept.
const MOST_COMPARED_STAMPS: usize = 16;
// Uses a log holds before it is written anew: many against the slots it must hold, few against the
// host's first-level cache.
const LOG_USES: usize = 2048;
const LOG_USES_PER_SLOT: usize = 8;
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

/// Why the slot that gives way is known, in one bank.
#[derive(Clone)]
enum Recency {
    // By time stamps alone.
    Stamps,
    // By time stamps and the log of their making.
    Log(Log),
    // One word a set: bit n of it is node n of a heap-ordered tree (1 is the root) and says on which
    // side the next victim lies.
    Tree(Vec<u64>),
    Random { register: u16 },
}

/// Uses of a bank's slots. Use `t` of the bank is `uses[t % uses.len()]`; no slot was used last before
/// `tail`, and the next use is number `next`.
#[derive(Clone)]
struct Log {
    uses: Vec<Slot>,
    tail: u32,
    next: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Search {
    // Compare the tags of the set.
    Set,
    // Follow the chain of the tag's hash.
    Chain,
}

#[derive(Clone)]
struct Bank {
    search: Search,
    // Number of its first slot.
    base: usize,
    entries: usize,
    ways: usize,
    set_of: SetOf,
    filled: usize,
    recency: Recency,
}

/// How a number chooses its set.
#[derive(Clone, Copy)]
enum SetOf {
    // `(number ^ number >> fold) & mask`; numbers have fewer bits than the fold where none is wanted.
    Bits { mask: u64, fold: u32 },
    Remainder { sets: u64 },
}

const NO_FOLD: u32 = u64::BITS - 1;

/// What a use must write down.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Uses {
    // A stamp: all banks keep nothing else.
    Stamps,
    // An entry of the log: there is one bank, which keeps one.
    Log,
    // What the bank says.
    ByBank,
}

/// Slots with tags and what they stand for.
#[derive(Clone)]
pub(crate) struct SetArray<P> {
    uses: Uses,
    // One clock for all banks: stamps are compared only inside a set.
    now: u32,
    tags: Vec<u64>,
    stamps: Vec<u32>,
    payload: Vec<P>,
    // Of banks searched by chain: the first slot of each chain, and the next one after each slot.
    heads: Vec<Slot>,
    chain: Vec<Slot>,
    hash_shift: u32,
    banks: Vec<Bank>,
    // A permutation of all slots, the first `filled` of them in use, and its inverse: what empties
    // the array pays for the slots in use, not for its size.
    order: Vec<Slot>,
    place: Vec<Slot>,
    filled: usize,
}

impl Bank {
    fn new(shape: Shape, base: usize) -> Self {
        let (entries, ways) = (shape.entries() as usize, shape.ways() as usize);
        let sets = u64::from(shape.sets());
        let logged = sets == 1 && ways > MOST_COMPARED_STAMPS;
        Bank {
            search: if ways <= MOST_COMPARED_TAGS {
                Search::Set
            } else {
                Search::Chain
            },
            base,
            entries,
            ways,
            set_of: match shape.index() {
                IndexFunction::Modulo if !sets.is_power_of_two() => SetOf::Remainder { sets },
                IndexFunction::Modulo => SetOf::Bits {
                    mask: sets - 1,
                    fold: NO_FOLD,
                },
                IndexFunction::XorFold => SetOf::Bits {
                    mask: sets - 1,
                    fold: sets.trailing_zeros(),
                },
            },
            filled: 0,
            recency: match shape.replacement() {
                Replacement::Lru if logged => Recency::Log(Log::new(entries)),
                Replacement::Lru => Recency::Stamps,
                Replacement::TreePlru => Recency::Tree(vec![0; sets as usize]),
                Replacement::Random => Recency::Random { register: LFSR_START },
            },
        }
    }

    // The first slot of a set.
    #[inline(always)]
    fn first_way(&self, number: u64) -> usize {
        let set = match self.set_of {
            SetOf::Bits { mask, fold } => (number ^ number >> fold) & mask,
            SetOf::Remainder { sets } => number % sets,
        };
        self.base + set as usize * self.ways
    }
}

impl Log {
    fn new(entries: usize) -> Self {
        Log {
            uses: vec![NO_SLOT; LOG_USES.max((entries * LOG_USES_PER_SLOT).next_power_of_two())],
            tail: 0,
            next: 0,
        }
    }

    #[inline]
    fn at(&self, use_number: u32) -> usize {
        use_number as usize & (self.uses.len() - 1)
    }

    #[inline]
    fn note(&mut self, slot: Slot) {
        let place = self.at(self.next);
        self.uses[place] = slot;
        self.next += 1;
    }

    #[inline]
    fn is_full(&self) -> bool {
        self.next == u32::MAX || (self.next - self.tail) as usize == self.uses.len()
    }
}

impl<P: Copy + Default> SetArray<P> {
    pub(crate) fn new(shapes: impl IntoIterator<Item = Shape>) -> Self {
        let mut banks = Vec::new();
        let mut entries = 0;
        for shape in shapes {
            banks.push(Bank::new(shape, entries));
            entries += shape.entries() as usize;
        }
        assert!(
            entries < NO_SLOT as usize,
            "the geometry's check limits the slots"
        );
        let chains = (entries * CHAINS_PER_SLOT).next_power_of_two().max(2);
        let uses = match &banks[..] {
            [bank] if matches!(bank.recency, Recency::Log(_)) => Uses::Log,
            all if all.iter().all(|bank| matches!(bank.recency, Recency::Stamps)) => Uses::Stamps,
            _ => Uses::ByBank,
        };
        let all = 0..entries as Slot;
        SetArray {
            uses,
            now: 0,
            tags: vec![EMPTY; entries],
            stamps: vec![0; entries],
            payload: vec![P::default(); entries],
            heads: vec![NO_SLOT; chains],
            chain: vec![NO_SLOT; entries],
            hash_shift: u64::BITS - chains.trailing_zeros(),
            banks,
            order: all.clone().collect(),
            place: all.collect(),
            filled: 0,
        }
    }

    #[inline]
    fn bucket(&self, tag: u64) -> usize {
        (tag.wrapping_mul(HASH_MULTIPLIER) >> self.hash_shift) as usize
    }

    /// The slot of a bank that holds a tag. `number` chooses the set.
    #[inline(always)]
    pub(crate) fn find(&self, bank: usize, number: u64, tag: u64) -> Option<Slot> {
        let bank = &self.banks[bank];
        match bank.search {
            Search::Set => {
                let base = bank.first_way(number);
                let way = way_of(&self.tags[base..], bank.ways, tag)?;
                Some((base + way) as Slot)
            }
            Search::Chain => self.follow(tag),
        }
    }

    #[inline(always)]
    fn follow(&self, tag: u64) -> Option<Slot> {
        let mut slot = self.heads[self.bucket(tag)];
        while let Some(&found) = self.tags.get(slot as usize) {
            if found == tag {
                return Some(slot);
            }
            slot = self.chain[slot as usize];
        }
        None
    }

    /// Makes a slot in use the most recently used of its set.
    #[inline(always)]
    pub(crate) fn touch(&mut self, slot: Slot) {
        match self.uses {
            Uses::Stamps => self.stamp(slot),
            Uses::Log | Uses::ByBank => self.touch_unstamped(slot),
        }
    }

    // Kept out of line: it would cost those that only stamp some registers.
    #[inline(never)]
    fn touch_unstamped(&mut self, slot: Slot) {
        if self.uses == Uses::Log
            && let [bank] = &mut self.banks[..]
            && let Recency::Log(log) = &mut bank.recency
            && !log.is_full()
        {
            self.stamps[slot as usize] = log.next;
            log.note(slot);
        } else {
            self.touch_bank(slot);
        }
    }

    #[inline(always)]
    fn stamp(&mut self, slot: Slot) {
        if self.now == u32::MAX {
            self.renumber();
        }
        self.now += 1;
        self.stamps[slot as usize] = self.now;
    }

    #[inline]
    fn touch_bank(&mut self, slot: Slot) {
        let at = slot as usize;
        let number = self.bank_of(slot);
        let bank = &mut self.banks[number];
        match &mut bank.recency {
            Recency::Stamps => self.stamp(slot),
            Recency::Log(log) => {
                if log.is_full() {
                    self.rewrite_log(number);
                    return self.touch_rewritten(number, slot);
                }
                log.note(slot);
                self.stamps[at] = log.next - 1;
            }
            Recency::Tree(trees) => {
                let (set, way) = ((at - bank.base) / bank.ways, (at - bank.base) % bank.ways);
                point_away(&mut trees[set], bank.ways, way);
            }
            Recency::Random { .. } => {}
        }
    }

    #[cold]
    fn touch_rewritten(&mut self, bank: usize, slot: Slot) {
        if let Recency::Log(log) = &mut self.banks[bank].recency {
            log.note(slot);
            self.stamps[slot as usize] = log.next - 1;
        }
    }

    #[inline]
    fn bank_of(&self, slot: Slot) -> usize {
        let mut bank = self.banks.len() - 1;
        while self.banks[bank].base > slot as usize {
            bank -= 1;
        }
        bank
    }

    // Gives the stamps 1, 2, 3 ... to the slots in use, in their order of use.
    #[cold]
    fn renumber(&mut self) {
        let mut by_use = self.order[..self.filled].to_vec();
        by_use.retain(|&slot| matches!(self.banks[self.bank_of(slot)].recency, Recency::Stamps));
        by_use.sort_unstable_by_key(|&slot| self.stamps[slot as usize]);
        for (at, &slot) in by_use.iter().enumerate() {
            self.stamps[slot as usize] = at as u32 + 1;
        }
        self.now = by_use.len() as u32;
    }

    // Leaves only the latest use of each slot in use.
    #[cold]
    fn rewrite_log(&mut self, bank: usize) {
        let Bank { base, entries, .. } = self.banks[bank];
        let mine = |slot: &Slot| (base..base + entries).contains(&(*slot as usize));
        let mut by_use: Vec<Slot> = self.order[..self.filled].iter().copied().filter(mine).collect();
        by_use.sort_unstable_by_key(|&slot| self.stamps[slot as usize]);
        for (at, &slot) in by_use.iter().enumerate() {
            self.stamps[slot as usize] = at as u32;
        }
        if let Recency::Log(log) = &mut self.banks[bank].recency {
            log.uses[..by_use.len()].copy_from_slice(&by_use);
            (log.tail, log.next) = (0, by_use.len() as u32);
        }
    }

    // The slot of the set that is empty, lowest first, else the one that gives way.
    #[inline(always)]
    fn victim(&mut self, bank_number: usize, number: u64) -> Slot {
        let bank = &self.banks[bank_number];
        let base = bank.first_way(number);
        if bank.filled < bank.entries
            && let Some(way) = way_of(&self.tags[base..], bank.ways, EMPTY)
        {
            return (base + way) as Slot;
        }
        self.oldest(bank_number, base)
    }

    // The slot that gives way of the full set that starts there.
    #[inline(always)]
    fn oldest(&mut self, bank: usize, base: usize) -> Slot {
        let bank = &mut self.banks[bank];
        match &mut bank.recency {
            Recency::Stamps => (base + oldest_of(&self.stamps[base..], bank.ways)) as Slot,
            Recency::Log(log) => loop {
                let slot = log.uses[log.at(log.tail)];
                if self.stamps[slot as usize] == log.tail {
                    break slot;
                }
                log.tail += 1;
            },
            Recency::Tree(trees) => {
                let tree = trees[(base - bank.base) / bank.ways];
                let mut node = 1;
                while node < bank.ways {
                    node = node * 2 + (tree >> node & 1) as usize;
                }
                (base + node - bank.ways) as Slot
            }
            Recency::Random { register } => {
                let out = *register & 1;
                *register = *register >> 1 ^ (out.wrapping_neg() & LFSR_TAPS);
                (base + *register as usize % bank.ways) as Slot
            }
        }
    }

    /// Puts a tag into the slot that holds it, else into an empty one of its set of this bank, else
    /// into the one that gives way, and makes it the most recently used. `number` chooses the set.
    #[inline]
    pub(crate) fn fill(&mut self, bank: usize, number: u64, tag: u64, payload: P) -> Displaced<P> {
        if let Some(slot) = self.find(bank, number, tag) {
            self.touch(slot);
            let old = std::mem::replace(&mut self.payload[slot as usize], payload);
            return Displaced::SameTag(old);
        }
        self.fill_absent(bank, number, tag, payload)
    }

    /// [`SetArray::fill`] for a tag that is known to be absent.
    #[inline(always)]
    pub(crate) fn fill_absent(&mut self, bank: usize, number: u64, tag: u64, payload: P) -> Displaced<P> {
        debug_assert!(self.find(bank, number, tag).is_none());
        let slot = self.victim(bank, number);
        let at = slot as usize;
        let chained = self.banks[bank].search == Search::Chain;
        let old_tag = std::mem::replace(&mut self.tags[at], tag);
        let old = std::mem::replace(&mut self.payload[at], payload);
        let displaced = if old_tag == EMPTY {
            self.swap_places(self.place[at], self.filled as Slot);
            self.filled += 1;
            self.banks[bank].filled += 1;
            Displaced::Nothing
        } else {
            if chained {
                self.unchain(slot, old_tag);
            }
            Displaced::Other(old_tag, old)
        };
        if chained {
            self.chain_up(slot, tag);
        }
        self.touch(slot);
        displaced
    }

    /// [`SetArray::fill_absent`] into a bank that is full; `None` if it is not. Returns what gave way.
    #[inline(always)]
    pub(crate) fn swap_in(&mut self, bank: usize, number: u64, tag: u64, payload: P) -> Option<P> {
        let Bank {
            filled,
            entries,
            search,
            ..
        } = self.banks[bank];
        if filled < entries {
            return None;
        }
        let base = self.banks[bank].first_way(number);
        let slot = self.oldest(bank, base);
        let at = slot as usize;
        let old_tag = std::mem::replace(&mut self.tags[at], tag);
        if search == Search::Chain {
            self.unchain(slot, old_tag);
            self.chain_up(slot, tag);
        }
        self.touch(slot);
        Some(std::mem::replace(&mut self.payload[at], payload))
    }

    #[inline]
    fn chain_up(&mut self, slot: Slot, tag: u64) {
        let bucket = self.bucket(tag);
        self.chain[slot as usize] = self.heads[bucket];
        self.heads[bucket] = slot;
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
        let bank = self.bank_of(slot);
        if self.banks[bank].search == Search::Chain {
            self.unchain(slot, self.tags[at]);
        }
        self.tags[at] = EMPTY;
        self.banks[bank].filled -= 1;
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
                gone(tag, self.clear(slot));
            }
        }
        (before - self.filled) as u64
    }

    /// What a slot stands for, if it holds the tag.
    #[inline(always)]
    pub(crate) fn holding(&self, slot: Slot, tag: u64) -> Option<&P> {
        match self.tags.get(slot as usize) {
            Some(&held) if held == tag => Some(&self.payload[slot as usize]),
            _ => None,
        }
    }

    /// The tag a slot holds.
    #[inline]
    pub(crate) fn tag(&self, slot: Slot) -> u64 {
        self.tags[slot as usize]
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
