//! The notifier's call sites in truncation and exit where time matters (host-mm-paths B.0): a bracket a
//! restart, and what comes after `release`.

mod common;

use std::cell::Cell;
use std::rc::Rc;

use common::scribe::{Scribe, Told, pair};
use common::{BASE, Listener, Setup, anonymous, range, shared_file, touch, wait};
use mm::KernelPreemption;
use sim::End;
use sim::Holding::{Exclusive, PreemptOff, Rcu};
use x86::{Access, VaRange};

const PAGES: u64 = 64;
/// `ZAP_BLOCK_SIZE` with CONFIG_PREEMPT.
const BLOCK: u64 = 8;

/// Truncates a file that one process maps twice, while another task asks for i_mmap_lock as soon as the
/// scribe was told of `begun`, so often. Returns what was told and how many walks of the tree there were.
fn truncated_under_contention(
    vmas: u64,
    begun: VaRange,
    asked: u32,
) -> (Vec<(Told, Vec<sim::Holding>)>, u64) {
    let mut setup = Setup::linux_2_6_27().preempt(KernelPreemption::Full);
    setup.cpus = 3;
    let b = setup.build();
    let file = b.kernel.new_file("f", PAGES);
    let mm = b.mm;
    let scribe = Rc::new(Scribe::default());
    let lock = b.kernel.st().file(file).i_mmap_lock;
    let heard = Rc::clone(&scribe);
    b.thread(1, None, move |cx, _| async move {
        while !heard.was_told(Told::Start(begun)) {
            wait(&cx, 20).await;
        }
        for _ in 0..asked {
            drop(cx.lock(lock).await);
        }
    });
    let subscriber = Rc::clone(&scribe);
    let nodes = Rc::new(Cell::new(0));
    let out = Rc::clone(&nodes);
    let end = b.work(move |cx, k| async move {
        for copy in 0..vmas {
            let at = BASE.add_pages(copy << 20);
            k.sys_mmap(&cx, mm, shared_file(at, PAGES, file))
                .await
                .expect("free");
            touch(&cx, &k, mm, range(at, PAGES), Access::Read).await;
        }
        k.mmu_notifier_register(&cx, mm, subscriber).await;
        let before = k.metrics();
        k.do_truncate(&cx, file, 0).await;
        let m = k.metrics().since(&before);
        assert_eq!(m.truncate_restarts, u64::from(asked));
        assert_eq!(m.pages_zapped, vmas * PAGES, "no page twice");
        out.set(m.i_mmap_nodes);
    });
    assert_eq!(end, End::Completed);
    assert_eq!(b.world.audit(), Vec::<String>::new());
    (scribe.take(), nodes.get())
}

const HELD: [sim::Holding; 5] = [
    Exclusive("i_mutex"),
    Exclusive("i_alloc_sem"),
    Exclusive("i_mmap_lock"),
    PreemptOff,
    Rcu,
];

/// The bracket of a piece that is broken off at a block end: the gather was finished before, so that its
/// end is told under i_mmap_lock alone (host-mm-paths B.1).
fn broken_off(range: VaRange) -> Vec<(Told, Vec<sim::Holding>)> {
    let mut bracket = pair(range, &HELD);
    bracket[1].1.retain(|held| *held != PreemptOff);
    bracket
}

#[test]
fn a_truncation_that_lets_go_of_i_mmap_lock_brackets_the_remaining_part() {
    let (told, nodes) = truncated_under_contention(1, range(BASE, PAGES), 2);
    let rest = |blocks: u64| range(BASE.add_pages(blocks * BLOCK), PAGES - blocks * BLOCK);
    let pass_1 = [broken_off(rest(0)), broken_off(rest(1)), pair(rest(2), &HELD)];
    let pass_2 = pair(rest(0), &HELD);
    assert_eq!(told, [pass_1.concat(), pass_2].concat());
    // Each restart walks the tree again.
    assert_eq!(nodes, 3 + 1);
}

#[test]
fn a_restarted_walk_passes_mappings_over_that_are_done() {
    let second = BASE.add_pages(1 << 20);
    let (told, nodes) = truncated_under_contention(2, range(second, PAGES), 1);
    let all = |at| pair(range(at, PAGES), &HELD);
    let rest = pair(range(second.add_pages(BLOCK), PAGES - BLOCK), &HELD);
    let pass_1 = [all(BASE), broken_off(range(second, PAGES)), rest];
    let pass_2 = [all(BASE), all(second)];
    assert_eq!(told, [pass_1.concat(), pass_2.concat()].concat());
    assert_eq!(nodes, 2 + 1);
}

/// Whether an exit is over before a release in another address space is, which began earlier.
fn exit_overtakes_a_reader(subscribed: Subscribed) -> bool {
    let b = Setup::linux_2_6_27().build();
    let (mm, other) = (b.mm, b.kernel.new_mm("slow".into()));
    let slow = Rc::new(Listener {
        slow: 10_000_000,
        ..Listener::default()
    });
    let releasing = Rc::clone(&slow);
    b.thread(1, Some(other), move |cx, k| async move {
        k.mmu_notifier_register(&cx, other, slow).await;
        k.exit_mm(&cx, other).await;
    });
    let overtook = Rc::new(Cell::new(false));
    let out = Rc::clone(&overtook);
    let end = b.work(move |cx, k| async move {
        k.sys_mmap(&cx, mm, anonymous(BASE, 4)).await.expect("free");
        touch(&cx, &k, mm, range(BASE, 4), Access::Write).await;
        let scribe = Rc::new(Scribe::default());
        if subscribed == Subscribed::Yes {
            k.mmu_notifier_register(&cx, mm, Rc::<Scribe>::clone(&scribe))
                .await;
        }
        while releasing.releasing.get() == 0 {
            wait(&cx, 100).await;
        }
        k.exit_mm(&cx, mm).await;
        out.set(releasing.releasing.get() == 1);
        assert_eq!(scribe.calls(), usize::from(subscribed == Subscribed::Yes));
    });
    assert_eq!(end, End::Completed);
    assert_eq!(b.world.audit(), Vec::<String>::new());
    overtook.get()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Subscribed {
    Yes,
    No,
}

#[test]
fn after_release_an_exit_waits_for_every_reader_of_rcu() {
    // A release is called inside an RCU reader, whomever it belongs to; synchronize_rcu waits for all.
    assert!(!exit_overtakes_a_reader(Subscribed::Yes));
    assert!(exit_overtakes_a_reader(Subscribed::No), "nobody to wait for");
}
