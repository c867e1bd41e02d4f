//! Paging-structure caches: upper-level entries a walk can start from.

use serde::{Deserialize, Serialize};

use crate::tlb::Shape;

/// One array of upper-level entries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PscBank {
    /// Slots, ways, replacement, index function.
    pub shape: Shape,
    /// Levels whose entries its slots can hold.
    pub holds: Vec<PscLevel>,
    /// Rows of the hardware reference, or other origin.
    pub source: String,
    /// How far to trust it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
}

/// A level of which a paging-structure cache keeps entries, by Intel's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PscLevel {
    /// Entries that point at page tables, 2 MiB each.
    Pde,
    /// Entries that point at page directories, 1 GiB each.
    Pdpte,
    /// Entries that point at page-directory-pointer tables, 512 GiB each.
    Pml4e,
    /// Entries that point at PML4 tables, 256 TiB each; five levels only.
    Pml5e,
}
