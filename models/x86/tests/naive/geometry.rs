//! Geometries of every kind.

use proptest::prelude::*;
use x86::tlb::{IndexFunction, Replacement, SecondLevelBank, SecondLevelFill, Serves};
use x86::{PageSize, PageSizes, Shape, TlbBank, TlbGeometry};

const K: PageSize = PageSize::Size4K;
const M: PageSize = PageSize::Size2M;
const G: PageSize = PageSize::Size1G;

fn shape() -> impl Strategy<Value = Shape> {
    let sets = prop::sample::select(vec![1_u32, 1, 2, 3, 4, 5, 8]);
    let ways = prop::sample::select(vec![1_u32, 2, 3, 4, 8, 17]);
    let replacement =
        prop::sample::select(vec![Replacement::Lru, Replacement::TreePlru, Replacement::Random]);
    let index = prop::sample::select(vec![IndexFunction::Modulo, IndexFunction::XorFold]);
    // What a shape refuses falls back to what every shape can do.
    (sets, ways, replacement, index).prop_map(|(sets, ways, replacement, index)| {
        let plain = Shape::new(sets * ways, ways).unwrap();
        let replaced = plain.with_replacement(replacement).unwrap_or(plain);
        replaced.with_index(index).unwrap_or(replaced)
    })
}

/// Banks of one level by the sizes each holds.
fn banks(splits: Vec<Vec<&'static [PageSize]>>) -> impl Strategy<Value = Vec<TlbBank>> {
    let shapes = prop::collection::vec(shape(), 3);
    (prop::sample::select(splits), shapes).prop_map(|(split, shapes)| {
        let bank = |(sizes, shape): (&&[PageSize], Shape)| TlbBank::new(shape, PageSizes::of(sizes));
        split.iter().zip(shapes).map(bank).collect()
    })
}

fn first_level() -> impl Strategy<Value = Vec<TlbBank>> {
    banks(vec![
        vec![&[K]],
        vec![&[K, M]],
        vec![&[K, M, G]],
        vec![&[K], &[M]],
        vec![&[K], &[M], &[G]],
        vec![&[K], &[G]],
        vec![&[K], &[K]],
        vec![&[K], &[K], &[K, M]],
        vec![&[K, M], &[K, G]],
    ])
}

fn second_level() -> impl Strategy<Value = Vec<SecondLevelBank>> {
    let all = || {
        banks(vec![
            vec![&[K]],
            vec![&[M]],
            vec![&[K, M]],
            vec![&[K, M, G]],
            vec![&[K], &[M]],
            vec![&[K], &[M], &[G]],
            vec![&[K, M], &[K, G]],
            vec![&[K], &[K], &[K]],
        ])
    };
    let serving = |serves: Serves, banks: Vec<TlbBank>| {
        let serve = move |bank| SecondLevelBank { serves, bank };
        banks.into_iter().map(serve).collect::<Vec<_>>()
    };
    prop_oneof![
        1 => Just(Vec::new()),
        4 => all().prop_map(move |banks| serving(Serves::Both, banks)),
        1 => all().prop_map(move |banks| serving(Serves::Data, banks)),
        1 => all().prop_map(move |banks| serving(Serves::Fetch, banks)),
        3 => (all(), all()).prop_map(move |(data, fetch)| {
            let mut banks = serving(Serves::Data, data);
            banks.extend(serving(Serves::Fetch, fetch));
            banks
        }),
        1 => (all(), all()).prop_map(move |(both, data)| {
            let mut banks = serving(Serves::Both, both);
            banks.extend(serving(Serves::Data, data));
            banks
        }),
    ]
}

pub(crate) fn geometry() -> impl Strategy<Value = TlbGeometry> {
    let store = prop_oneof![2 => Just(Vec::new()), 1 => first_level()];
    let fill = prop::sample::select(vec![SecondLevelFill::OnWalk, SecondLevelFill::OnEviction]);
    (first_level(), store, first_level(), second_level(), fill).prop_map(
        |(load, store, fetch, l2, l2_fill)| TlbGeometry {
            load,
            store,
            fetch,
            l2,
            l2_fill,
        },
    )
}
