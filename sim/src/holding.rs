//! What a task holds, for those who want to know in the middle of a run: subscribers, tests.

use crate::Cx;
use crate::context::{Held, HeldKind};
use crate::lock::Mode;

/// Something a task holds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Holding {
    /// A lock of this class, alone.
    Exclusive(&'static str),
    /// A lock of this class, with other readers.
    Shared(&'static str),
    /// Preemption is off.
    PreemptOff,
    /// Interrupts are off.
    IrqsOff,
    /// Inside a classic RCU reader.
    Rcu,
    /// Inside an SRCU reader.
    Srcu,
}

impl Cx {
    /// What this task holds, outermost first.
    #[must_use]
    pub fn holdings(&self) -> Vec<Holding> {
        let inner = self.engine.inner.borrow();
        let name = |held: &Held| match held.what {
            HeldKind::Lock { class, mode, .. } => {
                let class = inner.classes[class.index()].def.name;
                match mode {
                    Mode::Exclusive => Holding::Exclusive(class),
                    Mode::Shared => Holding::Shared(class),
                }
            }
            HeldKind::PreemptOff => Holding::PreemptOff,
            HeldKind::IrqsOff => Holding::IrqsOff,
            HeldKind::Reader { sleeping: false, .. } => Holding::Rcu,
            HeldKind::Reader { sleeping: true, .. } => Holding::Srcu,
        };
        inner.tasks[self.task.index()].held.iter().map(name).collect()
    }
}
