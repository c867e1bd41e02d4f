//! The rows of a comparison in the order a reader wants them.

use crate::figures;
use crate::headline::{is_headline, is_notable_cost, notable_ops};
use crate::schema::{CompareCell, CompareResult, CompareRow, RunResult};
use crate::stats;

/// Rows of one subject.
#[derive(Debug, Clone)]
pub(crate) struct Group {
    /// Heading.
    pub(crate) title: &'static str,
    /// How the short names and units are to be read; may be empty.
    pub(crate) note: &'static str,
    /// Rows that are not 0 everywhere.
    pub(crate) rows: Vec<GroupRow>,
    /// Number of rows left out because they are 0 in every column.
    pub(crate) zeros: usize,
}

/// One row under a short name.
#[derive(Debug, Clone)]
pub(crate) struct GroupRow {
    /// Name without what the heading says.
    pub(crate) name: String,
    /// The numbers.
    pub(crate) row: CompareRow,
    /// How to write them.
    pub(crate) scale: Scale,
    /// Whether it belongs to the first view.
    pub(crate) headline: bool,
}

/// How values of a group are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scale {
    /// As they are.
    Raw,
    /// Cycles, written as microseconds.
    Micros,
}

impl Scale {
    /// A value written out.
    pub(crate) fn show(self, mean: f64, cycle_ps: u64) -> String {
        match self {
            Self::Raw => figures::mean(mean),
            Self::Micros => figures::us(figures::micros(mean, cycle_ps)),
        }
    }
}

/// What belongs to a group.
struct Rule {
    title: &'static str,
    note: &'static str,
    prefixes: &'static [&'static str],
    suffixes: &'static [&'static str],
    scale: Scale,
}

const US: &str = "us";
const NOTIFIERS: &str = "notifier calls";

/// In the order of display; the first rule that matches takes the row.
const RULES: [Rule; 10] = [
    Rule {
        title: "time",
        note: US,
        prefixes: &["time."],
        suffixes: &[],
        scale: Scale::Micros,
    },
    Rule {
        title: NOTIFIERS,
        note: "of each secondary MMU, first seed; totals: notifier.<callback>.calls",
        prefixes: &["notifier."],
        suffixes: &[".calls"],
        scale: Scale::Raw,
    },
    Rule {
        title: "TLB flushes and interrupts",
        note: "",
        prefixes: &["tlb.", "ipi."],
        suffixes: &[],
        scale: Scale::Raw,
    },
    Rule {
        title: "secondary flushes",
        note: "",
        prefixes: &["kvm.", "gru.", "xpmem.", "device."],
        suffixes: &[],
        scale: Scale::Raw,
    },
    Rule {
        title: "pins and pages",
        note: "",
        prefixes: &["pages."],
        suffixes: &[],
        scale: Scale::Raw,
    },
    Rule {
        title: "faults",
        note: "",
        prefixes: &["faults."],
        suffixes: &[],
        scale: Scale::Raw,
    },
    Rule {
        title: "memory pressure",
        note: "",
        prefixes: &["memory.", "reclaim.", "swap.", "lru.", "rmap."],
        suffixes: &[],
        scale: Scale::Raw,
    },
    Rule {
        title: "disks",
        note: "",
        prefixes: &["io."],
        suffixes: &[],
        scale: Scale::Raw,
    },
    Rule {
        title: "latency",
        note: "us; op.<op>.latency_cycles",
        prefixes: &["op."],
        suffixes: &[
            ".latency_cycles.p50",
            ".latency_cycles.p99",
            ".latency_cycles.max",
        ],
        scale: Scale::Micros,
    },
    Rule {
        title: "lock hold and wait",
        note: "us; lock.<class>.{hold,wait}_cycles",
        prefixes: &["lock."],
        suffixes: &["_cycles.total", "_cycles.max"],
        scale: Scale::Micros,
    },
];

impl Rule {
    fn takes(&self, metric: &str) -> bool {
        self.prefixes.iter().any(|p| metric.starts_with(p))
            && (self.suffixes.is_empty() || self.suffixes.iter().any(|s| metric.ends_with(s)))
    }
}

/// Whether a row belongs to distributions, of which the table shows a selection only.
fn is_detail(metric: &str) -> bool {
    [".p50", ".p99", ".max", ".total"]
        .iter()
        .any(|s| metric.ends_with(s))
        && metric.contains("_cycles.")
}

/// All groups, ending with the cost breakdown. Further quantiles of distributions are left to the
/// machine-readable forms.
pub(crate) fn groups(result: &CompareResult) -> Vec<Group> {
    let mut groups: Vec<Group> = RULES
        .iter()
        .map(|r| Group {
            title: r.title,
            note: r.note,
            rows: Vec::new(),
            zeros: 0,
        })
        .collect();
    let mut other = Group {
        title: "other",
        note: "",
        rows: Vec::new(),
        zeros: 0,
    };
    let ops = notable_ops(&result.runs);
    for row in &result.rows {
        let headline = is_headline(&row.metric, &ops);
        match RULES.iter().position(|r| r.takes(&row.metric)) {
            Some(i) => put(&mut groups[i], row, RULES[i].scale, headline),
            None if is_detail(&row.metric) => {}
            None => put(&mut other, row, Scale::Raw, headline),
        }
    }
    for group in &mut groups {
        group.rows.sort_by(|a, b| rank(&a.name).cmp(&rank(&b.name)));
    }
    if let Some(group) = groups.iter_mut().find(|g| g.title == NOTIFIERS) {
        group.rows.splice(0..0, callbacks(&result.runs));
    }
    groups.push(costs(result));
    groups.push(other);
    groups.retain(|g| !g.rows.is_empty() || g.zeros > 0);
    groups
}

fn put(group: &mut Group, row: &CompareRow, scale: Scale, headline: bool) {
    if row.cells.iter().all(|c| c.mean == 0.0) {
        group.zeros += 1;
        return;
    }
    let mut name = short(&row.metric);
    if scale == Scale::Raw && row.unit != "count" && !row.unit.is_empty() {
        name = format!("{name} [{}]", row.unit);
    }
    group.rows.push(GroupRow {
        name,
        row: row.clone(),
        scale,
        headline,
    });
}

/// Sorts by name, quantiles of one name in their natural order.
fn rank(name: &str) -> (&str, usize) {
    let (stem, last) = name.rsplit_once(' ').unwrap_or((name, ""));
    match ["total", "p50", "p99", "max"].iter().position(|q| *q == last) {
        Some(place) => (stem, place),
        None => (name, 0),
    }
}

/// `op.munmap.latency_cycles.p50` is `munmap p50`, `lock.ptl.hold_cycles.max` is `ptl hold max`.
fn short(metric: &str) -> String {
    if let Some((op, q)) = metric
        .strip_prefix("op.")
        .and_then(|m| m.split_once(".latency_cycles."))
    {
        return format!("{op} {q}");
    }
    if let Some(callback) = metric
        .strip_prefix("notifier.")
        .and_then(|m| m.strip_suffix(".calls"))
    {
        return format!("total {callback}");
    }
    if let Some(rest) = metric.strip_prefix("lock.") {
        for side in ["hold", "wait"] {
            if let Some((class, what)) = rest.split_once(&format!(".{side}_cycles.")) {
                return format!("{class} {side} {what}");
            }
        }
    }
    metric.to_owned()
}

/// The cost breakdown of the shown runs, in the rows' form.
fn costs(result: &CompareResult) -> Group {
    let mut accounts: Vec<&str> = Vec::new();
    for row in result.runs.iter().flat_map(|r| &r.breakdown) {
        if !accounts.contains(&row.account.as_str()) {
            accounts.push(&row.account);
        }
    }
    let mut group = Group {
        title: "cost breakdown",
        note: "us of task time; first seed",
        rows: Vec::new(),
        zeros: 0,
    };
    for account in accounts {
        let values: Vec<u64> = result
            .runs
            .iter()
            .map(|r| {
                r.breakdown
                    .iter()
                    .filter(|b| b.account == account)
                    .map(|b| b.cycles)
                    .sum()
            })
            .collect();
        let headline = is_notable_cost(&result.runs, account);
        put(
            &mut group,
            &own_row(account, "cycles", &some(&values)),
            Scale::Micros,
            headline,
        );
    }
    let totals: Vec<u64> = result.runs.iter().map(|r| r.task_cycles).collect();
    put(
        &mut group,
        &own_row("total", "cycles", &some(&totals)),
        Scale::Micros,
        true,
    );
    group
}

fn some(values: &[u64]) -> Vec<Option<u64>> {
    values.iter().copied().map(Some).collect()
}

/// Calls into each secondary MMU, callback by callback, without those that no run has.
fn callbacks(runs: &[RunResult]) -> Vec<GroupRow> {
    let mut names: Vec<(&str, &str)> = Vec::new();
    for s in runs.iter().flat_map(|r| &r.secondaries) {
        for c in &s.callbacks {
            if !names.contains(&(&s.name, &c.callback)) {
                names.push((&s.name, &c.callback));
            }
        }
    }
    names.retain(|(name, callback)| runs.iter().any(|r| r.calls(name, callback) > Some(0)));
    // Runs may list the devices in any order; the callbacks of one come in theirs.
    names.sort_by_key(|(name, _)| *name);
    let row = |(name, callback): (&str, &str)| {
        let calls: Vec<Option<u64>> = runs.iter().map(|r| r.calls(name, callback)).collect();
        GroupRow {
            name: format!("{name} {callback}"),
            row: own_row(&format!("secondary.{name}.{callback}.calls"), "count", &calls),
            scale: Scale::Raw,
            headline: true,
        }
    };
    names.into_iter().map(row).collect()
}

/// A row of the shown runs, which the comparison itself does not have.
fn own_row(metric: &str, unit: &str, values: &[Option<u64>]) -> CompareRow {
    let list = |v: Option<u64>| v.map_or_else(Vec::new, |v| vec![v]);
    let base = list(values.first().copied().flatten());
    let cells = values
        .iter()
        .map(|&v| {
            let values = list(v);
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
        .collect();
    CompareRow {
        metric: metric.to_owned(),
        unit: unit.to_owned(),
        cells,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    #[test]
    fn groups_come_in_the_reading_order() {
        let titles: Vec<&str> = groups(&sample::comparison()).iter().map(|g| g.title).collect();
        assert_eq!(
            titles,
            [
                "time",
                "notifier calls",
                "TLB flushes and interrupts",
                "secondary flushes",
                "pins and pages",
                "faults",
                "latency",
                "lock hold and wait",
                "cost breakdown"
            ]
        );
    }

    #[test]
    fn what_reclaim_does_is_shown_together() {
        for metric in [
            "memory.exhausted",
            "reclaim.direct",
            "swap.in",
            "lru.rotated",
            "rmap.vmas",
        ] {
            let rule = RULES.iter().find(|rule| rule.takes(metric)).expect("a rule");
            assert_eq!(rule.title, "memory pressure", "{metric}");
        }
    }

    #[test]
    fn accounts_add_up_to_the_total_row() {
        for group in groups(&sample::comparison())
            .iter()
            .filter(|g| g.title == "cost breakdown")
        {
            let (total, accounts) = group.rows.split_last().unwrap();
            for column in 0..4 {
                let sum: f64 = accounts.iter().map(|r| r.row.cells[column].mean).sum();
                assert_eq!(sum, total.row.cells[column].mean);
            }
        }
    }

    #[test]
    fn names_lose_what_the_heading_says() {
        assert_eq!(short("op.munmap.latency_cycles.p50"), "munmap p50");
        assert_eq!(short("lock.mmap_sem-R.wait_cycles.max"), "mmap_sem-R wait max");
        assert_eq!(short("tlb.flush.local"), "tlb.flush.local");
    }
}
