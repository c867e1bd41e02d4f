//! Numbers with provenance, as machine files write them.

use std::fmt;

use serde::{Deserialize, Serialize};
use sim::Cycles;

/// Picoseconds in a nanosecond.
const PS_PER_NS: u64 = 1_000;

/// Unit of a number in a machine file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CostUnit {
    /// Cycles of the machine.
    #[serde(rename = "cy")]
    Cycles,
    /// Nanoseconds.
    #[serde(rename = "ns")]
    Nanoseconds,
}

impl CostUnit {
    pub(super) const fn to_cycles(self, value: u64, cycle_ps: u64) -> Cycles {
        match self {
            CostUnit::Cycles => Cycles::new(value),
            CostUnit::Nanoseconds => ns_to_cycles(value, cycle_ps),
        }
    }
}

impl fmt::Display for CostUnit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            CostUnit::Cycles => "cy",
            CostUnit::Nanoseconds => "ns",
        })
    }
}

// Rounds to the nearest cycle.
pub(super) const fn ns_to_cycles(ns: u64, cycle_ps: u64) -> Cycles {
    let ps = ns as u128 * PS_PER_NS as u128;
    Cycles::new(((ps + cycle_ps as u128 / 2) / cycle_ps as u128) as u64)
}

pub(super) const fn cycles_to_ns(cycles: Cycles, cycle_ps: u64) -> u64 {
    (cycles.get() as u128 * cycle_ps as u128 / PS_PER_NS as u128) as u64
}

/// A share in percent, 0 to 100.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct Percent(u8);

impl Percent {
    /// Everything.
    pub const ALL: Percent = Percent(100);

    /// The number.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0
    }

    /// This share of a duration, rounded down.
    #[must_use]
    pub const fn of(self, whole: Cycles) -> Cycles {
        Cycles::new((whole.get() as u128 * self.0 as u128 / Self::ALL.0 as u128) as u64)
    }
}

impl TryFrom<u8> for Percent {
    type Error = String;
    fn try_from(number: u8) -> Result<Self, String> {
        if number > Self::ALL.0 {
            return Err(format!("{number} percent: a share has 0 to 100"));
        }
        Ok(Percent(number))
    }
}

impl From<Percent> for u8 {
    fn from(share: Percent) -> u8 {
        share.0
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} %", self.0)
    }
}

/// A value with range and source, as written in a machine file: it lies in its range, and the source
/// says something.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "RawSpec")]
pub(super) struct CostSpec {
    pub(super) value: u64,
    pub(super) unit: CostUnit,
    pub(super) range: (u64, u64),
    pub(super) source: String,
    pub(super) note: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSpec {
    value: u64,
    unit: CostUnit,
    range: (u64, u64),
    source: String,
    #[serde(default)]
    note: String,
}

impl TryFrom<RawSpec> for CostSpec {
    type Error = String;
    fn try_from(raw: RawSpec) -> Result<Self, String> {
        check(raw.value, raw.range, &raw.source)?;
        Ok(CostSpec {
            value: raw.value,
            unit: raw.unit,
            range: raw.range,
            source: raw.source,
            note: raw.note,
        })
    }
}

impl CostSpec {
    pub(super) const fn in_cycles(&self, cycle_ps: u64) -> Cycles {
        self.unit.to_cycles(self.value, cycle_ps)
    }
}

/// What every figure of a machine file must keep to.
pub(super) fn check<N: PartialOrd + fmt::Display>(
    value: N,
    (low, high): (N, N),
    source: &str,
) -> Result<(), String> {
    if value < low || value > high {
        return Err(format!("value {value} lies outside its range, {low} to {high}"));
    }
    sourced(source)
}

/// That a source is given.
pub(super) fn sourced(source: &str) -> Result<(), String> {
    if source.trim().is_empty() {
        return Err(
            "source is empty: name rows of docs/sources/hardware.md, or say it is assumed".to_owned(),
        );
    }
    Ok(())
}

/// How much of a page walk delays the program; the rest is hidden behind other work of an
/// out-of-order core. Informational: walks are charged in full.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "RawWalkCharged")]
pub struct WalkCharged {
    /// The share.
    pub value: Percent,
    /// Lowest plausible share.
    pub low: Percent,
    /// Highest plausible share.
    pub high: Percent,
    /// Rows of the hardware reference, or other origin.
    pub source: String,
    /// How far to trust it.
    pub note: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawWalkCharged {
    value: Percent,
    range: (Percent, Percent),
    source: String,
    #[serde(default)]
    note: String,
}

impl TryFrom<RawWalkCharged> for WalkCharged {
    type Error = String;
    fn try_from(raw: RawWalkCharged) -> Result<Self, String> {
        check(raw.value, raw.range, &raw.source)?;
        Ok(WalkCharged {
            value: raw.value,
            low: raw.range.0,
            high: raw.range.1,
            source: raw.source,
            note: raw.note,
        })
    }
}
