//! The radix tree of Linux 2.6.27, `lib/radix-tree.c`: the page cache of a file (`address_space.page_tree`).
//!
//! # The tree
//!
//! A node has 64 slots and looks at six bits of an index. A tree of height `h` holds indices below `64^h`; height 0
//! has no node: the root itself is the item of index 0. An item that does not fit puts as many nodes on top as it
//! takes (`radix_tree_extend`). A removal frees the nodes it emptied, from the leaf up, and if it took something out
//! of the topmost node, that node goes as long as slot 0 is all that is left in it (`radix_tree_shrink`). Hence the
//! height is always the smallest that holds the largest index, whatever the history.
//!
//! Every slot has two tags. A slot of an inner node has a tag if any slot below has it, and so has the root, so that
//! a search for dirty pages descends only where there are some.
//!
//! # Protocol
//!
//! The tree has no lock of its own. Insertion, removal and tags need `tree_lock` with interrupts off; look-ups are
//! lockless since 2.6.27, under RCU, and whoever finds a page takes a reference and looks again (host-mm-paths A.3,
//! A.7). A batch is not a snapshot: pages come and go between two calls.
//!
//! # Cost
//!
//! Each call says how many nodes it stepped on, each of which is a cache line of slots; the caller charges them. A
//! look-up of something that is there steps on as many nodes as the tree is high. A batch starts at the root anew for
//! each leaf it collects from, as `__lookup` does, so it steps on `height` nodes a leaf.
//!
//! # Deviations
//!
//! * The item lies in the node instead of behind a pointer, and a bitmap says which slots are used.
//! * A removal clears the tags while it goes up. The kernel walks down once more for each tag set
//!   (`radix_tree_delete` calls `radix_tree_tag_clear`); those steps, over lines just used, are not reported.
//! * Nodes are there when needed; there is no preload, and nothing waits for a grace period before it is reused.

use crate::arena::Arena;

mod gang;

/// `RADIX_TREE_MAP_SHIFT`: bits of an index that a node looks at (without CONFIG_BASE_SMALL), lib/radix-tree.c
/// 2.6.27.
pub const RADIX_TREE_MAP_SHIFT: u32 = 6;

/// Slots of a node.
const MAP_SIZE: usize = 1 << RADIX_TREE_MAP_SHIFT;

/// Height at which every index fits (`RADIX_TREE_MAX_PATH`).
const MAX_PATH: usize = u64::BITS.div_ceil(RADIX_TREE_MAP_SHIFT) as usize;

/// Number of tags (`RADIX_TREE_MAX_TAGS`), include/linux/radix-tree.h 2.6.27.
const MAX_TAGS: usize = 2;

/// A mark on an item, include/linux/fs.h 2.6.27.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Tag {
    /// `PAGECACHE_TAG_DIRTY`.
    Dirty,
    /// `PAGECACHE_TAG_WRITEBACK`.
    Writeback,
}

impl Tag {
    /// Both.
    pub const ALL: [Tag; MAX_TAGS] = [Tag::Dirty, Tag::Writeback];
}

/// What a call found, and what it stepped on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "a walk is charged by its nodes"]
pub struct Walked<T> {
    /// The answer.
    pub found: T,
    /// Nodes stepped on, new ones among them.
    pub nodes: u64,
}

/// There is an item at the index already (-EEXIST).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Occupied<V>(pub V);

/// What both kinds of nodes have: a bit a slot.
#[derive(Clone, Copy, Debug, Default)]
struct Marks {
    used: u64,
    tags: [u64; MAX_TAGS],
}

/// A node that leads to others.
#[derive(Clone, Debug)]
struct Inner {
    marks: Marks,
    slots: [u32; MAP_SIZE],
}

/// A node of height 1. Slots that are not used hold the item the node was made for.
#[derive(Clone, Debug)]
struct Leaf<V> {
    marks: Marks,
    slots: [V; MAP_SIZE],
}

#[derive(Clone, Copy, Debug)]
enum Root<V> {
    Empty,
    /// Height 0.
    Item(V),
    Node {
        height: u32,
        at: u32,
    },
}

/// The way down to an index.
struct Descent<V> {
    /// Nodes by height, from 1.
    path: [u32; MAX_PATH],
    height: u32,
    item: Option<V>,
    nodes: u64,
}

/// The largest index below a node of this height.
const fn max_index(height: u32) -> u64 {
    let bits = height * RADIX_TREE_MAP_SHIFT;
    if bits >= u64::BITS {
        u64::MAX
    } else {
        (1 << bits) - 1
    }
}

/// Slot of an index in a node of this height.
const fn slot(index: u64, height: u32) -> u32 {
    (index >> ((height - 1) * RADIX_TREE_MAP_SHIFT)) as u32 % MAP_SIZE as u32
}

/// The smallest height at which an index fits.
const fn height_of(index: u64) -> u32 {
    (u64::BITS - index.leading_zeros()).div_ceil(RADIX_TREE_MAP_SHIFT)
}

/// A map from indices to items, with tags.
#[derive(Clone, Debug)]
pub struct RadixTree<V> {
    root: Root<V>,
    root_tags: [bool; MAX_TAGS],
    inner: Arena<Inner>,
    leaves: Arena<Leaf<V>>,
    len: u64,
}

impl<V: Copy> Default for RadixTree<V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<V: Copy> RadixTree<V> {
    /// An empty tree.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            root: Root::Empty,
            root_tags: [false; MAX_TAGS],
            inner: Arena::new(),
            leaves: Arena::new(),
            len: 0,
        }
    }

    /// Number of items (`nrpages`).
    #[must_use]
    pub const fn len(&self) -> u64 {
        self.len
    }

    /// Whether there is no item.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Levels of nodes.
    #[must_use]
    pub const fn height(&self) -> u32 {
        match self.root {
            Root::Empty | Root::Item(_) => 0,
            Root::Node { height, .. } => height,
        }
    }

    /// Number of nodes.
    #[must_use]
    pub const fn nodes(&self) -> usize {
        self.inner.in_use() + self.leaves.in_use()
    }

    /// `radix_tree_lookup`.
    #[inline]
    pub fn lookup(&self, index: u64) -> Walked<Option<V>> {
        let nothing = |nodes| Walked { found: None, nodes };
        let (height, mut at) = match self.root {
            Root::Node { height, at } if index <= max_index(height) => (height, at),
            Root::Item(item) if index == 0 => {
                return Walked {
                    found: Some(item),
                    nodes: 0,
                };
            }
            _ => return nothing(0),
        };
        for level in (2..=height).rev() {
            let node = self.inner.get(at);
            let slot = slot(index, level);
            if node.marks.used >> slot & 1 == 0 {
                return nothing(u64::from(height - level + 1));
            }
            at = node.slots[slot as usize];
        }
        let (leaf, slot) = (self.leaves.get(at), slot(index, 1));
        Walked {
            found: (leaf.marks.used >> slot & 1 != 0).then(|| leaf.slots[slot as usize]),
            nodes: u64::from(height),
        }
    }

    /// The item of an index, for those who charge nothing: checks, and looks at what was walked to just before.
    #[must_use]
    pub fn get(&self, index: u64) -> Option<V> {
        self.lookup(index).found
    }

    /// `radix_tree_insert`.
    pub fn insert(&mut self, index: u64, item: V) -> Walked<Result<(), Occupied<V>>> {
        if index == 0 {
            match self.root {
                Root::Empty => {
                    self.root = Root::Item(item);
                    self.len = 1;
                    return Walked {
                        found: Ok(()),
                        nodes: 0,
                    };
                }
                Root::Item(there) => {
                    return Walked {
                        found: Err(Occupied(there)),
                        nodes: 0,
                    };
                }
                Root::Node { .. } => {}
            }
        }
        let (height, mut at) = self.extend(index, item);
        for level in (2..=height).rev() {
            let slot = slot(index, level);
            let node = self.inner.get(at);
            at = if node.marks.used >> slot & 1 == 0 {
                let below = self.new_node(level - 1, item);
                self.hang(at, slot, below);
                below
            } else {
                node.slots[slot as usize]
            };
        }
        let (leaf, slot) = (self.leaves.get_mut(at), slot(index, 1));
        let found = if leaf.marks.used >> slot & 1 != 0 {
            Err(Occupied(leaf.slots[slot as usize]))
        } else {
            leaf.slots[slot as usize] = item;
            leaf.marks.used |= 1 << slot;
            self.len += 1;
            Ok(())
        };
        Walked {
            found,
            nodes: u64::from(height),
        }
    }

    /// `radix_tree_replace_slot`: another item at an index, which keeps its tags.
    ///
    /// # Panics
    /// If there is nothing at the index.
    pub fn replace(&mut self, index: u64, item: V) -> Walked<V> {
        let Descent {
            path,
            height,
            item: before,
            nodes,
        } = self.descend(index);
        let found = before.expect("only what is in the tree is replaced");
        if height == 0 {
            self.root = Root::Item(item);
        } else {
            self.leaves.get_mut(path[0]).slots[slot(index, 1) as usize] = item;
        }
        Walked { found, nodes }
    }

    /// `radix_tree_delete`, tags included.
    pub fn remove(&mut self, index: u64) -> Walked<Option<V>> {
        let Descent {
            path,
            height,
            item,
            nodes,
        } = self.descend(index);
        let walked = Walked { found: item, nodes };
        if item.is_none() {
            return walked;
        }
        self.len -= 1;
        for tag in Tag::ALL {
            self.untag(&path, height, index, tag);
        }
        for level in 1..=height {
            let at = path[level as usize - 1];
            let marks = self.marks_mut(level, at);
            marks.used &= !(1 << slot(index, level));
            if marks.used != 0 {
                if level == height {
                    self.shrink();
                }
                return walked;
            }
            self.free_node(level, at);
        }
        self.root = Root::Empty;
        walked
    }

    /// `radix_tree_tag_set`.
    ///
    /// # Panics
    /// If there is nothing at the index (a BUG in the kernel, too).
    pub fn tag_set(&mut self, index: u64, tag: Tag) -> Walked<V> {
        let Descent {
            path,
            height,
            item,
            nodes,
        } = self.descend(index);
        let found = item.expect("only what is in the tree is tagged");
        for level in 1..=height {
            self.marks_mut(level, path[level as usize - 1]).tags[tag as usize] |= 1 << slot(index, level);
        }
        self.root_tags[tag as usize] = true;
        Walked { found, nodes }
    }

    /// `radix_tree_tag_clear`: the item, if there is one.
    pub fn tag_clear(&mut self, index: u64, tag: Tag) -> Walked<Option<V>> {
        let Descent {
            path,
            height,
            item,
            nodes,
        } = self.descend(index);
        if item.is_some() {
            self.untag(&path, height, index, tag);
        }
        Walked { found: item, nodes }
    }

    /// `radix_tree_tag_get`. If the root does not have the tag, nothing is walked.
    pub fn tagged(&self, index: u64, tag: Tag) -> Walked<bool> {
        if !self.any_tagged(tag) {
            return Walked {
                found: false,
                nodes: 0,
            };
        }
        let Descent {
            path,
            height,
            item,
            nodes,
        } = self.descend(index);
        let found = item.is_some()
            && (height == 0 || self.marks(1, path[0]).tags[tag as usize] >> slot(index, 1) & 1 != 0);
        Walked { found, nodes }
    }

    /// `radix_tree_tagged`: whether any item has the tag.
    #[must_use]
    pub const fn any_tagged(&self, tag: Tag) -> bool {
        self.root_tags[tag as usize]
    }

    fn marks(&self, height: u32, at: u32) -> &Marks {
        if height == 1 {
            &self.leaves.get(at).marks
        } else {
            &self.inner.get(at).marks
        }
    }

    fn marks_mut(&mut self, height: u32, at: u32) -> &mut Marks {
        if height == 1 {
            &mut self.leaves.get_mut(at).marks
        } else {
            &mut self.inner.get_mut(at).marks
        }
    }

    fn new_node(&mut self, height: u32, filler: V) -> u32 {
        let marks = Marks::default();
        if height == 1 {
            let slots = [filler; MAP_SIZE];
            self.leaves.put(Leaf { marks, slots })
        } else {
            let slots = [u32::MAX; MAP_SIZE];
            self.inner.put(Inner { marks, slots })
        }
    }

    fn free_node(&mut self, height: u32, at: u32) {
        if height == 1 {
            self.leaves.release(at);
        } else {
            self.inner.release(at);
        }
    }

    fn hang(&mut self, parent: u32, slot: u32, child: u32) {
        let node = self.inner.get_mut(parent);
        node.slots[slot as usize] = child;
        node.marks.used |= 1 << slot;
    }

    /// `radix_tree_extend`: as many nodes on top as it takes for an index to fit. Gives height and topmost node.
    fn extend(&mut self, index: u64, filler: V) -> (u32, u32) {
        let (mut height, mut top) = match self.root {
            Root::Node { height, at } => (height, at),
            Root::Empty => {
                let height = height_of(index);
                (height, self.new_node(height, filler))
            }
            Root::Item(item) => {
                let leaf = self.new_node(1, item);
                self.leaves.get_mut(leaf).marks.used = 1;
                self.copy_root_tags(1, leaf);
                (1, leaf)
            }
        };
        while index > max_index(height) {
            height += 1;
            let above = self.new_node(height, filler);
            self.hang(above, 0, top);
            self.copy_root_tags(height, above);
            top = above;
        }
        self.root = Root::Node { height, at: top };
        (height, top)
    }

    /// Gives the first slot of a new topmost node the tags that all below it have together.
    fn copy_root_tags(&mut self, height: u32, at: u32) {
        let tags = self.root_tags.map(u64::from);
        self.marks_mut(height, at).tags = tags;
    }

    /// `radix_tree_shrink`.
    fn shrink(&mut self) {
        while let Root::Node { height, at } = self.root
            && self.marks(height, at).used == 1
        {
            self.root = if height == 1 {
                Root::Item(self.leaves.get(at).slots[0])
            } else {
                Root::Node {
                    height: height - 1,
                    at: self.inner.get(at).slots[0],
                }
            };
            self.free_node(height, at);
        }
    }

    fn descend(&self, index: u64) -> Descent<V> {
        let mut path = [u32::MAX; MAX_PATH];
        let height = self.height();
        let mut nodes = 0;
        let item = match self.root {
            Root::Item(item) if index == 0 => Some(item),
            Root::Node { at: top, .. } if index <= max_index(height) => {
                let mut at = Some(top);
                for level in (2..=height).rev() {
                    let Some(here) = at else { break };
                    nodes += 1;
                    path[level as usize - 1] = here;
                    let node = self.inner.get(here);
                    let slot = slot(index, level);
                    at = (node.marks.used >> slot & 1 != 0).then(|| node.slots[slot as usize]);
                }
                at.and_then(|here| {
                    nodes += 1;
                    path[0] = here;
                    let (leaf, slot) = (self.leaves.get(here), slot(index, 1));
                    (leaf.marks.used >> slot & 1 != 0).then(|| leaf.slots[slot as usize])
                })
            }
            _ => None,
        };
        Descent {
            path,
            height,
            item,
            nodes,
        }
    }

    /// Takes a tag off along a path, from the leaf up, as far as nothing else in the node has it.
    fn untag(&mut self, path: &[u32; MAX_PATH], height: u32, index: u64, tag: Tag) {
        for level in 1..=height {
            let bit = 1 << slot(index, level);
            let tags = &mut self.marks_mut(level, path[level as usize - 1]).tags[tag as usize];
            if *tags & bit == 0 {
                return;
            }
            *tags &= !bit;
            if *tags != 0 {
                return;
            }
        }
        self.root_tags[tag as usize] = false;
    }
}

#[cfg(test)]
mod tests;
