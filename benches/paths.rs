//! What does a page cost the host on each kernel path?

use std::rc::Rc;
use std::time::Duration;

use bench_world::{BASE, Stopwatch, anonymous, in_world};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use mm::{
    Backing, FileId, FileKind, Kernel, MapRequest, MmId, Now, Prefault, Prot, RemapRequest, Sharing, Which,
};
use sim::Cx;
use x86::{Access, Pgoff, Va, VaRange};

/// Pages handled in one measured stretch: 64 MiB, more than any cache of the host holds of frames
/// and page tables together.
const PAGES: u64 = 16_384;
/// Where mremap moves them.
const ELSEWHERE: Va = Va::new(0x7f80_0000_0000);

/// A path, and what of it is measured.
#[derive(Clone, Copy, PartialEq)]
enum Question {
    /// First touch of anonymous memory.
    Fault,
    /// First touch of a file that is mapped privately: pages come into the page cache.
    FileFault,
    /// A store to pages that a child shares.
    CopyOnWrite,
    Munmap,
    Dontneed,
    Fork,
    Mprotect,
    Mremap,
    /// A file is truncated to nothing while it is mapped.
    Truncate,
    /// get_user_pages over pages that are present.
    GetUserPages,
    Mlock,
    /// remap_file_pages, a page a call.
    Remap,
    /// fsync of a file all of whose mapped pages were written.
    Fsync,
    MovePages,
    /// Reclaim of anonymous memory, to the swap device.
    SwapOut,
    /// Touching what was swapped out.
    SwapIn,
}

const QUESTIONS: [(&str, Question); 16] = [
    ("fault", Question::Fault),
    ("file fault", Question::FileFault),
    ("copy on write", Question::CopyOnWrite),
    ("munmap", Question::Munmap),
    ("madvise", Question::Dontneed),
    ("fork", Question::Fork),
    ("mprotect", Question::Mprotect),
    ("mremap", Question::Mremap),
    ("truncate", Question::Truncate),
    ("get_user_pages", Question::GetUserPages),
    ("mlock", Question::Mlock),
    ("remap_file_pages", Question::Remap),
    ("fsync", Question::Fsync),
    ("move_pages", Question::MovePages),
    ("swap out", Question::SwapOut),
    ("swap in", Question::SwapIn),
];

impl Question {
    fn backing(self, k: &Kernel) -> Option<FileId> {
        let kind = match self {
            Question::FileFault | Question::Truncate | Question::Fsync => FileKind::Disk,
            Question::Remap => FileKind::Tmpfs,
            _ => return None,
        };
        Some(k.new_file_of(kind, "file", PAGES))
    }

    /// What must be there before the stretch begins.
    fn is_touched_before(self) -> bool {
        !matches!(self, Question::Fault | Question::FileFault)
    }
}

async fn touch(cx: &Cx, k: &Kernel, mm: MmId, range: VaRange, access: Access) {
    for vpn in range.vpns() {
        let va = vpn.va();
        match k.access_now(cx, va, access) {
            Now::Done => {}
            begun => k.finish_access(cx, mm, va, access, begun).await.expect("mapped"),
        }
    }
}

/// The measured stretch. Returns where the pages are afterwards.
async fn run(
    cx: &Cx,
    k: &Rc<Kernel>,
    mm: MmId,
    range: VaRange,
    question: Question,
    file: Option<FileId>,
) -> VaRange {
    let file = || file.expect("a mapping of a file");
    match question {
        Question::Fault | Question::CopyOnWrite | Question::SwapIn => {
            touch(cx, k, mm, range, Access::Write).await
        }
        Question::FileFault => touch(cx, k, mm, range, Access::Read).await,
        Question::Munmap => k.sys_munmap(cx, mm, range).await.expect("mapped"),
        Question::Dontneed => k.madvise_dontneed(cx, mm, range).await.expect("mapped"),
        Question::Fork => {
            k.sys_fork(cx, mm, "child".into()).await;
        }
        Question::Mprotect => k.sys_mprotect(cx, mm, range, Prot::READ).await.expect("mapped"),
        Question::Mremap => {
            return k
                .sys_mremap(cx, mm, range, PAGES, Some(ELSEWHERE))
                .await
                .expect("free");
        }
        Question::Truncate => k.do_truncate(cx, file(), 0).await,
        Question::GetUserPages => {
            for vpn in range.vpns() {
                let page = k.get_user_page(cx, mm, vpn.va(), Access::Read).await;
                k.put_page(cx, page.expect("mapped").pfn).await;
            }
        }
        Question::Mlock => k.sys_mlock(cx, mm, range).await.expect("mapped"),
        Question::Remap => {
            for page in 0..PAGES {
                let request = RemapRequest {
                    range: VaRange::from_pages(range.start().add_pages(page), 1).expect("a page"),
                    prot: Prot::NONE,
                    pgoff: Pgoff::new(PAGES - 1 - page),
                    prefault: Prefault::No,
                };
                k.sys_remap_file_pages(cx, mm, request).await.expect("tmpfs");
            }
        }
        Question::Fsync => k.sys_fsync(cx, file()).await,
        Question::MovePages => {
            k.sys_move_pages(cx, mm, range, Which::All).await;
        }
        Question::SwapOut => {
            k.shrink_all_memory(cx, PAGES).await;
        }
    }
    range
}

async fn round(cx: &Cx, k: &Rc<Kernel>, mm: MmId, question: Question, watch: &Stopwatch) {
    let file = question.backing(k);
    let (request, range) = anonymous(PAGES);
    let request = file.map_or(request, |file| MapRequest {
        backing: Backing::File(file),
        sharing: Sharing::Shared,
        ..request
    });
    k.sys_mmap(cx, mm, request).await.expect("free");
    if question.is_touched_before() {
        touch(cx, k, mm, range, Access::Write).await;
    }
    k.lru_add_drain_all(cx).await;
    let mut child = None;
    match question {
        Question::CopyOnWrite => child = Some(k.sys_fork(cx, mm, "child".into()).await),
        Question::SwapIn => {
            k.shrink_all_memory(cx, PAGES).await;
        }
        _ => {}
    }
    let range = watch.time(run(cx, k, mm, range, question, file)).await;
    if let Some(child) = child {
        k.mmput(cx, child).await;
    }
    if question != Question::Munmap {
        k.sys_munmap(cx, mm, range).await.expect("mapped");
    }
    if let Some(file) = file {
        k.do_truncate(cx, file, 0).await;
    }
}

fn ask(question: Question, rounds: u64) -> Duration {
    in_world(move |cx, k, mm, watch| async move {
        assert_eq!(anonymous(PAGES).1.start(), BASE);
        k.set_swap(2 * PAGES as u32);
        for _ in 0..rounds {
            round(&cx, &k, mm, question, &watch).await;
        }
    })
}

fn paths(c: &mut Criterion) {
    let mut group = c.benchmark_group("a page");
    group.throughput(Throughput::Elements(PAGES)).sample_size(20);
    for (name, question) in QUESTIONS {
        group.bench_function(name, |b| b.iter_custom(|rounds| ask(question, rounds)));
    }
    group.finish();
}

criterion_group!(benches, paths);
criterion_main!(benches);
