//! The tables of a report, as the templates want them.

use serde::Serialize;

use crate::figures::{self, cycles_us, grouped};
use crate::groups::{GroupRow, groups};
use crate::schema::{Carried, CompareCell, CompareResult, Histogram, RunResult};
use crate::{config, glossary, text, verdict};

/// A table.
#[derive(Debug, Serialize)]
pub(super) struct TableView {
    caption: String,
    sortable: bool,
    first: String,
    heads: Vec<HeadView>,
    bodies: Vec<BodyView>,
}

#[derive(Debug, Serialize)]
struct HeadView {
    text: String,
    /// That of the column's cells.
    class: String,
}

#[derive(Debug, Default, Serialize)]
struct BodyView {
    title: String,
    note: String,
    /// All rows are only shown on request.
    more: bool,
    rows: Vec<RowView>,
}

#[derive(Debug, Serialize)]
struct RowView {
    cells: Vec<CellView>,
    /// Only shown on request.
    more: bool,
}

/// A cell: text, a smaller remark, a class, a hover text, a sort key.
#[derive(Debug, Default, Serialize)]
pub(super) struct CellView {
    text: String,
    sub: String,
    class: String,
    title: String,
    key: String,
}

/// A cell of words.
pub(super) fn cell(text: impl Into<String>) -> CellView {
    CellView {
        text: text.into(),
        ..CellView::default()
    }
}

/// A cell of a number.
pub(super) fn num(text: impl Into<String>) -> CellView {
    cell(text).class("num")
}

impl CellView {
    pub(super) fn class(mut self, class: &str) -> Self {
        self.class = class.to_owned();
        self
    }

    pub(super) fn sub(mut self, sub: impl Into<String>) -> Self {
        self.sub = sub.into();
        self
    }

    pub(super) fn titled(mut self, title: &str) -> Self {
        self.title = title.to_owned();
        self
    }

    fn key(mut self, key: f64) -> Self {
        self.key = key.to_string();
        self
    }
}

impl TableView {
    pub(super) fn new(caption: &str, first: &str, heads: &[String]) -> Self {
        Self {
            caption: caption.to_owned(),
            sortable: false,
            first: first.to_owned(),
            heads: heads
                .iter()
                .map(|h| HeadView {
                    text: h.clone(),
                    class: String::new(),
                })
                .collect(),
            bodies: vec![BodyView {
                more: true,
                ..BodyView::default()
            }],
        }
    }

    fn of(caption: &str, first: &str, heads: &[&str]) -> Self {
        let heads: Vec<String> = heads.iter().map(|h| (*h).to_owned()).collect();
        Self::new(caption, first, &heads)
    }

    pub(super) fn row(&mut self, cells: Vec<CellView>) {
        self.put(cells, false);
    }

    /// A row that is only shown on request.
    fn more(&mut self, cells: Vec<CellView>) {
        self.put(cells, true);
    }

    /// Rows that are only shown on request.
    pub(super) fn hidden(&self) -> usize {
        self.bodies
            .iter()
            .flat_map(|b| &b.rows)
            .filter(|r| r.more)
            .count()
    }

    fn put(&mut self, cells: Vec<CellView>, more: bool) {
        debug_assert_eq!(cells.len(), self.heads.len() + 1);
        for (head, cell) in self.heads.iter_mut().zip(&cells[1..]) {
            if cell.class.starts_with("num") && !cell.sub.is_empty() {
                "num sub".clone_into(&mut head.class);
            } else if cell.class.starts_with("num") && head.class.is_empty() {
                "num".clone_into(&mut head.class);
            }
        }
        if let Some(body) = self.bodies.last_mut() {
            body.more &= more;
            body.rows.push(RowView { cells, more });
        }
    }

    /// Starts a group of rows under a heading of its own.
    fn group(&mut self, title: &str, note: String) {
        self.bodies.retain(|b| !b.rows.is_empty());
        self.bodies.push(BodyView {
            title: title.to_owned(),
            note,
            more: true,
            rows: Vec::new(),
        });
    }

    /// The table, or nothing if it has no rows.
    fn filled(self) -> Option<Self> {
        self.bodies.iter().any(|b| !b.rows.is_empty()).then_some(self)
    }
}

fn labels(runs: &[RunResult]) -> Vec<String> {
    runs.iter().map(|r| r.label.clone()).collect()
}

/// What the columns are.
pub(super) fn designs(runs: &[RunResult]) -> TableView {
    let heads = ["design", "kernel", "machine", "end", "virtual time"];
    let mut table = TableView::of("Runs", "run", &heads);
    for r in runs {
        let class = verdict::Tone::of(r.end.kind).class();
        let overrides = r.design.overrides.join(", ");
        table.row(vec![
            cell(r.label.clone()),
            cell(format!("{}: {}", r.design.id, r.design.summary))
                .sub(overrides)
                .class("wrap"),
            cell(r.kernel.clone()),
            cell(r.machine.clone()),
            cell(verdict::end_words(r.end.kind))
                .class(class)
                .titled(&r.end.summary),
            num(figures::duration(r.virtual_cycles as f64, r.cycle_ps)),
        ]);
    }
    table
}

/// Who carries which secondary MMU, with the footnotes.
pub(super) fn carried(runs: &[RunResult]) -> (Option<TableView>, Vec<String>) {
    let mut table = TableView::new("Secondary MMUs under each design", "secondary MMU", &labels(runs));
    let mut reasons: Vec<String> = Vec::new();
    for (name, kind) in secondary_names(runs) {
        let mut cells = vec![cell(name).sub(kind)];
        for run in runs {
            let Some(s) = run.secondaries.iter().find(|s| s.name == name) else {
                cells.push(cell("\u{2013}"));
                continue;
            };
            let class = match s.carried {
                Carried::Full => "good",
                Carried::Pinned | Carried::Omitted => "open",
                Carried::Broken => "bad",
            };
            let mut text = verdict::carried_word(s.carried).to_owned();
            if !s.reason.is_empty() {
                let at = reasons.iter().position(|r| *r == s.reason).unwrap_or_else(|| {
                    reasons.push(s.reason.clone());
                    reasons.len() - 1
                });
                text += &format!(" *{}", at + 1);
            }
            cells.push(cell(text).class(class).titled(&s.reason));
        }
        table.row(cells);
    }
    (table.filled(), reasons)
}

fn secondary_names(runs: &[RunResult]) -> Vec<(&str, &str)> {
    let mut names: Vec<(&str, &str)> = Vec::new();
    for s in runs.iter().flat_map(|r| &r.secondaries) {
        if !names.iter().any(|(n, _)| *n == s.name) {
            names.push((&s.name, &s.kind));
        }
    }
    names
}

/// The comparison, in groups; within each it can be sorted.
pub(super) fn comparison(result: &CompareResult) -> TableView {
    let mut table = TableView::new("Metrics against the baseline", "metric", &labels(&result.runs));
    table.sortable = true;
    for group in groups(result).into_iter().filter(|g| !g.rows.is_empty()) {
        let zeros = match group.zeros {
            0 => String::new(),
            n => format!("{n} more are 0 everywhere"),
        };
        let note: Vec<&str> = [group.note, &zeros]
            .into_iter()
            .filter(|n| !n.is_empty())
            .collect();
        table.group(group.title, note.join("; "));
        for row in &group.rows {
            let cells = comparison_row(row, result);
            if row.headline {
                table.row(cells);
            } else {
                table.more(cells);
            }
        }
    }
    table
}

fn comparison_row(row: &GroupRow, result: &CompareResult) -> Vec<CellView> {
    let mut cells = vec![cell(row.name.clone()).titled(&row.row.metric)];
    for (i, c) in row.row.cells.iter().enumerate() {
        if c.values.is_empty() {
            cells.push(
                num("n/a")
                    .sub(if i == 0 { "" } else { "\u{2013}" })
                    .class("num dim"),
            );
            continue;
        }
        let value = row.scale.show(c.mean, result.runs[i].cycle_ps);
        let (sub, class) = if i == 0 { (String::new(), "num") } else { change(c) };
        cells.push(num(value).sub(sub).class(class).titled(&spread(c)).key(c.mean));
    }
    cells
}

/// Change against the baseline with its interval, in percent.
fn change(c: &CompareCell) -> (String, &'static str) {
    let Some(ratio) = c.ratio else {
        return ("\u{2013}".to_owned(), "num");
    };
    if c.ratio_low == 1.0 && c.ratio_high == 1.0 {
        return ("=".to_owned(), "num dim");
    }
    if !c.distinguishable {
        return ("no difference".to_owned(), "num dim");
    }
    let change = figures::change(ratio);
    let (low, high) = (
        figures::change_end(c.ratio_low),
        figures::change_end(c.ratio_high),
    );
    let text = if low == high {
        change
    } else {
        format!("{change} [{low}, {high}]")
    };
    (text, "num")
}

fn spread(c: &CompareCell) -> String {
    if c.values.windows(2).all(|v| v[0] == v[1]) {
        return String::new();
    }
    let values: Vec<String> = c.values.iter().map(u64::to_string).collect();
    match c.ratio {
        Some(ratio) => {
            format!(
                "ratio {ratio} [{}, {}]; per seed: {}",
                c.ratio_low,
                c.ratio_high,
                values.join(" ")
            )
        }
        None => format!("per seed: {}", values.join(" ")),
    }
}

/// Scalar metrics of one run.
pub(super) fn metrics(run: &RunResult) -> Option<TableView> {
    let mut table = TableView::of("Metrics", "metric", &["value", "unit"]);
    table.sortable = true;
    for m in run.metrics.iter().filter(|m| m.value > 0) {
        table.row(vec![
            cell(m.name.clone()).titled(&m.description),
            num(grouped(m.value)).key(m.value as f64),
            cell(m.unit.clone()),
        ]);
    }
    table.filled()
}

/// lock_stat's columns.
pub(super) fn lock_stat(run: &RunResult) -> Option<TableView> {
    let heads = [
        "contentions",
        "wait min",
        "wait max",
        "wait total",
        "wait avg",
        "acquisitions",
        "hold min",
        "hold max",
        "hold total",
        "hold avg",
    ];
    let mut table = TableView::of(
        &format!("lock_stat of {}, times in us", run.label),
        "class",
        &heads,
    );
    table.sortable = true;
    let times = |h: &Histogram| {
        let value = |v: u64| num(cycles_us(v, run.cycle_ps)).key(v as f64);
        let avg = num(figures::us(figures::micros(h.mean(), run.cycle_ps))).key(h.mean().round());
        [value(h.min), value(h.max), value(h.total), avg]
    };
    for l in &run.locks {
        let mut cells = vec![
            cell(l.class.clone()),
            num(grouped(l.contentions)).key(l.contentions as f64),
        ];
        cells.extend(times(&l.wait));
        cells.push(num(grouped(l.acquisitions)).key(l.acquisitions as f64));
        cells.extend(times(&l.hold));
        table.row(cells);
    }
    table.filled()
}

/// Contention points.
pub(super) fn lock_sites(run: &RunResult) -> Option<TableView> {
    let heads = ["waiter", "holder", "contentions"];
    let mut table = TableView::of(&format!("Contention points of {}", run.label), "class", &heads);
    for l in &run.locks {
        for s in l.sites.iter().filter(|s| s.contentions > 0) {
            table.row(vec![
                cell(l.class.clone()),
                cell(s.waiter.clone()).class("code"),
                cell(s.holder.clone()).class("code"),
                num(grouped(s.contentions)),
            ]);
        }
    }
    table.filled()
}

/// Members of the configuration that are not the same in every run.
pub(super) fn config_differences(runs: &[RunResult]) -> Option<TableView> {
    let first = runs.first()?;
    let mut members: Vec<String> = Vec::new();
    for run in runs {
        for (member, _) in config::differences(&first.config, &run.config) {
            if !members.contains(&member) {
                members.push(member);
            }
        }
    }
    let mut table = TableView::new("What differs", "member", &labels(runs));
    for member in members {
        let value = |r: &RunResult| match r.config.pointer(&member) {
            Some(serde_json::Value::String(text)) => text.clone(),
            Some(other) => text::clip(&other.to_string(), 60),
            None => "\u{2013}".to_owned(),
        };
        let mut cells = vec![cell(member.trim_start_matches('/').replace('/', "."))];
        cells.extend(runs.iter().map(|r| cell(value(r))));
        table.row(cells);
    }
    table.filled()
}

/// Interrupts from CPU to CPU, darker the more.
pub(super) fn interrupts(run: &RunResult) -> Option<TableView> {
    let most = run.ipi_matrix.iter().flatten().copied().max().unwrap_or(0);
    if most == 0 {
        return None;
    }
    let at = |from: usize, to: usize| {
        let row = run.ipi_matrix.get(from);
        row.and_then(|r| r.get(to)).copied().unwrap_or(0)
    };
    // CPUs that neither send nor receive are left out.
    let all = 0..run.ipi_matrix.len();
    let busy: Vec<usize> = all
        .clone()
        .filter(|&c| all.clone().any(|o| at(c, o) > 0 || at(o, c) > 0))
        .collect();
    let heads: Vec<String> = busy.iter().map(|c| format!("to {c}")).collect();
    let caption = format!("Shootdown interrupts of {}", run.label);
    let mut table = TableView::new(&caption, "from CPU", &heads);
    for &from in &busy {
        let mut cells = vec![cell(from.to_string())];
        cells.extend(busy.iter().map(|&to| match at(from, to) {
            0 => num("\u{b7}").class("num dim"),
            n => {
                let heat = (u128::from(n) * 4).div_ceil(u128::from(most));
                num(grouped(n)).class(&format!("num heat{heat}"))
            }
        }));
        table.row(cells);
    }
    table.filled()
}

/// Calls into each secondary MMU, callback by callback.
pub(super) fn notifier_calls(runs: &[RunResult]) -> Option<TableView> {
    let mut table = TableView::new("Notifier calls per secondary MMU", "callback", &labels(runs));
    for (name, kind) in secondary_names(runs) {
        let mut callbacks: Vec<&str> = Vec::new();
        let of = |r: &'_ RunResult| r.secondaries.iter().position(|s| s.name == name);
        for c in runs
            .iter()
            .filter_map(|r| of(r).map(|i| &r.secondaries[i]))
            .flat_map(|s| &s.callbacks)
        {
            if !callbacks.contains(&c.callback.as_str()) {
                callbacks.push(&c.callback);
            }
        }
        callbacks.retain(|callback| runs.iter().any(|r| r.calls(name, callback) > Some(0)));
        table.group(name, format!("{kind}; calls, us inside"));
        for callback in callbacks {
            let mut cells = vec![cell(callback)];
            cells.extend(runs.iter().map(|r| called(r, name, callback)));
            table.row(cells);
        }
    }
    table.filled()
}

fn called(run: &RunResult, name: &str, callback: &str) -> CellView {
    let found = run
        .secondaries
        .iter()
        .filter(|s| s.name == name)
        .flat_map(|s| &s.callbacks)
        .find(|c| c.callback == callback);
    match found {
        Some(c) => num(grouped(c.calls)).sub(cycles_us(c.cycles, run.cycle_ps)),
        None => num("\u{2013}").class("num dim"),
    }
}

/// Expectations of all runs.
pub(super) fn expectations(runs: &[RunResult]) -> Option<TableView> {
    let mut table = TableView::of("Expectations", "subject", &["run", "expected", "actual", "held"]);
    for run in runs {
        for e in &run.expectations {
            let (word, class) = if e.ok { ("yes", "good") } else { ("no", "bad") };
            table.row(vec![
                cell(e.subject.clone()),
                cell(run.label.clone()),
                cell(e.expected.clone()),
                cell(e.actual.clone()),
                cell(word).class(class),
            ]);
        }
    }
    table.filled()
}

/// What the names mean.
pub(super) fn glossary(runs: &[RunResult]) -> Option<TableView> {
    let mut table = TableView::of("Glossary", "name", &["kind", "unit", "meaning"]);
    for e in glossary::glossary(runs) {
        table.row(vec![
            cell(e.name),
            cell(e.kind),
            cell(e.unit),
            cell(e.description).class("wrap"),
        ]);
    }
    table.filled()
}
