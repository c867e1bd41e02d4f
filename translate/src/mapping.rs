//! How the memory of a trace is mapped: a page at a time, at its first touch.
//!
//! With `thp` every page starts as 4 KiB, and a region of 2 MiB becomes one page once enough of its
//! pages were touched, as khugepaged would do it (Linux mm/khugepaged.c, `collapse_huge_page`): the PMD
//! entry is cleared, the address space flushed (512 pages are past the ceiling of 33, reference row
//! T11), the large page mapped, the small frames and the page table given back. khugepaged's
//! `max_ptes_none` says how many pages may be untouched; its default of 511 collapses a region at its
//! first touch, but only when its slow scan comes by, so [`Thp::DEFAULT`] waits for an eighth of the
//! region. Regions first touched by an instruction fetch are file mappings and stay as they are.

use std::fmt;
use std::str::FromStr;

use x86::mmu::Memory;
use x86::{Access, ENTRIES_PER_TABLE, Entry, Level, PageSize, Pfn, Rights, TableId, Vpn};

use crate::pages::{Pages, TooManyPages};

/// When a region of 2 MiB becomes one page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thp {
    touched: u16,
}

impl Thp {
    /// After 64 of 512 pages.
    pub const DEFAULT: Thp = Thp { touched: 64 };

    /// After so many touched pages, 1 to 512.
    #[must_use]
    pub const fn after(touched: u16) -> Option<Self> {
        if touched >= 1 && touched as usize <= ENTRIES_PER_TABLE {
            Some(Thp { touched })
        } else {
            None
        }
    }
}

/// How a trace's memory is mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PagePolicy {
    /// Pages of one size everywhere.
    Fixed(PageSize),
    /// Small pages that become large ones.
    Thp(Thp),
}

impl fmt::Display for PagePolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PagePolicy::Fixed(size) => size.fmt(f),
            PagePolicy::Thp(Thp::DEFAULT) => f.write_str("thp"),
            PagePolicy::Thp(Thp { touched }) => write!(f, "thp={touched}"),
        }
    }
}

impl FromStr for PagePolicy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "4k" => Ok(PagePolicy::Fixed(PageSize::Size4K)),
            "2m" => Ok(PagePolicy::Fixed(PageSize::Size2M)),
            "1g" => Ok(PagePolicy::Fixed(PageSize::Size1G)),
            "thp" => Ok(PagePolicy::Thp(Thp::DEFAULT)),
            _ => text
                .strip_prefix("thp=")
                .and_then(|n| Thp::after(n.parse().ok()?))
                .map(PagePolicy::Thp)
                .ok_or_else(|| "pages are 4k, 2m, 1g, thp, or thp=N with N from 1 to 512".to_owned()),
        }
    }
}

/// What a page table of the lowest level maps, for `thp`.
#[derive(Clone, Copy, Debug, Default)]
struct Region {
    touched: u16,
    kind: RegionKind,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum RegionKind {
    #[default]
    Untouched,
    Data,
    Code,
}

/// Maps pages as they are touched.
#[derive(Clone, Debug)]
pub struct Mapper {
    policy: PagePolicy,
    root: TableId,
    // By number of the page table.
    regions: Vec<Region>,
    collapses: u64,
}

/// A region that is due to become one page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a region that is due must be collapsed"]
pub struct Due {
    /// First page.
    pub vpn: Vpn,
    table: TableId,
}

/// What a collapse took apart: free these once no TLB can use them.
#[derive(Debug)]
#[must_use = "frames and table are still allocated"]
pub struct Collapsed {
    /// The small frames.
    pub frames: Vec<Pfn>,
    /// The page table.
    pub table: TableId,
}

// A trace says nothing of rights: everything is allowed, and no access faults for lack of them.
const RIGHTS: Rights = Rights::ALL;

impl Mapper {
    /// A mapper for the address space of this root.
    #[must_use]
    pub fn new(policy: PagePolicy, root: TableId) -> Self {
        Mapper {
            policy,
            root,
            regions: Vec::new(),
            collapses: 0,
        }
    }

    /// Regions that became one page.
    #[must_use]
    pub const fn collapses(&self) -> u64 {
        self.collapses
    }

    /// Maps the page at `vpn` for its first access: young, and dirty for a store, as Linux maps an
    /// anonymous page (mm/memory.c, `do_anonymous_page`). New tables lie on `node`.
    ///
    /// # Errors
    /// If there are too many pages.
    pub fn map(
        &mut self,
        memory: &mut Memory,
        pages: &mut Pages,
        vpn: Vpn,
        access: Access,
        node: u32,
    ) -> Result<Option<Due>, TooManyPages> {
        let (size, thp) = match self.policy {
            PagePolicy::Fixed(size) => (size, None),
            PagePolicy::Thp(thp) => (PageSize::Size4K, Some(thp)),
        };
        let pfn = pages.add(vpn, size)?;
        let level = Level::of_leaf(size);
        let mut fresh = Vec::new();
        let table = memory
            .tables
            .populate_to(self.root, vpn, level, |_, table| fresh.push(table));
        for table in fresh {
            memory.place(table, node);
        }
        let leaf = Entry::leaf_of(size, pfn, RIGHTS).with_accessed();
        let leaf = if access.is_write() {
            leaf.with_dirty()
        } else {
            leaf
        };
        memory.tables.set(table, level.index_of(vpn), leaf);
        Ok(thp.and_then(|thp| self.touch(thp, table, vpn, access)))
    }

    fn touch(&mut self, thp: Thp, table: TableId, vpn: Vpn, access: Access) -> Option<Due> {
        let at = table.get() as usize;
        if self.regions.len() <= at {
            self.regions.resize(at + 1, Region::default());
        }
        let region = &mut self.regions[at];
        region.touched += 1;
        if region.kind == RegionKind::Untouched {
            region.kind = match access {
                Access::Fetch => RegionKind::Code,
                Access::Read | Access::Write => RegionKind::Data,
            };
        }
        let due = region.kind == RegionKind::Data && region.touched == thp.touched;
        due.then(|| Due {
            vpn: PageSize::Size2M.floor(vpn),
            table,
        })
    }

    /// Takes the page table out of the tree. The caller flushes, then calls [`Mapper::install`], then
    /// gives back what was taken apart.
    pub fn isolate(&mut self, memory: &mut Memory, due: Due) -> Collapsed {
        let (parent, index) = self.parent_of(memory, due.vpn);
        memory.tables.set(parent, index, Entry::NONE);
        let entries = memory.tables.table(due.table).iter();
        let frames = entries
            .filter(|entry| entry.present())
            .map(|entry| entry.pfn())
            .collect();
        self.regions[due.table.get() as usize] = Region::default();
        self.collapses += 1;
        Collapsed {
            frames,
            table: due.table,
        }
    }

    /// Maps the large page.
    ///
    /// # Errors
    /// If there are too many pages.
    pub fn install(&mut self, memory: &mut Memory, pages: &mut Pages, due: Due) -> Result<(), TooManyPages> {
        let pfn = pages.add(due.vpn, PageSize::Size2M)?;
        let (parent, index) = self.parent_of(memory, due.vpn);
        let leaf = Entry::leaf_of(PageSize::Size2M, pfn, RIGHTS);
        memory.tables.set(parent, index, leaf);
        Ok(())
    }

    fn parent_of(&self, memory: &mut Memory, vpn: Vpn) -> (TableId, usize) {
        let table = memory.tables.populate_to(self.root, vpn, Level::Pmd, |_, _| {});
        (table, Level::Pmd.index_of(vpn))
    }
}
