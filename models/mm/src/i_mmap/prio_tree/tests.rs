//! Fixtures worked out by hand from the rules, and random scripts against the naive index.

use proptest::prelude::*;

use naive::{Naive, turn};

use super::super::scripts::{Op, ids, interval, op};
use super::*;

mod naive;

fn shape<Id: Copy + Ord>(tree: &PrioTree<Id>) -> Vec<Option<Span>> {
    let mut out = Vec::new();
    let mut ahead = vec![tree.root];
    while let Some(place) = ahead.pop() {
        out.push(place.map(|at| tree.node(at).span));
        if let Some(at) = place {
            ahead.push(tree.node(at).right);
            ahead.push(tree.node(at).left);
        }
    }
    out
}

/// The shape as pairs, for fixtures.
fn pairs<Id: Copy + Ord>(tree: &PrioTree<Id>) -> Vec<Option<(u64, u64)>> {
    shape(tree)
        .into_iter()
        .map(|s| s.map(|s| (s.first, s.last)))
        .collect()
}

/// Each rule of the tree, checked node by node.
fn check_rules<Id: Copy + Ord>(tree: &PrioTree<Id>) {
    type Path = Vec<(u32, Side)>;
    let mut seen = 0;
    let mut ahead: Vec<(NodeAt, u32, Path)> =
        tree.root.map(|root| (root, 0, Vec::new())).into_iter().collect();
    if let Some(root) = tree.root {
        assert_eq!(tree.node(root).parent, None);
    }
    while let Some((at, depth, path)) = ahead.pop() {
        seen += 1;
        let node = *tree.node(at);
        assert!(node.span.last <= tree.max_index());
        assert!(depth <= tree.index_bits + OFFSET_BITS);
        for &(level, side) in &path {
            assert_eq!(
                turn(node.span, level, tree.index_bits),
                side,
                "node on the wrong branch at level {level}"
            );
        }
        for side in [Side::Left, Side::Right] {
            let Some(child) = node.child(side) else {
                continue;
            };
            let below = tree.node(child);
            assert_eq!(below.parent, Some(at));
            assert!(node.span.last >= below.span.last);
            assert!(node.span.last > below.span.last || node.span.first < below.span.first);
            let mut path = path.clone();
            path.push((depth, side));
            ahead.push((child, depth + 1, path));
        }
        let mut prev = None;
        let mut list = Some(node.front);
        while let Some(member) = list {
            let entry = tree.member(member);
            assert_eq!((entry.node, entry.prev), (at, prev));
            assert_eq!(tree.by_id.get(&entry.id), Some(&member));
            prev = Some(member);
            list = entry.next;
        }
        assert_eq!(prev, Some(node.back));
    }
    assert_eq!(seen, tree.tree_nodes());
    assert_eq!(tree.members.in_use(), tree.by_id.len());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn agrees_with_the_naive_index(ops in prop::collection::vec(op(), 1..120)) {
        let mut tree = PrioTree::new();
        let mut naive = Naive::default();
        let mut live: Vec<(u64, u64, u32)> = Vec::new();
        let mut next = 0_u32;
        for op in ops {
            match op {
                Op::Insert(first, last) => {
                    prop_assert_eq!(tree.insert(first, last, next), naive.insert(first, last, next));
                    live.push((first, last, next));
                    next += 1;
                }
                Op::Fork(which) if !live.is_empty() => {
                    let (first, last, id) = *which.get(&live);
                    prop_assert_eq!(tree.insert_beside(Sibling { id, first, last }, first, last, next), Placed::BesideSibling);
                    naive.beside(id, first, last, next);
                    live.push((first, last, next));
                    next += 1;
                }
                Op::Remove(which) if !live.is_empty() => {
                    let (first, last, id) = live.swap_remove(which.index(live.len()));
                    prop_assert_eq!(tree.remove(first, last, id), Ok(naive.remove(first, last, id)));
                }
                Op::Query(first, last) => {
                    let visit = tree.visit(first, last);
                    let mut met: Vec<_> = visit.ids().collect();
                    met.sort_unstable();
                    let mut due: Vec<u32> = live.iter().filter(|v| v.0 <= last && first <= v.1).map(|v| v.2).collect();
                    due.sort_unstable();
                    prop_assert_eq!(met, due);
                    prop_assert_eq!(visit, naive.visit(first, last));
                }
                Op::Fork(_) | Op::Remove(_) => {}
            }
            check_rules(&tree);
            prop_assert_eq!(shape(&tree), naive.shape());
            prop_assert_eq!(tree.index_bits(), naive.bits.max(1));
            prop_assert_eq!(tree.len(), live.len());
        }
    }

    #[test]
    fn same_calls_same_slots(spans in prop::collection::vec(interval(), 1..40)) {
        let build = || {
            let mut tree = PrioTree::new();
            for (id, &(first, last)) in spans.iter().enumerate() {
                tree.insert(first, last, id);
            }
            for (id, &(first, last)) in spans.iter().enumerate().step_by(2) {
                tree.remove(first, last, id).unwrap();
            }
            format!("{tree:?}")
        };
        prop_assert_eq!(build(), build());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    /// With one start for all, the radix levels are used up by the 64 that end last, and the lengths of the
    /// others branch.
    #[test]
    fn mappings_with_one_start_part_by_their_lengths_below_the_radix_levels(
        first in prop_oneof![Just(0_u64), 0..9_u64],
        lengths in prop::collection::btree_set(any::<u64>(), 75..110),
        removals in prop::collection::vec(any::<prop::sample::Index>(), 30),
    ) {
        let mut tree = PrioTree::new();
        let mut naive = Naive::default();
        let mut live = Vec::new();
        // In no order.
        let mut lasts: Vec<u64> = lengths.iter().map(|length| first.max(*length)).collect();
        lasts.sort_unstable_by_key(|last| last.reverse_bits());
        lasts.dedup();
        for (id, &last) in lasts.iter().enumerate() {
            let id = id as u32;
            prop_assert_eq!(tree.insert(first, last, id), naive.insert(first, last, id));
            live.push((last, id));
        }
        check_rules(&tree);
        prop_assert_eq!(shape(&tree), naive.shape());
        for which in removals {
            let (last, id) = live.swap_remove(which.index(live.len()));
            prop_assert_eq!(tree.remove(first, last, id), Ok(naive.remove(first, last, id)));
            prop_assert_eq!(shape(&tree), naive.shape());
        }
        check_rules(&tree);
        prop_assert_eq!(tree.visit(first, first), naive.visit(first, first));
    }
}

fn tree_of(spans: &[(u64, u64)]) -> PrioTree<usize> {
    let mut tree = PrioTree::new();
    for (id, &(first, last)) in spans.iter().enumerate() {
        tree.insert(first, last, id);
        check_rules(&tree);
    }
    tree
}

#[test]
fn an_empty_tree_meets_nothing() {
    let tree = PrioTree::<u32>::new();
    assert_eq!(tree.visit(0, u64::MAX), Visit::nothing());
    assert!(tree.is_empty());
    assert_eq!((tree.index_bits(), tree.tree_nodes()), (1, 0));
}

#[test]
fn preorder_of_a_hand_made_tree() {
    // Three bits. The root is the highest `last`; bit 2 of `first` parts the rest into {0-1, 2-5, 1-3} and {4-6,
    // 6-6}.
    let tree = tree_of(&[(3, 7), (0, 1), (4, 6), (2, 5), (6, 6), (1, 3)]);
    assert_eq!(tree.index_bits(), 3);
    let expected = [
        Some((3, 7)),
        Some((2, 5)), // bit 1 of `first` sends both of the rest left
        Some((1, 3)), // bit 0: 0 goes left
        Some((0, 1)),
        None,
        None,
        None,
        None,
        Some((4, 6)), // ties with 6-6, and has the smaller `first`
        None,
        Some((6, 6)),
        None,
        None,
    ];
    assert_eq!(pairs(&tree), expected);
    assert_eq!(ids(&tree.visit(0, u64::MAX)), [0, 3, 5, 1, 2, 4]);
    // Page 1: 3-7 and 2-5 are stepped on without a match; the right half begins at page 4, beyond the query.
    assert_eq!(
        tree.visit(1, 1),
        Visit {
            met: vec![Met::node(5, 3), Met::node(1, 1)],
            tail: 0
        }
    );
    // Truncation to four pages: 1-3 does not reach page 4, so neither it nor what is under it is entered.
    assert_eq!(
        tree.visit(4, u64::MAX),
        Visit {
            met: [0, 3, 2, 4].map(|id| Met::node(id, 1)).to_vec(),
            tail: 0
        }
    );
    // Page 7: 3-7 is the only one; neither half reaches it.
    assert_eq!(
        tree.visit(7, 7),
        Visit {
            met: vec![Met::node(0, 1)],
            tail: 0
        }
    );
    // Page 0: behind 0-1, which is met after three others, nothing is left.
    assert_eq!(tree.visit(0, 0).met, [Met::node(1, 4)]);
    assert_eq!(tree.visit(8, u64::MAX), Visit::nothing());
    assert_eq!(tree.visit(5, 4), Visit::nothing());
}

#[test]
fn removal_moves_the_larger_children_up() {
    let mut tree = tree_of(&[(3, 7), (0, 1), (4, 6), (2, 5), (6, 6), (1, 3)]);
    assert_eq!(tree.remove(3, 7, 0), Ok(Removed::TreeNode));
    check_rules(&tree);
    // 4-6 beats 2-5 for the root, and 6-6 follows into its place.
    assert_eq!(ids(&tree.visit(0, u64::MAX)), [2, 3, 5, 1, 4]);
    assert_eq!(tree.index_bits(), 3);
}

#[test]
fn a_tie_prefers_the_left_child() {
    let mut tree = tree_of(&[(0, 7), (1, 5), (4, 5)]);
    assert_eq!(tree.remove(0, 7, 0), Ok(Removed::TreeNode));
    check_rules(&tree);
    assert_eq!(pairs(&tree), [Some((1, 5)), None, Some((4, 5)), None, None]);
}

#[test]
fn equal_starts_go_to_the_overflow_sub_tree() {
    // One bit of radix, all starting at page 0 except one: below depth 1 only the length tells them apart.
    let tree = tree_of(&[(0, 0), (0, 1), (1, 1)]);
    assert_eq!(tree.index_bits(), 1);
    assert_eq!(
        pairs(&tree),
        [Some((0, 1)), Some((0, 0)), None, None, Some((1, 1)), None, None]
    );

    // Two bits: 0-3, 0-2 and 0-1 fill depths 0 to 2 on the left edge. At depth 2 bit 63 of the length decides, and it
    // is clear in all.
    let tree = tree_of(&[(0, 0), (0, 1), (0, 2), (0, 3)]);
    assert_eq!(ids(&tree.visit(0, 0)), [3, 2, 1, 0]);
    assert_eq!(tree.visit(0, 0).steps().0, 4);
}

#[test]
fn the_overflow_sub_tree_branches_on_the_length_from_bit_63() {
    let half = 1_u64 << 63;
    let mut spans: Vec<(u64, u64)> = (0..64).map(|n| (0, u64::MAX - n)).collect();
    spans.extend([(0, half), (0, half - 1), (0, half - 2)]);
    let tree = tree_of(&spans);
    assert_eq!(tree.index_bits(), 64);
    // The first 64 fill the radix levels. Below, at depth 64, stands 0-half; bit 63 of the length, clear in the
    // others, sends them left.
    assert_eq!(ids(&tree.visit(0, 0)), (0..67).collect::<Vec<_>>());
    let deepest = shape(&tree);
    assert_eq!(deepest.iter().flatten().count(), 67);

    // Of the two below that node, one has bit 63 of the length set and the other has not: they part.
    spans.truncate(64);
    spans.extend([(0, u64::MAX - 64), (0, u64::MAX - 65), (0, half - 1)]);
    let tree = tree_of(&spans);
    let places = shape(&tree);
    let at = places
        .iter()
        .position(|s| *s == Some(Span::new(0, u64::MAX - 64)))
        .unwrap();
    assert_eq!(places[at + 1], Some(Span::new(0, half - 1)), "bit 63 clear: left");
    assert_eq!(
        places[at + 4],
        Some(Span::new(0, u64::MAX - 65)),
        "bit 63 set: right"
    );
    assert_eq!(
        ids(&tree.visit(0, 0)),
        (0..65).chain([66, 65]).collect::<Vec<_>>()
    );
}

#[test]
fn index_bits_grow_and_are_reset() {
    let mut tree = PrioTree::new();
    for (id, (last, bits)) in [
        (0, 1),
        (1, 1),
        (2, 2),
        (3, 2),
        (4, 3),
        (255, 8),
        (256, 9),
        (u64::MAX, 64),
    ]
    .into_iter()
    .enumerate()
    {
        tree.insert(0, last, id);
        check_rules(&tree);
        assert_eq!(tree.index_bits(), bits, "after last = {last}");
    }
    // They do not shrink while anything is left.
    for (id, last) in [u64::MAX, 256, 255, 4, 3, 2, 1].into_iter().enumerate() {
        assert_eq!(tree.remove(0, last, 7 - id), Ok(Removed::TreeNode));
        check_rules(&tree);
        assert_eq!(tree.index_bits(), 64);
    }
    assert_eq!(tree.remove(0, 0, 0), Ok(Removed::TreeNode));
    assert_eq!((tree.index_bits(), tree.tree_nodes()), (1, 0));
    tree.insert(5, 5, 9);
    assert_eq!(tree.index_bits(), 3);
}

#[test]
fn growth_by_several_bits_chains_the_old_roots_to_the_left() {
    // Two bits grow to five: 0-16 becomes the root for one of the three, and two roots are pulled out, 2-3 and then
    // 0-2.
    let mut tree = tree_of(&[(2, 3), (0, 2), (1, 1)]);
    tree.insert(0, 16, 3);
    check_rules(&tree);
    assert_eq!(tree.index_bits(), 5);
    let chain = [
        Some((0, 16)),
        Some((2, 3)),
        Some((0, 2)),
        Some((1, 1)),
        None,
        None,
        None,
        None,
        None,
    ];
    assert_eq!(pairs(&tree), chain);
}

#[test]
fn growth_beyond_the_number_of_nodes_empties_the_old_tree() {
    let mut tree = tree_of(&[(0, 0), (1, 1)]);
    tree.insert(1 << 40, 1 << 40, 2);
    check_rules(&tree);
    assert_eq!(tree.index_bits(), 41);
    assert_eq!(ids(&tree.visit(0, u64::MAX)), [2, 1, 0]);
}

#[test]
fn mappers_of_one_range_are_one_node_and_a_list() {
    const MAPPERS: u32 = 1000;
    let mut tree = PrioTree::new();
    assert_eq!(tree.insert(16, 31, 0), Placed::TreeNode);
    for id in 1..MAPPERS {
        assert_eq!(tree.insert(16, 31, id), Placed::FoundList);
    }
    assert_eq!((tree.tree_nodes(), tree.len()), (1, 1000));
    let visit = tree.visit(20, u64::MAX);
    assert_eq!(visit.steps(), (1, 999));
    assert_eq!(ids(&visit), (0..MAPPERS).collect::<Vec<_>>());
    for id in 0..MAPPERS - 1 {
        assert_eq!(tree.remove(16, 31, id), Ok(Removed::Promoted(id + 1)));
    }
    assert_eq!(tree.remove(16, 31, MAPPERS - 1), Ok(Removed::TreeNode));
    assert!(tree.is_empty());
}

#[test]
fn a_child_goes_last_beside_the_node_and_next_beside_a_member() {
    let beside = |id| Sibling {
        id,
        first: 4,
        last: 7,
    };
    let mut tree = PrioTree::new();
    tree.insert(4, 7, 'a');
    for child in ['b', 'c', 'd'] {
        assert_eq!(
            tree.insert_beside(beside('a'), 4, 7, child),
            Placed::BesideSibling
        );
    }
    assert_eq!(ids(&tree.visit(4, 4)), ['a', 'b', 'c', 'd']);
    tree.insert_beside(beside('b'), 4, 7, 'x');
    tree.insert_beside(beside('d'), 4, 7, 'y');
    assert_eq!(ids(&tree.visit(4, 4)), ['a', 'b', 'x', 'c', 'd', 'y']);
    // The head takes the place of the node, and with it what its children do.
    assert_eq!(tree.remove(4, 7, 'a'), Ok(Removed::Promoted('b')));
    tree.insert_beside(beside('b'), 4, 7, 'z');
    assert_eq!(ids(&tree.visit(4, 4)), ['b', 'x', 'c', 'd', 'y', 'z']);
    assert_eq!(tree.remove(4, 7, 'z'), Ok(Removed::ListMember));
    assert_eq!(tree.remove(4, 7, 'x'), Ok(Removed::ListMember));
    check_rules(&tree);
    assert_eq!(ids(&tree.visit(4, 4)), ['b', 'c', 'd', 'y']);
}

#[test]
fn beside_falls_back_to_insertion() {
    let mut tree = PrioTree::new();
    tree.insert(4, 7, 'a');
    // Another interval, a sibling that is not there, and one that is there with another interval than claimed.
    assert_eq!(
        tree.insert_beside(
            Sibling {
                id: 'a',
                first: 4,
                last: 7
            },
            4,
            5,
            'b'
        ),
        Placed::TreeNode
    );
    assert_eq!(
        tree.insert_beside(
            Sibling {
                id: '?',
                first: 4,
                last: 5
            },
            4,
            5,
            'c'
        ),
        Placed::FoundList
    );
    assert_eq!(
        tree.insert_beside(
            Sibling {
                id: 'a',
                first: 4,
                last: 5
            },
            4,
            5,
            'd'
        ),
        Placed::FoundList
    );
    check_rules(&tree);
    assert_eq!(ids(&tree.visit(0, 9)), ['a', 'b', 'c', 'd']);
}

#[test]
fn a_removal_that_does_not_match_changes_nothing() {
    let mut tree = tree_of(&[(4, 7), (4, 5)]);
    let before = format!("{tree:?}");
    for (first, last, id) in [(4, 7, 1), (4, 5, 0), (4, 6, 0), (7, 4, 0), (4, 7, 9)] {
        assert_eq!(tree.remove(first, last, id), Err(NotIndexed { first, last }));
    }
    assert_eq!(format!("{tree:?}"), before);
    assert_eq!(
        NotIndexed { first: 4, last: 31 }.to_string(),
        "no such mapping of file pages 0x4..=0x1f in i_mmap"
    );
}

#[test]
#[should_panic(expected = "inverted interval")]
fn an_inverted_interval_is_refused() {
    PrioTree::new().insert(5, 4, 0);
}

#[test]
#[should_panic(expected = "twice")]
fn a_second_insertion_is_refused() {
    let mut tree = tree_of(&[(4, 7)]);
    tree.insert(0, 1, 0);
}
