//! A made-up but realistic result: one workload under four designs, with three secondary MMUs.
//! For tests and for looking at the renderings; no number in it was measured.

use reports::compare::compare;
use reports::schema::*;

/// Identifier, title, summary and the factor by which each design scales its costs.
const DESIGNS: [(&str, &str, &str, &str, u64); 4] = [
    (
        "v0",
        "v0-pins",
        "No notifiers: pins",
        "No notifiers; secondary MMUs pin the pages they map.",
        140,
    ),
    (
        "v1",
        "v1-page",
        "invalidate_page only",
        "One callback per page after the clear, under the page-table lock.",
        260,
    ),
    (
        "v8",
        "v8-merged",
        "Merged in 2.6.27",
        "Range start/end brackets, atomic context, mm_take_all_locks.",
        100,
    ),
    (
        "v9",
        "v9-sleepable",
        "Sleepable series",
        "As merged, with sleeping locks so that callbacks may sleep.",
        112,
    ),
];

/// A small deterministic stream.
struct Stream(u64);

impl Stream {
    fn next(&mut self, below: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }

    /// A long-tailed distribution around `typical`.
    fn histogram(&mut self, count: u64, typical: u64) -> Histogram {
        let mut values: Vec<u64> = (0..count)
            .map(|_| {
                let tail = if self.next(40) == 0 { 4 + self.next(12) } else { 1 };
                typical * tail + self.next(typical.max(1))
            })
            .collect();
        values.sort_unstable();
        histogram(&values)
    }
}

/// Bins of about 6 % width.
fn histogram(values: &[u64]) -> Histogram {
    let mut bins: Vec<(u64, u64)> = Vec::new();
    for &v in values {
        let shift = (64 - v.leading_zeros()).saturating_sub(5);
        let upper = (v >> shift << shift) + (1 << shift) - 1;
        match bins.last_mut() {
            Some((u, n)) if *u == upper => *n += 1,
            _ => bins.push((upper, 1)),
        }
    }
    Histogram {
        count: values.len() as u64,
        total: values.iter().sum(),
        min: values.first().copied().unwrap_or(0),
        max: values.last().copied().unwrap_or(0),
        bins,
    }
}

fn metric(name: &str, unit: &str, description: &str, value: u64) -> Metric {
    let kind = if name.ends_with(".max") {
        MetricKind::Gauge
    } else {
        MetricKind::Counter
    };
    Metric {
        name: name.into(),
        unit: unit.into(),
        kind,
        description: description.into(),
        value,
    }
}

fn metrics(column: usize, scale: u64, s: &mut Stream) -> Vec<Metric> {
    let noise = |s: &mut Stream, v: u64| v + s.next(v / 50 + 1);
    let range = u64::from(column >= 2);
    let page = u64::from(column == 1);
    let mut out = vec![
        metric(
            "faults.gru0",
            "count",
            "Faults taken by the GRU.",
            if column == 0 { 0 } else { noise(s, 3_100) },
        ),
        metric(
            "faults.host",
            "count",
            "Page faults of the host.",
            noise(s, 66_213),
        ),
        metric(
            "faults.vm",
            "count",
            "Faults taken by the guest on secondary entries.",
            noise(s, 900 * scale),
        ),
        metric(
            "gru.flush.purges",
            "count",
            "TLB purge instructions issued to the GRU.",
            page * 60_000 + range * 132,
        ),
        metric(
            "kvm.flush.remote",
            "count",
            "Remote TLB flush requests sent to the virtual CPUs.",
            page * 60_411 + range * 131 + 17,
        ),
        metric(
            "notifier.invalidate_page.calls",
            "count",
            "Calls of `invalidate_page`.",
            page * 180_233 + range * 412,
        ),
        metric(
            "notifier.invalidate_range_end.calls",
            "count",
            "Calls of `invalidate_range_end`.",
            range * noise(s, 396),
        ),
        metric(
            "notifier.invalidate_range_start.calls",
            "count",
            "Calls of `invalidate_range_start`.",
            range * 396,
        ),
        metric(
            "notifier.release.calls",
            "count",
            "Calls of `release`.",
            range * 3,
        ),
        metric(
            "pages.pinned.max",
            "pages",
            "Most page frames pinned at one time.",
            [65_536, 4_096, 4_096, 0][column],
        ),
        metric(
            "pages.touched",
            "pages",
            "Page frames touched by the workload.",
            65_536,
        ),
        metric(
            "tlb.flush.local",
            "count",
            "Local TLB flushes.",
            noise(s, 1_800 + scale),
        ),
        metric(
            "tlb.l2.hits",
            "count",
            "Second-level TLB hits.",
            noise(s, 1_000_000),
        ),
        metric(
            "tlb.shootdown.ipis",
            "count",
            "TLB shootdown interrupts sent to other CPUs.",
            noise(s, 40 * scale),
        ),
        metric(
            "tlb.shootdown.rounds",
            "count",
            "Shootdown rounds.",
            noise(s, 20 * scale),
        ),
        metric(
            "xpmem.recall.messages",
            "messages",
            "Recall messages to importing partitions.",
            if column == 3 { 264 } else { 0 },
        ),
    ];
    out.sort_by(|a, b| a.name.cmp(&b.name));
    out
}

fn histograms(scale: u64, s: &mut Stream) -> Vec<HistogramRow> {
    [
        ("fork", 40, 900_000),
        ("munmap", 400, 21_000),
        ("touch", 3_000, 2_100),
        ("truncate", 60, 160_000),
    ]
    .into_iter()
    .map(|(op, count, typical)| HistogramRow {
        name: format!("op.{op}.latency_cycles"),
        unit: "cycles".into(),
        description: format!("Time from the call of {op} to its return."),
        data: s.histogram(count, typical * scale / 100),
    })
    .collect()
}

fn locks(scale: u64, s: &mut Stream) -> Vec<LockRow> {
    [
        ("i_mmap_lock", 900, 40, 9_000),
        ("mmap_sem-R", 6_213, 700, 1_500),
        ("mmap_sem-W", 500, 90, 24_000),
        ("mmu_lock", 4_000, 1_200, 600),
        ("ptl", 7_000, 300, 310),
    ]
    .into_iter()
    .map(|(class, acquisitions, contentions, typical)| LockRow {
        class: class.into(),
        acquisitions,
        contentions,
        wait: s.histogram(contentions, typical * scale / 150),
        hold: s.histogram(acquisitions, typical * scale / 100),
        sites: vec![
            LockSite {
                waiter: "handle_mm_fault".into(),
                holder: "unmap_mapping_range".into(),
                contentions: contentions * 3 / 4,
            },
            LockSite {
                waiter: "kvm_mmu_page_fault".into(),
                holder: "zap_pte_range".into(),
                contentions: contentions / 4,
            },
        ],
    })
    .collect()
}

fn breakdown(total: u64, column: usize) -> Vec<BreakdownRow> {
    let shares: [(&str, &str, [u64; 4]); 8] = [
        ("compute", "The workload's own accesses.", [420, 250, 470, 455]),
        (
            "page-table work",
            "Walking, clearing and filling host page tables.",
            [160, 130, 190, 182],
        ),
        ("lock wait", "Waiting for locks.", [90, 160, 60, 84]),
        (
            "ipi wait",
            "Waiting for shootdown acknowledgements.",
            [70, 90, 65, 66],
        ),
        ("tlb refill", "Walks after a flush.", [60, 90, 65, 64]),
        (
            "callbacks kvm",
            "Inside notifier callbacks into KVM.",
            [0, 110, 30, 29],
        ),
        (
            "callbacks gru",
            "Inside notifier callbacks into the GRU.",
            [0, 90, 20, 20],
        ),
        // the rest, so that the accounts add up exactly
        ("idle", "Nothing to do.", [0, 0, 0, 0]),
    ];
    let mut rows: Vec<BreakdownRow> = shares
        .iter()
        .map(|(account, description, share)| BreakdownRow {
            account: (*account).into(),
            description: (*description).into(),
            cycles: total / 1000 * share[column],
        })
        .collect();
    let booked: u64 = rows.iter().map(|r| r.cycles).sum();
    rows.last_mut().unwrap().cycles = total - booked;
    rows
}

fn secondaries(column: usize) -> Vec<SecondaryRow> {
    const NO_CALLS: &str = "no callbacks in this design: every mapped page is pinned";
    const NO_GRU: &str = "the GRU driver needs callbacks, this design has none";
    const ATOMIC: &str = "callbacks run under a spinlock, the XPMEM recall has to sleep";
    let calls = |page: u64, range: u64| {
        [
            ("invalidate_page", page),
            ("invalidate_range_start", range),
            ("invalidate_range_end", range),
            ("release", 1),
        ]
        .into_iter()
        .map(|(callback, calls)| CallbackRow {
            callback: callback.into(),
            calls,
            cycles: calls * 1_310,
        })
        .collect::<Vec<_>>()
    };
    let counts = [calls(0, 0), calls(60_077, 0), calls(137, 132), calls(137, 132)];
    let state = |name: &str, kind: &str, carried: [(Carried, &str); 4]| {
        let (carried, reason) = carried[column];
        let called = matches!(carried, Carried::Full);
        SecondaryRow {
            name: name.into(),
            kind: kind.into(),
            process: "job".into(),
            carried,
            reason: reason.into(),
            callbacks: if called {
                counts[column].clone()
            } else {
                Vec::new()
            },
        }
    };
    let full = (Carried::Full, "");
    vec![
        state("vm", "kvm", [(Carried::Pinned, NO_CALLS), full, full, full]),
        state("gru0", "gru", [(Carried::Omitted, NO_GRU), full, full, full]),
        state(
            "peer",
            "xpmem",
            [
                (Carried::Pinned, NO_CALLS),
                (Carried::Pinned, ATOMIC),
                (Carried::Broken, ATOMIC),
                full,
            ],
        ),
    ]
}

fn violation() -> ViolationRow {
    ViolationRow {
        kind: "sleep-in-atomic".into(),
        summary: "xpmem's invalidate_range_start waits for a recall while i_mmap_lock is held".into(),
        time_cycles: 18_433_120,
        cpu: 0,
        task: "main".into(),
        stack: vec![
            "sys_truncate".into(),
            "unmap_mapping_range".into(),
            "mmu_notifier_invalidate_range_start".into(),
            "xpmem_invalidate_range_start".into(),
        ],
        held: vec![
            "i_mmap_lock (spinlock) taken in unmap_mapping_range".into(),
            "rcu_read_lock taken in mmu_notifier_invalidate_range_start".into(),
        ],
        history: vec![
            "main-3 [000] 7.014 unmap_mapping_range: heap [0x400,0x10000)".into(),
            "main-3 [000] 7.015 mmu_notifier_invalidate_range_start: <script>alert(1)</script>".into(),
            "main-3 [000] 7.019 xpmem_recall: peer pages:64512".into(),
        ],
    }
}

fn ipi_matrix(scale: u64, s: &mut Stream) -> Vec<Vec<u64>> {
    (0..4)
        .map(|from| {
            (0..4)
                .map(|to| if from == to { 0 } else { s.next(scale * 4) })
                .collect()
        })
        .collect()
}

/// The run of column 0 to 3 with a seed.
pub(crate) fn run(column: usize, seed: u64) -> RunResult {
    let (label, id, title, summary, scale) = DESIGNS[column];
    let mut s = Stream(seed * 1_000_003 + column as u64);
    let virtual_cycles = 410_000 * scale + s.next(900_000);
    let task_cycles = virtual_cycles * 4 + 77;
    let broken = column == 2;
    RunResult {
        schema: RUN_SCHEMA.into(),
        tool: Tool {
            name: "mmusim".into(),
            version: "0.1.0".into(),
        },
        scenario: ScenarioId {
            title: "vmtruncate under a guest, a GRU job and an XPMEM import".into(),
            file: "vmtruncate-three-mmus.jsonc".into(),
            digest: "9f31c0de55aa0178".into(),
        },
        seed,
        label: label.into(),
        design: DesignInfo {
            id: id.into(),
            title: title.into(),
            summary: summary.into(),
            overrides: if broken {
                vec!["unsupported = break".into()]
            } else {
                Vec::new()
            },
        },
        kernel: if column == 3 {
            "linux-2.6.27-sleepable"
        } else {
            "linux-2.6.27"
        }
        .into(),
        machine: "barcelona-2008".into(),
        cycle_ps: 435,
        config: serde_json::json!({
            "title": "vmtruncate under a guest, a GRU job and an XPMEM import", "machine": "barcelona-2008", "notifier": id,
            "files": { "heap": { "pages": 65536 } },
            "processes": { "job": { "maps": { "ram": { "file": "heap", "sharing": "shared" } },
                "attach": { "vm": { "kvm": { "maps": ["ram"], "paging": "tdp" } }, "gru0": { "gru": {} }, "peer": { "xpmem": { "rtt_ns": 2000 } } } } },
            "note": "</script><b>not markup</b>",
        }),
        end: if broken {
            End {
                kind: EndKind::Violation,
                summary: "1 safety violation: sleep-in-atomic".into(),
                evidence: Vec::new(),
            }
        } else {
            End {
                kind: EndKind::Completed,
                summary: "all 4 tasks finished and every check held".into(),
                evidence: Vec::new(),
            }
        },
        virtual_cycles,
        metrics: metrics(column, scale, &mut s),
        histograms: histograms(scale, &mut s),
        locks: locks(scale, &mut s),
        breakdown: breakdown(task_cycles, column),
        task_cycles,
        secondaries: secondaries(column),
        ipi_matrix: ipi_matrix(scale, &mut s),
        violations: if broken { vec![violation()] } else { Vec::new() },
        expectations: vec![
            ExpectationRow {
                subject: "tlb.shootdown.ipis".into(),
                expected: "<= 20000".into(),
                actual: (40 * scale).to_string(),
                ok: true,
            },
            ExpectationRow {
                subject: "pages.pinned.max".into(),
                expected: "== 0".into(),
                actual: [65_536, 4_096, 4_096, 0][column].to_string(),
                ok: column == 3,
            },
        ],
        notes: vec!["The GRU's context load is not modelled; its cost is part of the first access.".into()],
    }
}

/// Four designs, three seeds each.
pub(crate) fn comparison() -> CompareResult {
    let columns = (0..4)
        .map(|c| (1..=3).map(|seed| run(c, seed)).collect())
        .collect();
    compare(
        columns,
        "vmtruncate under a guest, a GRU job and an XPMEM import".into(),
    )
}
