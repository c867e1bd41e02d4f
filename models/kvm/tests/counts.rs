//! Faults, callbacks, flushes and pins of a guest whose memory is unmapped, design by design
//! (secondary-mmus 1.7, notifier-variants 6).

mod common;

use common::Setup;
use kvm::{Paging, Version};
use mm::notifier::Design;
use x86::{Access, Gfn};

const PAGES: u64 = 700;

#[test]
fn a_guest_faults_once_a_page_and_walks_in_two_dimensions() {
    let b = Setup::new(Design::V8, PAGES).build();
    let end = b.fill_then(|cx, h| async move {
        let m = h.kvm.metrics();
        assert_eq!((m.faults, m.sptes_installed, m.exits), (PAGES, PAGES, PAGES + 1));
        assert_eq!((m.retry_window, m.retry_seq, m.faults_refused), (0, 0, 0));
        assert_eq!((m.tlb_misses, m.tlb_hits), (PAGES, 0));
        // Each access walks before and after its fault.
        assert_eq!(m.walk_references, 2 * PAGES * 24);
        assert_eq!((m.flush_requests, m.vcpu_flushes), (0, 0));
        // 700 pages from gfn 0x100: two leaf tables and one of each upper level below the root.
        assert_eq!(m.shadow_pages, 4);
        assert_eq!((m.pins_max, m.pins_end), (PAGES, PAGES));
        h.munmap(&cx).await;
        h.kvm.destroy(&cx).await;
    });
    b.assert_fine(&end);
}

#[test]
fn a_direct_guest_runs_on_a_machine_without_nested_paging_and_walks_at_most_four_references() {
    let mut setup = Setup::new(Design::V8, 8);
    setup.machine = "harpertown-2008";
    setup.paging = Paging::Direct;
    let b = setup.build();
    let end = b.fill_then(|cx, h| async move {
        let m = h.kvm.metrics();
        assert_eq!(m.faults, 8);
        // The first walk ends at the root. The next ones start below the entry that points at the lowest
        // table; each fault drops that entry, so the instruction that restarts walks from the root.
        assert_eq!(m.walk_references, 1 + 7 + 8 * 4);
        h.munmap(&cx).await;
        h.kvm.destroy(&cx).await;
    });
    b.assert_fine(&end);
}

#[test]
fn munmap_under_the_merged_design_is_one_bracket_and_one_remote_flush() {
    let b = Setup::new(Design::V8, PAGES).build();
    let end = b.fill_then(|cx, h| async move {
        let (before, host_before) = h.counts();
        h.munmap(&cx).await;
        let (after, host_after) = h.counts();
        let (k, m) = (after.since(&before), host_after.since(&host_before));
        assert_eq!((m.notifier_start, m.notifier_end, m.notifier_page), (1, 1, 0));
        assert_eq!((k.flush_remote, k.flush_requests, k.flush_kicks), (1, 1, 1));
        assert_eq!(
            k.flush_kicks_outside, 1,
            "the vCPU has left the guest; 2.6.27 interrupts anyway"
        );
        assert_eq!((k.sptes_dropped, k.pages_checked), (PAGES, PAGES));
        assert_eq!(k.pins_end, 0);
        assert!(k.tlb_flushed > 0);
        assert_eq!(m.pages_freed, PAGES);
        h.kvm.destroy(&cx).await;
    });
    b.assert_fine(&end);
}

#[test]
fn munmap_under_the_original_design_is_a_callback_and_a_flush_request_a_page() {
    let b = Setup::new(Design::V1, PAGES).build();
    let vcpu = b.kvm.add_vcpu();
    let stop = std::rc::Rc::new(std::cell::Cell::new(false));
    let (ready, stopped) = (
        std::rc::Rc::new(std::cell::Cell::new(false)),
        std::rc::Rc::clone(&stop),
    );
    let filled = std::rc::Rc::clone(&ready);
    b.thread(1, move |cx, h| async move {
        h.kvm.register(&cx).await;
        h.map(&cx).await;
        h.touch_guest(&cx, vcpu).await;
        filled.set(true);
        // Keeps re-entering, so that no request stays pending.
        while !stopped.get() {
            h.kvm.exit(&cx, vcpu);
            h.kvm.enter(&cx, vcpu).await;
        }
        h.kvm.exit(&cx, vcpu);
    });
    b.thread(0, move |cx, h| async move {
        while !ready.get() {
            cx.sleep(sim::Cycles::new(1_000)).await;
        }
        let (before, host_before) = h.counts();
        h.munmap(&cx).await;
        let (after, host_after) = h.counts();
        let (k, m) = (after.since(&before), host_after.since(&host_before));
        assert_eq!((m.notifier_start, m.notifier_end, m.notifier_page), (0, 0, PAGES));
        assert_eq!(k.flush_requests, PAGES);
        // A page whose flush finds the vCPU still on its way back into the guest interrupts nobody.
        assert_eq!(k.flush_remote + k.flush_passed_over, PAGES);
        assert!(k.flush_remote > 1, "{k:?}");
        assert_eq!(k.sptes_dropped, PAGES);
        stop.set(true);
        h.kvm.destroy(&cx).await;
    });
    let end = b.engine.run();
    b.assert_fine(&end);
}

#[test]
fn without_notifiers_pages_stay_pinned_until_the_machine_goes() {
    let b = Setup::new(Design::V0, PAGES)
        .version(Version::LINUX_2_6_32)
        .build();
    let end = b.fill_then(|cx, h| async move {
        let (before, host_before) = h.counts();
        h.munmap(&cx).await;
        let (after, host_after) = h.counts();
        let (k, m) = (after.since(&before), host_after.since(&host_before));
        assert_eq!((k.flush_requests, k.sptes_dropped, m.notifier_start), (0, 0, 0));
        assert_eq!(
            (m.pages_pinned_end, m.pages_freed),
            (PAGES, 0),
            "the guest keeps every frame"
        );
        h.kvm.destroy(&cx).await;
        let (last, host_last) = h.counts();
        let (k, m) = (last.since(&after), host_last.since(&host_after));
        assert_eq!(
            (k.sptes_dropped, k.shadow_pages_zapped, k.flush_requests),
            (PAGES, 2, 3)
        );
        assert_eq!(
            k.flush_remote, 1,
            "the vCPU never enters again, its request stays pending"
        );
        assert_eq!((m.pages_pinned_end, m.pages_freed, k.pins_end), (0, PAGES, 0));
    });
    b.assert_fine(&end);
}

#[test]
fn from_2_6_32_on_no_page_is_pinned() {
    let b = Setup::new(Design::V8, PAGES)
        .version(Version::LINUX_2_6_32)
        .build();
    let end = b.fill_then(|cx, h| async move {
        let (before, host_before) = h.counts();
        assert_eq!((before.pins_max, host_before.pages_pinned_max), (0, 0));
        assert_eq!(before.sptes_installed, PAGES);
        h.munmap(&cx).await;
        let (after, _) = h.counts();
        assert_eq!(after.since(&before).flush_remote, 1);
        h.kvm.destroy(&cx).await;
    });
    b.assert_fine(&end);
}

#[test]
fn the_end_of_the_address_space_drops_everything_from_2_6_29_on_and_nothing_before() {
    for (version, dropped) in [
        (Version::LINUX_2_6_27, 0),
        (Version::LINUX_2_6_29, PAGES),
        (Version::LINUX_2_6_32, PAGES),
    ] {
        let b = Setup::new(Design::V8, PAGES).version(version).build();
        let end = b.fill_then(move |cx, h| async move {
            h.kernel.exit_mm(&cx, h.mm).await;
            assert_eq!(h.kvm.metrics().sptes_dropped, dropped, "{version}");
            assert_eq!(h.kernel.metrics().notifier_release, 1);
            h.kvm.destroy(&cx).await;
            assert_eq!(h.kvm.metrics().sptes_dropped, PAGES);
        });
        b.assert_fine(&end);
    }
}

#[test]
fn an_access_without_memory_behind_it_is_refused() {
    let b = Setup::new(Design::V8, 4).build();
    let end = b.fill_then(|cx, h| async move {
        let vcpu = h.kvm.add_vcpu();
        let refused = h.kvm.access(&cx, vcpu, Gfn::new(0), Access::Read).await;
        assert_eq!(refused, Err(mm::Refused::NoMapping));
        h.munmap(&cx).await;
        let refused = h.kvm.access(&cx, vcpu, common::FIRST_GFN, Access::Read).await;
        assert_eq!(refused, Err(mm::Refused::NoMapping));
        assert_eq!(h.kvm.metrics().faults_refused, 2);
        h.kvm.exit(&cx, vcpu);
        h.kvm.destroy(&cx).await;
    });
    b.assert_fine(&end);
}

#[test]
fn a_second_round_hits_the_tlb_and_a_flush_makes_it_miss() {
    let b = Setup::new(Design::V8, 32).build();
    let vcpu = b.kvm.add_vcpu();
    b.thread(1, move |cx, h| async move {
        h.kvm.register(&cx).await;
        h.map(&cx).await;
        h.touch_guest(&cx, vcpu).await;
        h.touch_guest(&cx, vcpu).await;
        let m = h.kvm.metrics();
        assert_eq!((m.tlb_misses, m.tlb_hits, m.faults), (32, 32, 32));
        // The vCPU's own task gives half of it back, as a balloon does.
        h.kvm.exit(&cx, vcpu);
        h.kernel
            .madvise_dontneed(&cx, h.mm, h.range(16))
            .await
            .expect("mapped");
        h.touch_guest(&cx, vcpu).await;
        let m = h.kvm.metrics();
        assert_eq!(
            (m.tlb_misses, m.faults, m.vcpu_flushes),
            (64, 48, 1),
            "all 32 lost, 16 refaulted"
        );
        assert_eq!(
            (m.flush_requests, m.flush_remote),
            (1, 0),
            "no other CPU to interrupt"
        );
        h.kvm.exit(&cx, vcpu);
        h.munmap(&cx).await;
        h.kvm.destroy(&cx).await;
    });
    let end = b.engine.run();
    b.assert_fine(&end);
}
