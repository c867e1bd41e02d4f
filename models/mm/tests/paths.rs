//! What the system calls do at their edges, and what their notifier points tell.

mod common;

use std::cell::Cell;
use std::rc::Rc;

use common::{BASE, FAR_ABOVE, FAR_BELOW, Listener, Setup, anonymous, range, shared_file, touch, wait};
use mm::notifier::Design;
use mm::profile::IMmapIndex;
use mm::{MapError, MapRequest, Prot, Refused, Sharing};
use sim::{Chooser, Enabled, End, Schedule, Stream};
use x86::{Access, Pgoff, Va};

fn solo<F: Future<Output = ()> + 'static>(
    body: impl FnOnce(sim::Cx, Rc<mm::Kernel>, mm::MmId) -> F + 'static,
) {
    let b = Setup::linux_2_6_27().build();
    let mm = b.mm;
    assert_eq!(b.work(move |cx, k| body(cx, k, mm)), End::Completed);
    assert_eq!(b.world.audit(), Vec::<String>::new());
}

#[test]
fn memory_without_rights_cannot_be_read_but_keeps_its_pages() {
    solo(|cx, k, mm| async move {
        k.sys_mmap(&cx, mm, anonymous(BASE, 2)).await.expect("free");
        touch(&cx, &k, mm, range(BASE, 2), Access::Write).await;
        k.sys_mprotect(&cx, mm, range(BASE, 2), Prot::NONE)
            .await
            .expect("mapped");
        assert_eq!(
            k.access(&cx, mm, BASE, Access::Read).await,
            Err(Refused::NoMapping)
        );
        k.sys_mprotect(&cx, mm, range(BASE, 2), Prot::READ_WRITE)
            .await
            .expect("mapped");
        let before = k.metrics().faults_anon;
        assert_eq!(k.access(&cx, mm, BASE, Access::Write).await, Ok(()));
        assert_eq!(k.metrics().faults_anon, before, "the page was still there");
        k.sys_mprotect(&cx, mm, range(BASE, 2), Prot::NONE)
            .await
            .expect("mapped");
        k.sys_munmap(&cx, mm, range(BASE, 2)).await.expect("mapped");
        assert_eq!(k.metrics().pages_zapped, 2);
    });
}

#[test]
fn the_heap_stays_as_it_is_when_brk_cannot_be_served() {
    solo(|cx, k, mm| async move {
        // The first call says where the heap starts.
        k.sys_brk(&cx, mm, BASE).await;
        let four = BASE.add_pages(4);
        assert_eq!(k.sys_brk(&cx, mm, four).await, four);
        touch(&cx, &k, mm, range(BASE, 4), Access::Write).await;
        let below = k.sys_brk(&cx, mm, Va::new(BASE.get() - 4096)).await;
        assert_eq!(below, four, "below its start: nothing");
        k.sys_mmap(&cx, mm, anonymous(BASE.add_pages(8), 1))
            .await
            .expect("free");
        let obstructed = k.sys_brk(&cx, mm, BASE.add_pages(16)).await;
        assert_eq!(obstructed, four, "something in the way: nothing");
        let beyond = k.sys_brk(&cx, mm, Va::new(x86::addr::LOWER_HALF_END)).await;
        assert_eq!(beyond, four, "no room");
        assert_eq!(k.metrics().pages_zapped, 0);
        assert_eq!(
            k.access(&cx, mm, BASE.add_pages(5), Access::Read).await,
            Err(Refused::NoMapping)
        );
        k.sys_brk(&cx, mm, Va::new(BASE.add_pages(5).get() + 8)).await;
        assert_eq!(k.access(&cx, mm, BASE.add_pages(5), Access::Write).await, Ok(()));
    });
}

#[test]
fn an_address_space_that_is_full_says_so() {
    solo(|cx, k, mm| async move {
        let anywhere = |pages| mm::MapRequest {
            at: None,
            ..anonymous(BASE, pages)
        };
        k.sys_mmap(&cx, mm, anywhere(1)).await.expect("free");
        for pages in [0x7_f000_0000, 1 << 52, u64::MAX] {
            assert_eq!(
                k.sys_mmap(&cx, mm, anywhere(pages)).await,
                Err(MapError::NoSpace),
                "{pages}"
            );
        }
        k.sys_mmap(&cx, mm, anywhere(1))
            .await
            .expect("a refused mapping takes no room");
        let beyond = mm::MapRequest {
            pgoff: Pgoff::new(u64::MAX - 1),
            ..shared_file(BASE, 8, k.new_file("f", 8))
        };
        assert_eq!(k.sys_mmap(&cx, mm, beyond).await, Err(MapError::BadRange));
    });
}

#[test]
fn mremap_refuses_targets_that_make_no_sense() {
    solo(|cx, k, mm| async move {
        k.sys_mmap(&cx, mm, anonymous(BASE, 16)).await.expect("free");
        touch(&cx, &k, mm, range(BASE, 16), Access::Write).await;
        let end = Va::new(x86::addr::LOWER_HALF_END - 4096);
        for to in [BASE.add_pages(4), end] {
            let moved = k.sys_mremap(&cx, mm, range(BASE, 16), 16, Some(to)).await;
            assert_eq!(moved, Err(MapError::BadRange), "{to}");
        }
        assert_eq!(k.metrics().pages_zapped, 0);
    });
}

#[test]
fn a_shrinking_move_unmaps_what_does_not_fit_first() {
    solo(|cx, k, mm| async move {
        k.sys_mmap(&cx, mm, anonymous(BASE, 16)).await.expect("free");
        touch(&cx, &k, mm, range(BASE, 16), Access::Write).await;
        let heard = Rc::new(Listener::default());
        k.mmu_notifier_register(&cx, mm, heard.clone()).await;
        let moved = k.sys_mremap(&cx, mm, range(BASE, 16), 4, Some(FAR_ABOVE)).await;
        assert_eq!(moved, Ok(range(FAR_ABOVE, 4)));
        // The tail, the move, and the old place.
        assert_eq!((heard.starts.get(), heard.ends.get()), (3, 3));
        assert_eq!(
            k.access(&cx, mm, FAR_ABOVE.add_pages(3), Access::Read).await,
            Ok(())
        );
        assert_eq!(k.metrics().pages_zapped, 12);
    });
}

#[test]
fn fork_tells_of_private_memory_that_is_read_only_now() {
    solo(|cx, k, mm| async move {
        k.sys_mmap(&cx, mm, anonymous(BASE, 4)).await.expect("free");
        touch(&cx, &k, mm, range(BASE, 4), Access::Write).await;
        k.sys_mprotect(&cx, mm, range(BASE, 4), Prot::READ)
            .await
            .expect("mapped");
        let heard = Rc::new(Listener::default());
        k.mmu_notifier_register(&cx, mm, heard.clone()).await;
        let child = k.sys_fork(&cx, mm, "child".into()).await;
        assert_eq!((heard.starts.get(), heard.ends.get()), (1, 1));
        k.mmput(&cx, child).await;
    });
}

#[test]
fn truncation_to_the_present_size_still_makes_both_passes() {
    solo(|cx, k, mm| async move {
        let file = k.new_file("f", 4);
        k.sys_mmap(&cx, mm, shared_file(BASE, 8, file))
            .await
            .expect("free");
        let heard = Rc::new(Listener::default());
        k.mmu_notifier_register(&cx, mm, heard.clone()).await;
        k.do_truncate(&cx, file, 4).await;
        assert_eq!(heard.starts.get(), 2);
        k.do_truncate(&cx, file, 6).await;
        assert_eq!(heard.starts.get(), 2, "growing is only a new size");
    });
}

#[test]
fn release_is_called_once_whoever_comes_first() {
    for unregister_first in [true, false] {
        let b = Setup::linux_2_6_27().build();
        let mm = b.mm;
        let heard = Rc::new(Listener {
            slow: 1_000_000,
            ..Listener::default()
        });
        let id = Rc::new(Cell::new(None));
        let (listener, registered) = (Rc::clone(&heard), Rc::clone(&id));
        b.thread(0, Some(mm), move |cx, k| async move {
            k.sys_mmap(&cx, mm, anonymous(BASE, 4)).await.expect("free");
            touch(&cx, &k, mm, range(BASE, 4), Access::Write).await;
            registered.set(Some(k.mmu_notifier_register(&cx, mm, listener.clone()).await));
            wait(&cx, if unregister_first { 300_000 } else { 0 }).await;
            k.exit_mm(&cx, mm).await;
            assert_eq!(listener.releasing.get(), 0, "pages go only when release is over");
        });
        let listener = Rc::clone(&heard);
        b.thread(1, None, move |cx, k| async move {
            let begun = || {
                if unregister_first {
                    id.get().is_some()
                } else {
                    listener.releases.get() > 0
                }
            };
            while !begun() {
                wait(&cx, 1_000).await;
            }
            k.mmu_notifier_unregister(&cx, id.get().expect("registered"))
                .await;
        });
        assert_eq!(b.engine.run(), End::Completed);
        assert_eq!(heard.releases.get(), 1);
        assert_eq!(b.kernel.metrics().notifier_release, 1);
    }
}

#[test]
fn v1_tells_a_subscriber_that_registers_while_a_zap_waits_for_the_pte_lock() {
    let b = Setup::linux_2_6_27().design(Design::V1).build();
    let mm = b.mm;
    let heard = Rc::new(Listener::default());
    let go = Rc::new(Cell::new(false));
    let ready = Rc::clone(&go);
    b.thread(0, Some(mm), move |cx, k| async move {
        k.sys_mmap(&cx, mm, anonymous(BASE, 4)).await.expect("free");
        touch(&cx, &k, mm, range(BASE, 4), Access::Write).await;
        ready.set(true);
        let ptl = {
            let st = k.st();
            let table = st.tables.leaf_table(st.mm(mm).pgd, BASE.vpn()).expect("touched");
            st.ptl(table)
        };
        let held = cx.lock(ptl).await;
        for _ in 0..100 {
            wait(&cx, 10_000).await;
        }
        drop(held);
    });
    for (cpu, delay) in [(1, 20_000), (2, 200_000)] {
        let (go, listener) = (Rc::clone(&go), Rc::clone(&heard));
        b.thread(cpu, (cpu == 1).then_some(mm), move |cx, k| async move {
            while !go.get() {
                wait(&cx, 100).await;
            }
            wait(&cx, delay).await;
            if cpu == 1 {
                k.madvise_dontneed(&cx, mm, range(BASE, 4)).await.expect("mapped");
            } else {
                k.mmu_notifier_register(&cx, mm, listener).await;
            }
        });
    }
    assert_eq!(b.engine.run(), End::Completed);
    assert_eq!(heard.pages.get(), 4);
}

/// Lets the first task wait for lru_lock as long as anybody else can run.
struct HoldBackAtLru;

impl Chooser for HoldBackAtLru {
    fn next(&mut self, enabled: &[Enabled]) -> usize {
        let held_back = |e: &Enabled| e.actor == "thread0" && e.step.location.file().ends_with("page.rs");
        enabled.iter().position(|e| !held_back(e)).unwrap_or(0)
    }

    fn draw(&mut self, _: Stream, _: u64) -> u64 {
        0
    }
}

#[test]
fn a_page_just_put_into_the_cache_cannot_be_truncated_under_its_fault() {
    let b = Setup::linux_2_6_27().build_with(Schedule::Explored(Box::new(HoldBackAtLru)));
    let mm = b.mm;
    let file = b.kernel.new_file("f", 14);
    b.thread(0, Some(mm), move |cx, k| async move {
        k.sys_mmap(&cx, mm, shared_file(BASE, 14, file))
            .await
            .expect("free");
        // Thirteen pages wait in the pagevec: the next one drains it under lru_lock.
        k.sys_mmap(&cx, mm, anonymous(FAR_BELOW, 13)).await.expect("free");
        touch(&cx, &k, mm, range(FAR_BELOW, 13), Access::Write).await;
        let _ = k.access(&cx, mm, BASE.add_pages(13), Access::Read).await;
        k.sys_mmap(&cx, mm, anonymous(FAR_ABOVE, 20)).await.expect("free");
        touch(&cx, &k, mm, range(FAR_ABOVE, 20), Access::Write).await;
    });
    b.thread(1, None, move |cx, k| async move {
        let cached = || k.st().file(file).pages.get(13).is_some();
        while !cached() {
            wait(&cx, 0).await;
        }
        k.do_truncate(&cx, file, 0).await;
    });
    assert_eq!(b.engine.run(), End::Completed);
    assert_eq!(b.world.audit(), Vec::<String>::new());
}

#[test]
fn a_look_up_in_the_page_cache_costs_a_line_a_level() {
    solo(|cx, k, mm| async move {
        const LARGEST: [(u64, u64); 5] = [(0, 0), (63, 1), (64, 2), (4096, 3), (262_144, 4)];
        let file = k.new_file("f", 300_000);
        k.sys_mmap(&cx, mm, shared_file(BASE, 300_000, file))
            .await
            .expect("free");
        let sem = k.mmap_sem(mm);
        let mut took = Vec::new();
        for (largest, height) in LARGEST {
            // The last look-up of the first page finds it cached, in a tree of this height.
            for page in [0, largest, 0] {
                k.madvise_dontneed(&cx, mm, range(BASE.add_pages(page), 1))
                    .await
                    .expect("mapped");
                let _sem = cx.lock_shared(sem).await;
                let begin = cx.now();
                let found = k.get_user_page(&cx, mm, BASE.add_pages(page), Access::Read).await;
                k.put_page(&cx, found.expect("mapped").pfn).await;
                took.push(cx.now() - begin);
            }
            assert_eq!(u64::from(k.st().file(file).pages.height()), height);
            let lines = k.machine.costs.cacheline_touch * height;
            let last = *took.last().expect("three each");
            assert_eq!(last, took[2] + lines, "height {height}");
        }
    });
}

#[test]
fn shared_anonymous_memory_is_one_file_for_parent_and_child() {
    solo(|cx, k, mm| async move {
        let request = MapRequest {
            sharing: Sharing::Shared,
            ..anonymous(BASE, 4)
        };
        k.sys_mmap(&cx, mm, request).await.expect("free");
        touch(&cx, &k, mm, range(BASE, 4), Access::Write).await;
        let child = k.sys_fork(&cx, mm, "child".into()).await;
        k.activate_mm(&cx, child);
        touch(&cx, &k, child, range(BASE, 4), Access::Write).await;
        for page in 0..4 {
            let at = BASE.add_pages(page);
            assert_eq!(k.peek_pte(mm, at).pfn(), k.peek_pte(child, at).pfn());
        }
        assert_eq!(k.metrics().faults_cow, 0);
        k.activate_mm(&cx, mm);
        k.mmput(&cx, child).await;
    });
}

#[test]
fn a_truncate_steps_on_the_nodes_of_its_kernels_index() {
    // Mappings of file pages 0-7, 8-15, 4-5 and once more 0-7; pages from 6 on go. The priority search tree has 8-15
    // on top, 0-7 with the other one in its list to the left, and 4-5 below that, which does not reach page 6. The
    // interval tree has 4-5 on top (it was turned out from between the first two) and steps on all four.
    for (index, nodes, members) in [(IMmapIndex::PrioTree, 2, 1), (IMmapIndex::IntervalTree, 4, 0)] {
        let mut setup = Setup::linux_2_6_27();
        setup.profile.i_mmap_index = index;
        let b = setup.build();
        let mm = b.mm;
        let end = b.work(move |cx, k| async move {
            let file = k.new_file("f", 16);
            for (n, (from, pages)) in [(0, 8), (8, 8), (4, 2), (0, 8)].into_iter().enumerate() {
                let at = BASE.add_pages(n as u64 * 16);
                let request = MapRequest {
                    pgoff: Pgoff::new(from),
                    ..shared_file(at, pages, file)
                };
                k.sys_mmap(&cx, mm, request).await.expect("free");
            }
            let before = k.metrics();
            k.do_truncate(&cx, file, 6).await;
            let after = k.metrics();
            // Twice, before and after the page cache.
            assert_eq!(after.i_mmap_nodes - before.i_mmap_nodes, 2 * nodes, "{index:?}");
            assert_eq!(
                after.i_mmap_members - before.i_mmap_members,
                2 * members,
                "{index:?}"
            );
        });
        assert_eq!(end, End::Completed);
        assert_eq!(b.world.audit(), Vec::<String>::new());
    }
}

#[test]
fn a_mapping_that_is_refused_takes_no_address() {
    solo(|cx, k, mm| async move {
        let anywhere = |pgoff| MapRequest {
            at: None,
            pgoff: Pgoff::new(pgoff),
            ..anonymous(BASE, 1)
        };
        let mut starts = Vec::new();
        for refused_before in [0, 0, 1] {
            for _ in 0..refused_before {
                let beyond = MapRequest {
                    pages: 8,
                    ..anywhere(u64::MAX - 1)
                };
                assert_eq!(k.sys_mmap(&cx, mm, beyond).await, Err(MapError::BadRange));
            }
            let range = k.sys_mmap(&cx, mm, anywhere(0)).await.expect("free");
            starts.push(range.start().get());
        }
        assert_eq!(starts[0] - starts[1], starts[1] - starts[2]);
    });
}

#[test]
fn anonymous_memory_is_dirty_from_the_beginning_whether_or_not_it_may_be_written() {
    solo(|cx, k, mm| async move {
        let request = MapRequest {
            prot: Prot::READ,
            ..anonymous(BASE, 1)
        };
        k.sys_mmap(&cx, mm, request).await.expect("free");
        k.access(&cx, mm, BASE, Access::Read).await.expect("mapped");
        let entry = k.peek_pte(mm, BASE);
        assert!(entry.dirty() && !entry.writable());
    });
}
