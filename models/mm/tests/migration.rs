//! Migration: flushes and callbacks for each mapper, locks, pages that cannot be moved, and faults that
//! come in between.

mod common;

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use common::mappers::with_mappers;
use common::{BASE, Bench, Listener, Setup, anonymous, range, shared_file, touch, wait};
use mm::frame::{LruList, PageFlags};
use mm::notifier::{CallbackFuture, Design, MmuKind, Subscriber};
use mm::{Device, DiskSpec, FileId, Kernel, Migrated, MigrationAccess, MmId, NonPresent, Owner, Prot, Which};
use sim::{Cx, Cycles, End};
use x86::{Access, Entry, Pfn, Va, VaRange};

const MOVED: Migrated = Migrated { moved: 1, failed: 0 };
const FAILED: Migrated = Migrated { moved: 0, failed: 1 };

fn pfn_at(k: &Kernel, mm: MmId, va: Va) -> Pfn {
    let entry = k.peek_pte(mm, va);
    assert!(entry.maps_page(), "{va} is mapped");
    entry.pfn()
}

fn solo<F: Future<Output = ()> + 'static>(body: impl FnOnce(Cx, Rc<Kernel>, MmId) -> F + 'static) {
    solo_on(Setup::linux_2_6_27(), body);
}

fn solo_on<F: Future<Output = ()> + 'static>(
    setup: Setup,
    body: impl FnOnce(Cx, Rc<Kernel>, MmId) -> F + 'static,
) {
    let b = setup.build();
    let mm = b.mm;
    assert_eq!(b.work(move |cx, k| body(cx, k, mm)), End::Completed);
    assert_eq!(b.world.audit(), Vec::<String>::new());
}

#[test]
fn a_page_of_a_file_costs_a_flush_and_a_callback_for_each_mapper() {
    for m in 1..=7 {
        let b = Setup::linux_2_6_27().build();
        let file = b.kernel.new_file("f", 4);
        with_mappers(&b, m, 1, file, Access::Write, move |cx, k, mms| async move {
            let listeners: Vec<_> = mms.iter().map(|_| Rc::new(Listener::default())).collect();
            for (mm, listener) in mms.iter().zip(&listeners) {
                let _ = k.mmu_notifier_register(&cx, *mm, listener.clone()).await;
            }
            let old = pfn_at(&k, mms[0], BASE);
            assert_eq!(
                k.sys_move_pages(&cx, mms[0], range(BASE, 1), Which::All).await,
                MOVED
            );
            let got = k.metrics();
            assert_eq!((got.flush_page, got.flush_mm), (u64::from(m), 0));
            assert_eq!(got.shootdown_ipis, u64::from(m), "one CPU a process");
            assert_eq!((got.notifier_page, got.brackets), (u64::from(m), 0));
            assert!(listeners.iter().all(|l| l.pages.get() == 1));
            assert_eq!((got.rmap_unmapped, got.pages_migrated), (u64::from(m), 1));
            let new = pfn_at(&k, mms[0], BASE);
            assert_ne!(new, old);
            for mm in mms {
                let entry = k.peek_pte(mm, BASE);
                assert_eq!(entry.pfn(), new);
                // The page is dirty, so it could be stored to, and still can; nothing used it yet.
                assert!(entry.writable() && !entry.accessed() && !entry.dirty());
            }
            let cached = k.st().file(file).pages.get(0).expect("cached");
            assert_eq!(cached.pfn, new);
            let frames = k.frames();
            let page = frames.get(new);
            // Entries, page cache, pagevec.
            assert_eq!((page.mapcount, page.count), (m, m + 2));
            assert!(page.flags.has(PageFlags::DIRTY) && page.flags.has(PageFlags::CACHED));
            assert_eq!(frames.get(old).mapcount, 0);
            assert_eq!(frames.get(old).count, 1, "the pagevec's");
        });
    }
}

#[test]
fn anonymous_memory_moves_with_its_rights_and_its_place() {
    for design in Design::ALL {
        solo_on(Setup::linux_2_6_27().design(design), |cx, k, mm| async move {
            k.sys_mmap(&cx, mm, anonymous(BASE, 4)).await.expect("free");
            touch(&cx, &k, mm, range(BASE, 3), Access::Write).await;
            k.sys_mprotect(&cx, mm, range(BASE.add_pages(1), 1), Prot::READ)
                .await
                .expect("mapped");
            k.sys_mprotect(&cx, mm, range(BASE.add_pages(2), 1), Prot::NONE)
                .await
                .expect("mapped");
            let old: Vec<Pfn> = (0..3).map(|n| pfn_at(&k, mm, BASE.add_pages(n))).collect();
            let flushes = k.metrics().flush_page;
            let moved = k.sys_move_pages(&cx, mm, range(BASE, 4), Which::Own).await;
            assert_eq!(moved, Migrated { moved: 3, failed: 0 });
            assert_eq!(k.metrics().flush_page - flushes, 3);
            for (n, old) in old.iter().enumerate() {
                let va = BASE.add_pages(n as u64);
                let new = pfn_at(&k, mm, va);
                assert_ne!(new, *old);
                let frames = k.frames();
                let (from, to) = (frames.get(*old), frames.get(new));
                assert!(matches!(to.owner(), Owner::Anon(_)));
                assert_eq!(to.index().get(), va.vpn().get());
                assert_eq!((to.mapcount, from.mapcount, from.owner()), (1, 0, Owner::None));
            }
            let entries: Vec<Entry> = (0..3).map(|n| k.peek_pte(mm, BASE.add_pages(n))).collect();
            assert!(entries[0].writable());
            assert!(!entries[1].writable() && entries[1].present());
            assert!(!entries[2].present(), "PROT_NONE");
            let faults = k.metrics().faults_total;
            k.access(&cx, mm, BASE, Access::Write).await.expect("mapped");
            assert_eq!(k.metrics().faults_total, faults, "stores need no fault");
            let (_, freed) = k.frames().turnover(k.zone());
            k.lru_add_drain_all(&cx).await;
            assert_eq!(k.frames().turnover(k.zone()).1 - freed, 3, "the old frames");
        });
    }
}

#[test]
fn what_is_shared_with_a_child_is_moved_only_when_asked_for() {
    solo(|cx, k, mm| async move {
        k.sys_mmap(&cx, mm, anonymous(BASE, 1)).await.expect("free");
        k.access(&cx, mm, BASE, Access::Write).await.expect("mapped");
        let child = k.sys_fork(&cx, mm, "child".into()).await;
        let old = pfn_at(&k, mm, BASE);
        let own = k.sys_move_pages(&cx, mm, range(BASE, 1), Which::Own).await;
        assert_eq!(own, Migrated::default(), "it is not even tried");
        assert_eq!(pfn_at(&k, mm, BASE), old);
        let flushes = k.metrics().flush_page;
        assert_eq!(k.sys_move_pages(&cx, mm, range(BASE, 1), Which::All).await, MOVED);
        assert_eq!(k.metrics().flush_page - flushes, 2);
        let new = pfn_at(&k, mm, BASE);
        assert_eq!(new, pfn_at(&k, child, BASE));
        for of in [mm, child] {
            assert!(!k.peek_pte(of, BASE).writable(), "copied on write as before");
        }
        k.access(&cx, mm, BASE, Access::Write).await.expect("mapped");
        assert_ne!(pfn_at(&k, mm, BASE), new);
        k.mmput(&cx, child).await;
    });
}

/// Looks around when it is told of a page.
struct Watch {
    k: Rc<Kernel>,
    mm: MmId,
    file: Option<FileId>,
    old: Pfn,
    slow: u64,
    told: Rc<Cell<bool>>,
    seen: Cell<u32>,
}

impl Watch {
    fn look(&self, cx: &Cx, va: Va) {
        self.seen.set(self.seen.get() + 1);
        assert_eq!(
            self.k.peek_pte(self.mm, va),
            Entry::NONE,
            "cleared, and not set yet"
        );
        let st = self.k.st();
        let table = st.tables.leaf_table(st.mm(self.mm).pgd, va.vpn()).expect("there");
        // Of the caller, and these very locks; `call_sites_rmap.rs` has the whole list.
        let mut locks = vec![("ptl", st.ptl(table))];
        match (self.file, self.k.frames().get(self.old).owner()) {
            (Some(file), _) => {
                locks.push(("i_mmap_lock", st.file(file).i_mmap_lock));
                locks.push(("PG_locked", st.file(file).pages.get(0).expect("cached").lock));
            }
            (None, Owner::Anon(anon)) => locks.push(("anon_vma->lock", st.anon_vma(anon).lock)),
            (None, _) => panic!("anonymous memory"),
        }
        drop(st);
        for (name, lock) in locks {
            assert_eq!(cx.holds(lock), Some(sim::Mode::Exclusive), "{name}");
        }
        let frames = self.k.frames();
        assert_eq!(
            frames.get(self.old).tlb_slots,
            0,
            "flushed before anybody is told"
        );
        assert!(frames.get(self.old).count > 0);
        assert!(!frames.get(self.old).flags.has(PageFlags::LRU), "isolated");
    }
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
            self.look(cx, va);
            self.told.set(true);
            wait(cx, self.slow).await;
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
fn a_subscriber_is_told_under_all_locks_when_nothing_leads_to_the_page_any_more() {
    for of_file in [false, true] {
        solo(move |cx, k, mm| async move {
            let file = of_file.then(|| k.new_file("f", 1));
            let request = file.map_or(anonymous(BASE, 1), |file| shared_file(BASE, 1, file));
            k.sys_mmap(&cx, mm, request).await.expect("free");
            k.access(&cx, mm, BASE, Access::Write).await.expect("mapped");
            let watch = Rc::new(Watch {
                k: Rc::clone(&k),
                mm,
                file,
                old: pfn_at(&k, mm, BASE),
                slow: 0,
                told: Rc::default(),
                seen: Cell::new(0),
            });
            let registered = k.mmu_notifier_register(&cx, mm, watch.clone()).await;
            assert_eq!(k.sys_move_pages(&cx, mm, range(BASE, 1), Which::Own).await, MOVED);
            assert_eq!(watch.seen.get(), 1);
            k.mmu_notifier_unregister(&cx, registered).await;
        });
    }
}

/// A subscriber that keeps using its translation whatever it is told.
struct Deaf;

impl Subscriber for Deaf {
    fn name(&self) -> Rc<str> {
        "deaf".into()
    }
    fn kind(&self) -> MmuKind {
        MmuKind::Device
    }
    fn invalidate_page<'a>(&'a self, _: &'a Cx, _: Va) -> CallbackFuture<'a> {
        Box::pin(async {})
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
        true
    }
}

#[test]
fn a_translation_that_survives_the_unmapping_is_found_before_the_page_is_copied() {
    let b = Setup::linux_2_6_27().build();
    let mm = b.mm;
    let end = b.work(move |cx, k| async move {
        k.sys_mmap(&cx, mm, anonymous(BASE, 1)).await.expect("free");
        k.access(&cx, mm, BASE, Access::Write).await.expect("mapped");
        let _ = k.mmu_notifier_register(&cx, mm, Rc::new(Deaf)).await;
        k.secondary_mapped(pfn_at(&k, mm, BASE));
        let _ = k.sys_move_pages(&cx, mm, range(BASE, 1), Which::Own).await;
    });
    let End::Violation(found) = end else {
        panic!("must be found: {end:?}")
    };
    assert_eq!(found.kind, sim::ViolationKind::Model(mm::page::COPY_WHILE_MAPPED));
    assert!(found.summary.contains("deaf"), "{}", found.summary);
}

#[test]
fn a_pinned_page_stays_after_ten_passes_that_each_unmap_it() {
    for m in [1, 3] {
        let b = Setup::linux_2_6_27().build();
        let file = b.kernel.new_file("f", 4);
        with_mappers(&b, m, 1, file, Access::Write, move |cx, k, mms| async move {
            let old = pfn_at(&k, mms[0], BASE);
            k.pin_page(&cx, old);
            let result = k.sys_move_pages(&cx, mms[0], range(BASE, 1), Which::All).await;
            assert_eq!(result, FAILED);
            let got = k.metrics();
            assert_eq!(got.flush_page, 10 * u64::from(m));
            assert_eq!((got.pages_migrated, got.pages_migrate_failed), (0, 1));
            for mm in &mms {
                let entry = k.peek_pte(*mm, BASE);
                assert!(entry.present() && entry.writable());
                assert_eq!(entry.pfn(), old);
            }
            assert_eq!(k.frames().get(old).mapcount, m);
            k.lru_add_drain_all(&cx).await;
            assert!(k.frames().get(old).flags.has(PageFlags::LRU), "put back");
            k.unpin_page(&cx, old).await;
            let result = k.sys_move_pages(&cx, mms[0], range(BASE, 1), Which::All).await;
            assert_eq!(result, MOVED);
        });
    }
}

#[test]
fn an_active_page_is_put_back_on_the_active_list() {
    solo(|cx, k, mm| async move {
        let file = k.new_file("f", 1);
        k.sys_mmap(&cx, mm, shared_file(BASE, 1, file))
            .await
            .expect("free");
        k.sys_mmap(&cx, mm, anonymous(BASE.add_pages(1), 1))
            .await
            .expect("free");
        touch(&cx, &k, mm, range(BASE, 2), Access::Read).await;
        let moved = k.sys_move_pages(&cx, mm, range(BASE, 2), Which::Own).await;
        assert_eq!(moved.moved, 2);
        k.lru_add_drain_all(&cx).await;
        let on = |list| -> Vec<Pfn> { k.frames().lru_pages(k.zone(), list).collect() };
        assert_eq!(on(LruList::Inactive), [pfn_at(&k, mm, BASE)]);
        assert_eq!(on(LruList::Active), [pfn_at(&k, mm, BASE.add_pages(1))]);
    });
}

/// A thread of `b.mm` reads a page as soon as a subscriber of some address space is being told that the
/// page migrates. Says when it was served.
fn reader_when_told(b: &Bench) -> (Rc<Cell<bool>>, Rc<Cell<Cycles>>) {
    let mm = b.mm;
    b.kernel.mmget(mm);
    let (told, served) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(Cycles::ZERO)));
    let (go, ended) = (Rc::clone(&told), Rc::clone(&served));
    b.thread(1, Some(mm), move |cx, k| async move {
        while !go.get() {
            wait(&cx, 100).await;
        }
        k.access(&cx, mm, BASE, Access::Read).await.expect("mapped");
        ended.set(cx.now());
    });
    (told, served)
}

/// Moves the page at [`BASE`] while the listener of `listening` takes its time, and gives what was counted.
async fn move_slowly(
    cx: &Cx,
    k: &Rc<Kernel>,
    mm: MmId,
    listening: MmId,
    told: Rc<Cell<bool>>,
) -> mm::MmMetrics {
    let old = pfn_at(k, mm, BASE);
    let watch = Rc::new(Watch {
        k: Rc::clone(k),
        mm: listening,
        file: None,
        old,
        slow: 50_000,
        told,
        seen: Cell::new(0),
    });
    let registered = k.mmu_notifier_register(cx, listening, watch).await;
    k.start_measuring();
    assert_eq!(k.sys_move_pages(cx, mm, range(BASE, 1), Which::All).await, MOVED);
    let counted = k.metrics();
    assert_ne!(pfn_at(k, mm, BASE), old);
    k.mmu_notifier_unregister(cx, registered).await;
    counted
}

#[test]
fn a_fault_that_meets_a_migration_entry_waits_until_the_page_is_there() {
    let b = Setup::linux_2_6_27().build();
    let mm = b.mm;
    let (told, served) = reader_when_told(&b);
    let end = b.work(move |cx, k| async move {
        k.sys_mmap(&cx, mm, anonymous(BASE, 1)).await.expect("free");
        k.access(&cx, mm, BASE, Access::Write).await.expect("mapped");
        // The fault finds the entry cleared, waits for the pte lock, and then sees where the page went.
        let counted = move_slowly(&cx, &k, mm, mm, told).await;
        assert_eq!(counted.faults_migration, 1);
        assert_eq!(counted.faults_anon, 0, "no new page in its place");
        assert_eq!(counted.flush_page, 1);
        while served.get() == Cycles::ZERO {
            wait(&cx, 1_000).await;
        }
    });
    assert_eq!(end, End::Completed);
    assert_eq!(b.world.audit(), Vec::<String>::new());
}

#[test]
fn the_reference_of_a_waiting_fault_keeps_the_page_from_moving_in_that_pass() {
    let b = Setup::linux_2_6_27().build();
    let mm = b.mm;
    let (told, served) = reader_when_told(&b);
    let end = b.work(move |cx, k| async move {
        k.sys_mmap(&cx, mm, anonymous(BASE, 1)).await.expect("free");
        k.access(&cx, mm, BASE, Access::Write).await.expect("mapped");
        let child = k.sys_fork(&cx, mm, "child".into()).await;
        // The parent's entry has been replaced when the child's listener is told.
        let counted = move_slowly(&cx, &k, mm, child, told).await;
        assert_eq!(counted.faults_migration, 1);
        assert_eq!(counted.flush_page, 2 * 2, "two mappers, two passes");
        assert_eq!((counted.pages_migrated, counted.pages_migrate_failed), (1, 0));
        while served.get() == Cycles::ZERO {
            wait(&cx, 1_000).await;
        }
        k.mmput(&cx, child).await;
    });
    assert_eq!(end, End::Completed);
    assert_eq!(b.world.audit(), Vec::<String>::new());
}

/// Two processes map a page of a file, writable. While the page moves, driven from the second one, whose
/// listener takes its time, the first one does something to its mapping: its entry is a migration entry
/// then. Gives the kernel and both address spaces when all is over.
fn meanwhile<F: Future<Output = ()> + 'static>(
    act: impl FnOnce(Cx, Rc<Kernel>, MmId) -> F + 'static,
) -> (Rc<Kernel>, [MmId; 2]) {
    let b = Setup::linux_2_6_27().build();
    let (first, second) = (b.mm, b.kernel.new_mm("second".into()));
    b.kernel.mmget(first);
    let file = b.kernel.new_file("f", 1);
    let told = Rc::new(Cell::new(false));
    let go = Rc::clone(&told);
    b.thread(1, Some(first), move |cx, k| async move {
        while !go.get() {
            wait(&cx, 100).await;
        }
        let entry = k.peek_pte(first, BASE);
        assert!(matches!(
            NonPresent::of(entry),
            Some(NonPresent::Migration(_, MigrationAccess::Write))
        ));
        act(cx, k, first).await;
    });
    let end = b.work(move |cx, k| async move {
        for mm in [first, second] {
            k.sys_mmap(&cx, mm, shared_file(BASE, 1, file))
                .await
                .expect("free");
            k.activate_mm(&cx, mm);
            k.access(&cx, mm, BASE, Access::Write).await.expect("mapped");
        }
        let watch = Rc::new(Watch {
            k: Rc::clone(&k),
            mm: second,
            file: Some(file),
            old: pfn_at(&k, second, BASE),
            slow: 50_000,
            told,
            seen: Cell::new(0),
        });
        let registered = k.mmu_notifier_register(&cx, second, watch).await;
        let moved = k.sys_move_pages(&cx, second, range(BASE, 1), Which::All).await;
        assert_eq!(moved, MOVED);
        k.mmu_notifier_unregister(&cx, registered).await;
    });
    assert_eq!(end, End::Completed);
    assert_eq!(b.world.audit(), Vec::<String>::new());
    (b.kernel, [first, second])
}

#[test]
fn mprotect_takes_the_write_right_of_a_migration_entry_away() {
    let (k, [first, second]) = meanwhile(|cx, k, mm| async move {
        k.sys_mprotect(&cx, mm, range(BASE, 1), Prot::READ)
            .await
            .expect("mapped");
    });
    let (one, two) = (k.peek_pte(first, BASE), k.peek_pte(second, BASE));
    assert_eq!(one.pfn(), two.pfn());
    assert!(one.present() && !one.writable());
    assert!(two.writable());
}

#[test]
fn a_migration_entry_that_is_unmapped_stays_unmapped() {
    let (k, [first, second]) = meanwhile(|cx, k, mm| async move {
        k.sys_munmap(&cx, mm, range(BASE, 1)).await.expect("mapped");
    });
    assert!(k.peek_pte(first, BASE).is_none());
    let new = pfn_at(&k, second, BASE);
    assert_eq!(k.frames().get(new).mapcount, 1);
}

#[test]
fn a_migration_entry_that_mremap_moves_is_found_at_its_new_place() {
    const TO: Va = Va::new(BASE.get() + 0x100_0000);
    let (k, [first, second]) = meanwhile(|cx, k, mm| async move {
        let moved = k.sys_mremap(&cx, mm, range(BASE, 1), 1, Some(TO)).await;
        assert_eq!(moved, Ok(range(TO, 1)));
    });
    assert!(k.peek_pte(first, BASE).is_none());
    let entry = k.peek_pte(first, TO);
    assert!(entry.writable());
    assert_eq!(entry.pfn(), pfn_at(&k, second, BASE));
}

#[test]
fn a_process_that_exits_leaves_its_migration_entries_to_nobody() {
    let (k, [first, second]) = meanwhile(|cx, k, mm| async move {
        k.exit_mm(&cx, mm).await;
        k.mmput(&cx, mm).await;
    });
    let rss = [first, second].map(|mm| k.st().mm(mm).file_rss);
    assert_eq!(rss, [0, 1]);
    assert_eq!(k.frames().get(pfn_at(&k, second, BASE)).mapcount, 1);
}

#[test]
fn a_page_on_its_way_to_the_disk_is_waited_for_after_three_passes() {
    let b = Setup::linux_2_6_27().build();
    let mm = b.mm;
    const WRITE_NS: u64 = 1_000_000;
    b.kernel.set_disk(
        Device::Files,
        DiskSpec {
            read_ns: 0,
            write_ns: WRITE_NS,
        },
    );
    let file = b.kernel.new_file("f", 1);
    let end = b.work(move |cx, k| async move {
        k.sys_mmap(&cx, mm, shared_file(BASE, 1, file))
            .await
            .expect("free");
        k.access(&cx, mm, BASE, Access::Write).await.expect("mapped");
        let page = k.st().file(file).pages.get(0).expect("cached");
        let locked = cx.lock(page.lock).await;
        k.start_writeback(&cx, page.pfn, Device::Files, locked).await;
        let (before, unmapped) = (cx.now(), k.metrics().rmap_unmapped);
        assert_eq!(k.sys_move_pages(&cx, mm, range(BASE, 1), Which::Own).await, MOVED);
        let took = k.machine.to_ns(cx.now() - before);
        assert!(took > WRITE_NS * 9 / 10, "{took} ns");
        // It was only unmapped once it was written.
        assert_eq!(k.metrics().rmap_unmapped - unmapped, 1);
    });
    assert_eq!(end, End::Completed);
    assert_eq!(b.world.audit(), Vec::<String>::new());
}

#[test]
fn memory_that_is_used_up_leaves_pages_where_they_are() {
    let b = Setup::linux_2_6_27().build();
    let mm = b.mm;
    let taken = Rc::new(RefCell::new(Vec::new()));
    let held = Rc::clone(&taken);
    let end = b.work(move |cx, k| async move {
        k.sys_mmap(&cx, mm, anonymous(BASE, 2)).await.expect("free");
        touch(&cx, &k, mm, range(BASE, 2), Access::Write).await;
        let old = [0, 1].map(|n| pfn_at(&k, mm, BASE.add_pages(n)));
        // All but one frame go, and those that are left for who may reclaim (GFP_THISNODE does not).
        loop {
            let taken = k.frames().alloc(k.zone(), mm::Watermark::Low);
            let Ok(pfn) = taken else { break };
            held.borrow_mut().push(pfn);
        }
        let last = held.borrow_mut().pop().expect("there was memory");
        k.put_page(&cx, last).await;
        let moved = k.sys_move_pages(&cx, mm, range(BASE, 2), Which::Own).await;
        assert_eq!(moved, Migrated { moved: 1, failed: 1 });
        assert_eq!(pfn_at(&k, mm, BASE.add_pages(1)), old[1]);
        assert_ne!(pfn_at(&k, mm, BASE), old[0]);
        assert_eq!((k.metrics().kswapd_runs, k.metrics().reclaim_direct), (0, 0));
        let rest = std::mem::take(&mut *held.borrow_mut());
        for pfn in rest {
            k.put_page(&cx, pfn).await;
        }
    });
    assert_eq!(end, End::Completed);
    assert_eq!(b.world.audit(), Vec::<String>::new());
}
