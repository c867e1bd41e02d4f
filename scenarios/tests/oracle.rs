//! munmap of N pages under a KVM guest and a GRU job: the counts of host-mm-paths C.3 and C.4 and of
//! notifier-variants 6, cell by cell.

mod running;

use reports::compare::compare;
use reports::schema::{EndKind, RunResult};
use reports::text::{Color, Detail, TextOptions, compare_text};
use running::{library, metric, result, under};
use scenarios::ast::{ComputeOp, Op, Scenario, Switch, ThreadDef};
use scenarios::run::Overrides;

/// Rows of the table: N, then flush events of munmap without PREEMPT and with it.
const TABLE: [(u64, [u64; 2]); 6] = [
    (1, [1, 1]),
    (8, [1, 2]),
    (506, [2, 64]),
    (512, [2, 65]),
    (1024, [4, 129]),
    (4096, [13, 513]),
];

/// CPUs that are busy in the address space, that of the unmapping thread included.
const BUSY: [u32; 3] = [1, 2, 8];

/// Longer than any run of the table takes, in nanoseconds.
const BUSY_NS: u64 = 60_000_000;

/// The template with N pages and C busy CPUs.
fn munmap(pages: u64, cpus: u32) -> Scenario {
    let mut scenario = library("seed/munmap.jsonc");
    scenario.expect.clear();
    let job = scenario.processes.get_mut("job").expect("the template has it");
    job.maps.get_mut("buffer").expect("the template has it").pages = Some(pages);
    job.threads.retain(|name, _| !name.starts_with("busy"));
    for cpu in 1..cpus {
        let script = vec![Op::Compute(ComputeOp { ns: BUSY_NS })];
        let thread = ThreadDef {
            cpu: Some(cpu),
            drives: None,
            script,
            birth: scenarios::ast::Birth::Start,
        };
        job.threads.insert(format!("busy{cpu}"), thread);
    }
    scenario
}

fn preempt(on: bool) -> Switch {
    if on { Switch::On } else { Switch::Off }
}

/// Runs every cell under a design and hands it over with its number of flush events.
fn each_cell(design: &str, check: impl Fn(&RunResult, &str, u64)) {
    for (pages, events) in TABLE {
        for cpus in BUSY {
            let scenario = munmap(pages, cpus);
            for (column, expected) in events.into_iter().enumerate() {
                let overrides = Overrides {
                    preempt: Some(preempt(column == 1)),
                    ..under(design)
                };
                let r = result(&scenario, overrides);
                let cell = format!("{design} N={pages} C={cpus} PREEMPT={column}");
                assert_eq!(r.end.kind, EndKind::Completed, "{cell}: {}", r.end.summary);
                primary(&r, &cell, pages, cpus, expected);
                check(&r, &cell, pages);
            }
        }
    }
}

/// What no design changes.
fn primary(r: &RunResult, cell: &str, pages: u64, cpus: u32, events: u64) {
    assert_eq!(metric(r, "pages.zapped"), pages, "{cell}: pages");
    assert_eq!(metric(r, "tlb.flush.mm.events"), events, "{cell}: flush events");
    assert_eq!(metric(r, "tlb.flush.local"), events, "{cell}: local flushes");
    assert_eq!(
        metric(r, "tlb.shootdown.ipis"),
        events * u64::from(cpus - 1),
        "{cell}: IPIs"
    );
    assert_eq!(metric(r, "tlb.leave_mm"), 0, "{cell}: no CPU was lazy");
    assert_eq!(
        metric(r, "tlb.flush.page.events"),
        0,
        "{cell}: no flush of single pages"
    );
    let matrix: u64 = r.ipi_matrix.iter().flatten().sum();
    assert_eq!(
        matrix,
        events * u64::from(cpus - 1),
        "{cell}: nobody else was interrupted"
    );
}

/// Calls of a callback into both secondary MMUs, which must be as many.
fn calls(r: &RunResult, cell: &str, callback: &str) -> u64 {
    let [vm, gru] =
        ["vm", "gru0"].map(|mmu| r.calls(mmu, callback).unwrap_or_else(|| panic!("{cell}: {mmu}")));
    assert_eq!(vm, gru, "{cell}: {callback} of both");
    assert_eq!(
        metric(r, &format!("notifier.{callback}.calls")),
        vm + gru,
        "{cell}: {callback} in all"
    );
    vm
}

fn callbacks(r: &RunResult, cell: &str) -> [u64; 4] {
    [
        "invalidate_page",
        "invalidate_range_start",
        "invalidate_range_end",
        "invalidate_pages",
    ]
    .map(|callback| calls(r, cell, callback))
}

fn secondary_flushes(r: &RunResult) -> [u64; 3] {
    ["kvm.flush.requests", "gru.flush.callbacks", "gru.flush.purges"].map(|name| metric(r, name))
}

#[test]
fn invalidate_page_costs_a_callback_and_a_secondary_flush_a_page() {
    each_cell("v1", |r, cell, pages| {
        assert_eq!(callbacks(r, cell), [pages, 0, 0, 0], "{cell}: callbacks");
        assert_eq!(secondary_flushes(r), [pages; 3], "{cell}: secondary flushes");
        assert_eq!(metric(r, "pages.freed"), pages, "{cell}: pages freed");
    });
}

#[test]
fn range_start_and_end_cost_one_pair_and_one_secondary_flush() {
    each_cell("v8", |r, cell, pages| {
        assert_eq!(callbacks(r, cell), [0, 1, 1, 0], "{cell}: callbacks");
        assert_eq!(secondary_flushes(r), [1; 3], "{cell}: secondary flushes");
        assert_eq!(metric(r, "notifier.brackets"), 1, "{cell}: brackets");
        assert_eq!(metric(r, "pages.freed"), pages, "{cell}: pages freed");
    });
}

#[test]
fn sleepable_notifiers_cost_what_merged_ones_do() {
    each_cell("v9", |r, cell, pages| {
        assert_eq!(callbacks(r, cell), [0, 1, 1, 0], "{cell}: callbacks");
        assert_eq!(secondary_flushes(r), [1; 3], "{cell}: secondary flushes");
        assert_eq!(metric(r, "pages.freed"), pages, "{cell}: pages freed");
    });
}

#[test]
fn without_notifiers_nobody_is_told_and_no_page_comes_back() {
    each_cell("v0", |r, cell, pages| {
        assert_eq!(secondary_flushes(r), [0; 3], "{cell}: secondary flushes");
        let calls = r.metrics.iter().filter(|m| m.name.starts_with("notifier."));
        assert_eq!(calls.map(|m| m.value).sum::<u64>(), 0, "{cell}: callbacks");
        assert_eq!(metric(r, "pages.pinned.end"), pages, "{cell}: pins");
        assert_eq!(metric(r, "pages.freed"), 0, "{cell}: pages freed");
    });
}

#[test]
fn a_comparison_shows_the_counts_of_both_designs() {
    let scenario = munmap(1024, 2);
    let runs = ["v1", "v8"].map(|design| vec![result(&scenario, under(design))]);
    let compared = compare(runs.into(), scenario.title.clone());
    let options = TextOptions {
        width: 200,
        color: Color::Never,
        detail: Detail::All,
    };
    let text = compare_text(&compared, &options);
    let row = |name: &str| -> Vec<String> {
        let line = text
            .lines()
            .find_map(|line| line.trim_start().strip_prefix(name)?.strip_prefix(' '));
        let line = line.unwrap_or_else(|| panic!("no row `{name}` in\n{text}"));
        let number = |word: &&str| word.starts_with(|c: char| c.is_ascii_digit()) && !word.contains('%');
        line.split_whitespace()
            .filter(number)
            .map(ToOwned::to_owned)
            .collect()
    };
    for mmu in ["vm", "gru0"] {
        assert_eq!(row(&format!("{mmu} invalidate_page")), ["1,024", "0"]);
        assert_eq!(row(&format!("{mmu} invalidate_range_start")), ["0", "1"]);
        assert_eq!(row(&format!("{mmu} invalidate_range_end")), ["0", "1"]);
    }
    assert_eq!(row("kvm.flush.requests"), ["1,024", "1"]);
    assert_eq!(row("gru.flush.purges"), ["1,024", "1"]);
    assert_eq!(row("tlb.shootdown.ipis"), ["4", "4"]);
}
