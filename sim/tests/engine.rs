//! Behaviour of the executor, the scheduler, locks and waiting.

mod common;

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use common::{WORK, class, engine, on, work};
use sim::{
    Account, Action, Affinity, ClassDef, CpuId, Cycles, End, Engine, EngineConfig, Irqs, KernelPreemption,
    LockKind, Mailbox, Nesting, Object, RandomWalk, ReaderKind, Schedule, Seeded, TaskSpec, ViolationKind,
};

#[test]
fn tasks_on_different_cpus_overlap_and_their_steps_happen_in_time_order() {
    let e = engine(2);
    let order = Rc::new(RefCell::new(Vec::new()));
    for (cpu, pace) in [(0, 10), (1, 15)] {
        let order = Rc::clone(&order);
        e.spawn(on(cpu, "t"), move |cx| async move {
            for _ in 0..3 {
                work(&cx, pace).await;
                order.borrow_mut().push((cx.now().get(), cpu));
            }
        });
    }
    assert_eq!(e.run(), End::Completed);
    assert_eq!(
        *order.borrow(),
        [(10, 0), (15, 1), (20, 0), (30, 1), (30, 0), (45, 1)]
    );
    assert_eq!(e.now(), Cycles::new(45));
}

#[test]
fn every_cycle_of_every_task_is_booked_exactly_once() {
    let e = engine(2);
    let spin = e.new_lock(e.lock_class(class("s", LockKind::Spin)));
    let sem = e.new_lock(e.lock_class(class("m", LockKind::RwSem)));
    for (cpu, pace) in [(0, 7), (1, 11), (0, 13)] {
        e.spawn(on(cpu, "t"), move |cx| async move {
            for _ in 0..20 {
                let outer = cx.lock(sem).await;
                let inner = cx.lock(spin).await;
                work(&cx, pace).await;
                drop(inner);
                drop(outer);
                cx.sleep(Cycles::new(5)).await;
            }
        });
    }
    assert_eq!(e.run(), End::Completed);
    assert_eq!(e.accounts().into_iter().sum::<Cycles>(), e.task_time());
    assert!(e.accounts()[Account::LOCK_WAIT.index()] > Cycles::ZERO);
}

#[test]
fn a_spinlock_is_handed_over_in_order_of_arrival() {
    let e = engine(3);
    let lock = e.new_lock(e.lock_class(class("l", LockKind::Spin)));
    let order = Rc::new(RefCell::new(Vec::new()));
    for cpu in [2u16, 1, 0] {
        let order = Rc::clone(&order);
        e.spawn(on(cpu, "t"), move |cx| async move {
            work(&cx, u64::from(cpu)).await;
            let guard = cx.lock(lock).await;
            order.borrow_mut().push((cx.now().get(), cpu));
            work(&cx, 10).await;
            drop(guard);
        });
    }
    assert_eq!(e.run(), End::Completed);
    assert_eq!(*order.borrow(), [(0, 0), (10, 1), (20, 2)]);
    let stat = &e.lock_stat()[0].exclusive;
    assert_eq!((stat.acquisitions, stat.contentions), (3, 2));
    assert_eq!((stat.wait.min(), stat.wait.max(), stat.wait.total()), (9, 18, 27));
    assert_eq!((stat.hold.min(), stat.hold.max()), (10, 10));
}

#[test]
fn readers_of_a_semaphore_share_it_but_queue_behind_a_writer() {
    let e = engine(4);
    let sem = e.new_lock(e.lock_class(class("sem", LockKind::RwSem)));
    let order = Rc::new(RefCell::new(Vec::new()));
    for (cpu, write, at) in [(0u16, false, 0u64), (1, false, 1), (2, true, 2), (3, false, 3)] {
        let order = Rc::clone(&order);
        e.spawn(on(cpu, "t"), move |cx| async move {
            work(&cx, at).await;
            let guard = if write {
                cx.lock(sem).await
            } else {
                cx.lock_shared(sem).await
            };
            order.borrow_mut().push((cx.now().get(), cpu));
            work(&cx, 10).await;
            drop(guard);
        });
    }
    assert_eq!(e.run(), End::Completed);
    assert_eq!(*order.borrow(), [(0, 0), (1, 1), (11, 2), (21, 3)]);
}

#[test]
fn a_writer_that_becomes_a_reader_is_joined_by_readers_at_the_head_but_by_no_writer() {
    for (arrivals, expected) in [
        // Two readers came first, then a writer, then a reader that must wait behind it.
        (
            [(1u16, false), (2, false), (3, true), (4, false)],
            [(10, 1), (10, 2), (30, 3), (40, 4)],
        ),
        // A writer came first: nobody gets in.
        (
            [(1, true), (2, false), (3, false), (4, true)],
            [(30, 1), (40, 2), (40, 3), (50, 4)],
        ),
    ] {
        let e = engine(5);
        let sem = e.new_lock(e.lock_class(class("sem", LockKind::RwSem)));
        let order = Rc::new(RefCell::new(Vec::new()));
        e.spawn(on(0, "downgrades"), move |cx| async move {
            let guard = cx.lock(sem).await;
            work(&cx, 10).await;
            let guard = guard.downgrade();
            work(&cx, 20).await;
            drop(guard);
        });
        for (cpu, write) in arrivals {
            let order = Rc::clone(&order);
            e.spawn(on(cpu, "t"), move |cx| async move {
                work(&cx, u64::from(cpu)).await;
                let guard = if write {
                    cx.lock(sem).await
                } else {
                    cx.lock_shared(sem).await
                };
                order.borrow_mut().push((cx.now().get(), cpu));
                work(&cx, 10).await;
                drop(guard);
            });
        }
        assert_eq!(e.run(), End::Completed);
        assert_eq!(*order.borrow(), expected);
        let stat = e.lock_stat().remove(0);
        let (write, read) = (&stat.exclusive.hold, &stat.shared.hold);
        assert_eq!(write.min(), 10, "as a writer it held the semaphore for 10");
        assert_eq!(read.max(), 20, "and as a reader for 20");
    }
}

#[test]
fn a_lock_downgraded_in_a_tasks_own_future_is_shared_from_then_on() {
    let e = engine(2);
    let sem = e.new_lock(e.lock_class(class("sem", LockKind::RwSem)));
    let got = Rc::new(Cell::new(0));
    e.spawn(on(0, "runs ahead"), move |cx| async move {
        let guard = cx.lock(sem).await;
        cx.charge(WORK, Cycles::new(50));
        let guard = guard.downgrade();
        cx.charge(WORK, Cycles::new(50));
        drop(guard);
    });
    let seen = Rc::clone(&got);
    e.spawn(on(1, "comes at 20"), move |cx| async move {
        work(&cx, 20).await;
        let _guard = cx.lock_shared(sem).await;
        seen.set(cx.now().get());
    });
    assert_eq!(e.run(), End::Completed);
    assert_eq!(got.get(), 50);
}

#[test]
#[should_panic(expected = "only the writer of a rwsem")]
fn a_reader_has_nothing_to_downgrade() {
    let e = engine(1);
    let sem = e.new_lock(e.lock_class(class("sem", LockKind::RwSem)));
    e.spawn(on(0, "reads"), move |cx| async move {
        let guard = cx.lock_shared(sem).await;
        drop(guard.downgrade());
    });
    e.run();
}

#[test]
fn a_lock_released_in_a_tasks_own_future_is_still_held_for_others() {
    let e = engine(2);
    let lock = e.new_lock(e.lock_class(class("l", LockKind::Spin)));
    let got = Rc::new(Cell::new(0));
    e.spawn(on(0, "runs ahead"), move |cx| async move {
        let guard = cx.lock(lock).await;
        cx.charge(WORK, Cycles::new(50));
        drop(guard);
    });
    let seen = Rc::clone(&got);
    e.spawn(on(1, "comes at 20"), move |cx| async move {
        work(&cx, 20).await;
        let _guard = cx.lock(lock).await;
        seen.set(cx.now().get());
    });
    assert_eq!(e.run(), End::Completed);
    assert_eq!(got.get(), 50);
}

#[test]
fn sleeping_with_a_spinlock_held_is_a_violation_that_names_the_lock() {
    let e = engine(1);
    let lock = e.new_lock(e.lock_class(class("i_mmap_lock", LockKind::Spin)));
    e.spawn(on(0, "t"), move |cx| async move {
        let _span = cx.span("vmtruncate");
        let _guard = cx.lock(lock).await;
        cx.sleep(Cycles::new(5)).await;
    });
    let End::Violation(v) = e.run() else {
        panic!("must not complete")
    };
    assert_eq!(v.kind, ViolationKind::SleepInAtomic);
    assert_eq!(v.stack, ["vmtruncate"]);
    assert!(
        v.held[0].starts_with("i_mmap_lock (spinlock) since vmtruncate"),
        "{:?}",
        v.held
    );
}

#[test]
fn rcu_readers_may_not_sleep_but_srcu_readers_may() {
    for (kind, fine) in [(ReaderKind::Rcu, false), (ReaderKind::Srcu, true)] {
        let e = engine(1);
        let domain = e.domain(kind, Cycles::new(1));
        e.spawn(on(0, "t"), move |cx| async move {
            let _reader = cx.read_lock(domain);
            cx.sleep(Cycles::new(5)).await;
        });
        assert_eq!(e.run() == End::Completed, fine, "{kind:?}");
    }
}

#[test]
fn a_grace_period_ends_after_the_readers_that_were_inside() {
    let e = engine(2);
    let domain = e.domain(ReaderKind::Srcu, Cycles::new(3));
    let ended = Rc::new(Cell::new(0));
    e.spawn(on(0, "reader"), move |cx| async move {
        let _reader = cx.read_lock(domain);
        cx.sleep(Cycles::new(100)).await;
    });
    let seen = Rc::clone(&ended);
    e.spawn(on(1, "updater"), move |cx| async move {
        work(&cx, 10).await;
        cx.synchronize(domain).await;
        seen.set(cx.now().get());
    });
    assert_eq!(e.run(), End::Completed);
    assert_eq!(ended.get(), 103);
}

#[test]
fn two_classes_in_both_orders_are_an_inversion_with_both_stacks() {
    let e = engine(1);
    let a = e.new_lock(e.lock_class(class("a", LockKind::Spin)));
    let b = e.new_lock(e.lock_class(class("b", LockKind::Spin)));
    for (name, outer, inner) in [("first", a, b), ("second", b, a)] {
        e.spawn(on(0, name), move |cx| async move {
            let _span = cx.span(name);
            let _outer = cx.lock(outer).await;
            let _inner = cx.lock(inner).await;
        });
    }
    let End::Violation(v) = e.run() else {
        panic!("must be found without a deadlock happening")
    };
    assert_eq!(v.kind, ViolationKind::LockOrder);
    assert_eq!(
        v.summary,
        "a is taken inside b here, but b inside a in first [first]"
    );
}

#[test]
fn a_deadlock_comes_with_the_wait_for_graph() {
    let e = engine(2);
    let def = |name| ClassDef {
        name,
        kind: LockKind::Mutex,
        nesting: Nesting::ByCaller,
        rank: None,
        irqs: Irqs::Either,
    };
    let class = e.lock_class(def("mmap_sem"));
    let (a, b) = (e.new_lock(class), e.new_lock(class));
    for (cpu, name, outer, inner) in [(0, "one", a, b), (1, "two", b, a)] {
        e.spawn(on(cpu, name), move |cx| async move {
            let _outer = cx.lock(outer).await;
            work(&cx, 10).await;
            let _inner = cx.lock(inner).await;
        });
    }
    let End::Deadlock(blocked) = e.run() else {
        panic!("must deadlock")
    };
    let lines: Vec<String> = blocked.iter().map(ToString::to_string).collect();
    assert_eq!(
        lines,
        [
            "one waits for mmap_sem, held by two",
            "two waits for mmap_sem, held by one"
        ]
    );
}

#[test]
fn a_cpu_is_shared_by_time_slices_at_cond_resched() {
    let mut config = EngineConfig::without_costs(1);
    config.time_slice = Cycles::new(25);
    let e = Engine::new(config, Schedule::Timed(Box::new(Seeded::new(1))));
    let order = Rc::new(RefCell::new(String::new()));
    for name in ["a", "b"] {
        let order = Rc::clone(&order);
        e.spawn(on(0, name), move |cx| async move {
            for _ in 0..6 {
                cx.charge(WORK, Cycles::new(10));
                order.borrow_mut().push_str(name);
                cx.cond_resched().await;
            }
        });
    }
    assert_eq!(e.run(), End::Completed);
    assert_eq!(*order.borrow(), "aaabbbaaabbb");
}

#[test]
fn a_preemptible_kernel_gives_way_inside_a_path_but_not_under_a_spinlock() {
    for (preemption, expected) in [
        (KernelPreemption::Full, "aab"),
        (KernelPreemption::Voluntary, "aaa"),
    ] {
        let mut config = EngineConfig::without_costs(1);
        config.time_slice = Cycles::new(5);
        config.preemption = preemption;
        let e = Engine::new(config, Schedule::Timed(Box::new(Seeded::new(1))));
        let lock = e.new_lock(e.lock_class(class("l", LockKind::Spin)));
        let order = Rc::new(RefCell::new(String::new()));
        for name in ["a", "b"] {
            let order = Rc::clone(&order);
            e.spawn(on(0, name), move |cx| async move {
                let guard = cx.lock(lock).await;
                for _ in 0..2 {
                    order.borrow_mut().push_str(name);
                    work(&cx, 10).await;
                }
                drop(guard);
                work(&cx, 10).await;
                order.borrow_mut().push_str(name);
            });
        }
        assert_eq!(e.run(), End::Completed);
        assert_eq!(&order.borrow()[..3], expected);
    }
}

#[test]
fn messages_arrive_after_their_latency_in_order_of_arrival() {
    let e = engine(2);
    let mailbox = Mailbox::new(&e, "messages");
    let got = Rc::new(RefCell::new(Vec::new()));
    let (to, log) = (Rc::clone(&mailbox), Rc::clone(&got));
    e.spawn(on(0, "sender"), move |cx| async move {
        to.send(&cx, "slow", Cycles::new(50));
        to.send(&cx, "fast", Cycles::new(10));
    });
    e.spawn(on(1, "receiver"), move |cx| async move {
        for _ in 0..2 {
            let message = mailbox.receive(&cx).await;
            log.borrow_mut().push((message, cx.now().get()));
        }
    });
    assert_eq!(e.run(), End::Completed);
    assert_eq!(*got.borrow(), [("fast", 10), ("slow", 50)]);
}

#[test]
fn a_woken_task_moves_to_an_idle_cpu_only_if_it_may() {
    for (affinity, expected) in [
        (Affinity::Pinned, 0),
        (
            Affinity::Any {
                first: CpuId::new(0),
                count: 2,
            },
            1,
        ),
    ] {
        let e = engine(2);
        let cpu = Rc::new(Cell::new(99));
        e.spawn(on(0, "hog"), |cx| async move {
            for _ in 0..10 {
                work(&cx, 10).await;
            }
        });
        let seen = Rc::clone(&cpu);
        e.spawn(
            TaskSpec {
                affinity,
                ..on(0, "t")
            },
            move |cx| async move { seen.set(cx.cpu().index()) },
        );
        assert_eq!(e.run(), End::Completed);
        assert_eq!(cpu.get(), expected);
    }
}

#[test]
fn a_budget_ends_a_run_that_never_would() {
    let mut config = EngineConfig::without_costs(1);
    config.max_events = 100;
    let e = Engine::new(config, Schedule::Timed(Box::new(Seeded::new(1))));
    e.spawn(on(0, "for ever"), |cx| async move {
        loop {
            cx.sleep(Cycles::new(1)).await;
        }
    });
    assert!(matches!(e.run(), End::Budget { events: 100, .. }));
}

#[test]
fn exploration_reaches_both_orders_of_two_conflicting_steps() {
    let outcome = |seed| {
        let e = Engine::new(
            EngineConfig::without_costs(2),
            Schedule::Explored(Box::new(RandomWalk::new(seed))),
        );
        let last = Rc::new(Cell::new(9));
        for cpu in 0..2 {
            let last = Rc::clone(&last);
            e.spawn(on(cpu, "t"), move |cx| async move {
                cx.step(Object::Other(0, 0), Action::Write).await;
                last.set(cpu);
            });
        }
        assert_eq!(e.run(), End::Completed);
        last.get()
    };
    let seen: std::collections::BTreeSet<u16> = (0..32).map(outcome).collect();
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), [0, 1]);
}

#[test]
fn a_stop_before_a_task_falls_asleep_in_its_own_future_leaves_nothing_unaccounted() {
    let e = engine(2);
    let mailbox = Mailbox::<u32>::new(&e, "messages");
    let m = Rc::clone(&mailbox);
    e.spawn(on(0, "ahead"), move |cx| async move {
        cx.charge(WORK, Cycles::new(1000));
        m.receive(&cx).await;
    });
    let engine = Rc::clone(&e);
    e.spawn(on(1, "finds"), move |cx| async move {
        work(&cx, 10).await;
        engine.violate("found", "something is wrong".into(), None);
        work(&cx, 1).await;
    });
    assert!(matches!(e.run(), End::Violation(_)));
    assert_eq!(e.accounts().into_iter().sum::<Cycles>(), e.task_time());
}
