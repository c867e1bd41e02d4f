//! Which mappings become one, case by case of mm/mmap.c, and what that means for anon_vmas.

mod common;

use std::future::Future;
use std::rc::Rc;

use common::{BASE, Setup, anonymous, range, shared_file, touch};
use mm::{Backing, Kernel, MapError, MapRequest, MmId, Prot, Sharing};
use sim::{Cx, End};
use x86::{Access, Pgoff, VaRange};

fn solo<F: Future<Output = ()> + 'static>(body: impl FnOnce(Cx, Rc<Kernel>, MmId) -> F + 'static) {
    let b = Setup::linux_2_6_27().build();
    let mm = b.mm;
    assert_eq!(b.work(move |cx, k| body(cx, k, mm)), End::Completed);
    assert_eq!(b.world.audit(), Vec::<String>::new());
}

/// First page, counted from BASE, and length of each mapping.
fn layout(k: &Kernel, mm: MmId) -> Vec<(u64, u64)> {
    let st = k.st();
    let of = |r: VaRange| ((r.start().get() - BASE.get()) / x86::PAGE_SIZE, r.pages());
    st.mm(mm).vmas.iter().map(|v| of(st.vma(v).range)).collect()
}

fn part(first: u64, pages: u64) -> VaRange {
    range(BASE.add_pages(first), pages)
}

async fn map(cx: &Cx, k: &Kernel, mm: MmId, first: u64, pages: u64) {
    k.sys_mmap(cx, mm, anonymous(BASE.add_pages(first), pages))
        .await
        .expect("free");
}

async fn protect(cx: &Cx, k: &Kernel, mm: MmId, first: u64, pages: u64, prot: Prot) {
    k.sys_mprotect(cx, mm, part(first, pages), prot)
        .await
        .expect("mapped");
}

#[test]
fn a_new_mapping_joins_its_neighbours_on_either_side() {
    solo(|cx, k, mm| async move {
        map(&cx, &k, mm, 4, 2).await;
        map(&cx, &k, mm, 6, 2).await;
        assert_eq!(layout(&k, mm), [(4, 4)], "case 2");
        map(&cx, &k, mm, 2, 2).await;
        assert_eq!(layout(&k, mm), [(2, 6)], "case 3");
        map(&cx, &k, mm, 10, 2).await;
        map(&cx, &k, mm, 8, 2).await;
        assert_eq!(layout(&k, mm), [(2, 10)], "case 1");
    });
}

#[test]
fn changed_rights_move_borders_and_close_gaps_between_likes() {
    solo(|cx, k, mm| async move {
        map(&cx, &k, mm, 0, 8).await;
        protect(&cx, &k, mm, 4, 4, Prot::READ).await;
        assert_eq!(layout(&k, mm), [(0, 4), (4, 4)]);
        protect(&cx, &k, mm, 2, 2, Prot::READ).await;
        assert_eq!(layout(&k, mm), [(0, 2), (2, 6)], "case 4");
        protect(&cx, &k, mm, 2, 3, Prot::READ_WRITE).await;
        assert_eq!(layout(&k, mm), [(0, 5), (5, 3)], "case 5");
        protect(&cx, &k, mm, 5, 3, Prot::READ_WRITE).await;
        assert_eq!(layout(&k, mm), [(0, 8)], "case 7");
        protect(&cx, &k, mm, 3, 2, Prot::READ).await;
        assert_eq!(layout(&k, mm), [(0, 3), (3, 2), (5, 3)]);
        protect(&cx, &k, mm, 3, 2, Prot::READ_WRITE).await;
        assert_eq!(layout(&k, mm), [(0, 8)], "case 6");
        protect(&cx, &k, mm, 0, 2, Prot::READ).await;
        protect(&cx, &k, mm, 0, 2, Prot::READ_WRITE).await;
        assert_eq!(layout(&k, mm), [(0, 8)], "case 8");
    });
}

#[test]
fn file_mappings_join_only_where_the_file_goes_on() {
    solo(|cx, k, mm| async move {
        let file = k.new_file("f", 64);
        let at = |first, pgoff| MapRequest {
            pgoff: Pgoff::new(pgoff),
            ..shared_file(BASE.add_pages(first), 4, file)
        };
        k.sys_mmap(&cx, mm, at(0, 8)).await.expect("free");
        k.sys_mmap(&cx, mm, at(4, 12)).await.expect("free");
        k.sys_mmap(&cx, mm, at(8, 17)).await.expect("free");
        let private = MapRequest {
            sharing: Sharing::Private,
            ..at(12, 21)
        };
        k.sys_mmap(&cx, mm, private).await.expect("free");
        assert_eq!(layout(&k, mm), [(0, 8), (8, 4), (12, 4)]);
    });
}

#[test]
fn shared_anonymous_memory_is_a_file_of_its_own_each_time() {
    solo(|cx, k, mm| async move {
        for first in [0, 4] {
            let request = MapRequest {
                sharing: Sharing::Shared,
                ..anonymous(BASE.add_pages(first), 4)
            };
            k.sys_mmap(&cx, mm, request).await.expect("free");
        }
        assert_eq!(layout(&k, mm), [(0, 4), (4, 4)]);
    });
}

#[test]
fn drivers_mappings_stay_apart() {
    solo(|cx, k, mm| async move {
        for first in [0, 4] {
            let request = MapRequest {
                backing: Backing::Driver,
                sharing: Sharing::Shared,
                pgoff: Pgoff::new(first),
                ..anonymous(BASE.add_pages(first), 4)
            };
            k.sys_mmap(&cx, mm, request).await.expect("free");
        }
        assert_eq!(layout(&k, mm), [(0, 4), (4, 4)]);
    });
}

#[test]
fn memory_that_was_writable_once_does_not_join_memory_that_never_was() {
    solo(|cx, k, mm| async move {
        let read_only = MapRequest {
            prot: Prot::READ,
            ..anonymous(BASE, 4)
        };
        k.sys_mmap(&cx, mm, read_only).await.expect("free");
        map(&cx, &k, mm, 4, 4).await;
        protect(&cx, &k, mm, 4, 4, Prot::READ).await;
        assert_eq!(layout(&k, mm), [(0, 4), (4, 4)], "VM_ACCOUNT");
        protect(&cx, &k, mm, 0, 4, Prot::READ_WRITE).await;
        protect(&cx, &k, mm, 0, 4, Prot::READ).await;
        assert_eq!(layout(&k, mm), [(0, 8)]);
    });
}

#[test]
fn two_families_of_anonymous_pages_do_not_become_one_mapping() {
    solo(|cx, k, mm| async move {
        for first in [0, 4] {
            map(&cx, &k, mm, first, 2).await;
            touch(&cx, &k, mm, part(first, 2), Access::Write).await;
        }
        map(&cx, &k, mm, 2, 2).await;
        assert_eq!(layout(&k, mm), [(0, 4), (4, 2)], "the predecessor comes first");
        assert_eq!(k.st().anon_vmas.len(), 2);
    });
}

#[test]
fn a_first_touch_joins_the_family_of_a_neighbour_it_may_be_merged_with_later() {
    solo(|cx, k, mm| async move {
        map(&cx, &k, mm, 0, 8).await;
        protect(&cx, &k, mm, 4, 4, Prot::READ).await;
        touch(&cx, &k, mm, part(0, 1), Access::Write).await;
        touch(&cx, &k, mm, part(7, 1), Access::Read).await;
        assert_eq!(k.st().anon_vmas.len(), 1, "find_mergeable_anon_vma");
        protect(&cx, &k, mm, 4, 4, Prot::READ_WRITE).await;
        assert_eq!(layout(&k, mm), [(0, 8)]);
    });
}

#[test]
fn a_locked_neighbour_is_no_family() {
    solo(|cx, k, mm| async move {
        map(&cx, &k, mm, 0, 8).await;
        k.sys_mlock(&cx, mm, part(4, 4)).await.expect("mapped");
        touch(&cx, &k, mm, part(0, 1), Access::Write).await;
        assert_eq!(k.st().anon_vmas.len(), 2);
        k.sys_munlock(&cx, mm, part(4, 4)).await.expect("mapped");
        assert_eq!(layout(&k, mm), [(0, 4), (4, 4)]);
    });
}

#[test]
fn a_mapping_that_takes_pages_over_joins_their_family() {
    solo(|cx, k, mm| async move {
        map(&cx, &k, mm, 0, 8).await;
        protect(&cx, &k, mm, 4, 4, Prot::READ).await;
        touch(&cx, &k, mm, part(4, 2), Access::Read).await;
        protect(&cx, &k, mm, 4, 1, Prot::READ_WRITE).await;
        assert_eq!(layout(&k, mm), [(0, 5), (5, 3)], "case 5");
        let st = k.st();
        let families: Vec<_> = st.mm(mm).vmas.iter().map(|v| st.vma(v).anon_vma).collect();
        assert!(families[0].is_some());
        assert_eq!(families[0], families[1]);
    });
}

#[test]
fn an_anon_vma_goes_with_its_last_mapping_and_is_used_again() {
    solo(|cx, k, mm| async move {
        for _ in 0..3 {
            map(&cx, &k, mm, 0, 4).await;
            touch(&cx, &k, mm, part(0, 4), Access::Write).await;
            let child = k.sys_fork(&cx, mm, "child".into()).await;
            k.sys_munmap(&cx, mm, part(0, 4)).await.expect("mapped");
            map(&cx, &k, mm, 8, 1).await;
            touch(&cx, &k, mm, part(8, 1), Access::Write).await;
            assert_eq!(k.st().anon_vmas.len(), 2, "the child still has the first");
            k.mmput(&cx, child).await;
            k.sys_munmap(&cx, mm, part(8, 1)).await.expect("mapped");
        }
        assert_eq!(k.st().anon_vmas.len(), 2);
    });
}

#[test]
fn memory_that_moves_back_beside_untouched_memory_is_still_found_by_its_pages() {
    solo(|cx, k, mm| async move {
        map(&cx, &k, mm, 2, 2).await;
        touch(&cx, &k, mm, part(2, 2), Access::Write).await;
        let away = BASE.add_pages(1000);
        k.sys_mremap(&cx, mm, part(2, 2), 2, Some(away))
            .await
            .expect("moves");
        map(&cx, &k, mm, 0, 2).await;
        k.sys_mremap(&cx, mm, range(away, 2), 2, Some(BASE.add_pages(2)))
            .await
            .expect("moves back");
        assert_eq!(layout(&k, mm), [(0, 4)]);
    });
}

#[test]
fn untouched_memory_that_moves_takes_the_index_of_its_new_place() {
    solo(|cx, k, mm| async move {
        map(&cx, &k, mm, 0, 4).await;
        map(&cx, &k, mm, 100, 4).await;
        let to = BASE.add_pages(4);
        k.sys_mremap(&cx, mm, part(100, 4), 4, Some(to))
            .await
            .expect("moves");
        assert_eq!(layout(&k, mm), [(0, 8)]);
        // Touched memory keeps its index, and so stays a mapping of its own.
        map(&cx, &k, mm, 100, 4).await;
        touch(&cx, &k, mm, part(100, 4), Access::Write).await;
        let to = BASE.add_pages(8);
        k.sys_mremap(&cx, mm, part(100, 4), 4, Some(to))
            .await
            .expect("moves");
        assert_eq!(layout(&k, mm), [(0, 8), (8, 4)]);
    });
}

#[test]
fn a_mapping_that_grows_in_place_is_not_merged_with_what_it_touches() {
    solo(|cx, k, mm| async move {
        map(&cx, &k, mm, 0, 4).await;
        map(&cx, &k, mm, 8, 4).await;
        let grown = k
            .sys_mremap(&cx, mm, part(0, 4), 8, mm::Destination::InPlace)
            .await;
        assert_eq!(grown, Ok(part(0, 8)));
        assert_eq!(layout(&k, mm), [(0, 8), (8, 4)], "vma_adjust, not vma_merge");
        let more = k
            .sys_mremap(&cx, mm, part(0, 8), 9, mm::Destination::InPlace)
            .await;
        assert_eq!(more, Err(MapError::NoSpace));
        let inner = k
            .sys_mremap(&cx, mm, part(0, 4), 5, mm::Destination::InPlace)
            .await;
        assert_eq!(inner, Err(MapError::NoSpace), "it does not end there");
    });
}

#[test]
fn a_refused_mremap_leaves_done_what_came_first() {
    solo(|cx, k, mm| async move {
        map(&cx, &k, mm, 0, 4).await;
        protect(&cx, &k, mm, 2, 2, Prot::READ).await;
        map(&cx, &k, mm, 100, 4).await;
        let to = BASE.add_pages(102);
        let moved = k.sys_mremap(&cx, mm, part(0, 4), 3, Some(to)).await;
        assert_eq!(moved, Err(MapError::NotOneMapping));
        // The target was unmapped, and the tail that would not fit.
        assert_eq!(layout(&k, mm), [(0, 2), (2, 1), (100, 2)]);
    });
}

#[test]
fn mprotect_and_mlock_stop_at_a_hole_and_madvise_passes_it() {
    solo(|cx, k, mm| async move {
        map(&cx, &k, mm, 0, 2).await;
        map(&cx, &k, mm, 4, 2).await;
        let all = part(0, 6);
        touch(&cx, &k, mm, part(0, 2), Access::Write).await;
        touch(&cx, &k, mm, part(4, 2), Access::Write).await;
        let prots = |k: &Kernel| {
            let st = k.st();
            let prots: Vec<_> = st.mm(mm).vmas.iter().map(|v| st.vma(v).prot).collect();
            prots
        };
        assert_eq!(
            k.sys_mprotect(&cx, mm, all, Prot::READ).await,
            Err(MapError::Hole)
        );
        assert_eq!(prots(&k), [Prot::READ, Prot::READ_WRITE]);
        assert_eq!(k.sys_mlock(&cx, mm, all).await, Err(MapError::Hole));
        assert_eq!(k.st().mm(mm).locked_vm, 2);
        assert_eq!(k.sys_munlock(&cx, mm, all).await, Err(MapError::Hole));
        assert_eq!(k.st().mm(mm).locked_vm, 0);
        let begins = part(2, 4);
        assert_eq!(
            k.sys_mprotect(&cx, mm, begins, Prot::READ).await,
            Err(MapError::Hole)
        );
        assert_eq!(
            prots(&k),
            [Prot::READ, Prot::READ_WRITE],
            "nothing lies before the hole"
        );
        assert_eq!(k.madvise_dontneed(&cx, mm, all).await, Err(MapError::Hole));
        assert_eq!(k.metrics().pages_zapped, 4, "what lies behind the hole, too");
    });
}

/// `sysctl_max_map_count`, include/linux/sched.h 2.6.27.
const MOST: u64 = 65536;

#[test]
fn nothing_is_split_when_there_are_as_many_mappings_as_there_may_be() {
    solo(|cx, k, mm| async move {
        for n in 0..MOST {
            map(&cx, &k, mm, n * 4, 3).await;
        }
        let middle = part(1, 1);
        assert_eq!(
            k.sys_munmap(&cx, mm, middle).await,
            Err(MapError::TooManyMappings)
        );
        assert_eq!(
            k.sys_mprotect(&cx, mm, middle, Prot::READ).await,
            Err(MapError::TooManyMappings)
        );
        let moved = k.sys_mremap(&cx, mm, part(0, 3), 4, None).await;
        assert_eq!(moved, Ok(part(0, 4)), "it can grow where it is");
        let moved = k.sys_mremap(&cx, mm, part(4, 3), 5, None).await;
        assert_eq!(moved, Err(MapError::TooManyMappings));
        // mmap lets one through that is one too many.
        map(&cx, &k, mm, MOST * 4, 3).await;
        let more = anonymous(BASE.add_pages(MOST * 4 + 4), 3);
        assert_eq!(k.sys_mmap(&cx, mm, more).await, Err(MapError::TooManyMappings));
        assert_eq!(
            k.sys_munmap(&cx, mm, part(4, 3)).await,
            Ok(()),
            "all of a mapping may go"
        );
    });
}
