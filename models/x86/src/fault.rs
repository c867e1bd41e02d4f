//! Page faults.

use std::fmt;

use crate::addr::Va;
use crate::rules::Privilege;
use crate::walker::Access;

/// The error code a page fault pushes (Intel SDM vol. 3A 4.7).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ErrorCode(u32);

impl ErrorCode {
    /// No bit: a supervisor's load found an entry that is not present.
    pub const NONE: ErrorCode = ErrorCode(0);
    /// P, bit 0: the fault was a protection violation; clear: an entry was not present.
    pub const PRESENT: ErrorCode = ErrorCode(1);
    /// W/R, bit 1: the access was a store.
    pub const WRITE: ErrorCode = ErrorCode(1 << 1);
    /// U/S, bit 2: the access was made in user mode.
    pub const USER: ErrorCode = ErrorCode(1 << 2);
    /// RSVD, bit 3: a reserved bit was set in an entry.
    pub const RESERVED: ErrorCode = ErrorCode(1 << 3);
    /// I/D, bit 4: the access was an instruction fetch.
    pub const FETCH: ErrorCode = ErrorCode(1 << 4);

    /// The bits that the access alone decides.
    #[must_use]
    pub const fn of(access: Access, privilege: Privilege) -> Self {
        let kind = match access {
            Access::Read => ErrorCode(0),
            Access::Write => ErrorCode::WRITE,
            Access::Fetch => ErrorCode::FETCH,
        };
        match privilege {
            Privilege::User => kind.with(ErrorCode::USER),
            Privilege::Supervisor => kind,
        }
    }

    /// Both sets of bits.
    #[must_use]
    pub const fn with(self, other: ErrorCode) -> Self {
        ErrorCode(self.0 | other.0)
    }

    /// Whether all bits of the other are set.
    #[must_use]
    pub const fn has(self, other: ErrorCode) -> bool {
        self.0 & other.0 == other.0
    }

    /// The bits.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0
    }
}

impl fmt::Debug for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error code {:#x}", self.0)
    }
}

/// Why the processor refuses an access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// #PF: the address goes into CR2.
    Page {
        /// The address.
        va: Va,
        /// What was wrong.
        code: ErrorCode,
    },
    /// #GP(0): the address is not canonical. A reference through the stack pointer would be #SS.
    NonCanonical {
        /// The address.
        va: Va,
    },
}
