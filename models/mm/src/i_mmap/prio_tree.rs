//! The raw radix priority search tree of Linux 2.6.27, `lib/prio_tree.c` (the tree) and `mm/prio_tree.c` (the lists
//! of VMAs on its nodes).
//!
//! # The tree
//!
//! One node for each **distinct** interval `[first, last]`. It is a heap on `last`: a parent's `last` is never
//! smaller than its child's, and where they are equal the parent has the smaller `first`. It is a radix tree on
//! `first`: a node at depth `d < index_bits` sends a descendant left or right by bit `index_bits - 1 - d` of the
//! descendant's `first`. Below that depth all of a sub-tree shares one `first`; there, in the *overflow sub-tree*,
//! bits of `last - first` decide, from bit 63 down. Hence no path is longer than `index_bits + 64` steps.
//!
//! `index_bits` is the number of bits of the largest `last` seen since the tree was last empty, at least 1. It never
//! shrinks, except to 1 when the last node leaves. Raising it by `k` puts the new node on top and, because each
//! existing `first` has only zeroes in the new bits, everything else to its left; the heap rule is kept by pulling
//! one root for each bit beyond the first out of the old tree, into a chain of left children.
//!
//! These rules leave no freedom: the nodes held and `index_bits` determine the shape, whatever the history. Only the
//! order within a list depends on it.
//!
//! # The lists
//!
//! VMAs with an identical interval share a node. One of them is the tree node; the others are its `vm_set` list. A
//! VMA found to match a tree node is appended to the list. A VMA added beside a known relative (`vma_prio_tree_add`,
//! which only `dup_mmap` uses; a split removes and inserts) is appended if the relative is the tree node and put
//! directly after it if the relative is itself a list member. If the tree node leaves, the head of its list becomes
//! the tree node in the same place, and no walk is needed. So `V` processes mapping one range are one tree node and
//! `V - 1` list members.
//!
//! # The walk
//!
//! Preorder, left before right, every reported node at once followed by its list. A child is entered only if its
//! `last` reaches the query; a right child, in the radix levels, only if moreover the smallest `first` its position
//! admits does not lie beyond the query.
//!
//! # Deviations
//!
//! * The kernel embeds the links in the VMA. Here nodes and list members are arena slots, and an ordered map from id
//!   to slot stands for the pointer. The map costs the host a few comparisons and the simulated kernel nothing.
//! * The kernel finds the tree node, the head and the members apart by which of `vm_set.parent` and `vm_set.head` are
//!   null. Here the node names the first of its VMAs, and that one plays the tree node.
//! * A walk is answered whole, since it must not outlive the lock anyway, instead of by an iterator.
//! * In the overflow levels the kernel repeats the prefix test with the complete prefix, which cannot fail there. It
//!   is left out.

use std::collections::BTreeMap;

use super::{IntervalIndex, Met, NotIndexed, Placed, Removed, Sibling, Visit};
use crate::arena::Arena;

/// Bits in a page offset, and in an interval's length.
const OFFSET_BITS: u32 = u64::BITS;

/// `index_bits` of an empty tree.
const MIN_INDEX_BITS: u32 = 1;

/// Slot of a tree node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct NodeAt(u32);

/// Slot of a VMA on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct MemberAt(u32);

/// One of the two children of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Left,
    Right,
}

/// A closed interval of pages: `first` is the radix index, `last` the heap index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    first: u64,
    last: u64,
}

impl Span {
    fn new(first: u64, last: u64) -> Self {
        assert!(
            first <= last,
            "inverted interval of file pages {first:#x}..={last:#x}"
        );
        Self { first, last }
    }

    /// Whether the heap order puts `self` nearer to the root than `other`.
    const fn above(self, other: Self) -> bool {
        self.last > other.last || (self.last == other.last && self.first < other.first)
    }

    const fn intersects(self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }

    /// The child through which a node at `depth` is left on the way to this interval.
    const fn side(self, depth: u32, index_bits: u32) -> Side {
        let set = if depth < index_bits {
            self.first >> (index_bits - 1 - depth) & 1
        } else {
            // Two intervals that agree in all these bits are the same one, so no walk gets beyond the lowest. The
            // kernel's mask would start again at the top, as the remainder does here.
            let level = (depth - index_bits) % OFFSET_BITS;
            (self.last - self.first) >> (OFFSET_BITS - 1 - level) & 1
        };
        if set == 0 { Side::Left } else { Side::Right }
    }
}

#[derive(Clone, Copy, Debug)]
struct Node {
    span: Span,
    parent: Option<NodeAt>,
    left: Option<NodeAt>,
    right: Option<NodeAt>,
    /// The VMA that plays the tree node; those after it are its `vm_set` list.
    front: MemberAt,
    back: MemberAt,
}

impl Node {
    const fn child(&self, side: Side) -> Option<NodeAt> {
        match side {
            Side::Left => self.left,
            Side::Right => self.right,
        }
    }

    const fn set_child(&mut self, side: Side, child: Option<NodeAt>) {
        match side {
            Side::Left => self.left = child,
            Side::Right => self.right = child,
        }
    }

    const fn unlink(&mut self) {
        self.parent = None;
        self.left = None;
        self.right = None;
    }
}

#[derive(Clone, Copy, Debug)]
struct Member<Id> {
    id: Id,
    node: NodeAt,
    prev: Option<MemberAt>,
    next: Option<MemberAt>,
}

/// How a new node came into the tree.
#[derive(Clone, Copy, Debug)]
enum Linked {
    Fresh,
    /// There is a node with this interval already; the tree is unchanged.
    Existing(NodeAt),
}

/// The radix priority search tree of Linux 2.6, with `vm_set` lists: `address_space.i_mmap` up to 3.6.
///
/// Insertion and removal take at most one walk down the tree, adding beside a sibling none.
#[derive(Clone, Debug)]
pub struct PrioTree<Id> {
    root: Option<NodeAt>,
    index_bits: u32,
    nodes: Arena<Node>,
    members: Arena<Member<Id>>,
    by_id: BTreeMap<Id, MemberAt>,
}

impl<Id> Default for PrioTree<Id> {
    fn default() -> Self {
        Self::new()
    }
}

impl<Id> PrioTree<Id> {
    /// An empty tree.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            root: None,
            index_bits: MIN_INDEX_BITS,
            nodes: Arena::new(),
            members: Arena::new(),
            by_id: BTreeMap::new(),
        }
    }

    /// Bits of `first` that the radix levels look at.
    #[must_use]
    pub const fn index_bits(&self) -> u32 {
        self.index_bits
    }

    /// The number of tree nodes, that is, of distinct intervals held.
    #[must_use]
    pub const fn tree_nodes(&self) -> usize {
        self.nodes.in_use()
    }

    /// Whether an id is in the index, whatever its interval.
    #[must_use]
    pub fn holds(&self, id: Id) -> bool
    where
        Id: Ord,
    {
        self.by_id.contains_key(&id)
    }

    /// The largest `last` that the radix levels can hold.
    const fn max_index(&self) -> u64 {
        u64::MAX >> (OFFSET_BITS - self.index_bits)
    }

    fn node(&self, at: NodeAt) -> &Node {
        self.nodes.get(at.0)
    }

    fn node_mut(&mut self, at: NodeAt) -> &mut Node {
        self.nodes.get_mut(at.0)
    }

    fn member(&self, at: MemberAt) -> &Member<Id> {
        self.members.get(at.0)
    }

    fn member_mut(&mut self, at: MemberAt) -> &mut Member<Id> {
        self.members.get_mut(at.0)
    }

    fn hang(&mut self, parent: NodeAt, side: Side, child: NodeAt) {
        self.node_mut(parent).set_child(side, Some(child));
        self.node_mut(child).parent = Some(parent);
    }

    /// Puts `node` into the place of `old`, links and all. The links of `old` are left as they were, for the caller
    /// to read or to overwrite.
    fn replace(&mut self, old: NodeAt, node: NodeAt) {
        let Node {
            parent, left, right, ..
        } = *self.node(old);
        self.node_mut(node).unlink();
        match parent {
            Some(parent) if self.node(parent).left == Some(old) => {
                self.hang(parent, Side::Left, node);
            }
            Some(parent) => self.hang(parent, Side::Right, node),
            None => self.root = Some(node),
        }
        if let Some(left) = left {
            self.hang(node, Side::Left, left);
        }
        if let Some(right) = right {
            self.hang(node, Side::Right, right);
        }
    }

    /// Walks down with `new` in hand. Wherever it belongs above the node met, the two change roles and the walk goes
    /// on with the node that was there.
    fn link(&mut self, new: NodeAt) -> Linked {
        let Some(root) = self.root.filter(|_| self.node(new).span.last <= self.max_index()) else {
            self.expand(new);
            return Linked::Fresh;
        };
        let (mut carried, mut cur, mut depth) = (new, root, 0);
        loop {
            if self.node(cur).span == self.node(carried).span {
                // Only `new` can have an equal, and had it been put down already, it would stand above that equal
                // against the heap rule.
                return Linked::Existing(cur);
            }
            if self.node(carried).span.above(self.node(cur).span) {
                self.replace(cur, carried);
                std::mem::swap(&mut cur, &mut carried);
            }
            let side = self.node(carried).span.side(depth, self.index_bits);
            let Some(child) = self.node(cur).child(side) else {
                self.node_mut(carried).unlink();
                self.hang(cur, side, carried);
                return Linked::Fresh;
            };
            cur = child;
            depth += 1;
        }
    }

    /// Raises `index_bits` until `new` fits and makes `new` the root.
    ///
    /// The root level that `new` takes pays for one bit. For each further bit, one level more has to be filled above
    /// the old tree, or its sub-trees would branch on the wrong bits: its largest interval is pulled out for that.
    fn expand(&mut self, new: NodeAt) {
        let last = self.node(new).span.last;
        if last > self.max_index() {
            self.index_bits += 1;
        }
        self.node_mut(new).unlink();
        let mut end = new;
        while last > self.max_index() {
            self.index_bits += 1;
            // Pulling out the last node resets `index_bits`; the loop then raises it again from there, over an empty
            // tree.
            if let Some(top) = self.root {
                self.unlink(top);
                self.node_mut(top).unlink();
                self.hang(end, Side::Left, top);
                end = top;
            }
        }
        if let Some(rest) = self.root {
            self.hang(end, Side::Left, rest);
        }
        self.root = Some(new);
    }

    /// Takes `gone` out of the tree: down along the larger children to a leaf, then each node of that path moves one
    /// step up, into the gap.
    fn unlink(&mut self, gone: NodeAt) {
        let mut cur = gone;
        while let Some(child) = self.larger_child(cur) {
            cur = child;
        }
        let Some(parent) = self.node(cur).parent else {
            self.root = None;
            self.index_bits = MIN_INDEX_BITS;
            return;
        };
        let side = if self.node(parent).right == Some(cur) {
            Side::Right
        } else {
            Side::Left
        };
        self.node_mut(parent).set_child(side, None);
        let mut place = Some(parent);
        while cur != gone
            && let Some(above) = place
        {
            place = self.node(above).parent;
            self.replace(above, cur);
            cur = above;
        }
    }

    /// The child to move up when the node leaves: the one with the larger `last`, the left one if they are equal, for
    /// it has the smaller `first`.
    fn larger_child(&self, at: NodeAt) -> Option<NodeAt> {
        let Node { left, right, .. } = *self.node(at);
        match (left, right) {
            (Some(left), Some(right)) if self.node(left).span.last < self.node(right).span.last => {
                Some(right)
            }
            (Some(left), _) => Some(left),
            (None, right) => right,
        }
    }

    /// Puts `member` into the list of its node, directly after `after`.
    fn chain_after(&mut self, after: MemberAt, member: MemberAt) {
        let node = self.member(member).node;
        let next = self.member_mut(after).next.replace(member);
        let entry = self.member_mut(member);
        entry.prev = Some(after);
        entry.next = next;
        match next {
            Some(next) => self.member_mut(next).prev = Some(member),
            None => self.node_mut(node).back = member,
        }
    }
}

impl<Id: Copy + Ord> PrioTree<Id> {
    fn add_member(&mut self, id: Id, node: NodeAt) -> MemberAt {
        let at = MemberAt(self.members.put(Member {
            id,
            node,
            prev: None,
            next: None,
        }));
        self.by_id.insert(id, at);
        at
    }

    fn assert_absent(&self, id: Id) {
        assert!(!self.by_id.contains_key(&id), "a VMA was put into i_mmap twice");
    }
}

impl<Id: Copy + Ord> IntervalIndex<Id> for PrioTree<Id> {
    fn insert(&mut self, first: u64, last: u64, id: Id) -> Placed {
        let span = Span::new(first, last);
        self.assert_absent(id);
        // Node and member name each other, and only the walk tells which node it will be.
        let member = self.add_member(id, NodeAt(u32::MAX));
        let new = NodeAt(self.nodes.put(Node {
            span,
            parent: None,
            left: None,
            right: None,
            front: member,
            back: member,
        }));
        match self.link(new) {
            Linked::Fresh => {
                self.member_mut(member).node = new;
                Placed::TreeNode
            }
            Linked::Existing(node) => {
                self.nodes.release(new.0);
                self.member_mut(member).node = node;
                self.chain_after(self.node(node).back, member);
                Placed::FoundList
            }
        }
    }

    fn insert_beside(&mut self, sibling: Sibling<Id>, first: u64, last: u64, id: Id) -> Placed {
        let span = Span::new(first, last);
        let claimed = Span {
            first: sibling.first,
            last: sibling.last,
        };
        let found = self.by_id.get(&sibling.id).copied();
        let Some(beside) =
            found.filter(|&at| claimed == span && self.node(self.member(at).node).span == span)
        else {
            return self.insert(first, last, id);
        };
        self.assert_absent(id);
        let node = self.member(beside).node;
        let member = self.add_member(id, node);
        let Node { front, back, .. } = *self.node(node);
        self.chain_after(if beside == front { back } else { beside }, member);
        Placed::BesideSibling
    }

    fn remove(&mut self, first: u64, last: u64, id: Id) -> Result<Removed<Id>, NotIndexed> {
        let absent = NotIndexed { first, last };
        let at = *self.by_id.get(&id).ok_or(absent)?;
        let Member { node, prev, next, .. } = *self.member(at);
        if self.node(node).span != (Span { first, last }) {
            return Err(absent);
        }
        if let Some(prev) = prev {
            self.member_mut(prev).next = next;
        }
        if let Some(next) = next {
            self.member_mut(next).prev = prev;
        }
        let removed = match (prev, next) {
            (None, None) => {
                self.unlink(node);
                self.nodes.release(node.0);
                Removed::TreeNode
            }
            (None, Some(head)) => {
                self.node_mut(node).front = head;
                Removed::Promoted(self.member(head).id)
            }
            (Some(prev), None) => {
                self.node_mut(node).back = prev;
                Removed::ListMember
            }
            (Some(_), Some(_)) => Removed::ListMember,
        };
        self.by_id.remove(&id);
        self.members.release(at.0);
        Ok(removed)
    }

    fn visit(&self, first: u64, last: u64) -> Visit<Id> {
        let mut visit = Visit::nothing();
        if first > last {
            return visit;
        }
        let query = Span { first, last };
        let reaches = |at: &NodeAt| self.node(*at).span.last >= query.first;
        // What is still to be entered, the nearest last: node, depth, and the smallest `first` its position admits.
        let mut ahead: Vec<(NodeAt, u32, u64)> = self
            .root
            .filter(reaches)
            .map(|root| (root, 0, 0))
            .into_iter()
            .collect();
        // Tree nodes since the last one met.
        let mut way = 0;
        while let Some((at, depth, prefix)) = ahead.pop() {
            let node = self.node(at);
            way += 1;
            if node.span.intersects(query) {
                let front = self.member(node.front);
                visit.met.push(Met::node(front.id, std::mem::take(&mut way)));
                let mut following = front.next;
                while let Some(at) = following {
                    let member = self.member(at);
                    visit.met.push(Met::member(member.id));
                    following = member.next;
                }
            }
            let right_prefix = if depth < self.index_bits {
                prefix | 1 << (self.index_bits - 1 - depth)
            } else {
                prefix
            };
            if let Some(right) = node.right.filter(reaches).filter(|_| right_prefix <= query.last) {
                ahead.push((right, depth + 1, right_prefix));
            }
            if let Some(left) = node.left.filter(reaches) {
                ahead.push((left, depth + 1, prefix));
            }
        }
        visit.tail = way;
        visit
    }

    fn len(&self) -> usize {
        self.by_id.len()
    }
}

#[cfg(test)]
mod tests;
