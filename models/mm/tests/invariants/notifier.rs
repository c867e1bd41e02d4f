//! What subscribers may rely on: F7, F8, F9, F11.

use std::cell::Cell;
use std::rc::Rc;

use mm::hugetlb::HPAGE_PAGES;
use mm::invariants::{
    MAPPED_IN_BRACKET, PAGE_NOTICE_TOO_EARLY, RANGE_OVER_TOO_EARLY, UNMAPPED_BEFORE_RELEASE,
};
use mm::lock_order::HostLock;
use mm::notifier::{Design, Path, UNBALANCED_BRACKET};
use mm::{Prot, Sharing};
use sim::{CpuId, End, Mode};
use x86::{Access, Entry, Level, Va};

use crate::common::huge::{huge, huge_range};
use crate::common::{BASE, Setup, anonymous, range, shared_file, touch, wait};
use crate::meddle::{Meddler, Meddling, Step, another};
use crate::{broken, in_audit};

const PAGES: u64 = 600;

/// How the list of subscribers changes while a bracket is open.
#[derive(Clone, Copy, PartialEq)]
enum List {
    Stays,
    /// Everybody is gone, without having been released.
    Lost,
    /// Somebody is back who was not there at the start.
    Grows,
}

#[test]
fn every_start_has_its_end_and_every_end_its_start() {
    let bracket = |list| {
        let b = Setup::linux_2_6_27().build();
        let (mm, kernel) = (b.mm, Rc::downgrade(&b.kernel));
        let hidden = Rc::new(Cell::new(None));
        let returns = Rc::clone(&hidden);
        let meddler = Meddler::new("meddler", move || {
            let k = kernel.upgrade().expect("the kernel runs");
            let mut st = k.st();
            let subscribers = &mut st.mm_mut(mm).subscribers;
            match list {
                List::Stays => {}
                List::Lost => subscribers.clear(),
                List::Grows => subscribers.extend(returns.get()),
            }
        });
        let end = b.work(move |cx, k| async move {
            let other = k.mmu_notifier_register(&cx, mm, Meddler::idle("other")).await;
            k.mmu_notifier_register(&cx, mm, meddler).await;
            k.sys_mmap(&cx, mm, anonymous(BASE, 1)).await.expect("free");
            if list == List::Grows {
                k.st().mm_mut(mm).subscribers.retain(|s| *s != other);
                hidden.set(Some(other));
            }
            k.madvise_dontneed(&cx, mm, range(BASE, 1)).await.expect("mapped");
        });
        (b, end)
    };
    let (b, end) = bracket(List::Lost);
    let v = broken(end, "F7", UNBALANCED_BRACKET);
    assert!(v.summary.contains("is not told its end"), "{}", v.summary);
    in_audit(b.world.audit(), "F7");
    let v = broken(bracket(List::Grows).1, "F7", UNBALANCED_BRACKET);
    assert!(v.summary.contains("other is told the end"), "{}", v.summary);
    let (b, end) = bracket(List::Stays);
    assert_eq!(end, End::Completed);
    assert_eq!(b.world.audit(), Vec::<String>::new());
}

/// A device makes a translation of a page while a range is unmapped.
fn maps_in_between(name: &'static str, at: Va) -> End {
    let b = Setup::linux_2_6_27().build();
    let (mm, step) = (b.mm, Step::default());
    let started = step.clone();
    let device = Meddler::new("device", move || started.reach(1));
    let told = step.clone();
    b.thread(1, None, move |cx, k| async move {
        told.wait_for(&cx, 1).await;
        wait(&cx, 1).await;
        k.check_secondary_map(&cx, mm, at, name);
        assert!(told.now() < 2, "the bracket is still open");
    });
    b.work(move |cx, k| async move {
        k.mmu_notifier_register(&cx, mm, device).await;
        k.sys_mmap(&cx, mm, anonymous(BASE, PAGES)).await.expect("free");
        touch(&cx, &k, mm, range(BASE, PAGES), Access::Write).await;
        k.sys_munmap(&cx, mm, range(BASE, PAGES)).await.expect("mapped");
        step.reach(2);
        k.check_secondary_map(&cx, mm, BASE, "device");
    })
}

#[test]
fn nothing_is_mapped_between_start_and_end() {
    let v = broken(
        maps_in_between("device", BASE.add_pages(1)),
        "F8",
        MAPPED_IN_BRACKET,
    );
    assert!(
        v.summary.contains("device makes a translation of 0x7f4000001000"),
        "{}",
        v.summary
    );
    assert_eq!(maps_in_between("device", BASE.add_pages(PAGES)), End::Completed);
    assert_eq!(maps_in_between("somebody else", BASE), End::Completed);
}

/// What is wrong when a subscriber is told that a page was copied.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Early {
    Nothing,
    /// A CPU was left out of the flush.
    Unflushed,
    /// During the flush the entry comes back.
    Mapped,
    /// During the flush the table gets another lock.
    Unlocked,
    /// During the flush the references are lost.
    Unreferenced,
}

fn copy_that_is_told(early: Early) -> End {
    let b = Setup::linux_2_6_27().build();
    let (mm, step) = (b.mm, Step::default());
    let at = step.clone();
    b.thread(1, Some(mm), move |cx, k| async move {
        at.wait_for(&cx, 1).await;
        k.access(&cx, mm, BASE, Access::Read).await.expect("mapped");
        at.reach(2);
        at.wait_for(&cx, 4).await;
    });
    let at = step.clone();
    b.thread(2, None, move |cx, k| async move {
        at.wait_for(&cx, 3).await;
        let old = k.peek_pte(mm, BASE);
        while k.peek_pte(mm, BASE).present() {
            wait(&cx, 1).await;
        }
        let mut st = k.st();
        let table = st
            .tables
            .leaf_table(st.mm(mm).pgd, BASE.vpn())
            .expect("populated");
        match early {
            Early::Nothing | Early::Unflushed => {}
            Early::Mapped => st.tables.set(table, Level::Pte.index(BASE), old),
            Early::Unlocked => st.pte_locks[table.get() as usize] = Some(another(&k, HostLock::Pte)),
            Early::Unreferenced => k.frames().get_mut(old.pfn()).count = 0,
        }
    });
    b.work(move |cx, k| async move {
        k.mmu_notifier_register(&cx, mm, Meddler::idle("device")).await;
        k.sys_mmap(&cx, mm, anonymous(BASE, 1)).await.expect("free");
        k.access(&cx, mm, BASE, Access::Write).await.expect("mapped");
        k.sys_fork(&cx, mm, "child".into()).await;
        step.reach(1);
        step.wait_for(&cx, 2).await;
        if early == Early::Unflushed {
            k.st().mm_mut(mm).cpu_vm_mask.remove(CpuId::new(1));
        }
        step.reach(3);
        wait(&cx, 10_000).await;
        k.access(&cx, mm, BASE, Access::Write).await.expect("mapped");
        step.reach(4);
    })
}

#[test]
fn whoever_is_told_of_a_page_finds_it_cleared_flushed_locked_and_held() {
    for (early, why) in [
        (Early::Unflushed, "the TLB of cpu1 still leads to it"),
        (Early::Mapped, "its entry still maps it"),
        (Early::Unlocked, "the pte lock is not held"),
        (Early::Unreferenced, "the page has no reference any more"),
    ] {
        let v = broken(copy_that_is_told(early), "F9", PAGE_NOTICE_TOO_EARLY);
        assert!(v.summary.contains(why), "{early:?}: {}", v.summary);
    }
    assert_eq!(copy_that_is_told(Early::Nothing), End::Completed);
}

/// A path by the reverse map that tells subscribers of a page.
#[derive(Clone, Copy, PartialEq, Debug)]
enum ByRmap {
    Reclaim,
    Clean,
}

/// Two CPUs have written a page of a file; the second is left out of the flushes, or not.
fn told_by_the_reverse_map(by: ByRmap, design: Design, meddling: Meddling) -> End {
    let b = Setup::linux_2_6_27().design(design).build();
    let (mm, step) = (b.mm, Step::default());
    let file = b.kernel.new_file("file", 1);
    let at = step.clone();
    b.thread(1, Some(mm), move |cx, k| async move {
        at.wait_for(&cx, 1).await;
        k.access(&cx, mm, BASE, Access::Write).await.expect("mapped");
        at.reach(2);
        at.wait_for(&cx, 3).await;
    });
    b.work(move |cx, k| async move {
        k.mmu_notifier_register(&cx, mm, Meddler::idle("device")).await;
        k.sys_mmap(&cx, mm, shared_file(BASE, 1, file))
            .await
            .expect("free");
        k.access(&cx, mm, BASE, Access::Write).await.expect("mapped");
        step.reach(1);
        step.wait_for(&cx, 2).await;
        k.lru_add_drain_all(&cx).await;
        if meddling == Meddling::Yes {
            k.st().mm_mut(mm).cpu_vm_mask.remove(CpuId::new(1));
        }
        match by {
            ByRmap::Reclaim => {
                k.shrink_all_memory(&cx, 1).await;
            }
            ByRmap::Clean => k.sys_fsync(&cx, file).await,
        }
        step.reach(3);
    })
}

#[test]
fn whoever_is_told_by_the_reverse_map_finds_cpus_flushed() {
    for by in [ByRmap::Reclaim, ByRmap::Clean] {
        for design in [Design::V1, Design::V8] {
            let end = told_by_the_reverse_map(by, design.clone(), Meddling::Yes);
            let v = broken(end, "F9", PAGE_NOTICE_TOO_EARLY);
            assert!(
                v.summary.contains("the TLB of cpu1 still leads"),
                "{by:?}: {}",
                v.summary
            );
            let end = told_by_the_reverse_map(by, design, Meddling::No);
            assert_eq!(end, End::Completed, "{by:?}");
        }
        // It is told after the pte lock.
        let end = told_by_the_reverse_map(by, Design::V9, Meddling::No);
        assert_eq!(end, End::Completed, "{by:?}");
    }
}

/// A range of huge pages whose end would be announced while one is still mapped.
#[test]
fn when_a_range_is_over_huge_pages_are_unmapped_too() {
    let over = |unmaps| {
        let b = Setup::linux_2_6_27().build();
        let mm = b.mm;
        let file = b.kernel.new_hugetlb_file("huge", HPAGE_PAGES);
        b.kernel.add_hugepages(1).expect("memory");
        b.work(move |cx, k| async move {
            let request = huge(BASE, 1, file, Sharing::Shared);
            k.sys_mmap(&cx, mm, request).await.expect("free");
            k.access(&cx, mm, BASE, Access::Write).await.expect("mapped");
            if unmaps {
                k.sys_munmap(&cx, mm, huge_range(BASE, 1)).await.expect("mapped");
            }
            let sem = k.mmap_sem(mm);
            let _sem = cx.lock(sem).await;
            k.check_range_over(&cx, mm, Path::Zap, huge_range(BASE, 1));
        })
    };
    broken(over(false), "F10", RANGE_OVER_TOO_EARLY);
    assert_eq!(over(true), End::Completed);
}

/// Somebody registers with an address space that waits for its subscribers to be gone.
fn exits(design: Design, meddling: Meddling) -> End {
    let b = Setup::linux_2_6_27().design(design).build();
    let (mm, step) = (b.mm, Step::default());
    let at = step.clone();
    b.thread(1, None, move |cx, k| async move {
        at.wait_for(&cx, 1).await;
        while !k.st().mm(mm).subscribers.is_empty() {
            wait(&cx, 100).await;
        }
        if meddling == Meddling::Yes {
            k.mmu_notifier_register(&cx, mm, Meddler::idle("late")).await;
        }
    });
    b.work(move |cx, k| async move {
        k.mmu_notifier_register(&cx, mm, Meddler::idle("early")).await;
        k.sys_mmap(&cx, mm, anonymous(BASE, 1)).await.expect("free");
        k.access(&cx, mm, BASE, Access::Write).await.expect("mapped");
        step.reach(1);
        wait(&cx, 10_000).await;
        k.exit_mm(&cx, mm).await;
    })
}

#[test]
fn nothing_is_unmapped_before_every_subscriber_has_released() {
    for design in [Design::V8, Design::V9] {
        let v = broken(
            exits(design.clone(), Meddling::Yes),
            "F11",
            UNMAPPED_BEFORE_RELEASE,
        );
        assert!(v.summary.contains("before late has released it"), "{}", v.summary);
        assert_eq!(exits(design, Meddling::No), End::Completed);
    }
    // It releases at the end, when the pages are gone: exempt.
    assert_eq!(exits(Design::V1, Meddling::Yes), End::Completed);
}

/// The end of a range would be announced now, with mmap_sem held like this.
fn over(path: Path, mode: Mode, entry: fn(Entry) -> Entry) -> End {
    let b = Setup::linux_2_6_27().build();
    let mm = b.mm;
    b.work(move |cx, k| async move {
        k.sys_mmap(&cx, mm, anonymous(BASE, 2)).await.expect("free");
        touch(&cx, &k, mm, range(BASE, 2), Access::Write).await;
        if path == Path::Mprotect {
            k.sys_mprotect(&cx, mm, range(BASE, 2), Prot::READ)
                .await
                .expect("mapped");
        }
        let sem = k.mmap_sem(mm);
        let _sem = match mode {
            Mode::Exclusive => cx.lock(sem).await,
            Mode::Shared => cx.lock_shared(sem).await,
        };
        for vpn in range(BASE, 2).vpns() {
            let mut st = k.st();
            let (table, _, index) = st.tables.find_leaf(st.mm(mm).pgd, vpn).expect("mapped");
            let changed = entry(st.tables.get(table, index));
            st.tables.set(table, index, changed);
        }
        k.check_range_over(&cx, mm, path, range(BASE, 2));
    })
}

#[test]
fn when_a_range_is_over_its_entries_are_changed() {
    let cleared: fn(Entry) -> Entry = |_| Entry::NONE;
    for (path, changed) in [
        (Path::Zap, cleared),
        (Path::Mremap, cleared),
        (Path::Mprotect, Entry::without_write),
        (Path::Fork, Entry::without_write),
    ] {
        let end = over(path, Mode::Exclusive, Entry::with_write);
        let v = broken(end, "F10", RANGE_OVER_TOO_EARLY);
        assert!(v.summary.contains("0x7f4000000000 is as it was"), "{}", v.summary);
        // Others may have faulted pages in again.
        assert_eq!(
            over(path, Mode::Shared, Entry::with_write),
            End::Completed,
            "{path:?}"
        );
        assert_eq!(over(path, Mode::Exclusive, changed), End::Completed, "{path:?}");
    }
}
