//! Block devices: when requests are served, who waits for what, and where written pages go.

mod common;

use std::cell::Cell;
use std::rc::Rc;

use common::{BASE, Bench, Setup, range, shared_file, touch, wait};
use mm::frame::{LruList, PageFlags};
use mm::{Device, DiskSpec, FileId, Kernel};
use sim::{Cx, End, RandomWalk, Schedule};
use x86::{Access, Pfn};

const READ_NS: u64 = 1_000_000;
const WRITE_NS: u64 = 3_000_000;

fn bench() -> (Bench, FileId) {
    with(Setup::linux_2_6_27().build())
}

fn with(b: Bench) -> (Bench, FileId) {
    for device in [Device::Files, Device::Swap] {
        let spec = DiskSpec {
            read_ns: READ_NS,
            write_ns: WRITE_NS,
        };
        b.kernel.set_disk(device, spec);
    }
    let file = b.kernel.new_file("f", 64);
    (b, file)
}

/// Maps the file, reads its first pages into the cache, and gives their frames.
async fn cached(cx: &Cx, k: &Kernel, mm: mm::MmId, file: FileId, pages: u64) -> Vec<Pfn> {
    k.sys_mmap(cx, mm, shared_file(BASE, pages, file))
        .await
        .expect("free");
    touch(cx, k, mm, range(BASE, pages), Access::Read).await;
    (0..pages).map(|n| frame(k, file, n)).collect()
}

fn frame(k: &Kernel, file: FileId, index: u64) -> Pfn {
    k.st().file(file).pages.get(index).expect("cached").pfn
}

fn lock(k: &Kernel, file: FileId, index: u64) -> sim::LockId {
    k.st().file(file).pages.get(index).expect("cached").lock
}

/// Writes a page as reclaim does, which wants it at the end of the list afterwards.
async fn page_out(cx: &Cx, k: &Kernel, file: FileId, index: u64) {
    let locked = cx.lock(lock(k, file, index)).await;
    let pfn = frame(k, file, index);
    k.frames().get_mut(pfn).flags.set(PageFlags::RECLAIM);
    k.start_writeback(cx, pfn, Device::Files, locked).await;
}

#[test]
fn a_reader_sleeps_as_long_as_the_device_takes_for_it_and_those_before() {
    let (b, file) = bench();
    let mm = b.mm;
    let end = b.work(move |cx, k| async move {
        let pages = cached(&cx, &k, mm, file, 2).await;
        let ns = |cycles: sim::Cycles| k.machine.to_ns(cycles);
        let before = cx.now();
        {
            let _locked = cx.lock(lock(&k, file, 0)).await;
            k.read_page(&cx, pages[0], Device::Files).await;
        }
        let alone = ns(cx.now() - before);
        assert!((READ_NS..READ_NS + 100_000).contains(&alone), "{alone} ns");
        // A write is queued, and the read behind it waits for both.
        let before = cx.now();
        let written = cx.lock(lock(&k, file, 0)).await;
        k.start_writeback(&cx, pages[0], Device::Files, written).await;
        let queued = ns(cx.now() - before);
        assert!(queued < 100_000, "submitting does not wait: {queued} ns");
        let _read = cx.lock(lock(&k, file, 1)).await;
        // Another device serves meanwhile.
        k.read_page(&cx, pages[1], Device::Swap).await;
        let other = ns(cx.now() - before);
        assert!((READ_NS..READ_NS + 100_000).contains(&other), "{other} ns");
        k.read_page(&cx, pages[1], Device::Files).await;
        let both = ns(cx.now() - before);
        let expected = READ_NS + WRITE_NS;
        assert!((expected..expected + 100_000).contains(&both), "{both} ns");
        assert!(!k.page_writeback(pages[0]), "the write was served before");
        let m = k.metrics();
        assert_eq!((m.io_reads, m.io_writes), (3, 1));
        assert!(ns(sim::Cycles::new(m.io_wait_cycles)) >= 2 * READ_NS + WRITE_NS);
    });
    assert_eq!(end, End::Completed);
    assert_eq!(b.world.audit(), Vec::<String>::new());
}

#[test]
fn whoever_waits_for_writeback_sleeps_until_the_interrupt_and_others_run() {
    let (b, file) = bench();
    let mm = b.mm;
    let progress = Rc::new(Cell::new(0));
    let seen = Rc::clone(&progress);
    let other = Rc::clone(&progress);
    b.thread(0, None, move |cx, _| async move {
        for _ in 0..50 {
            wait(&cx, 1_000).await;
            other.set(other.get() + 1);
        }
    });
    let end = b.work(move |cx, k| async move {
        let pages = cached(&cx, &k, mm, file, 1).await;
        let locked = cx.lock(lock(&k, file, 0)).await;
        k.start_writeback(&cx, pages[0], Device::Files, locked).await;
        assert!(k.page_writeback(pages[0]));
        let before = cx.now();
        k.wait_on_page_writeback(&cx, pages[0]).await;
        assert!(!k.page_writeback(pages[0]));
        assert!(k.machine.to_ns(cx.now() - before) > WRITE_NS - 100_000);
        assert_eq!(seen.get(), 50, "the CPU was free meanwhile");
        // Nothing to wait for: nothing is slept for.
        let waited = k.metrics().io_wait_cycles;
        k.wait_on_page_writeback(&cx, pages[0]).await;
        assert_eq!(k.metrics().io_wait_cycles, waited);
    });
    assert_eq!(end, End::Completed);
}

#[test]
fn a_page_written_for_reclaim_is_moved_to_the_end_when_fourteen_wait_or_somebody_drains() {
    let (b, file) = bench();
    let mm = b.mm;
    let end = b.work(move |cx, k| async move {
        const PAGES: u64 = 20;
        let pages = cached(&cx, &k, mm, file, PAGES).await;
        k.lru_add_drain_all(&cx).await;
        let order = || -> Vec<Pfn> { k.frames().lru_pages(k.zone(), LruList::Inactive).collect() };
        // Newest first: the page reclaim would take next is the first one.
        assert_eq!(order().last(), Some(&pages[0]));
        for index in 1..14 {
            page_out(&cx, &k, file, index).await;
        }
        k.wait_on_page_writeback(&cx, pages[13]).await;
        assert_eq!(k.metrics().lru_rotated, 0, "thirteen wait");
        assert_eq!(order().last(), Some(&pages[0]));
        page_out(&cx, &k, file, 14).await;
        k.wait_on_page_writeback(&cx, pages[14]).await;
        assert_eq!(k.metrics().lru_rotated, 14);
        let moved: Vec<Pfn> = order()[PAGES as usize - 14..].to_vec();
        assert_eq!(moved, pages[1..15], "in the order they were written");
        page_out(&cx, &k, file, 0).await;
        k.wait_on_page_writeback(&cx, pages[0]).await;
        assert_eq!(k.metrics().lru_rotated, 14);
        k.lru_add_drain_all(&cx).await;
        assert_eq!(k.metrics().lru_rotated, 15);
        assert_eq!(order().last(), Some(&pages[0]));
        for pfn in &pages {
            assert!(!k.frames().get(*pfn).flags.has(PageFlags::RECLAIM));
        }
    });
    assert_eq!(end, End::Completed);
    assert_eq!(b.world.audit(), Vec::<String>::new());
}

#[test]
fn a_page_that_is_locked_dirty_or_active_again_stays_where_it_is() {
    let (b, file) = bench();
    let mm = b.mm;
    let end = b.work(move |cx, k| async move {
        let pages = cached(&cx, &k, mm, file, 3).await;
        k.lru_add_drain_all(&cx).await;
        for index in 0..3 {
            page_out(&cx, &k, file, index).await;
        }
        let locked = cx.lock(lock(&k, file, 0)).await;
        k.frames().get_mut(pages[1]).flags.set(PageFlags::DIRTY);
        let mut frames = k.frames();
        let _ = frames.lru_del(pages[2]);
        frames.lru_add(pages[2], LruList::Active);
        drop(frames);
        k.wait_on_page_writeback(&cx, pages[2]).await;
        drop(locked);
        k.lru_add_drain_all(&cx).await;
        assert_eq!(k.metrics().lru_rotated, 0);
    });
    assert_eq!(end, End::Completed);
    assert_eq!(b.world.audit(), Vec::<String>::new());
}

#[test]
fn in_any_order_every_request_is_served_and_nobody_sleeps_for_ever() {
    for seed in 0..200 {
        let schedule = Schedule::Explored(Box::new(RandomWalk::new(seed)));
        let (b, file) = with(Setup::linux_2_6_27().build_with(schedule));
        let mm = b.mm;
        let ready = Rc::new(Cell::new(false));
        for cpu in 1..4 {
            let ready = Rc::clone(&ready);
            b.thread(cpu, None, move |cx, k| async move {
                while !ready.get() {
                    wait(&cx, 1).await;
                }
                for round in 0..3 {
                    let index = (u64::from(cpu) + round) % 4;
                    let pfn = frame(&k, file, index);
                    let locked = cx.lock(lock(&k, file, index)).await;
                    k.wait_on_page_writeback(&cx, pfn).await;
                    if round == 1 {
                        k.read_page(&cx, pfn, Device::Files).await;
                    }
                    k.frames().get_mut(pfn).flags.set(PageFlags::RECLAIM);
                    k.start_writeback(&cx, pfn, Device::Files, locked).await;
                    k.wait_on_page_writeback(&cx, pfn).await;
                }
            });
        }
        let done = Rc::clone(&ready);
        let end = b.work(move |cx, k| async move {
            cached(&cx, &k, mm, file, 4).await;
            done.set(true);
            for _ in 0..5 {
                wait(&cx, 1).await;
                k.lru_add_drain_all(&cx).await;
            }
        });
        assert_eq!(end, End::Completed, "seed {seed}");
        assert_eq!(b.world.audit(), Vec::<String>::new(), "seed {seed}");
    }
}
