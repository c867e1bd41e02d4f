//! Page frames: `struct page` with its reference and map counts, and what the coherence oracle
//! remembers of each frame.
//!
//! Frames of all kernels of a world are numbered together, as on one NUMAlink machine, so that an
//! XPMEM importer can map a frame of another partition; each kernel allocates from a zone of its
//! own. Rules of the counts: host-mm-paths A.5 (2.6.27 columns). `_count` 0 means free; +1 for the
//! page cache, each mapping pte, each reference of get_user_pages. `_mapcount` is stored as the
//! number of mapping ptes (the kernel's value plus one).
//!
//! The oracle: a frame's *generation* grows when it is freed. `tlb_slots` counts slots of CPU TLBs
//! that translate to the frame, `usable` counts secondary translations to it that hold no
//! reference. Freeing a frame that can still be reached by either is a violation when it happens,
//! using a stale one when it is used. Deviation from a real allocator: freed frames are reused last
//! in, first out, like the hot end of the per-CPU lists, and the buddy system is not modelled; no
//! count depends on frame numbers.

use x86::{Generation, Pfn, Pgoff, Slots};

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
pub struct PageFlags(u8);

impl PageFlags {
    /// PG_dirty.
    pub const DIRTY: PageFlags = PageFlags(1);
    /// PG_referenced.
    pub const REFERENCED: PageFlags = PageFlags(1 << 1);
    /// PG_lru (or waiting in a pagevec for it).
    pub const LRU: PageFlags = PageFlags(1 << 2);
    /// In the page cache.
    pub const CACHED: PageFlags = PageFlags(1 << 3);

    /// Sets a bit.
    pub fn set(&mut self, bit: PageFlags) {
        self.0 |= bit.0;
    }

    /// Clears a bit.
    pub fn clear(&mut self, bit: PageFlags) {
        self.0 &= !bit.0;
    }

    /// Whether a bit is set.
    #[must_use]
    pub fn has(self, bit: PageFlags) -> bool {
        self.0 & bit.0 != 0
    }
}

/// A page frame.
#[derive(Clone, Debug, Default, Hash)]
pub struct Frame {
    /// `_count`.
    pub count: u32,
    /// Number of mapping ptes.
    pub mapcount: u32,
    /// Grows when the frame is freed.
    pub generation: Generation,
    /// Slots of CPU TLBs that translate to it.
    pub tlb_slots: u32,
    /// Secondary translations to it that hold no reference and can still be used.
    pub usable: u32,
    /// References held by secondary MMUs.
    pub pins: u32,
    /// Whether a CPU could store to it through a translation since it was allocated, or last cleaned:
    /// whoever clears PG_dirty and the entries' dirty bits (writeback) resets it.
    pub stored: bool,
    /// `page->index`.
    pub index: Pgoff,
    /// `page->mapping`.
    pub owner: Owner,
    /// `page->flags`.
    pub flags: PageFlags,
    /// Zone it belongs to.
    pub zone: Zone,
}

/// A kernel's share of memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub struct Zone(pub u8);

#[derive(Clone, Debug, Default)]
struct ZoneState {
    free: Vec<Pfn>,
    limit: u64,
    in_use: u64,
    most_in_use: u64,
    allocated: u64,
    freed: u64,
}

/// The kernel has no frame left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfMemory;

/// All frames of a world.
#[derive(Clone, Debug, Default)]
pub struct Frames {
    frames: Vec<Frame>,
    zones: Vec<ZoneState>,
    pinned: u64,
    most_pinned: u64,
}

impl Frames {
    /// Adds a zone of `pages` frames.
    pub fn add_zone(&mut self, pages: u64) -> Zone {
        self.zones.push(ZoneState {
            limit: pages,
            ..ZoneState::default()
        });
        Zone((self.zones.len() - 1) as u8)
    }

    /// Takes a frame with one reference.
    ///
    /// # Errors
    /// When the zone is used up.
    #[inline]
    pub fn alloc(&mut self, zone: Zone) -> Result<Pfn, OutOfMemory> {
        let state = &mut self.zones[zone.0 as usize];
        let pfn = match state.free.pop() {
            Some(pfn) => pfn,
            None if state.in_use >= state.limit => return Err(OutOfMemory),
            None => {
                let pfn = Pfn::new(u32::try_from(self.frames.len()).map_err(|_| OutOfMemory)?);
                self.frames.push(Frame {
                    zone,
                    ..Frame::default()
                });
                pfn
            }
        };
        state.in_use += 1;
        state.allocated += 1;
        state.most_in_use = state.most_in_use.max(state.in_use);
        self.frames[pfn.index()].count = 1;
        Ok(pfn)
    }

    /// Returns a frame whose count has reached zero. The caller has asked the oracle.
    #[inline]
    pub fn free(&mut self, pfn: Pfn) {
        let frame = &mut self.frames[pfn.index()];
        debug_assert_eq!(frame.count, 0, "{pfn} freed with references");
        frame.generation = frame.generation.next();
        frame.owner = Owner::None;
        frame.flags = PageFlags::default();
        frame.stored = false;
        let zone = &mut self.zones[frame.zone.0 as usize];
        zone.in_use -= 1;
        zone.freed += 1;
        zone.free.push(pfn);
    }

    /// A frame.
    #[inline]
    #[must_use]
    pub fn get(&self, pfn: Pfn) -> &Frame {
        &self.frames[pfn.index()]
    }

    /// A frame, to be changed.
    #[inline]
    #[must_use]
    pub fn get_mut(&mut self, pfn: Pfn) -> &mut Frame {
        &mut self.frames[pfn.index()]
    }

    /// `get_page`.
    #[inline]
    pub fn get_page(&mut self, pfn: Pfn) {
        let frame = &mut self.frames[pfn.index()];
        assert!(
            frame.count > 0,
            "{pfn} is free: a reference can only be taken to a page in use"
        );
        frame.count += 1;
    }

    /// A reference of a secondary MMU: counts as a pin.
    pub fn pin(&mut self, pfn: Pfn) {
        let frame = &mut self.frames[pfn.index()];
        if frame.pins == 0 {
            self.pinned += 1;
            self.most_pinned = self.most_pinned.max(self.pinned);
        }
        frame.pins += 1;
    }

    /// A reference of a secondary MMU is about to be dropped.
    pub fn unpin(&mut self, pfn: Pfn) {
        let frame = &mut self.frames[pfn.index()];
        frame.pins -= 1;
        if frame.pins == 0 {
            self.pinned -= 1;
        }
    }

    /// Maxima count from now on.
    pub(crate) fn start_measuring(&mut self) {
        self.most_pinned = self.pinned;
        for zone in &mut self.zones {
            zone.most_in_use = zone.in_use;
            (zone.allocated, zone.freed) = (0, 0);
        }
    }

    /// Pages pinned now and at most.
    #[must_use]
    pub fn pinned(&self) -> (u64, u64) {
        (self.pinned, self.most_pinned)
    }

    /// Frames of a zone in use now and at most.
    #[must_use]
    pub fn in_use(&self, zone: Zone) -> (u64, u64) {
        let state = &self.zones[zone.0 as usize];
        (state.in_use, state.most_in_use)
    }

    /// Frames of a zone taken and returned so far.
    #[must_use]
    pub fn turnover(&self, zone: Zone) -> (u64, u64) {
        let state = &self.zones[zone.0 as usize];
        (state.allocated, state.freed)
    }

    /// All frames with their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (Pfn, &Frame)> {
        self.frames
            .iter()
            .enumerate()
            .map(|(i, f)| (Pfn::new(i as u32), f))
    }
}

/// CPU TLBs tell of each slot that translates to a frame.
impl Slots for Frames {
    #[inline]
    fn gained(&mut self, pfn: Pfn) {
        self.get_mut(pfn).tlb_slots += 1;
    }
    #[inline]
    fn dropped(&mut self, pfn: Pfn) {
        self.get_mut(pfn).tlb_slots -= 1;
    }
}
