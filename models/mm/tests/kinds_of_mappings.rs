//! Mappings of huge pages and nonlinear ones where mappings are locked, split, merged and referred to:
//! host-mm-paths B.4, B.9, B.15, B.16, B.17.

mod common;

use std::rc::Rc;

use common::huge::{huge, huge_range, solo, touch_huge, with_pool};
use common::{BASE, FAR_ABOVE, Setup, anonymous, range, shared_file, touch};
use mm::hugetlb::HPAGE_PAGES;
use mm::profile::GupFast;
use mm::{
    Destination, FileId, FileKind, Gup, Kernel, MapError, MapRequest, MmId, NonPresent, Prefault, Prot,
    RemapError, RemapRequest, RemoveError, Sharing, VmaId,
};
use sim::{Cx, End};
use x86::{Access, Pgoff, Va, VaRange};

/// Pages of the file in most tests.
const PAGES: u64 = 32;

/// Runs the body with a file of some kind.
fn with_file<F: Future<Output = ()> + 'static>(
    kind: FileKind,
    body: impl FnOnce(Cx, Rc<Kernel>, MmId, FileId) -> F + 'static,
) {
    let b = Setup::linux_2_6_27().build();
    let file = b.kernel.new_file_of(kind, "f", PAGES);
    let mm = b.mm;
    assert_eq!(b.work(move |cx, k| body(cx, k, mm, file)), End::Completed);
    assert_eq!(b.world.audit(), Vec::<String>::new());
}

async fn remap(cx: &Cx, k: &Kernel, mm: MmId, range: VaRange, pgoff: u64) {
    let request = RemapRequest {
        range,
        prot: Prot::NONE,
        pgoff: Pgoff::new(pgoff),
        prefault: Prefault::No,
    };
    assert_eq!(k.sys_remap_file_pages(cx, mm, request).await, Ok(()));
}

/// The page of the file at an address, present or not.
fn page_at(k: &Kernel, mm: MmId, at: Va) -> u64 {
    let entry = k.peek_pte(mm, at);
    match NonPresent::of(entry) {
        Some(NonPresent::File(index)) => index.get(),
        _ => k.frames().get(entry.pfn()).index().get(),
    }
}

fn mappings(k: &Kernel, mm: MmId) -> Vec<(VmaId, VaRange)> {
    let st = k.st();
    let vmas = st.mm(mm).vmas.iter();
    vmas.map(|v| (v, st.vma(v).range)).collect()
}

fn nonlinear(k: &Kernel, file: FileId) -> Vec<VmaId> {
    k.st().file(file).i_mmap_nonlinear.clone()
}

fn locked_vm(k: &Kernel, mm: MmId) -> u64 {
    k.st().mm(mm).locked_vm
}

/// Shared holds of mmap_sem so far.
fn readers_of_mmap_sem(k: &Kernel) -> u64 {
    let stat = k.engine().lock_stat();
    let class = stat.iter().find(|c| c.def.name == "mmap_sem").expect("declared");
    class.shared.acquisitions
}

async fn put(cx: &Cx, k: &Kernel, pages: Vec<Gup>) {
    for page in pages {
        k.put_page(cx, page.pfn).await;
    }
}

#[test]
fn locked_huge_pages_are_present_and_count_as_small_ones() {
    solo(4, |cx, k, mm, file| async move {
        k.sys_mmap(&cx, mm, huge(BASE, 4, file, Sharing::Private))
            .await
            .expect("free");
        let middle = huge_range(BASE.add_pages(HPAGE_PAGES), 2);
        k.sys_mlock(&cx, mm, middle).await.expect("mapped");
        assert_eq!((k.metrics().faults_huge, locked_vm(&k, mm)), (2, 2 * HPAGE_PAGES));
        let cut = k.sys_mlock(&cx, mm, range(BASE, 5)).await;
        assert_eq!(cut, Err(MapError::CutsHugePage));
        k.sys_munlock(&cx, mm, middle).await.expect("mapped");
        assert_eq!((k.metrics().huge_zapped, locked_vm(&k, mm)), (0, 0));
        // Never merged again (VM_RESERVED).
        assert_eq!(mappings(&k, mm).len(), 3);
    });
}

#[test]
fn references_to_a_range_reach_over_borders_of_huge_pages() {
    solo(2, |cx, k, mm, file| async move {
        k.sys_mmap(&cx, mm, huge(BASE, 2, file, Sharing::Shared))
            .await
            .expect("free");
        let wanted = range(BASE.add_pages(HPAGE_PAGES - 2), 5);
        let slow = {
            let _sem = cx.lock_shared(k.mmap_sem(mm)).await;
            k.get_user_pages(&cx, mm, wanted, Access::Write)
                .await
                .expect("mapped")
        };
        assert_eq!(k.metrics().faults_huge, 2);
        for (page, at) in slow.iter().zip(wanted.vpns()) {
            assert_eq!(page.pfn, k.peek_pte(mm, at.va()).pfn());
        }
        let readers = readers_of_mmap_sem(&k);
        let fast = k.get_user_pages_fast(&cx, mm, wanted, Access::Write).await;
        assert_eq!(readers_of_mmap_sem(&k), readers);
        assert_eq!(fast.as_ref(), Ok(&slow));
        assert_eq!(slow.len(), 5);
        put(&cx, &k, slow).await;
        // The pages stay for who has the other references.
        k.sys_munmap(&cx, mm, huge_range(BASE, 2)).await.expect("mapped");
        k.do_truncate(&cx, file, 0).await;
        assert_eq!(k.huge_pool().free, 0);
        put(&cx, &k, fast.expect("as before")).await;
        assert_eq!(k.huge_pool().free, 2);
    });
}

#[test]
fn what_the_lockless_walk_may_not_write_is_left_to_the_slow_one() {
    solo(2, |cx, k, mm, file| async move {
        k.sys_mmap(&cx, mm, huge(BASE, 2, file, Sharing::Private))
            .await
            .expect("free");
        touch_huge(&cx, &k, mm, huge_range(BASE, 1), Access::Read).await;
        let readers = readers_of_mmap_sem(&k);
        let two = range(BASE.add_pages(7), 2);
        let read = k.get_user_pages_fast(&cx, mm, two, Access::Read).await;
        assert_eq!(readers_of_mmap_sem(&k), readers);
        put(&cx, &k, read.expect("present")).await;
        let written = k.get_user_pages_fast(&cx, mm, two, Access::Write).await;
        assert_eq!(readers_of_mmap_sem(&k), readers + 1);
        put(&cx, &k, written.expect("made writable")).await;
    });
}

#[test]
fn a_kernel_without_the_lockless_walk_takes_mmap_sem() {
    for (walk, taken) in [(GupFast::Present, 0), (GupFast::Absent, 1)] {
        let mut setup = Setup::linux_2_6_27();
        setup.profile.gup_fast = walk;
        let (end, wrong) = with_pool(setup, 0, 1, move |cx, k, mm, _| async move {
            k.sys_mmap(&cx, mm, anonymous(BASE, 3)).await.expect("free");
            touch(&cx, &k, mm, range(BASE, 3), Access::Write).await;
            let readers = readers_of_mmap_sem(&k);
            let got = k
                .get_user_pages_fast(&cx, mm, range(BASE, 3), Access::Write)
                .await
                .expect("present");
            assert_eq!((got.len(), readers_of_mmap_sem(&k) - readers), (3, taken));
            put(&cx, &k, got).await;
        });
        assert_eq!((end, wrong), (End::Completed, Vec::new()));
    }
}

#[test]
fn no_hole_is_punched_behind_locked_mappings_or_huge_pages() {
    with_file(FileKind::Tmpfs, |cx, k, mm, file| async move {
        k.sys_mmap(&cx, mm, shared_file(BASE, 8, file))
            .await
            .expect("free");
        k.sys_mlock(&cx, mm, range(BASE.add_pages(4), 4))
            .await
            .expect("mapped");
        let freed = k.metrics().pages_freed;
        touch(&cx, &k, mm, range(BASE, 4), Access::Write).await;
        let punched = k.madvise_remove(&cx, mm, range(BASE, 8)).await;
        assert_eq!(punched, Err(RemoveError::Invalid));
        assert_eq!(
            k.metrics().pages_freed - freed,
            4,
            "what lies before the locked part"
        );
    });
    solo(1, |cx, k, mm, file| async move {
        k.sys_mmap(&cx, mm, huge(BASE, 1, file, Sharing::Shared))
            .await
            .expect("free");
        let punched = k.madvise_remove(&cx, mm, huge_range(BASE, 1)).await;
        assert_eq!(punched, Err(RemoveError::Invalid));
    });
}

#[test]
fn mappings_of_huge_pages_are_not_remapped() {
    solo(2, |cx, k, mm, file| async move {
        k.sys_mmap(&cx, mm, huge(BASE, 2, file, Sharing::Shared))
            .await
            .expect("free");
        let request = RemapRequest {
            range: huge_range(BASE, 1),
            prot: Prot::NONE,
            pgoff: Pgoff::new(HPAGE_PAGES),
            prefault: Prefault::No,
        };
        let remapped = k.sys_remap_file_pages(&cx, mm, request).await;
        assert_eq!(remapped, Err(RemapError::Invalid));
    });
}

#[test]
fn a_nonlinear_mapping_that_is_cut_keeps_its_place_on_the_list_and_its_parts_join_again() {
    with_file(FileKind::Tmpfs, |cx, k, mm, file| async move {
        for at in [BASE, FAR_ABOVE] {
            k.sys_mmap(&cx, mm, shared_file(at, 12, file))
                .await
                .expect("free");
            remap(&cx, &k, mm, range(at, 12), 16).await;
        }
        let (first, second) = (mappings(&k, mm)[0].0, mappings(&k, mm)[1].0);
        assert_eq!(nonlinear(&k, file), [first, second]);
        let middle = range(BASE.add_pages(4), 4);
        k.sys_mlock(&cx, mm, middle).await.expect("mapped");
        let parts = mappings(&k, mm);
        assert_eq!((parts.len(), parts[1]), (4, (first, middle)));
        assert_eq!(nonlinear(&k, file), [first, second, parts[0].0, parts[2].0]);
        for page in 0..12 {
            assert_eq!(page_at(&k, mm, BASE.add_pages(page)), 16 + page);
        }
        k.sys_munlock(&cx, mm, middle).await.expect("mapped");
        let joined = mappings(&k, mm);
        assert_eq!(joined[0].1, range(BASE, 12));
        assert_eq!(joined.len(), 2);
        assert_eq!(nonlinear(&k, file), [second, joined[0].0]);
        for page in 0..12 {
            assert_eq!(page_at(&k, mm, BASE.add_pages(page)), 16 + page);
        }
    });
}

#[test]
fn a_nonlinear_mapping_grows_in_place_but_joins_no_linear_one() {
    with_file(FileKind::Tmpfs, |cx, k, mm, file| async move {
        k.sys_mmap(&cx, mm, shared_file(BASE, 8, file))
            .await
            .expect("free");
        k.sys_mmap(&cx, mm, shared_file(FAR_ABOVE, 8, file))
            .await
            .expect("free");
        remap(&cx, &k, mm, range(BASE, 2), 20).await;
        remap(&cx, &k, mm, range(FAR_ABOVE, 2), 20).await;
        let order = nonlinear(&k, file);
        let longer = k
            .sys_mremap(&cx, mm, range(BASE, 8), 12, Destination::InPlace)
            .await;
        assert_eq!(longer, Ok(range(BASE, 12)));
        assert_eq!((mappings(&k, mm).len(), nonlinear(&k, file)), (2, order.clone()));
        // What would continue it.
        let behind = MapRequest {
            pgoff: Pgoff::new(12),
            ..shared_file(BASE.add_pages(12), 4, file)
        };
        k.sys_mmap(&cx, mm, behind).await.expect("free");
        assert_eq!((mappings(&k, mm).len(), nonlinear(&k, file)), (3, order));
        k.access(&cx, mm, BASE.add_pages(10), Access::Read)
            .await
            .expect("mapped");
        assert_eq!(page_at(&k, mm, BASE.add_pages(10)), 10, "the linear page");
        assert_eq!(page_at(&k, mm, BASE), 20);
    });
}

#[test]
fn the_linear_mapping_in_place_of_a_nonlinear_one_is_as_locked_as_what_was_there() {
    for locked in [true, false] {
        with_file(FileKind::Disk, move |cx, k, mm, file| async move {
            k.sys_mmap(&cx, mm, shared_file(BASE, 8, file))
                .await
                .expect("free");
            if locked {
                k.sys_mlock(&cx, mm, range(BASE, 8)).await.expect("mapped");
            }
            remap(&cx, &k, mm, range(BASE.add_pages(2), 3), 20).await;
            assert_eq!(mappings(&k, mm).len(), 3);
            assert_eq!(locked_vm(&k, mm), if locked { 8 } else { 0 });
            let present = k.peek_pte(mm, BASE.add_pages(3)).present();
            assert_eq!(present, locked);
        });
    }
}
