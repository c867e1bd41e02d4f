//! References to user pages: slow, fast, and of memory nobody has touched.

mod common;

use std::cell::Cell;
use std::future::Future;
use std::rc::Rc;

use common::{BASE, FAR_ABOVE, Setup, anonymous, range, shared_file, touch, wait};
use mm::frame::PageFlags;
use mm::{Backing, Gup, Kernel, MapRequest, MmId, Prot, Refused};
use sim::{Cx, End, RandomWalk, Schedule};
use x86::Access;

fn solo<F: Future<Output = ()> + 'static>(body: impl FnOnce(Cx, Rc<Kernel>, MmId) -> F + 'static) {
    let b = Setup::linux_2_6_27().build();
    let mm = b.mm;
    assert_eq!(b.work(move |cx, k| body(cx, k, mm)), End::Completed);
    assert_eq!(b.world.audit(), Vec::<String>::new());
}

async fn put(cx: &Cx, k: &Kernel, pages: Vec<Gup>) {
    for page in pages {
        k.put_page(cx, page.pfn).await;
    }
}

async fn slow(cx: &Cx, k: &Kernel, mm: MmId, pages: u64, access: Access) -> Result<Vec<Gup>, Refused> {
    let _sem = cx.lock_shared(k.mmap_sem(mm)).await;
    k.get_user_pages(cx, mm, range(BASE, pages), access).await
}

#[test]
fn a_range_over_several_mappings_ends_where_a_page_cannot_be_had() {
    solo(|cx, k, mm| async move {
        let file = k.new_file("f", 3);
        k.sys_mmap(&cx, mm, anonymous(BASE, 4)).await.expect("free");
        k.sys_mmap(&cx, mm, shared_file(BASE.add_pages(4), 4, file))
            .await
            .expect("free");
        let got = slow(&cx, &k, mm, 8, Access::Write).await.expect("some");
        assert_eq!(got.len(), 7, "the eighth lies beyond the end of the file");
        for (page, vpn) in got.iter().zip(range(BASE, 8).vpns()) {
            assert_eq!(page.pfn, k.peek_pte(mm, vpn.va()).pfn());
        }
        put(&cx, &k, got).await;
        k.sys_mprotect(&cx, mm, range(BASE.add_pages(2), 6), Prot::READ)
            .await
            .expect("mapped");
        let got = slow(&cx, &k, mm, 8, Access::Write).await.expect("some");
        assert_eq!(got.len(), 2, "the third may not be written");
        put(&cx, &k, got).await;
        k.sys_munmap(&cx, mm, range(BASE, 1)).await.expect("mapped");
        assert_eq!(slow(&cx, &k, mm, 8, Access::Read).await, Err(Refused::NoMapping));
    });
}

#[test]
fn the_page_is_marked_not_the_entry() {
    solo(|cx, k, mm| async move {
        let file = k.new_file("f", 4);
        let shared = shared_file(BASE, 4, file);
        k.sys_mmap(&cx, mm, shared).await.expect("free");
        touch(&cx, &k, mm, range(BASE, 1), Access::Read).await;
        let flags = |pfn| k.frames().get(pfn).flags;
        let before = k.peek_pte(mm, BASE);
        put(&cx, &k, slow(&cx, &k, mm, 1, Access::Read).await.expect("mapped")).await;
        assert_eq!(k.peek_pte(mm, BASE), before);
        assert!(flags(before.pfn()).has(PageFlags::REFERENCED));
        assert!(!flags(before.pfn()).has(PageFlags::DIRTY));
        put(
            &cx,
            &k,
            slow(&cx, &k, mm, 1, Access::Write).await.expect("mapped"),
        )
        .await;
        assert!(flags(before.pfn()).has(PageFlags::DIRTY));
    });
}

#[test]
fn reading_untouched_anonymous_memory_allocates_nothing() {
    solo(|cx, k, mm| async move {
        k.sys_mmap(&cx, mm, anonymous(BASE, 600)).await.expect("free");
        touch(&cx, &k, mm, range(BASE.add_pages(1), 1), Access::Write).await;
        let before = k.metrics();
        let got = slow(&cx, &k, mm, 600, Access::Read).await.expect("mapped");
        assert_eq!(k.metrics().faults_anon, before.faults_anon);
        assert_eq!(got.len(), 600);
        // Also where there is no page table at all: the second one.
        assert_ne!(got[0].pfn, got[1].pfn);
        assert!(
            got.iter()
                .skip(2)
                .all(|p| p.pfn == got[0].pfn && p.access == Access::Read)
        );
        // Written later, the memory is another page, and nobody was told.
        touch(&cx, &k, mm, range(BASE, 1), Access::Write).await;
        assert_ne!(k.peek_pte(mm, BASE).pfn(), got[0].pfn);
        put(&cx, &k, got).await;
        let file = k.new_file("f", 4);
        k.sys_mmap(&cx, mm, shared_file(FAR_ABOVE, 4, file))
            .await
            .expect("free");
        let sem = k.mmap_sem(mm);
        let _sem = cx.lock_shared(sem).await;
        let got = k.get_user_pages(&cx, mm, range(FAR_ABOVE, 4), Access::Read).await;
        assert_eq!(
            k.metrics().faults_file - before.faults_file,
            4,
            "files have a fault routine"
        );
        put(&cx, &k, got.expect("mapped")).await;
    });
}

#[test]
fn a_drivers_mapping_has_no_pages_to_give() {
    solo(|cx, k, mm| async move {
        let driver = MapRequest {
            backing: Backing::Driver,
            ..anonymous(BASE, 2)
        };
        k.sys_mmap(&cx, mm, driver).await.expect("free");
        let frame = k.alloc_page(&cx).expect("memory");
        {
            let _sem = cx.lock_shared(k.mmap_sem(mm)).await;
            k.insert_pfn(&cx, mm, BASE, frame, Access::Write)
                .await
                .expect("mapped");
        }
        for access in [Access::Read, Access::Write] {
            assert_eq!(slow(&cx, &k, mm, 1, access).await, Err(Refused::NoMapping));
            let fast = k.get_user_pages_fast(&cx, mm, range(BASE, 1), access).await;
            assert_eq!(fast, Err(Refused::NoMapping), "the entry is special");
        }
        // Also after its rights were changed.
        k.sys_mprotect(&cx, mm, range(BASE, 1), Prot::READ)
            .await
            .expect("mapped");
        let fast = k.get_user_pages_fast(&cx, mm, range(BASE, 1), Access::Read).await;
        assert_eq!(fast, Err(Refused::NoMapping));
        k.sys_munmap(&cx, mm, range(BASE, 2)).await.expect("mapped");
        k.put_page(&cx, frame).await;
    });
}

#[test]
fn the_fast_way_takes_no_lock_and_the_slow_way_does_the_rest() {
    let b = Setup::linux_2_6_27().build();
    let mm = b.mm;
    let (held, done) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(0)));
    let (holding, progress) = (Rc::clone(&held), Rc::clone(&done));
    b.thread(0, Some(mm), move |cx, k| async move {
        k.sys_mmap(&cx, mm, anonymous(BASE, 8)).await.expect("free");
        touch(&cx, &k, mm, range(BASE, 4), Access::Write).await;
        let sem = cx.lock(k.mmap_sem(mm)).await;
        holding.set(true);
        while progress.get() == 0 {
            wait(&cx, 1_000).await;
        }
        // The second call needs page faults, so it waits for the lock.
        wait(&cx, 100_000).await;
        assert_eq!(progress.get(), 1);
        holding.set(false);
        drop(sem);
    });
    b.thread(1, Some(mm), move |cx, k| async move {
        while !held.get() {
            wait(&cx, 1_000).await;
        }
        let got = k
            .get_user_pages_fast(&cx, mm, range(BASE, 4), Access::Write)
            .await;
        assert!(held.get(), "mmap_sem is still held for write");
        put(&cx, &k, got.expect("present")).await;
        done.set(1);
        let got = k
            .get_user_pages_fast(&cx, mm, range(BASE, 8), Access::Write)
            .await;
        assert!(!held.get());
        let got = got.expect("mapped");
        assert_eq!(got.len(), 8);
        put(&cx, &k, got).await;
        assert_eq!(k.metrics().faults_anon, 8);
    });
    assert_eq!(b.engine.run(), End::Completed);
    assert_eq!(b.world.audit(), Vec::<String>::new());
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Interrupts {
    On,
    Off,
}

/// Between reading an entry and using its frame a munmap of the page runs on another CPU. Returns
/// whether the munmap was over, and whether the frame was freed, when the frame was used.
fn frame_read_while_unmapped(interrupts: Interrupts) -> (bool, bool) {
    let b = Setup::linux_2_6_27().build();
    let mm = b.mm;
    let (mapped, read, unmapped) = (
        Rc::new(Cell::new(false)),
        Rc::new(Cell::new(false)),
        Rc::new(Cell::new(false)),
    );
    let outcome = Rc::new(Cell::new((false, false)));
    let (ready, looked, gone) = (Rc::clone(&mapped), Rc::clone(&read), Rc::clone(&unmapped));
    b.thread(0, Some(mm), move |cx, k| async move {
        k.sys_mmap(&cx, mm, anonymous(BASE, 4)).await.expect("free");
        touch(&cx, &k, mm, range(BASE, 4), Access::Write).await;
        ready.set(true);
        while !looked.get() {
            wait(&cx, 100).await;
        }
        k.sys_munmap(&cx, mm, range(BASE, 4)).await.expect("mapped");
        gone.set(true);
    });
    let result = Rc::clone(&outcome);
    b.thread(1, Some(mm), move |cx, k| async move {
        while !mapped.get() {
            wait(&cx, 100).await;
        }
        let off = (interrupts == Interrupts::Off).then(|| cx.irq_disable());
        let pfn = k.peek_pte(mm, BASE).pfn();
        let generation = k.generation(pfn);
        read.set(true);
        for _ in 0..1_000 {
            wait(&cx, 1_000).await;
        }
        result.set((unmapped.get(), k.generation(pfn) != generation));
        drop(off);
    });
    assert_eq!(b.engine.run(), End::Completed);
    outcome.get()
}

#[test]
fn a_munmap_waits_in_its_flush_for_a_cpu_that_walks_with_interrupts_off() {
    assert_eq!(frame_read_while_unmapped(Interrupts::Off), (false, false));
    assert_eq!(
        frame_read_while_unmapped(Interrupts::On),
        (true, true),
        "without it the frame is freed under the walk"
    );
}

#[test]
fn fast_references_and_unmapping_in_any_order_keep_the_books() {
    for seed in 0..60 {
        let b = Setup::linux_2_6_27().build_with(Schedule::Explored(Box::new(RandomWalk::new(seed))));
        let mm = b.mm;
        b.thread(0, Some(mm), move |cx, k| async move {
            for round in 0..4 {
                k.sys_mmap(&cx, mm, anonymous(BASE, 6)).await.expect("free");
                touch(&cx, &k, mm, range(BASE, 6), Access::Write).await;
                if round % 2 == 0 {
                    k.madvise_dontneed(&cx, mm, range(BASE, 3)).await.expect("mapped");
                }
                k.sys_munmap(&cx, mm, range(BASE, 6)).await.expect("mapped");
            }
        });
        for cpu in 1..3 {
            b.thread(cpu, Some(mm), move |cx, k| async move {
                for _ in 0..6 {
                    let access = if cpu == 1 { Access::Write } else { Access::Read };
                    if let Ok(got) = k.get_user_pages_fast(&cx, mm, range(BASE, 6), access).await {
                        wait(&cx, 500).await;
                        put(&cx, &k, got).await;
                    }
                }
            });
        }
        assert_eq!(b.engine.run(), End::Completed, "seed {seed}");
        assert_eq!(b.world.audit(), Vec::<String>::new(), "seed {seed}");
    }
}

#[test]
fn a_page_that_is_referenced_twice_becomes_active() {
    solo(|cx, k, mm| async move {
        let file = k.new_file("f", 1);
        k.sys_mmap(&cx, mm, shared_file(BASE, 1, file))
            .await
            .expect("free");
        k.access(&cx, mm, BASE, Access::Read).await.expect("mapped");
        k.lru_add_drain_all(&cx).await;
        // The fault was the first use.
        let got = slow(&cx, &k, mm, 1, Access::Read).await.expect("mapped");
        assert_eq!(k.metrics().lru_activated, 1);
        put(&cx, &k, got).await;
        let got = slow(&cx, &k, mm, 1, Access::Read).await.expect("mapped");
        assert_eq!(k.metrics().lru_activated, 1, "it is active already");
        put(&cx, &k, got).await;
    });
}
