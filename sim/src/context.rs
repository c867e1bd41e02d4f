//! The context tracker: what a task holds, and what it may not do while it does.
//!
//! Follows the kernel's own debugging aids: `might_sleep()` (sleeping in atomic context), lockdep's class
//! graph (two classes taken in both orders) and the 8 bit wide preemption counter (notifier-variants 2.1).
//! Where the layer above declares ranks of its classes ([`crate::Rank`]) a wrong order is found the first time
//! it is taken, whether or not anybody took the right one. Either check runs when two classes nest for the
//! first time; afterwards one test of a mask passes them. Atomic context is any spinlock, preemption or
//! interrupts off, or a classic RCU reader (host-mm-paths E). An SRCU reader may sleep.

use crate::lock::{ClassId, LockId, Mode};
use crate::wait::DomainId;
use crate::{Cycles, TaskId};

/// Something a task holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Held {
    pub(crate) what: HeldKind,
    pub(crate) since: Cycles,
    /// Innermost span when it was taken.
    pub(crate) site: &'static str,
    /// How many of the spans that were open then still are.
    pub(crate) depth: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum HeldKind {
    Lock {
        lock: LockId,
        class: ClassId,
        mode: Mode,
        sleeping: bool,
    },
    PreemptOff,
    IrqsOff,
    Reader {
        domain: DomainId,
        sleeping: bool,
    },
}

/// Edges of the class graph: `after[b]` has bit `a` set when class b was taken while a was held.
#[derive(Debug, Default, Clone)]
pub(crate) struct ClassGraph {
    before: Vec<u64>,
    evidence: Vec<Edge>,
}

/// First time that two classes were nested.
#[derive(Debug, Clone)]
pub(crate) struct Edge {
    pub(crate) outer: ClassId,
    pub(crate) inner: ClassId,
    pub(crate) task: TaskId,
    pub(crate) stack: Vec<&'static str>,
}

impl ClassGraph {
    pub(crate) fn add_class(&mut self) {
        self.before.push(0);
    }

    /// Whether all of `held` (a bit a class) were seen before `inner` already.
    #[inline]
    pub(crate) fn knows(&self, held: u64, inner: ClassId) -> bool {
        held & !self.before[inner.index()] == 0
    }

    /// Records `outer` before `inner`. Returns the evidence of the opposite order if there is a
    /// path from `inner` to `outer` already.
    pub(crate) fn add(&mut self, edge: Edge) -> Option<Edge> {
        let opposite = self.path(edge.inner, edge.outer);
        self.before[edge.inner.index()] |= 1 << edge.outer.index();
        let conflict = opposite.map(|first_hop| {
            let found = self
                .evidence
                .iter()
                .find(|e| e.outer == edge.inner && e.inner == first_hop);
            found.expect("every edge has evidence").clone()
        });
        self.evidence.push(edge);
        conflict
    }

    /// First class after `from` on a path `from` → … → `to`.
    fn path(&self, from: ClassId, to: ClassId) -> Option<ClassId> {
        if from == to {
            return None;
        }
        // Backwards from `to`: `reach` are the classes from which `to` can be reached.
        let mut reach: u64 = 1 << to.index();
        loop {
            let mut grown = reach;
            for (inner, before) in self.before.iter().enumerate() {
                if reach >> inner & 1 == 1 {
                    grown |= before;
                }
            }
            if grown == reach {
                break;
            }
            reach = grown;
        }
        if reach >> from.index() & 1 == 0 {
            return None;
        }
        (0..self.before.len())
            .find(|&c| c != from.index() && reach >> c & 1 == 1 && self.before[c] >> from.index() & 1 == 1)
            .map(ClassId::from_index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edge(outer: usize, inner: usize) -> Edge {
        Edge {
            outer: ClassId::from_index(outer),
            inner: ClassId::from_index(inner),
            task: TaskId::MACHINE,
            stack: vec![],
        }
    }

    #[test]
    fn finds_an_inversion_through_a_third_class() {
        let mut g = ClassGraph::default();
        (0..3).for_each(|_| g.add_class());
        assert!(g.add(edge(0, 1)).is_none());
        assert!(g.add(edge(1, 2)).is_none());
        let first = g.add(edge(2, 0)).expect("2 before 0 closes the circle");
        assert_eq!((first.outer.index(), first.inner.index()), (0, 1));
    }

    #[test]
    fn accepts_a_consistent_order() {
        let mut g = ClassGraph::default();
        (0..3).for_each(|_| g.add_class());
        assert!(g.add(edge(0, 1)).is_none());
        assert!(g.add(edge(0, 2)).is_none());
        assert!(g.add(edge(1, 2)).is_none());
        assert!(g.knows(0b011, ClassId::from_index(2)));
        assert!(!g.knows(0b100, ClassId::from_index(1)));
    }
}
