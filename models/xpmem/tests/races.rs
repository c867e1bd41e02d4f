//! Imports against everything that takes pages away, at random times.
//!
//! The oracle watches: a frame freed while the importer can reach it, a stale TLB entry, unbalanced
//! books, deadlock. A run that completes with balanced books kept coherence.

mod common;

use common::{BASE, Bench, Flag, Setup, Side, anonymous, range};
use mm::Prot;
use sim::{Cx, Cycles, End, Schedule, Seeded, Stream};
use x86::Access;
use xpmem::{Mode, Pins};

const PAGES: u64 = 12;
const SEEDS: u64 = 40;
const DRAWS: Stream = Stream(7);

fn draw(cx: &Cx, bound: u64) -> u64 {
    cx.engine().draw(DRAWS, bound)
}

async fn pause(cx: &Cx, most: u64) {
    let cycles = draw(cx, most);
    cx.sleep(Cycles::new(cycles + 1)).await;
}

async fn import_at_random(cx: Cx, side: Side, exported: Flag, steps: u64) {
    exported.wait(&cx).await;
    for _ in 0..steps {
        pause(&cx, 40_000).await;
        let access = [Access::Read, Access::Write][draw(&cx, 2) as usize];
        // Refused while nothing is mapped there: the program would get a signal.
        let _ = side.link.access(&cx, draw(&cx, PAGES), access).await;
    }
}

async fn change_at_random(cx: &Cx, side: &Side, steps: u64) {
    for _ in 0..steps {
        pause(cx, 150_000).await;
        let first = draw(cx, PAGES);
        let part = range(BASE.add_pages(first), 1 + draw(cx, PAGES - first));
        let k = &side.kernel;
        match draw(cx, 5) {
            0 => {
                k.sys_munmap(cx, side.mm, part).await.expect("mapped");
                pause(cx, 20_000).await;
                side.map(cx, anonymous(part.start(), part.pages())).await;
            }
            1 => {
                let _hole = k.madvise_dontneed(cx, side.mm, part).await;
            }
            2 => {
                let _hole = k.sys_mprotect(cx, side.mm, part, Prot::READ).await;
                pause(cx, 20_000).await;
                let _hole = k.sys_mprotect(cx, side.mm, part, Prot::READ_WRITE).await;
            }
            3 => {
                let child = k.sys_fork(cx, side.mm, "child".into()).await;
                pause(cx, 20_000).await;
                k.mmput(cx, child).await;
            }
            _ => {
                for vpn in part.vpns() {
                    let _ = k.access(cx, side.mm, vpn.va(), Access::Write).await;
                }
            }
        }
    }
}

fn storm(setup: Setup, schedule: Schedule, steps: u64) -> Bench {
    let b = setup.build(schedule);
    let exported = Flag::default();
    for cpu in 1..3 {
        let e = exported.clone();
        b.importing(cpu, move |cx, side| import_at_random(cx, side, e, 8 * steps));
    }
    let (e, gone) = (exported.clone(), Flag::default());
    let g = gone.clone();
    b.importing(0, move |cx, side| async move {
        e.wait(&cx).await;
        for _ in 0..steps / 4 {
            side.link.attach(&cx).await;
            pause(&cx, 400_000).await;
            side.link.detach(&cx).await;
        }
        side.link.attach(&cx).await;
        g.wait(&cx).await;
        side.link.detach(&cx).await;
    });
    let e = exported.clone();
    b.exporting(1, move |cx, side| async move {
        e.wait(&cx).await;
        change_at_random(&cx, &side, steps).await;
    });
    b.exporting(0, move |cx, side| async move {
        side.map(&cx, anonymous(BASE, PAGES)).await;
        side.register(&cx).await;
        exported.raise();
        change_at_random(&cx, &side, steps).await;
        // The other thread may still be at it: the address space is emptied, then left.
        side.kernel
            .sys_munmap(&cx, side.mm, range(BASE, PAGES))
            .await
            .expect("mapped");
        side.link.destroy(&cx).await;
        gone.raise();
    });
    b
}

fn hold(setup: &Setup, schedule: Schedule, steps: u64, what: &str) -> Bench {
    let b = storm(setup.clone(), schedule, steps);
    let end = b.engine.run();
    assert_eq!(end, End::Completed, "{what}");
    assert_eq!(b.world.audit(), Vec::<String>::new(), "{what}");
    assert_eq!((b.pinned(), b.importer_entries()), (0, 0), "{what}");
    b
}

#[test]
fn imports_and_changes_at_random_times_stay_coherent() {
    let mut crossed = 0;
    let mut recalled = 0;
    let mut slept = 0;
    for pins in [Pins::Held, Pins::None] {
        for seed in 0..SEEDS {
            let setup = Setup::sleepable(PAGES).pins(pins);
            let schedule = Schedule::Timed(Box::new(Seeded::new(seed)));
            let b = hold(&setup, schedule, 24, &format!("{pins:?}, seed {seed}"));
            let m = b.link.metrics();
            crossed += m.requests_invalidated;
            recalled += m.recall_messages;
            slept += m.gate_sleeps;
        }
    }
    assert!(
        crossed > 0 && recalled > 0 && slept > 0,
        "{crossed} {recalled} {slept}"
    );
}

#[test]
fn messages_without_latency_lose_no_wake_up() {
    for seed in 0..SEEDS {
        let mut setup = Setup::sleepable(PAGES);
        setup.rtt = Cycles::ZERO;
        let schedule = Schedule::Timed(Box::new(Seeded::new(seed)));
        hold(&setup, schedule, 24, &format!("seed {seed}"));
    }
}

#[test]
fn pins_alone_keep_memory_safe() {
    for seed in 0..SEEDS {
        let setup = Setup::merged(PAGES, Mode::PinsOnly);
        let schedule = Schedule::Timed(Box::new(Seeded::new(seed)));
        hold(&setup, schedule, 24, &format!("seed {seed}"));
    }
}

#[test]
fn random_interleavings_stay_coherent() {
    for pins in [Pins::Held, Pins::None] {
        for seed in 0..SEEDS {
            let setup = Setup::sleepable(PAGES).pins(pins);
            let schedule = Schedule::Explored(Box::new(sim::RandomWalk::new(seed)));
            hold(&setup, schedule, 8, &format!("{pins:?}, walk {seed}"));
        }
    }
}

/// The exporter exits while imports are under way: release drains, later faults are refused.
#[test]
fn exit_during_imports_is_safe() {
    for pins in [Pins::Held, Pins::None] {
        for seed in 0..SEEDS {
            let b = Setup::sleepable(PAGES).pins(pins).timed(seed);
            let exported = Flag::default();
            for cpu in 0..3 {
                let e = exported.clone();
                b.importing(cpu, move |cx, side| async move {
                    e.wait(&cx).await;
                    if cpu == 0 {
                        side.link.attach(&cx).await;
                    }
                    import_at_random(cx, side, e, 40).await;
                });
            }
            b.exporting(0, move |cx, side| async move {
                side.map(&cx, anonymous(BASE, PAGES)).await;
                side.touch(&cx, PAGES).await;
                side.register(&cx).await;
                exported.raise();
                pause(&cx, 1_500_000).await;
                side.kernel.exit_mm(&cx, side.mm).await;
                side.link.destroy(&cx).await;
            });
            b.complete();
            assert_eq!((b.pinned(), b.importer_entries(), b.exporter_frames()), (0, 0, 0));
        }
    }
}
