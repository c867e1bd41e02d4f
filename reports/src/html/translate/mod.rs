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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::translation::translation;

    #[test]
    fn a_report_is_one_file_without_network_or_program() {
        let html = translate_html(&translation());
        assert!(html.starts_with("<!doctype html>"));
        for banned in ["http://", "https://", "<link", "@import", "url(", " src="] {
            assert!(!html.contains(banned), "{banned}");
        }
        assert_eq!(html.matches("<script").count(), 1, "only the copy of the result");
        assert!(html.contains("default-src 'none'"));
    }

    #[test]
    fn foreign_text_is_never_markup() {
        let html = translate_html(&translation());
        assert!(!html.contains("<script>alert(1)") && html.contains("&lt;script&gt;alert(1)"));
    }

    #[test]
    fn tables_have_captions_scopes_and_every_chart_its_table() {
        let html = translate_html(&translation());
        assert_eq!(html.matches("<table").count(), html.matches("<caption").count());
        assert!(html.contains("scope=\"col\"") && html.contains("scope=\"row\""));
        assert_eq!(html.matches("<figure").count(), 3);
        assert_eq!(html.matches("class=\"numbers\"").count(), 3);
        assert_eq!(html.matches("role=\"img\" aria-label=").count(), 3);
    }

    #[test]
    fn every_part_is_there_and_the_whole_result() {
        let result = translation();
        let html = translate_html(&result);
        for part in [
            "tlbs", "cycles", "walks", "what-if", "reuse", "memory", "cpus", "notes", "machine",
        ] {
            assert!(html.contains(&format!("<section id=\"{part}\"")), "{part}");
        }
        let copy = html
            .split("id=\"result\">")
            .nth(1)
            .and_then(|rest| rest.split("</script>").next());
        assert_eq!(
            serde_json::from_str::<TranslateResult>(copy.unwrap()).unwrap(),
            result
        );
    }

    #[test]
    fn segments_add_up_to_the_cycles() {
        let result = translation();
        let html = translate_html(&result);
        let cycles = html.split("<section id=\"cycles\">").nth(1).unwrap();
        let svg = cycles.split("</svg></div>").next().unwrap();
        let sum = |run: &str| -> u64 {
            svg.split(&format!("data-run=\"{run}\" data-cycles=\""))
                .skip(1)
                .map(|rest| rest.split('"').next().unwrap().parse::<u64>().unwrap())
                .sum()
        };
        assert_eq!(sum("2"), result.total_cycles);
        assert_eq!(sum("0") + sum("1"), result.total_cycles);
    }
}
