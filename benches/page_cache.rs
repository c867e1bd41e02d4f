//! What does a page of the page cache cost on the host: put in, looked up, collected in a batch, taken out?

use std::hint::black_box;

use bench_world::dice;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use mm::profile::PAGEVEC_SIZE;
use mm::radix_tree::RadixTree;

/// Pages of a file: 256 MiB, a tree of three levels.
const PAGES: u64 = 1 << 16;

/// As large as what the page cache holds of a page.
type Item = (u32, u32);

fn tree(indices: &[u64]) -> RadixTree<Item> {
    let mut tree = RadixTree::new();
    for &index in indices {
        let _ = tree.insert(index, (index as u32, 0));
    }
    tree
}

fn empty(mut tree: RadixTree<Item>, indices: &[u64]) -> RadixTree<Item> {
    for &index in indices {
        let _ = tree.remove(index);
    }
    tree
}

fn page_cache(c: &mut Criterion) {
    let ascending: Vec<u64> = (0..PAGES).collect();
    let mut dice = dice(7);
    let sparse: Vec<u64> = (0..PAGES).map(|n| n * PAGES + dice() % PAGES).collect();
    let mut group = c.benchmark_group("a page of the page cache");
    group.throughput(Throughput::Elements(PAGES)).sample_size(20);
    for (name, indices) in [("dense", &ascending), ("sparse", &sparse)] {
        let full = tree(indices);
        let mut shuffled = indices.clone();
        for at in (1..shuffled.len()).rev() {
            shuffled.swap(at, dice() as usize % (at + 1));
        }
        group.bench_function(format!("{name}, insert"), |b| {
            b.iter_with_large_drop(|| tree(indices));
        });
        group.bench_function(format!("{name}, lookup"), |b| {
            b.iter(|| {
                for &index in &shuffled {
                    let _ = black_box(full.lookup(index));
                }
            });
        });
        group.bench_function(format!("{name}, batches of 14"), |b| {
            b.iter(|| {
                let mut from = 0;
                while let Some((last, _)) = full.gang_lookup(from, PAGEVEC_SIZE).found.last() {
                    from = last + 1;
                }
                from
            });
        });
        group.bench_function(format!("{name}, remove"), |b| {
            b.iter_batched(
                || full.clone(),
                |full| empty(full, indices),
                BatchSize::LargeInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, page_cache);
criterion_main!(benches);
