//! Kernel paths, one a file, named as in Linux.

mod exit;
mod fault;
mod fork;
mod free_pgtables;
mod fremap;
mod gup;
mod kswapd;
mod madvise;
mod madvise_remove;
mod migrate;
mod mmap;
mod mprotect;
mod mremap;
mod munmap;
mod nonlinear;
mod page_mkwrite;
mod pfnmap;
mod shrink_list;
mod shrink_page_list;
mod swapin;
mod truncate;
mod vma_adjust;
mod vmscan;
mod writeback;
mod zap;
mod zap_nonpresent;

pub use fremap::{Prefault, RemapError, RemapRequest};
pub use gup::Gup;
pub use madvise_remove::RemoveError;
pub use migrate::{Migrated, Which};
pub use mmap::{MapError, MapRequest};
pub use pfnmap::{Attempt, Inserted, Mapped};
pub(crate) use zap::ZapDetails;
pub(crate) use zap_nonpresent::NonlinearZap;
pub(crate) use vmscan::ReclaimState;
