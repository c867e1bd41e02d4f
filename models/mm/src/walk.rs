//! The hardware page walks of the host's CPUs: where they start, what serves them, what they cost.
//!
//! A CPU's walk starts below the lowest entry that its paging-structure caches keep. Each entry it reads
//! goes through the caches of the machine, and costs the latency of whoever serves it; a walk is
//! `walk_base` and those latencies, which depend on each other (hardware-costs section 3), and
//! `dirty_assist` if a store found D clear (R17). A table lies on the node of the CPU that made it, the
//! root of an address space on the first.
//!
//! Simplifications, all of which change the latency of walks and never a count of flushes, an order of
//! locks or what is reachable: of what the kernel itself reads and writes only the clearing of a new table
//! goes through the caches, so an entry it sets does not take the line from other CPUs (a call for every
//! entry of a zap or a fork would cost the host more than the rest of the path); nor do frames compete for
//! the caches.

use sim::Cycles;
use x86::cache::{Caches, LINE_BYTES, Line, Served};
use x86::mmu::{References, WalkReferences};
use x86::psc::Psc;
use x86::walker::{Walk, walk_cached};
use x86::{Access, Asid, CpuIndex, Machine, PageTables, Rules, TableId, Vpn, WalkOutcome};
use x86::{DirtyAssist, PAGE_SIZE};

/// Bytes of a page-table entry.
const ENTRY_BYTES: u64 = PAGE_SIZE / x86::ENTRIES_PER_TABLE as u64;
/// Entries of a table in one line of a cache.
const ENTRIES_PER_LINE: usize = (LINE_BYTES / ENTRY_BYTES) as usize;

/// What all walkers of a kernel share.
pub(crate) struct Walks {
    caches: Caches,
    /// Node of each table, by number.
    homes: Vec<u32>,
    latency: [u64; Served::ALL.len()],
    served: References,
    dirty_assists: u64,
}

impl Walks {
    /// Empty caches for a machine, or for a larger one of its kind if the kernel has more CPUs.
    pub(crate) fn new(machine: &Machine, cpus: u32) -> Self {
        let cores = machine.cpus().max(cpus).div_ceil(machine.threads_per_core);
        Walks {
            caches: Caches::new(&machine.caches, cores, machine.threads_per_core),
            homes: Vec::new(),
            latency: machine.costs.served(),
            served: References::default(),
            dirty_assists: 0,
        }
    }

    /// A CPU has made a table, on its node, and cleared it.
    pub(crate) fn made(&mut self, machine: &Machine, cpu: CpuIndex, table: TableId) {
        let at = table.get() as usize;
        if self.homes.len() <= at {
            self.homes.resize(at + 1, 0);
        }
        self.homes[at] = machine.node_of(cpu);
        for index in (0..x86::ENTRIES_PER_TABLE).step_by(ENTRIES_PER_LINE) {
            self.caches.access(cpu, Line::of_entry(table, index));
        }
    }

    /// Walks for a CPU. Returns what it led to and what it costs.
    #[expect(
        clippy::too_many_arguments,
        reason = "a walk depends on this much of a processor"
    )]
    #[inline]
    pub(crate) fn walk(
        &mut self,
        machine: &Machine,
        cpu: CpuIndex,
        psc: &mut Psc,
        tables: &mut PageTables,
        root: TableId,
        vpn: Vpn,
        access: Access,
    ) -> (Walk, Cycles) {
        let mut references = WalkReferences::default();
        let (caches, homes) = (&mut self.caches, &self.homes);
        let read = |table: TableId, index| {
            let served = match caches.access(cpu, Line::of_entry(table, index)) {
                Served::Memory => {
                    let home = homes.get(table.get() as usize).copied().unwrap_or(0);
                    if home == machine.node_of(cpu) {
                        Served::Memory
                    } else {
                        Served::Remote
                    }
                }
                near => near,
            };
            references.count(served);
        };
        let walk = walk_cached(tables, psc, Asid::UNTAGGED, root, vpn, access, &Rules::USER, read);
        self.served.add(references);
        let costs = &machine.costs;
        let mut cost = costs.walk_base + Cycles::new(references.priced(&self.latency));
        if let WalkOutcome::Leaf {
            assist: DirtyAssist::Taken,
            ..
        } = walk.outcome
        {
            self.dirty_assists += 1;
            cost += costs.dirty_assist;
        }
        (walk, cost)
    }

    /// References since measuring began, by who served them, and dirty assists.
    pub(crate) fn counted(&self) -> (References, u64) {
        (self.served, self.dirty_assists)
    }

    /// Forgets what was counted, not what is cached.
    pub(crate) fn start_measuring(&mut self) {
        self.served = References::default();
        self.dirty_assists = 0;
    }
}
