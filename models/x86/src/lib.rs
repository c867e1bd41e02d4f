//! The x86-64 hardware under a simulated kernel: addresses, page-table entries, page tables, TLBs,
//! the page walker, interprocessor interrupts, and machines with the price of each primitive.
//!
//! Everything here is mechanism and plain data with synchronous methods: what INVLPG empties, how
//! many references a walk makes, what a CR3 write costs. Which CPU is interrupted, and when, is
//! policy of the layer above.

pub mod addr;
pub mod cache;
pub mod entry;
pub mod fault;
pub mod frames;
pub mod ipi;
pub mod machine;
pub mod mmu;
pub mod page_size;
pub mod psc;
pub mod reference;
pub mod rules;
mod set_array;
pub mod tables;
pub mod tlb;
pub mod walker;

pub use addr::{
    ENTRIES_PER_TABLE, Gfn, Gpa, Hva, PAGE_SHIFT, PAGE_SIZE, PT_SPAN_PAGES, Pfn, Pgoff, PgoffRange, Va,
    VaRange, Vpn, VpnRange,
};
pub use cache::CacheGeometry;
pub use entry::{Entry, EntryFlags, Rights, SoftwareTag};
pub use fault::{ErrorCode, Fault};
pub use frames::{Frames, Observer, Slots};
pub use ipi::{ApicMode, Vector};
pub use machine::{
    ContentError, CostRow, CostUnit, Costs, CpuIndex, Distance, FeatureRow, Features, Machine, MachineError,
    NestedPaging, Percent, Target, UnknownMachine, WalkCharged,
};
pub use page_size::{PageSize, PageSizes};
pub use reference::Reference;
pub use rules::{Privilege, Rules};
pub use tables::{LeafScan, Level, PageTables, PagingMode, TableId};
pub use tlb::{
    Asid, ByAccess, Context, Generation, Lookup, Shape, Tlb, TlbBank, TlbEntry, TlbGeometry, TlbStats,
};
pub use walker::{Access, DirtyAssist, Walk, WalkOutcome, walk, walk_cost};
