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

/// A value with range and source, as written in a machine file.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CostSpec {
    pub(super) value: u64,
    pub(super) unit: CostUnit,
    pub(super) range: (u64, u64),
    pub(super) source: String,
    #[serde(default)]
    pub(super) note: String,
}

impl CostSpec {
    pub(super) const fn in_cycles(&self, cycle_ps: u64) -> Cycles {
        self.unit.to_cycles(self.value, cycle_ps)
    }

    pub(super) fn check(&self) -> Result<(), &'static str> {
        let (low, high) = self.range;
        if self.value < low || self.value > high {
            return Err("value lies outside its range");
        }
        if self.source.trim().is_empty() {
            return Err("source is empty");
        }
        Ok(())
    }
}
