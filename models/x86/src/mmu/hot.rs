//! Many references at once: the runs of first-level hits that make up most of a program.

use super::Mmu;
use crate::reference::Reference;
use crate::tlb::{Generation, TlbEntry};
use crate::walker::Access;

impl Mmu {
    /// Makes the longest run of references at the front of `references` that hit the first level and
    /// need nothing else, and returns its length. What comes after it is for [`Mmu::translate`].
    #[inline]
    pub fn run_hits(&mut self, references: &[Reference]) -> usize {
        let checks = Access::ALL.map(|access| self.rules.check(access));
        self.tlb.run_hits(self.context, &checks, references, |_, _| true)
    }

    /// [`Mmu::run_hits`] that also ends before an entry whose frame was freed since: `generations` are
    /// those of all frames, by number.
    #[inline]
    pub fn run_sound_hits(&mut self, references: &[Reference], generations: &[Generation]) -> usize {
        let checks = Access::ALL.map(|access| self.rules.check(access));
        let sound = |entry: &TlbEntry, _| generations.get(entry.pfn.index()) == Some(&entry.generation);
        self.tlb.run_hits(self.context, &checks, references, sound)
    }
}
