//! Faults that cross invalidations, and the order of flushing and unpinning (secondary-mmus R-K1 to
//! R-K5, notifier-variants 10.17).

mod common;

use std::cell::Cell;
use std::rc::Rc;

use common::{Bench, FIRST_GFN, Setup};
use kvm::{KvmMetrics, UnpinOrder, VcpuId, Version};
use mm::notifier::Design;
use sim::{Cycles, End, ViolationKind};
use x86::Access;

const PAGES: u64 = 64;

/// A vCPU touches its memory over and over on CPU 1 while CPU 0 drops it `rounds` times.
fn balloon(b: &Bench, rounds: u64, pause: u64) -> End {
    let vcpu = b.kvm.add_vcpu();
    let (ready, stop) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(false)));
    let (set_up, stopped) = (Rc::clone(&ready), Rc::clone(&stop));
    let guest = b.thread(1, move |cx, h| async move {
        h.kvm.register(&cx).await;
        h.map(&cx).await;
        set_up.set(true);
        while !stopped.get() {
            h.touch_guest(&cx, vcpu).await;
        }
        h.kvm.exit(&cx, vcpu);
    });
    b.thread(0, move |cx, h| async move {
        while !ready.get() {
            cx.sleep(Cycles::new(1_000)).await;
        }
        for round in 0..rounds {
            cx.sleep(Cycles::new(pause + round)).await;
            h.kernel
                .madvise_dontneed(&cx, h.mm, h.range(h.pages))
                .await
                .expect("mapped");
        }
        stop.set(true);
        cx.join(guest).await;
        h.munmap(&cx).await;
        h.kvm.destroy(&cx).await;
    });
    b.engine.run()
}

#[test]
fn faults_that_cross_a_window_are_discarded_and_nothing_stale_is_used() {
    for design in [Design::V1, Design::V8, Design::V9] {
        for version in [Version::LINUX_2_6_27, Version::LINUX_2_6_32, Version::LINUX_4_9] {
            let mut total = KvmMetrics::default();
            for pause in [5_000, 20_000, 77_777] {
                let b = Setup::new(design.clone(), PAGES).version(version).build();
                let end = balloon(&b, 40, pause);
                b.assert_fine(&end);
                total.merge(&b.kvm.metrics());
            }
            let crossed = total.retry_window + total.retry_seq;
            assert!(crossed > 0, "{} {version}: {total:?}", design.id);
            if design == Design::V1 {
                assert_eq!(total.retry_window, 0, "there are no windows without brackets");
            }
        }
    }
}

#[test]
fn random_interleavings_of_a_guest_and_munmap_stay_coherent() {
    let mut crossed = 0;
    for version in [Version::LINUX_2_6_27, Version::LINUX_2_6_32] {
        for seed in 0..150 {
            let mut setup = Setup::new(Design::V8, 2).version(version);
            setup.explored = Some(seed);
            setup.max_events = 200_000;
            let b = setup.build();
            let vcpu = b.kvm.add_vcpu();
            let ready = Rc::new(Cell::new(false));
            let set_up = Rc::clone(&ready);
            let guest = b.thread(1, move |cx, h| async move {
                h.kvm.register(&cx).await;
                h.map(&cx).await;
                set_up.set(true);
                for n in 0..12 {
                    // Refused once the mapping is gone.
                    let _ = h.kvm.access(&cx, vcpu, FIRST_GFN.add(n % 2), Access::Write).await;
                }
                h.kvm.exit(&cx, vcpu);
            });
            b.thread(0, move |cx, h| async move {
                while !ready.get() {
                    cx.sleep(Cycles::new(1)).await;
                }
                h.kernel
                    .madvise_dontneed(&cx, h.mm, h.range(2))
                    .await
                    .expect("mapped");
                h.munmap(&cx).await;
                cx.join(guest).await;
                h.kvm.destroy(&cx).await;
            });
            let end = b.engine.run();
            b.assert_fine(&end);
            let m = b.kvm.metrics();
            crossed += m.retry_window + m.retry_seq;
        }
    }
    assert!(crossed > 0);
}

/// A guest on CPU 1 runs on while CPU 0 unmaps its memory and then closes the machine.
fn teardown(unpin: UnpinOrder) -> (End, Bench) {
    let mut setup = Setup::new(Design::V0, PAGES);
    setup.unpin = unpin;
    let b = setup.build();
    let end = b.fill_then(|cx, h| async move {
        h.munmap(&cx).await;
        h.kvm.destroy(&cx).await;
    });
    (end, b)
}

#[test]
fn unpinning_before_the_flush_frees_a_frame_that_a_vcpu_still_reaches() {
    let (end, b) = teardown(UnpinOrder::FlushFirst);
    b.assert_fine(&end);
    let (end, _b) = teardown(UnpinOrder::UnpinFirst);
    let End::Violation(v) = end else { panic!("{end:?}") };
    assert_eq!(v.kind, ViolationKind::Model(mm::page::FREE_WHILE_MAPPED));
    assert!(v.stack.contains(&"kvm_mmu_zap_all"), "{:?}", v.stack);
}

#[test]
fn under_notifiers_the_unsafe_order_is_saved_by_the_primary_pte() {
    let mut setup = Setup::new(Design::V8, PAGES);
    setup.unpin = UnpinOrder::UnpinFirst;
    let b = setup.build();
    let end = b.fill_then(|cx, h| async move {
        h.munmap(&cx).await;
        h.kvm.destroy(&cx).await;
    });
    b.assert_fine(&end);
}

/// Two threads drop different halves of guest memory at once, both under mmap_sem for read.
fn concurrent_drops(version: Version, seed: u64) -> (End, KvmMetrics) {
    let mut setup = Setup::new(Design::V8, 2).version(version);
    setup.explored = Some(seed);
    setup.max_events = 200_000;
    let b = setup.build();
    let vcpus: [VcpuId; 1] = [b.kvm.add_vcpu()];
    let ready = Rc::new(Cell::new(false));
    let set_up = Rc::clone(&ready);
    let guest = b.thread(1, move |cx, h| async move {
        h.kvm.register(&cx).await;
        h.map(&cx).await;
        h.touch_guest(&cx, vcpus[0]).await;
        // Else the pages would wait for this CPU's pagevec to let go of them.
        h.kernel.lru_add_drain_all(&cx).await;
        set_up.set(true);
        for n in 0..6 {
            h.kvm
                .access(&cx, vcpus[0], FIRST_GFN.add(n % 2), Access::Read)
                .await
                .expect("mapped");
        }
        h.kvm.exit(&cx, vcpus[0]);
    });
    let halves = [2, 3].map(|cpu| {
        let ready = Rc::clone(&ready);
        b.thread(cpu, move |cx, h| async move {
            while !ready.get() {
                cx.sleep(Cycles::new(1)).await;
            }
            let at = common::BASE.add_pages(u64::from(cpu) - 2);
            h.kernel
                .madvise_dontneed(&cx, h.mm, x86::VaRange::page_of(at))
                .await
                .expect("mapped");
        })
    });
    b.thread(0, move |cx, h| async move {
        for task in halves {
            cx.join(task).await;
        }
        cx.join(guest).await;
        h.munmap(&cx).await;
        h.kvm.destroy(&cx).await;
    });
    let end = b.engine.run();
    if end == End::Completed {
        b.assert_fine(&end);
    }
    (end, b.kvm.metrics())
}

#[test]
fn passing_over_a_vcpu_whose_interrupt_is_on_its_way_was_unsafe_until_requests_were_serialised() {
    let violations = |version| {
        (0..400)
            .map(|seed| concurrent_drops(version, seed).0)
            .filter(|end| *end != End::Completed)
            .collect::<Vec<_>>()
    };
    let found = violations(Version::LINUX_2_6_27);
    assert!(!found.is_empty());
    for end in &found {
        let End::Violation(v) = end else { panic!("{end:?}") };
        assert!(
            [mm::page::FREE_WHILE_MAPPED, mm::page::STALE_USE]
                .map(ViolationKind::Model)
                .contains(&v.kind),
            "{v:?}"
        );
    }
    assert_eq!(violations(Version::LINUX_2_6_32), []);
}
