//! Page-table entries and who may change them: F3, F4, F12, F26.

use std::rc::Rc;

use mm::invariants::{
    PTE_WITHOUT_LOCK, REPLACED_WITHOUT_FLUSH, TABLES_FREED_WHILE_LINKED, UPPER_ENTRY_WITHOUT_LOCK,
};
use mm::lock_order::HostLock;
use mm::{Backing, FileKind, Kernel, MapRequest, MmId, Prefault, Prot, RemapRequest, Which};
use sim::{Cx, End};
use x86::{Access, Entry, Level, Pfn, Pgoff, Rights, TableId};

use crate::broken;
use crate::common::{BASE, Setup, anonymous, range, shared_file, touch};
use crate::meddle::{Meddler, Meddling, Step, another, until_waited_for};

/// Pages of the mapping; the first is touched beforehand.
const PAGES: u64 = 4;
const SWAP_PAGES: u32 = 64;

/// A path that stores leaf entries of the first page table.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Op {
    Munmap,
    Dontneed,
    Fault,
    Mprotect,
    Mremap,
    Fork,
    InsertPfn,
    /// page_referenced of reclaim.
    Age,
    /// do_swap_page.
    SwapIn,
    /// try_to_unmap of migration.
    Migrate,
    /// page_mkclean of writeback.
    Clean,
    /// remap_file_pages.
    Remap,
    /// try_to_unmap_cluster of a nonlinear mapping.
    Cluster,
}

const OPS: [Op; 13] = [
    Op::Munmap,
    Op::Dontneed,
    Op::Fault,
    Op::Mprotect,
    Op::Mremap,
    Op::Fork,
    Op::InsertPfn,
    Op::Age,
    Op::SwapIn,
    Op::Migrate,
    Op::Clean,
    Op::Remap,
    Op::Cluster,
];

fn request(k: &Kernel, op: Op) -> MapRequest {
    let file = |kind| shared_file(BASE, PAGES, k.new_file_of(kind, "file", PAGES));
    match op {
        Op::InsertPfn => MapRequest {
            backing: Backing::Driver,
            ..anonymous(BASE, PAGES)
        },
        Op::Clean => file(FileKind::Disk),
        Op::Remap | Op::Cluster => file(FileKind::Tmpfs),
        _ => anonymous(BASE, PAGES),
    }
}

/// The first page of the mapping becomes the second of the file, or the other way round.
async fn remap(cx: &Cx, k: &Kernel, mm: MmId, page: u64) {
    let request = RemapRequest {
        range: range(BASE.add_pages(page), 1),
        prot: Prot::NONE,
        pgoff: Pgoff::new(1 - page),
        prefault: Prefault::Yes,
    };
    k.sys_remap_file_pages(cx, mm, request).await.expect("tmpfs");
}

async fn populate(cx: &Cx, k: &Kernel, mm: MmId, op: Op) {
    k.sys_mmap(cx, mm, request(k, op)).await.expect("free");
    if op == Op::InsertPfn {
        let _ = k.insert_pfn(cx, mm, BASE, Pfn::new(0), Access::Read).await;
        return;
    }
    k.access(cx, mm, BASE, Access::Write).await.expect("mapped");
    if op == Op::Cluster {
        remap(cx, k, mm, 0).await;
        remap(cx, k, mm, 1).await;
    }
    k.lru_add_drain_all(cx).await;
    if op == Op::SwapIn {
        assert_eq!(k.shrink_all_memory(cx, 1).await, 1, "it is swapped out");
    }
}

async fn run(cx: &Cx, k: &Kernel, mm: MmId, op: Op) {
    let second = BASE.add_pages(1);
    match op {
        Op::Munmap => k.sys_munmap(cx, mm, range(BASE, PAGES)).await.expect("mapped"),
        Op::Dontneed => k
            .madvise_dontneed(cx, mm, range(BASE, PAGES))
            .await
            .expect("mapped"),
        Op::Fault => k.access(cx, mm, second, Access::Write).await.expect("mapped"),
        Op::Mprotect => k
            .sys_mprotect(cx, mm, range(BASE, PAGES), Prot::READ)
            .await
            .expect("mapped"),
        Op::Mremap => {
            let to = BASE.add_pages(1024);
            k.sys_mremap(cx, mm, range(BASE, PAGES), PAGES, Some(to))
                .await
                .expect("free");
        }
        Op::Fork => {
            k.sys_fork(cx, mm, "child".into()).await;
        }
        Op::Age | Op::Cluster => {
            k.shrink_all_memory(cx, 1).await;
        }
        Op::SwapIn => k.access(cx, mm, BASE, Access::Write).await.expect("mapped"),
        Op::Migrate => {
            k.sys_move_pages(cx, mm, range(BASE, 1), Which::All).await;
        }
        Op::Clean => k.sys_msync(cx, mm, range(BASE, PAGES)).await,
        Op::Remap => remap(cx, k, mm, 0).await,
        Op::InsertPfn => {
            let _ = k.insert_pfn(cx, mm, second, Pfn::new(0), Access::Read).await;
        }
    }
}

fn first_table(k: &Kernel, mm: MmId) -> TableId {
    let st = k.st();
    st.tables
        .leaf_table(st.mm(mm).pgd, BASE.vpn())
        .expect("populated")
}

/// The table gets another lock while the path waits for the one it had.
fn with_the_lock_swapped(op: Op, meddling: Meddling) -> End {
    let b = Setup::linux_2_6_27().build();
    b.kernel.set_swap(SWAP_PAGES);
    let (mm, step) = (b.mm, Step::default());
    let at = step.clone();
    b.thread(1, None, move |cx, k| async move {
        at.wait_for(&cx, 1).await;
        let table = first_table(&k, mm);
        let ptl = k.st().ptl(table);
        if op == Op::Migrate {
            // move_pages looks its pages up first.
            until_waited_for(&cx, ptl, &at, || {}).await;
        }
        until_waited_for(&cx, ptl, &at, || {
            if meddling == Meddling::Yes {
                let other = another(&k, HostLock::Pte);
                k.st().pte_locks[table.get() as usize] = Some(other);
            }
        })
        .await;
    });
    b.work(move |cx, k| async move {
        populate(&cx, &k, mm, op).await;
        step.reach(1);
        step.wait_for(&cx, 2).await;
        run(&cx, &k, mm, op).await;
    })
}

#[test]
fn every_path_that_stores_entries_is_asked_for_the_lock_of_their_table() {
    for op in OPS {
        let v = broken(with_the_lock_swapped(op, Meddling::Yes), "F3", PTE_WITHOUT_LOCK);
        assert!(v.summary.ends_with("(F3)"), "{op:?}: {}", v.summary);
        assert_eq!(with_the_lock_swapped(op, Meddling::No), End::Completed, "{op:?}");
    }
}

/// What is done to an entry that maps a page.
#[derive(Clone, Copy, PartialEq)]
enum Store {
    Unlocked,
    /// Another page, at once.
    Other,
    /// The same page with fewer rights.
    Same,
}

fn store(what: Store) -> End {
    let b = Setup::linux_2_6_27().build();
    let mm = b.mm;
    b.work(move |cx, k| async move {
        populate(&cx, &k, mm, Op::Munmap).await;
        let (table, index) = (first_table(&k, mm), Level::Pte.index(BASE));
        let ptl = k.st().ptl(table);
        let _ptl = match what {
            Store::Unlocked => None,
            Store::Other | Store::Same => Some(cx.lock(ptl).await),
        };
        let mut st = k.st();
        let old = st.tables.get(table, index);
        let entry = match what {
            Store::Other => Entry::leaf(Pfn::new(old.pfn().get() + 1), Rights::USER_READ),
            Store::Unlocked | Store::Same => old.without_write(),
        };
        k.set_pte(&cx, &mut st, table, index, entry);
    })
}

#[test]
fn an_entry_is_not_set_without_the_lock() {
    broken(store(Store::Unlocked), "F3", PTE_WITHOUT_LOCK);
    assert_eq!(store(Store::Same), End::Completed);
}

#[test]
fn an_entry_does_not_go_from_page_to_page_at_once() {
    let v = broken(store(Store::Other), "F26", REPLACED_WITHOUT_FLUSH);
    assert!(v.summary.contains("without having been empty"), "{}", v.summary);
}

/// page_table_lock becomes another one while the first fault waits for it.
fn populate_with_the_lock_swapped(meddling: Meddling) -> End {
    let b = Setup::linux_2_6_27().build();
    let (mm, step) = (b.mm, Step::default());
    let at = step.clone();
    b.thread(1, None, move |cx, k| async move {
        let lock = k.st().mm(mm).page_table_lock;
        until_waited_for(&cx, lock, &at, || {
            if meddling == Meddling::Yes {
                let other = another(&k, HostLock::PageTable);
                k.st().mm_mut(mm).page_table_lock = other;
            }
        })
        .await;
    });
    b.work(move |cx, k| async move {
        step.wait_for(&cx, 1).await;
        populate(&cx, &k, mm, Op::Fault).await;
    })
}

#[test]
fn tables_are_added_under_page_table_lock() {
    let v = broken(
        populate_with_the_lock_swapped(Meddling::Yes),
        "F4",
        UPPER_ENTRY_WITHOUT_LOCK,
    );
    assert!(
        v.summary.contains("added without page_table_lock"),
        "{}",
        v.summary
    );
    assert_eq!(populate_with_the_lock_swapped(Meddling::No), End::Completed);
}

/// A subscriber exchanges mmap_sem in the middle of a munmap.
fn munmap_without_mmap_sem(meddling: Meddling) -> End {
    let b = Setup::linux_2_6_27().build();
    let (mm, kernel) = (b.mm, Rc::downgrade(&b.kernel));
    let meddler = Meddler::new("meddler", move || {
        let k = kernel.upgrade().expect("the kernel runs");
        if meddling == Meddling::Yes {
            let other = another(&k, HostLock::MmapSem);
            k.st().mm_mut(mm).mmap_sem = other;
        }
    });
    b.work(move |cx, k| async move {
        k.mmu_notifier_register(&cx, mm, meddler).await;
        populate(&cx, &k, mm, Op::Munmap).await;
        run(&cx, &k, mm, Op::Munmap).await;
    })
}

#[test]
fn tables_are_freed_with_mmap_sem_for_write_while_there_are_users() {
    let v = broken(
        munmap_without_mmap_sem(Meddling::Yes),
        "F4",
        UPPER_ENTRY_WITHOUT_LOCK,
    );
    assert!(v.summary.contains("freed without mmap_sem"), "{}", v.summary);
    assert_eq!(munmap_without_mmap_sem(Meddling::No), End::Completed);
}

/// Which reverse map still has the VMA.
#[derive(Clone, Copy)]
enum Linked {
    Anon,
    IMmap,
}

/// A VMA is put back into its anon_vma between `anon_vma_unlink` and `unlink_file_vma`, or i_mmap had
/// it twice.
fn unlinked_and_linked_again(again: Option<Linked>) -> End {
    let b = Setup::linux_2_6_27().build();
    let (mm, step) = (b.mm, Step::default());
    let file = b.kernel.new_file("library", PAGES);
    let at = step.clone();
    b.thread(1, None, move |cx, k| async move {
        at.wait_for(&cx, 1).await;
        let vma = k.find_vma(&cx, mm, BASE).expect("mapped");
        let lock = k.st().file(file).i_mmap_lock;
        until_waited_for(&cx, lock, &at, || {
            let mut st = k.st();
            let anon = st.vma(vma).anon_vma.expect("written privately");
            match again {
                Some(Linked::Anon) => st.anon_vma_mut(anon).vmas.push(vma),
                Some(Linked::IMmap) => st.file_mut(file).i_mmap_nonlinear.push(vma),
                None => {}
            }
        })
        .await;
    });
    b.work(move |cx, k| async move {
        let private = MapRequest {
            backing: Backing::File(file),
            pgoff: x86::Pgoff::new(0),
            ..anonymous(BASE, PAGES)
        };
        k.sys_mmap(&cx, mm, private).await.expect("free");
        touch(&cx, &k, mm, range(BASE, 1), Access::Write).await;
        step.reach(1);
        step.wait_for(&cx, 2).await;
        k.sys_munmap(&cx, mm, range(BASE, PAGES)).await.expect("mapped");
    })
}

#[test]
fn a_vma_leaves_the_reverse_maps_before_its_tables_go() {
    for (again, which) in [(Linked::Anon, "its anon_vma"), (Linked::IMmap, "i_mmap")] {
        let v = broken(
            unlinked_and_linked_again(Some(again)),
            "F12",
            TABLES_FREED_WHILE_LINKED,
        );
        assert!(
            v.summary.contains(&format!("{which} still leads")),
            "{}",
            v.summary
        );
    }
    assert_eq!(unlinked_and_linked_again(None), End::Completed);
}
