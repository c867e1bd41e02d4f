//! Which rows a reader needs first. The rest is one option (or one click) away, never dropped.

use crate::compare::{OR, VIRTUAL_TIME};
use crate::figures::micros;
use crate::schema::{LockRow, RunResult};

/// How many rows a rendering shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Detail {
    /// The headline rows.
    #[default]
    Headline,
    /// Every row that is not 0 everywhere.
    All,
}

/// Counters under their contract names.
const COUNTERS: [&str; 9] = [
    VIRTUAL_TIME,
    "tlb.flush.mm.events",
    "tlb.flush.local",
    "tlb.shootdown.rounds",
    "tlb.shootdown.ipis",
    "kvm.flush.remote",
    "gru.flush.purges",
    "xpmem.recall.messages",
    "pages.pinned.max",
];

/// Lock classes that a notifier design is judged by, of all kernels, without the side.
const LOCKS: [&str; 8] = [
    "mmap_sem",
    "mmap_lock",
    "i_mmap_lock",
    "i_mmap_sem",
    "i_mmap_mutex",
    "i_mmap_rwsem",
    "ptl",
    "mmu_lock",
];

/// Operations that take the time they were told to, or that of others.
const WAITING: [&str; 4] = ["barrier", "compute", "sleep", "wait"];

/// An operation matters from this much time once, in microseconds ...
const NOTABLE_MAX_US: f64 = 10.0;
/// ... or from this share of the time of all operations, as its reciprocal.
const NOTABLE_SHARE: u64 = 100;

/// Whether a row of a comparison belongs to the first view; `ops` are [`notable_ops`].
pub(crate) fn is_headline(metric: &str, ops: &[&str]) -> bool {
    if COUNTERS.contains(&metric) {
        return true;
    }
    if let Some(mmu) = metric.strip_prefix("faults.") {
        return !mmu.contains('.');
    }
    if let Some((op, _)) = metric
        .strip_prefix("op.")
        .and_then(|m| m.split_once(".latency_cycles."))
    {
        return ops.contains(&op);
    }
    metric.strip_prefix("lock.").is_some_and(|rest| {
        [".hold_cycles.max", ".wait_cycles.total"]
            .iter()
            .any(|end| rest.strip_suffix(end).is_some_and(is_headline_lock))
    })
}

/// Whether a lock class is one that designs are judged by.
fn is_headline_lock(class: &str) -> bool {
    class.split(OR).any(|name| {
        let side = name.strip_suffix("-R").or_else(|| name.strip_suffix("-W"));
        LOCKS.contains(&side.unwrap_or(name))
    })
}

/// Whether a lock is worth a chart: one that designs are judged by, or that somebody waited for.
pub(crate) fn is_notable_lock(lock: &LockRow) -> bool {
    is_headline_lock(&lock.class) || lock.contentions > 0
}

/// Whether a cost account is at least a hundredth of the task time of some run.
pub(crate) fn is_notable_cost(runs: &[RunResult], account: &str) -> bool {
    runs.iter().any(|r| {
        let mut booked = r.breakdown.iter().filter(|b| b.account == account);
        booked.any(|b| u128::from(b.cycles) * 100 >= u128::from(r.task_cycles.max(1)))
    })
}

/// Operation of a latency distribution.
pub(crate) fn op_of(histogram: &str) -> Option<&str> {
    histogram.strip_prefix("op.")?.strip_suffix(".latency_cycles")
}

/// Operations that take more than a trivial time in some run, sorted.
pub(crate) fn notable_ops(runs: &[RunResult]) -> Vec<&str> {
    let mut found = Vec::new();
    for run in runs {
        let ops = || {
            let named = run
                .histograms
                .iter()
                .filter_map(|h| Some((op_of(&h.name)?, &h.data)));
            named.filter(|(op, _)| !WAITING.contains(op))
        };
        let all: u64 = ops().map(|(_, h)| h.total).sum();
        let notable = ops().filter(|(_, h)| {
            let long = micros(h.max as f64, run.cycle_ps) >= NOTABLE_MAX_US;
            h.count > 0 && (long || h.total.saturating_mul(NOTABLE_SHARE) >= all)
        });
        found.extend(notable.map(|(op, _)| op));
    }
    found.sort_unstable();
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_view_has_the_contract_names() {
        for metric in [
            "time.virtual_cycles",
            "tlb.shootdown.ipis",
            "faults.kvm",
            "op.munmap.latency_cycles.p99",
            "lock.mmap_sem-W.hold_cycles.max",
            "lock.ptl.wait_cycles.total",
        ] {
            assert!(is_headline(metric, &["munmap"]), "{metric}");
        }
        for metric in [
            "tlb.misses",
            "faults.host.anon",
            "op.brk.latency_cycles.p99",
            "lock.mmap_sem-W.hold_cycles.total",
            "lock.tree_lock.hold_cycles.max",
        ] {
            assert!(!is_headline(metric, &["munmap"]), "{metric}");
        }
    }
}
