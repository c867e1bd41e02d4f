//! The frames behind a trace's pages, and the oracle that watches what translates to them.

use x86::{Frames, Generation, PageSize, Pfn, Slots, TlbEntry};

use crate::pages::page_of;

/// How closely the frames are watched.
pub trait Oracle: Frames + Default {
    /// Whether an entry was made for its frame as the frame is now.
    fn is_sound(&self, entry: &TlbEntry) -> bool;
    /// The frame is given back. Returns the TLB slots that still translate to it.
    fn free(&mut self, pfn: Pfn) -> u32;
    /// Reads what the oracle will read about a frame.
    fn look_ahead(&self, pfn: Pfn) -> u32;
}

/// No oracle: every entry is taken for sound.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unwatched;

impl Slots for Unwatched {
    fn gained(&mut self, _: Pfn) {}
    fn dropped(&mut self, _: Pfn) {}
}

impl Frames for Unwatched {
    fn generation(&self, _: Pfn) -> Generation {
        Generation::FIRST
    }
}

impl Oracle for Unwatched {
    fn is_sound(&self, _: &TlbEntry) -> bool {
        true
    }
    fn free(&mut self, _: Pfn) -> u32 {
        0
    }
    fn look_ahead(&self, _: Pfn) -> u32 {
        0
    }
}

/// The oracle: a generation and a count of TLB slots for each page. Freeing a page that slots still
/// translate to, or using an entry from before its page was freed, is a violation.
///
/// Pages are numbered by size, as frame numbers have a range for each size: one large page takes as much
/// memory as one small page.
#[derive(Clone, Debug, Default)]
pub struct Watched {
    // Each grows with the highest page seen.
    books: [Vec<Book>; PageSize::ALL.len()],
}

#[derive(Clone, Copy, Debug, Default)]
struct Book {
    generation: Generation,
    slots: u32,
}

impl Watched {
    #[inline]
    fn book(&mut self, pfn: Pfn) -> &mut Book {
        let (size, at) = page_of(pfn);
        let books = &mut self.books[size as usize];
        if at >= books.len() {
            books.resize(at + 1, Book::default());
        }
        &mut books[at]
    }

    #[inline]
    fn seen(&self, pfn: Pfn) -> Book {
        let (size, at) = page_of(pfn);
        self.books[size as usize].get(at).copied().unwrap_or_default()
    }
}

impl Slots for Watched {
    #[inline]
    fn gained(&mut self, pfn: Pfn) {
        self.book(pfn).slots += 1;
    }
    #[inline]
    fn dropped(&mut self, pfn: Pfn) {
        self.book(pfn).slots -= 1;
    }
}

impl Frames for Watched {
    #[inline]
    fn generation(&self, pfn: Pfn) -> Generation {
        self.seen(pfn).generation
    }
}

impl Oracle for Watched {
    // Asked at every hit: small pages, the most by far, are looked up without asking for their size.
    #[inline]
    fn is_sound(&self, entry: &TlbEntry) -> bool {
        let [small, ..] = &self.books;
        match small.get(entry.pfn.index()) {
            Some(book) => book.generation == entry.generation,
            None => self.generation(entry.pfn) == entry.generation,
        }
    }
    fn free(&mut self, pfn: Pfn) -> u32 {
        let book = self.book(pfn);
        book.generation = book.generation.next();
        book.slots
    }
    #[inline]
    fn look_ahead(&self, pfn: Pfn) -> u32 {
        let book = self.seen(pfn);
        book.slots ^ book.generation.get()
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
            for n in 0_u32..3 {
                let pfn = pages.add(Vpn::new(u64::from(n) << 18), size).unwrap();
                assert_eq!(page_of(pfn), (size, n as usize));
            }
        }
    }

    #[test]
    fn a_frame_freed_under_a_slot_is_noticed_in_every_size() {
        let mut pages = Pages::default();
        for size in PageSize::ALL {
            let pfn = pages.add(Vpn::new(0), size).unwrap();
            let mut oracle = Watched::default();
            oracle.gained(pfn);
            let before = oracle.generation(pfn);
            assert_eq!(oracle.free(pfn), 1);
            assert_ne!(oracle.generation(pfn), before);
        }
    }
}
