//! When fork lets go of the page-table locks.

mod common;

use std::cell::Cell;
use std::rc::Rc;

use common::{BASE, Setup, anonymous, range, touch, wait};
use mm::KernelPreemption;
use sim::End;
use x86::Access;

/// Pages of one page table.
const TABLE: u64 = 512;

/// Whether other CPUs do things more often than fork copies entries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Others {
    Quiet,
    Restless,
}

/// A thread wants the lock of the parent's page table when fork has copied some entries of it. How many it
/// has copied when the thread gets the lock.
fn copied_when_let_in(preemption: KernelPreemption, others: Others) -> u64 {
    let b = Setup::linux_2_6_27().preempt(preemption).build();
    let mm = b.mm;
    let let_in = Rc::new(Cell::new(None));
    let out = Rc::clone(&let_in);
    b.thread(1, None, move |cx, k| async move {
        while k.metrics().pages_forked == 0 {
            wait(&cx, 50).await;
        }
        let ptl = {
            let st = k.st();
            let table = st.tables.leaf_table(st.mm(mm).pgd, BASE.vpn()).expect("touched");
            st.ptl(table)
        };
        let _held = cx.lock(ptl).await;
        out.set(Some(k.metrics().pages_forked));
    });
    if others == Others::Restless {
        let done = Rc::clone(&let_in);
        b.thread(2, None, move |cx, _| async move {
            while done.get().is_none() {
                wait(&cx, 1).await;
            }
        });
    }
    let end = b.work(move |cx, k| async move {
        k.sys_mmap(&cx, mm, anonymous(BASE, TABLE)).await.expect("free");
        touch(&cx, &k, mm, range(BASE, TABLE), Access::Write).await;
        let child = k.sys_fork(&cx, mm, "child".into()).await;
        k.mmput(&cx, child).await;
    });
    assert_eq!(end, End::Completed);
    assert_eq!(b.world.audit(), Vec::<String>::new());
    let_in.get().expect("the thread got the lock")
}

#[test]
fn who_waits_for_a_page_table_that_fork_copies_is_let_in_with_preemption_only() {
    let copied = copied_when_let_in(KernelPreemption::Voluntary, Others::Quiet);
    assert_eq!(copied, TABLE, "nobody looks");
    // It looks every four entries.
    let copied = copied_when_let_in(KernelPreemption::Full, Others::Quiet);
    assert!(copied < TABLE && copied.is_multiple_of(4), "{copied}");
}

#[test]
fn fork_looks_up_every_four_entries_however_often_others_come_between() {
    let copied = copied_when_let_in(KernelPreemption::Full, Others::Restless);
    assert!(copied <= 8, "{copied}");
}
