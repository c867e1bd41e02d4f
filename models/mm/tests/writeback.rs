//! Writeback: whom cleaning a page flushes and tells, what a store afterwards does, and who waits.

mod common;

use std::cell::Cell;
use std::collections::BTreeSet;
use std::rc::Rc;

use common::mappers::with_mappers;
use common::{BASE, Setup, anonymous, range, shared_file, touch, wait};
use mm::frame::PageFlags;
use mm::notifier::{CallbackFuture, MmuKind, Subscriber};
use mm::radix_tree::Tag;
use mm::{Device, DiskSpec, FileId, Kernel, MmId, Sharing};
use sim::{Cx, End, Logging, RandomWalk, RecordKind, Schedule};
use x86::{Access, Entry, Pfn, Va, VaRange};

/// A disk that takes a millisecond.
const SLOW: DiskSpec = DiskSpec {
    read_ns: 1_000_000,
    write_ns: 1_000_000,
};

fn frame(k: &Kernel, file: FileId, index: u64) -> Pfn {
    k.st().file(file).pages.get(index).expect("cached").pfn
}

fn dirty(k: &Kernel, file: FileId, index: u64) -> bool {
    let flag = k.frames().get(frame(k, file, index)).flags.has(PageFlags::DIRTY);
    let tag = k.st().file(file).pages.tagged(index, Tag::Dirty).found;
    assert_eq!(flag, tag, "flag and tag of page {index}");
    flag
}

#[test]
fn cleaning_a_page_costs_a_flush_and_a_callback_for_each_mapping_process() {
    for m in 1..=7 {
        let b = Setup::linux_2_6_27().build();
        let file = b.kernel.new_file("f", 4);
        with_mappers(&b, m, 1, file, Access::Write, move |cx, k, mms| async move {
            let listeners: Vec<_> = mms.iter().map(|_| Rc::new(common::Listener::default())).collect();
            for (mm, listener) in mms.iter().zip(&listeners) {
                let _ = k.mmu_notifier_register(&cx, *mm, listener.clone()).await;
            }
            assert!(dirty(&k, file, 0));
            k.sys_fsync(&cx, file).await;
            let got = k.metrics();
            assert_eq!(got.flush_page, u64::from(m));
            assert_eq!(got.shootdown_ipis, u64::from(m), "one CPU a process");
            assert_eq!(got.flush_mm, 0);
            assert_eq!(got.rmap_cleaned, u64::from(m));
            assert_eq!(got.notifier_page, u64::from(m));
            assert!(listeners.iter().all(|l| l.pages.get() == 1));
            assert_eq!((got.io_writes, got.brackets), (1, 0));
            assert!(!dirty(&k, file, 0));
            assert_eq!(k.frames().get(frame(&k, file, 0)).mapcount, m);
            for mm in mms {
                let entry = k.peek_pte(mm, BASE);
                assert!(entry.present() && !entry.writable() && !entry.dirty());
            }
            // Clean pages are neither flushed nor written.
            k.sys_fsync(&cx, file).await;
            assert_eq!((k.metrics().flush_page, k.metrics().io_writes), (u64::from(m), 1));
        });
    }
}

/// Looks around when it is told of a page.
struct Watch {
    k: Rc<Kernel>,
    mm: MmId,
    file: FileId,
    seen: Cell<u32>,
}

impl Subscriber for Watch {
    fn name(&self) -> Rc<str> {
        "watch".into()
    }
    fn kind(&self) -> MmuKind {
        MmuKind::Device
    }
    fn invalidate_page<'a>(&'a self, cx: &'a Cx, va: Va) -> CallbackFuture<'a> {
        Box::pin(async move {
            self.seen.set(self.seen.get() + 1);
            let pfn = frame(&self.k, self.file, 0);
            assert_eq!(
                self.k.peek_pte(self.mm, va),
                Entry::NONE,
                "cleared, and not set yet"
            );
            let st = self.k.st();
            let table = st.tables.leaf_table(st.mm(self.mm).pgd, va.vpn()).expect("there");
            let locks = [
                ("ptl", st.ptl(table)),
                ("i_mmap_lock", st.file(self.file).i_mmap_lock),
                ("PG_locked", st.file(self.file).pages.get(0).expect("cached").lock),
            ];
            drop(st);
            for (name, lock) in locks {
                assert_eq!(cx.holds(lock), Some(sim::Mode::Exclusive), "{name}");
            }
            let frames = self.k.frames();
            assert_eq!(frames.get(pfn).tlb_slots, 0, "flushed before anybody is told");
            assert!(frames.get(pfn).count > 0);
            assert!(!frames.get(pfn).flags.has(PageFlags::WRITEBACK));
        })
    }
    fn invalidate_range_start<'a>(&'a self, _: &'a Cx, _: VaRange) -> CallbackFuture<'a> {
        Box::pin(async {})
    }
    fn invalidate_range_end<'a>(&'a self, _: &'a Cx, _: VaRange) -> CallbackFuture<'a> {
        Box::pin(async {})
    }
    fn invalidate_pages<'a>(&'a self, _: &'a Cx, _: VaRange) -> CallbackFuture<'a> {
        Box::pin(async {})
    }
    fn release<'a>(&'a self, _: &'a Cx) -> CallbackFuture<'a> {
        Box::pin(async {})
    }
    fn reaches(&self, _: Pfn) -> bool {
        false
    }
}

#[test]
fn the_entry_is_cleared_then_flushed_then_told_then_set_under_all_locks() {
    let b = Setup::linux_2_6_27().build();
    let file = b.kernel.new_file("f", 4);
    with_mappers(&b, 1, 1, file, Access::Write, move |cx, k, mms| async move {
        let watch = Rc::new(Watch {
            k: Rc::clone(&k),
            mm: mms[0],
            file,
            seen: Cell::new(0),
        });
        let _ = k.mmu_notifier_register(&cx, mms[0], watch.clone()).await;
        k.sys_fsync(&cx, file).await;
        assert_eq!(watch.seen.get(), 1);
        assert!(k.peek_pte(mms[0], BASE).present());
    });
}

#[test]
fn a_store_after_cleaning_faults_and_the_page_is_dirty_again() {
    let b = Setup::linux_2_6_27().build();
    let (mm, file) = (b.mm, b.kernel.new_file("f", 4));
    let end = b.work(move |cx, k| async move {
        k.sys_mmap(&cx, mm, shared_file(BASE, 2, file))
            .await
            .expect("free");
        touch(&cx, &k, mm, range(BASE, 2), Access::Read).await;
        let before = k.metrics();
        assert!(!dirty(&k, file, 0), "reading dirties nothing");
        k.access(&cx, mm, BASE, Access::Write).await.expect("mapped");
        let m = k.metrics();
        assert_eq!(m.faults_total - before.faults_total, 1);
        assert_eq!((m.faults_mkwrite, m.faults_reuse, m.flush_page), (1, 1, 1));
        assert!(dirty(&k, file, 0) && !dirty(&k, file, 1));
        k.access(&cx, mm, BASE, Access::Write).await.expect("mapped");
        assert_eq!(
            k.metrics().faults_total,
            m.faults_total,
            "once asked, stores are free"
        );
        k.sys_fsync(&cx, file).await;
        assert_eq!(k.metrics().io_writes, 1, "the page that was dirty");
        k.access(&cx, mm, BASE, Access::Read).await.expect("mapped");
        assert_eq!(k.metrics().faults_total, m.faults_total, "loads stay free");
        k.access(&cx, mm, BASE, Access::Write).await.expect("mapped");
        assert_eq!(k.metrics().faults_total, m.faults_total + 1);
        assert!(dirty(&k, file, 0));
        k.sys_fsync(&cx, file).await;
        assert_eq!(k.metrics().io_writes, 2);
    });
    assert_eq!(end, End::Completed);
    assert_eq!(b.world.audit(), Vec::<String>::new());
}

#[test]
fn what_a_zap_takes_away_dirty_is_written_later() {
    // The bit of the entry reaches the page before the mapping is gone (F15).
    let b = Setup::linux_2_6_27().build();
    let (mm, file) = (b.mm, b.kernel.new_file("f", 4));
    let end = b.work(move |cx, k| async move {
        k.sys_mmap(&cx, mm, shared_file(BASE, 1, file))
            .await
            .expect("free");
        k.access(&cx, mm, BASE, Access::Write).await.expect("mapped");
        // As if the store had happened between the set_pte and the set_page_dirty of another fault.
        let pfn = frame(&k, file, 0);
        k.frames().get_mut(pfn).flags.clear(PageFlags::DIRTY);
        let _ = k.st().file_mut(file).pages.tag_clear(0, Tag::Dirty);
        k.sys_munmap(&cx, mm, range(BASE, 1)).await.expect("mapped");
        assert!(dirty(&k, file, 0));
        k.sys_fsync(&cx, file).await;
        assert_eq!(k.metrics().io_writes, 1);
        assert_eq!(k.metrics().rmap_cleaned, 0, "nobody maps it");
    });
    assert_eq!(end, End::Completed);
    assert_eq!(b.world.audit(), Vec::<String>::new());
}

#[test]
fn msync_writes_whole_files_that_are_mapped_shared_and_nothing_else() {
    let b = Setup::linux_2_6_27().build();
    let mm = b.mm;
    let (one, two) = (b.kernel.new_file("one", 8), b.kernel.new_file("two", 8));
    let end = b.work(move |cx, k| async move {
        k.sys_mmap(&cx, mm, shared_file(BASE, 8, one))
            .await
            .expect("free");
        let private = mm::MapRequest {
            sharing: Sharing::Private,
            ..shared_file(BASE.add_pages(8), 8, two)
        };
        k.sys_mmap(&cx, mm, private).await.expect("free");
        k.sys_mmap(&cx, mm, anonymous(BASE.add_pages(16), 8))
            .await
            .expect("free");
        touch(&cx, &k, mm, range(BASE, 24), Access::Write).await;
        k.sys_msync(&cx, mm, range(BASE.add_pages(8), 16)).await;
        assert_eq!(
            k.metrics().io_writes,
            0,
            "private pages and memory have no file to go to"
        );
        // One page of the mapping is asked for; the file has eight dirty ones.
        k.sys_msync(&cx, mm, range(BASE.add_pages(3), 1)).await;
        assert_eq!(k.metrics().io_writes, 8);
        assert!(k.metrics().io_wait_cycles > 0);
        let at = k.peek_pte(mm, BASE.add_pages(9));
        assert!(at.writable() && at.dirty(), "a private copy stays writable");
    });
    assert_eq!(end, End::Completed);
}

#[test]
fn the_writer_waits_for_all_its_pages_but_submits_them_without_waiting() {
    let b = Setup::linux_2_6_27().build();
    let (mm, file) = (b.mm, b.kernel.new_file("f", 64));
    b.kernel.set_disk(Device::Files, SLOW);
    let end = b.work(move |cx, k| async move {
        k.sys_mmap(&cx, mm, shared_file(BASE, 30, file))
            .await
            .expect("free");
        touch(&cx, &k, mm, range(BASE, 30), Access::Write).await;
        let before = cx.now();
        k.sys_fsync(&cx, file).await;
        let took = k.machine.to_ns(cx.now() - before);
        // The device serves thirty pages one by one, and is never idle in between.
        assert!(
            (30 * SLOW.write_ns..31 * SLOW.write_ns).contains(&took),
            "{took} ns"
        );
        assert_eq!(k.metrics().io_writes, 30);
        assert!(!k.st().file(file).pages.any_tagged(Tag::Writeback));
    });
    assert_eq!(end, End::Completed);
    assert_eq!(b.world.audit(), Vec::<String>::new());
}

#[test]
fn truncate_passes_pages_under_writeback_over_and_then_waits_for_them() {
    for pages in [1_u64, 20] {
        let b = Setup::linux_2_6_27().build();
        let (mm, file) = (b.mm, b.kernel.new_file("f", 64));
        b.kernel.set_disk(Device::Files, SLOW);
        let started = Rc::new(Cell::new(false));
        let go = Rc::clone(&started);
        b.thread(1, None, move |cx, k| async move {
            while !go.get() {
                wait(&cx, 2_000).await;
            }
            // Until the last page is on its way.
            while k.metrics().io_writes < pages {
                wait(&cx, 2_000).await;
            }
            let under_way = k.metrics().io_wait_cycles;
            let before = cx.now();
            k.do_truncate(&cx, file, 0).await;
            let took = k.machine.to_ns(cx.now() - before);
            assert!(took > pages * SLOW.write_ns * 9 / 10, "{took} ns");
            assert!(took < (pages + 1) * SLOW.write_ns, "{took} ns");
            assert!(k.metrics().io_wait_cycles > under_way);
            assert!(k.st().file(file).pages.is_empty());
        });
        let end = b.work(move |cx, k| async move {
            k.sys_mmap(&cx, mm, shared_file(BASE, pages, file))
                .await
                .expect("free");
            touch(&cx, &k, mm, range(BASE, pages), Access::Write).await;
            started.set(true);
            k.sys_fsync(&cx, file).await;
            assert_eq!(
                k.access(&cx, mm, BASE, Access::Write).await,
                Err(mm::Refused::BeyondEof)
            );
        });
        assert_eq!(end, End::Completed);
        assert_eq!(b.world.audit(), Vec::<String>::new());
    }
}

static STORE: sim::Mark = sim::Mark {
    name: "store",
    args: ["pfn", "", ""],
    scope: sim::Scope::Global,
};

/// What a run of [`fsync_leaves_nothing_behind`] did.
struct Written {
    pages: u64,
    /// Times that a store waited for a page that is being cleaned, after its entry was made writable.
    stores_waited: u64,
}

/// Three threads of two processes map a file of `pages` pages and run `script`: which page each step
/// touches, and how. Another one writes the file back a few times, pausing for `pause` steps before, and once more
/// when the others are done. In any order, the disk then has every store.
fn fsync_leaves_nothing_behind(
    seed: u64,
    pages: u64,
    pause: u32,
    script: fn(u64, u64) -> Option<(u64, Access)>,
) -> Written {
    let b = Setup::linux_2_6_27().build_with(Schedule::Explored(Box::new(RandomWalk::new(seed))));
    b.engine.set_logging(Logging::Full);
    let file = b.kernel.new_file("f", pages);
    let shared = b.kernel.new_mm("shared".into());
    let storing = Rc::new(Cell::new(3));
    for (cpu, mm) in [(1, b.mm), (2, shared), (3, shared)] {
        let storing = Rc::clone(&storing);
        if cpu == 3 {
            b.kernel.mmget(mm);
        }
        b.thread(cpu, Some(mm), move |cx, k| async move {
            let _ = k.sys_mmap(&cx, mm, shared_file(BASE, pages, file)).await;
            for step in 0.. {
                let Some((page, access)) = script(u64::from(cpu), step) else {
                    break;
                };
                let va = BASE.add_pages(page);
                if k.access(&cx, mm, va, access).await.is_ok() && access.is_write() {
                    let pfn = common::cached_frame(&k, &cx, va);
                    cx.mark(&STORE, [u64::from(pfn.get()), 0, 0]);
                }
                wait(&cx, 1).await;
            }
            storing.set(storing.get() - 1);
        });
    }
    b.thread(4, None, move |cx, k| async move {
        for _ in 0..4 {
            for _ in 0..pause {
                wait(&cx, 1).await;
            }
            k.sys_fsync(&cx, file).await;
        }
        while storing.get() > 0 {
            wait(&cx, 1).await;
        }
        k.sys_fsync(&cx, file).await;
    });
    if seed.is_multiple_of(3) && pages > 1 {
        b.thread(5, None, move |cx, k| async move {
            wait(&cx, 1).await;
            k.do_truncate(&cx, file, 1).await;
            k.do_truncate(&cx, file, pages).await;
        });
    }
    assert_eq!(b.engine.run(), End::Completed, "seed {seed}");
    assert_eq!(b.world.audit(), Vec::<String>::new(), "seed {seed}");
    // Frames stored to since they were last given to the disk.
    let mut unwritten = BTreeSet::new();
    for record in b.engine.take_log() {
        match record.kind {
            RecordKind::Mark(mark, [pfn, ..]) if mark.name == "store" => {
                unwritten.insert(pfn);
            }
            RecordKind::Mark(mark, [pfn, ..]) if ["submit_bio", "free_page"].contains(&mark.name) => {
                unwritten.remove(&pfn);
            }
            _ => {}
        }
    }
    let k = &b.kernel;
    let cached: Vec<u64> = k.st().file(file).pages.iter().map(|(index, _)| index).collect();
    for index in cached {
        let lacking = unwritten.contains(&u64::from(frame(k, file, index).get()));
        assert!(!lacking, "seed {seed}: the disk lacks a store to page {index}");
    }
    let stat = b.engine.lock_stat();
    let page_locks = stat.iter().find(|c| c.def.name == "PG_locked").expect("declared");
    let sites = page_locks.exclusive.sites.iter();
    let stores = sites.filter(|(waiter, ..)| *waiter == "do_wp_page");
    Written {
        pages: k.metrics().io_writes,
        stores_waited: stores.map(|(.., times)| times).sum(),
    }
}

#[test]
fn fsync_leaves_no_store_behind() {
    const PAGES: u64 = 3;
    const SEEDS: u64 = 300;
    let script = |cpu, n| {
        let access = if n % 3 == 2 { Access::Read } else { Access::Write };
        (n < 6).then_some(((n * 5 + cpu) % PAGES, access))
    };
    let written: u64 = (0..SEEDS)
        .map(|seed| fsync_leaves_nothing_behind(seed, PAGES, 10, script).pages)
        .sum();
    // Each page of the file at least once a run.
    assert!(written > SEEDS * PAGES, "{written} pages were written");
}

#[test]
fn a_store_that_cleaning_just_missed_waits_until_the_page_is_clean_and_dirties_it_again() {
    // The entry is there and read-only, so that cleaning has nothing to change when it comes by.
    let script = |cpu, n| match n {
        0 => Some((0, Access::Read)),
        1 => Some((0, Access::Write)),
        _ if n < cpu => Some((0, Access::Write)),
        _ => None,
    };
    const SEEDS: u64 = 400;
    let runs = (0..SEEDS).map(|seed| fsync_leaves_nothing_behind(seed, 1, 4, script));
    let (mut pages, mut stores_waited) = (0, 0);
    for run in runs {
        pages += run.pages;
        stores_waited += run.stores_waited;
    }
    assert!(pages > SEEDS, "{pages} pages were written");
    assert!(stores_waited > 10, "the race was met {stores_waited} times");
}
