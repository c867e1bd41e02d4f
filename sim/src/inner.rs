//! What an engine holds: pending events, tasks, CPUs, locks, and the evidence it gathers.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::panic::Location;

use crate::account::MAX_ACCOUNTS;
use crate::context::{ClassGraph, Held, HeldKind};
use crate::ipi::Call;
use crate::lock::{Class, Lock, LockId, Mode};
use crate::record::{Record, Recorder};
use crate::sched::{Cpu, Switch};
use crate::task::{Role, State, Task, Waiting};
use crate::wait::{Domain, Queue, QueueId};
use crate::{
    Action, Blocked, CpuId, Cycles, Enabled, EngineConfig, Object, Step, TaskId, Violation, ViolationKind,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EventKind {
    Interrupt(usize, CpuId),
    Grant(LockId),
    Wake(TaskId),
    WakeQueue(QueueId),
    Resume(TaskId),
}

impl EventKind {
    /// Interrupts before hand-overs before tasks, at the same moment.
    const fn priority(self) -> u8 {
        match self {
            EventKind::Interrupt(..) => 0,
            EventKind::Grant(_) | EventKind::Wake(_) | EventKind::WakeQueue(_) => 1,
            EventKind::Resume(_) => 2,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) time: Cycles,
    pub(crate) sequence: u64,
    pub(crate) kind: EventKind,
}

impl Ord for Event {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let key = |e: &Event| (e.time, e.kind.priority(), e.sequence);
        key(self).cmp(&key(other))
    }
}

impl PartialOrd for Event {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

pub(crate) struct Inner {
    pub(crate) config: EngineConfig,
    pub(crate) events: BinaryHeap<Reverse<Event>>,
    pub(crate) sequence: u64,
    pub(crate) explored: bool,
    pub(crate) tasks: Vec<Task>,
    pub(crate) cpus: Vec<Cpu>,
    pub(crate) switches: Vec<Switch>,
    pub(crate) classes: Vec<Class>,
    pub(crate) locks: Vec<Lock>,
    pub(crate) free_locks: Vec<LockId>,
    pub(crate) graph: ClassGraph,
    pub(crate) queues: Vec<Queue>,
    pub(crate) domains: Vec<Domain>,
    pub(crate) calls: Vec<Call>,
    pub(crate) free_calls: Vec<usize>,
    pub(crate) ipi_matrix: Vec<Vec<u64>>,
    pub(crate) waited: [u64; MAX_ACCOUNTS],
    pub(crate) recorder: Recorder,
    pub(crate) violations: Vec<Violation>,
    pub(crate) max_preempt_depth: u32,
    pub(crate) workers: usize,
    /// Work counted towards the budget that caused no event.
    pub(crate) spent: u64,
    pub(crate) halted: bool,
    /// Present moment, for code that has no access to the engine's cells.
    pub(crate) now: Cycles,
    pub(crate) measured_from: Cycles,
}

impl Inner {
    pub(crate) fn push(&mut self, time: Cycles, kind: EventKind) {
        self.sequence += 1;
        self.events.push(Reverse(Event {
            time,
            sequence: self.sequence,
            kind,
        }));
    }

    pub(crate) fn horizon(&self) -> Cycles {
        if self.explored || self.halted || !self.switches.is_empty() {
            return Cycles::ZERO;
        }
        self.events.peek().map_or(Cycles::NEVER, |e| e.0.time)
    }

    /// Records a violation with its evidence and stops the world at the next synchronisation.
    pub(crate) fn violate(
        &mut self,
        task: TaskId,
        kind: ViolationKind,
        summary: String,
        about: Option<(&str, u64)>,
    ) {
        let history = self
            .recorder
            .history(about)
            .iter()
            .map(|r| self.line(r))
            .collect();
        let (name, cpu, stack, held) = match self.tasks.get(task.index()) {
            Some(t) => (t.name.to_string(), t.cpu, t.spans.clone(), self.describe_held(t)),
            None => ("machine".to_owned(), CpuId::default(), Vec::new(), Vec::new()),
        };
        let time = self.now;
        self.violations.push(Violation {
            kind,
            summary,
            time,
            cpu,
            task: name,
            stack,
            held,
            history,
        });
        self.halted = true;
    }

    fn line(&self, r: &Record) -> String {
        let (name, args) = r.text();
        let task = self.tasks.get(r.task.index()).map_or("machine", |t| &t.name);
        format!(
            "{:>12} cy  cpu{:<3} {task}: {name} {args}",
            r.time.get(),
            r.cpu.index()
        )
    }

    fn describe_held(&self, task: &Task) -> Vec<String> {
        let describe = |h: &Held| {
            let what = match h.what {
                HeldKind::Lock {
                    lock, mode, sleeping, ..
                } => {
                    let side = if mode == Mode::Shared { ", shared" } else { "" };
                    let kind = if sleeping { "sleeping lock" } else { "spinlock" };
                    format!("{} ({kind}{side})", self.lock_name(lock))
                }
                HeldKind::PreemptOff => "preemption off".to_owned(),
                HeldKind::IrqsOff => "interrupts off".to_owned(),
                HeldKind::Reader { sleeping: true, .. } => "srcu_read_lock".to_owned(),
                HeldKind::Reader { sleeping: false, .. } => "rcu_read_lock".to_owned(),
            };
            format!("{what} since {} at {} cy", h.site, h.since.get())
        };
        task.held.iter().map(describe).collect()
    }

    pub(crate) fn blocked(&self) -> Vec<Blocked> {
        let stuck = |t: &&Task| t.role == Role::Worker && t.state != State::Done;
        let describe = |t: &Task| {
            let (waits_for, held_by) = match t.state {
                State::Spinning(lock) | State::Blocked(Waiting::Lock(lock)) => {
                    (self.lock_name(lock).to_owned(), self.holders(lock))
                }
                State::Blocked(Waiting::Queue(queue)) => (self.queue_name(queue).to_owned(), Vec::new()),
                State::Blocked(Waiting::Timer) => ("a timer".to_owned(), Vec::new()),
                State::Blocked(Waiting::GracePeriod) => ("a grace period".to_owned(), Vec::new()),
                State::Blocked(Waiting::Halted) => ("the end of the halted run".to_owned(), Vec::new()),
                State::Acknowledging(_) => ("interrupt acknowledgements".to_owned(), Vec::new()),
                State::Runnable | State::Running | State::Done => {
                    let cpu = self.cpus[t.cpu.index()].current;
                    (
                        format!("{:?}", t.cpu),
                        cpu.map(|c| self.tasks[c.index()].name.to_string())
                            .into_iter()
                            .collect(),
                    )
                }
            };
            Blocked {
                task: t.name.to_string(),
                waits_for,
                held_by,
                stack: t.spans.clone(),
            }
        };
        self.tasks.iter().filter(stuck).map(describe).collect()
    }
}

impl Inner {
    pub(crate) fn enabled(&self, kind: EventKind) -> Enabled {
        let here = Location::caller();
        let step = |object, action| Step {
            object,
            action,
            location: here,
        };
        match kind {
            EventKind::Resume(t) => {
                let task = &self.tasks[t.index()];
                Enabled {
                    actor: task.name.to_string(),
                    step: task.pending,
                }
            }
            EventKind::Interrupt(_, cpu) => Enabled {
                actor: format!("{cpu:?}"),
                step: step(Object::Cpu(cpu.index() as u16), Action::Interrupt),
            },
            EventKind::Grant(_) | EventKind::WakeQueue(_) => Enabled {
                actor: "machine".to_owned(),
                step: step(Object::None, Action::Timer),
            },
            EventKind::Wake(t) => Enabled {
                actor: self.tasks[t.index()].name.to_string(),
                step: step(Object::None, Action::Timer),
            },
        }
    }
}
