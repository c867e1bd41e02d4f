//! Faults on pages of a file that a disk must serve.

mod common;

use std::cell::Cell;
use std::rc::Rc;

use common::{BASE, Setup, range, shared_file, touch, wait};
use mm::{Device, DiskSpec, Refused};
use sim::End;
use x86::{Access, Entry};

const PAGES: u64 = 4;

#[test]
fn a_page_that_its_file_lost_while_it_was_read_is_beyond_the_end() {
    let b = Setup::linux_2_6_27().build();
    let mm = b.mm;
    let spec = DiskSpec {
        read_ns: 1_000_000,
        write_ns: 1_000_000,
    };
    b.kernel.set_disk(Device::Files, spec);
    let file = b.kernel.new_file("f", PAGES);
    let (dropped, truncated) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(false)));
    let ready = Rc::clone(&dropped);
    let over = Rc::clone(&truncated);
    b.thread(0, Some(mm), move |cx, k| async move {
        k.sys_mmap(&cx, mm, shared_file(BASE, PAGES, file))
            .await
            .expect("free");
        touch(&cx, &k, mm, range(BASE, PAGES), Access::Read).await;
        k.madvise_dontneed(&cx, mm, range(BASE, PAGES))
            .await
            .expect("mapped");
        k.lru_add_drain_all(&cx).await;
        while k.st().file(file).pages.get(0).is_some() {
            k.shrink_all_memory(&cx, PAGES).await;
        }
        ready.set(true);
        assert_eq!(
            k.access(&cx, mm, BASE, Access::Read).await,
            Err(Refused::BeyondEof)
        );
        assert_eq!(k.metrics().faults_major, 1);
        assert_eq!(k.peek_pte(mm, BASE), Entry::NONE);
        while !over.get() {
            wait(&cx, 1_000).await;
        }
    });
    b.thread(1, None, move |cx, k| async move {
        while !dropped.get() {
            wait(&cx, 1_000).await;
        }
        while k.metrics().faults_major == 0 {
            wait(&cx, 1_000).await;
        }
        k.do_truncate(&cx, file, 0).await;
        truncated.set(true);
    });
    assert_eq!(b.engine.run(), End::Completed);
    assert_eq!(b.world.audit(), Vec::<String>::new());
}
