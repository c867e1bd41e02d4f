//! Page tables against a map from page to entry, and the floor and ceiling rule.
#![allow(missing_docs)]

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use x86::{ENTRIES_PER_TABLE, Entry, Level, PT_SPAN_PAGES, PageTables, Pfn, Rights, TableId, Va, Vpn};

const GIB_PAGES: u64 = 1 << 18;
const LEVELS: [Level; 3] = [Level::Pte, Level::Pmd, Level::Pud];

fn map(tables: &mut PageTables, root: TableId, vpn: u64) {
    let pt = tables.populate(root, Vpn::new(vpn), |_, _| {});
    let leaf = Entry::leaf(Pfn::new(vpn as u32), Rights::USER);
    tables.set(pt, Level::Pte.index_of(Vpn::new(vpn)), leaf);
}

fn freed(
    tables: &mut PageTables,
    root: TableId,
    pages: (u64, u64),
    floor: u64,
    ceiling: Option<u64>,
) -> Vec<(Level, TableId)> {
    let mut list = Vec::new();
    let va = |vpn: u64| Vpn::new(vpn).va();
    tables.free_pgd_range(
        root,
        va(pages.0),
        va(pages.1),
        va(floor),
        ceiling.map(va),
        |l, t| {
            list.push((l, t));
        },
    );
    list
}

fn count(list: &[(Level, TableId)], level: Level) -> usize {
    list.iter().filter(|(l, _)| *l == level).count()
}

#[test]
fn isolated_area_frees_its_page_tables_and_one_directory() {
    for pages in [1, 512, 513, 4096] {
        let mut tables = PageTables::new();
        let root = tables.alloc();
        let start = 5 * GIB_PAGES;
        for vpn in [start - GIB_PAGES, start + GIB_PAGES]
            .into_iter()
            .chain(start..start + pages)
        {
            map(&mut tables, root, vpn);
        }
        let before = tables.live_tables();
        let list = freed(
            &mut tables,
            root,
            (start, start + pages),
            start - GIB_PAGES + 1,
            Some(start + GIB_PAGES),
        );
        assert_eq!(count(&list, Level::Pte) as u64, pages.div_ceil(PT_SPAN_PAGES));
        assert_eq!(count(&list, Level::Pmd), 1);
        assert_eq!(count(&list, Level::Pud), 0);
        assert_eq!(list.last().unwrap().0, Level::Pmd, "children come before parents");
        assert_eq!(tables.live_tables(), before, "detached tables stay allocated");
        assert!(tables.leaf_table(root, Vpn::new(start)).is_none());
        assert!(tables.leaf(root, Vpn::new(start + GIB_PAGES)).present());
        for (_, table) in &list {
            tables.free(*table);
        }
        assert_eq!(tables.live_tables(), before - list.len());
    }
}

#[test]
fn neighbours_keep_the_tables_they_share() {
    // The pages, the floor, the ceiling, and how many PTs, PMDs and PUDs go.
    type Case = ((u64, u64), u64, Option<u64>, [usize; 3]);
    let cases: [Case; 7] = [
        // No neighbours at all.
        ((512, 1024), 0, None, [1, 1, 1]),
        // A neighbour below in the same page table.
        ((520, 1024), 520, None, [0, 0, 0]),
        // A neighbour above in the same page table.
        ((512, 1000), 0, Some(1010), [0, 0, 0]),
        // Neighbours in the adjacent page tables of the same PMD table.
        ((512, 1024), 512, Some(1024), [1, 0, 0]),
        // The first page table is shared, the second is not.
        ((520, 1536), 520, None, [1, 0, 0]),
        // A neighbour in the next GiB.
        ((512, 1024), 0, Some(GIB_PAGES), [1, 1, 0]),
        // A neighbour in the next 512 GiB.
        ((512, 1024), 0, Some(512 * GIB_PAGES), [1, 1, 1]),
    ];
    for (pages, floor, ceiling, expected) in cases {
        let mut tables = PageTables::new();
        let root = tables.alloc();
        for vpn in pages.0..pages.1 {
            map(&mut tables, root, vpn);
        }
        let list = freed(&mut tables, root, pages, floor, ceiling);
        assert_eq!(LEVELS.map(|level| count(&list, level)), expected, "{pages:?}");
    }
}

#[test]
fn scanning_counts_absent_entries_of_every_level() {
    let mut tables = PageTables::new();
    let root = tables.alloc();
    let target = GIB_PAGES + 3 * PT_SPAN_PAGES + 7;
    map(&mut tables, root, target);
    // One absent PUD entry, then three absent PMD entries, then the page table.
    let (table, range, skipped) = tables
        .next_leaf_table(root, Vpn::new(0), Vpn::new(target + 1))
        .unwrap();
    assert_eq!(skipped, 4);
    assert_eq!(tables.leaf_table(root, Vpn::new(target)), Some(table));
    assert_eq!((range.start().get(), range.end().get()), (target - 7, target + 1));
    let rest = tables.scan_leaf_tables(root, range.end(), Vpn::new(2 * GIB_PAGES), u64::MAX);
    assert_eq!(rest.found, Some((table, rest.found.unwrap().1)));
    let after = Vpn::new(GIB_PAGES + 4 * PT_SPAN_PAGES);
    let rest = tables.scan_leaf_tables(root, after, Vpn::new(2 * GIB_PAGES), u64::MAX);
    assert_eq!((rest.found, rest.skipped), (None, ENTRIES_PER_TABLE as u64 - 4));
    let stopped = tables.scan_leaf_tables(root, Vpn::new(0), Vpn::new(target), 2);
    assert_eq!(stopped.skipped, 2);
    assert_eq!(stopped.reached, Vpn::new(GIB_PAGES + PT_SPAN_PAGES));
    // A far page needs a PUD of its own: one absent PGD entry covers 512 GiB.
    let far = tables.scan_leaf_tables(
        root,
        Vpn::new(512 * GIB_PAGES),
        Vpn::new(1024 * GIB_PAGES),
        u64::MAX,
    );
    assert_eq!((far.found, far.skipped), (None, 1));
}

#[test]
#[should_panic(expected = "freed twice")]
fn freeing_twice_is_refused() {
    let mut tables = PageTables::new();
    let id = tables.alloc();
    tables.free(id);
    tables.free(id);
}

#[test]
fn levels_cover_what_the_architecture_says() {
    assert_eq!(Level::Pte.span_pages(), PT_SPAN_PAGES);
    assert_eq!(Level::Pmd.span_pages(), GIB_PAGES);
    assert_eq!(Level::P4d.index(Va::new(1 << 39)), 1);
    assert_eq!(Level::Pgd.index(Va::new(1 << 48)), 1);
    assert_eq!(Level::Pud.entry_pages(), GIB_PAGES);
}

// Spread over tables of every level, yet dense enough to share them.
fn page() -> impl Strategy<Value = u64> {
    (0u64..2, 0u64..3, 0u64..4, 0u64..512)
        .prop_map(|(pgd, pud, pmd, pte)| ((pgd * 512 + pud) * 512 + pmd) * 512 + pte)
}

proptest! {
    #[test]
    fn agree_with_a_map(
        writes in prop::collection::vec((page(), any::<bool>()), 1..200),
        from in page(),
        pages in 1u64..3 * GIB_PAGES,
    ) {
        let mut tables = PageTables::new();
        let root = tables.alloc();
        let mut model = BTreeMap::new();
        let mut spans: [BTreeSet<u64>; 3] = Default::default();
        for (vpn, keep) in writes {
            let mut created = Vec::new();
            let pt = tables.populate(root, Vpn::new(vpn), |level, _| created.push(level));
            let mut expected = Vec::new();
            for level in [Level::Pud, Level::Pmd, Level::Pte] {
                if spans[level as usize].insert(vpn / level.span_pages()) {
                    expected.push(level);
                }
            }
            prop_assert_eq!(created, expected);
            let entry = if keep { Entry::leaf(Pfn::new(vpn as u32), Rights::USER) } else { Entry::NONE };
            tables.set(pt, Level::Pte.index_of(Vpn::new(vpn)), entry);
            model.insert(vpn, entry);
        }
        for (vpn, entry) in &model {
            prop_assert_eq!(tables.leaf(root, Vpn::new(*vpn)), *entry);
        }
        prop_assert_eq!(tables.live_tables(), 1 + spans.iter().map(BTreeSet::len).sum::<usize>());

        // Scanning meets every page table in the range once, in order.
        let end = from + pages;
        let mut met = Vec::new();
        let mut at = Vpn::new(from);
        while let Some((table, range, _)) = tables.next_leaf_table(root, at, Vpn::new(end)) {
            prop_assert_eq!(tables.leaf_table(root, range.start()), Some(table));
            met.push(range.start().get() / PT_SPAN_PAGES);
            at = range.end();
        }
        let first = from / PT_SPAN_PAGES;
        let last = (end - 1) / PT_SPAN_PAGES;
        let expected: Vec<u64> = spans[0].range(first..=last).copied().collect();
        prop_assert_eq!(met, expected);
    }

    #[test]
    fn a_table_goes_exactly_if_its_span_lies_between_floor_and_ceiling(
        mapped in prop::collection::vec(page(), 1..60),
        from in page(),
        pages in 1u64..2 * GIB_PAGES,
        below in 0u64..GIB_PAGES,
        above in prop::option::of(0u64..GIB_PAGES),
    ) {
        let mut tables = PageTables::new();
        let root = tables.alloc();
        let mut spans: [BTreeSet<u64>; 3] = Default::default();
        for vpn in mapped {
            map(&mut tables, root, vpn);
            for level in LEVELS {
                spans[level as usize].insert(vpn / level.span_pages());
            }
        }
        let end = from + pages;
        let floor = from.saturating_sub(below);
        let ceiling = above.map(|above| end + above);
        let list = freed(&mut tables, root, (from, end), floor, ceiling);
        for level in LEVELS {
            let span = level.span_pages();
            let expected = spans[level as usize]
                .iter()
                .filter(|&&s| s >= from / span && s <= (end - 1) / span)
                .filter(|&&s| floor <= s * span && ceiling.is_none_or(|c| (s + 1) * span <= c))
                .count();
            prop_assert_eq!(count(&list, level), expected, "{:?}", level);
        }
    }
}
