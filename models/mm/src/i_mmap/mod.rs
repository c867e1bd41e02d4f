//! The `i_mmap` index of an `address_space`: which VMAs map these pages of this file.
//!
//! # Protocol
//!
//! A file that is mapped has one index, and every VMA of the file is in it exactly once, under the closed interval of
//! file pages `[vm_pgoff, vm_pgoff + pages - 1]`. The exception are the nonlinear VMAs of `remap_file_pages`, which
//! 2.6.27 keeps on a list of its own, outside this index. Truncation, reverse mapping of file pages and hole punching
//! ask the index for the VMAs that intersect an interval: a single page is `[i, i]`, a truncation to `s` bytes begins
//! at `ceil(s / 4096)` and ends at `u64::MAX`.
//!
//! The index has no lock of its own. It is stable only under the lock of its `address_space`: `i_mmap_lock`, a
//! spinlock, in Linux 2.6.27 (`include/linux/fs.h`), `i_mmap_rwsem`, which may be held shared by readers, in Linux
//! 6.12. [`IntervalIndex::insert`], [`IntervalIndex::insert_beside`] and [`IntervalIndex::remove`] need it
//! exclusively; [`IntervalIndex::visit`] needs it at least shared. A VMA that changes `vm_pgoff` or its length is
//! taken out before and put back after, within one hold of the lock, because its interval is its key.
//!
//! **A walk does not survive a drop of the lock.** Whoever drops it in the middle of a walk has to walk again from
//! the beginning and skip the VMAs it already did. This is what `unmap_mapping_range_tree` of 2.6.27 (`mm/memory.c`)
//! does with `truncate_count`. Hence [`Visit`] is a plain list of ids: it is meaningful until the lock is dropped,
//! and nothing in it lets a walk be resumed afterwards.
//!
//! Which tree stands behind the trait belongs to the kernel ([`IMmap`]): the radix priority search tree
//! ([`PrioTree`]) up to 3.6, and in all profiles shipped, the augmented red-black interval tree
//! ([`IntervalTree`]) since. They differ in what a benchmark sees: the order of the visits, the nodes touched,
//! and whether a thousand processes that map one range are a thousand nodes or one node with a list.

mod interval_tree;
mod prio_tree;
#[cfg(test)]
mod scripts;

use std::fmt;

pub use interval_tree::IntervalTree;
pub use prio_tree::PrioTree;

use crate::profile::IMmapIndex;

/// An index of closed page intervals, each owned by one id, that lists the ids whose interval intersects a given one.
///
/// An id is in the index at most once. The lock that makes the calls legal is the caller's business: see the module
/// documentation.
pub trait IntervalIndex<Id: Copy + Eq> {
    /// Adds `id` with the interval `[first, last]`.
    ///
    /// # Panics
    ///
    /// If `first > last` or `id` is already in the index. Either is a bug of the caller; the kernel would silently
    /// corrupt its tree.
    fn insert(&mut self, first: u64, last: u64, id: Id) -> Placed;

    /// Adds `id` with the interval `[first, last]` right beside a relative that is known to have the identical
    /// interval, without a search.
    ///
    /// Falls back to [`insert`](Self::insert) when the intervals differ, or when the index does not hold the sibling
    /// under the interval claimed.
    ///
    /// # Panics
    ///
    /// As [`insert`](Self::insert).
    fn insert_beside(&mut self, sibling: Sibling<Id>, first: u64, last: u64, id: Id) -> Placed;

    /// Takes `id` out, which must be in the index with exactly the interval `[first, last]`. On an error nothing has
    /// changed.
    ///
    /// # Errors
    ///
    /// [`NotIndexed`] when the index does not hold `id`, or holds it with another interval.
    fn remove(&mut self, first: u64, last: u64, id: Id) -> Result<Removed<Id>, NotIndexed>;

    /// The ids whose interval intersects `[first, last]`, in the order in which the kernel meets them. Nothing
    /// intersects an interval with `first > last`.
    fn visit(&self, first: u64, last: u64) -> Visit<Id>;

    /// The number of ids held.
    fn len(&self) -> usize;

    /// Whether no id is held.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The relative beside which [`IntervalIndex::insert_beside`] puts a new id.
///
/// The interval is part of it because an index need not be able to find an id without its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sibling<Id> {
    /// Who is in the index already.
    pub id: Id,
    /// First page of its interval.
    pub first: u64,
    /// Last page of its interval, inclusive.
    pub last: u64,
}

/// Where an insertion put the id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placed {
    /// It became a node of the tree: rebalancing or a walk down the tree was paid. In an interval tree everything
    /// does, also what was put beside a sibling.
    TreeNode,
    /// It joined the list of a node with the same interval, found by a walk down the tree.
    FoundList,
    /// It joined the list of its sibling in constant time.
    BesideSibling,
}

/// What a removal did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removed<Id> {
    /// The id was a list member: the tree was not touched.
    ListMember,
    /// The id was a tree node with a list: the head of the list, named here, took its place without a walk.
    Promoted(Id),
    /// The id was a tree node without a list: the node left the tree.
    TreeNode,
}

/// The answer to [`IntervalIndex::visit`]: valid until the lock of the index is dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Visit<Id> {
    /// What was met, in the order of the kernel.
    pub met: Vec<Met<Id>>,
    /// Tree nodes stepped on after the last that intersects, until the walk ran out. Whoever breaks off never comes
    /// there.
    pub tail: u32,
}

/// An id that was met, and the way to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Met<Id> {
    /// The id.
    pub id: Id,
    // Tree nodes stepped on, or `MEMBER`.
    way: u32,
}

/// A list member is a step from the id before it.
const MEMBER: u32 = u32::MAX;

impl<Id> Met<Id> {
    /// A tree node, and the tree nodes stepped on since the one that was met before it, itself included,
    /// whether or not they intersect. Children that were looked at and refused are not counted, nor are steps
    /// back up; so it can be none, where the way to an earlier id led through this one.
    pub(crate) const fn node(id: Id, nodes: u32) -> Self {
        Self { id, way: nodes }
    }

    /// A list member.
    pub(crate) const fn member(id: Id) -> Self {
        Self { id, way: MEMBER }
    }

    /// Tree nodes and list members stepped on since the id before it.
    #[must_use]
    pub const fn steps(&self) -> (u32, u32) {
        if self.way == MEMBER { (0, 1) } else { (self.way, 0) }
    }
}

impl<Id: Copy> Visit<Id> {
    /// The answer of an index in which nothing was met.
    const fn nothing() -> Self {
        Self {
            met: Vec::new(),
            tail: 0,
        }
    }

    /// A list without a tree.
    pub(crate) fn of_list(ids: &[Id]) -> Self {
        Self {
            met: ids.iter().copied().map(Met::member).collect(),
            tail: 0,
        }
    }

    /// A tree node intersects: `tail` is the way to it.
    fn meet_node(&mut self, id: Id) {
        self.met.push(Met::node(id, self.tail));
        self.tail = 0;
    }

    /// The ids met.
    pub fn ids(&self) -> impl Iterator<Item = Id> {
        self.met.iter().map(|met| met.id)
    }

    /// Tree nodes and list members that the whole walk stepped on.
    #[must_use]
    pub fn steps(&self) -> (u32, u32) {
        let sum = |(a, b): (u32, u32), (c, d): (u32, u32)| (a + c, b + d);
        self.met.iter().map(Met::steps).fold((self.tail, 0), sum)
    }
}

/// The id to remove is not in the index with the interval given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotIndexed {
    /// First page of the interval that was asked for.
    pub first: u64,
    /// Last page of the interval that was asked for, inclusive.
    pub last: u64,
}

impl fmt::Display for NotIndexed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "no such mapping of file pages {:#x}..={:#x} in i_mmap",
            self.first, self.last
        )
    }
}

impl std::error::Error for NotIndexed {}

/// The `i_mmap` of a file, with the index of its kernel.
#[derive(Clone, Debug)]
pub enum IMmap<Id> {
    /// Up to Linux 3.6.
    PrioTree(PrioTree<Id>),
    /// Since Linux 3.7.
    IntervalTree(IntervalTree<Id>),
}

impl<Id: Copy + Ord> IMmap<Id> {
    /// An empty index of a kind.
    #[must_use]
    pub const fn new(kind: IMmapIndex) -> Self {
        match kind {
            IMmapIndex::PrioTree => IMmap::PrioTree(PrioTree::new()),
            IMmapIndex::IntervalTree => IMmap::IntervalTree(IntervalTree::new()),
        }
    }

    /// Whether an id is in the index, whatever its interval.
    #[must_use]
    pub fn holds(&self, id: Id) -> bool {
        match self {
            IMmap::PrioTree(tree) => tree.holds(id),
            IMmap::IntervalTree(tree) => tree.holds(id),
        }
    }
}

impl<Id: Copy + Ord> IntervalIndex<Id> for IMmap<Id> {
    fn insert(&mut self, first: u64, last: u64, id: Id) -> Placed {
        match self {
            IMmap::PrioTree(tree) => tree.insert(first, last, id),
            IMmap::IntervalTree(tree) => tree.insert(first, last, id),
        }
    }

    fn insert_beside(&mut self, sibling: Sibling<Id>, first: u64, last: u64, id: Id) -> Placed {
        match self {
            IMmap::PrioTree(tree) => tree.insert_beside(sibling, first, last, id),
            IMmap::IntervalTree(tree) => tree.insert_beside(sibling, first, last, id),
        }
    }

    fn remove(&mut self, first: u64, last: u64, id: Id) -> Result<Removed<Id>, NotIndexed> {
        match self {
            IMmap::PrioTree(tree) => tree.remove(first, last, id),
            IMmap::IntervalTree(tree) => tree.remove(first, last, id),
        }
    }

    fn visit(&self, first: u64, last: u64) -> Visit<Id> {
        match self {
            IMmap::PrioTree(tree) => tree.visit(first, last),
            IMmap::IntervalTree(tree) => tree.visit(first, last),
        }
    }

    fn len(&self) -> usize {
        match self {
            IMmap::PrioTree(tree) => tree.len(),
            IMmap::IntervalTree(tree) => tree.len(),
        }
    }
}
