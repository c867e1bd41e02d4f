//! The presets against the hardware reference (docs/sources/hardware.md), cell by cell. The tables are
//! written from its rows, not from the machine files.
#![allow(missing_docs)]

use x86::cache::Inclusion;
use x86::psc::PscLevel;
use x86::tlb::SecondLevelFill;
use x86::{Machine, PageSize, Shape, TlbBank};

const SMALL: PageSize = PageSize::Size4K;
const LARGE: PageSize = PageSize::Size2M;
const HUGE: PageSize = PageSize::Size1G;

fn preset(name: &str) -> Machine {
    Machine::preset(name).unwrap()
}

/// As in `64x4`, or `48 full`.
fn shape(shape: Shape) -> String {
    if shape.sets() == 1 {
        format!("{} full", shape.entries())
    } else {
        format!("{}x{}", shape.entries(), shape.ways())
    }
}

/// The banks that hold a page size; `-` if there are none.
fn cell<'a>(banks: impl IntoIterator<Item = &'a TlbBank>, size: PageSize) -> String {
    let banks = banks.into_iter().filter(|bank| bank.holds.contains(size));
    let shapes: Vec<String> = banks.map(|bank| shape(bank.shape)).collect();
    if shapes.is_empty() {
        "-".to_owned()
    } else {
        shapes.join(" + ")
    }
}

/// Cells for 4 KiB, 2 MiB and 1 GiB pages.
fn cells<'a>(banks: impl IntoIterator<Item = &'a TlbBank> + Clone) -> [String; 3] {
    [SMALL, LARGE, HUGE].map(|size| cell(banks.clone(), size))
}

/// Machine, row, first level, second level, by page size.
type DataRow = (&'static str, &'static str, [&'static str; 3], [&'static str; 3]);

// modern-2s is Sapphire Rapids with fewer cores.
const DATA: [DataRow; 8] = [
    (
        "harpertown-2008",
        "G1",
        ["16x4", "16x4", "-"],
        ["256x4", "32x4", "-"],
    ),
    ("barcelona-2008", "G2", ["48 full"; 3], ["512x4", "128x2", "-"]),
    ("nehalem-2009", "G3", ["64x4", "32x4", "-"], ["512x4", "-", "-"]),
    // 6 ways by CPUID, 12 by a review (M4); four entries in four ways are one set.
    (
        "skylake-sp-2017",
        "G5",
        ["64x4", "32x4", "4 full"],
        ["1536x12", "1536x12", "16x4"],
    ),
    (
        "sapphire-rapids-2023",
        "G6",
        ["96x6", "32x4", "8 full"],
        ["1024x8 + 1024x8", "1024x8", "1024x8"],
    ),
    (
        "modern-2s",
        "G6",
        ["96x6", "32x4", "8 full"],
        ["1024x8 + 1024x8", "1024x8", "1024x8"],
    ),
    ("zen3-2021", "G7", ["64 full"; 3], ["2048x8", "2048x4", "64 full"]),
    ("zen4-2022", "G8", ["72 full"; 3], ["3072x8", "3072x6", "64 full"]),
];

#[test]
fn data_tlbs_are_those_of_the_reference() {
    assert_eq!(DATA.len(), Machine::presets().len());
    for (name, row, first, second) in DATA {
        let machine = preset(name);
        let tlb = &machine.tlb;
        assert_eq!(cells(&tlb.load), first, "{name} {row}");
        let banks = tlb.l2.iter().filter(|bank| bank.serves.data());
        assert_eq!(cells(banks.map(|bank| &bank.bank)), second, "{name} {row}");
        let stores = match row {
            "G6" => ["16 full"; 3],
            _ => ["-"; 3],
        };
        assert_eq!(cells(&tlb.store), stores, "{name} {row}");
        let data = tlb.l2.iter().filter(|second| second.serves.data());
        for bank in tlb.load.iter().chain(data.map(|second| &second.bank)) {
            assert!(bank.source.split(", ").any(|id| id == row), "{name}: {row}");
        }
    }
}

#[test]
fn instruction_tlbs_are_those_of_the_reference() {
    // Second level: that of the data side where the reference says it is shared.
    let rows: [DataRow; 8] = [
        ("harpertown-2008", "G10", ["128x4", "8x4", "-"], ["-"; 3]),
        (
            "barcelona-2008",
            "G11",
            ["32 full", "16 full", "-"],
            ["512x4", "-", "-"],
        ),
        (
            "nehalem-2009",
            "G12",
            ["64x4", "7 full", "-"],
            ["512x4", "-", "-"],
        ),
        (
            "skylake-sp-2017",
            "G13",
            ["64x8", "8 full", "-"],
            ["1536x12", "1536x12", "16x4"],
        ),
        ("sapphire-rapids-2023", "G14", ["256x8", "32x8", "-"], DATA[4].3),
        ("modern-2s", "G14", ["256x8", "32x8", "-"], DATA[5].3),
        ("zen3-2021", "G15", ["64 full"; 3], ["512x4", "512x2", "-"]),
        ("zen4-2022", "G15", ["64 full"; 3], ["512x4", "512x2", "-"]),
    ];
    for (name, row, first, second) in rows {
        let machine = preset(name);
        assert_eq!(cells(&machine.tlb.fetch), first, "{name} {row}");
        let banks = machine.tlb.l2.iter().filter(|bank| bank.serves.fetch());
        assert_eq!(cells(banks.map(|bank| &bank.bank)), second, "{name} {row}");
        assert!(machine.tlb.fetch.iter().all(|bank| bank.source == row), "{name}");
    }
}

#[test]
fn only_barcelona_fills_its_second_level_with_victims() {
    for name in Machine::presets() {
        let fill = match *name {
            "barcelona-2008" => SecondLevelFill::OnEviction,
            _ => SecondLevelFill::OnWalk,
        };
        assert_eq!(preset(name).tlb.l2_fill, fill, "{name}");
    }
}

#[test]
fn paging_structure_caches_are_those_of_the_reference() {
    use PscLevel::{Pde, Pdpte, Pml4e, Pml5e};
    let intel: Vec<(u32, Vec<PscLevel>)> = vec![(32, vec![Pde]), (4, vec![Pdpte]), (2, vec![Pml4e])]; // G31
    let five = [intel.clone(), vec![(1, vec![Pml5e])]].concat();
    for (name, banks) in [
        ("harpertown-2008", intel.clone()),
        ("nehalem-2009", intel.clone()),
        ("skylake-sp-2017", intel),
        ("sapphire-rapids-2023", five.clone()),
        ("modern-2s", five),
        ("barcelona-2008", vec![(24, vec![Pde, Pdpte, Pml4e])]), // G33
        // G32; PDEs compete with leaves for the second-level TLB in truth.
        ("zen3-2021", vec![(64, vec![Pdpte, Pml4e]), (2048 / 8, vec![Pde])]),
        (
            "zen4-2022",
            vec![(64, vec![Pdpte, Pml4e, Pml5e]), (3072 / 8, vec![Pde])],
        ),
    ] {
        let machine = preset(name);
        let found: Vec<(u32, Vec<PscLevel>)> = machine
            .psc
            .iter()
            .map(|bank| (bank.shape.entries(), bank.holds.clone()))
            .collect();
        assert_eq!(found, banks, "{name}");
        // No size is from a document: each bank must admit it.
        for bank in &machine.psc {
            let admits = ["recalled, not verified", "(assumed)", "medium confidence"];
            assert!(admits.iter().any(|word| bank.note.contains(word)), "{name}");
        }
    }
}

#[test]
fn features_are_those_of_the_reference() {
    // Levels, 1 GiB pages, PCID, INVPCID, VPID, SVM ASIDs, pages of an INVLPGB.
    type Row = (
        &'static str,
        u32,
        bool,
        bool,
        bool,
        bool,
        Option<u32>,
        Option<u32>,
    );
    let rows: [Row; 8] = [
        ("harpertown-2008", 4, false, false, false, false, None, None), // G20
        ("barcelona-2008", 4, true, false, false, false, Some(64), None), // G2, G20, G22
        ("nehalem-2009", 4, false, false, false, true, None, None),     // G20
        ("skylake-sp-2017", 4, true, true, true, true, None, None),     // G21, M14
        ("sapphire-rapids-2023", 5, true, true, true, true, None, None), // G21, M14
        ("modern-2s", 5, true, true, true, true, None, None),
        ("zen3-2021", 4, true, true, true, false, Some(32768), Some(8)), // G23, G24, M14
        ("zen4-2022", 5, true, true, true, false, Some(32768), Some(8)), // G23, G24, M14
    ];
    for (name, levels, huge, pcid, invpcid, vpid, asids, pages) in rows {
        let machine = preset(name);
        let features = machine.features;
        assert_eq!(features.levels, levels, "{name}");
        assert_eq!(features.page_sizes.contains(HUGE), huge, "{name}");
        assert_eq!(
            (features.pcid, features.invpcid, features.vpid),
            (pcid, invpcid, vpid)
        );
        assert_eq!(
            (features.svm_asids, features.invlpgb_pages),
            (asids, pages),
            "{name}"
        );
        assert!(
            machine
                .feature_table()
                .iter()
                .all(|row| !row.source.is_empty() && !row.value.is_empty())
        );
    }
}

#[test]
fn caches_are_those_that_were_looked_up() {
    use Inclusion::{Inclusive, NonInclusive, Victim};
    type Cache = (u32, u32, u32);
    type Row = (&'static str, Cache, Cache, Option<(Cache, Inclusion)>);
    let rows: [Row; 8] = [
        ("harpertown-2008", (32, 8, 1), (6144, 24, 2), None), // W1, M1, M10
        (
            "barcelona-2008",
            (64, 2, 1),
            (512, 16, 1),
            Some(((2048, 32, 4), Victim)),
        ), // M2
        (
            "nehalem-2009",
            (32, 8, 1),
            (256, 8, 1),
            Some(((8192, 16, 4), Inclusive)),
        ), // M3
        (
            "skylake-sp-2017",
            (32, 8, 1),
            (1024, 16, 1),
            Some(((33 * 1024, 11, 24), NonInclusive)),
        ), // M4
        (
            "sapphire-rapids-2023",
            (48, 12, 1),
            (2048, 16, 1),
            Some(((1920 * 56, 15, 56), NonInclusive)),
        ), // M5
        (
            "modern-2s",
            (48, 12, 1),
            (2048, 16, 1),
            Some(((1920 * 16, 15, 16), NonInclusive)),
        ),
        (
            "zen3-2021",
            (32, 8, 1),
            (512, 8, 1),
            Some(((32 * 1024, 16, 8), Victim)),
        ), // M6, M8
        (
            "zen4-2022",
            (32, 8, 1),
            (1024, 8, 1),
            Some(((32 * 1024, 16, 8), Victim)),
        ), // M7, M8
    ];
    for (name, l1, l2, llc) in rows {
        let caches = preset(name).caches;
        let show = |cache: &x86::cache::CacheArray| (cache.kib, cache.ways, cache.cores);
        assert_eq!((show(&caches.l1), show(&caches.l2)), (l1, l2), "{name}");
        let found = caches.llc.as_ref().map(|llc| (show(&llc.cache), llc.inclusion));
        assert_eq!(found, llc, "{name}");
    }
}
