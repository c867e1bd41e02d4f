//! Fixtures worked out by hand from the rules, and random scripts against a list.

use proptest::prelude::*;

use super::super::Met;
use super::super::scripts::{Op, ids, interval, op};
use super::*;

/// The index as a list: ascending `first`, and whoever came later behind whoever came earlier.
#[derive(Default)]
struct Naive(Vec<(u64, u64, u32)>);

impl Naive {
    fn insert(&mut self, first: u64, last: u64, id: u32) {
        let at = self.0.partition_point(|other| other.0 <= first);
        self.0.insert(at, (first, last, id));
    }

    fn beside(&mut self, sibling: u32, id: u32) {
        let at = self.0.iter().position(|other| other.2 == sibling).unwrap();
        let (first, last, _) = self.0[at];
        self.0.insert(at + 1, (first, last, id));
    }

    fn remove(&mut self, id: u32) {
        self.0.retain(|other| other.2 != id);
    }

    fn visit(&self, first: u64, last: u64) -> Vec<u32> {
        let meets = |other: &&(u64, u64, u32)| other.0 <= last && first <= other.1;
        self.0.iter().filter(meets).map(|other| other.2).collect()
    }
}

/// Each rule of the tree, checked node by node; the nodes in order.
fn check_rules<Id: Copy + Ord>(tree: &IntervalTree<Id>) -> Vec<At> {
    /// Nodes in order, number of black ones on each path, and how far they reach.
    fn below<Id: Copy + Ord>(
        tree: &IntervalTree<Id>,
        at: Option<At>,
        parent: Option<At>,
        order: &mut Vec<At>,
    ) -> (u32, Option<u64>) {
        let Some(at) = at else { return (0, None) };
        let node = tree.node(at);
        assert_eq!(node.parent, parent);
        assert_eq!(tree.by_id.get(&node.id), Some(&at));
        let red = node.colour == Colour::Red;
        assert!(
            !(red && parent.is_none_or(|parent| tree.is_red(Some(parent)))),
            "a red node on top or below a red one"
        );
        let (blacks, left) = below(tree, node.left, Some(at), order);
        order.push(at);
        let (other, right) = below(tree, node.right, Some(at), order);
        assert_eq!(blacks, other, "paths with different numbers of black nodes");
        let reach = [left, right, Some(node.last)].into_iter().flatten().max();
        assert_eq!(Some(node.reach), reach, "reach of a sub-tree");
        (blacks + u32::from(!red), reach)
    }
    let mut order = Vec::new();
    below(tree, tree.root, None, &mut order);
    assert_eq!(order.len(), tree.len());
    assert_eq!(order.len(), tree.nodes.in_use());
    assert_eq!(tree.leftmost, order.first().copied());
    assert!(order.is_sorted_by_key(|at| tree.node(*at).first));
    order
}

/// A node is stepped on iff all sub-trees on its path reach the query, and every right turn is taken at a node that
/// does not begin behind it; and nothing is if the smallest `first` lies behind.
fn stepped_on<Id: Copy + Ord>(tree: &IntervalTree<Id>, order: &[At], first: u64, last: u64) -> usize {
    let smallest = order.iter().map(|at| tree.node(*at).first).min();
    let on = |at: &&At| {
        let mut at = **at;
        loop {
            if tree.node(at).reach < first {
                return false;
            }
            let Some(parent) = tree.node(at).parent else {
                return smallest.is_some_and(|smallest| smallest <= last);
            };
            if tree.node(parent).right == Some(at) && tree.node(parent).first > last {
                return false;
            }
            at = parent;
        }
    };
    order.iter().filter(on).count()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn agrees_with_a_list(ops in prop::collection::vec(op(), 1..160)) {
        let mut tree = IntervalTree::new();
        let mut naive = Naive::default();
        let mut next = 0_u32;
        for op in ops {
            match op {
                Op::Insert(first, last) => {
                    prop_assert_eq!(tree.insert(first, last, next), Placed::TreeNode);
                    naive.insert(first, last, next);
                    next += 1;
                }
                Op::Fork(which) if !naive.0.is_empty() => {
                    let (first, last, id) = *which.get(&naive.0);
                    let placed = tree.insert_beside(Sibling { id, first, last }, first, last, next);
                    prop_assert_eq!(placed, Placed::TreeNode);
                    naive.beside(id, next);
                    next += 1;
                }
                Op::Remove(which) if !naive.0.is_empty() => {
                    let (first, last, id) = *which.get(&naive.0);
                    prop_assert_eq!(tree.remove(first, last, id), Ok(Removed::TreeNode));
                    naive.remove(id);
                }
                Op::Query(first, last) => {
                    let order = check_rules(&tree);
                    let visit = tree.visit(first, last);
                    prop_assert_eq!(ids(&visit), naive.visit(first, last));
                    let stepped = stepped_on(&tree, &order, first, last) as u32;
                    prop_assert_eq!(visit.steps(), (stepped, 0));
                }
                Op::Fork(_) | Op::Remove(_) => {}
            }
            let order: Vec<u32> = check_rules(&tree).iter().map(|at| tree.node(*at).id).collect();
            let due: Vec<u32> = naive.0.iter().map(|other| other.2).collect();
            prop_assert_eq!(order, due);
        }
    }

    #[test]
    fn a_path_is_at_most_twice_as_long_as_the_logarithm(spans in prop::collection::vec(interval(), 1..200)) {
        let tree = tree_of(&spans);
        let depth = |mut at: At| {
            let mut depth = 1;
            while let Some(parent) = tree.node(at).parent {
                (at, depth) = (parent, depth + 1);
            }
            depth
        };
        let deepest = check_rules(&tree).into_iter().map(depth).max().unwrap();
        prop_assert!(deepest <= 2 * (spans.len() + 1).ilog2() + 2);
    }
}

fn tree_of(spans: &[(u64, u64)]) -> IntervalTree<usize> {
    let mut tree = IntervalTree::new();
    for (id, &(first, last)) in spans.iter().enumerate() {
        tree.insert(first, last, id);
        check_rules(&tree);
    }
    tree
}

/// Preorder: `first`, and whether the node is red; `None` marks an empty place.
fn shape<Id: Copy + Ord>(tree: &IntervalTree<Id>) -> Vec<Option<(u64, bool)>> {
    let mut out = Vec::new();
    let mut ahead = vec![tree.root];
    while let Some(place) = ahead.pop() {
        out.push(place.map(|at| (tree.node(at).first, tree.is_red(Some(at)))));
        if let Some(at) = place {
            ahead.push(tree.node(at).right);
            ahead.push(tree.node(at).left);
        }
    }
    out
}

const NONE: Option<(u64, bool)> = None;

const fn black(first: u64) -> Option<(u64, bool)> {
    Some((first, false))
}

const fn red(first: u64) -> Option<(u64, bool)> {
    Some((first, true))
}

#[test]
fn an_empty_tree_meets_nothing() {
    let mut tree = IntervalTree::<u32>::new();
    assert_eq!(tree.visit(0, u64::MAX), Visit::nothing());
    assert!(tree.is_empty());
    assert_eq!(tree.remove(0, 1, 7), Err(NotIndexed { first: 0, last: 1 }));
}

#[test]
fn ascending_insertions_lean_right() {
    // 3 turns 1-2-3 around 2. At 4 the uncle 1 is red: colours go up. 5 turns 3-4-5 around 4. At 6 the uncle 3 is red:
    // 4 becomes red below the black root.
    let tree = tree_of(&[(1, 1), (2, 2), (3, 3), (4, 4), (5, 5), (6, 6)]);
    let expected = [
        black(2),
        black(1),
        NONE,
        NONE,
        red(4),
        black(3),
        NONE,
        NONE,
        black(5),
        NONE,
        red(6),
        NONE,
        NONE,
    ];
    assert_eq!(shape(&tree), expected);
}

#[test]
fn an_inner_grandchild_is_turned_out_first() {
    let both = [black(2), red(1), NONE, NONE, red(3), NONE, NONE];
    assert_eq!(shape(&tree_of(&[(1, 1), (3, 3), (2, 2)])), both);
    assert_eq!(shape(&tree_of(&[(3, 3), (1, 1), (2, 2)])), both);
}

#[test]
fn a_node_with_two_children_is_replaced_by_its_successor() {
    let mut tree = tree_of(&[(1, 1), (2, 2), (3, 3), (4, 4), (5, 5), (6, 6)]);
    // 3 takes the root's place and colour. Its black is lacking at the left of 4, whose right nephew 6 is red: 4 sinks,
    // 5 rises with 4's red.
    assert_eq!(tree.remove(2, 2, 1), Ok(Removed::TreeNode));
    check_rules(&tree);
    let expected = [
        black(3),
        black(1),
        NONE,
        NONE,
        red(5),
        black(4),
        NONE,
        NONE,
        black(6),
        NONE,
        NONE,
    ];
    assert_eq!(shape(&tree), expected);
    // A leaf without black to lend: 1 goes, its sibling 5 is red and rises; 4 below it then has no red child and
    // becomes red under 3.
    assert_eq!(tree.remove(1, 1, 0), Ok(Removed::TreeNode));
    check_rules(&tree);
    let expected = [black(5), black(3), NONE, red(4), NONE, NONE, black(6), NONE, NONE];
    assert_eq!(shape(&tree), expected);
}

#[test]
fn a_walk_enters_what_reaches_the_query_and_stops_behind_it() {
    // 2 on top; 1 left; 4 right with 3 and 5, and 6 right of 5. Only 3 is long.
    let tree = tree_of(&[(1, 1), (2, 2), (3, 9), (4, 4), (5, 5), (6, 6)]);
    // Page 9: 1 does not reach it and is refused; nor does 5's sub-tree.
    assert_eq!(
        tree.visit(9, 9),
        Visit {
            met: vec![Met::node(2, 3)],
            tail: 0
        }
    );
    // Pages 1 and 2: 4 and 3 are stepped on, since 4 reaches far enough, and 3 begins behind.
    assert_eq!(
        tree.visit(1, 2),
        Visit {
            // 2 is on the way to 1.
            met: vec![Met::node(0, 2), Met::node(1, 0)],
            tail: 2
        }
    );
    // Truncation to five pages.
    assert_eq!(ids(&tree.visit(5, u64::MAX)), [2, 4, 5]);
    assert_eq!(tree.visit(10, u64::MAX), Visit::nothing());
    assert_eq!(tree.visit(0, 0), Visit::nothing());
    assert_eq!(tree.visit(5, 4), Visit::nothing());
}

#[test]
fn mappers_of_one_range_are_as_many_nodes() {
    let mut tree = IntervalTree::new();
    for id in 0..1000_u32 {
        assert_eq!(tree.insert(16, 31, id), Placed::TreeNode);
    }
    let visit = tree.visit(20, u64::MAX);
    assert_eq!(visit.steps(), (1000, 0));
    assert_eq!(ids(&visit), (0..1000).collect::<Vec<_>>(), "equal keys go right");
    for id in 0..1000 {
        assert_eq!(tree.remove(16, 31, id), Ok(Removed::TreeNode));
    }
    assert!(tree.is_empty());
}

#[test]
fn a_child_comes_directly_after_its_parent() {
    let beside = |id| Sibling {
        id,
        first: 4,
        last: 7,
    };
    let mut tree = IntervalTree::new();
    for id in ['a', 'b', 'c'] {
        tree.insert(4, 7, id);
    }
    // Parent without a right child, and with one.
    tree.insert_beside(beside('a'), 4, 7, 'x');
    tree.insert_beside(beside('b'), 4, 7, 'y');
    tree.insert_beside(beside('c'), 4, 7, 'z');
    check_rules(&tree);
    assert_eq!(ids(&tree.visit(4, 4)), ['a', 'x', 'b', 'y', 'c', 'z']);
    // Another interval, a sibling that is not there, one that is there with another interval: an insertion.
    let other = Sibling {
        id: 'a',
        first: 4,
        last: 9,
    };
    tree.insert_beside(beside('a'), 4, 5, '1');
    tree.insert_beside(beside('?'), 4, 7, '2');
    tree.insert_beside(other, 4, 9, '3');
    check_rules(&tree);
    assert_eq!(
        ids(&tree.visit(4, 4)),
        ['a', 'x', 'b', 'y', 'c', 'z', '1', '2', '3']
    );
}

#[test]
fn a_removal_that_does_not_match_changes_nothing() {
    let mut tree = tree_of(&[(4, 7), (4, 5)]);
    let before = format!("{tree:?}");
    for (first, last, id) in [(4, 7, 1), (4, 5, 0), (4, 6, 0), (7, 4, 0), (4, 7, 9)] {
        assert_eq!(tree.remove(first, last, id), Err(NotIndexed { first, last }));
    }
    assert_eq!(format!("{tree:?}"), before);
}

#[test]
#[should_panic(expected = "inverted interval")]
fn an_inverted_interval_is_refused() {
    IntervalTree::new().insert(5, 4, 0);
}

#[test]
#[should_panic(expected = "twice")]
fn a_second_insertion_is_refused() {
    let mut tree = tree_of(&[(4, 7)]);
    tree.insert(0, 1, 0);
}
