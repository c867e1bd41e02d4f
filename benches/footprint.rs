//! How much memory does a large simulated address space take on the host, and how long does it take?
//!
//! An anonymous region is faulted in page by page, forked, a quarter of it written by the child, and
//! unmapped by both. The peak of resident memory is set against the most page-table entries that mapped a
//! page at a time: two for each page, after the fork. Linux itself spends 72 to 81 bytes a page of a
//! process (64 for `struct page`, 8 for the entry, more with memory control groups).
//!
//! Then 1 TiB is mapped, one page of each GiB touched, and all of it unmapped: what that takes depends on
//! the page tables that exist, not on the pages that do not.
//!
//! `cargo bench -p mmusim-benches --bench footprint -- 64` takes 64 GiB; without a number it is 1 GiB.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use bench_world::{Stopwatch, anonymous, in_world, in_world_of};
use mm::{Kernel, MapRequest, MmId, Now};
use sim::Cx;
use x86::{Access, Machine, Va, VaRange, Vpn};

const PAGES_PER_GIB: u64 = 1 << 18;
/// One page in so many is written by the child.
const WRITTEN_BY_CHILD: u64 = 4;

/// Resident memory at its peak so far, in bytes.
fn peak_resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|l| l.starts_with("VmHWM:")).expect("VmHWM");
    let kib: u64 = line
        .split_whitespace()
        .nth(1)
        .and_then(|n| n.parse().ok())
        .expect("a number of KiB");
    kib << 10
}

async fn write_all(cx: &Cx, k: &Kernel, mm: MmId, pages: impl Iterator<Item = Vpn>) {
    for vpn in pages {
        let va = vpn.va();
        match k.access_now(cx, va, Access::Write) {
            Now::Done => {}
            begun => k
                .finish_access(cx, mm, va, Access::Write, begun)
                .await
                .expect("mapped"),
        }
    }
}

/// Steps with their host time and the number of pages each handled.
type Steps = Rc<RefCell<Vec<(&'static str, Duration, u64)>>>;

async fn step(steps: &Steps, name: &'static str, pages: u64, work: impl Future<Output = ()>) {
    let watch = Stopwatch::default();
    watch.time(work).await;
    steps.borrow_mut().push((name, watch.total(), pages));
}

async fn large_process(cx: Cx, k: Rc<Kernel>, mm: MmId, range: VaRange, steps: Steps) {
    let pages = range.pages();
    let (request, _) = anonymous(pages);
    k.sys_mmap(&cx, mm, request).await.expect("free");
    step(&steps, "fault", pages, write_all(&cx, &k, mm, range.vpns())).await;
    let child = Rc::new(RefCell::new(None));
    step(&steps, "fork", pages, async {
        *child.borrow_mut() = Some(k.sys_fork(&cx, mm, "child".into()).await);
    })
    .await;
    let child = child.borrow().expect("forked");
    let copied = range.vpns().step_by(WRITTEN_BY_CHILD as usize);
    k.activate_mm(&cx, child);
    step(
        &steps,
        "copy on write",
        pages / WRITTEN_BY_CHILD,
        write_all(&cx, &k, child, copied),
    )
    .await;
    k.activate_mm(&cx, mm);
    step(&steps, "child exits", pages, k.mmput(&cx, child)).await;
    step(&steps, "munmap", pages, async {
        k.sys_munmap(&cx, mm, range).await.expect("mapped");
    })
    .await;
}

/// Where 1 TiB fits into the user half.
const SPARSE_BASE: Va = Va::new(0x1000_0000_0000);
/// GiB of the sparse mapping, each with one page in it.
const SPARSE_GIB: u64 = 1024;

async fn sparse_process(cx: Cx, k: Rc<Kernel>, mm: MmId, steps: Steps) {
    let (request, _) = anonymous(SPARSE_GIB * PAGES_PER_GIB);
    let request = MapRequest {
        at: Some(SPARSE_BASE),
        ..request
    };
    let range = VaRange::from_pages(SPARSE_BASE, request.pages).expect("not empty");
    k.sys_mmap(&cx, mm, request).await.expect("free");
    let touched = (0..SPARSE_GIB).map(|gib| range.start().add_pages(gib * PAGES_PER_GIB).vpn());
    step(
        &steps,
        "sparse fault",
        SPARSE_GIB,
        write_all(&cx, &k, mm, touched),
    )
    .await;
    step(&steps, "sparse munmap", SPARSE_GIB, async {
        k.sys_munmap(&cx, mm, range).await.expect("mapped");
    })
    .await;
}

#[expect(clippy::print_stdout, reason = "a bench reports to whoever runs it")]
fn main() {
    let gib: u64 = std::env::args()
        .skip(1)
        .find_map(|arg| arg.parse().ok())
        .unwrap_or(1);
    let pages = gib * PAGES_PER_GIB;
    let (_, range) = anonymous(pages);
    let mut machine = Machine::preset("harpertown-2008").expect("a preset");
    machine.memory_pages = 2 * pages;
    let steps = Steps::default();
    let (told, told_too) = (Rc::clone(&steps), Rc::clone(&steps));
    let before = peak_resident();
    in_world_of(machine, move |cx, k, mm, _| large_process(cx, k, mm, range, told));
    let peak = peak_resident() - before;
    in_world(move |cx, k, mm, _| sparse_process(cx, k, mm, told_too));
    println!("{gib} GiB, {pages} pages, {} entries at the peak", 2 * pages);
    for (name, time, pages) in steps.borrow().iter() {
        let ns = time.as_nanos() as f64 / *pages as f64;
        println!("{name:14} {:9.3} s {ns:8.1} ns a page", time.as_secs_f64());
    }
    println!(
        "peak resident {} MiB, {:.1} bytes an entry that maps a page",
        peak >> 20,
        peak as f64 / (2 * pages) as f64
    );
}
