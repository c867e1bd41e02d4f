//! Memory slots and their reverse maps.
//!
//! `hva = userspace_addr + (gfn - base_gfn) * 4096` and back; several slots may cover one host
//! address, so a page of the host can be mapped at several guest frames (secondary-mmus 1.1). A
//! reverse map has one head for each gfn. With direct tables there is exactly one leaf for each gfn,
//! so the head holds it itself, the kernel's "bit 0 clear" form, and never a chain.

use x86::{Generation, Gfn, TableId, Va, VaRange};

use crate::config::MemSlot;

/// Where the spte of a gfn is, and which life of its frame it maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rmap {
    pub(crate) table: TableId,
    pub(crate) index: usize,
    pub(crate) generation: Generation,
}

pub(crate) struct Slot {
    pub(crate) base_gfn: Gfn,
    pub(crate) hva: VaRange,
    pub(crate) rmap: Vec<Option<Rmap>>,
}

impl Slot {
    fn new(slot: &MemSlot) -> Self {
        Slot {
            base_gfn: slot.base_gfn,
            hva: slot.hva_range().expect("a checked slot is a range"),
            rmap: vec![None; slot.pages as usize],
        }
    }

    fn index_of(&self, gfn: Gfn) -> Option<usize> {
        let index = gfn.get().checked_sub(self.base_gfn.get())? as usize;
        (index < self.rmap.len()).then_some(index)
    }

    /// Indices of the pages that a host range covers.
    pub(crate) fn covered(&self, range: VaRange) -> std::ops::Range<usize> {
        match self.hva.intersect(&range) {
            None => 0..0,
            Some(part) => {
                let first = (part.start().vpn().get() - self.hva.start().vpn().get()) as usize;
                first..first + part.pages() as usize
            }
        }
    }
}

/// All slots of a virtual machine, in the order of its configuration.
pub(crate) struct Slots(Vec<Slot>);

impl Slots {
    pub(crate) fn new(slots: &[MemSlot]) -> Self {
        Slots(slots.iter().map(Slot::new).collect())
    }

    pub(crate) fn len(&self) -> u64 {
        self.0.len() as u64
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Slot> {
        self.0.iter_mut()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Slot> {
        self.0.iter()
    }

    /// `gfn_to_hva`.
    pub(crate) fn hva(&self, gfn: Gfn) -> Option<Va> {
        self.0
            .iter()
            .find_map(|s| s.index_of(gfn).map(|i| s.hva.start().add_pages(i as u64)))
    }

    /// The reverse map of a gfn.
    pub(crate) fn rmap(&mut self, gfn: Gfn) -> Option<&mut Option<Rmap>> {
        self.0
            .iter_mut()
            .find_map(|s| s.index_of(gfn).map(|i| &mut s.rmap[i]))
    }

    pub(crate) fn pages(&self) -> u64 {
        self.0.iter().map(|s| s.rmap.len() as u64).sum()
    }

    /// The n-th guest page, counting through the slots in order.
    pub(crate) fn gfn_of_index(&self, index: u64) -> Option<Gfn> {
        let mut left = index;
        for slot in &self.0 {
            let pages = slot.rmap.len() as u64;
            if left < pages {
                return Some(slot.base_gfn.add(left));
            }
            left -= pages;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two() -> Slots {
        let slot = |gfn, pages, hva| MemSlot {
            base_gfn: Gfn::new(gfn),
            pages,
            hva: Va::new(hva),
        };
        Slots::new(&[slot(0x10, 4, 0x70_0000), slot(0x100, 2, 0x70_2000)])
    }

    #[test]
    fn host_and_guest_addresses_translate_both_ways() {
        let mut slots = two();
        assert_eq!(slots.hva(Gfn::new(0x13)), Some(Va::new(0x70_3000)));
        assert_eq!(slots.hva(Gfn::new(0x14)), None);
        assert_eq!(slots.hva(Gfn::new(0xf)), None);
        assert!(slots.rmap(Gfn::new(0x101)).is_some());
        assert!(slots.rmap(Gfn::new(0x102)).is_none());
        // Both slots map the third page of the first.
        let page = VaRange::page_of(Va::new(0x70_2000));
        let covered: Vec<_> = slots.iter().map(|s| s.covered(page)).collect();
        assert_eq!(covered, [2..3, 0..1]);
    }

    #[test]
    fn guest_pages_are_numbered_through_the_slots() {
        let slots = two();
        assert_eq!(slots.pages(), 6);
        assert_eq!(slots.gfn_of_index(3), Some(Gfn::new(0x13)));
        assert_eq!(slots.gfn_of_index(4), Some(Gfn::new(0x100)));
        assert_eq!(slots.gfn_of_index(6), None);
    }
}
