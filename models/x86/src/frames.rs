//! How the layer that owns the frames hears what the TLBs hold.

use crate::addr::Pfn;
use crate::tlb::{Generation, TlbEntry};

/// Who counts the TLB slots that translate to each frame. A slot for a large page counts for the
/// first frame it translates.
pub trait Slots {
    /// One slot more translates to the frame.
    fn gained(&mut self, pfn: Pfn);
    /// One slot less translates to the frame.
    fn dropped(&mut self, pfn: Pfn);
}

/// Who owns the frames.
pub trait Frames: Slots {
    /// How often the frame was freed.
    fn generation(&self, pfn: Pfn) -> Generation;
}

impl Slots for () {
    fn gained(&mut self, _: Pfn) {}
    fn dropped(&mut self, _: Pfn) {}
}

impl Frames for () {
    fn generation(&self, _: Pfn) -> Generation {
        Generation::FIRST
    }
}

/// Who follows a run of references.
pub trait Observer: Frames {
    /// Whether an entry may be used: whether its frame was not freed since it was made.
    fn is_sound(&self, entry: &TlbEntry) -> bool;
    /// A reference missed the first level and hit the second.
    fn second_level_hit(&mut self, entry: &TlbEntry);
}
