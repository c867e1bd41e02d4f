//! Secondary MMUs for recorded programs: the wish, the choice of memory, the driving thread.

use std::fmt;
use std::str::FromStr;

use crate::ast::{
    AccessOp, AttachDef, AttachRef, BarrierOp, GruDef, GruMiss, GuestPaging, KvmDef, Op, Pattern, Prot,
    RangeDef, RegisterWhen, RepeatOp, Switch, ThreadDef, UnpinOrder, XpmemDef,
};

use super::process::{Change, Kind, Process, Step};
use super::space::{Area, Backing, Span, SpanMap, address};

/// Number of chunks that the accesses of a driving thread are split into.
const CHUNKS: u64 = 20;
const GRAMMAR: &str = "<kvm|gru|xpmem>:<largest|heap|file|all|0xSTART-0xEND>[@process]";

/// Kind of a secondary MMU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MmuKind {
    /// A KVM guest.
    Kvm,
    /// GRU contexts.
    Gru,
    /// An XPMEM export.
    Xpmem,
}

/// Which memory of the process the secondary MMU works on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttachTarget {
    /// The anonymous private mapping with the largest product of pages and lifetime.
    Largest,
    /// The heap (brk) at its largest.
    Heap,
    /// The largest shared mapping of a file.
    File,
    /// Everything accessible that is still mapped at the end.
    All,
    /// Addresses from the first, up to but not including the second.
    Range(u64, u64),
}

/// A wish for a secondary MMU: `kvm:largest`, `gru:heap@redis-server`, `xpmem:0x7f0000000000-0x7f0000200000`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttachSpec {
    /// Kind of secondary MMU.
    pub mmu: MmuKind,
    /// Memory.
    pub target: AttachTarget,
    /// Process, by name in the scenario, program or pid; default: the one with most changes to
    /// its address space after its last execve.
    pub process: Option<String>,
}

/// Why a text is not an [`AttachSpec`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` names no secondary MMU to attach: {wrong}; expected {GRAMMAR}")]
pub struct AttachSpecError {
    /// The text.
    pub text: String,
    /// What is wrong with it.
    pub wrong: String,
}

impl FromStr for AttachSpec {
    type Err = AttachSpecError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = |wrong: String| AttachSpecError {
            text: text.to_owned(),
            wrong,
        };
        let (kind, rest) = text.split_once(':').ok_or_else(|| error("no colon".to_owned()))?;
        let mmu = match kind {
            "kvm" => MmuKind::Kvm,
            "gru" => MmuKind::Gru,
            "xpmem" => MmuKind::Xpmem,
            _ => return Err(error(format!("no secondary MMU is called `{kind}`"))),
        };
        let (target, process) = match rest.split_once('@') {
            Some((_, "")) => return Err(error("no process after `@`".to_owned())),
            Some((target, process)) => (target, Some(process.to_owned())),
            None => (rest, None),
        };
        let target = match target {
            "largest" => AttachTarget::Largest,
            "heap" => AttachTarget::Heap,
            "file" => AttachTarget::File,
            "all" => AttachTarget::All,
            _ => range(target).map_err(error)?,
        };
        Ok(AttachSpec { mmu, target, process })
    }
}

fn range(text: &str) -> Result<AttachTarget, String> {
    let (start, end) = text
        .split_once('-')
        .ok_or_else(|| format!("no memory is called `{text}`"))?;
    let hex = |text: &str| {
        let digits = text.strip_prefix("0x").filter(|digits| !digits.starts_with('+'));
        let value = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok());
        value.ok_or_else(|| format!("`{text}` is not an address such as 0x7f0000000000"))
    };
    let (start, end) = (hex(start)?, hex(end)?);
    match Span::between(start, end) {
        Some(_) => Ok(AttachTarget::Range(start, end)),
        None => Err(format!(
            "{start:#x}-{end:#x} is not a non-empty, page aligned range of user addresses"
        )),
    }
}

impl fmt::Display for AttachSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mmu = match self.mmu {
            MmuKind::Kvm => "kvm",
            MmuKind::Gru => "gru",
            MmuKind::Xpmem => "xpmem",
        };
        match self.target {
            AttachTarget::Largest => write!(f, "{mmu}:largest")?,
            AttachTarget::Heap => write!(f, "{mmu}:heap")?,
            AttachTarget::File => write!(f, "{mmu}:file")?,
            AttachTarget::All => write!(f, "{mmu}:all")?,
            AttachTarget::Range(start, end) => write!(f, "{mmu}:{start:#x}-{end:#x}")?,
        }
        self.process
            .iter()
            .try_for_each(|process| write!(f, "@{process}"))
    }
}

/// What is added to a process for a wish.
pub(super) struct Attached {
    pub(super) process: usize,
    pub(super) mmu: String,
    pub(super) def: AttachDef,
    pub(super) driver: (String, ThreadDef),
}

/// Chooses memory for a wish and puts the meeting points into the scripts.
pub(super) fn place(
    spec: &AttachSpec,
    nth: usize,
    (processes, names): (&mut [Process], &[String]),
    accesses: u64,
) -> Result<Attached, String> {
    let number = choose_process(spec, processes, names)?;
    let process = &mut processes[number];
    let ranges = choose_memory(spec.target, process)
        .ok_or_else(|| format!("process `{}` has no such memory", names[number]))?;
    let ready = ready(&process.changes, &ranges).ok_or_else(|| {
        format!(
            "the memory is never mapped as a whole in process `{}`",
            names[number]
        )
    })?;
    let suffix = if nth == 0 {
        String::new()
    } else {
        (nth + 1).to_string()
    };
    let (mmu, thread) = match spec.mmu {
        MmuKind::Kvm => (format!("vm{suffix}"), format!("vcpu{nth}")),
        MmuKind::Gru => (format!("gru{nth}"), format!("gru{nth}-job")),
        MmuKind::Xpmem => (format!("peer{suffix}"), format!("peer{suffix}-rank")),
    };
    let end = meeting_points(process, &ranges, ready, &mmu);
    let regions: &[Span] = if spec.mmu == MmuKind::Gru { &ranges } else { &[] };
    let mut script = vec![barrier(&format!("attach-{mmu}"))];
    script.extend(drive(regions, accesses));
    script.extend(end);
    let driver = (
        thread,
        ThreadDef {
            cpu: None,
            drives: Some(mmu.clone()),
            birth: crate::ast::Birth::FirstBarrier,
            script,
        },
    );
    Ok(Attached {
        process: number,
        def: def(spec.mmu, &ranges),
        mmu,
        driver,
    })
}

fn barrier(name: &str) -> Op {
    Op::Barrier(BarrierOp {
        name: name.to_owned(),
    })
}

fn choose_process(spec: &AttachSpec, processes: &[Process], names: &[String]) -> Result<usize, String> {
    let Some(wish) = &spec.process else {
        let most = (0..processes.len()).max_by_key(|&at| (own_changes(&processes[at]), usize::MAX - at));
        return most.ok_or_else(|| "there is no process".to_owned());
    };
    let fits = |at: &usize| {
        let process = &processes[*at];
        names[*at] == *wish || process.program.as_ref() == Some(wish) || process.pid.to_string() == *wish
    };
    let fitting: Vec<usize> = (0..processes.len()).filter(fits).collect();
    let list = |at: &[usize]| {
        at.iter()
            .map(|&at| format!("`{}`", names[at]))
            .collect::<Vec<_>>()
            .join(", ")
    };
    match fitting.as_slice() {
        [one] => Ok(*one),
        [] => Err(format!(
            "no process `{wish}`; there are {}",
            list(&(0..processes.len()).collect::<Vec<_>>())
        )),
        many => Err(format!("`{wish}` may mean {}", list(many))),
    }
}

fn own_changes(process: &Process) -> usize {
    process.changes.iter().filter(|change| change.line > 0).count()
}

fn choose_memory(target: AttachTarget, process: &Process) -> Option<Vec<Span>> {
    let changes = &process.changes;
    let made = |fits: fn(&Area) -> bool| {
        let each = changes.iter().enumerate();
        each.filter(move |(_, change)| matches!(&change.kind, Kind::Made(area) if area.prot != Prot::None && fits(area)))
    };
    match target {
        AttachTarget::Largest => {
            let weight = |&(at, change): &(usize, &Change)| {
                let end =
                    gone(changes, at, &[change.span]).map_or_else(|| last_line(changes), |gone| gone.line);
                (
                    u128::from(change.span.pages()) * u128::from(end.saturating_sub(change.line) + 1),
                    usize::MAX - at,
                )
            };
            made(|area| area.backing == Backing::Anon)
                .max_by_key(weight)
                .map(|(_, change)| vec![change.span])
        }
        AttachTarget::Heap => {
            let start = process.heap?.0;
            let grown = made(|area| area.backing == Backing::Heap).map(|(_, change)| change.span.end);
            Span::between(start, grown.max()?).map(|span| vec![span])
        }
        AttachTarget::File => {
            let size = |change: &Change| (change.span.pages(), u64::MAX - change.line);
            let shared = made(|area| matches!(area.backing, Backing::Shared(_))).map(|(_, change)| change);
            shared
                .max_by_key(|change| size(change))
                .map(|change| vec![change.span])
        }
        AttachTarget::All => {
            let usable = process.areas.iter();
            let usable = usable.filter(|(_, area)| area.prot != Prot::None && area.backing != Backing::Image);
            let mut spans: Vec<Span> = Vec::new();
            for (span, _) in usable {
                match spans.last_mut() {
                    Some(last) if last.end == span.start => last.end = span.end,
                    _ => spans.push(span),
                }
            }
            (!spans.is_empty()).then_some(spans)
        }
        AttachTarget::Range(start, end) => Span::between(start, end).map(|span| vec![span]),
    }
}

fn last_line(changes: &[Change]) -> u64 {
    changes.iter().map(|change| change.line).max().unwrap_or(0)
}

/// First change after `from` that unmaps part of the ranges. Parts that are replaced before the
/// first touch (a loader maps a library as a whole, then its segments over it) stay mapped.
fn gone<'a>(changes: &'a [Change], from: usize, ranges: &[Span]) -> Option<&'a Change> {
    let born = changes.get(from)?;
    let replaced = |change: &Change| change.thread == born.thread && change.before < born.after;
    let mut later = changes
        .iter()
        .skip(from + 1)
        .filter(|change| change.kind == Kind::Gone && !replaced(change));
    later.find(|change| ranges.iter().any(|range| range.overlaps(change.span)))
}

/// First change after which all ranges are mapped.
fn ready(changes: &[Change], ranges: &[Span]) -> Option<usize> {
    let first = ranges.first()?;
    let last = ranges.last()?;
    let hull = Span::between(first.start, last.end)?;
    let mut mapped: SpanMap<()> = SpanMap::default();
    for (at, change) in changes
        .iter()
        .enumerate()
        .filter(|(_, change)| change.span.overlaps(hull))
    {
        match change.kind {
            Kind::Made(_) => mapped.set(change.span, ()),
            Kind::Gone => mapped.remove(change.span),
        }
        if matches!(change.kind, Kind::Made(_)) && ranges.iter().all(|range| mapped.gaps(*range).is_empty()) {
            return Some(at);
        }
    }
    None
}

/// Registers once the memory exists, and lets the device stop before the memory goes away.
fn meeting_points(process: &mut Process, ranges: &[Span], ready: usize, mmu: &str) -> Option<Op> {
    let end = gone(&process.changes, ready, ranges)
        .map(|change| (change.thread, change.before))
        .or(process.exit);
    let born = process.changes[ready];
    let detach = barrier(&format!("detach-{mmu}"));
    if let Some((thread, at)) = end {
        insert(process, thread, at, vec![detach.clone()]);
    }
    let register = Op::Register(AttachRef { mmu: mmu.to_owned() });
    insert(
        process,
        born.thread,
        born.after,
        vec![register, barrier(&format!("attach-{mmu}"))],
    );
    end.map(|_| detach)
}

/// Inserts steps and moves the recorded positions behind them.
fn insert(process: &mut Process, thread: usize, at: usize, ops: Vec<Op>) {
    let n = ops.len();
    let Some(steps) = process.threads.get_mut(thread).map(|thread| &mut thread.steps) else {
        return;
    };
    let at = at.min(steps.len());
    steps.splice(at..at, ops.into_iter().map(Step::Op));
    for change in process
        .changes
        .iter_mut()
        .filter(|change| change.thread == thread)
    {
        change.before += if change.before >= at { n } else { 0 };
        change.after += if change.after > at { n } else { 0 };
    }
    if let Some((of, end)) = &mut process.exit
        && *of == thread
        && *end >= at
    {
        *end += n;
    }
}

/// Accesses in chunks, so that they overlap with what the process does meanwhile.
fn drive(regions: &[Span], accesses: u64) -> Vec<Op> {
    let total: u64 = regions.iter().map(|span| span.pages()).sum();
    let share = |count: u64, span: &Span| {
        u64::try_from(u128::from(count) * u128::from(span.pages()) / u128::from(total.max(1)))
            .unwrap_or(count)
    };
    let chunk = |count: u64| -> Vec<Op> {
        if regions.is_empty() {
            return (count > 0).then(|| access(None, count)).into_iter().collect();
        }
        let parts = regions.iter().map(|span| (Some(*span), share(count, span)));
        parts
            .filter(|(_, count)| *count > 0)
            .map(|(span, count)| access(span, count))
            .collect()
    };
    let mut script = Vec::new();
    let repeated = chunk(accesses / CHUNKS);
    if !repeated.is_empty() {
        script.push(Op::Repeat(RepeatOp {
            times: CHUNKS,
            script: repeated,
        }));
    }
    script.extend(chunk(accesses % CHUNKS));
    script
}

fn access(span: Option<Span>, count: u64) -> Op {
    Op::Access(AccessOp {
        map: None,
        at: span.map(|span| address(span.start)),
        first: 0,
        pages: span.map(Span::pages),
        pattern: Pattern::Uniform,
        count,
        write_percent: 0,
    })
}

fn def(mmu: MmuKind, ranges: &[Span]) -> AttachDef {
    let ranges: Vec<RangeDef> = ranges
        .iter()
        .map(|span| RangeDef {
            at: address(span.start),
            pages: span.pages(),
        })
        .collect();
    let register = RegisterWhen::ByOp;
    match mmu {
        MmuKind::Kvm => AttachDef::Kvm(KvmDef {
            maps: Vec::new(),
            ranges,
            paging: GuestPaging::Direct,
            version: "2.6.27".to_owned(),
            unpin: UnpinOrder::FlushFirst,
            register,
        }),
        MmuKind::Gru => AttachDef::Gru(GruDef {
            chiplets: 1,
            miss: GruMiss::Interrupt,
            register,
        }),
        MmuKind::Xpmem => AttachDef::Xpmem(XpmemDef {
            maps: Vec::new(),
            ranges,
            importer: "importer".to_owned(),
            rtt_ns: 20_000,
            pins: Switch::On,
            register,
        }),
    }
}
