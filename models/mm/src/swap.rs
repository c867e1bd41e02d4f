//! The swap device's slots and the swap cache.
//!
//! Follows mm/swapfile.c and mm/swap_state.c of 2.6.27 (host-mm-paths A.5, B.12). A slot counts the
//! entries that name it, plus one while its page is in the swap cache; at zero it is free. A page in the
//! swap cache is anonymous, is locked whenever it enters or leaves, and has one reference from the cache.
//! The slots are under `swap_lock`, the cache under the tree_lock of `swapper_space`, taken with
//! interrupts off. Here is the data; who locks what: swapfile.rs and swap_state.rs.
//!
//! Slot 0 is the device's header. The others are handed out as `scan_swap_map` does: the next free one after
//! the last, 256 of them (`SWAPFILE_CLUSTER`), then from the first run of 256 free slots on, or from the lowest
//! free one if there is no such run. So pages that went out together lie together, and what a fault
//! reads with its own page (`valid_swaphandles`) is what left with it.
//!
//! Deviation: where the kernel steps over used slots or looks for a run it lets go of `swap_lock`; here
//! it is kept, for the time of a look at a few slots.

use std::collections::{BTreeMap, BTreeSet};

use x86::Pfn;

use crate::swapops::SwapSlot;

/// Whether a slot became free.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum SlotFate {
    /// Somebody still names it.
    Used,
    /// Nobody does: it can be handed out again.
    Free,
}

/// `SWAPFILE_CLUSTER`: slots handed out one after the other before a free run of as many is looked for,
/// mm/swapfile.c 2.6.27.
const SWAPFILE_CLUSTER: u32 = 256;
/// The first slot that is not the header (`setup` of `lowest_bit` in `sys_swapon`, same place).
const FIRST_SLOT: u32 = 1;

/// A swap device and its cache.
#[derive(Clone, Debug)]
pub struct Swap {
    // swap_map: uses of each slot, up to the last that was ever handed out. The header counts as unused,
    // but is never free.
    counts: Vec<u32>,
    // Free slots among those.
    free: BTreeSet<u32>,
    // `pages`: slots without the header.
    limit: u32,
    // `inuse_pages`.
    in_use: u32,
    // `lowest_bit`, `highest_bit`: bounds of the free slots, not always tight.
    lowest: u32,
    highest: u32,
    // `cluster_next`, `cluster_nr`.
    next: u32,
    left_in_cluster: u32,
    cached: BTreeMap<SwapSlot, Pfn>,
    slot_of: BTreeMap<Pfn, SwapSlot>,
}

impl Default for Swap {
    fn default() -> Self {
        Swap::of_pages(0)
    }
}

impl Swap {
    /// A device of so many pages beside its header; with none, nothing can be swapped.
    #[must_use]
    pub fn of_pages(pages: u32) -> Self {
        Swap {
            counts: vec![0; FIRST_SLOT as usize],
            free: BTreeSet::new(),
            limit: pages,
            in_use: 0,
            lowest: FIRST_SLOT,
            highest: pages,
            next: FIRST_SLOT,
            left_in_cluster: 0,
            cached: BTreeMap::new(),
            slot_of: BTreeMap::new(),
        }
    }

    /// `get_swap_page`: a free slot, with one use for the swap cache.
    pub fn take_slot(&mut self) -> Option<SwapSlot> {
        if self.in_use == self.limit {
            return None;
        }
        let slot = self.scan_swap_map();
        for passed in self.counts.len() as u32..=slot {
            self.counts.push(0);
            self.free.insert(passed);
        }
        self.free.remove(&slot);
        self.counts[slot as usize] = 1;
        self.in_use += 1;
        self.next = slot + 1;
        self.lowest += u32::from(slot == self.lowest);
        self.highest -= u32::from(slot == self.highest);
        if self.in_use == self.limit {
            (self.lowest, self.highest) = (self.limit + 1, 0);
        }
        Some(SwapSlot(slot))
    }

    /// `scan_swap_map`: which slot is next. One is free.
    fn scan_swap_map(&mut self) -> u32 {
        let wanted = if self.left_in_cluster == 0 {
            self.left_in_cluster = SWAPFILE_CLUSTER - 1;
            self.empty_cluster().unwrap_or(self.lowest)
        } else {
            self.left_in_cluster -= 1;
            self.next
        };
        self.free_from(wanted)
            .or_else(|| self.free_from(self.lowest))
            .expect("a slot is free")
    }

    /// The first free slot from one on.
    fn free_from(&self, slot: u32) -> Option<u32> {
        let never_used = slot.max(self.counts.len() as u32);
        let given_back = self.free.range(slot..).next().copied();
        given_back.or_else(|| (never_used <= self.highest).then_some(never_used))
    }

    /// The first run of free slots that is long enough for a cluster (not aligned).
    fn empty_cluster(&self) -> Option<u32> {
        if self.limit - self.in_use < SWAPFILE_CLUSTER {
            return None;
        }
        let mut run = self.lowest;
        let mut slot = self.lowest;
        while run + (SWAPFILE_CLUSTER - 1) <= self.highest {
            // From the end of the known slots on all are free.
            if slot - run == SWAPFILE_CLUSTER || slot as usize >= self.counts.len() {
                return Some(run);
            }
            if self.counts[slot as usize] > 0 {
                run = slot + 1;
            }
            slot += 1;
        }
        None
    }

    /// `swap_duplicate`: one entry more names the slot.
    pub fn duplicate(&mut self, slot: SwapSlot) {
        let count = &mut self.counts[slot.0 as usize];
        debug_assert!(*count > 0, "{slot:?} is free");
        *count += 1;
    }

    /// `swap_free`: one use less.
    pub fn release(&mut self, slot: SwapSlot) -> SlotFate {
        let count = &mut self.counts[slot.0 as usize];
        *count = count.checked_sub(1).expect("a slot in use");
        if *count > 0 {
            return SlotFate::Used;
        }
        self.free.insert(slot.0);
        self.in_use -= 1;
        self.lowest = self.lowest.min(slot.0);
        self.highest = self.highest.max(slot.0);
        SlotFate::Free
    }

    /// Uses of a slot: entries that name it, plus one for the cache.
    #[must_use]
    pub fn count(&self, slot: SwapSlot) -> u32 {
        self.counts.get(slot.0 as usize).copied().unwrap_or(0)
    }

    /// `total_swap_pages`.
    #[must_use]
    pub fn total(&self) -> u64 {
        u64::from(self.limit)
    }

    /// `vm_swap_full`: less than half of the slots are free, so that slots of pages that are in memory
    /// should not be kept.
    #[must_use]
    pub fn is_full(&self) -> bool {
        (self.total() - self.in_use()) * 2 < self.total()
    }

    /// `valid_swaphandles`: the slots in use around one, without a gap, inside its aligned cluster of
    /// `1 << page_cluster`; ascending. Nothing if it is alone: there is nothing to be read ahead.
    #[must_use]
    pub fn cluster_around(&self, slot: SwapSlot, page_cluster: u32) -> Vec<SwapSlot> {
        let base = slot.0 >> page_cluster << page_cluster;
        let end = base.saturating_add(1 << page_cluster);
        let base = base.max(FIRST_SLOT);
        let used = |n: &u32| self.count(SwapSlot(*n)) > 0;
        let below = (base..slot.0).rev().take_while(used).count() as u32;
        let above = (slot.0 + 1..end).take_while(used).count() as u32;
        if below + above == 0 {
            return Vec::new();
        }
        (slot.0 - below..=slot.0 + above).map(SwapSlot).collect()
    }

    /// Slots in use, each with its count.
    pub fn counts(&self) -> impl Iterator<Item = (SwapSlot, u32)> + '_ {
        let slots = self.counts.iter().enumerate();
        slots
            .filter(|(_, n)| **n > 0)
            .map(|(i, n)| (SwapSlot(i as u32), *n))
    }

    /// Slots in use.
    #[must_use]
    pub fn in_use(&self) -> u64 {
        u64::from(self.in_use)
    }

    /// `__add_to_swap_cache`: the page is in this slot from now on.
    pub fn cache(&mut self, slot: SwapSlot, pfn: Pfn) {
        let was = self.cached.insert(slot, pfn);
        debug_assert!(was.is_none(), "{slot:?} holds a page already");
        self.slot_of.insert(pfn, slot);
    }

    /// `__delete_from_swap_cache`: the page's slot, which is no longer its.
    pub fn uncache(&mut self, pfn: Pfn) -> Option<SwapSlot> {
        let slot = self.slot_of.remove(&pfn)?;
        self.cached.remove(&slot);
        Some(slot)
    }

    /// `lookup_swap_cache`.
    #[must_use]
    pub fn lookup(&self, slot: SwapSlot) -> Option<Pfn> {
        self.cached.get(&slot).copied()
    }

    /// `page_private` of a page in the swap cache: its slot.
    #[must_use]
    pub fn slot_of(&self, pfn: Pfn) -> Option<SwapSlot> {
        self.slot_of.get(&pfn).copied()
    }

    /// Pages in the swap cache, each with its slot.
    pub fn cached_pages(&self) -> impl Iterator<Item = (Pfn, SwapSlot)> + '_ {
        self.slot_of.iter().map(|(pfn, slot)| (*pfn, *slot))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_free_when_neither_an_entry_nor_the_cache_names_it() {
        let mut swap = Swap::of_pages(2);
        let slot = swap.take_slot().expect("two slots");
        swap.cache(slot, Pfn::new(7));
        swap.duplicate(slot);
        assert_eq!(
            (swap.lookup(slot), swap.slot_of(Pfn::new(7))),
            (Some(Pfn::new(7)), Some(slot))
        );
        assert_eq!(swap.uncache(Pfn::new(7)), Some(slot));
        assert_eq!(swap.release(slot), SlotFate::Used);
        assert_eq!(swap.lookup(slot), None);
        assert_eq!(swap.release(slot), SlotFate::Free);
        assert_eq!(swap.in_use(), 0);
    }

    #[test]
    fn readahead_takes_the_slots_in_use_around_one_up_to_a_gap_or_the_border() {
        let mut swap = Swap::of_pages(64);
        let slots: Vec<_> = (0..20).map(|_| swap.take_slot().expect("free")).collect();
        let _ = swap.release(slots[11]);
        let around = |n: usize| {
            swap.cluster_around(slots[n], 3)
                .iter()
                .map(|s| s.0)
                .collect::<Vec<_>>()
        };
        // Slots 1 to 20 but 12, in clusters that begin at multiples of eight; the header is in none.
        assert_eq!(around(2), (1..8).collect::<Vec<_>>());
        assert_eq!(around(8), [8, 9, 10, 11], "12 is free");
        assert_eq!(around(13), [13, 14, 15]);
        assert_eq!(around(17), [16, 17, 18, 19, 20], "the others were never used");
    }

    #[test]
    fn a_slot_without_neighbours_in_use_has_nothing_to_be_read_ahead() {
        let mut swap = Swap::of_pages(64);
        let slots: Vec<_> = (0..8).map(|_| swap.take_slot().expect("free")).collect();
        assert_eq!(slots[7], SwapSlot(8), "the first of its cluster");
        assert_eq!(swap.cluster_around(slots[7], 3), []);
    }

    #[test]
    fn slots_go_out_in_runs_and_freed_ones_wait_until_no_run_is_left() {
        // 600 slots: a run from 1 to 256, one from 257 to 512, then too few are left for a third.
        let mut swap = Swap::of_pages(600);
        let mut take = |freed: &[u32]| {
            for slot in freed {
                let _ = swap.release(SwapSlot(*slot));
            }
            swap.take_slot().expect("free").0
        };
        let first: Vec<_> = (0..200).map(|_| take(&[])).collect();
        assert_eq!(first, (1..=200).collect::<Vec<_>>());
        assert_eq!(take(&[10, 20]), 201, "not what was freed");
        let second: Vec<_> = (202..=512).map(|_| take(&[])).collect();
        assert_eq!(second, (202..=512).collect::<Vec<_>>());
        assert_eq!([take(&[]), take(&[]), take(&[])], [10, 20, 513], "the lowest");
        let rest: Vec<_> = (514..=600).map(|_| take(&[])).collect();
        assert_eq!(rest, (514..=600).collect::<Vec<_>>());
        assert_eq!(
            take(&[300]),
            300,
            "none is behind the last: from the lowest again"
        );
    }

    /// `scan_swap_map` as the kernel has it, step by step over an array.
    struct Naive {
        map: Vec<bool>,
        lowest: usize,
        highest: usize,
        next: usize,
        nr: usize,
    }

    impl Naive {
        fn take(&mut self) -> Option<u32> {
            let pages = self.map.len() - 1;
            let in_use = self.map[1..].iter().filter(|used| **used).count();
            if in_use == pages {
                return None;
            }
            let mut at = self.next;
            if self.nr == 0 {
                self.nr = 255;
                at = self.lowest;
                if pages - in_use >= 256 {
                    let runs = self.lowest..=self.highest.saturating_sub(255);
                    let empty = |from: &usize| self.map[*from..from + 256].iter().all(|used| !used);
                    at = runs.clone().find(empty).unwrap_or(at);
                }
            } else {
                self.nr -= 1;
            }
            if at > self.highest {
                at = self.lowest;
            }
            while self.map[at] {
                at = if at < self.highest { at + 1 } else { self.lowest };
            }
            self.map[at] = true;
            self.next = at + 1;
            self.lowest += usize::from(at == self.lowest);
            self.highest -= usize::from(at == self.highest);
            if in_use + 1 == pages {
                (self.lowest, self.highest) = (pages + 1, 0);
            }
            Some(at as u32)
        }

        fn release(&mut self, slot: usize) {
            self.map[slot] = false;
            self.lowest = self.lowest.min(slot);
            self.highest = self.highest.max(slot);
        }
    }

    proptest::proptest! {
        #[test]
        fn slots_are_those_of_a_scan_of_the_whole_map(
            pages in 1u32..900,
            steps in proptest::collection::vec((0u32..40, 0u32..900), 0..80),
        ) {
            let mut swap = Swap::of_pages(pages);
            let mut naive = Naive {
                map: vec![false; pages as usize + 1],
                lowest: 1,
                highest: pages as usize,
                next: 1,
                nr: 0,
            };
            for (takes, freed) in steps {
                for _ in 0..takes {
                    proptest::prop_assert_eq!(swap.take_slot().map(|slot| slot.0), naive.take());
                }
                let slot = 1 + freed % pages;
                if naive.map[slot as usize] {
                    let _ = swap.release(SwapSlot(slot));
                    naive.release(slot as usize);
                }
            }
        }
    }

    #[test]
    fn swap_is_full_when_less_than_half_is_free() {
        let mut swap = Swap::of_pages(4);
        for _ in 0..2 {
            let _ = swap.take_slot();
        }
        assert!(!swap.is_full());
        let _ = swap.take_slot();
        assert!(swap.is_full());
        assert!(!Swap::default().is_full(), "there is none to run out of");
    }

    #[test]
    fn a_full_device_has_no_slot() {
        let mut swap = Swap::of_pages(1);
        let only = swap.take_slot().expect("one slot");
        assert_eq!(swap.take_slot(), None);
        let _ = swap.release(only);
        assert_eq!(swap.take_slot(), Some(only));
        assert_eq!(Swap::default().take_slot(), None);
    }
}
