//! A made-up but consistent translation, with every part filled and a hostile name. For tests and for
//! looking at the renderings; no number in it was measured.

use reports::schema::Tool;
use reports::schema::translate::*;

const SERVERS: [(&str, u64); 5] = [
    ("first-level cache", 4),
    ("second-level cache", 14),
    ("last-level cache", 50),
    ("memory", 300),
    ("remote memory", 500),
];

fn tlb() -> Vec<TlbRow> {
    let row = |level, access, references: u64, misses: u64| TlbRow {
        level,
        access,
        references,
        hits: references - misses,
        misses,
        miss_ratio: ratio(misses, references),
    };
    vec![
        row(1, AccessKind::Load, 1_000_000, 50_000),
        row(1, AccessKind::Store, 400_000, 10_000),
        row(1, AccessKind::Fetch, 3_000_000, 400),
        row(2, AccessKind::Load, 50_000, 20_000),
        row(2, AccessKind::Store, 10_000, 4_000),
        row(2, AccessKind::Fetch, 400, 100),
    ]
}

fn walks() -> Vec<WalkRow> {
    let row = |client, walks: u64, rewalks, faults, counts: [u64; 5], dirty_assists| WalkRow {
        client,
        walks,
        rewalks,
        faults,
        references: SERVERS
            .iter()
            .zip(counts)
            .map(|((by, latency), count)| ServedRow {
                by: (*by).to_owned(),
                count,
                latency: *latency,
            })
            .collect(),
        references_per_walk: ratio(counts.iter().sum(), walks + faults),
        dirty_assists,
    };
    vec![
        row(
            Client::Data,
            24_500,
            500,
            3_000,
            [30_000, 8_000, 2_000, 900, 100],
            600,
        ),
        row(Client::Instructions, 100, 0, 90, [250, 40, 0, 10, 0], 0),
    ]
}

fn cycles(walks: &[WalkRow]) -> Vec<CycleRow> {
    let row = |account: &str, data, instructions| CycleRow {
        account: account.to_owned(),
        description: format!("what {account} cost"),
        data,
        instructions,
    };
    let mut rows = vec![
        row("second-level hits", 36_000 * 7, 300 * 7),
        row("walk base", 27_500 * 6, 190 * 6),
    ];
    rows.extend(SERVERS.iter().enumerate().map(|(at, (by, latency))| {
        let [data, instructions] = [0, 1].map(|who: usize| walks[who].references[at].count * latency);
        row(&format!("tables in {by}"), data, instructions)
    }));
    rows.push(row("dirty assists", 600 * 500, 0));
    rows
}

fn curve(references: u64, cold: u64, length: u32) -> ReuseCurve {
    let point = |bits: u32| {
        let misses = ((references - cold) >> (2 * bits + 1)) * u64::from(bits + 1 < length) + cold;
        ReusePoint {
            entries: 1 << bits,
            misses,
            share: ratio(misses, references),
        }
    };
    ReuseCurve {
        references,
        cold,
        points: (0..length).map(point).collect(),
    }
}

fn cost(walks: u64, share: f64) -> HotCost {
    HotCost {
        second_level_hits: walks / 3,
        walks,
        walk_cycles: walks * 40,
        share,
    }
}

fn what_if(total: u64) -> Vec<WhatIfRow> {
    let row = |pages: &str, misses, total_cycles: u64| WhatIfRow {
        pages: pages.to_owned(),
        second_level_hits: misses / 2,
        misses,
        walk_cycles: total_cycles / 2,
        total_cycles,
        saved_cycles: total as i64 - total_cycles as i64,
        collapses: 0,
        mapped_bytes: 8 << 20,
        page_tables: 4,
    };
    vec![
        row("4k", 24_100, total),
        row("2m", 900, total / 3),
        row("thp", 30_000, total + 1000),
    ]
}

/// Recording of two threads, with reuse distances and other pages.
pub(crate) fn translation() -> TranslateResult {
    let walks = walks();
    let cycles = cycles(&walks);
    let total_cycles: u64 = cycles.iter().map(CycleRow::total).sum();
    let hits: u64 = cycles[0].total();
    let walk_cycles = total_cycles - hits;
    TranslateResult {
        schema: TRANSLATE_SCHEMA.to_owned(),
        tool: Tool {
            name: "mmusim".to_owned(),
            version: "0.1.0".to_owned(),
        },
        seed: 1,
        source: SourceInfo {
            kind: SourceKind::Recording,
            name: "<script>alert(1)</script>.lackey".to_owned(),
            format: "lackey".to_owned(),
            records: 4_400_000,
            split: 12,
            threads: 2,
            rounds: 2,
            skipped: vec![SkippedRow {
                reason: "valgrind's own messages".to_owned(),
                count: 9,
                first: "line 1".to_owned(),
            }],
            remarks: vec!["the mark at the end is missing".to_owned()],
        },
        machine: MachineInfo {
            name: "test-machine".to_owned(),
            title: "2 x a CPU, \"made up\"".to_owned(),
            cycle_ps: 300,
            small_page_slots: Slots {
                loads: 64,
                fetches: 64,
                second_level_data: 1536,
                second_level_fetches: 1536,
            },
            tlb: "loads 4k: 64 x 4-way | fetches 4k: 64 x 8-way | second level 4k 2m: 1536 x 12-way"
                .to_owned(),
            paging_structure_caches: "pde: 32 x 4-way".to_owned(),
            caches: "L1d 32 KiB 8-way; L2 1024 KiB 16-way".to_owned(),
        },
        setup: SetupInfo {
            pages: "4k".to_owned(),
            levels: 4,
            data_caching: DataCaching::Through,
            warmup: 5,
            oracle: Oracle::Off,
        },
        references: Accesses {
            loads: 1_000_000,
            stores: 400_000,
            fetches: 3_000_000,
        },
        non_canonical: 3,
        tlb: tlb(),
        walks,
        cycles,
        total_cycles,
        cycles_per_reference: ratio(total_cycles, 4_400_000),
        charged: Charged {
            walk_cycles,
            percent: 40,
            percent_low: 30,
            percent_high: 100,
            source: "section 3".to_owned(),
            cycles: walk_cycles * 40 / 100,
            cycles_low: walk_cycles * 30 / 100,
            cycles_high: walk_cycles,
        },
        first_touches: FirstTouches {
            pages: 3090,
            walk_cycles: 60_000,
        },
        collapses: 1,
        memory: MemoryInfo {
            mapped: vec![SizeRow {
                size: "4k".to_owned(),
                pages: 3090,
                bytes: 3090 * 4096,
            }],
            mapped_bytes: 3090 * 4096,
            touched_bytes: Some(3000 * 4096),
            page_tables: 17,
        },
        hot_pages: vec![HotPage {
            address: "0x7ffffffff000".to_owned(),
            size: "4k".to_owned(),
            cost: cost(300, 0.0122),
        }],
        hot_regions: vec![HotRegion {
            start: "0x400000".to_owned(),
            end: "0x800000".to_owned(),
            pages: 900,
            cost: cost(20_000, 0.813),
        }],
        reuse: Some(ReuseInfo {
            all: curve(4_400_000, 3090, 11),
            data: curve(1_400_000, 3000, 12),
            instructions: curve(3_000_000, 90, 6),
        }),
        what_if: what_if(total_cycles),
        cpus: (0..2)
            .map(|cpu| CpuRow {
                cpu,
                threads: 1,
                references: 2_200_000,
                second_level_hits: 18_150,
                misses: 12_050,
                walk_cycles: walk_cycles / 2,
                total_cycles: total_cycles / 2,
            })
            .collect(),
        violations: Vec::new(),
        notes: vec!["3 references have an address that is not canonical".to_owned()],
    }
}
