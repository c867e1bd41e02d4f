//! Reuse distances: for each reference, how many other pages were met since its page was met last.
//!
//! A fully associative LRU TLB of n entries hits exactly those references whose distance is below n
//! (R. Mattson et al., "Evaluation techniques for storage hierarchies", IBM Systems Journal 9, 1970),
//! so one pass gives the misses of every size. Pages are of 4 KiB.
//!
//! The pages lie in the order of their last use. The first few are a list that is searched, which
//! serves most references; the others are marks on a line of time, counted through a tree (F. Olken,
//! "Efficient methods for calculating the success function of fixed space replacement policies", 1981),
//! so a reference costs the logarithm of the pages at most. When the line is used up, it is written anew
//! with only its marks: memory follows the footprint, not the length.

mod marks;
mod page_map;

use x86::{Access, Reference, Vpn};

use marks::Marks;
use page_map::PageMap;

/// Pages that are searched one by one: their numbers fill one or two cache lines of the host.
const FRONT: usize = 8;

/// Places of a new line of time.
const FEWEST_PLACES: usize = 1 << 12;

/// Place of a page that was never met.
const NEVER: u32 = u32::MAX;

/// Distances by their number of bits: 0, 1, 2 and 3, 4 to 7, ... 2^31 and above.
const BINS: usize = u32::BITS as usize + 1;

/// What is known of the distances of a row of references.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Distances {
    // References by the number of bits of their distance.
    bins: [u64; BINS],
    cold: u64,
}

impl Default for Distances {
    fn default() -> Self {
        Distances {
            bins: [0; BINS],
            cold: 0,
        }
    }
}

impl Distances {
    #[inline]
    fn count(&mut self, distance: u32) {
        self.bins[(u32::BITS - distance.leading_zeros()) as usize] += 1;
    }

    /// References to pages never met before, which every TLB misses.
    #[must_use]
    pub const fn cold(&self) -> u64 {
        self.cold
    }

    /// All references.
    #[must_use]
    pub fn references(&self) -> u64 {
        self.cold + self.bins.iter().sum::<u64>()
    }

    /// References that a fully associative LRU TLB of 2^`bits` entries misses.
    #[must_use]
    pub fn misses(&self, bits: u32) -> u64 {
        let far = self.bins.iter().skip(bits as usize + 1);
        self.cold + far.sum::<u64>()
    }

    /// The smallest number of bits from which on only cold references miss.
    #[must_use]
    pub fn enough_bits(&self) -> u32 {
        self.bins.iter().rposition(|&count| count > 0).unwrap_or(0) as u32
    }

    /// What was counted since `before`, an earlier state of the same distances.
    #[must_use]
    pub fn since(&self, before: &Distances) -> Distances {
        Distances {
            bins: std::array::from_fn(|at| self.bins[at] - before.bins[at]),
            cold: self.cold - before.cold,
        }
    }
}

/// A page and its number in the map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seat {
    page: Vpn,
    number: u32,
}

/// The pages of a row of references in the order of their last use.
#[derive(Clone, Debug)]
struct Stack {
    // The pages used last, latest first.
    front: [Seat; FRONT],
    filled: usize,
    map: PageMap,
    // By number: when a page was last pushed out of the front.
    places: Vec<u32>,
    marks: Marks,
    // By place: the number of the page.
    numbers: Vec<u32>,
    distances: Distances,
}

impl Default for Stack {
    fn default() -> Self {
        let nowhere = Seat {
            page: Vpn::new(0),
            number: 0,
        };
        Stack {
            front: [nowhere; FRONT],
            filled: 0,
            map: PageMap::default(),
            places: Vec::new(),
            marks: Marks::dense(0, FEWEST_PLACES),
            numbers: vec![0; FEWEST_PLACES],
            distances: Distances::default(),
        }
    }
}

impl Stack {
    #[inline]
    fn meet(&mut self, page: Vpn) {
        let front = &self.front[..self.filled];
        let Some(distance) = front.iter().position(|seat| seat.page == page) else {
            return self.meet_far(page);
        };
        self.distances.count(distance as u32);
        self.front[..=distance].rotate_right(1);
    }

    fn meet_far(&mut self, page: Vpn) {
        let number = self.map.number(page);
        if number >= self.places.len() {
            self.places.resize(self.map.numbers(), NEVER);
        }
        match self.places[number] {
            NEVER => self.distances.cold += 1,
            place => {
                let between = FRONT as u32 + self.marks.erase(place);
                self.distances.count(between);
            }
        }
        if self.filled == FRONT {
            self.push_out(self.front[FRONT - 1]);
        } else {
            self.filled += 1;
        }
        self.front[..self.filled].rotate_right(1);
        self.front[0] = Seat {
            page,
            number: number as u32,
        };
    }

    fn push_out(&mut self, seat: Seat) {
        if self.marks.is_full() {
            self.compact();
        }
        let place = self.marks.append();
        self.places[seat.number as usize] = place;
        self.numbers[place as usize] = seat.number;
    }

    // Afterwards at least half of the places are free, so this is paid for by as many references.
    #[cold]
    fn compact(&mut self) {
        let marked = self.marks.len();
        for (new, old) in self.marks.iter().enumerate() {
            let number = self.numbers[old];
            self.numbers[new] = number;
            self.places[number as usize] = new as u32;
        }
        let room = (2 * marked).max(FEWEST_PLACES);
        self.numbers.resize(room.next_multiple_of(FEWEST_PLACES), 0);
        self.marks = Marks::dense(marked, self.numbers.len());
    }
}

/// Reuse distances of all references, of data accesses among themselves, and of instruction fetches
/// among themselves.
#[derive(Clone, Debug, Default)]
pub struct ReuseDistances {
    all: Stack,
    data: Stack,
    fetches: Stack,
}

impl ReuseDistances {
    /// Counts references, in order.
    pub fn observe(&mut self, references: &[Reference]) {
        for reference in references {
            let page = reference.va().vpn();
            self.all.meet(page);
            match reference.access() {
                Access::Read | Access::Write => self.data.meet(page),
                Access::Fetch => self.fetches.meet(page),
            }
        }
    }

    /// Of all references.
    #[must_use]
    pub const fn all(&self) -> &Distances {
        &self.all.distances
    }

    /// Of loads and stores, as if there were no instructions.
    #[must_use]
    pub const fn data(&self) -> &Distances {
        &self.data.distances
    }

    /// Of instruction fetches, as if there were no data.
    #[must_use]
    pub const fn fetches(&self) -> &Distances {
        &self.fetches.distances
    }
}
