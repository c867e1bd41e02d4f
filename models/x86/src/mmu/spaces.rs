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
    /// Guest-physical mappings: of whatever virtual processor on Intel, which then is [`Vpid::HOST`]
    /// here; of one ASID on AMD.
    GuestPhysical(Vpid, Eptp),
}

impl Space {
    /// The virtual processor whose linear addresses the entry translates, if it does.
    pub(super) const fn vpid(self) -> Option<Vpid> {
        match self {
            Space::Linear(vpid, ..) | Space::Global(vpid, _) => Some(vpid),
            Space::GuestPhysical(..) => None,
        }
    }

    pub(super) const fn eptp(self) -> Eptp {
        match self {
            Space::Linear(_, eptp, _) | Space::Global(_, eptp) | Space::GuestPhysical(_, eptp) => eptp,
        }
    }

    pub(super) const fn is_global(self) -> bool {
        matches!(self, Space::Global(..))
    }

    /// Whether it is an address space of a virtual processor under an identifier, in whatever second
    /// dimension.
    pub(super) fn belongs(self, vpid: Vpid, pcid: Pcid) -> bool {
        matches!(self, Space::Linear(v, _, p) if v == vpid && p == pcid)
    }

    /// Whether it is the global pages of a virtual processor.
    pub(super) fn is_global_of(self, vpid: Vpid) -> bool {
        matches!(self, Space::Global(v, _) if v == vpid)
    }
}

/// Numbers for the spaces seen so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Spaces {
    numbers: BTreeMap<Space, Asid>,
    spaces: Vec<Space>,
    second_dimensions: bool,
}

impl Spaces {
    // The last number is never given out: models without tags use it. A context takes two numbers, the
    // guest-physical mappings of its second dimension a third.
    const MOST: usize = u16::MAX as usize - 1;

    /// Whether three more spaces may not fit: everything cached must go, and [`Spaces::forget`] be
    /// called.
    pub(super) fn is_full(&self) -> bool {
        self.spaces.len() + 3 > Self::MOST
    }

    pub(super) fn forget(&mut self) {
        *self = Spaces::default();
    }

    /// Whether any space seen lies in a second dimension.
    #[inline]
    pub(super) const fn has_second_dimensions(&self) -> bool {
        self.second_dimensions
    }

    pub(super) fn number(&mut self, space: Space) -> Asid {
        self.second_dimensions |= space.eptp() != Eptp::NONE;
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
