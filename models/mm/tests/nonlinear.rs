//! remap_file_pages and nonlinear mappings: host-mm-paths B.1, B.5, B.6, B.8, B.10, B.15, C.3, F13, F16.

mod common;

use std::cell::Cell;
use std::rc::Rc;

use common::nonlinear::{PAGES, Says, all, remap, request, says, solo, tmpfs};
use common::probe::{Held, Log, Probe, Said};
use common::{BASE, FAR_ABOVE, Listener, Setup, anonymous, range, shared_file, touch, wait};
use mm::notifier::Design;
use mm::{FileKind, Kernel, Prefault, Prot, Refused, RemapError, RemapRequest, Sharing};
use sim::End;
use x86::{Access, Pgoff};

/// Exclusive holds of mmap_sem so far.
fn writers_of_mmap_sem(k: &Kernel) -> u64 {
    let stat = k.engine().lock_stat();
    let class = stat.iter().find(|c| c.def.name == "mmap_sem").expect("declared");
    class.exclusive.acquisitions
}

#[test]
fn each_page_that_was_present_is_flushed_by_itself() {
    const CPUS: u32 = 4;
    let (b, file) = tmpfs(CPUS, PAGES);
    b.busy(CPUS, b.mm);
    let mm = b.mm;
    let end = b.work(move |cx, k| async move {
        k.sys_mmap(&cx, mm, shared_file(BASE, PAGES, file))
            .await
            .expect("free");
        touch(&cx, &k, mm, range(BASE, 12), Access::Write).await;
        k.lru_add_drain_all(&cx).await;
        let frame = k.peek_pte(mm, BASE).pfn();
        assert_eq!(k.frames().get(frame).count, 2, "the cache and the entry");
        let before = k.metrics();
        // Twelve were touched, four not.
        remap(&cx, &k, mm, BASE, 16, 16, Prefault::No).await;
        let after = k.metrics();
        assert_eq!(after.flush_page - before.flush_page, 12);
        assert_eq!(after.local_invlpg - before.local_invlpg, 12);
        assert_eq!(
            after.shootdown_ipis - before.shootdown_ipis,
            12 * u64::from(CPUS - 1)
        );
        assert_eq!(after.flush_mm, before.flush_mm);
        assert_eq!(after.pages_remapped, 16);
        assert_eq!(
            all(&k, mm, BASE, 16),
            (16..32).map(Says::File).collect::<Vec<_>>()
        );
        let frames = k.frames();
        let old = frames.get(frame);
        assert_eq!((old.count, old.mapcount), (1, 0), "only the cache has it still");
        assert!(
            old.flags.has(mm::frame::PageFlags::DIRTY),
            "the write was not lost (F15)"
        );
    });
    assert_eq!(end, End::Completed);
    assert_eq!(b.world.audit(), Vec::<String>::new());
}

#[test]
fn the_bracket_is_told_under_mmap_sem_alone() {
    let (b, file) = tmpfs(2, PAGES);
    let mm = b.mm;
    let log = Log::default();
    let probe = Probe {
        who: "p",
        kernel: Rc::clone(&b.kernel),
        mm,
        file,
        log: Rc::clone(&log),
    };
    let end = b.work(move |cx, k| async move {
        k.sys_mmap(&cx, mm, shared_file(BASE, PAGES, file))
            .await
            .expect("free");
        touch(&cx, &k, mm, range(BASE, PAGES), Access::Read).await;
        k.mmu_notifier_register(&cx, mm, Rc::new(probe)).await;
        // The first call makes the mapping nonlinear, the second finds it so.
        remap(&cx, &k, mm, BASE, 4, 8, Prefault::Yes).await;
        remap(&cx, &k, mm, BASE.add_pages(2), 4, 20, Prefault::Yes).await;
    });
    assert_eq!(end, End::Completed);
    let heard = log.borrow();
    let told: Vec<_> = heard.iter().map(|h| (h.said, h.range, h.mmap_sem)).collect();
    let (first, second) = (range(BASE, 4), range(BASE.add_pages(2), 4));
    assert_eq!(
        told,
        [
            (Said::Start, first, Held::Write),
            (Said::End, first, Held::Write),
            (Said::Start, second, Held::Read),
            (Said::End, second, Held::Read),
        ]
    );
    for h in heard.iter() {
        assert_eq!((h.i_mmap_lock, h.ptl), (Held::No, Held::No));
    }
}

#[test]
fn the_original_notifiers_hear_of_each_page_that_was_present() {
    let b = Setup::linux_2_6_27().design(Design::V1).build();
    let mm = b.mm;
    let file = b.kernel.new_file_of(FileKind::Tmpfs, "f", PAGES);
    let heard = Rc::new(Listener::default());
    let listener = Rc::clone(&heard);
    let end = b.work(move |cx, k| async move {
        k.sys_mmap(&cx, mm, shared_file(BASE, PAGES, file))
            .await
            .expect("free");
        touch(&cx, &k, mm, range(BASE, 3), Access::Read).await;
        k.mmu_notifier_register(&cx, mm, listener).await;
        remap(&cx, &k, mm, BASE, 8, 16, Prefault::No).await;
    });
    assert_eq!(end, End::Completed);
    assert_eq!((heard.pages.get(), heard.starts.get()), (3, 0));
}

#[test]
fn what_is_in_place_already_needs_nothing() {
    solo(|cx, k, mm, file| async move {
        touch(&cx, &k, mm, range(BASE, PAGES), Access::Read).await;
        let (before, writers) = (k.metrics(), writers_of_mmap_sem(&k));
        remap(&cx, &k, mm, BASE.add_pages(3), 4, 3, Prefault::Yes).await;
        assert_eq!(writers_of_mmap_sem(&k), writers, "mmap_sem was only read");
        assert_eq!(k.metrics().flush_page, before.flush_page);
        assert_eq!(k.st().file(file).i_mmap_nonlinear.len(), 0);
    });
}

#[test]
fn mmap_sem_is_written_only_to_become_nonlinear() {
    solo(|cx, k, mm, file| async move {
        let writers = writers_of_mmap_sem(&k);
        remap(&cx, &k, mm, BASE, 4, 8, Prefault::No).await;
        assert_eq!(writers_of_mmap_sem(&k), writers + 1);
        remap(&cx, &k, mm, BASE, 4, 12, Prefault::No).await;
        assert_eq!(writers_of_mmap_sem(&k), writers + 1);
        let st = k.st();
        let (tree, list) = (&st.file(file).i_mmap, &st.file(file).i_mmap_nonlinear);
        use mm::i_mmap::IntervalIndex as _;
        assert_eq!((tree.len(), list.len()), (0, 1));
    });
}

#[test]
fn readers_get_in_while_the_pages_are_faulted_in() {
    let (b, file) = tmpfs(2, PAGES);
    let mm = b.mm;
    let running = Rc::new(Cell::new(false));
    let seen = Rc::new(Cell::new(None));
    let (begun, told) = (Rc::clone(&running), Rc::clone(&seen));
    b.thread(0, Some(mm), move |cx, k| async move {
        k.sys_mmap(&cx, mm, shared_file(BASE, PAGES, file))
            .await
            .expect("free");
        touch(&cx, &k, mm, range(BASE, 16), Access::Read).await;
        begun.set(true);
        remap(&cx, &k, mm, BASE, 16, 16, Prefault::Yes).await;
        begun.set(false);
        assert_eq!(
            all(&k, mm, BASE, 16),
            (16..32).map(Says::Page).collect::<Vec<_>>()
        );
    });
    let running = Rc::clone(&running);
    b.thread(1, Some(mm), move |cx, k| async move {
        let sem = k.mmap_sem(mm);
        while !running.get() || cx.try_lock_shared(sem).await.is_some() {
            wait(&cx, 50).await;
        }
        // The writer is inside; the semaphore comes back with the pages remapped but not present.
        let shared = cx.lock_shared(sem).await;
        told.set(Some((running.get(), k.metrics().pages_remapped)));
        drop(shared);
    });
    assert_eq!(b.engine.run(), End::Completed);
    assert_eq!(seen.get(), Some((true, 16)));
}

#[test]
fn files_whose_dirty_pages_are_accounted_get_a_linear_mapping_instead() {
    let mut setup = Setup::linux_2_6_27();
    setup.cpus = 2;
    let b = setup.build();
    let file = b.kernel.new_file("f", PAGES);
    let mm = b.mm;
    let log = Log::default();
    let probe = Probe {
        who: "p",
        kernel: Rc::clone(&b.kernel),
        mm,
        file,
        log: Rc::clone(&log),
    };
    let end = b.work(move |cx, k| async move {
        k.sys_mmap(&cx, mm, shared_file(BASE, PAGES, file))
            .await
            .expect("free");
        touch(&cx, &k, mm, range(BASE, PAGES), Access::Read).await;
        k.mmu_notifier_register(&cx, mm, Rc::new(probe)).await;
        let before = k.metrics();
        remap(&cx, &k, mm, BASE.add_pages(8), 8, 20, Prefault::Yes).await;
        let after = k.metrics();
        // The piece is unmapped like any other, and stays unpopulated.
        assert_eq!(after.flush_page, before.flush_page);
        assert_eq!(after.flush_mm - before.flush_mm, 1);
        assert_eq!(after.pages_remapped, 0);
        assert_eq!(all(&k, mm, BASE.add_pages(8), 8), vec![Says::Nothing; 8]);
        assert_eq!(k.st().mm(mm).vmas.len(), 3);
        assert_eq!(k.st().file(file).i_mmap_nonlinear.len(), 0);
        touch(&cx, &k, mm, range(BASE.add_pages(8), 1), Access::Read).await;
        assert_eq!(says(&k, mm, BASE.add_pages(8)), Says::Page(20));
    });
    assert_eq!(end, End::Completed);
    let sems: Vec<_> = log.borrow().iter().map(|h| h.mmap_sem).collect();
    assert_eq!(sems, [Held::Write, Held::Write]);
    assert_eq!(b.world.audit(), Vec::<String>::new());
}

#[test]
fn what_cannot_be_remapped_is_refused() {
    solo(|cx, k, mm, file| async move {
        let private = mm::MapRequest {
            sharing: Sharing::Private,
            ..shared_file(FAR_ABOVE, 4, file)
        };
        k.sys_mmap(&cx, mm, private).await.expect("free");
        let shared_memory = mm::MapRequest {
            sharing: Sharing::Shared,
            ..anonymous(FAR_ABOVE.add_pages(8), 4)
        };
        k.sys_mmap(&cx, mm, shared_memory).await.expect("free");
        let good = request(BASE, 4, 8, Prefault::Yes);
        for (why, bad) in [
            (
                "rights",
                RemapRequest {
                    prot: Prot::READ,
                    ..good
                },
            ),
            ("no mapping", request(BASE.add_pages(PAGES), 4, 8, Prefault::Yes)),
            (
                "half outside",
                request(BASE.add_pages(PAGES - 2), 4, 8, Prefault::Yes),
            ),
            ("private", request(FAR_ABOVE, 4, 8, Prefault::Yes)),
            (
                "shared anonymous memory",
                request(FAR_ABOVE.add_pages(8), 4, 1, Prefault::Yes),
            ),
            ("too far", request(BASE, 4, (1 << 40) - 3, Prefault::Yes)),
            ("beyond all files", request(BASE, 4, u64::MAX - 1, Prefault::Yes)),
        ] {
            assert_eq!(
                k.sys_remap_file_pages(&cx, mm, bad).await,
                Err(RemapError::Invalid),
                "{why}"
            );
        }
        let (first, last) = (BASE, request(BASE, 4, (1 << 40) - 4, Prefault::No));
        assert_eq!(k.sys_remap_file_pages(&cx, mm, last).await, Ok(()));
        assert_eq!(says(&k, mm, first), Says::File((1 << 40) - 4));
    });
}

#[test]
fn a_fault_brings_the_page_that_the_entry_names_and_an_empty_entry_the_linear_one() {
    solo(|cx, k, mm, _| async move {
        remap(&cx, &k, mm, BASE.add_pages(4), 4, 20, Prefault::No).await;
        touch(&cx, &k, mm, range(BASE, 10), Access::Write).await;
        let expected: Vec<_> = [0, 1, 2, 3, 20, 21, 22, 23, 8, 9].map(Says::Page).to_vec();
        assert_eq!(all(&k, mm, BASE, 10), expected);
        let m = k.metrics();
        assert_eq!((m.faults_nonlinear, m.faults_file), (4, 10));
        // One page of the file in two places.
        assert_eq!(k.peek_pte(mm, BASE.add_pages(4)).pfn(), {
            touch(&cx, &k, mm, range(BASE.add_pages(20), 1), Access::Read).await;
            k.peek_pte(mm, BASE.add_pages(20)).pfn()
        });
    });
}

#[test]
fn faults_beyond_the_end_of_the_file_are_refused_wherever_they_are() {
    solo(|cx, k, mm, _| async move {
        remap(&cx, &k, mm, BASE, 4, PAGES - 2, Prefault::Yes).await;
        let expected = [
            Says::Page(PAGES - 2),
            Says::Page(PAGES - 1),
            Says::File(PAGES),
            Says::File(PAGES + 1),
        ];
        assert_eq!(
            all(&k, mm, BASE, 4),
            expected,
            "prefaulting ends at the end of the file"
        );
        assert_eq!(
            k.access(&cx, mm, BASE.add_pages(2), Access::Read).await,
            Err(Refused::BeyondEof)
        );
    });
}

#[test]
fn a_forked_child_maps_the_same_pages_in_the_same_places() {
    solo(|cx, k, mm, file| async move {
        remap(&cx, &k, mm, BASE, 8, 16, Prefault::No).await;
        touch(&cx, &k, mm, range(BASE.add_pages(4), 6), Access::Write).await;
        // A stranger behind the parent on the list.
        let second = shared_file(FAR_ABOVE, 4, file);
        k.sys_mmap(&cx, mm, second).await.expect("free");
        remap(&cx, &k, mm, FAR_ABOVE, 4, 9, Prefault::No).await;
        let heard = Rc::new(Listener::default());
        k.mmu_notifier_register(&cx, mm, heard.clone()).await;
        let before = k.metrics();
        let child = k.sys_fork(&cx, mm, "child".into()).await;
        let after = k.metrics();
        assert_eq!(heard.starts.get(), 0, "shared memory is not bracketed");
        assert_eq!(after.pages_forked - before.pages_forked, 6);
        assert_eq!(after.flush_mm - before.flush_mm, 1);
        assert_eq!(all(&k, child, BASE, PAGES), all(&k, mm, BASE, PAGES));
        let entry = |mm| k.peek_pte(mm, BASE.add_pages(4));
        assert!(entry(mm).dirty() && !entry(child).dirty(), "clean in the child");
        let owners: Vec<_> = {
            let st = k.st();
            let list = &st.file(file).i_mmap_nonlinear;
            list.iter().map(|v| st.mm_of(*v)).collect()
        };
        assert_eq!(owners, [mm, child, mm, child], "each behind its parent's");
        k.mmput(&cx, child).await;
        assert_eq!(k.st().file(file).i_mmap_nonlinear.len(), 2);
    });
}

#[test]
fn linear_mappings_of_files_are_not_copied_by_fork() {
    solo(|cx, k, mm, _| async move {
        touch(&cx, &k, mm, range(BASE, 8), Access::Read).await;
        let child = k.sys_fork(&cx, mm, "child".into()).await;
        assert_eq!(k.metrics().pages_forked, 0);
        k.mmput(&cx, child).await;
    });
}

#[test]
fn both_halves_of_a_nonlinear_mapping_stay_on_the_list() {
    solo(|cx, k, mm, file| async move {
        remap(&cx, &k, mm, BASE, 4, 20, Prefault::Yes).await;
        k.sys_munmap(&cx, mm, range(BASE.add_pages(8), 8))
            .await
            .expect("mapped");
        let starts: Vec<_> = {
            let st = k.st();
            let list = &st.file(file).i_mmap_nonlinear;
            list.iter().map(|v| st.vma(*v).range.start()).collect()
        };
        assert_eq!(starts, [BASE, BASE.add_pages(16)]);
        k.sys_mprotect(&cx, mm, range(BASE, 4), Prot::READ)
            .await
            .expect("mapped");
        assert_eq!(says(&k, mm, BASE), Says::Page(20));
        assert_eq!(k.st().file(file).i_mmap_nonlinear.len(), 3);
    });
}

#[test]
fn a_linear_neighbour_is_not_merged_into_a_nonlinear_mapping() {
    solo(|cx, k, mm, file| async move {
        remap(&cx, &k, mm, BASE, 4, 20, Prefault::No).await;
        let behind = mm::MapRequest {
            pgoff: Pgoff::new(PAGES),
            ..shared_file(BASE.add_pages(PAGES), 4, file)
        };
        k.sys_mmap(&cx, mm, behind).await.expect("free");
        assert_eq!(k.st().mm(mm).vmas.len(), 2);
    });
}

#[test]
fn pages_of_tmpfs_are_writable_at_once_and_those_of_a_disk_when_they_are_written() {
    for (kind, reused) in [(FileKind::Tmpfs, 0), (FileKind::Disk, 2)] {
        let b = Setup::linux_2_6_27().build();
        let mm = b.mm;
        let file = b.kernel.new_file_of(kind, "f", 4);
        let end = b.work(move |cx, k| async move {
            k.sys_mmap(&cx, mm, shared_file(BASE, 4, file))
                .await
                .expect("free");
            touch(&cx, &k, mm, range(BASE, 2), Access::Read).await;
            assert!(!k.peek_pte(mm, BASE).dirty(), "{kind:?}: a read does not dirty");
            k.access(&cx, mm, BASE, Access::Write).await.expect("mapped");
            assert!(k.peek_pte(mm, BASE).dirty());
            // Rights that go and come back change nothing about that.
            k.sys_mprotect(&cx, mm, range(BASE, 4), Prot::READ)
                .await
                .expect("mapped");
            k.sys_mprotect(&cx, mm, range(BASE, 4), Prot::READ_WRITE)
                .await
                .expect("mapped");
            k.access(&cx, mm, BASE.add_pages(1), Access::Write)
                .await
                .expect("mapped");
            assert_eq!(k.metrics().faults_reuse, reused, "{kind:?}");
        });
        assert_eq!(end, End::Completed);
        assert_eq!(b.world.audit(), Vec::<String>::new());
    }
}

#[test]
fn the_audit_finds_mappings_that_are_in_the_wrong_index() {
    let (b, file) = tmpfs(1, PAGES);
    let mm = b.mm;
    let end = b.work(move |cx, k| async move {
        for at in [BASE, FAR_ABOVE] {
            k.sys_mmap(&cx, mm, shared_file(at, PAGES, file))
                .await
                .expect("free");
        }
        remap(&cx, &k, mm, BASE, 4, 20, Prefault::No).await;
    });
    assert_eq!(end, End::Completed);
    assert_eq!(b.world.audit(), Vec::<String>::new());
    let on_list = std::mem::take(&mut b.kernel.st().file_mut(file).i_mmap_nonlinear);
    assert_eq!(
        b.world.audit(),
        ["file f: i_mmap_nonlinear holds 0 VMAs, 1 are linked (F13)"]
    );
    b.kernel.st().vma_mut(on_list[0]).linearity = mm::Linearity::Linear;
    assert_eq!(
        b.world.audit(),
        ["file f: i_mmap holds 1 VMAs, 2 are linked (F13)"]
    );
}
