//! Streams as their users meet them: the same twice, evenly spread, and where they ought to be.

use translate::stream::{Bytes, DEFAULT_START, StreamSpec};
use translate::{Batch, Source, ThreadId};
use x86::{PAGE_SIZE, Reference};

const PATTERNS: [&str; 8] = [
    "sequential:1m,writes=0.5",
    "stride=4096:1m,writes=0.5",
    "uniform:1m,writes=0.5",
    "zipf=0.99:1m,writes=0.5",
    "zipf=0.99:32g,writes=0.5",
    "chase:1m,writes=0.5",
    "phases:1m,window=64k,every=700,writes=0.5",
    "uniform:1m,threads=3,regions=private,writes=0.5",
];

fn spec(text: &str) -> StreamSpec {
    text.parse().expect("a description")
}

/// All references, each with its thread.
fn read(text: &str, seed: u64, count: u64) -> Vec<(ThreadId, Reference)> {
    let mut stream = spec(text).open(seed, count).expect("a stream");
    let mut batch = Batch::default();
    let mut all = Vec::new();
    loop {
        stream.next_batch(&mut batch).expect("streams do not fail");
        if batch.references.is_empty() {
            return all;
        }
        all.extend(
            batch
                .references
                .iter()
                .map(|reference| (batch.thread, *reference)),
        );
    }
}

/// Distances from the start of the region.
fn offsets(text: &str, count: u64) -> Vec<u64> {
    let distance = |(_, reference): (ThreadId, Reference)| reference.va().get() - DEFAULT_START.get();
    read(text, 1, count).into_iter().map(distance).collect()
}

/// Accesses to each page of a region.
fn page_counts(text: &str, count: u64) -> Vec<u64> {
    let mut counts = vec![0; spec(text).pages() as usize];
    for offset in offsets(text, count) {
        counts[(offset / PAGE_SIZE) as usize] += 1;
    }
    counts
}

#[test]
fn the_same_seed_makes_the_same_references() {
    for text in PATTERNS {
        assert_eq!(read(text, 7, 5000), read(text, 7, 5000), "{text}");
    }
}

#[test]
fn another_seed_makes_others() {
    for text in PATTERNS {
        assert_ne!(read(text, 7, 5000), read(text, 8, 5000), "{text}");
    }
}

#[test]
fn a_stream_has_as_many_references_as_asked_for_and_all_lie_in_its_region() {
    for text in PATTERNS {
        for count in [0, 1, 1023, 1024, 1025, 4000] {
            let all = read(text, 1, count);
            assert_eq!(all.len() as u64, count, "{text}");
            let spec = spec(text);
            let end = spec.start.get() + spec.footprint.0 * u64::from(spec.threads);
            let inside = |(_, reference): &(ThreadId, Reference)| {
                let va = reference.va().get();
                va >= spec.start.get() && va < end && va.is_multiple_of(spec.grain.0)
            };
            assert!(all.iter().all(inside), "{text}");
        }
    }
}

#[test]
fn the_share_of_writes_is_kept() {
    for (text, low, high) in [
        ("uniform:64m", 0, 0),
        ("uniform:64m,writes=1", 100_000, 100_000),
        // Ten standard deviations about the mean.
        ("uniform:64m,writes=0.25", 23_631, 26_369),
        ("sequential:64m,writes=0.25", 23_631, 26_369),
        ("zipf=1:64m,writes=0.25", 23_631, 26_369),
    ] {
        let all = read(text, 3, 100_000);
        let writes = all.iter().filter(|(_, r)| r.access().is_write()).count();
        assert!((low..=high).contains(&writes), "{text}: {writes}");
    }
}

#[test]
fn sequential_walks_word_by_word_and_begins_again() {
    let offsets = offsets("sequential:4k,grain=1k", 6);
    assert_eq!(offsets, [0, 1024, 2048, 3072, 0, 1024]);
}

#[test]
fn a_stride_wraps_modulo_the_footprint() {
    let offsets = offsets("stride=12k:20k", 6);
    assert_eq!(offsets, [0, 12, 4, 16, 8, 0].map(|k| k * 1024));
}

#[test]
fn uniform_meets_all_pages_equally_often() {
    let counts = page_counts("uniform:1m", 256_000);
    // Chi squared of 255 degrees of freedom: mean 255, deviation 22.6; eight of these to either side.
    let chi: f64 = counts
        .iter()
        .map(|count| (*count as f64 - 1000.0).powi(2) / 1000.0)
        .sum();
    assert!((75.0..435.0).contains(&chi), "{chi}");
}

#[test]
fn uniform_meets_all_words_of_a_page() {
    let mut words = vec![0; 512];
    for offset in offsets("uniform:4k", 51_200) {
        words[(offset / 8) as usize] += 1;
    }
    assert!(words.iter().all(|count| (20..=180).contains(count)));
}

#[test]
fn zipf_meets_the_most_popular_pages_as_often_as_the_law_says() {
    for (text, pages) in [("zipf=1:1m", 256), ("zipf=1:20g", 20 << 18)] {
        let mut counts = page_counts(text, 200_000);
        counts.sort_unstable_by(|a, b| b.cmp(a));
        let total: f64 = (1..=pages).map(|rank| 1.0 / f64::from(rank)).sum();
        for rank in 1..=10 {
            let expected = 200_000.0 / f64::from(rank) / total;
            let found = counts[rank as usize - 1] as f64;
            assert!(
                (found / expected - 1.0).abs() < 0.15,
                "{text} {rank}: {found} {expected}"
            );
        }
    }
}

#[test]
fn popular_pages_lie_apart() {
    let counts = page_counts("zipf=1:1m", 100_000);
    let most = counts.iter().enumerate().max_by_key(|(_, count)| **count);
    assert_ne!(most.map(|(page, _)| page), Some(0));
}

#[test]
fn a_chase_meets_each_page_once_a_round() {
    let counts = page_counts("chase:1m", 512);
    assert!(counts.iter().all(|count| *count == 2));
    assert!(
        offsets("chase:1m", 512)
            .iter()
            .all(|offset| offset % PAGE_SIZE == 0)
    );
}

#[test]
fn a_phase_stays_in_its_window() {
    let all = offsets("phases:256m,window=64k,every=1000", 10_000);
    let windows: Vec<u64> = all
        .chunks(1000)
        .map(|phase| {
            let (low, high) = (phase.iter().min().unwrap(), phase.iter().max().unwrap());
            assert!(high - low < 64 << 10);
            low / PAGE_SIZE
        })
        .collect();
    assert!(windows.windows(2).all(|pair| pair[0] != pair[1]), "{windows:?}");
}

#[test]
fn threads_take_turns_batch_by_batch() {
    let all = read("uniform:1m,threads=3,regions=private", 1, 5 * 1024);
    let turns: Vec<u32> = all.chunks(1024).map(|batch| batch[0].0.0).collect();
    assert_eq!(turns, [0, 1, 2, 0, 1]);
    for (thread, reference) in all {
        let region = (reference.va().get() - DEFAULT_START.get()) / Bytes(1 << 20).0;
        assert_eq!(region, u64::from(thread.0));
    }
}

#[test]
fn threads_of_a_shared_region_share_the_popular_pages() {
    let all = read("zipf=1.2:1m,threads=2", 1, 200_000);
    let favourite = |thread: u32| {
        let mut counts = [0u64; 256];
        for (_, reference) in all.iter().filter(|(of, _)| of.0 == thread) {
            counts[((reference.va().get() - DEFAULT_START.get()) / PAGE_SIZE) as usize] += 1;
        }
        counts
            .iter()
            .enumerate()
            .max_by_key(|(_, count)| **count)
            .map(|(page, _)| page)
    };
    assert_eq!(favourite(0), favourite(1));
}
