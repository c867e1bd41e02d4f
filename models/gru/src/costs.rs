//! Sizes and prices of the GRU, with their sources.
//!
//! Prices are in nanoseconds, because the GRU sits in the hub and keeps its own clock; machine presets
//! hold host primitives only. What the driver does on the CPU is priced by the machine.

use sim::Cycles;
use x86::Machine;

/// A price with its provenance.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GruCost {
    /// Name.
    pub name: &'static str,
    /// Value in nanoseconds.
    pub ns: u64,
    /// Lowest and highest plausible value.
    pub range: (u64, u64),
    /// Where it comes from.
    pub source: &'static str,
}

impl GruCost {
    pub(crate) fn on(&self, machine: &Machine) -> Cycles {
        machine.ns(self.ns)
    }
}

/// One TLB invalidate command on one chiplet, issue to completion.
pub const PURGE: GruCost = GruCost {
    name: "gru_purge",
    ns: 3_000,
    range: (1_000, 10_000),
    source: "grutlbpurge.c 2.6.28: a few us normally, occasionally longer (secondary-mmus 2.7)",
};

/// Writing a TLB fault handle to drop a translation in and restart the instruction.
pub const DROPIN: GruCost = GruCost {
    name: "gru_dropin",
    ns: 300,
    range: (100, 1_000),
    source: "no figure found (secondary-mmus 2.7); one uncached handle write to the hub, inferred",
};

/// Starting or interrupting a context through its configuration handle.
pub const CONTEXT_HANDLE: GruCost = GruCost {
    name: "gru_context_handle",
    ns: 1_000,
    range: (300, 10_000),
    source: "no figure found; a few uncached handle writes and a wait for completion, inferred",
};

/// Reading a TLB fault handle.
pub const FAULT_HANDLE_READ: GruCost = GruCost {
    name: "gru_fault_handle_read",
    ns: 300,
    range: (100, 1_000),
    source: "no figure found; one uncached read from the hub, inferred",
};

/// All prices, for listings.
pub const COSTS: [GruCost; 4] = [PURGE, DROPIN, CONTEXT_HANDLE, FAULT_HANDLE_READ];

/// Page-table entries that `atomic_pte_lookup` reads: four levels (secondary-mmus 2.7).
pub(crate) const PTE_LOOKUP_READS: u64 = 4;

/// Pages one invalidate command covers; as many or more mean all of the identifier
/// (`GRUMAXINVAL`, gruhandles.h 2.6.28).
pub const MAX_PURGE_PAGES: u64 = 1024;

/// Sets of a chiplet TLB. *Assumption*: the driver does not publish the geometry. A fault handle
/// reports index and way in 12 bits, and a purge of 1,024 consecutive pages is "enough for a full
/// purge" (gruhandles.h 2.6.28, secondary-mmus 2.1); 1,024 sets indexed by page number with 4 ways
/// satisfy both.
pub const TLB_SETS: usize = 1024;

/// Ways of a chiplet TLB; see [`TLB_SETS`].
pub const TLB_WAYS: usize = 4;

/// `GRU_NUM_CCH`, gruhandles.h 2.6.28: contexts of a chiplet.
pub const CONTEXTS_PER_CHIPLET: u32 = 16;
