//! What invalidates what on one CPU: rows R1 to R11 of the hardware reference. Each row has two sides:
//! what must go, and what may stay (and does, so that software which flushes too little is caught).
#![allow(missing_docs)]

mod world;

use world::{
    APART, Count, FAR, G, HERE, K, KERNEL, M, NEAR, Spaces, WITH_PCID, World, cached, code, global, page,
    page_of, pcid,
};
use x86::mmu::{Bit63, Cr0, Cr3, Cr4, GeneralProtection, Invpcid, Pcid, PermissionMiss, Space};
use x86::{Access, ErrorCode, Level, Privilege, Rights, Va};

const ALL: [u64; 5] = [HERE, NEAR, APART, FAR, KERNEL];
const PAGING: Cr0 = Cr0 {
    paging: true,
    write_protect: true,
};

#[test]
fn r1_invlpg_drops_the_page_under_the_current_pcid_and_globally() {
    let mut s = Spaces::new();
    s.mmu.invlpg(&mut (), Va::new(HERE + 0xabc));
    assert_eq!(s.held(s.one), [NEAR, APART, FAR, KERNEL]);
    s.mmu.invlpg(&mut (), Va::new(KERNEL));
    assert_eq!(s.held(s.one), [NEAR, APART, FAR]);
    assert_eq!(
        s.held(s.two),
        [HERE, NEAR, APART, FAR],
        "no identifier sees the global page any more"
    );
}

#[test]
fn r1_invlpg_may_leave_other_pages_and_other_pcids() {
    let mut s = Spaces::new();
    s.mmu.invlpg(&mut (), Va::new(HERE));
    assert_eq!(s.held(s.one), [NEAR, APART, FAR, KERNEL]);
    assert_eq!(s.held(s.two), ALL);
}

#[test]
fn r1_invlpg_drops_paging_structure_entries_of_all_addresses_of_the_current_pcid_only() {
    let mut s = Spaces::new();
    assert!(s.leads(s.one, HERE) && s.leads(s.one, FAR) && s.leads(s.two, HERE));
    s.mmu.invlpg(&mut (), Va::new(HERE));
    for va in [HERE, NEAR, APART, FAR] {
        assert!(!s.leads(s.one, va), "{va:x}");
    }
    assert!(s.leads(s.two, HERE) && s.leads(s.two, FAR));
}

#[test]
fn r1_invlpg_of_any_address_in_a_large_page_drops_it_whole() {
    // Stores of this machine share one array of all sizes, fetches keep 1 GiB in pieces of 2 MiB.
    let mut world = World::new("modern-2s");
    let root = world.root();
    let executable = Rights::USER_WRITE | Rights::EXEC;
    let base = 5 << 30;
    for size in [M, G] {
        let leaf = x86::Entry::leaf_of(size, x86::Pfn::new(1 << 18), executable);
        world.map_of(root, size, base + (size as u64) * (1 << 30), leaf);
    }
    let mut mmu = world.mmu(0, root);
    for size in [M, G] {
        let start = base + (size as u64) * (1 << 30);
        let inside = |part: u64| start + size.bytes() / 4 * part + 0x3000;
        for part in 0..4 {
            for access in Access::ALL {
                world.access(&mut mmu, access, inside(part)).unwrap();
            }
        }
        mmu.invlpg(&mut (), Va::new(start + size.bytes() / 2 + 0x7000));
        for part in 0..4 {
            assert!(!cached(&mmu, inside(part)), "{size} part {part}");
        }
    }
    assert!(mmu.tlb().is_empty());
}

#[test]
fn r2_invpcid_of_an_address_drops_that_page_of_that_pcid() {
    let mut s = Spaces::new();
    s.mmu
        .invpcid(&mut (), Invpcid::Address(pcid(2), Va::new(HERE)))
        .unwrap();
    assert_eq!(s.held(s.two), [NEAR, APART, FAR, KERNEL]);
    assert_eq!(s.held(s.one), ALL);
}

#[test]
fn r2_invpcid_of_an_address_may_leave_a_global_page() {
    let mut s = Spaces::new();
    s.mmu
        .invpcid(&mut (), Invpcid::Address(pcid(1), Va::new(KERNEL)))
        .unwrap();
    assert_eq!(s.held(s.one), ALL);
}

#[test]
fn r2_invpcid_of_an_address_drops_the_paging_structure_entries_used_for_it() {
    let mut s = Spaces::new();
    s.mmu
        .invpcid(&mut (), Invpcid::Address(pcid(2), Va::new(HERE)))
        .unwrap();
    assert!(!s.leads(s.two, HERE));
    let directory = s.world.table(s.two.root, Level::Pmd, HERE);
    assert!(!s.mmu.psc().leads_to(directory), "the upper entries go too");
    assert!(s.leads(s.two, FAR) && s.leads(s.two, APART) && s.leads(s.one, HERE));
}

#[test]
fn r3_invpcid_of_a_context_drops_its_translations_but_may_leave_globals_and_others() {
    let mut s = Spaces::new();
    s.mmu.invpcid(&mut (), Invpcid::Context(pcid(2))).unwrap();
    assert_eq!(s.held(s.two), [KERNEL]);
    assert_eq!(s.held(s.one), ALL);
    assert!(!s.leads(s.two, HERE) && !s.leads(s.two, FAR));
    assert!(s.leads(s.one, HERE));
}

#[test]
fn r4_invpcid_of_everything_drops_globals_only_with_type_2() {
    for (what, left) in [
        (Invpcid::AllWithGlobals, &[][..]),
        (Invpcid::AllButGlobals, &[KERNEL][..]),
    ] {
        let mut s = Spaces::new();
        s.mmu.invpcid(&mut (), what).unwrap();
        assert_eq!(s.held(s.one), left);
        assert_eq!(s.held(s.two), left);
        assert_eq!(s.mmu.psc().filled_slots(), 0);
    }
}

#[test]
fn invpcid_and_pcide_are_refused_where_the_processor_has_none() {
    let mut world = World::new("harpertown-2008");
    let root = world.root();
    let mut mmu = world.mmu(0, root);
    let refused = mmu.invpcid(&mut (), Invpcid::AllWithGlobals);
    assert_eq!(refused, Err(GeneralProtection::NoInvpcid));
    assert_eq!(mmu.mov_cr4(&mut (), WITH_PCID), Err(GeneralProtection::NoPcid));
}

/// A CPU without PCIDE with an own and a global page cached.
fn untagged() -> (World, x86::mmu::Mmu, Cr3) {
    let mut world = World::new("modern-2s");
    let root = world.root();
    world.map(root, HERE, page(1));
    world.map(root, KERNEL, global(page(2)));
    let mut mmu = world.mmu(0, root);
    world.load(&mut mmu, HERE).unwrap();
    world.load(&mut mmu, KERNEL).unwrap();
    (
        world,
        mmu,
        Cr3 {
            root,
            pcid: Pcid::ZERO,
        },
    )
}

#[test]
fn r5_mov_cr3_without_pcide_drops_all_but_globals() {
    let (_, mut mmu, cr3) = untagged();
    mmu.mov_cr3(&mut (), cr3, Bit63::Clear);
    assert!(!cached(&mmu, HERE) && cached(&mmu, KERNEL));
    assert_eq!(mmu.psc().filled_slots(), 0);
}

#[test]
fn r5_low_bits_of_cr3_are_no_identifier_without_pcide() {
    let (mut world, mut mmu, cr3) = untagged();
    mmu.mov_cr3(&mut (), Cr3 { pcid: pcid(9), ..cr3 }, Bit63::Clear);
    assert_eq!(world.load(&mut mmu, HERE), Ok(1));
    mmu.mov_cr3(&mut (), cr3, Bit63::Clear);
    assert!(!cached(&mmu, HERE));
    assert_eq!(
        mmu.mov_cr4(&mut (), WITH_PCID),
        Ok(()),
        "identifier 0 was loaded all along"
    );
}

#[test]
fn r5_a_page_is_global_only_with_pge() {
    let (mut world, mut mmu, cr3) = untagged();
    mmu.mov_cr4(&mut (), Cr4::default()).unwrap();
    world.load(&mut mmu, KERNEL).unwrap();
    mmu.mov_cr3(&mut (), cr3, Bit63::Clear);
    assert!(!cached(&mmu, KERNEL));
}

#[test]
fn r6_mov_cr3_with_bit_63_clear_drops_what_belongs_to_the_pcid_loaded() {
    let mut s = Spaces::new();
    s.mmu.mov_cr3(&mut (), s.two, Bit63::Clear);
    assert_eq!(s.held(s.two), [KERNEL]);
    assert!(!s.leads(s.two, HERE) && !s.leads(s.two, FAR));
}

#[test]
fn r6_mov_cr3_with_bit_63_clear_may_leave_other_pcids() {
    let mut s = Spaces::new();
    s.mmu.mov_cr3(&mut (), s.two, Bit63::Clear);
    assert_eq!(s.held(s.one), ALL);
    assert!(s.leads(s.one, HERE));
}

#[test]
fn r7_mov_cr3_with_bit_63_set_need_not_drop_even_what_is_stale() {
    let mut s = Spaces::new();
    s.world.map(s.one.root, HERE, page(500));
    s.mmu.mov_cr3(&mut (), s.one, Bit63::Set);
    assert_eq!(
        s.world.load(&mut s.mmu, HERE),
        Ok(100),
        "stale, and allowed to be"
    );
    assert_eq!(s.held(s.two), ALL);
    s.mmu.mov_cr3(&mut (), s.one, Bit63::Clear);
    assert_eq!(s.world.load(&mut s.mmu, HERE), Ok(500));
}

#[test]
fn r7_an_identifier_loaded_with_another_root_still_finds_what_it_had() {
    // The tag is the identifier, not the root: reuse without a flush is a bug of software.
    let mut s = Spaces::new();
    let reused = Cr3 {
        root: s.two.root,
        pcid: s.one.pcid,
    };
    s.mmu.mov_cr3(&mut (), reused, Bit63::Set);
    assert_eq!(s.world.load(&mut s.mmu, HERE), Ok(100));
    s.mmu.mov_cr3(&mut (), reused, Bit63::Clear);
    assert_eq!(s.world.load(&mut s.mmu, HERE), Ok(200));
}

#[test]
fn r8_changing_pge_either_way_drops_everything() {
    let mut s = Spaces::new();
    s.mmu
        .mov_cr4(
            &mut (),
            Cr4 {
                global_pages: false,
                ..WITH_PCID
            },
        )
        .unwrap();
    assert!(s.mmu.tlb().is_empty() && s.mmu.psc().filled_slots() == 0);
    s.world.load(&mut s.mmu, HERE).unwrap();
    s.switch(s.two);
    s.mmu.mov_cr4(&mut (), WITH_PCID).unwrap();
    assert!(s.mmu.tlb().is_empty() && s.mmu.psc().filled_slots() == 0);
}

#[test]
fn r8_clearing_pcide_drops_everything_and_uses_identifier_0() {
    let mut s = Spaces::new();
    s.mmu
        .mov_cr4(
            &mut (),
            Cr4 {
                pcid_enable: false,
                ..WITH_PCID
            },
        )
        .unwrap();
    assert!(s.mmu.tlb().is_empty() && s.mmu.psc().filled_slots() == 0);
    assert_eq!(s.world.load(&mut s.mmu, HERE), Ok(100), "the root stays");
    assert_eq!(
        s.mmu.mov_cr4(&mut (), WITH_PCID),
        Err(GeneralProtection::PcidNotZero),
        "CR3 keeps its low bits"
    );
    let zero = Cr3 {
        pcid: Pcid::ZERO,
        ..s.one
    };
    s.mmu.mov_cr3(&mut (), zero, Bit63::Clear);
    s.world.load(&mut s.mmu, HERE).unwrap();
    assert_eq!(s.mmu.mov_cr4(&mut (), WITH_PCID), Ok(()));
    assert_eq!(s.held(zero), [HERE], "setting PCIDE drops nothing");
}

#[test]
fn r8_clearing_pg_drops_everything() {
    let (_, mut mmu, _) = untagged();
    mmu.mov_cr0(
        &mut (),
        Cr0 {
            paging: false,
            ..PAGING
        },
    )
    .unwrap();
    assert!(mmu.tlb().is_empty() && mmu.psc().filled_slots() == 0);
}

#[test]
fn r8_a_cr4_write_that_changes_neither_bit_may_leave_everything() {
    let mut s = Spaces::new();
    s.mmu
        .mov_cr4(
            &mut (),
            Cr4 {
                smap: true,
                ..WITH_PCID
            },
        )
        .unwrap();
    s.mmu.mov_cr4(&mut (), WITH_PCID).unwrap();
    s.mmu
        .mov_cr0(
            &mut (),
            Cr0 {
                write_protect: false,
                ..PAGING
            },
        )
        .unwrap();
    assert_eq!(s.held(s.one), ALL);
}

#[test]
fn pcide_needs_identifier_0_and_keeps_paging_on() {
    let mut s = Spaces::new();
    let off = Cr0 {
        paging: false,
        ..PAGING
    };
    assert_eq!(
        s.mmu.mov_cr0(&mut (), off),
        Err(GeneralProtection::PagingNeededByPcid)
    );
    assert_eq!(s.held(s.one), ALL, "a refused write changes nothing");
    let (_, mut mmu, cr3) = untagged();
    mmu.mov_cr3(&mut (), Cr3 { pcid: pcid(3), ..cr3 }, Bit63::Clear);
    assert_eq!(
        mmu.mov_cr4(&mut (), WITH_PCID),
        Err(GeneralProtection::PcidNotZero)
    );
    mmu.mov_cr3(&mut (), cr3, Bit63::Clear);
    assert_eq!(mmu.mov_cr4(&mut (), WITH_PCID), Ok(()));
}

#[test]
fn r9_setting_smep_drops_what_belongs_to_the_current_pcid() {
    let mut s = Spaces::new();
    s.mmu
        .mov_cr4(
            &mut (),
            Cr4 {
                smep: true,
                ..WITH_PCID
            },
        )
        .unwrap();
    for va in [HERE, NEAR, APART, FAR] {
        assert!(!cached(&s.mmu, va), "{va:x}");
        assert!(!s.leads(s.one, va));
    }
}

#[test]
fn r9_setting_smep_may_leave_other_pcids_and_clearing_it_everything() {
    let mut s = Spaces::new();
    let smep = Cr4 {
        smep: true,
        ..WITH_PCID
    };
    s.mmu.mov_cr4(&mut (), smep).unwrap();
    let others = s.held(s.two);
    assert!([HERE, NEAR, APART, FAR].iter().all(|va| others.contains(va)));
    assert!(s.leads(s.two, HERE));
    s.mmu.mov_cr4(&mut (), WITH_PCID).unwrap();
    assert_eq!(s.held(s.two), others);
}

#[test]
fn r10_a_page_fault_drops_the_page_and_the_paging_structure_entries_used_for_it() {
    let mut s = Spaces::new();
    s.world.map(s.one.root, HERE, page(100).without_write());
    // The TLB allows loads only; the store walks and the tables refuse.
    s.mmu
        .invpcid(&mut (), Invpcid::Address(s.one.pcid, Va::new(HERE)))
        .unwrap();
    for va in [HERE, NEAR, FAR] {
        s.world.load(&mut s.mmu, va).unwrap();
    }
    assert!(cached(&s.mmu, HERE) && s.leads(s.one, HERE));
    let fault = code(s.world.store(&mut s.mmu, HERE));
    assert_eq!(
        fault,
        ErrorCode::PRESENT.with(ErrorCode::WRITE).with(ErrorCode::USER)
    );
    assert!(!cached(&s.mmu, HERE) && !s.leads(s.one, HERE));
    let directory = s.world.table(s.one.root, Level::Pmd, HERE);
    assert!(!s.mmu.psc().leads_to(directory));
    // What the fault had no business with may stay.
    assert!(cached(&s.mmu, NEAR) && cached(&s.mmu, FAR) && s.leads(s.one, FAR));
    assert_eq!(s.held(s.two), ALL);
    assert!(s.leads(s.two, HERE));
}

#[test]
fn r10_a_fault_caused_by_a_stale_upper_entry_does_not_repeat() {
    // The right is missing only in the cached copy of an upper entry, which software gave back.
    let mut world = World::new("modern-2s");
    let root = world.root();
    world.map(root, HERE, page(1));
    let upper = world.get_at(root, Level::Pmd, HERE);
    world.set_at(root, Level::Pmd, HERE, upper.without_write());
    let mut mmu = world.mmu(0, root);
    world.load(&mut mmu, HERE).unwrap();
    world.set_at(root, Level::Pmd, HERE, upper);
    assert!(
        world.store(&mut mmu, HERE).is_err(),
        "the walk starts from the cached copy"
    );
    assert_eq!(world.store(&mut mmu, HERE), Ok(1));
}

#[test]
fn r11_a_processor_may_drop_anything_at_any_time() {
    let mut s = Spaces::new();
    let mut frames = Count::default();
    let (one, page) = (s.one.pcid, Va::new(NEAR).vpn());
    s.mmu.drop_where(&mut frames, |space, vpn| {
        matches!(space, Space::Linear(_, _, pcid) if pcid == one) && vpn == page
    });
    assert_eq!(s.held(s.one), [HERE, APART, FAR, KERNEL]);
    assert_eq!(s.held(s.two), ALL);
    assert!(frames.slots.values().all(|&slots| slots < 0) && frames.slots.len() == 1);
    s.mmu.drop_where(&mut frames, |_, _| true);
    assert!(s.mmu.tlb().is_empty());
    assert_eq!(
        s.world.load(&mut s.mmu, HERE),
        Ok(200),
        "what was dropped is walked for again"
    );
}

#[test]
fn r11_what_is_dropped_early_changes_no_answer_while_tables_stand_still() {
    let mut s = Spaces::new();
    for va in ALL {
        let before = s.world.load(&mut s.mmu, va);
        s.mmu.drop_where(&mut (), |_, vpn| vpn.get() % 2 == 0);
        assert_eq!(s.world.load(&mut s.mmu, va), before);
    }
}

#[test]
fn r1_to_r9_leave_the_counts_of_slots_right() {
    let mut s = Spaces::new();
    let mut count = Count::default();
    s.mmu.drop_where(&mut (), |_, _| true);
    for round in 0..9 {
        for cr3 in [s.two, s.one] {
            s.mmu.mov_cr3(&mut count, cr3, Bit63::Set);
            for va in ALL {
                let (mmu, memory) = (&mut s.mmu, &mut s.world.memory);
                mmu.translate(memory, &mut count, Access::Read, Va::new(va))
                    .unwrap();
            }
        }
        count.check(s.mmu.tlb());
        let (mmu, here) = (&mut s.mmu, Va::new(HERE));
        match round {
            0 => mmu.invlpg(&mut count, here),
            1 => mmu.invpcid(&mut count, Invpcid::Address(pcid(2), here)).unwrap(),
            2 => mmu.invpcid(&mut count, Invpcid::Context(pcid(2))).unwrap(),
            3 => mmu.invpcid(&mut count, Invpcid::AllWithGlobals).unwrap(),
            4 => mmu.invpcid(&mut count, Invpcid::AllButGlobals).unwrap(),
            5 => mmu.mov_cr3(&mut count, s.two, Bit63::Clear),
            6 => mmu
                .mov_cr4(
                    &mut count,
                    Cr4 {
                        global_pages: false,
                        ..WITH_PCID
                    },
                )
                .unwrap(),
            7 => mmu
                .mov_cr4(
                    &mut count,
                    Cr4 {
                        smep: true,
                        ..WITH_PCID
                    },
                )
                .unwrap(),
            _ => mmu.drop_where(&mut count, |_, vpn| vpn.get() % 2 == 1),
        }
        count.check(s.mmu.tlb());
    }
}

#[test]
fn a_processor_that_faults_on_a_stale_right_forgets_it_at_that_fault() {
    let mut world = World::new("modern-2s");
    let root = world.root();
    world.map_of(root, K, HERE, page_of(K, 3).without_write());
    let mut mmu = world.mmu(0, root);
    mmu.set_permission_miss(PermissionMiss::Fault);
    mmu.set_privilege(Privilege::User);
    world.load(&mut mmu, HERE).unwrap();
    world.map(root, HERE, page(3));
    assert!(code(world.store(&mut mmu, HERE)).has(ErrorCode::PRESENT));
    assert!(!cached(&mmu, HERE));
    assert_eq!(world.store(&mut mmu, HERE), Ok(3));
}
