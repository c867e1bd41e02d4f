//! What invalidations cost the GRU: purges by chiplet, identifiers forgotten (secondary-mmus 2.4,
//! notifier-variants section 6).

mod common;

use std::cell::RefCell;
use std::rc::Rc;

use common::{BASE, Bench, Setup, prepare, range, touch};
use gru::{GruMetrics, MissMode};
use mm::notifier::Design;
use mm::page::FREE_WHILE_MAPPED;
use sim::{End, ViolationKind};
use x86::Access;

/// Two of three chiplets hold the pages when they are unmapped. Counters before and after.
fn munmap(design: Design, pages: u64) -> (Bench, GruMetrics, GruMetrics) {
    let b = Setup {
        design,
        ..Setup::v8()
    }
    .timed();
    let seen = Rc::new(RefCell::new(None));
    let out = Rc::clone(&seen);
    let end = b.run(move |cx, k, gru| async move {
        prepare(&cx, &k, &gru, pages).await;
        gru.load_context(&cx, 0).await;
        gru.load_context(&cx, 1).await;
        for chiplet in [0, 1] {
            touch(&cx, &gru, chiplet, pages, Access::Read).await;
        }
        let before = gru.metrics();
        k.sys_munmap(&cx, gru.mm(), range(pages)).await.expect("mapped");
        *out.borrow_mut() = Some((before, gru.metrics()));
    });
    assert_eq!(end, End::Completed);
    assert_eq!(b.audit(), Vec::<String>::new());
    let (before, after) = seen.borrow_mut().take().expect("measured");
    (b, before, after)
}

#[test]
fn every_first_touch_of_a_page_misses_once_a_chiplet() {
    const PAGES: u64 = 100;
    let (_, before, _) = munmap(Design::V8, PAGES);
    assert_eq!(
        (before.misses, before.faults, before.hits),
        (2 * PAGES, 2 * PAGES, 0)
    );
    assert_eq!(
        (before.interrupts, before.polled, before.dropin),
        (2 * PAGES, 0, 2 * PAGES)
    );
    assert_eq!((before.asid_new, before.asid_reuse), (2, 0));
}

#[test]
fn v8_purges_once_a_loaded_chiplet() {
    for pages in [1, 8, 100, 1023] {
        let (b, before, after) = munmap(Design::V8, pages);
        assert_eq!(after.purges - before.purges, 2, "{pages} pages");
        assert_eq!(after.callbacks - before.callbacks, 1);
        assert_eq!(after.purged_entries, 2 * pages);
        assert_eq!(after.purges_whole_asid, 0);
        assert_eq!((b.gru.live_entries(0), b.gru.live_entries(1)), (0, 0));
    }
}

#[test]
fn v1_purges_once_a_page_and_loaded_chiplet() {
    for pages in [1, 8, 100, 1023, 1500] {
        let (_, before, after) = munmap(Design::V1, pages);
        assert_eq!(after.purges - before.purges, 2 * pages, "{pages} pages");
        assert_eq!(after.callbacks - before.callbacks, pages);
        assert_eq!(after.purges_whole_asid, 0);
    }
}

#[test]
fn a_range_of_1024_pages_or_more_purges_the_identifier() {
    for pages in [1024, 1025, 5000] {
        let (b, before, after) = munmap(Design::V8, pages);
        assert_eq!(after.purges - before.purges, 2, "{pages} pages");
        assert_eq!(after.purges_whole_asid, 2);
        assert_eq!(b.gru.live_entries(0), 0);
        // 1024 sets of 4 ways hold 4096 of them.
        assert_eq!(before.live_entries_max, pages.min(4096));
    }
}

#[test]
fn without_a_loaded_context_the_identifier_is_forgotten() {
    const PAGES: u64 = 10;
    let b = Setup::v8().timed();
    let end = b.run(|cx, k, gru| async move {
        prepare(&cx, &k, &gru, PAGES).await;
        touch(&cx, &gru, 2, PAGES, Access::Read).await;
        gru.unload_context(&cx, 2).await;
        assert_eq!(
            gru.live_entries(2),
            PAGES as usize,
            "parked: entries wait for the next load"
        );
        let parked = gru.asid(2);
        gru.load_context(&cx, 2).await;
        assert_eq!(gru.asid(2), parked);
        touch(&cx, &gru, 2, PAGES, Access::Read).await;
        let m = gru.metrics();
        assert_eq!((m.asid_new, m.asid_reuse, m.hits, m.misses), (1, 1, PAGES, PAGES));

        gru.unload_context(&cx, 2).await;
        k.madvise_dontneed(&cx, gru.mm(), range(1)).await.expect("mapped");
        let m = gru.metrics();
        assert_eq!((m.purges, m.zero_asid, m.lost_entries), (0, 1, PAGES));
        assert_eq!((gru.asid(2), gru.live_entries(2)), (None, 0));
        k.madvise_dontneed(&cx, gru.mm(), range(1)).await.expect("mapped");
        assert_eq!(gru.metrics().zero_asid, 1, "nothing is left to forget");

        touch(&cx, &gru, 2, PAGES, Access::Read).await;
        let m = gru.metrics();
        assert_eq!((m.asid_new, m.misses), (2, 2 * PAGES));
        assert_ne!(gru.asid(2), parked);
    });
    assert_eq!(end, End::Completed);
    assert_eq!(b.audit(), Vec::<String>::new());
}

#[test]
fn a_write_through_a_clean_entry_misses_again_and_walks_slowly_if_the_pte_is_clean() {
    let b = Setup::v8().timed();
    let file = b.kernel.new_file("f", 4);
    let end = b.run(move |cx, k, gru| async move {
        k.mmu_notifier_register(&cx, gru.mm(), gru.clone()).await;
        k.sys_mmap(&cx, gru.mm(), common::shared_file(4, file))
            .await
            .expect("free");
        gru.load_context(&cx, 0).await;
        // Absent: left to polling, which faults it in.
        gru.access(&cx, 0, BASE, Access::Read).await.expect("mapped");
        let m = gru.metrics();
        assert_eq!(
            (m.dropin_fail_upm, m.polled, m.slow_walks, m.dropin),
            (1, 1, 1, 1)
        );
        // Read-only pte: get_user_pages again.
        gru.access(&cx, 0, BASE, Access::Write).await.expect("mapped");
        let m = gru.metrics();
        assert_eq!((m.dropin_fail_upm, m.polled, m.slow_walks, m.hits), (2, 2, 2, 0));
        gru.access(&cx, 0, BASE, Access::Write).await.expect("mapped");
        assert_eq!(gru.metrics().hits, 1);
        // Dirty by now: another chiplet gets by with the interrupt handler.
        gru.access(&cx, 1, BASE, Access::Write).await.expect("mapped");
        let m = gru.metrics();
        assert_eq!((m.polled, m.slow_walks), (2, 2));
    });
    assert_eq!(end, End::Completed);
    assert_eq!(b.audit(), Vec::<String>::new());
}

#[test]
fn a_copy_on_write_purges_one_page() {
    let b = Setup::v8().timed();
    let end = b.run(|cx, k, gru| async move {
        prepare(&cx, &k, &gru, 4).await;
        touch(&cx, &gru, 0, 4, Access::Write).await;
        let child = k.sys_fork(&cx, gru.mm(), "child".into()).await;
        let forked = gru.metrics();
        assert_eq!((forked.purges, gru.live_entries(0)), (1, 0));
        touch(&cx, &gru, 0, 4, Access::Read).await;
        // The GRU's own write copies the page: the callback comes inside its own miss.
        gru.access(&cx, 0, BASE, Access::Write).await.expect("mapped");
        let m = gru.metrics();
        assert_eq!((m.purges, m.dropin_ignored), (2, 1));
        assert_eq!(m.misses - forked.misses, 4 + 2);
        k.mmput(&cx, child).await;
    });
    assert_eq!(end, End::Completed);
    assert_eq!(b.audit(), Vec::<String>::new());
}

#[test]
fn polling_serves_every_miss_from_user_context() {
    let b = Setup {
        miss: MissMode::UserPolling,
        ..Setup::v8()
    }
    .timed();
    let end = b.run(|cx, k, gru| async move {
        prepare(&cx, &k, &gru, 16).await;
        touch(&cx, &gru, 0, 16, Access::Write).await;
        let m = gru.metrics();
        assert_eq!(
            (m.interrupts, m.polled, m.slow_walks, m.call_os_waits),
            (0, 16, 0, 0)
        );
    });
    assert_eq!(end, End::Completed);
}

#[test]
fn an_access_without_a_mapping_is_refused() {
    let b = Setup::v8().timed();
    let end = b.run(|cx, k, gru| async move {
        prepare(&cx, &k, &gru, 1).await;
        let beyond = BASE.add_pages(1);
        let refused = gru.access(&cx, 0, beyond, Access::Read).await;
        assert_eq!(refused, Err(mm::Refused::NoMapping));
        assert_eq!(gru.metrics().refused, 1);
    });
    assert_eq!(end, End::Completed);
}

#[test]
fn a_seventeenth_context_takes_the_place_of_another() {
    let b = Setup::v8().timed();
    let end = b.run(|cx, k, gru| async move {
        prepare(&cx, &k, &gru, 1).await;
        for _ in 0..17 {
            gru.load_context(&cx, 0).await;
        }
        assert_eq!((gru.contexts(0), gru.metrics().context_steals), (16, 1));
        for _ in 0..17 {
            gru.unload_context(&cx, 0).await;
        }
        assert_eq!((gru.contexts(0), gru.metrics().context_unloads), (0, 16));
    });
    assert_eq!(end, End::Completed);
}

#[test]
fn a_process_that_closes_its_segments_leaves_safely() {
    for design in [Design::V1, Design::V8] {
        let b = Setup {
            design,
            ..Setup::v8()
        }
        .timed();
        let end = b.run(|cx, k, gru| async move {
            prepare(&cx, &k, &gru, 64).await;
            touch(&cx, &gru, 0, 64, Access::Write).await;
            touch(&cx, &gru, 1, 64, Access::Read).await;
            gru.destroy(&cx).await;
            assert!((0..3).all(|c| gru.live_entries(c) == 0 && gru.asid(c).is_none()));
            let refused = gru.access(&cx, 0, BASE, Access::Read).await;
            assert_eq!(refused, Err(mm::Refused::NoMapping));
            gru.load_context(&cx, 0).await;
            assert_eq!(gru.contexts(0), 0, "nothing comes back after that");
            k.exit_mm(&cx, gru.mm()).await;
        });
        assert_eq!(end, End::Completed);
        assert_eq!(b.engine.violations(), vec![]);
        assert_eq!(b.audit(), Vec::<String>::new());
    }
}

#[test]
fn an_exit_with_loaded_contexts_frees_pages_under_the_gru() {
    // notifier-variants 10.26b: release sets a flag and the list is empty afterwards.
    let b = Setup::v8().timed();
    let end = b.run(|cx, k, gru| async move {
        prepare(&cx, &k, &gru, 4).await;
        touch(&cx, &gru, 0, 4, Access::Read).await;
        k.exit_mm(&cx, gru.mm()).await;
    });
    let End::Violation(v) = end else {
        panic!("{end:?}");
    };
    assert_eq!(v.kind, ViolationKind::Model(FREE_WHILE_MAPPED));
    assert!(v.summary.contains("gru0"), "{}", v.summary);
}

#[test]
fn an_exit_under_v1_tells_the_gru_of_every_page() {
    let b = Setup {
        design: Design::V1,
        ..Setup::v8()
    }
    .timed();
    let end = b.run(|cx, k, gru| async move {
        prepare(&cx, &k, &gru, 4).await;
        touch(&cx, &gru, 0, 4, Access::Read).await;
        k.exit_mm(&cx, gru.mm()).await;
        assert_eq!(gru.metrics().purges, 4);
    });
    assert_eq!(end, End::Completed);
    assert_eq!(b.audit(), Vec::<String>::new());
}

#[test]
fn an_unmapped_neighbour_leaves_entries_alone() {
    let b = Setup::v8().timed();
    let end = b.run(|cx, k, gru| async move {
        prepare(&cx, &k, &gru, 8).await;
        touch(&cx, &gru, 0, 8, Access::Read).await;
        k.madvise_dontneed(&cx, gru.mm(), range(3)).await.expect("mapped");
        assert_eq!(gru.live_entries(0), 5);
    });
    assert_eq!(end, End::Completed);
    assert_eq!(b.audit(), Vec::<String>::new());
}
