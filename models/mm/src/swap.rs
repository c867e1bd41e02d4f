//! The swap device's slots and the swap cache.
//!
//! Follows mm/swapfile.c and mm/swap_state.c of 2.6.27 (host-mm-paths A.5, B.12). A slot counts the
//! entries that name it, plus one while its page is in the swap cache; at zero it is free. A page in the
//! swap cache is anonymous, is locked whenever it enters or leaves, and has one reference from the cache.
//! The slots are under `swap_lock`, the cache under the tree_lock of `swapper_space`, taken with
//! interrupts off. Here is the data; who locks what: swapfile.rs and swap_state.rs.
//!
//! Deviation: slots are handed out lowest first, where the kernel keeps clusters of 256 apart; nothing
//! depends on a slot's number, as the device's latency does not depend on the distance.

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

/// A swap device and its cache.
#[derive(Clone, Debug, Default)]
pub struct Swap {
    // swap_map: uses of each slot that was ever handed out.
    counts: Vec<u32>,
    free: BTreeSet<SwapSlot>,
    limit: u32,
    cached: BTreeMap<SwapSlot, Pfn>,
    slot_of: BTreeMap<Pfn, SwapSlot>,
}

impl Swap {
    /// A device of so many pages; with none, nothing can be swapped.
    #[must_use]
    pub fn of_pages(pages: u32) -> Self {
        Swap {
            limit: pages,
            ..Swap::default()
        }
    }

    /// `get_swap_page`: a free slot, with one use for the swap cache.
    pub fn take_slot(&mut self) -> Option<SwapSlot> {
        let slot = match self.free.pop_first() {
            Some(slot) => slot,
            None if self.counts.len() >= self.limit as usize => return None,
            None => {
                self.counts.push(0);
                SwapSlot((self.counts.len() - 1) as u32)
            }
        };
        self.counts[slot.0 as usize] = 1;
        Some(slot)
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
        self.free.insert(slot);
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
    /// `1 << page_cluster`; ascending.
    #[must_use]
    pub fn cluster_around(&self, slot: SwapSlot, page_cluster: u32) -> Vec<SwapSlot> {
        let base = slot.0 >> page_cluster << page_cluster;
        let end = base.saturating_add(1 << page_cluster);
        let used = |n: &u32| self.count(SwapSlot(*n)) > 0;
        let below = (base..slot.0).rev().take_while(used).count() as u32;
        let above = (slot.0 + 1..end).take_while(used).count() as u32;
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
        (self.counts.len() - self.free.len()) as u64
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
        assert_eq!(around(3), (0..8).collect::<Vec<_>>());
        assert_eq!(around(9), [8, 9, 10], "11 is free");
        assert_eq!(around(13), [12, 13, 14, 15]);
        assert_eq!(around(17), [16, 17, 18, 19], "the others were never used");
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
