//! Taking and holding locks: guards and the futures that wait for them.

use std::future::Future;
use std::panic::Location;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::Cx;
use crate::lock::{ClassId, LockId, Mode, Taken, Waited};
use crate::{Account, Action, Cycles, Object, Step};

/// A held lock; dropping it releases the lock at the holder's present moment.
#[must_use = "the lock is released as soon as the guard is dropped"]
pub struct Guard<'a> {
    cx: &'a Cx,
    lock: LockId,
    mode: Mode,
}

impl Guard<'_> {
    /// Which lock.
    #[must_use]
    pub fn lock(&self) -> LockId {
        self.lock
    }

    /// `downgrade_write`: the writer of a rwsem goes on as a reader, together with the readers that
    /// wait at the head of the queue. No writer comes in between.
    ///
    /// # Panics
    /// If the guard is not that of a rwsem's writer.
    #[must_use = "the lock is released as soon as the guard is dropped"]
    pub fn downgrade(mut self) -> Self {
        let cx = self.cx;
        let engine = &*cx.engine;
        cx.charge(Account::LOCK, engine.lock_release_cost);
        let waited = engine
            .inner
            .borrow_mut()
            .downgrade(self.lock, cx.task, engine.clock.get());
        self.mode = Mode::Shared;
        if waited == Waited::Somebody {
            engine.refresh_resched(cx.task);
        }
        self
    }
}

impl Drop for Guard<'_> {
    #[inline]
    fn drop(&mut self) {
        let engine = &*self.cx.engine;
        if engine.is_frozen() {
            return;
        }
        self.cx.charge(Account::LOCK, engine.lock_release_cost);
        let waited =
            engine
                .inner
                .borrow_mut()
                .release(self.lock, self.mode, self.cx.task, engine.clock.get());
        if waited == Waited::Somebody {
            engine.refresh_resched(self.cx.task);
        }
    }
}

#[derive(PartialEq)]
enum Progress {
    New,
    Synced,
    Queued(Cycles),
}

/// Future of [`Cx::lock`] and its relatives.
#[must_use = "a lock is taken when this is awaited"]
pub struct Acquire<'a> {
    cx: &'a Cx,
    lock: LockId,
    mode: Mode,
    location: &'static Location<'static>,
    progress: Progress,
}

impl<'a> Acquire<'a> {
    pub(crate) fn new(cx: &'a Cx, lock: LockId, mode: Mode, location: &'static Location<'static>) -> Self {
        Acquire {
            cx,
            lock,
            mode,
            location,
            progress: Progress::New,
        }
    }

    fn step(&self) -> Step {
        let action = match self.mode {
            Mode::Exclusive => Action::Lock,
            Mode::Shared => Action::LockShared,
        };
        Step {
            object: Object::Lock(self.lock.0),
            action,
            location: self.location,
        }
    }

    fn guard(&self, cost: Cycles) -> Guard<'a> {
        self.cx.charge(Account::LOCK, cost);
        Guard {
            cx: self.cx,
            lock: self.lock,
            mode: self.mode,
        }
    }

    /// The lock was handed over while we waited.
    #[cold]
    fn granted(&self, since: Cycles) -> Guard<'a> {
        let engine = &self.cx.engine;
        let now = engine.clock.get();
        let mut inner = engine.inner.borrow_mut();
        let class = inner.locks[self.lock.0 as usize].class;
        inner.classes[class.index()]
            .stats(self.mode)
            .wait
            .record((now - since).get());
        let cost = inner.acquired(self.lock, self.mode, self.cx.task, now, Taken::Waiting);
        drop(inner);
        self.guard(cost)
    }
}

impl<'a> Future for Acquire<'a> {
    type Output = Guard<'a>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Guard<'a>> {
        let cx = self.cx;
        let engine = &*cx.engine;
        if let Progress::Queued(since) = self.progress {
            return Poll::Ready(self.granted(since));
        }
        let must_sync = self.progress == Progress::New && engine.must_sync();
        let now = engine.clock.get();
        let mut inner = engine.inner.borrow_mut();
        if self.progress == Progress::New {
            if inner.locks[self.lock.0 as usize].sleeps && inner.tasks[cx.task.index()].is_atomic() {
                drop(inner);
                cx.might_sleep("taking a sleeping lock");
                inner = engine.inner.borrow_mut();
            }
            self.progress = Progress::Synced;
            if must_sync {
                drop(inner);
                engine.park_sync(cx.task, self.step());
                return Poll::Pending;
            }
        }
        if let Some(cost) = inner.try_take(self.lock, self.mode, cx.task, now, Taken::Waiting) {
            drop(inner);
            return Poll::Ready(self.guard(cost));
        }
        self.progress = Progress::Queued(now);
        inner.enqueue(self.lock, self.mode, cx.task, now);
        Poll::Pending
    }
}

impl Cx {
    /// Takes a lock if nobody else comes first and it is free: the common case, without a future.
    #[inline]
    fn take_now(&self, lock: LockId, mode: Mode) -> Option<Guard<'_>> {
        let engine = &*self.engine;
        if engine.must_sync() {
            return None;
        }
        let mut inner = engine.inner.borrow_mut();
        if inner.locks[lock.0 as usize].sleeps && inner.tasks[self.task.index()].is_atomic() {
            return None;
        }
        let cost = inner.try_take(lock, mode, self.task, engine.clock.get(), Taken::Waiting)?;
        drop(inner);
        self.charge(Account::LOCK, cost);
        Some(Guard { cx: self, lock, mode })
    }

    /// Takes a lock that was never made, because nobody else has wanted it yet, and lets go of it at once:
    /// paid for and counted like any other of its class. Whoever makes the lock finds it free.
    pub fn pass_lock(&self, class: ClassId) {
        let engine = &*self.engine;
        let hold = {
            let mut inner = engine.inner.borrow_mut();
            let hold = inner.config.lock_acquire + engine.lock_release_cost;
            inner.classes[class.index()].exclusive.hold.record(hold.get());
            hold
        };
        self.charge(Account::LOCK, hold);
    }

    /// [`Cx::lock`] if it can be had at once. Hot paths try this before they await.
    #[inline]
    pub fn lock_now(&self, lock: LockId) -> Option<Guard<'_>> {
        self.take_now(lock, Mode::Exclusive)
    }

    /// [`Cx::lock_shared`] if it can be had at once.
    #[inline]
    pub fn lock_shared_now(&self, lock: LockId) -> Option<Guard<'_>> {
        self.take_now(lock, Mode::Shared)
    }
}

/// Future of [`Cx::try_lock`].
#[must_use = "a lock is tried when this is awaited"]
pub struct TryAcquire<'a>(Acquire<'a>);

impl<'a> TryAcquire<'a> {
    pub(crate) fn new(acquire: Acquire<'a>) -> Self {
        TryAcquire(acquire)
    }
}

impl<'a> Future for TryAcquire<'a> {
    type Output = Option<Guard<'a>>;

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        let engine = &self.0.cx.engine;
        if self.0.progress == Progress::New && engine.must_sync() {
            engine.park_sync(self.0.cx.task, self.0.step());
            self.0.progress = Progress::Synced;
            return Poll::Pending;
        }
        let taken = engine.inner.borrow_mut().try_take(
            self.0.lock,
            self.0.mode,
            self.0.cx.task,
            engine.clock.get(),
            Taken::Trying,
        );
        Poll::Ready(taken.map(|cost| self.0.guard(cost)))
    }
}
