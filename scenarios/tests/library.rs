//! Every file of the library loads, checks clean, runs, and shows what it says it shows.

mod running;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{LazyLock, Mutex};

use reports::schema::{EndKind, RunResult};
use running::{DESIGNS, bytes, findings, folder, result, under};
use scenarios::ast::{Expect, Scenario};
use scenarios::load::load_file;
use sim::MetricDef;

/// Metrics that no scenario can move, and why.
const OUT_OF_REACH: [(&str, &str); 9] = [
    (
        "faults.host.migration",
        "takes a fault that meets a page between two steps of a few cycles",
    ),
    (
        "gru.asid.wraps",
        "takes two million address-space identifiers of one chiplet",
    ),
    (
        "gru.asid.reuse",
        "contexts are loaded once; no operation unloads one and loads it again",
    ),
    (
        "gru.context.steals",
        "takes 17 contexts on one chiplet; a process has one on each",
    ),
    (
        "gru.flush.zero_asid",
        "takes a flush while a chiplet has an identifier but no context",
    ),
    ("gru.flush.zero_asid.entries", "as gru.flush.zero_asid"),
    (
        "gru.call_os.retries",
        "takes a bracket that opens between two steps of a few cycles",
    ),
    (
        "tlb.flush.of_tables",
        "takes pages and page tables of a munmap that are 506 exactly",
    ),
    (
        "xpmem.eagain",
        "takes four recalls in a row that each cross the same request",
    ),
];

/// A file of the library.
struct Entry {
    name: String,
    path: PathBuf,
    scenario: Scenario,
}

/// One run of a file.
struct Done {
    name: String,
    design: &'static str,
    result: RunResult,
}

fn walk(dir: &Path, into: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> = dir
        .read_dir()
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            walk(&path, into);
        } else if path.extension().is_some_and(|e| e == "jsonc") {
            into.push(path);
        }
    }
}

static FILES: LazyLock<Vec<Entry>> = LazyLock::new(|| {
    let root = folder("library");
    let mut paths = Vec::new();
    walk(&root, &mut paths);
    let entry = |path: PathBuf| Entry {
        name: path
            .strip_prefix(&root)
            .expect("inside")
            .to_string_lossy()
            .into_owned(),
        scenario: load_file(&path)
            .unwrap_or_else(|found| panic!("{found}"))
            .scenario,
        path,
    };
    paths.into_iter().map(entry).collect()
});

/// Every file under every design, on all CPUs of the host; in order of file and design.
fn run_all() -> Vec<Done> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(BTreeMap::new());
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    let Some(file) = FILES.get(n / DESIGNS.len()) else {
                        break;
                    };
                    let design = DESIGNS[n % DESIGNS.len()];
                    let result = result(&file.scenario, under(design));
                    let row = Done {
                        name: file.name.clone(),
                        design,
                        result,
                    };
                    done.lock().expect("no run panicked").insert(n, row);
                }
            });
        }
    });
    done.into_inner()
        .expect("no run panicked")
        .into_values()
        .collect()
}

static RUNS: LazyLock<Vec<Done>> = LazyLock::new(run_all);

fn defs() -> impl Iterator<Item = &'static MetricDef> {
    let devices = kvm::KvmMetrics::DEFS
        .iter()
        .chain(gru::GruMetrics::DEFS)
        .chain(xpmem::XpmemMetrics::DEFS);
    mm::MmMetrics::DEFS.iter().chain(devices)
}

/// Whether the file announces that it ends in a violation under this design.
fn announces_violation(scenario: &Scenario, design: &str) -> bool {
    let announces = |e: &Expect| e.subject == "violation" && e.under.as_deref().is_none_or(|u| u == design);
    scenario.expect.iter().any(announces)
}

#[test]
fn every_file_is_found_clean() {
    assert!(FILES.len() > 30, "{} files", FILES.len());
    for file in FILES.iter() {
        let loaded = load_file(&file.path).expect("loaded before");
        assert_eq!(findings(&loaded), Vec::<String>::new(), "{}", file.name);
    }
}

#[test]
fn every_file_says_what_it_shows_and_what_to_look_at() {
    for file in FILES.iter() {
        let text = std::fs::read_to_string(&file.path).expect("readable");
        let head: String = text.lines().take_while(|line| line.starts_with("//")).collect();
        assert!(head.len() > 80, "{}: no comment at the head", file.name);
        assert!(
            head.contains("Look at:"),
            "{}: does not say what to look at",
            file.name
        );
        assert!(!file.scenario.expect.is_empty(), "{}: expects nothing", file.name);
    }
}

#[test]
fn the_list_of_files_is_complete() {
    let list = std::fs::read_to_string(folder("library").join("README.md")).expect("it is there");
    let listed: BTreeSet<&str> = list.split('`').filter(|word| word.ends_with(".jsonc")).collect();
    let there: BTreeSet<&str> = FILES.iter().map(|file| file.name.as_str()).collect();
    assert_eq!(listed, there);
}

#[test]
fn what_files_expect_comes_out_under_every_design() {
    for (run, file) in RUNS.iter().zip(FILES.iter().flat_map(|f| DESIGNS.map(|_| f))) {
        let name = format!("{} {}", run.name, run.design);
        for e in &run.result.expectations {
            assert!(
                e.ok,
                "{name}: {} is {}, expected {}",
                e.subject, e.actual, e.expected
            );
        }
        let expected = if announces_violation(&file.scenario, run.design) {
            EndKind::Violation
        } else {
            EndKind::Completed
        };
        assert_eq!(
            run.result.end.kind, expected,
            "{name}: {}",
            run.result.end.summary
        );
    }
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    for (first, second) in RUNS.iter().zip(run_all()) {
        assert!(
            bytes(&first.result) == bytes(&second.result),
            "{} {}",
            first.name,
            first.design
        );
    }
}

#[test]
fn every_cycle_of_a_task_is_accounted_for() {
    for run in RUNS.iter() {
        let sum: u64 = run.result.breakdown.iter().map(|row| row.cycles).sum();
        assert_eq!(sum, run.result.task_cycles, "{} {}", run.name, run.design);
    }
}

#[test]
fn every_metric_is_named_once_and_explained() {
    let mut names = BTreeSet::new();
    for def in defs() {
        assert!(names.insert(def.name), "{} is declared twice", def.name);
        assert!(
            !def.unit.is_empty() && !def.description.is_empty(),
            "{}",
            def.name
        );
        let fine = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._".contains(c);
        assert!(def.name.chars().all(fine), "{}", def.name);
    }
    for run in RUNS.iter() {
        let produced: BTreeSet<&str> = run.result.metrics.iter().map(|m| m.name.as_str()).collect();
        assert_eq!(produced, names, "{} {}", run.name, run.design);
    }
}

#[test]
fn every_metric_is_moved_by_some_file() {
    let moved = |name: &str| {
        RUNS.iter()
            .any(|run| run.result.metric(name).is_some_and(|v| v > 0))
    };
    let excused: BTreeSet<&str> = OUT_OF_REACH.iter().map(|(name, _)| *name).collect();
    let still: BTreeSet<&str> = defs().map(|def| def.name).filter(|name| !moved(name)).collect();
    assert_eq!(still, excused);
}

#[test]
fn what_every_design_shares_does_not_depend_on_it() {
    // The primary TLB is flushed as often whoever is told; only in files where nothing is timed
    // against anything else.
    for name in [
        "seed/munmap.jsonc",
        "seed/munmap-preempt.jsonc",
        "seed/munmap-8-cpus.jsonc",
    ] {
        let events: BTreeSet<_> = RUNS
            .iter()
            .filter(|run| run.name == name)
            .map(|run| {
                (
                    run.result.metric("tlb.flush.mm.events"),
                    run.result.metric("tlb.shootdown.ipis"),
                )
            })
            .collect();
        assert_eq!(events.len(), 1, "{name}: {events:?}");
    }
}
