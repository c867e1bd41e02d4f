//! The oracle with memory that follows the pages: a table for each page size, as frame numbers have a
//! range for each (see [`crate::pages`]). One large page then costs as much as one small page, and not
//! as much as all frame numbers below it.

use x86::cache::CACHED_FRAME_BITS;
use x86::{Frames, Generation, PageSize, Pfn, Slots, TlbEntry};

use crate::frames::{Oracle, Watched};

/// First frames of the ranges for large and for huge pages, as [`crate::pages`] hands them out; a test
/// holds the two together.
const LARGE_START: u32 = 1 << (CACHED_FRAME_BITS - 2);
const HUGE_START: u32 = 1 << (CACHED_FRAME_BITS - 1);

/// [`Watched`], page by page.
#[derive(Clone, Debug, Default)]
pub struct WatchedPages {
    tables: [Watched; PageSize::ALL.len()],
}

// The table of a frame, and the frame's number there: pages are numbered one after the other.
#[inline]
const fn place(pfn: Pfn) -> (usize, Pfn) {
    let (size, start) = match pfn.get() {
        HUGE_START.. => (PageSize::Size1G, HUGE_START),
        LARGE_START.. => (PageSize::Size2M, LARGE_START),
        _ => (PageSize::Size4K, 0),
    };
    (size as usize, Pfn::new((pfn.get() - start) >> size.vpn_shift()))
}

impl Slots for WatchedPages {
    #[inline]
    fn gained(&mut self, pfn: Pfn) {
        let (table, at) = place(pfn);
        self.tables[table].gained(at);
    }
    #[inline]
    fn dropped(&mut self, pfn: Pfn) {
        let (table, at) = place(pfn);
        self.tables[table].dropped(at);
    }
}

impl Frames for WatchedPages {
    #[inline]
    fn generation(&self, pfn: Pfn) -> Generation {
        let (table, at) = place(pfn);
        self.tables[table].generation(at)
    }
}

impl Oracle for WatchedPages {
    #[inline]
    fn is_sound(&self, entry: &TlbEntry) -> bool {
        self.generation(entry.pfn) == entry.generation
    }
    fn free(&mut self, pfn: Pfn) -> u32 {
        let (table, at) = place(pfn);
        self.tables[table].free(at)
    }
    #[inline]
    fn look_ahead(&self, pfn: Pfn) -> u32 {
        let (table, at) = place(pfn);
        self.tables[table].look_ahead(at)
    }
}

#[cfg(test)]
mod tests {
    use x86::Vpn;

    use super::*;
    use crate::pages::Pages;

    #[test]
    fn pages_of_each_size_are_numbered_from_0() {
        let mut pages = Pages::default();
        for size in PageSize::ALL {
            for n in 0..3 {
                let pfn = pages.add(Vpn::new(u64::from(n) << 18), size).unwrap();
                assert_eq!(place(pfn), (size as usize, Pfn::new(n)));
            }
        }
    }

    #[test]
    fn a_frame_freed_under_a_slot_is_noticed_in_every_size() {
        let mut pages = Pages::default();
        for size in PageSize::ALL {
            let pfn = pages.add(Vpn::new(0), size).unwrap();
            let mut oracle = WatchedPages::default();
            oracle.gained(pfn);
            let before = oracle.generation(pfn);
            assert_eq!(oracle.free(pfn), 1);
            assert_ne!(oracle.generation(pfn), before);
        }
    }
}
