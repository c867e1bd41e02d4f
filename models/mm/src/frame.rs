//! Page frames: `struct page` with its reference and map counts, and what the coherence oracle
//! remembers of each frame.
//!
//! Frames of all kernels of a world are numbered together, as on one NUMAlink machine, so that an
//! XPMEM importer can map a frame of another partition; each kernel allocates from a zone of its
//! own. Rules of the counts: host-mm-paths A.5 (2.6.27 columns). `_count` 0 means free; +1 for the
//! page cache or the swap cache, each mapping pte, each reference of get_user_pages, each pagevec and
//! whoever isolated it from the LRU. `_mapcount` is stored as the number of mapping ptes (the kernel's
//! value plus one).
//!
//! The oracle: a frame's *generation* grows when it is freed. `tlb_slots` counts slots of CPU TLBs
//! that translate to the frame; beside the frames, only where secondary MMUs map any, stand the
//! translations that hold no reference (`usable`) and the references they hold (`pins`). Freeing a
//! frame that can still be reached is a violation when it happens, using a stale one when it is used.
//!
//! A frame is 36 bytes: a run can hold hundreds of millions. Its place on an LRU list, or among the
//! free frames, is a pair of frame numbers in it. Deviation from a real allocator: freed frames are
//! reused last in, first out, like the hot end of the per-CPU lists, and the buddy system is not
//! modelled; no count depends on frame numbers.

use x86::{Pfn, Slots};

use self::lists::{List, NIL};
use crate::hugetlb::{HPAGE_PAGES, HugePool};

mod descriptor;
mod lists;

pub use descriptor::{Frame, Owner, PageFlags};
pub use lists::LruList;

/// What secondary MMUs have to do with a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub struct Secondary {
    /// Translations to it that hold no reference and can still be used.
    pub usable: u32,
    /// References held by secondary MMUs.
    pub pins: u32,
}

/// A kernel's share of memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub struct Zone(pub u8);

/// How many frames must stay free when one is taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Watermark {
    /// None.
    Nothing,
    /// `pages_min`: what only reclaim itself may use.
    Min,
    /// `pages_low`: below it kswapd is woken.
    Low,
    /// `pages_high`: up to it kswapd frees.
    High,
}

/// The watermarks of a zone, in frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub struct Watermarks {
    /// `pages_min`.
    pub min: u64,
    /// `pages_low`.
    pub low: u64,
    /// `pages_high`.
    pub high: u64,
}

impl Watermarks {
    /// The frames that must stay free.
    #[inline]
    #[must_use]
    pub fn of(&self, mark: Watermark) -> u64 {
        match mark {
            Watermark::Nothing => 0,
            Watermark::Min => self.min,
            Watermark::Low => self.low,
            Watermark::High => self.high,
        }
    }
}

#[derive(Clone, Debug)]
struct ZoneState {
    // First free frame.
    free: u32,
    lru: [List; 2],
    watermarks: Watermarks,
    // `pages_scanned`: pages that reclaim looked at since a frame was last freed.
    scanned: u64,
    // ZONE_ALL_UNRECLAIMABLE: kswapd has given up, and no frame was freed since.
    all_unreclaimable: bool,
    limit: u64,
    in_use: u64,
    most_in_use: u64,
    allocated: u64,
    freed: u64,
    huge: HugePool,
}

/// Whether a reference that was dropped was the last one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "whoever drops the last reference frees the page"]
pub enum LastReference {
    /// Others are left.
    No,
    /// The page is free to go.
    Yes,
}

/// The kernel has no frame left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfMemory;

/// All frames of a world.
#[derive(Clone, Debug, Default)]
pub struct Frames {
    frames: Vec<Frame>,
    // By frame number, as far as a secondary MMU has ever mapped one.
    secondary: Vec<Secondary>,
    zones: Vec<ZoneState>,
    pinned: u64,
    most_pinned: u64,
}

impl Frames {
    /// Adds a zone of `pages` frames.
    pub fn add_zone(&mut self, pages: u64) -> Zone {
        self.zones.push(ZoneState {
            free: NIL,
            lru: [List::default(); 2],
            watermarks: Watermarks::default(),
            scanned: 0,
            all_unreclaimable: false,
            limit: pages,
            in_use: 0,
            most_in_use: 0,
            allocated: 0,
            freed: 0,
            huge: HugePool::default(),
        });
        Zone((self.zones.len() - 1) as u8)
    }

    /// Says how many frames a zone has, and how many of them are kept back.
    pub fn resize(&mut self, zone: Zone, pages: u64, watermarks: Watermarks) {
        let state = &mut self.zones[zone.0 as usize];
        (state.limit, state.watermarks) = (pages, watermarks);
    }

    /// Takes a frame with one reference, if more than the watermark's are free.
    ///
    /// # Errors
    /// When the zone is used up as far as that.
    #[inline]
    pub fn alloc(&mut self, zone: Zone, mark: Watermark) -> Result<Pfn, OutOfMemory> {
        let state = &mut self.zones[zone.0 as usize];
        if state.in_use + state.watermarks.of(mark) >= state.limit {
            return Err(OutOfMemory);
        }
        let pfn = if state.free != NIL {
            Pfn::new(state.free)
        } else if self.frames.len() >= NIL as usize {
            return Err(OutOfMemory);
        } else {
            self.frames.push(Frame::new(zone));
            Pfn::new((self.frames.len() - 1) as u32)
        };
        state.in_use += 1;
        state.allocated += 1;
        state.most_in_use = state.most_in_use.max(state.in_use);
        let frame = &mut self.frames[pfn.index()];
        state.free = frame.next;
        frame.next = NIL;
        frame.count = 1;
        Ok(pfn)
    }

    /// Takes the frames of a huge page, contiguous and aligned, and marks them as such. They stay a huge
    /// page: [`Frames::free`] puts it into the zone's pool. The frames passed over for the alignment are
    /// free ones of the zone.
    ///
    /// # Errors
    /// When the zone has not as many left.
    pub(crate) fn alloc_huge(&mut self, zone: Zone) -> Result<Pfn, OutOfMemory> {
        let state = &mut self.zones[zone.0 as usize];
        if state.in_use + HPAGE_PAGES > state.limit {
            return Err(OutOfMemory);
        }
        let begin = self.frames.len() as u64;
        let head = begin.next_multiple_of(HPAGE_PAGES);
        let end = u32::try_from(head + HPAGE_PAGES).map_err(|_| OutOfMemory)?;
        for number in begin..head {
            let mut between = Frame::new(zone);
            between.next = std::mem::replace(&mut state.free, number as u32);
            self.frames.push(between);
        }
        let mut part = Frame::new(zone);
        part.flags = PageFlags::HUGE;
        self.frames.resize(end as usize, part);
        state.in_use += HPAGE_PAGES;
        state.allocated += HPAGE_PAGES;
        state.most_in_use = state.most_in_use.max(state.in_use);
        Ok(Pfn::new(head as u32))
    }

    /// The huge pages of a zone.
    pub(crate) fn huge_pool(&mut self, zone: Zone) -> &mut HugePool {
        &mut self.zones[zone.0 as usize].huge
    }

    /// `compound_head`: the frame whose counts stand for this one's.
    #[inline]
    #[must_use]
    pub fn head(&self, pfn: Pfn) -> Pfn {
        if self.frames[pfn.index()].flags.has(PageFlags::HUGE) {
            Pfn::new(pfn.get() & !(HPAGE_PAGES as u32 - 1))
        } else {
            pfn
        }
    }

    /// Returns a frame whose count has reached zero, to the pool if it is a huge page's. The caller has
    /// asked the oracle.
    #[inline]
    pub fn free(&mut self, pfn: Pfn) {
        let pfn = self.head(pfn);
        let frame = &mut self.frames[pfn.index()];
        debug_assert_eq!(frame.count, 0, "{pfn} freed with references");
        debug_assert!(!frame.flags.has(PageFlags::LRU), "{pfn} freed on an LRU list");
        frame.generation = frame.generation.next();
        frame.set_owner(Owner::None);
        let zone = &mut self.zones[frame.zone.0 as usize];
        if frame.flags.has(PageFlags::HUGE) {
            frame.flags = PageFlags::HUGE;
            return zone.huge.give(pfn);
        }
        frame.flags = PageFlags::default();
        frame.next = zone.free;
        zone.free = pfn.get();
        zone.in_use -= 1;
        zone.freed += 1;
        zone.scanned = 0;
        zone.all_unreclaimable = false;
    }

    /// Whether more frames are free than a watermark asks for (`zone_watermark_ok` for one page).
    #[inline]
    #[must_use]
    pub fn watermark_ok(&self, zone: Zone, mark: Watermark) -> bool {
        let state = &self.zones[zone.0 as usize];
        self.free_frames(zone) > state.watermarks.of(mark)
    }

    /// Frames of a zone that are free (NR_FREE_PAGES).
    #[must_use]
    pub fn free_frames(&self, zone: Zone) -> u64 {
        let state = &self.zones[zone.0 as usize];
        state.limit.saturating_sub(state.in_use)
    }

    /// Frames of a zone (`present_pages`).
    #[must_use]
    pub fn present_pages(&self, zone: Zone) -> u64 {
        self.zones[zone.0 as usize].limit
    }

    /// The watermarks of a zone.
    #[must_use]
    pub fn watermarks(&self, zone: Zone) -> Watermarks {
        self.zones[zone.0 as usize].watermarks
    }

    /// Pages that reclaim looked at since a frame was last freed (`pages_scanned`).
    #[must_use]
    pub fn scanned_in_vain(&self, zone: Zone) -> u64 {
        self.zones[zone.0 as usize].scanned
    }

    /// Reclaim has looked at some pages; the caller holds lru_lock.
    pub(crate) fn add_scanned(&mut self, zone: Zone, pages: u64) {
        self.zones[zone.0 as usize].scanned += pages;
    }

    /// `zone_is_all_unreclaimable`: found so, and no frame was freed since.
    #[must_use]
    pub fn all_unreclaimable(&self, zone: Zone) -> bool {
        self.zones[zone.0 as usize].all_unreclaimable
    }

    /// Sets ZONE_ALL_UNRECLAIMABLE.
    pub(crate) fn set_all_unreclaimable(&mut self, zone: Zone) {
        self.zones[zone.0 as usize].all_unreclaimable = true;
    }

    /// A frame; of a huge page, the first.
    #[inline]
    #[must_use]
    pub fn get(&self, pfn: Pfn) -> &Frame {
        &self.frames[self.head(pfn).index()]
    }

    /// A frame, to be changed; of a huge page, the first.
    #[inline]
    #[must_use]
    pub fn get_mut(&mut self, pfn: Pfn) -> &mut Frame {
        let head = self.head(pfn);
        &mut self.frames[head.index()]
    }

    /// `get_page`.
    #[inline]
    pub fn get_page(&mut self, pfn: Pfn) {
        let frame = self.get_mut(pfn);
        assert!(
            frame.count > 0,
            "{pfn} is free: a reference can only be taken to a page in use"
        );
        frame.count += 1;
    }

    /// `put_page_testzero`: drops a reference.
    #[inline]
    pub fn put_testzero(&mut self, pfn: Pfn) -> LastReference {
        let frame = self.get_mut(pfn);
        debug_assert!(frame.count > 0, "{pfn} put without a reference");
        frame.count -= 1;
        if frame.count == 0 {
            LastReference::Yes
        } else {
            LastReference::No
        }
    }

    /// What secondary MMUs have to do with a frame; of a huge page, with all of it.
    #[inline]
    #[must_use]
    pub fn secondary(&self, pfn: Pfn) -> Secondary {
        let head = self.head(pfn);
        self.secondary.get(head.index()).copied().unwrap_or_default()
    }

    /// The same, to be changed.
    #[inline]
    pub fn secondary_mut(&mut self, pfn: Pfn) -> &mut Secondary {
        let head = self.head(pfn);
        if self.secondary.len() <= head.index() {
            self.secondary.resize(head.index() + 1, Secondary::default());
        }
        &mut self.secondary[head.index()]
    }

    /// A reference of a secondary MMU: counts as a pin.
    pub fn pin(&mut self, pfn: Pfn) {
        let secondary = self.secondary_mut(pfn);
        secondary.pins += 1;
        if secondary.pins == 1 {
            self.pinned += 1;
            self.most_pinned = self.most_pinned.max(self.pinned);
        }
    }

    /// A reference of a secondary MMU is about to be dropped.
    pub fn unpin(&mut self, pfn: Pfn) {
        let secondary = self.secondary_mut(pfn);
        secondary.pins -= 1;
        if secondary.pins == 0 {
            self.pinned -= 1;
        }
    }

    /// Maxima count from now on.
    pub(crate) fn start_measuring(&mut self) {
        self.most_pinned = self.pinned;
        for zone in &mut self.zones {
            zone.most_in_use = zone.in_use;
            zone.huge.start_measuring();
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
