//! What does a reference cost before an MMU sees it: made by a stream, or read from a recording?

use std::hint::black_box;
use std::io::{Cursor, Read};
use std::path::Path;
use std::sync::Arc;

use criterion::measurement::WallTime;
use criterion::{BatchSize, BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use flate2::read::GzDecoder;
use translate::stream::StreamSpec;
use translate::trace::{self, CompactWriter, Looped, Recording};
use translate::{Batch, Source, ThreadId};
use x86::{Access, Reference};

/// References in one measured stretch.
const REFERENCES: u64 = 1 << 20;

/// Reads a source to its end, as an MMU would that costs nothing.
fn drain(mut source: impl Source) -> u64 {
    let mut batch = Batch::default();
    let mut count = 0;
    loop {
        source.next_batch(&mut batch).expect("a good source");
        if batch.references.is_empty() {
            return count;
        }
        count += black_box(&batch.references).len() as u64;
    }
}

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

/// Opens a recording that is all in memory: what is measured is the decoder.
fn open(bytes: &Arc<[u8]>) -> Box<dyn Recording> {
    let bytes = Cursor::new(Arc::clone(bytes));
    trace::read(Path::new("memory"), bytes, None).expect("a recording")
}

fn recording(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, bytes: &[u8]) {
    let bytes: Arc<[u8]> = bytes.into();
    group.throughput(Throughput::Elements(drain(open(&bytes))));
    group.bench_function(name, |b| {
        b.iter_batched_ref(|| open(&bytes), |source| drain(source), BatchSize::PerIteration);
    });
}

fn recordings(c: &mut Criterion) {
    let packed = include_bytes!("../translate/recordings/sqlite-groupby.lackey.gz");
    let mut text = Vec::new();
    GzDecoder::new(&packed[..]).read_to_end(&mut text).expect("gzip");
    let looped = Looped::read(open(&text.as_slice().into()), 1).expect("a good recording");
    let references = looped.references();

    let mut group = c.benchmark_group("a recording");
    group.sample_size(20);
    recording(&mut group, "lackey", &text);
    recording(&mut group, "lackey, gzip", packed);
    recording(&mut group, "memtrace", &memtrace(references));
    recording(&mut group, "champsim", &champsim(references));
    recording(&mut group, "compact", &compact(references));
    group.throughput(Throughput::Elements(references.len() as u64));
    group.bench_function("looped", |b| {
        b.iter_batched_ref(|| looped.clone(), |source| drain(source), BatchSize::PerIteration);
    });
    group.finish();
}

/// The references as DynamoRIO would have written them.
fn memtrace(references: &[Reference]) -> Vec<u8> {
    const HEADER: (u16, u16, u64) = (25, 0, 5);
    const FOOTER: (u16, u16, u64) = (26, 0, 0);
    let entry = |reference: &Reference| {
        let kind = match reference.access() {
            Access::Read => 0,
            Access::Write => 1,
            Access::Fetch => 10,
        };
        (kind, 1, reference.va().get())
    };
    let entries = [HEADER]
        .into_iter()
        .chain(references.iter().map(entry))
        .chain([FOOTER]);
    entries
        .flat_map(|(kind, size, address)| {
            [
                &kind.to_le_bytes()[..],
                &size.to_le_bytes(),
                &address.to_le_bytes(),
            ]
            .concat()
        })
        .collect()
}

/// The references as ChampSim would read them: each fetch with the load and the store that follow it.
fn champsim(references: &[Reference]) -> Vec<u8> {
    const RECORD: usize = 64;
    const STORE: usize = 16;
    const LOAD: usize = 32;
    let mut records: Vec<[u8; RECORD]> = Vec::new();
    for reference in references {
        let at = match reference.access() {
            Access::Fetch => {
                records.push([0; RECORD]);
                0
            }
            Access::Write => STORE,
            Access::Read => LOAD,
        };
        let record = records.last_mut().expect("a fetch comes first");
        record[at..at + size_of::<u64>()].copy_from_slice(&reference.va().get().to_le_bytes());
    }
    records.concat()
}

/// The references in the compact form.
fn compact(references: &[Reference]) -> Vec<u8> {
    let mut writer = CompactWriter::new(Vec::new()).expect("memory");
    let batch = Batch {
        thread: ThreadId(0),
        references: references.to_vec(),
    };
    writer.write(&batch).expect("memory");
    writer.finish().expect("memory")
}

criterion_group!(benches, streams, recordings);
criterion_main!(benches);
