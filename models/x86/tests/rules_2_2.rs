//! What a stale entry may and may not do: rows R12 to R18 of the hardware reference.
#![allow(missing_docs)]

mod world;

use world::{APART, Count, FAR, G, HERE, K, KERNEL, M, NEAR, World, cached, code, page, page_of};
use x86::mmu::{Bit63, Cr0, Cr3, Cr4, Found, Mmu, Pcid, PermissionMiss};
use x86::{
    Access, DirtyAssist, Entry, ErrorCode, Generation, Level, Machine, PageSize, PagingMode, Pfn, Privilege,
    Rights, TableId, Va,
};

/// A world with one address space and a CPU in it.
fn one() -> (World, TableId, Mmu) {
    let mut world = World::new("modern-2s");
    let root = world.root();
    let mmu = world.mmu(0, root);
    (world, root, mmu)
}

/// Two CPUs in one address space where [`HERE`] is mapped and cached on both.
fn two_cpus() -> (World, TableId, [Mmu; 2]) {
    let (mut world, root, mmu) = one();
    world.map(root, HERE, page(1));
    let mut mmus = [mmu, world.mmu(1, root)];
    for mmu in &mut mmus {
        world.store(mmu, HERE).unwrap();
    }
    (world, root, mmus)
}

#[test]
fn r12_an_entry_that_is_not_present_is_never_cached() {
    let (mut world, root, mut mmu) = one();
    world.map(root, NEAR, page(2));
    for _ in 0..3 {
        assert_eq!(code(world.load(&mut mmu, HERE)), ErrorCode::USER);
        assert!(!cached(&mmu, HERE));
    }
    world.map(root, HERE, page(1));
    assert_eq!(world.load(&mut mmu, HERE), Ok(1), "P from 0 to 1 needs no flush");
    assert!(world.load(&mut mmu, FAR).is_err());
    world.map(root, FAR, page(3));
    assert_eq!(world.load(&mut mmu, FAR), Ok(3), "nor does it in an upper entry");
}

#[test]
fn r12_a_leaf_is_cached_only_with_a_set() {
    let (mut world, root, mut mmu) = one();
    for size in [K, M, G] {
        let va = FAR + (size as u64) * (1 << 31);
        world.map_of(root, size, va, page_of(size, 1 << 18));
        world.load(&mut mmu, va).unwrap();
        let leaf = world.get_at(root, Level::of_leaf(size), va);
        assert!(leaf.accessed() && !leaf.dirty(), "{size}");
    }
}

#[test]
fn r12_a_walk_that_is_refused_caches_no_leaf_and_leaves_its_a_and_d_alone() {
    let (mut world, root, mut mmu) = one();
    let leaf = page(1).without_write();
    world.map(root, HERE, leaf);
    assert!(world.store(&mut mmu, HERE).is_err());
    assert!(!cached(&mmu, HERE));
    assert_eq!(world.pte(root, HERE), leaf);
}

#[test]
fn r12_an_upper_entry_is_kept_only_once_a_is_set() {
    for mode in [PagingMode::FourLevel, PagingMode::FiveLevel] {
        let mut world = World::of(Machine::preset("modern-2s").unwrap(), mode);
        let root = world.root();
        world.map(root, HERE, page(1));
        for level in Level::upper(mode.root_level()) {
            let entry = world.get_at(root, level, HERE);
            world.set_at(root, level, HERE, entry.without_accessed());
        }
        let mut mmu = world.mmu(0, root);
        world.load(&mut mmu, HERE).unwrap();
        assert_eq!(mmu.psc().filled_slots() as u32, mode.levels() - 1);
        for level in Level::upper(mode.root_level()) {
            assert!(world.get_at(root, level, HERE).accessed(), "{level:?}");
        }
    }
}

#[test]
fn r13_more_permission_needs_no_flush() {
    let (mut world, root, mut mmu) = one();
    world.map(root, HERE, Entry::leaf(Pfn::new(1), Rights::USER));
    world.load(&mut mmu, HERE).unwrap();
    world.map(root, HERE, page(1));
    assert_eq!(world.store(&mut mmu, HERE), Ok(1), "R/W from 0 to 1");
    assert!(world.fetch(&mut mmu, HERE).is_err());
    world.map(root, HERE, Entry::leaf(Pfn::new(1), Rights::ALL));
    assert_eq!(world.fetch(&mut mmu, HERE), Ok(1), "XD from 1 to 0");
    mmu.set_privilege(Privilege::Supervisor);
    world.map(root, NEAR, Entry::leaf(Pfn::new(2), Rights::WRITE));
    world.load(&mut mmu, NEAR).unwrap();
    world.map(root, NEAR, page(2));
    mmu.set_privilege(Privilege::User);
    assert_eq!(world.load(&mut mmu, NEAR), Ok(2), "U/S from 0 to 1");
}

#[test]
fn r13_at_most_one_spurious_fault_follows_per_address_and_cpu() {
    let (mut world, root, mmu) = one();
    let mut mmus = [mmu, world.mmu(1, root)];
    let pages = [HERE, NEAR, APART];
    for va in pages {
        world.map(root, va, page(1).without_write());
    }
    for mmu in &mut mmus {
        mmu.set_permission_miss(PermissionMiss::Fault);
        for va in pages {
            world.load(mmu, va).unwrap();
        }
    }
    for va in pages {
        world.map(root, va, page(1));
    }
    let wanted = ErrorCode::PRESENT.with(ErrorCode::WRITE).with(ErrorCode::USER);
    for mmu in &mut mmus {
        for va in pages {
            assert_eq!(code(world.store(mmu, va)), wanted, "spurious, and allowed");
            for _ in 0..3 {
                assert_eq!(world.store(mmu, va), Ok(1));
            }
        }
    }
}

#[test]
fn r13_a_processor_that_walks_again_takes_no_spurious_fault() {
    let (mut world, root, mut mmu) = one();
    world.map(root, HERE, page(1).without_write());
    world.load(&mut mmu, HERE).unwrap();
    world.map(root, HERE, page(1));
    assert_eq!(world.store(&mut mmu, HERE), Ok(1));
}

#[test]
fn r14_a_removed_translation_may_be_used_for_an_unbounded_time_even_to_store() {
    let (mut world, root, [mut here, mut there]) = two_cpus();
    world.map(root, HERE, Entry::NONE);
    for other in 0..10 {
        assert_eq!(
            world.load(&mut there, HERE),
            Ok(1),
            "after {other} other accesses"
        );
        assert_eq!(world.store(&mut there, HERE), Ok(1));
        world.map(root, APART, page(9));
        world.load(&mut there, APART).unwrap();
    }
    here.invlpg(&mut (), Va::new(HERE));
    assert!(world.load(&mut here, HERE).is_err());
    assert_eq!(
        world.load(&mut there, HERE),
        Ok(1),
        "another CPU's INVLPG does not help"
    );
    there.invlpg(&mut (), Va::new(HERE));
    assert!(world.load(&mut there, HERE).is_err());
}

#[test]
fn r14_the_new_value_may_be_used_before_the_flush_too() {
    let (mut world, root, [_, mut there]) = two_cpus();
    world.map(root, HERE, page(2));
    assert_eq!(world.load(&mut there, HERE), Ok(1));
    there.drop_where(&mut (), |_, _| true);
    assert_eq!(
        world.load(&mut there, HERE),
        Ok(2),
        "the processor forgot by itself"
    );
}

#[test]
fn r14_a_taken_permission_may_still_be_used_until_the_flush() {
    let (mut world, root, [mut cpu, _]) = two_cpus();
    world.map(root, HERE, page(1).without_write());
    assert_eq!(world.store(&mut cpu, HERE), Ok(1));
    cpu.invlpg(&mut (), Va::new(HERE));
    assert!(world.store(&mut cpu, HERE).is_err());
    assert_eq!(world.load(&mut cpu, HERE), Ok(1));
}

#[test]
fn r15_a_reused_frame_can_be_reached_by_a_cpu_that_was_not_flushed() {
    let (mut world, root, [mut here, mut there]) = two_cpus();
    let mut frames = Count::default();
    world.map(root, HERE, Entry::NONE);
    here.invlpg(&mut (), Va::new(HERE));
    // The frame is freed and given to another page, one CPU too early.
    frames.generation += 1;
    world.map(root, NEAR, page(1));
    let mine = here
        .translate(&mut world.memory, &mut frames, Access::Write, Va::new(NEAR))
        .unwrap();
    let stale = world.translate(&mut there, Access::Write, HERE).unwrap();
    assert_eq!(stale.pfn, mine.pfn, "two owners of one frame");
    assert!(
        stale.entry.generation < mine.entry.generation,
        "which the generation gives away"
    );
    assert_eq!(mine.entry.generation, Generation::new(1));
}

#[test]
fn r15_a_frame_reused_after_every_cpu_was_flushed_has_one_owner() {
    let (mut world, root, mut mmus) = two_cpus();
    world.map(root, HERE, Entry::NONE);
    for mmu in &mut mmus {
        mmu.invlpg(&mut (), Va::new(HERE));
        assert!(mmu.tlb().holds_pfn(Pfn::new(1)).is_none());
    }
    world.map(root, NEAR, page(1));
    for mmu in &mut mmus {
        assert!(world.load(mmu, HERE).is_err());
        assert_eq!(world.load(mmu, NEAR), Ok(1));
    }
}

/// A walk for [`APART`] has left the way to its page table in the caches, and the entry of the page
/// directory was cleared since. Returns the detached page table.
fn detached() -> (World, TableId, Mmu, TableId) {
    let (mut world, root, mut mmu) = one();
    world.map(root, APART, page(1));
    world.load(&mut mmu, APART).unwrap();
    let page_table = world.table(root, Level::Pte, APART);
    world.set_at(root, Level::Pmd, APART, Entry::NONE);
    (world, root, mmu, page_table)
}

#[test]
fn r15_clearing_an_upper_entry_alone_leaves_a_way_into_the_detached_table() {
    let (mut world, _, mut mmu, page_table) = detached();
    assert!(mmu.psc().leads_to(page_table));
    // Another page of the detached table: not in any TLB, found by a walk all the same.
    let other = APART + 0x2000;
    world
        .memory
        .tables
        .set(page_table, Level::Pte.index(Va::new(other)), page(66));
    assert!(!cached(&mmu, other));
    assert_eq!(
        world.load(&mut mmu, other),
        Ok(66),
        "the walk reads the detached table"
    );
}

#[test]
fn r15_one_invlpg_or_cr3_write_closes_the_way_into_a_detached_table() {
    for flush in ["invlpg of the address", "invlpg of another address", "cr3", "pge"] {
        let (mut world, root, mut mmu, page_table) = detached();
        match flush {
            "invlpg of the address" => mmu.invlpg(&mut (), Va::new(APART)),
            "invlpg of another address" => mmu.invlpg(&mut (), Va::new(KERNEL)),
            "cr3" => mmu.mov_cr3(
                &mut (),
                Cr3 {
                    root,
                    pcid: Pcid::ZERO,
                },
                Bit63::Clear,
            ),
            _ => mmu.mov_cr4(&mut (), Cr4::default()).unwrap(),
        }
        assert!(!mmu.psc().leads_to(page_table), "{flush}");
        let other = APART + 0x2000;
        world
            .memory
            .tables
            .set(page_table, Level::Pte.index(Va::new(other)), page(66));
        assert_eq!(code(world.load(&mut mmu, other)), ErrorCode::USER, "{flush}");
    }
}

#[test]
fn r15_an_upper_entry_is_cached_even_if_no_translation_was_found_below_it() {
    let (mut world, root, mut mmu) = one();
    let page_table = world.table(root, Level::Pte, HERE);
    // The fault drops what it used itself (R10); a neighbour's walk leaves the way for both.
    assert!(world.load(&mut mmu, HERE).is_err());
    assert!(!mmu.psc().leads_to(page_table));
    world.map(root, NEAR, page(1));
    world.load(&mut mmu, NEAR).unwrap();
    assert!(mmu.psc().leads_to(page_table) && !cached(&mmu, HERE));
}

#[test]
fn r16_a_cleared_without_a_flush_may_not_be_set_again_but_nothing_is_lost() {
    let (mut world, root, [mut cpu, _]) = two_cpus();
    let old = world.pte(root, HERE).without_accessed();
    world.map(root, HERE, old);
    assert_eq!(world.load(&mut cpu, HERE), Ok(1));
    assert!(
        !world.pte(root, HERE).accessed(),
        "the TLB hit tells the tables nothing"
    );
    cpu.invlpg(&mut (), Va::new(HERE));
    assert_eq!(world.load(&mut cpu, HERE), Ok(1));
    assert!(world.pte(root, HERE).accessed());
}

#[test]
fn r16_d_cleared_without_a_flush_may_not_be_set_again_and_is_after_one() {
    let (mut world, root, [mut cpu, _]) = two_cpus();
    assert!(world.pte(root, HERE).dirty());
    let clean = world.pte(root, HERE).without_dirty();
    world.map(root, HERE, clean);
    assert_eq!(world.store(&mut cpu, HERE), Ok(1));
    assert!(!world.pte(root, HERE).dirty());
    cpu.invlpg(&mut (), Va::new(HERE));
    assert_eq!(world.store(&mut cpu, HERE), Ok(1));
    assert!(world.pte(root, HERE).dirty());
}

fn assist(world: &mut World, mmu: &mut Mmu, access: Access, va: u64) -> Option<DirtyAssist> {
    match world.translate(mmu, access, va).unwrap().found {
        Found::Walked { assist, .. } => Some(assist),
        Found::First | Found::Second => None,
    }
}

#[test]
fn r17_the_first_store_through_a_clean_entry_sets_d_with_an_assist_and_later_ones_need_none() {
    for size in [K, M, G] {
        let (mut world, root, mut mmu) = one();
        world.map_of(root, size, HERE, page_of(size, 1 << 18));
        assert_eq!(
            assist(&mut world, &mut mmu, Access::Read, HERE),
            Some(DirtyAssist::None)
        );
        assert_eq!(mmu.stats().dirty_assists, 0);
        let first = assist(&mut world, &mut mmu, Access::Write, HERE);
        assert_eq!(
            first,
            Some(DirtyAssist::Taken),
            "a cached clean translation is walked again"
        );
        assert!(world.get_at(root, Level::of_leaf(size), HERE).dirty());
        assert_eq!(assist(&mut world, &mut mmu, Access::Write, HERE), None);
        assert_eq!(mmu.stats().dirty_assists, 1);
    }
}

#[test]
fn r17_an_assist_is_taken_even_where_missing_rights_would_fault_at_once() {
    let (mut world, root, mut mmu) = one();
    mmu.set_permission_miss(PermissionMiss::Fault);
    world.map(root, HERE, page(1));
    world.load(&mut mmu, HERE).unwrap();
    assert_eq!(
        assist(&mut world, &mut mmu, Access::Write, HERE),
        Some(DirtyAssist::Taken)
    );
}

#[test]
fn r17_a_dirty_entry_needs_no_assist_and_loads_and_fetches_set_no_d() {
    let (mut world, root, mut mmu) = one();
    world.map(root, HERE, page(1).with_dirty());
    assert_eq!(
        assist(&mut world, &mut mmu, Access::Write, HERE),
        Some(DirtyAssist::None)
    );
    let clean = Entry::leaf(Pfn::new(2), Rights::ALL);
    world.map(root, APART, clean);
    for access in [Access::Read, Access::Fetch] {
        assert_ne!(
            assist(&mut world, &mut mmu, access, APART),
            Some(DirtyAssist::Taken)
        );
    }
    assert_eq!(world.pte(root, APART), clean.with_accessed());
}

#[test]
fn r17_a_supervisor_that_ignores_r_w_sets_d_of_a_read_only_page() {
    let (mut world, root, mut mmu) = one();
    mmu.set_privilege(Privilege::Supervisor);
    mmu.mov_cr0(
        &mut (),
        Cr0 {
            paging: true,
            write_protect: false,
        },
    )
    .unwrap();
    world.map(root, HERE, page(1).without_write());
    assert_eq!(
        assist(&mut world, &mut mmu, Access::Write, HERE),
        Some(DirtyAssist::Taken)
    );
    assert!(world.pte(root, HERE).dirty());
}

/// A page of 4 KiB and one of 2 MiB that takes the place of its page table.
fn grown(flush: impl FnOnce(&mut World, TableId, &mut Mmu)) -> (World, TableId, Mmu) {
    let (mut world, root, mut mmu) = one();
    world.map(root, HERE, page(1));
    world.load(&mut mmu, HERE).unwrap();
    flush(&mut world, root, &mut mmu);
    // Not through a walk of the tables: the page table hangs under the entry.
    let directory = world.table(root, Level::Pmd, HERE);
    world
        .memory
        .tables
        .set(directory, Level::Pmd.index(Va::new(HERE)), page_of(M, 512));
    (world, root, mmu)
}

#[test]
fn r18_a_page_size_changed_without_a_flush_lets_both_translations_coexist() {
    let (mut world, _, mut mmu) = grown(|_, _, _| {});
    let inside = (HERE >> 12 & 511) as u32;
    let other = HERE & !0x1f_ffff;
    // The processor forgets the way to the page table by itself (R11), so that a walk meets the leaf.
    mmu.drop_where(&mut (), |_, _| false);
    assert_eq!(
        world.load(&mut mmu, other),
        Ok(512),
        "another page of the large one"
    );
    assert_eq!(world.load(&mut mmu, HERE), Ok(1), "the old small page");
    let sizes: Vec<PageSize> = mmu
        .tlb()
        .translations()
        .map(|(_, _, entry)| entry.size())
        .collect();
    assert!(sizes.contains(&K) && sizes.contains(&M));
    mmu.invlpg(&mut (), Va::new(HERE));
    assert!(mmu.tlb().is_empty(), "one INVLPG drops both");
    assert_eq!(world.load(&mut mmu, HERE), Ok(512 + inside));
}

#[test]
fn r18_without_a_flush_a_walk_may_even_use_the_old_page_table() {
    let (mut world, _, mut mmu) = grown(|_, _, _| {});
    // The paging-structure caches still lead below the entry that has become a leaf.
    assert_eq!(code(world.load(&mut mmu, NEAR)), ErrorCode::USER);
    assert_eq!(
        world.load(&mut mmu, NEAR).map(|pfn| pfn & !511),
        Ok(512),
        "not after that fault (R10)"
    );
}

#[test]
fn r18_clearing_p_and_flushing_first_leaves_one_translation() {
    let (mut world, _, mut mmu) = grown(|world, root, mmu| {
        world.set_at(root, Level::Pmd, HERE, Entry::NONE);
        mmu.invlpg(&mut (), Va::new(HERE));
        assert!(world.load(mmu, HERE).is_err());
    });
    assert_eq!(world.load(&mut mmu, HERE), Ok(512 + (HERE >> 12 & 511) as u32));
    assert_eq!(world.load(&mut mmu, NEAR), Ok(512 + (NEAR >> 12 & 511) as u32));
    assert!(mmu.tlb().translations().all(|(_, _, entry)| entry.size() == M));
}
