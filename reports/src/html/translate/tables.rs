//! The tables of a translation.

use super::super::tables::{CellView, TableView, cell, num};
use crate::figures::{self, grouped, percent, share};
use crate::schema::translate::{HotCost, TranslateResult};
use crate::translated;

fn table(caption: &str, first: &str, heads: &[&str]) -> TableView {
    let heads: Vec<String> = heads.iter().map(|head| (*head).to_owned()).collect();
    TableView::new(caption, first, &heads)
}

/// References through both levels.
pub(super) fn tlbs(result: &TranslateResult) -> TableView {
    let heads = [
        "references",
        "first-level misses",
        "second-level hits",
        "misses of both",
    ];
    let mut table = table("References by access", "access", &heads);
    for row in translated::journeys(result) {
        let missed = row.references - row.hits;
        table.row(vec![
            cell(row.name),
            num(grouped(row.references)),
            num(grouped(missed)).sub(share(missed, row.references)),
            num(grouped(row.second_level_hits)).sub(share(row.second_level_hits, row.references)),
            num(grouped(row.misses)).sub(share(row.misses, row.references)),
        ]);
    }
    table
}

/// Walks and who served them.
pub(super) fn walks(result: &TranslateResult) -> Option<TableView> {
    let servers = translated::servers(result);
    if servers.is_empty() {
        return None;
    }
    let heads = [
        "walks",
        "rewalks",
        "first touches",
        "dirty assists",
        "references a walk",
    ];
    let mut table = table(
        "Walks by those who need them",
        "for",
        &[&heads[..], &servers].concat(),
    );
    for row in result.walks.iter().filter(|row| row.walks + row.faults > 0) {
        let all = row.page_table_references();
        let mut cells = vec![
            cell(translated::client(row.client)),
            num(grouped(row.walks)),
            num(grouped(row.rewalks)),
            num(grouped(row.faults)),
            num(grouped(row.dirty_assists)),
            num(figures::ratio(row.references_per_walk)),
        ];
        cells.extend(
            servers
                .iter()
                .map(|by| num(percent(translated::served(row, by), all))),
        );
        table.row(cells);
    }
    Some(table)
}

const COSTS: [&str; 4] = ["second-level hits", "walks", "walk cycles", "share"];

fn costs(cost: &HotCost) -> Vec<CellView> {
    vec![
        num(grouped(cost.second_level_hits)),
        num(grouped(cost.walks)),
        num(grouped(cost.walk_cycles)),
        num(figures::fraction(cost.share)),
    ]
}

/// The dearest regions.
pub(super) fn regions(result: &TranslateResult) -> Option<TableView> {
    let heads = [&["pages"][..], &COSTS].concat();
    let mut table = table("Regions by cycles of their walks", "region", &heads);
    for row in &result.hot_regions {
        let mut cells = vec![
            cell(format!("{} to {}", row.start, row.end)),
            num(grouped(row.pages)),
        ];
        cells.extend(costs(&row.cost));
        table.row(cells);
    }
    (!result.hot_regions.is_empty()).then_some(table)
}

/// The dearest pages.
pub(super) fn pages(result: &TranslateResult) -> Option<TableView> {
    let heads = [&["size"][..], &COSTS].concat();
    let mut table = table("Pages by cycles of their walks", "page", &heads);
    for row in &result.hot_pages {
        let mut cells = vec![cell(row.address.as_str()), num(row.size.as_str())];
        cells.extend(costs(&row.cost));
        table.row(cells);
    }
    (!result.hot_pages.is_empty()).then_some(table)
}

/// CPUs, if there were several.
pub(super) fn cpus(result: &TranslateResult) -> Option<TableView> {
    let heads = [
        "threads",
        "references",
        "second-level hits",
        "misses of both",
        "cycles",
        "a reference",
    ];
    let mut table = table("What each CPU did", "CPU", &heads);
    for row in &result.cpus {
        let each = row.total_cycles as f64 / row.references.max(1) as f64;
        table.row(vec![
            cell(row.cpu.to_string()),
            num(row.threads.to_string()),
            num(grouped(row.references)),
            num(grouped(row.second_level_hits)),
            num(grouped(row.misses)),
            num(grouped(row.total_cycles)),
            num(figures::ratio(each)),
        ]);
    }
    (!result.cpus.is_empty()).then_some(table)
}

/// What the machine consists of.
pub(super) fn machine(result: &TranslateResult) -> TableView {
    let machine = &result.machine;
    let mut table = table(&machine.title, "part", &["shape"]);
    for (part, shape) in [
        ("TLBs", &machine.tlb),
        ("paging-structure caches", &machine.paging_structure_caches),
        ("caches", &machine.caches),
    ] {
        table.row(vec![cell(part), cell(shape.as_str()).class("wrap")]);
    }
    table
}
