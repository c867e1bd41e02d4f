//! One cache: tags of its lines, and the order of their use.
//!
//! A set is one array of 32-bit tags, compared all at once, and one word that lists its ways from the
//! one used last to the one that gives way next. Empty ways are at the end of the list, so a victim is
//! read off without a search. A last-level cache of 64 MiB costs its host 5 MiB.

use super::geometry::CacheArray;

const EMPTY: u32 = 0;

/// A cache line of physical memory: address / 64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Line(u64);

impl Line {
    /// The line with this number.
    #[inline]
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Line(number)
    }

    /// The number.
    #[inline]
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

/// What a reference found.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Reference {
    Hit,
    /// The line was brought in; the line that gave way, if any did.
    Filled(Option<Line>),
}

/// One cache. Sets are as wide as the next width there is; ways beyond those of the cache are never
/// used.
#[derive(Clone)]
pub(super) enum Cache {
    Narrow(Sets<8, u64>),
    Wide(Sets<16, u64>),
    Widest(Sets<32, [u8; 32]>),
}

/// Ways a cache can have at most.
pub(super) const MOST_WAYS: u32 = 32;

macro_rules! each_width {
    ($cache:expr, $sets:ident => $body:expr) => {
        match $cache {
            Cache::Narrow($sets) => $body,
            Cache::Wide($sets) => $body,
            Cache::Widest($sets) => $body,
        }
    };
}

impl Cache {
    /// An empty cache of a geometry that was checked.
    pub(super) fn new(array: &CacheArray) -> Self {
        match array.ways {
            0..=8 => Cache::Narrow(Sets::new(array)),
            9..=16 => Cache::Wide(Sets::new(array)),
            _ => Cache::Widest(Sets::new(array)),
        }
    }

    /// A reference to a line, which is brought in if it is not here.
    #[inline(always)]
    pub(super) fn reference(&mut self, line: Line) -> Reference {
        each_width!(self, sets => sets.reference(line))
    }

    /// Takes a line out. Returns whether it was here.
    #[inline]
    pub(super) fn remove(&mut self, line: Line) -> bool {
        each_width!(self, sets => sets.remove(line))
    }

    /// Reads what look-ups of the lines will read, so that it is near when they come.
    #[inline(always)]
    pub(super) fn look_ahead(&self, lines: impl Iterator<Item = Line>) -> u32 {
        each_width!(self, sets => lines.fold(0, |read, line| read ^ sets.look_ahead(line)))
    }
}

/// The tags of a set. Aligned to the host's cache lines, so that sixteen of them are one line.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Tags<const WAYS: usize>([u32; WAYS]);

/// Sets of at most `WAYS` ways, their orders of use in words of type `O`.
#[derive(Clone)]
pub(super) struct Sets<const WAYS: usize, O> {
    tags: Vec<Tags<WAYS>>,
    orders: Vec<O>,
    ways: u32,
    sets: u64,
    // Of `sets`, if it is a power of two.
    shift: Option<u32>,
}

/// The ways of a set from the one used last to the one used first.
pub(super) trait Order: Copy {
    /// All ways in use, way 0 at the end.
    fn first(ways: u32) -> Self;
    /// The way in this field.
    fn at(self, field: u32) -> u32;
    /// The way moves to the front.
    fn to_front(self, way: u32) -> Self;
    /// The last of so many ways moves to the front.
    fn last_to_front(self, ways: u32) -> Self;
    /// The way moves to the end of so many.
    fn to_end(self, way: u32, ways: u32) -> Self;
}

// Up to 16 ways: four bits each.
const FIELD_BITS: u32 = 4;
const FIELD: u64 = (1 << FIELD_BITS) - 1;
// A one in every field.
const ONES: u64 = u64::MAX / FIELD;

// First bit of the lowest field that holds the way. A field is zero, and no field below it is, exactly
// where subtracting one from each borrows into its highest bit first.
#[inline(always)]
const fn offset_of(order: u64, way: u32) -> u32 {
    let zero_there = order ^ (ONES * way as u64);
    let borrows = zero_there.wrapping_sub(ONES) & !zero_there & ONES << (FIELD_BITS - 1);
    borrows.trailing_zeros() - (FIELD_BITS - 1)
}

impl Order for u64 {
    fn first(ways: u32) -> Self {
        (0..ways).fold(0, |order, way| order << FIELD_BITS | u64::from(way))
    }

    #[inline(always)]
    fn at(self, field: u32) -> u32 {
        (self >> (field * FIELD_BITS) & FIELD) as u32
    }

    #[inline(always)]
    fn to_front(self, way: u32) -> Self {
        let at = offset_of(self, way);
        let newer = self & !(u64::MAX << at);
        let older = self & u64::MAX << at << FIELD_BITS;
        older | newer << FIELD_BITS | u64::from(way)
    }

    #[inline(always)]
    fn last_to_front(self, ways: u32) -> Self {
        let last = (ways - 1) * FIELD_BITS;
        let newer = self & !(FIELD << last);
        newer << FIELD_BITS | self >> last & FIELD
    }

    fn to_end(self, way: u32, ways: u32) -> Self {
        let at = offset_of(self, way);
        let newer = self & !(u64::MAX << at);
        let older = self >> at >> FIELD_BITS;
        let end = (ways - 1) * FIELD_BITS;
        (newer | older << at) & !(u64::MAX << end) | u64::from(way) << end
    }
}

// The few caches of more ways: a byte each.
impl Order for [u8; 32] {
    fn first(ways: u32) -> Self {
        std::array::from_fn(|field| (ways as u8).wrapping_sub(field as u8 + 1))
    }

    fn at(self, field: u32) -> u32 {
        u32::from(self[field as usize])
    }

    fn to_front(mut self, way: u32) -> Self {
        let at = self.iter().position(|&w| u32::from(w) == way).unwrap_or(0);
        self[..=at].rotate_right(1);
        self
    }

    fn last_to_front(mut self, ways: u32) -> Self {
        self[..ways as usize].rotate_right(1);
        self
    }

    fn to_end(mut self, way: u32, ways: u32) -> Self {
        let at = self.iter().position(|&w| u32::from(w) == way).unwrap_or(0);
        self[at..ways as usize].rotate_left(1);
        self
    }
}

impl<const WAYS: usize, O: Order> Sets<WAYS, O> {
    fn new(array: &CacheArray) -> Self {
        let sets = array.lines() / u64::from(array.ways);
        Sets {
            tags: vec![Tags([EMPTY; WAYS]); sets as usize],
            orders: vec![O::first(array.ways); sets as usize],
            ways: array.ways,
            sets,
            shift: sets.is_power_of_two().then(|| sets.trailing_zeros()),
        }
    }

    // Set and tag. Tags are one more than what the set does not say, so that none is `EMPTY`.
    #[inline(always)]
    fn split(&self, line: Line) -> (usize, u32) {
        match self.shift {
            Some(shift) => ((line.0 & (self.sets - 1)) as usize, (line.0 >> shift) as u32 + 1),
            None => ((line.0 % self.sets) as usize, (line.0 / self.sets) as u32 + 1),
        }
    }

    fn line(&self, set: usize, tag: u32) -> Line {
        Line(u64::from(tag - 1) * self.sets + set as u64)
    }

    // The way that holds the tag, plus one; zero if none does. No two ways hold the same tag.
    #[inline(always)]
    fn way_of(&self, set: usize, tag: u32) -> u32 {
        let mut found = 0;
        for (way, &held) in self.tags[set].0.iter().enumerate() {
            found |= if held == tag { way as u32 + 1 } else { 0 };
        }
        found
    }

    #[inline(always)]
    fn reference(&mut self, line: Line) -> Reference {
        let (set, tag) = self.split(line);
        let order = self.orders[set];
        if let Some(way) = self.way_of(set, tag).checked_sub(1) {
            self.orders[set] = order.to_front(way);
            return Reference::Hit;
        }
        let order = order.last_to_front(self.ways);
        let way = order.at(0);
        self.orders[set] = order;
        let old = std::mem::replace(&mut self.tags[set].0[way as usize], tag);
        Reference::Filled((old != EMPTY).then(|| self.line(set, old)))
    }

    fn remove(&mut self, line: Line) -> bool {
        let (set, tag) = self.split(line);
        let Some(way) = self.way_of(set, tag).checked_sub(1) else {
            return false;
        };
        self.tags[set].0[way as usize] = EMPTY;
        self.orders[set] = self.orders[set].to_end(way, self.ways);
        true
    }

    #[inline(always)]
    fn look_ahead(&self, line: Line) -> u32 {
        let (set, _) = self.split(line);
        self.tags[set].0[0] ^ self.orders[set].at(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ways<O: Order>(order: O, ways: u32) -> Vec<u32> {
        (0..ways).map(|field| order.at(field)).collect()
    }

    fn moves<O: Order>(most: u32) {
        for n in 1..=most {
            let mut order = O::first(n);
            let mut naive: Vec<u32> = (0..n).rev().collect();
            assert_eq!(ways(order, n), naive, "way 0 gives way first");
            for step in 0..200 {
                if step % 5 == 0 {
                    order = order.last_to_front(n);
                    naive.rotate_right(1);
                }
                let way = step * 7 % n;
                naive.retain(|&w| w != way);
                if step % 3 == 0 {
                    order = order.to_end(way, n);
                    naive.push(way);
                } else {
                    order = order.to_front(way);
                    naive.insert(0, way);
                }
                assert_eq!(ways(order, n), naive);
            }
        }
    }

    #[test]
    fn an_order_moves_like_a_list() {
        moves::<u64>(16);
        moves::<[u8; 32]>(MOST_WAYS);
    }
}
