//! Runs of references against the same references one by one: the fast loop must change no count, no
//! slot and no order.
#![allow(missing_docs)]

use proptest::prelude::*;
use x86::mmu::{Memory, Mmu};
use x86::tlb::{IndexFunction, Replacement, SecondLevelBank, SecondLevelFill, Serves, TlbGeometry};
use x86::{
    Access, CpuIndex, Entry, EntryFlags, Fault, Frames, Generation, Level, Machine, Observer, PageSize,
    PageSizes, PageTables, Pfn, Reference, Rights, Shape, Slots, TableId, TlbBank, TlbEntry, Va,
};

/// Notes each slot gained and dropped, in order.
#[derive(Default, PartialEq, Debug)]
struct Heard(Vec<(u32, bool)>);

impl Slots for Heard {
    fn gained(&mut self, pfn: Pfn) {
        self.0.push((pfn.get(), true));
    }
    fn dropped(&mut self, pfn: Pfn) {
        self.0.push((pfn.get(), false));
    }
}

impl Frames for Heard {
    fn generation(&self, _: Pfn) -> Generation {
        Generation::FIRST
    }
}

impl Observer for Heard {
    fn is_sound(&self, _: &TlbEntry) -> bool {
        true
    }
    fn second_level_hit(&mut self, _: &TlbEntry) {}
}

fn shape() -> impl Strategy<Value = Shape> {
    let size = prop::sample::select(vec![(2, 2), (4, 4), (8, 4), (16, 8), (24, 6), (20, 20), (36, 12)]);
    let replacement = prop::sample::select(vec![
        Replacement::Lru,
        Replacement::Lru,
        Replacement::TreePlru,
        Replacement::Random,
    ]);
    let index = prop::sample::select(vec![IndexFunction::Modulo, IndexFunction::XorFold]);
    (size, replacement, index).prop_map(|((entries, ways), replacement, index)| {
        let shape = Shape::new(entries, ways).unwrap();
        let shape = shape.with_replacement(replacement).unwrap_or(shape);
        shape.with_index(index).unwrap_or(shape)
    })
}

fn bank(sizes: &'static [PageSize]) -> impl Strategy<Value = TlbBank> {
    shape().prop_map(move |shape| TlbBank::new(shape, PageSizes::of(sizes)))
}

/// Split, unified or small-only first levels; with and without store TLB; second levels of every kind.
fn geometry() -> impl Strategy<Value = TlbGeometry> {
    const SMALL: &[PageSize] = &[PageSize::Size4K];
    const LARGE: &[PageSize] = &[PageSize::Size2M];
    let first = || {
        prop_oneof![
            bank(&PageSize::ALL).prop_map(|bank| vec![bank]),
            bank(SMALL).prop_map(|bank| vec![bank]),
            (bank(SMALL), bank(LARGE)).prop_map(|(small, large)| vec![small, large]),
        ]
    };
    let second = || {
        let serves = prop::sample::select(vec![Serves::Both, Serves::Data, Serves::Fetch]);
        let banks = prop_oneof![bank(SMALL), bank(&PageSize::ALL), bank(LARGE)];
        (serves, banks).prop_map(|(serves, bank)| SecondLevelBank { serves, bank })
    };
    let fill = prop::sample::select(vec![SecondLevelFill::OnWalk, SecondLevelFill::OnEviction]);
    let store = prop_oneof![Just(Vec::new()), first()];
    (
        first(),
        store,
        first(),
        prop::collection::vec(second(), 0..3),
        fill,
    )
        .prop_map(|(load, store, fetch, l2, l2_fill)| TlbGeometry {
            load,
            store,
            fetch,
            l2,
            l2_fill,
        })
}

const BASE: u64 = 0x5000_0000_0000;
const PLACES: u64 = 96;

/// Small pages mostly; each eighth place is in a large page, some pages are global, one is not mapped.
fn world(geometry: &TlbGeometry) -> (Memory, Mmu) {
    let mut machine = Machine::preset("skylake-sp-2017").unwrap();
    machine.tlb = geometry.clone();
    let mut memory = Memory::new(&machine, PageTables::new());
    let root = memory.tables.alloc();
    for place in 1..PLACES {
        let size = if place % 8 == 0 {
            PageSize::Size2M
        } else {
            PageSize::Size4K
        };
        let leaf = Entry::leaf_of(size, Pfn::new(place as u32 * 512), Rights::ALL);
        let leaf = if place % 11 == 0 {
            leaf.with(EntryFlags::GLOBAL)
        } else {
            leaf
        };
        map(&mut memory, root, place, size, leaf);
    }
    let mmu = Mmu::new(&machine, CpuIndex::new(0), root);
    (memory, mmu)
}

// Large pages have places of their own, far from the small ones, which lie side by side.
fn address(place: u64) -> u64 {
    if place.is_multiple_of(8) {
        BASE + (place << 21)
    } else {
        BASE + (1 << 40) + (place << 12)
    }
}

fn map(memory: &mut Memory, root: TableId, place: u64, size: PageSize, leaf: Entry) {
    let (vpn, level) = (Va::new(address(place)).vpn(), Level::of_leaf(size));
    let table = memory.tables.populate_to(root, vpn, level, |_, _| {});
    memory.tables.set(table, level.index_of(vpn), leaf);
}

fn reference() -> impl Strategy<Value = Reference> {
    let place = prop_oneof![0..12_u64, 0..40_u64, 0..PLACES];
    let access = prop::sample::select(vec![Access::Read, Access::Read, Access::Write, Access::Fetch]);
    (place, 0_u64..4096, access)
        .prop_map(|(place, offset, access)| Reference::new(access, Va::new(address(place) + offset)).unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_run_does_what_its_references_do_one_by_one(
        geometry in geometry(),
        references in prop::collection::vec(reference(), 1..600),
        cut in 1_usize..40,
    ) {
        prop_assume!(geometry.check().is_ok());
        let (mut memory, mut single) = world(&geometry);
        let mut heard_singly = Heard::default();
        let one_by_one: Vec<Result<u32, Fault>> = references
            .iter()
            .map(|r| single.translate(&mut memory, &mut heard_singly, r.access(), r.va()))
            .map(|done| done.map(|t| t.pfn.get()))
            .collect();

        let (mut memory, mut running) = world(&geometry);
        let mut heard = Heard::default();
        let mut faults = 0;
        for batch in references.chunks(cut) {
            let mut rest = batch;
            loop {
                let run = running.run(rest, &mut heard);
                let Some((next, after)) = rest[run.length..].split_first() else { break };
                faults += usize::from(running.resume(&mut memory, &mut heard, *next, run.stop).is_err());
                rest = after;
            }
        }
        prop_assert_eq!(running.tlb().stats(), single.tlb().stats());
        prop_assert_eq!(running.stats(), single.stats());
        prop_assert_eq!(faults, one_by_one.iter().filter(|r| r.is_err()).count());
        let slots = |mmu: &Mmu| {
            let mut slots: Vec<_> = mmu.tlb().translations().map(|(a, v, e)| (a, v, e.pfn)).collect();
            slots.sort();
            slots
        };
        prop_assert_eq!(slots(&running), slots(&single));
        let sorted = |heard: Heard| {
            let mut all = heard.0;
            all.sort_unstable();
            all
        };
        prop_assert_eq!(sorted(heard), sorted(heard_singly));
    }
}
