//! The executor: virtual time, events, and the handle that model code works through.
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
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use crate::account::MAX_ACCOUNTS;
use crate::context::ClassGraph;
use crate::ipi::Call;
use crate::lock::{Acquire, Class, ClassDef, ClassId, Lock, LockId, Mode, TryAcquire};
use crate::record::{Logging, MARK_ARGS, Mark, Record, RecordKind, Recorder};
use crate::sched::{Cpu, Switch};
use crate::task::{Role, State, Task, TaskFuture, TaskSpec, Waiting};
use crate::wait::{Domain, Queue, QueueId};
use crate::{
    Account, Action, Blocked, Chooser, CpuId, Cycles, Enabled, End, EngineConfig, Handled, Interrupt, Object,
    Step, Stream, TaskId, Violation, ViolationKind,
};

/// What the layers above do when the machine acts by itself.
pub trait Platform {
    /// The task on a CPU changes (`None` is the idle loop). Returns what the switch costs beyond
    /// the engine's own context-switch cost.
    fn switch(&self, engine: &Engine, cpu: CpuId, from: Option<TaskId>, to: Option<TaskId>) -> Cycles;

    /// An interrupt is handled on a CPU.
    fn interrupt(&self, engine: &Engine, cpu: CpuId, interrupt: Interrupt) -> Handled;
}

/// How the next event is found.
pub enum Schedule {
    /// By the clock; the chooser only draws.
    Timed(Box<dyn Chooser>),
    /// By the chooser, among everything that is pending.
    Explored(Box<dyn Chooser>),
}

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
struct Event {
    time: Cycles,
    sequence: u64,
    kind: EventKind,
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
    events: BinaryHeap<Reverse<Event>>,
    sequence: u64,
    explored: bool,
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
    workers: usize,
    halted: bool,
    /// Present moment, for code that has no access to the engine's cells.
    now: Cycles,
    measured_from: Cycles,
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

    fn horizon(&self) -> Cycles {
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
        use crate::context::HeldKind;
        let describe = |h: &crate::context::Held| {
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

    fn blocked(&self) -> Vec<Blocked> {
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

/// A simulation.
pub struct Engine {
    pub(crate) clock: Cell<Cycles>,
    horizon: Cell<Cycles>,
    resched_at: Cell<Cycles>,
    pub(crate) current: Cell<TaskId>,
    current_cpu: Cell<CpuId>,
    booking: Cell<Option<Account>>,
    accounts: [Cell<u64>; MAX_ACCOUNTS],
    frozen: Cell<bool>,
    /// All ones, or zero where costs are ignored.
    cost_mask: u64,
    full_log: Cell<bool>,
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
                inner.book_wait(id, now);
                inner.tasks[id.index()].died = now;
            }
        }
        drop(inner);
        drop(futures);
        end
    }

    fn run_events(&self) -> End {
        let max_events = self.inner.borrow().config.max_events;
        for executed in 0.. {
            self.carry_out_switches();
            let inner = self.inner.borrow();
            if let Some(v) = inner.violations.first() {
                return End::Violation(Box::new(v.clone()));
            }
            if inner.workers == 0 {
                return End::Completed;
            }
            if executed >= max_events {
                return End::Budget {
                    events: executed,
                    unfinished: inner.blocked(),
                };
            }
            drop(inner);
            let Some(event) = self.next_event() else {
                return End::Deadlock(self.inner.borrow().blocked());
            };
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
            inner.violate(id, ViolationKind::Model("ended-holding"), text, None);
        }
        inner.workers -= usize::from(role == Role::Worker);
        for joiner in joiners {
            inner.make_runnable(joiner, now);
        }
        inner.leave_cpu(id, now);
        drop(inner);
        drop(future);
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

    /// Forgets everything counted so far and counts from the present moment: accounts, lock
    /// statistics, interrupts, life times. What happened before was preparation.
    pub fn start_measuring(&self) {
        let now = self.clock.get();
        for account in &self.accounts {
            account.set(0);
        }
        let mut inner = self.inner.borrow_mut();
        let cpus = inner.cpus.len();
        inner.waited = [0; MAX_ACCOUNTS];
        inner.ipi_matrix = vec![vec![0; cpus]; cpus];
        inner.max_preempt_depth = 0;
        inner.measured_from = now;
        for class in &mut inner.classes {
            class.reset();
        }
        for task in &mut inner.tasks {
            if task.state == State::Done {
                task.died = task.born;
            } else {
                task.born = now;
                task.suspended_at = now;
            }
        }
    }

    /// Time since measuring began.
    #[must_use]
    pub fn measured_time(&self) -> Cycles {
        self.now() - self.inner.borrow().measured_from
    }

    // -- what a finished run tells --------------------------------------------------------------

    /// Present moment.
    #[must_use]
    pub fn now(&self) -> Cycles {
        self.clock.get()
    }

    /// Violations found, in order.
    #[must_use]
    pub fn violations(&self) -> Vec<Violation> {
        self.inner.borrow().violations.clone()
    }

    /// Lock classes with their statistics, in order of declaration.
    #[must_use]
    pub fn lock_stat(&self) -> Vec<Class> {
        self.inner.borrow().lock_stat()
    }

    /// Cycles booked on each account, by index.
    #[must_use]
    pub fn accounts(&self) -> Vec<Cycles> {
        let waited = self.inner.borrow().waited;
        self.accounts
            .iter()
            .zip(waited)
            .map(|(c, w)| Cycles::new(c.get() + w))
            .collect()
    }

    /// Sum of the life times of all tasks; equals the sum of the accounts.
    #[must_use]
    pub fn task_time(&self) -> Cycles {
        self.inner.borrow().tasks.iter().map(|t| t.died - t.born).sum()
    }

    /// Interrupts sent, `[from][to]`.
    #[must_use]
    pub fn ipi_matrix(&self) -> Vec<Vec<u64>> {
        self.inner.borrow().ipi_matrix.clone()
    }

    /// Deepest nesting of spinlocks and preemption-off sections.
    #[must_use]
    pub fn max_preempt_depth(&self) -> u32 {
        self.inner.borrow().max_preempt_depth
    }

    /// Names of all tasks, by number.
    #[must_use]
    pub fn task_names(&self) -> Vec<Rc<str>> {
        self.inner
            .borrow()
            .tasks
            .iter()
            .map(|t| Rc::clone(&t.name))
            .collect()
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

impl Inner {
    fn enabled(&self, kind: EventKind) -> Enabled {
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

/// A task's handle on the world. Model code receives `&Cx` and awaits only what it offers.
#[derive(Clone)]
pub struct Cx {
    pub(crate) engine: Rc<Engine>,
    pub(crate) task: TaskId,
}

impl Cx {
    /// The simulation.
    #[must_use]
    pub fn engine(&self) -> &Rc<Engine> {
        &self.engine
    }

    /// This task.
    #[must_use]
    pub fn task(&self) -> TaskId {
        self.task
    }

    /// The CPU this task runs on; may change at every await of a sleeping operation.
    #[inline]
    #[must_use]
    pub fn cpu(&self) -> CpuId {
        debug_assert_eq!(self.engine.current.get(), self.task, "only the running task asks");
        self.engine.current_cpu.get()
    }

    /// This task's moment in virtual time.
    #[inline]
    #[must_use]
    pub fn now(&self) -> Cycles {
        self.engine.clock.get()
    }

    /// Spends cycles and books them.
    #[inline]
    pub fn charge(&self, account: Account, cycles: Cycles) {
        let engine = &*self.engine;
        let cycles = cycles.get() & engine.cost_mask;
        engine.clock.set(engine.clock.get() + Cycles::new(cycles));
        let cell = &engine.accounts[engine.booking.get().unwrap_or(account).index()];
        cell.set(cell.get() + cycles);
    }

    /// Whether the next synchronisation would park: lets tight loops check before they await.
    #[inline]
    #[must_use]
    pub fn must_sync(&self) -> bool {
        self.engine.must_sync()
    }

    /// Announces a visible step and lets everything earlier happen first.
    #[track_caller]
    #[inline]
    pub fn step(&self, object: Object, action: Action) -> SyncPoint<'_> {
        SyncPoint {
            cx: self,
            step: Step {
                object,
                action,
                location: Location::caller(),
            },
            parked: false,
        }
    }

    /// Takes a lock alone.
    #[track_caller]
    pub fn lock(&self, lock: LockId) -> Acquire<'_> {
        Acquire::new(self, lock, Mode::Exclusive, Location::caller())
    }

    /// Takes a shared lock together with other readers.
    #[track_caller]
    pub fn lock_shared(&self, lock: LockId) -> Acquire<'_> {
        Acquire::new(self, lock, Mode::Shared, Location::caller())
    }

    /// Takes a lock alone if that is possible at once; allowed in atomic context.
    #[track_caller]
    pub fn try_lock(&self, lock: LockId) -> TryAcquire<'_> {
        TryAcquire::new(Acquire::new(self, lock, Mode::Exclusive, Location::caller()))
    }

    /// Takes a shared lock if that is possible at once; allowed in atomic context.
    #[track_caller]
    pub fn try_lock_shared(&self, lock: LockId) -> TryAcquire<'_> {
        TryAcquire::new(Acquire::new(self, lock, Mode::Shared, Location::caller()))
    }

    /// Whether somebody waits for a lock (`spin_is_contended`).
    #[must_use]
    pub fn is_contended(&self, lock: LockId) -> bool {
        self.engine.inner.borrow().is_contended(lock)
    }

    /// Opens a span: a kernel function, for stacks, traces and contention points.
    pub fn span(&self, name: &'static str) -> Span<'_> {
        let mut inner = self.engine.inner.borrow_mut();
        inner.tasks[self.task.index()].spans.push(name);
        drop(inner);
        self.log_span(RecordKind::Begin(name));
        Span { cx: self, name }
    }

    fn log_span(&self, kind: RecordKind) {
        if self.engine.full_log.get() {
            let record = Record {
                time: self.now(),
                cpu: self.cpu(),
                task: self.task,
                kind,
            };
            self.engine.inner.borrow_mut().recorder.log.push(record);
        }
    }

    /// Records a mark.
    pub fn mark(&self, mark: &'static Mark, args: [u64; MARK_ARGS]) {
        self.engine.mark(self.cpu(), mark, args);
    }

    /// Books everything on one account until the guard is dropped, also waits.
    pub fn book_to(&self, account: Account) -> Booking<'_> {
        let before = self.engine.booking.replace(Some(account));
        self.engine.inner.borrow_mut().tasks[self.task.index()].booking = Some(account);
        Booking { cx: self, before }
    }

    /// `cond_resched`: gives way if the time slice is used up and others wait for this CPU.
    #[track_caller]
    pub fn cond_resched(&self) -> Resched<'_> {
        self.might_sleep("cond_resched");
        Resched {
            cx: self,
            location: Location::caller(),
            parked: false,
        }
    }

    /// `need_resched`.
    #[must_use]
    pub fn need_resched(&self) -> bool {
        self.now() >= self.engine.resched_at.get()
    }

    /// Waits for a task to end.
    pub async fn join(&self, task: TaskId) {
        let done = || self.engine.inner.borrow().tasks[task.index()].state == State::Done;
        while !done() {
            Join {
                cx: self,
                task,
                parked: false,
            }
            .await;
        }
    }
}

/// Future of [`Cx::step`].
#[must_use = "others are only let in when this is awaited"]
pub struct SyncPoint<'a> {
    cx: &'a Cx,
    step: Step,
    parked: bool,
}

impl Future for SyncPoint<'_> {
    type Output = ();

    #[inline]
    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        if self.parked || !self.cx.engine.must_sync() {
            return Poll::Ready(());
        }
        self.parked = true;
        self.cx.engine.park_sync(self.cx.task, self.step);
        Poll::Pending
    }
}

/// Future of [`Cx::cond_resched`].
#[must_use = "the CPU is only given up when this is awaited"]
pub struct Resched<'a> {
    cx: &'a Cx,
    location: &'static Location<'static>,
    parked: bool,
}

impl Future for Resched<'_> {
    type Output = ();

    #[inline]
    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        let engine = &self.cx.engine;
        if self.parked || !self.cx.need_resched() {
            return Poll::Ready(());
        }
        self.parked = true;
        let now = engine.clock.get();
        let mut inner = engine.inner.borrow_mut();
        inner.tasks[self.cx.task.index()].pending = Step {
            object: Object::None,
            action: Action::Run,
            location: self.location,
        };
        inner.give_way(self.cx.task, now);
        Poll::Pending
    }
}

struct Join<'a> {
    cx: &'a Cx,
    task: TaskId,
    parked: bool,
}

impl Future for Join<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        if self.parked {
            return Poll::Ready(());
        }
        self.parked = true;
        self.cx.might_sleep("waiting for a task");
        let engine = &self.cx.engine;
        let now = engine.clock.get();
        let mut inner = engine.inner.borrow_mut();
        inner.tasks[self.task.index()].joiners.push_back(self.cx.task);
        let task = &mut inner.tasks[self.cx.task.index()];
        task.state = State::Blocked(Waiting::Timer);
        task.suspended_at = now;
        task.waits_on = Account::EVENT_WAIT;
        inner.leave_cpu(self.cx.task, now);
        Poll::Pending
    }
}

/// An open span.
#[must_use = "the span closes as soon as it is dropped"]
pub struct Span<'a> {
    cx: &'a Cx,
    name: &'static str,
}

impl Drop for Span<'_> {
    fn drop(&mut self) {
        if self.cx.engine.is_frozen() {
            return;
        }
        self.cx.engine.inner.borrow_mut().tasks[self.cx.task.index()]
            .spans
            .pop();
        self.cx.log_span(RecordKind::End(self.name));
    }
}

/// A changed booking.
#[must_use = "the booking ends as soon as it is dropped"]
pub struct Booking<'a> {
    cx: &'a Cx,
    before: Option<Account>,
}

impl Drop for Booking<'_> {
    fn drop(&mut self) {
        if self.cx.engine.is_frozen() {
            return;
        }
        self.cx.engine.booking.set(self.before);
        self.cx.engine.inner.borrow_mut().tasks[self.cx.task.index()].booking = self.before;
    }
}
