//! Tasks: what the engine knows of each thread of a simulated kernel.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;

use crate::context::{Held, HeldKind};
use crate::lock::LockId;
use crate::wait::QueueId;
use crate::{Account, CpuId, Cycles, Step};

/// Number of a task; dense, in order of creation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TaskId(u32);

impl TaskId {
    /// The machine itself, for records made outside every task.
    pub const MACHINE: TaskId = TaskId(u32::MAX);

    pub(crate) fn new(index: usize) -> Self {
        TaskId(u32::try_from(index).expect("fewer than 2^32 tasks"))
    }

    /// Index into tables kept a task.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// Where a task may run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Affinity {
    /// Only on its CPU.
    Pinned,
    /// On any CPU of a range `first..first + count`; moves when it wakes and its CPU is busy while
    /// another one is idle. A task never moves while it runs, spins or holds preemption off.
    Any {
        /// First CPU.
        first: CpuId,
        /// Number of CPUs.
        count: u16,
    },
}

/// Whether a run waits for a task.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// The run is complete when all workers are done.
    Worker,
    /// Serves others; may wait for ever. While it serves it can make itself a worker
    /// ([`crate::Cx::set_role`]).
    Daemon,
}

/// How to create a task.
#[derive(Clone, Debug)]
pub struct TaskSpec {
    /// Name for reports.
    pub name: Rc<str>,
    /// CPU it starts on.
    pub cpu: CpuId,
    /// Where it may run.
    pub affinity: Affinity,
    /// Worker or daemon.
    pub role: Role,
}

/// What a task is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum State {
    /// In the run queue of its CPU.
    Runnable,
    /// On its CPU with an event pending that continues it.
    Running,
    /// On its CPU, spinning until a lock is handed over.
    Spinning(LockId),
    /// On its CPU, spinning until interrupts are acknowledged.
    Acknowledging(usize),
    /// Off its CPU.
    Blocked(Waiting),
    /// Finished.
    Done,
}

/// What a blocked task waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Waiting {
    Lock(LockId),
    Queue(QueueId),
    Timer,
    GracePeriod,
    /// Stopped by a violation; never continues.
    Halted,
}

pub(crate) type TaskFuture = Pin<Box<dyn Future<Output = ()>>>;

pub(crate) struct Task {
    pub(crate) name: Rc<str>,
    pub(crate) cpu: CpuId,
    pub(crate) affinity: Affinity,
    pub(crate) role: Role,
    pub(crate) state: State,
    pub(crate) future: Option<TaskFuture>,
    /// Since when the present wait lasts; booked on `waits_on` when it ends.
    pub(crate) suspended_at: Cycles,
    pub(crate) waits_on: Account,
    pub(crate) booking: Option<Account>,
    pub(crate) born: Cycles,
    pub(crate) died: Cycles,
    pub(crate) pending: Step,
    pub(crate) spans: Vec<&'static str>,
    pub(crate) held: Vec<Held>,
    /// Where locks among `held` were taken whose functions have returned since.
    pub(crate) taken_in: BTreeMap<LockId, Rc<[&'static str]>>,
    /// Classes of the locks among `held`, a bit each.
    pub(crate) held_classes: u64,
    /// Nesting of everything that forbids sleeping: spinlocks, preemption off, RCU.
    pub(crate) atomic_depth: u32,
    /// Nesting of spinlocks and explicit preempt_disable.
    pub(crate) preempt_depth: u32,
    pub(crate) irq_depth: u32,
    pub(crate) joiners: VecDeque<TaskId>,
}

impl Task {
    /// Whether sleeping is forbidden.
    #[inline]
    pub(crate) fn is_atomic(&self) -> bool {
        self.atomic_depth > 0 || self.irq_depth > 0
    }

    #[inline]
    pub(crate) fn innermost_span(&self) -> &'static str {
        self.spans.last().copied().unwrap_or("-")
    }

    /// The innermost span closes. What is held was taken in spans that are still open, unless the
    /// function that took it hands it to its caller.
    #[inline]
    pub(crate) fn close_span(&mut self) {
        let depth = self.spans.len();
        if self.held.last().is_some_and(|h| h.depth as usize == depth) {
            self.keep_stacks(depth);
        }
        self.spans.pop();
    }

    /// Keeps the present stack for whatever was taken in the span that closes. Depths of `held` never
    /// fall from one to the next, so these are the last ones.
    #[cold]
    fn keep_stacks(&mut self, depth: usize) {
        let stack: Rc<[&'static str]> = self.spans.as_slice().into();
        for held in self.held.iter_mut().rev() {
            if held.depth as usize != depth || depth == 0 {
                return;
            }
            held.depth -= 1;
            if let HeldKind::Lock { lock, .. } = held.what {
                self.taken_in.entry(lock).or_insert_with(|| Rc::clone(&stack));
            }
        }
    }

    /// Spans that were open when something held was taken, outermost first.
    pub(crate) fn stack_of(&self, held: &Held) -> &[&'static str] {
        let kept = match held.what {
            HeldKind::Lock { lock, .. } => self.taken_in.get(&lock),
            HeldKind::PreemptOff | HeldKind::IrqsOff | HeldKind::Reader { .. } => None,
        };
        kept.map_or(&self.spans[..held.depth as usize], |stack| stack)
    }
}
