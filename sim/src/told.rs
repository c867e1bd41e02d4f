//! What a run tells: statistics, evidence, and from when they count.

use std::rc::Rc;

use crate::account::MAX_ACCOUNTS;
use crate::engine::Engine;
use crate::lock::Class;
use crate::task::State;
use crate::{Cycles, Violation};

impl Engine {
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
}
