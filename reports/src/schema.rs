//! The results of runs, of comparisons and of [translations](translate), as written to JSON.
//!
//! These types are the public, versioned contract between the simulator and every renderer or
//! outside tool. A run is described completely by its own bytes: resolved configuration, seed,
//! version, every declared metric with its unit and description, raw histogram bins. Nothing in
//! here depends on the host, the time of day or the number of jobs.
//!
//! A field is only added, never renamed or given a new meaning, within one schema version.

pub mod translate;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Schema identifier of [`RunResult`].
pub const RUN_SCHEMA: &str = "mmusim.run/1";
/// Schema identifier of [`CompareResult`].
pub const COMPARE_SCHEMA: &str = "mmusim.compare/1";

/// One simulated run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RunResult {
    /// [`RUN_SCHEMA`].
    pub schema: String,
    /// Program that wrote the result.
    pub tool: Tool,
    /// What was run.
    pub scenario: ScenarioId,
    /// Seed of every random draw.
    pub seed: u64,
    /// Short name of this run inside a comparison, for example `v8`.
    pub label: String,
    /// Notifier design.
    pub design: DesignInfo,
    /// Kernel profile, for example `linux-2.6.27`.
    pub kernel: String,
    /// Machine preset, for example `harpertown-2008`.
    pub machine: String,
    /// Length of one cycle of the machine, in picoseconds; turns every `cycles` figure into time.
    pub cycle_ps: u64,
    /// The scenario after `extends`, defaults and overrides were applied.
    pub config: serde_json::Value,
    /// How the run ended.
    pub end: End,
    /// Virtual time that was measured: from the start of the threads to the end, in cycles.
    pub virtual_cycles: u64,
    /// Counters and gauges, sorted by name.
    pub metrics: Vec<Metric>,
    /// Distributions, sorted by name (`op.<op>.latency_cycles` and others).
    pub histograms: Vec<HistogramRow>,
    /// Lock classes in lock_stat's columns, sorted by class.
    pub locks: Vec<LockRow>,
    /// Where the time of all tasks went. The cycles add up to [`RunResult::task_cycles`].
    pub breakdown: Vec<BreakdownRow>,
    /// Sum over all tasks of their life time, in cycles.
    pub task_cycles: u64,
    /// Secondary MMUs that the scenario attaches, also those the design cannot carry.
    pub secondaries: Vec<SecondaryRow>,
    /// `ipi_matrix[from][to]`: TLB shootdown interrupts sent between CPUs.
    pub ipi_matrix: Vec<Vec<u64>>,
    /// Violations found, in order of time.
    pub violations: Vec<ViolationRow>,
    /// The scenario's `expect` clauses and what came out.
    pub expectations: Vec<ExpectationRow>,
    /// Remarks a reader needs (skipped calls, assumptions, fallbacks).
    pub notes: Vec<String>,
}

/// The program and its version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Tool {
    /// Always `mmusim`.
    pub name: String,
    /// Semantic version.
    pub version: String,
}

/// Identity of a scenario.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ScenarioId {
    /// The scenario's `title`.
    pub title: String,
    /// File name without its folder.
    pub file: String,
    /// Hash of the resolved configuration, 16 hex digits.
    pub digest: String,
}

/// A notifier design as resolved for the run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DesignInfo {
    /// Identifier, for example `v8-merged`.
    pub id: String,
    /// Human title.
    pub title: String,
    /// One sentence on what it does.
    pub summary: String,
    /// Knobs the scenario overrode, as `knob = value`.
    pub overrides: Vec<String>,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum EndKind {
    /// Every task finished and every check held.
    Completed,
    /// A safety property was violated (exit code 1).
    Violation,
    /// The run finished but an `expect` clause failed (exit code 1).
    ExpectationFailed,
    /// Tasks wait for each other for ever (exit code 3).
    Deadlock,
    /// Tasks run without making progress (exit code 3).
    Livelock,
    /// A budget ran out before a verdict (exit code 4).
    BudgetExhausted,
}

/// End of a run with its evidence in words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct End {
    /// Kind of end.
    pub kind: EndKind,
    /// One sentence.
    pub summary: String,
    /// Evidence, a line each (wait-for graph of a deadlock, pending tasks of a budget stop).
    pub evidence: Vec<String>,
}

/// Kind of a scalar metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum MetricKind {
    /// Grows by one at each event.
    Counter,
    /// A level, reported as its maximum or its final value (the name says which).
    Gauge,
}

/// One scalar metric.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Metric {
    /// Dotted name, for example `tlb.shootdown.ipis`.
    pub name: String,
    /// Unit, for example `count`, `pages`, `cycles`.
    pub unit: String,
    /// Counter or gauge.
    pub kind: MetricKind,
    /// One sentence.
    pub description: String,
    /// Value at the end of the run.
    pub value: u64,
}

/// A distribution with its raw bins.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct HistogramRow {
    /// Dotted name, for example `op.munmap.latency_cycles`.
    pub name: String,
    /// Unit of the recorded values.
    pub unit: String,
    /// One sentence.
    pub description: String,
    /// The distribution.
    #[serde(flatten)]
    pub data: Histogram,
}

/// Bins and exact extremes of a distribution.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Histogram {
    /// Number of values recorded.
    pub count: u64,
    /// Sum of the values (exact).
    pub total: u64,
    /// Smallest value (exact); 0 when empty.
    pub min: u64,
    /// Largest value (exact); 0 when empty.
    pub max: u64,
    /// Non-empty bins: (largest value the bin stands for, how many), ascending.
    pub bins: Vec<(u64, u64)>,
}

/// One lock class in the columns of the kernel's lock_stat.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LockRow {
    /// Class, for example `mmap_sem`; the reader side of a shared lock is a row of its own,
    /// named with `-R`, the writer side with `-W`, as in lock_stat.
    pub class: String,
    /// Times taken.
    pub acquisitions: u64,
    /// Times the taker had to wait.
    pub contentions: u64,
    /// Distribution of waits, in cycles (contended acquisitions only).
    pub wait: Histogram,
    /// Distribution of hold times, in cycles.
    pub hold: Histogram,
    /// Places in the model where waiters of this class stood, with the holder's place.
    pub sites: Vec<LockSite>,
}

/// A contention point.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LockSite {
    /// Kernel function that waited.
    pub waiter: String,
    /// Kernel function that held the lock.
    pub holder: String,
    /// How often.
    pub contentions: u64,
}

/// One account of the cost breakdown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BreakdownRow {
    /// Name of the account, for example `lock wait`.
    pub account: String,
    /// What is booked there.
    pub description: String,
    /// Cycles booked.
    pub cycles: u64,
}

/// How well a design carries a secondary MMU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Carried {
    /// The design serves it in full.
    Full,
    /// The design cannot notify it: it fell back to page pins and sees no invalidation.
    Pinned,
    /// The design cannot carry it: it was left out of the run.
    Omitted,
    /// The design cannot carry it and the scenario asked to run into the violation.
    Broken,
}

/// A secondary MMU in a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SecondaryRow {
    /// Name in the scenario.
    pub name: String,
    /// `kvm`, `gru`, `xpmem`.
    pub kind: String,
    /// Owning process.
    pub process: String,
    /// Whether the design carries it.
    pub carried: Carried,
    /// Why not in full; empty otherwise.
    pub reason: String,
    /// Calls it received: callback name and count, in a fixed order.
    pub callbacks: Vec<CallbackRow>,
}

/// Calls of one notifier callback into one secondary MMU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CallbackRow {
    /// `invalidate_page`, `invalidate_range_start`, ...
    pub callback: String,
    /// Number of calls.
    pub calls: u64,
    /// Cycles spent inside.
    pub cycles: u64,
}

/// A violated safety property with its history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ViolationRow {
    /// Stable identifier, for example `sleep-in-atomic`, `free-while-mapped`, `stale-use`.
    pub kind: String,
    /// One sentence.
    pub summary: String,
    /// Virtual time since the beginning of the run, preparation included, in cycles; the same clock
    /// as in the event log.
    pub time_cycles: u64,
    /// CPU number.
    pub cpu: u32,
    /// Task name.
    pub task: String,
    /// Model functions open at that moment, outermost first.
    pub stack: Vec<String>,
    /// Locks and contexts held, outermost first, each with where it was taken.
    pub held: Vec<String>,
    /// Last events that concern the object, oldest first, as printed by `--events`.
    pub history: Vec<String>,
}

/// One `expect` clause and its outcome.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ExpectationRow {
    /// The metric or property.
    pub subject: String,
    /// What was expected.
    pub expected: String,
    /// What came out.
    pub actual: String,
    /// Whether it held.
    pub ok: bool,
}

/// Several runs of one scenario side by side.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CompareResult {
    /// [`COMPARE_SCHEMA`].
    pub schema: String,
    /// Program that wrote the result.
    pub tool: Tool,
    /// What was compared, one sentence.
    pub title: String,
    /// Label of the column that the percentages refer to.
    pub baseline: String,
    /// Seeds each column was run with; the same for all.
    pub seeds: Vec<u64>,
    /// One full result a column: the run with the first seed.
    pub runs: Vec<RunResult>,
    /// Metrics side by side.
    pub rows: Vec<CompareRow>,
}

/// One metric in a comparison.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CompareRow {
    /// Metric name; distributions appear as `<name>.p50`, `.p99` and `.max`.
    pub metric: String,
    /// Unit.
    pub unit: String,
    /// One cell a column, in the order of [`CompareResult::runs`].
    pub cells: Vec<CompareCell>,
}

/// One cell of a comparison.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CompareCell {
    /// Value for each seed, in the order of [`CompareResult::seeds`]; empty if the column has no
    /// such metric.
    pub values: Vec<u64>,
    /// Mean over the seeds.
    pub mean: f64,
    /// Lower end of the 95 % interval of the paired ratio to the baseline; equal to `ratio_high`
    /// for a single seed.
    pub ratio_low: f64,
    /// Ratio to the baseline (1.0 for the baseline itself; absent when the baseline is 0).
    pub ratio: Option<f64>,
    /// Upper end of the interval.
    pub ratio_high: f64,
    /// False when the interval contains 1: "no difference".
    pub distinguishable: bool,
}

impl RunResult {
    /// Value of a scalar metric, if the run has it.
    #[must_use]
    pub fn metric(&self, name: &str) -> Option<u64> {
        self.metrics.iter().find(|m| m.name == name).map(|m| m.value)
    }

    /// Calls of one callback into one secondary MMU, if the run has that device and notifies it.
    #[must_use]
    pub fn calls(&self, secondary: &str, callback: &str) -> Option<u64> {
        let device = self.secondaries.iter().find(|s| s.name == secondary)?;
        let row = device.callbacks.iter().find(|c| c.callback == callback)?;
        Some(row.calls)
    }

    /// A distribution by name.
    #[must_use]
    pub fn histogram(&self, name: &str) -> Option<&Histogram> {
        self.histograms.iter().find(|h| h.name == name).map(|h| &h.data)
    }
}

impl Histogram {
    /// Value at or below which `permille`/1000 of the recorded values lie (bin resolution).
    #[must_use]
    pub fn quantile(&self, permille: u32) -> u64 {
        let wanted = (self.count * u64::from(permille)).div_ceil(1000).max(1);
        let mut seen = 0;
        for &(upper, n) in &self.bins {
            seen += n;
            if seen >= wanted {
                return upper.min(self.max);
            }
        }
        self.max
    }

    /// Arithmetic mean, 0 when empty.
    #[must_use]
    pub fn mean(&self) -> f64 {
        if self.count == 0 {
            0.0
        } else {
            self.total as f64 / self.count as f64
        }
    }
}
