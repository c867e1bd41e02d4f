//! One cache: tags and ages of its lines.
//!
//! A set keeps an age a way: 0 for an empty way, 1 for the line used last, and so on. True LRU is then
//! a pass over one byte a way, which suits sets too large in number for stamps: a last-level cache of
//! 64 MiB costs its host 5 MiB.

use super::geometry::CacheArray;

// Ways are looked at in groups that fill a register of the host.
const GROUP: usize = 8;
const EMPTY: u8 = 0;
const NEWEST: u8 = 1;

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

#[derive(Clone)]
pub(super) struct Cache {
    tags: Vec<u32>,
    ages: Vec<u8>,
    sets: u64,
    ways: usize,
    // Ways rounded up to whole groups; those beyond `ways` stay empty.
    stride: usize,
}

impl Cache {
    /// An empty cache of a geometry that was checked.
    pub(super) fn new(array: &CacheArray) -> Self {
        let ways = array.ways as usize;
        let sets = array.lines() / u64::from(array.ways);
        let stride = ways.next_multiple_of(GROUP);
        Cache {
            tags: vec![0; sets as usize * stride],
            ages: vec![EMPTY; sets as usize * stride],
            sets,
            ways,
            stride,
        }
    }

    #[inline]
    fn split(&self, line: Line) -> (usize, u32) {
        if self.sets.is_power_of_two() {
            let set = line.0 & (self.sets - 1);
            (
                set as usize * self.stride,
                (line.0 >> self.sets.trailing_zeros()) as u32,
            )
        } else {
            (
                (line.0 % self.sets) as usize * self.stride,
                (line.0 / self.sets) as u32,
            )
        }
    }

    #[inline]
    fn way_of(&self, base: usize, tag: u32) -> Option<usize> {
        let tags = self.tags[base..base + self.stride].chunks_exact(GROUP);
        let ages = self.ages[base..base + self.stride].chunks_exact(GROUP);
        for (at, (tags, ages)) in tags.zip(ages).enumerate() {
            let mut found = 0_u32;
            for way in 0..GROUP {
                found |= u32::from(tags[way] == tag && ages[way] != EMPTY) << way;
            }
            if found != 0 {
                return Some(at * GROUP + found.trailing_zeros() as usize);
            }
        }
        None
    }

    // Makes a way the newest; those newer than `age` grow older.
    #[inline]
    fn renew(&mut self, base: usize, way: usize, age: u8) {
        let ages = &mut self.ages[base..base + self.stride];
        for other in ages.iter_mut() {
            *other += u8::from(*other != EMPTY && *other < age);
        }
        ages[way] = NEWEST;
    }

    /// Whether the line is here; if so it becomes the newest of its set.
    #[inline]
    pub(super) fn hit(&mut self, line: Line) -> bool {
        let (base, tag) = self.split(line);
        let Some(way) = self.way_of(base, tag) else {
            return false;
        };
        let age = self.ages[base + way];
        if age != NEWEST {
            self.renew(base, way, age);
        }
        true
    }

    /// Brings in a line that is not here. Returns the line that gave way.
    #[inline]
    pub(super) fn fill(&mut self, line: Line) -> Option<Line> {
        let (base, tag) = self.split(line);
        let oldest = self.ways as u8;
        let ages = &self.ages[base..base + self.ways];
        let empty = ages.iter().position(|&age| age == EMPTY);
        let way = empty.or_else(|| ages.iter().position(|&age| age == oldest))?;
        let set = (base / self.stride) as u64;
        let evicted = empty
            .is_none()
            .then(|| Line(u64::from(self.tags[base + way]) * self.sets + set));
        self.renew(base, way, u8::MAX);
        self.tags[base + way] = tag;
        evicted
    }

    /// Takes a line out, if it is here.
    pub(super) fn remove(&mut self, line: Line) -> bool {
        let (base, tag) = self.split(line);
        let Some(way) = self.way_of(base, tag) else {
            return false;
        };
        let age = self.ages[base + way];
        for other in &mut self.ages[base..base + self.stride] {
            *other -= u8::from(*other > age);
        }
        self.ages[base + way] = EMPTY;
        true
    }

    /// Reads what a look-up of the line will read, so that it is near when the look-up comes.
    #[inline]
    pub(super) fn look_ahead(&self, line: Line) -> u32 {
        let (base, _) = self.split(line);
        self.tags[base] ^ u32::from(self.ages[base])
    }
}
