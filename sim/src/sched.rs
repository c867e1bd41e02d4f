//! CPUs and the scheduler.
//!
//! Each CPU runs one task; others wait in its run queue, first come first served, and take over
//! when the running task sleeps, ends, or gives way: at `cond_resched`, in user mode, and with
//! [`KernelPreemption::Full`] at any synchronisation point without a preemption count. A CPU wants
//! to reschedule when its task has used up its time slice and another one is waiting. (2.6.2x CFS
//! would also preempt on wake-up by virtual run time; which task runs in user mode first changes
//! no count of the mm paths.) An idle CPU runs no task; the platform hears of every switch.

use std::collections::VecDeque;

use crate::inner::{EventKind, Inner};
use crate::task::{Affinity, State};
use crate::{Account, CpuId, Cycles, KernelPreemption, TaskId};

#[derive(Debug, Default)]
pub(crate) struct Cpu {
    pub(crate) current: Option<TaskId>,
    pub(crate) runq: VecDeque<TaskId>,
    pub(crate) slice_end: Cycles,
    /// Time of interrupt handlers that the running task still has to give.
    pub(crate) stolen: Cycles,
    /// When the last interrupt handler ends.
    pub(crate) busy_until: Cycles,
    /// Stretches with interrupts disabled, in the running task's own time; the last may be open. Those
    /// that no pending event can fall into are forgotten.
    pub(crate) irqs_off: Vec<(Cycles, Cycles)>,
    /// Interrupts that arrived while they were disabled.
    pub(crate) pending: Vec<usize>,
}

impl Cpu {
    /// Until when interrupts are disabled, if they are at that moment; never, if the stretch is open.
    pub(crate) fn irqs_off_at(&self, at: Cycles) -> Option<Cycles> {
        let around = |(from, until): &&(Cycles, Cycles)| (*from..*until).contains(&at);
        self.irqs_off.iter().find(around).map(|(_, until)| *until)
    }

    pub(crate) fn enable_irqs(&mut self, now: Cycles) {
        if let Some((_, until)) = self.irqs_off.last_mut() {
            *until = now;
        }
        self.irqs_off.pop_if(|(from, until)| from == until);
    }
}

/// A change of the task on a CPU, to be carried out by the executor.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Switch {
    pub(crate) cpu: CpuId,
    pub(crate) from: Option<TaskId>,
    pub(crate) to: Option<TaskId>,
    pub(crate) at: Cycles,
}

impl Inner {
    pub(crate) fn disable_irqs(&mut self, cpu: CpuId, now: Cycles) {
        let earliest = self.events.peek().map_or(now, |e| e.0.time);
        // A chooser may leave an event for long; when it comes, it is not earlier than the clock.
        let earliest = if self.explored {
            earliest.max(now)
        } else {
            earliest
        };
        let stretches = &mut self.cpus[cpu.index()].irqs_off;
        stretches.retain(|(_, until)| *until > earliest);
        stretches.push((now, Cycles::NEVER));
    }

    /// Lets a blocked task run: at once on an idle CPU, else through the run queue.
    pub(crate) fn make_runnable(&mut self, id: TaskId, now: Cycles) {
        let cpu = self.place(id);
        let task = &mut self.tasks[id.index()];
        if !matches!(task.state, State::Blocked(_)) {
            return;
        }
        // A task may fall asleep in its own future; whoever wakes it earlier wakes it then.
        let now = now.max(task.suspended_at);
        task.cpu = cpu;
        self.book_wait(id, now);
        let task = &mut self.tasks[id.index()];
        task.waits_on = Account::SCHED;
        task.state = State::Runnable;
        let wakeup = self.config.wakeup;
        let slot = &mut self.cpus[cpu.index()];
        if slot.current.is_none() {
            slot.current = Some(id);
            self.switches.push(Switch {
                cpu,
                from: None,
                to: Some(id),
                at: now + wakeup,
            });
        } else {
            slot.runq.push_back(id);
        }
    }

    /// The CPU a waking task goes to.
    fn place(&self, id: TaskId) -> CpuId {
        let task = &self.tasks[id.index()];
        let Affinity::Any { first, count } = task.affinity else {
            return task.cpu;
        };
        if self.cpus[task.cpu.index()].current.is_none() {
            return task.cpu;
        }
        let range = first.index()..first.index() + count as usize;
        let idle = range.into_iter().find(|c| self.cpus[*c].current.is_none());
        idle.map_or(task.cpu, |c| CpuId::new(c as u16))
    }

    /// The running task leaves its CPU (it sleeps or has ended); the next one takes over.
    pub(crate) fn leave_cpu(&mut self, id: TaskId, now: Cycles) {
        let cpu = self.tasks[id.index()].cpu;
        let slot = &mut self.cpus[cpu.index()];
        debug_assert_eq!(slot.current, Some(id), "only the running task leaves its CPU");
        slot.current = slot.runq.pop_front();
        let to = slot.current;
        self.switches.push(Switch {
            cpu,
            from: Some(id),
            to,
            at: now,
        });
    }

    /// The running task goes to the end of the run queue.
    pub(crate) fn give_way(&mut self, id: TaskId, now: Cycles) {
        let cpu = self.tasks[id.index()].cpu;
        let task = &mut self.tasks[id.index()];
        task.state = State::Runnable;
        task.suspended_at = now;
        task.waits_on = Account::SCHED;
        self.cpus[cpu.index()].runq.push_back(id);
        self.leave_cpu(id, now);
    }

    /// A task that was switched to continues once the switch has been paid for.
    pub(crate) fn start_on_cpu(&mut self, switch: Switch, cost: Cycles) {
        let Some(id) = switch.to else { return };
        // Whoever woke the task may have done so in its own future, later than the CPU got free.
        let woken = self.tasks[id.index()].suspended_at;
        let begin = switch.at.max(self.cpus[switch.cpu.index()].busy_until).max(woken);
        let ready = begin + self.config.context_switch + cost;
        self.cpus[switch.cpu.index()].slice_end =
            ready + self.config.time_slice.min(Cycles::new(u64::MAX / 2));
        self.tasks[id.index()].state = State::Running;
        self.push(ready, EventKind::Resume(id));
    }

    /// Books the time since a task was suspended.
    pub(crate) fn book_wait(&mut self, id: TaskId, now: Cycles) {
        let task = &mut self.tasks[id.index()];
        debug_assert!(
            now >= task.suspended_at,
            "{} resumes before it was suspended",
            task.name
        );
        let waited = now.saturating_sub(task.suspended_at);
        task.suspended_at = now;
        let account = task.booking.unwrap_or(task.waits_on);
        self.waited[account.index()] += waited.get();
    }

    /// When the CPU of a task wants it to give way; never if nobody else waits there.
    pub(crate) fn resched_at(&self, id: TaskId) -> Cycles {
        let cpu = &self.cpus[self.tasks[id.index()].cpu.index()];
        if cpu.runq.is_empty() {
            Cycles::NEVER
        } else {
            cpu.slice_end
        }
    }

    /// Whether the kernel may be preempted at this point of the task.
    pub(crate) fn is_preemptible(&self, id: TaskId) -> bool {
        let task = &self.tasks[id.index()];
        self.config.preemption == KernelPreemption::Full
            && task.preempt_depth == 0
            && task.irq_depth == 0
            && task.atomic_depth == 0
    }
}
