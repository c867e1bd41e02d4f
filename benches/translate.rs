//! How many references does the translator make in a second: of a recorded program, and of streams
//! that hit the first level, hit the second, and miss everything?

use std::cell::LazyCell;
use std::path::Path;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use translate::engine::{DataCaching, Engine, Setup};
use translate::frames::{Oracle, Unwatched, Watched};
use translate::mapping::PagePolicy;
use translate::stream::{Bytes, Pattern, StreamSpec};
use translate::trace::Looped;
use translate::{Batch, Source};
use x86::{Machine, PageSize, PagingMode};

const RECORDING: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../translate/recordings/sqlite-groupby.lackey.gz"
);
// References measured at a time.
const STRETCH: u64 = 1 << 20;
// Four references for each page of the 4 GiB.
const FAR_STRETCH: u64 = 1 << 22;
// References in the recording.
const RECORDED: u64 = 2_507_527;
const SEED: u64 = 1;

fn engine<O: Oracle>(machine: &str) -> Engine<O> {
    Engine::new(Setup {
        machine: Machine::preset(machine).expect("a preset"),
        mode: PagingMode::FourLevel,
        pages: PagePolicy::Fixed(PageSize::Size4K),
        data: DataCaching::Bypass,
    })
}

/// Batches kept in memory, so that making them is not measured.
fn batches(mut source: impl Source) -> Vec<Batch> {
    let mut all = Vec::new();
    loop {
        let mut batch = Batch::default();
        source.next_batch(&mut batch).expect("a good source");
        if batch.references.is_empty() {
            return all;
        }
        all.push(batch);
    }
}

// Batches are made, and the pages mapped, only for the benches that run.
fn measure<O: Oracle>(
    c: &mut Criterion,
    what: &str,
    machine: &str,
    source: &LazyCell<Vec<Batch>, impl FnOnce() -> Vec<Batch>>,
    references: u64,
) {
    let mut mapped: Option<Engine<O>> = None;
    let mut group = c.benchmark_group(what);
    group.throughput(Throughput::Elements(references)).sample_size(10);
    group.bench_function(BenchmarkId::from_parameter(machine), |b| {
        let engine = mapped.get_or_insert_with(|| {
            let mut engine = engine::<O>(machine);
            pass(&mut engine, source);
            engine
        });
        b.iter(|| measured_pass(engine, source));
    });
    group.finish();
}

// What `instructions.sh` counts: a pass over pages that are mapped.
#[inline(never)]
fn measured_pass<O: Oracle>(engine: &mut Engine<O>, batches: &[Batch]) {
    pass(engine, batches);
}

#[inline(always)]
fn pass<O: Oracle>(engine: &mut Engine<O>, batches: &[Batch]) {
    for batch in batches {
        engine.run(batch).expect("sound");
    }
}

fn stream(pattern: Pattern, kib: u64, count: u64) -> Vec<Batch> {
    let spec = StreamSpec::new(pattern, Bytes(kib << 10));
    batches(spec.open(SEED, count).expect("a good stream"))
}

fn translate(c: &mut Criterion) {
    let recorded = LazyCell::new(|| {
        let recorded = translate::trace::open(Path::new(RECORDING)).expect("bundled");
        batches(Looped::read(recorded, 1).expect("bundled"))
    });
    let near = LazyCell::new(|| stream(Pattern::Uniform, 64, STRETCH));
    let second = LazyCell::new(|| stream(Pattern::Uniform, 4 << 10, STRETCH));
    let far = LazyCell::new(|| stream(Pattern::Uniform, 4 << 20, FAR_STRETCH));
    for machine in ["skylake-sp-2017", "zen4-2022", "barcelona-2008"] {
        measure::<Unwatched>(c, "recorded", machine, &recorded, RECORDED);
        measure::<Watched>(c, "recorded, oracle on", machine, &recorded, RECORDED);
        measure::<Unwatched>(c, "first level", machine, &near, STRETCH);
        measure::<Unwatched>(c, "second level", machine, &second, STRETCH);
        measure::<Unwatched>(c, "4 GiB uniform", machine, &far, FAR_STRETCH);
        measure::<Watched>(c, "4 GiB uniform, oracle on", machine, &far, FAR_STRETCH);
    }
}

criterion_group!(benches, translate);
criterion_main!(benches);
