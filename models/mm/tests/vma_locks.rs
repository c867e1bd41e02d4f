//! In which order the locks of a mapping's reverse maps are given back.

mod common;

use std::cell::RefCell;
use std::rc::Rc;

use common::{BASE, Setup, range, shared_file, touch, wait};
use mm::{MapRequest, Sharing};
use sim::End;
use x86::Access;

#[test]
fn the_lock_of_the_anon_vma_goes_before_that_of_the_file() {
    let b = Setup::linux_2_6_27().build();
    let mm = b.mm;
    let file = b.kernel.new_file("f", 4);
    let locks = Rc::new(RefCell::new(None));
    let order = Rc::new(RefCell::new(Vec::new()));
    // The first thread holds anon_vma->lock until everybody is where they should be.
    let ready = Rc::clone(&locks);
    b.thread(0, Some(mm), move |cx, k| async move {
        let private = MapRequest {
            sharing: Sharing::Private,
            ..shared_file(BASE, 4, file)
        };
        k.sys_mmap(&cx, mm, private).await.expect("free");
        touch(&cx, &k, mm, range(BASE, 4), Access::Write).await;
        let anon = {
            let mut st = k.st();
            let vma = st.mm_mut(mm).vmas.find(BASE).expect("mapped");
            st.anon_vma(st.vma(vma).anon_vma.expect("touched")).lock
        };
        let held = cx.lock(anon).await;
        *ready.borrow_mut() = Some((k.st().file(file).i_mmap_lock, anon));
        wait(&cx, 1_000_000).await;
        drop(held);
    });
    // The second one splits the mapping: it holds i_mmap_lock and waits for the other one.
    let ready = Rc::clone(&locks);
    b.thread(1, Some(mm), move |cx, k| async move {
        while ready.borrow().is_none() {
            wait(&cx, 100).await;
        }
        k.sys_munmap(&cx, mm, range(BASE, 1)).await.expect("mapped");
    });
    for (cpu, name) in [(2, "i_mmap"), (3, "anon_vma")] {
        let (ready, order) = (Rc::clone(&locks), Rc::clone(&order));
        b.thread(cpu, None, move |cx, _| async move {
            while ready.borrow().is_none() {
                wait(&cx, 100).await;
            }
            wait(&cx, 500_000).await;
            let (i_mmap, anon) = ready.borrow().expect("set");
            let _held = cx.lock(if cpu == 2 { i_mmap } else { anon }).await;
            order.borrow_mut().push(name);
        });
    }
    assert_eq!(b.engine.run(), End::Completed);
    assert_eq!(*order.borrow(), ["anon_vma", "i_mmap"]);
    assert_eq!(b.world.audit(), Vec::<String>::new());
}
