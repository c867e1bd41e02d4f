//! A translation.

mod charts;
mod tables;

use minijinja::Value;
use serde::Serialize;

use super::charts::{ChartView, LegendItem};
use super::tables::TableView;
use super::{STYLE, embed, render_with};
use crate::schema::translate::TranslateResult;
use crate::translated;

const TEMPLATE: &str = concat!(
    include_str!("../../../templates/macros.html"),
    include_str!("../../../templates/translate.html")
);

/// Everything the template shows.
#[derive(Serialize)]
struct Page {
    style: Value,
    json: Value,
    title: String,
    tone: &'static str,
    verdict: Vec<String>,
    origin: String,
    source: String,
    tlbs: TableView,
    cycles: Option<ChartView>,
    cycle_legend: Vec<LegendItem>,
    walks: Option<TableView>,
    what_if: Option<ChartView>,
    what_if_legend: Vec<LegendItem>,
    reuse: Option<ChartView>,
    reuse_legend: Vec<LegendItem>,
    reuse_note: String,
    memory: String,
    regions: Option<TableView>,
    pages: Option<TableView>,
    cpus: Option<TableView>,
    notes: Vec<String>,
    machine: TableView,
}

/// A translation as a self-contained HTML file.
#[must_use]
pub fn translate_html(result: &TranslateResult) -> String {
    let page = Page {
        style: Value::from_safe_string(STYLE.to_owned()),
        json: embed::translation(result),
        title: format!("{} on {}", result.source.name, result.machine.name),
        tone: if result.violations.is_empty() {
            "good"
        } else {
            "bad"
        },
        verdict: translated::verdict(result),
        origin: translated::origin(result),
        source: translated::source(result),
        tlbs: tables::tlbs(result),
        cycles: charts::cycles(result),
        cycle_legend: charts::cycle_legend(result),
        walks: tables::walks(result),
        what_if: charts::what_if(result),
        what_if_legend: charts::what_if_legend(),
        reuse: charts::reuse(result),
        reuse_legend: charts::reuse_legend(result),
        reuse_note: charts::reuse_note(result),
        memory: translated::memory(result),
        regions: tables::regions(result),
        pages: tables::pages(result),
        cpus: tables::cpus(result),
        notes: translated::notes(result),
        machine: tables::machine(result),
    };
    render_with("translate.html", TEMPLATE, &page)
}
