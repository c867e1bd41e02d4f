//! Reuse distances against a list that is searched.

use proptest::prelude::*;
use translate::reuse::{Distances, ReuseDistances};
use x86::{Access, Reference, Va};

/// A page and how it is accessed.
type Met = (u64, Access);

fn references(row: &[Met]) -> Vec<Reference> {
    let reference = |(page, access): &Met| Reference::truncating(*access, Va::new(page << x86::PAGE_SHIFT));
    row.iter().map(reference).collect()
}

fn observed(row: &[Met]) -> ReuseDistances {
    let mut reuse = ReuseDistances::default();
    // In parts, as batches come.
    references(row).chunks(7).for_each(|part| reuse.observe(part));
    reuse
}

/// Misses of a fully associative LRU TLB, one list a size.
fn misses(row: impl Iterator<Item = u64>, entries: usize) -> u64 {
    let mut list: Vec<u64> = Vec::new();
    let mut misses = 0;
    for page in row {
        match list.iter().position(|&other| other == page) {
            Some(at) => {
                list.remove(at);
            }
            None => misses += 1,
        }
        list.insert(0, page);
        list.truncate(entries);
    }
    misses
}

fn agree(distances: &Distances, row: impl Iterator<Item = u64> + Clone) {
    assert_eq!(distances.references(), row.clone().count() as u64);
    assert_eq!(distances.cold(), misses(row.clone(), usize::MAX));
    for bits in 0..=distances.enough_bits() + 1 {
        assert_eq!(distances.misses(bits), misses(row.clone(), 1 << bits), "{bits}");
    }
    assert_eq!(distances.misses(distances.enough_bits()), distances.cold());
}

fn check(row: &[Met]) {
    let reuse = observed(row);
    let pages = row.iter().map(|(page, _)| *page);
    let data = row.iter().filter(|met| met.1 != Access::Fetch).map(|met| met.0);
    let fetches = row.iter().filter(|met| met.1 == Access::Fetch).map(|met| met.0);
    agree(reuse.all(), pages);
    agree(reuse.data(), data);
    agree(reuse.fetches(), fetches);
}

fn access() -> impl Strategy<Value = Access> {
    prop_oneof![Just(Access::Read), Just(Access::Write), Just(Access::Fetch)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn distances_are_those_of_a_list(
        pages in prop_oneof![Just(3_u64), Just(20), Just(300), Just(1 << 45)],
        row in prop::collection::vec((any::<u64>(), access()), 0..1500),
    ) {
        let row: Vec<Met> = row.into_iter().map(|(page, access)| (page % pages, access)).collect();
        check(&row);
    }
}

#[test]
fn the_line_of_time_is_written_anew_and_forgets_nothing() {
    // Pages pushed out of the front far more often than a new line has places.
    let row: Vec<Met> = (0..30_000_u64)
        .map(|n| (n * n % 97 + n % 31 * 100, Access::Read))
        .collect();
    check(&row);
}

#[test]
fn a_cycle_through_n_pages_misses_below_n_entries_and_hits_from_n_on() {
    let row: Vec<Met> = (0..6400_u64).map(|n| (n % 64, Access::Read)).collect();
    let reuse = observed(&row);
    assert_eq!(reuse.data().cold(), 64);
    assert_eq!(reuse.data().misses(5), 6400);
    assert_eq!(reuse.data().misses(6), 64);
    assert_eq!(reuse.data().enough_bits(), 6);
    assert_eq!(reuse.fetches().references(), 0);
}

#[test]
fn what_was_counted_before_can_be_taken_away() {
    let mut reuse = ReuseDistances::default();
    reuse.observe(&references(&[(1, Access::Read), (2, Access::Read)]));
    let before = reuse.data().clone();
    reuse.observe(&references(&[(1, Access::Read), (3, Access::Read)]));
    let since = reuse.data().since(&before);
    assert_eq!(
        (since.references(), since.cold(), since.misses(0), since.misses(1)),
        (2, 1, 2, 1)
    );
}
