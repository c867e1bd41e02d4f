//! The caches between the page walker and memory.
//!
//! What goes through them is what the caller sends: page-table references always, data accesses if
//! asked. A reference looks in the first level of its core, then in the second level and the last
//! level its core belongs to, and is served by the first that has the line, else by memory. The levels
//! above the one that served it are filled; what is evicted on the way is clean or dirty alike, since
//! write-backs cost the walk nothing. The first and the second level do not include each other; the
//! last level is as its [`Inclusion`] says. Latencies are dependent-load latencies of a machine's
//! price list: a walk's references depend on each other.
//!
//! A store by one core takes the line out of the other cores' first and second levels: [`Caches::own`],
//! for whoever announces stores. The walker does not when it sets A or D: it does so once a page and bit,
//! at the page's first uses, and what it saves another core is one reference to the last level.
//!
//! Not modelled: prefetchers, memory-side effects of row misses, write-back bandwidth.

mod array;
mod geometry;

pub use array::Line;
use array::{Cache, Reference};
pub use geometry::{CacheArray, CacheGeometry, Inclusion, LINE_BYTES, LastLevel};

use crate::addr::{PAGE_SHIFT, Pfn};
use crate::machine::CpuIndex;
use crate::tables::TableId;

/// Bytes of a page-table entry.
pub(crate) const ENTRY_BYTES: u64 = 8;
const ENTRIES_PER_LINE: u64 = LINE_BYTES / ENTRY_BYTES;
const LINES_PER_PAGE: u64 = (1 << PAGE_SHIFT) / LINE_BYTES;
/// Bits of a frame number or table number that the caches tell apart: 4 TiB of each.
pub const CACHED_FRAME_BITS: u32 = 30;
// Tables live in an arena of their own: this bit keeps their lines apart from those of frames.
const TABLE_SPACE: u64 = 1 << (CACHED_FRAME_BITS + LINES_PER_PAGE.trailing_zeros());
/// Bits of a line number.
pub(crate) const LINE_BITS: u32 = TABLE_SPACE.trailing_zeros() + 1;

impl Line {
    /// The line that holds an entry of a page table.
    #[inline]
    #[must_use]
    pub const fn of_entry(table: TableId, index: usize) -> Self {
        let line = (table.get() as u64) * LINES_PER_PAGE + index as u64 / ENTRIES_PER_LINE;
        Line::new(TABLE_SPACE | line)
    }

    /// The line of a frame that holds a byte.
    #[inline]
    #[must_use]
    pub const fn of_byte(pfn: Pfn, offset: u64) -> Self {
        Line::new((pfn.get() as u64) * LINES_PER_PAGE + offset / LINE_BYTES)
    }
}

/// Who served a reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Served {
    /// The core's first-level data cache.
    L1,
    /// The second level.
    L2,
    /// The last level.
    Llc,
    /// Memory of the CPU's own node.
    Memory,
    /// Memory of another node.
    Remote,
}

impl Served {
    /// All, nearest first.
    pub const ALL: [Served; 5] = [
        Served::L1,
        Served::L2,
        Served::Llc,
        Served::Memory,
        Served::Remote,
    ];
}

/// The caches that serve a CPU, by number in their level.
#[derive(Clone, Copy)]
struct WayDown {
    l1: u32,
    l2: u32,
    llc: u32,
}

/// All caches of a machine. Those of a core that makes no reference take no memory on the host.
#[derive(Clone)]
pub struct Caches {
    geometry: CacheGeometry,
    threads_per_core: u32,
    // By CPU: which of the caches of each level are its own.
    ways_down: Vec<WayDown>,
    inclusion: Option<Inclusion>,
    l1: Vec<Option<Cache>>,
    l2: Vec<Option<Cache>>,
    llc: Vec<Option<Cache>>,
}

impl Caches {
    /// Empty caches for a machine of so many cores. The geometry was checked when it was read.
    #[must_use]
    pub fn new(geometry: &CacheGeometry, cores: u32, threads_per_core: u32) -> Self {
        let instances = |array: &CacheArray| vec![None; cores.div_ceil(array.cores) as usize];
        let llc_cores = geometry.llc.as_ref().map_or(1, |llc| llc.cache.cores);
        let way_down = |cpu: u32| {
            let core = cpu / threads_per_core;
            WayDown {
                l1: core / geometry.l1.cores,
                l2: core / geometry.l2.cores,
                llc: core / llc_cores,
            }
        };
        Caches {
            threads_per_core,
            ways_down: (0..cores * threads_per_core).map(way_down).collect(),
            inclusion: geometry.llc.as_ref().map(|llc| llc.inclusion),
            l1: instances(&geometry.l1),
            l2: instances(&geometry.l2),
            llc: geometry
                .llc
                .as_ref()
                .map_or_else(Vec::new, |llc| instances(&llc.cache)),
            geometry: geometry.clone(),
        }
    }

    /// A reference by a CPU: who serves it. Nodes are not known here: memory is [`Served::Memory`].
    #[inline]
    pub fn access(&mut self, cpu: CpuIndex, line: Line) -> Served {
        let way_down = self.ways_down[cpu.get() as usize];
        match instance(&mut self.l1, &self.geometry.l1, way_down.l1).reference(line) {
            Reference::Hit => Served::L1,
            Reference::Filled(_) => self.beyond_l1(way_down, line),
        }
    }

    #[inline]
    fn beyond_l1(&mut self, way_down: WayDown, line: Line) -> Served {
        let evicted = match instance(&mut self.l2, &self.geometry.l2, way_down.l2).reference(line) {
            Reference::Hit => return Served::L2,
            Reference::Filled(evicted) => evicted,
        };
        let (Some(llc), Some(inclusion)) = (&self.geometry.llc, self.inclusion) else {
            return Served::Memory;
        };
        let cache = instance(&mut self.llc, &llc.cache, way_down.llc);
        if inclusion == Inclusion::Victim {
            let found = cache.remove(line);
            if let Some(old) = evicted {
                // A line may be here already, if another core's second level evicted it before.
                let _: Reference = cache.reference(old);
            }
            return if found { Served::Llc } else { Served::Memory };
        }
        match cache.reference(line) {
            Reference::Hit => Served::Llc,
            Reference::Filled(Some(old)) if inclusion == Inclusion::Inclusive => {
                self.recall(way_down.llc, old);
                Served::Memory
            }
            Reference::Filled(_) => Served::Memory,
        }
    }

    // A line left an inclusive last level: it leaves the caches of its cores too.
    fn recall(&mut self, group: u32, line: Line) {
        let Some(llc) = &self.geometry.llc else { return };
        let cores = group * llc.cache.cores..(group + 1) * llc.cache.cores;
        for (caches, array) in [
            (&mut self.l1, &self.geometry.l1),
            (&mut self.l2, &self.geometry.l2),
        ] {
            let instances = cores.start / array.cores..cores.end.div_ceil(array.cores);
            let there = caches[instances.start as usize..]
                .iter_mut()
                .take(instances.len());
            for cache in there.flatten() {
                cache.remove(line);
            }
        }
    }

    /// A CPU stores to a line: the copies in other cores' first and second levels are void.
    pub fn own(&mut self, cpu: CpuIndex, line: Line) {
        let core = cpu.get() / self.threads_per_core;
        for (caches, array) in [
            (&mut self.l1, &self.geometry.l1),
            (&mut self.l2, &self.geometry.l2),
        ] {
            for (at, cache) in caches.iter_mut().enumerate() {
                if at as u32 != core / array.cores
                    && let Some(cache) = cache
                {
                    cache.remove(line);
                }
            }
        }
    }

    /// Reads what look-ups of the lines in the CPU's last level will read on the host, and nothing of
    /// the model changes: many independent reads cost the host little more than one. Smaller levels fit
    /// a host's own caches.
    #[inline]
    #[must_use]
    pub fn look_ahead(&self, cpu: CpuIndex, lines: impl Iterator<Item = Line>) -> u32 {
        match self.llc.get(self.ways_down[cpu.get() as usize].llc as usize) {
            Some(Some(cache)) => cache.look_ahead(lines),
            _ => 0,
        }
    }
}

#[inline(always)]
fn instance<'a>(caches: &'a mut [Option<Cache>], array: &CacheArray, at: u32) -> &'a mut Cache {
    caches[at as usize].get_or_insert_with(|| Cache::new(array))
}
