//! What a thread waits for when it leaves its address space.

mod common;

use std::cell::Cell;
use std::rc::Rc;

use common::{Setup, wait};
use sim::End;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Leaving {
    Exit,
    Exec,
}

#[test]
fn a_thread_that_leaves_its_address_space_waits_for_whoever_changes_it() {
    for leaving in [Leaving::Exit, Leaving::Exec] {
        let b = Setup::linux_2_6_27().build();
        let mm = b.mm;
        b.kernel.mmget(mm);
        let changing = Rc::new(Cell::new(false));
        let held = Rc::clone(&changing);
        b.thread(1, Some(mm), move |cx, k| async move {
            let sem = cx.lock(k.mmap_sem(mm)).await;
            held.set(true);
            wait(&cx, 1_000_000).await;
            held.set(false);
            drop(sem);
            k.exit_mm(&cx, mm).await;
        });
        let end = b.work(move |cx, k| async move {
            while !changing.get() {
                wait(&cx, 100).await;
            }
            match leaving {
                Leaving::Exit => k.exit_mm(&cx, mm).await,
                Leaving::Exec => {
                    let new = k.exec_mmap(&cx, mm, "new".into()).await;
                    assert!(!changing.get(), "mmap_sem was free");
                    k.exit_mm(&cx, new).await;
                }
            }
            assert!(!changing.get(), "mmap_sem was free");
        });
        assert_eq!(end, End::Completed, "{leaving:?}");
        assert_eq!(b.world.audit(), Vec::<String>::new(), "{leaving:?}");
    }
}
