//! From accesses of any size to references, which stay within a page.

use x86::{Access, PAGE_SHIFT, PAGE_SIZE, Reference, Va};

use super::summary::{Reason, Summary};
use crate::source::{BATCH, Place};

/// Largest access, in bytes: what the 16 bits of a drmemtrace entry can say.
pub(super) const LARGEST: u64 = u16::MAX as u64;

/// Most references that one record becomes: a modify, a load and a store, of the largest access.
const MOST_PER_RECORD: usize = 2 * ((LARGEST / PAGE_SIZE) as usize + 2);

/// A batch holding no more than this has room for one more record.
pub(super) const ROOM: usize = BATCH - MOST_PER_RECORD;

/// Counts what goes through.
#[derive(Debug, Default)]
pub(super) struct Intake {
    pub(super) summary: Summary,
}

impl Intake {
    /// Takes an access of `size` bytes, at most [`LARGEST`], where the recording says so.
    #[inline]
    pub(super) fn take(
        &mut self,
        access: Access,
        address: u64,
        size: u64,
        place: impl FnOnce() -> Place,
        out: &mut Vec<Reference>,
    ) {
        let Some(reference) = Reference::new(access, Va::new(address)) else {
            return self.summary.skip(Reason::NotCanonical, place());
        };
        out.push(reference);
        self.summary.references.add(access);
        let last = address.wrapping_add(size.saturating_sub(1));
        if address >> PAGE_SHIFT != last >> PAGE_SHIFT {
            self.split(access, address, last, out);
        }
    }

    /// The pages after the first. Those beyond the end of the address space do not exist.
    #[cold]
    fn split(&mut self, access: Access, address: u64, last: u64, out: &mut Vec<Reference>) {
        self.summary.split += 1;
        for page in (address >> PAGE_SHIFT) + 1..=last >> PAGE_SHIFT {
            let Some(reference) = Reference::new(access, Va::new(page << PAGE_SHIFT)) else {
                return;
            };
            out.push(reference);
            self.summary.references.add(access);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a load becomes.
    fn pages(address: u64, size: u64) -> (Vec<u64>, Summary) {
        let (mut intake, mut out) = (Intake::default(), Vec::new());
        intake.take(Access::Read, address, size, || Place::Byte(5), &mut out);
        (
            out.iter().map(|reference| reference.va().get()).collect(),
            intake.summary,
        )
    }

    #[test]
    fn an_access_within_a_page_is_one_reference() {
        assert_eq!(pages(0x1ff8, 8).0, [0x1ff8]);
        assert_eq!(pages(0x1ff8, 0).0, [0x1ff8]);
        assert_eq!(pages(0x1ff8, 8).1.split, 0);
    }

    #[test]
    fn an_access_across_pages_is_a_reference_to_each() {
        let (references, summary) = pages(0x1ffc, 8);
        assert_eq!(references, [0x1ffc, 0x2000]);
        assert_eq!((summary.split, summary.references.reads), (1, 2));
        assert_eq!(pages(0x1fff, LARGEST).0.len(), 17);
        assert!(pages(0x1fff, LARGEST).0.len() * 2 <= MOST_PER_RECORD);
    }

    #[test]
    fn what_is_not_canonical_is_skipped_and_counted() {
        let (references, summary) = pages(1 << 57, 8);
        assert!(references.is_empty());
        assert_eq!(summary.skipped[&Reason::NotCanonical].count, 1);
        assert_eq!(summary.skipped[&Reason::NotCanonical].first, Place::Byte(5));
    }

    #[test]
    fn an_access_across_the_end_of_a_half_stays_on_this_side() {
        assert_eq!(pages(0x00ff_ffff_ffff_fffc, 8).0, [0x00ff_ffff_ffff_fffc]);
        assert_eq!(pages(u64::MAX - 3, 8).0, [u64::MAX - 3]);
    }
}
