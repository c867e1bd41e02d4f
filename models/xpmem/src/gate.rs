//! The recall gate (secondary-mmus 3.3): a signed counter of an exporting thread group.
//!
//! Negative: that many faults are inside the critical region. Positive: that many recalls are in
//! progress, from `invalidate_range_start` to its end. Many faults or many recalls at a time, never
//! both; a waiting recall keeps new faults out.

use std::cell::Cell;

use sim::{Action, Cx, Engine, Object, QueueId};

use crate::wire::{Waits, until};

/// Class of the gates among the objects of steps; the number is the exporting address space.
const GATE_OBJECT: u16 = 0x58;

pub(crate) struct Gate {
    object: Object,
    count: Cell<i64>,
    recalls_waiting: Cell<u32>,
    closed: Cell<Closed>,
    allow: QueueId,
    block: QueueId,
    sleeps: Cell<u64>,
}

/// Whether the thread group is gone.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Closed {
    No,
    ForEver,
}

/// How a fault came to the gate.
#[derive(Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(crate) enum Entered {
    /// It is inside and must leave by [`Gate::fault_exit`].
    Yes,
    /// There is nothing to fault on any more.
    Gone,
}

impl Gate {
    pub(crate) fn new(engine: &Engine, number: u64) -> Self {
        Gate {
            object: Object::Other(GATE_OBJECT, number),
            count: Cell::new(0),
            recalls_waiting: Cell::new(0),
            closed: Cell::new(Closed::No),
            allow: engine.wait_queue("xpmem allow_recall_wq"),
            block: engine.wait_queue("xpmem block_recall_wq"),
            sleeps: Cell::new(0),
        }
    }

    /// Sleeps so far, and forgets them.
    pub(crate) fn sleeps(&self) -> &Cell<u64> {
        &self.sleeps
    }

    fn faults_may_enter(&self) -> bool {
        self.recalls_waiting.get() == 0 && self.count.get() <= 0
    }

    fn is_closed(&self) -> bool {
        self.closed.get() == Closed::ForEver
    }

    /// A fault enters, sleeping while recalls are in progress or waiting.
    pub(crate) async fn fault_enter(&self, cx: &Cx) -> Entered {
        cx.step(self.object, Action::Write).await;
        if !self.faults_may_enter() && !self.is_closed() {
            let _span = cx.span("xpmem_wait_for_recall");
            self.sleeps.set(self.sleeps.get() + 1);
            let ready = || self.faults_may_enter() || self.is_closed();
            until(cx, self.block, Waits::Gate, ready).await;
        }
        if self.is_closed() {
            return Entered::Gone;
        }
        self.count.set(self.count.get() - 1);
        Entered::Yes
    }

    /// A fault leaves; anybody may do that on its behalf.
    pub(crate) fn fault_exit(&self, cx: &Cx) {
        debug_assert!(self.count.get() < 0, "a fault leaves that never entered");
        self.count.set(self.count.get() + 1);
        if self.count.get() == 0 {
            cx.engine().wake_all(self.allow);
        }
    }

    /// `invalidate_start` begins: sleeps until no fault is inside.
    pub(crate) async fn recall_begin(&self, cx: &Cx) {
        cx.step(self.object, Action::Write).await;
        if self.count.get() < 0 {
            let _span = cx.span("xpmem_disallow_faults");
            self.sleeps.set(self.sleeps.get() + 1);
            self.recalls_waiting.set(self.recalls_waiting.get() + 1);
            until(cx, self.allow, Waits::Gate, || self.count.get() >= 0).await;
            self.recalls_waiting.set(self.recalls_waiting.get() - 1);
        }
        self.count.set(self.count.get() + 1);
    }

    /// `invalidate_end`.
    pub(crate) async fn recall_end(&self, cx: &Cx) {
        cx.step(self.object, Action::Write).await;
        if self.count.get() <= 0 {
            let text = "a recall of an XPMEM export ends that never began".to_owned();
            cx.engine().violate(mm::notifier::UNBALANCED_BRACKET, text, None);
            return;
        }
        self.count.set(self.count.get() - 1);
        if self.count.get() == 0 {
            cx.engine().wake_all(self.block);
        }
    }

    /// The thread group is gone: whoever waits to fault learns it.
    pub(crate) fn close(&self, cx: &Cx) {
        self.closed.set(Closed::ForEver);
        cx.engine().wake_all(self.block);
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use sim::{Affinity, CpuId, End, EngineConfig, Role, Schedule, Seeded, TaskSpec};

    use super::*;

    #[test]
    fn the_end_of_a_recall_that_never_began_is_a_violation() {
        let engine = Engine::new(
            EngineConfig::without_costs(1),
            Schedule::Timed(Box::new(Seeded::new(1))),
        );
        let gate = Rc::new(Gate::new(&engine, 0));
        let spec = TaskSpec {
            name: "main".into(),
            cpu: CpuId::new(0),
            affinity: Affinity::Pinned,
            role: Role::Worker,
        };
        let g = Rc::clone(&gate);
        engine.spawn(spec, |cx| async move { g.recall_end(&cx).await });
        assert!(matches!(engine.run(), End::Violation(_)));
        assert_eq!(gate.count.get(), 0);
    }
}
