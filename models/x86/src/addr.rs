//! Addresses and page numbers, one type for each space, and ranges that cannot be empty or inverted.
//!
//! There is no arithmetic across spaces and no `From<u64>`: a number becomes an address only where
//! somebody wrote down which space it lives in.

use std::fmt;

/// Bits of the offset inside a 4 KiB page (x86-64 architecture).
pub const PAGE_SHIFT: u32 = 12;
/// Bytes in a page (x86-64 architecture, 4 KiB).
pub const PAGE_SIZE: u64 = 1 << PAGE_SHIFT;
/// Entries in a table of any level (x86-64 architecture).
pub const ENTRIES_PER_TABLE: usize = 512;
/// Pages mapped by one page table of the lowest level (2 MiB worth).
pub const PT_SPAN_PAGES: u64 = ENTRIES_PER_TABLE as u64;
/// First byte address above the canonical lower half with four levels (2^47).
pub const LOWER_HALF_END: u64 = 1 << 47;

const PAGE_OFFSET_MASK: u64 = PAGE_SIZE - 1;

macro_rules! space {
    ($(#[$doc:meta])* $name:ident($repr:ty), $unit:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name($repr);

        impl $name {
            /// The value with this number.
            #[inline]
            #[must_use]
            pub const fn new(raw: $repr) -> Self {
                Self(raw)
            }

            /// The number.
            #[inline]
            #[must_use]
            pub const fn get(self) -> $repr {
                self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($unit, " {:#x}"), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($unit, " {:#x}"), self.0)
            }
        }
    };
}

macro_rules! byte_address {
    ($($name:ident),*) => {$(
        impl $name {
            /// The address rounded down to its page.
            #[inline]
            #[must_use]
            pub const fn page_floor(self) -> Self {
                Self(self.0 & !PAGE_OFFSET_MASK)
            }

            /// Byte offset inside the page.
            #[inline]
            #[must_use]
            pub const fn page_offset(self) -> u64 {
                self.0 & PAGE_OFFSET_MASK
            }

            /// Whether the address is the first byte of a page.
            #[inline]
            #[must_use]
            pub const fn is_page_aligned(self) -> bool {
                self.page_offset() == 0
            }

            /// The address this many pages further on; wraps at the end of the 64-bit space.
            #[inline]
            #[must_use]
            pub const fn add_pages(self, pages: u64) -> Self {
                Self(self.0.wrapping_add(pages << PAGE_SHIFT))
            }
        }
    )*};
}

macro_rules! page_number {
    ($($name:ident),*) => {$(
        impl $name {
            /// The page this many pages further on; wraps at the end of the 64-bit space.
            #[inline]
            #[must_use]
            pub const fn add(self, pages: u64) -> Self {
                Self(self.0.wrapping_add(pages))
            }
        }
    )*};
}

space!(
    /// Virtual byte address of a simulated process.
    Va(u64), "va"
);
space!(
    /// Virtual page number: a [`Va`] without its page offset.
    Vpn(u64), "vpn"
);
space!(
    /// Page frame number of simulated host memory; 32 bits cover 16 TiB.
    Pfn(u32), "pfn"
);
space!(
    /// Page offset inside a file or an address space.
    Pgoff(u64), "pgoff"
);
space!(
    /// Guest frame number: a [`Gpa`] without its page offset.
    Gfn(u64), "gfn"
);
space!(
    /// Guest physical byte address.
    Gpa(u64), "gpa"
);
space!(
    /// Host virtual byte address, as a secondary MMU's memory slot names it.
    Hva(u64), "hva"
);

byte_address!(Va, Gpa, Hva);
page_number!(Vpn, Pgoff, Gfn);

impl Va {
    /// The address, if it lies in the canonical lower half (user space, below 2^47).
    #[inline]
    #[must_use]
    pub const fn canonical(raw: u64) -> Option<Self> {
        if raw < LOWER_HALF_END {
            Some(Self(raw))
        } else {
            None
        }
    }

    /// The page the address lies in.
    #[inline]
    #[must_use]
    pub const fn vpn(self) -> Vpn {
        Vpn(self.0 >> PAGE_SHIFT)
    }
}

impl Vpn {
    /// First byte of the page.
    #[inline]
    #[must_use]
    pub const fn va(self) -> Va {
        Va(self.0 << PAGE_SHIFT)
    }
}

impl Pfn {
    /// The number, for indexing an arena of frames.
    #[inline]
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl Gpa {
    /// The guest frame the address lies in.
    #[inline]
    #[must_use]
    pub const fn gfn(self) -> Gfn {
        Gfn(self.0 >> PAGE_SHIFT)
    }
}

impl Gfn {
    /// First byte of the guest frame.
    #[inline]
    #[must_use]
    pub const fn gpa(self) -> Gpa {
        Gpa(self.0 << PAGE_SHIFT)
    }
}

impl Hva {
    /// The same address seen as an address of the process that owns it.
    #[inline]
    #[must_use]
    pub const fn va(self) -> Va {
        Va(self.0)
    }

    /// The address of a process's own memory as its secondary MMUs name it.
    #[inline]
    #[must_use]
    pub const fn of(va: Va) -> Self {
        Self(va.0)
    }
}

/// Half-open range of whole virtual pages, never empty.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VaRange {
    // Both page aligned, start < end.
    start: Va,
    end: Va,
}

impl VaRange {
    /// The range `start..end`, if both are page aligned and `start` comes first.
    #[must_use]
    pub const fn new(start: Va, end: Va) -> Option<Self> {
        if start.is_page_aligned() && end.is_page_aligned() && start.0 < end.0 {
            Some(Self { start, end })
        } else {
            None
        }
    }

    /// The range of `pages` pages from `start`, if it is aligned, not empty and does not wrap.
    #[must_use]
    pub const fn from_pages(start: Va, pages: u64) -> Option<Self> {
        if pages > u64::MAX >> PAGE_SHIFT {
            return None;
        }
        match start.0.checked_add(pages << PAGE_SHIFT) {
            Some(end) => Self::new(start, Va(end)),
            None => None,
        }
    }

    /// The one page an address lies in.
    ///
    /// # Panics
    /// If the address lies in the last page of the 64-bit space, which has no end address.
    #[must_use]
    pub const fn page_of(va: Va) -> Self {
        let start = va.page_floor();
        match Self::from_pages(start, 1) {
            Some(range) => range,
            None => panic!("the last page of the address space has no half-open range"),
        }
    }

    /// First byte.
    #[inline]
    #[must_use]
    pub const fn start(&self) -> Va {
        self.start
    }

    /// First byte after the range.
    #[inline]
    #[must_use]
    pub const fn end(&self) -> Va {
        self.end
    }

    /// Number of pages, at least one.
    #[inline]
    #[must_use]
    pub const fn pages(&self) -> u64 {
        (self.end.0 - self.start.0) >> PAGE_SHIFT
    }

    /// Whether the address lies in the range.
    #[inline]
    #[must_use]
    pub const fn contains(&self, va: Va) -> bool {
        self.start.0 <= va.0 && va.0 < self.end.0
    }

    /// Whether the other range lies inside this one.
    #[must_use]
    pub const fn contains_range(&self, other: &VaRange) -> bool {
        self.start.0 <= other.start.0 && other.end.0 <= self.end.0
    }

    /// The common part, if there is one.
    #[must_use]
    pub fn intersect(&self, other: &VaRange) -> Option<VaRange> {
        VaRange::new(self.start.max(other.start), self.end.min(other.end))
    }

    /// Whether the ranges share a page.
    #[inline]
    #[must_use]
    pub const fn overlaps(&self, other: &VaRange) -> bool {
        self.start.0 < other.end.0 && other.start.0 < self.end.0
    }

    /// The same pages as page numbers.
    #[inline]
    #[must_use]
    pub const fn vpn_range(&self) -> VpnRange {
        VpnRange {
            start: self.start.vpn(),
            end: self.end.vpn(),
        }
    }

    /// The pages, ascending.
    pub fn vpns(&self) -> impl DoubleEndedIterator<Item = Vpn> + use<> {
        self.vpn_range().iter()
    }
}

impl fmt::Debug for VaRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "va {:#x}..{:#x}", self.start.0, self.end.0)
    }
}

impl fmt::Display for VaRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Half-open range of virtual page numbers, never empty.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VpnRange {
    start: Vpn,
    end: Vpn,
}

impl VpnRange {
    /// The range `start..end`, if it is not empty.
    #[inline]
    #[must_use]
    pub const fn new(start: Vpn, end: Vpn) -> Option<Self> {
        if start.0 < end.0 {
            Some(Self { start, end })
        } else {
            None
        }
    }

    /// First page.
    #[inline]
    #[must_use]
    pub const fn start(&self) -> Vpn {
        self.start
    }

    /// First page after the range.
    #[inline]
    #[must_use]
    pub const fn end(&self) -> Vpn {
        self.end
    }

    /// Number of pages, at least one.
    #[inline]
    #[must_use]
    pub const fn pages(&self) -> u64 {
        self.end.0 - self.start.0
    }

    /// Whether the page lies in the range.
    #[inline]
    #[must_use]
    pub const fn contains(&self, vpn: Vpn) -> bool {
        self.start.0 <= vpn.0 && vpn.0 < self.end.0
    }

    /// The pages, ascending.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Vpn> + use<> {
        (self.start.0..self.end.0).map(Vpn)
    }
}

impl fmt::Debug for VpnRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "vpn {:#x}..{:#x}", self.start.0, self.end.0)
    }
}

/// Inclusive range of file page offsets, never empty.
///
/// Inclusive because that is how the kernel's `i_mmap` walks name it ([first, last]), and because
/// "to the end of the file" must be expressible ([`PgoffRange::to_eof`]).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PgoffRange {
    first: Pgoff,
    last: Pgoff,
}

impl PgoffRange {
    /// The range `first..=last`, if it is not inverted.
    #[must_use]
    pub const fn new(first: Pgoff, last: Pgoff) -> Option<Self> {
        if first.0 <= last.0 {
            Some(Self { first, last })
        } else {
            None
        }
    }

    /// The range of `pages` pages from `first`, if it is not empty and does not wrap.
    #[must_use]
    pub const fn from_pages(first: Pgoff, pages: u64) -> Option<Self> {
        if pages == 0 {
            return None;
        }
        match first.0.checked_add(pages - 1) {
            Some(last) => Self::new(first, Pgoff(last)),
            None => None,
        }
    }

    /// Everything from `first` on, as `unmap_mapping_range(.., holelen = 0)` means it.
    #[must_use]
    pub const fn to_eof(first: Pgoff) -> Self {
        Self {
            first,
            last: Pgoff(u64::MAX),
        }
    }

    /// First page offset.
    #[inline]
    #[must_use]
    pub const fn first(&self) -> Pgoff {
        self.first
    }

    /// Last page offset, inside the range.
    #[inline]
    #[must_use]
    pub const fn last(&self) -> Pgoff {
        self.last
    }

    /// Number of pages; saturates for the whole 64-bit space.
    #[must_use]
    pub const fn pages(&self) -> u64 {
        (self.last.0 - self.first.0).saturating_add(1)
    }

    /// Whether the page offset lies in the range.
    #[inline]
    #[must_use]
    pub const fn contains(&self, at: Pgoff) -> bool {
        self.first.0 <= at.0 && at.0 <= self.last.0
    }

    /// The common part, if there is one.
    #[must_use]
    pub fn intersect(&self, other: &PgoffRange) -> Option<PgoffRange> {
        PgoffRange::new(self.first.max(other.first), self.last.min(other.last))
    }

    /// Whether the ranges share a page.
    #[inline]
    #[must_use]
    pub const fn overlaps(&self, other: &PgoffRange) -> bool {
        self.first.0 <= other.last.0 && other.first.0 <= self.last.0
    }

    /// The page offsets, ascending.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Pgoff> + use<> {
        (self.first.0..=self.last.0).map(Pgoff)
    }
}

impl fmt::Debug for PgoffRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.last.0 == u64::MAX {
            write!(f, "pgoff {:#x}..", self.first.0)
        } else {
            write!(f, "pgoff {:#x}..={:#x}", self.first.0, self.last.0)
        }
    }
}

impl fmt::Display for PgoffRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_refuse_empty_inverted_and_unaligned() {
        assert!(VaRange::new(Va::new(0x1000), Va::new(0x1000)).is_none());
        assert!(VaRange::new(Va::new(0x2000), Va::new(0x1000)).is_none());
        assert!(VaRange::new(Va::new(0x1001), Va::new(0x2000)).is_none());
        assert!(VaRange::from_pages(Va::new(0x1000), 0).is_none());
        assert!(VaRange::from_pages(Va::new(0x1000), u64::MAX).is_none());
        assert!(PgoffRange::new(Pgoff::new(2), Pgoff::new(1)).is_none());
        assert!(PgoffRange::from_pages(Pgoff::new(2), 0).is_none());
        assert!(VpnRange::new(Vpn::new(4), Vpn::new(4)).is_none());
    }

    #[test]
    fn intersections_are_the_common_pages() {
        let a = VaRange::from_pages(Va::new(0x1000), 4).unwrap();
        let b = VaRange::from_pages(Va::new(0x3000), 4).unwrap();
        let both = a.intersect(&b).unwrap();
        assert_eq!((both.start(), both.pages()), (Va::new(0x3000), 2));
        assert!(a.overlaps(&b));
        let far = VaRange::from_pages(Va::new(0x5000), 1).unwrap();
        assert!(!a.overlaps(&far) && a.intersect(&far).is_none());
        assert_eq!(
            a.vpns().collect::<Vec<_>>(),
            (1..5).map(Vpn::new).collect::<Vec<_>>()
        );
        assert!(PgoffRange::to_eof(Pgoff::new(3)).contains(Pgoff::new(u64::MAX)));
    }

    #[test]
    fn only_the_lower_half_is_canonical() {
        assert!(Va::canonical(LOWER_HALF_END - 1).is_some());
        assert!(Va::canonical(LOWER_HALF_END).is_none());
        assert_eq!(format!("{}", Va::new(0x7f00_1234).vpn()), "vpn 0x7f001");
    }
}
