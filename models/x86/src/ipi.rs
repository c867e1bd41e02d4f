//! Interprocessor interrupts as Linux 2.6.25 to 2.6.27 uses them to shoot down TLBs.
//!
//! Mechanism only: which vector a sender uses and how many writes to the interrupt command register
//! (ICR) a target set takes. Who is interrupted, and who waits for what lock, is policy of the
//! layer above. Sources: arch/x86/kernel/tlb_64.c, include/asm-x86/irq_vectors.h and
//! arch/x86/kernel/genapic_flat_64.c of 2.6.27.

use std::fmt;

use sim::{CpuId, Cycles};

use crate::machine::Costs;

/// Interrupt vectors (= sender slots, each with a lock of its own) reserved for TLB shootdown:
/// `NUM_INVALIDATE_TLB_VECTORS`.
pub const INVALIDATE_VECTORS: usize = 8;
/// First of them: `INVALIDATE_TLB_VECTOR_START`.
pub const INVALIDATE_VECTOR_FIRST: u8 = 0xf0;
/// Last of them: `INVALIDATE_TLB_VECTOR_END`.
pub const INVALIDATE_VECTOR_LAST: u8 = INVALIDATE_VECTOR_FIRST + INVALIDATE_VECTORS as u8 - 1;
/// Most CPUs that flat logical mode can address: its destination is a mask of eight bits.
pub const FLAT_MODE_CPUS: usize = 8;

/// A number of the interrupt descriptor table.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Vector(u8);

impl Vector {
    /// The vector with this number.
    #[must_use]
    pub const fn new(number: u8) -> Self {
        Vector(number)
    }

    /// The shootdown vector a CPU sends on: its number modulo 8.
    #[must_use]
    pub const fn invalidate_for(sender: CpuId) -> Self {
        Vector(INVALIDATE_VECTOR_FIRST + Self::sender_slot(sender) as u8)
    }

    /// The slot a sending CPU shares with all CPUs of equal number modulo 8.
    #[must_use]
    pub const fn sender_slot(sender: CpuId) -> usize {
        sender.index() % INVALIDATE_VECTORS
    }

    /// The slot of a shootdown vector; `None` for other vectors.
    #[must_use]
    pub const fn slot(self) -> Option<usize> {
        if self.0 >= INVALIDATE_VECTOR_FIRST && self.0 <= INVALIDATE_VECTOR_LAST {
            Some((self.0 - INVALIDATE_VECTOR_FIRST) as usize)
        } else {
            None
        }
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0
    }
}

impl fmt::Debug for Vector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "vector {:#x}", self.0)
    }
}

/// How the local APICs address a set of targets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ApicMode {
    /// Logical flat: one ICR write reaches any set of up to 8 CPUs.
    Flat,
    /// Physical flat: one ICR write a target.
    PhysFlat,
}

impl ApicMode {
    /// The mode Linux picks for a machine of so many CPUs.
    #[must_use]
    pub const fn for_cpus(cpus: usize) -> Self {
        if cpus <= FLAT_MODE_CPUS {
            ApicMode::Flat
        } else {
            ApicMode::PhysFlat
        }
    }

    /// ICR writes needed to interrupt so many targets; none for none.
    #[must_use]
    pub const fn icr_writes(self, targets: u32) -> u32 {
        match self {
            ApicMode::Flat if targets == 0 => 0,
            ApicMode::Flat => 1,
            ApicMode::PhysFlat => targets,
        }
    }
}

/// Analytic latency of one undisturbed shootdown, from the first ICR write to the last
/// acknowledgement, every target idle of interrupts and reloading CR3.
///
/// This is the composition the presets' `icr_write`, `ipi_latency` and `ipi_ack` were derived for;
/// a simulated shootdown of the same shape must come out at the same figure. Targets beyond the
/// first overlap except for what serialises: the sender's ICR writes (physical mode) and the
/// acknowledgements, which all write the sender's one mask word.
#[must_use]
pub fn undisturbed_shootdown(costs: &Costs, mode: ApicMode, targets: u32) -> Cycles {
    let Some(further) = targets.checked_sub(1) else {
        return Cycles::ZERO;
    };
    let first = costs.icr_write + costs.ipi_latency + costs.cr3_reload + costs.ipi_ack;
    let step = match mode {
        ApicMode::Flat => costs.ipi_ack,
        ApicMode::PhysFlat => costs.ipi_ack.max(costs.icr_write),
    };
    first + step * u64::from(further)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn senders_eight_apart_share_a_vector() {
        assert_eq!(
            Vector::invalidate_for(CpuId::new(3)),
            Vector::invalidate_for(CpuId::new(11))
        );
        assert_eq!(
            Vector::invalidate_for(CpuId::new(7)).get(),
            INVALIDATE_VECTOR_LAST
        );
        assert_eq!(Vector::new(0xef).slot(), None);
        assert_eq!(Vector::new(0xf7).slot(), Some(7));
    }

    #[test]
    fn flat_mode_writes_once_and_physical_mode_once_a_target() {
        assert_eq!(ApicMode::for_cpus(8), ApicMode::Flat);
        assert_eq!(ApicMode::for_cpus(9), ApicMode::PhysFlat);
        assert_eq!(ApicMode::Flat.icr_writes(7), 1);
        assert_eq!(ApicMode::Flat.icr_writes(0), 0);
        assert_eq!(ApicMode::PhysFlat.icr_writes(7), 7);
    }
}
