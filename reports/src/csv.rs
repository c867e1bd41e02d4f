//! Comma-separated rows (RFC 4180 quoting, `\n` line ends), one number a row, for spreadsheets
//! and data frames.

use std::fmt::Write as _;

use crate::flat;
use crate::schema::translate::TranslateResult;
use crate::schema::{CompareResult, RunResult};
use crate::translated;

/// One run: `run,design,kernel,machine,seed,metric,unit,value`.
#[must_use]
pub fn run_csv(result: &RunResult) -> String {
    let mut out = String::from("run,design,kernel,machine,seed,metric,unit,value\n");
    let origin = [&result.label, &result.design.id, &result.kernel, &result.machine].map(|f| field(f));
    for row in flat::rows(result) {
        let _ = writeln!(
            out,
            "{},{},{},{},{}",
            origin.join(","),
            result.seed,
            field(&row.metric),
            field(&row.unit),
            row.value
        );
    }
    out
}

/// A comparison: `metric,unit,run,baseline,mean,ratio,ratio_low,ratio_high,distinguishable`, then
/// one column `seed_<n>` a seed. Cells without a value are empty.
#[must_use]
pub fn compare_csv(result: &CompareResult) -> String {
    let mut out = String::from("metric,unit,run,baseline,mean,ratio,ratio_low,ratio_high,distinguishable");
    for seed in &result.seeds {
        let _ = write!(out, ",seed_{seed}");
    }
    out.push('\n');
    for row in &result.rows {
        for (cell, run) in row.cells.iter().zip(&result.runs) {
            let origin = [&row.metric, &row.unit, &run.label, &result.baseline].map(|f| field(f));
            let numbers = match (cell.values.is_empty(), cell.ratio) {
                (true, _) => ",,,,".to_owned(),
                (false, None) => format!("{},,,,{}", cell.mean, cell.distinguishable),
                (false, Some(ratio)) => format!(
                    "{},{ratio},{},{},{}",
                    cell.mean, cell.ratio_low, cell.ratio_high, cell.distinguishable
                ),
            };
            let _ = write!(out, "{},{numbers}", origin.join(","));
            for i in 0..result.seeds.len() {
                out.push(',');
                if let Some(value) = cell.values.get(i) {
                    let _ = write!(out, "{value}");
                }
            }
            out.push('\n');
        }
    }
    out
}

/// A translation: `source,machine,pages,seed,metric,unit,value`.
#[must_use]
pub fn translate_csv(result: &TranslateResult) -> String {
    let mut out = String::from("source,machine,pages,seed,metric,unit,value\n");
    let origin = [&result.source.name, &result.machine.name, &result.setup.pages].map(|f| field(f));
    for row in translated::rows(result) {
        let (metric, unit) = (field(&row.metric), field(&row.unit));
        let _ = writeln!(
            out,
            "{},{},{metric},{unit},{}",
            origin.join(","),
            result.seed,
            row.value
        );
    }
    out
}

fn field(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    fn rectangular(text: &str) {
        let columns = text.lines().next().unwrap().matches(',').count();
        assert!(text.lines().all(|l| l.matches(',').count() == columns));
    }

    #[test]
    fn every_line_has_every_column() {
        rectangular(&run_csv(&sample::run(1, 1)));
        let compared = compare_csv(&sample::comparison());
        rectangular(&compared);
        assert!(compared.starts_with("metric,unit,run,baseline,mean,"));
        assert!(compared.lines().next().unwrap().ends_with("seed_1,seed_2,seed_3"));
    }

    #[test]
    fn one_line_a_metric_and_column() {
        let result = sample::comparison();
        assert_eq!(compare_csv(&result).lines().count(), 1 + 4 * result.rows.len());
        let run = sample::run(3, 1);
        assert!(run_csv(&run).contains(&format!(",time.virtual_cycles,cycles,{}\n", run.virtual_cycles)));
    }

    #[test]
    fn a_translation_is_rows_of_named_numbers() {
        let result = crate::translation::translation();
        let text = translate_csv(&result);
        rectangular(&text);
        assert!(text.starts_with("source,machine,pages,seed,metric,unit,value\n"));
        for row in [
            ",test-machine,4k,1,tlb.l1.loads.misses,count,50000\n",
            ",walks.data.references.last_level_cache,count,2000\n",
            ",what_if.2m.misses,count,900\n",
            ",reuse.all.cold,count,3090\n",
            &format!(",cycles.total,cycles,{}\n", result.total_cycles),
        ] {
            assert!(text.contains(row), "{row} missing in\n{text}");
        }
    }

    #[test]
    fn separators_are_quoted() {
        assert_eq!(field("a,\"b\""), "\"a,\"\"b\"\"\"");
        assert_eq!(field("plain"), "plain");
    }
}
