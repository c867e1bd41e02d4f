//! The patterns: what makes the references of one thread.
//!
//! Each fills a batch in one loop over local variables, which the compiler keeps in registers; nothing
//! in a loop branches on chance.

use std::ops::Range;
use std::sync::Arc;

use x86::{Access, PAGE_SHIFT, PAGE_SIZE, Reference, Va};

use super::WriteShare;
use super::random::{Draws, Rest};
use super::zipf::Zipf;

/// The words of a region.
#[derive(Clone, Copy, Debug)]
pub(super) struct Words {
    start: u64,
    grain_shift: u32,
}

impl Words {
    /// Words of `grain` bytes, a power of two.
    pub(super) fn new(start: u64, grain: u64) -> Self {
        Words {
            start,
            grain_shift: grain.trailing_zeros(),
        }
    }

    /// Words in so many bytes.
    pub(super) fn within(self, size: u64) -> u64 {
        size >> self.grain_shift
    }

    /// An access to the word with this number.
    #[inline]
    pub(super) fn word(self, word: u64, access: Access) -> Reference {
        self.byte(word << self.grain_shift, access)
    }

    /// An access to the word at this distance from the start.
    #[inline]
    pub(super) fn byte(self, offset: u64, access: Access) -> Reference {
        Reference::truncating(access, Va::new(self.start + offset))
    }
}

/// Loads and stores as they come.
pub(super) trait Mix: Copy {
    /// What the next access does. Chance is asked for only if it decides.
    fn access(self, chance: impl FnOnce() -> Rest) -> Access;
}

/// Nothing but loads: worth its own loops, they take two thirds of the time.
#[derive(Clone, Copy)]
struct Loads;

impl Mix for Loads {
    #[inline]
    fn access(self, _: impl FnOnce() -> Rest) -> Access {
        Access::Read
    }
}

/// Stores with some chance.
#[derive(Clone, Copy)]
struct Mixed(WriteShare);

impl Mix for Mixed {
    #[inline]
    fn access(self, chance: impl FnOnce() -> Rest) -> Access {
        // An index, since a branch would be mispredicted as often as not.
        [Access::Read, Access::Write][usize::from(chance().0 >> 1 < self.0.threshold())]
    }
}

/// The references of one thread.
#[derive(Debug)]
pub(super) enum Maker {
    Strided(Strided),
    Uniform(Uniform),
    Zipf(Zipf),
    Chase(Chase),
    Phases(Phases),
}

impl Maker {
    pub(super) fn fill(&mut self, writes: WriteShare, count: u64, out: &mut Vec<Reference>) {
        if writes == WriteShare::NONE {
            self.fill_with(Loads, count, out);
        } else {
            self.fill_with(Mixed(writes), count, out);
        }
    }

    fn fill_with(&mut self, mix: impl Mix, count: u64, out: &mut Vec<Reference>) {
        match self {
            Maker::Strided(maker) => maker.fill(mix, count, out),
            Maker::Uniform(maker) => maker.fill(mix, count, out),
            Maker::Zipf(maker) => maker.fill(mix, count, out),
            Maker::Chase(maker) => maker.fill(mix, count, out),
            Maker::Phases(maker) => maker.fill(mix, count, out),
        }
    }
}

/// Words at equal distances, round and round.
#[derive(Debug)]
pub(super) struct Strided {
    words: Words,
    draws: Draws,
    step: u64,
    size: u64,
    offset: u64,
}

impl Strided {
    pub(super) fn new(words: Words, draws: Draws, step: u64, size: u64) -> Self {
        Strided {
            words,
            draws,
            step,
            size,
            offset: 0,
        }
    }

    fn fill(&mut self, mix: impl Mix, count: u64, out: &mut Vec<Reference>) {
        let Strided {
            words, step, size, ..
        } = *self;
        let (mut offset, mut draws) = (self.offset, self.draws.clone());
        out.extend((0..count).map(|_| {
            let reference = words.byte(offset, mix.access(|| Rest(draws.next())));
            let next = offset + step;
            offset = if next < size { next } else { next - size };
            reference
        }));
        (self.offset, self.draws) = (offset, draws);
    }
}

/// Any word.
#[derive(Debug)]
pub(super) struct Uniform {
    words: Words,
    draws: Draws,
    count: u64,
}

impl Uniform {
    pub(super) fn new(words: Words, draws: Draws, size: u64) -> Self {
        Uniform {
            words,
            draws,
            count: words.within(size),
        }
    }

    fn fill(&mut self, mix: impl Mix, count: u64, out: &mut Vec<Reference>) {
        any(self.words, 0..self.count, &mut self.draws, mix, count, out);
    }
}

/// Accesses to any of the words of a range.
#[inline]
fn any(
    words: Words,
    range: Range<u64>,
    draws: &mut Draws,
    mix: impl Mix,
    count: u64,
    out: &mut Vec<Reference>,
) {
    let (first, bound) = (range.start, range.end - range.start);
    let mut local = draws.clone();
    out.extend((0..count).map(|_| {
        let (word, rest) = local.below(bound);
        words.word(first + word, mix.access(|| rest))
    }));
    *draws = local;
}

/// Any word of a window that moves.
#[derive(Debug)]
pub(super) struct Phases {
    words: Words,
    draws: Draws,
    window: u64,
    every: u64,
    /// Places where the window can begin, page by page.
    places: u64,
    first: u64,
    left: u64,
}

impl Phases {
    pub(super) fn new(words: Words, draws: Draws, window: u64, every: u64, size: u64) -> Self {
        Phases {
            words,
            draws,
            window: words.within(window),
            every,
            places: (size - window) / PAGE_SIZE + 1,
            first: 0,
            left: 0,
        }
    }

    fn fill(&mut self, mix: impl Mix, count: u64, out: &mut Vec<Reference>) {
        let mut missing = count;
        while missing > 0 {
            if self.left == 0 {
                let (page, _) = self.draws.below(self.places);
                self.first = self.words.within(page << PAGE_SHIFT);
                self.left = self.every;
            }
            let now = missing.min(self.left);
            let window = self.first..self.first + self.window;
            any(self.words, window, &mut self.draws, mix, now, out);
            self.left -= now;
            missing -= now;
        }
    }
}

/// One cycle through all pages: for each the next, 4 bytes a page.
#[derive(Debug)]
pub(super) struct Cycle(Vec<u32>);

impl Cycle {
    /// Any of the cycles, each with the same chance (S. Sattolo, "An algorithm to generate a random
    /// cyclic permutation", 1986).
    pub(super) fn random(pages: u64, mut draws: Draws) -> Self {
        let mut next: Vec<u32> = (0..pages as u32).collect();
        for last in (1..next.len()).rev() {
            let (other, _) = draws.below(last as u64);
            next.swap(last, other as usize);
        }
        Cycle(next)
    }
}

/// The first word of each page, as the cycle says.
#[derive(Debug)]
pub(super) struct Chase {
    words: Words,
    draws: Draws,
    cycle: Arc<Cycle>,
    page: u32,
}

impl Chase {
    pub(super) fn new(words: Words, draws: Draws, cycle: Arc<Cycle>, first: u64) -> Self {
        Chase {
            words,
            draws,
            cycle,
            page: first as u32,
        }
    }

    fn fill(&mut self, mix: impl Mix, count: u64, out: &mut Vec<Reference>) {
        let (words, next) = (self.words, &self.cycle.0);
        let (mut page, mut draws) = (self.page, self.draws.clone());
        out.extend((0..count).map(|_| {
            let access = mix.access(|| Rest(draws.next()));
            let reference = words.byte(u64::from(page) << PAGE_SHIFT, access);
            page = next[page as usize];
            reference
        }));
        (self.page, self.draws) = (page, draws);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_random_cycle_visits_every_page_before_it_returns() {
        for pages in [1, 2, 3, 1000] {
            let Cycle(next) = Cycle::random(pages, Draws::new(7, 0));
            let mut seen = vec![false; next.len()];
            let mut page = 0;
            for _ in 0..pages {
                assert!(!std::mem::replace(&mut seen[page], true));
                page = next[page] as usize;
            }
            assert_eq!(page, 0);
        }
    }
}
