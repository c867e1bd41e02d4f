//! Linux memory management, as far as secondary MMUs can tell: address spaces, reverse maps, page
//! frames, the mmu_gather, TLB flushing, the mmu notifier, and the kernel paths that drive them.
//!
//! `x86` is mechanism; who is interrupted and when is policy, here. Secondary MMUs live above and
//! are reached through [`notifier::Subscriber`]. Facts and their sources: the doc comment at the head
//! of each module; keys of "host-mm-paths", "notifier-variants", "secondary-mmus" and
//! "hardware-costs" are rows of docs/sources.md, with kernel files and mails.

pub mod access;
pub mod account;
mod check;
pub mod file;
pub mod frame;
mod gather;
pub mod i_mmap;
pub mod kernel;
pub mod metrics;
pub mod mm;
pub mod notifier;
pub mod page;
pub mod paths;
pub mod profile;
mod tlbflush;
pub mod vma;
mod walk;

pub use access::{Now, Refused};
pub use check::CONSERVATION;
pub use file::FileId;
pub use frame::{Frames, OutOfMemory, Owner};
pub use kernel::{CALL_FUNCTION_VECTOR, CpuMode, Kernel, KernelId, KernelSpec, World};
pub use metrics::MmMetrics;
pub use mm::{AnonVmaId, MmId};
pub use paths::{
    Attempt, Destination, Gup, Inserted, LockAll, MapError, MapFlags, MapRequest, Mapped, Populate,
};
pub use profile::KernelProfile;
pub use sim::KernelPreemption;
pub use vma::{Backing, Growth, Locked, Prot, Sharing, VmaId};
