//! A translation.

use super::table::{Cell, Style, Table, wrap};
use super::{Detail, TextOptions};
use crate::figures::{self, bytes, grouped, percent, share};
use crate::schema::translate::{CycleRow, HotCost, ReuseCurve, TranslateResult};
use crate::translated::{self, Journey};

/// What the table of cycles takes beside its bars.
const COLUMNS: usize = 78;

/// Bars shorter than this say nothing, longer ones no more.
const SHORTEST_BAR: usize = 10;
const LONGEST_BAR: usize = 40;

/// CPUs that the first view shows.
const FEW_CPUS: usize = 8;

/// What translation cost: headline, TLBs, walks, cycles, memory, hot pages, and what else was asked for.
#[must_use]
pub fn translate_text(result: &TranslateResult, options: &TextOptions) -> String {
    let o = options;
    let mut out = String::new();
    let tone = if result.violations.is_empty() {
        Style::Bold
    } else {
        Style::Red
    };
    for (at, sentence) in translated::verdict(result).iter().enumerate() {
        out += &o.paragraph(sentence, if at == 0 { tone } else { Style::Plain });
    }
    out.push('\n');
    out += &o.paragraph(&translated::source(result), Style::Plain);
    out += &o.paragraph(
        &format!("{}: {}", result.machine.name, result.machine.title),
        Style::Dim,
    );
    out += &o.paragraph(&translated::origin(result), Style::Dim);
    if o.detail == Detail::All {
        out += &shapes(result, o);
    }
    out += &tlbs(result, o);
    out += &walks(result, o);
    out += &cycles(result, o);
    out += &(o.heading("memory") + &o.paragraph(&translated::memory(result), Style::Plain));
    out += &what_if(result, o);
    out += &reuse(result, o);
    out += &hot(result, o);
    out += &cpus(result, o);
    let notes = translated::notes(result);
    if !notes.is_empty() {
        out += &o.heading("notes");
        out.extend(notes.iter().map(|note| wrap(note, o.width(), "- ", "  ")));
    }
    out
}

fn shapes(result: &TranslateResult, o: &TextOptions) -> String {
    let machine = &result.machine;
    let mut out = String::new();
    for (name, shape) in [
        ("TLBs", &machine.tlb),
        ("paging-structure caches", &machine.paging_structure_caches),
        ("caches", &machine.caches),
    ] {
        out += &wrap(&format!("{name}: {shape}"), o.width(), "  ", "    ");
    }
    out
}

fn tlbs(result: &TranslateResult, o: &TextOptions) -> String {
    let mut table = Table::numbers(&[
        "TLBs",
        "references",
        "L1 misses",
        "",
        "L2 hits",
        "misses",
        "of all",
    ]);
    let journeys = translated::journeys(result);
    for (at, row) in journeys.iter().enumerate() {
        let sum = at > 0 && at + 1 == journeys.len();
        let style = if sum { Style::Bold } else { Style::Plain };
        let Journey { references, hits, .. } = *row;
        let cells = [
            row.name.to_owned(),
            grouped(references),
            grouped(references - hits),
            share(references - hits, references),
            grouped(row.second_level_hits),
            grouped(row.misses),
            share(row.misses, references),
        ];
        table.row(cells.map(|text| Cell::styled(text, style)).to_vec());
    }
    format!("\n{}", table.render(o.width(), o.color))
}

fn walks(result: &TranslateResult, o: &TextOptions) -> String {
    let servers = translated::servers(result);
    if servers.is_empty() {
        return String::new();
    }
    let mut heads = vec!["walks for", "walks", "first touch", "refs/walk"];
    // Without them, walks that are not misses would stay unexplained.
    let rewalked = o.detail == Detail::All || result.walks.iter().any(|row| row.rewalks > 0);
    if rewalked {
        heads.extend(["rewalks", "dirty assists"]);
    }
    heads.extend(servers.iter().map(|by| match *by {
        "first-level cache" => "L1",
        "second-level cache" => "L2",
        "last-level cache" => "LLC",
        "remote memory" => "remote",
        other => other,
    }));
    let mut table = Table::numbers(&heads);
    for row in result.walks.iter().filter(|row| row.walks + row.faults > 0) {
        let mut cells = vec![
            translated::client(row.client).to_owned(),
            grouped(row.walks),
            grouped(row.faults),
            figures::ratio(row.references_per_walk),
        ];
        if rewalked {
            cells.extend([grouped(row.rewalks), grouped(row.dirty_assists)]);
        }
        let all = row.page_table_references();
        cells.extend(servers.iter().map(|by| percent(translated::served(row, by), all)));
        table.row(cells.into_iter().map(Cell::new).collect());
    }
    format!("\n{}", table.render(o.width(), o.color))
}

fn cycles(result: &TranslateResult, o: &TextOptions) -> String {
    let total = result.total_cycles;
    if total == 0 {
        return String::new();
    }
    let bar_width = match o.width().saturating_sub(COLUMNS) {
        0..SHORTEST_BAR => 0,
        room => room.min(LONGEST_BAR),
    };
    let bar = |cycles: u64| {
        let length = u128::from(cycles) * bar_width as u128 / u128::from(total);
        "#".repeat(length as usize)
    };
    let columns = translated::columns(result);
    let names = columns.iter().map(|(name, _)| *name);
    let heads: Vec<&str> = std::iter::once("cycles")
        .chain(names)
        .chain(["share", ""])
        .collect();
    let mut table = Table::numbers(&heads).left(&[heads.len() - 1]);
    let wanted = |row: &&CycleRow| row.total() > 0 || o.detail == Detail::All;
    for row in result.cycles.iter().filter(wanted) {
        let mut cells = vec![row.account.clone()];
        cells.extend(columns.iter().map(|(_, of)| grouped(of(row))));
        cells.extend([percent(row.total(), total), bar(row.total())]);
        table.row(cells.into_iter().map(Cell::new).collect());
    }
    let sum = |of: fn(&CycleRow) -> u64| grouped(result.cycles.iter().map(of).sum());
    let mut cells = vec!["total".to_owned()];
    cells.extend(columns.iter().map(|(_, of)| sum(*of)));
    cells.extend([percent(total, total), String::new()]);
    table.row(
        cells
            .into_iter()
            .map(|text| Cell::styled(text, Style::Bold))
            .collect(),
    );
    format!("\n{}", table.render(o.width(), o.color))
}

fn what_if(result: &TranslateResult, o: &TextOptions) -> String {
    if result.what_if.is_empty() {
        return String::new();
    }
    let mut table = Table::numbers(&[
        "pages",
        "L2 hits",
        "misses",
        "cycles",
        "saved",
        "mapped",
        "page tables",
    ]);
    for row in &result.what_if {
        table.row(
            [
                row.pages.clone(),
                grouped(row.second_level_hits),
                grouped(row.misses),
                grouped(row.total_cycles),
                translated::saved(row.saved_cycles, result.total_cycles),
                bytes(row.mapped_bytes),
                grouped(row.page_tables),
            ]
            .map(Cell::new)
            .to_vec(),
        );
    }
    o.heading("with other pages") + &table.render(o.width(), o.color)
}

fn reuse(result: &TranslateResult, o: &TextOptions) -> String {
    let Some(reuse) = &result.reuse else {
        return String::new();
    };
    let curves = translated::curves(reuse);
    let longest = curves
        .iter()
        .map(|(_, _, curve)| curve.points.len())
        .max()
        .unwrap_or(0);
    let heads = std::iter::once("entries").chain(curves.iter().map(|(name, _, _)| *name));
    let mut table = Table::numbers(&heads.collect::<Vec<_>>());
    let mut line = |name: String, misses: &dyn Fn(&ReuseCurve) -> u64| {
        let mut cells = vec![Cell::new(name)];
        let shares = curves
            .iter()
            .map(|(_, _, curve)| share(misses(curve), curve.references));
        cells.extend(shares.map(Cell::new));
        table.row(cells);
    };
    for bits in 0..longest {
        line(grouped(1 << bits), &|curve| translated::missed(curve, bits));
    }
    line("any (cold)".to_owned(), &|curve| curve.cold);
    o.heading("what a fully associative LRU TLB of 4k pages would miss") + &table.render(o.width(), o.color)
}

fn hot(result: &TranslateResult, o: &TextOptions) -> String {
    const COSTS: [&str; 4] = ["L2 hits", "walks", "walk cycles", "share"];
    let costs = |cost: &HotCost| {
        [
            grouped(cost.second_level_hits),
            grouped(cost.walks),
            grouped(cost.walk_cycles),
            figures::fraction(cost.share),
        ]
        .map(Cell::new)
    };
    let mut out = String::new();
    if !result.hot_regions.is_empty() {
        let mut table = Table::numbers(&[&["region", "pages"][..], &COSTS].concat());
        for row in &result.hot_regions {
            let mut cells = vec![Cell::new(format!("{}-{}", row.start, row.end))];
            cells.push(Cell::new(grouped(row.pages)));
            cells.extend(costs(&row.cost));
            table.row(cells);
        }
        out += &(o.heading("regions by cycles of their walks") + &table.render(o.width(), o.color));
    }
    if !result.hot_pages.is_empty() {
        let mut table = Table::numbers(&[&["page", "size"][..], &COSTS].concat());
        for row in &result.hot_pages {
            let mut cells = vec![Cell::new(row.address.clone()), Cell::new(row.size.clone())];
            cells.extend(costs(&row.cost));
            table.row(cells);
        }
        out += &(o.heading("pages by cycles of their walks") + &table.render(o.width(), o.color));
    }
    out
}

fn cpus(result: &TranslateResult, o: &TextOptions) -> String {
    if result.cpus.is_empty() {
        return String::new();
    }
    let mut table = Table::numbers(&[
        "cpu",
        "threads",
        "references",
        "L2 hits",
        "misses",
        "cycles",
        "per ref",
    ]);
    let shown = match o.detail {
        Detail::All => result.cpus.len(),
        Detail::Headline => FEW_CPUS,
    };
    for row in result.cpus.iter().take(shown) {
        let each = row.total_cycles as f64 / row.references.max(1) as f64;
        table.row(
            [
                row.cpu.to_string(),
                row.threads.to_string(),
                grouped(row.references),
                grouped(row.second_level_hits),
                grouped(row.misses),
                grouped(row.total_cycles),
                figures::ratio(each),
            ]
            .map(Cell::new)
            .to_vec(),
        );
    }
    let mut out = o.heading("CPUs") + &table.render(o.width(), o.color);
    if let Some(hidden @ 1..) = result.cpus.len().checked_sub(shown) {
        out += &o.paragraph(
            &format!("{hidden} more are hidden: --all shows them."),
            Style::Dim,
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::Color;
    use super::*;
    use crate::translation::translation;

    fn plain(result: &TranslateResult, width: usize, detail: Detail) -> String {
        let color = Color::Never;
        translate_text(result, &TextOptions { width, color, detail })
    }

    #[test]
    fn no_line_exceeds_the_width() {
        for width in [40, 80, 160] {
            for detail in [Detail::Headline, Detail::All] {
                let text = plain(&translation(), width, detail);
                let longest = text.lines().map(|line| line.chars().count()).max().unwrap();
                assert!(longest <= width, "{longest} > {width}");
            }
        }
    }

    #[test]
    fn every_part_is_there() {
        let text = plain(&translation(), 100, Detail::All);
        for part in [
            "Translation takes",
            "2 rounds",
            "a warm-up of 5",
            "data compete for the caches, oracle off",
            "paging-structure caches: pde",
            "rewalks",
            "tables in remote memory",
            "with other pages",
            "one for all",
            "any (cold)",
            "0x400000-0x800000",
            "0x7ffffffff000",
            "CPUs",
            "9 records were not used: valgrind's own messages (first at line 1)",
            "12 accesses crossed",
            "the mark at the end is missing",
        ] {
            assert!(text.contains(part), "{part} missing in\n{text}");
        }
    }

    #[test]
    fn the_rows_of_all_accesses_add_up() {
        let text = plain(&translation(), 100, Detail::Headline);
        let all = text.lines().find(|line| line.starts_with("all "));
        let words: Vec<&str> = all.unwrap().split_whitespace().collect();
        assert_eq!(
            words[1..],
            ["4,400,000", "60,400", "1.37%", "36,300", "24,100", "0.548%"]
        );
    }

    #[test]
    fn a_violation_is_the_headline() {
        let mut result = translation();
        result.violations.push("CPU 0 used a frame".to_owned());
        let text = plain(&result, 100, Detail::Headline);
        assert!(
            text.starts_with("Stale translation: CPU 0 used a frame. The run ended there."),
            "{text}"
        );
    }

    #[test]
    fn bare_results_render_too() {
        let mut result = translation();
        result.references = Default::default();
        result.tlb.clear();
        result.walks.clear();
        result.cycles.clear();
        result.total_cycles = 0;
        result.reuse = None;
        result.what_if.clear();
        result.hot_pages.clear();
        result.hot_regions.clear();
        result.cpus.clear();
        assert!(plain(&result, 80, Detail::All).contains("made no reference"));
        assert!(crate::html::translate_html(&result).contains("</html>"));
    }

    #[test]
    fn data_alone_have_one_curve() {
        let mut result = translation();
        if let Some(reuse) = &mut result.reuse {
            reuse.instructions.references = 0;
        }
        let text = plain(&result, 100, Detail::Headline);
        assert!(
            text.contains("data alone") && !text.contains("one for all"),
            "{text}"
        );
    }
}
