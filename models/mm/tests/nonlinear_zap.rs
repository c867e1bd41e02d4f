//! How nonlinear mappings lose and move their pages: truncation, madvise, munmap and mremap; host-mm-paths B.1,
//! B.8, B.10, F16.

mod common;

use std::cell::RefCell;
use std::rc::Rc;

use common::nonlinear::{PAGES, Says, all, remap, says, solo, tmpfs};
use common::probe::{Held, Log, Probe, Said};
use common::{BASE, FAR_ABOVE, Setup, range, shared_file, touch, wait};
use mm::{FileKind, KernelPreemption, Prefault, Refused};
use sim::End;
use x86::Access;

#[test]
fn truncation_searches_nonlinear_mappings_from_end_to_end_after_the_tree() {
    let (b, file) = tmpfs(2, PAGES);
    let (tree, list) = (b.mm, b.kernel.new_mm("list".into()));
    let log = Log::default();
    let probe = |who, mm| {
        Rc::new(Probe {
            who,
            kernel: Rc::clone(&b.kernel),
            mm,
            file,
            log: Rc::clone(&log),
        })
    };
    let probes = [probe("list", list), probe("tree", tree)];
    let done = Rc::new(RefCell::new(None));
    let out = Rc::clone(&done);
    let end = b.work(move |cx, k| async move {
        for mm in [list, tree] {
            k.sys_mmap(&cx, mm, shared_file(BASE, PAGES, file))
                .await
                .expect("free");
        }
        remap(&cx, &k, list, BASE, 4, 28, Prefault::Yes).await;
        remap(&cx, &k, list, BASE.add_pages(8), 4, 2, Prefault::Yes).await;
        // A linear page that goes, at its linear place.
        let sem = k.mmap_sem(list);
        {
            let _sem = cx.lock_shared(sem).await;
            let at = BASE.add_pages(30);
            let page = k
                .get_user_page(&cx, list, at, Access::Read)
                .await
                .expect("mapped");
            k.put_page(&cx, page.pfn).await;
        }
        let [on_list, in_tree] = probes;
        k.mmu_notifier_register(&cx, list, on_list).await;
        k.mmu_notifier_register(&cx, tree, in_tree).await;
        let before = k.metrics();
        k.do_truncate(&cx, file, 29).await;
        *out.borrow_mut() = Some((before, k.metrics()));
        let expected = [
            (0, Says::Page(28)),
            (1, Says::File(29)),
            (2, Says::File(30)),
            (3, Says::File(31)),
            (8, Says::Page(2)),
            (11, Says::Page(5)),
            (30, Says::Nothing),
        ];
        for (page, what) in expected {
            assert_eq!(says(&k, list, BASE.add_pages(page)), what, "page {page}");
        }
    });
    assert_eq!(end, End::Completed);
    let told: Vec<_> = log.borrow().iter().map(|h| (h.who, h.said, h.range)).collect();
    let clipped = range(BASE.add_pages(29), 3);
    let whole = range(BASE, PAGES);
    let pass = [
        ("tree", Said::Start, clipped),
        ("tree", Said::End, clipped),
        ("list", Said::Start, whole),
        ("list", Said::End, whole),
    ];
    assert_eq!(told, [pass, pass].concat());
    for h in log.borrow().iter() {
        assert_eq!((h.mmap_sem, h.i_mmap_lock), (Held::No, Held::Write));
        assert_eq!((h.i_mutex, h.i_alloc_sem), (Held::Write, Held::Write));
    }
    let (before, after) = done.take().expect("measured");
    // Nine pages were present, four of them beyond the new end; five are looked at again in pass 2.
    assert_eq!(after.zap_compared - before.zap_compared, 9 + 5);
    assert_eq!(after.pages_zapped - before.pages_zapped, 4);
    assert_eq!(after.i_mmap_nonlinear - before.i_mmap_nonlinear, 2);
    assert_eq!(after.i_mmap_nodes - before.i_mmap_nodes, 2);
    // Pass 1 cleared entries; pass 2 found nothing.
    assert_eq!(after.flush_mm - before.flush_mm, 1);
    assert_eq!(b.world.audit(), Vec::<String>::new());
}

#[test]
fn after_a_truncation_nothing_maps_what_is_gone_and_a_longer_file_is_found_again() {
    solo(|cx, k, mm, file| async move {
        remap(&cx, &k, mm, BASE, PAGES / 2, PAGES / 2, Prefault::Yes).await;
        touch(&cx, &k, mm, range(BASE, PAGES), Access::Write).await;
        let child = k.sys_fork(&cx, mm, "child".into()).await;
        k.do_truncate(&cx, file, 5).await;
        for space in [mm, child] {
            for what in all(&k, space, BASE, PAGES) {
                assert!(!matches!(what, Says::Page(index) if index >= 5), "{what:?} (F16)");
            }
        }
        assert_eq!(
            k.access(&cx, mm, BASE, Access::Read).await,
            Err(Refused::BeyondEof)
        );
        k.do_truncate(&cx, file, PAGES).await;
        assert_eq!(k.access(&cx, mm, BASE, Access::Read).await, Ok(()));
        assert_eq!(says(&k, mm, BASE), Says::Page(PAGES / 2));
        k.mmput(&cx, child).await;
    });
}

#[test]
fn a_broken_off_search_goes_on_where_it_was_without_another_walk_of_the_tree() {
    const LONG: u64 = 64;
    const BLOCK: u64 = 8;
    let mut setup = Setup::linux_2_6_27().preempt(KernelPreemption::Full);
    setup.cpus = 3;
    let b = setup.build();
    let file = b.kernel.new_file_of(FileKind::Tmpfs, "f", LONG);
    let (mm, other) = (b.mm, b.kernel.new_mm("linear".into()));
    let log = Log::default();
    let heard = Rc::clone(&log);
    let lock = b.kernel.st().file(file).i_mmap_lock;
    b.thread(1, None, move |cx, _| async move {
        while heard.borrow().is_empty() {
            wait(&cx, 20).await;
        }
        for _ in 0..2 {
            drop(cx.lock(lock).await);
        }
    });
    let probe = Probe {
        who: "list",
        kernel: Rc::clone(&b.kernel),
        mm,
        file,
        log: Rc::clone(&log),
    };
    let end = b.work(move |cx, k| async move {
        for space in [mm, other] {
            k.sys_mmap(&cx, space, shared_file(BASE, LONG, file))
                .await
                .expect("free");
        }
        remap(&cx, &k, mm, BASE, LONG / 2, LONG / 2, Prefault::No).await;
        touch(&cx, &k, mm, range(BASE, LONG), Access::Read).await;
        let registered = Rc::new(probe);
        k.mmu_notifier_register(&cx, mm, registered).await;
        let before = k.metrics();
        k.do_truncate(&cx, file, 0).await;
        let after = k.metrics();
        assert_eq!(after.truncate_restarts - before.truncate_restarts, 2);
        assert_eq!(after.i_mmap_nodes - before.i_mmap_nodes, 2, "one walk a pass");
        assert_eq!(after.i_mmap_nonlinear - before.i_mmap_nonlinear, 3 + 1);
        assert_eq!(after.pages_zapped - before.pages_zapped, LONG);
        let gone = all(&k, mm, BASE, LONG);
        assert!(gone.iter().all(|what| !matches!(what, Says::Page(_))), "{gone:?}");
    });
    assert_eq!(end, End::Completed);
    let starts: Vec<_> = log
        .borrow()
        .iter()
        .filter(|h| h.said == Said::Start)
        .map(|h| h.range)
        .collect();
    // Each piece begins where the last block ended and asks for all the rest.
    let rest = |blocks: u64| range(BASE.add_pages(blocks * BLOCK), LONG - blocks * BLOCK);
    assert_eq!(starts, [rest(0), rest(1), rest(2), rest(0)]);
    assert_eq!(b.world.audit(), Vec::<String>::new());
}

#[test]
fn dontneed_forgets_pages_but_not_where_they_belong() {
    solo(|cx, k, mm, _| async move {
        remap(&cx, &k, mm, BASE, 4, 20, Prefault::Yes).await;
        touch(&cx, &k, mm, range(BASE, 6), Access::Read).await;
        remap(&cx, &k, mm, BASE.add_pages(2), 1, 2, Prefault::Yes).await;
        k.madvise_dontneed(&cx, mm, range(BASE, 6)).await.expect("mapped");
        let expected = [
            Says::File(20),
            Says::File(21),
            // Back at its linear place, so nothing has to remember it.
            Says::Nothing,
            Says::File(23),
            Says::Nothing,
            Says::Nothing,
        ];
        assert_eq!(all(&k, mm, BASE, 6), expected);
        // Once more, with file-offset entries only: they stay.
        k.madvise_dontneed(&cx, mm, range(BASE, 6)).await.expect("mapped");
        assert_eq!(all(&k, mm, BASE, 6), expected);
        touch(&cx, &k, mm, range(BASE, 1), Access::Read).await;
        assert_eq!(says(&k, mm, BASE), Says::Page(20));
    });
}

#[test]
fn an_entry_that_names_a_page_counts_a_page_against_the_block_but_needs_no_flush() {
    let b = Setup::linux_2_6_27().preempt(KernelPreemption::Full).build();
    let mm = b.mm;
    let file = b.kernel.new_file_of(FileKind::Tmpfs, "f", PAGES);
    let end = b.work(move |cx, k| async move {
        k.sys_mmap(&cx, mm, shared_file(BASE, PAGES, file))
            .await
            .expect("free");
        remap(&cx, &k, mm, BASE, 24, 8, Prefault::No).await;
        let before = k.metrics();
        k.sys_munmap(&cx, mm, range(BASE, PAGES)).await.expect("mapped");
        let after = k.metrics();
        assert_eq!(
            after.zap_blocks - before.zap_blocks,
            3,
            "24 entries in blocks of 8"
        );
        assert_eq!(after.pages_zapped, before.pages_zapped);
        // Only for the page tables that go.
        assert_eq!(after.flush_mm - before.flush_mm, 1);
    });
    assert_eq!(end, End::Completed);
    assert_eq!(b.world.audit(), Vec::<String>::new());
}

#[test]
fn moving_a_nonlinear_mapping_flushes_for_entries_without_a_page_too() {
    solo(|cx, k, mm, file| async move {
        remap(&cx, &k, mm, BASE, 16, 16, Prefault::No).await;
        touch(&cx, &k, mm, range(BASE, 10), Access::Write).await;
        let before = (k.metrics(), all(&k, mm, BASE, PAGES));
        let to = FAR_ABOVE;
        let moved = k.sys_mremap(&cx, mm, range(BASE, PAGES), PAGES, Some(to)).await;
        assert_eq!(moved, Ok(range(to, PAGES)));
        assert_eq!(
            k.metrics().flush_page - before.0.flush_page,
            16,
            "ten pages, six offsets; sixteen entries are empty"
        );
        assert_eq!(all(&k, mm, to, PAGES), before.1);
        assert_eq!(k.st().file(file).i_mmap_nonlinear.len(), 1);
        touch(&cx, &k, mm, range(to.add_pages(15), 1), Access::Read).await;
        assert_eq!(says(&k, mm, to.add_pages(15)), Says::Page(31));
    });
}
