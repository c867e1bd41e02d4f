//! Threads and their operations.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Address, Prot, Sharing, is_one, is_zero, one};

/// A thread and what it does.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ThreadDef {
    /// CPU the thread is bound to; default: dealt round robin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<u32>,
    /// Name of an attached secondary MMU the thread drives (a vCPU, a GRU job, an importer rank);
    /// `touch` and `access` then go through it.
    #[serde(rename = "as", default, skip_serializing_if = "Option::is_none")]
    pub drives: Option<String>,
    /// When the thread comes to life.
    #[serde(default, skip_serializing_if = "Birth::is_at_start")]
    pub birth: Birth,
    /// Operations, in order.
    pub script: Vec<Op>,
}

/// When a thread comes to life. Before that it has no address space, and an `exec` of its process does
/// not end it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Birth {
    /// With its process.
    #[default]
    Start,
    /// When the barrier that its script begins with is met (clone(2) by whoever meets it there).
    FirstBarrier,
}

impl Birth {
    fn is_at_start(&self) -> bool {
        *self == Birth::Start
    }
}

/// Which part of the address space an operation means: a named mapping (with an optional part of
/// it) or an address.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Region {
    /// Named mapping.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub map: Option<String>,
    /// Address, instead of `map`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Address>,
    /// First page inside the mapping (or after `at`).
    #[serde(default, skip_serializing_if = "is_zero")]
    pub first: u64,
    /// Number of pages; default: to the end of the named mapping.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pages: Option<u64>,
}

/// One operation of a thread.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Op {
    /// Access every page of a region once, in order.
    Touch(TouchOp),
    /// Access pages of a region by a pattern.
    Access(AccessOp),
    /// mmap(2).
    Mmap(MmapOp),
    /// munmap(2).
    Munmap(Region),
    /// mprotect(2).
    Mprotect(MprotectOp),
    /// mremap(2).
    Mremap(MremapOp),
    /// remap_file_pages(2): other pages of the file into a part of a shared mapping.
    RemapFilePages(RemapFilePagesOp),
    /// madvise(2).
    Madvise(MadviseOp),
    /// fsync(2): the file's dirty pages are write-protected, go to the disk, and are waited for.
    Writeback(WritebackOp),
    /// msync(2) with MS_SYNC: each file that is mapped shared in the region is written back.
    Msync(Region),
    /// move_pages(2): the pages of a region move to other frames.
    Migrate(MigrateOp),
    /// mlock(2): every page of the region is made present and stays.
    Mlock(Region),
    /// munlock(2).
    Munlock(Region),
    /// brk(2).
    Brk(BrkOp),
    /// ftruncate(2): vmtruncate when the file shrinks.
    Truncate(TruncateOp),
    /// Free pages of the kernel's memory, mapped ones included, as if it were short
    /// (shrink_all_memory).
    Reclaim(ReclaimOp),
    /// fork(2).
    Fork(ForkOp),
    /// execve(2): the address space is torn down and replaced by an empty one.
    Exec(Nothing),
    /// exit_group(2).
    Exit(Nothing),
    /// wait4(2) for a child started by `fork`.
    Wait(WaitOp),
    /// Meet all other threads that name the same barrier.
    Barrier(BarrierOp),
    /// Compute in user mode: keeps the CPU busy in this address space without accessing memory.
    Compute(ComputeOp),
    /// Sleep.
    Sleep(SleepOp),
    /// Register a secondary MMU that was declared with `"register": "by-op"`.
    Register(AttachRef),
    /// Unregister a secondary MMU.
    Unregister(AttachRef),
    /// Repeat operations.
    Repeat(RepeatOp),
}

/// An operation without arguments.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Nothing {}

/// Kind of a memory access.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum AccessKind {
    /// Load.
    #[default]
    Read,
    /// Store.
    Write,
}

/// Arguments of `touch`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TouchOp {
    /// Named mapping.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub map: Option<String>,
    /// Address, instead of `map`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Address>,
    /// First page inside the mapping (or after `at`).
    #[serde(default, skip_serializing_if = "is_zero")]
    pub first: u64,
    /// Number of pages; default: to the end of the named mapping.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pages: Option<u64>,
    /// Distance between touched pages, in pages.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub stride: u64,
    /// Store instead of load.
    #[serde(default)]
    pub write: bool,
}

/// Arguments of `access`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AccessOp {
    /// Named mapping.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub map: Option<String>,
    /// Address, instead of `map`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Address>,
    /// First page inside the mapping (or after `at`).
    #[serde(default, skip_serializing_if = "is_zero")]
    pub first: u64,
    /// Number of pages of the region; default: to the end of the named mapping. A thread that
    /// drives a secondary MMU and names no region accesses everything that MMU shadows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pages: Option<u64>,
    /// Which page comes next.
    #[serde(default)]
    pub pattern: Pattern,
    /// Number of accesses.
    pub count: u64,
    /// Share of stores among the accesses, in percent.
    #[serde(default)]
    pub write_percent: u8,
}

/// Access pattern.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Pattern {
    /// Page after page, from the start again at the end.
    #[default]
    Sequential,
    /// Every n-th page, wrapping.
    Stride(u64),
    /// Each page equally likely.
    Uniform,
    /// Zipf distributed with this exponent (0.99 is YCSB's), hottest page first.
    Zipf(f64),
    /// A fixed random cycle through all pages.
    PointerChase,
}

/// Arguments of `mmap`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MmapOp {
    /// Name under which later operations may refer to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Address (MAP_FIXED: what lies there is unmapped first); default: chosen by the simulator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Address>,
    /// Length in pages.
    pub pages: u64,
    /// File behind it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// First page of the file.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub offset: u64,
    /// Shared or private.
    #[serde(default)]
    pub sharing: Sharing,
    /// Protection.
    #[serde(default)]
    pub prot: Prot,
    /// MAP_POPULATE: all pages are made present before the call returns.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub populate: bool,
    /// MAP_LOCKED: as `populate`, and the mapping is locked as by `mlock`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub locked: bool,
}

/// Arguments of `mprotect`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MprotectOp {
    /// Where.
    pub region: Region,
    /// New protection.
    pub prot: Prot,
}

/// Arguments of `mremap`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MremapOp {
    /// Old place and length.
    pub region: Region,
    /// New length in pages.
    pub new_pages: u64,
    /// New address; default: stay if possible, else chosen by the simulator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Address>,
}

/// Arguments of `remap_file_pages`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RemapFilePagesOp {
    /// Where: a part of one mapping.
    pub region: Region,
    /// First page of the file.
    pub offset: u64,
    /// MAP_NONBLOCK: the pages are not faulted in.
    #[serde(default)]
    pub nonblock: bool,
}

/// Arguments of `madvise`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MadviseOp {
    /// Where.
    pub region: Region,
    /// Which advice.
    pub advice: Advice,
}

/// Advice that the profiles act on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Advice {
    /// MADV_DONTNEED.
    Dontneed,
    /// MADV_REMOVE: a hole in a file of tmpfs.
    Remove,
}

/// Arguments of `writeback`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WritebackOp {
    /// File.
    pub file: String,
}

/// Arguments of `migrate`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MigrateOp {
    /// Where.
    pub region: Region,
    /// Which of the pages there.
    #[serde(default)]
    pub which: MigrateWhich,
}

/// Which pages `migrate` moves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum MigrateWhich {
    /// Those that only one entry maps (MPOL_MF_MOVE).
    #[default]
    Own,
    /// All (MPOL_MF_MOVE_ALL).
    All,
}

/// Arguments of `brk`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BrkOp {
    /// New end of the heap. The first `brk` of an address space sets where the heap starts.
    pub to: Address,
}

/// Arguments of `truncate`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TruncateOp {
    /// File.
    pub file: String,
    /// New size in pages.
    pub pages: u64,
}

/// Arguments of `reclaim`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReclaimOp {
    /// How many pages to free; fewer if no more can be.
    pub pages: u64,
}

/// Arguments of `fork`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ForkOp {
    /// Name of the process that starts here; it must be declared with `"forked": "by-parent"`.
    pub child: String,
}

/// Arguments of `wait`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WaitOp {
    /// Child to wait for.
    pub child: String,
}

/// Arguments of `barrier`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BarrierOp {
    /// Name; all threads whose scripts mention it take part.
    pub name: String,
}

/// Arguments of `compute`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ComputeOp {
    /// Duration in nanoseconds, interrupts not counted.
    pub ns: u64,
}

/// Arguments of `sleep`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SleepOp {
    /// Duration in nanoseconds.
    pub ns: u64,
}

/// Names a secondary MMU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AttachRef {
    /// Its name in `attach`.
    pub mmu: String,
}

/// Arguments of `repeat`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RepeatOp {
    /// How often.
    pub times: u64,
    /// What.
    pub script: Vec<Op>,
}

impl Op {
    /// Name of the operation, as written in a script and in `op.<op>.latency_cycles`.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Op::Touch(_) => "touch",
            Op::Access(_) => "access",
            Op::Mmap(_) => "mmap",
            Op::Munmap(_) => "munmap",
            Op::Mprotect(_) => "mprotect",
            Op::Mremap(_) => "mremap",
            Op::RemapFilePages(_) => "remap_file_pages",
            Op::Madvise(_) => "madvise",
            Op::Writeback(_) => "writeback",
            Op::Msync(_) => "msync",
            Op::Migrate(_) => "migrate",
            Op::Mlock(_) => "mlock",
            Op::Munlock(_) => "munlock",
            Op::Brk(_) => "brk",
            Op::Truncate(_) => "truncate",
            Op::Reclaim(_) => "reclaim",
            Op::Fork(_) => "fork",
            Op::Exec(_) => "exec",
            Op::Exit(_) => "exit",
            Op::Wait(_) => "wait",
            Op::Barrier(_) => "barrier",
            Op::Compute(_) => "compute",
            Op::Sleep(_) => "sleep",
            Op::Register(_) => "register",
            Op::Unregister(_) => "unregister",
            Op::Repeat(_) => "repeat",
        }
    }
}
