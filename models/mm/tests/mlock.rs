//! Locking memory: what becomes present, who waits, what is refused.

mod common;

use std::cell::Cell;
use std::future::Future;
use std::rc::Rc;

use common::{BASE, FAR_ABOVE, FAR_BELOW, Setup, anonymous, range, shared_file, touch, wait};
use mm::{
    Backing, Destination, Kernel, LockAll, Locked, MapError, MapFlags, MapRequest, MmId, Populate, Prot,
    Refused, Sharing,
};
use sim::{Cx, End};
use x86::{Access, Pgoff, Va, VaRange};

fn solo<F: Future<Output = ()> + 'static>(body: impl FnOnce(Cx, Rc<Kernel>, MmId) -> F + 'static) {
    let b = Setup::linux_2_6_27().build();
    let mm = b.mm;
    assert_eq!(b.work(move |cx, k| body(cx, k, mm)), End::Completed);
    assert_eq!(b.world.audit(), Vec::<String>::new());
}

fn present(k: &Kernel, mm: MmId, r: VaRange) -> u64 {
    r.vpns().filter(|p| k.peek_pte(mm, p.va()).present()).count() as u64
}

fn mappings(k: &Kernel, mm: MmId) -> usize {
    k.st().mm(mm).vmas.len()
}

fn locked_vm(k: &Kernel, mm: MmId) -> u64 {
    k.st().mm(mm).locked_vm
}

const LOCKED: MapFlags = MapFlags {
    locked: Locked::Yes,
    ..MapFlags::NONE
};
const POPULATED: MapFlags = MapFlags {
    populate: Populate::Now,
    ..MapFlags::NONE
};

#[test]
fn locking_makes_pages_present_and_unlocking_touches_none() {
    solo(|cx, k, mm| async move {
        k.sys_mmap(&cx, mm, anonymous(BASE, 16)).await.expect("free");
        touch(&cx, &k, mm, range(BASE.add_pages(4), 2), Access::Write).await;
        let before = k.metrics();
        let inner = range(BASE.add_pages(4), 8);
        k.sys_mlock(&cx, mm, inner).await.expect("mapped");
        assert_eq!(present(&k, mm, range(BASE, 16)), 8);
        assert_eq!((mappings(&k, mm), locked_vm(&k, mm)), (3, 8));
        assert_eq!(k.metrics().faults_anon - before.faults_anon, 6);
        k.sys_mlock(&cx, mm, inner).await.expect("mapped");
        k.sys_munlock(&cx, mm, inner).await.expect("mapped");
        assert_eq!((mappings(&k, mm), locked_vm(&k, mm)), (1, 0));
        assert_eq!(present(&k, mm, range(BASE, 16)), 8);
        let after = k.metrics();
        assert_eq!(after.faults_anon - before.faults_anon, 6);
        assert_eq!(after.faults_total, before.faults_total, "no program faulted");
        assert_eq!(
            (after.flush_mm, after.flush_page),
            (before.flush_mm, before.flush_page)
        );
    });
}

/// Locks 256 pages on CPU 0 and touches another mapping on CPU 1 meanwhile. Returns how many of the
/// pages were there when the touch was over.
fn touched_while_locking(populate: MapFlags) -> u64 {
    let b = Setup::linux_2_6_27().build();
    let mm = b.mm;
    let (go, seen) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(0)));
    let begun = Rc::clone(&go);
    b.thread(0, Some(mm), move |cx, k| async move {
        k.sys_mmap(&cx, mm, anonymous(FAR_ABOVE, 1)).await.expect("free");
        begun.set(true);
        let request = MapRequest {
            flags: populate,
            ..anonymous(BASE, 256)
        };
        k.sys_mmap(&cx, mm, request).await.expect("free");
        if populate == MapFlags::NONE {
            k.sys_mlock(&cx, mm, range(BASE, 256)).await.expect("mapped");
        }
    });
    let count = Rc::clone(&seen);
    b.thread(1, Some(mm), move |cx, k| async move {
        while !go.get() || present(&k, mm, range(BASE, 256)) == 0 {
            wait(&cx, 100).await;
        }
        assert!(
            present(&k, mm, range(BASE, 256)) < 256,
            "the lock is still at work"
        );
        k.access(&cx, mm, FAR_ABOVE, Access::Write).await.expect("mapped");
        count.set(present(&k, mm, range(BASE, 256)));
    });
    assert_eq!(b.engine.run(), End::Completed);
    seen.get()
}

#[test]
fn faults_of_other_threads_wait_until_every_page_is_there() {
    assert_eq!(touched_while_locking(MapFlags::NONE), 256, "mlock");
    assert_eq!(touched_while_locking(LOCKED), 256, "MAP_LOCKED");
    assert_eq!(touched_while_locking(POPULATED), 256, "MAP_POPULATE");
}

#[test]
fn pages_are_made_present_for_writing_where_they_may_be_written() {
    solo(|cx, k, mm| async move {
        let file = k.new_file("f", 8);
        let private = MapRequest {
            sharing: Sharing::Private,
            ..shared_file(FAR_BELOW, 8, file)
        };
        let read_only = MapRequest {
            prot: Prot::READ,
            ..shared_file(FAR_ABOVE, 8, file)
        };
        for request in [shared_file(BASE, 8, file), private, read_only] {
            let at = request.at.expect("fixed");
            k.sys_mmap(&cx, mm, request).await.expect("free");
            k.sys_mlock(&cx, mm, range(at, 8)).await.expect("mapped");
        }
        let entry = |at: Va| k.peek_pte(mm, at);
        assert!(entry(BASE).writable() && entry(BASE).dirty());
        assert!(entry(FAR_BELOW).writable());
        assert_ne!(entry(FAR_BELOW).pfn(), entry(BASE).pfn(), "a copy");
        assert!(!entry(FAR_ABOVE).writable());
        assert_eq!(entry(FAR_ABOVE).pfn(), entry(BASE).pfn());
        assert_eq!(k.metrics().faults_cow, 8);
    });
}

#[test]
fn reading_ahead_untouched_anonymous_memory_gives_nothing_unless_it_is_locked() {
    solo(|cx, k, mm| async move {
        let read_only = |at, flags| MapRequest {
            prot: Prot::READ,
            flags,
            ..anonymous(at, 4)
        };
        k.sys_mmap(&cx, mm, read_only(BASE, POPULATED))
            .await
            .expect("free");
        assert_eq!(present(&k, mm, range(BASE, 4)), 0, "the zero page will do");
        k.sys_mmap(&cx, mm, read_only(FAR_ABOVE, LOCKED))
            .await
            .expect("free");
        assert_eq!(present(&k, mm, range(FAR_ABOVE, 4)), 4);
    });
}

#[test]
fn a_page_that_cannot_be_had_ends_the_call_with_its_mapping_locked() {
    solo(|cx, k, mm| async move {
        let file = k.new_file("f", 2);
        k.sys_mmap(&cx, mm, shared_file(BASE, 4, file))
            .await
            .expect("free");
        k.sys_mmap(&cx, mm, anonymous(BASE.add_pages(4), 4))
            .await
            .expect("free");
        let result = k.sys_mlock(&cx, mm, range(BASE, 8)).await;
        assert_eq!(result, Err(MapError::NotPresent(Refused::BeyondEof)));
        assert_eq!((present(&k, mm, range(BASE, 8)), locked_vm(&k, mm)), (2, 4));
        // As a flag of mmap it is no error.
        let request = MapRequest {
            flags: LOCKED,
            pgoff: Pgoff::new(1),
            ..shared_file(FAR_ABOVE, 4, file)
        };
        k.sys_mmap(&cx, mm, request).await.expect("free");
        assert_eq!((present(&k, mm, range(FAR_ABOVE, 4)), locked_vm(&k, mm)), (1, 8));
    });
}

#[test]
fn memory_without_rights_can_be_locked_but_not_made_present() {
    solo(|cx, k, mm| async move {
        let request = MapRequest {
            prot: Prot::NONE,
            ..anonymous(BASE, 4)
        };
        k.sys_mmap(&cx, mm, request).await.expect("free");
        let result = k.sys_mlock(&cx, mm, range(BASE, 4)).await;
        assert_eq!(result, Err(MapError::NotPresent(Refused::NoMapping)));
        assert_eq!(locked_vm(&k, mm), 4);
    });
}

#[test]
fn locked_and_drivers_memory_is_not_zapped_on_advice() {
    solo(|cx, k, mm| async move {
        k.sys_mmap(&cx, mm, anonymous(BASE, 12)).await.expect("free");
        touch(&cx, &k, mm, range(BASE, 12), Access::Write).await;
        k.sys_mlock(&cx, mm, range(BASE.add_pages(4), 4))
            .await
            .expect("mapped");
        let all = range(BASE, 12);
        assert_eq!(k.madvise_dontneed(&cx, mm, all).await, Err(MapError::Unsuitable));
        assert_eq!(present(&k, mm, all), 8, "only what lies before is gone");
        k.sys_munlock(&cx, mm, all).await.expect("mapped");
        assert_eq!(k.madvise_dontneed(&cx, mm, all).await, Ok(()));
        assert_eq!(present(&k, mm, all), 0);
        let driver = MapRequest {
            backing: Backing::Driver,
            ..anonymous(FAR_ABOVE, 4)
        };
        k.sys_mmap(&cx, mm, driver).await.expect("free");
        let advised = k.madvise_dontneed(&cx, mm, range(FAR_ABOVE, 4)).await;
        assert_eq!(advised, Err(MapError::Unsuitable));
    });
}

#[test]
fn all_there_is_and_all_to_come_can_be_locked() {
    solo(|cx, k, mm| async move {
        // Says where the heap starts.
        k.sys_brk(&cx, mm, FAR_BELOW).await;
        k.sys_mmap(&cx, mm, anonymous(BASE, 4)).await.expect("free");
        k.sys_mlockall(&cx, mm, LockAll::Future).await;
        assert_eq!(locked_vm(&k, mm), 0);
        k.sys_mmap(&cx, mm, anonymous(FAR_ABOVE, 3)).await.expect("free");
        k.sys_brk(&cx, mm, FAR_BELOW.add_pages(5)).await;
        assert_eq!(present(&k, mm, range(FAR_ABOVE, 3)), 3);
        assert_eq!(present(&k, mm, range(FAR_BELOW, 5)), 5);
        assert_eq!(locked_vm(&k, mm), 8);
        k.sys_mlockall(&cx, mm, LockAll::Current).await;
        assert_eq!((present(&k, mm, range(BASE, 4)), locked_vm(&k, mm)), (4, 12));
        k.sys_mmap(&cx, mm, anonymous(BASE.add_pages(100), 1))
            .await
            .expect("free");
        assert_eq!(locked_vm(&k, mm), 12, "MCL_CURRENT alone forgets MCL_FUTURE");
        k.sys_mlockall(&cx, mm, LockAll::Both).await;
        assert_eq!(locked_vm(&k, mm), 13);
        k.sys_munlockall(&cx, mm).await;
        k.sys_mmap(&cx, mm, anonymous(BASE.add_pages(200), 1))
            .await
            .expect("free");
        assert_eq!(locked_vm(&k, mm), 0);
    });
}

#[test]
fn a_forked_child_inherits_no_lock() {
    solo(|cx, k, mm| async move {
        k.sys_mlockall(&cx, mm, LockAll::Future).await;
        k.sys_mmap(&cx, mm, anonymous(BASE, 4)).await.expect("free");
        let child = k.sys_fork(&cx, mm, "child".into()).await;
        let locked = |mm| {
            let st = k.st();
            let mm: &mm::mm::Mm = st.mm(mm);
            let flags: Vec<_> = mm.vmas.iter().map(|v| st.vma(v).flags.locked).collect();
            (flags, mm.locked_vm, mm.def_locked)
        };
        assert_eq!(locked(mm), (vec![Locked::Yes], 4, Locked::Yes));
        assert_eq!(locked(child), (vec![Locked::No], 0, Locked::No));
        k.mmput(&cx, child).await;
    });
}

#[test]
fn what_a_locked_mapping_grows_by_is_present_at_once() {
    solo(|cx, k, mm| async move {
        let request = MapRequest {
            flags: LOCKED,
            ..anonymous(BASE, 4)
        };
        k.sys_mmap(&cx, mm, request).await.expect("free");
        k.sys_mremap(&cx, mm, range(BASE, 4), 6, Destination::InPlace)
            .await
            .expect("room");
        assert_eq!((present(&k, mm, range(BASE, 6)), locked_vm(&k, mm)), (6, 6));
        k.sys_mremap(&cx, mm, range(BASE, 6), 9, Destination::Fixed(FAR_ABOVE))
            .await
            .expect("moves");
        assert_eq!((present(&k, mm, range(FAR_ABOVE, 9)), locked_vm(&k, mm)), (9, 9));
        k.sys_mremap(&cx, mm, range(FAR_ABOVE, 9), 2, None)
            .await
            .expect("shrinks");
        assert_eq!(locked_vm(&k, mm), 2);
        k.sys_munmap(&cx, mm, range(FAR_ABOVE, 1)).await.expect("mapped");
        assert_eq!(locked_vm(&k, mm), 1);
    });
}

#[test]
fn a_drivers_mapping_is_locked_without_its_pages() {
    solo(|cx, k, mm| async move {
        let driver = MapRequest {
            backing: Backing::Driver,
            ..anonymous(BASE, 4)
        };
        k.sys_mmap(&cx, mm, driver).await.expect("free");
        assert_eq!(k.sys_mlock(&cx, mm, range(BASE, 4)).await, Ok(()));
        assert_eq!((locked_vm(&k, mm), present(&k, mm, range(BASE, 4))), (4, 0));
    });
}
