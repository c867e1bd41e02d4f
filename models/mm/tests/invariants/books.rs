//! What is counted again at the end of a run: F5, F6, F13, F18, F23, F24.

use mm::frame::PageFlags;
use mm::i_mmap::IntervalIndex as _;
use mm::invariants::FREED_IN_USE;
use mm::{Kernel, MmId, VmaId};
use sim::{CpuId, End};
use x86::{Access, Pfn, VaRange};

use crate::common::{BASE, Bench, Setup, anonymous, range, shared_file, touch};
use crate::{broken, in_audit};

const PAGES: u64 = 4;

/// A process with anonymous memory at [`BASE`] and a file mapping right behind it.
fn quiet() -> (Bench, mm::FileId) {
    let b = Setup::linux_2_6_27().build();
    let mm = b.mm;
    let file = b.kernel.new_file("file", PAGES);
    let end = b.work(move |cx, k| async move {
        let behind = BASE.add_pages(PAGES);
        k.sys_mmap(&cx, mm, anonymous(BASE, PAGES)).await.expect("free");
        k.sys_mmap(&cx, mm, shared_file(behind, PAGES, file))
            .await
            .expect("free");
        touch(&cx, &k, mm, range(BASE, 2 * PAGES), Access::Write).await;
    });
    assert_eq!(end, End::Completed);
    assert_eq!(b.world.audit(), Vec::<String>::new());
    (b, file)
}

/// What a page that goes back is still said to be.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Still {
    Nothing,
    Mapped,
    Cached,
}

fn freed(still: Still) -> End {
    let b = Setup::linux_2_6_27().build();
    let mm = b.mm;
    b.work(move |cx, k| async move {
        k.sys_mmap(&cx, mm, anonymous(BASE, 1)).await.expect("free");
        k.access(&cx, mm, BASE, Access::Write).await.expect("mapped");
        let pfn = first_page(&k, mm);
        match still {
            Still::Nothing => {}
            Still::Mapped => k.frames().get_mut(pfn).mapcount += 1,
            Still::Cached => k.frames().get_mut(pfn).flags.set(PageFlags::CACHED),
        }
        k.sys_munmap(&cx, mm, range(BASE, 1)).await.expect("mapped");
    })
}

#[test]
fn a_page_goes_back_unmapped_and_in_no_cache() {
    for (still, why) in [
        (Still::Mapped, "1 entries map it"),
        (Still::Cached, "a cache has it"),
    ] {
        let v = broken(freed(still), "F6", FREED_IN_USE);
        assert!(v.summary.contains(why), "{still:?}: {}", v.summary);
    }
    assert_eq!(freed(Still::Nothing), End::Completed);
}

fn first_page(k: &Kernel, mm: MmId) -> Pfn {
    k.peek_pte(mm, BASE).pfn()
}

fn vmas(k: &Kernel, mm: MmId) -> Vec<VmaId> {
    k.st().mm(mm).vmas.iter().collect()
}

#[test]
fn a_map_count_that_no_entry_stands_for_is_found() {
    let (b, _) = quiet();
    let pfn = first_page(&b.kernel, b.mm);
    b.kernel.frames().get_mut(pfn).mapcount += 1;
    let lines = in_audit(b.world.audit(), "F5");
    assert!(lines[0].contains("mapcount 2 but 1 entries"), "{lines:?}");
}

#[test]
fn a_reference_that_nobody_holds_is_found() {
    let (b, _) = quiet();
    let pfn = first_page(&b.kernel, b.mm);
    b.kernel.frames().get_page(pfn);
    assert_eq!(in_audit(b.world.audit(), "F6").len(), 1);
}

#[test]
fn a_linked_vma_that_i_mmap_does_not_know_is_found() {
    let (b, file) = quiet();
    let vma = vmas(&b.kernel, b.mm)[1];
    let removed = b.kernel.st().file_mut(file).i_mmap.remove(0, PAGES - 1, vma);
    assert!(removed.is_ok());
    let lines = in_audit(b.world.audit(), "F13");
    assert!(lines[0].contains("holds 0 VMAs, 1 are linked"), "{lines:?}");
}

#[test]
fn a_cpu_with_translations_outside_the_mask_is_found() {
    let (b, _) = quiet();
    b.kernel.st().mm_mut(b.mm).cpu_vm_mask.remove(CpuId::new(0));
    assert_eq!(in_audit(b.world.audit(), "F18").len(), 1);
}

#[test]
fn an_rss_counter_that_is_off_by_one_is_found() {
    let (b, _) = quiet();
    b.kernel.st().mm_mut(b.mm).anon_rss -= 1;
    let lines = in_audit(b.world.audit(), "F23");
    assert!(lines[0].contains("3 anon, 4 file, but 4 and 4"), "{lines:?}");
}

#[test]
fn vmas_that_overlap_or_lie_elsewhere_are_found() {
    let (b, _) = quiet();
    let first = vmas(&b.kernel, b.mm)[0];
    let longer = VaRange::from_pages(BASE, PAGES + 1).expect("not empty");
    b.kernel.st().vma_mut(first).range = longer;
    let lines = in_audit(b.world.audit(), "F24");
    assert!(lines.iter().any(|l| l.contains("overlap")), "{lines:?}");
    assert!(lines.iter().any(|l| l.contains("where it lies")), "{lines:?}");
}
