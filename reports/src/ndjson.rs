//! One JSON object a line, each understandable without the others.

use serde::Serialize;

use crate::flat;
use crate::schema::translate::TranslateResult;
use crate::schema::{CompareResult, RunResult};
use crate::translated;

/// Schema identifier every row carries.
pub const ROW_SCHEMA: &str = "mmusim.row/1";

#[derive(Serialize)]
struct ValueRow<'a> {
    schema: &'a str,
    run: &'a str,
    design: &'a str,
    kernel: &'a str,
    machine: &'a str,
    scenario: &'a str,
    seed: u64,
    metric: &'a str,
    unit: &'a str,
    value: u64,
}

#[derive(Serialize)]
struct RatioRow<'a> {
    schema: &'a str,
    run: &'a str,
    design: &'a str,
    scenario: &'a str,
    baseline: &'a str,
    metric: &'a str,
    unit: &'a str,
    value: f64,
    ratio: Option<f64>,
    ratio_low: f64,
    ratio_high: f64,
    distinguishable: bool,
    seeds: &'a [u64],
    values: &'a [u64],
}

#[derive(Serialize)]
struct TranslateRow<'a> {
    schema: &'a str,
    source: &'a str,
    machine: &'a str,
    pages: &'a str,
    seed: u64,
    metric: &'a str,
    unit: &'a str,
    value: u64,
}

/// One run: a row for each number.
#[must_use]
pub fn run_ndjson(result: &RunResult) -> String {
    flat::rows(result)
        .iter()
        .map(|row| {
            line(&ValueRow {
                schema: ROW_SCHEMA,
                run: &result.label,
                design: &result.design.id,
                kernel: &result.kernel,
                machine: &result.machine,
                scenario: &result.scenario.digest,
                seed: result.seed,
                metric: &row.metric,
                unit: &row.unit,
                value: row.value,
            })
        })
        .collect()
}

/// A comparison: a row for each metric and column, `value` being the mean over the seeds. Columns
/// without the metric have no row.
#[must_use]
pub fn compare_ndjson(result: &CompareResult) -> String {
    let mut out = String::new();
    for row in &result.rows {
        for (cell, run) in row.cells.iter().zip(&result.runs) {
            if cell.values.is_empty() {
                continue;
            }
            out += &line(&RatioRow {
                schema: ROW_SCHEMA,
                run: &run.label,
                design: &run.design.id,
                scenario: &run.scenario.digest,
                baseline: &result.baseline,
                metric: &row.metric,
                unit: &row.unit,
                value: cell.mean,
                ratio: cell.ratio,
                ratio_low: cell.ratio_low,
                ratio_high: cell.ratio_high,
                distinguishable: cell.distinguishable,
                seeds: &result.seeds,
                values: &cell.values,
            });
        }
    }
    out
}

/// A translation: a row for each number.
#[must_use]
pub fn translate_ndjson(result: &TranslateResult) -> String {
    translated::rows(result)
        .iter()
        .map(|row| {
            line(&TranslateRow {
                schema: ROW_SCHEMA,
                source: &result.source.name,
                machine: &result.machine.name,
                pages: &result.setup.pages,
                seed: result.seed,
                metric: &row.metric,
                unit: &row.unit,
                value: row.value,
            })
        })
        .collect()
}

fn line(row: &impl Serialize) -> String {
    let mut text = serde_json::to_string(row).expect("rows of numbers and strings are JSON");
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    fn parsed(text: &str) -> Vec<serde_json::Value> {
        text.lines().map(|l| serde_json::from_str(l).unwrap()).collect()
    }

    #[test]
    fn each_line_describes_itself() {
        for text in [
            run_ndjson(&sample::run(2, 1)),
            compare_ndjson(&sample::comparison()),
        ] {
            for row in parsed(&text) {
                for key in ["schema", "run", "design", "scenario", "metric", "unit", "value"] {
                    assert!(!row[key].is_null(), "{key} missing in {row}");
                }
            }
        }
    }

    #[test]
    fn each_line_of_a_translation_describes_itself() {
        let result = crate::translation::translation();
        let rows = parsed(&translate_ndjson(&result));
        for row in &rows {
            for key in [
                "schema", "source", "machine", "pages", "seed", "metric", "unit", "value",
            ] {
                assert!(!row[key].is_null(), "{key} missing in {row}");
            }
        }
        let names: std::collections::BTreeSet<String> =
            rows.iter().map(|r| r["metric"].to_string()).collect();
        assert_eq!(names.len(), rows.len(), "every number has a name of its own");
    }

    #[test]
    fn costs_and_callbacks_are_included() {
        let rows = parsed(&run_ndjson(&sample::run(3, 1)));
        let value = |name: &str| {
            rows.iter()
                .find(|r| r["metric"] == name)
                .map(|r| r["value"].as_u64())
        };
        assert!(value("breakdown.lock wait").is_some());
        assert_eq!(
            value("secondary.vm.invalidate_range_start.calls"),
            Some(Some(132))
        );
        assert!(value("op.munmap.latency_cycles.p999").is_some());
    }
}
