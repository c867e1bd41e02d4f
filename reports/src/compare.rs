//! Several runs side by side: paired seeds, ratios with intervals, and the regression gate.

use std::collections::BTreeMap;

pub use crate::load::{LoadError, Loaded, load};
use crate::schema::{COMPARE_SCHEMA, CompareCell, CompareResult, CompareRow, Histogram, RunResult, Tool};
use crate::stats;

/// Name of the row that holds the virtual time of the runs.
pub const VIRTUAL_TIME: &str = "time.virtual_cycles";

/// Puts runs side by side. `runs` holds one inner list a column, one run a seed in it; the first
/// column is the baseline.
///
/// Only seeds that every column has are compared (in the order of the first column), since the
/// statistics are those of pairs. Rows, sorted by name: every scalar metric found in any column;
/// `.p50`, `.p99`, `.max` and `.total` of every distribution; `.total` and `.max` of
/// `lock.<class>.hold_cycles` and `.wait_cycles`, where a lock that kernels call differently has one row
/// under all its names (`i_mmap_lock|sem-W`); [`VIRTUAL_TIME`]. A column that has a metric for
/// some of its seeds counts 0 for the others.
#[must_use]
pub fn compare(runs: Vec<Vec<RunResult>>, title: String) -> CompareResult {
    let columns: Vec<Vec<RunResult>> = runs.into_iter().filter(|c| !c.is_empty()).collect();
    let seeds = common_seeds(&columns);
    let paired: Vec<Vec<&RunResult>> = columns
        .iter()
        .map(|c| {
            seeds
                .iter()
                .filter_map(|s| c.iter().find(|r| r.seed == *s))
                .collect()
        })
        .collect();
    let rows = rows(&paired);
    let first: Vec<RunResult> = columns
        .iter()
        .zip(&paired)
        .filter_map(|(all, paired)| paired.first().copied().or_else(|| all.first()).cloned())
        .collect();
    CompareResult {
        schema: COMPARE_SCHEMA.to_owned(),
        tool: first.first().map_or_else(own_tool, |r| r.tool.clone()),
        title,
        baseline: first.first().map(|r| r.label.clone()).unwrap_or_default(),
        seeds,
        runs: first,
        rows,
    }
}

fn own_tool() -> Tool {
    Tool {
        name: "mmusim".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

fn common_seeds(columns: &[Vec<RunResult>]) -> Vec<u64> {
    let mut seeds = Vec::new();
    for run in columns.first().into_iter().flatten() {
        let everywhere = columns.iter().all(|c| c.iter().any(|r| r.seed == run.seed));
        if everywhere && !seeds.contains(&run.seed) {
            seeds.push(run.seed);
        }
    }
    seeds
}

/// Scalars of one run.
pub(crate) fn scalars(run: &RunResult) -> Scalars {
    let mut out = BTreeMap::new();
    // Lock rows first: where a histogram of the same name exists it wins, being the declared one.
    for lock in &run.locks {
        for (side, data) in [("hold", &lock.hold), ("wait", &lock.wait)] {
            let name = format!("lock.{}.{side}_cycles", lock.class);
            out.insert(format!("{name}.total"), ("cycles".to_owned(), data.total));
            out.insert(format!("{name}.max"), ("cycles".to_owned(), data.max));
        }
    }
    for row in &run.histograms {
        for (suffix, value) in summary(&row.data) {
            out.insert(format!("{}.{suffix}", row.name), (row.unit.clone(), value));
        }
    }
    for metric in &run.metrics {
        out.insert(metric.name.clone(), (metric.unit.clone(), metric.value));
    }
    out.insert(VIRTUAL_TIME.to_owned(), ("cycles".to_owned(), run.virtual_cycles));
    out
}

fn summary(data: &Histogram) -> [(&'static str, u64); 4] {
    [
        ("p50", data.quantile(500)),
        ("p99", data.quantile(990)),
        ("max", data.max),
        ("total", data.total),
    ]
}

/// Scalars of a run by name, with their unit.
type Scalars = BTreeMap<String, (String, u64)>;

/// Locks that guard the same thing in kernels of different times, as classes of lock_stat.
const SAME_LOCK: [&[&str]; 2] = [
    &["i_mmap_lock", "i_mmap_sem-W", "i_mmap_mutex", "i_mmap_rwsem-W"],
    &["anon_vma->lock", "anon_vma->sem-W", "anon_vma->rwsem-W"],
];

/// Between the names of one lock.
pub(crate) const OR: char = '|';

/// Gives a lock that the columns know by different names one name of all of them.
fn unify_locks(tables: &mut [Vec<Scalars>]) {
    for family in SAME_LOCK {
        let of_class = |key: &str, class: &str| {
            let rest = key.strip_prefix("lock.").and_then(|key| key.strip_prefix(class));
            rest.filter(|rest| rest.starts_with('.')).map(str::to_owned)
        };
        let has = |column: &[Scalars], class: &str| {
            let mut keys = column.iter().flat_map(BTreeMap::keys);
            keys.any(|key| of_class(key, class).is_some())
        };
        let mut names: Vec<&str> = Vec::new();
        let mut ambiguous = false;
        for column in tables.iter() {
            let here: Vec<&str> = family
                .iter()
                .copied()
                .filter(|class| has(column, class))
                .collect();
            ambiguous |= here.len() > 1;
            names.extend(
                here.into_iter()
                    .filter(|name| !names.contains(name))
                    .collect::<Vec<_>>(),
            );
        }
        if ambiguous || names.len() < 2 {
            continue;
        }
        let all = names_of_one(&names);
        for table in tables.iter_mut().flatten() {
            let renamed = |key: String| {
                let rest = names.iter().find_map(|class| of_class(&key, class));
                rest.map_or(key, |rest| format!("lock.{all}{rest}"))
            };
            *table = std::mem::take(table)
                .into_iter()
                .map(|(key, value)| (renamed(key), value))
                .collect();
        }
    }
}

/// `i_mmap_lock|sem-W`: the first name, then what the others have in place of its last word.
fn names_of_one(names: &[&str]) -> String {
    let first = names[0];
    let stem = first
        .rfind(|c: char| !c.is_ascii_alphanumeric())
        .map_or("", |at| &first[..=at]);
    let others = names[1..]
        .iter()
        .map(|name| name.strip_prefix(stem).unwrap_or(name));
    std::iter::once(first)
        .chain(others)
        .collect::<Vec<_>>()
        .join(&OR.to_string())
}

fn rows(columns: &[Vec<&RunResult>]) -> Vec<CompareRow> {
    let mut tables: Vec<Vec<Scalars>> = columns
        .iter()
        .map(|c| c.iter().map(|r| scalars(r)).collect())
        .collect();
    unify_locks(&mut tables);
    let mut units: BTreeMap<&str, &str> = BTreeMap::new();
    for (name, (unit, _)) in tables.iter().flatten().flatten() {
        units.entry(name).or_insert(unit);
    }
    units
        .into_iter()
        .map(|(metric, unit)| {
            let values: Vec<Vec<u64>> = tables.iter().map(|c| column_values(c, metric)).collect();
            CompareRow {
                metric: metric.to_owned(),
                unit: unit.to_owned(),
                cells: cells(values),
            }
        })
        .collect()
}

/// The metric for each seed; empty if no seed of the column has it.
fn column_values(column: &[Scalars], metric: &str) -> Vec<u64> {
    if !column.iter().any(|t| t.contains_key(metric)) {
        return Vec::new();
    }
    column
        .iter()
        .map(|t| t.get(metric).map_or(0, |(_, v)| *v))
        .collect()
}

fn cells(values: Vec<Vec<u64>>) -> Vec<CompareCell> {
    let base = values.first().cloned().unwrap_or_default();
    values
        .into_iter()
        .map(|values| {
            let ratio = stats::paired_ratio(&base, &values);
            CompareCell {
                mean: stats::mean(&values),
                values,
                ratio_low: ratio.low,
                ratio: ratio.ratio,
                ratio_high: ratio.high,
                distinguishable: ratio.distinguishable,
            }
        })
        .collect()
}

/// A metric that grew beyond the bound of [`gate`].
#[derive(Debug, Clone, PartialEq)]
pub struct Regression {
    /// Metric name.
    pub metric: String,
    /// Unit.
    pub unit: String,
    /// Label of the column that grew.
    pub label: String,
    /// Mean of the baseline.
    pub before: f64,
    /// Mean of the column.
    pub after: f64,
    /// Ratio to the baseline; absent when the baseline is 0.
    pub ratio: Option<f64>,
}

/// Name prefixes of the metrics of which more is worse.
const COST_PREFIXES: [&str; 9] = [
    "faults.",
    "gru.",
    "ipi.",
    "kvm.",
    "lock.",
    "notifier.",
    "pages.pinned",
    "tlb.",
    "xpmem.",
];
/// Parts of names that mean "more is better" or "neither", whatever the prefix.
const NEUTRAL_PARTS: [&str; 5] = ["hit", "throughput", "filled", "reused", "capacity"];

/// Whether more of this metric is worse. The rule, by name and unit only:
///
/// - times and costs are: unit `cycles` or `ns`, and [`VIRTUAL_TIME`];
/// - so are events of the prefixes `faults.`, `gru.`, `ipi.`, `kvm.`, `lock.`, `notifier.`,
///   `pages.pinned`, `tlb.`, `xpmem.`;
/// - a name containing `hit`, `throughput`, `filled`, `reused` or `capacity` never is;
/// - everything else (work done, levels) is not.
#[must_use]
pub fn more_is_worse(metric: &str, unit: &str) -> bool {
    if NEUTRAL_PARTS.iter().any(|part| metric.contains(part)) {
        return false;
    }
    matches!(unit, "cycles" | "ns") || COST_PREFIXES.iter().any(|p| metric.starts_with(p))
}

/// Costs (see [`more_is_worse`]) that grew by more than `fail_above_percent` percent over the
/// baseline and can be told apart from it, in the order of the rows, then of the columns. A cost
/// that was 0 and no longer is has grown beyond any bound.
#[must_use]
pub fn gate(result: &CompareResult, fail_above_percent: f64) -> Vec<Regression> {
    let bound = 1.0 + fail_above_percent / 100.0;
    let mut found = Vec::new();
    for row in result.rows.iter().filter(|r| more_is_worse(&r.metric, &r.unit)) {
        let Some(base) = row.cells.first().filter(|c| !c.values.is_empty()) else {
            continue;
        };
        for (cell, run) in row.cells.iter().zip(&result.runs).skip(1) {
            let grew = cell.ratio.map_or(cell.mean > 0.0, |ratio| ratio > bound);
            if grew && cell.distinguishable {
                found.push(Regression {
                    metric: row.metric.clone(),
                    unit: row.unit.clone(),
                    label: run.label.clone(),
                    before: base.mean,
                    after: cell.mean,
                    ratio: cell.ratio,
                });
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    fn row<'a>(result: &'a CompareResult, name: &str) -> &'a CompareRow {
        result
            .rows
            .iter()
            .find(|r| r.metric == name)
            .unwrap_or_else(|| panic!("no row {name}"))
    }

    #[test]
    fn rows_cover_scalars_distributions_locks_and_time() {
        let result = sample::comparison();
        for name in [
            "tlb.shootdown.ipis",
            "op.munmap.latency_cycles.p50",
            "op.munmap.latency_cycles.p99",
            "op.munmap.latency_cycles.max",
            "op.munmap.latency_cycles.total",
            "lock.mmap_sem-W.hold_cycles.total",
            "lock.mmap_sem-W.wait_cycles.max",
            VIRTUAL_TIME,
        ] {
            assert_eq!(row(&result, name).cells.len(), 4, "{name}");
        }
        assert!(
            result.rows.windows(2).all(|w| w[0].metric < w[1].metric),
            "sorted, no duplicates"
        );
        assert_eq!(result.baseline, result.runs[0].label);
        assert_eq!(result.seeds, vec![1, 2, 3]);
    }

    #[test]
    fn a_lock_of_two_names_has_one_row_and_the_others_keep_theirs() {
        let mut columns: Vec<Vec<RunResult>> =
            sample::comparison().runs.into_iter().map(|r| vec![r]).collect();
        columns.truncate(2);
        for (column, name) in columns.iter_mut().zip(["i_mmap_lock", "i_mmap_sem-W"]) {
            column[0].locks[0].class = name.to_owned();
        }
        let result = compare(columns.clone(), String::new());
        let both = row(&result, "lock.i_mmap_lock|sem-W.hold_cycles.max");
        assert!(both.cells.iter().all(|cell| !cell.values.is_empty()), "{both:?}");
        assert!(
            result
                .rows
                .iter()
                .all(|r| !r.metric.starts_with("lock.i_mmap_lock."))
        );
        // A column that has both keeps them apart.
        columns[1][0].locks[1].class = "i_mmap_lock".to_owned();
        let apart = compare(columns, String::new());
        assert!(apart.rows.iter().all(|r| !r.metric.contains(OR)));
    }

    #[test]
    fn every_number_survives_json() {
        let result = sample::comparison();
        let text = serde_json::to_string(&result).unwrap();
        assert!(
            !text.contains("\"ratio_low\":null"),
            "interval ends are always numbers"
        );
        assert!(
            !text.contains("\"ratio_high\":null"),
            "interval ends are always numbers"
        );
        assert_eq!(serde_json::from_str::<CompareResult>(&text).unwrap(), result);
    }

    #[test]
    fn seeds_are_paired_by_value_not_by_position() {
        let (a, b) = (sample::run(0, 1), sample::run(0, 2));
        let result = compare(vec![vec![a.clone(), b.clone()], vec![b, a]], "swap".into());
        assert_eq!(result.seeds, vec![1, 2]);
        assert!(result.rows.iter().all(|r| !r.cells[1].distinguishable));
        assert!(result.rows.iter().all(|r| r.cells[0].values == r.cells[1].values));
    }

    #[test]
    fn seeds_not_shared_are_left_out() {
        let result = compare(
            vec![
                vec![sample::run(0, 1), sample::run(0, 2)],
                vec![sample::run(1, 2)],
            ],
            "one shared".into(),
        );
        assert_eq!(result.seeds, vec![2]);
        assert!(result.runs.iter().all(|r| r.seed == 2));
    }

    #[test]
    fn a_metric_of_one_column_leaves_the_others_empty() {
        let mut b = sample::run(1, 1);
        b.metrics.retain(|m| m.name != "tlb.flush.local");
        let result = compare(vec![vec![sample::run(0, 1)], vec![b]], String::new());
        let cell = &row(&result, "tlb.flush.local").cells[1];
        assert!(cell.values.is_empty() && cell.ratio.is_none() && !cell.distinguishable);
    }

    #[test]
    fn nothing_to_compare_is_an_empty_result() {
        let result = compare(Vec::new(), "nothing".into());
        assert!(result.runs.is_empty() && result.rows.is_empty());
    }

    #[test]
    fn gate_reports_costs_that_grew_and_nothing_else() {
        let before = sample::run(0, 1);
        let mut after = before.clone();
        for metric in &mut after.metrics {
            match metric.name.as_str() {
                "tlb.shootdown.ipis" => metric.value = metric.value * 110 / 100,
                "tlb.flush.local" => metric.value = metric.value * 102 / 100,
                "tlb.l2.hits" | "pages.touched" => metric.value *= 3,
                _ => {}
            }
        }
        let result = compare(vec![vec![before], vec![after]], String::new());
        let found: Vec<String> = gate(&result, 5.0).into_iter().map(|r| r.metric).collect();
        assert_eq!(found, ["tlb.shootdown.ipis"]);
        assert!(gate(&result, 15.0).is_empty());
    }

    #[test]
    fn gate_sees_growth_from_zero() {
        let mut before = sample::run(0, 1);
        let after = before.clone();
        for metric in &mut before.metrics {
            if metric.name == "pages.pinned.max" {
                metric.value = 0;
            }
        }
        let found = gate(&compare(vec![vec![before], vec![after]], String::new()), 5.0);
        assert_eq!(found.len(), 1);
        assert_eq!(
            (found[0].metric.as_str(), found[0].ratio),
            ("pages.pinned.max", None)
        );
    }
}
