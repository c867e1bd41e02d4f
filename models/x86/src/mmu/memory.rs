//! What the MMUs of a machine share, and where each of them sits in it.

use crate::addr::Pfn;
use crate::cache::{Caches, Line, Served};
use crate::machine::{CpuIndex, Machine};
use crate::tables::{PageTables, TableId};

/// Page tables and caches of a machine.
#[derive(Clone)]
pub struct Memory {
    /// The page tables.
    pub tables: PageTables,
    /// The caches the walkers read through.
    pub caches: Caches,
    // Node of each table that was placed.
    homes: Vec<u32>,
}

/// A CPU and its node.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seat {
    pub(super) cpu: CpuIndex,
    pub(super) node: u32,
}

impl Memory {
    /// The memory of a machine, with these tables.
    #[must_use]
    pub fn new(machine: &Machine, tables: PageTables) -> Self {
        let cores = machine.sockets * machine.cores_per_socket;
        Memory {
            tables,
            caches: Caches::new(&machine.caches, cores, machine.threads_per_core),
            homes: Vec::new(),
        }
    }

    /// Says on which node a table lies; tables lie on node 0 unless told.
    pub fn place(&mut self, table: TableId, node: u32) {
        let at = table.get() as usize;
        if self.homes.len() <= at {
            self.homes.resize(at + 1, 0);
        }
        self.homes[at] = node;
    }

    /// A data access to a frame of the CPU's own node: who serves it.
    pub fn access_data(&mut self, cpu: CpuIndex, pfn: Pfn, offset: u64) -> Served {
        self.caches.access(cpu, Line::of_byte(pfn, offset))
    }

    /// Reads what serving references to entries of tables will read on the host.
    #[inline]
    #[must_use]
    pub fn look_ahead(&self, cpu: CpuIndex, entries: impl Iterator<Item = (TableId, usize)>) -> u32 {
        let lines = entries.map(|(table, index)| Line::of_entry(table, index));
        self.caches.look_ahead(cpu, lines)
    }

    // A reference to a frame of the CPU's own node.
    #[inline]
    pub(super) fn serve_data(&mut self, seat: Seat, line: Line) -> Served {
        self.caches.access(seat.cpu, line)
    }

    /// The tables, for a walk, and who serves the references to them meanwhile.
    #[inline]
    pub(super) fn for_walk(&mut self, seat: Seat) -> (&mut PageTables, Server<'_>) {
        let server = Server {
            caches: &mut self.caches,
            homes: &self.homes,
            seat,
        };
        (&mut self.tables, server)
    }
}

/// Serves the references of a walk.
pub(super) struct Server<'a> {
    caches: &'a mut Caches,
    homes: &'a [u32],
    seat: Seat,
}

impl Server<'_> {
    #[inline]
    pub(super) fn serve(&mut self, table: TableId, index: usize) -> Served {
        match self.caches.access(self.seat.cpu, Line::of_entry(table, index)) {
            Served::Memory => {
                let home = self.homes.get(table.get() as usize).copied().unwrap_or(0);
                if home == self.seat.node {
                    Served::Memory
                } else {
                    Served::Remote
                }
            }
            near => near,
        }
    }
}
