//! The notifier's call sites in 2.6.27, one test a row of host-mm-paths B.0: which callback, for which
//! range, under which locks. Rows of reclaim, writeback, huge pages and nonlinear mappings stand with
//! their paths.

mod common;

use std::cell::Cell;
use std::rc::Rc;

use common::scribe::{Scribe, Told, pair};
use common::{BASE, Bench, Setup, anonymous, range, shared_file, touch};
use mm::{Kernel, MmId, Prot};
use sim::Holding::{Exclusive, PreemptOff, Rcu, Shared};
use sim::{Cx, End};
use x86::{Access, Va, VaRange};

const PAGES: u64 = 100;

/// Runs `work` in an address space with a scribe on two touched anonymous mappings with a hole of a page
/// between them.
fn told<F: Future<Output = ()> + 'static>(
    work: impl FnOnce(Cx, Rc<Kernel>, MmId, Rc<Scribe>) -> F + 'static,
) -> (Bench, Rc<Scribe>) {
    let b = Setup::linux_2_6_27().build();
    let scribe = Rc::new(Scribe::default());
    let (mm, inner) = (b.mm, Rc::clone(&scribe));
    let end = b.work(move |cx, k| async move {
        k.mmu_notifier_register(&cx, mm, inner.clone()).await;
        for at in [BASE, second()] {
            k.sys_mmap(&cx, mm, anonymous(at, PAGES)).await.expect("free");
            touch(&cx, &k, mm, range(at, PAGES), Access::Write).await;
        }
        inner.take();
        work(cx, k, mm, inner.clone()).await;
    });
    assert_eq!(end, End::Completed);
    assert_eq!(b.world.audit(), Vec::<String>::new());
    (b, scribe)
}

fn second() -> Va {
    BASE.add_pages(PAGES + 1)
}

fn both() -> VaRange {
    range(BASE, 2 * PAGES + 1)
}

#[test]
fn munmap_brackets_the_whole_range_with_its_hole_under_mmap_sem_and_the_gather() {
    let (_, scribe) =
        told(|cx, k, mm, _| async move { k.sys_munmap(&cx, mm, both()).await.expect("mapped") });
    assert_eq!(
        scribe.take(),
        pair(both(), &[Exclusive("mmap_sem"), PreemptOff, Rcu])
    );
}

#[test]
fn a_heap_that_shrinks_is_a_munmap_of_what_goes() {
    let heap = BASE.add_pages(1 << 20);
    let (_, scribe) = told(move |cx, k, mm, scribe| async move {
        // The first call says where the heap begins.
        for to in [heap, heap.add_pages(PAGES)] {
            assert_eq!(k.sys_brk(&cx, mm, to).await, to);
        }
        touch(&cx, &k, mm, range(heap, PAGES), Access::Write).await;
        scribe.take();
        let less = heap.add_pages(40);
        assert_eq!(k.sys_brk(&cx, mm, less).await, less);
    });
    let gone = range(heap.add_pages(40), PAGES - 40);
    assert_eq!(
        scribe.take(),
        pair(gone, &[Exclusive("mmap_sem"), PreemptOff, Rcu])
    );
}

#[test]
fn a_fixed_mapping_over_others_is_a_munmap_under_the_same_mmap_sem() {
    let (_, scribe) = told(|cx, k, mm, _| async move {
        let over = anonymous(BASE.add_pages(10), PAGES);
        k.sys_mmap(&cx, mm, over).await.expect("fixed");
    });
    let over = range(BASE.add_pages(10), PAGES);
    assert_eq!(
        scribe.take(),
        pair(over, &[Exclusive("mmap_sem"), PreemptOff, Rcu])
    );
}

#[test]
fn madvise_brackets_each_vma_under_mmap_sem_for_read() {
    let (_, scribe) = told(|cx, k, mm, _| async move {
        for at in [BASE, second()] {
            let part = range(at.add_pages(1), PAGES - 1);
            k.madvise_dontneed(&cx, mm, part).await.expect("mapped");
        }
    });
    let held = [Shared("mmap_sem"), PreemptOff, Rcu];
    let first = pair(range(BASE.add_pages(1), PAGES - 1), &held);
    let then = pair(range(second().add_pages(1), PAGES - 1), &held);
    assert_eq!(scribe.take(), [first, then].concat());
}

#[test]
fn truncate_brackets_each_vma_in_both_passes_under_i_mmap_lock_and_without_mmap_sem() {
    let at = BASE.add_pages(1 << 20);
    let (_, scribe) = told(move |cx, k, mm, scribe| async move {
        let file = k.new_file("f", PAGES);
        for copy in 0..2 {
            let at = at.add_pages(copy << 20);
            k.sys_mmap(&cx, mm, shared_file(at, PAGES, file))
                .await
                .expect("free");
            touch(&cx, &k, mm, range(at, PAGES), Access::Read).await;
        }
        scribe.take();
        k.do_truncate(&cx, file, 40).await;
    });
    let held = [
        Exclusive("i_mutex"),
        Exclusive("i_alloc_sem"),
        Exclusive("i_mmap_lock"),
        PreemptOff,
        Rcu,
    ];
    let vma = |copy: u64| pair(range(at.add_pages(40 + (copy << 20)), PAGES - 40), &held);
    assert_eq!(scribe.take(), [vma(0), vma(1), vma(0), vma(1)].concat());
}

#[test]
fn exit_releases_first_and_its_bracket_finds_nobody() {
    let (_, scribe) = told(|cx, k, mm, scribe| async move {
        k.exit_mm(&cx, mm).await;
        assert_eq!(scribe.calls(), 1);
    });
    assert_eq!(scribe.take(), [(Told::Release, vec![Rcu])]);
}

#[test]
fn fork_brackets_each_cow_vma_of_the_parent_under_both_mmap_sems() {
    let (_, scribe) = told(|cx, k, mm, _| async move {
        let child = k.sys_fork(&cx, mm, "child".into()).await;
        k.mmput(&cx, child).await;
    });
    let held = [Exclusive("mmap_sem"), Exclusive("mmap_sem"), Rcu];
    let (first, then) = (range(BASE, PAGES), range(second(), PAGES));
    assert_eq!(scribe.take(), [pair(first, &held), pair(then, &held)].concat());
}

#[test]
fn fork_says_nothing_about_shared_mappings() {
    let at = BASE.add_pages(1 << 20);
    let (_, scribe) = told(move |cx, k, mm, scribe| async move {
        k.sys_munmap(&cx, mm, both()).await.expect("mapped");
        let file = k.new_file("f", PAGES);
        k.sys_mmap(&cx, mm, shared_file(at, PAGES, file))
            .await
            .expect("free");
        touch(&cx, &k, mm, range(at, PAGES), Access::Write).await;
        scribe.take();
        let child = k.sys_fork(&cx, mm, "child".into()).await;
        k.mmput(&cx, child).await;
    });
    assert_eq!(scribe.take(), []);
}

#[test]
fn mprotect_brackets_the_part_of_each_vma_under_mmap_sem() {
    let (_, scribe) = told(|cx, k, mm, _| async move {
        k.sys_mprotect(&cx, mm, range(BASE.add_pages(90), 10), Prot::READ)
            .await
            .expect("mapped");
    });
    let part = range(BASE.add_pages(90), 10);
    assert_eq!(scribe.take(), pair(part, &[Exclusive("mmap_sem"), Rcu]));
}

#[test]
fn mremap_brackets_each_chunk_of_64_pages_of_the_old_range_before_i_mmap_lock() {
    let at = BASE.add_pages(1 << 20);
    let (_, scribe) = told(move |cx, k, mm, scribe| async move {
        let file = k.new_file("f", PAGES);
        k.sys_mmap(&cx, mm, shared_file(at, PAGES, file))
            .await
            .expect("free");
        touch(&cx, &k, mm, range(at, PAGES), Access::Read).await;
        scribe.take();
        let to = at.add_pages(1 << 20);
        k.sys_mremap(&cx, mm, range(at, PAGES), PAGES, Some(to))
            .await
            .expect("moves");
    });
    let held = [Exclusive("mmap_sem"), Rcu];
    let chunks = [
        pair(range(at, 64), &held),
        pair(range(at.add_pages(64), PAGES - 64), &held),
    ];
    let trailing = pair(range(at, PAGES), &[Exclusive("mmap_sem"), PreemptOff, Rcu]);
    assert_eq!(scribe.take(), [chunks.concat(), trailing].concat());
}

#[test]
fn copy_on_write_tells_of_its_page_under_the_pte_lock_when_the_entry_is_clear() {
    let at = BASE.add_pages(3);
    let clear = Rc::new(Cell::new(None));
    let seen = Rc::clone(&clear);
    let (_, scribe) = told(move |cx, k, mm, scribe| async move {
        let child = k.sys_fork(&cx, mm, "child".into()).await;
        scribe.take();
        let kernel = Rc::clone(&k);
        scribe.look(move |_| seen.set(Some(kernel.peek_pte(mm, at).is_none())));
        k.access(&cx, mm, at, Access::Write).await.expect("mapped");
        k.mmput(&cx, child).await;
    });
    assert_eq!(
        scribe.take(),
        [(Told::Page(at), vec![Shared("mmap_sem"), Exclusive("ptl"), Rcu])]
    );
    assert_eq!(clear.get(), Some(true), "between the flush and the new entry");
}

#[test]
fn a_mapping_that_grows_tells_nobody() {
    let (_, scribe) = told(|cx, k, mm, _| async move {
        k.sys_mmap(&cx, mm, anonymous(second().add_pages(PAGES), 8))
            .await
            .expect("free");
    });
    assert_eq!(scribe.take(), []);
}
