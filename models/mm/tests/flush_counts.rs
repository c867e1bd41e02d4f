//! The flush schedule of host-mm-paths C.3 and the totals of C.4, cell by cell.

mod common;

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use common::{BASE, Listener, Setup, anonymous, far_neighbours, range, shared_file, touch, wait};
use mm::{KernelPreemption, KernelProfile, MmMetrics};
use sim::{End, Engine, Logging, Record, RecordKind, TaskId};
use x86::{Access, Va};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Op {
    Madvise,
    Munmap,
}

/// Counters that an operation on N touched anonymous pages adds, on C busy CPUs of eight.
fn measure(op: Op, pages: u64, cpus: u32, preemption: KernelPreemption) -> MmMetrics {
    measure_on(Setup::linux_2_6_27().preempt(preemption), op, pages, cpus)
}

/// The same on another kernel or machine. A subscriber listens.
fn measure_on(setup: Setup, op: Op, pages: u64, cpus: u32) -> MmMetrics {
    let b = setup.build();
    b.busy(cpus, b.mm);
    let delta = Rc::new(RefCell::new(None));
    let out = Rc::clone(&delta);
    let mm = b.mm;
    let end = b.work(move |cx, k| async move {
        far_neighbours(&cx, &k, mm).await;
        k.sys_mmap(&cx, mm, anonymous(BASE, pages))
            .await
            .expect("a free place");
        touch(&cx, &k, mm, range(BASE, pages), Access::Write).await;
        k.mmu_notifier_register(&cx, mm, Rc::new(Listener::default()))
            .await;
        let before = k.metrics();
        match op {
            Op::Madvise => k
                .madvise_dontneed(&cx, mm, range(BASE, pages))
                .await
                .expect("mapped"),
            Op::Munmap => k.sys_munmap(&cx, mm, range(BASE, pages)).await.expect("mapped"),
        }
        *out.borrow_mut() = Some((before, k.metrics()));
    });
    assert_eq!(end, End::Completed);
    assert_eq!(b.world.audit(), Vec::<String>::new());
    let (before, after) = delta.borrow_mut().take().expect("measured");
    after.since(&before)
}

/// Rows of the table: N, then zap only and munmap without PREEMPT, zap only and munmap with it.
const TABLE: [(u64, [u64; 4]); 6] = [
    (1, [1, 1, 1, 1]),
    (8, [1, 1, 1, 2]),
    (506, [1, 2, 64, 64]),
    (512, [2, 2, 64, 65]),
    (1024, [3, 4, 128, 129]),
    (4096, [12, 13, 512, 513]),
];

/// Every column of some rows of the table, on C busy CPUs.
fn assert_cells(profile: &KernelProfile, rows: &[(u64, [u64; 4])], cpus: &[u32]) {
    let columns = [
        (Op::Madvise, KernelPreemption::Voluntary),
        (Op::Munmap, KernelPreemption::Voluntary),
        (Op::Madvise, KernelPreemption::Full),
        (Op::Munmap, KernelPreemption::Full),
    ];
    for &(pages, events) in rows {
        for ((op, preemption), expected) in columns.into_iter().zip(events) {
            for &cpus in cpus {
                let setup = Setup {
                    profile: profile.clone(),
                    ..Setup::linux_2_6_27()
                };
                let m = measure_on(setup.preempt(preemption), op, pages, cpus);
                let cell = format!("{} {op:?} N={pages} C={cpus} {preemption:?}", profile.name);
                assert_eq!(m.flush_mm, expected, "{cell}: events");
                assert_eq!(m.flush_local, expected, "{cell}: local flushes");
                assert_eq!(m.shootdown_ipis, expected * u64::from(cpus - 1), "{cell}: IPIs");
                assert_eq!(m.pages_zapped, pages, "{cell}: pages");
                assert_eq!((m.notifier_start, m.notifier_end), (1, 1), "{cell}: NS/NE");
                let tables = if op == Op::Munmap {
                    pages.div_ceil(512) + 1
                } else {
                    0
                };
                assert_eq!(m.tables_freed, tables, "{cell}: page tables");
            }
        }
    }
}

#[test]
fn flush_events_and_ipis_are_those_of_the_reference_in_every_cell() {
    assert_cells(&KernelProfile::LINUX_2_6_27, &TABLE, &[1, 2, 8]);
}

#[test]
fn the_table_holds_on_the_kernel_before_and_on_the_sleepable_one() {
    // The gather is the same before (host-mm-paths H); the sleepable kernel has it on the stack and keeps
    // its 506 entries.
    for profile in [KernelProfile::LINUX_2_6_25, KernelProfile::LINUX_2_6_27_SLEEPABLE] {
        assert_cells(&profile, &TABLE[..5], &[1, 8]);
    }
}

fn assert_largest_row(preemption: KernelPreemption, zap_only: u64, munmap: u64) {
    for (op, expected) in [(Op::Madvise, zap_only), (Op::Munmap, munmap)] {
        let m = measure(op, 262_144, 1, preemption);
        assert_eq!(m.flush_mm, expected, "{op:?} {preemption:?}");
    }
}

#[test]
fn the_largest_row_of_the_table_holds() {
    assert_largest_row(KernelPreemption::Voluntary, 768, 770);
}

#[test]
fn the_largest_row_of_the_table_holds_with_preempt() {
    assert_largest_row(KernelPreemption::Full, 32_768, 32_770);
}

#[test]
fn munmap_of_4096_pages_on_8_cpus_flushes_where_the_reference_says() {
    let m = measure(Op::Munmap, 4096, 8, KernelPreemption::Voluntary);
    assert_eq!((m.flush_under_ptl, m.flush_block_end, m.flush_final), (8, 4, 1));
    assert_eq!((m.local_cr3, m.shootdown_ipis, m.ptl_holds), (13, 91, 8));
    assert_eq!((m.notifier_start, m.notifier_end), (1, 1));
}

#[test]
fn madvise_of_8_pages_on_8_cpus_reloads_cr3_once() {
    let m = measure(Op::Madvise, 8, 8, KernelPreemption::Voluntary);
    assert_eq!(
        (m.flush_mm, m.local_cr3, m.local_invlpg, m.shootdown_ipis),
        (1, 1, 0, 7)
    );
}

#[test]
fn one_write_of_the_icr_reaches_all_of_8_cpus_but_beyond_that_each_target_takes_one() {
    // Flat APIC mode up to 8 CPUs, physflat above.
    for (online, busy, writes) in [(8, 8, 1), (8, 2, 1), (9, 8, 7), (16, 8, 7), (16, 16, 15)] {
        let mut setup = Setup::linux_2_6_27();
        setup.cpus = online;
        let m = measure_on(setup, Op::Madvise, 8, busy);
        let cell = format!("{busy} of {online} CPUs");
        assert_eq!((m.flush_mm, m.shootdown_rounds), (1, 1), "{cell}");
        assert_eq!(m.shootdown_ipis, u64::from(busy - 1), "{cell}");
        assert_eq!(m.icr_writes, writes, "{cell}");
    }
}

/// What a truncation did.
struct Truncation {
    counted: MmMetrics,
    i_mmap_holds: u64,
    /// Pages freed inside `truncate_inode_pages`, and elsewhere.
    freed_by_truncation: usize,
    freed_elsewhere: usize,
}

fn holds(engine: &Engine, class: &str) -> u64 {
    let stat = engine.lock_stat();
    let class = stat.iter().find(|c| c.def.name == class).expect("a class");
    class.exclusive.acquisitions
}

/// Pages freed by a task inside and outside the spans of a function.
fn frees(log: &[Record], task: TaskId, function: &str) -> (usize, usize) {
    let (mut depth, mut inside, mut outside) = (0_u32, 0, 0);
    for record in log.iter().filter(|r| r.task == task) {
        match record.kind {
            RecordKind::Begin(name) if name == function => depth += 1,
            RecordKind::End(name) if name == function => depth -= 1,
            RecordKind::Mark(mark, _) if mark.name == "free_page" && depth > 0 => inside += 1,
            RecordKind::Mark(mark, _) if mark.name == "free_page" => outside += 1,
            _ => {}
        }
    }
    (inside, outside)
}

/// Truncate to 0 by an outsider: 4 processes map the same 1024 clean file pages, 2 CPUs each. Each has a
/// subscriber.
fn truncate_by_outsider(preemption: KernelPreemption) -> Truncation {
    const PROCESSES: u32 = 4;
    const PAGES: u64 = 1024;
    let mut setup = Setup::linux_2_6_27().preempt(preemption);
    setup.cpus = 2 * PROCESSES + 1;
    let b = setup.build();
    let file = b.kernel.new_file("shared", PAGES);
    let stop = Rc::new(Cell::new(false));
    let ready = Rc::new(Cell::new(0));
    for process in 0..PROCESSES {
        let mm = b.kernel.new_mm(format!("p{process}").into());
        for half in 0..2 {
            let (stop, ready) = (Rc::clone(&stop), Rc::clone(&ready));
            b.thread(1 + process * 2 + half, Some(mm), move |cx, k| async move {
                if half == 0 {
                    k.sys_mmap(&cx, mm, shared_file(BASE, PAGES, file))
                        .await
                        .expect("free");
                    touch(&cx, &k, mm, range(BASE, PAGES), Access::Read).await;
                    k.mmu_notifier_register(&cx, mm, Rc::new(Listener::default()))
                        .await;
                    ready.set(ready.get() + 1);
                }
                while !stop.get() {
                    wait(&cx, 2_000).await;
                }
            });
        }
    }
    let done = Rc::new(RefCell::new(None));
    let out = Rc::clone(&done);
    let outsider = b.thread(0, None, move |cx, k| async move {
        while ready.get() < PROCESSES {
            wait(&cx, 2_000).await;
        }
        // A pagevec would keep the last pages that were read.
        k.lru_add_drain_all(&cx).await;
        let (before, held) = (k.metrics(), holds(k.engine(), "i_mmap_lock"));
        k.engine().set_logging(Logging::Full);
        k.do_truncate(&cx, file, 0).await;
        *out.borrow_mut() = Some((
            k.metrics().since(&before),
            holds(k.engine(), "i_mmap_lock") - held,
        ));
        stop.set(true);
    });
    assert_eq!(b.engine.run(), End::Completed);
    assert_eq!(b.world.audit(), Vec::<String>::new());
    let (counted, i_mmap_holds) = done.take().expect("measured");
    let (freed_by_truncation, freed_elsewhere) =
        frees(&b.engine.take_log(), outsider, "truncate_inode_pages");
    Truncation {
        counted,
        i_mmap_holds,
        freed_by_truncation,
        freed_elsewhere,
    }
}

#[test]
fn truncate_by_an_outsider_costs_the_worked_total() {
    let t = truncate_by_outsider(KernelPreemption::Voluntary);
    let m = t.counted;
    assert_eq!((m.flush_mm, m.shootdown_ipis, m.flush_local), (12, 24, 0));
    // Four in each of the two passes, of one hold each.
    assert_eq!((m.notifier_start, m.notifier_end), (4 + 4, 4 + 4));
    assert_eq!(t.i_mmap_holds, 2);
    // One tree node and three list members, in each of the two passes.
    assert_eq!((m.i_mmap_nodes, m.i_mmap_members), (2, 6));
    assert_eq!(m.truncate_batches, 74);
    assert_eq!(m.pages_zapped, 4 * 1024);
    assert_eq!(
        (t.freed_by_truncation, t.freed_elsewhere),
        (1024, 0),
        "the cache keeps them while they are zapped"
    );
}

#[test]
fn truncate_by_an_outsider_costs_the_worked_total_with_preempt() {
    let t = truncate_by_outsider(KernelPreemption::Full);
    let m = t.counted;
    assert_eq!((m.flush_mm, m.shootdown_ipis, m.flush_local), (512, 1024, 0));
    assert_eq!(
        (m.notifier_start, t.i_mmap_holds),
        (4 + 4, 2),
        "nobody wants the lock"
    );
}

#[test]
fn fork_flushes_its_parent_once_after_all_brackets_and_a_cow_write_one_page() {
    let b = Setup::linux_2_6_27().build();
    b.busy(8, b.mm);
    let mm = b.mm;
    let end = b.work(move |cx, k| async move {
        // Two mappings to copy, and so two brackets.
        for at in [BASE, BASE.add_pages(65)] {
            k.sys_mmap(&cx, mm, anonymous(at, 64)).await.expect("free");
            touch(&cx, &k, mm, range(at, 64), Access::Write).await;
        }
        k.mmu_notifier_register(&cx, mm, Rc::new(Listener::default()))
            .await;
        let before = k.metrics();
        k.engine().set_logging(Logging::Full);
        let child = k.sys_fork(&cx, mm, "child".into()).await;
        let log = k.engine().take_log();
        k.engine().set_logging(Logging::Ring);
        let forked = k.metrics().since(&before);
        assert_eq!(
            (forked.flush_mm, forked.flush_local, forked.shootdown_ipis),
            (1, 1, 7)
        );
        assert_eq!((forked.notifier_start, forked.notifier_end), (2, 2));
        let order: Vec<_> = log
            .iter()
            .filter_map(|r| match r.kind {
                RecordKind::Mark(mark, _) => Some(mark.name),
                _ => None,
            })
            .filter(|name| ["invalidate_range_start", "invalidate_range_end", "flush_tlb_mm"].contains(name))
            .collect();
        assert_eq!(
            order,
            [
                "invalidate_range_start",
                "invalidate_range_end",
                "invalidate_range_start",
                "invalidate_range_end",
                "flush_tlb_mm"
            ]
        );
        let before = k.metrics();
        k.access(&cx, mm, BASE, Access::Write).await.expect("mapped");
        let cow = k.metrics().since(&before);
        assert_eq!((cow.flush_page, cow.local_invlpg, cow.shootdown_ipis), (1, 1, 7));
        assert_eq!((cow.notifier_page, cow.brackets), (1, 0));
        k.mmput(&cx, child).await;
    });
    assert_eq!(end, End::Completed);
    assert_eq!(b.world.audit(), Vec::<String>::new());
}

#[test]
fn moving_64_file_pages_broadcasts_64_flushes_under_i_mmap_lock_and_both_pte_locks() {
    let mut setup = Setup::linux_2_6_27();
    setup.cpus = 9;
    let b = setup.build();
    b.busy(8, b.mm);
    let file = b.kernel.new_file("f", 64);
    let mm = b.mm;
    let to = Va::new(BASE.get() + (8 << 30));
    let started = Rc::new(Cell::new(None));
    let (begun, seen) = (Rc::clone(&started), Rc::new(Cell::new(0)));
    let watched = Rc::clone(&seen);
    // A ninth CPU, which nobody interrupts, looks at the locks while some of the pages were flushed and some
    // were not.
    b.thread(8, None, move |cx, k| async move {
        let before: u64 = loop {
            match begun.get() {
                Some(before) => break before,
                None => wait(&cx, 100).await,
            }
        };
        loop {
            let flushed = k.metrics().flush_page - before;
            if flushed == 64 {
                return;
            }
            if flushed > 0 {
                let locks = {
                    let st = k.st();
                    let pgd = st.mm(mm).pgd;
                    let ptl = |va: Va| st.ptl(st.tables.leaf_table(pgd, va.vpn()).expect("there"));
                    [st.file(file).i_mmap_lock, ptl(BASE), ptl(to)]
                };
                assert_eq!(locks.map(|lock| k.engine().is_locked(lock)), [true; 3]);
                watched.set(watched.get() + 1);
            }
            wait(&cx, 100).await;
        }
    });
    let end = b.work(move |cx, k| async move {
        far_neighbours(&cx, &k, mm).await;
        k.sys_mmap(&cx, mm, shared_file(BASE, 64, file))
            .await
            .expect("free");
        touch(&cx, &k, mm, range(BASE, 64), Access::Read).await;
        let told = Rc::new(Listener::default());
        k.mmu_notifier_register(&cx, mm, Rc::<Listener>::clone(&told))
            .await;
        let before = k.metrics();
        started.set(Some(before.flush_page));
        k.sys_mremap(&cx, mm, range(BASE, 64), 64, Some(to))
            .await
            .expect("moves");
        let d = k.metrics().since(&before);
        assert_eq!((d.flush_page, d.local_invlpg), (64, 64));
        // The trailing munmap finds no page but frees the page table: one more event.
        assert_eq!(d.flush_mm, 1);
        assert_eq!(d.shootdown_ipis, 448 + 7);
        // One bracket for the move, one for the munmap.
        assert_eq!((told.starts.get(), told.ends.get()), (2, 2));
    });
    assert_eq!(end, End::Completed);
    assert!(seen.get() > 10, "looked {} times", seen.get());
    assert_eq!(b.world.audit(), Vec::<String>::new());
}

#[test]
fn mprotect_flushes_once_a_vma_even_if_nothing_was_touched() {
    let b = Setup::linux_2_6_27().build();
    b.busy(2, b.mm);
    let mm = b.mm;
    let end = b.work(move |cx, k| async move {
        k.sys_mmap(&cx, mm, anonymous(BASE, 600)).await.expect("free");
        let before = k.metrics();
        k.sys_mprotect(&cx, mm, range(BASE, 600), mm::Prot::READ)
            .await
            .expect("mapped");
        let d = k.metrics().since(&before);
        assert_eq!((d.flush_mm, d.shootdown_ipis), (1, 1));
        let before = k.metrics();
        k.sys_mprotect(&cx, mm, range(BASE, 600), mm::Prot::READ)
            .await
            .expect("mapped");
        assert_eq!(
            k.metrics().since(&before).flush_mm,
            0,
            "unchanged rights: nothing at all"
        );
    });
    assert_eq!(end, End::Completed);
}

#[test]
fn a_lazy_cpu_is_interrupted_once_and_leaves() {
    let b = Setup::linux_2_6_27().build();
    let mm = b.mm;
    // A thread that ran here and went: its CPU idles with the page table still loaded.
    b.thread(1, Some(mm), |cx, _| async move {
        cx.sleep(sim::Cycles::new(1_000_000_000)).await;
    });
    let end = b.work(move |cx, k| async move {
        k.sys_mmap(&cx, mm, anonymous(BASE, 2)).await.expect("free");
        for expected in [1, 0] {
            touch(&cx, &k, mm, range(BASE, 2), Access::Write).await;
            let before = k.metrics();
            k.madvise_dontneed(&cx, mm, range(BASE, 2)).await.expect("mapped");
            assert_eq!(k.metrics().since(&before).shootdown_ipis, expected);
        }
        assert_eq!(k.metrics().leave_mm, 1);
    });
    assert_eq!(end, End::Completed);
}

#[test]
fn with_one_cpu_online_pages_are_freed_before_the_flush() {
    let mut setup = Setup::linux_2_6_27();
    setup.cpus = 1;
    let b = setup.build();
    let mm = b.mm;
    let end = b.work(move |cx, k| async move {
        far_neighbours(&cx, &k, mm).await;
        k.sys_mmap(&cx, mm, anonymous(BASE, 600)).await.expect("free");
        touch(&cx, &k, mm, range(BASE, 600), Access::Write).await;
        let before = k.metrics();
        k.sys_munmap(&cx, mm, range(BASE, 600)).await.expect("mapped");
        let d = k.metrics().since(&before);
        assert_eq!(
            d.flush_mm, 1,
            "no flush when 506 pages are queued: nothing is queued"
        );
        assert_eq!(d.pages_freed, 600);
    });
    assert_eq!(end, End::Completed);
    assert_eq!(b.world.audit(), Vec::<String>::new());
}
