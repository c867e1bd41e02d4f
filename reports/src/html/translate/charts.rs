//! The charts of a translation.

use minijinja::Value;

use super::super::charts::{ChartView, LegendItem, class};
use super::super::tables::{CellView, TableView, cell, num};
use crate::figures::{bytes, grouped, percent, share};
use crate::schema::translate::{CycleRow, ReuseCurve, ReuseInfo, TranslateResult, WhatIfRow};
use crate::svg::{Anchor, LogAxis, Svg};
use crate::translated;

/// Stacked bars: where they begin, how long they may be, what is left for the figure, height of a row.
const LEFT: f64 = 96.0;
const BAR: f64 = 600.0;
const RIGHT: f64 = 210.0;
const ROW: f64 = 30.0;

fn item(class: String, text: &str, title: &str) -> LegendItem {
    LegendItem {
        class,
        text: text.to_owned(),
        title: title.to_owned(),
    }
}

/// One bar: its name, its parts, and what is written behind it.
struct Bar {
    name: String,
    parts: Vec<(String, u64)>,
    note: String,
}

/// Bars below each other, in one scale.
fn bars(label: &str, bars: &[Bar]) -> Value {
    let length = |bar: &Bar| bar.parts.iter().map(|(_, cycles)| cycles).sum::<u64>();
    let longest = bars.iter().map(length).max().unwrap_or(0).max(1);
    let mut svg = Svg::new(LEFT + BAR + RIGHT, ROW * bars.len() as f64 + 4.0, label);
    let place = |cycles: u64| LEFT + BAR * cycles as f64 / longest as f64;
    for (row, bar) in bars.iter().enumerate() {
        let y = ROW * row as f64 + 4.0;
        svg.text((LEFT - 8.0, y + 15.0), Anchor::End, &bar.name);
        let mut seen = 0;
        for (i, (part, cycles)) in bar.parts.iter().enumerate().filter(|(_, part)| part.1 > 0) {
            let (from, to) = (place(seen), place(seen + cycles));
            seen += cycles;
            let title = format!("{}, {part}: {} cycles", bar.name, grouped(*cycles));
            let extra = format!(" data-run=\"{row}\" data-cycles=\"{cycles}\"");
            svg.rect(
                (from, y),
                (to - from, ROW - 8.0),
                &format!("seg {}", class('s', i)),
                &extra,
                &title,
            );
        }
        svg.text((place(seen) + 6.0, y + 15.0), Anchor::Start, &bar.note);
    }
    Value::from_safe_string(svg.finish())
}

fn spent(result: &TranslateResult) -> Vec<&CycleRow> {
    result.cycles.iter().filter(|row| row.total() > 0).collect()
}

/// Accounts as a legend.
pub(super) fn cycle_legend(result: &TranslateResult) -> Vec<LegendItem> {
    let rows = spent(result).into_iter().enumerate();
    rows.map(|(i, row)| item(class('s', i), &row.account, &row.description))
        .collect()
}

/// Cycles of data, of instructions, and together.
pub(super) fn cycles(result: &TranslateResult) -> Option<ChartView> {
    let rows = spent(result);
    let total = result.total_cycles;
    if total == 0 {
        return None;
    }
    let bar = |name: &str, of: fn(&CycleRow) -> u64| {
        let parts: Vec<(String, u64)> = rows.iter().map(|row| (row.account.clone(), of(row))).collect();
        let all: u64 = parts.iter().map(|(_, cycles)| cycles).sum();
        Bar {
            name: name.to_owned(),
            parts,
            note: format!("{} cycles, {}", grouped(all), percent(all, total)),
        }
    };
    let columns = translated::columns(result);
    let drawn: Vec<Bar> = columns.iter().map(|(name, of)| bar(name, *of)).collect();
    let heads: Vec<String> = columns.iter().map(|(name, _)| (*name).to_owned()).collect();
    let mut table = TableView::new("Cycles of translation", "account", &heads);
    let mut line = |name: CellView, cycles: &dyn Fn(fn(&CycleRow) -> u64) -> u64| {
        let mut cells = vec![name];
        cells.extend(columns.iter().map(|(_, of)| {
            let cycles = cycles(*of);
            num(grouped(cycles)).sub(percent(cycles, total))
        }));
        table.row(cells);
    };
    for row in &rows {
        line(cell(row.account.as_str()).titled(&row.description), &|of| of(row));
    }
    line(cell("total"), &|of| rows.iter().map(|row| of(row)).sum());
    Some(ChartView {
        title: "Cycles by account".to_owned(),
        svg: bars("Stacked bars: cycles of translation by account", &drawn),
        table,
    })
}

/// Parts of a what-if bar as a legend.
pub(super) fn what_if_legend() -> Vec<LegendItem> {
    vec![
        item(
            class('s', 0),
            "second-level hits",
            "first-level misses that the second level served",
        ),
        item(class('s', 1), "walks", "all walks, first touches included"),
    ]
}

/// Cycles with each kind of pages.
pub(super) fn what_if(result: &TranslateResult) -> Option<ChartView> {
    if result.what_if.is_empty() {
        return None;
    }
    let bar = |row: &WhatIfRow| {
        let share = percent(row.saved_cycles.unsigned_abs(), result.total_cycles);
        let saved = match row.saved_cycles {
            0 => String::new(),
            1.. => format!(", saves {share}"),
            _ => format!(", costs {share} more"),
        };
        Bar {
            name: row.pages.clone(),
            parts: vec![
                ("second-level hits".to_owned(), row.total_cycles - row.walk_cycles),
                ("walks".to_owned(), row.walk_cycles),
            ],
            note: format!("{} cycles{saved}", grouped(row.total_cycles)),
        }
    };
    let drawn: Vec<Bar> = result.what_if.iter().map(bar).collect();
    let heads = [
        "second-level hits",
        "misses of both",
        "walk cycles",
        "cycles",
        "saved",
        "mapped",
        "page tables",
    ]
    .map(str::to_owned);
    let mut table = TableView::new("With other pages", "pages", &heads);
    for row in &result.what_if {
        table.row(vec![
            cell(row.pages.as_str()),
            num(grouped(row.second_level_hits)),
            num(grouped(row.misses)),
            num(grouped(row.walk_cycles)),
            num(grouped(row.total_cycles)),
            num(translated::saved(row.saved_cycles, result.total_cycles)),
            num(bytes(row.mapped_bytes)),
            num(grouped(row.page_tables)),
        ]);
    }
    Some(ChartView {
        title: "Cycles of translation by page policy".to_owned(),
        svg: bars("Stacked bars: cycles of translation by page policy", &drawn),
        table,
    })
}

/// The curves as a legend.
pub(super) fn reuse_legend(result: &TranslateResult) -> Vec<LegendItem> {
    let curves = result.reuse.as_ref().map_or_else(Vec::new, translated::curves);
    let items = curves.into_iter().enumerate();
    items
        .map(|(i, (name, title, _))| item(class('l', i), name, title))
        .collect()
}

/// What the upright lines are.
pub(super) fn reuse_note(result: &TranslateResult) -> String {
    let slots = &result.machine.small_page_slots;
    let second = match slots.second_level_data {
        0 => String::new(),
        n => format!(" and in the second ({n})"),
    };
    format!(
        "Upright lines: slots for loads that {} has in the first level ({}){second}.",
        result.machine.name, slots.loads
    )
}

/// Miss ratio over entries, both logarithmic.
pub(super) fn reuse(result: &TranslateResult) -> Option<ChartView> {
    const SIZE: (f64, f64) = (720.0, 300.0);
    // Left, right, top, bottom.
    const PLOT: (f64, f64, f64, f64) = (56.0, 700.0, 14.0, 254.0);
    let reuse = result.reuse.as_ref()?;
    let slots = &result.machine.small_page_slots;
    let marks = [slots.loads, slots.second_level_data].map(u64::from);
    let curves = translated::curves(reuse);
    let points = || curves.iter().flat_map(|(_, _, curve)| &curve.points);
    let last = points().map(|p| p.entries).chain(marks).max().unwrap_or(1).max(2);
    let y = LogAxis::over(points().map(|p| p.share * 100.0), PLOT.3, PLOT.2);
    let bits = (last as f64).log2().ceil();
    let x = |entries: u64| PLOT.0 + (PLOT.1 - PLOT.0) * (entries.max(1) as f64).log2() / bits;
    let mut svg = Svg::new(
        SIZE.0,
        SIZE.1,
        "Lines: share of references missed, by entries of the TLB",
    );
    for (value, label) in y.ticks() {
        let at = y.place(value);
        svg.line((PLOT.0, at), (PLOT.1, at), "grid");
        svg.text((PLOT.0 - 6.0, at + 4.0), Anchor::End, &format!("{label} %"));
    }
    for power in (0..=bits as u32).step_by(if bits > 12.0 { 2 } else { 1 }) {
        let entries = 1_u64 << power;
        svg.text((x(entries), PLOT.3 + 16.0), Anchor::Middle, &short(entries));
    }
    svg.text(
        ((PLOT.0 + PLOT.1) / 2.0, PLOT.3 + 36.0),
        Anchor::Middle,
        "entries; share of references missed on the left",
    );
    for slots in marks.into_iter().filter(|&slots| slots > 0) {
        svg.line((x(slots), PLOT.2), (x(slots), PLOT.3), "mark");
    }
    for (i, (name, _, curve)) in curves.iter().enumerate() {
        let mut points: Vec<(f64, f64)> = curve
            .points
            .iter()
            .map(|p| (x(p.entries), y.place(p.share * 100.0)))
            .collect();
        // A curve stays where it ends: only cold references are left.
        if let Some(&(_, level)) = points.last() {
            points.push((PLOT.1, level));
        }
        svg.lines(&points, &class('l', i), name);
    }
    Some(ChartView {
        title: "Miss ratio by entries".to_owned(),
        svg: Value::from_safe_string(svg.finish()),
        table: reuse_table(reuse),
    })
}

/// A power of two as people write it.
fn short(entries: u64) -> String {
    match entries {
        0..1024 => entries.to_string(),
        1024..1_048_576 => format!("{}k", entries >> 10),
        _ => format!("{}M", entries >> 20),
    }
}

fn reuse_table(reuse: &ReuseInfo) -> TableView {
    let curves = translated::curves(reuse);
    let heads: Vec<String> = curves.iter().map(|(name, _, _)| (*name).to_owned()).collect();
    let mut table = TableView::new("References missed", "entries", &heads);
    let mut line = |name: String, misses: &dyn Fn(&ReuseCurve) -> u64| {
        let mut cells = vec![cell(name)];
        cells.extend(curves.iter().map(|(_, _, curve)| {
            let missed = misses(curve);
            num(grouped(missed)).sub(share(missed, curve.references))
        }));
        table.row(cells);
    };
    let longest = curves
        .iter()
        .map(|(_, _, curve)| curve.points.len())
        .max()
        .unwrap_or(0);
    for bits in 0..longest {
        line(grouped(1 << bits), &|curve| translated::missed(curve, bits));
    }
    line("any (cold)".to_owned(), &|curve| curve.cold);
    table
}
