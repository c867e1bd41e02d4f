//! A run as one list of named numbers, for the row formats.

use crate::compare::{VIRTUAL_TIME, scalars};
use crate::schema::RunResult;

/// A named number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FlatRow {
    /// Dotted name.
    pub(crate) metric: String,
    /// Unit.
    pub(crate) unit: String,
    /// Value.
    pub(crate) value: u64,
}

/// A number of a run by the name that the row formats print for it: a metric, or a figure of a lock, of a
/// distribution, of the breakdown or of a secondary MMU.
#[must_use]
pub fn figure(run: &RunResult, name: &str) -> Option<u64> {
    run.metric(name).or_else(|| {
        rows(run)
            .into_iter()
            .find(|row| row.metric == name)
            .map(|row| row.value)
    })
}

/// Everything a run measured: the rows of a comparison, then counts and further quantiles of the
/// distributions, lock counts, the cost breakdown and the calls into each secondary MMU. Sorted by
/// name within each part.
pub(crate) fn rows(run: &RunResult) -> Vec<FlatRow> {
    let mut out: Vec<FlatRow> = scalars(run)
        .into_iter()
        .map(|(metric, (unit, value))| FlatRow { metric, unit, value })
        .collect();
    let mut push = |metric: String, unit: &str, value: u64| {
        out.push(FlatRow {
            metric,
            unit: unit.to_owned(),
            value,
        });
    };
    for h in &run.histograms {
        push(format!("{}.count", h.name), "count", h.data.count);
        push(format!("{}.min", h.name), &h.unit, h.data.min);
        push(format!("{}.p90", h.name), &h.unit, h.data.quantile(900));
        push(format!("{}.p999", h.name), &h.unit, h.data.quantile(999));
    }
    for lock in &run.locks {
        push(
            format!("lock.{}.acquisitions", lock.class),
            "count",
            lock.acquisitions,
        );
        push(
            format!("lock.{}.contentions", lock.class),
            "count",
            lock.contentions,
        );
    }
    for row in &run.breakdown {
        push(format!("breakdown.{}", row.account), "cycles", row.cycles);
    }
    push("breakdown.total".to_owned(), "cycles", run.task_cycles);
    for s in &run.secondaries {
        for c in &s.callbacks {
            push(
                format!("secondary.{}.{}.calls", s.name, c.callback),
                "count",
                c.calls,
            );
            push(
                format!("secondary.{}.{}.cycles", s.name, c.callback),
                "cycles",
                c.cycles,
            );
        }
    }
    push("violations".to_owned(), "count", run.violations.len() as u64);
    debug_assert!(out.iter().any(|r| r.metric == VIRTUAL_TIME));
    out
}
