//! What reclaim learns from a guest about the age of its pages.

mod common;

use common::Setup;
use kvm::Paging;
use mm::Prot;
use mm::frame::{LruList, PageFlags};
use mm::notifier::Design;
use x86::Access;

/// Whether the guest uses its page again.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Guest {
    IsDone,
    ComesBack,
}

/// Host of one guest page on `machine`; the guest writes it, then reclaim wants it, so often.
fn reclaimed(machine: &'static str, paging: Paging, guest: Guest) -> (u64, kvm::KvmMetrics, mm::MmMetrics) {
    let mut setup = Setup::new(Design::V8, 1);
    (setup.machine, setup.paging) = (machine, paging);
    let b = setup.build();
    b.kernel.set_swap(16);
    let vcpu = b.kvm.add_vcpu();
    let freed = std::rc::Rc::new(std::cell::Cell::new(0));
    let log = std::rc::Rc::clone(&freed);
    b.thread(1, move |cx, h| async move {
        h.kvm.register(&cx).await;
        h.map(&cx).await;
        h.touch_guest(&cx, vcpu).await;
        h.kernel.lru_add_drain_all(&cx).await;
        if guest == Guest::ComesBack {
            // Between the scans of reclaim, which takes a page a call.
            for _ in 0..3 {
                let gfn = h.kvm.gfn_of_index(0).expect("one page");
                h.kvm
                    .access(&cx, vcpu, gfn, Access::Write)
                    .await
                    .expect("in a slot");
                h.kvm.exit(&cx, vcpu);
                log.set(log.get() + h.kernel.shrink_all_memory(&cx, 1).await);
            }
        } else {
            log.set(h.kernel.shrink_all_memory(&cx, 1).await);
        }
        h.kvm.destroy(&cx).await;
        h.munmap(&cx).await;
    });
    let end = b.engine.run();
    b.assert_fine(&end);
    let (kvm, mm) = (b.kvm.metrics(), b.kernel.metrics());
    (freed.get(), kvm, mm)
}

#[test]
fn an_spte_that_was_used_keeps_its_page_for_one_more_scan_and_its_guest_loses_its_tlb() {
    for (machine, paging) in [
        ("barcelona-2008", Paging::Tdp),
        ("harpertown-2008", Paging::Direct),
    ] {
        let (freed, k, m) = reclaimed(machine, paging, Guest::IsDone);
        assert_eq!(freed, 1, "{machine}");
        // get_user_pages and the spte's first use: host and guest are young once each, at the same look.
        assert_eq!((m.rmap_young, k.sptes_aged), (1, 1), "{machine}");
        // Young: one flush request. Then the page goes: one spte, one more.
        assert_eq!(m.notifier_young, 4);
        assert_eq!((m.notifier_page, k.sptes_dropped), (1, 1));
        assert!(k.flush_requests >= 2);
        assert_eq!(
            k.pins_end, 0,
            "invalidate_page gives the reference back, so reclaim can free the page"
        );
        assert_eq!(m.reclaim_pinned, 0);
    }
}

#[test]
fn an_extended_page_table_of_2008_never_says_that_a_page_was_used() {
    let (freed, k, m) = reclaimed("nehalem-2009", Paging::Tdp, Guest::IsDone);
    assert_eq!(freed, 1);
    assert_eq!((m.rmap_young, k.sptes_aged), (1, 0));
    assert_eq!(m.notifier_young, 4, "it was asked all the same");
}

#[test]
fn a_guest_faults_a_reclaimed_page_in_again() {
    let (freed, k, m) = reclaimed("barcelona-2008", Paging::Tdp, Guest::ComesBack);
    assert_eq!(freed, 3);
    assert_eq!((m.swap_out, m.faults_swap), (3, 2));
    assert_eq!(k.sptes_installed, 3);
    assert_eq!(m.pages_pinned_end, 0);
}

#[test]
fn a_used_spte_that_is_removed_is_a_use_of_its_page_and_the_second_one_activates_it() {
    // rmap_remove, kvm_set_pfn_accessed, mark_page_accessed. The sptes of an EPT of 2008 say nothing.
    for (machine, active) in [("barcelona-2008", true), ("nehalem-2009", false)] {
        let mut setup = Setup::new(Design::V8, 1);
        setup.machine = machine;
        let b = setup.build();
        let vcpu = b.kvm.add_vcpu();
        b.thread(1, move |cx, h| async move {
            h.kvm.register(&cx).await;
            h.map(&cx).await;
            h.touch_guest(&cx, vcpu).await;
            h.kernel.lru_add_drain_all(&cx).await;
            let pfn = h.kernel.peek_pte(h.mm, common::BASE).pfn();
            {
                // As if it had been used once, and then grown old.
                let mut frames = h.kernel.frames();
                let _ = frames.lru_del(pfn);
                frames.lru_add(pfn, LruList::Inactive);
                frames.get_mut(pfn).flags.set(PageFlags::REFERENCED);
            }
            let before = h.counts();
            h.kernel
                .sys_mprotect(&cx, h.mm, h.range(1), Prot::READ)
                .await
                .expect("mapped");
            let after = h.counts();
            assert_eq!(after.0.sptes_dropped - before.0.sptes_dropped, 1, "{machine}");
            let flags = h.kernel.frames().get(pfn).flags;
            assert_eq!(flags.has(PageFlags::ACTIVE), active, "{machine}");
            assert_eq!(flags.has(PageFlags::REFERENCED), !active, "{machine}");
            assert_eq!(after.1.lru_activated - before.1.lru_activated, u64::from(active));
            h.kvm.destroy(&cx).await;
            h.munmap(&cx).await;
        });
        let end = b.engine.run();
        b.assert_fine(&end);
    }
}
