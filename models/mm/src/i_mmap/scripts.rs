//! Random scripts for the tests of both indices.

use proptest::prelude::*;

use super::Visit;

/// The ids that a walk met.
pub(super) fn ids<Id: Copy>(visit: &Visit<Id>) -> Vec<Id> {
    visit.ids().collect()
}

/// One call.
#[derive(Clone, Debug)]
pub(super) enum Op {
    Insert(u64, u64),
    Fork(prop::sample::Index),
    Remove(prop::sample::Index),
    Query(u64, u64),
}

/// Offsets that collide, that straddle powers of two, and that use every bit.
fn offset() -> impl Strategy<Value = u64> {
    prop_oneof![
        6 => 0..12_u64,
        3 => 0..70_u64,
        2 => (0..64_u32, 0..3_u64).prop_map(|(bit, around)| (1_u64 << bit).wrapping_add(around).wrapping_sub(1)),
        1 => any::<u64>(),
        1 => Just(u64::MAX),
    ]
}

/// First and last page.
pub(super) fn interval() -> impl Strategy<Value = (u64, u64)> {
    (offset(), offset()).prop_map(|(a, b)| (a.min(b), a.max(b)))
}

/// Any call.
pub(super) fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => interval().prop_map(|(a, b)| Op::Insert(a, b)),
        2 => any::<prop::sample::Index>().prop_map(Op::Fork),
        4 => any::<prop::sample::Index>().prop_map(Op::Remove),
        2 => interval().prop_map(|(a, b)| Op::Query(a, b)),
    ]
}
