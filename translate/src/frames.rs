//! The frames behind a trace's pages, and the oracle that watches what translates to them.

use x86::{Frames, Generation, Pfn, Slots, TlbEntry};

/// How closely the frames are watched.
pub trait Oracle: Frames + Default {
    /// Whether an entry was made for its frame as the frame is now.
    fn is_sound(&self, entry: &TlbEntry) -> bool;
    /// The frame is given back. Returns the TLB slots that still translate to it.
    fn free(&mut self, pfn: Pfn) -> u32;
    /// Reads what the oracle will read about a frame.
    fn look_ahead(&self, pfn: Pfn) -> u32;
}

/// No oracle: every entry is taken for sound.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unwatched;

impl Slots for Unwatched {
    fn gained(&mut self, _: Pfn) {}
    fn dropped(&mut self, _: Pfn) {}
}

impl Frames for Unwatched {
    fn generation(&self, _: Pfn) -> Generation {
        Generation::FIRST
    }
}

impl Oracle for Unwatched {
    fn is_sound(&self, _: &TlbEntry) -> bool {
        true
    }
    fn free(&mut self, _: Pfn) -> u32 {
        0
    }
    fn look_ahead(&self, _: Pfn) -> u32 {
        0
    }
}

/// The oracle: a generation and a count of TLB slots for each frame. Freeing a frame that slots still
/// translate to, or using an entry from before its frame was freed, is a violation.
#[derive(Clone, Debug, Default)]
pub struct Watched {
    // Both grow with the highest frame seen.
    generations: Vec<Generation>,
    slots: Vec<u32>,
}

impl Watched {
    #[inline]
    fn slots(&mut self, pfn: Pfn) -> &mut u32 {
        let at = pfn.index();
        if at >= self.slots.len() {
            self.slots.resize(at + 1, 0);
            self.generations.resize(at + 1, Generation::FIRST);
        }
        &mut self.slots[at]
    }
}

impl Slots for Watched {
    #[inline]
    fn gained(&mut self, pfn: Pfn) {
        *self.slots(pfn) += 1;
    }
    #[inline]
    fn dropped(&mut self, pfn: Pfn) {
        *self.slots(pfn) -= 1;
    }
}

impl Frames for Watched {
    #[inline]
    fn generation(&self, pfn: Pfn) -> Generation {
        self.generations.get(pfn.index()).copied().unwrap_or_default()
    }
}

impl Oracle for Watched {
    #[inline]
    fn is_sound(&self, entry: &TlbEntry) -> bool {
        self.generation(entry.pfn) == entry.generation
    }
    fn free(&mut self, pfn: Pfn) -> u32 {
        let slots = *self.slots(pfn);
        let generation = &mut self.generations[pfn.index()];
        *generation = generation.next();
        slots
    }
    #[inline]
    fn look_ahead(&self, pfn: Pfn) -> u32 {
        let at = pfn.index();
        self.slots.get(at).map_or(0, |slots| *slots) ^ self.generations.get(at).map_or(0, |g| g.get())
    }
}
