//! The shape of a TLB, as machine files give it.

use std::error::Error;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Entries and ways of one level. Entries are a positive multiple of ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "RawLevel", into = "RawLevel")]
pub struct TlbLevel {
    entries: u32,
    ways: u32,
}

/// A level whose entries do not divide into sets of its ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidGeometry {
    /// Entries asked for.
    pub entries: u32,
    /// Ways asked for.
    pub ways: u32,
}

impl fmt::Display for InvalidGeometry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "tlb level of {} entries and {} ways: entries must be a positive multiple of ways",
            self.entries, self.ways
        )
    }
}

impl Error for InvalidGeometry {}

impl TlbLevel {
    /// A level of `entries` slots in sets of `ways`.
    ///
    /// # Errors
    /// If `entries` is not a positive multiple of `ways`.
    pub const fn new(entries: u32, ways: u32) -> Result<Self, InvalidGeometry> {
        if entries == 0 || ways == 0 || !entries.is_multiple_of(ways) {
            return Err(InvalidGeometry { entries, ways });
        }
        Ok(TlbLevel { entries, ways })
    }

    /// Slots.
    #[must_use]
    pub const fn entries(self) -> u32 {
        self.entries
    }

    /// Slots in a set; equal to the entries if fully associative.
    #[must_use]
    pub const fn ways(self) -> u32 {
        self.ways
    }

    /// Sets.
    #[must_use]
    pub const fn sets(self) -> u32 {
        self.entries / self.ways
    }
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLevel {
    entries: u32,
    ways: u32,
}

impl TryFrom<RawLevel> for TlbLevel {
    type Error = InvalidGeometry;
    fn try_from(raw: RawLevel) -> Result<Self, InvalidGeometry> {
        TlbLevel::new(raw.entries, raw.ways)
    }
}

impl From<TlbLevel> for RawLevel {
    fn from(level: TlbLevel) -> RawLevel {
        RawLevel {
            entries: level.entries,
            ways: level.ways,
        }
    }
}

/// The data TLB of a CPU, 4 KiB pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlbGeometry {
    /// First level.
    pub l1: TlbLevel,
    /// Second level, if the machine has one.
    #[serde(default)]
    pub l2: Option<TlbLevel>,
}
