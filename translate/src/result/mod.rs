//! What a translator found, as a result that can be written.

mod hot;

use std::collections::BTreeSet;

use reports::schema::Tool;
use reports::schema::translate::{
    AccessKind, Accesses, Charged, Client as ClientKind, CpuRow, CycleRow, DataCaching as CachingKind,
    FirstTouches, MemoryInfo, Oracle as OracleKind, ReuseCurve, ReuseInfo, ReusePoint, ServedRow, SetupInfo,
    SizeRow, SourceInfo, TRANSLATE_SCHEMA, TlbRow, TranslateResult, WalkRow, WhatIfRow, ratio,
};
use sim::Cycles;
use x86::cache::Served;
use x86::{Access, PAGE_SIZE, PageSize};

use crate::describe;
use crate::engine::{DataCaching, Prices};
use crate::frames::Oracle;
use crate::pages::Page;
use crate::reuse::Distances;
use crate::tally::{Client, Tally};
use crate::translator::{Counts, Lane, Translator};

/// What a result says beside what was counted.
#[derive(Clone, Debug)]
pub struct About {
    /// The program.
    pub tool: Tool,
    /// Seed of the source.
    pub seed: u64,
    /// The source.
    pub source: SourceInfo,
    /// Whether the oracle watched.
    pub oracle: OracleKind,
    /// Most pages and regions listed.
    pub top: usize,
}

impl<O: Oracle> Translator<O> {
    /// The result so far.
    ///
    /// # Panics
    /// Never: there is always an engine.
    #[must_use]
    pub fn result(&self, about: About) -> TranslateResult {
        let lane = &self.lanes[0];
        let (counts, prices) = (lane.counts(), lane.prices());
        let (setup, tally) = (lane.engine.setup(), counts.total());
        let total_cycles = tally.total_cycles(&prices);
        let asked = tally.references();
        TranslateResult {
            schema: TRANSLATE_SCHEMA.to_owned(),
            tool: about.tool,
            seed: about.seed,
            machine: describe::machine(&setup.machine),
            setup: SetupInfo {
                pages: setup.pages.to_string(),
                levels: setup.mode.levels(),
                data_caching: match setup.data {
                    DataCaching::Bypass => CachingKind::Bypass,
                    DataCaching::Through => CachingKind::Through,
                },
                warmup: self.task.warmup,
                oracle: about.oracle,
            },
            references: Accesses {
                loads: asked.of(Access::Read),
                stores: asked.of(Access::Write),
                fetches: asked.of(Access::Fetch),
            },
            non_canonical: counts.events.non_canonical,
            tlb: tlb(&tally, lane),
            walks: Client::ALL.map(|client| walks(&tally, client, &prices)).to_vec(),
            cycles: cycles(&tally, &prices),
            total_cycles,
            cycles_per_reference: ratio(total_cycles, asked.total()),
            charged: charged(&tally, lane),
            first_touches: FirstTouches {
                pages: counts.events.first_touches,
                walk_cycles: tally.walk_cycles(&prices) - hot::walk_cycles(&counts.pages),
            },
            collapses: counts.collapses,
            memory: memory(lane, &counts.pages, self.touched_pages()),
            hot_pages: hot::pages(&counts.pages, about.top),
            hot_regions: hot::regions(&counts.pages, about.top),
            reuse: self.reuse().map(|[all, data, fetches]| ReuseInfo {
                all: curve(&all),
                data: curve(&data),
                instructions: curve(&fetches),
            }),
            what_if: self.what_if(total_cycles),
            cpus: self.cpus(&counts, &prices),
            violations: self.violation().map(str::to_owned).into_iter().collect(),
            notes: self.notes(&counts),
            source: SourceInfo {
                threads: self.threads(),
                ..about.source
            },
        }
    }

    fn notes(&self, counts: &Counts) -> Vec<String> {
        let mut notes = Vec::new();
        if counts.events.non_canonical > 0 {
            notes.push(format!(
                "{} references have an address that is not canonical with {} levels of page tables; they were \
                 left out",
                counts.events.non_canonical,
                self.task.setup.mode.levels()
            ));
        }
        if self.threads() > 1 && self.reuse().is_some() {
            notes.push(
                "reuse distances are those of all threads together, in the order of the source".to_owned(),
            );
        }
        notes
    }

    fn what_if(&self, run: u64) -> Vec<WhatIfRow> {
        if self.lanes.len() == 1 {
            return Vec::new();
        }
        let row = |lane: &Lane<O>| {
            let (counts, prices) = (lane.counts(), lane.prices());
            let tally = counts.total();
            let total_cycles = tally.total_cycles(&prices);
            let memory = memory(lane, &counts.pages, None);
            WhatIfRow {
                pages: lane.engine.setup().pages.to_string(),
                second_level_hits: tally.second_hits.total(),
                misses: tally.misses.total(),
                walk_cycles: tally.walk_cycles(&prices),
                total_cycles,
                saved_cycles: run as i64 - total_cycles as i64,
                collapses: counts.collapses,
                mapped_bytes: memory.mapped_bytes,
                page_tables: memory.page_tables,
            }
        };
        self.lanes.iter().map(row).collect()
    }

    fn cpus(&self, counts: &Counts, prices: &Prices) -> Vec<CpuRow> {
        if counts.cpus.len() < 2 {
            return Vec::new();
        }
        let cpus = self.task.setup.machine.cpus();
        let row = |(cpu, tally): (u32, &Tally)| CpuRow {
            cpu,
            // Thread n runs on CPU n modulo the CPUs.
            threads: (self.threads() - cpu).div_ceil(cpus),
            references: tally.references().total(),
            second_level_hits: tally.second_hits.total(),
            misses: tally.misses.total(),
            walk_cycles: tally.walk_cycles(prices),
            total_cycles: tally.total_cycles(prices),
        };
        (0..).zip(&counts.cpus).map(row).collect()
    }
}

fn tlb<O: Oracle>(tally: &Tally, lane: &Lane<O>) -> Vec<TlbRow> {
    let row = |level, access, hits: u64, misses: u64| TlbRow {
        level,
        access: match access {
            Access::Read => AccessKind::Load,
            Access::Write => AccessKind::Store,
            Access::Fetch => AccessKind::Fetch,
        },
        references: hits + misses,
        hits,
        misses,
        miss_ratio: ratio(misses, hits + misses),
    };
    let first = Access::ALL.map(|access| {
        let misses = tally.second_hits.of(access) + tally.misses.of(access);
        row(1, access, tally.first_hits.of(access), misses)
    });
    let second =
        Access::ALL.map(|access| row(2, access, tally.second_hits.of(access), tally.misses.of(access)));
    let mut rows = first.to_vec();
    if !lane.engine.setup().machine.tlb.l2.is_empty() {
        rows.extend(second);
    }
    rows
}

const fn server(by: Served) -> &'static str {
    match by {
        Served::L1 => "first-level cache",
        Served::L2 => "second-level cache",
        Served::Llc => "last-level cache",
        Served::Memory => "memory",
        Served::Remote => "remote memory",
    }
}

fn walks(tally: &Tally, client: Client, prices: &Prices) -> WalkRow {
    let walks = tally.walks.of_client(client);
    let faults = tally.faults.of_client(client);
    let served = Served::ALL.map(|by| ServedRow {
        by: server(by).to_owned(),
        count: tally.served(client, by),
        latency: prices.served[by as usize],
    });
    let references: u64 = served.iter().map(|row| row.count).sum();
    WalkRow {
        client: match client {
            Client::Data => ClientKind::Data,
            Client::Instructions => ClientKind::Instructions,
        },
        walks,
        rewalks: walks - tally.misses.of_client(client),
        faults,
        references_per_walk: ratio(references, walks + faults),
        references: served.to_vec(),
        dirty_assists: tally.assists(client),
    }
}

fn cycles(tally: &Tally, prices: &Prices) -> Vec<CycleRow> {
    let row = |account: String, description: &str, of: &dyn Fn(Client) -> u64| CycleRow {
        account,
        description: description.to_owned(),
        data: of(Client::Data),
        instructions: of(Client::Instructions),
    };
    let mut rows = vec![
        row(
            "second-level hits".to_owned(),
            "first-level misses that the second level served",
            &|client| tally.hit_cycles(client, prices),
        ),
        row("walk base".to_owned(), "the fixed part of each walk", &|client| {
            tally.base_cycles(client, prices)
        }),
    ];
    rows.extend(Served::ALL.map(|by| {
        row(
            format!("tables in {}", server(by)),
            "page-table references served there",
            &|client| tally.served_cycles(client, by, prices),
        )
    }));
    rows.push(row(
        "dirty assists".to_owned(),
        "setting the dirty bit at the first store to a clean page",
        &|client| tally.assist_cycles(client, prices),
    ));
    rows
}

fn charged<O: Oracle>(tally: &Tally, lane: &Lane<O>) -> Charged {
    let machine = &lane.engine.setup().machine;
    let share = &machine.walk_charged;
    let walk_cycles = tally.walk_cycles(&lane.prices());
    let at = |percent: x86::Percent| percent.of(Cycles::new(walk_cycles)).get();
    Charged {
        walk_cycles,
        percent: u32::from(share.value.get()),
        percent_low: u32::from(share.low.get()),
        percent_high: u32::from(share.high.get()),
        source: share.source.clone(),
        cycles: at(share.value),
        cycles_low: at(share.low),
        cycles_high: at(share.high),
    }
}

fn memory<O: Oracle>(lane: &Lane<O>, pages: &[Page], touched: Option<u64>) -> MemoryInfo {
    let large: BTreeSet<_> = pages
        .iter()
        .filter(|page| page.size == PageSize::Size2M)
        .map(|page| page.vpn)
        .collect();
    // A small page inside a large one was given up when the large one was made.
    let stays =
        |page: &&Page| page.size != PageSize::Size4K || !large.contains(&PageSize::Size2M.floor(page.vpn));
    let mapped: Vec<SizeRow> = PageSize::ALL
        .into_iter()
        .map(|size| {
            let pages = pages
                .iter()
                .filter(stays)
                .filter(|page| page.size == size)
                .count() as u64;
            SizeRow {
                size: size.to_string(),
                pages,
                bytes: pages * size.bytes(),
            }
        })
        .filter(|row| row.pages > 0)
        .collect();
    MemoryInfo {
        mapped_bytes: mapped.iter().map(|row| row.bytes).sum(),
        mapped,
        touched_bytes: touched.map(|pages| pages * PAGE_SIZE),
        page_tables: lane.engine.page_tables() as u64,
    }
}

fn curve(distances: &Distances) -> ReuseCurve {
    let references = distances.references();
    let point = |bits: u32| {
        let misses = distances.misses(bits);
        ReusePoint {
            entries: 1 << bits,
            misses,
            share: ratio(misses, references),
        }
    };
    let points = match references {
        0 => Vec::new(),
        _ => (0..=distances.enough_bits()).map(point).collect(),
    };
    ReuseCurve {
        references,
        cold: distances.cold(),
        points,
    }
}
