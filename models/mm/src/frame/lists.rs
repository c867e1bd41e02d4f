//! The LRU lists of a zone, linked through the frames themselves. Callers hold the zone's lru_lock.

use x86::Pfn;

use super::{Frames, PageFlags, Zone};

/// No frame, in a link.
pub(super) const NIL: u32 = u32::MAX;

/// A list of frames, linked through the frames.
#[derive(Clone, Copy, Debug)]
pub(super) struct List {
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

impl Frames {
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
}
