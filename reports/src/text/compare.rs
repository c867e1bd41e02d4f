//! Designs side by side.

use super::table::{Cell, Style, Table, wrap};
use super::{Detail, TextOptions, violation_card};
use crate::groups::{Group, GroupRow, groups};
use crate::schema::{Carried, CompareCell, CompareResult};
use crate::{figures, verdict};

/// A comparison: verdict, who carries which secondary MMU, metrics against the baseline,
/// violations.
#[must_use]
pub fn compare_text(result: &CompareResult, options: &TextOptions) -> String {
    let o = options;
    let mut sentences = verdict::compare(result).into_iter();
    let mut out = o.paragraph(&sentences.next().unwrap_or_default(), Style::Bold);
    for sentence in sentences {
        out += &o.paragraph(&sentence, Style::Plain);
    }
    out += "\n";
    out += &o.paragraph(&result.title, Style::Plain);
    let seeds: Vec<String> = result.seeds.iter().map(u64::to_string).collect();
    let origin = format!(
        "{} {}; baseline {}; seeds {}",
        result.tool.name,
        result.tool.version,
        result.baseline,
        seeds.join(" ")
    );
    out += &o.paragraph(&origin, Style::Dim);
    for run in &result.runs {
        let line = format!("{} on {}, {}", run.design.id, run.kernel, run.machine);
        let label = format!("  {:<6} ", super::table::clip(&run.label, 12));
        out += &wrap(&line, o.width(), &label, "         ");
    }
    out += &carried(result, o);
    out += &metrics(result, o);
    out += &violations(result, o);
    out
}

fn carried(result: &CompareResult, o: &TextOptions) -> String {
    let mut names: Vec<(&str, &str)> = Vec::new();
    for s in result.runs.iter().flat_map(|r| &r.secondaries) {
        if !names.iter().any(|(n, _)| *n == s.name) {
            names.push((&s.name, &s.kind));
        }
    }
    if names.is_empty() {
        return String::new();
    }
    let mut reasons: Vec<&str> = Vec::new();
    let mut table = Table::numbers(&heads("secondary MMU", result));
    for (name, kind) in names {
        let mut cells = vec![Cell::new(format!("{name} ({kind})"))];
        for run in &result.runs {
            let found = run.secondaries.iter().find(|s| s.name == name);
            cells.push(found.map_or_else(
                || Cell::styled("-", Style::Dim),
                |s| carried_cell(s.carried, &s.reason, &mut reasons),
            ));
        }
        table.row(cells);
    }
    let mut out = o.heading("secondary MMUs") + &table.render(o.width(), o.color);
    for (i, reason) in reasons.iter().enumerate() {
        out += &wrap(reason, o.width(), &format!("  *{} ", i + 1), "     ");
    }
    out
}

/// `full`, or the state with the number of its footnote.
fn carried_cell<'a>(carried: Carried, reason: &'a str, reasons: &mut Vec<&'a str>) -> Cell {
    let word = verdict::carried_word(carried);
    let style = match carried {
        Carried::Full => Style::Green,
        Carried::Pinned | Carried::Omitted => Style::Yellow,
        Carried::Broken => Style::Red,
    };
    if reason.is_empty() {
        return Cell::styled(word, style);
    }
    let number = reasons.iter().position(|r| *r == reason).unwrap_or_else(|| {
        reasons.push(reason);
        reasons.len() - 1
    });
    Cell::styled(format!("{word}*{}", number + 1), style)
}

fn heads(first: &str, result: &CompareResult) -> Vec<String> {
    let labels = result.runs.iter().map(|r| r.label.clone());
    std::iter::once(first.to_owned()).chain(labels).collect()
}

fn metrics(result: &CompareResult, o: &TextOptions) -> String {
    let mut table = Table::numbers(&heads("metric", result));
    let groups = groups(result);
    let (mut zeros, mut hidden) = (0, 0);
    for group in &groups {
        zeros += group.zeros;
        let wanted = |r: &&GroupRow| r.headline || o.detail == Detail::All;
        let rows: Vec<&GroupRow> = group.rows.iter().filter(wanted).collect();
        hidden += group.rows.len() - rows.len();
        if rows.is_empty() {
            continue;
        }
        table.section(&section(group));
        for row in rows {
            let mut cells = vec![Cell::new(format!("  {}", row.name))];
            for (i, cell) in row.row.cells.iter().enumerate() {
                cells.push(metric_cell(row, cell, i, result));
            }
            table.row(cells);
        }
    }
    let mut out = o.heading("metrics") + &table.render(o.width(), o.color);
    let mut note = "Percentages are against the baseline".to_owned();
    if result.seeds.len() > 1 {
        note += &format!(
            ", values means over {} seeds, percentages the geometric means of the paired ratios",
            result.seeds.len()
        );
    }
    note += "; ~ marks a difference that cannot be told from none.";
    if zeros > 0 {
        note += &format!(" {zeros} metrics that are 0 in every column are not shown.");
    }
    out += &o.paragraph(&note, Style::Dim);
    if hidden > 0 {
        let more = format!("{hidden} more rows are hidden: --all shows them, --json writes everything.");
        out += &o.paragraph(&more, Style::Plain);
    }
    out
}

fn section(group: &Group) -> String {
    if group.note.is_empty() {
        group.title.to_owned()
    } else {
        format!("{} ({})", group.title, group.note)
    }
}

/// `1,234 ( -12.3%)`, as mmtests prints it; the baseline has nothing to be held against.
fn metric_cell(row: &GroupRow, cell: &CompareCell, column: usize, result: &CompareResult) -> Cell {
    if cell.values.is_empty() {
        let blank = if column == 0 { "" } else { "           " };
        return Cell::styled(format!("n/a{blank}"), Style::Dim);
    }
    let value = row.scale.show(cell.mean, result.runs[column].cycle_ps);
    let (change, mark, style) = match cell.ratio {
        _ if column == 0 => return Cell::new(value),
        None => ("-".to_owned(), ' ', Style::Plain),
        Some(ratio) if cell.distinguishable => (figures::change(ratio), ' ', Style::Plain),
        Some(ratio) if cell.ratio_low == cell.ratio_high && ratio == 1.0 => {
            ("0.0%".to_owned(), ' ', Style::Dim)
        }
        Some(ratio) => (figures::change(ratio), '~', Style::Dim),
    };
    Cell::styled(format!("{value} ({mark}{change:>7})"), style)
}

fn violations(result: &CompareResult, o: &TextOptions) -> String {
    let mut out = String::new();
    for run in &result.runs {
        for (i, row) in run.violations.iter().enumerate() {
            out.push('\n');
            out += &violation_card(i + 1, run, row, o);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::Color;
    use super::*;
    use crate::sample;

    fn text(width: usize, detail: Detail) -> String {
        compare_text(
            &sample::comparison(),
            &TextOptions {
                width,
                color: Color::Never,
                detail,
            },
        )
    }

    fn plain(width: usize) -> String {
        text(width, Detail::All)
    }

    #[test]
    fn the_first_view_is_short_and_says_what_it_hides() {
        let (short, long) = (text(160, Detail::Headline), plain(160));
        assert!(short.lines().count() < long.lines().count());
        assert!(short.contains("more rows are hidden: --all"), "{short}");
        assert!(!long.contains("--all"), "{long}");
        for row in ["time.virtual_cycles", "tlb.shootdown.ipis", "munmap p99", "total"] {
            assert!(short.contains(row), "{row} missing in {short}");
        }
    }

    #[test]
    fn calls_are_counted_for_each_secondary_mmu() {
        let result = sample::comparison();
        let device = result.runs[3]
            .secondaries
            .iter()
            .find(|s| s.callbacks.iter().any(|c| c.calls > 0));
        let device = device.expect("v9 notifies somebody");
        let call = device.callbacks.iter().find(|c| c.calls > 0).expect("a call");
        let text = text(160, Detail::Headline);
        assert!(
            text.contains(&format!("  {} {}", device.name, call.callback)),
            "{text}"
        );
    }

    #[test]
    fn no_line_exceeds_the_width() {
        for width in [40, 72, 80, 100, 132, 160] {
            let text = plain(width);
            let longest = text.lines().map(|l| l.chars().count()).max().unwrap();
            assert!(longest <= width, "{longest} > {width}");
        }
    }

    #[test]
    fn all_designs_stand_side_by_side_at_160_columns_and_in_blocks_at_80() {
        assert_eq!(plain(160).matches("  tlb.shootdown.ipis").count(), 1);
        assert_eq!(plain(80).matches("  tlb.shootdown.ipis").count(), 2);
    }

    #[test]
    fn what_a_design_cannot_carry_has_a_footnote() {
        let text = plain(160);
        assert!(text.contains("pinned*1") && text.contains("omitted*2") && text.contains("broken*3"));
        assert!(text.contains("*2 the GRU driver needs callbacks"));
    }

    #[test]
    fn violations_are_cards() {
        let text = plain(80);
        assert!(text.contains("violation 1: sleep-in-atomic (v8)"));
        assert!(text.contains("held  i_mmap_lock"));
    }

    #[test]
    fn colour_is_only_escapes() {
        let result = sample::comparison();
        let colored = compare_text(
            &result,
            &TextOptions {
                width: 80,
                color: Color::Always,
                detail: Detail::All,
            },
        );
        let mut stripped = String::new();
        let mut rest = colored.as_str();
        while let Some(at) = rest.find('\u{1b}') {
            stripped += &rest[..at];
            rest = &rest[at + rest[at..].find('m').unwrap() + 1..];
        }
        stripped += rest;
        let trimmed: Vec<&str> = stripped.lines().map(str::trim_end).collect();
        assert_eq!(trimmed, plain(80).lines().collect::<Vec<_>>());
    }
}
