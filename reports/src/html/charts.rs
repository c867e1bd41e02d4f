//! The charts of a report. Each comes with the table of its numbers.

use minijinja::Value;
use serde::Serialize;

use super::tables::{TableView, cell, num};
use crate::figures::{self, cycles_us, micros};
use crate::headline::{is_notable_cost, is_notable_lock, notable_ops, op_of};
use crate::schema::{BreakdownRow, Histogram, LockRow, RunResult};
use crate::svg::{Anchor, COLORS, LogAxis, Svg};

/// A chart and its numbers.
#[derive(Debug, Serialize)]
pub(super) struct ChartView {
    pub(super) title: String,
    pub(super) svg: Value,
    pub(super) table: TableView,
}

/// Entry of a legend.
#[derive(Debug, Serialize)]
pub(super) struct LegendItem {
    pub(super) class: String,
    pub(super) text: String,
    pub(super) title: String,
}

/// Class of the n-th series: beyond the palette, the colours come again, lighter.
pub(super) fn class(kind: char, n: usize) -> String {
    let again = if n >= COLORS { " again" } else { "" };
    format!("{kind}{}{again}", n % COLORS)
}

/// The runs as a legend of lines.
pub(super) fn run_legend(runs: &[RunResult]) -> Vec<LegendItem> {
    runs.iter()
        .enumerate()
        .map(|(i, r)| LegendItem {
            class: class('l', i),
            text: r.label.clone(),
            title: r.design.title.clone(),
        })
        .collect()
}

/// What the drawing has in place of the accounts below a hundredth of every bar.
const REST: (&str, &str) = ("everything else", "accounts that are below 1 % in every run");

/// Cost accounts with anything booked, in the order of their first appearance.
fn accounts(runs: &[RunResult]) -> Vec<(&str, &str)> {
    let mut found: Vec<(&str, &str)> = Vec::new();
    for row in runs.iter().flat_map(|r| &r.breakdown).filter(|b| b.cycles > 0) {
        if !found.iter().any(|(a, _)| *a == row.account) {
            found.push((&row.account, &row.description));
        }
    }
    found
}

/// The accounts that are drawn on their own, then the rest.
fn drawn(runs: &[RunResult]) -> Vec<(&str, &str)> {
    let (mut large, small): (Vec<_>, Vec<_>) = accounts(runs)
        .into_iter()
        .partition(|(account, _)| is_notable_cost(runs, account));
    if small.len() == 1 {
        large.extend(small);
    } else if !small.is_empty() {
        large.push(REST);
    }
    large
}

/// Cycles of a drawn account.
fn drawn_cycles(run: &RunResult, account: &str, drawn: &[(&str, &str)]) -> u64 {
    if account != REST.0 {
        return booked(run, account);
    }
    let alone = |b: &&BreakdownRow| !drawn.iter().any(|(name, _)| *name == b.account);
    run.breakdown.iter().filter(alone).map(|b| b.cycles).sum()
}

/// The accounts as a legend of fills.
pub(super) fn cost_legend(runs: &[RunResult]) -> Vec<LegendItem> {
    drawn(runs)
        .into_iter()
        .enumerate()
        .map(|(i, (account, description))| LegendItem {
            class: class('s', i),
            text: account.to_owned(),
            title: description.to_owned(),
        })
        .collect()
}

fn booked(run: &RunResult, account: &str) -> u64 {
    run.breakdown
        .iter()
        .filter(|b| b.account == account)
        .map(|b| b.cycles)
        .sum()
}

/// One stacked bar a run. The segments' `data-cycles` add up to the bar's `data-total`.
pub(super) fn cost_chart(runs: &[RunResult]) -> Option<ChartView> {
    const LEFT: f64 = 96.0;
    const BAR: f64 = 700.0;
    const ROW: f64 = 30.0;
    let longest = runs
        .iter()
        .map(|r| micros(r.task_cycles as f64, r.cycle_ps))
        .fold(0.0, f64::max);
    let accounts = drawn(runs);
    if longest == 0.0 || accounts.is_empty() {
        return None;
    }
    let label = "Stacked bars: task time of each run by cost account";
    let mut svg = Svg::new(LEFT + BAR + 100.0, ROW * runs.len() as f64 + 4.0, label);
    for (row, run) in runs.iter().enumerate() {
        let y = ROW * row as f64 + 4.0;
        let place = |cycles: u64| LEFT + BAR * micros(cycles as f64, run.cycle_ps) / longest;
        svg.text(
            (LEFT - 8.0, y + 15.0),
            Anchor::End,
            &crate::text::clip(&run.label, 14),
        );
        let mut seen = 0;
        for (i, (account, _)) in accounts.iter().enumerate() {
            let cycles = drawn_cycles(run, account, &accounts);
            if cycles == 0 {
                continue;
            }
            let (from, to) = (place(seen), place(seen + cycles));
            seen += cycles;
            let share = figures::percent(cycles, run.task_cycles);
            let title = format!(
                "{}, {account}: {} us, {share}",
                run.label,
                cycles_us(cycles, run.cycle_ps)
            );
            let extra = format!(" data-run=\"{row}\" data-cycles=\"{cycles}\"");
            svg.rect(
                (from, y),
                (to - from, ROW - 8.0),
                &format!("seg {}", class('s', i)),
                &extra,
                &title,
            );
        }
        let total = figures::duration(run.task_cycles as f64, run.cycle_ps);
        svg.text((place(run.task_cycles) + 6.0, y + 15.0), Anchor::Start, &total);
    }
    Some(ChartView {
        title: "Task time by account".to_owned(),
        svg: Value::from_safe_string(svg.finish()),
        table: cost_table(runs),
    })
}

fn cost_table(runs: &[RunResult]) -> TableView {
    let labels: Vec<String> = runs.iter().map(|r| format!("{} us", r.label)).collect();
    let mut table = TableView::new("Task time by account", "account", &labels);
    for (account, description) in accounts(runs) {
        let mut cells = vec![cell(account).titled(description)];
        for run in runs {
            let cycles = booked(run, account);
            cells.push(num(cycles_us(cycles, run.cycle_ps)).sub(figures::percent(cycles, run.task_cycles)));
        }
        table.row(cells);
    }
    let mut cells = vec![cell("total")];
    cells.extend(
        runs.iter()
            .map(|r| num(cycles_us(r.task_cycles, r.cycle_ps)).sub("100.0%")),
    );
    table.row(cells);
    table
}

/// A percentile chart for each operation that takes more than a trivial time.
pub(super) fn latency_charts(runs: &[RunResult]) -> Vec<ChartView> {
    notable_ops(runs)
        .into_iter()
        .filter_map(|op| {
            let name = format!("op.{op}.latency_cycles");
            let data = runs.iter().map(|r| r.histogram(&name)).collect::<Vec<_>>();
            percentile_chart(op, runs, &data)
        })
        .collect()
}

/// The operations without a chart.
pub(super) fn latency_note(runs: &[RunResult]) -> String {
    let shown = notable_ops(runs);
    let recorded = runs
        .iter()
        .flat_map(|r| &r.histograms)
        .filter(|h| h.data.count > 0);
    let mut rest: Vec<&str> = recorded
        .filter_map(|h| op_of(&h.name))
        .filter(|op| !shown.contains(op))
        .collect();
    rest.sort_unstable();
    rest.dedup();
    if rest.is_empty() {
        return String::new();
    }
    format!(
        "Not drawn, since they took little or only waited: {}.",
        rest.join(", ")
    )
}

/// A percentile chart of hold times for each lock class that matters.
pub(super) fn hold_charts(runs: &[RunResult]) -> Vec<ChartView> {
    let mut classes: Vec<&str> = runs
        .iter()
        .flat_map(|r| &r.locks)
        .filter(|l| is_notable_lock(l))
        .map(|l| l.class.as_str())
        .collect();
    classes.sort_unstable();
    classes.dedup();
    classes
        .into_iter()
        .filter_map(|class| {
            let find = |r: &'_ RunResult| r.locks.iter().position(|l| l.class == class);
            let data: Vec<_> = runs.iter().map(|r| find(r).map(|i| &r.locks[i].hold)).collect();
            percentile_chart(&format!("{class} held"), runs, &data)
        })
        .collect()
}

/// Which lock classes have no chart.
pub(super) fn holds_note(runs: &[RunResult]) -> String {
    if runs.iter().flat_map(|r| &r.locks).all(is_notable_lock) {
        return String::new();
    }
    "Drawn are the locks that designs are judged by and those that somebody waited for; the tables above have all."
        .to_owned()
}

/// Value over percentile, both logarithmic (the percentile in "nines"), a line a run.
fn percentile_chart(title: &str, runs: &[RunResult], data: &[Option<&Histogram>]) -> Option<ChartView> {
    const SIZE: (f64, f64) = (340.0, 210.0);
    const PLOT: (f64, f64, f64, f64) = (48.0, 318.0, 10.0, 176.0); // left, right, top, bottom
    let present: Vec<(usize, &Histogram)> = data
        .iter()
        .enumerate()
        .filter_map(|(i, h)| h.filter(|h| h.count > 0).map(|h| (i, h)))
        .collect();
    if present.is_empty() {
        return None;
    }
    let us = |i: usize, cycles: u64| micros(cycles as f64, runs[i].cycle_ps);
    let extremes = present.iter().flat_map(|&(i, h)| [us(i, h.min), us(i, h.max)]);
    let y = LogAxis::over(extremes, PLOT.3, PLOT.2);
    let most = present.iter().map(|(_, h)| h.count).max().unwrap_or(1);
    let nines = (most as f64).log10().ceil().clamp(1.0, 4.0);
    let x = |share: f64| {
        let depth = if share >= 1.0 {
            nines
        } else {
            -(1.0 - share).log10()
        };
        PLOT.0 + (PLOT.1 - PLOT.0) * (depth / nines).clamp(0.0, 1.0)
    };
    let mut svg = Svg::new(SIZE.0, SIZE.1, &format!("{title}: microseconds over percentile"));
    for (value, label) in y.ticks() {
        let at = y.place(value);
        svg.line((PLOT.0, at), (PLOT.1, at), "grid");
        svg.text((PLOT.0 - 6.0, at + 4.0), Anchor::End, &label);
    }
    let ticks = [
        (0.5_f64, "50 %"),
        (0.9, "90"),
        (0.99, "99"),
        (0.999, "99.9"),
        (0.9999, "99.99"),
    ];
    for (share, label) in ticks.into_iter().filter(|t| -(1.0 - t.0).log10() <= nines + 0.01) {
        svg.line((x(share), PLOT.2), (x(share), PLOT.3), "grid");
        svg.text((x(share), PLOT.3 + 15.0), Anchor::Middle, label);
    }
    svg.text(
        ((PLOT.0 + PLOT.1) / 2.0, PLOT.3 + 30.0),
        Anchor::Middle,
        "percentile; us on the left",
    );
    for &(i, h) in &present {
        let mut points = vec![(x(0.0), y.place(us(i, h.min)))];
        let mut seen = 0;
        for &(upper, count) in &h.bins {
            points.push((x(seen as f64 / h.count as f64), y.place(us(i, upper.min(h.max)))));
            seen += count;
        }
        points.push((PLOT.1, y.place(us(i, h.max))));
        svg.steps(&points, &class('l', i), &runs[i].label);
    }
    Some(ChartView {
        title: title.to_owned(),
        svg: Value::from_safe_string(svg.finish()),
        table: percentile_table(title, runs, &present),
    })
}

fn percentile_table(title: &str, runs: &[RunResult], present: &[(usize, &Histogram)]) -> TableView {
    let heads = [
        "count", "min us", "p50 us", "p90 us", "p99 us", "p99.9 us", "max us",
    ]
    .map(str::to_owned);
    let mut table = TableView::new(title, "run", &heads);
    for &(i, h) in present {
        let mut cells = vec![cell(runs[i].label.clone()), num(figures::grouped(h.count))];
        let values = [
            h.min,
            h.quantile(500),
            h.quantile(900),
            h.quantile(990),
            h.quantile(999),
            h.max,
        ];
        cells.extend(values.map(|v| num(cycles_us(v, runs[i].cycle_ps))));
        table.row(cells);
    }
    table
}

/// Hold times of one run as bars, a doubling each.
pub(super) fn hold_histograms(run: &RunResult) -> Vec<ChartView> {
    run.locks
        .iter()
        .filter(|l| l.hold.count > 0 && is_notable_lock(l))
        .map(|l| hold_histogram(run, l))
        .collect()
}

/// Counts by doubling: (largest value, count), with the empty ones in between.
fn octaves(h: &Histogram) -> Vec<(u64, u64)> {
    let octave = |v: u64| (64 - v.leading_zeros()) as usize;
    let first = h.bins.first().map_or(0, |b| octave(b.0));
    let last = h.bins.last().map_or(0, |b| octave(b.0));
    let mut out: Vec<(u64, u64)> = (first..=last)
        .map(|o| (1_u64.checked_shl(o as u32).map_or(u64::MAX, |v| v - 1), 0))
        .collect();
    for &(upper, count) in &h.bins {
        out[octave(upper) - first].1 += count;
    }
    out
}

fn hold_histogram(run: &RunResult, lock: &LockRow) -> ChartView {
    const SIZE: (f64, f64) = (340.0, 170.0);
    const PLOT: (f64, f64, f64, f64) = (48.0, 318.0, 10.0, 136.0);
    let bars = octaves(&lock.hold);
    let share = |count: u64| count as f64 / lock.hold.count as f64;
    let highest = bars.iter().map(|b| share(b.1)).fold(0.0, f64::max);
    let title = format!("{} held", lock.class);
    let mut svg = Svg::new(
        SIZE.0,
        SIZE.1,
        &format!("{title}: share of acquisitions by hold time"),
    );
    for part in [0.0, 0.5, 1.0] {
        let at = PLOT.3 - (PLOT.3 - PLOT.2) * part;
        svg.line((PLOT.0, at), (PLOT.1, at), "grid");
        svg.text(
            (PLOT.0 - 6.0, at + 4.0),
            Anchor::End,
            &format!("{:.0}%", highest * part * 100.0),
        );
    }
    let step = (PLOT.1 - PLOT.0) / bars.len() as f64;
    let every = bars.len().div_ceil(6);
    let mut table = TableView::new(
        &title,
        "up to us",
        &["acquisitions".to_owned(), "share".to_owned()],
    );
    for (i, &(upper, count)) in bars.iter().enumerate() {
        let x = PLOT.0 + step * i as f64;
        let height = (PLOT.3 - PLOT.2) * share(count) / highest;
        let us = cycles_us(upper, run.cycle_ps);
        let hint = format!("up to {us} us: {}", figures::grouped(count));
        svg.rect(
            (x + 1.0, PLOT.3 - height),
            ((step - 2.0).max(0.5), height),
            "s0",
            "",
            &hint,
        );
        if i % every == 0 {
            svg.text((x + step, PLOT.3 + 15.0), Anchor::Middle, &us);
        }
        let percent = figures::percent(count, lock.hold.count);
        table.row(vec![cell(us), num(figures::grouped(count)), num(percent)]);
    }
    svg.text(
        ((PLOT.0 + PLOT.1) / 2.0, PLOT.3 + 30.0),
        Anchor::Middle,
        "hold time up to, us",
    );
    ChartView {
        title,
        svg: Value::from_safe_string(svg.finish()),
        table,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    /// Numbers of an attribute in the order of appearance.
    fn attribute(svg: &str, name: &str) -> Vec<u64> {
        svg.split(&format!("{name}=\""))
            .skip(1)
            .map(|rest| rest.split('"').next().unwrap().parse().unwrap())
            .collect()
    }

    #[test]
    fn segments_add_up_to_the_task_time_of_each_run() {
        let runs = sample::comparison().runs;
        let svg = cost_chart(&runs).unwrap().svg.to_string();
        let bars = attribute(&svg, "data-run");
        let cycles = attribute(&svg, "data-cycles");
        for (i, run) in runs.iter().enumerate() {
            let sum: u64 = bars
                .iter()
                .zip(&cycles)
                .filter(|(b, _)| **b == i as u64)
                .map(|(_, c)| c)
                .sum();
            assert_eq!(sum, run.task_cycles, "{}", run.label);
        }
    }

    #[test]
    fn doublings_keep_every_value() {
        for lock in &sample::run(1, 1).locks {
            assert_eq!(
                octaves(&lock.hold).iter().map(|b| b.1).sum::<u64>(),
                lock.hold.count
            );
        }
        assert_eq!(
            octaves(&Histogram {
                count: 1,
                total: 0,
                min: 0,
                max: 0,
                bins: vec![(0, 1)]
            }),
            [(0, 1)]
        );
        let top = Histogram {
            count: 1,
            total: 1,
            min: 1,
            max: u64::MAX,
            bins: vec![(u64::MAX, 1)],
        };
        assert_eq!(octaves(&top), [(u64::MAX, 1)]);
    }

    #[test]
    fn one_chart_an_operation_and_a_line_a_run() {
        let runs = sample::comparison().runs;
        let charts = latency_charts(&runs);
        let titles: Vec<&str> = charts.iter().map(|c| c.title.as_str()).collect();
        assert_eq!(titles, ["fork", "munmap", "touch", "truncate"]);
        assert!(
            charts
                .iter()
                .all(|c| c.svg.to_string().matches("<path").count() == 4)
        );
    }

    #[test]
    fn empty_distributions_draw_nothing() {
        let mut run = sample::run(0, 1);
        run.histograms
            .iter_mut()
            .for_each(|h| h.data = Histogram::default());
        run.breakdown.clear();
        assert!(latency_charts(&[run.clone()]).is_empty());
        assert!(cost_chart(&[run]).is_none());
    }
}
