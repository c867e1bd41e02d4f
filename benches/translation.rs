//! What does a memory access cost on the host: TLB hit, second-level hit, miss with a walk?

use std::time::Duration;

use bench_world::{anonymous, in_world};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use mm::Now;
use x86::Access;

/// Accesses in one measured stretch.
const ACCESSES: u64 = 1 << 16;

/// `span` pages are accessed round and round.
fn ask(span: u64, rounds: u64) -> Duration {
    in_world(move |cx, k, mm, watch| async move {
        let (request, range) = anonymous(span);
        k.sys_mmap(&cx, mm, request).await.expect("free");
        for vpn in range.vpns() {
            k.access(&cx, mm, vpn.va(), Access::Write).await.expect("mapped");
        }
        for _ in 0..rounds {
            watch
                .time(async {
                    for n in 0..ACCESSES {
                        // `span` is a power of two: a mask costs nothing beside what is measured.
                        let va = range.start().add_pages(n & (span - 1));
                        match k.access_now(&cx, va, Access::Read) {
                            Now::Done => {}
                            begun => k
                                .finish_access(&cx, mm, va, Access::Read, begun)
                                .await
                                .expect("mapped"),
                        }
                    }
                })
                .await;
        }
        k.sys_munmap(&cx, mm, range).await.expect("mapped");
    })
}

fn translation(c: &mut Criterion) {
    let mut group = c.benchmark_group("an access");
    group.throughput(Throughput::Elements(ACCESSES)).sample_size(20);
    // Harpertown: 16 entries in the first level, 256 in the second.
    for (name, span) in [("tlb hit", 8), ("second-level hit", 128), ("walk", 4096)] {
        group.bench_function(name, |b| b.iter_custom(|rounds| ask(span, rounds)));
    }
    group.finish();
}

criterion_group!(benches, translation);
criterion_main!(benches);
