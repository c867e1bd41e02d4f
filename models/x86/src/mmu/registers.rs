//! The control registers that govern translation, and what writing them requires.

use std::fmt;

use crate::tables::TableId;

/// Process-context identifier: 12 bits of CR3.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pcid(u16);

impl Pcid {
    /// Number of identifiers (Intel SDM vol. 3A 4.10.1; reference row G21).
    pub const COUNT: u16 = 1 << 12;
    /// The identifier in use while CR4.PCIDE is clear.
    pub const ZERO: Pcid = Pcid(0);

    /// The identifier with this number, if it has 12 bits.
    #[must_use]
    pub const fn new(number: u16) -> Option<Self> {
        if number < Self::COUNT {
            Some(Pcid(number))
        } else {
            None
        }
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }
}

/// CR3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cr3 {
    /// The root table.
    pub root: TableId,
    /// Bits 0 to 11, of meaning with CR4.PCIDE.
    pub pcid: Pcid,
}

/// Bit 63 of the value moved to CR3; of meaning with CR4.PCIDE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bit63 {
    /// Translations of the identifier loaded must go.
    Clear,
    /// They may stay.
    Set,
}

/// CR0, the bits that matter here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cr0 {
    /// PG.
    pub paging: bool,
    /// WP: supervisors heed R/W.
    pub write_protect: bool,
}

/// CR4, the bits that matter here. PAE is set and LA57 fixed, as long mode demands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cr4 {
    /// PGE: G bits count.
    pub global_pages: bool,
    /// PCIDE: CR3 carries an identifier.
    pub pcid_enable: bool,
    /// SMEP.
    pub smep: bool,
    /// SMAP.
    pub smap: bool,
}

/// #GP(0): the processor refuses the instruction and nothing changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GeneralProtection {
    /// The processor has no process-context identifiers.
    NoPcid,
    /// The processor has no INVPCID.
    NoInvpcid,
    /// Another identifier than 0 is named while PCIDE is clear.
    PcidNotEnabled,
    /// PCIDE can be set only while CR3 holds identifier 0.
    PcidNotZero,
    /// PG cannot be cleared while PCIDE is set.
    PagingNeededByPcid,
}

impl fmt::Display for GeneralProtection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            GeneralProtection::NoPcid => "#GP: the processor has no PCID",
            GeneralProtection::NoInvpcid => "#GP: the processor has no INVPCID",
            GeneralProtection::PcidNotEnabled => {
                "#GP: INVPCID of another PCID than 0 while CR4.PCIDE is clear"
            }
            GeneralProtection::PcidNotZero => "#GP: CR4.PCIDE set while CR3[11:0] is not 0",
            GeneralProtection::PagingNeededByPcid => "#GP: CR0.PG cleared while CR4.PCIDE is set",
        })
    }
}

impl std::error::Error for GeneralProtection {}
