//! References through the MMUs of a machine.
//!
//! Each thread of the trace runs on a CPU of its own, thread n on CPU n modulo the machine's CPUs, all
//! in one address space. A page is mapped at its first touch; the walk that finds it missing and the
//! walk that finds it mapped are counted apart.
//!
//! The loop has three speeds. Runs of references that the TLBs serve alone are made by
//! [`x86::mmu::Mmu::run`]. What it stops at goes through [`x86::mmu::Mmu::resume`]. While many references
//! miss, the entries, cache sets and books that the next references will need are
//! read ahead, a group at a time and independently of each other, so that the host waits for them
//! together; this changes nothing that is counted.

use sim::Cycles;
use x86::cache::Served;
use x86::mmu::{Bit63, Cr3, Found, Memory, Mmu, Pcid, Refused, WalkReferences};
use x86::tlb::{Run, Stop};
use x86::walker::DirtyAssist;
use x86::{
    Access, CpuIndex, Fault, Frames, Generation, Machine, Observer, PageTables, PagingMode, Pfn, Reference,
    Slots, TableId, TlbEntry, Va,
};

use crate::ahead::Ahead;
use crate::frames::Oracle;
use crate::mapping::{Due, Mapper, PagePolicy};
use crate::pages::{Pages, TooManyPages};
use crate::source::{Batch, ThreadId};

/// How data accesses meet the caches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DataCaching {
    /// They do not: only page-table references go through the caches.
    #[default]
    Bypass,
    /// They go through the first-level data cache and below, and compete with page tables there;
    /// their own latency is not charged. Fetches use another cache and do not.
    Through,
}

/// What is simulated.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The machine.
    pub machine: Machine,
    /// Depth of the page tables.
    pub mode: PagingMode,
    /// How memory is mapped.
    pub pages: PagePolicy,
    /// How data accesses meet the caches.
    pub data: DataCaching,
}

/// Why a run cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// Frame numbers are used up.
    #[error(transparent)]
    TooManyPages(#[from] TooManyPages),
    /// The oracle found a stale translation.
    #[error("{0}")]
    Stale(Stale),
}

/// What the oracle found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stale {
    /// An access used a translation from before its frame was freed.
    #[error("{cpu:?} used a translation of {va} to {pfn} from before the frame was freed")]
    Used {
        /// Who.
        cpu: CpuIndex,
        /// Where.
        va: Va,
        /// The frame.
        pfn: Pfn,
    },
    /// A frame was freed while TLB slots translated to it.
    #[error("{pfn} was freed while {slots} TLB slots translate to it")]
    Freed {
        /// The frame.
        pfn: Pfn,
        /// Slots.
        slots: u32,
    },
}

/// Events that the MMUs do not count themselves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Events {
    /// References made.
    pub references: u64,
    /// Pages touched for the first time, each after a walk that found nothing.
    pub first_touches: u64,
    /// References to addresses that are not canonical with the depth of the tables.
    pub non_canonical: u64,
}

/// Prices of what happens to a reference.
#[derive(Clone, Copy, Debug)]
pub struct Prices {
    /// A first-level miss that hits the second level.
    pub second_level_hit: Cycles,
    /// Fixed part of a walk.
    pub walk_base: Cycles,
    /// A page-table reference, by who serves it.
    pub served: [u64; Served::ALL.len()],
    /// Setting D.
    pub dirty_assist: Cycles,
}

impl Prices {
    /// Those of a machine.
    #[must_use]
    pub fn of(machine: &Machine) -> Self {
        let costs = &machine.costs;
        Prices {
            second_level_hit: costs.tlb_l2_hit,
            walk_base: costs.walk_base,
            served: costs.served(),
            dirty_assist: costs.dirty_assist,
        }
    }

    /// Cycles of one walk.
    #[inline]
    #[must_use]
    pub fn walk(&self, references: WalkReferences, assist: DirtyAssist) -> u64 {
        let assist = match assist {
            DirtyAssist::None => 0,
            DirtyAssist::Taken => self.dirty_assist.get(),
        };
        self.walk_base.get() + references.priced(&self.served) + assist
    }
}

/// The MMUs of a machine and the address space of a trace.
pub struct Engine<O> {
    setup: Setup,
    prices: Prices,
    memory: Memory,
    root: TableId,
    mmus: Vec<Mmu>,
    oracle: O,
    mapper: Mapper,
    pages: Pages,
    events: Events,
    pace: Pace,
    ahead: Ahead,
}

/// Whether the last references missed often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pace {
    Hitting,
    Missing,
}

/// The oracle and the pages' books, as the MMU's loop sees them.
struct Follower<'a, O> {
    oracle: &'a mut O,
    pages: &'a mut Pages,
}

impl<O: Oracle> Slots for Follower<'_, O> {
    #[inline]
    fn gained(&mut self, pfn: Pfn) {
        self.oracle.gained(pfn);
    }
    #[inline]
    fn dropped(&mut self, pfn: Pfn) {
        self.oracle.dropped(pfn);
    }
}

impl<O: Oracle> Frames for Follower<'_, O> {
    #[inline]
    fn generation(&self, pfn: Pfn) -> Generation {
        self.oracle.generation(pfn)
    }
}

impl<O: Oracle> Observer for Follower<'_, O> {
    #[inline]
    fn is_sound(&self, entry: &TlbEntry) -> bool {
        self.oracle.is_sound(entry)
    }
    #[inline]
    fn second_level_hit(&mut self, entry: &TlbEntry) {
        self.pages.second_level_hit(entry.pfn);
    }
}

// References read ahead together: many, since the first read of each loop is waited for; few enough that
// what they bring in (five lines each) stays in a host's second-level cache.
const AHEAD: usize = 64;
// Reading ahead costs a thirtieth of a miss, so it surely pays from one miss in this many references.
const MISS_SHARE: usize = 8;

impl<O: Oracle> Engine<O> {
    /// Nothing mapped, nothing cached.
    #[must_use]
    pub fn new(setup: Setup) -> Self {
        let mut tables = PageTables::with_mode(setup.mode);
        let root = tables.alloc();
        Engine {
            prices: Prices::of(&setup.machine),
            memory: Memory::new(&setup.machine, tables),
            root,
            mmus: Vec::new(),
            oracle: O::default(),
            mapper: Mapper::new(setup.pages, root),
            pages: Pages::default(),
            events: Events::default(),
            pace: Pace::Hitting,
            ahead: Ahead::default(),
            setup,
        }
    }

    /// Makes the references of a batch.
    ///
    /// # Errors
    /// If the trace cannot be mapped, or the oracle finds a violation.
    pub fn run(&mut self, batch: &Batch) -> Result<(), EngineError> {
        let cpu = self.cpu_of(batch.thread);
        self.events.references += batch.references.len() as u64;
        if self.setup.data == DataCaching::Through {
            return batch.references.iter().try_for_each(|&r| self.reference(cpu, r));
        }
        match self.pace {
            Pace::Hitting => {
                let missed = self.stretch(cpu, &batch.references)?;
                if missed * MISS_SHARE > batch.references.len() {
                    self.pace = Pace::Missing;
                }
            }
            Pace::Missing => {
                let mut missed = 0;
                for group in batch.references.chunks(AHEAD) {
                    self.look_ahead(cpu, group);
                    missed += self.stretch(cpu, group)?;
                }
                if missed * MISS_SHARE <= batch.references.len() {
                    self.pace = Pace::Hitting;
                }
            }
        }
        Ok(())
    }

    // The CPU of a thread, whose MMU exists afterwards.
    fn cpu_of(&mut self, thread: ThreadId) -> usize {
        let cpu = thread.0 % self.setup.machine.cpus();
        while self.mmus.len() <= cpu as usize {
            let next = CpuIndex::new(self.mmus.len() as u32);
            self.mmus.push(Mmu::new(&self.setup.machine, next, self.root));
        }
        cpu as usize
    }

    // Returns how many references did not hit the first level.
    #[inline]
    fn stretch(&mut self, cpu: usize, references: &[Reference]) -> Result<usize, EngineError> {
        let mut rest = references;
        let mut missed = 0;
        loop {
            let mut follower = Follower {
                oracle: &mut self.oracle,
                pages: &mut self.pages,
            };
            let Run { length, stop } = self.mmus[cpu].run(rest, &mut follower);
            let Some((reference, after)) = rest[length..].split_first() else {
                return Ok(missed);
            };
            self.miss(cpu, *reference, stop)?;
            missed += 1;
            rest = after;
        }
    }

    fn reference(&mut self, cpu: usize, reference: Reference) -> Result<(), EngineError> {
        let pfn = self.miss(cpu, reference, Stop::End)?;
        if let (Some(pfn), Access::Read | Access::Write) = (pfn, reference.access()) {
            self.memory
                .access_data(CpuIndex::new(cpu as u32), pfn, reference.va().page_offset());
        }
        Ok(())
    }

    // One reference, whatever it needs. Returns its frame, unless it faults for good.
    #[inline(always)]
    fn miss(&mut self, cpu: usize, reference: Reference, stop: Stop) -> Result<Option<Pfn>, EngineError> {
        let (access, va) = (reference.access(), reference.va());
        loop {
            let mmu = &mut self.mmus[cpu];
            match mmu.resume(&mut self.memory, &mut self.oracle, reference, stop) {
                Ok(translated) => {
                    match translated.found {
                        Found::First => {}
                        Found::Second => self.pages.second_level_hit(translated.entry.pfn),
                        Found::Walked {
                            after,
                            references,
                            assist,
                        } => {
                            if after == Refused::Second {
                                self.pages.second_level_hit(translated.entry.pfn);
                            }
                            let cycles = self.prices.walk(references, assist);
                            let cycles = u32::try_from(cycles).unwrap_or(u32::MAX);
                            self.pages.walked(translated.entry.pfn, cycles);
                        }
                    }
                    if !self.oracle.is_sound(&translated.entry) {
                        let (cpu, pfn) = (CpuIndex::new(cpu as u32), translated.pfn);
                        return Err(EngineError::Stale(Stale::Used { cpu, va, pfn }));
                    }
                    return Ok(Some(translated.pfn));
                }
                Err(Fault::NonCanonical { .. }) => {
                    self.events.non_canonical += 1;
                    return Ok(None);
                }
                Err(Fault::Page { .. }) => self.first_touch(cpu, access, va)?,
            }
        }
    }

    #[cold]
    fn first_touch(&mut self, cpu: usize, access: Access, va: Va) -> Result<(), EngineError> {
        self.events.first_touches += 1;
        let node = self.setup.machine.node_of(CpuIndex::new(cpu as u32));
        let mapped = self
            .mapper
            .map(&mut self.memory, &mut self.pages, va.vpn(), access, node)?;
        match mapped {
            Some(due) => self.collapse(due),
            None => Ok(()),
        }
    }

    fn collapse(&mut self, due: Due) -> Result<(), EngineError> {
        let collapsed = self.mapper.isolate(&mut self.memory, due);
        let cr3 = Cr3 {
            root: self.root,
            pcid: Pcid::ZERO,
        };
        for mmu in &mut self.mmus {
            mmu.mov_cr3(&mut self.oracle, cr3, Bit63::Clear);
        }
        self.mapper.install(&mut self.memory, &mut self.pages, due)?;
        for pfn in collapsed.frames {
            let slots = self.oracle.free(pfn);
            if slots > 0 {
                return Err(EngineError::Stale(Stale::Freed { pfn, slots }));
            }
        }
        self.ahead.forget();
        self.memory.tables.free(collapsed.table);
        Ok(())
    }

    // Reads on the host what these references will need if they miss. Each loop is short and its
    // reads do not depend on each other, so the host has as many of them under way as it can.
    fn look_ahead(&mut self, cpu: usize, references: &[Reference]) {
        let cpu = CpuIndex::new(cpu as u32);
        let tables = &self.memory.tables;
        let mut places = [(self.root, 0); AHEAD];
        let mut found = 0;
        for (reference, place) in references.iter().zip(&mut places) {
            if let Some(there) = self.ahead.place(tables, self.root, reference.va().vpn()) {
                *place = there;
                found += 1;
            }
        }
        // With pages missing or large among them, some places are read for nothing.
        let places = if found == 0 {
            &[]
        } else {
            &places[..references.len()]
        };
        let mut read = self.memory.look_ahead(cpu, places.iter().copied());
        let mut frames = [Pfn::new(0); AHEAD];
        for (&(table, index), frame) in places.iter().zip(&mut frames) {
            *frame = tables.get(table, index).pfn();
        }
        for &frame in &frames[..places.len()] {
            read ^= self.pages.look_ahead(frame) ^ self.oracle.look_ahead(frame);
        }
        std::hint::black_box(read);
    }

    /// The MMUs in use, by CPU.
    #[must_use]
    pub fn mmus(&self) -> &[Mmu] {
        &self.mmus
    }

    /// What else was counted.
    #[must_use]
    pub const fn events(&self) -> &Events {
        &self.events
    }

    /// The pages touched.
    #[must_use]
    pub const fn pages(&self) -> &Pages {
        &self.pages
    }

    /// Regions that became large pages.
    #[must_use]
    pub const fn collapses(&self) -> u64 {
        self.mapper.collapses()
    }

    /// What is simulated.
    #[must_use]
    pub const fn setup(&self) -> &Setup {
        &self.setup
    }

    /// Page tables in use.
    #[must_use]
    pub fn page_tables(&self) -> usize {
        self.memory.tables.live_tables()
    }
}
