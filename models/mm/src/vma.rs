//! `vm_area_struct` and the VMAs of an address space.
//!
//! Rules: host-mm-paths A.2 and B.4. A private file VMA can be in i_mmap and in an anon_vma at
//! once, a shared one only in i_mmap, a purely anonymous one only in an anon_vma. The list, the
//! red-black tree and `mmap_cache` of 2.6.27 are one ordered map here; their lookups are charged,
//! not modelled. Of `vm_flags` those are kept that a path of this model looks at: the rights, VM_SHARED,
//! VM_PFNMAP (as a backing), and [`VmFlags`].

use std::collections::BTreeMap;

use x86::{PAGE_SHIFT, Pgoff, PgoffRange, Rights, Va, VaRange};

use crate::hugetlb::Reserve;
use crate::{AnonVmaId, FileId};

/// A VMA. Numbers are not reused within a run.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct VmaId(pub(crate) u32);

/// MAP_SHARED or MAP_PRIVATE.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Sharing {
    /// Changes are seen by all mappers of the file.
    Shared,
    /// Changes are the mapper's own.
    Private,
}

/// Whether the place of a page in a mapping follows from its place in the file.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Default)]
pub enum Linearity {
    /// It does (`linear_page_index`).
    #[default]
    Linear,
    /// It need not (VM_NONLINEAR): remap_file_pages has put pages elsewhere. Entries without a page say
    /// which file page belongs there, or, empty ones, that it is the linear one. Never taken back.
    Nonlinear,
}

/// What the pages of a mapping come from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Backing {
    /// Zero-filled memory.
    Anonymous,
    /// A file in the page cache.
    File(FileId),
    /// A file in hugetlbfs (VM_HUGETLB). Mapping a [`Backing::File`] of hugetlbfs makes it this.
    Huge(FileId),
    /// Frames inserted by a driver (VM_PFNMAP); they have no `struct page` for this kernel.
    Driver,
}

/// What a program may do with a mapping.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Default)]
pub struct Prot {
    /// PROT_READ (any right implies it on x86).
    pub readable: Allowed,
    /// PROT_WRITE.
    pub writable: Allowed,
    /// PROT_EXEC.
    pub executable: Allowed,
}

/// Whether something is allowed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Default)]
pub enum Allowed {
    /// No.
    #[default]
    No,
    /// Yes.
    Yes,
}

/// Whether a mapping's pages must stay in memory (VM_LOCKED).
///
/// 2.6.27 has neither PG_mlocked nor an unevictable list (both came with 2.6.28): the flag is all there
/// is of mlock, munlock only clears it, and reclaim asks each mapping it meets.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Default)]
pub enum Locked {
    /// They may be reclaimed.
    #[default]
    No,
    /// They stay.
    Yes,
}

/// Whether a mapping grows when the page below it is accessed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Default)]
pub enum Growth {
    /// It stays as it is.
    #[default]
    None,
    /// Downwards (VM_GROWSDOWN): a stack.
    Down,
}

/// Whether a mapping is charged against the memory that may be committed (VM_ACCOUNT). Nothing is
/// charged in this model, but mappings that differ in it are not merged: memory that never was
/// writable stays apart from memory that was.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Default)]
pub enum Accounted {
    /// It is not.
    #[default]
    No,
    /// It is: private and writable now or before.
    Yes,
}

/// `vm_flags`, as far as they are neither rights nor VM_SHARED.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Default)]
pub struct VmFlags {
    /// VM_LOCKED.
    pub locked: Locked,
    /// VM_GROWSDOWN.
    pub growth: Growth,
    /// VM_ACCOUNT.
    pub accounted: Accounted,
}

impl VmFlags {
    /// VM_LOCKED is set.
    #[must_use]
    pub fn is_locked(self) -> bool {
        self.locked == Locked::Yes
    }
}

impl Prot {
    /// PROT_NONE.
    pub const NONE: Prot = Prot {
        readable: Allowed::No,
        writable: Allowed::No,
        executable: Allowed::No,
    };
    /// PROT_READ.
    pub const READ: Prot = Prot {
        readable: Allowed::Yes,
        ..Prot::NONE
    };
    /// PROT_READ | PROT_WRITE.
    pub const READ_WRITE: Prot = Prot {
        writable: Allowed::Yes,
        ..Prot::READ
    };
    /// PROT_READ | PROT_EXEC.
    pub const READ_EXEC: Prot = Prot {
        executable: Allowed::Yes,
        ..Prot::READ
    };
    /// All three.
    pub const ALL: Prot = Prot {
        executable: Allowed::Yes,
        ..Prot::READ_WRITE
    };

    /// Whether stores are allowed.
    #[must_use]
    pub fn can_write(self) -> bool {
        self.writable == Allowed::Yes
    }

    /// Whether loads are allowed.
    #[must_use]
    pub fn can_read(self) -> bool {
        self.readable == Allowed::Yes || self.can_write() || self.executable == Allowed::Yes
    }
}

/// A mapping.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Vma {
    /// Addresses.
    pub range: VaRange,
    /// Rights.
    pub prot: Prot,
    /// Shared or private.
    pub sharing: Sharing,
    /// The other flags.
    pub flags: VmFlags,
    /// Source of pages.
    pub backing: Backing,
    /// `vm_pgoff`: file page of the first page, or address >> PAGE_SHIFT for anonymous memory.
    pub pgoff: Pgoff,
    /// Family for anonymous reverse maps, set at the first anonymous page.
    pub anon_vma: Option<AnonVmaId>,
    /// VM_NONLINEAR.
    pub linearity: Linearity,
    /// `vm_private_data` of a nonlinear mapping: bytes from its start at which the next scan for pages to
    /// reclaim goes on (`try_to_unmap_cluster`).
    pub scan_cursor: u64,
    /// `vm_truncate_count`: done (the file's counter) or resume here (a page aligned address).
    pub truncate_count: u64,
    /// What a private mapping of huge pages may count on (`vm_private_data`).
    pub reserve: Reserve,
}

impl Vma {
    /// File behind it.
    #[must_use]
    pub fn file(&self) -> Option<FileId> {
        match self.backing {
            Backing::File(file) | Backing::Huge(file) => Some(file),
            Backing::Anonymous | Backing::Driver => None,
        }
    }

    /// `linear_page_index`: file page, or index among anonymous pages, of an address.
    #[inline]
    #[must_use]
    pub fn pgoff_of(&self, va: Va) -> Pgoff {
        Pgoff::new(self.pgoff.get() + ((va.get() - self.range.start().get()) >> PAGE_SHIFT))
    }

    /// Whether it is nonlinear.
    #[must_use]
    pub fn is_nonlinear(&self) -> bool {
        self.linearity == Linearity::Nonlinear
    }

    /// File pages it maps, as long as it is linear.
    #[must_use]
    pub fn pgoffs(&self) -> PgoffRange {
        PgoffRange::from_pages(self.pgoff, self.range.pages()).expect("a VMA is not empty")
    }

    /// `vm_pgoff` of a mapping that continues this one.
    #[must_use]
    pub fn pgoff_behind(&self) -> Pgoff {
        Pgoff::new(self.pgoff.get() + self.range.pages())
    }

    /// The part of it that maps some of `pages` (host-mm-paths D.3).
    #[must_use]
    pub fn addresses_of(&self, pages: &PgoffRange) -> Option<VaRange> {
        let part = self.pgoffs().intersect(pages)?;
        let first = self
            .range
            .start()
            .add_pages(part.first().get() - self.pgoff.get());
        let end = self
            .range
            .start()
            .add_pages(part.last().get() - self.pgoff.get() + 1);
        VaRange::new(first, end)
    }

    /// A mapping whose written pages are copied (`is_cow_mapping`: private and VM_MAYWRITE, which every
    /// private mapping is, also one that is read-only now).
    #[must_use]
    pub fn is_cow(&self) -> bool {
        self.sharing == Sharing::Private && self.backing != Backing::Driver
    }

    /// Neither VM_PFNMAP nor VM_RESERVED, which hugetlbfs sets.
    #[must_use]
    pub fn may_merge(&self) -> bool {
        !matches!(self.backing, Backing::Driver | Backing::Huge(_))
    }

    /// Rights of a leaf entry that allows what the mapping allows.
    #[inline]
    #[must_use]
    pub fn rights(&self) -> Rights {
        let mut rights = Rights::USER;
        if self.prot.can_write() {
            rights = rights.with(Rights::WRITE);
        }
        if self.prot.executable == Allowed::Yes {
            rights = rights.with(Rights::EXEC);
        }
        rights
    }
}

/// The VMAs of an address space, ordered and disjoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct VmaTree {
    by_start: BTreeMap<Va, (Va, VmaId)>,
    /// `mmap_cache`: the last VMA found.
    cache: Option<(Va, Va, VmaId)>,
}

impl VmaTree {
    /// The VMA that contains an address.
    #[inline]
    pub fn find(&mut self, va: Va) -> Option<VmaId> {
        if let Some((start, end, id)) = self.cache
            && start <= va
            && va < end
        {
            return Some(id);
        }
        let (&start, &(end, id)) = self.by_start.range(..=va).next_back()?;
        if va >= end {
            return None;
        }
        self.cache = Some((start, end, id));
        Some(id)
    }

    /// Adds a VMA; the place must be free.
    pub fn insert(&mut self, range: VaRange, id: VmaId) {
        debug_assert!(self.overlapping(range).next().is_none(), "overlapping VMAs");
        self.by_start.insert(range.start(), (range.end(), id));
        self.cache = None;
    }

    /// Removes the VMA that starts at an address.
    pub fn remove(&mut self, start: Va) -> Option<VmaId> {
        self.cache = None;
        self.by_start.remove(&start).map(|(_, id)| id)
    }

    /// VMAs that overlap a range, ascending.
    pub fn overlapping(&self, range: VaRange) -> impl Iterator<Item = VmaId> + '_ {
        let before = self.by_start.range(..range.start()).next_back();
        let first = before
            .filter(|(_, (end, _))| *end > range.start())
            .map(|(_, (_, id))| *id);
        first.into_iter().chain(
            self.by_start
                .range(range.start()..range.end())
                .map(|(_, (_, id))| *id),
        )
    }

    /// `find_vma`: the first VMA that ends above an address, whether it contains it or not.
    #[must_use]
    pub fn find_or_next(&self, va: Va) -> Option<VmaId> {
        let before = self.by_start.range(..=va).next_back();
        let containing = before.filter(|(_, (end, _))| *end > va);
        let found = containing.or_else(|| self.by_start.range(va..).next());
        found.map(|(_, (_, id))| *id)
    }

    /// The last VMA that starts below an address (`vm_prev` of one that starts there).
    #[must_use]
    pub fn before(&self, va: Va) -> Option<VmaId> {
        self.by_start.range(..va).next_back().map(|(_, (_, id))| *id)
    }

    /// The first VMA that starts at or above an address (`vm_next` of one that ends there).
    #[must_use]
    pub fn at_or_after(&self, va: Va) -> Option<VmaId> {
        self.by_start.range(va..).next().map(|(_, (_, id))| *id)
    }

    /// End of the last VMA that ends at or before an address (0 if none): `free_pgtables`' floor.
    #[must_use]
    pub fn end_before(&self, va: Va) -> Va {
        // Only the last one that begins before the address can reach beyond it.
        let ends = self.by_start.range(..va).rev().map(|(_, (end, _))| *end);
        ends.take(2).find(|end| *end <= va).unwrap_or(Va::new(0))
    }

    /// Start of the first VMA at or after an address: `free_pgtables`' ceiling.
    #[must_use]
    pub fn start_after(&self, va: Va) -> Option<Va> {
        self.by_start.range(va..).next().map(|(start, _)| *start)
    }

    /// All VMAs, ascending.
    pub fn iter(&self) -> impl Iterator<Item = VmaId> + '_ {
        self.by_start.values().map(|(_, id)| *id)
    }

    /// `map_count`.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_start.len()
    }

    /// Whether there is no VMA.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_start.is_empty()
    }
}

#[cfg(test)]
mod tests;
