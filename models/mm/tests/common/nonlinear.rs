//! Worlds with a file of tmpfs, whose mappings can be remapped.

use std::future::Future;
use std::rc::Rc;

use mm::{FileId, FileKind, Kernel, MmId, NonPresent, Prefault, Prot, RemapRequest};
use sim::{Cx, End};
use x86::{Access, Entry, Pgoff, Va};

use super::{BASE, Bench, Setup, range, shared_file, touch};

/// Pages of the file and of the mapping in most tests.
pub const PAGES: u64 = 32;

/// A kernel on `cpus` CPUs with a file of tmpfs.
pub fn tmpfs(cpus: u32, pages: u64) -> (Bench, FileId) {
    let mut setup = Setup::linux_2_6_27();
    setup.cpus = cpus;
    let b = setup.build();
    let file = b.kernel.new_file_of(FileKind::Tmpfs, "f", pages);
    (b, file)
}

/// Runs the body on the first of `cpus` CPUs, in an address space that maps all of a file of tmpfs.
pub fn solo_of<F: Future<Output = ()> + 'static>(
    cpus: u32,
    pages: u64,
    body: impl FnOnce(Cx, Rc<Kernel>, MmId, FileId) -> F + 'static,
) {
    let (b, file) = tmpfs(cpus, pages);
    let mm = b.mm;
    let end = b.work(move |cx, k| async move {
        k.sys_mmap(&cx, mm, shared_file(BASE, pages, file))
            .await
            .expect("free");
        body(cx, k, mm, file).await;
    });
    assert_eq!(end, End::Completed);
    assert_eq!(b.world.audit(), Vec::<String>::new());
}

/// [`solo_of`] one CPU and [`PAGES`].
pub fn solo<F: Future<Output = ()> + 'static>(
    body: impl FnOnce(Cx, Rc<Kernel>, MmId, FileId) -> F + 'static,
) {
    solo_of(1, PAGES, body);
}

/// A request for some pages of the mapping, with the rights left alone.
pub fn request(at: Va, pages: u64, pgoff: u64, prefault: Prefault) -> RemapRequest {
    RemapRequest {
        range: range(at, pages),
        prot: Prot::NONE,
        pgoff: Pgoff::new(pgoff),
        prefault,
    }
}

/// remap_file_pages of something that can be remapped.
pub async fn remap(cx: &Cx, k: &Kernel, mm: MmId, at: Va, pages: u64, pgoff: u64, prefault: Prefault) {
    let done = k
        .sys_remap_file_pages(cx, mm, request(at, pages, pgoff, prefault))
        .await;
    assert_eq!(done, Ok(()));
}

/// What an entry says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Says {
    Nothing,
    /// This page of the file belongs there.
    File(u64),
    /// This page of the file is there.
    Page(u64),
}

/// What the entry of an address says.
pub fn says(k: &Kernel, mm: MmId, at: Va) -> Says {
    let entry = k.peek_pte(mm, at);
    match NonPresent::of(entry) {
        Some(NonPresent::File(index)) => Says::File(index.get()),
        Some(other) => panic!("{other:?}"),
        None if entry == Entry::NONE => Says::Nothing,
        None => Says::Page(k.frames().get(entry.pfn()).index().get()),
    }
}

/// What the entries of a range say.
pub fn all(k: &Kernel, mm: MmId, at: Va, pages: u64) -> Vec<Says> {
    (0..pages).map(|page| says(k, mm, at.add_pages(page))).collect()
}

/// Maps a file of tmpfs with its first two pages exchanged, and reads all of it.
pub async fn exchanged(cx: &Cx, k: &Kernel, mm: MmId, file: FileId, pages: u64) {
    k.sys_mmap(cx, mm, shared_file(BASE, pages, file))
        .await
        .expect("free");
    for page in [0, 1] {
        remap(cx, k, mm, BASE.add_pages(page), 1, 1 - page, Prefault::Yes).await;
    }
    touch(cx, k, mm, range(BASE, pages), Access::Read).await;
    k.lru_add_drain_all(cx).await;
}
