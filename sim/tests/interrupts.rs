//! Interrupts: who is interrupted when, what a handler steals, and whom it keeps waiting.

mod common;

use std::cell::RefCell;
use std::rc::Rc;

use common::{WORK, class, engine, on, work};
use sim::{
    Account, Action, CpuId, CpuSet, Cycles, End, Engine, EngineConfig, Handled, Interrupt, LockKind, Object,
    Platform, Schedule, TaskId, ViolationKind,
};

struct FlushHandler(RefCell<Vec<(u64, usize)>>);

impl Platform for FlushHandler {
    fn switch(&self, _: &Engine, _: CpuId, _: Option<TaskId>, _: Option<TaskId>) -> Cycles {
        Cycles::ZERO
    }

    fn interrupt(&self, engine: &Engine, cpu: CpuId, _: Interrupt) -> Handled {
        self.0.borrow_mut().push((engine.now().get(), cpu.index()));
        Handled {
            until_ack: Cycles::new(20),
            after_ack: Cycles::new(5),
        }
    }
}

const FLUSH: Interrupt = Interrupt {
    vector: 0xf0,
    a: 0,
    b: 0,
};

#[test]
fn an_interrupt_steals_time_and_its_sender_waits_for_the_last_acknowledgement() {
    let e = engine(3);
    let handler = Rc::new(FlushHandler(RefCell::default()));
    e.set_platform(handler.clone());
    let ends = Rc::new(RefCell::new(Vec::new()));
    let log = Rc::clone(&ends);
    e.spawn(on(0, "sender"), move |cx| async move {
        let mut targets = CpuSet::only(CpuId::new(1));
        targets.insert(CpuId::new(2));
        let _off = cx.preempt_disable();
        cx.interrupt_and_wait(targets, FLUSH).await;
        log.borrow_mut().push(("sender", cx.now().get()));
    });
    let log = Rc::clone(&ends);
    e.spawn(on(1, "busy"), move |cx| async move {
        work(&cx, 200).await;
        log.borrow_mut().push(("busy", cx.now().get()));
    });
    assert_eq!(e.run(), End::Completed);
    assert_eq!(*handler.0.borrow(), [(100, 1), (100, 2)]);
    assert_eq!(*ends.borrow(), [("sender", 120), ("busy", 225)]);
    assert_eq!(e.ipi_matrix()[0], [0, 1, 1]);
    assert_eq!(e.accounts()[Account::INTERRUPT.index()], Cycles::new(25));
}

#[test]
fn an_interrupt_waits_until_its_target_enables_interrupts() {
    for runs_ahead in [true, false] {
        let e = engine(2);
        let handler = Rc::new(FlushHandler(RefCell::default()));
        e.set_platform(handler.clone());
        e.spawn(on(1, "irqs off"), move |cx| async move {
            let guard = cx.irq_disable();
            cx.charge(WORK, Cycles::new(300));
            if !runs_ahead {
                cx.step(Object::None, Action::Run).await;
            }
            drop(guard);
            work(&cx, 1000).await;
        });
        e.spawn(on(0, "sender"), |cx| async move {
            let _off = cx.preempt_disable();
            cx.interrupt_and_wait(CpuSet::only(CpuId::new(1)), FLUSH).await;
            assert_eq!(cx.now().get(), 320);
        });
        assert_eq!(e.run(), End::Completed);
        assert_eq!(*handler.0.borrow(), [(300, 1)]);
    }
}

#[test]
fn a_device_interrupts_when_it_said_it_would_and_nobody_waits_for_it() {
    let e = engine(1);
    let handler = Rc::new(FlushHandler(RefCell::default()));
    e.set_platform(handler.clone());
    let ends = Rc::new(RefCell::new(Vec::new()));
    let log = Rc::clone(&ends);
    e.spawn(on(0, "busy"), move |cx| async move {
        let asked = |at| cx.engine().interrupt_at(Cycles::new(at), cx.cpu(), FLUSH);
        asked(150);
        // The past cannot be asked for: that is at once.
        work(&cx, 50).await;
        asked(10);
        work(&cx, 250).await;
        log.borrow_mut().push(cx.now().get());
    });
    assert_eq!(e.run(), End::Completed);
    assert_eq!(*handler.0.borrow(), [(50, 0), (150, 0)]);
    assert_eq!(*ends.borrow(), [350], "two handlers of 25 cycles came in between");
    assert_eq!(e.ipi_matrix()[0], [0], "no CPU sent one");
}

#[test]
fn a_device_waits_until_its_target_enables_interrupts() {
    let e = engine(1);
    let handler = Rc::new(FlushHandler(RefCell::default()));
    e.set_platform(handler.clone());
    e.spawn(on(0, "irqs off"), |cx| async move {
        let off = cx.irq_disable();
        cx.engine().interrupt_at(Cycles::new(100), cx.cpu(), FLUSH);
        work(&cx, 300).await;
        drop(off);
        work(&cx, 1000).await;
    });
    assert_eq!(e.run(), End::Completed);
    assert_eq!(*handler.0.borrow(), [(300, 0)]);
}

#[test]
fn an_interrupt_comes_between_two_stretches_with_interrupts_disabled() {
    // Off in [0, 100), [150, 200) and [250, 400); the task looks up at 90 and at 390 only.
    for (asked, delivered) in [(60, 100), (120, 120), (160, 200), (260, 400)] {
        let e = engine(1);
        let handler = Rc::new(FlushHandler(RefCell::default()));
        e.set_platform(handler.clone());
        e.spawn(on(0, "off and on"), move |cx| async move {
            cx.engine().interrupt_at(Cycles::new(asked), cx.cpu(), FLUSH);
            let off = cx.irq_disable();
            work(&cx, 90).await;
            cx.charge(WORK, Cycles::new(10));
            drop(off);
            cx.charge(WORK, Cycles::new(50));
            let off = cx.irq_disable();
            cx.charge(WORK, Cycles::new(50));
            drop(off);
            cx.charge(WORK, Cycles::new(50));
            let off = cx.irq_disable();
            work(&cx, 140).await;
            cx.charge(WORK, Cycles::new(10));
            drop(off);
            work(&cx, 1000).await;
        });
        assert_eq!(e.run(), End::Completed);
        assert_eq!(*handler.0.borrow(), [(delivered, 0)], "asked for at {asked}");
    }
}

#[test]
fn when_a_device_interrupts_is_a_choice_in_explored_mode() {
    let before = |first: u64| {
        let e = Engine::new(
            EngineConfig::without_costs(1),
            Schedule::Explored(Box::new(sim::Replay::new([0, 0, first]))),
        );
        let handler = Rc::new(FlushHandler(RefCell::default()));
        e.set_platform(handler.clone());
        let seen = Rc::new(std::cell::Cell::new(usize::MAX));
        let log = Rc::clone(&seen);
        e.spawn(on(0, "t"), move |cx| async move {
            cx.engine().interrupt_at(Cycles::new(1_000_000), cx.cpu(), FLUSH);
            cx.step(Object::None, Action::Run).await;
            log.set(handler.0.borrow().len());
        });
        assert_eq!(e.run(), End::Completed);
        seen.get()
    };
    let seen: Vec<usize> = (0..2).map(before).collect();
    assert_eq!(
        seen.iter().sum::<usize>(),
        1,
        "before or after the step: {seen:?}"
    );
}

/// A handler that takes a lock for 30 cycles.
struct LockHandler {
    lock: sim::LockId,
    ends: RefCell<Vec<Option<u64>>>,
}

impl Platform for LockHandler {
    fn switch(&self, _: &Engine, _: CpuId, _: Option<TaskId>, _: Option<TaskId>) -> Cycles {
        Cycles::ZERO
    }

    fn interrupt(&self, engine: &Engine, cpu: CpuId, _: Interrupt) -> Handled {
        let end = engine.hold_in_interrupt(self.lock, cpu, engine.now(), Cycles::new(30));
        self.ends.borrow_mut().push(end.map(Cycles::get));
        Handled {
            until_ack: Cycles::ZERO,
            after_ack: Cycles::ZERO,
        }
    }
}

#[test]
fn a_handler_takes_its_turn_at_a_lock() {
    let e = engine(2);
    let lock = e.new_lock(e.lock_class(class("lru_lock", LockKind::Spin)));
    let handler = Rc::new(LockHandler {
        lock,
        ends: RefCell::default(),
    });
    e.set_platform(handler.clone());
    let got = Rc::new(std::cell::Cell::new(0));
    let log = Rc::clone(&got);
    e.spawn(on(0, "holder"), move |cx| async move {
        for at in [10, 60, 200] {
            cx.engine().interrupt_at(Cycles::new(at), CpuId::new(1), FLUSH);
        }
        // Runs ahead to 100 and lets go there.
        {
            let _held = cx.lock(lock).await;
            cx.charge(WORK, Cycles::new(5));
        }
        work(&cx, 20).await;
        {
            let _held = cx.lock(lock).await;
            cx.charge(WORK, Cycles::new(75));
        }
        // At 130 the handler has let go again.
        let held = cx.lock(lock).await;
        log.set(cx.now().get());
        work(&cx, 170).await;
        drop(held);
    });
    assert_eq!(e.run(), End::Completed);
    // Free at 10; held until 115 at 60, as the lock was taken at 40; owned by a task at 200.
    assert_eq!(*handler.ends.borrow(), [Some(40), Some(145), None]);
    assert_eq!(got.get(), 145);
    let stat = e.lock_stat();
    let class = stat.iter().find(|c| c.def.name == "lru_lock").expect("declared");
    assert_eq!(class.exclusive.acquisitions, 5);
    assert_eq!(class.exclusive.contentions, 3);
}

#[test]
fn waiting_for_interrupts_with_interrupts_off_is_a_violation() {
    let e = engine(2);
    e.spawn(on(0, "t"), |cx| async move {
        let _off = cx.irq_disable();
        cx.interrupt_and_wait(CpuSet::only(CpuId::new(1)), FLUSH).await;
    });
    let End::Violation(v) = e.run() else {
        panic!("must be found")
    };
    assert_eq!(v.kind, ViolationKind::WaitWithIrqsOff);
}
