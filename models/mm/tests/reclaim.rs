//! Reclaim: what a page costs on its way out, what keeps it, and who holds which locks meanwhile.

mod common;

use std::cell::RefCell;
use std::rc::Rc;

use common::nonlinear::exchanged;
use common::scribe::Scribe;
use common::{BASE, Bench, Listener, Setup, anonymous, range, shared_file, touch};
use mm::frame::{LruList, PageFlags};
use mm::notifier::{Design, Young};
use mm::{Kernel, MmId, NonPresent, SwapSlot};
use sim::{Cx, End};
use x86::{Access, Entry, Pgoff, Va};

const SWAP_PAGES: u32 = 1024;

fn bench(design: Design) -> Bench {
    let mut setup = Setup::linux_2_6_27().design(design);
    setup.cpus = 2;
    let b = setup.build();
    b.kernel.set_swap(SWAP_PAGES);
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

async fn map_and_touch(cx: &Cx, k: &Kernel, mm: MmId, pages: u64, access: Access) {
    k.sys_mmap(cx, mm, anonymous(BASE, pages)).await.expect("free");
    touch(cx, k, mm, range(BASE, pages), access).await;
    k.lru_add_drain_all(cx).await;
}

#[test]
fn an_anonymous_page_of_m_processes_costs_2m_flushes_and_four_looks_at_the_whole_family() {
    // host-mm-paths C.3: page_referenced at most m, here all young; try_to_unmap m; G.18, G.19.
    for children in [0, 1, 5] {
        let b = bench(Design::V8);
        let mm = b.mm;
        let end = b.work(move |cx, k| async move {
            map_and_touch(&cx, &k, mm, 1, Access::Write).await;
            let mut family = vec![mm];
            for n in 0..children {
                let child = k.sys_fork(&cx, mm, format!("child{n}").into()).await;
                k.activate_mm(&cx, child);
                k.access(&cx, child, BASE, Access::Read).await.expect("inherited");
                family.push(child);
            }
            k.activate_mm(&cx, mm);
            k.access(&cx, mm, BASE, Access::Read).await.expect("mapped");
            let (m, before) = (family.len() as u64, k.metrics());
            assert_eq!(k.shrink_all_memory(&cx, 1).await, 1);
            let after = k.metrics();
            assert_eq!(after.rmap_young - before.rmap_young, m);
            assert_eq!(after.rmap_unmapped - before.rmap_unmapped, m);
            assert_eq!(after.flush_page - before.flush_page, 2 * m);
            assert_eq!(after.flush_mm, before.flush_mm);
            // Active and young; active and not; inactive; unmapped.
            assert_eq!(after.rmap_vmas - before.rmap_vmas, 4 * m);
            assert_eq!(after.swap_out - before.swap_out, 1);
            assert_eq!(after.reclaim_freed - before.reclaim_freed, 1);
            let slot = slot_at(&k, mm, BASE).expect("swapped out");
            for &member in &family {
                assert_eq!(slot_at(&k, member, BASE), Some(slot));
                assert_eq!(k.st().mm(member).anon_rss, 0);
            }
            assert_eq!(
                u64::from(k.st().swap.count(slot)),
                m,
                "the cache has let go of it"
            );
            for child in family.drain(1..) {
                k.mmput(&cx, child).await;
            }
            assert_eq!(k.st().swap.count(slot), 1);
        });
        finish(&b, &end);
    }
}

#[test]
fn the_walk_stops_as_soon_as_every_mapping_was_found_but_looks_at_all_vmas_without_the_page() {
    let b = bench(Design::V8);
    let mm = b.mm;
    let end = b.work(move |cx, k| async move {
        map_and_touch(&cx, &k, mm, 1, Access::Write).await;
        let mut children = Vec::new();
        for n in 0..3 {
            children.push(k.sys_fork(&cx, mm, format!("child{n}").into()).await);
        }
        // The last of the family writes: a page of its own, which the others do not map.
        let last = *children.last().expect("three");
        k.activate_mm(&cx, last);
        k.access(&cx, last, BASE, Access::Write).await.expect("copied");
        k.lru_add_drain_all(&cx).await;
        let own = k.peek_pte(last, BASE).pfn();
        assert_eq!(k.frames().get(own).mapcount, 1);
        let before = k.metrics();
        assert_eq!(k.shrink_all_memory(&cx, 2).await, 2);
        let after = k.metrics();
        assert_eq!(after.rmap_unmapped - before.rmap_unmapped, 4);
        // Two pages, four looks each: whose they are is seen only at the entries. The page of the last one is
        // found behind the three others, and behind the third that maps the other page nobody is looked at.
        assert_eq!(after.rmap_vmas - before.rmap_vmas, 4 * 4 + 4 * 3);
        k.activate_mm(&cx, mm);
        for child in children {
            k.mmput(&cx, child).await;
        }
    });
    finish(&b, &end);
}

#[test]
fn subscribers_are_asked_for_the_age_at_each_look_and_told_once() {
    // host-mm-paths B.0, B.12: page_referenced thrice, try_to_unmap asks again except where the design asks
    // after the pte lock.
    for (design, asked, told) in [
        (Design::V0, 0, 0),
        (Design::V1, 4, 1),
        (Design::V8, 4, 1),
        (Design::V9, 3, 1),
    ] {
        let b = bench(design.clone());
        let mm = b.mm;
        let end = b.work(move |cx, k| async move {
            map_and_touch(&cx, &k, mm, 1, Access::Write).await;
            let id = k
                .mmu_notifier_register(&cx, mm, Rc::new(Listener::default()))
                .await;
            let before = k.metrics();
            assert_eq!(k.shrink_all_memory(&cx, 1).await, 1);
            let after = k.metrics();
            assert_eq!(
                after.notifier_young - before.notifier_young,
                asked,
                "{}",
                design.id
            );
            assert_eq!(after.notifier_page - before.notifier_page, told, "{}", design.id);
            assert_eq!(after.brackets, before.brackets, "{}", design.id);
            k.mmu_notifier_unregister(&cx, id).await;
        });
        finish(&b, &end);
    }
}

#[test]
fn a_page_that_a_secondary_mmu_uses_stays_active() {
    for design in [Design::V1, Design::V8, Design::V9] {
        let b = bench(design);
        let mm = b.mm;
        let end = b.work(move |cx, k| async move {
            map_and_touch(&cx, &k, mm, 1, Access::Write).await;
            let pfn = k.peek_pte(mm, BASE).pfn();
            let scribe = Rc::new(Scribe::default());
            scribe.answer.set(Some(Young::Yes));
            let id = k.mmu_notifier_register(&cx, mm, scribe).await;
            assert_eq!(k.shrink_all_memory(&cx, 1).await, 0);
            assert_eq!(k.peek_pte(mm, BASE).pfn(), pfn);
            assert_eq!(k.metrics().rmap_unmapped, 0);
            assert!(k.frames().get(pfn).flags.has(PageFlags::ACTIVE));
            k.mmu_notifier_unregister(&cx, id).await;
        });
        finish(&b, &end);
    }
}

#[test]
fn a_pinned_page_loses_its_entries_and_stays_in_its_cache() {
    // host-mm-paths B.12, last line; notifier-variants 10.18.
    let b = bench(Design::V8);
    let file = b.kernel.new_file("f", 4);
    let mm = b.mm;
    let end = b.work(move |cx, k| async move {
        let at = BASE.add_pages(16);
        k.sys_mmap(&cx, mm, shared_file(at, 1, file)).await.expect("free");
        touch(&cx, &k, mm, range(at, 1), Access::Read).await;
        map_and_touch(&cx, &k, mm, 1, Access::Write).await;
        let mut pins = Vec::new();
        for va in [BASE, at] {
            let sem = k.mmap_sem(mm);
            let _sem = cx.lock_shared(sem).await;
            let got = k.get_user_page(&cx, mm, va, Access::Read).await.expect("mapped");
            pins.push(got.pfn);
        }
        assert_eq!(k.shrink_all_memory(&cx, 2).await, 0);
        assert_eq!(
            slot_at(&k, mm, BASE).and_then(|s| k.st().swap.lookup(s)),
            Some(pins[0])
        );
        assert_eq!(k.peek_pte(mm, at), Entry::NONE);
        assert_eq!(k.st().file(file).pages.get(0).expect("cached").pfn, pins[1]);
        let pinned = k.metrics().reclaim_pinned;
        assert!(pinned >= 2, "each at least once, {pinned}");
        assert_eq!(
            k.metrics().swap_out,
            0,
            "nobody writes a page that others may change"
        );
        // The host finds the same page again.
        k.access(&cx, mm, BASE, Access::Read).await.expect("cached");
        assert_eq!(k.peek_pte(mm, BASE).pfn(), pins[0]);
        assert_eq!(k.metrics().faults_major, 0);
        for pfn in pins {
            k.put_page(&cx, pfn).await;
        }
        assert_eq!(
            k.shrink_all_memory(&cx, 2).await,
            2,
            "nothing keeps them any more"
        );
    });
    finish(&b, &end);
}

#[test]
fn a_clean_page_of_a_file_is_dropped_at_once_and_read_again_by_the_next_fault() {
    let b = bench(Design::V8);
    let file = b.kernel.new_file("f", 8);
    let mm = b.mm;
    let end = b.work(move |cx, k| async move {
        k.sys_mmap(&cx, mm, shared_file(BASE, 8, file))
            .await
            .expect("free");
        touch(&cx, &k, mm, range(BASE, 4), Access::Read).await;
        k.lru_add_drain_all(&cx).await;
        assert_eq!(k.metrics().io_reads, 0, "holes need no disk");
        assert_eq!(k.shrink_all_memory(&cx, 4).await, 4);
        assert!(k.st().file(file).pages.is_empty());
        assert_eq!(k.metrics().io_writes, 0);
        touch(&cx, &k, mm, range(BASE, 8), Access::Read).await;
        let m = k.metrics();
        assert_eq!(
            (m.io_reads, m.faults_major),
            (4, 4),
            "the other four were never cached"
        );
        // What a truncate throws away is a hole again.
        k.lru_add_drain_all(&cx).await;
        assert_eq!(k.shrink_all_memory(&cx, 8).await, 8);
        k.do_truncate(&cx, file, 2).await;
        k.do_truncate(&cx, file, 8).await;
        touch(&cx, &k, mm, range(BASE, 8), Access::Read).await;
        assert_eq!(k.metrics().io_reads, 4 + 2);
    });
    finish(&b, &end);
}

#[test]
fn mmap_sem_is_held_while_a_fault_reads() {
    // host-mm-paths G.9: a writer waits for the disk.
    const READ_NS: u64 = 2_000_000;
    let b = bench(Design::V8);
    b.kernel.set_disk(
        mm::Device::Files,
        mm::DiskSpec {
            read_ns: READ_NS,
            write_ns: READ_NS,
        },
    );
    let file = b.kernel.new_file("f", 1);
    let mm = b.mm;
    let waited = Rc::new(RefCell::new((0, 0)));
    let log = Rc::clone(&waited);
    b.thread(1, Some(mm), move |cx, k| async move {
        // Comes while the other one reads.
        while k.metrics().io_reads == 0 {
            common::wait(&cx, 1000).await;
        }
        let page_lock = k.st().file(file).pages.get(0).expect("cached").lock;
        assert!(cx.try_lock(page_lock).await.is_none(), "PG_locked is held, too");
        let before = cx.now();
        k.sys_mmap(&cx, mm, anonymous(BASE.add_pages(64), 1))
            .await
            .expect("free");
        *log.borrow_mut() = (k.machine.to_ns(before), k.machine.to_ns(cx.now()));
    });
    let end = b.work(move |cx, k| async move {
        k.sys_mmap(&cx, mm, shared_file(BASE, 1, file))
            .await
            .expect("free");
        touch(&cx, &k, mm, range(BASE, 1), Access::Read).await;
        k.lru_add_drain_all(&cx).await;
        assert_eq!(k.shrink_all_memory(&cx, 1).await, 1);
        touch(&cx, &k, mm, range(BASE, 1), Access::Read).await;
    });
    finish(&b, &end);
    let (from, to) = *waited.borrow();
    assert!(to - from > READ_NS * 9 / 10, "waited {} ns", to - from);
}

#[test]
fn a_dirty_page_of_a_file_is_written_first_and_freed_by_a_later_scan() {
    let b = bench(Design::V8);
    let file = b.kernel.new_file("f", 1);
    let mm = b.mm;
    let end = b.work(move |cx, k| async move {
        k.sys_mmap(&cx, mm, shared_file(BASE, 1, file))
            .await
            .expect("free");
        touch(&cx, &k, mm, range(BASE, 1), Access::Write).await;
        k.lru_add_drain_all(&cx).await;
        let before = k.metrics();
        assert_eq!(k.shrink_all_memory(&cx, 1).await, 1);
        let m = k.metrics();
        assert_eq!(m.io_writes, 1);
        assert_eq!(m.swap_out, 0);
        assert_eq!(m.flush_page - before.flush_page, 2, "young, then unmapped");
        assert!(k.st().file(file).pages.is_empty());
    });
    finish(&b, &end);
}

#[test]
fn without_a_swap_device_anonymous_pages_stay_and_dirty_tmpfs_pages_too() {
    let mut setup = Setup::linux_2_6_27();
    setup.cpus = 2;
    let b = setup.build();
    let tmpfs = b.kernel.new_file_of(mm::FileKind::Tmpfs, "t", 2);
    let mm = b.mm;
    let end = b.work(move |cx, k| async move {
        let at = BASE.add_pages(16);
        k.sys_mmap(&cx, mm, shared_file(at, 2, tmpfs))
            .await
            .expect("free");
        touch(&cx, &k, mm, range(at, 1), Access::Write).await;
        touch(&cx, &k, mm, range(at.add_pages(1), 1), Access::Read).await;
        map_and_touch(&cx, &k, mm, 3, Access::Write).await;
        assert_eq!(k.shrink_all_memory(&cx, 5).await, 1, "only the page of zeros");
        assert_eq!(k.metrics().swap_out + k.metrics().io_writes, 0);
        assert_eq!(k.st().mm(mm).anon_rss, 3);
        touch(&cx, &k, mm, range(at, 2), Access::Read).await;
        assert_eq!(k.metrics().io_reads, 0, "zeros are not read");
    });
    finish(&b, &end);
}

#[test]
fn a_page_whose_lock_is_held_is_passed_over() {
    let b = bench(Design::V8);
    let file = b.kernel.new_file("f", 2);
    let mm = b.mm;
    let end = b.work(move |cx, k| async move {
        k.sys_mmap(&cx, mm, shared_file(BASE, 2, file))
            .await
            .expect("free");
        touch(&cx, &k, mm, range(BASE, 2), Access::Read).await;
        k.lru_add_drain_all(&cx).await;
        let lock = k.st().file(file).pages.get(0).expect("cached").lock;
        let held = cx.lock(lock).await;
        assert_eq!(k.shrink_all_memory(&cx, 2).await, 1);
        assert_eq!(k.st().file(file).pages.len(), 1);
        drop(held);
        assert_eq!(k.shrink_all_memory(&cx, 1).await, 1);
    });
    finish(&b, &end);
}

#[test]
fn what_was_freed_before_does_not_wait_for_the_pagevec_of_another_cpu() {
    // host-mm-paths G.22: pages on their way to a list are found only by the CPU they wait on.
    let b = bench(Design::V8);
    let mm = b.mm;
    let end = b.work(move |cx, k| async move {
        k.sys_mmap(&cx, mm, anonymous(BASE, 3)).await.expect("free");
        touch(&cx, &k, mm, range(BASE, 3), Access::Write).await;
        let list = |k: &Kernel| k.frames().lru_len(k.zone(), LruList::Active);
        assert_eq!(list(&k), 0, "fewer than a pagevec");
        // Reclaim drains its own CPU's first.
        assert_eq!(k.shrink_all_memory(&cx, 3).await, 3);
    });
    finish(&b, &end);
}

#[test]
fn nonlinear_mappings_are_scanned_in_clusters_of_32_pages_whatever_page_is_wanted() {
    const PAGES: u64 = 80;
    for (design, told, brackets) in [(Design::V8, 1, 0), (Design::V9, 0, 1)] {
        let b = bench(design);
        let file = b.kernel.new_file_of(mm::FileKind::Tmpfs, "t", PAGES);
        let mm = b.mm;
        let end = b.work(move |cx, k| async move {
            exchanged(&cx, &k, mm, file, PAGES).await;
            let id = k
                .mmu_notifier_register(&cx, mm, Rc::new(Listener::default()))
                .await;
            let before = k.metrics();
            // The first page that is to go finds all entries of all three clusters young, the next one takes
            // away those of one cluster.
            let _ = k.shrink_all_memory(&cx, PAGES).await;
            let after = k.metrics();
            let unmapped = after.rmap_unmapped - before.rmap_unmapped;
            assert_eq!(after.rmap_young - before.rmap_young, PAGES);
            assert_eq!(unmapped, PAGES);
            assert!(after.rmap_clusters - before.rmap_clusters >= 3 + 3);
            assert_eq!(
                after.flush_page - before.flush_page,
                after.rmap_young - before.rmap_young + unmapped
            );
            assert_eq!(after.notifier_page - before.notifier_page, told * unmapped);
            assert_eq!(
                after.brackets - before.brackets,
                brackets * (after.rmap_clusters - before.rmap_clusters)
            );
            k.mmu_notifier_unregister(&cx, id).await;
        });
        finish(&b, &end);
    }
}

#[test]
fn a_page_off_its_linear_place_leaves_its_offset_behind() {
    let b = bench(Design::V8);
    let file = b.kernel.new_file_of(mm::FileKind::Tmpfs, "t", 4);
    let mm = b.mm;
    let end = b.work(move |cx, k| async move {
        exchanged(&cx, &k, mm, file, 4).await;
        for _ in 0..8 {
            let _ = k.shrink_all_memory(&cx, 4).await;
        }
        let says = |page: u64| NonPresent::of(k.peek_pte(mm, BASE.add_pages(page)));
        assert_eq!(says(0), Some(NonPresent::File(Pgoff::new(1))));
        assert_eq!(says(1), Some(NonPresent::File(Pgoff::new(0))));
        assert_eq!(k.peek_pte(mm, BASE.add_pages(2)), Entry::NONE);
        assert_eq!(k.st().mm(mm).file_rss, 0);
        touch(&cx, &k, mm, range(BASE, 4), Access::Read).await;
    });
    finish(&b, &end);
}
