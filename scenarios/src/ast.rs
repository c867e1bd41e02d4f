//! The scenario language, version 1, as data.
//!
//! These types are the single source of the language: `serde` reads them, `schemars` turns their
//! doc comments into the JSON Schema that editors complete from, and the checker validates a file
//! against that schema first, so that every error has a place. Operations are *externally tagged*
//! (`{"munmap": {...}}`) because positions are lost inside internally tagged enums.
//!
//! Units: addresses are virtual addresses of the process, in bytes, page aligned; sizes and
//! offsets are in pages of 4 KiB unless the name says otherwise.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

mod op;

pub use op::*;

/// A whole scenario file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Path of the JSON Schema, for completion in editors. Ignored otherwise.
    #[serde(rename = "$schema", default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<String>,
    /// One line that says what the scenario shows.
    pub title: String,
    /// Longer explanation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Scenario file (relative to this one) whose members this one completes or replaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extends: Option<String>,
    /// Machine preset, or the path of a machine file that ends in `.json` or `.jsonc` (relative to this
    /// file).
    #[serde(default = "default_machine")]
    pub machine: String,
    /// Number of simulated CPUs of each kernel; default: all CPUs of the machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus: Option<u32>,
    /// Kernel profile.
    #[serde(default)]
    pub kernel: KernelChoice,
    /// Notifier design.
    #[serde(default)]
    pub notifier: NotifierChoice,
    /// What to do with a secondary MMU that the design cannot carry.
    #[serde(default)]
    pub unsupported: Unsupported,
    /// What happens to a process whose scripts have ended.
    #[serde(default)]
    pub at_end: AtEnd,
    /// Memory of each kernel; default: the machine's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<MemoryDef>,
    /// Swap device of each kernel; default: none, so anonymous memory is never reclaimed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub swap: Option<SwapDef>,
    /// Seed of all random draws; `--seed` overrides it.
    #[serde(default = "default_seed")]
    pub seed: u64,
    /// The disk that holds files, one for each kernel; default: flash of 2008.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<DiskDef>,
    /// Files in the page cache, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub files: BTreeMap<String, FileDef>,
    /// Processes, by name.
    pub processes: BTreeMap<String, ProcessDef>,
    /// Checked when the run has ended; a failed clause makes the exit code 1.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub expect: Vec<Expect>,
    /// Remarks carried into the result (an importer lists what it skipped and assumed here).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

fn default_machine() -> String {
    "harpertown-2008".to_owned()
}

fn default_seed() -> u64 {
    1
}

/// Kernel profile: a name, or a name with knobs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum KernelChoice {
    /// Name of a profile; the notifier design brings its own when the scenario names none.
    Name(String),
    /// A profile with overrides.
    Custom(KernelDef),
}

impl Default for KernelChoice {
    fn default() -> Self {
        KernelChoice::Custom(KernelDef::default())
    }
}

/// A kernel profile with overridden knobs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KernelDef {
    /// Name of the profile to start from; default: the one the notifier design was made for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<String>,
    /// CONFIG_PREEMPT (zap blocks of 8 pages instead of 1024).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preempt: Option<Switch>,
    /// A lock for each page table (CONFIG_SPLIT_PTLOCK_CPUS), or one for each address space; default: on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split_ptlocks: Option<Switch>,
    /// Huge pages of 2 MiB that each kernel takes from its memory at boot (`hugepages=`).
    #[serde(default, skip_serializing_if = "is_zero")]
    pub hugepages: u64,
}

/// A kernel option that is on or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Switch {
    /// Compiled in.
    On,
    /// Compiled out.
    Off,
}

/// Notifier design: a name, or a name with knobs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum NotifierChoice {
    /// Name of a design, for example `v8-merged` or its short form `v8`.
    Name(String),
    /// A design with overridden knobs.
    Custom(NotifierDef),
}

impl Default for NotifierChoice {
    fn default() -> Self {
        NotifierChoice::Name("v8-merged".to_owned())
    }
}

/// A notifier design with overridden knobs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NotifierDef {
    /// Design to start from.
    pub base: String,
    /// How registration synchronises with brackets in flight.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registration: Option<RegistrationKnob>,
    /// What protects the list of subscribers while it is walked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traversal: Option<TraversalKnob>,
}

/// Registration knob.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RegistrationKnob {
    /// List insertion under a spinlock only.
    ListLock,
    /// `mm_take_all_locks`.
    TakeAllLocks,
    /// `mm_take_all_locks` of 2.6.27-rc1: VMA by VMA.
    TakeAllInterleaved,
    /// `mm_lock`, sorted.
    MmLock,
    /// `mm_lock` of v12: each lock searched among all VMAs.
    MmLockSearch,
    /// `mm_lock` of v15 and v16: anon_vma->locks first.
    MmLockAnonFirst,
}

/// Traversal knob.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TraversalKnob {
    /// None.
    Bare,
    /// `rcu_read_lock`.
    Rcu,
    /// `srcu_read_lock`.
    Srcu,
}

/// Rule for secondary MMUs that the notifier design cannot carry.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Unsupported {
    /// Fall back to page pins where the device can hold them, else leave it out.
    #[default]
    Pin,
    /// Leave it out.
    Omit,
    /// Let it run into the violation.
    Break,
}

/// What happens to a process whose scripts have ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum AtEnd {
    /// It exits: its address space is torn down and its secondary MMUs are detached, as part of the
    /// run.
    #[default]
    Exit,
    /// It stays: the run ends with the last script, so that the counts are those of the scripts
    /// alone.
    Stay,
}

/// A block device, which serves one request after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DiskDef {
    /// Nanoseconds to read a page; default: 85000 (Intel X25-M).
    #[serde(default = "default_read_ns")]
    pub read_ns: u64,
    /// Nanoseconds to write a page; default: 115000 (Intel X25-M). A disk of 7200 rpm takes 13670000 on
    /// average.
    #[serde(default = "default_write_ns")]
    pub write_ns: u64,
}

fn default_read_ns() -> u64 {
    mm::DiskSpec::X25_M.read_ns
}

fn default_write_ns() -> u64 {
    mm::DiskSpec::X25_M.write_ns
}

/// Memory of a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MemoryDef {
    /// Size, in pages. With less than programs use, pages are reclaimed: by kswapd below the kernel's
    /// low watermark, by the program that wants a page below the lowest one.
    pub pages: u64,
}

/// A swap device. Without times of its own it is the flash disk of 2008 that files are on, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SwapDef {
    /// Size, in pages.
    pub pages: u32,
    /// Nanoseconds to read a page; default: 85000 (Intel X25-M).
    #[serde(default = "default_read_ns")]
    pub read_ns: u64,
    /// Nanoseconds to write a page; default: 115000 (Intel X25-M).
    #[serde(default = "default_write_ns")]
    pub write_ns: u64,
}

/// A file in the page cache.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileDef {
    /// Size, in pages of 4 KiB.
    pub pages: u64,
    /// Size of the pages it is mapped with; `2m` puts it into hugetlbfs, and sizes, offsets and addresses of
    /// its mappings are multiples of 512 pages.
    #[serde(default, skip_serializing_if = "FilePages::is_small")]
    pub page_size: FilePages,
    /// What it is of.
    #[serde(default, skip_serializing_if = "FileKind::is_disk")]
    pub kind: FileKind,
}

/// Size of a file's pages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum FilePages {
    /// 4 KiB.
    #[default]
    #[serde(rename = "4k")]
    Small,
    /// 2 MiB, from the pool that `hugepages` fills.
    #[serde(rename = "2m")]
    Huge,
}

impl FilePages {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "signature required by serde")]
    fn is_small(&self) -> bool {
        *self == FilePages::Small
    }
}

/// What a file is of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FileKind {
    /// A file system on a disk: dirty pages are accounted, so shared pages are mapped read-only until they
    /// are written and `remap_file_pages` is emulated; no holes.
    #[default]
    Disk,
    /// tmpfs.
    Tmpfs,
}

impl FileKind {
    fn is_disk(&self) -> bool {
        *self == FileKind::Disk
    }
}

/// A process.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProcessDef {
    /// Partition (kernel instance) the process runs on; partitions are created on first mention.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition: Option<String>,
    /// Born by a `fork` operation of another process instead of at the start of the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forked: Option<Forked>,
    /// Mappings made before the first thread starts, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub maps: BTreeMap<String, MapDef>,
    /// Secondary MMUs, by name; registered before the first thread starts unless `register` says
    /// otherwise.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attach: BTreeMap<String, AttachDef>,
    /// Threads, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub threads: BTreeMap<String, ThreadDef>,
}

/// Marker of a process that starts at a `fork`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Forked {
    /// Starts when its parent executes `{"fork": {"child": ...}}`.
    ByParent,
}

/// A mapping made at the start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MapDef {
    /// File behind it; anonymous memory otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// First page of the file.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub offset: u64,
    /// Length in pages; default: the rest of the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pages: Option<u64>,
    /// Shared or private.
    #[serde(default)]
    pub sharing: Sharing,
    /// Protection.
    #[serde(default)]
    pub prot: Prot,
    /// Address; default: chosen by the simulator, 2 MiB aligned with an unmapped gap on each side.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Address>,
    /// Touch every page before the first thread starts (not measured).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub populate: Option<Populate>,
    /// Number of such mappings, each `pages` long, one unmapped page apart (for address spaces
    /// with many VMAs). The name then stands for the first.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub copies: u64,
}

/// How pages are touched beforehand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Populate {
    /// By reading.
    Read,
    /// By writing.
    Write,
}

/// An address: a number (hexadecimal allowed) or a string such as `"0x7f0000000000"`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Address {
    /// A number.
    Number(u64),
    /// Hexadecimal text.
    Text(String),
}

/// Sharing of a mapping.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Sharing {
    /// MAP_PRIVATE.
    #[default]
    Private,
    /// MAP_SHARED.
    Shared,
}

/// Protection of a mapping.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Prot {
    /// PROT_NONE.
    None,
    /// PROT_READ.
    Read,
    /// PROT_READ | PROT_WRITE.
    #[default]
    ReadWrite,
    /// PROT_READ | PROT_EXEC.
    ReadExec,
    /// PROT_READ | PROT_WRITE | PROT_EXEC.
    ReadWriteExec,
}

/// A secondary MMU.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum AttachDef {
    /// A KVM guest whose memory lies in this process.
    Kvm(KvmDef),
    /// SGI GRU contexts of this process.
    Gru(GruDef),
    /// An XPMEM export of this process, attached by an importer on another partition.
    Xpmem(XpmemDef),
}

/// A KVM guest.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KvmDef {
    /// Memory slots: the named mappings, guest-physical from 0 upwards in this order.
    /// Default: every mapping named in `maps`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub maps: Vec<String>,
    /// Memory slots by address, for address spaces that are built by operations.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ranges: Vec<RangeDef>,
    /// How the guest's memory is virtualised.
    #[serde(default)]
    pub paging: GuestPaging,
    /// Release of the KVM driver, for example `2.6.27`; decides whether sptes hold a reference.
    #[serde(default = "default_kvm_version")]
    pub version: String,
    /// Order in which a dropped group of sptes gives up its page references.
    #[serde(default)]
    pub unpin: UnpinOrder,
    /// When registered; default: before the first thread starts.
    #[serde(default)]
    pub register: RegisterWhen,
}

fn default_kvm_version() -> String {
    "2.6.27".to_owned()
}

/// Guest paging mode.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum GuestPaging {
    /// Two-dimensional paging (EPT/NPT); refused on a machine without it.
    Tdp,
    /// Direct sptes: the guest runs unpaged (real mode or identity), gfn to pfn in software tables;
    /// works on every machine.
    #[default]
    Direct,
}

/// Order of spte invalidation, TLB flush and unpin.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum UnpinOrder {
    /// spte invalid; TLB flush; unpin.
    #[default]
    FlushFirst,
    /// 2.6.25's order: unpin while clearing, flush afterwards.
    UnpinFirst,
}

/// When a secondary MMU registers its notifier.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RegisterWhen {
    /// Before the first thread starts.
    #[default]
    Start,
    /// When a thread executes `{"register": ...}`.
    ByOp,
}

/// SGI GRU contexts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GruDef {
    /// Chiplets on which the process has a loaded context.
    #[serde(default = "one_u32")]
    pub chiplets: u32,
    /// How TLB misses are served.
    #[serde(default)]
    pub miss: GruMiss,
    /// When registered.
    #[serde(default)]
    pub register: RegisterWhen,
}

/// Service of GRU TLB misses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum GruMiss {
    /// Fault-map interrupt, falling back to user polling.
    #[default]
    Interrupt,
    /// The user polls and calls the operating system.
    UserPolling,
}

/// An XPMEM export.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct XpmemDef {
    /// Exported mappings; default: every mapping named in `maps`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub maps: Vec<String>,
    /// Exported ranges by address.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ranges: Vec<RangeDef>,
    /// Partition of the importing process; a kernel instance of its own.
    #[serde(default = "default_importer")]
    pub importer: String,
    /// One-way trip twice: message and acknowledgement, in nanoseconds.
    #[serde(default = "default_rtt")]
    pub rtt_ns: u64,
    /// Whether the exporter pins pages that importers map (the 2008 driver always does).
    #[serde(default = "default_xpmem_pins")]
    pub pins: Switch,
    /// When registered.
    #[serde(default)]
    pub register: RegisterWhen,
}

fn default_importer() -> String {
    "importer".to_owned()
}

fn default_rtt() -> u64 {
    20_000
}

fn default_xpmem_pins() -> Switch {
    Switch::On
}

fn one() -> u64 {
    1
}

fn one_u32() -> u32 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "signature required by serde")]
fn is_one(n: &u64) -> bool {
    *n == 1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "signature required by serde")]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// A range of virtual addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RangeDef {
    /// First address.
    pub at: Address,
    /// Length in pages.
    pub pages: u64,
}

/// An expectation on the result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Expect {
    /// Name of a metric, or of any other number of `--format csv` (`lock.i_mmap_lock.hold_cycles.max`),
    /// or `end` for how the run ends, or `violation` for the kind of violation.
    pub subject: String,
    /// Only checked under this notifier design (short or long name).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub under: Option<String>,
    /// Exact value of a metric.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub equals: Option<u64>,
    /// Smallest allowed value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_least: Option<u64>,
    /// Largest allowed value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_most: Option<u64>,
    /// Exact text (`end`: `completed`, `violation`, ...; `violation`: its kind).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub is: Option<String>,
}
