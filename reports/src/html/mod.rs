//! Results as one HTML file: no network, readable without JavaScript, on paper, in the dark.
//!
//! A single run is laid out as a comparison of one column, without the percentages.

mod charts;
mod embed;
mod tables;
mod translate;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, UndefinedBehavior, Value};
use serde::Serialize;

use crate::schema::{CompareResult, RunResult};
use crate::verdict::{self, Tone};
use crate::{config, figures};
use charts::{ChartView, LegendItem};
use tables::TableView;
pub use translate::translate_html;

const TEMPLATE: &str = concat!(
    include_str!("../../templates/macros.html"),
    include_str!("../../templates/report.html")
);
const STYLE: &str = include_str!("../../templates/style.css");
const SCRIPT: &str = include_str!("../../templates/report.js");

/// Everything the template shows.
#[derive(Serialize)]
struct Page {
    style: Value,
    script: Value,
    json: Value,
    title: String,
    tone: &'static str,
    verdict: Vec<String>,
    origin: String,
    designs: TableView,
    carried: Option<TableView>,
    reasons: Vec<String>,
    comparison: Option<TableView>,
    comparison_note: String,
    hidden: usize,
    cost: Option<ChartView>,
    cost_legend: Vec<LegendItem>,
    run_legend: Vec<LegendItem>,
    latency: Vec<ChartView>,
    latency_note: String,
    holds: Vec<ChartView>,
    holds_note: String,
    notifiers: Option<TableView>,
    runs: Vec<RunView>,
    config: ConfigView,
    violations: Vec<ViolationView>,
    notes: Vec<NoteView>,
    expectations: Option<TableView>,
    glossary: Option<TableView>,
}

/// What is shown for each run on its own.
#[derive(Serialize)]
struct RunView {
    label: String,
    lock_stat: Option<TableView>,
    sites: Option<TableView>,
    interrupts: Option<TableView>,
    metrics: Option<TableView>,
    evidence: Vec<String>,
}

/// The configuration: once, with what differs from run to run beside it.
#[derive(Serialize)]
struct ConfigView {
    title: String,
    text: Value,
    short: bool,
    digest: String,
    differences: Option<TableView>,
}

/// A remark and the runs that made it.
#[derive(Serialize)]
struct NoteView {
    text: String,
    runs: String,
}

#[derive(Serialize)]
struct ViolationView {
    run: String,
    kind: String,
    summary: String,
    place: String,
    stack: Vec<String>,
    held: Vec<String>,
    history: Vec<String>,
}

/// One run as a self-contained HTML file.
#[must_use]
pub fn run_html(result: &RunResult) -> String {
    let runs = std::slice::from_ref(result);
    let origin = format!(
        "{} {}, seed {}, scenario {} ({})",
        result.tool.name, result.tool.version, result.seed, result.scenario.file, result.scenario.digest
    );
    let mut page = page(
        runs,
        result.scenario.title.clone(),
        vec![verdict::run(result)],
        origin,
        embed::run(result),
    );
    page.tone = Tone::of(result.end.kind).class();
    page.holds = charts::hold_histograms(result);
    page.run_legend.clear();
    render(&page)
}

/// A comparison as a self-contained HTML file.
#[must_use]
pub fn compare_html(result: &CompareResult) -> String {
    let seeds: Vec<String> = result.seeds.iter().map(u64::to_string).collect();
    let scenario = result
        .runs
        .first()
        .map(|r| format!(", scenario {} ({})", r.scenario.file, r.scenario.digest));
    let origin = format!(
        "{} {}, baseline {}, seeds {}{}",
        result.tool.name,
        result.tool.version,
        result.baseline,
        seeds.join(" "),
        scenario.unwrap_or_default()
    );
    let mut page = page(
        &result.runs,
        result.title.clone(),
        verdict::compare(result),
        origin,
        embed::comparison(result),
    );
    let bad = result.runs.iter().any(|r| Tone::of(r.end.kind) == Tone::Bad);
    page.tone = if bad { "bad" } else { "good" };
    let comparison = tables::comparison(result);
    page.hidden = comparison.hidden();
    page.comparison = Some(comparison);
    page.comparison_note = match result.seeds.len() {
        0 | 1 => "Percentages are against the baseline.".to_owned(),
        n => format!(
            "Means over {n} seeds; percentages are the geometric means of the paired ratios to the \
             baseline, in brackets their 95 % interval. \u{201c}No difference\u{201d}: the interval \
             contains it. An equals sign: the same with every seed. Charts and the parts below show the first seed."
        ),
    };
    render(&page)
}

fn page(runs: &[RunResult], title: String, verdict: Vec<String>, origin: String, json: Value) -> Page {
    let (carried, reasons) = tables::carried(runs);
    let single = runs.len() == 1;
    Page {
        style: Value::from_safe_string(STYLE.to_owned()),
        script: Value::from_safe_string(SCRIPT.to_owned()),
        json,
        title,
        tone: "good",
        verdict,
        origin,
        designs: tables::designs(runs),
        carried,
        reasons,
        comparison: None,
        comparison_note: String::new(),
        hidden: 0,
        cost: charts::cost_chart(runs),
        cost_legend: charts::cost_legend(runs),
        run_legend: charts::run_legend(runs),
        latency: charts::latency_charts(runs),
        latency_note: charts::latency_note(runs),
        holds_note: charts::holds_note(runs),
        holds: if single {
            Vec::new()
        } else {
            charts::hold_charts(runs)
        },
        notifiers: tables::notifier_calls(runs),
        runs: runs.iter().map(run_view).collect(),
        config: config_view(runs),
        violations: runs.iter().flat_map(violation_views).collect(),
        notes: notes(runs),
        expectations: tables::expectations(runs),
        glossary: tables::glossary(runs),
    }
}

fn run_view(run: &RunResult) -> RunView {
    RunView {
        label: run.label.clone(),
        lock_stat: tables::lock_stat(run),
        sites: tables::lock_sites(run),
        interrupts: tables::interrupts(run),
        metrics: tables::metrics(run),
        evidence: verdict::evidence(run).into_iter().map(str::to_owned).collect(),
    }
}

fn config_view(runs: &[RunResult]) -> ConfigView {
    let Some(first) = runs.first() else {
        return ConfigView {
            title: "nothing was run".to_owned(),
            text: Value::from(""),
            short: false,
            digest: String::new(),
            differences: None,
        };
    };
    let (shown, short) = config::shown(&first.config);
    let title = match runs.len() {
        1 => "resolved configuration".to_owned(),
        _ => format!("resolved configuration of {}", first.label),
    };
    ConfigView {
        title,
        text: verbatim(&config::pretty(&shown)),
        short,
        digest: first.scenario.digest.clone(),
        differences: tables::config_differences(runs),
    }
}

/// Text as the content of an element, where quotes may stand.
fn verbatim(text: &str) -> Value {
    Value::from_safe_string(
        text.replace('&', "&amp;")
            .replace('<', "&lt;")
            .replace('>', "&gt;"),
    )
}

fn notes(runs: &[RunResult]) -> Vec<NoteView> {
    let mut found: Vec<NoteView> = Vec::new();
    for run in runs {
        for note in &run.notes {
            match found.iter_mut().find(|n| n.text == *note) {
                Some(same) => same.runs += &format!(", {}", run.label),
                None => found.push(NoteView {
                    text: note.clone(),
                    runs: run.label.clone(),
                }),
            }
        }
    }
    found
}

fn violation_views(run: &RunResult) -> Vec<ViolationView> {
    run.violations
        .iter()
        .map(|v| ViolationView {
            run: run.label.clone(),
            kind: v.kind.clone(),
            summary: v.summary.clone(),
            place: format!(
                "at {} (cycle {}), CPU {}, task {}",
                figures::duration(v.time_cycles as f64, run.cycle_ps),
                figures::grouped(v.time_cycles),
                v.cpu,
                v.task
            ),
            stack: v.stack.clone(),
            held: v.held.clone(),
            history: v.history.clone(),
        })
        .collect()
}

fn render(page: &Page) -> String {
    render_with("report.html", TEMPLATE, page)
}

/// A template, which is part of the program and tested, with what it shows.
fn render_with(name: &str, template: &str, page: &impl Serialize) -> String {
    let mut env = Environment::new();
    env.set_auto_escape_callback(|_| AutoEscape::Html);
    env.set_undefined_behavior(UndefinedBehavior::Strict);
    let syntax = SyntaxConfig::builder()
        .trim_blocks(true)
        .lstrip_blocks(true)
        .build();
    env.set_syntax(syntax.expect("the default delimiters differ"));
    env.render_named_str(name, template, Serde(page))
        .expect("the template is part of the program and tested")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    #[test]
    fn a_report_is_one_file_without_network() {
        for html in [run_html(&sample::run(2, 1)), compare_html(&sample::comparison())] {
            assert!(html.starts_with("<!doctype html>"));
            for banned in ["http://", "https://", "<link", "@import", "url(", " src="] {
                assert!(!html.contains(banned), "{banned}");
            }
            assert!(html.contains("default-src 'none'"));
            assert!(html.len() <= 500_000, "{} bytes", html.len());
        }
    }

    #[test]
    fn foreign_text_is_never_markup() {
        let html = run_html(&sample::run(2, 1));
        assert!(!html.contains("<script>alert(1)") && !html.contains("</script><b>"));
        assert!(html.contains("&lt;script&gt;alert(1)"));
        assert_eq!(html.matches("</script>").count(), html.matches("<script").count());
    }

    #[test]
    fn a_long_configuration_does_not_make_a_long_report() {
        let mut result = sample::comparison();
        let script: Vec<Value> = vec![Value::from("touch"); 40_000];
        for run in &mut result.runs {
            run.config["script"] = serde_json::to_value(&script).unwrap();
        }
        let html = compare_html(&result);
        assert!(html.len() <= 500_000, "{} bytes", html.len());
        assert!(html.contains("40000") && html.contains("--json"));
    }

    #[test]
    fn tables_have_captions_scopes_and_every_chart_its_table() {
        let html = compare_html(&sample::comparison());
        assert_eq!(html.matches("<table").count(), html.matches("<caption").count());
        assert!(html.contains("scope=\"col\"") && html.contains("scope=\"row\""));
        let charts = html.matches("<figure").count();
        assert_eq!(charts, html.matches("<figcaption").count());
        assert!(charts >= 1 + 4 + 5);
        assert_eq!(html.matches("class=\"numbers\"").count(), charts);
    }

    #[test]
    fn every_part_is_there() {
        let html = compare_html(&sample::comparison());
        for part in [
            "id=\"comparison\"",
            "id=\"cost\"",
            "id=\"latency\"",
            "id=\"locks\"",
            "id=\"interrupts\"",
            "id=\"notifiers\"",
            "id=\"violations\"",
            "id=\"expectations\"",
            "id=\"notes\"",
            "id=\"configuration\"",
            "id=\"glossary\"",
            "pinned *1",
            "no difference",
        ] {
            assert!(html.contains(part), "{part}");
        }
    }

    #[test]
    fn bare_results_render_too() {
        let mut run = sample::run(0, 1);
        run.metrics.clear();
        run.histograms.clear();
        run.locks.clear();
        run.breakdown.clear();
        run.secondaries.clear();
        run.ipi_matrix.clear();
        run.expectations.clear();
        run.notes.clear();
        assert!(run_html(&run).contains("</html>"));
        let none = crate::compare::compare(Vec::new(), "nothing".into());
        assert!(compare_html(&none).contains("</html>"));
    }

    #[test]
    fn same_result_same_bytes() {
        assert_eq!(
            compare_html(&sample::comparison()),
            compare_html(&sample::comparison())
        );
    }
}
