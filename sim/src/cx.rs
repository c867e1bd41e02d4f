//! The handle that model code works through.

use std::future::Future;
use std::panic::Location;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use crate::acquire::{Acquire, TryAcquire};
use crate::context::{Held, HeldKind};
use crate::engine::Engine;
use crate::lock::{LockId, Mode};
use crate::record::{MARK_ARGS, Mark, Record, RecordKind};
use crate::task::{State, Waiting};
use crate::{Account, Action, CpuId, Cycles, Object, Role, Step, TaskId};

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

    /// How this task holds a lock, if it does (`lockdep_is_held`).
    #[inline]
    #[must_use]
    pub fn holds(&self, lock: LockId) -> Option<Mode> {
        let inner = self.engine.inner.borrow();
        let of_lock = |h: &Held| match h.what {
            HeldKind::Lock { lock: l, mode, .. } if l == lock => Some(mode),
            _ => None,
        };
        let (last, before) = inner.tasks[self.task.index()].held.split_last()?;
        of_lock(last).or_else(|| before.iter().rev().find_map(of_lock))
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

    /// Changes this task's role: a daemon that has begun something which others would find half done
    /// is a worker until it has finished it.
    pub fn set_role(&self, role: Role) {
        let mut inner = self.engine.inner.borrow_mut();
        let before = std::mem::replace(&mut inner.tasks[self.task.index()].role, role);
        inner.workers += usize::from(role == Role::Worker);
        inner.workers -= usize::from(before == Role::Worker);
    }

    /// Waits for a task to end.
    pub async fn join(&self, task: TaskId) {
        let death = || {
            let inner = self.engine.inner.borrow();
            let task = &inner.tasks[task.index()];
            (task.state == State::Done).then_some(task.died)
        };
        let died = loop {
            match death() {
                Some(at) => break at,
                None => {
                    Join {
                        cx: self,
                        task,
                        parked: false,
                    }
                    .await
                }
            }
        };
        // It may have ended in its own future, which has not come for us yet.
        if died > self.now() {
            self.wait_until(died).await;
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
        self.cx.engine.inner.borrow_mut().tasks[self.cx.task.index()].close_span();
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
