//! Means to break things: a place in a script, a lock put in another's place, a subscriber with intentions.

use std::cell::Cell;
use std::rc::Rc;

use mm::Kernel;
use mm::lock_order::{HostLock, row_of};
use mm::notifier::{CallbackFuture, MmuKind, Subscriber};
use sim::{Cx, Cycles, LockId};
use x86::{Pfn, Va, VaRange};

use crate::common::wait;

/// Whether a test meddles, or is the twin that does not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Meddling {
    Yes,
    No,
}

/// Cycles between two looks.
const PACE: u64 = 200;

/// How far a script has come; clones share it.
#[derive(Clone, Default)]
pub(crate) struct Step(Rc<Cell<u32>>);

impl Step {
    pub(crate) fn reach(&self, n: u32) {
        self.0.set(n);
    }

    pub(crate) fn now(&self) -> u32 {
        self.0.get()
    }

    pub(crate) async fn wait_for(&self, cx: &Cx, n: u32) {
        while self.0.get() < n {
            wait(cx, PACE).await;
        }
    }
}

/// Another lock of a class.
pub(crate) fn another(k: &Kernel, of: HostLock) -> LockId {
    let class = k.engine().lock_class(row_of(of, &k.profile).class());
    k.engine().new_lock(class)
}

/// Holds a lock from `step + 1` on until somebody waits for it, does something, and lets go.
pub(crate) async fn until_waited_for(cx: &Cx, lock: LockId, step: &Step, then: impl FnOnce()) {
    let held = cx.lock(lock).await;
    step.reach(step.now() + 1);
    while !cx.is_contended(lock) {
        wait(cx, PACE).await;
    }
    then();
    drop(held);
}

type Deed = Box<dyn Fn()>;

/// A subscriber that does something while it is told.
pub(crate) struct Meddler {
    pub(crate) name: &'static str,
    pub(crate) at_start: Deed,
    sleeps_at_end: bool,
}

impl Meddler {
    pub(crate) fn new(name: &'static str, at_start: impl Fn() + 'static) -> Rc<Self> {
        Rc::new(Meddler {
            name,
            at_start: Box::new(at_start),
            sleeps_at_end: false,
        })
    }

    /// One that sleeps when it hears the end of a range.
    pub(crate) fn sleeping(name: &'static str) -> Rc<Self> {
        Rc::new(Meddler {
            name,
            at_start: Box::new(|| {}),
            sleeps_at_end: true,
        })
    }

    pub(crate) fn idle(name: &'static str) -> Rc<Self> {
        Meddler::new(name, || {})
    }
}

fn nothing() -> CallbackFuture<'static> {
    Box::pin(async {})
}

impl Subscriber for Meddler {
    fn name(&self) -> Rc<str> {
        self.name.into()
    }

    fn kind(&self) -> MmuKind {
        MmuKind::Device
    }

    fn invalidate_page<'a>(&'a self, _: &'a Cx, _: Va) -> CallbackFuture<'a> {
        nothing()
    }

    fn invalidate_range_start<'a>(&'a self, _: &'a Cx, _: VaRange) -> CallbackFuture<'a> {
        (self.at_start)();
        nothing()
    }

    fn invalidate_range_end<'a>(&'a self, cx: &'a Cx, _: VaRange) -> CallbackFuture<'a> {
        Box::pin(async {
            if self.sleeps_at_end {
                cx.sleep(Cycles::new(PACE)).await;
            }
        })
    }

    fn invalidate_pages<'a>(&'a self, _: &'a Cx, _: VaRange) -> CallbackFuture<'a> {
        nothing()
    }

    fn release<'a>(&'a self, _: &'a Cx) -> CallbackFuture<'a> {
        nothing()
    }

    fn reaches(&self, _: Pfn) -> bool {
        false
    }
}
