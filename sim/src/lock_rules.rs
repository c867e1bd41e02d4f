//! What is checked when a lock is taken: the declared order, the order seen so far, nesting within a class,
//! and interrupts.

use crate::context::{Edge, Held, HeldKind};
use crate::inner::Inner;
use crate::lock::{Class, ClassId, Irqs, LockId, Nesting};
use crate::{TaskId, ViolationKind};

impl Inner {
    /// Checks a lock just taken against what was held before, a bit a class.
    #[cold]
    pub(crate) fn check_order(&mut self, id: LockId, class: ClassId, task: TaskId, outer: u64) {
        let own = 1 << class.index();
        let same = |h: &&Held| matches!(h.what, HeldKind::Lock { lock, .. } if lock == id);
        let recursive = self.tasks[task.index()].held.iter().filter(same).count() > 1;
        let nested = outer & own != 0 && !self.may_nest(id, class, task, outer);
        if recursive || nested {
            let text = format!(
                "{} taken while a lock of the same class is held",
                self.classes[class.index()].def.name
            );
            self.violate(task, ViolationKind::RecursiveLock, text, None);
        }
        for c in (0..self.classes.len()).filter(|c| outer >> c & 1 == 1 && *c != class.index()) {
            let from = ClassId::from_index(c);
            if self.graph.knows(1 << c, class) {
                continue;
            }
            self.check_rank(from, class, task);
            let stack = self.tasks[task.index()].spans.clone();
            if let Some(first) = self.graph.add(Edge {
                outer: from,
                inner: class,
                task,
                stack,
            }) {
                let text = format!(
                    "{} is taken inside {} here, but {} inside {} in {} [{}]",
                    self.classes[class.index()].def.name,
                    self.classes[c].def.name,
                    self.classes[first.inner.index()].def.name,
                    self.classes[first.outer.index()].def.name,
                    self.tasks[first.task.index()].name,
                    first.stack.join(" > "),
                );
                self.violate(task, ViolationKind::LockOrder, text, None);
            }
        }
    }

    /// Whether a task that holds these classes may take a lock of a class beside others of it.
    fn may_nest(&self, id: LockId, class: ClassId, task: TaskId, held: u64) -> bool {
        match self.classes[class.index()].def.nesting {
            Nesting::Forbidden => false,
            Nesting::ByCaller => true,
            Nesting::AscendingOrInside(name) => {
                let is_held = |(c, class): (usize, &Class)| held >> c & 1 == 1 && class.def.name == name;
                let below = |h: &Held| match h.what {
                    HeldKind::Lock { lock, class: c, .. } => c != class || lock <= id,
                    _ => true,
                };
                self.classes.iter().enumerate().any(is_held)
                    || self.tasks[task.index()].held.iter().all(below)
            }
        }
    }

    /// A task enables interrupts: it holds no lock that forbids that.
    pub(crate) fn check_irqs_on(&mut self, task: TaskId) {
        let forbids = |held: &Held| match held.what {
            HeldKind::Lock { class, .. } if self.classes[class.index()].def.irqs == Irqs::Off => Some(class),
            _ => None,
        };
        let held = self.tasks[task.index()].held.iter().find_map(forbids);
        if let Some(class) = held {
            self.report_irqs_on(class, task);
        }
    }

    #[cold]
    pub(crate) fn report_irqs_on(&mut self, class: ClassId, task: TaskId) {
        let name = self.classes[class.index()].def.name;
        let text = format!("{name} is held with interrupts on: a handler that wants it would wait for ever");
        self.violate(task, ViolationKind::LockWithIrqsOn, text, None);
    }

    /// Checks a class just taken inside another for the first time against the declared order. Whether
    /// a pair is in order never changes, so the first time is enough.
    fn check_rank(&mut self, outer: ClassId, inner: ClassId, task: TaskId) {
        let (held, taken) = (self.classes[outer.index()].def, self.classes[inner.index()].def);
        let (Some(outer_rank), Some(inner_rank)) = (held.rank, taken.rank) else {
            return;
        };
        if inner_rank > outer_rank {
            return;
        }
        let t = &self.tasks[task.index()];
        let of_outer = |h: &&Held| matches!(h.what, HeldKind::Lock { class, .. } if class == outer);
        let first = t
            .held
            .iter()
            .find(of_outer)
            .expect("a held class has a held lock");
        let text = format!(
            "{} (rank {}) is taken in {} [{}] inside {} (rank {}), which {} took in [{}] at {} cy",
            taken.name,
            inner_rank.get(),
            t.name,
            t.spans.join(" > "),
            held.name,
            outer_rank.get(),
            t.name,
            t.stack_of(first).join(" > "),
            first.since.get(),
        );
        self.violate(task, ViolationKind::LockRank, text, None);
    }
}
