//! The executor: virtual time and events.
//!
//! One thread runs one simulation. A kernel path is an `async fn` that receives [`Cx`]; it charges
//! cycles locally and *synchronises* before each access that others can see. If no event is
//! pending before its own moment, synchronising is one comparison; otherwise the task parks and
//! continues when it is the earliest. Events happen in the order of (time, priority, sequence);
//! interrupts come before tasks at the same moment, as hardware would have it, and events of equal
//! time and priority in the order they were made.
//!
//! In explored mode every synchronisation parks, and a [`Chooser`] picks which pending event
//! happens next; time then only grows as far as events say so.
//!
//! There is no cancellation: a task runs to its end, or the world is frozen and all futures are
//! dropped with inert guards.

use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::future::Future;
use std::panic::Location;
use std::rc::Rc;
use std::task::{Context, Waker};

use crate::account::MAX_ACCOUNTS;
use crate::context::ClassGraph;
use crate::inner::{Event, EventKind, Inner};
use crate::lock::{ClassDef, ClassId, LockId};
use crate::record::{Logging, MARK_ARGS, Mark, Record, RecordKind, Recorder};
use crate::sched::Cpu;
use crate::task::{Role, State, Task, TaskFuture, TaskSpec, Waiting};
use crate::{
    Account, Action, Chooser, CpuId, Cx, Cycles, Enabled, End, EngineConfig, Handled, Interrupt, Object,
    Step, Stream, TaskId, ViolationKind,
};

/// What the layers above do when the machine acts by itself.
pub trait Platform {
    /// The task on a CPU changes (`None` is the idle loop). Returns what the switch costs beyond
    /// the engine's own context-switch cost.
    fn switch(&self, engine: &Engine, cpu: CpuId, from: Option<TaskId>, to: Option<TaskId>) -> Cycles;

    /// An interrupt is handled on a CPU.
    fn interrupt(&self, engine: &Engine, cpu: CpuId, interrupt: Interrupt) -> Handled;
}

/// Events at one moment of virtual time after which tasks are taken to go round without progress. A
/// thousand CPUs that all do a thousand things at one moment stay below it.
const LIVELOCK_EVENTS: u64 = 4_000_000;

/// How the next event is found.
pub enum Schedule {
    /// By the clock; the chooser only draws.
    Timed(Box<dyn Chooser>),
    /// By the chooser, among everything that is pending.
    Explored(Box<dyn Chooser>),
}

/// A simulation.
pub struct Engine {
    pub(crate) clock: Cell<Cycles>,
    horizon: Cell<Cycles>,
    pub(crate) resched_at: Cell<Cycles>,
    pub(crate) current: Cell<TaskId>,
    pub(crate) current_cpu: Cell<CpuId>,
    pub(crate) booking: Cell<Option<Account>>,
    pub(crate) accounts: [Cell<u64>; MAX_ACCOUNTS],
    frozen: Cell<bool>,
    /// All ones, or zero where costs are ignored.
    pub(crate) cost_mask: u64,
    pub(crate) full_log: Cell<bool>,
    pub(crate) lock_release_cost: Cycles,
    pub(crate) inner: RefCell<Inner>,
    chooser: RefCell<Box<dyn Chooser>>,
    platform: RefCell<Option<Rc<dyn Platform>>>,
}

impl Engine {
    /// A world without tasks at time zero.
    #[must_use]
    pub fn new(config: EngineConfig, schedule: Schedule) -> Rc<Self> {
        let cpus = config.socket_of.len();
        assert!(cpus <= crate::MAX_CPUS, "more CPUs than a CpuSet holds");
        let (explored, chooser) = match schedule {
            Schedule::Timed(chooser) => (false, chooser),
            Schedule::Explored(chooser) => (true, chooser),
        };
        let lock_release_cost = config.lock_release;
        let inner = Inner {
            config,
            events: BinaryHeap::new(),
            sequence: 0,
            explored,
            tasks: Vec::new(),
            cpus: (0..cpus).map(|_| Cpu::default()).collect(),
            switches: Vec::new(),
            classes: Vec::new(),
            locks: Vec::new(),
            free_locks: Vec::new(),
            graph: ClassGraph::default(),
            queues: Vec::new(),
            domains: Vec::new(),
            calls: Vec::new(),
            free_calls: Vec::new(),
            ipi_matrix: vec![vec![0; cpus]; cpus],
            waited: [0; MAX_ACCOUNTS],
            recorder: Recorder::default(),
            violations: Vec::new(),
            max_preempt_depth: 0,
            workers: 0,
            spent: 0,
            halted: false,
            now: Cycles::ZERO,
            measured_from: Cycles::ZERO,
        };
        Rc::new(Engine {
            clock: Cell::new(Cycles::ZERO),
            horizon: Cell::new(Cycles::ZERO),
            resched_at: Cell::new(Cycles::NEVER),
            current: Cell::new(TaskId::MACHINE),
            current_cpu: Cell::new(CpuId::default()),
            booking: Cell::new(None),
            accounts: std::array::from_fn(|_| Cell::new(0)),
            frozen: Cell::new(false),
            cost_mask: if explored { 0 } else { u64::MAX },
            full_log: Cell::new(false),
            lock_release_cost,
            inner: RefCell::new(inner),
            chooser: RefCell::new(chooser),
            platform: RefCell::new(None),
        })
    }

    /// Sets who is told of switches and interrupts.
    pub fn set_platform(&self, platform: Rc<dyn Platform>) {
        *self.platform.borrow_mut() = Some(platform);
    }

    pub(crate) fn platform(&self) -> Rc<dyn Platform> {
        self.platform
            .borrow()
            .clone()
            .unwrap_or_else(|| Rc::new(NoPlatform))
    }

    /// Keeps the full event log.
    pub fn set_logging(&self, logging: Logging) {
        self.full_log.set(logging == Logging::Full);
        self.inner.borrow_mut().recorder.logging = logging;
    }

    /// The full event log, in order of recording; empty unless asked for.
    #[must_use]
    pub fn take_log(&self) -> Vec<Record> {
        std::mem::take(&mut self.inner.borrow_mut().recorder.log)
    }

    /// A lock class; the same name always gives the same class.
    pub fn lock_class(&self, def: ClassDef) -> ClassId {
        self.inner.borrow_mut().add_class(def)
    }

    /// A new lock of a class.
    pub fn new_lock(&self, class: ClassId) -> LockId {
        self.inner.borrow_mut().add_lock(class)
    }

    /// Gives a lock's number back; it must be free.
    pub fn free_lock(&self, lock: LockId) {
        self.inner.borrow_mut().free_locks.push(lock);
    }

    /// Creates a task; it starts when the run reaches the present moment again.
    pub fn spawn<F>(self: &Rc<Self>, spec: TaskSpec, body: impl FnOnce(Cx) -> F) -> TaskId
    where
        F: Future<Output = ()> + 'static,
    {
        let now = self.clock.get();
        let id = TaskId::new(self.inner.borrow().tasks.len());
        let cx = Cx {
            engine: Rc::clone(self),
            task: id,
        };
        let future: TaskFuture = Box::pin(body(cx));
        let mut inner = self.inner.borrow_mut();
        inner.workers += usize::from(spec.role == Role::Worker);
        inner.tasks.push(Task {
            name: spec.name,
            cpu: spec.cpu,
            affinity: spec.affinity,
            role: spec.role,
            state: State::Blocked(Waiting::Timer),
            future: Some(future),
            suspended_at: now,
            waits_on: Account::SCHED,
            booking: None,
            born: now,
            died: now,
            pending: Step {
                object: Object::None,
                action: Action::Run,
                location: Location::caller(),
            },
            spans: Vec::new(),
            held: Vec::new(),
            taken_in: std::collections::BTreeMap::new(),
            held_classes: 0,
            atomic_depth: 0,
            preempt_depth: 0,
            irq_depth: 0,
            joiners: std::collections::VecDeque::new(),
        });
        inner.push(now, EventKind::Wake(id));
        drop(inner);
        self.refresh_horizon();
        id
    }

    /// Runs until all workers have ended or something stops them. The world is frozen afterwards.
    pub fn run(&self) -> End {
        let end = self.run_events();
        self.frozen.set(true);
        let now = self.clock.get();
        let mut inner = self.inner.borrow_mut();
        let futures: Vec<Option<TaskFuture>> = inner.tasks.iter_mut().map(|t| t.future.take()).collect();
        for id in (0..inner.tasks.len()).map(TaskId::new) {
            if inner.tasks[id.index()].state != State::Done {
                // Work booked in a task's own future has been done; its wait had not begun.
                let stopped = now.max(inner.tasks[id.index()].suspended_at);
                inner.book_wait(id, stopped);
                inner.tasks[id.index()].died = stopped;
            }
        }
        drop(inner);
        drop(futures);
        end
    }

    fn run_events(&self) -> End {
        let max_events = self.inner.borrow().config.max_events;
        let mut moment = (self.clock.get(), 0);
        for executed in 0.. {
            self.carry_out_switches();
            let inner = self.inner.borrow();
            if let Some(v) = inner.violations.first() {
                return End::Violation(Box::new(v.clone()));
            }
            if inner.workers == 0 {
                return End::Completed;
            }
            let executed_in_all = executed + inner.spent;
            if executed_in_all >= max_events {
                return End::Budget {
                    events: executed_in_all,
                    unfinished: inner.blocked(),
                };
            }
            if executed - moment.1 >= LIVELOCK_EVENTS && !inner.explored {
                return End::Livelock {
                    events: executed - moment.1,
                    unfinished: inner.blocked(),
                };
            }
            drop(inner);
            let Some(event) = self.next_event() else {
                return End::Deadlock(self.inner.borrow().blocked());
            };
            if event.time > moment.0 {
                moment = (event.time, executed);
            }
            self.execute(event);
        }
        unreachable!("the loop only returns")
    }

    fn next_event(&self) -> Option<Event> {
        let mut inner = self.inner.borrow_mut();
        if !inner.explored {
            return inner.events.pop().map(|e| e.0);
        }
        if inner.events.is_empty() {
            return None;
        }
        let mut pending: Vec<Event> = std::mem::take(&mut inner.events)
            .into_iter()
            .map(|e| e.0)
            .collect();
        pending.sort_by_key(|e| e.sequence);
        let enabled: Vec<Enabled> = pending.iter().map(|e| inner.enabled(e.kind)).collect();
        let chosen = self.chooser.borrow_mut().next(&enabled);
        let mut event = pending.swap_remove(chosen);
        event.time = event.time.max(self.clock.get());
        inner.events = pending.into_iter().map(Reverse).collect();
        Some(event)
    }

    fn execute(&self, event: Event) {
        self.set_clock(event.time);
        self.current.set(TaskId::MACHINE);
        match event.kind {
            EventKind::Interrupt(call, cpu) => self.deliver(call, cpu),
            EventKind::Grant(lock) => self.inner.borrow_mut().grant(lock, event.time),
            EventKind::Wake(task) => self.inner.borrow_mut().make_runnable(task, event.time),
            EventKind::WakeQueue(queue) => self.inner.borrow_mut().wake(queue, event.time),
            EventKind::Resume(task) => self.resume(task, event.time),
        }
    }

    fn set_clock(&self, time: Cycles) {
        self.clock.set(time);
        self.inner.borrow_mut().now = time;
    }

    fn carry_out_switches(&self) {
        loop {
            let next = {
                let mut inner = self.inner.borrow_mut();
                if inner.switches.is_empty() {
                    None
                } else {
                    Some(inner.switches.remove(0))
                }
            };
            let Some(switch) = next else { return };
            let cost = self.platform().switch(self, switch.cpu, switch.from, switch.to);
            self.inner.borrow_mut().start_on_cpu(switch, cost);
        }
    }

    /// Continues a task, unless an interrupt handler still occupies its CPU.
    fn resume(&self, id: TaskId, now: Cycles) {
        let mut inner = self.inner.borrow_mut();
        let cpu = inner.tasks[id.index()].cpu;
        let slot = &mut inner.cpus[cpu.index()];
        let later = (now + std::mem::take(&mut slot.stolen)).max(slot.busy_until);
        if later > now {
            inner.book_wait(id, now);
            inner.tasks[id.index()].waits_on = Account::INTERRUPT;
            inner.push(later, EventKind::Resume(id));
            return;
        }
        inner.book_wait(id, now);
        inner.tasks[id.index()].state = State::Running;
        self.booking.set(inner.tasks[id.index()].booking);
        self.resched_at.set(inner.resched_at(id));
        self.horizon.set(inner.horizon());
        let mut future = inner.tasks[id.index()]
            .future
            .take()
            .expect("a task is not resumed while it runs");
        drop(inner);
        self.current.set(id);
        self.current_cpu.set(cpu);
        let done = future
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
            .is_ready();
        self.finish_poll(id, future, done);
    }

    fn finish_poll(&self, id: TaskId, future: TaskFuture, done: bool) {
        let now = self.clock.get();
        let mut inner = self.inner.borrow_mut();
        inner.now = now;
        if !done {
            debug_assert!(
                inner.tasks[id.index()].state != State::Running
                    || inner.halted
                    || inner.events.iter().any(|e| e.0.kind == EventKind::Resume(id)),
                "a task parked without anything to continue it"
            );
            inner.tasks[id.index()].future = Some(future);
            return;
        }
        let task = &mut inner.tasks[id.index()];
        task.state = State::Done;
        task.died = now;
        let role = task.role;
        let leftovers = task.held.len();
        let joiners = std::mem::take(&mut task.joiners);
        if leftovers > 0 {
            let text = "ended while holding locks".to_owned();
            inner.violate(id, ViolationKind::EndedHolding, text, None);
        }
        inner.workers -= usize::from(role == Role::Worker);
        for joiner in joiners {
            inner.make_runnable(joiner, now);
        }
        inner.leave_cpu(id, now);
        drop(inner);
        drop(future);
    }

    /// Counts work that caused no event towards the budget, so that a task that never has to wait for
    /// anybody cannot run for ever. The run ends at the task's next synchronisation when it is spent.
    pub fn spend_events(&self, n: u64) {
        let mut inner = self.inner.borrow_mut();
        inner.spent += n;
        if inner.spent >= inner.config.max_events {
            inner.halted = true;
            drop(inner);
            self.horizon.set(Cycles::ZERO);
        }
    }

    /// Whether something else may come first.
    #[inline]
    pub(crate) fn must_sync(&self) -> bool {
        let now = self.clock.get();
        now >= self.horizon.get() || now >= self.resched_at.get()
    }

    pub(crate) fn is_frozen(&self) -> bool {
        self.frozen.get()
    }

    pub(crate) fn push(&self, time: Cycles, kind: EventKind) {
        self.inner.borrow_mut().push(time, kind);
        self.horizon.set(self.horizon.get().min(time));
    }

    pub(crate) fn refresh_horizon(&self) {
        self.horizon.set(self.inner.borrow().horizon());
    }

    pub(crate) fn refresh_resched(&self, task: TaskId) {
        let inner = self.inner.borrow();
        self.horizon.set(inner.horizon());
        if task != TaskId::MACHINE {
            self.resched_at.set(inner.resched_at(task));
        }
    }

    /// Parks the running task until it is the earliest; preempts it if it may be and must be.
    pub(crate) fn park_sync(&self, id: TaskId, step: Step) {
        let now = self.clock.get();
        let mut inner = self.inner.borrow_mut();
        inner.now = now;
        let task = &mut inner.tasks[id.index()];
        task.pending = step;
        task.suspended_at = now;
        task.waits_on = Account::INTERRUPT;
        if inner.halted {
            inner.tasks[id.index()].state = State::Blocked(Waiting::Halted);
            return;
        }
        if now >= self.resched_at.get() && inner.is_preemptible(id) {
            inner.give_way(id, now);
            return;
        }
        inner.push(now, EventKind::Resume(id));
    }

    /// Reports that a property of an upper layer does not hold. The run stops at the next
    /// synchronisation. `about` names a mark argument and its value, to select the history.
    pub fn violate(&self, kind: &'static str, summary: String, about: Option<(&str, u64)>) {
        let task = self.current.get();
        let mut inner = self.inner.borrow_mut();
        inner.now = self.clock.get();
        inner.violate(task, ViolationKind::Model(kind), summary, about);
        drop(inner);
        self.horizon.set(Cycles::ZERO);
    }

    /// Records a mark in the name of the current task, on a given CPU.
    pub fn mark(&self, cpu: CpuId, mark: &'static Mark, args: [u64; MARK_ARGS]) {
        let record = Record {
            time: self.clock.get(),
            cpu,
            task: self.current.get(),
            kind: RecordKind::Mark(mark, args),
        };
        self.inner.borrow_mut().recorder.mark(record);
    }

    /// A random number below `bound`, which is at least 1.
    #[must_use]
    pub fn draw(&self, stream: Stream, bound: u64) -> u64 {
        self.chooser.borrow_mut().draw(stream, bound)
    }

    /// Number of CPUs.
    #[must_use]
    pub fn cpus(&self) -> usize {
        self.inner.borrow().cpus.len()
    }
}

struct NoPlatform;

impl Platform for NoPlatform {
    fn switch(&self, _: &Engine, _: CpuId, _: Option<TaskId>, _: Option<TaskId>) -> Cycles {
        Cycles::ZERO
    }

    fn interrupt(&self, _: &Engine, _: CpuId, _: Interrupt) -> Handled {
        Handled {
            until_ack: Cycles::ZERO,
            after_ack: Cycles::ZERO,
        }
    }
}
