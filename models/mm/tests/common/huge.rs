//! Worlds with a pool of huge pages.

use std::future::Future;
use std::rc::Rc;

use mm::hugetlb::HPAGE_PAGES;
use mm::{Backing, FileId, Kernel, MapRequest, MmId, Sharing};
use sim::{Cx, End};
use x86::{Access, Va, VaRange};

use super::{Setup, anonymous, range};

/// A mapping of huge pages from the start of a file.
pub fn huge(at: Va, huge_pages: u64, file: FileId, sharing: Sharing) -> MapRequest {
    MapRequest {
        backing: Backing::File(file),
        sharing,
        ..anonymous(at, huge_pages * HPAGE_PAGES)
    }
}

/// The addresses of so many huge pages.
pub fn huge_range(at: Va, huge_pages: u64) -> VaRange {
    range(at, huge_pages * HPAGE_PAGES)
}

/// One address in each huge page.
pub async fn touch_huge(cx: &Cx, k: &Kernel, mm: MmId, r: VaRange, access: Access) {
    for n in 0..r.pages() / HPAGE_PAGES {
        let va = r.start().add_pages(n * HPAGE_PAGES);
        k.access(cx, mm, va, access).await.expect("mapped");
    }
}

/// A kernel with so many huge pages, a file of as many, and a script of the first process on CPU 0 while
/// `cpus` CPUs in all are busy in it.
pub fn with_pool<F: Future<Output = ()> + 'static>(
    setup: Setup,
    huge_pages: u64,
    cpus: u32,
    body: impl FnOnce(Cx, Rc<Kernel>, MmId, FileId) -> F + 'static,
) -> (End, Vec<String>) {
    let b = setup.build();
    b.kernel.add_hugepages(huge_pages).expect("memory");
    let file = b.kernel.new_hugetlb_file("huge", huge_pages * HPAGE_PAGES);
    b.busy(cpus, b.mm);
    let mm = b.mm;
    let end = b.work(move |cx, k| body(cx, k, mm, file));
    (end, b.world.audit())
}

/// [`with_pool`] on one CPU of Linux 2.6.27, where everything ends well.
pub fn solo<F: Future<Output = ()> + 'static>(
    huge_pages: u64,
    body: impl FnOnce(Cx, Rc<Kernel>, MmId, FileId) -> F + 'static,
) {
    let (end, wrong) = with_pool(Setup::linux_2_6_27(), huge_pages, 1, body);
    assert_eq!(end, End::Completed);
    assert_eq!(wrong, Vec::<String>::new());
}
