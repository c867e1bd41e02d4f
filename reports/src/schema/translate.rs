//! The result of running an access stream or a recording through the MMUs of a machine.
//!
//! Counts are of references, each counted once: a page's first touch walks twice, once to find the
//! page missing and once to find it mapped, and counts as one miss. Cycles are those of translation
//! alone, as if nothing else went on; [`Charged`] says how much of the walks delays a program that can
//! do something else meanwhile.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Tool;

/// Schema identifier of [`TranslateResult`].
pub const TRANSLATE_SCHEMA: &str = "mmusim.translate/1";

/// What translation cost.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TranslateResult {
    /// [`TRANSLATE_SCHEMA`].
    pub schema: String,
    /// Program that wrote the result.
    pub tool: Tool,
    /// Seed of every random draw.
    pub seed: u64,
    /// Where the references come from.
    pub source: SourceInfo,
    /// The machine.
    pub machine: MachineInfo,
    /// What was chosen.
    pub setup: SetupInfo,
    /// References counted.
    pub references: Accesses,
    /// References among them whose address is not canonical: no TLB was asked for them.
    pub non_canonical: u64,
    /// References at each level by access: first level, then second level if there is one.
    pub tlb: Vec<TlbRow>,
    /// Walks of data accesses and of instruction fetches.
    pub walks: Vec<WalkRow>,
    /// Where the cycles went. They add up to [`TranslateResult::total_cycles`].
    pub cycles: Vec<CycleRow>,
    /// Cycles of translation.
    pub total_cycles: u64,
    /// Cycles of translation for each reference.
    pub cycles_per_reference: f64,
    /// What of the walks delays the program.
    pub charged: Charged,
    /// Pages that were touched for the first time.
    pub first_touches: FirstTouches,
    /// Regions of 2 MiB whose small pages became one large page.
    pub collapses: u64,
    /// Memory at the end.
    pub memory: MemoryInfo,
    /// The pages whose walks cost most, dearest first.
    pub hot_pages: Vec<HotPage>,
    /// The regions whose walks cost most, dearest first.
    pub hot_regions: Vec<HotRegion>,
    /// Misses by number of entries, if asked for.
    pub reuse: Option<ReuseInfo>,
    /// The same references with other pages, if asked for; the first row is what was run.
    pub what_if: Vec<WhatIfRow>,
    /// Each CPU, if there were several.
    pub cpus: Vec<CpuRow>,
    /// Stale translations that were found; the run ends with the first.
    pub violations: Vec<String>,
    /// Remarks a reader needs.
    pub notes: Vec<String>,
}

/// Where references come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SourceInfo {
    /// Stream or recording.
    pub kind: SourceKind,
    /// Description of the stream, or name of the recording's file without its folder.
    pub name: String,
    /// Format of the recording; empty for a stream.
    pub format: String,
    /// Records read in one round: lines, entries or instructions; 0 for a stream.
    pub records: u64,
    /// Accesses that crossed into another page, and became a reference to each; 0 for a stream.
    pub split: u64,
    /// Threads met.
    pub threads: u32,
    /// Rounds asked for.
    pub rounds: u64,
    /// Records that were not used.
    pub skipped: Vec<SkippedRow>,
    /// What else there is to say about the recording.
    pub remarks: Vec<String>,
}

/// Kind of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SourceKind {
    /// References that a formula makes.
    Stream,
    /// References of a program that ran.
    Recording,
}

/// Records of a recording that were not used, for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SkippedRow {
    /// Why.
    pub reason: String,
    /// How many.
    pub count: u64,
    /// Where the first of them is.
    pub first: String,
}

/// A machine in a few words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MachineInfo {
    /// Name of the preset, or name that the machine file gives.
    pub name: String,
    /// One line.
    pub title: String,
    /// Length of one cycle, in picoseconds.
    pub cycle_ps: u64,
    /// Slots for 4 KiB pages.
    pub small_page_slots: Slots,
    /// Shape of the TLBs, one line.
    pub tlb: String,
    /// Shape of the paging-structure caches, one line.
    pub paging_structure_caches: String,
    /// Shape of the caches, one line.
    pub caches: String,
}

/// Slots for 4 KiB pages; 0 where there are none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Slots {
    /// First level, loads.
    pub loads: u32,
    /// First level, instruction fetches.
    pub fetches: u32,
    /// Second level, for data.
    pub second_level_data: u32,
    /// Second level, for instruction fetches.
    pub second_level_fetches: u32,
}

/// What was chosen for a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SetupInfo {
    /// How memory is mapped: `4k`, `2m`, `1g`, `thp` or `thp=N`.
    pub pages: String,
    /// Levels of page tables.
    pub levels: u32,
    /// Whether data accesses compete with page tables for the caches.
    pub data_caching: DataCaching,
    /// References that were made before counting began.
    pub warmup: u64,
    /// Whether every translation used was held against the frame it names.
    pub oracle: Oracle,
}

/// How data accesses meet the caches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DataCaching {
    /// Only page-table references go through them.
    Bypass,
    /// Data accesses go through them, too.
    Through,
}

/// Whether translations were watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Oracle {
    /// They were.
    On,
    /// They were taken for sound.
    Off,
}

/// A number for each kind of access.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Accesses {
    /// Loads.
    pub loads: u64,
    /// Stores.
    pub stores: u64,
    /// Instruction fetches.
    pub fetches: u64,
}

/// A kind of access.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum AccessKind {
    /// A load.
    Load,
    /// A store.
    Store,
    /// An instruction fetch.
    Fetch,
}

/// References of one kind at one level of the TLBs. A store that finds a translation whose page is
/// clean hits, and walks all the same.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TlbRow {
    /// 1 or 2.
    pub level: u32,
    /// Kind.
    pub access: AccessKind,
    /// References that asked this level.
    pub references: u64,
    /// Of these, those it served.
    pub hits: u64,
    /// Of these, those it did not.
    pub misses: u64,
    /// Misses for each reference that asked.
    pub miss_ratio: f64,
}

/// Whose walks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Client {
    /// Loads and stores.
    Data,
    /// Instruction fetches.
    Instructions,
}

/// Walks for data, or for instructions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WalkRow {
    /// Whose.
    pub client: Client,
    /// Walks that found a page: one for each miss, and the rewalks.
    pub walks: u64,
    /// Of these, those of stores that hit a translation of a clean page.
    pub rewalks: u64,
    /// Walks that found the page missing, at its first touch.
    pub faults: u64,
    /// Page-table references of all these walks, by who served them.
    pub references: Vec<ServedRow>,
    /// Page-table references for each walk; what the paging-structure caches save shows against the
    /// levels of the tables.
    pub references_per_walk: f64,
    /// Walks that had to set the dirty bit.
    pub dirty_assists: u64,
}

/// Page-table references served by one level of the memory hierarchy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ServedRow {
    /// `first-level cache`, `second-level cache`, `last-level cache`, `memory` or `remote memory`.
    pub by: String,
    /// References.
    pub count: u64,
    /// Cycles of one.
    pub latency: u64,
}

/// One account of the cycles.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CycleRow {
    /// Name of the account, for example `second-level hits`.
    pub account: String,
    /// What is booked there.
    pub description: String,
    /// Cycles of loads and stores.
    pub data: u64,
    /// Cycles of instruction fetches.
    pub instructions: u64,
}

/// The share of the walks that delays the program, as the machine's file estimates it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Charged {
    /// Cycles of all walks: everything but the second-level hits.
    pub walk_cycles: u64,
    /// Share in percent.
    pub percent: u32,
    /// Lowest plausible share in percent.
    pub percent_low: u32,
    /// Highest plausible share in percent.
    pub percent_high: u32,
    /// Where the share comes from.
    pub source: String,
    /// Cycles at the share.
    pub cycles: u64,
    /// Cycles at the lowest share.
    pub cycles_low: u64,
    /// Cycles at the highest share.
    pub cycles_high: u64,
}

/// Pages touched for the first time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FirstTouches {
    /// How many.
    pub pages: u64,
    /// Cycles of the walks that found them missing, part of the total.
    pub walk_cycles: u64,
}

/// Memory at the end, the warm-up's included.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MemoryInfo {
    /// Pages mapped, by size.
    pub mapped: Vec<SizeRow>,
    /// Bytes mapped.
    pub mapped_bytes: u64,
    /// Bytes of the 4 KiB pages that were touched, if something counted them.
    pub touched_bytes: Option<u64>,
    /// Page tables, 4 KiB each.
    pub page_tables: u64,
}

/// Pages of one size.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SizeRow {
    /// `4k`, `2m` or `1g`.
    pub size: String,
    /// How many.
    pub pages: u64,
    /// Bytes of all of them.
    pub bytes: u64,
}

/// A page and what its misses cost.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct HotPage {
    /// First byte, hexadecimal.
    pub address: String,
    /// Size.
    pub size: String,
    /// What its misses cost.
    #[serde(flatten)]
    pub cost: HotCost,
}

/// Touched pages near each other and what their misses cost.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct HotRegion {
    /// First byte, hexadecimal.
    pub start: String,
    /// The byte after the last, hexadecimal.
    pub end: String,
    /// Pages touched, of any size.
    pub pages: u64,
    /// What their misses cost.
    #[serde(flatten)]
    pub cost: HotCost,
}

/// Cost of a page or region.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct HotCost {
    /// First-level misses that the second level served.
    pub second_level_hits: u64,
    /// Walks that found the page.
    pub walks: u64,
    /// Their cycles.
    pub walk_cycles: u64,
    /// Share of these in the walks of all pages.
    pub share: f64,
}

/// What fully associative LRU TLBs of all sizes would miss, with 4 KiB pages.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ReuseInfo {
    /// One TLB for everything.
    pub all: ReuseCurve,
    /// A TLB for loads and stores alone.
    pub data: ReuseCurve,
    /// A TLB for instruction fetches alone.
    pub instructions: ReuseCurve,
}

/// Misses by number of entries.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ReuseCurve {
    /// References.
    pub references: u64,
    /// Those to pages never met before, which miss whatever the size.
    pub cold: u64,
    /// One point a power of two, until only cold references miss.
    pub points: Vec<ReusePoint>,
}

/// A TLB of some size.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ReusePoint {
    /// Entries.
    pub entries: u64,
    /// References it would miss.
    pub misses: u64,
    /// Their share.
    pub share: f64,
}

/// The same references with other pages.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WhatIfRow {
    /// How memory is mapped.
    pub pages: String,
    /// References that missed the first level and hit the second.
    pub second_level_hits: u64,
    /// References that missed all levels.
    pub misses: u64,
    /// Cycles of walks.
    pub walk_cycles: u64,
    /// Cycles of translation.
    pub total_cycles: u64,
    /// Cycles less than with the pages that were run; negative if more.
    pub saved_cycles: i64,
    /// Regions of 2 MiB whose small pages became one large page.
    pub collapses: u64,
    /// Bytes mapped at the end.
    pub mapped_bytes: u64,
    /// Page tables at the end, 4 KiB each.
    pub page_tables: u64,
}

/// What one CPU did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CpuRow {
    /// Number of the CPU.
    pub cpu: u32,
    /// Threads that ran on it.
    pub threads: u32,
    /// References with a canonical address.
    pub references: u64,
    /// Of these, those that missed the first level and hit the second.
    pub second_level_hits: u64,
    /// Of these, those that missed all levels.
    pub misses: u64,
    /// Cycles of walks.
    pub walk_cycles: u64,
    /// Cycles of translation.
    pub total_cycles: u64,
}

/// Decimals of the ratios in a result: those of a billion references are told apart, and what is
/// written comes back the same when it is read.
const RATIO_UNITS: f64 = 1e9;

/// A ratio as results hold it, 0 where there is nothing to divide by.
#[must_use]
pub fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        return 0.0;
    }
    (part as f64 / whole as f64 * RATIO_UNITS).round() / RATIO_UNITS
}

impl Accesses {
    /// All kinds.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.loads + self.stores + self.fetches
    }
}

impl CycleRow {
    /// Cycles of both.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.data + self.instructions
    }
}

impl WalkRow {
    /// Page-table references, whoever served them.
    #[must_use]
    pub fn page_table_references(&self) -> u64 {
        self.references.iter().map(|row| row.count).sum()
    }
}

impl TranslateResult {
    /// Rows of one level of the TLBs.
    pub fn level(&self, level: u32) -> impl Iterator<Item = &TlbRow> {
        self.tlb.iter().filter(move |row| row.level == level)
    }

    /// References that missed all levels.
    #[must_use]
    pub fn misses(&self) -> u64 {
        let last = self.tlb.iter().map(|row| row.level).max().unwrap_or(0);
        self.level(last).map(|row| row.misses).sum()
    }
}
