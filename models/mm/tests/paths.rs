//! What the system calls do at their edges, and what their notifier points tell.

mod common;

use std::cell::Cell;
use std::rc::Rc;

use common::{BASE, FAR_ABOVE, FAR_BELOW, Listener, Setup, anonymous, range, shared_file, touch, wait};
use mm::notifier::Design;
use mm::{MapError, Prot, Refused};
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
        k.sys_mprotect(&cx, mm, range(BASE, 2), Prot::NONE).await;
        assert_eq!(
            k.access(&cx, mm, BASE, Access::Read).await,
            Err(Refused::NoMapping)
        );
        k.sys_mprotect(&cx, mm, range(BASE, 2), Prot::READ_WRITE).await;
        let before = k.metrics().faults_anon;
        assert_eq!(k.access(&cx, mm, BASE, Access::Write).await, Ok(()));
        assert_eq!(k.metrics().faults_anon, before, "the page was still there");
        k.sys_mprotect(&cx, mm, range(BASE, 2), Prot::NONE).await;
        k.sys_munmap(&cx, mm, range(BASE, 2)).await;
        assert_eq!(k.metrics().pages_zapped, 2);
    });
}

#[test]
fn the_heap_stays_as_it_is_when_brk_cannot_be_served() {
    solo(|cx, k, mm| async move {
        k.sys_brk(&cx, mm, BASE)
            .await
            .expect("says where the heap starts");
        k.sys_brk(&cx, mm, BASE.add_pages(4)).await.expect("grows");
        touch(&cx, &k, mm, range(BASE, 4), Access::Write).await;
        k.sys_brk(&cx, mm, Va::new(BASE.get() - 4096))
            .await
            .expect("below its start: nothing");
        k.sys_mmap(&cx, mm, anonymous(BASE.add_pages(8), 1))
            .await
            .expect("free");
        k.sys_brk(&cx, mm, BASE.add_pages(16))
            .await
            .expect("something in the way: nothing");
        assert_eq!(k.metrics().pages_zapped, 0);
        assert_eq!(
            k.access(&cx, mm, BASE.add_pages(5), Access::Read).await,
            Err(Refused::NoMapping)
        );
        k.sys_brk(&cx, mm, Va::new(BASE.add_pages(5).get() + 8))
            .await
            .expect("rounded up");
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
        k.sys_mprotect(&cx, mm, range(BASE, 4), Prot::READ).await;
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
                k.madvise_dontneed(&cx, mm, range(BASE, 4)).await;
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
