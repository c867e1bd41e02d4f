//! Turns what was followed into a scenario.

use std::collections::{BTreeMap, BTreeSet};

use crate::ast::{
    FileDef, FileKind, FilePages, ForkOp, Forked, KernelChoice, NotifierChoice, Op, ProcessDef, Scenario,
    ThreadDef, TouchOp, Unsupported, WaitOp,
};

use super::attach::{self, Attached};
use super::files::unique;
use super::process::{Birth, Process, Step};
use super::replay::{Image, Replay};
use super::summary::Summary;
use super::{ImportError, Options, Touch};

/// Builds the result.
pub(super) fn finish(mut replay: Replay<'_>) -> Result<Scenario, ImportError> {
    let names = names(&replay.processes);
    let mut attached = Vec::new();
    for (at, spec) in replay.options.attach.iter().enumerate() {
        let nth = replay.options.attach[..at]
            .iter()
            .filter(|before| before.mmu == spec.mmu)
            .count();
        let count = replay.options.secondary_accesses;
        let placed = attach::place(spec, nth, (&mut replay.processes, &names), count);
        let wrong = |wrong| ImportError::Attach {
            file: replay.log.to_owned(),
            spec: spec.to_string(),
            wrong,
        };
        attached.push(placed.map_err(wrong)?);
    }
    let mut processes: BTreeMap<String, ProcessDef> = BTreeMap::new();
    for (at, process) in replay.processes.iter().enumerate() {
        let def = process_def(process, &names, &replay.images, replay.options.touch);
        replay.summary.threads += def.threads.len() as u64;
        processes.insert(names[at].clone(), def);
    }
    attached
        .into_iter()
        .for_each(|attached| attach(&mut processes, &names, attached));
    let used = replay.files.used();
    let files: BTreeMap<String, FileDef> = used
        .map(|file| {
            (
                file.name.clone(),
                FileDef {
                    pages: file.initial.max(1),
                    page_size: FilePages::Small,
                    kind: FileKind::default(),
                },
            )
        })
        .collect();
    replay.summary.processes = processes.len() as u64;
    replay.summary.files = files.len() as u64;
    assume(replay.summary, replay.options, &replay.processes);
    replay.summary.touched_pages = touched(&processes);
    let scenario = Scenario {
        at_end: crate::ast::AtEnd::Exit,
        schema: None,
        title: format!("recorded with strace: {}", replay.log),
        description: None,
        extends: None,
        machine: "harpertown-2008".to_owned(),
        cpus: None,
        kernel: KernelChoice::default(),
        notifier: NotifierChoice::default(),
        unsupported: Unsupported::default(),
        seed: 1,
        disk: None,
        memory: None,
        swap: None,
        files,
        processes,
        expect: Vec::new(),
        notes: notes(replay.summary),
    };
    Ok(scenario)
}

fn names(processes: &[Process]) -> Vec<String> {
    let mut used = BTreeSet::new();
    let wish = |process: &Process| match (&process.program, process.pid) {
        (Some(program), 0) => program.clone(),
        (Some(program), pid) => format!("{program}-{pid}"),
        (None, 0) => "process".to_owned(),
        (None, pid) => format!("process-{pid}"),
    };
    processes
        .iter()
        .map(|process| unique(&mut used, &wish(process), '-'))
        .collect()
}

fn process_def(process: &Process, names: &[String], images: &[Image], touch: Touch) -> ProcessDef {
    let mut used = BTreeSet::new();
    let mut threads = BTreeMap::new();
    for (at, thread) in process.threads.iter().enumerate() {
        let wish = if at == 0 {
            "main".to_owned()
        } else {
            format!("t{}", thread.tid)
        };
        let mut script = Vec::new();
        for step in &thread.steps {
            match step {
                Step::Op(op) => script.push(op.clone()),
                Step::Fork(child) => script.push(Op::Fork(ForkOp {
                    child: names[*child].clone(),
                })),
                Step::Wait(child) => script.push(Op::Wait(WaitOp {
                    child: names[*child].clone(),
                })),
                Step::Image(image) => {
                    script.extend(images.get(*image).into_iter().flat_map(|i| image_ops(i, touch)))
                }
            }
        }
        threads.insert(
            unique(&mut used, &wish, '-'),
            ThreadDef {
                cpu: None,
                drives: None,
                birth: if at == 0 {
                    crate::ast::Birth::Start
                } else {
                    crate::ast::Birth::FirstBarrier
                },
                script,
            },
        );
    }
    let forked = (process.birth == Birth::Fork).then_some(Forked::ByParent);
    ProcessDef {
        forked,
        threads,
        ..ProcessDef::default()
    }
}

/// The kernel's mappings and, when all memory is touched, stores to them.
fn image_ops(image: &Image, touch: Touch) -> Vec<Op> {
    let mut ops = Vec::new();
    for op in &image.ops {
        ops.push(op.clone());
        if let (Op::Mmap(map), Touch::All, true) = (op, touch, small(op)) {
            let touch = TouchOp {
                map: None,
                at: map.at.clone(),
                first: 0,
                pages: Some(map.pages),
                stride: 1,
                write: true,
            };
            ops.push(Op::Touch(touch));
        }
    }
    ops
}

fn small(op: &Op) -> bool {
    const RESERVATION: u64 = 16384;
    matches!(op, Op::Mmap(map) if map.pages < RESERVATION)
}

fn attach(processes: &mut BTreeMap<String, ProcessDef>, names: &[String], attached: Attached) {
    if let Some(def) = processes.get_mut(&names[attached.process]) {
        def.attach.insert(attached.mmu, attached.def);
        def.threads.insert(attached.driver.0, attached.driver.1);
    }
}

fn touched(processes: &BTreeMap<String, ProcessDef>) -> u64 {
    let threads = processes.values().flat_map(|process| process.threads.values());
    let ops = threads
        .filter(|thread| thread.drives.is_none())
        .flat_map(|thread| &thread.script);
    ops.map(|op| match op {
        Op::Touch(touch) => touch.pages.unwrap_or(0).div_ceil(touch.stride.max(1)),
        _ => 0,
    })
    .fold(0, u64::saturating_add)
}

fn assume(summary: &mut Summary, options: &Options, processes: &[Process]) {
    let touch = match options.touch {
        Touch::None | Touch::Fraction(0) => {
            "the log does not say which pages were touched: none are".to_owned()
        }
        Touch::All => {
            "the log does not say which pages were touched: writable anonymous memory is written once, \
                       file mappings are read once, when they are made; later accesses are not invented"
                .to_owned()
        }
        Touch::Fraction(permille) => format!(
            "the log does not say which pages were touched: every {}. page is, when it is mapped",
            (1000 / permille).max(1)
        ),
    };
    summary.assume(touch);
    for text in [
        "the time between calls is not replayed, and neither is waiting for anything but children",
        "a file whose size the log does not show is as large as its largest mapping",
        "what the kernel maps at execve (stack, text, vdso) is left out unless the log works on it",
    ] {
        summary.assume(text.to_owned());
    }
    if processes.iter().any(|process| process.birth == Birth::Fork) {
        let text = "copy-on-write stores after fork are not visible in the log and not invented";
        summary.assume(text.to_owned());
    }
    let met = |name: &str| {
        let steps = processes
            .iter()
            .flat_map(|process| &process.threads)
            .flat_map(|thread| thread.steps.iter().take(2));
        steps
            .into_iter()
            .any(|step| matches!(step, Step::Op(Op::Barrier(op)) if op.name.starts_with(name)))
    };
    if processes
        .iter()
        .skip(1)
        .any(|process| process.birth == Birth::Own)
        && met("spawn-")
    {
        summary.assume(
            "a vfork child works in its parent's address space until execve and then starts empty at a barrier \
             (spawn-*): no page table is copied; its parent's wait is a barrier before its exit (exit-*)"
                .to_owned(),
        );
    }
    if processes.iter().any(|process| process.threads.len() > 1) {
        let text = "threads start with the process and wait at a barrier (spawn-*) until they are created; threads \
                    that work on the same addresses keep the order of the log (order-*)";
        summary.assume(text.to_owned());
    }
    if !options.attach.is_empty() {
        let text = "attached secondary MMUs are not in the log: they read uniformly from the moment their memory is \
                    mapped and stop before it is unmapped or the process ends";
        summary.assume(text.to_owned());
    }
}

fn notes(summary: &Summary) -> Vec<String> {
    let assumed = summary.assumptions.iter().map(|text| format!("assumed: {text}"));
    assumed.chain(summary.skip_lines()).collect()
}
