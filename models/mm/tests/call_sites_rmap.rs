//! The notifier's call sites behind the reverse map and in huge pages, one test a row of host-mm-paths B.0:
//! which callback, and what its caller holds. `call_sites.rs` has the others.

mod common;

use std::cell::RefCell;
use std::rc::Rc;

use common::huge::{huge, huge_range, touch_huge};
use common::nonlinear::exchanged;
use common::scribe::{Scribe, Told, pair};
use common::{BASE, Setup, anonymous, range, shared_file, touch};
use mm::hugetlb::HPAGE_PAGES;
use mm::notifier::Design;
use mm::{FileKind, Kernel, MmId, Sharing, Which};
use sim::Holding::{Exclusive, PreemptOff, Rcu, Shared, Srcu};
use sim::{Cx, End, Holding};
use x86::{Access, Entry};

/// Runs `work` on a swapping kernel of a design, and gives what the scribe was told after `ready`.
fn told<A: Future<Output = ()> + 'static, B: Future<Output = ()> + 'static>(
    design: Design,
    ready: impl FnOnce(Cx, Rc<Kernel>, MmId) -> A + 'static,
    work: impl FnOnce(Cx, Rc<Kernel>, MmId) -> B + 'static,
) -> Vec<(Told, Vec<Holding>)> {
    let b = Setup::linux_2_6_27().design(design).build();
    b.kernel.set_swap(64);
    let scribe = Rc::new(Scribe::default());
    let (mm, subscriber) = (b.mm, Rc::clone(&scribe));
    let out = Rc::new(RefCell::new(Vec::new()));
    let heard = Rc::clone(&out);
    let end = b.work(move |cx, k| async move {
        ready(cx.clone(), Rc::clone(&k), mm).await;
        k.lru_add_drain_all(&cx).await;
        let id = k.mmu_notifier_register(&cx, mm, subscriber.clone()).await;
        work(cx.clone(), Rc::clone(&k), mm).await;
        *heard.borrow_mut() = subscriber.take();
        k.mmu_notifier_unregister(&cx, id).await;
    });
    assert_eq!(end, End::Completed);
    assert_eq!(b.world.audit(), Vec::<String>::new());
    out.take()
}

async fn one_anonymous_page(cx: Cx, k: Rc<Kernel>, mm: MmId) {
    k.sys_mmap(&cx, mm, anonymous(BASE, 1)).await.expect("free");
    k.access(&cx, mm, BASE, Access::Write).await.expect("mapped");
}

async fn one_page_of_a_file(cx: Cx, k: Rc<Kernel>, mm: MmId, access: Access) {
    let file = k.new_file("f", 1);
    k.sys_mmap(&cx, mm, shared_file(BASE, 1, file))
        .await
        .expect("free");
    k.access(&cx, mm, BASE, access).await.expect("mapped");
}

/// What the walk to an anonymous page holds where the callback comes: under the pte lock, or after it under
/// the design whose callbacks sleep.
fn anon_walk(design: &Design) -> Vec<Holding> {
    if design.short == "v9" {
        vec![Exclusive("anon_vma->sem"), Srcu]
    } else {
        vec![Rcu, Exclusive("anon_vma->lock"), Exclusive("ptl"), Rcu]
    }
}

fn file_walk(design: &Design) -> Vec<Holding> {
    if design.short == "v9" {
        vec![Exclusive("i_mmap_sem"), Srcu]
    } else {
        vec![Exclusive("i_mmap_lock"), Exclusive("ptl"), Rcu]
    }
}

fn with_page_lock(walk: Vec<Holding>) -> Vec<Holding> {
    [vec![Exclusive("PG_locked")], walk].concat()
}

#[test]
fn reclaim_of_an_anonymous_page_holds_its_lock_from_the_inactive_list_on() {
    // host-mm-paths B.0: PG_locked may be absent in page_referenced_one for anonymous memory, and is when
    // the active list is scanned; try_to_unmap_one asks for the age again, except where the design asks
    // after the pte lock.
    for design in [Design::V1, Design::V8, Design::V9] {
        let walk = anon_walk(&design);
        let locked = with_page_lock(walk.clone());
        let asked_again = usize::from(design.short != "v9");
        let name = design.short;
        let heard = told(design, one_anonymous_page, |cx, k, _| async move {
            assert_eq!(k.shrink_all_memory(&cx, 1).await, 1);
        });
        let ask = |held: &Vec<Holding>| (Told::Young(BASE), held.clone());
        let mut expected = vec![ask(&walk), ask(&walk)];
        expected.extend(vec![ask(&locked); 1 + asked_again]);
        expected.push((Told::Page(BASE), locked));
        assert_eq!(heard, expected, "{name}");
    }
}

#[test]
fn reclaim_of_a_page_of_a_file_holds_page_and_i_mmap_lock_throughout() {
    for design in [Design::V1, Design::V8, Design::V9] {
        let locked = with_page_lock(file_walk(&design));
        let name = design.short;
        let heard = told(
            design,
            |cx, k, mm| one_page_of_a_file(cx, k, mm, Access::Read),
            |cx, k, _| async move {
                assert_eq!(k.shrink_all_memory(&cx, 1).await, 1);
            },
        );
        let (last, before) = heard.split_last().expect("told");
        assert_eq!(*last, (Told::Page(BASE), locked.clone()), "{name}");
        assert!(before.len() >= 2, "{name}: {before:?}");
        for call in before {
            assert_eq!(*call, (Told::Young(BASE), locked.clone()), "{name}");
        }
    }
}

#[test]
fn what_reclaim_tells_of_is_neither_young_nor_free() {
    // host-mm-paths F9, B.12: what is asked is not young in the primary entry any more (it was flushed
    // before); what is told is cleared, and still referenced by its cache, by reclaim, and by the entry as
    // long as its lock is held.
    let seen = Rc::new(RefCell::new(Vec::new()));
    let out = Rc::clone(&seen);
    let b = Setup::linux_2_6_27().build();
    b.kernel.set_swap(64);
    let mm = b.mm;
    let end = b.work(move |cx, k| async move {
        one_anonymous_page(cx.clone(), Rc::clone(&k), mm).await;
        k.lru_add_drain_all(&cx).await;
        let (scribe, kernel) = (Rc::new(Scribe::default()), Rc::clone(&k));
        let pfn = k.peek_pte(mm, BASE).pfn();
        scribe.look(move |told| {
            let entry = kernel.peek_pte(mm, BASE);
            let frames = kernel.frames();
            out.borrow_mut()
                .push((told, entry, frames.get(pfn).count, frames.get(pfn).tlb_slots));
        });
        let id = k.mmu_notifier_register(&cx, mm, scribe).await;
        assert_eq!(k.shrink_all_memory(&cx, 1).await, 1);
        k.mmu_notifier_unregister(&cx, id).await;
    });
    assert_eq!(end, End::Completed);
    let seen = seen.take();
    let told: Vec<_> = seen.iter().filter(|s| s.0 == Told::Page(BASE)).collect();
    assert_eq!(told, [&(Told::Page(BASE), Entry::NONE, 3, 0)]);
    let asked: Vec<_> = seen.iter().filter(|s| s.0 == Told::Young(BASE)).collect();
    assert_eq!(asked.len(), 4);
    for (_, entry, ..) in asked {
        assert!(entry.present() && !entry.accessed());
    }
}

#[test]
fn a_scanned_cluster_tells_of_each_page_under_page_lock_i_mmap_lock_and_pte_lock() {
    const PAGES: u64 = 4;
    let heard = told(
        Design::V8,
        |cx, k, mm| async move {
            let file = k.new_file_of(FileKind::Tmpfs, "t", PAGES);
            exchanged(&cx, &k, mm, file, PAGES).await;
        },
        |cx, k, _| async move {
            for _ in 0..8 {
                let _ = k.shrink_all_memory(&cx, PAGES).await;
            }
        },
    );
    let locked = with_page_lock(file_walk(&Design::V8));
    for (told, held) in &heard {
        assert_eq!(*held, locked, "{told:?}");
    }
    let mut pages: Vec<_> = heard
        .iter()
        .filter_map(|(told, _)| match told {
            Told::Page(va) => Some(*va),
            _ => None,
        })
        .collect();
    pages.sort();
    let each: Vec<_> = (0..PAGES).map(|page| BASE.add_pages(page)).collect();
    assert_eq!(pages, each);
    // Each cluster asks for the age first.
    assert!(heard.iter().any(|(told, _)| matches!(told, Told::Young(_))));
}

#[test]
fn cleaning_a_page_holds_its_lock_i_mmap_lock_and_the_pte_lock() {
    for (design, held) in [
        (Design::V1, with_page_lock(file_walk(&Design::V1))),
        (Design::V8, with_page_lock(file_walk(&Design::V8))),
        (Design::V9, with_page_lock(file_walk(&Design::V9))),
    ] {
        let name = design.short;
        let heard = told(
            design,
            |cx, k, mm| one_page_of_a_file(cx, k, mm, Access::Write),
            |cx, k, mm| async move { k.sys_msync(&cx, mm, range(BASE, 1)).await },
        );
        assert_eq!(heard, [(Told::Page(BASE), held)], "{name}");
    }
}

#[test]
fn migration_of_an_anonymous_page_stays_inside_rcu_with_its_lock_held() {
    // move_pages holds mmap_sem for read; an anonymous page's whole move lies in an RCU reader
    // (host-mm-paths B.14), and so does the walk by itself.
    let heard = told(Design::V8, one_anonymous_page, |cx, k, mm| async move {
        let moved = k.sys_move_pages(&cx, mm, range(BASE, 1), Which::Own).await;
        assert_eq!((moved.moved, moved.failed), (1, 0));
    });
    let outer = [Shared("mmap_sem"), Exclusive("PG_locked"), Rcu];
    let held = [&outer[..], &anon_walk(&Design::V8)].concat();
    assert_eq!(heard, [(Told::Page(BASE), held)]);
}

#[test]
fn migration_of_a_page_of_a_file_holds_its_lock_and_i_mmap_lock() {
    let heard = told(
        Design::V8,
        |cx, k, mm| one_page_of_a_file(cx, k, mm, Access::Write),
        |cx, k, mm| async move {
            let moved = k.sys_move_pages(&cx, mm, range(BASE, 1), Which::Own).await;
            assert_eq!((moved.moved, moved.failed), (1, 0));
        },
    );
    let held = [vec![Shared("mmap_sem")], with_page_lock(file_walk(&Design::V8))];
    assert_eq!(heard, [(Told::Page(BASE), held.concat())]);
}

#[test]
fn huge_pages_have_a_bracket_under_i_mmap_lock_inside_that_of_munmap() {
    const HUGE: u64 = 4;
    let behind = BASE.add_pages(HUGE * HPAGE_PAGES);
    let heard = told(
        Design::V8,
        move |cx, k, mm| async move {
            k.add_hugepages(HUGE).expect("memory");
            let file = k.new_hugetlb_file("huge", HUGE * HPAGE_PAGES);
            k.sys_mmap(&cx, mm, huge(BASE, HUGE, file, Sharing::Private))
                .await
                .expect("free");
            touch_huge(&cx, &k, mm, huge_range(BASE, HUGE), Access::Write).await;
            k.sys_mmap(&cx, mm, anonymous(behind, 8)).await.expect("free");
            touch(&cx, &k, mm, range(behind, 8), Access::Write).await;
        },
        |cx, k, mm| async move {
            let whole = huge_range(BASE, HUGE + 1);
            k.sys_munmap(&cx, mm, whole).await.expect("mapped");
        },
    );
    let held = [Exclusive("mmap_sem"), PreemptOff, Rcu];
    let nested = [Exclusive("mmap_sem"), PreemptOff, Exclusive("i_mmap_lock"), Rcu];
    let outer = pair(huge_range(BASE, HUGE + 1), &held);
    let inner = pair(huge_range(BASE, HUGE), &nested);
    assert_eq!(heard, [&outer[..1], &inner[..], &outer[1..]].concat());
}
