//! Processes under reconstruction: scripts, address spaces, and the order between threads.

use std::collections::BTreeMap;

use crate::ast::{AccessKind, BarrierOp, Op, TouchOp};

use super::space::{Area, Span, SpanMap, address};

/// A step of a script; names are settled when the whole log has been read.
#[derive(Debug, Clone)]
pub(super) enum Step {
    /// An operation.
    Op(Op),
    /// `fork`, by number of the child.
    Fork(usize),
    /// `wait`, by number of the child.
    Wait(usize),
    /// The mappings that the kernel made at the start of an image, by number of the image.
    Image(usize),
}

/// How a process begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Birth {
    /// With an address space of its own.
    Own,
    /// By a fork operation of its parent.
    Fork,
}

/// A touch that waits for the end of a run of mmap calls.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pending {
    pub(super) span: Span,
    pub(super) kind: AccessKind,
    pub(super) stride: u64,
    /// The change that made the pages.
    pub(super) change: usize,
}

/// A thread.
#[derive(Debug, Default)]
pub(super) struct Thread {
    pub(super) tid: u32,
    pub(super) steps: Vec<Step>,
    /// For each thread, how many of its steps come before whatever this thread does next.
    known: Vec<usize>,
    pub(super) pending: Vec<Pending>,
    pub(super) gone: Option<usize>,
}

/// What happened to addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Mapped.
    Made(Area),
    /// Not mapped any longer.
    Gone,
}

/// A change of the address space.
#[derive(Debug, Clone, Copy)]
pub(super) struct Change {
    pub(super) kind: Kind,
    pub(super) span: Span,
    pub(super) line: u64,
    pub(super) thread: usize,
    /// Steps of the thread before the change.
    pub(super) before: usize,
    /// Steps of the thread up to the first touch of what was made.
    pub(super) after: usize,
}

/// A process.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) pid: u32,
    pub(super) program: Option<String>,
    pub(super) birth: Birth,
    /// Number of the process that forked it.
    pub(super) parent: Option<usize>,
    pub(super) threads: Vec<Thread>,
    pub(super) areas: SpanMap<Area>,
    /// Addresses that the log maps somewhere in this image.
    pub(super) ever: SpanMap<()>,
    /// Heap: start and end.
    pub(super) heap: Option<(u64, u64)>,
    /// Which image is executed.
    pub(super) image: usize,
    /// Changes since the image was started.
    pub(super) changes: Vec<Change>,
    /// Where the process ends: thread and step.
    pub(super) exit: Option<(usize, usize)>,
    /// Who last changed which addresses, and at which step.
    last: SpanMap<(usize, usize)>,
    whole: Option<(usize, usize)>,
    files: BTreeMap<usize, (usize, usize)>,
}

impl Process {
    pub(super) fn new(pid: u32, birth: Birth, image: usize) -> Process {
        let main = Thread {
            tid: pid,
            known: vec![0],
            ..Thread::default()
        };
        Process {
            pid,
            program: None,
            birth,
            parent: None,
            threads: vec![main],
            areas: SpanMap::default(),
            ever: SpanMap::default(),
            heap: None,
            image,
            changes: Vec::new(),
            exit: None,
            last: SpanMap::default(),
            whole: None,
            files: BTreeMap::new(),
        }
    }

    /// A copy of the address space for a child.
    pub(super) fn fork(&self, pid: u32) -> Process {
        let mut child = Process::new(pid, Birth::Fork, self.image);
        child.program.clone_from(&self.program);
        (child.areas, child.ever, child.heap) = (self.areas.clone(), self.ever.clone(), self.heap);
        let inherited = self.areas.iter().map(|(span, area)| Change {
            kind: Kind::Made(*area),
            span,
            line: 0,
            thread: 0,
            before: 0,
            after: 0,
        });
        child.changes = inherited.collect();
        child
    }

    /// Forgets the address space.
    pub(super) fn exec(&mut self, image: usize) {
        (self.areas, self.ever, self.last) = Default::default();
        (self.heap, self.whole, self.image) = (None, None, image);
        self.changes.clear();
    }

    pub(super) fn push(&mut self, thread: usize, step: Step) {
        if let Some(thread) = self.threads.get_mut(thread) {
            thread.steps.push(step);
        }
    }

    pub(super) fn op(&mut self, thread: usize, op: Op) {
        self.push(thread, Step::Op(op));
    }

    pub(super) fn at(&self, thread: usize) -> usize {
        self.threads.get(thread).map_or(0, |thread| thread.steps.len())
    }

    /// Adds a thread that starts when the creator meets it.
    pub(super) fn spawn(&mut self, creator: usize, tid: u32, barrier: &str) -> usize {
        self.flush(creator);
        let new = self.threads.len();
        self.threads.push(Thread {
            tid,
            ..Thread::default()
        });
        self.threads
            .iter_mut()
            .for_each(|thread| thread.known.resize(new + 1, 0));
        self.meet(creator, new, barrier);
        new
    }

    /// Two threads meet: each knows from then on what the other knew.
    fn meet(&mut self, a: usize, b: usize, barrier: &str) {
        for thread in [a, b] {
            self.op(
                thread,
                Op::Barrier(BarrierOp {
                    name: barrier.to_owned(),
                }),
            );
        }
        let (at_a, at_b) = (self.at(a), self.at(b));
        let mut both: Vec<usize> = self.threads[a]
            .known
            .iter()
            .zip(&self.threads[b].known)
            .map(|(x, y)| *x.max(y))
            .collect();
        (both[a], both[b]) = (at_a, at_b);
        self.threads[a].known.clone_from(&both);
        self.threads[b].known = both;
    }

    /// Makes `thread` come after step `at` of thread `before`.
    fn after(&mut self, thread: usize, (before, at): (usize, usize), orders: &mut u64) {
        if thread == before || self.threads[thread].known[before] >= at {
            return;
        }
        self.flush(before);
        *orders += 1;
        let barrier = format!("order-{orders}");
        self.meet(before, thread, &barrier);
    }

    /// `thread` is about to work on addresses: it comes after those who did before.
    pub(super) fn claim(&mut self, thread: usize, on: Span, orders: &mut u64) {
        if self.threads.len() > 1 {
            let earlier: Vec<_> = self
                .last
                .over(on)
                .into_iter()
                .map(|(_, who)| who)
                .chain(self.whole)
                .collect();
            earlier
                .into_iter()
                .for_each(|who| self.after(thread, who, orders));
        }
        let at = self.at(thread) + 1;
        self.last.set(on, (thread, at));
    }

    /// `thread` is about to work on the size of a file.
    pub(super) fn claim_file(&mut self, thread: usize, file: usize, orders: &mut u64) {
        if let Some(&who) = self.files.get(&file) {
            self.after(thread, who, orders);
        }
    }

    /// `thread` has just changed the size of a file.
    pub(super) fn sized(&mut self, thread: usize, file: usize) {
        self.files.insert(file, (thread, self.at(thread)));
    }

    /// `thread` is about to work on the whole address space.
    pub(super) fn claim_all(&mut self, thread: usize, orders: &mut u64) {
        self.flush(thread);
        for other in 0..self.threads.len() {
            self.flush(other);
            let last = self.threads[other]
                .steps
                .iter()
                .rposition(|step| !is_barrier(step))
                .map_or(0, |at| at + 1);
            self.after(thread, (other, last), orders);
        }
        self.whole = Some((thread, self.at(thread) + 1));
    }

    /// Emits the touches that wait.
    pub(super) fn flush(&mut self, thread: usize) {
        let Some(of) = self.threads.get_mut(thread) else {
            return;
        };
        for touch in std::mem::take(&mut of.pending) {
            of.steps.push(Step::Op(touch_op(touch)));
            let at = of.steps.len();
            if let Some(change) = self.changes.get_mut(touch.change) {
                change.after = change.after.max(at);
            }
            self.last.set(touch.span, (thread, at));
        }
    }

    /// Records a change that the next step (or the one just pushed) of a thread makes.
    pub(super) fn change(&mut self, kind: Kind, span: Span, line: u64, thread: usize) -> usize {
        let before = self.at(thread);
        self.changes.push(Change {
            kind,
            span,
            line,
            thread,
            before,
            after: before + 1,
        });
        self.changes.len() - 1
    }
}

fn is_barrier(step: &Step) -> bool {
    matches!(step, Step::Op(Op::Barrier(_)) | Step::Image(_))
}

fn touch_op(touch: Pending) -> Op {
    Op::Touch(TouchOp {
        map: None,
        at: Some(address(touch.span.start)),
        first: 0,
        pages: Some(touch.span.pages()),
        stride: touch.stride,
        write: touch.kind == AccessKind::Write,
    })
}
