//! The second table of host-mm-paths C.3 in its column for 2.6.27: flush events of each operation beside munmap and
//! madvise, whose schedule is in `flush_counts.rs`. Rows of reclaim, writeback, migration, huge pages and
//! remap_file_pages stand with their paths.

mod common;

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::Rc;

use common::{BASE, Listener, Setup, anonymous, range, shared_file, touch, wait};
use mm::{Kernel, MmId, MmMetrics, Prot};
use sim::{Cx, End, RandomWalk, Schedule};
use x86::{Access, Va};

/// What `body` counts from the metrics it returns on, with `cpus` CPUs of eight busy in the address space.
fn counted<F: Future<Output = MmMetrics> + 'static>(
    cpus: u32,
    body: impl FnOnce(Cx, Rc<Kernel>, MmId) -> F + 'static,
) -> MmMetrics {
    let b = Setup::linux_2_6_27().build();
    b.busy(cpus, b.mm);
    let mm = b.mm;
    let before = Rc::new(RefCell::new(None));
    let out = Rc::clone(&before);
    let end = b.work(move |cx, k| async move {
        *out.borrow_mut() = Some(body(cx, k, mm).await);
    });
    assert_eq!(end, End::Completed);
    assert_eq!(b.world.audit(), Vec::<String>::new());
    b.kernel
        .metrics()
        .since(&before.take().expect("the work is done"))
}

#[test]
fn exit_flushes_as_often_as_munmap_but_leaves_the_address_space_each_time() {
    // F(1024) = 3 + 1 (host-mm-paths C.3). The dying task has no address space, so its local part is
    // leave_mm (B.3, C.4), and nobody else runs in it.
    let m = counted(1, |cx, k, mm| async move {
        k.sys_mmap(&cx, mm, anonymous(BASE, 1024)).await.expect("free");
        touch(&cx, &k, mm, range(BASE, 1024), Access::Write).await;
        let before = k.metrics();
        k.exit_mm(&cx, mm).await;
        before
    });
    assert_eq!(m.pages_zapped, 1024);
    assert_eq!((m.flush_mm, m.shootdown_ipis), (4, 0));
    assert_eq!((m.flush_local, m.leave_mm), (4, 4));
    assert_eq!((m.local_cr3, m.local_invlpg), (0, 0));
}

#[test]
fn exec_flushes_an_address_space_that_runs_nowhere_any_more() {
    // The new one is active before the old one goes (host-mm-paths B.3): neither local flush nor IPI.
    let m = counted(1, |cx, k, mm| async move {
        k.sys_mmap(&cx, mm, anonymous(BASE, 1024)).await.expect("free");
        touch(&cx, &k, mm, range(BASE, 1024), Access::Write).await;
        let before = k.metrics();
        k.exec_mmap(&cx, mm, "new".into()).await;
        before
    });
    assert_eq!(m.pages_zapped, 1024);
    assert_eq!((m.flush_mm, m.shootdown_ipis), (4, 0));
    assert_eq!((m.flush_local, m.leave_mm), (0, 0));
}

#[test]
fn mprotect_flushes_once_for_each_vma_whose_rights_change() {
    let m = counted(8, |cx, k, mm| async move {
        // Four mappings side by side that do not merge; the third has the rights already.
        for n in 0..4 {
            let file = k.new_file("f", 8);
            let request = mm::MapRequest {
                prot: if n == 2 { Prot::READ } else { Prot::READ_WRITE },
                ..shared_file(BASE.add_pages(n * 8), 8, file)
            };
            k.sys_mmap(&cx, mm, request).await.expect("free");
        }
        touch(&cx, &k, mm, range(BASE, 4 * 8), Access::Read).await;
        let before = k.metrics();
        k.sys_mprotect(&cx, mm, range(BASE, 4 * 8), Prot::READ)
            .await
            .expect("mapped");
        before
    });
    assert_eq!((m.flush_mm, m.flush_page), (3, 0));
    assert_eq!((m.flush_local, m.shootdown_ipis), (3, 3 * 7));
}

#[test]
fn mremap_of_100_pages_is_two_chunks_of_a_flush_a_page() {
    let told = Rc::new(Listener::default());
    let listener = Rc::clone(&told);
    let m = counted(2, |cx, k, mm| async move {
        k.sys_mmap(&cx, mm, anonymous(BASE, 100)).await.expect("free");
        touch(&cx, &k, mm, range(BASE, 100), Access::Write).await;
        k.mmu_notifier_register(&cx, mm, listener).await;
        let before = k.metrics();
        let to = Va::new(BASE.get() + (8 << 30));
        k.sys_mremap(&cx, mm, range(BASE, 100), 100, Some(to))
            .await
            .expect("moves");
        before
    });
    assert_eq!((m.flush_page, m.local_invlpg), (100, 100));
    // 64 pages and 36, then the munmap of the old range.
    assert_eq!((told.starts.get(), told.ends.get()), (3, 3));
    assert_eq!(m.pages_zapped, 0);
}

#[test]
fn the_sole_owner_of_a_private_page_may_write_after_one_flush_that_nobody_is_told() {
    let m = counted(8, |cx, k, mm| async move {
        k.sys_mmap(&cx, mm, anonymous(BASE, 1)).await.expect("free");
        k.access(&cx, mm, BASE, Access::Write).await.expect("mapped");
        k.mmu_notifier_register(&cx, mm, Rc::new(Listener::default()))
            .await;
        let child = k.sys_fork(&cx, mm, "child".into()).await;
        k.mmput(&cx, child).await;
        let page = k.peek_pte(mm, BASE);
        assert!(page.present() && !page.writable(), "as fork left it");
        let before = k.metrics();
        k.access(&cx, mm, BASE, Access::Write).await.expect("mapped");
        assert_eq!(k.peek_pte(mm, BASE).pfn(), page.pfn(), "not copied");
        before
    });
    assert_eq!((m.faults_total, m.faults_reuse, m.faults_cow), (1, 1, 0));
    assert_eq!((m.flush_page, m.flush_mm), (1, 0));
    assert_eq!((m.local_invlpg, m.shootdown_ipis), (1, 7));
    assert_eq!((m.notifier_page, m.brackets), (0, 0));
}

#[test]
fn truncation_costs_the_sum_over_its_vmas() {
    // F(512) + F(1024) = 2 + 3 in pass 1; pass 2 walks both again and flushes nothing.
    let b = Setup::linux_2_6_27().build();
    let file = b.kernel.new_file("f", 1024);
    let mm = b.mm;
    let told = Rc::new(Listener::default());
    let (ready, stop) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(false)));
    {
        let (ready, stop) = (Rc::clone(&ready), Rc::clone(&stop));
        let told = Rc::clone(&told);
        b.thread(1, Some(mm), move |cx, k| async move {
            for (at, pages) in [(BASE, 512), (BASE.add_pages(1 << 20), 1024)] {
                k.sys_mmap(&cx, mm, shared_file(at, pages, file))
                    .await
                    .expect("free");
                touch(&cx, &k, mm, range(at, pages), Access::Read).await;
            }
            k.mmu_notifier_register(&cx, mm, told).await;
            ready.set(true);
            while !stop.get() {
                wait(&cx, 2_000).await;
            }
        });
    }
    b.thread(0, None, move |cx, k| async move {
        while !ready.get() {
            wait(&cx, 2_000).await;
        }
        let before = k.metrics();
        k.do_truncate(&cx, file, 0).await;
        let m = k.metrics().since(&before);
        assert_eq!(m.flush_mm, 2 + 3);
        assert_eq!((m.shootdown_ipis, m.flush_local), (5, 0), "one CPU, not this one");
        assert_eq!(m.pages_zapped, 512 + 1024);
        stop.set(true);
    });
    assert_eq!(b.engine.run(), End::Completed);
    assert_eq!((told.starts.get(), told.ends.get()), (4, 4));
    assert_eq!(b.world.audit(), Vec::<String>::new());
}

/// A thread that faults on a page while another one holds mmap_sem for write and makes it present, and what
/// its fault cost.
fn late_fault(access: Access) -> MmMetrics {
    const PAGES: u64 = 64;
    let b = Setup::linux_2_6_27().build();
    let mm = b.mm;
    let (before, locked) = (Rc::new(RefCell::new(None)), Rc::new(Cell::new(false)));
    let (started, done) = (Rc::clone(&before), Rc::clone(&locked));
    b.thread(1, Some(mm), move |cx, k| async move {
        while started.borrow().is_none() || !k.engine().is_locked(k.mmap_sem(mm)) {
            wait(&cx, 100).await;
        }
        let last = BASE.add_pages(PAGES - 1);
        assert!(k.peek_pte(mm, last).is_none());
        k.access(&cx, mm, last, access).await.expect("mapped");
        assert!(done.get(), "it had to wait");
    });
    let out = Rc::clone(&before);
    let end = b.work(move |cx, k| async move {
        k.sys_mmap(&cx, mm, anonymous(BASE, PAGES)).await.expect("free");
        *out.borrow_mut() = Some(k.metrics());
        k.sys_mlock(&cx, mm, range(BASE, PAGES)).await.expect("mapped");
        locked.set(true);
    });
    assert_eq!(end, End::Completed);
    assert_eq!(b.world.audit(), Vec::<String>::new());
    b.kernel.metrics().since(&before.take().expect("begun"))
}

#[test]
fn a_write_fault_that_finds_nothing_to_change_flushes_its_page() {
    let m = late_fault(Access::Write);
    assert_eq!(m.faults_spurious, 1);
    assert_eq!((m.flush_page, m.flush_mm), (1, 0));
    assert_eq!((m.local_invlpg, m.shootdown_ipis), (1, 1));
}

#[test]
fn a_read_fault_that_finds_nothing_to_change_does_not_even_write_the_entry() {
    let m = late_fault(Access::Read);
    assert_eq!(m.faults_spurious, 1);
    assert_eq!((m.flush_page, m.flush_mm, m.shootdown_ipis), (0, 0, 0));
}

#[test]
fn of_two_threads_that_touch_a_page_first_at_most_the_loser_flushes() {
    let (mut met, mut avoided) = (0, 0);
    for seed in 0..200 {
        let b = Setup::linux_2_6_27().build_with(Schedule::Explored(Box::new(RandomWalk::new(seed))));
        let mm = b.mm;
        let mapped = Rc::new(Cell::new(false));
        for cpu in [0, 1] {
            let mapped = Rc::clone(&mapped);
            b.thread(cpu, Some(mm), move |cx, k| async move {
                if cpu == 0 {
                    k.sys_mmap(&cx, mm, anonymous(BASE, 1)).await.expect("free");
                    mapped.set(true);
                }
                while !mapped.get() {
                    wait(&cx, 1).await;
                }
                k.access(&cx, mm, BASE, Access::Write).await.expect("mapped");
            });
        }
        assert_eq!(b.engine.run(), End::Completed, "seed {seed}");
        let m = b.kernel.metrics();
        assert_eq!(m.faults_anon, 1, "seed {seed}: one page, whoever wins");
        assert_eq!(m.flush_page, m.faults_spurious, "seed {seed}");
        match m.flush_page {
            0 => avoided += 1,
            1 => met += 1,
            n => panic!("seed {seed}: {n} flushes for one page"),
        }
    }
    // The loser flushes if the entry was there when it looked, and not if it found out under the lock.
    assert!(met > 0 && avoided > 0, "{met} met, {avoided} avoided");
}
