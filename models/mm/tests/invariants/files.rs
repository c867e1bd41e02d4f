//! Pages of files: F14, F15, F16.

use mm::frame::PageFlags;
use mm::i_mmap::IntervalIndex as _;
use mm::invariants::{DIRTY_BIT_LOST, MAPPED_BEYOND_EOF, UNCACHED_WHILE_MAPPED};
use mm::{Backing, FileKind, MapRequest, Prefault, Prot, RemapRequest, Which};
use sim::End;
use x86::{Access, EntryFlags, Pgoff};

use crate::broken;
use crate::common::{BASE, Setup, anonymous, range, shared_file, touch};
use crate::meddle::{Meddling, Step, until_waited_for};

const PAGES: u64 = 2;

/// Who takes a page out of the page cache.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Leaves {
    Truncated,
    Reclaimed,
    Migrated,
}

/// A page is mapped again, without the page lock, while whoever takes it out waits for tree_lock.
fn mapped_while_it_leaves_the_cache(leaves: Leaves, meddling: Meddling) -> End {
    let b = Setup::linux_2_6_27().build();
    let (mm, step) = (b.mm, Step::default());
    let file = b.kernel.new_file("file", PAGES);
    let at = step.clone();
    b.thread(1, None, move |cx, k| async move {
        at.wait_for(&cx, 1).await;
        let tree_lock = k.st().file(file).tree_lock;
        let _irqs = cx.irq_disable();
        until_waited_for(&cx, tree_lock, &at, || {
            let pfn = k.st().file(file).pages.get(0).expect("cached").pfn;
            if meddling == Meddling::Yes {
                k.frames().get_mut(pfn).mapcount += 1;
            }
        })
        .await;
    });
    b.work(move |cx, k| async move {
        k.sys_mmap(&cx, mm, shared_file(BASE, PAGES, file))
            .await
            .expect("free");
        touch(&cx, &k, mm, range(BASE, 1), Access::Read).await;
        k.lru_add_drain_all(&cx).await;
        step.reach(1);
        step.wait_for(&cx, 2).await;
        match leaves {
            Leaves::Truncated => k.do_truncate(&cx, file, 0).await,
            Leaves::Reclaimed => assert_eq!(k.shrink_all_memory(&cx, 1).await, 1),
            Leaves::Migrated => {
                let moved = k.sys_move_pages(&cx, mm, range(BASE, 1), Which::All).await;
                assert_eq!(moved.moved, 1);
            }
        }
    })
}

#[test]
fn a_page_that_leaves_the_page_cache_is_unmapped() {
    for leaves in [Leaves::Truncated, Leaves::Reclaimed, Leaves::Migrated] {
        let v = broken(
            mapped_while_it_leaves_the_cache(leaves, Meddling::Yes),
            "F14",
            UNCACHED_WHILE_MAPPED,
        );
        assert!(
            v.summary.contains("while 1 entries map it"),
            "{leaves:?}: {}",
            v.summary
        );
        let end = mapped_while_it_leaves_the_cache(leaves, Meddling::No);
        assert_eq!(end, End::Completed, "{leaves:?}");
    }
}

#[test]
fn a_page_that_leaves_the_page_cache_is_locked() {
    let leave = |meddling| {
        let b = Setup::linux_2_6_27().build();
        let mm = b.mm;
        let file = b.kernel.new_file("file", PAGES);
        b.work(move |cx, k| async move {
            k.sys_mmap(&cx, mm, shared_file(BASE, PAGES, file))
                .await
                .expect("free");
            touch(&cx, &k, mm, range(BASE, 1), Access::Read).await;
            k.sys_munmap(&cx, mm, range(BASE, PAGES)).await.expect("mapped");
            let page = k.st().file(file).pages.get(0).expect("cached");
            let _locked = match meddling {
                Meddling::Yes => None,
                Meddling::No => Some(cx.lock(page.lock).await),
            };
            k.check_uncached(&cx, &page, k.frames().get(page.pfn));
        })
    };
    let v = broken(leave(Meddling::Yes), "F14", UNCACHED_WHILE_MAPPED);
    assert!(v.summary.contains("without PG_locked"), "{}", v.summary);
    assert_eq!(leave(Meddling::No), End::Completed);
}

/// What a careless writeback clears of a page that was written.
#[derive(Clone, Copy, PartialEq)]
enum Cleaned {
    /// PG_dirty alone: the entry still knows.
    Page,
    /// PG_dirty and the entry's bit, without writing the page.
    PageAndEntry,
}

/// How the last entry goes.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Goes {
    Munmap,
    Reclaim,
}

fn written_and_cleaned(cleaned: Cleaned, goes: Goes) -> End {
    let b = Setup::linux_2_6_27().build();
    let mm = b.mm;
    let file = b.kernel.new_file("file", PAGES);
    b.work(move |cx, k| async move {
        k.sys_mmap(&cx, mm, shared_file(BASE, PAGES, file))
            .await
            .expect("free");
        touch(&cx, &k, mm, range(BASE, 1), Access::Write).await;
        {
            let mut st = k.st();
            let (table, _, index) = st.tables.find_leaf(st.mm(mm).pgd, BASE.vpn()).expect("mapped");
            let entry = st.tables.get(table, index);
            k.frames().get_mut(entry.pfn()).flags.clear(PageFlags::DIRTY);
            if cleaned == Cleaned::PageAndEntry {
                st.tables.set(table, index, entry.without(EntryFlags::DIRTY));
            }
        }
        k.lru_add_drain_all(&cx).await;
        match goes {
            Goes::Munmap => k.sys_munmap(&cx, mm, range(BASE, PAGES)).await.expect("mapped"),
            Goes::Reclaim => {
                k.shrink_all_memory(&cx, 1).await;
                assert!(!k.peek_pte(mm, BASE).present(), "it was unmapped");
            }
        }
    })
}

#[test]
fn what_was_stored_is_known_to_the_page_when_its_last_mapping_goes() {
    for goes in [Goes::Munmap, Goes::Reclaim] {
        let end = written_and_cleaned(Cleaned::PageAndEntry, goes);
        broken(end, "F15", DIRTY_BIT_LOST);
        assert_eq!(
            written_and_cleaned(Cleaned::Page, goes),
            End::Completed,
            "{goes:?}"
        );
    }
}

/// A private copy beyond the new end of a file whose i_mmap has forgotten the mapping.
fn private_copy_beyond_the_end(meddling: Meddling) -> End {
    let b = Setup::linux_2_6_27().build();
    let mm = b.mm;
    let file = b.kernel.new_file("file", PAGES);
    b.work(move |cx, k| async move {
        let private = MapRequest {
            backing: Backing::File(file),
            pgoff: Pgoff::new(0),
            ..anonymous(BASE, PAGES)
        };
        k.sys_mmap(&cx, mm, private).await.expect("free");
        touch(&cx, &k, mm, range(BASE, PAGES), Access::Write).await;
        let vma = k.find_vma(&cx, mm, BASE).expect("mapped");
        if meddling == Meddling::Yes {
            let removed = k.st().file_mut(file).i_mmap.remove(0, PAGES - 1, vma);
            assert!(removed.is_ok());
        }
        k.do_truncate(&cx, file, 1).await;
    })
}

#[test]
fn after_truncation_nobody_maps_anything_beyond_the_end() {
    let v = broken(
        private_copy_beyond_the_end(Meddling::Yes),
        "F16",
        MAPPED_BEYOND_EOF,
    );
    assert!(v.summary.contains("0x7f4000001000"), "{}", v.summary);
    assert_eq!(private_copy_beyond_the_end(Meddling::No), End::Completed);
}

/// A page that says it lies beyond the new end, in a nonlinear mapping that the file's list has forgotten.
fn nonlinear_page_beyond_the_end(meddling: Meddling) -> End {
    let b = Setup::linux_2_6_27().build();
    let mm = b.mm;
    let file = b.kernel.new_file_of(FileKind::Tmpfs, "file", PAGES);
    b.work(move |cx, k| async move {
        k.sys_mmap(&cx, mm, shared_file(BASE, PAGES, file))
            .await
            .expect("free");
        let second = BASE.add_pages(1);
        for (at, page) in [(BASE, 1), (second, 0)] {
            let request = RemapRequest {
                range: range(at, 1),
                prot: Prot::NONE,
                pgoff: Pgoff::new(page),
                prefault: Prefault::No,
            };
            k.sys_remap_file_pages(&cx, mm, request).await.expect("tmpfs");
        }
        k.access(&cx, mm, second, Access::Read).await.expect("mapped");
        if meddling == Meddling::Yes {
            k.st().file_mut(file).i_mmap_nonlinear.clear();
            let pfn = k.peek_pte(mm, second).pfn();
            k.frames().get_mut(pfn).set_index(Pgoff::new(1));
        }
        k.do_truncate(&cx, file, 1).await;
    })
}

#[test]
fn after_truncation_a_nonlinear_mapping_maps_nothing_beyond_the_end_either() {
    let v = broken(
        nonlinear_page_beyond_the_end(Meddling::Yes),
        "F16",
        MAPPED_BEYOND_EOF,
    );
    assert!(v.summary.contains("0x7f4000001000"), "{}", v.summary);
    assert_eq!(nonlinear_page_beyond_the_end(Meddling::No), End::Completed);
}
