//! The SGI GRU: a user-mode memory accelerator in the UV hub with a software-filled TLB in every
//! chiplet.
//!
//! Follows drivers/misc/sgi-gru of 2.6.27/2.6.28 (grumain.c, grufault.c, grutlbpurge.c, gruhandles.h;
//! secondary-mmus 2, notifier-variants 3.2). User instructions carry virtual addresses; each miss traps
//! to a CPU, which reads the host page table and *drops in* an entry. There is no table behind the TLB,
//! so there is no place for a page reference: the GRU **never pins**, and lives under no design that
//! notifies nobody.
//!
//! The protocol. A bracket counts `ms_range_active` up, purges, and counts down at its end; no drop-in
//! happens while any window of the address space is open. A miss in interrupt context may not sleep:
//! it tries mmap_sem, looks at the counter, reads the entry without any lock, and drops it in; if any of
//! that fails it leaves the miss to the user's next poll, which enters the kernel and sleeps until no
//! window is open (still holding mmap_sem for read and the context's mutex). What closes the remaining
//! race - entry read, page unmapped and purged, drop-in - is the hardware: **a drop-in is ignored if a
//! purge of the same identifier happened since the fault handle was read** ([`DropinCancel`] turns that
//! off to show what then happens).
//!
//! A purge goes to the chiplets where the address space has a context loaded, one after the other,
//! under `ms_asid_lock` with preemption off; elsewhere the identifier is forgotten, which costs nothing
//! now and all its misses later.
//!
//! `release` only marks the address space as gone: entries stay, and on exit pages are freed under them
//! until the contexts are unloaded (notifier-variants 10.26b). [`Gru::destroy`] is the unloading; a
//! process that calls it before its address space goes is safe, one that does not is the violation.
//!
//! Deviations from the driver:
//! * A chiplet serves one address space: purges and identifier wraps of other processes are not seen.
//! * Purge handles: one a chiplet instead of 24 chosen by CPU or at random. Within an address space
//!   `ms_asid_lock` admits one flush at a time anyway.
//! * When a chiplet is full, the context that makes room belongs to the same address space; there is no
//!   LRU hand and no delay of 200 ms.
//! * A thread's miss is handled on its own CPU, at once; queueing in the fault map is not modelled.
//! * Base pages only, no preloading, no messages to GRU memory.
//! * `gru_fault` of 2.6.28 takes a mutex with preemption off; here it does not.

mod asid;
mod context;
pub mod costs;
mod fault;
mod flush;
mod metrics;
mod tlb;

use std::cell::{RefCell, RefMut};
use std::collections::BTreeMap;
use std::rc::Rc;

use mm::lock_order::{LockRow, SECONDARY, SECONDARY_INNER, SECONDARY_LEAF};
use mm::notifier::{Needs, PinAbility, Sleepable};
use mm::{Kernel, MmId};
use sim::{ClassId, LockId, LockKind, QueueId, TaskId};
use x86::{Pfn, Vpn};

pub use asid::GruAsid;
pub use metrics::GruMetrics;

use asid::{AsidGeneration, AsidSpace};
use tlb::GruTlb;

/// What the GRU needs of a notifier design: callbacks that need not sleep, but callbacks it must have.
pub const NEEDS: Needs = Needs {
    sleeps: Sleepable::No,
    pins: PinAbility::CannotPin,
};

/// Class of GRU state among the objects of steps ([`sim::Object::Other`]); the number within it is the
/// chiplet's.
pub const STEP_OBJECT: u16 = 0x6772;

/// Who serves a TLB miss first (secondary-mmus 2.3).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum MissMode {
    /// An interrupt handler; it leaves to polling what it cannot serve.
    Interrupt,
    /// The user, who polls the instruction's status and enters the kernel.
    UserPolling,
}

/// Whether the hardware ignores a drop-in that a purge crossed (secondary-mmus R-G1).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum DropinCancel {
    /// As built.
    On,
    /// A GRU without the rule, as a seeded bug.
    Off,
}

/// How to create a GRU.
#[derive(Clone, Debug)]
pub struct GruConfig {
    /// Name in the scenario.
    pub name: Rc<str>,
    /// Chiplets the address space can use.
    pub chiplets: u32,
    /// Misses.
    pub miss: MissMode,
    /// Drop-ins.
    pub dropin_cancel: DropinCancel,
}

/// `ms_asids[gid]`, the address space's identifier on one chiplet, and the chiplet itself.
///
/// NONE: no identifier. LOADED: identifier and contexts. PARKED: identifier, no context.
#[derive(Debug)]
struct Chiplet {
    tlb: GruTlb,
    asids: AsidSpace,
    asid: Option<GruAsid>,
    generation: AsidGeneration,
    /// Contexts loaded (`mt_ctxbitmap`, counted).
    contexts: u32,
    /// Owners of stolen contexts that have not noticed yet.
    stolen: u32,
    /// Purges of the present identifier, as the drop-in logic sees them.
    purges: u64,
}

#[derive(Debug)]
struct State {
    chiplets: Vec<Chiplet>,
    /// `ms_range_active`.
    range_active: u64,
    life: Life,
    /// `ts_ctxlock` of each thread state, one a (thread, chiplet).
    ctxlocks: BTreeMap<(TaskId, u32), LockId>,
    metrics: GruMetrics,
}

/// Life of the `gru_mm_struct`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Life {
    Serving,
    /// `ms_released`: the address space goes away.
    Released,
    Destroyed,
}

const GRU_LOCKS: &str = "secondary-mmus 2.5";

/// Mutex of a thread's state, inside mmap_sem or without it; no callback takes it.
const TS_CTXLOCK: LockRow = LockRow::single("ts_ctxlock", None, LockKind::Mutex, GRU_LOCKS);
/// Callbacks take it, perhaps under a pte lock.
const MS_ASID_LOCK: LockRow = LockRow::single("ms_asid_lock", Some(SECONDARY), LockKind::Spin, GRU_LOCKS);
const GS_ASID_LOCK: LockRow =
    LockRow::single("gs_asid_lock", Some(SECONDARY_INNER), LockKind::Spin, GRU_LOCKS);
const TGH_LOCK: LockRow = LockRow::single("tgh_lock", Some(SECONDARY_LEAF), LockKind::Spin, GRU_LOCKS);

/// The GRU driver's lock classes.
pub const LOCKS: [LockRow; 4] = [MS_ASID_LOCK, GS_ASID_LOCK, TGH_LOCK, TS_CTXLOCK];

#[derive(Debug)]
struct Locks {
    ms_asid_lock: LockId,
    gs_asid_locks: Vec<LockId>,
    tgh_locks: Vec<LockId>,
    ts_ctxlock: ClassId,
}

/// The GRU as one address space sees it: its `gru_mm_struct`, thread states and chiplets.
pub struct Gru {
    kernel: Rc<Kernel>,
    mm: MmId,
    config: GruConfig,
    locks: Locks,
    /// `ms_wait_queue`.
    wait_queue: QueueId,
    state: RefCell<State>,
}

impl Gru {
    /// A GRU without loaded contexts. It hears of invalidations once the caller registers it with
    /// [`Kernel::mmu_notifier_register`].
    ///
    /// # Panics
    /// If it is to have no chiplet.
    #[must_use]
    pub fn new(kernel: &Rc<Kernel>, mm: MmId, config: GruConfig) -> Rc<Self> {
        assert!(config.chiplets > 0, "a GRU has at least one chiplet");
        let engine = kernel.engine();
        let class = |row: &LockRow| engine.lock_class(row.class());
        let each = |row| {
            let class = class(row);
            (0..config.chiplets).map(|_| engine.new_lock(class)).collect()
        };
        let locks = Locks {
            ms_asid_lock: engine.new_lock(class(&MS_ASID_LOCK)),
            gs_asid_locks: each(&GS_ASID_LOCK),
            tgh_locks: each(&TGH_LOCK),
            ts_ctxlock: class(&TS_CTXLOCK),
        };
        let chiplet = || {
            let asids = AsidSpace::new();
            Chiplet {
                tlb: GruTlb::new(),
                generation: asids.generation(),
                asids,
                asid: None,
                contexts: 0,
                stolen: 0,
                purges: 0,
            }
        };
        let state = State {
            chiplets: (0..config.chiplets).map(|_| chiplet()).collect(),
            range_active: 0,
            life: Life::Serving,
            ctxlocks: BTreeMap::new(),
            metrics: GruMetrics::default(),
        };
        Rc::new(Gru {
            kernel: Rc::clone(kernel),
            mm,
            wait_queue: engine.wait_queue("ms_wait_queue"),
            config,
            locks,
            state: RefCell::new(state),
        })
    }

    /// Counters so far.
    #[must_use]
    pub fn metrics(&self) -> GruMetrics {
        self.state.borrow().metrics.clone()
    }

    /// The address space it works in.
    #[must_use]
    pub fn mm(&self) -> MmId {
        self.mm
    }

    /// How it was created.
    #[must_use]
    pub fn config(&self) -> &GruConfig {
        &self.config
    }

    /// The identifier the address space holds on a chiplet, with or without a loaded context.
    #[must_use]
    pub fn asid(&self, chiplet: u32) -> Option<GruAsid> {
        self.state.borrow().chiplets[chiplet as usize].asid
    }

    /// Contexts of the address space loaded on a chiplet.
    #[must_use]
    pub fn contexts(&self, chiplet: u32) -> u32 {
        self.state.borrow().chiplets[chiplet as usize].contexts
    }

    /// Entries of a chiplet's TLB that can still be used.
    #[must_use]
    pub fn live_entries(&self, chiplet: u32) -> usize {
        self.state.borrow().chiplets[chiplet as usize].tlb.live()
    }

    /// State, never held across an await.
    fn st(&self) -> RefMut<'_, State> {
        self.state.borrow_mut()
    }

    fn unmapped(&self) -> impl FnMut(Pfn) + '_ {
        |pfn| self.kernel.secondary_unmapped(pfn)
    }
}

impl Chiplet {
    /// Hardware forgets what it knows of some pages of the present identifier.
    fn purge(&mut self, asid: GruAsid, what: Purge, dropped: &mut impl FnMut(Pfn)) -> u64 {
        self.purges += 1;
        match what {
            Purge::Pages(first, pages) => self.tlb.purge_range(asid, first, pages, dropped),
            Purge::WholeAsid => self.tlb.purge_asid(asid, dropped),
        }
    }

    /// The identifier is given up; its entries die with it.
    fn forget_asid(&mut self, dropped: &mut impl FnMut(Pfn)) -> u64 {
        self.asid = None;
        self.purges += 1;
        self.tlb.forget(dropped)
    }
}

/// Extent of an invalidate command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Purge {
    Pages(Vpn, u64),
    WholeAsid,
}
