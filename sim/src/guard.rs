//! Preemption and interrupt state of a task.

use crate::Cx;
use crate::ViolationKind;
use crate::context::{Held, HeldKind};
use crate::inner::EventKind;

impl Cx {
    /// `might_sleep`: reports a violation when called in atomic context.
    #[inline]
    pub fn might_sleep(&self, what: &str) {
        let mut inner = self.engine.inner.borrow_mut();
        let task = &inner.tasks[self.task.index()];
        if task.atomic_depth == 0 && task.irq_depth == 0 {
            return;
        }
        let text = format!("{} may sleep in atomic context: {what}", task.innermost_span());
        inner.now = self.engine.clock.get();
        inner.violate(self.task, ViolationKind::SleepInAtomic, text, None);
        drop(inner);
        self.engine.refresh_horizon();
    }

    /// `preempt_disable`.
    pub fn preempt_disable(&self) -> PreemptGuard<'_> {
        self.hold(HeldKind::PreemptOff);
        let mut inner = self.engine.inner.borrow_mut();
        let task = &mut inner.tasks[self.task.index()];
        task.atomic_depth += 1;
        task.preempt_depth += 1;
        let depth = task.preempt_depth;
        if depth > inner.max_preempt_depth {
            inner.now = self.engine.clock.get();
            inner.note_preempt_depth(self.task, depth);
        }
        PreemptGuard { cx: self }
    }

    /// `local_irq_disable`.
    pub fn irq_disable(&self) -> IrqGuard<'_> {
        self.hold(HeldKind::IrqsOff);
        let now = self.now();
        let mut inner = self.engine.inner.borrow_mut();
        let task = &mut inner.tasks[self.task.index()];
        task.irq_depth += 1;
        let cpu = task.cpu;
        if task.irq_depth == 1 {
            inner.disable_irqs(cpu, now);
        }
        IrqGuard { cx: self }
    }

    fn hold(&self, what: HeldKind) {
        let since = self.now();
        let mut inner = self.engine.inner.borrow_mut();
        let task = &mut inner.tasks[self.task.index()];
        let (site, depth) = (task.innermost_span(), task.spans.len() as u32);
        task.held.push(Held {
            what,
            since,
            site,
            depth,
        });
    }

    fn unhold(&self, what: HeldKind) {
        let mut inner = self.engine.inner.borrow_mut();
        let held = &mut inner.tasks[self.task.index()].held;
        let at = held
            .iter()
            .rposition(|h| h.what == what)
            .expect("a guard's context is open");
        held.remove(at);
    }
}

/// Preemption is off.
#[must_use = "preemption is enabled again as soon as the guard is dropped"]
pub struct PreemptGuard<'a> {
    cx: &'a Cx,
}

impl Drop for PreemptGuard<'_> {
    fn drop(&mut self) {
        if self.cx.engine.is_frozen() {
            return;
        }
        self.cx.unhold(HeldKind::PreemptOff);
        let mut inner = self.cx.engine.inner.borrow_mut();
        let task = &mut inner.tasks[self.cx.task.index()];
        task.atomic_depth -= 1;
        task.preempt_depth -= 1;
    }
}

/// Interrupts are off on this CPU.
#[must_use = "interrupts are enabled again as soon as the guard is dropped"]
pub struct IrqGuard<'a> {
    cx: &'a Cx,
}

impl Drop for IrqGuard<'_> {
    fn drop(&mut self) {
        let engine = &self.cx.engine;
        if engine.is_frozen() {
            return;
        }
        self.cx.unhold(HeldKind::IrqsOff);
        let now = engine.clock.get();
        let mut inner = engine.inner.borrow_mut();
        let task = &mut inner.tasks[self.cx.task.index()];
        task.irq_depth -= 1;
        let cpu = task.cpu;
        if task.irq_depth > 0 {
            return;
        }
        inner.check_irqs_on(self.cx.task);
        let slot = &mut inner.cpus[cpu.index()];
        slot.enable_irqs(now);
        for call in std::mem::take(&mut slot.pending) {
            inner.push(now, EventKind::Interrupt(call, cpu));
        }
        drop(inner);
        engine.refresh_horizon();
    }
}
