//! What a TLB slot holds, and the tag it is found by.

use crate::addr::{Pfn, Vpn};
use crate::entry::{Entry, EntryFlags, Rights};
use crate::page_size::PageSize;

/// Tag distinguishing address spaces in a TLB. One number stands for all that a processor compares:
/// PCID, VPID or SVM ASID, and root of the second dimension.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Asid(u16);

impl Asid {
    /// The tag all address spaces share on machines without tags.
    pub const UNTAGGED: Asid = Asid(0);

    /// The tag with this number.
    #[inline]
    #[must_use]
    pub const fn new(number: u16) -> Self {
        Asid(number)
    }

    /// The number.
    #[inline]
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }
}

/// The tags a look-up goes by: that of the address space, and that of the global pages it sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Context {
    /// Tag of the address space.
    pub own: Asid,
    /// Tag of global pages.
    pub global: Asid,
}

impl Context {
    /// The context of machines, or models, that use no tags.
    pub const UNTAGGED: Context = Context {
        own: Asid::UNTAGGED,
        global: Asid(u16::MAX),
    };

    /// The tag under which an entry is kept.
    #[inline]
    #[must_use]
    pub const fn tag_of(self, entry: &TlbEntry) -> Asid {
        if entry.is_global() { self.global } else { self.own }
    }
}

/// How often a frame had been freed when a translation to it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(u32);

impl Generation {
    /// Never freed.
    pub const FIRST: Generation = Generation(0);

    /// The generation with this number.
    #[inline]
    #[must_use]
    pub const fn new(number: u32) -> Self {
        Generation(number)
    }

    /// The number.
    #[inline]
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The generation after one more free; wraps after 2^32.
    #[inline]
    #[must_use]
    pub const fn next(self) -> Self {
        Generation(self.0.wrapping_add(1))
    }
}

/// What a TLB slot knows of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TlbEntry {
    /// The frame; of a page larger than 4 KiB, the first.
    pub pfn: Pfn,
    /// The frame's generation when the slot was filled.
    pub generation: Generation,
    bits: u8,
    size: PageSize,
    leaf: PageSize,
}

const DIRTY: u8 = 1 << 3;
const GLOBAL: u8 = 1 << 4;

impl TlbEntry {
    /// The translation a leaf of this size gives.
    #[inline]
    #[must_use]
    pub const fn of_leaf(leaf: Entry, size: PageSize, generation: Generation) -> Self {
        let mut entry = TlbEntry::new(leaf.frame(size), leaf.rights(), generation);
        if leaf.dirty() {
            entry.bits |= DIRTY;
        }
        if leaf.has(EntryFlags::GLOBAL) {
            entry.bits |= GLOBAL;
        }
        entry.size = size;
        entry.leaf = size;
        entry
    }

    /// The translation of a clean 4 KiB page that is not global.
    #[inline]
    #[must_use]
    pub const fn new(pfn: Pfn, rights: Rights, generation: Generation) -> Self {
        TlbEntry {
            pfn,
            generation,
            bits: rights.bits(),
            size: PageSize::Size4K,
            leaf: PageSize::Size4K,
        }
    }

    /// The same with the rights of a walk, which are those of all levels together.
    #[inline]
    #[must_use]
    pub const fn with_rights(self, rights: Rights) -> Self {
        let bits = self.bits & (DIRTY | GLOBAL) | rights.bits();
        TlbEntry { bits, ..self }
    }

    /// The same, made when its frame had been freed so often.
    #[inline]
    #[must_use]
    pub const fn with_generation(self, generation: Generation) -> Self {
        TlbEntry { generation, ..self }
    }

    /// The same, dirty.
    #[inline]
    #[must_use]
    pub const fn with_dirty(self) -> Self {
        let bits = self.bits | DIRTY;
        TlbEntry { bits, ..self }
    }

    /// What the translation allows.
    #[inline]
    #[must_use]
    pub const fn rights(&self) -> Rights {
        Rights::from_bits(self.bits)
    }

    /// D was set when the slot was filled, so a store needs no walk to set it (reference row R17).
    #[inline]
    #[must_use]
    pub const fn dirty(&self) -> bool {
        self.bits & DIRTY != 0
    }

    /// G was set and counted when the slot was filled.
    #[inline]
    #[must_use]
    pub const fn is_global(&self) -> bool {
        self.bits & GLOBAL != 0
    }

    /// The same, not global: what CR4.PGE = 0 makes of a leaf.
    #[inline]
    #[must_use]
    pub const fn without_global(self) -> Self {
        let bits = self.bits & !GLOBAL;
        TlbEntry { bits, ..self }
    }

    /// Size of the page the slot translates.
    #[inline]
    #[must_use]
    pub const fn size(&self) -> PageSize {
        self.size
    }

    /// Size of the page that the page tables map; larger than [`TlbEntry::size`] for a fragment.
    #[inline]
    #[must_use]
    pub const fn leaf_size(&self) -> PageSize {
        self.leaf
    }

    #[inline]
    pub(crate) const fn is_fragment(&self) -> bool {
        self.leaf as u8 > self.size as u8
    }

    /// Frame of a page inside the page translated.
    #[inline]
    #[must_use]
    pub const fn frame_of(&self, vpn: Vpn) -> Pfn {
        let inside = vpn.get() & (self.size.base_pages() - 1);
        Pfn::new(self.pfn.get() + inside as u32)
    }

    /// What this translation of a guest's page at `vpn` becomes through the second dimension's
    /// translation of its guest-physical page: the smaller of the pages, with the rights of both.
    /// Global and dirty are the guest's; a clean page of the second dimension must be written there.
    #[must_use]
    pub(crate) const fn through(self, host: &TlbEntry, vpn: Vpn, gpn: Vpn) -> Self {
        let size = if (self.size as u8) < host.size as u8 {
            self.size
        } else {
            host.size
        };
        let inside = vpn.get() & (size.base_pages() - 1);
        let rights = self.rights().common(host.rights()).bits();
        let dirty = self.bits & host.bits & DIRTY;
        TlbEntry {
            pfn: Pfn::new(host.frame_of(gpn).get() - inside as u32),
            generation: host.generation,
            bits: rights | dirty | self.bits & GLOBAL,
            size,
            leaf: self.leaf,
        }
    }

    // What a slot for pages of `size` keeps of it for the page at `vpn`.
    #[inline]
    pub(crate) const fn fragment(self, vpn: Vpn, size: PageSize) -> Self {
        let inside = size.floor(vpn).get() & (self.size.base_pages() - 1);
        TlbEntry {
            pfn: Pfn::new(self.pfn.get() + inside as u32),
            size,
            ..self
        }
    }

    // Of this size, not global and no fragment.
    #[inline]
    pub(crate) const fn is_plain(&self, size: PageSize) -> bool {
        self.size as u8 == size as u8 && self.leaf as u8 == size as u8 && self.bits & GLOBAL == 0
    }

    // Size, fragment and global bit are the same, so a level that counts these need not count.
    #[inline]
    pub(crate) const fn is_counted_like(&self, other: &TlbEntry) -> bool {
        (self.bits ^ other.bits) & GLOBAL == 0
            && self.size as u8 == other.size as u8
            && self.leaf as u8 == other.leaf as u8
    }

    #[inline]
    pub(crate) const fn satisfies(&self, check: Check) -> bool {
        self.bits & check.mask == check.value
    }
}

impl Default for TlbEntry {
    fn default() -> Self {
        TlbEntry::new(Pfn::new(0), Rights::NONE, Generation::FIRST)
    }
}

/// What the bits of an entry must be for an access to go ahead without a walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Check {
    mask: u8,
    value: u8,
}

impl Check {
    pub(crate) const ANYTHING: Check = Check { mask: 0, value: 0 };

    pub(crate) const fn needing(self, rights: Rights) -> Self {
        Check {
            mask: self.mask | rights.bits(),
            value: self.value | rights.bits(),
        }
    }

    pub(crate) const fn refusing(self, rights: Rights) -> Self {
        let mask = self.mask | rights.bits();
        Check { mask, ..self }
    }

    #[inline]
    pub(crate) const fn allows(self, rights: Rights) -> bool {
        rights.bits() & self.mask == self.value
    }

    pub(crate) const fn needing_dirty(self) -> Self {
        Check {
            mask: self.mask | DIRTY,
            value: self.value | DIRTY,
        }
    }
}

/// Address space, page size and page in one word: `asid << 48 | (size + 1) << 46 | mark << 45 | vpn`,
/// never zero.
/// Page numbers have 45 bits (57-bit addresses); of a large page it is the first.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tag(u64);

const ASID_SHIFT: u32 = 48;
const SIZE_SHIFT: u32 = 46;
const PAGE_MASK: u64 = (1 << PAGE_BITS) - 1;
const PAGE_BITS: u32 = 45;
/// Set in tags of fetches where data and fetches have banks of their own, so that both may keep a page.
pub(crate) const FETCH_MARK: u64 = 1 << PAGE_BITS;

impl Tag {
    #[inline]
    pub(crate) const fn new(asid: Asid, size: PageSize, vpn: Vpn) -> Tag {
        let page = size.floor(vpn).get() & PAGE_MASK;
        Tag((asid.0 as u64) << ASID_SHIFT | (size as u64 + 1) << SIZE_SHIFT | page)
    }

    #[inline]
    pub(crate) const fn asid_bits(asid: Asid) -> u64 {
        (asid.0 as u64) << ASID_SHIFT
    }

    #[inline]
    pub(crate) const fn from_bits(bits: u64) -> Tag {
        Tag(bits)
    }

    #[inline]
    pub(crate) const fn bits(self) -> u64 {
        self.0
    }

    #[inline]
    pub(crate) const fn asid(self) -> Asid {
        Asid((self.0 >> ASID_SHIFT) as u16)
    }

    #[inline]
    pub(crate) const fn vpn(self) -> Vpn {
        Vpn::new(self.0 & PAGE_MASK)
    }
}

/// A page number as tags keep it: without the copies of bit 56 of the address.
#[inline]
pub(crate) const fn significant(vpn: Vpn) -> Vpn {
    Vpn::new(vpn.get() & PAGE_MASK)
}
