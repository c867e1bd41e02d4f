//! References of walks: rows R30 to R35 of the hardware reference, and what hot walks cost.
#![allow(missing_docs)]

mod world;

use sim::Cycles;
use world::{APART, FAR, G, HERE, K, M, NEAR, World, page, page_of};
use x86::cache::Served;
use x86::mmu::{Eptp, Found, Memory, Mmu, NestedTables, VmEntry, Vpid, WalkReferences};
use x86::{
    Access, CpuIndex, Entry, Gpa, Level, Machine, PageSize, PageTables, PagingMode, Pfn, Rights, TableId, Va,
};

/// A machine whose paging-structure caches keep these levels only.
fn keeping(levels: &[&str]) -> Machine {
    let holds = levels.join(r#"",""#);
    let bank =
        format!(r#"{{"shape": {{"entries": 32, "ways": 4}}, "holds": ["{holds}"], "source": "a test"}}"#);
    let banks = if levels.is_empty() { String::new() } else { bank };
    let text = format!(r#"{{"extends": "modern-2s", "name": "kept", "paging_structure_caches": [{banks}]}}"#);
    Machine::from_json(&text).unwrap()
}

/// Where an address meets a kept entry of a level, and of none below: another page of the entry's span
/// that is in another span of the level below.
fn beside(level: Level) -> u64 {
    HERE ^ match level {
        Level::Pte => 1 << 12,
        Level::Pmd => 1 << 21,
        Level::Pud => 1 << 30,
        Level::P4d => 1 << 39,
        Level::Pgd => 1 << 48,
    }
}

#[test]
fn r30_r31_a_cold_walk_reads_one_entry_a_level_down_to_the_leaf() {
    let expected = [
        (PagingMode::FourLevel, K, 4),
        (PagingMode::FourLevel, M, 3),
        (PagingMode::FourLevel, G, 2),
        (PagingMode::FiveLevel, K, 5),
        (PagingMode::FiveLevel, M, 4),
        (PagingMode::FiveLevel, G, 3),
    ];
    for machine in Machine::presets() {
        for (mode, size, references) in expected {
            let machine = Machine::preset(machine).unwrap();
            if !machine.features.page_sizes.contains(size) {
                continue;
            }
            let mut world = World::of(machine, mode);
            let root = world.root();
            world.map_of(root, size, HERE, page_of(size, 1 << 18));
            let mut mmu = world.mmu(0, root);
            assert_eq!(world.references(&mut mmu, HERE), references, "{mode:?} {size}");
        }
    }
}

/// Row R35 and its like: for each depth and page size, and each lowest level whose entry is kept, what
/// is left to read.
#[test]
fn r35_a_walk_starts_below_the_lowest_entry_that_is_kept() {
    let names = [
        (Level::Pmd, "pde"),
        (Level::Pud, "pdpte"),
        (Level::P4d, "pml4e"),
        (Level::Pgd, "pml5e"),
    ];
    for mode in [PagingMode::FourLevel, PagingMode::FiveLevel] {
        for size in PageSize::ALL {
            let leaf = Level::of_leaf(size);
            for (kept, name) in names {
                if kept <= leaf || kept > mode.root_level() {
                    continue;
                }
                let mut world = World::of(keeping(&[name]), mode);
                let root = world.root();
                // A second leaf below the kept entry, by another entry of the level under it.
                let other = HERE ^ (kept.entry_pages() << 12 >> 1);
                for va in [HERE, other] {
                    world.map_of(root, size, va, page_of(size, 1 << 18));
                }
                let mut mmu = world.mmu(0, root);
                let cold = world.references(&mut mmu, HERE);
                let left = kept as u64 - leaf as u64;
                assert_eq!(cold, u64::from(mode.levels()) - leaf as u64);
                assert_eq!(
                    world.references(&mut mmu, other),
                    left,
                    "{mode:?} {size} with {name} kept"
                );
            }
        }
    }
}

#[test]
fn r35_native_four_levels_leave_one_two_or_three_references() {
    for (kept, near, left) in [
        ("pde", NEAR, 1),
        ("pdpte", APART, 2),
        ("pml4e", beside(Level::Pud), 3),
    ] {
        let mut world = World::of(keeping(&["pde", "pdpte", "pml4e"]), PagingMode::FourLevel);
        let root = world.root();
        world.map(root, HERE, page(1));
        world.map(root, near, page(2));
        let mut mmu = world.mmu(0, root);
        assert_eq!(world.references(&mut mmu, HERE), 4);
        assert_eq!(world.references(&mut mmu, near), left, "{kept}");
    }
}

#[test]
fn without_paging_structure_caches_every_walk_is_whole() {
    let mut world = World::of(keeping(&[]), PagingMode::FourLevel);
    let root = world.root();
    for va in [HERE, NEAR, APART, FAR] {
        world.map(root, va, page(1));
    }
    let mut mmu = world.mmu(0, root);
    for va in [HERE, NEAR, APART, FAR] {
        assert_eq!(world.references(&mut mmu, va), 4);
    }
}

/// References of a cold walk in two dimensions.
fn nested(guest_mode: PagingMode, guest: PageSize, host_mode: PagingMode, host: PageSize) -> u64 {
    const TABLES_AT: u64 = 1 << 38;
    let machine = keeping(&[]);
    let mut memory = Memory::new(&machine, PageTables::with_mode(host_mode));
    let host_root = memory.tables.alloc();
    let mut map_host = |gpa: u64, pfn: u32| {
        let level = Level::of_leaf(host);
        let vpn = Va::new(gpa).vpn();
        let table = memory.tables.populate_to(host_root, vpn, level, |_, _| {});
        let frame = Pfn::new(pfn & !(host.base_pages() as u32 - 1));
        let leaf = Entry::leaf_of(host, frame, Rights::USER_WRITE);
        memory.tables.set(table, level.index_of(vpn), leaf);
    };
    map_host(0, 1 << 19);
    for table in 0..8 {
        map_host(TABLES_AT + (table << 12), 1 << 20);
    }
    let mut guest_tables = PageTables::with_mode(guest_mode);
    let guest_root = guest_tables.alloc();
    let (vpn, level) = (Va::new(HERE).vpn(), Level::of_leaf(guest));
    let table = guest_tables.populate_to(guest_root, vpn, level, |_, _| {});
    guest_tables.set(table, level.index_of(vpn), page_of(guest, 0));

    let mut mmu = x86::mmu::Mmu::new(&machine, CpuIndex::new(0), TableId::new(0));
    let state = mmu.vm_transition(&mut (), guest_state(guest_root));
    assert_eq!(state.eptp, Eptp::NONE);
    let mut tables = NestedTables {
        guest: &mut guest_tables,
        tables_at: Gpa::new(TABLES_AT),
        host_root,
    };
    let done = mmu
        .translate_nested(&mut memory, &mut tables, &mut (), Access::Read, Va::new(HERE))
        .unwrap();
    match done.found {
        Found::Walked { references, .. } => references.total(),
        found => panic!("{found:?}"),
    }
}

fn guest_state(root: TableId) -> VmEntry {
    VmEntry {
        vpid: Some(Vpid(1)),
        eptp: Eptp(1),
        cr0: x86::mmu::Cr0 {
            paging: true,
            write_protect: true,
        },
        cr3: x86::mmu::Cr3 {
            root,
            pcid: x86::mmu::Pcid::ZERO,
        },
        cr4: x86::mmu::Cr4::default(),
        privilege: x86::Privilege::User,
    }
}

#[test]
fn r32_four_levels_over_four_take_24_references() {
    assert_eq!(nested(PagingMode::FourLevel, K, PagingMode::FourLevel, K), 24);
}

#[test]
fn r33_five_levels_over_four_take_29_and_over_five_35() {
    assert_eq!(nested(PagingMode::FiveLevel, K, PagingMode::FourLevel, K), 29);
    assert_eq!(nested(PagingMode::FiveLevel, K, PagingMode::FiveLevel, K), 35);
}

#[test]
fn r34_large_host_pages_take_19() {
    assert_eq!(nested(PagingMode::FourLevel, K, PagingMode::FourLevel, M), 19);
    assert_eq!(nested(PagingMode::FourLevel, M, PagingMode::FourLevel, M), 15);
}

#[test]
fn a_second_walk_of_the_same_line_finds_it_in_the_first_level_cache() {
    let mut world = World::new("harpertown-2008");
    let root = world.root();
    world.map(root, HERE, page(1));
    world.map(root, NEAR, page(2));
    let mut mmu = world.mmu(0, root);
    for (va, from_memory) in [(HERE, 4), (NEAR, 0)] {
        let done = world.translate(&mut mmu, Access::Read, va).unwrap();
        let Found::Walked { references, .. } = done.found else {
            panic!("{done:?}")
        };
        assert_eq!(references.by(Served::Memory), from_memory);
        assert_eq!(references.by(Served::L1) + from_memory, references.total());
    }
}

/// References of a load's walk, and what they cost with the latencies of the machine.
fn walk(world: &mut World, mmu: &mut Mmu, va: u64) -> (WalkReferences, u64) {
    let done = world.translate(mmu, Access::Read, va).unwrap();
    let Found::Walked { references, .. } = done.found else {
        panic!("a walk was expected: {done:?}")
    };
    let costs = &world.machine.costs;
    let llc = costs.cache_llc.unwrap_or(costs.dram_local);
    let price = [
        costs.cache_l1,
        costs.cache_l2,
        llc,
        costs.dram_local,
        costs.dram_remote,
    ];
    let cost = costs.walk_base.get() + references.priced(&price.map(Cycles::get));
    (references, cost)
}

/// Two CPUs of one complex. The first has walked for all pages of a page table whose leaves lie in
/// different lines; the second only for the first of them.
fn warm(machine: &str) -> (World, Mmu, Mmu) {
    const LINE_OF_LEAVES: u64 = 8 << 12;
    let mut world = World::new(machine);
    let root = world.root();
    let pages = (0..4).map(|line| HERE + line * LINE_OF_LEAVES);
    for va in pages.clone() {
        world.map(root, va, page(1));
        world.map(root, va + 0x1000, page(2));
    }
    let (mut first, mut second) = (world.mmu(0, root), world.mmu(1, root));
    for va in pages {
        world.load(&mut first, va).unwrap();
    }
    world.load(&mut second, HERE).unwrap();
    (world, first, second)
}

#[test]
fn w1_w3_a_hot_walk_costs_the_latency_probes_extra_cycles() {
    // Rows W1 and W3: 9 and 10 cycles above the latency of the data.
    for (machine, extra) in [("harpertown-2008", 9), ("nehalem-2009", 10)] {
        let (mut world, mut first, _) = warm(machine);
        let (references, cost) = walk(&mut world, &mut first, HERE + 0x1000);
        assert_eq!((references.total(), references.by(Served::L1)), (1, 1));
        assert_eq!(cost, extra, "{machine}");
    }
}

#[test]
fn a_leaf_in_an_outer_cache_adds_that_caches_latency_to_a_hot_walk() {
    // Harpertown's cores share their second level in pairs; section 10.1 gives up to 24 cycles.
    let (mut world, _, mut second) = warm("harpertown-2008");
    let (references, cost) = walk(&mut world, &mut second, HERE + 0x8000);
    assert_eq!((references.total(), references.by(Served::L2)), (1, 1));
    assert!((9..=24).contains(&cost), "{cost}");
    for machine in ["nehalem-2009", "skylake-sp-2017", "modern-2s"] {
        let (mut world, _, mut second) = warm(machine);
        let (references, cost) = walk(&mut world, &mut second, HERE + 0x8000);
        assert_eq!(
            (references.total(), references.by(Served::Llc)),
            (1, 1),
            "{machine}"
        );
        let costs = &world.machine.costs;
        assert_eq!(cost, (costs.walk_base + costs.cache_llc.unwrap()).get());
    }
}

#[test]
fn a_leaf_in_memory_adds_the_latency_of_the_node_it_lies_on() {
    for node in [0, 1] {
        let mut world = World::new("modern-2s");
        let root = world.root();
        let apart = HERE + 0x8000;
        for va in [HERE, apart] {
            world.map(root, va, page(1));
        }
        let table = world.table(root, Level::Pte, HERE);
        world.memory.place(table, node);
        let mut mmu = world.mmu(0, root);
        world.load(&mut mmu, HERE).unwrap();
        let (references, cost) = walk(&mut world, &mut mmu, apart);
        let (served, latency) = match node {
            0 => (Served::Memory, world.machine.costs.dram_local),
            _ => (Served::Remote, world.machine.costs.dram_remote),
        };
        assert_eq!((references.total(), references.by(served)), (1, 1));
        assert_eq!(cost, (world.machine.costs.walk_base + latency).get());
    }
}

/// Section 3: a hot walk (PDE kept, PTE in the first or second level) costs 9 to 20 cycles.
#[test]
fn w1_to_w5_hot_walks_cost_what_the_latency_probes_say() {
    for name in ["harpertown-2008", "nehalem-2009", "skylake-sp-2017"] {
        let costs = Machine::preset(name).unwrap().costs;
        let near = costs.walk_base + costs.cache_l1;
        let second = costs.walk_base + costs.cache_l2;
        assert!((8..=20).contains(&near.get()), "{name}: {near:?}");
        assert!((9..=24).contains(&second.get()), "{name}: {second:?}");
    }
}
