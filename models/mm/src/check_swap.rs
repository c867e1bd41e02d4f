//! Conservation of swap slots and of pages on the LRU lists.
//!
//! The count of each slot is the number of entries that name it, in all address spaces, plus one if its page is
//! in the swap cache; each of these holds a reference (F6). And no page is lost to reclaim: one that is mapped
//! or cached is on exactly one LRU list, or in a pagevec on its way there; nobody has isolated any.

use std::collections::BTreeMap;

use x86::{Entry, Pfn};

use crate::frame::{Frames, LruList, PageFlags};
use crate::kernel::{Kernel, State};
use crate::swapops::{NonPresent, SwapSlot};

/// Entries that name each slot.
#[derive(Default)]
pub(crate) struct NamedSlots(BTreeMap<SwapSlot, u32>);

impl NamedSlots {
    /// An entry that maps no page was found.
    pub(crate) fn note(&mut self, entry: Entry) {
        if let Some(NonPresent::Swap(slot)) = NonPresent::of(entry) {
            *self.0.entry(slot).or_default() += 1;
        }
    }
}

impl Kernel {
    /// Slots against entries and the cache.
    pub(crate) fn audit_swap(
        &self,
        st: &State,
        named: &NamedSlots,
        cached: &mut BTreeMap<Pfn, u32>,
        frames: &Frames,
        wrong: &mut Vec<String>,
    ) {
        let mut expected = named.0.clone();
        for (pfn, slot) in st.swap.cached_pages() {
            *expected.entry(slot).or_default() += 1;
            *cached.entry(pfn).or_default() += 1;
            if !frames.get(pfn).flags.has(PageFlags::SWAPCACHE) || st.swap.lookup(slot) != Some(pfn) {
                wrong.push(format!(
                    "{pfn}: in the swap cache, but its flag or its slot says no"
                ));
            }
        }
        let counted: BTreeMap<SwapSlot, u32> = st.swap.counts().collect();
        for slot in counted.keys().chain(expected.keys()) {
            let (count, users) = (counted.get(slot), expected.get(slot));
            if count != users {
                wrong.push(format!(
                    "swap slot {}: count {}, but {} entries and pages of the cache",
                    slot.get(),
                    count.unwrap_or(&0),
                    users.unwrap_or(&0)
                ));
            }
        }
    }

    /// Every page that is mapped or cached can be found by reclaim, but for huge pages and the zero page,
    /// which are on no list.
    pub(crate) fn audit_lru(
        &self,
        maps: &BTreeMap<Pfn, u32>,
        cached: &BTreeMap<Pfn, u32>,
        waiting: &BTreeMap<Pfn, u32>,
        frames: &Frames,
        wrong: &mut Vec<String>,
    ) {
        let mut listed = BTreeMap::new();
        for list in [LruList::Inactive, LruList::Active] {
            for pfn in frames.lru_pages(self.zone, list) {
                *listed.entry(pfn).or_insert(0_u32) += 1;
                let flags = frames.get(pfn).flags;
                if !flags.has(PageFlags::LRU) || flags.has(PageFlags::ACTIVE) != (list == LruList::Active) {
                    wrong.push(format!("{pfn}: on the {list:?} list, but its flags deny it"));
                }
            }
        }
        for (pfn, times) in &listed {
            if *times > 1 {
                wrong.push(format!("{pfn}: {times} times on the LRU lists"));
            }
        }
        let zero_page = self.state.borrow().zero_page;
        let used = maps.keys().chain(cached.keys()).filter(|pfn| {
            let frame = frames.get(**pfn);
            frame.zone() == self.zone && !frame.flags.has(PageFlags::HUGE) && Some(**pfn) != zero_page
        });
        for pfn in used {
            if !listed.contains_key(pfn) && !waiting.contains_key(pfn) {
                wrong.push(format!(
                    "{pfn}: in use, but neither on an LRU list nor on its way to one"
                ));
            }
        }
    }
}
