//! What a gather's flushes free, and where they happen.

mod common;

use std::rc::Rc;

use common::{BASE, Setup, anonymous, far_neighbours, range, touch};
use mm::notifier::{CallbackFuture, Design, MmuKind, Subscriber};
use mm::{Kernel, MmId};
use sim::{Cx, End};
use x86::{Access, Pfn, Va, VaRange};

/// A subscriber that touches a page when it is told of a bracket's start.
struct Toucher {
    kernel: Rc<Kernel>,
    mm: MmId,
    at: Va,
}

fn nothing() -> CallbackFuture<'static> {
    Box::pin(async {})
}

impl Subscriber for Toucher {
    fn name(&self) -> Rc<str> {
        "toucher".into()
    }

    fn kind(&self) -> MmuKind {
        MmuKind::Device
    }

    fn invalidate_page<'a>(&'a self, _: &'a Cx, _: Va) -> CallbackFuture<'a> {
        nothing()
    }

    fn invalidate_range_start<'a>(&'a self, cx: &'a Cx, _: VaRange) -> CallbackFuture<'a> {
        Box::pin(async move {
            // mmap_sem is held by whoever unmaps.
            let page = self
                .kernel
                .get_user_page(cx, self.mm, self.at, Access::Write)
                .await;
            self.kernel.put_page(cx, page.expect("mapped").pfn).await;
        })
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
fn a_page_that_waits_in_this_cpus_pagevec_is_free_after_the_flush() {
    let b = Setup::linux_2_6_27().design(Design::V9).build();
    let mm = b.mm;
    let end = b.work(move |cx, k| async move {
        k.sys_mmap(&cx, mm, anonymous(BASE, 8)).await.expect("free");
        touch(&cx, &k, mm, range(BASE, 7), Access::Write).await;
        // The last page comes into being after the zap has drained the pagevecs.
        let toucher = Toucher {
            kernel: Rc::clone(&k),
            mm,
            at: BASE.add_pages(7),
        };
        let id = k.mmu_notifier_register(&cx, mm, Rc::new(toucher)).await;
        let before = k.metrics().pages_freed;
        k.madvise_dontneed(&cx, mm, range(BASE, 8)).await.expect("mapped");
        assert_eq!(k.metrics().pages_zapped, 8);
        assert_eq!(k.metrics().pages_freed - before, 8);
        k.mmu_notifier_unregister(&cx, id).await;
    });
    assert_eq!(end, End::Completed);
    assert_eq!(b.world.audit(), Vec::<String>::new());
}

#[test]
fn a_flush_that_a_page_table_makes_necessary_is_not_under_a_pte_lock() {
    // 504 pages and their two tables are 506; so are 505 and the first of two.
    for (pages, of_tables, last) in [(504, 1, 0), (505, 1, 1), (503, 0, 1)] {
        let b = Setup::linux_2_6_27().build();
        let mm = b.mm;
        let end = b.work(move |cx, k| async move {
            far_neighbours(&cx, &k, mm).await;
            k.sys_mmap(&cx, mm, anonymous(BASE, pages)).await.expect("free");
            touch(&cx, &k, mm, range(BASE, pages), Access::Write).await;
            let before = k.metrics();
            k.sys_munmap(&cx, mm, range(BASE, pages)).await.expect("mapped");
            let m = k.metrics();
            assert_eq!(m.tables_freed - before.tables_freed, 2, "{pages}");
            assert_eq!(m.flush_under_ptl - before.flush_under_ptl, 0, "{pages}");
            assert_eq!(m.flush_of_tables - before.flush_of_tables, of_tables, "{pages}");
            assert_eq!(m.flush_final - before.flush_final, last, "{pages}");
        });
        assert_eq!(end, End::Completed);
        assert_eq!(b.world.audit(), Vec::<String>::new());
    }
}
