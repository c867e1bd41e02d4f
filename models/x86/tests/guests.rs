//! Invalidations where a guest has several second dimensions, large pages, or more spaces than tags.
#![allow(missing_docs)]

mod world;

use world::{HERE, K, M, NEAR, World, cached, global, page, page_of, pcid};
use x86::cache::Served;
use x86::mmu::{
    Cr0, Cr3, Cr4, Eptp, Found, Globals, Invlpgb, InvlpgbPages, Invpcid, Mmu, NestedFault, NestedTables,
    Network, Pcid, TlbControl, VmEntry, Vpid,
};
use x86::{Access, CpuIndex, Entry, Gpa, Level, PageTables, Pfn, Privilege, Rights, TableId, Va};

/// Where the guest's tables lie, inside the guest-physical memory that [`nested`] maps.
const TABLES_AT: Gpa = Gpa::new(0x8_0000);

fn state(root: TableId, vpid: Option<Vpid>, eptp: Eptp, pcide: bool) -> VmEntry {
    VmEntry {
        vpid,
        eptp,
        cr0: Cr0 {
            paging: true,
            write_protect: true,
        },
        cr3: Cr3 {
            root,
            pcid: Pcid::ZERO,
        },
        cr4: Cr4 {
            global_pages: true,
            pcid_enable: pcide,
            smep: false,
            smap: false,
        },
        privilege: Privilege::User,
    }
}

#[test]
fn r20_a_broadcast_of_one_address_drops_the_large_page_around_it() {
    let mut w = World::new("zen4-2022");
    let root = w.root();
    let base = 0x1234_5660_0000u64;
    w.map_of(root, M, base, page_of(M, 0x200));
    let mut mmu = w.mmu(0, root);
    w.load(&mut mmu, base + 0x5000).unwrap();
    assert!(cached(&mmu, base));
    let mut net = Network::new(1, Some(8));
    let what = Invlpgb {
        asid: None,
        pcid: None,
        pages: Some(InvlpgbPages {
            start: Va::new(base + 0x5000),
            count: 1,
            stride: K,
        }),
        globals: Globals::Included,
    };
    net.invlpgb(CpuIndex::new(0), what).unwrap();
    net.tlbsync(CpuIndex::new(0), std::slice::from_mut(&mut mmu), &mut ());
    assert!(
        !cached(&mmu, base + 0x5000),
        "2 MiB translation survives INVLPGB of one of its addresses"
    );
}

#[test]
fn r1_invlpg_in_a_guest_reaches_every_second_dimension_of_the_vpid() {
    let mut w = World::new("modern-2s");
    let root = w.root();
    w.map(root, HERE, page(5));
    let mut mmu = w.mmu(0, root);
    let a = state(root, Some(Vpid(1)), Eptp(1), false);
    let b = state(root, Some(Vpid(1)), Eptp(2), false);
    mmu.vm_transition(&mut (), a);
    w.load(&mut mmu, HERE).unwrap();
    mmu.vm_transition(&mut (), b);
    mmu.invlpg(&mut (), Va::new(HERE));
    mmu.vm_transition(&mut (), a);
    assert!(
        !cached(&mmu, HERE),
        "combined mapping of same VPID under another EPTRTA survives INVLPG"
    );
}

fn nested(machine: &str) -> (World, Mmu, PageTables, TableId, TableId) {
    let mut w = World::new(machine);
    let host = w.root();
    let mut guest = PageTables::new();
    let groot = guest.alloc();
    let pt = guest.populate(groot, Va::new(HERE).vpn(), |_, _| {});
    guest.set(
        pt,
        Level::Pte.index(Va::new(HERE)),
        Entry::leaf(Pfn::new(0x100), Rights::ALL),
    );
    guest.set(
        pt,
        Level::Pte.index(Va::new(NEAR)),
        Entry::leaf(Pfn::new(0x101), Rights::ALL),
    );
    for gfn in 0..0x200u64 {
        w.map(
            host,
            gfn << 12,
            Entry::leaf(Pfn::new(0x1000 + gfn as u32), Rights::ALL),
        );
    }
    let mmu = w.mmu(0, host);
    (w, mmu, guest, groot, host)
}

#[test]
fn r22_flushing_an_asid_takes_nested_entries_along() {
    let (mut w, mut mmu, mut guest, groot, host) = nested("zen4-2022");
    let g = state(groot, Some(Vpid(1)), Eptp(1), false);
    let back = mmu.vmrun(&mut (), g, TlbControl::Nothing);
    let mut n = NestedTables {
        guest: &mut guest,
        tables_at: TABLES_AT,
        host_root: host,
    };
    mmu.translate_nested(&mut w.memory, &mut n, &mut (), Access::Read, Va::new(HERE))
        .unwrap();
    // The host replaces the page table under guest-physical 0..2 MiB
    mmu.svm_exit(&mut (), back);
    let top = w.table(host, Level::Pmd, 0);
    w.memory.tables.set(top, 0, Entry::NONE);
    mmu.vmrun(&mut (), g, TlbControl::ThisAsid);
    let r = mmu.translate_nested(&mut w.memory, &mut n, &mut (), Access::Read, Va::new(HERE));
    assert!(
        matches!(r, Err(NestedFault::Host { .. })),
        "{r:?}: still walks the detached nested page table"
    );
}

#[test]
fn r22_a_new_asid_finds_no_nested_entries_of_the_old_one() {
    let (mut w, mut mmu, mut guest, groot, host) = nested("zen4-2022");
    let old = state(groot, Some(Vpid(1)), Eptp(1), false);
    let back = mmu.vmrun(&mut (), old, TlbControl::Nothing);
    let mut n = NestedTables {
        guest: &mut guest,
        tables_at: TABLES_AT,
        host_root: host,
    };
    mmu.translate_nested(&mut w.memory, &mut n, &mut (), Access::Read, Va::new(HERE))
        .unwrap();
    mmu.svm_exit(&mut (), back);
    // The host takes the page table under guest-physical 0 to 2 MiB away, and instead of a flush gives
    // the virtual processor an ASID that was not in use.
    let top = w.table(host, Level::Pmd, 0);
    w.memory.tables.set(top, 0, Entry::NONE);
    let new = state(groot, Some(Vpid(2)), Eptp(1), false);
    mmu.vmrun(&mut (), new, TlbControl::Nothing);
    let r = mmu.translate_nested(&mut w.memory, &mut n, &mut (), Access::Read, Va::new(HERE));
    assert!(
        matches!(r, Err(NestedFault::Host { .. })),
        "{r:?}: still walks the detached nested page table"
    );
}

#[test]
fn r22_flushing_an_asid_but_globals_keeps_its_global_pages() {
    for (control, held) in [
        (TlbControl::ThisAsidButGlobals, [false, true]),
        (TlbControl::ThisAsid, [false, false]),
    ] {
        let (mut w, mut mmu, mut guest, groot, host) = nested("zen4-2022");
        let table = guest.populate(groot, Va::new(NEAR).vpn(), |_, _| {});
        guest.set(table, Level::Pte.index(Va::new(NEAR)), global(page(0x101)));
        let g = state(groot, Some(Vpid(1)), Eptp(1), false);
        let back = mmu.vmrun(&mut (), g, TlbControl::Nothing);
        let mut n = NestedTables {
            guest: &mut guest,
            tables_at: TABLES_AT,
            host_root: host,
        };
        for va in [HERE, NEAR] {
            mmu.translate_nested(&mut w.memory, &mut n, &mut (), Access::Read, Va::new(va))
                .unwrap();
        }
        mmu.svm_exit(&mut (), back);
        mmu.vmrun(&mut (), g, control);
        assert_eq!([HERE, NEAR].map(|va| cached(&mmu, va)), held, "{control:?}");
    }
}

#[test]
fn a_warm_walk_in_two_dimensions_reads_three_entries_all_of_them_near() {
    let (mut w, mut mmu, mut guest, groot, host) = nested("modern-2s");
    mmu.vm_transition(&mut (), state(groot, Some(Vpid(1)), Eptp(1), false));
    let mut n = NestedTables {
        guest: &mut guest,
        tables_at: TABLES_AT,
        host_root: host,
    };
    let mut walk = |va| {
        let memory = &mut w.memory;
        let done = mmu.translate_nested(memory, &mut n, &mut (), Access::Read, Va::new(va));
        match done.unwrap().found {
            Found::Walked { references, .. } => references,
            found => panic!("{found:?}"),
        }
    };
    let cold = walk(HERE);
    // Both dimensions keep upper entries while the cold walk goes on: all of guest-physical memory here
    // lies under one PDE, so only the first of its five walks of the second dimension is whole.
    assert_eq!(cold.total(), 4 + 4 + 4);
    let warm = walk(NEAR);
    // The guest's PTE, and a PTE of the host for it and for the page.
    assert_eq!((warm.total(), warm.by(Served::L1)), (3, 3));
}

#[test]
fn r10_an_ept_violation_cannot_repeat_once_the_tables_are_mended() {
    let (mut w, mut mmu, mut guest, groot, host) = nested("modern-2s");
    let g = state(groot, Some(Vpid(1)), Eptp(1), false);
    mmu.vm_transition(&mut (), g);
    // An upper entry of the second dimension without W.
    let top = w.table(host, Level::Pmd, 0);
    let e = w.memory.tables.get(top, 0);
    w.memory.tables.set(top, 0, e.without_write());
    let mut n = NestedTables {
        guest: &mut guest,
        tables_at: TABLES_AT,
        host_root: host,
    };
    mmu.translate_nested(&mut w.memory, &mut n, &mut (), Access::Read, Va::new(HERE))
        .unwrap();
    w.memory.tables.set(top, 0, e);
    let mut faults = 0;
    for _ in 0..10 {
        match mmu.translate_nested(&mut w.memory, &mut n, &mut (), Access::Write, Va::new(HERE)) {
            Ok(_) => break,
            Err(_) => faults += 1,
        }
    }
    assert!(
        faults <= 1,
        "{faults} EPT violations in a row after rights were raised"
    );
}

#[test]
fn r10_an_ept_violation_drops_the_combined_mapping() {
    let (mut w, mut mmu, mut guest, groot, host) = nested("modern-2s");
    let g = state(groot, Some(Vpid(1)), Eptp(1), false);
    mmu.vm_transition(&mut (), g);
    let mut n = NestedTables {
        guest: &mut guest,
        tables_at: TABLES_AT,
        host_root: host,
    };
    let pt = w.table(host, Level::Pte, 0x100 << 12);
    let idx = Level::Pte.index(Va::new(0x100 << 12));
    let e = w.memory.tables.get(pt, idx);
    w.memory.tables.set(pt, idx, e.without_write());
    mmu.translate_nested(&mut w.memory, &mut n, &mut (), Access::Read, Va::new(HERE))
        .unwrap();
    assert!(cached(&mmu, HERE));
    let r = mmu.translate_nested(&mut w.memory, &mut n, &mut (), Access::Write, Va::new(HERE));
    assert!(matches!(r, Err(NestedFault::Host { .. })), "{r:?}");
    assert!(!cached(&mmu, HERE), "combined mapping survives the EPT violation");
}

#[test]
fn invpcid_of_spaces_never_seen_takes_no_tags() {
    let mut w = World::new("modern-2s");
    let root = w.root();
    w.map(root, HERE, page(5));
    let mut mmu = w.mmu(0, root);
    w.load(&mut mmu, HERE).unwrap();
    for v in 1..17u16 {
        let mut s = state(root, Some(Vpid(v)), Eptp::NONE, true);
        s.cr3.pcid = pcid(0);
        mmu.vm_transition(&mut (), s);
        for p in 0..4096u16 {
            mmu.invpcid(&mut (), Invpcid::Address(pcid(p), Va::new(HERE)))
                .unwrap();
        }
    }
    let s = state(root, Some(Vpid::HOST), Eptp::NONE, false);
    mmu.vm_transition(&mut (), s);
    assert!(
        cached(&mmu, HERE),
        "no other VPID's INVPCID reaches the host's translation"
    );
}
