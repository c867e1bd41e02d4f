//! Page-table entries with the x86-64 bit layout (Intel SDM vol. 3A 4.5, 4-level and 5-level paging).
//!
//! One 64-bit word serves all levels. In an upper-level entry the frame field carries the
//! [`TableId`] of the table below instead of a frame number: page-table pages live in an arena of
//! their own, so that simulated memory and simulated tables cannot be confused.

use std::fmt;
use std::ops::BitOr;

use crate::addr::{PAGE_SHIFT, Pfn};
use crate::page_size::PageSize;
use crate::tables::TableId;

/// What a translation allows, as a small set. Reading is implied.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rights(u8);

impl Rights {
    /// Supervisor read only.
    pub const NONE: Rights = Rights(0);
    /// Stores allowed.
    pub const WRITE: Rights = Rights(1);
    /// User mode allowed.
    pub const USER: Rights = Rights(1 << 1);
    /// Instruction fetch allowed.
    pub const EXEC: Rights = Rights(1 << 2);
    /// Everything: what a walk starts with.
    pub const ALL: Rights = Rights(7);
    /// What a private read-only data page gives a user.
    pub const USER_READ: Rights = Rights::USER;
    /// What a writable data page gives a user.
    pub const USER_WRITE: Rights = Rights(Rights::USER.0 | Rights::WRITE.0);

    /// Whether all rights of `other` are in this set.
    #[inline]
    #[must_use]
    pub const fn contains(self, other: Rights) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both sets together.
    #[inline]
    #[must_use]
    pub const fn with(self, other: Rights) -> Rights {
        Rights(self.0 | other.0)
    }

    /// This set less the other.
    #[inline]
    #[must_use]
    pub const fn without(self, other: Rights) -> Rights {
        Rights(self.0 & !other.0)
    }

    /// What both sets allow.
    #[inline]
    #[must_use]
    pub const fn common(self, other: Rights) -> Rights {
        Rights(self.0 & other.0)
    }

    #[inline]
    pub(crate) const fn bits(self) -> u8 {
        self.0
    }

    // The rights among other bits.
    #[inline]
    pub(crate) const fn from_bits(bits: u8) -> Rights {
        Rights(bits & Rights::ALL.0)
    }

    /// Whether stores are allowed.
    #[inline]
    #[must_use]
    pub const fn writable(self) -> bool {
        self.contains(Rights::WRITE)
    }
}

impl BitOr for Rights {
    type Output = Rights;
    #[inline]
    fn bitor(self, rhs: Rights) -> Rights {
        self.with(rhs)
    }
}

impl fmt::Debug for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letter = |right, c| if self.contains(right) { c } else { '-' };
        write!(
            f,
            "r{}{}{}",
            letter(Rights::WRITE, 'w'),
            letter(Rights::EXEC, 'x'),
            letter(Rights::USER, 'u')
        )
    }
}

/// Bits of an entry other than its frame.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct EntryFlags(u64);

impl EntryFlags {
    /// No bit.
    pub const EMPTY: EntryFlags = EntryFlags(0);
    /// P, bit 0: the entry translates.
    pub const PRESENT: EntryFlags = EntryFlags(1);
    /// R/W, bit 1: stores allowed.
    pub const WRITE: EntryFlags = EntryFlags(1 << 1);
    /// U/S, bit 2: user mode allowed.
    pub const USER: EntryFlags = EntryFlags(1 << 2);
    /// PWT, bit 3: low bit of the memory type's index into the PAT.
    pub const WRITE_THROUGH: EntryFlags = EntryFlags(1 << 3);
    /// PCD, bit 4: middle bit of the memory type's index into the PAT.
    pub const CACHE_DISABLE: EntryFlags = EntryFlags(1 << 4);
    /// A, bit 5: set by the walker.
    pub const ACCESSED: EntryFlags = EntryFlags(1 << 5);
    /// D, bit 6: set by the walker on a store; leaf only.
    pub const DIRTY: EntryFlags = EntryFlags(1 << 6);
    /// PS, bit 7: a leaf in an upper level.
    pub const PAGE_SIZE: EntryFlags = EntryFlags(1 << 7);
    /// PAT of a 4 KiB leaf, bit 7: high bit of the memory type's index into the PAT.
    pub const PAT: EntryFlags = EntryFlags(1 << 7);
    /// PAT of a larger leaf, bit 12.
    pub const PAT_LARGE: EntryFlags = EntryFlags(1 << 12);
    /// G, bit 8: survives a CR3 write.
    pub const GLOBAL: EntryFlags = EntryFlags(1 << 8);
    /// Bit 9, the first of three that the hardware leaves to software.
    pub const AVAILABLE: EntryFlags = EntryFlags(1 << 9);
    /// XD (NX), bit 63: instruction fetch forbidden.
    pub const NO_EXECUTE: EntryFlags = EntryFlags(1 << 63);

    /// Both sets together.
    #[inline]
    #[must_use]
    pub const fn with(self, other: EntryFlags) -> EntryFlags {
        EntryFlags(self.0 | other.0)
    }

    /// The bits.
    #[inline]
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }
}

impl BitOr for EntryFlags {
    type Output = EntryFlags;
    #[inline]
    fn bitor(self, rhs: EntryFlags) -> EntryFlags {
        self.with(rhs)
    }
}

impl fmt::Debug for EntryFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "flags {:#x}", self.0)
    }
}

/// Why an entry that is not present is not empty either: a swap slot, a file offset of a nonlinear
/// mapping, a migration marker. What each number means is the operating system's business.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SoftwareTag(u8);

impl SoftwareTag {
    /// Largest tag: bits 1 to 3 of the entry carry it.
    pub const MAX: u8 = 7;

    /// The tag with this number, if it is in `1..=7`; 0 would look like an empty entry.
    #[must_use]
    pub const fn new(tag: u8) -> Option<Self> {
        if tag >= 1 && tag <= Self::MAX {
            Some(Self(tag))
        } else {
            None
        }
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0
    }
}

impl fmt::Debug for SoftwareTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tag {}", self.0)
    }
}

/// One page-table entry of any level.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Entry(u64);

// Bits 12 to 51 carry the frame (SDM vol. 3A table 4-20).
const FRAME_MASK: u64 = ((1 << 52) - 1) & !((1 << PAGE_SHIFT) - 1);
const SOFTWARE_TAG_SHIFT: u32 = 1;
const SOFTWARE_TAG_MASK: u64 = (SoftwareTag::MAX as u64) << SOFTWARE_TAG_SHIFT;

impl Entry {
    /// The empty entry (`pte_none`).
    pub const NONE: Entry = Entry(0);

    /// Entry with these bits, as `__pte` does.
    #[inline]
    #[must_use]
    pub const fn from_bits(bits: u64) -> Entry {
        Entry(bits)
    }

    /// All 64 bits.
    #[inline]
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// A present 4 KiB leaf, neither accessed nor dirty.
    #[inline]
    #[must_use]
    pub const fn leaf(pfn: Pfn, rights: Rights) -> Entry {
        let mut flags = EntryFlags::PRESENT;
        if rights.contains(Rights::WRITE) {
            flags = flags.with(EntryFlags::WRITE);
        }
        if rights.contains(Rights::USER) {
            flags = flags.with(EntryFlags::USER);
        }
        if !rights.contains(Rights::EXEC) {
            flags = flags.with(EntryFlags::NO_EXECUTE);
        }
        Entry((pfn.get() as u64) << PAGE_SHIFT | flags.0)
    }

    /// A present leaf of this size, neither accessed nor dirty. The frame is the first of the page.
    #[inline]
    #[must_use]
    pub const fn leaf_of(size: PageSize, pfn: Pfn, rights: Rights) -> Entry {
        let leaf = Entry::leaf(pfn, rights);
        match size {
            PageSize::Size4K => leaf,
            PageSize::Size2M | PageSize::Size1G => leaf.with(EntryFlags::PAGE_SIZE),
        }
    }

    /// P and PS in an upper level: the entry maps a large page. In a PTE the same bit is PAT.
    #[inline]
    #[must_use]
    pub const fn is_large_leaf(self) -> bool {
        self.has(EntryFlags::PRESENT.with(EntryFlags::PAGE_SIZE))
    }

    /// First frame of a leaf of this size.
    #[inline]
    #[must_use]
    pub const fn frame(self, size: PageSize) -> Pfn {
        Pfn::new(self.pfn().get() & !(size.base_pages() as u32 - 1))
    }

    /// Index of the memory type in the PAT, 0 to 7: PAT, PCD, PWT (SDM vol. 3A 4.9.2).
    #[inline]
    #[must_use]
    pub const fn pat_index(self, size: PageSize) -> u8 {
        let pat = match size {
            PageSize::Size4K => EntryFlags::PAT,
            PageSize::Size2M | PageSize::Size1G => EntryFlags::PAT_LARGE,
        };
        (self.has(pat) as u8) << 2
            | (self.has(EntryFlags::CACHE_DISABLE) as u8) << 1
            | self.has(EntryFlags::WRITE_THROUGH) as u8
    }

    /// Whether a leaf of this size has a frame bit set that must be zero: bits 13 up to the size's
    /// alignment (SDM vol. 3A tables 4-16 and 4-18).
    #[inline]
    #[must_use]
    pub const fn has_reserved_bits(self, size: PageSize) -> bool {
        let alignment = size.bytes() - 1;
        self.0 & alignment & FRAME_MASK & !EntryFlags::PAT_LARGE.0 != 0
    }

    /// An upper-level entry pointing at a table: writable, user, accessed, as Linux's `_PAGE_TABLE`.
    #[inline]
    #[must_use]
    pub const fn table(id: TableId) -> Entry {
        let flags = EntryFlags::PRESENT
            .with(EntryFlags::WRITE)
            .with(EntryFlags::USER)
            .with(EntryFlags::ACCESSED);
        Entry((id.get() as u64) << PAGE_SHIFT | flags.0)
    }

    /// A non-present entry carrying a software value of up to 40 bits.
    #[inline]
    #[must_use]
    pub const fn software(tag: SoftwareTag, payload: u64) -> Entry {
        let tag = (tag.0 as u64) << SOFTWARE_TAG_SHIFT;
        Entry((payload << PAGE_SHIFT) & FRAME_MASK | tag)
    }

    /// Tag and payload of a non-present, non-empty entry.
    #[inline]
    #[must_use]
    pub const fn as_software(self) -> Option<(SoftwareTag, u64)> {
        if self.present() {
            return None;
        }
        match SoftwareTag::new(((self.0 & SOFTWARE_TAG_MASK) >> SOFTWARE_TAG_SHIFT) as u8) {
            Some(tag) => Some((tag, (self.0 & FRAME_MASK) >> PAGE_SHIFT)),
            None => None,
        }
    }

    /// P: hardware may use the entry.
    #[inline]
    #[must_use]
    pub const fn present(self) -> bool {
        self.has(EntryFlags::PRESENT)
    }

    /// The entry as PROT_NONE leaves it: the hardware sees nothing, software still knows the page.
    /// Linux keeps `_PAGE_PROTNONE` in the bit that means global in a present entry
    /// (include/asm-x86/pgtable.h, 2.6.27).
    #[inline]
    #[must_use]
    pub const fn with_no_access(self) -> Entry {
        self.without(EntryFlags::PRESENT).with(EntryFlags::GLOBAL)
    }

    /// `pte_present`: a page is mapped here, whether or not the hardware may use it.
    #[inline]
    #[must_use]
    pub const fn maps_page(self) -> bool {
        self.present() || self.has(EntryFlags::GLOBAL)
    }

    /// The entry is empty (`pte_none`): not present and no software value either.
    #[inline]
    #[must_use]
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }

    /// R/W: stores allowed.
    #[inline]
    #[must_use]
    pub const fn writable(self) -> bool {
        self.has(EntryFlags::WRITE)
    }

    /// A: used since last cleared.
    #[inline]
    #[must_use]
    pub const fn accessed(self) -> bool {
        self.has(EntryFlags::ACCESSED)
    }

    /// D: written since last cleared.
    #[inline]
    #[must_use]
    pub const fn dirty(self) -> bool {
        self.has(EntryFlags::DIRTY)
    }

    /// Whether all these bits are set.
    #[inline]
    #[must_use]
    pub const fn has(self, flags: EntryFlags) -> bool {
        self.0 & flags.0 == flags.0
    }

    /// The frame a leaf maps; meaningless for other entries.
    #[inline]
    #[must_use]
    pub const fn pfn(self) -> Pfn {
        Pfn::new(((self.0 & FRAME_MASK) >> PAGE_SHIFT) as u32)
    }

    /// The table an upper-level entry points at, if it is present and no large leaf.
    #[inline]
    #[must_use]
    pub const fn table_id(self) -> Option<TableId> {
        if self.present() && !self.has(EntryFlags::PAGE_SIZE) {
            Some(TableId::new(((self.0 & FRAME_MASK) >> PAGE_SHIFT) as u32))
        } else {
            None
        }
    }

    /// What a present entry allows.
    #[inline]
    #[must_use]
    pub const fn rights(self) -> Rights {
        let mut rights = Rights::NONE;
        if self.writable() {
            rights = rights.with(Rights::WRITE);
        }
        if self.has(EntryFlags::USER) {
            rights = rights.with(Rights::USER);
        }
        if !self.has(EntryFlags::NO_EXECUTE) {
            rights = rights.with(Rights::EXEC);
        }
        rights
    }

    /// The entry with these bits set.
    #[inline]
    #[must_use]
    pub const fn with(self, flags: EntryFlags) -> Entry {
        Entry(self.0 | flags.0)
    }

    /// The entry with these bits clear.
    #[inline]
    #[must_use]
    pub const fn without(self, flags: EntryFlags) -> Entry {
        Entry(self.0 & !flags.0)
    }

    /// The entry with R/W set (`pte_mkwrite`).
    #[inline]
    #[must_use]
    pub const fn with_write(self) -> Entry {
        self.with(EntryFlags::WRITE)
    }

    /// The entry with R/W clear (`pte_wrprotect`).
    #[inline]
    #[must_use]
    pub const fn without_write(self) -> Entry {
        self.without(EntryFlags::WRITE)
    }

    /// The entry with A set (`pte_mkyoung`).
    #[inline]
    #[must_use]
    pub const fn with_accessed(self) -> Entry {
        self.with(EntryFlags::ACCESSED)
    }

    /// The entry with A clear (`pte_mkold`).
    #[inline]
    #[must_use]
    pub const fn without_accessed(self) -> Entry {
        self.without(EntryFlags::ACCESSED)
    }

    /// The entry with D set (`pte_mkdirty`).
    #[inline]
    #[must_use]
    pub const fn with_dirty(self) -> Entry {
        self.with(EntryFlags::DIRTY)
    }

    /// The entry with D clear (`pte_mkclean`).
    #[inline]
    #[must_use]
    pub const fn without_dirty(self) -> Entry {
        self.without(EntryFlags::DIRTY)
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_none() {
            return f.write_str("entry none");
        }
        if let Some((tag, payload)) = self.as_software() {
            return write!(f, "entry not present, {tag:?} {payload:#x}");
        }
        write!(f, "entry frame {:#x} {:?}", self.pfn().get(), self.rights())?;
        if self.accessed() {
            f.write_str(" accessed")?;
        }
        if self.dirty() {
            f.write_str(" dirty")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaf_keeps_frame_and_rights() {
        let entry = Entry::leaf(Pfn::new(u32::MAX), Rights::USER_WRITE);
        assert!(entry.present() && entry.writable() && !entry.accessed() && !entry.dirty());
        assert_eq!(entry.pfn(), Pfn::new(u32::MAX));
        assert_eq!(entry.rights(), Rights::USER | Rights::WRITE);
        assert_eq!(entry.without_write().rights(), Rights::USER);
        assert!(entry.with_accessed().with_dirty().dirty());
    }

    #[test]
    fn software_entries_are_neither_present_nor_none() {
        let tag = SoftwareTag::new(3).unwrap();
        let entry = Entry::software(tag, 0);
        assert!(!entry.present() && !entry.is_none());
        let entry = Entry::software(tag, 0x1234);
        assert_eq!(entry.as_software(), Some((tag, 0x1234)));
        assert_eq!(entry.table_id(), None);
        assert!(SoftwareTag::new(0).is_none());
    }
}
