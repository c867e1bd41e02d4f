//! Kernel paths, one a file, named as in Linux.

mod exit;
mod fault;
mod fork;
mod free_pgtables;
mod gup;
mod hugetlb;
mod hugetlb_fault;
mod hugetlbfs;
mod madvise;
mod mmap;
mod mprotect;
mod mremap;
mod munmap;
mod pfnmap;
mod truncate;
mod vma_adjust;
mod zap;

pub use gup::Gup;
pub use hugetlb_fault::KERNEL_BUG;
pub use mmap::{MapError, MapRequest};
pub use pfnmap::{Attempt, Inserted, Mapped};
pub(crate) use zap::ZapDetails;
