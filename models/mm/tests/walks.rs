//! Walks of the host's CPUs: what paging-structure caches spare, what empties them, and what the oracle
//! says when something that should have emptied them did not.

mod common;

use std::cell::Cell;
use std::rc::Rc;

use common::{BASE, Bench, Setup, anonymous, range, shared_file, touch, wait};
use mm::page::FREE_WHILE_WALKED;
use mm::{KernelPreemption, MmMetrics};
use sim::{CpuId, End, ViolationKind};
use x86::Access;

/// Counters of reading a file mapping of so many pages after everything was mapped and flushed.
fn rereading(pages: u64) -> MmMetrics {
    let b = Setup::linux_2_6_27().build();
    let out = Rc::new(Cell::new(None));
    let (mm, result) = (b.mm, Rc::clone(&out));
    let end = b.work(move |cx, k| async move {
        k.sys_mmap(&cx, mm, anonymous(BASE, pages))
            .await
            .expect("a free place");
        touch(&cx, &k, mm, range(BASE, pages), Access::Write).await;
        k.flush_tlb_mm(&cx, mm).await;
        k.start_measuring();
        touch(&cx, &k, mm, range(BASE, pages), Access::Read).await;
        result.set(Some(k.metrics()));
    });
    assert_eq!(end, End::Completed);
    out.take().expect("measured")
}

#[test]
fn after_a_flush_one_walk_takes_four_references_and_its_neighbours_one() {
    let m = rereading(8);
    assert_eq!(m.tlb_misses, 8);
    assert_eq!(m.walk_references, 4 + 7);
    // Everything was read before the flush.
    assert_eq!((m.walk_l1, m.walk_memory, m.walk_remote), (11, 0, 0));
}

#[test]
fn a_page_fault_makes_the_instruction_that_restarts_walk_from_the_root() {
    let b = Setup::linux_2_6_27().build();
    let mm = b.mm;
    let end = b.work(move |cx, k| async move {
        k.sys_mmap(&cx, mm, anonymous(BASE, 3))
            .await
            .expect("a free place");
        k.access(&cx, mm, BASE, Access::Write).await.expect("mapped");
        // The root was empty; then four levels.
        assert_eq!(k.metrics().walk_references, 1 + 4);
        k.access(&cx, mm, BASE.add_pages(1), Access::Write)
            .await
            .expect("mapped");
        // One reference found the entry missing and dropped what led to it.
        assert_eq!(k.metrics().walk_references, 1 + 4 + 1 + 4);
    });
    assert_eq!(end, End::Completed);
}

#[test]
fn invlpg_makes_walks_for_other_pages_start_at_the_root_again() {
    let b = Setup::linux_2_6_27().build();
    let mm = b.mm;
    let end = b.work(move |cx, k| async move {
        k.sys_mmap(&cx, mm, anonymous(BASE, 512))
            .await
            .expect("a free place");
        touch(&cx, &k, mm, range(BASE, 2), Access::Write).await;
        k.flush_tlb_mm(&cx, mm).await;
        k.access(&cx, mm, BASE, Access::Read).await.expect("mapped");
        k.start_measuring();
        k.flush_tlb_page(&cx, mm, BASE.add_pages(100)).await;
        k.access(&cx, mm, BASE.add_pages(1), Access::Read)
            .await
            .expect("mapped");
        let m = k.metrics();
        assert_eq!((m.local_invlpg, m.walk_references), (1, 4));
    });
    assert_eq!(end, End::Completed);
}

#[test]
fn a_store_through_a_clean_entry_pays_one_assist() {
    let b = Setup::linux_2_6_27().build();
    let mm = b.mm;
    let end = b.work(move |cx, k| async move {
        let file = k.new_file("data", 1);
        k.sys_mmap(&cx, mm, shared_file(BASE, 1, file))
            .await
            .expect("a free place");
        k.access(&cx, mm, BASE, Access::Write).await.expect("mapped");
        let assists = k.metrics().walk_dirty_assists;
        {
            let mut st = k.st();
            let (table, level, index) = st.tables.find_leaf(st.mm(mm).pgd, BASE.vpn()).expect("mapped");
            assert_eq!(level, x86::Level::Pte);
            let clean = st.tables.get(table, index).without(x86::EntryFlags::DIRTY);
            st.tables.set(table, index, clean);
        }
        k.flush_tlb_page(&cx, mm, BASE).await;
        k.access(&cx, mm, BASE, Access::Write).await.expect("mapped");
        k.access(&cx, mm, BASE, Access::Write).await.expect("mapped");
        assert_eq!(k.metrics().walk_dirty_assists, assists + 1);
    });
    assert_eq!(end, End::Completed);
}

/// Whether a kernel keeps its CPU masks.
#[derive(Clone, Copy, PartialEq)]
enum Mask {
    Kept,
    /// The second CPU is missing, as if it had been taken for a lazy one that has left.
    Forgotten,
}

/// Two CPUs walk one page table; the first unmaps it.
fn unmap_under_a_walker(mask: Mask) -> (Bench, End) {
    let b = Setup::linux_2_6_27().preempt(KernelPreemption::Voluntary).build();
    let mm = b.mm;
    let (touched, done) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(false)));
    let (saw, stop) = (Rc::clone(&touched), Rc::clone(&done));
    b.thread(1, Some(mm), move |cx, k| async move {
        while !saw.get() {
            wait(&cx, 1_000).await;
        }
        k.access(&cx, mm, BASE, Access::Read).await.expect("mapped");
        saw.set(false);
        while !stop.get() {
            wait(&cx, 1_000).await;
        }
    });
    b.thread(0, Some(mm), move |cx, k| async move {
        k.sys_mmap(&cx, mm, anonymous(BASE, 1))
            .await
            .expect("a free place");
        k.access(&cx, mm, BASE, Access::Write).await.expect("mapped");
        touched.set(true);
        while touched.get() {
            wait(&cx, 1_000).await;
        }
        if mask == Mask::Forgotten {
            k.st().mm_mut(mm).cpu_vm_mask.remove(CpuId::new(1));
        }
        k.sys_munmap(&cx, mm, range(BASE, 1)).await.expect("mapped");
        done.set(true);
    });
    let end = b.engine.run();
    (b, end)
}

#[test]
fn a_cpu_left_out_of_the_flush_could_still_walk_a_freed_page_table() {
    let (_, end) = unmap_under_a_walker(Mask::Forgotten);
    let End::Violation(v) = end else { panic!("{end:?}") };
    assert_eq!(v.kind, ViolationKind::Model(FREE_WHILE_WALKED), "{}", v.summary);
    assert!(v.summary.contains("cpu1"), "{}", v.summary);
}

#[test]
fn a_cpu_in_the_mask_cannot_walk_a_freed_page_table() {
    let (b, end) = unmap_under_a_walker(Mask::Kept);
    assert_eq!(end, End::Completed);
    assert_eq!(b.world.audit(), Vec::<String>::new());
}
