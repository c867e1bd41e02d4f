//! What is known of each page of a trace: where it is, and what its misses cost.
//!
//! Frames are handed out in three ranges, one for each page size, so a frame number alone names its
//! page: `(frame - start of its range) / frames in a page`. Ranges are address space, not memory; they
//! hold 2 TiB of 4 KiB pages, 2 TiB of 2 MiB pages and 4 TiB of 1 GiB pages.

use x86::cache::CACHED_FRAME_BITS;
use x86::{PageSize, Pfn, Vpn};

const SMALL_START: u32 = 0;
const LARGE_START: u32 = 1 << (CACHED_FRAME_BITS - 2);
const HUGE_START: u32 = 1 << (CACHED_FRAME_BITS - 1);
const END: u32 = 1 << CACHED_FRAME_BITS;

/// A page that was touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// First 4 KiB page.
    pub vpn: Vpn,
    /// Its size.
    pub size: PageSize,
    /// What its misses cost.
    pub cost: PageCost,
}

/// Misses of one page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PageCost {
    /// First-level misses that hit the second level.
    pub second_level_hits: u64,
    /// Walks.
    pub walks: u64,
    /// Cycles of these walks.
    pub walk_cycles: u64,
}

/// More pages than frame numbers can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the trace touches more {size} pages than can be told apart ({most}): use larger pages")]
pub struct TooManyPages {
    /// Size of the pages.
    pub size: PageSize,
    /// Most there can be.
    pub most: u32,
}

#[derive(Clone, Debug, Default)]
struct Table {
    vpns: Vec<Vpn>,
    second_level_hits: Vec<u64>,
    walks: Vec<Walks>,
    // Walks that no longer fit `walks`, by page, in order of overflow.
    spilled: Vec<(u32, u64, u64)>,
}

// Eight bytes a page, since each miss of a large footprint brings one of these in from far.
#[derive(Clone, Copy, Debug, Default)]
struct Walks {
    walks: u32,
    cycles: u32,
}

/// All pages touched so far. Small pages, the most by far, are counted without asking for their size:
/// their frames start at 0.
#[derive(Clone, Debug, Default)]
pub struct Pages {
    tables: [Table; PageSize::ALL.len()],
}

const fn range(size: PageSize) -> (u32, u32) {
    match size {
        PageSize::Size4K => (SMALL_START, LARGE_START),
        PageSize::Size2M => (LARGE_START, HUGE_START),
        PageSize::Size1G => (HUGE_START, END),
    }
}

#[inline]
pub(crate) const fn page_of(pfn: Pfn) -> (PageSize, usize) {
    let size = match pfn.get() {
        HUGE_START.. => PageSize::Size1G,
        LARGE_START.. => PageSize::Size2M,
        _ => PageSize::Size4K,
    };
    (size, ((pfn.get() - range(size).0) >> size.vpn_shift()) as usize)
}

impl Pages {
    /// A new page, with frames of its own.
    ///
    /// # Errors
    /// If no frame numbers of this size are left.
    pub fn add(&mut self, vpn: Vpn, size: PageSize) -> Result<Pfn, TooManyPages> {
        let (start, end) = range(size);
        let table = &mut self.tables[size as usize];
        let most = (end - start) >> size.vpn_shift();
        if table.vpns.len() as u32 >= most {
            return Err(TooManyPages { size, most });
        }
        let pfn = Pfn::new(start + ((table.vpns.len() as u32) << size.vpn_shift()));
        table.vpns.push(size.floor(vpn));
        table.second_level_hits.push(0);
        table.walks.push(Walks::default());
        Ok(pfn)
    }

    /// A first-level miss that hit the second level.
    #[inline]
    pub fn second_level_hit(&mut self, pfn: Pfn) {
        let [small, ..] = &mut self.tables;
        if let Some(hits) = small.second_level_hits.get_mut(pfn.index()) {
            *hits += 1;
            return;
        }
        let (size, at) = page_of(pfn);
        self.tables[size as usize].second_level_hits[at] += 1;
    }

    /// A walk of so many cycles.
    #[inline]
    pub fn walked(&mut self, pfn: Pfn, cycles: u32) {
        let [small, ..] = &mut self.tables;
        if let Some(walks) = small.walks.get_mut(pfn.index())
            && let Some(sum) = walks.cycles.checked_add(cycles)
        {
            walks.cycles = sum;
            // Every walk costs a cycle at least, so cycles overflow first.
            walks.walks += 1;
            return;
        }
        self.walked_any(pfn, cycles);
    }

    #[inline(never)]
    fn walked_any(&mut self, pfn: Pfn, cycles: u32) {
        let (size, at) = page_of(pfn);
        let table = &mut self.tables[size as usize];
        let walks = &mut table.walks[at];
        let Some(sum) = walks.cycles.checked_add(cycles) else {
            let full = std::mem::replace(walks, Walks { walks: 1, cycles });
            table
                .spilled
                .push((at as u32, u64::from(full.walks), u64::from(full.cycles)));
            return;
        };
        walks.cycles = sum;
        walks.walks += 1;
    }

    /// Reads what [`Pages::walked`] will read of a small page.
    #[inline]
    #[must_use]
    pub fn look_ahead(&self, pfn: Pfn) -> u32 {
        let [small, ..] = &self.tables;
        small.walks.get(pfn.index()).map_or(0, |w| w.walks)
    }

    /// Pages of a size touched so far, those given up since included.
    #[must_use]
    pub fn count(&self, size: PageSize) -> u64 {
        self.tables[size as usize].vpns.len() as u64
    }

    /// All pages, by size and then in the order of their first touch.
    #[must_use]
    pub fn all(&self) -> Vec<Page> {
        let mut pages = Vec::new();
        for (size, table) in PageSize::ALL.into_iter().zip(&self.tables) {
            let first = pages.len();
            pages.extend((0..table.vpns.len()).map(|at| Page {
                vpn: table.vpns[at],
                size,
                cost: PageCost {
                    second_level_hits: table.second_level_hits[at],
                    walks: u64::from(table.walks[at].walks),
                    walk_cycles: u64::from(table.walks[at].cycles),
                },
            }));
            for &(at, walks, cycles) in &table.spilled {
                let cost: &mut PageCost = &mut pages[first + at as usize].cost;
                cost.walks += walks;
                cost.walk_cycles += cycles;
            }
        }
        pages
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_names_its_page_in_every_size() {
        let mut pages = Pages::default();
        for size in PageSize::ALL {
            for n in 0..3 {
                let pfn = pages.add(Vpn::new(n * size.base_pages() + 1), size).unwrap();
                assert_eq!(page_of(pfn), (size, n as usize));
                assert_eq!(pfn.get() % size.base_pages() as u32, 0);
            }
        }
        assert_eq!(pages.all()[3].vpn, Vpn::new(0));
    }

    #[test]
    fn walks_are_not_lost_when_their_cycles_overflow() {
        let mut pages = Pages::default();
        let pfn = pages.add(Vpn::new(7), PageSize::Size4K).unwrap();
        for _ in 0..5 {
            pages.walked(pfn, u32::MAX / 2);
        }
        let cost = pages.all()[0].cost;
        assert_eq!((cost.walks, cost.walk_cycles), (5, 5 * u64::from(u32::MAX / 2)));
    }
}
