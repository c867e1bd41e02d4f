//! What the kernel knows of a page frame: `struct page`, in 36 bytes.

use x86::{Generation, Pgoff};

use super::Zone;
use super::lists::NIL;
use crate::{AnonVmaId, FileId};

/// What a frame holds (`page->mapping`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub enum Owner {
    /// Nothing, or kernel data such as a page table.
    #[default]
    None,
    /// Anonymous memory of this family of VMAs.
    Anon(AnonVmaId),
    /// A page of this file.
    File(FileId),
}

/// State bits of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub struct PageFlags(u16);

impl PageFlags {
    /// PG_dirty.
    pub const DIRTY: PageFlags = PageFlags(1);
    /// PG_referenced.
    pub const REFERENCED: PageFlags = PageFlags(1 << 1);
    /// PG_lru: on a list of its zone (not in a pagevec on its way there).
    pub const LRU: PageFlags = PageFlags(1 << 2);
    /// In the page cache.
    pub const CACHED: PageFlags = PageFlags(1 << 3);
    /// PG_active: belongs on the active list.
    pub const ACTIVE: PageFlags = PageFlags(1 << 4);
    /// PG_writeback: on its way to a device.
    pub const WRITEBACK: PageFlags = PageFlags(1 << 5);
    /// PG_swapcache.
    pub const SWAPCACHE: PageFlags = PageFlags(1 << 6);
    /// PG_reclaim: to be moved to the end of the inactive list when it is written.
    pub const RECLAIM: PageFlags = PageFlags(1 << 7);
    /// Part of a huge page of the pool (PG_compound): the first of its frames carries the counts.
    pub(crate) const HUGE: PageFlags = PageFlags(1 << 8);
    /// A CPU could store to the page through a translation since it was allocated, or last cleaned: whoever
    /// clears PG_dirty and the entries' dirty bits (writeback) resets it. No flag of the kernel's.
    pub(crate) const STORED: PageFlags = PageFlags(1 << 9);
    /// PG_uptodate is clear: what it should hold must be read from the disk first.
    pub const NOT_UPTODATE: PageFlags = PageFlags(1 << 10);

    /// Sets a bit.
    pub fn set(&mut self, bit: PageFlags) {
        self.0 |= bit.0;
    }

    /// Clears a bit.
    pub fn clear(&mut self, bit: PageFlags) {
        self.0 &= !bit.0;
    }

    /// Clears a bit and says whether it was set (`TestClearPage...`).
    pub fn test_and_clear(&mut self, bit: PageFlags) -> bool {
        let was = self.has(bit);
        self.clear(bit);
        was
    }

    /// Whether a bit is set.
    #[must_use]
    pub fn has(self, bit: PageFlags) -> bool {
        self.0 & bit.0 != 0
    }
}

/// A page frame.
#[derive(Clone, Debug, Hash)]
pub struct Frame {
    /// `_count`.
    pub count: u32,
    /// Number of mapping ptes.
    pub mapcount: u32,
    /// Grows when the frame is freed.
    pub generation: Generation,
    /// Slots of CPU TLBs that translate to it.
    pub tlb_slots: u32,
    // Kind in the two highest bits, number of the anon_vma or file below.
    owner: u32,
    index_low: u32,
    index_high: u8,
    pub(super) zone: Zone,
    /// `page->flags`.
    pub flags: PageFlags,
    // Neighbours on an LRU list; of a free frame, `next` is the next free one.
    pub(super) prev: u32,
    pub(super) next: u32,
}

// 1 TiB of 4 KiB pages has to fit a machine of 24 GiB, page tables included.
const _: () = assert!(size_of::<Frame>() == 36);

/// Bits of [`Frame::owner`] that say which kind of owner it is.
const OWNER_SHIFT: u32 = 30;
const OWNER_ANON: u32 = 1 << OWNER_SHIFT;
const OWNER_FILE: u32 = 2 << OWNER_SHIFT;

impl Frame {
    pub(super) fn new(zone: Zone) -> Frame {
        Frame {
            count: 0,
            mapcount: 0,
            generation: Generation::default(),
            tlb_slots: 0,
            owner: 0,
            index_low: 0,
            index_high: 0,
            zone,
            flags: PageFlags::default(),
            prev: NIL,
            next: NIL,
        }
    }

    /// `page->mapping`.
    #[inline]
    #[must_use]
    pub fn owner(&self) -> Owner {
        let number = self.owner & (OWNER_ANON - 1);
        match self.owner & !(OWNER_ANON - 1) {
            OWNER_ANON => Owner::Anon(AnonVmaId(number)),
            OWNER_FILE => Owner::File(FileId(number)),
            _ => Owner::None,
        }
    }

    /// Sets `page->mapping`.
    #[inline]
    pub fn set_owner(&mut self, owner: Owner) {
        let (kind, number) = match owner {
            Owner::None => (0, 0),
            Owner::Anon(anon) => (OWNER_ANON, anon.0),
            Owner::File(file) => (OWNER_FILE, file.0),
        };
        assert!(
            number < OWNER_ANON,
            "a world has fewer than 2^30 files and anon_vmas"
        );
        self.owner = kind | number;
    }

    /// `PageAnon`.
    #[inline]
    #[must_use]
    pub fn is_anon(&self) -> bool {
        self.owner & !(OWNER_ANON - 1) == OWNER_ANON
    }

    /// `page->index`.
    #[inline]
    #[must_use]
    pub fn index(&self) -> Pgoff {
        Pgoff::new(u64::from(self.index_high) << u32::BITS | u64::from(self.index_low))
    }

    /// Sets `page->index`, of at most 40 bits: what an entry of a nonlinear mapping can hold, and
    /// more than the user half of an address space has pages.
    #[inline]
    pub fn set_index(&mut self, index: Pgoff) {
        self.index_low = index.get() as u32;
        let high = index.get() >> u32::BITS;
        debug_assert!(high <= u64::from(u8::MAX), "an index has at most 40 bits");
        self.index_high = high as u8;
    }

    /// Zone it belongs to.
    #[inline]
    #[must_use]
    pub fn zone(&self) -> Zone {
        self.zone
    }
}
