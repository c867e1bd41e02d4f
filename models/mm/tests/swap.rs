//! Swap: slots and their users, faults on swapped pages, and what the other paths do with swap entries.

mod common;

use std::rc::Rc;

use common::{BASE, Bench, Listener, Setup, anonymous, range, touch};
use mm::frame::PageFlags;
use mm::notifier::Design;
use mm::{Device, DiskSpec, Kernel, MmId, NonPresent, Prot, Refused, SwapSlot, Watermark};
use sim::{Cx, End};
use x86::{Access, Va};

const SWAP_PAGES: u32 = 1024;

fn bench() -> Bench {
    with_swap(SWAP_PAGES)
}

fn with_swap(pages: u32) -> Bench {
    let mut setup = Setup::linux_2_6_27();
    setup.cpus = 2;
    let b = setup.build();
    b.kernel.set_swap(pages);
    b
}

fn finish(b: &Bench, end: &End) {
    assert_eq!(*end, End::Completed);
    assert_eq!(b.world.audit(), Vec::<String>::new());
}

fn slot_at(k: &Kernel, mm: MmId, va: Va) -> Option<SwapSlot> {
    match NonPresent::of(k.peek_pte(mm, va)) {
        Some(NonPresent::Swap(slot)) => Some(slot),
        _ => None,
    }
}

/// Maps and touches pages, and swaps all of them out.
async fn swapped_out(cx: &Cx, k: &Kernel, mm: MmId, pages: u64) {
    k.sys_mmap(cx, mm, anonymous(BASE, pages)).await.expect("free");
    touch(cx, k, mm, range(BASE, pages), Access::Write).await;
    swap_out(cx, k, mm, pages).await;
}

async fn swap_out(cx: &Cx, k: &Kernel, mm: MmId, pages: u64) {
    k.lru_add_drain_all(cx).await;
    assert_eq!(k.shrink_all_memory(cx, pages).await, pages);
    for page in 0..pages {
        assert!(slot_at(k, mm, BASE.add_pages(page)).is_some(), "page {page}");
    }
}

#[test]
fn a_fault_reads_the_aligned_cluster_of_eight_slots_around_its_own() {
    let b = bench();
    let mm = b.mm;
    let end = b.work(move |cx, k| async move {
        swapped_out(&cx, &k, mm, 20).await;
        let at = |slot: u32| {
            (0..20)
                .map(|page| BASE.add_pages(page))
                .find(|va| slot_at(&k, mm, *va).is_some_and(|s| s.get() == slot))
                .expect("twenty slots, the header is none of them")
        };
        let (third, fourth, seventeenth) = (at(3), at(4), at(17));
        k.access(&cx, mm, third, Access::Read).await.expect("swapped");
        let m = k.metrics();
        // Slots 1 to 7: the header is not read.
        assert_eq!((m.swap_in, m.faults_major, m.faults_swap), (7, 1, 1));
        // Its neighbour came with it.
        k.access(&cx, mm, fourth, Access::Read).await.expect("swapped");
        let m = k.metrics();
        assert_eq!((m.swap_in, m.faults_major, m.faults_swap), (7, 1, 2));
        // The last cluster has five slots in use.
        k.access(&cx, mm, seventeenth, Access::Read)
            .await
            .expect("swapped");
        assert_eq!(k.metrics().swap_in, 7 + 5);
        assert_eq!(
            k.metrics().flush_page,
            k.metrics().rmap_young + 20,
            "nothing was flushed for a fault"
        );
    });
    finish(&b, &end);
}

#[test]
fn a_machine_with_less_than_16_mb_reads_four() {
    let b = bench();
    b.kernel.set_memory(4095);
    let mm = b.mm;
    let end = b.work(move |cx, k| async move {
        swapped_out(&cx, &k, mm, 16).await;
        let seventh = (0..16).map(|page| BASE.add_pages(page));
        let seventh = seventh
            .into_iter()
            .find(|va| slot_at(&k, mm, *va).is_some_and(|s| s.get() == 7))
            .expect("sixteen slots");
        k.access(&cx, mm, seventh, Access::Read).await.expect("swapped");
        assert_eq!(k.metrics().swap_in, 4);
    });
    finish(&b, &end);
}

#[test]
fn sixty_four_slots_are_nine_clusters_for_the_header_has_the_first_place() {
    let b = bench();
    let mm = b.mm;
    let end = b.work(move |cx, k| async move {
        swapped_out(&cx, &k, mm, 64).await;
        touch(&cx, &k, mm, range(BASE, 64), Access::Read).await;
        // 1 to 7, seven times eight, and 64.
        let m = k.metrics();
        assert_eq!((m.swap_in, m.faults_major, m.faults_swap), (64, 9, 64));
    });
    finish(&b, &end);
}

#[test]
fn a_slot_that_is_alone_in_its_cluster_is_read_after_the_pagevecs_were_drained() {
    let b = bench();
    let mm = b.mm;
    let end = b.work(move |cx, k| async move {
        swapped_out(&cx, &k, mm, 2).await;
        let on_list = |k: &Kernel, va: Va| {
            let pfn = k.peek_pte(mm, va).pfn();
            k.frames().get(pfn).flags.has(PageFlags::LRU)
        };
        // The cluster of both: they are read, then what was read is drained.
        k.access(&cx, mm, BASE, Access::Read).await.expect("swapped");
        assert!(on_list(&k, BASE));
        let next = BASE.add_pages(1);
        k.access(&cx, mm, next, Access::Read).await.expect("swapped");
        k.sys_munmap(&cx, mm, range(next, 1)).await.expect("mapped");
        swap_out(&cx, &k, mm, 1).await;
        // Alone: nothing is read ahead, and the page still waits in its pagevec.
        k.access(&cx, mm, BASE, Access::Read).await.expect("swapped");
        assert!(!on_list(&k, BASE));
        assert_eq!(k.metrics().swap_in, 3);
    });
    finish(&b, &end);
}

#[test]
fn before_2_6_27_every_look_into_the_swap_cache_reads_its_tree_lock() {
    // host-mm-paths A.3, A.7.
    for (profile, reads) in [
        (mm::KernelProfile::LINUX_2_6_25, true),
        (mm::KernelProfile::LINUX_2_6_27, false),
    ] {
        let mut setup = Setup::linux_2_6_27();
        setup.profile = profile;
        setup.cpus = 1;
        let b = setup.build();
        b.kernel.set_swap(SWAP_PAGES);
        let (mm, file) = (b.mm, b.kernel.new_file("f", 1));
        let end = b.work(move |cx, k| async move {
            let tree_reads = || {
                let stat = k.engine().lock_stat();
                let class = stat.iter().find(|c| c.def.name == "tree_lock").expect("declared");
                class.shared.acquisitions
            };
            swapped_out(&cx, &k, mm, 1).await;
            let before = tree_reads();
            k.access(&cx, mm, BASE, Access::Read).await.expect("swapped");
            // do_swap_page, then read_swap_cache_async; the slot is alone.
            assert_eq!(tree_reads() - before, if reads { 2 } else { 0 });
            // The page stays in the cache, whose use of the slot is the last when the mapping goes.
            let before = tree_reads();
            k.sys_munmap(&cx, mm, range(BASE, 1)).await.expect("mapped");
            assert_eq!(tree_reads() - before, 0, "free_swap_cache asks the page");
            // Two look-ups of the dirty tag (one page, then none), and two of the writeback tag.
            let request = common::shared_file(BASE, 1, file);
            k.sys_mmap(&cx, mm, request).await.expect("free");
            touch(&cx, &k, mm, range(BASE, 1), Access::Write).await;
            let before = tree_reads();
            k.sys_fsync(&cx, file).await;
            assert_eq!(tree_reads() - before, if reads { 4 } else { 0 });
        });
        finish(&b, &end);
    }
}

#[test]
fn a_read_maps_the_page_read_only_and_old_and_a_write_writable_at_once() {
    let b = bench();
    let mm = b.mm;
    let end = b.work(move |cx, k| async move {
        swapped_out(&cx, &k, mm, 2).await;
        let before = k.metrics();
        k.access(&cx, mm, BASE, Access::Read).await.expect("swapped");
        let entry = k.peek_pte(mm, BASE);
        assert!(entry.present() && entry.accessed() && !entry.writable() && !entry.dirty());
        let next = BASE.add_pages(1);
        k.access(&cx, mm, next, Access::Write).await.expect("swapped");
        let entry = k.peek_pte(mm, next);
        assert!(entry.writable() && entry.dirty());
        let after = k.metrics();
        assert_eq!(after.flush_page, before.flush_page);
        assert_eq!(
            (after.faults_reuse, after.faults_cow),
            (before.faults_reuse, before.faults_cow)
        );
        // The first write to the page that was read makes it writable: nobody else names its slot.
        k.access(&cx, mm, BASE, Access::Write).await.expect("present");
        assert_eq!(k.metrics().faults_reuse, before.faults_reuse + 1);
        assert_eq!(k.metrics().flush_page, before.flush_page + 1);
    });
    finish(&b, &end);
}

#[test]
fn pages_stay_in_the_swap_cache_until_half_of_the_slots_are_used() {
    for (slots, cached) in [(8, true), (7, false)] {
        let b = with_swap(slots);
        let mm = b.mm;
        let end = b.work(move |cx, k| async move {
            swapped_out(&cx, &k, mm, 4).await;
            k.access(&cx, mm, BASE, Access::Read).await.expect("swapped");
            let pfn = k.peek_pte(mm, BASE).pfn();
            let flags = k.frames().get(pfn).flags;
            assert_eq!(flags.has(PageFlags::SWAPCACHE), cached, "{slots} slots");
            // A page that left it is written again before it goes.
            assert_eq!(flags.has(PageFlags::DIRTY), !cached);
            assert_eq!(k.st().swap.in_use(), if cached { 4 } else { 3 });
        });
        finish(&b, &end);
    }
}

#[test]
fn a_clean_page_of_the_swap_cache_goes_without_being_written_again() {
    let b = bench();
    let mm = b.mm;
    let end = b.work(move |cx, k| async move {
        swapped_out(&cx, &k, mm, 1).await;
        k.access(&cx, mm, BASE, Access::Read).await.expect("swapped");
        swap_out(&cx, &k, mm, 1).await;
        assert_eq!(k.metrics().swap_out, 1);
        k.access(&cx, mm, BASE, Access::Write).await.expect("swapped");
        swap_out(&cx, &k, mm, 1).await;
        assert_eq!(k.metrics().swap_out, 2);
    });
    finish(&b, &end);
}

#[test]
fn fork_copies_swap_entries_and_a_write_is_shared_until_the_last_user_of_the_slot() {
    let b = bench();
    let mm = b.mm;
    let end = b.work(move |cx, k| async move {
        swapped_out(&cx, &k, mm, 3).await;
        let slot = slot_at(&k, mm, BASE).expect("swapped");
        let child = k.sys_fork(&cx, mm, "child".into()).await;
        assert_eq!(slot_at(&k, child, BASE), Some(slot));
        assert_eq!(k.st().swap.count(slot), 2);
        assert_eq!(k.metrics().pages_forked, 0, "no page was copied");
        assert_eq!(k.st().mm(child).anon_rss, 0);
        let before = k.metrics();
        // The parent writes: the child's entry names the slot, so the page is copied.
        k.access(&cx, mm, BASE, Access::Write).await.expect("swapped");
        let after = k.metrics();
        assert_eq!(
            (after.faults_swap, after.faults_cow),
            (before.faults_swap + 1, before.faults_cow + 1)
        );
        // do_wp_page clears the entry it has just set (C.3: one flush a copy).
        assert_eq!(after.flush_page, before.flush_page + 1);
        assert_eq!(k.st().swap.count(slot), 2, "the child's entry and the cache");
        // The child is the last one.
        k.activate_mm(&cx, child);
        k.access(&cx, child, BASE, Access::Write).await.expect("swapped");
        assert_eq!(k.metrics().faults_cow, after.faults_cow);
        assert!(k.peek_pte(child, BASE).writable());
        k.activate_mm(&cx, mm);
        k.mmput(&cx, child).await;
    });
    finish(&b, &end);
}

#[test]
fn unmapping_frees_slots_and_pages_that_are_cached_for_nobody_else() {
    let b = bench();
    let mm = b.mm;
    let end = b.work(move |cx, k| async move {
        swapped_out(&cx, &k, mm, 7).await;
        // All seven are read, three are mapped.
        for page in 0..3 {
            k.access(&cx, mm, BASE.add_pages(page), Access::Read)
                .await
                .expect("swapped");
        }
        assert_eq!(k.metrics().swap_in, 7);
        // All have arrived: a page that is locked is left for reclaim.
        cx.sleep(k.machine.ns(50_000_000)).await;
        k.lru_add_drain_all(&cx).await;
        let (before, used) = (k.metrics(), k.frames().in_use(k.zone()).0);
        assert_eq!(used, 7);
        k.madvise_dontneed(&cx, mm, range(BASE.add_pages(5), 2))
            .await
            .expect("all of it is mapped");
        assert_eq!(k.metrics().flush_mm, before.flush_mm, "no entry mapped a page");
        assert_eq!(k.frames().in_use(k.zone()).0, 5);
        assert_eq!(k.st().swap.in_use(), 5);
        k.sys_munmap(&cx, mm, range(BASE, 7))
            .await
            .expect("all of it is mapped");
        assert_eq!(k.frames().in_use(k.zone()).0, 0);
        assert_eq!(k.st().swap.in_use(), 0);
    });
    finish(&b, &end);
}

#[test]
fn exit_frees_the_slots() {
    let b = bench();
    let mm = b.mm;
    let end = b.work(move |cx, k| async move {
        swapped_out(&cx, &k, mm, 8).await;
        k.exit_mm(&cx, mm).await;
        assert_eq!(k.st().swap.in_use(), 0);
    });
    finish(&b, &end);
}

#[test]
fn a_full_truncate_takes_swapped_private_copies_and_the_unmapping_of_a_single_page_spares_them() {
    // host-mm-paths B.1: details are dropped when they ask for neither a file nor a nonlinear mapping.
    let b = bench();
    let mm = b.mm;
    let file = b.kernel.new_file("f", 4);
    let end = b.work(move |cx, k| async move {
        let request = mm::MapRequest {
            backing: mm::Backing::File(file),
            ..anonymous(BASE, 4)
        };
        k.sys_mmap(&cx, mm, request).await.expect("free");
        touch(&cx, &k, mm, range(BASE, 4), Access::Write).await;
        k.lru_add_drain_all(&cx).await;
        // Eight pages: four of the file, four copies.
        assert_eq!(k.shrink_all_memory(&cx, 8).await, 8);
        assert!(slot_at(&k, mm, BASE).is_some());
        k.do_truncate(&cx, file, 2).await;
        assert!(slot_at(&k, mm, BASE.add_pages(1)).is_some());
        assert!(slot_at(&k, mm, BASE.add_pages(2)).is_none());
        assert_eq!(k.st().swap.in_use(), 2);
    });
    finish(&b, &end);
}

#[test]
fn mprotect_leaves_swap_entries_and_mremap_moves_each_with_a_flush() {
    const PAGES: u64 = 5;
    let b = bench();
    let mm = b.mm;
    let end = b.work(move |cx, k| async move {
        swapped_out(&cx, &k, mm, PAGES).await;
        let slot = slot_at(&k, mm, BASE);
        k.sys_mprotect(&cx, mm, range(BASE, PAGES), Prot::READ)
            .await
            .expect("all of it is mapped");
        assert_eq!(slot_at(&k, mm, BASE), slot);
        let before = k.metrics();
        let to = BASE.add_pages(4096);
        k.sys_mremap(&cx, mm, range(BASE, PAGES), PAGES, Some(to))
            .await
            .expect("free");
        assert_eq!(k.metrics().flush_page - before.flush_page, PAGES);
        assert_eq!(slot_at(&k, mm, to), slot);
        assert_eq!(
            k.access(&cx, mm, to, Access::Write).await,
            Err(Refused::NoMapping),
            "read-only now"
        );
        k.access(&cx, mm, to, Access::Read).await.expect("swapped");
    });
    finish(&b, &end);
}

#[test]
fn memory_that_is_touched_twice_over_goes_to_the_device_and_comes_back() {
    const MEMORY: u64 = 512;
    for design in Design::ALL {
        let mut setup = Setup::linux_2_6_27().design(design);
        setup.cpus = 2;
        let b = setup.build();
        b.kernel.set_memory(MEMORY);
        b.kernel.set_swap(2 * SWAP_PAGES);
        let mm = b.mm;
        let end = b.work(move |cx, k| async move {
            let id = k
                .mmu_notifier_register(&cx, mm, Rc::new(Listener::default()))
                .await;
            k.sys_mmap(&cx, mm, anonymous(BASE, 2 * MEMORY))
                .await
                .expect("free");
            for _ in 0..2 {
                touch(&cx, &k, mm, range(BASE, 2 * MEMORY), Access::Write).await;
            }
            let m = k.metrics();
            assert!(
                m.kswapd_runs > 0 && m.swap_out >= MEMORY && m.swap_in >= MEMORY,
                "{m:?}"
            );
            assert_eq!(m.out_of_memory, 0);
            let marks = k.frames().watermarks(k.zone());
            assert!(m.pages_in_use_max <= MEMORY - marks.min, "pages_min is kept");
            k.mmu_notifier_unregister(&cx, id).await;
            k.sys_munmap(&cx, mm, range(BASE, 2 * MEMORY))
                .await
                .expect("all of it is mapped");
            // Pages that were on their way are left in the cache, for reclaim to find.
            cx.sleep(k.machine.ns(500_000_000)).await;
            let _ = k.shrink_all_memory(&cx, MEMORY).await;
            assert_eq!(k.frames().in_use(k.zone()).0, 0);
            assert_eq!(k.st().swap.in_use(), 0);
        });
        finish(&b, &end);
    }
}

#[test]
fn kswapd_frees_until_the_high_watermark_is_passed() {
    const MEMORY: u64 = 4096;
    let b = bench();
    b.kernel.set_memory(MEMORY);
    let file = b.kernel.new_file("f", MEMORY);
    let mm = b.mm;
    let end = b.work(move |cx, k| async move {
        let marks = k.frames().watermarks(k.zone());
        // sqrt(16 * 16384 kB) = 512 kB.
        assert_eq!((marks.min, marks.low, marks.high), (128, 160, 192));
        k.sys_mmap(&cx, mm, common::shared_file(BASE, MEMORY, file))
            .await
            .expect("free");
        let plenty = MEMORY - marks.low;
        touch(&cx, &k, mm, range(BASE, plenty), Access::Read).await;
        assert_eq!(k.metrics().kswapd_runs, 0);
        touch(&cx, &k, mm, range(BASE.add_pages(plenty), 1), Access::Read).await;
        cx.sleep(k.machine.ns(1_000_000_000)).await;
        let m = k.metrics();
        assert_eq!((m.kswapd_runs, m.reclaim_direct), (1, 0));
        assert!(k.frames().watermark_ok(k.zone(), Watermark::High));
        assert!(m.reclaim_freed >= marks.high - marks.low);
    });
    finish(&b, &end);
}

#[test]
fn memory_without_a_swap_device_runs_out_and_accesses_are_refused() {
    const MEMORY: u64 = 256;
    let mut setup = Setup::linux_2_6_27();
    setup.cpus = 2;
    let b = setup.build();
    b.kernel.set_memory(MEMORY);
    let mm = b.mm;
    let end = b.work(move |cx, k| async move {
        k.sys_mmap(&cx, mm, anonymous(BASE, MEMORY)).await.expect("free");
        let mut served = 0;
        for page in 0..MEMORY {
            match k.access(&cx, mm, BASE.add_pages(page), Access::Write).await {
                Ok(()) => served += 1,
                Err(refused) => assert_eq!(refused, Refused::OutOfMemory),
            }
        }
        // The reserve is never touched: 128 kB.
        assert_eq!(served, MEMORY - 32);
        assert_eq!(k.metrics().out_of_memory, 32);
        k.sys_munmap(&cx, mm, range(BASE, MEMORY))
            .await
            .expect("all of it is mapped");
        k.lru_add_drain_all(&cx).await;
        assert_eq!(k.frames().in_use(k.zone()).0, 0);
    });
    finish(&b, &end);
}

#[test]
fn a_task_that_comes_while_a_page_is_read_waits_for_it_and_reads_nothing() {
    let b = bench();
    b.kernel.set_disk(
        Device::Swap,
        DiskSpec {
            read_ns: 1_000_000,
            write_ns: 1_000_000,
        },
    );
    let mm = b.mm;
    let second = Rc::new(std::cell::Cell::new(0));
    let done = Rc::clone(&second);
    b.thread(1, Some(mm), move |cx, k| async move {
        while k.metrics().swap_in == 0 {
            common::wait(&cx, 1000).await;
        }
        let before = cx.now();
        k.access(&cx, mm, BASE, Access::Read).await.expect("swapped");
        done.set(k.machine.to_ns(cx.now() - before));
    });
    let end = b.work(move |cx, k| async move {
        swapped_out(&cx, &k, mm, 1).await;
        k.access(&cx, mm, BASE, Access::Read).await.expect("swapped");
    });
    finish(&b, &end);
    assert_eq!(b.kernel.metrics().swap_in, 1);
    assert!(second.get() > 900_000, "waited {} ns", second.get());
}
