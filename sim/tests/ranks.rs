//! Declared lock order, and what each check of the context tracker says of both places.

use std::rc::Rc;

use sim::{
    Affinity, ClassDef, CpuId, CpuSet, Cx, Cycles, End, Engine, EngineConfig, Guard, Interrupt, Irqs,
    KernelPreemption, LockId, LockKind, Mode, Nesting, Rank, Role, Schedule, Seeded, TaskSpec, Violation,
    ViolationKind,
};

fn engine() -> Rc<Engine> {
    let mut config = EngineConfig::without_costs(2);
    config.preempt_limit = 255;
    config.preemption = KernelPreemption::Full;
    Engine::new(config, Schedule::Timed(Box::new(Seeded::new(1))))
}

fn worker() -> TaskSpec {
    TaskSpec {
        name: "worker".into(),
        cpu: CpuId::new(0),
        affinity: Affinity::Pinned,
        role: Role::Worker,
    }
}

fn lock(e: &Engine, name: &'static str, rank: Option<u8>, nesting: Nesting) -> LockId {
    e.new_lock(e.lock_class(ClassDef {
        name,
        kind: LockKind::Spin,
        nesting,
        rank: rank.map(Rank::new),
        irqs: Irqs::Either,
    }))
}

fn ranked(e: &Engine, name: &'static str, rank: u8) -> LockId {
    lock(e, name, Some(rank), Nesting::Forbidden)
}

fn violation(end: End) -> Violation {
    match end {
        End::Violation(v) => *v,
        other => panic!("must be found: {other:?}"),
    }
}

/// Takes one lock inside another, each in a function of its own.
fn nest(e: &Rc<Engine>, outer: LockId, inner: LockId) -> End {
    e.spawn(worker(), move |cx| async move {
        let _span = cx.span("outer_function");
        let _outer = cx.lock(outer).await;
        let _span = cx.span("inner_function");
        let _inner = cx.lock(inner).await;
    });
    e.run()
}

#[test]
fn a_wrong_order_is_found_the_first_time_with_both_places() {
    let e = engine();
    let (ptl, i_mmap) = (ranked(&e, "ptl", 50), ranked(&e, "i_mmap_lock", 40));
    let v = violation(nest(&e, ptl, i_mmap));
    assert_eq!(v.kind, ViolationKind::LockRank);
    assert_eq!(
        v.summary,
        "i_mmap_lock (rank 40) is taken in worker [outer_function > inner_function] inside ptl (rank 50), \
         which worker took in [outer_function] at 0 cy"
    );
}

#[test]
fn the_right_order_and_classes_without_a_rank_are_fine() {
    let e = engine();
    let (i_mmap, ptl) = (ranked(&e, "i_mmap_lock", 40), ranked(&e, "ptl", 50));
    assert_eq!(nest(&e, i_mmap, ptl), End::Completed);
    for driver_is_inside in [false, true] {
        let e = engine();
        let ptl = ranked(&e, "ptl", 50);
        let driver = lock(&e, "driver", None, Nesting::Forbidden);
        let (outer, inner) = if driver_is_inside {
            (ptl, driver)
        } else {
            (driver, ptl)
        };
        assert_eq!(nest(&e, outer, inner), End::Completed);
    }
}

#[test]
fn two_classes_of_one_rank_do_not_nest() {
    let e = engine();
    let (a, b) = (ranked(&e, "page_table_lock", 50), ranked(&e, "ptl", 50));
    assert_eq!(violation(nest(&e, a, b)).kind, ViolationKind::LockRank);
}

#[test]
fn locks_of_one_class_nest_where_the_caller_orders_them() {
    let pair = |nesting| {
        let e = engine();
        let (a, b) = (
            lock(&e, "ptl", Some(50), nesting),
            lock(&e, "ptl", Some(50), nesting),
        );
        nest(&e, a, b)
    };
    assert_eq!(pair(Nesting::ByCaller), End::Completed);
    let v = violation(pair(Nesting::Forbidden));
    assert_eq!(v.kind, ViolationKind::RecursiveLock);
}

#[test]
fn a_lock_that_is_only_tried_closes_no_circle_but_counts_as_held() {
    let e = engine();
    let (ptl, i_mmap) = (ranked(&e, "ptl", 50), ranked(&e, "i_mmap_lock", 40));
    e.spawn(worker(), move |cx| async move {
        let _ptl = cx.lock(ptl).await;
        assert!(cx.try_lock(i_mmap).await.is_some());
    });
    assert_eq!(e.run(), End::Completed);

    let e = engine();
    let (ptl, i_mmap) = (ranked(&e, "ptl", 50), ranked(&e, "i_mmap_lock", 40));
    e.spawn(worker(), move |cx| async move {
        let _ptl = cx.try_lock(ptl).await.expect("it is free");
        let _i_mmap = cx.lock(i_mmap).await;
    });
    assert_eq!(violation(e.run()).kind, ViolationKind::LockRank);
}

/// A function that takes a lock for its caller, as `lock_rmap` does.
async fn take_for_caller(cx: &Cx, lock: LockId) -> Guard<'_> {
    let _span = cx.span("take_for_caller");
    let _span = cx.span("deep_inside");
    cx.lock(lock).await
}

#[test]
fn the_place_is_exact_after_the_function_that_took_the_lock_has_returned() {
    let e = engine();
    let (a, b, c) = (ranked(&e, "a", 1), ranked(&e, "b", 2), ranked(&e, "c", 1));
    e.spawn(worker(), move |cx| async move {
        let _span = cx.span("path");
        let first = take_for_caller(&cx, a).await;
        drop(first);
        let _a = cx.lock(a).await;
        let _b = take_for_caller(&cx, b).await;
        let _span = cx.span("elsewhere");
        let _c = cx.lock(c).await;
    });
    assert!(matches!(e.run(), End::Violation(_)));
    let found: Vec<_> = e.violations().into_iter().map(|v| v.summary).collect();
    let expected = [
        "inside a (rank 1), which worker took in [path]",
        "inside b (rank 2), which worker took in [path > take_for_caller > deep_inside]",
    ];
    assert_eq!(found.len(), expected.len(), "{found:?}");
    for (summary, expected) in found.iter().zip(expected) {
        assert!(summary.contains(expected), "{summary}");
    }
}

#[test]
fn a_task_can_be_asked_what_it_holds() {
    let e = engine();
    let (a, b) = (ranked(&e, "a", 1), ranked(&e, "b", 2));
    e.spawn(worker(), move |cx| async move {
        let _a = cx.lock(a).await;
        let inner = cx.lock(b).await;
        assert_eq!(cx.holds(a), Some(Mode::Exclusive));
        assert_eq!(cx.holds(b), Some(Mode::Exclusive));
        drop(inner);
        assert_eq!(cx.holds(b), None);
    });
    assert_eq!(e.run(), End::Completed);
}

#[test]
fn sleeping_with_a_spinlock_names_the_sleep_and_where_the_lock_was_taken() {
    let e = engine();
    let spin = ranked(&e, "i_mmap_lock", 40);
    e.spawn(worker(), move |cx| async move {
        let _span = cx.span("unmap_mapping_range");
        let _spin = cx.lock(spin).await;
        let _span = cx.span("wait_event");
        cx.sleep(Cycles::new(1)).await;
    });
    let v = violation(e.run());
    assert_eq!(v.kind, ViolationKind::SleepInAtomic);
    assert_eq!(v.stack, ["unmap_mapping_range", "wait_event"]);
    assert_eq!(
        v.held,
        ["i_mmap_lock (spinlock) since unmap_mapping_range at 0 cy"]
    );
}

#[test]
fn the_256th_spinlock_overflows_a_counter_of_eight_bits_and_all_its_holders_are_named() {
    let nested = |locks: usize| {
        let e = engine();
        let class = e.lock_class(ClassDef {
            name: "i_mmap_lock",
            kind: LockKind::Spin,
            nesting: Nesting::ByCaller,
            rank: Some(Rank::new(40)),
            irqs: Irqs::Either,
        });
        let locks: Vec<LockId> = (0..locks).map(|_| e.new_lock(class)).collect();
        e.spawn(worker(), move |cx| async move {
            let _span = cx.span("mm_take_all_locks");
            let mut held = Vec::new();
            for lock in locks {
                held.push(cx.lock(lock).await);
            }
        });
        e.run()
    };
    assert_eq!(nested(255), End::Completed);
    let v = violation(nested(256));
    assert_eq!(v.kind, ViolationKind::PreemptOverflow);
    assert_eq!(v.held.len(), 256);
    assert!(
        v.held.iter().all(|h| h.contains("since mm_take_all_locks")),
        "{:?}",
        v.held
    );
}

#[test]
fn interrupting_the_others_with_preemption_on_is_a_violation() {
    const VECTOR: Interrupt = Interrupt {
        vector: 1,
        a: 0,
        b: 0,
    };
    let send = |off: bool| {
        let e = engine();
        e.spawn(worker(), move |cx| async move {
            let _off = off.then(|| cx.preempt_disable());
            cx.interrupt_and_wait(CpuSet::only(CpuId::new(1)), VECTOR).await;
        });
        e.run()
    };
    assert_eq!(send(true), End::Completed);
    assert_eq!(violation(send(false)).kind, ViolationKind::IpiWhilePreemptible);
}

#[test]
fn a_task_that_ends_with_a_lock_is_found() {
    let e = engine();
    let lock = ranked(&e, "i_mmap_lock", 40);
    e.spawn(worker(), move |cx| async move {
        std::mem::forget(cx.lock(lock).await);
    });
    assert_eq!(violation(e.run()).kind, ViolationKind::EndedHolding);
}

#[test]
fn every_kind_has_a_name_of_its_own_and_a_rule() {
    let mut names: Vec<_> = ViolationKind::ALL.iter().map(|k| k.id()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), ViolationKind::ALL.len());
    for kind in ViolationKind::ALL {
        let (rule, when) = kind.rule();
        assert!(!rule.is_empty() && !when.is_empty(), "{}", kind.id());
    }
}

#[test]
fn locks_of_a_class_nest_in_order_or_inside_the_lock_that_excludes_other_takers() {
    let take = |excludes: bool, ascending: bool| {
        let e = engine();
        let all = ranked(&e, "mm_all_locks_mutex", 25);
        let i_mmap = || {
            lock(
                &e,
                "i_mmap_lock",
                Some(40),
                Nesting::AscendingOrInside("mm_all_locks_mutex"),
            )
        };
        let (low, high) = (i_mmap(), i_mmap());
        let (nested, second) = if ascending { (low, high) } else { (high, low) };
        e.spawn(worker(), move |cx| async move {
            let _all = if excludes { Some(cx.lock(all).await) } else { None };
            let _first = cx.lock(nested).await;
            let _second = cx.lock(second).await;
        });
        e.run()
    };
    assert_eq!(take(true, false), End::Completed);
    assert_eq!(take(false, true), End::Completed);
    assert_eq!(violation(take(false, false)).kind, ViolationKind::RecursiveLock);
}

#[test]
fn a_lock_that_interrupt_handlers_take_is_not_taken_with_interrupts_on() {
    let take = |off: bool| {
        let e = engine();
        let lru_lock = e.new_lock(e.lock_class(ClassDef {
            name: "lru_lock",
            kind: LockKind::Spin,
            nesting: Nesting::Forbidden,
            rank: Some(Rank::new(60)),
            irqs: Irqs::Off,
        }));
        e.spawn(worker(), move |cx| async move {
            let _irqs = off.then(|| cx.irq_disable());
            let _lru = cx.lock(lru_lock).await;
        });
        e.run()
    };
    assert_eq!(take(true), End::Completed);
    let v = violation(take(false));
    assert_eq!(v.kind, ViolationKind::LockWithIrqsOn);
    assert!(
        v.summary.starts_with("lru_lock is held with interrupts on"),
        "{}",
        v.summary
    );
}
