//! Lock order and context: ranks, F22, F25, and the depth of nested spinlocks.

use mm::notifier::{Design, Knob, Registration};
use mm::{Kernel, KernelPreemption, MmId};
use sim::{CpuId, CpuSet, Cycles, End, Interrupt, LockId, ReaderKind};
use x86::Access;

use crate::broken;
use crate::common::{BASE, FAR_BELOW, Setup, anonymous, range, shared_file};
use crate::meddle::{Meddler, Meddling};

/// i_mmap_lock of a mapped file, anon_vma->lock and pte lock of anonymous memory.
fn some_locks(k: &Kernel, mm: MmId, file: mm::FileId) -> [LockId; 3] {
    let st = k.st();
    let anon = st.mm(mm).vmas.iter().find_map(|v| st.vma(v).anon_vma);
    let table = st
        .tables
        .leaf_table(st.mm(mm).pgd, BASE.vpn())
        .expect("populated");
    [
        st.file(file).i_mmap_lock,
        st.anon_vma(anon.expect("written")).lock,
        st.ptl(table),
    ]
}

/// A task takes two of the three in an order.
fn takes(design: Design, outer: usize, inner: usize) -> End {
    let b = Setup::linux_2_6_27().design(design).build();
    let mm = b.mm;
    let file = b.kernel.new_file("file", 1);
    b.work(move |cx, k| async move {
        k.sys_mmap(&cx, mm, anonymous(BASE, 1)).await.expect("free");
        k.sys_mmap(&cx, mm, shared_file(FAR_BELOW, 1, file))
            .await
            .expect("free");
        k.access(&cx, mm, BASE, Access::Write).await.expect("mapped");
        let locks = some_locks(&k, mm, file);
        let outer = {
            let _span = cx.span("takes_the_first");
            cx.lock(locks[outer]).await
        };
        let _span = cx.span("takes_the_second");
        let _inner = cx.lock(locks[inner]).await;
        drop(outer);
    })
}

#[test]
fn rmap_locks_the_wrong_way_round_are_found_though_nobody_took_them_the_right_way() {
    // What 2.6.27-rc1 did (notifier-variants 10.22).
    let End::Violation(v) = takes(Design::V8, 1, 0) else {
        panic!("must be found")
    };
    assert_eq!(v.kind.id(), "lock-rank");
    let places = "i_mmap_lock (rank 40) is taken in thread0 [takes_the_second] inside anon_vma->lock (rank 45), \
                  which thread0 took in [takes_the_first]";
    assert!(v.summary.starts_with(places), "{}", v.summary);
    assert_eq!(takes(Design::V8, 0, 1), End::Completed);
}

#[test]
fn a_lock_that_sleeps_keeps_its_rank() {
    let End::Violation(v) = takes(Design::V9, 1, 0) else {
        panic!("must be found")
    };
    assert_eq!(v.kind.id(), "lock-rank");
    assert!(v.summary.starts_with("i_mmap_sem (rank 40)"), "{}", v.summary);
    assert_eq!(takes(Design::V9, 0, 1), End::Completed);
}

#[test]
fn sleeping_under_a_pte_lock_is_found_with_both_places() {
    let b = Setup::linux_2_6_27().build();
    let mm = b.mm;
    let file = b.kernel.new_file("file", 1);
    let end = b.work(move |cx, k| async move {
        k.sys_mmap(&cx, mm, anonymous(BASE, 1)).await.expect("free");
        k.access(&cx, mm, BASE, Access::Write).await.expect("mapped");
        let [_, _, ptl] = some_locks(&k, mm, file);
        let _span = cx.span("holds_ptl");
        let _ptl = cx.lock(ptl).await;
        k.madvise_dontneed(&cx, mm, range(BASE, 1)).await.expect("mapped");
    });
    let v = broken(end, "F22", "sleep-in-atomic");
    assert_eq!(v.stack, ["holds_ptl", "sys_madvise"]);
    assert!(
        v.held[0].starts_with("ptl (spinlock) since holds_ptl"),
        "{:?}",
        v.held
    );
}

#[test]
fn a_flush_is_not_waited_for_with_interrupts_off() {
    let flush = |meddling| {
        let b = Setup::linux_2_6_27().build();
        b.busy(2, b.mm);
        let mm = b.mm;
        b.work(move |cx, k| async move {
            let _irqs = (meddling == Meddling::Yes).then(|| cx.irq_disable());
            k.flush_tlb_mm(&cx, mm).await;
        })
    };
    broken(flush(Meddling::Yes), "F25", "wait-with-irqs-off");
    assert_eq!(flush(Meddling::No), End::Completed);
}

#[test]
fn whoever_interrupts_the_others_for_a_flush_stays_on_its_cpu() {
    let flush = |meddling| {
        let b = Setup::linux_2_6_27().preempt(KernelPreemption::Full).build();
        b.busy(2, b.mm);
        b.work(move |cx, _| async move {
            let _stays = (meddling == Meddling::No).then(|| cx.preempt_disable());
            let flush = Interrupt {
                vector: mm::CALL_FUNCTION_VECTOR,
                a: 0,
                b: 0,
            };
            cx.interrupt_and_wait(CpuSet::only(CpuId::new(1)), flush).await;
        })
    };
    broken(flush(Meddling::Yes), "F25", "ipi-while-preemptible");
    assert_eq!(flush(Meddling::No), End::Completed);
}

/// What forbids to sleep.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Atomic {
    Nothing,
    IrqsOff,
    PreemptOff,
    Rcu,
}

#[test]
fn nobody_sleeps_with_interrupts_or_preemption_off_or_inside_rcu() {
    let waits = |atomic| {
        let b = Setup::linux_2_6_27().build();
        let mm = b.mm;
        b.work(move |cx, k| async move {
            let _irqs = (atomic == Atomic::IrqsOff).then(|| cx.irq_disable());
            let _preempt = (atomic == Atomic::PreemptOff).then(|| cx.preempt_disable());
            let rcu = cx.engine().domain(ReaderKind::Rcu, Cycles::new(1));
            let _rcu = (atomic == Atomic::Rcu).then(|| cx.read_lock(rcu));
            k.sys_mmap(&cx, mm, anonymous(BASE, 1)).await.expect("free");
        })
    };
    for atomic in [Atomic::IrqsOff, Atomic::PreemptOff, Atomic::Rcu] {
        let v = broken(waits(atomic), "F22", "sleep-in-atomic");
        assert_eq!(v.stack, ["sys_mmap"], "{atomic:?}");
    }
    assert_eq!(waits(Atomic::Nothing), End::Completed);
}

/// A callback that sleeps inside the bracket of a munmap, where the per-CPU gather is open.
#[test]
fn nobody_sleeps_while_a_gather_of_the_cpu_is_open() {
    let unmap = |meddling| {
        let b = Setup::linux_2_6_27().build();
        let mm = b.mm;
        let device = match meddling {
            Meddling::Yes => Meddler::sleeping("device"),
            Meddling::No => Meddler::idle("device"),
        };
        b.work(move |cx, k| async move {
            k.mmu_notifier_register(&cx, mm, device).await;
            k.sys_mmap(&cx, mm, anonymous(BASE, 1)).await.expect("free");
            k.access(&cx, mm, BASE, Access::Write).await.expect("mapped");
            k.sys_munmap(&cx, mm, range(BASE, 1)).await.expect("mapped");
        })
    };
    let v = broken(unmap(Meddling::Yes), "F22", "sleep-in-atomic");
    let gather = |held: &String| held.contains("preemption off");
    assert!(v.held.iter().any(gather), "{:?}", v.held);
    assert_eq!(unmap(Meddling::No), End::Completed);
}

/// Registration with as many files mapped, so as many i_mmap_locks held at a time.
fn register_over(files: u64, preemption: KernelPreemption) -> End {
    let b = Setup::linux_2_6_27().preempt(preemption).build();
    let mm = b.mm;
    b.work(move |cx, k| async move {
        for n in 0..files {
            let file = k.new_file(&format!("f{n}"), 1);
            k.sys_mmap(&cx, mm, shared_file(BASE.add_pages(2 * n), 1, file))
                .await
                .expect("free");
        }
        k.mmu_notifier_register(&cx, mm, Meddler::idle("device")).await;
    })
}

#[test]
fn sorted_locks_of_one_class_nest_in_either_kernel_and_unsorted_ones_are_found() {
    for base in [Design::V8, Design::V9] {
        let design = base.with(Knob::Registration(Registration::MmLock));
        let b = Setup::linux_2_6_27().design(design.clone()).build();
        let mm = b.mm;
        let files = [0, 1].map(|n| b.kernel.new_file(&format!("f{n}"), 1));
        let end = b.work(move |cx, k| async move {
            for (file, at) in files.into_iter().zip([BASE, FAR_BELOW]) {
                k.sys_mmap(&cx, mm, shared_file(at, 1, file)).await.expect("free");
            }
            k.mmu_notifier_register(&cx, mm, Meddler::idle("device")).await;
        });
        assert_eq!(end, End::Completed, "{}", design.id);
        let descending = {
            let b = Setup::linux_2_6_27().design(design).build();
            let files = [1, 0].map(|n| b.kernel.new_file(&format!("f{n}"), 1));
            b.work(move |cx, k| async move {
                let [low, high] = files.map(|file| k.st().file(file).i_mmap_lock);
                let _high = cx.lock(high).await;
                let _low = cx.lock(low).await;
            })
        };
        let End::Violation(v) = descending else {
            panic!("must be found: {descending:?}")
        };
        assert_eq!(v.kind.id(), "recursive-lock");
    }
}

#[test]
fn taking_all_locks_of_too_many_files_overflows_the_preemption_counter() {
    // The list's own lock is one more.
    let fits = u64::from(mm::profile::PREEMPT_COUNT_LIMIT) - 1;
    assert_eq!(register_over(fits, KernelPreemption::Full), End::Completed);
    let End::Violation(v) = register_over(fits + 1, KernelPreemption::Full) else {
        panic!("must be found")
    };
    assert_eq!(v.kind.id(), "preempt-overflow");
    let all = |h: &&String| h.starts_with("i_mmap_lock (spinlock) since mm_take_all_locks");
    assert_eq!(v.held.iter().filter(all).count() as u64, fits + 1);
    assert_eq!(v.stack, ["mmu_notifier_register"]);
    assert_eq!(
        register_over(fits + 1, KernelPreemption::Voluntary),
        End::Completed
    );
}
