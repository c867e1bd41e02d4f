//! How a run ends, with its evidence.

use std::fmt;

use crate::{CpuId, Cycles};

/// A safety property that did not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which property.
    pub kind: ViolationKind,
    /// One sentence.
    pub summary: String,
    /// When.
    pub time: Cycles,
    /// On which CPU.
    pub cpu: CpuId,
    /// In which task.
    pub task: String,
    /// Open spans, outermost first.
    pub stack: Vec<&'static str>,
    /// Locks and other contexts held, outermost first.
    pub held: Vec<String>,
    /// Last records that concern the object, oldest first.
    pub history: Vec<String>,
}

/// Kinds of violations the engine itself finds, and those of upper layers by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ViolationKind {
    /// Something that may sleep was called with a spinlock held, preemption or interrupts off, or
    /// inside an RCU reader.
    SleepInAtomic,
    /// Two lock classes were taken in both orders.
    LockOrder,
    /// A lock was taken by the task that already holds it.
    RecursiveLock,
    /// More spinlocks nested than the preemption counter can hold.
    PreemptOverflow,
    /// An interrupt was waited for with interrupts disabled.
    WaitWithIrqsOff,
    /// A property of an upper layer, by its stable name.
    Model(&'static str),
}

impl ViolationKind {
    /// Stable identifier.
    #[must_use]
    pub const fn id(self) -> &'static str {
        match self {
            ViolationKind::SleepInAtomic => "sleep-in-atomic",
            ViolationKind::LockOrder => "lock-order",
            ViolationKind::RecursiveLock => "recursive-lock",
            ViolationKind::PreemptOverflow => "preempt-overflow",
            ViolationKind::WaitWithIrqsOff => "wait-with-irqs-off",
            ViolationKind::Model(name) => name,
        }
    }
}

/// A task that cannot go on and what it waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocked {
    /// Task.
    pub task: String,
    /// What it waits for.
    pub waits_for: String,
    /// Who could end the wait.
    pub held_by: Vec<String>,
    /// Open spans of the task, outermost first.
    pub stack: Vec<&'static str>,
}

impl fmt::Display for Blocked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} waits for {}", self.task, self.waits_for)?;
        if !self.held_by.is_empty() {
            write!(f, ", held by {}", self.held_by.join(", "))?;
        }
        if !self.stack.is_empty() {
            write!(f, " [{}]", self.stack.join(" > "))?;
        }
        Ok(())
    }
}

/// End of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// Every task that is not a daemon finished.
    Completed,
    /// A property was violated; the evidence is the first violation.
    Violation(Box<Violation>),
    /// No task can run any more.
    Deadlock(Vec<Blocked>),
    /// Events happen, but time stands still: tasks go round without making progress.
    Livelock {
        /// Events executed at the same moment.
        events: u64,
        /// Unfinished tasks.
        unfinished: Vec<Blocked>,
    },
    /// The limit on executed events was reached; who was still active.
    Budget {
        /// Events executed.
        events: u64,
        /// Unfinished tasks.
        unfinished: Vec<Blocked>,
    },
}
