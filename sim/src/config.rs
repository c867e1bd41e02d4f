//! What the engine needs to know of the machine and of the kernel's build.

use crate::{CpuId, Cycles};

/// Whether kernel code can be preempted (CONFIG_PREEMPT).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KernelPreemption {
    /// Only at `cond_resched`, when sleeping, and in user mode.
    Voluntary,
    /// At any synchronisation point with a preemption count of zero.
    Full,
}

/// Costs and sizes. All durations in cycles of the simulated machine.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Socket of each CPU; its length is the number of CPUs.
    pub socket_of: Vec<u16>,
    /// Complex of each CPU, as far as sockets have complexes: cores that share a cache others of the
    /// socket do not. Empty if there are none.
    pub complex_of: Vec<u16>,
    /// Taking an uncontended lock whose line is in this CPU's cache.
    pub lock_acquire: Cycles,
    /// Releasing a lock.
    pub lock_release: Cycles,
    /// Moving a cache line between CPUs of one complex.
    pub transfer_complex: Cycles,
    /// Moving a cache line between CPUs of one socket, of different complexes if it has several.
    pub transfer_near: Cycles,
    /// Moving a cache line between sockets.
    pub transfer_far: Cycles,
    /// Context switch.
    pub context_switch: Cycles,
    /// From a wake-up to the woken task being ready on its CPU.
    pub wakeup: Cycles,
    /// From sending an interrupt to its handler's first instruction.
    pub ipi_latency: Cycles,
    /// From one target of an interrupt to the next, when it is sent to several.
    pub ipi_per_target: Cycles,
    /// Time slice after which a CPU with other runnable tasks wants to reschedule.
    pub time_slice: Cycles,
    /// Preemption of kernel code.
    pub preemption: KernelPreemption,
    /// Nested spinlocks the preemption counter can hold.
    pub preempt_limit: u32,
    /// Events after which the run is given up as [`crate::End::Budget`].
    pub max_events: u64,
}

impl EngineConfig {
    /// Free of cost, for tests of order and for exploration.
    #[must_use]
    pub fn without_costs(cpus: u16) -> Self {
        EngineConfig {
            socket_of: vec![0; cpus as usize],
            complex_of: Vec::new(),
            lock_acquire: Cycles::ZERO,
            lock_release: Cycles::ZERO,
            transfer_complex: Cycles::ZERO,
            transfer_near: Cycles::ZERO,
            transfer_far: Cycles::ZERO,
            context_switch: Cycles::ZERO,
            wakeup: Cycles::ZERO,
            ipi_latency: Cycles::ZERO,
            ipi_per_target: Cycles::ZERO,
            time_slice: Cycles::NEVER,
            preemption: KernelPreemption::Voluntary,
            preempt_limit: u32::MAX,
            max_events: u64::MAX,
        }
    }

    /// Cost of moving a cache line from one CPU to another.
    #[must_use]
    pub fn transfer(&self, from: CpuId, to: CpuId) -> Cycles {
        let complex = |cpu: CpuId| self.complex_of.get(cpu.index());
        if from == to {
            Cycles::ZERO
        } else if complex(from).is_some() && complex(from) == complex(to) {
            self.transfer_complex
        } else if self.socket_of[from.index()] == self.socket_of[to.index()] {
            self.transfer_near
        } else {
            self.transfer_far
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_move_by_complex_socket_and_machine() {
        let mut config = EngineConfig::without_costs(6);
        config.socket_of = vec![0, 0, 0, 0, 1, 1];
        config.complex_of = vec![0, 0, 1, 1, 2, 2];
        config.transfer_complex = Cycles::new(1);
        config.transfer_near = Cycles::new(2);
        config.transfer_far = Cycles::new(3);
        let from_first = |config: &EngineConfig| -> Vec<u64> {
            let cost = |to| config.transfer(CpuId::new(0), CpuId::new(to)).get();
            (0..6).map(cost).collect()
        };
        assert_eq!(from_first(&config), [0, 1, 2, 2, 3, 3]);
        config.complex_of.clear();
        assert_eq!(from_first(&config), [0, 2, 2, 2, 3, 3]);
    }
}
