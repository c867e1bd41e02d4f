//! Kernel paths, one a file, named as in Linux.

mod exit;
mod fault;
mod fork;
mod free_pgtables;
mod gup;
mod gup_fast;
mod madvise;
mod mlock;
mod mmap;
mod mprotect;
mod mremap;
mod munmap;
mod pfnmap;
mod stack;
mod truncate;
mod vma_adjust;
mod vma_merge;
mod vma_parts;
mod zap;

pub use gup::Gup;
pub use mlock::LockAll;
pub use mmap::{MapError, MapFlags, MapRequest, Populate};
pub use mremap::Destination;
pub(crate) use pfnmap::PTE_SPECIAL;
pub use pfnmap::{Attempt, Inserted, Mapped};
pub(crate) use zap::ZapDetails;
