//! Address-space identifiers of one chiplet.
//!
//! Follows `gru_assign_asid`, `gru_reset_asid_limit` and `gru_wrap_asid` of
//! drivers/misc/sgi-gru/grumain.c, 2.6.28 (secondary-mmus 2.1, 2.6): 24 bits, handed out 8 apart (one
//! for each of 8 regions); at the end of the space the whole chiplet TLB is purged and a new generation
//! begins. Deviation: the scan of the 16 loaded contexts for identifiers still in use is left out, as a
//! chiplet here serves one address space, which holds none when it asks for one.

/// A 24-bit GRU address-space identifier; never 0, which means none.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct GruAsid(u32);

/// `MIN_ASID`, grutables.h 2.6.28.
const MIN_ASID: u32 = 8;
/// `MAX_ASID`, grutables.h 2.6.28: first identifier beyond the space.
const MAX_ASID: u32 = 0x00ff_fff0;
/// `ASID_INC`, grutables.h 2.6.28: one for each region.
const ASID_INC: u32 = 8;

impl GruAsid {
    /// Identifiers of one generation (derived from the limits above, secondary-mmus 2.1).
    pub const PER_GENERATION: u32 = (MAX_ASID - MIN_ASID) / ASID_INC;

    /// The number the hardware sees.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

/// Times the identifiers of a chiplet were used up (`gs_asid_gen`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub(crate) struct AsidGeneration(u64);

/// What an allocation found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Assigned {
    /// The next identifier of the present generation.
    Next(GruAsid),
    /// The first one of a new generation: the whole chiplet TLB must be purged first.
    Wrapped(GruAsid),
}

/// `gs_asid` and `gs_asid_gen` of a chiplet.
#[derive(Clone, Debug)]
pub(crate) struct AsidSpace {
    next: u32,
    generation: AsidGeneration,
}

impl AsidSpace {
    pub(crate) const fn new() -> Self {
        AsidSpace {
            next: MIN_ASID,
            generation: AsidGeneration(0),
        }
    }

    pub(crate) const fn generation(&self) -> AsidGeneration {
        self.generation
    }

    pub(crate) fn assign(&mut self) -> Assigned {
        let wrapped = self.next >= MAX_ASID;
        if wrapped {
            self.generation.0 += 1;
            self.next = MIN_ASID;
        }
        let asid = GruAsid(self.next);
        self.next += ASID_INC;
        if wrapped {
            Assigned::Wrapped(asid)
        } else {
            Assigned::Next(asid)
        }
    }

    /// Uses up what is left of the present generation.
    #[cfg(test)]
    pub(crate) fn exhaust(&mut self) {
        self.next = MAX_ASID;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generation_has_as_many_identifiers_as_the_reference_says() {
        assert_eq!(GruAsid::PER_GENERATION, 2_097_149);
        let mut space = AsidSpace::new();
        for n in 0..GruAsid::PER_GENERATION {
            assert_eq!(space.assign(), Assigned::Next(GruAsid(MIN_ASID + n * ASID_INC)));
        }
        let before = space.generation();
        assert_eq!(space.assign(), Assigned::Wrapped(GruAsid(MIN_ASID)));
        assert!(space.generation() > before);
    }
}
