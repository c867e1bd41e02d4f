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

use x86::{Generation, Pfn, Pgoff, Slots};

use crate::hugetlb::{HPAGE_PAGES, HugePool};
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

/// No frame, in a link.
const NIL: u32 = u32::MAX;

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
    zone: Zone,
    /// `page->flags`.
    pub flags: PageFlags,
    // Neighbours on an LRU list; of a free frame, `next` is the next free one.
    prev: u32,
    next: u32,
}

// 1 TiB of 4 KiB pages has to fit a machine of 24 GiB, page tables included.
const _: () = assert!(size_of::<Frame>() == 36);

/// Bits of [`Frame::owner`] that say which kind of owner it is.
const OWNER_SHIFT: u32 = 30;
const OWNER_ANON: u32 = 1 << OWNER_SHIFT;
const OWNER_FILE: u32 = 2 << OWNER_SHIFT;

impl Frame {
    fn new(zone: Zone) -> Frame {
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

/// A list of frames, linked through the frames.
#[derive(Clone, Copy, Debug)]
struct List {
    head: u32,
    tail: u32,
    len: u64,
}

impl Default for List {
    fn default() -> Self {
        List {
            head: NIL,
            tail: NIL,
            len: 0,
        }
    }
}

/// Which list of a zone reclaim keeps a page on (2.6.27 has one pair for all kinds of pages).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum LruList {
    /// `inactive_list`: where reclaim looks for victims.
    Inactive,
    /// `active_list`.
    Active,
}

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
            self.frames.push(Frame {
                next: state.free,
                ..Frame::new(zone)
            });
            state.free = number as u32;
        }
        let part = Frame {
            flags: PageFlags::HUGE,
            ..Frame::new(zone)
        };
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

    /// Takes the page at the end of a list off it, with a reference (`isolate_lru_pages` for one page).
    /// One that is about to be freed goes to the head of the list instead, and there is none to take
    /// this time. The caller holds lru_lock.
    pub fn lru_isolate(&mut self, zone: Zone, list: LruList) -> Option<Pfn> {
        let pfn = self.lru_tail(zone, list)?;
        let _ = self.lru_del(pfn);
        if self.get(pfn).count == 0 {
            self.lru_add(pfn, list);
            return None;
        }
        self.get_page(pfn);
        Some(pfn)
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

    /// Puts a page at the head of a list of its zone (`add_page_to_active_list` and its twin) and sets
    /// PG_lru; the caller holds lru_lock.
    pub fn lru_add(&mut self, pfn: Pfn, list: LruList) {
        let frame = &mut self.frames[pfn.index()];
        debug_assert!(!frame.flags.has(PageFlags::LRU), "{pfn} is on a list already");
        frame.flags.set(PageFlags::LRU);
        match list {
            LruList::Active => frame.flags.set(PageFlags::ACTIVE),
            LruList::Inactive => frame.flags.clear(PageFlags::ACTIVE),
        }
        let lru = &mut self.zones[frame.zone.0 as usize].lru[list as usize];
        (frame.prev, frame.next) = (NIL, lru.head);
        lru.len += 1;
        let behind = std::mem::replace(&mut lru.head, pfn.get());
        if behind == NIL {
            lru.tail = pfn.get();
        } else {
            self.frames[behind as usize].prev = pfn.get();
        }
    }

    /// Takes a page off its list and clears PG_lru (`del_page_from_lru`); PG_active stays, as a note of
    /// where it was. The caller holds lru_lock.
    pub fn lru_del(&mut self, pfn: Pfn) -> LruList {
        let frame = &mut self.frames[pfn.index()];
        debug_assert!(frame.flags.has(PageFlags::LRU), "{pfn} is on no list");
        frame.flags.clear(PageFlags::LRU);
        let list = if frame.flags.has(PageFlags::ACTIVE) {
            LruList::Active
        } else {
            LruList::Inactive
        };
        let (prev, next) = (frame.prev, frame.next);
        (frame.prev, frame.next) = (NIL, NIL);
        let lru = &mut self.zones[frame.zone.0 as usize].lru[list as usize];
        lru.len -= 1;
        if prev == NIL {
            lru.head = next;
        }
        if next == NIL {
            lru.tail = prev;
        }
        if prev != NIL {
            self.frames[prev as usize].next = next;
        }
        if next != NIL {
            self.frames[next as usize].prev = prev;
        }
        list
    }

    /// Moves a page that is on a list to the end from which reclaim takes (`list_move_tail`); the caller
    /// holds lru_lock.
    pub fn lru_move_to_tail(&mut self, pfn: Pfn) {
        let list = self.lru_del(pfn);
        let frame = &mut self.frames[pfn.index()];
        frame.flags.set(PageFlags::LRU);
        let lru = &mut self.zones[frame.zone.0 as usize].lru[list as usize];
        (frame.prev, frame.next) = (lru.tail, NIL);
        lru.len += 1;
        let before = std::mem::replace(&mut lru.tail, pfn.get());
        if before == NIL {
            lru.head = pfn.get();
        } else {
            self.frames[before as usize].next = pfn.get();
        }
    }

    /// The page that reclaim would take next from a list.
    #[must_use]
    pub fn lru_tail(&self, zone: Zone, list: LruList) -> Option<Pfn> {
        let tail = self.zones[zone.0 as usize].lru[list as usize].tail;
        (tail != NIL).then(|| Pfn::new(tail))
    }

    /// Pages on a list (NR_ACTIVE, NR_INACTIVE).
    #[must_use]
    pub fn lru_len(&self, zone: Zone, list: LruList) -> u64 {
        self.zones[zone.0 as usize].lru[list as usize].len
    }

    /// Pages of a list, from its head.
    pub fn lru_pages(&self, zone: Zone, list: LruList) -> impl Iterator<Item = Pfn> + '_ {
        let mut at = self.zones[zone.0 as usize].lru[list as usize].head;
        std::iter::from_fn(move || {
            (at != NIL).then(|| {
                let pfn = Pfn::new(at);
                at = self.frames[pfn.index()].next;
                pfn
            })
        })
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
