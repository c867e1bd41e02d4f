//! The mmu notifier core: who is told what, when, and under which protection.
//!
//! The mm paths announce labelled points; the [`Design`] says which of them call which callback.
//! Follows mm/mmu_notifier.c and the call sites of 2.6.27 (notifier-variants V8, host-mm-paths B.0)
//! for the merged design; the other designs are other tables over the same paths.
//!
//! Guarantees to a subscriber: it is called between its registration and its unregistration only;
//! callbacks of one point run one after the other, in list order (newest first); a bracket that
//! told it `invalidate_range_start` tells it `invalidate_range_end` (checked); whether it may sleep
//! is the design's to say and the context tracker's to enforce.

mod design;
mod register;
mod traverse;

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;

use sim::{Account, Cx};
use x86::{Pfn, Va, VaRange};

use crate::account;
use crate::mm::MmId;
use crate::watch::Life;

pub(crate) use design::Table;
pub use design::{
    Binding, Carries, Design, Knob, Needs, Path, PinAbility, Point, Registration, Sleepable, Traversal,
};
pub use traverse::{Bracket, CALLBACK_AFTER_RELEASE, UNBALANCED_BRACKET};

/// What a point calls.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum Callback {
    /// One page: the pte is clear (and flushed, by design), the frame still allocated.
    InvalidatePage,
    /// A block of ptes under the pte lock (V1's `invalidate_pages`).
    InvalidatePages,
    /// A bracket opens: ptes are still there; drop, drain, and map nothing in the range until the end.
    InvalidateRangeStart,
    /// A bracket closes.
    InvalidateRangeEnd,
    /// The address space goes away.
    Release,
    /// Was the page used since it was last asked? Its translation is not young any more (`age_page` of V1).
    ClearFlushYoung,
}

impl Callback {
    /// All callbacks, in the order of reports.
    pub const ALL: [Callback; 6] = [
        Callback::InvalidatePage,
        Callback::InvalidatePages,
        Callback::InvalidateRangeStart,
        Callback::InvalidateRangeEnd,
        Callback::Release,
        Callback::ClearFlushYoung,
    ];

    /// Name in reports and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Callback::InvalidatePage => "invalidate_page",
            Callback::InvalidatePages => "invalidate_pages",
            Callback::InvalidateRangeStart => "invalidate_range_start",
            Callback::InvalidateRangeEnd => "invalidate_range_end",
            Callback::Release => "release",
            Callback::ClearFlushYoung => "clear_flush_young",
        }
    }
}

/// Kind of a secondary MMU.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum MmuKind {
    /// KVM.
    Kvm,
    /// SGI GRU.
    Gru,
    /// XPMEM.
    Xpmem,
    /// A device described by the user.
    Device,
}

impl MmuKind {
    /// Name in scenarios and reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            MmuKind::Kvm => "kvm",
            MmuKind::Gru => "gru",
            MmuKind::Xpmem => "xpmem",
            MmuKind::Device => "device",
        }
    }

    /// Account of its callbacks.
    #[must_use]
    pub const fn account(self) -> Account {
        match self {
            MmuKind::Kvm => account::CALLBACK_KVM,
            MmuKind::Gru => account::CALLBACK_GRU,
            MmuKind::Xpmem => account::CALLBACK_XPMEM,
            MmuKind::Device => account::CALLBACK_DEVICE,
        }
    }
}

/// Whether a translation was used since it was last asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Young {
    /// It was not, or it cannot be told.
    No,
    /// It was.
    Yes,
}

/// A running question for the age of a translation.
pub type AgeFuture<'a> = Pin<Box<dyn Future<Output = Young> + 'a>>;

/// A running callback.
pub type CallbackFuture<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

/// A secondary MMU as the notifier core sees it (`struct mmu_notifier_ops`). The lower layer owns
/// the trait, the devices implement it.
pub trait Subscriber {
    /// Name in the scenario.
    fn name(&self) -> Rc<str>;

    /// Kind.
    fn kind(&self) -> MmuKind;

    /// Drop the translation of one page and drain before returning.
    fn invalidate_page<'a>(&'a self, cx: &'a Cx, at: Va) -> CallbackFuture<'a>;

    /// Drop and drain a range, and map nothing in it until the matching end.
    fn invalidate_range_start<'a>(&'a self, cx: &'a Cx, range: VaRange) -> CallbackFuture<'a>;

    /// Faults in the range may be served again.
    fn invalidate_range_end<'a>(&'a self, cx: &'a Cx, range: VaRange) -> CallbackFuture<'a>;

    /// V1's `invalidate_pages`: drop and drain a block whose ptes are clear already, or still there
    /// but with fewer rights, under the pte lock. Like a start without a window.
    fn invalidate_pages<'a>(&'a self, cx: &'a Cx, range: VaRange) -> CallbackFuture<'a>;

    /// Whether the translation of a page was used since it was last asked; from now on it was not. Who
    /// cannot tell says no.
    fn clear_flush_young<'a>(&'a self, _cx: &'a Cx, _at: Va) -> AgeFuture<'a> {
        Box::pin(std::future::ready(Young::No))
    }

    /// The address space goes away: drop everything.
    fn release<'a>(&'a self, cx: &'a Cx) -> CallbackFuture<'a>;

    /// Whether it can still reach a frame by a translation without a reference; evidence for
    /// violations.
    fn reaches(&self, pfn: Pfn) -> bool;
}

/// A registered (or once registered) subscriber.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SubscriptionId(pub(crate) u32);

/// Calls of one callback and the time spent in them.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct CallCount {
    /// Calls.
    pub calls: u64,
    /// Cycles inside, waits included.
    pub cycles: u64,
}

/// A subscriber with its address space and what it was told.
pub struct Subscription {
    /// The device.
    pub handler: Rc<dyn Subscriber>,
    /// The address space.
    pub mm: MmId,
    pub(crate) life: Cell<Life>,
    counts: [Cell<CallCount>; Callback::ALL.len()],
}

impl Subscription {
    pub(crate) fn new(handler: Rc<dyn Subscriber>, mm: MmId) -> Self {
        Subscription {
            handler,
            mm,
            life: Cell::new(Life::Listening),
            counts: Default::default(),
        }
    }

    fn count(&self, callback: Callback, cycles: u64) {
        let cell = &self.counts[callback as usize];
        let c = cell.get();
        cell.set(CallCount {
            calls: c.calls + 1,
            cycles: c.cycles + cycles,
        });
    }

    pub(crate) fn reset_counts(&self) {
        self.counts.iter().for_each(|c| c.set(CallCount::default()));
    }

    /// What it was told so far.
    pub fn counts(&self) -> impl Iterator<Item = (Callback, CallCount)> + '_ {
        Callback::ALL.into_iter().zip(self.counts.iter().map(Cell::get))
    }
}
