//! Mappings of huge pages: host-mm-paths B.17, its rows of B.0 and C.3, G.15.

mod common;

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use common::{BASE, FAR_ABOVE, Listener, Setup, anonymous, range, touch, wait};
use mm::hugetlb::{HPAGE_PAGES, PoolState};
use mm::notifier::{CallbackFuture, Design, MmuKind, Subscriber};
use mm::{
    Backing, FileId, Kernel, KernelPreemption, MapError, MapRequest, MmId, MmMetrics, Prot, Refused, Sharing,
};
use proptest::prelude::*;
use sim::{Cx, End, LockId, ViolationKind};
use x86::{Access, Pfn, Pgoff, Va, VaRange};

/// A mapping of huge pages from the start of a file.
fn huge(at: Va, huge_pages: u64, file: FileId, sharing: Sharing) -> MapRequest {
    MapRequest {
        backing: Backing::File(file),
        sharing,
        ..anonymous(at, huge_pages * HPAGE_PAGES)
    }
}

fn huge_range(at: Va, huge_pages: u64) -> VaRange {
    range(at, huge_pages * HPAGE_PAGES)
}

/// One address in each huge page.
async fn touch_huge(cx: &Cx, k: &Kernel, mm: MmId, r: VaRange, access: Access) {
    for n in 0..r.pages() / HPAGE_PAGES {
        let va = r.start().add_pages(n * HPAGE_PAGES);
        k.access(cx, mm, va, access).await.expect("mapped");
    }
}

/// A kernel with so many huge pages, a file of as many, and a script of the first process on CPU 0 while
/// `cpus` CPUs in all are busy in it.
fn with_pool<F: Future<Output = ()> + 'static>(
    setup: Setup,
    huge_pages: u64,
    cpus: u32,
    body: impl FnOnce(Cx, Rc<Kernel>, MmId, FileId) -> F + 'static,
) -> (End, Vec<String>) {
    let b = setup.build();
    b.kernel.add_hugepages(huge_pages).expect("memory");
    let file = b.kernel.new_hugetlb_file("huge", huge_pages * HPAGE_PAGES);
    b.busy(cpus, b.mm);
    let mm = b.mm;
    let end = b.work(move |cx, k| body(cx, k, mm, file));
    (end, b.world.audit())
}

fn solo<F: Future<Output = ()> + 'static>(
    huge_pages: u64,
    body: impl FnOnce(Cx, Rc<Kernel>, MmId, FileId) -> F + 'static,
) {
    let (end, wrong) = with_pool(Setup::linux_2_6_27(), huge_pages, 1, body);
    assert_eq!(end, End::Completed);
    assert_eq!(wrong, Vec::<String>::new());
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Edge {
    Start,
    End,
}

/// What was the case when a bracket began or ended.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Seen {
    edge: Edge,
    range: VaRange,
    i_mmap_held: bool,
    page_table_held: bool,
    flushes: u64,
    free: u64,
}

/// A subscriber that looks around.
struct Witness {
    kernel: Rc<Kernel>,
    i_mmap_lock: LockId,
    page_table_lock: LockId,
    seen: RefCell<Vec<Seen>>,
}

impl Witness {
    fn new(kernel: &Rc<Kernel>, mm: MmId, file: FileId) -> Rc<Self> {
        let st = kernel.st();
        Rc::new(Witness {
            kernel: Rc::clone(kernel),
            i_mmap_lock: st.file(file).i_mmap_lock,
            page_table_lock: st.mm(mm).page_table_lock,
            seen: RefCell::default(),
        })
    }

    fn look<'a>(&'a self, cx: &'a Cx, edge: Edge, range: VaRange) -> CallbackFuture<'a> {
        Box::pin(async move {
            // Nobody else is there to hold them.
            let i_mmap_held = cx.try_lock(self.i_mmap_lock).await.is_none();
            let page_table_held = cx.try_lock(self.page_table_lock).await.is_none();
            self.seen.borrow_mut().push(Seen {
                edge,
                range,
                i_mmap_held,
                page_table_held,
                flushes: self.kernel.metrics().flush_mm,
                free: self.kernel.huge_pool().free,
            });
        })
    }
}

impl Subscriber for Witness {
    fn name(&self) -> Rc<str> {
        "witness".into()
    }
    fn kind(&self) -> MmuKind {
        MmuKind::Device
    }
    fn invalidate_page<'a>(&'a self, _: &'a Cx, _: Va) -> CallbackFuture<'a> {
        Box::pin(async { panic!("no page of a range is told of alone") })
    }
    fn invalidate_range_start<'a>(&'a self, cx: &'a Cx, range: VaRange) -> CallbackFuture<'a> {
        self.look(cx, Edge::Start, range)
    }
    fn invalidate_range_end<'a>(&'a self, cx: &'a Cx, range: VaRange) -> CallbackFuture<'a> {
        self.look(cx, Edge::End, range)
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

/// Counters that an munmap of four huge pages adds, so many of them touched.
fn unmap_counts(touched: u64, cpus: u32, neighbour: bool) -> MmMetrics {
    let counted = Rc::new(RefCell::new(None));
    let out = Rc::clone(&counted);
    let (end, wrong) = with_pool(
        Setup::linux_2_6_27(),
        8,
        cpus,
        move |cx, k, mm, file| async move {
            let request = huge(BASE, 4, file, Sharing::Private);
            k.sys_mmap(&cx, mm, request).await.expect("free");
            if neighbour {
                // In the same gigabyte, so that the PMD table stays.
                let near = BASE.add_pages(16 * HPAGE_PAGES);
                k.sys_mmap(&cx, mm, anonymous(near, 1)).await.expect("free");
                k.access(&cx, mm, near, Access::Write).await.expect("mapped");
            }
            if touched > 0 {
                touch_huge(&cx, &k, mm, huge_range(BASE, touched), Access::Write).await;
            }
            k.start_measuring();
            k.sys_munmap(&cx, mm, huge_range(BASE, 4)).await;
            *out.borrow_mut() = Some(k.metrics());
        },
    );
    assert_eq!(end, End::Completed);
    assert_eq!(wrong, Vec::<String>::new());
    counted.borrow_mut().take().expect("measured")
}

#[test]
fn a_mapping_of_huge_pages_is_flushed_once_even_if_nothing_was_mapped() {
    for (touched, cpus) in [(0, 1), (0, 8), (1, 2), (4, 1), (4, 8)] {
        let m = unmap_counts(touched, cpus, true);
        let cell = format!("touched={touched} C={cpus}");
        assert_eq!((m.flush_mm, m.flush_hugetlb, m.flush_final), (1, 1, 0), "{cell}");
        assert_eq!((m.flush_local, m.local_cr3), (1, 1), "{cell}");
        assert_eq!(m.shootdown_ipis, u64::from(cpus - 1), "{cell}");
        assert_eq!((m.huge_zapped, m.pages_zapped), (touched, 0), "{cell}");
    }
}

#[test]
fn the_last_mapping_of_a_gigabyte_costs_a_second_flush_for_its_table() {
    let m = unmap_counts(4, 8, false);
    assert_eq!((m.flush_mm, m.flush_hugetlb, m.flush_final), (2, 1, 1));
    // BASE begins a PUD table's span, which goes with it.
    assert_eq!(m.tables_freed, 2);
    assert_eq!(m.shootdown_ipis, 14);
}

#[test]
fn the_bracket_of_huge_pages_lies_inside_that_of_munmap_and_pages_go_after_it() {
    solo(8, |cx, k, mm, file| async move {
        let request = huge(BASE, 4, file, Sharing::Private);
        k.sys_mmap(&cx, mm, request).await.expect("free");
        touch_huge(&cx, &k, mm, huge_range(BASE, 4), Access::Write).await;
        let behind = BASE.add_pages(6 * HPAGE_PAGES);
        k.sys_mmap(&cx, mm, anonymous(behind, 8)).await.expect("free");
        touch(&cx, &k, mm, range(behind, 8), Access::Write).await;
        let witness = Witness::new(&k, mm, file);
        k.mmu_notifier_register(&cx, mm, witness.clone()).await;
        let before = k.metrics().flush_mm;
        let whole = huge_range(BASE, 7);
        k.sys_munmap(&cx, mm, whole).await;
        let seen = |edge, range, locked, flushed, free| Seen {
            edge,
            range,
            i_mmap_held: locked,
            page_table_held: false,
            flushes: before + flushed,
            free,
        };
        let inner = huge_range(BASE, 4);
        assert_eq!(
            *witness.seen.borrow(),
            [
                seen(Edge::Start, whole, false, 0, 4),
                seen(Edge::Start, inner, true, 0, 4),
                // Flushed, and the pages are still held.
                seen(Edge::End, inner, true, 1, 4),
                // The pages are in the pool; the ordinary ones wait for the last flush.
                seen(Edge::End, whole, false, 1, 8),
            ]
        );
        assert_eq!(k.metrics().flush_mm, before + 2);
    });
}

#[test]
fn a_huge_page_counts_a_page_against_the_zap_block() {
    for (huge_pages, blocks) in [(7, 0), (8, 1), (17, 1)] {
        let setup = Setup::linux_2_6_27().preempt(KernelPreemption::Full);
        let (end, wrong) = with_pool(setup, 32, 1, move |cx, k, mm, file| async move {
            let request = huge(BASE, huge_pages, file, Sharing::Private);
            k.sys_mmap(&cx, mm, request).await.expect("free");
            k.sys_munmap(&cx, mm, huge_range(BASE, huge_pages)).await;
            // However long: the block is looked at after the whole mapping.
            assert_eq!(k.metrics().zap_blocks, blocks, "{huge_pages}");
            assert_eq!(k.metrics().flush_hugetlb, 1);
        });
        assert_eq!(end, End::Completed);
        assert_eq!(wrong, Vec::<String>::new());
    }
}

#[test]
fn truncation_unmaps_under_one_hold_of_i_mmap_lock_with_one_bracket_and_flush_a_mapping() {
    solo(8, |cx, k, mm, file| async move {
        k.sys_mmap(&cx, mm, huge(BASE, 4, file, Sharing::Shared))
            .await
            .expect("free");
        k.sys_mmap(&cx, mm, huge(FAR_ABOVE, 6, file, Sharing::Shared))
            .await
            .expect("free");
        touch_huge(&cx, &k, mm, huge_range(BASE, 4), Access::Write).await;
        let witness = Witness::new(&k, mm, file);
        k.mmu_notifier_register(&cx, mm, witness.clone()).await;
        let before = k.metrics();
        let holds = |cx: &Cx| {
            let classes = cx.engine().lock_stat();
            let class = classes
                .iter()
                .find(|c| c.def.name == "i_mmap_lock")
                .expect("declared");
            class.exclusive.acquisitions
        };
        let held = holds(&cx);
        k.do_truncate(&cx, file, HPAGE_PAGES).await;
        // One hold, and one try of each edge of two brackets failed.
        assert_eq!(holds(&cx), held + 1);
        let ranges: Vec<_> = witness.seen.borrow().iter().map(|s| (s.edge, s.range)).collect();
        let first = VaRange::new(BASE.add_pages(HPAGE_PAGES), huge_range(BASE, 4).end()).expect("not empty");
        let second = VaRange::new(FAR_ABOVE.add_pages(HPAGE_PAGES), huge_range(FAR_ABOVE, 6).end());
        let second = second.expect("not empty");
        let mut told: Vec<_> = ranges
            .iter()
            .filter(|(e, _)| *e == Edge::Start)
            .map(|(_, r)| *r)
            .collect();
        told.sort();
        assert_eq!(told, [first, second]);
        assert!(
            witness
                .seen
                .borrow()
                .iter()
                .all(|s| s.i_mmap_held && !s.page_table_held)
        );
        let after = k.metrics();
        assert_eq!(after.flush_mm - before.flush_mm, 2);
        assert_eq!(after.huge_zapped, 3);
        assert_eq!(after.truncate_batches - before.truncate_batches, 1);
        // Page 0 stays; promises beyond the end are taken back.
        let left = PoolState {
            total: 8,
            free: 7,
            reserved: 0,
        };
        assert_eq!(k.huge_pool(), left);
        let gone = k.access(&cx, mm, BASE.add_pages(HPAGE_PAGES), Access::Read).await;
        assert_eq!(gone, Err(Refused::BeyondEof));
        k.access(&cx, mm, BASE.add_pages(7), Access::Write)
            .await
            .expect("still there");
        assert_eq!(k.metrics().faults_huge, after.faults_huge);
    });
}

#[test]
fn a_hugetlbfs_file_neither_grows_nor_ends_inside_a_page_by_truncation() {
    solo(8, |cx, k, mm, file| async move {
        k.sys_mmap(&cx, mm, huge(BASE, 8, file, Sharing::Shared))
            .await
            .expect("free");
        for pages in [1, HPAGE_PAGES + 1, 9 * HPAGE_PAGES] {
            k.do_truncate(&cx, file, pages).await;
            assert_eq!(k.st().file(file).size, 8 * HPAGE_PAGES, "{pages}");
        }
        k.do_truncate(&cx, file, 2 * HPAGE_PAGES).await;
        // A writable mapping makes it longer.
        let request = huge(FAR_ABOVE, 3, file, Sharing::Shared);
        k.sys_mmap(&cx, mm, request).await.expect("free");
        assert_eq!(k.st().file(file).size, 3 * HPAGE_PAGES);
    });
}

#[test]
fn one_mutex_serialises_the_faults_of_all_processes() {
    let b = Setup::linux_2_6_27().build();
    b.kernel.add_hugepages(2).expect("memory");
    let begin = Rc::new(Cell::new(0));
    for cpu in 0..2 {
        let mm = b.kernel.new_mm("other".into());
        let file = b.kernel.new_hugetlb_file("huge", HPAGE_PAGES);
        let begin = Rc::clone(&begin);
        b.thread(cpu, Some(mm), move |cx, k| async move {
            k.sys_mmap(&cx, mm, huge(BASE, 1, file, Sharing::Shared))
                .await
                .expect("free");
            begin.set(begin.get() + 1);
            while begin.get() < 2 {
                wait(&cx, 100).await;
            }
            k.access(&cx, mm, BASE, Access::Write).await.expect("mapped");
        });
    }
    assert_eq!(b.engine.run(), End::Completed);
    let classes = b.engine.lock_stat();
    let mutex = classes
        .iter()
        .find(|c| c.def.name == "hugetlb_instantiation_mutex");
    let mutex = &mutex.expect("declared").exclusive;
    assert_eq!((mutex.acquisitions, mutex.contentions), (2, 1));
    // The second waits until the first has cleared 2 MiB.
    let clear = b.kernel.machine.costs.clear_page.get() * HPAGE_PAGES;
    assert!(mutex.wait.max() > clear / 2, "{} of {clear}", mutex.wait.max());
}

#[test]
fn the_first_write_to_a_private_huge_page_flushes_a_page_and_to_a_shared_one_does_not() {
    for (sharing, flushes) in [(Sharing::Private, 1), (Sharing::Shared, 0)] {
        solo(2, move |cx, k, mm, file| async move {
            k.sys_mmap(&cx, mm, huge(BASE, 1, file, sharing))
                .await
                .expect("free");
            k.access(&cx, mm, BASE, Access::Write).await.expect("mapped");
            let m = k.metrics();
            assert_eq!((m.flush_page, m.flush_mm), (flushes, 0));
            assert_eq!((m.faults_huge, m.faults_huge_cow), (1, 0));
        });
    }
}

#[test]
fn fork_and_copy_on_write_of_huge_pages_tell_no_subscriber() {
    solo(4, |cx, k, mm, file| async move {
        k.sys_mmap(&cx, mm, huge(BASE, 2, file, Sharing::Private))
            .await
            .expect("free");
        touch_huge(&cx, &k, mm, huge_range(BASE, 2), Access::Write).await;
        let heard = Rc::new(Listener::default());
        k.mmu_notifier_register(&cx, mm, heard.clone()).await;
        k.start_measuring();
        let child = k.sys_fork(&cx, mm, "child".into()).await;
        assert_eq!((k.metrics().flush_mm, k.metrics().pages_forked), (1, 2));
        k.access(&cx, mm, BASE, Access::Write).await.expect("copied");
        let m = k.metrics();
        assert_eq!((m.faults_huge_cow, m.flush_page, m.flush_mm), (1, 1, 1));
        assert_eq!(
            (heard.starts.get(), heard.ends.get(), heard.pages.get()),
            (0, 0, 0)
        );
        k.mmput(&cx, child).await;
        // The other page is the parent's alone again.
        let other = BASE.add_pages(HPAGE_PAGES);
        k.access(&cx, mm, other, Access::Write).await.expect("reused");
        let m = k.metrics();
        assert_eq!((m.faults_huge_cow, m.faults_reuse, m.flush_page), (1, 1, 2));
    });
}

/// The parent copies a page after fork, then the child, its last owner, exits.
fn copy_then_free(secondary: bool) -> End {
    let (end, _) = with_pool(Setup::linux_2_6_27(), 4, 1, move |cx, k, mm, file| async move {
        k.sys_mmap(&cx, mm, huge(BASE, 1, file, Sharing::Private))
            .await
            .expect("free");
        let page = k
            .get_user_page(&cx, mm, BASE.add_pages(9), Access::Write)
            .await
            .expect("mapped");
        k.put_page(&cx, page.pfn);
        k.mmu_notifier_register(&cx, mm, Rc::new(Listener::default()))
            .await;
        if secondary {
            k.secondary_mapped(page.pfn);
        }
        let child = k.sys_fork(&cx, mm, "child".into()).await;
        k.access(&cx, mm, BASE, Access::Write).await.expect("copied");
        k.mmput(&cx, child).await;
    });
    end
}

#[test]
fn a_secondary_mmu_without_references_is_left_with_a_page_that_was_freed() {
    assert_eq!(copy_then_free(false), End::Completed);
    let End::Violation(v) = copy_then_free(true) else {
        panic!("nobody told it");
    };
    assert_eq!(v.kind, ViolationKind::Model("free-while-mapped"));
}

#[test]
fn a_child_finds_shared_huge_pages_without_a_fault() {
    let b = Setup::linux_2_6_27().build();
    b.kernel.add_hugepages(4).expect("memory");
    let file = b.kernel.new_hugetlb_file("huge", 4 * HPAGE_PAGES);
    let mm = b.mm;
    let child = Rc::new(Cell::new(None));
    let born = Rc::clone(&child);
    b.thread(0, Some(mm), move |cx, k| async move {
        k.sys_mmap(&cx, mm, huge(BASE, 4, file, Sharing::Shared))
            .await
            .expect("free");
        touch_huge(&cx, &k, mm, huge_range(BASE, 4), Access::Write).await;
        k.start_measuring();
        born.set(Some(k.sys_fork(&cx, mm, "child".into()).await));
    });
    b.thread(1, None, move |cx, k| async move {
        let mm = loop {
            match child.get() {
                Some(mm) => break mm,
                None => wait(&cx, 1_000).await,
            }
        };
        k.activate_mm(&cx, mm);
        touch_huge(&cx, &k, mm, huge_range(BASE, 4), Access::Write).await;
    });
    assert_eq!(b.engine.run(), End::Completed);
    let m = b.kernel.metrics();
    assert_eq!((m.pages_forked, m.faults_total), (4, 0));
    assert_eq!(b.world.audit(), Vec::<String>::new());
}

#[test]
fn mprotect_of_huge_pages_is_one_bracket_and_one_flush() {
    solo(4, |cx, k, mm, file| async move {
        k.sys_mmap(&cx, mm, huge(BASE, 4, file, Sharing::Private))
            .await
            .expect("free");
        touch_huge(&cx, &k, mm, huge_range(BASE, 4), Access::Write).await;
        let heard = Rc::new(Listener::default());
        k.mmu_notifier_register(&cx, mm, heard.clone()).await;
        k.start_measuring();
        k.sys_mprotect(&cx, mm, huge_range(BASE, 4), Prot::READ).await;
        assert_eq!(
            (heard.starts.get(), heard.ends.get(), k.metrics().flush_mm),
            (1, 1, 1)
        );
        assert_eq!(
            k.access(&cx, mm, BASE, Access::Write).await,
            Err(Refused::NoMapping)
        );
        k.sys_mprotect(&cx, mm, huge_range(BASE, 4), Prot::NONE).await;
        assert_eq!(
            k.access(&cx, mm, BASE, Access::Read).await,
            Err(Refused::NoMapping)
        );
        k.sys_mprotect(&cx, mm, huge_range(BASE, 4), Prot::READ_WRITE)
            .await;
        k.access(&cx, mm, BASE, Access::Write)
            .await
            .expect("the page is still there");
        let m = k.metrics();
        assert_eq!((m.faults_huge, m.faults_reuse, m.flush_page), (0, 1, 1));
        // Not inside a huge page.
        k.sys_mprotect(&cx, mm, range(BASE, 1), Prot::READ).await;
        k.access(&cx, mm, BASE, Access::Write)
            .await
            .expect("nothing changed");
    });
}

#[test]
fn the_owner_of_a_private_mapping_gets_what_it_was_promised_and_its_child_nothing() {
    solo(4, |cx, k, mm, file| async move {
        k.sys_mmap(&cx, mm, huge(BASE, 3, file, Sharing::Private))
            .await
            .expect("free");
        let state = |free, reserved| PoolState {
            total: 4,
            free,
            reserved,
        };
        assert_eq!(k.huge_pool(), state(4, 3));
        let second = k
            .sys_mmap(&cx, mm, huge(FAR_ABOVE, 2, file, Sharing::Private))
            .await;
        assert_eq!(second, Err(MapError::NoHugePages));
        k.access(&cx, mm, BASE, Access::Write).await.expect("promised");
        assert_eq!(k.huge_pool(), state(3, 2));
        let child = k.sys_fork(&cx, mm, "child".into()).await;
        let va = |n| BASE.add_pages(n * HPAGE_PAGES);
        // One page is promised to nobody.
        let _ = k
            .get_user_page(&cx, child, va(1), Access::Write)
            .await
            .map(|g| k.put_page(&cx, g.pfn));
        assert_eq!(k.huge_pool(), state(2, 2));
        let refused = k.get_user_page(&cx, child, va(2), Access::Write).await;
        assert_eq!(refused, Err(Refused::OutOfMemory));
        k.access(&cx, mm, va(2), Access::Write).await.expect("promised");
        k.mmput(&cx, child).await;
        k.sys_munmap(&cx, mm, huge_range(BASE, 3)).await;
        assert_eq!(k.huge_pool(), state(4, 0));
    });
}

#[test]
fn shared_mappings_of_a_file_promise_a_page_once() {
    solo(4, |cx, k, mm, file| async move {
        k.sys_mmap(&cx, mm, huge(BASE, 3, file, Sharing::Shared))
            .await
            .expect("free");
        k.sys_mmap(&cx, mm, huge(FAR_ABOVE, 4, file, Sharing::Shared))
            .await
            .expect("free");
        assert_eq!(k.huge_pool().reserved, 4);
        k.access(&cx, mm, BASE, Access::Read).await.expect("mapped");
        k.access(&cx, mm, FAR_ABOVE, Access::Read).await.expect("mapped");
        let used = PoolState {
            total: 4,
            free: 3,
            reserved: 3,
        };
        assert_eq!(k.huge_pool(), used);
        // The file keeps its pages and promises.
        k.sys_munmap(&cx, mm, huge_range(BASE, 3)).await;
        k.sys_munmap(&cx, mm, huge_range(FAR_ABOVE, 4)).await;
        assert_eq!(k.huge_pool(), used);
        k.do_truncate(&cx, file, 0).await;
        assert_eq!(
            k.huge_pool(),
            PoolState {
                total: 4,
                free: 4,
                reserved: 0
            }
        );
    });
}

/// The parent writes to a page it shares with its child, with so many huge pages in all.
fn take_back(huge_pages: u64, offset: u64) -> End {
    let (end, _) = with_pool(
        Setup::linux_2_6_27(),
        huge_pages,
        1,
        move |cx, k, mm, file| async move {
            let request = MapRequest {
                pgoff: Pgoff::new(offset * HPAGE_PAGES),
                ..huge(BASE, 1, file, Sharing::Private)
            };
            k.sys_mmap(&cx, mm, request).await.expect("free");
            k.access(&cx, mm, BASE, Access::Write).await.expect("promised");
            let _child = k.sys_fork(&cx, mm, "child".into()).await;
            // Where the lock checker or a BUG_ON objects, nothing is promised of the rest.
            let _ = k.access(&cx, mm, BASE, Access::Write).await;
        },
    );
    end
}

#[test]
fn unmap_ref_private_takes_i_mmap_lock_inside_page_table_lock() {
    assert_eq!(take_back(2, 0), End::Completed);
    let End::Violation(v) = take_back(1, 0) else {
        panic!("the order of locks is wrong");
    };
    assert_eq!(v.kind, ViolationKind::LockOrder);
    assert!(v.stack.contains(&"unmap_ref_private"), "{:?}", v.stack);
    for lock in ["page_table_lock", "i_mmap_lock"] {
        assert!(v.held.iter().any(|h| h.contains(lock)), "{lock}: {:?}", v.held);
    }
}

#[test]
fn unmap_ref_private_looks_at_the_wrong_place_in_a_mapping_of_the_middle_of_a_file() {
    assert_eq!(take_back(2, 1), End::Completed);
    let End::Violation(v) = take_back(1, 1) else {
        panic!("the page was found");
    };
    assert_eq!(v.kind, ViolationKind::Model(mm::KERNEL_BUG));
    assert!(!v.stack.contains(&"unmap_hugepage_range"), "{:?}", v.stack);
}

#[test]
fn other_designs_tell_of_huge_pages_as_they_tell_of_ordinary_ones() {
    for (design, told) in [
        (Design::V0, (0, 0)),
        (Design::V1, (0, 3)),
        (Design::V8, (2, 0)),
        (Design::V9, (2, 0)),
    ] {
        let name = design.id;
        let setup = Setup::linux_2_6_27().design(design);
        let (end, wrong) = with_pool(setup, 4, 1, move |cx, k, mm, file| async move {
            k.sys_mmap(&cx, mm, huge(BASE, 4, file, Sharing::Private))
                .await
                .expect("free");
            touch_huge(&cx, &k, mm, huge_range(BASE, 3), Access::Write).await;
            let heard = Rc::new(Listener::default());
            k.mmu_notifier_register(&cx, mm, heard.clone()).await;
            k.sys_munmap(&cx, mm, huge_range(BASE, 4)).await;
            assert_eq!((heard.starts.get(), heard.pages.get()), told, "{name}");
            assert_eq!(heard.ends.get(), heard.starts.get(), "{name}");
        });
        assert_eq!(end, End::Completed, "{name}");
        assert_eq!(wrong, Vec::<String>::new(), "{name}");
    }
}

#[test]
fn mappings_of_huge_pages_are_aligned_and_are_not_cut() {
    solo(8, |cx, k, mm, file| async move {
        let good = huge(BASE, 4, file, Sharing::Private);
        let bad = [
            MapRequest {
                at: Some(BASE.add_pages(1)),
                ..good
            },
            MapRequest { pages: 5, ..good },
            MapRequest {
                pgoff: Pgoff::new(3),
                ..good
            },
        ];
        for request in bad {
            assert_eq!(
                k.sys_mmap(&cx, mm, request).await,
                Err(MapError::BadRange),
                "{request:?}"
            );
        }
        k.sys_mmap(&cx, mm, good).await.expect("free");
        touch_huge(&cx, &k, mm, huge_range(BASE, 4), Access::Write).await;
        let over = k.sys_mmap(&cx, mm, anonymous(BASE.add_pages(3), 1)).await;
        assert_eq!(over, Err(MapError::CutsHugePage));
        k.sys_munmap(&cx, mm, range(BASE, 3)).await;
        k.madvise_dontneed(&cx, mm, huge_range(BASE, 4)).await;
        assert_eq!(k.metrics().huge_zapped, 0);
        let all = huge_range(BASE, 4);
        for (pages, to) in [
            (5 * HPAGE_PAGES, None),
            (3, None),
            (4 * HPAGE_PAGES, Some(FAR_ABOVE)),
        ] {
            assert_eq!(
                k.sys_mremap(&cx, mm, all, pages, to).await,
                Err(MapError::BadRange),
                "{pages}"
            );
        }
        let shorter = k.sys_mremap(&cx, mm, all, 2 * HPAGE_PAGES, None).await;
        assert_eq!(shorter, Ok(huge_range(BASE, 2)));
        assert_eq!(k.metrics().huge_zapped, 2);
        // In the middle, at borders of huge pages.
        k.sys_munmap(&cx, mm, huge_range(BASE, 1)).await;
        assert_eq!(k.metrics().huge_zapped, 3);
        k.access(&cx, mm, BASE.add_pages(HPAGE_PAGES), Access::Write)
            .await
            .expect("still there");
    });
}

#[test]
fn one_tlb_entry_serves_all_of_a_huge_page() {
    solo(2, |cx, k, mm, file| async move {
        k.sys_mmap(&cx, mm, huge(BASE, 1, file, Sharing::Shared))
            .await
            .expect("free");
        k.access(&cx, mm, BASE, Access::Read).await.expect("mapped");
        k.start_measuring();
        touch(&cx, &k, mm, range(BASE, HPAGE_PAGES), Access::Read).await;
        let m = k.metrics();
        assert_eq!((m.tlb_misses, m.faults_total), (0, 0));
        assert_eq!(m.tlb_l1_hits + m.tlb_l2_hits, HPAGE_PAGES);
    });
}

#[test]
fn a_reference_to_any_part_holds_the_whole_huge_page() {
    solo(2, |cx, k, mm, file| async move {
        k.sys_mmap(&cx, mm, huge(BASE, 1, file, Sharing::Private))
            .await
            .expect("free");
        let part = |n| BASE.add_pages(n);
        let first = k
            .get_user_page(&cx, mm, part(0), Access::Write)
            .await
            .expect("mapped");
        let last = k
            .get_user_page(&cx, mm, part(511), Access::Write)
            .await
            .expect("mapped");
        assert_eq!(last.pfn.get() - first.pfn.get(), 511);
        assert_eq!(k.peek_pte(mm, part(511)).pfn(), last.pfn);
        k.put_page(&cx, first.pfn);
        k.keep_as_pin(&cx, last.pfn);
        assert_eq!(k.metrics().pages_pinned_end, 1);
        let generation = k.generation(last.pfn);
        k.sys_munmap(&cx, mm, huge_range(BASE, 1)).await;
        assert_eq!((k.huge_pool().free, k.generation(last.pfn)), (1, generation));
        k.unpin_page(&cx, last.pfn);
        assert_eq!((k.huge_pool().free, k.metrics().pages_freed), (2, 0));
        assert_ne!(k.generation(first.pfn), generation);
    });
}

#[test]
fn mappings_of_a_whole_gigabyte_share_their_pmd_table() {
    const GIGABYTE: u64 = 512;
    solo(GIGABYTE, |cx, k, mm, file| async move {
        let other = k.new_mm("other".into());
        for mm in [mm, other] {
            let request = huge(BASE, GIGABYTE, file, Sharing::Shared);
            k.sys_mmap(&cx, mm, request).await.expect("free");
        }
        let get = async |mm, n: u64| {
            let va = BASE.add_pages(n * HPAGE_PAGES);
            let page = k.get_user_page(&cx, mm, va, Access::Write).await.expect("mapped");
            k.put_page(&cx, page.pfn);
        };
        get(mm, 0).await;
        get(other, 1).await;
        assert_eq!((k.metrics().pmd_shares, k.metrics().faults_huge), (1, 2));
        // Each finds what the other faulted in.
        get(mm, 1).await;
        get(other, 0).await;
        assert_eq!(k.metrics().faults_huge, 2);
        k.sys_munmap(&cx, other, huge_range(BASE, GIGABYTE)).await;
        let m = k.metrics();
        assert_eq!((m.pmd_unshares, m.huge_zapped, m.flush_hugetlb), (1, 0, 1));
        get(mm, 0).await;
        assert_eq!(k.metrics().faults_huge, 2);
        k.sys_munmap(&cx, mm, huge_range(BASE, GIGABYTE)).await;
        let m = k.metrics();
        assert_eq!((m.pmd_unshares, m.huge_zapped, m.flush_hugetlb), (1, 2, 2));
    });
}

#[test]
fn a_mapping_of_less_than_a_gigabyte_shares_nothing() {
    solo(8, |cx, k, mm, file| async move {
        let other = k.new_mm("other".into());
        for mm in [mm, other] {
            k.sys_mmap(&cx, mm, huge(BASE, 8, file, Sharing::Shared))
                .await
                .expect("free");
            let page = k
                .get_user_page(&cx, mm, BASE, Access::Write)
                .await
                .expect("mapped");
            k.put_page(&cx, page.pfn);
        }
        assert_eq!((k.metrics().pmd_shares, k.metrics().faults_huge), (0, 2));
    });
}

/// One step of a random program on a hugetlbfs file.
#[derive(Clone, Copy, Debug)]
enum Step {
    Map {
        at: u64,
        pages: u64,
        offset: u64,
        sharing: bool,
    },
    Unmap {
        at: u64,
        pages: u64,
    },
    Touch {
        at: u64,
        write: bool,
    },
    Protect {
        at: u64,
        pages: u64,
        write: bool,
    },
    Truncate {
        pages: u64,
    },
    Fork,
}

fn steps() -> impl Strategy<Value = Vec<(bool, Step)>> {
    let at = || 0_u64..6;
    let pages = || 1_u64..4;
    let step = prop_oneof![
        3 => (at(), pages(), 0_u64..4, any::<bool>())
            .prop_map(|(at, pages, offset, sharing)| Step::Map { at, pages, offset, sharing }),
        2 => (at(), pages()).prop_map(|(at, pages)| Step::Unmap { at, pages }),
        6 => (at(), any::<bool>()).prop_map(|(at, write)| Step::Touch { at, write }),
        1 => (at(), pages(), any::<bool>()).prop_map(|(at, pages, write)| Step::Protect { at, pages, write }),
        1 => (0_u64..8).prop_map(|pages| Step::Truncate { pages }),
        1 => Just(Step::Fork),
    ];
    prop::collection::vec((any::<bool>(), step), 1..40)
}

async fn step(cx: &Cx, k: &Kernel, mm: MmId, file: FileId, step: Step) -> Option<MmId> {
    let place = |at: u64| BASE.add_pages(at * HPAGE_PAGES);
    match step {
        Step::Map {
            at,
            pages,
            offset,
            sharing,
        } => {
            let sharing = if sharing {
                Sharing::Shared
            } else {
                Sharing::Private
            };
            let request = MapRequest {
                pgoff: Pgoff::new(offset * HPAGE_PAGES),
                ..huge(place(at), pages, file, sharing)
            };
            let _ = k.sys_mmap(cx, mm, request).await;
        }
        Step::Unmap { at, pages } => k.sys_munmap(cx, mm, huge_range(place(at), pages)).await,
        Step::Touch { at, write } => {
            let access = if write { Access::Write } else { Access::Read };
            // Not through the CPU: both processes are worked on from one.
            if let Ok(page) = k.get_user_page(cx, mm, place(at).add_pages(17), access).await {
                k.put_page(cx, page.pfn);
            }
        }
        Step::Protect { at, pages, write } => {
            let prot = if write { Prot::READ_WRITE } else { Prot::READ };
            k.sys_mprotect(cx, mm, huge_range(place(at), pages), prot).await;
        }
        Step::Truncate { pages } => k.do_truncate(cx, file, pages * HPAGE_PAGES).await,
        Step::Fork => return Some(k.sys_fork(cx, mm, "child".into()).await),
    }
    None
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_happens_to_huge_pages_all_come_back(program in steps()) {
        // More than promised pages, copies of children and the cache can take, so that nobody's are taken
        // back.
        let (end, wrong) = with_pool(Setup::linux_2_6_27(), 400, 1, move |cx, k, mm, file| async move {
            k.do_truncate(&cx, file, 8 * HPAGE_PAGES).await;
            let mut mms = vec![mm, k.new_mm("other".into())];
            for (latest, what) in program {
                let mm = if latest { *mms.last().expect("two") } else { mm };
                mms.extend(step(&cx, &k, mm, file, what).await);
            }
            // The first is torn down by hand: the task still runs in it.
            k.sys_munmap(&cx, mm, huge_range(BASE, 16)).await;
            for mm in mms.split_off(1) {
                k.mmput(&cx, mm).await;
            }
            k.do_truncate(&cx, file, 0).await;
            let pool = k.huge_pool();
            assert_eq!((pool.free, pool.reserved), (pool.total, 0));
        });
        prop_assert_eq!(end, End::Completed);
        prop_assert_eq!(wrong, Vec::<String>::new());
    }
}
