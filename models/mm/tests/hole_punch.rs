//! MADV_REMOVE: host-mm-paths B.9, B.11.

mod common;

use std::rc::Rc;

use common::nonlinear::{remap, solo_of};
use common::probe::{Held, Log, Probe, Said};
use common::{BASE, FAR_ABOVE, FAR_BELOW, Listener, Setup, anonymous, range, shared_file, touch};
use mm::{FileId, FileKind, Kernel, MapRequest, MmId, Prefault, Prot, RemoveError, Sharing};
use sim::{Cx, End};
use x86::{Access, Entry, Pgoff};

const PAGES: u64 = 64;

fn solo<F: Future<Output = ()> + 'static>(body: impl FnOnce(Cx, Rc<Kernel>, MmId, FileId) -> F + 'static) {
    solo_of(8, PAGES, body);
}

#[test]
fn a_hole_takes_its_pages_from_every_mapping_and_from_the_cache_and_no_others() {
    solo(|cx, k, mm, file| async move {
        let private = MapRequest {
            sharing: Sharing::Private,
            ..shared_file(FAR_ABOVE, PAGES, file)
        };
        k.sys_mmap(&cx, mm, private).await.expect("free");
        touch(&cx, &k, mm, range(BASE, PAGES), Access::Write).await;
        touch(&cx, &k, mm, range(FAR_ABOVE, PAGES), Access::Write).await;
        let before = k.metrics();
        k.madvise_remove(&cx, mm, range(BASE.add_pages(10), 20))
            .await
            .expect("tmpfs has holes");
        let after = k.metrics();
        for page in 0..PAGES {
            let gone = (10..30).contains(&page);
            for at in [BASE, FAR_ABOVE] {
                let entry = k.peek_pte(mm, at.add_pages(page));
                assert_eq!(
                    entry == Entry::NONE,
                    gone,
                    "page {page} at {at}: private copies go, too"
                );
            }
        }
        // Twenty of the file, twenty copies; nothing of the rest.
        assert_eq!(after.pages_freed - before.pages_freed, 40);
        assert_eq!(
            after.flush_mm - before.flush_mm,
            2,
            "one for each mapping, in pass 1"
        );
        assert_eq!(k.st().file(file).size, PAGES, "the file is as long as it was");
        // Two pagevecs of 14 reach the end of the hole; the second pass over it finds what is behind. So do both
        // passes of tmpfs's own truncation afterwards.
        assert_eq!(after.truncate_batches - before.truncate_batches, 5);
        let made = k.metrics().pages_allocated;
        touch(&cx, &k, mm, range(BASE, PAGES), Access::Read).await;
        assert_eq!(
            k.metrics().pages_allocated - made,
            20,
            "the hole reads as new pages"
        );
    });
}

#[test]
fn mmap_sem_is_not_held_while_the_hole_is_punched() {
    let b = Setup::linux_2_6_27().build();
    let file = b.kernel.new_file_of(FileKind::Tmpfs, "f", PAGES);
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
        touch(&cx, &k, mm, range(BASE, PAGES), Access::Write).await;
        k.mmu_notifier_register(&cx, mm, Rc::new(probe)).await;
        k.madvise_remove(&cx, mm, range(BASE, 8)).await.expect("tmpfs");
    });
    assert_eq!(end, End::Completed);
    let heard = log.borrow();
    let told: Vec<_> = heard.iter().map(|h| (h.said, h.range)).collect();
    let pass = [(Said::Start, range(BASE, 8)), (Said::End, range(BASE, 8))];
    // Around truncate_inode_pages, and once more by tmpfs, which has other pages cached.
    assert_eq!(told, [pass, pass, pass].concat());
    for h in heard.iter() {
        assert_eq!(
            (h.mmap_sem, h.i_mutex, h.i_alloc_sem, h.i_mmap_lock),
            (Held::No, Held::Write, Held::Write, Held::Write)
        );
    }
}

#[test]
fn several_mappings_are_served_in_turn_and_gaps_are_told_at_the_end() {
    solo(|cx, k, mm, _| async move {
        touch(&cx, &k, mm, range(BASE, PAGES), Access::Write).await;
        k.sys_munmap(&cx, mm, range(BASE.add_pages(20), 10))
            .await
            .expect("mapped");
        let removed = k.madvise_remove(&cx, mm, range(BASE.add_pages(16), 20)).await;
        assert_eq!(removed, Err(RemoveError::Unmapped));
        for page in (16..20).chain(30..36) {
            assert_eq!(k.peek_pte(mm, BASE.add_pages(page)), Entry::NONE, "page {page}");
        }
        assert_ne!(k.peek_pte(mm, BASE.add_pages(36)), Entry::NONE);
        let removed = k.madvise_remove(&cx, mm, range(FAR_BELOW, 4)).await;
        assert_eq!(removed, Err(RemoveError::Unmapped));
    });
}

#[test]
fn only_shared_writable_linear_mappings_of_tmpfs_can_lose_pages() {
    solo(|cx, k, mm, file| async move {
        let disk = k.new_file("disk", PAGES);
        let at = |n: u64| FAR_ABOVE.add_pages(n * 8);
        let private = MapRequest {
            sharing: Sharing::Private,
            ..shared_file(at(0), 4, file)
        };
        let read_only = MapRequest {
            prot: Prot::READ,
            ..shared_file(at(1), 4, file)
        };
        let shared_memory = MapRequest {
            sharing: Sharing::Shared,
            ..anonymous(at(4), 4)
        };
        for request in [
            private,
            read_only,
            shared_file(at(2), 4, disk),
            anonymous(at(3), 4),
            shared_memory,
            shared_file(at(5), 4, file),
        ] {
            k.sys_mmap(&cx, mm, request).await.expect("free");
        }
        remap(&cx, &k, mm, at(5), 2, 7, Prefault::No).await;
        for (n, expected) in [
            (0, Err(RemoveError::Access)),
            (1, Err(RemoveError::Access)),
            (2, Err(RemoveError::Unsupported)),
            (3, Err(RemoveError::Invalid)),
            (4, Ok(())),
            (5, Err(RemoveError::Invalid)),
        ] {
            assert_eq!(k.madvise_remove(&cx, mm, range(at(n), 4)).await, expected, "{n}");
        }
    });
}

#[test]
fn a_nonlinear_mapping_loses_the_pages_of_a_hole_wherever_it_has_them() {
    solo(|cx, k, mm, file| async move {
        k.sys_mmap(&cx, mm, shared_file(FAR_ABOVE, PAGES, file))
            .await
            .expect("free");
        remap(&cx, &k, mm, FAR_ABOVE, 8, 40, Prefault::Yes).await;
        k.madvise_remove(&cx, mm, range(BASE.add_pages(42), 2))
            .await
            .expect("tmpfs");
        for page in 0..8 {
            let present = k.peek_pte(mm, FAR_ABOVE.add_pages(page)).present();
            assert_eq!(present, !(2..4).contains(&page), "page {page}");
        }
        k.access(&cx, mm, FAR_ABOVE.add_pages(2), Access::Read)
            .await
            .expect("a new page");
        let entry = k.peek_pte(mm, FAR_ABOVE.add_pages(2));
        assert_eq!(k.frames().get(entry.pfn()).index(), Pgoff::new(42));
    });
}

#[test]
fn tmpfs_punches_a_hole_again_if_a_page_may_have_come_into_the_cache_meanwhile() {
    // What happened to the file before, where the hole is, and how often its mapping is unmapped.
    for (cut_to, hole, passes) in [
        (None, (0, 8), 3),
        // All cached pages are in the hole.
        (None, (0, PAGES), 2),
        // Nothing was ever there: only the first half is touched.
        (None, (PAGES / 2, 8), 2),
        // ftruncate has cleared SHMEM_PAGEIN, and no page came since.
        (Some(PAGES / 4), (0, 8), 2),
        // Not if nothing was cut off.
        (Some(PAGES), (0, 8), 3),
    ] {
        solo(move |cx, k, mm, file| async move {
            touch(&cx, &k, mm, range(BASE, PAGES / 2), Access::Write).await;
            if let Some(pages) = cut_to {
                k.do_truncate(&cx, file, pages).await;
            }
            let heard = Rc::new(Listener::default());
            k.mmu_notifier_register(&cx, mm, heard.clone()).await;
            let (first, pages) = hole;
            k.madvise_remove(&cx, mm, range(BASE.add_pages(first), pages))
                .await
                .expect("tmpfs");
            assert_eq!(heard.starts.get(), passes, "{cut_to:?} {hole:?}");
        });
    }
}
