//! Faults in mappings of huge pages, and what they take from the pool: host-mm-paths B.17, G.15.

mod common;

use std::cell::Cell;
use std::rc::Rc;

use common::huge::{huge, huge_range, solo, touch_huge, with_pool};
use common::{BASE, FAR_ABOVE, Listener, Setup, range, touch, wait};
use mm::hugetlb::{HPAGE_PAGES, PoolState};
use mm::{MapError, MapRequest, Refused, Sharing};
use sim::{End, ViolationKind};
use x86::{Access, Pgoff};

#[test]
fn one_mutex_serialises_the_faults_of_all_processes() {
    let b = Setup::linux_2_6_27().build();
    b.kernel.add_hugepages(2).expect("memory");
    let begin = Rc::new(Cell::new(0));
    for cpu in 0..2 {
        let mm = b.kernel.new_mm("other".into());
        let file = b.kernel.new_hugetlb_file("huge", HPAGE_PAGES);
        let begin = Rc::clone(&begin);
        b.thread(cpu, Some(mm), move |cx, k| async move {
            k.sys_mmap(&cx, mm, huge(BASE, 1, file, Sharing::Shared))
                .await
                .expect("free");
            begin.set(begin.get() + 1);
            while begin.get() < 2 {
                wait(&cx, 100).await;
            }
            k.access(&cx, mm, BASE, Access::Write).await.expect("mapped");
        });
    }
    assert_eq!(b.engine.run(), End::Completed);
    let classes = b.engine.lock_stat();
    let mutex = classes
        .iter()
        .find(|c| c.def.name == "hugetlb_instantiation_mutex");
    let mutex = &mutex.expect("declared").exclusive;
    assert_eq!((mutex.acquisitions, mutex.contentions), (2, 1));
    // The second waits until the first has cleared 2 MiB.
    let clear = b.kernel.machine.costs.clear_page.get() * HPAGE_PAGES;
    assert!(mutex.wait.max() > clear / 2, "{} of {clear}", mutex.wait.max());
}

#[test]
fn the_first_write_to_a_private_huge_page_flushes_a_page_and_to_a_shared_one_does_not() {
    for (sharing, flushes) in [(Sharing::Private, 1), (Sharing::Shared, 0)] {
        solo(2, move |cx, k, mm, file| async move {
            k.sys_mmap(&cx, mm, huge(BASE, 1, file, sharing))
                .await
                .expect("free");
            k.access(&cx, mm, BASE, Access::Write).await.expect("mapped");
            let m = k.metrics();
            assert_eq!((m.flush_page, m.flush_mm), (flushes, 0));
            assert_eq!((m.faults_huge, m.faults_huge_cow), (1, 0));
        });
    }
}

#[test]
fn fork_and_copy_on_write_of_huge_pages_tell_no_subscriber() {
    solo(4, |cx, k, mm, file| async move {
        k.sys_mmap(&cx, mm, huge(BASE, 2, file, Sharing::Private))
            .await
            .expect("free");
        touch_huge(&cx, &k, mm, huge_range(BASE, 2), Access::Write).await;
        let heard = Rc::new(Listener::default());
        k.mmu_notifier_register(&cx, mm, heard.clone()).await;
        k.start_measuring();
        let child = k.sys_fork(&cx, mm, "child".into()).await;
        assert_eq!((k.metrics().flush_mm, k.metrics().pages_forked), (1, 2));
        k.access(&cx, mm, BASE, Access::Write).await.expect("copied");
        let m = k.metrics();
        assert_eq!((m.faults_huge_cow, m.flush_page, m.flush_mm), (1, 1, 1));
        assert_eq!(
            (heard.starts.get(), heard.ends.get(), heard.pages.get()),
            (0, 0, 0)
        );
        k.mmput(&cx, child).await;
        // The other page is the parent's alone again.
        let other = BASE.add_pages(HPAGE_PAGES);
        k.access(&cx, mm, other, Access::Write).await.expect("reused");
        let m = k.metrics();
        assert_eq!((m.faults_huge_cow, m.faults_reuse, m.flush_page), (1, 1, 2));
    });
}

/// The parent copies a page after fork, then the child, its last owner, exits.
fn copy_then_free(secondary: bool) -> End {
    let (end, _) = with_pool(Setup::linux_2_6_27(), 4, 1, move |cx, k, mm, file| async move {
        k.sys_mmap(&cx, mm, huge(BASE, 1, file, Sharing::Private))
            .await
            .expect("free");
        let page = k
            .get_user_page(&cx, mm, BASE.add_pages(9), Access::Write)
            .await
            .expect("mapped");
        k.put_page(&cx, page.pfn).await;
        k.mmu_notifier_register(&cx, mm, Rc::new(Listener::default()))
            .await;
        if secondary {
            k.secondary_mapped(page.pfn);
        }
        let child = k.sys_fork(&cx, mm, "child".into()).await;
        k.access(&cx, mm, BASE, Access::Write).await.expect("copied");
        k.mmput(&cx, child).await;
    });
    end
}

#[test]
fn a_secondary_mmu_without_references_is_left_with_a_page_that_was_freed() {
    assert_eq!(copy_then_free(false), End::Completed);
    let End::Violation(v) = copy_then_free(true) else {
        panic!("nobody told it");
    };
    assert_eq!(v.kind, ViolationKind::Model("free-while-mapped"));
}

#[test]
fn a_child_finds_shared_huge_pages_without_a_fault() {
    let b = Setup::linux_2_6_27().build();
    b.kernel.add_hugepages(4).expect("memory");
    let file = b.kernel.new_hugetlb_file("huge", 4 * HPAGE_PAGES);
    let mm = b.mm;
    let child = Rc::new(Cell::new(None));
    let born = Rc::clone(&child);
    b.thread(0, Some(mm), move |cx, k| async move {
        k.sys_mmap(&cx, mm, huge(BASE, 4, file, Sharing::Shared))
            .await
            .expect("free");
        touch_huge(&cx, &k, mm, huge_range(BASE, 4), Access::Write).await;
        k.start_measuring();
        born.set(Some(k.sys_fork(&cx, mm, "child".into()).await));
    });
    b.thread(1, None, move |cx, k| async move {
        let mm = loop {
            match child.get() {
                Some(mm) => break mm,
                None => wait(&cx, 1_000).await,
            }
        };
        k.activate_mm(&cx, mm);
        touch_huge(&cx, &k, mm, huge_range(BASE, 4), Access::Write).await;
    });
    assert_eq!(b.engine.run(), End::Completed);
    let m = b.kernel.metrics();
    assert_eq!((m.pages_forked, m.faults_total), (4, 0));
    assert_eq!(b.world.audit(), Vec::<String>::new());
}

#[test]
fn the_owner_of_a_private_mapping_gets_what_it_was_promised_and_its_child_nothing() {
    solo(4, |cx, k, mm, file| async move {
        k.sys_mmap(&cx, mm, huge(BASE, 3, file, Sharing::Private))
            .await
            .expect("free");
        let state = |free, reserved| PoolState {
            total: 4,
            free,
            reserved,
        };
        assert_eq!(k.huge_pool(), state(4, 3));
        let second = k
            .sys_mmap(&cx, mm, huge(FAR_ABOVE, 2, file, Sharing::Private))
            .await;
        assert_eq!(second, Err(MapError::NoHugePages));
        k.access(&cx, mm, BASE, Access::Write).await.expect("promised");
        assert_eq!(k.huge_pool(), state(3, 2));
        let child = k.sys_fork(&cx, mm, "child".into()).await;
        let va = |n| BASE.add_pages(n * HPAGE_PAGES);
        // One page is promised to nobody.
        if let Ok(page) = k.get_user_page(&cx, child, va(1), Access::Write).await {
            k.put_page(&cx, page.pfn).await;
        }
        assert_eq!(k.huge_pool(), state(2, 2));
        let refused = k.get_user_page(&cx, child, va(2), Access::Write).await;
        assert_eq!(refused, Err(Refused::OutOfMemory));
        k.access(&cx, mm, va(2), Access::Write).await.expect("promised");
        k.mmput(&cx, child).await;
        k.sys_munmap(&cx, mm, huge_range(BASE, 3)).await.expect("mapped");
        assert_eq!(k.huge_pool(), state(4, 0));
    });
}

#[test]
fn shared_mappings_of_a_file_promise_a_page_once() {
    solo(4, |cx, k, mm, file| async move {
        k.sys_mmap(&cx, mm, huge(BASE, 3, file, Sharing::Shared))
            .await
            .expect("free");
        k.sys_mmap(&cx, mm, huge(FAR_ABOVE, 4, file, Sharing::Shared))
            .await
            .expect("free");
        assert_eq!(k.huge_pool().reserved, 4);
        k.access(&cx, mm, BASE, Access::Read).await.expect("mapped");
        k.access(&cx, mm, FAR_ABOVE, Access::Read).await.expect("mapped");
        let used = PoolState {
            total: 4,
            free: 3,
            reserved: 3,
        };
        assert_eq!(k.huge_pool(), used);
        // The file keeps its pages and promises.
        k.sys_munmap(&cx, mm, huge_range(BASE, 3)).await.expect("mapped");
        k.sys_munmap(&cx, mm, huge_range(FAR_ABOVE, 4))
            .await
            .expect("mapped");
        assert_eq!(k.huge_pool(), used);
        k.do_truncate(&cx, file, 0).await;
        assert_eq!(
            k.huge_pool(),
            PoolState {
                total: 4,
                free: 4,
                reserved: 0
            }
        );
    });
}

/// The parent writes to a page it shares with its child, with so many huge pages in all.
fn take_back(huge_pages: u64, offset: u64) -> End {
    let (end, _) = with_pool(
        Setup::linux_2_6_27(),
        huge_pages,
        1,
        move |cx, k, mm, file| async move {
            let request = MapRequest {
                pgoff: Pgoff::new(offset * HPAGE_PAGES),
                ..huge(BASE, 1, file, Sharing::Private)
            };
            k.sys_mmap(&cx, mm, request).await.expect("free");
            k.access(&cx, mm, BASE, Access::Write).await.expect("promised");
            let _child = k.sys_fork(&cx, mm, "child".into()).await;
            // Where the lock checker or a BUG_ON objects, nothing is promised of the rest.
            let _ = k.access(&cx, mm, BASE, Access::Write).await;
        },
    );
    end
}

#[test]
fn unmap_ref_private_takes_i_mmap_lock_inside_page_table_lock() {
    assert_eq!(take_back(2, 0), End::Completed);
    let End::Violation(v) = take_back(1, 0) else {
        panic!("the order of locks is wrong");
    };
    assert_eq!(v.kind, ViolationKind::LockRank);
    assert!(v.stack.contains(&"unmap_ref_private"), "{:?}", v.stack);
    for lock in ["page_table_lock", "i_mmap_lock"] {
        assert!(v.held.iter().any(|h| h.contains(lock)), "{lock}: {:?}", v.held);
    }
}

#[test]
fn unmap_ref_private_looks_at_the_wrong_place_in_a_mapping_of_the_middle_of_a_file() {
    assert_eq!(take_back(2, 1), End::Completed);
    let End::Violation(v) = take_back(1, 1) else {
        panic!("the page was found");
    };
    assert_eq!(v.kind, ViolationKind::Model(mm::KERNEL_BUG));
    assert!(!v.stack.contains(&"unmap_hugepage_range"), "{:?}", v.stack);
}

#[test]
fn one_tlb_entry_serves_all_of_a_huge_page() {
    solo(2, |cx, k, mm, file| async move {
        k.sys_mmap(&cx, mm, huge(BASE, 1, file, Sharing::Shared))
            .await
            .expect("free");
        k.access(&cx, mm, BASE, Access::Read).await.expect("mapped");
        k.start_measuring();
        touch(&cx, &k, mm, range(BASE, HPAGE_PAGES), Access::Read).await;
        let m = k.metrics();
        assert_eq!((m.tlb_misses, m.faults_total), (0, 0));
        assert_eq!(m.tlb_l1_hits + m.tlb_l2_hits, HPAGE_PAGES);
    });
}

#[test]
fn a_reference_to_any_part_holds_the_whole_huge_page() {
    solo(2, |cx, k, mm, file| async move {
        k.sys_mmap(&cx, mm, huge(BASE, 1, file, Sharing::Private))
            .await
            .expect("free");
        let part = |n| BASE.add_pages(n);
        let first = k
            .get_user_page(&cx, mm, part(0), Access::Write)
            .await
            .expect("mapped");
        let last = k
            .get_user_page(&cx, mm, part(511), Access::Write)
            .await
            .expect("mapped");
        assert_eq!(last.pfn.get() - first.pfn.get(), 511);
        assert_eq!(k.peek_pte(mm, part(511)).pfn(), last.pfn);
        k.put_page(&cx, first.pfn).await;
        k.keep_as_pin(&cx, last.pfn);
        assert_eq!(k.metrics().pages_pinned_end, 1);
        let generation = k.generation(last.pfn);
        k.sys_munmap(&cx, mm, huge_range(BASE, 1)).await.expect("mapped");
        assert_eq!((k.huge_pool().free, k.generation(last.pfn)), (1, generation));
        k.unpin_page(&cx, last.pfn).await;
        assert_eq!((k.huge_pool().free, k.metrics().pages_freed), (2, 0));
        assert_ne!(k.generation(first.pfn), generation);
    });
}
