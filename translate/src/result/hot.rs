//! Which pages and regions cost most.

use reports::schema::translate::{HotCost, HotPage, HotRegion, ratio};
use x86::PAGE_SHIFT;

use crate::pages::{Page, PageCost};

/// Untouched pages that part two regions: as many as one page table maps (2 MiB, x86-64 architecture),
/// so that what shares upper-level entries stays together.
const GAP: u64 = x86::PT_SPAN_PAGES;

/// Touched pages near each other.
#[derive(Clone, Copy)]
struct Region {
    // Page numbers, half open.
    start: u64,
    end: u64,
    pages: u64,
    cost: PageCost,
}

fn add(a: PageCost, b: PageCost) -> PageCost {
    PageCost {
        second_level_hits: a.second_level_hits + b.second_level_hits,
        walks: a.walks + b.walks,
        walk_cycles: a.walk_cycles + b.walk_cycles,
    }
}

/// Cycles of the walks of all pages.
pub(super) fn walk_cycles(pages: &[Page]) -> u64 {
    pages.iter().map(|page| page.cost.walk_cycles).sum()
}

fn hot(cost: PageCost, all: u64) -> HotCost {
    HotCost {
        second_level_hits: cost.second_level_hits,
        walks: cost.walks,
        walk_cycles: cost.walk_cycles,
        share: ratio(cost.walk_cycles, all),
    }
}

fn address(page: u64) -> String {
    format!("{:#x}", page << PAGE_SHIFT)
}

/// The dearest pages, those without walks left out.
pub(super) fn pages(pages: &[Page], top: usize) -> Vec<HotPage> {
    let all = walk_cycles(pages);
    let order = |page: &&Page| (std::cmp::Reverse(page.cost.walk_cycles), page.vpn, page.size);
    let mut dear: Vec<&Page> = pages.iter().filter(|page| page.cost.walks > 0).collect();
    // Only the top is put in order: there may be millions.
    if top < dear.len() {
        dear.select_nth_unstable_by_key(top, order);
        dear.truncate(top);
    }
    dear.sort_unstable_by_key(order);
    let row = |page: &Page| HotPage {
        address: address(page.vpn.get()),
        size: page.size.to_string(),
        cost: hot(page.cost, all),
    };
    dear.into_iter().map(row).collect()
}

/// The dearest regions, those without walks left out.
pub(super) fn regions(pages: &[Page], top: usize) -> Vec<HotRegion> {
    let all = walk_cycles(pages);
    let mut dear: Vec<Region> = together(pages);
    dear.retain(|region| region.cost.walks > 0);
    dear.sort_unstable_by_key(|region| (std::cmp::Reverse(region.cost.walk_cycles), region.start));
    let row = |region: &Region| HotRegion {
        start: address(region.start),
        end: address(region.end),
        pages: region.pages,
        cost: hot(region.cost, all),
    };
    dear.iter().take(top).map(row).collect()
}

fn together(pages: &[Page]) -> Vec<Region> {
    // Keys beside each other, since pages come in the order of their first touch.
    let mut sorted: Vec<_> = (0..)
        .zip(pages)
        .map(|(at, page)| (page.vpn, page.size, at))
        .collect();
    sorted.sort_unstable();
    let mut regions: Vec<Region> = Vec::new();
    for (_, _, at) in sorted {
        let page: &Page = &pages[at];
        let start = page.vpn.get();
        let end = start + page.size.base_pages();
        match regions.last_mut() {
            Some(region) if start < region.end + GAP => {
                region.end = region.end.max(end);
                region.pages += 1;
                region.cost = add(region.cost, page.cost);
            }
            _ => regions.push(Region {
                start,
                end,
                pages: 1,
                cost: page.cost,
            }),
        }
    }
    regions
}

#[cfg(test)]
mod tests {
    use x86::{PageSize, Vpn};

    use super::*;

    fn page(vpn: u64, size: PageSize, walks: u64) -> Page {
        let cost = PageCost {
            second_level_hits: 1,
            walks,
            walk_cycles: walks * 10,
        };
        Page {
            vpn: Vpn::new(vpn),
            size,
            cost,
        }
    }

    #[test]
    fn regions_end_where_a_page_table_of_pages_was_not_touched() {
        let small = |vpn, walks| page(vpn, PageSize::Size4K, walks);
        let all = [
            small(2 + GAP, 5),
            small(2, 1),
            page(4096, PageSize::Size2M, 4),
            small(4096 + 512 + GAP, 0),
        ];
        let found = regions(&all, 10);
        let shown: Vec<_> = found
            .iter()
            .map(|r| (r.start.as_str(), r.end.as_str(), r.pages, r.cost.walks))
            .collect();
        assert_eq!(
            shown,
            [("0x2000", "0x203000", 2, 6), ("0x1000000", "0x1200000", 1, 4)]
        );
        assert_eq!(found[0].cost.share, 0.6);
        let dearest = pages(&all, 2);
        assert_eq!(dearest[0].address, "0x202000");
        assert_eq!(
            (dearest[1].size.as_str(), dearest[1].cost.walk_cycles),
            ("2m", 40)
        );
    }
}
