//! Random scripts against an ordered map, and cases worked out by hand.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

/// What the tree is a form of: items with their tags, by index.
#[derive(Default)]
struct Naive(BTreeMap<u64, (u32, [bool; MAX_TAGS])>);

impl Naive {
    /// The smallest h with all indices below 64^h.
    fn height(&self) -> u32 {
        let largest = self.0.keys().next_back().map_or(0, |index| u128::from(*index));
        (0..).find(|h| largest < 64_u128.pow(*h)).unwrap()
    }

    fn indices(&self, tag: Option<Tag>) -> BTreeSet<u64> {
        let wanted = |tags: &[bool; MAX_TAGS]| tag.is_none_or(|tag| tags[tag as usize]);
        self.0
            .iter()
            .filter(|(_, (_, tags))| wanted(tags))
            .map(|(index, _)| *index)
            .collect()
    }

    /// One node for each span of 64^level indices with an item, at each level.
    fn nodes(&self) -> usize {
        let spans = |level| self.0.keys().map(|i| span(*i, level)).collect::<BTreeSet<_>>();
        (1..=self.height()).map(|level| spans(level).len()).sum()
    }

    /// Nodes above an index, from the top, up to the first that does not exist.
    fn nodes_towards(&self, index: u64) -> u64 {
        (1..=self.height())
            .rev()
            .take_while(|level| self.0.keys().any(|i| span(*i, *level) == span(index, *level)))
            .count() as u64
    }

    /// The batch, and the nodes of a search that begins at the root again after each leaf and each dead end.
    fn gang(&self, tag: Option<Tag>, from: u64, max: usize) -> Walked<Vec<(u64, u32)>> {
        let wanted = self.indices(tag);
        let due: Vec<u64> = wanted.range(from..).copied().take(max).collect();
        let found = due.iter().map(|index| (*index, self.0[index].0)).collect();
        let mut nodes = 0;
        let mut next = Some(u128::from(from));
        let mut taken = 0;
        let height = self.height();
        while let Some(mut at) = next.filter(|at| *at < 64_u128.pow(height))
            && taken < max
            && height > 0
            && !wanted.is_empty()
        {
            next = None;
            for level in (1..=height).rev() {
                nodes += 1;
                let (begin, end) = (
                    at >> (6 * level) << (6 * level),
                    ((at >> (6 * level)) + 1) << (6 * level),
                );
                let slot_begin = (at >> (6 * (level - 1)) << (6 * (level - 1))).max(begin);
                let ahead = wanted
                    .iter()
                    .map(|i| u128::from(*i))
                    .find(|i| *i >= slot_begin && *i < end);
                let Some(ahead) = ahead else {
                    next = Some(end);
                    break;
                };
                let ahead = ahead >> (6 * (level - 1)) << (6 * (level - 1));
                at = at.max(ahead);
                if level == 1 {
                    taken += wanted
                        .range(at as u64..)
                        .take_while(|i| u128::from(**i) < end)
                        .count();
                    next = Some(end);
                }
            }
            next = next.filter(|at| *at <= u128::from(u64::MAX));
        }
        Walked { found, nodes }
    }
}

fn span(index: u64, level: u32) -> u128 {
    u128::from(index) >> (6 * level)
}

/// Follows all nodes from the top: every one is used, its tags are those of what is below.
fn check_structure(tree: &RadixTree<u32>) {
    fn below(tree: &RadixTree<u32>, level: u32, at: u32) -> (usize, [bool; MAX_TAGS]) {
        let marks = tree.marks(level, at);
        assert_ne!(marks.used, 0, "an empty node at level {level}");
        for tags in marks.tags {
            assert_eq!(tags & !marks.used, 0, "a tag without an item");
        }
        let mut nodes = 1;
        if level > 1 {
            for slot in (0..64).filter(|slot| marks.used >> slot & 1 != 0) {
                let (more, tags) = below(tree, level - 1, tree.inner.get(at).slots[slot]);
                nodes += more;
                for tag in Tag::ALL {
                    let here = marks.tags[tag as usize] >> slot & 1 != 0;
                    assert_eq!(here, tags[tag as usize], "{tag:?} of a node at level {level}");
                }
            }
        }
        (nodes, marks.tags.map(|tags| tags != 0))
    }
    let nodes = match tree.root {
        Root::Empty => {
            assert_eq!(tree.root_tags, [false; MAX_TAGS]);
            0
        }
        Root::Item(_) => 0,
        Root::Node { height, at } => {
            let (nodes, tags) = below(tree, height, at);
            assert_eq!(tree.root_tags, tags);
            nodes
        }
    };
    assert_eq!(tree.nodes(), nodes, "a node that nothing leads to");
}

#[derive(Clone, Debug)]
enum Op {
    Insert(u64),
    Remove(prop::sample::Index),
    RemoveAt(u64),
    Tag(prop::sample::Index, Tag),
    Untag(prop::sample::Index, Tag),
    UntagAt(u64, Tag),
    Look(u64),
    Gang(u64, usize, Option<Tag>),
}

/// Indices that share leaves, that straddle the borders of nodes, and that use every bit.
fn index() -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => 0..6_u64,
        4 => 0..200_u64,
        2 => 4000..4200_u64,
        2 => (0..64_u32, 0..3_u64).prop_map(|(bit, around)| (1_u64 << bit).wrapping_add(around).wrapping_sub(1)),
        1 => any::<u64>(),
        1 => u64::MAX - 70..=u64::MAX,
    ]
}

fn tag() -> impl Strategy<Value = Tag> {
    prop::sample::select(&Tag::ALL[..])
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => index().prop_map(Op::Insert),
        4 => any::<prop::sample::Index>().prop_map(Op::Remove),
        1 => index().prop_map(Op::RemoveAt),
        3 => (any::<prop::sample::Index>(), tag()).prop_map(|(at, tag)| Op::Tag(at, tag)),
        2 => (any::<prop::sample::Index>(), tag()).prop_map(|(at, tag)| Op::Untag(at, tag)),
        1 => (index(), tag()).prop_map(|(at, tag)| Op::UntagAt(at, tag)),
        2 => index().prop_map(Op::Look),
        3 => (index(), 0..20_usize, prop::option::of(tag())).prop_map(|(at, max, tag)| Op::Gang(at, max, tag)),
    ]
}

fn apply(tree: &mut RadixTree<u32>, naive: &mut Naive, serial: u32, op: Op) {
    let chosen = |naive: &Naive, which: prop::sample::Index| {
        let live: Vec<u64> = naive.0.keys().copied().collect();
        (!live.is_empty()).then(|| *which.get(&live))
    };
    match op {
        Op::Insert(at) => {
            let there = naive.0.get(&at).map(|(item, _)| *item);
            naive.0.entry(at).or_insert((serial, [false; MAX_TAGS]));
            let walked = tree.insert(at, serial);
            assert_eq!(walked.found, there.map_or(Ok(()), |item| Err(Occupied(item))));
            assert_eq!(walked.nodes, u64::from(naive.height()));
        }
        Op::Remove(which) => {
            if let Some(at) = chosen(naive, which) {
                let nodes = naive.nodes_towards(at);
                let found = naive.0.remove(&at).map(|(item, _)| item);
                assert_eq!(tree.remove(at), Walked { found, nodes });
            }
        }
        Op::RemoveAt(at) => {
            let nodes = naive.nodes_towards(at);
            let found = naive.0.remove(&at).map(|(item, _)| item);
            assert_eq!(tree.remove(at), Walked { found, nodes });
        }
        Op::Tag(which, tag) => {
            if let Some(at) = chosen(naive, which) {
                let item = naive.0.get_mut(&at).unwrap();
                item.1[tag as usize] = true;
                assert_eq!(tree.tag_set(at, tag).found, item.0);
            }
        }
        Op::Untag(which, tag) => {
            if let Some(at) = chosen(naive, which) {
                let item = naive.0.get_mut(&at).unwrap();
                item.1[tag as usize] = false;
                assert_eq!(tree.tag_clear(at, tag).found, Some(item.0));
            }
        }
        Op::UntagAt(at, tag) => {
            let item = naive.0.get_mut(&at).map(|(item, tags)| {
                tags[tag as usize] = false;
                *item
            });
            assert_eq!(tree.tag_clear(at, tag).found, item);
        }
        Op::Look(at) => {
            let item = naive.0.get(&at);
            let walked = Walked {
                found: item.map(|(item, _)| *item),
                nodes: naive.nodes_towards(at),
            };
            assert_eq!(tree.lookup(at), walked);
            for tag in Tag::ALL {
                assert_eq!(
                    tree.tagged(at, tag).found,
                    item.is_some_and(|(_, tags)| tags[tag as usize])
                );
            }
        }
        Op::Gang(at, max, None) => assert_eq!(tree.gang_lookup(at, max), naive.gang(None, at, max)),
        Op::Gang(at, max, Some(tag)) => {
            assert_eq!(tree.gang_lookup_tag(at, max, tag), naive.gang(Some(tag), at, max));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn agrees_with_an_ordered_map(ops in prop::collection::vec(op(), 1..120)) {
        let (mut tree, mut naive) = (RadixTree::new(), Naive::default());
        for (serial, op) in ops.into_iter().enumerate() {
            apply(&mut tree, &mut naive, serial as u32, op);
            check_structure(&tree);
            prop_assert_eq!(tree.height(), naive.height());
            prop_assert_eq!(tree.nodes(), naive.nodes());
            prop_assert_eq!(tree.len(), naive.0.len() as u64);
            for tag in Tag::ALL {
                prop_assert_eq!(tree.any_tagged(tag), !naive.indices(Some(tag)).is_empty());
            }
        }
        let items: Vec<_> = naive.0.iter().map(|(index, (item, _))| (*index, *item)).collect();
        prop_assert_eq!(tree.iter().collect::<Vec<_>>(), items);
    }

    #[test]
    fn what_was_emptied_holds_no_node(indices in prop::collection::btree_set(index(), 1..60)) {
        let mut tree = RadixTree::new();
        for index in &indices {
            prop_assert_eq!(tree.insert(*index, 7).found, Ok(()));
            let _ = tree.tag_set(*index, Tag::Dirty);
        }
        for index in &indices {
            prop_assert_eq!(tree.remove(*index).found, Some(7));
        }
        prop_assert_eq!((tree.nodes(), tree.height(), tree.len()), (0, 0, 0));
        prop_assert!(!tree.any_tagged(Tag::Dirty));
    }
}

fn tree_of(indices: impl IntoIterator<Item = u64>) -> RadixTree<u64> {
    let mut tree = RadixTree::new();
    for index in indices {
        assert_eq!(tree.insert(index, index).found, Ok(()));
    }
    tree
}

#[test]
fn the_first_page_alone_needs_no_node() {
    let mut tree = tree_of([0]);
    assert_eq!((tree.height(), tree.nodes()), (0, 0));
    assert_eq!(
        tree.lookup(0),
        Walked {
            found: Some(0),
            nodes: 0
        }
    );
    assert_eq!(tree.get(1), None);
    let _ = tree.tag_set(0, Tag::Writeback);
    assert!(tree.tagged(0, Tag::Writeback).found);
    assert_eq!(tree.gang_lookup_tag(0, 14, Tag::Writeback).found, [(0, 0)]);
    // The second page makes it a node, and the tag moves into the node's first slot.
    assert_eq!(tree.insert(1, 1).nodes, 1);
    assert_eq!((tree.height(), tree.nodes()), (1, 1));
    assert_eq!(tree.gang_lookup_tag(0, 14, Tag::Writeback).found, [(0, 0)]);
    assert!(!tree.tagged(1, Tag::Writeback).found);
}

#[test]
fn the_height_follows_the_largest_index() {
    for (largest, height) in [
        (0, 0),
        (1, 1),
        (63, 1),
        (64, 2),
        (4095, 2),
        (4096, 3),
        (262_143, 3),
        (262_144, 4),
        (1 << 60, 11),
        (u64::MAX, 11),
    ] {
        let mut tree = tree_of([largest]);
        assert_eq!(tree.height(), height, "{largest}");
        if largest > 0 {
            // It grows to the same height when there was something, and shrinks again when the large one goes.
            let mut grown = tree_of([0, largest]);
            assert_eq!(grown.height(), height, "{largest}");
            assert_eq!(grown.remove(largest).nodes, u64::from(height));
            assert_eq!((grown.height(), grown.nodes()), (0, 0), "{largest}");
        }
        assert_eq!(tree.remove(largest).found, Some(largest));
        assert_eq!((tree.height(), tree.nodes()), (0, 0), "{largest}");
    }
}

#[test]
fn removing_a_page_that_is_not_the_last_large_one_keeps_the_height() {
    let mut tree = tree_of([0, 1, 64, 4096, 4097]);
    assert_eq!(tree.height(), 3);
    assert_eq!(tree.remove(4097).found, Some(4097));
    assert_eq!(tree.height(), 3);
    // 4096 was all of the right half: two levels are left for 0, 1 and 64, then one, then none.
    assert_eq!(tree.remove(4096).found, Some(4096));
    assert_eq!((tree.height(), tree.nodes()), (2, 3));
    assert_eq!(tree.remove(64).found, Some(64));
    assert_eq!((tree.height(), tree.nodes()), (1, 1));
    assert_eq!(tree.remove(1).found, Some(1));
    assert_eq!((tree.height(), tree.nodes()), (0, 0));
}

#[test]
fn a_batch_walks_from_the_root_for_each_leaf() {
    // Pages 60 to 73: four in the first leaf, ten in the second; two levels each time.
    let tree = tree_of(0..200);
    let batch = tree.gang_lookup(60, 14);
    assert_eq!(batch.found, (60..74).map(|i| (i, i)).collect::<Vec<_>>());
    assert_eq!(batch.nodes, 4);
    // One leaf.
    assert_eq!(tree.gang_lookup(64, 14).nodes, 2);
    // Beyond the largest page of the last leaf: down and found nothing. Beyond what the height holds: not even that.
    assert_eq!(
        tree.gang_lookup(200, 14),
        Walked {
            found: vec![],
            nodes: 3
        }
    );
    assert_eq!(
        tree.gang_lookup(4096, 14),
        Walked {
            found: vec![],
            nodes: 0
        }
    );
}

#[test]
fn a_batch_of_a_tag_passes_by_the_leaves_without_it() {
    let mut tree = tree_of(0..640);
    for index in [5, 300, 301, 639] {
        let _ = tree.tag_set(index, Tag::Dirty);
    }
    let batch = tree.gang_lookup_tag(0, 14, Tag::Dirty);
    assert_eq!(batch.found, [(5, 5), (300, 300), (301, 301), (639, 639)]);
    // Leaves of 5, of 300 and 301, and of 639, two nodes each; then the root, which has none behind the last.
    assert_eq!(batch.nodes, 7);
    assert_eq!(tree.gang_lookup_tag(0, 14, Tag::Writeback).nodes, 0);
    assert_eq!(tree.remove(639).found, Some(639));
    assert_eq!(tree.tag_clear(5, Tag::Dirty).found, Some(5));
    assert_eq!(
        tree.gang_lookup_tag(0, 14, Tag::Dirty).found,
        [(300, 300), (301, 301)]
    );
}

#[test]
fn a_batch_ends_at_the_last_of_all_indices() {
    let tree = tree_of([u64::MAX - 1, u64::MAX]);
    let both = [(u64::MAX - 1, u64::MAX - 1), (u64::MAX, u64::MAX)];
    assert_eq!(tree.gang_lookup(0, 14).found, both);
    assert_eq!(tree.gang_lookup(u64::MAX, 14).found, both[1..]);
}

#[test]
fn a_second_insertion_changes_nothing() {
    let mut tree = tree_of([3]);
    assert_eq!(
        tree.insert(3, 9),
        Walked {
            found: Err(Occupied(3)),
            nodes: 1
        }
    );
    assert_eq!((tree.get(3), tree.len()), (Some(3), 1));
}

#[test]
#[should_panic(expected = "only what is in the tree is tagged")]
fn a_tag_without_an_item_is_refused() {
    let _ = tree_of([3]).tag_set(4, Tag::Dirty);
}
