//! Sizes of pages that a leaf of the page tables can map.

use serde::{Deserialize, Serialize};

use crate::addr::{PAGE_SHIFT, Vpn};

/// Size of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum PageSize {
    /// 4 KiB, mapped by a PTE.
    #[serde(rename = "4k")]
    Size4K,
    /// 2 MiB, mapped by a PDE with PS set.
    #[serde(rename = "2m")]
    Size2M,
    /// 1 GiB, mapped by a PDPTE with PS set.
    #[serde(rename = "1g")]
    Size1G,
}

/// Index bits of one table level.
const LEVEL_BITS: u32 = 9;

impl PageSize {
    /// All sizes, smallest first.
    pub const ALL: [PageSize; 3] = [PageSize::Size4K, PageSize::Size2M, PageSize::Size1G];

    /// Bits of the page number that lie inside such a page: 0, 9 or 18.
    #[inline]
    #[must_use]
    pub const fn vpn_shift(self) -> u32 {
        self as u32 * LEVEL_BITS
    }

    /// Pages of 4 KiB in it.
    #[inline]
    #[must_use]
    pub const fn base_pages(self) -> u64 {
        1 << self.vpn_shift()
    }

    /// Bytes in it.
    #[inline]
    #[must_use]
    pub const fn bytes(self) -> u64 {
        1 << (self.vpn_shift() + PAGE_SHIFT)
    }

    /// The first 4 KiB page of the page of this size that `vpn` lies in.
    #[inline]
    #[must_use]
    pub const fn floor(self, vpn: Vpn) -> Vpn {
        Vpn::new(vpn.get() >> self.vpn_shift() << self.vpn_shift())
    }
}

impl std::fmt::Display for PageSize {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            PageSize::Size4K => "4k",
            PageSize::Size2M => "2m",
            PageSize::Size1G => "1g",
        })
    }
}

/// A set of page sizes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<PageSize>", into = "Vec<PageSize>")]
pub struct PageSizes(u8);

impl PageSizes {
    /// Only 4 KiB.
    pub const SMALL: PageSizes = PageSizes(1);
    /// Every size.
    pub const ALL: PageSizes = PageSizes(7);

    /// The set of these sizes.
    #[must_use]
    pub const fn of(sizes: &[PageSize]) -> Self {
        let mut set = 0;
        let mut at = 0;
        while at < sizes.len() {
            set |= 1 << sizes[at] as u8;
            at += 1;
        }
        PageSizes(set)
    }

    /// Whether the size is in the set.
    #[inline]
    #[must_use]
    pub const fn contains(self, size: PageSize) -> bool {
        self.0 & 1 << size as u8 != 0
    }

    /// The sizes, smallest first.
    pub fn iter(self) -> impl Iterator<Item = PageSize> {
        PageSize::ALL.into_iter().filter(move |&size| self.contains(size))
    }
}

impl From<Vec<PageSize>> for PageSizes {
    fn from(sizes: Vec<PageSize>) -> Self {
        PageSizes::of(&sizes)
    }
}

impl From<PageSizes> for Vec<PageSize> {
    fn from(sizes: PageSizes) -> Self {
        sizes.iter().collect()
    }
}
