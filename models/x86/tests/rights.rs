//! Which accesses the tables refuse, with which error code (Intel SDM vol. 3A 4.6 and 4.7).
#![allow(missing_docs)]

mod world;

use world::{FAR, G, HERE, K, M, NEAR, World, cached, code, page, page_of};
use x86::mmu::{Cr0, Cr4, Mmu, PermissionMiss};
use x86::{
    Access, Entry, EntryFlags, ErrorCode, Fault, Level, Machine, PagingMode, Pfn, Privilege, Rights, TableId,
    Va,
};

/// A world with one address space and a CPU in it.
fn one() -> (World, TableId, Mmu) {
    let mut world = World::new("modern-2s");
    let root = world.root();
    let mmu = world.mmu(0, root);
    (world, root, mmu)
}

/// What the manual's section on access rights says of one access, decided bit by bit.
fn allowed(rights: Rights, access: Access, who: Privilege, cr0: Cr0, cr4: Cr4) -> bool {
    let (user, write, exec) = (
        rights.contains(Rights::USER),
        rights.contains(Rights::WRITE),
        rights.contains(Rights::EXEC),
    );
    match (who, access) {
        (Privilege::User, Access::Read) => user,
        (Privilege::User, Access::Write) => user && write,
        (Privilege::User, Access::Fetch) => user && exec,
        (Privilege::Supervisor, Access::Read) => !(user && cr4.smap),
        (Privilege::Supervisor, Access::Write) => !(user && cr4.smap) && (write || !cr0.write_protect),
        (Privilege::Supervisor, Access::Fetch) => exec && !(user && cr4.smep),
    }
}

fn expected_code(access: Access, who: Privilege) -> u32 {
    let access = match access {
        Access::Read => 0,
        Access::Write => 0b1_0,
        Access::Fetch => 0b1_0000,
    };
    access | if who == Privilege::User { 0b100 } else { 0 }
}

const EACH: [Rights; 3] = [Rights::WRITE, Rights::USER, Rights::EXEC];

#[test]
fn every_combination_of_rights_privilege_and_control_bits_is_allowed_or_refused_as_the_manual_says() {
    for bits in 0..1_u32 << 8 {
        let on = |bit: u32| bits >> bit & 1 == 1;
        let mut rights = Rights::NONE;
        for (at, right) in EACH.into_iter().enumerate() {
            if on(at as u32) {
                rights = rights | right;
            }
        }
        let who = if on(3) {
            Privilege::User
        } else {
            Privilege::Supervisor
        };
        let cr0 = Cr0 {
            paging: true,
            write_protect: on(4),
        };
        let cr4 = Cr4 {
            smep: on(5),
            smap: on(6),
            ..Cr4::default()
        };
        let (mut world, root, mut mmu) = one();
        mmu.set_privilege(who);
        mmu.mov_cr0(&mut (), cr0).unwrap();
        mmu.mov_cr4(&mut (), cr4).unwrap();
        // A page, cached or not at the time of the access, must give the same answer.
        if on(7) {
            mmu.set_permission_miss(PermissionMiss::Fault);
        }
        world.map(root, HERE, Entry::leaf(Pfn::new(1), rights));
        for access in [
            Access::Read,
            Access::Write,
            Access::Fetch,
            Access::Fetch,
            Access::Write,
            Access::Read,
        ] {
            let result = world.access(&mut mmu, access, HERE);
            if allowed(rights, access, who, cr0, cr4) {
                assert_eq!(result, Ok(1), "{rights:?} {access:?} {who:?} {cr0:?} {cr4:?}");
            } else {
                let bits = code(result).bits();
                assert_eq!(
                    bits,
                    1 | expected_code(access, who),
                    "{rights:?} {access:?} {who:?} {cr0:?} {cr4:?}"
                );
            }
        }
    }
}

#[test]
fn a_right_missing_at_any_level_is_missing() {
    let accesses = [Access::Write, Access::Read, Access::Fetch];
    for level in [Level::Pte, Level::Pmd, Level::Pud, Level::P4d, Level::Pgd] {
        for (right, access) in EACH.into_iter().zip(accesses) {
            let mut world = World::of(Machine::preset("modern-2s").unwrap(), PagingMode::FiveLevel);
            let root = world.root();
            world.map(root, HERE, Entry::leaf(Pfn::new(1), Rights::ALL));
            let mut mmu = world.mmu(0, root);
            assert_eq!(world.access(&mut mmu, access, HERE), Ok(1));
            mmu.invlpg(&mut (), Va::new(HERE));
            let entry = world.get_at(root, level, HERE);
            let weaker = match right {
                Rights::WRITE => entry.without_write(),
                Rights::USER => entry.without(EntryFlags::USER),
                _ => entry.with(EntryFlags::NO_EXECUTE),
            };
            world.set_at(root, level, HERE, weaker);
            let bits = code(world.access(&mut mmu, access, HERE)).bits();
            assert_eq!(
                bits,
                1 | expected_code(access, Privilege::User),
                "{level:?} {right:?}"
            );
        }
    }
}

#[test]
fn an_absent_entry_gives_an_error_code_without_p() {
    for who in [Privilege::User, Privilege::Supervisor] {
        for access in Access::ALL {
            let (mut world, root, mut mmu) = one();
            mmu.set_privilege(who);
            world.map(root, NEAR, page(1));
            for va in [HERE, FAR] {
                let result = world.access(&mut mmu, access, va);
                assert_eq!(
                    result,
                    Err(Fault::Page {
                        va: Va::new(va),
                        code: code(result)
                    })
                );
                assert_eq!(code(result).bits(), expected_code(access, who));
            }
        }
    }
}

/// What a large leaf with bits that must be zero, or at a level that has no leaves, gives.
fn refused_as_reserved(mode: PagingMode, machine: &str, level: Level, entry: Entry) -> bool {
    let mut world = World::of(Machine::preset(machine).unwrap(), mode);
    let root = world.root();
    world.set_at(root, level, HERE, entry);
    let mut mmu = world.mmu(0, root);
    let Err(Fault::Page { code, .. }) = world.store(&mut mmu, HERE) else {
        return false;
    };
    let bits = code.bits();
    assert_eq!(bits, 0b01111, "P, W, U and RSVD");
    assert!(!cached(&mmu, HERE));
    true
}

#[test]
fn ps_at_a_level_without_leaves_is_a_reserved_bit() {
    let large = page_of(G, 0);
    assert!(refused_as_reserved(
        PagingMode::FourLevel,
        "modern-2s",
        Level::P4d,
        large
    ));
    assert!(refused_as_reserved(
        PagingMode::FiveLevel,
        "modern-2s",
        Level::P4d,
        large
    ));
    assert!(refused_as_reserved(
        PagingMode::FiveLevel,
        "modern-2s",
        Level::Pgd,
        large
    ));
    for level in [Level::Pmd, Level::Pud] {
        assert!(!refused_as_reserved(
            PagingMode::FiveLevel,
            "modern-2s",
            level,
            large
        ));
    }
}

#[test]
fn a_leaf_of_1_gib_is_a_reserved_bit_without_the_feature() {
    assert!(refused_as_reserved(
        PagingMode::FourLevel,
        "harpertown-2008",
        Level::Pud,
        page_of(G, 0)
    ));
    assert!(!refused_as_reserved(
        PagingMode::FourLevel,
        "harpertown-2008",
        Level::Pmd,
        page_of(M, 0)
    ));
}

#[test]
fn frame_bits_below_the_size_of_a_large_leaf_are_reserved_and_the_pat_bit_is_not() {
    for (size, level, highest) in [(M, Level::Pmd, 20), (G, Level::Pud, 29)] {
        for bit in 12..=highest + 1 {
            let entry = Entry::from_bits(page_of(size, 0).bits() | 1 << bit);
            let reserved = refused_as_reserved(PagingMode::FourLevel, "modern-2s", level, entry);
            assert_eq!(reserved, (13..=highest).contains(&bit), "{size} bit {bit}");
        }
    }
}

#[test]
fn a_reserved_bit_counts_before_rights_and_not_in_an_absent_entry() {
    let reserved = Entry::from_bits(page_of(M, 0).bits() | 1 << 14);
    let none = EntryFlags::USER | EntryFlags::WRITE;
    assert!(refused_as_reserved(
        PagingMode::FourLevel,
        "modern-2s",
        Level::Pmd,
        reserved.without(none)
    ));
    let (mut world, root, mut mmu) = one();
    world.set_at(root, Level::Pmd, HERE, reserved.without(EntryFlags::PRESENT));
    assert_eq!(code(world.load(&mut mmu, HERE)), ErrorCode::USER);
}

#[test]
fn addresses_that_are_not_canonical_are_refused_before_anything_is_looked_up() {
    for (mode, bits) in [(PagingMode::FourLevel, 48), (PagingMode::FiveLevel, 57)] {
        let mut world = World::of(Machine::preset("modern-2s").unwrap(), mode);
        let root = world.root();
        let half = 1_u64 << (bits - 1);
        for va in [0, half - 1, half.wrapping_neg(), u64::MAX] {
            world.map(root, va & !0xfff, page(1));
            let mut mmu = world.mmu(0, root);
            assert_eq!(world.load(&mut mmu, va), Ok(1), "{va:#x} in {mode:?}");
        }
        let mut mmu = world.mmu(0, root);
        for va in [half, half.wrapping_neg() - 1, 1 << 63, u64::MAX >> 1] {
            let fault = world.load(&mut mmu, va);
            assert_eq!(fault, Err(Fault::NonCanonical { va: Va::new(va) }), "{mode:?}");
        }
        assert_eq!(mmu.tlb().stats().misses.total() + mmu.stats().faults.total(), 0);
    }
}

#[test]
fn the_halves_of_an_address_space_do_not_meet_in_the_tlb() {
    for mode in [PagingMode::FourLevel, PagingMode::FiveLevel] {
        let mut world = World::of(Machine::preset("modern-2s").unwrap(), mode);
        let root = world.root();
        let pairs = [(HERE, 1), (HERE | 0xffff_8000_0000_0000, 2)];
        for (va, pfn) in pairs {
            world.map(root, va, page(pfn));
        }
        let mut mmu = world.mmu(0, root);
        for (va, pfn) in pairs.into_iter().chain(pairs) {
            assert_eq!(world.load(&mut mmu, va), Ok(pfn));
        }
    }
}

#[test]
fn the_pat_index_is_pat_pcd_pwt_with_pat_in_bit_7_or_12() {
    for size in [K, M, G] {
        let pat = if size == K {
            EntryFlags::PAT
        } else {
            EntryFlags::PAT_LARGE
        };
        for index in 0..8_u8 {
            let mut entry = page_of(size, 0);
            for (bit, flag) in [EntryFlags::WRITE_THROUGH, EntryFlags::CACHE_DISABLE, pat]
                .into_iter()
                .enumerate()
            {
                if index >> bit & 1 == 1 {
                    entry = entry.with(flag);
                }
            }
            assert_eq!(entry.pat_index(size), index, "{size}");
            let (mut world, root, mut mmu) = one();
            world.map_of(root, size, 0, entry);
            assert_eq!(
                world.load(&mut mmu, 0),
                Ok(0),
                "the memory type changes no translation"
            );
        }
    }
}
