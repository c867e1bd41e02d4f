//! Linux memory management, as far as secondary MMUs can tell: address spaces, reverse maps, page
//! frames, the mmu_gather, TLB flushing, the mmu notifier, and the kernel paths that drive them.
//!
//! `x86` is mechanism; who is interrupted and when is policy, here. Secondary MMUs live above and
//! are reached through [`notifier::Subscriber`]. Facts and their sources: the doc comment at the head
//! of each module; keys of "host-mm-paths", "notifier-variants", "secondary-mmus" and
//! "hardware-costs" are rows of docs/sources.md, with kernel files and mails.

pub mod access;
pub mod account;
mod arena;
mod check;
mod check_swap;
pub mod disk;
pub mod file;
pub mod frame;
mod gather;
pub mod hugetlb;
pub mod i_mmap;
pub mod invariants;
pub mod kernel;
pub mod lock_order;
pub mod lru;
pub mod metrics;
pub mod mm;
pub mod notifier;
pub mod page;
mod page_alloc;
mod page_lock;
pub mod paths;
pub mod profile;
pub mod radix_tree;
mod rmap;
mod rmap_cluster;
mod rotate;
pub mod swap;
mod swap_state;
mod swapfile;
pub mod swapops;
mod tlbflush;
pub mod vma;
mod vma_walk;
mod walk;
mod watch;
pub mod world;

pub use access::{Now, Refused};
pub use check::CONSERVATION;
pub use disk::{DISK_VECTOR, Device, DiskSpec};
pub use file::{FileId, FileKind};
pub use frame::{Frames, OutOfMemory, Owner, Watermark, Watermarks};
pub use kernel::{CALL_FUNCTION_VECTOR, CpuMode, Kernel, KernelId};
pub use metrics::MmMetrics;
pub use mm::{AnonVmaId, MmId};
pub use paths::{
    Attempt, Destination, Gup, Inserted, KERNEL_BUG, LockAll, MapError, MapFlags, MapRequest, Mapped,
    Migrated, Populate, Prefault, RemapError, RemapRequest, RemoveError, Which,
};
pub use profile::KernelProfile;
pub use sim::KernelPreemption;
pub use swapops::{MigrationAccess, NonPresent, SwapSlot};
pub use vma::{Backing, Growth, Linearity, Locked, Prot, Sharing, VmaId};
pub use world::{KernelSpec, World};
