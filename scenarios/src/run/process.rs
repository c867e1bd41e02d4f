//! What the runner knows of a process, its threads, and the barriers they meet at.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use mm::{Kernel, MmId};
use sim::{Completion, CpuId, Cx, Engine, QueueId};
use x86::VaRange;

use super::attach::Mmu;
use crate::ast::{Op, ProcessDef};

/// A process.
pub(super) struct Process {
    pub(super) name: Rc<str>,
    pub(super) kernel: Rc<Kernel>,
    pub(super) def: ProcessDef,
    /// Present address space; none before a fork gave birth to it.
    pub(super) mm: Cell<Option<MmId>>,
    /// Named mappings.
    pub(super) maps: RefCell<BTreeMap<String, VaRange>>,
    /// Secondary MMUs, by name.
    pub(super) mmus: BTreeMap<String, Rc<Mmu>>,
    /// CPU of each thread, by name.
    pub(super) cpus: BTreeMap<String, CpuId>,
    /// Threads of an older epoch end at their next operation (exec and exit end the others).
    pub(super) epoch: Cell<u64>,
    /// Threads that have not begun to exit, born or not.
    pub(super) alive: Cell<u32>,
    /// Threads that are born and have not begun to exit: those that exec ends.
    pub(super) born: Cell<u32>,
    /// exit_group(2) was called: also ends threads that are not born yet.
    pub(super) exiting: Cell<bool>,
    /// execve(2) is giving it another address space; who waits for that is woken through `ended`.
    pub(super) changing: Cell<bool>,
    /// Threads that have not given up the address space yet.
    pub(super) present: Cell<u32>,
    /// Woken when a thread ends.
    pub(super) ended: QueueId,
    /// Who forked it, once that has happened.
    pub(super) parent: OnceCell<Rc<Process>>,
    /// Whoever could have forked it ended without doing so.
    pub(super) never: Cell<bool>,
    /// Woken when a child has ended, and when its own threads must end.
    pub(super) children: QueueId,
    /// Where each thread sleeps that another one may end meanwhile.
    pub(super) naps: RefCell<Vec<QueueId>>,
    /// All threads have ended.
    pub(super) done: Completion,
}

impl Process {
    /// The last thread is about to give up the address space.
    pub(super) async fn wind_up(&self, cx: &Cx) {
        for mmu in self.mmus.values() {
            mmu.wind_up(cx).await;
        }
    }

    /// exit_files: the drivers' files are closed after the address space is gone.
    pub(super) async fn destroy(&self, cx: &Cx) {
        for mmu in self.mmus.values() {
            mmu.destroy(cx, &self.kernel).await;
        }
    }

    /// Whether a thread other than the named one may end its fellows.
    pub(super) fn may_be_ended(&self, thread: &str) -> bool {
        let ends = |op: &Op| matches!(op, Op::Exec(_) | Op::Exit(_));
        let mut others = self.def.threads.iter().filter(|(name, _)| *name != thread);
        others.any(|(_, def)| any_op(&def.script, &ends))
    }

    /// Whether a thread other than the named one forks a child.
    pub(super) fn forks_elsewhere(&self, thread: &str, child: &str) -> bool {
        let mut others = self.def.threads.iter().filter(|(name, _)| *name != thread);
        others.any(|(_, def)| children_of(&def.script).contains(child))
    }

    /// The CPU on which preparation happens: that of the thread `main`, else of the first one. Threads
    /// that run on an importer's partition do not count.
    pub(super) fn home(&self) -> Option<CpuId> {
        let first = self.kernel.cpu(0).index();
        let own = first..first + self.kernel.nr_cpus();
        let here = |cpu: &&CpuId| own.contains(&cpu.index());
        let main = self.cpus.get("main").filter(here);
        main.or_else(|| self.cpus.values().find(here)).copied()
    }
}

/// A place where threads meet. It waits for those of its members that are alive.
pub(super) struct Barrier {
    queue: QueueId,
    members: Cell<u32>,
    arrived: Cell<u32>,
    round: Cell<u64>,
}

impl Barrier {
    pub(super) fn new(engine: &Engine, members: u32) -> Self {
        Barrier {
            queue: engine.wait_queue("barrier"),
            members: Cell::new(members),
            arrived: Cell::new(0),
            round: Cell::new(0),
        }
    }

    /// Meets the others, or gives up when `gone` says that the thread must end.
    pub(super) async fn meet(&self, cx: &Cx, gone: impl Fn() -> bool) {
        self.arrived.set(self.arrived.get() + 1);
        let round = self.round.get();
        self.open_if_complete(cx.engine());
        while self.round.get() == round {
            if gone() {
                self.arrived.set(self.arrived.get() - 1);
                return;
            }
            cx.wait_on(self.queue).await;
        }
    }

    /// A member ended.
    pub(super) fn leave(&self, engine: &Engine) {
        self.members.set(self.members.get().saturating_sub(1));
        self.open_if_complete(engine);
    }

    /// Lets waiting threads look whether they must end.
    pub(super) fn nudge(&self, engine: &Engine) {
        engine.wake_all(self.queue);
    }

    fn open_if_complete(&self, engine: &Engine) {
        if self.arrived.get() > 0 && self.arrived.get() >= self.members.get() {
            self.arrived.set(0);
            self.round.set(self.round.get() + 1);
            engine.wake_all(self.queue);
        }
    }
}

/// Names of the barriers a script mentions.
pub(super) fn barriers_of(script: &[Op]) -> BTreeSet<&str> {
    let mut names = BTreeSet::new();
    for op in script {
        match op {
            Op::Barrier(b) => {
                names.insert(b.name.as_str());
            }
            Op::Repeat(r) => names.extend(barriers_of(&r.script)),
            _ => {}
        }
    }
    names
}

/// Children that a script forks.
pub(super) fn children_of(script: &[Op]) -> BTreeSet<&str> {
    let mut names = BTreeSet::new();
    for op in script {
        match op {
            Op::Fork(f) => {
                names.insert(f.child.as_str());
            }
            Op::Repeat(r) => names.extend(children_of(&r.script)),
            _ => {}
        }
    }
    names
}

fn any_op(script: &[Op], wanted: &dyn Fn(&Op) -> bool) -> bool {
    script.iter().any(|op| match op {
        Op::Repeat(r) => any_op(&r.script, wanted),
        op => wanted(op),
    })
}
