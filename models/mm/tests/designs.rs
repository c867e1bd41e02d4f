//! What the notifier designs tell whom, cell by cell of the table of counts for V1, V4, V5, V6, V8 and V9,
//! and what their registrations cost and break.

mod common;

use std::cell::Cell;
use std::rc::Rc;

use common::{BASE, Bench, Listener, Setup, anonymous, range, shared_file, touch, wait};
use mm::notifier::{CallbackFuture, Design, Knob, MmuKind, Registration, Subscriber, Traversal};
use mm::{Backing, Kernel, MapRequest, MmId, Prot};
use sim::{Cx, Cycles, End};
use x86::{Access, Pfn, Pgoff, Va, VaRange};

/// The designs that tell anybody anything.
fn designs() -> Vec<Design> {
    Design::ALL.into_iter().filter(Design::notifies).collect()
}

/// Calls of one operation: invalidate_page, pairs, blocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Calls {
    pages: u32,
    pairs: u32,
    blocks: u32,
}

const fn pages(pages: u32) -> Calls {
    Calls {
        pages,
        pairs: 0,
        blocks: 0,
    }
}

const fn pairs(pairs: u32) -> Calls {
    Calls {
        pages: 0,
        pairs,
        blocks: 0,
    }
}

const fn blocks(blocks: u32) -> Calls {
    Calls {
        pages: 0,
        pairs: 0,
        blocks,
    }
}

/// An operation on `n` pages of anonymous memory, each written.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Op {
    Munmap,
    Dontneed,
    Mprotect,
    Mremap,
    Fork,
    /// A store to the first page, which a child shares.
    Cow,
    Reclaim,
}

async fn run(cx: &Cx, k: &Kernel, mm: MmId, op: Op, n: u64) {
    let all = range(BASE, n);
    match op {
        Op::Munmap => k.sys_munmap(cx, mm, all).await.expect("mapped"),
        Op::Dontneed => k.madvise_dontneed(cx, mm, all).await.expect("mapped"),
        Op::Mprotect => k.sys_mprotect(cx, mm, all, Prot::READ).await.expect("mapped"),
        Op::Mremap => {
            let to = Some(BASE.add_pages(1 << 18));
            k.sys_mremap(cx, mm, all, n, to).await.expect("free");
        }
        Op::Fork => {
            k.sys_fork(cx, mm, "child".into()).await;
        }
        Op::Cow => k.access(cx, mm, BASE, Access::Write).await.expect("mapped"),
        Op::Reclaim => assert_eq!(k.shrink_all_memory(cx, n).await, n),
    }
}

fn calls_of(design: &Design, op: Op, n: u64) -> Calls {
    let b = Setup::linux_2_6_27().design(design.clone()).build();
    b.kernel.set_swap(1 << 12);
    let (mm, listener) = (b.mm, Rc::new(Listener::default()));
    let (told, found) = (Rc::clone(&listener), Rc::new(Cell::new(None)));
    let result = Rc::clone(&found);
    let end = b.work(move |cx, k| async move {
        k.sys_mmap(&cx, mm, anonymous(BASE, n)).await.expect("free");
        touch(&cx, &k, mm, range(BASE, n), Access::Write).await;
        k.lru_add_drain_all(&cx).await;
        if op == Op::Cow {
            k.sys_fork(&cx, mm, "child".into()).await;
        }
        k.mmu_notifier_register(&cx, mm, Rc::clone(&told) as Rc<dyn Subscriber>)
            .await;
        run(&cx, &k, mm, op, n).await;
        assert_eq!(told.starts.get(), told.ends.get(), "brackets are balanced");
        result.set(Some(Calls {
            pages: told.pages.get(),
            pairs: told.starts.get(),
            blocks: told.blocks.get(),
        }));
    });
    assert_eq!(end, End::Completed, "{} {op:?}", design.id);
    assert_eq!(b.world.audit(), Vec::<String>::new(), "{} {op:?}", design.id);
    found.get().expect("it ran")
}

#[test]
fn each_operation_tells_what_the_table_says() {
    // The table of counts: N pages, one VMA, one subscriber.
    for design in designs() {
        let v1 = design.short == "v1";
        let v5 = design.short == "v5";
        for n in [1_u64, 8, 64, 100, 506, 1024] {
            let n32 = n as u32;
            let tables = n.div_ceil(512) as u32;
            let expected = [
                (Op::Munmap, if v1 { pages(n32) } else { pairs(1) }),
                (Op::Dontneed, if v1 { pages(n32) } else { pairs(1) }),
                (Op::Mprotect, if v1 { blocks(tables) } else { pairs(1) }),
                // A chunk of 64 pages a pair, and one for the munmap of what was moved away.
                (
                    Op::Mremap,
                    if v1 {
                        pages(n32)
                    } else {
                        pairs(n32.div_ceil(64) + 1)
                    },
                ),
                (Op::Fork, if v1 { blocks(tables) } else { pairs(1) }),
                (Op::Cow, if v5 { pairs(1) } else { pages(1) }),
            ];
            for (op, expected) in expected {
                assert_eq!(calls_of(&design, op, n), expected, "{} {op:?} of {n}", design.id);
            }
        }
    }
}

#[test]
fn reclaim_of_n_pages_tells_each_of_them() {
    // The same table: N page callbacks, or N pairs under EMM.
    for design in designs() {
        let calls = calls_of(&design, Op::Reclaim, 20);
        if design.short == "v5" {
            assert_eq!((calls.pages, calls.blocks), (0, 0));
            assert_eq!(calls.pairs, 20, "{}", design.id);
        } else {
            assert_eq!(calls, pages(20), "{}", design.id);
        }
    }
}

/// What a subscriber saw when it heard the end of a bracket.
#[derive(Default)]
struct AtEnd {
    freed: Cell<u64>,
    freed_at_release: Cell<Option<u64>>,
    sleeps: bool,
}

struct Watcher {
    kernel: Rc<Kernel>,
    seen: Rc<AtEnd>,
}

fn nothing() -> CallbackFuture<'static> {
    Box::pin(async {})
}

impl Subscriber for Watcher {
    fn name(&self) -> Rc<str> {
        "watcher".into()
    }

    fn kind(&self) -> MmuKind {
        MmuKind::Device
    }

    fn invalidate_page<'a>(&'a self, _: &'a Cx, _: Va) -> CallbackFuture<'a> {
        nothing()
    }

    fn invalidate_range_start<'a>(&'a self, _: &'a Cx, _: VaRange) -> CallbackFuture<'a> {
        nothing()
    }

    fn invalidate_range_end<'a>(&'a self, cx: &'a Cx, _: VaRange) -> CallbackFuture<'a> {
        Box::pin(async move {
            let (_, freed) = self.kernel.frames().turnover(self.kernel.zone());
            self.seen.freed.set(freed);
            if self.seen.sleeps {
                cx.sleep(Cycles::new(1_000)).await;
            }
        })
    }

    fn invalidate_pages<'a>(&'a self, _: &'a Cx, _: VaRange) -> CallbackFuture<'a> {
        nothing()
    }

    fn release<'a>(&'a self, _: &'a Cx) -> CallbackFuture<'a> {
        let (_, freed) = self.kernel.frames().turnover(self.kernel.zone());
        self.seen.freed_at_release.set(Some(freed));
        nothing()
    }

    fn reaches(&self, _: Pfn) -> bool {
        false
    }
}

/// Runs an operation on `n` pages under a watcher. Says how it ended, and how many frames were freed when the
/// end was told.
fn watched(design: Design, op: Op, n: u64, sleeps: bool) -> (End, u64) {
    let b: Bench = Setup::linux_2_6_27().design(design).build();
    let mm = b.mm;
    let seen = Rc::new(AtEnd {
        sleeps,
        ..AtEnd::default()
    });
    let (kernel, at_end) = (Rc::clone(&b.kernel), Rc::clone(&seen));
    let end = b.work(move |cx, k| async move {
        k.sys_mmap(&cx, mm, anonymous(BASE, n)).await.expect("free");
        touch(&cx, &k, mm, range(BASE, n), Access::Write).await;
        k.lru_add_drain_all(&cx).await;
        k.mmu_notifier_register(&cx, mm, Rc::new(Watcher { kernel, seen: at_end }))
            .await;
        run(&cx, &k, mm, op, n).await;
    });
    (end, seen.freed.get())
}

#[test]
fn when_the_end_of_a_range_is_told_its_last_batch_is_freed_or_not() {
    // 600 pages: the first 506 go with the first flush, the others and what tables cost with the last.
    for (design, op, freed) in [
        (Design::V4, Op::Munmap, 600),
        (Design::V5, Op::Munmap, 600),
        (Design::V6, Op::Munmap, 506),
        (Design::V8, Op::Munmap, 506),
        (Design::V4, Op::Dontneed, 506),
        (Design::V5, Op::Dontneed, 600),
        (Design::V6, Op::Dontneed, 506),
        (Design::V8, Op::Dontneed, 506),
    ] {
        let id = design.id;
        assert_eq!(
            watched(design, op, 600, false),
            (End::Completed, freed),
            "{id} {op:?}"
        );
    }
}

#[test]
fn only_emm_lets_the_end_of_a_munmap_sleep_on_a_kernel_with_spinlocks() {
    for (design, may) in [
        (Design::V4, false),
        (Design::V5, true),
        (Design::V6, false),
        (Design::V8, false),
    ] {
        let id = design.id;
        let (end, _) = watched(design, Op::Munmap, 8, true);
        match end {
            End::Completed => assert!(may, "{id}"),
            End::Violation(v) => assert_eq!((v.kind.id(), may), ("sleep-in-atomic", false), "{id}"),
            other => panic!("{id}: {other:?}"),
        }
    }
}

#[test]
fn under_v4_an_exit_frees_pages_before_anybody_hears_of_it() {
    // notifier-variants 10.26d: no bracket in exit_mmap, and release comes last.
    for (design, freed) in [(Design::V4, 8), (Design::V5, 0), (Design::V6, 0), (Design::V8, 0)] {
        let b = Setup::linux_2_6_27().design(design.clone()).build();
        let (mm, seen) = (b.mm, Rc::new(AtEnd::default()));
        let (kernel, watched) = (Rc::clone(&b.kernel), Rc::clone(&seen));
        let end = b.work(move |cx, k| async move {
            k.sys_mmap(&cx, mm, anonymous(BASE, 8)).await.expect("free");
            touch(&cx, &k, mm, range(BASE, 8), Access::Write).await;
            k.lru_add_drain_all(&cx).await;
            let watcher = Watcher {
                kernel,
                seen: watched,
            };
            k.mmu_notifier_register(&cx, mm, Rc::new(watcher)).await;
            k.exit_mm(&cx, mm).await;
        });
        assert_eq!(end, End::Completed);
        assert_eq!(seen.freed_at_release.get(), Some(freed), "{}", design.id);
        assert_eq!(seen.freed.get(), 0, "no end of a bracket is told: {}", design.id);
    }
}

/// Registers with a process that maps `files` files and writes to a private page between each two.
fn register(registration: Registration, files: u64) -> (End, u64, u64) {
    let design = Design::V8.with(Knob::Registration(registration));
    let b = Setup::linux_2_6_27().design(design).build();
    let mm = b.mm;
    let took = Rc::new(Cell::new(0));
    let time = Rc::clone(&took);
    let end = b.work(move |cx, k| async move {
        for n in 0..files {
            let file = k.new_file(&format!("f{n}"), 1);
            k.sys_mmap(&cx, mm, shared_file(BASE.add_pages(4 * n), 1, file))
                .await
                .expect("free");
            let private = BASE.add_pages(4 * n + 2);
            k.sys_mmap(&cx, mm, anonymous(private, 1)).await.expect("free");
            k.access(&cx, mm, private, Access::Write).await.expect("mapped");
        }
        wait(&cx, 1).await;
        let before = cx.now();
        k.mmu_notifier_register(&cx, mm, Rc::new(Listener::default()))
            .await;
        time.set((cx.now() - before).get());
    });
    let locks = b.kernel.metrics().registration_locks_max;
    (end, took.get(), locks)
}

#[test]
fn registration_under_all_locks_takes_each_lock_once() {
    for registration in [
        Registration::TakeAllLocks,
        Registration::MmLock,
        Registration::MmLockSearch,
    ] {
        let (end, _, locks) = register(registration, 16);
        assert_eq!(end, End::Completed, "{registration:?}");
        assert_eq!(locks, 32, "{registration:?}: 16 files and 16 families");
    }
    assert_eq!(register(Registration::ListLock, 16).2, 0);
}

#[test]
fn the_orders_against_the_hierarchy_are_found() {
    // notifier-variants 10.22: v15 and v16, and 2.6.27-rc1.
    for registration in [Registration::TakeAllInterleaved, Registration::MmLockAnonFirst] {
        let (end, ..) = register(registration, 2);
        let End::Violation(v) = end else {
            panic!("{registration:?} must be found: {end:?}")
        };
        assert_eq!(v.kind.id(), "lock-rank", "{registration:?}");
        assert!(v.summary.starts_with("i_mmap_lock (rank 40)"), "{}", v.summary);
    }
}

#[test]
fn rc1_takes_the_locks_of_one_private_file_mapping_the_wrong_way_round() {
    let design = Design::V8.with(Knob::Registration(Registration::TakeAllInterleaved));
    let b = Setup::linux_2_6_27().design(design).build();
    let mm = b.mm;
    let file = b.kernel.new_file("library", 1);
    let end = b.work(move |cx, k| async move {
        let private = MapRequest {
            backing: Backing::File(file),
            pgoff: Pgoff::new(0),
            ..anonymous(BASE, 1)
        };
        k.sys_mmap(&cx, mm, private).await.expect("free");
        k.access(&cx, mm, BASE, Access::Write).await.expect("mapped");
        k.mmu_notifier_register(&cx, mm, Rc::new(Listener::default()))
            .await;
    });
    let End::Violation(v) = end else {
        panic!("must be found: {end:?}")
    };
    assert_eq!(v.kind.id(), "lock-rank");
}

/// Somebody registers while the first subscriber hears the start of a munmap.
fn registers_inside_a_bracket(design: Design) -> End {
    let b = Setup::linux_2_6_27().design(design).build();
    let mm = b.mm;
    let step = Rc::new(Cell::new(false));
    let began = Rc::clone(&step);
    b.thread(1, None, move |cx, k| async move {
        while !began.get() {
            wait(&cx, 10).await;
        }
        k.mmu_notifier_register(&cx, mm, Rc::new(Listener::default()))
            .await;
    });
    b.work(move |cx, k| async move {
        k.sys_mmap(&cx, mm, anonymous(BASE, 4096)).await.expect("free");
        touch(&cx, &k, mm, range(BASE, 4096), Access::Write).await;
        k.mmu_notifier_register(&cx, mm, Rc::new(Starter(step))).await;
        k.sys_munmap(&cx, mm, range(BASE, 4096)).await.expect("mapped");
        wait(&cx, 1_000_000).await;
    })
}

/// Says when it heard a start, and takes its time.
struct Starter(Rc<Cell<bool>>);

const TAKES: u64 = 20_000;

impl Subscriber for Starter {
    fn name(&self) -> Rc<str> {
        "starter".into()
    }

    fn kind(&self) -> MmuKind {
        MmuKind::Device
    }

    fn invalidate_page<'a>(&'a self, _: &'a Cx, _: Va) -> CallbackFuture<'a> {
        nothing()
    }

    fn invalidate_range_start<'a>(&'a self, cx: &'a Cx, _: VaRange) -> CallbackFuture<'a> {
        self.0.set(true);
        Box::pin(wait(cx, TAKES))
    }

    fn invalidate_range_end<'a>(&'a self, _: &'a Cx, _: VaRange) -> CallbackFuture<'a> {
        nothing()
    }

    fn invalidate_pages<'a>(&'a self, _: &'a Cx, _: VaRange) -> CallbackFuture<'a> {
        nothing()
    }

    fn release<'a>(&'a self, _: &'a Cx) -> CallbackFuture<'a> {
        nothing()
    }

    fn reaches(&self, _: Pfn) -> bool {
        false
    }
}

/// The second subscriber of the list leaves while the first hears a start.
fn leaves_during_a_walk(design: Design) -> End {
    let b = Setup::linux_2_6_27().design(design).build();
    let mm = b.mm;
    let (began, second) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(None)));
    let (at, leaves) = (Rc::clone(&began), Rc::clone(&second));
    b.thread(1, None, move |cx, k| async move {
        while !at.get() {
            wait(&cx, 10).await;
        }
        let id = leaves.get().expect("registered first");
        k.mmu_notifier_unregister(&cx, id).await;
    });
    b.work(move |cx, k| async move {
        k.sys_mmap(&cx, mm, anonymous(BASE, 4)).await.expect("free");
        let id = k
            .mmu_notifier_register(&cx, mm, Rc::new(Listener::default()))
            .await;
        second.set(Some(id));
        // The newest is told first.
        k.mmu_notifier_register(&cx, mm, Rc::new(Starter(began))).await;
        k.sys_munmap(&cx, mm, range(BASE, 4)).await.expect("mapped");
    })
}

#[test]
fn without_a_reader_a_walk_calls_who_has_left() {
    // notifier-variants 10.7, 10.8.
    let End::Violation(v) = leaves_during_a_walk(Design::V5) else {
        panic!("must be found")
    };
    assert_eq!(v.kind.id(), "callback-after-release");
    for design in [Design::V4, Design::V6, Design::V8] {
        let id = design.id;
        assert_eq!(leaves_during_a_walk(design), End::Completed, "{id}");
    }
}

#[test]
fn v4_lets_a_subscriber_hear_an_end_without_its_start_and_all_locks_do_not() {
    // notifier-variants 10.1.
    let End::Violation(v) = registers_inside_a_bracket(Design::V4) else {
        panic!("must be found")
    };
    assert_eq!(v.kind.id(), "unbalanced-bracket");
    for design in [Design::V5, Design::V6, Design::V8] {
        let id = design.id;
        assert_eq!(registers_inside_a_bracket(design), End::Completed, "{id}");
    }
}

#[test]
fn the_search_of_v12_grows_with_the_square_and_the_sorted_arrays_do_not() {
    let time = |registration, files| register(registration, files).1;
    let growth = |registration| {
        let (small, large) = (time(registration, 64), time(registration, 512));
        large as f64 / small as f64
    };
    // Eight times the mappings: 64 times the looks, or little more than 8 times.
    let (search, sorted) = (growth(Registration::MmLockSearch), growth(Registration::MmLock));
    assert!(search > 50.0, "{search}");
    assert!((8.0..16.0).contains(&sorted), "{sorted}");
    let all = growth(Registration::TakeAllLocks);
    assert!((7.0..10.0).contains(&all), "{all}");
}

#[test]
fn without_a_reader_around_it_a_callback_may_sleep_where_no_lock_forbids_it() {
    // notifier-variants V5: the list is only a chain of pointers; under RCU the same call sleeps in atomic context.
    for (traversal, fine) in [
        (Traversal::Bare, true),
        (Traversal::Srcu, true),
        (Traversal::Rcu, false),
    ] {
        let design = Design::V5.with(Knob::Traversal(traversal));
        let (end, _) = watched(design, Op::Munmap, 8, true);
        assert_eq!(end == End::Completed, fine, "{traversal:?}: {end:?}");
    }
}
