//! XPMEM: processes of one Linux partition map memory of a process of another one.
//!
//! # What is modelled
//!
//! SGI's driver as posted on 2008-04-01 (tag XP08 of secondary-mmus 7), completed by the
//! cross-partition half that was never posted and is known from mails only (R. Holt 2008-05-08,
//! -13, -14; J. Steiner 2010-01-25; secondary-mmus 3.5). The exporter offers *segments* of its
//! address space and keeps a PFN table of the pages it gave away, each with a page reference. The
//! importer *attaches* segments: driver mappings of its own address space, whose entries point at
//! the exporter's frames and are cached by the importer's CPU TLBs like any other.
//!
//! # Protocol
//!
//! *Import fault.* The importer's access finds no entry. It looks its mapping up, lets go of its
//! locks, and asks the exporting partition. There a kernel thread takes the exporter's mmap_sem for
//! read, enters the recall gate (module `gate`), and looks into the PFN table. If the page is unknown it
//! publishes a page request, leaves the gate (get_user_pages may copy on write, and that recalls),
//! gets the page, enters the gate again, and stores it if no recall marked the request invalid
//! meanwhile; four failures are answered with EAGAIN. The answer carries the frame, and **the fault
//! stays inside the gate**: only when the importer has set its entry, under its mmap_sem and
//! att->mutex, and has said so by a message of its own, does the exporter count it out. Hence a
//! recall never passes an answer that is still on its way.
//!
//! *Recall.* `invalidate_range_start` closes the gate (waits until all faults are out, keeps new ones
//! out), takes recall_PFNs_mutex, marks overlapping page requests invalid, and for each segment with
//! known pages in the range takes seg->sema for write, sends a message, and sleeps until the
//! importing partition acknowledges that its entries are cleared and its TLBs flushed: delivery
//! alone proves nothing. Then the references are dropped (before the callback returns), and
//! `invalidate_range_end` opens the gate. IDLE, SENDING, WAIT_ACK, UNPIN, DRAINED are the states of a
//! segment. The importer's kernel thread takes the importer's mmap_sem for read and att->mutex and
//! zaps, which raises the notifiers of the importer's own address space.
//!
//! *Threads.* Each partition has two XPC threads: one for calls that may sleep, one for messages that
//! only wake somebody. So an acknowledgement is never stuck behind a fault that waits for the very
//! mmap_sem whose holder waits for the acknowledgement.
//!
//! *Lock order.* Exporter: mmap_sem, (gate), recall_PFNs_mutex, seg->sema, seg->PFNtable_mutex.
//! Importer: mmap_sem, att->mutex, pte lock.
//!
//! Every step of a recall may sleep, which is why the merged notifier (V8) cannot carry XPMEM and
//! the sleepable series (V9) was written (secondary-mmus 3.6).
//!
//! # Deviations
//!
//! - The posted fault path holds the importer's mmap_sem, seg->sema and att->mutex across
//!   get_user_pages, and backs off the second mmap_sem by address order. Across partitions nothing is
//!   held while a message is under way, and the gate is entered before seg->sema, so the cross-lock
//!   R-X7 is only left where two processes import from each other and both unmap.
//! - VALIDPTES is only cleared when the whole attachment was zapped, as later versions do; clearing it
//!   always loses recalls (R-X6).
//! - Removal of a segment takes recall_PFNs_mutex like a recall, so the two never meet on one segment.
//! - Pages are unpinned in place, there are no nodes and no work queue; the cost of recalling their
//!   cache lines is charged.
//! - `clear_flush_young` does not exist for it, as the driver ignores "referenced".
//! - One segment group, one importer: a link. Messages are not lost and partitions do not die.

mod costs;
mod export;
mod gate;
mod import;
mod metrics;
mod segment;
mod wire;

use std::cell::RefCell;
use std::rc::Rc;

use mm::notifier::{CallbackFuture, MmuKind, Needs, PinAbility, Sleepable, Subscriber};
use mm::{Kernel, MmId, Refused};
use sim::{Affinity, CpuId, Cx, Cycles, Role, TaskSpec};
use x86::{Access, Pfn, Va, VaRange};

use crate::export::Export;
use crate::import::Import;
pub use crate::metrics::XpmemMetrics;
pub use crate::segment::LOCKS;
use crate::wire::{Slot, Slots};

/// What XPMEM needs of a notifier design: its callbacks sleep; without them it can keep pins, "for 7
/// years" it did (notifier-variants 3).
pub const NEEDS: Needs = Needs {
    sleeps: Sleepable::Yes,
    pins: PinAbility::CanPin,
};

/// Whether the PFN table holds a reference to each page.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Pins {
    /// It does, as the driver always did (secondary-mmus 0.4).
    #[default]
    Held,
    /// It does not: the notifier alone keeps the importer from freed frames (notifier-variants V9,
    /// "XPMEM can use it without pins").
    None,
}

/// How the exporter learns of changes of its address space.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Mode {
    /// By the notifier; the link is to be registered with the exporter's address space.
    #[default]
    Notified,
    /// Not at all, because the design cannot carry it: pages stay pinned until the importer detaches or
    /// the link is destroyed, and the importer sees stale data (notifier-variants V8.7). Implies
    /// [`Pins::Held`].
    PinsOnly,
}

/// A link between two processes.
#[derive(Clone, Debug)]
pub struct XpmemConfig {
    /// Name in the scenario.
    pub name: Rc<str>,
    /// What is exported, in the exporter's addresses; pages are numbered over all of them.
    pub segments: Vec<VaRange>,
    /// Round trip of a message and its answer, without the work in between. No figure was published;
    /// 20 to 60 us suggested (secondary-mmus 3.9).
    pub rtt: Cycles,
    /// References.
    pub pins: Pins,
    /// Registered or not.
    pub mode: Mode,
}

/// A link: segments of an exporting process and their attachments in an importing one.
pub struct Xpmem {
    config: XpmemConfig,
    export: Export,
    import: Import,
    metrics: RefCell<XpmemMetrics>,
}

impl Xpmem {
    /// Makes the segments (`xpmem_make`) and starts the XPC threads of both partitions.
    #[must_use]
    pub fn new(
        exporter: &Rc<Kernel>,
        mm: MmId,
        importer: &Rc<Kernel>,
        importer_mm: MmId,
        config: XpmemConfig,
        xpc_cpu_exporter: CpuId,
        xpc_cpu_importer: CpuId,
    ) -> Rc<Xpmem> {
        let link = Rc::new(Xpmem {
            export: Export::new(exporter, mm, &config.segments),
            import: Import::new(importer, importer_mm, config.segments.len()),
            metrics: RefCell::default(),
            config,
        });
        let spec = |thread: &str, cpu| TaskSpec {
            name: format!("xpc/{}/{thread}", link.config.name).into(),
            cpu,
            affinity: Affinity::Pinned,
            role: Role::Daemon,
        };
        let engine = exporter.engine();
        let l = Rc::clone(&link);
        engine.spawn(spec("calls", xpc_cpu_exporter), |cx| l.exporter_calls(cx));
        let l = Rc::clone(&link);
        engine.spawn(spec("notes", xpc_cpu_exporter), |cx| l.exporter_notes(cx));
        let l = Rc::clone(&link);
        engine.spawn(spec("recalls", xpc_cpu_importer), |cx| l.importer_recalls(cx));
        let l = Rc::clone(&link);
        engine.spawn(spec("answers", xpc_cpu_importer), |cx| l.importer_answers(cx));
        link
    }

    /// `xpmem_get` and `xpmem_attach` of every segment, by a task of the importer. Without an exporter
    /// nothing is attached and every access is refused.
    ///
    /// # Panics
    /// When the importer's address space has no room.
    pub async fn attach(&self, cx: &Cx) {
        let attached = self.attach_all(cx).await;
        attached.expect("an address space has room for its attachments");
    }

    /// A load or store by a task of the importer; `page` counts over all segments.
    ///
    /// # Errors
    /// When the page is not attached any more, or the exporter has no such page.
    pub async fn access(&self, cx: &Cx, page: u64, access: Access) -> Result<(), Refused> {
        let (segment, page) = self.locate(page).ok_or(Refused::NoMapping)?;
        self.access_page(cx, segment, page, access).await
    }

    /// `xpmem_detach` of everything and `xpmem_release`, by a task of the importer: its entries go,
    /// then the exporter's references.
    pub async fn detach(&self, cx: &Cx) {
        self.detach_all(cx).await;
    }

    /// `xpmem_remove` of everything, by a task of the exporter: what closing the device does after the
    /// address space is gone. The importer's entries are recalled first.
    pub async fn destroy(&self, cx: &Cx) {
        self.remove_segments(cx).await;
        self.wait_until_idle(cx).await;
    }

    /// Pages of all segments.
    #[must_use]
    pub fn pages(&self) -> u64 {
        self.config.segments.iter().map(VaRange::pages).sum()
    }

    /// Where a page is attached in the importer's address space.
    #[must_use]
    pub fn address_of(&self, page: u64) -> Option<Va> {
        let (segment, page) = self.locate(page)?;
        self.attached_at(segment, page)
    }

    /// Counters so far.
    #[must_use]
    pub fn metrics(&self) -> XpmemMetrics {
        let mut metrics = self.metrics.borrow().clone();
        metrics.gate_sleeps = self.export.gate.sleeps().get();
        metrics
    }

    /// Forgets what was counted so far; what happened before was preparation.
    pub fn start_measuring(&self) {
        let known = self.known();
        *self.metrics.borrow_mut() = XpmemMetrics {
            pages_known_max: known,
            ..XpmemMetrics::default()
        };
        self.export.gate.sleeps().set(0);
    }

    fn locate(&self, page: u64) -> Option<(usize, u64)> {
        let mut left = page;
        for (number, range) in self.config.segments.iter().enumerate() {
            if left < range.pages() {
                return Some((number, left));
            }
            left -= range.pages();
        }
        None
    }

    pub(crate) fn count(&self, change: impl FnOnce(&mut XpmemMetrics)) {
        change(&mut self.metrics.borrow_mut());
    }

    /// Half a round trip.
    pub(crate) fn one_way(&self) -> Cycles {
        Cycles::new(self.config.rtt.get() / LEGS_OF_A_ROUND_TRIP)
    }

    /// Writing a message and raising the interrupt.
    pub(crate) fn send_interrupt(&self, cx: &Cx, kernel: &Kernel) {
        kernel.touch_lines(cx, costs::MESSAGE_LINES);
        cx.charge(mm::account::BOOKKEEPING, kernel.machine.costs.icr_write);
    }

    /// The interrupt of a message, and reading it.
    pub(crate) fn receive_interrupt(&self, cx: &Cx, kernel: &Kernel) {
        cx.charge(
            mm::account::BOOKKEEPING,
            kernel.machine.costs.interrupt_entry_exit,
        );
        kernel.touch_lines(cx, costs::MESSAGE_LINES);
    }

    /// A message slot, sleeping a jiffy at a time until one is free.
    pub(crate) async fn take_slot<A>(&self, cx: &Cx, slots: &Slots<A>) -> Rc<Slot<A>> {
        loop {
            if let Some(slot) = slots.take() {
                return slot;
            }
            self.count(|m| m.slot_sleeps += 1);
            cx.sleep(costs::jiffy(&self.export.kernel.machine)).await;
        }
    }
}

/// There and back.
const LEGS_OF_A_ROUND_TRIP: u64 = 2;

impl Subscriber for Xpmem {
    fn name(&self) -> Rc<str> {
        Rc::clone(&self.config.name)
    }

    fn kind(&self) -> MmuKind {
        MmuKind::Xpmem
    }

    fn invalidate_page<'a>(&'a self, cx: &'a Cx, at: Va) -> CallbackFuture<'a> {
        Box::pin(async move {
            let _span = cx.span("xpmem_invalidate_page");
            self.recall_range(cx, VaRange::page_of(at)).await;
            self.end_recall(cx, VaRange::page_of(at)).await;
        })
    }

    fn invalidate_range_start<'a>(&'a self, cx: &'a Cx, range: VaRange) -> CallbackFuture<'a> {
        Box::pin(async move {
            let _span = cx.span("xpmem_invalidate_range_start");
            self.recall_range(cx, range).await;
        })
    }

    fn invalidate_range_end<'a>(&'a self, cx: &'a Cx, range: VaRange) -> CallbackFuture<'a> {
        Box::pin(async move {
            let _span = cx.span("xpmem_invalidate_range_end");
            self.end_recall(cx, range).await;
        })
    }

    fn invalidate_pages<'a>(&'a self, cx: &'a Cx, range: VaRange) -> CallbackFuture<'a> {
        Box::pin(async move {
            let _span = cx.span("xpmem_invalidate_pages");
            self.recall_range(cx, range).await;
            self.end_recall(cx, range).await;
        })
    }

    fn release<'a>(&'a self, cx: &'a Cx) -> CallbackFuture<'a> {
        Box::pin(async move {
            let _span = cx.span("xpmem_release");
            self.remove_segments(cx).await;
        })
    }

    fn reaches(&self, pfn: Pfn) -> bool {
        self.holds_pins() == Pins::None && self.export.segments.iter().any(|s| s.holds(pfn))
    }
}
