//! Locks: spinlock, rwlock, mutex and rwsem over one table.
//!
//! A lock belongs to a *class*, as in lockdep and lock_stat: order is checked and time is counted
//! a class. Waiters are served first come, first served (ticket spinlocks since 2.6.25; the rwsem
//! queues readers behind a waiting writer), except that readers of an rwlock pass waiting writers,
//! as they do in 2.6.2x. Ownership is handed over to the waiter at release; the kernel's mutex may
//! be stolen in between, which changes who waits but not what is counted.
//!
//! A writer of a rwsem may go on as a reader ([`Guard::downgrade`](crate::Guard::downgrade)): readers
//! at the head of the queue join it, a writer there goes on waiting. Its hold as a writer ends at that
//! moment and one as a reader begins, and both are counted; the kernel's lock_stat counts one hold of a
//! writer to the end, which would not show when others could get in.
//!
//! A release does not synchronise: the lock remembers until when it was held, and a taker that
//! comes earlier in virtual time waits for that moment. So a guard can be dropped like any value.

use std::collections::VecDeque;

use crate::context::{Held, HeldKind};
use crate::engine::Engine;
use crate::inner::{EventKind, Inner};
use crate::task::{State, Waiting};
use crate::{Account, CpuId, Cycles, Histogram, KernelPreemption, Object, TaskId, ViolationKind};

/// A lock.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LockId(pub(crate) u32);

impl LockId {
    /// The lock as an object of steps: what it guards, for whoever holds it.
    #[must_use]
    pub const fn object(self) -> Object {
        Object::Lock(self.0)
    }
}

/// A lock class; at most 64 in an engine.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ClassId(u8);

impl ClassId {
    pub(crate) fn from_index(index: usize) -> Self {
        assert!(index < u64::BITS as usize, "more than 64 lock classes");
        ClassId(index as u8)
    }

    /// Index into tables kept a class.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// How a lock behaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LockKind {
    /// Spins; preemption off while held.
    Spin,
    /// Spins, many readers or one writer.
    RwLock,
    /// Sleeps.
    Mutex,
    /// Sleeps, many readers or one writer.
    RwSem,
}

impl LockKind {
    /// Whether waiters sleep.
    #[must_use]
    pub const fn sleeps(self) -> bool {
        matches!(self, LockKind::Mutex | LockKind::RwSem)
    }

    /// lock_stat shows reader and writer rows.
    #[must_use]
    pub const fn is_shared(self) -> bool {
        matches!(self, LockKind::RwLock | LockKind::RwSem)
    }
}

/// Whether two locks of one class may be held together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Nesting {
    /// Never.
    Forbidden,
    /// In an order the caller guarantees (fork takes the parent's lock first).
    ByCaller,
    /// In ascending order of their numbers, which stand for their addresses (`mm_lock` sorts), or in any
    /// order by whoever also holds a lock of the class of this name (`mm_take_all_locks` excludes other
    /// takers by a mutex).
    AscendingOrInside(&'static str),
}

/// What a class asks of the interrupts of the CPU that takes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Irqs {
    /// Nothing.
    #[default]
    Either,
    /// They are off, for interrupt handlers take it, too.
    Off,
}

/// Place of a lock class in a declared order: ranks grow from the outermost lock inwards.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Rank(u8);

impl Rank {
    /// The rank of this number.
    #[must_use]
    pub const fn new(number: u8) -> Self {
        Rank(number)
    }

    /// Its number.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0
    }
}

/// Declaration of a lock class.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ClassDef {
    /// Name of the era, for example `mmap_sem`.
    pub name: &'static str,
    /// Behaviour.
    pub kind: LockKind,
    /// Nesting within the class.
    pub nesting: Nesting,
    /// Place in the declared order; a class without one is only held against what was seen.
    pub rank: Option<Rank>,
    /// Interrupts while it is held.
    pub irqs: Irqs,
}

/// How a lock is taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// Alone.
    Exclusive,
    /// Together with other readers.
    Shared,
}

/// How a lock came to be taken; a try that fails does not wait, so it cannot close a circle.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Taken {
    /// The taker would have waited.
    Waiting,
    /// The taker only tried.
    Trying,
}

/// Statistics of one side of a class, in lock_stat's columns.
#[derive(Clone, Debug, Default)]
pub struct ClassStats {
    /// Times taken.
    pub acquisitions: u64,
    /// Times the taker waited.
    pub contentions: u64,
    /// Waits, in cycles; only contended acquisitions.
    pub wait: Histogram,
    /// Hold times, in cycles.
    pub hold: Histogram,
    /// Contention points: (waiter's function, holder's function, how often), sorted.
    pub sites: Vec<(&'static str, &'static str, u64)>,
}

impl ClassStats {
    fn contended(&mut self, waiter: &'static str, holder: &'static str) {
        self.contentions += 1;
        match self.sites.binary_search_by(|s| (s.0, s.1).cmp(&(waiter, holder))) {
            Ok(at) => self.sites[at].2 += 1,
            Err(at) => self.sites.insert(at, (waiter, holder, 1)),
        }
    }
}

/// Contention point of interrupt handlers, which have no spans.
const INTERRUPT_SITE: &str = "interrupt";

/// A class with its statistics.
#[derive(Clone, Debug)]
pub struct Class {
    /// Declaration.
    pub def: ClassDef,
    /// Writer side (or the only side).
    pub exclusive: ClassStats,
    /// Reader side.
    pub shared: ClassStats,
}

impl Class {
    pub(crate) fn reset(&mut self) {
        self.exclusive = ClassStats::default();
        self.shared = ClassStats::default();
    }

    pub(crate) fn stats(&mut self, mode: Mode) -> &mut ClassStats {
        match mode {
            Mode::Exclusive => &mut self.exclusive,
            Mode::Shared => &mut self.shared,
        }
    }
}

/// Whether a release let somebody go on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waited {
    Nobody,
    Somebody,
}

#[derive(Debug)]
struct Waiter {
    task: TaskId,
    mode: Mode,
}

#[derive(Debug)]
pub(crate) struct Lock {
    pub(crate) class: ClassId,
    kind: LockKind,
    /// [`LockKind::sleeps`], at hand.
    pub(crate) sleeps: bool,
    /// Locks of the class may nest.
    nests: bool,
    irqs: Irqs,
    writer: Option<TaskId>,
    readers: u32,
    /// Held until then by holders that released in their own future.
    exclusive_until: Cycles,
    shared_until: Cycles,
    last_cpu: CpuId,
    last_site: &'static str,
    last_holder: TaskId,
    waiters: VecDeque<Waiter>,
}

impl Lock {
    fn free_from(&self, mode: Mode) -> Cycles {
        match mode {
            Mode::Exclusive => self.exclusive_until.max(self.shared_until),
            Mode::Shared => self.exclusive_until,
        }
    }

    fn admits(&self, mode: Mode) -> bool {
        self.writer.is_none() && (mode == Mode::Shared || self.readers == 0)
    }

    fn take(&mut self, task: TaskId, mode: Mode) {
        match mode {
            Mode::Exclusive => self.writer = Some(task),
            Mode::Shared => self.readers += 1,
        }
        self.last_holder = task;
    }
}

impl Engine {
    /// Whether somebody holds a lock at this moment, or is being handed it.
    #[must_use]
    pub fn is_locked(&self, lock: LockId) -> bool {
        let inner = self.inner.borrow();
        let state = &inner.locks[lock.0 as usize];
        let free = state.admits(Mode::Exclusive) && state.waiters.is_empty();
        !free || state.free_from(Mode::Exclusive) > self.clock.get()
    }

    /// An interrupt handler on `cpu` takes a spinlock at a moment that is not past, works for a while and
    /// lets it go; one that was released in the releaser's future is spun for. Returns when the handler has
    /// let go, or `None` if a task owns the lock, or is about to, for nobody knows until when.
    pub fn hold_in_interrupt(&self, lock: LockId, cpu: CpuId, from: Cycles, work: Cycles) -> Option<Cycles> {
        let work = Cycles::new(work.get() & self.cost_mask);
        self.inner
            .borrow_mut()
            .hold_in_interrupt(lock, cpu, from.max(self.clock.get()), work)
    }
}

impl Inner {
    pub(crate) fn add_class(&mut self, def: ClassDef) -> ClassId {
        if let Some(at) = self.classes.iter().position(|c| c.def.name == def.name) {
            return ClassId::from_index(at);
        }
        let id = ClassId::from_index(self.classes.len());
        self.classes.push(Class {
            def,
            exclusive: ClassStats::default(),
            shared: ClassStats::default(),
        });
        self.graph.add_class();
        id
    }

    pub(crate) fn add_lock(&mut self, class: ClassId) -> LockId {
        let def = self.classes[class.index()].def;
        let lock = Lock {
            class,
            kind: def.kind,
            sleeps: def.kind.sleeps(),
            nests: def.nesting != Nesting::Forbidden,
            irqs: def.irqs,
            writer: None,
            readers: 0,
            exclusive_until: Cycles::ZERO,
            shared_until: Cycles::ZERO,
            last_cpu: CpuId::default(),
            last_site: "-",
            last_holder: TaskId::MACHINE,
            waiters: VecDeque::new(),
        };
        if let Some(id) = self.free_locks.pop() {
            self.locks[id.0 as usize] = lock;
            return id;
        }
        self.locks.push(lock);
        LockId((self.locks.len() - 1) as u32)
    }

    /// Takes a lock for `taker` if it can be had at `now`. Returns the cost.
    #[inline]
    pub(crate) fn try_take(
        &mut self,
        id: LockId,
        mode: Mode,
        taker: TaskId,
        now: Cycles,
        taken: Taken,
    ) -> Option<Cycles> {
        let lock = &mut self.locks[id.0 as usize];
        if !lock.waiters.is_empty() && lock.kind != LockKind::RwLock {
            return None;
        }
        if !lock.admits(mode) || lock.free_from(mode) > now {
            return None;
        }
        lock.take(taker, mode);
        Some(self.acquired(id, mode, taker, now, taken))
    }

    /// Bookkeeping of a lock that `taker` owns from `now` on. Returns the cost of taking it.
    #[inline]
    pub(crate) fn acquired(
        &mut self,
        id: LockId,
        mode: Mode,
        taker: TaskId,
        now: Cycles,
        taken: Taken,
    ) -> Cycles {
        let lock = &mut self.locks[id.0 as usize];
        let class = lock.class;
        let sleeping = lock.sleeps;
        let irqs = lock.irqs;
        let task = &mut self.tasks[taker.index()];
        let mut cost = self.config.lock_acquire;
        if lock.last_cpu != task.cpu {
            cost += self.config.transfer(lock.last_cpu, task.cpu);
            lock.last_cpu = task.cpu;
        }
        let unsafe_irqs = irqs == Irqs::Off && task.irq_depth == 0;
        let bit = 1 << class.index();
        let held_classes = task.held_classes;
        task.held_classes |= bit;
        let (site, depth) = (task.innermost_span(), task.spans.len() as u32);
        task.held.push(Held {
            what: HeldKind::Lock {
                lock: id,
                class,
                mode,
                sleeping,
            },
            since: now,
            site,
            depth,
        });
        if !sleeping {
            task.atomic_depth += 1;
            task.preempt_depth += 1;
            if task.preempt_depth > self.max_preempt_depth {
                let depth = task.preempt_depth;
                self.now = now;
                self.note_preempt_depth(taker, depth);
            }
        }
        if unsafe_irqs {
            self.now = now;
            self.report_irqs_on(class, taker);
        }
        let checked = held_classes != 0 && taken == Taken::Waiting;
        if checked && (held_classes & bit != 0 || !self.graph.knows(held_classes, class)) {
            self.now = now;
            self.check_order(id, class, taker, held_classes);
        }
        cost
    }

    /// A new maximum. The preemption counter only exists in a preemptible kernel; there it can
    /// overflow.
    #[cold]
    pub(crate) fn note_preempt_depth(&mut self, task: TaskId, depth: u32) {
        self.max_preempt_depth = depth;
        let counted = self.config.preemption == KernelPreemption::Full;
        if counted && depth > self.config.preempt_limit && !self.halted {
            let text = format!(
                "{depth} spinlocks nested: the preemption counter holds {}",
                depth - 1
            );
            self.violate(task, ViolationKind::PreemptOverflow, text, None);
        }
    }

    /// Hands a free lock to whoever waits first. `now` is the moment of release.
    pub(crate) fn grant(&mut self, id: LockId, now: Cycles) {
        loop {
            let lock = &mut self.locks[id.0 as usize];
            let Some(first) = lock.waiters.front() else {
                return;
            };
            let (task, mode) = (first.task, first.mode);
            if !lock.admits(mode) {
                return;
            }
            let free_from = lock.free_from(mode);
            if free_from > now {
                self.push(free_from, EventKind::Grant(id));
                return;
            }
            lock.waiters.pop_front();
            lock.take(task, mode);
            let last_cpu = lock.last_cpu;
            if self.locks[id.0 as usize].sleeps {
                self.make_runnable(task, now);
            } else {
                let delay = self.config.transfer(last_cpu, self.tasks[task.index()].cpu);
                self.tasks[task.index()].state = State::Running;
                self.push(now + delay, EventKind::Resume(task));
            }
        }
    }

    pub(crate) fn enqueue(&mut self, id: LockId, mode: Mode, task: TaskId, now: Cycles) {
        let lock = &mut self.locks[id.0 as usize];
        let kind = lock.kind;
        lock.waiters.push_back(Waiter { task, mode });
        let (holder, class) = (lock.last_holder, lock.class);
        let holder_site = self.holder_site(id, holder);
        let waiter_site = self.tasks[task.index()].innermost_span();
        let stats = self.classes[class.index()].stats(mode);
        stats.contended(waiter_site, holder_site);
        self.tasks[task.index()].waits_on = Account::LOCK_WAIT;
        self.tasks[task.index()].suspended_at = now;
        if kind.sleeps() {
            self.tasks[task.index()].state = State::Blocked(Waiting::Lock(id));
            self.leave_cpu(task, now);
        } else {
            self.tasks[task.index()].state = State::Spinning(id);
        }
        // The lock may be free already, only not yet at this moment of virtual time.
        self.grant(id, now);
    }

    fn holder_site(&self, id: LockId, holder: TaskId) -> &'static str {
        let held = self.tasks.get(holder.index()).map_or(&[][..], |t| &t.held);
        held.iter()
            .find(|h| matches!(h.what, HeldKind::Lock { lock, .. } if lock == id))
            .map_or(self.locks[id.0 as usize].last_site, |h| h.site)
    }

    /// Releases a lock. Says whether somebody was waiting for it.
    #[inline]
    pub(crate) fn release(&mut self, id: LockId, mode: Mode, holder: TaskId, now: Cycles) -> Waited {
        let task = &mut self.tasks[holder.index()];
        let own = |h: &Held| matches!(h.what, HeldKind::Lock { lock, .. } if lock == id);
        let held = match task.held.pop() {
            Some(last) if own(&last) => last,
            other => {
                task.held.extend(other);
                let at = task.held.iter().rposition(own).expect("a guard's lock is held");
                task.held.remove(at)
            }
        };
        if !task.taken_in.is_empty() {
            task.taken_in.remove(&id);
        }
        let lock = &mut self.locks[id.0 as usize];
        let class = lock.class;
        task.held_classes &= !(1 << class.index());
        let same = |h: &Held| matches!(h.what, HeldKind::Lock { class: c, .. } if c == class);
        if lock.nests && task.held.iter().any(same) {
            task.held_classes |= 1 << class.index();
        }
        if !lock.sleeps {
            task.atomic_depth -= 1;
            task.preempt_depth -= 1;
        }
        lock.last_site = held.site;
        match mode {
            Mode::Exclusive => {
                lock.writer = None;
                lock.exclusive_until = now;
            }
            Mode::Shared => {
                lock.readers -= 1;
                lock.shared_until = lock.shared_until.max(now);
            }
        }
        self.classes[class.index()]
            .stats(mode)
            .hold
            .record((now - held.since).get());
        if lock.waiters.is_empty() {
            return Waited::Nobody;
        }
        self.grant(id, now);
        Waited::Somebody
    }

    /// Turns a writer into a reader without letting another writer in between. Says whether somebody
    /// was waiting for the lock.
    pub(crate) fn downgrade(&mut self, id: LockId, holder: TaskId, now: Cycles) -> Waited {
        let lock = &mut self.locks[id.0 as usize];
        assert!(
            lock.kind == LockKind::RwSem && lock.writer == Some(holder),
            "only the writer of a rwsem can become a reader of it"
        );
        lock.writer = None;
        lock.exclusive_until = now;
        lock.readers += 1;
        let class = lock.class;
        let task = &mut self.tasks[holder.index()];
        let own = |h: &&mut Held| matches!(h.what, HeldKind::Lock { lock, .. } if lock == id);
        let held = task.held.iter_mut().rfind(own).expect("a guard's lock is held");
        let since = std::mem::replace(&mut held.since, now);
        if let HeldKind::Lock { mode, .. } = &mut held.what {
            *mode = Mode::Shared;
        }
        self.classes[class.index()]
            .exclusive
            .hold
            .record((now - since).get());
        if self.locks[id.0 as usize].waiters.is_empty() {
            return Waited::Nobody;
        }
        self.grant(id, now);
        Waited::Somebody
    }

    /// Classes with their statistics; a lock still held counts as taken.
    pub(crate) fn lock_stat(&self) -> Vec<Class> {
        let mut classes = self.classes.clone();
        for class in &mut classes {
            class.exclusive.acquisitions = class.exclusive.hold.count();
            class.shared.acquisitions = class.shared.hold.count();
        }
        for held in self.tasks.iter().flat_map(|t| &t.held) {
            if let HeldKind::Lock { class, mode, .. } = held.what {
                classes[class.index()].stats(mode).acquisitions += 1;
            }
        }
        classes
    }

    /// See [`Engine::hold_in_interrupt`].
    fn hold_in_interrupt(&mut self, id: LockId, cpu: CpuId, now: Cycles, work: Cycles) -> Option<Cycles> {
        let lock = &mut self.locks[id.0 as usize];
        if !lock.waiters.is_empty() || !lock.admits(Mode::Exclusive) {
            return None;
        }
        let from = lock.free_from(Mode::Exclusive).max(now);
        let cost = self.config.lock_acquire + self.config.transfer(lock.last_cpu, cpu);
        let hold = cost + work + self.config.lock_release;
        lock.exclusive_until = from + hold;
        let before = std::mem::replace(&mut lock.last_site, INTERRUPT_SITE);
        (lock.last_cpu, lock.last_holder) = (cpu, TaskId::MACHINE);
        let stats = &mut self.classes[lock.class.index()].exclusive;
        stats.hold.record(hold.get());
        if from > now {
            stats.contended(INTERRUPT_SITE, before);
            stats.wait.record((from - now).get());
        }
        Some(from + hold)
    }

    /// Names of the tasks that hold a lock.
    pub(crate) fn holders(&self, id: LockId) -> Vec<String> {
        let holds = |t: &&crate::task::Task| {
            t.held
                .iter()
                .any(|h| matches!(h.what, HeldKind::Lock { lock, .. } if lock == id))
        };
        self.tasks
            .iter()
            .filter(holds)
            .map(|t| t.name.to_string())
            .collect()
    }

    pub(crate) fn lock_name(&self, id: LockId) -> &'static str {
        self.classes[self.locks[id.0 as usize].class.index()].def.name
    }

    pub(crate) fn is_contended(&self, id: LockId) -> bool {
        !self.locks[id.0 as usize].waiters.is_empty()
    }
}
