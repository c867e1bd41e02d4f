//! Follows the log event by event: tasks, processes, descriptors.

use std::collections::{BTreeMap, BTreeSet};

use crate::ast::{BarrierOp, Nothing, Op};

use super::args::{decoration, field, has, number, quoted};
use super::files::{Fds, Files, OnExec, unique};
use super::join::{Event, What};
use super::line::{Call, Ret};
use super::process::{Birth, Process, Step};
use super::space::SpanMap;
use super::summary::Summary;
use super::{ImportError, Options};

/// Why a call leaves no trace in the scenario, or that it does.
pub(super) enum Outcome {
    /// It does.
    Took,
    /// It does not, for a reason.
    Skip(String),
    /// Its text is not as it should be: what is wrong, what would be right.
    Bad(&'static str, &'static str),
}

pub(super) fn skip(reason: &str) -> Outcome {
    Outcome::Skip(reason.to_owned())
}

/// What a task is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// A thread of its process.
    Member,
    /// Uses the address space of another process until it executes a program or ends.
    Borrower,
}

#[derive(Debug, Clone, Copy)]
struct Task {
    process: usize,
    thread: usize,
    fds: usize,
    role: Role,
}

/// Where a call happens.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) line: u64,
    pub(super) tid: u32,
    pub(super) process: usize,
    pub(super) thread: usize,
    pub(super) fds: usize,
}

/// Mappings that the kernel made when an image was started.
#[derive(Debug, Default)]
pub(super) struct Image {
    pub(super) ops: Vec<Op>,
    pub(super) known: SpanMap<()>,
}

/// The state of an import.
pub(super) struct Replay<'a> {
    pub(super) options: &'a Options,
    pub(super) log: &'a str,
    pub(super) summary: &'a mut Summary,
    pub(super) processes: Vec<Process>,
    pub(super) images: Vec<Image>,
    pub(super) files: Files,
    pub(super) orders: u64,
    fds: Vec<Fds>,
    tasks: BTreeMap<u32, Task>,
    /// Process that each pid last stood for.
    pids: BTreeMap<u32, usize>,
    barriers: BTreeSet<String>,
}

impl<'a> Replay<'a> {
    pub(super) fn new(options: &'a Options, log: &'a str, summary: &'a mut Summary) -> Replay<'a> {
        Replay {
            options,
            log,
            summary,
            processes: Vec::new(),
            images: Vec::new(),
            files: Files::default(),
            orders: 0,
            fds: Vec::new(),
            tasks: BTreeMap::new(),
            pids: BTreeMap::new(),
            barriers: BTreeSet::new(),
        }
    }

    pub(super) fn run(&mut self, events: &[Event]) -> Result<(), ImportError> {
        for event in events {
            match &event.what {
                What::Call(call) => self.call(event, call),
                What::Ended => self.ended(event.tid),
                What::Superseded(by) => {
                    if let Some(task) = self.tasks.remove(by) {
                        self.tasks.insert(event.tid, task);
                    }
                }
            }
        }
        for process in &mut self.processes {
            (0..process.threads.len()).for_each(|thread| process.flush(thread));
            let silent = process.threads.iter().all(|thread| thread.steps.is_empty());
            if process.birth == Birth::Fork && silent {
                process.op(0, Op::Exit(Nothing {}));
            }
        }
        if self.processes.is_empty() {
            return Err(ImportError::Empty {
                file: self.log.to_owned(),
            });
        }
        Ok(())
    }

    pub(super) fn image(&mut self) -> usize {
        self.images.push(Image::default());
        self.images.len() - 1
    }

    fn task(&mut self, tid: u32) -> Task {
        if let Some(&task) = self.tasks.get(&tid) {
            return task;
        }
        if tid != 0 && !self.tasks.is_empty() {
            let text = format!(
                "task {tid} appears without the call that made it: a process of its own from the start"
            );
            self.summary.assume(text);
        }
        self.fds.push(Fds::default());
        self.birth(tid, self.fds.len() - 1)
    }

    /// A new process with an address space of its own.
    fn birth(&mut self, tid: u32, fds: usize) -> Task {
        let image = self.image();
        let mut process = Process::new(tid, Birth::Own, image);
        process.push(0, Step::Image(image));
        self.enter(tid, process, fds)
    }

    fn enter(&mut self, tid: u32, process: Process, fds: usize) -> Task {
        self.processes.push(process);
        let task = Task {
            process: self.processes.len() - 1,
            thread: 0,
            fds,
            role: Role::Member,
        };
        self.tasks.insert(tid, task);
        self.pids.insert(tid, task.process);
        task
    }

    fn call(&mut self, event: &Event, call: &Call) {
        let task = self.task(event.tid);
        let name = call.name.as_str();
        let place = Place {
            line: event.line,
            tid: event.tid,
            process: task.process,
            thread: task.thread,
            fds: task.fds,
        };
        if name != "mmap" && name != "mmap2" && self.alive(place) {
            self.processes[task.process].flush(task.thread);
        }
        if !self.alive(place) {
            return self.summary.skip(name, "after the end of its process");
        }
        let outcome = match (&call.ret, name) {
            (_, "exit" | "exit_group") => self.exit(place, name),
            (Ret::Failed, _) => return self.summary.fail(name),
            (Ret::Never, _) => skip("never returned in the log"),
            (Ret::Value(ret), _) => self.returned(place, call, *ret),
        };
        match outcome {
            Outcome::Took => self.summary.took(name),
            Outcome::Skip(reason) => self.summary.skip(name, &reason),
            Outcome::Bad(wrong, right) => {
                self.summary.skip(name, "not understood (see the warnings)");
                self.summary.warn(self.log, event.line, &event.text, wrong, right);
            }
        }
    }

    fn alive(&self, place: Place) -> bool {
        let process = &self.processes[place.process];
        process.exit.is_none() && process.threads[place.thread].gone.is_none()
    }

    fn returned(&mut self, place: Place, call: &Call, ret: u64) -> Outcome {
        let args = &call.args;
        match call.name.as_str() {
            "execve" => self.exec(place, args.first()),
            "execveat" => self.exec(place, args.get(1)),
            "fork" | "vfork" | "clone" | "clone2" | "clone3" => self.clone_task(place, call, ret),
            "wait4" | "waitpid" => self.wait(place, args.get(1), ret),
            "waitid" => {
                let pid = args
                    .get(2)
                    .and_then(|info| info.split_once("si_pid="))
                    .and_then(|(_, pid)| number(pid));
                match pid {
                    Some(pid) if has(args.get(3).map_or("", String::as_str), "WNOWAIT") => {
                        Outcome::Skip(format!("child {pid} is not reaped (WNOWAIT)"))
                    }
                    Some(pid) => self.wait(place, args.get(2), pid),
                    None => skip("no child had ended"),
                }
            }
            "open" | "openat" | "openat2" | "creat" | "memfd_create" => self.open(place, call, ret),
            "close" | "close_range" | "dup" | "dup2" | "dup3" | "fcntl" => self.descriptors(place, call, ret),
            _ => self.memory(place, call, ret),
        }
    }

    fn exec(&mut self, place: Place, path: Option<&String>) -> Outcome {
        let Some(path) = path.and_then(|path| quoted(path)) else {
            return Outcome::Bad(
                "execve without a path",
                "execve(\"path\", [arguments], environment) = 0",
            );
        };
        let program = path.rsplit('/').next().unwrap_or(path).to_owned();
        let mut table = self.fds[place.fds].clone();
        table.exec();
        self.fds.push(table);
        let fds = self.fds.len() - 1;
        if self
            .tasks
            .get(&place.tid)
            .is_some_and(|task| task.role == Role::Borrower)
        {
            self.leave(place, fds);
        } else {
            let image = self.image();
            let process = &mut self.processes[place.process];
            let fresh =
                process.birth == Birth::Own && process.program.is_none() && process.changes.is_empty();
            if !fresh {
                process.claim_all(place.thread, &mut self.orders);
                process.exec(image);
                process.op(place.thread, Op::Exec(Nothing {}));
                process.push(place.thread, Step::Image(image));
            }
            let others = self.processes[place.process].threads.iter_mut().enumerate();
            others
                .filter(|(at, _)| *at != place.thread)
                .for_each(|(_, thread)| thread.gone = Some(thread.steps.len()));
        }
        let Some(task) = self.tasks.get_mut(&place.tid) else {
            return Outcome::Took;
        };
        task.fds = fds;
        let process = task.process;
        self.processes[process].program = Some(program);
        Outcome::Took
    }

    /// A borrower gets an address space of its own: a process that starts by meeting its lender.
    fn leave(&mut self, place: Place, fds: usize) {
        let barrier = unique(&mut self.barriers, &format!("spawn-{}", place.tid), '-');
        let meet = || {
            Op::Barrier(BarrierOp {
                name: barrier.clone(),
            })
        };
        self.processes[place.process].op(place.thread, meet());
        let task = self.birth(place.tid, fds);
        let steps = &mut self.processes[task.process].threads[0].steps;
        steps.insert(0, Step::Op(meet()));
    }

    fn clone_task(&mut self, place: Place, call: &Call, ret: u64) -> Outcome {
        let Some(child) = u32::try_from(ret).ok().filter(|&child| child != 0) else {
            return skip("the return in the child");
        };
        let flags =
            field(&call.args, "flags=").unwrap_or_else(|| call.args.first().map_or("", String::as_str));
        let vfork = call.name == "vfork" || has(flags, "CLONE_VFORK");
        let shared = call.name == "vfork" || has(flags, "CLONE_VM");
        let fds = if has(flags, "CLONE_FILES") {
            place.fds
        } else {
            self.fds.push(self.fds[place.fds].clone());
            self.fds.len() - 1
        };
        if !shared {
            return self.fork(place, child, fds);
        }
        let role = if has(flags, "CLONE_THREAD") {
            Role::Member
        } else {
            Role::Borrower
        };
        let thread = if vfork && role == Role::Borrower {
            place.thread
        } else {
            let barrier = unique(&mut self.barriers, &format!("spawn-{child}"), '-');
            self.processes[place.process].spawn(place.thread, child, &barrier)
        };
        self.tasks.insert(
            child,
            Task {
                process: place.process,
                thread,
                fds,
                role,
            },
        );
        self.pids.remove(&child);
        Outcome::Took
    }

    fn fork(&mut self, place: Place, child: u32, fds: usize) -> Outcome {
        let parent = &mut self.processes[place.process];
        parent.claim_all(place.thread, &mut self.orders);
        let mut process = parent.fork(child);
        process.parent = Some(place.process);
        let number = self.processes.len();
        self.processes[place.process].push(place.thread, Step::Fork(number));
        self.enter(child, process, fds);
        Outcome::Took
    }

    fn wait(&mut self, place: Place, status: Option<&String>, ret: u64) -> Outcome {
        if ret == 0 {
            return skip("no child had ended");
        }
        let status = status.map_or("", String::as_str);
        if [
            "WIFSTOPPED",
            "WIFCONTINUED",
            "CLD_STOPPED",
            "CLD_TRAPPED",
            "CLD_CONTINUED",
        ]
        .iter()
        .any(|s| status.contains(s))
        {
            return skip("the child had only stopped or continued");
        }
        let child = u32::try_from(ret).ok();
        let Some(number) = child
            .and_then(|child| self.pids.remove(&child))
            .filter(|&n| n != place.process)
        else {
            return skip("the child never had an address space of its own in the log");
        };
        if self.processes[number].parent == Some(place.process) {
            self.processes[place.process].push(place.thread, Step::Wait(number));
            return Outcome::Took;
        }
        let Some((thread, at)) = self.processes[number].exit else {
            return skip("the end of the child is not in the log");
        };
        let name = unique(&mut self.barriers, &format!("exit-{ret}"), '-');
        let meet = Step::Op(Op::Barrier(BarrierOp { name }));
        self.processes[number].threads[thread]
            .steps
            .insert(at, meet.clone());
        self.processes[number].exit = Some((thread, at + 1));
        self.processes[place.process].push(place.thread, meet);
        Outcome::Took
    }

    fn exit(&mut self, place: Place, name: &str) -> Outcome {
        let Some(task) = self.tasks.get(&place.tid).copied() else {
            return Outcome::Took;
        };
        let process = &mut self.processes[place.process];
        if task.role == Role::Borrower {
            let own = process
                .threads
                .get_mut(place.thread)
                .filter(|thread| thread.tid == place.tid);
            if let Some(thread) = own {
                thread.gone = Some(thread.steps.len());
            }
            self.tasks.remove(&place.tid);
            return Outcome::Took;
        }
        let others = process
            .threads
            .iter()
            .enumerate()
            .any(|(at, t)| at != place.thread && t.gone.is_none());
        if name == "exit" && others {
            process.threads[place.thread].gone = Some(process.at(place.thread));
            return Outcome::Took;
        }
        process.claim_all(place.thread, &mut self.orders);
        process.exit = Some((place.thread, process.at(place.thread)));
        process.op(place.thread, Op::Exit(Nothing {}));
        Outcome::Took
    }

    fn ended(&mut self, tid: u32) {
        let Some(task) = self.tasks.get(&tid).copied() else {
            return;
        };
        let place = Place {
            line: 0,
            tid,
            process: task.process,
            thread: task.thread,
            fds: task.fds,
        };
        if self.alive(place) {
            self.processes[task.process].flush(task.thread);
            self.exit(place, "exit");
        }
        self.tasks.remove(&tid);
    }

    fn open(&mut self, place: Place, call: &Call, ret: u64) -> Outcome {
        let at = usize::from(call.name.starts_with("openat"));
        let Some(path) = call.args.get(at).and_then(|path| quoted(path)) else {
            return Outcome::Bad(
                "no path in quotes",
                "openat(AT_FDCWD, \"path\", flags) = descriptor",
            );
        };
        let flags = call.args.get(at + 1).map_or("", String::as_str);
        let file = match call.name.as_str() {
            "memfd_create" => self.files.fresh(&format!("memfd:{path}")),
            _ if has(flags, "O_TMPFILE") => self.files.fresh(&format!("{path}/unnamed")),
            _ => {
                let path = self.resolve(place, call.args.first().filter(|_| at == 1), path);
                let new = has(flags, "O_CREAT") && has(flags, "O_EXCL");
                if new {
                    self.files.fresh(&path)
                } else {
                    self.files.path(&path)
                }
            }
        };
        let on_exec = if has(flags, "O_CLOEXEC") || has(flags, "MFD_CLOEXEC") {
            OnExec::Close
        } else {
            OnExec::Keep
        };
        self.fds[place.fds].set(ret, file, on_exec);
        let emptied = has(flags, "O_TRUNC") || call.name == "creat";
        if emptied
            && self
                .files
                .get(file)
                .is_some_and(|entry| entry.used && entry.current > 0)
        {
            self.resize(place, file, 0);
        }
        Outcome::Took
    }

    /// A path relative to a known directory descriptor is completed.
    fn resolve(&self, place: Place, dir: Option<&String>, path: &str) -> String {
        let dir = dir.filter(|_| !path.starts_with('/'));
        let known = dir
            .and_then(|dir| number(dir))
            .and_then(|fd| self.fds[place.fds].get(fd));
        match (known, dir.and_then(|dir| decoration(dir))) {
            (Some(dir), _) => format!("{}/{path}", self.files.name(dir)),
            (None, Some(dir)) => format!("{dir}/{path}"),
            (None, None) => path.to_owned(),
        }
    }

    fn descriptors(&mut self, place: Place, call: &Call, ret: u64) -> Outcome {
        let arg = |at: usize| call.args.get(at).and_then(|arg| number(arg));
        let (first, flags) = (arg(0), call.args.last().map_or("", String::as_str));
        let Some(fd) = first else {
            return Outcome::Bad("no descriptor", "a number as first argument");
        };
        let table = &mut self.fds[place.fds];
        let on_exec = if has(flags, "O_CLOEXEC") {
            OnExec::Close
        } else {
            OnExec::Keep
        };
        match call.name.as_str() {
            "close" if table.close(fd, fd) == 0 => {
                return skip("a descriptor that no logged call opened");
            }
            "close" => {}
            "close_range" => {
                let last = arg(1).unwrap_or(u64::from(u32::MAX));
                if has(flags, "CLOSE_RANGE_CLOEXEC") {
                    table.mark(fd, last, OnExec::Close);
                } else {
                    table.close(fd, last);
                }
            }
            "dup" | "dup2" | "dup3" if ret == fd => {}
            "dup" | "dup2" | "dup3" => table.copy(fd, ret, on_exec),
            _ => match call.args.get(1).map_or("", String::as_str) {
                "F_DUPFD" => table.copy(fd, ret, OnExec::Keep),
                "F_DUPFD_CLOEXEC" => table.copy(fd, ret, OnExec::Close),
                "F_SETFD" => table.mark(
                    fd,
                    fd,
                    if has(flags, "FD_CLOEXEC") {
                        OnExec::Close
                    } else {
                        OnExec::Keep
                    },
                ),
                _ => return skip("does not change descriptors"),
            },
        }
        Outcome::Took
    }

    /// The file behind a descriptor argument; one is invented when the log does not show it.
    pub(super) fn file(&mut self, place: Place, arg: &str) -> Option<usize> {
        let fd = number(arg)?;
        if let Some(file) = self.fds[place.fds].get(fd) {
            return Some(file);
        }
        let file = match decoration(arg) {
            Some(path) => self.files.path(path),
            None => {
                let text = "a descriptor that no logged call opened stands for a file of its own";
                self.summary.assume(text.to_owned());
                self.files.fresh(&format!("descriptor-{fd}-of-{}", place.tid))
            }
        };
        self.fds[place.fds].set(fd, file, OnExec::Keep);
        Some(file)
    }
}
