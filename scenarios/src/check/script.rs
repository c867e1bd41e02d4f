//! Checks of what moves: processes, threads, operations.

use std::collections::BTreeSet;

use super::Checker;
use super::path::At;
use crate::ast::{
    AccessOp, Address, AttachDef, Birth, ForkOp, MmapOp, MremapOp, Op, Pattern, ProcessDef, Region,
    ThreadDef, TouchOp,
};
use crate::diagnostic::Code;
use crate::diagnostic::suggest::{self, quote};

/// Most operations of one script, `repeat` multiplied out.
pub const MAX_OPS: u128 = 100_000_000;

/// Most accesses of one `access`.
pub const MAX_ACCESSES: u64 = 1_000_000_000_000;

/// Most pages of one pointer chase, whose order is kept in memory.
pub const MAX_CHASE: u64 = 1 << 24;

/// Longest duration: more than eleven days.
pub(super) const MAX_NS: u64 = 1_000_000_000_000_000;

/// Most pages of a file: what 63 bits of bytes can count.
const MAX_FILE: u64 = 1 << 51;

/// Largest exponent of a Zipf distribution.
const MAX_ZIPF: f64 = 100.0;

/// Whose script it is and how often the operation at hand runs.
#[derive(Clone, Copy)]
pub(super) struct Context<'a> {
    pub(super) process: &'a str,
    thread: &'a ThreadDef,
    /// The thread imports memory of its process and lives on another partition.
    rank: bool,
    times: u128,
}

/// Whether an operation may leave its region out.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Absent {
    Refused,
    /// Everything that the secondary MMU shadows.
    Whole,
}

/// A region, wherever the operation writes it.
pub(super) struct Part<'a> {
    map: Option<&'a str>,
    address: Option<&'a Address>,
    first: u64,
    pages: Option<u64>,
}

impl<'a> From<&'a Region> for Part<'a> {
    fn from(region: &'a Region) -> Self {
        Part {
            map: region.map.as_deref(),
            address: region.at.as_ref(),
            first: region.first,
            pages: region.pages,
        }
    }
}

impl<'a> Checker<'a> {
    pub(super) fn processes(&mut self) {
        let root = At::ROOT;
        let processes = root.key("processes");
        for (name, process) in &self.scenario.processes {
            let at = processes.key(name);
            self.attachments(name, process, &at);
            self.birth(name, process, &at);
            let threads = at.key("threads");
            for (thread, def) in &process.threads {
                self.thread(name, process, def, &threads.key(thread));
            }
        }
        self.barriers();
    }

    /// How a process comes into being, and whether it does anything.
    fn birth(&mut self, name: &str, process: &ProcessDef, at: &At<'_>) {
        let forked = process.forked.is_some();
        match self.facts.parents.get(name) {
            None if forked => {
                let message = format!(
                    "process {} is declared forked, but no thread forks it",
                    quote(name)
                );
                let help = format!("let a thread execute {{\"fork\": {{\"child\": \"{name}\"}}}}");
                self.error(Code::BadFork, &at.key("forked"), message, help);
            }
            Some(parent) if forked => {
                let partition = |name: &str| {
                    self.scenario
                        .processes
                        .get(name)
                        .and_then(|process| process.partition.clone())
                };
                if partition(name) != partition(parent) {
                    let message = format!(
                        "process {} is forked on another partition than its parent",
                        quote(name)
                    );
                    self.error(
                        Code::BadFork,
                        &at.key("partition"),
                        message,
                        "a child lives on the partition of its parent",
                    );
                }
            }
            _ => {}
        }
        if forked && !process.maps.is_empty() {
            let message = format!("process {} is forked, but has mappings of its own", quote(name));
            self.error(
                Code::ForkedMaps,
                &at.key("maps"),
                message,
                "a child begins with the mappings of its parent; let a thread of it `mmap` others",
            );
        }
        if process.threads.is_empty() && !forked {
            let message = format!("process {} has no thread", quote(name));
            self.warn_key(
                Code::NoThreads,
                at,
                message,
                "give it a thread with a script, or leave it out",
            );
        }
    }

    fn thread(&mut self, process: &'a str, def: &'a ProcessDef, thread: &'a ThreadDef, at: &At<'_>) {
        if let (Some(cpu), Some(cpus)) = (thread.cpu, self.cpus)
            && cpu >= cpus
        {
            let message = format!("CPU {cpu} does not exist: there are {cpus}");
            self.error(
                Code::CpuRange,
                &at.key("cpu"),
                message,
                format!("write 0 to {}", cpus - 1),
            );
        }
        if let Some(mmu) = &thread.drives {
            self.mmu_name(mmu, def, &at.key("as"));
        }
        if thread.birth == Birth::FirstBarrier && !matches!(thread.script.first(), Some(Op::Barrier(_))) {
            let message = "the thread is born at its first barrier, but its script does not begin with one";
            let help = "begin the script with the barrier, or leave `birth` out";
            self.error(
                Code::BirthWithoutBarrier,
                &at.key("birth"),
                message.to_owned(),
                help,
            );
        }
        let total = weight(&thread.script);
        if total > MAX_OPS {
            let message = format!("the script executes {total} operations, at most {MAX_OPS} are possible");
            self.error(Code::TooManyOps, &at.key("script"), message, "repeat less");
        }
        let driven = thread.drives.as_ref().and_then(|mmu| def.attach.get(mmu));
        let context = Context {
            process,
            thread,
            rank: matches!(driven, Some(AttachDef::Xpmem(_))),
            times: 1,
        };
        self.script(&thread.script, context, &at.key("script"));
    }

    fn script(&mut self, script: &'a [Op], context: Context<'a>, at: &At<'_>) {
        for (index, op) in script.iter().enumerate() {
            self.op(op, context, &at.index(index));
        }
    }

    fn op(&mut self, op: &'a Op, context: Context<'a>, at: &At<'_>) {
        let process = context.process;
        if context.rank && changes_process(op) {
            let message = format!(
                "`{}` by a thread that imports memory of process {}",
                op.name(),
                quote(process)
            );
            let help = "a rank lives on another partition: let another thread of the process do it";
            self.error(Code::RankOperation, &at.key(op.name()), message, help);
        }
        match op {
            Op::Touch(op) => self.touch(op, context, &at.key("touch")),
            Op::Access(op) => self.access(op, context, &at.key("access")),
            Op::Mmap(op) => self.mmap(op, &at.key("mmap")),
            Op::Munmap(region) => self.region(region.into(), Absent::Refused, context, &at.key("munmap")),
            Op::Mlock(region) => self.region(region.into(), Absent::Refused, context, &at.key("mlock")),
            Op::Munlock(region) => self.region(region.into(), Absent::Refused, context, &at.key("munlock")),
            Op::Mprotect(op) => {
                let at = at.key("mprotect");
                self.region((&op.region).into(), Absent::Refused, context, &at.key("region"));
            }
            Op::Mremap(op) => self.mremap(op, context, &at.key("mremap")),
            Op::RemapFilePages(op) => self.remap_file_pages(op, context, &at.key("remap_file_pages")),
            Op::Madvise(op) => self.madvise(op, context, &at.key("madvise")),
            Op::Writeback(op) => {
                self.file_name(&op.file, &at.key("writeback").key("file"));
            }
            Op::Msync(region) => self.region(region.into(), Absent::Refused, context, &at.key("msync")),
            Op::Migrate(op) => {
                let at = at.key("migrate");
                self.region((&op.region).into(), Absent::Refused, context, &at.key("region"));
            }
            Op::Brk(op) => {
                self.address(&op.to, &at.key("brk").key("to"));
            }
            Op::Truncate(op) => {
                let at = at.key("truncate");
                self.file_name(&op.file, &at.key("file"));
                self.file_size(op.pages, &at.key("pages"));
                self.huge_truncate(&op.file, op.pages, &at.key("pages"));
            }
            Op::Reclaim(op) => {
                if op.pages == 0 {
                    let at = at.key("reclaim");
                    self.error(
                        Code::Zero,
                        &at.key("pages"),
                        "`reclaim` of 0 pages",
                        "write 1 or more",
                    );
                }
            }
            Op::Fork(op) => self.fork(op, context, &at.key("fork").key("child")),
            Op::Wait(op) => self.wait(&op.child, process, &at.key("wait").key("child")),
            Op::Register(op) => self.mmu_of(process, &op.mmu, &at.key("register").key("mmu")),
            Op::Unregister(op) => self.mmu_of(process, &op.mmu, &at.key("unregister").key("mmu")),
            Op::Repeat(op) => {
                let at = at.key("repeat");
                if op.times == 0 {
                    self.error(
                        Code::Zero,
                        &at.key("times"),
                        "`repeat` 0 times",
                        "leave it out, or write 1 or more",
                    );
                }
                if op.script.is_empty() {
                    self.error(
                        Code::Zero,
                        &at.key("script"),
                        "`repeat` without operations",
                        "leave it out, or give it a script",
                    );
                }
                let times = context.times.saturating_mul(op.times.into());
                self.script(&op.script, Context { times, ..context }, &at.key("script"));
            }
            Op::Compute(op) => self.duration(op.ns, &at.key("compute").key("ns")),
            Op::Sleep(op) => self.duration(op.ns, &at.key("sleep").key("ns")),
            Op::Exec(_) | Op::Exit(_) | Op::Barrier(_) => {}
        }
    }

    pub(super) fn duration(&mut self, ns: u64, at: &At<'_>) {
        if ns > MAX_NS {
            let message = format!("{ns} ns, at most {MAX_NS} are possible");
            self.error(Code::TooLong, at, message, "write a shorter time");
        }
    }

    fn file_size(&mut self, pages: u64, at: &At<'_>) {
        if pages > MAX_FILE {
            let message = format!("a file of {pages} pages, at most {MAX_FILE} are possible");
            self.error(Code::TooMuch, at, message, "write a smaller size");
        }
    }

    /// Pages of a part as far as the file tells.
    pub(super) fn part_pages(&self, part: &Part<'_>, context: Context<'a>) -> Option<u64> {
        if part.pages.is_some() {
            return part.pages;
        }
        if let Some(map) = part.map {
            let size = self.facts.maps.get(context.process)?.get(map).copied()??;
            return size.checked_sub(part.first);
        }
        let process = self.scenario.processes.get(context.process)?;
        match process.attach.get(context.thread.drives.as_ref()?)? {
            AttachDef::Kvm(d) => Some(self.shadowed_pages(context.process, &d.maps, &d.ranges)),
            AttachDef::Xpmem(d) => Some(self.shadowed_pages(context.process, &d.maps, &d.ranges)),
            AttachDef::Gru(_) => None,
        }
    }

    fn touch(&mut self, op: &'a TouchOp, context: Context<'a>, at: &At<'_>) {
        if op.stride == 0 {
            self.error(Code::Zero, &at.key("stride"), "`stride` is 0", "write 1 or more");
        }
        let part = Part {
            map: op.map.as_deref(),
            address: op.at.as_ref(),
            first: op.first,
            pages: op.pages,
        };
        let touched = self.part_pages(&part, context).unwrap_or(0);
        let total = u128::from(touched.div_ceil(op.stride.max(1))).saturating_mul(context.times);
        if total > MAX_ACCESSES.into() {
            let message = format!("{total} accesses, at most {MAX_ACCESSES} are possible");
            self.error(Code::TooManyOps, at, message, "touch less, or repeat less");
        }
        self.region(part, Absent::Refused, context, at);
    }

    fn access(&mut self, op: &'a AccessOp, context: Context<'a>, at: &At<'_>) {
        if op.count == 0 {
            self.error(
                Code::Zero,
                &at.key("count"),
                "`count` is 0",
                "leave the operation out, or write 1 or more",
            );
        } else if op.count > MAX_ACCESSES {
            let message = format!("{} accesses, at most {MAX_ACCESSES} are possible", op.count);
            self.error(Code::TooManyOps, &at.key("count"), message, "access less");
        }
        if op.write_percent > 100 {
            let message = format!("{} percent of the accesses are stores", op.write_percent);
            self.error(
                Code::BadPercent,
                &at.key("write_percent"),
                message,
                "write 0 to 100",
            );
        }
        let pattern = at.key("pattern");
        match op.pattern {
            Pattern::Stride(0) => {
                self.error(
                    Code::BadPattern,
                    &pattern.key("stride"),
                    "a stride of 0 pages",
                    "write 1 or more",
                );
            }
            Pattern::Zipf(exponent) if !(exponent > 0.0 && exponent <= MAX_ZIPF) => {
                let message = format!("a Zipf distribution with exponent {exponent}");
                let help = format!("write a number above 0 and up to {MAX_ZIPF}, for example 0.99");
                self.error(Code::BadPattern, &pattern.key("zipf"), message, help);
            }
            _ => {}
        }
        let part = Part {
            map: op.map.as_deref(),
            address: op.at.as_ref(),
            first: op.first,
            pages: op.pages,
        };
        let pages = self.part_pages(&part, context).unwrap_or(0);
        if op.pattern == Pattern::PointerChase && pages > MAX_CHASE {
            let message = format!("a pointer chase over {pages} pages, at most {MAX_CHASE} are possible");
            self.error(Code::BadPattern, &pattern, message, "chase through fewer pages");
        }
        let drives = context.thread.drives.is_some();
        let absent = if drives { Absent::Whole } else { Absent::Refused };
        self.region(part, absent, context, at);
    }

    fn mmap(&mut self, op: &'a MmapOp, at: &At<'_>) {
        if op.pages == 0 {
            self.error(
                Code::Zero,
                &at.key("pages"),
                "a mapping of 0 pages",
                "map at least one page",
            );
        }
        self.file_range(op.file.as_deref(), op.offset, Some(op.pages), at);
        let start = match &op.at {
            Some(address) => self.address(address, &at.key("at")),
            None => Some(0),
        };
        self.huge_place(op.file.as_deref(), start, at);
        if let Some(start) = start {
            self.end(start, op.pages, &at.key("pages"));
        }
    }

    fn mremap(&mut self, op: &'a MremapOp, context: Context<'a>, at: &At<'_>) {
        self.region((&op.region).into(), Absent::Refused, context, &at.key("region"));
        if op.new_pages == 0 {
            self.error(
                Code::Zero,
                &at.key("new_pages"),
                "a mapping of 0 pages",
                "to remove it write `munmap`",
            );
        }
        let start = match &op.to {
            Some(address) => self.address(address, &at.key("to")),
            None => Some(0),
        };
        if let Some(start) = start {
            self.end(start, op.new_pages, &at.key("new_pages"));
        }
    }

    /// A part of the address space.
    pub(super) fn region(&mut self, part: Part<'a>, absent: Absent, context: Context<'a>, at: &At<'_>) {
        if part.pages == Some(0) {
            self.error(
                Code::Zero,
                &at.key("pages"),
                "a region of 0 pages",
                "write 1 or more, or leave `pages` out",
            );
        }
        match (part.map, part.address) {
            (Some(_), Some(_)) => {
                self.error(
                    Code::BadRegion,
                    &at.key("at"),
                    "the region names both `map` and `at`",
                    "name the mapping or the address, not both",
                );
            }
            (None, None) if absent == Absent::Whole => {
                if part.first != 0 || part.pages.is_some() {
                    self.error(
                        Code::BadRegion,
                        at,
                        "`first` and `pages` without `map` or `at`",
                        "say where: `\"map\": ...` or `\"at\": ...`",
                    );
                }
            }
            (None, None) => {
                self.error(
                    Code::BadRegion,
                    at,
                    "the region names neither `map` nor `at`",
                    "say where: `\"map\": ...` or `\"at\": ...`",
                );
            }
            (Some(map), None) => {
                if self.map_name(context.process, map, &at.key("map")) {
                    self.inside(map, &part, context, at);
                }
            }
            (None, Some(address)) => {
                let start = self.address(address, &at.key("at"));
                let Some(pages) = part.pages else {
                    self.error(
                        Code::BadRegion,
                        at,
                        "a region by address needs `pages`",
                        "add `\"pages\": ...`",
                    );
                    return;
                };
                if let Some(start) = start {
                    self.end(start, part.first.saturating_add(pages), &at.key("pages"));
                }
            }
        }
    }

    /// A region against the size of its mapping.
    fn inside(&mut self, map: &str, part: &Part<'_>, context: Context<'a>, at: &At<'_>) {
        let maps = self.facts.maps.get(context.process);
        let Some(Some(size)) = maps.and_then(|maps| maps.get(map)).copied() else {
            return;
        };
        let end = part.first.saturating_add(part.pages.unwrap_or(1));
        if end > size {
            let key = if part.pages.is_some() { "pages" } else { "first" };
            let message = match part.pages {
                Some(_) => format!(
                    "the region ends at page {end} of mapping {}, which has {size}",
                    quote(map)
                ),
                None => format!(
                    "the region starts at page {} of mapping {}, which has {size}",
                    part.first,
                    quote(map)
                ),
            };
            self.error(
                Code::BeyondMap,
                &at.key(key),
                message,
                format!("stay within the {size} pages"),
            );
        }
    }

    pub(super) fn map_name(&mut self, process: &str, map: &str, at: &At<'_>) -> bool {
        let names: Vec<&str> = match self.facts.maps.get(process) {
            Some(maps) if maps.contains_key(map) => return true,
            Some(maps) => maps.keys().copied().collect(),
            None => Vec::new(),
        };
        let message = format!("unknown mapping {} in process {}", quote(map), quote(process));
        self.error(
            Code::UnknownMap,
            at,
            message,
            suggest::help("mappings", map, &names),
        );
        false
    }

    fn mmu_of(&mut self, process: &str, mmu: &str, at: &At<'_>) {
        if let Some(def) = self.scenario.processes.get(process) {
            self.mmu_name(mmu, def, at);
        }
    }

    fn mmu_name(&mut self, mmu: &str, def: &ProcessDef, at: &At<'_>) {
        if !def.attach.contains_key(mmu) {
            let names: Vec<&str> = def.attach.keys().map(String::as_str).collect();
            let message = format!("unknown secondary MMU {}", quote(mmu));
            self.error(
                Code::UnknownMmu,
                at,
                message,
                suggest::help("attached here", mmu, &names),
            );
        }
    }

    fn process_name(&mut self, name: &str, at: &At<'_>) -> Option<&'a ProcessDef> {
        let scenario = self.scenario;
        let process = scenario.processes.get(name);
        if process.is_none() {
            let names: Vec<&str> = scenario.processes.keys().map(String::as_str).collect();
            let help = suggest::help("processes", name, &names);
            self.error(
                Code::UnknownProcess,
                at,
                format!("unknown process {}", quote(name)),
                help,
            );
        }
        process
    }

    fn fork(&mut self, op: &'a ForkOp, context: Context<'a>, at: &At<'_>) {
        let Some(process) = self.process_name(&op.child, at) else {
            return;
        };
        let child = quote(&op.child);
        if op.child == context.process {
            let message = format!("process {child} forks itself");
            self.error(
                Code::BadFork,
                at,
                message,
                "a process is named once; give the child a name of its own",
            );
        } else if process.forked.is_none() {
            let message = format!("process {child} is forked but not declared so");
            self.error(
                Code::BadFork,
                at,
                message,
                "add `\"forked\": \"by-parent\"` to it",
            );
        } else if context.times > 1 {
            let message = format!("process {child} is forked {} times", context.times);
            self.error(
                Code::BadFork,
                at,
                message,
                "a process is born once; declare a process for each fork",
            );
        } else if !self.forked.insert(&op.child) {
            let message = format!("process {child} is forked a second time");
            self.error(
                Code::BadFork,
                at,
                message,
                "a process is born once; declare a process for each fork",
            );
        }
    }

    fn wait(&mut self, child: &'a str, process: &str, at: &At<'_>) {
        if self.process_name(child, at).is_some() && self.facts.parents.get(child) != Some(&process) {
            let message = format!("process {} is not a child of {}", quote(child), quote(process));
            self.error(
                Code::BadFork,
                at,
                message,
                "wait for a process that this one forks",
            );
        }
    }

    fn barriers(&mut self) {
        let lonely: BTreeSet<(&str, &str, &str)> = self
            .facts
            .barriers
            .iter()
            .filter(|(_, threads)| threads.len() == 1)
            .flat_map(|(name, threads)| threads.iter().map(|(p, t)| (*name, *p, *t)))
            .collect();
        let root = At::ROOT;
        let processes = root.key("processes");
        for (name, process, thread) in lonely {
            let here = processes.key(process);
            let threads = here.key("threads");
            let at = threads.key(thread);
            let script = &self.scenario.processes[process].threads[thread].script;
            self.lonely(name, script, &at.key("script"));
        }
    }

    /// Warns at the first mention of a barrier.
    fn lonely(&mut self, name: &str, script: &'a [Op], at: &At<'_>) -> bool {
        script.iter().enumerate().any(|(index, op)| {
            let here = at.index(index);
            match op {
                Op::Barrier(op) if op.name == name => {
                    let message = format!("only this thread takes part in barrier {}", quote(name));
                    let help = "name the barrier in another thread too, or leave it out";
                    self.warn(
                        Code::LonelyBarrier,
                        &here.key("barrier").key("name"),
                        message,
                        help,
                    );
                    true
                }
                Op::Repeat(op) => self.lonely(name, &op.script, &here.key("repeat").key("script")),
                _ => false,
            }
        })
    }
}

/// Whether an operation works on the address space or the life of the process, for which a thread must
/// run on its kernel.
pub(crate) fn changes_process(op: &Op) -> bool {
    matches!(
        op,
        Op::Mmap(_)
            | Op::Munmap(_)
            | Op::Mprotect(_)
            | Op::Mremap(_)
            | Op::RemapFilePages(_)
            | Op::Madvise(_)
            | Op::Mlock(_)
            | Op::Munlock(_)
            | Op::Brk(_)
            | Op::Fork(_)
            | Op::Exec(_)
            | Op::Truncate(_)
            | Op::Writeback(_)
            | Op::Msync(_)
            | Op::Migrate(_)
            | Op::Reclaim(_)
    )
}

/// Operations that a script executes.
fn weight(script: &[Op]) -> u128 {
    script.iter().fold(0, |sum: u128, op| {
        let own = match op {
            Op::Repeat(repeat) => u128::from(repeat.times).saturating_mul(weight(&repeat.script).max(1)),
            _ => 1,
        };
        sum.saturating_add(own)
    })
}
