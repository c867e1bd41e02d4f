//! What does a simulated page fault, a zapped page and a forked page cost on the host?

use std::time::Duration;

use bench_world::{anonymous, in_world};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use mm::Now;
use x86::Access;

/// Pages handled in one measured stretch: 64 MiB, more than any cache of the host holds of frames
/// and page tables together.
const PAGES: u64 = 16_384;

#[derive(Clone, Copy)]
enum Question {
    Fault,
    Munmap,
    Dontneed,
    Fork,
}

fn ask(question: Question, rounds: u64) -> Duration {
    in_world(move |cx, k, mm, watch| async move {
        let (request, range) = anonymous(PAGES);
        for _ in 0..rounds {
            k.sys_mmap(&cx, mm, request).await.expect("free");
            let touch = async {
                for vpn in range.vpns() {
                    let va = vpn.va();
                    match k.access_now(&cx, va, Access::Write) {
                        Now::Done => {}
                        begun => k
                            .finish_access(&cx, mm, va, Access::Write, begun)
                            .await
                            .expect("mapped"),
                    }
                }
            };
            if matches!(question, Question::Fault) {
                watch.time(touch).await;
            } else {
                touch.await;
            }
            match question {
                Question::Fault => k.sys_munmap(&cx, mm, range).await.expect("mapped"),
                Question::Munmap => watch.time(k.sys_munmap(&cx, mm, range)).await.expect("mapped"),
                Question::Dontneed => {
                    watch
                        .time(k.madvise_dontneed(&cx, mm, range))
                        .await
                        .expect("mapped");
                    k.sys_munmap(&cx, mm, range).await.expect("mapped");
                }
                Question::Fork => {
                    let mut child = None;
                    watch
                        .time(async { child = Some(k.sys_fork(&cx, mm, "child".into()).await) })
                        .await;
                    k.mmput(&cx, child.expect("forked")).await;
                    k.sys_munmap(&cx, mm, range).await.expect("mapped");
                }
            }
        }
    })
}

fn paths(c: &mut Criterion) {
    let mut group = c.benchmark_group("a page");
    group.throughput(Throughput::Elements(PAGES)).sample_size(20);
    for (name, question) in [
        ("fault", Question::Fault),
        ("munmap", Question::Munmap),
        ("madvise", Question::Dontneed),
        ("fork", Question::Fork),
    ] {
        group.bench_function(name, |b| b.iter_custom(|rounds| ask(question, rounds)));
    }
    group.finish();
}

criterion_group!(benches, paths);
criterion_main!(benches);
