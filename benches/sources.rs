//! What does a reference cost before an MMU sees it: made by a stream, or read from a recording?

use std::hint::black_box;

use criterion::{
    BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main, measurement::WallTime,
};
use translate::stream::StreamSpec;
use translate::{Batch, Source};

/// References in one measured stretch.
const REFERENCES: u64 = 1 << 20;

fn stream(group: &mut BenchmarkGroup<'_, WallTime>, text: &str) {
    let spec: StreamSpec = text.parse().expect("a description");
    // The table of `zipf` and the cycle of `chase` are prepared once and not measured.
    let mut stream = spec.open(1, u64::MAX).expect("a stream");
    let mut batch = Batch::default();
    group.bench_function(text, |b| {
        b.iter(|| {
            for _ in 0..REFERENCES / translate::source::BATCH as u64 {
                stream.next_batch(&mut batch).expect("streams do not fail");
                black_box(&batch.references);
            }
        });
    });
}

fn streams(c: &mut Criterion) {
    let mut group = c.benchmark_group("a stream");
    group.throughput(Throughput::Elements(REFERENCES)).sample_size(20);
    for text in [
        "sequential:64m",
        "stride=4k:1g",
        "uniform:4g",
        "uniform:4g,writes=0.3",
        "zipf=0.99:16m",
        "zipf=0.99:1g",
        "zipf=0.99:16g",
        "zipf=0.99:64g",
        "chase:16m",
        "chase:4g",
        "phases:256m",
        "uniform:1g,threads=8",
    ] {
        stream(&mut group, text);
    }
    group.finish();
}

criterion_group!(benches, streams);
criterion_main!(benches);
