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
    /// A lock was waited for while one of the same or a higher declared rank was held.
    LockRank,
    /// A lock was taken by the task that already holds it.
    RecursiveLock,
    /// More spinlocks nested than the preemption counter can hold.
    PreemptOverflow,
    /// An interrupt was waited for with interrupts disabled.
    WaitWithIrqsOff,
    /// Other CPUs were interrupted by a task that could itself be moved to one of them.
    IpiWhilePreemptible,
    /// A lock that interrupt handlers take, too, was held with interrupts enabled.
    LockWithIrqsOn,
    /// A task ended while it held something.
    EndedHolding,
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
            ViolationKind::LockRank => "lock-rank",
            ViolationKind::RecursiveLock => "recursive-lock",
            ViolationKind::PreemptOverflow => "preempt-overflow",
            ViolationKind::WaitWithIrqsOff => "wait-with-irqs-off",
            ViolationKind::IpiWhilePreemptible => "ipi-while-preemptible",
            ViolationKind::LockWithIrqsOn => "lock-with-irqs-on",
            ViolationKind::EndedHolding => "ended-holding",
            ViolationKind::Model(name) => name,
        }
    }

    /// All kinds that the engine finds itself.
    pub const ALL: [ViolationKind; 9] = [
        ViolationKind::SleepInAtomic,
        ViolationKind::LockOrder,
        ViolationKind::LockRank,
        ViolationKind::RecursiveLock,
        ViolationKind::PreemptOverflow,
        ViolationKind::WaitWithIrqsOff,
        ViolationKind::IpiWhilePreemptible,
        ViolationKind::LockWithIrqsOn,
        ViolationKind::EndedHolding,
    ];

    /// What must hold, one sentence, and when it is looked at.
    #[must_use]
    pub const fn rule(self) -> (&'static str, &'static str) {
        match self {
            ViolationKind::SleepInAtomic => (
                "nothing sleeps with a spinlock held, preemption or interrupts off, or inside an RCU reader",
                "at everything that may sleep, also when it does not",
            ),
            ViolationKind::LockOrder => (
                "no two lock classes are waited for in both orders, directly or through others",
                "the first time a class is taken inside another; locks that are only tried are exempt",
            ),
            ViolationKind::LockRank => (
                "what is waited for has a higher declared rank than everything held, or is of the same class where that may nest",
                "the first time a class is taken inside another; locks that are only tried are exempt",
            ),
            ViolationKind::RecursiveLock => (
                "no task waits for a lock it holds, nor for a second one of a class that does not nest, or not there",
                "at every lock taken inside one of its class",
            ),
            ViolationKind::PreemptOverflow => (
                "no more spinlocks nest than the preemption counter of a preemptible kernel can hold",
                "at every new maximum",
            ),
            ViolationKind::WaitWithIrqsOff => (
                "no CPU waits for others to acknowledge an interrupt while it has interrupts disabled (F25)",
                "at every interrupt that is waited for",
            ),
            ViolationKind::IpiWhilePreemptible => (
                "whoever interrupts the other CPUs stays on this one: preemption is off (F25)",
                "at every interrupt that is waited for",
            ),
            ViolationKind::LockWithIrqsOn => (
                "a lock that interrupt handlers take, too, is held with interrupts off",
                "whenever such a lock is taken, and whenever interrupts are enabled",
            ),
            ViolationKind::EndedHolding => (
                "no task ends while it holds a lock or has preemption off",
                "at the end of every task",
            ),
            ViolationKind::Model(_) => ("a property of an upper layer", "as that layer says"),
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
