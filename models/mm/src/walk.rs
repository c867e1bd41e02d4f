//! The hardware page walks of the host's CPUs: where they start, what serves them, what they cost.
//!
//! A CPU's walk starts below the lowest entry that its paging-structure caches keep. Each entry it reads
//! goes through the caches of the machine, and costs the latency of whoever serves it; a walk is
//! `walk_base` and those latencies, since each read depends on the one before (section 3 of the hardware
//! reference), and `dirty_assist` if a store found D clear (R17). A table lies on the node of the CPU that
//! made it, the root of an address space on the first.
//!
//! Simplifications, all of which change the latency of walks and never what is flushed, locked or
//! reachable: what the kernel itself reads and writes does not go through the caches, so an entry it sets
//! does not take the line from other CPUs (looking for it there at every entry of a zap or a fork would
//! cost the host more than the rest of the path); nor do frames compete for the caches. One write is
//! noticed: whoever made a table has cleared it, and finds a line of it that nobody has read since in the
//! second level.

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

/// Where a table is.
#[derive(Clone, Copy, Default)]
struct Place {
    /// Its node.
    node: u32,
    /// Who made it.
    maker: CpuIndex,
    /// Its lines that nobody has read since.
    unread: u64,
}

const _: () = assert!(x86::ENTRIES_PER_TABLE / ENTRIES_PER_LINE == u64::BITS as usize);

impl Place {
    /// Who serves a reference that missed the caches.
    fn serve(&mut self, machine: &Machine, cpu: CpuIndex, index: usize) -> Served {
        let line = 1 << (index / ENTRIES_PER_LINE);
        let unread = self.unread & line != 0;
        self.unread &= !line;
        if unread && self.maker == cpu {
            Served::L2
        } else if self.node == machine.node_of(cpu) {
            Served::Memory
        } else {
            Served::Remote
        }
    }
}

/// What all walkers of a kernel share.
pub(crate) struct Walks {
    caches: Caches,
    /// Where each table is, by number.
    places: Vec<Place>,
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
            places: Vec::new(),
            latency: machine.costs.served(),
            served: References::default(),
            dirty_assists: 0,
        }
    }

    /// A CPU has made a table, on its node, and cleared it.
    pub(crate) fn made(&mut self, machine: &Machine, cpu: CpuIndex, table: TableId) {
        self.reserve(table);
        self.places[table.get() as usize] = Place {
            node: machine.node_of(cpu),
            maker: cpu,
            unread: u64::MAX,
        };
    }

    /// There is a table of this number, on the first node unless somebody says that it made it.
    pub(crate) fn reserve(&mut self, table: TableId) {
        let at = table.get() as usize;
        if self.places.len() <= at {
            self.places.resize(at + 1, Place::default());
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
        let (caches, places) = (&mut self.caches, &mut self.places);
        let read = |table: TableId, index| {
            references.count(match caches.access(cpu, Line::of_entry(table, index)) {
                Served::Memory => places[table.get() as usize].serve(machine, cpu, index),
                near => near,
            });
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
