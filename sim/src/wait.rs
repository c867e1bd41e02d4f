//! Waiting for something other than a lock: wait queues, completions, mailboxes, timers, and the
//! grace periods of RCU and SRCU.
//!
//! A grace period waits for every reader of its domain that was inside when it began. A reader
//! that entered in its own near future counts as inside; that can only lengthen the wait, as in
//! the kernel, where a grace period ends well after the last reader anyway (a quiescent state of
//! every CPU in classic RCU, 2.6.27 `kernel/rcuclassic.c`).

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::Future;
use std::panic::Location;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use crate::Cx;
use crate::context::{Held, HeldKind};
use crate::engine::Engine;
use crate::inner::{EventKind, Inner};
use crate::task::{State, Waiting};
use crate::{Account, Action, Cycles, Object, Step, TaskId};

/// A wait queue.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct QueueId(u32);

#[derive(Debug)]
pub(crate) struct Queue {
    name: &'static str,
    waiters: VecDeque<TaskId>,
}

/// An RCU or SRCU domain.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct DomainId(u32);

/// Kind of a read-side critical section.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReaderKind {
    /// Classic RCU: readers may not sleep.
    Rcu,
    /// SRCU: readers may sleep.
    Srcu,
}

#[derive(Debug)]
pub(crate) struct Domain {
    kind: ReaderKind,
    grace_period: Cycles,
    waiters: Vec<(TaskId, Vec<TaskId>)>,
}

impl Inner {
    pub(crate) fn add_queue(&mut self, name: &'static str) -> QueueId {
        self.queues.push(Queue {
            name,
            waiters: VecDeque::new(),
        });
        QueueId((self.queues.len() - 1) as u32)
    }

    pub(crate) fn queue_name(&self, id: QueueId) -> &'static str {
        self.queues[id.0 as usize].name
    }

    pub(crate) fn wake(&mut self, id: QueueId, now: Cycles) {
        for task in std::mem::take(&mut self.queues[id.0 as usize].waiters) {
            self.make_runnable(task, now);
        }
    }

    pub(crate) fn add_domain(&mut self, kind: ReaderKind, grace_period: Cycles) -> DomainId {
        self.domains.push(Domain {
            kind,
            grace_period,
            waiters: Vec::new(),
        });
        DomainId((self.domains.len() - 1) as u32)
    }

    fn readers(&self, domain: DomainId) -> Vec<TaskId> {
        let inside = |h: &Held| matches!(h.what, HeldKind::Reader { domain: d, .. } if d == domain);
        let tasks = self
            .tasks
            .iter()
            .enumerate()
            .filter(|(_, t)| t.held.iter().any(inside));
        tasks.map(|(i, _)| TaskId::new(i)).collect()
    }

    fn reader_left(&mut self, domain: DomainId, task: TaskId, now: Cycles) {
        if self.domains[domain.0 as usize].waiters.is_empty() {
            return;
        }
        let still = |h: &Held| matches!(h.what, HeldKind::Reader { domain: d, .. } if d == domain);
        if self.tasks[task.index()].held.iter().any(still) {
            return;
        }
        let state = &mut self.domains[domain.0 as usize];
        let grace_period = state.grace_period;
        let mut done = Vec::new();
        state.waiters.retain_mut(|(waiter, readers)| {
            readers.retain(|r| *r != task);
            if readers.is_empty() {
                done.push(*waiter);
            }
            !readers.is_empty()
        });
        for waiter in done {
            self.push(now + grace_period, EventKind::Wake(waiter));
        }
    }
}

impl Engine {
    /// A new wait queue.
    pub fn wait_queue(&self, name: &'static str) -> QueueId {
        self.inner.borrow_mut().add_queue(name)
    }

    /// A new RCU or SRCU domain; `grace_period` is the shortest time `synchronize` takes.
    pub fn domain(&self, kind: ReaderKind, grace_period: Cycles) -> DomainId {
        self.inner.borrow_mut().add_domain(kind, grace_period)
    }

    /// Wakes everybody on a queue.
    pub fn wake_all(&self, queue: QueueId) {
        self.inner.borrow_mut().wake(queue, self.clock.get());
        self.refresh_resched(self.current.get());
    }

    /// Wakes everybody on a queue at a later moment.
    pub fn wake_all_at(&self, queue: QueueId, at: Cycles) {
        self.push(at, EventKind::WakeQueue(queue));
    }
}

/// Future of one sleep; see [`Cx::wait_on`] and [`Cx::sleep`].
#[must_use = "nothing is waited for until this is awaited"]
pub struct Sleep<'a> {
    cx: &'a Cx,
    kind: SleepKind,
    location: &'static Location<'static>,
    progress: Progress,
}

#[derive(Clone, Copy)]
enum SleepKind {
    Queue(QueueId, Account),
    Timer(Cycles),
    Until(Cycles),
    GracePeriod(DomainId),
}

#[derive(Clone, Copy, PartialEq)]
enum Progress {
    New,
    Synced,
    Asleep,
}

impl Sleep<'_> {
    fn begin(&self) {
        let engine = &self.cx.engine;
        let now = engine.clock.get();
        let task = self.cx.task;
        let mut inner = engine.inner.borrow_mut();
        let (waiting, account) = match self.kind {
            SleepKind::Queue(queue, account) => {
                inner.queues[queue.0 as usize].waiters.push_back(task);
                (Waiting::Queue(queue), account)
            }
            SleepKind::Timer(duration) => {
                inner.push(now + duration, EventKind::Wake(task));
                (Waiting::Timer, Account::SLEEP)
            }
            SleepKind::Until(at) => {
                inner.push(at.max(now), EventKind::Wake(task));
                (Waiting::Timer, Account::EVENT_WAIT)
            }
            SleepKind::GracePeriod(domain) => {
                let readers = inner.readers(domain);
                let grace_period = inner.domains[domain.0 as usize].grace_period;
                if readers.is_empty() {
                    inner.push(now + grace_period, EventKind::Wake(task));
                } else {
                    inner.domains[domain.0 as usize].waiters.push((task, readers));
                }
                (Waiting::GracePeriod, Account::EVENT_WAIT)
            }
        };
        let state = &mut inner.tasks[task.index()];
        state.state = State::Blocked(waiting);
        state.suspended_at = now;
        state.waits_on = account;
        inner.leave_cpu(task, now);
        drop(inner);
        engine.refresh_horizon();
    }
}

impl Future for Sleep<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        let engine = &self.cx.engine;
        if self.progress == Progress::Asleep {
            return Poll::Ready(());
        }
        if self.progress == Progress::New {
            self.cx.might_sleep(match self.kind {
                SleepKind::Queue(..) => "waiting for an event",
                SleepKind::Timer(_) | SleepKind::Until(_) => "sleeping",
                SleepKind::GracePeriod(_) => "waiting for a grace period",
            });
            self.progress = Progress::Synced;
            // Which readers are inside depends on what happened before. A queue is joined at once,
            // so that nothing can happen between the caller's look at its condition and the sleep.
            if matches!(self.kind, SleepKind::GracePeriod(_)) && engine.must_sync() {
                let step = Step {
                    object: Object::None,
                    action: Action::Read,
                    location: self.location,
                };
                engine.park_sync(self.cx.task, step);
                return Poll::Pending;
            }
        }
        self.progress = Progress::Asleep;
        self.begin();
        Poll::Pending
    }
}

impl Cx {
    /// Sleeps until the queue is woken once. The queue is joined before anything else can happen, so
    /// a caller that looked at its condition without awaiting since misses no wake-up; it must look
    /// again afterwards, in a loop.
    #[track_caller]
    pub fn wait_on(&self, queue: QueueId) -> Sleep<'_> {
        self.sleep_for(SleepKind::Queue(queue, Account::EVENT_WAIT))
    }

    /// As [`Cx::wait_on`], for queues that implement a lock or gate: booked as lock wait.
    #[track_caller]
    pub fn wait_on_gate(&self, queue: QueueId) -> Sleep<'_> {
        self.sleep_for(SleepKind::Queue(queue, Account::LOCK_WAIT))
    }

    /// Sleeps for a time.
    #[track_caller]
    pub fn sleep(&self, duration: Cycles) -> Sleep<'_> {
        self.sleep_for(SleepKind::Timer(duration))
    }

    /// Sleeps until a moment that something it waits for happens at.
    #[track_caller]
    pub(crate) fn wait_until(&self, at: Cycles) -> Sleep<'_> {
        self.sleep_for(SleepKind::Until(at))
    }

    /// `synchronize_rcu` / `synchronize_srcu`.
    #[track_caller]
    pub fn synchronize(&self, domain: DomainId) -> Sleep<'_> {
        self.sleep_for(SleepKind::GracePeriod(domain))
    }

    #[track_caller]
    fn sleep_for(&self, kind: SleepKind) -> Sleep<'_> {
        Sleep {
            cx: self,
            kind,
            location: Location::caller(),
            progress: Progress::New,
        }
    }

    /// `rcu_read_lock` / `srcu_read_lock`.
    pub fn read_lock(&self, domain: DomainId) -> ReaderGuard<'_> {
        let mut inner = self.engine.inner.borrow_mut();
        let sleeping = inner.domains[domain.0 as usize].kind == ReaderKind::Srcu;
        let since = self.engine.clock.get();
        let task = &mut inner.tasks[self.task.index()];
        let (site, depth) = (task.innermost_span(), task.spans.len() as u32);
        task.held.push(Held {
            what: HeldKind::Reader { domain, sleeping },
            since,
            site,
            depth,
        });
        task.atomic_depth += u32::from(!sleeping);
        ReaderGuard {
            cx: self,
            domain,
            sleeping,
        }
    }
}

/// A read-side critical section.
#[must_use = "the section ends as soon as the guard is dropped"]
pub struct ReaderGuard<'a> {
    cx: &'a Cx,
    domain: DomainId,
    sleeping: bool,
}

impl Drop for ReaderGuard<'_> {
    fn drop(&mut self) {
        let engine = &self.cx.engine;
        if engine.is_frozen() {
            return;
        }
        let mut inner = engine.inner.borrow_mut();
        let task = &mut inner.tasks[self.cx.task.index()];
        let own = |h: &Held| matches!(h.what, HeldKind::Reader { domain, .. } if domain == self.domain);
        let at = task
            .held
            .iter()
            .rposition(own)
            .expect("a reader guard's section is open");
        task.held.remove(at);
        task.atomic_depth -= u32::from(!self.sleeping);
        inner.reader_left(self.domain, self.cx.task, engine.clock.get());
        drop(inner);
        engine.refresh_horizon();
    }
}

/// Waits for something that happens once.
#[derive(Debug)]
pub struct Completion {
    queue: QueueId,
    done: std::cell::Cell<Option<Cycles>>,
}

impl Completion {
    /// Not completed yet.
    #[must_use]
    pub fn new(engine: &Engine, name: &'static str) -> Self {
        Completion {
            queue: engine.wait_queue(name),
            done: std::cell::Cell::new(None),
        }
    }

    /// Completes it for ever and wakes all waiters.
    pub fn complete_all(&self, engine: &Engine) {
        if self.done.get().is_none() {
            self.done.set(Some(engine.now()));
        }
        engine.wake_all(self.queue);
    }

    /// Whether it is completed.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.done.get().is_some()
    }

    /// Sleeps until it is completed.
    pub async fn wait(&self, cx: &Cx) {
        let at = loop {
            match self.done.get() {
                Some(at) => break at,
                None => cx.wait_on(self.queue).await,
            }
        };
        // Completed in the completer's own future: that has not come for us yet.
        if at > cx.now() {
            cx.wait_until(at).await;
        }
    }
}

/// Messages that arrive after a latency, in order of arrival.
pub struct Mailbox<T> {
    queue: QueueId,
    inbox: RefCell<VecDeque<(Cycles, T)>>,
}

impl<T> Mailbox<T> {
    /// An empty mailbox.
    #[must_use]
    pub fn new(engine: &Engine, name: &'static str) -> Rc<Self> {
        Rc::new(Mailbox {
            queue: engine.wait_queue(name),
            inbox: RefCell::default(),
        })
    }

    /// Posts a message that can be received `latency` from now.
    pub fn send(&self, cx: &Cx, message: T, latency: Cycles) {
        let at = cx.now() + latency;
        let mut inbox = self.inbox.borrow_mut();
        let place = inbox.partition_point(|(arrival, _)| *arrival <= at);
        inbox.insert(place, (at, message));
        drop(inbox);
        cx.engine.wake_all_at(self.queue, at);
    }

    /// Takes the next message, sleeping until there is one.
    pub async fn receive(&self, cx: &Cx) -> T {
        loop {
            let arrived = self.inbox.borrow().front().is_some_and(|(at, _)| *at <= cx.now());
            if arrived {
                return self
                    .inbox
                    .borrow_mut()
                    .pop_front()
                    .expect("looked at it just now")
                    .1;
            }
            cx.wait_on(self.queue).await;
        }
    }
}

/// A sequence counter (`seqcount_t`): odd while a writer is inside.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct SeqCount(std::cell::Cell<u64>);

impl SeqCount {
    /// `read_seqcount_begin` without waiting: the value to compare with later.
    #[must_use]
    pub fn read(&self) -> u64 {
        self.0.get()
    }

    /// `read_seqcount_retry`.
    #[must_use]
    pub fn changed_since(&self, seen: u64) -> bool {
        self.0.get() != seen
    }

    /// `write_seqcount_begin`.
    pub fn begin_write(&self) {
        self.0.set(self.0.get() + 1);
    }

    /// `write_seqcount_end`.
    pub fn end_write(&self) {
        self.0.set(self.0.get() + 1);
    }
}
