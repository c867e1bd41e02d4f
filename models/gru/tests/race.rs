//! Misses against invalidations (secondary-mmus R-G1, R-G2, R-G5, notifier-variants 10.12).

mod common;

use std::cell::Cell;
use std::rc::Rc;

use common::{BASE, Bench, Setup, prepare, range, shared_file};
use gru::{DropinCancel, Gru, GruMetrics, MissMode};
use mm::notifier::{CallbackFuture, Design, MmuKind, Subscriber};
use mm::page::{FREE_WHILE_MAPPED, STALE_USE};
use sim::{Action, Chooser, Cx, Cycles, Enabled, End, Object, RandomWalk, Stream, ViolationKind};
use x86::{Access, Pfn, Va, VaRange};

/// A subscriber that is told after the GRU and takes its time, so that windows stay open.
struct Slow {
    open: Rc<Cell<bool>>,
}

const SLOW: Cycles = Cycles::new(1_000_000);

impl Subscriber for Slow {
    fn name(&self) -> Rc<str> {
        "slow".into()
    }
    fn kind(&self) -> MmuKind {
        MmuKind::Device
    }
    fn invalidate_page<'a>(&'a self, _: &'a Cx, _: Va) -> CallbackFuture<'a> {
        Box::pin(async {})
    }
    fn invalidate_range_start<'a>(&'a self, cx: &'a Cx, _: VaRange) -> CallbackFuture<'a> {
        Box::pin(async move {
            self.open.set(true);
            cx.charge(mm::account::CALLBACK_DEVICE, SLOW);
            cx.step(Object::None, Action::Run).await;
        })
    }
    fn invalidate_range_end<'a>(&'a self, _: &'a Cx, _: VaRange) -> CallbackFuture<'a> {
        Box::pin(async { self.open.set(false) })
    }
    fn invalidate_pages<'a>(&'a self, _: &'a Cx, _: VaRange) -> CallbackFuture<'a> {
        Box::pin(async {})
    }
    fn release<'a>(&'a self, _: &'a Cx) -> CallbackFuture<'a> {
        Box::pin(async {})
    }
    fn reaches(&self, _: Pfn) -> bool {
        false
    }
}

/// Half of a file is truncated while the GRU touches the other half.
fn access_in_window(miss: MissMode) -> GruMetrics {
    const PAGES: u64 = 8;
    let b = Setup { miss, ..Setup::v8() }.timed();
    let file = b.kernel.new_file("heap", PAGES);
    let open = Rc::new(Cell::new(false));
    let ready = Rc::new(Cell::new(false));
    let (slow, told, seen) = (Rc::clone(&open), Rc::clone(&ready), Rc::clone(&open));
    b.thread("truncate", 0, None, move |cx, k, gru| async move {
        k.mmu_notifier_register(&cx, gru.mm(), Rc::new(Slow { open: slow }))
            .await;
        k.mmu_notifier_register(&cx, gru.mm(), gru.clone()).await;
        k.sys_mmap(&cx, gru.mm(), shared_file(PAGES, file))
            .await
            .expect("free");
        gru.access(&cx, 0, BASE, Access::Write).await.expect("mapped");
        ready.set(true);
        k.do_truncate(&cx, file, 1).await;
    });
    b.thread("user", 1, Some(b.mm), move |cx, _, gru| async move {
        while !(told.get() && seen.get()) {
            cx.charge(mm::account::USER, Cycles::new(1_000));
            cx.step(Object::None, Action::Run).await;
        }
        let before = cx.now();
        gru.access(&cx, 1, BASE, Access::Write)
            .await
            .expect("still mapped");
        assert!(
            cx.now() - before > Cycles::new(SLOW.get() / 2),
            "it had to wait for the end"
        );
    });
    assert_eq!(b.engine.run(), End::Completed);
    assert_eq!(b.audit(), Vec::<String>::new());
    b.gru.metrics()
}

#[test]
fn a_drop_in_during_an_open_window_is_refused_and_completes_after_its_end() {
    let m = access_in_window(MissMode::Interrupt);
    assert!(m.dropin_fail_range_active >= 1, "{m:?}");
    assert!(m.call_os_waits >= 1 && m.polled >= 1, "{m:?}");
    let m = access_in_window(MissMode::UserPolling);
    assert!(m.call_os_waits >= 1, "{m:?}");
}

#[test]
fn a_miss_while_mmap_sem_is_held_for_write_is_left_to_polling() {
    let b = Setup::v8().timed();
    let ready = Rc::new(Cell::new(false));
    let told = Rc::clone(&ready);
    b.thread("holder", 0, Some(b.mm), move |cx, k, gru| async move {
        prepare(&cx, &k, &gru, 1).await;
        let _sem = cx.lock(k.mmap_sem(gru.mm())).await;
        ready.set(true);
        cx.sleep(SLOW).await;
    });
    b.thread("user", 1, Some(b.mm), move |cx, _, gru| async move {
        while !told.get() {
            cx.charge(mm::account::USER, Cycles::new(1_000));
            cx.step(Object::None, Action::Run).await;
        }
        gru.access(&cx, 0, BASE, Access::Read).await.expect("mapped");
        assert_eq!((gru.metrics().fail_mmap_sem, gru.metrics().polled), (1, 1));
    });
    assert_eq!(b.engine.run(), End::Completed);
}

/// Runs `user` up to the command that would drop the translation in, then everybody else as far as
/// possible.
struct HoldDropIn;

impl HoldDropIn {
    fn is_drop_in(e: &Enabled) -> bool {
        e.actor == "user"
            && e.step.action == Action::Write
            && matches!(e.step.object, Object::Other(gru::STEP_OBJECT, _))
    }
}

impl Chooser for HoldDropIn {
    fn next(&mut self, enabled: &[Enabled]) -> usize {
        let first = |wanted: &dyn Fn(&Enabled) -> bool| enabled.iter().position(wanted);
        first(&|e| e.actor == "user" && !Self::is_drop_in(e))
            .or_else(|| first(&|e| !Self::is_drop_in(e)))
            .unwrap_or(0)
    }

    fn draw(&mut self, _: Stream, _: u64) -> u64 {
        0
    }
}

/// A GRU user shares its CPU with a busy program and is preempted for long after `slice`; its file is
/// truncated meanwhile.
fn preempted(dropin_cancel: DropinCancel, slice: Cycles) -> (Bench, End) {
    let b = Setup {
        miss: MissMode::UserPolling,
        dropin_cancel,
        ..Setup::v8()
    }
    .preemptible(slice);
    let file = b.kernel.new_file("heap", 1);
    let ready = b.engine.wait_queue("ready");
    let mm = b.mm;
    b.thread("user", 1, Some(mm), move |cx, _, gru| async move {
        cx.wait_on(ready).await;
        let _refused_if_late = gru.access(&cx, 0, BASE, Access::Read).await;
        let _refused_if_late = gru.access(&cx, 0, BASE, Access::Read).await;
    });
    b.thread("busy", 1, None, move |cx, _, _| async move {
        cx.wait_on(ready).await;
        cx.charge(mm::account::USER, SLOW);
        cx.step(Object::None, Action::Run).await;
    });
    b.thread("truncate", 2, None, move |cx, k, _| async move {
        cx.wait_on(ready).await;
        cx.sleep(LONGEST_SLICE).await;
        k.do_truncate(&cx, file, 0).await;
    });
    b.thread("main", 0, Some(mm), move |cx, k, gru| async move {
        k.mmu_notifier_register(&cx, mm, gru.clone()).await;
        k.sys_mmap(&cx, mm, shared_file(1, file)).await.expect("free");
        k.access(&cx, mm, BASE, Access::Write).await.expect("mapped");
        // Else the page would wait for this CPU's pagevec to let go of it.
        k.lru_add_drain_all(&cx).await;
        gru.load_context(&cx, 0).await;
        cx.sleep(SLOW).await;
        cx.engine().wake_all(ready);
    });
    let end = b.engine.run();
    (b, end)
}

const SLICE_STEP: u64 = 100;
/// Longer than the user's miss takes undisturbed.
const LONGEST_SLICE: Cycles = Cycles::new(15_000);

/// Slices that end anywhere in the user's miss.
fn slices() -> impl Iterator<Item = Cycles> {
    (SLICE_STEP..LONGEST_SLICE.get())
        .step_by(SLICE_STEP as usize)
        .map(Cycles::new)
}

#[test]
fn a_drop_in_that_a_purge_crossed_is_ignored() {
    let mut ignored = 0;
    for slice in slices() {
        let (b, end) = preempted(DropinCancel::On, slice);
        assert_eq!(end, End::Completed, "{slice:?}");
        assert_eq!(b.audit(), Vec::<String>::new(), "{slice:?}");
        ignored += b.gru.metrics().dropin_ignored;
    }
    assert!(
        ignored > 0,
        "no slice ended between the look at the entry and the drop-in"
    );
}

#[test]
fn without_the_hardware_rule_the_same_schedules_reach_a_freed_page() {
    let mut found = 0;
    for slice in slices() {
        let (on, _) = preempted(DropinCancel::On, slice);
        let (_, end) = preempted(DropinCancel::Off, slice);
        let crossed = on.gru.metrics().dropin_ignored > 0;
        match end {
            End::Completed => assert!(!crossed, "{slice:?}"),
            End::Violation(v) => {
                let kinds = [STALE_USE, FREE_WHILE_MAPPED].map(ViolationKind::Model);
                assert!(crossed && kinds.contains(&v.kind), "{slice:?}: {}", v.summary);
                found += 1;
            }
            other => panic!("{slice:?}: {other:?}"),
        }
    }
    assert!(found > 0);
}

/// A file page is truncated between the look at its entry and the drop-in.
fn crossing(miss: MissMode, dropin_cancel: DropinCancel) -> (Bench, End) {
    let b = Setup {
        miss,
        dropin_cancel,
        ..Setup::v8()
    }
    .explored(HoldDropIn);
    let file = b.kernel.new_file("heap", 1);
    let ready = b.engine.wait_queue("ready");
    let started = Rc::new(Cell::new(false));
    let told = Rc::clone(&started);
    b.thread("user", 1, Some(b.mm), move |cx, k, gru| async move {
        k.mmu_notifier_register(&cx, gru.mm(), gru.clone()).await;
        k.sys_mmap(&cx, gru.mm(), shared_file(1, file))
            .await
            .expect("free");
        k.access(&cx, gru.mm(), BASE, Access::Write)
            .await
            .expect("mapped");
        k.lru_add_drain_all(&cx).await;
        gru.load_context(&cx, 0).await;
        started.set(true);
        cx.engine().wake_all(ready);
        // Beyond the end of the file by then, unless the stale entry is used.
        let _refused = gru.access(&cx, 0, BASE, Access::Read).await;
    });
    b.thread("truncate", 0, None, move |cx, k, _| async move {
        while !told.get() {
            cx.wait_on(ready).await;
        }
        k.do_truncate(&cx, file, 0).await;
    });
    let end = b.engine.run();
    (b, end)
}

#[test]
fn the_drop_in_is_ignored_in_the_one_schedule_that_matters() {
    for miss in [MissMode::Interrupt, MissMode::UserPolling] {
        let (b, end) = crossing(miss, DropinCancel::On);
        assert_eq!(end, End::Completed, "{miss:?}");
        let m = b.gru.metrics();
        assert_eq!((m.dropin, m.dropin_ignored, m.refused), (1, 1, 1), "{miss:?}");
        assert_eq!(b.audit(), Vec::<String>::new());
    }
}

#[test]
fn without_the_hardware_rule_that_schedule_uses_a_freed_page() {
    let (_, end) = crossing(MissMode::UserPolling, DropinCancel::Off);
    let End::Violation(v) = end else {
        panic!("{end:?}");
    };
    assert_eq!(v.kind, ViolationKind::Model(STALE_USE), "{}", v.summary);

    // In the interrupt handler the host's shootdown waits for this CPU, so that the page is still
    // there at the drop-in, and is freed under it.
    let (_, end) = crossing(MissMode::Interrupt, DropinCancel::Off);
    let End::Violation(v) = end else {
        panic!("{end:?}");
    };
    assert_eq!(v.kind, ViolationKind::Model(FREE_WHILE_MAPPED), "{}", v.summary);
}

async fn user(cx: &Cx, gru: &Gru, chiplet: u32) {
    for round in 0..6 {
        let access = if round % 2 == 0 {
            Access::Read
        } else {
            Access::Write
        };
        // Beyond the end of the file or of the mapping by then: also fine.
        let _refused = gru.access(cx, chiplet, BASE.add_pages(round % 3), access).await;
        if round == 3 {
            gru.unload_context(cx, chiplet).await;
        }
    }
}

/// Two GRU users against truncate, madvise, fork and munmap, in a random order.
fn random_order(design: Design, miss: MissMode, seed: u64) -> (Bench, End) {
    let b = Setup {
        design,
        miss,
        dropin_cancel: DropinCancel::On,
        chiplets: 2,
    }
    .explored(RandomWalk::new(seed));
    let file = b.kernel.new_file("heap", 3);
    let started = Rc::new(Cell::new(false));
    let mm = b.mm;
    let told = [(); 3].map(|()| Rc::clone(&started));
    let [t0, t1, t2] = told;
    b.thread("main", 0, Some(mm), move |cx, k, gru| async move {
        k.mmu_notifier_register(&cx, mm, gru.clone()).await;
        k.sys_mmap(&cx, mm, shared_file(3, file)).await.expect("free");
        k.access(&cx, mm, BASE, Access::Write).await.expect("mapped");
        started.set(true);
        k.madvise_dontneed(&cx, mm, range(2)).await.expect("mapped");
        let child = k.sys_fork(&cx, mm, "child".into()).await;
        k.mmput(&cx, child).await;
        k.sys_munmap(&cx, mm, range(1)).await.expect("mapped");
    });
    for (n, told) in [t0, t1].into_iter().enumerate() {
        let n = n as u32;
        b.thread("user", 1 + n, Some(mm), move |cx, _, gru| async move {
            while !told.get() {
                cx.step(Object::None, Action::Run).await;
            }
            user(&cx, &gru, n).await;
        });
    }
    b.thread("truncate", 3, None, move |cx, k, _| async move {
        while !t2.get() {
            cx.step(Object::None, Action::Run).await;
        }
        k.do_truncate(&cx, file, 1).await;
    });
    let end = b.engine.run();
    (b, end)
}

#[test]
fn no_order_of_steps_breaks_the_protocol() {
    for design in [Design::V1, Design::V8] {
        for miss in [MissMode::Interrupt, MissMode::UserPolling] {
            for seed in 0..150 {
                let (b, end) = random_order(design.clone(), miss, seed);
                assert_eq!(end, End::Completed, "{} {miss:?} seed {seed}", design.id);
                assert_eq!(
                    b.audit(),
                    Vec::<String>::new(),
                    "{} {miss:?} seed {seed}",
                    design.id
                );
            }
        }
    }
}
