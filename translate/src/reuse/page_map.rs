//! A number for each page met, in memory that follows the footprint: pages come in blocks of
//! neighbours, and blocks are found through an open hash.

use x86::Vpn;

/// Pages in a block: their numbers fill four cache lines, and a page without neighbours wastes no more.
const BLOCK: u64 = 64;

/// Key of an empty bucket. No page has this number: page numbers have 52 bits.
const EMPTY: u64 = u64::MAX;

/// Buckets of a new map.
const FEWEST_BUCKETS: usize = 1 << 10;

// 2^64 / golden ratio: Fibonacci hashing spreads consecutive blocks.
const HASH_MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

#[derive(Clone, Copy, Debug)]
struct Bucket {
    key: u64,
    block: u32,
}

/// Pages in the order of their blocks' first appearance.
#[derive(Clone, Debug)]
pub(super) struct PageMap {
    buckets: Vec<Bucket>,
    blocks: u32,
}

impl Default for PageMap {
    fn default() -> Self {
        PageMap {
            buckets: vec![Bucket { key: EMPTY, block: 0 }; FEWEST_BUCKETS],
            blocks: 0,
        }
    }
}

impl PageMap {
    /// The number of a page: always the same, and below [`PageMap::numbers`].
    #[inline]
    pub(super) fn number(&mut self, page: Vpn) -> usize {
        let key = page.get() / BLOCK;
        let mut at = self.home(key);
        while self.buckets[at].key != key {
            if self.buckets[at].key == EMPTY {
                at = self.add(key);
                break;
            }
            at = self.after(at);
        }
        self.buckets[at].block as usize * BLOCK as usize + (page.get() % BLOCK) as usize
    }

    /// Numbers given away, those of pages not met included.
    pub(super) fn numbers(&self) -> usize {
        self.blocks as usize * BLOCK as usize
    }

    fn home(&self, key: u64) -> usize {
        let shift = u64::BITS - self.buckets.len().trailing_zeros();
        (key.wrapping_mul(HASH_MULTIPLIER) >> shift) as usize
    }

    // Buckets are a power of two.
    fn after(&self, at: usize) -> usize {
        (at + 1) & (self.buckets.len() - 1)
    }

    #[cold]
    fn add(&mut self, key: u64) -> usize {
        let block = self.blocks;
        self.blocks += 1;
        // Half full at most, so that a look-up ends soon.
        if self.blocks as usize * 2 > self.buckets.len() {
            self.grow();
        }
        self.insert(Bucket { key, block })
    }

    fn grow(&mut self) {
        let empty = Bucket { key: EMPTY, block: 0 };
        let larger = vec![empty; self.buckets.len() * 2];
        let old = std::mem::replace(&mut self.buckets, larger);
        for bucket in old.into_iter().filter(|bucket| bucket.key != EMPTY) {
            self.insert(bucket);
        }
    }

    fn insert(&mut self, bucket: Bucket) -> usize {
        let mut at = self.home(bucket.key);
        while self.buckets[at].key != EMPTY {
            at = self.after(at);
        }
        self.buckets[at] = bucket;
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_page_has_a_number_of_its_own_for_good() {
        let mut map = PageMap::default();
        let pages: Vec<Vpn> = (0..5_000).map(|n: u64| Vpn::new(n * 37 % (1 << 45))).collect();
        let numbers: Vec<usize> = pages.iter().map(|page| map.number(*page)).collect();
        assert!(
            pages
                .iter()
                .zip(&numbers)
                .all(|(page, number)| map.number(*page) == *number)
        );
        let mut sorted = numbers.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(sorted.len(), pages.len());
        assert!(sorted.last().is_some_and(|last| *last < map.numbers()));
    }
}
