//! What differs between kernel profiles, counted: host-mm-paths A.3, A.7, B.13, C.3, H. Flush counts are the
//! same in all of them.

mod common;

use std::cell::Cell;
use std::rc::Rc;

use common::{BASE, Setup, range, shared_file, touch, wait};
use mm::profile::{MkcleanCheck, PageCacheLookup};
use mm::{KernelPreemption, KernelProfile, MmMetrics};
use sim::{End, Engine, LockKind};
use x86::{Access, Entry, Level};

fn on(profile: &KernelProfile) -> Setup {
    Setup {
        profile: profile.clone(),
        ..Setup::linux_2_6_27()
    }
}

/// Holds of tree_lock so far: for read, and alone.
fn tree_lock_holds(engine: &Engine) -> (u64, u64) {
    let stat = engine.lock_stat();
    let class = stat.iter().find(|c| c.def.name == "tree_lock").expect("declared");
    (class.shared.acquisitions, class.exclusive.acquisitions)
}

#[test]
fn pages_are_looked_up_under_a_read_lock_before_2_6_27_and_without_a_lock_since() {
    const PAGES: u64 = 28;
    for profile in KernelProfile::ALL {
        let b = on(&profile).build();
        let file = b.kernel.new_file("f", PAGES);
        let mm = b.mm;
        let end = b.work(move |cx, k| async move {
            let counted = |before: (u64, u64)| {
                let now = tree_lock_holds(k.engine());
                (now.0 - before.0, now.1 - before.1)
            };
            // Times that a profile takes the lock to look.
            let looks = |times| match profile.page_cache_lookup {
                PageCacheLookup::UnderTreeLock => times,
                PageCacheLookup::Lockless => 0,
            };
            let name = profile.name;
            for at in [BASE, BASE.add_pages(PAGES)] {
                k.sys_mmap(&cx, mm, shared_file(at, PAGES, file))
                    .await
                    .expect("free");
            }
            let before = tree_lock_holds(k.engine());
            touch(&cx, &k, mm, range(BASE, PAGES), Access::Read).await;
            assert_eq!(
                counted(before),
                (looks(PAGES), PAGES),
                "{name}: looked up in vain, and inserted"
            );
            let before = tree_lock_holds(k.engine());
            touch(&cx, &k, mm, range(BASE.add_pages(PAGES), PAGES), Access::Read).await;
            assert_eq!(counted(before), (looks(PAGES), 0), "{name}: found");
            let before = tree_lock_holds(k.engine());
            k.do_truncate(&cx, file, 0).await;
            // Two pagevecs of 14 and an empty one, then one that finds nothing to wait for.
            assert_eq!(counted(before), (looks(2 + 1 + 1), PAGES), "{name}: removed");
        });
        assert_eq!(end, End::Completed, "{}", profile.name);
        assert_eq!(b.world.audit(), Vec::<String>::new(), "{}", profile.name);
    }
}

#[test]
fn the_tree_lock_is_an_rwlock_before_2_6_27_and_a_spinlock_since() {
    for (profile, kind) in KernelProfile::ALL
        .iter()
        .zip([LockKind::RwLock, LockKind::Spin, LockKind::Spin])
    {
        let b = on(profile).build();
        let stat = b.engine.lock_stat();
        let class = stat.iter().find(|c| c.def.name == "tree_lock").expect("declared");
        assert_eq!(class.def.kind, kind, "{}", profile.name);
    }
}

/// Writes a dirty page back while another task has the entry out for a moment, under its lock, as
/// `ptep_modify_prot_start` does.
fn cleaned_behind_a_transaction(profile: &KernelProfile) -> (MmMetrics, Entry) {
    const LONG: u64 = 100_000;
    let b = on(profile).build();
    let file = b.kernel.new_file("f", 1);
    let mm = b.mm;
    let (mapped, out) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(false)));
    let (go, taken) = (Rc::clone(&mapped), Rc::clone(&out));
    b.thread(1, Some(mm), move |cx, k| async move {
        while !go.get() {
            wait(&cx, 100).await;
        }
        let (table, ptl) = {
            let st = k.st();
            let table = st.tables.leaf_table(st.mm(mm).pgd, BASE.vpn()).expect("there");
            (table, st.ptl(table))
        };
        let _ptl = cx.lock(ptl).await;
        let entry = k.peek_pte(mm, BASE);
        k.set_pte(&cx, &mut k.st(), table, Level::Pte.index(BASE), Entry::NONE);
        taken.set(true);
        wait(&cx, LONG).await;
        k.set_pte(&cx, &mut k.st(), table, Level::Pte.index(BASE), entry);
    });
    let end = b.work(move |cx, k| async move {
        k.sys_mmap(&cx, mm, shared_file(BASE, 1, file))
            .await
            .expect("free");
        k.access(&cx, mm, BASE, Access::Write).await.expect("mapped");
        mapped.set(true);
        while !out.get() {
            wait(&cx, 100).await;
        }
        k.sys_fsync(&cx, file).await;
    });
    assert_eq!(end, End::Completed, "{}", profile.name);
    (b.kernel.metrics(), b.kernel.peek_pte(mm, BASE))
}

#[test]
fn page_mkclean_passes_over_an_entry_that_looks_absent_before_2_6_27_and_waits_for_it_since() {
    for profile in KernelProfile::ALL {
        let (m, entry) = cleaned_behind_a_transaction(&profile);
        let name = profile.name;
        assert!(entry.present(), "{name}");
        match profile.mkclean_check {
            // The page is written, and its entry stays writable: later stores are not noticed.
            MkcleanCheck::Quick => {
                assert_eq!((m.rmap_cleaned, m.flush_page, m.io_writes), (0, 0, 1), "{name}");
                assert!(entry.writable() && entry.dirty(), "{name}");
            }
            MkcleanCheck::Sync => {
                assert_eq!((m.rmap_cleaned, m.flush_page, m.io_writes), (1, 1, 1), "{name}");
                assert!(!entry.writable() && !entry.dirty(), "{name}");
            }
        }
    }
}

#[test]
fn a_truncation_under_contention_restarts_only_where_its_lock_spins() {
    // host-mm-paths E, point 2: whoever may sleep with the lock need not let go of it.
    const PAGES: u64 = 64;
    for profile in KernelProfile::ALL {
        let mut setup = on(&profile).preempt(KernelPreemption::Full);
        setup.cpus = 2;
        let restarts = match profile.truncate_break {
            mm::profile::TruncateBreak::AtBlockEnds => 1,
            mm::profile::TruncateBreak::Never => 0,
        };
        let b = setup.build();
        let file = b.kernel.new_file("f", PAGES);
        let mm = b.mm;
        let lock = b.kernel.st().file(file).i_mmap_lock;
        let begun = Rc::new(Cell::new(false));
        let go = Rc::clone(&begun);
        b.thread(1, None, move |cx, k| async move {
            while !go.get() || !k.engine().is_locked(lock) {
                wait(&cx, 20).await;
            }
            drop(cx.lock(lock).await);
        });
        let end = b.work(move |cx, k| async move {
            k.sys_mmap(&cx, mm, shared_file(BASE, PAGES, file))
                .await
                .expect("free");
            touch(&cx, &k, mm, range(BASE, PAGES), Access::Read).await;
            begun.set(true);
            let before = k.metrics();
            k.do_truncate(&cx, file, 0).await;
            let m = k.metrics().since(&before);
            assert_eq!(m.truncate_restarts, restarts, "{}", profile.name);
            // A flush a block of 8 pages in each of them.
            assert_eq!(
                (m.pages_zapped, m.flush_mm),
                (PAGES, PAGES / 8),
                "{}",
                profile.name
            );
        });
        assert_eq!(end, End::Completed, "{}", profile.name);
        assert_eq!(b.world.audit(), Vec::<String>::new(), "{}", profile.name);
    }
}
