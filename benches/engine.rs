//! What do the engine's primitives cost on the host: an uncontended lock, a suspension, an interrupt
//! round?

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use bench_world::{Stopwatch, engine, worker};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use sim::{
    Account, Action, ClassDef, CpuId, CpuSet, Cx, Cycles, End, Interrupt, Irqs, LockKind, Nesting, Object,
};
use x86::Machine;

const WORK: Account = mm::account::USER;
const OPERATIONS: u64 = 1 << 14;

fn machine() -> Machine {
    Machine::preset("harpertown-2008").expect("a preset")
}

fn uncontended_lock(rounds: u64) -> Duration {
    let e = engine(&machine(), 1);
    let lock = e.new_lock(e.lock_class(ClassDef {
        name: "l",
        kind: LockKind::Spin,
        nesting: Nesting::Forbidden,
        rank: None,
        irqs: Irqs::Either,
    }));
    let watch = Stopwatch::default();
    let total = Rc::new(Cell::new(Duration::ZERO));
    let out = Rc::clone(&total);
    e.spawn(worker(0), move |cx| async move {
        for _ in 0..rounds {
            watch
                .time(async {
                    for _ in 0..OPERATIONS {
                        drop(cx.lock(lock).await);
                    }
                })
                .await;
        }
        out.set(watch.total());
    });
    assert_eq!(e.run(), End::Completed);
    total.get()
}

async fn steps(cx: &Cx, n: u64) {
    for _ in 0..n {
        cx.charge(WORK, Cycles::new(10));
        cx.step(Object::None, Action::Run).await;
    }
}

/// 16 tasks on 16 CPUs that all park at every step.
fn suspension(rounds: u64) -> Duration {
    const TASKS: u32 = 16;
    let mut total = Duration::ZERO;
    for _ in 0..rounds {
        let e = engine(&machine(), TASKS);
        for cpu in 0..TASKS {
            e.spawn(worker(cpu), |cx| async move {
                steps(&cx, OPERATIONS / u64::from(TASKS)).await
            });
        }
        total += bench_world::measure(|| assert_eq!(e.run(), End::Completed));
    }
    total
}

/// One CPU interrupts seven that are busy, and waits for all.
fn interrupt_round(rounds: u64) -> Duration {
    const TARGETS: u32 = 7;
    const CALLS: u64 = OPERATIONS / 16;
    let mut total = Duration::ZERO;
    for _ in 0..rounds {
        let e = engine(&machine(), TARGETS + 1);
        e.spawn(worker(0), |cx| async move {
            let mut targets = CpuSet::EMPTY;
            (1..=TARGETS).for_each(|c| targets.insert(CpuId::new(c as u16)));
            let _off = cx.preempt_disable();
            for _ in 0..CALLS {
                cx.interrupt_and_wait(
                    targets,
                    Interrupt {
                        vector: 0xf0,
                        a: 0,
                        b: 0,
                    },
                )
                .await;
            }
        });
        total += bench_world::measure(|| assert_eq!(e.run(), End::Completed));
    }
    total
}

fn primitives(c: &mut Criterion) {
    let mut group = c.benchmark_group("engine");
    group.sample_size(20);
    group.throughput(Throughput::Elements(OPERATIONS));
    group.bench_function("uncontended lock and unlock", |b| b.iter_custom(uncontended_lock));
    group.bench_function("suspension", |b| b.iter_custom(suspension));
    group.throughput(Throughput::Elements(OPERATIONS / 16));
    group.bench_function("interrupt round of 7", |b| b.iter_custom(interrupt_round));
    group.finish();
}

criterion_group!(benches, primitives);
criterion_main!(benches);
