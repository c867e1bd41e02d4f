//! Mappings of huge pages: host-mm-paths B.17, its rows of B.0 and C.3, G.15.

mod common;

use std::cell::RefCell;
use std::rc::Rc;

use common::huge::{huge, huge_range, solo, touch_huge, with_pool};
use common::{BASE, FAR_ABOVE, Listener, Setup, anonymous, range, touch, wait};
use mm::hugetlb::{HPAGE_PAGES, PoolState};
use mm::invariants::PTE_WITHOUT_LOCK;
use mm::notifier::{CallbackFuture, Design, MmuKind, Subscriber};
use mm::{
    FileId, Kernel, KernelPreemption, KernelProfile, Locked, MapError, MapRequest, MmId, MmMetrics, Prot,
    Refused, Sharing,
};
use sim::{Cx, End, LockId, ViolationKind};
use x86::{Access, Level, Pfn, Pgoff, Va, VaRange};

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
            k.sys_munmap(&cx, mm, huge_range(BASE, 4)).await.expect("mapped");
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
        k.sys_munmap(&cx, mm, whole).await.expect("mapped");
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
            k.sys_munmap(&cx, mm, huge_range(BASE, huge_pages))
                .await
                .expect("mapped");
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
fn a_hugetlbfs_file_grows_by_truncation_but_cannot_end_inside_a_page() {
    solo(8, |cx, k, mm, file| async move {
        k.sys_mmap(&cx, mm, huge(BASE, 8, file, Sharing::Shared))
            .await
            .expect("free");
        for pages in [1, HPAGE_PAGES + 1] {
            k.do_truncate(&cx, file, pages).await;
            assert_eq!(k.st().file(file).size, 8 * HPAGE_PAGES, "{pages}");
        }
        k.do_truncate(&cx, file, 9 * HPAGE_PAGES).await;
        assert_eq!(k.st().file(file).size, 9 * HPAGE_PAGES);
        k.do_truncate(&cx, file, 2 * HPAGE_PAGES).await;
        // A writable mapping makes it longer.
        let request = huge(FAR_ABOVE, 3, file, Sharing::Shared);
        k.sys_mmap(&cx, mm, request).await.expect("free");
        assert_eq!(k.st().file(file).size, 3 * HPAGE_PAGES);
    });
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
        k.sys_mprotect(&cx, mm, huge_range(BASE, 4), Prot::READ)
            .await
            .expect("mapped");
        assert_eq!(
            (heard.starts.get(), heard.ends.get(), k.metrics().flush_mm),
            (1, 1, 1)
        );
        assert_eq!(
            k.access(&cx, mm, BASE, Access::Write).await,
            Err(Refused::NoMapping)
        );
        k.sys_mprotect(&cx, mm, huge_range(BASE, 4), Prot::NONE)
            .await
            .expect("mapped");
        assert_eq!(
            k.access(&cx, mm, BASE, Access::Read).await,
            Err(Refused::NoMapping)
        );
        k.sys_mprotect(&cx, mm, huge_range(BASE, 4), Prot::READ_WRITE)
            .await
            .expect("mapped");
        k.access(&cx, mm, BASE, Access::Write)
            .await
            .expect("the page is still there");
        let m = k.metrics();
        assert_eq!((m.faults_huge, m.faults_reuse, m.flush_page), (0, 1, 1));
        // Not inside a huge page.
        let cut = k.sys_mprotect(&cx, mm, range(BASE, 1), Prot::READ).await;
        assert_eq!(cut, Err(MapError::CutsHugePage));
        k.access(&cx, mm, BASE, Access::Write)
            .await
            .expect("nothing changed");
    });
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
            k.sys_munmap(&cx, mm, huge_range(BASE, 4)).await.expect("mapped");
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
        let cut = k.sys_munmap(&cx, mm, range(BASE, 3)).await;
        assert_eq!(cut, Err(MapError::CutsHugePage));
        let advised = k.madvise_dontneed(&cx, mm, huge_range(BASE, 4)).await;
        assert_eq!(advised, Err(MapError::Unsuitable));
        assert_eq!(k.metrics().huge_zapped, 0);
        let all = huge_range(BASE, 4);
        for (pages, to, why) in [
            (5 * HPAGE_PAGES, None, MapError::Unsuitable),
            (3, None, MapError::CutsHugePage),
            (4 * HPAGE_PAGES, Some(FAR_ABOVE), MapError::Unsuitable),
        ] {
            assert_eq!(k.sys_mremap(&cx, mm, all, pages, to).await, Err(why), "{pages}");
        }
        let shorter = k.sys_mremap(&cx, mm, all, 2 * HPAGE_PAGES, None).await;
        assert_eq!(shorter, Ok(huge_range(BASE, 2)));
        assert_eq!(k.metrics().huge_zapped, 2);
        // In the middle, at borders of huge pages.
        k.sys_munmap(&cx, mm, huge_range(BASE, 1)).await.expect("mapped");
        assert_eq!(k.metrics().huge_zapped, 3);
        k.access(&cx, mm, BASE.add_pages(HPAGE_PAGES), Access::Write)
            .await
            .expect("still there");
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
            k.put_page(&cx, page.pfn).await;
        };
        get(mm, 0).await;
        get(other, 1).await;
        assert_eq!((k.metrics().pmd_shares, k.metrics().faults_huge), (1, 2));
        // Each finds what the other faulted in.
        get(mm, 1).await;
        get(other, 0).await;
        assert_eq!(k.metrics().faults_huge, 2);
        k.sys_munmap(&cx, other, huge_range(BASE, GIGABYTE))
            .await
            .expect("mapped");
        let m = k.metrics();
        assert_eq!((m.pmd_unshares, m.huge_zapped, m.flush_hugetlb), (1, 0, 1));
        get(mm, 0).await;
        assert_eq!(k.metrics().faults_huge, 2);
        k.sys_munmap(&cx, mm, huge_range(BASE, GIGABYTE))
            .await
            .expect("mapped");
        let m = k.metrics();
        assert_eq!((m.pmd_unshares, m.huge_zapped, m.flush_hugetlb), (1, 2, 2));
    });
}

/// A shares its PMD table with whoever asks until it has left i_mmap, also while it is unmapped.
#[test]
fn a_table_that_is_shared_while_its_mapping_is_torn_down_stays_with_the_sharer() {
    const GIGABYTE: u64 = 512;
    const LONG: u64 = 20_000;
    let b = Setup::linux_2_6_27().build();
    b.kernel.add_hugepages(GIGABYTE).expect("memory");
    let file = b.kernel.new_hugetlb_file("huge", GIGABYTE * HPAGE_PAGES);
    let (mm, other) = (b.mm, b.kernel.new_mm("other".into()));
    b.thread(0, Some(mm), move |cx, k| async move {
        k.sys_mmap(&cx, mm, huge(BASE, GIGABYTE, file, Sharing::Shared))
            .await
            .expect("free");
        k.access(&cx, mm, BASE, Access::Write).await.expect("mapped");
        // Behind it, so that unmapping takes its time between the huge pages and their table.
        let behind = huge_range(BASE, GIGABYTE).end();
        k.sys_mmap(&cx, mm, anonymous(behind, LONG)).await.expect("free");
        touch(&cx, &k, mm, range(behind, LONG), Access::Write).await;
        let all = GIGABYTE * HPAGE_PAGES + LONG;
        k.sys_munmap(&cx, mm, range(BASE, all)).await.expect("mapped");
    });
    b.thread(1, Some(other), move |cx, k| async move {
        k.sys_mmap(&cx, other, huge(BASE, GIGABYTE, file, Sharing::Shared))
            .await
            .expect("free");
        while k.metrics().flush_hugetlb == 0 {
            wait(&cx, 1_000).await;
        }
        k.access(&cx, other, BASE, Access::Write).await.expect("mapped");
        let freed = |k: &Kernel| k.metrics().tables_freed;
        assert_eq!(
            (k.metrics().pmd_shares, freed(&k)),
            (1, 0),
            "the table was still there"
        );
        while freed(&k) == 0 {
            wait(&cx, 1_000).await;
        }
        let faults = k.metrics().faults_total;
        k.access(&cx, other, BASE.add_pages(1), Access::Write)
            .await
            .expect("mapped");
        assert_eq!(k.metrics().faults_total, faults);
        k.sys_munmap(&cx, other, huge_range(BASE, GIGABYTE))
            .await
            .expect("mapped");
        assert_eq!((k.metrics().pmd_unshares, k.metrics().huge_zapped), (0, 2));
    });
    assert_eq!(b.engine.run(), End::Completed);
    assert_eq!(b.world.audit(), Vec::<String>::new());
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
            k.put_page(&cx, page.pfn).await;
        }
        assert_eq!((k.metrics().pmd_shares, k.metrics().faults_huge), (0, 2));
    });
}

/// Stores the entry of a huge page again, as a path would, with page_table_lock or without.
fn stored_again(locking: Locking) -> End {
    let (end, _) = with_pool(Setup::linux_2_6_27(), 1, 1, move |cx, k, mm, file| async move {
        k.sys_mmap(&cx, mm, huge(BASE, 1, file, Sharing::Shared))
            .await
            .expect("free");
        touch_huge(&cx, &k, mm, huge_range(BASE, 1), Access::Write).await;
        let ptl = k.st().mm(mm).page_table_lock;
        let _held = match locking {
            Locking::Held => Some(cx.lock(ptl).await),
            Locking::Forgotten => None,
        };
        let mut st = k.st();
        let pgd = st.mm(mm).pgd;
        let table = st.tables.table_at(pgd, BASE.vpn(), Level::Pmd).expect("touched");
        let place = (table, Level::Pmd.index(BASE));
        let entry = st.tables.get(place.0, place.1);
        k.set_huge_entry(&cx, &mut st, mm, place, entry);
    });
    end
}

#[derive(Clone, Copy)]
enum Locking {
    Held,
    Forgotten,
}

#[test]
fn entries_of_huge_pages_are_stored_under_page_table_lock() {
    assert_eq!(stored_again(Locking::Held), End::Completed);
    let End::Violation(v) = stored_again(Locking::Forgotten) else {
        panic!("nobody asked for the lock");
    };
    assert_eq!(v.kind, ViolationKind::Model(PTE_WITHOUT_LOCK), "{}", v.summary);
}

#[test]
fn a_locked_mapping_and_its_forked_copy_share_no_pmd_table() {
    const GIGABYTE: u64 = 512;
    for (locked, shares) in [(Locked::No, 1), (Locked::Yes, 0)] {
        solo(GIGABYTE, move |cx, k, mm, file| async move {
            let mut request = huge(BASE, GIGABYTE, file, Sharing::Shared);
            request.flags.locked = locked;
            k.sys_mmap(&cx, mm, request).await.expect("free");
            k.access(&cx, mm, BASE, Access::Write).await.expect("mapped");
            // The child inherits no lock, so its vm_flags differ.
            let child = k.sys_fork(&cx, mm, "child".into()).await;
            assert_eq!(k.metrics().pmd_shares, shares, "{locked:?}");
            k.mmput(&cx, child).await;
        });
    }
}

#[test]
fn before_2_6_27_private_mappings_were_promised_no_huge_pages() {
    for (profile, free) in [(KernelProfile::LINUX_2_6_25, 4), (KernelProfile::LINUX_2_6_27, 1)] {
        let mut setup = Setup::linux_2_6_27();
        setup.profile = profile;
        let (end, wrong) = with_pool(setup, 4, 1, move |cx, k, mm, file| async move {
            let private = huge(BASE, 3, file, Sharing::Private);
            k.sys_mmap(&cx, mm, private).await.expect("free");
            let pool = k.huge_pool();
            assert_eq!(pool.free - pool.reserved, free);
            // The parent's copy on write takes nobody's page away.
            touch_huge(&cx, &k, mm, huge_range(BASE, 3), Access::Write).await;
            let child = k.sys_fork(&cx, mm, "child".into()).await;
            k.access(&cx, mm, BASE, Access::Write)
                .await
                .expect("the fourth page");
            let more = k
                .access(&cx, mm, BASE.add_pages(HPAGE_PAGES), Access::Write)
                .await;
            if free == 4 {
                assert_eq!(more, Err(Refused::OutOfMemory));
                assert_eq!(k.metrics().huge_taken_back, 0);
            } else {
                assert!(k.metrics().huge_taken_back > 0);
            }
            k.mmput(&cx, child).await;
        });
        // unmap_ref_private of 2.6.27 takes its locks the wrong way round.
        if free == 4 {
            assert_eq!((end, wrong), (End::Completed, vec![]));
        }
    }
}
