//! What TLBs and walkers may still lead to: F1, F2, F18, F20, F21, F26, F27.

use mm::frame::Owner;
use mm::invariants::{
    FILLED_OUTSIDE_MASK, REPLACED_WITHOUT_FLUSH, ROOT_FREED_WHILE_LOADED, WRITABLE_AFTER_FORK,
    WRITABLE_SHARED_PAGE,
};
use mm::page::{FREE_WHILE_MAPPED, FREE_WHILE_WALKED, STALE_USE};
use mm::{Backing, Kernel, MapRequest, MmId};
use sim::{CpuId, Cx, End};
use x86::{Access, Pgoff};

use crate::common::{BASE, Bench, Setup, anonymous, range, wait};
use crate::meddle::{Meddling, Step};
use crate::{broken, in_audit};

/// What happens to a page that a second CPU has in its TLB.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Op {
    Dontneed,
    Munmap,
    Fork,
    /// A store after a fork, which copies the page.
    Copy,
}

async fn run(cx: &Cx, k: &Kernel, mm: MmId, op: Op) {
    match op {
        Op::Dontneed => k.madvise_dontneed(cx, mm, range(BASE, 1)).await.expect("mapped"),
        Op::Munmap => k.sys_munmap(cx, mm, range(BASE, 1)).await.expect("mapped"),
        Op::Fork => {
            k.sys_fork(cx, mm, "child".into()).await;
        }
        Op::Copy => k.access(cx, mm, BASE, Access::Write).await.expect("mapped"),
    }
}

/// Two CPUs use a page; the mask forgets the second one, or not, before the first changes something.
fn with_a_forgotten_cpu(op: Op, meddling: Meddling) -> End {
    let b = Setup::linux_2_6_27().build();
    let (mm, step) = (b.mm, Step::default());
    let at = step.clone();
    b.thread(1, Some(mm), move |cx, k| async move {
        at.wait_for(&cx, 1).await;
        let access = if op == Op::Copy {
            Access::Read
        } else {
            Access::Write
        };
        k.access(&cx, mm, BASE, access).await.expect("mapped");
        at.reach(2);
        at.wait_for(&cx, 3).await;
    });
    b.work(move |cx, k| async move {
        k.sys_mmap(&cx, mm, anonymous(BASE, 1)).await.expect("free");
        k.access(&cx, mm, BASE, Access::Write).await.expect("mapped");
        if op == Op::Copy {
            run(&cx, &k, mm, Op::Fork).await;
        }
        step.reach(1);
        step.wait_for(&cx, 2).await;
        if meddling == Meddling::Yes {
            k.st().mm_mut(mm).cpu_vm_mask.remove(CpuId::new(1));
        }
        run(&cx, &k, mm, op).await;
        step.reach(3);
    })
}

#[test]
fn what_a_cpu_left_out_of_a_flush_can_still_use_is_found_at_the_step_that_matters() {
    for (op, id, kind) in [
        (Op::Dontneed, "F1", FREE_WHILE_MAPPED),
        (Op::Munmap, "F2", FREE_WHILE_WALKED),
        (Op::Fork, "F20", WRITABLE_AFTER_FORK),
        (Op::Copy, "F26", REPLACED_WITHOUT_FLUSH),
    ] {
        let v = broken(with_a_forgotten_cpu(op, Meddling::Yes), id, kind);
        if op != Op::Fork {
            assert!(v.summary.contains("cpu1"), "{op:?}: {}", v.summary);
        }
        assert_eq!(with_a_forgotten_cpu(op, Meddling::No), End::Completed, "{op:?}");
    }
}

#[test]
fn a_cpu_outside_the_mask_gets_no_translation() {
    let access = |meddling| {
        let b = Setup::linux_2_6_27().build();
        let mm = b.mm;
        b.work(move |cx, k| async move {
            k.sys_mmap(&cx, mm, anonymous(BASE, 1)).await.expect("free");
            if meddling == Meddling::Yes {
                k.st().mm_mut(mm).cpu_vm_mask.remove(cx.cpu());
            }
            k.access(&cx, mm, BASE, Access::Write).await.expect("mapped");
        })
    };
    let v = broken(access(Meddling::Yes), "F18", FILLED_OUTSIDE_MASK);
    assert!(
        v.summary.contains("cpu0 gets a translation of job"),
        "{}",
        v.summary
    );
    assert_eq!(access(Meddling::No), End::Completed);
}

/// Makes the entry of the first page writable, whoever shares the page, and drops it from the TLB.
async fn force_writable(cx: &Cx, k: &Kernel, mm: MmId) {
    {
        let mut st = k.st();
        let (table, _, index) = st.tables.find_leaf(st.mm(mm).pgd, BASE.vpn()).expect("mapped");
        let entry = st.tables.get(table, index);
        st.tables.set(table, index, entry.with_write());
    }
    k.flush_tlb_page(cx, mm, BASE).await;
}

/// Parent and child share a page after fork.
fn shared_after_fork(meddling: Meddling, stores: bool) -> (Bench, End) {
    let b = Setup::linux_2_6_27().build();
    let mm = b.mm;
    let end = b.work(move |cx, k| async move {
        k.sys_mmap(&cx, mm, anonymous(BASE, 1)).await.expect("free");
        k.access(&cx, mm, BASE, Access::Write).await.expect("mapped");
        k.sys_fork(&cx, mm, "child".into()).await;
        if meddling == Meddling::Yes {
            force_writable(&cx, &k, mm).await;
        }
        if stores {
            k.access(&cx, mm, BASE, Access::Write).await.expect("mapped");
        }
    });
    (b, end)
}

#[test]
fn a_page_that_a_child_shares_cannot_be_written() {
    let (_, end) = shared_after_fork(Meddling::Yes, true);
    broken(end, "F21", WRITABLE_SHARED_PAGE);
    let (b, end) = shared_after_fork(Meddling::Yes, false);
    assert_eq!(end, End::Completed);
    in_audit(b.world.audit(), "F21");
    let (b, end) = shared_after_fork(Meddling::No, true);
    assert_eq!(end, End::Completed);
    assert_eq!(b.world.audit(), Vec::<String>::new());
}

#[test]
fn a_private_mapping_does_not_write_to_the_page_cache() {
    let b = Setup::linux_2_6_27().build();
    let mm = b.mm;
    let file = b.kernel.new_file("library", 1);
    let end = b.work(move |cx, k| async move {
        let private = MapRequest {
            backing: Backing::File(file),
            pgoff: Pgoff::new(0),
            ..anonymous(BASE, 1)
        };
        k.sys_mmap(&cx, mm, private).await.expect("free");
        k.access(&cx, mm, BASE, Access::Read).await.expect("mapped");
        force_writable(&cx, &k, mm).await;
        let pfn = k.peek_pte(mm, BASE).pfn();
        assert_eq!(k.frames().get(pfn).owner(), Owner::File(file));
    });
    assert_eq!(end, End::Completed);
    in_audit(b.world.audit(), "F21");
}

#[test]
fn an_address_space_that_is_loaded_has_a_top_level_table() {
    let load = |meddling| {
        let b = Setup::linux_2_6_27().build();
        b.work(move |cx, k| async move {
            let other = k.new_mm("other".into());
            if meddling == Meddling::Yes {
                let pgd = k.st().mm(other).pgd;
                k.st().tables.free(pgd);
            }
            k.activate_mm(&cx, other);
        })
    };
    broken(load(Meddling::Yes), "F27", ROOT_FREED_WHILE_LOADED);
    assert_eq!(load(Meddling::No), End::Completed);
}

#[test]
fn an_address_space_that_is_loaded_lazily_has_one_too() {
    let b = Setup::linux_2_6_27().build();
    let mm = b.mm;
    let end = b.work(move |cx, k| async move {
        // The last user goes; the CPU keeps the page table loaded until somebody else runs there.
        k.exit_mm(&cx, mm).await;
        wait(&cx, 1).await;
    });
    assert_eq!(end, End::Completed);
    assert_eq!(b.world.audit(), Vec::<String>::new());
    let pgd = b.kernel.st().mm(mm).pgd;
    b.kernel.st().tables.free(pgd);
    in_audit(b.world.audit(), "F27");
}

#[test]
fn a_translation_from_before_its_page_was_freed_is_found_when_it_is_used() {
    let use_again = |meddling| {
        let b = Setup::linux_2_6_27().build();
        let mm = b.mm;
        b.work(move |cx, k| async move {
            k.sys_mmap(&cx, mm, anonymous(BASE, 1)).await.expect("free");
            k.access(&cx, mm, BASE, Access::Write).await.expect("mapped");
            if meddling == Meddling::Yes {
                let pfn = k.peek_pte(mm, BASE).pfn();
                let mut frames = k.frames();
                let frame = frames.get_mut(pfn);
                frame.generation = frame.generation.next();
            }
            k.access(&cx, mm, BASE, Access::Write).await.expect("mapped");
        })
    };
    broken(use_again(Meddling::Yes), "F1", STALE_USE);
    assert_eq!(use_again(Meddling::No), End::Completed);
}
