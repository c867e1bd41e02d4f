//! Inter-processor interrupts with acknowledgement, and interrupts of devices.
//!
//! The sender names a set of CPUs and waits, spinning with interrupts on, until every target's
//! handler has acknowledged. A target with interrupts disabled handles the interrupt when it
//! enables them; one that is in another handler, afterwards. The handler itself is the platform's:
//! it changes the target CPU's state and says how long it takes. Its time is stolen from whatever
//! the target was doing. Nobody waits for the handler of a device's interrupt, and it comes at the
//! moment the device was asked for; otherwise it is treated alike.

use std::future::Future;
use std::panic::Location;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::Cx;
use crate::engine::Engine;
use crate::inner::{EventKind, Inner};
use crate::task::{State, TaskId};
use crate::{Account, Action, CpuId, CpuSet, Cycles, Object, Step, ViolationKind};

/// What an interrupt asks for; the meaning is the platform's.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Interrupt {
    /// Vector.
    pub vector: u8,
    /// First argument.
    pub a: u64,
    /// Second argument.
    pub b: u64,
}

/// How long a handler takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Handled {
    /// From entry to the acknowledgement.
    pub until_ack: Cycles,
    /// From the acknowledgement to the return to the interrupted code.
    pub after_ack: Cycles,
}

#[derive(Debug)]
pub(crate) struct Call {
    interrupt: Interrupt,
    origin: Origin,
}

/// Who asked for an interrupt.
#[derive(Debug)]
enum Origin {
    /// A task, which spins until all targets have acknowledged.
    Sender {
        task: TaskId,
        cpu: CpuId,
        waiting: u32,
        last_ack: Cycles,
    },
    /// A device, which goes on at once.
    Device,
}

impl Engine {
    /// An interrupt reaches a CPU.
    pub(crate) fn deliver(&self, call: usize, cpu: CpuId) {
        let now = self.clock.get();
        let (interrupt, start) = {
            let mut inner = self.inner.borrow_mut();
            let slot = &mut inner.cpus[cpu.index()];
            match slot.irqs_off_at(now) {
                Some(Cycles::NEVER) => {
                    slot.pending.push(call);
                    return;
                }
                Some(until) => {
                    inner.push(until, EventKind::Interrupt(call, cpu));
                    return;
                }
                None => {}
            }
            let start = now.max(slot.busy_until);
            (inner.calls[call].interrupt, start)
        };
        let handled = self.platform().interrupt(self, cpu, interrupt);
        let mut inner = self.inner.borrow_mut();
        let ack = start + handled.until_ack;
        let end = ack + handled.after_ack;
        let running = inner.cpus[cpu.index()]
            .current
            .is_some_and(|t| inner.tasks[t.index()].state == State::Running);
        let slot = &mut inner.cpus[cpu.index()];
        slot.busy_until = end;
        if running {
            slot.stolen += end - start;
        }
        inner.acknowledge(call, cpu, ack);
    }

    /// A device interrupts a CPU at a moment that is not past. In explored mode the chooser says when,
    /// as for everything that is pending.
    pub fn interrupt_at(&self, at: Cycles, cpu: CpuId, interrupt: Interrupt) {
        let call = self.inner.borrow_mut().add_call(Call {
            interrupt,
            origin: Origin::Device,
        });
        self.push(at.max(self.clock.get()), EventKind::Interrupt(call, cpu));
    }
}

impl Inner {
    fn add_call(&mut self, call: Call) -> usize {
        if let Some(id) = self.free_calls.pop() {
            self.calls[id] = call;
            id
        } else {
            self.calls.push(call);
            self.calls.len() - 1
        }
    }

    /// The handler of `cpu` has acknowledged; whoever waits for the last one goes on.
    fn acknowledge(&mut self, call: usize, cpu: CpuId, ack: Cycles) {
        let (task, seen) = match &mut self.calls[call].origin {
            Origin::Device => {
                self.free_calls.push(call);
                return;
            }
            Origin::Sender {
                task,
                cpu: from,
                waiting,
                last_ack,
            } => {
                *waiting -= 1;
                *last_ack = (*last_ack).max(ack);
                if *waiting > 0 {
                    return;
                }
                (*task, *last_ack + self.config.transfer(cpu, *from))
            }
        };
        self.free_calls.push(call);
        self.tasks[task.index()].state = State::Running;
        self.push(seen, EventKind::Resume(task));
    }
}

/// Future of [`Cx::interrupt_and_wait`].
#[must_use = "interrupts are sent when this is awaited"]
pub struct IpiCall<'a> {
    cx: &'a Cx,
    targets: CpuSet,
    interrupt: Interrupt,
    location: &'static Location<'static>,
    progress: Progress,
}

#[derive(Clone, Copy, PartialEq)]
enum Progress {
    New,
    Synced,
    Sent,
}

impl Cx {
    /// Interrupts all `targets` (this CPU must not be among them) and spins until each has
    /// acknowledged. Returns at once for an empty set. Preemption must be off, or "other CPUs" means
    /// nothing (2.6.27: the callers of `flush_tlb_others` and `smp_call_function_mask`), and interrupts on.
    #[track_caller]
    pub fn interrupt_and_wait(&self, targets: CpuSet, interrupt: Interrupt) -> IpiCall<'_> {
        debug_assert!(!targets.contains(self.cpu()), "a CPU does not interrupt itself");
        IpiCall {
            cx: self,
            targets,
            interrupt,
            location: Location::caller(),
            progress: Progress::New,
        }
    }
}

impl Future for IpiCall<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        let engine = &self.cx.engine;
        let task = self.cx.task;
        if self.progress == Progress::Sent || self.targets.is_empty() {
            return Poll::Ready(());
        }
        if self.progress == Progress::New {
            self.progress = Progress::Synced;
            if engine.must_sync() {
                let object = Object::Cpu(self.targets.iter().next().map_or(0, |c| c.index() as u16));
                engine.park_sync(
                    task,
                    Step {
                        object,
                        action: Action::Interrupt,
                        location: self.location,
                    },
                );
                return Poll::Pending;
            }
        }
        self.progress = Progress::Sent;
        let now = engine.clock.get();
        let mut inner = engine.inner.borrow_mut();
        if inner.tasks[task.index()].irq_depth > 0 {
            let text = "waits for other CPUs to acknowledge an interrupt with interrupts disabled".to_owned();
            inner.now = now;
            inner.violate(task, ViolationKind::WaitWithIrqsOff, text, None);
        } else if inner.tasks[task.index()].preempt_depth == 0 {
            let text = "interrupts the other CPUs with preemption on: it may be one of them next".to_owned();
            inner.now = now;
            inner.violate(task, ViolationKind::IpiWhilePreemptible, text, None);
        }
        let from = inner.tasks[task.index()].cpu;
        let id = inner.add_call(Call {
            interrupt: self.interrupt,
            origin: Origin::Sender {
                task,
                cpu: from,
                waiting: self.targets.len(),
                last_ack: Cycles::ZERO,
            },
        });
        let mut arrival = now + inner.config.ipi_latency;
        for target in self.targets.iter() {
            inner.push(arrival, EventKind::Interrupt(id, target));
            inner.ipi_matrix[from.index()][target.index()] += 1;
            arrival += inner.config.ipi_per_target;
        }
        let state = &mut inner.tasks[task.index()];
        state.state = State::Acknowledging(id);
        state.suspended_at = now;
        state.waits_on = Account::IPI_WAIT;
        Poll::Pending
    }
}
