//! What reclaim leaves alone, gives up, and takes in which order: locked mappings, zones without anything to
//! gain, locks that are held, batches and their references.

mod common;

use std::cell::Cell;
use std::rc::Rc;

use common::{BASE, Bench, Listener, Setup, anonymous, range, shared_file, touch, wait};
use mm::frame::{LruList, PageFlags};
use mm::notifier::Design;
use mm::{
    FileId, FileKind, Kernel, KernelPreemption, KernelProfile, KernelSpec, MapRequest, MmId, Prefault, Prot,
    RemapRequest, Sharing, Which, World,
};
use sim::{Affinity, CpuId, Cx, Cycles, End, Engine, EngineConfig, Role, Schedule, Seeded, TaskSpec};
use x86::{Access, Machine, Pgoff, Va};

const SWAP_PAGES: u32 = 1024;

fn bench(design: Design) -> Bench {
    let mut setup = Setup::linux_2_6_27().design(design);
    setup.cpus = 2;
    setup.build()
}

fn finish(b: &Bench, end: &End) {
    assert_eq!(*end, End::Completed);
    assert_eq!(b.world.audit(), Vec::<String>::new());
}

fn acquisitions(k: &Kernel, lock: &str) -> u64 {
    let stat = k.engine().lock_stat();
    let class = stat.iter().find(|c| c.def.name == lock).expect("declared");
    class.exclusive.acquisitions
}

/// Maps a file of tmpfs from its start; the first two pages change places.
async fn nonlinear(cx: &Cx, k: &Kernel, mm: MmId, at: Va, file: FileId, pages: u64) {
    k.sys_mmap(cx, mm, shared_file(at, pages, file))
        .await
        .expect("free");
    for (page, pgoff) in [(0, 1), (1, 0)] {
        let request = RemapRequest {
            range: range(at.add_pages(page), 1),
            prot: Prot::NONE,
            pgoff: Pgoff::new(pgoff),
            prefault: Prefault::Yes,
        };
        k.sys_remap_file_pages(cx, mm, request).await.expect("tmpfs");
    }
    touch(cx, k, mm, range(at, pages), Access::Read).await;
    k.lru_add_drain_all(cx).await;
}

#[test]
fn locked_nonlinear_mappings_keep_their_pages_and_others_do_not() {
    // host-mm-paths B.12: VM_LOCKED -> SWAP_FAIL.
    const PAGES: u64 = 40;
    for locked in [true, false] {
        let b = bench(Design::V8);
        let file = b.kernel.new_file_of(FileKind::Tmpfs, "t", PAGES);
        let mm = b.mm;
        let end = b.work(move |cx, k| async move {
            nonlinear(&cx, &k, mm, BASE, file, PAGES).await;
            if locked {
                k.sys_mlock(&cx, mm, range(BASE, PAGES)).await.expect("mapped");
            }
            let before = k.metrics();
            for _ in 0..4 {
                let _ = k.shrink_all_memory(&cx, PAGES).await;
            }
            let after = k.metrics();
            if locked {
                assert_eq!(after.rmap_clusters, before.rmap_clusters, "not even scanned");
                assert_eq!(after.rmap_young, before.rmap_young);
                assert_eq!(after.rmap_unmapped, before.rmap_unmapped);
                assert_eq!(k.st().mm(mm).file_rss, PAGES);
                // SWAP_FAIL: the mapping wants them, so they are active.
                let pfn = k.peek_pte(mm, BASE).pfn();
                assert!(k.frames().get(pfn).flags.has(PageFlags::ACTIVE));
            } else {
                assert!(after.rmap_clusters > before.rmap_clusters);
                assert_eq!(after.rmap_unmapped - before.rmap_unmapped, PAGES);
                assert_eq!(k.st().mm(mm).file_rss, 0);
            }
        });
        finish(&b, &end);
    }
}

#[test]
fn of_two_nonlinear_mappings_only_the_one_that_is_not_locked_is_scanned() {
    const PAGES: u64 = 32;
    let there = BASE.add_pages(1024);
    let b = bench(Design::V8);
    let file = b.kernel.new_file_of(FileKind::Tmpfs, "t", PAGES);
    let mm = b.mm;
    let end = b.work(move |cx, k| async move {
        nonlinear(&cx, &k, mm, BASE, file, PAGES).await;
        nonlinear(&cx, &k, mm, there, file, PAGES).await;
        k.sys_mlock(&cx, mm, range(BASE, PAGES)).await.expect("mapped");
        for _ in 0..4 {
            let _ = k.shrink_all_memory(&cx, PAGES).await;
        }
        let mapped = |at: Va| {
            (0..PAGES)
                .filter(|page| k.peek_pte(mm, at.add_pages(*page)).maps_page())
                .count()
        };
        assert_eq!((mapped(BASE), mapped(there)), (PAGES as usize, 0));
    });
    finish(&b, &end);
}

#[test]
fn migration_scans_locked_nonlinear_mappings_too() {
    const PAGES: u64 = 32;
    let b = bench(Design::V8);
    let file = b.kernel.new_file_of(FileKind::Tmpfs, "t", PAGES);
    let mm = b.mm;
    let end = b.work(move |cx, k| async move {
        nonlinear(&cx, &k, mm, BASE, file, PAGES).await;
        k.sys_mlock(&cx, mm, range(BASE, PAGES)).await.expect("mapped");
        let before = k.metrics();
        let _ = k
            .sys_move_pages(&cx, mm, range(BASE.add_pages(4), 1), Which::All)
            .await;
        let after = k.metrics();
        assert!(after.rmap_clusters > before.rmap_clusters);
        assert!(after.rmap_unmapped > before.rmap_unmapped);
    });
    finish(&b, &end);
}

#[test]
fn a_locked_shared_mapping_settles_the_age_of_a_page_of_a_file_before_an_entry_is_looked_at() {
    // page_referenced_file: VM_LOCKED and VM_MAYSHARE together are enough, also where the page is not.
    for (sharing, young, freed) in [(Sharing::Shared, 0, 0), (Sharing::Private, 1, 1)] {
        let b = bench(Design::V8);
        let file = b.kernel.new_file("f", 1);
        let mm = b.mm;
        let end = b.work(move |cx, k| async move {
            let at = BASE.add_pages(1024);
            let locked = MapRequest {
                sharing,
                prot: Prot::READ,
                ..shared_file(BASE, 1, file)
            };
            k.sys_mmap(&cx, mm, locked).await.expect("free");
            k.sys_mlock(&cx, mm, range(BASE, 1)).await.expect("mapped");
            k.sys_mmap(&cx, mm, shared_file(at, 1, file)).await.expect("free");
            // The locked mapping, first in the tree, loses its page; the new one is only in the other.
            k.do_truncate(&cx, file, 0).await;
            k.do_truncate(&cx, file, 1).await;
            touch(&cx, &k, mm, range(at, 1), Access::Read).await;
            k.lru_add_drain_all(&cx).await;
            let before = k.metrics();
            assert_eq!(k.shrink_all_memory(&cx, 1).await, freed);
            assert_eq!(k.metrics().rmap_young - before.rmap_young, young);
        });
        finish(&b, &end);
    }
}

#[test]
fn a_zone_that_kswapd_gave_up_stays_given_up_until_a_frame_is_freed_whatever_is_measured() {
    const MEMORY: u64 = 256;
    let mut setup = Setup::linux_2_6_27();
    setup.cpus = 2;
    let b = setup.build();
    b.kernel.set_memory(MEMORY);
    let mm = b.mm;
    let end = b.work(move |cx, k| async move {
        // Without a swap device nothing can be freed. One frame was freed before.
        k.sys_mmap(&cx, mm, anonymous(BASE, MEMORY)).await.expect("free");
        k.access(&cx, mm, BASE, Access::Write).await.expect("plenty");
        k.madvise_dontneed(&cx, mm, range(BASE, 1)).await.expect("mapped");
        k.lru_add_drain_all(&cx).await;
        for page in 0..MEMORY {
            let _ = k.access(&cx, mm, BASE.add_pages(page), Access::Write).await;
        }
        cx.sleep(k.machine.ns(20_000_000_000)).await;
        let zone = k.zone();
        assert!(k.frames().all_unreclaimable(zone));
        k.start_measuring();
        assert!(k.frames().all_unreclaimable(zone), "measuring frees nothing");
        // Whoever asks for pages tries the first priority of each pass: a page of each list at most.
        let before = k.frames().scanned_in_vain(zone);
        assert_eq!(k.shrink_all_memory(&cx, 1).await, 0);
        let scanned = k.frames().scanned_in_vain(zone) - before;
        assert!((2..=4).contains(&scanned), "{scanned} pages");
        k.sys_munmap(&cx, mm, range(BASE, 1)).await.expect("mapped");
        k.lru_add_drain_all(&cx).await;
        assert!(!k.frames().all_unreclaimable(zone), "a frame was freed");
        k.sys_munmap(&cx, mm, range(BASE, MEMORY)).await.expect("mapped");
    });
    finish(&b, &end);
}

#[test]
fn reclaim_keeps_a_page_whose_rmap_lock_somebody_sleeps_with_and_waits_for_one_that_spins() {
    // host-mm-paths E, point 7, and B.12: contended.
    for (design, waits) in [(Design::V9, false), (Design::V8, true)] {
        let b = bench(design);
        let file = b.kernel.new_file("f", 1);
        let mm = b.mm;
        let (go, held_until, done_at) = (
            Rc::new(Cell::new(false)),
            Rc::new(Cell::new(None)),
            Rc::new(Cell::new(None)),
        );
        let (ready, until, done) = (Rc::clone(&go), Rc::clone(&held_until), Rc::clone(&done_at));
        let finished = Rc::clone(&done_at);
        b.thread(1, Some(mm), move |cx, k| async move {
            while !ready.get() {
                wait(&cx, 1000).await;
            }
            let lock = k.st().file(file).i_mmap_lock;
            let held = cx.lock(lock).await;
            ready.set(false);
            if waits {
                wait(&cx, 1_000_000).await;
            }
            while !waits && finished.get().is_none() {
                cx.sleep(k.machine.ns(50_000_000)).await;
            }
            until.set(Some(cx.now()));
            drop(held);
        });
        let end = b.work(move |cx, k| async move {
            k.sys_mmap(&cx, mm, shared_file(BASE, 1, file))
                .await
                .expect("free");
            touch(&cx, &k, mm, range(BASE, 1), Access::Read).await;
            k.lru_add_drain_all(&cx).await;
            go.set(true);
            while go.get() {
                wait(&cx, 100).await;
            }
            let before = k.metrics();
            let freed = k.shrink_all_memory(&cx, 1).await;
            done.set(Some(cx.now()));
            let after = k.metrics();
            if waits {
                assert_eq!(freed, 1);
            } else {
                assert_eq!(after.rmap_vmas, before.rmap_vmas, "nobody was asked");
                assert!(k.peek_pte(mm, BASE).maps_page());
                // Not used, either: it stays where it was.
                assert_eq!(after.lru_activated, before.lru_activated);
            }
        });
        finish(&b, &end);
        let (until, done) = (held_until.get().expect("held"), done_at.get().expect("done"));
        assert_eq!(done > until, waits);
    }
}

#[test]
fn lru_lock_is_taken_again_after_each_full_pagevec_and_once_for_both_lists() {
    // 28 pages that cannot be freed, because somebody has them locked. The first pass of shrink_all_memory comes
    // to 28 due pages at priority 1 and again at 0; the second scans both lists at each of 13 priorities. A scan
    // of the inactive list: a hold to isolate, one to put back, and after 14 and 28 pages another one. A scan of the
    // active one, which is empty: one to isolate, one to put back.
    const PAGES: u64 = 28;
    const INACTIVE: u64 = (2 + 13) * 4;
    const ACTIVE: u64 = 13 * 2;
    let b = bench(Design::V8);
    let file = b.kernel.new_file("f", PAGES);
    let mm = b.mm;
    let end = b.work(move |cx, k| async move {
        k.sys_mmap(&cx, mm, shared_file(BASE, PAGES, file))
            .await
            .expect("free");
        touch(&cx, &k, mm, range(BASE, PAGES), Access::Read).await;
        k.lru_add_drain_all(&cx).await;
        let mut locks = Vec::new();
        for index in 0..PAGES {
            let lock = k.st().file(file).pages.get(index).expect("cached").lock;
            locks.push(cx.lock(lock).await);
        }
        let before = acquisitions(&k, "zone->lru_lock");
        assert_eq!(k.shrink_all_memory(&cx, PAGES).await, 0);
        assert_eq!(acquisitions(&k, "zone->lru_lock") - before, INACTIVE + ACTIVE);
        assert_eq!(k.frames().lru_len(k.zone(), LruList::Inactive), PAGES);
        drop(locks);
    });
    finish(&b, &end);
}

#[test]
fn a_pagevec_of_looked_up_pages_drains_what_waits_on_its_cpu_when_it_is_released() {
    // __pagevec_release begins with lru_add_drain.
    let b = bench(Design::V8);
    let file = b.kernel.new_file("f", 1);
    let mm = b.mm;
    let end = b.work(move |cx, k| async move {
        k.sys_mmap(&cx, mm, shared_file(BASE, 1, file))
            .await
            .expect("free");
        touch(&cx, &k, mm, range(BASE, 1), Access::Write).await;
        assert_eq!(
            k.frames().lru_len(k.zone(), LruList::Inactive),
            0,
            "in the pagevec"
        );
        k.sys_fsync(&cx, file).await;
        assert_eq!(k.frames().lru_len(k.zone(), LruList::Inactive), 1);
    });
    finish(&b, &end);
}

#[test]
fn a_walk_that_finds_its_only_mapping_steps_on_nothing_behind_it() {
    // vma_prio_tree_foreach, list_for_each_entry: page_referenced stops when all mappings were found.
    for anon in [true, false] {
        let b = bench(Design::V8);
        b.kernel.set_swap(SWAP_PAGES);
        let file = b.kernel.new_file("f", 1);
        let mm = b.mm;
        let end = b.work(move |cx, k| async move {
            let request = if anon {
                anonymous(BASE, 1)
            } else {
                shared_file(BASE, 1, file)
            };
            k.sys_mmap(&cx, mm, request).await.expect("free");
            let access = if anon { Access::Write } else { Access::Read };
            k.access(&cx, mm, BASE, access).await.expect("mapped");
            let mut children = Vec::new();
            for n in 0..4 {
                let child = k.sys_fork(&cx, mm, format!("child{n}").into()).await;
                k.activate_mm(&cx, child);
                if anon {
                    // Pages of their own: only the parent maps the first one.
                    k.access(&cx, child, BASE, Access::Write).await.expect("copied");
                }
                children.push(child);
            }
            k.activate_mm(&cx, mm);
            if anon {
                k.access(&cx, mm, BASE, Access::Write).await.expect("reused");
            }
            k.lru_add_drain_all(&cx).await;
            let pfn = k.peek_pte(mm, BASE).pfn();
            assert_eq!(k.frames().get(pfn).mapcount, 1);
            let before = k.metrics();
            // As for migration: the only mapping is the first of five.
            let moved = k.sys_move_pages(&cx, mm, range(BASE, 1), Which::All).await;
            assert_eq!(moved.moved, 1);
            let after = k.metrics();
            // try_to_unmap stops at the first; remove_migration_ptes asks all five.
            assert_eq!(after.rmap_vmas - before.rmap_vmas, 1 + 5, "anon: {anon}");
            let (nodes, members) = (
                after.i_mmap_nodes - before.i_mmap_nodes,
                after.i_mmap_members - before.i_mmap_members,
            );
            assert_eq!((nodes, members), if anon { (0, 0) } else { (1 + 1, 4) });
            for child in children {
                k.mmput(&cx, child).await;
            }
        });
        finish(&b, &end);
    }
}

#[test]
fn a_truncate_that_begins_again_steps_on_what_it_has_done_and_not_on_what_is_left() {
    // host-mm-paths G.3. Four mappers of one range are a node and three members; the truncate is broken off twice
    // in the first of them, or in the second, and finishes; the second pass walks once more.
    const PAGES: u64 = 64;
    for (broken, members) in [(0, 3 + 3), (1, 1 + 1 + 3 + 3)] {
        let mut setup = Setup::linux_2_6_27().preempt(KernelPreemption::Full);
        setup.cpus = 3;
        let b = setup.build();
        let file = b.kernel.new_file_of(FileKind::Tmpfs, "f", PAGES);
        let mut mappers = vec![b.mm];
        mappers.extend((1..4).map(|n| b.kernel.new_mm(format!("mapper{n}").into())));
        let listener = Rc::new(Listener::default());
        let heard = Rc::clone(&listener);
        let lock = b.kernel.st().file(file).i_mmap_lock;
        b.thread(1, None, move |cx, _| async move {
            while heard.starts.get() == 0 {
                wait(&cx, 20).await;
            }
            for _ in 0..2 {
                drop(cx.lock(lock).await);
            }
        });
        let end = b.work(move |cx, k| async move {
            for &mm in &mappers {
                let request = shared_file(BASE, PAGES, file);
                k.sys_mmap(&cx, mm, request).await.expect("free");
                k.activate_mm(&cx, mm);
                touch(&cx, &k, mm, range(BASE, PAGES), Access::Read).await;
            }
            k.activate_mm(&cx, mappers[0]);
            let id = k.mmu_notifier_register(&cx, mappers[broken], listener).await;
            let before = k.metrics();
            k.do_truncate(&cx, file, 0).await;
            let after = k.metrics();
            assert_eq!(after.truncate_restarts - before.truncate_restarts, 2);
            assert_eq!(after.i_mmap_nodes - before.i_mmap_nodes, 3 + 1);
            assert_eq!(after.i_mmap_members - before.i_mmap_members, members);
            assert_eq!(after.pages_zapped - before.pages_zapped, 4 * PAGES);
            k.mmu_notifier_unregister(&cx, id).await;
        });
        finish(&b, &end);
    }
}

#[test]
fn a_scan_of_nonlinear_mappings_gives_way_with_a_lock_that_sleeps_and_without_one_that_spins() {
    // cond_resched_lock between the rounds of clusters; host-mm-paths E, point 2: the holder just sleeps.
    const PAGES: u64 = 256;
    for (profile, locked) in [
        (KernelProfile::LINUX_2_6_27_SLEEPABLE, true),
        (KernelProfile::LINUX_2_6_27, false),
    ] {
        let mut config = EngineConfig::without_costs(1);
        config.time_slice = Cycles::new(1000);
        config.preempt_limit = mm::profile::PREEMPT_COUNT_LIMIT;
        let engine = Engine::new(config, Schedule::Timed(Box::new(Seeded::new(1))));
        let machine = Rc::new(Machine::preset("harpertown-2008").expect("a preset"));
        let world = World::new(Rc::clone(&engine), machine);
        let kernel = world.add_kernel(KernelSpec {
            name: "host".into(),
            profile,
            design: if locked { Design::V9 } else { Design::V8 },
            first_cpu: CpuId::new(0),
            cpus: 1,
        });
        let (mm, file) = (
            kernel.new_mm("job".into()),
            kernel.new_file_of(FileKind::Tmpfs, "t", PAGES),
        );
        let stop = Rc::new(Cell::new(false));
        let (ran, ran_inside) = (Rc::new(Cell::new(0_u32)), Rc::new(Cell::new(0_u32)));
        let task = |name: &str| TaskSpec {
            name: name.into(),
            cpu: kernel.cpu(0),
            affinity: Affinity::Pinned,
            role: Role::Worker,
        };
        let (k, done) = (Rc::clone(&kernel), Rc::clone(&stop));
        let reclaimer = engine.spawn(task("reclaimer"), |cx| async move {
            nonlinear(&cx, &k, mm, BASE, file, PAGES).await;
            for _ in 0..4 {
                let _ = k.shrink_all_memory(&cx, PAGES).await;
            }
            assert!(k.metrics().rmap_clusters >= PAGES / 32);
            done.set(true);
        });
        kernel.set_task_mm(reclaimer, Some(mm));
        let (k, counts) = (Rc::clone(&kernel), (Rc::clone(&ran), Rc::clone(&ran_inside)));
        engine.spawn(task("other"), |cx| async move {
            let lock = k.st().file(file).i_mmap_lock;
            while !stop.get() {
                counts.0.set(counts.0.get() + 1);
                let held = k.engine().is_locked(lock);
                counts.1.set(counts.1.get() + u32::from(held));
                wait(&cx, 2000).await;
                cx.cond_resched().await;
            }
        });
        assert_eq!(engine.run(), End::Completed);
        assert!(ran.get() > 10, "they share the CPU");
        assert_eq!(ran_inside.get() > 0, locked);
        assert_eq!(world.audit(), Vec::<String>::new());
    }
}
