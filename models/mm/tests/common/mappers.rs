//! Processes that map one file, each on a CPU of its own.

use std::cell::Cell;
use std::future::Future;
use std::rc::Rc;

use mm::{FileId, Kernel, MmId};
use sim::{Cx, End};
use x86::Access;

use super::{BASE, Bench, range, shared_file, touch, wait};

/// Lets `m` processes map the file and access its first `pages` pages, each on a CPU of its own, and keeps
/// them busy until the work, which then starts, is done.
pub fn with_mappers<F: Future<Output = ()> + 'static>(
    b: &Bench,
    m: u32,
    pages: u64,
    file: FileId,
    access: Access,
    body: impl FnOnce(Cx, Rc<Kernel>, Vec<MmId>) -> F + 'static,
) {
    let (ready, stop) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(false)));
    let mut mms = Vec::new();
    for cpu in 1..=m {
        let mm = b.kernel.new_mm("mapper".into());
        mms.push(mm);
        let (ready, stop) = (Rc::clone(&ready), Rc::clone(&stop));
        b.thread(cpu, Some(mm), move |cx, k| async move {
            k.sys_mmap(&cx, mm, shared_file(BASE, pages, file))
                .await
                .expect("free");
            touch(&cx, &k, mm, range(BASE, pages), access).await;
            ready.set(ready.get() + 1);
            while !stop.get() {
                wait(&cx, 2_000).await;
            }
        });
    }
    let end = b.work(move |cx, k| async move {
        while ready.get() < m {
            wait(&cx, 2_000).await;
        }
        k.start_measuring();
        body(cx.clone(), k, mms).await;
        stop.set(true);
    });
    assert_eq!(end, End::Completed);
    assert_eq!(b.world.audit(), Vec::<String>::new());
}
