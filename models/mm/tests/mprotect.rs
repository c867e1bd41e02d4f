//! What others see of an mprotect that is under way.

mod common;

use std::cell::Cell;
use std::rc::Rc;

use common::{BASE, Setup, anonymous, range, touch, wait};
use mm::Prot;
use sim::End;
use x86::Access;

const TABLE: u64 = 512;

#[test]
fn the_entries_of_a_page_table_are_changed_one_after_the_other() {
    let b = Setup::linux_2_6_27().build();
    let mm = b.mm;
    let (begun, half, over) = (
        Rc::new(Cell::new(false)),
        Rc::new(Cell::new(false)),
        Rc::new(Cell::new(false)),
    );
    let (watching, done, seen) = (Rc::clone(&begun), Rc::clone(&over), Rc::clone(&half));
    b.thread(1, None, move |cx, k| async move {
        while !done.get() {
            wait(&cx, 200).await;
            if watching.get() {
                let writable = |page| k.peek_pte(mm, BASE.add_pages(page)).writable();
                seen.set(seen.get() || (!writable(0) && writable(TABLE - 1)));
            }
        }
    });
    let end = b.work(move |cx, k| async move {
        k.sys_mmap(&cx, mm, anonymous(BASE, TABLE)).await.expect("free");
        touch(&cx, &k, mm, range(BASE, TABLE), Access::Write).await;
        begun.set(true);
        k.sys_mprotect(&cx, mm, range(BASE, TABLE), Prot::READ)
            .await
            .expect("mapped");
        over.set(true);
    });
    assert_eq!(end, End::Completed);
    assert!(half.get());
    assert_eq!(b.world.audit(), Vec::<String>::new());
}

#[test]
fn entries_that_map_nothing_cost_an_eighth_of_a_line_each() {
    let b = Setup::linux_2_6_27().build();
    let mm = b.mm;
    let end = b.work(move |cx, k| async move {
        let mut took = Vec::new();
        // One present entry in each; the second table has one hole more to pass over.
        for (n, pages) in [(0, 2), (1, 3)] {
            let at = BASE.add_pages(n * TABLE);
            k.sys_mmap(&cx, mm, anonymous(at, pages)).await.expect("free");
            k.access(&cx, mm, at, Access::Write).await.expect("mapped");
            let begin = cx.now();
            k.sys_mprotect(&cx, mm, range(at, pages), Prot::READ)
                .await
                .expect("mapped");
            took.push(cx.now() - begin);
        }
        let line = k.machine.costs.cacheline_touch.get();
        assert_eq!((took[1] - took[0]).get(), line / 8);
    });
    assert_eq!(end, End::Completed);
}
