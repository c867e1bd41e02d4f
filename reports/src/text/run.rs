//! One run.

use super::table::{Cell, Style, Table, wrap};
use super::{Detail, TextOptions, violation_card};
use crate::figures;
use crate::headline::is_notable_lock;
use crate::schema::{BreakdownRow, Carried, Histogram, LockRow, RunResult};
use crate::verdict::{self, Tone};

/// CPUs up to which the interrupt matrix is printed.
const MATRIX_LIMIT: usize = 16;

/// One run: verdict, operations, locks, notifier calls, costs, counters, expectations.
#[must_use]
pub fn run_text(result: &RunResult, options: &TextOptions) -> String {
    let o = options;
    let style = match Tone::of(result.end.kind) {
        Tone::Good => Style::Green,
        Tone::Bad => Style::Red,
        Tone::Open => Style::Yellow,
    };
    let mut out = o.paragraph(&verdict::run(result), style);
    for line in verdict::evidence(result) {
        out += &wrap(line, o.width(), "  ", "    ");
    }
    out += &head(result, o);
    for (i, row) in result.violations.iter().enumerate() {
        out.push('\n');
        out += &violation_card(i + 1, result, row, o);
    }
    out += &operations(result, o);
    out += &locks(result, o);
    out += &notifiers(result, o);
    out += &breakdown(result, o);
    out += &interrupts(result, o);
    out += &counters(result, o);
    out += &expectations(result, o);
    if !result.notes.is_empty() {
        out += &o.heading("notes");
        for note in &result.notes {
            out += &wrap(note, o.width(), "- ", "  ");
        }
    }
    out
}

fn head(result: &RunResult, o: &TextOptions) -> String {
    let mut out = String::from("\n") + &o.paragraph(&result.scenario.title, Style::Plain);
    let mut design = format!("{}: {}", result.design.id, result.design.summary);
    if !result.design.overrides.is_empty() {
        design += &format!(" [{}]", result.design.overrides.join(", "));
    }
    let place = format!(
        "{}, {}, seed {}, {} {}, scenario {} {}",
        result.kernel,
        result.machine,
        result.seed,
        result.tool.name,
        result.tool.version,
        result.scenario.file,
        result.scenario.digest
    );
    out += &o.paragraph(&design, Style::Plain);
    out + &o.paragraph(&place, Style::Dim)
}

fn operations(result: &RunResult, o: &TextOptions) -> String {
    let mut table = Table::numbers(&["operation", "count", "p50 us", "p99 us", "max us", "total us"]);
    let mut others = Table::numbers(&["distribution", "count", "p50", "p99", "max", "total"]);
    let (mut ops, mut rest) = (0, 0);
    for row in &result.histograms {
        let d = &row.data;
        let numbers = [d.quantile(500), d.quantile(990), d.max, d.total];
        let op = row
            .name
            .strip_prefix("op.")
            .and_then(|n| n.strip_suffix(".latency_cycles"));
        let mut cells = vec![Cell::new(
            op.map_or_else(|| format!("{} [{}]", row.name, row.unit), str::to_owned),
        )];
        cells.push(Cell::new(figures::grouped(d.count)));
        if op.is_some() {
            cells.extend(numbers.map(|v| Cell::new(figures::cycles_us(v, result.cycle_ps))));
            table.row(cells);
            ops += 1;
        } else if !row.name.starts_with("lock.") {
            cells.extend(numbers.map(|v| Cell::new(figures::grouped(v))));
            others.row(cells);
            rest += 1;
        }
    }
    let mut out = String::new();
    if ops > 0 {
        out += &(o.heading("operations") + &table.render(o.width(), o.color));
    }
    if rest > 0 {
        out += &(o.heading("other distributions") + &others.render(o.width(), o.color));
    }
    out
}

/// lock_stat's columns, in microseconds as there.
fn locks(result: &RunResult, o: &TextOptions) -> String {
    if result.locks.is_empty() {
        return String::new();
    }
    let mut table = Table::numbers(&[
        "class",
        "contentions",
        "wait-min",
        "wait-max",
        "wait-total",
        "wait-avg",
        "acquisitions",
        "hold-min",
        "hold-max",
        "hold-total",
        "hold-avg",
    ]);
    let ps = result.cycle_ps;
    let times = |h: &Histogram| {
        [
            figures::cycles_us(h.min, ps),
            figures::cycles_us(h.max, ps),
            figures::cycles_us(h.total, ps),
            figures::us(figures::micros(h.mean(), ps)),
        ]
        .map(Cell::new)
    };
    let mut sites = Table::numbers(&["class", "contentions", "waiter", "holder"]).left(&[2, 3]);
    let mut any_site = false;
    let wanted = |l: &&LockRow| o.detail == Detail::All || is_notable_lock(l);
    let hidden = result.locks.iter().filter(|l| !wanted(l)).count();
    for lock in result.locks.iter().filter(wanted) {
        let mut cells = vec![Cell::new(lock.class.clone())];
        cells.push(Cell::new(figures::grouped(lock.contentions)));
        cells.extend(times(&lock.wait));
        cells.push(Cell::new(figures::grouped(lock.acquisitions)));
        cells.extend(times(&lock.hold));
        table.row(cells);
        for site in lock.sites.iter().filter(|s| s.contentions > 0) {
            any_site = true;
            sites.row(vec![
                Cell::new(lock.class.clone()),
                Cell::new(figures::grouped(site.contentions)),
                Cell::new(site.waiter.clone()),
                Cell::new(site.holder.clone()),
            ]);
        }
    }
    let mut out = o.heading("lock_stat, times in us") + &table.render(o.width(), o.color);
    if hidden > 0 {
        let more = format!("{hidden} locks that nobody waited for are hidden: --all shows them.");
        out += &o.paragraph(&more, Style::Dim);
    }
    if any_site {
        out += &(o.heading("contention points") + &sites.render(o.width(), o.color));
    }
    out
}

fn notifiers(result: &RunResult, o: &TextOptions) -> String {
    if result.secondaries.is_empty() {
        return String::new();
    }
    let mut table =
        Table::numbers(&["secondary MMU", "carried", "callback", "calls", "us inside"]).left(&[1, 2]);
    for s in &result.secondaries {
        let star = if s.reason.is_empty() { "" } else { "*" };
        let style = if s.carried == Carried::Full {
            Style::Green
        } else {
            Style::Yellow
        };
        let name = || Cell::new(format!("{} ({})", s.name, s.kind));
        let carried = || Cell::styled(format!("{}{star}", verdict::carried_word(s.carried)), style);
        let called: Vec<_> = s.callbacks.iter().filter(|c| c.calls > 0).collect();
        if called.is_empty() {
            table.row(vec![
                name(),
                carried(),
                Cell::new("-"),
                Cell::new("0"),
                Cell::new("0"),
            ]);
        }
        for (i, c) in called.into_iter().enumerate() {
            let (first, second) = if i == 0 {
                (name(), carried())
            } else {
                (Cell::new(""), Cell::new(""))
            };
            table.row(vec![
                first,
                second,
                Cell::new(c.callback.clone()),
                Cell::new(figures::grouped(c.calls)),
                Cell::new(figures::cycles_us(c.cycles, result.cycle_ps)),
            ]);
        }
    }
    let mut out = o.heading("notifier calls") + &table.render(o.width(), o.color);
    for s in result.secondaries.iter().filter(|s| !s.reason.is_empty()) {
        out += &wrap(&format!("{}: {}", s.name, s.reason), o.width(), "  * ", "    ");
    }
    out
}

fn breakdown(result: &RunResult, o: &TextOptions) -> String {
    if result.breakdown.is_empty() {
        return String::new();
    }
    let total = result.task_cycles;
    let bar_width = (o.width().saturating_sub(60)).min(40);
    let bar = |cycles: u64| {
        let share = if total == 0 {
            0
        } else {
            cycles as u128 * bar_width as u128 / u128::from(total)
        };
        "#".repeat(share as usize)
    };
    let mut table = Table::numbers(&["account", "us", "share", ""]).left(&[3]);
    let wanted = |b: &&BreakdownRow| b.cycles > 0 || o.detail == Detail::All;
    for row in result.breakdown.iter().filter(wanted) {
        table.row(vec![
            Cell::new(row.account.clone()),
            Cell::new(figures::cycles_us(row.cycles, result.cycle_ps)),
            Cell::new(figures::percent(row.cycles, total)),
            Cell::new(bar(row.cycles)),
        ]);
    }
    table.row(vec![
        Cell::styled("total", Style::Bold),
        Cell::styled(figures::cycles_us(total, result.cycle_ps), Style::Bold),
        Cell::styled(figures::percent(total, total), Style::Bold),
        Cell::new(""),
    ]);
    o.heading("where the time of the tasks went") + &table.render(o.width(), o.color)
}

fn interrupts(result: &RunResult, o: &TextOptions) -> String {
    let m = &result.ipi_matrix;
    if m.len() > MATRIX_LIMIT || m.iter().flatten().all(|&n| n == 0) {
        return String::new();
    }
    let heads: Vec<String> = std::iter::once("from \\ to cpu".to_owned())
        .chain((0..m.len()).map(|c| c.to_string()))
        .collect();
    let mut table = Table::numbers(&heads);
    for (from, row) in m.iter().enumerate() {
        let mut cells = vec![Cell::new(from.to_string())];
        cells.extend((0..m.len()).map(|to| match row.get(to).copied().unwrap_or(0) {
            0 => Cell::styled(".", Style::Dim),
            n => Cell::new(figures::grouped(n)),
        }));
        table.row(cells);
    }
    o.heading("shootdown interrupts") + &table.render(o.width(), o.color)
}

fn counters(result: &RunResult, o: &TextOptions) -> String {
    let shown: Vec<_> = result.metrics.iter().filter(|m| m.value > 0).collect();
    let zeros = result.metrics.len() - shown.len();
    if shown.is_empty() {
        return String::new();
    }
    let mut table = Table::numbers(&["metric", "value", "unit"]).left(&[2]);
    for m in shown {
        table.row(vec![
            Cell::new(m.name.clone()),
            Cell::new(figures::grouped(m.value)),
            Cell::new(m.unit.clone()),
        ]);
    }
    let mut out = o.heading("metrics") + &table.render(o.width(), o.color);
    if zeros > 0 {
        out += &o.paragraph(&format!("{zeros} metrics that are 0 are not shown."), Style::Dim);
    }
    out
}

fn expectations(result: &RunResult, o: &TextOptions) -> String {
    if result.expectations.is_empty() {
        return String::new();
    }
    let mut table = Table::numbers(&["expectation", "", "expected", "actual"]).left(&[1]);
    for e in &result.expectations {
        let (word, style) = if e.ok {
            ("ok", Style::Green)
        } else {
            ("FAILED", Style::Red)
        };
        table.row(vec![
            Cell::new(e.subject.clone()),
            Cell::styled(word, style),
            Cell::new(e.expected.clone()),
            Cell::new(e.actual.clone()),
        ]);
    }
    o.heading("expectations") + &table.render(o.width(), o.color)
}

#[cfg(test)]
mod tests {
    use super::super::Color;
    use super::*;
    use crate::sample;

    fn plain(column: usize, width: usize) -> String {
        run_text(
            &sample::run(column, 1),
            &TextOptions {
                width,
                color: Color::Never,
                detail: Detail::All,
            },
        )
    }

    #[test]
    fn no_line_exceeds_the_width() {
        for column in 0..4 {
            for width in [40, 80, 160] {
                let text = plain(column, width);
                let longest = text.lines().map(|l| l.chars().count()).max().unwrap();
                assert!(longest <= width, "{longest} > {width}");
            }
        }
    }

    #[test]
    fn every_part_is_there() {
        let text = plain(2, 100);
        for part in [
            ": 1 safety violation",
            "operations",
            "lock_stat",
            "contention points",
            "notifier calls",
            "where the time",
            "shootdown interrupts",
            "expectations",
            "FAILED",
            "broken*",
            "notes",
        ] {
            assert!(text.contains(part), "{part} missing in\n{text}");
        }
    }

    #[test]
    fn breakdown_adds_up_to_the_task_time() {
        for column in 0..4 {
            let run = sample::run(column, 1);
            assert_eq!(
                run.breakdown.iter().map(|b| b.cycles).sum::<u64>(),
                run.task_cycles
            );
        }
        assert!(plain(0, 80).contains("100.0%"));
    }

    #[test]
    fn latencies_are_microseconds() {
        let run = sample::run(3, 1);
        let p50 = run.histogram("op.munmap.latency_cycles").unwrap().quantile(500);
        assert!(plain(3, 100).contains(&figures::cycles_us(p50, run.cycle_ps)));
    }
}
