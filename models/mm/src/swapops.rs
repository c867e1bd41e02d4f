//! What an entry says that maps no page and yet is not empty: `swp_entry_t` and its relatives.
//!
//! Follows include/linux/swapops.h and include/asm-x86/pgtable_64.h of 2.6.27 (host-mm-paths B.1,
//! B.12, B.14, B.15). Three things live in entries that are not present: a slot of the swap device, a
//! migration entry (the frame that moves, and whether it was mapped writable), and the file offset
//! that a nonlinear mapping left behind. The kernel encodes the first two as types of one format;
//! here each has a [`x86::SoftwareTag`] of its own, which changes no count.

use x86::{Entry, Pfn, Pgoff, SoftwareTag};

/// A slot of the swap device.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SwapSlot(pub(crate) u32);

impl SwapSlot {
    /// Number of the slot, in pages from the start of the device.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

/// Whether the mapping that a migration entry replaced allowed stores (`is_write_migration_entry`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum MigrationAccess {
    /// Loads only.
    Read,
    /// Stores, too.
    Write,
}

/// Meaning of an entry that is neither empty nor maps a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum NonPresent {
    /// The page is in this slot of the swap device, or in the swap cache.
    Swap(SwapSlot),
    /// The page moves from this frame; who needs it waits for PG_locked.
    Migration(Pfn, MigrationAccess),
    /// A page of the file, at this place, which is not the linear one (`pte_file`).
    File(Pgoff),
}

const fn tag(number: u8) -> SoftwareTag {
    match SoftwareTag::new(number) {
        Some(tag) => tag,
        None => panic!("a software tag is between 1 and its maximum"),
    }
}

const SWAP: SoftwareTag = tag(1);
const MIGRATION_READ: SoftwareTag = tag(2);
const MIGRATION_WRITE: SoftwareTag = tag(3);
const FILE: SoftwareTag = tag(4);

impl NonPresent {
    /// What an entry says; `None` for an empty entry and for one that maps a page.
    #[inline]
    #[must_use]
    pub fn of(entry: Entry) -> Option<NonPresent> {
        if entry.maps_page() {
            return None;
        }
        let (tag, payload) = entry.as_software()?;
        Some(match tag {
            SWAP => NonPresent::Swap(SwapSlot(payload as u32)),
            MIGRATION_READ => NonPresent::Migration(Pfn::new(payload as u32), MigrationAccess::Read),
            MIGRATION_WRITE => NonPresent::Migration(Pfn::new(payload as u32), MigrationAccess::Write),
            _ => NonPresent::File(Pgoff::new(payload)),
        })
    }

    /// The entry that says it.
    #[inline]
    #[must_use]
    pub fn entry(self) -> Entry {
        match self {
            NonPresent::Swap(slot) => Entry::software(SWAP, u64::from(slot.0)),
            NonPresent::Migration(pfn, MigrationAccess::Read) => {
                Entry::software(MIGRATION_READ, u64::from(pfn.get()))
            }
            NonPresent::Migration(pfn, MigrationAccess::Write) => {
                Entry::software(MIGRATION_WRITE, u64::from(pfn.get()))
            }
            NonPresent::File(pgoff) => Entry::software(FILE, pgoff.get()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use x86::Rights;

    use super::*;

    fn meanings() -> impl Strategy<Value = NonPresent> {
        let access = prop_oneof![Just(MigrationAccess::Read), Just(MigrationAccess::Write)];
        prop_oneof![
            any::<u32>().prop_map(|slot| NonPresent::Swap(SwapSlot(slot))),
            (any::<u32>(), access).prop_map(|(pfn, access)| NonPresent::Migration(Pfn::new(pfn), access)),
            (0..1u64 << 40).prop_map(|pgoff| NonPresent::File(Pgoff::new(pgoff))),
        ]
    }

    proptest! {
        #[test]
        fn what_is_stored_in_an_entry_is_read_from_it(meaning in meanings()) {
            prop_assert_eq!(NonPresent::of(meaning.entry()), Some(meaning));
            prop_assert!(!meaning.entry().present() && !meaning.entry().is_none());
        }
    }

    #[test]
    fn pages_and_empty_entries_say_nothing() {
        let page = Entry::leaf(Pfn::new(7), Rights::USER_WRITE);
        assert_eq!(NonPresent::of(page), None);
        assert_eq!(
            NonPresent::of(page.with_no_access()),
            None,
            "PROT_NONE maps its page"
        );
        assert_eq!(NonPresent::of(Entry::NONE), None);
    }
}
