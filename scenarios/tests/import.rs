//! The importer on recordings of real programs, and on broken logs.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, Cursor, Read};
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use scenarios::ast::{Address, AttachDef, Forked, Op, ProcessDef, Region, Scenario};
use scenarios::import::strace::{AttachSpec, ImportError, Imported, Options, Touch, import};

fn recording(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("recordings")
        .join(format!("{name}.strace.gz"))
}

fn text(name: &str) -> String {
    let mut text = String::new();
    scenarios::import::open(&recording(name))
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
    text
}

fn load(name: &str, options: &Options) -> Imported {
    import(scenarios::import::open(&recording(name)).unwrap(), name, options).unwrap()
}

fn with(spec: &str) -> Options {
    Options {
        attach: vec![spec.parse().unwrap()],
        ..Options::default()
    }
}

fn lines(log: &str) -> Result<Imported, ImportError> {
    import(Cursor::new(log.as_bytes()), "log", &Options::default())
}

/// How many calls of a log came to an end.
fn calls(name: &str) -> u64 {
    let log = text(name);
    let returned = log.lines().filter(|line| !line.ends_with("<unfinished ...>"));
    returned
        .filter(|line| !line.contains("+++ ") && !line.contains("--- "))
        .count() as u64
}

fn number(address: &Address) -> u64 {
    match address {
        Address::Number(at) => *at,
        Address::Text(text) => u64::from_str_radix(text.trim_start_matches("0x"), 16).unwrap(),
    }
}

/// A deliberately simple model: the set of mapped pages, and what a barrier lets through.
#[derive(Clone, Default)]
struct Pages {
    mapped: BTreeSet<u64>,
    heap: Option<u64>,
}

impl Pages {
    fn span(region: &Region) -> std::ops::Range<u64> {
        let first = number(region.at.as_ref().unwrap()) / 4096 + region.first;
        first..first + region.pages.unwrap()
    }

    fn whole(&self, region: &Region, op: &Op) {
        assert!(
            Pages::span(region).all(|page| self.mapped.contains(&page)),
            "not mapped: {op:?}"
        );
    }

    fn apply(&mut self, op: &Op) {
        match op {
            Op::Mmap(map) => {
                let first = number(map.at.as_ref().unwrap()) / 4096;
                self.mapped.extend(first..first + map.pages);
            }
            Op::Munmap(region) => {
                self.whole(region, op);
                self.mapped.retain(|page| !Pages::span(region).contains(page));
            }
            Op::Mprotect(protect) => self.whole(&protect.region, op),
            Op::Madvise(advise) => self.whole(&advise.region, op),
            Op::Touch(touch) => {
                let region = Region {
                    at: touch.at.clone(),
                    pages: touch.pages,
                    ..Region::default()
                };
                self.whole(&region, op);
            }
            Op::Brk(brk) => {
                let end = number(&brk.to) / 4096;
                let old = self.heap.replace(end).unwrap_or(end);
                self.mapped.extend(old..end);
                self.mapped.retain(|page| !(end..old).contains(page));
            }
            Op::Exec(_) => *self = Pages::default(),
            _ => {}
        }
    }
}

/// A process and one of its threads.
type Who = (String, String);

struct Runner<'a> {
    scenario: &'a Scenario,
    at: BTreeMap<(String, String), usize>,
    spaces: BTreeMap<String, Pages>,
    ended: BTreeSet<String>,
}

impl<'a> Runner<'a> {
    fn threads(process: &ProcessDef) -> impl Iterator<Item = &String> {
        process.threads.keys()
    }

    fn start(&mut self, name: &str, pages: Pages) {
        self.spaces.insert(name.to_owned(), pages);
        for thread in Self::threads(&self.scenario.processes[name]) {
            self.at.insert((name.to_owned(), thread.clone()), 0);
        }
    }

    fn next(&self, who: &(String, String)) -> Option<&'a Op> {
        let at = *self.at.get(who)?;
        if self.ended.contains(&who.0) {
            return None;
        }
        self.scenario.processes[&who.0].threads[&who.1].script.get(at)
    }

    fn barrier_open(&self, name: &str) -> bool {
        let waits = |op: &Op| matches!(op, Op::Barrier(barrier) if barrier.name == name);
        let all = self
            .scenario
            .processes
            .iter()
            .flat_map(|(p, def)| def.threads.keys().map(move |t| (p.clone(), t.clone())));
        let members: Vec<_> = all
            .filter(|(p, t)| self.scenario.processes[p].threads[t].script.iter().any(waits))
            .collect();
        assert_eq!(members.len(), 2, "barrier {name}");
        members.iter().all(|who| self.next(who).is_some_and(waits))
    }

    /// Runs one step somewhere; `reverse` picks threads from the other end.
    fn step(&mut self, order: &dyn Fn(Vec<Who>) -> Vec<Who>) -> bool {
        for who in order(self.at.keys().cloned().collect()) {
            let Some(op) = self.next(&who) else { continue };
            match op {
                Op::Barrier(barrier) => {
                    if !self.barrier_open(&barrier.name) {
                        continue;
                    }
                    let waits = |op: &Op| matches!(op, Op::Barrier(b) if b.name == barrier.name);
                    let both: Vec<_> = self
                        .at
                        .keys()
                        .filter(|who| self.next(who).is_some_and(waits))
                        .cloned()
                        .collect();
                    both.iter().for_each(|who| *self.at.get_mut(who).unwrap() += 1);
                    return true;
                }
                Op::Wait(wait) if !self.ended.contains(&wait.child) => continue,
                Op::Fork(fork) => {
                    let pages = self.spaces[&who.0].clone();
                    self.start(&fork.child, pages);
                }
                Op::Exit(_) => {
                    self.ended.insert(who.0.clone());
                }
                op => self.spaces.get_mut(&who.0).unwrap().apply(op),
            }
            *self.at.get_mut(&who).unwrap() += 1;
            return true;
        }
        false
    }
}

/// Runs a scenario to its end, choosing threads from the front or from the back.
fn run(scenario: &Scenario, order: &dyn Fn(Vec<Who>) -> Vec<Who>) {
    let mut runner = Runner {
        scenario,
        at: BTreeMap::new(),
        spaces: BTreeMap::new(),
        ended: BTreeSet::new(),
    };
    for (name, process) in &scenario.processes {
        if process.forked != Some(Forked::ByParent) {
            runner.start(name, Pages::default());
        }
    }
    while runner.step(order) {}
    for name in scenario.processes.keys() {
        assert!(runner.ended.contains(name), "{name} does not end");
        for thread in scenario.processes[name].threads.keys() {
            let at = runner.at[&(name.clone(), thread.clone())];
            assert_eq!(
                at,
                scenario.processes[name].threads[thread].script.len(),
                "{name}/{thread} stops early"
            );
        }
    }
}

fn count(scenario: &Scenario, which: impl Fn(&Op) -> bool) -> usize {
    let threads = scenario
        .processes
        .values()
        .flat_map(|process| process.threads.values());
    threads
        .flat_map(|thread| &thread.script)
        .filter(|op| which(op))
        .count()
}

#[test]
fn recordings_replay_in_mapped_ranges_under_any_order() {
    for name in ["gcc", "redis-bgsave", "sqlite-vacuum"] {
        for touch in [Touch::All, Touch::None, Touch::Fraction(100)] {
            let imported = load(
                name,
                &Options {
                    touch,
                    ..Options::default()
                },
            );
            run(&imported.scenario, &|threads| threads);
            run(&imported.scenario, &|threads| threads.into_iter().rev().collect());
        }
    }
}

#[test]
fn every_call_is_accounted_for() {
    for name in ["gcc", "redis-bgsave", "sqlite-vacuum"] {
        let summary = load(name, &Options::default()).summary;
        let sum = |counts: &BTreeMap<String, u64>| counts.values().sum::<u64>();
        let skipped: u64 = summary.skipped.values().map(sum).sum();
        assert_eq!(
            sum(&summary.imported) + sum(&summary.failed) + skipped,
            calls(name),
            "{name}"
        );
        assert_eq!(summary.warnings, [], "{name}");
        assert!(summary.lines().len() > 5);
    }
}

#[test]
fn two_imports_are_equal_bytes() {
    for name in ["gcc", "redis-bgsave", "sqlite-vacuum"] {
        let json = || serde_json::to_string(&load(name, &with("kvm:largest")).scenario).unwrap();
        let first = json();
        assert_eq!(first, json());
        assert_eq!(
            serde_json::from_str::<Scenario>(&first).unwrap(),
            load(name, &with("kvm:largest")).scenario
        );
    }
}

#[test]
fn gcc_starts_its_children_by_vfork() {
    let Imported { scenario, summary } = load("gcc", &Options::default());
    let names: Vec<&str> = scenario.processes.keys().map(String::as_str).collect();
    assert_eq!(names, ["as-19720", "cc1-19718", "gcc-19717"]);
    assert_eq!(summary.failed["execve"], 8);
    assert_eq!(summary.imported["execve"], 3);
    assert_eq!(count(&scenario, |op| matches!(op, Op::Fork(_) | Op::Exec(_))), 0);
    assert_eq!(count(&scenario, |op| matches!(op, Op::Munmap(_))), 8);
    assert_eq!(count(&scenario, |op| matches!(op, Op::Mprotect(_))), 20);
}

#[test]
fn redis_has_threads_and_forks() {
    let Imported { scenario, summary } = load("redis-bgsave", &Options::default());
    assert_eq!(summary.processes, 13);
    assert_eq!(summary.threads, 17);
    assert_eq!(count(&scenario, |op| matches!(op, Op::Fork(_))), 12);
    assert_eq!(count(&scenario, |op| matches!(op, Op::Exec(_))), 11);
    assert_eq!(count(&scenario, |op| matches!(op, Op::Wait(_))), 12);
    assert_eq!(count(&scenario, |op| matches!(op, Op::Munmap(_))), 28);
    assert_eq!(count(&scenario, |op| matches!(op, Op::Madvise(_))), 10);
    assert_eq!(summary.skipped["madvise"].values().sum::<u64>(), 8);
    let server = &scenario.processes["redis-server-19725"];
    assert_eq!(server.threads.len(), 5);
    assert_eq!(
        scenario.processes["redis-server-19736"].forked,
        Some(Forked::ByParent)
    );
    assert!(
        summary.touched_pages > 20_000 && summary.touched_pages < 200_000,
        "{}",
        summary.touched_pages
    );
}

#[test]
fn sqlite_truncates_a_mapped_file() {
    let Imported { scenario, summary } = load("sqlite-vacuum", &Options::default());
    let truncates: Vec<(&str, u64)> = scenario.processes["sqlite3-19708"].threads["main"]
        .script
        .iter()
        .filter_map(|op| match op {
            Op::Truncate(truncate) => Some((truncate.file.as_str(), truncate.pages)),
            _ => None,
        })
        .collect();
    let (db, wal, shm) = ("/srv/demo/x.db", "/srv/demo/x.db-wal", "/srv/demo/x.db-shm");
    let expected = [
        (db, 1),
        (shm, 1),
        (shm, 8),
        (db, 1943),
        (db, 1943),
        (db, 1943),
        (wal, 0),
        (db, 650),
        (wal, 0),
    ];
    assert_eq!(truncates, expected);
    assert_eq!(
        summary.imported["brk"] + summary.skipped["brk"].values().sum::<u64>(),
        35
    );
    assert_eq!(count(&scenario, |op| matches!(op, Op::Brk(_))), 34);
    assert!(
        summary.touched_pages > 2_000 && summary.touched_pages < 20_000,
        "{}",
        summary.touched_pages
    );
}

#[test]
fn attached_devices_work_on_existing_memory() {
    for (name, spec, thread) in [
        ("sqlite-vacuum", "xpmem:file", "peer-rank"),
        ("sqlite-vacuum", "gru:heap", "gru0-job"),
        ("gcc", "kvm:heap@cc1", "vcpu0"),
        ("redis-bgsave", "kvm:largest@redis-server-19725", "vcpu0"),
        ("redis-bgsave", "gru:all@19725", "gru0-job"),
    ] {
        let scenario = load(name, &with(spec)).scenario;
        run(&scenario, &|threads| threads);
        run(&scenario, &|threads| threads.into_iter().rev().collect());
        let with_mmu: Vec<_> = scenario
            .processes
            .values()
            .filter(|process| !process.attach.is_empty())
            .collect();
        assert_eq!(with_mmu.len(), 1, "{name} {spec}");
        assert!(with_mmu[0].threads[thread].drives.is_some());
        assert_eq!(count(&scenario, |op| matches!(op, Op::Register(_))), 1);
    }
    let scenario = load("sqlite-vacuum", &with("xpmem:file")).scenario;
    let AttachDef::Xpmem(export) = &scenario.processes["sqlite3-19708"].attach["peer"] else {
        panic!()
    };
    assert_eq!(export.ranges.len(), 1);
    assert_eq!(export.ranges[0].pages, 1943);
}

#[test]
fn wrong_wishes_are_explained() {
    for (text, part) in [
        ("kvm", "no colon"),
        ("vfio:heap", "`vfio`"),
        ("kvm:stack", "`stack`"),
        ("kvm:0x1000-0x1000", "non-empty"),
        ("kvm:0x1000-0xzz", "`0xzz`"),
        ("gru:heap@", "after `@`"),
    ] {
        let error = text.parse::<AttachSpec>().unwrap_err().to_string();
        assert!(
            error.contains(part) && error.contains("<kvm|gru|xpmem>:"),
            "{error}"
        );
    }
    for text in ["kvm:largest", "gru:heap@redis", "xpmem:0x1000-0x3000"] {
        assert_eq!(text.parse::<AttachSpec>().unwrap().to_string(), text);
    }
    let error = import(Cursor::new(self::text("gcc")), "gcc", &with("kvm:heap@clang"))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("no process `clang`; there are `gcc-19717`"),
        "{error}"
    );
    assert!(import(Cursor::new(self::text("gcc")), "gcc", &with("kvm:0x1000-0x2000")).is_err());
}

#[test]
fn prefixes_may_be_absent() {
    let whole = lines(&text("sqlite-vacuum")).unwrap().scenario;
    let strip = |log: &str, words: usize| -> String {
        let cut = |line: &str| line.splitn(words + 1, ' ').last().unwrap().to_owned();
        log.lines()
            .map(|line| cut(line).split(" <0.").next().unwrap().to_owned() + "\n")
            .collect()
    };
    let bare = lines(&strip(&text("sqlite-vacuum"), 2)).unwrap().scenario;
    assert_eq!(
        bare.processes["sqlite3"].threads,
        whole.processes["sqlite3-19708"].threads
    );
    let stamped: String = strip(&text("sqlite-vacuum"), 2)
        .lines()
        .map(|line| format!("[pid 19708] 12:34:56.789012 {line}\n"))
        .collect();
    assert_eq!(lines(&stamped).unwrap().scenario.processes, whole.processes);
    let relative: String = strip(&text("sqlite-vacuum"), 2)
        .lines()
        .map(|line| format!("     0.000123 {line}\n"))
        .collect();
    assert_eq!(lines(&relative).unwrap().scenario.processes, bare.processes);
}

#[test]
fn other_text_and_broken_archives_are_refused() {
    let error = lines("dear reader,\nthis is a letter\n").unwrap_err().to_string();
    assert!(
        error.starts_with("log:1: `dear reader,`") && error.contains("strace -f -ttt -T -e"),
        "{error}"
    );
    assert!(lines("").is_err());
    let packed = std::fs::read(recording("gcc")).unwrap();
    let half = flate2::bufread::MultiGzDecoder::new(&packed[..packed.len() / 2]);
    let error = import(std::io::BufReader::new(half), "gcc.gz", &Options::default()).unwrap_err();
    assert!(matches!(error, ImportError::Truncated { .. }), "{error}");
}

#[test]
fn threads_keep_their_order_on_shared_addresses() {
    let log = "\
1 execve(\"/bin/x\", [\"x\"], 0x1 /* 1 var */) = 0
1 clone3({flags=CLONE_VM|CLONE_FILES|CLONE_THREAD, stack=0x1}, 88) = 2
1 mmap(NULL, 8192, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0) = 0x10000
2 munmap(0x10000, 8192 <unfinished ...>
1 mmap(NULL, 4096, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0) = 0x10000
2 <... munmap resumed>) = 0
2 exit(0) = ?
2 +++ exited with 0 +++
1 exit_group(0) = ?
1 +++ exited with 0 +++
";
    let scenario = lines(log).unwrap().scenario;
    run(&scenario, &|threads| threads);
    run(&scenario, &|threads| threads.into_iter().rev().collect());
    // spawn, the unmapping after the mapping, the second mapping after the unmapping
    assert_eq!(count(&scenario, |op| matches!(op, Op::Barrier(_))), 6);
}

#[test]
fn calls_without_sense_become_warnings() {
    let log = "\
execve(\"/bin/x\", [\"x\"], 0x1) = 0
mmap(NULL, 18446744073709551615, PROT_READ, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0) = 0x10000
munmap(what, 1) = 0
madvise(0x10000, 4096, MADV_HUGEPAGE) = 0
garbage
exit_group(0) = ?
";
    let summary = lines(log).unwrap().summary;
    assert_eq!(summary.warnings.len(), 3);
    assert!(
        summary
            .warnings
            .iter()
            .any(|warning| warning.to_string().starts_with("log:5: "))
    );
    assert_eq!(summary.skipped["madvise"].len(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn mutations_never_panic(
        which in prop::sample::select(vec!["gcc", "redis-bgsave", "sqlite-vacuum"]),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0_u8..4), 1..60),
        spec in prop::sample::select(vec!["kvm:largest", "gru:all", "xpmem:file", "kvm:heap"]),
    ) {
        let mut bytes = Vec::new();
        scenarios::import::open(&recording(which)).unwrap().read_to_end(&mut bytes).unwrap();
        for (at, byte, kind) in edits {
            let at = at.index(bytes.len());
            match kind {
                0 => bytes[at] = byte,
                1 => drop(bytes.remove(at)),
                2 => bytes.insert(at, byte),
                _ => {
                    let end = bytes.len().min(at + usize::from(byte));
                    bytes.drain(at..end);
                }
            }
        }
        let _ = import(Cursor::new(bytes), which, &with(spec));
    }

    #[test]
    fn any_digit_may_change(which in prop::sample::select(vec!["redis-bgsave", "sqlite-vacuum"]), seed in any::<u64>()) {
        let mut bytes = text(which).into_bytes();
        let mut state = seed | 1;
        for byte in bytes.iter_mut().filter(|byte| byte.is_ascii_digit()) {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            if state >> 56 == 0 {
                *byte = b'0' + u8::try_from((state >> 40) % 10).unwrap();
            }
        }
        let _ = import(Cursor::new(bytes), which, &with("gru:all"));
    }

    #[test]
    fn noise_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let reader: &mut dyn BufRead = &mut Cursor::new(bytes);
        let _ = import(reader, "noise", &Options::default());
    }
}

#[test]
fn a_child_of_another_process_is_waited_for_at_its_end() {
    // 2 forks 3 and ends; 1, who is not the parent, is told of the end of 3.
    let log = "\
1 fork() = 2
2 fork() = 3
2 exit_group(0) = ?
3 brk(NULL) = 0x10000
3 exit_group(0) = ?
1 wait4(2, [], 0, NULL) = 2
1 wait4(3, [], 0, NULL) = 3
1 exit_group(0) = ?
";
    let imported = lines(log).unwrap();
    let text = serde_json::to_string(&imported.scenario).unwrap();
    assert_eq!(text.matches("\"wait\"").count(), 1, "{text}");
    assert_eq!(text.matches("exit-3").count(), 2, "{text}");
}

#[test]
fn what_exceeds_memory_is_not_touched() {
    let log = "1 mmap(NULL, 17592186044416, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0) = 0x10000000000\n";
    let imported = lines(log).unwrap();
    assert_eq!(imported.summary.touched_pages, 0);
    let assumed = &imported.summary.assumptions;
    assert!(assumed.iter().any(|text| text.contains("16 GiB")), "{assumed:?}");
}
