//! In which order zap_pte_range does things to an entry and its page.

mod common;

use std::cell::Cell;
use std::rc::Rc;

use common::{BASE, Setup, anonymous, shared_file, wait};
use mm::Kernel;
use mm::MmId;
use mm::frame::PageFlags;
use mm::notifier::{CallbackFuture, Design, MmuKind, Subscriber};
use sim::{Cx, End};
use x86::{Access, Entry, Pfn, Va, VaRange};

#[test]
fn an_entry_is_cleared_before_its_page_becomes_dirty() {
    let b = Setup::linux_2_6_27().build();
    let mm = b.mm;
    let file = b.kernel.new_file("f", 1);
    let held = Rc::new(Cell::new(false));
    let ready = Rc::clone(&held);
    b.thread(1, None, move |cx, k| async move {
        while k.st().file(file).pages.get(0).is_none() || k.peek_pte(mm, BASE).is_none() {
            wait(&cx, 1_000).await;
        }
        wait(&cx, 10_000).await;
        let tree_lock = k.st().file(file).tree_lock;
        let _irqs = cx.irq_disable();
        let _tree = cx.lock(tree_lock).await;
        held.set(true);
        wait(&cx, 100_000).await;
        assert_eq!(k.peek_pte(mm, BASE), Entry::NONE, "the zap waits for tree_lock");
    });
    let end = b.work(move |cx, k| async move {
        k.sys_mmap(&cx, mm, shared_file(BASE, 1, file))
            .await
            .expect("free");
        k.access(&cx, mm, BASE, Access::Write).await.expect("mapped");
        let pfn = k.peek_pte(mm, BASE).pfn();
        k.frames().get_mut(pfn).flags.clear(PageFlags::DIRTY);
        while !ready.get() {
            wait(&cx, 1_000).await;
        }
        k.madvise_dontneed(&cx, mm, common::range(BASE, 1))
            .await
            .expect("mapped");
        assert!(k.frames().get(pfn).flags.has(PageFlags::DIRTY));
    });
    assert_eq!(end, End::Completed);
    assert_eq!(b.world.audit(), Vec::<String>::new());
}

/// Writes down how often the page is mapped when it is told of it.
struct Counter {
    kernel: Rc<Kernel>,
    page: Pfn,
    mapcount: Cell<Option<i32>>,
}

fn nothing() -> CallbackFuture<'static> {
    Box::pin(async {})
}

impl Subscriber for Counter {
    fn name(&self) -> Rc<str> {
        "counter".into()
    }

    fn kind(&self) -> MmuKind {
        MmuKind::Device
    }

    fn invalidate_page<'a>(&'a self, _: &'a Cx, _: Va) -> CallbackFuture<'a> {
        let mapcount = self.kernel.frames().get(self.page).mapcount;
        self.mapcount.set(Some(mapcount as i32));
        nothing()
    }

    fn invalidate_range_start<'a>(&'a self, _: &'a Cx, _: VaRange) -> CallbackFuture<'a> {
        nothing()
    }

    fn invalidate_range_end<'a>(&'a self, _: &'a Cx, _: VaRange) -> CallbackFuture<'a> {
        nothing()
    }

    fn invalidate_pages<'a>(&'a self, _: &'a Cx, _: VaRange) -> CallbackFuture<'a> {
        nothing()
    }

    fn release<'a>(&'a self, _: &'a Cx) -> CallbackFuture<'a> {
        nothing()
    }

    fn reaches(&self, _: Pfn) -> bool {
        false
    }
}

#[test]
fn v1_tells_of_a_page_right_after_its_entry_is_cleared() {
    let b = Setup::linux_2_6_27().design(Design::V1).build();
    let mm: MmId = b.mm;
    let end = b.work(move |cx, k| async move {
        k.sys_mmap(&cx, mm, anonymous(BASE, 1)).await.expect("free");
        k.access(&cx, mm, BASE, Access::Write).await.expect("mapped");
        let counter = Rc::new(Counter {
            kernel: Rc::clone(&k),
            page: k.peek_pte(mm, BASE).pfn(),
            mapcount: Cell::new(None),
        });
        k.mmu_notifier_register(&cx, mm, Rc::clone(&counter) as Rc<dyn Subscriber>)
            .await;
        k.madvise_dontneed(&cx, mm, common::range(BASE, 1))
            .await
            .expect("mapped");
        assert_eq!(counter.mapcount.get(), Some(1));
    });
    assert_eq!(end, End::Completed);
    assert_eq!(b.world.audit(), Vec::<String>::new());
}
