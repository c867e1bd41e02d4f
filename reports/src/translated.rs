//! What every rendering of a translation says: its sentences, its rows, its names.

use crate::figures::{bytes, grouped, percent, ratio, share};
use crate::flat::FlatRow;
use crate::schema::translate::{
    AccessKind, Client, CycleRow, DataCaching, Oracle, ReuseCurve, ReuseInfo, SourceKind, TlbRow,
    TranslateResult, WalkRow,
};

/// Name of a kind of access, as a row.
pub(crate) const fn access(kind: AccessKind) -> &'static str {
    match kind {
        AccessKind::Load => "loads",
        AccessKind::Store => "stores",
        AccessKind::Fetch => "fetches",
    }
}

/// Name of those who walk.
pub(crate) const fn client(client: Client) -> &'static str {
    match client {
        Client::Data => "data",
        Client::Instructions => "instructions",
    }
}

/// References of one kind through both levels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Journey {
    pub(crate) name: &'static str,
    pub(crate) references: u64,
    /// First level.
    pub(crate) hits: u64,
    pub(crate) second_level_hits: u64,
    pub(crate) misses: u64,
}

impl Journey {
    fn of(first: &TlbRow, second: Option<&TlbRow>) -> Self {
        Journey {
            name: access(first.access),
            references: first.references,
            hits: first.hits,
            second_level_hits: second.map_or(0, |row| row.hits),
            misses: second.map_or(first.misses, |row| row.misses),
        }
    }

    fn add(mut self, other: &Journey) -> Self {
        self.references += other.references;
        self.hits += other.hits;
        self.second_level_hits += other.second_level_hits;
        self.misses += other.misses;
        self
    }
}

/// Each kind of access that occurs, then, if there are several, all together.
pub(crate) fn journeys(result: &TranslateResult) -> Vec<Journey> {
    let second = |row: &TlbRow| result.level(2).find(|other| other.access == row.access);
    let kinds = result.level(1).map(|row| Journey::of(row, second(row)));
    let mut rows: Vec<Journey> = kinds.filter(|row| row.references > 0).collect();
    let none = Journey {
        name: "all",
        references: 0,
        hits: 0,
        second_level_hits: 0,
        misses: 0,
    };
    if rows.len() != 1 {
        rows.push(rows.iter().fold(none, Journey::add));
    }
    rows
}

/// A column of cycles: its name, and the cycles of an account.
pub(crate) type CycleColumn = (&'static str, fn(&CycleRow) -> u64);

/// Whose cycles are shown beside each other: data and instructions as far as either took any, and their
/// sum if both did.
pub(crate) fn columns(result: &TranslateResult) -> Vec<CycleColumn> {
    let of: [CycleColumn; 2] = [
        (client(Client::Data), |row| row.data),
        (client(Client::Instructions), |row| row.instructions),
    ];
    let took = |column: &CycleColumn| result.cycles.iter().any(|row| column.1(row) > 0);
    let mut columns: Vec<CycleColumn> = of.into_iter().filter(took).collect();
    if columns.len() > 1 {
        columns.push(("both", CycleRow::total));
    }
    columns
}

/// Page-table references of a row by who served them, and all of them.
pub(crate) fn served(row: &WalkRow, by: &str) -> u64 {
    let here = row.references.iter().filter(|served| served.by == by);
    here.map(|served| served.count).sum()
}

/// Levels of the hierarchy that served anything, nearest first.
pub(crate) fn servers(result: &TranslateResult) -> Vec<&str> {
    let all = result.walks.first().map_or(&[][..], |row| &row.references);
    all.iter()
        .map(|row| row.by.as_str())
        .filter(|by| result.walks.iter().any(|row| served(row, by) > 0))
        .collect()
}

/// What came out, in a few sentences; the first is the headline.
pub(crate) fn verdict(result: &TranslateResult) -> Vec<String> {
    if let Some(violation) = result.violations.first() {
        return vec![format!("Stale translation: {violation}. The run ended there.")];
    }
    let all = result.references.total();
    if all == 0 {
        return vec![format!("{} made no reference.", result.source.name)];
    }
    let headline = format!(
        "Translation takes {} cycles a reference: {} with {} pages on {}.",
        ratio(result.cycles_per_reference),
        result.source.name,
        result.setup.pages,
        result.machine.name
    );
    let mut sentences = vec![headline, served_sentence(result)];
    let charged = &result.charged;
    if charged.walk_cycles > 0 {
        sentences.push(format!(
            "A program that works on while the walker walks is held up by {}% of the walks ({} to {}%): {} cycles \
             a reference ({} to {}).",
            charged.percent,
            charged.percent_low,
            charged.percent_high,
            ratio(charged.cycles as f64 / all as f64),
            ratio(charged.cycles_low as f64 / all as f64),
            ratio(charged.cycles_high as f64 / all as f64),
        ));
    }
    sentences
}

fn served_sentence(result: &TranslateResult) -> String {
    let all = result.references.total();
    let hits: u64 = result.level(1).map(|row| row.hits).sum();
    let mut out = format!(
        "Of {} references {} hit the first level",
        grouped(all),
        share(hits, all)
    );
    let second: u64 = result.level(2).map(|row| row.hits).sum();
    if result.level(2).next().is_some() {
        out += &format!(", {} the second", share(second, all));
    }
    out += &format!(", and {} miss", share(result.misses(), all));
    let made: u64 = result.walks.iter().map(|row| row.walks + row.faults).sum();
    if made > 0 {
        let references: u64 = result.walks.iter().map(WalkRow::page_table_references).sum();
        out += &format!(
            "; a walk makes {} page-table references and takes {} cycles",
            ratio(references as f64 / made as f64),
            ratio(result.charged.walk_cycles as f64 / made as f64)
        );
    }
    out + "."
}

/// Where the references come from.
pub(crate) fn source(result: &TranslateResult) -> String {
    let source = &result.source;
    let threads = match source.threads {
        0 | 1 => String::new(),
        n => format!(", {n} threads"),
    };
    let mut out = match source.kind {
        SourceKind::Stream => format!("stream {}", source.name),
        SourceKind::Recording => {
            let rounds = match source.rounds {
                1 => String::new(),
                n => format!(", {n} rounds"),
            };
            format!(
                "recording {} ({}, {} records{threads}{rounds})",
                source.name,
                source.format,
                grouped(source.records)
            )
        }
    };
    let counts = &result.references;
    out += &format!(
        ": {} loads, {} stores, {} fetches",
        grouped(counts.loads),
        grouped(counts.stores),
        grouped(counts.fetches)
    );
    if result.setup.warmup > 0 {
        out += &format!(" after a warm-up of {}", grouped(result.setup.warmup));
    }
    out
}

/// What was chosen, and who wrote it.
pub(crate) fn origin(result: &TranslateResult) -> String {
    let setup = &result.setup;
    let caching = match setup.data_caching {
        DataCaching::Bypass => "",
        DataCaching::Through => ", data compete for the caches",
    };
    let oracle = match setup.oracle {
        Oracle::On => "",
        Oracle::Off => ", oracle off",
    };
    format!(
        "{} pages, {} levels{caching}{oracle}, seed {}, {} {}",
        setup.pages, setup.levels, result.seed, result.tool.name, result.tool.version
    )
}

/// What is mapped and touched.
pub(crate) fn memory(result: &TranslateResult) -> String {
    let memory = &result.memory;
    let sizes: Vec<String> = memory
        .mapped
        .iter()
        .map(|row| format!("{} pages of {}", grouped(row.pages), row.size))
        .collect();
    let mut out = format!("Mapped: {}", bytes(memory.mapped_bytes));
    if !sizes.is_empty() {
        out += &format!(" ({})", sizes.join(", "));
    }
    if let Some(touched) = memory.touched_bytes
        && touched != memory.mapped_bytes
    {
        out += &format!(", of which {} were touched", bytes(touched));
    }
    out += &format!(
        "; page tables: {} ({}).",
        grouped(memory.page_tables),
        bytes(memory.page_tables * 4096)
    );
    let first = &result.first_touches;
    if first.pages > 0 {
        out += &format!(
            " {} first touches walked once more, to find nothing: {} cycles, {} of all.",
            grouped(first.pages),
            grouped(first.walk_cycles),
            share(first.walk_cycles, result.total_cycles)
        );
    }
    match result.collapses {
        0 => {}
        1 => out += " One region became a large page.",
        n => out += &format!(" {} regions became large pages.", grouped(n)),
    }
    out
}

/// Remarks: those of the result, and what of the recording was not used.
pub(crate) fn notes(result: &TranslateResult) -> Vec<String> {
    let skipped = result.source.skipped.iter().map(|row| {
        format!(
            "{} records were not used: {} (first at {})",
            grouped(row.count),
            row.reason,
            row.first
        )
    });
    let split = (result.source.split > 0).then(|| {
        format!(
            "{} accesses crossed into another page and became two references or more",
            grouped(result.source.split)
        )
    });
    let own = result.notes.iter().cloned();
    own.chain(result.source.remarks.iter().cloned())
        .chain(split)
        .chain(skipped)
        .collect()
}

/// A reuse curve, its name and a longer one.
pub(crate) type NamedCurve<'a> = (&'static str, &'static str, &'a ReuseCurve);

/// The reuse curves; a source of data alone, or of instructions alone, has only one.
pub(crate) fn curves(reuse: &ReuseInfo) -> Vec<NamedCurve<'_>> {
    let alone: [NamedCurve<'_>; 2] = [
        ("data alone", "a TLB for loads and stores", &reuse.data),
        (
            "instructions alone",
            "a TLB for instruction fetches",
            &reuse.instructions,
        ),
    ];
    let occurring = alone.into_iter().filter(|(_, _, curve)| curve.references > 0);
    let occurring: Vec<NamedCurve<'_>> = occurring.collect();
    match occurring.len() {
        1 => occurring,
        _ => [("one for all", "data and instructions in one TLB", &reuse.all)]
            .into_iter()
            .chain(occurring)
            .collect(),
    }
}

/// What a TLB of 2^`bits` entries misses. Beyond its end a curve stays as it is.
pub(crate) fn missed(curve: &ReuseCurve, bits: usize) -> u64 {
    let point = curve.points.get(bits).or(curve.points.last());
    point.map_or(0, |point| point.misses)
}

/// Saved cycles, signed, with their share.
pub(crate) fn saved(cycles: i64, of: u64) -> String {
    match cycles {
        0 => "0".to_owned(),
        less if less > 0 => format!(
            "{} ({})",
            grouped(less.unsigned_abs()),
            percent(less.unsigned_abs(), of)
        ),
        more => format!(
            "-{} (-{})",
            grouped(more.unsigned_abs()),
            percent(more.unsigned_abs(), of)
        ),
    }
}

/// Everything as named numbers, for the row formats.
pub(crate) fn rows(result: &TranslateResult) -> Vec<FlatRow> {
    let mut rows = Rows(Vec::new());
    counts(result, &mut rows);
    for row in &result.cycles {
        let name = row.account.replace([' ', '-'], "_");
        rows.put(format!("cycles.{name}.data"), "cycles", row.data);
        rows.put(format!("cycles.{name}.instructions"), "cycles", row.instructions);
    }
    rows.put("cycles.total", "cycles", result.total_cycles);
    rows.put("cycles.walks", "cycles", result.charged.walk_cycles);
    rows.put("cycles.charged", "cycles", result.charged.cycles);
    rows.put("cycles.charged.low", "cycles", result.charged.cycles_low);
    rows.put("cycles.charged.high", "cycles", result.charged.cycles_high);
    state(result, &mut rows);
    for row in &result.what_if {
        let name = |what: &str| format!("what_if.{}.{what}", row.pages);
        rows.put(name("second_level_hits"), "count", row.second_level_hits);
        rows.put(name("misses"), "count", row.misses);
        rows.put(name("walk_cycles"), "cycles", row.walk_cycles);
        rows.put(name("total_cycles"), "cycles", row.total_cycles);
        rows.put(name("mapped_bytes"), "bytes", row.mapped_bytes);
    }
    if let Some(reuse) = &result.reuse {
        for (who, curve) in [
            ("all", &reuse.all),
            ("data", &reuse.data),
            ("instructions", &reuse.instructions),
        ] {
            rows.put(format!("reuse.{who}.cold"), "count", curve.cold);
            for point in &curve.points {
                rows.put(
                    format!("reuse.{who}.misses.{}", point.entries),
                    "count",
                    point.misses,
                );
            }
        }
    }
    rows.put("violations", "count", result.violations.len() as u64);
    rows.0
}

struct Rows(Vec<FlatRow>);

impl Rows {
    fn put(&mut self, metric: impl Into<String>, unit: &str, value: u64) {
        self.0.push(FlatRow {
            metric: metric.into(),
            unit: unit.to_owned(),
            value,
        });
    }
}

fn counts(result: &TranslateResult, rows: &mut Rows) {
    rows.put("references", "count", result.references.total());
    rows.put("references.loads", "count", result.references.loads);
    rows.put("references.stores", "count", result.references.stores);
    rows.put("references.fetches", "count", result.references.fetches);
    rows.put("references.non_canonical", "count", result.non_canonical);
    for row in &result.tlb {
        let name = format!("tlb.l{}.{}", row.level, access(row.access));
        rows.put(format!("{name}.hits"), "count", row.hits);
        rows.put(format!("{name}.misses"), "count", row.misses);
    }
    for row in &result.walks {
        let name = |what: &str| format!("walks.{}.{what}", client(row.client));
        rows.put(name("count"), "count", row.walks);
        rows.put(name("rewalks"), "count", row.rewalks);
        rows.put(name("faults"), "count", row.faults);
        rows.put(name("dirty_assists"), "count", row.dirty_assists);
        for served in &row.references {
            let by = served.by.replace([' ', '-'], "_");
            rows.put(name(&format!("references.{by}")), "count", served.count);
        }
    }
}

fn state(result: &TranslateResult, rows: &mut Rows) {
    rows.put("first_touches", "count", result.first_touches.pages);
    rows.put(
        "first_touches.walk_cycles",
        "cycles",
        result.first_touches.walk_cycles,
    );
    rows.put("collapses", "count", result.collapses);
    for row in &result.memory.mapped {
        rows.put(format!("memory.pages.{}", row.size), "pages", row.pages);
    }
    rows.put("memory.mapped", "bytes", result.memory.mapped_bytes);
    if let Some(touched) = result.memory.touched_bytes {
        rows.put("memory.touched", "bytes", touched);
    }
    rows.put("memory.page_tables", "pages", result.memory.page_tables);
    for row in &result.cpus {
        let name = |what: &str| format!("cpu.{}.{what}", row.cpu);
        rows.put(name("references"), "count", row.references);
        rows.put(name("second_level_hits"), "count", row.second_level_hits);
        rows.put(name("misses"), "count", row.misses);
        rows.put(name("total_cycles"), "cycles", row.total_cycles);
    }
}
