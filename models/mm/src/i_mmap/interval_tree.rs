//! The augmented red-black interval tree of Linux since 3.7 (recalled), `include/linux/interval_tree_generic.h` and
//! `mm/interval_tree.c` (the tree of VMAs) over `lib/rbtree.c`; read for 6.12 (host-mm-paths D.2).
//!
//! # The tree
//!
//! One node for each VMA, identical intervals or not, in ascending `first`; among equal ones in the order in
//! which they came (an equal key goes right). Each node knows the largest `last` of its sub-tree. The node
//! with the smallest `first` is remembered.
//!
//! A VMA added beside a relative with the identical interval (`vma_interval_tree_insert_after`, which only `dup_mmap`
//! uses) becomes the relative's successor: its right child if that place is free, else the leftmost below it. No key
//! is compared on the way.
//!
//! # The walk
//!
//! Nothing is stepped on if the largest `last` of the tree lies before the query or the smallest `first` behind it.
//! Otherwise in order, which is ascending `first`: a left child is entered only if its sub-tree reaches the query, a
//! right child only if moreover its parent's `first` does not lie behind the query.
//!
//! # Deviations
//!
//! * The kernel embeds the links in the VMA. Here nodes are arena slots, and an ordered map from id to slot
//!   stands for the pointer.
//! * The kernel's walk goes from match to match, down with `subtree_search` and up through the parents with
//!   `iter_next`. The walk here is answered whole, since it must not outlive the lock anyway, and goes down once. It
//!   steps on the same nodes in the same order: the kernel's steps up lead to nodes it came down through, and are not
//!   counted.

use std::collections::BTreeMap;

use super::{IntervalIndex, NotIndexed, Placed, Removed, Sibling, Visit};
use crate::arena::Arena;

/// Slot of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct At(u32);

/// One of the two children of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Left,
    Right,
}

impl Side {
    const fn other(self) -> Side {
        match self {
            Side::Left => Side::Right,
            Side::Right => Side::Left,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Colour {
    Red,
    Black,
}

#[derive(Clone, Copy, Debug)]
struct Node<Id> {
    id: Id,
    first: u64,
    last: u64,
    /// `rb_subtree_last`: the largest `last` from here down.
    reach: u64,
    colour: Colour,
    parent: Option<At>,
    left: Option<At>,
    right: Option<At>,
}

impl<Id> Node<Id> {
    const fn child(&self, side: Side) -> Option<At> {
        match side {
            Side::Left => self.left,
            Side::Right => self.right,
        }
    }

    const fn set_child(&mut self, side: Side, child: Option<At>) {
        match side {
            Side::Left => self.left = child,
            Side::Right => self.right = child,
        }
    }
}

/// An `i_mmap` of kernels that have the interval tree.
#[derive(Clone, Debug)]
pub struct IntervalTree<Id> {
    root: Option<At>,
    /// `rb_leftmost`.
    leftmost: Option<At>,
    nodes: Arena<Node<Id>>,
    by_id: BTreeMap<Id, At>,
}

impl<Id: Copy + Ord> Default for IntervalTree<Id> {
    fn default() -> Self {
        Self::new()
    }
}

/// Links.
impl<Id> IntervalTree<Id> {
    /// An empty tree.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            root: None,
            leftmost: None,
            nodes: Arena::new(),
            by_id: BTreeMap::new(),
        }
    }

    /// Whether an id is in the index, whatever its interval.
    #[must_use]
    pub fn holds(&self, id: Id) -> bool
    where
        Id: Ord,
    {
        self.by_id.contains_key(&id)
    }

    fn node(&self, at: At) -> &Node<Id> {
        self.nodes.get(at.0)
    }

    fn node_mut(&mut self, at: At) -> &mut Node<Id> {
        self.nodes.get_mut(at.0)
    }

    /// Which child of its parent a node is.
    fn side_of(&self, parent: At, child: At) -> Side {
        if self.node(parent).left == Some(child) {
            Side::Left
        } else {
            Side::Right
        }
    }

    /// Outside of the tree everything is black.
    fn is_red(&self, at: Option<At>) -> bool {
        at.is_some_and(|at| self.node(at).colour == Colour::Red)
    }

    fn outermost(&self, mut at: At, side: Side) -> At {
        while let Some(child) = self.node(at).child(side) {
            at = child;
        }
        at
    }

    fn hang(&mut self, parent: Option<At>, side: Side, child: Option<At>) {
        match parent {
            Some(parent) => self.node_mut(parent).set_child(side, child),
            None => self.root = child,
        }
        if let Some(child) = child {
            self.node_mut(child).parent = parent;
        }
    }

    /// Puts `new` where `old` hangs.
    fn replace(&mut self, old: At, new: Option<At>) {
        let parent = self.node(old).parent;
        let side = parent.map_or(Side::Left, |parent| self.side_of(parent, old));
        self.hang(parent, side, new);
    }

    /// Works out anew how far a node's sub-tree reaches.
    fn refresh(&mut self, at: At) {
        let node = self.node(at);
        let below = [node.left, node.right]
            .into_iter()
            .flatten()
            .map(|child| self.node(child).reach)
            .max();
        let reach = below.map_or(node.last, |below| below.max(node.last));
        self.node_mut(at).reach = reach;
    }

    fn refresh_upwards(&mut self, from: Option<At>) {
        let mut next = from;
        while let Some(at) = next {
            self.refresh(at);
            next = self.node(at).parent;
        }
    }

    /// Lets a node sink to a side; its child of the other side takes its place. What they reach together stays.
    fn rotate(&mut self, at: At, side: Side) -> At {
        let risen = self.node(at).child(side.other()).expect("a child rises");
        let inner = self.node(risen).child(side);
        self.replace(at, Some(risen));
        self.hang(Some(at), side.other(), inner);
        self.hang(Some(risen), side, Some(at));
        self.refresh(at);
        self.refresh(risen);
        risen
    }
}

/// Insertion and removal.
impl<Id: Copy + Ord> IntervalTree<Id> {
    fn add(&mut self, id: Id, first: u64, last: u64, parent: Option<At>, side: Side) -> At {
        let at = At(self.nodes.put(Node {
            id,
            first,
            last,
            reach: last,
            colour: Colour::Red,
            parent: None,
            left: None,
            right: None,
        }));
        self.by_id.insert(id, at);
        self.hang(parent, side, Some(at));
        self.refresh_upwards(parent);
        self.balance_insertion(at);
        at
    }

    /// A new red node may have a red parent: colours are pushed up, or turned away with at most two rotations.
    fn balance_insertion(&mut self, new: At) {
        let mut at = new;
        while let Some(parent) = self.node(at).parent
            && self.node(parent).colour == Colour::Red
        {
            let top = self.node(parent).parent.expect("the root is black");
            let side = self.side_of(top, parent);
            let uncle = self.node(top).child(side.other());
            if let Some(uncle) = uncle.filter(|uncle| self.is_red(Some(*uncle))) {
                self.node_mut(parent).colour = Colour::Black;
                self.node_mut(uncle).colour = Colour::Black;
                self.node_mut(top).colour = Colour::Red;
                at = top;
                continue;
            }
            let upper = if self.side_of(parent, at) == side {
                parent
            } else {
                self.rotate(parent, side)
            };
            self.node_mut(upper).colour = Colour::Black;
            self.node_mut(top).colour = Colour::Red;
            self.rotate(top, side.other());
            break;
        }
        if let Some(root) = self.root {
            self.node_mut(root).colour = Colour::Black;
        }
    }

    /// Takes a node out of the tree. One with two children is replaced by its successor, in its colour.
    fn unlink(&mut self, gone: At) {
        let Node {
            left, right, colour, ..
        } = *self.node(gone);
        let (lost, parent, side) = match (left, right) {
            (Some(left), Some(right)) => {
                let heir = self.outermost(right, Side::Left);
                let lost = self.node(heir).colour;
                let (parent, side) = if heir == right {
                    (heir, Side::Right)
                } else {
                    let parent = self.node(heir).parent.expect("it is below `right`");
                    let orphan = self.node(heir).right;
                    self.hang(Some(parent), Side::Left, orphan);
                    self.hang(Some(heir), Side::Right, Some(right));
                    (parent, Side::Left)
                };
                self.replace(gone, Some(heir));
                self.hang(Some(heir), Side::Left, Some(left));
                self.node_mut(heir).colour = colour;
                (lost, Some(parent), side)
            }
            (only, None) | (None, only) => {
                let parent = self.node(gone).parent;
                let side = parent.map_or(Side::Left, |parent| self.side_of(parent, gone));
                self.hang(parent, side, only);
                (colour, parent, side)
            }
        };
        self.refresh_upwards(parent);
        if lost == Colour::Black {
            self.balance_removal(parent, side);
        }
    }

    /// Below `side` of `parent` every path lacks a black node: a red one there takes the colour, else one is borrowed
    /// from the sibling, or the lack is pushed up.
    fn balance_removal(&mut self, parent: Option<At>, side: Side) {
        let mut short = (parent, side);
        loop {
            let (parent, side) = short;
            let at = parent.map_or(self.root, |parent| self.node(parent).child(side));
            if let Some(red) = at.filter(|at| self.is_red(Some(*at))) {
                self.node_mut(red).colour = Colour::Black;
                return;
            }
            let Some(parent) = parent else { return };
            let mut sibling = self.sibling(parent, side);
            if self.node(sibling).colour == Colour::Red {
                self.rotate(parent, side);
                self.node_mut(sibling).colour = Colour::Black;
                self.node_mut(parent).colour = Colour::Red;
                sibling = self.sibling(parent, side);
            }
            let far = self.node(sibling).child(side.other());
            let near = self.node(sibling).child(side);
            if !self.is_red(far) && !self.is_red(near) {
                self.node_mut(sibling).colour = Colour::Red;
                let above = self.node(parent).parent;
                short = (
                    above,
                    above.map_or(Side::Left, |above| self.side_of(above, parent)),
                );
                continue;
            }
            if !self.is_red(far) {
                sibling = self.rotate(sibling, side.other());
            }
            let outer = self.node(sibling).child(side.other()).expect("a red nephew");
            self.node_mut(outer).colour = Colour::Black;
            self.node_mut(sibling).colour = self.node(parent).colour;
            self.node_mut(parent).colour = Colour::Black;
            self.rotate(parent, side);
            return;
        }
    }

    fn sibling(&self, parent: At, side: Side) -> At {
        let sibling = self.node(parent).child(side.other());
        sibling.expect("where a black node is lacking, the other side has one")
    }

    fn assert_new(&self, first: u64, last: u64, id: Id) {
        assert!(
            first <= last,
            "inverted interval of file pages {first:#x}..={last:#x}"
        );
        assert!(!self.by_id.contains_key(&id), "a VMA was put into i_mmap twice");
    }

    /// The node of an id, if it is there with this interval.
    fn find(&self, id: Id, first: u64, last: u64) -> Option<At> {
        let at = *self.by_id.get(&id)?;
        let node = self.node(at);
        ((node.first, node.last) == (first, last)).then_some(at)
    }

    /// In order from a node whose sub-tree reaches the query. A path is at most twice as long as the logarithm of the
    /// number of nodes, so this may call itself.
    fn visit_below(&self, at: At, first: u64, last: u64, visit: &mut Visit<Id>) {
        let node = self.node(at);
        let reaching = |child: Option<At>| child.filter(|child| self.node(*child).reach >= first);
        visit.tail += 1;
        if let Some(left) = reaching(node.left) {
            self.visit_below(left, first, last, visit);
        }
        if node.first > last {
            return;
        }
        if node.last >= first {
            visit.meet_node(node.id);
        }
        if let Some(right) = reaching(node.right) {
            self.visit_below(right, first, last, visit);
        }
    }
}

impl<Id: Copy + Ord> IntervalIndex<Id> for IntervalTree<Id> {
    fn insert(&mut self, first: u64, last: u64, id: Id) -> Placed {
        self.assert_new(first, last, id);
        let (mut parent, mut side, mut smallest) = (None, Side::Left, true);
        let mut next = self.root;
        while let Some(at) = next {
            side = if first < self.node(at).first {
                Side::Left
            } else {
                smallest = false;
                Side::Right
            };
            parent = Some(at);
            next = self.node(at).child(side);
        }
        let at = self.add(id, first, last, parent, side);
        if smallest {
            self.leftmost = Some(at);
        }
        Placed::TreeNode
    }

    fn insert_beside(&mut self, sibling: Sibling<Id>, first: u64, last: u64, id: Id) -> Placed {
        let beside = self
            .find(sibling.id, first, last)
            .filter(|_| (sibling.first, sibling.last) == (first, last));
        let Some(beside) = beside else {
            return self.insert(first, last, id);
        };
        self.assert_new(first, last, id);
        let (parent, side) = match self.node(beside).right {
            None => (beside, Side::Right),
            Some(right) => (self.outermost(right, Side::Left), Side::Left),
        };
        self.add(id, first, last, Some(parent), side);
        Placed::TreeNode
    }

    fn remove(&mut self, first: u64, last: u64, id: Id) -> Result<Removed<Id>, NotIndexed> {
        let at = self.find(id, first, last).ok_or(NotIndexed { first, last })?;
        if self.leftmost == Some(at) {
            // It has no left child: its successor is below its right child, or its parent.
            let right = self.node(at).right;
            self.leftmost = right.map_or(self.node(at).parent, |right| {
                Some(self.outermost(right, Side::Left))
            });
        }
        self.unlink(at);
        self.by_id.remove(&id);
        self.nodes.release(at.0);
        Ok(Removed::TreeNode)
    }

    fn visit(&self, first: u64, last: u64) -> Visit<Id> {
        let mut visit = Visit::nothing();
        let begins = self.leftmost.is_some_and(|at| self.node(at).first <= last);
        if let Some(root) = self.root
            && first <= last
            && begins
            && self.node(root).reach >= first
        {
            self.visit_below(root, first, last, &mut visit);
        }
        visit
    }

    fn len(&self) -> usize {
        self.by_id.len()
    }
}

#[cfg(test)]
mod tests;
