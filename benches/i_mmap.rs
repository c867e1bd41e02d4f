//! What does a mapping of a file cost on the host in either index: linked, linked beside its parent, found, unlinked?

use std::hint::black_box;

use bench_world::dice;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use mm::i_mmap::{IMmap, IntervalIndex, Sibling};
use mm::profile::IMmapIndex;

/// Mappings of one file.
const MAPPERS: u32 = 4096;
/// Pages that a mapping has at most.
const LONGEST: u64 = 64;
/// Pages of the file.
const PAGES: u64 = 1 << 18;

type Span = (u64, u64);

fn linked(index: IMmapIndex, spans: &[Span]) -> IMmap<u32> {
    let mut tree = IMmap::new(index);
    for (id, &(first, last)) in (0..).zip(spans) {
        tree.insert(first, last, id);
    }
    tree
}

fn forked(index: IMmapIndex, (first, last): Span) -> IMmap<u32> {
    let mut tree = linked(index, &[(first, last)]);
    for id in 1..MAPPERS {
        let parent = Sibling {
            id: id - 1,
            first,
            last,
        };
        tree.insert_beside(parent, first, last, id);
    }
    tree
}

fn unlinked(mut tree: IMmap<u32>, spans: &[Span]) -> IMmap<u32> {
    for (id, &(first, last)) in (0..).zip(spans) {
        tree.remove(first, last, id).expect("linked");
    }
    tree
}

fn mappings(c: &mut Criterion) {
    let mut dice = dice(7);
    let mut scattered = Vec::new();
    for _ in 0..MAPPERS {
        let first = dice() % PAGES;
        scattered.push((first, first + dice() % LONGEST));
    }
    let same = vec![(0, PAGES - 1); MAPPERS as usize];
    let mut group = c.benchmark_group("a mapping of a file");
    group
        .throughput(Throughput::Elements(u64::from(MAPPERS)))
        .sample_size(20);
    for (tree, index) in [
        ("priority search tree", IMmapIndex::PrioTree),
        ("interval tree", IMmapIndex::IntervalTree),
    ] {
        for (name, spans) in [("scattered", &scattered), ("of one range", &same)] {
            let full = linked(index, spans);
            group.bench_function(format!("{tree}, {name}, link"), |b| {
                b.iter_with_large_drop(|| linked(index, spans));
            });
            group.bench_function(format!("{tree}, {name}, unlink"), |b| {
                b.iter_batched(
                    || full.clone(),
                    |full| unlinked(full, spans),
                    BatchSize::LargeInput,
                );
            });
            group.bench_function(format!("{tree}, {name}, truncate all"), |b| {
                b.iter(|| black_box(full.visit(0, u64::MAX)));
            });
        }
        // A page that some mapping begins with: the reverse map of a file page.
        let full = linked(index, &scattered);
        group.bench_function(format!("{tree}, scattered, one page"), |b| {
            b.iter(|| {
                for &(first, _) in &scattered {
                    let _ = black_box(full.visit(first, first));
                }
            });
        });
        group.bench_function(format!("{tree}, fork"), |b| {
            b.iter_with_large_drop(|| forked(index, same[0]));
        });
    }
    group.finish();
}

criterion_group!(benches, mappings);
criterion_main!(benches);
