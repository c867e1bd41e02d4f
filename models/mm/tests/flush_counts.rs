//! The flush schedule of host-mm-paths C.3 and the totals of C.4, cell by cell.

mod common;

use std::cell::RefCell;
use std::rc::Rc;

use common::{BASE, Setup, anonymous, far_neighbours, range, shared_file, touch};
use mm::{KernelPreemption, MmMetrics};
use sim::End;
use x86::Access;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Op {
    Madvise,
    Munmap,
}

/// Counters that an operation on N touched anonymous pages adds, on C busy CPUs of eight.
fn measure(op: Op, pages: u64, cpus: u32, preemption: KernelPreemption) -> MmMetrics {
    let b = Setup::linux_2_6_27().preempt(preemption).build();
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
    difference(&before, &after)
}

fn difference(before: &MmMetrics, after: &MmMetrics) -> MmMetrics {
    let mut d = after.clone();
    d.flush_mm -= before.flush_mm;
    d.flush_page -= before.flush_page;
    d.flush_local -= before.flush_local;
    d.local_cr3 -= before.local_cr3;
    d.local_invlpg -= before.local_invlpg;
    d.shootdown_ipis -= before.shootdown_ipis;
    d.shootdown_rounds -= before.shootdown_rounds;
    d.flush_under_ptl -= before.flush_under_ptl;
    d.flush_block_end -= before.flush_block_end;
    d.flush_final -= before.flush_final;
    d.ptl_holds -= before.ptl_holds;
    d.pages_zapped -= before.pages_zapped;
    d.tables_freed -= before.tables_freed;
    d
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

#[test]
fn flush_events_and_ipis_are_those_of_the_reference_in_every_cell() {
    let columns = [
        (Op::Madvise, KernelPreemption::Voluntary),
        (Op::Munmap, KernelPreemption::Voluntary),
        (Op::Madvise, KernelPreemption::Full),
        (Op::Munmap, KernelPreemption::Full),
    ];
    for (pages, events) in TABLE {
        for ((op, preemption), expected) in columns.into_iter().zip(events) {
            for cpus in [1, 2, 8] {
                let m = measure(op, pages, cpus, preemption);
                let cell = format!("{op:?} N={pages} C={cpus} {preemption:?}");
                assert_eq!(m.flush_mm, expected, "{cell}: events");
                assert_eq!(m.flush_local, expected, "{cell}: local flushes");
                assert_eq!(m.shootdown_ipis, expected * u64::from(cpus - 1), "{cell}: IPIs");
                assert_eq!(m.pages_zapped, pages, "{cell}: pages");
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
fn the_largest_row_of_the_table_holds() {
    let m = measure(Op::Munmap, 262_144, 1, KernelPreemption::Voluntary);
    assert_eq!(m.flush_mm, 770);
}

#[test]
fn munmap_of_4096_pages_on_8_cpus_flushes_where_the_reference_says() {
    let m = measure(Op::Munmap, 4096, 8, KernelPreemption::Voluntary);
    assert_eq!((m.flush_under_ptl, m.flush_block_end, m.flush_final), (8, 4, 1));
    assert_eq!((m.local_cr3, m.shootdown_ipis, m.ptl_holds), (13, 91, 8));
}

/// Truncate to 0 by an outsider: 4 processes map the same 1024 clean file pages, 2 CPUs each.
fn truncate_by_outsider(preemption: KernelPreemption) -> (MmMetrics, Vec<sim::Class>) {
    const PROCESSES: u32 = 4;
    const PAGES: u64 = 1024;
    let mut setup = Setup::linux_2_6_27().preempt(preemption);
    setup.cpus = 2 * PROCESSES + 1;
    let b = setup.build();
    let file = b.kernel.new_file("shared", PAGES);
    let stop = Rc::new(std::cell::Cell::new(false));
    let ready = Rc::new(std::cell::Cell::new(0));
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
                    ready.set(ready.get() + 1);
                }
                while !stop.get() {
                    cx.charge(common::BUSY, sim::Cycles::new(2_000));
                    cx.step(sim::Object::None, sim::Action::Run).await;
                }
            });
        }
    }
    let delta = Rc::new(RefCell::new(None));
    let out = Rc::clone(&delta);
    b.thread(0, None, move |cx, k| async move {
        while ready.get() < PROCESSES {
            cx.charge(common::BUSY, sim::Cycles::new(2_000));
            cx.step(sim::Object::None, sim::Action::Run).await;
        }
        let before = k.metrics();
        k.do_truncate(&cx, file, 0).await;
        *out.borrow_mut() = Some(difference(&before, &k.metrics()));
        stop.set(true);
    });
    assert_eq!(b.engine.run(), End::Completed);
    assert_eq!(b.world.audit(), Vec::<String>::new());
    (delta.borrow_mut().take().expect("measured"), b.engine.lock_stat())
}

#[test]
fn truncate_by_an_outsider_costs_the_worked_total() {
    let (m, _) = truncate_by_outsider(KernelPreemption::Voluntary);
    assert_eq!((m.flush_mm, m.shootdown_ipis, m.flush_local), (12, 24, 0));
    // One tree node and three list members, in each of the two passes.
    assert_eq!((m.i_mmap_nodes, m.i_mmap_members), (2, 6));
    assert_eq!(m.truncate_batches, 74);
}

#[test]
fn truncate_by_an_outsider_costs_the_worked_total_with_preempt() {
    let (m, _) = truncate_by_outsider(KernelPreemption::Full);
    assert_eq!((m.flush_mm, m.shootdown_ipis), (512, 1024));
}

#[test]
fn fork_flushes_its_parent_once_and_a_cow_write_one_page() {
    let b = Setup::linux_2_6_27().build();
    b.busy(8, b.mm);
    let mm = b.mm;
    let end = b.work(move |cx, k| async move {
        k.sys_mmap(&cx, mm, anonymous(BASE, 64)).await.expect("free");
        touch(&cx, &k, mm, range(BASE, 64), Access::Write).await;
        let before = k.metrics();
        let child = k.sys_fork(&cx, mm, "child".into()).await;
        let forked = difference(&before, &k.metrics());
        assert_eq!(
            (forked.flush_mm, forked.flush_local, forked.shootdown_ipis),
            (1, 1, 7)
        );
        let before = k.metrics();
        k.access(&cx, mm, BASE, Access::Write).await.expect("mapped");
        let cow = difference(&before, &k.metrics());
        assert_eq!((cow.flush_page, cow.local_invlpg, cow.shootdown_ipis), (1, 1, 7));
        k.mmput(&cx, child).await;
    });
    assert_eq!(end, End::Completed);
    assert_eq!(b.world.audit(), Vec::<String>::new());
}

#[test]
fn moving_64_file_pages_broadcasts_64_flushes_under_i_mmap_lock() {
    let b = Setup::linux_2_6_27().build();
    b.busy(8, b.mm);
    let file = b.kernel.new_file("f", 64);
    let mm = b.mm;
    let end = b.work(move |cx, k| async move {
        far_neighbours(&cx, &k, mm).await;
        k.sys_mmap(&cx, mm, shared_file(BASE, 64, file))
            .await
            .expect("free");
        touch(&cx, &k, mm, range(BASE, 64), Access::Read).await;
        let before = k.metrics();
        let to = x86::Va::new(common::BASE.get() + (8 << 30));
        k.sys_mremap(&cx, mm, range(BASE, 64), 64, Some(to))
            .await
            .expect("moves");
        let d = difference(&before, &k.metrics());
        assert_eq!((d.flush_page, d.local_invlpg), (64, 64));
        // The trailing munmap finds no page but frees the page table: one more event.
        assert_eq!(d.flush_mm, 1);
        assert_eq!(d.shootdown_ipis, 448 + 7);
    });
    assert_eq!(end, End::Completed);
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
        let d = difference(&before, &k.metrics());
        assert_eq!((d.flush_mm, d.shootdown_ipis), (1, 1));
        let before = k.metrics();
        k.sys_mprotect(&cx, mm, range(BASE, 600), mm::Prot::READ)
            .await
            .expect("mapped");
        assert_eq!(
            difference(&before, &k.metrics()).flush_mm,
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
            assert_eq!(difference(&before, &k.metrics()).shootdown_ipis, expected);
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
        let d = difference(&before, &k.metrics());
        assert_eq!(
            d.flush_mm, 1,
            "no flush when 506 pages are queued: nothing is queued"
        );
        assert_eq!(d.pages_freed - before.pages_freed, 600);
    });
    assert_eq!(end, End::Completed);
    assert_eq!(b.world.audit(), Vec::<String>::new());
}
