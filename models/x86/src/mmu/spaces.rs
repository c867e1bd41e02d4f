//! Address spaces as a processor tells them apart, and the one number a TLB compares.

use std::collections::BTreeMap;

use super::registers::Pcid;
use crate::tlb::{Asid, Context};

/// Virtual processor identifier (Intel VPID, or SVM ASID). Zero is the host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Vpid(pub u16);

/// Root of the second dimension (EPTP, or nCR3), by number. Zero is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Eptp(pub u16);

impl Vpid {
    /// The host, and guests run without an identifier.
    pub const HOST: Vpid = Vpid(0);
}

impl Eptp {
    /// No second dimension.
    pub const NONE: Eptp = Eptp(0);
}

/// What an entry belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Space {
    /// Linear (without a second dimension) or combined mappings of one address space.
    Linear(Vpid, Eptp, Pcid),
    /// Linear or combined mappings of global pages: of any identifier.
    Global(Vpid, Eptp),
    /// Guest-physical mappings.
    GuestPhysical(Eptp),
}

impl Space {
    /// The virtual processor whose linear addresses the entry translates, if it does.
    pub(super) const fn vpid(self) -> Option<Vpid> {
        match self {
            Space::Linear(vpid, ..) | Space::Global(vpid, _) => Some(vpid),
            Space::GuestPhysical(_) => None,
        }
    }

    pub(super) const fn eptp(self) -> Eptp {
        match self {
            Space::Linear(_, eptp, _) | Space::Global(_, eptp) | Space::GuestPhysical(eptp) => eptp,
        }
    }

    pub(super) const fn is_global(self) -> bool {
        matches!(self, Space::Global(..))
    }
}

/// Numbers for the spaces seen so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Spaces {
    numbers: BTreeMap<Space, Asid>,
    spaces: Vec<Space>,
}

impl Spaces {
    // The last number is never given out: models without tags use it.
    const MOST: usize = u16::MAX as usize - 1;

    /// Whether two more spaces may not fit: everything cached must go, and [`Spaces::forget`] be
    /// called.
    pub(super) fn is_full(&self) -> bool {
        self.spaces.len() + 2 > Self::MOST
    }

    pub(super) fn forget(&mut self) {
        *self = Spaces::default();
    }

    pub(super) fn number(&mut self, space: Space) -> Asid {
        *self.numbers.entry(space).or_insert_with(|| {
            self.spaces.push(space);
            Asid::new((self.spaces.len() - 1) as u16)
        })
    }

    pub(super) fn context(&mut self, vpid: Vpid, eptp: Eptp, pcid: Pcid) -> Context {
        Context {
            own: self.number(Space::Linear(vpid, eptp, pcid)),
            global: self.number(Space::Global(vpid, eptp)),
        }
    }

    /// The numbers of the spaces that `fits` picks.
    pub(super) fn tags_where(&self, fits: impl Fn(Space) -> bool) -> Vec<Asid> {
        let tags = self.numbers.iter().filter(|(space, _)| fits(**space));
        tags.map(|(_, &asid)| asid).collect()
    }

    /// The space of a number given out.
    pub(super) fn of(&self, asid: Asid) -> Space {
        self.spaces[asid.get() as usize]
    }
}
